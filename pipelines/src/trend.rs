//! What changes over a session: robust slopes, whether they are chance, and when it began.

use crate::calibrate::median;

/// Points that a trend needs.
const POINTS_MIN: usize = 10;
/// 700 points are a quarter of a million pairs; longer series are thinned evenly.
const POINTS_MAX: usize = 700;

fn thinned(times: &[f64], values: &[f64]) -> Vec<(f64, f64)> {
    let every = times.len().div_ceil(POINTS_MAX).max(1);
    times.iter().copied().zip(values.iter().copied()).step_by(every).collect()
}

/// Theil-Sen slope of `values` over `times`: the median of the slopes of all pairs. Fewer than ten points show no trend.
pub(crate) fn theil_sen(times: &[f64], values: &[f64]) -> Option<f64> {
    if times.len() < POINTS_MIN {
        return None;
    }
    let points = thinned(times, values);
    let mut slopes: Vec<f64> = points
        .iter()
        .enumerate()
        .flat_map(|(i, a)| points[i + 1..].iter().filter(|b| b.0 > a.0).map(move |b| (b.1 - a.1) / (b.0 - a.0)))
        .collect();
    median(&mut slopes)
}

/// Two-sided p of the Mann-Kendall test that a series has no trend, by the normal approximation with correction for ties
/// and continuity. Fewer than ten points give `None`.
pub(crate) fn mann_kendall_p(times: &[f64], values: &[f64]) -> Option<f64> {
    if times.len() < POINTS_MIN {
        return None;
    }
    let points = thinned(times, values);
    let n = points.len() as f64;
    let mut s = 0_i64;
    for (i, a) in points.iter().enumerate() {
        for b in &points[i + 1..] {
            s += match b.1.total_cmp(&a.1) {
                std::cmp::Ordering::Greater => 1,
                std::cmp::Ordering::Less => -1,
                std::cmp::Ordering::Equal => 0,
            };
        }
    }
    let mut sorted: Vec<f64> = points.iter().map(|p| p.1).collect();
    sorted.sort_by(f64::total_cmp);
    let ties: f64 = sorted
        .chunk_by(|a, b| a.total_cmp(b).is_eq())
        .map(|tie| tie.len() as f64)
        .map(|t| t * (t - 1.0) * (2.0 * t + 5.0))
        .sum();
    let variance = (n * (n - 1.0) * (2.0 * n + 5.0) - ties) / 18.0;
    if variance <= 0.0 {
        return Some(1.0);
    }
    let z = (s.abs() as f64 - 1.0).max(0.0) / variance.sqrt();
    Some(complementary_error(z / std::f64::consts::SQRT_2).clamp(0.0, 1.0))
}

/// erfc for x ≥ 0, to 1.2e-7 (Numerical Recipes' rational Chebyshev fit).
fn complementary_error(x: f64) -> f64 {
    const C: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let t = 1.0 / (1.0 + 0.5 * x);
    let series = C.iter().rev().fold(0.0, |sum, c| sum * t + c);
    t * (-x * x + series).exp()
}

/// The first value (index) at which a two-sided CUSUM alarms against the first twenty, and whether values fell (−1) or
/// rose (1). Slack half a standard deviation, threshold five; the deviation is the first twenty's, robust.
///
/// `None` if nothing alarms or fewer than thirty values are there.
pub(crate) fn cusum(values: &[f64]) -> Option<(usize, f64)> {
    const FIRST: usize = 20;
    const SLACK: f64 = 0.5;
    const THRESHOLD: f64 = 5.0;
    if values.len() < FIRST + POINTS_MIN {
        return None;
    }
    let mut first = values[..FIRST].to_vec();
    let middle = median(&mut first)?;
    let mut off: Vec<f64> = first.iter().map(|v| (v - middle).abs()).collect();
    let deviation = 1.4826 * median(&mut off)?;
    if deviation <= 0.0 {
        return None;
    }
    let (mut up, mut down) = (0.0_f64, 0.0_f64);
    for (i, value) in values.iter().enumerate().skip(FIRST) {
        let z = (value - middle) / deviation;
        up = (up + z - SLACK).max(0.0);
        down = (down - z - SLACK).max(0.0);
        if up > THRESHOLD || down > THRESHOLD {
            return Some((i, if up > down { 1.0 } else { -1.0 }));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn theil_sen_ignores_outliers() {
        let times: Vec<f64> = (0..20).map(f64::from).collect();
        let mut values: Vec<f64> = times.iter().map(|t| 5.0 - 0.5 * t).collect();
        values[3] = 900.0;
        assert!((theil_sen(&times, &values).unwrap() + 0.5).abs() < 1e-12);
        assert_eq!(theil_sen(&times[..9], &values[..9]), None);
    }

    #[test]
    fn a_trend_is_told_from_chance() {
        let times: Vec<f64> = (0..40).map(f64::from).collect();
        let falling: Vec<f64> = times.iter().map(|t| 100.0 - t + (t * 7.3).sin() * 5.0).collect();
        let level: Vec<f64> = times.iter().map(|t| 100.0 + (t * 7.3).sin() * 5.0).collect();
        assert!(mann_kendall_p(&times, &falling).unwrap() < 0.001);
        assert!(mann_kendall_p(&times, &level).unwrap() > 0.2);
        assert_eq!(mann_kendall_p(&times, &vec![1.0; 40]), Some(1.0));
        // The textbook's 95% point.
        assert!((complementary_error(1.959_963_985 / std::f64::consts::SQRT_2) - 0.05).abs() < 1e-6);
    }

    #[test]
    fn a_drop_is_noticed_soon_and_a_level_series_never() {
        let wave = |i: i32| f64::from(i * 37 % 11) - 5.0;
        let mut values: Vec<f64> = (0..60).map(|i| 1000.0 + 10.0 * wave(i)).collect();
        assert_eq!(cusum(&values), None);
        values[40..].iter_mut().for_each(|v| *v -= 120.0);
        let (at, way) = cusum(&values).unwrap();
        assert!((40..46).contains(&at) && way < 0.0, "{at}");
        assert_eq!(cusum(&values[..25]), None);
    }
}
