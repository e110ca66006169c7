//! What a session asks of the body: load, intensity zones, rallies.

use crate::analysis::Stroke;
use crate::calibrate::{G, GAP, Signal, norm};
use crate::kinetics::Motion;

/// PlayerLoad of the waist: Σ √(Δax² + Δay² + Δaz²) / 100 with acceleration in g over steps of the working grid (10 ms).
pub(crate) fn player_load(waist: &Signal) -> f64 {
    let mut sum = 0.0;
    for island in &waist.islands {
        for pair in waist.grid[island.start..island.end()].windows(2) {
            let (a, b) = (&pair[0], &pair[1]);
            sum += norm([b[0] - a[0], b[1] - a[1], b[2] - a[2]]);
        }
    }
    sum / G / 100.0
}

/// Dynamic acceleration ‖a − g⃗‖ averaged over each whole second of measured data, g. Empty without a gravity estimate.
pub(crate) fn by_second(signal: &Signal, motion: &Motion) -> Vec<f64> {
    if motion.gravity.is_empty() {
        return Vec::new();
    }
    let second = (1.0 / signal.step_s()).round().max(1.0) as usize;
    let mut out = Vec::new();
    for island in &signal.islands {
        let range = island.start..island.end();
        for block in range.collect::<Vec<_>>().chunks_exact(second) {
            // A second of which more than a tenth was interpolated says nothing.
            let (mut sum, mut measured) = (0.0, 0_usize);
            for &i in block {
                let (v, f) = (&signal.grid[i], motion.gravity[i]);
                if v[GAP] == 0.0 {
                    sum += norm([v[0] - f[0], v[1] - f[1], v[2] - f[2]]);
                    measured += 1;
                }
            }
            if measured * 10 >= second * 9 {
                out.push(sum / measured as f64 / G);
            }
        }
    }
    out
}

/// 95th percentile of the seconds, and the shares of them below 50%, 50 to 70%, 70 to 85% and above 85% of it. `None` for
/// less than a minute, or for someone who does not move.
pub(crate) fn zones(seconds: &[f64]) -> Option<(f64, [f64; 4])> {
    const SECONDS_MIN: usize = 60;
    const STILL_G: f64 = 0.02;
    if seconds.len() < SECONDS_MIN {
        return None;
    }
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let high = sorted[(sorted.len() - 1) * 95 / 100];
    if high < STILL_G {
        return None;
    }
    let mut shares = [0.0; 4];
    for value in seconds {
        let zone = [0.5, 0.7, 0.85].iter().filter(|&&limit| *value >= limit * high).count();
        shares[zone] += 1.0 / seconds.len() as f64;
    }
    Some((high, shares))
}

/// The pause, s, that parts rallies: the valley of the histogram of the logarithms of the gaps between impacts, if it
/// clearly is one; else `fallback_s`.
pub(crate) fn rally_gap_s(strokes: &[Stroke], fallback_s: f64) -> f64 {
    const GAPS_MIN: usize = 20;
    // Rallies pause for no less, rests for no longer.
    const BOUNDS_S: (f64, f64) = (1.5, 20.0);
    const BINS: usize = 60;
    const WIDTH: f64 = 0.15;
    let logs: Vec<f64> = strokes
        .windows(2)
        .map(|pair| (pair[1].impact_ms - pair[0].impact_ms) / 1e3)
        .filter(|gap| *gap > 0.0)
        .map(f64::ln)
        .collect();
    if logs.len() < GAPS_MIN {
        return fallback_s;
    }
    // A density smoothed by a Gaussian, on a grid from 0.3 to 120 s.
    let (first, last) = (0.3_f64.ln(), 120.0_f64.ln());
    let at = |bin: usize| first + (last - first) * bin as f64 / (BINS - 1) as f64;
    let density: Vec<f64> =
        (0..BINS).map(|bin| logs.iter().map(|log| (-0.5 * ((log - at(bin)) / WIDTH).powi(2)).exp()).sum()).collect();
    let highest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    // A valley of less than half the lower of its two hills, with more than chance on either side.
    let parts = |bin: usize| {
        let beyond = logs.iter().filter(|log| **log > at(bin)).count();
        let lower_hill = highest(&density[..bin]).min(highest(&density[bin + 1..]));
        density[bin] < 0.5 * lower_hill && beyond >= 3 && logs.len() - beyond >= 3
    };
    (1..BINS - 1)
        .filter(|&bin| (BOUNDS_S.0.ln()..=BOUNDS_S.1.ln()).contains(&at(bin)))
        .filter(|&bin| density[bin] <= density[bin - 1] && density[bin] <= density[bin + 1] && parts(bin))
        .min_by(|&a, &b| density[a].total_cmp(&density[b]))
        .map_or(fallback_s, |valley| at(valley).exp())
}

/// A run of strokes without a pause.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rally {
    pub(crate) strokes: usize,
    /// First and last impact, ms.
    pub(crate) first_ms: f64,
    pub(crate) last_ms: f64,
}

pub(crate) fn rallies(strokes: &[Stroke], gap_s: f64) -> Vec<Rally> {
    let mut rallies: Vec<Rally> = Vec::new();
    for stroke in strokes {
        match rallies.last_mut() {
            Some(rally) if stroke.impact_ms - rally.last_ms <= gap_s * 1e3 => {
                rally.strokes += 1;
                rally.last_ms = stroke.impact_ms;
            }
            _ => rallies.push(Rally { strokes: 1, first_ms: stroke.impact_ms, last_ms: stroke.impact_ms }),
        }
    }
    rallies
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use schemas::SensorRole;

    use super::*;

    fn at(times_s: &[f64]) -> Vec<Stroke> {
        times_s
            .iter()
            .map(|t| Stroke {
                start_ms: t * 1e3 - 300.0,
                impact_ms: t * 1e3,
                end_ms: t * 1e3 + 300.0,
                sensor: SensorRole::Racket,
                stroke: "clear".into(),
                confidence: None,
                probabilities: BTreeMap::new(),
                levels: BTreeMap::new(),
                metrics: BTreeMap::new(),
            })
            .collect()
    }

    #[test]
    fn the_pause_between_rallies_is_found_where_the_gaps_leave_a_valley() {
        let mut times = Vec::new();
        let mut t = 0.0;
        for rally in 0..8 {
            for stroke in 0..5 {
                times.push(t);
                t += 1.2 + 0.1 * f64::from((rally + stroke) % 4);
            }
            // Rests of 2.8 to 3.6 s: the fixed fallback of 4 s would see one rally.
            t += 1.6 + 0.1 * f64::from(rally);
        }
        let strokes = at(&times);
        let gap = rally_gap_s(&strokes, 4.0);
        assert!((1.5..2.8).contains(&gap), "{gap}");
        assert_eq!(rallies(&strokes, gap).len(), 8);
        // An even pace has no valley.
        let even: Vec<f64> = (0..40).map(|i| f64::from(i) * 2.0).collect();
        assert!((rally_gap_s(&at(&even), 4.0) - 4.0).abs() < 1e-12);
        assert!((rally_gap_s(&[], 4.0) - 4.0).abs() < 1e-12);
    }

    #[test]
    fn zones_are_shares_of_the_own_95th_percentile() {
        let seconds: Vec<f64> = (0..100).map(f64::from).map(|i| i / 100.0).collect();
        let (high, shares) = zones(&seconds).unwrap();
        assert!((high - 0.94).abs() < 1e-9);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!((shares[0] - 0.47).abs() < 1e-9 && (shares[3] - 0.20).abs() < 1e-9, "{shares:?}");
        assert_eq!(zones(&seconds[..59]), None);
        assert_eq!(zones(&[0.001; 100]), None);
    }
}
