//! Hands sealed sessions to the pipelines on a CPU pool of its own, by durable, leased jobs.

use schemas::{AnalysisId, SessionId};

/// The published result of a session.
#[derive(Clone, Debug)]
pub struct Published {
    pub analysis_id: AnalysisId,
    pub session_id: SessionId,
    pub created_at_us: i64,
    pub analysis: std::sync::Arc<pipelines::Analysis>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {}

/// The analysis room. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {}

impl Handle {
    /// The published result of a session, if there is one.
    pub async fn published(&self, _session: SessionId) -> Result<Option<Published>, Error> {
        unimplemented!()
    }
}
