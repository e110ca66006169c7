//! What a player did before, for the percentiles of a new session.
//!
//! An analysis of ten minutes is 900 kB of JSON, and a session is compared with twenty: to read them took longer than to analyse it.
//! What is compared is kept beside each in the catalog, and made where it is missing.

use std::borrow::Cow;
use std::collections::BTreeMap;

use pipelines::{History, Provenance};
use schemas::{SessionId, UserId};
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::{Error, Known};
use crate::store::catalog::{Catalog, Figures};

/// Sessions of a player that a new one is compared with, the latest.
const SESSIONS: i64 = 20;

/// What is compared, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    provenance: Provenance,
    strokes: History,
}

/// What of an analysis is compared.
#[derive(Deserialize)]
struct Earlier<'a> {
    #[serde(borrow)]
    strokes: Vec<EarlierStroke<'a>>,
    provenance: Provenance,
}

#[derive(Deserialize)]
struct EarlierStroke<'a> {
    /// The name of somebody's own class may have characters that JSON escapes.
    stroke: Cow<'a, str>,
    /// The names of figures are ours and have none.
    #[serde(borrow)]
    metrics: BTreeMap<&'a str, f64>,
}

impl Kept {
    fn of(analysis: &str) -> Option<Self> {
        let Earlier { strokes, provenance } = serde_json::from_str(analysis).ok()?;
        let strokes = History::of(strokes.iter().map(|stroke| (stroke.stroke.as_ref(), &stroke.metrics)));
        Some(Self { provenance, strokes })
    }
}

/// The player's strokes before a session, as far as the same pipeline and model measured them.
pub(super) async fn before(catalog: &Catalog, session: SessionId, user: UserId, by: &Known) -> Result<History, Error> {
    let earlier = catalog.earlier_figures(user, session, SESSIONS).await?;
    let by = by.clone();
    let gather = move || gathered(earlier, &by);
    let gathered = tokio::task::spawn_blocking(gather).await.map_err(|_| Error::Broke { session_id: session })?;
    let (history, made) = gathered;
    if !made.is_empty() {
        let catalog = catalog.clone();
        // The next session makes what could not be kept.
        tokio::spawn(async move {
            if let Err(error) = catalog.keep_figures(&made).await {
                debug!(error = &error as &dyn std::error::Error, "figures of earlier strokes could not be kept");
            }
        });
    }
    Ok(history)
}

/// The history, and what was missing.
fn gathered(earlier: Vec<Figures>, by: &Known) -> (History, Vec<Figures>) {
    let model = by.model.as_ref().map(|model| model.sha256());
    let is_same = |made: &Provenance| {
        made.name == by.pipeline.name()
            && made.pipeline == pipelines::PIPELINE
            && made.params_sha256 == by.pipeline.params.sha256()
            && made.model_sha256.as_deref() == model
    };
    let (mut parts, mut made) = (Vec::new(), Vec::new());
    for figures in earlier {
        let kept = match &figures.figures {
            Some(text) => serde_json::from_str(text).ok(),
            None => figures.analysis.as_deref().and_then(Kept::of),
        };
        let Some(kept) = kept else { continue };
        if figures.figures.is_none()
            && let Ok(text) = serde_json::to_string(&kept)
        {
            made.push(Figures { figures: Some(text), analysis: None, ..figures });
        }
        if is_same(&kept.provenance) {
            parts.push(kept.strokes);
        }
    }
    (History::merged(parts), made)
}
