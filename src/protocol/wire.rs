//! What clients send, as it stands on the wire: for the JSON Schemas, the simulator and tests. The service itself reads
//! messages with [`super::decode`], which takes far more than these shapes.

use schemars::JsonSchema;
use serde::Serialize;

/// A message of a client in the form that firmware V3.3, the example sketch and the test pages send.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientWire {
    /// A packet of frames, mixed over the sensors.
    BatchSensorData {
        /// Ignored: the socket's path counts.
        device_code: String,
        /// Place of the first frame's sensor; counts for frames without `sensor_id`.
        sensor_type: String,
        /// ms since device boot when the packet was built.
        #[serde(skip_serializing_if = "Option::is_none")]
        timestamp: Option<i64>,
        data: Vec<FrameWire>,
        /// Absent, empty or `041025`: no session. Numbers are taken too.
        #[serde(skip_serializing_if = "Option::is_none")]
        session_id: Option<String>,
    },
    /// One frame.
    SensorData {
        sensor_type: String,
        data: FrameWire,
        #[serde(skip_serializing_if = "Option::is_none")]
        session_id: Option<String>,
        /// Time of the frame.
        #[serde(skip_serializing_if = "Option::is_none")]
        timestamp: Option<i64>,
    },
    /// The device has sent everything of this session.
    UploadComplete {
        session_id: String,
        device_code: String,
        /// ms since device boot.
        timestamp: i64,
    },
    /// The device is alive.
    Heartbeat {
        device_code: String,
        /// ms since device boot.
        timestamp: i64,
    },
    /// The device has taken a command.
    Ack {
        command_id: String,
        /// False: unknown command.
        success: bool,
        /// ms since device boot.
        timestamp: i64,
    },
    /// Answer to `get_status`.
    StatusResponse {
        /// Empty if the command had none.
        command_id: String,
        /// ms since device boot.
        timestamp: i64,
        connection: ConnectionWire,
        device: DeviceWire,
    },
    /// The device or a person at it reports a state, such as `START_COLLECTION_CONFIRMED`.
    StatusUpdate {
        status: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        session_id: Option<String>,
        device_code: String,
    },
    /// What should I do?
    PollCommands {
        device_code: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        current_session: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<String>,
    },
    /// On the user socket: how is this session? Numbers are taken too.
    SessionStatus { session_id: String },
    /// On the admin socket: how many sessions and frames?
    GetSystemStatus {},
    /// On the admin socket: which devices have sent data?
    GetDeviceList {},
}

impl ClientWire {
    /// The text of the message.
    ///
    /// # Panics
    /// Never: keys are texts, and a float that is not finite is written as null.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("keys are texts and no member can fail")
    }
}

/// A frame: the sample of one sensor. NaN and infinities are written as null.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FrameWire {
    /// Specific force as the sensor gives it, g or m/s².
    #[schemars(with = "[Option<f32>; 3]")]
    pub acc: [f32; 3],
    /// Angular velocity, °/s.
    #[schemars(with = "Option<[Option<f32>; 3]>")]
    pub gyro: [f32; 3],
    /// Roll, pitch, yaw, °.
    #[schemars(with = "Option<[Option<f32>; 3]>")]
    pub angle: [f32; 3],
    /// 1 waist, 2 shoulder, 3 wrist, 4 racket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensor_id: Option<i32>,
    /// HHMMSSmmm of the day in UTC+8 as a number, or a counter of ms, or Unix ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
}

/// `connection` of `status_response`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ConnectionWire {
    pub wifi_connected: bool,
    pub server_connected: bool,
    /// The device is streaming.
    pub collection_active: bool,
}

/// `device` of `status_response`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DeviceWire {
    pub device_code: String,
    /// `041025` or empty: none.
    pub session_id: String,
    pub firmware_version: String,
}
