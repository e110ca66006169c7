//! The kinetic chain: when each segment is fastest, how the next one follows, and what reaches the racket.
//!
//! Every figure is of one swing and absent when its inputs are: a sensor that is missing, a peak at the border of its
//! window or inside a hole. Magnitudes of vectors only, so that nobody has to know how a sensor was strapped on.
//!
//! Energy ratio of a swing. Over the acceleration phase, from the swing's start to 20 ms before the impact (or the
//! fastest rotation), `E_waist = ½ I max|ω_waist|²` with I from the parameters, and `E_wrist = ½ m max|v_wrist|²`, where
//! v is the integral of the wrist's acceleration: specific force turned into the axes of the phase's first instant by
//! integrating the gyro, minus gravity at that instant, trapezoids over the measured time, v = 0 at the start. The ratio is
//! `min(E_wrist / E_waist, 1)`, as the legacy figure bounds it.

use std::collections::BTreeMap;

use schemas::{SensorRole, SensorTrack};

use crate::calibrate::{G, GAP, SATURATED, Signal, norm, span_s};
use crate::correlate::lag;
use crate::filter::{Biquad, Lanes, goertzel, savitzky_golay, zero_phase};
use crate::orientation::{
    Quat, conjugate, device_angles, from_roll_pitch_yaw, gravity, headings_rad, largest_joint_turn_deg,
    largest_tilt_deg, multiply, orientation, rotate, twist_rad, twist_range_deg,
};
use crate::params::Params;
use crate::peak::{RatePeak, Samples};
use crate::segment::Swing;

/// One sensor, ready for kinetics.
#[derive(Clone, Debug)]
pub(crate) struct Motion {
    /// The signal's grid after the kinetics low-pass, flags untouched.
    pub(crate) smooth: Vec<Lanes>,
    /// Specific force of gravity at each grid point, m/s²; empty without acceleration or gyro.
    pub(crate) gravity: Vec<[f32; 3]>,
    /// world_from_sensor at each grid point, heading unknown; empty without acceleration or gyro.
    pub(crate) orientation: Vec<Quat>,
    /// The device's own roll, pitch, yaw at each grid point, °, NaN where it sent none; empty unless they are good.
    pub(crate) device: Vec<[f32; 3]>,
}

impl Motion {
    /// `track`: the samples as sent, for the device's own angles.
    pub(crate) fn of(signal: &Signal, track: &SensorTrack, params: &Params) -> Self {
        let section = Biquad::low_pass_both_ways(params.kinetics.lowpass_hz, 1.0 / signal.step_s());
        let mut smooth = signal.grid.clone();
        for island in &signal.islands {
            zero_phase(&mut smooth[island.start..island.end()], &section);
        }
        let filter = orientation(signal, params.calibrate.gravity_tau_s);
        let device = device_angles(signal, track, &filter).unwrap_or_default();
        Self { smooth, gravity: gravity(&filter), orientation: filter, device }
    }
}

/// The sensors of a recording in chain order.
pub(crate) struct Chain<'a> {
    pub(crate) sensors: [Option<(&'a Signal, &'a Motion)>; 4],
    /// Error of each sensor's clock against the others', one standard deviation, s.
    pub(crate) clocks_s: [f64; 4],
    pub(crate) params: &'a Params,
    /// Unit vector along the racket's shaft in sensor space; `None` if the recording does not show it.
    pub(crate) shaft: Option<[f64; 3]>,
}

impl Chain<'_> {
    /// How far the clocks of two sensors may be apart, one standard deviation, s.
    pub(crate) fn apart_s(&self, a: usize, b: usize) -> f64 {
        self.clocks_s[a].hypot(self.clocks_s[b])
    }

    /// The same for neighbours in the chain, in its order.
    pub(crate) fn neighbours_apart_s(&self) -> [f64; 3] {
        PAIRS.map(|(a, b, _)| self.apart_s(a, b))
    }
}

/// Neighbours in the chain and what the figures between them are called.
const PAIRS: [(usize, usize, &str); 3] = [(0, 1, "waist_shoulder"), (1, 2, "shoulder_wrist"), (2, 3, "wrist_racket")];

/// Names of the delay figures, ms, in chain order.
pub(crate) const DELAYS: [&str; 3] = ["delay_waist_shoulder_ms", "delay_shoulder_wrist_ms", "delay_wrist_racket_ms"];

/// Every figure of one swing, unit in the name.
pub(crate) fn of_swing(swing: &Swing, signal: &Signal, motion: &Motion, chain: &Chain<'_>) -> BTreeMap<String, f64> {
    let mut figures = Figures::default();
    let k = &chain.params.kinetics;
    figures.put("duration_ms", span_s(swing.start_ns, swing.end_ns) * 1e3);
    figures.put_some("acceleration_phase_ms", acceleration_phase_s(swing, signal, motion).map(|s| s * 1e3));
    figures.put("swing_strength", swing.strength);
    figures.put("impact_felt", f64::from(u8::from(swing.impact_jerk.is_some())));
    figures.put_some("impact_jerk_mps3", swing.impact_jerk);
    own_sensor(swing, signal, motion, chain, &mut figures);

    let peaks: [Option<RatePeak>; 4] = chain.sensors.map(|sensor| {
        let (signal, motion) = sensor?;
        rate_peak(swing, signal, motion, chain)
    });
    for (peak, role) in peaks.iter().zip(SensorRole::CHAIN) {
        if let Some(peak) = peak {
            figures.put(&format!("peak_gyro_{role}_dps"), peak.dps);
            figures.put(&format!("peak_before_impact_{role}_ms"), (swing.impact_ns as f64 - peak.t_ns) / 1e6);
            figures.put(&format!("peak_clipped_{role}"), f64::from(u8::from(peak.clipped)));
        }
    }
    let mut uncertainty_s: Option<f64> = None;
    for ((a, b, name), delay_name) in PAIRS.into_iter().zip(DELAYS) {
        let (Some(first), Some(second)) = (peaks[a], peaks[b]) else { continue };
        let (delay_s, sigma_s) = delay(&first, &second, chain.apart_s(a, b));
        uncertainty_s = Some(uncertainty_s.map_or(sigma_s, |worst| worst.max(sigma_s)));
        // Resolved is what has 0 outside of its interval.
        let reach_s = k.resolved_sigmas * sigma_s;
        figures.put(&format!("delay_{name}_low_ms"), (delay_s - reach_s) * 1e3);
        figures.put(&format!("delay_{name}_high_ms"), (delay_s + reach_s) * 1e3);
        if delay_s.abs() >= k.resolved_sigmas * sigma_s {
            figures.put(delay_name, delay_s * 1e3);
            figures.put(&format!("delay_{name}_share"), delay_s / span_s(swing.start_ns, swing.impact_ns));
        }
        if first.dps > 0.0 {
            figures.put(&format!("speedup_{name}"), second.dps / first.dps);
        }
        if let Some((inner, motion)) = chain.sensors[a]
            && let Some(rate) = rate_at(inner, motion, second.t_ns)
        {
            figures.put(&format!("braking_{name}"), 1.0 - rate / first.dps);
        }
    }
    shifts(swing, chain, &mut figures);
    figures.put_some("delay_uncertainty_ms", uncertainty_s.map(|s| s * 1e3));
    figures.put_some("order_tau", order_tau(&peaks, chain.clocks_s, k.resolved_sigmas));
    energy(swing, chain, &mut figures);
    energy_index(&peaks, k.waist_inertia_kgm2, &mut figures);
    turns(swing, chain, peaks[0].as_ref(), &mut figures);
    if let Some((racket, motion)) = chain.sensors[3] {
        racket_head_speed(swing, racket, motion, chain, &mut figures);
    }
    figures.0
}

#[derive(Default)]
struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// A figure that is not a finite number is no figure.
    fn put(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.0.insert(name.to_owned(), value);
        }
    }

    fn put_some(&mut self, name: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }
}

/// Figures of the sensor that the swing was found on.
fn own_sensor(swing: &Swing, signal: &Signal, motion: &Motion, chain: &Chain<'_>, figures: &mut Figures) {
    let raw = &signal.raw[signal.raw_window(swing.start_ns, swing.end_ns)];
    if !raw.is_empty() {
        let saturated = raw.iter().filter(|v| v[SATURATED] > 0.0).count();
        figures.put("saturated_share", saturated as f64 / raw.len() as f64);
        if signal.has_gyro {
            figures.put("peak_gyro_dps", raw.iter().map(|v| norm([v[3], v[4], v[5]])).fold(0.0, f64::max));
        }
    }
    let Some((island, range)) = signal.window(swing.start_ns, swing.peak_ns, swing.end_ns) else { return };
    let points = &signal.grid[range.clone()];
    let holes = points.iter().filter(|v| v[GAP] > 0.0).count();
    figures.put("gap_share", holes as f64 / points.len() as f64);
    if !motion.gravity.is_empty() {
        let raw_range = signal.raw_window(signal.time_ns(island, range.start), signal.time_ns(island, range.end - 1));
        let peak = raw_range
            .map(|i| {
                let at = ((signal.raw_t_ns[i] - island.t0_ns) / signal.step_ns) as usize + island.start;
                let f = motion.gravity[at.min(island.end() - 1)];
                let v = &signal.raw[i];
                norm([v[0] - f[0], v[1] - f[1], v[2] - f[2]])
            })
            .fold(0.0, f64::max);
        figures.put("peak_accel_mps2", peak);
        let dynamic: f64 = range
            .clone()
            .map(|i| {
                let (v, f) = (&signal.grid[i], motion.gravity[i]);
                norm([v[0] - f[0], v[1] - f[1], v[2] - f[2]])
            })
            .sum();
        figures.put("mean_dynamic_accel_mps2", dynamic / range.len() as f64);
    } else if signal.has_acc {
        // Without a gyro gravity cannot be followed; the magnitude beyond 1 g is the largest sure part.
        let peak = raw.iter().map(|v| (norm([v[0], v[1], v[2]]) - G).abs()).fold(0.0, f64::max);
        figures.put("peak_accel_mps2", peak);
    }
    // Smoothness of the way to the ball only: the hit itself is not the player's movement.
    let Some((_, swing_in)) = signal.window(swing.start_ns, swing.impact_ns, swing.impact_ns - 20_000_000) else {
        return;
    };
    let k = &chain.params.kinetics;
    if signal.rate_hz < 2.0 * k.sparc_cutoff_hz {
        return;
    }
    let points = &motion.smooth[swing_in];
    if signal.has_gyro {
        let rate: Vec<f64> = points.iter().map(|v| norm([v[3], v[4], v[5]])).collect();
        figures.put_some("smoothness_sparc", sparc(&rate, signal.step_s(), k.sparc_cutoff_hz, k.sparc_threshold));
        figures.put_some("smoothness_ldlj", ldlj(&rate, signal.step_s()));
    } else if signal.has_acc {
        let dynamic: Vec<f64> = points.iter().map(|v| (norm([v[0], v[1], v[2]]) - G).abs()).collect();
        let smoothness = sparc(&dynamic, signal.step_s(), k.sparc_cutoff_hz, k.sparc_threshold);
        figures.put_some("smoothness_sparc_accel", smoothness);
        figures.put_some("smoothness_ldlj_accel", ldlj_of_acceleration(points, &dynamic, signal.step_s()));
    }
}

/// The largest angular rate of one sensor around the swing's acceleration.
///
/// A maximum at the border of the window is not a peak, one inside a hole is a guess: both give `None`, and so does a hole
/// that may hide a higher one.
fn rate_peak(swing: &Swing, signal: &Signal, motion: &Motion, chain: &Chain<'_>) -> Option<RatePeak> {
    // The fit needs the slopes of a hill at the window's border too.
    const MARGIN_NS: i64 = 150_000_000;
    // The low-pass flattens a narrow hill more than a wide one: every hill that may be the highest is fitted.
    const LOW_PASS_LOSS: f64 = 0.7;
    // Heights closer than this cannot be told apart.
    const SAME_HEIGHT: f64 = 0.02;
    let k = &chain.params.kinetics;
    if !signal.has_gyro {
        return None;
    }
    let ns = |seconds: f64| (seconds * 1e9) as i64;
    let from_ns = swing.impact_ns.saturating_sub(ns(k.before_s));
    let to_ns = swing.impact_ns.saturating_add(ns(k.after_s));
    let (island, range) = signal.window(from_ns, swing.impact_ns, to_ns)?;
    let rate = |i: usize| norm([motion.smooth[i][3], motion.smooth[i][4], motion.smooth[i][5]]);
    // Hills that lie in the window with both their slopes: the rest of a backswing at the border may be higher.
    let hills: Vec<usize> = (range.start + 1..range.end.saturating_sub(1))
        .filter(|&i| rate(i - 1) < rate(i) && rate(i) >= rate(i + 1) && rate(i) >= k.peak_dps_min)
        .collect();
    let top = hills.iter().map(|&i| rate(i)).reduce(f64::max)?;
    let samples = Samples::of(signal, from_ns.saturating_sub(MARGIN_NS), to_ns.saturating_add(MARGIN_NS))?;
    let hole_limit_s = chain.params.calibrate.gap_flag_ms / 1e3;
    let mut peaks: Vec<RatePeak> = hills
        .into_iter()
        .filter(|&i| rate(i) >= LOW_PASS_LOSS * top)
        .filter_map(|i| samples.peak(signal.time_ns(island, i) as f64, hole_limit_s))
        .collect();
    peaks.sort_by(|a, b| b.dps.total_cmp(&a.dps).then(a.t_ns.total_cmp(&b.t_ns)));
    let mut best = *peaks.first()?;
    // Full weight for a hill as high within the errors, none below twice that: an interval that changed at a step would
    // change by rounding.
    let error = SAME_HEIGHT * best.dps + 2.0 * signal.gyro_noise_dps;
    let away_s2 = peaks[1..]
        .iter()
        .map(|other| {
            let same = if other.clipped && best.clipped { 1.0 } else { 2.0 - (best.dps - other.dps) / error };
            same.clamp(0.0, 1.0) * ((other.t_ns - best.t_ns) / 1e9).powi(2)
        })
        .fold(0.0, f64::max);
    best.variance_s2 += (away_s2 + rung_s2(swing, signal, &samples, &best)) / 4.0;
    (!samples.may_hide(best.dps, hole_limit_s)).then_some(best)
}

/// How far a summit that a hit may have raised lies from the highest sample up to the hit, squared, s²: wrist and racket ring, and the
/// swing's own summit is before. 0 elsewhere.
fn rung_s2(swing: &Swing, signal: &Signal, samples: &Samples<'_>, summit: &RatePeak) -> f64 {
    // A frame that was hit rings for some tens of ms; a fit reaches a few samples further.
    const RINGS_S: f64 = 0.03;
    const REACH_S: f64 = 0.015;
    // The impact is known to a step of the grid, and late rather than early.
    const LATE_NS: i64 = 8_000_000;
    let since_s = (summit.t_ns - swing.impact_ns as f64) / 1e9;
    let near = (-REACH_S..=RINGS_S).contains(&since_s);
    let hit = swing.impact_jerk.is_some() && matches!(signal.role, SensorRole::Wrist | SensorRole::Racket);
    if !hit || !near || !samples.shaken_at(swing.impact_ns) {
        return 0.0;
    }
    samples
        .highest_until(swing.impact_ns.saturating_sub(LATE_NS))
        .map_or(0.0, |t_ns| ((summit.t_ns - t_ns) / 1e9).powi(2))
}

/// Time from the deepest point of the backswing to the impact, s: from where the rotation about the swing's own axis last
/// changed its sign. The axis is the first principal axis of ω over the last 0.15 s before the impact.
fn acceleration_phase_s(swing: &Swing, signal: &Signal, motion: &Motion) -> Option<f64> {
    const AXIS_NS: i64 = 150_000_000;
    // No acceleration of a stroke lasts longer.
    const LONGEST_NS: i64 = 800_000_000;
    if !signal.has_gyro {
        return None;
    }
    let from_ns = swing.impact_ns.saturating_sub(LONGEST_NS);
    let (island, range) = signal.window(from_ns, swing.impact_ns, swing.impact_ns)?;
    let rate = |i: usize| -> [f64; 3] { std::array::from_fn(|c| f64::from(motion.smooth[i][3 + c])) };
    let axis_from = swing.impact_ns.saturating_sub(AXIS_NS);
    let mut moment = [[0.0_f64; 3]; 3];
    for i in range.clone().filter(|&i| signal.time_ns(island, i) >= axis_from) {
        let w = rate(i);
        (0..3).for_each(|r| (0..3).for_each(|c| moment[r][c] += w[r] * w[c]));
    }
    let (axis, share) = principal_axis(&moment)?;
    // Rotation that is about no axis in particular has no sign.
    if share < 0.6 {
        return None;
    }
    let along = |i: usize| rate(i).iter().zip(axis).map(|(w, a)| w * a).sum::<f64>();
    let at_impact = along(range.end - 1);
    let sign = if at_impact < 0.0 { -1.0 } else { 1.0 };
    let before = range.clone().rev().find(|&i| sign * along(i) <= 0.0)?;
    if before + 1 >= range.end || motion.smooth[before..range.end].iter().any(|v| v[GAP] > 0.0) {
        return None;
    }
    let (a, b) = (along(before), along(before + 1));
    // `a` and `b` differ: one is on this side of 0, one on that.
    let crossing_ns = signal.time_ns(island, before) as f64 + a / (a - b) * signal.step_ns as f64;
    Some((swing.impact_ns as f64 - crossing_ns) / 1e9)
}

/// Delays from the likeness of whole curves, for neighbours in the chain; see [`lag`]. Alike enough only, and resolved
/// only: the uncertainty is that of the sample periods and clocks.
fn shifts(swing: &Swing, chain: &Chain<'_>, figures: &mut Figures) {
    const STRENGTH_MIN: f64 = 0.7;
    let k = &chain.params.kinetics;
    let ns = |seconds: f64| (seconds * 1e9) as i64;
    let from_ns = swing.impact_ns.saturating_sub(ns(k.before_s));
    let to_ns = swing.impact_ns.saturating_add(ns(0.5 * k.after_s));
    for (a, b, name) in PAIRS {
        let (Some(first), Some(second)) = (chain.sensors[a], chain.sensors[b]) else { continue };
        if !first.0.has_gyro || !second.0.has_gyro {
            continue;
        }
        let Some((shift_s, strength)) = lag(first, second, from_ns, swing.impact_ns, to_ns) else { continue };
        figures.put(&format!("xcorr_{name}_strength"), strength);
        let periods = [first, second].map(|(signal, _)| signal.sample_period_s().powi(2) / 12.0);
        let sigma_s = (periods[0] + periods[1] + chain.apart_s(a, b).powi(2)).sqrt();
        if strength >= STRENGTH_MIN && shift_s.abs() >= k.resolved_sigmas * sigma_s {
            figures.put(&format!("xcorr_{name}_ms"), shift_s * 1e3);
        }
    }
}

/// ½ I ω² of each segment at its peak, and how it grows from one to the next: an index, not joules handed over, because the
/// moments of inertia are a textbook adult's (waist from the parameters).
fn energy_index(peaks: &[Option<RatePeak>; 4], waist_inertia_kgm2: f64, figures: &mut Figures) {
    // kg·m²: shoulder girdle and upper arm about the trunk's axis, forearm and hand about the elbow, a racket of 90 g about
    // the grip.
    let inertia = [waist_inertia_kgm2, 0.35, 0.06, 0.012];
    let index: [Option<f64>; 4] =
        std::array::from_fn(|i| peaks[i].map(|peak| 0.5 * inertia[i] * peak.dps.to_radians().powi(2)));
    for (value, role) in index.iter().zip(SensorRole::CHAIN) {
        figures.put_some(&format!("energy_index_{role}"), *value);
    }
    for (a, b, name) in PAIRS {
        if let (Some(first), Some(second)) = (index[a], index[b])
            && first > 0.0
        {
            figures.put(&format!("energy_step_{name}"), second / first);
        }
    }
}

/// How far each segment turns and tilts in the swing, and what the trunk does against the pelvis.
fn turns(swing: &Swing, chain: &Chain<'_>, waist_peak: Option<&RatePeak>, figures: &mut Figures) {
    let whole: [Option<Vec<Quat>>; 4] = chain.sensors.map(|sensor| {
        let (signal, motion) = sensor?;
        if motion.orientation.is_empty() {
            return None;
        }
        let (_, range) = signal.window(swing.start_ns, swing.impact_ns, swing.end_ns)?;
        let holes = signal.grid[range.clone()].iter().any(|v| v[GAP] > 0.0);
        if range.len() < 8 || holes {
            return None;
        }
        let own = motion.device.get(range.clone());
        let own = own.and_then(|angles| angles.iter().map(|angle| from_roll_pitch_yaw(*angle)).collect());
        Some(own.unwrap_or_else(|| motion.orientation[range].to_vec()))
    });
    let headings = [0, 1, 2, 3].map(|i| whole[i].as_deref().map(headings_rad));
    for ((orientation, headings), role) in whole.iter().zip(&headings).zip(SensorRole::CHAIN) {
        let (Some(orientation), Some(headings)) = (orientation, headings) else { continue };
        figures.put(&format!("turn_{role}_deg"), twist_range_deg(headings.iter().copied()));
        figures.put(&format!("tilt_{role}_deg"), largest_tilt_deg(orientation));
        if role == SensorRole::Racket
            && let (Some(shaft), Some(&first)) = (chain.shaft, orientation.first())
        {
            let rolls = orientation.iter().map(|&q| twist_rad(multiply(conjugate(first), q), shaft));
            figures.put("racket_roll_deg", twist_range_deg(rolls));
        }
    }
    for (a, b, name) in PAIRS {
        // A joint's angle needs both headings: only the devices' own filters know them.
        let known = |index: usize| {
            chain.sensors[index].filter(|(_, motion)| !motion.device.is_empty()).and(whole[index].as_deref())
        };
        let angle = known(a).zip(known(b)).and_then(|(first, second)| largest_joint_turn_deg(first, second));
        figures.put_some(&format!("joint_{name}_deg"), angle);
    }
    if let (Some(pelvis), Some(shoulder), Some((signal, _))) = (&headings[0], &headings[1], chain.sensors[0]) {
        let to_impact = (span_s(swing.start_ns, swing.impact_ns) / signal.step_s()) as usize + 1;
        let apart: Vec<f64> = shoulder.iter().zip(pelvis).take(to_impact).map(|(s, p)| (s - p).to_degrees()).collect();
        let bounds = apart.iter().fold((0.0_f64, 0.0_f64), |(low, high), v| (low.min(*v), high.max(*v)));
        figures.put("separation_waist_shoulder_deg", bounds.1 - bounds.0);
        let fastest = apart.windows(2).map(|w| (w[1] - w[0]).abs()).fold(0.0, f64::max);
        figures.put("separation_waist_shoulder_dps", fastest / signal.step_s());
    }
    // The pelvis' turn about the vertical when it turns fastest: left is positive.
    if let (Some(peak), Some((signal, motion))) = (waist_peak, chain.sensors[0])
        && let Some(island) = signal.island_at(peak.t_ns as i64).filter(|_| !motion.orientation.is_empty())
    {
        let index = island.start + ((peak.t_ns as i64 - island.t0_ns) / signal.step_ns) as usize;
        let v = &motion.smooth[index];
        let world = rotate(motion.orientation[index], [f64::from(v[3]), f64::from(v[4]), f64::from(v[5])]);
        figures.put("turn_rate_waist_dps", world[2]);
    }
}

/// Time from `a` to `b` and its standard deviation, s: √(var a + var b + apart²) for clocks that are `apart_s` apart, which
/// for equal sensors is √(2 (dt²/12 + sync²)).
fn delay(a: &RatePeak, b: &RatePeak, apart_s: f64) -> (f64, f64) {
    ((b.t_ns - a.t_ns) / 1e9, (a.variance_s2 + b.variance_s2 + apart_s * apart_s).sqrt())
}

/// Kendall's tau between the peaks' order and the chain's: 1 strictly from waist to racket, −1 reversed. Pairs that are
/// not resolved count as ties, neither for nor against. `None` if nothing is resolved.
fn order_tau(peaks: &[Option<RatePeak>; 4], clocks_s: [f64; 4], sigmas: f64) -> Option<f64> {
    let there: Vec<(usize, &RatePeak)> =
        peaks.iter().enumerate().filter_map(|(place, peak)| Some((place, peak.as_ref()?))).collect();
    let (mut sum, mut pairs, mut resolved) = (0, 0, 0);
    for (i, (at, a)) in there.iter().enumerate() {
        for (to, b) in &there[i + 1..] {
            let (delay_s, sigma_s) = delay(a, b, clocks_s[*at].hypot(clocks_s[*to]));
            pairs += 1;
            if delay_s.abs() >= sigmas * sigma_s {
                resolved += 1;
                sum += if delay_s > 0.0 { 1 } else { -1 };
            }
        }
    }
    (resolved > 0).then(|| f64::from(sum) / f64::from(pairs))
}

/// Angular rate of a sensor at any instant, °/s.
fn rate_at(signal: &Signal, motion: &Motion, t_ns: f64) -> Option<f64> {
    let island = signal.island_at(t_ns as i64)?;
    let position = (t_ns - island.t0_ns as f64) / signal.step_ns as f64;
    let index = (position.floor().max(0.0) as usize).min(island.len.checked_sub(2)?);
    let rate = |i: usize| norm([motion.smooth[i][3], motion.smooth[i][4], motion.smooth[i][5]]);
    let (a, b) = (rate(island.start + index), rate(island.start + index + 1));
    Some(a + (b - a) * (position - index as f64))
}

/// Energy figures: the waist's peak of rotation, the wrist's peak of movement, and their ratio. See the module's text.
fn energy(swing: &Swing, chain: &Chain<'_>, figures: &mut Figures) {
    let k = &chain.params.kinetics;
    let until_ns = swing.impact_ns.saturating_sub(20_000_000);
    let waist_j = chain.sensors[0].and_then(|(signal, motion)| {
        if !signal.has_gyro {
            return None;
        }
        let (_, range) = signal.window(swing.start_ns, until_ns, until_ns)?;
        let points = &motion.smooth[range];
        let top = points.iter().map(|v| norm([v[3], v[4], v[5]])).fold(0.0, f64::max);
        let usable = points.iter().all(|v| v[GAP] == 0.0);
        usable.then(|| 0.5 * k.waist_inertia_kgm2 * top.to_radians().powi(2))
    });
    let wrist_j = chain.sensors[2].and_then(|(signal, motion)| {
        let speed = top_speed(signal, motion, swing.start_ns, until_ns)?;
        figures.put("wrist_speed_mps", speed);
        Some(0.5 * k.wrist_mass_kg * speed * speed)
    });
    figures.put_some("energy_waist_j", waist_j);
    figures.put_some("energy_wrist_j", wrist_j);
    if let (Some(waist), Some(wrist)) = (waist_j, wrist_j)
        && waist > 0.0
    {
        figures.put("energy_ratio", (wrist / waist).min(1.0));
    }
}

/// The largest speed that a sensor reaches between two instants if it stands still at the first, m/s.
fn top_speed(signal: &Signal, motion: &Motion, from_ns: i64, to_ns: i64) -> Option<f64> {
    // Longer than this, gravity that is off by a degree has grown to a third of a metre per second.
    const LONGEST_S: f64 = 2.0;
    let (_, range) = signal.window(from_ns, to_ns, to_ns)?;
    let dt = signal.step_s();
    if motion.gravity.is_empty() || range.len() < 3 || range.len() as f64 * dt > LONGEST_S {
        return None;
    }
    if signal.grid[range.clone()].iter().any(|v| v[GAP] > 0.0) {
        return None;
    }
    let still: [f64; 3] = motion.gravity[range.start].map(f64::from);
    // Columns: the sensor's axes in the space of the first instant.
    let mut axes = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    let dynamic = |axes: &[[f64; 3]; 3], v: &Lanes| -> [f64; 3] {
        std::array::from_fn(|c| {
            axes[0][c] * f64::from(v[0]) + axes[1][c] * f64::from(v[1]) + axes[2][c] * f64::from(v[2]) - still[c]
        })
    };
    let mut velocity = [0.0_f64; 3];
    let mut top = 0.0_f64;
    let mut last = dynamic(&axes, &signal.grid[range.start]);
    for i in range.start + 1..range.end {
        let (a, b) = (&signal.grid[i - 1], &signal.grid[i]);
        let turn: [f64; 3] = std::array::from_fn(|c| f64::from(f32::midpoint(a[3 + c], b[3 + c])).to_radians() * dt);
        axes = turned(&axes, turn);
        let now = dynamic(&axes, b);
        for c in 0..3 {
            velocity[c] += 0.5 * (last[c] + now[c]) * dt;
        }
        last = now;
        top = top.max((velocity[0].powi(2) + velocity[1].powi(2) + velocity[2].powi(2)).sqrt());
    }
    Some(top)
}

/// The axes after a rotation by `turn` (rad, in the turning axes): R · exp([turn]×), by Rodrigues.
fn turned(axes: &[[f64; 3]; 3], turn: [f64; 3]) -> [[f64; 3]; 3] {
    let [x, y, z] = turn;
    let angle = (x * x + y * y + z * z).sqrt();
    if angle < 1e-12 {
        return *axes;
    }
    let (s, c) = (angle.sin() / angle, (1.0 - angle.cos()) / (angle * angle));
    let step = [
        [1.0 - c * (y * y + z * z), c * x * y + s * z, c * x * z - s * y],
        [c * x * y - s * z, 1.0 - c * (x * x + z * z), c * y * z + s * x],
        [c * x * z + s * y, c * y * z - s * x, 1.0 - c * (x * x + y * y)],
    ];
    std::array::from_fn(|column| {
        std::array::from_fn(|row| (0..3).map(|inner| axes[inner][row] * step[column][inner]).sum())
    })
}

/// Speed of the strings' centre from the rotation across the shaft, |ω − (ω·s)s| · r, the largest of the swing.
///
/// Where the recording does not show the shaft, the whole rotation is taken, and the figure is too high by what the
/// player turns the racket about its shaft (`racket_shaft_known` is 0). Where the gyro was at its limit at the fastest
/// moment, the figure is a lower bound (`racket_speed_clipped` is 1).
fn racket_head_speed(swing: &Swing, signal: &Signal, motion: &Motion, chain: &Chain<'_>, figures: &mut Figures) {
    // Scale errors of such gyros; from the sensor to the strings' centre are 0.50 to 0.55 m, -4 to +6% of the setting.
    const SCALE: f64 = 0.02;
    let k = &chain.params.kinetics;
    let ns = |seconds: f64| (seconds * 1e9) as i64;
    let from = swing.start_ns.max(swing.impact_ns.saturating_sub(ns(k.before_s)));
    let window = signal.window(from, swing.impact_ns, swing.impact_ns.saturating_add(ns(k.after_s)));
    let Some((_, range)) = window.filter(|_| signal.has_gyro) else { return };
    let points = &motion.smooth[range];
    if points.iter().any(|v| v[GAP] > 0.0) {
        return;
    }
    let across = |v: &Lanes| {
        let w = [f64::from(v[3]), f64::from(v[4]), f64::from(v[5])];
        let along = chain.shaft.map_or(0.0, |shaft| w[0] * shaft[0] + w[1] * shaft[1] + w[2] * shaft[2]);
        (w[0] * w[0] + w[1] * w[1] + w[2] * w[2] - along * along).max(0.0).sqrt()
    };
    let Some(top) = points.iter().reduce(|best, v| if across(v) > across(best) { v } else { best }) else { return };
    let speed = |dps: f64, radius_m: f64| dps.to_radians() * radius_m;
    let (near_m, far_m) = (k.racket_radius_m * 0.96, k.racket_radius_m * 1.06);
    // Without the shaft, up to two fifths of the rotation may be about it (pronation).
    let share = if chain.shaft.is_some() { 1.0 } else { 0.6 };
    let raw = signal.raw_window(from, swing.impact_ns.saturating_add(ns(k.after_s)));
    let beyond = beyond_limit(signal, raw, across(top));
    let clipped = beyond.is_some();
    let highest = beyond.unwrap_or_else(|| across(top));
    figures.put("racket_head_speed_mps", speed(across(top), k.racket_radius_m));
    figures.put("racket_head_speed_low_mps", speed(across(top) * share * (1.0 - SCALE), near_m));
    figures.put("racket_head_speed_high_mps", speed(highest * (1.0 + SCALE), far_m));
    figures.put("racket_shaft_known", f64::from(u8::from(chain.shaft.is_some())));
    figures.put("racket_speed_clipped", f64::from(u8::from(clipped)));
}

/// How high the rate may have gone if the gyro stood at its limit: each flank goes on as steeply as it was at its steepest,
/// to the middle of the clipped stretch. A pulse is rounder than that, so it is an upper bound. `None` if it never did.
fn beyond_limit(signal: &Signal, raw: std::ops::Range<usize>, limit_dps: f64) -> Option<f64> {
    let at_limit = |i: usize| signal.gyro_clipped.get(i).copied().unwrap_or(false);
    let first = raw.clone().find(|&i| at_limit(i))?;
    let last = raw.clone().rev().find(|&i| at_limit(i))?;
    let clipped_s = span_s(signal.raw_t_ns[first], signal.raw_t_ns[last]) + signal.sample_period_s();
    let rate = |i: usize| norm([signal.raw[i][3], signal.raw[i][4], signal.raw[i][5]]);
    let steepest = (raw.start..raw.end - 1)
        .map(|i| (rate(i + 1) - rate(i)).abs() / span_s(signal.raw_t_ns[i], signal.raw_t_ns[i + 1]))
        .fold(0.0, f64::max);
    Some(limit_dps + steepest * 0.5 * clipped_s)
}

/// The direction of the racket's shaft in sensor space: in fast swings the acceleration of a handle points along it,
/// towards the hand. The principal direction of acceleration around the swings' peaks, if it clearly is one.
pub(crate) fn shaft_axis(signal: &Signal, swings: &[Swing]) -> Option<[f64; 3]> {
    const SWINGS_MIN: usize = 3;
    const SHARE_MIN: f64 = 0.75;
    if !signal.has_acc || swings.len() < SWINGS_MIN {
        return None;
    }
    let mut moment = [[0.0_f64; 3]; 3];
    for swing in swings {
        // Before the hit, which points anywhere.
        let from = swing.impact_ns.saturating_sub(60_000_000);
        let to = swing.impact_ns.saturating_sub(20_000_000);
        let Some((_, range)) = signal.window(from, swing.impact_ns, to) else { continue };
        for v in signal.grid[range].iter().filter(|v| v[GAP] == 0.0) {
            let a = [f64::from(v[0]), f64::from(v[1]), f64::from(v[2])];
            // Gravity blurs the direction where the swing is slow; weigh by the square of acceleration.
            if a.iter().map(|c| c * c).sum::<f64>() < (3.0 * G).powi(2) {
                continue;
            }
            for (r, row) in moment.iter_mut().enumerate() {
                for (c, cell) in row.iter_mut().enumerate() {
                    *cell += a[r] * a[c];
                }
            }
        }
    }
    principal_axis(&moment).filter(|(_, share)| *share >= SHARE_MIN).map(|(axis, _)| axis)
}

/// The direction in which a moment matrix is largest, and its share of the trace.
fn principal_axis(moment: &[[f64; 3]; 3]) -> Option<([f64; 3], f64)> {
    let trace = moment[0][0] + moment[1][1] + moment[2][2];
    if trace <= 0.0 {
        return None;
    }
    // Power iteration from the largest diagonal; the share that callers demand makes 64 rounds plenty.
    let start = (0..3).max_by(|&a, &b| moment[a][a].total_cmp(&moment[b][b]))?;
    let mut axis: [f64; 3] = std::array::from_fn(|c| f64::from(u8::from(c == start)));
    let mut value = 0.0;
    for _ in 0..64 {
        let next: [f64; 3] = std::array::from_fn(|r| (0..3).map(|c| moment[r][c] * axis[c]).sum());
        value = next.iter().map(|c| c * c).sum::<f64>().sqrt();
        if value <= 0.0 {
            return None;
        }
        axis = next.map(|c| c / value);
    }
    Some((axis, value / trace))
}

/// Spectral arc length of a movement's rate (Balasubramanian 2015): nearer to 0 is smoother.
///
/// The spectrum is normalised by its value at 0 Hz, cut at `cutoff_hz` and after its last value above `threshold`.
pub(crate) fn sparc(rate: &[f64], dt: f64, cutoff_hz: f64, threshold: f64) -> Option<f64> {
    // Frequency step of the spectrum: zero padding to ten seconds' worth of samples.
    const STEP_HZ: f64 = 0.1;
    if rate.len() < 8 {
        return None;
    }
    let bins = (cutoff_hz / STEP_HZ).round() as usize + 1;
    let power = goertzel(rate, bins, |bin| STEP_HZ * bin as f64 * dt);
    let spectrum: Vec<f64> = power.into_iter().map(|power| power.max(0.0).sqrt()).collect();
    let whole = spectrum[0];
    if whole <= 0.0 {
        return None;
    }
    let last = spectrum.iter().rposition(|m| m / whole >= threshold)?;
    if last == 0 {
        return None;
    }
    let step = 1.0 / last as f64;
    let arc: f64 = spectrum[..=last].windows(2).map(|w| (step * step + ((w[1] - w[0]) / whole).powi(2)).sqrt()).sum();
    Some(-arc)
}

/// Log dimensionless jerk of angular rate: −ln(T³/ω_peak² ∫ (d²ω/dt²)² dt); nearer to 0 is smoother.
pub(crate) fn ldlj(rate: &[f64], dt: f64) -> Option<f64> {
    let bend = savitzky_golay(rate, 7, 3, 2)?;
    let top = rate.iter().copied().fold(0.0, f64::max);
    let length = rate.len() as f64 * dt;
    let integral: f64 = bend.iter().map(|b| (b / (dt * dt)).powi(2) * dt).sum();
    (top > 0.0 && integral > 0.0).then(|| -(length.powi(3) / (top * top) * integral).ln())
}

/// Log dimensionless jerk of acceleration: −ln(T/a_peak² ∫ ‖da/dt‖² dt), a_peak of the dynamic part; nearer to 0 is smoother.
fn ldlj_of_acceleration(points: &[Lanes], dynamic: &[f64], dt: f64) -> Option<f64> {
    let top = dynamic.iter().copied().fold(0.0, f64::max);
    let integral: f64 =
        points.windows(2).map(|w| norm([w[1][0] - w[0][0], w[1][1] - w[0][1], w[1][2] - w[0][2]]).powi(2) / dt).sum();
    let length = points.len() as f64 * dt;
    (points.len() >= 8 && top > 0.0 && integral > 0.0).then(|| -(length / (top * top) * integral).ln())
}

/// Largest minus smallest of angles given in time order, °, after unwrapping steps over ±180°: the range of one movement.
/// Values that are not finite or beyond two turns are passed over; fewer than two values give `None`.
pub(crate) fn unwrapped_range(angles: impl Iterator<Item = f32>) -> Option<f64> {
    let mut last: Option<(f64, f64)> = None;
    let mut bounds: Option<(f64, f64)> = None;
    let mut count = 0_usize;
    for angle in angles.map(f64::from).filter(|a| a.abs() <= 720.0) {
        let unwrapped = match last {
            None => angle,
            Some((plain, unwrapped)) => {
                let step = angle - plain;
                unwrapped + step - 360.0 * (step / 360.0).round()
            }
        };
        last = Some((angle, unwrapped));
        count += 1;
        let (low, high) = bounds.unwrap_or((unwrapped, unwrapped));
        bounds = Some((low.min(unwrapped), high.max(unwrapped)));
    }
    bounds.filter(|_| count >= 2).map(|(low, high)| high - low)
}

/// The smallest arc, °, that holds every angle of a session, 0 to 360: what a range over many movements is once ±180° is
/// no border. Unwrapping a whole session instead would add up a turn for every sample lost at the wrong moment.
///
/// Values that are not finite or beyond two turns are passed over; fewer than two values give `None`.
pub(crate) fn smallest_arc(angles: impl Iterator<Item = f32>) -> Option<f64> {
    // Smallest and largest value of each twelfth of a degree: a gap wider than that has its ends in two of them, so that
    // nothing needs to be sorted. On a circle without such a gap the answer is 360 to within it.
    const PARTS: usize = 4320;
    let mut parts = vec![(f64::INFINITY, f64::NEG_INFINITY); PARTS];
    let mut count = 0_usize;
    for angle in angles.map(f64::from).filter(|a| a.abs() <= 720.0) {
        let around = angle - 360.0 * (angle / 360.0).floor();
        let part = &mut parts[((around / 360.0 * PARTS as f64) as usize).min(PARTS - 1)];
        part.0 = part.0.min(around);
        part.1 = part.1.max(around);
        count += 1;
    }
    if count < 2 {
        return None;
    }
    let mut filled = parts.into_iter().filter(|part| part.0 <= part.1);
    let first = filled.next()?;
    let (last, widest) = filled.fold((first.1, 0.0_f64), |(last, widest), part| (part.1, widest.max(part.0 - last)));
    let across = first.0 + 360.0 - last;
    Some(360.0 - widest.max(across))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_are_unwrapped_and_bad_ones_passed_over() {
        assert_eq!(unwrapped_range([170.0, 179.0, -179.0, -170.0].into_iter()), Some(20.0));
        assert_eq!(unwrapped_range([10.0, f32::NAN, 1e9, 30.0].into_iter()), Some(20.0));
        assert_eq!(unwrapped_range([10.0].into_iter()), None);
        assert_eq!(unwrapped_range(std::iter::empty()), None);
        assert_eq!(smallest_arc([170.0, -179.0, 179.0, -170.0].into_iter()), Some(20.0));
        assert_eq!(smallest_arc([10.0, f32::NAN, 1e9, 30.0, 20.0].into_iter()), Some(20.0));
        assert_eq!(smallest_arc([5.0, 5.0].into_iter()), Some(0.0));
        assert_eq!(smallest_arc([5.0].into_iter()), None);
    }

    #[test]
    fn a_smooth_pulse_is_smoother_than_one_with_tremor() {
        let pulse = |tremor: f64| -> Vec<f64> {
            (0..80)
                .map(|i| {
                    let t = f64::from(i) / 80.0;
                    let bell = (std::f64::consts::PI * t).sin().powi(2);
                    500.0 * bell * (1.0 + tremor * (std::f64::consts::TAU * 6.0 * t * 0.8).sin())
                })
                .collect()
        };
        let (smooth, rough) = (pulse(0.0), pulse(0.4));
        let sparc_of = |rate: &[f64]| sparc(rate, 0.01, 10.0, 0.05).unwrap();
        let ldlj_of = |rate: &[f64]| ldlj(rate, 0.01).unwrap();
        assert!(sparc_of(&smooth) > sparc_of(&rough), "{} {}", sparc_of(&smooth), sparc_of(&rough));
        assert!(ldlj_of(&smooth) > ldlj_of(&rough));
        assert!(sparc_of(&smooth) < 0.0);
        // Amplitude does not matter.
        let louder: Vec<f64> = smooth.iter().map(|v| v * 3.0).collect();
        assert!((sparc_of(&louder) - sparc_of(&smooth)).abs() < 1e-9);
        assert!((ldlj_of(&louder) - ldlj_of(&smooth)).abs() < 1e-9);
    }

    #[test]
    fn tau_counts_what_is_resolved() {
        let at = |ms: f64| Some(RatePeak { t_ns: ms * 1e6, dps: 1.0, variance_s2: 1e-6, clipped: false });
        let tau = |peaks: [Option<RatePeak>; 4]| order_tau(&peaks, [0.0; 4], 2.0);
        assert_eq!(tau([at(0.0), at(50.0), at(90.0), at(120.0)]), Some(1.0));
        assert_eq!(tau([at(120.0), at(90.0), at(50.0), at(0.0)]), Some(-1.0));
        assert_eq!(tau([at(0.0), at(0.5), at(1.0), at(0.2)]), None);
        assert_eq!(tau([at(0.0), None, None, at(40.0)]), Some(1.0));
        assert_eq!(tau([at(0.0), None, None, None]), None);
        // One tie of six pairs.
        assert_eq!(tau([at(0.0), at(50.0), at(90.0), at(91.0)]), Some(5.0 / 6.0));
    }

    #[test]
    fn turning_by_full_circles_comes_back() {
        let mut axes = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        let turn = [0.3, -0.2, 0.5].map(|c: f64| c * std::f64::consts::TAU / (0.09_f64 + 0.04 + 0.25).sqrt() / 100.0);
        for _ in 0..100 {
            axes = turned(&axes, turn);
        }
        for (i, axis) in axes.iter().enumerate() {
            for (j, value) in axis.iter().enumerate() {
                assert!((value - f64::from(u8::from(i == j))).abs() < 1e-9);
            }
        }
        // A quarter turn about z carries x to y.
        let quarter =
            turned(&[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [0.0, 0.0, std::f64::consts::FRAC_PI_2]);
        assert!((quarter[0][1] - 1.0).abs() < 1e-12, "{quarter:?}");
    }
}
