//! One recording a session: order, duplicates, device clock, columns; and the promise that *acked means on disk*.
//!
//! In: decoded packets ([`Packet`]). Out: records in the write-ahead log, live batches for SQL, and at the end a sealed
//! Parquet file. The future in [`Accepted`] resolves when the frames are on disk; only then may anybody say `success`.
//!
//! A recording is a mutex around its columns, not a task with an inbox: an append holds the lock for the few
//! microseconds that numbering, clock and queueing take, so that the order of the log is the order of the rows, and
//! nobody waits for the disk under it. (`docs/adr` says why.)
//!
//! Invariants: a frame has one sequence number for ever; what SQL shows is on disk; a packet that was taken twice is
//! stored once; frames that the log refused are in no table.

pub mod clock;
mod common_clock;
mod recording;
mod service;
mod smaller;

use std::sync::Arc;

use schemas::{DeviceCode, FrameColumns, SessionId, SessionStatus};

pub use recording::{FinishedRecording, finish_recording};
pub use service::{EVENT_QUEUE_LIMIT, Handle, Live, Options, Recovery, SEALING_QUEUE_LIMIT, Sealing};

use crate::store::{catalog, seal, wal};

/// A decoded packet of frames.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    /// `session_id` as text, exactly as sent; `None` if absent, empty or the firmware's default `041025`.
    pub claimed_session: Option<String>,
    /// The packet's own `timestamp` (ms since device boot), if it had one.
    pub packet_ms: Option<i64>,
    /// Hash of the packet's content, for recognising a repeat; `None` where a repeat cannot be told from new data.
    pub content_hash: Option<u64>,
    /// The good frames. `ingest` fills `t_ns`, `clock` and `received_at_us`.
    pub frames: FrameColumns,
    /// When the packet arrived, µs since 1970 UTC.
    pub received_at_us: i64,
}

/// Resolves when the frames are on disk (`Ok`) or cannot be put there (`Err`).
pub type Durable = std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// A packet that was taken.
pub struct Accepted {
    /// The session whose recording took the frames.
    pub session_id: SessionId,
    /// True if this very packet had been taken before; nothing was stored again, and `durable` waits for the first.
    pub duplicate: bool,
    /// The sequence number after the packet's last frame.
    pub end_row: usize,
    pub durable: Durable,
}

/// What ingest tells the sessions room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first frames of a session arrived.
    FirstFrames { session_id: SessionId, device: DeviceCode },
    /// A packet was refused because the session holds all it may.
    Full { session_id: SessionId },
    /// Frames arrived for a session that had been sealed.
    LateFrames { session_id: SessionId },
}

/// Why a packet was refused, or a session could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("unknown session {claimed}")]
    UnknownSession { claimed: String },
    #[error("session {session_id} belongs to another device")]
    ForeignSession { session_id: SessionId },
    #[error("session {session_id} is not active ({status})")]
    NotActive { session_id: SessionId, status: SessionStatus },
    #[error("session {session_id} is full: it holds {limit_frames} frames")]
    Full { session_id: SessionId, limit_frames: usize },
    #[error("write frames of session {session_id} to the log")]
    Log {
        session_id: SessionId,
        #[source]
        source: Arc<wal::Error>,
    },
    #[error("the log ended before the frames of session {session_id} were on disk")]
    LogEnded { session_id: SessionId },
    #[error("write the frames file of session {session_id}")]
    Seal {
        session_id: SessionId,
        #[source]
        source: seal::Error,
    },
    #[error("seal session {session_id}: the writer broke")]
    Broke { session_id: SessionId },
    #[error("use the catalog for session frames")]
    Catalog(#[from] catalog::Error),
}
