//! Whether a sensor sits as in the recordings that a model learned from.
//!
//! Figures of the chain do not ask how a sensor is turned, names do: a model that has met sensors worn one way takes the swings of
//! one worn another way for other strokes, or for none. The wearer may be left-handed where all it met were right-handed, or
//! the sensor sits half a turn round, as a watch on the other way up. Both change nothing but signs of components, so it
//! can be asked whether the swings would look more like strokes with those signs changed. What is found is a suspicion:
//! it is told, and nothing is read otherwise for it.

use rayon::prelude::*;
use schemas::SensorRole;

use crate::features::{Mounting, View, WindowSpec};
use crate::model::Model;

/// Swings that would lie nearer to those of the training if the sensor sat otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Suspicion {
    pub(crate) mounting: Mounting,
    /// Mean of [`Model::strangeness`], as the sensor sits.
    pub(crate) as_it_is: f64,
    /// The same, as it would sit.
    pub(crate) otherwise: f64,
}

/// Swings that are looked at, spread over the recording.
const LOOKED_AT: usize = 30;
/// Fewer say nothing.
pub(crate) const LEAST: usize = 20;
/// Swings no stranger than this are read as they are, without asking: strangers' swings are at 1.0 to 1.2 as they were taught.
const STRANGE: f64 = 1.05;
/// As they would be they must be known so well, and stranger as they are by this factor. Of eight persons of two sets who were left
/// out of the training, each read as they were and in the six other ways, this suspects nobody wrongly and finds 45 of 48
/// (2026-11-30, `volant evaluate --mountings`, docs/evaluation.md).
const KNOWN: f64 = 1.3;
const BY: f64 = 1.06;
/// The model must not be less sure of their names as they would be, but for this.
const LESS_SURE: f64 = 0.05;

/// Asks whether the swings in these views would lie nearer to those of the training if the sensor sat otherwise. `alone` is what the
/// model says of each.
pub(crate) fn suspicion(model: &Model, role: SensorRole, swings: &[(&[View], &[f64])]) -> Option<Suspicion> {
    if swings.len() < LEAST {
        return None;
    }
    let step = swings.len().div_ceil(LOOKED_AT);
    let looked_at: Vec<&(&[View], &[f64])> = swings.iter().step_by(step).collect();
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / looked_at.len() as f64;
    let as_it_is = mean(looked_at.iter().map(|(views, _)| model.strangeness(role, views)).collect());
    if as_it_is < STRANGE {
        return None;
    }
    let specs = &model.header().windows;
    let read = |mounting: Mounting| -> Vec<Vec<View>> {
        looked_at.par_iter().map(|(views, _)| worn(views, specs, mounting)).collect()
    };
    let others = Mounting::ALL.map(|mounting| {
        let strangeness = |views: &Vec<View>| model.strangeness(role, views);
        (mounting, mean(read(mounting).iter().map(strangeness).collect()))
    });
    let (mounting, otherwise) = others.into_iter().reduce(|best, next| if next.1 < best.1 { next } else { best })?;
    if otherwise > KNOWN || as_it_is < BY * otherwise {
        return None;
    }
    let likeliest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let sure = mean(looked_at.iter().map(|(_, alone)| likeliest(alone)).collect());
    let named = |views: &Vec<View>| model.probabilities(role, views).map_or(0.0, |values| likeliest(&values));
    let sure_otherwise = mean(read(mounting).par_iter().map(named).collect());
    (sure_otherwise >= sure - LESS_SURE).then_some(Suspicion { mounting, as_it_is, otherwise })
}

/// What a model would see of a swing through a sensor that sits otherwise.
pub(crate) fn worn(views: &[View], specs: &[WindowSpec], mounting: Mounting) -> Vec<View> {
    views.iter().zip(specs).map(|(view, spec)| View::of(view.window.clone().worn(mounting), spec)).collect()
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use schemas::Track;

    use super::*;
    use crate::{
        EvaluateOptions, IssueCode, Judge, LabelledTrack, Mark, MarkQuality, Params, TrainOptions, analyze, diagnose,
        evaluate, examples, train,
    };

    /// A wrist that makes forty swings of two kinds. A turn about x is followed by one about y and one about z, or about z and y,
    /// and each pushes along another axis, so that a mirror or a turn of the sensor makes something else of them.
    fn recording(seed: u64, mounting: Option<Mounting>) -> (Track, Vec<Mark>) {
        const RATE_HZ: f64 = 100.0;
        const APART_S: f64 = 2.5;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let size: Vec<f64> = (0..40).map(|_| rng.random_range(0.8..1.2)).collect();
        let mut track = Track::default();
        let wrist = track.get_or_insert(SensorRole::Wrist).unwrap();
        for i in 0..(41.0 * APART_S * RATE_HZ) as usize {
            let t_s = i as f64 / RATE_HZ;
            let mut noise = || 0.05 * rng.random_range(-1.0..1.0);
            let (mut acc, mut gyro) = ([noise(), noise(), 9.8 + noise()], [noise(), noise(), noise()]);
            for (swing, size) in size.iter().enumerate() {
                let since_s = t_s - (swing + 1) as f64 * APART_S;
                for (place, after_s) in [-0.12, 0.0, 0.12].into_iter().enumerate() {
                    let axis = if swing % 2 == 0 || place == 0 { place } else { 3 - place };
                    let pulse = size * (-((since_s - after_s) / 0.05_f64).powi(2)).exp();
                    gyro[axis] += [500.0, 800.0, 400.0][place] * pulse;
                    acc[(axis + 1) % 3] += [20.0, 30.0, 25.0][place] * pulse;
                }
            }
            let sign = |c: usize, mirrored: bool| match mounting {
                Some(Mounting::Mirrored(axis)) if (c == axis) == mirrored => -1.0,
                Some(Mounting::Turned(axis)) if c != axis => -1.0,
                _ => 1.0,
            };
            wrist.t_ns.push((t_s * 1e9) as i64);
            wrist.acc.push(std::array::from_fn(|c| (acc[c] * sign(c, true)) as f32));
            wrist.gyro.push(std::array::from_fn(|c| (gyro[c] * sign(c, false)) as f32));
            wrist.angle.push([f32::NAN; 3]);
        }
        let mark = |swing: usize| Mark {
            player: seed.to_string(),
            start_ms: None,
            peak_ms: 1e3 * APART_S * (swing + 1) as f64,
            end_ms: None,
            stroke: ["clear", "drive"][swing % 2].to_owned(),
            quality: MarkQuality::Counted,
        };
        (track, (0..40).map(mark).collect())
    }

    fn labelled((track, marks): &(Track, Vec<Mark>)) -> LabelledTrack<'_> {
        LabelledTrack { set: "helices", name: "one", track, marks, acc_to_mps2: None }
    }

    #[test]
    fn another_hand_and_half_a_turn_are_suspected_and_told_apart() {
        let taught: Vec<(Track, Vec<Mark>)> = (0..3).map(|seed| recording(seed, None)).collect();
        let swings: Vec<_> = taught.iter().flat_map(|one| examples(&labelled(one), Params::builtin())).collect();
        let model = train(&swings, &TrainOptions { features: 420, ..TrainOptions::default() }).unwrap();
        let said = |mounting: Option<Mounting>| -> Vec<(IssueCode, String)> {
            let (track, _) = recording(9, mounting);
            let analysis = analyze(&track, Params::builtin(), Some(&model));
            let of_mounting = |code| matches!(code, IssueCode::OtherHandSuspected | IssueCode::SensorTurnedSuspected);
            let issues: Vec<_> = analysis.issues.iter().filter(|issue| of_mounting(issue.code)).collect();
            let told = diagnose(&track, &analysis);
            assert!(issues.iter().all(|issue| told.iter().any(|finding| finding.text == issue.message)));
            issues.into_iter().map(|issue| (issue.code, issue.message.clone())).collect()
        };
        assert_eq!(said(None), []);
        for mounting in Mounting::ALL {
            let issues = said(Some(mounting));
            let expected = match mounting {
                Mounting::Mirrored(_) => IssueCode::OtherHandSuspected,
                Mounting::Turned(_) => IssueCode::SensorTurnedSuspected,
            };
            let [(code, message)] = issues.as_slice() else { panic!("{mounting:?}: {issues:?}") };
            assert!(
                *code == expected && message.contains(&format!("its axis {}", mounting.axis())),
                "{mounting:?}: {message}"
            );
        }
        let other = recording(9, None);
        let options = EvaluateOptions { mountings: true, ..EvaluateOptions::default() };
        let judged = evaluate(&[labelled(&other)], Params::builtin(), Judge::Model(&model), &options).unwrap();
        let figures = judged.classification.unwrap().players["9"].mounting.unwrap();
        assert_eq!((figures.suspected, figures.found), (false, 6));
    }
}
