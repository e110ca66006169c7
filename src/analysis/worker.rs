//! The worker: leases a job, gets the samples, runs the pipeline on the CPU pool, publishes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use pipelines::{Analysis, History, Stage, compare};
use schemas::{AnalysisId, NotificationId, SessionId, SessionStatus, Track, UserId};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::ahead::{Ahead, Input, Outcome};
use super::{Error, Known, Options, Registry, chain, history, rows};
use crate::clock::Clock;
use crate::hub::{self, AdminMessage, Level};
use crate::ingest;
use crate::store::catalog::{CandidateJob, Catalog, Job, NewNotice, NewResult, SessionRow, StoredFile, Switch};
use crate::store::pack;
use crate::store::paths::Paths;
use crate::store::seal;

/// A lease outlives the job's own time limit by this much, so that only a dead worker's job is taken over.
const LEASE_MARGIN: Duration = Duration::from_secs(60);
/// How often the catalog is asked for jobs that nobody announced (left over from another process).
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The part that runs by itself.
#[derive(Debug)]
pub struct Service {
    inner: Arc<Inner>,
    /// Sessions whose file is being written.
    sealing: mpsc::Receiver<ingest::Sealing>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    clock: Clock,
    catalog: Catalog,
    paths: Paths,
    ingest: ingest::Handle,
    hub: hub::Handle,
    pool: rayon::ThreadPool,
    registry: Registry,
    /// What analyses new sessions.
    usual: Known,
    ahead: Ahead,
    job_ready: Arc<Notify>,
    /// Whose outbox has a new row.
    owed: mpsc::Sender<UserId>,
}

impl Service {
    /// Makes the CPU pool. `sealing` tells of files that are being written, `job_ready` of new jobs; `owed` is told whose
    /// outbox has a new row.
    #[expect(clippy::too_many_arguments, reason = "a constructor takes the handles that the room needs, each once")]
    pub fn new(
        options: Options,
        clock: Clock,
        catalog: Catalog,
        paths: Paths,
        ingest: ingest::Handle,
        hub: hub::Handle,
        sealing: mpsc::Receiver<ingest::Sealing>,
        job_ready: Arc<Notify>,
        owed: mpsc::Sender<UserId>,
    ) -> Result<Self, Error> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|index| format!("volant-analysis-{index}"))
            .build()
            .map_err(Error::Threads)?;
        let registry = Registry::new(options.folder.clone());
        let usual = usual(&registry, &options.pipeline)?;
        let ahead = Ahead::default();
        let inner =
            Inner { options, clock, catalog, paths, ingest, hub, pool, registry, usual, ahead, job_ready, owed };
        Ok(Self { inner: Arc::new(inner), sealing })
    }

    /// Runs until `shutdown` turns true; a job that is running then is finished by the next process.
    pub async fn run(self, shutdown: watch::Receiver<bool>) {
        let Self { inner, sealing } = self;
        let workers = (0..inner.options.concurrent_jobs.max(1)).map(|index| {
            let inner = Arc::clone(&inner);
            let mut shutdown = shutdown.clone();
            async move {
                // The name is stable over restarts, so that a new process takes its own old jobs over at once.
                let owner = format!("local-{index}");
                tokio::select! {
                    () = crate::shutdown::requested(&mut shutdown) => {}
                    () = inner.work(&owner) => {}
                }
            }
        });
        let mut stopping = shutdown.clone();
        let ahead = async {
            tokio::select! {
                () = crate::shutdown::requested(&mut stopping) => {}
                () = inner.run_ahead(sealing) => {}
            }
        };
        tokio::join!(futures::future::join_all(workers), ahead);
    }
}

impl Inner {
    async fn work(&self, owner: &str) {
        loop {
            let now_us = self.clock.now_us();
            let lease = self.options.timeout + LEASE_MARGIN;
            let until_us = now_us.saturating_add(i64::try_from(lease.as_micros()).unwrap_or(i64::MAX));
            match self.catalog.lease_job(owner, now_us, until_us).await {
                Ok(Some(job)) => {
                    let span = info_span!("analyze", session.id = %job.session_id, analysis.id = %job.analysis_id);
                    self.settle(&job).instrument(span).await;
                    // Another worker may be asleep while more jobs wait.
                    self.job_ready.notify_one();
                }
                // New sessions first: somebody waits for them.
                Ok(None) if self.other_work(owner, now_us, until_us).await => {}
                Ok(None) => {
                    // Waking up without a job is normal; it only means another look.
                    drop(tokio::time::timeout(LOOK_INTERVAL, self.job_ready.notified()).await);
                }
                Err(error) => {
                    error!(error = &error as &dyn std::error::Error, "jobs could not be leased");
                    tokio::time::sleep(LOOK_INTERVAL).await;
                }
            }
        }
    }

    /// Begins with what is being sealed, one session at a time: sessions that end together are the workers' own again.
    async fn run_ahead(&self, mut sealing: mpsc::Receiver<ingest::Sealing>) {
        while let Some(sealing) = sealing.recv().await {
            let span = info_span!("analyze", session.id = %sealing.session_id, ahead = true);
            if let Err(error) = self.begin(sealing).instrument(span).await {
                // The job comes across it again, and tells.
                debug!(error = &error as &dyn std::error::Error, "not begun before its seal");
            }
        }
    }

    async fn begin(&self, sealing: ingest::Sealing) -> Result<(), Error> {
        let ingest::Sealing { session_id: session, revision, finished } = sealing;
        // It waited, and its job is being worked at.
        if self.ingest.sealed_rows(session, revision).is_some() {
            return Ok(());
        }
        let row = self.catalog.session(session).await?.ok_or(Error::NoFrames { session_id: session })?;
        let by = self.pipeline_for(&row).await?;
        let input = Input { revision, taken_rows: finished.taken_rows, user: row.user_id };
        if let Some(done) = self.ahead.begin(session, input, &by) {
            let outcome = self.analyze_with_history(&row, move || finished.track(), &by).await;
            // Nobody waits for it if the session was sealed anew meanwhile.
            drop(done.send(outcome));
        }
        Ok(())
    }

    /// Takes an order for another pipeline, if there is one; false if there is nothing to do.
    async fn other_work(&self, owner: &str, now_us: i64, until_us: i64) -> bool {
        let job = match self.catalog.lease_candidate(owner, now_us, until_us).await {
            Ok(Some(job)) => job,
            Ok(None) => return false,
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, "orders could not be taken");
                return false;
            }
        };
        let span = info_span!("reanalyze", session.id = %job.session_id, pipeline.name = %job.pipeline);
        let done = async {
            let outcome = if job.switches { self.switch(&job).await } else { self.try_other(&job).await };
            let Err(failure) = outcome else { return };
            metrics::counter!("volant_analysis_failures_total").increment(1);
            let (session, pipeline) = (job.session_id, &job.pipeline);
            let for_good = !failure.is_retryable() || job.attempts >= self.options.attempts_limit;
            warn!(error = &failure as &dyn std::error::Error, "session {session} could not be analysed by {pipeline}");
            if !for_good {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            if let Err(error) = self.catalog.fail_candidate(&job, &chain(&failure), for_good).await {
                // The lease runs out, then the order is taken again.
                error!(error = &error as &dyn std::error::Error, "an order could not be given back");
            }
        };
        done.instrument(span).await;
        self.job_ready.notify_one();
        true
    }

    /// Analyses a sealed session by the pipeline that was ordered.
    async fn try_other(&self, job: &CandidateJob) -> Result<(), Error> {
        let session = job.session_id;
        let (registry, name) = (self.registry.clone(), job.pipeline.clone());
        let known = tokio::task::spawn_blocking(move || registry.get(&name)).await.map_err(|_| Error::Look)?;
        let known = known.ok_or_else(|| Error::NoPipeline { name: job.pipeline.clone() })?;
        if known.sha256 != job.definition_sha256 {
            return Err(Error::Changed { name: job.pipeline.clone() });
        }
        let row = self.catalog.session(session).await?.ok_or(Error::NoFrames { session_id: session })?;
        let track = self.track(session, row.revision, &row).await?;
        let analysis = self.analyze_with_history(&row, move || track, &known).await?;
        let text = encode(session, &analysis)?;
        if self.catalog.finish_candidate(job, row.revision, &text, self.clock.now_us()).await? {
            metrics::counter!("volant_analysis_candidates_total").increment(1);
        }
        Ok(())
    }

    /// The pipeline that analyses a session: its player's own, or everybody's.
    async fn pipeline_for(&self, row: &SessionRow) -> Result<Known, Error> {
        pipeline_for(&self.catalog, &self.registry, row.user_id, &self.usual).await
    }

    /// The analysis of a track, its figures compared with the player's own earlier strokes.
    async fn analyze_with_history(
        &self,
        row: &SessionRow,
        track: impl FnOnce() -> Track + Send + 'static,
        by: &Known,
    ) -> Result<Arc<Analysis>, Error> {
        let session = row.session_id;
        let (analysis, history) = tokio::join!(self.analyze(session, track, by.clone()), self.history(row, by));
        let (mut analysis, history) = (analysis?, history?);
        if let Some(history) = history {
            compare(Arc::make_mut(&mut analysis), &history, &by.pipeline.params);
        }
        Ok(analysis)
    }

    /// The player's earlier strokes; `None` where nothing is compared.
    async fn history(&self, row: &SessionRow, by: &Known) -> Result<Option<History>, Error> {
        match row.user_id.filter(|_| by.pipeline.stages.contains(&Stage::Report)) {
            Some(user) => history::before(&self.catalog, row.session_id, user, by).await.map(Some),
            None => Ok(None),
        }
    }

    /// Puts a candidate in the place of the published result: files first, then the commit; killed between, it is done
    /// again.
    async fn switch(&self, job: &CandidateJob) -> Result<(), Error> {
        let session = job.session_id;
        let row = self.catalog.session(session).await?.ok_or(Error::NoFrames { session_id: session })?;
        let published = self.catalog.result(session).await?.ok_or(Error::NoFrames { session_id: session })?;
        let Some((candidate, Some(text))) = self.catalog.candidate(session, &job.pipeline).await? else {
            return Err(Error::NoFrames { session_id: session });
        };
        if candidate.revision != Some(published.revision) || published.revision != row.revision {
            // Late frames made a new revision: the candidate is of older frames. It stays beside.
            return Err(Error::Superseded { session_id: session });
        }
        let analysis: Analysis =
            serde_json::from_str(&text).map_err(|source| Error::Decode { session_id: session, source })?;
        let created_at_us = self.clock.now_us();
        let analysis_id = published.analysis_id;
        let (strokes_file, result_file) = self.write(&row, analysis_id, created_at_us, Arc::new(analysis)).await?;
        let switch =
            Switch { job: job.clone(), revision: published.revision, created_at_us, strokes_file, result_file };
        if self.catalog.switch_result(&switch).await? {
            info!("session {session} now shows the analysis of {}", job.pipeline);
            metrics::counter!("volant_analysis_switches_total").increment(1);
        }
        Ok(())
    }

    async fn write(
        &self,
        row: &SessionRow,
        analysis_id: AnalysisId,
        created_at_us: i64,
        analysis: Arc<Analysis>,
    ) -> Result<(StoredFile, StoredFile), Error> {
        let (paths, row) = (self.paths.clone(), row.clone());
        let session = row.session_id;
        tokio::task::spawn_blocking(move || rows::write(&paths, &row, analysis_id, created_at_us, &analysis))
            .await
            .map_err(|_| Error::Broke { session_id: session })?
    }

    /// Does a job and deals with its failure.
    async fn settle(&self, job: &Job) {
        let session = job.session_id;
        let Err(failure) = self.carry_out(job).await else { return };
        metrics::counter!("volant_analysis_failures_total").increment(1);
        let give_up = !failure.is_retryable() || job.attempts >= self.options.attempts_limit;
        let outcome = if give_up {
            error!(error = &failure as &dyn std::error::Error, "session {session} cannot be analysed: given up");
            let given_up = self.catalog.fail_job(job, &failure.to_string(), self.clock.now_us()).await;
            self.ingest.set_status(session, SessionStatus::Stopped);
            self.tell_admins(
                session,
                None,
                Level::Error,
                "analysis_failed",
                &format!("analysis of session {session} failed"),
            );
            given_up
        } else {
            warn!(
                error = &failure as &dyn std::error::Error,
                job.attempts, "session {session} is analysed again later"
            );
            tokio::time::sleep(LOOK_INTERVAL).await;
            self.catalog.requeue_job(job, &failure.to_string()).await
        };
        if let Err(error) = outcome {
            // The lease runs out, then the job is taken again.
            error!(error = &error as &dyn std::error::Error, "job of session {session} could not be given back");
        }
    }

    async fn carry_out(&self, job: &Job) -> Result<(), Error> {
        let session = job.session_id;
        let row = self.catalog.session(session).await?.ok_or(Error::NoFrames { session_id: session })?;
        let by = self.pipeline_for(&row).await?;
        let analysis = match self.begun(job, &row, &by).await {
            Some(outcome) => outcome?,
            None => {
                let track = self.track(session, job.revision, &row).await?;
                self.analyze_with_history(&row, move || track, &by).await?
            }
        };
        let created_at_us = self.clock.now_us();
        let (strokes_file, result_file) =
            self.write(&row, job.analysis_id, created_at_us, Arc::clone(&analysis)).await?;
        // Nobody waits for the analysis of an old, imported session; thousands of notices would go out at once.
        let user = if self.catalog.is_imported(session).await? { None } else { row.user_id };
        let notice = user.map(|user_id| NewNotice {
            notification_id: NotificationId(uuid_v7(created_at_us).into()),
            user_id,
            payload: notice_payload(&row, &analysis).to_string(),
        });
        let analysis_json = encode(session, &analysis)?;
        let new =
            NewResult { job: job.clone(), created_at_us, analysis: analysis_json, strokes_file, result_file, notice };
        if !self.catalog.publish(&new).await? {
            info!("analysis of session {session} is superseded");
            return Ok(());
        }
        self.ingest.set_status(session, SessionStatus::Completed);
        if let Some(user) = user
            && self.owed.try_send(user).is_err()
        {
            // The outbox row is there; the notifier finds it at its next look.
            metrics::counter!("volant_analysis_delayed_notices_total").increment(1);
        }
        metrics::counter!("volant_analysis_sessions_total").increment(1);
        info!(swing.count = analysis.strokes.len(), "session {session} analyzed: {} swings", analysis.strokes.len());
        let event = format!("analysis of session {session} finished: {} swings", analysis.strokes.len());
        self.tell_admins(session, Some(SessionStatus::Completed), Level::Info, "analysis_finished", &event);
        Ok(())
    }

    /// The analysis that was begun while the frames of this job were sealed, if it was. One that failed and may succeed is
    /// made again at once.
    async fn begun(&self, job: &Job, row: &SessionRow, by: &Known) -> Option<Outcome> {
        let taken_rows = self.ingest.sealed_rows(job.session_id, job.revision)?;
        let input = Input { revision: job.revision, taken_rows, user: row.user_id };
        let outcome = self.ahead.take(job.session_id, input, by)?.await.ok()?;
        if outcome.as_ref().is_err_and(Error::is_retryable) {
            return None;
        }
        metrics::counter!("volant_analysis_ahead_total").increment(1);
        Some(outcome)
    }

    /// The samples: from memory while the recording is there, else from the sealed file.
    async fn track(&self, session: SessionId, revision: i64, row: &SessionRow) -> Result<Track, Error> {
        let ingest = self.ingest.clone();
        let in_memory = tokio::task::spawn_blocking(move || ingest.track(session, revision))
            .await
            .map_err(|_| Error::Broke { session_id: session })?;
        if let Some(track) = in_memory {
            return Ok(track);
        }
        let path = row.frames_path.as_ref().ok_or(Error::NoFrames { session_id: session })?;
        let path = path.parse().map_err(|_| Error::NoFrames { session_id: session })?;
        let paths = self.paths.clone();
        let mut track = tokio::task::spawn_blocking(move || seal::read_track(&pack::locate(&paths, path)?))
            .await
            .map_err(|_| Error::Broke { session_id: session })?
            .map_err(|source| Error::Frames { session_id: session, source })?;
        track.sync_error_ns = row.sync_error_ns.unwrap_or(0);
        Ok(track)
    }

    /// Runs the pipeline on the CPU pool.
    async fn analyze(
        &self,
        session: SessionId,
        track: impl FnOnce() -> Track + Send + 'static,
        by: Known,
    ) -> Result<Arc<Analysis>, Error> {
        let (done, result) = oneshot::channel();
        self.pool.spawn(move || {
            let analyze = || by.pipeline.analyze(&track(), by.model.as_deref());
            // A pipeline that panics loses its session's result, not the pool.
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(analyze));
            // The worker has stopped waiting if the time limit passed.
            drop(done.send(outcome.ok()));
        });
        let limit = self.options.timeout;
        match tokio::time::timeout(limit, result).await {
            Err(_) => Err(Error::TimedOut { session_id: session, limit_s: limit.as_secs() }),
            Ok(Ok(Some(analysis))) => Ok(Arc::new(analysis)),
            Ok(Ok(None) | Err(_)) => Err(Error::Broke { session_id: session }),
        }
    }

    fn tell_admins(&self, session: SessionId, status: Option<SessionStatus>, level: Level, code: &str, event: &str) {
        self.hub.send_to_admins(&AdminMessage {
            event: event.to_owned(),
            level,
            code: code.to_owned(),
            device_code: None,
            session_id: Some(session),
            status: status.map(|status| status.as_str().to_owned()),
            at_us: self.clock.now_us(),
        });
    }
}

/// A player's own pipeline if there is one that can run, else `usual`.
pub(super) async fn pipeline_for(
    catalog: &Catalog,
    registry: &Registry,
    user: Option<UserId>,
    usual: &Known,
) -> Result<Known, Error> {
    let Some(user) = user else { return Ok(usual.clone()) };
    let Some(name) = catalog.pipeline_of(user).await? else { return Ok(usual.clone()) };
    let (registry, wanted) = (registry.clone(), name.clone());
    let own = tokio::task::spawn_blocking(move || registry.get(&wanted)).await.map_err(|_| Error::Look)?;
    Ok(own.unwrap_or_else(|| {
        warn!("the pipeline {name} of user {user} cannot run: everybody's is used");
        usual.clone()
    }))
}

/// The pipeline that is configured for new sessions.
pub(super) fn usual(registry: &Registry, name: &str) -> Result<Known, Error> {
    let name = if name.is_empty() { pipelines::Pipeline::builtin().name() } else { name };
    let mut found = registry.look();
    for refused in &found.refused {
        warn!(error = refused as &dyn std::error::Error, "{} is no pipeline that can run", refused.path().display());
    }
    found.known.remove(name).ok_or_else(|| Error::NoPipeline { name: name.to_owned() })
}

fn encode(session: SessionId, analysis: &Analysis) -> Result<String, Error> {
    serde_json::to_string(analysis).map_err(|source| Error::Encode { session_id: session, source })
}

/// A notification id: unique, and sorted by creation.
fn uuid_v7(now_us: i64) -> String {
    let now_us = now_us.unsigned_abs();
    let timestamp = uuid::Timestamp::from_unix(uuid::NoContext, now_us / 1_000_000, (now_us % 1_000_000 * 1000) as u32);
    uuid::Uuid::new_v7(timestamp).to_string()
}

/// What the player is told: the legacy figures under their names, and what the new pipeline adds. A figure that could not
/// be computed is null; `issues` says why.
fn notice_payload(row: &SessionRow, analysis: &Analysis) -> serde_json::Value {
    let figures = &analysis.session;
    serde_json::json!({
        "session_id": row.session_id,
        "device_code": row.device_code,
        "phase_delay": figures.phase_delay,
        "energy_ratio": figures.energy_ratio,
        "rom_data": figures.rom_data,
        "stroke_count": analysis.strokes.len(),
        "strokes": figures.stroke_counts,
        "scores": figures.scores,
        "recommendations": figures.recommendations,
        "issues": analysis.issues,
        "pipeline": analysis.provenance.pipeline,
    })
}
