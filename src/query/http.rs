//! `POST /api/v2/sql`.
//!
//! The statement is the body: as `text/plain`, or in a JSON object with `query` and optionally `format` (`json`, `jsonl`,
//! `csv`, `arrow`, `parquet`; else `json`), `max_rows` and `timeout_ms`, which lower the server's limits. The answer streams; it has
//! the header `x-volant-query-id`. A statement that fails is answered with `application/problem+json`. If it fails after
//! rows have left (a row or time limit), the connection is cut, so that a part is never taken for the whole.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use super::engine::{Handle, Limits};
use super::error::{Class, Error, Position};
use super::{Format, statement};

/// Room for the longest statement with every character escaped as `\u0000`, and the other members.
const BODY_LIMIT_BYTES: usize = statement::STATEMENT_LIMIT_BYTES * 6 + 4096;

/// The route, for the application's router.
pub fn router(handle: Handle) -> Router {
    Router::new().route("/api/v2/sql", post(sql)).layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES)).with_state(handle)
}

/// The JSON form of the body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    query: String,
    #[serde(default)]
    format: Option<Format>,
    max_rows: Option<u64>,
    timeout_ms: Option<u64>,
}

/// The body of a failure (RFC 9457).
#[derive(Debug, Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    /// Stable name of the failure.
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
}

async fn sql(State(handle): State<Handle>, headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejected) => return problem(rejected.status(), "bad_body", rejected.body_text(), None, None),
    };
    let request = match read(&headers, &body) {
        Ok(request) => request,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, "bad_request", detail, None, None),
    };
    let most = handle.limits();
    let limits = Limits {
        rows: request.max_rows.unwrap_or(most.rows),
        wall_time: request.timeout_ms.map_or(most.wall_time, Duration::from_millis),
        ..most
    };
    let format = request.format.unwrap_or(Format::Json);
    // The beginning is held back until it is sure that a short answer is whole, so that its failure is told properly.
    let (query_id, pieces) = match handle.query_as(&request.query, limits, format).await {
        Ok(begun) => begun,
        Err(error) => return failure(&error),
    };
    let pieces = pieces.inspect(move |piece| {
        if let Err(error) = piece {
            tracing::warn!(query.id = query_id, "answer to statement {query_id} was cut: {error}");
        }
    });
    let body = Body::from_stream(pieces);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(format.content_type())),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::HeaderName::from_static("x-volant-query-id"), HeaderValue::from(query_id)),
    ];
    (headers, body).into_response()
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<Request, String> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if media_type.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("text/plain")) {
        let query = std::str::from_utf8(body).map_err(|_| "the statement is not UTF-8".to_owned())?.to_owned();
        return Ok(Request { query, format: None, max_rows: None, timeout_ms: None });
    }
    // Read into the struct, an array would pass as its members in order.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err("the body is an array, not {\"query\": …}".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| format!("the body is not {{\"query\": …}}: {error}"))
}

/// An error as the answer to a request.
pub(crate) fn failure(error: &Error) -> Response {
    let status = match error {
        Error::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Error::NotReadOnly { .. } => StatusCode::FORBIDDEN,
        Error::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Error::Empty
        | Error::ManyStatements { .. }
        | Error::Syntax { .. }
        | Error::Statement { .. }
        | Error::Evaluate { .. }
        | Error::Encode { .. } => StatusCode::BAD_REQUEST,
        Error::Time { .. } | Error::Memory { .. } | Error::Rows { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        Error::Stored { .. } | Error::Start { .. } | Error::Open { .. } | Error::Engine { .. } | Error::Vanished => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    if matches!(error.class(), Class::Environment | Class::Bug) {
        tracing::error!(error = error as &dyn std::error::Error, "failed to answer a statement: {error}");
    }
    let mut response = problem(status, error.code(), error.to_string(), error.position(), error.hint());
    if error.is_retryable() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn problem(
    status: StatusCode,
    code: &str,
    detail: String,
    position: Option<Position>,
    hint: Option<&'static str>,
) -> Response {
    let problem = Problem {
        kind: "about:blank",
        title: status.canonical_reason().unwrap_or_default(),
        status: status.as_u16(),
        detail,
        code,
        position,
        hint,
    };
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))], body).into_response()
}
