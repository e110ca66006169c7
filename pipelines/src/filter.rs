//! Filters that do not shift time: a peak stays where it was, which is what delays between sensors rest on.

/// Eight values processed together: acceleration x, y, z, angular velocity x, y, z and two flags. Eight, so that the
/// compiler keeps one sample in two vector registers.
pub(crate) type Lanes = [f32; 8];

/// Lanes from here on are flags.
const FLAGS: usize = 6;
/// 1 for what a filter sees. A flag that comes and goes would ring on in it below what floats hold well, for ever, and there
/// each step costs a hundred.
const MEASURED: Lanes = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0];

/// A second-order section, normalised so that a0 = 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Biquad {
    b: [f32; 3],
    a: [f32; 2],
}

impl Biquad {
    /// A Butterworth low-pass that is 3 dB down at `cutoff_hz` after [`zero_phase`] has run it both ways.
    ///
    /// The cut-off is kept inside (0, 0.45 · rate): nearer to the Nyquist frequency the section does nothing useful.
    pub(crate) fn low_pass_both_ways(cutoff_hz: f64, rate_hz: f64) -> Self {
        let relative = (cutoff_hz / rate_hz).clamp(1e-6, 0.45);
        // Two passes of a second-order section: |H|⁴ = 1/2 at the cut-off, so each must be designed (√2 − 1)^(-1/4) wider.
        let k = (std::f64::consts::PI * relative).tan() / (std::f64::consts::SQRT_2 - 1.0).powf(0.25);
        let q = std::f64::consts::FRAC_1_SQRT_2;
        let norm = 1.0 / (1.0 + k / q + k * k);
        let b0 = k * k * norm;
        Self {
            b: [b0 as f32, (2.0 * b0) as f32, b0 as f32],
            a: [(2.0 * (k * k - 1.0) * norm) as f32, ((1.0 - k / q + k * k) * norm) as f32],
        }
    }

    fn run<'a>(&self, samples: impl Iterator<Item = &'a mut Lanes>) {
        let [b0, b1, b2] = self.b;
        let [a1, a2] = self.a;
        let mut state: Option<(Lanes, Lanes)> = None;
        for sample in samples {
            // The state of a filter that has always seen the first sample: a constant passes unchanged from the start.
            let (s1, s2) = state.get_or_insert_with(|| {
                let s2 = std::array::from_fn(|lane| (b2 - a2) * (sample[lane] * MEASURED[lane]));
                let s1 = std::array::from_fn(|lane| (b1 - a1 + b2 - a2) * (sample[lane] * MEASURED[lane]));
                (s1, s2)
            });
            for lane in 0..8 {
                let x = sample[lane] * MEASURED[lane];
                let y = b0 * x + s1[lane];
                // In this order the next value waits for three steps of this one's, not four.
                s1[lane] = (b1 * x + s2[lane]) - a1 * y;
                s2[lane] = b2 * x - a2 * y;
                sample[lane] = if lane < FLAGS { y } else { sample[lane] };
            }
        }
    }
}

/// Runs `section` forwards and backwards over what is measured in `samples`, so that no frequency is shifted in time. Flags stay
/// as they are.
pub(crate) fn zero_phase(samples: &mut [Lanes], section: &Biquad) {
    section.run(samples.iter_mut());
    section.run(samples.iter_mut().rev());
}

/// Power of `values` at `bins` frequencies, `turns(bin)` of a full turn from one value to the next: Goertzel's recursion, one
/// cosine a frequency, the same order of sums on every machine.
pub(crate) fn goertzel(values: &[f64], bins: usize, turns: impl Fn(usize) -> f64) -> Vec<f64> {
    // Each step waits for the one before: several frequencies at once keep the machine busy.
    const TOGETHER: usize = 8;
    let mut power = Vec::with_capacity(bins.next_multiple_of(TOGETHER));
    for first in (0..bins).step_by(TOGETHER) {
        let coefficients: [f64; TOGETHER] =
            std::array::from_fn(|i| 2.0 * (std::f64::consts::TAU * turns(first + i)).cos());
        let (mut s1, mut s2) = ([0.0; TOGETHER], [0.0; TOGETHER]);
        for &value in values {
            for i in 0..TOGETHER {
                let s0 = value + coefficients[i] * s1[i] - s2[i];
                s2[i] = s1[i];
                s1[i] = s0;
            }
        }
        power.extend((0..TOGETHER).map(|i| s1[i] * s1[i] + s2[i] * s2[i] - coefficients[i] * s1[i] * s2[i]));
    }
    power.truncate(bins);
    power
}

/// Savitzky-Golay smoothing (`derivative` 0) or differentiation (1, 2; per sample) of equally spaced values.
///
/// `window` is the odd number of points each polynomial of degree `order` is fitted to; ends use the outermost fit.
/// Values that are fewer than the window, or a window that is even or not larger than `order`, give `None`.
pub(crate) fn savitzky_golay(values: &[f64], window: usize, order: usize, derivative: usize) -> Option<Vec<f64>> {
    if window.is_multiple_of(2) || window <= order || values.len() < window || derivative > order {
        return None;
    }
    let half = window / 2;
    // Weights of the fit's derivative at each position of the window, by the normal equations in the centred abscissa.
    let mut gram = vec![vec![0.0; order + 1]; order + 1];
    let abscissa = |i: usize| i as f64 - half as f64;
    for i in 0..window {
        for (p, row) in gram.iter_mut().enumerate() {
            for (q, cell) in row.iter_mut().enumerate() {
                *cell += abscissa(i).powi((p + q) as i32);
            }
        }
    }
    let inverse = invert(gram)?;
    let weights_at = |position: usize| -> Vec<f64> {
        let x = abscissa(position);
        // d^k/dx^k of x^p
        let basis: Vec<f64> = (0..=order)
            .map(|p| {
                if p < derivative {
                    0.0
                } else {
                    let falling: f64 = ((p - derivative + 1)..=p).map(|f| f as f64).product();
                    falling * x.powi((p - derivative) as i32)
                }
            })
            .collect();
        (0..window)
            .map(|i| {
                (0..=order)
                    .map(|q| {
                        let coefficient: f64 = (0..=order).map(|p| basis[p] * inverse[p][q]).sum();
                        coefficient * abscissa(i).powi(q as i32)
                    })
                    .sum()
            })
            .collect()
    };
    let apply = |weights: &[f64], from: usize| -> f64 {
        weights.iter().zip(&values[from..from + window]).map(|(w, v)| w * v).sum()
    };
    let centre = weights_at(half);
    let last = values.len() - window;
    Some(
        (0..values.len())
            .map(|i| {
                if i < half {
                    apply(&weights_at(i), 0)
                } else if i > last + half {
                    apply(&weights_at(i - last), last)
                } else {
                    apply(&centre, i - half)
                }
            })
            .collect(),
    )
}

/// Inverse of a small matrix by Gauss-Jordan elimination with row exchange; `None` if it is singular.
fn invert(mut matrix: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    let n = matrix.len();
    let mut inverse: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for column in 0..n {
        let pivot = (column..n).max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))?;
        if matrix[pivot][column].abs() < 1e-12 {
            return None;
        }
        matrix.swap(column, pivot);
        inverse.swap(column, pivot);
        let scale = matrix[column][column];
        for j in 0..n {
            matrix[column][j] /= scale;
            inverse[column][j] /= scale;
        }
        for row in (0..n).filter(|&row| row != column) {
            let factor = matrix[row][column];
            for j in 0..n {
                matrix[row][j] -= factor * matrix[column][j];
                inverse[row][j] -= factor * inverse[column][j];
            }
        }
    }
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(hz: f64, rate: f64, n: usize) -> Vec<Lanes> {
        (0..n).map(|i| [(std::f64::consts::TAU * hz * i as f64 / rate).sin() as f32; 8]).collect()
    }

    fn amplitude(samples: &[Lanes]) -> f32 {
        let middle = &samples[samples.len() / 4..samples.len() * 3 / 4];
        middle.iter().map(|s| s[0].abs()).fold(0.0, f32::max)
    }

    #[test]
    fn the_low_pass_is_three_decibels_down_at_its_cutoff_and_keeps_constants() {
        let section = Biquad::low_pass_both_ways(15.0, 100.0);
        let mut at_cutoff = sine(15.0, 100.0, 4000);
        zero_phase(&mut at_cutoff, &section);
        assert!((amplitude(&at_cutoff) - std::f32::consts::FRAC_1_SQRT_2).abs() < 0.01, "{}", amplitude(&at_cutoff));
        let mut low = sine(2.0, 100.0, 4000);
        zero_phase(&mut low, &section);
        assert!((amplitude(&low) - 1.0).abs() < 0.01);
        let mut constant = vec![[7.5; 8]; 50];
        zero_phase(&mut constant, &section);
        assert!(constant.iter().all(|s| (s[3] - 7.5).abs() < 1e-4));
    }

    #[test]
    fn flags_are_not_filtered() {
        let section = Biquad::low_pass_both_ways(15.0, 100.0);
        let mut flagged = sine(2.0, 100.0, 40);
        flagged[20][7] = 1.0;
        let flags: Vec<[f32; 2]> = flagged.iter().map(|s| [s[6], s[7]]).collect();
        zero_phase(&mut flagged, &section);
        assert_eq!(flagged.iter().map(|s| [s[6], s[7]]).collect::<Vec<_>>(), flags);
    }

    #[test]
    fn a_pulse_keeps_its_place() {
        let mut pulse: Vec<Lanes> =
            (0..400).map(|i| [(-((f64::from(i) - 200.0) / 8.0).powi(2)).exp() as f32; 8]).collect();
        zero_phase(&mut pulse, &Biquad::low_pass_both_ways(10.0, 100.0));
        let peak = (0..400).max_by(|&a, &b| pulse[a][0].total_cmp(&pulse[b][0])).unwrap();
        assert_eq!(peak, 200);
        assert!((pulse[195][0] - pulse[205][0]).abs() < 1e-4, "not symmetric");
    }

    #[test]
    fn the_power_at_each_frequency_is_that_of_the_discrete_fourier_transform() {
        let values: Vec<f64> = (0..60).map(|i| (f64::from(i) * 0.7).sin() + 0.1 * f64::from(i)).collect();
        let power = goertzel(&values, 13, |bin| bin as f64 / 60.0);
        assert_eq!(power.len(), 13);
        for (bin, power) in power.iter().enumerate() {
            let (mut re, mut im) = (0.0, 0.0);
            for (i, value) in values.iter().enumerate() {
                let angle = std::f64::consts::TAU * (bin * i) as f64 / 60.0;
                re += value * angle.cos();
                im += value * angle.sin();
            }
            assert!((power - (re * re + im * im)).abs() < 1e-6 * (1.0 + power), "{bin}: {power}");
        }
    }

    #[test]
    fn savitzky_golay_reproduces_cubics_and_their_derivatives_up_to_the_ends() {
        let cubic: Vec<f64> = (0..30)
            .map(|i| 1.0 + 2.0 * f64::from(i) - 0.3 * f64::from(i).powi(2) + 0.01 * f64::from(i).powi(3))
            .collect();
        let smooth = savitzky_golay(&cubic, 15, 3, 0).unwrap();
        let slope = savitzky_golay(&cubic, 15, 3, 1).unwrap();
        let bend = savitzky_golay(&cubic, 15, 3, 2).unwrap();
        for i in 0..30 {
            let x = i as f64;
            assert!((smooth[i] - cubic[i]).abs() < 1e-8);
            assert!((slope[i] - (2.0 - 0.6 * x + 0.03 * x * x)).abs() < 1e-8);
            assert!((bend[i] - (-0.6 + 0.06 * x)).abs() < 1e-8);
        }
        assert!(savitzky_golay(&cubic[..10], 15, 3, 0).is_none());
        assert!(savitzky_golay(&cubic, 14, 3, 0).is_none());
    }
}
