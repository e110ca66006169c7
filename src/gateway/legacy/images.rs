//! Pictures of a session, under the names of the legacy service.
//!
//! A picture is drawn from the stored frames when it is asked for, and kept in memory for a while; there are no picture
//! files. Its address is the legacy one, `/images/<kind>_session_<number>_….jpg`. With tokens an `<image>` of the
//! mini-program can send none, so the addresses that we give out are signed and run out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Request, State as AxumState};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use schemas::SessionId;
use serde_json::{Value, json};
use sha2::Sha256;
use tracing::Instrument as _;

use super::{Answer, Routes};
use crate::gateway::access::{Access, Want, session_id};
use crate::gateway::error::ApiError;
use crate::gateway::forms::Params;
use crate::gateway::options::Auth;
use crate::gateway::{Context, Shared};
use crate::protocol::UtcTime;
use crate::report::{self, Curve, PictureFormat};
use crate::sessions::{Filter, SessionInfo};

pub(super) fn routes() -> Routes {
    vec![
        ("latest_analysis_images", get(latest_analysis_images)),
        ("miniprogram/get_images", get(get_images).post(get_images)),
        ("force_generate_image", post(force_generate_image)),
        ("list_images", get(list_images)),
        ("debug_images", get(list_images).post(debug_images)),
    ]
}

/// Pictures that are kept, in bytes.
const KEPT_LIMIT_BYTES: usize = 32 << 20;
/// Pictures that are drawn at the same time.
pub(in crate::gateway) const DRAWN_AT_ONCE: usize = 2;
/// A signed address is good for so long, s.
const SIGNED_FOR_S: i64 = 3600;
/// Sessions that a list goes back.
const LIST_LIMIT: i64 = 50;
/// The name of the signing key among the service's own.
const SIGNING_KEY: &str = "image_addresses";

/// Pictures that were asked for lately, the latest last.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Pictures(Mutex<VecDeque<(PictureKey, Bytes)>>);

/// A picture is another one when its session has another revision or analysis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PictureKey {
    session: Option<SessionId>,
    frames: i64,
    analysis: Option<i64>,
    format: PictureFormat,
}

impl Pictures {
    fn get(&self, key: PictureKey) -> Option<Bytes> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| *known == key)?;
        let found = kept.remove(at)?;
        let picture = found.1.clone();
        kept.push_back(found);
        Some(picture)
    }

    fn keep(&self, key: PictureKey, picture: Bytes) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(known, _)| *known != key);
        kept.push_back((key, picture));
        while kept.iter().map(|(_, picture)| picture.len()).sum::<usize>() > KEPT_LIMIT_BYTES {
            kept.pop_front();
        }
    }
}

/// The picture of a session, or the empty one. A drawing that was begun holds its turn to its end, even if its caller goes
/// away: callers who hang up at once would otherwise start as many as they like.
async fn draw(context: &Arc<Context>, session: Option<&SessionInfo>, format: PictureFormat) -> Result<Bytes, ApiError> {
    let state = &context.state;
    let published = match session {
        Some(session) => state.analysis.published(session.session_id).await?,
        None => None,
    };
    let key = PictureKey {
        session: session.map(|session| session.session_id),
        frames: session.map_or(0, |session| session.frame_count),
        analysis: published.as_ref().map(|published| published.analysis_id.get()),
        format,
    };
    if let Some(picture) = context.pictures.get(key) {
        return Ok(picture);
    }
    let turn = Arc::clone(&context.drawing).acquire_owned().await.map_err(|_| ApiError::broke())?;
    // Somebody else may have asked for the same meanwhile.
    if let Some(picture) = context.pictures.get(key) {
        return Ok(picture);
    }
    let title = session.map_or_else(
        || "No session yet".to_owned(),
        |session| format!("Session {} · {}", session.session_id, UtcTime(session.started_at_us)),
    );
    let (context, session) = (Arc::clone(context), session.cloned());
    let work = async move {
        let _turn = turn;
        let track = match &session {
            Some(session) => context.state.track(session).await?,
            None => schemas::Track::default(),
        };
        let drawn = tokio::task::spawn_blocking(move || {
            let analysis = published.map(|published| published.analysis);
            report::picture(&title, &Curve::of_track(&track), analysis.as_deref(), format)
        });
        let picture = Bytes::from(drawn.await.map_err(|_| ApiError::broke())??);
        context.pictures.keep(key, picture.clone());
        Ok(picture)
    };
    tokio::spawn(work.in_current_span()).await.map_err(|_| ApiError::broke())?
}

/// The session that a picture's name stands for: the first number after `session_`.
fn session_of_name(name: &str) -> Option<SessionId> {
    let (_, rest) = name.split_once("session_")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

/// `GET /images/{file}`
pub(in crate::gateway) async fn image(
    AxumState(context): Shared,
    Path(file): Path<String>,
    access: Access,
    request: Request,
) -> Result<Response, ApiError> {
    let state = &context.state;
    let missing = || ApiError::not_found("no_image", "there is no such picture");
    let format = PictureFormat::of_name(&file).ok_or_else(missing)?;
    let query = request.uri().query().unwrap_or_default().to_owned();
    let params = Params::of(request, &context.options).await?;
    let session = if let Some(session) = session_of_name(&file) {
        if is_signed(&context, &file, &query).await? {
            Some(state.sessions.info(session).await?.ok_or_else(missing)?)
        } else {
            Some(access.session(state, session, &params, Want::Read).await?)
        }
    } else if file.starts_with("latest_multi_sensor_curve") {
        newest(&context, &access, &params, 1).await?.into_iter().next()
    } else if file.starts_with("default_analysis") {
        None
    } else {
        return Err(missing());
    };
    let picture = draw(&context, session.as_ref(), format).await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(format.content_type())),
        // A re-analysis changes the picture under the same name.
        (header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=60")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    Ok((headers, picture).into_response())
}

// ---- addresses ----------------------------------------------------------------------------------------------------

async fn signature(context: &Context, file: &str, until_s: i64) -> Result<String, ApiError> {
    let accounts = &context.state.accounts;
    let key = context.image_key.get_or_try_init(|| accounts.service_key(SIGNING_KEY)).await?;
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).map_err(|_| ApiError::broke())?;
    mac.update(format!("{file}\n{until_s}").as_bytes());
    Ok(URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// Whether an address carries a signature of ours that has not run out.
async fn is_signed(context: &Context, file: &str, query: &str) -> Result<bool, ApiError> {
    let value = |name: &str| query.split('&').filter_map(|pair| pair.split_once('=')).find(|(known, _)| *known == name);
    let (Some((_, until)), Some((_, given))) = (value("until"), value("sig")) else { return Ok(false) };
    let Ok(until_s) = until.parse::<i64>() else { return Ok(false) };
    if until_s.saturating_mul(1_000_000) < context.state.clock.now_us() {
        return Ok(false);
    }
    let right = signature(context, file, until_s).await?;
    // Of equal length and compared to the end: how long it takes tells nothing.
    let differing = right.bytes().zip(given.bytes()).fold(0, |differing, (a, b)| differing | (a ^ b));
    Ok(right.len() == given.len() && differing == 0)
}

/// Scheme and host that a client reached us by; a proxy on this machine may say what it saw.
fn base(access: &Access, headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let by_proxy = access.address.is_some_and(|address| address.to_canonical().is_loopback());
    let host = text("x-forwarded-host").filter(|_| by_proxy).or_else(|| text("host")).unwrap_or_default();
    let is_host = !host.is_empty()
        && host.len() <= 255
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b));
    let scheme = match text("x-forwarded-proto").filter(|_| by_proxy) {
        Some("https") => "https",
        _ => "http",
    };
    format!("{scheme}://{}", if is_host { host } else { "localhost" })
}

/// The address of a picture as its caller can fetch it.
async fn address(context: &Context, base: &str, file: &str) -> Result<String, ApiError> {
    let plain = format!("{base}/images/{file}");
    if context.options.auth == Auth::Legacy {
        return Ok(plain);
    }
    let until_s = context.state.clock.now_us() / 1_000_000 + SIGNED_FOR_S;
    Ok(format!("{plain}?until={until_s}&sig={}", signature(context, file, until_s).await?))
}

// ---- lists --------------------------------------------------------------------------------------------------------

/// The newest finished sessions of the caller; of all, for an admin who names nobody.
async fn newest(context: &Context, access: &Access, params: &Params, limit: i64) -> Result<Vec<SessionInfo>, ApiError> {
    let user = if access.caller.is_admin() {
        access.player_if_any(&context.state, params).await?
    } else {
        Some(access.player(&context.state, params).await?)
    };
    let filter = Filter {
        user: user.map(|user| user.user_id),
        status: Some(schemas::SessionStatus::Completed),
        ..Filter::newest(limit)
    };
    Ok(context.state.sessions.list(&filter).await?)
}

/// What a list says of a session's picture.
async fn entry(context: &Context, access: &Access, base: &str, session: &SessionInfo) -> Result<Value, ApiError> {
    let published = context.state.analysis.published(session.session_id).await?;
    let analysis = published.as_ref().map(|published| published.analysis_id);
    let file = match analysis {
        Some(analysis) => format!("analysis_session_{}_{analysis}.jpg", session.session_id),
        None => format!("session_{}_auto_generated.jpg", session.session_id),
    };
    let made_us = published.as_ref().map_or(session.started_at_us, |published| published.created_at_us);
    let url = address(context, base, &file).await?;
    let key = PictureKey {
        session: Some(session.session_id),
        frames: session.frame_count,
        analysis: analysis.map(schemas::AnalysisId::get),
        format: PictureFormat::Jpeg,
    };
    Ok(json!({
        "filename": file,
        "image_url": url,
        "url": url,
        // Null until it has been drawn.
        "size": context.pictures.get(key).map(|picture| picture.len()),
        "title": access.say("image_title"),
        "description": access.say("image_description"),
        "analysis_id": analysis,
        "session_id": session.session_id,
        "created_at": UtcTime(made_us),
        "modified_time": UtcTime(made_us),
    }))
}

fn session_fields(session: &SessionInfo) -> Value {
    json!({
        "session_id": session.session_id,
        "status": session.status,
        "start_time": UtcTime(session.started_at_us),
        "end_time": session.ended_at_us.map(UtcTime),
    })
}

/// `latest_analysis_images/`
async fn latest_analysis_images(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let base = base(&access, request.headers());
    let params = Params::of(request, &context.options).await?;
    let sessions = newest(&context, &access, &params, 10).await?;
    let latest = sessions.first().ok_or_else(|| ApiError::not_found("no_image", "there is no picture yet"))?;
    let mut images = Vec::with_capacity(sessions.len());
    for session in &sessions {
        images.push(entry(&context, &access, &base, session).await?);
    }
    let first = &images[0];
    let latest_analysis = json!({
        "id": first["analysis_id"],
        "session_id": latest.session_id,
        "created_at": first["created_at"],
        "status": latest.status,
    });
    Ok(Json(json!({ "images": images, "latest_analysis": latest_analysis })))
}

/// `miniprogram/get_images/`: of the session that is named, else of the newest.
async fn get_images(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let state = &context.state;
    let base = base(&access, request.headers());
    let params = Params::of(request, &context.options).await?;
    let session = match params.get("session_id") {
        Some(_) => access.session(state, session_id(&params)?, &params, Want::Read).await?,
        None => newest(&context, &access, &params, 1)
            .await?
            .into_iter()
            .next()
            .ok_or_else(|| ApiError::not_found("no_session", "there is no session yet"))?,
    };
    if session.frame_count == 0 {
        return Err(ApiError::not_found("no_frames_yet", "the session has no frames"));
    }
    draw(&context, Some(&session), PictureFormat::Jpeg).await?;
    let image = entry(&context, &access, &base, &session).await?;
    Ok(Json(json!({
        "success": true,
        "session_info": session_fields(&session),
        "analysis_info": { "analysis_id": image["analysis_id"], "analysis_time": image["created_at"] },
        "images": [image],
        "total_images": 1,
        "server_info": { "base_url": base, "images_url": format!("{base}/images/") },
    })))
}

/// `force_generate_image/`
async fn force_generate_image(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let base = base(&access, request.headers());
    let params = Params::of(request, &context.options).await?;
    let session = access.session(&context.state, session_id(&params)?, &params, Want::Read).await?;
    if session.frame_count == 0 {
        return Err(ApiError::not_found("no_frames_yet", "the session has no frames"));
    }
    let picture = draw(&context, Some(&session), PictureFormat::Jpeg).await?;
    let file = format!("session_{}_forced.jpg", session.session_id);
    let url = address(&context, &base, &file).await?;
    Ok(Json(json!({
        "success": true,
        "message": access.say("image_made"),
        "session_id": session.session_id,
        "image": { "filename": file, "url": url, "size": picture.len(), "path": format!("/images/{file}") },
    })))
}

/// `list_images/`, GET `debug_images/`: the pictures that the caller may see. No paths of the server.
async fn list_images(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let base = base(&access, request.headers());
    let params = Params::of(request, &context.options).await?;
    let mut images = Vec::new();
    for session in newest(&context, &access, &params, LIST_LIMIT).await? {
        images.push(entry(&context, &access, &base, &session).await?);
    }
    Ok(Json(json!({ "success": true, "images": images, "total_images": images.len() })))
}

/// POST `debug_images/`: forgets the pictures in memory, for admins. Nothing is lost: each is drawn again when asked for.
async fn debug_images(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let params = Params::of(request, &context.options).await?;
    access.admin()?;
    match params.required("action")? {
        "regenerate" | "cleanup" => {
            let forgotten =
                std::mem::take(&mut *context.pictures.0.lock().unwrap_or_else(PoisonError::into_inner)).len();
            Ok(Json(json!({ "success": true, "message": access.say("images_forgotten"), "count": forgotten })))
        }
        _ => Err(ApiError::bad_request("action is regenerate or cleanup")),
    }
}

impl From<report::PictureError> for ApiError {
    fn from(error: report::PictureError) -> Self {
        Self::internal("internal", "the picture could not be drawn", error)
    }
}
