//! Recording files and recording sets: CSV and Parquet, as `analyze`, `simulate`, `import`, `train` read them.
//!
//! In: a path. Out: one [`Recording`] a name, its samples per sensor in time order, accelerations in m/s², times in ns
//! since start.
//!
//! A **recording file** has the columns `t_ms` (ms from start, or since 1970), `ax`, `ay`, `az` (m/s², gravity included), `gx`, `gy`, `gz`
//! (°/s), and may have `sensor` (waist, shoulder, wrist, racket; without it every row is the wrist), `roll`, `pitch`, `yaw`
//! (°) and `recording` (several recordings in one file). Other columns are ignored; order and numeric types do not matter.
//! A **recording set** is a folder with `samples.parquet` (or `samples.csv`) and `labels.csv`
//! (`recording,player,start_ms,peak_ms,end_ms,stroke,quality`), or with the JSON files of the BadminSense data set
//! (`badminsense.rs`). Other layouts are read by a mapping (`mapping.rs`).
//!
//! A value that is null, empty or not finite is "not measured": NaN. A time that is missing is an error, because a sample
//! without a time cannot be placed. Rows out of time order are sorted, and counted in [`Recording::unsorted`].
//!
//! Limits: [`ROW_LIMIT`] rows a file, times within ±[`TIME_LIMIT_MS`]; beyond, an error. What is absent: resampling,
//! units other than these, any guess about what a file without the required columns means.

mod badminsense;
mod error;
mod labels;
mod mapping;
pub mod mat;
mod read;
#[cfg(test)]
mod tests;
mod write;

use schemas::{SensorRole, Track};

pub use self::error::Error;
pub use self::labels::{Label, RecordingSet, read_set, truth_labels, write_labels, write_truth};
pub use self::mapping::{Mapping, TsLayout, read_mapped, read_ts};
pub use self::read::{ROW_LIMIT, TIME_LIMIT_MS, read_recording, read_recording_up_to};
pub use self::write::{Samples, recording_as_parquet, write_recording};

/// The sensor that a file without a `sensor` column is taken to be.
pub const DEFAULT_SENSOR: SensorRole = SensorRole::Wrist;

/// The samples of one recording.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// From the `recording` column, or the file's name without its ending.
    pub name: String,
    /// Accelerations in m/s², times in ns since start.
    pub track: Track,
    /// Rows that stood after a later one of the same sensor in the file.
    pub unsorted: usize,
    /// When it began, µs since 1970 UTC, where the file says so.
    pub started_at_us: Option<i64>,
}
