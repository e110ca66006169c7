//! Model files and what they answer.
//!
//! A file is safetensors: little-endian tensors, no code. The header's metadata holds one key, `volant`, with a JSON
//! object (one key, because the format does not order several and the same model must give the same bytes):
//!
//! | tensor | type, shape | |
//! |---|---|---|
//! | `<role>.rocket.channels` | U8 \[kernels\] | channels that each kernel sees, bit i is channel i |
//! | `<role>.rocket.thresholds` | F32 \[features\] | kernel by kernel |
//! | `<role>.rocket.mean`, `.scale` | F32 \[features\] | normaliser |
//! | `<role>.ridge.weights`, `.offsets` | F32 \[classes, features\], \[classes\] | |
//! | `<role>.hand.mean`, `.scale` | F32 \[figures\] | normaliser |
//! | `<role>.lda.weights`, `.offsets` | F32 \[classes, figures\], \[classes\] | |
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
use crate::features::{CHANNELS, HAND, Window, WindowSpec, hand_features};
use crate::linear::{Linear, Normaliser, softmax};
use crate::params::hex;
use crate::rocket::{KERNELS, Rocket};

/// The answer for a swing that is none of the model's classes, or that the model is not sure about.
pub const OTHER: &str = "other";

/// Version of the model file; see the module's text.
pub const MODEL_FORMAT_VERSION: u32 = 1;

/// Largest model file that is read, bytes: a hundred times the one that ships.
const BYTES_MAX: usize = 40 << 20;
/// The key of the header's metadata.
const KEY: &str = "volant";
/// The model that ships with the product; its card lies beside it.
const BUILTIN: &[u8] = include_bytes!("../models/volant-strokes-1.safetensors");

/// A trained classifier: two heads for each sensor role it was trained for, mixed.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) header: ModelHeader,
    pub(crate) heads: Vec<Head>,
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
    /// The window around a swing's peak.
    pub window: WindowSpec,
    /// Lowest and highest measured rate of a sensor that the model serves, Hz.
    pub rate_hz: [f64; 2],
    /// Probability of the best class below which the answer is `other`.
    pub confidence_min: f64,
    /// One for each sensor role.
    pub heads: Vec<HeadHeader>,
    /// What it was trained on.
    pub training: Training,
    /// How it did on players it had not seen; absent if all examples were of one player.
    pub leave_one_player_out: Option<Figures>,
}

/// What a model file says about the heads of one sensor role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadHeader {
    /// The sensor.
    pub role: SensorRole,
    /// Dilations of the kernels.
    pub dilations: Vec<usize>,
    /// Temperature of the ridge head's scores.
    pub temperature_ridge: f64,
    /// Temperature of the discriminant head's scores.
    pub temperature_lda: f64,
    /// Weight of the ridge head's probabilities, 0 to 1; the discriminant head has the rest.
    pub ridge_share: f64,
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

/// The heads of one sensor role.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) role: SensorRole,
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
    pub(crate) fn scores(&self, window: &Window, spec: &WindowSpec) -> (Vec<f64>, Vec<f64>) {
        let mut rocket = self.rocket.transform(window);
        self.rocket_norm.apply(&mut rocket);
        let mut hand = hand_features(window, spec);
        self.hand_norm.apply(&mut hand);
        (self.ridge.scores(&rocket), self.lda.scores(&hand))
    }

    /// Probability of each class: the weighted mean of both heads.
    pub(crate) fn probabilities(&self, window: &Window, spec: &WindowSpec) -> Vec<f64> {
        let (ridge, lda) = self.scores(window, spec);
        self.mix(&ridge, &lda)
    }

    /// The weighted mean of both heads' tempered probabilities.
    pub(crate) fn mix(&self, ridge: &[f64], lda: &[f64]) -> Vec<f64> {
        let ridge = softmax(ridge, self.temperature_ridge);
        let lda = softmax(lda, self.temperature_lda);
        ridge.iter().zip(&lda).map(|(a, b)| self.ridge_share * a + (1.0 - self.ridge_share) * b).collect()
    }
}

/// What a model says about one swing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) stroke: String,
    pub(crate) confidence: f64,
    pub(crate) probabilities: BTreeMap<String, f64>,
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
    pub(crate) fn new(header: ModelHeader, heads: Vec<Head>) -> Result<Self, ModelError> {
        let mut model = Self { header, heads, sha256: String::new() };
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
        let [low, high] = self.header.rate_hz;
        signal.has_acc
            && signal.has_gyro
            && (low..=high).contains(&signal.rate_hz)
            && self.heads.iter().any(|head| head.role == signal.role)
    }

    /// Probability of each class for the swing that peaks at `peak_ns`, in the order of the classes.
    pub(crate) fn probabilities(&self, signal: &Signal, peak_ns: i64) -> Option<Vec<f64>> {
        let head = self.heads.iter().find(|head| head.role == signal.role)?;
        let window = Window::cut(signal, peak_ns, &self.header.window)?;
        Some(head.probabilities(&window, &self.header.window))
    }

    /// Names the swing that peaks at `peak_ns`. The name is `other` where the best class is that, or where the best
    /// stays below `confidence_min` or the model's own minimum; its confidence then is the probability that the model
    /// gives to `other`, or what it leaves beside its best class if it knows no `other`.
    pub(crate) fn classify(&self, signal: &Signal, peak_ns: i64, confidence_min: f64) -> Option<Answer> {
        let values = self.probabilities(signal, peak_ns)?;
        let best = (0..values.len()).reduce(|best, i| if values[i] > values[best] { i } else { best })?;
        let probabilities: BTreeMap<String, f64> =
            self.header.classes.iter().cloned().zip(values.iter().copied()).collect();
        let sure = values[best] >= confidence_min.max(self.header.confidence_min);
        let (stroke, confidence) = if sure {
            (self.header.classes[best].clone(), values[best])
        } else {
            (OTHER.to_owned(), probabilities.get(OTHER).copied().unwrap_or(1.0 - values[best]))
        };
        Some(Answer { stroke, confidence, probabilities })
    }

    /// The model as a file. The same model gives the same bytes.
    ///
    /// # Errors
    /// What the container's writer says; no model that was read or trained gives any.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ModelError> {
        let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        for head in &self.heads {
            let role = head.role;
            let mut vector = |name: &str, values: &[f32]| {
                tensors.push((format!("{role}.{name}"), Dtype::F32, vec![values.len()], floats(values)));
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
                tensors.push((format!("{role}.{name}"), Dtype::F32, shape, floats(&values)));
            }
            let channels = head.rocket.channels.clone();
            tensors.push((format!("{role}.rocket.channels"), Dtype::U8, vec![channels.len()], channels));
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
        let known = header.heads.len() * TENSORS_PER_HEAD;
        if tensors.len() != known {
            return Err(ModelError::Tensor { name: "list".into(), problem: "holds tensors that no head names" });
        }
        Ok(Self { header, heads, sha256: hex(&Sha256::digest(bytes)) })
    }
}

const TENSORS_PER_HEAD: usize = 10;

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
    let window = &header.window;
    let positive = |value: f64, most: f64| value > 0.0 && value <= most;
    let ranges = [
        (
            "window",
            positive(window.rate_hz, 1000.0) && positive(window.before_s, 10.0) && positive(window.after_s, 10.0),
        ),
        ("window length", (2..=1000).contains(&window.points())),
        ("rate", positive(header.rate_hz[0], header.rate_hz[1]) && positive(header.rate_hz[1], 1e6)),
        ("least confidence", (0.0..=1.0).contains(&header.confidence_min)),
        ("list of classes", (2..=200).contains(&header.classes.len()) && header.classes.is_sorted_by(|a, b| a < b)),
        ("list of heads", (1..=4).contains(&header.heads.len())),
    ];
    for (what, fits) in ranges {
        if !fits {
            return Err(ModelError::Range { what });
        }
    }
    for (i, head) in header.heads.iter().enumerate() {
        let again = header.heads[..i].iter().any(|other| other.role == head.role);
        let dilations = &head.dilations;
        let fits = !again
            && head.role.chain_index().is_some()
            && (1..=16).contains(&dilations.len())
            && dilations.iter().all(|d| (1..=1000).contains(d))
            && positive(head.temperature_ridge, 1e6)
            && positive(head.temperature_lda, 1e6)
            && (0.0..=1.0).contains(&head.ridge_share);
        if !fits {
            return Err(ModelError::Range { what: "head" });
        }
    }
    Ok(())
}

fn read_head(head: &HeadHeader, header: &ModelHeader, tensors: &SafeTensors<'_>) -> Result<Head, ModelError> {
    let classes = header.classes.len();
    let kernels = KERNELS * head.dilations.len();
    let bytes = |name: &str, dtype: Dtype, shape: &[Option<usize>]| -> Result<Vec<u8>, ModelError> {
        let name = format!("{}.{name}", head.role);
        let wrong = |problem| ModelError::Tensor { name: name.clone(), problem };
        let view = tensors.tensor(&name).map_err(|_| wrong("it is missing"))?;
        if view.dtype() != dtype {
            return Err(wrong("it has the wrong type"));
        }
        let fits = view.shape().len() == shape.len()
            && view.shape().iter().zip(shape).all(|(found, wanted)| wanted.is_none_or(|wanted| wanted == *found));
        if !fits {
            return Err(wrong("it has the wrong shape"));
        }
        Ok(view.data().to_vec())
    };
    let floats = |name: &str, shape: &[Option<usize>]| -> Result<Vec<f32>, ModelError> {
        let values: Vec<f32> = bytes(name, Dtype::F32, shape)?
            .chunks_exact(4)
            .map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]))
            .collect();
        if values.iter().all(|v| v.is_finite()) {
            Ok(values)
        } else {
            Err(ModelError::Tensor { name: format!("{}.{name}", head.role), problem: "it is not finite" })
        }
    };
    let thresholds = floats("rocket.thresholds", &[None])?;
    let features = thresholds.len();
    if features == 0 || !features.is_multiple_of(kernels) {
        return Err(ModelError::Tensor {
            name: format!("{}.rocket.thresholds", head.role),
            problem: "it is no multiple of the kernels",
        });
    }
    let linear = |name: &str, width: usize| -> Result<Linear, ModelError> {
        let values = floats(&format!("{name}.weights"), &[Some(classes), Some(width)])?;
        let weights = Array2::from_shape_vec((classes, width), values).map_err(|_| ModelError::Tensor {
            name: format!("{}.{name}.weights", head.role),
            problem: "it has the wrong shape",
        })?;
        Ok(Linear { weights, offsets: floats(&format!("{name}.offsets"), &[Some(classes)])? })
    };
    let normaliser = |name: &str, width: usize| -> Result<Normaliser, ModelError> {
        let scale = floats(&format!("{name}.scale"), &[Some(width)])?;
        if scale.iter().any(|s| *s <= 0.0) {
            return Err(ModelError::Tensor {
                name: format!("{}.{name}.scale", head.role),
                problem: "it is not positive",
            });
        }
        Ok(Normaliser { mean: floats(&format!("{name}.mean"), &[Some(width)])?, scale })
    };
    Ok(Head {
        role: head.role,
        rocket: Rocket {
            dilations: head.dilations.clone(),
            channels: bytes("rocket.channels", Dtype::U8, &[Some(kernels)])?,
            thresholds,
        },
        rocket_norm: normaliser("rocket", features)?,
        ridge: linear("ridge", features)?,
        hand_norm: normaliser("hand", HAND)?,
        lda: linear("lda", HAND)?,
        temperature_ridge: head.temperature_ridge,
        temperature_lda: head.temperature_lda,
        ridge_share: head.ridge_share,
    })
}
