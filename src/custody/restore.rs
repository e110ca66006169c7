//! A data folder made of a backup, without those who were erased since.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use schemas::UserId;
use serde::Serialize;

use super::backup::{
    BACKUP_MANIFEST, BackedUp, BackupManifest, ERASED, NEXT, VERSION, absent_is_fine, make_folder, read_manifest,
};
use super::erase::{Receipt, check_receipt, erase, keep_receipt, receipt_path};
use super::{Error, io_error};
use crate::clock::Clock;
use crate::store::catalog::Catalog;
use crate::store::notes;
use crate::store::paths::Paths;
use crate::store::sha256_of;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Files of the backup.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Players who were erased again: the backup is from before.
    pub erased: Vec<i64>,
    /// Players who were erased after the backup began and are in the folder, because a session of theirs is unfinished there, by
    /// the session: let the service end it, and erase them again.
    pub still_there: BTreeMap<i64, i64>,
    /// Receipts that were left with the backup and cannot be read: whoever they are of may be in the folder.
    pub unreadable_receipts: usize,
}

/// Makes a data folder of a backup; `to` must be empty or absent.
///
/// Players who were erased after the backup began are erased again, by the receipts that were left with it and by `receipts`:
/// files, or folders of them.
///
/// # Errors
/// [`Error::NotEmpty`]; [`Error::Backup`] for what is no backup, incomplete or damaged; [`Error::Receipt`] for one of another
/// service, or not as it was signed. Nothing is left in `to` then.
pub async fn restore(
    from: &Path,
    to: &Path,
    receipts: &[PathBuf],
    clock: &Clock,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Restored, Error> {
    let manifest = read_manifest(from).ok_or_else(|| Error::Backup {
        what: format!("there is no {BACKUP_MANIFEST}: no backup, or one that was not finished,"),
        path: from.to_owned(),
    })?;
    if manifest.format != "volant-backup" || manifest.version > VERSION {
        let what = format!("{} of version {}, which this program does not know,", manifest.format, manifest.version);
        return Err(Error::Backup { what, path: from.to_owned() });
    }
    let (erased, unreadable_receipts) = erased_since(from, receipts, manifest.begun_at_us)?;
    // Everything is made beside the target and gets its name last, so that a half folder is never taken for a whole one.
    let half = to.with_file_name(format!("_{}.restoring", to.file_name().unwrap_or_default().to_string_lossy()));
    let occupied = fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        return Err(Error::NotEmpty { path: to.to_owned() });
    }
    remove_folder(&half)?;
    let mut restored = Restored {
        files: manifest.files.len(),
        bytes: manifest.files.values().map(|file| file.bytes).sum(),
        erased: Vec::new(),
        still_there: BTreeMap::new(),
        unreadable_receipts,
    };
    let made = async {
        copy(from, &half, &manifest, progress)?;
        erase_again(&Paths::new(&half), &erased, clock, &mut restored).await
    };
    if let Err(error) = made.await {
        remove_folder(&half)?;
        return Err(error);
    }
    fs::remove_dir(to).or_else(absent_is_fine).map_err(io_error("replace", to))?;
    fs::rename(&half, to).map_err(io_error("rename to", to))?;
    let above = to.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(above).and_then(|folder| folder.sync_all()).map_err(io_error("sync folder", above))?;
    Ok(restored)
}

/// The receipts of erasures after a backup began, and how many of those that lie with it cannot be read.
fn erased_since(backup: &Path, receipts: &[PathBuf], begun_at_us: i64) -> Result<(Vec<Receipt>, usize), Error> {
    let path = backup.join(ERASED);
    let told: Vec<Option<Receipt>> = notes::read_each(&path).map_err(io_error("read", &path))?;
    let unreadable = told.iter().filter(|receipt| receipt.is_none()).count();
    let mut found: Vec<Receipt> = told.into_iter().flatten().collect();
    for place in receipts {
        let files = if place.is_dir() {
            let listing = fs::read_dir(place).map_err(io_error("list", place))?;
            let mut files = Vec::new();
            for entry in listing {
                files.push(entry.map_err(io_error("list", place))?.path());
            }
            files.retain(|file| file.extension().is_some_and(|ending| ending == "json"));
            files
        } else {
            vec![place.clone()]
        };
        for file in files {
            let text = fs::read(&file).map_err(io_error("read the receipt", &file))?;
            let no_receipt = |_| Error::Backup { what: "there is no receipt".to_owned(), path: file };
            found.push(serde_json::from_slice(&text).map_err(no_receipt)?);
        }
    }
    found.retain(|receipt| receipt.erased_at_us >= begun_at_us);
    found.iter().try_for_each(check_receipt)?;
    Ok((found, unreadable))
}

/// Copies the files of a backup, each compared with its sum.
fn copy(
    from: &Path,
    half: &Path,
    manifest: &BackupManifest,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(), Error> {
    let total = manifest.files.len();
    for (done, (name, expected)) in manifest.files.iter().enumerate() {
        progress(done, total);
        let is_inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if !is_inside {
            return Err(Error::Backup { what: format!("the name {name}"), path: from.to_owned() });
        }
        let target = half.join(name);
        if let Some(folder) = target.parent() {
            make_folder(folder)?;
        }
        copy_whole(from, name, expected, &target)?;
        fs::File::open(&target).and_then(|file| file.sync_all()).map_err(io_error("sync", &target))?;
    }
    progress(total, total);
    Ok(())
}

/// Copies a file from its place, or from where it waits for it.
fn copy_whole(from: &Path, name: &str, expected: &BackedUp, target: &Path) -> Result<(), Error> {
    let (place, next) = (from.join(name), from.join(NEXT).join(name));
    let mut missing = None;
    // It may take its place between two looks.
    for source in [&place, &next, &place] {
        match fs::copy(source, target) {
            Ok(_) => {
                let (bytes, sha256) = sha256_of(target)?;
                if (bytes, &sha256) == (expected.bytes, &expected.sha256) {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => missing = missing.or(Some((source, error))),
            Err(error) => return Err(io_error("copy", source)(error)),
        }
    }
    match missing {
        Some((source, error)) if source == &place => Err(io_error("copy", source)(error)),
        _ => Err(Error::Backup { what: format!("{name} is damaged"), path: from.to_owned() }),
    }
}

async fn erase_again(paths: &Paths, receipts: &[Receipt], clock: &Clock, restored: &mut Restored) -> Result<(), Error> {
    if receipts.is_empty() {
        return Ok(());
    }
    let catalog = Catalog::open_read_only(&paths.catalog()).await?;
    let service = catalog.service_id().await;
    catalog.close().await;
    let service = service?.unwrap_or_default();
    for receipt in receipts {
        if receipt.service != service {
            return Err(Error::Receipt { what: "a receipt is of another service than the backup" });
        }
        let user = UserId(receipt.player);
        match erase(paths, user, clock, false).await {
            Ok(receipt) => {
                keep_receipt(&receipt_path(paths, user), &receipt)?;
                restored.erased.push(receipt.player);
            }
            // They came after the backup began. An archive may hold them.
            Err(Error::NoPlayer { .. }) => {
                let catalog = Catalog::open(&paths.catalog()).await?;
                let kept_out = catalog.keep_out(user, receipt.erased_at_us).await;
                catalog.close().await;
                kept_out?;
                keep_receipt(&receipt_path(paths, user), receipt)?;
            }
            Err(Error::Open { user, session }) => drop(restored.still_there.insert(user, session)),
            Err(error) => return Err(error),
        }
    }
    restored.erased.sort_unstable();
    restored.erased.dedup();
    Ok(())
}

fn remove_folder(folder: &Path) -> Result<(), Error> {
    fs::remove_dir_all(folder).or_else(absent_is_fine).map_err(io_error("delete", folder))
}
