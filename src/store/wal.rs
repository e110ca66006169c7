//! Write-ahead log: segments of checksummed records, group commit by one writer thread.

use std::path::PathBuf;
use std::time::Duration;

use schemas::{FrameColumns, SessionId};

/// How far a record has gone when its append resolves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// `fdatasync` has returned. The default.
    Fsync,
    /// The operating system has the bytes; a power cut may lose them, a killed process does not.
    Os,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub dir: PathBuf,
    pub durability: Durability,
    /// A segment is closed and the next begun at this size.
    pub segment_limit_bytes: u64,
    /// How long the writer gathers records before it syncs them together.
    pub commit_window: Duration,
    /// Bytes that may wait for the writer; at the limit `reserve` waits.
    pub queue_limit_bytes: usize,
}

/// One packet's frames as logged.
#[derive(Clone, Debug, PartialEq)]
pub struct WalRecord {
    pub session_id: SessionId,
    /// Sequence number of the first frame within the session.
    pub first_seq: i64,
    /// Content hash for recognising repeats across restarts; 0 if none.
    pub content_hash: u64,
    /// The packet's own `timestamp`, ms since device boot; `i64::MIN` if none.
    pub packet_ms: i64,
    pub frames: FrameColumns,
}

/// What opening the log found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct RecoveryReport {
    pub segments: usize,
    pub records: u64,
    pub frames: u64,
    /// Bytes of torn or damaged tails, set aside in files of their own.
    pub damaged_bytes: u64,
    pub set_aside: Vec<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the write-ahead log is closed")]
    Closed,
}

/// Room in the writer's queue; dropping it gives the room back.
#[derive(Debug)]
pub struct Permit {}

/// The log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {}

impl Handle {
    /// Opens the log: replays every good record to `replay` in order, sets damaged tails aside, starts the writer.
    pub fn open(_options: Options, _replay: impl FnMut(WalRecord)) -> Result<(Self, RecoveryReport), Error> {
        unimplemented!()
    }
    /// Waits for room for a record of `frames` frames. This wait is the back-pressure on sockets.
    pub async fn reserve(&self, _frames: usize) -> Result<Permit, Error> {
        unimplemented!()
    }
    /// Queues a record; call order is log order. Never blocks. The receiver resolves when the record is durable.
    pub fn append(
        &self,
        _permit: Permit,
        _record: &WalRecord,
        _settled: impl FnOnce(Result<(), std::sync::Arc<Error>>) + Send + 'static,
    ) {
        unimplemented!()
    }
    /// No record of this session is needed any more; a segment with only such records is deleted.
    pub fn release(&self, _session: SessionId) {
        unimplemented!()
    }
    /// Syncs what is queued, stops the writer. Further appends fail with [`Error::Closed`].
    pub async fn close(&self) -> Result<(), Error> {
        unimplemented!()
    }
}
