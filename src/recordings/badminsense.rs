//! The layout of the BadminSense data set (BADS_CLL): JSON of a watch's sensors, ten strokes a file.
//!
//! A file is an array of strokes, a folder a set: files in it, or one folder below, where each section of the data set has its
//! own. Of a stroke three members are read, in lower case or with a capital:
//!
//! - `info`: `recordName` (`Gender_Exp_StrokeType_PlayerCode_Section_Device`), `startTimestamp` and `endTimestamp`, ms since
//!   1970 UTC;
//! - `label`: `actionType`;
//! - `data`, null for a stroke that was thrown out: `ACCELEROMETER` with `timestamp` (ms), `Gx`, `Gy`, `Gz` (m/s², gravity
//!   included, as Android gives it), `GYROSCOPE` with `timestamp`, `angularSpeedX`, `angularSpeedY`, `angularSpeedZ` (rad/s).
//!
//! A section becomes one recording of the wrist, its strokes at their own times. The gyroscope has a clock of its own: its
//! values are interpolated at the accelerometer's times, over gaps of at most [`GAP_LIMIT_MS`]. Each stroke is a label that
//! counts, its peak in the middle of its window, where the authors put the hit; the player is the code in the record's name.
//!
//! Absent: sound, magnetometer, rotation vector, the experts' rating, the place of impact.
//!
//! Source of the layout: the README of the data set (`taizhouchen/BadminSense_Dataset`, 2026) and programs that read it; the
//! data are CC BY-NC-ND 4.0 and none are here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use schemas::{SensorRole, Track};
use serde::Deserialize;

use super::read::{ROW_LIMIT, TIME_LIMIT_MS};
use super::{Error, Label, Recording, RecordingSet};

/// The largest file, bytes: ten strokes with their sound are three megabytes.
const FILE_LIMIT_BYTES: u64 = 1 << 30;
/// The longest gap over which angular velocity is interpolated, ms: five samples of 100 Hz.
const GAP_LIMIT_MS: f64 = 50.0;
/// Times of a stroke further than this from its own start are of another clock, ms: they count from its first sample then.
const SAME_CLOCK_MS: f64 = 3_600_000.0;

#[derive(Deserialize)]
struct Stroke {
    #[serde(alias = "Info")]
    info: Info,
    #[serde(alias = "Label")]
    label: StrokeLabel,
    #[serde(alias = "Data")]
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    record_name: String,
    start_timestamp: f64,
    end_timestamp: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StrokeLabel {
    action_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct Data {
    accelerometer: Series,
    gyroscope: Option<Series>,
}

/// Times and three axes of a sensor.
#[derive(Deserialize)]
struct Series {
    timestamp: Vec<f64>,
    #[serde(alias = "Gx", alias = "angularSpeedX")]
    x: Vec<Option<f64>>,
    #[serde(alias = "Gy", alias = "angularSpeedY")]
    y: Vec<Option<f64>>,
    #[serde(alias = "Gz", alias = "angularSpeedZ")]
    z: Vec<Option<f64>>,
}

impl Series {
    /// The samples in the order of time; `None` if the arrays differ in length or a time is no number.
    fn samples(&self) -> Option<Vec<(f64, [f64; 3])>> {
        let Self { timestamp, x, y, z } = self;
        if [x.len(), y.len(), z.len()].iter().any(|&length| length != timestamp.len()) {
            return None;
        }
        let value = |axis: &[Option<f64>], row: usize| axis.get(row).copied().flatten().unwrap_or(f64::NAN);
        let mut samples: Vec<_> = timestamp
            .iter()
            .enumerate()
            .map(|(row, &time)| (time, [value(x, row), value(y, row), value(z, row)]))
            .collect();
        samples.sort_by(|a, b| a.0.total_cmp(&b.0));
        samples.iter().all(|(time, _)| time.is_finite()).then_some(samples)
    }
}

/// Linear between the neighbours; not a number outside, and where they are too far apart.
fn at(samples: &[(f64, [f64; 3])], time: f64) -> [f64; 3] {
    let after = samples.partition_point(|(t, _)| *t < time);
    match (after.checked_sub(1).and_then(|before| samples.get(before)), samples.get(after)) {
        (_, Some((t, values))) if t.total_cmp(&time).is_eq() => *values,
        (Some((t0, v0)), Some((t1, v1))) if t1 - t0 <= GAP_LIMIT_MS => {
            let share = (time - t0) / (t1 - t0);
            [0, 1, 2].map(|axis| v0[axis] + share * (v1[axis] - v0[axis]))
        }
        _ => [f64::NAN; 3],
    }
}

/// The files of the layout at a path; empty if it is none.
pub(super) fn files_at(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let is_json = |path: &PathBuf| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
    if !path.is_dir() {
        return Ok([path.to_owned()].into_iter().filter(is_json).collect());
    }
    let mut files = Vec::new();
    for entry in entries(path)? {
        if entry.is_dir() {
            files.extend(entries(&entry)?.into_iter().filter(is_json));
        } else if is_json(&entry) {
            files.push(entry);
        }
    }
    Ok(files)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = |source| Error::Read { path: folder.to_owned(), source };
    let entries = fs::read_dir(folder).map_err(read)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>().map_err(read)?;
    paths.sort();
    Ok(paths)
}

/// A stroke in its place.
struct Placed {
    index: usize,
    start_ms: f64,
    end_ms: f64,
    action: String,
    samples: Vec<(f64, [f64; 3], [f64; 3])>,
}

/// Reads files of the layout as one set.
pub(super) fn read(files: &[PathBuf]) -> Result<RecordingSet, Error> {
    let mut set = RecordingSet::default();
    for path in files {
        let mut sections: BTreeMap<String, Vec<Placed>> = BTreeMap::new();
        for (index, stroke) in strokes_of(path)?.into_iter().enumerate() {
            if let Some(placed) = placed(path, index, &stroke)? {
                sections.entry(stroke.info.record_name).or_default().push(placed);
            }
        }
        for (name, strokes) in sections {
            let taken = set.recordings.iter().any(|recording| recording.name == name);
            if taken {
                return Err(wrong(path, format!("a second file of the record {name}")));
            }
            add_section(&mut set, path, name, strokes)?;
        }
    }
    Ok(set)
}

fn strokes_of(path: &Path) -> Result<Vec<Stroke>, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(read)?.len();
    if bytes > FILE_LIMIT_BYTES {
        return Err(wrong(path, format!("{bytes} bytes, {FILE_LIMIT_BYTES} are read")));
    }
    let text = fs::read(path).map_err(read)?;
    let is_one = text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let strokes =
        if is_one { serde_json::from_slice(&text).map(|stroke| vec![stroke]) } else { serde_json::from_slice(&text) };
    strokes.map_err(|error| wrong(path, format!("as strokes of BadminSense: {error}")))
}

fn placed(path: &Path, index: usize, stroke: &Stroke) -> Result<Option<Placed>, Error> {
    let Some(data) = &stroke.data else { return Ok(None) };
    let uneven = |sensor: &str| {
        wrong(path, format!("stroke {index}: {sensor} has arrays of different length or a time that is no number"))
    };
    let accel = data.accelerometer.samples().ok_or_else(|| uneven("ACCELEROMETER"))?;
    let gyro = match &data.gyroscope {
        Some(series) => series.samples().ok_or_else(|| uneven("GYROSCOPE"))?,
        None => Vec::new(),
    };
    let (Some((first, _)), Some((last, _))) = (accel.first(), accel.last()) else { return Ok(None) };
    let start = stroke.info.start_timestamp;
    if !start.is_finite() {
        return Err(wrong(path, format!("stroke {index}: startTimestamp is no number")));
    }
    let shift_ms = if (first - start).abs() > SAME_CLOCK_MS { start - first } else { 0.0 };
    let samples = accel.iter().map(|&(time, acc)| (time + shift_ms, acc, at(&gyro, time).map(f64::to_degrees)));
    let end = stroke.info.end_timestamp.filter(|end| end.is_finite() && *end > start).unwrap_or(last + shift_ms);
    Ok(Some(Placed {
        index,
        start_ms: start,
        end_ms: end,
        action: stroke.label.action_type.clone(),
        samples: samples.collect(),
    }))
}

fn add_section(set: &mut RecordingSet, path: &Path, name: String, mut strokes: Vec<Placed>) -> Result<(), Error> {
    strokes.sort_by(|a, b| a.start_ms.total_cmp(&b.start_ms));
    let first = strokes
        .iter()
        .filter_map(|stroke| stroke.samples.first())
        .map(|(time, ..)| *time)
        .fold(f64::INFINITY, f64::min);
    let mut parts = name.split('_').skip(3);
    let player = parts.next().filter(|player| !player.is_empty()).unwrap_or("unknown").to_owned();
    let mut track = Track::default();
    let mut rows = 0;
    let mut unsorted = 0;
    for stroke in &strokes {
        let Some(samples) = track.get_or_insert(SensorRole::Wrist) else { continue };
        for (time, acc, gyro) in &stroke.samples {
            let t_ms = time - first;
            if !(0.0..=TIME_LIMIT_MS).contains(&t_ms) {
                let column = "timestamp".to_owned();
                return Err(Error::Time { value: t_ms, column, row: stroke.index as u64 + 1, path: path.to_owned() });
            }
            let t_ns = (t_ms * 1e6).round() as i64;
            // Windows of two strokes may overlap: what both have is taken once.
            if samples.t_ns.last().is_some_and(|&latest| t_ns <= latest) {
                unsorted += 1;
                continue;
            }
            samples.push(t_ns, acc.map(|value| value as f32), gyro.map(|value| value as f32), [f32::NAN; 3]);
            rows += 1;
        }
        if rows > ROW_LIMIT {
            return Err(Error::TooLong { limit: ROW_LIMIT, path: path.to_owned() });
        }
        let (start_ms, end_ms) = (stroke.start_ms - first, stroke.end_ms - first);
        set.labels.push(Label {
            recording: name.clone(),
            player: player.clone(),
            start_ms,
            peak_ms: f64::midpoint(start_ms, end_ms),
            end_ms,
            stroke: class(&stroke.action),
            quality: "clear".to_owned(),
        });
    }
    let started_at_us = (first * 1e3).round() as i64;
    set.recordings.push(Recording { name, track, unsorted, started_at_us: Some(started_at_us) });
    Ok(())
}

/// The authors' names in the field's words (their paper: backhand overhead clear, forehand overhead clear, drop, smash).
fn class(action: &str) -> String {
    match action {
        "ForehandHigh" => "clear",
        "ForehandLob" => "drop",
        "ForehandKill" => "smash",
        "BackhandTransition" => "backhand_clear",
        other => return other.to_ascii_lowercase(),
    }
    .to_owned()
}

fn wrong(path: &Path, what: String) -> Error {
    Error::Mapping { what, path: path.to_owned() }
}
