//! The data folder as an object store, in which a statement goes on reading what a compaction replaced under it.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use crate::store::paths::Paths;
use crate::store::swap;

/// Bytes that a thread of the query room reads itself: another one would take longer to wake up.
const AT_ONCE_BYTES: u64 = 1 << 18;

/// The files below a data folder; one that is gone is looked for among those that were replaced lately.
#[derive(Debug)]
pub(super) struct Files {
    paths: Paths,
    folder: Arc<LocalFileSystem>,
}

impl Files {
    pub(super) fn new(paths: Paths, folder: Arc<LocalFileSystem>) -> Self {
        Self { paths, folder }
    }

    /// Few bytes are read by the asking thread itself; `None`: too many, or not like this.
    fn at_once(&self, location: &Path, ranges: &[Range<u64>]) -> Option<Vec<Bytes>> {
        if ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum::<u64>() > AT_ONCE_BYTES {
            return None;
        }
        let file = File::open(self.folder.path_to_filesystem(location).ok()?).ok()?;
        let read = |range: &Range<u64>| {
            let mut bytes = vec![0; usize::try_from(range.end.checked_sub(range.start)?).ok()?];
            file.read_exact_at(&mut bytes, range.start).ok()?;
            Some(Bytes::from(bytes))
        };
        ranges.iter().map(read).collect()
    }

    /// Where a file that is gone was put.
    async fn replaced(&self, gone: &Path) -> Option<Path> {
        let (paths, name) = (self.paths.clone(), gone.to_string());
        let found = tokio::task::spawn_blocking(move || swap::replaced(&paths, &name)).await.ok()??;
        metrics::counter!("volant_query_replaced_reads_total").increment(1);
        Path::parse(found).ok()
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
        match self.folder.get_opts(location, options.clone()).await {
            Err(Error::NotFound { path, source }) => match self.replaced(location).await {
                Some(replaced) => self.folder.get_opts(&replaced, options).await,
                None => Err(Error::NotFound { path, source }),
            },
            got => got,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        // A read is where a statement pauses, and where one that is given up ends: nothing else waits in a plan that computes.
        tokio::task::yield_now().await;
        // What goes wrong is told by the usual way.
        if let Some(bytes) = self.at_once(location, ranges) {
            return Ok(bytes);
        }
        match self.folder.get_ranges(location, ranges).await {
            Err(Error::NotFound { path, source }) => match self.replaced(location).await {
                Some(replaced) => self.folder.get_ranges(&replaced, ranges).await,
                None => Err(Error::NotFound { path, source }),
            },
            got => got,
        }
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
