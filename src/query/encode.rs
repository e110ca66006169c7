//! An answer as bytes in an outside format.

use std::pin::Pin;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tokio::sync::mpsc;

use super::engine::{Answer, Handle, Taker};
use super::error::Error;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON array of row objects, a row a line; null is written, dates and times are ISO 8601 text.
    Json,
    /// A row object a line.
    Jsonl,
    /// RFC 4180 with a header line; null is the empty field.
    Csv,
    /// An Arrow IPC stream, with units and comments as field metadata.
    Arrow,
    /// A Parquet file under zstd, with units and comments as field metadata.
    Parquet,
}

impl Format {
    /// The media type of the bytes.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Jsonl => "application/jsonl",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// The name, which is also the ending of a file of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }
}

/// A stream of bytes; the last item may be an error, and what came before is then incomplete.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// Rows of a group of a Parquet answer: what is in memory before it leaves.
const PARQUET_GROUP_ROWS: usize = 1 << 17;

/// Pieces of at most one batch that wait for a slow reader.
const BYTE_QUEUE: usize = 2;

impl Handle {
    /// Writes an answer in `format`, on the room's threads. Dropping the stream ends the statement.
    pub fn encode(&self, answer: Answer, format: Format) -> ByteStream {
        let (sender, receiver) = mpsc::channel(BYTE_QUEUE);
        let guard = self.spawn(encode(answer, format, sender));
        futures::stream::unfold((receiver, guard), |(mut receiver, guard)| async move {
            receiver.recv().await.map(|piece| (piece, (receiver, guard)))
        })
        .fuse()
        .boxed()
    }
}

/// How much of an answer is held back before the first piece leaves.
pub(super) const BEGINNING_BYTES: usize = 64 * 1024;

/// Writes an answer where it is made.
pub(super) struct Writer {
    format: Format,
    encoder: Option<Encoder>,
    /// What has not left.
    written: Vec<u8>,
    has_begun: bool,
    sender: mpsc::Sender<Bytes>,
}

impl Writer {
    /// A writer, and what it writes: no piece is empty but where the whole answer is.
    pub(super) fn new(format: Format) -> (Self, mpsc::Receiver<Bytes>) {
        let (sender, receiver) = mpsc::channel(BYTE_QUEUE);
        (Self { format, encoder: None, written: Vec::new(), has_begun: false, sender }, receiver)
    }

    fn write(&mut self, write: impl FnOnce(&mut Encoder) -> Result<Vec<u8>, ArrowError>) -> Result<(), Error> {
        let format = self.format.name();
        let written = self.encoder.as_mut().map_or_else(|| Ok(Vec::new()), write);
        let written = written.map_err(|error| Error::Encode { format, message: error.to_string() })?;
        if self.written.is_empty() {
            self.written = written;
        } else {
            self.written.extend_from_slice(&written);
        }
        Ok(())
    }

    async fn send(&mut self) -> bool {
        self.has_begun = true;
        let piece = std::mem::take(&mut self.written);
        piece.is_empty() || self.sender.send(Bytes::from(piece)).await.is_ok()
    }
}

impl Taker for Writer {
    fn begin(&mut self, schema: &SchemaRef) -> Result<bool, Error> {
        let format = self.format.name();
        let encoder = Encoder::new(self.format, schema);
        self.encoder = Some(encoder.map_err(|error| Error::Encode { format, message: error.to_string() })?);
        Ok(!self.sender.is_closed())
    }

    async fn take(&mut self, batch: RecordBatch) -> Result<bool, Error> {
        self.write(|encoder| encoder.batch(&batch))?;
        if self.has_begun || self.written.len() >= BEGINNING_BYTES {
            return Ok(self.send().await);
        }
        Ok(!self.sender.is_closed())
    }

    async fn end(&mut self) -> Result<bool, Error> {
        self.write(Encoder::finish)?;
        Ok(self.send().await)
    }
}

async fn encode(answer: Answer, format: Format, sender: mpsc::Sender<Result<Bytes, Error>>) {
    let Answer { schema, mut batches, .. } = answer;
    let failed = |error: ArrowError| Error::Encode { format: format.name(), message: error.to_string() };
    let mut encoder = match Encoder::new(format, &schema) {
        Ok(encoder) => encoder,
        Err(error) => {
            // A receiver that has gone needs no error.
            sender.send(Err(failed(error))).await.ok();
            return;
        }
    };
    loop {
        let (piece, last) = match batches.next().await {
            Some(Ok(batch)) => (encoder.batch(&batch).map_err(failed), false),
            Some(Err(error)) => (Err(error), true),
            None => (encoder.finish().map_err(failed), true),
        };
        let last = last || piece.is_err();
        if sender.send(piece.map(Bytes::from)).await.is_err() || last {
            return;
        }
    }
}

enum Encoder {
    Json { rows: u64 },
    Jsonl,
    Csv { schema: SchemaRef, header: bool },
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Parquet(Box<ArrowWriter<Vec<u8>>>),
}

impl Encoder {
    fn new(format: Format, schema: &SchemaRef) -> Result<Self, ArrowError> {
        Ok(match format {
            Format::Json => Self::Json { rows: 0 },
            Format::Jsonl => Self::Jsonl,
            Format::Csv => Self::Csv { schema: SchemaRef::clone(schema), header: true },
            Format::Arrow => Self::Arrow(Box::new(StreamWriter::try_new(Vec::new(), schema)?)),
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_created_by(concat!("volant ", env!("CARGO_PKG_VERSION")).to_owned())
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(PARQUET_GROUP_ROWS))
                    .build();
                let writer = ArrowWriter::try_new(Vec::new(), SchemaRef::clone(schema), Some(properties))?;
                Self::Parquet(Box::new(writer))
            }
        })
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        match self {
            Self::Json { rows } => {
                let lines = json_lines(batch)?;
                let mut bytes = Vec::with_capacity(lines.len() + batch.num_rows() + 2);
                for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                    bytes.extend_from_slice(if *rows == 0 { b"[" } else { b",\n" });
                    bytes.extend_from_slice(line);
                    *rows += 1;
                }
                Ok(bytes)
            }
            Self::Jsonl => json_lines(batch),
            Self::Csv { header, .. } => {
                let bytes = csv(batch, *header)?;
                *header = false;
                Ok(bytes)
            }
            Self::Arrow(writer) => {
                writer.write(batch)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            // The writer counts for itself where it is in the file; what it has written may leave.
            Self::Parquet(writer) => {
                writer.write(batch)?;
                Ok(std::mem::take(writer.inner_mut()))
            }
        }
    }

    fn finish(&mut self) -> Result<Vec<u8>, ArrowError> {
        match self {
            Self::Json { rows: 0 } => Ok(b"[]\n".to_vec()),
            Self::Json { .. } => Ok(b"]\n".to_vec()),
            Self::Csv { schema, header: true } => csv(&RecordBatch::new_empty(SchemaRef::clone(schema)), true),
            Self::Jsonl | Self::Csv { .. } => Ok(Vec::new()),
            Self::Arrow(writer) => {
                writer.finish()?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Self::Parquet(writer) => {
                writer.finish()?;
                Ok(std::mem::take(writer.inner_mut()))
            }
        }
    }
}

fn json_lines(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = arrow::json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

fn csv(batch: &RecordBatch, header: bool) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = arrow::csv::WriterBuilder::new().with_header(header).build(&mut bytes);
    writer.write(batch)?;
    drop(writer);
    Ok(bytes)
}
