//! A data folder without a running service.

use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use futures::future::BoxFuture;
use jiff::civil::Date;
use object_store::local::LocalFileSystem;
use object_store::{ObjectMeta, ObjectStore};
use schemas::SessionId;

use super::error::Error;
use super::source::{DeviceRow, SessionRow, Snapshot, Source, SourceError, StoredFile};

/// Everything below a data folder, read-only.
#[derive(Debug)]
pub struct Folder {
    store: Arc<LocalFileSystem>,
}

impl Folder {
    /// Opens the folder.
    ///
    /// # Errors
    /// [`Error::Open`] if there is no such folder.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        let store = LocalFileSystem::new_with_prefix(data_dir)
            .map_err(|error| Error::Open { path: data_dir.to_owned(), source: error.into() })?;
        Ok(Self { store: Arc::new(store) })
    }

    /// The folder as the engine reads it.
    pub fn files(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store) as _
    }

    async fn list(&self, table: &str) -> Result<Vec<StoredFile>, SourceError> {
        let folder = object_store::path::Path::from(table);
        let files = self.store.list(Some(&folder)).try_collect::<Vec<_>>().await?;
        Ok(files.iter().filter_map(stored_file).collect())
    }
}

/// The session's file that `meta` is: `TABLE/date=YYYY-MM-DD/SESSION.parquet`. Temporary and foreign files are none.
fn stored_file(meta: &ObjectMeta) -> Option<StoredFile> {
    let path = meta.location.as_ref();
    let mut parts = path.split('/').skip(1);
    let date = parts.next()?.strip_prefix("date=")?.parse::<Date>().ok()?;
    let session_id = parts.next()?.strip_suffix(".parquet")?.parse::<SessionId>().ok()?;
    if parts.next().is_some() {
        return None;
    }
    Some(StoredFile {
        session_id,
        path: path.to_owned(),
        date,
        rows: None,
        bytes: meta.size,
        version: meta.last_modified.timestamp_micros(),
    })
}

impl Source for Folder {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, SourceError>> {
        Box::pin(async move {
            Ok(Snapshot {
                frames: self.list("frames").await?,
                live: Vec::new(),
                strokes: self.list("strokes").await?,
                results: self.list("results").await?,
            })
        })
    }

    fn sessions(&self) -> BoxFuture<'_, Result<Vec<SessionRow>, SourceError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn devices(&self) -> BoxFuture<'_, Result<Vec<DeviceRow>, SourceError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}
