use proptest::prelude::*;
use schemas::{DeviceCode, FrameColumns, FrameFlags, NotificationId, SensorRole, SessionId};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::budget::pool_bytes;
use super::*;

fn device(text: &str) -> Result<ClientMessage, Error> {
    decode(Endpoint::Device, text)
}

fn batch(text: &str) -> FramePacket {
    match device(text).unwrap() {
        ClientMessage::Batch(packet) => packet,
        other => panic!("{other:?}"),
    }
}

fn packet_of(data: &str) -> FramePacket {
    batch(&format!(r#"{{"type":"batch_sensor_data","sensor_type":"wrist","data":[{data}]}}"#))
}

const GOOD: &str = r#"{"acc":[0,0,1],"gyro":[1,2,3],"angle":[4,5,6],"sensor_id":2,"timestamp":703000}"#;

/// The rules of the wire once more, the slow and obvious way over a tree of values.
mod reference {
    use serde_json::{Map, Value};

    use super::*;

    pub(super) struct Packet {
        pub(super) claimed_session: Option<String>,
        pub(super) packet_ms: Option<i64>,
        pub(super) timed: bool,
        pub(super) total: usize,
        pub(super) failed: usize,
        pub(super) frames: FrameColumns,
    }

    fn integer(value: Option<&Value>) -> Option<i64> {
        match value? {
            Value::Number(number) => number.as_i64().or_else(|| {
                let float = number.as_f64()?;
                (float.fract() == 0.0 && float.abs() <= 2f64.powi(53) && !number.is_u64()).then_some(float as i64)
            }),
            Value::String(text) => super::super::time::device_time(text),
            _ => None,
        }
    }

    fn triple(value: Option<&Value>, may_be_null: bool) -> Option<[f32; 3]> {
        let items = match value? {
            Value::Null if may_be_null => return Some([f32::NAN; 3]),
            Value::Array(items) if items.len() == 3 => items,
            _ => return None,
        };
        let mut triple = [0.0; 3];
        for (slot, item) in triple.iter_mut().zip(items) {
            *slot = match item {
                Value::Null => f32::NAN,
                Value::Number(number) => {
                    let value = number.as_f64()? as f32;
                    if !value.is_finite() {
                        return None;
                    }
                    value
                }
                _ => return None,
            };
        }
        Some(triple)
    }

    /// `None`: an error.
    pub(super) fn batch(message: &Map<String, Value>) -> Option<Packet> {
        let data = match message.get("data") {
            None | Some(Value::Null) => message.get("data_list")?,
            Some(data) => data,
        };
        let items = data.as_array().filter(|items| (1..=FRAMES_LIMIT).contains(&items.len()))?;
        let claimed_session = match message.get("session_id") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(number)) => Some(match integer(Some(&Value::Number(number.clone()))) {
                Some(integer) => integer.to_string(),
                None if number.is_u64() => number.to_string(),
                None => number.as_f64()?.to_string(),
            }),
            Some(_) => return None,
        }
        .filter(|id| !id.is_empty() && id != "041025");
        let fallback = SensorRole::from_name(message.get("sensor_type").and_then(Value::as_str).unwrap_or_default());
        let packet_ms = integer(message.get("timestamp"));
        let mut packet = Packet {
            claimed_session,
            packet_ms,
            timed: packet_ms.is_some(),
            total: items.len(),
            failed: 0,
            frames: FrameColumns::default(),
        };
        for item in items {
            let values = [("acc", false), ("gyro", true), ("angle", true)].map(|(k, null)| triple(item.get(k), null));
            let [Some(acc), Some(gyro), Some(angle)] = values else {
                packet.failed += 1;
                continue;
            };
            let id = integer(item.get("sensor_id")).and_then(|id| i32::try_from(id).ok()).unwrap_or(0);
            let role = if id == 0 { fallback } else { SensorRole::from_wire_id(id.into()) };
            let time = integer(item.get("timestamp"));
            packet.timed |= time.is_some();
            packet.frames.push_decoded(id, role, time, [acc, gyro, angle]);
        }
        Some(packet)
    }
}

/// Bit for bit, NaN included.
fn same_frames(a: &FrameColumns, b: &FrameColumns) -> bool {
    let bits = |values: &[[f32; 3]]| {
        values
            .iter()
            .map(|v| v.map(|x| (x.is_nan(), x)))
            .map(|v| v.map(|(nan, x)| if nan { 1 } else { x.to_bits() }))
            .collect::<Vec<_>>()
    };
    a.sensor_id == b.sensor_id
        && a.sensor == b.sensor
        && a.device_time_raw == b.device_time_raw
        && a.flags == b.flags
        && bits(&a.acc) == bits(&b.acc)
        && bits(&a.gyro) == bits(&b.gyro)
        && bits(&a.angle) == bits(&b.angle)
}

/// The fast decoder against the slow one, on any text.
fn agrees_with_reference(text: &str) -> Result<(), TestCaseError> {
    let fast = device(text);
    let Ok(Value::Object(message)) = serde_json::from_str::<Value>(text) else {
        // The tree knows no numbers out of range, and ours skips what it ignores: it may take more, never panic.
        return Ok(());
    };
    if message.get("type").and_then(Value::as_str) != Some("batch_sensor_data") {
        prop_assert!(!matches!(fast, Ok(ClientMessage::Batch(_))));
        return Ok(());
    }
    match (fast, reference::batch(&message)) {
        (Ok(ClientMessage::Batch(fast)), Some(slow)) => {
            prop_assert_eq!(fast.claimed_session, slow.claimed_session);
            prop_assert_eq!(fast.packet_ms, slow.packet_ms);
            prop_assert_eq!(fast.content_hash.is_some(), slow.timed);
            prop_assert_eq!((fast.total_items, fast.failed_items), (slow.total, slow.failed));
            prop_assert!(same_frames(&fast.frames, &slow.frames), "{:?} {:?}", fast.frames, slow.frames);
        }
        (Err(_), None) => {}
        (fast, slow) => prop_assert!(false, "{:?} but reference {}", fast, slow.is_some()),
    }
    Ok(())
}

fn any_float() -> impl Strategy<Value = f32> {
    prop_oneof![4 => -2000f32..2000.0, 1 => Just(0.0), 1 => Just(1.0), 1 => Just(f32::NAN), 1 => any::<f32>()]
}

fn any_frame() -> impl Strategy<Value = FrameWire> {
    let triple = || [any_float(), any_float(), any_float()];
    (triple(), triple(), triple(), prop::option::of(0..6i32), prop::option::of(0..240_000_000i64))
        .prop_map(|(acc, gyro, angle, sensor_id, timestamp)| FrameWire { acc, gyro, angle, sensor_id, timestamp })
}

fn any_packet() -> impl Strategy<Value = ClientWire> {
    (
        prop::sample::select(vec!["waist", "shoulder", "wrist", "racket", "foot"]),
        prop::option::of(any::<i64>()),
        prop::collection::vec(any_frame(), 1..6),
        prop::option::of(prop::sample::select(vec!["1015", "041025", "", "x y", "7"])),
    )
        .prop_map(|(sensor_type, timestamp, data, session_id)| ClientWire::BatchSensorData {
            device_code: "2025001".into(),
            sensor_type: sensor_type.into(),
            timestamp,
            data,
            session_id: session_id.map(Into::into),
        })
}

/// JSON that is about what the decoder looks at.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-5..5i64).prop_map(|n| Value::from(n as f64)),
        "[a-z0-9\"\\\\é]{0,6}".prop_map(Value::from),
        Just(Value::from("batch_sensor_data")),
        serde_json::from_str::<Value>(GOOD).map(Just).unwrap(),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let key = prop::sample::select(vec![
            "type",
            "data",
            "data_list",
            "session_id",
            "sensor_type",
            "timestamp",
            "acc",
            "gyro",
            "angle",
            "sensor_id",
            "device",
            "connection",
            "other",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key.prop_map(str::to_owned), inner, 0..7)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn decoding_inverts_encoding(packet in any_packet()) {
        let text = packet.encode();
        let ClientWire::BatchSensorData { sensor_type, timestamp, data, session_id, .. } = packet else { unreachable!() };
        let decoded = batch(&text);
        prop_assert_eq!(decoded.packet_ms, timestamp);
        prop_assert_eq!(decoded.claimed_session, session_id.filter(|id| !id.is_empty() && id != "041025"));
        let finite = |v: [f32; 3]| v.map(|x| if x.is_finite() { x } else { f32::NAN });
        let mut expected = FrameColumns::default();
        for frame in &data {
            let id = frame.sensor_id.unwrap_or(0);
            let role = if id == 0 { SensorRole::from_name(&sensor_type) } else { SensorRole::from_wire_id(id.into()) };
            let values = [finite(frame.acc), finite(frame.gyro), finite(frame.angle)];
            expected.push_decoded(id, role, frame.timestamp, values);
        }
        prop_assert!(same_frames(&decoded.frames, &expected));
        prop_assert_eq!((decoded.total_items, decoded.failed_items), (data.len(), 0));
    }

    #[test]
    fn no_text_panics(text in any::<String>(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for text in [text.as_str(), &String::from_utf8_lossy(&bytes)] {
            for endpoint in [Endpoint::Device, Endpoint::User, Endpoint::Admin, Endpoint::Root] {
                drop(decode(endpoint, text));
            }
        }
    }

    #[test]
    fn every_prefix_is_an_error(packet in any_packet()) {
        let text = packet.encode();
        for end in 0..text.len() {
            prop_assert!(device(&text[..end]).is_err(), "{}", &text[..end]);
        }
    }

    #[test]
    fn fast_and_slow_agree_on_packets(packet in any_packet()) {
        agrees_with_reference(&packet.encode())?;
    }

    #[test]
    fn fast_and_slow_agree_on_any_json(mut message in any_json(), data in any_json()) {
        if let Value::Object(members) = &mut message {
            members.insert("type".into(), "batch_sensor_data".into());
            members.entry("data").or_insert(data);
        }
        agrees_with_reference(&message.to_string())?;
    }

    #[test]
    fn fast_and_slow_agree_on_mutated_packets(
        packet in any_packet(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), "[\\[\\]{}\",:.0-9eE+ nul-]{0,3}", 0..3usize), 1..4),
    ) {
        let mut text = packet.encode();
        for (at, insert, cut) in edits {
            let at = at.index(text.len());
            let end = (at + cut).min(text.len());
            text.replace_range(at..end, &insert);
        }
        agrees_with_reference(&text)?;
    }
}

#[test]
fn a_frame_keeps_what_was_sent() {
    let packet = packet_of(&format!(
        r#"{GOOD},{{"timestamp":"154501450","angle":null,"gyro":[1,null,3],"acc":[9.81000042,-1e-5,1.2345678e7],"x":[[{{}}]]}}"#
    ));
    assert_eq!((packet.total_items, packet.failed_items), (2, 0));
    let frames = &packet.frames;
    assert_eq!(frames.sensor_id, [2, 0]);
    assert_eq!(frames.sensor, [SensorRole::Shoulder.to_byte(), SensorRole::Wrist.to_byte()], "packet type is fallback");
    assert_eq!(frames.device_time_raw, [703_000, 154_501_450]);
    assert_eq!(frames.acc, [[0.0, 0.0, 1.0], [9.81, -1e-5, 12_345_678.0]]);
    assert_eq!(frames.flags, [0, FrameFlags::GYRO_NULL | FrameFlags::ANGLE_NULL]);
    assert!(frames.gyro[1][1].is_nan() && frames.angle[1].iter().all(|x| x.is_nan()));
}

#[test]
fn a_bad_frame_costs_only_itself() {
    let bad = [
        (r#"{"gyro":[1,2,3],"angle":[1,2,3]}"#, FrameFault::Acc),
        (r#"{"acc":null,"gyro":[1,2,3],"angle":[1,2,3]}"#, FrameFault::Acc),
        (r#"{"acc":[1,2],"gyro":[1,2,3],"angle":[1,2,3]}"#, FrameFault::Acc),
        (r#"{"acc":[1,2,3,4],"gyro":[1,2,3],"angle":[1,2,3]}"#, FrameFault::Acc),
        (r#"{"acc":["1","2","3"],"gyro":[1,2,3],"angle":[1,2,3]}"#, FrameFault::Acc),
        (r#"{"acc":[1,2,[3]],"gyro":[1,2,3],"angle":[1,2,3]}"#, FrameFault::Acc),
        (r#"{"acc":[1,2,3],"gyro":{"x":1},"angle":[1,2,3]}"#, FrameFault::Gyro),
        (r#"{"acc":[1,2,3],"gyro":[1,2,3],"angle":"0"}"#, FrameFault::Angle),
        (r#"{"acc":[1,2,3],"gyro":[1,2,3],"angle":[1,2,1e39]}"#, FrameFault::Angle),
        (r#"{"acc":[1,2,1e400],"gyro":[1,2,3],"angle":[1,2,3]}"#, FrameFault::OutOfRange),
        ("null", FrameFault::NotAnObject),
        ("7", FrameFault::NotAnObject),
        ("[1,[2]]", FrameFault::NotAnObject),
        (r#""x""#, FrameFault::NotAnObject),
    ];
    for (text, fault) in bad {
        let packet = packet_of(&format!("{GOOD},{text},{GOOD}"));
        assert_eq!((packet.total_items, packet.failed_items, packet.frames.len()), (3, 1, 2), "{text}");
        assert_eq!(packet.first_fault, Some((1, fault)), "{text}");
    }
}

#[test]
fn keys_may_come_in_any_order_and_twice() {
    let packet = batch(&format!(
        r#"{{"session_id":1015.0,"data":[{GOOD},{GOOD}],"data":[{GOOD}],"data_list":[1,2],"timestamp":9,"type":"batch_sensor_data"}}"#
    ));
    assert_eq!((packet.total_items, packet.frames.len(), packet.packet_ms), (1, 1, Some(9)));
    assert_eq!(packet.claimed_session.as_deref(), Some("1015"));
    let listed = batch(&format!(r#"{{"data_list":[{GOOD}],"data":null,"type":"batch_sensor_data"}}"#));
    assert_eq!(listed.frames.len(), 1);
}

#[test]
fn a_session_is_claimed_as_text() {
    let claim = |id: &str| {
        batch(&format!(r#"{{"type":"batch_sensor_data","session_id":{id},"data":[{GOOD}]}}"#)).claimed_session
    };
    for none in [r#""041025""#, r#""""#, "null"] {
        assert_eq!(claim(none), None, "{none}");
    }
    for (sent, text) in
        [(r#""1015""#, "1015"), ("1015", "1015"), ("41025", "41025"), (r#""01""#, "01"), ("-1", "-1"), ("1.5", "1.5")]
    {
        assert_eq!(claim(sent).as_deref(), Some(text), "{sent}");
    }
    let bad = device(&format!(r#"{{"type":"batch_sensor_data","session_id":[1],"data":[{GOOD}]}}"#));
    assert!(matches!(bad, Err(Error::BadSessionId)));
}

#[test]
fn equal_text_is_a_repeat_only_with_a_time_in_it() {
    let timeless = r#"{"acc":[0,0,1],"gyro":[1,2,3],"angle":[4,5,6]}"#;
    assert_eq!(packet_of(timeless).content_hash, None);
    let timed = packet_of(GOOD).content_hash;
    assert!(timed.is_some_and(|hash| hash != 0));
    assert_eq!(timed, packet_of(GOOD).content_hash);
    assert_ne!(timed, packet_of(&GOOD.replace("703000", "703010")).content_hash);
}

#[test]
fn what_is_no_message_says_so() {
    let code = |text: &str| device(text).map_err(|error| error.code());
    assert_eq!(code(""), Err("empty"));
    assert_eq!(code("  \n"), Err("empty"));
    assert_eq!(code(r#"{"type":"batch_sensor_data","data":[{"acc":[0.1,"#), Err("not_json"));
    assert_eq!(code(r#"{"type":"heartbeat"} x"#), Err("not_json"));
    assert_eq!(code(r#"{"type":"heartbeat","x":nan}"#), Err("not_json"));
    assert_eq!(code("[1,2,3]"), Err("not_an_object"));
    assert_eq!(code("17"), Err("not_an_object"));
    assert_eq!(code(r#"{"device_code":"1"}"#), Err("missing_type"));
    assert_eq!(code(r#"{"type":7}"#), Err("missing_type"));
    assert_eq!(code(r#"{"type":""}"#), Err("missing_type"));
    assert_eq!(code(r#"{"type":"test_response"}"#), Err("unknown_type"));
    assert_eq!(code(r#"{"type":"batch_sensor_data"}"#), Err("no_frames"));
    assert_eq!(code(r#"{"type":"batch_sensor_data","data":[]}"#), Err("no_frames"));
    assert_eq!(code(r#"{"type":"batch_sensor_data","data":{"acc":[0,0,1]}}"#), Err("data_not_a_list"));
    assert_eq!(code(r#"{"type":"batch_sensor_data","data":"[]"}"#), Err("data_not_a_list"));
    let many = vec!["0"; FRAMES_LIMIT + 1].join(",");
    assert_eq!(code(&format!(r#"{{"data":[{many}],"type":"batch_sensor_data"}}"#)), Err("too_many_frames"));
    assert_eq!(code(&format!(r#"{{"data":[1e999,{many}],"type":"batch_sensor_data"}}"#)), Err("too_many_frames"));
    let limit = packet_of(&vec!["0"; FRAMES_LIMIT].join(","));
    assert_eq!(limit.failed_items, FRAMES_LIMIT);
    let long = format!(r#"{{"type":"{}"}}"#, "é".repeat(4000));
    assert!(device(&long).unwrap_err().to_string().len() < 100);
}

#[test]
fn nesting_costs_no_stack() {
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let message = format!(r#"{{"type":"heartbeat","x":{deep},"session_id":{deep},"device":{deep}}}"#);
    assert_eq!(device(&message).unwrap(), ClientMessage::Heartbeat);
    assert_eq!(packet_of(&format!("{deep},{GOOD}")).failed_items, 1);
    assert_eq!(device(&deep).unwrap_err().code(), "not_an_object");
    assert_eq!(decode(Endpoint::Root, &deep).unwrap_err().code(), "not_json", "an echo needs a tree: 128 levels");
}

#[test]
fn the_other_messages_of_a_device() {
    let of = |value: Value| device(&value.to_string()).unwrap();
    assert_eq!(
        of(json!({"type":"upload_complete","session_id":"1015","device_code":"2025001","timestamp":1})),
        ClientMessage::UploadComplete { session_id: Some("1015".into()) }
    );
    assert_eq!(of(json!({"type":"upload_complete"})), ClientMessage::UploadComplete { session_id: None });
    assert_eq!(
        of(json!({"type":"ack","command_id":"c-1","success":false})),
        ClientMessage::Ack { command_id: "c-1".into(), success: false }
    );
    assert_eq!(
        of(json!({"type":"status_response","connection":{"collection_active":true},
            "device":{"session_id":"041025","firmware_version":"V3.3"},"stats":{"avg_send_rate":9.9}})),
        ClientMessage::StatusResponse {
            collection_active: true,
            session_id: None,
            firmware_version: Some("V3.3".into())
        }
    );
    assert_eq!(
        of(json!({"type":"status_update","status":"START_COLLECTION_CONFIRMED","session_id":1015})),
        ClientMessage::StatusUpdate { status: "START_COLLECTION_CONFIRMED".into(), session_id: Some("1015".into()) }
    );
    assert_eq!(
        of(json!({"type":"poll_commands","current_session":"","status":"idle"})),
        ClientMessage::PollCommands { current_session: Some(String::new()), status: Some("idle".into()) }
    );
    let ClientMessage::Sample(sample) = of(json!({"type":"sensor_data","sensor_type":"racket","timestamp":20554,
        "data":{"acc":[1.2,-0.4,9.7],"gyro":[-2.1,0.3,4.4],"angle":[-31,12,208]}}))
    else {
        panic!("not a sample")
    };
    assert_eq!(sample.frames.sensor, [SensorRole::Racket.to_byte()]);
    assert_eq!(sample.frames.device_time_raw, [20554]);
    let iso = |text: &str| match of(
        json!({"type":"sensor_data","timestamp":text,"data":{"acc":[1,2,3],"gyro":null,"angle":null}}),
    ) {
        ClientMessage::Sample(sample) => sample.frames.device_time_raw[0],
        other => panic!("{other:?}"),
    };
    assert_eq!(iso("2025-09-27T07:45:01.330Z"), 1_758_959_101_330);
    assert_eq!(iso("2025-09-27T15:45:01.330"), 1_758_959_101_330, "no offset: UTC+8");
    assert_eq!(iso("154501330"), 154_501_330);
    let short = device(r#"{"type":"sensor_data","data":{"acc":[1.2,0.8],"gyro":[0,0,0],"angle":[0,0,0]}}"#);
    assert_eq!(short.unwrap_err().code(), "bad_sample");
}

#[test]
fn users_and_admins_and_the_root() {
    let user = |text: &str| decode(Endpoint::User, text);
    assert_eq!(
        user(r#"{"type":"session_status","session_id":1015}"#).unwrap(),
        ClientMessage::SessionStatus { session_id: Some(SessionId(1015)), echo: json!(1015) }
    );
    assert_eq!(
        user(r#"{"type":"session_status","session_id":"041025"}"#).unwrap(),
        ClientMessage::SessionStatus { session_id: None, echo: json!("041025") }
    );
    assert_eq!(user(r#"{"type":"analysis_complete","session_id":1}"#).unwrap_err().code(), "unknown_type");
    assert_eq!(user(r#"{"type":"heartbeat"}"#).unwrap_err().code(), "unknown_type");
    let admin = |text: &str| decode(Endpoint::Admin, text).unwrap();
    assert_eq!(admin(r#"{"type":"get_system_status"}"#), ClientMessage::GetSystemStatus);
    assert_eq!(admin(r#"{"type":"get_device_list"}"#), ClientMessage::GetDeviceList);
    assert_eq!(decode(Endpoint::Root, "[1]").unwrap(), ClientMessage::Anything(json!([1])));
}

const NOW_US: i64 = 1_758_959_052_118_204;

/// Every message that a device can receive, at its longest.
fn longest_to_device() -> Vec<ServerMessage> {
    let code: DeviceCode = "d".repeat(64).parse().unwrap();
    let session = SessionId(i64::MAX);
    let command_id = || "0197f2c4-5a3b-7c1d-8e2f-0123456789ab".to_owned();
    let clipped = |what: char| what.to_string().repeat(budget::TEXT_LIMIT_BYTES);
    vec![
        ServerMessage::start(code.clone(), session, command_id(), NOW_US),
        ServerMessage::stop(code.clone(), session, command_id(), NOW_US),
        ServerMessage::GetStatus { command_id: command_id() },
        ServerMessage::TestMessage { device_code: code.clone(), timestamp: LocalTime(NOW_US), message: clipped('m') },
        ServerMessage::connected_device(code.clone(), NOW_US),
        ServerMessage::BatchSensorDataResponse {
            success: false,
            total_items: FRAMES_LIMIT,
            successful_items: 0,
            failed_items: FRAMES_LIMIT,
            duplicate: true,
            error: Some(clipped('e')),
        },
        ServerMessage::SensorDataResponse {
            success: true,
            data_id: i64::MAX,
            duplicate: true,
            timestamp: UtcTime(NOW_US),
        },
        ServerMessage::UploadCompleteResponse {
            session_id: session.to_string(),
            status: "calibrating",
            message: "upload complete, analysis queued",
            timestamp: LocalTime(NOW_US),
        },
        ServerMessage::HeartbeatResponse { device_code: code.clone(), status: "ok", timestamp: LocalTime(NOW_US) },
        ServerMessage::StatusUpdateResponse {
            device_code: code.clone(),
            status: "s".repeat(budget::ECHO_LIMIT_BYTES),
            session_id: Some("i".repeat(budget::ECHO_LIMIT_BYTES)),
            message: "status recorded",
            timestamp: LocalTime(NOW_US),
        },
        ServerMessage::CommandResponse {
            device_code: code.clone(),
            command: None,
            session_id: None,
            current_session: Some("i".repeat(budget::ECHO_LIMIT_BYTES)),
            status: Some("s".repeat(budget::ECHO_LIMIT_BYTES)),
            message: "no new command",
            timestamp: None,
        },
        ServerMessage::CommandResponse {
            device_code: code.clone(),
            command: Some("START_COLLECTION"),
            session_id: Some(session.to_string()),
            current_session: None,
            status: None,
            message: "start",
            timestamp: Some(LocalTime(NOW_US)),
        },
        ServerMessage::Error {
            device_code: Some(code),
            user_id: None,
            error: Some(clipped('e')),
            message: None,
            code: "data_not_a_list",
            timestamp: LocalTime(NOW_US),
        },
    ]
}

#[test]
fn every_message_to_a_device_fits_its_parser() {
    for message in longest_to_device() {
        let value: Value = serde_json::from_str(&message.encode()).unwrap();
        let bytes = pool_bytes(&value);
        assert!(bytes <= budget::POOL_LIMIT_BYTES, "{bytes} bytes: {value}");
        assert!(value.get("id").is_none(), "`id` counts as a command id: {value}");
        assert_ne!(value["type"], "heartbeat", "the firmware would answer for ever");
    }
}

#[test]
fn commands_stay_below_300_bytes_and_the_cost_is_the_firmwares() {
    let code: DeviceCode = "2025001".parse().unwrap();
    let start =
        ServerMessage::start(code.clone(), SessionId(1015), "0197f2c4-5a3b-7c1d-8e2f-0123456789ab".into(), NOW_US);
    let value: Value = serde_json::from_str(&start.encode()).unwrap();
    assert!(pool_bytes(&value) < 300 && value.as_object().unwrap().len() < 10);
    assert_eq!(value["session_id"], "1015", "text works on every build");
    assert_eq!(value["device_code"], "2025001");
    // Figures of the reference's own measurements.
    assert_eq!(pool_bytes(&json!({"type":"get_status","command_id":"c-0001"})), 66);
    assert_eq!(
        pool_bytes(
            &json!({"type":"batch_sensor_data_response","success":true,"total_items":30,"successful_items":30,"failed_items":0})
        ),
        162
    );
    assert_eq!(
        pool_bytes(
            &json!({"type":"start_collection","device_code":"2025001","session_id":"1015","command":"START_COLLECTION",
            "command_id":"c-0002","timestamp":"2025-09-27T15:45:01.204113","message":"start"})
        ),
        264
    );
}

#[test]
fn times_are_written_as_legacy_clients_know_them() {
    assert_eq!(LocalTime(NOW_US).to_string(), "2025-09-27T15:44:12.118204");
    assert_eq!(UtcTime(NOW_US).to_string(), "2025-09-27T07:44:12.118204+00:00");
    assert_eq!(LocalTime(0).to_string(), "1970-01-01T08:00:00.000000");
}

#[test]
fn answers_carry_the_legacy_fields() {
    let code: DeviceCode = "2025001".parse().unwrap();
    let notice = ServerMessage::AnalysisCompleteNotification {
        notification_id: NotificationId("n-1".into()),
        session_id: SessionId(1015),
        analysis_result: RawValue::from_string(r#"{"energy_ratio":0.61}"#.into()).unwrap(),
        timestamp: LocalTime(NOW_US),
    };
    let event = EventFields {
        event: "device 2025001 connected".into(),
        level: "info",
        code: "device_connected".into(),
        device_code: Some(code.clone()),
        session_id: None,
        status: None,
        timestamp: LocalTime(NOW_US),
    };
    let all = [
        ServerMessage::connected_device(code.clone(), NOW_US),
        ServerMessage::start(code.clone(), SessionId(1015), "c-0002".into(), NOW_US),
        notice,
        ServerMessage::SystemEvent(event.clone()),
        ServerMessage::SystemNotification(event),
        ServerMessage::SystemStatus {
            status: SystemFigures::Healthy {
                active_sessions: 1,
                total_sessions: 2,
                total_sensor_data: 3,
                status: "healthy",
            },
            timestamp: LocalTime(NOW_US),
        },
        ServerMessage::SessionStatusResponse {
            session_id: json!("1015"),
            session_info: Some(SessionFields {
                id: SessionId(1015),
                status: "analyzing",
                start_time: UtcTime(NOW_US),
                end_time: None,
            }),
            timestamp: LocalTime(NOW_US),
        },
        ServerMessage::CommandResponse {
            device_code: code,
            command: None,
            session_id: None,
            current_session: Some("1015".into()),
            status: Some("collecting".into()),
            message: "no new command",
            timestamp: None,
        },
        ServerMessage::welcome(NOW_US),
        ServerMessage::usage_guide(json!({"hello": 1}), NOW_US),
    ];
    let lines: Vec<String> = all.iter().map(ServerMessage::encode).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

/// The published schemas are what the types say. `UPDATE_SCHEMAS=1` writes them anew.
#[test]
fn published_schemas_are_current() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/wire");
    let schemas = wire_schemas();
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        for schema in &schemas {
            std::fs::write(folder.join(&schema.file_name), &schema.text).unwrap();
        }
    }
    let mut published: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".schema.json"))
        .collect();
    published.sort();
    let names: Vec<&str> = schemas.iter().map(|schema| schema.file_name.as_str()).collect();
    assert_eq!(published, names, "run with UPDATE_SCHEMAS=1");
    for schema in &schemas {
        let file = std::fs::read_to_string(folder.join(&schema.file_name)).unwrap();
        assert_eq!(file, schema.text, "{} is not current: run with UPDATE_SCHEMAS=1", schema.file_name);
    }
    assert!(schemas.len() >= 30, "client and server messages");
}
