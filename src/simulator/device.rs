//! One device: the loop of the firmware's network task over a real socket.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::clock::{Sync, stamp};
use super::firmware::{BLOCK_FRAMES, Firmware, SEND_QUEUE, StampedFrame};
use super::socket::{CLOSE, Connection, Event, Failure, PONG, TEXT};
use super::source::{Player, SourceFrame};
use super::{Address, Build, Error, Faults, Repeat, Source};
use crate::clock::Clock;

/// One round of the network task.
const ROUND_MS: f64 = 10.0;
/// From one attempt to connect to the next, and what one attempt may take.
const RECONNECT_MS: f64 = 5000.0;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// At unlimited speed nothing paces a reconnect but this factor.
const RECONNECT_FACTOR_AT_MAX: f64 = 20.0;
/// Calibration after the network's time is known, ms.
const CALIBRATION_MS: f64 = 5000.0;
/// Forgotten sockets that are kept open; the oldest is closed beyond.
const GHOSTS: usize = 8;
/// Packets without an answer from which on accelerated device time waits, and a device that cannot wait gives up the
/// connection.
const OPEN_PAUSE: usize = 1000;
const OPEN_LIMIT: usize = 10_000;
/// Packets in the log; later ones are counted only.
pub const PACKET_LOG_LIMIT: usize = 200_000;

/// How fast the device's time runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many device seconds in a real second. At exactly 1 the device behaves as the real one when the server is slow:
    /// blocks overflow and the oldest is lost. At any other speed device time waits for the socket instead, because holes
    /// would come from the acceleration and not from the server.
    Factor(f64),
    /// As fast as the socket takes the packets; device time follows the recording.
    Max,
}

/// The time after power-on when the network task serves no socket, because it fetches the time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deaf {
    /// After power-on: 3 s in builds of December 2025, 5 s before.
    pub after: Duration,
    /// Up to 10 s.
    pub length: Duration,
    /// False: the time could not be fetched. It is not tried again, and the clock stays uncalibrated.
    pub synced: bool,
}

impl Default for Deaf {
    fn default() -> Self {
        Self { after: Duration::from_secs(3), length: Duration::from_secs(10), synced: true }
    }
}

/// A device to simulate.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server.
    pub address: Address,
    /// Compiled into the firmware.
    pub device_code: String,
    /// What the sensors measure once streaming is on.
    pub source: Source,
    /// What comes after it.
    pub repeat: Repeat,
    /// How fast device time runs.
    pub speed: Speed,
    /// Of faults, mask keys, and how full the block is at the start.
    pub seed: u64,
    /// How frames are stamped.
    pub build: Build,
    /// How long the device has been on already. The default of a minute is past the deaf time; zero is a cold boot.
    pub uptime: Duration,
    /// The deaf time after power-on.
    pub deaf: Deaf,
    /// What goes wrong.
    pub faults: Faults,
    /// Keep which frames were in which answered packet: [`Handle::packets`].
    pub keep_packets: bool,
    /// Of the time stamps.
    pub clock: Clock,
}

impl Config {
    /// A device that has been on for a minute, plays the source once in real time, without faults.
    #[must_use]
    pub fn new(address: Address, device_code: &str, source: Source) -> Self {
        Self {
            address,
            device_code: device_code.to_owned(),
            source,
            repeat: Repeat::Once,
            speed: Speed::Factor(1.0),
            seed: 0,
            build: Build::TimeOfDay,
            uptime: Duration::from_mins(1),
            deaf: Deaf::default(),
            faults: Faults::default(),
            keep_packets: false,
            clock: Clock::system(),
        }
    }
}

/// What a device is doing and has done. All counts are since it was spawned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// The socket is open.
    pub connected: bool,
    /// Connections that came about.
    pub connections: u64,
    /// Why the last attempt to connect failed; empty after success.
    pub connect_failure: String,
    /// Streaming is on.
    pub streaming: bool,
    /// As the device believes; `041025` is none.
    pub session_id: String,
    /// As the device believes; empty after a bad command.
    pub device_code: String,
    /// The source was played to its end and everything left of it was sent.
    pub streamed: bool,
    /// Frames measured since streaming went on, of [`Progress::source_frames`]; still frames that fill the last block come
    /// on top.
    pub frames_measured: u64,
    /// Frames of the source.
    pub source_frames: u64,
    /// Data packets written to a socket.
    pub packets_sent: u64,
    /// Frames in them.
    pub frames_sent: u64,
    /// Bytes of their texts.
    pub bytes_sent: u64,
    /// Packets answered with success.
    pub packets_acked: u64,
    /// Frames in them.
    pub frames_acked: u64,
    /// Frames that successful answers counted as failed.
    pub items_failed: u64,
    /// Packets answered without success.
    pub packets_refused: u64,
    /// The reason in the last refusal.
    pub refusal: String,
    /// Packets sent on the present connection and not answered yet.
    pub packets_open: u64,
    /// Packets sent on a connection that ended before their answer.
    pub packets_unanswered: u64,
    /// Blocks that were full and never sent: overflow, no connection, discarded at the stop, or a planted fault.
    pub blocks_lost: u64,
    /// Messages that vanished in the 512-byte pool.
    pub messages_vanished: u64,
    /// `upload_complete` messages sent.
    pub uploads_completed: u64,
    /// The session of the last of them.
    pub upload_session_id: String,
}

/// Which frame, as the wire shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameId {
    /// 1 to 4.
    pub sensor_id: u8,
    /// The frame's `timestamp`.
    pub device_time_raw: i64,
}

/// A data packet that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketRecord {
    /// The session id in it.
    pub session_id: String,
    /// Its frames in order.
    pub frames: Vec<FrameId>,
    /// What the answer said.
    pub success: bool,
    /// Frames that the answer counted as failed.
    pub failed_items: u64,
}

/// A running device. Dropping it stops the device at its next step.
#[derive(Debug)]
pub struct Handle {
    device_code: String,
    progress: watch::Receiver<Progress>,
    stop: watch::Sender<bool>,
    packets: Arc<Mutex<Vec<PacketRecord>>>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Handle {
    /// What the device is doing, now and at every change.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// What the device is doing now.
    #[must_use]
    pub fn now(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// The answered packets so far, with [`Config::keep_packets`]; the first [`PACKET_LOG_LIMIT`] of them.
    #[must_use]
    pub fn packets(&self) -> Vec<PacketRecord> {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `done` is true of the progress.
    ///
    /// # Errors
    /// [`Error::Timeout`] after `limit`, [`Error::Stopped`].
    pub async fn wait_until(
        &self,
        what: &'static str,
        limit: Duration,
        done: impl FnMut(&Progress) -> bool,
    ) -> Result<Progress, Error> {
        let mut progress = self.progress.clone();
        match tokio::time::timeout(limit, progress.wait_for(done)).await {
            Ok(Ok(progress)) => return Ok(progress.clone()),
            Ok(Err(_)) => return Err(Error::Stopped { device_code: self.device_code.clone() }),
            Err(_) => {}
        }
        let now = self.progress.borrow();
        let hint = if now.connected {
            if now.refusal.is_empty() {
                String::new()
            } else {
                format!(" (the server refuses packets: {})", now.refusal)
            }
        } else {
            format!(" (not connected: {})", now.connect_failure)
        };
        Err(Error::Timeout { what, device_code: self.device_code.clone(), limit, hint })
    }

    /// Waits until the whole source was sent and every packet answered.
    ///
    /// # Errors
    /// As [`Handle::wait_until`].
    pub async fn wait_streamed(&self, limit: Duration) -> Result<Progress, Error> {
        self.wait_until("the end of the recording", limit, |now| now.streamed && now.packets_open == 0).await
    }

    /// Waits until one more `upload_complete` has been sent than `before`.
    ///
    /// # Errors
    /// As [`Handle::wait_until`].
    pub async fn wait_upload_complete(&self, before: u64, limit: Duration) -> Result<Progress, Error> {
        self.wait_until("upload_complete", limit, |now| now.uploads_completed > before).await
    }

    /// Switches the device off and waits until its socket is closed.
    pub async fn stop(mut self) -> Progress {
        self.stop.send_replace(true);
        if let Some(task) = self.task.take() {
            // A panic of the device shows in what it did not do.
            drop(task.await);
        }
        self.progress.borrow().clone()
    }
}

/// A simulated device.
pub struct Device;

impl Device {
    /// Switches a device on. It runs as a task of the current runtime until it is stopped or its handle dropped.
    ///
    /// # Errors
    /// [`Error::EmptySource`].
    pub fn spawn(config: Config) -> Result<Handle, Error> {
        if config.source.frames().is_empty() {
            return Err(Error::EmptySource);
        }
        let (progress, progress_receiver) = watch::channel(Progress {
            device_code: config.device_code.clone(),
            source_frames: config.source.frames().len() as u64,
            ..Progress::default()
        });
        let (stop, stop_receiver) = watch::channel(false);
        let packets = Arc::new(Mutex::new(Vec::new()));
        let device_code = config.device_code.clone();
        let runner = Runner::new(config, progress, Arc::clone(&packets));
        let task = tokio::spawn(runner.run(stop_receiver));
        Ok(Handle { device_code, progress: progress_receiver, stop, packets, task: Some(task) })
    }
}

/// A packet on its way.
struct Packet {
    text: String,
    session_id: String,
    frames: Vec<FrameId>,
    count: u64,
}

/// What the next answer on the connection is about.
enum Open {
    Packet {
        session_id: String,
        frames: Vec<FrameId>,
        count: u64,
    },
    /// A text that is no packet: planted garbage, a heartbeat, an upload.
    Other,
}

/// The source since streaming went on.
struct Playing {
    started_ms: f64,
    started_unix_ms: i64,
}

struct Runner {
    config: Config,
    firmware: Firmware,
    player: Player,
    playing: Option<Playing>,
    rng: ChaCha8Rng,
    /// Device time, ms since power-on.
    uptime_ms: f64,
    connection: Option<Connection>,
    next_attempt_ms: f64,
    ghosts: VecDeque<TcpStream>,
    send_queue: VecDeque<Packet>,
    /// A packet that lets the next one pass.
    held: Option<Packet>,
    open: VecDeque<Open>,
    next_cut_ms: f64,
    /// For the rate over the last second.
    rate_from_ms: f64,
    rate_from_packets: u32,
    /// Each sensor was switched on on its own, ms after the board.
    sensor_on_ms: [f64; 5],
    now: Progress,
    progress: watch::Sender<Progress>,
    packets: Arc<Mutex<Vec<PacketRecord>>>,
}

impl Runner {
    fn new(config: Config, progress: watch::Sender<Progress>, packets: Arc<Mutex<Vec<PacketRecord>>>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let uptime_ms = config.uptime.as_secs_f64() * 1e3;
        let now = progress.borrow().clone();
        let mut runner = Self {
            firmware: Firmware::boot(&config.device_code),
            player: Player::new(config.source.clone(), config.repeat),
            playing: None,
            uptime_ms,
            connection: None,
            next_attempt_ms: uptime_ms,
            ghosts: VecDeque::new(),
            send_queue: VecDeque::with_capacity(SEND_QUEUE),
            held: None,
            open: VecDeque::new(),
            next_cut_ms: f64::INFINITY,
            rate_from_ms: uptime_ms,
            rate_from_packets: 0,
            sensor_on_ms: std::array::from_fn(|_| rng.random_range(0.0..2000.0)),
            rng,
            config,
            now,
            progress,
            packets,
        };
        runner.plan_cut();
        runner
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        // The real device's rounds are missed while it is busy; accelerated rounds are caught up.
        let began = (Instant::now(), self.uptime_ms);
        let mut due = Instant::now();
        while !*stop.borrow_and_update() {
            let pause = match self.config.speed {
                Speed::Factor(1.0) => Some(Duration::from_secs_f64(ROUND_MS / 1e3)),
                Speed::Factor(factor) => {
                    let now = Instant::now();
                    due += Duration::from_secs_f64(ROUND_MS / 1e3 / factor.max(1e-3));
                    if now > due + Duration::from_secs(1) {
                        due = now;
                    }
                    // Timers are no finer than a millisecond: several rounds pass between two sleeps.
                    due.checked_duration_since(now).filter(|ahead| *ahead >= Duration::from_millis(1))
                }
                Speed::Max => (!self.is_busy()).then_some(Duration::from_millis(1)),
            };
            match pause {
                Some(pause) => {
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        // A closed channel means that the handle is gone: nobody wants the device any more.
                        changed = stop.changed() => if changed.is_err() { break },
                    }
                }
                None => tokio::task::yield_now().await,
            }
            match self.config.speed {
                Speed::Factor(1.0) => self.uptime_ms = began.1 + began.0.elapsed().as_secs_f64() * 1e3,
                Speed::Factor(_) => self.uptime_ms += ROUND_MS,
                Speed::Max => self.uptime_ms += if self.is_busy() { 0.0 } else { 1.0 },
            }
            let finished = tokio::select! {
                () = self.round() => true,
                _ = stop.wait_for(|stop| *stop) => false,
            };
            if !finished {
                // A frame may be half written: nothing more can be said on this connection.
                self.connection = None;
            }
            self.publish();
        }
        if let Some(mut connection) = self.connection.take() {
            // Switched off, the board says nothing; a person who ends the program gets a clean close. Best effort.
            drop(connection.send(CLOSE, &1000_u16.to_be_bytes(), &mut self.rng).await);
        }
        self.now.connected = false;
        self.publish();
    }

    /// True while there is something to send as fast as possible.
    fn is_busy(&self) -> bool {
        self.connection.is_some() && self.playing.is_some() && !self.now.streamed
    }

    fn publish(&mut self) {
        let firmware = &self.firmware;
        let now = &mut self.now;
        now.streaming = firmware.streaming;
        if now.session_id != firmware.session_id {
            now.session_id.clone_from(&firmware.session_id);
        }
        if now.device_code != firmware.device_code {
            now.device_code.clone_from(&firmware.device_code);
        }
        now.packets_open = self.open.iter().filter(|open| matches!(open, Open::Packet { .. })).count() as u64;
        self.progress.send_if_modified(|shown| {
            let changed = shown != now;
            if changed {
                shown.clone_from(now);
            }
            changed
        });
    }

    fn uptime(&self) -> u32 {
        // Wraps after 49.7 days.
        self.uptime_ms as u64 as u32
    }

    async fn round(&mut self) {
        let deaf_ms = self.config.deaf.after.as_secs_f64() * 1e3;
        let heard_ms = deaf_ms + self.config.deaf.length.as_secs_f64() * 1e3;
        let deaf = (deaf_ms..heard_ms).contains(&self.uptime_ms);
        if !deaf {
            self.connect().await;
            self.listen().await;
        }
        self.measure();
        if deaf {
            return;
        }
        self.queue_block();
        self.send_packets().await;
        self.send_owed().await;
        if self.uptime_ms >= self.next_cut_ms {
            self.plan_cut();
            if let Some(connection) = self.connection.take() {
                connection.cut(self.rng.random());
                self.disconnected();
            }
        }
        let since_ms = self.uptime_ms - self.rate_from_ms;
        if since_ms >= 1000.0 {
            let stats = &mut self.firmware.stats;
            stats.send_rate = ((f64::from(stats.blocks_sent - self.rate_from_packets)) * 1e3 / since_ms) as f32;
            (self.rate_from_ms, self.rate_from_packets) = (self.uptime_ms, stats.blocks_sent);
        }
        self.now.streamed = self.playing.is_some()
            && self.player.is_over()
            && self.firmware.block.is_empty()
            && self.firmware.blocks.is_empty()
            && self.send_queue.is_empty()
            && self.held.is_none();
    }

    /// Tries to connect if it is time to: at once after a disconnect, then every five seconds.
    async fn connect(&mut self) {
        if self.connection.is_some() || self.uptime_ms < self.next_attempt_ms {
            return;
        }
        self.firmware.stats.connection_attempts += 1;
        let path = format!("/ws/esp32/{}/", self.firmware.device_code);
        self.next_attempt_ms = self.uptime_ms + RECONNECT_MS;
        if self.config.speed == Speed::Max {
            self.next_attempt_ms = self.uptime_ms + RECONNECT_MS / RECONNECT_FACTOR_AT_MAX;
        }
        match Connection::open(&self.config.address, &path, HANDSHAKE_LIMIT, &mut self.rng).await {
            Ok(connection) => {
                self.connection = Some(connection);
                self.now.connected = true;
                self.now.connections += 1;
                self.now.connect_failure.clear();
            }
            Err(failure) => {
                self.now.connect_failure = match failure {
                    Failure::Io(error) => error.to_string(),
                    Failure::Refused(answer) => answer,
                    Failure::Slow(ghost) => {
                        if let Some(ghost) = ghost {
                            if self.ghosts.len() == GHOSTS {
                                self.ghosts.pop_front();
                            }
                            self.ghosts.push_back(ghost);
                        }
                        "no handshake within five seconds".to_owned()
                    }
                };
            }
        }
    }

    fn disconnected(&mut self) {
        self.connection = None;
        self.now.connected = false;
        self.next_attempt_ms = self.uptime_ms;
        self.now.packets_unanswered +=
            self.open.drain(..).filter(|open| matches!(open, Open::Packet { .. })).count() as u64;
    }

    /// Handles what the server sent.
    async fn listen(&mut self) {
        let mut answers = Vec::new();
        while let Some(connection) = &mut self.connection {
            let event = match connection.events.try_recv() {
                Ok(event) => event,
                Err(tokio::sync::mpsc::error::TryRecvError::Empty) => return,
                Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => Event::Gone,
            };
            match event {
                Event::Text(text) => {
                    self.note_answer(&text);
                    let effect = self.firmware.handle(&text, self.uptime(), &mut answers);
                    self.now.messages_vanished += u64::from(effect.dropped);
                    if effect.stopped {
                        self.stop_streaming();
                    }
                    if effect.started {
                        self.start_streaming();
                    }
                    for answer in answers.drain(..) {
                        self.send(TEXT, answer.as_bytes()).await;
                        // Of what the device says by itself or when asked, the server answers this only.
                        let heartbeat = answer.starts_with(r#"{"type":"heartbeat""#);
                        if heartbeat && self.connection.is_some() && self.open.len() < OPEN_LIMIT {
                            self.open.push_back(Open::Other);
                        }
                    }
                }
                Event::Ping(payload) => self.send(PONG, &payload).await,
                Event::Close => {
                    self.send(CLOSE, &1000_u16.to_be_bytes()).await;
                    self.disconnected();
                }
                Event::TooLong => {
                    self.send(CLOSE, &1009_u16.to_be_bytes()).await;
                    self.disconnected();
                }
                Event::Gone => self.disconnected(),
            }
        }
    }

    /// Books the answer to a packet. The firmware itself reads nothing of it.
    fn note_answer(&mut self, text: &str) {
        let Ok(answer) = serde_json::from_str::<Value>(text) else { return };
        let reason = || answer["error"].as_str().unwrap_or("no reason given").to_owned();
        match answer["type"].as_str() {
            Some("batch_sensor_data_response") => {
                while matches!(self.open.front(), Some(Open::Other)) {
                    self.open.pop_front();
                }
                let Some(Open::Packet { session_id, frames, count }) = self.open.pop_front() else { return };
                let success = answer["success"].as_bool() == Some(true);
                let failed_items = answer["failed_items"].as_u64().unwrap_or(0);
                if success {
                    self.now.packets_acked += 1;
                    self.now.frames_acked += count;
                    self.now.items_failed += failed_items;
                } else {
                    self.now.packets_refused += 1;
                    self.now.refusal = reason();
                }
                if self.config.keep_packets {
                    let mut packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
                    if packets.len() < PACKET_LOG_LIMIT {
                        packets.push(PacketRecord { session_id, frames, success, failed_items });
                    }
                }
            }
            Some("upload_complete_response" | "heartbeat_response") => {
                if matches!(self.open.front(), Some(Open::Other)) {
                    self.open.pop_front();
                }
            }
            // Answers come in order, so an error is about the oldest text that has none.
            Some("error") => {
                if let Some(Open::Packet { .. }) = self.open.pop_front() {
                    self.now.packets_refused += 1;
                    self.now.refusal = reason();
                }
            }
            _ => {}
        }
    }

    fn start_streaming(&mut self) {
        self.player.restart();
        self.firmware.blocks.clear();
        self.firmware.block.clear();
        // In an accelerated recording the device's time of day runs ahead of the real one; it starts right.
        let started_unix_ms = self.config.clock.now_us() / 1000;
        self.playing = Some(Playing { started_ms: self.uptime_ms, started_unix_ms });
        self.now.streamed = false;
        self.now.frames_measured = 0;
        // The block is never empty when the command arrives.
        for frame in self.player.held_before(self.rng.random_range(0..BLOCK_FRAMES)) {
            let frame = self.stamped(&frame);
            self.firmware.take_frame(frame);
        }
    }

    fn stop_streaming(&mut self) {
        self.playing = None;
        let waiting = self.send_queue.len() + usize::from(self.held.is_some()) + self.firmware.blocks.len();
        self.now.blocks_lost += waiting as u64;
        self.send_queue.clear();
        self.held = None;
        self.firmware.blocks.clear();
    }

    fn stamped(&self, frame: &SourceFrame) -> StampedFrame {
        let deaf = &self.config.deaf;
        let ntp_ms = (deaf.after + deaf.length).as_secs_f64() * 1e3;
        let sync = if !deaf.synced || self.uptime_ms < ntp_ms {
            Sync::Nothing
        } else if self.uptime_ms < ntp_ms + CALIBRATION_MS || !self.firmware.calibration_on {
            Sync::ZoneOnly
        } else {
            Sync::Done
        };
        let (started_ms, started_unix_ms) =
            self.playing.as_ref().map_or((0.0, 0), |playing| (playing.started_ms, playing.started_unix_ms));
        let unix_ms = started_unix_ms + frame.stamp_ms.round() as i64;
        let on_ms = self.sensor_on_ms.get(usize::from(frame.sensor_id)).copied().unwrap_or_default();
        let sensor_uptime_ms = started_ms + frame.stamp_ms - on_ms;
        StampedFrame {
            sensor_id: frame.sensor_id,
            stamp: stamp(self.config.build, sync, unix_ms, sensor_uptime_ms),
            acc: frame.acc,
            gyro: frame.gyro,
            angle: frame.angle,
        }
    }

    /// The UART task: frames that arrived since the last round.
    fn measure(&mut self) {
        let Some(playing) = &mut self.playing else { return };
        if self.open.len() >= OPEN_PAUSE && self.config.speed != Speed::Factor(1.0) {
            playing.started_ms += ROUND_MS;
            return;
        }
        let elapsed_ms = self.uptime_ms - playing.started_ms;
        if self.config.speed == Speed::Max {
            // One block a round, and time goes on to its last frame.
            if !self.is_busy() || !self.firmware.blocks.is_empty() {
                return;
            }
            let mut last_ms = elapsed_ms;
            while self.firmware.blocks.is_empty() {
                let Some(frame) = self.player.next(f64::INFINITY, self.firmware.block.len()) else { break };
                last_ms = last_ms.max(frame.at_ms);
                self.take(&frame);
            }
            self.uptime_ms += last_ms - elapsed_ms;
        } else {
            while let Some(frame) = self.player.next(elapsed_ms, self.firmware.block.len()) {
                self.take(&frame);
            }
        }
    }

    fn take(&mut self, frame: &SourceFrame) {
        let lost = self.firmware.blocks_lost;
        let frame = self.stamped(frame);
        self.firmware.take_frame(frame);
        self.now.frames_measured += 1;
        self.now.blocks_lost += self.firmware.blocks_lost - lost;
    }

    /// One block a round goes from the block queue to the send queue.
    fn queue_block(&mut self) {
        let Some(mut block) = self.firmware.blocks.pop_front() else { return };
        if self.connection.is_none() || !self.firmware.streaming {
            self.now.blocks_lost += 1;
            return;
        }
        let faults = self.config.faults;
        if self.send_queue.len() >= SEND_QUEUE || self.chance(faults.drop) {
            self.firmware.stats.send_failures += 1;
            self.now.blocks_lost += 1;
            return;
        }
        if faults.garbage > 0.0 && self.chance(faults.garbage / 3.0) {
            spoil(&mut block, &mut self.rng);
        }
        let text = self.firmware.packet(&block, self.uptime());
        let frames = if self.config.keep_packets {
            let id = |frame: &StampedFrame| FrameId { sensor_id: frame.sensor_id, device_time_raw: frame.stamp };
            block.iter().map(id).collect()
        } else {
            Vec::new()
        };
        let session_id = self.firmware.session_id.clone();
        self.send_queue.push_back(Packet { text, session_id, frames, count: block.len() as u64 });
    }

    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random::<f64>() < probability
    }

    async fn send_packets(&mut self) {
        let faults = self.config.faults;
        while self.connection.is_some() {
            let Some(packet) = self.send_queue.pop_front() else {
                // Nothing will come that could pass it.
                let last = self.player.is_over() && self.firmware.block.is_empty() && self.firmware.blocks.is_empty();
                if let Some(held) = self.held.take_if(|_| last) {
                    self.send_packet(held).await;
                }
                return;
            };
            if self.held.is_none() && self.chance(faults.reorder) {
                self.held = Some(packet);
                continue;
            }
            if self.chance(faults.garbage * 2.0 / 3.0) {
                let cut = self.rng.random_range(0..packet.text.len().max(1));
                let torn = if self.rng.random() { packet.text.get(..cut).unwrap_or_default() } else { "" };
                let torn = torn.to_owned();
                self.send(TEXT, torn.as_bytes()).await;
                self.open.push_back(Open::Other);
            }
            if self.chance(faults.duplicate) {
                let again = Packet {
                    text: packet.text.clone(),
                    session_id: packet.session_id.clone(),
                    frames: packet.frames.clone(),
                    count: packet.count,
                };
                self.send_packet(again).await;
            }
            self.send_packet(packet).await;
            if let Some(held) = self.held.take() {
                self.send_packet(held).await;
            }
        }
        // What waited for a connection that is gone is not sent on the next.
        let failed = self.send_queue.len() + usize::from(self.held.take().is_some());
        self.send_queue.clear();
        self.firmware.stats.send_failures += failed as u32;
        self.now.blocks_lost += failed as u64;
    }

    async fn send_packet(&mut self, packet: Packet) {
        if self.connection.is_none() {
            self.firmware.stats.send_failures += 1;
            self.now.blocks_lost += 1;
            return;
        }
        let Packet { text, session_id, frames, count } = packet;
        self.send(TEXT, text.as_bytes()).await;
        if self.connection.is_none() {
            // Some of it may have arrived all the same.
            self.now.packets_unanswered += 1;
            return;
        }
        let stats = &mut self.firmware.stats;
        stats.blocks_sent = stats.blocks_sent.wrapping_add(1);
        stats.bytes_sent = stats.bytes_sent.wrapping_add(text.len() as u32);
        if self.open.len() >= OPEN_LIMIT {
            self.disconnected();
            return;
        }
        self.now.packets_sent += 1;
        self.now.frames_sent += count;
        self.now.bytes_sent += text.len() as u64;
        // A packet too long for its document went out as an empty text, which is answered as bad JSON.
        self.open.push_back(if text.is_empty() { Open::Other } else { Open::Packet { session_id, frames, count } });
        if self.config.faults.slow_kbps > 0.0 {
            let seconds = text.len() as f64 / 1e3 / self.config.faults.slow_kbps;
            tokio::time::sleep(Duration::from_secs_f64(seconds.min(10.0))).await;
        }
    }

    async fn send_owed(&mut self) {
        if self.connection.is_none() {
            return;
        }
        let Some(text) = self.firmware.owed_upload_complete(self.uptime()) else { return };
        self.send(TEXT, text.as_bytes()).await;
        if self.connection.is_some() {
            self.open.push_back(Open::Other);
            self.firmware.upload_owed = false;
            self.now.uploads_completed += 1;
            self.now.upload_session_id.clone_from(&self.firmware.session_id);
        }
    }

    async fn send(&mut self, opcode: u8, payload: &[u8]) {
        let Some(connection) = &mut self.connection else { return };
        if connection.send(opcode, payload, &mut self.rng).await.is_err() {
            self.firmware.stats.send_failures += 1;
            self.disconnected();
        }
    }

    fn plan_cut(&mut self) {
        let every_s = self.config.faults.cut_s;
        self.next_cut_ms = if every_s > 0.0 {
            // Exponential: cuts know nothing of each other.
            self.uptime_ms - 1e3 * every_s * (1.0 - self.rng.random::<f64>()).ln()
        } else {
            f64::INFINITY
        };
    }
}

/// Wrong numbers that the serial line lets through: it has no checksum.
fn spoil(block: &mut [StampedFrame], rng: &mut ChaCha8Rng) {
    for _ in 0..3 {
        let frame = &mut block[rng.random_range(0..BLOCK_FRAMES)];
        let wild = f32::from_bits(rng.random());
        match rng.random_range(0..4) {
            0 => frame.acc[rng.random_range(0..3)] = wild,
            1 => frame.gyro[rng.random_range(0..3)] = wild,
            2 => frame.gyro[rng.random_range(0..3)] = f32::NAN,
            _ => frame.angle[rng.random_range(0..3)] = wild,
        }
    }
}
