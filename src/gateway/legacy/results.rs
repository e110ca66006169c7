//! Results of a session.

use axum::Json;
use axum::extract::{Request, State as AxumState};
use axum::routing::get;
use serde_json::json;

use super::{Answer, Routes};
use crate::gateway::Shared;
use crate::gateway::access::{Access, Want, session_id};
use crate::gateway::error::ApiError;
use crate::gateway::forms::Params;
use crate::protocol::UtcTime;

pub(super) fn routes() -> Routes {
    vec![("get_analysis", get(get_analysis).post(get_analysis))]
}

async fn get_analysis(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let state = &context.state;
    let params = Params::of(request, &context.options).await?;
    let session = access.session(state, session_id(&params)?, &params, Want::Read).await?;
    let Some(published) = state.analysis.published(session.session_id).await? else {
        return Err(ApiError::not_found("no_analysis", "analysis result not found")
            .with("status", session.status.as_str())
            .with("reason", session.reason));
    };
    let analysis = &published.analysis;
    let figures = &analysis.session;
    Ok(Json(json!({
        "msg": access.say("analysis_result"),
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
