//! What people say was played, and the model that learns it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::State as AxumState;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemas::{SessionId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{self, Body, Path};
use super::sessions::seen;
use super::{Problems, fresh};
use crate::analysis::Published;
use crate::gateway::access::{Access, Want};
use crate::gateway::error::ApiError;
use crate::gateway::{Context, Shared, State};
use crate::sessions::SessionInfo;
use crate::store::catalog::{self, LabelRow, Relabel, SAME_SWING_NS};

pub(super) fn router() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::new().routes(routes!(list, label)).routes(routes!(calibrate))
}

/// Labels in one request.
const REQUEST_LIMIT: usize = 500;
const NAME_LIMIT_CHARS: usize = 64;
const QUALITIES: [&str; 7] = ["clear", "clean", "soft", "ambiguous", "cut", "unclear", "window"];
/// How far behind the end of a session a label may point: devices and the service do not agree to the second.
const BEHIND_END_MS: f64 = 60_000.0;
/// The same while nobody knows how long the session is.
const LATEST_MS: f64 = 7.0 * 86_400_000.0;

/// What somebody says was played. Times are ms since session start.
#[derive(Serialize, ToSchema)]
struct Label {
    /// The impact, or the peak of the swing.
    impact_ms: f64,
    start_ms: Option<f64>,
    end_ms: Option<f64>,
    /// `other`: there was no stroke.
    stroke: String,
    /// `clear`, `clean` and `soft` count; `ambiguous`, `cut` and `unclear` do not; `window`: the whole recording.
    quality: String,
    /// `player`, `admin`, `key` or `import`.
    labelled_by: String,
    labelled_at_us: i64,
    /// The stroke of the published analysis that it names, from 0; null: none was found within 250 ms.
    stroke_index: Option<u32>,
}

#[derive(Serialize, ToSchema)]
struct Labels {
    session_id: i64,
    /// In the order of time.
    labels: Vec<Label>,
}

impl Labels {
    async fn of(state: &State, session_id: SessionId, labels: Vec<catalog::Label>) -> Result<Self, ApiError> {
        let published = state.analysis.published(session_id).await?;
        let strokes = published.as_ref().map_or(&[][..], |published| &published.analysis.strokes);
        let labels = labels.into_iter().map(|label| {
            let impact_ms = ms(label.impact_ns);
            let offs = strokes.iter().map(|stroke| (stroke.impact_ms - impact_ms).abs());
            let nearest = (0_u32..).zip(offs).min_by(|(_, a), (_, b)| a.total_cmp(b));
            Label {
                impact_ms,
                start_ms: label.start_ns.map(ms),
                end_ms: label.end_ns.map(ms),
                stroke: label.stroke,
                quality: label.quality,
                labelled_by: label.labelled_by,
                labelled_at_us: label.labelled_at_us,
                stroke_index: nearest.filter(|(_, off)| *off <= ms(SAME_SWING_NS)).map(|(index, _)| index),
            }
        });
        Ok(Self { session_id: session_id.get(), labels: labels.collect() })
    }
}

fn ms(ns: i64) -> f64 {
    ns as f64 / 1e6
}

fn ns(ms: f64) -> i64 {
    (ms * 1e6).round() as i64
}

/// The labels of a session
#[utoipa::path(
    get, path = "/api/v2/sessions/{session_id}/labels", tag = "analysis",
    params(("session_id" = i64, Path, minimum = 1)),
    responses((status = 200, body = Labels), Problems)
)]
async fn list(AxumState(context): Shared, access: Access, Path(id): Path<String>) -> Result<Response, ApiError> {
    let session = seen(&context, &access, &id, Want::Read).await?.session_id;
    let labels = context.state.analysis.labels(session).await?;
    Ok(fresh(Labels::of(&context.state, session, labels).await?))
}

/// A swing and what it was.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewLabel {
    /// The swing, by its stroke in the published analysis, from 0; this or `impact_ms`.
    #[schema(minimum = 0)]
    stroke_index: Option<u32>,
    /// The swing, by its impact or peak, ms since session start.
    impact_ms: Option<f64>,
    start_ms: Option<f64>,
    end_ms: Option<f64>,
    /// What was played, best a class of the model; `other`: there was no stroke; null: the label that is there is taken back.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required, max_length = 64)]
    stroke: Option<String>,
    /// Without it, `clear`.
    quality: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewLabels {
    #[schema(min_items = 1, max_items = 500)]
    labels: Vec<NewLabel>,
}

/// Label swings
///
/// A label takes the place of one within 250 ms, which names the same swing. Labels are kept with the session, also when it is
/// analysed again; SQL has them as `labels`, and beside what was found there as `labelled_swings`. For the session's player, for
/// admins, and for keys with the scope `sessions:write`.
#[utoipa::path(
    post, path = "/api/v2/sessions/{session_id}/labels", tag = "analysis", request_body = NewLabels,
    params(("session_id" = i64, Path, minimum = 1)),
    responses((status = 200, body = Labels), Problems)
)]
async fn label(
    AxumState(context): Shared,
    access: Access,
    Path(id): Path<String>,
    Body(new): Body<NewLabels>,
) -> Result<Response, ApiError> {
    let state = &context.state;
    let (session, labelled_by) = access.labels(state, extract::session(&id)?).await?;
    if new.labels.is_empty() || new.labels.len() > REQUEST_LIMIT {
        return Err(ApiError::bad_request(format!("labels has 1 to {REQUEST_LIMIT} swings")));
    }
    let published = state.analysis.published(session.session_id).await?;
    let latest_ms = latest_ms(&session, published.as_ref());
    let strokes = published.as_ref().map_or(&[][..], |published| &published.analysis.strokes);
    let now_us = state.clock.now_us();
    let mut changes = Vec::with_capacity(new.labels.len());
    for new in new.labels {
        let impact_ms = match (new.impact_ms, new.stroke_index) {
            (Some(impact_ms), None) => impact_ms,
            (None, Some(index)) => strokes.get(index as usize).map(|stroke| stroke.impact_ms).ok_or_else(|| {
                let message = format!("there is no stroke {index}: the published analysis has {}", strokes.len());
                ApiError::with_status(StatusCode::UNPROCESSABLE_ENTITY, "no_stroke", message)
                    .about("stroke", index)
                    .about("count", strokes.len())
            })?,
            _ => return Err(ApiError::bad_request("a label has either stroke_index or impact_ms")),
        };
        check_times(latest_ms, new.start_ms, impact_ms, new.end_ms)?;
        changes.push(match new.stroke {
            None => Relabel::TakeBack(ns(impact_ms)),
            Some(stroke) => Relabel::Put(catalog::Label {
                impact_ns: ns(impact_ms),
                start_ns: new.start_ms.map(ns),
                end_ns: new.end_ms.map(ns),
                stroke: named(stroke)?,
                quality: quality(new.quality)?,
                labelled_by: labelled_by.to_owned(),
                labelled_at_us: now_us,
            }),
        });
    }
    let labels =
        state.analysis.relabel(session.session_id, &changes).await?.ok_or_else(|| hidden(session.session_id))?;
    state
        .accounts
        .audit(&access.actor(), "session.label", &format!("{} ({})", session.session_id, changes.len()), None)
        .await?;
    Ok(fresh(Labels::of(state, session.session_id, labels).await?))
}

fn hidden(session: SessionId) -> ApiError {
    ApiError::not_found("session_not_found", "session not found").about("session", session)
}

/// The latest time that a label may have, ms since session start. A device that sends what it has kept sends faster than it
/// sampled: then the frames end later than the service saw the session end.
fn latest_ms(session: &SessionInfo, published: Option<&Published>) -> f64 {
    let (Some(ended_at_us), Some(published)) = (session.ended_at_us, published) else { return LATEST_MS };
    let by_service = (ended_at_us - session.started_at_us) as f64 / 1e3;
    let by_frames = published.analysis.session.duration_s * 1e3;
    let by_strokes = published.analysis.strokes.last().map_or(0.0, |stroke| stroke.end_ms);
    (by_service.max(by_frames).max(by_strokes) + BEHIND_END_MS).min(LATEST_MS)
}

fn check_times(latest_ms: f64, start: Option<f64>, impact: f64, end: Option<f64>) -> Result<(), ApiError> {
    let within = 0.0..=latest_ms;
    let times = [start.unwrap_or(impact), impact, end.unwrap_or(impact)];
    if times.iter().all(|time| within.contains(time)) && times.is_sorted() {
        return Ok(());
    }
    Err(ApiError::bad_request("start_ms, impact_ms and end_ms are in this order, from 0 to the end of the session"))
}

fn named(stroke: String) -> Result<String, ApiError> {
    let is_name = !stroke.is_empty() && stroke.chars().count() <= NAME_LIMIT_CHARS && stroke.trim() == stroke;
    if is_name && !stroke.chars().any(char::is_control) {
        return Ok(stroke);
    }
    Err(ApiError::bad_request(format!("stroke is a name of 1 to {NAME_LIMIT_CHARS} characters, or null")))
}

fn quality(quality: Option<String>) -> Result<String, ApiError> {
    let quality = quality.unwrap_or_else(|| QUALITIES[0].to_owned());
    if QUALITIES.contains(&&*quality) {
        return Ok(quality);
    }
    Err(ApiError::bad_request(format!("quality is one of {}", QUALITIES.join(", "))))
}

/// A swing of one of the player's sessions and what it was.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CalibratingLabel {
    /// A sealed session of the player.
    #[schema(minimum = 1)]
    session_id: i64,
    /// Near the impact, ms since session start.
    impact_ms: f64,
    /// A class of the model.
    #[schema(max_length = 64)]
    stroke: String,
}

/// Labelled swings of a player.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewCalibration {
    /// Beside those that are kept already; they are kept too. One of a class helps, five are better.
    #[serde(default)]
    #[schema(max_items = 500)]
    labels: Vec<CalibratingLabel>,
    /// The pipeline whose model is calibrated; without it, the one that ships.
    base: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Calibration {
    /// The player's pipeline from now on.
    pipeline: String,
    model_sha256: String,
    /// Swings that the model learned from, by class.
    swings: BTreeMap<String, usize>,
    /// Labels of the player that it did not learn from: of classes that it does not know, that do not count, of sessions whose
    /// frames are gone, or of older sessions than the newest 20.
    left_out: usize,
}

/// Sessions that a calibration reads.
const CALIBRATION_SESSIONS_LIMIT: usize = 20;
/// Frames of those sessions in all: they are in memory together.
const CALIBRATION_FRAMES_LIMIT: i64 = 6_000_000;

/// Calibrate for a player
///
/// The model learns from the labelled swings of the player, a handful is enough, and analyses the player's new sessions from then
/// on; older ones can be analysed again by it. For admins, and for users themselves.
#[utoipa::path(
    post, path = "/api/v2/players/{user_id}/calibration", tag = "analysis", request_body = NewCalibration,
    params(("user_id" = i64, Path, minimum = 1)),
    responses((status = 201, body = Calibration), Problems)
)]
async fn calibrate(
    AxumState(context): Shared,
    access: Access,
    Path(user): Path<String>,
    Body(new): Body<NewCalibration>,
) -> Result<Response, ApiError> {
    let state = &context.state;
    let user = access.user(state, Some(extract::user(&user)?)).await?;
    if new.labels.len() > REQUEST_LIMIT {
        return Err(ApiError::bad_request(format!("labels has {REQUEST_LIMIT} swings at most")));
    }
    let labelled_by = if access.caller.is_admin() { "admin" } else { "player" };
    let labelled_at_us = state.clock.now_us();
    let mut given = Vec::with_capacity(new.labels.len());
    for label in new.labels {
        given.push(LabelRow {
            session_id: SessionId(label.session_id),
            user_id: Some(user),
            label: catalog::Label {
                impact_ns: ns(label.impact_ms),
                start_ns: None,
                end_ns: None,
                stroke: named(label.stroke)?,
                quality: QUALITIES[0].to_owned(),
                labelled_by: labelled_by.to_owned(),
                labelled_at_us,
            },
        });
    }
    let kept = state.analysis.labels_of(user).await?;
    if given.is_empty() && kept.is_empty() {
        return Err(ApiError::bad_request("no swing of this player is labelled yet: give labels"));
    }
    let tracks = tracks(state, user, &given, &kept).await?;
    let made = state.analysis.calibrate(user, new.base.as_deref(), &given, kept, tracks).await?;
    state.accounts.audit(&access.actor(), "player.calibrate", &user.to_string(), None).await?;
    let calibration = Calibration {
        pipeline: made.pipeline,
        model_sha256: made.model_sha256,
        swings: made.swings,
        left_out: made.left_out,
    };
    Ok((StatusCode::CREATED, fresh(calibration)).into_response())
}

/// The samples of the sessions that labels name: all of those that are given, and the newest of those that are kept, as far as
/// there is room and their frames are there.
async fn tracks(
    state: &State,
    user: UserId,
    given: &[LabelRow],
    kept: &[LabelRow],
) -> Result<Vec<(SessionId, schemas::Track)>, ApiError> {
    let must: BTreeSet<SessionId> = given.iter().map(|row| row.session_id).collect();
    if must.len() > CALIBRATION_SESSIONS_LIMIT {
        return Err(ApiError::bad_request("labels name 20 sessions at most"));
    }
    let mut sessions: Vec<(SessionId, bool)> = must.iter().map(|&session| (session, true)).collect();
    for session in kept.iter().map(|row| row.session_id) {
        if !sessions.iter().any(|&(known, _)| known == session) {
            sessions.push((session, false));
        }
    }
    let mut tracks = Vec::new();
    let mut frames = 0;
    for (session, is_given) in sessions.into_iter().take(CALIBRATION_SESSIONS_LIMIT) {
        let info = state.sessions.info(session).await?.filter(|info| info.user_id == Some(user));
        let Some(info) = info else {
            if is_given {
                return Err(hidden(session));
            }
            continue;
        };
        if is_given {
            let latest_ms = latest_ms(&info, state.analysis.published(session).await?.as_ref());
            for row in given.iter().filter(|row| row.session_id == session) {
                check_times(latest_ms, None, ms(row.label.impact_ns), None)?;
            }
        }
        if frames + info.frame_count > CALIBRATION_FRAMES_LIMIT {
            if is_given {
                let message = "the sessions that labels name have 6000000 frames in all at most";
                return Err(ApiError::bad_request(message));
            }
            break;
        }
        match state.track(&info).await {
            Ok(track) => {
                frames += info.frame_count;
                tracks.push((session, track));
            }
            Err(error) if is_given || error.code != "frames_gone" => return Err(error),
            Err(_) => {}
        }
    }
    Ok(tracks)
}
