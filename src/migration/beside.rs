//! Recordings and archives, brought to the running service that a data folder belongs to.
//!
//! In: files that have arrived. Out: sessions, whose analyses wait in the catalog, and a report. One file is taken at a time,
//! and none while a player is erased: what is on its way of somebody must not come to lie behind their erasure.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::executor::block_on;
use schemas::DeviceCode;
use tokio::sync::{Mutex, Notify};

use super::recordings::{Begins, NewRecording, TakenRecording, import_recording};
use super::{ArchiveError, ArchiveReport, Error, import_archive};
use crate::clock::Clock;
use crate::export::Opened;
use crate::recordings;
use crate::store::catalog::Catalog;
use crate::store::paths::Paths;

/// Rows of one file of recordings: ten thousand seconds of four sensors at 200 Hz, some 350 MB in memory.
const ROW_LIMIT: u64 = 8_000_000;

/// Whose and of when the recordings of a file are.
#[derive(Clone, Debug)]
pub struct Brought {
    /// The device that they shall belong to.
    pub device: DeviceCode,
    /// The openid of the player; `None`: nobody known.
    pub openid: Option<String>,
    /// When the first began, µs since 1970 UTC, the others follow; `None`: what the file says, else now.
    pub started_at_us: Option<i64>,
}

/// Why a file could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum BroughtError {
    /// It cannot be read as recordings.
    #[error(transparent)]
    Recording(#[from] recordings::Error),
    /// A recording could not be stored.
    #[error("take a recording")]
    Take(#[from] Error),
    /// An archive could not be read or stored.
    #[error("take an archive")]
    Archive(#[from] ArchiveError),
    /// The task broke off.
    #[error("the import broke off")]
    Broke,
}

/// Takes files beside the running service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Importer {
    paths: Paths,
    catalog: Catalog,
    clock: Clock,
    /// Told whenever a job waits in the catalog.
    job_ready: Arc<Notify>,
    turn: Arc<Mutex<()>>,
}

impl Importer {
    /// Works on what the service works on; `turn` is held while a file is taken.
    #[must_use]
    pub fn new(paths: Paths, catalog: Catalog, clock: Clock, job_ready: Arc<Notify>, turn: Arc<Mutex<()>>) -> Self {
        Self { paths, catalog, clock, job_ready, turn }
    }

    /// Takes every recording of a file, each as a session; with `dry_run` it only says what it would do. Those that are there
    /// already, under whatever name, are passed over.
    ///
    /// # Errors
    /// See [`BroughtError`]. What was taken before stays taken.
    pub async fn recordings(
        &self,
        file: PathBuf,
        brought: Brought,
        dry_run: bool,
    ) -> Result<Vec<TakenRecording>, BroughtError> {
        self.work(dry_run, move |importer, target| importer.take_recordings(&file, brought, target)).await
    }

    fn take_recordings(
        &self,
        file: &Path,
        brought: Brought,
        target: Option<(&Catalog, &Paths)>,
    ) -> Result<Vec<TakenRecording>, BroughtError> {
        let Brought { device, openid, started_at_us } = brought;
        let mut begins = started_at_us.map_or_else(|| Begins::guessed(self.clock.now_us()), Begins::told);
        let mut taken = Vec::new();
        for recording in recordings::read_recording_up_to(file, ROW_LIMIT)? {
            let started_at_us = begins.of(&recording);
            let new = NewRecording {
                name: recording.name,
                track: recording.track,
                openid: openid.clone(),
                device: device.clone(),
                started_at_us,
                labels: Vec::new(),
            };
            taken.push(block_on(import_recording(&new, target, Some(&self.catalog), &self.clock))?);
        }
        Ok(taken)
    }

    /// Takes an archive; with `dry_run` it only says what it would do.
    ///
    /// # Errors
    /// See [`BroughtError`]. What was taken before stays taken.
    pub async fn archive(&self, file: PathBuf, dry_run: bool) -> Result<ArchiveReport, BroughtError> {
        self.work(dry_run, move |importer, target| {
            let opened = Opened::read(&file).map_err(ArchiveError::from)?;
            Ok(import_archive(&opened, target, Some(&importer.catalog), &importer.clock, &mut |_, _| {})?)
        })
        .await
    }

    /// Does the work in its turn, on a thread that may wait.
    async fn work<T: Send + 'static>(
        &self,
        dry_run: bool,
        work: impl FnOnce(&Self, Option<(&Catalog, &Paths)>) -> Result<T, BroughtError> + Send + 'static,
    ) -> Result<T, BroughtError> {
        // The turn goes with the work, which a caller who hangs up does not end.
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let importer = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let target = (!dry_run).then_some((&importer.catalog, &importer.paths));
            let done = work(&importer, target);
            if !dry_run {
                importer.job_ready.notify_one();
            }
            done
        });
        done.await.map_err(|_| BroughtError::Broke)?
    }
}
