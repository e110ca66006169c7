//! Pipelines as data: a file says which stages run, on which sensors, with which parameters and which model.
//!
//! ```toml
//! name = "wrist-only-1"
//! description = "Watches on the wrist, without a racket sensor."
//! extends = "volant-default-1"        # only what differs is written; without it every value is
//! stages = ["calibrate", "segment", "classify", "kinetics", "report"]
//! sensors = ["wrist"]
//! model = "volant-strokes-3"          # one that ships, a file beside this one, or "none"
//!
//! [segment]
//! floor = 0.9
//! ```

use std::sync::LazyLock;

use schemas::{SensorRole, Track};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use toml::{Table, Value};

use crate::analysis::Analysis;
use crate::model::Model;
use crate::params::{Params, ParamsError, hex};
use crate::pipeline::analyze_stages;

/// The pipeline that ships with the product.
pub(crate) const DEFAULT: &str = include_str!("../default.toml");

/// A stage of a pipeline. They run in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// From samples as sent to the working grid, and the quality of each sensor.
    Calibrate,
    /// Swings.
    Segment,
    /// The name of each swing.
    Classify,
    /// The figures of each swing.
    Kinetics,
    /// Scores and advice.
    Report,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Calibrate, Self::Segment, Self::Classify, Self::Kinetics, Self::Report];

    /// The stages that must have run before.
    const fn needs(self) -> &'static [Self] {
        match self {
            Self::Calibrate => &[],
            Self::Segment => &[Self::Calibrate],
            Self::Classify | Self::Kinetics | Self::Report => &[Self::Segment],
        }
    }

    /// Its name in pipeline files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calibrate => "calibrate",
            Self::Segment => "segment",
            Self::Classify => "classify",
            Self::Kinetics => "kinetics",
            Self::Report => "report",
        }
    }
}

/// A pipeline, read from `pipelines/*.toml` or a file of the user's own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pipeline {
    /// For people.
    pub description: String,
    /// In order, each once.
    pub stages: Vec<Stage>,
    /// The sensors that are looked at; others count as absent.
    pub sensors: Vec<SensorRole>,
    /// The model's name or file; `None`: no stroke is named.
    pub model: Option<String>,
    /// Every number, and the pipeline's name.
    #[serde(flatten)]
    pub params: Params,
}

/// Why a pipeline file was refused.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// Not TOML.
    #[error("read the pipeline: {source}")]
    Syntax {
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A key of the head that is missing or of the wrong type.
    #[error("read {key} of the pipeline: it must be {wanted}")]
    Head {
        /// The key.
        key: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// A name that can be no file name or part of an address.
    #[error("take {name:?} as a name: it has 1 to 64 characters out of letters, digits, '_', '.' and '-'")]
    Name {
        /// As given.
        name: String,
    },
    /// A pipeline that is to be extended and is not there.
    #[error("extend {name:?}: there is no such pipeline")]
    Base {
        /// As given.
        name: String,
    },
    /// A stage that is unknown, out of order, twice, or without the one that it builds on.
    #[error("run stage {stage:?}: {problem}")]
    Stage {
        /// As given.
        stage: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A sensor that is unknown or given twice.
    #[error("look at sensor {sensor:?}: it must be one of waist, shoulder, wrist, racket, and once")]
    Sensor {
        /// As given.
        sensor: String,
    },
    /// A parameter.
    #[error(transparent)]
    Params(#[from] ParamsError),
}

/// Keys of the head; everything else is a section of parameters.
const HEAD: [&str; 5] = ["description", "extends", "stages", "sensors", "model"];

impl Pipeline {
    /// The pipeline that ships with the product.
    #[must_use]
    pub fn builtin() -> &'static Self {
        static BUILTIN: LazyLock<Pipeline> =
            LazyLock::new(|| Pipeline::from_toml(DEFAULT, |_| None).expect("a test reads the shipped file"));
        &BUILTIN
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.params.name
    }

    /// Reads a pipeline file; `base` finds the pipelines that it may extend.
    ///
    /// # Errors
    /// Anything that is unknown, missing, out of range or contradictory; the error names it.
    pub fn from_toml(text: &str, base: impl Fn(&str) -> Option<Self>) -> Result<Self, PipelineError> {
        let mut table: Table =
            toml::from_str(text).map_err(|source| PipelineError::Syntax { source: Box::new(source) })?;
        let mut head: Table = HEAD.iter().filter_map(|&key| Some((key.to_owned(), table.remove(key)?))).collect();
        let base = match text_of(&mut head, "extends")? {
            Some(name) => Some(base(&name).ok_or(PipelineError::Base { name })?),
            None => None,
        };
        let params = match &base {
            // Only what is written changes; a misspelt key is refused as in a whole file.
            Some(base) => {
                let mut whole = Table::try_from(&base.params).unwrap_or_default();
                overlay(&mut whole, table);
                Params::from_table(whole)?
            }
            None => Params::from_table(table)?,
        };
        if !schemas::ids::is_path_segment(&params.name) {
            return Err(PipelineError::Name { name: params.name });
        }
        let base = base.as_ref();
        let stages = match list_of(&mut head, "stages")? {
            Some(names) => stages(&names)?,
            None => base.map_or_else(|| Stage::ALL.to_vec(), |base| base.stages.clone()),
        };
        let sensors = match list_of(&mut head, "sensors")? {
            Some(names) => sensors(&names)?,
            None => base.map_or_else(|| SensorRole::CHAIN.to_vec(), |base| base.sensors.clone()),
        };
        let model = match text_of(&mut head, "model")? {
            Some(name) => Some(name).filter(|name| name != "none"),
            None => base.map_or_else(|| Some(Model::builtin().name().to_owned()), |base| base.model.clone()),
        };
        let description = text_of(&mut head, "description")?.unwrap_or_default();
        Ok(Self { description, stages, sensors, model, params })
    }

    /// SHA-256, hex, of everything that the results depend on: stages, sensors, parameters, and the model's bytes.
    #[must_use]
    pub fn sha256(&self, model: Option<&Model>) -> String {
        let model = model.filter(|_| self.stages.contains(&Stage::Classify)).map(Model::sha256);
        let canonical = serde_json::to_vec(&(
            crate::PIPELINE,
            &self.stages,
            &self.sensors,
            self.params.sha256(),
            model.unwrap_or_default(),
        ));
        hex(&Sha256::digest(canonical.expect("names and hashes always serialise")))
    }

    /// Analyses a recording, as [`crate::analyze`] does, by this pipeline. `model` is the one that [`Self::model`] names.
    #[must_use]
    pub fn analyze(&self, track: &Track, model: Option<&Model>) -> Analysis {
        if self.sensors == SensorRole::CHAIN {
            return analyze_stages(track, &self.params, model, &self.stages);
        }
        let mut seen = Track { sync_error_ns: track.sync_error_ns, ..Track::default() };
        for &role in &self.sensors {
            if let (Some(sensor), Some(kept)) = (track.get(role), seen.get_or_insert(role)) {
                kept.clone_from(sensor);
            }
        }
        analyze_stages(&seen, &self.params, model, &self.stages)
    }
}

fn text_of(head: &mut Table, key: &'static str) -> Result<Option<String>, PipelineError> {
    match head.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(PipelineError::Head { key, wanted: "a text" }),
    }
}

fn list_of(head: &mut Table, key: &'static str) -> Result<Option<Vec<String>>, PipelineError> {
    let wanted = PipelineError::Head { key, wanted: "a list of names" };
    match head.remove(key) {
        None => Ok(None),
        Some(list) => list.try_into().map(Some).map_err(|_| wanted),
    }
}

fn overlay(whole: &mut Table, part: Table) {
    for (key, value) in part {
        match (whole.get_mut(&key), value) {
            (Some(Value::Table(whole)), Value::Table(part)) => overlay(whole, part),
            // As TOML has no type for "a number", 1 is as good as 1.0.
            (Some(Value::Float(whole)), Value::Integer(part)) => *whole = part as f64,
            (_, value) => {
                whole.insert(key, value);
            }
        }
    }
}

fn stages(names: &[String]) -> Result<Vec<Stage>, PipelineError> {
    let mut stages: Vec<Stage> = Vec::new();
    for name in names {
        let refuse = |problem| PipelineError::Stage { stage: name.clone(), problem };
        let stage = Stage::ALL.into_iter().find(|stage| stage.as_str() == name);
        let stage = stage.ok_or_else(|| refuse("there is none of that name"))?;
        if stages.last().is_some_and(|last| *last >= stage) {
            return Err(refuse("stages stand once and in the order calibrate, segment, classify, kinetics, report"));
        }
        if stage.needs().iter().any(|needed| !stages.contains(needed)) {
            return Err(refuse("the stage that it builds on is not there"));
        }
        stages.push(stage);
    }
    if stages.is_empty() {
        return Err(PipelineError::Stage { stage: String::new(), problem: "a pipeline has one stage at least" });
    }
    Ok(stages)
}

fn sensors(names: &[String]) -> Result<Vec<SensorRole>, PipelineError> {
    let mut sensors: Vec<SensorRole> = Vec::new();
    for name in names {
        let role = SensorRole::CHAIN.into_iter().find(|role| role.as_str() == name);
        match role.filter(|role| !sensors.contains(role)) {
            Some(role) => sensors.push(role),
            None => return Err(PipelineError::Sensor { sensor: name.clone() }),
        }
    }
    if sensors.is_empty() {
        return Err(PipelineError::Head { key: "sensors", wanted: "a list of one sensor at least" });
    }
    sensors.sort_by_key(|role| role.chain_index());
    Ok(sensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Pipeline, PipelineError> {
        Pipeline::from_toml(text, |name| (name == "volant-default-1").then(|| Pipeline::builtin().clone()))
    }

    fn refusal(text: &str) -> String {
        let error = read(text).unwrap_err();
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        format!("{error}{source}")
    }

    #[test]
    fn the_shipped_pipeline_names_a_model_that_ships() {
        let pipeline = Pipeline::builtin();
        assert_eq!(pipeline.model.as_deref(), Some(Model::builtin().name()));
        assert_eq!(&pipeline.params, Params::builtin());
        assert_eq!(pipeline.stages, Stage::ALL);
    }

    #[test]
    fn a_file_may_change_a_few_values_of_another() {
        let pipeline = read(
            "name = \"mine\"\nextends = \"volant-default-1\"\nsensors = [\"racket\", \"wrist\"]\nmodel = \"none\"\n\
             [kinetics]\nracket_radius_m = 0.6\n[segment]\nhistory_s = 20\n",
        )
        .unwrap();
        assert_eq!((pipeline.name(), pipeline.model.as_deref()), ("mine", None));
        assert_eq!(pipeline.sensors, [SensorRole::Wrist, SensorRole::Racket]);
        let mut expected = Params::builtin().clone();
        "mine".clone_into(&mut expected.name);
        expected.kinetics.racket_radius_m = 0.6;
        expected.segment.history_s = 20.0;
        assert_eq!(pipeline.params, expected);
        assert_ne!(pipeline.sha256(None), Pipeline::builtin().sha256(None));
        assert_ne!(Pipeline::builtin().sha256(None), Pipeline::builtin().sha256(Some(Model::builtin())));
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        let mine = "name = \"mine\"\nextends = \"volant-default-1\"\n";
        for (text, says) in [
            ("name = ", "read the pipeline"),
            ("name = \"mine\"", "missing field"),
            ("name = \"mine\"\nextends = \"nobody\"", "nobody"),
            ("name = \"../up\"\nextends = \"volant-default-1\"", "../up"),
            (&format!("{mine}stages = [\"calibrate\", \"dance\"]"), "dance"),
            (&format!("{mine}stages = [\"segment\"]"), "builds on"),
            (&format!("{mine}stages = [\"calibrate\", \"calibrate\"]"), "once"),
            (&format!("{mine}stages = []"), "one stage"),
            (&format!("{mine}sensors = [\"knee\"]"), "knee"),
            (&format!("{mine}sensors = \"wrist\""), "a list"),
            (&format!("{mine}model = 1"), "a text"),
            (&format!("{mine}[segment]\nflor = 1.0"), "flor"),
            (&format!("{mine}[segment]\nfloor = 1e9"), "segment.floor"),
            (&format!("{mine}[dance]\nfloor = 1"), "dance"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(says), "{text}: {refusal}");
        }
    }

    #[test]
    fn stages_and_sensors_that_are_left_out_leave_their_figures_out() {
        let mut spec = crate::synth::SynthSpec::new(3);
        spec.duration_s = 20.0;
        let track = crate::synth::generate(&spec).track;
        let whole = Pipeline::builtin().analyze(&track, Some(Model::builtin()));
        assert!(whole.strokes.len() > 3 && whole.strokes.iter().any(|stroke| stroke.confidence.is_some()));

        let mine = "name = \"mine\"\nextends = \"volant-default-1\"\n";
        let run = |head: &str| read(&format!("{mine}{head}")).unwrap().analyze(&track, Some(Model::builtin()));
        let quality = run("stages = [\"calibrate\"]");
        assert!(quality.strokes.is_empty() && quality.session.recommendations.is_empty());
        assert_eq!(quality.session.sensors, whole.session.sensors);
        let swings = run("stages = [\"calibrate\", \"segment\"]");
        // Only a model's gate leaves proposals out.
        assert!(swings.strokes.len() >= whole.strokes.len());
        assert!(swings.strokes.iter().all(|stroke| stroke.confidence.is_none() && stroke.metrics.is_empty()));
        let unnamed = run("stages = [\"calibrate\", \"segment\", \"kinetics\", \"report\"]");
        for of_whole in &whole.strokes {
            let same = |stroke: &&crate::Stroke| stroke.start_ms.to_bits() == of_whole.start_ms.to_bits();
            let stroke = unnamed.strokes.iter().find(same).unwrap();
            // The template is that of the strokes of one name.
            let own = |stroke: &crate::Stroke| -> Vec<(String, f64)> {
                let figures = stroke.metrics.iter().filter(|(name, _)| *name != "template_correlation");
                figures.map(|(name, value)| (name.clone(), *value)).collect()
            };
            assert_eq!((own(stroke), stroke.confidence), (own(of_whole), None));
        }
        let wrist = run("sensors = [\"wrist\"]");
        assert_eq!(wrist.session.sensors.keys().collect::<Vec<_>>(), [&SensorRole::Wrist]);
        assert!(wrist.strokes.iter().all(|stroke| stroke.sensor == SensorRole::Wrist));
    }
}
