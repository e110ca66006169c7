//! Analyses by other pipelines, side by side with the published ones: ordered, compared, and put in their place.

use std::collections::BTreeMap;

use pipelines::Analysis;
use schemas::SessionId;

use super::{Error, Found, Handle, Known};
use crate::store::catalog::{CandidateRow, Order};

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// Sessions that are analysed because of it; others are done already.
    pub sessions: u64,
}

/// A candidate beside the published result of its session.
#[derive(Clone, Debug)]
pub struct Compared {
    pub candidate: CandidateRow,
    /// Swings of the published result, and of the candidate.
    pub published_strokes: Option<usize>,
    pub candidate_strokes: Option<usize>,
    /// Swings that both found (impacts within 100 ms), and those of them that have another name.
    pub common_strokes: Option<usize>,
    pub renamed_strokes: Option<usize>,
}

/// Impacts that are nearer than this are one swing, ms.
const SAME_SWING_MS: f64 = 100.0;

impl Handle {
    /// Every pipeline there is, and the files that are none.
    pub async fn pipelines(&self) -> Result<Found, Error> {
        let registry = self.registry.clone();
        tokio::task::spawn_blocking(move || registry.look()).await.map_err(|_| Error::Look)
    }

    /// One pipeline.
    pub async fn pipeline(&self, name: &str) -> Result<Known, Error> {
        let mut found = self.pipelines().await?;
        found.known.remove(name).ok_or_else(|| Error::NoPipeline { name: name.chars().take(64).collect() })
    }

    /// Orders analyses by a pipeline of all sealed sessions that `order` names. Repeating it goes on with what is not done.
    pub async fn order(&self, pipeline: &str, order: &Order) -> Result<Ordered, Error> {
        let known = self.pipeline(pipeline).await?;
        let now_us = self.clock.now_us();
        let sessions = self.catalog.order_candidates(pipeline, &known.sha256, order, now_us).await?;
        self.job_ready.notify_one();
        Ok(Ordered { sessions })
    }

    /// Takes back what was ordered of a pipeline and nobody has begun; how many those were.
    pub async fn cancel(&self, pipeline: &str) -> Result<u64, Error> {
        Ok(self.catalog.cancel_candidates(pipeline).await?)
    }

    /// How many candidates of a pipeline are in each state.
    pub async fn progress(&self, pipeline: &str) -> Result<BTreeMap<String, i64>, Error> {
        Ok(self.catalog.candidate_counts(pipeline).await?.into_iter().collect())
    }

    /// The candidates of a pipeline beside the published results, by session, those after `after`.
    pub async fn compare(&self, pipeline: &str, after: SessionId, limit: i64) -> Result<Vec<Compared>, Error> {
        let mut compared = Vec::new();
        for candidate in self.catalog.candidates_of_pipeline(pipeline, after, limit).await? {
            compared.push(self.beside_published(candidate).await?);
        }
        Ok(compared)
    }

    /// The candidates of a session beside its published result, by pipeline.
    pub async fn candidates_of(&self, session: SessionId) -> Result<Vec<Compared>, Error> {
        let mut compared = Vec::new();
        for candidate in self.catalog.candidates_of_session(session).await? {
            compared.push(self.beside_published(candidate).await?);
        }
        Ok(compared)
    }

    async fn beside_published(&self, candidate: CandidateRow) -> Result<Compared, Error> {
        let session = candidate.session_id;
        let own = self.candidate(session, &candidate.pipeline).await?.map(|(_, analysis)| analysis);
        let published = self.published(session).await?;
        let both = own.as_ref().zip(published.as_ref()).map(|(own, published)| changes(&published.analysis, own));
        Ok(Compared {
            candidate,
            published_strokes: published.map(|published| published.analysis.strokes.len()),
            candidate_strokes: own.map(|own| own.strokes.len()),
            common_strokes: both.map(|(common, _)| common),
            renamed_strokes: both.map(|(_, renamed)| renamed),
        })
    }

    /// A candidate that is done.
    pub async fn candidate(
        &self,
        session: SessionId,
        pipeline: &str,
    ) -> Result<Option<(CandidateRow, Analysis)>, Error> {
        let Some((row, Some(text))) = self.catalog.candidate(session, pipeline).await? else { return Ok(None) };
        let analysis = serde_json::from_str(&text).map_err(|source| Error::Decode { session_id: session, source })?;
        Ok(Some((row, analysis)))
    }

    /// Orders that candidates take the place of the published results, of one session or of all; how many. Nobody is
    /// notified: the player was when the session was new.
    pub async fn switch(&self, pipeline: &str, session: Option<SessionId>) -> Result<u64, Error> {
        let switches = self.catalog.order_switches(pipeline, session).await?;
        self.job_ready.notify_one();
        Ok(switches)
    }
}

/// How many swings two analyses have in common, and how many of those have different names.
fn changes(published: &Analysis, candidate: &Analysis) -> (usize, usize) {
    let (mut common, mut renamed) = (0, 0);
    let mut rest = published.strokes.as_slice();
    for stroke in &candidate.strokes {
        let before = |of: &&pipelines::Stroke| of.impact_ms < stroke.impact_ms - SAME_SWING_MS;
        rest = &rest[rest.iter().take_while(before).count()..];
        if let Some((same, after)) = rest.split_first()
            && same.impact_ms <= stroke.impact_ms + SAME_SWING_MS
        {
            common += 1;
            renamed += usize::from(same.stroke != stroke.stroke);
            rest = after;
        }
    }
    (common, renamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swings_are_the_same_where_their_impacts_are() {
        let mut spec = pipelines::synth::SynthSpec::new(5);
        spec.duration_s = 20.0;
        let track = pipelines::synth::generate(&spec).track;
        let published = pipelines::analyze(&track, pipelines::Params::builtin(), Some(pipelines::Model::builtin()));
        let mut candidate = published.clone();
        let count = published.strokes.len();
        assert!(count > 3);
        assert_eq!(changes(&published, &candidate), (count, 0));
        candidate.strokes[1].impact_ms += 90.0;
        "serve".clone_into(&mut candidate.strokes[1].stroke);
        candidate.strokes.remove(2);
        assert_eq!(changes(&published, &candidate), (count - 1, 1));
        candidate.strokes[0].impact_ms -= 110.0;
        assert_eq!(changes(&published, &candidate), (count - 2, 1));
    }
}
