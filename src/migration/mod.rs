//! What the replaced system's database holds, brought into a data folder.
//!
//! In: the SQLite file of the Django service, opened for reading only, in short reads, so that its owner can go on
//! writing. Out: users, bindings, groups and sessions in the catalog, sealed frames, the old figures marked as such, jobs
//! for analyses of our own, and a [`Report`] of what was taken and what not, with reasons.
//!
//! Invariants: nothing is doubled, whenever the import was killed and however often it is run (each row that is taken is
//! noted in the commit that takes it, a file is named before it is written); nothing is dropped without a reason that is
//! counted; one session is in memory at a time; nobody is notified. Absent: pictures, passwords, the framework's own tables.

mod archive;
mod beside;
mod figures;
mod frames;
mod recordings;
mod run;
mod source;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemas::SessionId;
use serde::Serialize;

pub use archive::{ArchiveError, ArchiveReport, import as import_archive};
pub use beside::{Brought, BroughtError, Importer};
pub use recordings::{Begins, NewRecording, TakenRecording, import_recording};
pub use run::import;

use crate::store::{catalog, seal};

/// What and how much.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database of the Django service.
    pub sqlite: PathBuf,
    /// Numbers above the newest of the source that stay free for what it makes while both systems run.
    pub reserve: i64,
    /// Frames of one session that are taken at most; they are in memory together, some 150 bytes each.
    pub frames_limit: usize,
}

/// Why a row was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The same row is there already under another id.
    Duplicate,
    /// An openid that no client can send: empty, too long or with invisible characters.
    BadOpenid,
    /// Its user was not taken.
    UserNotTaken,
    /// Not 1 to 64 characters out of letters, digits, `_`, `.` and `-`.
    BadDeviceCode,
    /// Its session was not taken.
    SessionNotTaken,
    /// A status that the old system does not know.
    BadStatus,
    /// A time that cannot be read.
    BadTime,
    /// Data that is no JSON object.
    BadJson,
    /// No acceleration, or angular velocity or angles that are not three numbers.
    BadValues,
    /// More frames than a session may have.
    OverLimit,
    /// Figures that are not as the old system writes them.
    BadFigures,
    /// Of a person who was erased here.
    Erased,
}

impl Reason {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "the same is there already",
            Self::BadOpenid => "an openid that no client can send",
            Self::UserNotTaken => "its user was not taken",
            Self::BadDeviceCode => "no device code",
            Self::SessionNotTaken => "its session was not taken",
            Self::BadStatus => "an unknown status",
            Self::BadTime => "a time that cannot be read",
            Self::BadJson => "data that is no JSON",
            Self::BadValues => "not three numbers each",
            Self::OverLimit => "more frames than --frames-limit",
            Self::BadFigures => "figures that cannot be read",
            Self::Erased => "of a person who was erased here",
        }
    }
}

/// What was taken with a remark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// Frames stored as wrist without their sensor's number: some may be of the racket, nothing tells.
    WristOrRacket,
    /// Frames stored as wrist whose number says racket: taken as racket.
    RacketRestored,
    /// Frames without a session, kept as a collection of their device and day.
    FramesWithoutSession,
    /// Sessions that were never ended.
    LeftOpen,
    /// Results with constants of the old system in place of measurements.
    ConstantsAsResults,
    /// Sessions of a user that was not taken, kept without an owner.
    WithoutOwner,
    /// People whose framework number means somebody else in this folder.
    NumberTaken,
    /// Sessions whose group code can be no device code.
    DeviceGuessed,
}

impl Note {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WristOrRacket => "frames of the wrist, or of the racket: the old system stored both as wrist",
            Self::RacketRestored => "frames stored as wrist that are of the racket, by their number",
            Self::FramesWithoutSession => "frames without a session, kept as collections",
            Self::LeftOpen => "sessions that were never ended",
            Self::ConstantsAsResults => "results with constants in place of measurements",
            Self::WithoutOwner => "sessions whose user was not taken",
            Self::NumberTaken => "people whose old number means somebody else here",
            Self::DeviceGuessed => "sessions whose group is no device code",
        }
    }
}

/// How it went with one kind of row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Rows of the source.
    pub found: u64,
    pub taken: u64,
    /// Taken, or looked at and left out, by an earlier run.
    pub already: u64,
    pub left_out: BTreeMap<Reason, u64>,
}

impl Tally {
    fn leave_out(&mut self, reason: Reason) {
        *self.left_out.entry(reason).or_default() += 1;
    }
}

/// A session that has another number here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Renumbered {
    pub old: i64,
    pub new: SessionId,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Nothing was written; what an earlier run took is not told apart.
    pub dry_run: bool,
    /// The source, the same for every copy of one database.
    pub source: String,
    pub users: Tally,
    pub bindings: Tally,
    pub groups: Tally,
    pub sessions: Tally,
    pub frames: Tally,
    pub results: Tally,
    pub form_entries: Tally,
    /// Collections made of frames without a session.
    pub collections: u64,
    pub notes: BTreeMap<Note, u64>,
    /// Sessions whose old number was taken here.
    pub renumbered: Vec<Renumbered>,
}

impl Report {
    /// Each kind of row with its name.
    #[must_use]
    pub fn tallies(&self) -> [(&'static str, &Tally); 7] {
        [
            ("users", &self.users),
            ("bindings", &self.bindings),
            ("groups", &self.groups),
            ("sessions", &self.sessions),
            ("frames", &self.frames),
            ("results", &self.results),
            ("form entries", &self.form_entries),
        ]
    }

    /// True if every row was taken, now or before; a duplicate is no loss, nor is who was to be forgotten.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let is_no_loss = |reason: &Reason| matches!(reason, Reason::Duplicate | Reason::Erased);
        self.tallies().iter().all(|(_, tally)| tally.left_out.keys().all(is_no_loss))
    }

    fn note(&mut self, note: Note, count: u64) {
        if count > 0 {
            *self.notes.entry(note).or_default() += count;
        }
    }
}

/// How far an import is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Frames looked at.
    pub frames: u64,
    /// Frames of the source.
    pub frames_total: u64,
    pub sessions: u64,
}

/// Why an import stopped. What was taken before stays; the next run goes on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open {} as a SQLite database", path.display())]
    Open { path: PathBuf, source: sqlx::Error },
    #[error("find table {table} in {}: it is no database of the Django service, or one before its migration 0004", path.display())]
    NotDjango { table: &'static str, path: PathBuf },
    #[error("read {what} of the source")]
    Read { what: &'static str, source: sqlx::Error },
    #[error("use the catalog for an import")]
    Catalog(#[from] catalog::Error),
    #[error("store the frames of session {session_id}")]
    Frames { session_id: SessionId, source: seal::Error },
    #[error("store the result of session {session_id}")]
    Result { session_id: SessionId, source: seal::Error },
    #[error("encode the result of session {session_id}")]
    Encode { session_id: SessionId, source: serde_json::Error },
}
