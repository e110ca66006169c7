//! Whether anything was committed since: what was read of the catalog need not be read again.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

/// Bytes of the header of SQLite's WAL index, which stands twice at the beginning of the file (sqlite.org/walformat.html, 2.1).
const HEADER_BYTES: usize = 48;

/// A state of the database, see [`Catalog::version`](super::Catalog::version).
///
/// The header is what SQLite itself knows by whether what it has in memory still counts: a counter of transactions, the last
/// frame of the log, salts and sums. Whoever commits, in whichever process, changes it when the commit can be seen. An index
/// that was made anew over an empty log looks like the one before; what was committed between lies in the database's file
/// then, which has another size or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    header: [u8; HEADER_BYTES],
    bytes: u64,
    changed: (i64, i64),
}

/// The files that tell it.
#[derive(Clone, Debug)]
pub(super) struct Watcher {
    database: PathBuf,
    index: PathBuf,
}

impl Watcher {
    pub(super) fn new(database: &Path) -> Self {
        Self { database: database.to_owned(), index: super::read_only::beside(database, "-shm") }
    }

    /// `None` where it cannot be told: a file is not there, or the index is being changed.
    pub(super) fn version(&self) -> Option<Version> {
        let mut twice = [0; 2 * HEADER_BYTES];
        never_closed(&self.index)?.read_exact_at(&mut twice, 0).ok()?;
        let (first, second) = twice.split_at(HEADER_BYTES);
        // An index that nobody has filled says nothing.
        if first != second || first.iter().all(|&byte| byte == 0) {
            return None;
        }
        let about = self.database.metadata().ok()?;
        let changed = (about.mtime(), about.mtime_nsec());
        Some(Version { header: first.try_into().ok()?, bytes: about.size(), changed })
    }
}

/// The file, open until the process ends: whoever closes one gives up every lock that the process has on it (POSIX), and SQLite
/// keeps its locks on the index. Without them another process takes it for left over and cuts it off under us.
fn never_closed(path: &Path) -> Option<&'static File> {
    static OPENED: LazyLock<Mutex<HashMap<(u64, u64), &'static File>>> = LazyLock::new(Mutex::default);
    let about = path.metadata().ok()?;
    let mut opened = OPENED.lock().ok()?;
    if let Some(file) = opened.get(&(about.dev(), about.ino())) {
        return Some(file);
    }
    let file: &'static File = Box::leak(Box::new(File::open(path).ok()?));
    // Of the file that was opened: another may have taken the name since.
    let about = file.metadata().ok()?;
    opened.insert((about.dev(), about.ino()), file);
    Some(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::super::Catalog;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn looking_at_the_index_leaves_sqlite_its_locks_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        let catalog = Catalog::open(&path).await.unwrap();
        catalog.user_by_openid("one", 1).await.unwrap();
        let index = dir.path().join("catalog.sqlite-shm").metadata().unwrap().ino();
        // What the kernel says: "1: POSIX  ADVISORY  READ 4711 fe:00:INODE 128 128".
        let locked = || std::fs::read_to_string("/proc/locks").unwrap().contains(&format!(":{index} "));
        assert!(locked(), "SQLite holds one as long as it is open");
        assert!(catalog.version().is_some());
        assert!(locked());
        catalog.close().await;
    }

    #[tokio::test]
    async fn a_version_changes_with_every_commit_of_whoever_and_with_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        let catalog = Catalog::open(&path).await.unwrap();
        catalog.user_by_openid("one", 1).await.unwrap();
        let first = catalog.version();
        assert!(first.is_some());
        catalog.find_user_by_openid("one").await.unwrap();
        catalog.user_by_openid("one", 2).await.unwrap();
        assert_eq!(catalog.version(), first, "nothing was written");

        let other = Catalog::open(&path).await.unwrap();
        other.user_by_openid("two", 3).await.unwrap();
        let second = catalog.version();
        assert_ne!(second, first, "another connection committed");
        catalog.user_by_openid("three", 4).await.unwrap();
        let third = catalog.version();
        assert!(third != second && third != first);
        catalog.close().await;
        other.close().await;

        // The log is empty and its index new.
        let again = Catalog::open(&path).await.unwrap();
        again.find_user_by_openid("one").await.unwrap();
        let empty = again.version();
        again.close().await;
        let writes = Catalog::open(&path).await.unwrap();
        writes.user_by_openid("four", 5).await.unwrap();
        writes.close().await;
        let later = Catalog::open(&path).await.unwrap();
        later.find_user_by_openid("one").await.unwrap();
        assert!(empty.is_none() || later.version() != empty, "the file has changed");
        later.close().await;
        assert_eq!(later.version(), None, "there is no index");
    }
}
