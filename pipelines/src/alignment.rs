//! One clock for all sensors of a recording, from the order in which their samples reached the gateway.
//!
//! A sensor stamps with a clock of its own. A gateway that calibrated these clocks did so once, when it was switched on, as
//! if all ran equally fast; at 50 ppm two of them are 50 ms apart after 1000 s, which is as much as the delays of a chain.
//! Sensors that only count have no common zero at all. But the samples of all sensors come through one gateway one after
//! the other, and a packet keeps that order: a sample of one sensor that came between two samples of another was measured
//! between them, as far as both were as long on the way.
//!
//! So each sample gives a *residual*: its own stamp less the middle of the stamps about it. The residuals of a sensor lie on
//! a line (offset and drift), within half a sample's period either way; where they step, somebody set the clock. A line is
//! fitted to each stretch between steps (Theil-Sen, through means of parts), and is taken off where it is more than the order
//! of arrival leaves open.

use std::collections::HashSet;
use std::ops::Range;

use crate::calibrate::median;
use crate::trend::theil_sen;

/// Samples of one sensor on one clock, in the order in which they arrived.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClockRun {
    /// Which sensor; any number.
    pub sensor: usize,
    /// Place of each sample in the order of arrival of all sensors' samples. Increasing.
    pub order: Vec<usize>,
    /// Stamp of each sample, s.
    pub t_s: Vec<f64>,
    /// The clock claims the common time, to [`CALIBRATED_S`]. False: its zero is its own, and `t_s` is a guess.
    pub calibrated: bool,
}

/// How the stamps of a stretch of a run are put right: `t - (offset + slope (t - from))`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClockFix {
    /// Which of the runs.
    pub run: usize,
    /// Its samples: positions in the run.
    pub samples: Range<usize>,
    /// Stamp at which the offset holds, s.
    pub from_s: f64,
    /// The clock is ahead by so much, s.
    pub offset_s: f64,
    /// And gains so much a second.
    pub slope: f64,
}

impl ClockFix {
    /// The stamp on the common clock, s.
    #[must_use]
    pub fn apply(&self, t_s: f64) -> f64 {
        t_s - (self.offset_s + self.slope * (t_s - self.from_s))
    }
}

/// What the order of arrival says about the clocks of a recording.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alignment {
    /// The stretches whose stamps are not on the common clock. The others are.
    pub fixes: Vec<ClockFix>,
    /// Error of each run's clock against the one that the others are compared with, one standard deviation, s, to which each
    /// clock's own [`CALIBRATED_S`] comes at the least; `None`: the order says nothing about it. Those of two runs add up as
    /// variances.
    pub error_s: Vec<Option<f64>>,
}

/// Error of a calibrated clock, one standard deviation, s: stamps are whole milliseconds, and the firmware's calibration
/// rounds to a few more.
pub const CALIBRATED_S: f64 = 0.003;

/// Samples between others that a run needs to be compared.
const SAMPLES_MIN: usize = 60;
/// The most runs that are compared, the longest; a recording has one a sensor, and one more for each jump of a clock.
const RUNS_MAX: usize = 32;
/// For a clock without a zero an order that leaves more than this open (s) is no better than the time of arrival.
const COUNTER_ERROR_MAX_S: f64 = 0.020;
/// And one that leaves more than this open says nothing: blocks of one sensor after the other.
const ERROR_MAX_S: f64 = 0.100;
/// Samples of which the residuals' middle is taken before steps are looked for.
const BLOCK: usize = 32;
/// No step of a clock is smaller, s.
const STEP_MIN_S: f64 = 0.010;
/// Drift shows in stretches of this length, s.
const DRIFT_MIN_S: f64 = 20.0;
/// Points to which a stretch is thinned for its line, each the mean of its part.
const LINE_POINTS: usize = 64;

/// Brings the clocks of the runs together.
///
/// Pure: the same runs give the same answer. Without two runs whose samples came mixed nothing is fixed.
#[must_use]
pub fn align(runs: &[ClockRun]) -> Alignment {
    let mut compared: Vec<usize> = (0..runs.len()).filter(|&run| runs[run].order.len() >= SAMPLES_MIN).collect();
    compared.sort_by_key(|&run| (std::cmp::Reverse(runs[run].order.len()), run));
    compared.truncate(RUNS_MAX);
    // What others are compared with: a calibrated clock, and the one with most samples of these. One that was set while it
    // recorded shows its step in the others' residuals: then the clock with the fewest steps against it is taken.
    let mut anchors = compared.clone();
    anchors.sort_by_key(|&run| (!runs[run].calibrated, std::cmp::Reverse(runs[run].order.len()), run));
    let mut best: Option<(usize, Alignment)> = None;
    for &anchor in &anchors {
        let calibrated_but_not_this = runs[anchors[0]].calibrated && !runs[anchor].calibrated;
        if calibrated_but_not_this || runs[anchor].order.len() * 2 < runs[anchors[0]].order.len() {
            break;
        }
        let (steps, alignment) = align_to(runs, &compared, anchor);
        if best.as_ref().is_none_or(|(fewest, _)| steps < *fewest) {
            best = Some((steps, alignment));
        }
        if steps == 0 || runs.len() < 3 {
            break;
        }
    }
    best.map_or_else(|| Alignment { fixes: Vec::new(), error_s: vec![None; runs.len()] }, |(_, alignment)| alignment)
}

/// Brings those of the runs that are compared to the clock of one; also the number of steps that were found.
fn align_to(runs: &[ClockRun], compared: &[usize], anchor: usize) -> (usize, Alignment) {
    let mut alignment = Alignment { fixes: Vec::new(), error_s: vec![None; runs.len()] };
    alignment.error_s[anchor] = Some(0.0);
    // The stamps as they are fixed so far.
    let mut times: Vec<Vec<f64>> = runs.iter().map(|run| run.t_s.clone()).collect();
    let mut known = vec![anchor];
    // Calibrated runs that are left as they are, by which other run they were judged, and what their error would be if
    // calibrations are not to be trusted.
    let mut left: Vec<(usize, usize, f64)> = Vec::new();
    let mut calibrations_hold = true;
    let mut steps = 0;
    let mut tried: HashSet<(usize, usize)> = HashSet::new();
    // What never came between the anchor's samples may have come between those of one that did.
    while let Some((run, by, tie)) = compared.iter().filter(|run| !known.contains(run)).find_map(|&run| {
        known.iter().find_map(|&by| {
            let tie = if tried.insert((run, by)) { tie(&runs[run], &runs[by], &times[by]) } else { None };
            tie.map(|tie| (run, by, tie))
        })
    }) {
        let mut error_s = 0.0_f64;
        steps += tie.stretches.len() - 1;
        for stretch in tie.stretches {
            if runs[run].calibrated
                && let Some(calibrated_s) = stretch.error_as_it_is_s(&tie.order)
            {
                error_s = error_s.max(calibrated_s);
                left.push((run, by, stretch.error_in_doubt_s(&tie.order)));
                continue;
            }
            calibrations_hold &= !runs[run].calibrated;
            error_s = error_s.max(tie.order.error_s());
            let fix = ClockFix {
                run,
                samples: stretch.samples,
                from_s: stretch.from_s,
                offset_s: stretch.offset_s,
                slope: stretch.slope,
            };
            for t_s in &mut times[run][fix.samples.clone()] {
                *t_s = fix.apply(*t_s);
            }
            alignment.fixes.push(fix);
        }
        let by_s = alignment.error_s[by].unwrap_or(0.0);
        alignment.error_s[run] = Some(error_s.hypot(by_s));
        known.push(run);
    }
    // Where one calibrated clock was off the others may be too, by what the order leaves open.
    for (run, by, doubted_s) in left.into_iter().filter(|_| !calibrations_hold) {
        let by_s = alignment.error_s[by].unwrap_or(0.0);
        alignment.error_s[run] = alignment.error_s[run].map(|error_s| error_s.max(doubted_s.hypot(by_s)));
    }
    (steps, alignment)
}

/// How closely the order of arrival tells time.
#[derive(Clone, Copy, Debug)]
struct Order {
    /// Time between the samples that another came between, s.
    period_s: f64,
    /// How much residuals scatter beyond what that period leaves open, s: unequal time on the way.
    scatter_s: f64,
}

impl Order {
    /// True if samples came in groups of one sensor each (a radio's or a packet's): half a group may lie between two
    /// sensors that measured at once.
    fn grouped(&self) -> bool {
        self.scatter_s > self.period_s
    }

    /// How far the middle of the residuals may lie from the clock's offset, s: half a period where two even rhythms keep their
    /// phase, less where the way scatters. (The first term of a saw tooth's Fourier series, less by the characteristic
    /// function of that scatter.)
    fn open_s(&self) -> f64 {
        let turns = self.scatter_s / self.period_s;
        0.5 * self.period_s * (-2.0 * (std::f64::consts::PI * turns).powi(2)).exp()
    }

    /// Error of a clock that was read from the order, one standard deviation, s.
    fn error_s(&self) -> f64 {
        // A sample lies anywhere between its neighbours; two sensors' ways differ in their means by no more than they scatter;
        // half a group of length g is √3 times its standard deviation g/√12.
        let way_s = if self.grouped() { 1.5 * self.scatter_s } else { self.scatter_s };
        CALIBRATED_S.hypot(way_s.max(self.open_s() / 3.0_f64.sqrt()))
    }
}

/// A run as another sees it.
struct Tie {
    stretches: Vec<Stretch>,
    order: Order,
}

/// Samples of a run between two steps of its clock.
struct Stretch {
    samples: Range<usize>,
    from_s: f64,
    to_s: f64,
    offset_s: f64,
    slope: f64,
}

impl Stretch {
    /// Largest offset from one end to the other, s.
    fn off_s(&self) -> f64 {
        self.offset_s.abs().max((self.offset_s + self.slope * (self.to_s - self.from_s)).abs())
    }

    /// Error of a clock that is left as it is although its calibration may be old, one standard deviation, s: its offset, and what
    /// the order leaves open of it. Grouped samples say nothing.
    fn error_in_doubt_s(&self, order: &Order) -> f64 {
        if order.grouped() {
            return CALIBRATED_S;
        }
        CALIBRATED_S.hypot(self.off_s()).hypot(order.open_s() / 3.0_f64.sqrt())
    }

    /// Error of a calibrated clock that is left as it is, one standard deviation, s; `None`: the order of arrival knows better.
    fn error_as_it_is_s(&self, order: &Order) -> Option<f64> {
        let drifted_s = self.slope * (self.to_s - self.from_s);
        // What grouped samples say of an offset is rough; a clock that drifts a little is the better one of the two.
        let steady_s = CALIBRATED_S + if order.grouped() { order.period_s } else { 2.0 * order.open_s() };
        if drifted_s.abs() > steady_s {
            return None;
        }
        let beyond_s = (self.off_s() - (order.open_s() + CALIBRATED_S)).max(0.0);
        if order.grouped() {
            // Half a group between two true clocks is √3 times the scatter, and says nothing against them.
            return (beyond_s <= CALIBRATED_S + 2.0 * order.scatter_s).then_some(CALIBRATED_S);
        }
        // Two sensors' ways may differ in their means by as much as a way scatters (a radio whose events keep step with the
        // samples). Which of the two is off nobody knows; here it is this one.
        (beyond_s <= CALIBRATED_S + 2.5 * order.scatter_s).then(|| CALIBRATED_S.hypot(beyond_s))
    }
}

/// One sample between two of another sensor.
#[derive(Clone, Copy)]
struct Residual {
    sample: usize,
    t_s: f64,
    ahead_s: f64,
}

/// Compares a run with another whose stamps are `times`. `None` if their samples did not come mixed, or the order says too
/// little.
fn tie(run: &ClockRun, by: &ClockRun, times: &[f64]) -> Option<Tie> {
    if run.sensor == by.sensor {
        return None;
    }
    let (residuals, period_s) = residuals(run, by, times)?;
    let stretches: Vec<(Stretch, &[Residual])> = steps(&residuals, period_s)
        .windows(2)
        .map(|bounds| (line(run, &residuals, bounds[0]..bounds[1], period_s), &residuals[bounds[0]..bounds[1]]))
        .collect();
    let mut left: Vec<f64> = stretches
        .iter()
        .flat_map(|(stretch, residuals)| {
            residuals.iter().map(|r| r.ahead_s - (stretch.offset_s + stretch.slope * (r.t_s - stretch.from_s)))
        })
        .collect();
    let reach_s = reach_s(&left, period_s);
    left.retain(|r| r.abs() <= reach_s);
    let variance = left.iter().map(|r| r * r).sum::<f64>() / left.len().max(1) as f64;
    let order = Order { period_s, scatter_s: (variance - period_s * period_s / 12.0).max(0.0).sqrt() };
    if order.error_s() > if run.calibrated { ERROR_MAX_S } else { COUNTER_ERROR_MAX_S } {
        return None;
    }
    Some(Tie { stretches: stretches.into_iter().map(|(stretch, _)| stretch).collect(), order })
}

/// The residuals of a run against another, and the usual time between the other's samples, s.
fn residuals(run: &ClockRun, by: &ClockRun, times: &[f64]) -> Option<(Vec<Residual>, f64)> {
    // Runs that lie apart are many where clocks jump.
    let mut next = by.order.partition_point(|&place| place < run.order[0]);
    let mut between: Vec<(Residual, f64)> = Vec::new();
    for (sample, (&place, &t_s)) in run.order.iter().zip(&run.t_s).enumerate() {
        while next < by.order.len() && by.order[next] < place {
            next += 1;
        }
        if next == by.order.len() {
            break;
        }
        if next == 0 {
            continue;
        }
        let (before_s, after_s) = (times[next - 1], times[next]);
        let ahead_s = t_s - f64::midpoint(before_s, after_s);
        between.push((Residual { sample, t_s, ahead_s }, after_s - before_s));
    }
    let mut widths: Vec<f64> = between.iter().map(|&(_, width_s)| width_s).collect();
    let period_s = median(&mut widths)?;
    // Where the other's samples are missing the middle says nothing.
    let residuals: Vec<Residual> = between
        .into_iter()
        .filter(|&(_, width_s)| (-2.0 * period_s..=2.0 * period_s).contains(&width_s))
        .map(|(residual, _)| residual)
        .collect();
    (period_s > 0.0 && residuals.len() >= SAMPLES_MIN).then_some((residuals, period_s))
}

/// Where the clock was set: bounds of the stretches between, the first 0, the last the number of residuals.
fn steps(residuals: &[Residual], period_s: f64) -> Vec<usize> {
    let middle = |range: Range<usize>| {
        let mut part: Vec<f64> = residuals[range].iter().map(|r| r.ahead_s).collect();
        median(&mut part).unwrap_or(0.0)
    };
    let blocks: Vec<f64> =
        (0..residuals.len() / BLOCK).map(|block| middle(block * BLOCK..(block + 1) * BLOCK)).collect();
    // Three blocks on either side; what the phase of two even rhythms may do is less than two periods.
    let around = |at: usize| {
        let mut before = blocks[at.saturating_sub(3)..at].to_vec();
        let mut after = blocks[at..(at + 3).min(blocks.len())].to_vec();
        median(&mut after).unwrap_or(0.0) - median(&mut before).unwrap_or(0.0)
    };
    let mut changes: Vec<f64> = (1..blocks.len()).map(|at| (blocks[at] - blocks[at - 1]).abs()).collect();
    let usual_s = median(&mut changes).unwrap_or(0.0);
    let least_s = STEP_MIN_S.max(2.0 * period_s).max(10.0 * usual_s);
    let mut bounds = vec![0];
    let mut at = 3;
    while at + 3 <= blocks.len() {
        if around(at).abs() < least_s {
            at += 1;
            continue;
        }
        // The summit of the change is the step.
        let summit = (at..(at + 4).min(blocks.len() - 2))
            .max_by(|&a, &b| around(a).abs().total_cmp(&around(b).abs()).then(b.cmp(&a)))
            .unwrap_or(at);
        let reach = (summit - 1) * BLOCK..((summit + 2) * BLOCK).min(residuals.len());
        let before_s = middle(reach.start.saturating_sub(3 * BLOCK)..reach.start);
        let after_s = middle(reach.end..(reach.end + 3 * BLOCK).min(residuals.len()));
        // The place that leaves least on either side of it.
        let mut left_s = 0.0;
        let mut least = (0.0, reach.start);
        for place in reach {
            left_s += (residuals[place].ahead_s - before_s).abs() - (residuals[place].ahead_s - after_s).abs();
            if left_s < least.0 {
                least = (left_s, place + 1);
            }
        }
        let place = least.1;
        bounds.push(place);
        at = summit + 3;
    }
    bounds.push(residuals.len());
    bounds
}

/// Residuals further from their middle than this, s, are those of samples that something held up (a gateway that was busy) and
/// say nothing about the clock.
fn reach_s(from_middle: &[f64], period_s: f64) -> f64 {
    let mut sizes: Vec<f64> = from_middle.iter().map(|r| r.abs()).collect();
    (2.0 * period_s).max(5.0 * median(&mut sizes).unwrap_or(0.0))
}

/// The mean of residuals without those that were held up. Not their median: stamps of even rhythms differ by whole periods, and
/// only how often each difference occurs tells what is between.
fn mean_s(residuals: &[Residual], period_s: f64) -> f64 {
    let mut ahead: Vec<f64> = residuals.iter().map(|r| r.ahead_s).collect();
    let middle_s = median(&mut ahead).unwrap_or(0.0);
    for ahead_s in &mut ahead {
        *ahead_s -= middle_s;
    }
    let reach_s = reach_s(&ahead, period_s);
    ahead.retain(|r| r.abs() <= reach_s);
    middle_s + ahead.iter().sum::<f64>() / ahead.len().max(1) as f64
}

/// The line through a stretch of residuals.
fn line(run: &ClockRun, all: &[Residual], range: Range<usize>, period_s: f64) -> Stretch {
    let residuals = &all[range.clone()];
    // A stretch reaches to the next one: samples that came between none go with those before.
    let first = if range.start == 0 { 0 } else { residuals.first().map_or(0, |r| r.sample) };
    let end = all.get(range.end).map_or(run.order.len(), |r| r.sample);
    let (from_s, to_s) = (residuals.first().map_or(0.0, |r| r.t_s), residuals.last().map_or(0.0, |r| r.t_s));
    let mut points: (Vec<f64>, Vec<f64>) = residuals
        .chunks(residuals.len().div_ceil(LINE_POINTS).max(1))
        .map(|part| (f64::midpoint(part[0].t_s, part[part.len() - 1].t_s), mean_s(part, period_s)))
        .unzip();
    let slope = if to_s - from_s >= DRIFT_MIN_S { theil_sen(&points.0, &points.1).unwrap_or(0.0) } else { 0.0 };
    for (t_s, ahead_s) in points.0.iter().zip(&mut points.1) {
        *ahead_s -= slope * (t_s - from_s);
    }
    let offset_s = median(&mut points.1).unwrap_or(0.0);
    Stretch { samples: first..end, from_s, to_s, offset_s, slope }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// How samples get from the sensors to the gateway.
    #[derive(Clone, Copy, Debug)]
    enum Way {
        /// At once; all sensors measure at the same instants.
        Together,
        /// At once.
        AtOnce,
        /// After a time that is drawn for each sample: exponential with this mean, s.
        Waits(f64),
        /// In events of a radio this far apart, s, each sensor's at a phase of its own.
        Radio(f64),
        /// In packets of thirty that hold one sensor after the other.
        Sorted,
    }

    /// A condition under which four sensors are heard.
    #[derive(Clone, Copy, Debug)]
    struct Case {
        name: &'static str,
        way: Way,
        rate_hz: f64,
        duration_s: f64,
        /// Standard deviations over the sensors.
        offset_s: f64,
        drift_ppm: f64,
        /// One sensor's clock is set by so much on the way, s.
        step_s: f64,
        calibrated: bool,
        /// Share of packets of thirty that are lost.
        lost: f64,
        /// Resolution of the stamps, s.
        stamp_s: f64,
    }

    const CASE: Case = Case {
        name: "",
        way: Way::AtOnce,
        rate_hz: 100.0,
        duration_s: 120.0,
        offset_s: 0.0,
        drift_ppm: 0.0,
        step_s: 0.0,
        calibrated: true,
        lost: 0.0,
        stamp_s: 0.001,
    };

    const CASES: &[Case] = &[
        Case { name: "perfect, measured together", way: Way::Together, ..CASE },
        Case { name: "perfect", ..CASE },
        Case { name: "perfect, waits of 3 ms", way: Way::Waits(0.003), ..CASE },
        Case { name: "perfect, waits of 8 ms", way: Way::Waits(0.008), ..CASE },
        Case { name: "perfect, radio of 15 ms", way: Way::Radio(0.015), ..CASE },
        Case { name: "perfect, radio of 30 ms", way: Way::Radio(0.030), ..CASE },
        Case { name: "perfect, sorted packets", way: Way::Sorted, ..CASE },
        Case { name: "drift 50 ppm", drift_ppm: 50.0, ..CASE },
        Case { name: "drift 50 ppm, waits of 3 ms", drift_ppm: 50.0, way: Way::Waits(0.003), ..CASE },
        Case { name: "drift 50 ppm, 200 Hz", drift_ppm: 50.0, rate_hz: 200.0, ..CASE },
        Case { name: "drift 50 ppm, ten minutes", drift_ppm: 50.0, duration_s: 600.0, ..CASE },
        Case { name: "drift 50 ppm, ten minutes, 200 Hz", drift_ppm: 50.0, duration_s: 600.0, rate_hz: 200.0, ..CASE },
        Case { name: "drift 50 ppm, ten minutes, 50 Hz", drift_ppm: 50.0, duration_s: 600.0, rate_hz: 50.0, ..CASE },
        Case { name: "old calibration, 30 ms", offset_s: 0.030, drift_ppm: 10.0, ..CASE },
        Case {
            name: "old calibration, 100 ms, waits of 3 ms",
            offset_s: 0.1,
            drift_ppm: 30.0,
            way: Way::Waits(0.003),
            ..CASE
        },
        Case {
            name: "old calibration, 100 ms, radio of 15 ms",
            offset_s: 0.1,
            drift_ppm: 30.0,
            way: Way::Radio(0.015),
            ..CASE
        },
        Case { name: "old calibration, 100 ms, packets lost", offset_s: 0.1, drift_ppm: 30.0, lost: 0.1, ..CASE },
        Case { name: "counters", offset_s: 0.1, drift_ppm: 30.0, calibrated: false, ..CASE },
        Case { name: "counters, 200 Hz", offset_s: 0.1, drift_ppm: 30.0, calibrated: false, rate_hz: 200.0, ..CASE },
        Case { name: "counters, 20 s", offset_s: 0.1, drift_ppm: 30.0, calibrated: false, duration_s: 20.0, ..CASE },
        Case {
            name: "counters, waits of 8 ms",
            offset_s: 0.1,
            drift_ppm: 30.0,
            calibrated: false,
            way: Way::Waits(0.008),
            ..CASE
        },
        Case {
            name: "counters, radio of 30 ms",
            offset_s: 0.1,
            drift_ppm: 30.0,
            calibrated: false,
            way: Way::Radio(0.030),
            ..CASE
        },
        Case { name: "set by 50 ms at a button", step_s: 0.050, ..CASE },
        Case { name: "set by -50 ms, old calibration", step_s: -0.050, offset_s: 0.1, drift_ppm: 30.0, ..CASE },
        Case {
            name: "stamps in steps of 4 ms, 200 Hz",
            stamp_s: 0.004,
            offset_s: 0.03,
            drift_ppm: 30.0,
            rate_hz: 200.0,
            ..CASE
        },
    ];

    /// What came of a condition: over recordings, pairs of sensors and the recording's length.
    struct Outcome {
        /// Difference of two sensors' clocks, s: before and after, sorted.
        before_s: Vec<f64>,
        after_s: Vec<f64>,
        /// Largest error that was stated of a clock, s.
        stated_s: f64,
        /// What was stated of pairs, s, sorted.
        apart_s: Vec<f64>,
        /// Share of the differences within two standard deviations.
        covered: f64,
        fixes: usize,
    }

    struct Heard {
        arrived_s: f64,
        sensor: usize,
        stamp_s: f64,
        true_s: f64,
    }

    fn hear(case: &Case, seed: u64) -> Vec<Heard> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut normal = {
            let mut rng = ChaCha8Rng::seed_from_u64(seed + 1000);
            move || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
        };
        let (set, set_at_s) = (rng.random_range(0..4), case.duration_s * rng.random_range(0.25..0.75));
        let mut heard = Vec::new();
        for sensor in 0..4 {
            let (offset_s, drift) = (case.offset_s * normal(), 1e-6 * case.drift_ppm * normal());
            let period_s = 1.0 / case.rate_hz / (1.0 + drift);
            let radio_phase: f64 = rng.random();
            let mut true_s =
                if matches!(case.way, Way::Together | Way::Sorted) { 0.0 } else { period_s * rng.random::<f64>() };
            while true_s < case.duration_s {
                let way_s = match case.way {
                    // Equal times keep the sensors' order.
                    Way::Together | Way::AtOnce | Way::Sorted => 1e-7 * sensor as f64,
                    Way::Waits(mean_s) => -mean_s * (1.0 - rng.random::<f64>()).ln(),
                    Way::Radio(event_s) => ((true_s / event_s - radio_phase).ceil() + radio_phase) * event_s - true_s,
                };
                let step_s = if sensor == set && true_s > set_at_s { case.step_s } else { 0.0 };
                let stamp_s = true_s * (1.0 + drift) + offset_s + step_s;
                let stamp_s = (stamp_s / case.stamp_s).round() * case.stamp_s;
                heard.push(Heard { arrived_s: true_s + way_s, sensor, stamp_s, true_s });
                true_s += period_s;
            }
        }
        heard.sort_by(|a, b| a.arrived_s.total_cmp(&b.arrived_s));
        if matches!(case.way, Way::Sorted) {
            for packet in heard.chunks_mut(30) {
                packet.sort_by(|a, b| a.sensor.cmp(&b.sensor).then(a.true_s.total_cmp(&b.true_s)));
            }
        }
        let kept: Vec<bool> = (0..=heard.len() / 30).map(|_| rng.random::<f64>() >= case.lost).collect();
        heard.into_iter().enumerate().filter(|(place, _)| kept[place / 30]).map(|(_, heard)| heard).collect()
    }

    /// How far ahead a sensor's clock is at a moment, from its nearest samples.
    fn ahead_s(samples: &[(f64, f64)], at_s: f64) -> f64 {
        let at = samples.partition_point(|&(true_s, _)| true_s < at_s).clamp(2, samples.len() - 3);
        samples[at - 2..at + 3].iter().map(|(true_s, stamp_s)| stamp_s - true_s).sum::<f64>() / 5.0
    }

    fn measure(case: &Case, recordings: u64) -> Outcome {
        let mut outcome = Outcome {
            before_s: Vec::new(),
            after_s: Vec::new(),
            stated_s: 0.0,
            apart_s: Vec::new(),
            covered: 0.0,
            fixes: 0,
        };
        let mut covered = 0;
        for seed in 0..recordings {
            let heard = hear(case, seed);
            let mut runs = vec![ClockRun { calibrated: case.calibrated, ..ClockRun::default() }; 4];
            let mut truth: Vec<Vec<(f64, f64)>> = vec![Vec::new(); 4];
            for (place, sample) in heard.iter().enumerate() {
                runs[sample.sensor].sensor = sample.sensor;
                runs[sample.sensor].order.push(place);
                runs[sample.sensor].t_s.push(sample.stamp_s);
                truth[sample.sensor].push((sample.true_s, sample.stamp_s));
            }
            let alignment = align(&runs);
            let mut fixed = truth.clone();
            for fix in &alignment.fixes {
                for (_, stamp_s) in &mut fixed[fix.run][fix.samples.clone()] {
                    *stamp_s = fix.apply(*stamp_s);
                }
            }
            let stated_s: Vec<f64> =
                alignment.error_s.iter().map(|error| error.unwrap_or(1.0).max(CALIBRATED_S)).collect();
            outcome.stated_s = stated_s.iter().copied().fold(outcome.stated_s, f64::max);
            outcome.fixes += alignment.fixes.len();
            for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
                let apart_s = stated_s[a].hypot(stated_s[b]);
                outcome.apart_s.push(apart_s);
                for part in 0..20 {
                    let at_s = case.duration_s * (f64::from(part) + 0.5) / 20.0;
                    let apart = |of: &[Vec<(f64, f64)>]| (ahead_s(&of[a], at_s) - ahead_s(&of[b], at_s)).abs();
                    let after_s = apart(&fixed);
                    covered += usize::from(after_s <= 2.0 * apart_s);
                    outcome.before_s.push(apart(&truth));
                    outcome.after_s.push(after_s);
                }
            }
        }
        outcome.before_s.sort_by(f64::total_cmp);
        outcome.after_s.sort_by(f64::total_cmp);
        outcome.apart_s.sort_by(f64::total_cmp);
        outcome.covered = covered as f64 / outcome.after_s.len() as f64;
        outcome
    }

    fn at(sorted: &[f64], share: f64) -> f64 {
        sorted[((sorted.len() - 1) as f64 * share).round() as usize]
    }

    #[test]
    fn clocks_are_brought_together_within_the_error_that_is_stated() {
        for case in CASES {
            let outcome = measure(case, 5);
            assert!(outcome.covered >= 0.93, "{}: {}", case.name, outcome.covered);
            assert!(outcome.stated_s <= COUNTER_ERROR_MAX_S, "{}: {}", case.name, outcome.stated_s);
            let (before_s, after_s) = (at(&outcome.before_s, 0.95), at(&outcome.after_s, 0.95));
            if before_s > 0.03 {
                assert!(after_s < 0.6 * before_s, "{}: {before_s} to {after_s}", case.name);
            }
        }
    }

    #[test]
    fn clocks_that_are_right_are_left_alone() {
        // Events of 15 ms and samples of 10 ms in step may hold one sensor back by 10 ms and another not at all.
        let in_step = |case: &Case| matches!(case.way, Way::Radio(event_s) if event_s < 0.02);
        for case in CASES.iter().filter(|case| case.name.starts_with("perfect") && !in_step(case)) {
            let outcome = measure(case, 10);
            assert_eq!(outcome.fixes, 0, "{}", case.name);
            let most_s = if matches!(case.way, Way::Radio(_)) { 0.018 } else { 1.2 * CALIBRATED_S };
            assert!(outcome.stated_s <= most_s, "{}: {}", case.name, outcome.stated_s);
        }
    }

    #[test]
    fn a_clock_that_steps_is_not_what_the_others_are_compared_with() {
        let case = Case { step_s: 0.080, ..CASE };
        for seed in 0..8 {
            let heard = hear(&case, seed);
            let mut runs: Vec<ClockRun> =
                (0..4).map(|sensor| ClockRun { sensor, calibrated: true, ..ClockRun::default() }).collect();
            for (place, sample) in heard.iter().enumerate() {
                runs[sample.sensor].order.push(place);
                runs[sample.sensor].t_s.push(sample.stamp_s);
            }
            let fixes = align(&runs).fixes;
            // The sensor that was set, from there on; nobody else.
            assert_eq!(fixes.len(), 1, "{fixes:?}");
            let fix = &fixes[0];
            assert!((fix.offset_s - 0.080).abs() < 0.010, "{fix:?}");
            let place = runs[fix.run].order[fix.samples.start];
            let set = (heard[place].stamp_s - heard[place].true_s - 0.080).abs() < 0.001;
            let before = runs[fix.run].order[fix.samples.start - 1];
            assert!(set && (heard[before].stamp_s - heard[before].true_s).abs() < 0.001, "{fix:?}");
        }
    }

    #[test]
    fn what_cannot_be_compared_stays_as_it_is() {
        let lone = ClockRun {
            order: (0..500).collect(),
            t_s: (0..500).map(|i| f64::from(i) * 0.01).collect(),
            ..ClockRun::default()
        };
        assert_eq!(align(&[]), Alignment::default());
        assert_eq!(align(&[ClockRun::default()]).error_s, [None]);
        assert_eq!(align(std::slice::from_ref(&lone)).error_s, [Some(0.0)]);
        // One sensor after the other, as whole uploads come: no sample lies between two of the other.
        let after = ClockRun { sensor: 1, order: (500..1000).collect(), ..lone.clone() };
        let alignment = align(&[lone, after]);
        assert_eq!((alignment.fixes.len(), alignment.error_s), (0, vec![Some(0.0), None]));
    }

    #[test]
    fn clocks_that_jump_all_the_time_are_not_all_compared() {
        // Two sensors that take turns, and jump every 70 samples: a comparison of all with all would never end.
        let mut runs = Vec::new();
        for jump in 0..5000 {
            for sensor in 0..2 {
                let order: Vec<usize> = (0..70).map(|i| 2 * (70 * jump + i) + sensor).collect();
                let t_s = order.iter().map(|&place| place as f64 * 0.005 + (jump % 7) as f64).collect();
                runs.push(ClockRun { sensor, order, t_s, calibrated: true });
            }
        }
        let alignment = align(&runs);
        assert_eq!(alignment.error_s.len(), runs.len());
        assert!(alignment.error_s.iter().filter(|error| error.is_some()).count() <= RUNS_MAX);
    }

    #[test]
    #[ignore = "prints the table of docs/intervals.md"]
    fn clocks_table() {
        println!(
            "| condition | before ms (95%) | after ms (95%) | stated ms (median) | covered |\n|---|---|---|---|---|"
        );
        for case in CASES {
            let outcome = measure(case, 40);
            let ms = |s: f64| s * 1e3;
            println!(
                "| {} | {:.1} | {:.1} | {:.1} | {:.1} % |",
                case.name,
                ms(at(&outcome.before_s, 0.95)),
                ms(at(&outcome.after_s, 0.95)),
                ms(at(&outcome.apart_s, 0.5)),
                100.0 * outcome.covered
            );
        }
    }
}
