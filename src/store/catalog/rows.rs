//! The rows that the catalog takes and gives.

use schemas::{AnalysisId, DeviceCode, NotificationId, SessionId, SessionStatus, UserId};

/// Where a session's frames came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// Started by a user.
    Session,
    /// What a device sent of its own accord, outside any session that was started.
    Collection,
}

impl SessionKind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Collection => "collection",
        }
    }
}

/// A row of `sessions`.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRow {
    pub session_id: SessionId,
    pub kind: SessionKind,
    pub device_code: DeviceCode,
    pub group_code: String,
    /// Of a collection: the session id that the device claimed, which is none of ours.
    pub claimed_id: Option<String>,
    pub user_id: Option<UserId>,
    pub status: SessionStatus,
    pub reason: Option<String>,
    pub started_at_us: i64,
    pub ended_at_us: Option<i64>,
    pub changed_at_us: i64,
    /// 0: not sealed.
    pub revision: i64,
    pub sealed_rows: i64,
    /// Relative to the data folder.
    pub frames_path: Option<String>,
    pub frames_bytes: Option<i64>,
    pub sync_error_ns: Option<i64>,
    pub closed: bool,
}

/// A session to be made.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub kind: SessionKind,
    pub device_code: DeviceCode,
    pub group_code: String,
    /// Of a collection: the session id that the device claimed.
    pub claimed_id: Option<String>,
    pub user_id: Option<UserId>,
    pub status: SessionStatus,
    pub started_at_us: i64,
}

/// A sealed file as the catalog keeps it.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub session_id: SessionId,
    pub revision: i64,
    pub rows: i64,
    pub path: String,
    pub bytes: i64,
    pub sha256: String,
    pub sync_error_ns: i64,
}

/// A leased job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub analysis_id: AnalysisId,
    pub session_id: SessionId,
    pub revision: i64,
    pub attempts: i64,
}

/// A result to be published.
#[derive(Clone, Debug)]
pub struct NewResult {
    pub job: Job,
    pub created_at_us: i64,
    /// `pipelines::Analysis` as JSON.
    pub analysis: String,
    pub strokes_file: StoredFile,
    pub result_file: StoredFile,
    /// The owed notice; `None` when the session has no owner.
    pub notice: Option<NewNotice>,
}

/// A Parquet file that the catalog answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Relative to the data folder.
    pub path: String,
    pub bytes: i64,
}

/// The files of a published analysis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedFiles {
    pub session_id: SessionId,
    pub started_at_us: i64,
    pub created_at_us: i64,
    pub strokes: StoredFile,
    pub result: StoredFile,
}

/// A notice that is owed from the moment its result exists.
#[derive(Clone, Debug)]
pub struct NewNotice {
    pub notification_id: NotificationId,
    pub user_id: UserId,
    /// JSON.
    pub payload: String,
}

/// A row of the outbox.
#[derive(Clone, Debug)]
pub struct OutboxRow {
    pub notification_id: NotificationId,
    pub user_id: UserId,
    pub session_id: SessionId,
    pub payload: String,
    pub created_at_us: i64,
    pub attempts: i64,
}

/// A row of `users`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    pub user_id: UserId,
    pub openid: String,
}

/// A row of `devices` with what its sessions hold.
#[derive(Clone, Debug)]
pub struct DeviceTotals {
    pub device_code: DeviceCode,
    pub firmware: Option<String>,
    pub first_seen_us: i64,
    pub last_seen_us: i64,
    /// Frames in sealed files.
    pub sealed_rows: i64,
}

/// A row of `users` with what the player's sessions hold; not who it is.
#[derive(Clone, Debug)]
pub struct PlayerTotals {
    pub user_id: UserId,
    pub created_at_us: i64,
    pub language: Option<String>,
    pub pipeline: Option<String>,
    /// Devices bound to the player.
    pub devices: i64,
    pub sessions: i64,
    /// Frames in sealed files.
    pub sealed_rows: i64,
    pub first_session_us: Option<i64>,
    pub last_session_us: Option<i64>,
}

/// A published result.
#[derive(Clone, Debug)]
pub struct ResultRow {
    pub session_id: SessionId,
    pub analysis_id: AnalysisId,
    pub revision: i64,
    pub created_at_us: i64,
    /// `pipelines::Analysis` as JSON.
    pub analysis: String,
}
