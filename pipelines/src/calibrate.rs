//! Units, gravity, rate: from raw samples to calibrated ones on an even grid.
//!
//! What comes in is a [`SensorTrack`] as sent, which may be empty, unsorted, doubled, full of holes and NaN. What goes
//! out is a `Signal`: acceleration in m/s², angular velocity in °/s without its resting bias, on a grid of equal
//! steps, in islands separated by the holes that are too long to bridge, each point flagged where it was interpolated
//! across a hole or taken from saturated samples.

use schemas::{SensorRole, SensorTrack};

use crate::analysis::SensorQuality;
use crate::filter::{Biquad, Lanes, zero_phase};
use crate::params::CalibrateParams;

/// Standard gravity, m/s².
pub const G: f64 = 9.80665;

/// Lane of the flag "interpolated across a hole".
pub(crate) const GAP: usize = 6;
/// Lane of the flag "a component stood at the sensor's limit".
pub(crate) const SATURATED: usize = 7;

const NS_PER_S: f64 = 1e9;

/// The factor that turns the samples' acceleration into m/s²: 1 (they are m/s²) or 9.80665 (they are g), decided from
/// the resting magnitude; `None` if it is near neither.
///
/// The resting magnitude is the median of the quietest quarter of short stretches, so that a recording that is nearly
/// all movement still shows what the sensor reads between. Components that are not finite are passed over.
#[must_use]
pub fn acc_to_mps2(acc: &[[f32; 3]]) -> Option<f32> {
    let usable = |a: &&[f32; 3]| a.iter().all(|c| c.is_finite()) && a.iter().any(|c| *c != 0.0);
    let usable: Vec<[f32; 3]> = acc.iter().filter(usable).copied().collect();
    unit_at_rest(&usable, |a| *a)
}

/// The same of samples that are all usable; `acc` takes the acceleration out of one.
fn unit_at_rest<T>(samples: &[T], acc: impl Fn(&T) -> [f32; 3]) -> Option<f32> {
    const STRETCH: usize = 8;
    // Enough stretches for a stable median; an hour at 200 Hz has 90,000.
    const STRETCHES_MAX: usize = 4096;
    let every = (samples.len() / STRETCH).div_ceil(STRETCHES_MAX).max(1);
    let mut stretches: Vec<(f64, f64)> = samples
        .chunks_exact(STRETCH)
        .step_by(every)
        .filter_map(|stretch| {
            let stretch: [f64; STRETCH] = std::array::from_fn(|i| norm(acc(&stretch[i])));
            let mean = stretch.iter().sum::<f64>() / STRETCH as f64;
            let spread = stretch.iter().map(|m| (m - mean).abs()).sum::<f64>() / STRETCH as f64;
            (mean > 0.0).then(|| (spread / mean, mean))
        })
        .collect();
    stretches.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let quiet = stretches.len().div_ceil(4);
    let mut resting: Vec<f64> = stretches[..quiet].iter().map(|&(_, mean)| mean).collect();
    // At rest a sensor is within its bias and scale error of 1 g; in movement the median strays further.
    let near = |magnitude: f64, tolerance: f64| -> Option<f32> {
        [(1.0, G as f32), (G, 1.0)]
            .into_iter()
            .find(|&(unit, _)| (unit / tolerance..=unit * tolerance).contains(&magnitude))
            .map(|(_, factor)| factor)
    };
    median(&mut resting).and_then(|rest| near(rest, 1.25)).or_else(|| {
        let mut all: Vec<f64> = samples.iter().map(|sample| norm(acc(sample))).collect();
        median(&mut all).and_then(|middle| near(middle, 1.4))
    })
}

/// One sensor on the working grid.
#[derive(Clone, Debug)]
pub(crate) struct Signal {
    pub(crate) role: SensorRole,
    /// Step of the grid, ns.
    pub(crate) step_ns: i64,
    /// Stretches without a hole too long to bridge, in time order.
    pub(crate) islands: Vec<Island>,
    /// Acceleration (m/s²) x, y, z, angular velocity (°/s) x, y, z, flags [`GAP`] and [`SATURATED`] (0 to 1).
    pub(crate) grid: Vec<Lanes>,
    /// The clean samples at their own times: calibrated like the grid, not filtered.
    pub(crate) raw_t_ns: Vec<i64>,
    pub(crate) raw: Vec<Lanes>,
    /// Of each clean sample: a component of the gyro stood at its limit. Empty if none ever did.
    pub(crate) gyro_clipped: Vec<bool>,
    /// Standard deviation of the gyro's noise in one component, °/s.
    pub(crate) gyro_noise_dps: f64,
    /// Standard deviation of the time stamps about an even rhythm, s.
    pub(crate) jitter_s: f64,
    /// Measured rate, Hz; 0 if unknown.
    pub(crate) rate_hz: f64,
    /// Acceleration is there and its unit is decided.
    pub(crate) has_acc: bool,
    pub(crate) has_gyro: bool,
    pub(crate) quality: SensorQuality,
    pub(crate) faults: Faults,
}

/// What was wrong with the samples, beyond [`SensorQuality`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Samples whose time ran backwards.
    pub(crate) unsorted: bool,
    /// Samples with the time of their predecessor, dropped.
    pub(crate) duplicates: usize,
    /// Samples with a component beyond belief, replaced.
    pub(crate) implausible: usize,
    /// Samples after the longest recording that is analysed, dropped.
    pub(crate) beyond_limit: usize,
}

/// A stretch of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Island {
    /// First index in [`Signal::grid`].
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// Time of the first point, ns since session start.
    pub(crate) t0_ns: i64,
}

impl Island {
    pub(crate) fn end(&self) -> usize {
        self.start + self.len
    }

    /// Time of the last point, ns.
    pub(crate) fn last_ns(&self, step_ns: i64) -> i64 {
        self.t0_ns + (self.len as i64 - 1) * step_ns
    }
}

impl Signal {
    /// Time of grid point `index`, which must lie in `island`.
    pub(crate) fn time_ns(&self, island: &Island, index: usize) -> i64 {
        island.t0_ns + (index - island.start) as i64 * self.step_ns
    }

    /// The island that `t_ns` lies in.
    pub(crate) fn island_at(&self, t_ns: i64) -> Option<&Island> {
        let after = self.islands.partition_point(|island| island.t0_ns <= t_ns);
        let island = self.islands[..after].last()?;
        (t_ns <= island.last_ns(self.step_ns)).then_some(island)
    }

    /// The grid points inside `from_ns..=to_ns` of the island that `at_ns` lies in; the interval is cut to the island.
    pub(crate) fn window(&self, from_ns: i64, at_ns: i64, to_ns: i64) -> Option<(&Island, std::ops::Range<usize>)> {
        let island = self.island_at(at_ns)?;
        let last = island.last_ns(self.step_ns);
        let from = from_ns.clamp(island.t0_ns, last);
        let to = to_ns.clamp(island.t0_ns, last);
        let first = island.start + ((from - island.t0_ns) as u64).div_ceil(self.step_ns as u64) as usize;
        let end = island.start + ((to - island.t0_ns) / self.step_ns) as usize + 1;
        (first < end).then_some((island, first..end))
    }

    /// The clean samples inside `from_ns..=to_ns`.
    pub(crate) fn raw_window(&self, from_ns: i64, to_ns: i64) -> std::ops::Range<usize> {
        let from = self.raw_t_ns.partition_point(|&t| t < from_ns);
        // The end is near the start: looked for in steps that double.
        let rest = &self.raw_t_ns[from..];
        let mut reach = 16;
        while reach < rest.len() && rest[reach] <= to_ns {
            reach *= 2;
        }
        from..from + rest[..rest.len().min(reach)].partition_point(|&t| t <= to_ns)
    }

    /// Step of the grid, s.
    pub(crate) fn step_s(&self) -> f64 {
        self.step_ns as f64 / NS_PER_S
    }

    /// Time that the grid covers, s.
    pub(crate) fn covered_s(&self) -> f64 {
        self.grid.len() as f64 * self.step_s()
    }

    /// Time from one sample of the sensor to the next, s; the grid's step where it is unknown.
    pub(crate) fn sample_period_s(&self) -> f64 {
        if self.rate_hz > 0.0 { 1.0 / self.rate_hz } else { self.step_s() }
    }
}

/// Samples of one sensor that can be used.
struct Clean {
    t_ns: Vec<i64>,
    values: Vec<Lanes>,
    gyro_clipped: Vec<bool>,
    has_acc: bool,
    has_gyro: bool,
    factor: Option<f32>,
    saturated: usize,
    faults: Faults,
}

/// Calibrates one sensor. `None` if it has no usable sample.
pub(crate) fn calibrate(role: SensorRole, track: &SensorTrack, params: &CalibrateParams) -> Option<Signal> {
    let Clean { t_ns, values, gyro_clipped, has_acc, has_gyro, factor, saturated, mut faults } = clean(track, params)?;
    let step_ns = (NS_PER_S / f64::from(params.grid_hz)).round() as i64;
    let timing = Timing::measure(&t_ns, params);
    let mut signal = Signal {
        role,
        step_ns,
        islands: Vec::new(),
        grid: Vec::new(),
        rate_hz: timing.rate_hz.unwrap_or(0.0),
        has_acc,
        has_gyro,
        quality: SensorQuality {
            samples: track.len(),
            rate_hz: timing.rate_hz,
            gap_s: timing.gap_s,
            gaps: timing.gaps,
            saturated_share: saturated as f64 / values.len() as f64,
            acc_to_mps2: factor,
        },
        gyro_noise_dps: gyro_noise_dps(&values),
        jitter_s: jitter_s(&t_ns),
        raw_t_ns: t_ns,
        raw: values,
        gyro_clipped,
        faults: Faults::default(),
    };
    faults.beyond_limit = resample(&mut signal, &timing, params);
    signal.faults = faults;
    Some(signal)
}

fn clean(track: &SensorTrack, params: &CalibrateParams) -> Option<Clean> {
    // The vectors have one length by contract; a caller that breaks it loses the tail, nothing worse.
    let n = track.t_ns.len().min(track.acc.len()).min(track.gyro.len());
    let mut faults = Faults::default();
    let sorted = track.t_ns[..n].is_sorted();
    let order: Option<Vec<usize>> = (!sorted).then(|| {
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by_key(|&i| track.t_ns[i]);
        order
    });
    faults.unsorted = !sorted;

    let mut t_ns: Vec<i64> = Vec::with_capacity(n);
    let mut values: Vec<Lanes> = Vec::with_capacity(n);
    let mut acc_there = Vec::with_capacity(n);
    let mut gyro_there = Vec::with_capacity(n);
    let (mut has_acc, mut has_gyro) = (false, false);
    for first in (0..n).step_by(BLOCK) {
        let block = first..(first + BLOCK).min(n);
        let (t, acc, gyro) = (&track.t_ns[block.clone()], &track.acc[block.clone()], &track.gyro[block.clone()]);
        // Nearly always all of it is as it should be, and taken at once.
        if sorted && t_ns.last() != t.first() && is_plain(t, acc, gyro, params) {
            t_ns.extend_from_slice(t);
            values.extend(acc.iter().zip(gyro).map(|(a, g)| [a[0], a[1], a[2], g[0], g[1], g[2], 0.0, 0.0]));
            acc_there.resize(t_ns.len(), true);
            gyro_there.resize(t_ns.len(), true);
            (has_acc, has_gyro) = (true, true);
            continue;
        }
        for k in block {
            let i = order.as_ref().map_or(k, |order| order[k]);
            let t = track.t_ns[i];
            let (acc, gyro) = (track.acc[i], track.gyro[i]);
            let (acc_within, gyro_ok) = (within(acc, params.acc_limit), within(gyro, params.gyro_limit_dps));
            if !(acc_within && gyro_ok) {
                let beyond = |v: [f32; 3], limit: f32| v.iter().any(|c| c.abs() > limit);
                faults.implausible += usize::from(beyond(acc, params.acc_limit) || beyond(gyro, params.gyro_limit_dps));
            }
            // All zero is the firmware's mark for a bad acceleration: no sensor in free flight reads exactly zero thrice.
            let acc_ok = acc_within && acc.iter().any(|c| *c != 0.0);
            if !acc_ok && !gyro_ok {
                continue;
            }
            if t_ns.last() == Some(&t) {
                faults.duplicates += 1;
                continue;
            }
            has_acc |= acc_ok;
            has_gyro |= gyro_ok;
            t_ns.push(t);
            values.push([acc[0], acc[1], acc[2], gyro[0], gyro[1], gyro[2], 0.0, 0.0]);
            acc_there.push(acc_ok);
            gyro_there.push(gyro_ok);
        }
    }
    if t_ns.is_empty() {
        return None;
    }
    fill(&t_ns, &mut values, &acc_there, 0);
    fill(&t_ns, &mut values, &gyro_there, 3);

    let factor =
        if has_acc { params.acc_to_mps2.or_else(|| unit_at_rest(&values, |v| [v[0], v[1], v[2]])) } else { None };
    let (saturated, gyro_clipped) = flag_saturated(&mut values, factor);
    // Acceleration of unknown unit is no measurement; nothing is computed from it.
    let scale = factor.unwrap_or(0.0);
    let bias = gyro_bias_dps(&values);
    // All lanes alike, which the machine does at once.
    let scales = [scale, scale, scale, 1.0, 1.0, 1.0, 1.0, 1.0];
    let offsets = [0.0, 0.0, 0.0, bias[0], bias[1], bias[2], 0.0, 0.0];
    for v in &mut values {
        for lane in 0..8 {
            v[lane] = v[lane] * scales[lane] - offsets[lane];
        }
    }
    Some(Clean { t_ns, values, gyro_clipped, has_acc: factor.is_some(), has_gyro, factor, saturated, faults })
}

/// Samples that are looked at together.
const BLOCK: usize = 64;

/// True if nothing is to be said about any sample of a block: all are there, within the limits, one after the other.
fn is_plain(t_ns: &[i64], acc: &[[f32; 3]], gyro: &[[f32; 3]], params: &CalibrateParams) -> bool {
    // None lazily, as in `within`.
    let later = |t: &[i64]| t[0] < t[1];
    let measured = |a: [f32; 3]| a[0].abs() + a[1].abs() + a[2].abs() > 0.0;
    let one_by_one = t_ns.windows(2).fold(true, |so_far, t| so_far & later(t));
    let acc_ok = acc.iter().fold(true, |so_far, a| so_far & within(*a, params.acc_limit) & measured(*a));
    let gyro_ok = gyro.iter().fold(true, |so_far, g| so_far & within(*g, params.gyro_limit_dps));
    one_by_one & acc_ok & gyro_ok
}

/// True if all components are numbers within the limit.
fn within(v: [f32; 3], limit: f32) -> bool {
    // Not lazily: all three, without a jump, are cheaper than one jump that is sometimes taken.
    (v[0].abs() <= limit) & (v[1].abs() <= limit) & (v[2].abs() <= limit)
}

/// Replaces the three lanes from `first` where they are missing: by a line between the neighbours that are there, by
/// the nearest one at the ends, by 0 if there is none.
fn fill(t_ns: &[i64], values: &mut [Lanes], there: &[bool], first: usize) {
    if !there.contains(&false) {
        return;
    }
    let mut last: Option<usize> = None;
    let mut i = 0;
    while i < values.len() {
        if there[i] {
            last = Some(i);
            i += 1;
            continue;
        }
        let next = (i..values.len()).find(|&j| there[j]);
        let until = next.unwrap_or(values.len());
        let neighbours = match (last, next) {
            (Some(a), Some(b)) => Some((a, b)),
            (Some(only), None) | (None, Some(only)) => Some((only, only)),
            (None, None) => None,
        };
        for j in i..until {
            let Some((a, b)) = neighbours else {
                // The sensor measures nothing of the kind; that is no hole.
                values[j][first..first + 3].fill(0.0);
                continue;
            };
            let whole = span_s(t_ns[a], t_ns[b]);
            let share = if whole > 0.0 { (span_s(t_ns[a], t_ns[j]) / whole) as f32 } else { 0.0 };
            let (from, to) = (values[a], values[b]);
            for (lane, value) in values[j].iter_mut().enumerate().skip(first).take(3) {
                *value = from[lane] + (to[lane] - from[lane]) * share;
            }
            // A component that was not measured is treated like a hole in time.
            values[j][GAP] = 1.0;
        }
        i = until;
    }
}

/// Flags the samples in which a component stands at the sensor's limit and returns their number, and for each sample
/// whether it was one of the gyro's (empty if none was).
///
/// The limit is not in the protocol. It is taken as reached where the largest component of the recording is within 1%
/// of a usual full scale and occurs in three samples or more, or where it forms a plateau of three equal values.
fn flag_saturated(values: &mut [Lanes], factor: Option<f32>) -> (usize, Vec<bool>) {
    const ACC_SCALES_G: [f32; 6] = [2.0, 4.0, 8.0, 16.0, 24.0, 32.0];
    const GYRO_SCALES_DPS: [f32; 6] = [125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0];
    // A plateau below these is a resting sensor with coarse digits, not a limit.
    const ACC_PLATEAU_G: f32 = 1.8;
    const GYRO_PLATEAU_DPS: f32 = 100.0;
    let to_g = factor.map_or(0.0, |factor| factor / G as f32);
    let (mut saturated, mut gyro_clipped) = (0, Vec::new());
    let top = |v: &Lanes, first: usize| v[first].max(v[first + 1]).max(v[first + 2]);
    // The largest of each block, so that only the few blocks which reach the limit are looked at again.
    let tops: Vec<Lanes> = values.chunks(BLOCK).map(largest).collect();
    let overall = largest(&tops);
    let kinds = [(0, ACC_SCALES_G, to_g, ACC_PLATEAU_G), (3, GYRO_SCALES_DPS, 1.0, GYRO_PLATEAU_DPS)];
    for (first, scales, unit, least) in kinds {
        let limit = top(&overall, first);
        if limit * unit < least {
            continue;
        }
        let at_limit = |v: &Lanes| top(&v.map(f32::abs), first) >= 0.997 * limit;
        let reaching: Vec<usize> = (0..values.len().div_ceil(BLOCK))
            .filter(|&block| top(&tops[block], first) >= 0.997 * limit)
            .flat_map(|block| block * BLOCK..((block + 1) * BLOCK).min(values.len()))
            .filter(|&at| at_limit(&values[at]))
            .collect();
        if reaching.len() < 3 {
            continue;
        }
        let usual = scales.iter().any(|scale| (limit * unit / scale - 1.0).abs() < 0.01);
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits();
        let plateau = || {
            values.windows(3).any(|w| {
                (first..first + 3)
                    .any(|c| w[0][c].abs() >= 0.9999 * limit && same(w[0][c], w[1][c]) && same(w[1][c], w[2][c]))
            })
        };
        if usual || plateau() {
            if first == 3 {
                gyro_clipped = vec![false; values.len()];
            }
            for at in reaching {
                saturated += usize::from(values[at][SATURATED] == 0.0);
                values[at][SATURATED] = 1.0;
                if first == 3 {
                    gyro_clipped[at] = true;
                }
            }
        }
    }
    (saturated, gyro_clipped)
}

/// The largest magnitude in each lane. Lane by lane, so that the lanes do not wait for each other.
fn largest(values: &[Lanes]) -> Lanes {
    let mut largest = [0.0_f32; 8];
    for v in values {
        for lane in 0..8 {
            let value = v[lane].abs();
            largest[lane] = if value > largest[lane] { value } else { largest[lane] };
        }
    }
    largest
}

/// Noise of one component of the gyro, °/s: from the median of the second differences, which slow movement hardly has.
/// A sensor whose digits are coarser than its noise reads 0 there; the digits then are the noise.
fn gyro_noise_dps(values: &[Lanes]) -> f64 {
    const WINDOWS_MAX: usize = 8192;
    let every = (values.len() / WINDOWS_MAX).max(1);
    let mut bends: Vec<f64> = values
        .windows(3)
        .step_by(every)
        .filter(|w| w.iter().all(|v| v[GAP] == 0.0))
        .flat_map(|w| (3..6).map(|c| f64::from((w[0][c] - 2.0 * w[1][c] + w[2][c]).abs())))
        .collect();
    // Second differences of white noise have 6 times its variance; the median of |N(0, 1)| is 0.6745.
    median(&mut bends).map_or(0.0, |bend| bend / (0.6745 * 6.0_f64.sqrt()))
}

/// Jitter of time stamps about their median step, s: from the median distance to it, so that holes do not count.
fn jitter_s(t_ns: &[i64]) -> f64 {
    const STEPS_MAX: usize = 8192;
    let every = (t_ns.len() / STEPS_MAX).max(1);
    let mut steps: Vec<f64> = t_ns.windows(2).step_by(every).map(|w| span_s(w[0], w[1])).collect();
    let Some(period) = median(&mut steps) else { return 0.0 };
    for step in &mut steps {
        *step = (*step - period).abs();
    }
    // A step has two stamps' jitter.
    median(&mut steps).map_or(0.0, |off| off / (0.6745 * std::f64::consts::SQRT_2))
}

/// What the gyro reads at rest: the median over the quietest stretches, if they are quiet enough to be rest, else 0. Only
/// lengths are compared, so that the answer does not depend on how the sensor is strapped on.
fn gyro_bias_dps(values: &[Lanes]) -> [f32; 3] {
    const STRETCH: usize = 16;
    const STRETCHES_MAX: usize = 2048;
    // Consumer gyros drift by a few °/s an axis; more than this is slow movement, not bias.
    const BIAS_MAX_DPS: f64 = 18.0;
    const SPREAD_MAX_DPS: f64 = 5.5;
    let every = (values.len() / STRETCH).div_ceil(STRETCHES_MAX).max(1);
    let mut stretches: Vec<(f64, [f32; 3])> = values
        .chunks_exact(STRETCH)
        .step_by(every)
        .map(|stretch| {
            let mut mean = [0.0_f32; 3];
            for v in stretch {
                (0..3).for_each(|c| mean[c] += v[3 + c] / STRETCH as f32);
            }
            let off = |v: &Lanes| norm([v[3] - mean[0], v[4] - mean[1], v[5] - mean[2]]);
            (stretch.iter().map(off).fold(0.0, f64::max), mean)
        })
        .filter(|(spread, mean)| *spread < SPREAD_MAX_DPS && norm(*mean) < BIAS_MAX_DPS)
        .collect();
    // A tenth of the recording at rest, or at least three stretches: fewer are chance.
    if stretches.len() < 3 {
        return [0.0; 3];
    }
    stretches.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| norm(a.1).total_cmp(&norm(b.1))));
    stretches.truncate((stretches.len() / 2).max(3));
    let means: Vec<[f32; 3]> = stretches.into_iter().map(|(_, mean)| mean).collect();
    spatial_median(&means)
}

/// The point with the least sum of distances to all points (Weiszfeld's iteration): a median that turns with its points.
fn spatial_median(points: &[[f32; 3]]) -> [f32; 3] {
    // Distances below this, °/s, are all alike to a gyro.
    const LEAST: f64 = 0.01;
    let mut centre = [0.0_f64; 3];
    for round in 0..12 {
        let (mut sum, mut weights) = ([0.0_f64; 3], 0.0);
        for point in points {
            let point = point.map(f64::from);
            let distance = (0..3).map(|c| (point[c] - centre[c]).powi(2)).sum::<f64>().sqrt();
            // The first round is the plain mean.
            let weight = if round == 0 { 1.0 } else { 1.0 / distance.max(LEAST) };
            (0..3).for_each(|c| sum[c] += weight * point[c]);
            weights += weight;
        }
        if weights > 0.0 {
            centre = sum.map(|s| s / weights);
        }
    }
    centre.map(|c| c as f32)
}

/// What the times of the samples say.
struct Timing {
    rate_hz: Option<f64>,
    /// Median distance of neighbours, s.
    period_s: f64,
    gap_s: f64,
    gaps: usize,
}

impl Timing {
    fn measure(t_ns: &[i64], params: &CalibrateParams) -> Self {
        let steps = || t_ns.windows(2).map(|w| span_ns(w[0], w[1]));
        let Some(period) = median(&mut steps().collect::<Vec<f64>>()) else {
            return Self { rate_hz: None, period_s: 0.0, gap_s: 0.0, gaps: 0 };
        };
        let limit = params.gap_periods * period;
        let (mut covered, mut steps_covered, mut gap, mut gaps) = (0.0, 0usize, 0.0, 0);
        for step in steps() {
            if step > limit {
                gap += step;
                gaps += 1;
            } else {
                covered += step;
                steps_covered += 1;
            }
        }
        let rate_hz = (covered > 0.0).then(|| steps_covered as f64 / (covered / NS_PER_S));
        Self { rate_hz, period_s: period / NS_PER_S, gap_s: gap / NS_PER_S, gaps }
    }
}

/// Fills `signal.grid` and `signal.islands`; returns the number of samples that lie beyond the largest grid.
fn resample(signal: &mut Signal, timing: &Timing, params: &CalibrateParams) -> usize {
    let grid_hz = f64::from(params.grid_hz);
    let step_ns = signal.step_ns;
    // Sparse recordings have holes by nature: at 2.5 Hz five periods are 2 s.
    let bridge_s = params.bridge_s.max((5.0 * timing.period_s).min(3.0));
    let flag_s = (params.gap_flag_ms / 1e3).max(2.5 * timing.period_s);
    let t = &signal.raw_t_ns;
    let mut from = 0;
    while from < t.len() {
        let until = (from + 1..t.len()).find(|&i| span_ns(t[i - 1], t[i]) > bridge_s * NS_PER_S).unwrap_or(t.len());
        let times = &t[from..until];
        // Only what the sensor delivered faster than the grid can alias.
        let filtered: Option<Vec<Lanes>> = (signal.rate_hz > 1.2 * grid_hz).then(|| {
            let mut samples = signal.raw[from..until].to_vec();
            zero_phase(&mut samples, &Biquad::low_pass_both_ways(0.4 * grid_hz, signal.rate_hz));
            samples
        });
        let samples = filtered.as_deref().unwrap_or(&signal.raw[from..until]);
        let start = signal.grid.len();
        let t0_ns = times[0];
        let room = params.grid_points_max.saturating_sub(start);
        // Inside an island neighbours are at most 3 s apart, so its span fits i64 easily; the sum of all spans is
        // bounded by the room.
        let points = ((times[times.len() - 1].saturating_sub(t0_ns) / step_ns) as usize + 1).min(room);
        if points == 0 {
            return t.len() - from;
        }
        signal.grid.reserve(points);
        let mut right = 0;
        for k in 0..points {
            let at = t0_ns + k as i64 * step_ns;
            while right + 1 < times.len() && times[right] < at {
                right += 1;
            }
            let left = if times[right] <= at { right } else { right.saturating_sub(1) };
            let width = times[right] - times[left];
            let share = if width > 0 { (at - times[left]) as f32 / width as f32 } else { 0.0 };
            let (a, b) = (&samples[left], &samples[right]);
            let mut point: Lanes = std::array::from_fn(|lane| a[lane] + (b[lane] - a[lane]) * share);
            let (a, b) = (&signal.raw[from + left], &signal.raw[from + right]);
            let hole = width as f64 > flag_s * NS_PER_S;
            point[GAP] = if hole { 1.0 } else { a[GAP].max(b[GAP]) };
            point[SATURATED] = a[SATURATED].max(b[SATURATED]);
            signal.grid.push(point);
        }
        signal.islands.push(Island { start, len: points, t0_ns });
        from = until;
    }
    0
}

/// Nanoseconds from `a` to `b`; times may be as far apart as `i64` allows.
fn span_ns(a: i64, b: i64) -> f64 {
    // Where the difference fits, the machine converts it by itself.
    b.checked_sub(a).map_or_else(|| (i128::from(b) - i128::from(a)) as f64, |ns| ns as f64)
}

/// Seconds from `a` to `b`; times may be as far apart as `i64` allows.
pub(crate) fn span_s(a: i64, b: i64) -> f64 {
    span_ns(a, b) / NS_PER_S
}

/// Length of a vector.
pub(crate) fn norm(v: [f32; 3]) -> f64 {
    let [x, y, z] = v.map(f64::from);
    (x * x + y * y + z * z).sqrt()
}

/// The median (mean of the middle two), reordering `values`; `None` without values.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let middle = values.len() / 2;
    let odd = values.len() % 2 == 1;
    let (below, &mut upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    if odd {
        return Some(upper);
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Params;

    /// Sensor samples at 100 Hz that rest, each a little different.
    fn resting(count: usize) -> SensorTrack {
        let mut track = SensorTrack::default();
        for at in 0..count {
            let off = (at % 7) as f32 * 0.01;
            track.push(at as i64 * 10_000_000, [off, 0.1, 9.8], [1.0 + off, 2.0, 3.0], [f32::NAN; 3]);
        }
        track
    }

    #[test]
    fn one_bad_sample_is_found_wherever_it_stands() {
        let params = &Params::builtin().calibrate;
        let count = 3 * BLOCK + 5;
        let plain = calibrate(SensorRole::Wrist, &resting(count), params).unwrap();
        assert_eq!((plain.raw.len(), plain.faults, plain.quality.saturated_share), (count, Faults::default(), 0.0));
        for at in 0..count {
            let of = |spoil: &dyn Fn(&mut SensorTrack)| {
                let mut track = resting(count);
                spoil(&mut track);
                calibrate(SensorRole::Wrist, &track, params).unwrap()
            };
            let missing = of(&|track| track.acc[at] = [0.0; 3]);
            let holes: Vec<usize> = (0..count).filter(|&at| missing.raw[at][GAP] > 0.0).collect();
            assert_eq!((missing.raw.len(), holes), (count, vec![at]));
            let neither = of(&|track| (track.acc[at], track.gyro[at]) = ([f32::NAN; 3], [f32::INFINITY; 3]));
            assert_eq!((neither.raw.len(), neither.faults.implausible), (count - 1, 1));
            if at > 0 {
                let double = of(&|track| track.t_ns[at] = track.t_ns[at - 1]);
                assert_eq!((double.raw.len(), double.faults.duplicates), (count - 1, 1));
                let backwards = of(&|track| track.t_ns.swap(at - 1, at));
                assert!(backwards.faults.unsorted && backwards.raw_t_ns == plain.raw_t_ns);
            }
            let clipped = of(&|track| {
                for near in at..(at + 3).min(count) {
                    track.gyro[near][1] = -2000.0;
                }
            });
            let reached = (at + 3).min(count) - at;
            let expected = if reached == 3 { 3 } else { 0 };
            assert_eq!(clipped.gyro_clipped.iter().filter(|clipped| **clipped).count(), expected, "from {at}");
            assert_eq!(clipped.raw.iter().filter(|v| v[SATURATED] > 0.0).count(), expected);
        }
    }
}
