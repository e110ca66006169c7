//! The service itself, and who the caller is.

use std::sync::Arc;

use axum::extract::State as AxumState;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::Body;
use super::{Problems, fresh};
use crate::accounts::{Caller, LOGIN_LIFETIME, Scope, Scopes};
use crate::gateway::access::{Access, COOKIE};
use crate::gateway::error::ApiError;
use crate::gateway::{Context, Shared};
use crate::texts::Lang;

pub(super) fn router() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(me))
        .routes(routes!(set_language))
        .routes(routes!(openapi))
        .routes(routes!(asyncapi))
}

/// Figures of the service.
#[derive(Serialize, ToSchema)]
struct Status {
    /// This server's clock, µs since 1970 UTC: ages are reckoned against it.
    now_us: i64,
    version: &'static str,
    /// Sessions that are calibrating, collecting or analyzing.
    active_sessions: i64,
    total_sessions: i64,
    /// Frames on disk.
    total_frames: i64,
    connected_devices: usize,
    /// Notices that are owed to anybody.
    owed_notifications: i64,
}

/// Figures of the service
#[utoipa::path(get, path = "/api/v2/status", tag = "service", responses((status = 200, body = Status), Problems))]
async fn status(AxumState(context): Shared, access: Access) -> Result<Response, ApiError> {
    access.scope(Scope::SessionsRead)?;
    let state = &context.state;
    let counts = state.sessions.system_counts().await?;
    Ok(fresh(Status {
        now_us: state.clock.now_us(),
        version: env!("CARGO_PKG_VERSION"),
        active_sessions: counts.active_sessions,
        total_sessions: counts.total_sessions,
        total_frames: counts.total_sensor_data,
        connected_devices: state.hub.devices().len(),
        owed_notifications: state.notify.owed_count().await?,
    }))
}

/// Name and password of an admin.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Login {
    #[schema(max_length = 64)]
    name: String,
    #[schema(max_length = 128)]
    password: String,
}

/// A login.
#[derive(Serialize, ToSchema)]
struct LoggedIn {
    /// Also set as a cookie that no script can read.
    token: String,
    token_id: String,
    expires_at_us: Option<i64>,
}

/// Log an admin in
#[utoipa::path(
    post, path = "/api/v2/login", tag = "service", request_body = Login,
    responses((status = 200, body = LoggedIn), Problems)
)]
async fn login(
    AxumState(context): Shared,
    access: Access,
    headers: HeaderMap,
    Body(login): Body<Login>,
) -> Result<Response, ApiError> {
    let state = &context.state;
    state.limits.allows_attempt(access.address)?;
    let Some(issued) = state.accounts.login(&login.name, &login.password).await? else {
        state.limits.note_failure(access.address);
        return Err(ApiError::unauthenticated("login_refused"));
    };
    let secure = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    let cookie = cookie(&issued.token, LOGIN_LIFETIME.as_secs(), secure);
    let mut response = fresh(LoggedIn {
        token: issued.token,
        token_id: issued.info.token_id,
        expires_at_us: issued.info.expires_at_us,
    });
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Log out
///
/// The token of the request no longer counts, and the cookie is taken back.
#[utoipa::path(post, path = "/api/v2/logout", tag = "service", responses((status = 204), Problems))]
async fn logout(AxumState(context): Shared, access: Access) -> Result<Response, ApiError> {
    access.revoke_own(&context.state).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie("", 0, false)) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

fn cookie(token: &str, max_age_s: u64, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age_s}{secure}")
}

/// Who the caller is.
#[derive(Serialize, ToSchema)]
struct Me {
    /// `stranger`, `operator` (somebody at the machine itself, in legacy mode), `admin`, `user`, `device` or `key`.
    kind: &'static str,
    /// Name of an admin, code of a device, id of a key.
    name: Option<String>,
    user_id: Option<i64>,
    /// Of keys.
    scopes: Scopes,
    /// Of users: what they chose.
    language: Option<Lang>,
}

/// Who the caller is
#[utoipa::path(get, path = "/api/v2/me", tag = "service", responses((status = 200, body = Me), Problems))]
async fn me(access: Access) -> Result<Response, ApiError> {
    let (kind, name, user_id, scopes, language) = match access.caller {
        Caller::Stranger => ("stranger", None, None, Scopes::default(), None),
        Caller::Operator => ("operator", None, None, Scopes::default(), None),
        Caller::Admin { name } => ("admin", Some(name.to_string()), None, Scopes::default(), None),
        Caller::User { user, language } => ("user", None, Some(user.get()), Scopes::default(), language),
        Caller::Device(code) => ("device", Some(code.to_string()), None, Scopes::default(), None),
        Caller::Key { token_id, scopes } => ("key", Some(token_id.to_string()), None, scopes, None),
    };
    Ok(fresh(Me { kind, name, user_id, scopes, language }))
}

/// A choice of language.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Language {
    /// `en` or `zh`; null: as the client asks.
    language: Option<Lang>,
    /// Whose, for admins; a user sets their own.
    user_id: Option<i64>,
}

/// Choose the language of messages
#[utoipa::path(
    put, path = "/api/v2/me/language", tag = "service", request_body = Language,
    responses((status = 204), Problems)
)]
async fn set_language(
    AxumState(context): Shared,
    access: Access,
    Body(chosen): Body<Language>,
) -> Result<Response, ApiError> {
    let user = access.user(&context.state, chosen.user_id).await?;
    context.state.accounts.set_language(user, chosen.language).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// This document
#[utoipa::path(
    get, path = "/api/v2/openapi.json", tag = "service", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value), Problems)
)]
async fn openapi() -> Response {
    document(super::openapi_text())
}

/// The sockets, as AsyncAPI
#[utoipa::path(
    get, path = "/api/v2/asyncapi.json", tag = "service", security(()),
    responses((status = 200, description = "AsyncAPI 3.0", body = serde_json::Value), Problems)
)]
async fn asyncapi() -> Response {
    document(crate::protocol::asyncapi_text())
}

fn document(text: String) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}
