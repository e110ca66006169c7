//! The life of data after it is stored: packing small old files, giving up what is old, erasing a player, backing a folder up,
//! restoring one.
//!
//! In: a data folder. Out: a receipt, a copy, a folder. Everything here can be killed at any instant and is finished by
//! running it again; nothing is called done before it is on the disk and was read back.
//!
//! Absent: copies on other machines (they are files: any tool moves them), encryption.

mod backup;
mod compaction;
mod erase;
mod restore;
mod retention;

pub use backup::{BACKUP_MANIFEST, BackedUp, Backup, BackupManifest, BackupNote, backup};
pub use compaction::{Compacted, Packing, TableSize, compact};
pub use erase::{Eraser, Receipt, check_receipt, erase, keep_receipt, receipt_path};
pub use restore::{Restored, restore};
pub use retention::{Expired, Policy, retain};

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::store::{catalog, seal, wal};

/// How long a statement may read what was replaced when nobody says otherwise: the usual limit of a statement.
pub const READING: Duration = Duration::from_secs(60);

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read, written or deleted.
    #[error("{step} {}", path.display())]
    Io {
        /// What was done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The catalog.
    #[error("use the catalog")]
    Catalog(#[from] catalog::Error),
    /// The write-ahead log.
    #[error("use the write-ahead log")]
    Wal(#[from] wal::Error),
    /// Stored files.
    #[error("work on the stored files")]
    Store(#[from] seal::Error),
    /// The archive that frames were to be in before they went.
    #[error("archive sessions before their frames go")]
    Archive {
        /// The cause.
        #[source]
        source: Box<crate::export::Error>,
    },
    /// What archives were made.
    #[error("read which archives were made")]
    Archives {
        /// The cause.
        #[source]
        source: Box<crate::export::Error>,
    },
    /// Nobody has this number.
    #[error("there is no player {user}")]
    NoPlayer {
        /// The number.
        user: i64,
    },
    /// Something of the player is under way.
    #[error(
        "session {session} of player {user} is being recorded or analysed, or its device may still send late frames: let the \
         service end it (volant sessions complete {session}), wait half a minute and erase again"
    )]
    Open {
        /// The player.
        user: i64,
        /// The session.
        session: i64,
    },
    /// What should be a backup is none, or is damaged or incomplete.
    #[error("{what} in {}", path.display())]
    Backup {
        /// What is wrong.
        what: String,
        /// The backup.
        path: PathBuf,
    },
    /// The folder to restore into holds something.
    #[error("{} is not empty: a backup is restored into a folder of its own", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A compaction is running on the folder.
    #[error("a compaction is running on this folder; it ends by itself: run this again then")]
    Compacting,
    /// Something is being imported, or another player erased.
    #[error("an import or another erasure is under way; run this again when it has ended")]
    Importing,
    /// Stored files changed faster than they could be copied, or were in use.
    #[error("the folder changed or was in use each of {attempts} times; what was done so far is kept, run it again")]
    Changing {
        /// How often it was tried.
        attempts: usize,
    },
    /// The signature of a receipt.
    #[error("{what}")]
    Receipt {
        /// What is wrong.
        what: &'static str,
    },
}

fn io_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { step, path, source }
}
