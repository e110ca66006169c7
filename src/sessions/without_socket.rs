//! What comes and goes without a socket: polls and signs of life, the word that an upload is complete, whole recordings,
//! the address of a device's own server.

use std::net::IpAddr;
use std::time::Duration;

use schemas::{DeviceCode, FrameColumns, SessionId, SessionStatus, UserId};
use tracing::{Instrument, warn};

use super::service::Handle;
use super::{DeviceStatus, Error, PollAnswer, SessionInfo};
use crate::hub::{DeviceMessage, Sent};
use crate::ingest;
use crate::store::catalog::{NewSession, SessionKind};

use SessionStatus::{Calibrating, Collecting, Stopping};

/// Frames of one record when a whole recording is taken, and the time that it spans.
const IMPORT_PACKET_FRAMES: usize = 2000;
const IMPORT_PACKET_MS: i64 = 1000;
/// How long a device may take to say what it is doing, and how often it is looked whether it has.
const CHECK_PATIENCE: Duration = Duration::from_secs(3);
const CHECK_STEP: Duration = Duration::from_millis(20);
/// The disk is waited for each time so many frames have gone to it.
const IMPORT_WAIT_FRAMES: usize = 50_000;

impl Handle {
    /// Takes a recording that is complete already, from a file, as a session of a player: durable, then sealed and
    /// analysed like any other. `frames` are in time order, their device time is ms since the first; the last counts as
    /// just recorded. Runs to its end even if the caller goes away.
    pub async fn import_recording(
        &self,
        user: UserId,
        group_code: &str,
        device_code: DeviceCode,
        frames: FrameColumns,
        duration_ms: i64,
    ) -> Result<SessionInfo, Error> {
        let handle = self.clone();
        let group_code = group_code.to_owned();
        let work = async move {
            let start_ms = handle.0.clock.now_us() / 1000 - duration_ms;
            let new = NewSession {
                kind: SessionKind::Session,
                device_code: device_code.clone(),
                group_code,
                claimed_id: None,
                user_id: Some(user),
                status: Collecting,
                started_at_us: start_ms * 1000,
            };
            let row = handle.0.catalog.insert_session(&new).await?;
            let session = row.session_id;
            handle.0.ingest.open_session(&row);
            let mut from = 0;
            while let Some(&first_ms) = frames.device_time_raw.get(from) {
                // A second at a time, as if it had just come: the clock model follows what arrives in step with time.
                let rest = frames.device_time_raw.get(from..).unwrap_or_default();
                let count = rest.iter().take_while(|&&ms| ms < first_ms + IMPORT_PACKET_MS).count();
                let until = from + count.clamp(1, IMPORT_PACKET_FRAMES);
                let mut part = frames.gather(from..until);
                // As Unix time, the one form of a device's clock that says when it was.
                for time in &mut part.device_time_raw {
                    *time += start_ms;
                }
                let last_ms = part.device_time_raw.last().copied().unwrap_or(start_ms);
                let packet = ingest::Packet {
                    claimed_session: Some(session.to_string()),
                    packet_ms: None,
                    content_hash: None,
                    frames: part,
                    received_at_us: last_ms * 1000,
                };
                let accepted = handle.0.ingest.append(&device_code, packet).await?;
                from = until;
                // One wait for many records: the last is on disk when all are.
                if from == frames.len() || from / IMPORT_WAIT_FRAMES > (from - count.min(from)) / IMPORT_WAIT_FRAMES {
                    accepted.durable.await?;
                }
            }
            handle.finish(session).await
        };
        tokio::spawn(work.in_current_span()).await.map_err(|_| Error::Broke)?
    }

    /// What a polling device should do. A poll is a sign of life. `status` is what the device says it is doing: one that
    /// still collects for a session that is over, by a timeout say, is told to stop until it says otherwise.
    pub async fn poll(
        &self,
        code: &DeviceCode,
        current_session: Option<&str>,
        status: Option<&str>,
    ) -> Result<PollAnswer, Error> {
        self.alive(code).await;
        let Some(row) = self.0.catalog.latest_session_of_device(code).await? else {
            return Ok(PollAnswer::NoSession);
        };
        let known = current_session.is_some_and(|current| current == row.session_id.to_string());
        let left_behind = known && status == Some("collecting") && !row.status.accepts_frames();
        Ok(match row.status {
            Calibrating if !known => PollAnswer::Start(row.session_id),
            Stopping => PollAnswer::Stop(row.session_id),
            _ if left_behind => PollAnswer::Stop(row.session_id),
            _ => PollAnswer::Idle,
        })
    }

    /// A device without a socket showed that it is there: by a poll, a heartbeat, a confirmation.
    pub async fn alive(&self, code: &DeviceCode) {
        let now_us = self.0.clock.now_us();
        self.device(code).lock().await.heard_at_us = Some(now_us);
        if let Err(error) = self.0.catalog.device_seen(code, None, now_us).await {
            warn!(error = &error as &dyn std::error::Error, "device {code} could not be noted");
        }
    }

    /// When a device without a socket was last heard, µs.
    pub async fn heard_at_us(&self, code: &DeviceCode) -> Option<i64> {
        self.device(code).lock().await.heard_at_us
    }

    /// The session that a device is in now.
    pub async fn live_of(&self, code: &DeviceCode) -> Result<Option<SessionInfo>, Error> {
        let live = self.device(code).lock().await.live;
        match live {
            Some(live) => self.info(live.session).await,
            None => Ok(None),
        }
    }

    /// The newest collection of what a device sent under an id of its own.
    pub async fn collection(&self, code: &DeviceCode, claimed: &str) -> Result<Option<SessionInfo>, Error> {
        Ok(self.0.catalog.collection(code, claimed).await?.map(|row| self.info_of(row)))
    }

    /// Somebody says that everything of a session is uploaded: what is there is analysed. Idempotent; answers at once. A
    /// device that still streams is told to stop.
    pub async fn finish(&self, session: SessionId) -> Result<SessionInfo, Error> {
        let row = self.row(session).await?;
        let code = row.device_code.clone();
        let device = self.device(&code);
        let mut device = device.lock().await;
        let row = self.row(session).await?;
        if row.status.accepts_frames() {
            if row.status != Stopping && row.kind == SessionKind::Session {
                let stop = DeviceMessage::Stop { command_id: self.command_id(), session_id: session };
                self.0.hub.send_to_device(&code, stop.clone());
                self.0.push.send(&code, &stop);
            }
            self.complete(&code, &mut device, session, None).await?;
        }
        let row = self.row(session).await?;
        Ok(self.info_of(row))
    }

    /// A text that a device prints; what became of it.
    pub fn test(&self, code: &DeviceCode, message: &str) -> Sent {
        let message = DeviceMessage::Test { message: message.to_owned() };
        self.0.push.send(code, &message);
        self.0.hub.send_to_device(code, message)
    }

    /// Asks a device what it is doing; what became of the question. The answer, if one comes, reconciles by itself.
    pub fn ask_status(&self, code: &DeviceCode) -> Sent {
        let ask = DeviceMessage::GetStatus { command_id: self.command_id() };
        self.0.hub.send_to_device(code, ask)
    }

    /// Asks a device what it is doing and waits a little for its answer.
    pub async fn check(&self, code: &DeviceCode) -> (Sent, Option<DeviceStatus>) {
        let asked_at_us = self.0.clock.now_us();
        let sent = self.ask_status(code);
        if sent != Sent::Queued {
            return (sent, None);
        }
        let until = tokio::time::Instant::now() + CHECK_PATIENCE;
        while tokio::time::Instant::now() < until {
            if let Some((at_us, told)) = self.device(code).lock().await.told.clone()
                && at_us >= asked_at_us
            {
                return (sent, Some(told));
            }
            tokio::time::sleep(CHECK_STEP).await;
        }
        (sent, None)
    }

    /// Notes the address of a device's own HTTP server; false if it is none that may be called.
    pub async fn register_address(&self, code: &DeviceCode, address: IpAddr) -> Result<bool, Error> {
        if !self.0.push.may_call(address) {
            return Ok(false);
        }
        self.0.catalog.register_address(code, address, self.0.clock.now_us()).await?;
        Ok(true)
    }
}
