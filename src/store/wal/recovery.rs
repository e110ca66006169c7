//! Reading segments: for a restart, which also repairs them, and for readers beside a running server, who touch nothing.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use schemas::SessionId;

use super::format::{
    BadHeader, FRAMES_VERSION, KIND_FRAMES, KIND_HOLE, KIND_MANDATORY_FROM, RECORD_HEADER_BYTES, RECORD_MAGIC,
    RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, decode_frames, encode,
};
use super::{Error, RecoveryReport, WalRecord, segment_number};

/// How much of a segment is read at once.
const WINDOW_BYTES: usize = 1 << 20;

/// A segment that is not written any more, and the sessions whose records in it are still needed.
#[derive(Debug)]
pub(super) struct OldSegment {
    pub(super) path: PathBuf,
    pub(super) sessions: HashSet<SessionId>,
}

/// A log that has been recovered and is locked.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) segments: Vec<OldSegment>,
    pub(super) next_number: u64,
    pub(super) report: RecoveryReport,
    pub(super) lock: Lock,
}

/// Reads every good record in order and changes nothing, also while a server writes the log.
///
/// Records that have been written but not yet acknowledged may be among them. The end of the newest segment may be cut
/// short by the writer's next record, which the report shows as torn bytes.
///
/// # Errors
/// [`Error::Open`], [`Error::Read`], [`Error::Newer`]. A folder that does not exist is an empty log.
pub fn read_only(dir: &Path, mut replay: impl FnMut(WalRecord)) -> Result<RecoveryReport, Error> {
    let mut report = RecoveryReport::default();
    let listed = match list(dir) {
        Err(Error::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(report),
        listed => listed?,
    };
    let newest = listed.numbers.last().copied();
    for number in listed.numbers {
        let path = dir.join(super::segment_name(number));
        let file = match File::open(&path) {
            Ok(file) => file,
            // Released since the folder was listed.
            Err(source) if source.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::Read { path, source }),
        };
        let found = scan(&path, &file, number, &mut report, &mut replay)?;
        report.segments += usize::from(found.has_records());
        count_damage(&found, newest == Some(number), &mut report);
    }
    Ok(report)
}

/// The right to write a log, and with it the data folder: one process has it at a time. Given back when dropped.
#[derive(Debug)]
pub struct Lock {
    dir: PathBuf,
    _file: File,
}

/// Where an error happened.
fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Open { path, source }
}

/// Locks the log in `dir`, which is made if absent.
///
/// # Errors
/// [`Error::Locked`], [`Error::Open`].
pub fn lock(dir: &Path) -> Result<Lock, Error> {
    fs::create_dir_all(dir).map_err(at(dir))?;
    let lock_path = dir.join("_lock");
    let file = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(at(&lock_path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: lock_path }),
        Err(TryLockError::Error(source)) => return Err(Error::Open { path: lock_path, source }),
    }
    Ok(Lock { dir: dir.to_owned(), _file: file })
}

/// Repairs and replays a log.
pub(super) fn open(lock: Lock, mut replay: impl FnMut(WalRecord)) -> Result<Opened, Error> {
    let dir = lock.dir.as_path();
    let listed = list(dir)?;
    for unborn in &listed.unborn {
        fs::remove_file(unborn).map_err(at(unborn))?;
    }
    let mut report = RecoveryReport::default();
    let mut segments = Vec::with_capacity(listed.numbers.len());
    let newest = listed.numbers.last().copied();
    for &number in &listed.numbers {
        let path = dir.join(super::segment_name(number));
        let file = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|source| Error::Read { path: path.clone(), source })?;
        let found = scan(&path, &file, number, &mut report, &mut replay)?;
        count_damage(&found, newest == Some(number), &mut report);
        let repaired = repair(&path, &file, &found, &mut report);
        if let Err(source) = &repaired {
            // The damage stays where it is and will be met again; nothing is appended behind it.
            report.left_in_place += 1;
            tracing::warn!(
                wal.segment = %path.display(),
                error = source as &dyn std::error::Error,
                "damaged bytes of write-ahead log segment {number} could not be set aside"
            );
        }
        report.segments += usize::from(found.has_records());
        if !found.sessions.is_empty() {
            segments.push(OldSegment { path, sessions: found.sessions });
        } else if repaired.is_ok() {
            remove_if_there(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        }
    }
    if report.damaged_bytes > 0 {
        metrics::counter!("volant_store_wal_damaged_bytes_total").increment(report.damaged_bytes);
    }
    if report.lost_data() {
        tracing::error!(
            wal.bytes = report.damaged_bytes,
            wal.spots = report.damaged_spots,
            "the write-ahead log was damaged in {} places: frames may be lost",
            report.damaged_spots
        );
    }
    let next_number = newest.map_or(1, |number| number.saturating_add(1)).max(listed.damaged_number_max + 1);
    Ok(Opened { segments, next_number, report, lock })
}

/// What recoveries set aside of a log: bytes that no record explains, so that nobody can tell whose they are.
///
/// # Errors
/// What the disk refuses; a folder that is not there has none.
pub fn set_aside(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains(SET_ASIDE) {
            found.push(entry.path());
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Between the name of a segment and the number of a file set aside from it.
const SET_ASIDE: &str = ".damaged-";

/// The files of a log.
#[derive(Debug, Default)]
struct Listed {
    /// Segments, oldest first.
    numbers: Vec<u64>,
    /// Segments that never got their name.
    unborn: Vec<PathBuf>,
    /// The highest segment number that a set-aside file names, 0 without one: it is not used again.
    damaged_number_max: u64,
}

fn list(dir: &Path) -> Result<Listed, Error> {
    let at = |source| Error::Open { path: dir.to_owned(), source };
    let mut listed = Listed::default();
    for entry in fs::read_dir(dir).map_err(at)? {
        let name = PathBuf::from(entry.map_err(at)?.file_name());
        let text = name.to_string_lossy();
        if let Some(number) = segment_number(&name) {
            listed.numbers.push(number);
        } else if text.starts_with('_') && text.ends_with(".wal.tmp") {
            listed.unborn.push(dir.join(&name));
        } else if let Some((segment, _)) = text.split_once(SET_ASIDE) {
            let number = segment_number(Path::new(segment)).unwrap_or(0);
            listed.damaged_number_max = listed.damaged_number_max.max(number);
        }
    }
    listed.numbers.sort_unstable();
    Ok(listed)
}

/// A stretch of a segment that holds no good record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Damage {
    from: u64,
    to: u64,
    cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The last record, or the segment header, ends too early, as after a crash.
    Torn,
    /// Zeros to the end: space that a file system had assigned before a power cut.
    Zeros,
    /// Anything else.
    Damaged,
}

/// What a segment holds.
#[derive(Debug, Default)]
struct Found {
    len: u64,
    sessions: HashSet<SessionId>,
    damages: Vec<Damage>,
    /// The header to write over a damaged one, once the salt is known.
    new_header: Option<SegmentHeader>,
}

impl Found {
    fn has_records(&self) -> bool {
        !self.sessions.is_empty()
    }
}

/// Reads a segment and replays its good records.
fn scan(
    path: &Path,
    file: &File,
    number: u64,
    report: &mut RecoveryReport,
    replay: &mut impl FnMut(WalRecord),
) -> Result<Found, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let newer = |what, version: u32| Error::Newer { what, version, path: path.to_owned() };
    let mut window = Window::new(file).map_err(failed)?;
    let mut found = Found { len: window.len, ..Found::default() };
    if found.len == 0 {
        return Ok(found);
    }

    let head = window.get(0, SEGMENT_HEADER_BYTES).map_err(failed)?;
    let mut salt = match SegmentHeader::decode(head) {
        Ok(header) if header.number == number => Some(header.salt),
        // A copy of another segment under a name of its own: its records would come twice.
        Ok(_) => {
            found.damages.push(Damage { from: 0, to: found.len, cause: Cause::Damaged });
            return Ok(found);
        }
        Err(BadHeader::Newer(version)) => return Err(newer("a segment", u32::from(version))),
        Err(BadHeader::Damaged) => {
            let cause = match head {
                head if head.len() < SEGMENT_HEADER_BYTES => Cause::Torn,
                head if head.iter().all(|&byte| byte == 0) => Cause::Zeros,
                _ => Cause::Damaged,
            };
            let to = found.len.min(SEGMENT_HEADER_BYTES as u64);
            found.damages.push(Damage { from: 0, to, cause });
            None
        }
    };

    let mut position = found.len.min(SEGMENT_HEADER_BYTES as u64);
    while position < found.len {
        let Some(header) = window.record_at(position, salt).map_err(failed)? else {
            let next = window.find_record(position + 1, salt).map_err(failed)?;
            let cause = match next {
                Some(_) => Cause::Damaged,
                None => window.cause_of_tail(position, salt).map_err(failed)?,
            };
            let to = next.unwrap_or(found.len);
            found.damages.push(Damage { from: position, to, cause });
            position = to;
            continue;
        };
        if salt.is_none() {
            salt = Some(header.salt);
            found.new_header = Some(SegmentHeader { number, salt: header.salt });
        }
        match (header.kind, header.version) {
            (KIND_FRAMES, version) if version > FRAMES_VERSION => {
                return Err(newer("a record of frames", u32::from(version)));
            }
            (KIND_FRAMES, _) => match decode_frames(window.body_of(&header).map_err(failed)?) {
                Some(record) => {
                    found.sessions.insert(record.session_id);
                    report.records += 1;
                    report.frames += record.frames.len() as u64;
                    replay(record);
                }
                None => found.damages.push(Damage { from: position, to: header.end(), cause: Cause::Damaged }),
            },
            (KIND_HOLE, _) => {}
            (kind, _) if kind >= KIND_MANDATORY_FROM => return Err(newer("a kind of record", u32::from(kind))),
            _ => report.skipped_records += 1,
        }
        position = header.end();
    }
    Ok(found)
}

/// Writes a segment anew without the records of these sessions, under its own name; how many those were. One without any is
/// left as it is. What no record explains is left out too.
///
/// A crash leaves the old segment, or the new one; what was begun goes with the next open.
pub(super) fn rewrite_without(path: &Path, sessions: &HashSet<SessionId>) -> Result<u64, Error> {
    let failed = |source| Error::Erase { path: path.to_owned(), source };
    let number = path.file_name().and_then(|name| segment_number(Path::new(name)));
    let number = number.ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let file = File::open(path).map_err(failed)?;
    let mut report = RecoveryReport::default();
    let mut theirs = 0;
    let mut count = |record: WalRecord| theirs += u64::from(sessions.contains(&record.session_id));
    scan(path, &file, number, &mut report, &mut count)?;
    if theirs == 0 {
        return Ok(0);
    }
    if report.skipped_records > 0 {
        // What is not understood cannot be put to another place.
        return Err(failed(io::Error::other("it holds records that a newer program wrote")));
    }
    let mut head = [0; SEGMENT_HEADER_BYTES];
    file.read_exact_at(&mut head, 0).map_err(failed)?;
    let salt = SegmentHeader::decode(&head).map_err(|_| failed(io::ErrorKind::InvalidData.into()))?.salt;
    let unborn = path.with_file_name(format!("_{}.tmp", super::segment_name(number)));
    let write = || {
        let mut out = BufWriter::with_capacity(WINDOW_BYTES, File::create(&unborn).map_err(failed)?);
        out.write_all(&head).map_err(failed)?;
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        let mut written = Ok(());
        let mut bytes = Vec::new();
        let mut keep = |record: WalRecord| {
            if written.is_err() || sessions.contains(&record.session_id) {
                return;
            }
            bytes.clear();
            written = encode(&record).and_then(|encoded| {
                encoded.put(salt, offset, &mut bytes);
                offset += encoded.len() as u64;
                out.write_all(&bytes).map_err(failed)
            });
        };
        scan(path, &file, number, &mut RecoveryReport::default(), &mut keep)?;
        written?;
        out.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)?;
        fs::rename(&unborn, path).map_err(failed)?;
        sync_parent(path).map_err(failed)
    };
    let written = write();
    if written.is_err() {
        drop(remove_if_there(&unborn));
    }
    written.map(|()| theirs)
}

fn count_damage(found: &Found, newest: bool, report: &mut RecoveryReport) {
    for damage in &found.damages {
        let bytes = damage.to - damage.from;
        match damage.cause {
            Cause::Zeros => {}
            // Only the newest segment can have been cut by a crash: the next is begun when this one is complete.
            Cause::Torn if newest => {
                report.damaged_bytes += bytes;
                report.torn_bytes += bytes;
            }
            Cause::Torn | Cause::Damaged => {
                report.damaged_bytes += bytes;
                report.damaged_spots += 1;
            }
        }
    }
}

/// Sets damaged bytes aside and makes the segment whole without them.
fn repair(path: &Path, file: &File, found: &Found, report: &mut RecoveryReport) -> io::Result<()> {
    if found.damages.is_empty() {
        return Ok(());
    }
    if found.new_header.is_none() && found.damages.iter().any(|damage| damage.from == 0) {
        // Not even the header is good or can be told from a record: the file as a whole steps aside, unless it is zeros.
        if found.damages.iter().any(|damage| damage.cause != Cause::Zeros) {
            let aside = free_name(path)?;
            fs::rename(path, &aside)?;
            sync_parent(path)?;
            report.set_aside.push(aside);
        }
        return Ok(());
    }
    for damage in found.damages.iter().filter(|damage| damage.cause != Cause::Zeros) {
        let aside = free_name(path)?;
        copy_range(file, damage.from, damage.to, &aside)?;
        sync_parent(path)?;
        report.set_aside.push(aside);
    }
    // Every copy is safe now. A crash between the following steps leaves the rest to the next recovery.
    for damage in &found.damages {
        if damage.from == 0 {
            if let Some(header) = found.new_header {
                file.write_all_at(&header.encode(), 0)?;
            }
        } else if damage.to == found.len {
            file.set_len(damage.from)?;
        } else {
            write_hole(file, damage, found)?;
        }
    }
    file.sync_all()
}

/// Puts the header of a hole over the first bytes of a damaged stretch.
fn write_hole(file: &File, damage: &Damage, found: &Found) -> io::Result<()> {
    let mut head = [0; SEGMENT_HEADER_BYTES];
    file.read_exact_at(&mut head, 0)?;
    let salt = found.new_header.map_or_else(
        || SegmentHeader::decode(&head).map(|header| header.salt).map_err(|_| io::ErrorKind::InvalidData),
        |header| Ok(header.salt),
    )?;
    // A stretch goes from one record's place to another's, so it has room for a header, save in a file that somebody
    // has edited; that one is left alone.
    let body_bytes = (damage.to - damage.from)
        .checked_sub(RECORD_HEADER_BYTES as u64)
        .and_then(|bytes| u32::try_from(bytes).ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    let hole = RecordHeader { salt, offset: damage.from, kind: KIND_HOLE, version: 1, body_bytes, body_crc: 0 };
    file.write_all_at(&hole.encode(), damage.from)
}

/// The first free name for bytes set aside from segment `path`.
fn free_name(path: &Path) -> io::Result<PathBuf> {
    for attempt in 1..=u32::MAX {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("{SET_ASIDE}{attempt}"));
        let name = PathBuf::from(name);
        if !name.try_exists()? {
            return Ok(name);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn copy_range(file: &File, from: u64, to: u64, aside: &Path) -> io::Result<()> {
    let mut out = File::create_new(aside)?;
    let mut position = from;
    let mut buffer = vec![0; WINDOW_BYTES.min(usize::try_from(to - from).unwrap_or(WINDOW_BYTES))];
    while position < to {
        let part = buffer.len().min(usize::try_from(to - position).unwrap_or(buffer.len()));
        let part = buffer.get_mut(..part).unwrap_or_default();
        file.read_exact_at(part, position)?;
        out.write_all(part)?;
        position += part.len() as u64;
    }
    out.sync_all()
}

pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A segment read through one buffer, so that small records do not cost a system call each.
struct Window<'a> {
    file: &'a File,
    /// Length of the file when it was opened; what a writer adds later is not looked at.
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a File) -> io::Result<Self> {
        Ok(Self { file, len: file.metadata()?.len(), start: 0, bytes: Vec::new() })
    }

    /// `count` bytes from `offset`, or fewer if the file ends before.
    fn get(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let count = count.min(usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX));
        let within = |start: u64, held: usize| {
            let skip = usize::try_from(offset.checked_sub(start)?).ok()?;
            (skip.checked_add(count)? <= held).then_some(skip)
        };
        let skip = if let Some(skip) = within(self.start, self.bytes.len()) {
            skip
        } else {
            self.fill(offset, count.max(WINDOW_BYTES))?;
            0
        };
        // A file that shrank under the reader gives fewer bytes than asked: the caller takes that for a torn end.
        let end = (skip + count).min(self.bytes.len());
        Ok(self.bytes.get(skip..end).unwrap_or_default())
    }

    fn fill(&mut self, offset: u64, count: usize) -> io::Result<()> {
        let count = count.min(usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX));
        self.start = offset;
        self.bytes.resize(count, 0);
        let mut filled = 0;
        while filled < count {
            let rest = self.bytes.get_mut(filled..).unwrap_or_default();
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }

    /// The header of the whole, good record at `offset`, if there is one.
    fn record_at(&mut self, offset: u64, salt: Option<u32>) -> io::Result<Option<RecordHeader>> {
        let head = self.get(offset, RECORD_HEADER_BYTES)?;
        let Some(header) = RecordHeader::decode(head, offset, salt) else { return Ok(None) };
        if header.end() > self.len {
            return Ok(None);
        }
        if header.kind == KIND_HOLE {
            return Ok(Some(header));
        }
        let body = self.body_of(&header)?;
        let good = body.len() == header.body_bytes as usize && crc32c::crc32c(body) == header.body_crc;
        Ok(good.then_some(header))
    }

    fn body_of(&mut self, header: &RecordHeader) -> io::Result<&[u8]> {
        self.get(header.offset + RECORD_HEADER_BYTES as u64, header.body_bytes as usize)
    }

    /// The first whole record at or behind `from`.
    fn find_record(&mut self, mut from: u64, salt: Option<u32>) -> io::Result<Option<u64>> {
        let mut prefix = RECORD_MAGIC.to_vec();
        prefix.extend(salt.map(u32::to_le_bytes).into_iter().flatten());
        loop {
            let bytes = self.get(from, WINDOW_BYTES)?;
            if bytes.len() < RECORD_HEADER_BYTES {
                return Ok(None);
            }
            let looks_right = |(at, head): &(usize, &[u8])| {
                head.starts_with(&prefix) && RecordHeader::decode(head, from + *at as u64, salt).is_some()
            };
            match bytes.windows(RECORD_HEADER_BYTES).enumerate().find(looks_right) {
                Some((at, _)) => {
                    from += at as u64;
                    if self.record_at(from, salt)?.is_some() {
                        return Ok(Some(from));
                    }
                    from += 1;
                }
                // A header may straddle the end of what was looked at.
                None => from += (bytes.len() - (RECORD_HEADER_BYTES - 1)) as u64,
            }
        }
    }

    /// Why there is no record from `offset` to the end.
    fn cause_of_tail(&mut self, offset: u64, salt: Option<u32>) -> io::Result<Cause> {
        let head = self.get(offset, RECORD_HEADER_BYTES)?;
        let torn = if head.len() < RECORD_HEADER_BYTES {
            head.iter().zip(RECORD_MAGIC).all(|(&byte, magic)| byte == magic)
        } else {
            RecordHeader::decode(head, offset, salt).is_some_and(|header| header.end() > self.len)
        };
        if torn {
            return Ok(Cause::Torn);
        }
        let mut position = offset;
        while position < self.len {
            let bytes = self.get(position, WINDOW_BYTES)?;
            if bytes.is_empty() {
                break;
            }
            if bytes.iter().any(|&byte| byte != 0) {
                return Ok(Cause::Damaged);
            }
            position += bytes.len() as u64;
        }
        Ok(Cause::Zeros)
    }
}
