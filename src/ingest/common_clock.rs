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
use schemas::{ClockKind, ClockNote, FrameColumns, SensorRole, SensorTrack};

use super::clock::{Run, SENSORS, SessionClock};

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
    /// Estimated error of each sensor's clock against the others', by sensor byte, one standard deviation, ns; `None`: it sent
    /// nothing.
    errors_ns: [Option<i64>; SENSORS],
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
        let by_arrival = by_arrival(frames, &is_void);
        let heard = heard(frames, &runs, is_void);
        let alignment = align(&heard);
        let mut common = Self { errors_ns: errors_ns(by_arrival, &runs, &alignment.error_s), ..Self::default() };
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

    /// Error of a sensor's clock against the others', ns.
    pub(super) fn error_ns(&self, sensor: u8) -> Option<i64> {
        self.errors_ns.get(usize::from(sensor)).copied().flatten()
    }

    /// That of the worst clock, ns; 0 without frames.
    pub(super) fn sync_error_ns(&self) -> i64 {
        self.errors_ns.iter().copied().flatten().max().unwrap_or(0)
    }

    /// True if the frames are on one clock as they were decoded.
    pub(super) fn is_decoded(&self) -> bool {
        self.moves.is_empty()
    }

    /// Puts decoded times on the common clock.
    pub(super) fn apply(&self, frames: &mut FrameColumns) {
        for Move { sensor, rows, by } in &self.moves {
            for row in rows.start..rows.end.min(frames.len()) {
                if frames.sensor[row] != *sensor || frames.is_untimed(row) {
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
        if frames.is_untimed(row) || frames.clock[row] == ClockKind::Outlier as u8 || is_void(row) {
            continue;
        }
        heard[run].order.push(row);
        heard[run].t_s.push(frames.t_ns[row].saturating_add(runs[run].shift_ns) as f64 / NS_PER_S);
    }
    heard
}

/// By sensor byte: true if samples of it are where they arrived, because too many have no time of their own to be left out.
fn by_arrival(frames: &FrameColumns, is_void: impl Fn(usize) -> bool) -> [bool; SENSORS] {
    let (mut all, mut untimed) = ([0; SENSORS], [0; SENSORS]);
    for row in (0..frames.len()).filter(|&row| !is_void(row)) {
        let sensor = usize::from(frames.sensor[row]);
        if let (Some(all), Some(untimed)) = (all.get_mut(sensor), untimed.get_mut(sensor)) {
            *all += 1;
            *untimed += usize::from(frames.is_untimed(row));
        }
    }
    std::array::from_fn(|sensor| untimed[sensor] > 0 && !SensorTrack::leaves_out(untimed[sensor], all[sensor]))
}

/// The error that each sensor's clock has against the others'; of several runs of a sensor the worst.
fn errors_ns(by_arrival: [bool; SENSORS], runs: &[Run], error_s: &[Option<f64>]) -> [Option<i64>; SENSORS] {
    let mut worst_s: [Option<f64>; SENSORS] = [None; SENSORS];
    let mut may_be_off = |sensor: usize, error_s: f64| {
        worst_s[sensor] = Some(worst_s[sensor].map_or(error_s, |worst_s| worst_s.max(error_s)));
    };
    let compared = || runs.iter().zip(error_s).filter(|(_, error_s)| error_s.is_some());
    let together = compared().count() > 1;
    // Counters that were compared with each other alone stand together where arrival put them, away from all other clocks.
    let common_s = if together && compared().all(|(run, _)| run.counter) { COUNTER_S } else { 0.0 };
    for (run, error_s) in runs.iter().zip(error_s) {
        let alone_s = if run.counter { COUNTER_S } else { CALIBRATED_S };
        let error_s = match error_s {
            Some(error_s) if together => error_s.max(CALIBRATED_S),
            Some(_) => alone_s,
            None => alone_s.hypot(common_s),
        };
        may_be_off(usize::from(run.sensor), error_s);
    }
    for (sensor, _) in by_arrival.iter().enumerate().filter(|(_, by_arrival)| **by_arrival) {
        may_be_off(sensor, ARRIVAL_S);
    }
    worst_s.map(|error_s| error_s.map(|error_s| (error_s * NS_PER_S).round() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2025-09-27 15:45:00 in UTC+8.
    const START_US: i64 = 1_758_959_100_000_000;

    /// A minute of two sensors at 100 Hz that take turns; `stamp` turns a sensor and its true time (ms) into what it sends.
    fn hear(stamp: impl Fn(u8, i64) -> i64) -> (FrameColumns, SessionClock) {
        let mut frames = FrameColumns::default();
        for tick in 0..6000 {
            for (sensor, role) in [(1, SensorRole::Waist), (2, SensorRole::Shoulder)] {
                let true_ms = 10 * tick + 5 * (sensor - 1);
                frames.push_decoded(sensor as i32, role, Some(stamp(sensor as u8, true_ms)), [[1.0; 3]; 3]);
            }
        }
        let mut clock = SessionClock::new(START_US);
        for row in 0..frames.len() {
            let arrived_us = START_US + (row as i64 / 30 + 1) * 150_000;
            let (t_ns, kind) = clock.decode(row, frames.sensor[row], frames.device_time_raw[row], arrived_us);
            (frames.t_ns[row], frames.clock[row], frames.received_at_us[row]) = (t_ns, kind as u8, arrived_us);
        }
        (frames, clock)
    }

    /// The largest distance of a frame's time from the true one, ms, after the mean distance is taken off.
    fn apart_ms(frames: &FrameColumns) -> f64 {
        let ahead = |row: usize| frames.t_ns[row] as f64 / 1e6 - 5.0 * row as f64;
        let mean = (0..frames.len()).map(ahead).sum::<f64>() / frames.len() as f64;
        (0..frames.len()).map(|row| (ahead(row) - mean).abs()).fold(0.0, f64::max)
    }

    fn unix_ms(true_ms: i64) -> i64 {
        START_US / 1000 + true_ms
    }

    #[test]
    fn clocks_that_agree_are_left_as_they_were_decoded() {
        let (frames, clock) = hear(|_, true_ms| unix_ms(true_ms));
        let common = CommonClock::of(&frames, &clock, |_| false);
        assert!(common.is_decoded() && common.notes.is_empty());
        assert_eq!(common.sync_error_ns(), 3_000_000);
    }

    #[test]
    fn an_old_calibration_that_drifts_is_put_right_and_told() {
        // 40 ms behind, and 500 ppm slow.
        let (mut frames, clock) =
            hear(|sensor, true_ms| unix_ms(if sensor == 2 { true_ms - 40 - true_ms / 2000 } else { true_ms }));
        assert!(apart_ms(&frames) > 30.0);
        let common = CommonClock::of(&frames, &clock, |_| false);
        common.apply(&mut frames);
        assert!(apart_ms(&frames) < 4.0, "{}", apart_ms(&frames));
        let [note] = common.notes.as_slice() else { panic!("{:?}", common.notes) };
        assert_eq!((note.sensor, note.calibrated), (SensorRole::Shoulder, true));
        assert!((note.ahead_ms + 40.0).abs() < 3.0 && (note.drift_ppm + 500.0).abs() < 50.0, "{note:?}");
        assert!((3_000_000..7_000_000).contains(&common.sync_error_ns()), "{}", common.sync_error_ns());

        // The next look starts from decoded times again, and says the same.
        let (again, clock) =
            hear(|sensor, true_ms| unix_ms(if sensor == 2 { true_ms - 40 - true_ms / 2000 } else { true_ms }));
        let common = CommonClock::of(&again, &clock, |_| false);
        let mut twice = again;
        common.apply(&mut twice);
        assert_eq!(twice.t_ns, frames.t_ns);
    }

    #[test]
    fn a_counter_beside_a_calibrated_clock_follows_it() {
        let (mut frames, clock) =
            hear(|sensor, true_ms| if sensor == 2 { 777_000 + true_ms } else { unix_ms(true_ms) });
        let before_ms = apart_ms(&frames);
        let common = CommonClock::of(&frames, &clock, |_| false);
        common.apply(&mut frames);
        assert!(apart_ms(&frames) < 4.0, "{before_ms} to {}", apart_ms(&frames));
        // The calibrated one stays where it was.
        assert_eq!((frames.t_ns[0], frames.t_ns[2]), (0, 10_000_000));
        assert!(!common.notes[0].calibrated && common.sync_error_ns() < 7_000_000);
    }

    #[test]
    fn counters_alone_are_compared_and_one_alone_is_not() {
        let (mut frames, clock) = hear(|sensor, true_ms| i64::from(sensor) * 500_000 + true_ms);
        let common = CommonClock::of(&frames, &clock, |_| false);
        common.apply(&mut frames);
        assert!(apart_ms(&frames) < 4.0, "{}", apart_ms(&frames));
        assert!(common.sync_error_ns() < 7_000_000);
        // Not one of the second sensor's frames is kept: nothing to compare with.
        let second: Vec<bool> = frames.sensor.iter().map(|&sensor| sensor == 2).collect();
        let common = CommonClock::of(&frames, &clock, |row| second[row]);
        assert!(common.notes.is_empty());
        assert_eq!(common.sync_error_ns(), 30_000_000);
    }

    #[test]
    fn what_was_not_compared_is_off_by_itself() {
        // Two counters take turns, and a third begins when they have ended.
        let (mut frames, mut clock) = hear(|sensor, true_ms| i64::from(sensor) * 500_000 + true_ms);
        let last_us = *frames.received_at_us.last().unwrap();
        for tick in 0..200 {
            frames.push_decoded(3, SensorRole::Wrist, Some(9_000_000 + 10 * tick), [[1.0; 3]; 3]);
            let row = frames.len() - 1;
            let arrived_us = last_us + (tick / 30 + 1) * 150_000;
            let (t_ns, kind) = clock.decode(row, 3, frames.device_time_raw[row], arrived_us);
            (frames.t_ns[row], frames.clock[row], frames.received_at_us[row]) = (t_ns, kind as u8, arrived_us);
        }
        let common = CommonClock::of(&frames, &clock, |_| false);
        let [_, waist, shoulder, wrist, racket] = common.errors_ns;
        // The two stand together where arrival put them, to which the third's own error comes.
        assert_eq!(waist, Some(3_000_000));
        assert!(shoulder.is_some_and(|error_ns| error_ns < 7_000_000), "{shoulder:?}");
        assert_eq!((wrist, racket), (Some(42_426_407), None));
        assert_eq!(common.sync_error_ns(), 42_426_407);
    }

    #[test]
    fn frames_without_a_time_stay_where_they_arrived() {
        let (mut frames, mut clock) = hear(|sensor, true_ms| unix_ms(if sensor == 2 { true_ms - 40 } else { true_ms }));
        frames.push_decoded(2, SensorRole::Shoulder, None, [[1.0; 3]; 3]);
        let row = frames.len() - 1;
        let (t_ns, kind) = clock.decode(row, 2, schemas::frames::NO_DEVICE_TIME, START_US + 60_100_000);
        (frames.t_ns[row], frames.clock[row]) = (t_ns, kind as u8);
        let common = CommonClock::of(&frames, &clock, |_| false);
        common.apply(&mut frames);
        assert_eq!(frames.t_ns[row], 60_100_000_000);
        assert!((frames.t_ns[row - 1] - 59_995_000_000).abs() < 4_000_000);
        // A single one is left out of the samples, and says nothing of the others.
        assert!(common.errors_ns[2].is_some_and(|error_ns| error_ns < 7_000_000), "{:?}", common.errors_ns);

        for row in (0..frames.len()).filter(|row| frames.sensor[*row] == 2 && row % 4 == 1) {
            frames.clock[row] = ClockKind::Arrival as u8;
        }
        let common = CommonClock::of(&frames, &clock, |_| false);
        // Half of them: that sensor alone.
        assert_eq!(common.errors_ns[1..], [Some(3_000_000), Some(100_000_000), None, None]);
        assert_eq!(common.sync_error_ns(), 100_000_000);
    }
}
