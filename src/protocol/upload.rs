//! Frames that came by HTTP, as fields of a form, to the same [`FramePacket`] as those of a socket.
//!
//! The fields are put together to the socket's message, so that there is one reader of frames and one meaning of times: the
//! legacy service read the same number as a time of day on one path and as Unix time on another.

use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use super::decode::{self, Endpoint};
use super::{ClientMessage, Error, FramePacket};

/// One frame: `data` is its JSON object, `timestamp` the field beside it (one inside `data` wins).
///
/// # Errors
/// `data` is not JSON (`nan` is none) or no frame.
pub fn decode_sample_form(
    sensor_type: &str,
    data: &str,
    timestamp: Option<&str>,
    claimed_session: Option<&str>,
) -> Result<FramePacket, Error> {
    message("sensor_data", sensor_type, data, timestamp, claimed_session)
}

/// Many frames: `batch_data` is a JSON array. A bad one is counted in the packet and costs no other.
///
/// # Errors
/// `batch_data` is not JSON, no array, empty or longer than [`super::FRAMES_LIMIT`].
pub fn decode_batch_form(
    sensor_type: &str,
    batch_data: &str,
    claimed_session: Option<&str>,
) -> Result<FramePacket, Error> {
    let mut packet = message("batch_sensor_data", sensor_type, batch_data, None, claimed_session)?;
    // The batch sketches send no time at all. A batch that comes again after a lost answer must be stored once all the
    // same; only where every frame is alike (a sensor that hangs) could new data look like a repeat.
    let bits = |axes: &[f32; 3]| axes.map(f32::to_bits);
    let varies = [&packet.frames.acc, &packet.frames.gyro, &packet.frames.angle]
        .into_iter()
        .any(|axes| axes.windows(2).any(|pair| bits(&pair[0]) != bits(&pair[1])));
    if packet.content_hash.is_none() && varies {
        let text = format!("{sensor_type}\n{}\n{batch_data}", claimed_session.unwrap_or_default());
        packet.content_hash = Some(xxh3_64(text.as_bytes()).max(1));
    }
    Ok(packet)
}

fn message(
    kind: &str,
    sensor_type: &str,
    data: &str,
    timestamp: Option<&str>,
    claimed_session: Option<&str>,
) -> Result<FramePacket, Error> {
    let data: &RawValue = serde_json::from_str(data).map_err(|source| Error::NotJson { source })?;
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let mut message = format!("{{\"type\":\"{kind}\",\"sensor_type\":{},\"data\":{}", text(sensor_type), data.get());
    if let Some(timestamp) = timestamp {
        message.push_str(",\"timestamp\":");
        message.push_str(&text(timestamp));
    }
    if let Some(claimed) = claimed_session {
        message.push_str(",\"session_id\":");
        message.push_str(&text(claimed));
    }
    message.push('}');
    match decode::decode(Endpoint::Device, &message)? {
        ClientMessage::Batch(packet) | ClientMessage::Sample(packet) => Ok(packet),
        _ => Err(Error::NoFrames),
    }
}

#[cfg(test)]
mod tests {
    use schemas::SensorRole;

    use super::*;

    const FRAME: &str = r#"{"acc":[1.20,-0.80,9.81],"gyro":[1,2,3],"angle":[1,2,3]}"#;

    #[test]
    fn a_form_is_read_as_the_socket_reads_its_message() {
        let packet = decode_sample_form("wrist", FRAME, Some("65432"), Some("1011")).unwrap();
        assert_eq!(packet.claimed_session.as_deref(), Some("1011"));
        assert_eq!(packet.frames.sensor, [SensorRole::Wrist.to_byte()]);
        assert_eq!(packet.frames.device_time_raw, [65432]);
        assert!(packet.content_hash.is_some());
        let inner = FRAME.replace('}', ",\"timestamp\":7}");
        assert_eq!(decode_sample_form("wrist", &inner, Some("65432"), None).unwrap().frames.device_time_raw, [7]);
        assert_eq!(decode_sample_form("x", FRAME, None, Some("041025")).unwrap().claimed_session, None);
    }

    #[test]
    fn what_is_no_frame_is_refused_whole() {
        let wrong = r#"{"acc":["1",2,3],"gyro":[1,2,3],"angle":[1,2,3]}"#;
        let inject = r#"{"acc":[1,2,3],"gyro":[1,2,3],"angle":[1,2,3]},"session_id":"7""#;
        for data in ["", "nan", "[]", "{}", "{\"acc\":[nan,1,2]}", wrong, inject, "\"text\""] {
            assert!(decode_sample_form("waist", data, None, None).is_err(), "{data}");
        }
        for data in ["{}", "[]", "x", "[1", FRAME] {
            assert!(decode_batch_form("waist", data, None).is_err(), "{data}");
        }
    }

    #[test]
    fn one_bad_frame_costs_no_other_and_only_a_batch_that_varies_can_be_recognised() {
        let other = FRAME.replace("9.81", "9.8");
        let packet = decode_batch_form("waist", &format!("[{FRAME},1,{other}]"), None).unwrap();
        assert_eq!((packet.total_items, packet.failed_items, packet.frames.len()), (3, 1, 2));
        assert!(packet.content_hash.is_some());
        assert_eq!(decode_batch_form("waist", &format!("[{FRAME},{FRAME}]"), None).unwrap().content_hash, None);
    }
}
