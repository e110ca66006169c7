//! `GET /sessions/{session_id}/report`: the report of a finished session as a page of its own.

use std::sync::Arc;

use axum::extract::{Path, Query, State as AxumState};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use schemas::SessionId;

use super::Rooms;
use super::api::{Error, State, parse};
use crate::report::{Context, Curve, html};
use crate::sessions::SessionInfo;
use crate::store::paths::{Table, TablePath};
use crate::store::seal;
use crate::texts::Lang;

/// Reports that are made at once; further requests wait. Each reads its session's frames into memory.
pub(super) const CONCURRENT: usize = 2;

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
    let path = rooms.paths.file(TablePath::new(Table::Frames, session_id, session.started_at_us));
    tokio::task::spawn_blocking(move || {
        let track = seal::read_track(&path)?;
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
