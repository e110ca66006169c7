//! `GET /api/v2/export`.
//!
//! Query: `session`, `player`, `device`, `stroke` (each may come several times), `from`, `to` (UTC days), `table` (`frames`,
//! `stroke_frames`, `strokes`, `results`; else `frames`, or `stroke_frames` where strokes are chosen) and `format`
//! (`parquet`, `csv`, `arrow`, `jsonl`, `json`, `mcap`, `mat`, `archive`; else `parquet`). The answer streams as a file to be
//! saved. What fails is answered with `application/problem+json`; what fails after bytes have left cuts the connection, so that a part is
//! never taken for the whole.
//!
//! An archive has an `ETag`. Whoever has a part of it asks for the rest by `Range: bytes=N-` with that tag in `If-Range`
//! (RFC 9110, section 13.1.5): 206 with the rest, as long as the same sessions would be written the same again, else 200 with
//! a new archive from its beginning. The part that is there is made once more and passed over.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{self, RawQuery};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use tokio::sync::Semaphore;

use super::made::TAKEN_AWAY;
use super::{Archive, Error, Form, Handle, Selection, Table, archive, note_archive};
use crate::clock::Clock;
use crate::query;
use crate::store::catalog::Catalog;
use crate::store::paths::Paths;

/// Archives that are made at once, for all callers: each reads and compresses as fast as it is taken.
const ARCHIVES_AT_ONCE: usize = 2;

/// What the route works with.
#[derive(Clone, Debug)]
pub struct State {
    rows: Handle,
    paths: Paths,
    catalog: Catalog,
    clock: Clock,
    archives: Arc<Semaphore>,
}

impl State {
    /// Rows from the query room, archives from the stored files and the catalog.
    #[must_use]
    pub fn new(query: query::Handle, paths: Paths, catalog: Catalog, clock: Clock) -> Self {
        Self { rows: Handle::new(query), paths, catalog, clock, archives: Arc::new(Semaphore::new(ARCHIVES_AT_ONCE)) }
    }
}

/// The route, for the application's router.
pub fn router(state: State) -> Router {
    Router::new().route("/api/v2/export", get(export)).with_state(state)
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) selection: Selection,
    pub(super) what: What,
}

/// Rows of a table, or everything of whole sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Rows(Table, Form),
    Archive,
}

/// Reads the query of a request.
pub(super) fn read(query: &str) -> Result<Asked, String> {
    let mut selection = Selection::default();
    let (mut table, mut form) = (None, Some(Form::Rows(query::Format::Parquet)));
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let wrong = |expected: &str| format!("{name}={value}: {expected}");
        match name.as_ref() {
            "session" => selection.sessions.push(value.parse().map_err(|_| wrong("the number of a session"))?),
            "player" => selection.players.push(value.parse().map_err(|_| wrong("the number of a player"))?),
            "device" => selection.devices.push(value.parse().map_err(|_| wrong("a device code"))?),
            "stroke" => selection.strokes.push(value.into_owned()),
            "from" => selection.from = Some(value.parse().map_err(|_| wrong("a day such as 2026-11-23"))?),
            "to" => selection.to = Some(value.parse().map_err(|_| wrong("a day such as 2026-11-23"))?),
            "table" => {
                table = Some(Table::of(&value).ok_or_else(|| wrong("frames, stroke_frames, strokes or results"))?);
            }
            "format" if value == "archive" => form = None,
            "format" => {
                let known = Form::of(&value);
                form = Some(known.ok_or_else(|| wrong("parquet, csv, arrow, jsonl, json, mcap, mat or archive"))?);
            }
            // Who asks is the gateway's to read.
            "token" | "lang" => {}
            _ => return Err(format!("no parameter {name:?}")),
        }
    }
    let Some(form) = form else {
        if table.is_some() {
            return Err("an archive holds all tables; leave table out".to_owned());
        }
        return Ok(Asked { selection, what: What::Archive });
    };
    let usual = if selection.strokes.is_empty() || matches!(form, Form::Mcap | Form::Mat) {
        Table::Frames
    } else {
        Table::StrokeFrames
    };
    Ok(Asked { selection, what: What::Rows(table.unwrap_or(usual), form) })
}

async fn export(
    extract::State(state): extract::State<State>,
    RawQuery(query): RawQuery,
    asked_headers: HeaderMap,
) -> Response {
    let Asked { selection, what } = match read(&query.unwrap_or_default()) {
        Ok(asked) => asked,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, "bad_request", &detail),
    };
    let (name, form, content_type, pieces) = match what {
        What::Rows(table, form) => {
            let name = match selection.sessions.as_slice() {
                [session] => format!("{}-{session}.{}", table.as_str(), form.name()),
                _ => format!("{}.{}", table.as_str(), form.name()),
            };
            let pieces = state.rows.bytes(&selection, table, form).await;
            let pieces = pieces.map(|pieces| Answer::whole(pieces.map_err(|source| Error::Query { source }).boxed()));
            (name, form.name(), form.content_type(), pieces)
        }
        What::Archive => {
            let pieces = archived(&state, &selection, rest(&asked_headers)).await;
            (archive::NAME.to_owned(), "archive", "application/zstd", pieces)
        }
    };
    let Answer { status, headers: more, mut pieces } = match pieces {
        Ok(answer) => answer,
        Err(error) => return failure(&error),
    };
    // What fails at once is told properly.
    let first = match pieces.next().await {
        Some(Err(error)) => return failure(&error),
        first => first,
    };
    metrics::counter!("volant_export_answers_total", "format" => form).increment(1);
    let counted = futures::stream::iter(first).chain(pieces).inspect(|piece| match piece {
        Ok(piece) => metrics::counter!("volant_export_bytes_total").increment(piece.len() as u64),
        Err(error) => tracing::warn!("an export was cut: {error}"),
    });
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONTENT_DISPOSITION, disposition.unwrap_or(HeaderValue::from_static("attachment"))),
    ];
    (status, more, headers, Body::from_stream(counted)).into_response()
}

/// What is answered.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    pieces: BoxStream<'static, Result<Bytes, Error>>,
}

impl Answer {
    fn whole(pieces: BoxStream<'static, Result<Bytes, Error>>) -> Self {
        Self { status: StatusCode::OK, headers: HeaderMap::new(), pieces }
    }
}

/// The rest of an archive.
struct Rest {
    /// Of the archive that a part is there of.
    tag: String,
    /// The first byte that is not.
    from: u64,
}

/// Which rest is asked for. What is not understood is passed over, as for every `Range`: the whole is answered.
fn rest(headers: &HeaderMap) -> Option<Rest> {
    let text = |name| headers.get(name)?.to_str().ok();
    let from = text(header::RANGE)?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()?;
    let tag = text(header::IF_RANGE)?.strip_prefix('"')?.strip_suffix('"')?.to_owned();
    Some(Rest { tag, from })
}

/// The archive of what matches, or its rest. It is noted before a byte of it leaves.
async fn archived(state: &State, selection: &Selection, rest: Option<Rest>) -> Result<Answer, Error> {
    let permit = Arc::clone(&state.archives).try_acquire_owned();
    let permit = permit.map_err(|_| Error::Busy { limit: ARCHIVES_AT_ONCE })?;
    let sessions = state.rows.sessions(selection).await?;
    let now_us = state.clock.now_us();
    // Of the time that the first part was made at, if it is the same otherwise.
    let made_at = rest.as_ref().and_then(|rest| Archive::time_of(&rest.tag)).filter(|&made_us| made_us <= now_us);
    let at_us = made_at.unwrap_or(now_us);
    let mut archive = Archive::of(&state.paths, &state.catalog, &sessions, selection.to_string(), at_us).await?;
    if archive.sessions.is_empty() {
        return Err(Error::Unsealed { selection: selection.to_string() });
    }
    let from = rest.filter(|rest| rest.tag == archive.tag()).map(|rest| rest.from);
    if from.is_none() {
        archive.created_at_us = now_us;
    }
    let (paths, note) = (state.paths.clone(), archive.note(TAKEN_AWAY.into()));
    // The permit goes along: whoever goes away meanwhile leaves the work behind, and it counts until it is done.
    let (archive, length, permit) = tokio::task::spawn_blocking(move || -> Result<_, Error> {
        note_archive(&paths, &note)?;
        let length = from.map(|_| archive.length()).transpose()?;
        Ok((archive, length, permit))
    })
    .await
    .map_err(|source| Error::Write { form: "archive", source: source.into() })??;

    let text = |text: String| HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, text(format!("\"{}\"", archive.tag())));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let (status, from) = match from.zip(length) {
        None => (StatusCode::OK, 0),
        Some((from, length)) if from < length => {
            headers.insert(header::CONTENT_RANGE, text(format!("bytes {from}-{}/{length}", length - 1)));
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length - from));
            (StatusCode::PARTIAL_CONTENT, from)
        }
        Some((_, length)) => {
            headers.insert(header::CONTENT_RANGE, text(format!("bytes */{length}")));
            let pieces = futures::stream::empty().boxed();
            return Ok(Answer { status: StatusCode::RANGE_NOT_SATISFIABLE, headers, pieces });
        }
    };
    Ok(Answer { status, headers, pieces: archive.pieces(from, permit).boxed() })
}

fn failure(error: &Error) -> Response {
    let (status, code) = match error {
        Error::Nothing { .. } | Error::Unsealed { .. } => (StatusCode::NOT_FOUND, "nothing_to_export"),
        Error::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        Error::OneSession { .. } => (StatusCode::BAD_REQUEST, "one_session"),
        Error::Whole { .. } => (StatusCode::BAD_REQUEST, "whole_session"),
        Error::TooMany { .. } => (StatusCode::BAD_REQUEST, "too_many_sessions"),
        Error::Query { source } => return query::http::failure(source),
        Error::Write { .. }
        | Error::Io { .. }
        | Error::Archive { .. }
        | Error::Catalog(_)
        | Error::Stored { .. }
        | Error::Bucket { .. } => {
            tracing::error!(error = error as &dyn std::error::Error, "failed to export: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, "internal")
        }
    };
    problem(status, code, &error.to_string())
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let body =
        json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail, "code": code });
    let kind = HeaderValue::from_static("application/problem+json");
    (status, [(header::CONTENT_TYPE, kind)], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn an_archive_too_many_at_once_is_put_off_and_rows_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let catalog = Catalog::open(&paths.catalog()).await.unwrap();
        let folder = query::Folder::open(dir.path()).unwrap();
        let files = folder.files();
        let query = query::Handle::start(query::Options::default(), files, Arc::new(folder)).unwrap();
        let state = State::new(query, paths, catalog, Clock::system());
        let all = Arc::clone(&state.archives).acquire_many_owned(ARCHIVES_AT_ONCE as u32).await.unwrap();
        let ask = async |form: &str| {
            let request = Request::get(format!("/api/v2/export?format={form}")).body(Body::empty()).unwrap();
            router(state.clone()).oneshot(request).await.unwrap().status()
        };
        assert_eq!(ask("archive").await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask("csv").await, StatusCode::NOT_FOUND, "there is nothing, but nobody is in the way");
        drop(all);
        assert_eq!(ask("archive").await, StatusCode::NOT_FOUND);
    }
}
