//! The state machine of a recording session, its timeouts, and the commands to its device.
//!
//! In: what users ask (start, stop), what devices say (acknowledgements, status, `upload_complete`), what ingest notes
//! (first frames), and time. Out: commands to devices, state in the catalog, sealed recordings, events to the admins.
//!
//! Invariants: one live session a device; a command is sent again until the device confirms it; every session ends,
//! whatever its device does; `upload_complete` of a session that nobody stopped is believed only when the device is not
//! streaming. Absent: the wire format, and any work on frames.

mod device;
mod service;
mod without_socket;

use std::sync::Arc;

use schemas::{DeviceCode, SessionId, SessionStatus, UserId};
use serde::Serialize;

pub use service::{Handle, Options, Service};

use crate::hub::{DeviceMessage, Sent};
use crate::ingest;
use crate::store::{catalog, wal};

/// A session as clients see it.
#[derive(Clone, Debug, Serialize)]
pub struct SessionInfo {
    pub session_id: SessionId,
    pub device_code: DeviceCode,
    pub group_code: String,
    pub user_id: Option<UserId>,
    pub status: SessionStatus,
    /// Why it ended without a result.
    pub reason: Option<String>,
    pub started_at_us: i64,
    pub ended_at_us: Option<i64>,
    /// Frames taken so far.
    pub frame_count: i64,
    /// Of the sealed file; 0 while there is none.
    pub revision: i64,
}

/// Which sessions are listed, the newest first.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub user: Option<UserId>,
    pub device: Option<DeviceCode>,
    pub status: Option<SessionStatus>,
    /// Only those with a lower number: the next page.
    pub before: Option<SessionId>,
    pub limit: i64,
}

impl Filter {
    /// The newest of all.
    #[must_use]
    pub fn newest(limit: i64) -> Self {
        Self { limit, ..Self::default() }
    }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollAnswer {
    Start(SessionId),
    Stop(SessionId),
    /// The device has a session, but there is nothing new to do.
    Idle,
    /// The device has no session at all.
    NoSession,
}

/// Answer of a device to `get_status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStatus {
    pub collection_active: bool,
    pub session_id: Option<String>,
    pub firmware_version: Option<String>,
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
    /// `status_update` START_COLLECTION_CONFIRMED with a session id.
    StartConfirmed {
        session_id: String,
    },
    /// `status_update` STOP_COLLECTION_CONFIRMED with a session id.
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
    #[error("a group code has 1 to 64 visible characters")]
    InvalidGroup,
    #[error("start a session while the log takes no frames")]
    Log(#[source] Arc<wal::Error>),
    #[error("use the catalog")]
    Catalog(#[from] catalog::Error),
    #[error("finish taking a recording")]
    Broke,
    #[error("seal the session")]
    Ingest(#[from] ingest::Error),
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
    pub firmware: Option<String>,
    pub first_seen_us: i64,
    pub data_count: i64,
    pub last_seen_us: Option<i64>,
}
