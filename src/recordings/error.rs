use std::io;
use std::path::PathBuf;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use parquet::errors::ParquetError;

/// Why a recording could not be read or written. Rows count from 1, without a header line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or folder cannot be opened or read.
    #[error("read recording {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The ending is neither `.csv` nor `.parquet`, and the content is not Parquet.
    #[error("recognise recording (CSV and Parquet are read) {}", path.display())]
    Format { path: PathBuf },
    /// The content is not Parquet after all, or is damaged.
    #[error("decode Parquet {}", path.display())]
    Parquet {
        path: PathBuf,
        #[source]
        source: ParquetError,
    },
    /// A line with too many or too few fields, text that is not UTF-8, or damaged Parquet pages.
    #[error("decode rows of {}", path.display())]
    Rows {
        path: PathBuf,
        #[source]
        source: ArrowError,
    },
    /// Columns that a recording needs are not there.
    #[error("find column {} (columns here: {}) in {}", missing.join(", "), present.join(", "), path.display())]
    MissingColumns { missing: Vec<String>, present: Vec<String>, path: PathBuf },
    /// A column whose type cannot hold what it should.
    #[error("read column {column} of type {found} as {expected} in {}", path.display())]
    ColumnType { column: String, found: DataType, expected: &'static str, path: PathBuf },
    /// A field that is not a number.
    #[error("read {text:?} as a number in column {column}, row {row} of {}", path.display())]
    Number { text: String, column: String, row: u64, path: PathBuf },
    /// A field that is no date and time.
    #[error("read {text:?} as a date and time in column {column}, row {row} of {}", path.display())]
    DateTime { text: String, column: String, row: u64, path: PathBuf },
    /// A time that is missing, not finite or too far from the start.
    #[error(
        "place a sample at time {value} ms, column {column}, row {row} of {}: times are ms from the start of the recording, or since 1970",
        path.display()
    )]
    Time { value: f64, column: String, row: u64, path: PathBuf },
    /// A sensor that is none of the four.
    #[error("find sensor {name:?} among waist, shoulder, wrist, racket, row {row} of {}", path.display())]
    Sensor { name: String, row: u64, path: PathBuf },
    /// A label without the name of its recording, or of a recording that the set does not have.
    #[error("find recording {name:?} of label row {row} of {}", path.display())]
    LabelRecording { name: String, row: u64, path: PathBuf },
    /// A mapping file or a set of another layout that cannot be understood.
    #[error("understand {}: {what}", path.display())]
    Mapping { what: String, path: PathBuf },
    /// No rows.
    #[error("find any sample in {}", path.display())]
    Empty { path: PathBuf },
    /// More rows than [`super::ROW_LIMIT`].
    #[error("keep more than {limit} rows of {}", path.display())]
    TooLong { limit: u64, path: PathBuf },
    /// The file cannot be made or written.
    #[error("write recording {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The rows could not be encoded.
    #[error("encode rows of {}", path.display())]
    Encode {
        path: PathBuf,
        #[source]
        source: ArrowError,
    },
    /// The Parquet file could not be written.
    #[error("encode Parquet {}", path.display())]
    EncodeParquet {
        path: PathBuf,
        #[source]
        source: ParquetError,
    },
}
