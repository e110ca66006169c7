//! Health, metrics, and what is nobody's route.

use axum::Json;
use axum::extract::{MatchedPath, Request, State as AxumState};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tower::ServiceExt;

use super::Shared;
use super::access::Access;
use super::error::ApiError;
use crate::store::wal;
use crate::telemetry;

type Answer = Result<Json<Value>, ApiError>;

/// Log and catalog must each answer a readiness check within this.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// The process answers.
pub(super) async fn live() -> Json<Value> {
    Json(json!({ "status": "live" }))
}

/// The service can do its work: it is not stopping, the log takes frames, and the catalog answers.
pub(super) async fn ready(AxumState(context): Shared) -> Answer {
    let unavailable = |code, what: &str| ApiError::with_status(StatusCode::SERVICE_UNAVAILABLE, code, what);
    if *context.state.shutdown.borrow() {
        return Err(unavailable("stopping", "the service is stopping"));
    }
    match timeout(READY_TIMEOUT, context.state.ingest.log_failure(wal::Room::ForARecord)).await {
        Ok(None) => {}
        Ok(Some(failure)) => {
            return Err(unavailable("log_unavailable", "the log takes no frames").about("what", failure));
        }
        Err(_) => return Err(unavailable("log_unavailable", "the log takes no frames").about("what", "no answer")),
    }
    match timeout(READY_TIMEOUT, context.state.sessions.system_counts()).await {
        Ok(Ok(_)) => Ok(Json(json!({ "status": "ready" }))),
        Ok(Err(error)) => {
            let error = ApiError::from(error).logged();
            Err(unavailable(error.code, &error.message))
        }
        Err(_) => Err(unavailable("catalog_unavailable", "the catalog does not answer")),
    }
}

/// Figures in Prometheus' text format.
pub(super) async fn metrics() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], telemetry::render())
}

pub(super) async fn method_not_allowed(method: Method) -> ApiError {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    ApiError::with_status(status, "method_not_allowed", "this method is not allowed here").about("method", method)
}

/// A handler broke: that is a bug of ours, and costs the one request.
pub(super) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    ApiError::with_status(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request could not be served")
        .into_response()
}

/// Paths that are not the gateway's.
pub(super) async fn elsewhere(AxumState(context): Shared, access: Access, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    if let Err(error) = access.page(&context.state, &path).await {
        return error.into_response();
    }
    let method = request.method().clone();
    let Ok(response) = context.extra.clone().oneshot(request).await;
    // A router's own 404 and 405 have no body; clients of this service look for `error`.
    let bare = !response.headers().contains_key(header::CONTENT_TYPE);
    match response.status() {
        StatusCode::NOT_FOUND if bare => {
            ApiError::not_found("unknown_path", "nothing is there").about("path", clip(&path)).into_response()
        }
        StatusCode::METHOD_NOT_ALLOWED if bare => {
            let allow = response.headers().get(header::ALLOW).cloned();
            let mut refused = method_not_allowed(method).await.into_response();
            refused.headers_mut().extend(allow.map(|allow| (header::ALLOW, allow)));
            refused
        }
        _ => response,
    }
}

fn clip(path: &str) -> &str {
    crate::protocol::budget::clip(path, 100)
}

/// Counts and times every request by its route.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| "other".to_owned(), |path| route_name(path.as_str()));
    let started = Instant::now();
    let response = next.run(request).await;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        metrics::histogram!("volant_gateway_http_seconds").record(started.elapsed().as_secs_f64());
    }
    let status = response.status().as_str().to_owned();
    metrics::counter!("volant_gateway_http_requests_total", "route" => route, "status" => status).increment(1);
    response
}

/// A route's name for metrics: its template without prefix and slashes, so that both prefixes count together.
fn route_name(path: &str) -> String {
    let name = path.trim_start_matches("/wxapp").trim_matches('/');
    let name = name.strip_prefix("api/").filter(|name| !name.starts_with("v2/")).unwrap_or(name);
    if name.is_empty() { "root".to_owned() } else { name.to_owned() }
}
