//! How good swings and names are, against labelled recordings.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::calibrate::{median, span_s};
use crate::model::{Model, OTHER};
use crate::params::Params;
use crate::train::{
    Example, LabelledTrack, Mark, MarkQuality, Prepared, TrainError, TrainOptions, accuracy_and_macro_f1, argmax,
    examples, is_ignored, match_marks, ns, train,
};

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
    /// [`EvaluateOptions::CALIBRATION_WEIGHT`]; they are not judged. Only with [`Judge::LeaveOnePlayerOut`].
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

/// How swings were found.
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
}

/// What was found in recordings without any mark.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// Length, min.
    pub minutes: f64,
    /// Swings found.
    pub false_alarms: usize,
    /// Per minute.
    pub false_alarms_per_min: Option<f64>,
    /// Of these, named anything but `other`; absent without a judge.
    pub named_false_alarms: Option<usize>,
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
    sure: bool,
}

/// Judges swings, and names if somebody gives any, against the marks of `recordings`.
///
/// Matching is one to one, nearest first. Swings near or inside a mark that is ambiguous are neither right nor wrong.
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
    let tolerance_ns = ns(options.tolerance_ms);
    let mut found = Tally::default();
    let mut idle = Idle::default();
    let mut named: Vec<Named> = Vec::new();
    for (recording, prepared) in recordings.iter().zip(&prepared) {
        let of = |quality: MarkQuality| -> Vec<&Mark> {
            recording.marks.iter().filter(|mark| mark.quality == quality).collect()
        };
        let (counted, whole, ignored) = (of(MarkQuality::Counted), of(MarkQuality::Window), of(MarkQuality::Ignored));
        let answer = |peak_ns: i64, player: &str| -> Option<(String, bool)> {
            let model = models.for_player(player)?;
            let signal = prepared.signal().filter(|signal| model.serves(signal))?;
            let answer = model.classify(signal, peak_ns, params.classify.confidence_min)?;
            let values: Vec<(&String, f64)> = answer.probabilities.iter().map(|(name, p)| (name, *p)).collect();
            let best = values[argmax(&values.iter().map(|v| v.1).collect::<Vec<_>>())].0.clone();
            let sure = answer.stroke == best;
            Some((best, sure))
        };
        for mark in whole {
            if models.is_spent(mark) {
                continue;
            }
            if let Some((best, sure)) = answer(ns(mark.peak_ms), &mark.player) {
                named.push(Named { player: mark.player.clone(), truth: mark.stroke.clone(), best, sure });
            }
        }
        if recording.marks.iter().any(|mark| mark.quality == MarkQuality::Window) {
            continue;
        }
        let minutes = prepared
            .signal()
            .map_or(0.0, |signal| span_s(signal.raw_t_ns[0], signal.raw_t_ns[signal.raw_t_ns.len() - 1]) / 60.0);
        let pairs = match_marks(&counted, &prepared.swings, tolerance_ns);
        let player = recording.marks.first().map_or(recording.name, |mark| mark.player.as_str());
        let alarms: Vec<bool> = prepared
            .swings
            .iter()
            .enumerate()
            .filter(|(s, swing)| !pairs.iter().any(|pair| pair.1 == *s) && !is_ignored(swing, &ignored, tolerance_ns))
            .map(|(_, swing)| answer(swing.peak_ns, player).is_some_and(|(best, sure)| sure && best != OTHER))
            .collect();
        if recording.marks.is_empty() {
            idle.minutes += minutes;
            idle.false_alarms += alarms.len();
            if judged {
                *idle.named_false_alarms.get_or_insert(0) += alarms.iter().filter(|named| **named).count();
            }
            continue;
        }
        found.minutes += minutes;
        found.marks += counted.len();
        found.found += pairs.len();
        found.alarms += alarms.len();
        found.named_alarms += alarms.iter().filter(|named| **named).count();
        for (m, mark) in counted.iter().enumerate() {
            let swing = pairs.iter().find(|pair| pair.0 == m).map(|pair| &prepared.swings[pair.1]);
            if let Some(swing) = swing {
                found.errors_ms.push((swing.impact_ns - ns(mark.peak_ms)).abs() as f64 / 1e6);
            }
            if models.is_spent(mark) {
                continue;
            }
            let peak_ns = swing.map_or_else(|| ns(mark.peak_ms), |swing| swing.peak_ns);
            if let Some((best, sure)) = answer(peak_ns, &mark.player) {
                if swing.is_some() && sure {
                    found.answered += usize::from(best != OTHER);
                    found.right += usize::from(best == mark.stroke);
                }
                named.push(Named { player: mark.player.clone(), truth: mark.stroke.clone(), best, sure });
            }
        }
    }
    if judged && named.is_empty() {
        notes.push("no swing could be named: the model serves no sensor of these recordings at their rate".to_owned());
    }
    Ok(Evaluation {
        segmentation: (found.marks > 0).then(|| found.figures(options.tolerance_ms, judged)),
        idle: (idle.minutes > 0.0).then(|| {
            idle.false_alarms_per_min = Some(idle.false_alarms as f64 / idle.minutes);
            idle
        }),
        classification: (!named.is_empty()).then(|| classification(&named)),
        notes,
    })
}

/// Counts of swings found.
#[derive(Default)]
struct Tally {
    minutes: f64,
    marks: usize,
    found: usize,
    alarms: usize,
    named_alarms: usize,
    /// Found and named anything but `other`.
    answered: usize,
    right: usize,
    errors_ms: Vec<f64>,
}

impl Tally {
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
        Judge::Model(model) => return Ok(Models::One(model)),
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
                let part = LabelledTrack { marks: &own, ..(*recording).clone() };
                let examples = examples(&part, params).into_iter().filter(|e| own.iter().any(|m| m.stroke == e.stroke));
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
    Classification {
        examples: named.len(),
        accuracy,
        macro_f1,
        coverage: sure as f64 / named.len() as f64,
        accuracy_when_sure: (sure > 0).then(|| right as f64 / sure as f64),
        classes,
        confusion,
        players,
    }
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
        Idle {
            minutes,
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
    Some(Classification {
        examples,
        accuracy,
        macro_f1,
        coverage: sure / examples as f64,
        accuracy_when_sure: (sure > 0.0).then(|| right / sure),
        classes,
        confusion,
        players,
    })
}
