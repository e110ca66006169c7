//! Labelled recordings in, a model out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use rayon::prelude::*;
use schemas::{SensorRole, Track};
use sha2::{Digest, Sha256};

use crate::calibrate::{Signal, calibrate};
use crate::features::{CHANNELS, HAND, Span, Window, WindowSpec, hand_features};
use crate::levels::{LEVELS, class_levels, is_swing, level_probabilities, level_temperature, tempered};
use crate::linear::{Normaliser, discriminant, ridge, softmax};
use crate::model::{
    Figures, Gate, GateAnswer, GateHeader, Head, HeadHeader, MODEL_FORMAT_VERSION, Model, ModelError, ModelHeader,
    OTHER, Training, average,
};
use crate::params::{Params, SegmentParams, hex};
use crate::pipeline::PIPELINE;
use crate::reliability::calibration_error;
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

impl Mark {
    /// Where the classifier looks if it must rely on the mark.
    pub(crate) fn span(&self) -> Span {
        let peak_ns = ns(self.peak_ms);
        Span { start_ns: self.start_ms.map_or(peak_ns, ns), peak_ns, end_ns: self.end_ms.map_or(peak_ns, ns) }
    }
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

/// One swing, ready for training: its windows with its label.
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
    /// False if it only teaches the gate what a swing is: strokes of a sport whose names the model shall not give.
    pub named: bool,
    /// Energy score of its peak; 0 where the detector saw none.
    pub(crate) strength: f64,
    pub(crate) specs: &'static [WindowSpec],
    pub(crate) windows: Vec<Window>,
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
    /// Share of swings that the gate may lose where it cannot tell all from other movement, 0 to 1.
    pub gate_loss: f64,
    /// Where the gate's threshold lies if it can: 0 at the strongest other movement, 1 at the weakest swing.
    pub gate_place: f64,
    /// How much further off than all other movement of the training, and how much stronger, a candidate must be to be
    /// kept whatever its score; 1 is the most careful.
    pub gate_margin: f64,
    /// The other movement that a candidate is compared with in strength: 1 is the strongest, 0.5 the middle one.
    pub gate_strength_rank: f64,
}

impl Default for TrainOptions {
    /// Values that did best with whole players left out.
    fn default() -> Self {
        Self {
            name: "model".to_owned(),
            seed: 1,
            features: 1512,
            penalty: 0.2,
            shrinkage: 0.3,
            gate_loss: 0.005,
            gate_place: 0.6,
            gate_margin: 1.5,
            gate_strength_rank: 1.0,
        }
    }
}

impl TrainOptions {
    /// The defaults, with a gate that rejects only what is surely no swing: weaker than most of the other movement that it
    /// was shown, and less like a swing than every swing. Without the first, a gate from generated players alone took 8
    /// of 148 strokes of a tennis player for fidgeting (2026-11-26).
    #[must_use]
    pub fn careful() -> Self {
        Self { gate_loss: 0.0, gate_place: 0.2, gate_margin: 1.0, gate_strength_rank: 0.5, ..Self::default() }
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
    cut(recording, params, true)
}

/// The same of the marks alone: a swing beside them is one that nobody has named.
#[must_use]
pub fn marked_examples(recording: &LabelledTrack<'_>, params: &Params) -> Vec<Example> {
    cut(recording, params, false)
}

fn cut(recording: &LabelledTrack<'_>, params: &Params, others: bool) -> Vec<Example> {
    // Where nothing was played everything that moves teaches what a swing is not, also what is too weak for a proposal.
    let eager = Params {
        segment: SegmentParams {
            floor: 0.7 * params.segment.floor,
            prominence: 0.6 * params.segment.prominence,
            spacing_s: params.segment.spacing_s_min,
            ..params.segment.clone()
        },
        ..params.clone()
    };
    let prepared = Prepared::of(recording, if recording.marks.is_empty() { &eager } else { params });
    let Some(signal) = prepared.signal() else { return Vec::new() };
    let tolerance_ns = tolerance_for(signal.rate_hz);
    let counted: Vec<&Mark> = recording.marks.iter().filter(|m| m.quality == MarkQuality::Counted).collect();
    let whole: Vec<&Mark> = recording.marks.iter().filter(|m| m.quality == MarkQuality::Window).collect();
    let ignored: Vec<&Mark> = recording.marks.iter().filter(|m| m.quality == MarkQuality::Ignored).collect();
    let pairs = match_marks(&counted, &prepared.swings, tolerance_ns);
    let mut wanted: Vec<(Span, f64, &str, &str)> = Vec::new();
    for (m, mark) in counted.iter().enumerate() {
        let found = pairs.iter().find(|pair| pair.0 == m).map(|pair| &prepared.swings[pair.1]);
        let (span, strength) = found.map_or_else(|| (mark.span(), 0.0), |swing| (swing.span(), swing.strength));
        wanted.push((span, strength, &mark.player, &mark.stroke));
    }
    wanted.extend(whole.iter().map(|mark| (mark.span(), 0.0, mark.player.as_str(), mark.stroke.as_str())));
    if others && whole.is_empty() {
        let player = recording.marks.first().map_or(recording.name, |mark| mark.player.as_str());
        for (s, swing) in prepared.swings.iter().enumerate() {
            if !pairs.iter().any(|pair| pair.1 == s) && !is_ignored(swing, &ignored, 2 * tolerance_ns) {
                wanted.push((swing.span(), swing.strength, player, OTHER));
            }
            // Movement of nobody in particular has no place where its window belongs.
            if recording.marks.is_empty() {
                for shift_ns in [-100_000_000, 100_000_000] {
                    let span = swing.span();
                    let beside = Span { peak_ns: span.peak_ns.saturating_add(shift_ns), ..span };
                    wanted.push((beside, swing.strength, player, OTHER));
                }
            }
        }
    }
    let mut out = Vec::new();
    for role in [SensorRole::Wrist, SensorRole::Racket] {
        let signal = role.chain_index().and_then(|index| prepared.signals[index].as_ref());
        let Some(signal) = signal.filter(|signal| signal.has_acc && signal.has_gyro) else { continue };
        // Examples that are whole recordings show what came before and after; swings in play have neighbours.
        let longest_ms = whole.iter().filter_map(|m| Some(m.end_ms? - m.start_ms?)).fold(0.0, f64::max);
        let specs: &'static [WindowSpec] = if !whole.is_empty() && counted.is_empty() && longest_ms > 1800.0 {
            &WindowSpec::WHOLE
        } else {
            WindowSpec::for_rate(signal.rate_hz)
        };
        out.extend(wanted.iter().filter_map(|(span, strength, player, stroke)| {
            Some(Example {
                set: recording.set.to_owned(),
                player: (*player).to_owned(),
                stroke: (*stroke).to_owned(),
                role,
                rate_hz: signal.rate_hz,
                weight: 1.0,
                named: true,
                strength: *strength,
                specs,
                windows: specs.iter().map(|spec| Window::cut(signal, span, spec)).collect::<Option<_>>()?,
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
    for example in examples.iter().filter(|example| example.named) {
        *counts.entry(example.stroke.as_str()).or_default() += 1;
    }
    let classes: Vec<String> = counts.iter().filter(|(_, n)| **n >= 3).map(|(name, _)| (*name).to_owned()).collect();
    if classes.len() < 2 {
        return Err(TrainError::TooFewClasses { classes: classes.len() });
    }
    let kept: Vec<&Example> = examples.iter().filter(|e| e.named && classes.binary_search(&e.stroke).is_ok()).collect();
    let specs = kept[0].specs;
    if examples.iter().any(|example| example.specs != specs) {
        return Err(TrainError::MixedWindows);
    }
    let levels = class_levels(&classes);
    let class_of = |example: &Example| classes.binary_search(&example.stroke).unwrap_or(0);
    let roles: BTreeSet<SensorRole> = kept.iter().map(|example| example.role).collect();
    let (mut heads, mut gates) = (Vec::new(), Vec::new());
    let mut left_out = true;
    let mut held: Vec<(usize, Vec<f64>)> = Vec::new();
    let mut held_knowing: Vec<(usize, Vec<f64>)> = Vec::new();
    let players: BTreeSet<(&str, &str)> = kept.iter().map(|e| (e.set.as_str(), e.player.as_str())).collect();
    for role in roles {
        let of_role: Vec<&Example> = kept.iter().copied().filter(|example| example.role == role).collect();
        let truth: Vec<usize> = of_role.iter().map(|example| class_of(example)).collect();
        if truth.iter().collect::<BTreeSet<_>>().len() < 2 {
            continue;
        }
        let by_player = folds_of_players(&of_role);
        // One player alone, or one beside recordings of nobody: parts of their recordings are all there is to hold out.
        let apart = reached(&by_player, &truth) * 2 > truth.len();
        let folds = if apart { by_player } else { folds_of_blocks(&of_role, &truth) };
        left_out &= apart;
        // What each window's heads said about each example without having seen its player.
        let mut said: Vec<Vec<Vec<f64>>> = vec![Vec::new(); of_role.len()];
        // The same where only a part of its player's recording was held out: how a model does that knows the player.
        let blocks = folds_of_blocks(&of_role, &truth);
        let mut said_knowing: Vec<Vec<Vec<f64>>> = vec![Vec::new(); of_role.len()];
        for window in 0..specs.len() {
            let prepared = Features::of(&of_role, window, &truth, classes.len(), options, role)?;
            let all: Vec<usize> = (0..of_role.len()).collect();
            let mut head = prepared.fit(&all, options)?;
            let scores = prepared.held_out(&folds, options)?;
            if !scores.is_empty() {
                (head.temperature_ridge, head.temperature_lda) = temperatures(&scores);
                head.ridge_share = ridge_share(&scores, &head);
                for one in &scores {
                    said[one.example].push(head.mix(&one.ridge, &one.lda));
                }
                if apart && players.len() < PLAYERS_ENOUGH {
                    for one in &prepared.held_out(&blocks, options)? {
                        said_knowing[one.example].push(head.mix(&one.ridge, &one.lda));
                    }
                }
            }
            heads.push(head);
        }
        gates.extend(gate(role, examples, options));
        for (said, held) in [(&said, &mut held), (&said_knowing, &mut held_knowing)] {
            held.extend(said.iter().zip(&truth).filter_map(|(answers, &class)| Some((class, average(answers, 1.0)?))));
        }
    }
    // How much what was said without knowing the player counts beside what was said knowing it.
    let share = (players.len() as f64 - 2.0).max(0.0) / (PLAYERS_ENOUGH as f64 - 2.0);
    let between = |unknowing: f64, knowing: f64| {
        if held_knowing.is_empty() { unknowing } else { unknowing.powf(share) * knowing.powf(1.0 - share) }
    };
    let temperature = between(temperature_of(&held), temperature_of(&held_knowing));
    let at_it = |held: &[(usize, Vec<f64>)]| -> Vec<(usize, Vec<f64>)> {
        let tempered = |p: &Vec<f64>| average(std::slice::from_ref(p), temperature).unwrap_or_default();
        held.iter().map(|(class, p)| (*class, tempered(p))).collect()
    };
    let (held, held_knowing) = (at_it(&held), at_it(&held_knowing));
    let rates: Vec<f64> = kept.iter().map(|example| example.rate_hz).collect();
    let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
    let mut header = ModelHeader {
        format_version: MODEL_FORMAT_VERSION,
        name: options.name.clone(),
        channels: CHANNELS.map(str::to_owned).to_vec(),
        hand_figures: HAND,
        windows: specs.to_vec(),
        levels,
        // Somewhat slower sensors look alike; faster ones are brought down to the window's rate.
        rate_hz: if specs == WindowSpec::SPARSE { [0.7 * slowest, 8.0] } else { [(0.7 * slowest).max(7.0), 10_000.0] },
        temperature,
        confidence_min: confidence_min(held.iter().map(|(class, p)| (argmax(p) == *class, p[argmax(p)]))),
        level_temperature: BTreeMap::new(),
        level_confidence_min: BTreeMap::new(),
        heads: heads
            .iter()
            .map(|head| HeadHeader {
                role: head.role,
                window: head.window,
                dilations: head.rocket.dilations.clone(),
                temperature_ridge: head.temperature_ridge,
                temperature_lda: head.temperature_lda,
                ridge_share: head.ridge_share,
            })
            .collect(),
        gates: gates.iter().map(|gate: &Gate| gate.header.clone()).collect(),
        training: Training {
            sets: examples.iter().map(|e| e.set.clone()).collect::<BTreeSet<_>>().into_iter().collect(),
            examples: kept.len(),
            players: players.len(),
            manifest_sha256: manifest(examples),
            seed: options.seed,
            pipeline: PIPELINE.to_owned(),
            adapted_from: None,
        },
        // Parts of one player's recordings are no players that were left out.
        leave_one_player_out: if left_out { figures(&held, classes.len()) } else { None },
        classes,
    };
    for level in LEVELS {
        let of_level = |held: &[(usize, Vec<f64>)]| level_temperature(&header.levels, level, held);
        let knowing = of_level(&held_knowing);
        let temperature = of_level(&held).map(|unknowing| between(unknowing, knowing.unwrap_or(unknowing)));
        let least = confidence_min(held.iter().filter_map(|(class, p)| {
            let truth = header.levels[*class].at(level)?;
            let values = tempered(level_probabilities(&header.levels, level, p), temperature);
            let (best, value) = values.iter().reduce(|best, next| if next.1 > best.1 { next } else { best })?;
            Some((best == truth, *value))
        }));
        header.level_temperature.extend(temperature.map(|temperature| (level.to_owned(), temperature)));
        header.level_confidence_min.insert(level.to_owned(), least);
    }
    Model::new(header, heads, gates).map_err(|source| TrainError::Model { source })
}

/// From so many players on a model hardly gains from one more, so that one left out shows how sure it may be. With two,
/// what is left to train on is a single player's habits, and says far less than both together; measured on two sets
/// (2026-11-26): left-out temperatures are right for four players (calibration error 0.025), those of held-out parts of
/// known players for two (0.04 against 0.25).
const PLAYERS_ENOUGH: usize = 4;

/// Folds by player, at most five.
fn folds_of_players(examples: &[&Example]) -> Vec<usize> {
    let players: Vec<(&str, &str)> =
        examples.iter().map(|e| (e.set.as_str(), e.player.as_str())).collect::<BTreeSet<_>>().into_iter().collect();
    let folds = players.len().clamp(1, 5);
    examples.iter().map(|e| players.binary_search(&(e.set.as_str(), e.player.as_str())).unwrap_or(0) % folds).collect()
}

/// Examples that heads trained on the other folds can be asked about.
fn reached(folds: &[usize], classes: &[usize]) -> usize {
    let mut reached = 0;
    for fold in folds.iter().copied().collect::<BTreeSet<_>>() {
        let rest: BTreeSet<usize> =
            folds.iter().zip(classes).filter(|(of, _)| **of != fold).map(|(_, class)| *class).collect();
        if rest.len() >= 2 {
            reached += folds.iter().zip(classes).filter(|(of, class)| **of == fold && rest.contains(class)).count();
        }
    }
    reached
}

/// Five folds by blocks of neighbours within each class and player: what is left where there is one player only.
fn folds_of_blocks(examples: &[&Example], classes: &[usize]) -> Vec<usize> {
    let mut groups: BTreeMap<(&str, &str, usize), Vec<usize>> = BTreeMap::new();
    for (i, (example, &class)) in examples.iter().zip(classes).enumerate() {
        groups.entry((example.set.as_str(), example.player.as_str(), class)).or_default().push(i);
    }
    let mut folds = vec![0; examples.len()];
    for group in groups.values() {
        for (place, &i) in group.iter().enumerate() {
            folds[i] = place * 5 / group.len();
        }
    }
    folds
}

/// The features of all examples of one role in one window, computed once for all folds. Thresholds of the convolutions
/// are drawn from all of them: they are quantiles of inputs and know nothing of labels.
struct Features {
    role: SensorRole,
    window: usize,
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
        window: usize,
        classes: &[usize],
        class_count: usize,
        options: &TrainOptions,
        role: SensorRole,
    ) -> Result<Self, TrainError> {
        let windows: Vec<&Window> = examples.iter().map(|example| &example.windows[window]).collect();
        let points = windows.first().map_or(0, |window| window.len());
        // Each window draws its own kernels' channels: averaged answers gain from differing.
        let seed = options.seed ^ u64::from(role.to_byte()) ^ ((window as u64) << 32);
        let rocket = Rocket::fit(&windows, points, options.features, seed);
        let rockets = windows.par_iter().map(|window| rocket.transform(window)).collect();
        let hands: Vec<Vec<f32>> = examples
            .par_iter()
            .map(|example| hand_features(&example.windows[window], &example.specs[window]))
            .collect();
        if hands.iter().any(|row| row.len() != HAND) {
            return Err(TrainError::Unsolvable { role });
        }
        Ok(Self {
            role,
            window,
            rocket,
            rockets,
            hands,
            classes: classes.to_vec(),
            weights: examples.iter().map(|example| example.weight).collect(),
            class_count,
        })
    }

    fn fit(&self, rows: &[usize], options: &TrainOptions) -> Result<Head, TrainError> {
        let unsolvable = || TrainError::Unsolvable { role: self.role };
        let classes: Vec<usize> = rows.iter().map(|&i| self.classes[i]).collect();
        let weights = balanced(&rows.iter().map(|&i| self.weights[i]).collect::<Vec<_>>(), &classes, self.class_count);
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
            if !classes.contains(&class) {
                *offset = -1e3;
            }
        }
        Ok(Head {
            role: self.role,
            window: self.window,
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

    /// Scores of both heads for every example, from heads that did not see its fold. A fold whose rest shows fewer than
    /// two classes is passed over, and so are examples of classes that the rest does not show.
    fn held_out(&self, folds: &[usize], options: &TrainOptions) -> Result<Vec<HeldOut>, TrainError> {
        let mut held = Vec::with_capacity(folds.len());
        for fold in folds.iter().copied().collect::<BTreeSet<_>>() {
            let train: Vec<usize> = (0..folds.len()).filter(|&i| folds[i] != fold).collect();
            let known: BTreeSet<usize> = train.iter().map(|&i| self.classes[i]).collect();
            if known.len() < 2 {
                continue;
            }
            let head = self.fit(&train, options)?;
            for example in (0..folds.len()).filter(|&i| folds[i] == fold && known.contains(&self.classes[i])) {
                let mut rocket = self.rockets[example].clone();
                head.rocket_norm.apply(&mut rocket);
                let mut hand = self.hands[example].clone();
                head.hand_norm.apply(&mut hand);
                held.push(HeldOut {
                    example,
                    class: self.classes[example],
                    ridge: head.ridge.scores(&rocket),
                    lda: head.lda.scores(&hand),
                });
            }
        }
        Ok(held)
    }
}

/// Weights under which classes weigh alike, however often they were played; but a class of a few examples does not weigh
/// like one of hundreds, or its chance neighbours would decide.
fn balanced(weights: &[f64], classes: &[usize], class_count: usize) -> Vec<f64> {
    let mut mass = vec![0.0; class_count];
    for (weight, &class) in weights.iter().zip(classes) {
        mass[class] += weight;
    }
    let present = mass.iter().filter(|m| **m > 0.0).count().max(1) as f64;
    let mean: f64 = mass.iter().sum::<f64>() / present;
    weights.iter().zip(classes).map(|(weight, &class)| weight * mean / mass[class].max(0.3 * mean)).collect()
}

/// The gate of one role: a discriminant between swings and other movement. `None` with too few of either.
///
/// Its threshold comes from scores of examples that it had not seen. It lies between both kinds, nearer to the other
/// movement, where they are apart, and loses the share of swings that the options allow where they are not.
fn gate(role: SensorRole, examples: &[Example], options: &TrainOptions) -> Option<Gate> {
    const EXAMPLES_MIN: usize = 8;
    let examples: Vec<&Example> = examples.iter().filter(|example| example.role == role).collect();
    let swings: Vec<bool> = examples.iter().map(|example| is_swing(&example.stroke)).collect();
    let hands: Vec<Vec<f32>> =
        examples.par_iter().map(|example| hand_features(&example.windows[0], &example.specs[0])).collect();
    let folds = folds_of_blocks(&examples, &swings.iter().map(|&swing| usize::from(swing)).collect::<Vec<_>>());
    let counts = [true, false].map(|kind| swings.iter().filter(|&&swing| swing == kind).count());
    if counts.iter().any(|&count| count < EXAMPLES_MIN) {
        return None;
    }
    let fit = |rows: &[usize]| -> Option<Gate> {
        let classes: Vec<usize> = rows.iter().map(|&i| usize::from(swings[i])).collect();
        let weights = balanced(&vec![1.0; rows.len()], &classes, 2);
        let mut picked: Vec<Vec<f32>> = rows.iter().map(|&i| hands[i].clone()).collect();
        let norm = Normaliser::fit(&picked, &weights);
        for row in &mut picked {
            norm.apply(row);
        }
        let lda = discriminant(&picked, &classes, &weights, 2, options.shrinkage)?;
        let difference = |of: &[f32]| -> f32 { of[1] - of[0] };
        let others: Vec<&Vec<f32>> =
            picked.iter().zip(&classes).filter(|(_, class)| **class == 0).map(|(r, _)| r).collect();
        let width = picked.first().map_or(0, Vec::len);
        let centre = (0..width)
            .map(|j| (others.iter().map(|row| f64::from(row[j])).sum::<f64>() / others.len().max(1) as f64) as f32)
            .collect();
        Some(Gate {
            header: GateHeader {
                role,
                threshold: 0.0,
                reach: f64::MAX,
                strength: f64::MAX,
                examples: counts,
                swings_kept: 1.0,
                others_rejected: 0.0,
            },
            norm,
            weights: lda.weights.axis_iter(ndarray::Axis(1)).map(|pair| pair[1] - pair[0]).collect(),
            offset: difference(&lda.offsets),
            centre,
        })
    };
    let mut said: Vec<(bool, GateAnswer)> = Vec::new();
    for fold in folds.iter().copied().collect::<BTreeSet<_>>() {
        let rows: Vec<usize> = (0..folds.len()).filter(|&i| folds[i] != fold).collect();
        let seen: BTreeSet<bool> = rows.iter().map(|&i| swings[i]).collect();
        if seen.len() < 2 {
            continue;
        }
        let gate = fit(&rows)?;
        said.extend((0..folds.len()).filter(|&i| folds[i] == fold).map(|i| (swings[i], gate.answer(&hands[i], 0.0))));
    }
    let sorted = |kind: bool, of: fn(&GateAnswer) -> f64| -> Vec<f64> {
        let mut values: Vec<f64> = said.iter().filter(|(swing, _)| *swing == kind).map(|(_, a)| of(a)).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (kept, rejected) = (sorted(true, |a| a.score), sorted(false, |a| a.score));
    let quantile = |values: &[f64], share: f64| -> Option<f64> {
        values.get((share * values.len().saturating_sub(1) as f64).round() as usize).copied()
    };
    let weakest_swing = quantile(&kept, options.gate_loss)?;
    let strongest_other = quantile(&rejected, 0.99)?;
    let mut gate = fit(&(0..folds.len()).collect::<Vec<_>>())?;
    gate.header.threshold = if weakest_swing > strongest_other {
        strongest_other + options.gate_place * (weakest_swing - strongest_other)
    } else {
        weakest_swing
    };
    // Movement of somebody else may be somewhat further off than the furthest that was seen.
    gate.header.reach = options.gate_margin * quantile(&sorted(false, |a| a.distance), 0.99)?;
    let mut strengths: Vec<f64> =
        examples.iter().zip(&swings).filter(|(_, swing)| !**swing).map(|(example, _)| example.strength).collect();
    strengths.sort_by(f64::total_cmp);
    let strong = quantile(&strengths, options.gate_strength_rank)?;
    gate.header.strength = rounded(options.gate_margin.powi(2) * strong);
    let passes = |answer: &GateAnswer| answer.score >= gate.header.threshold || answer.distance > gate.header.reach;
    let share = |kind: bool, passing: bool| {
        let of_kind = said.iter().filter(|(swing, _)| *swing == kind);
        let count = of_kind.clone().filter(|(_, answer)| passes(answer) == passing).count();
        rounded(count as f64 / of_kind.count().max(1) as f64)
    };
    (gate.header.swings_kept, gate.header.others_rejected) = (share(true, true), share(false, false));
    Some(gate)
}

/// The temperature under which held-out averages are likeliest; 1 without any.
fn temperature_of(held: &[(usize, Vec<f64>)]) -> f64 {
    let cost = |temperature: f64| -> f64 {
        held.iter()
            .filter_map(|(class, p)| Some(-average(std::slice::from_ref(p), temperature)?[*class].max(1e-12).ln()))
            .sum()
    };
    likeliest(0.3, 3.0, 40, cost).filter(|_| !held.is_empty()).unwrap_or(1.0)
}

/// The temperature of least cost from `low` to `high`, in even ratios.
pub(crate) fn likeliest(low: f64, high: f64, steps: u32, cost: impl Fn(f64) -> f64) -> Option<f64> {
    (0..=steps)
        .map(|i| low * (high / low).powf(f64::from(i) / f64::from(steps)))
        .map(|t| (cost(t), t))
        .reduce(|best, next| if next.0 < best.0 { next } else { best })
        .map(|(_, t)| t)
}

/// What ridge and discriminant head said about an example without having seen its fold.
struct HeldOut {
    example: usize,
    class: usize,
    ridge: Vec<f64>,
    lda: Vec<f64>,
}

/// The temperature of each head under which held-out answers are likeliest.
fn temperatures(held: &[HeldOut]) -> (f64, f64) {
    let best = |of: &dyn Fn(&HeldOut) -> &[f64], low: f64, high: f64| -> f64 {
        let cost = |temperature: f64| -> f64 {
            held.iter().map(|item| -softmax(of(item), temperature)[item.class].max(1e-12).ln()).sum()
        };
        likeliest(low, high, 60, cost).unwrap_or(1.0)
    };
    (best(&|item| &item.ridge, 0.02, 3.0), best(&|item| &item.lda, 0.5, 50.0))
}

/// The weight of the ridge head under which held-out answers are likeliest; never none of either, because neither is
/// better on all data.
fn ridge_share(held: &[HeldOut], head: &Head) -> f64 {
    let cost = |share: f64| -> f64 {
        let head = Head { ridge_share: share, ..head.clone() };
        held.iter().map(|one| -head.mix(&one.ridge, &one.lda)[one.class].max(1e-12).ln()).sum()
    };
    [0.2, 0.35, 0.5, 0.65, 0.8]
        .into_iter()
        .map(|share| (cost(share), share))
        .reduce(|best, next| if next.0 < best.0 { next } else { best })
        .map_or(0.5, |(_, share)| share)
}

/// The confidence that costs at most 2% of the right answers; never above one half, and 0 where nothing is known. Takes
/// for each answer whether it was right and how sure.
fn confidence_min(answers: impl Iterator<Item = (bool, f64)>) -> f64 {
    let mut right: Vec<f64> = answers.filter(|answer| answer.0).map(|answer| answer.1).collect();
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
    let error = calibration_error(held.iter().map(|(class, p)| (argmax(p) == *class, p[argmax(p)])));
    Some(Figures {
        accuracy: rounded(accuracy),
        macro_f1: rounded(macro_f1),
        examples: held.len(),
        calibration_error: rounded(error),
    })
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
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

fn manifest(examples: &[Example]) -> String {
    let mut hash = Sha256::new();
    let mut line = String::new();
    for example in examples {
        line.clear();
        write!(line, "{}\t{}\t{}\t{}\t", example.set, example.player, example.stroke, example.role)
            .expect("writing to a String cannot fail");
        hash.update(line.as_bytes());
        for value in example.windows.iter().flat_map(|window| window.channels.iter().flatten()) {
            hash.update(value.to_le_bytes());
        }
    }
    hex(&hash.finalize())
}
