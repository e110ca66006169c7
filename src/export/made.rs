//! Which archives were made of a data folder: they are files that somebody took away, and hold people who may want to be erased.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
    /// True for what a run that did not come to its end has left of one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unfinished: bool,
}

/// Where archives are that were taken by HTTP: wherever whoever took them has put them, none in the place of another.
pub(super) const TAKEN_AWAY: &str = "/api/v2/export";

/// What an archive is called while it is written, below its own name.
pub(super) fn partial(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Notes an archive, so that whoever erases a player later knows of it.
///
/// # Errors
/// [`Error::Io`].
pub fn note_archive(paths: &Paths, note: &ArchiveNote) -> Result<(), Error> {
    let path = paths.root().join(ARCHIVES);
    notes::add(&path, note).map_err(io_error("note an archive in", &path))
}

/// The archives that hold a player; of several with the same place the last, which took the place of the others. What is left of
/// one that was not finished, if it is still there.
///
/// # Errors
/// [`Error::Io`].
pub fn archives_with(paths: &Paths, user: UserId) -> Result<Vec<ArchiveNote>, Error> {
    let path = paths.root().join(ARCHIVES);
    // A line that a crash tore names no archive that was finished.
    let made: Vec<ArchiveNote> = notes::read(&path).map_err(io_error("read", &path))?;
    let (mut newest, mut unfinished, mut taken) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for note in made {
        if note.path == Path::new(TAKEN_AWAY) {
            taken.push(note);
        } else if note.unfinished {
            unfinished.insert(partial(&note.path), note);
        } else {
            unfinished.remove(&partial(&note.path));
            newest.insert(note.path.clone(), note);
        }
    }
    let left = unfinished.into_iter().filter_map(|(partial, note)| {
        if partial.exists() {
            return Some(ArchiveNote { path: partial, ..note });
        }
        // It got its name, and the run ended before that was noted; or somebody deleted it.
        note.path.exists().then_some(ArchiveNote { unfinished: false, ..note })
    });
    let holds = |note: &ArchiveNote| note.players.contains(&user.get());
    let found: BTreeMap<PathBuf, ArchiveNote> =
        newest.into_values().chain(left).filter(holds).map(|note| (note.path.clone(), note)).collect();
    Ok(found.into_values().chain(taken.into_iter().filter(holds)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_in_one_place_follow_each_other_and_parts_count_while_they_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let at = |name: &str| folder.path().join(name);
        let add = |path: PathBuf, players: &[i64], unfinished| {
            let (players, sessions) = (players.to_vec(), Vec::new());
            note_archive(&paths, &ArchiveNote { path, created_at_us: 1, players, sessions, unfinished }).unwrap();
        };
        let with = |player| -> Vec<(PathBuf, bool)> {
            let notes = archives_with(&paths, UserId(player)).unwrap();
            notes.into_iter().map(|note| (note.path, note.unfinished)).collect()
        };
        // Moved elsewhere or not, it was made; another in its place took it.
        add(at("a"), &[1], false);
        assert_eq!(with(1), [(at("a"), false)]);
        add(at("a"), &[2], false);
        assert_eq!((with(1), with(2)), (vec![], vec![(at("a"), false)]));
        // What is being made in its place leaves it until it has its name.
        add(at("a"), &[3], true);
        assert_eq!(with(3), []);
        std::fs::write(at("a"), "whole").unwrap();
        std::fs::write(at("a.partial"), "half").unwrap();
        assert_eq!((with(3), with(2)), (vec![(at("a.partial"), true)], vec![(at("a"), false)]));
        std::fs::rename(at("a.partial"), at("a")).unwrap();
        assert_eq!(with(3), [(at("a"), false)], "killed between the name and its note");
        add(at("a"), &[3], false);
        assert_eq!((with(3), with(2)), (vec![(at("a"), false)], vec![]));
        // Whoever takes one away takes it from nobody.
        add(TAKEN_AWAY.into(), &[4], false);
        add(TAKEN_AWAY.into(), &[5], false);
        assert_eq!(with(4), [(TAKEN_AWAY.into(), false)]);
    }
}
