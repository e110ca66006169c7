use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::csv::ReaderBuilder;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemas::{SensorRole, SensorTrack, Track};

use super::{DEFAULT_SENSOR, Error, Recording, badminsense};

/// The most rows taken from one file: 34 hours of four sensors at 100 Hz, about 2.2 GB in memory.
pub const ROW_LIMIT: u64 = 50_000_000;
/// The furthest a sample may be from the start: eleven and a half days, ms.
pub const TIME_LIMIT_MS: f64 = 1e9;

/// Times from here on, 2000-01-01 to 2100-01-01 in ms, are since 1970; nothing has counted since its own start for so long.
const SINCE_1970_MS: std::ops::Range<f64> = 946_684_800_000.0..4_102_444_800_000.0;

/// When that was, µs since 1970 UTC, if a time in ms is since then.
pub(super) fn since_1970_us(t_ms: f64) -> Option<i64> {
    SINCE_1970_MS.contains(&t_ms).then(|| (t_ms * 1e3).round() as i64)
}

const BATCH_ROWS: usize = 8192;
const REQUIRED: [&str; 7] = ["t_ms", "ax", "ay", "az", "gx", "gy", "gz"];
const VALUES: [&str; 9] = ["ax", "ay", "az", "gx", "gy", "gz", "roll", "pitch", "yaw"];
const TEXTS: [&str; 2] = ["sensor", "recording"];

/// Reads a recording file, or the samples of a recording set's folder. Recordings come in the order of their first row.
///
/// # Errors
/// Everything in [`Error`] that is about reading: it names the file, the column and the row.
pub fn read_recording(path: &Path) -> Result<Vec<Recording>, Error> {
    read_recording_up_to(path, ROW_LIMIT)
}

/// The same of at most `limit` rows.
///
/// # Errors
/// As [`read_recording`]; [`Error::TooLong`] beyond.
pub fn read_recording_up_to(path: &Path, limit: u64) -> Result<Vec<Recording>, Error> {
    if !is_own(path) {
        let foreign = badminsense::files_at(path)?;
        if !foreign.is_empty() {
            return Ok(badminsense::read(&foreign)?.recordings);
        }
    }
    let path = &samples_path(path);
    let table = Table::open(path)?;
    table.require(&REQUIRED)?;
    let name = path.file_stem().map_or_else(|| "recording".to_owned(), |stem| stem.to_string_lossy().into_owned());
    let mut collector = Collector::new(path, name);
    let mut row = 0;
    for batch in table {
        let batch = batch.map_err(|source| Error::Rows { path: path.clone(), source })?;
        if row + batch.num_rows() as u64 > limit {
            return Err(Error::TooLong { limit, path: path.clone() });
        }
        collector.take(&batch, row)?;
        row += batch.num_rows() as u64;
    }
    if row == 0 {
        return Err(Error::Empty { path: path.clone() });
    }
    Ok(collector.finish())
}

/// True for a folder with samples of our layout.
pub(super) fn is_own(path: &Path) -> bool {
    path.is_dir() && samples_path(path).is_file()
}

/// The file that holds the samples: the path itself, or in a folder `samples.parquet` or `samples.csv`.
fn samples_path(path: &Path) -> PathBuf {
    if !path.is_dir() {
        return path.to_owned();
    }
    let csv = path.join("samples.csv");
    if csv.is_file() { csv } else { path.join("samples.parquet") }
}

/// Rows of a CSV or Parquet file, batch by batch. Column names are trimmed and in lower case; CSV columns are text.
pub(super) struct Table {
    path: PathBuf,
    schema: SchemaRef,
    batches: Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>,
}

impl Iterator for Table {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.batches.next()?.and_then(|batch| batch.with_schema(Arc::clone(&self.schema))))
    }
}

impl Table {
    /// The columns of a recording.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let known: Vec<String> = REQUIRED.iter().chain(&VALUES).chain(&TEXTS).map(|&name| name.to_owned()).collect();
        Self::with_columns(path, &known)
    }

    /// These columns, in lower case; those of a CSV file are all read.
    pub(super) fn with_columns(path: &Path, columns: &[String]) -> Result<Self, Error> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(read)?;
        let mut magic = [0; 4];
        let is_parquet = match file.read_exact(&mut magic) {
            Ok(()) => &magic == b"PAR1",
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(read(error)),
        };
        file.rewind().map_err(read)?;
        let ending = path.extension().map(OsStr::to_ascii_lowercase);
        let ending = ending.as_deref().and_then(|ending| ending.to_str()).unwrap_or_default();
        match ending {
            _ if is_parquet => Self::parquet(path, file, columns),
            "parquet" | "pq" => Self::parquet(path, file, columns),
            "csv" | "tsv" | "txt" => Self::csv(path, file),
            _ => Err(Error::Format { path: path.to_owned() }),
        }
    }

    fn parquet(path: &Path, file: File, columns: &[String]) -> Result<Self, Error> {
        let failed = |source| Error::Parquet { path: path.to_owned(), source };
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?;
        // Only the columns of a recording are decoded, whatever else is in the file.
        let known = |name: &str| columns.contains(&name.trim().to_ascii_lowercase());
        let roots: Vec<usize> = (builder.schema().fields().iter().enumerate())
            .filter(|(_, field)| known(field.name()))
            .map(|(index, _)| index)
            .collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots.iter().copied());
        let schema =
            builder.schema().project(&roots).map_err(|source| Error::Rows { path: path.to_owned(), source })?;
        let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(failed)?;
        let fields: Vec<Field> = schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_name(field.name().trim().to_ascii_lowercase()))
            .collect();
        // `with_schema` compares metadata too, so the reader's own is kept.
        let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        let renamed = Arc::clone(&schema);
        let batches = reader.map(move |batch| RecordBatch::try_new(Arc::clone(&renamed), batch?.columns().to_vec()));
        Ok(Self { path: path.to_owned(), schema, batches: Box::new(batches) })
    }

    fn csv(path: &Path, file: File) -> Result<Self, Error> {
        let mut reader = BufReader::new(file);
        let mut header = String::new();
        // A header longer than this is no header.
        let read = (&mut reader).take(64 * 1024).read_line(&mut header);
        read.map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let header = header.trim_start_matches('\u{feff}').trim_end();
        let delimiter = [b',', b';', b'\t'].into_iter().find(|&byte| header.as_bytes().contains(&byte)).unwrap_or(b',');
        let fields: Vec<Field> = header
            .split(char::from(delimiter))
            .map(|name| Field::new(name.trim().trim_matches('"').trim().to_ascii_lowercase(), DataType::Utf8, true))
            .collect();
        // Spreadsheets separate by semicolons where numbers have a decimal comma.
        let decimal = (delimiter == b';').then(|| (DECIMAL.to_owned(), ",".to_owned()));
        let schema = Arc::new(Schema::new_with_metadata(fields, decimal.into_iter().collect()));
        let batches = ReaderBuilder::new(Arc::clone(&schema))
            .with_header(false)
            .with_delimiter(delimiter)
            .with_batch_size(BATCH_ROWS)
            .build_buffered(reader)
            .map_err(|source| Error::Rows { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), schema, batches: Box::new(batches) })
    }

    pub(super) fn require(&self, names: &[&str]) -> Result<(), Error> {
        let missing: Vec<String> = (names.iter())
            .filter(|name| self.schema.column_with_name(name).is_none())
            .map(|&name| name.to_owned())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let present = self.schema.fields().iter().map(|field| field.name().clone()).take(40).collect();
        Err(Error::MissingColumns { missing, present, path: self.path.clone() })
    }
}

/// Key of a schema's metadata: what numbers in text may have in place of a decimal point.
const DECIMAL: &str = "volant.decimal";

/// One column of a batch, as numbers.
pub(super) enum Numbers {
    Text { texts: StringArray, decimal_comma: bool },
    Float(Float64Array),
    Absent,
}

impl Numbers {
    pub(super) fn of(batch: &RecordBatch, name: &str, path: &Path) -> Result<Self, Error> {
        let Some(column) = batch.column_by_name(name) else { return Ok(Self::Absent) };
        let column_type = |found: &DataType| Error::ColumnType {
            column: name.to_owned(),
            found: found.clone(),
            expected: "numbers",
            path: path.to_owned(),
        };
        match column.data_type() {
            DataType::Utf8 => Ok(Self::Text {
                texts: column.as_string().clone(),
                decimal_comma: batch.schema_ref().metadata().contains_key(DECIMAL),
            }),
            found if found.is_numeric() || *found == DataType::Null => {
                let cast = cast_with_options(column, &DataType::Float64, &CastOptions::default());
                Ok(Self::Float(cast.map_err(|_| column_type(found))?.as_primitive::<Float64Type>().clone()))
            }
            found => Err(column_type(found)),
        }
    }

    /// The value of a row of the batch; NaN if there is none. Infinite values are none.
    pub(super) fn get(&self, index: usize, at: impl Fn() -> (String, u64, PathBuf)) -> Result<f64, Error> {
        let value = match self {
            Self::Float(values) if values.is_valid(index) => values.value(index),
            Self::Text { texts, decimal_comma } if texts.is_valid(index) => {
                let text = texts.value(index).trim();
                let none = ["", "nan", "null", "na", "none"].iter().any(|none| text.eq_ignore_ascii_case(none));
                if none {
                    f64::NAN
                } else {
                    let with_comma = *decimal_comma && text.contains(',') && !text.contains('.');
                    let number = if with_comma { text.replacen(',', ".", 1).parse() } else { text.parse() };
                    number.map_err(|_| {
                        let (column, row, path) = at();
                        Error::Number { text: text.chars().take(40).collect(), column, row, path }
                    })?
                }
            }
            Self::Absent | Self::Float(_) | Self::Text { .. } => f64::NAN,
        };
        Ok(if value.is_finite() { value } else { f64::NAN })
    }
}

/// One column of a batch, as text.
pub(super) fn texts(batch: &RecordBatch, name: &str, path: &Path) -> Result<Option<StringArray>, Error> {
    let Some(column) = batch.column_by_name(name) else { return Ok(None) };
    let column_type = || Error::ColumnType {
        column: name.to_owned(),
        found: column.data_type().clone(),
        expected: "text",
        path: path.to_owned(),
    };
    let textual = match column.data_type() {
        DataType::Dictionary(_, value) => !value.is_nested(),
        // Recordings may be numbered.
        found => found.is_string() || found.is_integer() || *found == DataType::Null,
    };
    if !textual {
        return Err(column_type());
    }
    let cast = cast_with_options(column, &DataType::Utf8, &CastOptions::default()).map_err(|_| column_type())?;
    Ok(Some(cast.as_string().clone()))
}

/// The samples of one sensor as they come.
#[derive(Default)]
struct Samples {
    track: SensorTrack,
    latest_ns: i64,
    unsorted: usize,
}

struct Collected {
    name: String,
    /// The first time, where times are since 1970; they are counted from there.
    began_ms: f64,
    started_at_us: Option<i64>,
    /// An entry for each place of the chain.
    sensors: [Option<Samples>; 4],
}

struct Collector<'a> {
    path: &'a Path,
    default_name: String,
    /// In order of first appearance.
    recordings: Vec<Collected>,
    index: HashMap<String, usize>,
}

impl<'a> Collector<'a> {
    fn new(path: &'a Path, default_name: String) -> Self {
        Self { path, default_name, recordings: Vec::new(), index: HashMap::new() }
    }

    fn take(&mut self, batch: &RecordBatch, first_row: u64) -> Result<(), Error> {
        let path = self.path;
        let names = texts(batch, "recording", path)?;
        let sensors = texts(batch, "sensor", path)?;
        let times = Numbers::of(batch, "t_ms", path)?;
        let mut values = Vec::with_capacity(VALUES.len());
        for name in VALUES {
            values.push(Numbers::of(batch, name, path)?);
        }
        let mut current: Option<usize> = None;
        for index in 0..batch.num_rows() {
            let row = first_row + index as u64 + 1;
            let at = |column: &str| (column.to_owned(), row, path.to_owned());
            let time_ms = times.get(index, || at("t_ms"))?;
            let role = match &sensors {
                None => DEFAULT_SENSOR,
                Some(names) => {
                    let name = if names.is_valid(index) { names.value(index).trim() } else { "" };
                    match SensorRole::from_name(&name.to_ascii_lowercase()) {
                        SensorRole::Unknown => {
                            return Err(Error::Sensor { name: name.to_owned(), row, path: path.to_owned() });
                        }
                        role => role,
                    }
                }
            };
            let name = match &names {
                Some(names) if names.is_valid(index) => names.value(index),
                _ => &self.default_name,
            };
            // Rows of a recording mostly stand together.
            let place = match current {
                Some(place) if self.recordings[place].name == name => place,
                _ => *self.index.entry(name.to_owned()).or_insert_with(|| {
                    let started_at_us = since_1970_us(time_ms);
                    let began_ms = if started_at_us.is_some() { time_ms } else { 0.0 };
                    let sensors = Default::default();
                    self.recordings.push(Collected { name: name.to_owned(), began_ms, started_at_us, sensors });
                    self.recordings.len() - 1
                }),
            };
            current = Some(place);
            let recording = &mut self.recordings[place];
            let t_ms = time_ms - recording.began_ms;
            if t_ms.is_nan() || t_ms.abs() > TIME_LIMIT_MS {
                return Err(Error::Time { value: time_ms, column: "t_ms".to_owned(), row, path: path.to_owned() });
            }
            let mut row_values = [0.0_f32; 9];
            for ((value, numbers), column) in row_values.iter_mut().zip(&values).zip(VALUES) {
                *value = numbers.get(index, || at(column))? as f32;
            }
            let [ax, ay, az, gx, gy, gz, roll, pitch, yaw] = row_values;
            let chain_index = role.chain_index().expect("unknown sensors were refused above");
            let samples = recording.sensors[chain_index].get_or_insert_default();
            let t_ns = (t_ms * 1e6).round() as i64;
            if samples.track.is_empty() || t_ns >= samples.latest_ns {
                samples.latest_ns = t_ns;
            } else {
                samples.unsorted += 1;
            }
            samples.track.push(t_ns, [ax, ay, az], [gx, gy, gz], [roll, pitch, yaw]);
        }
        Ok(())
    }

    fn finish(self) -> Vec<Recording> {
        self.recordings
            .into_iter()
            .map(|Collected { name, started_at_us, sensors, .. }| {
                let mut unsorted = 0;
                let sensors = sensors.map(|samples| {
                    let samples = samples?;
                    unsorted += samples.unsorted;
                    Some(if samples.unsorted == 0 { samples.track } else { sorted(&samples.track) })
                });
                Recording { name, track: Track { sensors, ..Track::default() }, unsorted, started_at_us }
            })
            .collect()
    }
}

/// In time order; samples of the same time keep theirs.
fn sorted(track: &SensorTrack) -> SensorTrack {
    let mut rows: Vec<usize> = (0..track.len()).collect();
    rows.sort_by_key(|&row| track.t_ns[row]);
    let mut sorted = SensorTrack { clock_error_ns: track.clock_error_ns, ..SensorTrack::default() };
    for row in rows {
        sorted.push(track.t_ns[row], track.acc[row], track.gyro[row], track.angle[row]);
    }
    sorted
}
