//! Start, stop and state of a recording session.

use axum::Json;
use axum::extract::{Request, State as AxumState};
use axum::routing::{get, post};
use schemas::DeviceCode;
use serde_json::{Value, json};

use super::{Answer, Routes, help};
use crate::gateway::access::{Access, Want, device_code, session_id};
use crate::gateway::error::ApiError;
use crate::gateway::forms::Params;
use crate::gateway::ws::device_message;
use crate::gateway::{Shared, State};
use crate::hub::{DeviceMessage, Sent};
use crate::protocol::{LocalTime, UtcTime};
use crate::sessions::SessionInfo;

pub(super) fn routes() -> Routes {
    vec![
        ("start_session", post(start_session).get(start_session_help)),
        ("start_data_collection", post(start_data_collection).get(start_data_collection_help)),
        ("end_session", post(end_session).get(end_session_help)),
        ("get_latest_session", get(get_latest_session)),
    ]
}

async fn start_session(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let state = &context.state;
    let params = Params::of(request, &context.options).await?;
    let user = access.player(state, &params).await?;
    let group = params.required("device_group_code")?;
    // The mini-program names no device: its group code is the device code, or that of a group of one.
    let device = match params.get("device_code") {
        Some(code) => device_code(code)?,
        None => state.accounts.device_of_group(group).await?,
    };
    access.commands_device(state, &device).await?;
    state.accounts.ensure_group(group).await?;
    let started = state.sessions.start(user.user_id, group, device).await?;
    let session = &started.session;
    Ok(Json(json!({
        "msg": access.say("session_started"),
        "session_id": session.session_id,
        "status": session.status,
        "device_code": session.device_code,
        "websocket_sent": started.sent == Sent::Queued,
        "websocket_message": command(state, session, started.command),
        "timestamp": UtcTime(session.started_at_us),
        "note": sent_note(&access, started.sent, Told::Start),
    })))
}

async fn start_data_collection(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let state = &context.state;
    let params = Params::of(request, &context.options).await?;
    let device = params.get("device_code").map(device_code).transpose()?;
    let session = access.session(state, session_id(&params)?, &params, Want::Control).await?.session_id;
    let begun = state.sessions.begin_collection(session, device.as_ref()).await?;
    let mut answer = json!({
        "msg": access.say("collection_started"),
        "session_id": begun.session.session_id,
        "status": begun.session.status,
        "device_code": begun.session.device_code,
        "websocket_message": command(state, &begun.session, begun.command),
        "communication_method": way(state, &begun.session.device_code, begun.sent).await,
        "timestamp": LocalTime(state.clock.now_us()),
    });
    let outcome = if begun.sent == Sent::Queued { "result" } else { "websocket_error" };
    answer[outcome] = json!(sent_note(&access, begun.sent, Told::Start));
    Ok(Json(answer))
}

async fn end_session(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let state = &context.state;
    let params = Params::of(request, &context.options).await?;
    let device = params.get("device_code").map(device_code).transpose()?;
    let session = access.session(state, session_id(&params)?, &params, Want::Control).await?.session_id;
    let ended = state.sessions.end(session, device.as_ref()).await?;
    let info = &ended.session;
    let mut answer = json!({
        "msg": access.say(if ended.command.is_some() { "session_stopping" } else { "session_had_ended" }),
        "session_id": info.session_id,
        "status": info.status,
        "device_code": info.device_code,
        "websocket_sent": ended.command.is_some() && ended.sent == Sent::Queued,
        "timestamp": UtcTime(info.ended_at_us.unwrap_or_else(|| state.clock.now_us())),
    });
    if let Some(sent) = ended.command {
        answer["websocket_message"] = command(state, info, sent);
        answer["note"] = json!(sent_note(&access, ended.sent, Told::Stop));
    } else {
        answer["note"] = json!(access.say_with("session_is", &[("status", info.status.to_string())]));
    }
    Ok(Json(answer))
}

/// The newest session: of the caller, or for an admin who names nobody, of all.
async fn get_latest_session(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let state = &context.state;
    let params = Params::of(request, &context.options).await?;
    let user = if access.caller.is_admin() {
        access.player_if_any(state, &params).await?
    } else {
        // Sessions of strangers are nobody's business.
        Some(access.player(state, &params).await?)
    };
    let user = user.map(|user| user.user_id);
    let (session, total_sessions) = state.sessions.latest(user).await?;
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

/// The command as the device reads it.
pub(super) fn command(state: &State, session: &SessionInfo, command: DeviceMessage) -> Value {
    let message = device_message(&session.device_code, command, state.clock.now_us());
    serde_json::to_value(&message).unwrap_or_default()
}

/// How a device is reached by a socket, and how one that polls.
pub(super) const SOCKET: &str = "websocket";
pub(super) const POLLING: &str = "http_polling";

/// How a command reaches its device: by its socket, unless it has none and was heard to poll.
pub(super) async fn way(state: &State, device: &DeviceCode, sent: Sent) -> &'static str {
    let polls = sent == Sent::NotConnected && state.sessions.heard_at_us(device).await.is_some();
    if polls { POLLING } else { SOCKET }
}

/// What a device is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    Start,
    Stop,
}

/// What became of a command, in words.
pub(super) fn sent_note(access: &Access, sent: Sent, told: Told) -> String {
    access.say(match (sent, told) {
        (Sent::Queued, Told::Start) => "device_told_start",
        (Sent::Queued, Told::Stop) => "device_told_stop",
        (Sent::NotConnected, Told::Start) => "device_away_start",
        (Sent::NotConnected, Told::Stop) => "device_away_stop",
        (Sent::QueueFull, Told::Start) => "device_busy_start",
        (Sent::QueueFull, Told::Stop) => "device_busy_stop",
    })
}

// ---- help ---------------------------------------------------------------------------------------------------------

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
