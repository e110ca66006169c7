//! A value at irregular times, as it comes, on an even grid and smoothed.

use std::collections::VecDeque;

/// Turns samples at their own times into means over cells of equal length, by the integral of the line through them.
/// Magnitudes, not vectors: where a swing turns round between two samples, a vector between them passes through nothing.
#[derive(Clone, Debug)]
pub(crate) struct Cells {
    step_ns: i64,
    /// Middle of the cell being filled.
    middle_ns: i64,
    last: Option<(i64, f64)>,
    sum: f64,
    covered_ns: i64,
}

impl Cells {
    pub(crate) fn new(step_ns: i64) -> Self {
        Self { step_ns, middle_ns: 0, last: None, sum: 0.0, covered_ns: 0 }
    }

    pub(crate) fn start(&mut self, t_ns: i64) {
        *self = Self { middle_ns: t_ns, ..Self::new(self.step_ns) };
    }

    pub(crate) fn push(&mut self, t_ns: i64, value: f64, mut out: impl FnMut(f32)) {
        let Some((mut from_ns, mut from)) = self.last.replace((t_ns, value)) else { return };
        let slope = (value - from) / (t_ns - from_ns) as f64;
        while from_ns < t_ns {
            let border_ns = self.middle_ns.saturating_add(self.step_ns / 2);
            let to_ns = border_ns.min(t_ns);
            let to = value - slope * (t_ns - to_ns) as f64;
            self.sum += 0.5 * (from + to) * (to_ns - from_ns) as f64;
            self.covered_ns += to_ns - from_ns;
            (from_ns, from) = (to_ns, to);
            if to_ns == border_ns {
                out((self.sum / self.covered_ns as f64) as f32);
                self.middle_ns = self.middle_ns.saturating_add(self.step_ns);
                (self.sum, self.covered_ns) = (0.0, 0);
            }
        }
    }

    /// The last cell, if the samples reach its middle.
    pub(crate) fn finish(&mut self) -> Option<f32> {
        let (t_ns, value) = self.last.take()?;
        (t_ns >= self.middle_ns)
            .then(|| if self.covered_ns > 0 { (self.sum / self.covered_ns as f64) as f32 } else { value as f32 })
    }
}

/// Centred moving average of `2 · half + 1` points, of the points there are at the ends.
#[derive(Clone, Debug)]
pub(crate) struct MovingAverage {
    half: usize,
    window: VecDeque<f32>,
    /// In f64: over hours at 100 Hz its rounding stays below 1e-9 of the largest value.
    sum: f64,
    /// Values given, and averages returned.
    taken: usize,
    given: usize,
}

impl MovingAverage {
    pub(crate) fn new(half: usize) -> Self {
        Self { half, window: VecDeque::new(), sum: 0.0, taken: 0, given: 0 }
    }

    pub(crate) fn push(&mut self, value: f32, out: impl FnMut(f32)) {
        self.window.push_back(value);
        self.sum += f64::from(value);
        self.taken += 1;
        if self.taken > self.half {
            self.emit(out);
        }
    }

    fn emit(&mut self, mut out: impl FnMut(f32)) {
        if self.given > self.half
            && let Some(old) = self.window.pop_front()
        {
            self.sum -= f64::from(old);
        }
        self.given += 1;
        out((self.sum / self.window.len().max(1) as f64) as f32);
    }

    pub(crate) fn finish(&mut self, mut out: impl FnMut(f32)) {
        while self.given < self.taken {
            self.emit(&mut out);
        }
        *self = Self::new(self.half);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_the_mean_over_its_time_at_any_rate() {
        let mean = |rate_hz: f64| -> Vec<f32> {
            let mut cells = Cells::new(10_000_000);
            cells.start(0);
            let mut out = Vec::new();
            for i in 0..(rate_hz as i64) {
                let t_ns = (i as f64 * 1e9 / rate_hz) as i64;
                cells.push(t_ns, t_ns as f64 / 1e9, |score| out.push(score));
            }
            out.extend(cells.finish());
            out
        };
        for rate_hz in [10.0, 100.0, 130.0, 800.0] {
            for (k, value) in mean(rate_hz).iter().enumerate().skip(1).take(80) {
                assert!((f64::from(*value) - k as f64 * 0.01).abs() < 1e-6, "{k} at {rate_hz} Hz: {value}");
            }
        }
    }

    #[test]
    fn the_streaming_average_is_the_plain_mean() {
        for (half, n) in [(0, 5), (3, 40), (3, 2), (5, 5)] {
            let values: Vec<f32> = (0..n).map(|i: u8| f32::from(i % 11 * 7 % 11)).collect();
            let mut average = MovingAverage::new(half);
            let mut out = Vec::new();
            for &value in &values {
                average.push(value, |value| out.push(value));
            }
            average.finish(|value| out.push(value));
            let plain: Vec<f32> = (0..values.len())
                .map(|i| {
                    let window = &values[i.saturating_sub(half)..(i + half + 1).min(values.len())];
                    window.iter().sum::<f32>() / window.len() as f32
                })
                .collect();
            assert_eq!(out.len(), plain.len());
            assert!(out.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-5), "{out:?} {plain:?}");
        }
    }
}
