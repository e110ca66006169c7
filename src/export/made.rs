//! Which archives were made of a data folder: they are files that somebody took away, and hold people who may want to be erased.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemas::UserId;
use serde::{Deserialize, Serialize};

use super::{Error, io_error};
use crate::store::notes;
use crate::store::paths::Paths;

/// Archives that were made of a folder, a line each, below it.
const ARCHIVES: &str = "archives.jsonl";

/// An archive that was made of the folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveNote {
    /// Where it was written.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// µs since 1970 UTC.
    pub created_at_us: i64,
    /// Players in it.
    pub players: Vec<i64>,
    /// Sessions in it.
    pub sessions: Vec<i64>,
}

/// Notes an archive, so that whoever erases a player later knows of it.
///
/// # Errors
/// [`Error::Io`].
pub fn note_archive(paths: &Paths, note: &ArchiveNote) -> Result<(), Error> {
    let path = paths.root().join(ARCHIVES);
    notes::add(&path, note).map_err(io_error("note an archive in", &path))
}

/// The archives that hold a player; of several with the same place the last, which took the place of the others.
///
/// # Errors
/// [`Error::Io`].
pub fn archives_with(paths: &Paths, user: UserId) -> Result<Vec<ArchiveNote>, Error> {
    let path = paths.root().join(ARCHIVES);
    // A line that a crash tore names no archive that was finished.
    let made: Vec<ArchiveNote> = notes::read(&path).map_err(io_error("read", &path))?;
    let newest: BTreeMap<PathBuf, ArchiveNote> = made.into_iter().map(|note| (note.path.clone(), note)).collect();
    Ok(newest.into_values().filter(|note| note.players.contains(&user.get())).collect())
}
