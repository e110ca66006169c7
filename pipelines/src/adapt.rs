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
                ridge: moved(&head.ridge, &rockets, &truth, &weights, head.temperature_ridge),
                lda: moved(&head.lda, &hands, &truth, &weights, head.temperature_lda),
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
fn moved(base: &Linear, rows: &[Vec<f32>], truth: &[usize], weights: &[f64], temperature: f64) -> Linear {
    let (n, width, classes) = (rows.len(), rows.first().map_or(0, Vec::len), base.offsets.len());
    if width == 0 {
        return base.clone();
    }
    // One more feature of 1 is the offset. Divided by the width: a normalised swing has length 1 or so.
    let kernel = Array2::from_shape_fn((n, n), |(i, j)| {
        let dot: f64 = rows[i].iter().zip(&rows[j]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        dot / width as f64 + 1.0
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
        let sum: f64 = (0..n).map(|i| pull[[i, c]]).sum();
        head.offsets[c] += (temperature * sum) as f32;
    }
    head
}
