//! How a Parquet file comes into being: temporary name, sync, read back, rename, sync of the folder.
//!
//! A reader sees the old file or the new one, whole, or none. A crash leaves at most a file under a temporary name.

#![deny(clippy::indexing_slicing)]

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrowPrimitiveType, AsArray as _, Float32Array, Float64Array, PrimitiveArray, RecordBatch, StringArray,
};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use rayon::prelude::*;
use schemas::SessionId;
use sha2::{Digest as _, Sha256};

use super::class::Class;
use super::pack::{self, TableFile};
use super::paths::{Paths, Table, TablePath};
use super::seal::{Manifest, ROW_GROUP_ROWS};
use super::swap;

/// Metadata key of the table's name.
pub(super) const KEY_TABLE: &str = "volant.table";
/// Metadata key of the table's version.
pub(super) const KEY_VERSION: &str = "volant.version";
/// Metadata key of the session's number.
pub(super) const KEY_SESSION: &str = "volant.session_id";
/// Metadata key of the start of the session, µs since 1970 UTC.
pub(super) const KEY_STARTED_AT: &str = "volant.started_at_us";
/// Metadata key of the file's revision, from 1.
pub(super) const KEY_REVISION: &str = "volant.revision";

/// What wrote a file, as its footer says.
pub(super) const CREATED_BY: &str = concat!("volant ", env!("CARGO_PKG_VERSION"));

/// Why a Parquet file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Making, syncing or renaming the file or its folder.
    #[error("{step} {}", path.display())]
    Io {
        /// What was done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Encoding or decoding Parquet.
    #[error("{step} {}", path.display())]
    Parquet {
        /// What was done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: ParquetError,
    },
    /// Decoding a batch of a Parquet file.
    #[error("decode {}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: ArrowError,
    },
    /// What was read back is not what was written. The file was not published.
    #[error("verify {what} of session {session_id} in {}", path.display())]
    Verify {
        /// What differs.
        what: &'static str,
        /// The session.
        session_id: SessionId,
        /// The temporary file, which is deleted.
        path: PathBuf,
    },
    /// The file is no table of ours, or not the one that was asked for.
    #[error("read {what} in {}", path.display())]
    Foreign {
        /// What is missing or wrong.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The decoder broke down over damaged bytes.
    #[error("decode {}: its bytes are damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer Volant.
    #[error("read version {version} of a table, newer than this program, in {}", path.display())]
    Newer {
        /// The version of the table.
        version: u32,
        /// The file.
        path: PathBuf,
    },
    /// The file changed, or its session was packed, meanwhile; nothing was published.
    #[error("replace {}, which changed meanwhile", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The columns to write differ in length, or the rows belong to another session.
    #[error("write {what} of session {session_id}")]
    Rows {
        /// What is wrong.
        what: &'static str,
        /// The session.
        session_id: SessionId,
    },
}

impl Error {
    /// Who has to act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Rows { .. } => Class::Bug,
            Self::Io { .. }
            | Self::Parquet { .. }
            | Self::Decode { .. }
            | Self::Verify { .. }
            | Self::Foreign { .. }
            | Self::Damaged { .. }
            | Self::Changed { .. }
            | Self::Newer { .. } => Class::Environment,
        }
    }

    /// True if the file is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// True if doing the same again may succeed: the disk may have room or be well again.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Parquet { .. } | Self::Verify { .. } | Self::Changed { .. })
    }
}

pub(super) fn io_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { step, path, source }
}

pub(super) fn parquet_error(step: &'static str, path: &Path) -> impl FnOnce(ParquetError) -> Error {
    let path = path.to_owned();
    move |source| Error::Parquet { step, path, source }
}

pub(super) fn decode_error(path: &Path) -> impl FnOnce(ArrowError) -> Error {
    let path = path.to_owned();
    move |source| Error::Decode { path, source }
}

/// Writer properties that all tables share, with the metadata that says what the file is.
pub(super) fn properties(
    schema: &SchemaRef,
    path: TablePath,
    started_at_us: i64,
    revision: u32,
    extra: &[(String, String)],
    compression: Compression,
) -> WriterPropertiesBuilder {
    let own = [
        (KEY_TABLE, path.table().to_string()),
        (KEY_VERSION, schema.metadata().get(KEY_VERSION).cloned().unwrap_or_default()),
        (KEY_SESSION, path.session_id().to_string()),
        (KEY_STARTED_AT, started_at_us.to_string()),
        (KEY_REVISION, revision.to_string()),
    ];
    let own = own.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value));
    let extra = extra.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(compression)
        .set_key_value_metadata(Some(own.chain(extra).collect()))
}

/// Publishes a file of one batch: writes, reads back, renames.
pub(super) fn publish_batch(
    paths: &Paths,
    path: TablePath,
    properties: WriterProperties,
    revision: u32,
    batch: &RecordBatch,
) -> Result<Manifest, Error> {
    let mut written = Checksums::new(batch.num_columns());
    written.add(batch);
    publish(paths, path, |file, temporary| {
        let failed = |source| parquet_error("write", temporary)(source);
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).map_err(failed)?;
        writer.write(batch).map_err(failed)?;
        writer.close().map_err(failed)?;
        Ok(())
    })?
    .verified(revision, batch.num_rows() as u64, None, |file| {
        let mut read = Checksums::new(batch.num_columns());
        for batch in batches(open(file)?, file.path())? {
            read.add(&batch?);
        }
        Ok(read == written)
    })
}

/// Gives bytes that were written elsewhere a place, if they are what they should be: copied under a temporary name, synced,
/// compared, renamed.
///
/// # Errors
/// [`Error::Io`]; [`Error::Verify`] if length or sum differ, and nothing is published then.
pub fn place(paths: &Paths, path: TablePath, bytes: &mut dyn io::Read, sha256: &str) -> Result<u64, Error> {
    let mut copied = 0;
    let unpublished = publish(paths, path, |mut file, temporary| {
        copied = io::copy(bytes, &mut file).map_err(io_error("write", temporary))?;
        Ok(())
    })?;
    let (_, found) = TableFile::open(&unpublished.temporary)?.sha256()?;
    if found != sha256 {
        let temporary = unpublished.temporary.clone();
        return Err(Error::Verify { what: "the sum", session_id: path.session_id(), path: temporary });
    }
    unpublished.rename()?;
    Ok(copied)
}

/// A file that is written and synced, not yet visible. Dropped before its publication it is deleted.
pub(super) struct Unpublished {
    paths: Paths,
    path: TablePath,
    temporary: PathBuf,
    target: PathBuf,
    published: bool,
}

/// Writes a file under a temporary name and syncs it. A pack that holds the session is undone first.
pub(super) fn publish(
    paths: &Paths,
    path: TablePath,
    write: impl FnOnce(&File, &Path) -> Result<(), Error>,
) -> Result<Unpublished, Error> {
    make_folder(paths, &paths.folder(path))?;
    swap::undo_for(paths, path)?;
    prepare(paths, path, write)
}

/// The same, in a folder that is there, of a session that is in no pack: its file gets no name if it is in one then.
pub(super) fn prepare(
    paths: &Paths,
    path: TablePath,
    write: impl FnOnce(&File, &Path) -> Result<(), Error>,
) -> Result<Unpublished, Error> {
    let (target, folder) = (paths.file(path), paths.folder(path));
    let (file, temporary) = {
        let _shared = swap::shared(paths, path.table())?;
        create_temporary(&folder, &path.file_name())?
    };
    let unpublished = Unpublished { paths: paths.clone(), path, temporary, target, published: false };
    write(&file, &unpublished.temporary)?;
    file.sync_all().map_err(io_error("sync", &unpublished.temporary))?;
    Ok(unpublished)
}

impl Unpublished {
    /// Its length.
    pub(super) fn bytes(&self) -> Result<u64, Error> {
        fs::metadata(&self.temporary).map(|about| about.len()).map_err(io_error("look at", &self.temporary))
    }

    /// Reads the file back; if it is what was written, gives it its name.
    pub(super) fn verified(
        self,
        revision: u32,
        rows: u64,
        t_range_ns: Option<(i64, i64)>,
        is_same: impl FnOnce(&TableFile) -> Result<bool, Error>,
    ) -> Result<Manifest, Error> {
        let differs = |what, temporary: &Path| Error::Verify {
            what,
            session_id: self.path.session_id(),
            path: temporary.to_owned(),
        };
        let file = TableFile::open(&self.temporary)?;
        if open(&file)?.metadata().file_metadata().num_rows() != rows as i64 {
            return Err(differs("the number of rows", &self.temporary));
        }
        if !is_same(&file)? {
            return Err(differs("the values", &self.temporary));
        }
        let (bytes, sha256) = file.sha256()?;
        let path = self.path;
        self.rename()?;
        let (t_min_ns, t_max_ns) = t_range_ns.unzip();
        Ok(Manifest { path, rows, bytes, sha256, revision, t_min_ns, t_max_ns })
    }

    fn rename(mut self) -> Result<(), Error> {
        let _shared = swap::shared(&self.paths, self.path.table())?;
        if pack::holder(&self.paths, self.path)?.is_some() {
            return Err(Error::Changed { path: self.target.clone() });
        }
        swap::keep(&self.paths, self.path);
        fs::rename(&self.temporary, &self.target).map_err(io_error("rename to", &self.target))?;
        self.published = true;
        self.target.parent().map_or(Ok(()), sync_folder)
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be deleted now is deleted at the next start.
            drop(fs::remove_file(&self.temporary));
        }
    }
}

/// Makes a folder below the data folder, and makes it last.
pub(super) fn make_folder(paths: &Paths, folder: &Path) -> Result<(), Error> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(io_error("make folder", folder))?;
    for made in folder.ancestors().skip(1).take_while(|above| above.starts_with(paths.root())) {
        sync_folder(made)?;
    }
    Ok(())
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("sync folder", folder))
}

/// A new file whose name no other writer uses.
fn create_temporary(folder: &Path, file_name: &str) -> Result<(File, PathBuf), Error> {
    let mut attempt = 0u32;
    loop {
        let path = folder.join(format!("_{file_name}.{attempt}.tmp"));
        match File::create_new(&path) {
            Ok(file) => return Ok((file, path)),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists && attempt < u32::MAX => attempt += 1,
            Err(source) => return Err(Error::Io { step: "make", path, source }),
        }
    }
}

/// True for a name that [`create_temporary`] gives.
pub(super) fn is_temporary(file: &Path) -> bool {
    let starts_right = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"_"));
    starts_right && file.extension().is_some_and(|extension| extension == "tmp")
}

/// Deletes the files that a crash left under temporary names, or on their way into the folder, and what a compaction left behind; gives
/// their number. For the start of the one process that writes this data folder.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_unfinished(paths: &Paths) -> Result<usize, Error> {
    let mut removed = swap::remove_replaced(paths, None)?.unwrap_or(0);
    for on_its_way in [paths.incoming(), paths.unpacked()] {
        removed += entries(&on_its_way)?.len();
        match fs::remove_dir_all(&on_its_way) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("delete", &on_its_way)(error));
            }
            _ => {}
        }
    }
    for table in Table::ALL {
        for folder in entries(&paths.table(table))? {
            for file in entries(&folder)? {
                if is_temporary(&file) {
                    fs::remove_file(&file).map_err(io_error("delete", &file))?;
                    removed += 1;
                }
            }
        }
    }
    Ok(removed)
}

/// What a folder holds, in the order of names; nothing for a folder that is not there, or that is a file.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(io_error("list", folder)(error)),
    };
    let paths: io::Result<Vec<_>> = listing.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(io_error("list", folder))?;
    paths.sort_unstable();
    Ok(paths)
}

/// A reader of a table's file.
pub(super) type Reader = ParquetRecordBatchReaderBuilder<TableFile>;

/// How every file is read. The Arrow schema in the metadata is for other readers: ours follows from the Parquet types, and
/// the decoder of that one panics on some damaged bytes.
fn reading() -> ArrowReaderOptions {
    ArrowReaderOptions::new().with_skip_arrow_metadata(true)
}

/// Reads the footer of a Parquet file.
pub(super) fn open(file: &TableFile) -> Result<Reader, Error> {
    ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), reading())
        .map_err(parquet_error("read footer of", file.path()))
}

/// A value of a file's own metadata.
pub(super) fn value_of<'a>(metadata: &'a ParquetMetaData, key: &str) -> Option<&'a str> {
    let values = metadata.file_metadata().key_value_metadata()?;
    values.iter().find(|entry| entry.key == key)?.value.as_deref()
}

/// Opens a file of `table`, of the version of `schema` or an older one.
pub(super) fn open_table(file: &TableFile, table: Table, schema: &SchemaRef) -> Result<Reader, Error> {
    let reader = open(file)?;
    let path = file.path().to_owned();
    if value_of(reader.metadata(), KEY_TABLE) != Some(table.as_str()) {
        return Err(Error::Foreign { what: "the name of the table", path });
    }
    let version: Option<u32> = value_of(reader.metadata(), KEY_VERSION).and_then(|version| version.parse().ok());
    let known: u32 = schema.metadata().get(KEY_VERSION).and_then(|version| version.parse().ok()).unwrap_or(0);
    match version {
        None => Err(Error::Foreign { what: "the version of the table", path }),
        Some(version) if version > known => Err(Error::Newer { version, path }),
        Some(_) => Ok(reader),
    }
}

/// The checksums of every row group of a file, as decoded.
pub(super) fn group_sums(file: &TableFile) -> Result<Vec<Checksums>, Error> {
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(open(file)?.metadata()), reading())
        .map_err(parquet_error("read back", file.path()))?;
    let columns = metadata.schema().fields().len();
    (0..metadata.metadata().num_row_groups())
        .into_par_iter()
        .map(|group| {
            let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), metadata.clone())
                .with_row_groups(vec![group])
                .with_batch_size(ROW_GROUP_ROWS)
                .build()
                .map_err(parquet_error("read back", file.path()))?;
            let mut sums = Checksums::new(columns);
            for batch in batches {
                sums.add(&batch.map_err(decode_error(file.path()))?);
            }
            Ok(sums)
        })
        .collect()
}

/// Runs a read whose bytes may be damaged. The Parquet decoder indexes by lengths that it finds in a page (59.3, seen with
/// single flipped bits), so damage can make it panic; here that is an error like any other.
pub(super) fn contained<T>(path: &Path, read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // Nothing that the closure borrows is used after a panic, and it changes nothing outside itself.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(Error::Damaged { path: path.to_owned() }))
}

/// Reads all batches, in the file's order.
pub(super) fn batches(reader: Reader, path: &Path) -> Result<impl Iterator<Item = Result<RecordBatch, Error>>, Error> {
    let batches: ParquetRecordBatchReader =
        reader.with_batch_size(8192).build().map_err(parquet_error("read", path))?;
    let path = path.to_owned();
    Ok(batches.map(move |batch| batch.map_err(decode_error(&path))))
}

/// Length and SHA-256 (hex) of a file.
///
/// # Errors
/// [`Error::Io`].
pub fn sha256_of(path: &Path) -> Result<(u64, String), Error> {
    File::open(path).and_then(|mut file| sha256_of_bytes(&mut file)).map_err(io_error("read", path))
}

/// Length and SHA-256 (hex) of all that a reader gives.
pub(super) fn sha256_of_bytes(bytes: &mut impl io::Read) -> io::Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut length = 0;
    loop {
        let count = bytes.read(&mut buffer)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        hash.update(read);
        length += count as u64;
    }
    let hex = hash.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        for half in [byte >> 4, byte & 15] {
            hex.extend(char::from_digit(u32::from(half), 16));
        }
        hex
    });
    Ok((length, hex))
}

/// A sum of each column's logical values, whatever the batches they come in and whatever stands under a null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checksums(Vec<ColumnSum>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ColumnSum {
    rows: usize,
    /// CRC32C of the bytes of all values; zeros stand for a null.
    values: u32,
    /// CRC32C of the numbers of the rows that are null.
    nulls: u32,
    /// CRC32C of the lengths of all texts; a null has none.
    lengths: u32,
}

impl Checksums {
    pub(super) fn new(columns: usize) -> Self {
        Self(vec![ColumnSum::default(); columns])
    }

    pub(super) fn add(&mut self, batch: &RecordBatch) {
        for (sum, column) in self.0.iter_mut().zip(batch.columns()) {
            match column.data_type() {
                DataType::Int32 => sum.add_numbers::<Int32Type>(column),
                DataType::Int64 => sum.add_numbers::<Int64Type>(column),
                DataType::Float32 => sum.add_numbers::<Float32Type>(column),
                DataType::Float64 => sum.add_numbers::<Float64Type>(column),
                _ => sum.add_texts(column),
            }
            sum.rows += column.len();
        }
    }
}

impl ColumnSum {
    fn add_nulls(&mut self, column: &dyn Array) {
        if let Some(nulls) = column.nulls().filter(|nulls| nulls.null_count() > 0) {
            for row in (0..column.len()).filter(|&row| nulls.is_null(row)) {
                let row = (self.rows + row) as u64;
                self.nulls = crc32c::crc32c_append(self.nulls, &row.to_le_bytes());
            }
        }
    }

    fn add_numbers<T: ArrowPrimitiveType>(&mut self, column: &dyn Array) {
        let Some(numbers) = column.as_primitive_opt::<T>() else { return };
        if numbers.null_count() == 0 {
            self.values = crc32c::crc32c_append(self.values, numbers.values().inner().as_slice());
        } else {
            let zeroed: ScalarBuffer<T::Native> = numbers.iter().map(Option::unwrap_or_default).collect();
            self.values = crc32c::crc32c_append(self.values, zeroed.inner().as_slice());
            self.add_nulls(column);
        }
    }

    fn add_texts(&mut self, column: &dyn Array) {
        let Some(texts) = column.as_string_opt::<i32>() else { return };
        if texts.null_count() == 0 {
            // One after the other in memory: summed at once, to the same.
            let ends = texts.value_offsets();
            let (first, last) = ends.first().zip(ends.last()).map_or((0, 0), |(first, last)| (*first, *last));
            let values = texts.value_data().get(first as usize..last as usize).unwrap_or_default();
            self.values = crc32c::crc32c_append(self.values, values);
            let lengths: Vec<i32> = ends.iter().zip(ends.iter().skip(1)).map(|(from, to)| to - from).collect();
            self.lengths = crc32c::crc32c_append(self.lengths, ScalarBuffer::from(lengths).inner().as_slice());
            return;
        }
        for text in texts.iter().flatten() {
            self.values = crc32c::crc32c_append(self.values, text.as_bytes());
        }
        for text in texts {
            let length = text.map_or(0, str::len) as u32;
            self.lengths = crc32c::crc32c_append(self.lengths, &length.to_le_bytes());
        }
        self.add_nulls(column);
    }
}

/// The columns of a batch by name and type, for the readers of one file.
pub(super) struct Columns<'a> {
    pub(super) batch: &'a RecordBatch,
    pub(super) path: &'a Path,
}

impl<'a> Columns<'a> {
    fn get<T>(
        &self,
        name: &'static str,
        nullable: bool,
        cast: impl FnOnce(&'a dyn Array) -> Option<&'a T>,
    ) -> Result<&'a T, Error>
    where
        T: Array,
    {
        let column = self.batch.column_by_name(name).and_then(|column| cast(column.as_ref()));
        column
            .filter(|column| nullable || column.null_count() == 0)
            .ok_or_else(|| Error::Foreign { what: name, path: self.path.to_owned() })
    }

    /// A column without nulls.
    pub(super) fn required<T: ArrowPrimitiveType>(&self, name: &'static str) -> Result<&'a [T::Native], Error> {
        Ok(self.get(name, false, |column| column.as_primitive_opt::<T>())?.values())
    }

    /// A column whose nulls read as `None`.
    pub(super) fn optional<T: ArrowPrimitiveType>(&self, name: &'static str) -> Result<&'a PrimitiveArray<T>, Error> {
        self.get(name, true, |column| column.as_primitive_opt::<T>())
    }

    /// A column of texts.
    pub(super) fn text(&self, name: &'static str, nullable: bool) -> Result<&'a StringArray, Error> {
        self.get(name, nullable, |column| column.as_string_opt::<i32>())
    }

    /// Three columns as one of vectors; a null axis reads as NaN.
    pub(super) fn axes(&self, names: [&'static str; 3]) -> Result<[&'a Float32Array; 3], Error> {
        let [x, y, z] = names;
        Ok([self.optional::<Float32Type>(x)?, self.optional::<Float32Type>(y)?, self.optional::<Float32Type>(z)?])
    }

    /// A column of figures.
    pub(super) fn figure(&self, name: &'static str) -> Result<&'a Float64Array, Error> {
        self.optional::<Float64Type>(name)
    }
}
