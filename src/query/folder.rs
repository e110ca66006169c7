//! A data folder without its service: the catalog, the Parquet files, and the write-ahead log of what is not sealed.
//!
//! A server may be running on the folder; nothing is locked or changed. A folder of Parquet files without a catalog (a
//! copy, an export) is read as the files it has.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use object_store::local::LocalFileSystem;
use object_store::{ObjectMeta, ObjectStore};
use schemas::{DeviceCode, SessionId};
use tokio::sync::OnceCell;

use super::error::Error;
use super::replaced::Files;
use super::rooms::{Known, Rooms, date_of, packed};
use super::source::{
    DeviceRow, LabelRow, LiveFrames, NotificationRow, PlayerRow, SessionRow, Snapshot, Source, SourceError, StoredFile,
};
use crate::ingest;
use crate::store::catalog::Catalog;
use crate::store::pack::{Directory, sessions_of_name};
use crate::store::paths::{Paths, Table, TablePath};
use crate::store::wal;

/// Everything below a data folder, read-only.
#[derive(Debug)]
pub struct Folder {
    paths: Paths,
    store: Arc<LocalFileSystem>,
    known: Arc<Known>,
    /// Opened by the first statement; `None` if the folder has none.
    catalog: OnceCell<Option<Catalog>>,
}

/// A session that no file holds yet.
struct Unsealed {
    session_id: SessionId,
    device_code: Option<DeviceCode>,
    started_at_us: i64,
    batches: Vec<RecordBatch>,
}

impl Unsealed {
    fn rows(&self) -> i64 {
        self.batches.iter().map(RecordBatch::num_rows).sum::<usize>() as i64
    }
}

impl Folder {
    /// Opens the folder.
    ///
    /// # Errors
    /// [`Error::Open`] if there is no such folder.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        let store = LocalFileSystem::new_with_prefix(data_dir)
            .map_err(|error| Error::Open { path: data_dir.to_owned(), source: error.into() })?;
        Ok(Self {
            paths: Paths::new(data_dir),
            store: Arc::new(store),
            known: Arc::default(),
            catalog: OnceCell::new(),
        })
    }

    /// The folder as the engine reads it.
    pub fn files(&self) -> Files {
        Files::new(self.paths.clone(), Arc::clone(&self.store))
    }

    async fn catalog(&self) -> Result<Option<&Catalog>, SourceError> {
        let opened = self.catalog.get_or_try_init(|| async {
            let path = self.paths.catalog();
            if tokio::fs::try_exists(&path).await? {
                Ok::<_, SourceError>(Some(Catalog::open_read_only(&path).await?))
            } else {
                Ok(None)
            }
        });
        let catalog = opened.await?.as_ref();
        if let Some(catalog) = catalog {
            catalog.is_still_readable(&self.paths.catalog())?;
        }
        Ok(catalog)
    }

    /// The sessions that the catalog has as not sealed, with what the log has of them.
    ///
    /// One that is sealed while this reads may come back in part: ask the catalog for the sealed ones afterwards, and
    /// believe it.
    async fn unsealed(&self, catalog: &Catalog) -> Result<Vec<Unsealed>, SourceError> {
        let sessions = catalog.unclosed_sessions().await?;
        // Whatever the log still has then lies in files.
        if sessions.is_empty() {
            return Ok(Vec::new());
        }
        let mut recovery = ingest::Recovery::new(&sessions, catalog.newest_session().await?);
        let dir = self.paths.wal();
        let found = tokio::task::spawn_blocking(move || {
            wal::read_only(&dir, |record| recovery.replay(record))?;
            Ok::<_, wal::Error>(recovery.unsealed())
        })
        .await??;
        let device_of = |session_id| {
            sessions.iter().find(|session| session.session_id == session_id).map(|session| session.device_code.clone())
        };
        Ok(found
            .into_iter()
            .map(|(session_id, started_at_us, batches)| Unsealed {
                session_id,
                device_code: device_of(session_id),
                started_at_us,
                batches,
            })
            .collect())
    }

    /// What the catalog answers for.
    fn stored(&self, catalog: &Catalog) -> Rooms {
        Rooms::stored(self.paths.clone(), Arc::clone(&self.known), catalog.clone())
    }

    /// The files of a table, by the folder alone. Temporary and foreign files are none.
    async fn list(&self, table: Table) -> Result<Vec<StoredFile>, SourceError> {
        let folder = object_store::path::Path::from(table.as_str());
        let files = self.store.list(Some(&folder)).try_collect::<Vec<_>>().await?;
        let (paths, known) = (self.paths.clone(), Arc::clone(&self.known));
        let stored = move || {
            let mut stored = Vec::with_capacity(files.len());
            for meta in &files {
                stored.extend(stored_file(meta));
                let Some(beside) = a_session_of_pack(meta) else { continue };
                for pack in known.packs().beside(&paths, beside)?.iter().filter(|pack| is_at(&paths, pack, meta)) {
                    stored.extend(pack.members.iter().map(|member| packed(&paths, pack, member, beside.date())));
                }
            }
            Ok::<_, SourceError>(stored)
        };
        tokio::task::spawn_blocking(stored).await?
    }
}

/// The path that the first session of a pack would have of its own; `None` for what is no pack.
fn a_session_of_pack(meta: &ObjectMeta) -> Option<TablePath> {
    let (folder, name) = meta.location.as_ref().rsplit_once('/')?;
    let (first, _) = sessions_of_name(name)?;
    format!("{folder}/{first}.parquet").parse().ok()
}

fn is_at(paths: &Paths, pack: &Directory, meta: &ObjectMeta) -> bool {
    pack.path.strip_prefix(paths.root()).is_ok_and(|path| path == Path::new(meta.location.as_ref()))
}

fn stored_file(meta: &ObjectMeta) -> Option<StoredFile> {
    let path = meta.location.as_ref().parse::<TablePath>().ok()?;
    Some(StoredFile {
        session_id: path.session_id(),
        path: path.to_string(),
        within: None,
        date: path.date(),
        rows: None,
        bytes: meta.size,
        version: meta.last_modified.timestamp_micros(),
    })
}

impl Source for Folder {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, SourceError>> {
        Box::pin(async move {
            let Some(catalog) = self.catalog().await? else {
                return Ok(Snapshot {
                    frames: Arc::new(self.list(Table::Frames).await?),
                    live: Vec::new(),
                    strokes: Arc::new(self.list(Table::Strokes).await?),
                    results: Arc::new(self.list(Table::Results).await?),
                });
            };
            // The log first: a session that is sealed in between has a whole file then, and that is what counts; of one
            // that is not sealed afterwards the log has kept everything.
            let unsealed = self.unsealed(catalog).await?;
            let mut snapshot = self.stored(catalog).snapshot().await?;
            snapshot.live = unsealed
                .into_iter()
                .filter(|session| {
                    !session.batches.is_empty()
                        && !snapshot.frames.iter().any(|file| file.session_id == session.session_id)
                })
                .map(|session| {
                    Ok(LiveFrames {
                        session_id: session.session_id,
                        date: date_of(session.started_at_us)?,
                        batches: session.batches,
                    })
                })
                .collect::<Result<_, SourceError>>()?;
            Ok(snapshot)
        })
    }

    fn locate(&self, files: &mut [StoredFile]) -> Result<(), SourceError> {
        match self.catalog.get() {
            Some(Some(catalog)) => self.stored(catalog).locate(files),
            // They were found where they lie.
            _ => Ok(()),
        }
    }

    fn sessions(&self) -> BoxFuture<'_, Result<Vec<SessionRow>, SourceError>> {
        Box::pin(async {
            let Some(catalog) = self.catalog().await? else { return Ok(Vec::new()) };
            let unsealed = self.unsealed(catalog).await?;
            let mut rows = self.stored(catalog).sessions().await?;
            for row in rows.iter_mut().filter(|row| !row.sealed) {
                if let Some(open) = unsealed.iter().find(|open| open.session_id.get() == row.session_id) {
                    row.frame_count = open.rows();
                }
            }
            Ok(rows)
        })
    }

    fn devices(&self) -> BoxFuture<'_, Result<Vec<DeviceRow>, SourceError>> {
        Box::pin(async {
            let Some(catalog) = self.catalog().await? else { return Ok(Vec::new()) };
            let unsealed = self.unsealed(catalog).await?;
            let mut rows = self.stored(catalog).devices().await?;
            let sealed = catalog.sealed_sessions().await?;
            for open in unsealed {
                if sealed.iter().any(|session| session.session_id == open.session_id) {
                    continue;
                }
                let device = open.device_code.as_ref().map(DeviceCode::as_str);
                if let Some(row) = rows.iter_mut().find(|row| Some(row.device_code.as_str()) == device) {
                    row.frame_count += open.rows();
                }
            }
            Ok(rows)
        })
    }

    fn players(&self) -> BoxFuture<'_, Result<Vec<PlayerRow>, SourceError>> {
        Box::pin(async {
            let Some(catalog) = self.catalog().await? else { return Ok(Vec::new()) };
            self.stored(catalog).players().await
        })
    }

    fn notifications(&self) -> BoxFuture<'_, Result<Vec<NotificationRow>, SourceError>> {
        Box::pin(async {
            let Some(catalog) = self.catalog().await? else { return Ok(Vec::new()) };
            self.stored(catalog).notifications().await
        })
    }

    fn labels(&self) -> BoxFuture<'_, Result<Vec<LabelRow>, SourceError>> {
        Box::pin(async {
            let Some(catalog) = self.catalog().await? else { return Ok(Vec::new()) };
            self.stored(catalog).labels().await
        })
    }
}
