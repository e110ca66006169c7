use std::time::Duration;

use futures::{SinkExt, StreamExt};
use pipelines::synth::{AccUnit, SynthSpec, generate};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::*;
use crate::clock::Clock;

/// Long enough that only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(30);

fn source(seed: u64, duration_s: f64) -> Source {
    Source::from_synth(&generate(&SynthSpec { duration_s, ..SynthSpec::new(seed) }), AccUnit::Mps2)
}

struct Server {
    listener: TcpListener,
    address: Address,
}

impl Server {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        Self { listener, address }
    }

    async fn socket(&self) -> Socket {
        let (stream, _) = tokio::time::timeout(LIMIT, self.listener.accept()).await.unwrap().unwrap();
        Socket(accept_async(stream).await.unwrap())
    }

    fn config(&self, source: Source) -> Config {
        Config {
            speed: Speed::Factor(50.0),
            keep_packets: true,
            clock: Clock::manual(1_758_959_101_000_000),
            ..Config::new(self.address.clone(), "2025001", source)
        }
    }
}

/// A device whose recording does not end.
fn forever(server: &Server) -> Config {
    Config { repeat: Repeat::Forever, ..server.config(source(3, 20.0)) }
}

struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    async fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn text(&mut self) -> String {
        loop {
            let message = tokio::time::timeout(LIMIT, self.0.next()).await.unwrap().unwrap().unwrap();
            if let Message::Text(text) = message {
                return text.to_string();
            }
        }
    }

    async fn json(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text:?}"))
    }

    async fn start(&mut self, session_id: &str) {
        let start =
            json!({"type": "start_collection", "device_code": "2025001", "session_id": session_id, "command_id": "c1"});
        self.send(&start).await;
        assert_eq!(self.json().await["type"], "ack");
    }

    async fn answer(&mut self, success: bool) {
        let items = if success { 30 } else { 0 };
        self.send(&json!({"type": "batch_sensor_data_response", "success": success, "total_items": items,
            "successful_items": items, "failed_items": 0}))
            .await;
    }

    /// Everything up to a message of this type, packets answered.
    async fn until(&mut self, wanted: &str) -> (Vec<Value>, Value) {
        let mut packets = Vec::new();
        loop {
            let message = self.json().await;
            if message["type"] == wanted {
                return (packets, message);
            }
            assert_eq!(message["type"], "batch_sensor_data", "{message}");
            packets.push(message);
            self.answer(true).await;
        }
    }
}

#[tokio::test]
async fn a_whole_session_is_what_the_firmware_sends() {
    let server = Server::new().await;
    let source = source(1, 12.0);
    let recorded = source.frames().len();
    let device = Device::spawn(server.config(source)).unwrap();
    let mut socket = server.socket().await;
    socket.send(&json!({"type": "connection_established", "device_code": "2025001"})).await;
    socket.start("1015").await;

    let mut packets = Vec::new();
    while packets.len() < recorded / 30 {
        packets.push(socket.json().await);
        socket.answer(true).await;
    }
    // The block that the recording's last frame is in has a packet of its own unless it ends on a border.
    let streamed = device.wait_until("the end", LIMIT, |now| now.streamed && now.packets_sent * 30 >= recorded as u64);
    let streamed = streamed.await.unwrap();
    while packets.len() < streamed.packets_sent as usize {
        packets.push(socket.json().await);
        socket.answer(true).await;
    }
    let answered = device.wait_streamed(LIMIT).await.unwrap();
    assert_eq!((answered.packets_acked, answered.frames_acked), (packets.len() as u64, 30 * packets.len() as u64));
    socket.send(&json!({"type": "stop_collection", "session_id": "1015", "command_id": "c2"})).await;
    assert_eq!(socket.json().await["command_id"], "c2");
    let complete = socket.json().await;
    assert_eq!(complete["type"], "upload_complete");
    assert_eq!((&complete["session_id"], &complete["device_code"]), (&json!("1015"), &json!("2025001")));

    let mut sensors = [0; 5];
    let mut last_ms = 0;
    for packet in &packets {
        assert_eq!(packet["session_id"], "1015");
        let frames = packet["data"].as_array().unwrap();
        assert_eq!(frames.len(), 30);
        let sensor_id = frames[0]["sensor_id"].as_u64().unwrap();
        assert_eq!(packet["sensor_type"], ["", "waist", "shoulder", "wrist", "racket"][sensor_id as usize]);
        let at_ms = packet["timestamp"].as_u64().unwrap();
        assert!(at_ms >= last_ms && at_ms >= 60_000);
        last_ms = at_ms;
        for frame in frames {
            sensors[frame["sensor_id"].as_u64().unwrap() as usize] += 1;
            // 15:45:01 on the clock in UTC+8 when the session starts.
            let stamp = frame["timestamp"].as_i64().unwrap();
            assert!((154_500_500..154_515_000).contains(&stamp), "{stamp}");
        }
    }
    assert!(sensors[1..].iter().all(|count| *count > 1100), "{sensors:?}");

    // The log has what was in the packets.
    let log = device.packets();
    assert_eq!(log.len(), packets.len());
    for (record, packet) in log.iter().zip(&packets) {
        assert!(record.success && record.session_id == "1015");
        let frames = packet["data"].as_array().unwrap();
        let ids = frames.iter().map(|frame| (frame["sensor_id"].as_u64(), frame["timestamp"].as_i64()));
        assert!(ids.eq(record.frames.iter().map(|id| (Some(id.sensor_id.into()), Some(id.device_time_raw)))));
    }
    let end = device.stop().await;
    assert_eq!((end.connected, end.uploads_completed, end.blocks_lost), (false, 1, 0));
}

#[tokio::test]
async fn the_recording_arrives_whole_between_what_was_held_and_what_fills_the_block() {
    let server = Server::new().await;
    let source = source(4, 3.0);
    let expected: Vec<String> = source
        .frames()
        .iter()
        .map(|frame| {
            let mut text = String::new();
            for value in frame.gyro {
                push_float(&mut text, value);
                text.push(' ');
            }
            text
        })
        .collect();
    let device = Device::spawn(Config { speed: Speed::Max, ..server.config(source) }).unwrap();
    let mut socket = server.socket().await;
    socket.start("1").await;
    let mut sent = Vec::new();
    while !(device.now().streamed && device.now().packets_sent as usize == sent.len() / 30) {
        let packet = tokio::time::timeout(Duration::from_millis(50), socket.0.next()).await;
        let Ok(Some(Ok(Message::Text(text)))) = packet else { continue };
        let packet: Value = serde_json::from_str(&text).unwrap();
        for frame in packet["data"].as_array().unwrap() {
            sent.push(
                frame["gyro"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|value| {
                        let mut text = String::new();
                        push_float(&mut text, value.as_f64().unwrap() as f32);
                        text + " "
                    })
                    .collect::<String>(),
            );
        }
        socket.answer(true).await;
    }
    let held = sent.windows(expected.len()).position(|window| window == expected).expect("the recording, in order");
    assert!(held < 30);
    assert!(sent.len() - held - expected.len() < 30);
}

#[tokio::test]
async fn the_handshake_is_the_firmwares_own() {
    let server = Server::new().await;
    let device = Device::spawn(server.config(source(1, 1.0))).unwrap();
    let (mut stream, _) = server.listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_buf(&mut request).await.unwrap();
    }
    let request = String::from_utf8(request).unwrap();
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    assert!(request.starts_with("GET /ws/esp32/2025001/ HTTP/1.1\r\n"));
    for line in [
        &*format!("Host: {}", server.address),
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: arduino",
        "Origin: file://",
        "User-Agent: arduino-WebSocket-Client",
    ] {
        assert!(request.lines().any(|found| found == line), "{line} in {request}");
    }
    for absent in ["Cookie", "Authorization", "Extensions"] {
        assert!(!request.contains(absent));
    }
    // A list in Connection is no handshake for this library: it drops the connection and comes again.
    let accept = derive_accept_key(key.as_bytes());
    let answer = |connection: &str| {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: {connection}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        )
    };
    stream.write_all(answer("keep-alive, Upgrade").as_bytes()).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    let failed = device.wait_until("the refusal", LIMIT, |now| now.connect_failure.contains("keep-alive")).await;
    assert!(!failed.unwrap().connected);
    server.socket().await;
    assert_eq!(device.wait_until("the next attempt", LIMIT, |now| now.connected).await.unwrap().connections, 1);
}

/// Reads one frame as it is on the wire: first byte, mask key, payload.
async fn raw_frame(stream: &mut TcpStream) -> (u8, [u8; 4], Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.unwrap();
    let length = match head[1] & 0x7F {
        126 => usize::from(stream.read_u16().await.unwrap()),
        127 => panic!("longer than any packet"),
        short => usize::from(short),
    };
    assert!(head[1] & 0x80 != 0, "a client masks");
    let mut key = [0; 4];
    stream.read_exact(&mut key).await.unwrap();
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.unwrap();
    for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
    (head[0], key, payload)
}

#[tokio::test]
async fn the_wire_shows_zero_masks_pongs_and_ignored_fragments() {
    let server = Server::new().await;
    let device = Device::spawn(server.config(source(2, 20.0))).unwrap();
    let (stream, _) = server.listener.accept().await.unwrap();
    // The handshake by a library, the rest by hand.
    let mut stream = accept_async(stream).await.unwrap().into_inner();
    let text = |text: &str| [&[0x81, 126][..], &(text.len() as u16).to_be_bytes(), text.as_bytes()].concat();
    let start = r#"{"type":"start_collection","device_code":"2025001","session_id":"7","command_id":"c"}"#;

    // Fragments: ignored, whatever they say.
    stream
        .write_all(&[&[0x01, 10][..], &start.as_bytes()[..10], &[0x80, 75], &start.as_bytes()[10..]].concat())
        .await
        .unwrap();
    stream.write_all(&[0x89, 3, b'a', b'b', b'c']).await.unwrap();
    assert_eq!(raw_frame(&mut stream).await.2, b"abc");
    assert!(!device.now().streaming);

    stream.write_all(&text(start)).await.unwrap();
    let (first, key, payload) = raw_frame(&mut stream).await;
    assert_eq!((first, payload.starts_with(br#"{"type":"ack""#)), (0x81, true));
    assert_ne!(key, [0; 4], "short payloads are masked with a real key");
    for _ in 0..5 {
        let (first, key, payload) = raw_frame(&mut stream).await;
        assert_eq!((first, key), (0x81, [0; 4]));
        assert!((1400..=8191).contains(&payload.len()), "{}", payload.len());
        assert!(payload.starts_with(br#"{"type":"batch_sensor_data","device_code":"2025001","sensor_type":""#));
    }
    // More than 15 KiB: closed with 1009.
    stream.write_all(&text(&"x".repeat(15 * 1024 + 1))).await.unwrap();
    loop {
        let (first, _, payload) = raw_frame(&mut stream).await;
        if first == 0x88 {
            assert_eq!(payload, 1009_u16.to_be_bytes());
            break;
        }
    }
    // And it comes back with the old session, without a greeting.
    let mut socket = server.socket().await;
    assert_eq!(socket.json().await["session_id"], "7");
}

#[tokio::test]
async fn what_vanishes_in_the_pool_is_not_answered() {
    let server = Server::new().await;
    let device = Device::spawn(server.config(source(1, 1.0))).unwrap();
    let mut socket = server.socket().await;
    socket.send(&json!({"type": "get_status", "command_id": "big", "message": "x".repeat(450)})).await;
    socket.send(&json!({"type": "START_COLLECTION", "device_code": "2025001", "session_id": "1"})).await;
    socket.send(&json!({"type": "get_status", "command_id": 5})).await;
    let status = socket.json().await;
    assert_eq!((&status["type"], &status["command_id"]), (&json!("status_response"), &json!("")));
    assert_eq!(status["device"]["session_id"], DEFAULT_SESSION);
    assert_eq!(status["connection"]["collection_active"], false);
    socket.send(&json!({"type": "reboot", "command_id": "no"})).await;
    let ack = socket.json().await;
    assert_eq!((&ack["command_id"], &ack["success"]), (&json!("no"), &json!(false)));
    assert_eq!(device.now().messages_vanished, 1);
}

#[tokio::test]
async fn a_numeric_code_makes_the_device_lose_its_own() {
    let server = Server::new().await;
    let device = Device::spawn(forever(&server)).unwrap();
    let mut socket = server.socket().await;
    socket.send(&json!({"type": "start_collection", "device_code": 2_025_001, "session_id": "1"})).await;
    assert_eq!(socket.json().await["device_code"], "");
    socket.send(&json!({"type": "stop_collection"})).await;
    device.wait_until("the stop", LIMIT, |now| !now.streaming).await.unwrap();
    drop(socket);
    // Reconnects without its code, and still owes the upload, until a good start brings both.
    let (mut stream, _) = server.listener.accept().await.unwrap();
    let mut request = [0; 32];
    stream.read_exact(&mut request).await.unwrap();
    assert!(request.starts_with(b"GET /ws/esp32// HTTP/1.1"));
    drop(stream);
    let mut socket = server.socket().await;
    assert_eq!(device.now().uploads_completed, 0);
    socket.send(&json!({"type": "start_collection", "device_code": "2025001", "session_id": "2"})).await;
    let (_, complete) = socket.until("upload_complete").await;
    assert_eq!(complete["session_id"], "2", "the upload of the last session is reported for the new one");
}

#[tokio::test]
async fn after_a_drop_it_goes_on_with_the_old_session() {
    let server = Server::new().await;
    let device = Device::spawn(forever(&server)).unwrap();
    let mut socket = server.socket().await;
    socket.start("77").await;
    let first = socket.json().await;
    drop(socket);
    let mut socket = server.socket().await;
    let next = socket.json().await;
    assert_eq!((&next["type"], &next["session_id"]), (&json!("batch_sensor_data"), &first["session_id"]));
    let now = device.wait_until("the answer", LIMIT, |now| now.connections == 2).await.unwrap();
    assert!(now.streaming && now.packets_unanswered > 0);
    // An answer that came on the new connection is about a packet of the new connection.
    socket.answer(true).await;
    device.wait_until("the ack", LIMIT, |now| now.packets_acked == 1).await.unwrap();
    let stamp = next["data"][0]["timestamp"].as_i64().unwrap();
    assert_eq!(device.packets()[0].frames[0].device_time_raw, stamp);
}

#[tokio::test]
async fn refusals_are_counted_with_their_reason() {
    let server = Server::new().await;
    let device = Device::spawn(server.config(source(3, 60.0))).unwrap();
    let mut socket = server.socket().await;
    socket.start("1").await;
    for _ in 0..3 {
        socket.json().await;
    }
    socket.answer(true).await;
    socket.answer(false).await;
    socket.send(&json!({"type": "error", "error": "too many"})).await;
    let now =
        device.wait_until("three answers", LIMIT, |now| now.packets_acked + now.packets_refused == 3).await.unwrap();
    assert_eq!((now.packets_refused, &*now.refusal), (2, "too many"));
    assert_eq!(device.packets().iter().map(|record| record.success).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test]
async fn before_calibration_it_stamps_uptime() {
    let server = Server::new().await;
    let deaf = Deaf { synced: false, ..Deaf::default() };
    let device = Device::spawn(Config { deaf, ..server.config(source(1, 5.0)) }).unwrap();
    let mut socket = server.socket().await;
    socket.start("1").await;
    let packet = socket.json().await;
    // On for a minute and a little: 00:01:00 and more, less up to 2 s since the sensors came on.
    let stamp = packet["data"][0]["timestamp"].as_i64().unwrap();
    assert!((18_000..10_000_000).contains(&stamp), "{stamp}");
    drop(device);
}

#[tokio::test]
async fn a_cold_boot_is_deaf_for_a_while() {
    let server = Server::new().await;
    let deaf = Deaf { after: Duration::from_secs(3), length: Duration::from_secs(10), synced: true };
    let config = Config { uptime: Duration::ZERO, deaf, speed: Speed::Factor(5.0), ..server.config(source(1, 60.0)) };
    let _device = Device::spawn(config).unwrap();
    let mut socket = server.socket().await;
    // Wait until it is deaf, then ask: the answer carries an uptime after the deaf time.
    let mut uptime_ms = 0;
    while uptime_ms < 13_000 {
        socket.send(&json!({"type": "get_status"})).await;
        let answered_ms = socket.json().await["timestamp"].as_u64().unwrap();
        assert!(!(3_000..13_000).contains(&answered_ms), "{answered_ms}");
        uptime_ms = answered_ms;
    }
}

#[tokio::test]
async fn faults_happen_and_are_counted() {
    let server = Server::new().await;
    let faults = "drop=0.1,garbage=0.3,reorder=0.2,duplicate=0.2".parse().unwrap();
    let device = Device::spawn(Config { faults, seed: 5, ..server.config(source(1, 60.0)) }).unwrap();
    let mut socket = server.socket().await;
    socket.start("1").await;
    let (mut bad, mut stamps) = (0, Vec::new());
    while stamps.len() < 400 {
        if let Ok(packet) = serde_json::from_str::<Value>(&socket.text().await) {
            stamps.push(packet["timestamp"].as_u64().unwrap());
            socket.answer(true).await;
        } else {
            bad += 1;
            socket.send(&json!({"type": "error", "error": "bad JSON"})).await;
        }
    }
    assert!(bad > 20);
    assert!(stamps.windows(2).any(|pair| pair[1] < pair[0]), "reordered");
    assert!(stamps.windows(2).any(|pair| pair[1] == pair[0]), "duplicated");
    let now = device.wait_until("the answers", LIMIT, |now| now.packets_acked >= 400).await.unwrap();
    assert_eq!(now.packets_refused, 0, "bad texts are not mistaken for packets");
    assert!(now.blocks_lost > 10);
}

#[tokio::test]
async fn cuts_lead_to_reconnects() {
    let server = Server::new().await;
    let faults = Faults { cut_s: 5.0, ..Faults::default() };
    let device = Device::spawn(Config { faults, ..forever(&server) }).unwrap();
    let mut socket = server.socket().await;
    socket.start("1").await;
    for _ in 0..3 {
        let mut socket = server.socket().await;
        assert_eq!(socket.json().await["session_id"], "1");
    }
    assert!(device.now().connections >= 3);
}

#[tokio::test]
async fn no_source_is_an_error_and_no_server_is_told() {
    let server = Server::new().await;
    assert!(matches!(
        Device::spawn(server.config(Source::from_recording(&crate::recordings::Recording::default()))),
        Err(Error::EmptySource)
    ));
    let closed = Server::new().await;
    let address = closed.address.clone();
    drop(closed);
    let device = Device::spawn(Config { address, ..server.config(source(1, 1.0)) }).unwrap();
    let error = device.wait_until("a connection", Duration::from_millis(300), |now| now.connected).await.unwrap_err();
    assert!(error.to_string().contains("not connected"), "{error}");
}

/// A server as the mini-program and a device see it, for one session.
async fn small_service(server: Server) {
    let mut device: Option<Socket> = None;
    let mut user: Option<Socket> = None;
    loop {
        let packet = async {
            match &mut device {
                Some(device) => device.json().await,
                None => std::future::pending().await,
            }
        };
        let mut stream = tokio::select! {
            accepted = server.listener.accept() => accepted.unwrap().0,
            message = packet => {
                if message["type"] == "upload_complete" {
                    assert_eq!(message["session_id"], "12");
                    let user = user.as_mut().unwrap();
                    user.0.send(Message::Ping(Bytes::new())).await.unwrap();
                    for session_id in [11, 12] {
                        let result = json!({"energy_ratio": 0.5});
                        user.send(&json!({"type": NOTIFICATION, "session_id": session_id, "analysis_result": result})).await;
                    }
                } else {
                    device.as_mut().unwrap().answer(true).await;
                }
                continue;
            }
        };
        let mut head = [0; 64];
        let read = stream.peek(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head[..read]).into_owned();
        if head.starts_with("GET /ws/esp32/") {
            device = Some(Socket(accept_async(stream).await.unwrap()));
            continue;
        }
        if head.starts_with("GET /ws/miniprogram/u1/") {
            user = Some(Socket(accept_async(stream).await.unwrap()));
            continue;
        }
        let mut request = Vec::new();
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            stream.read_buf(&mut request).await.unwrap();
        }
        let body = r#"{"msg":"ok","session_id":12}"#;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        drop(stream);
        let device = device.as_mut().unwrap();
        if head.starts_with("POST /wxapp/start_session/") {
            device.start("12").await;
        } else {
            assert!(head.starts_with("POST /wxapp/end_session/"), "{head}");
            device.send(&json!({"type": "stop_collection", "session_id": "12"})).await;
        }
    }
}

#[tokio::test]
async fn a_session_is_played_as_the_mini_program_plays_it() {
    let server = Server::new().await;
    let address = server.address.clone();
    let config = server.config(source(1, 6.0));
    let service = tokio::spawn(small_service(server));
    let device = Device::spawn(config).unwrap();
    let mut steps = Vec::new();
    let limits = PlayLimits::for_recording(6.0, 50.0);
    let played = play_session(&device, &address, "u1", limits, |step| steps.push(step)).await.unwrap();
    assert_eq!(played.session_id, "12");
    assert_eq!(played.notification["analysis_result"]["energy_ratio"], 0.5);
    assert!(played.device.packets_acked > 50);
    let expected =
        [Step::Started { session_id: "12".into() }, Step::Streaming, Step::Stopping, Step::Uploaded, Step::Notified];
    assert_eq!(steps, expected);
    service.abort();
}

#[tokio::test]
async fn a_refused_request_says_why() {
    let server = Server::new().await;
    let address = server.address.clone();
    let refuse = tokio::spawn(async move {
        let (mut stream, _) = server.listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"a=b%20c") {
            stream.read_buf(&mut request).await.unwrap();
        }
        let answer = "HTTP/1.1 400 Bad Request\r\nContent-Length: 18\r\n\r\n{\"error\":\"no way\"}";
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let error = post_form(&address, "/x/", &[("a", "b c")], LIMIT).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { status: 400, reason, .. } if reason == "no way"), "{error}");
    refuse.await.unwrap();
}
