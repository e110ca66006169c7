//! Many small files of one day as one: the pack, and how a session's file is read wherever it lies.
//!
//! A pack is a Parquet file like any other to an outside engine: the row groups of its sessions, copied as they are, under
//! one footer. It holds the sessions' own files too, to the byte: a file is its magic number, its column chunks, which are
//! in the pack in one piece, and the rest (page indexes and footer), which stands compressed between the last row group
//! and the pack's footer, where no reader looks. So every sum that was ever taken of a file stays true, and a pack can be
//! made undone.
//!
//! ```text
//! PAR1 | chunks of 7.parquet | chunks of 9.parquet | … | directory | rests | page indexes | footer | PAR1
//! ```
//!
//! The footer's key `volant.pack` says where the directory ([`Member`]s as JSON, zstd) and the rests (one zstd frame) are.
//!
//! # Versions
//!
//! *Old reader, new data*: a program that knows no packs takes the sessions in them for missing, and says so; undo the
//! packs before going back to it.

#![deny(clippy::indexing_slicing)]

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ARROW_SCHEMA_META_KEY;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::writer::SerializedFileWriter;
use schemas::SessionId;
use schemas::frames::frames_schema;
use schemas::tables::{results_schema, strokes_schema};
use serde::{Deserialize, Serialize};

use super::paths::{Paths, Table, TablePath};
use super::publish::{self, CREATED_BY, Error, KEY_TABLE, KEY_VERSION, io_error, parquet_error, value_of};
use super::swap::Seen;

/// Metadata key of a pack's [`Layout`].
const KEY_PACK: &str = "volant.pack";
/// Version of the layout.
const VERSION: u32 = 1;
/// What a Parquet file begins and ends with.
const MAGIC: &[u8; 4] = b"PAR1";
/// Level of zstd for directory and rests: they are small, and written once.
const ZSTD_LEVEL: i32 = 9;
/// The largest directory or rest that is read, bytes: a damaged length must not take all memory.
const UNPACKED_LIMIT: u64 = 1 << 30;

/// The schema of a table's files.
pub(super) fn schema_of(table: Table) -> SchemaRef {
    match table {
        Table::Frames => frames_schema(),
        Table::Strokes => strokes_schema(),
        Table::Results => results_schema(),
    }
}

/// The bytes of a session's file, opened: of a file of its own, or of its part of a pack.
///
/// What is open stays readable, whatever takes its name. Clones share the descriptor, not a position.
#[derive(Clone, Debug)]
pub struct TableFile {
    path: PathBuf,
    file: Arc<File>,
    parts: Parts,
}

#[derive(Clone, Debug)]
enum Parts {
    /// All of the file.
    Whole { bytes: u64 },
    /// The magic number, this stretch of the pack, and the rest; with the sum that they had.
    Member { chunks: Range<u64>, rest: Bytes, sha256: String },
}

impl TableFile {
    /// Opens a file of its own.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let bytes = file.metadata().map_err(io_error("look at", path))?.len();
        Ok(Self { path: path.to_owned(), file: Arc::new(file), parts: Parts::Whole { bytes } })
    }

    /// The file on the disk, for messages: the session's own, or the pack.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if it lies in a pack.
    #[must_use]
    pub const fn is_packed(&self) -> bool {
        matches!(self.parts, Parts::Member { .. })
    }

    /// The SHA-256 (hex) that its bytes had when they were packed.
    pub(super) fn packed_sha256(&self) -> Option<&str> {
        match &self.parts {
            Parts::Whole { .. } => None,
            Parts::Member { sha256, .. } => Some(sha256),
        }
    }

    /// Length, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match &self.parts {
            Parts::Whole { bytes } => *bytes,
            Parts::Member { chunks, rest, .. } => MAGIC.len() as u64 + (chunks.end - chunks.start) + rest.len() as u64,
        }
    }

    /// Its bytes from the beginning.
    #[must_use]
    pub fn reader(&self) -> impl Read + Send + 'static {
        BufReader::with_capacity(1 << 16, At { file: self.clone(), position: 0 })
    }

    /// What the file system says of the file on the disk.
    pub(super) fn about(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Length and SHA-256 (hex).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sha256(&self) -> Result<(u64, String), Error> {
        publish::sha256_of_bytes(&mut At { file: self.clone(), position: 0 }).map_err(io_error("read", &self.path))
    }

    fn read_at(&self, out: &mut [u8], position: u64) -> io::Result<usize> {
        let Parts::Member { chunks, rest, .. } = &self.parts else { return self.file.read_at(out, position) };
        let head = MAGIC.len() as u64;
        let length = chunks.end - chunks.start;
        if position < head {
            let from = MAGIC.get(position as usize..).unwrap_or_default();
            return Ok(copy(from, out));
        }
        let position = position - head;
        if position < length {
            let most = out.len().min(usize::try_from(length - position).unwrap_or(usize::MAX));
            let out = out.get_mut(..most).unwrap_or_default();
            let count = self.file.read_at(out, chunks.start + position)?;
            // A pack that ends in the middle of a session is damaged; it must not read as a short file.
            return if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) };
        }
        let from = usize::try_from(position - length).ok().and_then(|from| rest.get(from..)).unwrap_or_default();
        Ok(copy(from, out))
    }
}

fn copy(from: &[u8], out: &mut [u8]) -> usize {
    let count = from.len().min(out.len());
    for (out, &byte) in out.iter_mut().zip(from) {
        *out = byte;
    }
    count
}

/// A position in a [`TableFile`].
pub struct At {
    file: TableFile,
    position: u64,
}

impl Read for At {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(out, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Length for TableFile {
    fn len(&self) -> u64 {
        self.bytes()
    }
}

impl ChunkReader for TableFile {
    type T = BufReader<At>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(BufReader::new(At { file: self.clone(), position: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if start.saturating_add(length as u64) > self.bytes() {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} of {}", self.bytes())));
        }
        let mut bytes = vec![0; length];
        At { file: self.clone(), position: start }.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// A session in a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The session.
    pub session_id: SessionId,
    /// Number of rows.
    pub rows: u64,
    /// Its row groups of the pack's.
    pub row_groups: Range<usize>,
    /// Its column chunks, byte positions in the pack.
    chunks: Range<u64>,
    /// The rest of its file, byte positions in all rests.
    rest: Range<u64>,
    /// SHA-256 (hex) of its file.
    pub(super) sha256: String,
}

/// Where directory and rests are: position and length, bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layout {
    version: u32,
    directory: (u64, u64),
    rests: (u64, u64),
}

/// When a file or folder changed last, µs since 1970 UTC.
pub(super) fn changed_at_us(about: &Metadata) -> i64 {
    about.mtime().saturating_mul(1_000_000).saturating_add(about.mtime_nsec() / 1000)
}

/// What a pack says of itself.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Where it is.
    pub path: PathBuf,
    /// Length, bytes.
    pub bytes: u64,
    /// Time of the last change, µs since 1970 UTC.
    pub changed_at_us: i64,
    /// Row groups in it.
    pub row_groups: usize,
    /// Its sessions, by number.
    pub members: Vec<Member>,
    /// Position and length of the rests, bytes.
    rests: (u64, u64),
}

impl Directory {
    /// The member that holds a session.
    #[must_use]
    pub fn member(&self, session_id: SessionId) -> Option<&Member> {
        let at = self.members.binary_search_by_key(&session_id, |member| member.session_id).ok()?;
        self.members.get(at)
    }
}

/// A pack that is open.
#[derive(Clone, Debug)]
pub(super) struct Pack {
    pub(super) file: TableFile,
    pub(super) directory: Directory,
}

impl Pack {
    /// Opens a pack of `table`: its footer and its directory.
    pub(super) fn open(path: &Path, table: Table) -> Result<Self, Error> {
        publish::contained(path, || Self::read(path, table))
    }

    fn read(path: &Path, table: Table) -> Result<Self, Error> {
        let file = TableFile::open(path)?;
        let foreign = |what| Error::Foreign { what, path: path.to_owned() };
        let reader = publish::open_table(&file, table, &schema_of(table))?;
        let metadata = reader.metadata();
        let layout = value_of(metadata, KEY_PACK).ok_or_else(|| foreign("the layout of the pack"))?;
        let layout: Layout = serde_json::from_str(layout).map_err(|_| foreign("the layout of the pack"))?;
        if layout.version > VERSION {
            return Err(Error::Newer { version: layout.version, path: path.to_owned() });
        }
        let members: Vec<Member> = serde_json::from_slice(&unpacked(&file, layout.directory)?)
            .map_err(|_| foreign("the directory of the pack"))?;
        let in_order = members.is_sorted_by(|one, next| one.session_id < next.session_id);
        let is_inside = |member: &Member| {
            let groups = metadata.row_groups().get(member.row_groups.clone());
            let rows = groups.map(|groups| groups.iter().map(RowGroupMetaData::num_rows).sum());
            let Range { start, end } = member.chunks;
            rows == Some(member.rows as i64) && start <= end && end <= file.bytes()
        };
        if !in_order || !members.iter().all(is_inside) {
            return Err(foreign("the directory of the pack"));
        }
        let about = file.about().map_err(io_error("look at", path))?;
        let directory = Directory {
            path: path.to_owned(),
            bytes: file.bytes(),
            changed_at_us: changed_at_us(&about),
            row_groups: metadata.num_row_groups(),
            members,
            rests: layout.rests,
        };
        Ok(Self { file, directory })
    }

    /// The files of its sessions as they were before they were packed.
    pub(super) fn files(&self) -> Result<Vec<(SessionId, TableFile)>, Error> {
        let rests = unpacked(&self.file, self.directory.rests)?;
        self.directory.members.iter().map(|member| Ok((member.session_id, self.file_of(&rests, member)?))).collect()
    }

    fn file_of(&self, rests: &Bytes, member: &Member) -> Result<TableFile, Error> {
        let foreign = || Error::Foreign { what: "the rest of a file", path: self.file.path.clone() };
        let place = |at: u64| usize::try_from(at).map_err(|_| foreign());
        let (start, end) = (place(member.rest.start)?, place(member.rest.end)?);
        if start > end || end > rests.len() {
            return Err(foreign());
        }
        let (chunks, rest) = (member.chunks.clone(), rests.slice(start..end));
        let parts = Parts::Member { chunks, rest, sha256: member.sha256.clone() };
        Ok(TableFile { parts, ..self.file.clone() })
    }
}

/// The pack that holds a session, if one does. A session with a file of its own is in none, whatever is wrong with the packs
/// beside it.
pub(super) fn holder(paths: &Paths, path: TablePath) -> Result<Option<Pack>, Error> {
    if paths.file(path).exists() {
        return Ok(None);
    }
    let session_id = path.session_id();
    for file in publish::entries(&paths.folder(path))? {
        let named = file.file_name().and_then(|name| sessions_of_name(name.to_str()?));
        if !named.is_some_and(|(first, last)| (first..=last).contains(&session_id)) {
            continue;
        }
        match Pack::open(&file, path.table()) {
            Ok(pack) if pack.directory.member(session_id).is_some() => return Ok(Some(pack)),
            Ok(_) => {}
            // Undone since the folder was listed.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// How often a file is looked for that is being packed, or its pack undone, just now.
const ATTEMPTS_LIMIT: usize = 5;

/// Opens a session's file, wherever it lies.
///
/// # Errors
/// [`Error::Io`], of the kind not found too; of a damaged pack what [`super::seal::read_frames`] gives.
pub fn locate(paths: &Paths, path: TablePath) -> Result<TableFile, Error> {
    let own = paths.file(path);
    for _ in 0..ATTEMPTS_LIMIT {
        match TableFile::open(&own) {
            Err(error) if error.is_not_found() => {}
            opened => return opened,
        }
        if let Some(pack) = holder(paths, path)? {
            let found = pack.directory.member(path.session_id());
            let rests = unpacked(&pack.file, pack.directory.rests)?;
            return found.map_or_else(|| TableFile::open(&own), |member| pack.file_of(&rests, member));
        }
    }
    TableFile::open(&own)
}

/// The sessions' files in a file of a table's folder: itself, or those in a pack; `None` if it is neither.
pub(super) fn files_in(paths: &Paths, file: &Path) -> Option<Result<Vec<(TablePath, TableFile)>, Error>> {
    let relative = file.strip_prefix(paths.root()).ok()?.to_str()?;
    if let Ok(path) = relative.parse::<TablePath>() {
        return Some(TableFile::open(file).map(|file| vec![(path, file)]));
    }
    let (folder, name) = relative.rsplit_once('/')?;
    let (first, _) = sessions_of_name(name)?;
    let path_of = |session: SessionId| format!("{folder}/{session}.parquet").parse::<TablePath>().ok();
    let table = path_of(first)?.table();
    let read = || {
        let files = Pack::open(file, table)?.files()?;
        Ok(files.into_iter().filter_map(|(session, file)| Some((path_of(session)?, file))).collect())
    };
    Some(read())
}

/// Hears of every session's file of a table that is there, whether the catalog knows it or not, those in packs too. Files that
/// cannot be read are told in the log and passed over.
///
/// # Errors
/// [`Error::Io`] if the folders cannot be listed.
pub(super) fn each_file(paths: &Paths, table: Table, mut hear: impl FnMut(TablePath, TableFile)) -> Result<(), Error> {
    for folder in publish::entries(&paths.table(table))? {
        for file in publish::entries(&folder)? {
            match files_in(paths, &file) {
                Some(Ok(files)) => files.into_iter().for_each(|(path, file)| hear(path, file)),
                Some(Err(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "{} cannot be read", file.display());
                }
                None => {}
            }
        }
    }
    Ok(())
}

/// The packs of the folders that were asked for, remembered until the folder changes.
#[derive(Debug, Default)]
pub struct Packs(Mutex<HashMap<PathBuf, Folder>>);

#[derive(Clone, Debug)]
struct Folder {
    /// Which folder it was, and when it had changed last: a new pack comes with a new folder.
    inode: u64,
    changed: (i64, i64),
    packs: Arc<Vec<Directory>>,
}

impl Packs {
    /// The packs in the folder of a file.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be listed. A pack that cannot be read is left out, and said so in the log.
    pub fn beside(&self, paths: &Paths, path: TablePath) -> Result<Arc<Vec<Directory>>, Error> {
        let folder = paths.folder(path);
        let about = match folder.metadata() {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
            Err(error) => return Err(io_error("look at", &folder)(error)),
        };
        let (inode, changed) = (about.ino(), (about.mtime(), about.mtime_nsec()));
        let known = |known: &Folder| known.inode == inode && known.changed == changed;
        if let Some(found) = self.lock().get(&folder).filter(|found| known(found)) {
            return Ok(Arc::clone(&found.packs));
        }
        let mut packs = Vec::new();
        for file in publish::entries(&folder)? {
            if file.file_name().and_then(|name| sessions_of_name(name.to_str()?)).is_none() {
                continue;
            }
            match Pack::open(&file, path.table()) {
                Ok(pack) => packs.push(pack.directory),
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a pack of sessions cannot be read");
                }
            }
        }
        let packs = Arc::new(packs);
        self.lock().insert(folder, Folder { inode, changed, packs: Arc::clone(&packs) });
        Ok(packs)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Folder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands compressed at a place of a file.
fn unpacked(file: &TableFile, (position, length): (u64, u64)) -> Result<Bytes, Error> {
    let foreign = || Error::Foreign { what: "a part of the pack", path: file.path.clone() };
    let length = usize::try_from(length).map_err(|_| foreign())?;
    let packed = file.get_bytes(position, length).map_err(parquet_error("read", &file.path))?;
    let mut bytes = Vec::new();
    let decoder = zstd::Decoder::new(packed.as_ref()).map_err(io_error("decompress", &file.path))?;
    decoder.take(UNPACKED_LIMIT).read_to_end(&mut bytes).map_err(io_error("decompress", &file.path))?;
    Ok(bytes.into())
}

/// The name of a pack: first and last session and their number.
pub(super) fn name(first: SessionId, last: SessionId, count: usize) -> String {
    format!("{first}-{last}-{count}.parquet")
}

/// The first and the last session of a pack by its name; `None` for what is no pack's name.
#[must_use]
pub fn sessions_of_name(file_name: &str) -> Option<(SessionId, SessionId)> {
    let mut parts = file_name.strip_suffix(".parquet")?.split('-');
    let mut number = || parts.next()?.parse::<i64>().ok().filter(|&number| number > 0);
    let (first, last, count) = (number()?, number()?, number()?);
    let (first, last) = (SessionId(first), SessionId(last));
    (name(first, last, usize::try_from(count).ok()?) == file_name).then_some((first, last))
}

/// A session's file that may go into a pack, with its footer. It is not kept open: a day has more files than a process may
/// have descriptors.
pub(super) struct Original {
    pub(super) session_id: SessionId,
    pub(super) seen: Seen,
    file: PathBuf,
    bytes: u64,
    metadata: ParquetMetaData,
    /// The Arrow schema as the file has it.
    arrow_schema: String,
}

impl Original {
    /// Reads the footer of a session's file. `None` if it can not go into a pack: it is of an older version of the table, or not
    /// one piece of chunks after the magic number.
    pub(super) fn read(path: TablePath, file: &Path) -> Result<Option<Self>, Error> {
        publish::contained(file, || {
            let file = TableFile::open(file)?;
            let schema = schema_of(path.table());
            drop(publish::open_table(&file, path.table(), &schema)?);
            let metadata = ParquetMetaDataReader::new()
                .with_page_index_policy(PageIndexPolicy::Optional)
                .parse_and_finish(&file)
                .map_err(parquet_error("read footer of", &file.path))?;
            let is_current = value_of(&metadata, KEY_VERSION) == schema.metadata().get(KEY_VERSION).map(String::as_str);
            let is_theirs = value_of(&metadata, publish::KEY_SESSION) == Some(path.session_id().to_string().as_str());
            let Some(arrow_schema) = value_of(&metadata, ARROW_SCHEMA_META_KEY).map(str::to_owned) else {
                return Ok(None);
            };
            let (session_id, seen, bytes) = (path.session_id(), Seen::of(&file)?, file.bytes());
            let original = Self { session_id, seen, file: file.path, bytes, metadata, arrow_schema };
            Ok(Some(original).filter(|original| is_current && is_theirs && original.chunks().is_some()))
        })
    }

    /// Length of its file, bytes.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// True if both may stand in one pack.
    pub(super) fn fits(&self, other: &Self) -> bool {
        let [ours, theirs] = [self, other].map(|original| original.metadata.file_metadata().schema());
        ours == theirs && self.arrow_schema == other.arrow_schema
    }

    /// The stretch of its column chunks, if they are one behind the other from the magic number on.
    fn chunks(&self) -> Option<Range<u64>> {
        let start = MAGIC.len() as u64;
        let mut end = start;
        for column in self.metadata.row_groups().iter().flat_map(RowGroupMetaData::columns) {
            let (at, length) = column.byte_range();
            if at != end || column.bloom_filter_offset().is_some() {
                return None;
            }
            end = at + length;
        }
        (end <= self.bytes).then_some(start..end)
    }
}

/// Writes a pack of sessions in the order of their numbers to a new file, syncs it and reads all of it back: every session's
/// file to the byte, every row group value by value.
///
/// # Errors
/// As [`super::seal::write_frames`]; the file may be there then.
pub(super) fn write(target: &Path, table: Table, originals: &[Original]) -> Result<(), Error> {
    let Some(first) = originals.first() else { return Ok(()) };
    let file = File::create_new(target).map_err(io_error("make", target))?;
    let members = write_to(&file, target, table, originals, first)?;
    file.sync_all().map_err(io_error("sync", target))?;
    check(target, table, originals, &members)
}

fn write_to(
    file: &File,
    target: &Path,
    table: Table,
    originals: &[Original],
    first: &Original,
) -> Result<Vec<Member>, Error> {
    let failed = |source| parquet_error("write", target)(source);
    let schema = first.metadata.file_metadata().schema_descr().root_schema_ptr();
    let sorting = first.metadata.row_groups().first().and_then(|group| group.sorting_columns().cloned());
    let version = value_of(&first.metadata, KEY_VERSION).unwrap_or_default();
    let own = [(KEY_TABLE, table.as_str()), (KEY_VERSION, version), (ARROW_SCHEMA_META_KEY, &first.arrow_schema)];
    let properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_sorting_columns(sorting)
        .set_key_value_metadata(Some(
            own.iter().map(|(key, value)| KeyValue::new((*key).to_owned(), (*value).to_owned())).collect(),
        ))
        .build();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).map_err(failed)?;
    let mut members = Vec::with_capacity(originals.len());
    let mut rests: Vec<u8> = Vec::new();
    let mut groups = 0;
    for original in originals {
        let source = TableFile::open(&original.file)?;
        if Seen::of(&source)? != original.seen {
            return Err(Error::Changed { path: original.file.clone() });
        }
        let (start, first_group) = (writer.bytes_written() as u64, groups);
        let (columns, offsets) = (original.metadata.column_index(), original.metadata.offset_index());
        for (at, group) in original.metadata.row_groups().iter().enumerate() {
            let mut out = writer.next_row_group().map_err(failed)?;
            for (place, column) in group.columns().iter().enumerate() {
                out.append_column(
                    &source,
                    ColumnCloseResult {
                        bytes_written: column.compressed_size() as u64,
                        rows_written: group.num_rows() as u64,
                        metadata: column.clone(),
                        bloom_filter: None,
                        column_index: columns.and_then(|index| index.get(at)?.get(place).cloned()),
                        offset_index: offsets.and_then(|index| index.get(at)?.get(place).cloned()),
                    },
                )
                .map_err(failed)?;
            }
            out.close().map_err(failed)?;
            groups += 1;
        }
        let chunks = original.chunks().unwrap_or_default();
        let rest = source.get_bytes(chunks.end, (original.bytes - chunks.end) as usize).map_err(failed)?;
        let rest_start = rests.len() as u64;
        rests.extend_from_slice(&rest);
        members.push(Member {
            session_id: original.session_id,
            rows: original.metadata.file_metadata().num_rows() as u64,
            row_groups: first_group..groups,
            chunks: start..writer.bytes_written() as u64,
            rest: rest_start..rests.len() as u64,
            sha256: source.sha256()?.1,
        });
    }
    let json = |error: serde_json::Error| failed(ParquetError::External(error.into()));
    let directory = serde_json::to_vec(&members).map_err(json)?;
    let mut append = |bytes: &[u8]| -> io::Result<(u64, u64)> {
        let packed = zstd::encode_all(bytes, ZSTD_LEVEL)?;
        let position = writer.bytes_written() as u64;
        writer.write_all(&packed)?;
        Ok((position, packed.len() as u64))
    };
    let [directory, rests] = [append(&directory), append(&rests)].map(|part| part.map_err(io_error("write", target)));
    let layout = Layout { version: VERSION, directory: directory?, rests: rests? };
    let layout = serde_json::to_string(&layout).map_err(json)?;
    writer.append_key_value_metadata(KeyValue::new(KEY_PACK.to_owned(), layout));
    writer.close().map_err(failed)?;
    Ok(members)
}

/// Reads a new pack back.
fn check(target: &Path, table: Table, originals: &[Original], members: &[Member]) -> Result<(), Error> {
    let differs = |what, session_id| Error::Verify { what, session_id, path: target.to_owned() };
    let pack = Pack::open(target, table)?;
    let first = originals.first().map_or(SessionId(0), |original| original.session_id);
    if pack.directory.members != members {
        return Err(differs("the directory", first));
    }
    let sums = publish::group_sums(&pack.file)?;
    for ((session_id, file), (member, original)) in pack.files()?.iter().zip(members.iter().zip(originals)) {
        if file.sha256()? != (original.bytes, member.sha256.clone()) {
            return Err(differs("the bytes", *session_id));
        }
        if sums.get(member.row_groups.clone())
            != Some(publish::group_sums(&TableFile::open(&original.file)?)?.as_slice())
        {
            return Err(differs("the values", *session_id));
        }
    }
    Ok(())
}
