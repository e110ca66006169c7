use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Float64Array, RecordBatch, StringArray};
use arrow::csv::WriterBuilder;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use schemas::tables::column;

use super::{Error, Recording};

/// Writes recordings into one file, CSV or Parquet by the path's ending, row after row of each sensor in turn. Angles are
/// left out if no sample has any. The columns are those that [`super::read_recording`] reads; NaN is written as null.
///
/// # Errors
/// [`Error::Format`] for another ending, [`Error::Write`], [`Error::Encode`], [`Error::EncodeParquet`].
pub fn write_recording(path: &Path, recordings: &[Recording]) -> Result<(), Error> {
    let ending = path.extension().map(OsStr::to_ascii_lowercase);
    match ending.as_deref().and_then(|ending| ending.to_str()) {
        Some("csv") => write_csv(path, &batch(path, recordings, Angles::IfAny)?),
        Some("parquet") => {
            let write = |source| Error::Write { path: path.to_owned(), source };
            let file = File::create(path).map_err(write)?;
            encode_parquet(path, &batch(path, recordings, Angles::IfAny)?, &file)?;
            file.sync_all().map_err(write)
        }
        _ => Err(Error::Format { path: path.to_owned() }),
    }
}

/// Writes recordings into one Parquet file, one after the other, so that only one need be in memory; the columns are those of
/// [`write_recording`] with angles.
pub struct Samples {
    path: PathBuf,
    writer: ArrowWriter<File>,
}

impl Samples {
    /// Makes the file.
    ///
    /// # Errors
    /// [`Error::Write`], [`Error::EncodeParquet`].
    pub fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(|source| Error::Write { path: path.to_owned(), source })?;
        let schema = batch(path, &[], Angles::Always)?.schema();
        Ok(Self { path: path.to_owned(), writer: encoder(path, schema, file)? })
    }

    /// Adds a recording, under a name that no other has.
    ///
    /// # Errors
    /// [`Error::Encode`], [`Error::EncodeParquet`].
    pub fn write(&mut self, recording: &Recording) -> Result<(), Error> {
        let batch = batch(&self.path, std::slice::from_ref(recording), Angles::Always)?;
        let encode = |source| Error::EncodeParquet { path: self.path.clone(), source };
        self.writer.write(&batch).and_then(|()| self.writer.flush()).map_err(encode)
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`Error::Write`], [`Error::EncodeParquet`].
    pub fn finish(self) -> Result<(), Error> {
        let Self { path, writer } = self;
        let file = match writer.into_inner() {
            Ok(file) => file,
            Err(source) => return Err(Error::EncodeParquet { path, source }),
        };
        file.sync_all().map_err(|source| Error::Write { path, source })
    }
}

/// Whether the columns of angles are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Angles {
    Always,
    IfAny,
}

fn batch(path: &Path, recordings: &[Recording], angles: Angles) -> Result<RecordBatch, Error> {
    let mut names = Vec::new();
    let mut sensors = Vec::new();
    let mut t_ms = Vec::new();
    let mut values: [Vec<Option<f32>>; 9] = Default::default();
    for recording in recordings {
        for (role, track) in recording.track.iter() {
            for row in 0..track.len() {
                names.push(&*recording.name);
                sensors.push(role.as_str());
                t_ms.push(track.t_ns[row] as f64 * 1e-6);
                let row_values = track.acc[row].iter().chain(&track.gyro[row]).chain(&track.angle[row]);
                for (column, &value) in values.iter_mut().zip(row_values) {
                    column.push(Some(value).filter(|value| value.is_finite()));
                }
            }
        }
    }
    let mut fields = vec![
        column("recording", DataType::Utf8, false, "name of the recording"),
        column("sensor", DataType::Utf8, false, "waist, shoulder, wrist or racket"),
        column("t_ms", DataType::Float64, false, "ms from the start of the recording"),
    ];
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(names)),
        Arc::new(StringArray::from(sensors)),
        Arc::new(Float64Array::from(t_ms)),
    ];
    let comments = [
        ("ax", "specific force x, gravity included, m/s²; null: not measured"),
        ("ay", "specific force y, gravity included, m/s²; null: not measured"),
        ("az", "specific force z, gravity included, m/s²; null: not measured"),
        ("gx", "angular velocity x, °/s; null: not measured"),
        ("gy", "angular velocity y, °/s; null: not measured"),
        ("gz", "angular velocity z, °/s; null: not measured"),
        ("roll", "roll of the device's own filter, °; null: not sent"),
        ("pitch", "pitch of the device's own filter, °; null: not sent"),
        ("yaw", "yaw of the device's own filter, °; null: not sent"),
    ];
    let angles = angles == Angles::Always || values[6..].iter().flatten().any(Option::is_some);
    for ((name, comment), values) in comments.into_iter().zip(values).take(if angles { 9 } else { 6 }) {
        fields.push(column(name, DataType::Float32, true, comment));
        arrays.push(Arc::new(Float32Array::from(values)));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|source| Error::Encode { path: path.to_owned(), source })
}

fn write_csv(path: &Path, batch: &RecordBatch) -> Result<(), Error> {
    let write = |source| Error::Write { path: path.to_owned(), source };
    let file = File::create(path).map_err(write)?;
    let mut writer = WriterBuilder::new().with_header(true).build(&file);
    writer.write(batch).map_err(|source| Error::Encode { path: path.to_owned(), source })?;
    drop(writer);
    file.sync_all().map_err(write)
}

/// The Parquet file of a recording, in memory; `name` stands in errors.
///
/// # Errors
/// [`Error::Encode`], [`Error::EncodeParquet`].
pub fn recording_as_parquet(name: &str, recording: &Recording) -> Result<Vec<u8>, Error> {
    let path = Path::new(name);
    let mut bytes = Vec::new();
    encode_parquet(path, &batch(path, std::slice::from_ref(recording), Angles::IfAny)?, &mut bytes)?;
    Ok(bytes)
}

fn encode_parquet(path: &Path, batch: &RecordBatch, into: impl Write + Send) -> Result<(), Error> {
    let encode = |source| Error::EncodeParquet { path: path.to_owned(), source };
    let mut writer = encoder(path, batch.schema(), into)?;
    writer.write(batch).map_err(encode)?;
    writer.close().map_err(encode)?;
    Ok(())
}

fn encoder<W: Write + Send>(path: &Path, schema: SchemaRef, into: W) -> Result<ArrowWriter<W>, Error> {
    let encode = |source| Error::EncodeParquet { path: path.to_owned(), source };
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(9).map_err(encode)?))
        .set_created_by("volant".to_owned());
    // Bytes of equal weight side by side compress far better than whole floats.
    for field in schema.fields().iter().filter(|field| field.data_type().is_floating()) {
        let path = ColumnPath::from(field.name().as_str());
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::BYTE_STREAM_SPLIT);
    }
    ArrowWriter::try_new(into, schema, Some(properties.build())).map_err(encode)
}
