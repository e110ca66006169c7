use std::io;
use std::time::Duration;

/// Why a simulated device or user cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not `http://host:port`, `ws://host:port` or `host:port`.
    #[error("read server address {url:?}: http://host:port is expected (the firmware speaks neither TLS nor paths)")]
    Url { url: String },
    /// A part of `--faults` that is none.
    #[error("read fault {text:?}: {expected}")]
    Fault { text: String, expected: &'static str },
    /// Nothing to stream.
    #[error("find any frame to stream")]
    EmptySource,
    /// The server cannot be reached or breaks off.
    #[error("talk to {address}")]
    Connect {
        address: String,
        #[source]
        source: io::Error,
    },
    /// The answer to an HTTP request is none.
    #[error("understand the answer of {address} to {path}")]
    Answer { address: String, path: String },
    /// The server refused an HTTP request.
    #[error("{path} on {address}: status {status}, {reason}")]
    Refused { address: String, path: String, status: u16, reason: String },
    /// The user's socket failed.
    #[error("listen as user {user}")]
    UserSocket {
        user: String,
        #[source]
        source: Box<tokio_tungstenite::tungstenite::Error>,
    },
    /// The user's socket was closed by the server.
    #[error("listen as user {user}: the server closed the socket")]
    UserSocketClosed { user: String },
    /// Something that had to happen did not.
    #[error("see {what} of device {device_code} within {limit:?}{hint}")]
    Timeout { what: &'static str, device_code: String, limit: Duration, hint: String },
    /// The device was stopped.
    #[error("go on with device {device_code}: it was stopped")]
    Stopped { device_code: String },
}
