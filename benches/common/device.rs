//! A WebSocket client that costs next to nothing: requests and frames are written as bytes, answers are not parsed
//! further than asked. What it sends has the form of the firmware's library: masked with the key 0, header first.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::data::Packets;

/// The answer to a packet begins so.
const PACKET_ANSWER: &[u8] = br#"{"type":"batch_sensor_data_response""#;

/// A connected device or user.
pub(crate) struct Device {
    stream: TcpStream,
    code: String,
    received: Vec<u8>,
    /// Bytes of `received` that were taken.
    taken: usize,
    frame: Vec<u8>,
}

/// A message of the server.
#[derive(Debug)]
pub(crate) enum Message {
    /// A packet is safe.
    Acked,
    /// Anything else.
    Text(String),
}

impl Device {
    /// Connects as a device.
    pub(crate) async fn connect(address: SocketAddr, code: &str) -> io::Result<Self> {
        Self::connect_to(address, &format!("/ws/esp32/{code}/"), code).await
    }

    /// Connects to any socket of the server.
    pub(crate) async fn connect_to(address: SocketAddr, path: &str, code: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: arduino\r\nOrigin: file://\r\nUser-Agent: arduino-WebSocket-Client\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut received = Vec::new();
        let head = loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut received).await? == 0 {
                return Err(broken("closed before the answer to the handshake"));
            }
        };
        if !received.starts_with(b"HTTP/1.1 101") {
            return Err(broken(&String::from_utf8_lossy(&received[..head])));
        }
        Ok(Self { stream, code: code.to_owned(), received, taken: head, frame: Vec::new() })
    }

    /// Sends a packet of a recording.
    pub(crate) async fn send_packet(&mut self, packets: &Packets, number: usize, session: &str) -> io::Result<()> {
        let (head, frames, tail) = packets.parts(number, &self.code, session);
        self.send(0x81, &[head.as_bytes(), frames.as_bytes(), tail.as_bytes()]).await
    }

    /// Sends a text.
    pub(crate) async fn send_text(&mut self, text: &str) -> io::Result<()> {
        self.send(0x81, &[text.as_bytes()]).await
    }

    async fn send(&mut self, opcode: u8, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.frame.clear();
        self.frame.push(opcode);
        match u16::try_from(length) {
            Ok(short) if short < 126 => self.frame.push(0x80 | short as u8),
            Ok(short) => {
                self.frame.push(0xFE);
                self.frame.extend_from_slice(&short.to_be_bytes());
            }
            Err(_) => return Err(broken("a device sends no message so long")),
        }
        self.frame.extend_from_slice(&[0; 4]);
        for part in parts {
            self.frame.extend_from_slice(part);
        }
        self.stream.write_all(&self.frame).await
    }

    /// The next message. Pings are answered, and commands as the firmware answers them. Can be dropped while it waits.
    pub(crate) async fn next(&mut self) -> io::Result<Message> {
        loop {
            while let Some((opcode, begin, end)) = self.whole_frame() {
                self.taken = end;
                let payload = self.received[begin..end].to_vec();
                match opcode {
                    1 if payload.starts_with(PACKET_ANSWER) => {
                        if payload.windows(14).any(|window| window == br#""success":true"#) {
                            return Ok(Message::Acked);
                        }
                        return Err(broken(&format!("refused: {}", String::from_utf8_lossy(&payload))));
                    }
                    1 => {
                        let text = String::from_utf8_lossy(&payload).into_owned();
                        self.obey(&text).await?;
                        return Ok(Message::Text(text));
                    }
                    9 => self.send(0x8A, &[&payload]).await?,
                    8 => return Err(broken(&format!("closed: {}", String::from_utf8_lossy(&payload)))),
                    _ => {}
                }
            }
            self.received.drain(..self.taken);
            self.taken = 0;
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(broken("the server hung up"));
            }
        }
    }

    /// The next text that has this type.
    pub(crate) async fn next_of(&mut self, kind: &str) -> io::Result<String> {
        let begin = format!(r#"{{"type":"{kind}""#);
        loop {
            if let Message::Text(text) = self.next().await?
                && text.starts_with(&begin)
            {
                return Ok(text);
            }
        }
    }

    /// Says what the firmware says to a command.
    async fn obey(&mut self, text: &str) -> io::Result<()> {
        let Some(command_id) = member(text, "command_id").filter(|id| !id.is_empty()) else { return Ok(()) };
        if text.starts_with(r#"{"type":"get_status""#) {
            let code = &self.code;
            let status = format!(
                r#"{{"type":"status_response","command_id":"{command_id}","timestamp":90000,"connection":{{"wifi_connected":true,"server_connected":true,"collection_active":false}},"device":{{"device_code":"{code}","session_id":"041025","firmware_version":"V3.3"}},"stats":{{"total_blocks_sent":0,"total_bytes_sent":0,"send_failures":0,"avg_send_rate":0,"connection_attempts":1}},"system":{{"free_heap":231468,"uptime":90000}}}}"#
            );
            self.send_text(&status).await?;
        }
        let ack = format!(r#"{{"type":"ack","command_id":"{command_id}","success":true,"timestamp":90000}}"#);
        self.send_text(&ack).await
    }

    /// Opcode and payload of the next frame, once it is there whole.
    fn whole_frame(&self) -> Option<(u8, usize, usize)> {
        let rest = &self.received[self.taken..];
        let (&first, &second) = (rest.first()?, rest.get(1)?);
        let (header, length) = match second & 0x7F {
            126 => (4, usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]))),
            127 => (10, u64::from_be_bytes(rest.get(2..10)?.try_into().ok()?) as usize),
            short => (2, usize::from(short)),
        };
        (rest.len() >= header + length).then_some((first & 0x0F, self.taken + header, self.taken + header + length))
    }
}

/// The text of a member, if it needs no unescaping.
fn member<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let begin = text.split_once(&format!(r#""{name}":""#))?.1;
    Some(begin.split_once('"')?.0)
}

/// POST of a form on a connection of its own; the body of the answer.
pub(crate) async fn post(address: SocketAddr, path: &str, form: &str) -> io::Result<serde_json::Value> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    if !answer.starts_with("HTTP/1.1 200") {
        return Err(broken(&answer));
    }
    serde_json::from_str(body).map_err(io::Error::from)
}

/// Opens a session of the service's test user on a device; its number.
pub(crate) async fn start_session(address: SocketAddr, code: &str) -> io::Result<String> {
    let form = format!("openid=test_user_123456&device_group_code={code}&device_code={code}");
    let answer = post(address, "/wxapp/start_session/", &form).await?;
    let session = answer.get("session_id").and_then(serde_json::Value::as_i64);
    session.map(|session| session.to_string()).ok_or_else(|| broken(&answer.to_string()))
}

pub(crate) fn broken(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}
