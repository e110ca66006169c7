//! A model learns one player from a handful of labelled swings.
//!
//! The model's file does not hold the swings it was trained on, so the heads are not refitted from nothing: they move
//! from where they are, as far as the new swings pull them and the trust in the old ones allows. That is multinomial
//! logistic regression with a Gaussian prior around the old weights, in the space spanned by the new swings, which is as
//! small as they are few. Kernels, normalisers, classes, gate and temperatures stay.

use std::collections::BTreeSet;

use ndarray::{Array2, Axis};
use rayon::prelude::*;

use crate::features::hand_features;
use crate::linear::{Linear, Normaliser, softmax};
use crate::model::{Head, Model, ModelError};
use crate::train::Example;

/// How hard the old weights hold against the pull of one swing, in units in which a swing's features have length 1.
/// Chosen with whole players left out of two sets (2026-11-26); a factor of three either way changes little.
const HOLD: f64 = 1.5;
/// The offset that a swing of `other` pulls with, beside 1 of a stroke. Movement that is no stroke is of many kinds: what is said of
/// some holds for what is like them, and hardly for all that moves. With 1, four such swings and nothing else cost a quarter
/// of a player's strokes; with 0, half of a kind of false alarm stays (2026-11-30, ADR 35).
const OTHER_OFFSET: f64 = 0.3;
/// Most swings that are learned from: beyond this, train anew.
pub const ADAPT_SWINGS_MAX: usize = 400;
const ROUNDS: usize = 300;

/// Why a model could not be adapted.
#[derive(Debug, thiserror::Error)]
pub enum AdaptError {
    /// No swing of a class that the model knows, on a sensor it knows, in its windows.
    #[error("find a labelled swing of a class and a sensor that model {model} knows")]
    NothingToLearn {
        /// Name of the model.
        model: String,
    },
    /// Too many swings.
    #[error("adapt to {swings} swings: the limit is {limit}; train a model on them instead")]
    TooMany {
        /// Swings given.
        swings: usize,
        /// [`ADAPT_SWINGS_MAX`].
        limit: usize,
    },
    /// The model cannot be put together.
    #[error("put the adapted model together")]
    Model {
        /// What the writer says.
        #[source]
        source: ModelError,
    },
}

/// `base`, adapted to the player of `swings`, each of which counts as much as `weight` (8 is a good one) times its own.
///
/// Swings of classes or sensors that the model does not know are passed over. The same arguments give the same model.
///
/// # Errors
/// Nothing to learn from, or too much.
pub fn adapt(base: &Model, swings: &[Example], weight: f64, name: &str) -> Result<Model, AdaptError> {
    let classes = &base.header().classes;
    let usable: Vec<(&Example, usize)> = swings
        .iter()
        .filter(|swing| swing.named && swing.specs == base.header().windows.as_slice())
        .filter_map(|swing| Some((swing, classes.binary_search(&swing.stroke).ok()?)))
        .filter(|(swing, _)| base.heads.iter().any(|head| head.role == swing.role))
        .collect();
    if usable.is_empty() {
        return Err(AdaptError::NothingToLearn { model: base.name().to_owned() });
    }
    if usable.len() > ADAPT_SWINGS_MAX {
        return Err(AdaptError::TooMany { swings: usable.len(), limit: ADAPT_SWINGS_MAX });
    }
    let other = base.other();
    let heads: Vec<Head> = base
        .heads
        .par_iter()
        .map(|head| {
            let own: Vec<(&Example, usize)> =
                usable.iter().copied().filter(|(swing, _)| swing.role == head.role).collect();
            if own.is_empty() {
                return head.clone();
            }
            let spec = &base.header().windows[head.window];
            let truth: Vec<usize> = own.iter().map(|(_, class)| *class).collect();
            let weights: Vec<f64> = own.iter().map(|(swing, _)| weight * swing.weight).collect();
            let rows = |norm: &Normaliser, of: &dyn Fn(&Example) -> Vec<f32>| -> Vec<Vec<f32>> {
                own.iter()
                    .map(|(swing, _)| {
                        let mut row = of(swing);
                        norm.apply(&mut row);
                        row
                    })
                    .collect()
            };
            let rockets = rows(&head.rocket_norm, &|swing| head.rocket.transform(&swing.windows[head.window]));
            let hands = rows(&head.hand_norm, &|swing| hand_features(&swing.windows[head.window], spec));
            Head {
                ridge: moved(&head.ridge, &rockets, &truth, other, &weights, head.temperature_ridge),
                lda: moved(&head.lda, &hands, &truth, other, &weights, head.temperature_lda),
                ..head.clone()
            }
        })
        .collect();
    let mut header = base.header().clone();
    name.clone_into(&mut header.name);
    header.training.adapted_from = Some(base.sha256().to_owned());
    header.training.examples += usable.len();
    header.training.players += usable.iter().map(|(swing, _)| swing.player.as_str()).collect::<BTreeSet<_>>().len();
    // What was measured on other players was measured on another model.
    header.leave_one_player_out = None;
    Model::new(header, heads, base.gates.clone()).map_err(|source| AdaptError::Model { source })
}

/// The head after the pull of these swings.
fn moved(
    base: &Linear,
    rows: &[Vec<f32>],
    truth: &[usize],
    other: Option<usize>,
    weights: &[f64],
    temperature: f64,
) -> Linear {
    let (n, width, classes) = (rows.len(), rows.first().map_or(0, Vec::len), base.offsets.len());
    if width == 0 {
        return base.clone();
    }
    // One more feature is the offset. Divided by the width: a normalised swing has length 1 or so.
    let offset: Vec<f64> = truth.iter().map(|&class| if Some(class) == other { OTHER_OFFSET } else { 1.0 }).collect();
    let kernel = Array2::from_shape_fn((n, n), |(i, j)| {
        let dot: f64 = rows[i].iter().zip(&rows[j]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        dot / width as f64 + offset[i] * offset[j]
    });
    let before: Vec<Vec<f64>> = rows.iter().map(|row| base.scores(row)).collect();
    // Pull of each swing on each class, in tempered scores.
    let mut pull = Array2::<f64>::zeros((n, classes));
    let longest = kernel.axis_iter(Axis(0)).map(|row| row.iter().map(|v| v.abs()).sum::<f64>()).fold(0.0, f64::max);
    let heaviest = weights.iter().copied().fold(0.0, f64::max);
    let step = 1.0 / (HOLD + 0.5 * heaviest * longest);
    for _ in 0..ROUNDS {
        let shift = kernel.dot(&pull);
        let mut next = pull.clone();
        for i in 0..n {
            let scores: Vec<f64> = (0..classes).map(|c| before[i][c] / temperature + shift[[i, c]]).collect();
            for (c, p) in softmax(&scores, 1.0).into_iter().enumerate() {
                let off = p - f64::from(u8::from(truth[i] == c));
                next[[i, c]] -= step * (weights[i] * off + HOLD * pull[[i, c]]);
            }
        }
        pull = next;
    }
    let mut head = base.clone();
    for c in 0..classes {
        for (j, weight) in head.weights.row_mut(c).iter_mut().enumerate() {
            let sum: f64 = (0..n).map(|i| pull[[i, c]] * f64::from(rows[i][j])).sum();
            *weight += (temperature * sum / width as f64) as f32;
        }
        let sum: f64 = (0..n).map(|i| pull[[i, c]] * offset[i]).sum();
        head.offsets[c] += (temperature * sum) as f32;
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OTHER;
    use crate::tests::small_training;
    use crate::{
        EvaluateOptions, Judge, LabelledTrack, Mark, Params, TrainOptions, analyze, evaluate, examples,
        generated_player, marked_examples, train,
    };

    #[test]
    fn a_handful_of_swings_moves_a_model_to_its_player() {
        let base = train(&small_training(0..3), &TrainOptions { features: 420, ..TrainOptions::default() }).unwrap();
        // Somebody who wears the sensor turned by a quarter about its first axis.
        let generated = generated_player(30, 4.0, 5);
        let mut track = generated.track.clone();
        for sensor in track.sensors.iter_mut().flatten() {
            for v in sensor.acc.iter_mut().chain(&mut sensor.gyro) {
                *v = [v[0], -v[2], v[1]];
            }
        }
        let recording =
            LabelledTrack { set: "new", name: "new", track: &track, marks: &generated.marks, acc_to_mps2: None };
        let accuracy = |calibrate: usize| {
            let options = EvaluateOptions { calibrate, ..EvaluateOptions::default() };
            let judged =
                evaluate(std::slice::from_ref(&recording), Params::builtin(), Judge::Model(&base), &options).unwrap();
            judged.classification.unwrap().accuracy
        };
        let (as_it_is, with_two) = (accuracy(0), accuracy(2));
        assert!(with_two > as_it_is + 0.1, "{as_it_is} {with_two}");
        let own = examples(&recording, Params::builtin());
        let adapted = adapt(&base, &own[..20], 8.0, "own").unwrap();
        assert_eq!(adapted.to_bytes().unwrap(), adapt(&base, &own[..20], 8.0, "own").unwrap().to_bytes().unwrap());
        assert_eq!(adapted.header().training.adapted_from.as_deref(), Some(base.sha256()));
        assert!(matches!(adapt(&base, &[], 8.0, "own"), Err(AdaptError::NothingToLearn { .. })));
    }

    #[test]
    fn what_somebody_says_is_no_stroke_is_told_from_strokes() {
        let base = train(&small_training(0..3), &TrainOptions { features: 420, ..TrainOptions::default() }).unwrap();
        // Somebody whose lifts are none: they throw shuttles to a partner. The first four are labelled.
        let player = generated_player(30, 6.0, 5);
        let (throws, strokes): (Vec<&Mark>, Vec<&Mark>) = player.marks.iter().partition(|mark| mark.stroke == "lift");
        let said: Vec<Mark> =
            throws[..4].iter().map(|&mark| Mark { stroke: OTHER.to_owned(), ..mark.clone() }).collect();
        let recording =
            LabelledTrack { set: "new", name: "own", track: &player.track, marks: &said, acc_to_mps2: None };
        let no_strokes = marked_examples(&recording, Params::builtin());
        assert!(!no_strokes.is_empty() && no_strokes.iter().all(|example| example.stroke == OTHER));
        let adapted = adapt(&base, &no_strokes, 8.0, "own").unwrap();
        let named = |model: &Model, marks: &[&Mark]| {
            let found = analyze(&player.track, Params::builtin(), Some(model)).strokes;
            let is_named = |mark: &&&Mark| {
                found.iter().any(|stroke| (stroke.impact_ms - mark.peak_ms).abs() < 100.0 && stroke.stroke != OTHER)
            };
            marks.iter().filter(is_named).count()
        };
        let (before, after) = (named(&base, &throws[4..]), named(&adapted, &throws[4..]));
        assert!(before > 3 && 2 * after < before, "{before} {after} of {}", throws.len() - 4);
        assert!(10 * named(&adapted, &strokes) > 9 * named(&base, &strokes));
    }
}
