//! Curves of angular rate, thinned to what a page can show.

use schemas::{SensorRole, SensorTrack, Track};

/// Points that a curve is thinned to: about one a pixel column of the plot.
const COLUMN_LIMIT: usize = 900;

/// A stretch without samples this many times longer than the usual step is drawn as a gap, as in the analysis.
const GAP_STEPS: f64 = 5.0;

/// |ω| of one sensor over the session.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    pub sensor: SensorRole,
    /// Runs of points in time order; between two runs nothing was recorded.
    pub runs: Vec<Vec<CurvePoint>>,
}

/// |ω| within one column of the plot, °/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// s since session start.
    pub t_s: f64,
    pub min_dps: f64,
    pub max_dps: f64,
}

impl Curve {
    /// The curves of every sensor of a recording, proximal first. Samples without a finite rate are left out.
    #[must_use]
    pub fn of_track(track: &Track) -> Vec<Self> {
        track.iter().map(|(sensor, samples)| Self::of_sensor(sensor, samples)).collect()
    }

    fn of_sensor(sensor: SensorRole, samples: &SensorTrack) -> Self {
        let rates: Vec<(f64, f64)> = samples
            .t_ns
            .iter()
            .zip(&samples.gyro)
            .map(|(&t_ns, gyro)| (t_ns as f64 / 1e9, gyro.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt()))
            .filter(|(_, rate_dps)| rate_dps.is_finite())
            .collect();
        let mut curve = Self { sensor, runs: Vec::new() };
        let (Some(&(first_s, _)), Some(&(last_s, _))) = (rates.first(), rates.last()) else {
            return curve;
        };

        let mut steps: Vec<f64> = rates.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        steps.sort_by(f64::total_cmp);
        let usual_step_s = steps.get(steps.len() / 2).copied().unwrap_or(0.0);
        let column_s = (last_s - first_s) / COLUMN_LIMIT as f64;
        let gap_s = GAP_STEPS * usual_step_s;

        let mut previous_s = f64::NEG_INFINITY;
        let mut column = usize::MAX;
        for (t_s, rate_dps) in rates {
            let starts_run = previous_s.is_infinite() || t_s - previous_s > gap_s.max(column_s);
            if starts_run {
                curve.runs.push(Vec::new());
            }
            let here = if column_s > usual_step_s { ((t_s - first_s) / column_s) as usize } else { usize::MAX };
            let run = curve.runs.last_mut().expect("a run was begun with the first sample");
            match run.last_mut() {
                // Samples of one column become one upright stroke from the least to the largest.
                Some(point) if here == column && here != usize::MAX => {
                    point.min_dps = point.min_dps.min(rate_dps);
                    point.max_dps = point.max_dps.max(rate_dps);
                }
                _ => run.push(CurvePoint { t_s, min_dps: rate_dps, max_dps: rate_dps }),
            }
            column = here;
            previous_s = t_s;
        }
        curve
    }

    /// The largest rate, °/s; 0 without points.
    #[must_use]
    pub fn peak_dps(&self) -> f64 {
        self.runs.iter().flatten().map(|point| point.max_dps).fold(0.0, f64::max)
    }

    /// The last point's time, s; 0 without points.
    #[must_use]
    pub fn end_s(&self) -> f64 {
        self.runs.iter().flatten().map(|point| point.t_s).fold(0.0, f64::max)
    }
}
