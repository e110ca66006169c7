//! `GET /sessions/{session_id}/report`: the report of a finished session as a page of its own.

use std::sync::Arc;

use axum::extract::{Path, Query, State as AxumState};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use schemas::SessionId;
use tokio::sync::Semaphore;

use super::Rooms;
use crate::report::{Context, Curve, html};
use crate::sessions::SessionInfo;
use crate::store::pack;
use crate::store::paths::{Table, TablePath};
use crate::store::seal;
use crate::texts::Lang;
use crate::{analysis, sessions};

#[derive(Clone)]
pub(super) struct State {
    rooms: Rooms,
    /// Room for the reports that are made at once.
    reports: Arc<Semaphore>,
}

impl State {
    pub(super) fn new(rooms: Rooms) -> Self {
        Self { rooms, reports: Arc::new(Semaphore::new(CONCURRENT)) }
    }
}

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
            Self::NoSession { .. } => (StatusCode::NOT_FOUND, "session_not_found"),
            Self::NoResult { .. } => (StatusCode::NOT_FOUND, "no_analysis"),
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

/// Reports that are made at once; further requests wait. Each reads its session's frames into memory.
const CONCURRENT: usize = 2;

/// The page is one file: its style is inside, and it loads nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// `?lang=en|zh`; without it, English.
#[derive(Debug, Deserialize)]
pub(super) struct Options {
    lang: Option<String>,
}

pub(super) async fn report(
    AxumState(state): AxumState<State>,
    Path(id): Path<String>,
    Query(options): Query<Options>,
) -> Result<Response, Error> {
    let lang = options.lang.and_then(|lang| lang.parse().ok()).unwrap_or(Lang::En);
    let session_id = parse(&id)?;
    // The semaphore is never closed, so there is always a permit to come.
    let _permit = Arc::clone(&state.reports).acquire_owned().await.map_err(|_| Error::Stopped)?;
    let page = session_report(&state.rooms, session_id, lang).await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    Ok((headers, page).into_response())
}

/// The report of a finished session as one HTML page.
///
/// # Errors
/// No such session, no result yet, or its frames cannot be read.
pub async fn session_report(rooms: &Rooms, session_id: SessionId, lang: Lang) -> Result<String, Error> {
    let session = rooms.sessions.info(session_id).await?;
    let session = session.ok_or_else(|| Error::NoSession { session_id: session_id.to_string() })?;
    let published = rooms.analysis.published(session_id).await?.ok_or(Error::NoResult { session_id })?;
    let paths = rooms.paths.clone();
    let path = TablePath::new(Table::Frames, session_id, session.started_at_us);
    tokio::task::spawn_blocking(move || {
        let track = seal::read_track(&pack::locate(&paths, path)?)?;
        Ok(html(&published.analysis, &context(&session, Curve::of_track(&track)), lang))
    })
    .await
    .map_err(|_| Error::Stopped)?
    .map_err(|source| Error::Frames { session_id, source })
}

fn context(session: &SessionInfo, curves: Vec<Curve>) -> Context {
    Context {
        title: None,
        session_id: Some(session.session_id.to_string()),
        device: Some(session.device_code.to_string()),
        player: session.user_id.map(|user| user.to_string()),
        started_at_us: Some(session.started_at_us),
        curves,
    }
}

fn parse(id: &str) -> Result<SessionId, Error> {
    id.parse().map_err(|_| Error::NoSession { session_id: id.to_owned() })
}
