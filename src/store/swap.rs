//! Replacing files of a past day by others, in one step that no reader sees half: sessions' files by packs, packs by files.
//!
//! The folder of the day is made a second time, below `_swap`: with hard links to all that stays, and with what is new. Then
//! both folders change places in one system call, and an outside engine that lists the day finds either all of the old
//! files or all of the new ones. What was replaced stays below `_swap` until no statement can be reading it.
//!
//! A crash at any instant leaves the day as it was or as it shall be, and something below `_swap` that the next start
//! deletes. A file that changed while its replacement was made ready is not replaced.
//!
//! A single file that another takes the place of, by a rename, is kept below `_swap` in the same way.
//!
//! Two locks, which the system gives back with the process that held them. Of a table's folder: shared by whoever gives a
//! file its name or deletes one, exclusive for the links and the exchange, milliseconds. Of `_swap`: shared by whoever uses it, exclusive
//! for deleting what is old.

#![deny(clippy::indexing_slicing)]

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::pack::{self, Original, Pack, TableFile, changed_at_us};
use super::paths::{Paths, Table, TablePath};
use super::publish::{Error, entries, io_error, make_folder, sync_folder};

/// The lock of a table under which files get their names.
pub(super) fn shared(paths: &Paths, table: Table) -> Result<File, Error> {
    locked(&paths.table(table), File::lock_shared)
}

/// A folder whose lock is held for as long as it is open.
fn locked(folder: &Path, lock: impl FnOnce(&File) -> io::Result<()>) -> Result<File, Error> {
    let file = File::open(folder).map_err(io_error("open", folder))?;
    lock(&file).map_err(io_error("lock", folder))?;
    Ok(file)
}

/// A file that is to be replaced, as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    name: OsString,
    is: (u64, u64, i64, i64),
}

fn identity(about: &Metadata) -> (u64, u64, i64, i64) {
    (about.ino(), about.len(), about.mtime(), about.mtime_nsec())
}

impl Seen {
    pub(super) fn of(file: &TableFile) -> Result<Self, Error> {
        let about = file.about().map_err(io_error("look at", file.path()))?;
        Ok(Self { name: file.path().file_name().unwrap_or_default().to_owned(), is: identity(&about) })
    }
}

/// A folder below `_swap`, of one replacement. Dropped before the exchange it is deleted.
struct Generation {
    folder: PathBuf,
    is_kept: bool,
    _in_use: File,
}

/// Number of the next folder below `_swap`; those of other processes, and of one that died, are passed over.
static NEXT: AtomicU32 = AtomicU32::new(0);

impl Generation {
    fn new(paths: &Paths) -> Result<Self, Error> {
        let swap = paths.swap();
        make_folder(paths, &swap)?;
        let in_use = locked(&swap, File::lock_shared)?;
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let folder = swap.join(number.to_string());
            match fs::create_dir(&folder) {
                Ok(()) => return Ok(Self { folder, is_kept: false, _in_use: in_use }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("make folder", &folder)(error)),
            }
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be deleted now is deleted at the next start.
            drop(fs::remove_dir_all(&self.folder));
        }
    }
}

/// Replaces files in the folder of `day` by those that `make` puts into the folder it is given; `make` says which files. If it
/// names none, all stays as it is.
fn replace(paths: &Paths, day: TablePath, make: impl FnOnce(&Path) -> Result<Vec<Seen>, Error>) -> Result<(), Error> {
    let live = paths.folder(day);
    let mut generation = Generation::new(paths)?;
    let above = generation.folder.join(day.table().as_str());
    let ready = above.join(live.file_name().unwrap_or_default());
    fs::create_dir_all(&ready).map_err(io_error("make folder", &ready))?;
    let replaced = make(&ready)?;
    if replaced.is_empty() {
        return Ok(());
    }

    let lock = locked(&paths.table(day.table()), File::lock)?;
    for seen in &replaced {
        let path = live.join(&seen.name);
        let is_same = fs::symlink_metadata(&path).is_ok_and(|about| identity(&about) == seen.is);
        if !is_same {
            return Err(Error::Changed { path });
        }
    }
    let is_replaced = |path: &Path| replaced.iter().any(|seen| path.file_name() == Some(&seen.name));
    for path in entries(&live)? {
        if !is_replaced(&path) {
            let link = ready.join(path.file_name().unwrap_or_default());
            match fs::hard_link(&path, &link) {
                // Somebody gave up a temporary file.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                linked => linked.map_err(io_error("link", &path))?,
            }
        }
    }
    sync_folder(&ready)?;
    renameat_with(CWD, &live, CWD, &ready, RenameFlags::EXCHANGE)
        .map_err(|error| io_error("exchange with its replacement", &live)(error.into()))?;
    generation.is_kept = true;
    sync_folder(&paths.table(day.table()))?;
    sync_folder(&above)?;
    drop(lock);

    // What stays has its name in the live folder; only what was replaced is kept here.
    for path in entries(&ready)? {
        if !is_replaced(&path) {
            fs::remove_file(&path).map_err(io_error("delete", &path))?;
        }
    }
    Ok(())
}

/// What goes into packs, and how large they become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Files of fewer bytes are packed.
    pub small_bytes: u64,
    /// A pack is closed before it becomes larger.
    pub pack_bytes: u64,
    /// A pack has no more sessions than this: every reader decodes its footer, which has all of them.
    pub pack_sessions: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { small_bytes: 16 << 20, pack_bytes: 128 << 20, pack_sessions: 256 }
    }
}

/// What packing a day came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Files that were replaced.
    pub files: usize,
    /// Their bytes.
    pub file_bytes: u64,
    /// Packs that replaced them.
    pub packs: usize,
    /// Their bytes.
    pub pack_bytes: u64,
}

/// Packs the small files of one day of a table; with `dry_run` it says only which files would go into packs. `go_on` is asked
/// before every pack: once it says no, nothing is packed.
///
/// # Errors
/// As [`super::seal::write_frames`]; the day is as it was then.
pub fn pack_day(
    paths: &Paths,
    table: Table,
    folder: &Path,
    sizes: &Sizes,
    dry_run: bool,
    go_on: &dyn Fn() -> bool,
) -> Result<Packed, Error> {
    let groups = groups(paths, table, folder, sizes)?;
    let mut packed = Packed::default();
    let Some((day, _)) = groups.first().and_then(|group| group.first()).cloned() else { return Ok(packed) };
    if dry_run {
        for pack in groups.iter().flat_map(|group| fitting(group)) {
            packed.add(&pack);
        }
        return Ok(packed);
    }
    replace(paths, day, |ready| {
        let mut replaced = Vec::new();
        for originals in groups.iter().flat_map(|group| fitting(group)) {
            if !go_on() {
                packed = Packed::default();
                return Ok(Vec::new());
            }
            let (Some(first), Some(last)) = (originals.first(), originals.last()) else { continue };
            let target = ready.join(pack::name(first.session_id, last.session_id, originals.len()));
            pack::write(&target, table, &originals)?;
            packed.add(&originals);
            packed.pack_bytes += fs::metadata(&target).map_err(io_error("look at", &target))?.len();
            replaced.extend(originals.into_iter().map(|original| original.seen));
        }
        Ok(replaced)
    })?;
    Ok(packed)
}

impl Packed {
    fn add(&mut self, originals: &[Original]) {
        self.packs += 1;
        self.files += originals.len();
        self.file_bytes += originals.iter().map(Original::bytes).sum::<u64>();
    }
}

type Small = (TablePath, PathBuf);

/// The small files of a day in the order of their sessions, in groups of a pack's size. None is opened.
fn groups(paths: &Paths, table: Table, folder: &Path, sizes: &Sizes) -> Result<Vec<Vec<Small>>, Error> {
    let mut small = Vec::new();
    for file in entries(folder)? {
        let relative = file.strip_prefix(paths.root()).ok().and_then(Path::to_str);
        let path =
            relative.and_then(|relative| relative.parse::<TablePath>().ok()).filter(|path| path.table() == table);
        // One that goes in between is not there any more.
        let bytes = fs::metadata(&file).map_or(u64::MAX, |about| about.len());
        small.extend(path.filter(|_| bytes < sizes.small_bytes).map(|path| (path, file, bytes)));
    }
    small.sort_by_key(|(path, ..)| path.session_id());
    let mut groups: Vec<Vec<Small>> = Vec::new();
    let mut group_bytes = 0;
    for (path, file, bytes) in small {
        let group = groups.last_mut();
        match group.filter(|group| group.len() < sizes.pack_sessions && group_bytes + bytes <= sizes.pack_bytes) {
            Some(group) => {
                group.push((path, file));
                group_bytes += bytes;
            }
            None => {
                groups.push(vec![(path, file)]);
                group_bytes = bytes;
            }
        }
    }
    groups.retain(|group| group.len() > 1);
    Ok(groups)
}

/// The files of a group that may stand in one pack: usually all; with several schemas, a pack for each of which there are two.
fn fitting(group: &[Small]) -> Vec<Vec<Original>> {
    let mut packs: Vec<Vec<Original>> = Vec::new();
    for (path, file) in group {
        let original = match Original::read(*path, file) {
            Ok(Some(original)) => original,
            Ok(None) => continue,
            Err(error) if error.is_not_found() => continue,
            // It is for the audit to say what is wrong with it.
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "{} cannot be packed", file.display());
                continue;
            }
        };
        let fits = |pack: &&mut Vec<Original>| pack.first().is_some_and(|first| first.fits(&original));
        match packs.iter_mut().find(fits) {
            Some(pack) => pack.push(original),
            None => packs.push(vec![original]),
        }
    }
    packs.retain(|pack| pack.len() > 1);
    packs
}

/// How often a pack is undone that somebody else is undoing.
const ATTEMPTS_LIMIT: usize = 5;

/// Gives every session of the pack that holds `path` its own file back, to the byte; nothing if none does.
///
/// # Errors
/// [`Error::Io`], [`Error::Verify`], and what a damaged pack gives; the pack is as it was then.
pub fn undo_for(paths: &Paths, path: TablePath) -> Result<(), Error> {
    for _ in 0..ATTEMPTS_LIMIT {
        let Some(pack) = pack::holder(paths, path)? else { return Ok(()) };
        match undo(paths, path, &pack) {
            Err(Error::Changed { .. }) => {}
            done => return done,
        }
    }
    Err(Error::Changed { path: paths.file(path) })
}

fn undo(paths: &Paths, day: TablePath, pack: &Pack) -> Result<(), Error> {
    replace(paths, day, |ready| {
        for ((session_id, original), member) in pack.files()?.into_iter().zip(&pack.directory.members) {
            let target = ready.join(format!("{session_id}.parquet"));
            let write = || {
                let mut file = File::create_new(&target)?;
                io::copy(&mut original.reader(), &mut file)?;
                file.sync_all()
            };
            write().map_err(io_error("write", &target))?;
            if TableFile::open(&target)?.sha256()?.1 != member.sha256 {
                return Err(Error::Verify { what: "the sum", session_id, path: target });
            }
        }
        Ok(vec![Seen::of(&pack.file)?])
    })
}

/// Deletes a session's file, for which a pack that holds it is undone; false if there is none. Under the lock of its table: a compaction
/// at work would put back what it has linked already.
///
/// # Errors
/// As [`undo_for`].
pub fn delete(paths: &Paths, path: TablePath) -> Result<bool, Error> {
    let file = paths.file(path);
    for _ in 0..ATTEMPTS_LIMIT {
        undo_for(paths, path)?;
        if !paths.folder(path).is_dir() {
            return Ok(false);
        }
        let _shared = shared(paths, path.table())?;
        match fs::remove_file(&file) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("delete", &file)(error)),
            Err(_) if pack::holder(paths, path)?.is_none() => return Ok(false),
            // Packed since.
            Err(_) => {}
        }
    }
    Err(Error::Changed { path: file })
}

/// Undoes all packs; gives their number. What a program needs before it that knows none.
///
/// # Errors
/// As [`undo_for`]; the packs before stay undone.
pub fn undo_all(paths: &Paths, go_on: &dyn Fn() -> bool) -> Result<usize, Error> {
    let mut undone = 0;
    for table in Table::ALL {
        for folder in entries(&paths.table(table))? {
            for file in entries(&folder)? {
                let name = file.file_name().and_then(|name| pack::sessions_of_name(name.to_str()?));
                if name.is_none() || !go_on() {
                    continue;
                }
                let pack = Pack::open(&file, table)?;
                let first = pack.directory.members.first().map(|member| member.session_id);
                let relative = folder.strip_prefix(paths.root()).unwrap_or(&folder).display().to_string();
                let day = first.and_then(|first| format!("{relative}/{first}.parquet").parse::<TablePath>().ok());
                if let Some(day) = day {
                    undo(paths, day, &pack)?;
                    undone += 1;
                }
            }
        }
    }
    Ok(undone)
}

/// Deletes what was replaced, if nobody uses it: all of it, or what was replaced before an instant (µs since 1970 UTC). Gives the number of
/// files; `None` while a compaction is running.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_replaced(paths: &Paths, before_us: Option<i64>) -> Result<Option<usize>, Error> {
    let swap = paths.swap();
    let lock = match File::open(&swap) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(0)),
        Err(error) => return Err(io_error("open", &swap)(error)),
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(io_error("lock", &swap)(error)),
    }
    let mut removed = 0;
    for generation in entries(&swap)? {
        // The exchange is the last thing that changes the folder of the table.
        let tables = entries(&generation)?;
        let is_young = |folder: &PathBuf| {
            let changed = fs::metadata(folder).map(|about| changed_at_us(&about));
            before_us.is_some_and(|before_us| changed.is_ok_and(|changed| changed >= before_us))
        };
        if tables.iter().any(is_young) {
            continue;
        }
        for folder in tables.iter().map(|table| entries(table)).collect::<Result<Vec<_>, _>>()?.concat() {
            removed += entries(&folder)?.len();
        }
        fs::remove_dir_all(&generation).map_err(io_error("delete", &generation))?;
    }
    Ok(Some(removed))
}

/// Keeps the file that has a session's place, for statements that are reading it: another one is about to take it.
pub(super) fn keep(paths: &Paths, path: TablePath) {
    let keep = || {
        let live = paths.file(path);
        if !live.is_file() {
            return Ok(());
        }
        let mut generation = Generation::new(paths)?;
        let kept = generation.folder.join(path.to_string());
        kept.parent().map_or(Ok(()), fs::create_dir_all).map_err(io_error("make the folder of", &kept))?;
        fs::hard_link(&live, &kept).map_err(io_error("link", &kept))?;
        generation.is_kept = true;
        Ok::<_, Error>(())
    };
    // A full disk, or a file system without links: such a statement is begun again, or fails.
    if let Err(error) = keep() {
        tracing::debug!(error = &error as &dyn std::error::Error, "{path} is replaced and not kept for who reads it");
    }
}

/// Where a file that was replaced is, by its name below the data folder and, if several had that, its length: the one that was
/// replaced last.
#[must_use]
pub fn replaced(paths: &Paths, name: &str, bytes: Option<u64>) -> Option<PathBuf> {
    let is_it = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|about| about.is_file() && bytes.is_none_or(|bytes| about.len() == bytes))
    };
    let generations = entries(&paths.swap()).ok()?;
    generations.iter().map(|generation| generation.join(name)).filter(is_it).max_by_key(|file| {
        let table = file.parent().and_then(Path::parent).map(fs::metadata);
        table.and_then(|about| Some(changed_at_us(&about.ok()?)))
    })
}

#[cfg(test)]
mod tests;
