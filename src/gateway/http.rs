//! The HTTP routes of the legacy service, health and metrics.
//!
//! Parameters come from everywhere (`forms.rs`); a route answers with and without trailing slash and never redirects. A
//! success has the legacy fields, an error is `{"error": text, "code": word, …}`.

use axum::extract::{MatchedPath, Request, State as AxumState};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json};
use schemas::{DeviceCode, SessionId};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tower::ServiceExt;

use super::error::ApiError;
use super::forms::Params;
use super::ws::{Peer, device_message};
use super::{Context, Shared, State, auth};
use crate::accounts::OPENID_LIMIT_BYTES;
use crate::hub::{DeviceMessage, Sent};
use crate::protocol::{LocalTime, UtcTime};
use crate::sessions::SessionInfo;
use crate::telemetry;

type Answer = Result<Json<Value>, ApiError>;

/// The catalog must answer a readiness check within this.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// The legacy routes by name, without prefix and slashes.
pub(super) fn legacy_routes() -> Vec<(&'static str, MethodRouter<Arc<Context>>)> {
    vec![
        ("simple_login", post(simple_login)),
        ("bind_device", post(bind_device)),
        ("start_session", post(start_session).get(start_session_help)),
        ("start_data_collection", post(start_data_collection).get(start_data_collection_help)),
        ("end_session", post(end_session).get(end_session_help)),
        ("get_analysis", get(get_analysis).post(get_analysis)),
        ("get_latest_session", get(get_latest_session)),
    ]
}

async fn params(context: &Context, request: Request) -> Result<Params, ApiError> {
    Params::of(request, &context.options).await
}

// ---- accounts -----------------------------------------------------------------------------------------------------

async fn simple_login(AxumState(context): Shared) -> Answer {
    let user = context.state.accounts.test_user().await?;
    Ok(Json(json!({
        "msg": "ok",
        "openid": user.openid,
        "user_id": user.user_id,
        "message": "this is the fixed test user",
    })))
}

async fn bind_device(AxumState(context): Shared, request: Request) -> Answer {
    let params = params(&context, request).await?;
    let openid = openid(&params)?.ok_or_else(|| ApiError::missing("openid"))?;
    let device = auth::device(params.required("device_code")?)?;
    let user = auth::user_by_openid(&context.state, openid).await?;
    context.state.accounts.bind(user.user_id, &device).await?;
    Ok(Json(json!({ "msg": "device bound", "device_code": device })))
}

/// The openid of a request, if it names one.
fn openid(params: &Params) -> Result<Option<&str>, ApiError> {
    let openid = params.get("openid");
    if openid.is_some_and(|openid| openid.len() > OPENID_LIMIT_BYTES) {
        return Err(ApiError::bad_request(format!("an openid has {OPENID_LIMIT_BYTES} characters at most")));
    }
    Ok(openid)
}

// ---- sessions -----------------------------------------------------------------------------------------------------

async fn start_session(AxumState(context): Shared, request: Request) -> Answer {
    let params = params(&context, request).await?;
    let openid = openid(&params)?.ok_or_else(|| ApiError::missing("openid"))?;
    let group = params.required("device_group_code")?;
    // The mini-program names no device: its group code is the device code.
    let device = auth::device(params.get("device_code").unwrap_or(group))?;
    let user = auth::user_by_openid(&context.state, openid).await?;
    let started = context.state.sessions.start(user.user_id, group, device).await?;
    let session = &started.session;
    Ok(Json(json!({
        "msg": "session started",
        "session_id": session.session_id,
        "status": session.status,
        "device_code": session.device_code,
        "websocket_sent": started.sent == Sent::Queued,
        "websocket_message": command(&context.state, session, started.command),
        "timestamp": UtcTime(session.started_at_us),
        "note": sent_note(started.sent, "start"),
    })))
}

async fn start_data_collection(AxumState(context): Shared, request: Request) -> Answer {
    let params = params(&context, request).await?;
    let session = session_id(&params)?;
    let device = device_code(&params)?;
    owned(&context.state, &params, session).await?;
    let begun = context.state.sessions.begin_collection(session, device.as_ref()).await?;
    let mut answer = json!({
        "msg": "data collection started",
        "session_id": begun.session.session_id,
        "status": begun.session.status,
        "device_code": begun.session.device_code,
        "websocket_message": command(&context.state, &begun.session, begun.command),
        "communication_method": "websocket",
        "timestamp": LocalTime(context.state.clock.now_us()),
    });
    let outcome = if begun.sent == Sent::Queued { "result" } else { "websocket_error" };
    answer[outcome] = json!(sent_note(begun.sent, "start"));
    Ok(Json(answer))
}

async fn end_session(AxumState(context): Shared, request: Request) -> Answer {
    let params = params(&context, request).await?;
    let session = session_id(&params)?;
    let device = device_code(&params)?;
    owned(&context.state, &params, session).await?;
    let ended = context.state.sessions.end(session, device.as_ref()).await?;
    let info = &ended.session;
    let mut answer = json!({
        "msg": if ended.command.is_some() { "session is stopping" } else { "session had ended before" },
        "session_id": info.session_id,
        "status": info.status,
        "device_code": info.device_code,
        "websocket_sent": ended.command.is_some() && ended.sent == Sent::Queued,
        "timestamp": UtcTime(info.ended_at_us.unwrap_or_else(|| context.state.clock.now_us())),
    });
    if let Some(sent) = ended.command {
        answer["websocket_message"] = command(&context.state, info, sent);
        answer["note"] = json!(sent_note(ended.sent, "stop"));
    } else {
        answer["note"] = json!(format!("the session is {}", info.status));
    }
    Ok(Json(answer))
}

async fn get_latest_session(
    AxumState(context): Shared,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    request: Request,
) -> Answer {
    let params = params(&context, request).await?;
    let user = match openid(&params)? {
        Some(openid) => Some(auth::user_by_openid(&context.state, openid).await?.user_id),
        // Sessions of strangers are nobody's business, except on the machine itself.
        None if auth::is_local(peer.map(|Extension(peer)| peer.address), &headers) => None,
        None => return Err(ApiError::missing("openid")),
    };
    let (session, total_sessions) = context.state.sessions.latest(user).await?;
    let session = session.ok_or_else(|| ApiError::not_found("no_session", "there is no session yet"))?;
    Ok(Json(json!({
        "success": true,
        "session": {
            "id": session.session_id,
            "status": session.status,
            "start_time": UtcTime(session.started_at_us),
            "end_time": session.ended_at_us.map(UtcTime),
            // Who it belongs to is told to nobody but its owner; the replaced server said "unknown" to everybody.
            "wx_user_id": user.map_or_else(|| "unknown".to_owned(), |user| user.to_string()),
        },
        "total_sessions": total_sessions,
    })))
}

async fn get_analysis(AxumState(context): Shared, request: Request) -> Answer {
    let params = params(&context, request).await?;
    let session = session_id(&params)?;
    owned(&context.state, &params, session).await?;
    let Some(published) = context.state.analysis.published(session).await? else {
        let session = context.state.sessions.info(session).await?;
        return Err(match session {
            None => ApiError::not_found("session_not_found", "session not found"),
            Some(session) => ApiError::not_found("no_analysis", "analysis result not found")
                .with("status", session.status.as_str())
                .with("reason", session.reason),
        });
    };
    let analysis = &published.analysis;
    let figures = &analysis.session;
    Ok(Json(json!({
        "msg": "analysis result",
        "session_id": published.session_id,
        "analysis_id": published.analysis_id,
        // s
        "phase_delay": figures.phase_delay,
        // 0 to 1
        "energy_ratio": figures.energy_ratio,
        // degrees
        "rom_data": figures.rom_data,
        "analysis_time": UtcTime(published.created_at_us),
        "stroke_count": analysis.strokes.len(),
        "strokes": figures.stroke_counts,
        "scores": figures.scores,
        "recommendations": figures.recommendations,
        "issues": analysis.issues,
        "pipeline": analysis.provenance.pipeline,
    })))
}

fn session_id(params: &Params) -> Result<SessionId, ApiError> {
    let text = params.required("session_id")?;
    // A text that cannot be one of our numbers names no session: the same answer as for one that does not exist.
    text.parse().map_err(|_| ApiError::not_found("session_not_found", "session not found"))
}

fn device_code(params: &Params) -> Result<Option<DeviceCode>, ApiError> {
    params.get("device_code").map(auth::device).transpose()
}

/// A request that names an openid gets at that user's sessions only; anybody else's do not exist for it.
async fn owned(state: &State, params: &Params, session: SessionId) -> Result<(), ApiError> {
    let Some(openid) = openid(params)? else { return Ok(()) };
    let user = auth::user_by_openid(state, openid).await?.user_id;
    match state.sessions.info(session).await? {
        Some(session) if session.user_id.is_none_or(|owner| owner == user) => Ok(()),
        _ => Err(ApiError::not_found("session_not_found", "session not found")),
    }
}

/// The command as the device reads it.
fn command(state: &State, session: &SessionInfo, command: DeviceMessage) -> Value {
    let message = device_message(&session.device_code, command, state.clock.now_us());
    serde_json::to_value(&message).unwrap_or_default()
}

fn sent_note(sent: Sent, what: &str) -> String {
    match sent {
        Sent::Queued => format!("device told to {what}"),
        Sent::NotConnected => format!("device is not connected; it is told to {what} when it connects"),
        Sent::QueueFull => format!("device is busy; it is told to {what} again"),
    }
}

// ---- help ---------------------------------------------------------------------------------------------------------

fn help(what: &str, required: &Value, optional: &Value, answer: &Value) -> Json<Value> {
    Json(json!({
        "msg": what,
        "method": "POST",
        "required": required,
        "optional": optional,
        "answer": answer,
        "content_types": ["application/x-www-form-urlencoded", "multipart/form-data", "application/json"],
    }))
}

async fn start_session_help() -> Json<Value> {
    help(
        "opens a recording session and tells the device to start",
        &json!({ "openid": "who plays", "device_group_code": "code of the device" }),
        &json!({ "device_code": "code of the device, if it is not the group's" }),
        &json!([
            "msg",
            "session_id",
            "status",
            "device_code",
            "websocket_sent",
            "websocket_message",
            "timestamp",
            "note"
        ]),
    )
}

async fn start_data_collection_help() -> Json<Value> {
    help(
        "moves a session from calibrating to collecting and tells its device to start",
        &json!({ "session_id": "number of the session" }),
        &json!({ "device_code": "must be the session's", "openid": "must be the session's" }),
        &json!(["msg", "session_id", "status", "device_code", "websocket_message", "communication_method", "result"]),
    )
}

async fn end_session_help() -> Json<Value> {
    help(
        "ends a session and tells its device to stop; repeating it changes nothing",
        &json!({ "session_id": "number of the session" }),
        &json!({ "device_code": "must be the session's", "openid": "must be the session's" }),
        &json!([
            "msg",
            "session_id",
            "status",
            "device_code",
            "websocket_sent",
            "websocket_message",
            "timestamp",
            "note"
        ]),
    )
}

// ---- operation ----------------------------------------------------------------------------------------------------

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
    if let Some(failure) = context.state.ingest.log_failure() {
        return Err(unavailable("log_unavailable", &format!("the log takes no frames: {failure}")));
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
    let what = format!("{method} is not allowed here");
    ApiError::with_status(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", what)
}

/// A handler broke: that is a bug of ours, and costs the one request.
pub(super) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    ApiError::with_status(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request could not be served")
        .into_response()
}

/// Paths that are not the gateway's.
pub(super) async fn elsewhere(AxumState(context): Shared, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let Ok(response) = context.extra.clone().oneshot(request).await;
    // A router's own 404 has no body; clients of this service look for `error`.
    let bare = !response.headers().contains_key(header::CONTENT_TYPE);
    if response.status() == StatusCode::NOT_FOUND && bare {
        return ApiError::not_found("unknown_path", format!("nothing is at {}", clip(&path))).into_response();
    }
    response
}

fn clip(path: &str) -> &str {
    crate::protocol::budget::clip(path, 100)
}

/// Counts and times every request by its route.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", |path| known_route(path.as_str()));
    let started = Instant::now();
    let response = next.run(request).await;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        metrics::histogram!("volant_gateway_http_seconds").record(started.elapsed().as_secs_f64());
    }
    let status = response.status().as_str().to_owned();
    metrics::counter!("volant_gateway_http_requests_total", "route" => route, "status" => status).increment(1);
    response
}

/// A route's name for metrics: without prefix and slashes, so that both prefixes count together.
fn known_route(path: &str) -> &'static str {
    const ROUTES: [&str; 14] = [
        "simple_login",
        "bind_device",
        "start_session",
        "start_data_collection",
        "end_session",
        "get_analysis",
        "get_latest_session",
        "ws/esp32/{device_code}",
        "ws/miniprogram/{user_id}",
        "ws/admin",
        "health/live",
        "health/ready",
        "metrics",
        "",
    ];
    let name = path.trim_start_matches("/wxapp").trim_start_matches("/api").trim_matches('/');
    ROUTES
        .into_iter()
        .find(|route| *route == name)
        .map_or("other", |route| if route.is_empty() { "root" } else { route })
}
