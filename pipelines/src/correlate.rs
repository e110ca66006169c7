//! Likeness of curves: delays without peaks, and how well a player repeats a stroke.

use std::collections::BTreeMap;

use crate::calibrate::{GAP, Signal, norm};
use crate::kinetics::Motion;
use crate::linear::dot;

/// How far two segments are shifted against each other at most, s.
const LAG_S_MAX: f64 = 0.2;

/// The lag, s, at which the angular rate of `b` is most like that of `a` (positive: `b` follows), and the correlation
/// there, −1 to 1: argmax over τ of the Pearson correlation of |ω_a(t)| and |ω_b(t + τ)|, τ refined by a parabola.
///
/// `None` without a maximum inside ±0.2 s, or with holes or too little data under it. Survives saturation, which takes a
/// peak's top but not its flanks; where the two curves are not alike it says so by a low correlation.
pub(crate) fn lag(
    (a, motion_a): (&Signal, &Motion),
    (b, motion_b): (&Signal, &Motion),
    from_ns: i64,
    at_ns: i64,
    to_ns: i64,
) -> Option<(f64, f64)> {
    let (island, range) = a.window(from_ns, at_ns, to_ns)?;
    let other = b.island_at(at_ns)?;
    let step_ns = a.step_ns;
    if range.len() < 8 || step_ns != b.step_ns {
        return None;
    }
    let rate = |motion: &Motion, i: usize| {
        let v = &motion.smooth[i];
        (v[GAP] == 0.0).then(|| norm([v[3], v[4], v[5]]))
    };
    let inner: Vec<f64> = range.clone().map(|i| rate(motion_a, i)).collect::<Option<_>>()?;
    // Where b's grid lies against a's: a whole number of steps and a rest, which is part of the lag.
    let first_ns = a.time_ns(island, range.start);
    let steps = (first_ns - other.t0_ns).div_euclid(step_ns);
    let rest_s = -((first_ns - other.t0_ns).rem_euclid(step_ns)) as f64 / 1e9;
    let reach = (LAG_S_MAX / a.step_s()).round() as i64;
    // The outer curve once, over every shift; a point outside of the island or in a hole spoils the shifts that need it.
    let outer: Vec<Option<f64>> = (steps - reach..steps + reach + inner.len() as i64)
        .map(|k| {
            let index = usize::try_from(k).ok().filter(|k| *k < other.len)?;
            rate(motion_b, other.start + index)
        })
        .collect();
    let values = correlations(&inner, &outer);
    let best = (1..values.len() - 1)
        .filter(|&i| values[i - 1].is_some() && values[i].is_some() && values[i + 1].is_some())
        .max_by(|&i, &j| values[i].unwrap_or(-2.0).total_cmp(&values[j].unwrap_or(-2.0)))?;
    let [before, top, after] = [values[best - 1]?, values[best]?, values[best + 1]?];
    if before > top || after > top {
        return None;
    }
    let bend = before - 2.0 * top + after;
    let offset = if bend < 0.0 { (0.5 * (before - after) / bend).clamp(-0.5, 0.5) } else { 0.0 };
    Some(((best as f64 - reach as f64 + offset) * a.step_s() + rest_s, top))
}

/// Pearson's correlation of `inner` with each stretch of `outer` as long as it; `None` where a value is missing or one of the two
/// does not vary.
fn correlations(inner: &[f64], outer: &[Option<f64>]) -> Vec<Option<f64>> {
    // A variance below this share of the square is rounding.
    const VARIES: f64 = 1e-12;
    let n = inner.len() as f64;
    let mean = inner.iter().sum::<f64>() / n;
    let around: Vec<f64> = inner.iter().map(|value| value - mean).collect();
    let own = dot(&around, &around);
    // Sums of the values up to each place; of a stretch, the difference of two.
    let (mut missing, mut sum, mut square) = (0_usize, 0.0, 0.0);
    let mut sums = vec![(missing, sum, square)];
    for value in outer {
        let plain = value.unwrap_or(0.0);
        missing += usize::from(value.is_none());
        sum += plain;
        square += plain * plain;
        sums.push((missing, sum, square));
    }
    let plain: Vec<f64> = outer.iter().map(|value| value.unwrap_or(0.0)).collect();
    plain
        .windows(inner.len())
        .zip(sums.iter().zip(&sums[inner.len()..]))
        .map(|(stretch, (before, after))| {
            let (sum, square) = (after.1 - before.1, after.2 - before.2);
            let other = square - sum * sum / n;
            (after.0 == before.0 && own > 0.0 && other > VARIES * square)
                .then(|| dot(&around, stretch) / (own * other).sqrt())
        })
        .collect()
}

/// Pearson's correlation; `None` if one of the two does not vary.
fn correlation(a: &[f64], b: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let n = a.len() as f64;
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.clone().sum::<f64>() / n);
    let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - mean_a, y - mean_b);
        aa += x * x;
        bb += y * y;
        ab += x * y;
    }
    (aa > 0.0 && bb > 0.0).then(|| ab / (aa * bb).sqrt())
}

/// For each swing the correlation of its angular rate, 0.4 s before to 0.2 s after the impact, with the mean curve of the
/// player's other swings of the same class; `None` where a class has fewer than five, where data are missing, and for swings
/// without a name, which have nothing to be alike for.
pub(crate) fn repeatability(signal: &Signal, motion: &Motion, impacts: &[(i64, &str)]) -> Vec<Option<f64>> {
    const BEFORE_NS: i64 = 400_000_000;
    const AFTER_NS: i64 = 200_000_000;
    const SWINGS_MIN: usize = 5;
    if !signal.has_gyro {
        return vec![None; impacts.len()];
    }
    let points = ((BEFORE_NS + AFTER_NS) / signal.step_ns) as usize;
    let curves: Vec<Option<Vec<f64>>> = impacts
        .iter()
        .map(|&(impact_ns, _)| {
            let from_ns = impact_ns.saturating_sub(BEFORE_NS);
            let (_, range) = signal.window(from_ns, impact_ns, impact_ns.saturating_add(AFTER_NS))?;
            let points = range.start..(range.start + points).min(range.end);
            let curve: Vec<f64> = points
                .map(|i| {
                    let v = &motion.smooth[i];
                    (v[GAP] == 0.0).then(|| norm([v[3], v[4], v[5]]))
                })
                .collect::<Option<_>>()?;
            standardised(curve)
        })
        .map(|curve| curve.filter(|curve| curve.len() == points))
        .collect();
    let mut sums: BTreeMap<&str, (usize, Vec<f64>)> = BTreeMap::new();
    for (curve, &(_, class)) in curves.iter().zip(impacts) {
        if let Some(curve) = curve {
            let (count, sum) = sums.entry(class).or_insert_with(|| (0, vec![0.0; points]));
            *count += 1;
            sum.iter_mut().zip(curve).for_each(|(sum, value)| *sum += value);
        }
    }
    curves
        .iter()
        .zip(impacts)
        .map(|(curve, &(_, class))| {
            let curve = curve.as_ref()?;
            let (_, sum) = sums.get(class).filter(|(count, _)| *count >= SWINGS_MIN && class != crate::OTHER)?;
            let others: Vec<f64> = sum.iter().zip(curve).map(|(sum, own)| sum - own).collect();
            correlation(curve, others.into_iter())
        })
        .collect()
}

/// A curve with mean 0 and variance 1, so that hard swings do not make the template alone.
fn standardised(curve: Vec<f64>) -> Option<Vec<f64>> {
    let n = curve.len() as f64;
    let mean = curve.iter().sum::<f64>() / n;
    let deviation = (curve.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    (deviation > 0.0).then(|| curve.into_iter().map(|v| (v - mean) / deviation).collect())
}
