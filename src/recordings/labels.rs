use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use arrow::array::Array;
use pipelines::synth::Truth;
use tracing::warn;

use super::read::{Numbers, Table, is_own, since_1970_us, texts};
use super::{Error, Recording, badminsense, read_recording};

const LABEL_COLUMNS: [&str; 7] = ["recording", "player", "start_ms", "peak_ms", "end_ms", "stroke", "quality"];

/// What a person, or the generator, says was played. Times are ms from the start of the recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// Name of the recording.
    pub recording: String,
    /// Who played.
    pub player: String,
    /// The swing begins; NaN if that is not known.
    pub start_ms: f64,
    /// Its peak or impact.
    pub peak_ms: f64,
    /// The swing ends; NaN if that is not known.
    pub end_ms: f64,
    /// Class name, of whatever vocabulary the set has.
    pub stroke: String,
    /// `clear`, `clean`, `soft`: counts. `ambiguous`, `cut`, `unclear`: neither a swing nor a false alarm. `window`: the
    /// whole recording is one example.
    pub quality: String,
}

impl Label {
    /// True if a detector has to find it.
    #[must_use]
    pub fn counts(&self) -> bool {
        matches!(&*self.quality, "clear" | "clean" | "soft")
    }

    /// True if the whole recording is one example.
    #[must_use]
    pub fn is_window(&self) -> bool {
        self.quality == "window"
    }
}

/// A folder of recordings with their labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordingSet {
    /// In the order of the samples file.
    pub recordings: Vec<Recording>,
    /// In the order of the labels file; each names one of the recordings. A recording may have none.
    pub labels: Vec<Label>,
}

/// Reads a recording set: a folder of our layout, or a folder or file of BadminSense's.
///
/// # Errors
/// As [`read_recording`]; also a label whose recording the samples do not have.
pub fn read_set(folder: &Path) -> Result<RecordingSet, Error> {
    if !is_own(folder) {
        let foreign = badminsense::files_at(folder)?;
        if !foreign.is_empty() {
            return badminsense::read(&foreign);
        }
    }
    let recordings = read_recording(folder)?;
    let path = folder.join("labels.csv");
    let table = Table::open(&path)?;
    table.require(&LABEL_COLUMNS)?;
    let known: HashSet<&str> = recordings.iter().map(|recording| &*recording.name).collect();
    let began_ms: HashMap<&str, f64> = recordings
        .iter()
        .filter_map(|recording| Some((&*recording.name, recording.started_at_us? as f64 / 1e3)))
        .collect();
    let mut labels = Vec::new();
    let mut first_row = 0;
    for batch in table {
        let batch = batch.map_err(|source| Error::Rows { path: path.clone(), source })?;
        let mut columns = Vec::with_capacity(4);
        for name in ["recording", "player", "stroke", "quality"] {
            columns.push(texts(&batch, name, &path)?);
        }
        let mut times = Vec::with_capacity(3);
        for name in ["start_ms", "peak_ms", "end_ms"] {
            times.push((name, Numbers::of(&batch, name, &path)?));
        }
        for index in 0..batch.num_rows() {
            let row = first_row + index as u64 + 1;
            let mut fields = columns.iter().map(|column| {
                let valid = column.as_ref().filter(|column| column.is_valid(index));
                valid.map(|column| column.value(index).trim().to_owned()).unwrap_or_default()
            });
            let mut text = || fields.next().unwrap_or_default();
            let (recording, player, stroke, quality) = (text(), text(), text(), text());
            let mut ms = [0.0; 3];
            for (ms, (column, numbers)) in ms.iter_mut().zip(&times) {
                *ms = numbers.get(index, || ((*column).to_owned(), row, path.clone()))?;
                // Whoever labels by ear or by eye knows when it was hit, not where a swing begins.
                if ms.is_nan() && *column == "peak_ms" {
                    return Err(Error::Time { value: *ms, column: (*column).to_owned(), row, path });
                }
            }
            if !known.contains(&*recording) {
                return Err(Error::LabelRecording { name: recording, row, path });
            }
            // As the samples' times may be.
            let began_ms = began_ms.get(&*recording).copied().filter(|_| since_1970_us(ms[1]).is_some()).unwrap_or(0.0);
            let [start_ms, peak_ms, end_ms] = ms.map(|ms| ms - began_ms);
            labels.push(Label { recording, player, start_ms, peak_ms, end_ms, stroke, quality });
        }
        first_row += batch.num_rows() as u64;
    }
    for remark in look_over(&recordings, &mut labels) {
        warn!("{}: {remark}", path.display());
    }
    Ok(RecordingSet { recordings, labels })
}

/// Says what cannot be meant, and takes out what would be counted wrongly: a person wrote these by hand.
pub(super) fn look_over(recordings: &[Recording], labels: &mut Vec<Label>) -> Vec<String> {
    let ends: HashMap<&str, f64> = recordings
        .iter()
        .map(|recording| {
            let last = recording.track.iter().filter_map(|(_, samples)| samples.t_ns.last().copied()).max();
            (&*recording.name, last.unwrap_or(0) as f64 / 1e6)
        })
        .collect();
    let (mut backwards, mut repeated, mut outside) = (0, 0, 0);
    let mut qualities = BTreeSet::new();
    let mut seen = HashSet::new();
    labels.retain_mut(|label| {
        if !label.counts() && !label.is_window() && !["ambiguous", "cut", "unclear"].contains(&&*label.quality) {
            qualities.insert(label.quality.clone());
        }
        let begins = if label.start_ms.is_nan() { label.peak_ms } else { label.start_ms };
        outside += usize::from(ends.get(&*label.recording).is_some_and(|end| begins > *end));
        if label.end_ms < label.start_ms {
            backwards += 1;
            (label.start_ms, label.end_ms) = (f64::NAN, f64::NAN);
        }
        let times = [label.start_ms, label.peak_ms, label.end_ms].map(f64::to_bits);
        let is_new = seen.insert((label.recording.clone(), label.stroke.clone(), times));
        repeated += usize::from(!is_new);
        is_new
    });
    let mut remarks = Vec::new();
    for (count, what) in [
        (backwards, "end before they start: only their peak counts"),
        (repeated, "repeat another, which counts once"),
        (outside, "begin after the end of their recording, where no swing can be found"),
    ] {
        if count > 0 {
            remarks.push(format!("{count} labels {what}"));
        }
    }
    if !qualities.is_empty() {
        let found: Vec<_> = qualities.iter().map(|quality| format!("{quality:?}")).collect();
        let known = "clear, clean, soft (these count), ambiguous, cut, unclear, window";
        remarks.push(format!("labels of quality {} do not count; known are {known}", found.join(", ")));
    }
    remarks
}

/// The labels of a generated session: its peak is the impact, every stroke counts.
#[must_use]
pub fn truth_labels(recording: &str, player: &str, truth: &Truth) -> Vec<Label> {
    let label = |stroke: &pipelines::synth::TruthStroke| Label {
        recording: recording.to_owned(),
        player: player.to_owned(),
        start_ms: stroke.start_ms,
        peak_ms: stroke.impact_ms,
        end_ms: stroke.end_ms,
        stroke: stroke.kind.as_str().to_owned(),
        quality: "clear".to_owned(),
    };
    truth.strokes.iter().map(label).collect()
}

/// Writes a labels file.
///
/// # Errors
/// [`Error::Write`].
pub fn write_labels(path: &Path, labels: &[Label]) -> Result<(), Error> {
    write_lines(path, &LABEL_COLUMNS.join(","), labels.iter().map(line))
}

/// Writes the labels of a generated session with what only a generator knows behind them: side, whether the shuttle was
/// met, and when each segment was fastest (ms).
///
/// # Errors
/// [`Error::Write`].
pub fn write_truth(path: &Path, recording: &str, player: &str, truth: &Truth) -> Result<(), Error> {
    let header = format!(
        "{},backhand,impact,waist_peak_ms,shoulder_peak_ms,wrist_peak_ms,racket_peak_ms",
        LABEL_COLUMNS.join(",")
    );
    let labels = truth_labels(recording, player, truth);
    let lines = labels.iter().zip(&truth.strokes).map(|(label, stroke)| {
        let [waist, shoulder, wrist, racket] = stroke.peak_ms;
        let (backhand, impact) = (stroke.backhand, stroke.has_impact);
        format!("{},{backhand},{impact},{waist:.3},{shoulder:.3},{wrist:.3},{racket:.3}", line(label))
    });
    write_lines(path, &header, lines)
}

fn line(label: &Label) -> String {
    let [start_ms, peak_ms, end_ms] = [label.start_ms, label.peak_ms, label.end_ms]
        .map(|ms| if ms.is_finite() { format!("{ms:.3}") } else { String::new() });
    let [recording, player, stroke, quality] =
        [&label.recording, &label.player, &label.stroke, &label.quality].map(|text| quoted(text));
    format!("{recording},{player},{start_ms},{peak_ms},{end_ms},{stroke},{quality}")
}

/// A CSV field, in quotes where it needs them.
fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn write_lines(path: &Path, header: &str, lines: impl Iterator<Item = String>) -> Result<(), Error> {
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{header}")?;
        for line in lines {
            writeln!(file, "{line}")?;
        }
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    };
    write().map_err(|source| Error::Write { path: path.to_owned(), source })
}
