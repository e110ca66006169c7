//! One clock for a whole session: what [`SessionClock`] read frame by frame, put right from everything that came.
//!
//! Two things are only known at the end. A counter has no zero: it is shifted so that its frame with the smallest delay
//! arrived when it was measured. And clocks disagree: a sensor that counts beside one that is calibrated, calibrations that
//! are old, clocks that drift or were set at a button. The order in which the gateway heard the sensors tells how they stand
//! to each other ([`pipelines::align`]).
//!
//! The frames in memory keep the times that were decoded; each look at the whole starts from these.

use std::ops::Range;

use pipelines::{CALIBRATED_S, ClockFix, ClockRun, align};
use schemas::{ClockKind, ClockNote, FrameColumns, SensorRole};

use super::clock::{Run, SessionClock};

/// With a counter mapped by its smallest delay, the error is what network and block buffering leave, s.
const COUNTER_S: f64 = 0.030;
/// Arrival times say nothing finer than the packet interval, s.
const ARRIVAL_S: f64 = 0.100;

const NS_PER_S: f64 = 1e9;

/// What puts a session's frames on one clock.
#[derive(Clone, Debug, Default)]
pub(super) struct CommonClock {
    moves: Vec<Move>,
    /// The same for people.
    pub(super) notes: Vec<ClockNote>,
    /// Estimated error between the clocks of different sensors, one standard deviation, ns.
    pub(super) sync_error_ns: i64,
}

/// A change of the times of one sensor's frames between two rows.
#[derive(Clone, Debug)]
struct Move {
    sensor: u8,
    rows: Range<usize>,
    by: By,
}

#[derive(Clone, Debug)]
enum By {
    Shift(i64),
    Line(ClockFix),
}

impl CommonClock {
    /// Looks at the frames whose times `clock` decoded, leaving those out that `is_void` names by their row.
    pub(super) fn of(frames: &FrameColumns, clock: &SessionClock, is_void: impl Fn(usize) -> bool) -> Self {
        let runs = clock.runs(frames.len());
        let heard = heard(frames, &runs, is_void);
        let alignment = align(&heard);
        let mut common = Self { sync_error_ns: sync_error_ns(clock, &runs, &alignment.error_s), ..Self::default() };
        for run in runs.iter().filter(|run| run.shift_ns != 0) {
            common.moves.push(Move { sensor: run.sensor, rows: run.rows.clone(), by: By::Shift(run.shift_ns) });
        }
        for fix in alignment.fixes {
            let (run, order) = (&runs[fix.run], &heard[fix.run].order);
            common.notes.push(ClockNote {
                sensor: SensorRole::from_wire_id(i64::from(run.sensor)),
                calibrated: !run.counter,
                from_s: fix.from_s,
                ahead_ms: fix.offset_s * 1e3,
                drift_ppm: fix.slope * 1e6,
            });
            let first = if fix.samples.start == 0 { run.rows.start } else { order[fix.samples.start] };
            let end = order.get(fix.samples.end).copied().unwrap_or(run.rows.end);
            common.moves.push(Move { sensor: run.sensor, rows: first..end, by: By::Line(fix) });
        }
        common
    }

    /// True if the frames are on one clock as they were decoded.
    pub(super) fn is_decoded(&self) -> bool {
        self.moves.is_empty()
    }

    /// Puts decoded times on the common clock.
    pub(super) fn apply(&self, frames: &mut FrameColumns) {
        for Move { sensor, rows, by } in &self.moves {
            for row in rows.start..rows.end.min(frames.len()) {
                if frames.sensor[row] != *sensor || frames.clock[row] == ClockKind::Arrival as u8 {
                    continue;
                }
                let t_ns = frames.t_ns[row];
                frames.t_ns[row] = match by {
                    By::Shift(shift_ns) => t_ns.saturating_add(*shift_ns),
                    // The correction is small and exact in f64; the time itself need not be.
                    By::Line(fix) => {
                        let t_s = t_ns as f64 / NS_PER_S;
                        t_ns.saturating_add(((fix.apply(t_s) - t_s) * NS_PER_S).round() as i64)
                    }
                };
            }
        }
    }
}

/// The samples of each run with a time of their own, as the pipelines compare them.
fn heard(frames: &FrameColumns, runs: &[Run], is_void: impl Fn(usize) -> bool) -> Vec<ClockRun> {
    let mut heard: Vec<ClockRun> = runs
        .iter()
        .map(|run| ClockRun { sensor: usize::from(run.sensor), calibrated: !run.counter, ..ClockRun::default() })
        .collect();
    // The run that each sensor is in; the runs of a sensor are neighbours.
    let mut current = [None; u8::MAX as usize + 1];
    for row in 0..frames.len() {
        let sensor = frames.sensor[row];
        let place = &mut current[usize::from(sensor)];
        let mut run = place.or_else(|| runs.iter().position(|run| run.sensor == sensor));
        while let Some(at) = run
            && runs[at].rows.end <= row
        {
            run = Some(at + 1).filter(|&next| runs.get(next).is_some_and(|run| run.sensor == sensor));
        }
        *place = run;
        let Some(run) = run else { continue };
        let kind = frames.clock[row];
        if kind == ClockKind::Arrival as u8 || kind == ClockKind::Outlier as u8 || is_void(row) {
            continue;
        }
        heard[run].order.push(row);
        heard[run].t_s.push(frames.t_ns[row].saturating_add(runs[run].shift_ns) as f64 / NS_PER_S);
    }
    heard
}

/// The error that the worst of the clocks has against the others.
fn sync_error_ns(clock: &SessionClock, runs: &[Run], error_s: &[Option<f64>]) -> i64 {
    // Clocks that were compared with none stand where arrival put them, and so do those that they would be compared with.
    let apart = runs.len() == 1 || error_s.iter().any(Option::is_none);
    let of_run = |(run, error_s): (&Run, &Option<f64>)| {
        let alone_s = if run.counter { COUNTER_S } else { CALIBRATED_S };
        if apart { error_s.unwrap_or(0.0).max(alone_s) } else { error_s.unwrap_or(0.0).max(CALIBRATED_S) }
    };
    let unstamped_s = if clock.without_stamp() { ARRIVAL_S } else { 0.0 };
    let worst_s = runs.iter().zip(error_s).map(of_run).fold(unstamped_s, f64::max);
    (worst_s * NS_PER_S).round() as i64
}
