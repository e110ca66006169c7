//! The sockets of devices, users, admins, and of those who lost their way.
//!
//! A handler checks the path and who calls, before the upgrade; the socket then lives in `socket.rs`, and the roles here
//! say what its messages mean.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Path, Request, State as AxumState};
use axum::response::{IntoResponse, Response};
use schemas::{DeviceCode, SessionStatus, UserId};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tower::ServiceExt;
use tracing::{Instrument, error, info_span};

use super::access::{Access, device_code};
use super::error::{self, ApiError};
use super::limits::Place;
use super::socket::{self, Heard, Later, Outcome, Role, Socket, Step};
use super::{Context, Shared, State};
use crate::hub::{
    self, DeviceMessage, LiveEvent, LiveMessage, LiveSwing, Registration, Revision, ToAdmin, UserMessage,
};
use crate::ingest;
use crate::protocol::budget::{ECHO_LIMIT_BYTES, TEXT_LIMIT_BYTES, clip};
use crate::protocol::{
    self, ClientMessage, DeviceLine, Endpoint, EventFields, FramePacket, LocalTime, ServerMessage, SessionFields,
    SwingFields, SystemFigures, UtcTime,
};
use crate::sessions::{self, DeviceEvent, PollAnswer};
use crate::texts::{self, Lang};

/// The other end of the TCP connection, and its place among the connections.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    _held: Arc<(Place, mpsc::Sender<Infallible>)>,
}

impl Peer {
    /// `place` and `alive` are dropped with the last clone: when the connection and its socket have ended.
    pub(super) fn new(address: IpAddr, place: Place, alive: mpsc::Sender<Infallible>) -> Self {
        Self { address, _held: Arc::new((place, alive)) }
    }
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;
type Caller = Option<Extension<Peer>>;

fn upgrade(upgrade: Upgrade) -> Result<WebSocketUpgrade, ApiError> {
    upgrade.map_err(|rejection| {
        let what = rejection.body_text();
        ApiError::with_status(rejection.into_response().status(), "not_a_websocket", what)
    })
}

/// Answers 101 and runs `life` with the socket. The connection keeps its place until then.
fn accept<F>(
    upgrade: WebSocketUpgrade,
    limit_bytes: usize,
    peer: Caller,
    life: impl FnOnce(WebSocket) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    upgrade
        .read_buffer_size(socket::READ_BUFFER_BYTES)
        .write_buffer_size(socket::WRITE_BUFFER_BYTES)
        .max_write_buffer_size(socket::WRITE_LIMIT_BYTES)
        .max_message_size(limit_bytes)
        .max_frame_size(limit_bytes)
        .on_failed_upgrade(|error| tracing::debug!(error = &error as &dyn std::error::Error, "upgrade failed"))
        .on_upgrade(move |ws| {
            // Boxed, so that the upgrade's own task does not carry it twice.
            let life = Box::pin(life(ws));
            async move {
                life.await;
                drop(peer);
            }
        })
}

// ---- devices ------------------------------------------------------------------------------------------------------

/// `/ws/esp32/{device_code}/`
pub(super) async fn device(
    AxumState(context): Shared,
    Path(code): Path<String>,
    access: Access,
    peer: Caller,
    ws: Upgrade,
) -> Result<Response, ApiError> {
    let code = device_code(&code)?;
    access.device(&code)?;
    let ws = upgrade(ws)?;
    let limit_bytes = context.state.options.device_message_limit_bytes;
    let span = info_span!("connection", device.id = %code);
    Ok(accept(ws, limit_bytes, peer, move |ws| device_life(context, access, code, ws).instrument(span)))
}

async fn device_life(context: Arc<Context>, access: Access, code: DeviceCode, ws: WebSocket) {
    let state = &context.state;
    let greeting = ServerMessage::connected_device(code.clone(), state.clock.now_us()).encode();
    let (queue, inbox) = mpsc::channel(hub::QUEUE_LIMIT);
    let registration = state.hub.register_device(&code, queue);
    let reconcile: Later<Outcome> = {
        let (sessions, code) = (state.sessions.clone(), code.clone());
        Box::pin(async move {
            sessions.device_connected(&code).await;
            Outcome::Silent
        })
    };
    let role = DeviceRole { context: Arc::clone(&context), access, code, registration };
    let options = Arc::clone(&context.options);
    let socket = Socket::new(role, ws, Some(inbox), options, state.shutdown.clone());
    let DeviceRole { code, registration, .. } = socket.run(greeting, Some(reconcile)).await;
    let was_current = registration.is_current();
    drop(registration);
    if was_current {
        state.sessions.device_disconnected(&code).await;
    }
}

struct DeviceRole {
    context: Arc<Context>,
    access: Access,
    code: DeviceCode,
    registration: Registration,
}

impl DeviceRole {
    fn state(&self) -> &State {
        &self.context.state
    }

    fn now_us(&self) -> i64 {
        self.state().clock.now_us()
    }

    /// Sends frames inwards; the answer waits until they are durable.
    fn frames(&self, packet: FramePacket, kind: PacketKind) -> Step {
        let FramePacket { claimed_session, packet_ms, content_hash, frames, total_items, failed_items, first_fault } =
            packet;
        if failed_items > 0 {
            metrics::counter!("volant_gateway_dropped_samples_total", "reason" => "malformed")
                .increment(failed_items as u64);
        }
        if frames.is_empty() {
            count_rejected("malformed");
            let fault = first_fault.map(|(_, fault)| fault.to_string()).unwrap_or_default();
            return Step::Answer(
                ServerMessage::BatchSensorDataResponse {
                    success: false,
                    total_items,
                    successful_items: 0,
                    failed_items,
                    duplicate: false,
                    error: Some(format!("no frame is usable: {fault}")),
                }
                .encode(),
            );
        }
        let received_at_us = self.now_us();
        let kept = frames.len();
        let counts = Counts { total: total_items, kept, failed: failed_items, received_at_us };
        let packet = ingest::Packet { claimed_session, packet_ms, content_hash, frames, received_at_us };
        let (context, code) = (Arc::clone(&self.context), self.code.clone());
        Step::Work(Box::pin(async move {
            let state = &context.state;
            let claimed = packet.claimed_session.clone();
            match state.ingest.append(&code, packet).await {
                Ok(ingest::Accepted { duplicate, durable, .. }) => Outcome::Waits(Box::pin(async move {
                    match durable.await {
                        Ok(()) => kind.taken(&counts, duplicate),
                        Err(error) => kind.refused(&code, error, &counts),
                    }
                })),
                Err(error) => {
                    if error::is_stray(&error) {
                        state.sessions.device_event(&code, DeviceEvent::StrayData { claimed }).await;
                    }
                    Outcome::Answer(kind.refused(&code, error, &counts))
                }
            }
        }))
    }

    fn event(&self, event: DeviceEvent) -> Step {
        let (sessions, code) = (self.state().sessions.clone(), self.code.clone());
        Step::Work(Box::pin(async move {
            sessions.device_event(&code, event).await;
            Outcome::Silent
        }))
    }

    fn upload_complete(&self, claimed: Option<String>) -> Step {
        let (context, code) = (Arc::clone(&self.context), self.code.clone());
        Step::Work(Box::pin(async move {
            let state = &context.state;
            let answer = match state.sessions.upload_complete(&code, claimed.as_deref()).await {
                Ok(session) => ServerMessage::UploadCompleteResponse {
                    session_id: session.session_id.to_string(),
                    status: session.status.as_str(),
                    message: match session.status {
                        SessionStatus::Analyzing => "upload complete, analysis queued",
                        SessionStatus::Completed => "upload complete, analysis done before",
                        SessionStatus::Stopped => "upload complete, nothing to analyse",
                        SessionStatus::Calibrating | SessionStatus::Collecting | SessionStatus::Stopping => {
                            "session was not stopped, asking the device"
                        }
                    },
                    timestamp: LocalTime(state.clock.now_us()),
                },
                Err(error) => device_error(&code, error.into(), state.clock.now_us()),
            };
            Outcome::Answer(answer.encode())
        }))
    }

    fn status_update(&self, status: &str, session_id: Option<String>) -> Step {
        let answer = ServerMessage::StatusUpdateResponse {
            device_code: self.code.clone(),
            status: clip(status, ECHO_LIMIT_BYTES).to_owned(),
            session_id: session_id.as_deref().map(|id| clip(id, ECHO_LIMIT_BYTES).to_owned()),
            message: "status recorded",
            timestamp: LocalTime(self.now_us()),
        };
        let event = match (status, session_id) {
            ("START_COLLECTION_CONFIRMED", Some(session_id)) => DeviceEvent::StartConfirmed { session_id },
            ("STOP_COLLECTION_CONFIRMED", Some(session_id)) => DeviceEvent::StopConfirmed { session_id },
            _ => return Step::Answer(answer.encode()),
        };
        let (sessions, code, now_us) = (self.state().sessions.clone(), self.code.clone(), self.now_us());
        let claimed = match &event {
            DeviceEvent::StartConfirmed { session_id } | DeviceEvent::StopConfirmed { session_id } => {
                session_id.parse().ok()
            }
            _ => None,
        };
        Step::Work(Box::pin(async move {
            if let Some(session_id) = claimed
                && let Ok(Some(session)) = sessions.info(session_id).await
                && session.device_code != code
            {
                let foreign = sessions::Error::ForeignDevice { session_id };
                return Outcome::Answer(device_error(&code, foreign.into(), now_us).encode());
            }
            sessions.device_event(&code, event).await;
            Outcome::Answer(answer.encode())
        }))
    }

    fn poll(&self, current_session: Option<String>, status: Option<String>) -> Step {
        let (context, code) = (Arc::clone(&self.context), self.code.clone());
        Step::Work(Box::pin(async move {
            let state = &context.state;
            let now_us = state.clock.now_us();
            let answer = match state.sessions.poll(&code, current_session.as_deref(), status.as_deref()).await {
                Ok(answer) => command_response(code, answer, current_session, status, now_us),
                Err(error) => device_error(&code, error.into(), now_us),
            };
            Outcome::Answer(answer.encode())
        }))
    }
}

impl Role for DeviceRole {
    type Out = DeviceMessage;
    const ENDPOINT: Endpoint = Endpoint::Device;

    fn encode(&self, message: DeviceMessage) -> Vec<String> {
        vec![device_message(&self.code, message, self.now_us()).encode()]
    }

    fn request(&mut self, text: &str) -> (Step, usize) {
        let message = match protocol::decode(Endpoint::Device, text) {
            Ok(message) => message,
            Err(error) => {
                let (code, what) = socket::malformed(Endpoint::Device, error, Lang::En);
                return (Step::Malformed(self.refuse(code, &what)), 0);
            }
        };
        let step = match message {
            ClientMessage::Batch(packet) => {
                let frames = packet.total_items;
                return (self.frames(packet, PacketKind::Batch), frames);
            }
            ClientMessage::Sample(packet) => {
                let frames = packet.total_items;
                return (self.frames(packet, PacketKind::Sample), frames);
            }
            ClientMessage::UploadComplete { session_id } => self.upload_complete(session_id),
            ClientMessage::Heartbeat => {
                let timestamp = LocalTime(self.now_us());
                let device_code = self.code.clone();
                Step::Answer(ServerMessage::HeartbeatResponse { device_code, status: "ok", timestamp }.encode())
            }
            ClientMessage::Ack { command_id, success } => self.event(DeviceEvent::Ack { command_id, success }),
            ClientMessage::StatusResponse { collection_active, session_id, firmware_version } => {
                self.event(DeviceEvent::Status { collection_active, session_id, firmware_version })
            }
            ClientMessage::StatusUpdate { status, session_id } => self.status_update(&status, session_id),
            ClientMessage::PollCommands { current_session, status } => self.poll(current_session, status),
            ClientMessage::SessionStatus { .. }
            | ClientMessage::GetSystemStatus
            | ClientMessage::GetDeviceList
            | ClientMessage::Anything(_) => Step::Silent,
        };
        (step, 0)
    }

    fn refuse(&self, code: &'static str, what: &str) -> String {
        ServerMessage::Error {
            device_code: Some(self.code.clone()),
            user_id: None,
            error: Some(what.to_owned()),
            message: None,
            code,
            timestamp: LocalTime(self.now_us()),
        }
        .encode()
    }

    fn recheck(&self) -> Option<Later<bool>> {
        self.access.recheck(&self.context.state)
    }

    fn heard(&self, what: Heard) {
        note(&self.registration, what);
    }

    fn is_replaced(&self) -> bool {
        !self.registration.is_current()
    }
}

fn note(registration: &Registration, what: Heard) {
    match what {
        Heard::Message { bytes } => registration.note_message(bytes),
        Heard::Pong(round_trip) => registration.note_pong(round_trip),
    }
}

/// What a message with frames was, which decides the shape of its answer.
#[derive(Clone, Copy)]
enum PacketKind {
    Batch,
    Sample,
}

/// Frames of a packet.
struct Counts {
    total: usize,
    kept: usize,
    failed: usize,
    received_at_us: i64,
}

impl PacketKind {
    fn taken(self, counts: &Counts, duplicate: bool) -> String {
        metrics::counter!("volant_gateway_acked_packets_total").increment(1);
        match self {
            Self::Batch => ServerMessage::BatchSensorDataResponse {
                success: true,
                total_items: counts.total,
                successful_items: counts.kept,
                failed_items: counts.failed,
                duplicate,
                error: None,
            },
            Self::Sample => ServerMessage::SensorDataResponse {
                success: true,
                data_id: counts.received_at_us,
                duplicate,
                timestamp: UtcTime(counts.received_at_us),
            },
        }
        .encode()
    }

    fn refused(self, code: &DeviceCode, error: ingest::Error, counts: &Counts) -> String {
        let error = ApiError::from(error).logged();
        count_rejected(error.code);
        metrics::counter!("volant_gateway_dropped_samples_total", "reason" => error.code).increment(counts.kept as u64);
        match self {
            Self::Batch => ServerMessage::refused_batch(clip(&error.text(Lang::En), TEXT_LIMIT_BYTES).to_owned()),
            Self::Sample => device_error(code, error, counts.received_at_us),
        }
        .encode()
    }
}

fn count_rejected(reason: &'static str) {
    metrics::counter!("volant_gateway_rejected_packets_total", "reason" => reason).increment(1);
}

fn device_error(code: &DeviceCode, error: ApiError, now_us: i64) -> ServerMessage {
    let error = error.logged();
    ServerMessage::Error {
        device_code: Some(code.clone()),
        user_id: None,
        error: Some(clip(&error.text(Lang::En), TEXT_LIMIT_BYTES).to_owned()),
        message: None,
        code: error.code,
        timestamp: LocalTime(now_us),
    }
}

/// A message of the hub as the device reads it.
pub(super) fn device_message(code: &DeviceCode, message: DeviceMessage, now_us: i64) -> ServerMessage {
    match message {
        DeviceMessage::Start { command_id, session_id } => {
            ServerMessage::start(code.clone(), session_id, command_id, now_us)
        }
        DeviceMessage::Stop { command_id, session_id } => {
            ServerMessage::stop(code.clone(), session_id, command_id, now_us)
        }
        DeviceMessage::GetStatus { command_id } => ServerMessage::GetStatus { command_id },
        DeviceMessage::Test { message } => ServerMessage::TestMessage {
            device_code: code.clone(),
            timestamp: LocalTime(now_us),
            message: clip(&message, TEXT_LIMIT_BYTES).to_owned(),
        },
    }
}

fn command_response(
    device_code: DeviceCode,
    answer: PollAnswer,
    current_session: Option<String>,
    status: Option<String>,
    now_us: i64,
) -> ServerMessage {
    let echo = |text: Option<String>| Some(clip(&text.unwrap_or_default(), ECHO_LIMIT_BYTES).to_owned());
    let (command, session_id, message) = match answer {
        PollAnswer::Start(session) => (Some("START_COLLECTION"), Some(session.to_string()), "start"),
        PollAnswer::Stop(session) => (Some("STOP_COLLECTION"), Some(session.to_string()), "stop"),
        PollAnswer::Idle => (None, None, "no new command"),
        PollAnswer::NoSession => (None, None, "no session"),
    };
    let idle = answer == PollAnswer::Idle;
    ServerMessage::CommandResponse {
        device_code,
        timestamp: command.map(|_| LocalTime(now_us)),
        command,
        session_id,
        current_session: if idle { echo(current_session) } else { None },
        status: if idle { echo(status) } else { None },
        message,
    }
}

// ---- users --------------------------------------------------------------------------------------------------------

/// `/ws/miniprogram/{user_id}/`
pub(super) async fn user(
    AxumState(context): Shared,
    Path(id): Path<String>,
    access: Access,
    peer: Caller,
    ws: Upgrade,
) -> Result<Response, ApiError> {
    let user = access.user_of_path(&context.state, &id).await?.user_id;
    let lang = access.lang_for(&context.state, user).await?;
    let ws = upgrade(ws)?;
    let limit_bytes = context.state.options.client_message_limit_bytes;
    let span = info_span!("connection", user.id = %user);
    Ok(accept(ws, limit_bytes, peer, move |ws| user_life(context, access, user, id, lang, ws).instrument(span)))
}

async fn user_life(context: Arc<Context>, access: Access, user: UserId, id: String, lang: Lang, ws: WebSocket) {
    let state = &context.state;
    let greeting = ServerMessage::ConnectionEstablished {
        device_code: None,
        user_id: Some(id.clone()),
        message: texts::message(lang, "connected", &[]).into(),
        timestamp: LocalTime(state.clock.now_us()),
    }
    .encode();
    let (queue, inbox) = mpsc::channel(hub::QUEUE_LIMIT);
    let registration = state.hub.register_user(user, queue);
    let catch_up: Later<Outcome> = {
        let notify = state.notify.clone();
        Box::pin(async move {
            notify.user_connected(user);
            Outcome::Silent
        })
    };
    let role = UserRole { context: Arc::clone(&context), access, user, id, lang, registration };
    let options = Arc::clone(&context.options);
    let socket = Socket::new(role, ws, Some(inbox), options, state.shutdown.clone());
    drop(socket.run(greeting, Some(catch_up)).await);
}

struct UserRole {
    context: Arc<Context>,
    access: Access,
    user: UserId,
    /// As in the path.
    id: String,
    lang: Lang,
    registration: Registration,
}

impl UserRole {
    fn error(&self, code: &'static str, what: &str) -> ServerMessage {
        user_error(self.id.clone(), code, what, self.context.state.clock.now_us())
    }
}

fn user_error(id: String, code: &'static str, what: &str, now_us: i64) -> ServerMessage {
    ServerMessage::Error {
        device_code: None,
        user_id: Some(id),
        error: Some(what.to_owned()),
        message: None,
        code,
        timestamp: LocalTime(now_us),
    }
}

impl Role for UserRole {
    type Out = UserMessage;
    const ENDPOINT: Endpoint = Endpoint::User;

    fn encode(&self, message: UserMessage) -> Vec<String> {
        let (notification_id, session_id, payload) = match message {
            UserMessage::Live(live) => return vec![live_message(&live).encode()],
            UserMessage::AnalysisComplete { notification_id, session_id, payload } => {
                (notification_id, session_id, payload)
            }
        };
        match RawValue::from_string(payload.to_string()) {
            Ok(analysis_result) => vec![
                ServerMessage::AnalysisCompleteNotification {
                    notification_id,
                    session_id,
                    analysis_result,
                    timestamp: LocalTime(self.context.state.clock.now_us()),
                }
                .encode(),
            ],
            Err(source) => {
                error!(error = &source as &dyn std::error::Error, "notice {notification_id} is not JSON");
                Vec::new()
            }
        }
    }

    fn request(&mut self, text: &str) -> (Step, usize) {
        let (session_id, echo) = match protocol::decode(Endpoint::User, text) {
            Ok(ClientMessage::SessionStatus { session_id, echo }) => (session_id, echo),
            Ok(_) => return (Step::Silent, 0),
            Err(error) => {
                let (code, what) = socket::malformed(Endpoint::User, error, self.lang);
                return (Step::Malformed(self.error(code, &what).encode()), 0);
            }
        };
        let (context, user, id, lang) = (Arc::clone(&self.context), self.user, self.id.clone(), self.lang);
        let work = async move {
            let state = &context.state;
            let found = match session_id {
                Some(session) => state.sessions.info(session).await,
                None => Ok(None),
            };
            let now_us = state.clock.now_us();
            let answer = match found {
                Ok(session) => ServerMessage::SessionStatusResponse {
                    session_id: echo,
                    session_info: session.filter(|session| session.user_id == Some(user)).map(|session| {
                        SessionFields {
                            id: session.session_id,
                            status: session.status.as_str(),
                            start_time: UtcTime(session.started_at_us),
                            end_time: session.ended_at_us.map(UtcTime),
                        }
                    }),
                    timestamp: LocalTime(now_us),
                },
                Err(error) => {
                    let error = ApiError::from(error).logged();
                    user_error(id, error.code, &error.text(lang), now_us)
                }
            };
            Outcome::Answer(answer.encode())
        };
        (Step::Work(Box::pin(work)), 0)
    }

    fn refuse(&self, code: &'static str, what: &str) -> String {
        self.error(code, what).encode()
    }

    fn recheck(&self) -> Option<Later<bool>> {
        self.access.recheck(&self.context.state)
    }

    fn heard(&self, what: Heard) {
        note(&self.registration, what);
    }
}

// ---- admins -------------------------------------------------------------------------------------------------------

/// `/ws/admin/`
pub(super) async fn admin(
    AxumState(context): Shared,
    access: Access,
    peer: Caller,
    ws: Upgrade,
) -> Result<Response, ApiError> {
    access.admin()?;
    let ws = upgrade(ws)?;
    let limit_bytes = context.state.options.client_message_limit_bytes;
    let span = info_span!("connection", admin = true);
    Ok(accept(ws, limit_bytes, peer, move |ws| admin_life(context, access, ws).instrument(span)))
}

async fn admin_life(context: Arc<Context>, access: Access, ws: WebSocket) {
    let state = &context.state;
    let greeting = ServerMessage::ConnectionEstablished {
        device_code: None,
        user_id: None,
        message: texts::message(Lang::En, "connected", &[]).into(),
        timestamp: LocalTime(state.clock.now_us()),
    }
    .encode();
    let (queue, inbox) = mpsc::channel(hub::QUEUE_LIMIT);
    let registration = state.hub.register_admin(queue);
    let role = AdminRole { context: Arc::clone(&context), access, registration };
    let options = Arc::clone(&context.options);
    drop(Socket::new(role, ws, Some(inbox), options, state.shutdown.clone()).run(greeting, None).await);
}

struct AdminRole {
    context: Arc<Context>,
    access: Access,
    registration: Registration,
}

/// What is said of a session that records, as it is on the wire.
fn live_message(live: &LiveMessage) -> ServerMessage {
    let (session_id, device_code) = (live.session_id, live.device_code.clone());
    let timestamp = LocalTime(live.at_us);
    match &live.event {
        LiveEvent::Swing(swing) => {
            ServerMessage::SwingDetected { session_id, device_code, swing: swing_fields(swing), timestamp }
        }
        LiveEvent::Final(Revision { shift_ms, unchanged, changed, withdrawn, added }) => ServerMessage::SwingsRevised {
            session_id,
            device_code,
            shift_ms: *shift_ms,
            unchanged: *unchanged,
            changed: changed.iter().map(swing_fields).collect(),
            withdrawn: withdrawn.clone(),
            added: *added,
            timestamp,
        },
    }
}

fn swing_fields(swing: &LiveSwing) -> SwingFields {
    let LiveSwing { swing_id, sensor, start_ms, impact_ms, end_ms, stroke, confidence, probabilities } = swing.clone();
    SwingFields { swing_id, sensor, start_ms, impact_ms, end_ms, stroke, confidence, probabilities }
}

impl Role for AdminRole {
    type Out = ToAdmin;
    const ENDPOINT: Endpoint = Endpoint::Admin;

    /// The same twice: `system_event` is what the legacy code calls it, `system_notification` what its documents do.
    fn encode(&self, message: ToAdmin) -> Vec<String> {
        let message = match message {
            ToAdmin::Event(event) => event,
            ToAdmin::Live(live) => return vec![live_message(&live).encode()],
        };
        let fields = EventFields {
            event: message.event,
            level: match message.level {
                hub::Level::Info => "info",
                hub::Level::Warning => "warning",
                hub::Level::Error => "error",
            },
            code: message.code,
            device_code: message.device_code,
            session_id: message.session_id,
            status: message.status,
            timestamp: LocalTime(message.at_us),
        };
        vec![ServerMessage::SystemEvent(fields.clone()).encode(), ServerMessage::SystemNotification(fields).encode()]
    }

    fn request(&mut self, text: &str) -> (Step, usize) {
        let context = Arc::clone(&self.context);
        let work: Later<Outcome> = match protocol::decode(Endpoint::Admin, text) {
            Ok(ClientMessage::GetSystemStatus) => Box::pin(async move { system_status(&context.state).await }),
            Ok(ClientMessage::GetDeviceList) => Box::pin(async move { device_list(&context.state).await }),
            Ok(_) => return (Step::Silent, 0),
            Err(error) => {
                let (code, what) = socket::malformed(Endpoint::Admin, error, Lang::En);
                return (Step::Malformed(self.refuse(code, &what)), 0);
            }
        };
        (Step::Work(work), 0)
    }

    fn refuse(&self, code: &'static str, what: &str) -> String {
        admin_error(code, what, self.context.state.clock.now_us()).encode()
    }

    fn recheck(&self) -> Option<Later<bool>> {
        self.access.recheck(&self.context.state)
    }

    fn heard(&self, what: Heard) {
        note(&self.registration, what);
    }
}

fn admin_error(code: &'static str, what: &str, now_us: i64) -> ServerMessage {
    ServerMessage::Error {
        device_code: None,
        user_id: None,
        error: Some(what.to_owned()),
        message: None,
        code,
        timestamp: LocalTime(now_us),
    }
}

async fn system_status(state: &State) -> Outcome {
    let status = match state.sessions.system_counts().await {
        Ok(sessions::SystemCounts { active_sessions, total_sessions, total_sensor_data }) => {
            SystemFigures::Healthy { active_sessions, total_sessions, total_sensor_data, status: "healthy" }
        }
        Err(error) => SystemFigures::Failing { status: "error", error: ApiError::from(error).logged().message },
    };
    let timestamp = LocalTime(state.clock.now_us());
    Outcome::Answer(ServerMessage::SystemStatus { status, timestamp }.encode())
}

async fn device_list(state: &State) -> Outcome {
    let timestamp = LocalTime(state.clock.now_us());
    let answer = match state.sessions.device_list().await {
        Ok(devices) => ServerMessage::DeviceList {
            devices: devices
                .into_iter()
                .map(|device| DeviceLine {
                    device_code: device.device_code,
                    data_count: device.data_count,
                    last_seen: device.last_seen_us.map(UtcTime),
                })
                .collect(),
            timestamp,
        },
        Err(error) => {
            let error = ApiError::from(error).logged();
            admin_error(error.code, &error.text(Lang::En), timestamp.0)
        }
    };
    Outcome::Answer(answer.encode())
}

// ---- the root -----------------------------------------------------------------------------------------------------

/// `/`: a socket that explains where to go; a request that is no upgrade goes to the page.
pub(super) async fn root(AxumState(context): Shared, peer: Caller, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(ws) = WebSocketUpgrade::from_request_parts(&mut parts, &context).await else {
        let request = Request::from_parts(parts, body);
        let Ok(response) = context.extra.clone().oneshot(request).await;
        return response;
    };
    let limit_bytes = context.state.options.client_message_limit_bytes;
    let span = info_span!("connection", root = true);
    accept(ws, limit_bytes, peer, move |ws| {
        async move {
            let greeting = ServerMessage::welcome(context.state.clock.now_us()).encode();
            let (options, shutdown) = (Arc::clone(&context.options), context.state.shutdown.clone());
            drop(Socket::new(RootRole { context }, ws, None, options, shutdown).run(greeting, None).await);
        }
        .instrument(span)
    })
}

struct RootRole {
    context: Arc<Context>,
}

impl Role for RootRole {
    type Out = Infallible;
    const ENDPOINT: Endpoint = Endpoint::Root;

    fn encode(&self, message: Self::Out) -> Vec<String> {
        match message {}
    }

    fn request(&mut self, text: &str) -> (Step, usize) {
        let step = match protocol::decode(Endpoint::Root, text) {
            Ok(ClientMessage::Anything(value)) => {
                Step::Answer(ServerMessage::usage_guide(value, self.context.state.clock.now_us()).encode())
            }
            Ok(_) => Step::Silent,
            Err(error) => {
                let (code, what) = socket::malformed(Endpoint::Root, error, Lang::En);
                Step::Malformed(self.refuse(code, &what))
            }
        };
        (step, 0)
    }

    fn refuse(&self, code: &'static str, what: &str) -> String {
        ServerMessage::Error {
            device_code: None,
            user_id: None,
            error: None,
            message: Some(what.to_owned()),
            code,
            timestamp: LocalTime(self.context.state.clock.now_us()),
        }
        .encode()
    }
}
