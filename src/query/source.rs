//! What the query room asks of the rest: which files hold which session, and what is not in files yet.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use jiff::civil::Date;
use schemas::SessionId;

/// An error of a source, kept as it is for the log.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Where the rows come from. The running service implements it over its rooms, [`super::Folder`] over a bare folder.
pub trait Source: fmt::Debug + Send + Sync {
    /// Everything a statement may read, as of one instant.
    ///
    /// A frame that has been acknowledged before the call is in exactly one place of the answer: in a file of
    /// [`Snapshot::frames`], or in a batch of [`Snapshot::live`]. A file that an answer names must stay readable for as
    /// long as a statement may run; one that is deleted earlier fails the statement, it never shortens the result.
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, SourceError>>;

    /// Puts the place in a pack on the files that lie in one. Asked of the files that are read, when they are.
    ///
    /// # Errors
    /// What the disk refuses.
    fn locate(&self, files: &mut [StoredFile]) -> Result<(), SourceError>;

    /// The rows of `sessions`, in no particular order.
    fn sessions(&self) -> BoxFuture<'_, Result<Vec<SessionRow>, SourceError>>;

    /// The rows of `devices`, in no particular order.
    fn devices(&self) -> BoxFuture<'_, Result<Vec<DeviceRow>, SourceError>>;

    /// The rows of `players`, in no particular order.
    fn players(&self) -> BoxFuture<'_, Result<Vec<PlayerRow>, SourceError>>;

    /// The rows of `notifications`, in no particular order.
    fn notifications(&self) -> BoxFuture<'_, Result<Vec<NotificationRow>, SourceError>>;

    /// The rows of `labels`, in no particular order.
    fn labels(&self) -> BoxFuture<'_, Result<Vec<LabelRow>, SourceError>>;
}

/// What a statement may read. Files are as the catalog names them; [`Source::locate`] knows in which pack they lie.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Sealed files of [`schemas::frames::frames_schema`].
    pub frames: Arc<Vec<StoredFile>>,
    /// Frames on disk in the write-ahead log, of recordings that [`Snapshot::frames`] does not hold.
    pub live: Vec<LiveFrames>,
    /// Files of [`schemas::tables::strokes_schema`], of the published analyses only.
    pub strokes: Arc<Vec<StoredFile>>,
    /// Files of [`schemas::tables::results_schema`], of the published analyses only.
    pub results: Arc<Vec<StoredFile>>,
}

/// The rows of one session in a Parquet file: all of the file, or some row groups of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    pub session_id: SessionId,
    /// Below the data folder, with `/`: `frames/date=2026-11-23/7.parquet`, or that of a pack.
    pub path: String,
    /// Where in a pack it lies; `None`: the file is the session's own.
    pub within: Option<Within>,
    /// The partition the file lies in.
    pub date: Date,
    /// Number of the session's rows; `None` if only the file itself knows.
    pub rows: Option<u64>,
    /// Size of the file in bytes, exactly: the footer is found from it.
    pub bytes: u64,
    /// Anything that differs when the bytes at `path` do, for instance the time of the last change in µs: footers are
    /// kept in memory under path, size and this.
    pub version: i64,
}

/// The row groups of a session in a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Within {
    /// The session's.
    pub row_groups: Range<usize>,
    /// How many the pack has.
    pub of: usize,
}

/// Frames of one session that are durable and not in a file.
#[derive(Clone, Debug)]
pub struct LiveFrames {
    pub session_id: SessionId,
    /// The partition their file will lie in.
    pub date: Date,
    /// Batches of [`schemas::frames::frames_schema`]; cloning one copies no data.
    pub batches: Vec<RecordBatch>,
}

/// A row of `sessions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    pub session_id: i64,
    pub device_code: String,
    pub group_code: String,
    pub user_id: Option<i64>,
    /// Legacy name of the state.
    pub status: String,
    /// µs since 1970 UTC.
    pub started_at_us: i64,
    /// µs since 1970 UTC; `None` while the session is open.
    pub ended_at_us: Option<i64>,
    /// Frames on disk.
    pub frame_count: i64,
    /// How often the session's file was made, 0 before the first seal.
    pub revision: i32,
    /// True if `frames` reads the session from a file.
    pub sealed: bool,
}

/// A row of `devices`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    pub device_code: String,
    /// µs since 1970 UTC; `None` if it never sent a frame.
    pub first_seen_us: Option<i64>,
    /// µs since 1970 UTC; `None` if it never sent a frame.
    pub last_seen_us: Option<i64>,
    /// Frames on disk.
    pub frame_count: i64,
    /// True while a socket of the device is open.
    pub connected: bool,
}

/// A row of `players`; see [`super::players_schema`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlayerRow {
    pub user_id: i64,
    /// µs since 1970 UTC.
    pub registered_at_us: i64,
    pub language: Option<String>,
    pub pipeline: Option<String>,
    pub device_count: i64,
    pub session_count: i64,
    /// Frames in sealed sessions.
    pub frame_count: i64,
    /// µs since 1970 UTC.
    pub first_session_us: Option<i64>,
    /// µs since 1970 UTC.
    pub last_session_us: Option<i64>,
}

/// A row of `notifications`; see [`super::notifications_schema`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotificationRow {
    pub notification_id: String,
    /// `socket`, `wechat` or `webhook`.
    pub channel: String,
    pub user_id: i64,
    pub session_id: i64,
    pub analysis_id: i64,
    /// µs since 1970 UTC.
    pub created_at_us: i64,
    /// `owed`, `delivered` or `failed`.
    pub state: String,
    pub attempts: i64,
    /// µs since 1970 UTC; `None` while owed.
    pub done_at_us: Option<i64>,
}

/// A row of `labels`; see [`super::labels_schema`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRow {
    pub session_id: i64,
    pub user_id: Option<i64>,
    /// ns since session start.
    pub impact_ns: i64,
    /// ns since session start.
    pub start_ns: Option<i64>,
    /// ns since session start.
    pub end_ns: Option<i64>,
    pub stroke: String,
    pub quality: String,
    /// `player`, `admin`, `key` or `import`.
    pub labelled_by: String,
    /// µs since 1970 UTC.
    pub labelled_at_us: i64,
}
