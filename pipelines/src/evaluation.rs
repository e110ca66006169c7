//! The figures of an evaluation, and those of several together.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::calibrate::median;
use crate::levels::LEVELS;
use crate::reliability::{ReliabilityBin, expected_error, merged};
use crate::train::accuracy_and_macro_f1;

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
    /// Absent unless asked for, and for a player of fewer than twenty swings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mounting: Option<MountingFigures>,
}

/// Whether it is noticed that a sensor sits otherwise than in the training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountingFigures {
    /// The recordings are suspected as they are.
    pub suspected: bool,
    /// Of six other ways (on the other hand, half a turn round; each about three axes) those that are found out when the same
    /// swings are read so.
    pub found: usize,
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
/// Counts of swings found.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) minutes: f64,
    pub(crate) marks: usize,
    pub(crate) found: usize,
    pub(crate) alarms: usize,
    pub(crate) named_alarms: usize,
    /// Found, and alarms, before the gate.
    pub(crate) proposed: usize,
    pub(crate) proposed_alarms: usize,
    /// Proposals at a mark that the gate rejected.
    pub(crate) rejected: Option<usize>,
    /// Found and named anything but `other`.
    pub(crate) answered: usize,
    pub(crate) right: usize,
    pub(crate) errors_ms: Vec<f64>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
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

    pub(crate) fn figures(&mut self, tolerance_ms: f64, judged: bool) -> Segmentation {
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
pub(crate) fn by_class(classes: &[String], confusion: &[Vec<usize>]) -> BTreeMap<String, ClassFigures> {
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
