//! A catalog that is only read, also where nothing can be written.
//!
//! SQLite reads a database with a log by an index beside it, which it makes where it is absent. Where that cannot be done, a
//! database that nobody has open is read as it is; then nothing tells that somebody comes to use it, but its file and its log.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use super::watcher::Watcher;
use super::{Catalog, Error, READERS};

/// What SQLite answers where it cannot make the index of its log beside the database, by which it reads (sqlite.org/rescode.html).
const INDEX_REFUSED: [&str; 7] = [
    "14",   // SQLITE_CANTOPEN
    "4874", // SQLITE_IOERR_SHMSIZE: no room
    "4618", // SQLITE_IOERR_SHMOPEN
    "264",  // SQLITE_READONLY_RECOVERY
    "520",  // SQLITE_READONLY_CANTLOCK
    "1288", // SQLITE_READONLY_CANTINIT
    "1544", // SQLITE_READONLY_DIRECTORY
];

/// True if that is why it could not be opened.
fn cannot_make_index(error: &Error) -> bool {
    let Error::Open { source, .. } = error else { return false };
    let code = source.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| INDEX_REFUSED.contains(&&*code))
}

/// What shows that a database was written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AsItWas {
    database: Option<(u64, SystemTime)>,
    log_bytes: u64,
}

impl AsItWas {
    fn of(path: &Path) -> Self {
        let about = path.metadata().ok();
        let database = about.and_then(|about| Some((about.len(), about.modified().ok()?)));
        Self { database, log_bytes: beside(path, "-wal").metadata().map_or(0, |log| log.len()) }
    }
}

/// A file of SQLite's beside the database.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

impl Catalog {
    /// Opens the database of a folder that a server may be running on, for reading only; also where nothing can be written: on a
    /// read-only file system, in a folder of somebody else's, on a full disk.
    pub async fn open_read_only(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(Duration::from_secs(10));
        let mut as_it_was = None;
        let readers = match Self::readers(path, options.clone()).await {
            Err(error) if cannot_make_index(&error) => {
                // Nobody has it open, or its index would be there. Then there is nothing to be told by an index.
                let found = AsItWas::of(path);
                if found.log_bytes > 0 {
                    return Err(Error::InUse { path: path.display().to_string() });
                }
                as_it_was = Some(found);
                Self::readers(path, options.immutable(true)).await?
            }
            opened => opened?,
        };
        Ok(Self { writer: readers.clone(), readers, watcher: Watcher::new(path), as_it_was })
    }

    /// Whoever keeps a database open for reading asks this before they read.
    ///
    /// # Errors
    /// [`Error::CameIntoUse`]: what is read now need not be true any more.
    pub fn is_still_readable(&self, path: &Path) -> Result<(), Error> {
        match &self.as_it_was {
            Some(known) if *known != AsItWas::of(path) => Err(Error::CameIntoUse { path: path.display().to_string() }),
            _ => Ok(()),
        }
    }

    /// Connections that have read something.
    async fn readers(path: &Path, options: SqliteConnectOptions) -> Result<SqlitePool, Error> {
        let opened = |source| Error::Open { path: path.display().to_string(), source };
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options).await.map_err(opened)?;
        if let Err(error) = sqlx::query("SELECT count(*) FROM sqlite_master").fetch_one(&readers).await {
            readers.close().await;
            return Err(opened(error));
        }
        Ok(readers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nobody_has_open_is_read_where_nothing_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        let catalog = Catalog::open(&path).await.unwrap();
        catalog.user_by_openid("one", 1).await.unwrap();
        catalog.close().await;
        // The index cannot be made there, as on a read-only file system.
        std::os::unix::fs::symlink(dir.path().join("absent/index"), beside(&path, "-shm")).unwrap();
        let read = Catalog::open_read_only(&path).await.unwrap();
        assert!(read.as_it_was.is_some(), "this is the way that is meant");
        assert!(read.find_user_by_openid("one").await.unwrap().is_some());
        assert_eq!(read.version(), None, "every statement looks again");
        read.is_still_readable(&path).unwrap();
        // Commits come into the log, and from there into the database.
        std::fs::write(beside(&path, "-wal"), b"commits").unwrap();
        assert!(matches!(read.is_still_readable(&path), Err(Error::CameIntoUse { .. })));
        assert!(
            matches!(Catalog::open_read_only(&path).await, Err(Error::InUse { .. })),
            "commits are not passed over"
        );
        std::fs::remove_file(beside(&path, "-wal")).unwrap();
        read.is_still_readable(&path).unwrap();
        let database = std::fs::File::options().append(true).open(&path).unwrap();
        database.set_modified(database.metadata().unwrap().modified().unwrap() + Duration::from_secs(1)).unwrap();
        assert!(matches!(read.is_still_readable(&path), Err(Error::CameIntoUse { .. })));
        read.close().await;
        let absent = Catalog::open_read_only(&dir.path().join("absent.sqlite")).await;
        assert!(matches!(absent, Err(Error::Open { .. })));
    }
}
