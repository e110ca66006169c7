//! Which archives were made of a data folder: they are files that somebody took away, and hold people who may want to be erased.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;

use schemas::UserId;
use serde::{Deserialize, Serialize};

use super::{Error, io_error};
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
    let mut line = serde_json::to_vec(note).unwrap_or_default();
    line.push(b'\n');
    let write = || {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
        file.write_all(&line)?;
        file.sync_all()
    };
    write().map_err(io_error("note an archive in", &path))
}

/// The archives that hold a player; of several with the same place the last, which took the place of the others.
///
/// # Errors
/// [`Error::Io`].
pub fn archives_with(paths: &Paths, user: UserId) -> Result<Vec<ArchiveNote>, Error> {
    let path = paths.root().join(ARCHIVES);
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("open", &path)(error)),
    };
    let mut newest = BTreeMap::new();
    for line in std::io::BufReader::new(file).lines() {
        let line = line.map_err(io_error("read", &path))?;
        // A line that a crash tore names no archive that was finished.
        if let Ok(note) = serde_json::from_str::<ArchiveNote>(&line) {
            newest.insert(note.path.clone(), note);
        }
    }
    Ok(newest.into_values().filter(|note| note.players.contains(&user.get())).collect())
}
