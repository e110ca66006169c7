//! A session against the player's own earlier strokes: percentiles, class by class.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::advice;
use crate::analysis::Analysis;
use crate::params::Params;
use crate::report::median_of;

/// Earlier strokes of a class that a percentile needs.
pub const HISTORY_STROKES_MIN: usize = 20;

/// Figures of strokes that are compared.
const COMPARED: [&str; 16] = [
    "peak_gyro_dps",
    "peak_accel_mps2",
    "racket_head_speed_mps",
    "wrist_speed_mps",
    "smoothness_sparc",
    "smoothness_ldlj",
    "acceleration_phase_ms",
    "order_tau",
    "delay_waist_shoulder_ms",
    "delay_shoulder_wrist_ms",
    "delay_wrist_racket_ms",
    "speedup_shoulder_wrist",
    "speedup_wrist_racket",
    "separation_waist_shoulder_deg",
    "energy_ratio",
    "template_correlation",
];

/// What a player did before: the figures of earlier strokes by class, sorted once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, BTreeMap<String, Vec<f64>>>")]
pub struct History(BTreeMap<String, BTreeMap<&'static str, Vec<f64>>>);

impl From<BTreeMap<String, BTreeMap<String, Vec<f64>>>> for History {
    /// Figures that are not compared are left out.
    fn from(classes: BTreeMap<String, BTreeMap<String, Vec<f64>>>) -> Self {
        let figures = |mut named: BTreeMap<String, Vec<f64>>| {
            COMPARED.into_iter().filter_map(|name| Some((name, named.remove(name)?))).collect()
        };
        Self(classes.into_iter().map(|(class, named)| (class, figures(named))).collect())
    }
}

impl History {
    /// From earlier strokes: class and figures of each. Only strokes that the same pipeline and model version measured may be
    /// compared; the caller chooses them.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use volant_pipelines::History;
    ///
    /// let earlier: Vec<BTreeMap<String, f64>> =
    ///     (0..40).map(|i| BTreeMap::from([("peak_gyro_dps".to_owned(), 1000.0 + f64::from(i))])).collect();
    /// let history = History::of(earlier.iter().map(|metrics| ("clear", metrics)));
    /// assert_eq!(history.percentile("clear", "peak_gyro_dps", 1019.5), Some(50.0));
    /// assert_eq!(history.percentile("smash", "peak_gyro_dps", 1019.5), None);
    /// ```
    #[must_use]
    pub fn of<'a, K>(strokes: impl IntoIterator<Item = (&'a str, &'a BTreeMap<K, f64>)>) -> Self
    where
        K: Borrow<str> + Ord + 'a,
    {
        let mut classes: BTreeMap<String, BTreeMap<&'static str, Vec<f64>>> = BTreeMap::new();
        for (class, metrics) in strokes {
            let figures = classes.entry(class.to_owned()).or_default();
            for name in COMPARED {
                if let Some(&value) = metrics.get(name).filter(|value| value.is_finite()) {
                    figures.entry(name).or_default().push(value);
                }
            }
        }
        Self::sorted(classes)
    }

    /// Several histories as one.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use volant_pipelines::History;
    ///
    /// let strokes: Vec<BTreeMap<String, f64>> =
    ///     (0..40).map(|i| BTreeMap::from([("peak_gyro_dps".to_owned(), 1000.0 + f64::from(i))])).collect();
    /// let of = |strokes: &[BTreeMap<String, f64>]| History::of(strokes.iter().map(|metrics| ("clear", metrics)));
    /// let (first, last) = strokes.split_at(15);
    /// assert_eq!(History::merged([of(last), of(first)]), of(&strokes));
    /// ```
    #[must_use]
    pub fn merged(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut classes: BTreeMap<String, BTreeMap<&'static str, Vec<f64>>> = BTreeMap::new();
        for Self(part) in parts {
            for (class, named) in part {
                let figures = classes.entry(class).or_default();
                for (name, values) in named {
                    figures.entry(name).or_default().extend(values);
                }
            }
        }
        Self::sorted(classes)
    }

    fn sorted(mut classes: BTreeMap<String, BTreeMap<&'static str, Vec<f64>>>) -> Self {
        for values in classes.values_mut().flat_map(BTreeMap::values_mut) {
            values.sort_by(f64::total_cmp);
        }
        Self(classes)
    }

    /// Share of the player's earlier strokes of `class` below `value`, those equal to it half, 0 to 100. `None` with fewer
    /// than [`HISTORY_STROKES_MIN`] that have the figure.
    #[must_use]
    pub fn percentile(&self, class: &str, figure: &str, value: f64) -> Option<f64> {
        let values = self.0.get(class)?.get(figure).filter(|values| values.len() >= HISTORY_STROKES_MIN)?;
        let below = values.partition_point(|v| *v < value);
        let upto = values.partition_point(|v| *v <= value);
        Some(100.0 * f64::midpoint(below as f64, upto as f64) / values.len() as f64)
    }
}

/// Adds to each stroke the percentile of its figures among the player's earlier strokes of the same class
/// (`<figure>_percentile`), to the session their medians (`<figure>_percentile_median`), and the advice that follows.
///
/// Comparing again replaces what an earlier comparison added.
pub fn compare(analysis: &mut Analysis, history: &History, params: &Params) {
    for stroke in &mut analysis.strokes {
        stroke.metrics.retain(|name, _| !name.ends_with("_percentile"));
        for name in COMPARED {
            let percentile =
                stroke.metrics.get(name).and_then(|&value| history.percentile(&stroke.stroke, name, value));
            if let Some(percentile) = percentile {
                stroke.metrics.insert(format!("{name}_percentile"), percentile);
            }
        }
    }
    analysis.session.metrics.retain(|name, _| !name.ends_with("_percentile_median"));
    for name in COMPARED {
        if let Some(middle) = median_of(&analysis.strokes, &format!("{name}_percentile")) {
            analysis.session.metrics.insert(format!("{name}_percentile_median"), middle);
        }
    }
    analysis.session.advice = advice::advise(&analysis.strokes, &analysis.session, params, advice::Rules::builtin());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::{SynthSpec, generate};
    use crate::{Model, analyze};

    #[test]
    fn a_session_among_its_own_strokes_is_in_the_middle_and_a_slower_one_below() {
        let track = generate(&SynthSpec { duration_s: 300.0, ..SynthSpec::new(91) }).track;
        let mut found = analyze(&track, Params::builtin(), Some(Model::builtin()));
        let earlier = found.clone();
        let history = History::of(
            (0..4).flat_map(|_| earlier.strokes.iter().map(|stroke| (stroke.stroke.as_str(), &stroke.metrics))),
        );
        compare(&mut found, &history, Params::builtin());
        let middle = found.session.metrics["peak_gyro_dps_percentile_median"];
        assert!((40.0..60.0).contains(&middle), "{middle}");
        let once = found.clone();
        compare(&mut found, &history, Params::builtin());
        assert_eq!(once, found);

        for stroke in &mut found.strokes {
            if let Some(peak) = stroke.metrics.get_mut("peak_gyro_dps") {
                *peak *= 0.5;
            }
        }
        compare(&mut found, &history, Params::builtin());
        assert!(found.session.metrics["peak_gyro_dps_percentile_median"] < 25.0);
        let advice = found.session.advice.iter().find(|advice| advice.code == "slower_than_usual").unwrap();
        assert_eq!(advice.evidence.compared_with, "history");
        assert!(!advice.evidence.strokes.is_empty());
        // A beginner has no history.
        compare(&mut found, &History::default(), Params::builtin());
        assert!(!found.session.metrics.contains_key("peak_gyro_dps_percentile_median"));
    }
}
