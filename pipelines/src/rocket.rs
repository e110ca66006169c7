//! MiniRocket for several channels: convolutions with 84 fixed kernels at several dilations, each reduced to the
//! proportion of positive values against a few thresholds (Dempster, Schmidt, Webb 2021).
//!
//! The kernels have nine taps, six of −1 and three of 2; a convolution is therefore three times the sum of three taps
//! minus the sum of all nine, and the second sum is shared by all 84. Each kernel and dilation sees the sum of a few
//! channels, drawn once from the model's seed. Thresholds are quantiles of training convolutions.

use pulp::{Simd, WithSimd};
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::features::Window;

pub(crate) const KERNELS: usize = 84;
const TAPS: usize = 9;
/// Thresholds that a convolution is held against in one go.
const TOGETHER: usize = 3;
/// How many different sums of channels there are.
const MIXES: usize = 24;
/// Windows whose convolutions the thresholds of one kernel are drawn from.
const SOURCES: usize = 12;

/// The transform of one head.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rocket {
    pub(crate) dilations: Vec<usize>,
    /// Channels (bit i: channel i) that each kernel sees, dilation by dilation.
    pub(crate) channels: Vec<u8>,
    /// Thresholds, kernel by kernel within dilation by dilation.
    pub(crate) thresholds: Vec<f32>,
}

/// Which three of the nine taps are 2, in lexical order.
fn kernels() -> impl Iterator<Item = [usize; 3]> {
    (0..TAPS).flat_map(|a| (a + 1..TAPS).flat_map(move |b| (b + 1..TAPS).map(move |c| [a, b, c])))
}

/// Dilations for windows of `points`: spread evenly on a logarithmic scale, as far as nine taps fit.
pub(crate) fn dilations(points: usize) -> Vec<usize> {
    const MOST: usize = 6;
    let largest = ((points.saturating_sub(1)) / (TAPS - 1)).max(1);
    let mut dilations: Vec<usize> =
        (0..MOST).map(|i| (largest as f64).powf(i as f64 / (MOST - 1) as f64).round() as usize).collect();
    dilations.dedup();
    dilations
}

impl Rocket {
    /// Draws channels and thresholds from training windows, `features` in all (rounded to whole kernels).
    pub(crate) fn fit(windows: &[&Window], points: usize, features: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let dilations = dilations(points);
        let per_kernel = (features / (KERNELS * dilations.len())).max(1);
        let mixes: Vec<u8> = (0..MIXES)
            .map(|mix| {
                // The first eight are the channels by themselves, the rest sums of two to five.
                if mix < 8 {
                    return 1 << mix;
                }
                let wanted = rng.random_range(2..=5);
                let mut mask = 0_u8;
                while mask.count_ones() < wanted {
                    mask |= 1 << rng.random_range(0..8);
                }
                mask
            })
            .collect();
        let combinations = KERNELS * dilations.len();
        let channels: Vec<u8> = (0..combinations).map(|_| mixes[rng.random_range(0..MIXES)]).collect();
        let sources: Vec<Vec<usize>> = (0..combinations)
            .map(|_| (0..SOURCES.min(windows.len())).map(|_| rng.random_range(0..windows.len())).collect())
            .collect();
        let mut rocket = Self { dilations, channels, thresholds: Vec::new() };
        let mut thresholds = vec![0.0; combinations * per_kernel];
        let mut quantile = 0.5_f64;
        let mut pooled: Vec<f32> = Vec::new();
        for combination in 0..combinations {
            pooled.clear();
            for &source in &sources[combination] {
                pooled.extend(rocket.convolution(windows[source], combination));
            }
            pooled.sort_by(f32::total_cmp);
            for slot in 0..per_kernel {
                // Golden-ratio steps: evenly spread quantiles that do not repeat.
                quantile = (quantile + 0.618_033_988_749_895).fract();
                let at = (quantile * pooled.len() as f64) as usize;
                thresholds[combination * per_kernel + slot] = pooled.get(at).copied().unwrap_or(0.0);
            }
        }
        rocket.thresholds = thresholds;
        rocket
    }

    /// Number of features.
    pub(crate) fn len(&self) -> usize {
        self.thresholds.len()
    }

    fn convolution(&self, window: &Window, combination: usize) -> Vec<f32> {
        let dilation = self.dilations[combination / KERNELS];
        let taps = kernels().nth(combination % KERNELS).unwrap_or([0, 1, 2]);
        let padded = padded_mix(window, self.channels[combination], TAPS / 2 * dilation, 0);
        let n = window.len();
        let mut all = vec![0.0; n];
        sum_taps(&padded, dilation, &mut all);
        (0..n).map(|t| 3.0 * taps.iter().map(|tap| padded[t + tap * dilation]).sum::<f32>() - all[t]).collect()
    }

    /// The features of a window: shares, 0 to 1.
    pub(crate) fn transform(&self, window: &Window) -> Vec<f32> {
        pulp::Arch::new().dispatch(Shares { rocket: self, window })
    }
}

/// The transform of a window, compiled for the vectors of the machine it runs on. Nothing in it is fused or reordered there, so
/// their width changes no bit.
struct Shares<'a> {
    rocket: &'a Rocket,
    window: &'a Window,
}

impl WithSimd for Shares<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let Self { rocket, window } = self;
        let n = window.len();
        let whole = n.next_multiple_of(S::F32_LANES);
        let per_kernel = rocket.thresholds.len() / rocket.channels.len().max(1);
        let mut out = vec![0.0_f32; rocket.thresholds.len()];
        let one = 1.0 / n as f32;
        // A mix of channels is summed once, with its ends as far out as the widest dilation reaches.
        let reach = TAPS / 2 * rocket.dilations.iter().copied().max().unwrap_or(1);
        let mut mixed: Vec<Mixed> = Vec::with_capacity(MIXES);
        let mut place_of = [usize::MAX; 1 + u8::MAX as usize];
        for (d, &dilation) in rocket.dilations.iter().enumerate() {
            let inside = reach - TAPS / 2 * dilation;
            for (kernel, taps) in kernels().enumerate() {
                let combination = d * KERNELS + kernel;
                let mask = rocket.channels[combination];
                let place = &mut place_of[usize::from(mask)];
                if *place == usize::MAX {
                    *place = mixed.len();
                    let padded = padded_mix(window, mask, reach, whole - n);
                    mixed.push(Mixed { padded, dilation: 0, all: vec![0.0; whole] });
                }
                let mix = &mut mixed[*place];
                let padded = &mix.padded[inside..];
                if mix.dilation != dilation {
                    mix.dilation = dilation;
                    sum_taps(padded, dilation, &mut mix.all);
                    // What fills the last vector is above no threshold.
                    mix.all[n..].fill(f32::INFINITY);
                }
                let vectors = |values| S::as_simd_f32s(values).0;
                let [a, b, c] = taps.map(|tap| vectors(&padded[tap * dilation..tap * dilation + whole]));
                let all = vectors(&mix.all);
                let slots = combination * per_kernel..(combination + 1) * per_kernel;
                let thresholds = rocket.thresholds[slots.clone()].chunks(TOGETHER);
                for (features, thresholds) in out[slots].chunks_mut(TOGETHER).zip(thresholds) {
                    let at = |i: usize| simd.splat_f32s(thresholds.get(i).copied().unwrap_or(f32::INFINITY));
                    let limits: [S::f32s; TOGETHER] = std::array::from_fn(at);
                    let mut above = [simd.splat_f32s(0.0); TOGETHER];
                    for (((&a, &b), &c), &all) in a.iter().zip(b).zip(c).zip(all) {
                        let sum = simd.add_f32s(simd.add_f32s(a, b), c);
                        let value = simd.sub_f32s(simd.mul_f32s(simd.splat_f32s(3.0), sum), all);
                        for (above, &limit) in above.iter_mut().zip(&limits) {
                            let is_above = simd.greater_than_f32s(value, limit);
                            let counted = simd.select_f32s(is_above, simd.splat_f32s(1.0), simd.splat_f32s(0.0));
                            *above = simd.add_f32s(*above, counted);
                        }
                    }
                    for (feature, &above) in features.iter_mut().zip(&above) {
                        *feature = simd.reduce_sum_f32s(above) * one;
                    }
                }
            }
        }
        out
    }
}

/// A mix of channels while a window is transformed.
struct Mixed {
    padded: Vec<f32>,
    /// The dilation that `all` is for; 0: none yet.
    dilation: usize,
    /// The sum of all taps about each value.
    all: Vec<f32>,
}

/// The sum of the masked channels, its ends repeated `reach` times on either side, and `more` times after it.
#[inline(always)]
fn padded_mix(window: &Window, mask: u8, reach: usize, more: usize) -> Vec<f32> {
    let n = window.len();
    let mut padded = vec![0.0_f32; n + 2 * reach + more];
    let sum = &mut padded[reach..reach + n];
    for (channel, values) in window.channels.iter().enumerate() {
        if mask & (1 << channel) != 0 {
            for (sum, value) in sum.iter_mut().zip(values) {
                *sum += value;
            }
        }
    }
    let (first, last) = (sum.first().copied().unwrap_or(0.0), sum.last().copied().unwrap_or(0.0));
    padded[..reach].fill(first);
    padded[reach + n..].fill(last);
    padded
}

/// The sum of all taps about each value of a mix that is padded by as much as they reach.
#[inline(always)]
fn sum_taps(padded: &[f32], dilation: usize, all: &mut [f32]) {
    all.fill(0.0);
    for tap in 0..TAPS {
        for (sum, value) in all.iter_mut().zip(&padded[tap * dilation..]) {
            *sum += value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(offset: f32) -> Window {
        Window {
            channels: std::array::from_fn(|c| (0..76).map(|t| ((t as f32 + offset) * 0.2 + c as f32).sin()).collect()),
        }
    }

    #[test]
    fn features_are_shares_and_do_not_depend_on_the_level() {
        let windows: Vec<Window> = (0..20).map(|i| window(i as f32)).collect();
        let refs: Vec<&Window> = windows.iter().collect();
        let rocket = Rocket::fit(&refs, 76, 1512, 7);
        assert_eq!(rocket.len(), 3 * 5 * KERNELS);
        let features = rocket.transform(&windows[3]);
        assert!(features.iter().all(|f| (0.0..=1.0).contains(f)));
        // Taps sum to zero: a constant added to a channel is not seen (up to rounding at a threshold).
        let mut lifted = windows[3].clone();
        lifted.channels.iter_mut().for_each(|c| c.iter_mut().for_each(|v| *v += 0.25));
        let moved = rocket.transform(&lifted);
        let differing = features.iter().zip(&moved).filter(|(a, b)| (*a - *b).abs() > 0.03).count();
        assert!(differing < 15, "{differing}");
        assert_eq!(Rocket::fit(&refs, 76, 1512, 7), rocket);
        assert_ne!(Rocket::fit(&refs, 76, 1512, 8), rocket);
    }

    #[test]
    fn the_transform_counts_what_the_convolutions_say() {
        let windows: Vec<Window> = (0..20).map(|i| window(i as f32)).collect();
        let rocket = Rocket::fit(&windows.iter().collect::<Vec<_>>(), 76, 1512, 7);
        let per_kernel = rocket.len() / rocket.channels.len();
        // Lengths that fill vectors of eight, and that do not.
        for n in [1, 7, 8, 33, 51, 76] {
            let mut short = windows[5].clone();
            short.channels.iter_mut().for_each(|channel| channel.truncate(n));
            let expected: Vec<f32> = (0..rocket.len())
                .map(|at| {
                    let values = rocket.convolution(&short, at / per_kernel);
                    values.iter().filter(|v| **v > rocket.thresholds[at]).count() as f32 * (1.0 / n as f32)
                })
                .collect();
            assert_eq!(rocket.transform(&short), expected, "{n} points");
        }
    }

    #[test]
    fn there_are_84_kernels_and_dilations_fit() {
        assert_eq!(kernels().count(), KERNELS);
        assert_eq!(dilations(76), vec![1, 2, 4, 6, 9]);
        assert_eq!(dilations(25), vec![1, 2, 3]);
        assert_eq!(dilations(3), vec![1]);
    }
}
