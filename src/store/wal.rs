//! The write-ahead log: what has been appended and synced survives the death of the process and of the machine.
//!
//! In: [`WalRecord`]s, one for each packet of frames. Out: a oneshot that resolves once the record is on disk, and after a
//! restart every such record again, in order. One named thread writes; appenders only encode and queue.
//!
//! # Files
//!
//! A log is a folder:
//!
//! | name | what it is |
//! |---|---|
//! | `00000000000000000042.wal` | segment 42; the highest number is the newest |
//! | `_00000000000000000043.wal.tmp` | a segment being born, or written anew; deleted at open |
//! | `00000000000000000042.wal.damaged-1` | bytes that recovery took out of segment 42, for the operator to judge |
//! | `_lock` | held (`flock`) by the one process that has the log open |
//!
//! # Byte layout
//!
//! Integers and floats are little-endian, CRCs are CRC32C, reserved bytes are written as zero and not looked at.
//!
//! ```text
//! segment header, 32 bytes                        record header, 32 bytes
//!  0  8  magic "VOLWAL\r\n"                         0  4  magic "VREC"
//!  8  2  format version, 1                          4  4  salt of the segment
//! 10  6  reserved                                   8  8  offset of this header in the segment
//! 16  8  segment number                            16  1  kind
//! 24  4  salt                                      17  1  version of the kind's body
//! 28  4  CRC of bytes 0..28                        18  2  reserved
//! 32  …  records, back to back                     20  4  body length in bytes
//!                                                  24  4  CRC of the body
//!                                                  28  4  CRC of bytes 0..28
//!                                                  32  …  body
//!
//! kind 1, frames, version 1                       columns, in this order
//!  0  8  session id                                 0  sensor_id       i32      5  received_at_us  i64
//!  8  8  first_seq                                  1  sensor          u8       6  acc             3 × f32
//! 16  8  content_hash                               2  device_time_raw i64      7  gyro            3 × f32
//! 24  8  packet_ms                                  3  t_ns            i64      8  angle           3 × f32
//! 32  4  frame count n                              4  clock           u8       9  flags           i32
//! 36  2  constant columns, bit = column number
//! 38  2  reserved                                 a constant column holds one value, any other holds n
//! 40  …  columns
//!
//! kind 2, hole: damaged bytes that recovery has set aside. Its body is neither checked nor read.
//! ```
//!
//! Offset and salt make a record valid in one place only. Frames hold bytes chosen by strangers; without them a packet
//! could carry the image of a record, and a search behind a damaged spot would take it for one.
//!
//! # Life of a record
//!
//! 1. [`Handle::reserve`] waits for room in the queue: this is the back-pressure that reaches the socket.
//! 2. [`Handle::append`], or [`Handle::append_then`], encodes on the caller's thread and queues; the order of calls is the order in the log.
//! 3. The writer takes everything that is queued, puts offset and salt into the headers, writes once, syncs once
//!    (`fdatasync`), and resolves every receiver. While it syncs the next batch gathers by itself; only when several
//!    records are waiting already does it wait on, until [`Options::commit_window`] after the previous batch. A lone
//!    record is never delayed.
//! 4. A full segment is followed by a new one: temporary name, header, sync, rename, sync of the folder, and only then
//!    the first record.
//! 5. [`Handle::release`] says that a session's records so far are not needed any more. A segment without needed
//!    records is deleted; the active one only once it is a quarter full.
//! 6. [`Handle::erase`] writes each segment that holds a session's records anew without them: temporary name, sync, rename.
//!
//! # Recovery
//!
//! [`Handle::open`] reads every segment, one record in memory at a time, and hands each good record to the caller.
//! Where a record should begin and none does, it searches for the next place where one is whole. What lies between is
//! copied to a `.damaged-N` file, then overwritten by a hole; a bad end is copied and cut off. A crash leaves at most a
//! torn end, and that was never acknowledged; anything else is the disk's doing, is logged as an error and counted in the
//! [`RecoveryReport`]. Recovered segments are never appended to: a new one begins with the first append. If the copy
//! cannot be made (full disk) the damage stays where it is, which disturbs nobody.
//!
//! # Errors while writing
//!
//! - **No space** (`ENOSPC`, quota, the file system's largest file, or less free space than [`Options::min_free_bytes`]): the batch fails
//!   with [`Error::NoSpace`], the segment is cut back to the last good byte, and the next append tries again. [`Handle::probe`] tells
//!   without one.
//! - **Any other failed write, and a failed sync**: the log is poisoned. After a failed `fsync` the kernel may have dropped
//!   the dirty pages, so neither a retry nor a read can tell what is on disk. Every waiting and later append fails with
//!   [`Error::Poisoned`]; [`Handle::health`] says so; a restart recovers what was acknowledged.
//!
//! # Versions
//!
//! - *New reader, old data*: every version ever released stays readable.
//! - *Old reader, new data*: a segment of a newer format, a newer version of a known body, or an unknown kind from 128 up
//!   makes open fail with [`Error::Newer`] before that segment is touched. Unknown kinds below 128 are skipped and counted.
//! - *Old writer, new data*: never happens, for a writer has read everything before it writes. Raise the body's version
//!   when its layout changes; the format's when a header does. Magic, version and CRC of the segment header never move.

#![deny(clippy::indexing_slicing)]

mod format;
mod recovery;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemas::{FrameColumns, SessionId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::class::Class;
pub use recovery::{Lock, lock, read_only, set_aside};
use writer::{Append, Disk, Erase, Job, Probe, Shared, Storage, Writer};

/// How far a record has gone when its append resolves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// `fdatasync` has returned. The default.
    Fsync,
    /// The operating system has the bytes; a power cut may lose them, a killed process does not.
    Os,
}

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The log's folder; made if absent.
    pub dir: PathBuf,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// A segment is closed and the next begun at this size. A record that is larger gets a segment to itself.
    pub segment_limit_bytes: u64,
    /// How long the writer gathers records before it syncs them together, counted from the previous batch. An upper
    /// bound that takes effect under load only.
    pub commit_window: Duration,
    /// Bytes that may wait for the writer; at the limit `reserve` waits.
    pub queue_limit_bytes: usize,
    /// Below this much free space on the log's disk appends fail with [`Error::NoSpace`]; the catalog and the seals
    /// still need room to finish what was acknowledged.
    pub min_free_bytes: u64,
    /// Where the salts of new segments come from: any number that strangers cannot guess.
    pub seed: u64,
}

impl Options {
    /// The defaults for a log in `dir`: synced, 64 MiB segments, 2 ms window, 16 MiB queue, 256 MiB kept free.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            durability: Durability::Fsync,
            segment_limit_bytes: 64 << 20,
            commit_window: Duration::from_millis(2),
            queue_limit_bytes: 16 << 20,
            min_free_bytes: 256 << 20,
            seed: 0,
        }
    }
}

/// The most frames one record may hold: 73 MB encoded.
pub const RECORD_LIMIT_FRAMES: usize = 1 << 20;

/// One packet's frames as logged.
#[derive(Clone, Debug, PartialEq)]
pub struct WalRecord {
    /// The session whose recording took the frames.
    pub session_id: SessionId,
    /// Sequence number of the first frame within the session.
    pub first_seq: i64,
    /// Content hash for recognising repeats across restarts; 0 if none.
    pub content_hash: u64,
    /// The packet's own `timestamp`, ms since device boot; `i64::MIN` if none.
    pub packet_ms: i64,
    /// The frames. Every bit of every column comes back, NaN payloads included.
    pub frames: FrameColumns,
}

/// What opening or reading the log found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RecoveryReport {
    /// Segments with at least one record.
    pub segments: usize,
    /// Records of frames that were read.
    pub records: u64,
    /// Frames in those records.
    pub frames: u64,
    /// Records of an unknown optional kind, written by a newer version and passed over.
    pub skipped_records: u64,
    /// Bytes of torn or damaged records, [`RecoveryReport::torn_bytes`] included.
    pub damaged_bytes: u64,
    /// Of these, bytes of a last record that ends too early: what a crash leaves, and what was never acknowledged.
    pub torn_bytes: u64,
    /// Damaged stretches other than a torn end. Each may have held acknowledged frames.
    pub damaged_spots: u64,
    /// Files that now hold the damaged bytes.
    pub set_aside: Vec<PathBuf>,
    /// Damaged stretches that could not be set aside and stay in their segment.
    pub left_in_place: u64,
}

impl RecoveryReport {
    /// True if acknowledged frames may be missing: there is damage that no crash explains.
    #[must_use]
    pub fn lost_data(&self) -> bool {
        self.damaged_spots > 0
    }
}

/// Why the log could not be opened, or a record not be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// [`Handle::close`] was called.
    #[error("append: the write-ahead log is closed")]
    Closed,
    /// Another process, or another handle of this one, has the log.
    #[error("open the write-ahead log: another process has it open: {}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Opening or making the folder or its lock.
    #[error("open the write-ahead log in {}", path.display())]
    Open {
        /// What could not be opened.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Reading a segment.
    #[error("read write-ahead log segment {}", path.display())]
    Read {
        /// The segment.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A segment was written by a newer Volant.
    #[error("read {what} of version {version}, newer than this program, in {}", path.display())]
    Newer {
        /// Format, kind or body.
        what: &'static str,
        /// Its version (of a kind: its number).
        version: u32,
        /// The segment.
        path: PathBuf,
    },
    /// Starting the writer thread.
    #[error("start the writer thread of the write-ahead log")]
    Spawn(#[source] io::Error),
    /// Making a new segment; the next append tries again.
    #[error("make write-ahead log segment {}", path.display())]
    Create {
        /// The segment.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The disk is full, or nearly so; the next append tries again.
    #[error("append to the write-ahead log: no space in {}", dir.display())]
    NoSpace {
        /// The log's folder.
        dir: PathBuf,
        /// The cause: the system's, or [`BelowFloor`].
        #[source]
        source: io::Error,
    },
    /// Writing records.
    #[error("write to write-ahead log segment {}", path.display())]
    Write {
        /// The segment.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Writing a segment anew without the records of somebody who is erased; it stays as it was.
    #[error("erase from write-ahead log segment {}", path.display())]
    Erase {
        /// The segment.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Syncing records.
    #[error("sync write-ahead log segment {}", path.display())]
    Sync {
        /// The segment.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An earlier write or sync failed; the log takes nothing more until a restart.
    #[error("append: the write-ahead log is read-only since an earlier failure")]
    Poisoned(#[source] Arc<Error>),
    /// The record is larger than a record may be, or than the queue.
    #[error("append a record of {bytes} bytes: the limit is {limit_bytes}")]
    TooLarge {
        /// Size of the record.
        bytes: usize,
        /// The limit it passes.
        limit_bytes: usize,
    },
    /// The columns of the frames differ in length.
    #[error("append a record of session {session_id}: its columns differ in length")]
    Ragged {
        /// The record's session.
        session_id: SessionId,
    },
    /// The record needs more room than its permit reserved.
    #[error("append a record of {bytes} bytes on a permit for {reserved_bytes}")]
    Unreserved {
        /// Size of the record.
        bytes: usize,
        /// What the permit holds.
        reserved_bytes: usize,
    },
}

impl Error {
    /// Who has to act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Closed | Self::TooLarge { .. } => Class::Caller,
            Self::Ragged { .. } | Self::Unreserved { .. } => Class::Bug,
            Self::Locked { .. }
            | Self::Open { .. }
            | Self::Read { .. }
            | Self::Newer { .. }
            | Self::Spawn(_)
            | Self::Create { .. }
            | Self::NoSpace { .. }
            | Self::Write { .. }
            | Self::Erase { .. }
            | Self::Sync { .. }
            | Self::Poisoned(_) => Class::Environment,
        }
    }

    /// True if the same append may succeed later on the same handle.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::Create { .. })
    }
}

/// The source of an [`Error::NoSpace`] that the log raised itself, before the disk was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{free_bytes} bytes are free, {min_free_bytes} must stay so")]
pub struct BelowFloor {
    /// Free space that the disk reports.
    pub free_bytes: u64,
    /// [`Options::min_free_bytes`].
    pub min_free_bytes: u64,
}

/// Whether the log takes records.
#[derive(Clone, Debug, Default)]
pub enum Health {
    /// The last append was kept, or there was none.
    #[default]
    Good,
    /// There is no space, or the last append found that no segment could be made; later ones may succeed.
    Failing(Arc<Error>),
    /// A write or sync failed; only a restart helps.
    Poisoned(Arc<Error>),
}

impl Health {
    /// True while appends are kept.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        matches!(self, Self::Good)
    }
}

/// Room on the disk that somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// For whatever comes next: [`Options::min_free_bytes`] stay free.
    ForARecord,
    /// For a recording that begins now, so that those that run are not cut off for its sake: a quarter more stays free.
    ForASession,
}

/// Room in the writer's queue; dropping it gives the room back.
#[derive(Debug)]
pub struct Permit {
    room: OwnedSemaphorePermit,
}

/// The log. Cheap to clone. Dropping the last clone closes it and waits for the writer.
#[derive(Clone, Debug)]
pub struct Handle {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    queue_limit_bytes: usize,
    done: watch::Receiver<bool>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("health", &self.shared.health()).finish_non_exhaustive()
    }
}

impl Handle {
    /// Opens the log: replays every good record to `replay` in order, sets damaged bytes aside, starts the writer.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Open`], [`Error::Read`], [`Error::Newer`], [`Error::Spawn`]. Damage is no error.
    pub fn open(options: Options, replay: impl FnMut(WalRecord)) -> Result<(Self, RecoveryReport), Error> {
        let lock = lock(&options.dir)?;
        Self::open_locked(lock, options, replay)
    }

    /// As [`Handle::open`], with a lock that was taken before: of the log in `options.dir`.
    ///
    /// # Errors
    /// As [`Handle::open`].
    pub fn open_locked(
        lock: Lock,
        options: Options,
        replay: impl FnMut(WalRecord),
    ) -> Result<(Self, RecoveryReport), Error> {
        let disk = Disk::new(&options.dir);
        Self::open_on(lock, options, Box::new(disk), replay)
    }

    fn open_on(
        lock: Lock,
        options: Options,
        storage: Box<dyn Storage>,
        replay: impl FnMut(WalRecord),
    ) -> Result<(Self, RecoveryReport), Error> {
        let opened = recovery::open(lock, replay)?;
        let room = Arc::new(Semaphore::new(options.queue_limit_bytes.min(Semaphore::MAX_PERMITS)));
        let shared = Arc::new(Shared::new(&options));
        let queue_limit_bytes = options.queue_limit_bytes;
        let (done_tx, done) = watch::channel(false);
        let writer = Writer::new(options, storage, opened.segments, opened.next_number, Arc::clone(&shared));
        let lock = opened.lock;
        let thread = std::thread::Builder::new()
            .name("volant-wal".to_owned())
            .spawn(move || {
                writer.run();
                drop(lock);
                done_tx.send_replace(true);
            })
            .map_err(Error::Spawn)?;
        let inner = Inner { shared, room, queue_limit_bytes, done, writer: Mutex::new(Some(thread)) };
        Ok((Self { inner: Arc::new(inner) }, opened.report))
    }

    /// Waits for room for a record of `frames` frames. This wait is the back-pressure on sockets.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the record could not be taken even by an empty queue, [`Error::Closed`].
    pub async fn reserve(&self, frames: usize) -> Result<Permit, Error> {
        let bytes = self.checked_size(frames)?;
        let room = Arc::clone(&self.inner.room).acquire_many_owned(bytes).await.map_err(|_| Error::Closed)?;
        Ok(Permit { room })
    }

    /// As [`Handle::reserve`], for callers outside async code that would rather be refused than wait: `None` if there is
    /// no room now.
    ///
    /// # Errors
    /// As [`Handle::reserve`].
    pub fn try_reserve(&self, frames: usize) -> Result<Option<Permit>, Error> {
        let bytes = self.checked_size(frames)?;
        match Arc::clone(&self.inner.room).try_acquire_many_owned(bytes) {
            Ok(room) => Ok(Some(Permit { room })),
            Err(tokio::sync::TryAcquireError::NoPermits) => Ok(None),
            Err(tokio::sync::TryAcquireError::Closed) => Err(Error::Closed),
        }
    }

    fn checked_size(&self, frames: usize) -> Result<u32, Error> {
        let bytes = format::record_size_max(frames);
        let limit_bytes = self.inner.queue_limit_bytes.min(format::record_size_max(RECORD_LIMIT_FRAMES));
        match u32::try_from(bytes) {
            Ok(size) if bytes <= limit_bytes => Ok(size),
            _ => Err(Error::TooLarge { bytes, limit_bytes }),
        }
    }

    /// Queues a record; call order is log order. Never blocks. The receiver resolves when the record is durable.
    ///
    /// A receiver that is dropped changes nothing: the record is written all the same. One that fails to receive means
    /// that the writer is gone, as with [`Error::Closed`].
    pub fn append(&self, permit: Permit, record: &WalRecord) -> oneshot::Receiver<Result<(), Arc<Error>>> {
        let (resolve, resolved) = oneshot::channel();
        let resolve = Arc::new(Mutex::new(Some(resolve)));
        let told = Arc::clone(&resolve);
        let tell = move |result| {
            if let Some(resolve) = told.lock().unwrap_or_else(PoisonError::into_inner).take() {
                drop(resolve.send(result));
            }
        };
        if let Err(error) = self.append_then(permit, record, tell.clone()) {
            tell(Err(Arc::new(error)));
        }
        resolved
    }

    /// As [`Handle::append`], but `settled` is called with the record's fate, on the writer's thread and in log order:
    /// it must be quick and must not wait for anything that waits for the log.
    ///
    /// # Errors
    /// What can be refused at once: [`Error::Ragged`], [`Error::TooLarge`], [`Error::Unreserved`], [`Error::Closed`].
    /// `settled` is not called then.
    pub fn append_then(
        &self,
        permit: Permit,
        record: &WalRecord,
        settled: impl FnOnce(Result<(), Arc<Error>>) + Send + 'static,
    ) -> Result<(), Error> {
        let encoded = format::encode(record)?;
        let reserved_bytes = permit.room.num_permits();
        if encoded.len() > reserved_bytes {
            return Err(Error::Unreserved { bytes: encoded.len(), reserved_bytes });
        }
        let append = Append {
            encoded,
            session_id: record.session_id,
            frames: record.frames.len(),
            settled: Box::new(settled),
            _room: permit.room,
        };
        if self.inner.shared.push_append(append) { Ok(()) } else { Err(Error::Closed) }
    }

    /// No record of this session that was appended so far is needed any more; a segment with only such records is
    /// deleted. Call it when what the records say is safe elsewhere: in a sealed file that the catalog names.
    ///
    /// The log itself does not remember a release over a restart: a session whose segment is still there is replayed,
    /// and whoever knows that it is done releases it again.
    pub fn release(&self, session: SessionId) {
        self.inner.shared.push(Job::Release(session));
    }

    /// Takes every record of these sessions out of the log, also where others share a segment; how many those were. Nothing
    /// of them may be appended any more. Appends wait meanwhile: some tenths of a second for a full segment.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Erase`] with nothing lost, and some of it perhaps erased: do it again.
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub async fn erase(&self, sessions: HashSet<SessionId>) -> Result<u64, Error> {
        let (done, erased) = oneshot::channel();
        self.inner.shared.push(Job::Erase(Erase { sessions, done }));
        erased.await.map_err(|_| Error::Closed)?
    }

    /// Whether the log takes records now, with a look at the disk.
    pub async fn probe(&self, room: Room) -> Health {
        let (done, told) = oneshot::channel();
        self.inner.shared.push(Job::Probe(Probe { room, done }));
        // A closed log drops the question.
        told.await.unwrap_or_else(|_| self.health())
    }

    /// Whether the last record was taken.
    #[must_use]
    pub fn health(&self) -> Health {
        self.inner.shared.health()
    }

    /// Syncs what is queued, stops the writer, gives up the lock. Further appends fail with [`Error::Closed`].
    ///
    /// # Errors
    /// [`Error::Poisoned`] if the log had failed: then some queued records were refused, each through its receiver.
    pub async fn close(&self) -> Result<(), Error> {
        self.inner.room.close();
        self.inner.shared.close();
        let mut done = self.inner.done.clone();
        // The sender is dropped only after it has sent `true`, or when the writer died; both mean that it is over.
        drop(done.wait_for(|over| *over).await);
        match self.health() {
            Health::Poisoned(cause) => Err(Error::Poisoned(cause)),
            Health::Good | Health::Failing(_) => Ok(()),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.thread().id() != std::thread::current().id()
        {
            // Joining makes "dropped" mean "unlocked": the folder can be opened again at once. It takes as long as the
            // sync of what is queued. A writer that panicked has nothing left to join for.
            drop(writer.join());
        }
    }
}

/// The name of segment `number`.
fn segment_name(number: u64) -> String {
    format!("{number:020}.wal")
}

/// The segment number that a file name stands for.
fn segment_number(name: &Path) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(".wal")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}
