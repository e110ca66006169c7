//! A sealed recording's file once more in the small form, when late frames are not to be expected any more.
//!
//! The file was sealed quickly, since somebody waited for the result. Now nobody does: it is written again, by one thread that gives way
//! to everything else, and the catalog takes the new sum under the same revision. This goes before [`Handle::close`]: killed in
//! between, the session is not closed, and the next start comes here again; and what works on closed sessions alone (packing, giving
//! up, erasing) never meets it.

use std::fs;
use std::sync::OnceLock;

use rayon::ThreadPool;
use schemas::SessionId;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::Error;
use super::service::Handle;
use crate::store::{seal, space};
use crate::threads;

impl Handle {
    /// Writes the file of a sealed recording again in its small form; one that cannot be stays as it is, and that is told. On a disk that
    /// has become full it is not tried: frames that come need the room. False if nothing was done, because the service is stopping.
    pub async fn make_smaller(&self, session: SessionId, stopping: &watch::Receiver<bool>) -> Result<bool, Error> {
        let Some(recording) = self.get(session) else { return Ok(true) };
        // Held until the end: a seal would write the same file.
        let _sealing = recording.sealing.lock().await;
        let Some((path, sealed)) = self.catalog().frames_file(session).await? else { return Ok(true) };
        let needed = self
            .options()
            .min_free_bytes
            .saturating_add(fs::metadata(self.paths().file(path)).map_or(0, |file| file.len()));
        if space::free_bytes(self.paths().root()).is_ok_and(|free| free < needed) {
            metrics::counter!("volant_ingest_smaller_files_total", "outcome" => "no_room").increment(1);
            return Ok(true);
        }
        let (paths, sum, stopping) = (self.paths().clone(), sealed.clone(), stopping.clone());
        let written = tokio::task::spawn_blocking(move || {
            let go_on = || !*stopping.borrow();
            in_background(|| seal::make_smaller(&paths, path, &sum, &go_on))
        })
        .await;
        let error: Box<dyn std::error::Error + Send> = match written {
            Ok(Ok(None)) => return Ok(false),
            Ok(Ok(Some(there))) => {
                if there.sha256 != sealed {
                    self.catalog().replace_frames(session, &sealed, there.bytes as i64, &there.sha256).await?;
                    metrics::counter!("volant_ingest_smaller_files_total", "outcome" => "written").increment(1);
                    debug!(file.bytes = there.bytes, "session {session} is stored in {} bytes", there.bytes);
                }
                return Ok(true);
            }
            Ok(Err(error)) => Box::new(error),
            Err(panicked) => Box::new(panicked),
        };
        metrics::counter!("volant_ingest_smaller_files_total", "outcome" => "failed").increment(1);
        warn!(
            error = &*error as &dyn std::error::Error,
            session.id = %session,
            "the file of session {session} could not be made smaller and stays as it was sealed"
        );
        Ok(true)
    }
}

/// Runs work on the one thread that gives way; after what is there already.
fn in_background<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let make = || {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(1).thread_name(|_| "smaller".to_owned());
        builder.start_handler(|_| threads::give_way()).build().ok()
    };
    match POOL.get_or_init(make) {
        Some(pool) => pool.install(work),
        // No thread is to be had: this one does it.
        None => work(),
    }
}
