//! Strokes of a drill are named together.
//!
//! A model looks at one swing. Who trains plays the same stroke thirty times in a row, and then what the swings have in
//! common says more than each of them. So the probabilities that a model gives to each swing of a recording are read as
//! evidence of a hidden Markov model: at every swing the player is either in open play, where a swing says nothing about
//! the next, or in the drill of some stroke. The forward-backward algorithm (Rabiner 1989) says how sure it is of each,
//! and a swing's own answer and its drill's are mixed by that. Nobody has to say what was drilled, or that anything was:
//! in open play no drill explains the swings, and their names stay.
//!
//! What a drill cannot change is whether a swing is a stroke at all (the class `other` keeps its probability), and a name
//! that the swing's own answer excludes. What other constants would do
//! stands in `docs/evaluation.md`.

use std::ops::RangeInclusive;

/// Share of a drill's swings that are its stroke; the others are any of the rest.
const DRILLED: f64 = 0.9;
/// So many swings count as one: what makes a model take one swing of a player for another stroke (a habit, the mounting) is
/// there in the next swing too.
const ALIKE: f64 = 4.0;
/// A drill is believed so far at most, for the same reason: all of it may look like another stroke.
const BELIEVED: f64 = 0.7;
/// Chance that a drill ends after a swing, or open play does: fifty swings of each.
const CHANGES: f64 = 0.02;
/// Fewer swings are told as no drill.
const LEAST: usize = 5;
/// What follows a drill is open play so often, else another drill.
const INTO_PLAY: f64 = 0.5;

/// Hears what a model says of one swing after another, and says what it was, knowing those before.
///
/// In a belief the first value is that of open play, the others those of the drill of each stroke, in the order of the
/// model's classes; they sum to 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drills {
    /// Which class is no stroke.
    other: Option<usize>,
    /// Before any swing empty.
    belief: Vec<f64>,
}

impl Drills {
    /// For a model with these classes, of which `other` is no stroke.
    pub(crate) fn new(other: Option<usize>) -> Self {
        Self { other, belief: Vec::new() }
    }

    /// The swing's probabilities by themselves become those that it has among the swings so far.
    pub(crate) fn hear(&mut self, alone: &[f64]) -> Vec<f64> {
        let Some(swing) = Swing::of(alone, self.other) else { return alone.to_vec() };
        self.belief = forward(&self.belief, &swing.evidence());
        swing.among(alone, &self.belief)
    }
}

/// What the swings of a recording are, each knowing the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Together {
    /// Probabilities of each swing.
    pub(crate) values: Vec<Option<Vec<f64>>>,
    /// The drills, in order: the class, and from which swing to which.
    pub(crate) drills: Vec<(usize, RangeInclusive<usize>)>,
}

/// The same for all swings of a recording, in the order of their times, each knowing those before and after. A swing that
/// the model says nothing of stays so, and says nothing of others.
pub(crate) fn together(alone: &[Option<Vec<f64>>], other: Option<usize>) -> Together {
    let mut out = alone.to_vec();
    let mut drilled: Vec<(usize, Option<usize>)> = Vec::new();
    let swings: Vec<(usize, Swing)> =
        alone.iter().enumerate().filter_map(|(at, alone)| Some((at, Swing::of(alone.as_ref()?, other)?))).collect();
    let evidence: Vec<Vec<f64>> = swings.iter().map(|(_, swing)| swing.evidence()).collect();
    let mut beliefs: Vec<Vec<f64>> = Vec::with_capacity(swings.len());
    for evidence in &evidence {
        beliefs.push(forward(beliefs.last().map_or(&[], Vec::as_slice), evidence));
    }
    // What the swings after one say about its state, as a factor.
    let mut after: Vec<f64> = Vec::new();
    for ((at, swing), (belief, evidence)) in swings.iter().zip(beliefs.iter().zip(&evidence)).rev() {
        let both = if after.is_empty() { belief.clone() } else { normalised(product(belief, &after)) };
        if let Some(alone) = &alone[*at] {
            out[*at] = Some(swing.among(alone, &both));
        }
        let likelier = (1..both.len()).find(|&state| both[state] > 0.5);
        drilled.push((*at, likelier.map(|state| swing.strokes[state - 1])));
        let here = if after.is_empty() { evidence.clone() } else { product(evidence, &after) };
        after = normalised(before(&here));
    }
    drilled.reverse();
    let drills = drilled.chunk_by(|a, b| a.1 == b.1).filter(|run| run.len() >= LEAST).filter_map(|run| {
        let ((first, class), (last, _)) = (run.first()?, run.last()?);
        Some(((*class)?, *first..=*last))
    });
    Together { values: out, drills: drills.collect() }
}

/// One swing that is a stroke with some probability.
struct Swing {
    /// Place of each stroke among the classes.
    strokes: Vec<usize>,
    /// That it is a stroke.
    share: f64,
    /// Of each stroke, given that it is one.
    values: Vec<f64>,
}

impl Swing {
    /// `None` where nothing can be shared out: fewer than two strokes, or surely none.
    fn of(alone: &[f64], other: Option<usize>) -> Option<Self> {
        let strokes: Vec<usize> = (0..alone.len()).filter(|&class| Some(class) != other).collect();
        let share: f64 = strokes.iter().map(|&class| alone[class]).sum();
        if strokes.len() < 2 || share.is_nan() || share < 1e-9 {
            return None;
        }
        let values = strokes.iter().map(|&class| alone[class] / share).collect();
        Some(Self { strokes, share, values })
    }

    /// Probability of each stroke in a drill of stroke `drilled`, before it is known what the swing looks like.
    fn of_drill(&self, drilled: usize, stroke: usize) -> f64 {
        if stroke == drilled { DRILLED } else { (1.0 - DRILLED) / (self.values.len() - 1) as f64 }
    }

    /// How much likelier the swing is in each state than in open play.
    fn evidence(&self) -> Vec<f64> {
        let likelier = |drilled: usize| {
            let mean: f64 =
                self.values.iter().enumerate().map(|(stroke, value)| self.of_drill(drilled, stroke) * value).sum();
            // A model that was trained on as many swings of each class says 1 / n of what looks like all of them.
            (mean * self.values.len() as f64).powf(self.share / ALIKE)
        };
        std::iter::once(1.0).chain((0..self.values.len()).map(likelier)).collect()
    }

    /// The swing's probabilities where the states have these beliefs.
    fn among(&self, alone: &[f64], belief: &[f64]) -> Vec<f64> {
        let mut mixed: Vec<f64> = vec![0.0; self.values.len()];
        let mut own = 1.0;
        for (drilled, belief) in belief.iter().skip(1).enumerate() {
            let weight = BELIEVED * belief;
            own -= weight;
            let in_drill: Vec<f64> =
                self.values.iter().enumerate().map(|(stroke, value)| self.of_drill(drilled, stroke) * value).collect();
            for (mixed, value) in mixed.iter_mut().zip(normalised(in_drill)) {
                *mixed += weight * value;
            }
        }
        let mut out = alone.to_vec();
        for ((&class, mixed), value) in self.strokes.iter().zip(mixed).zip(&self.values) {
            out[class] = self.share * (mixed + own * value);
        }
        out
    }
}

/// The belief after a swing.
fn forward(belief: &[f64], evidence: &[f64]) -> Vec<f64> {
    let drills = (evidence.len() - 1) as f64;
    let expected = if belief.is_empty() {
        std::iter::once(0.5).chain((1..evidence.len()).map(|_| 0.5 / drills)).collect()
    } else {
        let (play, in_drill) = (belief[0], belief[1..].iter().sum::<f64>());
        let begun = play * CHANGES / drills;
        let to_drill =
            |&of: &f64| of * (1.0 - CHANGES) + begun + (in_drill - of) * CHANGES * (1.0 - INTO_PLAY) / (drills - 1.0);
        let to_play = play * (1.0 - CHANGES) + in_drill * CHANGES * INTO_PLAY;
        std::iter::once(to_play).chain(belief[1..].iter().map(to_drill)).collect::<Vec<_>>()
    };
    normalised(product(&expected, evidence))
}

/// What the swing after this one, and all behind it, say about the state at this one.
fn before(after: &[f64]) -> Vec<f64> {
    let drills = (after.len() - 1) as f64;
    let (play, in_drill) = (after[0], after[1..].iter().sum::<f64>());
    let from_drill = |&to: &f64| {
        to * (1.0 - CHANGES)
            + play * CHANGES * INTO_PLAY
            + (in_drill - to) * CHANGES * (1.0 - INTO_PLAY) / (drills - 1.0)
    };
    let from_play = play * (1.0 - CHANGES) + in_drill * CHANGES / drills;
    std::iter::once(from_play).chain(after[1..].iter().map(from_drill)).collect()
}

fn product(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a * b).collect()
}

fn normalised(mut values: Vec<f64>) -> Vec<f64> {
    let sum: f64 = values.iter().sum();
    for value in &mut values {
        *value /= sum;
    }
    values
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use schemas::StrokeKind;

    use super::*;
    use crate::params::ClassifyParams;
    use crate::synth::{Plan, Rallies, SynthSession, SynthSpec, generate};
    use crate::train::argmax;
    use crate::{Analysis, Model, Params, analyze};

    /// What a model that is right in two of three cases says of these strokes: its answers are as sure as they are right.
    fn said(strokes: &[usize], classes: usize, seed: u64) -> Vec<Option<Vec<f64>>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let of = |&stroke: &usize| {
            let best = if rng.random_bool(0.65) { stroke } else { rng.random_range(0..classes) };
            let rest = 0.3 / (classes - 1) as f64;
            Some((0..classes).map(|class| if class == best { 0.7 } else { rest }).collect())
        };
        strokes.iter().map(of).collect()
    }

    fn right(values: &[Option<Vec<f64>>], strokes: &[usize]) -> f64 {
        let hits = values.iter().zip(strokes).filter(|(values, stroke)| argmax(values.as_ref().unwrap()) == **stroke);
        hits.count() as f64 / strokes.len() as f64
    }

    #[test]
    fn a_drill_is_named_together_and_open_play_is_left_alone() {
        let drills: Vec<usize> = [2, 4, 1].into_iter().flat_map(|stroke| vec![stroke; 40]).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let play: Vec<usize> = (0..120).map(|_| rng.random_range(0..6)).collect();
        for seed in 0..20 {
            let alone = said(&drills, 6, seed);
            let found = together(&alone, None).drills;
            let classes: Vec<usize> = found.iter().map(|(class, _)| *class).collect();
            assert_eq!(classes, [2, 4, 1], "{found:?}");
            let ends = found.iter().zip([39, 79, 119]);
            assert!(ends.into_iter().all(|((_, run), end)| run.end().abs_diff(end) < 12), "{found:?}");
            let (before, after) = (right(&alone, &drills), right(&together(&alone, None).values, &drills));
            assert!(after > before + 0.12, "{before} {after}");
            // One session: first the drills, then a game. The game loses nothing to speak of.
            let strokes: Vec<usize> = drills.iter().chain(&play).copied().collect();
            let alone = said(&strokes, 6, 100 + seed);
            let after = together(&alone, None).values;
            let (before, after) = (right(&alone[120..], &play), right(&after[120..], &play));
            assert!(after > before - 0.06, "{before} {after}");
        }
    }

    #[test]
    fn a_swing_of_another_stroke_keeps_its_name_in_a_drill_and_what_is_no_stroke_stays_none() {
        let mut alone = vec![Some(vec![0.05, 0.8, 0.1, 0.05]); 30];
        alone[14] = Some(vec![0.02, 0.02, 0.94, 0.02]);
        alone[15] = Some(vec![0.97, 0.01, 0.01, 0.01]);
        alone[16] = None;
        let Together { values: after, drills } = together(&alone, Some(0));
        assert_eq!(drills, [(1, 0..=29)]);
        assert_eq!(argmax(after[14].as_ref().unwrap()), 2);
        assert!((after[15].as_ref().unwrap()[0] - 0.97).abs() < 1e-12);
        assert_eq!(after[16], None);
        assert!(after[13].as_ref().unwrap()[1] > 0.85);
        // What says nothing of any stroke is no evidence either, whatever is divided by it.
        let nothing = [Some(vec![1.0, 0.0, 0.0, 0.0]), Some(vec![f64::NAN; 4]), Some(vec![0.5, 0.5])];
        assert_eq!(together(&nothing[..1], Some(0)).values, nothing[..1]);
        assert_eq!(together(&nothing[2..], Some(0)).values, nothing[2..]);
        assert!(together(&nothing[1..2], Some(0)).values[0].as_ref().unwrap()[0].is_nan());
        assert_eq!(together(&[], Some(0)), Together::default());
    }

    fn played(kinds: Vec<StrokeKind>, seed: u64) -> (SynthSession, Analysis) {
        let rallies = Rallies { kinds, ..Rallies::default() };
        let spec = SynthSpec { duration_s: 150.0, plan: Plan::Rallies(rallies), ..SynthSpec::new(seed) };
        let session = generate(&spec);
        let analysis = analyze(&session.track, Params::builtin(), Some(Model::builtin()));
        (session, analysis)
    }

    #[test]
    fn a_session_of_one_stroke_is_a_drill_and_one_of_all_is_none() {
        for seed in 0..3 {
            let (session, analysis) = played(vec![StrokeKind::Smash], seed);
            let [drill] = analysis.session.drills.as_slice() else { panic!("{:?}", analysis.session.drills) };
            assert_eq!(drill.stroke, "smash");
            let played = session.truth.strokes.len();
            assert!(drill.named * 10 >= played * 9 && drill.named <= drill.swings, "{drill:?} of {played}");
            assert!(drill.start_ms < drill.end_ms && drill.end_ms <= 1e3 * analysis.session.duration_s);
            let without = Params {
                classify: ClassifyParams { drills: false, ..Params::builtin().classify.clone() },
                ..Params::builtin().clone()
            };
            let alone = analyze(&session.track, &without, Some(Model::builtin()));
            assert_eq!(alone.session.drills, []);
            let all = StrokeKind::ALL.into_iter().filter(|&kind| kind != StrokeKind::Other);
            let (_, analysis) = self::played(all.collect(), seed);
            assert_eq!(analysis.session.drills, []);
        }
    }

    fn answers() -> impl Strategy<Value = Vec<Option<Vec<f64>>>> {
        let answer = prop::collection::vec(0.0..1.0_f64, 5).prop_map(|values| Some(normalised(values)));
        prop::collection::vec(answer, 1..60)
    }

    proptest! {
        #[test]
        fn probabilities_stay_probabilities_and_classes_have_no_order(alone in answers(), other in 0..5_usize) {
            let after = together(&alone, Some(other)).values;
            for (before, after) in alone.iter().zip(&after) {
                let (before, after) = (before.as_ref().unwrap(), after.as_ref().unwrap());
                prop_assert!((after.iter().sum::<f64>() - 1.0).abs() < 1e-9);
                prop_assert!(after.iter().all(|value| (0.0..=1.0 + 1e-9).contains(value)));
                prop_assert!((after[other] - before[other]).abs() < 1e-12);
            }
            let turned = |values: &Option<Vec<f64>>| values.clone().map(|mut values| { values.rotate_right(2); values });
            let other_way: Vec<_> = alone.iter().map(turned).collect();
            for (turned, expected) in together(&other_way, Some((other + 2) % 5)).values.iter().zip(after.iter().map(turned)) {
                for (turned, expected) in turned.as_ref().unwrap().iter().zip(expected.unwrap()) {
                    prop_assert!((turned - expected).abs() < 1e-9);
                }
            }
        }

        #[test]
        fn the_last_swing_heard_is_named_as_among_all(alone in answers()) {
            let mut drills = Drills::new(Some(1));
            let heard: Vec<Vec<f64>> = alone.iter().flatten().map(|alone| drills.hear(alone)).collect();
            let after = together(&alone, Some(1)).values;
            for (heard, after) in heard.last().unwrap().iter().zip(after.last().unwrap().as_ref().unwrap()) {
                prop_assert!((heard - after).abs() < 1e-9);
            }
        }
    }
}
