//! Devices: what is known of them, commands, pairing, groups.

use std::sync::Arc;

use axum::extract::State as AxumState;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemas::DeviceCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{self, Body, ItemPage, Path, Query};
use super::sessions::{Session, sent};
use super::{Problems, fresh};
use crate::gateway::access::{Access, device_code};
use crate::gateway::error::ApiError;
use crate::gateway::{Context, Shared, State};
use crate::hub::{DeviceMessage, DevicePresence, Sent};
use crate::protocol::budget::TEXT_LIMIT_BYTES;
use crate::sessions::DeviceRow;

pub(super) fn router() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(broadcast))
        .routes(routes!(claim))
        .routes(routes!(device))
        .routes(routes!(stop))
        .routes(routes!(check))
        .routes(routes!(test))
        .routes(routes!(pairing_code))
        .routes(routes!(unbind))
        .routes(routes!(groups))
        .routes(routes!(set_group))
}

/// What is known of a device's connection: three facts, each with its time, no single "online".
#[derive(Serialize, ToSchema)]
struct Presence {
    connected_since_us: i64,
    last_frame_us: Option<i64>,
    last_pong_us: Option<i64>,
    round_trip_us: Option<i64>,
    /// Messages of this connection, and their length.
    messages: u64,
    message_bytes: u64,
    /// Connections of this code since the server started; all but the first are reconnects.
    connects: u64,
    /// How often a newer connection took an older one's place, since the server started.
    takeovers: u64,
}

impl From<DevicePresence> for Presence {
    fn from(presence: DevicePresence) -> Self {
        let DevicePresence {
            device_code: _,
            connected_since_us,
            last_frame_us,
            last_pong_us,
            round_trip_us,
            messages,
            message_bytes,
            connects,
            takeovers,
        } = presence;
        Self {
            connected_since_us,
            last_frame_us,
            last_pong_us,
            round_trip_us,
            messages,
            message_bytes,
            connects,
            takeovers,
        }
    }
}

/// A device. `presence` is null without a connection.
#[derive(Serialize, ToSchema)]
struct Device {
    device_code: String,
    firmware: Option<String>,
    first_seen_us: Option<i64>,
    last_seen_us: Option<i64>,
    /// Frames stored of it.
    frame_count: i64,
    presence: Option<Presence>,
}

impl Device {
    fn new(code: &DeviceCode, stored: Option<DeviceRow>, presence: Option<DevicePresence>) -> Self {
        Self {
            device_code: code.to_string(),
            first_seen_us: stored.as_ref().map(|row| row.first_seen_us),
            last_seen_us: stored.as_ref().and_then(|row| row.last_seen_us),
            frame_count: stored.as_ref().map_or(0, |row| row.data_count),
            firmware: stored.and_then(|row| row.firmware),
            presence: presence.map(Presence::from),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Devices {
    /// This server's clock.
    now_us: i64,
    devices: Vec<Device>,
}

/// List devices
///
/// By code: all for admins and the scope `devices:read`, those they are bound to for users.
#[utoipa::path(
    get, path = "/api/v2/devices", tag = "devices", params(ItemPage),
    responses((status = 200, body = Devices), Problems)
)]
async fn list(AxumState(context): Shared, access: Access, Query(page): Query<ItemPage>) -> Result<Response, ApiError> {
    let state = &context.state;
    let only = access.reads_devices_of(state).await?;
    let shown = |code: &DeviceCode| only.as_ref().is_none_or(|only| only.contains(code));
    let mut connected = state.hub.devices();
    let mut devices = Vec::new();
    for row in state.sessions.device_list().await? {
        let place = connected.iter().position(|presence| presence.device_code == row.device_code);
        let presence = place.map(|place| connected.swap_remove(place));
        let code = row.device_code.clone();
        if shown(&code) {
            devices.push(Device::new(&code, Some(row), presence));
        }
    }
    // Connected, and nothing of it is stored yet.
    for presence in connected {
        let code = presence.device_code.clone();
        if shown(&code) {
            devices.push(Device::new(&code, None, Some(presence)));
        }
    }
    devices.sort_by(|a, b| a.device_code.cmp(&b.device_code));
    let devices = page.of(devices, |device| &device.device_code)?;
    Ok(fresh(Devices { now_us: state.clock.now_us(), devices }))
}

/// A device and the session that it is in.
#[derive(Serialize, ToSchema)]
struct OneDevice {
    /// This server's clock.
    now_us: i64,
    device: Device,
    session: Option<Session>,
    /// Frames of that session that the device measured and that never came, as far as the gaps in its times tell.
    lost_frames: Option<u64>,
    /// When it was last heard without a socket: a poll, a heartbeat.
    last_heard_us: Option<i64>,
}

/// One device
#[utoipa::path(
    get, path = "/api/v2/devices/{device_code}", tag = "devices",
    params(("device_code" = String, Path)),
    responses((status = 200, body = OneDevice), Problems)
)]
async fn device(AxumState(context): Shared, access: Access, Path(code): Path<String>) -> Result<Response, ApiError> {
    let state = &context.state;
    let code = extract::device(&code)?;
    access.sees_device(state, &code).await?;
    let stored = state.sessions.device_list().await?.into_iter().find(|row| row.device_code == code);
    let presence = state.hub.devices().into_iter().find(|presence| presence.device_code == code);
    if stored.is_none() && presence.is_none() {
        return Err(ApiError::not_found("no_device", "there is no such device"));
    }
    let session = state.sessions.live_of(&code).await?;
    let live = session.as_ref().and_then(|session| state.ingest.live(session.session_id));
    Ok(fresh(OneDevice {
        now_us: state.clock.now_us(),
        device: Device::new(&code, stored, presence),
        lost_frames: live.map(|live| live.lost_frames),
        session: session.map(Session::from),
        last_heard_us: state.sessions.heard_at_us(&code).await,
    }))
}

/// What became of a command.
#[derive(Serialize, ToSchema)]
struct Told {
    /// `queued`: it is on the device's socket; `not_connected`; `queue_full`.
    command: &'static str,
    session: Option<Session>,
}

async fn commanded(state: &State, access: &Access, code: &str) -> Result<DeviceCode, ApiError> {
    let code = extract::device(code)?;
    access.commands_device(state, &code).await?;
    Ok(code)
}

/// Stop a device
///
/// The session that it is in is stopped; without one, 404.
#[utoipa::path(
    post, path = "/api/v2/devices/{device_code}/stop", tag = "devices",
    params(("device_code" = String, Path)),
    responses((status = 200, body = Told), Problems)
)]
async fn stop(AxumState(context): Shared, access: Access, Path(code): Path<String>) -> Result<Response, ApiError> {
    let state = &context.state;
    let code = commanded(state, &access, &code).await?;
    let live = state.sessions.live_of(&code).await?;
    let live = live.ok_or_else(|| ApiError::not_found("device_idle", "the device is in no session"))?;
    let ended = state.sessions.end(live.session_id, None).await?;
    Ok(fresh(Told { command: sent(ended.sent), session: Some(ended.session.into()) }))
}

/// What a device says of itself.
#[derive(Serialize, ToSchema)]
struct Checked {
    /// Whether the question is on the device's socket.
    command: &'static str,
    /// True if the device answered within three seconds.
    answered: bool,
    /// The device says that it is streaming.
    collection_active: Option<bool>,
    /// The session that the device believes in.
    session_id: Option<String>,
    firmware_version: Option<String>,
}

/// Ask a device what it is doing
#[utoipa::path(
    post, path = "/api/v2/devices/{device_code}/check", tag = "devices",
    params(("device_code" = String, Path)),
    responses((status = 200, body = Checked), Problems)
)]
async fn check(AxumState(context): Shared, access: Access, Path(code): Path<String>) -> Result<Response, ApiError> {
    let state = &context.state;
    let code = commanded(state, &access, &code).await?;
    let (asked, told) = state.sessions.check(&code).await;
    Ok(fresh(Checked {
        command: sent(asked),
        answered: told.is_some(),
        collection_active: told.as_ref().map(|told| told.collection_active),
        session_id: told.as_ref().and_then(|told| told.session_id.clone()),
        firmware_version: told.and_then(|told| told.firmware_version),
    }))
}

/// A text.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Text {
    /// Devices print it; longer than 160 bytes would not fit the firmware's memory.
    #[schema(max_length = 160)]
    message: String,
}

impl Text {
    fn checked(self) -> Result<String, ApiError> {
        if self.message.len() > TEXT_LIMIT_BYTES {
            return Err(ApiError::bad_request(format!("a message has {TEXT_LIMIT_BYTES} bytes at most")));
        }
        Ok(self.message)
    }
}

/// Send a device a text
#[utoipa::path(
    post, path = "/api/v2/devices/{device_code}/test", tag = "devices", request_body = Text,
    params(("device_code" = String, Path)),
    responses((status = 200, body = Told), Problems)
)]
async fn test(
    AxumState(context): Shared,
    access: Access,
    Path(code): Path<String>,
    Body(text): Body<Text>,
) -> Result<Response, ApiError> {
    let code = commanded(&context.state, &access, &code).await?;
    let outcome = context.state.sessions.test(&code, &text.checked()?);
    Ok(fresh(Told { command: sent(outcome), session: None }))
}

/// What several devices are told.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum BroadcastCommand {
    /// Print `message`.
    Test,
    /// Stop the sessions that the devices are in.
    Stop,
    /// Say what you are doing.
    Check,
}

impl BroadcastCommand {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Stop => "stop",
            Self::Check => "check",
        }
    }
}

/// A command for several devices.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Broadcast {
    command: BroadcastCommand,
    #[schema(max_length = 160)]
    message: Option<String>,
    /// Without them, all that are connected.
    #[schema(max_items = 1000)]
    device_codes: Option<Vec<String>>,
}

/// How many devices took it.
#[derive(Serialize, ToSchema)]
struct Reached {
    reached: Vec<String>,
    missed: Vec<String>,
}

/// Command several devices
///
/// For admins.
#[utoipa::path(
    post, path = "/api/v2/devices/broadcast", tag = "devices", request_body = Broadcast,
    responses((status = 200, body = Reached), Problems)
)]
async fn broadcast(
    AxumState(context): Shared,
    access: Access,
    Body(broadcast): Body<Broadcast>,
) -> Result<Response, ApiError> {
    access.admin()?;
    let state = &context.state;
    let message = Text { message: broadcast.message.unwrap_or_default() }.checked()?;
    let devices = match broadcast.device_codes {
        Some(codes) if codes.len() > 1000 => return Err(ApiError::bad_request("1000 devices at most")),
        Some(codes) => codes.iter().map(|code| device_code(code)).collect::<Result<Vec<_>, _>>()?,
        None => state.hub.devices().into_iter().map(|presence| presence.device_code).collect(),
    };
    let (mut reached, mut missed) = (Vec::new(), Vec::new());
    for code in devices {
        let outcome = match broadcast.command {
            BroadcastCommand::Test => state.hub.send_to_device(&code, DeviceMessage::Test { message: message.clone() }),
            BroadcastCommand::Check => state.sessions.ask_status(&code),
            BroadcastCommand::Stop => match state.sessions.live_of(&code).await? {
                Some(live) => state.sessions.end(live.session_id, None).await?.sent,
                None => Sent::NotConnected,
            },
        };
        if outcome == Sent::Queued { &mut reached } else { &mut missed }.push(code.to_string());
    }
    state.accounts.audit(&access.actor(), "device.broadcast", broadcast.command.as_str(), None).await?;
    Ok(fresh(Reached { reached, missed }))
}

// ---- pairing and groups -------------------------------------------------------------------------------------------

/// A code that binds a device once.
#[derive(Serialize, ToSchema)]
struct PairingCode {
    /// Eight letters and digits in two halves, good for a day.
    pairing_code: String,
}

/// Make a pairing code
///
/// For admins. Whoever has the code may claim the device once; an older code no longer counts.
#[utoipa::path(
    post, path = "/api/v2/devices/{device_code}/pairing-code", tag = "devices",
    params(("device_code" = String, Path)),
    responses((status = 201, body = PairingCode), Problems)
)]
async fn pairing_code(
    AxumState(context): Shared,
    access: Access,
    Path(code): Path<String>,
) -> Result<Response, ApiError> {
    access.admin()?;
    let device = extract::device(&code)?;
    let pairing_code = context.state.accounts.new_pairing_code(&device, &access.actor()).await?;
    Ok((StatusCode::CREATED, fresh(PairingCode { pairing_code })).into_response())
}

/// A proof that somebody holds a device.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Claim {
    #[schema(max_length = 32)]
    pairing_code: String,
    /// For whom, for admins; a user claims for themselves.
    user_id: Option<i64>,
}

#[derive(Serialize, ToSchema)]
struct Claimed {
    device_code: String,
}

/// Claim a device
#[utoipa::path(
    post, path = "/api/v2/devices/claim", tag = "devices", request_body = Claim,
    responses((status = 200, body = Claimed), Problems)
)]
async fn claim(AxumState(context): Shared, access: Access, Body(claim): Body<Claim>) -> Result<Response, ApiError> {
    let state = &context.state;
    let user = access.user(state, claim.user_id).await?;
    let device = access.claim(state, user, &claim.pairing_code).await?;
    Ok(fresh(Claimed { device_code: device.to_string() }))
}

/// Give a device back
///
/// The user is no longer bound to it.
#[utoipa::path(
    delete, path = "/api/v2/devices/{device_code}/binding", tag = "devices",
    params(("device_code" = String, Path)),
    responses((status = 204), Problems)
)]
async fn unbind(AxumState(context): Shared, access: Access, Path(code): Path<String>) -> Result<Response, ApiError> {
    let user = access.user(&context.state, None).await?;
    let device = extract::device(&code)?;
    if context.state.accounts.unbind(user, &device).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(ApiError::not_found("no_device", "there is no such device"))
    }
}

/// A group of devices.
#[derive(Serialize, ToSchema)]
struct Group {
    group_code: String,
    name: Option<String>,
    device_codes: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct Groups {
    groups: Vec<Group>,
}

/// List groups
///
/// For admins.
#[utoipa::path(get, path = "/api/v2/groups", tag = "devices", responses((status = 200, body = Groups), Problems))]
async fn groups(AxumState(context): Shared, access: Access) -> Result<Response, ApiError> {
    access.admin()?;
    let groups = context.state.accounts.groups().await?;
    let group = |row: crate::store::catalog::GroupRow| Group {
        group_code: row.group_code,
        name: row.name,
        device_codes: row.devices.iter().map(ToString::to_string).collect(),
    };
    Ok(fresh(Groups { groups: groups.into_iter().map(group).collect() }))
}

/// Name and members of a group.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewGroup {
    #[schema(max_length = 64)]
    name: Option<String>,
    #[schema(max_items = 256)]
    device_codes: Vec<String>,
}

/// Set a group
///
/// For admins; made if absent.
#[utoipa::path(
    put, path = "/api/v2/groups/{group_code}", tag = "devices", request_body = NewGroup,
    params(("group_code" = String, Path, max_length = 64)),
    responses((status = 204), Problems)
)]
async fn set_group(
    AxumState(context): Shared,
    access: Access,
    Path(code): Path<String>,
    Body(group): Body<NewGroup>,
) -> Result<Response, ApiError> {
    access.admin()?;
    let devices = group.device_codes.iter().map(|code| device_code(code)).collect::<Result<Vec<_>, _>>()?;
    context.state.accounts.set_group(&code, group.name.as_deref(), &devices, &access.actor()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
