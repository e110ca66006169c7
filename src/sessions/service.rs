//! The sessions service: one async mutex a device, one timer over all of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::OptionFuture;
use schemas::{DeviceCode, SessionId, SessionStatus, UserId};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{Instrument, error, info, info_span, warn};

use super::device::{Device, Doubted, Live, Pending};
use super::{Commanded, DeviceEvent, DeviceRow, DeviceStatus, Ended, Error, Filter, SessionInfo, SystemCounts};
use crate::clock::Clock;
use crate::hub::{self, AdminMessage, DeviceMessage, Level, Sent};
use crate::ingest;
use crate::push;
use crate::store::catalog::{Catalog, NewSession, SessionKind, SessionRow};
use crate::store::wal;

use SessionStatus::{Analyzing, Calibrating, Collecting, Stopped, Stopping};

/// Times of the state machine. What happens at each is said with it.
#[derive(Clone, Debug)]
pub struct Options {
    /// A command that was not confirmed is sent again.
    pub command_resend: Duration,
    /// A started session whose device never confirmed and never sent a frame is stopped.
    pub start_timeout: Duration,
    /// A session (or collection) whose frames ceased is ended: what is there is analysed.
    pub idle_timeout: Duration,
    /// A session that records and gets no frames for so long is told to the admins.
    pub silent_after: Duration,
    /// A stopped session whose device is connected but owes `upload_complete` is analysed without it.
    pub upload_timeout: Duration,
    /// The same for a device that is not connected: it may come back and send what it holds.
    pub offline_timeout: Duration,
    /// An `upload_complete` for a session that nobody stopped is believed after this long without an answer to
    /// `get_status` and without frames.
    pub doubt_timeout: Duration,
    /// Frames that name a session are taken for so long after its `upload_complete`; they make a new revision.
    pub late_grace: Duration,
    /// Late frames are sealed together when none came for so long.
    pub late_settle: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            command_resend: Duration::from_secs(3),
            start_timeout: Duration::from_secs(15 * 60),
            idle_timeout: Duration::from_secs(10 * 60),
            silent_after: Duration::from_secs(10),
            upload_timeout: Duration::from_secs(15),
            offline_timeout: Duration::from_secs(120),
            doubt_timeout: Duration::from_secs(3),
            late_grace: Duration::from_secs(30),
            late_settle: Duration::from_secs(1),
        }
    }
}

/// How often timeouts are looked at.
const TICK: Duration = Duration::from_millis(500);
/// Pause after a seal that failed, on a full disk for instance.
const SEAL_RETRY: Duration = Duration::from_secs(5);
/// A polling device that was heard so lately is there; the sketch polls every 3 s.
const POLL_PATIENCE: Duration = Duration::from_secs(30);
/// The longest group code, in bytes.
const GROUP_LIMIT_BYTES: usize = 64;

/// The sessions room. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    options: Options,
    pub(super) clock: Clock,
    pub(super) catalog: Catalog,
    pub(super) hub: hub::Handle,
    pub(super) ingest: ingest::Handle,
    pub(super) push: push::Handle,
    devices: Mutex<HashMap<DeviceCode, Arc<tokio::sync::Mutex<Device>>>>,
    /// When this process started, s since 1970.
    started_s: i64,
    next_command: AtomicU64,
    /// When a session whose seal failed is tried again, µs.
    seal_again_us: Mutex<HashMap<SessionId, i64>>,
    /// Told when a job was committed.
    job_ready: Arc<Notify>,
}

/// The part that runs by itself: events of ingest, timeouts.
#[derive(Debug)]
pub struct Service {
    handle: Handle,
    events: mpsc::Receiver<ingest::Event>,
    /// Sessions are being closed.
    closing: Option<JoinHandle<()>>,
}

fn us(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Handle {
    /// The room and its running part. `job_ready` is told whenever a job waits in the catalog.
    #[expect(clippy::too_many_arguments, reason = "one argument a room that it works with, each used")]
    #[must_use]
    pub fn new(
        options: Options,
        clock: Clock,
        catalog: Catalog,
        hub: hub::Handle,
        push: push::Handle,
        ingest: ingest::Handle,
        events: mpsc::Receiver<ingest::Event>,
        job_ready: Arc<Notify>,
    ) -> (Self, Service) {
        let handle = Self(Arc::new(Inner {
            options,
            started_s: clock.now_us() / 1_000_000,
            clock,
            catalog,
            hub,
            ingest,
            push,
            devices: Mutex::default(),
            next_command: AtomicU64::new(1),
            seal_again_us: Mutex::default(),
            job_ready,
        }));
        (handle.clone(), Service { handle, events, closing: None })
    }

    /// Takes over sessions that were open when the process ended. Call it before anybody is served.
    pub async fn adopt(&self, sessions: Vec<SessionRow>) {
        for session in sessions {
            if session.status.accepts_frames() && session.kind == SessionKind::Session {
                let device = self.device(&session.device_code);
                let mut device = device.lock().await;
                device.live = Some(Live {
                    session: session.session_id,
                    status: session.status,
                    started_at_us: session.started_at_us,
                    changed_at_us: self.0.clock.now_us(),
                });
            }
        }
    }

    pub(super) fn device(&self, code: &DeviceCode) -> Arc<tokio::sync::Mutex<Device>> {
        let mut devices = self.0.devices.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(devices.entry(code.clone()).or_default())
    }

    /// A command id that the firmware can echo: short, a string, and not that of an earlier process, whose late
    /// acknowledgement must not confirm a command of this one.
    pub(super) fn command_id(&self) -> String {
        format!("c-{:x}-{:04}", self.0.started_s, self.0.next_command.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends a command and remembers it until the device confirms.
    fn command(&self, code: &DeviceCode, device: &mut Device, message: DeviceMessage) -> Sent {
        let command_id = match &message {
            DeviceMessage::Start { command_id, .. }
            | DeviceMessage::Stop { command_id, .. }
            | DeviceMessage::GetStatus { command_id } => command_id.clone(),
            DeviceMessage::Test { .. } => String::new(),
        };
        let sent = self.0.hub.send_to_device(code, message.clone());
        self.0.push.send(code, &message);
        metrics::counter!("volant_sessions_commands_total").increment(1);
        device.pending = Some(Pending { command_id, message, sent_at_us: self.0.clock.now_us(), attempts: 1 });
        sent
    }

    pub(super) fn info_of(&self, row: SessionRow) -> SessionInfo {
        let taken = self.0.ingest.live(row.session_id).map_or(0, |live| live.frames as i64);
        SessionInfo {
            session_id: row.session_id,
            device_code: row.device_code,
            group_code: row.group_code,
            user_id: row.user_id,
            status: row.status,
            reason: row.reason,
            started_at_us: row.started_at_us,
            ended_at_us: row.ended_at_us,
            frame_count: taken.max(row.sealed_rows),
            revision: row.revision,
        }
    }

    pub(super) async fn row(&self, session: SessionId) -> Result<SessionRow, Error> {
        let row = self.0.catalog.session(session).await?;
        row.ok_or_else(|| Error::NotFound { session_id: session.to_string() })
    }

    /// Moves a session in the catalog, tells ingest and the admins. `None` if it was in none of the states `from`.
    async fn transition(
        &self,
        session: SessionId,
        from: &[SessionStatus],
        to: SessionStatus,
        reason: Option<&str>,
    ) -> Result<Option<SessionRow>, Error> {
        let now_us = self.0.clock.now_us();
        let ended = !matches!(to, Calibrating | Collecting);
        let Some(row) = self.0.catalog.move_session(session, from, to, ended, reason, now_us).await? else {
            return Ok(None);
        };
        self.0.ingest.set_status(session, to);
        info!(session.id = %session, session.status = %to, "session {session} is {to}");
        self.tell_admins_status(&row);
        Ok(Some(row))
    }

    fn tell_admins_status(&self, row: &SessionRow) {
        let reason = row.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        self.0.hub.send_to_admins(&AdminMessage {
            event: format!("session {} of device {} is {}{reason}", row.session_id, row.device_code, row.status),
            level: if row.status == Stopped { Level::Warning } else { Level::Info },
            code: "session_status".to_owned(),
            device_code: Some(row.device_code.clone()),
            session_id: Some(row.session_id),
            status: Some(row.status.as_str().to_owned()),
            at_us: row.changed_at_us,
        });
    }

    /// Opens a session and commands its device to start. A live session of the same device is ended in order first.
    pub async fn start(&self, user: UserId, group_code: &str, code: DeviceCode) -> Result<Commanded, Error> {
        if group_code.is_empty() || group_code.len() > GROUP_LIMIT_BYTES || group_code.chars().any(char::is_control) {
            return Err(Error::InvalidGroup);
        }
        // Better said now than to somebody who has played for an hour.
        if let Some(failure) = self.0.ingest.log_failure(wal::Room::ForASession).await {
            return Err(Error::Log(failure));
        }
        let device = self.device(&code);
        let mut device = device.lock().await;
        if let Some(live) = device.live {
            // The device switches to the new session at once, so no upload_complete will come for the old one: what is
            // there is analysed.
            self.complete(&code, &mut device, live.session, Some("ended by the next start")).await?;
        }
        let started_at_us = self.0.clock.now_us();
        let row = self
            .0
            .catalog
            .insert_session(&NewSession {
                kind: SessionKind::Session,
                device_code: code.clone(),
                group_code: group_code.to_owned(),
                claimed_id: None,
                user_id: Some(user),
                status: Calibrating,
                started_at_us,
            })
            .await?;
        self.0.ingest.open_session(&row);
        let session = row.session_id;
        device.live = Some(Live { session, status: Calibrating, started_at_us, changed_at_us: started_at_us });
        device.doubted = None;
        info!(session.id = %session, device.id = %code, "session {session} started on device {code}");
        metrics::counter!("volant_sessions_started_total").increment(1);
        self.tell_admins_status(&row);
        let command = DeviceMessage::Start { command_id: self.command_id(), session_id: session };
        let sent = self.command(&code, &mut device, command.clone());
        Ok(Commanded { session: self.info_of(row), command, sent })
    }

    /// `start_data_collection`: calibrating to collecting (already collecting is fine), command again.
    pub async fn begin_collection(
        &self,
        session: SessionId,
        requested: Option<&DeviceCode>,
    ) -> Result<Commanded, Error> {
        let row = self.row(session).await?;
        refuse_foreign(&row, requested)?;
        let code = row.device_code.clone();
        let device = self.device(&code);
        let mut device = device.lock().await;
        let row = match self.transition(session, &[Calibrating], Collecting, None).await? {
            Some(row) => row,
            None => match self.row(session).await? {
                row if row.status == Collecting => row,
                row => {
                    return Err(Error::WrongState { session_id: session, status: row.status, needed: "calibrating" });
                }
            },
        };
        if let Some(live) = device.live_as(session) {
            live.status = Collecting;
            live.changed_at_us = row.changed_at_us;
        }
        let command = DeviceMessage::Start { command_id: self.command_id(), session_id: session };
        let sent = self.command(&code, &mut device, command.clone());
        Ok(Commanded { session: self.info_of(row), command, sent })
    }

    /// `end_session`: to stopping. Idempotent: a session that has ended already is returned as it is.
    pub async fn end(&self, session: SessionId, requested: Option<&DeviceCode>) -> Result<Ended, Error> {
        let row = self.row(session).await?;
        refuse_foreign(&row, requested)?;
        let code = row.device_code.clone();
        let device = self.device(&code);
        let mut device = device.lock().await;
        let Some(row) = self.transition(session, &[Calibrating, Collecting], Stopping, None).await? else {
            let row = self.row(session).await?;
            return Ok(Ended { session: self.info_of(row), command: None, sent: Sent::NotConnected });
        };
        device.live = Some(Live {
            session,
            status: Stopping,
            started_at_us: row.started_at_us,
            changed_at_us: row.changed_at_us,
        });
        let command = DeviceMessage::Stop { command_id: self.command_id(), session_id: session };
        let sent = self.command(&code, &mut device, command.clone());
        Ok(Ended { session: self.info_of(row), command: Some(command), sent })
    }

    /// `upload_complete` of a device. Idempotent; answers at once, sealing and analysis follow.
    ///
    /// For a session that nobody stopped (a left-over of the firmware's last session, or a stop on the device itself) the
    /// device is asked first, see [`Options::doubt_timeout`].
    pub async fn upload_complete(&self, code: &DeviceCode, claimed: Option<&str>) -> Result<SessionInfo, Error> {
        let claimed = claimed.ok_or(Error::NoSession)?;
        let not_found = || Error::NotFound { session_id: claimed.chars().take(64).collect() };
        let session: SessionId = claimed.parse().map_err(|_| not_found())?;
        let device = self.device(code);
        let mut device = device.lock().await;
        let row = self.0.catalog.session(session).await?.ok_or_else(not_found)?;
        if row.device_code != *code {
            return Err(Error::ForeignDevice { session_id: session });
        }
        match row.status {
            Stopping => self.complete(code, &mut device, session, None).await?,
            Calibrating | Collecting => {
                device.doubted = Some(Doubted { session, asked_at_us: self.0.clock.now_us() });
                let ask = DeviceMessage::GetStatus { command_id: self.command_id() };
                self.0.hub.send_to_device(code, ask);
            }
            SessionStatus::Analyzing | SessionStatus::Completed | Stopped => {}
        }
        let row = self.row(session).await?;
        Ok(self.info_of(row))
    }

    /// Ends the taking of frames and starts what follows. The caller holds the device.
    pub(super) async fn complete(
        &self,
        code: &DeviceCode,
        device: &mut Device,
        session: SessionId,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        device.live.take_if(|live| live.session == session);
        device.doubted.take_if(|doubted| doubted.session == session);
        let of_this_session = |pending: &Pending| match pending.message {
            DeviceMessage::Start { session_id, .. } | DeviceMessage::Stop { session_id, .. } => session_id == session,
            DeviceMessage::GetStatus { .. } | DeviceMessage::Test { .. } => false,
        };
        device.pending.take_if(|pending| of_this_session(pending));
        let has_frames = self.0.ingest.live(session).is_some_and(|live| live.frames > 0);
        if has_frames {
            self.transition(session, &[Calibrating, Collecting, Stopping], Analyzing, None).await?;
            let handle = self.clone();
            let span = info_span!("seal", session.id = %session, device.id = %code);
            tokio::spawn(async move { handle.seal(session).await }.instrument(span));
        } else {
            let reason = reason.unwrap_or("no frames arrived");
            self.transition(session, &[Calibrating, Collecting, Stopping], Stopped, Some(reason)).await?;
        }
        Ok(())
    }

    /// Seals what a session holds; a failure is tried again by the timer, so it is only told here.
    async fn seal(&self, session: SessionId) {
        match self.0.ingest.seal(session).await {
            Ok(Some(sealed)) => {
                info!(
                    frames.count = sealed.rows,
                    file.bytes = sealed.bytes,
                    file.revision = sealed.revision,
                    "session {session} sealed: {} frames",
                    sealed.rows
                );
                self.0.job_ready.notify_one();
            }
            Ok(None) => {
                let is_empty = |live: ingest::Live| live.revision == 0 && live.frames == 0;
                if self.0.ingest.live(session).is_some_and(is_empty)
                    && let Err(error) =
                        self.transition(session, &[Analyzing], Stopped, Some("no frame could be stored")).await
                {
                    error!(error = &error as &dyn std::error::Error, "session {session} could not be ended");
                }
            }
            Err(error) => {
                metrics::counter!("volant_sessions_failed_seals_total").increment(1);
                let again_us = self.0.clock.now_us() + us(SEAL_RETRY);
                self.0.seal_again_us.lock().unwrap_or_else(PoisonError::into_inner).insert(session, again_us);
                error!(error = &error as &dyn std::error::Error, "session {session} could not be sealed, trying again");
            }
        }
    }

    /// One session.
    pub async fn info(&self, session: SessionId) -> Result<Option<SessionInfo>, Error> {
        Ok(self.0.catalog.session(session).await?.map(|row| self.info_of(row)))
    }

    /// The newest session, of one user or (admins only) of all, and how many there are.
    pub async fn latest(&self, user: Option<UserId>) -> Result<(Option<SessionInfo>, i64), Error> {
        let latest = self.0.catalog.latest_session(user).await?;
        let (total, ..) = self.0.catalog.counts(user).await?;
        Ok((latest.map(|row| self.info_of(row)), total))
    }

    /// Sessions, the newest first.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<SessionInfo>, Error> {
        let Filter { user, device, status, before, limit } = filter;
        let rows = self.0.catalog.sessions_page(*user, device.as_ref(), *status, *before, *limit).await?;
        Ok(rows.into_iter().map(|row| self.info_of(row)).collect())
    }

    /// A device socket is up: reconcile what device and server believe.
    ///
    /// The device says nothing by itself and may go on streaming under the session it had before a drop, so it is told
    /// what it should be doing; both commands are idempotent.
    pub async fn device_connected(&self, code: &DeviceCode) {
        let now_us = self.0.clock.now_us();
        if let Err(error) = self.0.catalog.device_seen(code, None, now_us).await {
            warn!(error = &error as &dyn std::error::Error, "device {code} could not be noted");
        }
        self.tell_admins_device(code, "device_connected", &format!("device {code} connected"));
        let device = self.device(code);
        let mut device = device.lock().await;
        device.stray_stopped = false;
        match device.live {
            Some(Live { session, status: Calibrating | Collecting, .. }) => {
                let message = DeviceMessage::Start { command_id: self.command_id(), session_id: session };
                self.command(code, &mut device, message);
            }
            Some(Live { session, .. }) => {
                let message = DeviceMessage::Stop { command_id: self.command_id(), session_id: session };
                self.command(code, &mut device, message);
            }
            None => {
                let ask = DeviceMessage::GetStatus { command_id: self.command_id() };
                self.0.hub.send_to_device(code, ask);
            }
        }
    }

    /// A device socket is gone.
    pub async fn device_disconnected(&self, code: &DeviceCode) {
        if let Err(error) = self.0.catalog.device_seen(code, None, self.0.clock.now_us()).await {
            warn!(error = &error as &dyn std::error::Error, "device {code} could not be noted");
        }
        self.tell_admins_device(code, "device_disconnected", &format!("device {code} disconnected"));
    }

    fn tell_admins_device(&self, code: &DeviceCode, event_code: &str, event: &str) {
        self.0.hub.send_to_admins(&AdminMessage {
            event: event.to_owned(),
            level: Level::Info,
            code: event_code.to_owned(),
            device_code: Some(code.clone()),
            session_id: None,
            status: None,
            at_us: self.0.clock.now_us(),
        });
    }

    fn tell_admins_silence(
        &self,
        code: &DeviceCode,
        session: SessionId,
        event_code: &str,
        event: String,
        level: Level,
    ) {
        self.0.hub.send_to_admins(&AdminMessage {
            event,
            level,
            code: event_code.to_owned(),
            device_code: Some(code.clone()),
            session_id: Some(session),
            status: None,
            at_us: self.0.clock.now_us(),
        });
    }

    /// Something a device said. Nothing of it can fail towards the device: it does not listen.
    pub async fn device_event(&self, code: &DeviceCode, event: DeviceEvent) {
        let device = self.device(code);
        let mut device = device.lock().await;
        let outcome = match event {
            DeviceEvent::Ack { command_id, success } => self.acknowledged(&mut device, &command_id, success).await,
            DeviceEvent::Status { collection_active, session_id, firmware_version } => {
                let told = DeviceStatus {
                    collection_active,
                    session_id: session_id.clone(),
                    firmware_version: firmware_version.clone(),
                };
                device.told = Some((self.0.clock.now_us(), told));
                if let Some(firmware) = firmware_version {
                    let now_us = self.0.clock.now_us();
                    if let Err(error) = self.0.catalog.device_seen(code, Some(&firmware), now_us).await {
                        warn!(error = &error as &dyn std::error::Error, "device {code} could not be noted");
                    }
                }
                self.reported(code, &mut device, collection_active, session_id.as_deref()).await
            }
            DeviceEvent::StartConfirmed { session_id } => match session_id.parse() {
                Ok(session) => self.collecting(&mut device, session).await,
                Err(_) => Ok(()),
            },
            DeviceEvent::StopConfirmed { session_id } => {
                let stops = |pending: &mut Pending| matches!(pending.message, DeviceMessage::Stop { session_id: of, .. } if of.to_string() == session_id);
                device.pending.take_if(stops);
                Ok(())
            }
            DeviceEvent::StrayData { claimed } => {
                self.stop_stray(code, &mut device, claimed.as_deref());
                Ok(())
            }
        };
        if let Err(error) = outcome {
            error!(error = &error as &dyn std::error::Error, device.id = %code, "device {code} could not be followed");
        }
    }

    async fn acknowledged(&self, device: &mut Device, command_id: &str, success: bool) -> Result<(), Error> {
        let starts = match &device.pending {
            Some(Pending { command_id: of, message: DeviceMessage::Start { session_id, .. }, .. })
                if of == command_id =>
            {
                Some(*session_id)
            }
            _ => None,
        };
        if !success {
            metrics::counter!("volant_sessions_refused_commands_total").increment(1);
            return Ok(());
        }
        device.confirm(command_id);
        match starts {
            Some(session) => self.collecting(device, session).await,
            None => Ok(()),
        }
    }

    /// A session's device confirmed, or its first frames arrived.
    async fn collecting(&self, device: &mut Device, session: SessionId) -> Result<(), Error> {
        let starts = |pending: &mut Pending| matches!(pending.message, DeviceMessage::Start { session_id, .. } if session_id == session);
        device.pending.take_if(starts);
        let Some(live) = device.live_as(session).filter(|live| live.status == Calibrating) else {
            return Ok(());
        };
        live.status = Collecting;
        live.changed_at_us = self.0.clock.now_us();
        self.transition(session, &[Calibrating], Collecting, None).await?;
        Ok(())
    }

    /// The device told what it is doing.
    async fn reported(
        &self,
        code: &DeviceCode,
        device: &mut Device,
        active: bool,
        session: Option<&str>,
    ) -> Result<(), Error> {
        let told: Option<SessionId> = session.and_then(|session| session.parse().ok());
        if let Some(Doubted { session, .. }) = device.doubted.take() {
            if !active && told == Some(session) {
                return self.complete(code, device, session, None).await;
            }
            // It streams, or it is elsewhere: that upload_complete was left over from another session.
            metrics::counter!("volant_sessions_leftover_uploads_total").increment(1);
            return Ok(());
        }
        match device.live {
            Some(Live { session, status: Calibrating, .. }) if active && told == Some(session) => {
                self.collecting(device, session).await
            }
            None if active => {
                self.stop_stray(code, device, session);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Tells a device that streams for no active session to stop: once a connection, since it might be meant.
    fn stop_stray(&self, code: &DeviceCode, device: &mut Device, claimed: Option<&str>) {
        let session: Option<SessionId> = claimed.and_then(|claimed| claimed.parse().ok());
        let Some(session_id) = session else { return };
        if device.live.is_some_and(|live| live.session == session_id) || device.stray_stopped {
            return;
        }
        device.stray_stopped = true;
        metrics::counter!("volant_sessions_stray_streams_total").increment(1);
        match device.live {
            // It streams under an old session although a new one is on: the start did not reach it.
            Some(Live { session, status: Calibrating | Collecting, .. }) => {
                let message = DeviceMessage::Start { command_id: self.command_id(), session_id: session };
                self.command(code, device, message);
            }
            _ => {
                let message = DeviceMessage::Stop { command_id: self.command_id(), session_id };
                self.0.hub.send_to_device(code, message);
            }
        }
    }

    /// Figures for `get_system_status`.
    pub async fn system_counts(&self) -> Result<SystemCounts, Error> {
        let (total_sessions, active_sessions, sealed) = self.0.catalog.counts(None).await?;
        let live: i64 =
            self.0.ingest.all_live().iter().filter(|live| live.revision == 0).map(|live| live.frames as i64).sum();
        Ok(SystemCounts { active_sessions, total_sessions, total_sensor_data: sealed + live })
    }

    /// Devices ever seen, the latest first.
    pub async fn device_list(&self) -> Result<Vec<DeviceRow>, Error> {
        let live = self.0.ingest.all_live();
        let mut rows: Vec<DeviceRow> = self
            .0
            .catalog
            .devices()
            .await?
            .into_iter()
            .map(|device| {
                let mine = || live.iter().filter(|live| live.device == device.device_code);
                let unsealed: i64 = mine().filter(|live| live.revision == 0).map(|live| live.frames as i64).sum();
                let last_frame_us = mine().filter_map(|live| live.last_packet_us).max();
                DeviceRow {
                    firmware: device.firmware,
                    first_seen_us: device.first_seen_us,
                    data_count: device.sealed_rows + unsealed,
                    last_seen_us: Some(device.last_seen_us.max(last_frame_us.unwrap_or(i64::MIN))),
                    device_code: device.device_code,
                }
            })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.last_seen_us));
        Ok(rows)
    }
}

/// A request that names another device than the session's is refused.
fn refuse_foreign(row: &SessionRow, requested: Option<&DeviceCode>) -> Result<(), Error> {
    match requested {
        Some(code) if *code != row.device_code => Err(Error::ForeignDevice { session_id: row.session_id }),
        _ => Ok(()),
    }
}

impl Service {
    /// Runs until `shutdown` turns true.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = crate::shutdown::requested(&mut shutdown) => break,
                Some(event) = self.events.recv() => self.noted(event).await,
                _ = tick.tick() => self.look(&shutdown).await,
            }
        }
        if let Some(Err(error)) = OptionFuture::from(self.closing.take()).await {
            error!(error = &error as &dyn std::error::Error, "closing sessions broke");
        }
    }

    async fn noted(&self, event: ingest::Event) {
        match event {
            ingest::Event::FirstFrames { session_id, device: code } => {
                let device = self.handle.device(&code);
                let mut device = device.lock().await;
                if let Err(error) = self.handle.collecting(&mut device, session_id).await {
                    // The next look does it.
                    warn!(error = &error as &dyn std::error::Error, "session {session_id} could not be moved on");
                }
            }
            ingest::Event::Full { session_id } => {
                if let Err(error) = self.handle.end_full(session_id).await {
                    // The next packet that is refused asks again.
                    warn!(error = &error as &dyn std::error::Error, "full session {session_id} could not be ended");
                }
            }
            // The next look seals them.
            ingest::Event::LateFrames { .. } => {}
        }
    }

    /// Looks at every command, session and recording, and does what is due.
    async fn look(&mut self, shutdown: &watch::Receiver<bool>) {
        let handle = &self.handle;
        let devices: Vec<_> = {
            let devices = handle.0.devices.lock().unwrap_or_else(PoisonError::into_inner);
            devices.iter().map(|(code, device)| (code.clone(), Arc::clone(device))).collect()
        };
        for (code, device) in devices {
            // A device that is busy right now is looked at next time; it must not hold up the others.
            let Ok(mut device) = device.try_lock() else { continue };
            if let Err(error) = handle.look_at_device(&code, &mut device).await {
                error!(error = &error as &dyn std::error::Error, device.id = %code, "device {code} could not be looked at");
            }
        }
        let mut due = Vec::new();
        for live in handle.0.ingest.all_live() {
            let (session, frames) = (live.session_id, live.frames);
            match handle.look_at_recording(live).await {
                Ok(is_due) => due.extend(is_due.then_some((session, frames))),
                Err(error) => {
                    error!(error = &error as &dyn std::error::Error, session.id = %session, "session {session} could not be looked at");
                }
            }
        }
        if !due.is_empty() && self.closing.as_ref().is_none_or(JoinHandle::is_finished) {
            self.closing = Some(tokio::spawn(close(handle.0.ingest.clone(), due, shutdown.clone())));
        }
    }
}

/// Frames of sessions that wait to be closed while the files of others are made smaller, at most: they are in memory until then, a
/// gigabyte of them. What is more is closed with the file that it has.
const CLOSING_LIMIT_FRAMES: usize = 12_000_000;

/// Closes sessions, each with its frames, one after the other: the file of a long one takes seconds to be made smaller, and nothing else
/// is to wait for that.
async fn close(ingest: ingest::Handle, sessions: Vec<(SessionId, usize)>, shutdown: watch::Receiver<bool>) {
    let mut waiting: usize = sessions.iter().map(|(_, frames)| frames).sum();
    for (session, frames) in sessions {
        if *shutdown.borrow() {
            return;
        }
        let has_time = waiting <= CLOSING_LIMIT_FRAMES;
        let close = async {
            if has_time && !ingest.make_smaller(session, &shutdown).await? {
                return Ok(false);
            }
            ingest.close(session).await
        };
        // What is not closed now is due again at the next look.
        if let Err(error) = close.await {
            error!(error = &error as &dyn std::error::Error, session.id = %session, "session {session} could not be closed");
        }
        waiting -= frames;
    }
}

impl Handle {
    /// A full session ends as if its player had ended it, and its device is told to stop. A full collection is complete:
    /// the next one is open already.
    async fn end_full(&self, session: SessionId) -> Result<(), Error> {
        match self.row(session).await?.kind {
            SessionKind::Session => self.end(session, None).await.map(drop),
            SessionKind::Collection => self.finish(session).await.map(drop),
        }
    }

    async fn look_at_device(&self, code: &DeviceCode, device: &mut Device) -> Result<(), Error> {
        let now_us = self.0.clock.now_us();
        let options = &self.0.options;
        if let Some(pending) = &mut device.pending
            && now_us - pending.sent_at_us >= us(options.command_resend) * i64::from(pending.attempts.min(10))
            && self.0.hub.is_connected(code)
        {
            // The same id again: the device may have carried it out and only the answer was lost.
            pending.sent_at_us = now_us;
            pending.attempts += 1;
            metrics::counter!("volant_sessions_resent_commands_total").increment(1);
            self.0.hub.send_to_device(code, pending.message.clone());
        }
        let Some(live) = device.live else { return Ok(()) };
        let recording = self.0.ingest.live(live.session);
        let frames = recording.as_ref().map_or(0, |recording| recording.frames);
        let last_packet_us = recording.as_ref().and_then(|recording| recording.last_packet_us);
        let quiet_us = now_us - last_packet_us.unwrap_or(live.changed_at_us).max(live.changed_at_us);
        if live.status == Calibrating && frames > 0 {
            self.collecting(device, live.session).await?;
        }
        let silent = live.status == Collecting && quiet_us >= us(options.silent_after);
        if silent && device.silent != Some(live.session) {
            device.silent = Some(live.session);
            let text = format!("device {code}: no frames of session {} for {} s", live.session, quiet_us / 1_000_000);
            self.tell_admins_silence(code, live.session, "device_silent", text, Level::Warning);
        } else if !silent && device.silent.take_if(|session| *session == live.session).is_some() {
            let text = format!("device {code}: frames of session {} come again", live.session);
            self.tell_admins_silence(code, live.session, "device_streams", text, Level::Info);
        }
        if let Some(doubted) = device.doubted
            && now_us - doubted.asked_at_us >= us(options.doubt_timeout)
        {
            device.doubted = None;
            if last_packet_us.is_none_or(|at_us| at_us <= doubted.asked_at_us) {
                return self.complete(code, device, doubted.session, None).await;
            }
            metrics::counter!("volant_sessions_leftover_uploads_total").increment(1);
        }
        let due = match live.status {
            Calibrating if frames == 0 => {
                (now_us - live.started_at_us >= us(options.start_timeout)).then_some("the device never started")
            }
            Calibrating | Collecting => (quiet_us >= us(options.idle_timeout)).then_some("the frames ceased"),
            Stopping => {
                // A device that polls sends nothing when it stops: that it is heard is all that there will be.
                let polls = device.heard_at_us.is_some_and(|at_us| now_us - at_us < us(POLL_PATIENCE));
                let connected = polls || self.0.hub.is_connected(code);
                let limit = if connected { options.upload_timeout } else { options.offline_timeout };
                (quiet_us >= us(limit)).then_some("no upload_complete came")
            }
            _ => None,
        };
        if let Some(reason) = due {
            metrics::counter!("volant_sessions_timeouts_total").increment(1);
            warn!(session.id = %live.session, device.id = %code, "session {} ends by timeout: {reason}", live.session);
            self.complete(code, device, live.session, Some(reason)).await?;
        }
        Ok(())
    }

    /// True if it is time to close the recording.
    async fn look_at_recording(&self, live: ingest::Live) -> Result<bool, Error> {
        let now_us = self.0.clock.now_us();
        let options = &self.0.options;
        let session = live.session_id;
        let since_packet_us = now_us - live.last_packet_us.unwrap_or(live.started_at_us);
        match live.status {
            // A session is looked at with its device; a collection has nobody to stop it but its own silence.
            Calibrating | Collecting | Stopping => {
                if live.is_collection && since_packet_us >= us(options.idle_timeout.min(options.offline_timeout)) {
                    let device = self.device(&live.device);
                    let mut device = device.lock().await;
                    self.complete(&live.device, &mut device, session, Some("the frames ceased")).await?;
                }
            }
            Analyzing | SessionStatus::Completed | Stopped => {
                let unsealed = !live.is_sealed;
                // A first seal that failed is tried again here; later frames wait until they have settled.
                let settle = if live.revision == 0 { us(Duration::from_secs(5)) } else { us(options.late_settle) };
                let failed_lately = {
                    let mut again = self.0.seal_again_us.lock().unwrap_or_else(PoisonError::into_inner);
                    again.retain(|_, at_us| *at_us > now_us);
                    again.contains_key(&session)
                };
                if unsealed && failed_lately {
                    return Ok(false);
                }
                if unsealed && since_packet_us >= settle {
                    self.seal(session).await;
                } else if !unsealed && since_packet_us >= us(options.late_grace) {
                    let row = self.row(session).await?;
                    return Ok(row.changed_at_us + us(options.late_grace) <= now_us);
                }
            }
        }
        Ok(false)
    }
}
