//! Model files and what they answer.
//!
//! A file is safetensors: little-endian tensors, no code. The header's metadata holds one key, `volant`, with a JSON
//! object (one key, because the format does not order several and the same model must give the same bytes):
//!
//! | tensor | type, shape | |
//! |---|---|---|
//! | `<role>.<w>.rocket.channels` | U8 \[kernels\] | channels that each kernel sees, bit i is channel i |
//! | `<role>.<w>.rocket.thresholds` | F32 \[features\] | kernel by kernel |
//! | `<role>.<w>.rocket.mean`, `.scale` | F32 \[features\] | normaliser |
//! | `<role>.<w>.ridge.weights`, `.offsets` | F32 \[classes, features\], \[classes\] | |
//! | `<role>.<w>.hand.mean`, `.scale` | F32 \[figures\] | normaliser |
//! | `<role>.<w>.lda.weights`, `.offsets` | F32 \[classes, figures\], \[classes\] | |
//! | `<role>.gate.mean`, `.scale`, `.weights`, `.centre`, `.offset` | F32 \[figures\], offset \[1\] | if it has a gate |
//!
//! `<role>` is the sensor, `<w>` the number of the window in the header's list. Version 1 had one window, no gate and no
//! levels; no file of it was published. `level_temperature` came to version 2 later: a file without it reads as 1, and a build
//! from before refuses a file that has it (an unknown field).
//!
//! Reading refuses everything that this build would compute differently: another format version, other channels or
//! units, another number of figures, a tensor that is missing, surplus, misshapen or not finite. A new reader of an old
//! version must be written on purpose; an old reader says which version it found.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use ndarray::Array2;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use schemas::SensorRole;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::calibrate::Signal;
use crate::drills::{Together, together};
use crate::features::{CHANNELS, HAND, Span, View, Window, WindowSpec};
use crate::levels::{ClassLevels, LEVELS, level_probabilities, tempered};
use crate::linear::{Linear, Normaliser, softmax};
use crate::params::{ClassifyParams, hex};
use crate::rocket::{KERNELS, Rocket};
use crate::segment::SensorKind;
use crate::train::argmax;

/// The answer for a swing that is none of the model's classes, or that the model is not sure about.
pub const OTHER: &str = "other";

/// Version of the model file; see the module's text.
pub const MODEL_FORMAT_VERSION: u32 = 2;

/// Largest model file that is read, bytes: a hundred times the one that ships.
const BYTES_MAX: usize = 40 << 20;
/// The key of the header's metadata.
const KEY: &str = "volant";
/// The model that ships with the product; its card lies beside it.
const BUILTIN: &[u8] = include_bytes!("../models/volant-strokes-3.safetensors");
/// Name of the model that ships with the product.
pub const BUILTIN_MODEL: &str = "volant-strokes-3";
/// What it was trained on and how good it is, for people.
pub const BUILTIN_CARD: &str = include_str!("../models/volant-strokes-3.md");

/// A trained classifier: for each sensor role it was trained for two heads on each of its windows, and a gate.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) header: ModelHeader,
    pub(crate) heads: Vec<Head>,
    pub(crate) gates: Vec<Gate>,
    sha256: String,
}

/// What a model file says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelHeader {
    /// [`MODEL_FORMAT_VERSION`].
    pub format_version: u32,
    /// Name of the model.
    pub name: String,
    /// Class names, sorted.
    pub classes: Vec<String>,
    /// Channels in order, each with its unit.
    pub channels: Vec<String>,
    /// Number of hand-made figures.
    pub hand_figures: usize,
    /// What is known of each class, in the order of `classes`.
    pub levels: Vec<ClassLevels>,
    /// The windows around a swing's peak; each has heads of its own, and their answers are averaged.
    pub windows: Vec<WindowSpec>,
    /// Lowest and highest measured rate of a sensor that the model serves, Hz.
    pub rate_hz: [f64; 2],
    /// Temperature of the averaged answer: what makes held-out probabilities come true.
    pub temperature: f64,
    /// Probability of the best class below which the answer is `other`.
    pub confidence_min: f64,
    /// Temperature of the probabilities of a level above the type, by level: what makes held-out ones come true. 1 where absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub level_temperature: BTreeMap<String, f64>,
    /// Probability below which a level above the type is not answered, by level.
    pub level_confidence_min: BTreeMap<String, f64>,
    /// One for each sensor role and window.
    pub heads: Vec<HeadHeader>,
    /// At most one for each sensor role.
    pub gates: Vec<GateHeader>,
    /// What it was trained on.
    pub training: Training,
    /// How it did on players it had not seen; absent if all examples were of one player.
    pub leave_one_player_out: Option<Figures>,
}

impl ModelHeader {
    /// How far after a swing's peak the model looks, s.
    pub(crate) fn reach_after_s(&self) -> f64 {
        // Half a point's share of time lies behind the last point.
        self.windows.iter().map(|window| window.after_s + 0.5 / window.rate_hz).fold(0.0, f64::max)
    }
}

/// What a model file says about the heads of one sensor role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadHeader {
    /// The sensor.
    pub role: SensorRole,
    /// Number of its window.
    pub window: usize,
    /// Dilations of the kernels.
    pub dilations: Vec<usize>,
    /// Temperature of the ridge head's scores.
    pub temperature_ridge: f64,
    /// Temperature of the discriminant head's scores.
    pub temperature_lda: f64,
    /// Weight of the ridge head's probabilities, 0 to 1; the discriminant head has the rest.
    pub ridge_share: f64,
}

/// What a model file says about the gate of one sensor role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateHeader {
    /// The sensor.
    pub role: SensorRole,
    /// Score below which a candidate is no swing; the score is 0 midway between swings and other movement.
    pub threshold: f64,
    /// Distance from the other movement of the training beyond which nothing is rejected.
    pub reach: f64,
    /// Energy score of a peak above which nothing is rejected: no other movement of the training was as strong.
    pub strength: f64,
    /// Swings and other movement that it was trained on.
    pub examples: [usize; 2],
    /// Share of swings that it kept, when it had not seen them.
    pub swings_kept: f64,
    /// Share of other movement that it would have rejected by its figures, when it had not seen it, however strong.
    pub others_rejected: f64,
}

/// What a model was trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Names of the recording sets.
    pub sets: Vec<String>,
    /// Swings.
    pub examples: usize,
    /// Players.
    pub players: usize,
    /// SHA-256, hex, of the list of examples: set, player, stroke, sensor and window of each.
    pub manifest_sha256: String,
    /// Of everything that was drawn.
    pub seed: u64,
    /// The pipeline that cut the windows.
    pub pipeline: String,
    /// SHA-256 of the model that was adapted to one player; absent in a model that was trained from its examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapted_from: Option<String>,
}

/// Figures of a classifier.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Share of swings named right, 0 to 1.
    pub accuracy: f64,
    /// Mean over classes of F1, 0 to 1.
    pub macro_f1: f64,
    /// Swings.
    pub examples: usize,
    /// Expected calibration error over ten bins of confidence, 0 to 1.
    pub calibration_error: f64,
}

/// Why a model file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Larger than any model of ours.
    #[error("read the model: {bytes} bytes are more than the limit of {limit}")]
    TooLarge {
        /// Size given.
        bytes: usize,
        /// Size allowed.
        limit: usize,
    },
    /// Not a safetensors file.
    #[error("read the model as safetensors")]
    Container {
        /// What the container's reader says.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A safetensors file, but none of ours.
    #[error("find the key {KEY:?} in the model's metadata: this is not a Volant model")]
    NotOurs,
    /// A header that does not fit.
    #[error("read the model's header")]
    Header {
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Another version of the format.
    #[error("read model format version {found}: this build reads version {MODEL_FORMAT_VERSION}")]
    Version {
        /// The file's version.
        found: u64,
    },
    /// Something that this build computes differently.
    #[error("use a model whose {what} is {found}: this build computes {expected}")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// What the file says.
        found: String,
        /// What this build does.
        expected: String,
    },
    /// A value that cannot be.
    #[error("use a model whose {what} is out of range")]
    Range {
        /// What is out of range.
        what: &'static str,
    },
    /// A tensor that is missing, surplus, misshapen or not finite.
    #[error("read tensor {name} of the model: {problem}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
}

/// The heads of one sensor role on one window.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) role: SensorRole,
    pub(crate) window: usize,
    pub(crate) rocket: Rocket,
    pub(crate) rocket_norm: Normaliser,
    pub(crate) ridge: Linear,
    pub(crate) hand_norm: Normaliser,
    pub(crate) lda: Linear,
    pub(crate) temperature_ridge: f64,
    pub(crate) temperature_lda: f64,
    pub(crate) ridge_share: f64,
}

impl Head {
    /// Scores of the two heads before temperature.
    pub(crate) fn scores(&self, view: &View) -> (Vec<f64>, Vec<f64>) {
        let mut rocket = self.rocket.transform(&view.window);
        self.rocket_norm.apply(&mut rocket);
        let mut hand = view.hand.clone();
        self.hand_norm.apply(&mut hand);
        (self.ridge.scores(&rocket), self.lda.scores(&hand))
    }

    /// Probability of each class: the weighted mean of both heads.
    pub(crate) fn probabilities(&self, view: &View) -> Vec<f64> {
        let (ridge, lda) = self.scores(view);
        self.mix(&ridge, &lda)
    }

    /// The weighted mean of both heads' tempered probabilities.
    pub(crate) fn mix(&self, ridge: &[f64], lda: &[f64]) -> Vec<f64> {
        let ridge = softmax(ridge, self.temperature_ridge);
        let lda = softmax(lda, self.temperature_lda);
        ridge.iter().zip(&lda).map(|(a, b)| self.ridge_share * a + (1.0 - self.ridge_share) * b).collect()
    }
}

/// Tells swings from other movement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gate {
    pub(crate) header: GateHeader,
    pub(crate) norm: Normaliser,
    /// Direction from other movement to swings.
    pub(crate) weights: Vec<f32>,
    /// Offset of the score.
    pub(crate) offset: f32,
    /// Mean of the other movement.
    pub(crate) centre: Vec<f32>,
}

/// What a gate says about one candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct GateAnswer {
    pub(crate) score: f64,
    /// Root mean square distance from the mean of other movement, in its standard deviations.
    pub(crate) distance: f64,
    pub(crate) kept: bool,
}

impl Gate {
    /// Judges a candidate by its figures and the energy score of its peak.
    pub(crate) fn answer(&self, hand: &[f32], strength: f64) -> GateAnswer {
        let mut figures = hand.to_vec();
        self.norm.apply(&mut figures);
        let score =
            figures.iter().zip(&self.weights).map(|(x, w)| f64::from(x * w)).sum::<f64>() + f64::from(self.offset);
        let square: f64 = figures.iter().zip(&self.centre).map(|(x, c)| f64::from(x - c).powi(2)).sum();
        let distance = (square / figures.len().max(1) as f64).sqrt();
        // What resembles nothing that was ever rejected is not rejected either.
        let unlike = distance > self.header.reach || strength > self.header.strength;
        GateAnswer { score, distance, kept: score >= self.header.threshold || unlike }
    }
}

/// What a model says about one swing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) stroke: String,
    pub(crate) confidence: f64,
    pub(crate) probabilities: BTreeMap<String, f64>,
    pub(crate) levels: BTreeMap<String, LevelAnswer>,
}

/// One level of the answer about a swing: its side or its height.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LevelAnswer {
    /// The likeliest value; absent where the model is not sure.
    pub answer: Option<String>,
    /// Probability of each value. What they lack to 1 is that of classes whose name does not say.
    pub probabilities: BTreeMap<String, f64>,
}

impl Model {
    /// The model that ships with the product.
    #[must_use]
    pub fn builtin() -> &'static Self {
        static MODEL: LazyLock<Model> =
            LazyLock::new(|| Model::from_bytes(BUILTIN).expect("a test reads the shipped model"));
        &MODEL
    }

    /// Puts a model together; its hash is that of its file.
    pub(crate) fn new(header: ModelHeader, heads: Vec<Head>, gates: Vec<Gate>) -> Result<Self, ModelError> {
        let mut model = Self { header, heads, gates, sha256: String::new() };
        model.sha256 = hex(&Sha256::digest(model.to_bytes()?));
        Ok(model)
    }

    /// Name of the model.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.header.name
    }

    /// SHA-256 of the model file, hex.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// What the file says about itself.
    #[must_use]
    pub fn header(&self) -> &ModelHeader {
        &self.header
    }

    /// True if the model was trained for sensors like this one.
    pub(crate) fn serves(&self, signal: &Signal) -> bool {
        let kind = SensorKind { rate_hz: signal.rate_hz, has_acc: signal.has_acc, has_gyro: signal.has_gyro };
        self.serves_kind(signal.role, &kind)
    }

    /// True if the model was trained for such sensors at `role`.
    pub(crate) fn serves_kind(&self, role: SensorRole, kind: &SensorKind) -> bool {
        let [low, high] = self.header.rate_hz;
        kind.has_acc
            && kind.has_gyro
            && (low..=high).contains(&kind.rate_hz)
            && self.heads.iter().any(|head| head.role == role)
    }

    /// The swing at `span` of a recording through all windows of this model; `None` if it lies in no island.
    pub(crate) fn views(&self, signal: &Signal, span: &Span, params: &ClassifyParams) -> Option<Vec<View>> {
        self.views_by(params, |spec| Window::cut(signal, span, spec))
    }

    /// The views of a swing by whatever cuts a window.
    pub(crate) fn views_by(
        &self,
        params: &ClassifyParams,
        cut: impl Fn(&WindowSpec) -> Option<Window>,
    ) -> Option<Vec<View>> {
        self.header.windows.iter().map(|spec| Some(View::of(cut(spec)?.mirrored(params.mirror), spec))).collect()
    }

    /// Probability of each class, in the order of the classes, for the swing in these views.
    pub(crate) fn probabilities(&self, role: SensorRole, views: &[View]) -> Option<Vec<f64>> {
        let heads = self.heads.iter().filter(|head| head.role == role);
        let answers: Vec<Vec<f64>> =
            heads.map(|head| Some(head.probabilities(views.get(head.window)?))).collect::<Option<_>>()?;
        average(&answers, self.header.temperature)
    }

    /// How far a swing lies from those of the training: the root mean square of its hand-made figures in their standard deviations
    /// there, each at most 6. About 1 for a swing of the training.
    pub(crate) fn strangeness(&self, role: SensorRole, views: &[View]) -> f64 {
        const MOST: f64 = 6.0;
        let (mut sum, mut count) = (0.0, 0_usize);
        for head in self.heads.iter().filter(|head| head.role == role) {
            let Some(view) = views.get(head.window) else { continue };
            let mut hand = view.hand.clone();
            head.hand_norm.apply(&mut hand);
            sum += hand.iter().map(|z| f64::from(*z).abs().min(MOST).powi(2)).sum::<f64>();
            count += hand.len();
        }
        (sum / count.max(1) as f64).sqrt()
    }

    /// What the gate of this sensor says; `None` where the model has none.
    pub(crate) fn gate(&self, role: SensorRole, views: &[View], strength: f64) -> Option<GateAnswer> {
        let gate = self.gates.iter().find(|gate| gate.header.role == role)?;
        Some(gate.answer(&views.first()?.hand, strength))
    }

    /// Probabilities of all swings of a recording, in the order of their times, from those of each by itself: where the
    /// pipeline says so, the strokes of a drill are named together.
    pub(crate) fn together(&self, alone: &[Option<Vec<f64>>], params: &ClassifyParams) -> Together {
        if params.drills {
            together(alone, self.other())
        } else {
            Together { values: alone.to_vec(), drills: Vec::new() }
        }
    }

    /// Place of the class [`OTHER`], if the model knows it.
    pub(crate) fn other(&self) -> Option<usize> {
        self.header.classes.binary_search_by(|class| class.as_str().cmp(OTHER)).ok()
    }

    /// Names a swing. The name is `other` where the best class is that, or where the best stays below `confidence_min` or
    /// the model's own minimum; its confidence then is the probability that the model gives to `other`, or what it
    /// leaves beside its best class if it knows no `other`.
    pub(crate) fn name_swing(&self, values: &[f64], confidence_min: f64) -> Answer {
        let best = argmax(values);
        let probabilities: BTreeMap<String, f64> =
            self.header.classes.iter().cloned().zip(values.iter().copied()).collect();
        let top = values.get(best).copied().unwrap_or(0.0);
        let sure = top >= confidence_min.max(self.header.confidence_min);
        let (stroke, confidence) = match self.header.classes.get(best) {
            Some(class) if sure => (class.clone(), top),
            _ => (OTHER.to_owned(), probabilities.get(OTHER).copied().unwrap_or(1.0 - top)),
        };
        Answer { stroke, confidence, probabilities, levels: self.levels(values) }
    }

    /// The levels above the type. A level that fewer than two values are known of says nothing and is absent.
    pub(crate) fn levels(&self, values: &[f64]) -> BTreeMap<String, LevelAnswer> {
        LEVELS
            .iter()
            .filter_map(|&level| {
                let temperature = self.header.level_temperature.get(level).copied();
                let probabilities = tempered(level_probabilities(&self.header.levels, level, values), temperature);
                let least = self.header.level_confidence_min.get(level).copied().unwrap_or(0.5);
                let best = probabilities.iter().reduce(|best, next| if next.1 > best.1 { next } else { best })?;
                let answer = (*best.1 >= least).then(|| best.0.clone());
                (probabilities.len() > 1).then(|| (level.to_owned(), LevelAnswer { answer, probabilities }))
            })
            .collect()
    }

    /// The model as a file. The same model gives the same bytes.
    ///
    /// # Errors
    /// What the container's writer says; no model that was read or trained gives any.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ModelError> {
        let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        for head in &self.heads {
            let place = format!("{}.{}", head.role, head.window);
            let mut vector = |name: &str, values: &[f32]| {
                tensors.push((format!("{place}.{name}"), Dtype::F32, vec![values.len()], floats(values)));
            };
            vector("rocket.thresholds", &head.rocket.thresholds);
            vector("rocket.mean", &head.rocket_norm.mean);
            vector("rocket.scale", &head.rocket_norm.scale);
            vector("hand.mean", &head.hand_norm.mean);
            vector("hand.scale", &head.hand_norm.scale);
            vector("ridge.offsets", &head.ridge.offsets);
            vector("lda.offsets", &head.lda.offsets);
            for (name, linear) in [("ridge.weights", &head.ridge), ("lda.weights", &head.lda)] {
                let shape = linear.weights.shape().to_vec();
                let values: Vec<f32> = linear.weights.iter().copied().collect();
                tensors.push((format!("{place}.{name}"), Dtype::F32, shape, floats(&values)));
            }
            let channels = head.rocket.channels.clone();
            tensors.push((format!("{place}.rocket.channels"), Dtype::U8, vec![channels.len()], channels));
        }
        for gate in &self.gates {
            for (name, values) in [
                ("mean", &gate.norm.mean),
                ("scale", &gate.norm.scale),
                ("weights", &gate.weights),
                ("centre", &gate.centre),
                ("offset", &vec![gate.offset]),
            ] {
                let name = format!("{}.gate.{name}", gate.header.role);
                tensors.push((name, Dtype::F32, vec![values.len()], floats(values)));
            }
        }
        let header = serde_json::to_string(&self.header).map_err(|source| ModelError::Header { source })?;
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| {
                TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name.as_str(), view))
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| ModelError::Container { source })?;
        safetensors::serialize(views, Some(HashMap::from([(KEY.to_owned(), header)])))
            .map_err(|source| ModelError::Container { source })
    }

    /// Reads a model file.
    ///
    /// # Errors
    /// Anything in the file that does not fit this build; see the module's text.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        if bytes.len() > BYTES_MAX {
            return Err(ModelError::TooLarge { bytes: bytes.len(), limit: BYTES_MAX });
        }
        let container = |source| ModelError::Container { source };
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(container)?;
        let text = metadata.metadata().as_ref().and_then(|map| map.get(KEY)).ok_or(ModelError::NotOurs)?;
        let version: VersionOnly = serde_json::from_str(text).map_err(|source| ModelError::Header { source })?;
        if version.format_version != u64::from(MODEL_FORMAT_VERSION) {
            return Err(ModelError::Version { found: version.format_version });
        }
        let header: ModelHeader = serde_json::from_str(text).map_err(|source| ModelError::Header { source })?;
        check(&header)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(container)?;
        let heads =
            header.heads.iter().map(|head| read_head(head, &header, &tensors)).collect::<Result<Vec<_>, _>>()?;
        let gates = header.gates.iter().map(|gate| read_gate(gate, &tensors)).collect::<Result<Vec<_>, _>>()?;
        let known = header.heads.len() * TENSORS_PER_HEAD + header.gates.len() * TENSORS_PER_GATE;
        if tensors.len() != known {
            return Err(ModelError::Tensor { name: "list".into(), problem: "holds tensors that no head names" });
        }
        Ok(Self { header, heads, gates, sha256: hex(&Sha256::digest(bytes)) })
    }
}

const TENSORS_PER_HEAD: usize = 10;
const TENSORS_PER_GATE: usize = 5;

/// Enough of a header to say which version it is, whatever else that version holds.
#[derive(Deserialize)]
struct VersionOnly {
    format_version: u64,
}

fn check(header: &ModelHeader) -> Result<(), ModelError> {
    if header.channels != CHANNELS {
        return Err(ModelError::Mismatch {
            what: "channels",
            found: header.channels.join(" "),
            expected: CHANNELS.join(" "),
        });
    }
    if header.hand_figures != HAND {
        return Err(ModelError::Mismatch {
            what: "number of figures",
            found: header.hand_figures.to_string(),
            expected: HAND.to_string(),
        });
    }
    let positive = |value: f64, most: f64| value > 0.0 && value <= most;
    let share = |value: f64| (0.0..=1.0).contains(&value);
    let windows = &header.windows;
    let ranges = [
        ("list of windows", (1..=8).contains(&windows.len())),
        (
            "window",
            windows.iter().all(|window| {
                positive(window.rate_hz, 1000.0) && positive(window.before_s, 10.0) && positive(window.after_s, 10.0)
            }),
        ),
        ("window length", windows.iter().all(|window| (2..=1000).contains(&window.points()))),
        ("rate", positive(header.rate_hz[0], header.rate_hz[1]) && positive(header.rate_hz[1], 1e6)),
        ("temperature", positive(header.temperature, 100.0)),
        ("least confidence", share(header.confidence_min)),
        (
            "least confidence of a level",
            header.level_confidence_min.iter().all(|(level, &least)| LEVELS.contains(&level.as_str()) && share(least)),
        ),
        (
            "temperature of a level",
            header.level_temperature.iter().all(|(level, &t)| LEVELS.contains(&level.as_str()) && positive(t, 100.0)),
        ),
        ("list of classes", (2..=200).contains(&header.classes.len()) && header.classes.is_sorted_by(|a, b| a < b)),
        ("list of levels", header.levels.len() == header.classes.len()),
        ("list of heads", (1..=4 * windows.len()).contains(&header.heads.len())),
        ("list of gates", header.gates.len() <= 4),
    ];
    for (what, fits) in ranges {
        if !fits {
            return Err(ModelError::Range { what });
        }
    }
    for (i, head) in header.heads.iter().enumerate() {
        let again = header.heads[..i].iter().any(|other| other.role == head.role && other.window == head.window);
        let dilations = &head.dilations;
        let fits = !again
            && head.role.chain_index().is_some()
            && head.window < header.windows.len()
            && (1..=16).contains(&dilations.len())
            && dilations.iter().all(|d| (1..=1000).contains(d))
            && positive(head.temperature_ridge, 1e6)
            && positive(head.temperature_lda, 1e6)
            && (0.0..=1.0).contains(&head.ridge_share);
        if !fits {
            return Err(ModelError::Range { what: "head" });
        }
    }
    for (i, gate) in header.gates.iter().enumerate() {
        let again = header.gates[..i].iter().any(|other| other.role == gate.role);
        if again
            || gate.role.chain_index().is_none()
            || [gate.threshold, gate.reach, gate.strength].iter().any(|value| !value.is_finite())
        {
            return Err(ModelError::Range { what: "gate" });
        }
    }
    Ok(())
}

/// Reads the tensors of one head or gate, whose names start with `place`.
struct Reader<'a, 'b> {
    place: String,
    tensors: &'a SafeTensors<'b>,
}

impl Reader<'_, '_> {
    fn wrong(&self, name: &str, problem: &'static str) -> ModelError {
        ModelError::Tensor { name: format!("{}.{name}", self.place), problem }
    }

    /// A tensor; `None` in `shape` is any length.
    fn bytes(&self, name: &str, dtype: Dtype, shape: &[Option<usize>]) -> Result<Vec<u8>, ModelError> {
        let view =
            self.tensors.tensor(&format!("{}.{name}", self.place)).map_err(|_| self.wrong(name, "it is missing"))?;
        if view.dtype() != dtype {
            return Err(self.wrong(name, "it has the wrong type"));
        }
        let fits = view.shape().len() == shape.len()
            && view.shape().iter().zip(shape).all(|(found, wanted)| wanted.is_none_or(|wanted| wanted == *found));
        if !fits {
            return Err(self.wrong(name, "it has the wrong shape"));
        }
        Ok(view.data().to_vec())
    }

    fn floats(&self, name: &str, shape: &[Option<usize>]) -> Result<Vec<f32>, ModelError> {
        let values: Vec<f32> = self
            .bytes(name, Dtype::F32, shape)?
            .chunks_exact(4)
            .map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]))
            .collect();
        if values.iter().all(|v| v.is_finite()) { Ok(values) } else { Err(self.wrong(name, "it is not finite")) }
    }

    fn normaliser(&self, name: &str, width: usize) -> Result<Normaliser, ModelError> {
        let scale = self.floats(&format!("{name}scale"), &[Some(width)])?;
        if scale.iter().any(|s| *s <= 0.0) {
            return Err(self.wrong(&format!("{name}scale"), "it is not positive"));
        }
        Ok(Normaliser { mean: self.floats(&format!("{name}mean"), &[Some(width)])?, scale })
    }

    fn linear(&self, name: &str, classes: usize, width: usize) -> Result<Linear, ModelError> {
        let values = self.floats(&format!("{name}.weights"), &[Some(classes), Some(width)])?;
        let weights = Array2::from_shape_vec((classes, width), values)
            .map_err(|_| self.wrong(&format!("{name}.weights"), "it has the wrong shape"))?;
        Ok(Linear { weights, offsets: self.floats(&format!("{name}.offsets"), &[Some(classes)])? })
    }
}

fn read_gate(gate: &GateHeader, tensors: &SafeTensors<'_>) -> Result<Gate, ModelError> {
    let reader = Reader { place: format!("{}.gate", gate.role), tensors };
    let offset = reader.floats("offset", &[Some(1)])?;
    Ok(Gate {
        header: gate.clone(),
        norm: reader.normaliser("", HAND)?,
        weights: reader.floats("weights", &[Some(HAND)])?,
        offset: offset[0],
        centre: reader.floats("centre", &[Some(HAND)])?,
    })
}

fn read_head(head: &HeadHeader, header: &ModelHeader, tensors: &SafeTensors<'_>) -> Result<Head, ModelError> {
    let classes = header.classes.len();
    let kernels = KERNELS * head.dilations.len();
    let reader = Reader { place: format!("{}.{}", head.role, head.window), tensors };
    let thresholds = reader.floats("rocket.thresholds", &[None])?;
    let features = thresholds.len();
    if features == 0 || !features.is_multiple_of(kernels) {
        return Err(reader.wrong("rocket.thresholds", "it is no multiple of the kernels"));
    }
    Ok(Head {
        role: head.role,
        window: head.window,
        rocket: Rocket {
            dilations: head.dilations.clone(),
            channels: reader.bytes("rocket.channels", Dtype::U8, &[Some(kernels)])?,
            thresholds,
        },
        rocket_norm: reader.normaliser("rocket.", features)?,
        ridge: reader.linear("ridge", classes, features)?,
        hand_norm: reader.normaliser("hand.", HAND)?,
        lda: reader.linear("lda", classes, HAND)?,
        temperature_ridge: head.temperature_ridge,
        temperature_lda: head.temperature_lda,
        ridge_share: head.ridge_share,
    })
}

/// The mean of several answers about one swing, its contrast set by `temperature`; `None` without answers.
pub(crate) fn average(answers: &[Vec<f64>], temperature: f64) -> Option<Vec<f64>> {
    let mut mean = vec![0.0; answers.first()?.len()];
    for answer in answers {
        for (sum, value) in mean.iter_mut().zip(answer) {
            *sum += value / answers.len() as f64;
        }
    }
    let logarithms: Vec<f64> = mean.iter().map(|p| p.max(1e-12).ln()).collect();
    Some(softmax(&logarithms, temperature))
}
