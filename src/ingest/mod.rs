//! One recording a session: order, duplicates, device clock, columns; and the promise that *acked means on disk*.
//!
//! In: decoded packets ([`Packet`]). Out: records in the write-ahead log, live batches for SQL, and at the end a sealed
//! Parquet file. The future in [`Accepted`] resolves when the frames are on disk; only then may anybody say `success`.

use schemas::{DeviceCode, FrameColumns, SessionId};

/// A decoded packet of frames.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    /// `session_id` as text, exactly as sent; `None` if absent or empty.
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
    pub durable: Durable,
}

/// Why a packet was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("unknown session {claimed}")]
    UnknownSession { claimed: String },
    #[error("session {session_id} belongs to another device")]
    ForeignSession { session_id: SessionId },
    #[error("session {session_id} is not active ({status})")]
    NotActive { session_id: SessionId, status: schemas::SessionStatus },
    #[error("session {session_id} is full: it holds {limit_frames} frames")]
    Full { session_id: SessionId, limit_frames: usize },
}

/// The ingest room. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {}

impl Handle {
    /// Takes a packet of a device. Waits only for room in the log's queue (that wait is the back-pressure).
    ///
    /// # Errors
    /// See [`Error`]; nothing of a refused packet is kept.
    pub async fn append(&self, _device: &DeviceCode, _packet: Packet) -> Result<Accepted, Error> {
        unimplemented!()
    }
}
