//! Swings: where one starts, peaks, hits and ends.
//!
//! A fixed threshold finds half of the swings of one player and doubles another's; here the threshold follows the last
//! half minute, and peaks keep the distance that the pace of play dictates. Everything a decision uses lies at most
//! [`SegmentParams::history_s`] back and a few seconds ahead, so that a live stream can come to the same swings.

use schemas::SensorRole;

use crate::calibrate::{G, GAP, Island, Signal, median, norm, span_s};
use crate::filter::{Lanes, moving_average};
use crate::params::SegmentParams;

/// Rate below which a swing is a few samples, Hz.
const SPARSE_HZ: f64 = 40.0;

/// One swing, times in ns since session start. `start ≤ impact ≤ end`; swings of a recording do not overlap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Swing {
    pub(crate) start_ns: i64,
    /// The peak of the energy score: where the classifier's window is centred.
    pub(crate) peak_ns: i64,
    /// The hit, or the fastest rotation where none was felt.
    pub(crate) impact_ns: i64,
    /// Largest change of acceleration at the hit, m/s³; `None` where none was felt.
    pub(crate) impact_jerk: Option<f64>,
    pub(crate) end_ns: i64,
    /// Score of the peak.
    pub(crate) strength: f64,
}

/// The sensor that swings are found on: the racket, unless it was away for more than a fifth of the wrist's time; then
/// the wrist; the upper arm only if nothing nearer to the racket is there. The waist sees no swings.
pub(crate) fn choose_sensor<'a>(signals: &[Option<&'a Signal>; 4]) -> Option<&'a Signal> {
    let usable = |role: SensorRole| {
        let signal = signals[role.chain_index()?]?;
        (signal.has_acc || signal.has_gyro).then_some(signal)
    };
    let racket = usable(SensorRole::Racket);
    let wrist = usable(SensorRole::Wrist);
    match (racket, wrist) {
        (Some(racket), Some(wrist)) if racket.covered_s() < 0.8 * wrist.covered_s() => Some(wrist),
        (Some(racket), _) => Some(racket),
        (None, Some(wrist)) => Some(wrist),
        (None, None) => usable(SensorRole::Shoulder),
    }
}

/// The swings of `signal` in time order.
pub(crate) fn segment(signal: &Signal, params: &SegmentParams) -> Vec<Swing> {
    let score = energy_score(signal, params);
    let step_s = signal.step_s();
    let mut peaks = Vec::new();
    for island in &signal.islands {
        let values = &score[island.start..island.end()];
        let threshold = Threshold::over(values, step_s, params);
        peaks.extend(
            find_peaks(values, step_s, params).into_iter().filter(|&at| f64::from(values[at]) >= threshold.at(at)).map(
                |at| Peak {
                    index: island.start + at,
                    height: values[at],
                    t_ns: signal.time_ns(island, island.start + at),
                },
            ),
        );
    }
    let spaced = keep_pace(&peaks, params);
    let mut swings: Vec<Swing> = Vec::with_capacity(spaced.len());
    for (i, peak) in spaced.iter().enumerate() {
        let Some(island) = signal.island_at(peak.t_ns) else { continue };
        let before = i.checked_sub(1).map(|i| spaced[i].index).filter(|&index| index >= island.start);
        let after = spaced.get(i + 1).map(|next| next.index).filter(|&index| index < island.end());
        swings.push(delimit(signal, island, &score, peak, before, after, params));
    }
    // Neighbours meet at most at the valley between them.
    for i in 1..swings.len() {
        if swings[i].start_ns <= swings[i - 1].end_ns {
            swings[i].start_ns = (swings[i - 1].end_ns + 1).min(swings[i].impact_ns);
        }
    }
    swings
}

/// e(t) of every grid point.
pub(crate) fn energy_score(signal: &Signal, params: &SegmentParams) -> Vec<f32> {
    // Where a swing turns round between two samples, vectors interpolated across it pass through nothing; magnitudes do
    // not.
    let acc_unit = if signal.has_acc { (1.0 / (G * params.acc_scale_g)) as f32 } else { 0.0 };
    let gyro_unit = (1.0 / params.gyro_scale_dps) as f32;
    let g = G as f32;
    let score = |v: &Lanes| {
        let a = ((v[0] * v[0] + v[1] * v[1] + v[2] * v[2]).sqrt() - g) * acc_unit;
        let w2 = (v[3] * v[3] + v[4] * v[4] + v[5] * v[5]) * gyro_unit * gyro_unit;
        (a * a + w2).sqrt()
    };
    let half = |seconds: f64| (seconds / signal.step_s() / 2.0).round() as usize;
    let mut out = Vec::with_capacity(signal.grid.len());
    let mut right = 0;
    for island in &signal.islands {
        let plain: Vec<f32> = if signal.rate_hz >= SPARSE_HZ {
            signal.grid[island.start..island.end()].iter().map(score).collect()
        } else {
            (island.start..island.end())
                .map(|index| {
                    let at = signal.time_ns(island, index);
                    while right + 1 < signal.raw.len() && signal.raw_t_ns[right] < at {
                        right += 1;
                    }
                    let left = if signal.raw_t_ns[right] <= at { right } else { right.saturating_sub(1) };
                    let width = span_s(signal.raw_t_ns[left], signal.raw_t_ns[right]);
                    let share = if width > 0.0 { (span_s(signal.raw_t_ns[left], at) / width) as f32 } else { 0.0 };
                    let (a, b) = (score(&signal.raw[left]), score(&signal.raw[right]));
                    a + (b - a) * share
                })
                .collect()
        };
        let once = moving_average(&plain, half(params.smooth_s));
        out.extend(moving_average(&once, half(params.smooth_again_s)));
    }
    out
}

/// The height a peak must reach, in steps of half a second.
struct Threshold {
    block: usize,
    values: Vec<f64>,
}

impl Threshold {
    fn over(score: &[f32], step_s: f64, params: &SegmentParams) -> Self {
        // The score is smoothed over a quarter of a second: 20 values a second say all there is.
        let thin = ((0.05 / step_s).round() as usize).max(1);
        let block = ((0.5 / step_s).round() as usize).max(1);
        let back = (params.history_s / step_s) as usize;
        let ahead = (params.lookahead_s / step_s) as usize;
        let mut recent: Vec<f32> = Vec::new();
        let values = (0..score.len())
            .step_by(block)
            .map(|i| {
                recent.clear();
                recent.extend(score[i.saturating_sub(back)..(i + ahead).min(score.len())].iter().step_by(thin));
                let rank = ((recent.len().saturating_sub(1)) as f64 * params.percentile / 100.0).round() as usize;
                let high = if recent.is_empty() {
                    0.0
                } else {
                    f64::from(*recent.select_nth_unstable_by(rank, f32::total_cmp).1)
                };
                (params.fraction * high).min(params.ceiling).max(params.floor)
            })
            .collect();
        Self { block, values }
    }

    fn at(&self, index: usize) -> f64 {
        self.values[index / self.block]
    }
}

#[derive(Clone, Copy, Debug)]
struct Peak {
    /// In the grid.
    index: usize,
    height: f32,
    t_ns: i64,
}

/// Local maxima that stand out from their valleys; a flat top counts once, at its middle.
fn find_peaks(score: &[f32], step_s: f64, params: &SegmentParams) -> Vec<usize> {
    let reach = (params.prominence_window_s / step_s) as usize;
    let floor = params.floor as f32;
    let mut peaks = Vec::new();
    let mut i = 0;
    while i < score.len() {
        let top = score[i];
        let mut end = i;
        while end + 1 < score.len() && score[end + 1].total_cmp(&top).is_eq() {
            end += 1;
        }
        let rises = i > 0 && score[i - 1] < top;
        let falls = end + 1 < score.len() && score[end + 1] < top;
        if rises && falls && top >= floor {
            let left = valley(score[..i].iter().rev().take(reach), top);
            let right = valley(score[end + 1..].iter().take(reach), top);
            if f64::from(top - left.max(right)) >= params.prominence * f64::from(top) {
                peaks.push(usize::midpoint(i, end));
            }
        }
        i = end + 1;
    }
    peaks
}

/// The lowest value before one exceeds `top`.
fn valley<'a>(values: impl Iterator<Item = &'a f32>, top: f32) -> f32 {
    values.take_while(|&&v| v <= top).fold(top, |low, &v| low.min(v))
}

/// Keeps the highest peaks that are far enough apart: first at the usual distance, then at the distance that the pace
/// found by the first round allows.
fn keep_pace(peaks: &[Peak], params: &SegmentParams) -> Vec<Peak> {
    let ns = |seconds: f64| (seconds * 1e9) as i64;
    let usual = thin_out(peaks, |_| ns(params.spacing_s));
    let history = ns(params.history_s);
    let ahead = ns(params.lookahead_s);
    thin_out(peaks, |t_ns| {
        let from = usual.partition_point(|p| p.t_ns < t_ns.saturating_sub(history));
        let to = usual.partition_point(|p| p.t_ns <= t_ns.saturating_add(ahead));
        let mut distances: Vec<f64> = usual[from..to].windows(2).map(|w| span_s(w[0].t_ns, w[1].t_ns)).collect();
        // Two distances are no pace.
        if distances.len() < 3 {
            return ns(params.spacing_s);
        }
        let pace = median(&mut distances).unwrap_or(params.spacing_s);
        ns((params.pace_fraction * pace).clamp(params.spacing_s_min, params.spacing_s_max))
    })
}

/// Highest first, each clears its surroundings.
fn thin_out(peaks: &[Peak], spacing_ns: impl Fn(i64) -> i64) -> Vec<Peak> {
    let mut order: Vec<usize> = (0..peaks.len()).collect();
    order.sort_by(|&a, &b| peaks[b].height.total_cmp(&peaks[a].height).then(a.cmp(&b)));
    let mut gone = vec![false; peaks.len()];
    for &i in &order {
        if gone[i] {
            continue;
        }
        let t = peaks[i].t_ns;
        let spacing = spacing_ns(t);
        for j in (0..i).rev().take_while(|&j| t.saturating_sub(peaks[j].t_ns) < spacing) {
            gone[j] = true;
        }
        for j in (i + 1..peaks.len()).take_while(|&j| peaks[j].t_ns.saturating_sub(t) < spacing) {
            gone[j] = true;
        }
    }
    peaks.iter().zip(gone).filter(|(_, gone)| !gone).map(|(peak, _)| *peak).collect()
}

fn delimit(
    signal: &Signal,
    island: &Island,
    score: &[f32],
    peak: &Peak,
    before: Option<usize>,
    after: Option<usize>,
    params: &SegmentParams,
) -> Swing {
    let steps = |seconds: f64| (seconds / signal.step_s()).round() as usize;
    // An edge is where the score has fallen to a small share of the peak; between two swings it is the valley.
    let level = (params.edge_fraction * f64::from(peak.height)).max(params.edge_level) as f32;
    let first = before.unwrap_or(island.start).max(peak.index.saturating_sub(steps(params.reach_before_s)));
    let last = after.unwrap_or(island.end() - 1).min(peak.index + steps(params.reach_after_s));
    let start =
        (first..peak.index).rev().find(|&i| score[i] <= level).unwrap_or_else(|| lowest(score, first, peak.index));
    let end = (peak.index + 1..=last)
        .find(|&i| score[i] <= level)
        .unwrap_or_else(|| lowest(score, (peak.index + 1).min(last), last + 1));
    let start_ns = signal.time_ns(island, start);
    let end_ns = signal.time_ns(island, end);
    // The hill of a long backswing may be higher than that of the stroke itself, which is the fastest rotation.
    // Where samples are rare, between two of them the fastest is chance: stay near the peak.
    let reach_s = if signal.rate_hz >= SPARSE_HZ { params.fastest_reach_s } else { 0.6 * params.smooth_s };
    let reach = (reach_s * 1e9) as i64;
    let peak_ns = if signal.has_gyro {
        fastest(signal, peak.t_ns, start_ns.max(peak.t_ns - reach), end_ns.min(peak.t_ns + reach))
    } else {
        peak.t_ns
    };
    let (impact_ns, impact_jerk) = impact(signal, peak_ns, start_ns, end_ns, params);
    Swing {
        start_ns,
        peak_ns,
        impact_ns: impact_ns.clamp(start_ns, end_ns),
        impact_jerk,
        end_ns,
        strength: f64::from(peak.height),
    }
}

fn lowest(score: &[f32], from: usize, to: usize) -> usize {
    (from..to).min_by(|&a, &b| score[a].total_cmp(&score[b])).unwrap_or(from)
}

/// The hit: the largest change of acceleration near the fastest rotation, if it stands out from the rest of the swing.
fn impact(signal: &Signal, peak_ns: i64, start_ns: i64, end_ns: i64, params: &SegmentParams) -> (i64, Option<f64>) {
    let ns = |seconds: f64| (seconds * 1e9) as i64;
    let fastest_ns = peak_ns;
    if !signal.has_acc || signal.rate_hz < params.impact_rate_hz_min {
        return (fastest_ns, None);
    }
    let swing = signal.raw_window(start_ns, end_ns);
    let jerk_at = |i: usize| -> f64 {
        let (a, b) = (&signal.raw[i], &signal.raw[i + 1]);
        let dt = span_s(signal.raw_t_ns[i], signal.raw_t_ns[i + 1]);
        norm([b[0] - a[0], b[1] - a[1], b[2] - a[2]]) / dt
    };
    let reach = ns(params.impact_reach_s);
    let near = signal.raw_window(fastest_ns.saturating_sub(reach), fastest_ns.saturating_add(reach));
    if swing.len() < 8 || near.len() < 3 {
        return (fastest_ns, None);
    }
    let mut usual: Vec<f64> = (swing.start..swing.end - 1).map(jerk_at).collect();
    let usual = median(&mut usual).unwrap_or(f64::INFINITY);
    let spike = (near.start..near.end - 1).map(|i| (i, jerk_at(i))).max_by(|a, b| a.1.total_cmp(&b.1));
    match spike {
        Some((i, jerk)) if jerk > params.impact_factor * usual && signal.raw[i][GAP] == 0.0 => {
            (i64::midpoint(signal.raw_t_ns[i], signal.raw_t_ns[i + 1]), Some(jerk))
        }
        _ => (fastest_ns, None),
    }
}

/// The grid point of the fastest rotation in `from_ns..=to_ns`.
fn fastest(signal: &Signal, around_ns: i64, from_ns: i64, to_ns: i64) -> i64 {
    let rate = |i: usize| {
        let v = &signal.grid[i];
        v[3] * v[3] + v[4] * v[4] + v[5] * v[5]
    };
    signal
        .window(from_ns, around_ns, to_ns)
        .and_then(|(island, range)| {
            // The first of equals, so that a clipped plateau does not depend on the order of comparison.
            let best = range.reduce(|best, i| if rate(i) > rate(best) { i } else { best })?;
            Some(signal.time_ns(island, best))
        })
        .unwrap_or(around_ns)
}
