//! Curves of angular rate, thinned to what a page can show.

use schemas::{SensorRole, SensorTrack, Track};

/// Columns that a session is thinned to: about one a pixel of the plot.
const COLUMNS: usize = 900;

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
    /// A curve of points in time order. Two points further apart than `gap_s` are not connected; points that are not
    /// finite are left out.
    fn of_points(sensor: SensorRole, points: impl IntoIterator<Item = CurvePoint>, gap_s: f64) -> Self {
        let mut runs: Vec<Vec<CurvePoint>> = Vec::new();
        for point in points {
            if ![point.t_s, point.min_dps, point.max_dps].iter().all(|value| value.is_finite()) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.last().is_some_and(|last| point.t_s - last.t_s <= gap_s) => run.push(point),
                _ => runs.push(vec![point]),
            }
        }
        Self { sensor, runs }
    }

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
        let (Some(&(first_s, _)), Some(&(last_s, _))) = (rates.first(), rates.last()) else {
            return Self { sensor, runs: Vec::new() };
        };
        let mut steps: Vec<f64> = rates.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        steps.sort_by(f64::total_cmp);
        let usual_step_s = steps.get(steps.len() / 2).copied().unwrap_or(0.0);
        let column_s = (last_s - first_s) / COLUMNS as f64;
        if column_s <= usual_step_s {
            let points =
                rates.into_iter().map(|(t_s, rate_dps)| CurvePoint { t_s, min_dps: rate_dps, max_dps: rate_dps });
            return Self::of_points(sensor, points, GAP_STEPS * usual_step_s);
        }
        // Samples of one column become one upright stroke from the least to the largest.
        let mut points: Vec<CurvePoint> = Vec::with_capacity(COLUMNS + 1);
        let mut column = usize::MAX;
        for (t_s, rate_dps) in rates {
            let here = ((t_s - first_s) / column_s) as usize;
            match points.last_mut() {
                Some(point) if here == column => {
                    point.min_dps = point.min_dps.min(rate_dps);
                    point.max_dps = point.max_dps.max(rate_dps);
                }
                _ => points.push(CurvePoint { t_s, min_dps: rate_dps, max_dps: rate_dps }),
            }
            column = here;
        }
        Self::of_points(sensor, points, gap_s(column_s, usual_step_s))
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

/// How far apart neighbouring points may be before they count as a gap: samples every `step_s`, thinned to columns of
/// `column_s`, of which two neighbours can hold samples almost two columns apart.
fn gap_s(column_s: f64, step_s: f64) -> f64 {
    (GAP_STEPS * step_s).max(2.0 * column_s)
}
