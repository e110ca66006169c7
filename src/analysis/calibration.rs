//! A model of a player's own: the shipped one, calibrated with a handful of swings that somebody named.

use std::collections::BTreeMap;

use pipelines::{Example, LabelledTrack, Mark, MarkQuality, Pipeline, adapt, marked_examples};
use schemas::{SessionId, Track, UserId};

use super::labels::together;
use super::{Error, Handle, Known};
use crate::store::catalog::{LabelRow, Relabel};
use crate::store::models;

/// What became of the labels.
#[derive(Clone, Debug)]
pub struct Calibrated {
    /// The player's pipeline from now on.
    pub pipeline: String,
    pub model_sha256: String,
    /// Swings that the model learned from, by class.
    pub swings: BTreeMap<String, usize>,
    /// Labels that it did not learn from: of classes that it does not know, that do not count, or of sessions that were not read.
    pub left_out: usize,
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

    /// Calibrates the model of `base` with labelled swings of a player, those that are `given` now and those that were `kept`
    /// before, saves it as the pipeline `player-NUMBER`, lets it analyse the player's sessions from now on, and keeps what was
    /// given. Labels of sessions without a track here are left out.
    pub async fn calibrate(
        &self,
        user: UserId,
        base: Option<&str>,
        given: &[LabelRow],
        kept: Vec<LabelRow>,
        tracks: Vec<(SessionId, Track)>,
    ) -> Result<Calibrated, Error> {
        let usual = Pipeline::builtin().name();
        let base = self.pipeline(base.unwrap_or(usual)).await?;
        let classes = base.model.as_ref().map_or(&[][..], |model| &model.header().classes);
        // What is kept may be of any vocabulary; what is given for this is a slip if the model does not know it.
        let slip = given.iter().map(|row| &row.label.stroke).find(|stroke| !classes.contains(stroke));
        if let Some(stroke) = slip.filter(|_| base.model.is_some()) {
            return Err(Error::UnknownStroke { stroke: stroke.clone(), known: classes.join(", ") });
        }
        let name = format!("player-{user}");
        let labels = together(given, kept);
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
            for LabelRow { session_id, label, .. } in &labels {
                let counts = MarkQuality::from_name(&label.quality) != MarkQuality::Ignored;
                let is_read = tracks.iter().any(|(session, _)| session == session_id);
                let is_known = adapted.header().classes.contains(&label.stroke);
                if counts && is_read && is_known {
                    *classes.entry(label.stroke.clone()).or_default() += 1;
                }
            }
            let left_out = labels.len() - classes.values().sum::<usize>();
            Ok(Calibrated { pipeline, model_sha256: adapted.sha256().to_owned(), swings: classes, left_out })
        });
        let calibrated = made.await.map_err(|_| Error::Look)??;
        self.catalog.set_pipeline_of(user, Some(&name)).await?;
        let mut changes: BTreeMap<SessionId, Vec<Relabel>> = BTreeMap::new();
        for row in given {
            changes.entry(row.session_id).or_default().push(Relabel::Put(row.label.clone()));
        }
        for (session, changes) in changes {
            self.relabel(session, &changes).await?;
        }
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
fn swings(base: &Known, labels: &[LabelRow], tracks: &[(SessionId, Track)]) -> Vec<Example> {
    let mut swings = Vec::new();
    for (session, track) in tracks {
        let of_it = labels.iter().filter(|row| row.session_id == *session).map(|row| &row.label);
        let ms = |ns: i64| ns as f64 / 1e6;
        let marks: Vec<Mark> = of_it
            .map(|label| Mark {
                player: String::new(),
                start_ms: label.start_ns.map(ms),
                peak_ms: ms(label.impact_ns),
                end_ms: label.end_ns.map(ms),
                stroke: label.stroke.clone(),
                quality: MarkQuality::from_name(&label.quality),
            })
            .collect();
        let name = session.to_string();
        let recording = LabelledTrack { set: "labels", name: &name, track, marks: &marks, acc_to_mps2: None };
        swings.extend(marked_examples(&recording, &base.pipeline.params));
    }
    swings
}
