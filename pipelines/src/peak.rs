//! When a sensor turned fastest, and how sure that is.
//!
//! The working grid finds the hill; its summit is then fitted on the samples themselves, at their own times: a cubic (of fewer
//! than seven samples a parabola) by weighted least squares over the narrowest stretch in which the sensor's noise hardly moves the
//! summit. Narrow, because a pulse that falls more slowly than it rose has its smoothed summit on the slow side: a 15 Hz
//! low-pass moves it by 5 to 10 ms, more than many a delay's error otherwise; and not wider than the residuals are noise, because
//! what is left over then is the pulse's shape.
//!
//! The variance of the summit's time is the sum of
//! - `dt²/12`, the sample period's (floor; stamps say when a sample was read, not when the chip measured),
//! - the sensor's noise carried through the fit, σ_y² · Σ(∂t/∂y)², from the noise at rest or the fit's residuals, the larger,
//! - the stamps' jitter, averaged over the fit,
//! - 1.4 times the square of the summit's move when the fit is widened by 60%: what the shape of the pulse may do,
//! - on a top that is flat to the fourth power, what noise does to the summit of such a curve instead of a parabola's,
//! - `w²/12` for a plateau of width w at the sensor's limit, on which the summit may lie anywhere; `w²/36` where components
//!   that stayed below it show the summit and the axis was the same before and after,
//! - `w²/12` for a hole of width w that the summit lies in,
//! - `d²/4` for another hill, d away, that is as high within the errors: two deviations then reach it; likewise for the highest
//!   sample up to a hit that was felt and shook the sensor, where the summit of wrist or racket is near and may be what rings.

use crate::calibrate::{GAP, Signal, norm, span_s};

/// Samples that a cubic wants; fewer get a parabola.
const CUBIC_POINTS: usize = 7;

/// A peak of angular rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RatePeak {
    /// ns since session start.
    pub(crate) t_ns: f64,
    /// °/s.
    pub(crate) dps: f64,
    /// One standard deviation of `t_ns`, squared, s².
    pub(crate) variance_s2: f64,
    /// The gyro stood at its limit at the summit: the time is the plateau's middle, the rate a lower bound.
    pub(crate) clipped: bool,
}

/// Samples around a swing, times in s from an origin.
pub(crate) struct Samples<'a> {
    signal: &'a Signal,
    origin_ns: i64,
    range: std::ops::Range<usize>,
    /// Of each sample of the range.
    t_s: Vec<f64>,
    rate: Vec<f64>,
}

/// A polynomial through a summit.
#[derive(Clone, Copy, Debug)]
struct Summit {
    t_s: f64,
    dps: f64,
    /// Standard deviation of `t_s` for a unit of noise in each sample.
    gain: f64,
    /// Second derivative there, °/s³, without its sign.
    bend: f64,
    /// Relative standard deviation of the curvature for a unit of noise in each sample.
    bend_gain: f64,
    /// Standard deviation of the residuals; 0 with fewer than two degrees of freedom.
    residual: f64,
    points: usize,
}

impl<'a> Samples<'a> {
    /// The samples inside `from_ns..=to_ns`; `None` if they are too few to show a peak.
    pub(crate) fn of(signal: &'a Signal, from_ns: i64, to_ns: i64) -> Option<Self> {
        let range = signal.raw_window(from_ns, to_ns);
        if range.len() < 3 {
            return None;
        }
        let t_s = signal.raw_t_ns[range.clone()].iter().map(|&t_ns| span_s(from_ns, t_ns)).collect();
        let rate = signal.raw[range.clone()].iter().map(|v| norm([v[3], v[4], v[5]])).collect();
        Some(Self { signal, origin_ns: from_ns, range, t_s, rate })
    }

    fn t_s(&self, i: usize) -> f64 {
        self.t_s[i - self.range.start]
    }

    fn rate(&self, i: usize) -> f64 {
        self.rate[i - self.range.start]
    }

    fn measured(&self, i: usize) -> bool {
        self.signal.raw[i][GAP] == 0.0
    }

    fn clipped(&self, i: usize) -> bool {
        self.signal.gyro_clipped.get(i).copied().unwrap_or(false)
    }

    /// The measured sample that is highest within `reach_s` of `t_s`.
    fn highest_near(&self, t_s: f64, reach_s: f64) -> Option<usize> {
        self.range
            .clone()
            .filter(|&i| self.measured(i) && (self.t_s(i) - t_s).abs() <= reach_s)
            .reduce(|best, i| if self.rate(i) > self.rate(best) { i } else { best })
    }

    /// Time of the highest measured sample up to `until_ns`, ns, of the last tenth of a second.
    pub(crate) fn highest_until(&self, until_ns: i64) -> Option<f64> {
        let until_s = (until_ns - self.origin_ns) as f64 / 1e9;
        let inside = |i: &usize| self.measured(*i) && (until_s - 0.1..=until_s).contains(&self.t_s(*i));
        let highest =
            self.range.clone().filter(inside).reduce(|best, i| if self.rate(i) > self.rate(best) { i } else { best });
        highest.map(|i| self.origin_ns as f64 + self.t_s(i) * 1e9)
    }

    /// Whether the rotation jumps about `impact_ns` as it does not before: the largest second difference of neighbouring samples from
    /// 10 ms before to 30 ms after is more than four times that of the 85 ms until 15 ms before. A pulse's largest is at its summit
    /// and some two times that of its flanks.
    pub(crate) fn shaken_at(&self, impact_ns: i64) -> bool {
        const TIMES: f64 = 4.0;
        let impact_s = (impact_ns - self.origin_ns) as f64 / 1e9;
        let rates = |i: usize| self.signal.raw[i];
        let bend = |i: usize| {
            let (a, b, c) = (rates(i - 1), rates(i), rates(i + 1));
            norm(std::array::from_fn(|k| a[3 + k] - 2.0 * b[3 + k] + c[3 + k]))
        };
        let largest = |from_s: f64, to_s: f64| {
            (self.range.start + 1..self.range.end.saturating_sub(1))
                .filter(|&i| (impact_s + from_s..=impact_s + to_s).contains(&self.t_s(i)))
                .map(bend)
                .reduce(f64::max)
        };
        let (Some(before), Some(about)) = (largest(-0.1, -0.015), largest(-0.01, 0.03)) else { return false };
        // Second differences of noise have √6 times its deviation, in each of three components.
        about > TIMES * before.max(3.0 * 18.0_f64.sqrt() * self.signal.gyro_noise_dps)
    }

    /// Mean of the distances from the summit to half its height on either side, s.
    fn half_width_s(&self, top: usize) -> f64 {
        let half = 0.5 * self.rate(top);
        let left = (self.range.start..top).rev().find(|&i| self.rate(i) < half).unwrap_or(self.range.start);
        let right = (top + 1..self.range.end).find(|&i| self.rate(i) < half).unwrap_or(self.range.end - 1);
        0.5 * (self.t_s(right) - self.t_s(left))
    }

    /// Fits a polynomial with weights 1 − ((t − centre)/reach)² and moves to its summit until it stays.
    fn fit(&self, start_s: f64, reach_s: f64, cubic: bool) -> Option<Summit> {
        let mut centre = start_s;
        let mut summit = None;
        for _ in 0..4 {
            let found =
                if cubic { self.fit_at::<4, 7>(centre, reach_s) } else { self.fit_at::<3, 5>(centre, reach_s) }?;
            let moved = found.t_s - centre;
            // A summit outside the stretch is another hill, or none.
            if moved.abs() > reach_s {
                return None;
            }
            summit = Some(found);
            centre = found.t_s;
            if moved.abs() < 1e-5 {
                break;
            }
        }
        summit
    }

    /// A polynomial of `N` coefficients; `M` is 2N − 1, the powers that its normal equations have.
    fn fit_at<const N: usize, const M: usize>(&self, centre: f64, reach_s: f64) -> Option<Summit> {
        // Sums of weights times powers of x = (t − centre)/reach, also with y.
        let (mut s, mut b) = ([0.0_f64; M], [0.0_f64; N]);
        let (mut total_yy, mut points) = (0.0, 0);
        for i in self.near(centre, reach_s) {
            let x = (self.t_s(i) - centre) / reach_s;
            let w = 1.0 - x * x;
            let y = self.rate(i);
            let mut power = w;
            for (k, sum) in s.iter_mut().enumerate() {
                *sum += power;
                if k < N {
                    b[k] += power * y;
                }
                power *= x;
            }
            total_yy += w * y * y;
            points += 1;
        }
        if points < N {
            return None;
        }
        let inverse = inverse::<N>(std::array::from_fn(|r| std::array::from_fn(|c| s[r + c])))?;
        let c: [f64; N] = std::array::from_fn(|r| (0..N).map(|k| inverse[r][k] * b[k]).sum());
        let (c2, c3) = (c[2], c.get(3).copied().unwrap_or(0.0));
        let root = c2 * c2 - 3.0 * c[1] * c3;
        if c2 >= 0.0 || root < 0.0 {
            return None;
        }
        // Where the derivative c1 + 2 c2 x + 3 c3 x² is 0 and falls.
        let x = -c[1] / (c2 - root.sqrt());
        let bend = 2.0 * c2 + 6.0 * c3 * x;
        // ∂x/∂y and ∂bend/∂y of each sample.
        let (mut gain, mut bend_gain) = (0.0, 0.0);
        for i in self.near(centre, reach_s) {
            let u = (self.t_s(i) - centre) / reach_s;
            let powers: [f64; N] = powers(u);
            let dc = |r: usize| (0..N).map(|k| inverse[r][k] * powers[k]).sum::<f64>();
            let slope: f64 = (1..N).map(|r| r as f64 * x.powi(r as i32 - 1) * dc(r)).sum();
            let curve: f64 = (2..N).map(|r| (r * (r - 1)) as f64 * x.powi(r as i32 - 2) * dc(r)).sum();
            gain += ((1.0 - u * u) * slope / bend).powi(2);
            bend_gain += ((1.0 - u * u) * curve / bend).powi(2);
        }
        let explained: f64 = c.iter().zip(b).map(|(c, b)| c * b).sum();
        let freedom = points as f64 - N as f64;
        let mean_weight = s[0] / points as f64;
        let residual =
            if freedom >= 2.0 { ((total_yy - explained).max(0.0) / (mean_weight * freedom)).sqrt() } else { 0.0 };
        let powers: [f64; N] = powers(x);
        Some(Summit {
            t_s: centre + x * reach_s,
            dps: c.iter().zip(powers).map(|(c, power)| c * power).sum(),
            gain: gain.sqrt() * reach_s,
            bend: -bend / (reach_s * reach_s),
            bend_gain: bend_gain.sqrt(),
            residual,
            points,
        })
    }

    /// The measured samples less than `reach_s` from `centre`.
    fn near(&self, centre: f64, reach_s: f64) -> impl Iterator<Item = usize> {
        let from = self.first_after(centre - reach_s);
        let inside = move |i: &usize| self.measured(*i) && (self.t_s(*i) - centre).abs() < reach_s;
        (from..self.range.end).take_while(move |&i| self.t_s(i) - centre < reach_s).filter(inside)
    }

    fn first_after(&self, t_s: f64) -> usize {
        let t_ns = self.origin_ns.saturating_add((t_s * 1e9) as i64);
        let after = self.signal.raw_t_ns[self.range.clone()].partition_point(|&t| t < t_ns);
        self.range.start + after
    }

    /// The plateau around `top` at the sensor's limit, (first, last) sample; single samples below the limit are bridged,
    /// as another axis or noise makes them.
    fn plateau(&self, top: usize) -> Option<(usize, usize)> {
        let near = [top, top.saturating_sub(1).max(self.range.start), (top + 1).min(self.range.end - 1)];
        let seed = near.into_iter().find(|&i| self.clipped(i))?;
        let grow = |mut at: usize, step: fn(usize) -> Option<usize>| {
            let mut misses = 0;
            let mut edge = at;
            while let Some(next) = step(at).filter(|next| self.range.contains(next)) {
                at = next;
                if self.clipped(at) {
                    edge = at;
                    misses = 0;
                } else {
                    misses += 1;
                    if misses > 2 {
                        break;
                    }
                }
            }
            edge
        };
        Some((grow(seed, |i| i.checked_sub(1)), grow(seed, |i| i.checked_add(1))))
    }

    /// The summit of the hill that the grid shows at `near_ns`. `hole_limit_s`: a summit inside a longer hole is a guess.
    pub(crate) fn peak(&self, near_ns: f64, hole_limit_s: f64) -> Option<RatePeak> {
        let signal = self.signal;
        let period_s = signal.sample_period_s();
        let near_s = (near_ns - self.origin_ns as f64) / 1e9;
        let top = self.highest_near(near_s, 0.03_f64.max(1.6 * period_s))?;
        let floor = period_s * period_s / 12.0;
        if let Some((first, last)) = self.plateau(top) {
            // One sample beyond each end the rate was below the limit.
            if first == self.range.start || last + 1 == self.range.end {
                return None;
            }
            let (left, right) = (first - 1, last + 1);
            let width = self.t_s(right) - self.t_s(left);
            let (t_s, own_s2) = match self.beside_limit(first, last, period_s) {
                Some((t_s, sigma_s)) => (t_s, sigma_s * sigma_s),
                None => (0.5 * (self.t_s(left) + self.t_s(right)), width * width / 12.0),
            };
            return Some(RatePeak {
                t_ns: self.origin_ns as f64 + t_s * 1e9,
                dps: (first..=last).map(|i| self.rate(i)).fold(0.0, f64::max),
                variance_s2: floor + own_s2,
                clipped: true,
            });
        }
        let (summit, noise_s, shape_s) = self.summit(top, period_s)?;
        let mut variance_s2 = floor + noise_s * noise_s + shape_s * shape_s;
        variance_s2 += 2.8 * signal.jitter_s * signal.jitter_s / summit.points as f64;
        let hole_s = self.hole_at(summit.t_s, period_s);
        if hole_s > hole_limit_s {
            return None;
        }
        variance_s2 += hole_s * hole_s / 12.0;
        Some(RatePeak { t_ns: self.origin_ns as f64 + summit.t_s * 1e9, dps: summit.dps, variance_s2, clipped: false })
    }

    /// The summit of a plateau from first to last sample as the components that stayed below the limit show it, s, and its
    /// standard deviation without the floor's; `None` where they cannot.
    ///
    /// While a segment turns about one axis, each component is that rotation to scale: the axis must be the same before and
    /// after the plateau, and have a share in the components that are left.
    fn beside_limit(&self, first: usize, last: usize, period_s: f64) -> Option<(f64, f64)> {
        // Bias was taken off after clipping, so a limit is met within a percent.
        const AT_LIMIT: f32 = 0.985;
        const SHARE_MIN: f64 = 0.25;
        const CHANGE_MAX: f64 = 0.08;
        // Samples of a flank that show the axis.
        const FLANK: usize = 4;
        let rates = |i: usize| [self.signal.raw[i][3], self.signal.raw[i][4], self.signal.raw[i][5]];
        let limit = (first..=last).flat_map(rates).fold(0.0_f32, |limit, c| limit.max(c.abs()));
        let free: Vec<usize> =
            (0..3).filter(|&c| (first..=last).all(|i| rates(i)[c].abs() < AT_LIMIT * limit)).collect();
        if free.is_empty() || first < self.range.start + FLANK || last + FLANK >= self.range.end {
            return None;
        }
        let left_over = |i: usize| free.iter().map(|&c| f64::from(rates(i)[c]).powi(2)).sum::<f64>().sqrt();
        let share = |i: usize| left_over(i) / self.rate(i);
        let shares: Vec<f64> = (first - FLANK..first).chain(last + 1..=last + FLANK).map(share).collect();
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        let change = shares.iter().map(|share| (share / mean - 1.0).abs()).fold(0.0, f64::max);
        if !(mean >= SHARE_MIN && change <= CHANGE_MAX) {
            return None;
        }
        let rate: Vec<f64> = self.range.clone().map(|i| left_over(i) / mean).collect();
        let whole = Self {
            signal: self.signal,
            origin_ns: self.origin_ns,
            range: self.range.clone(),
            t_s: self.t_s.clone(),
            rate,
        };
        let top = (first..=last).reduce(|best, i| if whole.rate(i) > whole.rate(best) { i } else { best })?;
        let (summit, noise_s, shape_s) = whole.summit(top, period_s)?;
        let width_s = self.t_s(last + 1) - self.t_s(first - 1);
        if !(self.t_s(first - 1)..=self.t_s(last + 1)).contains(&summit.t_s) {
            return None;
        }
        // An axis that turned and came back within the plateau would not be seen: a sixth of the plateau for that.
        let noise_s = noise_s / mean;
        Some((summit.t_s, (noise_s * noise_s + shape_s * shape_s + (width_s / 6.0).powi(2)).sqrt()))
    }

    /// The summit, and the standard deviations that noise and the pulse's shape give its time, s.
    ///
    /// Where a pulse is steeper on one side, a fit's summit is off by a share of its reach at most, so one wider by 60% moves it by
    /// 0.6 of that. The errors of two sensors may add: two deviations of both then reach their sum if each is move/(0.6 √2).
    fn summit(&self, top: usize, period_s: f64) -> Option<(Summit, f64, f64)> {
        const WIDER: f64 = 1.6;
        // Residuals that are so many times the noise are the pulse's shape: no polynomial fits so wide.
        const LACK: f64 = 2.0;
        // A curvature must be known this well, or it may be one of the noise's bumps, which look sharp and so sure of themselves.
        const BEND_ERROR_MAX: f64 = 0.25;
        // Five samples, or 6 ms where samples are denser than any movement.
        let narrow_s = (2.2 * period_s).max(0.006);
        let widest_s = (0.75 * self.half_width_s(top)).max(narrow_s);
        let enough_s = 0.3 * period_s.max(0.004) / 12.0_f64.sqrt();
        let start_s = self.t_s(top);
        let noise = |summit: &Summit| self.signal.gyro_noise_dps.max(summit.residual) * summit.gain;
        let mut reach_s = narrow_s;
        // The surest, and the widest of those that may be bumps.
        let (mut best, mut doubtful): (Option<(Summit, f64, f64, bool)>, _) = (None, None);
        let mut usual: Option<f64> = None;
        loop {
            let cubic = self.near(start_s, reach_s).count() >= CUBIC_POINTS;
            if let Some(summit) = self.fit(start_s, reach_s, cubic) {
                let usual = *usual.get_or_insert(self.signal.gyro_noise_dps.max(summit.residual));
                if best.is_some() && summit.residual > LACK * usual {
                    break;
                }
                let noise_s = noise(&summit);
                if usual * summit.bend_gain > BEND_ERROR_MAX {
                    doubtful = Some((summit, noise_s, reach_s, cubic));
                } else if best.is_none_or(|(_, least, ..)| noise_s < least) {
                    best = Some((summit, noise_s, reach_s, cubic));
                    if noise_s <= enough_s {
                        break;
                    }
                }
            }
            if reach_s >= widest_s {
                break;
            }
            reach_s = (reach_s * 1.35).min(widest_s);
        }
        let (summit, noise_s, reach_s, cubic) = best.or(doubtful)?;
        let wider = |cubic| self.fit(summit.t_s, reach_s * WIDER, cubic);
        let same = wider(cubic);
        let moved = |wider: Option<Summit>| wider.map_or(0.0, |wider| (wider.t_s - summit.t_s).abs());
        // Of two parabolas both may be drawn to the middle of a flat top.
        let moved_s = if cubic { moved(same) } else { moved(same).max(moved(wider(true))) };
        // On a top that is flat to the fourth power the curvature grows with the reach, and what holds a cubic's summit is less than
        // its curvature: where noise makes the slope of f = −q x⁴ is (slope/4q)^⅓, and the curvature over the reach is 4/3 q reach².
        let flat = same.map_or(0.0, |wider| ((wider.bend / summit.bend - 1.0) / (WIDER * WIDER - 1.0)).clamp(0.0, 1.0));
        let flat_s = if cubic { flat * (noise_s * reach_s * reach_s / 3.0).cbrt() } else { 0.0 };
        Some((summit, noise_s.max(flat_s), moved_s / (std::f64::consts::SQRT_2 * (WIDER - 1.0))))
    }

    /// Width of the hole that `t_s` lies in, s; 0 if its neighbours are where samples should be.
    fn hole_at(&self, t_s: f64, period_s: f64) -> f64 {
        let right = (self.first_after(t_s)..self.range.end).find(|&i| self.measured(i));
        let left = (self.range.start..self.first_after(t_s)).rev().find(|&i| self.measured(i));
        match (left, right) {
            (Some(left), Some(right)) => {
                let width = self.t_s(right) - self.t_s(left);
                if width > 1.7 * period_s { width } else { 0.0 }
            }
            _ => f64::INFINITY,
        }
    }

    /// True if a hole longer than `hole_limit_s` may hide something higher than `dps`: what stands at its edges, grown on
    /// by half, would reach it.
    pub(crate) fn may_hide(&self, dps: f64, hole_limit_s: f64) -> bool {
        let mut last: Option<usize> = None;
        for i in self.range.clone().filter(|&i| self.measured(i)) {
            if let Some(before) = last
                && self.t_s(i) - self.t_s(before) > hole_limit_s
                && self.rate(i).max(self.rate(before)) * 1.7 > dps
            {
                return true;
            }
            last = Some(i);
        }
        false
    }
}

/// 1, x, x² and so on.
fn powers<const N: usize>(x: f64) -> [f64; N] {
    let mut powers = [1.0; N];
    for k in 1..N {
        powers[k] = powers[k - 1] * x;
    }
    powers
}

/// Inverse of a symmetric positive matrix by Gauss-Jordan elimination; `None` if it is singular.
fn inverse<const N: usize>(mut m: [[f64; N]; N]) -> Option<[[f64; N]; N]> {
    let mut inverse: [[f64; N]; N] = std::array::from_fn(|r| std::array::from_fn(|c| f64::from(u8::from(r == c))));
    for k in 0..N {
        let pivot = m[k][k];
        if pivot < 1e-12 {
            return None;
        }
        for c in 0..N {
            m[k][c] /= pivot;
            inverse[k][c] /= pivot;
        }
        for r in (0..N).filter(|&r| r != k) {
            let factor = m[r][k];
            for c in 0..N {
                m[r][c] -= factor * m[k][c];
                inverse[r][c] -= factor * inverse[k][c];
            }
        }
    }
    Some(inverse)
}
