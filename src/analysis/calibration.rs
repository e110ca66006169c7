//! A model of a player's own: the shipped one, calibrated with a handful of swings that somebody named.

use std::collections::BTreeMap;

use pipelines::{Example, LabelledTrack, Mark, MarkQuality, OTHER, Pipeline, adapt, examples};
use schemas::{SessionId, Track, UserId};

use super::{Error, Handle, Known};
use crate::store::models;

/// A swing of a session and what it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    pub session_id: SessionId,
    /// Near its impact, ms since session start.
    pub impact_ms: f64,
    pub stroke: String,
}

/// What became of the labels.
#[derive(Clone, Debug)]
pub struct Calibrated {
    /// The player's pipeline from now on.
    pub pipeline: String,
    pub model_sha256: String,
    /// Swings that the model learned from, by class.
    pub swings: BTreeMap<String, usize>,
}

/// How much a labelled swing counts beside one of the training.
const WEIGHT: f64 = 8.0;

impl Handle {
    /// The pipeline that analyses a player's sessions, if it is not everybody's.
    pub async fn pipeline_of(&self, user: UserId) -> Result<Option<String>, Error> {
        Ok(self.catalog.pipeline_of(user).await?)
    }

    /// Chooses the pipeline that analyses a player's new sessions; `None`: everybody's.
    pub async fn set_pipeline_of(&self, user: UserId, name: Option<&str>) -> Result<(), Error> {
        if let Some(name) = name {
            self.pipeline(name).await?;
        }
        Ok(self.catalog.set_pipeline_of(user, name).await?)
    }

    /// Calibrates the model of `base` with labelled swings of a player, keeps it as the pipeline `player-NUMBER`, and lets it
    /// analyse the player's sessions from now on. `tracks` are those of the sessions that the labels name.
    pub async fn calibrate(
        &self,
        user: UserId,
        base: Option<&str>,
        labels: &[Label],
        tracks: Vec<(SessionId, Track)>,
    ) -> Result<Calibrated, Error> {
        let usual = Pipeline::builtin().name();
        let base = self.pipeline(base.unwrap_or(usual)).await?;
        let name = format!("player-{user}");
        let labels = labels.to_vec();
        let folder = self.registry.folder().to_owned();
        let pipeline = name.clone();
        let turn = self.turn().await;
        let made = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let swings = swings(&base, &labels, &tracks);
            let Some(model) = &base.model else { return Err(Error::NoModel { name: base.pipeline.name().to_owned() }) };
            let adapted = adapt(model, &swings, WEIGHT, &pipeline).map_err(|source| Error::Calibrate { source })?;
            let bytes = adapted.to_bytes().map_err(|source| Error::Model { source })?;
            let text = format!(
                "name = \"{pipeline}\"\ndescription = \"Calibrated with labelled swings of player {user}.\"\n\
                 extends = \"{}\"\nmodel = \"{pipeline}.safetensors\"\n",
                base.pipeline.name()
            );
            models::publish(&folder, &pipeline, &bytes, &text).map_err(|source| Error::Publish { source })?;
            let mut classes: BTreeMap<String, usize> = BTreeMap::new();
            for label in &labels {
                *classes.entry(label.stroke.clone()).or_default() += 1;
            }
            classes.retain(|class, _| adapted.header().classes.contains(class));
            Ok(Calibrated { pipeline, model_sha256: adapted.sha256().to_owned(), swings: classes })
        });
        let calibrated = made.await.map_err(|_| Error::Look)??;
        self.catalog.set_pipeline_of(user, Some(&name)).await?;
        // A player who was erased meanwhile leaves no model behind; one who is erased from now on takes the files along.
        if self.catalog.openid_of(user).await?.is_none() {
            let folder = self.registry.folder().to_owned();
            let withdrawn = tokio::task::spawn_blocking(move || models::withdraw(&folder, &name));
            withdrawn.await.map_err(|_| Error::Look)?.map_err(|source| Error::Publish { source })?;
            return Err(Error::Erased { user });
        }
        Ok(calibrated)
    }
}

/// The examples of the labels, and of nothing else: an unlabelled swing is not `other`.
fn swings(base: &Known, labels: &[Label], tracks: &[(SessionId, Track)]) -> Vec<Example> {
    let mut swings = Vec::new();
    for (session, track) in tracks {
        let marks: Vec<Mark> = labels
            .iter()
            .filter(|label| label.session_id == *session)
            .map(|label| Mark {
                player: String::new(),
                start_ms: None,
                peak_ms: label.impact_ms,
                end_ms: None,
                stroke: label.stroke.clone(),
                quality: MarkQuality::Counted,
            })
            .collect();
        let name = session.to_string();
        let recording = LabelledTrack { set: "labels", name: &name, track, marks: &marks, acc_to_mps2: None };
        let cut = examples(&recording, &base.pipeline.params);
        swings.extend(cut.into_iter().filter(|swing| swing.stroke != OTHER));
    }
    swings
}
