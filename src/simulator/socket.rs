//! The WebSocket client of the arduinoWebSockets library, as far as it can be told from the wire.
//!
//! Own code because the stock clients do it properly: this one sends exactly these handshake headers, insists on a bare
//! `Connection: Upgrade`, masks payloads of 1400 bytes and more with a zero key, writes header and payload one after the
//! other, ignores fragments and binary frames, and closes with 1009 on more than 15 KiB.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Address;

/// A server payload longer than this makes the library close with 1009.
pub(super) const PAYLOAD_LIMIT_BYTES: usize = 15 * 1024;
/// Payloads from this length on are masked with a zero key.
pub(super) const ZERO_MASK_FROM_BYTES: usize = 1400;
const HANDSHAKE_LIMIT_BYTES: usize = 8 * 1024;
const EVENT_QUEUE: usize = 256;
/// A peer that takes nothing for this long is given up.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

pub(super) const TEXT: u8 = 0x1;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PONG: u8 = 0xA;

/// What came from the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Text(String),
    Ping(Vec<u8>),
    Close,
    /// Over the limit: the library answers with a close.
    TooLong,
    /// The stream ended or broke, or was no WebSocket.
    Gone,
}

/// Why no connection came about.
#[derive(Debug)]
pub(super) enum Failure {
    /// No TCP connection, or it broke.
    Io(io::Error),
    /// An answer that the library does not take for a handshake.
    Refused(String),
    /// No answer in time. The library forgets the socket without closing it: here it is.
    Slow(Option<TcpStream>),
}

/// An open connection.
pub(super) struct Connection {
    writer: OwnedWriteHalf,
    reader: JoinHandle<()>,
    pub(super) events: mpsc::Receiver<Event>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Connection {
    /// Connects and shakes hands within `limit`.
    pub(super) async fn open(
        address: &Address,
        path: &str,
        limit: Duration,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, Failure> {
        let deadline = tokio::time::Instant::now() + limit;
        let Ok(stream) = tokio::time::timeout_at(deadline, connect(address)).await else {
            return Err(Failure::Slow(None));
        };
        let mut stream = stream.map_err(Failure::Io)?;
        stream.set_nodelay(true).map_err(Failure::Io)?;
        let key = base64(&rng.random::<[u8; 16]>());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: arduino\r\n\
             Origin: file://\r\nUser-Agent: arduino-WebSocket-Client\r\n\r\n"
        );
        let mut received = Vec::with_capacity(1024);
        match tokio::time::timeout_at(deadline, shake(&mut stream, &request, &mut received)).await {
            Err(_) => return Err(Failure::Slow(Some(stream))),
            Ok(Err(error)) => return Err(Failure::Io(error)),
            Ok(Ok(head)) => check_answer(&head, &key).map_err(Failure::Refused)?,
        }
        let (reader, writer) = stream.into_split();
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let reader = tokio::spawn(read(reader, received, sender));
        Ok(Self { writer, reader, events })
    }

    /// Sends one frame: header and payload as two writes.
    pub(super) async fn send(&mut self, opcode: u8, payload: &[u8], rng: &mut ChaCha8Rng) -> io::Result<()> {
        let key = if payload.len() >= ZERO_MASK_FROM_BYTES { [0; 4] } else { rng.random::<[u8; 4]>() };
        let header = frame_header(opcode, payload.len(), key);
        let write = async {
            self.writer.write_all(&header).await?;
            if key == [0; 4] {
                return self.writer.write_all(payload).await;
            }
            let masked: Vec<u8> = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
            self.writer.write_all(&masked).await
        };
        match tokio::time::timeout(WRITE_LIMIT, write).await {
            Ok(written) => written,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Breaks the connection without a word: with a reset, or as the operating system closes.
    pub(super) fn cut(self, reset: bool) {
        if reset {
            // Best effort: a failure leaves an ordinary close.
            drop(socket2::SockRef::from(self.writer.as_ref()).set_linger(Some(Duration::ZERO)));
        }
        drop(self);
    }
}

async fn connect(address: &Address) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let addresses: Vec<SocketAddr> = lookup_host((address.host(), address.port())).await?.collect();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Sends the request and reads the head of the answer; what follows it stays in `received`.
async fn shake(stream: &mut TcpStream, request: &str, received: &mut Vec<u8>) -> io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    loop {
        if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&received[..end]).into_owned();
            received.drain(..end + 4);
            return Ok(head);
        }
        if received.len() > HANDSHAKE_LIMIT_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if stream.read_buf(received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The library's rules for the answer; the reason if it is none.
fn check_answer(head: &str, key: &str) -> Result<(), String> {
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if status.split_ascii_whitespace().nth(1) != Some("101") {
        return Err(status.to_owned());
    }
    let header = |wanted: &str| {
        let mut headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    if !header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")) {
        return Err(format!("Connection: {} (a bare Upgrade is needed)", header("connection").unwrap_or_default()));
    }
    if !header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
        return Err(format!("Upgrade: {}", header("upgrade").unwrap_or_default()));
    }
    if header("sec-websocket-accept") != Some(&derive_accept_key(key.as_bytes())) {
        return Err("wrong Sec-WebSocket-Accept".to_owned());
    }
    Ok(())
}

pub(super) fn frame_header(opcode: u8, length: usize, key: [u8; 4]) -> Vec<u8> {
    let mut header = Vec::with_capacity(14);
    header.push(0x80 | opcode);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => header.push(0x80 | short),
        (_, Ok(medium)) => {
            header.push(0x80 | 0x7E);
            header.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            header.push(0x80 | 0x7F);
            header.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    header.extend_from_slice(&key);
    header
}

/// Reads frames until the connection ends; the last event says so.
async fn read(mut stream: OwnedReadHalf, mut buffer: Vec<u8>, events: mpsc::Sender<Event>) {
    loop {
        loop {
            match parse(&mut buffer) {
                Parsed::Incomplete => break,
                Parsed::Ignored => {}
                Parsed::Event(event) => {
                    let last = matches!(event, Event::TooLong | Event::Gone);
                    if events.send(event).await.is_err() || last {
                        return;
                    }
                }
            }
        }
        if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
            // The receiver may be gone as well: then nobody needs to know.
            drop(events.send(Event::Gone).await);
            return;
        }
    }
}

enum Parsed {
    Incomplete,
    /// A fragment, a binary frame, a pong: the library passes them on as other events, which the firmware ignores.
    Ignored,
    Event(Event),
}

/// Takes one frame off the front of `buffer`.
fn parse(buffer: &mut Vec<u8>) -> Parsed {
    let [first, second, rest @ ..] = &buffer[..] else { return Parsed::Incomplete };
    let (is_final, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0F);
    let masked = second & 0x80 != 0;
    let (length, rest, mut used) = match second & 0x7F {
        126 => match rest.split_first_chunk::<2>() {
            Some((length, rest)) => (usize::from(u16::from_be_bytes(*length)), rest, 4),
            None => return Parsed::Incomplete,
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((length, rest)) => (usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX), rest, 10),
            None => return Parsed::Incomplete,
        },
        short => (usize::from(short), rest, 2),
    };
    if length > PAYLOAD_LIMIT_BYTES {
        return Parsed::Event(Event::TooLong);
    }
    if reserved != 0 {
        return Parsed::Event(Event::Gone);
    }
    let (key, rest) = match rest.split_first_chunk::<4>() {
        Some((key, rest)) if masked => {
            used += 4;
            (*key, rest)
        }
        None if masked => return Parsed::Incomplete,
        _ => ([0; 4], rest),
    };
    let Some(payload) = rest.get(..length) else { return Parsed::Incomplete };
    let payload: Vec<u8> = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    buffer.drain(..used + length);
    match opcode {
        0x1 if is_final => match String::from_utf8(payload) {
            Ok(text) => Parsed::Event(Event::Text(text)),
            Err(_) => Parsed::Event(Event::Gone),
        },
        0x8 => Parsed::Event(Event::Close),
        0x9 => Parsed::Event(Event::Ping(payload)),
        _ => Parsed::Ignored,
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place) & 0x3F) as usize;
            text.push(if place <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(bytes: &[u8]) -> Vec<Event> {
        let mut buffer = bytes.to_vec();
        let mut events = Vec::new();
        loop {
            match parse(&mut buffer) {
                Parsed::Incomplete => return events,
                Parsed::Ignored => {}
                Parsed::Event(event) => {
                    let last = matches!(event, Event::TooLong | Event::Gone);
                    events.push(event);
                    if last {
                        return events;
                    }
                }
            }
        }
    }

    #[test]
    fn frames_are_taken_apart_and_fragments_ignored() {
        let stream = [
            &[0x81, 2, b'h', b'i'][..],
            &[0x01, 1, b'a', 0x80, 1, b'b'],               // a text in two fragments
            &[0x82, 1, 0xFF],                              // binary
            &[0x8A, 0],                                    // pong
            &[0x89, 1, b'p'],                              // ping
            &[0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2], // masked, which a server should not
            &[0x88, 2, 3, 0xE8],
        ]
        .concat();
        let expected = [Event::Text("hi".into()), Event::Ping(b"p".to_vec()), Event::Text("hi".into()), Event::Close];
        assert_eq!(events(&stream), expected);
        for cut in 0..4 {
            assert_eq!(events(&stream[..cut]), []);
        }
        let long = [&[0x81, 126, 0x3C, 0x00][..], &vec![b'x'; 15 * 1024]].concat();
        assert_eq!(events(&long), [Event::Text("x".repeat(15 * 1024))]);
        assert_eq!(events(&[0x81, 126, 0x3C, 0x01]), [Event::TooLong]);
        assert_eq!(events(&[0x81, 127, 0xFF, 0, 0, 0, 0, 0, 0, 0]), [Event::TooLong]);
        assert_eq!(events(&[0xC1, 0]), [Event::Gone]);
    }

    #[test]
    fn headers_have_the_three_lengths() {
        assert_eq!(frame_header(TEXT, 125, [1, 2, 3, 4]), [0x81, 0xFD, 1, 2, 3, 4]);
        assert_eq!(frame_header(TEXT, 126, [0; 4]), [0x81, 0xFE, 0, 126, 0, 0, 0, 0]);
        assert_eq!(frame_header(TEXT, 65536, [0; 4])[..10], [0x81, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn the_answer_must_be_bare() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        let answer = |connection: &str, accept: &str| {
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: {connection}\r\nSec-WebSocket-Accept: {accept}"
            )
        };
        assert_eq!(check_answer(&answer("Upgrade", accept), key), Ok(()));
        assert_eq!(check_answer(&answer("upgrade", accept), key), Ok(()));
        assert!(check_answer(&answer("keep-alive, Upgrade", accept), key).is_err());
        assert!(check_answer(&answer("Upgrade", "x"), key).is_err());
        assert!(check_answer("HTTP/1.1 301 Moved\r\nLocation: /", key).is_err());
        assert_eq!(base64(b"the sample nonce"), key);
        assert_eq!(base64(b"ab"), "YWI=");
    }
}
