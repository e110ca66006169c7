//! What people say was played: kept with the sessions, for calibration, for training and for judging what the models say.

use schemas::{SessionId, UserId};

use super::{Error, Handle};
use crate::store::catalog::{Label, LabelRow, Relabel, SAME_SWING_NS};

/// Labels of one session at most.
const SESSION_LIMIT: usize = 20_000;

impl Handle {
    /// The labels of a session in the order of time.
    pub async fn labels(&self, session: SessionId) -> Result<Vec<Label>, Error> {
        Ok(self.catalog.labels(session).await?)
    }

    /// The labels of a player's sessions, those of the newest session first.
    pub async fn labels_of(&self, user: UserId) -> Result<Vec<LabelRow>, Error> {
        Ok(self.catalog.labels_of(user).await?)
    }

    /// Changes labels of a session, all or none, and answers with what there is now; `None` if there is no such session.
    pub async fn relabel(&self, session: SessionId, changes: &[Relabel]) -> Result<Option<Vec<Label>>, Error> {
        let added = changes.iter().filter(|change| matches!(change, Relabel::Put(_))).count();
        if added > 0 && self.labels(session).await?.len() + added > SESSION_LIMIT {
            return Err(Error::LabelsLimit { session_id: session, limit: SESSION_LIMIT });
        }
        if !self.catalog.relabel(session, changes).await? {
            return Ok(None);
        }
        metrics::counter!("volant_analysis_labels_total").increment(added as u64);
        Ok(Some(self.labels(session).await?))
    }
}

/// What is known after `given` was said: of a swing that both name, what was given.
pub(super) fn together(given: &[LabelRow], kept: Vec<LabelRow>) -> Vec<LabelRow> {
    let is_said_anew = |old: &LabelRow| {
        given.iter().any(|new| {
            new.session_id == old.session_id && (new.label.impact_ns - old.label.impact_ns).abs() < SAME_SWING_NS
        })
    };
    let mut all = given.to_vec();
    all.extend(kept.into_iter().filter(|old| !is_said_anew(old)));
    all
}
