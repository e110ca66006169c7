//! The data folder as an object store, in which a statement goes on reading what was replaced under it.
//!
//! A compaction puts a pack in a file's place, a seal puts a session's next revision or its smaller form there. A statement knows each
//! file by name and length, as its catalog has it, and reads the one of this length: in its place, or among those that were
//! replaced lately.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::stream::{self, BoxStream, StreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use crate::store::paths::Paths;
use crate::store::swap;

/// Bytes that a thread of the query room reads itself: another one would take longer to wake up.
const AT_ONCE_BYTES: u64 = 1 << 18;

/// The files below a data folder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Files {
    paths: Paths,
    folder: Arc<LocalFileSystem>,
    /// The one file that is asked for, as the statement knows it; `None`: whatever has the name.
    known: Option<ObjectMeta>,
}

impl Files {
    pub(super) fn new(paths: Paths, folder: Arc<LocalFileSystem>) -> Self {
        Self { paths, folder, known: None }
    }

    /// The same folder for a reader of one file.
    pub(super) fn of(&self, known: &ObjectMeta) -> Self {
        Self { known: Some(known.clone()), ..self.clone() }
    }

    /// Opens what has the name and the known length, here or where it was put.
    fn open(&self, location: &Path) -> Result<File> {
        let name = self.folder.path_to_filesystem(location)?;
        let bytes = self.known.as_ref().map(|known| known.size);
        let is_it = |file: &File| {
            let is_as_long = |bytes| file.metadata().is_ok_and(|about| about.len() == bytes);
            bytes.is_none_or(is_as_long)
        };
        let absent = match File::open(&name) {
            Ok(file) if is_it(&file) => return Ok(file),
            Ok(_) => io::Error::new(io::ErrorKind::NotFound, "the file has another length"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => error,
            Err(error) => return Err(unreadable(error)),
        };
        let Some(replaced) = swap::replaced(&self.paths, location.as_ref(), bytes) else {
            return Err(Error::NotFound { path: location.to_string(), source: absent.into() });
        };
        metrics::counter!("volant_query_replaced_reads_total").increment(1);
        File::open(replaced).map_err(unreadable)
    }

    fn read(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let file = self.open(location)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        let read = |range: &Range<u64>| {
            // A damaged footer may ask for anything.
            if range.end > bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let length = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, range.start)?;
            Ok(Bytes::from(bytes))
        };
        let read = ranges.iter().map(read).collect::<io::Result<_>>();
        read.map_err(unreadable)
    }
}

fn unreadable(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic { store: "data folder", source: Box::new(source) }
}

/// Gives each reader of a Parquet file the file that its statement knows.
#[derive(Debug)]
pub(super) struct AsKnown {
    pub(super) files: Files,
    pub(super) footers: Arc<FileMetadataCache>,
}

impl ParquetFileReaderFactory for AsKnown {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::common::Result<Box<dyn AsyncFileReader + Send>> {
        let files = Arc::new(self.files.of(&file.object_meta));
        CachedParquetFileReaderFactory::new(files, Arc::clone(&self.footers)).create_reader(
            partition_index,
            file,
            metadata_size_hint,
            metrics,
        )
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.folder.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Files {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        // Parts of one known file, as its footer is read.
        if let (Some(known), Some(range)) = (&self.known, &options.range) {
            let range = range.as_range(known.size).map_err(unreadable)?;
            let read = self.get_ranges(location, std::slice::from_ref(&range)).await?;
            return Ok(GetResult {
                payload: GetResultPayload::Stream(stream::iter(read.into_iter().map(Ok)).boxed()),
                meta: known.clone(),
                range,
                attributes: Attributes::default(),
            });
        }
        self.folder.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        // A read is where a statement pauses, and where one that is given up ends: nothing else waits in a plan that computes.
        tokio::task::yield_now().await;
        let total = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum::<u64>();
        if total <= AT_ONCE_BYTES {
            return self.read(location, ranges);
        }
        let (files, location, ranges) = (self.clone(), location.clone(), ranges.to_vec());
        let read = tokio::task::spawn_blocking(move || files.read(&location, &ranges));
        read.await.map_err(|source| Error::JoinError { source })?
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.folder.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.folder.put_multipart_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.folder.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.folder.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.folder.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.folder.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.folder.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.folder.rename_opts(from, to, options).await
    }
}
