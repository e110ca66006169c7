//! Devices that poll, what is known of a device, and commands to devices.
//!
//! A command goes to one device: the one that is named, or that of the session that is named. The legacy service sent a
//! start without a name to every device there was.

use std::net::IpAddr;

use axum::Json;
use axum::extract::{Request, State as AxumState};
use axum::routing::{get, post};
use schemas::DeviceCode;
use serde_json::{Value, json};

use super::sessions::{POLLING, SOCKET, Told, command, sent_note, way};
use super::{Answer, Routes, help};
use crate::gateway::access::{Access, Want, device_code, session_id};
use crate::gateway::error::ApiError;
use crate::gateway::forms::Params;
use crate::gateway::{Shared, State};
use crate::hub::{DeviceMessage, Sent};
use crate::protocol::budget::{ECHO_LIMIT_BYTES, TEXT_LIMIT_BYTES, clip};
use crate::protocol::{LocalTime, UtcTime};
use crate::sessions::{DeviceEvent, PollAnswer};

pub(super) fn routes() -> Routes {
    vec![
        ("esp32/poll_commands", post(poll_commands).get(poll_commands_help)),
        ("esp32/status", post(status)),
        ("esp32/heartbeat", post(heartbeat).get(heartbeat_help)),
        ("register_device_ip", post(register_device_ip).get(register_device_ip_help)),
        ("get_device_status", post(get_device_status)),
        ("notify_esp32_start", post(notify_start)),
        ("notify_esp32_stop", post(notify_stop)),
        ("notify_device_start", post(notify_start)),
        ("notify_device_stop", post(notify_stop)),
        ("test_udp_broadcast", post(test_broadcast).get(connected)),
        ("websocket/status", get(websocket_status)),
        ("websocket/send_command", post(send_command).get(send_command_help)),
    ]
}

/// Longest text to a device that is taken, in bytes.
const MESSAGE_LIMIT_BYTES: usize = 1024;

async fn own_device(context: &Shared, access: &Access, request: Request) -> Result<(Params, DeviceCode), ApiError> {
    let params = Params::of(request, &context.options).await?;
    let device = device_code(params.required("device_code")?)?;
    access.device(&device)?;
    Ok((params, device))
}

// ---- polling ------------------------------------------------------------------------------------------------------

/// `esp32/poll_commands/`: what should I do? `command` is absent when there is nothing: the sketch reads a null as a
/// pointer and reboots.
async fn poll_commands(context: Shared, access: Access, request: Request) -> Answer {
    let (params, device) = own_device(&context, &access, request).await?;
    let state = &context.state;
    let current = params.get("current_session");
    let now = LocalTime(state.clock.now_us());
    let commanded = |command: &str, session: schemas::SessionId, key| {
        json!({
            "device_code": device,
            "command": command,
            "session_id": session.to_string(),
            "timestamp": now,
            "message": access.say(key),
        })
    };
    Ok(Json(match state.sessions.poll(&device, current, params.get("status")).await? {
        PollAnswer::Start(session) => commanded("START_COLLECTION", session, "poll_start"),
        PollAnswer::Stop(session) => commanded("STOP_COLLECTION", session, "poll_stop"),
        PollAnswer::Idle => json!({
            "device_code": device,
            "current_session": clip(current.unwrap_or_default(), ECHO_LIMIT_BYTES),
            "status": clip(params.get("status").unwrap_or_default(), ECHO_LIMIT_BYTES),
            "message": access.say("poll_idle"),
        }),
        PollAnswer::NoSession => json!({ "device_code": device, "message": access.say("poll_no_session") }),
    }))
}

/// `esp32/status/`: with `status` and `session_id` a confirmation, else a question. The answer is good for both.
async fn status(context: Shared, access: Access, request: Request) -> Answer {
    let params = Params::of(request, &context.options).await?;
    let device = device_code(params.required("device_code")?)?;
    let state = &context.state;
    let confirmed = params.get("status").zip(params.get("session_id"));
    if let Some((status, session_id)) = confirmed {
        access.device(&device)?;
        state.sessions.alive(&device).await;
        let session_id = session_id.to_owned();
        let event = match status {
            "START_COLLECTION_CONFIRMED" => Some(DeviceEvent::StartConfirmed { session_id }),
            "STOP_COLLECTION_CONFIRMED" => Some(DeviceEvent::StopConfirmed { session_id }),
            _ => None,
        };
        if let Some(event) = event {
            state.sessions.device_event(&device, event).await;
        }
    } else {
        access.sees_device(state, &device).await?;
    }
    let stored = state.sessions.device_list().await?.into_iter().find(|row| row.device_code == device);
    let live = state.sessions.live_of(&device).await?;
    let active: Vec<Value> = live
        .iter()
        .map(|session| {
            json!({
                "session_id": session.session_id,
                "status": session.status,
                "start_time": UtcTime(session.started_at_us),
            })
        })
        .collect();
    Ok(Json(json!({
        "msg": access.say("status_recorded"),
        "device_code": device,
        "status": params.get("status").map(|status| clip(status, ECHO_LIMIT_BYTES)),
        "session_id": params.get("session_id").map(|id| clip(id, ECHO_LIMIT_BYTES)),
        "is_bound": state.accounts.is_bound(&device).await?,
        "last_data_time": stored.and_then(|row| row.last_seen_us).map(UtcTime),
        "active_sessions": active,
        "timestamp": LocalTime(state.clock.now_us()),
    })))
}

/// `esp32/heartbeat/`: a sign of life.
async fn heartbeat(context: Shared, access: Access, request: Request) -> Answer {
    let (params, device) = own_device(&context, &access, request).await?;
    let session = params.required("session_id")?;
    context.state.sessions.alive(&device).await;
    Ok(Json(json!({
        "msg": access.say("heartbeat_received"),
        "device_code": device,
        "session_id": clip(session, ECHO_LIMIT_BYTES),
        "status": clip(params.get("status").unwrap_or("ok"), ECHO_LIMIT_BYTES),
        "timestamp": LocalTime(context.state.clock.now_us()),
    })))
}

/// `register_device_ip/`: where the device's own HTTP server is. Kept only if it is a private address and the very one that
/// the request comes from (or a proxy of ours stands between): a device speaks for itself only.
async fn register_device_ip(context: Shared, access: Access, request: Request) -> Answer {
    let (params, device) = own_device(&context, &access, request).await?;
    let text = params.required("ip_address")?;
    let address: IpAddr = text.parse().map_err(|_| ApiError::bad_request("ip_address is no IP address"))?;
    let state = &context.state;
    let peer = access.address.map(|peer| peer.to_canonical());
    let own = peer.is_none_or(|peer| peer == address.to_canonical() || peer.is_loopback());
    let kept = own && state.sessions.register_address(&device, address).await?;
    state.sessions.alive(&device).await;
    Ok(Json(json!({
        "msg": access.say(if kept { "address_registered" } else { "address_not_kept" }),
        "device_code": device,
        "ip_address": text,
        "registered": kept,
    })))
}

// ---- what is known ------------------------------------------------------------------------------------------------

/// `get_device_status/`
async fn get_device_status(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let params = Params::of(request, &context.options).await?;
    let device = device_code(params.required("device_code")?)?;
    let state = &context.state;
    access.sees_device(state, &device).await?;
    let presence = state.hub.devices().into_iter().find(|presence| presence.device_code == device);
    let heard_at_us = state.sessions.heard_at_us(&device).await;
    let live = state.sessions.live_of(&device).await?;
    let (method, connection) = match (&presence, heard_at_us) {
        (Some(_), _) => (SOCKET, "connected"),
        (None, Some(_)) => (POLLING, "polling"),
        (None, None) => ("none", "disconnected"),
    };
    Ok(Json(json!({
        "msg": access.say("device_status"),
        "device_code": device,
        "communication_method": method,
        "connection_status": connection,
        "status": live.as_ref().map_or("idle", |session| session.status.as_str()),
        "session_id": live.as_ref().map(|session| session.session_id),
        "presence": presence,
        "last_heard": heard_at_us.map(UtcTime),
        "timestamp": LocalTime(state.clock.now_us()),
    })))
}

fn connections(state: &State) -> Value {
    let devices: Vec<_> = state.hub.devices().into_iter().map(|presence| presence.device_code).collect();
    let users: Vec<_> = state.hub.users().iter().map(ToString::to_string).collect();
    json!({
        "connected_devices": { "count": devices.len(), "devices": devices },
        "connected_users": { "count": users.len(), "users": users },
    })
}

/// `websocket/status/`: who is connected; everybody's, so for admins.
async fn websocket_status(AxumState(context): Shared, access: Access) -> Answer {
    access.admin()?;
    let mut answer = connections(&context.state);
    answer["websocket_status"] = json!("running");
    answer["endpoints"] = json!({
        "esp32": "/ws/esp32/{device_code}/",
        "miniprogram": "/ws/miniprogram/{user_id}/",
        "admin": "/ws/admin/",
    });
    answer["timestamp"] = json!(LocalTime(context.state.clock.now_us()));
    Ok(Json(answer))
}

/// GET `test_udp_broadcast/`
async fn connected(AxumState(context): Shared, access: Access) -> Answer {
    access.admin()?;
    let mut answer = connections(&context.state);
    answer["msg"] = json!(access.say("connected"));
    Ok(Json(answer))
}

// ---- commands -----------------------------------------------------------------------------------------------------

/// `notify_esp32_start/`, `notify_device_start/`: the device of a session is told to start.
async fn notify_start(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let params = Params::of(request, &context.options).await?;
    start(&context.state, &access, &params).await.map(Json)
}

/// `notify_esp32_stop/`, `notify_device_stop/`: the session of a device is stopped, or the one that is named.
async fn notify_stop(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let params = Params::of(request, &context.options).await?;
    stop(&context.state, &access, &params).await.map(Json)
}

async fn start(state: &State, access: &Access, params: &Params) -> Result<Value, ApiError> {
    let device = params.get("device_code").map(device_code).transpose()?;
    let session = access.session(state, session_id(params)?, params, Want::Control).await?;
    let begun = state.sessions.begin_collection(session.session_id, device.as_ref()).await?;
    Ok(json!({
        "msg": sent_note(access, begun.sent, Told::Start),
        "session_id": begun.session.session_id,
        "device_code": begun.session.device_code,
        "status": begun.session.status,
        "sent": begun.sent == Sent::Queued,
        "result": sent_note(access, begun.sent, Told::Start),
        "command_message": command(state, &begun.session, begun.command),
        "communication_method": way(state, &begun.session.device_code, begun.sent).await,
        "timestamp": LocalTime(state.clock.now_us()),
    }))
}

async fn stop(state: &State, access: &Access, params: &Params) -> Result<Value, ApiError> {
    let device = params.get("device_code").map(device_code).transpose()?;
    let session = match (&device, params.get("session_id")) {
        (_, Some(_)) => access.session(state, session_id(params)?, params, Want::Control).await?,
        (Some(device), None) => {
            access.commands_device(state, device).await?;
            let live = state.sessions.live_of(device).await?;
            live.ok_or_else(|| ApiError::not_found("device_idle", "the device is in no session"))?
        }
        (None, None) => return Err(ApiError::missing("device_code")),
    };
    let ended = state.sessions.end(session.session_id, device.as_ref()).await?;
    let mut answer = json!({
        "msg": sent_note(access, ended.sent, Told::Stop),
        "session_id": ended.session.session_id,
        "device_code": ended.session.device_code,
        "status": ended.session.status,
        "sent": ended.command.is_some() && ended.sent == Sent::Queued,
        "result": sent_note(access, ended.sent, Told::Stop),
        "communication_method": way(state, &ended.session.device_code, ended.sent).await,
        "timestamp": LocalTime(state.clock.now_us()),
    });
    if let Some(message) = ended.command {
        answer["command_message"] = command(state, &ended.session, message);
    }
    Ok(answer)
}

/// A text for one device or, from an admin who names none, for all that are connected.
async fn test(state: &State, access: &Access, params: &Params, text: &str) -> Result<Value, ApiError> {
    if text.len() > MESSAGE_LIMIT_BYTES {
        return Err(ApiError::bad_request(format!("a message has {MESSAGE_LIMIT_BYTES} bytes at most")));
    }
    let text = clip(text, TEXT_LIMIT_BYTES);
    let (device, reached) = match params.get("device_code") {
        Some(code) => {
            let device = device_code(code)?;
            access.commands_device(state, &device).await?;
            let reached = usize::from(state.sessions.test(&device, text) == Sent::Queued);
            (device.to_string(), reached)
        }
        None => {
            access.admin()?;
            let message = DeviceMessage::Test { message: text.to_owned() };
            ("all_devices".to_owned(), state.hub.broadcast_to_devices(&message))
        }
    };
    Ok(json!({
        "msg": access.say_with("test_sent", &[("count", reached.to_string())]),
        "device_code": device,
        "command_message": { "type": "test_message", "message": text },
        "reached_devices": reached,
        "result": access.say_with("test_sent", &[("count", reached.to_string())]),
        "timestamp": LocalTime(state.clock.now_us()),
    }))
}

/// POST `test_udp_broadcast/`
async fn test_broadcast(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let params = Params::of(request, &context.options).await?;
    test(&context.state, &access, &params, params.required("message")?).await.map(Json)
}

/// `websocket/send_command/`: START_COLLECTION, STOP_COLLECTION, GET_STATUS, TEST, or any word, which the device prints.
async fn send_command(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let params = Params::of(request, &context.options).await?;
    let state = &context.state;
    let kind = params.required("command_type")?.to_ascii_uppercase();
    let mut answer = match kind.as_str() {
        "START_COLLECTION" => start(state, &access, &params).await?,
        "STOP_COLLECTION" => stop(state, &access, &params).await?,
        "GET_STATUS" => {
            let device = device_code(params.required("device_code")?)?;
            access.commands_device(state, &device).await?;
            let sent = state.sessions.ask_status(&device) == Sent::Queued;
            json!({
                "msg": access.say_with("test_sent", &[("count", usize::from(sent).to_string())]),
                "device_code": device,
                "command_message": { "type": "get_status" },
                "sent": sent,
                "timestamp": LocalTime(state.clock.now_us()),
            })
        }
        "TEST" => test(state, &access, &params, params.get("message").unwrap_or("test")).await?,
        word => test(state, &access, &params, params.get("message").unwrap_or(word)).await?,
    };
    answer["command_type"] = json!(clip(&kind, ECHO_LIMIT_BYTES));
    Ok(Json(answer))
}

// ---- help ---------------------------------------------------------------------------------------------------------

async fn poll_commands_help() -> Json<Value> {
    help(
        "asks what the device should do; command is absent when there is nothing",
        &json!({ "device_code": "code of the device" }),
        &json!({ "current_session": "session that the device is in", "status": "what the device is doing" }),
        &json!(["device_code", "command", "session_id", "timestamp", "message"]),
    )
}

async fn heartbeat_help() -> Json<Value> {
    help(
        "says that the device is there",
        &json!({ "session_id": "session that the device is in", "device_code": "code of the device" }),
        &json!({ "status": "what the device is doing" }),
        &json!(["msg", "device_code", "session_id", "status", "timestamp"]),
    )
}

async fn register_device_ip_help() -> Json<Value> {
    help(
        "notes the private address of the device's own HTTP server",
        &json!({ "device_code": "code of the device", "ip_address": "its address" }),
        &json!({}),
        &json!(["msg", "device_code", "ip_address", "registered"]),
    )
}

async fn send_command_help() -> Json<Value> {
    help(
        "sends a command to a device",
        &json!({ "command_type": "START_COLLECTION, STOP_COLLECTION, GET_STATUS, TEST or a word" }),
        &json!({ "device_code": "code of the device", "session_id": "session", "message": "text to print" }),
        &json!(["msg", "command_type", "device_code", "command_message", "result", "timestamp"]),
    )
}
