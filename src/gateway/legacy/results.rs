//! Results of a session: figures, report, peaks; and recordings that come as `.mat` files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State as AxumState};
use axum::http::StatusCode;
use axum::routing::{get, post};
use schemas::{SensorRole, SessionId};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument as _;

use super::{Answer, Routes};
use crate::analysis::Published;
use crate::gateway::access::{Access, Want, session_id};
use crate::gateway::error::ApiError;
use crate::gateway::forms::Params;
use crate::gateway::{Context, Shared, State};
use crate::protocol::UtcTime;
use crate::recordings::mat;
use crate::report::{self, Peak};
use crate::sessions::SessionInfo;

pub(super) fn routes() -> Routes {
    vec![
        ("get_analysis", get(get_analysis).post(get_analysis)),
        ("generate_report", get(generate_report).post(generate_report)),
        ("get_mat_analysis", get(get_mat_analysis).post(get_mat_analysis)),
        ("get_sensor_peaks", get(get_sensor_peaks).post(get_sensor_peaks)),
        ("get_sensor_peak_timestamps", get(get_sensor_peak_timestamps).post(get_sensor_peak_timestamps)),
        ("upload_mat", post(upload_mat)),
    ]
}

/// The legacy service answered an upload after its analysis; its clients then ask for the result at once. So the answer
/// waits for the analysis, but not longer than this.
const ANALYSIS_PATIENCE: Duration = Duration::from_secs(20);
/// Group of sessions that come as files. Each player has a device of their own for them, so that what a crash left open is
/// one session a player.
const MAT_GROUP: &str = "test_group";
/// `.mat` files that arrive at the same time; a further one waits a little and is then answered 503.
pub(in crate::gateway) const MAT_UPLOADS_AT_ONCE: usize = 4;

/// The session that a request names and its published result.
async fn published(context: &Context, access: &Access, request: Request) -> Result<(SessionInfo, Published), ApiError> {
    let state = &context.state;
    let params = Params::of(request, &context.options).await?;
    let session = access.session(state, session_id(&params)?, &params, Want::Read).await?;
    match state.analysis.published(session.session_id).await? {
        Some(published) => Ok((session, published)),
        None => Err(ApiError::not_found("no_analysis", "analysis result not found")
            .with("status", session.status.as_str())
            .with("reason", session.reason)),
    }
}

async fn get_analysis(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let (_, published) = published(&context, &access, request).await?;
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

/// `generate_report/`
async fn generate_report(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let (session, published) = published(&context, &access, request).await?;
    full_report(&context.state, &access, session, published, "report_made").await
}

/// `get_mat_analysis/`: the same under another name.
async fn get_mat_analysis(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let (session, published) = published(&context, &access, request).await?;
    full_report(&context.state, &access, session, published, "analysis_result").await
}

async fn full_report(
    state: &State,
    access: &Access,
    session: SessionInfo,
    published: Published,
    message: &'static str,
) -> Answer {
    let lang = match session.user_id {
        Some(user) => access.lang_for(state, user).await?,
        None => access.lang,
    };
    let track = state.track(&session).await?;
    let (analysis, started_at_us) = (published.analysis.clone(), session.started_at_us);
    let report =
        tokio::task::spawn_blocking(move || report::legacy_report(&analysis, &track, started_at_us, lang)).await;
    let issues: Vec<&str> = published
        .analysis
        .issues
        .iter()
        .map(|issue| if lang == crate::texts::Lang::Zh { &issue.message_zh } else { &issue.message })
        .map(String::as_str)
        .collect();
    Ok(Json(json!({
        "msg": access.say(message),
        "session_id": session.session_id,
        "analysis_id": published.analysis_id,
        "report": report.map_err(|_| ApiError::broke())?,
        // Why a figure is null stands here.
        "issues": issues,
        "session_info": session_fields(&session),
    })))
}

fn session_fields(session: &SessionInfo) -> Value {
    json!({
        "session_id": session.session_id,
        "start_time": UtcTime(session.started_at_us),
        "end_time": session.ended_at_us.map(UtcTime),
        "status": session.status,
    })
}

// ---- peaks --------------------------------------------------------------------------------------------------------

async fn peaks(context: &Context, access: &Access, request: Request) -> Result<(SessionInfo, Vec<Peak>), ApiError> {
    let params = Params::of(request, &context.options).await?;
    let session = access.session(&context.state, session_id(&params)?, &params, Want::Read).await?;
    let track = context.state.track(&session).await?;
    let peaks = tokio::task::spawn_blocking(move || report::peaks(&track)).await.map_err(|_| ApiError::broke())?;
    if peaks.is_empty() {
        return Err(ApiError::not_found("no_frames_yet", "the session has no frames"));
    }
    Ok((session, peaks))
}

/// Both generations of names: `<type>_max` and `max_velocities`, `<type>_peak` and `peaks`; `data` from the hips outward.
async fn get_sensor_peaks(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let (session, peaks) = peaks(&context, &access, request).await?;
    let by_name: Map<String, Value> =
        peaks.iter().map(|peak| (peak.sensor.as_str().to_owned(), json!(peak.rate_dps))).collect();
    let mut answer = json!({
        "msg": access.say("peaks_found"),
        "sensor_count": peaks.len(),
        "sensor_types": peaks.iter().map(|peak| peak.sensor.as_str()).collect::<Vec<_>>(),
        "max_velocities": by_name,
        "peaks": by_name,
        "data": peaks.iter().map(|peak| peak.rate_dps).collect::<Vec<_>>(),
        "unit": "deg/s",
        "session_info": session_fields(&session),
    });
    for peak in &peaks {
        answer[format!("{}_max", peak.sensor)] = json!(peak.rate_dps);
        answer[format!("{}_peak", peak.sensor)] = json!(peak.rate_dps);
    }
    Ok(Json(answer))
}

/// When each sensor turned fastest, s on the time axis of the curves.
async fn get_sensor_peak_timestamps(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let (session, peaks) = peaks(&context, &access, request).await?;
    let by_name: Map<String, Value> =
        peaks.iter().map(|peak| (peak.sensor.as_str().to_owned(), json!(peak.time_s))).collect();
    let mut answer = json!({
        "msg": access.say("peaks_found"),
        "sensor_count": peaks.len(),
        "sensor_types": peaks.iter().map(|peak| peak.sensor.as_str()).collect::<Vec<_>>(),
        "peak_timestamps": by_name,
        "data": peaks.iter().map(|peak| peak.time_s).collect::<Vec<_>>(),
        "unit": "s",
        "session_info": session_fields(&session),
    });
    for peak in &peaks {
        answer[format!("{}_peak_time", peak.sensor)] = json!(peak.time_s);
    }
    Ok(Json(answer))
}

// ---- .mat ---------------------------------------------------------------------------------------------------------

/// `upload_mat/`: a recording as a MATLAB file becomes a session of its player.
async fn upload_mat(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let state = &context.state;
    // Not a byte of a file is taken from somebody who has no right to anything.
    access.player_if_any(state, &Params::default()).await?;
    let room = timeout(context.options.body_timeout, context.mat_uploads.acquire()).await;
    let room = room.map_err(|_| busy())?.map_err(|_| ApiError::broke())?;
    let (params, file) = Params::of_file(request, &context.options, "mat_file").await?;
    let player = access.player(state, &params).await?;
    let file = file.ok_or_else(|| ApiError::missing("mat_file"))?;
    // One at a time is inflated, sorted and taken. The turn goes with the work, which a caller who hangs up does not end.
    let turn = Arc::clone(&context.mat_reading).lock_owned().await;
    let (sessions, user) = (state.sessions.clone(), player.user_id);
    let work = async move {
        let _turn = turn;
        let read = tokio::task::spawn_blocking(move || mat::read_mat(&file)).await.map_err(|_| ApiError::broke())?;
        let mat::MatRecording { frames, left_out, duration_ms } = read?;
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for &byte in &frames.sensor {
            *counts.entry(SensorRole::from_wire_id(i64::from(byte)).as_str()).or_default() += 1;
        }
        let device = format!("mat-{user}").parse().map_err(|_| ApiError::broke())?;
        let session = sessions.import_recording(user, MAT_GROUP, device, frames, duration_ms).await?;
        Ok((session, counts, left_out, duration_ms))
    };
    let done = tokio::spawn(work.in_current_span()).await.map_err(|_| ApiError::broke())?;
    let (session, counts, left_out, duration_ms) = done.inspect_err(|error: &ApiError| {
        metrics::counter!("volant_gateway_rejected_packets_total", "reason" => error.code).increment(1);
    })?;
    drop(room);
    let frames: usize = counts.values().sum();
    let analysis_id = wait_for_analysis(state, session.session_id).await?;
    let records: Vec<Value> = counts
        .iter()
        .map(|(sensor, frames)| {
            json!({ "sensor_type": sensor, "device_code": format!("{sensor}_sensor_001"), "data_count": frames })
        })
        .collect();
    Ok(Json(json!({
        "msg": access.say("mat_taken"),
        "session_id": session.session_id,
        "data_summary": {
            "total_sensor_records": frames,
            "left_out_rows": left_out,
            "duration_seconds": duration_ms as f64 / 1e3,
            "sensor_records": records,
            "analysis_id": analysis_id,
        },
    })))
}

fn busy() -> ApiError {
    let error = ApiError::with_status(StatusCode::SERVICE_UNAVAILABLE, "mat_busy", "too many files arrive at once");
    ApiError { retry_after_s: Some(5), ..error }
}

/// The analysis of a session that was just sealed, if it comes in time.
async fn wait_for_analysis(state: &State, session: SessionId) -> Result<Option<schemas::AnalysisId>, ApiError> {
    let until = Instant::now() + ANALYSIS_PATIENCE;
    loop {
        if let Some(published) = state.analysis.published(session).await? {
            return Ok(Some(published.analysis_id));
        }
        let info = state.sessions.info(session).await?;
        let failed = info.is_none_or(|info| info.status == schemas::SessionStatus::Stopped);
        if failed || Instant::now() >= until {
            return Ok(None);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

impl From<mat::Error> for ApiError {
    fn from(error: mat::Error) -> Self {
        use mat::Error as E;
        let code = match error {
            E::NotMatlab => "mat_not_matlab",
            E::Version73 => "mat_version_73",
            E::Damaged => "mat_damaged",
            E::TooLarge => "mat_too_large",
            E::NoVariable => "mat_no_variable",
            E::NotAMatrix => "mat_not_a_matrix",
            E::NoRows => "mat_no_rows",
            E::TooLong => "mat_too_long",
        };
        Self::with_status(StatusCode::BAD_REQUEST, code, error.to_string())
    }
}
