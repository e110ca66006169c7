//! Pipelines, and analyses of old sessions by another one: ordered, compared, put in the place of the published results.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State as AxumState;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemas::SessionId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{self, Body, Path, Query, limit};
use super::sessions::{analysis, seen};
use super::{Problems, fresh};
use crate::accounts::Scope;
use crate::analysis::{Compared, Known};
use crate::gateway::access::{Access, Want, device_code};
use crate::gateway::error::ApiError;
use crate::gateway::{Context, Shared};
use crate::store::catalog::Order;

pub(super) fn router() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(compared, order, cancel))
        .routes(routes!(publish))
        .routes(routes!(of_session))
        .routes(routes!(one))
        .routes(routes!(publish_one))
        .routes(routes!(choose))
}

/// Candidates of a page at most, and where nothing is asked. Each is compared with what is published.
const PAGE_LIMIT: i64 = 200;
const PAGE_USUAL: i64 = 50;

/// A pipeline that this service can run.
#[derive(Serialize, ToSchema)]
struct PipelineInfo {
    name: String,
    description: String,
    stages: Vec<&'static str>,
    sensors: Vec<&'static str>,
    /// Name of the model; null: strokes are not named.
    model: Option<String>,
    model_sha256: Option<String>,
    params_sha256: String,
    /// Of everything that its results depend on.
    sha256: String,
    /// It comes with the program.
    ships: bool,
}

impl From<Known> for PipelineInfo {
    fn from(known: Known) -> Self {
        let Known { pipeline, model, sha256, path } = known;
        Self {
            name: pipeline.name().to_owned(),
            description: pipeline.description.clone(),
            stages: pipeline.stages.iter().map(|stage| stage.as_str()).collect(),
            sensors: pipeline.sensors.iter().map(|role| role.as_str()).collect(),
            model: model.as_ref().map(|model| model.name().to_owned()),
            model_sha256: model.as_ref().map(|model| model.sha256().to_owned()),
            params_sha256: pipeline.params.sha256(),
            sha256,
            ships: path.is_none(),
        }
    }
}

/// A file that is no pipeline.
#[derive(Serialize, ToSchema)]
struct RefusedFile {
    file: String,
    /// What is wrong with it.
    problem: String,
}

#[derive(Serialize, ToSchema)]
struct Pipelines {
    pipelines: Vec<PipelineInfo>,
    /// Files beside them that cannot be used.
    refused: Vec<RefusedFile>,
}

/// List pipelines
///
/// Files that are put into the service's folder of pipelines count at once.
#[utoipa::path(get, path = "/api/v2/pipelines", tag = "analysis", responses((status = 200, body = Pipelines), Problems))]
async fn list(AxumState(context): Shared, access: Access) -> Result<Response, ApiError> {
    access.scope(Scope::SessionsRead)?;
    let found = context.state.analysis.pipelines().await?;
    let refused = found.refused.into_iter().map(|refused| {
        let file = refused.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        RefusedFile { file, problem: refused.problem() }
    });
    Ok(fresh(Pipelines {
        refused: refused.collect(),
        pipelines: found.known.into_values().map(PipelineInfo::from).collect(),
    }))
}

/// An analysis by another pipeline, beside the published one.
#[derive(Serialize, ToSchema)]
struct Candidate {
    session_id: i64,
    pipeline: String,
    /// Of everything that it was computed with.
    definition_sha256: String,
    /// `queued`, `running`, `done`, `switching` or `failed`.
    state: String,
    error: Option<String>,
    /// Of the frames that were analysed.
    revision: Option<i64>,
    created_at_us: Option<i64>,
    /// Since when it is the published result; null: it is not.
    published_at_us: Option<i64>,
    /// Swings of the published result.
    published_strokes: Option<usize>,
    /// Swings of this one.
    strokes: Option<usize>,
    /// Swings that both have, with impacts within 100 ms.
    common_strokes: Option<usize>,
    /// Those of them that have another name.
    renamed_strokes: Option<usize>,
}

impl From<Compared> for Candidate {
    fn from(compared: Compared) -> Self {
        let Compared { candidate, published_strokes, candidate_strokes, common_strokes, renamed_strokes } = compared;
        Self {
            session_id: candidate.session_id.get(),
            pipeline: candidate.pipeline,
            definition_sha256: candidate.definition_sha256,
            state: candidate.state,
            error: candidate.error,
            revision: candidate.revision,
            created_at_us: candidate.created_at_us,
            published_at_us: candidate.published_at_us,
            published_strokes,
            strokes: candidate_strokes,
            common_strokes,
            renamed_strokes,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CandidatePage {
    /// Only sessions with a higher number: the last of the page before.
    #[param(minimum = 0)]
    after: Option<i64>,
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

#[derive(Serialize, ToSchema)]
struct Candidates {
    /// How many sessions are in each state.
    states: BTreeMap<String, i64>,
    candidates: Vec<Candidate>,
}

/// Compare a pipeline with what is published
///
/// The sessions that were ordered to be analysed by it, by number. Needs the scope `sessions:read`.
#[utoipa::path(
    get, path = "/api/v2/pipelines/{pipeline}/analyses", tag = "analysis",
    params(("pipeline" = String, Path, max_length = 64), CandidatePage),
    responses((status = 200, body = Candidates), Problems)
)]
async fn compared(
    AxumState(context): Shared,
    access: Access,
    Path(pipeline): Path<String>,
    Query(page): Query<CandidatePage>,
) -> Result<Response, ApiError> {
    let pipeline = extract::pipeline(pipeline)?;
    access.scope(Scope::SessionsRead)?;
    let analysis = &context.state.analysis;
    let after = SessionId(extract::page(page.after, 0)?.unwrap_or(0));
    let limit = limit(page.limit, PAGE_USUAL, PAGE_LIMIT)?;
    let candidates = analysis.compare(&pipeline, after, limit).await?.into_iter().map(Candidate::from).collect();
    Ok(fresh(Candidates { states: analysis.progress(&pipeline).await?, candidates }))
}

/// Which sessions are to be analysed: those that all conditions hold for; without conditions, all that are sealed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    #[schema(max_items = 10_000)]
    session_ids: Option<Vec<i64>>,
    user_id: Option<i64>,
    device_code: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Counted {
    /// Sessions that this set going; others were done already.
    sessions: u64,
}

/// Analyse sessions by a pipeline
///
/// Side by side with the published results, which stay as they are. Repeating it goes on with what is not done, and does
/// again what an older version of the pipeline did. Needs the scope `sessions:write`.
#[utoipa::path(
    post, path = "/api/v2/pipelines/{pipeline}/analyses", tag = "analysis", request_body = NewOrder,
    params(("pipeline" = String, Path, max_length = 64)),
    responses((status = 202, body = Counted), Problems)
)]
async fn order(
    AxumState(context): Shared,
    access: Access,
    Path(pipeline): Path<String>,
    Body(new): Body<NewOrder>,
) -> Result<Response, ApiError> {
    let pipeline = extract::pipeline(pipeline)?;
    access.scope(Scope::SessionsWrite)?;
    let NewOrder { session_ids, user_id, device_code: device } = new;
    if session_ids.as_ref().is_some_and(|ids| ids.is_empty() || ids.len() > 10_000) {
        return Err(ApiError::bad_request("session_ids has 1 to 10000 numbers, or is not there"));
    }
    let order = Order {
        session_ids: session_ids.unwrap_or_default().into_iter().map(SessionId).collect(),
        user_id,
        device_code: device.map(|code| device_code(&code)).transpose()?.map(|code| code.to_string()),
    };
    let state = &context.state;
    let ordered = state.analysis.order(&pipeline, &order).await?;
    state.accounts.audit(&access.actor(), "analysis.order", &pipeline, None).await?;
    Ok((StatusCode::ACCEPTED, fresh(Counted { sessions: ordered.sessions })).into_response())
}

/// Take an order back
///
/// What nobody has begun is not done; what is done stays.
#[utoipa::path(
    delete, path = "/api/v2/pipelines/{pipeline}/analyses", tag = "analysis",
    params(("pipeline" = String, Path, max_length = 64)),
    responses((status = 200, body = Counted), Problems)
)]
async fn cancel(
    AxumState(context): Shared,
    access: Access,
    Path(pipeline): Path<String>,
) -> Result<Response, ApiError> {
    let pipeline = extract::pipeline(pipeline)?;
    access.scope(Scope::SessionsWrite)?;
    let sessions = context.state.analysis.cancel(&pipeline).await?;
    context.state.accounts.audit(&access.actor(), "analysis.cancel", &pipeline, None).await?;
    Ok(fresh(Counted { sessions }))
}

/// Publish a pipeline's analyses
///
/// Those that are done take the place of the published results, in the background; nobody is notified. A session whose
/// frames changed since stays as it is. Needs the scope `sessions:write`.
#[utoipa::path(
    post, path = "/api/v2/pipelines/{pipeline}/publish", tag = "analysis",
    params(("pipeline" = String, Path, max_length = 64)),
    responses((status = 202, body = Counted), Problems)
)]
async fn publish(
    AxumState(context): Shared,
    access: Access,
    Path(pipeline): Path<String>,
) -> Result<Response, ApiError> {
    let pipeline = extract::pipeline(pipeline)?;
    access.scope(Scope::SessionsWrite)?;
    let sessions = context.state.analysis.switch(&pipeline, None).await?;
    context.state.accounts.audit(&access.actor(), "analysis.publish", &pipeline, None).await?;
    Ok((StatusCode::ACCEPTED, fresh(Counted { sessions })).into_response())
}

#[derive(Serialize, ToSchema)]
struct SessionCandidates {
    session_id: i64,
    candidates: Vec<Candidate>,
}

/// List analyses of a session by other pipelines
#[utoipa::path(
    get, path = "/api/v2/sessions/{session_id}/analyses", tag = "analysis",
    params(("session_id" = i64, Path, minimum = 1)),
    responses((status = 200, body = SessionCandidates), Problems)
)]
async fn of_session(AxumState(context): Shared, access: Access, Path(id): Path<String>) -> Result<Response, ApiError> {
    let session = seen(&context, &access, &id, Want::Read).await?.session_id;
    let candidates = context.state.analysis.candidates_of(session).await?.into_iter().map(Candidate::from).collect();
    Ok(fresh(SessionCandidates { session_id: session.get(), candidates }))
}

/// An analysis that is not the published one.
#[derive(Serialize, ToSchema)]
struct OneCandidate {
    session_id: i64,
    pipeline: String,
    definition_sha256: String,
    revision: Option<i64>,
    created_at_us: Option<i64>,
    published_at_us: Option<i64>,
    /// As `volant analyze --json` prints it.
    #[schema(schema_with = analysis)]
    analysis: pipelines::Analysis,
}

/// An analysis of a session by another pipeline
#[utoipa::path(
    get, path = "/api/v2/sessions/{session_id}/analyses/{pipeline}", tag = "analysis",
    params(("session_id" = i64, Path, minimum = 1), ("pipeline" = String, Path, max_length = 64)),
    responses((status = 200, body = OneCandidate), Problems)
)]
async fn one(
    AxumState(context): Shared,
    access: Access,
    Path((id, pipeline)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let pipeline = extract::pipeline(pipeline)?;
    let session = seen(&context, &access, &id, Want::Read).await?.session_id;
    let found = context.state.analysis.candidate(session, &pipeline).await?;
    let (row, analysis) = found.ok_or_else(|| ApiError::not_found("no_analysis", "analysis result not found"))?;
    Ok(fresh(OneCandidate {
        session_id: session.get(),
        pipeline: row.pipeline,
        definition_sha256: row.definition_sha256,
        revision: row.revision,
        created_at_us: row.created_at_us,
        published_at_us: row.published_at_us,
        analysis,
    }))
}

/// Publish an analysis of a session
///
/// It takes the place of the published result, in the background. Needs the scope `sessions:write`.
#[utoipa::path(
    post, path = "/api/v2/sessions/{session_id}/analyses/{pipeline}/publish", tag = "analysis",
    params(("session_id" = i64, Path, minimum = 1), ("pipeline" = String, Path, max_length = 64)),
    responses((status = 202, body = Counted), Problems)
)]
async fn publish_one(
    AxumState(context): Shared,
    access: Access,
    Path((id, pipeline)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let pipeline = extract::pipeline(pipeline)?;
    access.scope(Scope::SessionsWrite)?;
    let session = seen(&context, &access, &id, Want::Control).await?.session_id;
    let state = &context.state;
    let sessions = state.analysis.switch(&pipeline, Some(session)).await?;
    state.accounts.audit(&access.actor(), "analysis.publish", &format!("{session} {pipeline}"), None).await?;
    Ok((StatusCode::ACCEPTED, fresh(Counted { sessions })).into_response())
}

/// Which pipeline.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Chosen {
    /// Its name; null: everybody's.
    pipeline: Option<String>,
}

/// Choose a player's pipeline
///
/// It analyses the player's new sessions. For admins.
#[utoipa::path(
    put, path = "/api/v2/players/{user_id}/pipeline", tag = "analysis", request_body = Chosen,
    params(("user_id" = i64, Path, minimum = 1)),
    responses((status = 204), Problems)
)]
async fn choose(
    AxumState(context): Shared,
    access: Access,
    Path(user): Path<String>,
    Body(chosen): Body<Chosen>,
) -> Result<Response, ApiError> {
    access.admin()?;
    let state = &context.state;
    let user = access.user(state, Some(extract::user(&user)?)).await?;
    state.analysis.set_pipeline_of(user, chosen.pipeline.as_deref()).await?;
    state.accounts.audit(&access.actor(), "player.pipeline", &user.to_string(), None).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
