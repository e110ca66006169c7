//! How good swings and names are, against labelled recordings.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::adapt::adapt;
use crate::calibrate::{Signal, median, span_s};
use crate::features::Span;
use crate::levels::LEVELS;
use crate::model::{Model, OTHER};
use crate::params::{ClassifyParams, Params};
use crate::reliability::{ReliabilityBin, calibration_error, expected_error, merged, reliability};
use crate::segment::Swing;
use crate::train::{
    Example, LabelledTrack, Mark, MarkQuality, Prepared, TrainError, TrainOptions, accuracy_and_macro_f1, argmax,
    examples, is_ignored, marked_examples, match_marks, ns, train,
};

/// Seed of the order that swings are put into to see what names are worth in open play.
const DRAWN_ORDER: u64 = 1;

/// Who names the swings.
#[derive(Clone, Copy, Debug)]
pub enum Judge<'a> {
    /// Nobody: swings are found and counted only.
    Nobody,
    /// This model.
    Model(&'a Model),
    /// For each player a model trained on the others.
    LeaveOnePlayerOut(&'a TrainOptions),
}

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluateOptions {
    /// Largest distance of a mark's peak and a swing's impact, ms.
    pub tolerance_ms: f64,
    /// Labelled swings of each class of the player being judged that training may see, at weight
    /// [`EvaluateOptions::CALIBRATION_WEIGHT`]; they are not judged. A judge that is a model is adapted to each player.
    pub calibrate: usize,
}

impl EvaluateOptions {
    /// How much a calibrating swing counts against one of another player.
    pub const CALIBRATION_WEIGHT: f64 = 8.0;
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self { tolerance_ms: 250.0, calibrate: 0 }
    }
}

/// What the detector proposed, before a gate rejected any of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proposals {
    /// Marks with a proposal.
    pub found: usize,
    /// Proposals without a mark.
    pub false_alarms: usize,
    /// found / (found + false alarms); absent without proposals.
    pub precision: Option<f64>,
    /// found / marks; absent without marks.
    pub recall: Option<f64>,
    /// Harmonic mean of both.
    pub f1: Option<f64>,
    /// Per minute of these recordings.
    pub false_alarms_per_min: Option<f64>,
}

/// How swings were found: by the detector, and by the gate of the judge's model where it has one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Segmentation {
    /// Marks that count.
    pub marks: usize,
    /// Marks with a swing.
    pub found: usize,
    /// Swings without a mark, in recordings that have marks.
    pub false_alarms: usize,
    /// found / (found + false alarms); absent without swings.
    pub precision: Option<f64>,
    /// found / marks; absent without marks.
    pub recall: Option<f64>,
    /// Harmonic mean of both.
    pub f1: Option<f64>,
    /// Largest distance that counted as found, ms.
    pub tolerance_ms: f64,
    /// Median distance of mark and impact, ms.
    pub peak_error_ms_median: Option<f64>,
    /// Length of the recordings with marks, min.
    pub minutes: f64,
    /// False alarms per minute of these.
    pub false_alarms_per_min: Option<f64>,
    /// Marks that were found and named right; absent without a judge.
    pub found_and_named: Option<usize>,
    /// F1 of "found and named right", where swings named `other` do not count as swings.
    pub named_f1: Option<f64>,
    /// Swings without a mark that the judge named anything but `other`.
    pub named_false_alarms: Option<usize>,
    /// Before the gate.
    pub before_gate: Proposals,
    /// Proposals at a mark that the gate rejected; absent without a gate.
    pub rejected_swings: Option<usize>,
}

/// What was found in recordings without any mark.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// Length, min.
    pub minutes: f64,
    /// Swings found, by detector and gate.
    pub false_alarms: usize,
    /// Per minute.
    pub false_alarms_per_min: Option<f64>,
    /// Of these, named anything but `other`; absent without a judge.
    pub named_false_alarms: Option<usize>,
    /// Proposals before the gate.
    pub before_gate: usize,
    /// Per minute.
    pub before_gate_per_min: Option<f64>,
}

/// Figures of one player.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlayerFigures {
    /// Swings judged.
    pub examples: usize,
    /// Share named right.
    pub accuracy: f64,
    /// Mean F1 over the player's classes.
    pub macro_f1: f64,
}

/// Figures of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassFigures {
    /// Swings of this class.
    pub examples: usize,
    /// Share of swings so named that were of this class; absent if none was so named.
    pub precision: Option<f64>,
    /// Share of the class that was so named; absent if none occurs.
    pub recall: Option<f64>,
    /// Harmonic mean of both; absent if the class neither occurs nor was named.
    pub f1: Option<f64>,
}

/// How well one level above the type is told: side or height.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LevelFigures {
    /// Swings whose class says it.
    pub examples: usize,
    /// Share told right, taking the likeliest value of every swing.
    pub accuracy: f64,
    /// Share of swings that got an answer.
    pub coverage: f64,
    /// Share told right of these.
    pub accuracy_when_sure: Option<f64>,
    /// Expected calibration error, 0 to 1.
    pub calibration_error: f64,
}

/// The same swings, each named without knowing the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Alone {
    /// Share named right.
    pub accuracy: f64,
    /// Expected calibration error, 0 to 1.
    pub calibration_error: f64,
    /// Share named right when each player's swings are put into a drawn order and then named together: as in open play, where
    /// no swing tells of the next.
    pub accuracy_in_drawn_order: f64,
}

/// How marked swings were named, wherever the detector put them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// Swings judged.
    pub examples: usize,
    /// Share named right, taking the best class of every swing.
    pub accuracy: f64,
    /// Mean F1 over the classes that occur.
    pub macro_f1: f64,
    /// Share of swings that got an answer other than "not sure".
    pub coverage: f64,
    /// Share named right of these.
    pub accuracy_when_sure: Option<f64>,
    /// Class names: rows and columns of `confusion`.
    pub classes: Vec<String>,
    /// Rows true, columns best class.
    pub confusion: Vec<Vec<usize>>,
    /// By player.
    pub players: BTreeMap<String, PlayerFigures>,
    /// By class.
    pub by_class: BTreeMap<String, ClassFigures>,
    /// Reliability diagram: whether the probability of the best class comes true.
    pub reliability: Vec<ReliabilityBin>,
    /// Expected calibration error over its bins, 0 to 1.
    pub calibration_error: f64,
    /// Side and height, where the names of two classes or more say them.
    pub levels: BTreeMap<String, LevelFigures>,
    /// How much the strokes around one say of it; absent where every recording is one example, or the pipeline names each
    /// swing by itself. Sets whose recordings hold one stroke each are drills: rallies gain nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<Alone>,
}

/// The whole judgement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Absent if no recording has marks to find.
    pub segmentation: Option<Segmentation>,
    /// Absent if every recording has marks.
    pub idle: Option<Idle>,
    /// Absent without a judge.
    pub classification: Option<Classification>,
    /// What could not be judged and why.
    pub notes: Vec<String>,
}

/// What a judge said about one marked swing.
#[derive(Clone, Debug)]
struct Named {
    player: String,
    truth: String,
    best: String,
    confidence: f64,
    sure: bool,
    /// Of each level that the true class has: told right, its probability, sure.
    levels: Vec<(&'static str, bool, f64, bool)>,
    /// What the model says without the swings around it, where they were used.
    alone: Option<Vec<f64>>,
    /// The true class in the model's list.
    class: Option<usize>,
}

/// What a judge says about one place in a recording.
struct Verdict {
    best: String,
    confidence: f64,
    sure: bool,
    values: Vec<f64>,
    /// The values without the swings around it, where they were used.
    alone: Option<Vec<f64>>,
}

impl Verdict {
    fn of(values: Vec<f64>, alone: Option<Vec<f64>>, model: &Model, params: &ClassifyParams) -> Self {
        let best = argmax(&values);
        let confidence = values[best];
        let sure = confidence >= params.confidence_min.max(model.header().confidence_min);
        Self { best: model.header().classes[best].clone(), confidence, sure, values, alone }
    }

    fn is_stroke(&self) -> bool {
        self.sure && self.best != OTHER
    }

    fn named(self, model: &Model, mark: &Mark) -> Named {
        let truth = model.header().classes.binary_search(&mark.stroke).ok();
        let answers = model.levels(&self.values);
        let levels = LEVELS
            .iter()
            .filter_map(|&level| {
                let truth = model.header().levels[truth?].at(level)?;
                let said = answers.get(level)?;
                let best = said.probabilities.iter().reduce(|best, next| if next.1 > best.1 { next } else { best })?;
                Some((level, best.0 == truth, *best.1, said.answer.is_some()))
            })
            .collect();
        Named {
            alone: self.alone,
            class: truth,
            player: mark.player.clone(),
            truth: mark.stroke.clone(),
            best: self.best,
            confidence: self.confidence,
            sure: self.sure,
            levels,
        }
    }
}

/// Judges swings, and names if somebody gives any, against the marks of `recordings`.
///
/// Matching is one to one, nearest first. Swings near or inside a mark that is ambiguous are neither right nor wrong. A
/// model's gate decides which proposals are swings; names are judged at every mark, found or not.
///
/// # Errors
/// Training for a left-out player fails.
pub fn evaluate(
    recordings: &[LabelledTrack<'_>],
    params: &Params,
    judge: Judge<'_>,
    options: &EvaluateOptions,
) -> Result<Evaluation, TrainError> {
    let prepared: Vec<Prepared> = recordings.par_iter().map(|r| Prepared::of(r, params)).collect();
    let mut notes = Vec::new();
    let models = models(recordings, params, judge, options, &mut notes)?;
    let judged = !matches!(judge, Judge::Nobody);
    let parts: Vec<OfRecording> = recordings
        .par_iter()
        .zip(&prepared)
        .map(|(recording, prepared)| of_recording(recording, prepared, &models, params, options))
        .collect();
    let mut found = Tally::default();
    let mut idle = Idle::default();
    let mut named: Vec<Named> = Vec::new();
    for part in parts {
        named.extend(part.named);
        match part.swings {
            Some((tally, true)) => found.add(tally),
            Some((tally, false)) => {
                idle.minutes += tally.minutes;
                idle.false_alarms += tally.alarms;
                idle.before_gate += tally.proposed_alarms;
                if judged {
                    *idle.named_false_alarms.get_or_insert(0) += tally.named_alarms;
                }
            }
            None => {}
        }
    }
    if judged && named.is_empty() {
        notes.push("no swing could be named: the model serves no sensor of these recordings at their rate".to_owned());
    }
    Ok(Evaluation {
        segmentation: (found.marks > 0).then(|| found.figures(options.tolerance_ms, judged)),
        idle: (idle.minutes > 0.0).then(|| {
            idle.false_alarms_per_min = Some(idle.false_alarms as f64 / idle.minutes);
            idle.before_gate_per_min = Some(idle.before_gate as f64 / idle.minutes);
            idle
        }),
        classification: (!named.is_empty())
            .then(|| Classification { alone: alone(&named, &models, &params.classify), ..classification(&named) }),
        notes,
    })
}

/// What one recording adds to the figures.
struct OfRecording {
    named: Vec<Named>,
    /// Counts of swings, and whether the recording has marks; absent where the whole is one example.
    swings: Option<(Tally, bool)>,
}

fn of_recording(
    recording: &LabelledTrack<'_>,
    prepared: &Prepared,
    models: &Models<'_>,
    params: &Params,
    options: &EvaluateOptions,
) -> OfRecording {
    let tolerance_ns = ns(options.tolerance_ms);
    let of = |quality: MarkQuality| -> Vec<&Mark> {
        recording.marks.iter().filter(|mark| mark.quality == quality).collect()
    };
    let (counted, whole, ignored) = (of(MarkQuality::Counted), of(MarkQuality::Window), of(MarkQuality::Ignored));
    let model_for = |player: &str| -> Option<(&Model, &Signal)> {
        let model = models.for_player(player)?;
        prepared.signal().filter(|signal| model.serves(signal)).map(|signal| (model, signal))
    };
    let values = |span: &Span, player: &str| -> Option<Vec<f64>> {
        let (model, signal) = model_for(player)?;
        model.probabilities(signal.role, &model.views(signal, span, &params.classify)?)
    };
    let mut named: Vec<Named> = Vec::new();
    let mut name = |verdict: Verdict, mark: &Mark| {
        if let Some(model) = models.for_player(&mark.player) {
            named.push(verdict.named(model, mark));
        }
    };
    for mark in whole.iter().filter(|mark| !models.is_spent(mark)) {
        if let (Some(values), Some(model)) = (values(&mark.span(), &mark.player), models.for_player(&mark.player)) {
            name(Verdict::of(values, None, model, &params.classify), mark);
        }
    }
    if !whole.is_empty() {
        return OfRecording { named, swings: None };
    }
    let player = recording.marks.first().map_or(recording.name, |mark| mark.player.as_str());
    let passes = |swing: &Swing| -> Option<bool> {
        let (model, signal) = model_for(player)?;
        let views = model.views(signal, &swing.span(), &params.classify)?;
        model.gate(signal.role, &views, swing.strength).map(|answer| answer.kept)
    };
    let gated: Vec<Option<bool>> = prepared.swings.iter().map(passes).collect();
    let has_gate = gated.iter().any(Option::is_some);
    let kept: Vec<Swing> = prepared
        .swings
        .iter()
        .zip(&gated)
        .filter(|(_, passed)| passed.unwrap_or(true))
        .map(|(swing, _)| *swing)
        .collect();
    let mut tally = Tally {
        minutes: prepared
            .signal()
            .map_or(0.0, |signal| span_s(signal.raw_t_ns[0], signal.raw_t_ns[signal.raw_t_ns.len() - 1]) / 60.0),
        marks: counted.len(),
        ..Tally::default()
    };
    let alarms = |swings: &[Swing], pairs: &[(usize, usize)]| -> Vec<Swing> {
        let free = |s: usize| !pairs.iter().any(|pair| pair.1 == s);
        let alarms =
            swings.iter().enumerate().filter(|(s, swing)| free(*s) && !is_ignored(swing, &ignored, tolerance_ns));
        alarms.map(|(_, swing)| *swing).collect()
    };
    let proposed = match_marks(&counted, &prepared.swings, tolerance_ns);
    tally.proposed = proposed.len();
    tally.proposed_alarms = alarms(&prepared.swings, &proposed).len();
    tally.rejected = has_gate.then(|| proposed.iter().filter(|pair| gated[pair.1] == Some(false)).count());
    let pairs = match_marks(&counted, &kept, tolerance_ns);
    tally.found = pairs.len();
    let false_alarms = alarms(&kept, &pairs);
    tally.alarms = false_alarms.len();
    // Marks without a swing have a name too, as if they had been found.
    let at_mark = |m: usize, mark: &Mark| {
        let proposal = proposed.iter().find(|pair| pair.0 == m).map(|pair| &prepared.swings[pair.1]);
        proposal.map_or_else(|| mark.span(), Swing::span)
    };
    let marked: Vec<Span> = counted.iter().enumerate().map(|(m, mark)| at_mark(m, mark)).collect();
    let mut spans: Vec<Span> = kept.iter().map(Swing::span).chain(marked.iter().copied()).collect();
    spans.sort_by_key(|span| (span.peak_ns, span.start_ns, span.end_ns));
    spans.dedup();
    let alone: Vec<Option<Vec<f64>>> = spans.par_iter().map(|span| values(span, player)).collect();
    let together = model_for(player).map(|(model, _)| model.together(&alone, &params.classify).values);
    let verdict = |span: &Span| -> Option<Verdict> {
        let (model, _) = model_for(player)?;
        let at = spans.iter().position(|other| other == span)?;
        let values = together.as_ref()?[at].clone()?;
        let alone = alone[at].clone().filter(|_| params.classify.drills);
        Some(Verdict::of(values, alone, model, &params.classify))
    };
    tally.named_alarms =
        false_alarms.iter().filter(|swing| verdict(&swing.span()).is_some_and(|verdict| verdict.is_stroke())).count();
    for (m, (mark, span)) in counted.iter().zip(&marked).enumerate() {
        let swing = pairs.iter().find(|pair| pair.0 == m).map(|pair| &kept[pair.1]);
        if let Some(swing) = swing {
            tally.errors_ms.push((swing.impact_ns - ns(mark.peak_ms)).abs() as f64 / 1e6);
        }
        if models.is_spent(mark) {
            continue;
        }
        if let Some(verdict) = verdict(span) {
            if swing.is_some() && verdict.sure {
                tally.answered += usize::from(verdict.best != OTHER);
                tally.right += usize::from(verdict.best == mark.stroke);
            }
            name(verdict, mark);
        }
    }
    OfRecording { named, swings: Some((tally, !recording.marks.is_empty())) }
}

/// Counts of swings found.
#[derive(Default)]
struct Tally {
    minutes: f64,
    marks: usize,
    found: usize,
    alarms: usize,
    named_alarms: usize,
    /// Found, and alarms, before the gate.
    proposed: usize,
    proposed_alarms: usize,
    /// Proposals at a mark that the gate rejected.
    rejected: Option<usize>,
    /// Found and named anything but `other`.
    answered: usize,
    right: usize,
    errors_ms: Vec<f64>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.minutes += other.minutes;
        self.marks += other.marks;
        self.found += other.found;
        self.alarms += other.alarms;
        self.named_alarms += other.named_alarms;
        self.proposed += other.proposed;
        self.proposed_alarms += other.proposed_alarms;
        if let Some(rejected) = other.rejected {
            *self.rejected.get_or_insert(0) += rejected;
        }
        self.answered += other.answered;
        self.right += other.right;
        self.errors_ms.extend(other.errors_ms);
    }

    fn figures(&mut self, tolerance_ms: f64, judged: bool) -> Segmentation {
        let ratio = |a: usize, b: usize| (b > 0).then(|| a as f64 / b as f64);
        let named_total = self.answered + self.named_alarms + self.marks;
        Segmentation {
            marks: self.marks,
            found: self.found,
            false_alarms: self.alarms,
            precision: ratio(self.found, self.found + self.alarms),
            recall: ratio(self.found, self.marks),
            f1: ratio(2 * self.found, self.found + self.alarms + self.marks),
            tolerance_ms,
            peak_error_ms_median: median(&mut self.errors_ms),
            minutes: self.minutes,
            false_alarms_per_min: (self.minutes > 0.0).then(|| self.alarms as f64 / self.minutes),
            found_and_named: judged.then_some(self.right),
            named_f1: if judged { ratio(2 * self.right, named_total) } else { None },
            named_false_alarms: judged.then_some(self.named_alarms),
            before_gate: Proposals {
                found: self.proposed,
                false_alarms: self.proposed_alarms,
                precision: ratio(self.proposed, self.proposed + self.proposed_alarms),
                recall: ratio(self.proposed, self.marks),
                f1: ratio(2 * self.proposed, self.proposed + self.proposed_alarms + self.marks),
                false_alarms_per_min: (self.minutes > 0.0).then(|| self.proposed_alarms as f64 / self.minutes),
            },
            rejected_swings: self.rejected,
        }
    }
}

/// The models that name the swings of each player.
enum Models<'a> {
    None,
    One(&'a Model),
    /// By player, and the marks that calibrated: player, stroke, peak.
    PerPlayer(BTreeMap<String, Model>, BTreeSet<(String, String, i64)>),
}

impl Models<'_> {
    fn for_player(&self, player: &str) -> Option<&Model> {
        match self {
            Self::None => None,
            Self::One(model) => Some(model),
            // Recordings without marks belong to nobody; any model that never saw them will do.
            Self::PerPlayer(models, _) => models.get(player).or_else(|| models.values().next()),
        }
    }

    fn is_spent(&self, mark: &Mark) -> bool {
        match self {
            Self::PerPlayer(_, spent) => spent.contains(&(mark.player.clone(), mark.stroke.clone(), ns(mark.peak_ms))),
            _ => false,
        }
    }
}

fn models<'a>(
    recordings: &[LabelledTrack<'_>],
    params: &Params,
    judge: Judge<'a>,
    options: &EvaluateOptions,
    notes: &mut Vec<String>,
) -> Result<Models<'a>, TrainError> {
    let train_options = match judge {
        Judge::Nobody => return Ok(Models::None),
        Judge::Model(model) if options.calibrate == 0 => return Ok(Models::One(model)),
        Judge::Model(model) => return Ok(adapted(recordings, params, model, options, notes)),
        Judge::LeaveOnePlayerOut(options) => options,
    };
    let players: BTreeSet<&str> = recordings
        .iter()
        .flat_map(|r| r.marks)
        .filter(|m| m.quality != MarkQuality::Ignored)
        .map(|m| m.player.as_str())
        .collect();
    if players.len() < 2 {
        notes.push(format!("no player can be left out: the marks are of {} player(s)", players.len()));
        return Ok(Models::None);
    }
    // A recording of one player only ever trains the others; recordings without marks train nobody.
    let marked: Vec<&LabelledTrack<'_>> = recordings.iter().filter(|r| !r.marks.is_empty()).collect();
    let cut: Vec<Vec<Example>> = marked.par_iter().map(|recording| examples(recording, params)).collect();
    let all: Vec<&Example> = cut.iter().flatten().collect();
    let mut per_player = BTreeMap::new();
    let mut spent = BTreeSet::new();
    for &player in &players {
        let mut training: Vec<Example> =
            all.iter().filter(|example| example.player != player).map(|example| (*example).clone()).collect();
        if options.calibrate > 0 {
            for recording in &marked {
                let own: Vec<Mark> = calibrating(recording.marks, player, options.calibrate, &mut spent);
                if own.is_empty() {
                    continue;
                }
                let own = LabelledTrack { marks: &own, ..(*recording).clone() };
                let examples = marked_examples(&own, params).into_iter();
                training
                    .extend(examples.map(|example| Example { weight: EvaluateOptions::CALIBRATION_WEIGHT, ..example }));
            }
        }
        match train(&training, train_options) {
            Ok(model) => {
                per_player.insert(player.to_owned(), model);
            }
            Err(TrainError::TooFewClasses { .. }) => {
                notes.push(format!("{player} is not judged: the others show fewer than two classes"));
            }
            Err(other) => return Err(other),
        }
    }
    Ok(Models::PerPlayer(per_player, spent))
}

/// The model, adapted to each player by the first swings of each class.
fn adapted<'a>(
    recordings: &[LabelledTrack<'_>],
    params: &Params,
    model: &'a Model,
    options: &EvaluateOptions,
    notes: &mut Vec<String>,
) -> Models<'a> {
    let players: BTreeSet<&str> = recordings.iter().flat_map(|r| r.marks).map(|m| m.player.as_str()).collect();
    let (mut per_player, mut spent) = (BTreeMap::new(), BTreeSet::new());
    for player in players {
        let mut own: Vec<Example> = Vec::new();
        for recording in recordings {
            let marks = calibrating(recording.marks, player, options.calibrate, &mut spent);
            if !marks.is_empty() {
                own.extend(marked_examples(&LabelledTrack { marks: &marks, ..recording.clone() }, params));
            }
        }
        let adapted = match adapt(model, &own, EvaluateOptions::CALIBRATION_WEIGHT, model.name()) {
            Ok(adapted) => adapted,
            Err(error) => {
                notes.push(format!("{player} is judged by the model as it is: {error}"));
                model.clone()
            }
        };
        per_player.insert(player.to_owned(), adapted);
    }
    Models::PerPlayer(per_player, spent)
}

/// The first `count` marks of each class of a player that are not spent yet; spends them.
fn calibrating(marks: &[Mark], player: &str, count: usize, spent: &mut BTreeSet<(String, String, i64)>) -> Vec<Mark> {
    let mut out = Vec::new();
    for mark in marks.iter().filter(|m| m.player == player && m.quality != MarkQuality::Ignored) {
        let used = spent.iter().filter(|(p, stroke, _)| p == player && *stroke == mark.stroke).count();
        if used < count && spent.insert((player.to_owned(), mark.stroke.clone(), ns(mark.peak_ms))) {
            out.push(mark.clone());
        }
    }
    out
}

fn classification(named: &[Named]) -> Classification {
    let classes: Vec<String> =
        named.iter().flat_map(|n| [n.truth.clone(), n.best.clone()]).collect::<BTreeSet<_>>().into_iter().collect();
    let index = |name: &String| classes.binary_search(name).unwrap_or(0);
    let confusion_of = |rows: &mut dyn Iterator<Item = &Named>| {
        let mut confusion = vec![vec![0_usize; classes.len()]; classes.len()];
        for n in rows {
            confusion[index(&n.truth)][index(&n.best)] += 1;
        }
        confusion
    };
    let confusion = confusion_of(&mut named.iter());
    let (accuracy, macro_f1) = accuracy_and_macro_f1(&confusion);
    let sure = named.iter().filter(|n| n.sure).count();
    let right = named.iter().filter(|n| n.sure && n.best == n.truth).count();
    let mut players = BTreeMap::new();
    for player in named.iter().map(|n| n.player.as_str()).collect::<BTreeSet<_>>() {
        let confusion = confusion_of(&mut named.iter().filter(|n| n.player == player));
        let (accuracy, macro_f1) = accuracy_and_macro_f1(&confusion);
        let examples = confusion.iter().flatten().sum();
        players.insert(player.to_owned(), PlayerFigures { examples, accuracy, macro_f1 });
    }
    let mut levels = BTreeMap::new();
    for level in LEVELS {
        let told: Vec<(bool, f64, bool)> = named
            .iter()
            .flat_map(|n| &n.levels)
            .filter(|of| of.0 == level)
            .map(|&(_, right, probability, sure)| (right, probability, sure))
            .collect();
        if told.is_empty() {
            continue;
        }
        let count = |wanted: &dyn Fn(&(bool, f64, bool)) -> bool| told.iter().filter(|one| wanted(one)).count();
        let (sure, right) = (count(&|one| one.2), count(&|one| one.2 && one.0));
        let figures = LevelFigures {
            examples: told.len(),
            accuracy: count(&|one| one.0) as f64 / told.len() as f64,
            coverage: sure as f64 / told.len() as f64,
            accuracy_when_sure: (sure > 0).then(|| right as f64 / sure as f64),
            calibration_error: calibration_error(told.iter().map(|one| (one.0, one.1))),
        };
        levels.insert(level.to_owned(), figures);
    }
    let diagram = reliability(named.iter().map(|n| (n.best == n.truth, n.confidence)));
    Classification {
        by_class: by_class(&classes, &confusion),
        calibration_error: expected_error(&diagram),
        reliability: diagram,
        levels,
        examples: named.len(),
        accuracy,
        macro_f1,
        coverage: sure as f64 / named.len() as f64,
        accuracy_when_sure: (sure > 0).then(|| right as f64 / sure as f64),
        classes,
        confusion,
        players,
        alone: None,
    }
}

/// How the swings that were named together are named without each other.
fn alone(named: &[Named], models: &Models<'_>, params: &ClassifyParams) -> Option<Alone> {
    let said = |n: &Named| n.alone.as_ref().map(|values| (Some(argmax(values)) == n.class, values[argmax(values)]));
    let by_itself: Vec<(bool, f64)> =
        named.iter().map(|n| said(n).unwrap_or((n.best == n.truth, n.confidence))).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(DRAWN_ORDER);
    let mut right = named.iter().filter(|n| n.alone.is_none() && n.best == n.truth).count();
    for player in named.iter().map(|n| n.player.as_str()).collect::<BTreeSet<_>>() {
        let mut drawn: Vec<&Named> = named.iter().filter(|n| n.player == player && n.alone.is_some()).collect();
        drawn.shuffle(&mut rng);
        let values: Vec<Option<Vec<f64>>> = drawn.iter().map(|n| n.alone.clone()).collect();
        let together = models.for_player(player)?.together(&values, params).values;
        right += drawn.iter().zip(&together).filter(|(n, values)| values.as_deref().map(argmax) == n.class).count();
    }
    named.iter().any(|n| n.alone.is_some()).then(|| Alone {
        accuracy: by_itself.iter().filter(|said| said.0).count() as f64 / named.len() as f64,
        calibration_error: calibration_error(by_itself.iter().copied()),
        accuracy_in_drawn_order: right as f64 / named.len() as f64,
    })
}

fn by_class(classes: &[String], confusion: &[Vec<usize>]) -> BTreeMap<String, ClassFigures> {
    let ratio = |a: usize, b: usize| (b > 0).then(|| a as f64 / b as f64);
    let figures = |i: usize| {
        let truth: usize = confusion[i].iter().sum();
        let answered: usize = confusion.iter().map(|row| row[i]).sum();
        let right = confusion[i][i];
        ClassFigures {
            examples: truth,
            precision: ratio(right, answered),
            recall: ratio(right, truth),
            f1: ratio(2 * right, truth + answered),
        }
    };
    classes.iter().enumerate().map(|(i, class)| (class.clone(), figures(i))).collect()
}

/// The figures of several evaluations together: counts add up, shares are of the sums. Players of the same name in two
/// evaluations are told apart by the name given with each.
#[must_use]
pub fn merge(parts: &[(&str, &Evaluation)]) -> Evaluation {
    let segmentations: Vec<&Segmentation> = parts.iter().filter_map(|(_, e)| e.segmentation.as_ref()).collect();
    let segmentation = segmentations.first().map(|first| {
        let judged = segmentations.iter().any(|s| s.found_and_named.is_some());
        let sum = |of: &dyn Fn(&Segmentation) -> usize| segmentations.iter().map(|s| of(s)).sum::<usize>();
        let mut tally = Tally {
            minutes: segmentations.iter().map(|s| s.minutes).sum(),
            marks: sum(&|s| s.marks),
            found: sum(&|s| s.found),
            alarms: sum(&|s| s.false_alarms),
            proposed: sum(&|s| s.before_gate.found),
            proposed_alarms: sum(&|s| s.before_gate.false_alarms),
            rejected: segmentations.iter().filter_map(|s| s.rejected_swings).reduce(|a, b| a + b),
            ..Tally::default()
        };
        let mut whole = tally.figures(first.tolerance_ms, false);
        // A median of medians, weighted by nothing: good enough beside the figures of each set.
        let mut medians: Vec<f64> = segmentations.iter().filter_map(|s| s.peak_error_ms_median).collect();
        whole.peak_error_ms_median = median(&mut medians);
        if judged {
            whole.found_and_named = Some(sum(&|s| s.found_and_named.unwrap_or(0)));
            whole.named_false_alarms = Some(sum(&|s| s.named_false_alarms.unwrap_or(0)));
        }
        whole
    });
    let idles: Vec<&Idle> = parts.iter().filter_map(|(_, e)| e.idle.as_ref()).collect();
    let idle = (!idles.is_empty()).then(|| {
        let minutes: f64 = idles.iter().map(|i| i.minutes).sum();
        let false_alarms = idles.iter().map(|i| i.false_alarms).sum();
        let before_gate = idles.iter().map(|i| i.before_gate).sum();
        Idle {
            minutes,
            before_gate,
            before_gate_per_min: (minutes > 0.0).then(|| before_gate as f64 / minutes),
            false_alarms,
            false_alarms_per_min: (minutes > 0.0).then(|| false_alarms as f64 / minutes),
            named_false_alarms: idles
                .iter()
                .any(|i| i.named_false_alarms.is_some())
                .then(|| idles.iter().filter_map(|i| i.named_false_alarms).sum()),
        }
    });
    Evaluation {
        segmentation,
        idle,
        classification: merge_classifications(parts),
        notes: parts.iter().flat_map(|(name, e)| e.notes.iter().map(move |note| format!("{name}: {note}"))).collect(),
    }
}

fn merge_classifications(parts: &[(&str, &Evaluation)]) -> Option<Classification> {
    let there: Vec<(&str, &Classification)> =
        parts.iter().filter_map(|(name, e)| Some((*name, e.classification.as_ref()?))).collect();
    let classes: Vec<String> =
        there.iter().flat_map(|(_, c)| c.classes.iter().cloned()).collect::<BTreeSet<_>>().into_iter().collect();
    let examples: usize = there.iter().map(|(_, c)| c.examples).sum();
    if examples == 0 {
        return None;
    }
    let mut confusion = vec![vec![0; classes.len()]; classes.len()];
    for (_, part) in &there {
        for (row, truth) in part.confusion.iter().zip(&part.classes) {
            for (count, best) in row.iter().zip(&part.classes) {
                let at = |name: &String| classes.binary_search(name).unwrap_or(0);
                confusion[at(truth)][at(best)] += count;
            }
        }
    }
    let (accuracy, macro_f1) = accuracy_and_macro_f1(&confusion);
    let sure: f64 = there.iter().map(|(_, c)| c.coverage * c.examples as f64).sum();
    let right: f64 =
        there.iter().filter_map(|(_, c)| Some(c.accuracy_when_sure? * c.coverage * c.examples as f64)).sum();
    let players = there
        .iter()
        .flat_map(|(name, c)| c.players.iter().map(move |(player, f)| (format!("{name}/{player}"), f.clone())))
        .collect();
    let diagrams: Vec<&[ReliabilityBin]> = there.iter().map(|(_, c)| c.reliability.as_slice()).collect();
    let diagram = merged(&diagrams);
    let mut levels = BTreeMap::new();
    for level in LEVELS {
        let parts: Vec<&LevelFigures> = there.iter().filter_map(|(_, c)| c.levels.get(level)).collect();
        let examples: usize = parts.iter().map(|part| part.examples).sum();
        if examples == 0 {
            continue;
        }
        let sum = |of: &dyn Fn(&LevelFigures) -> f64| parts.iter().map(|p| of(p) * p.examples as f64).sum::<f64>();
        let sure = sum(&|p| p.coverage);
        let right = sum(&|p| p.accuracy_when_sure.unwrap_or(0.0) * p.coverage);
        let figures = LevelFigures {
            examples,
            accuracy: sum(&|p| p.accuracy) / examples as f64,
            coverage: sure / examples as f64,
            accuracy_when_sure: (sure > 0.0).then(|| right / sure),
            // The mean error of the sets: an upper bound of that of all answers together.
            calibration_error: sum(&|p| p.calibration_error) / examples as f64,
        };
        levels.insert(level.to_owned(), figures);
    }
    // A part whose swings were named by themselves counts as it is; the mean error is an upper bound, as above.
    let alone = there.iter().any(|(_, c)| c.alone.is_some()).then(|| {
        let sum =
            |of: &dyn Fn(&Classification) -> f64| there.iter().map(|(_, c)| of(c) * c.examples as f64).sum::<f64>();
        Alone {
            accuracy: sum(&|c| c.alone.map_or(c.accuracy, |alone| alone.accuracy)) / examples as f64,
            calibration_error: sum(&|c| c.alone.map_or(c.calibration_error, |alone| alone.calibration_error))
                / examples as f64,
            accuracy_in_drawn_order: sum(&|c| c.alone.map_or(c.accuracy, |alone| alone.accuracy_in_drawn_order))
                / examples as f64,
        }
    });
    Some(Classification {
        alone,
        examples,
        accuracy,
        macro_f1,
        coverage: sure / examples as f64,
        accuracy_when_sure: (sure > 0.0).then(|| right / sure),
        by_class: by_class(&classes, &confusion),
        classes,
        confusion,
        players,
        calibration_error: expected_error(&diagram),
        reliability: diagram,
        levels,
    })
}
