//! `GET /api/v2/export`.
//!
//! Query: `session`, `player`, `device`, `stroke` (each may come several times), `from`, `to` (UTC days), `table` (`frames`,
//! `stroke_frames`, `strokes`, `results`; else `frames`, or `stroke_frames` where strokes are chosen) and `format`
//! (`parquet`, `csv`, `arrow`, `jsonl`, `json`, `mcap`, `mat`; else `parquet`). The answer streams as a file to be saved. What
//! fails is answered with `application/problem+json`; what fails after bytes have left cuts the connection, so that a part is
//! never taken for the whole.

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use serde_json::json;

use super::{Error, Form, Handle, Selection, Table};
use crate::query;

/// The route, for the application's router.
pub fn router(handle: Handle) -> Router {
    Router::new().route("/api/v2/export", get(export)).with_state(handle)
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) selection: Selection,
    pub(super) table: Table,
    pub(super) form: Form,
}

/// Reads the query of a request.
pub(super) fn read(query: &str) -> Result<Asked, String> {
    let mut selection = Selection::default();
    let (mut table, mut form) = (None, Form::Rows(query::Format::Parquet));
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
            "format" => {
                form = Form::of(&value).ok_or_else(|| wrong("parquet, csv, arrow, jsonl, json, mcap or mat"))?;
            }
            // Who asks is the gateway's to read.
            "token" | "lang" => {}
            _ => return Err(format!("no parameter {name:?}")),
        }
    }
    let usual = if selection.strokes.is_empty() || matches!(form, Form::Mcap | Form::Mat) {
        Table::Frames
    } else {
        Table::StrokeFrames
    };
    Ok(Asked { selection, table: table.unwrap_or(usual), form })
}

async fn export(State(handle): State<Handle>, RawQuery(query): RawQuery) -> Response {
    let asked = match read(&query.unwrap_or_default()) {
        Ok(asked) => asked,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, "bad_request", &detail),
    };
    let mut pieces = match handle.bytes(&asked.selection, asked.table, asked.form).await {
        Ok(pieces) => pieces,
        Err(error) => return failure(&error),
    };
    // What fails at once is told properly.
    let first = match pieces.next().await {
        Some(Err(source)) => return failure(&Error::Query { source }),
        first => first,
    };
    metrics::counter!("volant_export_answers_total", "format" => asked.form.name()).increment(1);
    let counted = futures::stream::iter(first).chain(pieces).inspect(|piece| match piece {
        Ok(piece) => metrics::counter!("volant_export_bytes_total").increment(piece.len() as u64),
        Err(error) => tracing::warn!("an export was cut: {error}"),
    });
    let name = match asked.selection.sessions.as_slice() {
        [session] => format!("{}-{session}.{}", asked.table.as_str(), asked.form.name()),
        _ => format!("{}.{}", asked.table.as_str(), asked.form.name()),
    };
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asked.form.content_type())),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONTENT_DISPOSITION, disposition.unwrap_or(HeaderValue::from_static("attachment"))),
    ];
    (headers, Body::from_stream(counted)).into_response()
}

fn failure(error: &Error) -> Response {
    let (status, code) = match error {
        Error::Nothing { .. } => (StatusCode::NOT_FOUND, "nothing_to_export"),
        Error::OneSession { .. } => (StatusCode::BAD_REQUEST, "one_session"),
        Error::Whole { .. } => (StatusCode::BAD_REQUEST, "whole_session"),
        Error::TooMany { .. } => (StatusCode::BAD_REQUEST, "too_many_sessions"),
        Error::Query { source } => return query::http::failure(source),
        Error::Write { .. }
        | Error::Io { .. }
        | Error::Archive { .. }
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
