//! Limits of the gateway, and what happens at each.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How callers are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// A device with only a code, or a request with only an openid, has the rights of exactly that device or user.
    Legacy,
    /// Rights come from tokens only.
    Token,
}

/// Limits and times. What happens at each is said with it.
#[derive(Clone, Debug)]
pub struct Options {
    pub auth: Auth,
    /// Wrong tokens, passwords and pairing codes a minute of one address, and as many at once; beyond, it is answered 429
    /// until they are due.
    pub failures_per_address_per_min: u32,
    /// HTTP requests a second of one address, and four times as many at once; beyond, 429. A hall of devices shares one.
    pub requests_per_address_per_s: u32,
    /// HTTP requests a second of one caller who has a token, from wherever, and four times as many at once; beyond, 429.
    pub requests_per_caller_per_s: u32,
    /// TCP connections in all; a further one is answered 503 and closed.
    pub connections_limit: usize,
    /// TCP connections of one address; a further one is answered 503 and closed. A hall full of devices shares one.
    pub connections_per_address_limit: usize,
    /// The head of an HTTP request must be complete after this, and an idle connection is closed.
    pub header_timeout: Duration,
    /// The body of an HTTP request must be complete after this, or the answer is 408.
    pub body_timeout: Duration,
    /// Body of an HTTP request; a longer one is answered 413.
    pub body_limit_bytes: usize,
    /// A request with a file, such as a `.mat` recording; a longer one is answered 413.
    pub file_limit_bytes: usize,
    /// It must be complete after this, or the answer is 408.
    pub file_timeout: Duration,
    /// An archive that is brought; a longer one is answered 413. It goes to the disk as it comes.
    pub archive_limit_bytes: u64,
    /// Message on a device socket; a longer one closes the socket with 1009. Firmware packets have up to 8191 bytes.
    pub device_message_limit_bytes: usize,
    /// Message on the other sockets; a longer one closes the socket with 1009.
    pub client_message_limit_bytes: usize,
    /// A WebSocket ping is sent this often.
    pub ping_interval: Duration,
    /// A peer that sent nothing, no pong either, for so long after a ping is dropped. Keep it above 20 s: after its
    /// start the firmware is deaf for up to 10 s.
    pub pong_timeout: Duration,
    /// A peer that takes nothing for so long while we write is dropped.
    pub write_timeout: Duration,
    /// Packets of a device that wait for the disk; at the limit its socket is not read, which holds the device back.
    pub in_flight_packets: usize,
    /// The same in bytes.
    pub in_flight_bytes: usize,
    /// Messages a second of a device, and twice as many at once; beyond, its socket is not read until they are due.
    pub device_messages_per_s: u32,
    /// Frames a second of a device, and twice as many at once; beyond, as above. A real device sends 400.
    pub device_frames_per_s: u32,
    /// Messages a second on the other sockets; beyond, as above.
    pub client_messages_per_s: u32,
    /// Messages in a row that are no messages (a binary frame counts as five); one is forgiven each second. At the
    /// limit the socket is closed with 1008.
    pub malformed_limit: u32,
    /// Sockets have so long to close when the service stops.
    pub shutdown_grace: Duration,
    /// Origins whose pages may open the admin socket, besides the service's own.
    pub allowed_origins: Vec<String>,
    /// So much of the disk stays free of files that are brought.
    pub min_free_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            auth: Auth::Legacy,
            failures_per_address_per_min: 20,
            requests_per_address_per_s: 5000,
            requests_per_caller_per_s: 2000,
            connections_limit: 16_384,
            connections_per_address_limit: 8192,
            header_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(15),
            body_limit_bytes: 1 << 20,
            file_limit_bytes: 64 << 20,
            file_timeout: Duration::from_secs(300),
            archive_limit_bytes: 64 << 30,
            device_message_limit_bytes: 64 << 10,
            client_message_limit_bytes: 16 << 10,
            ping_interval: Duration::from_secs(20),
            pong_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(15),
            in_flight_packets: 64,
            in_flight_bytes: 256 << 10,
            device_messages_per_s: 5000,
            device_frames_per_s: 150_000,
            client_messages_per_s: 50,
            malformed_limit: 60,
            shutdown_grace: Duration::from_secs(5),
            allowed_origins: Vec::new(),
            min_free_bytes: 0,
        }
    }
}
