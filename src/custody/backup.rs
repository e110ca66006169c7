//! A copy of a data folder, made while its service runs.
//!
//! A backup is a folder: the catalog as of one instant, every Parquet file that this catalog names, the write-ahead log of what
//! is in no file yet, models and pipelines, and at last `backup.json` with length and SHA-256 of each. Without that file it is
//! incomplete. It is as of the instant it began: a frame that was acknowledged before is in it.
//!
//! The log is copied first, the catalog after it, the files last: a session that is sealed meanwhile is in the catalog with
//! its file, and of one that is not the log has everything up to the beginning. Files that get a new revision while they are
//! copied do not fit the catalog any more; then catalog and what changed are copied again.
//!
//! Run again on a backup, it copies what is new or has changed and deletes what is gone. The backup that was there stays one until
//! the next is whole: what differs comes into `_next/`, then `backup.json` is replaced, which is the moment; only then files take their
//! places and what is gone is deleted. A file of a backup is therefore in its place or in `_next/`, wherever it has the length and sum
//! that `backup.json` gives, and a run that was cut off is gone on with by the next.
//!
//! The folder remembers where backups of it were begun, so that whoever erases a player knows which still hold them; a backup
//! keeps the receipts of those who were erased after it began, so that a restored folder has them no more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{Error, io_error};
use crate::clock::Clock;
use crate::store::catalog::Catalog;
use crate::store::notes;
use crate::store::pack::{self, TableFile};
use crate::store::paths::Paths;
use crate::store::seal;
use crate::store::sha256_of;

/// What a finished backup has.
pub const BACKUP_MANIFEST: &str = "backup.json";
/// Version of its description.
pub(super) const VERSION: u32 = 1;
/// How often catalog and files are copied until they fit each other.
const ATTEMPTS_LIMIT: usize = 5;
/// Folders and files of the data folder, besides the tables, that are copied as they are.
const PLAIN: [&str; 5] = ["wal", "pipelines", "receipts", "archives.jsonl", BACKUPS];
/// Backups that were begun, a line each, in the data folder.
const BACKUPS: &str = "backups.jsonl";
/// Receipts of players who were erased, a line each, in the backup. Those from before it began are of no more use, and never taken out:
/// an erasure may be adding one.
pub(super) const ERASED: &str = "erased.jsonl";
/// Folder of what a backup in the making has and the one before has not.
pub(super) const NEXT: &str = "_next";

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupManifest {
    /// `volant-backup`.
    pub format: String,
    /// Version of this description.
    pub version: u32,
    /// The program that made it.
    pub program: String,
    /// µs since 1970 UTC, when it began: what was acknowledged before is in it.
    pub begun_at_us: i64,
    /// Every file below it, with length and SHA-256.
    pub files: BTreeMap<String, BackedUp>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackedUp {
    /// Length.
    pub bytes: u64,
    /// SHA-256, hex.
    pub sha256: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backup {
    /// Files in the backup.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that an earlier run had copied.
    pub kept: usize,
}

/// A backup that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupNote {
    /// The folder it is in.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// µs since 1970 UTC.
    pub begun_at_us: i64,
}

/// A line of [`BACKUPS`].
#[derive(Serialize, Deserialize)]
enum Step {
    Begun(BackupNote),
    /// What was there before and is gone since is deleted now.
    Done(BackupNote),
}

fn note(paths: &Paths, step: &Step) {
    if let Err(error) = notes::add(&paths.root().join(BACKUPS), step) {
        // Somebody who may only read the folder may still copy it.
        warn!(error = &error as &dyn std::error::Error, "receipts of erasures cannot tell of this backup");
    }
}

/// The backups that were begun before an instant (µs since 1970 UTC) and made again, from beginning to end, not since.
pub(super) fn backups_before(paths: &Paths, at_us: i64) -> Result<Vec<BackupNote>, Error> {
    let path = paths.root().join(BACKUPS);
    let mut found = BTreeMap::new();
    // A line that a crash tore is of a backup that copied nothing, or was as good as done.
    for step in notes::read(&path).map_err(io_error("read", &path))? {
        match step {
            Step::Begun(note) if note.begun_at_us <= at_us => drop(found.insert(note.path.clone(), note)),
            Step::Done(note) if note.begun_at_us > at_us => drop(found.remove(&note.path)),
            _ => {}
        }
    }
    Ok(found.into_values().collect())
}

/// Copies a data folder into `to`; its service may be running. `progress` hears how many files are done.
///
/// # Errors
/// See [`Error`]; what was copied stays, and the next run goes on from it.
pub async fn backup(paths: &Paths, to: &Path, clock: &Clock, progress: &mut dyn FnMut(usize)) -> Result<Backup, Error> {
    let begun_at_us = clock.now_us();
    make_folder(to)?;
    let noted = BackupNote { path: to.canonicalize().map_err(io_error("find", to))?, begun_at_us };
    note(paths, &Step::Begun(noted.clone()));
    let manifest_path = to.join(BACKUP_MANIFEST);
    if let Some(earlier) = read_manifest(to) {
        take_places(to, &earlier.files)?;
    }

    let mut copying = Copying { from: paths.root(), to, files: BTreeMap::new(), kept: BTreeSet::new(), progress };
    for name in PLAIN {
        copying.tree(Path::new(name))?;
    }
    let catalog = Catalog::open_read_only(&paths.catalog()).await?;
    let copied = copy_consistently(paths, &catalog, &mut copying).await;
    catalog.close().await;
    copied?;
    copying.sync_folders()?;

    let Copying { files, kept, .. } = copying;
    let (count, bytes) = (files.len(), files.values().map(|file| file.bytes).sum());
    let manifest = BackupManifest {
        format: "volant-backup".to_owned(),
        version: VERSION,
        program: concat!("volant ", env!("CARGO_PKG_VERSION")).to_owned(),
        begun_at_us,
        files,
    };
    let text = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
    let temporary = to.join("_backup.json.tmp");
    let write = || {
        fs::write(&temporary, text)?;
        fs::File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, &manifest_path)?;
        fs::File::open(to)?.sync_all()
    };
    write().map_err(io_error("write", &manifest_path))?;
    // From here on this is the backup.
    take_places(to, &manifest.files)?;
    delete_the_rest(to, &manifest.files)?;
    note(paths, &Step::Done(noted));
    Ok(Backup { files: count, bytes, kept: kept.len() })
}

/// Moves the files of a whole backup that still wait in [`NEXT`] to their places.
fn take_places(to: &Path, files: &BTreeMap<String, BackedUp>) -> Result<(), Error> {
    let mut waiting = BTreeSet::new();
    match list(&to.join(NEXT), Path::new(""), &mut waiting) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        listed => listed?,
    }
    for name in waiting {
        let (from, place) = (to.join(NEXT).join(&name), to.join(&name));
        // What a run that was cut off copied waits for the next.
        if files.get(&name).is_some_and(|file| is_at(file, &from))
            && !files.get(&name).is_some_and(|file| is_at(file, &place))
        {
            if let Some(folder) = place.parent() {
                make_folder(folder)?;
            }
            fs::rename(&from, &place).map_err(io_error("rename to", &place))?;
        }
    }
    Ok(())
}

/// True if the file is there, whole.
fn is_at(file: &BackedUp, path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.len() == file.bytes)
        && sha256_of(path).is_ok_and(|(_, sha256)| sha256 == file.sha256)
}

/// What an earlier backup had and this one has not.
fn delete_the_rest(to: &Path, files: &BTreeMap<String, BackedUp>) -> Result<(), Error> {
    fs::remove_dir_all(to.join(NEXT)).or_else(absent_is_fine).map_err(io_error("delete", &to.join(NEXT)))?;
    let mut found = BTreeSet::new();
    list(to, Path::new(""), &mut found)?;
    for name in found {
        if !files.contains_key(&name) && name != ERASED && name != BACKUP_MANIFEST {
            remove(&to.join(&name))?;
        }
    }
    Ok(())
}

/// Catalog and files until they fit each other.
async fn copy_consistently(paths: &Paths, catalog: &Catalog, copying: &mut Copying<'_>) -> Result<(), Error> {
    const CATALOG: &str = "catalog.sqlite";
    for _ in 0..ATTEMPTS_LIMIT {
        let temporary = copying.to.join(NEXT).join("_catalog.sqlite.tmp");
        make_folder(&copying.to.join(NEXT))?;
        remove(&temporary)?;
        catalog.copy_into(&temporary).await?;
        let copied = Catalog::open_read_only(&temporary).await?;
        let expected = copied.expected_files().await;
        copied.close().await;
        let mut fits = true;
        for file in expected? {
            let relative = file.path.to_string();
            // A session in a pack is copied as the file it was: a backup is the same whether its folder was compacted or not.
            let from = match pack::locate(paths, file.path) {
                Err(error) if error.is_not_found() => {
                    fits = false;
                    continue;
                }
                located => located?,
            };
            // Its small form, if the session was closed since: it tells which file it replaced, and the start of what is restored
            // closes the session with it.
            let is_known_as =
                || file.sha256.is_some() && seal::sealed_sha256(&from).is_ok_and(|sum| sum == file.sha256);
            fits &= copying.file(Path::new(&relative), &from, file.sha256.as_deref())? || is_known_as();
        }
        copying.settle(Path::new(CATALOG), &temporary)?;
        if fits {
            return Ok(());
        }
    }
    Err(Error::Changing { attempts: ATTEMPTS_LIMIT })
}

struct Copying<'a> {
    from: &'a Path,
    to: &'a Path,
    files: BTreeMap<String, BackedUp>,
    /// Of these, what was there before.
    kept: BTreeSet<String>,
    progress: &'a mut dyn FnMut(usize),
}

impl Copying<'_> {
    /// A folder with all in it, or a file; nothing where there is none.
    fn tree(&mut self, relative: &Path) -> Result<(), Error> {
        let path = self.from.join(relative);
        if path.is_file() {
            return match TableFile::open(&path) {
                // A segment of the log that is needed no more.
                Err(error) if error.is_not_found() => Ok(()),
                opened => self.file(relative, &opened?, None).map(drop),
            };
        }
        let listing = match fs::read_dir(&path) {
            Ok(listing) => listing,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error("list", &path)(error)),
        };
        let mut names = Vec::new();
        for entry in listing {
            names.push(entry.map_err(io_error("list", &path))?.file_name());
        }
        names.sort_unstable();
        for name in names {
            // The lock is the running service's own.
            if name == "lock" || name.as_encoded_bytes().starts_with(b"_") {
                continue;
            }
            self.tree(&relative.join(name))?;
        }
        Ok(())
    }

    /// Copies a file, unless it is there already. False if it is not what the catalog says.
    fn file(&mut self, relative: &Path, from: &TableFile, sha256: Option<&str>) -> Result<bool, Error> {
        if let Some(sum) = sha256 {
            for there in [self.to.join(relative), self.to.join(NEXT).join(relative)] {
                if let Ok((bytes, found)) = sha256_of(&there)
                    && found == sum
                {
                    self.take(relative, BackedUp { bytes, sha256: found }, true);
                    return Ok(true);
                }
            }
        }
        let next = self.to.join(NEXT).join(relative);
        if let Some(folder) = next.parent() {
            make_folder(folder)?;
        }
        let temporary = next.with_file_name(format!("_{}.tmp", next.file_name().unwrap_or_default().to_string_lossy()));
        let copy = || std::io::copy(&mut from.reader(), &mut fs::File::create(&temporary)?);
        copy().map_err(io_error("copy", from.path()))?;
        let found = self.settle(relative, &temporary)?;
        Ok(sha256.is_none_or(|sum| sum == found))
    }

    /// Takes a copy under a temporary name into the backup; its sum.
    fn settle(&mut self, relative: &Path, temporary: &Path) -> Result<String, Error> {
        let (bytes, sha256) = sha256_of(temporary)?;
        let file = BackedUp { bytes, sha256: sha256.clone() };
        let next = self.to.join(NEXT).join(relative);
        let is_there = is_at(&file, &self.to.join(relative));
        if is_there {
            // One that a run before left may differ.
            remove(temporary)?;
            remove(&next)?;
        } else {
            let finish = || {
                fs::File::open(temporary)?.sync_all()?;
                fs::rename(temporary, &next)
            };
            finish().map_err(io_error("rename to", &next))?;
        }
        self.take(relative, file, is_there);
        Ok(sha256)
    }

    fn take(&mut self, relative: &Path, file: BackedUp, was_there: bool) {
        let name = relative.to_string_lossy().into_owned();
        // A second look, because the catalog had changed, takes what the first has copied.
        let is_first = self.files.insert(name.clone(), file).is_none();
        if was_there && is_first {
            self.kept.insert(name);
        } else if !was_there {
            self.kept.remove(&name);
        }
        (self.progress)(self.files.len());
    }

    /// Makes the names of what was copied last through a power cut.
    fn sync_folders(&self) -> Result<(), Error> {
        let next = self.to.join(NEXT);
        let folders: BTreeSet<_> =
            self.files.keys().filter_map(|name| next.join(name).parent().map(Path::to_owned)).collect();
        for folder in folders {
            match fs::File::open(&folder) {
                // Nothing in it was new.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                opened => opened.and_then(|folder| folder.sync_all()).map_err(io_error("sync folder", &folder))?,
            }
        }
        Ok(())
    }
}

/// The description of a finished backup.
pub(super) fn read_manifest(folder: &Path) -> Option<BackupManifest> {
    serde_json::from_slice(&fs::read(folder.join(BACKUP_MANIFEST)).ok()?).ok()
}

pub(super) fn make_folder(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(io_error("make folder", folder))
}

fn remove(path: &Path) -> Result<(), Error> {
    fs::remove_file(path).or_else(absent_is_fine).map_err(io_error("delete", path))
}

pub(super) fn absent_is_fine(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn list(root: &Path, relative: &Path, found: &mut BTreeSet<String>) -> Result<(), Error> {
    let folder: PathBuf = root.join(relative);
    for entry in fs::read_dir(&folder).map_err(io_error("list", &folder))? {
        let entry = entry.map_err(io_error("list", &folder))?;
        let name = relative.join(entry.file_name());
        if entry.path().is_dir() {
            list(root, &name, found)?;
        } else {
            found.insert(name.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_counts_until_it_is_made_again_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let of = |name: &str, begun_at_us| BackupNote { path: PathBuf::from(name), begun_at_us };
        assert_eq!(backups_before(&paths, 10).unwrap(), []);
        for step in
            [Step::Begun(of("/a", 1)), Step::Done(of("/a", 1)), Step::Begun(of("/b", 2)), Step::Begun(of("/c", 20))]
        {
            note(&paths, &step);
        }
        assert_eq!(backups_before(&paths, 10).unwrap(), [of("/a", 1), of("/b", 2)], "half of one holds people too");
        note(&paths, &Step::Begun(of("/a", 21)));
        note(&paths, &Step::Done(of("/b", 9)));
        assert_eq!(backups_before(&paths, 10).unwrap().len(), 2, "cut again, and begun before");
        note(&paths, &Step::Done(of("/a", 21)));
        assert_eq!(backups_before(&paths, 10).unwrap(), [of("/b", 2)]);
        fs::write(paths.root().join(BACKUPS), "{\"Begun\":{\"path").unwrap();
        assert_eq!(backups_before(&paths, 10).unwrap(), []);
    }
}
