//! Frames of the old database on the time axis of their session.

use std::collections::BTreeMap;

use pipelines::calibrate;
use schemas::frames::NO_DEVICE_TIME;
use schemas::{ClockKind, FrameColumns};

/// Sensors by their byte.
const SENSORS: usize = 5;
/// A day, ms.
const DAY_MS: i64 = 86_400_000;

/// The frames of one recording.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The device that sent the first of them.
    pub(super) device: Option<String>,
    /// `device_time_raw` is what the old service had read from the device, as Unix ms.
    pub(super) columns: FrameColumns,
    /// Rows that cannot be used, by reason.
    pub(super) left_out: BTreeMap<&'static str, u64>,
}

impl Frames {
    pub(super) fn leave(&mut self, reason: &'static str) {
        *self.left_out.entry(reason).or_default() += 1;
    }

    pub(super) fn first_received_us(&self) -> Option<i64> {
        self.columns.received_at_us.iter().min().copied()
    }
}

/// Fills `t_ns` and `clock`.
///
/// The old service guessed the day of a time of day, wrong around midnight and by whole time zones, and lost four in ten
/// times. So a device's time counts only relative to the others: it is brought to within half a day of its arrival, and
/// all are shifted by the least delay between them and their arrivals. A frame without one stands where it arrived.
pub(super) fn place(columns: &mut FrameColumns, started_at_us: i64) {
    let near_arrival = |raw_ms: i64, received_us: i64| {
        let behind_ms = received_us / 1000 - raw_ms;
        raw_ms + (behind_ms + DAY_MS / 2).div_euclid(DAY_MS) * DAY_MS
    };
    let times: Vec<Option<i64>> = columns
        .device_time_raw
        .iter()
        .zip(&columns.received_at_us)
        .map(|(&raw, &received)| (raw != NO_DEVICE_TIME).then(|| near_arrival(raw, received)))
        .collect();
    let least_delay_ms = times
        .iter()
        .zip(&columns.received_at_us)
        .filter_map(|(time, received)| Some(received / 1000 - (*time)?))
        .min()
        .unwrap_or(0);
    for (row, time) in times.into_iter().enumerate() {
        let (at_us, clock) = match time {
            Some(ms) => ((ms + least_delay_ms) * 1000, ClockKind::UnixMs),
            None => (columns.received_at_us[row], ClockKind::Arrival),
        };
        columns.t_ns[row] = (at_us - started_at_us) * 1000;
        columns.clock[row] = clock as u8;
    }
}

/// The factor that turns each sensor's acceleration into m/s², by its byte; `None` where that cannot be told.
pub(super) fn units(columns: &FrameColumns) -> [Option<f32>; SENSORS] {
    std::array::from_fn(|sensor| {
        let of_sensor = |(&of, &acc): (&u8, &[f32; 3])| (usize::from(of) == sensor).then_some(acc);
        let samples: Vec<[f32; 3]> = columns.sensor.iter().zip(&columns.acc).filter_map(of_sensor).collect();
        if samples.is_empty() { None } else { calibrate::acc_to_mps2(&samples) }
    })
}

#[cfg(test)]
mod tests {
    use schemas::SensorRole;

    use super::*;

    #[test]
    fn device_times_count_relative_to_each_other_and_midnight_is_mended() {
        let mut columns = FrameColumns::default();
        let start_us = 20_000 * 86_400_000_000_i64;
        // The device is eight hours ahead, and the third frame was put a day late by the old service.
        let ahead_ms = 8 * 3_600_000;
        for (raw_ms, received_ms) in [(0, 20), (10, 31), (20 + DAY_MS, 55), (30, 50)] {
            columns.push_decoded(1, SensorRole::Waist, Some(start_us / 1000 + raw_ms + ahead_ms), [[0.0; 3]; 3]);
            *columns.received_at_us.last_mut().unwrap() = start_us + received_ms * 1000;
        }
        columns.push_decoded(1, SensorRole::Waist, None, [[0.0; 3]; 3]);
        *columns.received_at_us.last_mut().unwrap() = start_us + 60_000;
        place(&mut columns, start_us);
        let ms: Vec<i64> = columns.t_ns.iter().map(|ns| ns / 1_000_000).collect();
        assert_eq!(ms, [20, 30, 40, 50, 60]);
        assert_eq!(columns.clock[4], ClockKind::Arrival as u8);
    }
}
