//! What the classifier sees of a swing: a window of eight channels, and about 170 figures of it that a person could name.

use crate::calibrate::{G, Signal};
use crate::filter::{Lanes, goertzel};
use crate::wide::wide;

/// Channels in model files, in order, with their units.
pub(crate) const CHANNELS: [&str; 8] = [
    "acc_x:g",
    "acc_y:g",
    "acc_z:g",
    "gyro_x:500dps",
    "gyro_y:500dps",
    "gyro_z:500dps",
    "acc_norm:g",
    "gyro_norm:500dps",
];

/// Angular velocity that counts 1 in a window, °/s.
const GYRO_UNIT_DPS: f32 = 500.0;

/// A window around a swing's peak.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// Points a second.
    pub rate_hz: f64,
    /// Time before the peak, s.
    pub before_s: f64,
    /// Time after the peak, s.
    pub after_s: f64,
    /// The window is stretched over the whole example instead, wherever its peak and however long it is.
    pub stretched: bool,
}

impl WindowSpec {
    /// For sensors that sample a stroke properly (8 Hz and more): 0.7 s before to 0.8 s after the peak at 50 Hz, and
    /// what leads up to it at half the rate.
    pub const NORMAL: [Self; 2] = [
        Self { rate_hz: 50.0, before_s: 0.7, after_s: 0.8, stretched: false },
        Self { rate_hz: 25.0, before_s: 1.2, after_s: 0.8, stretched: false },
    ];
    /// For very slow recordings, where a stroke is one sample or none: its surroundings, near and wide. Players differ in
    /// what they do between strokes, so the wide one alone does worse on new players.
    pub const SPARSE: [Self; 3] = [
        Self { rate_hz: 10.0, before_s: 1.2, after_s: 1.2, stretched: false },
        Self { rate_hz: 10.0, before_s: 1.6, after_s: 1.6, stretched: false },
        Self { rate_hz: 5.0, before_s: 2.4, after_s: 2.4, stretched: false },
    ];
    /// For recordings of which each is one example of a few seconds: a hundred steps from its start to its end, which
    /// does not depend on how fast somebody moved, and the four seconds around its peak, which do.
    pub const WHOLE: [Self; 2] = [
        Self { rate_hz: 25.0, before_s: 2.0, after_s: 2.0, stretched: true },
        Self { rate_hz: 25.0, before_s: 2.0, after_s: 2.0, stretched: false },
    ];

    /// The windows for swings in recordings of this rate, Hz.
    #[must_use]
    pub fn for_rate(rate_hz: f64) -> &'static [Self] {
        if rate_hz < 8.0 { &Self::SPARSE } else { &Self::NORMAL }
    }

    /// Number of points.
    #[must_use]
    pub fn points(&self) -> usize {
        ((self.before_s + self.after_s) * self.rate_hz).round() as usize + 1
    }
}

/// How the sensor of a player's hand relates to those that a model was trained on.
///
/// A left-hander's sensor, worn as a right-hander wears his, sees the mirrored movement. Which of its axes points across
/// the body depends on the sensor; the model's card or the wearer says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mirror {
    /// The same hand.
    #[default]
    None,
    /// The other hand; x points across.
    X,
    /// The other hand; y points across.
    Y,
    /// The other hand; z points across.
    Z,
}

impl Mirror {
    fn axis(self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::X => Some(0),
            Self::Y => Some(1),
            Self::Z => Some(2),
        }
    }
}

/// How a sensor may sit other than in the training; the axis is one of the sensor's own, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mounting {
    /// On the other hand: reflected in the plane across the axis.
    Mirrored(usize),
    /// Half a turn about the axis.
    Turned(usize),
}

impl Mounting {
    pub(crate) const ALL: [Self; 6] =
        [Self::Mirrored(0), Self::Mirrored(1), Self::Mirrored(2), Self::Turned(0), Self::Turned(1), Self::Turned(2)];

    /// Name of the axis.
    pub(crate) fn axis(self) -> &'static str {
        let (Self::Mirrored(axis) | Self::Turned(axis)) = self;
        ["x", "y", "z"][axis]
    }
}

/// Where something lies in a recording, ns since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start_ns: i64,
    pub(crate) peak_ns: i64,
    pub(crate) end_ns: i64,
}

impl Span {
    /// Time of a window's first point, and the distance of its points, s.
    fn points(&self, spec: &WindowSpec) -> (i64, f64) {
        let steps = (spec.points() - 1) as f64;
        let length_s = (i128::from(self.end_ns) - i128::from(self.start_ns)) as f64 / 1e9;
        // No example of which the whole is one movement lasts as long as this.
        if spec.stretched && (0.05..60.0).contains(&length_s) {
            return (self.start_ns, length_s / steps);
        }
        let before = (spec.before_s * spec.rate_hz).round() / spec.rate_hz;
        (self.peak_ns.saturating_sub((before * 1e9) as i64), 1.0 / spec.rate_hz)
    }
}

/// Eight channels of equal length, in the order of [`CHANNELS`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Window {
    pub(crate) channels: [Vec<f32>; 8],
}

impl Window {
    /// Cuts the window of what lies at `span`. Beyond the borders of the recording's island the border value stands, as
    /// if nothing moved there. `None` if the peak lies in no island.
    pub(crate) fn cut(signal: &Signal, span: &Span, spec: &WindowSpec) -> Option<Self> {
        let island = signal.island_at(span.peak_ns)?;
        let (first_ns, step_s) = span.points(spec);
        let border = signal.raw_window(island.t0_ns, island.last_ns(signal.step_ns).saturating_add(signal.step_ns - 1));
        let last_ns = first_ns.saturating_add((step_s * spec.points() as f64 * 1e9) as i64);
        let wanted = signal.raw_window(first_ns.saturating_sub((step_s * 1e9) as i64), last_ns);
        // One more sample on either side: values between two samples need both.
        let from = wanted.start.saturating_sub(1).max(border.start);
        let to = (wanted.end + 1).min(border.end);
        let t_ns = signal.raw_t_ns.get(from..to)?;
        Self::of_samples(t_ns, signal.raw.get(from..to)?, signal.rate_hz, span, spec)
    }

    /// The window of samples at their own times, which reach as far as there is anything to see.
    ///
    /// Straight from the samples, not from the working grid: the same samples give the same window whatever came before
    /// them, live and afterwards.
    pub(crate) fn of_samples(
        t_ns: &[i64],
        samples: &[Lanes],
        rate_hz: f64,
        span: &Span,
        spec: &WindowSpec,
    ) -> Option<Self> {
        let last = t_ns.len().checked_sub(1)?;
        let (first_ns, step_s) = span.points(spec);
        // Where the sensor is faster than the window, a point is the mean over its own share of time, or faster movement
        // would alias; where it is slower, the line between two samples.
        let share_s = if rate_hz > 0.0 { (step_s - 1.0 / rate_hz).max(0.0) } else { 0.0 };
        let parts = if share_s > 0.0 { ((rate_hz * step_s * 2.0).round() as usize).clamp(2, 32) } else { 1 };
        let n = spec.points();
        let mut channels: [Vec<f32>; 8] = std::array::from_fn(|_| Vec::with_capacity(n));
        let mut right = 0;
        for k in 0..n {
            let middle_s = k as f64 * step_s;
            let mut mean = [0.0_f32; 6];
            for part in 0..parts {
                let offset_s = ((part as f64 + 0.5) / parts as f64 - 0.5) * share_s;
                let at = first_ns.saturating_add(((middle_s + offset_s) * 1e9) as i64).clamp(t_ns[0], t_ns[last]);
                while right < last && t_ns[right] < at {
                    right += 1;
                }
                let left = if t_ns[right] <= at { right } else { right.saturating_sub(1) };
                let width = t_ns[right] - t_ns[left];
                let share = if width > 0 { (at - t_ns[left]) as f32 / width as f32 } else { 0.0 };
                let (a, b) = (&samples[left], &samples[right]);
                for (lane, value) in mean.iter_mut().enumerate() {
                    *value += (a[lane] + (b[lane] - a[lane]) * share) / parts as f32;
                }
            }
            let acc = [mean[0], mean[1], mean[2]].map(|c| c / G as f32);
            let gyro = [mean[3], mean[4], mean[5]].map(|c| c / GYRO_UNIT_DPS);
            let length = |v: [f32; 3]| (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]).sqrt();
            let values = [acc[0], acc[1], acc[2], gyro[0], gyro[1], gyro[2], length(acc), length(gyro)];
            for (channel, value) in channels.iter_mut().zip(values) {
                channel.push(value);
            }
        }
        Some(Self { channels })
    }

    /// The same movement as the other hand makes it.
    pub(crate) fn mirrored(self, mirror: Mirror) -> Self {
        match mirror.axis() {
            Some(axis) => self.worn(Mounting::Mirrored(axis)),
            None => self,
        }
    }

    /// The same movement through a sensor that sits otherwise. A reflection turns the sign of acceleration along its axis, and of
    /// rotation, which is no vector but an axial one, about the two others; half a turn turns both across its axis.
    pub(crate) fn worn(mut self, mounting: Mounting) -> Self {
        for c in 0..3 {
            let (acc, gyro) = match mounting {
                Mounting::Mirrored(axis) => (c == axis, c != axis),
                Mounting::Turned(axis) => (c != axis, c != axis),
            };
            for (channel, flips) in [(c, acc), (3 + c, gyro)] {
                if flips {
                    self.channels[channel].iter_mut().for_each(|value| *value = -*value);
                }
            }
        }
        self
    }

    /// Number of points.
    pub(crate) fn len(&self) -> usize {
        self.channels[0].len()
    }
}

/// A swing as a model sees it through one of its windows: the points, and the figures of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    pub(crate) window: Window,
    /// [`hand_features`] of the window.
    pub(crate) hand: Vec<f32>,
}

impl View {
    pub(crate) fn of(window: Window, spec: &WindowSpec) -> Self {
        let hand = hand_features(&window, spec);
        Self { window, hand }
    }
}

/// Values around the peak that are features: so many on either side and the peak's own.
const BESIDE: usize = 3;
/// Parts of the window whose means are features: the course of the whole movement.
const COURSE: usize = 13;
/// Ranks of a channel's values that are features, as shares.
const RANKS: [f64; 7] = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0];
/// Features of one channel.
const PER_CHANNEL: usize = 9 + RANKS.len() + COURSE + 2 * BESIDE + 1;
/// Bands of the spectrum of a magnitude, as shares of the Nyquist frequency.
const BANDS: [(f64, f64); 4] = [(0.0, 0.08), (0.08, 0.2), (0.2, 0.45), (0.45, 1.0)];
/// Number of hand-made features: per channel, 28 correlations, 8 band shares, 3 of posture, 6 turns and 5 of timing.
pub(crate) const HAND: usize = 8 * PER_CHANNEL + 28 + 2 * BANDS.len() + 3 + 6 + 5;

/// The hand-made features of a window, in an order that model files rely on.
pub(crate) fn hand_features(window: &Window, spec: &WindowSpec) -> Vec<f32> {
    let n = window.len();
    let peak = (spec.before_s * spec.rate_hz).round() as usize;
    let step = (n * 2 / 25).max(1);
    let mut out: Vec<f64> = Vec::with_capacity(HAND);
    let channels: Vec<Vec<f64>> =
        window.channels.iter().map(|channel| channel.iter().map(|&v| f64::from(v)).collect()).collect();
    let rows: Vec<Row> = (0..n).map(|t| std::array::from_fn(|c| channels[c][t])).collect();
    let (shape, covariance) = wide(
        #[inline(always)]
        || {
            let shape = Shape::of(&rows);
            let covariance = covariances(&rows, &shape.mean);
            (shape, covariance)
        },
    );
    let Shape { mean, deviation, .. } = shape;
    for (c, channel) in channels.iter().enumerate() {
        let (low_at, _) = extreme(channel, |a, b| a < b);
        let (high_at, _) = extreme(channel, |a, b| a > b);
        out.extend([mean[c], deviation[c], low_at, high_at, shape.skew[c], shape.tails[c].min(50.0)]);
        out.extend([shape.length[c], shape.bend[c], shape.crossings[c]]);
        let mut sorted: Vec<i32> = window.channels[c].iter().map(|v| ordered(v.to_bits().cast_signed())).collect();
        sorted.sort_unstable();
        let at_rank = |rank: f64| ordered(sorted[(rank * (n - 1) as f64).round() as usize]).cast_unsigned();
        out.extend(RANKS.map(|rank| f64::from(f32::from_bits(at_rank(rank)))));
        out.extend((0..COURSE).map(|part| {
            let (from, to) = (part * n / COURSE, ((part + 1) * n / COURSE).max(part * n / COURSE + 1).min(n));
            let values = &channel[from.min(n - 1)..to];
            values.iter().sum::<f64>() / values.len() as f64
        }));
        // A finer course through the peak, three twenty-fifths of a second apart in a normal window.
        for beside in 0..=2 * BESIDE {
            let at = (peak + beside * step).saturating_sub(BESIDE * step).min(n - 1);
            out.push(channel[at]);
        }
    }
    for a in 0..8 {
        for b in a + 1..8 {
            out.push(covariance[a][b] / (deviation[a] * deviation[b]).max(1e-9));
        }
    }
    for channel in [6, 7] {
        out.extend(band_shares(&channels[channel], mean[channel]));
    }
    // Posture before the swing: where gravity points in the first fifth of the window.
    let early = (n / 5).max(1);
    let posture: [f64; 3] = std::array::from_fn(|c| channels[c][..early].iter().sum::<f64>() / early as f64);
    let length = posture.iter().map(|c| c * c).sum::<f64>().sqrt().max(1e-6);
    out.extend(posture.map(|c| c / length));
    // How far the sensor turned about each axis before and after the fastest moment.
    let (fastest_share, fastest) = extreme(&channels[7], |a, b| a > b);
    let fastest_at = (fastest_share * n as f64) as usize;
    for axis in &channels[3..6] {
        let (before, after) = axis.split_at(fastest_at);
        out.push(before.iter().sum::<f64>() / n as f64);
        out.push(after.iter().sum::<f64>() / n as f64);
    }
    let above_half = channels[7].iter().filter(|&&v| v > 0.5 * fastest).count() as f64 / n as f64;
    let power = |range: &[f64]| range.iter().map(|v| v * v).sum::<f64>() / n as f64;
    let before = power(&channels[7][..fastest_at]);
    let after = power(&channels[7][fastest_at..]);
    let (hardest_at, hardest) = extreme(&channels[6], |a, b| a > b);
    out.extend([
        above_half,
        before / (before + after).max(1e-9),
        fastest.max(1e-3).ln(),
        hardest.max(1e-3).ln(),
        hardest_at - fastest_share,
    ]);
    out.into_iter().map(|v| if v.is_finite() { v as f32 } else { 0.0 }).collect()
}

/// Bits of an f32 as a whole number that is ordered as `f32::total_cmp` orders, and back again: whole numbers are sorted without
/// jumps.
const fn ordered(bits: i32) -> i32 {
    bits ^ ((bits >> 31).cast_unsigned() >> 1).cast_signed()
}

/// A value of each channel. Sums of rows run side by side, where one channel's would wait for its own last value.
type Row = [f64; 8];

#[inline(always)]
fn mean_and_deviation(rows: &[Row]) -> (Row, Row) {
    let n = rows.len().max(1) as f64;
    let mut mean = [0.0; 8];
    for row in rows {
        (0..8).for_each(|c| mean[c] += row[c]);
    }
    let mean = mean.map(|sum| sum / n);
    let mut variance = [0.0; 8];
    for row in rows {
        (0..8).for_each(|c| variance[c] += (row[c] - mean[c]) * (row[c] - mean[c]));
    }
    (mean, variance.map(|sum| (sum / n).sqrt()))
}

#[inline(always)]
fn covariances(rows: &[Row], mean: &Row) -> [Row; 8] {
    let mut sums = [[0.0; 8]; 8];
    for row in rows {
        let off: Row = std::array::from_fn(|c| row[c] - mean[c]);
        for (a, sums) in off.iter().zip(&mut sums) {
            (0..8).for_each(|b| sums[b] += a * off[b]);
        }
    }
    sums.map(|sums| sums.map(|sum| sum / rows.len() as f64))
}

/// How the values of each channel are spread, and how they go from one to the next.
struct Shape {
    mean: Row,
    deviation: Row,
    skew: Row,
    tails: Row,
    /// Mean length of a step.
    length: Row,
    /// Deviation of the steps.
    bend: Row,
    /// Share of the steps that cross the mean.
    crossings: Row,
}

impl Shape {
    #[inline(always)]
    fn of(rows: &[Row]) -> Self {
        let n = rows.len() as f64;
        let (mean, deviation) = mean_and_deviation(rows);
        let safe = deviation.map(|deviation| deviation.max(1e-6));
        let (mut skew, mut tails) = ([0.0; 8], [0.0; 8]);
        for row in rows {
            for c in 0..8 {
                let off = (row[c] - mean[c]) / safe[c];
                skew[c] += off * off * off;
                tails[c] += (off * off) * (off * off);
            }
        }
        let steps: Vec<Row> = rows.windows(2).map(|w| std::array::from_fn(|c| w[1][c] - w[0][c])).collect();
        let (_, bend) = mean_and_deviation(&steps);
        let (mut length, mut crossings) = ([0.0; 8], [0.0; 8]);
        for (w, step) in rows.windows(2).zip(&steps) {
            for c in 0..8 {
                length[c] += step[c].abs();
                crossings[c] += f64::from(u8::from((w[0][c] > mean[c]) != (w[1][c] > mean[c])));
            }
        }
        let per_point = |sums: Row| sums.map(|sum| sum / n);
        let [skew, tails, length, crossings] = [skew, tails, length, crossings].map(per_point);
        Self { mean, deviation, skew, tails, length, bend, crossings }
    }
}

/// Place (share of the window) and value of the first extreme.
fn extreme(values: &[f64], better: impl Fn(f64, f64) -> bool) -> (f64, f64) {
    let mut best = 0;
    for (i, &value) in values.iter().enumerate() {
        if better(value, values[best]) {
            best = i;
        }
    }
    (best as f64 / values.len().max(1) as f64, values.get(best).copied().unwrap_or(0.0))
}

/// How the power of a magnitude around its mean is spread over [`BANDS`].
fn band_shares(values: &[f64], mean: f64) -> [f64; BANDS.len()] {
    let n = values.len();
    let half = n / 2;
    let around: Vec<f64> = values.iter().map(|value| value - mean).collect();
    let mut power = [0.0; BANDS.len()];
    for (bin, at) in goertzel(&around, half + 1, |bin| bin as f64 / n as f64).into_iter().enumerate().skip(1) {
        let share = bin as f64 / half as f64;
        let band = BANDS.iter().position(|&(_, to)| share <= to).unwrap_or(BANDS.len() - 1);
        power[band] += at;
    }
    let whole: f64 = power.iter().sum();
    power.map(|p| if whole > 1e-12 { p / whole } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples of a movement at `rate_hz`: a turn about x that carries gravity along.
    fn movement(rate_hz: f64) -> (Vec<i64>, Vec<Lanes>) {
        (0..(4.0 * rate_hz) as usize)
            .map(|i| {
                let t = i as f64 / rate_hz;
                let bell = (-((t - 2.0) / 0.15).powi(2)).exp();
                let lanes =
                    [2.0 * bell, 9.0 - bell, 3.0 + t, 400.0 * bell, -90.0 * bell, 30.0 * (2.0 * t).sin(), 0.0, 0.0];
                ((t * 1e9) as i64, lanes.map(|value| value as f32))
            })
            .unzip()
    }

    fn at(peak_s: f64) -> Span {
        let ns = |s: f64| (s * 1e9) as i64;
        Span { start_ns: ns(peak_s - 0.5), peak_ns: ns(peak_s), end_ns: ns(peak_s + 0.5) }
    }

    #[test]
    fn whole_numbers_are_ordered_as_the_values_are() {
        let values = [f32::NEG_INFINITY, -3.5, -1e-40, -0.0, 0.0, 1e-40, 2.0, 2.000_000_2, f32::INFINITY, f32::NAN];
        let numbers = values.map(|value| ordered(value.to_bits().cast_signed()));
        assert!(numbers.is_sorted());
        assert_eq!(numbers.map(|number| ordered(number).cast_unsigned()), values.map(f32::to_bits));
    }

    #[test]
    fn a_window_hardly_depends_on_the_rate_and_not_on_what_came_before() {
        let spec = &WindowSpec::NORMAL[0];
        let cut = |rate_hz: f64, skip: usize| {
            let (t_ns, samples) = movement(rate_hz);
            Window::of_samples(&t_ns[skip..], &samples[skip..], rate_hz, &at(2.0), spec).unwrap()
        };
        let usual = cut(100.0, 0);
        assert_eq!(usual.len(), spec.points());
        // A second and more before the window is as good as nothing.
        assert_eq!(cut(100.0, 110), usual);
        for rate_hz in [50.0, 200.0, 800.0] {
            let other = cut(rate_hz, 0);
            for (a, b) in usual.channels.iter().flatten().zip(other.channels.iter().flatten()) {
                assert!((a - b).abs() < 0.02, "{a} {b} at {rate_hz} Hz");
            }
        }
    }

    #[test]
    fn a_stretched_window_does_not_know_how_fast_somebody_moved() {
        let (t_ns, samples) = movement(100.0);
        let slow: Vec<i64> = t_ns.iter().map(|t| t * 2).collect();
        let whole = |end_s: f64| Span { start_ns: 0, peak_ns: 1, end_ns: (end_s * 1e9) as i64 };
        let quick = Window::of_samples(&t_ns, &samples, 100.0, &whole(3.9), &WindowSpec::WHOLE[0]).unwrap();
        let slow = Window::of_samples(&slow, &samples, 50.0, &whole(7.8), &WindowSpec::WHOLE[0]).unwrap();
        for (a, b) in quick.channels.iter().flatten().zip(slow.channels.iter().flatten()) {
            assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
    }

    #[test]
    fn the_mirror_of_the_mirror_is_the_movement_and_magnitudes_stay() {
        let (t_ns, samples) = movement(100.0);
        let window = Window::of_samples(&t_ns, &samples, 100.0, &at(2.0), &WindowSpec::NORMAL[0]).unwrap();
        for mirror in [Mirror::X, Mirror::Y, Mirror::Z] {
            let once = window.clone().mirrored(mirror);
            assert_ne!(once, window);
            assert_eq!(once.channels[6..], window.channels[6..]);
            assert_eq!(once.mirrored(mirror), window);
        }
        let once = window.clone().mirrored(Mirror::Y);
        let negative = |channel: usize| window.channels[channel].iter().map(|value| -value).collect::<Vec<_>>();
        assert_eq!(once.channels[1], negative(1));
        assert_eq!((&once.channels[3], &once.channels[5]), (&negative(3), &negative(5)));
        assert_eq!((&once.channels[0], &once.channels[4]), (&window.channels[0], &window.channels[4]));
    }
}
