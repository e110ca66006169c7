//! What the dashboard asks for. Times are µs since 1970 UTC, as everywhere; `now_us` is this server's clock, so that a page
//! on a machine with another clock shows true ages.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemas::{AnalysisId, DeviceCode, SessionId};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{Rooms, report};
use crate::clock::Clock;
use crate::hub::DevicePresence;
use crate::sessions::SessionInfo;
use crate::store::seal;
use crate::{analysis, sessions};

/// Sessions of one answer at most.
const SESSIONS_LIMIT: i64 = 1000;
/// Sessions of one answer when nothing else is asked.
const SESSIONS_DEFAULT: i64 = 200;

#[derive(Clone)]
pub(super) struct State {
    pub(super) rooms: Rooms,
    pub(super) clock: Clock,
    /// Room for the reports that are made at once.
    pub(super) reports: Arc<Semaphore>,
}

impl State {
    pub(super) fn new(rooms: Rooms, clock: Clock) -> Self {
        Self { rooms, clock, reports: Arc::new(Semaphore::new(report::CONCURRENT)) }
    }
}

type Shared = axum::extract::State<State>;

/// Why a route has no answer; the chain goes to the log, not to the client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("session {session_id} does not exist")]
    NoSession { session_id: String },
    #[error("session {session_id} has no result yet")]
    NoResult { session_id: SessionId },
    #[error("read the sessions")]
    Sessions(#[from] sessions::Error),
    #[error("read the result")]
    Analysis(#[from] analysis::Error),
    #[error("read the frames of session {session_id}")]
    Frames {
        session_id: SessionId,
        #[source]
        source: seal::Error,
    },
    #[error("finish the report before the service stopped")]
    Stopped,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code) = match &self {
            Self::NoSession { .. } => (StatusCode::NOT_FOUND, "no_session"),
            Self::NoResult { .. } => (StatusCode::NOT_FOUND, "no_result"),
            Self::Sessions(_) | Self::Analysis(_) | Self::Frames { .. } | Self::Stopped => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
        };
        if status.is_server_error() {
            tracing::error!(error = &self as &dyn std::error::Error, "failed to {self} for the dashboard");
        }
        let problem = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": self.to_string(),
            "code": code,
        });
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))];
        (status, kind, problem.to_string()).into_response()
    }
}

/// An answer that no cache may keep.
fn fresh<T: Serialize>(body: T) -> Response {
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(body)).into_response()
}

#[derive(Serialize)]
struct Figures {
    now_us: i64,
    version: &'static str,
    /// Calibrating, collecting or analyzing.
    active_sessions: i64,
    total_sessions: i64,
    /// Frames on disk.
    total_frames: i64,
    connected_devices: usize,
}

/// `GET /api/v2/status`
pub(super) async fn status(axum::extract::State(state): Shared) -> Result<Response, Error> {
    let counts = state.rooms.sessions.system_counts().await?;
    Ok(fresh(Figures {
        now_us: state.clock.now_us(),
        version: env!("CARGO_PKG_VERSION"),
        active_sessions: counts.active_sessions,
        total_sessions: counts.total_sessions,
        total_frames: counts.total_sensor_data,
        connected_devices: state.rooms.hub.devices().len(),
    }))
}

/// A device: what is stored of it, and what its connection says now. `presence` is absent without a connection.
#[derive(Serialize)]
struct Device {
    device_code: DeviceCode,
    firmware: Option<String>,
    first_seen_us: Option<i64>,
    last_seen_us: Option<i64>,
    frame_count: i64,
    presence: Option<DevicePresence>,
}

#[derive(Serialize)]
struct Devices {
    now_us: i64,
    devices: Vec<Device>,
}

/// `GET /api/v2/devices`: connected ones first, then by the last frame.
pub(super) async fn devices(axum::extract::State(state): Shared) -> Result<Response, Error> {
    let stored = state.rooms.sessions.device_list().await?;
    let mut connected = state.rooms.hub.devices();
    let mut devices = Vec::with_capacity(stored.len() + connected.len());
    for row in stored {
        let place = connected.iter().position(|presence| presence.device_code == row.device_code);
        devices.push(Device {
            presence: place.map(|place| connected.swap_remove(place)),
            device_code: row.device_code,
            firmware: row.firmware,
            first_seen_us: Some(row.first_seen_us),
            last_seen_us: row.last_seen_us,
            frame_count: row.data_count,
        });
    }
    // Connected, and nothing of it is stored yet.
    devices.extend(connected.into_iter().map(|presence| Device {
        device_code: presence.device_code.clone(),
        firmware: None,
        first_seen_us: None,
        last_seen_us: None,
        frame_count: 0,
        presence: Some(presence),
    }));
    devices.sort_by(|a, b| {
        let key = |device: &Device| (device.presence.is_some(), device.last_seen_us);
        key(b).cmp(&key(a)).then_with(|| a.device_code.cmp(&b.device_code))
    });
    Ok(fresh(Devices { now_us: state.clock.now_us(), devices }))
}

/// `?limit=`: 1 to [`SESSIONS_LIMIT`].
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    limit: Option<i64>,
}

#[derive(Serialize)]
struct Sessions {
    now_us: i64,
    sessions: Vec<SessionInfo>,
}

/// `GET /api/v2/sessions`: the newest, newest first.
pub(super) async fn sessions(axum::extract::State(state): Shared, Query(page): Query<Page>) -> Result<Response, Error> {
    let limit = page.limit.unwrap_or(SESSIONS_DEFAULT).clamp(1, SESSIONS_LIMIT);
    let sessions = state.rooms.sessions.list(&sessions::Filter::newest(limit)).await?;
    Ok(fresh(Sessions { now_us: state.clock.now_us(), sessions }))
}

#[derive(Serialize)]
struct Session {
    now_us: i64,
    session: SessionInfo,
}

/// `GET /api/v2/sessions/{session_id}`
pub(super) async fn session(axum::extract::State(state): Shared, Path(id): Path<String>) -> Result<Response, Error> {
    let session_id = parse(&id)?;
    let session = state.rooms.sessions.info(session_id).await?.ok_or(Error::NoSession { session_id: id })?;
    Ok(fresh(Session { now_us: state.clock.now_us(), session }))
}

#[derive(Serialize)]
struct Published<'a> {
    session_id: SessionId,
    analysis_id: AnalysisId,
    revision: i64,
    created_at_us: i64,
    /// As `volant analyze --json` prints it.
    analysis: &'a pipelines::Analysis,
}

/// `GET /api/v2/sessions/{session_id}/result`
pub(super) async fn result(axum::extract::State(state): Shared, Path(id): Path<String>) -> Result<Response, Error> {
    let session_id = parse(&id)?;
    match state.rooms.analysis.published(session_id).await? {
        Some(published) => Ok(fresh(Published {
            session_id: published.session_id,
            analysis_id: published.analysis_id,
            revision: published.revision,
            created_at_us: published.created_at_us,
            analysis: &published.analysis,
        })),
        None if state.rooms.sessions.info(session_id).await?.is_some() => Err(Error::NoResult { session_id }),
        None => Err(Error::NoSession { session_id: id }),
    }
}

pub(super) fn parse(id: &str) -> Result<SessionId, Error> {
    id.parse().map_err(|_| Error::NoSession { session_id: id.to_owned() })
}
