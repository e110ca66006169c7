//! Commands to devices that hold no socket: to a device's own HTTP server, and by UDP to all that listen.
//!
//! In: a command for a device code. Out: `POST /start_collection` or `/stop_collection` at the address that the device
//! registered, and one datagram to the broadcast address. Both are off unless the operator turns them on. A command is
//! sent once by each way; a socket or a poll is what confirms it, so a failure here is counted and no more. Commands to one
//! device are called in order: a stop never overtakes the start before it.
//!
//! Invariants: only private addresses are called (RFC 1918, IPv6 unique local), so that nobody reaches others through us,
//! and never a link-local one, where clouds keep their secrets; no redirect is followed; at most [`CALLS_LIMIT`] calls
//! are under way, each for [`CALL_TIMEOUT`]; a datagram is under 255 bytes and has `command` and `device_code` as texts,
//! because the listener sketch falls over anything else.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::Offset;
use reqwest::redirect::Policy;
use schemas::DeviceCode;
use serde_json::json;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::clock::Clock;
use crate::hub::DeviceMessage;
use crate::store::catalog::Catalog;

/// Where commands go besides sockets.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Call the HTTP servers of devices that registered an address.
    pub http: bool,
    /// Their port; the sketches listen on 80.
    pub http_port: u16,
    /// Also call a device on this machine, a simulated one for instance.
    pub allow_loopback: bool,
    /// Send a datagram here: `255.255.255.255:8888` or a directed broadcast address.
    pub udp: Option<SocketAddr>,
}

/// Calls under way at most; further commands are not sent this way, and counted.
pub const CALLS_LIMIT: usize = 32;
/// How long a call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The listener sketch reads so many bytes less one.
const DATAGRAM_LIMIT_BYTES: usize = 255;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("make a socket for datagrams")]
    Socket(#[source] std::io::Error),
    #[error("make a client for calls to devices")]
    Client(#[source] reqwest::Error),
}

/// The push room. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Options,
    catalog: Catalog,
    clock: Clock,
    client: Option<reqwest::Client>,
    socket: Option<UdpSocket>,
    calls: Arc<Semaphore>,
    /// Devices that a call is under way to.
    lines: Mutex<HashMap<DeviceCode, Arc<Line>>>,
}

/// The calls to one device: one at a time, and none that a newer command has made wrong.
#[derive(Debug, Default)]
struct Line {
    newest: AtomicU64,
    turn: tokio::sync::Mutex<()>,
}

impl Handle {
    /// The room; opens what the options turn on.
    ///
    /// # Errors
    /// The system gives no socket.
    pub fn new(options: Options, catalog: Catalog, clock: Clock) -> Result<Self, Error> {
        let client = options
            .http
            .then(|| reqwest::Client::builder().timeout(CALL_TIMEOUT).redirect(Policy::none()).no_proxy().build());
        let socket = options.udp.map(|to| {
            let from: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
            let socket = UdpSocket::bind(from)?;
            socket.set_broadcast(true)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        Ok(Self(Arc::new(Inner {
            client: client.transpose().map_err(Error::Client)?,
            socket: socket.transpose().map_err(Error::Socket)?,
            calls: Arc::new(Semaphore::new(CALLS_LIMIT)),
            lines: Mutex::default(),
            options,
            catalog,
            clock,
        })))
    }

    /// True if a device may be called at this address.
    #[must_use]
    pub fn may_call(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => v4.is_private() || (v4.is_loopback() && self.0.options.allow_loopback),
            IpAddr::V6(v6) => v6.is_unique_local() || (v6.is_loopback() && self.0.options.allow_loopback),
        }
    }

    /// Sends a command by every way that is turned on; returns at once.
    pub fn send(&self, code: &DeviceCode, message: &DeviceMessage) {
        self.broadcast(code, message);
        let (path, session) = match message {
            DeviceMessage::Start { session_id, .. } => ("start_collection", Some(*session_id)),
            DeviceMessage::Stop { .. } => ("stop_collection", None),
            DeviceMessage::GetStatus { .. } | DeviceMessage::Test { .. } => return,
        };
        let Some(client) = self.0.client.clone() else { return };
        let Ok(permit) = Arc::clone(&self.0.calls).try_acquire_owned() else {
            count("http", "busy");
            return;
        };
        let (handle, code) = (self.clone(), code.clone());
        let line = self.line(&code);
        let number = line.newest.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::spawn(async move {
            let _permit = permit;
            let _turn = line.turn.lock().await;
            if line.newest.load(Ordering::Relaxed) != number {
                return count("http", "superseded");
            }
            let address = match handle.0.catalog.address_of(&code).await {
                Ok(Some(address)) if handle.may_call(address) => address,
                Ok(_) => return,
                Err(_) => return count("http", "catalog"),
            };
            let url = format!("http://{}/{path}", SocketAddr::from((address, handle.0.options.http_port)));
            // As the legacy service wrote it.
            let body = match session {
                Some(session) => format!("session_id={session}&device_code={code}"),
                None => format!("device_code={code}&command=STOP_COLLECTION"),
            };
            let call = client.post(url).header("content-type", "application/x-www-form-urlencoded").body(body).send();
            match call.await {
                Ok(answer) if answer.status().is_success() => count("http", "sent"),
                Ok(_) => count("http", "refused"),
                Err(error) => {
                    debug!(error = &error as &dyn std::error::Error, "device {code} could not be called");
                    count("http", "unreachable");
                }
            }
        });
    }

    /// The line to a device; lines that nobody uses are forgotten.
    fn line(&self, code: &DeviceCode) -> Arc<Line> {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|_, line| Arc::strong_count(line) > 1);
        Arc::clone(lines.entry(code.clone()).or_default())
    }

    /// One datagram, if datagrams are on.
    fn broadcast(&self, code: &DeviceCode, message: &DeviceMessage) {
        let (Some(socket), Some(to)) = (&self.0.socket, self.0.options.udp) else { return };
        let now = Timestamp::from_microsecond(self.0.clock.now_us()).unwrap_or(Timestamp::UNIX_EPOCH);
        // As the legacy service wrote it: UTC+8 without an offset.
        let timestamp = Offset::constant(8).to_datetime(now).to_string();
        let datagram = match message {
            DeviceMessage::Start { session_id, .. } => json!({
                "command": "START_COLLECTION", "session_id": session_id.to_string(), "device_code": code,
                "timestamp": timestamp,
            }),
            DeviceMessage::Stop { session_id, .. } => json!({
                "command": "STOP_COLLECTION", "device_code": code, "timestamp": timestamp,
                "session_id": session_id.to_string(),
            }),
            DeviceMessage::Test { message } => {
                json!({ "command": "TEST", "message": message, "device_code": code, "timestamp": timestamp })
            }
            DeviceMessage::GetStatus { .. } => return,
        }
        .to_string();
        if datagram.len() >= DATAGRAM_LIMIT_BYTES {
            return count("udp", "too_long");
        }
        match socket.send_to(datagram.as_bytes(), to) {
            Ok(_) => count("udp", "sent"),
            Err(error) => {
                debug!(error = &error as &dyn std::error::Error, "a datagram could not be sent");
                count("udp", "unreachable");
            }
        }
    }
}

fn count(way: &'static str, outcome: &'static str) {
    metrics::counter!("volant_push_commands_total", "way" => way, "outcome" => outcome).increment(1);
}
