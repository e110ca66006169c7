//! The writer thread: group commit, rotation, release.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use schemas::SessionId;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::format::{Encoded, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::recovery::{OldSegment, remove_if_there, rewrite_without, sync_parent};
use super::{BelowFloor, Durability, Error, Health, Options, Room, segment_name};
use crate::store::space::{self, is_no_space};

/// The writer stops gathering at this many bytes: one write of a few milliseconds on a common disk.
const GATHER_LIMIT_BYTES: usize = 4 << 20;
/// A write buffer that a burst made larger than this is given back.
const KEPT_BUFFER_BYTES: usize = 1 << 20;
/// Free space is looked up after this many bytes or this long, whichever is first, and while it is short.
const SPACE_CHECK_BYTES: u64 = 4 << 20;
const SPACE_CHECK_EVERY: Duration = Duration::from_secs(1);

/// The disk as the writer sees it; tests put a faulty one in its place.
pub(super) trait Storage: Send {
    /// Makes an empty file, over one that is there.
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn Medium>>;
    /// Renames a file for good: the folder is synced.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Free bytes on the log's disk.
    fn free_bytes(&mut self) -> io::Result<u64>;
}

/// One segment's file.
pub(super) trait Medium: Send {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn sync_data(&mut self) -> io::Result<()>;
    fn set_len(&mut self, len: u64) -> io::Result<()>;
}

/// The real disk.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
}

impl Disk {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }
}

impl Storage for Disk {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn Medium>> {
        let file = File::options().create(true).truncate(true).write(true).open(path)?;
        Ok(Box::new(file))
    }
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        sync_parent(to)
    }
    fn free_bytes(&mut self) -> io::Result<u64> {
        space::free_bytes(&self.dir)
    }
}

impl Medium for File {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }
    fn sync_data(&mut self) -> io::Result<()> {
        File::sync_data(self)
    }
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }
}

/// A record on its way.
pub(super) struct Append {
    pub(super) encoded: Encoded,
    pub(super) session_id: SessionId,
    pub(super) frames: usize,
    pub(super) settled: Box<dyn FnOnce(Result<(), Arc<Error>>) + Send>,
    /// Gives the room in the queue back when the record is done with.
    pub(super) _room: OwnedSemaphorePermit,
}

pub(super) enum Job {
    Append(Append),
    Release(SessionId),
    Erase(Erase),
    Probe(Probe),
}

/// Somebody asks whether the log takes records.
pub(super) struct Probe {
    pub(super) room: Room,
    pub(super) done: oneshot::Sender<Health>,
}

/// Sessions that are to be nowhere in the log.
pub(super) struct Erase {
    pub(super) sessions: HashSet<SessionId>,
    pub(super) done: oneshot::Sender<Result<u64, Error>>,
}

/// What appenders and the writer share.
pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    health: Mutex<Health>,
    commit_window: Duration,
    gather_limit_bytes: usize,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    bytes: usize,
    /// No job is taken any more.
    closing: bool,
    /// The writer waits for a first job. Otherwise it comes by itself, and need not be woken for each record.
    writer_sleeps: bool,
}

impl Shared {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
            health: Mutex::default(),
            commit_window: options.commit_window,
            // Half of the queue, so that appenders still find room while the writer gathers.
            gather_limit_bytes: GATHER_LIMIT_BYTES.min(options.queue_limit_bytes / 2),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_health(&self, health: Health) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }

    /// Queues a record; false, and the record is forgotten, if the log is closed.
    pub(super) fn push_append(&self, append: Append) -> bool {
        let mut queue = self.queue();
        if queue.closing {
            return false;
        }
        queue.bytes += append.encoded.len();
        queue.jobs.push(Job::Append(append));
        let wake = queue.writer_sleeps || queue.bytes >= self.gather_limit_bytes;
        // Woken under the lock, the writer would only run into it.
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
        true
    }

    /// Queues a job that nobody waits for; a closed log drops it.
    pub(super) fn push(&self, job: Job) {
        let mut queue = self.queue();
        if queue.closing {
            return;
        }
        queue.jobs.push(job);
        let wake = queue.writer_sleeps;
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Takes no more jobs; the writer finishes those it has.
    pub(super) fn close(&self) {
        self.queue().closing = true;
        self.wake.notify_one();
    }

    /// Everything that is queued, once there is something; `None` when the log is closed and the queue empty.
    ///
    /// If several jobs are waiting already when the writer comes, it lets more gather until `busy_until`.
    fn next_batch(&self, busy_until: Instant) -> Option<(Vec<Job>, usize)> {
        let mut queue = self.queue();
        let mut busy = queue.jobs.len() > 1;
        loop {
            if queue.jobs.is_empty() {
                if queue.closing {
                    return None;
                }
                busy = false;
                queue.writer_sleeps = true;
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.writer_sleeps = false;
                continue;
            }
            let wait = busy_until.saturating_duration_since(Instant::now());
            if !busy || queue.closing || wait.is_zero() || queue.bytes >= self.gather_limit_bytes {
                let bytes = std::mem::take(&mut queue.bytes);
                return Some((std::mem::take(&mut queue.jobs), bytes));
            }
            queue = self.wake.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The segment that is written.
struct Active {
    path: PathBuf,
    medium: Box<dyn Medium>,
    salt: u32,
    /// Where the next record goes: every byte before it is good, and synced as the durability says.
    offset: u64,
    sessions: HashSet<SessionId>,
}

pub(super) struct Writer {
    options: Options,
    storage: Box<dyn Storage>,
    shared: Arc<Shared>,
    old: Vec<OldSegment>,
    active: Option<Active>,
    next_number: u64,
    salts: ChaCha8Rng,
    /// The batch as it goes to the disk, and who waits for it.
    buffer: Vec<u8>,
    waiting: Vec<Append>,
    poison: Option<Arc<Error>>,
    unchecked_bytes: u64,
    checked_at: Option<Instant>,
}

impl Writer {
    pub(super) fn new(
        options: Options,
        storage: Box<dyn Storage>,
        old: Vec<OldSegment>,
        next_number: u64,
        shared: Arc<Shared>,
    ) -> Self {
        // The segment number makes the salts of one seed differ from one start to the next.
        let salts = ChaCha8Rng::seed_from_u64(options.seed ^ next_number.rotate_left(32));
        Self {
            options,
            storage,
            shared,
            old,
            active: None,
            next_number,
            salts,
            buffer: Vec::new(),
            waiting: Vec::new(),
            poison: None,
            unchecked_bytes: 0,
            checked_at: None,
        }
    }

    pub(super) fn run(mut self) {
        // If anything below panics, appenders are told "closed" and not left waiting.
        let _closer = CloseOnDrop(Arc::clone(&self.shared));
        self.count_segments();
        let mut busy_until = Instant::now();
        while let Some((jobs, bytes)) = self.shared.next_batch(busy_until) {
            busy_until = Instant::now() + self.shared.commit_window;
            metrics::gauge!("volant_store_wal_queue_bytes").set(bytes as f64);
            for job in jobs {
                match job {
                    Job::Append(append) => self.take(append),
                    Job::Release(session) => {
                        self.commit();
                        self.release(session);
                    }
                    Job::Erase(Erase { sessions, done }) => {
                        self.commit();
                        // Who asked may be gone; it is erased all the same.
                        drop(done.send(self.erase(&sessions)));
                    }
                    Job::Probe(Probe { room, done }) => {
                        self.commit();
                        drop(done.send(self.probe(room)));
                    }
                }
            }
            self.commit();
            if self.buffer.capacity() > KEPT_BUFFER_BYTES {
                self.buffer = Vec::new();
            }
        }
        if self.options.durability == Durability::Os
            && let Some(mut active) = self.active.take()
            && let Err(source) = active.medium.sync_data()
        {
            self.fail_for_good(Arc::new(Error::Sync { path: active.path, source }));
        }
    }

    /// Puts a record into the batch, in the segment where it will stand.
    fn take(&mut self, append: Append) {
        let len = append.encoded.len() as u64;
        let is_full = self.active.as_ref().is_some_and(|active| {
            let end = active.offset + self.buffer.len() as u64;
            end > SEGMENT_HEADER_BYTES as u64 && end + len > self.options.segment_limit_bytes
        });
        if is_full || self.buffer.len() >= GATHER_LIMIT_BYTES {
            self.commit();
        }
        if is_full {
            self.retire_active();
        }
        match self.ready_active() {
            Ok((salt, offset)) => {
                append.encoded.put(salt, offset + self.buffer.len() as u64, &mut self.buffer);
                self.waiting.push(append);
            }
            Err(error) => self.resolve_error(vec![append], &error),
        }
    }

    /// Salt and offset of a segment that takes records.
    fn ready_active(&mut self) -> Result<(u32, u64), Arc<Error>> {
        if let Some(cause) = &self.poison {
            return Err(Arc::new(Error::Poisoned(Arc::clone(cause))));
        }
        if let Some(active) = &self.active {
            return Ok((active.salt, active.offset));
        }
        let active = self.create_segment().map_err(Arc::new)?;
        let place = (active.salt, active.offset);
        self.active = Some(active);
        self.count_segments();
        Ok(place)
    }

    fn create_segment(&mut self) -> Result<Active, Error> {
        self.check_space(true)?;
        let number = self.next_number;
        let path = self.options.dir.join(segment_name(number));
        let unborn = self.options.dir.join(format!("_{}.tmp", segment_name(number)));
        let salt = self.salts.next_u32();
        let header = SegmentHeader { number, salt }.encode();
        let mut create = || {
            let mut medium = self.storage.create(&unborn)?;
            medium.write_all_at(&header, 0)?;
            medium.sync_data()?;
            self.storage.rename(&unborn, &path)?;
            Ok(medium)
        };
        match create() {
            Ok(medium) => {
                self.next_number += 1;
                Ok(Active { path, medium, salt, offset: SEGMENT_HEADER_BYTES as u64, sessions: HashSet::new() })
            }
            Err(source) => {
                // Either name may be there; both are harmless, and the next attempt takes another number.
                drop(remove_if_there(&unborn));
                drop(remove_if_there(&path));
                self.next_number += 1;
                Err(if is_no_space(&source) { self.no_space(source) } else { Error::Create { path, source } })
            }
        }
    }

    /// Writes and syncs the batch, and tells everybody who waits for it.
    fn commit(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let written = self.write_batch();
        let bytes = self.buffer.len() as u64;
        self.buffer.clear();
        match written {
            Ok(()) => {
                metrics::counter!("volant_store_wal_records_total").increment(waiting.len() as u64);
                metrics::counter!("volant_store_wal_bytes_total").increment(bytes);
                metrics::counter!("volant_store_wal_frames_total")
                    .increment(waiting.iter().map(|append| append.frames as u64).sum());
                if let Some(active) = &mut self.active {
                    active.offset += bytes;
                    active.sessions.extend(waiting.iter().map(|append| append.session_id));
                }
                if !self.shared.health().is_good() {
                    self.recovered();
                }
                for append in waiting {
                    (append.settled)(Ok(()));
                }
            }
            Err(error) => self.resolve_error(waiting, &error),
        }
    }

    fn write_batch(&mut self) -> Result<(), Arc<Error>> {
        self.check_space(false).map_err(Arc::new)?;
        let Some(mut active) = self.active.take() else { return Err(Arc::new(Error::Closed)) };
        self.unchecked_bytes += self.buffer.len() as u64;
        if let Err(source) = active.medium.write_all_at(&self.buffer, active.offset) {
            return Err(self.undo(active, source, |path, source| Error::Write { path, source }));
        }
        if self.options.durability == Durability::Fsync {
            let started = Instant::now();
            let synced = active.medium.sync_data();
            metrics::counter!("volant_store_wal_syncs_total").increment(1);
            metrics::histogram!("volant_store_wal_sync_seconds").record(started.elapsed().as_secs_f64());
            if let Err(source) = synced {
                return Err(self.undo(active, source, |path, source| Error::Sync { path, source }));
            }
        }
        self.active = Some(active);
        Ok(())
    }

    /// Takes a failed batch back out of the segment, so that records that were refused do not appear after a restart.
    fn undo(
        &mut self,
        mut active: Active,
        source: io::Error,
        error: impl FnOnce(PathBuf, io::Error) -> Error,
    ) -> Arc<Error> {
        let cut = active.medium.set_len(active.offset).and_then(|()| active.medium.sync_data());
        if !is_no_space(&source) {
            let cause = Arc::new(error(active.path, source));
            self.fail_for_good(Arc::clone(&cause));
            return cause;
        }
        match cut {
            Ok(()) => self.active = Some(active),
            Err(source) => self.fail_for_good(Arc::new(Error::Write { path: active.path, source })),
        }
        Arc::new(self.no_space(source))
    }

    fn no_space(&self, source: io::Error) -> Error {
        Error::NoSpace { dir: self.options.dir.clone(), source }
    }

    /// From now on nothing is appended.
    fn fail_for_good(&mut self, cause: Arc<Error>) {
        tracing::error!(
            error = &*cause as &dyn std::error::Error,
            "the write-ahead log has failed and takes nothing more until a restart"
        );
        self.shared.set_health(Health::Poisoned(Arc::clone(&cause)));
        self.poison = Some(cause);
    }

    fn resolve_error(&self, waiting: Vec<Append>, error: &Arc<Error>) {
        let reason = match &**error {
            Error::NoSpace { .. } => "no_space",
            Error::Poisoned(_) => "poisoned",
            _ => "io",
        };
        metrics::counter!("volant_store_wal_refused_records_total", "reason" => reason).increment(waiting.len() as u64);
        if self.poison.is_none() {
            self.failing(error);
        }
        for append in waiting {
            (append.settled)(Err(Arc::clone(error)));
        }
    }

    /// Refuses while less than the floor is free. Looked up now and then, at once with `now`, always while it is short.
    fn check_space(&mut self, now: bool) -> Result<(), Error> {
        let is_due = now
            || self.unchecked_bytes >= SPACE_CHECK_BYTES
            || self.checked_at.is_none_or(|at| at.elapsed() >= SPACE_CHECK_EVERY);
        if !is_due {
            return Ok(());
        }
        if let Err(error) = self.check_floor(self.options.min_free_bytes) {
            self.checked_at = None;
            return Err(error);
        }
        self.unchecked_bytes = 0;
        self.checked_at = Some(Instant::now());
        Ok(())
    }

    fn check_floor(&mut self, min_free_bytes: u64) -> Result<(), Error> {
        // A disk that cannot tell has no floor; when it is full the write says so.
        let free_bytes = self.storage.free_bytes().unwrap_or(u64::MAX);
        if free_bytes < min_free_bytes {
            let below = BelowFloor { free_bytes, min_free_bytes };
            return Err(self.no_space(io::Error::new(io::ErrorKind::StorageFull, below)));
        }
        Ok(())
    }

    /// Whether a record would be kept now. The disk is asked: it may have filled up, or been emptied, since the last append.
    fn probe(&mut self, room: Room) -> Health {
        let told = self.shared.health();
        let tried = match &told {
            Health::Poisoned(_) => return told,
            Health::Failing(_) => self.check_space(true).and_then(|()| self.try_a_block()),
            Health::Good => self.check_space(true),
        };
        match tried {
            Ok(()) if !told.is_good() => self.recovered(),
            Ok(()) => {}
            Err(error) => {
                let error = Arc::new(error);
                self.failing(&error);
                return Health::Failing(error);
            }
        }
        let min_free_bytes = self.options.min_free_bytes;
        match room {
            Room::ForARecord => Health::Good,
            Room::ForASession => match self.check_floor(min_free_bytes.saturating_add(min_free_bytes / 4)) {
                Ok(()) => Health::Good,
                Err(error) => Health::Failing(Arc::new(error)),
            },
        }
    }

    /// Writes a block on a file of its own: a quota, for one, does not show in the free space.
    fn try_a_block(&mut self) -> Result<(), Error> {
        let path = self.options.dir.join("_probe.wal.tmp");
        let tried = self.storage.create(&path).and_then(|mut medium| {
            medium.write_all_at(&[0; 4096], 0)?;
            medium.sync_data()
        });
        drop(remove_if_there(&path));
        match tried {
            Ok(()) => Ok(()),
            Err(source) if is_no_space(&source) => Err(self.no_space(source)),
            Err(source) => Err(Error::Create { path, source }),
        }
    }

    fn recovered(&self) {
        tracing::info!("the write-ahead log takes records again");
        self.shared.set_health(Health::Good);
    }

    fn failing(&self, error: &Arc<Error>) {
        if self.shared.health().is_good() {
            tracing::error!(error = &**error as &dyn std::error::Error, "the write-ahead log cannot take records");
        }
        self.shared.set_health(Health::Failing(Arc::clone(error)));
    }

    /// The active segment takes no more records.
    fn retire_active(&mut self) {
        let Some(mut active) = self.active.take() else { return };
        if self.options.durability == Durability::Os
            && let Err(source) = active.medium.sync_data()
        {
            self.fail_for_good(Arc::new(Error::Sync { path: active.path.clone(), source }));
        }
        self.old.push(OldSegment { path: active.path, sessions: active.sessions });
        self.delete_released();
    }

    fn release(&mut self, session: SessionId) {
        for segment in &mut self.old {
            segment.sessions.remove(&session);
        }
        if let Some(active) = &mut self.active {
            active.sessions.remove(&session);
            // A new segment costs three syncs; for the sake of a few records that is not worth it.
            if active.sessions.is_empty() && active.offset >= self.options.segment_limit_bytes / 4 {
                self.retire_active();
            }
        }
        self.delete_released();
    }

    /// Writes every segment anew that holds records of these sessions, needed or not; how many records those were.
    fn erase(&mut self, sessions: &HashSet<SessionId>) -> Result<u64, Error> {
        if let Some(cause) = &self.poison {
            return Err(Error::Poisoned(Arc::clone(cause)));
        }
        if sessions.is_empty() {
            return Ok(0);
        }
        // Its records are on the disk, and what comes next goes into a segment of its own.
        self.retire_active();
        for segment in &mut self.old {
            segment.sessions.retain(|session| !sessions.contains(session));
        }
        self.delete_released();
        let mut erased = 0;
        for segment in &self.old {
            erased += rewrite_without(&segment.path, sessions)?;
        }
        Ok(erased)
    }

    /// Deletes the segments that nobody needs.
    fn delete_released(&mut self) {
        let before = self.old.len();
        self.old.retain(|segment| {
            if !segment.sessions.is_empty() {
                return true;
            }
            match remove_if_there(&segment.path) {
                Ok(()) => false,
                Err(error) => {
                    tracing::warn!(
                        wal.segment = %segment.path.display(),
                        error = &error as &dyn std::error::Error,
                        "a write-ahead log segment that nobody needs could not be deleted; the next release tries again"
                    );
                    true
                }
            }
        });
        if self.old.len() != before {
            self.count_segments();
        }
    }

    fn count_segments(&self) {
        metrics::gauge!("volant_store_wal_segments").set((self.old.len() + usize::from(self.active.is_some())) as f64);
    }
}

struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
        // Whoever waits for what is left in the queue learns it from the dropped sender.
        self.0.queue().jobs.clear();
    }
}
