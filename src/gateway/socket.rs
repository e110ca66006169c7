//! The life of one socket, in one task.
//!
//! The task waits for whichever comes first: the end of the service, a message from the hub, the answer that is due
//! next, the end of the request it is working on, the timer, or a message of the peer. The peer is not read while a
//! request is being worked on, while too much waits for the disk, or while it owes time to its rate limit; TCP then
//! holds it back. Everything else goes on meanwhile.
//!
//! Memory of an idle socket: the task (about 2 KiB), the read buffer (4 KiB), the hub's queue (about 3 KiB).

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use axum::Error as SocketError;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_tungstenite::tungstenite;
use tracing::{debug, warn};

use super::error::ApiError;
use super::limits::TokenBucket;
use super::options::Options;
use crate::hub::{self, Outbound};
use crate::protocol::{self, Endpoint};
use crate::texts::Lang;

/// Read buffer of a socket. It grows to the size of a packet on sockets that send them.
pub(super) const READ_BUFFER_BYTES: usize = 4 << 10;
/// Answers that are ready together go out in one write of about this size.
pub(super) const WRITE_BUFFER_BYTES: usize = 4 << 10;
/// A message to a client, and what may be queued with it, has this size at most.
pub(super) const WRITE_LIMIT_BYTES: usize = 4 << 20;

/// Close code of a socket whose token was revoked or ran out.
pub(super) const CLOSE_REVOKED: u16 = 4003;

/// Pings whose pong is awaited at most; beyond, the oldest counts as lost.
const PINGS_LIMIT: usize = 2 * hub::QUEUE_LIMIT;
/// A closing peer has so long to close its side.
const LINGER: Duration = Duration::from_secs(1);
/// A binary frame counts as so many malformed messages.
const BINARY_COST: f64 = 5.0;

/// A request being worked on, or an answer that waits for the disk: resolves to the text of the answer.
pub(super) type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a request leads to.
pub(super) enum Step {
    /// Nothing is answered.
    Silent,
    /// The answer is ready.
    Answer(String),
    /// The message was not one; the answer says why.
    Malformed(String),
    /// The request is worked on; nothing more is read meanwhile.
    Work(Later<Outcome>),
}

/// A sign of life of the peer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Heard {
    Message {
        bytes: usize,
    },
    /// The answer to a ping, and how long it took.
    Pong(Duration),
}

/// What working on a request leads to.
pub(super) enum Outcome {
    /// Nothing is answered.
    Silent,
    /// The answer is ready.
    Answer(String),
    /// The answer waits for the disk.
    Waits(Later<String>),
}

/// What kind of client is at the other end.
pub(super) trait Role: Send + 'static {
    /// What the hub sends to it.
    type Out: Send + 'static;
    const ENDPOINT: Endpoint;

    /// The texts of a message from the hub; none if it cannot be written.
    fn encode(&self, message: Self::Out) -> Vec<String>;
    /// Takes a message of the peer, and how many frames it held for the rate limit.
    fn request(&mut self, text: &str) -> (Step, usize);
    /// The answer to a message of a kind that is not taken at all.
    fn refuse(&self, code: &'static str, what: &str) -> String;
    /// A sign of life of the peer, with the time to it and back where it is known.
    fn heard(&self, _what: Heard) {}
    /// Asks again whether the peer may be here: a secret may have been revoked since. `None` if it came without one.
    fn recheck(&self) -> Option<Later<bool>> {
        None
    }
    /// True if a newer connection took this one's place.
    fn is_replaced(&self) -> bool {
        false
    }
}

/// Why a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The peer closed it or broke off.
    Peer,
    /// The hub said so.
    Told { code: u16, reason: &'static str },
    /// The service stops.
    Shutdown,
    /// No sign of life after a ping.
    Dead,
    /// The peer does not read.
    Stuck,
    /// The peer broke RFC 6455.
    Protocol,
    /// Text that is not UTF-8.
    Encoding,
    /// A message over the limit.
    TooBig,
    /// Too many malformed messages.
    Abuse,
}

impl End {
    /// The reason in metrics.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Told { .. } => "told",
            Self::Shutdown => "shutdown",
            Self::Dead => "dead",
            Self::Stuck => "stuck",
            Self::Protocol => "protocol",
            Self::Encoding => "encoding",
            Self::TooBig => "too_big",
            Self::Abuse => "abuse",
        }
    }

    /// The close frame for the peer; `None` where there is nobody to read it.
    const fn close(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Peer | Self::Dead | Self::Stuck => None,
            Self::Told { code, reason } => Some((code, reason)),
            Self::Shutdown => Some((1012, "the service restarts")),
            Self::Protocol => Some((1002, "protocol error")),
            Self::Encoding => Some((1007, "text is not UTF-8")),
            Self::TooBig => Some((1009, "message too big")),
            Self::Abuse => Some((1008, "too many malformed messages")),
        }
    }

    fn of(error: SocketError) -> Self {
        match error.into_inner().downcast_ref::<tungstenite::Error>() {
            Some(tungstenite::Error::Capacity(_)) => Self::TooBig,
            Some(tungstenite::Error::Utf8(_)) => Self::Encoding,
            Some(tungstenite::Error::Protocol(kind)) => match kind {
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake => Self::Peer,
                _ => Self::Protocol,
            },
            _ => Self::Peer,
        }
    }
}

/// An answer in its place in the order of answers.
enum Answer {
    Ready(String),
    Waits { text: Later<String>, since: Instant },
}

/// A ping whose pong is awaited.
struct Ping {
    number: u64,
    sent_at: Instant,
    /// Resolved by the pong: the peer has received everything that was sent before the ping.
    delivered: Option<oneshot::Sender<()>>,
}

/// One socket.
pub(super) struct Socket<R: Role> {
    role: R,
    ws: WebSocket,
    queue: Option<mpsc::Receiver<Box<Outbound<R::Out>>>>,
    options: Arc<Options>,
    shutdown: watch::Receiver<bool>,
    working: Option<(Later<Outcome>, usize)>,
    answers: VecDeque<(Answer, usize)>,
    /// Bytes of the requests in `answers` and `working`.
    in_flight_bytes: usize,
    pings: VecDeque<Ping>,
    next_ping: u64,
    pinged_at: Instant,
    /// The oldest ping since which nothing was heard.
    unheard_since: Option<Instant>,
    messages: TokenBucket,
    frames: TokenBucket,
    malformed: TokenBucket,
}

/// What the task woke up for.
enum Event<M> {
    Shutdown,
    FromHub(Option<Box<Outbound<M>>>),
    Answered(String),
    Worked(Outcome),
    Timer,
    FromPeer(Option<Result<Message, SocketError>>),
}

impl<R: Role> Socket<R> {
    pub(super) fn new(
        role: R,
        ws: WebSocket,
        queue: Option<mpsc::Receiver<Box<Outbound<R::Out>>>>,
        options: Arc<Options>,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        let (messages_per_s, frames_per_s) = match R::ENDPOINT {
            Endpoint::Device => (options.device_messages_per_s, options.device_frames_per_s),
            Endpoint::User | Endpoint::Admin | Endpoint::Root => (options.client_messages_per_s, u32::MAX),
        };
        Self {
            role,
            ws,
            queue,
            shutdown,
            working: None,
            answers: VecDeque::new(),
            in_flight_bytes: 0,
            pings: VecDeque::new(),
            next_ping: 0,
            pinged_at: Instant::now(),
            unheard_since: None,
            messages: TokenBucket::new(messages_per_s, messages_per_s.saturating_mul(2)),
            frames: TokenBucket::new(frames_per_s, frames_per_s.saturating_mul(2)),
            malformed: TokenBucket::new(1, options.malformed_limit),
            options,
        }
    }

    /// Sends the greeting, then `first` is worked on, then the socket lives until it ends. Returns the role.
    pub(super) async fn run(mut self, greeting: String, first: Option<Later<Outcome>>) -> R {
        let endpoint = R::ENDPOINT.as_str();
        metrics::counter!("volant_gateway_sockets_total", "endpoint" => endpoint).increment(1);
        metrics::gauge!("volant_gateway_open_sockets", "endpoint" => endpoint).increment(1.0);
        self.working = first.map(|first| (first, 0));
        let end = match self.write([greeting]).await {
            Ok(()) => self.live().await,
            Err(end) => end,
        };
        if end == End::Stuck || end == End::Dead {
            warn!("{endpoint} socket dropped: peer is {}", end.as_str());
        } else {
            debug!("{endpoint} socket ended: {}", end.as_str());
        }
        metrics::counter!("volant_gateway_closed_sockets_total", "endpoint" => endpoint, "reason" => end.as_str())
            .increment(1);
        metrics::gauge!("volant_gateway_open_sockets", "endpoint" => endpoint).decrement(1.0);
        let Self { role, ws, queue, .. } = self;
        // Whoever waits for a delivery learns at once that it did not happen.
        drop(queue);
        close(ws, end).await;
        role
    }

    async fn live(&mut self) -> End {
        loop {
            let event = self.wait().await;
            let outcome = match event {
                Event::Shutdown => Err(End::Shutdown),
                Event::FromHub(outbound) => self.hub_says(outbound).await,
                Event::Answered(text) => self.answer(text).await,
                Event::Worked(outcome) => self.worked(outcome).await,
                Event::Timer => self.timer().await,
                Event::FromPeer(message) => self.peer_says(message).await,
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    fn wait(&mut self) -> impl Future<Output = Event<R::Out>> {
        let now = Instant::now();
        let owes_until = self.messages.due().max(self.frames.due()).filter(|due| *due > now);
        let reads = self.reads() && owes_until.is_none();
        let wake_at = owes_until.into_iter().fold(self.next_sign(), Instant::min);
        let Self { ws, queue, shutdown, working, answers, .. } = self;
        async move {
            tokio::select! {
                biased;
                () = crate::shutdown::requested(shutdown) => Event::Shutdown,
                outbound = async {
                    match queue {
                        Some(queue) => queue.recv().await,
                        None => pending().await,
                    }
                } => Event::FromHub(outbound),
                text = poll_fn(|cx| match answers.front_mut() {
                    Some((Answer::Ready(text), _)) => Poll::Ready(std::mem::take(text)),
                    Some((Answer::Waits { text, .. }, _)) => text.as_mut().poll(cx),
                    None => Poll::Pending,
                }) => Event::Answered(text),
                outcome = async {
                    match working {
                        Some((work, _)) => work.await,
                        None => pending().await,
                    }
                } => Event::Worked(outcome),
                () = sleep_until(wake_at) => Event::Timer,
                message = ws.next(), if reads => Event::FromPeer(message),
            }
        }
    }

    /// True if there is room for another request.
    fn reads(&self) -> bool {
        self.working.is_none()
            && self.answers.len() < self.options.in_flight_packets
            && self.in_flight_bytes < self.options.in_flight_bytes
    }

    /// When to ping, or to give the peer up.
    fn next_sign(&self) -> Instant {
        match self.unheard_since {
            Some(since) => since + self.options.pong_timeout,
            None => self.pinged_at + self.options.ping_interval,
        }
    }

    async fn hub_says(&mut self, outbound: Option<Box<Outbound<R::Out>>>) -> Result<(), End> {
        match outbound.map(|outbound| *outbound) {
            Some(Outbound::Message { message, delivered }) => {
                let texts = self.role.encode(message);
                if texts.is_empty() {
                    return Ok(());
                }
                self.write(texts).await?;
                match delivered {
                    Some(delivered) => self.ping(Some(delivered)).await,
                    None => Ok(()),
                }
            }
            Some(Outbound::Close { code, reason }) => Err(End::Told { code, reason }),
            None => {
                self.queue = None;
                Ok(())
            }
        }
    }

    /// Sends the answer at the front, and all behind it that are ready too.
    async fn answer(&mut self, text: String) -> Result<(), End> {
        let mut texts = vec![text];
        self.pop_answer();
        while let Some((answer, _)) = self.answers.front_mut() {
            let ready = match answer {
                Answer::Ready(text) => Some(std::mem::take(text)),
                Answer::Waits { text, .. } => text.now_or_never(),
            };
            let Some(text) = ready else { break };
            texts.push(text);
            self.pop_answer();
        }
        self.write(texts).await
    }

    fn pop_answer(&mut self) {
        if let Some((answer, bytes)) = self.answers.pop_front() {
            self.in_flight_bytes -= bytes;
            if let Answer::Waits { since, .. } = answer {
                metrics::histogram!("volant_gateway_ack_seconds").record(since.elapsed().as_secs_f64());
            }
        }
    }

    async fn worked(&mut self, outcome: Outcome) -> Result<(), End> {
        let bytes = self.working.take().map_or(0, |(_, bytes)| bytes);
        match outcome {
            Outcome::Silent => {
                self.in_flight_bytes -= bytes;
                Ok(())
            }
            Outcome::Answer(text) => self.queue_answer(Answer::Ready(text), bytes).await,
            Outcome::Waits(text) => self.queue_answer(Answer::Waits { text, since: Instant::now() }, bytes).await,
        }
    }

    /// Puts an answer behind the others, or sends it if there are none. `bytes` are counted as in flight already.
    async fn queue_answer(&mut self, answer: Answer, bytes: usize) -> Result<(), End> {
        match answer {
            Answer::Ready(text) if self.answers.is_empty() => {
                self.in_flight_bytes -= bytes;
                self.write([text]).await
            }
            answer => {
                self.answers.push_back((answer, bytes));
                Ok(())
            }
        }
    }

    async fn timer(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if now < self.next_sign() {
            return Ok(());
        }
        if self.role.is_replaced() {
            return Err(End::Told { code: hub::CLOSE_REPLACED, reason: "replaced by a newer connection" });
        }
        if let Some(recheck) = self.role.recheck()
            && !recheck.await
        {
            return Err(End::Told { code: CLOSE_REVOKED, reason: "the token no longer counts" });
        }
        // While we do not read we cannot hear: that silence is ours.
        if self.unheard_since.is_some() && self.reads() {
            return Err(End::Dead);
        }
        self.ping(None).await
    }

    async fn ping(&mut self, delivered: Option<oneshot::Sender<()>>) -> Result<(), End> {
        let number = self.next_ping;
        self.next_ping += 1;
        let sent_at = Instant::now();
        if self.pings.len() >= PINGS_LIMIT {
            self.pings.pop_front();
        }
        self.pings.push_back(Ping { number, sent_at, delivered });
        self.pinged_at = sent_at;
        if self.unheard_since.is_none() || !self.reads() {
            self.unheard_since = Some(sent_at);
        }
        self.send([Message::Ping(Bytes::copy_from_slice(&number.to_be_bytes()))]).await
    }

    /// A pong confirms its ping and all before it: TCP keeps the order.
    fn pong(&mut self, payload: &[u8]) {
        let Ok(number) = payload.try_into().map(u64::from_be_bytes) else { return };
        let mut round_trip = None;
        while let Some(ping) = self.pings.pop_front_if(|ping| ping.number <= number) {
            if ping.number == number {
                round_trip = Some(ping.sent_at.elapsed());
            }
            if let Some(delivered) = ping.delivered {
                // Nobody waits any more: it is delivered all the same.
                delivered.send(()).ok();
            }
        }
        if let Some(round_trip) = round_trip {
            self.role.heard(Heard::Pong(round_trip));
        }
    }

    async fn peer_says(&mut self, message: Option<Result<Message, SocketError>>) -> Result<(), End> {
        let message = match message {
            None => return Err(End::Peer),
            Some(Err(error)) => return Err(End::of(error)),
            Some(Ok(message)) => message,
        };
        self.unheard_since = None;
        self.messages.take(1.0, Instant::now());
        match message {
            Message::Text(text) => {
                self.role.heard(Heard::Message { bytes: text.len() });
                self.text(text.as_str()).await
            }
            Message::Binary(bytes) => {
                self.role.heard(Heard::Message { bytes: bytes.len() });
                let text = self.role.refuse("binary", "binary messages are not understood: send JSON as text");
                self.refuse(text, BINARY_COST).await
            }
            // The library answers pings with the next read or write.
            Message::Ping(_) => Ok(()),
            Message::Pong(payload) => {
                self.pong(&payload);
                Ok(())
            }
            Message::Close(_) => Err(End::Peer),
        }
    }

    async fn text(&mut self, text: &str) -> Result<(), End> {
        let bytes = text.len();
        metrics::counter!("volant_gateway_received_bytes_total", "endpoint" => R::ENDPOINT.as_str())
            .increment(bytes as u64);
        let (step, frames) = self.role.request(text);
        if frames > 0 {
            self.frames.take(frames as f64, Instant::now());
        }
        match step {
            Step::Silent => Ok(()),
            Step::Answer(answer) => {
                self.in_flight_bytes += bytes;
                self.queue_answer(Answer::Ready(answer), bytes).await
            }
            Step::Malformed(answer) => self.refuse(answer, 1.0).await,
            Step::Work(mut work) => {
                self.in_flight_bytes += bytes;
                // Mostly there is nothing to wait for, and the next message can be read at once.
                let outcome = (&mut work).now_or_never();
                self.working = Some((work, bytes));
                if let Some(outcome) = outcome { self.worked(outcome).await } else { Ok(()) }
            }
        }
    }

    /// Answers what is no message, and counts it.
    async fn refuse(&mut self, answer: String, cost: f64) -> Result<(), End> {
        self.malformed.take(cost, Instant::now());
        self.queue_answer(Answer::Ready(answer), 0).await?;
        if self.malformed.due().is_some() { Err(End::Abuse) } else { Ok(()) }
    }

    async fn write(&mut self, texts: impl IntoIterator<Item = String>) -> Result<(), End> {
        self.send(texts.into_iter().filter(|text| !text.is_empty()).map(|text| Message::Text(text.into()))).await
    }

    /// Writes messages together. A peer that takes nothing for the write timeout is given up.
    async fn send(&mut self, messages: impl IntoIterator<Item = Message>) -> Result<(), End> {
        let ws = &mut self.ws;
        let writing = async {
            for message in messages {
                ws.feed(message).await?;
            }
            ws.flush().await
        };
        match timeout(self.options.write_timeout, writing).await {
            Ok(outcome) => outcome.map_err(End::of),
            Err(_) => Err(End::Stuck),
        }
    }
}

/// Says goodbye, and waits a moment for the peer to do the same: closing a socket with unread bytes would reset the
/// connection and might take the close frame with it.
async fn close(mut ws: WebSocket, end: End) {
    let deadline = Instant::now() + LINGER;
    let Some((code, reason)) = end.close() else {
        if end == End::Peer {
            // The peer's close frame is answered with the flush; if it is gone altogether, that fails, and may.
            timeout_at(deadline, ws.flush()).await.ok();
        }
        return;
    };
    let frame = CloseFrame { code, reason: reason.into() };
    if let Ok(Ok(())) = timeout_at(deadline, ws.send(Message::Close(Some(frame)))).await {
        loop {
            match timeout_at(deadline, ws.next()).await {
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_))) => {
                    sleep(LINGER / 4).await;
                    return;
                }
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// Counts a message that is none, and gives the words for its sender.
pub(super) fn malformed(endpoint: Endpoint, error: protocol::Error, lang: Lang) -> (&'static str, String) {
    let error = ApiError::from(error);
    metrics::counter!("volant_gateway_malformed_messages_total", "endpoint" => endpoint.as_str(), "reason" => error.code)
        .increment(1);
    (error.code, protocol::budget::clip(&error.text(lang), protocol::budget::TEXT_LIMIT_BYTES).to_owned())
}
