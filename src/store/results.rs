//! Strokes and results as Parquet: what an analysis found, for SQL, notebooks and other engines.
//!
//! In: rows whose fields are the columns of [`schemas::tables`]. Out: one file a session and table. A new analysis of the
//! session replaces the file by a rename; the same analysis writes the same bytes. The catalog's own copy of the result,
//! in one commit with the notice that is owed, is what counts; these files can be written again from it.

#![deny(clippy::indexing_slicing)]

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type, SchemaRef};
use parquet::basic::Compression;
use schemas::SessionId;
use schemas::tables::{results_schema, strokes_schema};
use serde::{Deserialize, Serialize};

use super::pack::TableFile;
use super::paths::{Paths, Table, TablePath};
use super::publish::{self, Columns, batches, decode_error, open_table};
use super::seal::{Error, Manifest};

/// Small pieces, of which a statement reads hundreds: getting ready to decompress zstd takes longer than reading one.
const COMPRESSION: Compression = Compression::SNAPPY;

/// A swing that was found: one row of the `strokes` table. Units and null meanings as in the table's schema.
///
/// A figure that is not finite is stored as null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StrokeRow {
    /// Session the stroke belongs to.
    pub session_id: i64,
    /// Order in the session, from 0.
    pub stroke_index: i32,
    /// Device that recorded it.
    pub device_code: String,
    /// Player; `None`: the session has no known player.
    pub user_id: Option<i64>,
    /// Sensor the swing was found on.
    pub sensor: String,
    /// Start of the swing, ns since session start.
    pub start_ns: i64,
    /// Impact, or peak of the swing where none was felt, ns.
    pub impact_ns: i64,
    /// End of the swing, ns since session start.
    pub end_ns: i64,
    /// Class with the highest probability, or other.
    pub stroke: String,
    /// Probability of `stroke`, 0 to 1; `None`: no model ran.
    pub confidence: Option<f64>,
    /// JSON object: class to probability.
    pub probabilities: String,
    /// Largest angular rate, °/s.
    pub peak_gyro_dps: Option<f64>,
    /// Largest dynamic acceleration, m/s².
    pub peak_accel_mps2: Option<f64>,
    /// Estimate at the string centre, m/s.
    pub racket_head_speed_mps: Option<f64>,
    /// Peak delay waist to shoulder, ms.
    pub delay_waist_shoulder_ms: Option<f64>,
    /// Peak delay shoulder to wrist, ms.
    pub delay_shoulder_wrist_ms: Option<f64>,
    /// Peak delay wrist to racket, ms.
    pub delay_wrist_racket_ms: Option<f64>,
    /// One standard deviation of each delay, ms.
    pub delay_uncertainty_ms: Option<f64>,
    /// Kendall tau of peak order.
    pub order_tau: Option<f64>,
    /// JSON object: every figure of the stroke.
    pub metrics: String,
}

/// A session's published analysis: one row of the `results` table. Units and null meanings as in the table's schema.
///
/// A figure that is not finite is stored as null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResultRow {
    /// Session that was analysed.
    pub session_id: i64,
    /// Number of the analysis.
    pub analysis_id: i64,
    /// Device that recorded the session.
    pub device_code: String,
    /// Player; `None`: the session has no known player.
    pub user_id: Option<i64>,
    /// When the result was committed, µs since 1970 UTC.
    pub created_at_us: i64,
    /// Name and version of the pipeline.
    pub pipeline: String,
    /// SHA-256 of the parameters, hex.
    pub params_sha256: String,
    /// Name and SHA-256 of the model file; `None`: no model ran.
    pub model: Option<String>,
    /// Frames that were analysed.
    pub frame_count: i64,
    /// Swings that were found.
    pub stroke_count: i32,
    /// Median delay, s.
    pub phase_delay_waist_to_shoulder_s: Option<f64>,
    /// Median delay, s.
    pub phase_delay_shoulder_to_wrist_s: Option<f64>,
    /// 0 to 1.
    pub energy_ratio: Option<f64>,
    /// Range of motion, °.
    pub rom_waist_deg: Option<f64>,
    /// Range of motion, °.
    pub rom_shoulder_deg: Option<f64>,
    /// Range of motion, °.
    pub rom_wrist_deg: Option<f64>,
    /// 0 to 100.
    pub overall_score: Option<f64>,
    /// JSON object: every figure of the session.
    pub session: String,
    /// JSON array: what is wrong with the recording.
    pub issues: String,
}

/// Builds the columns of a batch from rows, in the order of a schema.
struct Builder<'a, R> {
    rows: &'a [R],
    columns: Vec<ArrayRef>,
}

impl<R> Builder<'_, R> {
    fn int32(&mut self, get: impl Fn(&R) -> i32) {
        self.columns.push(Arc::new(Int32Array::from_iter_values(self.rows.iter().map(get))));
    }
    fn int64(&mut self, get: impl Fn(&R) -> i64) {
        self.columns.push(Arc::new(Int64Array::from_iter_values(self.rows.iter().map(get))));
    }
    fn int64_or_null(&mut self, get: impl Fn(&R) -> Option<i64>) {
        self.columns.push(Arc::new(self.rows.iter().map(get).collect::<Int64Array>()));
    }
    fn text(&mut self, get: impl Fn(&R) -> &str) {
        self.columns.push(Arc::new(StringArray::from_iter_values(self.rows.iter().map(get))));
    }
    fn text_or_null(&mut self, get: impl Fn(&R) -> Option<&str>) {
        self.columns.push(Arc::new(self.rows.iter().map(get).collect::<StringArray>()));
    }
    fn figure(&mut self, get: impl Fn(&R) -> Option<f64>) {
        let finite = |row| get(row).filter(|figure| figure.is_finite());
        self.columns.push(Arc::new(self.rows.iter().map(finite).collect::<Float64Array>()));
    }
}

fn write<R>(
    paths: &Paths,
    path: TablePath,
    started_at_us: i64,
    schema: SchemaRef,
    rows: &[R],
    fill: impl FnOnce(&mut Builder<'_, R>),
) -> Result<Manifest, Error> {
    let mut builder = Builder { rows, columns: Vec::with_capacity(schema.fields().len()) };
    fill(&mut builder);
    // The number of the analysis and its versions are in the rows; these files are replaced as a whole.
    let revision = 1;
    let properties = publish::properties(&schema, path, started_at_us, revision, &[], COMPRESSION).build();
    let batch = RecordBatch::try_new(schema, builder.columns).map_err(decode_error(&paths.file(path)))?;
    publish::publish_batch(paths, path, properties, revision, &batch)
}

/// Publishes a session's strokes over those of an earlier analysis. `started_at_us` is the start of the session, µs UTC.
///
/// # Errors
/// As [`super::seal::write_frames`]; [`Error::Rows`] if a row belongs to another session.
pub fn write_strokes(
    paths: &Paths,
    session_id: SessionId,
    started_at_us: i64,
    rows: &[StrokeRow],
) -> Result<Manifest, Error> {
    if rows.iter().any(|row| row.session_id != session_id.get()) {
        return Err(Error::Rows { what: "strokes of another session", session_id });
    }
    let path = TablePath::new(Table::Strokes, session_id, started_at_us);
    write(paths, path, started_at_us, strokes_schema(), rows, |columns| {
        columns.int64(|row| row.session_id);
        columns.int32(|row| row.stroke_index);
        columns.text(|row| &row.device_code);
        columns.int64_or_null(|row| row.user_id);
        columns.text(|row| &row.sensor);
        columns.int64(|row| row.start_ns);
        columns.int64(|row| row.impact_ns);
        columns.int64(|row| row.end_ns);
        columns.text(|row| &row.stroke);
        columns.figure(|row| row.confidence);
        columns.text(|row| &row.probabilities);
        columns.figure(|row| row.peak_gyro_dps);
        columns.figure(|row| row.peak_accel_mps2);
        columns.figure(|row| row.racket_head_speed_mps);
        columns.figure(|row| row.delay_waist_shoulder_ms);
        columns.figure(|row| row.delay_shoulder_wrist_ms);
        columns.figure(|row| row.delay_wrist_racket_ms);
        columns.figure(|row| row.delay_uncertainty_ms);
        columns.figure(|row| row.order_tau);
        columns.text(|row| &row.metrics);
    })
}

/// Publishes a session's result over that of an earlier analysis. `started_at_us` is the start of the session, µs UTC.
///
/// # Errors
/// As [`write_strokes`].
pub fn write_results(
    paths: &Paths,
    session_id: SessionId,
    started_at_us: i64,
    rows: &[ResultRow],
) -> Result<Manifest, Error> {
    if rows.iter().any(|row| row.session_id != session_id.get()) {
        return Err(Error::Rows { what: "the result of another session", session_id });
    }
    let path = TablePath::new(Table::Results, session_id, started_at_us);
    write(paths, path, started_at_us, results_schema(), rows, |columns| {
        columns.int64(|row| row.session_id);
        columns.int64(|row| row.analysis_id);
        columns.text(|row| &row.device_code);
        columns.int64_or_null(|row| row.user_id);
        columns.int64(|row| row.created_at_us);
        columns.text(|row| &row.pipeline);
        columns.text(|row| &row.params_sha256);
        columns.text_or_null(|row| row.model.as_deref());
        columns.int64(|row| row.frame_count);
        columns.int32(|row| row.stroke_count);
        columns.figure(|row| row.phase_delay_waist_to_shoulder_s);
        columns.figure(|row| row.phase_delay_shoulder_to_wrist_s);
        columns.figure(|row| row.energy_ratio);
        columns.figure(|row| row.rom_waist_deg);
        columns.figure(|row| row.rom_shoulder_deg);
        columns.figure(|row| row.rom_wrist_deg);
        columns.figure(|row| row.overall_score);
        columns.text(|row| &row.session);
        columns.text(|row| &row.issues);
    })
}

/// Reads a session's strokes, in the order they were written.
///
/// # Errors
/// As [`super::seal::read_frames`].
pub fn read_strokes(file: &TableFile) -> Result<Vec<StrokeRow>, Error> {
    publish::contained(file.path(), || strokes_of(file))
}

fn strokes_of(file: &TableFile) -> Result<Vec<StrokeRow>, Error> {
    let path = file.path();
    let reader = open_table(file, Table::Strokes, &strokes_schema())?;
    let mut rows = Vec::new();
    for batch in batches(reader, path)? {
        let batch = batch?;
        let cells = Cells { columns: Columns { batch: &batch, path } };
        for row in 0..batch.num_rows() {
            rows.push(StrokeRow {
                session_id: cells.int64("session_id", row)?,
                stroke_index: cells.int32("stroke_index", row)?,
                device_code: cells.text("device_code", row)?,
                user_id: cells.int64_or_null("user_id", row)?,
                sensor: cells.text("sensor", row)?,
                start_ns: cells.int64("start_ns", row)?,
                impact_ns: cells.int64("impact_ns", row)?,
                end_ns: cells.int64("end_ns", row)?,
                stroke: cells.text("stroke", row)?,
                confidence: cells.figure("confidence", row)?,
                probabilities: cells.text("probabilities", row)?,
                peak_gyro_dps: cells.figure("peak_gyro_dps", row)?,
                peak_accel_mps2: cells.figure("peak_accel_mps2", row)?,
                racket_head_speed_mps: cells.figure("racket_head_speed_mps", row)?,
                delay_waist_shoulder_ms: cells.figure("delay_waist_shoulder_ms", row)?,
                delay_shoulder_wrist_ms: cells.figure("delay_shoulder_wrist_ms", row)?,
                delay_wrist_racket_ms: cells.figure("delay_wrist_racket_ms", row)?,
                delay_uncertainty_ms: cells.figure("delay_uncertainty_ms", row)?,
                order_tau: cells.figure("order_tau", row)?,
                metrics: cells.text("metrics", row)?,
            });
        }
    }
    Ok(rows)
}

/// Reads a session's result.
///
/// # Errors
/// As [`super::seal::read_frames`].
pub fn read_results(file: &TableFile) -> Result<Vec<ResultRow>, Error> {
    publish::contained(file.path(), || results_of(file))
}

fn results_of(file: &TableFile) -> Result<Vec<ResultRow>, Error> {
    let path = file.path();
    let reader = open_table(file, Table::Results, &results_schema())?;
    let mut rows = Vec::new();
    for batch in batches(reader, path)? {
        let batch = batch?;
        let cells = Cells { columns: Columns { batch: &batch, path } };
        for row in 0..batch.num_rows() {
            rows.push(ResultRow {
                session_id: cells.int64("session_id", row)?,
                analysis_id: cells.int64("analysis_id", row)?,
                device_code: cells.text("device_code", row)?,
                user_id: cells.int64_or_null("user_id", row)?,
                created_at_us: cells.int64("created_at_us", row)?,
                pipeline: cells.text("pipeline", row)?,
                params_sha256: cells.text("params_sha256", row)?,
                model: cells.text_or_null("model", row)?,
                frame_count: cells.int64("frame_count", row)?,
                stroke_count: cells.int32("stroke_count", row)?,
                phase_delay_waist_to_shoulder_s: cells.figure("phase_delay_waist_to_shoulder_s", row)?,
                phase_delay_shoulder_to_wrist_s: cells.figure("phase_delay_shoulder_to_wrist_s", row)?,
                energy_ratio: cells.figure("energy_ratio", row)?,
                rom_waist_deg: cells.figure("rom_waist_deg", row)?,
                rom_shoulder_deg: cells.figure("rom_shoulder_deg", row)?,
                rom_wrist_deg: cells.figure("rom_wrist_deg", row)?,
                overall_score: cells.figure("overall_score", row)?,
                session: cells.text("session", row)?,
                issues: cells.text("issues", row)?,
            });
        }
    }
    Ok(rows)
}

/// Single values of a batch. Looking a column up by name for each value is slow, which the few rows of a session allow.
struct Cells<'a> {
    columns: Columns<'a>,
}

impl Cells<'_> {
    fn missing(&self, what: &'static str) -> Error {
        Error::Foreign { what, path: self.columns.path.to_owned() }
    }
    fn int32(&self, name: &'static str, row: usize) -> Result<i32, Error> {
        let values = self.columns.required::<Int32Type>(name)?;
        values.get(row).copied().ok_or_else(|| self.missing(name))
    }
    fn int64(&self, name: &'static str, row: usize) -> Result<i64, Error> {
        let values = self.columns.required::<Int64Type>(name)?;
        values.get(row).copied().ok_or_else(|| self.missing(name))
    }
    fn int64_or_null(&self, name: &'static str, row: usize) -> Result<Option<i64>, Error> {
        let values = self.columns.optional::<Int64Type>(name)?;
        Ok(values.is_valid(row).then(|| values.value(row)))
    }
    fn text(&self, name: &'static str, row: usize) -> Result<String, Error> {
        self.text_or_null(name, row)?.ok_or_else(|| self.missing(name))
    }
    fn text_or_null(&self, name: &'static str, row: usize) -> Result<Option<String>, Error> {
        let values = self.columns.text(name, true)?;
        Ok(values.is_valid(row).then(|| values.value(row).to_owned()))
    }
    fn figure(&self, name: &'static str, row: usize) -> Result<Option<f64>, Error> {
        let values = self.columns.figure(name)?;
        Ok(values.is_valid(row).then(|| values.value(row)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn strokes(count: i32) -> Vec<StrokeRow> {
        let stroke = |index: i32| StrokeRow {
            session_id: 42,
            stroke_index: index,
            device_code: "2025001".to_owned(),
            user_id: (index % 2 == 0).then_some(7),
            sensor: "racket".to_owned(),
            start_ns: i64::from(index) * 1_000_000_000,
            impact_ns: i64::from(index) * 1_000_000_000 + 400_000_000,
            end_ns: i64::from(index) * 1_000_000_000 + 700_000_000,
            stroke: "smash".to_owned(),
            confidence: Some(0.75),
            probabilities: r#"{"smash":0.75,"clear":0.25}"#.to_owned(),
            peak_gyro_dps: Some(1999.5),
            delay_waist_shoulder_ms: (index == 1).then_some(31.25),
            metrics: "{}".to_owned(),
            ..StrokeRow::default()
        };
        (0..count).map(stroke).collect()
    }

    fn result() -> ResultRow {
        ResultRow {
            session_id: 42,
            analysis_id: 5,
            device_code: "2025001".to_owned(),
            user_id: None,
            created_at_us: 1_795_392_000_000_000,
            pipeline: "volant 0.1.0".to_owned(),
            params_sha256: "ab".repeat(32),
            model: None,
            frame_count: 480_000,
            stroke_count: 61,
            energy_ratio: Some(0.5),
            session: r#"{"overall_score":81.5}"#.to_owned(),
            issues: "[]".to_owned(),
            ..ResultRow::default()
        }
    }

    #[test]
    fn rows_come_back_and_the_same_rows_make_the_same_bytes() {
        let dir = TempDir::new().unwrap();
        let paths = Paths::new(dir.path());
        let written = write_strokes(&paths, SessionId(42), 0, &strokes(3)).unwrap();
        let file = paths.file(written.path);
        assert_eq!(file, dir.path().join("strokes/date=1970-01-01/42.parquet"));
        assert_eq!(read_strokes(&TableFile::open(&file).unwrap()).unwrap(), strokes(3));
        let bytes = fs::read(&file).unwrap();
        assert_eq!(write_strokes(&paths, SessionId(42), 0, &strokes(3)).unwrap(), written);
        assert_eq!(fs::read(&file).unwrap(), bytes);
        // Another analysis replaces it; one that found nothing too.
        write_strokes(&paths, SessionId(42), 0, &strokes(2)).unwrap();
        assert_eq!(read_strokes(&TableFile::open(&file).unwrap()).unwrap(), strokes(2));
        write_strokes(&paths, SessionId(42), 0, &[]).unwrap();
        assert_eq!(read_strokes(&TableFile::open(&file).unwrap()).unwrap(), []);

        let written = write_results(&paths, SessionId(42), 0, &[result()]).unwrap();
        let file = paths.file(written.path);
        assert_eq!(read_results(&TableFile::open(&file).unwrap()).unwrap(), [result()]);
        assert_eq!(write_results(&paths, SessionId(42), 0, &[result()]).unwrap(), written);
        assert!(matches!(read_strokes(&TableFile::open(&file).unwrap()), Err(Error::Foreign { .. })));
    }

    #[test]
    fn figures_that_are_not_finite_are_null() {
        let dir = TempDir::new().unwrap();
        let paths = Paths::new(dir.path());
        let row = ResultRow { energy_ratio: Some(f64::NAN), overall_score: Some(f64::INFINITY), ..result() };
        let written = write_results(&paths, SessionId(42), 0, &[row]).unwrap();
        assert_eq!(
            read_results(&TableFile::open(&paths.file(written.path)).unwrap()).unwrap(),
            [ResultRow { energy_ratio: None, ..result() }]
        );
    }

    #[test]
    fn rows_of_another_session_are_refused() {
        let dir = TempDir::new().unwrap();
        let paths = Paths::new(dir.path());
        assert!(matches!(write_strokes(&paths, SessionId(1), 0, &strokes(1)), Err(Error::Rows { .. })));
        assert!(matches!(write_results(&paths, SessionId(1), 0, &[result()]), Err(Error::Rows { .. })));
    }
}
