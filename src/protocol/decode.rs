//! The text of one message to a [`ClientMessage`].

use schemas::SensorRole;
use xxhash_rust::xxh3::xxh3_64;

use super::budget::{ECHO_LIMIT_BYTES, clip};
use super::fields::{Fields, Scalar};
use super::frames::Data;
use super::{ClientMessage, Error, FrameFault, FramePacket};

/// The firmware's power-on default, which means no session.
const NO_SESSION: &str = "041025";

/// Who is at the other end of a socket; each knows types of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/ws/esp32/{device_code}/`
    Device,
    /// `/ws/miniprogram/{user_id}/`
    User,
    /// `/ws/admin/`
    Admin,
    /// `/`
    Root,
}

impl Endpoint {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::User => "user",
            Self::Admin => "admin",
            Self::Root => "root",
        }
    }
}

/// Reads one message.
///
/// # Errors
/// Everything that is not a message of this endpoint; [`Error`] says what, in words for the client.
pub fn decode(endpoint: Endpoint, text: &str) -> Result<ClientMessage, Error> {
    match endpoint {
        Endpoint::Device => device(text),
        Endpoint::User => user(text),
        Endpoint::Admin => admin(text),
        Endpoint::Root => root(text),
    }
}

fn device(text: &str) -> Result<ClientMessage, Error> {
    let mut fields = Fields::read(text)?;
    match kind(&fields)? {
        "batch_sensor_data" => batch(text, fields).map(ClientMessage::Batch),
        "sensor_data" => sample(text, fields).map(ClientMessage::Sample),
        "upload_complete" => Ok(ClientMessage::UploadComplete { session_id: claimed_session(&fields.session_id)? }),
        "heartbeat" => Ok(ClientMessage::Heartbeat),
        "ack" => Ok(ClientMessage::Ack {
            command_id: fields.command_id.text_or_number().unwrap_or_default(),
            success: fields.success != Scalar::Bool(false),
        }),
        "status_response" => Ok(ClientMessage::StatusResponse {
            collection_active: fields.collection_active == Scalar::Bool(true),
            session_id: claimed_session(&fields.believed_session)?,
            firmware_version: fields.firmware_version.text_or_number(),
        }),
        "status_update" => Ok(ClientMessage::StatusUpdate {
            session_id: claimed_session(&fields.session_id)?,
            status: std::mem::take(&mut fields.status).text_or_number().unwrap_or_default(),
        }),
        "poll_commands" => Ok(ClientMessage::PollCommands {
            current_session: fields.current_session.text_or_number(),
            status: fields.status.text_or_number(),
        }),
        other => Err(unknown(other)),
    }
}

fn user(text: &str) -> Result<ClientMessage, Error> {
    let fields = Fields::read(text)?;
    match kind(&fields)? {
        "session_status" => Ok(ClientMessage::SessionStatus {
            session_id: fields.session_id.text_or_number().and_then(|id| id.parse().ok()),
            echo: fields.session_id.echo(),
        }),
        other => Err(unknown(other)),
    }
}

fn admin(text: &str) -> Result<ClientMessage, Error> {
    let fields = Fields::read(text)?;
    match kind(&fields)? {
        "get_system_status" => Ok(ClientMessage::GetSystemStatus),
        "get_device_list" => Ok(ClientMessage::GetDeviceList),
        other => Err(unknown(other)),
    }
}

fn root(text: &str) -> Result<ClientMessage, Error> {
    if text.trim_ascii().is_empty() {
        return Err(Error::Empty);
    }
    match serde_json::from_str(text) {
        Ok(value) => Ok(ClientMessage::Anything(value)),
        Err(source) => Err(Error::NotJson { source }),
    }
}

fn kind<'f>(fields: &'f Fields<'_>) -> Result<&'f str, Error> {
    fields.kind.text().filter(|kind| !kind.is_empty()).ok_or(Error::MissingType)
}

fn unknown(kind: &str) -> Error {
    Error::UnknownType { kind: clip(kind, ECHO_LIMIT_BYTES).to_owned() }
}

/// The session a message names, exactly as text; `None` if it names none.
fn claimed_session(value: &Scalar<'_>) -> Result<Option<String>, Error> {
    if let Scalar::Bool(_) | Scalar::Other = value {
        return Err(Error::BadSessionId);
    }
    Ok(value.text_or_number().filter(|id| !id.is_empty() && id != NO_SESSION))
}

fn batch(text: &str, mut fields: Fields<'_>) -> Result<FramePacket, Error> {
    match fields.data {
        Data::Absent => return Err(Error::NoFrames),
        Data::One(_) | Data::Other => return Err(Error::DataNotAList),
        Data::List => {}
    }
    let frames = &mut fields.frames;
    if frames.total == 0 {
        return Err(Error::NoFrames);
    }
    let claimed_session = claimed_session(&fields.session_id)?;
    frames.fill_missing_sensors(SensorRole::from_name(fields.sensor_type.text().unwrap_or_default()));
    let packet_ms = fields.timestamp.integer();
    let timed = packet_ms.is_some() || frames.any_time;
    Ok(FramePacket {
        claimed_session,
        packet_ms,
        content_hash: timed.then(|| content_hash(text)),
        total_items: frames.total,
        failed_items: frames.failed,
        first_fault: frames.first_fault,
        frames: std::mem::take(&mut frames.columns),
    })
}

/// `sensor_data`: one frame, whose time is the message's own `timestamp`.
fn sample(text: &str, mut fields: Fields<'_>) -> Result<FramePacket, Error> {
    let frame = match fields.data {
        Data::One(Ok(frame)) => frame,
        Data::One(Err(fault)) => return Err(Error::BadSample { fault }),
        Data::Absent => return Err(Error::NoFrames),
        Data::List | Data::Other => return Err(Error::BadSample { fault: FrameFault::NotAnObject }),
    };
    let claimed_session = claimed_session(&fields.session_id)?;
    let role = SensorRole::from_name(fields.sensor_type.text().unwrap_or_default());
    let time = frame.time.or_else(|| fields.timestamp.integer());
    let id = frame.sensor_id.unwrap_or(0);
    let role = if id == 0 { role } else { SensorRole::from_wire_id(i64::from(id)) };
    let mut frames = std::mem::take(&mut fields.frames.columns);
    frames.push_decoded(id, role, time, frame.values);
    Ok(FramePacket {
        claimed_session,
        packet_ms: None,
        content_hash: time.map(|_| content_hash(text)),
        total_items: 1,
        failed_items: 0,
        first_fault: None,
        frames,
    })
}

/// XXH3-64 of the packet's text: the same on every machine and version. 0 stands for "none" in the log.
fn content_hash(text: &str) -> u64 {
    xxh3_64(text.as_bytes()).max(1)
}
