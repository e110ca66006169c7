//! What the firmware puts into a frame's `timestamp`.

/// Which build of the firmware stamps the frames. All call themselves V3.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Build {
    /// Since 8 September 2025: time of day in UTC+8 as HHMMSSmmm; before calibration, uptime printed the same way.
    #[default]
    TimeOfDay,
    /// 4 September 2025: milliseconds of the sensor.
    SensorMs,
    /// 4 to 8 September 2025: hour<<20, minute<<14, second<<7, low seven bits of the milliseconds.
    BitField,
    /// One build of 8 September 2025: Unix milliseconds.
    UnixMs,
}

/// How far the device's clocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// Neither the time of the network nor a calibration.
    Nothing,
    /// The time zone is set, the sensor not calibrated: its uptime is shown eight hours on.
    ZoneOnly,
    /// Calibrated.
    Done,
}

const DAY_MS: i64 = 86_400_000;
const ZONE_MS: i64 = 8 * 3_600_000;

/// The stamp of a frame. `unix_ms` is the frame's instant, `sensor_uptime_ms` what the sensor's own counter shows.
pub(super) fn stamp(build: Build, sync: Sync, unix_ms: i64, sensor_uptime_ms: f64) -> i64 {
    // The firmware computes in 32-bit floats: steps of 2 ms after 4.7 hours.
    let counter_ms = i64::from(sensor_uptime_ms.max(0.0) as f32 as u32);
    match (build, sync) {
        (Build::SensorMs, _) | (Build::UnixMs, Sync::Nothing | Sync::ZoneOnly) => counter_ms,
        (Build::UnixMs, Sync::Done) => unix_ms,
        (Build::TimeOfDay, Sync::Nothing) => digits(counter_ms),
        (Build::TimeOfDay, Sync::ZoneOnly) => digits(counter_ms + ZONE_MS),
        (Build::TimeOfDay, Sync::Done) => digits(unix_ms + ZONE_MS),
        (Build::BitField, Sync::Nothing) => bits(counter_ms),
        (Build::BitField, Sync::ZoneOnly) => bits(counter_ms + ZONE_MS),
        (Build::BitField, Sync::Done) => bits(unix_ms + ZONE_MS),
    }
}

fn parts(ms: i64) -> [i64; 4] {
    let ms = ms.rem_euclid(DAY_MS);
    [ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000]
}

fn digits(ms: i64) -> i64 {
    let [hour, minute, second, ms] = parts(ms);
    hour * 10_000_000 + minute * 100_000 + second * 1000 + ms
}

fn bits(ms: i64) -> i64 {
    let [hour, minute, second, ms] = parts(ms);
    hour << 20 | minute << 14 | second << 7 | (ms & 0x7F)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_those_of_the_builds() {
        // 15:45:01.651 in UTC+8.
        let unix_ms = 1_757_299_501_651 / DAY_MS * DAY_MS + (7 * 3600 + 45 * 60 + 1) * 1000 + 651;
        assert_eq!(stamp(Build::TimeOfDay, Sync::Done, unix_ms, 0.0), 154_501_651);
        assert_eq!(stamp(Build::TimeOfDay, Sync::Nothing, unix_ms, 65_230.0), 105_230);
        assert_eq!(stamp(Build::TimeOfDay, Sync::ZoneOnly, unix_ms, 65_230.0), 80_105_230);
        assert_eq!(stamp(Build::SensorMs, Sync::Done, unix_ms, 912_345.0), 912_345);
        assert_eq!(stamp(Build::UnixMs, Sync::Done, unix_ms, 0.0), unix_ms);
        let bits = stamp(Build::BitField, Sync::Done, unix_ms, 0.0);
        assert_eq!(bits, (15 << 20) + (45 << 14) + (1 << 7) + 0x0B);
        // Midnight in UTC+8 is 16:00 UTC; leading zeros are lost.
        let midnight_ms = 16 * 3_600_000;
        assert_eq!(stamp(Build::TimeOfDay, Sync::Done, midnight_ms, 0.0), 0);
        assert_eq!(stamp(Build::TimeOfDay, Sync::Done, midnight_ms + 423_000, 0.0), 703_000);
        assert_eq!(stamp(Build::TimeOfDay, Sync::Done, midnight_ms - 15, 0.0), 235_959_985);
        // After five hours a counter moves in steps of two.
        assert_eq!(stamp(Build::SensorMs, Sync::Done, 0, 18_000_001.0) % 2, 0);
    }
}
