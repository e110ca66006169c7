//! A session's frames become one sorted Parquet file: temporary name, verified, renamed.
//!
//! In: all frames of a session, in arrival order. Out: the file at [`TablePath`], and its [`Manifest`] for the catalog.
//! Sealing the same frames again writes the same bytes over the same name, so a seal that was interrupted is simply run
//! again. Late frames make a new revision: the same name, with more rows.
//!
//! # Layout
//!
//! Columns are those of [`schemas::frames::frames_schema`]. Rows are sorted by the *name* of the sensor (racket, shoulder,
//! unknown, waist, wrist), then `t_ns`, then `seq`; the file says so (`sorting_columns`). A row group holds up to
//! [`ROW_GROUP_ROWS`] rows of one sensor only, so that a reader that wants one sensor, or a stretch of time, reads just
//! that. Measured values are dictionaries or byte-stream-split, whichever is smaller in that row group (`dictionary.rs`), times and
//! counters delta-packed, the rest dictionaries; all of it under zstd.
//!
//! The file's metadata names the table, its version, session, start and revision (`volant.…`), and whatever the caller
//! adds. The Arrow schema in it carries the unit of every column.
//!
//! # Versions
//!
//! *New reader, old data*: every version of the table stays readable. *Old reader, new data*: refused with
//! [`Error::Newer`]; other engines find more columns than they expect. *Old writer, new data*: a new revision is written
//! from the log, never by editing a file, so what an older Volant seals is an older table.

#![deny(clippy::indexing_slicing)]

mod dictionary;
mod smaller;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use arrow::array::{AsArray as _, Float32Array};
use arrow::datatypes::{Float32Type, Int32Type, Int64Type, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, ArrowWriter, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::{ColumnDescPtr, ColumnPath};
use rayon::prelude::*;
use schemas::frames::{ClockKind, NO_DEVICE_TIME, frames_schema};
use schemas::{FrameColumns, SensorRole, SessionId, Track};
use serde::{Deserialize, Serialize};

use self::dictionary::Dictionary;
use super::pack::{self, TableFile};
use super::paths::{Paths, Table, TablePath};
use super::publish::{self, Checksums, Columns, Unpublished, batches, group_sums, open_table, parquet_error, value_of};
pub use super::publish::{Error, remove_unfinished};
pub use smaller::{KEY_SEALED_SHA256, make_smaller, sealed_sha256};

/// The most rows of a row group: 128 Ki rows are eleven minutes of one sensor at 200 Hz, about 3 MB.
pub const ROW_GROUP_ROWS: usize = 1 << 17;

/// Metadata key under which a caller of [`write_frames`] may leave the estimated error between the clocks of different
/// sensors, in ns as a decimal; [`read_track`] gives it back.
pub const KEY_SYNC_ERROR_NS: &str = "volant.sync_error_ns";
/// The same of each sensor's clock, as JSON: `{"waist": 3000000}`. Files from before it lack it.
pub const KEY_CLOCK_ERRORS_NS: &str = "volant.clock_errors_ns";
/// The clocks that were put on the common one, as JSON ([`schemas::ClockNote`]); absent: none was off.
pub const KEY_CLOCKS: &str = "volant.clocks";

/// Metadata key of the device that recorded the session.
pub const KEY_DEVICE_CODE: &str = "volant.device_code";

/// What was published: enough for the catalog to tell later whether the file is still what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Where, relative to the data folder.
    pub path: TablePath,
    /// Number of rows.
    pub rows: u64,
    /// Size of the file, bytes.
    pub bytes: u64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// Revision of the file, from 1.
    pub revision: u32,
    /// Smallest `t_ns`; `None` without rows, and for tables other than `frames`.
    pub t_min_ns: Option<i64>,
    /// Largest `t_ns`; `None` as above.
    pub t_max_ns: Option<i64>,
}

/// How much a file may cost to be small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effort {
    Quick,
    Small,
}

impl Effort {
    /// Level of zstd. Of 480,000 quantised rows level 3 makes 1.4 % fewer bytes than 1 in 14 % more time, 6 makes 6 % fewer in twice
    /// the time (pyarrow 26 with split columns, 2026-11-23). From 16 it takes matches of three bytes and weighs them against each
    /// other; 19 looks at the most of them.
    const fn level(self) -> i32 {
        match self {
            Self::Quick => 1,
            Self::Small => 19,
        }
    }

    fn compression(self) -> Compression {
        Compression::ZSTD(ZstdLevel::try_new(self.level()).expect("the level is in zstd's range"))
    }
}

/// What a file says of itself.
struct About<'a> {
    session_id: SessionId,
    started_at_us: i64,
    revision: u32,
    metadata: &'a [(String, String)],
}

/// On what terms a file is written.
struct Terms<'a> {
    effort: Effort,
    /// Asked before every few row groups; once it says no, nothing is published.
    go_on: &'a (dyn Fn() -> bool + Sync),
    /// A pack that holds the session is undone for it.
    undoes_packs: bool,
}

impl Terms<'_> {
    const fn new(effort: Effort) -> Self {
        Self { effort, go_on: &|| true, undoes_packs: true }
    }
}

/// Seals a session's frames, quickly: a player waits for the result. Row `i` of `frames` gets `seq` `i`. Blocks: half of the time
/// it computes, on the current rayon pool, the other half it waits for the disk.
///
/// `acc_to_mps2` gives, by sensor byte, the factor that turns `acc` into m/s², `None` while undecided. `metadata` is added
/// to the file's own.
///
/// # Errors
/// [`Error::Io`], [`Error::Parquet`], [`Error::Verify`], and [`Error::Rows`] if the columns differ in length. The file
/// that was there before, if any, is untouched then.
pub fn write_frames(
    paths: &Paths,
    session_id: SessionId,
    started_at_us: i64,
    revision: u32,
    frames: &FrameColumns,
    acc_to_mps2: impl Fn(u8) -> Option<f32>,
    metadata: &[(String, String)],
) -> Result<Manifest, Error> {
    let about = About { session_id, started_at_us, revision, metadata };
    write(paths, &about, frames, acc_to_mps2, &Terms::new(Effort::Quick))?.publish(None)
}

/// The same in a seventh fewer bytes and three times the time: nobody waits.
///
/// # Errors
/// As [`write_frames`].
pub fn write_frames_small(
    paths: &Paths,
    session_id: SessionId,
    started_at_us: i64,
    revision: u32,
    frames: &FrameColumns,
    acc_to_mps2: impl Fn(u8) -> Option<f32>,
    metadata: &[(String, String)],
) -> Result<Manifest, Error> {
    let about = About { session_id, started_at_us, revision, metadata };
    write(paths, &about, frames, acc_to_mps2, &Terms::new(Effort::Small))?.publish(None)
}

/// A file that is written, not yet read back, and not visible.
struct Written {
    unpublished: Unpublished,
    revision: u32,
    rows: u64,
    t_range_ns: Option<(i64, i64)>,
    sums: Vec<Checksums>,
}

impl Written {
    /// Gives it its name, if it reads back as what was written, and that has the values of `same_as`, row group by row group.
    fn publish(self, same_as: Option<&TableFile>) -> Result<Manifest, Error> {
        let Self { unpublished, revision, rows, t_range_ns, sums } = self;
        unpublished.verified(revision, rows, t_range_ns, |file| {
            let same_as = same_as.map(group_sums).transpose()?;
            Ok(group_sums(file)? == sums && same_as.is_none_or(|same| same == sums))
        })
    }
}

fn write(
    paths: &Paths,
    about: &About<'_>,
    frames: &FrameColumns,
    acc_to_mps2: impl Fn(u8) -> Option<f32>,
    terms: &Terms<'_>,
) -> Result<Written, Error> {
    // A table instead of the closure, so that row groups can be encoded on several threads.
    let factors: Vec<Option<f32>> = (0..=u8::MAX).map(acc_to_mps2).collect();
    let &About { session_id, started_at_us, revision, metadata } = about;
    check_columns(session_id, frames)?;
    let order = sorted_rows(frames);
    let groups: Vec<&[usize]> = order.iter().flat_map(|rows| rows.chunks(ROW_GROUP_ROWS)).collect();
    let source = Source { session_id, frames, factors, terms };

    let path = TablePath::new(Table::Frames, session_id, started_at_us);
    let compression = terms.effort.compression();
    let properties = publish::properties(&frames_schema(), path, started_at_us, revision, metadata, compression);
    let mut sums = Vec::with_capacity(groups.len());
    let encode = |file: &File, temporary: &Path| {
        sums = source.write(file, properties, &groups).map_err(parquet_error("write", temporary))?;
        Ok(())
    };
    let unpublished = if terms.undoes_packs {
        publish::publish(paths, path, encode)?
    } else {
        publish::prepare(paths, path, encode)?
    };
    let t_range_ns = frames.t_ns.iter().min().copied().zip(frames.t_ns.iter().max().copied());
    Ok(Written { unpublished, revision, rows: frames.len() as u64, t_range_ns, sums })
}

fn check_columns(session_id: SessionId, frames: &FrameColumns) -> Result<(), Error> {
    let FrameColumns { sensor_id, sensor, device_time_raw, t_ns, clock, received_at_us, acc, gyro, angle, flags } =
        frames;
    let lengths = [
        sensor_id.len(),
        device_time_raw.len(),
        t_ns.len(),
        clock.len(),
        received_at_us.len(),
        acc.len(),
        gyro.len(),
        angle.len(),
        flags.len(),
    ];
    if lengths.iter().all(|&length| length == sensor.len()) {
        Ok(())
    } else {
        Err(Error::Rows { what: "columns that differ in length", session_id })
    }
}

/// The rows of each sensor by time, sensors in the order of their names.
fn sorted_rows(frames: &FrameColumns) -> [Vec<usize>; 5] {
    let mut by_name =
        [SensorRole::Racket, SensorRole::Shoulder, SensorRole::Unknown, SensorRole::Waist, SensorRole::Wrist]
            .map(|role| (role, Vec::new()));
    for row in 0..frames.len() {
        let role = frames.role(row);
        for (of_role, rows) in &mut by_name {
            if *of_role == role {
                rows.push(row);
            }
        }
    }
    by_name.map(|(_, mut rows)| {
        // Stable, so that frames of the same time stay in the order of `seq`; nearly sorted input is quick.
        rows.sort_by_key(|&row| frames.t_ns.get(row).copied());
        rows
    })
}

/// How the columns are written, measured values if they do not repeat.
fn frames_properties(shared: WriterPropertiesBuilder, schema: &SchemaRef) -> WriterProperties {
    let mut properties = shared
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        // Pages of one sensor's time are what a query for a stretch of time skips by.
        .set_column_statistics_enabled(ColumnPath::from("t_ns"), EnabledStatistics::Page);
    for name in ["t_ns", "device_time_raw", "received_at_us", "seq"] {
        properties = properties
            .set_column_dictionary_enabled(ColumnPath::from(name), false)
            .set_column_encoding(ColumnPath::from(name), Encoding::DELTA_BINARY_PACKED);
    }
    for name in SAMPLES {
        properties = properties
            .set_column_dictionary_enabled(ColumnPath::from(name), false)
            .set_column_encoding(ColumnPath::from(name), Encoding::BYTE_STREAM_SPLIT);
    }
    let sorted_by = ["sensor", "t_ns", "seq"].map(|name| SortingColumn {
        column_idx: schema.index_of(name).expect("the schema is this table's own") as i32,
        descending: false,
        nulls_first: false,
    });
    properties.set_sorting_columns(Some(sorted_by.to_vec())).build()
}

const ACC: [&str; 3] = ["acc_x", "acc_y", "acc_z"];
const GYRO: [&str; 3] = ["gyro_x", "gyro_y", "gyro_z"];
const ANGLE: [&str; 3] = ["angle_x", "angle_y", "angle_z"];
/// The columns of measured values.
const SAMPLES: [&str; 9] = ["acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z", "angle_x", "angle_y", "angle_z"];

/// A column of a row group, as it goes into the file.
enum Chunk {
    Arrow(ArrowColumnChunk),
    Dictionary(dictionary::Chunk),
}

/// The frames to write.
struct Source<'a> {
    session_id: SessionId,
    frames: &'a FrameColumns,
    factors: Vec<Option<f32>>,
    terms: &'a Terms<'a>,
}

impl Source<'_> {
    /// Writes the row groups; gives the checksums of each.
    fn write(
        &self,
        file: &File,
        properties: WriterPropertiesBuilder,
        groups: &[&[usize]],
    ) -> Result<Vec<Checksums>, ParquetError> {
        let schema = frames_schema();
        let properties = Some(frames_properties(properties, &schema));
        let (mut writer, factory) = ArrowWriter::try_new(file, schema, properties)?.into_serialized_writer()?;
        let columns: Vec<ColumnDescPtr> = writer.schema_descr().columns().to_vec();
        let mut checksums = Vec::with_capacity(groups.len());
        // As many groups at a time as there are threads: what is encoded and not yet written stays bounded.
        for wave in groups.chunks(rayon::current_num_threads().max(1)) {
            if !(self.terms.go_on)() {
                return Err(ParquetError::General("given up".to_owned()));
            }
            let first = checksums.len();
            let encoded: Vec<_> = wave
                .par_iter()
                .enumerate()
                .map(|(at, rows)| self.encode_group(&factory, &columns, first + at, rows))
                .collect();
            for encoded in encoded {
                let (chunks, sums) = encoded?;
                let mut group = writer.next_row_group()?;
                for chunk in chunks {
                    match chunk {
                        Chunk::Arrow(chunk) => chunk.append_to_row_group(&mut group)?,
                        Chunk::Dictionary(chunk) => group.append_column(&chunk.bytes, chunk.close)?,
                    }
                }
                group.close()?;
                checksums.push(sums);
            }
        }
        writer.close()?;
        Ok(checksums)
    }

    fn encode_group(
        &self,
        factory: &ArrowRowGroupWriterFactory,
        columns: &[ColumnDescPtr],
        index: usize,
        rows: &[usize],
    ) -> Result<(Vec<Chunk>, Checksums), ParquetError> {
        let factor = |sensor: u8| self.factors.get(usize::from(sensor)).copied().flatten();
        let batch = self.frames.to_batch(self.session_id, 0, rows, factor);
        let mut sums = Checksums::new(batch.num_columns());
        sums.add(&batch);
        let schema = batch.schema();
        // No column is nested: each is one leaf and has one writer.
        let writers: Vec<_> = factory.create_column_writers(index)?.into_iter().zip(columns).collect();
        let chunks = schema.fields().par_iter().zip(batch.columns()).zip(writers).map(
            |((field, column), (mut writer, descr))| {
                if let Some(values) = column.as_primitive_opt::<Float32Type>()
                    && let Some(dictionary) = Dictionary::of(values, self.terms.effort.level())?
                    && dictionary.expected_bytes < dictionary::split_bytes(values)
                {
                    return Ok(Chunk::Dictionary(dictionary.encode(values, ColumnDescPtr::clone(descr))?));
                }
                for leaf in compute_leaves(field, column)? {
                    writer.write(&leaf)?;
                }
                Ok(Chunk::Arrow(writer.close()?))
            },
        );
        Ok((chunks.collect::<Result<_, ParquetError>>()?, sums))
    }
}

/// Reads a sealed file back into columns, in the order of `seq`: the arrival order again.
///
/// NaNs come back as NaN, not with the payload they had.
///
/// # Errors
/// [`Error::Io`], [`Error::Parquet`], [`Error::Decode`], [`Error::Damaged`], [`Error::Foreign`], [`Error::Newer`].
pub fn read_frames(file: &TableFile) -> Result<FrameColumns, Error> {
    publish::contained(file.path(), || frames_of(file))
}

fn frames_of(file: &TableFile) -> Result<FrameColumns, Error> {
    let path = file.path();
    let foreign = |what| Error::Foreign { what, path: path.to_owned() };
    let reader = open_table(file, Table::Frames, &frames_schema())?;
    let rows = usize::try_from(reader.metadata().file_metadata().num_rows()).map_err(|_| foreign("the row count"))?;
    let mut sorted = FrameColumns::default();
    let mut seqs = Vec::new();
    for batch in batches(reader, path)? {
        let batch = batch?;
        let columns = Columns { batch: &batch, path };
        seqs.extend_from_slice(columns.required::<Int64Type>("seq")?);
        sorted.t_ns.extend_from_slice(columns.required::<Int64Type>("t_ns")?);
        sorted.received_at_us.extend_from_slice(columns.required::<Int64Type>("received_at_us")?);
        sorted.flags.extend_from_slice(columns.required::<Int32Type>("flags")?);
        let raw = columns.optional::<Int64Type>("device_time_raw")?;
        sorted.device_time_raw.extend(raw.iter().map(|raw| raw.unwrap_or(NO_DEVICE_TIME)));
        let sensor_id = columns.optional::<Int32Type>("sensor_id")?;
        sorted.sensor_id.extend(sensor_id.iter().map(|id| id.unwrap_or(0)));
        for sensor in columns.text("sensor", false)? {
            sorted.sensor.push(SensorRole::from_name(sensor.unwrap_or_default()).to_byte());
        }
        for clock in columns.text("clock", false)? {
            let known = (0..=u8::MAX).map(ClockKind::from_byte).find(|kind| Some(kind.as_str()) == clock);
            sorted.clock.push(known.ok_or_else(|| foreign("the clock column"))? as u8);
        }
        extend_axes(&mut sorted.acc, columns.axes(ACC)?);
        extend_axes(&mut sorted.gyro, columns.axes(GYRO)?);
        extend_axes(&mut sorted.angle, columns.axes(ANGLE)?);
    }
    let mut order: Vec<usize> = (0..seqs.len()).collect();
    order.sort_by_key(|&row| seqs.get(row).copied());
    if seqs.len() != rows {
        return Err(foreign("the row count"));
    }
    Ok(FrameColumns {
        sensor_id: in_order(&sorted.sensor_id, &order),
        sensor: in_order(&sorted.sensor, &order),
        device_time_raw: in_order(&sorted.device_time_raw, &order),
        t_ns: in_order(&sorted.t_ns, &order),
        clock: in_order(&sorted.clock, &order),
        received_at_us: in_order(&sorted.received_at_us, &order),
        acc: in_order(&sorted.acc, &order),
        gyro: in_order(&sorted.gyro, &order),
        angle: in_order(&sorted.angle, &order),
        flags: in_order(&sorted.flags, &order),
    })
}

/// The factor from `acc` to m/s² of each sensor byte in a sealed file; `None` while undecided.
///
/// # Errors
/// As [`read_frames`].
pub fn acc_factors(file: &TableFile) -> Result<HashMap<u8, Option<f32>>, Error> {
    let path = file.path();
    publish::contained(path, || {
        let reader = open_table(file, Table::Frames, &frames_schema())?;
        let mask = ProjectionMask::columns(reader.parquet_schema(), ["sensor", "acc_to_mps2"]);
        let mut factors = HashMap::new();
        for batch in batches(reader.with_projection(mask), path)? {
            let batch = batch?;
            let columns = Columns { batch: &batch, path };
            let sensors = columns.text("sensor", false)?;
            let values = columns.optional::<Float32Type>("acc_to_mps2")?;
            for (sensor, value) in sensors.iter().zip(values) {
                factors.insert(SensorRole::from_name(sensor.unwrap_or_default()).to_byte(), value);
            }
        }
        Ok(factors)
    })
}

/// What the writer of a sealed file said of the session, for [`write_frames`] to say it of a copy.
///
/// # Errors
/// As [`read_frames`].
pub fn metadata(file: &TableFile) -> Result<Vec<(String, String)>, Error> {
    publish::contained(file.path(), || {
        let reader = open_table(file, Table::Frames, &frames_schema())?;
        let said = |key: &str| Some((key.to_owned(), value_of(reader.metadata(), key)?.to_owned()));
        Ok([KEY_DEVICE_CODE, KEY_SYNC_ERROR_NS, KEY_CLOCK_ERRORS_NS, KEY_CLOCKS].into_iter().filter_map(said).collect())
    })
}

fn in_order<T: Copy>(values: &[T], order: &[usize]) -> Vec<T> {
    order.iter().filter_map(|&row| values.get(row).copied()).collect()
}

fn extend_axes(out: &mut Vec<[f32; 3]>, axes: [&Float32Array; 3]) {
    let start = out.len();
    let [x, ..] = axes;
    out.resize(start + x.len(), [f32::NAN; 3]);
    for (at, axis) in axes.into_iter().enumerate() {
        for (vector, value) in out.iter_mut().skip(start).zip(axis) {
            if let (Some(slot), Some(value)) = (vector.get_mut(at), value) {
                *slot = value;
            }
        }
    }
}

/// A sealed file that was found in the data folder, with what it says of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where, relative to the data folder.
    pub path: TablePath,
    /// Number of rows.
    pub rows: u64,
    /// Size of the file, bytes.
    pub bytes: u64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// Revision of the file, from 1.
    pub revision: u32,
    /// Start of the session, µs since 1970 UTC.
    pub started_at_us: i64,
    /// The device that recorded it, as text; `None` if the file does not say.
    pub device_code: Option<String>,
    /// Estimated error between sensor clocks, ns.
    pub sync_error_ns: i64,
}

/// The sealed frames of sessions with a number above `newest`: those that a lost catalog knew. Files that cannot be read
/// are left to the audit.
///
/// # Errors
/// [`Error::Io`] if the folders cannot be listed.
pub fn found_above(paths: &Paths, newest: SessionId) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    pack::each_file(paths, Table::Frames, |path, file| {
        if path.session_id() <= newest {
            return;
        }
        match publish::contained(file.path(), || describe(&file, path)) {
            Ok(description) => found.push(description),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                session.id = %path.session_id(),
                "a frames file of session {} is there that nobody knows and that cannot be read",
                path.session_id()
            ),
        }
    })?;
    Ok(found)
}

/// The files of some sessions that are there in all tables, those in packs too, also those that a killed process had made and not
/// yet named in the catalog.
///
/// # Errors
/// [`Error::Io`] if the folders cannot be listed.
pub fn files_of(paths: &Paths, is_wanted: impl Fn(SessionId) -> bool) -> Result<Vec<TablePath>, Error> {
    let mut found = Vec::new();
    for table in Table::ALL {
        pack::each_file(paths, table, |path, _| found.extend(is_wanted(path.session_id()).then_some(path)))?;
    }
    Ok(found)
}

fn describe(file: &TableFile, path: TablePath) -> Result<Found, Error> {
    let reader = open_table(file, Table::Frames, &frames_schema())?;
    let metadata = reader.metadata();
    let value = |key| value_of(metadata, key).map(str::to_owned);
    let number = |key| value_of(metadata, key).and_then(|value| value.parse::<i64>().ok());
    let foreign = |what| Error::Foreign { what, path: file.path().to_owned() };
    if number(publish::KEY_SESSION) != Some(path.session_id().get()) {
        return Err(foreign("the session's number"));
    }
    let revision = number(publish::KEY_REVISION).and_then(|revision| revision.try_into().ok());
    let (bytes, sha256) = file.sha256()?;
    Ok(Found {
        path,
        rows: metadata.file_metadata().num_rows() as u64,
        bytes,
        sha256,
        revision: revision.ok_or_else(|| foreign("the revision"))?,
        started_at_us: number(publish::KEY_STARTED_AT).ok_or_else(|| foreign("the start of the session"))?,
        device_code: value(KEY_DEVICE_CODE),
        sync_error_ns: number(KEY_SYNC_ERROR_NS).unwrap_or(0),
    })
}

/// Reads what the pipelines need of a sealed file: the tracks of the four sensors, values as sent.
///
/// # Errors
/// As [`read_frames`].
pub fn read_track(file: &TableFile) -> Result<Track, Error> {
    publish::contained(file.path(), || track_of(file))
}

fn track_of(file: &TableFile) -> Result<Track, Error> {
    let path = file.path();
    let reader = open_table(file, Table::Frames, &frames_schema())?;
    let sync_error_ns =
        value_of(reader.metadata(), KEY_SYNC_ERROR_NS).and_then(|value| value.parse().ok()).unwrap_or(0);
    let clocks = value_of(reader.metadata(), KEY_CLOCKS).and_then(|notes| serde_json::from_str(notes).ok());
    let clock_errors_ns: BTreeMap<String, i64> = value_of(reader.metadata(), KEY_CLOCK_ERRORS_NS)
        .and_then(|errors| serde_json::from_str(errors).ok())
        .unwrap_or_default();
    let mut track = Track { sync_error_ns, clocks: clocks.unwrap_or_default(), ..Track::default() };
    let mut untimed = SensorRole::CHAIN.map(|_| Vec::new());
    let wanted = ["sensor", "t_ns", "clock"].into_iter().chain(SAMPLES);
    let mask = ProjectionMask::columns(reader.parquet_schema(), wanted);
    for batch in batches(reader.with_projection(mask), path)? {
        let batch = batch?;
        let columns = Columns { batch: &batch, path };
        let sensors = columns.text("sensor", false)?;
        let t_ns = columns.required::<Int64Type>("t_ns")?;
        let clocks = columns.text("clock", false)?;
        let mut vectors = [Vec::new(), Vec::new(), Vec::new()];
        for (vectors, names) in vectors.iter_mut().zip([ACC, GYRO, ANGLE]) {
            extend_axes(vectors, columns.axes(names)?);
        }
        let [acc, gyro, angle] = &vectors;
        let samples = sensors.iter().zip(t_ns).zip(clocks).zip(acc.iter().zip(gyro).zip(angle));
        for (((sensor, &t_ns), clock), ((&acc, &gyro), &angle)) in samples {
            let role = SensorRole::from_name(sensor.unwrap_or_default());
            let place = role.chain_index().and_then(|index| untimed.get_mut(index));
            if let Some((track, untimed)) = track.get_or_insert(role).zip(place) {
                track.push(t_ns, acc, gyro, angle);
                untimed.push(clock == Some(ClockKind::Arrival.as_str()));
            }
        }
    }
    for ((role, samples), untimed) in SensorRole::CHAIN.into_iter().zip(&mut track.sensors).zip(&untimed) {
        if let Some(samples) = samples {
            samples.leave_out(untimed);
            samples.clock_error_ns = clock_errors_ns.get(&role.to_string()).copied();
        }
    }
    let is_sorted = track.iter().all(|(_, samples)| samples.t_ns.is_sorted());
    if is_sorted { Ok(track) } else { Err(Error::Foreign { what: "the order of time", path: path.to_owned() }) }
}

#[cfg(test)]
mod tests;
