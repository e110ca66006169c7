//! Hands sealed sessions to the pipelines on a CPU pool of its own, by durable, leased jobs.
//!
//! In: jobs in the catalog (made by the commit that seals a session). Out: strokes and results as Parquet, and one commit
//! of result, end of the session and owed notice. A job that dies with its process is leased again; a job whose input
//! cannot be analysed ends its session `stopped` with the reason and without numbers.
//!
//! Other pipelines ([`Registry`]) analyse old sessions side by side with that, as candidates that are ordered, compared and
//! put in the place of the published results. They run only while no new session waits.
//!
//! Absent: formulas (they are `pipelines`' own) and delivery (`notify` reads the outbox).

mod ahead;
mod calibration;
mod candidates;
mod history;
mod labels;
mod live;
mod registry;
mod rows;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use schemas::{AnalysisId, SessionId};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub use calibration::Calibrated;
pub use candidates::{Compared, Ordered};
pub use live::LiveService;
pub use registry::{Found, Known, Refused, Registry};
pub use worker::Service;

use crate::clock::Clock;
use crate::store::catalog::{self, Catalog};
use crate::store::seal;

/// Limits of the analysis room.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads of the CPU pool.
    pub threads: usize,
    /// Jobs that run at the same time.
    pub concurrent_jobs: usize,
    /// A job that runs longer is given up: its session ends `stopped`.
    pub timeout: Duration,
    /// A job that failed so often for reasons of the environment is given up.
    pub attempts_limit: i64,
    /// Where pipelines and models of one's own lie.
    pub folder: std::path::PathBuf,
    /// Name of the pipeline that analyses new sessions; empty: the one that ships.
    pub pipeline: String,
}

/// The published result of a session.
#[derive(Clone, Debug)]
pub struct Published {
    pub analysis_id: AnalysisId,
    pub session_id: SessionId,
    /// Which seal of the session was analysed; a late frame makes a further one.
    pub revision: i64,
    pub created_at_us: i64,
    pub analysis: Arc<pipelines::Analysis>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("start the analysis threads")]
    Threads(#[source] rayon::ThreadPoolBuildError),
    #[error("use the catalog for an analysis")]
    Catalog(#[from] catalog::Error),
    #[error("read the frames of session {session_id}")]
    Frames {
        session_id: SessionId,
        #[source]
        source: seal::Error,
    },
    #[error("find the frames of session {session_id}")]
    NoFrames { session_id: SessionId },
    #[error("write the strokes and results of session {session_id}")]
    Write {
        session_id: SessionId,
        #[source]
        source: seal::Error,
    },
    #[error("encode the result of session {session_id}")]
    Encode {
        session_id: SessionId,
        #[source]
        source: serde_json::Error,
    },
    #[error("read the result of session {session_id}")]
    Decode {
        session_id: SessionId,
        #[source]
        source: serde_json::Error,
    },
    #[error("find pipeline {name}")]
    NoPipeline { name: String },
    #[error("analyse by pipeline {name}: it changed after the order; order again")]
    Changed { name: String },
    #[error("show a candidate of session {session_id}: it is of other frames than the published result")]
    Superseded { session_id: SessionId },
    #[error("calibrate pipeline {name}: it has no model")]
    NoModel { name: String },
    #[error("keep labels of session {session_id}: it would have more than {limit}")]
    LabelsLimit { session_id: SessionId, limit: usize },
    #[error("calibrate with a swing named {stroke:?}: the model knows {known}")]
    UnknownStroke { stroke: String, known: String },
    #[error("calibrate with these swings")]
    Calibrate {
        #[source]
        source: pipelines::AdaptError,
    },
    #[error("encode a calibrated model")]
    Model {
        #[source]
        source: pipelines::ModelError,
    },
    #[error("keep a calibrated model")]
    Publish {
        #[source]
        source: crate::store::models::Error,
    },
    #[error("calibrate for player {user}: erased meanwhile")]
    Erased { user: schemas::UserId },
    #[error("look for pipelines")]
    Look,
    #[error("analyse session {session_id}: the pipeline broke")]
    Broke { session_id: SessionId },
    #[error("analyse session {session_id} within {limit_s} s")]
    TimedOut { session_id: SessionId, limit_s: u64 },
}

impl Error {
    /// True if the same job may succeed later; else its session is stopped.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Threads(_)
            | Self::Catalog(_)
            | Self::Frames { .. }
            | Self::Write { .. }
            | Self::Look
            | Self::Publish { .. } => true,
            Self::NoPipeline { .. }
            | Self::NoModel { .. }
            | Self::Calibrate { .. }
            | Self::Model { .. }
            | Self::Changed { .. }
            | Self::Erased { .. }
            | Self::LabelsLimit { .. }
            | Self::UnknownStroke { .. }
            | Self::Superseded { .. }
            | Self::NoFrames { .. }
            | Self::Decode { .. }
            | Self::Encode { .. }
            | Self::Broke { .. }
            | Self::TimedOut { .. } => false,
        }
    }
}

/// An error with its causes, for the person who wrote the file or gave the order.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    causes.collect::<Vec<_>>().join(": ")
}

/// The analysis room. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    catalog: Catalog,
    clock: Clock,
    registry: Registry,
    job_ready: Arc<Notify>,
    /// One recording at a time is looked at, and one player calibrated: each takes a core for a while.
    examining: Arc<Semaphore>,
}

impl Handle {
    /// `job_ready` tells the workers of new orders.
    #[must_use]
    pub fn new(options: &Options, catalog: Catalog, clock: Clock, job_ready: Arc<Notify>) -> Self {
        let registry = Registry::new(options.folder.clone());
        Self { catalog, clock, registry, job_ready, examining: Arc::new(Semaphore::new(1)) }
    }

    /// What is wrong with a session's recording, the gravest first. One without a result is analysed for it.
    pub async fn examine(&self, session: SessionId, track: schemas::Track) -> Result<Vec<pipelines::Finding>, Error> {
        let published = self.published(session).await?;
        let turn = self.turn().await;
        tokio::task::spawn_blocking(move || {
            // The turn lasts as long as the work, also if nobody waits for it any more.
            let _turn = turn;
            let pipeline = pipelines::Pipeline::builtin();
            let analysis = match published {
                Some(published) => published.analysis,
                None => Arc::new(pipeline.analyze(&track, Some(pipelines::Model::builtin()))),
            };
            pipelines::diagnose(&track, &analysis)
        })
        .await
        .map_err(|_| Error::Broke { session_id: session })
    }

    /// Waits for the turn to do what takes a core for a while.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed, so always some.
        Arc::clone(&self.examining).acquire_owned().await.ok()
    }

    /// The published result of a session, if there is one.
    pub async fn published(&self, session: SessionId) -> Result<Option<Published>, Error> {
        let Some(row) = self.catalog.result(session).await? else { return Ok(None) };
        let analysis =
            serde_json::from_str(&row.analysis).map_err(|source| Error::Decode { session_id: session, source })?;
        Ok(Some(Published {
            analysis_id: row.analysis_id,
            session_id: row.session_id,
            revision: row.revision,
            created_at_us: row.created_at_us,
            analysis: Arc::new(analysis),
        }))
    }
}
