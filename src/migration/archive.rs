//! An archive of this or another service, brought into a data folder.
//!
//! A session keeps its numbers where they are free, and then its files are the same bytes; where its number, its player's
//! or its analysis' is taken by another, it gets new ones, which stand in every row, so its files are written anew with the
//! same values. Which archived session became which one here is noted before files are written (by the sum of its frames),
//! so that an import that was killed goes on and one that is repeated doubles nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::Read;

use futures::executor::block_on;
use schemas::{AnalysisId, SessionId, UserId};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::export::{self, Opened};
use crate::store::catalog::{self, ArchivedSession, Catalog, Here, StoredFrames};
use crate::store::pack::TableFile;
use crate::store::paths::{Paths, Table, TablePath};
use crate::store::{results, seal};

/// What came of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ArchiveReport {
    /// Sessions in it.
    pub found: usize,
    /// Taken now.
    pub taken: usize,
    /// Of these, those that had been here and whose frames were given up for their age.
    #[serde(default)]
    pub brought_back: usize,
    /// There already.
    pub already: usize,
    /// Players that were made for it.
    pub players: usize,
    /// Sessions that got another number here: theirs, ours.
    pub renumbered: BTreeMap<i64, i64>,
    /// Sessions whose player was erased here: they stay out.
    pub erased: Vec<i64>,
    /// Frames taken now.
    pub frames: i64,
    /// True if nothing was written.
    pub dry_run: bool,
}

/// Why an archive could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Reading it.
    #[error(transparent)]
    Archive(#[from] export::Error),
    /// The catalog.
    #[error("bring the catalog up to the archive")]
    Catalog(#[from] catalog::Error),
    /// Writing a file.
    #[error("store a file of session {session_id}")]
    Store {
        /// The session, by its number in the archive.
        session_id: i64,
        /// The cause.
        #[source]
        source: seal::Error,
    },
    /// A file beside the data could not be read or written.
    #[error("unpack a file of session {session_id}")]
    Unpack {
        /// The session, by its number in the archive.
        session_id: i64,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The archive contradicts itself.
    #[error("{what} in the archive")]
    Contradiction {
        /// What is wrong.
        what: String,
    },
}

/// Takes an archive into a data folder; without a target it only says what it would do.
///
/// # Errors
/// See [`ArchiveError`]. What was taken before stays taken.
pub fn import(
    archive: &Opened,
    target: Option<(&Catalog, &Paths)>,
    known: Option<&Catalog>,
    clock: &Clock,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<ArchiveReport, ArchiveError> {
    let manifest = &archive.manifest;
    let total = manifest.sessions.len();
    let mut report = ArchiveReport { found: total, dry_run: target.is_none(), ..ArchiveReport::default() };
    // By the sum of frames: what stays out, and what is there.
    let mut passed_over = HashSet::new();
    let mut here = HashMap::new();
    if let Some(known) = known {
        for session in &manifest.sessions {
            let erased = match session.user_id {
                Some(user) => block_on(known.is_erased_of(&manifest.service, user))?,
                None => false,
            };
            if erased {
                report.erased.push(session.session_id);
                passed_over.insert(session.session_id);
                continue;
            }
            let (service, start) = (&manifest.service, session.started_at_us);
            match block_on(known.archived_here(service, session.session_id, start, &session.frames_sha256))? {
                Some(found) if found.lacks_frames => drop(here.insert(session.session_id, found)),
                Some(_) => {
                    report.already += 1;
                    passed_over.insert(session.session_id);
                }
                None => {}
            }
        }
    }
    let Some((catalog, paths)) = target else {
        report.taken = total - passed_over.len();
        report.brought_back = here.len();
        report.frames = manifest
            .sessions
            .iter()
            .filter(|session| !passed_over.contains(&session.session_id))
            .map(|session| session.rows)
            .sum();
        return Ok(report);
    };

    let mut taking = Taking { catalog, paths, clock, players: HashMap::new(), here, report };
    let own = block_on(catalog.service_id())?.as_deref() == Some(manifest.service.as_str());
    let taken = manifest.sessions.iter().filter(|session| !passed_over.contains(&session.session_id));
    let played: HashSet<i64> = taken.filter_map(|session| session.user_id).collect();
    for player in manifest.players.iter().filter(|player| played.contains(&player.user_id)) {
        // A number may have been given anew since, after a restored backup; their language may be another by now.
        let there = block_on(catalog.archived_player(UserId(player.user_id)))?;
        let ours = if own && there.is_some_and(|there| there.created_at_us == player.created_at_us) {
            UserId(player.user_id)
        } else {
            let (ours, is_new) = block_on(catalog.import_player(&manifest.service, player))?;
            taking.report.players += usize::from(is_new);
            ours
        };
        taking.players.insert(player.user_id, ours.get());
    }
    // The files of a session stand before what the catalog knew of it.
    let mut unpacked = Unpacked::new(paths)?;
    let mut done = 0;
    progress(done, total);
    archive.each::<ArchiveError>(|entry, content| {
        if let Some(id) = entry.path.strip_prefix("sessions/").and_then(|name| name.strip_suffix(".json")) {
            let session_id: i64 = id.parse().map_err(|_| contradiction(format!("the name {}", entry.path)))?;
            if !passed_over.contains(&session_id) {
                let text = export::text_of(&archive.path, &entry.path, content)?;
                let session: ArchivedSession =
                    serde_json::from_slice(&text).map_err(|error| contradiction(format!("{}: {error}", entry.path)))?;
                taking.session(&session, &unpacked)?;
            }
            unpacked.clear();
            done += 1;
            progress(done, total);
        } else if let Ok(path) = entry.path.parse::<TablePath>()
            && !passed_over.contains(&path.session_id().get())
        {
            unpacked.add(path, &entry.sha256, content)?;
        }
        Ok(())
    })?;
    Ok(taking.report)
}

fn contradiction(what: String) -> ArchiveError {
    ArchiveError::Contradiction { what }
}

struct Taking<'a> {
    catalog: &'a Catalog,
    paths: &'a Paths,
    clock: &'a Clock,
    /// Theirs to ours.
    players: HashMap<i64, i64>,
    /// Sessions that are here without their frames, by their number in the archive.
    here: HashMap<i64, Here>,
    report: ArchiveReport,
}

impl Taking<'_> {
    fn session(&mut self, theirs: &ArchivedSession, unpacked: &Unpacked) -> Result<(), ArchiveError> {
        let now_us = self.clock.now_us();
        let mut ours = theirs.clone();
        ours.user_id = match theirs.user_id {
            Some(user) => {
                let known = self.players.get(&user).copied();
                Some(known.ok_or_else(|| contradiction(format!("a session of player {user}, who is not listed,")))?)
            }
            None => None,
        };
        let here = self.here.get(&theirs.session_id).copied();
        let (session_id, analysis_id) = if let Some(here) = here {
            block_on(self.catalog.begin_bringing_back(here.session_id))?;
            if !here.lacks_result {
                ours.result = None;
            }
            let kept = AnalysisId(theirs.result.as_ref().map_or(0, |result| result.analysis_id));
            (here.session_id, here.analysis_id.unwrap_or(kept))
        } else {
            block_on(self.catalog.claim_archived(theirs, ours.user_id.map(UserId), now_us))?
        };
        ours.session_id = session_id.get();
        let stored = |table| TablePath::new(table, session_id, theirs.started_at_us);
        let failed = |source| ArchiveError::Store { session_id: theirs.session_id, source };
        let frames = unpacked.file(Table::Frames, theirs)?;
        ours.frames_path = stored(Table::Frames).to_string();
        if ours.session_id == theirs.session_id {
            self.place(frames, stored(Table::Frames), theirs)?;
        } else {
            self.report.renumbered.insert(theirs.session_id, ours.session_id);
            let file = TableFile::open(&frames.path).map_err(failed)?;
            let columns = seal::read_frames(&file).map_err(failed)?;
            let factors = seal::acc_factors(&file).map_err(failed)?;
            let metadata = seal::metadata(&file).map_err(failed)?;
            let revision = u32::try_from(theirs.revision).unwrap_or(1);
            let manifest = seal::write_frames_small(
                self.paths,
                session_id,
                theirs.started_at_us,
                revision,
                &columns,
                |sensor| factors.get(&sensor).copied().flatten(),
                &metadata,
            )
            .map_err(failed)?;
            ours.frames_bytes = manifest.bytes as i64;
            ours.frames_sha256 = manifest.sha256;
            debug_assert_eq!(columns.len() as i64, theirs.rows);
        }
        if let Some(result) = ours.result.as_mut() {
            let unchanged = ours.session_id == theirs.session_id
                && ours.user_id == theirs.user_id
                && analysis_id.get() == result.analysis_id;
            result.analysis_id = analysis_id.get();
            result.strokes_path = stored(Table::Strokes).to_string();
            result.result_path = stored(Table::Results).to_string();
            let [strokes, row] = [unpacked.file(Table::Strokes, theirs)?, unpacked.file(Table::Results, theirs)?];
            if unchanged {
                self.place(strokes, stored(Table::Strokes), theirs)?;
                self.place(row, stored(Table::Results), theirs)?;
            } else {
                let open = |path| TableFile::open(path).map_err(failed);
                let mut strokes = results::read_strokes(&open(&strokes.path)?).map_err(failed)?;
                for stroke in &mut strokes {
                    (stroke.session_id, stroke.user_id) = (ours.session_id, ours.user_id);
                }
                let mut rows = results::read_results(&open(&row.path)?).map_err(failed)?;
                for row in &mut rows {
                    (row.session_id, row.user_id) = (ours.session_id, ours.user_id);
                    row.analysis_id = analysis_id.get();
                }
                let started = theirs.started_at_us;
                let strokes = results::write_strokes(self.paths, session_id, started, &strokes).map_err(failed)?;
                let row = results::write_results(self.paths, session_id, started, &rows).map_err(failed)?;
                (result.strokes_bytes, result.result_bytes) = (strokes.bytes as i64, row.bytes as i64);
            }
        }
        if here.is_some() {
            let frames =
                StoredFrames { path: &ours.frames_path, bytes: ours.frames_bytes, sha256: &ours.frames_sha256 };
            block_on(self.catalog.bring_back(session_id, &frames, ours.result.as_ref(), now_us))?;
            self.report.brought_back += 1;
        } else {
            block_on(self.catalog.finish_archived(&ours, now_us))?;
        }
        self.report.taken += 1;
        metrics::counter!("volant_migration_taken_sessions_total", "from" => "archive").increment(1);
        self.report.frames += ours.rows;
        Ok(())
    }

    fn place(&self, from: &UnpackedFile, to: TablePath, session: &ArchivedSession) -> Result<(), ArchiveError> {
        let session_id = session.session_id;
        let mut file = fs::File::open(&from.path).map_err(|source| ArchiveError::Unpack { session_id, source })?;
        crate::store::place(self.paths, to, &mut file, &from.sha256)
            .map(drop)
            .map_err(|source| ArchiveError::Store { session_id, source })
    }
}

/// The files of the session that is being read, outside the tables.
struct Unpacked {
    folder: std::path::PathBuf,
    files: Vec<UnpackedFile>,
}

struct UnpackedFile {
    of: TablePath,
    path: std::path::PathBuf,
    sha256: String,
}

impl Unpacked {
    fn new(paths: &Paths) -> Result<Self, ArchiveError> {
        // One import at a time has the folder: the write-ahead log's lock is held.
        let folder = paths.unpacked();
        let made = fs::remove_dir_all(&folder).or_else(absent_is_fine).and_then(|()| fs::create_dir_all(&folder));
        made.map_err(|source| ArchiveError::Unpack { session_id: 0, source })?;
        Ok(Self { folder, files: Vec::new() })
    }

    fn add(&mut self, of: TablePath, sha256: &str, content: &mut dyn Read) -> Result<(), ArchiveError> {
        let path = self.folder.join(format!("{}.parquet", of.table()));
        let failed = |source| ArchiveError::Unpack { session_id: of.session_id().get(), source };
        let mut file = fs::File::create(&path).map_err(failed)?;
        std::io::copy(content, &mut file).map_err(failed)?;
        self.files.push(UnpackedFile { of, path, sha256: sha256.to_owned() });
        Ok(())
    }

    fn file(&self, table: Table, session: &ArchivedSession) -> Result<&UnpackedFile, ArchiveError> {
        let wanted = SessionId(session.session_id);
        self.files
            .iter()
            .find(|file| file.of.table() == table && file.of.session_id() == wanted)
            .ok_or_else(|| contradiction(format!("no file of {table} for session {wanted}")))
    }

    fn clear(&mut self) {
        self.files.clear();
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // What cannot be deleted now is deleted by the next import.
        fs::remove_dir_all(&self.folder).ok();
    }
}

fn absent_is_fine(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
