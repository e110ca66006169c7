//! Room on the disk: how much there is, whether something failed for want of it, and a little that is kept for that day.
//!
//! The log leaves [`min_free_bytes`](crate::store::wal::Options::min_free_bytes) to the rest of us, but any other program may
//! fill the disk to its last byte. SQLite cannot open a database then: the service would not start, and neither would what
//! makes room. So the service keeps a file of [`RESERVE_BYTES`] with nothing in it. Whoever has to work on a full disk gives it
//! up first ([`give_up_reserve`]), and the service makes it again when there is plenty ([`keep_reserve`]).

use std::error::Error as StdError;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use super::paths::Paths;

/// Size of the reserve: the catalog's own log grows to 4 MiB before it is folded back.
pub const RESERVE_BYTES: u64 = 8 << 20;

/// With less than this the reserve is given up.
const DIRE_BYTES: u64 = RESERVE_BYTES / 2;

/// SQLite's `SQLITE_FULL`, and `SQLITE_IOERR_SHMSIZE`, which is how opening a database on a full disk fails.
const SQLITE_CODES: [&str; 2] = ["13", "4874"];

/// Free bytes on the disk of a folder, for those who are not root.
///
/// # Errors
/// The folder is not there, or its file system cannot tell.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// True for the errors that go away when somebody makes room.
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// True if an error, whoever tells it, comes from a full disk.
#[must_use]
pub fn is_full_disk(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (*error).source()).any(|error| {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return is_no_space(error);
        }
        let database = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
        database.and_then(sqlx::error::DatabaseError::code).is_some_and(|code| SQLITE_CODES.contains(&&*code))
    })
}

/// Sets the reserve aside if it is not there and more than `min_free_bytes` stay free; true if it is there now.
///
/// # Errors
/// The file could not be made; nothing is left of it.
pub fn keep_reserve(paths: &Paths, min_free_bytes: u64) -> io::Result<bool> {
    let reserve = paths.reserve();
    if reserve.exists() {
        return Ok(true);
    }
    if free_bytes(paths.root())? < min_free_bytes.saturating_add(2 * RESERVE_BYTES) {
        return Ok(false);
    }
    let kept = fill(&reserve);
    if kept.is_err() {
        drop(fs::remove_file(&reserve));
    }
    kept.map(|()| true)
}

/// Real bytes: a hole would promise room that is not there.
fn fill(reserve: &Path) -> io::Result<()> {
    let mut file = File::create(reserve)?;
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = [0; 1 << 13];
            for _ in 0..RESERVE_BYTES / zeros.len() as u64 {
                file.write_all(&zeros)?;
            }
            file.sync_all()
        }
        allocated => Ok(allocated?),
    }
}

/// Gives the reserve up if the disk is as good as full; true if there was one. For those who must work now: the start of the
/// service, and what makes room.
pub fn give_up_reserve(paths: &Paths) -> bool {
    give_up_reserve_below(paths, DIRE_BYTES)
}

fn give_up_reserve_below(paths: &Paths, dire_bytes: u64) -> bool {
    // Without a folder there is nothing to give up, and whoever comes next says so.
    let is_dire = free_bytes(paths.root()).is_ok_and(|free| free < dire_bytes);
    if !is_dire || fs::remove_file(paths.reserve()).is_err() {
        return false;
    }
    tracing::warn!(
        "the disk is full: the {} MiB that were kept for this are given up in {}; make room, for example with volant retention",
        RESERVE_BYTES >> 20,
        paths.root().display()
    );
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_takes_its_room_and_stays_while_there_is_plenty() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        assert!(!keep_reserve(&paths, u64::MAX).unwrap());
        assert!(!paths.reserve().exists());
        assert!(keep_reserve(&paths, 0).unwrap());
        let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(paths.reserve()).unwrap());
        assert!(blocks * 512 >= RESERVE_BYTES, "{blocks} blocks");
        assert!(keep_reserve(&paths, u64::MAX).unwrap(), "it is there");
        assert!(!give_up_reserve(&paths), "nobody is in need");
        assert!(paths.reserve().exists());
        assert!(give_up_reserve_below(&paths, u64::MAX));
        assert!(!paths.reserve().exists());
        assert!(!give_up_reserve_below(&paths, u64::MAX), "once");
    }

    #[test]
    fn a_full_disk_is_known_whoever_tells_it() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert!(is_full_disk(&full()));
        assert!(is_full_disk(&parquet::errors::ParquetError::External(Box::new(full()))));
        let log = crate::store::wal::Error::NoSpace { dir: "wal".into(), source: full() };
        assert!(is_full_disk(&crate::store::wal::Error::Poisoned(std::sync::Arc::new(log))));
        assert!(!is_full_disk(&io::Error::from(io::ErrorKind::PermissionDenied)));
        assert!(!is_full_disk(&sqlx::Error::RowNotFound));
    }
}
