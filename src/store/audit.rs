//! Reads everything below a data folder again and says what is whole, what is lost.
//!
//! In: the data folder, and the manifests that a catalog remembers. Out: a [`Report`]. Nothing is changed, so it may run
//! beside a server.

#![deny(clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemas::frames::frames_schema;
use schemas::tables::{results_schema, strokes_schema};
use serde::Serialize;

use super::paths::{Paths, Table, TablePath};
use super::publish::{KEY_SESSION, batches, contained, entries, key_value, open_table, sha256_of};
use super::seal::{Error, Manifest};
use super::wal;

/// What was found below a data folder.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Parquet files that are whole, and as their manifest says where there is one.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Of these files, those that no manifest names: written, and then a crash before the catalog heard of it.
    pub files_without_manifest: u64,
    /// Files under temporary names, which the next start deletes.
    pub unfinished: u64,
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
    /// Rows that the manifest promised, where known.
    pub rows: Option<u64>,
}

impl Report {
    /// True if nothing that was stored is missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty()
    }
}

/// Reads every Parquet file and the log. `manifests` are those that the catalog has; a file that it names must exist and
/// have the same bytes. `progress` hears of each file before it is read.
///
/// # Errors
/// Only if a folder cannot be listed; a file that cannot be read counts as lost.
pub fn audit(paths: &Paths, manifests: &[Manifest], mut progress: impl FnMut(&Path)) -> Result<Report, Error> {
    let mut report = Report::default();
    let mut expected: BTreeMap<TablePath, &Manifest> =
        manifests.iter().map(|manifest| (manifest.path, manifest)).collect();
    for table in Table::ALL {
        for folder in entries(&paths.table(table))? {
            for file in entries(&folder)? {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if name.starts_with('_') {
                    report.unfinished += u64::from(name.ends_with(".tmp"));
                    continue;
                }
                progress(&file);
                let relative = file.strip_prefix(paths.root()).unwrap_or(&file).to_string_lossy().into_owned();
                let Ok(path) = relative.parse::<TablePath>() else {
                    report.lost.push(Lost { path: file, reason: "not a file of this table".to_owned(), rows: None });
                    continue;
                };
                let manifest = expected.remove(&path);
                match check_file(&file, path, manifest) {
                    Ok((rows, bytes)) => {
                        report.files += 1;
                        report.rows += rows;
                        report.bytes += bytes;
                        report.files_without_manifest += u64::from(manifest.is_none());
                    }
                    Err(reason) => {
                        report.lost.push(Lost { path: file, reason, rows: manifest.map(|manifest| manifest.rows) });
                    }
                }
            }
        }
    }
    for manifest in expected.into_values() {
        report.lost.push(Lost {
            path: paths.file(manifest.path),
            reason: "the file is missing".to_owned(),
            rows: Some(manifest.rows),
        });
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

/// Decodes a file to its end; gives rows and bytes, or what is wrong with it.
fn check_file(file: &Path, path: TablePath, manifest: Option<&Manifest>) -> Result<(u64, u64), String> {
    let schema = match path.table() {
        Table::Frames => frames_schema(),
        Table::Strokes => strokes_schema(),
        Table::Results => results_schema(),
    };
    let decoded = contained(file, || {
        let reader = open_table(file, path.table(), &schema)?;
        let session = key_value(&reader, KEY_SESSION).unwrap_or("none").to_owned();
        let promised = reader.metadata().file_metadata().num_rows() as u64;
        let mut rows = 0;
        for batch in batches(reader, file)? {
            rows += batch?.num_rows() as u64;
        }
        Ok((session, promised, rows))
    });
    let (session, promised, rows) = decoded.map_err(|error| chain(&error))?;
    if session != path.session_id().to_string() {
        return Err(format!("it holds session {session}"));
    }
    if rows != promised {
        return Err(format!("it holds {rows} rows, its footer says {promised}"));
    }
    let (bytes, sha256) = sha256_of(file).map_err(|error| chain(&error))?;
    match manifest {
        Some(manifest) if manifest.rows != rows => {
            Err(format!("it holds {rows} rows, the catalog says {}", manifest.rows))
        }
        Some(manifest) if manifest.bytes != bytes || manifest.sha256 != sha256 => {
            Err("its bytes are not those that the catalog has the sum of".to_owned())
        }
        _ => Ok((rows, bytes)),
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

    fn stored(paths: &Paths) -> Vec<Manifest> {
        let mut frames = FrameColumns::default();
        for _ in 0..100 {
            frames.push_decoded(4, SensorRole::Racket, None, [[1.0; 3]; 3]);
        }
        let frames = seal::write_frames(paths, SessionId(1), 0, 1, &frames, |_| None, &[]).unwrap();
        vec![frames, results::write_strokes(paths, SessionId(1), 0, &[]).unwrap()]
    }

    #[test]
    fn a_whole_folder_is_whole() {
        let dir = TempDir::new().unwrap();
        let paths = Paths::new(dir.path());
        assert!(audit(&paths, &[], |_| {}).unwrap().is_whole(), "an empty folder");
        let manifests = stored(&paths);
        let mut seen = 0;
        let report = audit(&paths, &manifests, |_| seen += 1).unwrap();
        assert!(report.is_whole(), "{report:?}");
        assert_eq!((report.files, report.rows, report.files_without_manifest, seen), (2, 100, 0, 3));
        fs::write(paths.file(manifests[0].path).with_file_name("_1.parquet.0.tmp"), "").unwrap();
        let report = audit(&paths, &[], |_| {}).unwrap();
        assert!(report.is_whole());
        assert_eq!((report.files_without_manifest, report.unfinished), (2, 1));
    }

    #[test]
    fn every_kind_of_loss_is_named() {
        let dir = TempDir::new().unwrap();
        let paths = Paths::new(dir.path());
        let manifests = stored(&paths);
        let file = paths.file(manifests[0].path);
        let bytes = fs::read(&file).unwrap();
        let lost = |manifests: &[Manifest]| audit(&paths, manifests, |_| {}).unwrap().lost;

        // A flip in a page may decode to other values; the manifest's sum tells.
        for at in [40, bytes.len() / 2, bytes.len() - 2] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            fs::write(&file, flipped).unwrap();
            assert_eq!(lost(&manifests).len(), 1, "flipped at {at}");
        }
        fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(lost(&manifests)[0].rows, Some(100));
        fs::remove_file(&file).unwrap();
        assert_eq!(lost(&manifests)[0].reason, "the file is missing");
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
