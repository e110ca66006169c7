//! Labelled recordings in, a model out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use rayon::prelude::*;
use schemas::{SensorRole, Track};
use sha2::{Digest, Sha256};

use crate::calibrate::{Signal, calibrate};
use crate::features::{CHANNELS, HAND, Window, WindowSpec, hand_features};
use crate::linear::{Normaliser, discriminant, ridge};
use crate::model::{Figures, Head, HeadHeader, MODEL_FORMAT_VERSION, Model, ModelError, ModelHeader, OTHER, Training};
use crate::params::{Params, hex};
use crate::pipeline::PIPELINE;
use crate::rocket::Rocket;
use crate::segment::{Swing, choose_sensor, segment};

/// How a mark in a recording set is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkQuality {
    /// A swing: find it, name it.
    Counted,
    /// The whole recording is one example: name it, do not look for it.
    Window,
    /// Neither a swing nor a false alarm.
    Ignored,
}

impl MarkQuality {
    /// What a quality word of a recording set means; unknown words are ignored marks.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "clear" | "clean" | "soft" => Self::Counted,
            "window" => Self::Window,
            _ => Self::Ignored,
        }
    }
}

/// One labelled swing.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Who swung.
    pub player: String,
    /// ms since the recording's start.
    pub start_ms: Option<f64>,
    /// ms since the recording's start.
    pub peak_ms: f64,
    /// ms since the recording's start.
    pub end_ms: Option<f64>,
    /// Class name.
    pub stroke: String,
    /// How to take it.
    pub quality: MarkQuality,
}

/// A recording with its marks.
#[derive(Clone, Debug)]
pub struct LabelledTrack<'a> {
    /// Name of the set, for the manifest.
    pub set: &'a str,
    /// Name of the recording.
    pub name: &'a str,
    /// The samples.
    pub track: &'a Track,
    /// In any order.
    pub marks: &'a [Mark],
    /// Factor of the samples' acceleration to m/s², where the set's format says it; `None` where the sensor's rest must
    /// decide, which a window of three seconds of play does not show.
    pub acc_to_mps2: Option<f32>,
}

/// One swing, ready for training: a window with its label.
#[derive(Clone, Debug)]
pub struct Example {
    /// Name of the set.
    pub set: String,
    /// Who swung; windows of one player never stand on both sides of a split.
    pub player: String,
    /// Class name.
    pub stroke: String,
    /// The sensor.
    pub role: SensorRole,
    /// Measured rate of the sensor, Hz.
    pub rate_hz: f64,
    /// How much it counts in training; 1 unless it calibrates.
    pub weight: f64,
    pub(crate) spec: WindowSpec,
    pub(crate) window: Window,
}

/// How to train.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOptions {
    /// Name of the model.
    pub name: String,
    /// Of everything that is drawn.
    pub seed: u64,
    /// Convolution features.
    pub features: usize,
    /// Ridge penalty, as a multiple of the number of features.
    pub penalty: f64,
    /// Shrinkage of the pooled covariance, 0 to 1.
    pub shrinkage: f64,
}

impl Default for TrainOptions {
    /// Values that did best with whole players left out.
    fn default() -> Self {
        Self { name: "model".to_owned(), seed: 1, features: 1512, penalty: 0.2, shrinkage: 0.3 }
    }
}

/// Why training failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Nothing to tell apart.
    #[error("train on {classes} class(es) with three examples or more: two are needed")]
    TooFewClasses {
        /// Classes with enough examples.
        classes: usize,
    },
    /// Very slow recordings, normal ones and recordings that are one example each in one model.
    #[error("train one model on examples with different windows: recordings below 8 Hz, above it, and single examples")]
    MixedWindows,
    /// The linear system has no solution: features are not finite, or the penalty is not positive.
    #[error("solve for the {role} head")]
    Unsolvable {
        /// The sensor.
        role: SensorRole,
    },
    /// The model cannot be written.
    #[error("put the model together")]
    Model {
        /// What the writer says.
        #[source]
        source: ModelError,
    },
}

/// A recording's sensors and the swings that the pipeline finds in it, without marks.
pub(crate) struct Prepared {
    pub(crate) signals: Vec<Option<Signal>>,
    /// Index in `signals` of the sensor that swings were found on.
    pub(crate) chosen: Option<usize>,
    pub(crate) swings: Vec<Swing>,
}

impl Prepared {
    pub(crate) fn of(recording: &LabelledTrack<'_>, params: &Params) -> Self {
        let track = recording.track;
        let mut calibration = params.calibrate.clone();
        calibration.acc_to_mps2 = recording.acc_to_mps2;
        let signals: Vec<Option<Signal>> =
            SensorRole::CHAIN.par_iter().map(|&role| calibrate(role, track.get(role)?, &calibration)).collect();
        let refs: [Option<&Signal>; 4] = std::array::from_fn(|i| signals[i].as_ref());
        let (chosen, swings) = match choose_sensor(&refs) {
            Some(signal) => (signal.role.chain_index(), segment(signal, &params.segment)),
            None => (None, Vec::new()),
        };
        Self { signals, chosen, swings }
    }

    pub(crate) fn signal(&self) -> Option<&Signal> {
        self.signals[self.chosen?].as_ref()
    }
}

/// Pairs of marks and swings, one to one, nearest first, within `tolerance_ns` between the mark's peak and the swing's
/// impact.
pub(crate) fn match_marks(marks: &[&Mark], swings: &[Swing], tolerance_ns: i64) -> Vec<(usize, usize)> {
    let mut pairs: Vec<(i64, usize, usize)> = Vec::new();
    for (m, mark) in marks.iter().enumerate() {
        let at = ns(mark.peak_ms);
        let from = swings.partition_point(|swing| swing.impact_ns < at.saturating_sub(2 * tolerance_ns));
        for (s, swing) in swings.iter().enumerate().skip(from) {
            let distance = (swing.impact_ns - at).abs();
            if swing.impact_ns > at.saturating_add(2 * tolerance_ns) {
                break;
            }
            if distance <= tolerance_ns {
                pairs.push((distance, m, s));
            }
        }
    }
    pairs.sort_unstable();
    let (mut marks_taken, mut swings_taken) = (BTreeSet::new(), BTreeSet::new());
    pairs.retain(|&(_, m, s)| {
        let free = !marks_taken.contains(&m) && !swings_taken.contains(&s);
        if free {
            marks_taken.insert(m);
            swings_taken.insert(s);
        }
        free
    });
    pairs.into_iter().map(|(_, m, s)| (m, s)).collect()
}

/// ns of ms; marks of hostile files saturate.
pub(crate) fn ns(ms: f64) -> i64 {
    (ms * 1e6).clamp(-4e18, 4e18) as i64
}

/// True if `swing` lies near or inside a mark that is neither a swing nor a false alarm.
pub(crate) fn is_ignored(swing: &Swing, ignored: &[&Mark], tolerance_ns: i64) -> bool {
    ignored.iter().any(|mark| {
        let near = (swing.impact_ns.saturating_sub(ns(mark.peak_ms))).abs() <= tolerance_ns;
        let inside =
            mark.start_ms.zip(mark.end_ms).is_some_and(|(start, end)| (ns(start)..=ns(end)).contains(&swing.impact_ns));
        near || inside
    })
}

/// Cuts the windows of a recording's marks: on the wrist and on the racket, where they are there. A mark's window is
/// centred on the swing that the pipeline finds there, as it will be in use, and on the mark itself where it finds none.
/// Swings beside every mark become examples of `other`.
#[must_use]
pub fn examples(recording: &LabelledTrack<'_>, params: &Params) -> Vec<Example> {
    let prepared = Prepared::of(recording, params);
    let Some(signal) = prepared.signal() else { return Vec::new() };
    let tolerance_ns = tolerance_for(signal.rate_hz);
    let counted: Vec<&Mark> = recording.marks.iter().filter(|m| m.quality == MarkQuality::Counted).collect();
    let whole: Vec<&Mark> = recording.marks.iter().filter(|m| m.quality == MarkQuality::Window).collect();
    let ignored: Vec<&Mark> = recording.marks.iter().filter(|m| m.quality == MarkQuality::Ignored).collect();
    let pairs = match_marks(&counted, &prepared.swings, tolerance_ns);
    let mut wanted: Vec<(i64, &str, &str)> = Vec::new();
    for (m, mark) in counted.iter().enumerate() {
        let found = pairs.iter().find(|pair| pair.0 == m).map(|pair| prepared.swings[pair.1].peak_ns);
        wanted.push((found.unwrap_or_else(|| ns(mark.peak_ms)), &mark.player, &mark.stroke));
    }
    wanted.extend(whole.iter().map(|mark| (ns(mark.peak_ms), mark.player.as_str(), mark.stroke.as_str())));
    if whole.is_empty() {
        let player = recording.marks.first().map_or(recording.name, |mark| mark.player.as_str());
        for (s, swing) in prepared.swings.iter().enumerate() {
            if !pairs.iter().any(|pair| pair.1 == s) && !is_ignored(swing, &ignored, 2 * tolerance_ns) {
                wanted.push((swing.peak_ns, player, OTHER));
            }
        }
    }
    let mut out = Vec::new();
    for role in [SensorRole::Wrist, SensorRole::Racket] {
        let signal = role.chain_index().and_then(|index| prepared.signals[index].as_ref());
        let Some(signal) = signal.filter(|signal| signal.has_acc && signal.has_gyro) else { continue };
        // Examples that are whole recordings show what came before and after; swings in play have neighbours.
        let longest_ms = whole.iter().filter_map(|m| Some(m.end_ms? - m.start_ms?)).fold(0.0, f64::max);
        let spec = if !whole.is_empty() && counted.is_empty() && longest_ms > 1800.0 {
            WindowSpec::WHOLE
        } else {
            WindowSpec::for_rate(signal.rate_hz)
        };
        out.extend(wanted.iter().filter_map(|&(peak_ns, player, stroke)| {
            Some(Example {
                set: recording.set.to_owned(),
                player: player.to_owned(),
                stroke: stroke.to_owned(),
                role,
                rate_hz: signal.rate_hz,
                weight: 1.0,
                spec,
                window: Window::cut(signal, peak_ns, &spec)?,
            })
        }));
    }
    out
}

/// How far a mark and a swing may lie apart, ns: a quarter of a second, more where samples are rarer.
pub(crate) fn tolerance_for(rate_hz: f64) -> i64 {
    if rate_hz < 8.0 { 600_000_000 } else { 250_000_000 }
}

/// Trains a model. Deterministic: the same examples and options give the same bytes, whatever the number of threads.
///
/// Classes with fewer than three examples are left out. Temperatures, the confidence below which the model says
/// `other`, and the figures in its header come from predictions for players that were left out in turn.
///
/// # Errors
/// Too few classes, rates that do not go together, features that are not finite.
pub fn train(examples: &[Example], options: &TrainOptions) -> Result<Model, TrainError> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for example in examples {
        *counts.entry(example.stroke.as_str()).or_default() += 1;
    }
    let classes: Vec<String> = counts.iter().filter(|(_, n)| **n >= 3).map(|(name, _)| (*name).to_owned()).collect();
    if classes.len() < 2 {
        return Err(TrainError::TooFewClasses { classes: classes.len() });
    }
    let kept: Vec<&Example> = examples.iter().filter(|e| classes.binary_search(&e.stroke).is_ok()).collect();
    let spec = kept[0].spec;
    if kept.iter().any(|example| example.spec != spec) {
        return Err(TrainError::MixedWindows);
    }
    let class_of = |example: &Example| classes.binary_search(&example.stroke).unwrap_or(0);
    let roles: BTreeSet<SensorRole> = kept.iter().map(|example| example.role).collect();
    let mut heads = Vec::new();
    let mut left_out: Vec<(usize, Vec<f64>)> = Vec::new();
    for role in roles {
        let of_role: Vec<&Example> = kept.iter().copied().filter(|example| example.role == role).collect();
        let known: BTreeSet<usize> = of_role.iter().map(|example| class_of(example)).collect();
        if known.len() < 2 {
            continue;
        }
        let prepared = Features::of(&of_role, &class_of, classes.len(), options, role)?;
        let all: Vec<usize> = (0..of_role.len()).collect();
        let mut head = prepared.fit(&all, options)?;
        let held = prepared.held_out(&of_role, options)?;
        if !held.is_empty() {
            (head.temperature_ridge, head.temperature_lda) = temperatures(&held);
            head.ridge_share = ridge_share(&held, &head);
            left_out.extend(held.iter().map(|(class, ridge, lda)| (*class, head.mix(ridge, lda))));
        }
        heads.push(head);
    }
    let rates: Vec<f64> = kept.iter().map(|example| example.rate_hz).collect();
    let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
    let header = ModelHeader {
        format_version: MODEL_FORMAT_VERSION,
        name: options.name.clone(),
        channels: CHANNELS.map(str::to_owned).to_vec(),
        hand_figures: HAND,
        window: spec,
        // Somewhat slower sensors look alike; faster ones are brought down to the window's rate.
        rate_hz: if spec == WindowSpec::SPARSE { [0.7 * slowest, 8.0] } else { [(0.7 * slowest).max(7.0), 10_000.0] },
        confidence_min: confidence_min(&left_out),
        heads: heads
            .iter()
            .map(|head| HeadHeader {
                role: head.role,
                dilations: head.rocket.dilations.clone(),
                temperature_ridge: head.temperature_ridge,
                temperature_lda: head.temperature_lda,
                ridge_share: head.ridge_share,
            })
            .collect(),
        training: Training {
            sets: kept.iter().map(|e| e.set.clone()).collect::<BTreeSet<_>>().into_iter().collect(),
            examples: kept.len(),
            players: kept.iter().map(|e| (e.set.as_str(), e.player.as_str())).collect::<BTreeSet<_>>().len(),
            manifest_sha256: manifest(&kept),
            seed: options.seed,
            pipeline: PIPELINE.to_owned(),
        },
        leave_one_player_out: figures(&left_out, classes.len()),
        classes,
    };
    Model::new(header, heads).map_err(|source| TrainError::Model { source })
}

/// The features of all examples of one role, computed once for all folds. Thresholds of the convolutions are drawn from
/// all of them: they are quantiles of inputs and know nothing of labels.
struct Features {
    role: SensorRole,
    rocket: Rocket,
    rockets: Vec<Vec<f32>>,
    hands: Vec<Vec<f32>>,
    classes: Vec<usize>,
    weights: Vec<f64>,
    class_count: usize,
}

impl Features {
    fn of(
        examples: &[&Example],
        class_of: &(impl Fn(&Example) -> usize + Sync),
        class_count: usize,
        options: &TrainOptions,
        role: SensorRole,
    ) -> Result<Self, TrainError> {
        let windows: Vec<&Window> = examples.iter().map(|example| &example.window).collect();
        let points = windows.first().map_or(0, |window| window.len());
        let rocket = Rocket::fit(&windows, points, options.features, options.seed ^ u64::from(role.to_byte()));
        let rockets = windows.par_iter().map(|window| rocket.transform(window)).collect();
        let hands: Vec<Vec<f32>> =
            examples.par_iter().map(|example| hand_features(&example.window, &example.spec)).collect();
        if hands.iter().any(|row| row.len() != HAND) {
            return Err(TrainError::Unsolvable { role });
        }
        Ok(Self {
            role,
            rocket,
            rockets,
            hands,
            classes: examples.iter().map(|example| class_of(example)).collect(),
            weights: examples.iter().map(|example| example.weight).collect(),
            class_count,
        })
    }

    fn fit(&self, rows: &[usize], options: &TrainOptions) -> Result<Head, TrainError> {
        let unsolvable = || TrainError::Unsolvable { role: self.role };
        let classes: Vec<usize> = rows.iter().map(|&i| self.classes[i]).collect();
        // Classes weigh alike, however often they were played; but a class of a few examples does not weigh like one of
        // hundreds, or its chance neighbours would decide.
        let mut mass = vec![0.0; self.class_count];
        for &i in rows {
            mass[self.classes[i]] += self.weights[i];
        }
        let present = mass.iter().filter(|m| **m > 0.0).count().max(1) as f64;
        let mean: f64 = mass.iter().sum::<f64>() / present;
        let weights: Vec<f64> =
            rows.iter().map(|&i| self.weights[i] * mean / mass[self.classes[i]].max(0.3 * mean)).collect();
        let normalised = |all: &[Vec<f32>]| {
            let mut picked: Vec<Vec<f32>> = rows.iter().map(|&i| all[i].clone()).collect();
            let norm = Normaliser::fit(&picked, &weights);
            for row in &mut picked {
                norm.apply(row);
            }
            (picked, norm)
        };
        let (rocket_rows, rocket_norm) = normalised(&self.rockets);
        let penalty = options.penalty * self.rocket.len() as f64;
        let ridge = ridge(&rocket_rows, &classes, &weights, self.class_count, penalty).ok_or_else(unsolvable)?;
        drop(rocket_rows);
        let (hand_rows, hand_norm) = normalised(&self.hands);
        let mut lda =
            discriminant(&hand_rows, &classes, &weights, self.class_count, options.shrinkage).ok_or_else(unsolvable)?;
        for (class, offset) in lda.offsets.iter_mut().enumerate() {
            // A class that this role never shows has no mean to be near to.
            if mass[class] == 0.0 {
                *offset = -1e3;
            }
        }
        Ok(Head {
            role: self.role,
            rocket: self.rocket.clone(),
            rocket_norm,
            ridge,
            hand_norm,
            lda,
            temperature_ridge: 0.3,
            temperature_lda: 3.0,
            ridge_share: 0.5,
        })
    }

    /// Scores of both heads for every example, from heads that saw none of its player. Players are dealt to at most
    /// five folds; with a single player there is nothing to leave out.
    fn held_out(&self, examples: &[&Example], options: &TrainOptions) -> Result<Vec<HeldOut>, TrainError> {
        let players: Vec<(&str, &str)> =
            examples.iter().map(|e| (e.set.as_str(), e.player.as_str())).collect::<BTreeSet<_>>().into_iter().collect();
        let folds = players.len().min(5);
        if folds < 2 {
            return Ok(Vec::new());
        }
        let fold_of: Vec<usize> = examples
            .iter()
            .map(|e| players.binary_search(&(e.set.as_str(), e.player.as_str())).unwrap_or(0) % folds)
            .collect();
        let mut held = Vec::with_capacity(examples.len());
        for fold in 0..folds {
            let train: Vec<usize> = (0..examples.len()).filter(|&i| fold_of[i] != fold).collect();
            let known: BTreeSet<usize> = train.iter().map(|&i| self.classes[i]).collect();
            if known.len() < 2 {
                continue;
            }
            let head = self.fit(&train, options)?;
            for i in (0..examples.len()).filter(|&i| fold_of[i] == fold && known.contains(&self.classes[i])) {
                let mut rocket = self.rockets[i].clone();
                head.rocket_norm.apply(&mut rocket);
                let mut hand = self.hands[i].clone();
                head.hand_norm.apply(&mut hand);
                held.push((self.classes[i], head.ridge.scores(&rocket), head.lda.scores(&hand)));
            }
        }
        Ok(held)
    }
}

/// Class of an example, and the scores that ridge and discriminant head gave it without having seen its player.
type HeldOut = (usize, Vec<f64>, Vec<f64>);

/// The temperature of each head under which held-out answers are likeliest.
fn temperatures(held: &[HeldOut]) -> (f64, f64) {
    let best = |of: &dyn Fn(&HeldOut) -> (usize, Vec<f64>), low: f64, high: f64| -> f64 {
        let steps = 60;
        let cost = |temperature: f64| -> f64 {
            held.iter()
                .map(|item| {
                    let (class, scores) = of(item);
                    -crate::linear::softmax(&scores, temperature)[class].max(1e-12).ln()
                })
                .sum()
        };
        (0..=steps)
            .map(|i| low * (high / low).powf(f64::from(i) / f64::from(steps)))
            .map(|t| (cost(t), t))
            .reduce(|best, next| if next.0 < best.0 { next } else { best })
            .map_or(1.0, |(_, t)| t)
    };
    (
        best(&|(class, ridge, _)| (*class, ridge.clone()), 0.02, 3.0),
        best(&|(class, _, lda)| (*class, lda.clone()), 0.5, 50.0),
    )
}

/// The weight of the ridge head under which held-out answers are likeliest; never none of either, because neither is
/// better on all data.
fn ridge_share(held: &[HeldOut], head: &Head) -> f64 {
    let cost = |share: f64| -> f64 {
        let head = Head { ridge_share: share, ..head.clone() };
        held.iter().map(|(class, ridge, lda)| -head.mix(ridge, lda)[*class].max(1e-12).ln()).sum()
    };
    [0.2, 0.35, 0.5, 0.65, 0.8]
        .into_iter()
        .map(|share| (cost(share), share))
        .reduce(|best, next| if next.0 < best.0 { next } else { best })
        .map_or(0.5, |(_, share)| share)
}

/// The confidence that costs at most 2% of the right answers; never above one half, and 0 where nothing is known.
fn confidence_min(held: &[(usize, Vec<f64>)]) -> f64 {
    let mut right: Vec<f64> = held
        .iter()
        .filter(|(class, probabilities)| argmax(probabilities) == *class)
        .map(|(_, probabilities)| probabilities.iter().copied().fold(0.0, f64::max))
        .collect();
    right.sort_by(f64::total_cmp);
    let value: f64 = right.get(right.len() / 50).copied().unwrap_or(0.0).min(0.5);
    (value * 1e3).floor() / 1e3
}

/// Accuracy and macro-F1; `None` without predictions.
fn figures(held: &[(usize, Vec<f64>)], class_count: usize) -> Option<Figures> {
    if held.is_empty() {
        return None;
    }
    let mut confusion = vec![vec![0_usize; class_count]; class_count];
    for (class, probabilities) in held {
        confusion[*class][argmax(probabilities)] += 1;
    }
    let (accuracy, macro_f1) = accuracy_and_macro_f1(&confusion);
    let rounded = |value: f64| (value * 1e4).round() / 1e4;
    Some(Figures { accuracy: rounded(accuracy), macro_f1: rounded(macro_f1), examples: held.len() })
}

/// The first of the largest.
pub(crate) fn argmax(values: &[f64]) -> usize {
    (0..values.len()).reduce(|best, i| if values[i] > values[best] { i } else { best }).unwrap_or(0)
}

/// Accuracy and macro-F1 of a confusion matrix (rows true, columns answered), over the classes that occur.
pub(crate) fn accuracy_and_macro_f1(confusion: &[Vec<usize>]) -> (f64, f64) {
    let total: usize = confusion.iter().flatten().sum();
    let right: usize = confusion.iter().enumerate().map(|(i, row)| row.get(i).copied().unwrap_or(0)).sum();
    let mut sum = 0.0;
    let mut occurring = 0_usize;
    for (i, row) in confusion.iter().enumerate() {
        let truth: usize = row.iter().sum();
        if truth == 0 {
            continue;
        }
        let answered: usize = confusion.iter().map(|row| row.get(i).copied().unwrap_or(0)).sum();
        occurring += 1;
        sum += 2.0 * row.get(i).copied().unwrap_or(0) as f64 / (truth + answered) as f64;
    }
    (right as f64 / total.max(1) as f64, sum / occurring.max(1) as f64)
}

fn manifest(examples: &[&Example]) -> String {
    let mut hash = Sha256::new();
    let mut line = String::new();
    for example in examples {
        line.clear();
        write!(line, "{}\t{}\t{}\t{}\t", example.set, example.player, example.stroke, example.role)
            .expect("writing to a String cannot fail");
        hash.update(line.as_bytes());
        for value in example.window.channels.iter().flatten() {
            hash.update(value.to_le_bytes());
        }
    }
    hex(&hash.finalize())
}
