//! Files of other layouts: CSV or Parquet with foreign columns, described by a mapping file; and `.ts` sets of the UEA archive.
//!
//! A **mapping file** is TOML:
//!
//! ```toml
//! sensor = "wrist"                     # or sensor_column = "position" with names, or numbers by [sensors]
//! recording_column = "trial"           # optional: several recordings in one file
//!
//! [time]
//! column = "timestamp"
//! unit = "s"                           # s, ms, us or ns, counted from the first row of a recording; or datetime, such as
//!                                      # 2026-11-30T10:00:00.125+08:00 (UTC where nothing says otherwise)
//!
//! [accel]                              # specific force, gravity included
//! columns = ["a_x", "a_y", "a_z"]
//! unit = "g"                           # g or m/s2
//!
//! [gyro]
//! columns = ["w_x", "w_y", "w_z"]
//! unit = "rad/s"                       # deg/s or rad/s
//!
//! [angle]                              # optional: roll, pitch, yaw
//! columns = ["roll", "pitch", "yaw"]
//! unit = "deg"                         # deg or rad
//!
//! [sensors]                            # optional: what the sensor column says of each place
//! "1" = "waist"
//! ```
//!
//! A **`.ts` file** has a case a line: dimensions apart by `:`, values apart by `,`, the class last. Each case becomes a
//! recording of one window, labelled; which dimension is what, and the rate, the caller says.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray as _, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use schemas::{SensorRole, Track};
use serde::Deserialize;

use super::read::{Numbers, ROW_LIMIT, TIME_LIMIT_MS, Table, since_1970_us, texts};
use super::{DEFAULT_SENSOR, Error, Label, Recording, RecordingSet};

/// Standard gravity, m/s².
const G: f64 = 9.80665;
/// The largest mapping file, bytes.
const MAPPING_LIMIT_BYTES: u64 = 1 << 20;
/// The largest `.ts` file, bytes.
const TS_LIMIT_BYTES: u64 = 1 << 30;

/// How a foreign file is read; see the module's text.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    sensor: Option<SensorName>,
    sensor_column: Option<String>,
    recording_column: Option<String>,
    time: TimeColumn,
    accel: Axes<AccelUnit>,
    gyro: Axes<GyroUnit>,
    angle: Option<Axes<AngleUnit>>,
    #[serde(default)]
    sensors: BTreeMap<String, SensorName>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeColumn {
    column: String,
    unit: TimeUnit,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Axes<U> {
    columns: [String; 3],
    unit: U,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SensorName {
    Waist,
    Shoulder,
    Wrist,
    Racket,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
enum TimeUnit {
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "us")]
    Microseconds,
    #[serde(rename = "ns")]
    Nanoseconds,
    #[serde(rename = "datetime")]
    DateTime,
}

/// Times of a batch.
enum Times {
    /// Numbers, and what makes ms of them.
    Numbers(Numbers, f64),
    /// Dates and times of day, and the texts that they were if they were texts.
    Instants(TimestampNanosecondArray, Option<StringArray>),
}

impl Times {
    fn of(batch: &RecordBatch, name: &str, unit: TimeUnit, path: &Path) -> Result<Self, Error> {
        let Some(factor) = unit.ms() else {
            let column = batch.column_by_name(name).ok_or_else(|| Error::Empty { path: path.to_owned() })?;
            let utc = DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, Some("+00:00".into()));
            let instants = cast(column, &utc).map_err(|_| Error::ColumnType {
                column: name.to_owned(),
                found: column.data_type().clone(),
                expected: "dates and times",
                path: path.to_owned(),
            })?;
            return Ok(Self::Instants(instants.as_primitive().clone(), column.as_string_opt().cloned()));
        };
        Ok(Self::Numbers(Numbers::of(batch, name, path)?, factor))
    }

    /// The time of a row, ms; NaN if there is none.
    fn get(&self, index: usize, at: impl Fn() -> (String, u64, PathBuf)) -> Result<f64, Error> {
        match self {
            Self::Numbers(numbers, factor) => Ok(numbers.get(index, at)? * factor),
            Self::Instants(instants, _) if instants.is_valid(index) => Ok(instants.value(index) as f64 / 1e6),
            Self::Instants(_, Some(texts)) if texts.is_valid(index) && !texts.value(index).trim().is_empty() => {
                let (column, row, path) = at();
                Err(Error::DateTime { text: texts.value(index).chars().take(40).collect(), column, row, path })
            }
            Self::Instants(..) => Ok(f64::NAN),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
enum AccelUnit {
    #[serde(rename = "g")]
    G,
    #[serde(rename = "m/s2")]
    MetresPerSecondSquared,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
enum GyroUnit {
    #[serde(rename = "deg/s")]
    DegreesPerSecond,
    #[serde(rename = "rad/s")]
    RadiansPerSecond,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
enum AngleUnit {
    #[serde(rename = "deg")]
    Degrees,
    #[serde(rename = "rad")]
    Radians,
}

impl SensorName {
    const fn role(self) -> SensorRole {
        match self {
            Self::Waist => SensorRole::Waist,
            Self::Shoulder => SensorRole::Shoulder,
            Self::Wrist => SensorRole::Wrist,
            Self::Racket => SensorRole::Racket,
        }
    }
}

impl TimeUnit {
    /// What makes ms of a number; `None` for what is none.
    const fn ms(self) -> Option<f64> {
        match self {
            Self::Seconds => Some(1e3),
            Self::Milliseconds => Some(1.0),
            Self::Microseconds => Some(1e-3),
            Self::Nanoseconds => Some(1e-6),
            Self::DateTime => None,
        }
    }
}

impl Mapping {
    /// Reads a mapping file.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Mapping`] with the place in the file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = read_text(path, MAPPING_LIMIT_BYTES)?;
        let mapping: Self =
            toml::from_str(&text).map_err(|error| wrong(path, error.to_string().trim_end().to_owned()))?;
        match (&mapping.sensor, &mapping.sensor_column) {
            (Some(_), Some(_)) => Err(wrong(path, "sensor and sensor_column exclude each other".to_owned())),
            (_, None) if !mapping.sensors.is_empty() => {
                Err(wrong(path, "sensors translates a sensor_column, and there is none".to_owned()))
            }
            _ => Ok(mapping),
        }
    }

    fn names(&self) -> Vec<String> {
        let angle = self.angle.iter().flat_map(|axes| axes.columns.clone());
        let mut names = vec![self.time.column.clone()];
        names.extend(self.accel.columns.clone());
        names.extend(self.gyro.columns.clone());
        names.extend(angle);
        names.extend(self.sensor_column.clone());
        names.extend(self.recording_column.clone());
        // As the table has them.
        names.iter().map(|name| name.trim().to_ascii_lowercase()).collect()
    }

    fn role(&self, name: &str) -> Option<SensorRole> {
        if let Some(sensor) = self.sensors.get(name) {
            return Some(sensor.role());
        }
        Some(SensorRole::from_name(&name.to_ascii_lowercase())).filter(|role| *role != SensorRole::Unknown)
    }

    /// What the values are multiplied with to be m/s², °/s and °.
    fn factors(&self) -> [f64; 3] {
        let accel = match self.accel.unit {
            AccelUnit::G => G,
            AccelUnit::MetresPerSecondSquared => 1.0,
        };
        let gyro = match self.gyro.unit {
            GyroUnit::DegreesPerSecond => 1.0,
            GyroUnit::RadiansPerSecond => 1f64.to_degrees(),
        };
        let angle = match self.angle.as_ref().map(|angle| angle.unit) {
            Some(AngleUnit::Radians) => 1f64.to_degrees(),
            _ => 1.0,
        };
        [accel, gyro, angle]
    }
}

/// Reads a foreign file.
///
/// # Errors
/// As [`super::read_recording`]; [`Error::Sensor`] for a sensor that neither the mapping nor we know.
pub fn read_mapped(path: &Path, mapping: &Mapping) -> Result<Vec<Recording>, Error> {
    let names = mapping.names();
    let table = Table::with_columns(path, &names)?;
    table.require(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    let lower = |name: &String| name.trim().to_ascii_lowercase();
    let default_name =
        path.file_stem().map_or_else(|| "recording".to_owned(), |stem| stem.to_string_lossy().into_owned());
    // By recording: the time of its first row, and its rows.
    let mut order = Vec::new();
    let mut found: HashMap<String, (f64, Vec<Row>)> = HashMap::new();
    let mut first_row = 0;
    for batch in table {
        let batch = batch.map_err(|source| Error::Rows { path: path.to_owned(), source })?;
        if first_row + batch.num_rows() as u64 > ROW_LIMIT {
            return Err(Error::TooLong { limit: ROW_LIMIT, path: path.to_owned() });
        }
        let column = |name: &Option<String>| match name {
            Some(name) => texts(&batch, &lower(name), path),
            None => Ok(None),
        };
        let (sensors, recordings) = (column(&mapping.sensor_column)?, column(&mapping.recording_column)?);
        let times = Times::of(&batch, &lower(&mapping.time.column), mapping.time.unit, path)?;
        let groups =
            [Some(&mapping.accel.columns), Some(&mapping.gyro.columns), mapping.angle.as_ref().map(|a| &a.columns)];
        let factors = mapping.factors();
        let mut values = Vec::with_capacity(9);
        for (group, factor) in groups.into_iter().zip(factors) {
            for axis in 0..3 {
                let numbers = match group {
                    Some(columns) => Numbers::of(&batch, &lower(&columns[axis]), path)?,
                    None => Numbers::Absent,
                };
                values.push((group.map(|columns| columns[axis].as_str()).unwrap_or_default(), numbers, factor));
            }
        }
        for index in 0..batch.num_rows() {
            let row = first_row + index as u64 + 1;
            let at = |column: &str| (column.to_owned(), row, path.to_owned());
            let time = times.get(index, || at(&mapping.time.column))?;
            let text = |column: &Option<arrow::array::StringArray>| {
                column
                    .as_ref()
                    .filter(|column| column.is_valid(index))
                    .map(|column| column.value(index).trim().to_owned())
            };
            let role = match (text(&sensors), mapping.sensor) {
                (Some(name), _) => {
                    mapping.role(&name).ok_or_else(|| Error::Sensor { name, row, path: path.to_owned() })?
                }
                (None, Some(sensor)) => sensor.role(),
                (None, None) => DEFAULT_SENSOR,
            };
            let name = text(&recordings).filter(|name| !name.is_empty()).unwrap_or_else(|| default_name.clone());
            let (start, rows) = found.entry(name).or_insert_with_key(|name| {
                order.push(name.clone());
                (time, Vec::new())
            });
            let t_ms = time - *start;
            if t_ms.is_nan() || t_ms.abs() > TIME_LIMIT_MS {
                let column = mapping.time.column.clone();
                return Err(Error::Time { value: t_ms, column, row, path: path.to_owned() });
            }
            let mut measured = [0f32; 9];
            for (to, (name, numbers, factor)) in measured.iter_mut().zip(&values) {
                *to = (numbers.get(index, || at(name))? * factor) as f32;
            }
            rows.push((role, t_ms, measured));
        }
        first_row += batch.num_rows() as u64;
    }
    if order.is_empty() {
        return Err(Error::Empty { path: path.to_owned() });
    }
    let recordings = order.into_iter().map(|name| {
        let (start, rows) = found.remove(&name).unwrap_or_default();
        recording(name, rows, since_1970_us(start))
    });
    Ok(recordings.collect())
}

/// Sensor, time in ms, and values in our units.
type Row = (SensorRole, f64, [f32; 9]);

fn recording(name: String, mut rows: Vec<Row>, started_at_us: Option<i64>) -> Recording {
    let mut latest = HashMap::new();
    let mut unsorted = 0;
    for (role, t_ms, _) in &rows {
        let latest = latest.entry(*role).or_insert(f64::NEG_INFINITY);
        unsorted += usize::from(t_ms < latest);
        *latest = latest.max(*t_ms);
    }
    rows.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut track = Track::default();
    for (role, t_ms, [ax, ay, az, gx, gy, gz, roll, pitch, yaw]) in rows {
        if let Some(samples) = track.get_or_insert(role) {
            samples.push((t_ms * 1e6).round() as i64, [ax, ay, az], [gx, gy, gz], [roll, pitch, yaw]);
        }
    }
    Recording { name, track, unsorted, started_at_us }
}

/// What the dimensions of a `.ts` file are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TsLayout {
    /// Samples a second.
    pub rate_hz: f64,
    /// Where the sensor was worn.
    pub sensor: SensorRole,
    /// Factor from the first three dimensions to m/s².
    pub accel_to_mps2: f64,
    /// Factor from the next three to °/s.
    pub gyro_to_dps: f64,
}

/// Reads a `.ts` set: the first three dimensions are specific force, the next three angular velocity. The player is unknown.
///
/// # Errors
/// [`Error::Read`]; [`Error::Mapping`] with the line of what cannot be read.
pub fn read_ts(path: &Path, layout: TsLayout) -> Result<RecordingSet, Error> {
    let text = read_text(path, TS_LIMIT_BYTES)?;
    let mut lines = text.lines().enumerate().skip_while(|(_, line)| !line.trim().eq_ignore_ascii_case("@data"));
    if lines.next().is_none() {
        return Err(wrong(path, "there is no line @data".to_owned()));
    }
    let stem = path.file_stem().map_or_else(|| "case".to_owned(), |stem| stem.to_string_lossy().into_owned());
    let mut set = RecordingSet::default();
    for (line, case) in lines.filter(|(_, case)| !case.trim().is_empty() && !case.starts_with(['#', '%'])) {
        let wrong_line = |what: &str| wrong(path, format!("line {}: {what}", line + 1));
        let mut fields: Vec<&str> = case.split(':').collect();
        let class = fields.pop().unwrap_or_default().trim();
        if fields.len() < 6 {
            return Err(wrong_line("fewer than six dimensions and a class"));
        }
        let mut dimensions = Vec::with_capacity(6);
        for field in &fields[..6] {
            let values = field.split(',').map(|value| match value.trim() {
                "?" | "NaN" => Ok(f64::NAN),
                value => value.parse::<f64>().map_err(|_| wrong_line(&format!("{value:?} is no number"))),
            });
            dimensions.push(values.collect::<Result<Vec<f64>, Error>>()?);
        }
        let length = dimensions[0].len();
        if dimensions.iter().any(|dimension| dimension.len() != length) {
            return Err(wrong_line("dimensions of different length"));
        }
        let mut track = Track::default();
        if let Some(samples) = track.get_or_insert(layout.sensor) {
            let at = |dimension: usize, row: usize| dimensions[dimension].get(row).copied().unwrap_or(f64::NAN);
            for row in 0..length {
                let t_ns = (row as f64 / layout.rate_hz * 1e9).round() as i64;
                let axes = |first: usize, factor: f64| [0, 1, 2].map(|axis| (at(first + axis, row) * factor) as f32);
                samples.push(t_ns, axes(0, layout.accel_to_mps2), axes(3, layout.gyro_to_dps), [f32::NAN; 3]);
            }
        }
        let name = format!("{stem}-{}", set.recordings.len());
        let end_ms = length as f64 / layout.rate_hz * 1e3;
        set.labels.push(Label {
            recording: name.clone(),
            player: "unknown".to_owned(),
            start_ms: 0.0,
            peak_ms: end_ms / 2.0,
            end_ms,
            stroke: class.to_ascii_lowercase(),
            quality: "window".to_owned(),
        });
        set.recordings.push(Recording { name, track, ..Recording::default() });
    }
    if set.recordings.is_empty() {
        return Err(Error::Empty { path: path.to_owned() });
    }
    Ok(set)
}

fn read_text(path: &Path, limit_bytes: u64) -> Result<String, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(read)?.len();
    if bytes > limit_bytes {
        return Err(wrong(path, format!("{bytes} bytes, {limit_bytes} are read")));
    }
    fs::read_to_string(path).map_err(read)
}

fn wrong(path: &Path, what: String) -> Error {
    Error::Mapping { what, path: path.to_owned() }
}
