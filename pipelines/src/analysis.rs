//! What an analysis says.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemas::SensorRole;
use serde::{Deserialize, Serialize};

use crate::advice::Advice;
use crate::model::{LevelAnswer, OTHER};

/// The result of analysing one recording. Serialises to the JSON of `volant analyze --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Analysis {
    /// The swings in time order; they do not overlap.
    pub strokes: Vec<Stroke>,
    pub session: SessionFigures,
    /// What is wrong with the recording, and which figures it affects.
    pub issues: Vec<Issue>,
    pub provenance: Provenance,
}

/// One swing and what it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stroke {
    /// ms since session start.
    pub start_ms: f64,
    /// Impact, or the peak of the swing where no impact was felt, ms since session start.
    pub impact_ms: f64,
    pub end_ms: f64,
    /// The sensor the swing was found on.
    pub sensor: SensorRole,
    /// Class name, or `other`.
    pub stroke: String,
    /// Probability of `stroke`, knowing the swings around it where they are a drill; absent when no model ran.
    pub confidence: Option<f64>,
    /// Every class with its probability; they sum to 1. Empty when no model ran.
    pub probabilities: BTreeMap<String, f64>,
    /// The answer in levels above the class: `side` (forehand, backhand) and `height` (overhead, level, underhand), each
    /// with its probabilities, and absent where the model is not sure. Empty when no model ran.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub levels: BTreeMap<String, LevelAnswer>,
    /// Figures of this stroke, unit in the name; a figure that cannot be computed is absent.
    pub metrics: BTreeMap<String, f64>,
}

impl Stroke {
    /// The class that a stroke came nearest to, and its probability, where the model was not sure enough of any and said `other`.
    #[must_use]
    pub fn nearest(&self) -> Option<(&str, f64)> {
        let best = self.probabilities.iter().reduce(|best, next| if next.1 > best.1 { next } else { best })?;
        (self.stroke == OTHER && best.0 != OTHER).then_some((best.0.as_str(), *best.1))
    }
}

/// Figures over the whole session. `None` means: cannot be computed from this recording; `issues` says why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionFigures {
    pub duration_s: f64,
    pub frame_count: usize,
    /// Swings by class.
    pub stroke_counts: BTreeMap<String, usize>,
    /// Stretches in which the same stroke was played over and over, in the order of their times. The strokes of a drill are named
    /// together. Empty in open play.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drills: Vec<Drill>,
    /// Median over swings, s.
    pub phase_delay: PhaseDelay,
    /// 0 to 1.
    pub energy_ratio: Option<f64>,
    /// °.
    pub rom_data: RangeOfMotion,
    /// The legacy scores, 0 to 100; a score whose figures are absent is absent.
    pub scores: Scores,
    /// Further figures, unit in the name.
    pub metrics: BTreeMap<String, f64>,
    /// Codes of the advice that applies, for the text catalogue.
    pub recommendations: Vec<String>,
    /// Advice with its reason and evidence, the most important first.
    #[serde(default)]
    pub advice: Vec<Advice>,
    pub sensors: BTreeMap<SensorRole, SensorQuality>,
}

/// The same stroke, played over and over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Drill {
    /// Class name.
    pub stroke: String,
    /// Start of its first swing, ms since session start.
    pub start_ms: f64,
    /// End of its last swing, ms since session start.
    pub end_ms: f64,
    /// Swings from the first to the last.
    pub swings: usize,
    /// Those of them that are named `stroke`.
    pub named: usize,
}

/// Median delays between the peaks of angular velocity, s; `None` where not resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PhaseDelay {
    pub waist_to_shoulder: Option<f64>,
    pub shoulder_to_wrist: Option<f64>,
    pub wrist_to_racket: Option<f64>,
}

/// Range of motion over the session, °: waist yaw, shoulder pitch, wrist roll, unwrapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RangeOfMotion {
    pub waist: Option<f64>,
    pub shoulder: Option<f64>,
    pub wrist: Option<f64>,
}

/// Scores of the legacy report, 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Scores {
    pub overall: Option<f64>,
    pub delay: Option<f64>,
    pub energy: Option<f64>,
    pub rom: Option<f64>,
}

/// What one sensor delivered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SensorQuality {
    pub samples: usize,
    /// Measured from the time stamps.
    pub rate_hz: Option<f64>,
    /// Time without samples, gaps over five sample periods, s.
    pub gap_s: f64,
    pub gaps: usize,
    /// Share of samples with a component at the sensor's limit, 0 to 1.
    pub saturated_share: f64,
    /// 1 for m/s², 9.80665 for g; absent if undecided.
    pub acc_to_mps2: Option<f32>,
}

/// How much an issue matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Warning,
    Error,
}

/// What can be wrong with a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IssueCode {
    NoData,
    SensorMissing,
    Gap,
    Saturation,
    ClockJump,
    ClockUnsynced,
    RateLow,
    UnitUndecided,
    NoSwings,
    NotResolved,
    NoModel,
    AnglesMissing,
    /// Samples with the time of their predecessor.
    DuplicateTimes,
    /// Values that no sensor can measure.
    Implausible,
    /// Movements that the model's gate took for no swing.
    CandidatesRejected,
    /// The figures are those of another system, not of this pipeline.
    Imported,
    /// That system stored constants where it could not measure.
    ImportedConstants,
    /// Two sensors behave like each other's places: worn the wrong way round, or assigned so.
    SensorSwapped,
    /// A sensor does not move as its place does: on the other arm, or loose.
    SensorMisplaced,
    /// A delay moves steadily over the recording, as clocks that drift apart move it.
    ClockDriftSuspected,
    /// Frames without a time of their own, of a sensor whose other frames have one: left out.
    FramesUntimed,
    /// The swings look like those of the other hand, which the model does not know.
    OtherHandSuspected,
    /// The swings look as if the sensor sat half a turn round.
    SensorTurnedSuspected,
}

/// Something wrong with a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Issue {
    pub code: IssueCode,
    pub severity: Severity,
    pub sensor: Option<SensorRole>,
    /// English text with the figures in it.
    pub message: String,
    /// The same in Chinese.
    pub message_zh: String,
    /// Names of the figures that it affects or removes.
    pub affects: Vec<String>,
}

/// What produced the result; the same provenance on the same input gives the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Provenance {
    /// Name of the pipeline's definition.
    #[serde(default)]
    pub name: String,
    /// Name and version of the pipeline.
    pub pipeline: String,
    /// SHA-256 of the parameters, hex.
    pub params_sha256: String,
    /// Name of the model; absent if none ran.
    pub model: Option<String>,
    /// SHA-256 of the model file, hex.
    pub model_sha256: Option<String>,
}
