//! The part of the firmware that thinks: its four variables, its answers to commands, the packets it prints. No sockets, no
//! time of its own.

use std::collections::VecDeque;
use std::fmt::Write;

use serde_json::{Map, Value};

use super::json::{
    INCOMING_POOL_BYTES, NESTING_LIMIT, OUTGOING_POOL_BYTES, SLOT_BYTES, depth, pool_cost_bytes, push_float, push_text,
};

/// Frames in a packet, always.
pub const BLOCK_FRAMES: usize = 30;
/// Full blocks that wait for the network task; a further one pushes the oldest out.
pub const BLOCK_QUEUE: usize = 10;
/// Packets that wait to be sent; a further one is not queued.
pub const SEND_QUEUE: usize = 20;
/// The session id after power-on: none.
pub const DEFAULT_SESSION: &str = "041025";

/// A frame as it goes into a packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct StampedFrame {
    pub(super) sensor_id: u8,
    pub(super) stamp: i64,
    pub(super) acc: [f32; 3],
    pub(super) gyro: [f32; 3],
    pub(super) angle: [f32; 3],
}

/// What a message did, apart from the answers to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Streaming went on, or goes on under another session id.
    pub(super) started: bool,
    /// Streaming went off.
    pub(super) stopped: bool,
    /// The message did not fit the pool, was nested too deep, or was no JSON object: it vanished.
    pub(super) dropped: bool,
}

/// Figures that `status_response` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Stats {
    pub(super) blocks_sent: u32,
    pub(super) bytes_sent: u32,
    pub(super) send_failures: u32,
    pub(super) connection_attempts: u32,
    /// Packets a second over the last second.
    pub(super) send_rate: f32,
}

/// All of it lives in memory: a disconnect changes nothing of it, a reboot everything.
#[derive(Clone, Debug)]
pub(super) struct Firmware {
    pub(super) device_code: String,
    pub(super) session_id: String,
    pub(super) streaming: bool,
    pub(super) upload_owed: bool,
    /// `sync` toggles it.
    pub(super) calibration_on: bool,
    pub(super) stats: Stats,
    pub(super) block: Vec<StampedFrame>,
    pub(super) blocks: VecDeque<Vec<StampedFrame>>,
    pub(super) blocks_lost: u64,
}

impl Firmware {
    pub(super) fn boot(device_code: &str) -> Self {
        Self {
            device_code: device_code.to_owned(),
            session_id: DEFAULT_SESSION.to_owned(),
            streaming: false,
            upload_owed: false,
            calibration_on: true,
            stats: Stats::default(),
            block: Vec::with_capacity(BLOCK_FRAMES),
            blocks: VecDeque::with_capacity(BLOCK_QUEUE),
            blocks_lost: 0,
        }
    }

    /// A frame from a sensor: into the block, a full block into the queue.
    pub(super) fn take_frame(&mut self, frame: StampedFrame) {
        self.block.push(frame);
        if self.block.len() == BLOCK_FRAMES {
            if self.blocks.len() == BLOCK_QUEUE {
                self.blocks.pop_front();
                self.blocks_lost += 1;
            }
            self.blocks.push_back(std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_FRAMES)));
        }
    }

    /// Handles a text message: pushes the answers in order.
    pub(super) fn handle(&mut self, text: &str, uptime_ms: u32, answers: &mut Vec<String>) -> Effect {
        let vanished = Effect { dropped: true, ..Effect::default() };
        let message = match serde_json::from_str::<Value>(text) {
            Ok(message) if depth(&message) <= NESTING_LIMIT && pool_cost_bytes(&message) <= INCOMING_POOL_BYTES => {
                message
            }
            _ => return vanished,
        };
        let Value::Object(message) = message else { return vanished };
        let text_of = |name: &str| message.get(name).and_then(Value::as_str);
        let present = |name: &str| message.get(name).is_some_and(|value| !value.is_null());
        let command = if present("type") { text_of("type") } else { text_of("command") }.unwrap_or_default();
        let command_id = text_of("command_id").or_else(|| text_of("id")).unwrap_or_default().to_owned();

        let mut effect = Effect::default();
        let mut known = true;
        match command {
            "start_collection" => {
                let session_id = session_text(message.get("session_id"));
                effect.started = !self.streaming || session_id != self.session_id;
                self.session_id = session_id;
                text_of("device_code").unwrap_or_default().clone_into(&mut self.device_code);
                self.streaming = true;
            }
            "stop_collection" => {
                if present("session_id") {
                    self.session_id = session_text(message.get("session_id"));
                }
                if present("device_code") {
                    text_of("device_code").unwrap_or_default().clone_into(&mut self.device_code);
                }
                effect.stopped = true;
                self.streaming = false;
                self.upload_owed = true;
            }
            "get_status" | "GET_STATUS" => answers.push(self.status_response(&command_id, uptime_ms)),
            "heartbeat" | "HEARTBEAT" => {
                let mut answer = String::from(r#"{"type":"heartbeat","device_code":"#);
                push_text(&mut answer, &self.device_code);
                push(&mut answer, format_args!(r#","timestamp":{uptime_ms}}}"#));
                answers.push(answer);
            }
            "sync" | "SYNC" => self.calibration_on = !self.calibration_on,
            "set_batch" | "SET_BATCH" => known = has(&message, "batch_size"),
            "batch_sensor_data_response" => {}
            _ => known = false,
        }
        if !command_id.is_empty() {
            let mut answer = String::from(r#"{"type":"ack","command_id":"#);
            push_text(&mut answer, &command_id);
            push(&mut answer, format_args!(r#","success":{known},"timestamp":{uptime_ms}}}"#));
            answers.push(answer);
        }
        effect
    }

    /// The `upload_complete` that is owed, if it can be sent: it needs a session id and a device code.
    pub(super) fn owed_upload_complete(&self, uptime_ms: u32) -> Option<String> {
        if !self.upload_owed || self.session_id.is_empty() || self.device_code.is_empty() {
            return None;
        }
        let mut text = String::from(r#"{"type":"upload_complete","session_id":"#);
        push_text(&mut text, &self.session_id);
        text.push_str(r#","device_code":"#);
        push_text(&mut text, &self.device_code);
        push(&mut text, format_args!(r#","timestamp":{uptime_ms}}}"#));
        Some(text)
    }

    /// The packet of a block. Empty if it does not fit the document, which the firmware sends all the same.
    pub(super) fn packet(&self, block: &[StampedFrame], uptime_ms: u32) -> String {
        // Of a frame: five members and three arrays of three; of the packet: six members and the frames.
        let slots = block.len() * (5 + 9 + 1) + 6;
        if SLOT_BYTES * slots + self.device_code.len() + self.session_id.len() + 2 > OUTGOING_POOL_BYTES {
            return String::new();
        }
        let mut text = String::with_capacity(6144);
        text.push_str(r#"{"type":"batch_sensor_data","device_code":"#);
        push_text(&mut text, &self.device_code);
        let first = block.first().map_or("unknown", |frame| sensor_type(frame.sensor_id));
        push(&mut text, format_args!(r#","sensor_type":"{first}","timestamp":{uptime_ms},"data":["#));
        for (index, frame) in block.iter().enumerate() {
            text.push_str(if index == 0 { r#"{"acc":["# } else { r#",{"acc":["# });
            // One bad value and all three are sent as zero.
            let acc = if frame.acc.iter().all(|value| value.is_finite()) { frame.acc } else { [0.0; 3] };
            push_floats(&mut text, acc);
            text.push_str(r#"],"gyro":["#);
            push_floats(&mut text, frame.gyro);
            text.push_str(r#"],"angle":["#);
            push_floats(&mut text, frame.angle);
            push(&mut text, format_args!(r#"],"sensor_id":{},"timestamp":{}}}"#, frame.sensor_id, frame.stamp));
        }
        text.push(']');
        if !self.session_id.is_empty() {
            text.push_str(r#","session_id":"#);
            push_text(&mut text, &self.session_id);
        }
        text.push('}');
        text
    }

    fn status_response(&self, command_id: &str, uptime_ms: u32) -> String {
        let mut text = String::from(r#"{"type":"status_response","command_id":"#);
        push_text(&mut text, command_id);
        let streaming = self.streaming;
        push(
            &mut text,
            format_args!(
                r#","timestamp":{uptime_ms},"connection":{{"wifi_connected":true,"server_connected":true,"collection_active":{streaming}}},"device":{{"device_code":"#
            ),
        );
        push_text(&mut text, &self.device_code);
        text.push_str(r#","session_id":"#);
        push_text(&mut text, &self.session_id);
        let Stats { blocks_sent, bytes_sent, send_failures, connection_attempts, send_rate } = self.stats;
        push(
            &mut text,
            format_args!(
                r#","firmware_version":"V3.3"}},"stats":{{"total_blocks_sent":{blocks_sent},"total_bytes_sent":{bytes_sent},"send_failures":{send_failures},"avg_send_rate":"#
            ),
        );
        push_float(&mut text, send_rate);
        // What stays free of the heap while the packet buffers are in use or not.
        let free_heap = if streaming { 214_532 } else { 231_468 };
        push(
            &mut text,
            format_args!(
                r#","connection_attempts":{connection_attempts}}},"system":{{"free_heap":{free_heap},"uptime":{uptime_ms}}}}}"#
            ),
        );
        text
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string cannot fail");
}

fn push_floats(text: &mut String, [x, y, z]: [f32; 3]) {
    push_float(text, x);
    text.push(',');
    push_float(text, y);
    text.push(',');
    push_float(text, z);
}

fn has(message: &Map<String, Value>, name: &str) -> bool {
    message.get(name).is_some_and(|value| !value.is_null())
}

/// A string as it is, a whole number of 32 bits as text, everything else as nothing.
fn session_text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number
            .as_i64()
            .and_then(|number| i32::try_from(number).ok())
            .map(|number| number.to_string())
            .unwrap_or_default(),
        _ => String::new(),
    }
}

fn sensor_type(sensor_id: u8) -> &'static str {
    schemas::SensorRole::from_wire_id(i64::from(sensor_id)).as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(firmware: &mut Firmware, text: &str) -> (Effect, Vec<String>) {
        let mut answers = Vec::new();
        let effect = firmware.handle(text, 97_340, &mut answers);
        (effect, answers)
    }

    #[test]
    fn a_good_start_is_stored_and_acknowledged() {
        let mut firmware = Firmware::boot("2025001");
        let start = r#"{"type":"start_collection","device_code":"2025001","session_id":"1015","command_id":"c-0002"}"#;
        let (effect, answers) = told(&mut firmware, start);
        assert!(effect.started && firmware.streaming);
        assert_eq!(firmware.session_id, "1015");
        assert_eq!(answers, [r#"{"type":"ack","command_id":"c-0002","success":true,"timestamp":97340}"#]);
        assert!(!told(&mut firmware, start).0.started, "a repeated start changes nothing");
    }

    #[test]
    fn only_lower_case_commands_are_obeyed() {
        for text in [
            r#"{"type":"START_COLLECTION","device_code":"2025001","session_id":"1"}"#,
            r#"{"type":"command","command":"start_collection","device_code":"2025001","session_id":"1"}"#,
            r#"{"type":"session_start","device_code":"2025001","session_id":"1"}"#,
            r#"{"type":7,"command":"start_collection","device_code":"2025001","session_id":"1"}"#,
        ] {
            let mut firmware = Firmware::boot("2025001");
            assert_eq!(told(&mut firmware, text), (Effect::default(), vec![]), "{text}");
            assert!(!firmware.streaming);
        }
        let mut firmware = Firmware::boot("2025001");
        let (effect, answers) =
            told(&mut firmware, r#"{"command":"stop_collection","session_id":"1015","id":"c-0010"}"#);
        assert!(effect.stopped && answers[0].contains(r#""command_id":"c-0010","success":true"#));
    }

    #[test]
    fn ids_follow_the_parser_of_the_firmware() {
        for (session_id, stored) in [
            (r#""041025""#, "041025"),
            ("1015", "1015"),
            ("2147483647", "2147483647"),
            ("2147483648", ""),
            ("12.0", ""),
            ("true", ""),
            ("null", ""),
        ] {
            let mut firmware = Firmware::boot("2025001");
            told(
                &mut firmware,
                &format!(r#"{{"type":"start_collection","device_code":"2025001","session_id":{session_id}}}"#),
            );
            assert_eq!(firmware.session_id, stored, "{session_id}");
            told(&mut firmware, r#"{"type":"stop_collection"}"#);
            assert_eq!(firmware.owed_upload_complete(1).is_some(), !stored.is_empty(), "{session_id}");
        }
        // A numeric code wipes the device's own; the upload can never be reported.
        let mut firmware = Firmware::boot("2025001");
        told(&mut firmware, r#"{"type":"start_collection","device_code":2025001,"session_id":"1"}"#);
        assert_eq!(firmware.device_code, "");
        told(&mut firmware, r#"{"type":"stop_collection"}"#);
        assert!(firmware.owed_upload_complete(1).is_none());
    }

    #[test]
    fn a_command_id_must_be_text() {
        let mut firmware = Firmware::boot("2025001");
        assert_eq!(told(&mut firmware, r#"{"type":"heartbeat","command_id":5}"#).1.len(), 1);
        assert!(told(&mut firmware, r#"{"type":"reboot","command_id":""}"#).1.is_empty());
        let (_, answers) = told(&mut firmware, r#"{"type":"reboot","command_id":"c-0011"}"#);
        assert_eq!(answers, [r#"{"type":"ack","command_id":"c-0011","success":false,"timestamp":97340}"#]);
        assert!(told(&mut firmware, r#"{"type":"set_batch","command_id":"c"}"#).1[0].contains("false"));
        assert!(told(&mut firmware, r#"{"type":"set_batch","batch_size":5,"command_id":"c"}"#).1[0].contains("true"));
        told(&mut firmware, r#"{"type":"sync"}"#);
        assert!(!firmware.calibration_on);
    }

    #[test]
    fn what_does_not_fit_the_pool_vanishes() {
        let mut firmware = Firmware::boot("2025001");
        let long = "x".repeat(500);
        for text in [
            format!(r#"{{"type":"get_status","command_id":"c","message":"{long}"}}"#),
            r#"{"type":"get_status","command_id":"c","a":[[[[[[[[[[1]]]]]]]]]]}"#.to_owned(),
            "[]".to_owned(),
            "not JSON".to_owned(),
            String::new(),
        ] {
            let (effect, answers) = told(&mut firmware, &text);
            assert!(effect.dropped && answers.is_empty(), "{text}");
        }
    }

    #[test]
    fn an_upload_that_is_owed_goes_out_for_the_next_session() {
        let mut firmware = Firmware::boot("2025001");
        told(&mut firmware, r#"{"type":"start_collection","device_code":"2025001","session_id":"1"}"#);
        told(&mut firmware, r#"{"type":"stop_collection"}"#);
        told(&mut firmware, r#"{"type":"start_collection","device_code":"2025001","session_id":"2"}"#);
        assert_eq!(
            firmware.owed_upload_complete(137_404).as_deref(),
            Some(r#"{"type":"upload_complete","session_id":"2","device_code":"2025001","timestamp":137404}"#)
        );
    }

    #[test]
    fn status_is_told_as_the_samples_show_it() {
        let mut firmware = Firmware::boot("2025001");
        firmware.stats.connection_attempts = 1;
        let mut answers = Vec::new();
        firmware.handle(r#"{"type":"get_status","command_id":"c-0001"}"#, 48_211, &mut answers);
        assert_eq!(
            answers[0],
            concat!(
                r#"{"type":"status_response","command_id":"c-0001","timestamp":48211,"#,
                r#""connection":{"wifi_connected":true,"server_connected":true,"collection_active":false},"#,
                r#""device":{"device_code":"2025001","session_id":"041025","firmware_version":"V3.3"},"#,
                r#""stats":{"total_blocks_sent":0,"total_bytes_sent":0,"send_failures":0,"avg_send_rate":0,"#,
                r#""connection_attempts":1},"system":{"free_heap":231468,"uptime":48211}}"#
            )
        );
        assert_eq!(answers[1], r#"{"type":"ack","command_id":"c-0001","success":true,"timestamp":48211}"#);
    }

    #[test]
    fn a_packet_is_printed_as_the_firmware_prints_it() {
        let mut firmware = Firmware::boot("2025001");
        firmware.session_id = "1015".to_owned();
        let frame = StampedFrame {
            sensor_id: 1,
            stamp: 154_501_651,
            acc: [0.25, -0.5, 0.984_863_3],
            gyro: [1.5, f32::NAN, -3.0],
            angle: [10.125, 20.25, 30.5],
        };
        let bad = StampedFrame { sensor_id: 2, acc: [1.0, f32::INFINITY, 1.0], ..frame };
        assert_eq!(
            firmware.packet(&[frame, bad], 97_655),
            concat!(
                r#"{"type":"batch_sensor_data","device_code":"2025001","sensor_type":"waist","timestamp":97655,"data":["#,
                r#"{"acc":[0.25,-0.5,0.984863281],"gyro":[1.5,null,-3],"angle":[10.125,20.25,30.5],"sensor_id":1,"timestamp":154501651},"#,
                r#"{"acc":[0,0,0],"gyro":[1.5,null,-3],"angle":[10.125,20.25,30.5],"sensor_id":2,"timestamp":154501651}"#,
                r#"],"session_id":"1015"}"#
            )
        );
        firmware.session_id.clear();
        assert!(!firmware.packet(&[frame], 1).contains("session_id"));
        // Codes of any sensible length fit with thirty frames; others give the empty text that the firmware sends.
        let block = [frame; BLOCK_FRAMES];
        let whole = firmware.packet(&block, u32::MAX);
        assert!(whole.len() > 3000 && whole.len() <= 8191);
        firmware.device_code = "x".repeat(1000);
        assert_eq!(firmware.packet(&block, 1), "");
    }

    #[test]
    fn ten_blocks_wait_and_the_oldest_goes() {
        let mut firmware = Firmware::boot("2025001");
        for stamp in 0..(BLOCK_FRAMES * (BLOCK_QUEUE + 3) + 7) as i64 {
            let frame = StampedFrame { sensor_id: 3, stamp, acc: [0.0; 3], gyro: [0.0; 3], angle: [0.0; 3] };
            firmware.take_frame(frame);
        }
        assert_eq!((firmware.blocks.len(), firmware.block.len(), firmware.blocks_lost), (BLOCK_QUEUE, 7, 3));
        assert_eq!(firmware.blocks[0][0].stamp, 3 * BLOCK_FRAMES as i64);
    }
}
