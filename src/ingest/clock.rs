//! The device clock: from a frame's raw time to time since session start.
//!
//! Firmware builds send five different things under one field and one version name: a time of day HHMMSSmmm in UTC+8
//! once the device calibrated its clock, a sensor's uptime (as plain milliseconds or dressed up as a time of day) before
//! that, Unix milliseconds, or bit fields. Single frames fall back to the uncalibrated value; a button press makes a
//! sensor's stamps jump; midnight wraps to 0. So a stamp is read by plausibility: against its neighbours first, against
//! the time of arrival second. The raw value is always kept, so that a better reading stays possible.
//!
//! [`SessionClock::decode`] works frame by frame and gives the live time. `common_clock` then puts the sensors on one clock,
//! from the whole session's runs.

use std::ops::Range;

use schemas::frames::{ClockKind, NO_DEVICE_TIME};

/// A time of day or Unix time this close to the time of arrival is believed to be calibrated.
const PLAUSIBLE_MS: i64 = 5 * 60_000;
/// Neighbouring frames of a sensor are at most this far apart without a reason.
const STEP_FORWARD_MS: i64 = 10_000;
/// Blocks are mixed from several sensors; within one sensor, time hardly goes back.
const STEP_BACK_MS: i64 = 2_000;
/// After a pause, device time and arrival must have advanced alike, to within this.
const PAUSE_MS: i64 = 2_000;
/// So many frames in a row that fit each other but not the past are a new truth, not outliers.
const CONFIRMATIONS: usize = 3;
/// The wire's time of day is Beijing time.
const UTC_PLUS_8_MS: i64 = 8 * 3_600_000;
const DAY_MS: i64 = 86_400_000;
/// Sensors by their byte, [`schemas::SensorRole::to_byte`].
pub(super) const SENSORS: usize = 5;

/// Reads HHMMSSmmm (leading zeros lost) as ms since midnight; `None` if a field is out of range.
fn time_of_day_ms(raw: i64) -> Option<i64> {
    let (hour, minute, second, ms) = (raw / 10_000_000, raw / 100_000 % 100, raw / 1000 % 100, raw % 1000);
    ((0..24).contains(&hour) && minute < 60 && second < 60).then_some(((hour * 60 + minute) * 60 + second) * 1000 + ms)
}

/// Reads the bit fields hour<<20, minute<<14, second<<7, low seven bits of the milliseconds. The lost high bits of the
/// milliseconds come back from `after`, the last known ms since midnight of the same sensor.
fn bit_field_ms(raw: i64, after: Option<i64>) -> Option<i64> {
    let (hour, minute, second, low) = (raw >> 20, raw >> 14 & 63, raw >> 7 & 127, raw & 127);
    if !((0..24).contains(&hour) && minute < 60 && second < 60) {
        return None;
    }
    let second_ms = ((hour * 60 + minute) * 60 + second) * 1000;
    let mut ms = second_ms + low;
    if let Some(after) = after.filter(|after| after / 1000 == second_ms / 1000) {
        // The first multiple of 128 ms at which time does not go back, if one is left in this second.
        while ms < after && ms + 128 < second_ms + 1000 {
            ms += 128;
        }
    }
    Some(ms)
}

/// The moment with this time of day that is nearest to `near_ms` (both Unix ms).
fn nearest_day(time_of_day_ms: i64, near_ms: i64) -> i64 {
    let utc_of_day = time_of_day_ms - UTC_PLUS_8_MS;
    let days = (near_ms - utc_of_day + DAY_MS / 2).div_euclid(DAY_MS);
    days * DAY_MS + utc_of_day
}

/// Which clock a sensor is believed to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// One of the absolute kinds; positions are Unix ms.
    Absolute(ClockKind),
    /// Unknown zero; positions are ms since session start, anchored at the first arrival.
    Counter,
}

/// A believed frame.
#[derive(Clone, Copy, Debug)]
struct Fix {
    raw: i64,
    /// ms since session start.
    t_ms: i64,
    arrived_ms: i64,
}

/// A run of frames of one sensor on one clock.
#[derive(Clone, Copy, Debug)]
struct Segment {
    first_row: usize,
    mode: Mode,
    first_ms: i64,
    last_ms: i64,
    /// Smallest `arrival - t` of the run, both since session start.
    lag_min_ms: i64,
}

#[derive(Clone, Debug, Default)]
struct SensorClock {
    mode: Option<Mode>,
    last: Option<Fix>,
    /// Typical distance of frames, ms.
    period_ms: f64,
    /// Frames in a row that did not fit; the newest is kept to compare the next with.
    misfits: usize,
    misfit: Option<(Mode, Fix)>,
    segments: Vec<Segment>,
}

/// Frames of one sensor on one clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Sensor byte.
    pub(super) sensor: u8,
    /// Between these rows, others' among them.
    pub(super) rows: Range<usize>,
    /// The clock has no zero that is known.
    pub(super) counter: bool,
    /// What puts a counter's frame with the smallest delay to where it arrived.
    pub(super) shift_ns: i64,
}

/// The clocks of all sensors of one session.
#[derive(Clone, Debug)]
pub struct SessionClock {
    started_at_ms: i64,
    sensors: [SensorClock; SENSORS],
}

impl SessionClock {
    /// Clocks for a session that started at this moment (µs since 1970 UTC).
    #[must_use]
    pub fn new(started_at_us: i64) -> Self {
        Self { started_at_ms: started_at_us.div_euclid(1000), sensors: Default::default() }
    }

    /// Time since session start (ns) of the frame that becomes row `row`, and how it was found.
    ///
    /// Rows must come in arrival order. `sensor` is the sensor byte; `raw` may be [`NO_DEVICE_TIME`].
    pub fn decode(&mut self, row: usize, sensor: u8, raw: i64, received_at_us: i64) -> (i64, ClockKind) {
        let arrived_ms = received_at_us.div_euclid(1000) - self.started_at_ms;
        let started_at_ms = self.started_at_ms;
        let Some(clock) = self.sensors.get_mut(usize::from(sensor)) else {
            return (arrived_ms.saturating_mul(1_000_000), ClockKind::Arrival);
        };
        let (t_ms, kind) = clock.decode(row, raw, arrived_ms, started_at_ms);
        (t_ms.saturating_mul(1_000_000), kind)
    }

    /// The runs of all sensors among the first `rows` rows.
    pub(super) fn runs(&self, rows: usize) -> Vec<Run> {
        let runs_of = |(sensor, clock): (usize, &SensorClock)| {
            let ends = clock.segments.iter().skip(1).map(|next| next.first_row).chain([rows]);
            let runs = clock.segments.iter().zip(ends).map(|(segment, end)| {
                let counter = segment.mode == Mode::Counter;
                // Counters that run away from arrival are a replay at another speed or a broken counter: the first
                // arrival then stays the anchor.
                let duration_ms = segment.last_ms - segment.first_ms;
                let credible = segment.lag_min_ms > -(PAUSE_MS + duration_ms / 20);
                let shift_ms = if counter && credible { segment.lag_min_ms } else { 0 };
                let sensor = sensor as u8;
                Run { sensor, rows: segment.first_row..end, counter, shift_ns: shift_ms.saturating_mul(1_000_000) }
            });
            runs.collect::<Vec<_>>()
        };
        self.sensors.iter().enumerate().flat_map(runs_of).collect()
    }
}

impl SensorClock {
    fn decode(&mut self, row: usize, raw: i64, arrived_ms: i64, started_at_ms: i64) -> (i64, ClockKind) {
        if raw == NO_DEVICE_TIME || raw < 0 {
            return (arrived_ms, ClockKind::Arrival);
        }
        let Some((mode, last)) = self.mode.zip(self.last) else {
            let (mode, t_ms) = first_reading(raw, arrived_ms, started_at_ms);
            self.begin(row, mode, Fix { raw, t_ms, arrived_ms });
            return (t_ms, kind_of(mode));
        };
        if let Some(t_ms) = follow(mode, last, raw, arrived_ms, started_at_ms) {
            self.misfits = 0;
            self.misfit = None;
            let step_ms = (t_ms - last.t_ms) as f64;
            if (0.0..=500.0).contains(&step_ms) {
                // A slow average: outliers borrow this step, nothing else does.
                self.period_ms += (step_ms - self.period_ms) * if self.period_ms == 0.0 { 1.0 } else { 0.05 };
            }
            self.last = Some(Fix { raw, t_ms, arrived_ms });
            if let Some(segment) = self.segments.last_mut() {
                segment.last_ms = t_ms;
                segment.lag_min_ms = segment.lag_min_ms.min(arrived_ms - t_ms);
            }
            return (t_ms, kind_of(mode));
        }
        // It does not follow. If it follows the misfit before it, the clock may have stepped.
        let (new_mode, fix) = match self.misfit {
            Some((mode, fix)) if follow(mode, fix, raw, arrived_ms, started_at_ms).is_some() => {
                self.misfits += 1;
                let t_ms = follow(mode, fix, raw, arrived_ms, started_at_ms).unwrap_or(fix.t_ms);
                (mode, Fix { raw, t_ms, arrived_ms })
            }
            _ => {
                self.misfits = 1;
                let (mode, t_ms) = first_reading(raw, arrived_ms, started_at_ms);
                (mode, Fix { raw, t_ms, arrived_ms })
            }
        };
        if self.misfits >= CONFIRMATIONS {
            self.begin(row, new_mode, fix);
            return (fix.t_ms, kind_of(new_mode));
        }
        self.misfit = Some((new_mode, fix));
        let t_ms = last.t_ms + (self.period_ms.max(1.0) * self.misfits as f64).round() as i64;
        (t_ms, ClockKind::Outlier)
    }

    fn begin(&mut self, row: usize, mode: Mode, fix: Fix) {
        self.mode = Some(mode);
        self.last = Some(fix);
        self.misfits = 0;
        self.misfit = None;
        self.segments.push(Segment {
            first_row: row,
            mode,
            first_ms: fix.t_ms,
            last_ms: fix.t_ms,
            lag_min_ms: fix.arrived_ms - fix.t_ms,
        });
    }
}

const fn kind_of(mode: Mode) -> ClockKind {
    match mode {
        Mode::Absolute(kind) => kind,
        Mode::Counter => ClockKind::Counter,
    }
}

/// Reads a stamp without a past: the absolute reading nearest to its arrival if that is plausible, else a counter
/// anchored at its arrival. Returns ms since session start.
fn first_reading(raw: i64, arrived_ms: i64, started_at_ms: i64) -> (Mode, i64) {
    let arrived_unix_ms = started_at_ms + arrived_ms;
    let unix = (raw >= 1_000_000_000_000).then_some((ClockKind::UnixMs, raw));
    let of_day = time_of_day_ms(raw).map(|ms| (ClockKind::TimeOfDay, nearest_day(ms, arrived_unix_ms)));
    let bits = bit_field_ms(raw, None).map(|ms| (ClockKind::BitField, nearest_day(ms, arrived_unix_ms)));
    [unix, of_day, bits]
        .into_iter()
        .flatten()
        .map(|(kind, unix_ms)| (unix_ms.abs_diff(arrived_unix_ms), kind, unix_ms))
        .filter(|&(distance_ms, ..)| distance_ms <= PLAUSIBLE_MS as u64)
        .min_by_key(|&(distance_ms, ..)| distance_ms)
        .map_or((Mode::Counter, arrived_ms), |(_, kind, unix_ms)| (Mode::Absolute(kind), unix_ms - started_at_ms))
}

/// Reads a stamp as the next of a sensor on a known clock; `None` if it does not follow.
fn follow(mode: Mode, last: Fix, raw: i64, arrived_ms: i64, started_at_ms: i64) -> Option<i64> {
    let follows = |t_ms: i64| {
        let step_ms = t_ms - last.t_ms;
        let neighbours = (-STEP_BACK_MS..=STEP_FORWARD_MS).contains(&step_ms);
        let pause = (step_ms - (arrived_ms - last.arrived_ms)).abs() <= PAUSE_MS;
        neighbours || pause
    };
    let last_unix_ms = started_at_ms + last.t_ms;
    let candidates: [Option<i64>; 2] = match mode {
        Mode::Absolute(ClockKind::UnixMs) => [(raw >= 1_000_000_000_000).then(|| raw - started_at_ms), None],
        Mode::Absolute(ClockKind::BitField) => {
            let last_of_day_ms = (last_unix_ms + UTC_PLUS_8_MS).rem_euclid(DAY_MS);
            let of_day = bit_field_ms(raw, Some(last_of_day_ms));
            [of_day.map(|ms| nearest_day(ms, last_unix_ms) - started_at_ms), None]
        }
        Mode::Absolute(_) => [time_of_day_ms(raw).map(|ms| nearest_day(ms, last_unix_ms) - started_at_ms), None],
        Mode::Counter => {
            // A counter may be plain milliseconds or dressed up as a time of day. Both agree within a minute; at its end
            // only the right reading goes on smoothly.
            let plain = raw.checked_sub(last.raw).map(|step_ms| last.t_ms.saturating_add(step_ms));
            let dressed = time_of_day_ms(raw)
                .zip(time_of_day_ms(last.raw))
                .map(|(now, then)| last.t_ms + (now - then + DAY_MS / 2).rem_euclid(DAY_MS) - DAY_MS / 2);
            [plain, dressed]
        }
    };
    candidates.into_iter().flatten().filter(|&t_ms| follows(t_ms)).min_by_key(|t_ms| t_ms.abs_diff(last.t_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2025-09-27 15:45:00 in UTC+8.
    const START_US: i64 = 1_758_959_100_000_000;

    fn decode_all(stamps: &[(i64, i64)]) -> (Vec<i64>, Vec<ClockKind>, SessionClock) {
        let mut clock = SessionClock::new(START_US);
        let (times, kinds) = stamps
            .iter()
            .enumerate()
            .map(|(row, &(raw, arrived_ms))| {
                let (t_ns, kind) = clock.decode(row, 1, raw, START_US + arrived_ms * 1000);
                (t_ns / 1_000_000, kind)
            })
            .unzip();
        (times, kinds, clock)
    }

    #[test]
    fn a_calibrated_time_of_day_is_exact() {
        let (times, kinds, clock) = decode_all(&[(154501651, 1700), (154501661, 1700), (154501671, 1700)]);
        assert_eq!(times, [1651, 1661, 1671]);
        assert!(kinds.iter().all(|&kind| kind == ClockKind::TimeOfDay));
        assert_eq!(clock.runs(3), [Run { sensor: 1, rows: 0..3, counter: false, shift_ns: 0 }]);
    }

    #[test]
    fn midnight_goes_on_in_both_directions() {
        // 2025-09-27 23:59:59.990 in UTC+8 and a session that started 5 ms later.
        let start_us = START_US + (8 * 3600 + 14 * 60 + 59) * 1_000_000 + 995_000;
        let mut clock = SessionClock::new(start_us);
        let times: Vec<i64> = [235959990, 235959995, 0, 5, 10]
            .into_iter()
            .enumerate()
            .map(|(row, raw)| clock.decode(row, 1, raw, start_us + 40_000).0 / 1_000_000)
            .collect();
        assert_eq!(times, [-5, 0, 5, 10, 15]);
    }

    #[test]
    fn one_uncalibrated_frame_is_an_outlier_and_disturbs_nothing() {
        let (times, kinds, _) =
            decode_all(&[(154501000, 1100), (154501010, 1100), (80105020, 1100), (154501030, 1100), (154501040, 1100)]);
        assert_eq!(kinds[2], ClockKind::Outlier);
        assert_eq!((times[0], times[1], times[3], times[4]), (1000, 1010, 1030, 1040));
        assert_eq!(times[2], 1020);
    }

    #[test]
    fn a_step_of_the_clock_is_followed_after_three_frames() {
        let stamps: Vec<(i64, i64)> = (0..10).map(|i| (154501000 + 10 * i, 1100)).collect();
        let jumped: Vec<(i64, i64)> = (0..10).map(|i| (154631000 + 10 * i, 1200)).collect();
        let (times, kinds, _) = decode_all(&[stamps, jumped].concat());
        assert_eq!(times[9], 1090);
        assert_eq!(kinds[10..12], [ClockKind::Outlier; 2]);
        assert_eq!(times[12], 91_020);
        assert_eq!(times[19], 91_090);
    }

    #[test]
    fn a_dressed_up_uptime_passes_the_minute() {
        let stamps: Vec<(i64, i64)> = (0..200)
            .map(|i| {
                let uptime_ms = 59_000 + i * 10;
                (80_000_000 + uptime_ms / 60_000 * 100_000 + uptime_ms % 60_000, 5_000 + i * 10)
            })
            .collect();
        let (times, kinds, clock) = decode_all(&stamps);
        assert!(kinds.iter().all(|&kind| kind == ClockKind::Counter), "{kinds:?}");
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 10), "{times:?}");
        assert!(clock.runs(200)[0].counter);
    }

    #[test]
    fn plain_milliseconds_pass_values_that_look_like_times() {
        let stamps: Vec<(i64, i64)> = (0..500).map(|i| (59_500 + i * 100, 2_000 + i * 100)).collect();
        let (times, kinds, _) = decode_all(&stamps);
        assert!(kinds.iter().all(|&kind| kind == ClockKind::Counter));
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 100));
    }

    #[test]
    fn a_counter_is_shifted_by_its_smallest_delay() {
        // Blocks of ten frames arrive when the last of them was measured, plus 20 ms on the way.
        let stamps: Vec<(i64, i64)> =
            (0..100).map(|i| (500_000 + i * 10, 1_000 + (i / 10 * 10 + 9) * 10 + 20)).collect();
        let (times, _, clock) = decode_all(&stamps);
        let runs = clock.runs(100);
        assert_eq!((runs.len(), runs[0].counter, &runs[0].rows), (1, true, &(0..100)));
        assert_eq!(times[0] + runs[0].shift_ns / 1_000_000, 1_020);
    }

    #[test]
    fn unix_milliseconds_and_bit_fields_are_recognised() {
        let unix_ms = START_US / 1000 + 2_000;
        let (times, kinds, _) = decode_all(&[(unix_ms, 2_050), (unix_ms + 10, 2_050)]);
        assert_eq!(times, [2_000, 2_010]);
        assert_eq!(kinds[0], ClockKind::UnixMs);

        let bits = |ms: i64| 15 << 20 | 45 << 14 | (ms / 1000) << 7 | (ms % 1000) & 127;
        let stamps: Vec<(i64, i64)> = (0..150).map(|i| (bits(1_000 + i * 10), 1_100 + i * 10)).collect();
        let (times, kinds, _) = decode_all(&stamps);
        assert!(kinds.iter().all(|&kind| kind == ClockKind::BitField));
        assert_eq!(times.first(), Some(&1_000));
        assert_eq!(times.last(), Some(&2_490));
    }

    #[test]
    fn device_time_may_run_faster_than_arrival() {
        // A replay at twenty times the speed stays on its own clock.
        let stamps: Vec<(i64, i64)> = (0..6_000)
            .map(|i| {
                let ms = i * 100;
                let of_day = ((15 * 60 + 45 + ms / 60_000) * 60_000) + ms % 60_000;
                let (hour, minute, rest) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day % 60_000);
                (hour * 10_000_000 + minute * 100_000 + rest, ms / 20)
            })
            .collect();
        let (times, kinds, _) = decode_all(&stamps);
        assert!(kinds.iter().all(|&kind| kind == ClockKind::TimeOfDay));
        assert_eq!(times.last(), Some(&599_900));
    }

    #[test]
    fn any_stamp_is_survived() {
        let stamps: Vec<(i64, i64)> = [i64::MIN, -1, 0, i64::MAX, 1, i64::MAX - 1, 235959999, 1 << 62, 7]
            .into_iter()
            .map(|raw| (raw, 10))
            .collect();
        let (times, ..) = decode_all(&stamps);
        assert_eq!(times.len(), stamps.len());
    }
}
