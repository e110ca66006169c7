//! Peers that break the rules, by raw bytes: each gets what the standard says, and nobody else notices.

use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::{PATIENCE, TestApp};

const HEARTBEAT: &str = r#"{"type":"heartbeat"}"#;

/// The handshake of firmware V3.3.
fn handshake(path: &str, address: SocketAddr) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: arduino\r\nOrigin: file://\r\nUser-Agent: arduino-WebSocket-Client\r\n\r\n"
    )
}

/// A WebSocket spoken by hand.
struct Raw {
    stream: TcpStream,
}

/// A frame of the server.
#[derive(Debug)]
struct Frame {
    opcode: u8,
    payload: Vec<u8>,
}

impl Raw {
    /// Connects and shakes hands; the head of the answer comes back with it.
    async fn connect(app: &TestApp, path: &str) -> (Self, String) {
        let stream = TcpStream::connect(app.address()).await.unwrap();
        Self::shake_hands(stream, &handshake(path, app.address())).await
    }

    async fn shake_hands(mut stream: TcpStream, request: &str) -> (Self, String) {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if timeout(PATIENCE, stream.read(&mut byte)).await.expect("an answer in time").unwrap() == 0 {
                break;
            }
            head.push(byte[0]);
        }
        (Self { stream }, String::from_utf8(head).unwrap())
    }

    /// A device socket that has been greeted.
    async fn device(app: &TestApp, code: &str) -> Self {
        let (mut raw, head) = Self::connect(app, &format!("/ws/esp32/{code}/")).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert_eq!(raw.json().await["type"], "connection_established");
        raw
    }

    async fn send(&mut self, bytes: &[u8]) {
        // The server may have closed in the middle of what we send.
        drop(self.stream.write_all(bytes).await);
    }

    /// The next frame; `None` at the end of the stream.
    async fn frame(&mut self) -> Option<Frame> {
        let read = async {
            let mut head = [0; 2];
            self.stream.read_exact(&mut head).await.ok()?;
            assert_eq!(head[0] & 0x70, 0, "no extensions were agreed on");
            assert_eq!(head[0] & 0x80, 0x80, "the firmware ignores fragments");
            assert_eq!(head[1] & 0x80, 0, "a server does not mask");
            let length = match head[1] {
                126 => u64::from(self.stream.read_u16().await.ok()?),
                127 => self.stream.read_u64().await.ok()?,
                short => u64::from(short),
            };
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some(Frame { opcode: head[0] & 0x0f, payload })
        };
        timeout(PATIENCE, read).await.expect("a frame in time")
    }

    /// The next text that is no command; pings are passed over.
    async fn json(&mut self) -> Value {
        loop {
            let frame = self.frame().await.expect("the socket stays open");
            if frame.opcode != 1 {
                assert_ne!(frame.opcode, 8, "closed: {:?}", String::from_utf8_lossy(&frame.payload));
                continue;
            }
            let message: Value = serde_json::from_slice(&frame.payload).unwrap();
            if !["get_status", "start_collection", "stop_collection"].contains(&message["type"].as_str().unwrap()) {
                return message;
            }
        }
    }

    /// The code with which the server closes, and that it then ends the connection.
    async fn closed(&mut self) -> Option<u16> {
        loop {
            let frame = self.frame().await?;
            if frame.opcode == 8 {
                let code = frame.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                let mut rest = Vec::new();
                drop(timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("the end in time"));
                return Some(code);
            }
        }
    }
}

/// A masked frame; `first` is its first byte (final, reserved bits, opcode).
fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65536 => {
            bytes.push(0x80 | 0x7e);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes(), MASK)
}

/// What the server must do.
enum Expect {
    /// Answer with a message of this type and go on.
    Answer(&'static str),
    /// Answer with a pong of this payload and go on.
    Pong(&'static [u8]),
    /// Go on as if nothing had been sent.
    Nothing,
    /// Close with one of these codes.
    Close(&'static [u16]),
}

/// The rules of RFC 6455, one case a line: sections 5 (framing), 5.4 (fragments), 5.5 (control), 7.4 (codes), 8.1 (UTF-8).
fn cases() -> Vec<(&'static str, Vec<u8>, Expect)> {
    use Expect::{Answer, Close, Nothing, Pong};
    const PROTOCOL: Expect = Close(&[1002]);
    let heartbeat = HEARTBEAT.as_bytes();
    let (start, rest) = heartbeat.split_at(5);
    let (middle, end) = rest.split_at(7);
    let unmasked = [&[0x81, heartbeat.len() as u8][..], heartbeat].concat();
    let padded = |length: usize| format!("{HEARTBEAT}{}", " ".repeat(length - HEARTBEAT.len()));
    vec![
        ("plain text", text(HEARTBEAT), Answer("heartbeat_response")),
        ("mask of zeros, as the firmware sends", frame(0x81, heartbeat, [0; 4]), Answer("heartbeat_response")),
        ("16-bit length", text(&padded(126)), Answer("heartbeat_response")),
        ("64-bit length", text(&padded(65536)), Answer("heartbeat_response")),
        ("longest message", text(&padded(64 << 10)), Answer("heartbeat_response")),
        ("one byte too long", text(&padded((64 << 10) + 1)), Close(&[1009])),
        ("announces a terabyte", [&[0x81, 0xff][..], &(1u64 << 40).to_be_bytes(), &MASK].concat(), Close(&[1009])),
        (
            "length with the top bit set",
            [&[0x81, 0xff][..], &(1u64 << 63).to_be_bytes(), &MASK].concat(),
            Close(&[1002, 1009]),
        ),
        ("empty text", text(""), Answer("error")),
        ("binary", frame(0x82, &[1, 2, 3], MASK), Answer("error")),
        ("reserved bit 1", frame(0xc1, heartbeat, MASK), PROTOCOL),
        ("reserved bit 2", frame(0xa1, heartbeat, MASK), PROTOCOL),
        ("reserved bit 3", frame(0x91, heartbeat, MASK), PROTOCOL),
        ("reserved opcode 3", frame(0x83, heartbeat, MASK), PROTOCOL),
        ("reserved opcode 7", frame(0x87, &[], MASK), PROTOCOL),
        ("reserved control opcode 11", frame(0x8b, &[], MASK), PROTOCOL),
        ("not masked", unmasked, PROTOCOL),
        (
            "fragments with a ping between",
            [frame(0x01, start, MASK), frame(0x89, b"x", MASK), frame(0x00, middle, MASK), frame(0x80, end, MASK)]
                .concat(),
            Answer("heartbeat_response"),
        ),
        (
            "fragments, one empty",
            [frame(0x01, b"", MASK), frame(0x80, heartbeat, MASK)].concat(),
            Answer("heartbeat_response"),
        ),
        ("continuation of nothing", frame(0x80, heartbeat, MASK), PROTOCOL),
        ("new text inside a fragmented one", [frame(0x01, start, MASK), text(HEARTBEAT)].concat(), PROTOCOL),
        (
            "fragments too long together",
            [frame(0x01, &[b' '; 40_000], MASK), frame(0x80, &[b' '; 40_000], MASK)].concat(),
            Close(&[1009]),
        ),
        ("ping", frame(0x89, b"hello", MASK), Pong(b"hello")),
        ("empty ping", frame(0x89, b"", MASK), Pong(b"")),
        ("longest ping", frame(0x89, &[b'p'; 125], MASK), Pong(&[b'p'; 125])),
        ("ping too long", frame(0x89, &[b'p'; 126], MASK), PROTOCOL),
        ("ping in fragments", frame(0x09, b"x", MASK), PROTOCOL),
        ("pong that nobody asked for", frame(0x8a, b"12345678", MASK), Nothing),
        ("pong with odd payload", frame(0x8a, b"?", MASK), Nothing),
        ("not UTF-8", frame(0x81, b"\"\xc3\x28\"", MASK), Close(&[1007])),
        ("cut-off UTF-8", frame(0x81, b"\"\xe8\xbf", MASK), Close(&[1007])),
        ("UTF-16 half in UTF-8", frame(0x81, b"\"\xed\xa0\x80\"", MASK), Close(&[1007])),
        (
            "UTF-8 cut by fragments is whole",
            [frame(0x01, b"{\"type\":\"heartbeat\",\"x\":\"\xe8\xbf", MASK), frame(0x80, b"\x99\"}", MASK)].concat(),
            Answer("heartbeat_response"),
        ),
        ("close", frame(0x88, &1000u16.to_be_bytes(), MASK), Close(&[1000])),
        ("close with a reason", frame(0x88, b"\x03\xe9bye", MASK), Close(&[1001])),
        ("close without a code", frame(0x88, b"", MASK), Close(&[1000, 1005])),
        ("close with half a code", frame(0x88, &[3], MASK), PROTOCOL),
        ("close with a code nobody may send", frame(0x88, &1005u16.to_be_bytes(), MASK), PROTOCOL),
        ("close with a code out of range", frame(0x88, &99u16.to_be_bytes(), MASK), PROTOCOL),
        ("close with a reason not UTF-8", frame(0x88, b"\x03\xe8\xff", MASK), Close(&[1002, 1007])),
        ("two messages in one segment", [text("x"), text(HEARTBEAT)].concat(), Answer("error")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_rfc_6455() {
    let app = TestApp::start().await;
    for (index, (name, bytes, expect)) in cases().into_iter().enumerate() {
        let mut raw = Raw::device(&app, &format!("case{index}")).await;
        raw.send(&bytes).await;
        match expect {
            Expect::Answer(kind) => assert_eq!(raw.json().await["type"], kind, "{name}"),
            Expect::Pong(payload) => loop {
                let frame = raw.frame().await.unwrap_or_else(|| panic!("{name}: closed"));
                if frame.opcode == 10 {
                    assert_eq!(frame.payload, payload, "{name}");
                    break;
                }
            },
            Expect::Nothing => {}
            Expect::Close(codes) => {
                let code = raw.closed().await.unwrap_or_else(|| panic!("{name}: broken off without a close frame"));
                assert!(codes.contains(&code), "{name}: closed with {code}, not {codes:?}");
                continue;
            }
        }
        raw.send(&text(HEARTBEAT)).await;
        assert_eq!(raw.json().await["type"], "heartbeat_response", "{name}: goes on");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_may_trickle_in() {
    let app = TestApp::start().await;
    let mut raw = Raw::device(&app, "trickle").await;
    for byte in text(HEARTBEAT) {
        raw.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(raw.json().await["type"], "heartbeat_response");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handshake_is_what_the_firmware_accepts() {
    let app = TestApp::start().await;
    for path in [
        "/ws/esp32/2025001/",
        "/ws/esp32/2025001",
        "/ws/esp32/a.b-c_1/",
        "/ws/miniprogram/o-penId_1/",
        "/ws/admin/",
        "/",
    ] {
        // Only the device's path is free of questions about the origin.
        let request = handshake(path, app.address());
        let request = if path.contains("esp32") { request } else { request.replace("Origin: file://\r\n", "") };
        let stream = TcpStream::connect(app.address()).await.unwrap();
        let (_raw, head) = Raw::shake_hands(stream, &request).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{path}: {head}");
        let header = |name: &str| {
            let lines: Vec<&str> = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .filter(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
                .collect();
            assert_eq!(lines.len(), 1, "{name} in {head}");
            lines[0].to_owned()
        };
        assert!(header("Connection").eq_ignore_ascii_case("Upgrade"), "no list: {head}");
        assert!(header("Upgrade").eq_ignore_ascii_case("websocket"));
        assert_eq!(header("Sec-WebSocket-Accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!head.to_ascii_lowercase().contains("sec-websocket-extensions"));
    }
    let refused = [
        ("/ws/esp32//", 400),
        ("/ws/esp32/", 404),
        ("/ws/esp32/%E8%AE%BE%E5%A4%87/", 400),
        ("/ws/esp32/a%2Fb/", 400),
        ("/ws/esp32/a%20b/", 400),
        ("/ws/miniprogram/a%0Ab/", 400),
        ("/ws/esp32/2025001/more/", 404),
        ("/ws/nowhere/", 404),
        ("/ws/admin/", 401),
    ];
    let long = format!("/ws/esp32/{}/", "x".repeat(65));
    for (path, status) in refused.into_iter().chain([(long.as_str(), 400)]) {
        let request = handshake(path, app.address()).replace("file://", "http://evil.example");
        let stream = TcpStream::connect(app.address()).await.unwrap();
        let (_raw, head) = Raw::shake_hands(stream, &request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
    }
    let own = handshake("/ws/admin/", app.address()).replace("file://", &app.url());
    let (_raw, head) = Raw::shake_hands(TcpStream::connect(app.address()).await.unwrap(), &own).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "the service's own page: {head}");
    let (status, answer) = app.get("/ws/esp32/2025001/").await;
    assert!((400..500).contains(&status) && answer["error"].is_string(), "no upgrade asked for: {status} {answer}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_nonsense_are_cut_off() {
    let app = TestApp::start().await;
    for nonsense in [frame(0x82, &[0; 10], MASK), text(""), text("{"), text(r#"{"type":"reboot"}"#)] {
        let mut raw = Raw::device(&app, "flood").await;
        for _ in 0..200 {
            raw.send(&nonsense).await;
        }
        assert_eq!(raw.closed().await, Some(1008));
    }
    // Refused packets are no nonsense: a device that streams for a dead session does not know better.
    let mut device = app.socket("/ws/esp32/stray/").await;
    let frame = json!({"acc":[0,0,1],"gyro":[0,0,0],"angle":[0,0,0],"sensor_id":1,"timestamp":1});
    let packet = json!({"type":"batch_sensor_data","session_id":"77","data":[frame]});
    for _ in 0..200 {
        device.send(&packet).await;
        let answer = device.next_of("batch_sensor_data_response").await;
        assert_eq!((&answer["success"], &answer["error"]), (&json!(false), &json!("unknown session 77")));
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_disturb_nobody() {
    let app = TestApp::start().await;
    let mut good = app.socket("/ws/esp32/good/").await;
    good.next_of("connection_established").await;
    let mut random = ChaCha8Rng::seed_from_u64(6455);
    for round in 0..60 {
        let garbage: Vec<u8> = (0..random.random_range(1..3000)).map(|_| random.random()).collect();
        if round % 3 == 0 {
            // To the port itself.
            let mut stream = TcpStream::connect(app.address()).await.unwrap();
            drop(stream.write_all(&garbage).await);
        } else {
            let mut raw = Raw::device(&app, "garbage").await;
            if round % 3 == 1 {
                raw.send(&garbage).await;
            } else {
                raw.send(&frame(0x81, String::from_utf8_lossy(&garbage).as_bytes(), MASK)).await;
                assert_eq!(raw.json().await["type"], "error");
            }
        }
        good.send_text(HEARTBEAT).await;
        good.next_of("heartbeat_response").await;
    }
    assert_eq!(app.get("/health/ready").await.0, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_cost_only_themselves() {
    let app = TestApp::start().await;
    let session = app.start_session("2025001").await;
    let mut device = app.socket("/ws/esp32/2025001/").await;
    let good = r#"{"acc":[0,0,1],"gyro":[0,null,0],"angle":[0,0,0],"sensor_id":1,"timestamp":154501450}"#;
    let deep = format!("{}{}", "[".repeat(9000), "]".repeat(9000));
    let bad = [
        r#"{"acc":[0,0,1e400],"gyro":[0,0,0],"angle":[0,0,0]}"#,
        r#"{"acc":[0,0],"gyro":[0,0,0],"angle":[0,0,0]}"#,
        r#"{"acc":["0","0","1"],"gyro":[0,0,0],"angle":[0,0,0]}"#,
        "null",
        &deep,
    ];
    let send = |data: String| format!(r#"{{"data":[{data}],"session_id":{session},"type":"batch_sensor_data"}}"#);
    for bad in bad {
        device.send_text(&send(format!("{good},{bad},{}", good.replace("450", "460")))).await;
        let answer = device.next_of("batch_sensor_data_response").await;
        let counts = ["total_items", "successful_items", "failed_items"].map(|field| answer[field].as_i64());
        assert_eq!((&answer["success"], counts), (&json!(true), [Some(3), Some(2), Some(1)]), "{bad:.80}");
    }
    device.send_text(&send("null,7".to_owned())).await;
    let answer = device.next_of("batch_sensor_data_response").await;
    assert_eq!((&answer["success"], &answer["failed_items"]), (&json!(false), &json!(2)));
    assert!(answer["error"].is_string());
    let frames = app.sql_count(&format!("SELECT count(*) FROM frames WHERE session_id = {session}")).await;
    assert_eq!(frames, 10, "two good frames of each of five packets");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_of_others_are_refused_with_the_reason() {
    let app = TestApp::start().await;
    let foreign = app.start_session("theirs").await;
    let mut device = app.socket("/ws/esp32/mine/").await;
    let frame = json!({"acc":[0,0,1],"gyro":[0,0,0],"angle":[0,0,0],"sensor_id":1,"timestamp":1});
    for (session, reason) in [
        (json!(foreign), "belongs to another device"),
        (json!("99999"), "unknown session"),
        (json!("abc"), "unknown session"),
        (json!(-1), "unknown session"),
        (json!("9".repeat(500)), "unknown session"),
    ] {
        device.send(&json!({"type":"batch_sensor_data","session_id":session,"data":[frame]})).await;
        let answer = device.next_of("batch_sensor_data_response").await;
        assert_eq!(answer["success"], false);
        assert_eq!(
            ["total_items", "successful_items", "failed_items"].map(|field| answer[field].as_i64()),
            [Some(0); 3]
        );
        assert!(answer["error"].as_str().unwrap().contains(reason), "{answer}");
        device.send(&json!({"type":"upload_complete","session_id":session})).await;
        assert!(device.next_of("error").await["error"].is_string());
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_connection_of_a_device_wins() {
    let app = TestApp::start().await;
    let mut older = Raw::device(&app, "2025001").await;
    let mut newer = app.socket("/ws/esp32/2025001/").await;
    newer.next_of("connection_established").await;
    assert_eq!(older.closed().await, Some(4001));
    drop(older);
    // The older one's end did not unregister the newer.
    let session = app.start_session("2025001").await;
    assert_eq!(newer.next_of("start_collection").await["session_id"], session.to_string());
    app.stop().await;
}

/// A peer that never reads is dropped when our writes have nowhere to go; others are served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_is_dropped() {
    let app = TestApp::start_with(|config| {
        config.gateway.write_timeout_s = 1;
        config.gateway.device_messages_per_s = 1_000_000;
    })
    .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(app.address()).await.unwrap();
    let (raw, head) = Raw::shake_hands(stream, &handshake("/ws/esp32/deaf/", app.address())).await;
    assert!(head.starts_with("HTTP/1.1 101"));
    let (mut read_half, mut write_half) = raw.stream.into_split();
    let flood = text(HEARTBEAT).repeat(1000);
    let flooding = tokio::spawn(async move { while write_half.write_all(&flood).await.is_ok() {} });

    let mut other = app.socket("/ws/esp32/other/").await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !flooding.is_finished() {
        assert!(tokio::time::Instant::now() < deadline, "the deaf peer is still connected");
        other.send_text(HEARTBEAT).await;
        other.next_of("heartbeat_response").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut rest = Vec::new();
    drop(read_half.read_to_end(&mut rest).await);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_answers_no_ping_is_dropped_and_one_that_does_is_not() {
    let app = TestApp::start_with(|config| {
        config.gateway.ping_interval_s = 1;
        config.gateway.pong_timeout_s = 2;
    })
    .await;
    let mut alive = app.socket("/ws/esp32/alive/").await;
    alive.next_of("connection_established").await;
    let mut ghost = Raw::device(&app, "ghost").await;
    let mut pings = 0;
    while let Some(frame) = ghost.frame().await {
        pings += usize::from(frame.opcode == 9);
        // The other one answers its pings while it waits.
        alive.send_text(HEARTBEAT).await;
        alive.next_of("heartbeat_response").await;
    }
    assert!(pings >= 1, "it was asked before it was dropped");
    alive.send_text(HEARTBEAT).await;
    alive.next_of("heartbeat_response").await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_have_a_limit() {
    let app = TestApp::start_with(|config| config.gateway.connections_per_address_limit = 3).await;
    let mut sockets = Vec::new();
    for code in ["one", "two", "three"] {
        let mut socket = app.socket(&format!("/ws/esp32/{code}/")).await;
        socket.next_of("connection_established").await;
        sockets.push(socket);
    }
    let (_raw, head) = Raw::connect(&app, "/ws/esp32/four/").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    sockets.pop().unwrap().close().await;
    // The place is free once the server has noticed.
    let served = async {
        loop {
            let (mut raw, head) = Raw::connect(&app, "/ws/esp32/four/").await;
            if head.starts_with("HTTP/1.1 101 ") {
                return raw.json().await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert_eq!(timeout(PATIENCE, served).await.expect("a place in time")["type"], "connection_established");
    drop(sockets);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_told_when_the_service_stops() {
    let app = TestApp::start().await;
    let mut raw = Raw::device(&app, "2025001").await;
    let (mut root, _) = tokio_tungstenite::connect_async(format!("ws://{}/", app.address())).await.unwrap();
    assert!(root.next().await.unwrap().unwrap().is_text());
    let stopping = tokio::spawn(app.stop());
    assert_eq!(raw.closed().await, Some(1012));
    let close = timeout(PATIENCE, root.next()).await.unwrap().unwrap().unwrap();
    assert!(
        matches!(&close, tokio_tungstenite::tungstenite::Message::Close(Some(frame)) if u16::from(frame.code) == 1012)
    );
    root.flush().await.ok();
    drop((raw, root));
    stopping.await.unwrap();
}

/// Commands are not behind data: a device that floods packets gets its stop at once, and answers come in order.
#[tokio::test(flavor = "multi_thread")]
async fn commands_overtake_data() {
    let app = TestApp::start().await;
    let session = app.start_session("2025001").await;
    let mut device = app.socket("/ws/esp32/2025001/").await;
    device.next_of("start_collection").await;
    let packet = |number: usize, frames: usize| {
        let frames: Vec<Value> = (0..frames)
            .map(|_| json!({"acc":[0,0,1],"gyro":[0,0,0],"angle":[0,0,0],"sensor_id":1,"timestamp":number}))
            .collect();
        json!({"type":"batch_sensor_data","session_id":session.to_string(),"timestamp":number,"data":frames})
    };
    for number in 1..=40 {
        device.send(&packet(number, number)).await;
    }
    let (status, _) = app.post_form("/wxapp/end_session/", &format!("session_id={session}")).await;
    assert_eq!(status, 200);
    let (mut answered, mut stopped) = (0, false);
    while answered < 40 || !stopped {
        let message: Value = device.next().await.expect("open");
        match message["type"].as_str().unwrap() {
            "batch_sensor_data_response" => {
                answered += 1;
                assert_eq!((&message["success"], &message["total_items"]), (&json!(true), &json!(answered)));
            }
            "stop_collection" => stopped = true,
            "connection_established" => {}
            other => panic!("{other}"),
        }
    }
    app.stop().await;
}
