//! The state machine of a recording session, its timeouts, and the commands to its device.

use schemas::{DeviceCode, SessionId, SessionStatus, UserId};
use serde::Serialize;

use crate::hub::{DeviceMessage, Sent};

/// A session as clients see it.
#[derive(Clone, Debug, Serialize)]
pub struct SessionInfo {
    pub session_id: SessionId,
    pub device_code: DeviceCode,
    pub group_code: String,
    pub user_id: Option<UserId>,
    pub status: SessionStatus,
    pub started_at_us: i64,
    pub ended_at_us: Option<i64>,
    /// Frames on disk.
    pub frame_count: i64,
}

/// A session was started or a device commanded.
#[derive(Clone, Debug)]
pub struct Commanded {
    pub session: SessionInfo,
    /// The command that was made for the device.
    pub command: DeviceMessage,
    /// What became of it; a device that is not connected gets it when it connects.
    pub sent: Sent,
}

/// Answer to `end_session`: `command` is `None` when the session had ended before.
#[derive(Clone, Debug)]
pub struct Ended {
    pub session: SessionInfo,
    pub command: Option<DeviceMessage>,
    pub sent: Sent,
}

/// What a polling device should do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PollAnswer {
    Start(SessionId),
    Stop(SessionId),
    /// The device's group has a session, but there is nothing new to do.
    Idle,
    /// The device's group has no session at all.
    NoSession,
}

/// What a device says of itself on its socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    Ack {
        command_id: String,
        success: bool,
    },
    /// `status_response`.
    Status {
        collection_active: bool,
        session_id: Option<String>,
        firmware_version: Option<String>,
    },
    /// `status_update` START_COLLECTION_CONFIRMED / STOP_COLLECTION_CONFIRMED with a session id.
    StartConfirmed {
        session_id: String,
    },
    StopConfirmed {
        session_id: String,
    },
    /// A packet was refused because it belongs to no active session (answered with one `stop_collection`).
    StrayData {
        claimed: Option<String>,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("session {session_id} does not exist")]
    NotFound { session_id: String },
    #[error("session {session_id} belongs to another device")]
    ForeignDevice { session_id: SessionId },
    #[error("session {session_id} is {status}, this needs {needed}")]
    WrongState { session_id: SessionId, status: SessionStatus, needed: &'static str },
    #[error("upload_complete names no session")]
    NoSession,
}

/// The sessions room. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {}

impl Handle {
    /// Opens a session and commands its device to start. A live session of the same device is ended in order first.
    pub async fn start(&self, _user: UserId, _group_code: &str, _device: DeviceCode) -> Result<Commanded, Error> {
        unimplemented!()
    }
    /// `start_data_collection`: calibrating to collecting (already collecting is fine), command again.
    pub async fn begin_collection(
        &self,
        _session: SessionId,
        _device: Option<&DeviceCode>,
    ) -> Result<Commanded, Error> {
        unimplemented!()
    }
    /// `end_session`: to stopping. Idempotent: a session that has ended already is returned as it is.
    pub async fn end(&self, _session: SessionId, _device: Option<&DeviceCode>) -> Result<Ended, Error> {
        unimplemented!()
    }
    /// `upload_complete` of a device. Idempotent; answers at once, sealing and analysis follow.
    pub async fn upload_complete(&self, _device: &DeviceCode, _claimed: Option<&str>) -> Result<SessionInfo, Error> {
        unimplemented!()
    }
    pub async fn info(&self, _session: SessionId) -> Result<Option<SessionInfo>, Error> {
        unimplemented!()
    }
    /// The newest session, of one user or (admins only) of all, and how many there are.
    pub async fn latest(&self, _user: Option<UserId>) -> Result<(Option<SessionInfo>, i64), Error> {
        unimplemented!()
    }
    pub async fn poll(&self, _device: &DeviceCode, _current_session: Option<&str>) -> Result<PollAnswer, Error> {
        unimplemented!()
    }
    /// A device socket is up: reconcile what device and server believe.
    pub async fn device_connected(&self, _device: &DeviceCode) {
        unimplemented!()
    }
    /// A device socket is gone.
    pub async fn device_disconnected(&self, _device: &DeviceCode) {
        unimplemented!()
    }
    /// Something a device said.
    pub async fn device_event(&self, _device: &DeviceCode, _event: DeviceEvent) {
        unimplemented!()
    }
    /// Figures for `get_system_status`: active sessions, total sessions, total frames.
    pub async fn system_counts(&self) -> Result<SystemCounts, Error> {
        unimplemented!()
    }
    /// Devices that ever sent data, newest first: code, frames, last frame (µs UTC).
    pub async fn device_list(&self) -> Result<Vec<DeviceRow>, Error> {
        unimplemented!()
    }
}

/// Figures for `get_system_status`.
#[derive(Clone, Copy, Debug)]
pub struct SystemCounts {
    pub active_sessions: i64,
    pub total_sessions: i64,
    pub total_sensor_data: i64,
}

/// A line of `get_device_list`.
#[derive(Clone, Debug)]
pub struct DeviceRow {
    pub device_code: DeviceCode,
    pub data_count: i64,
    pub last_seen_us: Option<i64>,
}
