//! Recording sessions, their strokes and results.

use std::sync::Arc;

use axum::extract::State as AxumState;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemas::{SessionId, SessionStatus, UserId};
use serde::{Deserialize, Serialize};
use utoipa::openapi::{Array, ArrayBuilder, Ref};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{self, Body, Path, Query, limit};
use super::{Problems, analysis_type, fresh};
use crate::analysis::Published;
use crate::gateway::access::{Access, Want, device_code};
use crate::gateway::error::ApiError;
use crate::gateway::forms::Params;
use crate::gateway::{Context, Shared};
use crate::hub::Sent;
use crate::sessions::{Filter, SessionInfo};
use crate::texts::Lang;

pub(super) fn router() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::new()
        .routes(routes!(list, start))
        .routes(routes!(session))
        .routes(routes!(stop))
        .routes(routes!(complete))
        .routes(routes!(result))
        .routes(routes!(strokes))
        .routes(routes!(doctor))
}

/// Sessions and strokes of a page at most, and where nothing is asked.
const PAGE_LIMIT: i64 = 1000;
const PAGE_USUAL: i64 = 200;

/// A recording session.
#[derive(Serialize, ToSchema)]
pub(super) struct Session {
    session_id: i64,
    device_code: String,
    group_code: String,
    user_id: Option<i64>,
    /// `calibrating`, `collecting`, `stopping`, `analyzing`, `completed` or `stopped`.
    status: &'static str,
    /// Why it ended without a result.
    reason: Option<String>,
    started_at_us: i64,
    ended_at_us: Option<i64>,
    /// Frames taken so far.
    frame_count: i64,
    /// Of the sealed file; 0 while there is none.
    revision: i64,
}

impl From<SessionInfo> for Session {
    fn from(info: SessionInfo) -> Self {
        Self {
            session_id: info.session_id.get(),
            device_code: info.device_code.to_string(),
            group_code: info.group_code,
            user_id: info.user_id.map(UserId::get),
            status: info.status.as_str(),
            reason: info.reason,
            started_at_us: info.started_at_us,
            ended_at_us: info.ended_at_us,
            frame_count: info.frame_count,
            revision: info.revision,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Listed {
    /// Of this player; users see their own anyway.
    user_id: Option<i64>,
    /// Of this device.
    device_code: Option<String>,
    /// In this state.
    status: Option<String>,
    /// Only sessions with a lower number: the last of the page before.
    #[param(minimum = 1)]
    before: Option<i64>,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

#[derive(Serialize, ToSchema)]
struct Sessions {
    /// This server's clock.
    now_us: i64,
    sessions: Vec<Session>,
}

/// List sessions
///
/// The newest first: all for admins and the scope `sessions:read`, their own for users.
#[utoipa::path(
    get, path = "/api/v2/sessions", tag = "sessions", params(Listed),
    responses((status = 200, body = Sessions), Problems)
)]
async fn list(AxumState(context): Shared, access: Access, Query(listed): Query<Listed>) -> Result<Response, ApiError> {
    let own = access.reads_sessions_of()?;
    let asked = listed.user_id.map(UserId);
    if own.is_some() && asked.is_some() && asked != own {
        return Err(ApiError::forbidden("foreign_user"));
    }
    let unknown = || ApiError::bad_request("status is one of the six states of a session");
    let filter = Filter {
        user: own.or(asked),
        device: listed.device_code.as_deref().map(device_code).transpose()?,
        status: listed.status.map(|name| SessionStatus::from_name(&name).ok_or_else(unknown)).transpose()?,
        before: extract::page(listed.before, 1)?.map(SessionId),
        limit: limit(listed.limit, PAGE_USUAL, PAGE_LIMIT)?,
    };
    let sessions = context.state.sessions.list(&filter).await?.into_iter().map(Session::from).collect();
    Ok(fresh(Sessions { now_us: context.state.clock.now_us(), sessions }))
}

/// A session to be started.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewSession {
    /// The device that records; without it, the only one of the group.
    device_code: Option<String>,
    /// The device's group; without it, that of the device's own code.
    #[schema(max_length = 64)]
    group_code: Option<String>,
    /// Who plays, for admins; a user starts their own sessions.
    user_id: Option<i64>,
}

/// A session and what became of the command to its device.
#[derive(Serialize, ToSchema)]
struct Commanded {
    session: Session,
    /// `queued`: it is on the device's socket; `not_connected`: the device is told when it connects or polls; `queue_full`:
    /// it is told again; `none`: there was nothing to tell.
    command: &'static str,
}

pub(super) const fn sent(sent: Sent) -> &'static str {
    match sent {
        Sent::Queued => "queued",
        Sent::NotConnected => "not_connected",
        Sent::QueueFull => "queue_full",
    }
}

/// Start a session
///
/// Its device is told to start. A session that the device is in is ended in order first.
#[utoipa::path(
    post, path = "/api/v2/sessions", tag = "sessions", request_body = NewSession,
    responses((status = 201, body = Commanded), Problems)
)]
async fn start(AxumState(context): Shared, access: Access, Body(new): Body<NewSession>) -> Result<Response, ApiError> {
    let state = &context.state;
    let user = access.user(state, new.user_id).await?;
    let device = match (&new.device_code, &new.group_code) {
        (Some(code), _) => device_code(code)?,
        (None, Some(group)) => state.accounts.device_of_group(group).await?,
        (None, None) => return Err(ApiError::missing("device_code")),
    };
    access.commands_device(state, &device).await?;
    let group = new.group_code.unwrap_or_else(|| device.to_string());
    state.accounts.ensure_group(&group).await?;
    let started = state.sessions.start(user, &group, device).await?;
    let commanded = Commanded { session: started.session.into(), command: sent(started.sent) };
    Ok((StatusCode::CREATED, fresh(commanded)).into_response())
}

#[derive(Serialize, ToSchema)]
struct OneSession {
    /// This server's clock.
    now_us: i64,
    session: Session,
}

/// One session
#[utoipa::path(
    get, path = "/api/v2/sessions/{session_id}", tag = "sessions",
    params(("session_id" = i64, Path, minimum = 1)),
    responses((status = 200, body = OneSession), Problems)
)]
async fn session(AxumState(context): Shared, access: Access, Path(id): Path<String>) -> Result<Response, ApiError> {
    let session = seen(&context, &access, &id, Want::Read).await?;
    Ok(fresh(OneSession { now_us: context.state.clock.now_us(), session: session.into() }))
}

pub(super) async fn seen(context: &Context, access: &Access, id: &str, want: Want) -> Result<SessionInfo, ApiError> {
    access.session(&context.state, extract::session(id)?, &Params::default(), want).await
}

/// Stop a session
///
/// Its device is told to stop; what it still holds is taken. Repeating it changes nothing.
#[utoipa::path(
    post, path = "/api/v2/sessions/{session_id}/stop", tag = "sessions",
    params(("session_id" = i64, Path, minimum = 1)),
    responses((status = 200, body = Commanded), Problems)
)]
async fn stop(AxumState(context): Shared, access: Access, Path(id): Path<String>) -> Result<Response, ApiError> {
    let session = seen(&context, &access, &id, Want::Control).await?;
    let ended = context.state.sessions.end(session.session_id, None).await?;
    let command = if ended.command.is_some() { sent(ended.sent) } else { "none" };
    Ok(fresh(Commanded { session: ended.session.into(), command }))
}

/// Say that a session is complete
///
/// What is there is sealed and analysed, without waiting for the device. Repeating it changes nothing.
#[utoipa::path(
    post, path = "/api/v2/sessions/{session_id}/complete", tag = "sessions",
    params(("session_id" = i64, Path, minimum = 1)),
    responses((status = 200, body = OneSession), Problems)
)]
async fn complete(AxumState(context): Shared, access: Access, Path(id): Path<String>) -> Result<Response, ApiError> {
    let session = seen(&context, &access, &id, Want::Control).await?;
    let session = context.state.sessions.finish(session.session_id).await?;
    Ok(fresh(OneSession { now_us: context.state.clock.now_us(), session: session.into() }))
}

pub(super) fn analysis() -> Ref {
    analysis_type("Analysis")
}

fn many_strokes() -> Array {
    ArrayBuilder::new().items(analysis_type("Stroke")).build()
}

/// A published result.
#[derive(Serialize, ToSchema)]
struct Answer<'a> {
    session_id: i64,
    analysis_id: i64,
    /// Of the frames that were analysed.
    revision: i64,
    created_at_us: i64,
    /// As `volant analyze --json` prints it: strokes, session, issues, provenance.
    #[schema(schema_with = analysis)]
    analysis: &'a pipelines::Analysis,
}

async fn published(context: &Context, access: &Access, id: &str) -> Result<Published, ApiError> {
    let session = seen(context, access, id, Want::Read).await?;
    let published = context.state.analysis.published(session.session_id).await?;
    published.ok_or_else(|| {
        ApiError::not_found("no_analysis", "analysis result not found")
            .with("session_status", session.status.as_str())
            .with("reason", session.reason)
    })
}

/// The result of a session
#[utoipa::path(
    get, path = "/api/v2/sessions/{session_id}/result", tag = "sessions",
    params(("session_id" = i64, Path, minimum = 1)),
    responses((status = 200, body = Answer<'_>), Problems)
)]
async fn result(AxumState(context): Shared, access: Access, Path(id): Path<String>) -> Result<Response, ApiError> {
    let published = published(&context, &access, &id).await?;
    Ok(fresh(Answer {
        session_id: published.session_id.get(),
        analysis_id: published.analysis_id.get(),
        revision: published.revision,
        created_at_us: published.created_at_us,
        analysis: &published.analysis,
    }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StrokePage {
    /// Only strokes after this one, counted from 1.
    #[param(minimum = 0)]
    after: Option<i64>,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

#[derive(Serialize, ToSchema)]
struct Strokes<'a> {
    session_id: i64,
    /// Strokes of the whole session.
    stroke_count: usize,
    /// Those of this page. Times are ms since session start.
    #[schema(schema_with = many_strokes)]
    strokes: &'a [pipelines::Stroke],
}

/// The strokes of a session
#[utoipa::path(
    get, path = "/api/v2/sessions/{session_id}/strokes", tag = "sessions",
    params(("session_id" = i64, Path, minimum = 1), StrokePage),
    responses((status = 200, body = Strokes<'_>), Problems)
)]
async fn strokes(
    AxumState(context): Shared,
    access: Access,
    Path(id): Path<String>,
    Query(page): Query<StrokePage>,
) -> Result<Response, ApiError> {
    let limit = limit(page.limit, PAGE_USUAL, PAGE_LIMIT)? as usize;
    let after = extract::page(page.after, 0)?.unwrap_or(0) as usize;
    let published = published(&context, &access, &id).await?;
    let strokes = &published.analysis.strokes;
    let from = after.min(strokes.len());
    let until = from.saturating_add(limit).min(strokes.len());
    Ok(fresh(Strokes {
        session_id: published.session_id.get(),
        stroke_count: strokes.len(),
        strokes: &strokes[from..until],
    }))
}

/// Something wrong with a recording.
#[derive(Serialize, ToSchema)]
struct Finding {
    /// Stable word for programs.
    code: String,
    /// `info`, `warning` or `error`.
    severity: &'static str,
    /// The sensor that it is about; null: the recording.
    sensor: Option<&'static str>,
    /// What is wrong, with the figures, in the language that was asked for.
    text: String,
    /// What to do.
    remedy: String,
    /// Names of the figures that it removes or weakens.
    affects: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct Findings {
    session_id: i64,
    /// The gravest first. Empty: nothing was found.
    findings: Vec<Finding>,
}

/// What is wrong with a recording
///
/// Which figures it affects, and what to do. Also of a session that still records, of what is there so far.
#[utoipa::path(
    get, path = "/api/v2/sessions/{session_id}/doctor", tag = "sessions",
    params(("session_id" = i64, Path, minimum = 1)),
    responses((status = 200, body = Findings), Problems)
)]
async fn doctor(AxumState(context): Shared, access: Access, Path(id): Path<String>) -> Result<Response, ApiError> {
    let session = seen(&context, &access, &id, Want::Read).await?;
    let track = context.state.track(&session).await?;
    let findings = context.state.analysis.examine(session.session_id, track).await?;
    let findings = findings.into_iter().map(|finding| {
        let (text, remedy) = match access.lang {
            Lang::Zh => (finding.text_zh, finding.remedy_zh),
            Lang::En => (finding.text, finding.remedy),
        };
        let severity = match finding.severity {
            pipelines::Severity::Info => "info",
            pipelines::Severity::Warning => "warning",
            pipelines::Severity::Error => "error",
        };
        let sensor = finding.sensor.map(schemas::SensorRole::as_str);
        Finding { code: finding.code, severity, sensor, text, remedy, affects: finding.affects }
    });
    Ok(fresh(Findings { session_id: session.session_id.get(), findings: findings.collect() }))
}
