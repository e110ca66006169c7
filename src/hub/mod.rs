//! Who is connected, and how a message reaches a device, a user or the admins.
//!
//! In: domain messages ([`DeviceMessage`], [`UserMessage`], [`AdminMessage`]). Out: the same, on the bounded queue of
//! each connection; the gateway's socket task turns them into wire text. This room knows no wire format and no socket.
//!
//! Invariants: one connection a device code, the newest wins, and the late end of an older one never unregisters the
//! newer; a full queue never blocks a sender.

use std::sync::Arc;
use std::time::Duration;

use schemas::{DeviceCode, NotificationId, SessionId, UserId};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// A command to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceMessage {
    /// Stream under this session.
    Start { command_id: String, session_id: SessionId },
    /// Stop streaming and send `upload_complete`.
    Stop { command_id: String, session_id: SessionId },
    /// Say what you are doing.
    GetStatus { command_id: String },
    /// A text that the device only prints.
    Test { message: String },
}

/// A message to a player.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum UserMessage {
    /// An analysis is finished. `payload` is the notice as the outbox keeps it.
    AnalysisComplete { notification_id: NotificationId, session_id: SessionId, payload: Arc<str> },
}

/// How serious an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Info,
    Warning,
    Error,
}

/// A message to the admins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminMessage {
    /// Readable text.
    pub event: String,
    pub level: Level,
    /// Stable code: `device_connected`, `device_disconnected`, `device_contested`, `session_status`, …
    pub code: String,
    pub device_code: Option<DeviceCode>,
    pub session_id: Option<SessionId>,
    /// Legacy session state, with code `session_status`.
    pub status: Option<String>,
    pub at_us: i64,
}

/// What the hub puts on a connection's queue.
#[derive(Debug)]
pub enum Outbound<M> {
    /// Send this. `delivered` resolves once the peer has proved that it received it (a pong to a ping sent after it);
    /// it is dropped unresolved if the connection ends first.
    Message { message: M, delivered: Option<oneshot::Sender<()>> },
    /// Close the connection with this code and reason.
    Close { code: u16, reason: &'static str },
}

/// The queue of one connection; the socket task holds the receiver.
pub type Queue<M> = mpsc::Sender<Outbound<M>>;

/// Messages that wait for one connection at most; further ones are refused ([`Sent::QueueFull`]) and counted.
pub const QUEUE_LIMIT: usize = 32;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Queued,
    NotConnected,
    QueueFull,
}

/// What is known of a connected device: three separate facts, each with its age, no single "online" flag.
#[derive(Clone, Debug, Serialize)]
pub struct DevicePresence {
    pub device_code: DeviceCode,
    pub connected_since_us: i64,
    pub last_frame_us: Option<i64>,
    pub last_pong_us: Option<i64>,
    pub round_trip_us: Option<i64>,
    /// Connections of this code since the server started.
    pub connects: u64,
}

/// Keeps a connection registered; dropping it unregisters just this connection.
#[derive(Debug)]
pub struct Registration {}

impl Registration {
    /// Notes that a frame arrived.
    pub fn note_frame(&self) {
        unimplemented!()
    }
    /// Notes a pong and its round trip.
    pub fn note_pong(&self, _round_trip: Duration) {
        unimplemented!()
    }
}

/// The hub. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {}

impl Handle {
    /// Registers a device connection; an older one of the same code is told to close (4001, "replaced").
    pub fn register_device(&self, _code: &DeviceCode, _queue: Queue<DeviceMessage>) -> Registration {
        unimplemented!()
    }
    /// Registers a user connection. A user may have many.
    pub fn register_user(&self, _user: UserId, _queue: Queue<UserMessage>) -> Registration {
        unimplemented!()
    }
    /// Registers an admin connection.
    pub fn register_admin(&self, _queue: Queue<AdminMessage>) -> Registration {
        unimplemented!()
    }
    /// Queues a message for a device.
    pub fn send_to_device(&self, _code: &DeviceCode, _message: DeviceMessage) -> Sent {
        unimplemented!()
    }
    /// Queues a message for every connection of a user; returns a receipt for each that took it.
    pub fn send_to_user(&self, _user: UserId, _message: &UserMessage) -> Vec<oneshot::Receiver<()>> {
        unimplemented!()
    }
    /// Queues a message for all admins; a slow admin misses it, counted.
    pub fn send_to_admins(&self, _message: AdminMessage) {
        unimplemented!()
    }
    /// Queues a message for every connected device; returns how many took it.
    pub fn broadcast_to_devices(&self, _message: &DeviceMessage) -> usize {
        unimplemented!()
    }
    /// The connected devices, by code.
    pub fn devices(&self) -> Vec<DevicePresence> {
        unimplemented!()
    }
}
