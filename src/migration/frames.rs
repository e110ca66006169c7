//! A row of sensor data as a frame.

use schemas::{FrameColumns, SensorRole};
use serde::Deserialize;
use serde_json::Value;

use super::source::time_us;
use super::{Note, Reason};

/// The column `data`: what a device sent, and what the old system added.
#[derive(Debug, Deserialize)]
struct Data {
    acc: Option<Vec<Option<f64>>>,
    gyro: Option<Vec<Option<f64>>>,
    angle: Option<Vec<Option<f64>>>,
    sensor_id: Option<Value>,
    timestamp: Option<Value>,
    /// The time of a frame that came by itself, as it was sent.
    esp32_timestamp: Option<Value>,
}

/// Adds the frame to the columns; with a remark if there is one.
///
/// `device_time` is the column that the old system made out of the frame's own time, which counts only where that is not
/// in `data`: it was read in several ways.
pub(super) fn push(
    columns: &mut FrameColumns,
    sensor_type: &str,
    data: &str,
    device_time: Option<&str>,
    received_at_us: i64,
) -> Result<Option<Note>, Reason> {
    let data: Data = match serde_json::from_str(data) {
        Ok(data) => data,
        // Python writes what is not finite in words that JSON does not have.
        Err(_) if data.contains("NaN") || data.contains("Infinity") => {
            let data = data.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null");
            serde_json::from_str(&data).map_err(|error| fault(&error))?
        }
        Err(error) => return Err(fault(&error)),
    };
    let values = [
        triple(data.acc.as_deref())?.ok_or(Reason::BadValues)?,
        triple(data.gyro.as_deref())?.unwrap_or([f32::NAN; 3]),
        triple(data.angle.as_deref())?.unwrap_or([f32::NAN; 3]),
    ];
    let stored = SensorRole::from_name(sensor_type);
    // The number is the device's own word; the old system stored number 4, the racket, as wrist.
    let number = data.sensor_id.as_ref().and_then(integer).and_then(|id| i32::try_from(id).ok()).unwrap_or(0);
    let by_number = SensorRole::from_wire_id(i64::from(number));
    let (role, note) = match (by_number, stored) {
        (SensorRole::Unknown, SensorRole::Wrist) => (stored, Some(Note::WristOrRacket)),
        (SensorRole::Unknown, _) => (stored, None),
        (SensorRole::Racket, SensorRole::Wrist) => (by_number, Some(Note::RacketRestored)),
        (by_number, _) => (by_number, None),
    };
    let time = [data.timestamp, data.esp32_timestamp].iter().flatten().find_map(device_time_raw);
    let time = time.or_else(|| Some(time_us(device_time?)? / 1000));
    columns.push_decoded(number, role, time, values);
    if let Some(received) = columns.received_at_us.last_mut() {
        *received = received_at_us;
    }
    Ok(note)
}

fn fault(error: &serde_json::Error) -> Reason {
    if error.is_data() { Reason::BadValues } else { Reason::BadJson }
}

/// Three numbers, of which some may be null.
fn triple(values: Option<&[Option<f64>]>) -> Result<Option<[f32; 3]>, Reason> {
    let finite = |value: Option<f64>| value.map(|value| value as f32).filter(|value| value.is_finite());
    match values {
        None => Ok(None),
        Some([x, y, z]) => Ok(Some([*x, *y, *z].map(|value| finite(value).unwrap_or(f32::NAN)))),
        Some(_) => Err(Reason::BadValues),
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Digits as they stand, other texts as Unix milliseconds.
fn device_time_raw(value: &Value) -> Option<i64> {
    integer(value).or_else(|| Some(time_us(value.as_str()?)? / 1000)).filter(|&time| time >= 0)
}

#[cfg(test)]
mod tests {
    use schemas::frames::NO_DEVICE_TIME;

    use super::*;

    fn pushed(sensor: &str, data: &str, device_time: Option<&str>) -> (FrameColumns, Result<Option<Note>, Reason>) {
        let mut columns = FrameColumns::default();
        let note = push(&mut columns, sensor, data, device_time, 77);
        (columns, note)
    }

    #[test]
    fn a_frame_keeps_what_the_device_sent() {
        let data =
            r#"{"acc": [0.5, -1, 9.8], "gyro": [1, 2, 3], "angle": [4, 5, 6], "sensor_id": 4, "timestamp": 703000}"#;
        let (columns, note) = pushed("wrist", data, Some("2025-09-27 00:00:00"));
        assert_eq!(note, Ok(Some(Note::RacketRestored)));
        assert_eq!((columns.role(0), columns.sensor_id[0]), (SensorRole::Racket, 4));
        assert_eq!((columns.device_time_raw[0], columns.received_at_us[0]), (703_000, 77));
        assert_eq!(columns.acc[0].map(f32::to_bits), [0.5_f32, -1.0, 9.8].map(f32::to_bits));
    }

    #[test]
    fn times_come_from_the_data_first_and_the_column_last() {
        let at = |data: &str, column| pushed("waist", data, column).0.device_time_raw[0];
        assert_eq!(at(r#"{"acc":[1,2,3],"esp32_timestamp":"000703000"}"#, None), 703_000);
        let iso = r#"{"acc":[1,2,3],"esp32_timestamp":"2025-09-27T12:00:00Z"}"#;
        assert_eq!(at(iso, None), 1_758_974_400_000);
        assert_eq!(at(r#"{"acc":[1,2,3]}"#, Some("2025-09-27 12:00:00.5")), 1_758_974_400_500);
        assert_eq!(at(r#"{"acc":[1,2,3],"timestamp":"soon"}"#, None), NO_DEVICE_TIME);
    }

    #[test]
    fn what_is_no_frame_is_left_out_with_its_reason() {
        for (data, reason) in [
            ("", Reason::BadJson),
            ("{\"acc\":[1,2", Reason::BadJson),
            ("[1,2,3]", Reason::BadValues),
            ("{}", Reason::BadValues),
            ("{\"acc\":[1,2]}", Reason::BadValues),
            ("{\"acc\":[1,2,\"3\"]}", Reason::BadValues),
            ("{\"acc\":[1,2,3],\"gyro\":[1]}", Reason::BadValues),
        ] {
            let (columns, found) = pushed("waist", data, None);
            assert_eq!((found, columns.len()), (Err(reason), 0), "{data}");
        }
        let (columns, note) = pushed("wrist", r#"{"acc":[1,NaN,-Infinity],"gyro":null}"#, None);
        assert_eq!(note, Ok(Some(Note::WristOrRacket)));
        assert!(columns.acc[0][1].is_nan() && columns.acc[0][2].is_nan() && !columns.acc[0][0].is_nan());
    }
}
