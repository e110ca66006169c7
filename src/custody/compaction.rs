//! Packing the small files of past days, so that a season is hundreds of files and not tens of thousands.
//!
//! In: a data folder, its service running or not. Out: per day and table one file or a few ([`crate::store::pack`]). Nothing
//! that anybody reads changes: rows, sums and the catalog stay as they are. A session that is written again gets its own
//! file back first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use serde::Serialize;

use super::{Error, io_error};
use crate::clock::Clock;
use crate::store::paths::{Paths, Table};
use crate::store::seal;
use crate::store::swap::{self, Sizes};

/// Days from year 1 to year 9999.
const DAYS_OF_CALENDAR: u32 = 3_652_059;

/// What is packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Days whose sessions started so many days ago, by UTC date, or earlier.
    pub after_days: u32,
    /// Frames that are given up after so many days are not packed in the last two of them: they would be unpacked for it.
    pub frames_days: Option<u32>,
    /// Sizes of files and packs.
    pub sizes: Sizes,
    /// How long a statement may still read a file that was replaced.
    pub reading: Duration,
}

/// Files of a table and their bytes, before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableSize {
    /// Files before.
    pub files_before: usize,
    /// Files after.
    pub files_after: usize,
    /// Bytes before.
    pub bytes_before: u64,
    /// Bytes after.
    pub bytes_after: u64,
    /// Small files that were packed.
    pub packed_files: usize,
    /// Packs that were made of them.
    pub packs: usize,
}

/// What came of a compaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// By table, all days together.
    pub tables: BTreeMap<Table, TableSize>,
    /// Days that changed while they were being packed and stayed as they are: the next run takes them.
    pub changed_days: usize,
    /// True if it was cancelled before its end; what is packed stays packed.
    pub cancelled: bool,
    /// True if nothing was changed.
    pub dry_run: bool,
}

/// Packs the small files of past days; beside a running service too. `progress` hears of each day before it is looked at, how
/// many are done and of how many; `go_on` is asked before every pack.
///
/// # Errors
/// See [`Error`]; days before stay packed, the day that failed is as it was.
pub fn compact(
    paths: &Paths,
    packing: &Packing,
    clock: &Clock,
    dry_run: bool,
    go_on: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(usize, usize, &Path),
) -> Result<Compacted, Error> {
    let mut compacted = Compacted { dry_run, ..Compacted::default() };
    // Also between days: a first run over years must not need their room twice.
    let remove_replaced = || {
        let reading_us = i64::try_from(packing.reading.as_micros()).unwrap_or(i64::MAX);
        swap::remove_replaced(paths, Some(clock.now_us().saturating_sub(reading_us)))
    };
    if !dry_run {
        remove_replaced()?;
    }
    let today = Timestamp::from_microsecond(clock.now_us()).unwrap_or_default().to_zoned(TimeZone::UTC).date();
    let mut due = Vec::new();
    for table in Table::ALL {
        let size = compacted.tables.entry(table).or_default();
        (size.files_before, size.bytes_before) = size_of(&paths.table(table))?;
        for (date, folder) in days(&paths.table(table))? {
            if is_due(table, date, today, packing) {
                due.push((table, folder));
            }
        }
    }
    for (done, (table, folder)) in due.iter().enumerate() {
        if !go_on() {
            compacted.cancelled = true;
            break;
        }
        progress(done, due.len(), folder);
        let packed = match swap::pack_day(paths, *table, folder, &packing.sizes, dry_run, go_on) {
            // Written again, or given up, while it was packed.
            Err(error) if error.is_not_found() || matches!(error, seal::Error::Changed { .. }) => {
                compacted.changed_days += 1;
                continue;
            }
            packed => packed?,
        };
        let size = compacted.tables.entry(*table).or_default();
        size.packed_files += packed.files;
        size.packs += packed.packs;
        if !dry_run {
            count(*table, packed);
            remove_replaced()?;
        }
    }
    for (table, size) in &mut compacted.tables {
        (size.files_after, size.bytes_after) = if dry_run {
            (size.files_before - size.packed_files + size.packs, size.bytes_before)
        } else {
            size_of(&paths.table(*table))?
        };
        metrics::gauge!("volant_stored_files", "table" => table.as_str()).set(size.files_after as f64);
        metrics::gauge!("volant_stored_bytes", "table" => table.as_str()).set(size.bytes_after as f64);
    }
    compacted.cancelled |= !go_on();
    Ok(compacted)
}

fn count(table: Table, packed: swap::Packed) {
    let add = |name: &'static str, when: &'static str, value: u64| {
        metrics::counter!(name, "table" => table.as_str(), "when" => when).increment(value);
    };
    add("volant_compaction_files_total", "before", packed.files as u64);
    add("volant_compaction_files_total", "after", packed.packs as u64);
    add("volant_compaction_bytes_total", "before", packed.file_bytes);
    add("volant_compaction_bytes_total", "after", packed.pack_bytes);
}

fn is_due(table: Table, date: Date, today: Date, packing: &Packing) -> bool {
    // No date is further back: the calendar begins with year 1.
    let before = |days: u32| today.saturating_sub(i64::from(days.min(DAYS_OF_CALENDAR)).days());
    let goes_soon =
        packing.frames_days.is_some_and(|days| table == Table::Frames && date <= before(days.saturating_sub(2)));
    date <= before(packing.after_days) && !goes_soon
}

/// The days of a table, the earliest first.
fn days(table: &Path) -> Result<Vec<(Date, PathBuf)>, Error> {
    let mut days = Vec::new();
    for path in list(table)? {
        let name = path.file_name().and_then(|name| name.to_str()?.strip_prefix("date=")?.parse().ok());
        days.extend(name.map(|date| (date, path)));
    }
    days.sort();
    Ok(days)
}

/// Number and bytes of a table's Parquet files.
fn size_of(table: &Path) -> Result<(usize, u64), Error> {
    let (mut files, mut bytes) = (0, 0);
    for (_, folder) in days(table)? {
        for file in list(&folder)? {
            if file.extension().is_some_and(|ending| ending == "parquet") {
                // One that goes in between is not there any more.
                bytes += std::fs::metadata(&file).map_or(0, |about| about.len());
                files += 1;
            }
        }
    }
    Ok((files, bytes))
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let listing = match std::fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list", folder)(error)),
    };
    let paths = listing.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>();
    paths.map_err(io_error("list", folder))
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use schemas::{FrameColumns, SensorRole, SessionId};

    use super::*;
    use crate::store::paths::TablePath;

    const DAY_US: i64 = 24 * 3600 * 1_000_000;

    fn packing(after_days: u32, frames_days: Option<u32>) -> Packing {
        Packing { after_days, frames_days, sizes: Sizes::default(), reading: Duration::ZERO }
    }

    #[test]
    fn days_are_due_by_their_age_and_frames_that_go_soon_are_not() {
        let today = date(2026, 11, 26);
        let is = |table, day, frames_days| is_due(table, day, today, &packing(7, frames_days));
        assert!(is(Table::Frames, date(2026, 11, 19), None));
        assert!(!is(Table::Frames, date(2026, 11, 20), None));
        assert!(is(Table::Frames, date(2026, 11, 10), Some(19)));
        assert!(!is(Table::Frames, date(2026, 11, 10), Some(18)));
        assert!(is(Table::Strokes, date(2026, 11, 10), Some(18)), "strokes stay");
        assert!(!is_due(Table::Frames, date(1, 1, 2), today, &packing(u32::MAX, None)), "an age beyond all dates");
    }

    #[test]
    fn a_day_of_which_a_file_goes_meanwhile_is_packed_another_time() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let mut frames = FrameColumns::default();
        frames.push_decoded(4, SensorRole::Racket, None, [[1.0; 3]; 3]);
        for session in 1..=3 {
            seal::write_frames(&paths, SessionId(session), 0, 1, &frames, |_| None, &[]).unwrap();
        }
        // Asked before the day, and before its pack: then it knows its files.
        let asked = std::cell::Cell::new(0);
        let goes = || {
            asked.set(asked.get() + 1);
            asked.get() != 2 || swap::delete(&paths, TablePath::new(Table::Frames, SessionId(2), 0)).unwrap()
        };
        let clock = Clock::manual(50_000 * DAY_US);
        let packed = |go_on: &dyn Fn() -> bool| {
            let compacted = compact(&paths, &packing(7, None), &clock, false, go_on, &mut |_, _, _| {}).unwrap();
            (compacted.changed_days, compacted.tables[&Table::Frames].packed_files)
        };
        assert_eq!(packed(&goes), (1, 0));
        assert_eq!(packed(&|| true), (0, 2));
    }

    #[test]
    fn what_was_replaced_goes_between_days_once_nobody_can_be_reading_it() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let mut frames = FrameColumns::default();
        frames.push_decoded(4, SensorRole::Racket, None, [[1.0; 3]; 3]);
        for session in 1..=6 {
            let started_at_us = session / 3 * DAY_US;
            seal::write_frames(&paths, SessionId(session), started_at_us, 1, &frames, |_| None, &[]).unwrap();
        }
        let clock = Clock::manual(50_000 * DAY_US);
        let mut seen = Vec::new();
        let kept = || std::fs::read_dir(paths.swap()).map_or(0, Iterator::count);
        let compacted = compact(&paths, &packing(7, None), &clock, false, &|| true, &mut |done, total, _| {
            seen.push((done, total, kept()));
        });
        let frames = compacted.unwrap().tables[&Table::Frames];
        // The third day has one session, which stays alone.
        assert_eq!((frames.files_before, frames.files_after, frames.packed_files, frames.packs), (6, 3, 5, 2));
        assert_eq!(seen, [(0, 3, 0), (1, 3, 0), (2, 3, 0)]);
        // Within the time of a statement it stays.
        swap::undo_all(&paths, &|| true).unwrap();
        swap::remove_replaced(&paths, None).unwrap();
        let reading = Packing { reading: Duration::from_secs(u64::from(u32::MAX)), ..packing(7, None) };
        compact(&paths, &reading, &clock, false, &|| true, &mut |_, _, _| {}).unwrap();
        assert_eq!(kept(), 2);
        let cancelled = compact(&paths, &packing(7, None), &clock, false, &|| false, &mut |_, _, _| {}).unwrap();
        assert!(cancelled.cancelled);
    }
}
