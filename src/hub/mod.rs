//! Who is connected, and how a message reaches a device, a user or the admins.
//!
//! In: domain messages ([`DeviceMessage`], [`UserMessage`], [`AdminMessage`]). Out: the same, on the bounded queue of
//! each connection; the gateway's socket task turns them into wire text. This room knows no wire format and no socket.
//!
//! Invariants: one connection a device code, the newest wins, and the late end of an older one never unregisters the
//! newer; a full queue never blocks a sender.

mod live;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::{DeviceCode, NotificationId, SessionId, UserId};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

pub use live::{LiveEvent, LiveMessage, LiveSwing, Revision};

use crate::clock::Clock;

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
#[derive(Clone, Debug, PartialEq)]
pub enum UserMessage {
    /// Something about a session of theirs that records.
    Live(Arc<LiveMessage>),
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

/// Whatever goes to the admins.
#[derive(Clone, Debug, PartialEq)]
pub enum ToAdmin {
    Event(AdminMessage),
    /// Something about a session that records.
    Live(Arc<LiveMessage>),
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
///
/// Boxed: a queue keeps room for 32 entries from its first to its last day, mostly empty.
pub type Queue<M> = mpsc::Sender<Box<Outbound<M>>>;

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
    /// Messages of this connection.
    pub messages: u64,
    /// Their length.
    pub message_bytes: u64,
    /// Connections of this code since the server started.
    pub connects: u64,
    /// How often a newer one took an older one's place.
    pub takeovers: u64,
}

/// Keeps a connection registered; dropping it unregisters just this connection.
#[derive(Debug)]
pub struct Registration {
    hub: Handle,
    place: Place,
    presence: Arc<Presence>,
}

/// Where a connection is registered.
#[derive(Debug)]
enum Place {
    Device(DeviceCode),
    User(UserId),
    Admin,
}

/// The changing facts of a connection. 0 means never.
#[derive(Debug)]
struct Presence {
    connection: u64,
    connected_since_us: i64,
    last_frame_us: AtomicI64,
    last_pong_us: AtomicI64,
    round_trip_us: AtomicI64,
    messages: AtomicU64,
    message_bytes: AtomicU64,
}

impl Registration {
    /// Notes that a message of so many bytes arrived.
    pub fn note_message(&self, bytes: usize) {
        let presence = &self.presence;
        presence.last_frame_us.store(self.hub.0.clock.now_us(), Ordering::Relaxed);
        presence.messages.fetch_add(1, Ordering::Relaxed);
        presence.message_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes a pong and its round trip.
    pub fn note_pong(&self, round_trip: Duration) {
        self.presence.last_pong_us.store(self.hub.0.clock.now_us(), Ordering::Relaxed);
        let round_trip_us = i64::try_from(round_trip.as_micros()).unwrap_or(i64::MAX);
        self.presence.round_trip_us.store(round_trip_us, Ordering::Relaxed);
    }

    /// True while no newer connection has taken this one's place.
    #[must_use]
    pub fn is_current(&self) -> bool {
        match &self.place {
            Place::Device(code) => self
                .hub
                .lock()
                .devices
                .get(code)
                .and_then(|device| device.entry.as_ref())
                .is_some_and(|entry| entry.presence.connection == self.presence.connection),
            Place::User(_) | Place::Admin => true,
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        let connection = self.presence.connection;
        match &self.place {
            Place::Device(code) => {
                if let Some(device) = state.devices.get_mut(code) {
                    device.entry.take_if(|entry| entry.presence.connection == connection);
                }
            }
            Place::User(user) => {
                if let Some(entries) = state.users.get_mut(user) {
                    entries.retain(|entry| entry.presence.connection != connection);
                    if entries.is_empty() {
                        state.users.remove(user);
                    }
                }
            }
            Place::Admin => state.admins.retain(|entry| entry.presence.connection != connection),
        }
    }
}

/// The hub. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    next_connection: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    devices: HashMap<DeviceCode, Device>,
    users: HashMap<UserId, Vec<Entry<UserMessage>>>,
    admins: Vec<Entry<ToAdmin>>,
}

/// What is kept of a device code, also while it is away: how often it came.
#[derive(Debug, Default)]
struct Device {
    entry: Option<Entry<DeviceMessage>>,
    connects: u64,
    /// When the latest takeovers happened, to notice two boards that fight over one code.
    /// Of all time, since the server started.
    takeovers: u64,
    takeovers_us: VecDeque<i64>,
}

#[derive(Debug)]
struct Entry<M> {
    queue: Queue<M>,
    presence: Arc<Presence>,
}

impl<M> Entry<M> {
    /// Queues a message without waiting.
    fn offer(&self, outbound: Outbound<M>) -> Sent {
        match self.queue.try_send(Box::new(outbound)) {
            Ok(()) => Sent::Queued,
            Err(mpsc::error::TrySendError::Closed(_)) => Sent::NotConnected,
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::counter!("volant_hub_refused_messages_total").increment(1);
                Sent::QueueFull
            }
        }
    }
}

/// So many takeovers of one device code within a minute mean that two boards fight over it.
const CONTESTED_TAKEOVERS: usize = 3;
const CONTESTED_WINDOW_US: i64 = 60_000_000;

/// The close code an older connection of a device gets when a newer one takes its place.
pub const CLOSE_REPLACED: u16 = 4001;
/// The close code that the connections of a player get who is erased.
pub const CLOSE_ERASED: u16 = 4004;

impl Handle {
    /// An empty hub.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner { clock, next_connection: AtomicU64::new(1), state: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held cannot leave the maps half-changed: every change is one call on them.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn presence(&self) -> Arc<Presence> {
        Arc::new(Presence {
            connection: self.0.next_connection.fetch_add(1, Ordering::Relaxed),
            connected_since_us: self.0.clock.now_us(),
            last_frame_us: AtomicI64::new(0),
            last_pong_us: AtomicI64::new(0),
            round_trip_us: AtomicI64::new(0),
            messages: AtomicU64::new(0),
            message_bytes: AtomicU64::new(0),
        })
    }

    /// Registers a device connection; an older one of the same code is told to close ([`CLOSE_REPLACED`]).
    ///
    /// Tells the admins, also when two boards fight over the code.
    pub fn register_device(&self, code: &DeviceCode, queue: Queue<DeviceMessage>) -> Registration {
        let presence = self.presence();
        let now_us = presence.connected_since_us;
        let contested = {
            let mut state = self.lock();
            let device = state.devices.entry(code.clone()).or_default();
            device.connects += 1;
            let older = device.entry.replace(Entry { queue, presence: Arc::clone(&presence) });
            if let Some(older) = older {
                // If its queue is full, the socket task notices by `Registration::is_current` at the next ping.
                older.offer(Outbound::Close { code: CLOSE_REPLACED, reason: "replaced by a newer connection" });
                metrics::counter!("volant_hub_device_takeovers_total").increment(1);
                device.takeovers += 1;
                device.takeovers_us.push_back(now_us);
            }
            while device.takeovers_us.front().is_some_and(|&at_us| at_us < now_us - CONTESTED_WINDOW_US) {
                device.takeovers_us.pop_front();
            }
            device.takeovers_us.truncate(CONTESTED_TAKEOVERS + 1);
            device.takeovers_us.len() == CONTESTED_TAKEOVERS
        };
        if contested {
            self.send_to_admins(&AdminMessage {
                event: format!("device {code}: two boards seem to use this code and take it from each other"),
                level: Level::Warning,
                code: "device_contested".to_owned(),
                device_code: Some(code.clone()),
                session_id: None,
                status: None,
                at_us: now_us,
            });
        }
        Registration { hub: self.clone(), place: Place::Device(code.clone()), presence }
    }

    /// Registers a user connection. A user may have many.
    pub fn register_user(&self, user: UserId, queue: Queue<UserMessage>) -> Registration {
        let presence = self.presence();
        let entry = Entry { queue, presence: Arc::clone(&presence) };
        self.lock().users.entry(user).or_default().push(entry);
        Registration { hub: self.clone(), place: Place::User(user), presence }
    }

    /// Registers an admin connection.
    pub fn register_admin(&self, queue: Queue<ToAdmin>) -> Registration {
        let presence = self.presence();
        self.lock().admins.push(Entry { queue, presence: Arc::clone(&presence) });
        Registration { hub: self.clone(), place: Place::Admin, presence }
    }

    /// Queues a message for a device.
    pub fn send_to_device(&self, code: &DeviceCode, message: DeviceMessage) -> Sent {
        let state = self.lock();
        match state.devices.get(code).and_then(|device| device.entry.as_ref()) {
            Some(entry) => entry.offer(Outbound::Message { message, delivered: None }),
            None => Sent::NotConnected,
        }
    }

    /// Queues a message for every connection of a user; returns a receipt for each that took it.
    pub fn send_to_user(&self, user: UserId, message: &UserMessage) -> Vec<oneshot::Receiver<()>> {
        let state = self.lock();
        let mut receipts = Vec::new();
        for entry in state.users.get(&user).into_iter().flatten() {
            let (delivered, receipt) = oneshot::channel();
            let outbound = Outbound::Message { message: message.clone(), delivered: Some(delivered) };
            if entry.offer(outbound) == Sent::Queued {
                receipts.push(receipt);
            }
        }
        receipts
    }

    /// Queues a message for all admins; a slow admin misses it, counted.
    pub fn send_to_admins(&self, message: &AdminMessage) {
        for entry in &self.lock().admins {
            entry.offer(Outbound::Message { message: ToAdmin::Event(message.clone()), delivered: None });
        }
    }

    /// Queues a message about a session that records for its player and for the admins; a slow one misses it, counted. The
    /// result is what counts, and it comes by a notice that waits.
    pub fn send_live(&self, user: Option<UserId>, message: LiveMessage) {
        let message = Arc::new(message);
        let state = self.lock();
        for entry in user.and_then(|user| state.users.get(&user)).into_iter().flatten() {
            entry.offer(Outbound::Message { message: UserMessage::Live(Arc::clone(&message)), delivered: None });
        }
        for entry in &state.admins {
            entry.offer(Outbound::Message { message: ToAdmin::Live(Arc::clone(&message)), delivered: None });
        }
    }

    /// Queues a message for every connected device; returns how many took it.
    pub fn broadcast_to_devices(&self, message: &DeviceMessage) -> usize {
        self.lock()
            .devices
            .values()
            .filter_map(|device| device.entry.as_ref())
            .filter(|entry| {
                entry.offer(Outbound::Message { message: message.clone(), delivered: None }) == Sent::Queued
            })
            .count()
    }

    /// True while a connection of this device is registered.
    #[must_use]
    pub fn is_connected(&self, code: &DeviceCode) -> bool {
        self.lock().devices.get(code).is_some_and(|device| device.entry.is_some())
    }

    /// The connected devices, by code.
    pub fn devices(&self) -> Vec<DevicePresence> {
        let happened = |at_us: &AtomicI64| Some(at_us.load(Ordering::Relaxed)).filter(|&at_us| at_us != 0);
        let mut devices: Vec<DevicePresence> = self
            .lock()
            .devices
            .iter()
            .filter_map(|(code, device)| {
                let presence = &device.entry.as_ref()?.presence;
                Some(DevicePresence {
                    device_code: code.clone(),
                    connected_since_us: presence.connected_since_us,
                    last_frame_us: happened(&presence.last_frame_us),
                    last_pong_us: happened(&presence.last_pong_us),
                    round_trip_us: happened(&presence.round_trip_us),
                    messages: presence.messages.load(Ordering::Relaxed),
                    message_bytes: presence.message_bytes.load(Ordering::Relaxed),
                    connects: device.connects,
                    takeovers: device.takeovers,
                })
            })
            .collect();
        devices.sort_by(|a, b| a.device_code.cmp(&b.device_code));
        devices
    }

    /// The users with at least one connection.
    pub fn users(&self) -> Vec<UserId> {
        let mut users: Vec<UserId> = self.lock().users.keys().copied().collect();
        users.sort_unstable();
        users
    }

    /// Tells every connection of a user to close ([`CLOSE_ERASED`]): there is no such user any more.
    pub fn close_user(&self, user: UserId) {
        for entry in self.lock().users.get(&user).into_iter().flatten() {
            entry.offer(Outbound::Close { code: CLOSE_ERASED, reason: "the account was erased" });
        }
    }

    /// Tells every connection to close, at shutdown (1012: the service restarts, come back).
    pub fn close_all(&self) {
        const RESTART: (u16, &str) = (1012, "service restart");
        let state = self.lock();
        for entry in state.devices.values().filter_map(|device| device.entry.as_ref()) {
            entry.offer(Outbound::Close { code: RESTART.0, reason: RESTART.1 });
        }
        for entry in state.users.values().flatten() {
            entry.offer(Outbound::Close { code: RESTART.0, reason: RESTART.1 });
        }
        for entry in &state.admins {
            entry.offer(Outbound::Close { code: RESTART.0, reason: RESTART.1 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> DeviceCode {
        "2025001".parse().unwrap()
    }

    #[test]
    fn the_newest_connection_wins_and_the_older_ones_end_changes_nothing() {
        let hub = Handle::new(Clock::manual(1));
        let (older_queue, mut older_inbox) = mpsc::channel(QUEUE_LIMIT);
        let (newer_queue, mut newer_inbox) = mpsc::channel(QUEUE_LIMIT);
        let older = hub.register_device(&code(), older_queue);
        let newer = hub.register_device(&code(), newer_queue);
        assert!(matches!(older_inbox.try_recv().as_deref(), Ok(Outbound::Close { code: CLOSE_REPLACED, .. })));
        assert!(!older.is_current() && newer.is_current());
        drop(older);
        assert_eq!(hub.send_to_device(&code(), DeviceMessage::Test { message: "x".to_owned() }), Sent::Queued);
        assert!(matches!(newer_inbox.try_recv().as_deref(), Ok(Outbound::Message { .. })));
        drop(newer);
        assert_eq!(hub.send_to_device(&code(), DeviceMessage::Test { message: "x".to_owned() }), Sent::NotConnected);
    }

    #[test]
    fn two_boards_that_fight_over_a_code_are_told_to_the_admins_once() {
        let hub = Handle::new(Clock::manual(1));
        let (admin_queue, mut admin_inbox) = mpsc::channel(QUEUE_LIMIT);
        let _admin = hub.register_admin(admin_queue);
        let mut connections = Vec::new();
        for _ in 0..6 {
            let (queue, inbox) = mpsc::channel(QUEUE_LIMIT);
            connections.push((hub.register_device(&code(), queue), inbox));
        }
        let mut contested = 0;
        while let Ok(Outbound::Message { message, .. }) = admin_inbox.try_recv().as_deref() {
            contested += usize::from(matches!(message, ToAdmin::Event(event) if event.code == "device_contested"));
        }
        assert_eq!(contested, 1);
    }

    #[test]
    fn a_full_queue_refuses_and_never_blocks() {
        let hub = Handle::new(Clock::manual(1));
        let (queue, _inbox) = mpsc::channel(1);
        let _device = hub.register_device(&code(), queue);
        let test = || DeviceMessage::Test { message: String::new() };
        assert_eq!(hub.send_to_device(&code(), test()), Sent::Queued);
        assert_eq!(hub.send_to_device(&code(), test()), Sent::QueueFull);
    }

    #[tokio::test]
    async fn every_connection_of_a_user_gets_a_receipt_of_its_own() {
        let hub = Handle::new(Clock::manual(1));
        let (first, mut first_inbox) = mpsc::channel(QUEUE_LIMIT);
        let (second, second_inbox) = mpsc::channel(QUEUE_LIMIT);
        let _first = hub.register_user(UserId(1), first);
        let _second = hub.register_user(UserId(1), second);
        let message = UserMessage::AnalysisComplete {
            notification_id: NotificationId("n".into()),
            session_id: SessionId(1),
            payload: "{}".into(),
        };
        let mut receipts = hub.send_to_user(UserId(1), &message);
        assert_eq!(receipts.len(), 2);
        let Some(outbound) = first_inbox.recv().await else { panic!() };
        let Outbound::Message { delivered: Some(delivered), .. } = *outbound else { panic!() };
        delivered.send(()).unwrap();
        drop(second_inbox);
        assert!(receipts.remove(0).await.is_ok());
        assert!(receipts.remove(0).await.is_err());
        assert!(hub.send_to_user(UserId(2), &message).is_empty());
        hub.close_user(UserId(2));
        assert!(first_inbox.try_recv().is_err());
        hub.close_user(UserId(1));
        assert!(matches!(first_inbox.try_recv().as_deref(), Ok(Outbound::Close { code: CLOSE_ERASED, .. })));
    }
}
