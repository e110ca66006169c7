//! Typed paths of everything below the data folder.
//!
//! ```text
//! <data folder>/
//!   catalog.sqlite                                  the catalog
//!   wal/                                            the write-ahead log
//!   frames/date=2026-11-23/42.parquet               frames of session 42, which started on that day (UTC)
//!   strokes/date=2026-11-23/42.parquet              its strokes
//!   results/date=2026-11-23/42.parquet              its result
//!   frames/date=2026-11-23/_42.parquet.0.tmp        a file being written; nobody reads it
//!   frames/date=2026-10-05/7-19-12.parquet          a pack: twelve sessions of a past day, from 7 to 19
//!   _swap/                                          what a compaction makes ready, and what it replaced
//!   _incoming/                                      files that are being brought to the service
//!   _unpacked/                                      files of a session that is being taken out of an archive
//!   _reserve                                        nothing, in real blocks: room for the day when the disk is full
//! ```
//!
//! The folders are Hive partitions, so that other engines read a table by its folder. They pass over names that begin
//! with `_`. Nobody builds such a path by hand: [`TablePath`] is made one way and read back by [`TablePath::from_str`].

#![deny(clippy::indexing_slicing)]

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemas::SessionId;
use serde::{Deserialize, Serialize};

/// The data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// The paths below `data_dir`, which need not exist.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { root: data_dir.into() }
    }

    /// The data folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the write-ahead log.
    #[must_use]
    pub fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    /// The embedded catalog.
    #[must_use]
    pub fn catalog(&self) -> PathBuf {
        self.root.join("catalog.sqlite")
    }

    /// The folder of archives on their way to an object store. What lies there is of no other use.
    #[must_use]
    pub fn outgoing(&self) -> PathBuf {
        self.root.join("outgoing")
    }

    /// The folder of files that are being brought to the service. What lies there is of no other use.
    #[must_use]
    pub fn incoming(&self) -> PathBuf {
        self.root.join("_incoming")
    }

    /// The folder of a session's files on their way out of an archive. What lies there is of no other use.
    #[must_use]
    pub fn unpacked(&self) -> PathBuf {
        self.root.join("_unpacked")
    }

    /// The file that holds room and nothing else.
    #[must_use]
    pub fn reserve(&self) -> PathBuf {
        self.root.join("_reserve")
    }

    /// The folder of a table.
    #[must_use]
    pub fn table(&self, table: Table) -> PathBuf {
        self.root.join(table.as_str())
    }

    /// The folder of what a compaction makes ready, and of what it replaced until no statement can be reading it.
    #[must_use]
    pub fn swap(&self) -> PathBuf {
        self.root.join("_swap")
    }

    /// Where the file of a session is, unless it lies in a pack.
    #[must_use]
    pub fn file(&self, path: TablePath) -> PathBuf {
        self.folder(path).join(path.file_name())
    }

    /// The folder of a session's file: its table's partition.
    #[must_use]
    pub fn folder(&self, path: TablePath) -> PathBuf {
        self.table(path.table).join(path.date_folder())
    }
}

/// A table that is stored as Parquet, one file a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// One row a sensor sample.
    Frames,
    /// One row a swing.
    Strokes,
    /// One row a session.
    Results,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 3] = [Self::Frames, Self::Strokes, Self::Results];

    /// The name of the table and of its folder.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Strokes => "strokes",
            Self::Results => "results",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A Parquet file of one session, relative to the data folder. As text: `frames/date=2026-11-23/42.parquet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TablePath {
    table: Table,
    date: Date,
    session_id: SessionId,
}

impl TablePath {
    /// The file of a session that started at `started_at_us` (µs since 1970 UTC). Its date is the UTC date of the start;
    /// a time outside the years 1 to 9999 counts as the nearest inside.
    #[must_use]
    pub fn new(table: Table, session_id: SessionId, started_at_us: i64) -> Self {
        let nearest = if started_at_us < 0 { Timestamp::MIN } else { Timestamp::MAX };
        let started_at = Timestamp::from_microsecond(started_at_us).unwrap_or(nearest);
        let date = started_at.to_zoned(TimeZone::UTC).date().max(Date::constant(1, 1, 1));
        Self { table, date, session_id }
    }

    /// The table it belongs to.
    #[must_use]
    pub const fn table(self) -> Table {
        self.table
    }

    /// The UTC date on which the session started: the value of the partition column.
    #[must_use]
    pub const fn date(self) -> Date {
        self.date
    }

    /// The session it holds.
    #[must_use]
    pub const fn session_id(self) -> SessionId {
        self.session_id
    }

    pub(super) fn date_folder(self) -> String {
        format!("date={}", self.date)
    }

    pub(super) fn file_name(self) -> String {
        format!("{}.parquet", self.session_id)
    }
}

impl fmt::Display for TablePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/date={}/{}.parquet", self.table, self.date, self.session_id)
    }
}

/// The text is not the path of a session's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the path of a stored table's file")]
pub struct NotATablePath;

impl FromStr for TablePath {
    type Err = NotATablePath;

    /// Reads exactly what [`TablePath`] prints.
    fn from_str(text: &str) -> Result<Self, NotATablePath> {
        let parse = || {
            let (table, rest) = text.split_once('/')?;
            let (date, file) = rest.split_once('/')?;
            Some(Self {
                table: Table::ALL.into_iter().find(|known| known.as_str() == table)?,
                date: date.strip_prefix("date=")?.parse().ok()?,
                session_id: file.strip_suffix(".parquet")?.parse().ok()?,
            })
        };
        // A date can be spelled in several ways, a path only in one.
        parse().filter(|path| path.to_string() == text).ok_or(NotATablePath)
    }
}

impl From<TablePath> for String {
    fn from(path: TablePath) -> Self {
        path.to_string()
    }
}

impl TryFrom<String> for TablePath {
    type Error = NotATablePath;

    fn try_from(text: String) -> Result<Self, NotATablePath> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_date_is_the_utc_date_of_the_start() {
        let at = |us| TablePath::new(Table::Frames, SessionId(42), us).to_string();
        assert_eq!(at(1_795_391_999_999_999), "frames/date=2026-11-22/42.parquet");
        assert_eq!(at(1_795_392_000_000_000), "frames/date=2026-11-23/42.parquet");
        assert_eq!(at(-1), "frames/date=1969-12-31/42.parquet");
        assert_eq!(at(i64::MIN), "frames/date=0001-01-01/42.parquet");
        assert_eq!(at(i64::MAX), "frames/date=9999-12-30/42.parquet");
        let paths = Paths::new("data");
        let path = TablePath::new(Table::Strokes, SessionId(7), 0);
        assert_eq!(paths.file(path), Path::new("data/strokes/date=1970-01-01/7.parquet"));
    }

    #[test]
    fn only_what_is_printed_is_read() {
        for bad in [
            "",
            "frames",
            "frames/date=2026-11-23",
            "frames/date=2026-11-23/042.parquet",
            "frames/date=2026-11-23/42.parquet/x",
            "frames/date=20261123/42.parquet",
            "frames/2026-11-23/42.parquet",
            "frames/date=2026-11-31/42.parquet",
            "frames/date=2026-11-23/_42.parquet.0.tmp",
            "frames/date=2026-11-23/-42.parquet",
            "../frames/date=2026-11-23/42.parquet",
            "Frames/date=2026-11-23/42.parquet",
        ] {
            assert_eq!(bad.parse::<TablePath>(), Err(NotATablePath), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_path_is_read_back(table in 0usize..3, session in 1i64.., started_at_us in any::<i64>()) {
            let path = TablePath::new(Table::ALL[table], SessionId(session), started_at_us);
            prop_assert_eq!(path.to_string().parse(), Ok(path));
            let json = serde_json::to_string(&path).unwrap();
            prop_assert_eq!(serde_json::from_str::<TablePath>(&json).unwrap(), path);
        }
    }
}
