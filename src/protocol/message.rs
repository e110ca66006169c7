//! What is said on the sockets, in both directions.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemas::{DeviceCode, FrameColumns, NotificationId, SensorRole, SessionId};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{FrameFault, LocalTime, UtcTime};

/// Frames that came in one message.
#[derive(Clone, Debug, PartialEq)]
pub struct FramePacket {
    /// `session_id` as text, exactly as sent; `None` if absent, empty or the firmware's `041025`.
    pub claimed_session: Option<String>,
    /// The packet's own `timestamp`, ms since device boot.
    pub packet_ms: Option<i64>,
    /// Hash of the message's text; `None` if nothing in it is a time, because then equal text need not be a repeat.
    pub content_hash: Option<u64>,
    /// The good frames.
    pub frames: FrameColumns,
    /// Frames in the message, good and bad.
    pub total_items: usize,
    /// Bad ones.
    pub failed_items: usize,
    /// Place of the first bad one, from 0, and what is wrong with it.
    pub first_fault: Option<(usize, FrameFault)>,
}

/// A message from a client. [`super::ClientWire`] is its form on the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientMessage {
    /// `batch_sensor_data`
    Batch(FramePacket),
    /// `sensor_data`: a packet of one frame with an answer of its own.
    Sample(FramePacket),
    /// `upload_complete`
    UploadComplete { session_id: Option<String> },
    /// `heartbeat`
    Heartbeat,
    /// `ack`; `success` counts as true where it is missing.
    Ack { command_id: String, success: bool },
    /// `status_response`
    StatusResponse { collection_active: bool, session_id: Option<String>, firmware_version: Option<String> },
    /// `status_update`
    StatusUpdate { status: String, session_id: Option<String> },
    /// `poll_commands`
    PollCommands { current_session: Option<String>, status: Option<String> },
    /// `session_status`; `session_id` is `None` if it cannot be one, `echo` is what was sent.
    SessionStatus { session_id: Option<SessionId>, echo: Value },
    /// `get_system_status`
    GetSystemStatus,
    /// `get_device_list`
    GetDeviceList,
    /// Any JSON, on the root socket.
    Anything(Value),
}

/// A message to a client, under its legacy `type` and field names.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// First message on the device, user and admin sockets.
    ConnectionEstablished {
        /// On the device socket.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        device_code: Option<DeviceCode>,
        /// On the user socket: the id of the path.
        #[serde(skip_serializing_if = "Option::is_none")]
        user_id: Option<String>,
        message: Cow<'static, str>,
        timestamp: LocalTime,
    },
    /// Answer to `batch_sensor_data`. `success` means: the frames are durable.
    BatchSensorDataResponse {
        success: bool,
        /// Frames in the packet, good and bad; 0 when the packet was refused.
        total_items: usize,
        /// Frames that are durable.
        successful_items: usize,
        /// Frames that are unusable.
        failed_items: usize,
        /// The very packet had been taken before and was not stored again.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        duplicate: bool,
        /// Why the packet was refused; absent on success.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// Answer to `sensor_data`.
    SensorDataResponse {
        success: bool,
        /// µs since 1970 UTC when the frame arrived: its `received_at_us` in the `frames` table.
        data_id: i64,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        duplicate: bool,
        timestamp: UtcTime,
    },
    /// Answer to `upload_complete`. The analysis follows.
    UploadCompleteResponse {
        session_id: String,
        /// State of the session.
        status: &'static str,
        message: &'static str,
        timestamp: LocalTime,
    },
    /// Answer to `heartbeat`; never of type `heartbeat`, which the firmware would answer again.
    HeartbeatResponse {
        #[schemars(with = "String")]
        device_code: DeviceCode,
        status: &'static str,
        timestamp: LocalTime,
    },
    /// Answer to `status_update`.
    StatusUpdateResponse {
        #[schemars(with = "String")]
        device_code: DeviceCode,
        status: String,
        /// Echo, null if the message named no session.
        session_id: Option<String>,
        message: &'static str,
        timestamp: LocalTime,
    },
    /// Answer to `poll_commands`.
    CommandResponse {
        #[schemars(with = "String")]
        device_code: DeviceCode,
        /// `START_COLLECTION`, `STOP_COLLECTION` or null.
        command: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        session_id: Option<String>,
        /// Echo, when there is nothing to do.
        #[serde(skip_serializing_if = "Option::is_none")]
        current_session: Option<String>,
        /// Echo, when there is nothing to do.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<String>,
        message: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        timestamp: Option<LocalTime>,
    },
    /// Command: stream under this session.
    StartCollection {
        /// The code of the socket's path. Without it the firmware wipes its own.
        #[schemars(with = "String")]
        device_code: DeviceCode,
        /// As text, which every build understands.
        session_id: String,
        command: &'static str,
        /// As text, or the firmware sends no `ack`.
        command_id: String,
        timestamp: LocalTime,
        message: &'static str,
    },
    /// Command: stop streaming, then send `upload_complete`.
    StopCollection {
        #[schemars(with = "String")]
        device_code: DeviceCode,
        session_id: String,
        command: &'static str,
        command_id: String,
        timestamp: LocalTime,
        message: &'static str,
    },
    /// Command: send `status_response`.
    GetStatus { command_id: String },
    /// A text that a device prints.
    TestMessage {
        #[schemars(with = "String")]
        device_code: DeviceCode,
        timestamp: LocalTime,
        message: String,
    },
    /// Something was wrong with a message.
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        device_code: Option<DeviceCode>,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_id: Option<String>,
        /// What; on the device, user and admin sockets.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// What; on the root socket.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// The same as a stable word.
        code: &'static str,
        timestamp: LocalTime,
    },
    /// Answer to `session_status`.
    SessionStatusResponse {
        /// Echo.
        session_id: Value,
        /// Null: unknown, somebody else's, or not an id at all.
        session_info: Option<SessionFields>,
        timestamp: LocalTime,
    },
    /// An analysis is finished. Comes at least once: drop repeats by `notification_id`.
    AnalysisCompleteNotification {
        #[schemars(with = "String")]
        notification_id: NotificationId,
        #[schemars(with = "i64")]
        session_id: SessionId,
        /// `phase_delay` (s), `energy_ratio` (0 to 1), `rom_data` (°) and more.
        #[schemars(with = "Value")]
        analysis_result: Box<RawValue>,
        timestamp: LocalTime,
    },
    /// A swing was found while its session records: to its player and to the admins. What the result says later counts.
    SwingDetected {
        #[schemars(with = "i64")]
        session_id: SessionId,
        #[schemars(with = "String")]
        device_code: DeviceCode,
        #[serde(flatten)]
        swing: SwingFields,
        timestamp: LocalTime,
    },
    /// The session has its result, and this is how it differs from what `swing_detected` said.
    SwingsRevised {
        #[schemars(with = "i64")]
        session_id: SessionId,
        #[schemars(with = "String")]
        device_code: DeviceCode,
        /// By how much the times of all swings moved, ms: the session's clock is read anew at its end.
        shift_ms: f64,
        /// Swings that stayed as they were told, that shift aside.
        unchanged: usize,
        /// Swings that stayed, with another name, a confidence that moved by more than 0.1, or other times.
        changed: Vec<SwingFields>,
        /// `swing_id` of those that are none.
        withdrawn: Vec<u32>,
        /// Swings that had not been told.
        added: usize,
        timestamp: LocalTime,
    },
    /// Answer to `get_system_status`.
    SystemStatus { status: SystemFigures, timestamp: LocalTime },
    /// Answer to `get_device_list`, the device that sent last first.
    DeviceList { devices: Vec<DeviceLine>, timestamp: LocalTime },
    /// Something happened, for admins.
    SystemEvent(EventFields),
    /// The same as `system_event`, under the name that the documents use.
    SystemNotification(EventFields),
    /// First message on the root socket.
    Welcome { message: &'static str, available_endpoints: Endpoints, instructions: Endpoints, timestamp: LocalTime },
    /// Answer to anything on the root socket.
    UsageGuide {
        message: &'static str,
        /// Echo.
        received_data: Value,
        correct_endpoints: Endpoints,
        timestamp: LocalTime,
    },
}

/// A swing of a session that records. Times are ms since session start.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SwingFields {
    /// In the order of detection, from 1.
    pub swing_id: u32,
    #[schemars(with = "String")]
    pub sensor: SensorRole,
    pub start_ms: f64,
    pub impact_ms: f64,
    pub end_ms: f64,
    /// Class name, or `other`.
    pub stroke: String,
    /// Probability of `stroke`, 0 to 1; null: no model ran.
    pub confidence: Option<f64>,
    /// Every class with its probability.
    pub probabilities: BTreeMap<String, f64>,
}

impl ServerMessage {
    /// The text of the message.
    ///
    /// # Panics
    /// Never: keys are texts, and no member can fail to serialise.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("keys are texts and no member can fail")
    }

    /// A packet or sample that was refused as a whole.
    #[must_use]
    pub fn refused_batch(error: String) -> Self {
        Self::BatchSensorDataResponse {
            success: false,
            total_items: 0,
            successful_items: 0,
            failed_items: 0,
            duplicate: false,
            error: Some(error),
        }
    }

    /// The greeting of a device.
    #[must_use]
    pub const fn connected_device(device_code: DeviceCode, now_us: i64) -> Self {
        Self::ConnectionEstablished {
            device_code: Some(device_code),
            user_id: None,
            message: Cow::Borrowed("device connected"),
            timestamp: LocalTime(now_us),
        }
    }

    /// `start_collection` for a device.
    #[must_use]
    pub fn start(device_code: DeviceCode, session_id: SessionId, command_id: String, now_us: i64) -> Self {
        Self::StartCollection {
            device_code,
            session_id: session_id.to_string(),
            command: "START_COLLECTION",
            command_id,
            timestamp: LocalTime(now_us),
            message: "start",
        }
    }

    /// `stop_collection` for a device.
    #[must_use]
    pub fn stop(device_code: DeviceCode, session_id: SessionId, command_id: String, now_us: i64) -> Self {
        Self::StopCollection {
            device_code,
            session_id: session_id.to_string(),
            command: "STOP_COLLECTION",
            command_id,
            timestamp: LocalTime(now_us),
            message: "stop",
        }
    }

    /// The greeting of the root socket.
    #[must_use]
    pub fn welcome(now_us: i64) -> Self {
        Self::Welcome {
            message: "Volant, badminton analysis",
            available_endpoints: Endpoints {
                esp32: None,
                esp32_devices: Some("/ws/esp32/{device_code}/"),
                miniprogram: None,
                miniprogram_users: Some("/ws/miniprogram/{user_id}/"),
                admin: None,
                admin_panel: Some("/ws/admin/"),
            },
            instructions: Endpoints {
                esp32: Some("connect with your device code"),
                esp32_devices: None,
                miniprogram: Some("connect with your user id"),
                miniprogram_users: None,
                admin: Some("connect to the admin endpoint"),
                admin_panel: None,
            },
            timestamp: LocalTime(now_us),
        }
    }

    /// The answer of the root socket.
    #[must_use]
    pub fn usage_guide(received_data: Value, now_us: i64) -> Self {
        Self::UsageGuide {
            message: "this socket only explains; connect to one of correct_endpoints",
            received_data,
            correct_endpoints: Endpoints {
                esp32: Some("/ws/esp32/{device_code}/"),
                esp32_devices: None,
                miniprogram: Some("/ws/miniprogram/{user_id}/"),
                miniprogram_users: None,
                admin: Some("/ws/admin/"),
                admin_panel: None,
            },
            timestamp: LocalTime(now_us),
        }
    }
}

/// `session_info` of `session_status_response`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SessionFields {
    #[schemars(with = "i64")]
    pub id: SessionId,
    /// calibrating, collecting, stopping, analyzing, completed or stopped.
    pub status: &'static str,
    pub start_time: UtcTime,
    /// Null until the session was stopped.
    pub end_time: Option<UtcTime>,
}

/// `status` of `system_status`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum SystemFigures {
    /// All is well.
    Healthy {
        /// Calibrating, collecting or analyzing.
        active_sessions: i64,
        total_sessions: i64,
        /// Frames stored.
        total_sensor_data: i64,
        /// `healthy`
        status: &'static str,
    },
    /// The figures cannot be had.
    Failing {
        /// `error`
        status: &'static str,
        error: String,
    },
}

/// A line of `device_list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DeviceLine {
    #[schemars(with = "String")]
    pub device_code: DeviceCode,
    /// Frames stored.
    pub data_count: i64,
    pub last_seen: Option<UtcTime>,
}

/// `system_event` and `system_notification`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EventFields {
    /// Readable text.
    pub event: String,
    /// info, warning or error.
    pub level: &'static str,
    /// What happened, as a stable word.
    pub code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub device_code: Option<DeviceCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>")]
    pub session_id: Option<SessionId>,
    /// State of the session, with code `session_status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    pub timestamp: LocalTime,
}

/// One text for each kind of client, under the keys that the two root messages use.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Endpoints {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub esp32: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub esp32_devices: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub miniprogram: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub miniprogram_users: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_panel: Option<&'static str>,
}
