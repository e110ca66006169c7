//! What the name of a stroke says about it: from which side it is played, how high, and whether it is a swing at all.
//!
//! Classes differ in how well a sensor can tell them: a clear from a smash hardly at 2.5 Hz, forehand from backhand
//! nearly always. A model therefore answers in levels (side, height, type), each with its own probability, and may be
//! sure of one and not of the next. The levels of its classes stand in its file; they come from the names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::OTHER;
use crate::train::likeliest;

/// The levels above the type, in the order of their use.
pub const LEVELS: [&str; 2] = ["side", "height"];

/// What is known of a class; what its name does not say is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassLevels {
    /// False for movement that is no swing of a racket: the gate learns to reject it.
    pub swing: bool,
    /// `forehand` or `backhand`.
    pub side: Option<String>,
    /// `overhead`, `level` or `underhand`.
    pub height: Option<String>,
}

impl ClassLevels {
    /// The value at one of [`LEVELS`].
    #[must_use]
    pub fn at(&self, level: &str) -> Option<&str> {
        match level {
            "side" => self.side.as_deref(),
            "height" => self.height.as_deref(),
            _ => None,
        }
    }
}

/// Words of a name that say that nothing was hit with a racket: other activities of everyday and of the gym.
const NO_SWING: [&str; 25] = [
    "noise", "idle", "rest", "standing", "sitting", "walking", "walk", "running", "run", "jogging", "knock", "wave",
    "clap", "draw", "swipe", "catch", "pickup", "curl", "cross", "boxing", "lunge", "squat", "stand", "sit", "jump",
];

/// The words of a name, in lower case.
fn words(class: &str) -> Vec<String> {
    class.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase).filter(|word| !word.is_empty()).collect()
}

/// False if the name says that no racket was swung.
pub(crate) fn is_swing(class: &str) -> bool {
    class != OTHER && !words(class).iter().any(|word| NO_SWING.contains(&word.as_str()))
}

/// The levels of all classes of a model. Where some names say `backhand`, an overhead stroke that does not is one of the
/// forehand.
#[must_use]
pub fn class_levels(classes: &[String]) -> Vec<ClassLevels> {
    let has = |words: &[String], any: &[&str]| any.iter().any(|one| words.iter().any(|word| word.starts_with(one)));
    let sides_named = classes.iter().any(|class| has(&words(class), &["backhand", "bh"]));
    classes
        .iter()
        .map(|class| {
            let swing = is_swing(class);
            let words = words(class);
            let exactly = |any: &[&str]| words.iter().any(|word| any.contains(&word.as_str()));
            if !swing {
                return ClassLevels::default();
            }
            let height = if has(&words, &["underhand", "underarm", "lift", "lob", "net", "dig"])
                || (exactly(&["short", "long"]) && has(&words, &["serve"]))
            {
                Some("underhand")
            } else if has(&words, &["overhead", "overarm", "clear", "smash", "drop", "serve", "kill"]) {
                Some("overhead")
            } else if exactly(&["drive", "block", "forehand", "backhand", "boast", "forehandboast", "backhandboast"]) {
                Some("level")
            } else {
                None
            };
            let side = if has(&words, &["backhand", "bh"]) {
                Some("backhand")
            } else if has(&words, &["forehand", "fh"]) || (sides_named && height == Some("overhead")) {
                Some("forehand")
            } else {
                None
            };
            ClassLevels { swing, side: side.map(str::to_owned), height: height.map(str::to_owned) }
        })
        .collect()
}

/// The probability of each value of a level, given that of each class.
pub(crate) fn level_probabilities(levels: &[ClassLevels], level: &str, values: &[f64]) -> BTreeMap<String, f64> {
    let mut probabilities: BTreeMap<String, f64> = BTreeMap::new();
    for (class, value) in levels.iter().zip(values) {
        if let Some(name) = class.at(level) {
            *probabilities.entry(name.to_owned()).or_default() += value;
        }
    }
    probabilities
}

/// The contrast of a level's probabilities set by `temperature` if there is one, as that of the classes is: what they lack to 1
/// counts as one value more.
pub(crate) fn tempered(probabilities: BTreeMap<String, f64>, temperature: Option<f64>) -> BTreeMap<String, f64> {
    let Some(temperature) = temperature else { return probabilities };
    let power = |p: f64| p.max(0.0).powf(temperature.recip());
    let rest = power(1.0 - probabilities.values().sum::<f64>());
    let whole = probabilities.values().map(|&p| power(p)).sum::<f64>() + rest;
    probabilities.into_iter().map(|(name, p)| (name, power(p) / whole.max(f64::MIN_POSITIVE))).collect()
}

/// Fewer held-out answers say too little of how sure a level may be.
const LEVEL_EXAMPLES_MIN: usize = 100;

/// The temperature under which a level's held-out probabilities are likeliest, of swings whose class says one; `None` if the level
/// has not two values or there are few such swings.
pub(crate) fn level_temperature(levels: &[ClassLevels], level: &str, held: &[(usize, Vec<f64>)]) -> Option<f64> {
    let said: Vec<(&str, BTreeMap<String, f64>)> = held
        .iter()
        .filter_map(|(class, p)| Some((levels[*class].at(level)?, level_probabilities(levels, level, p))))
        .filter(|(_, values)| values.len() > 1)
        .collect();
    let cost = |temperature: f64| -> f64 {
        said.iter().map(|(truth, values)| -tempered(values.clone(), Some(temperature))[*truth].max(1e-12).ln()).sum()
    };
    likeliest(0.3, 3.0, 40, cost).filter(|_| said.len() >= LEVEL_EXAMPLES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(classes: &[&str]) -> Vec<(bool, Option<String>, Option<String>)> {
        let classes: Vec<String> = classes.iter().map(|&class| class.to_owned()).collect();
        class_levels(&classes).into_iter().map(|levels| (levels.swing, levels.side, levels.height)).collect()
    }

    #[test]
    fn names_say_side_and_height() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            of(&["backhand_overhead", "clear", "forehand_underhand", "smash"]),
            [
                (true, some("backhand"), some("overhead")),
                (true, some("forehand"), some("overhead")),
                (true, some("forehand"), some("underhand")),
                (true, some("forehand"), some("overhead")),
            ]
        );
        // Nobody says that these clears are of the forehand.
        assert_eq!(of(&["clear", "drive"]), [(true, None, some("overhead")), (true, None, some("level"))]);
        assert_eq!(of(&["short_serve", "tennis_serve"])[0].2, some("underhand"));
        assert_eq!(of(&["short_serve", "tennis_serve"])[1].2, some("overhead"));
        assert_eq!(of(&["Badminton_Smash"]), [(true, None, some("overhead"))]);
    }

    #[test]
    fn a_temperature_sets_the_contrast_and_keeps_the_order() {
        let of =
            |pairs: &[(&str, f64)]| pairs.iter().map(|&(name, p)| (name.to_owned(), p)).collect::<BTreeMap<_, _>>();
        let soft = of(&[("backhand", 0.7), ("forehand", 0.2)]);
        assert_eq!(tempered(soft.clone(), None), soft);
        let sharp = tempered(soft.clone(), Some(0.5));
        // 0.49, 0.04 and 0.01 of 0.54.
        assert!(
            (sharp["backhand"] - 0.49 / 0.54).abs() < 1e-9 && (sharp["forehand"] - 0.04 / 0.54).abs() < 1e-9,
            "{sharp:?}"
        );
        let blunt = tempered(soft, Some(2.0));
        assert!(blunt["backhand"] < 0.7 && blunt["backhand"] > blunt["forehand"], "{blunt:?}");
        assert!(blunt.values().sum::<f64>() <= 1.0);
    }

    #[test]
    fn a_level_that_was_right_more_often_than_it_said_is_made_surer() {
        let classes = ["backhand_drive", "drive", "forehand_drive"].map(str::to_owned);
        let levels = class_levels(&classes);
        // Said with 0.6 of 0.9, right 19 times of 20.
        let said = |right: bool| if right { vec![0.6, 0.1, 0.3] } else { vec![0.3, 0.1, 0.6] };
        let held: Vec<(usize, Vec<f64>)> = (0..200).map(|i| (0, said(i % 20 > 0))).collect();
        let temperature = level_temperature(&levels, "side", &held);
        let surer = tempered(level_probabilities(&levels, "side", &said(true)), temperature);
        assert!((surer["backhand"] - 0.93).abs() < 0.04, "{temperature:?}: {surer:?}");
        assert_eq!(level_temperature(&levels, "side", &held[..99]), None, "too few");
        assert_eq!(level_temperature(&levels, "height", &held), None, "all are level");
    }

    #[test]
    fn movement_without_a_racket_is_no_swing_and_unknown_names_are() {
        let found = of(&["draw_circle_cw", "knock", "other", "noise", "wave", "zorro", "tennis_forehand_swing"]);
        assert_eq!(found.iter().map(|one| one.0).collect::<Vec<_>>(), [false, false, false, false, false, true, true]);
        assert_eq!(found[5], (true, None, None));
    }
}
