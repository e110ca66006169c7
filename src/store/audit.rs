//! Reads everything below a data folder again and says what is whole, what is lost.
//!
//! In: the data folder, and what a catalog remembers of the files in it ([`Expected`]). Out: a [`Report`]. Nothing is
//! changed, so it may run beside a server.
//!
//! A file that is newer than the catalog is whole: it is published first and committed then, and a crash in between is
//! made good by the next start, which seals again.

#![deny(clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::pack::{self, TableFile};
use super::paths::{Paths, Table, TablePath};
use super::publish::{KEY_REVISION, KEY_SESSION, batches, contained, entries, is_temporary, open_table, value_of};
use super::seal::{Error, KEY_SEALED_SHA256, Manifest};
use super::wal;

/// What a catalog remembers of a file. What it does not remember is not compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The file.
    pub path: TablePath,
    /// Its revision; a file of a later one is not compared further.
    pub revision: Option<u32>,
    /// Number of rows.
    pub rows: Option<u64>,
    /// Size, bytes.
    pub bytes: Option<u64>,
    /// SHA-256, hex.
    pub sha256: Option<String>,
}

impl From<&Manifest> for Expected {
    fn from(manifest: &Manifest) -> Self {
        Self {
            path: manifest.path,
            revision: Some(manifest.revision),
            rows: Some(manifest.rows),
            bytes: Some(manifest.bytes),
            sha256: Some(manifest.sha256.clone()),
        }
    }
}

/// What was found below a data folder.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Sessions' files that are whole, and as the catalog says where it knows them; those in packs too.
    pub files: u64,
    /// Of these files, those that lie in packs.
    pub packed_files: u64,
    /// Packs.
    pub packs: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes in them, as they are outside of packs.
    pub bytes: u64,
    /// Of these files, those that the catalog does not know.
    pub unlisted_files: u64,
    /// Of these files, those that the catalog does not know yet in the place of one that it knows: of a later revision, or its small form.
    pub newer_files: u64,
    /// Files under temporary names, which the next start deletes.
    pub unfinished_files: u64,
    /// What is lost.
    pub lost: Vec<Lost>,
    /// The write-ahead log.
    pub wal: wal::RecoveryReport,
}

/// Something that was stored and is not there, or not whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The file, or the folder of the log.
    pub path: PathBuf,
    /// Why it counts as lost, in words.
    pub reason: String,
    /// Rows that the catalog promised, where known.
    pub rows: Option<u64>,
}

impl Report {
    /// True if nothing that was stored is missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty()
    }
}

/// Reads every Parquet file and the log. A file that is expected must exist and be as the catalog says. `progress` hears
/// of each file before it is read.
///
/// # Errors
/// Only if a folder cannot be listed; a file that cannot be read counts as lost.
pub fn audit(paths: &Paths, expected: &[Expected], mut progress: impl FnMut(&Path)) -> Result<Report, Error> {
    let mut report = Report::default();
    let mut expected: BTreeMap<TablePath, &Expected> = expected.iter().map(|file| (file.path, file)).collect();
    for table in Table::ALL {
        for folder in entries(&paths.table(table))? {
            for file in entries(&folder)? {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if name.starts_with('_') {
                    report.unfinished_files += u64::from(is_temporary(&file));
                    continue;
                }
                progress(&file);
                let lost = |reason| Lost { path: file.clone(), reason, rows: None };
                let files = match pack::files_in(paths, &file) {
                    Some(Ok(files)) => files,
                    Some(Err(error)) => {
                        // Whose sessions were in it, the catalog says below.
                        if let Ok(path) = relative(paths, &file).parse() {
                            expected.remove(&path);
                        }
                        report.lost.push(lost(chain(&error)));
                        continue;
                    }
                    None => {
                        report.lost.push(lost("not a file of this table".to_owned()));
                        continue;
                    }
                };
                report.packs += u64::from(files.iter().any(|(_, file)| file.is_packed()));
                for (path, file) in files {
                    let expected = expected.remove(&path);
                    match check_file(&file, path, expected) {
                        Ok(whole) => {
                            report.files += 1;
                            report.packed_files += u64::from(file.is_packed());
                            report.rows += whole.rows;
                            report.bytes += whole.bytes;
                            report.unlisted_files += u64::from(expected.is_none());
                            report.newer_files += u64::from(whole.is_newer);
                        }
                        Err(reason) => {
                            let rows = expected.and_then(|expected| expected.rows);
                            report.lost.push(Lost { path: file.path().to_owned(), reason, rows });
                        }
                    }
                }
            }
        }
    }
    for missing in expected.into_values() {
        let path = paths.file(missing.path);
        report.lost.push(Lost { path, reason: "the file is missing".to_owned(), rows: missing.rows });
    }
    progress(&paths.wal());
    let lost_log = |reason| Lost { path: paths.wal(), reason, rows: None };
    match wal::read_only(&paths.wal(), |_| {}) {
        Ok(wal) => {
            if wal.lost_data() {
                let reason = format!("{} damaged places, {} bytes", wal.damaged_spots, wal.damaged_bytes);
                report.lost.push(lost_log(reason));
            }
            report.wal = wal;
        }
        Err(error) => report.lost.push(lost_log(chain(&error))),
    }
    Ok(report)
}

/// A file's path below the data folder.
fn relative(paths: &Paths, file: &Path) -> String {
    file.strip_prefix(paths.root()).unwrap_or(file).to_string_lossy().into_owned()
}

/// A file in which nothing is wrong.
struct Whole {
    rows: u64,
    bytes: u64,
    is_newer: bool,
}

/// Decodes a file to its end; says what is wrong with it, if anything is.
fn check_file(file: &TableFile, path: TablePath, expected: Option<&Expected>) -> Result<Whole, String> {
    let decoded = contained(file.path(), || {
        let reader = open_table(file, path.table(), &pack::schema_of(path.table()))?;
        let value = |key| value_of(reader.metadata(), key);
        let session = value(KEY_SESSION).unwrap_or("none").to_owned();
        let revision: Option<u32> = value(KEY_REVISION).and_then(|revision| revision.parse().ok());
        let sealed_as = value(KEY_SEALED_SHA256).map(str::to_owned);
        let promised = reader.metadata().file_metadata().num_rows() as u64;
        let mut rows = 0;
        for batch in batches(reader, file.path())? {
            rows += batch?.num_rows() as u64;
        }
        Ok((session, revision, sealed_as, promised, rows))
    });
    let (session, revision, sealed_as, promised, rows) = decoded.map_err(|error| chain(&error))?;
    if session != path.session_id().to_string() {
        return Err(format!("it holds session {session}"));
    }
    if rows != promised {
        return Err(format!("it holds {rows} rows, its footer says {promised}"));
    }
    let (bytes, sha256) = file.sha256().map_err(|error| chain(&error))?;
    if file.packed_sha256().is_some_and(|packed| packed != sha256) {
        return Err("its bytes are not those that were packed".to_owned());
    }
    let whole = Whole { rows, bytes, is_newer: false };
    let Some(expected) = expected else { return Ok(whole) };
    if let (Some(found), Some(known)) = (revision, expected.revision) {
        if found > known {
            return Ok(Whole { is_newer: true, ..whole });
        }
        if found < known {
            return Err(format!("it is revision {found}, the catalog has {known}"));
        }
    }
    if let Some(known) = expected.rows.filter(|&known| known != rows) {
        return Err(format!("it holds {rows} rows, the catalog says {known}"));
    }
    let same_bytes = expected.bytes.is_none_or(|known| known == bytes);
    let same_sum = expected.sha256.as_ref().is_none_or(|known| *known == sha256);
    if same_bytes && same_sum {
        Ok(whole)
    } else if expected.sha256.is_some() && expected.sha256 == sealed_as {
        // Its small form, of which the catalog did not know yet.
        Ok(Whole { is_newer: true, ..whole })
    } else {
        Err("its bytes are not those that were sealed".to_owned())
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use schemas::{FrameColumns, SensorRole, SessionId};
    use tempfile::TempDir;

    use super::*;
    use crate::store::{results, seal};

    fn frames(paths: &Paths, revision: u32, rows: usize) -> Manifest {
        let mut frames = FrameColumns::default();
        for _ in 0..rows {
            frames.push_decoded(4, SensorRole::Racket, None, [[1.0; 3]; 3]);
        }
        seal::write_frames(paths, SessionId(1), 0, revision, &frames, |_| None, &[]).unwrap()
    }

    fn stored(paths: &Paths) -> Vec<Expected> {
        let strokes = results::write_strokes(paths, SessionId(1), 0, &[]).unwrap();
        [&frames(paths, 1, 100), &strokes].map(Expected::from).to_vec()
    }

    #[test]
    fn a_whole_folder_is_whole() {
        let dir = TempDir::new().unwrap();
        let paths = Paths::new(dir.path());
        assert!(audit(&paths, &[], |_| {}).unwrap().is_whole(), "an empty folder");
        let expected = stored(&paths);
        let mut seen = 0;
        let report = audit(&paths, &expected, |_| seen += 1).unwrap();
        assert!(report.is_whole(), "{report:?}");
        assert_eq!((report.files, report.rows, report.unlisted_files, seen), (2, 100, 0, 3));
        fs::write(paths.file(expected[0].path).with_file_name("_1.parquet.0.tmp"), "").unwrap();
        let report = audit(&paths, &[], |_| {}).unwrap();
        assert!(report.is_whole());
        assert_eq!((report.unlisted_files, report.unfinished_files), (2, 1));
    }

    #[test]
    fn a_file_may_be_ahead_of_the_catalog_but_not_behind() {
        let dir = TempDir::new().unwrap();
        let paths = Paths::new(dir.path());
        let [first, second] =
            [(1, 100), (2, 120)].map(|(revision, rows)| Expected::from(&frames(&paths, revision, rows)));
        let report = audit(&paths, std::slice::from_ref(&first), |_| {}).unwrap();
        assert!(report.is_whole());
        assert_eq!((report.newer_files, report.rows), (1, 120));
        frames(&paths, 1, 100);
        let report = audit(&paths, &[second], |_| {}).unwrap();
        assert_eq!((report.lost.len(), report.lost[0].rows), (1, Some(120)));
    }

    #[test]
    fn every_kind_of_loss_is_named() {
        let dir = TempDir::new().unwrap();
        let paths = Paths::new(dir.path());
        let expected = stored(&paths);
        let file = paths.file(expected[0].path);
        let bytes = fs::read(&file).unwrap();
        let lost = |expected: &[Expected]| audit(&paths, expected, |_| {}).unwrap().lost;

        // A flip in a page may decode to other values; the manifest's sum tells.
        for at in [40, bytes.len() / 2, bytes.len() - 2] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            fs::write(&file, flipped).unwrap();
            assert_eq!(lost(&expected).len(), 1, "flipped at {at}");
        }
        fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(lost(&expected)[0].rows, Some(100));
        fs::remove_file(&file).unwrap();
        assert_eq!(lost(&expected)[0].reason, "the file is missing");
        fs::write(file.with_file_name("2.parquet"), &bytes).unwrap();
        assert_eq!(lost(&[])[0].reason, "it holds session 1");
        fs::remove_file(file.with_file_name("2.parquet")).unwrap();
        fs::write(file.with_file_name("notes.txt"), "").unwrap();
        assert_eq!(lost(&[])[0].reason, "not a file of this table");
        fs::remove_file(file.with_file_name("notes.txt")).unwrap();

        fs::create_dir(paths.wal()).unwrap();
        fs::write(paths.wal().join(format!("{:020}.wal", 1)), [7; 100]).unwrap();
        assert_eq!(lost(&[])[0].path, paths.wal());
    }
}
