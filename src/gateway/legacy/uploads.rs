//! Frames by HTTP, and the word that all of them have come.
//!
//! An upload goes the way of a socket's packet: the 200 is sent when its frames are on disk, a repeat is stored once. It is
//! never refused for the session it names (see [`crate::ingest::Handle::append_upload`]): ids that devices claim live in a
//! number space of their own. To find again what was uploaded under such an id, the last few are remembered here, by
//! device and, for the sketch that names none, by address; after a restart the collections that are open answer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use axum::Json;
use axum::extract::{Request, State as AxumState};
use axum::routing::post;
use schemas::{DeviceCode, SensorRole, SessionId};
use serde_json::{Value, json};

use super::{Answer, Routes, help};
use crate::accounts::Caller;
use crate::gateway::access::{Access, Want, device_code, session_id};
use crate::gateway::error::ApiError;
use crate::gateway::forms::Params;
use crate::gateway::{Context, Shared, State};
use crate::ingest;
use crate::protocol::{self, FramePacket, LocalTime, UtcTime};
use crate::sessions::SessionInfo;

pub(super) fn routes() -> Routes {
    vec![
        ("upload_sensor_data", post(upload_sensor_data)),
        ("esp32/upload", post(upload).get(upload_help)),
        ("esp32/batch_upload", post(batch_upload)),
        ("mark_complete", post(mark_complete).get(mark_complete_help)),
        ("esp32/mark_upload_complete", post(mark_upload_complete).get(mark_upload_complete_help)),
        ("send_data1", post(send_data1)),
        ("send_data2", post(send_data2)),
        ("send_data3", post(send_data3)),
    ]
}

/// What every sketch that looks at the answer looks for, to the letter.
const SUCCESS: &str = "ESP32 data upload success";
/// What `mark_complete/` takes as its code.
const COMPLETION_CODE: &str = "DATA_COLLECTION_COMPLETE_2024";
/// Longest text that `send_dataN/` and a free-text `upload_sensor_data/` keep, in bytes.
const CONTENT_LIMIT_BYTES: usize = 64 << 10;
/// Longest id that a device may claim, in bytes.
const CLAIM_LIMIT_BYTES: usize = 64;
/// Claimed ids that are remembered.
const CLAIMS_LIMIT: usize = 4096;
/// Devices that are remembered of one address and id.
const DEVICES_OF_ADDRESS: usize = 64;

/// An address is asked for its uploads so long after them, µs: longer than the timer sketch records.
const ADDRESS_MEMORY_US: i64 = 30 * 60 * 1_000_000;

/// Which session took what was uploaded under which id, lately.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Claims(Mutex<ClaimMaps>);

#[derive(Debug, Default)]
struct ClaimMaps {
    by_device: HashMap<(DeviceCode, String), SessionId>,
    /// Who uploaded under an id from an address, and when last, µs. Several boards may have the same sketch.
    by_address: HashMap<(IpAddr, String), Vec<(DeviceCode, i64)>>,
}

impl Claims {
    fn note(&self, address: Option<IpAddr>, device: &DeviceCode, claimed: &str, session: SessionId, now_us: i64) {
        let mut maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is lost by forgetting them all but a shortcut.
        if maps.by_device.len() >= CLAIMS_LIMIT {
            maps.by_device.clear();
        }
        if maps.by_address.len() >= CLAIMS_LIMIT {
            maps.by_address.clear();
        }
        maps.by_device.insert((device.clone(), claimed.to_owned()), session);
        if let Some(address) = address {
            let devices = maps.by_address.entry((address, claimed.to_owned())).or_default();
            devices.retain(|(known, at_us)| known != device && now_us - at_us < ADDRESS_MEMORY_US);
            // With so many the address tells nobody apart anyway.
            devices.truncate(DEVICES_OF_ADDRESS);
            devices.push((device.clone(), now_us));
        }
    }

    fn session(&self, device: &DeviceCode, claimed: &str) -> Option<SessionId> {
        let maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        maps.by_device.get(&(device.clone(), claimed.to_owned())).copied()
    }

    /// Who uploaded under this id from this address lately.
    fn devices(&self, address: Option<IpAddr>, claimed: &str, now_us: i64) -> Vec<DeviceCode> {
        let maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let devices = address.and_then(|address| maps.by_address.get(&(address, claimed.to_owned())));
        let lately = |(_, at_us): &&(DeviceCode, i64)| now_us - at_us < ADDRESS_MEMORY_US;
        devices.into_iter().flatten().filter(lately).map(|(device, _)| device.clone()).collect()
    }
}

// ---- frames -------------------------------------------------------------------------------------------------------

/// Frames that were stored.
struct Stored {
    session: SessionId,
    /// The sequence number after the last frame.
    end_row: usize,
    duplicate: bool,
    received_at_us: i64,
}

/// Stores a packet and waits until it is on disk.
async fn store(
    context: &Context,
    access: &Access,
    device: &DeviceCode,
    packet: FramePacket,
) -> Result<Stored, ApiError> {
    let state = &context.state;
    let (failed, received_at_us) = (packet.failed_items, state.clock.now_us());
    if failed > 0 {
        metrics::counter!("volant_gateway_dropped_samples_total", "reason" => "malformed").increment(failed as u64);
    }
    let claimed = packet.claimed_session.clone();
    let frames = packet.frames.len();
    let packet = ingest::Packet {
        claimed_session: packet.claimed_session,
        packet_ms: packet.packet_ms,
        content_hash: packet.content_hash,
        frames: packet.frames,
        received_at_us,
    };
    let outcome = async {
        let accepted = state.ingest.append_upload(device, packet).await?;
        accepted.durable.await?;
        Ok::<_, ingest::Error>((accepted.session_id, accepted.end_row, accepted.duplicate))
    };
    match outcome.await {
        Ok((session, end_row, duplicate)) => {
            metrics::counter!("volant_gateway_acked_packets_total").increment(1);
            if let Some(claimed) = claimed {
                context.claims.note(access.address, device, &claimed, session, received_at_us);
            }
            Ok(Stored { session, end_row, duplicate, received_at_us })
        }
        Err(error) => {
            let error = ApiError::from(error);
            metrics::counter!("volant_gateway_rejected_packets_total", "reason" => error.code).increment(1);
            metrics::counter!("volant_gateway_dropped_samples_total", "reason" => error.code).increment(frames as u64);
            Err(error)
        }
    }
}

/// An upload that is no packet: refused, counted.
fn malformed(error: protocol::Error) -> ApiError {
    let error = ApiError::from(error);
    metrics::counter!("volant_gateway_rejected_packets_total", "reason" => error.code).increment(1);
    error
}

/// The session that an upload names, as text.
fn claimed(params: &Params) -> Result<Option<&str>, ApiError> {
    let claimed = params.get("session_id");
    if claimed.is_some_and(|claimed| claimed.len() > CLAIM_LIMIT_BYTES) {
        return Err(ApiError::bad_request(format!("a session_id has {CLAIM_LIMIT_BYTES} bytes at most")));
    }
    Ok(claimed)
}

/// `esp32/upload/`: one frame.
async fn upload(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let params = Params::of(request, &context.options).await?;
    let missing = |error: ApiError| error.with("required", json!(["device_code", "sensor_type", "data"]));
    let device = device_code(params.required("device_code").map_err(missing)?)?;
    access.device(&device)?;
    let sensor_type = params.required("sensor_type").map_err(missing)?;
    if SensorRole::from_name(sensor_type) == SensorRole::Unknown {
        return Err(ApiError::bad_request("sensor_type is waist, shoulder, wrist or racket"));
    }
    let data = params.required("data").map_err(missing)?;
    let packet = protocol::decode_sample_form(sensor_type, data, params.get("timestamp"), claimed(&params)?);
    let packet = packet.map_err(malformed)?;
    let magnitude = |axes: &[f32; 3]| axes.iter().map(|axis| axis * axis).sum::<f32>().sqrt();
    // What was sent as null has no magnitude: JSON writes NaN as null.
    let summary = json!({
        "acc_magnitude": packet.frames.acc.first().map(magnitude),
        "gyro_magnitude": packet.frames.gyro.first().map(magnitude),
        "angle_range": packet.frames.angle.first().map(|[x, y, z]| json!({ "x": x, "y": y, "z": z })),
    });
    let named = packet.claimed_session.is_some();
    let stored = store(&context, &access, &device, packet).await?;
    let mut answer = json!({
        "msg": SUCCESS,
        "data_id": stored.end_row,
        "device_code": device,
        "sensor_type": sensor_type,
        "timestamp": UtcTime(stored.received_at_us),
        "sensor_data_summary": summary,
        "duplicate": stored.duplicate,
    });
    if let Some(live) = context.state.ingest.live(stored.session).filter(|_| named) {
        answer["session_id"] = json!(params.get("session_id"));
        answer["session_status"] = json!(live.status);
        let sensors: Vec<_> = live.frames_by_sensor.iter().map(|(role, _)| role.as_str()).collect();
        answer["session_stats"] = json!({ "total_data_points": live.frames, "active_sensor_types": sensors });
        answer["stored_in_session"] = json!(stored.session);
    }
    Ok(Json(answer))
}

/// `upload_sensor_data/`: one frame, or many, or any text, which is kept as such.
async fn upload_sensor_data(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let params = Params::of(request, &context.options).await?;
    let device = device_code(params.required("device_code")?)?;
    access.device(&device)?;
    let sensor_type = params.required("sensor_type")?;
    let data = params.required("data")?;
    let claimed = claimed(&params)?;
    let packet = protocol::decode_sample_form(sensor_type, data, params.get("timestamp"), claimed)
        .or_else(|_| protocol::decode_batch_form(sensor_type, data, claimed));
    let data_id = match packet {
        Ok(packet) if !packet.frames.is_empty() => store(&context, &access, &device, packet).await?.end_row as i64,
        // The legacy service took any text here and never looked at it again.
        Ok(_) | Err(_) => keep(&context.state, "upload_sensor_data", None, Some(&device), data).await?,
    };
    Ok(Json(json!({ "msg": access.say("data_uploaded"), "data_id": data_id })))
}

/// `esp32/batch_upload/`: many frames of one sensor.
async fn batch_upload(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let params = Params::of(request, &context.options).await?;
    let refused = |error: ApiError| {
        let received: Vec<_> = params.names().collect();
        error.with("required", json!(["batch_data", "device_code", "sensor_type"])).with("received", json!(received))
    };
    let device = device_code(params.required("device_code").map_err(refused)?)?;
    access.device(&device)?;
    let sensor_type = params.required("sensor_type").map_err(refused)?;
    let batch_data = params.required("batch_data").map_err(refused)?;
    let claimed = claimed(&params)?;
    let packet = protocol::decode_batch_form(sensor_type, batch_data, claimed).map_err(malformed)?;
    let (total, failed) = (packet.total_items, packet.failed_items);
    let times = packet.frames.device_time_raw.clone();
    if packet.frames.is_empty() {
        metrics::counter!("volant_gateway_dropped_samples_total", "reason" => "malformed").increment(failed as u64);
        let fault = packet.first_fault.map(|(_, fault)| fault.to_string()).unwrap_or_default();
        return Err(malformed_items(total, &fault));
    }
    let kept = places(sensor_type, batch_data, total, failed);
    let stored = store(&context, &access, &device, packet).await?;
    let first_row = stored.end_row.saturating_sub(times.len());
    let results: Vec<Value> = kept
        .into_iter()
        .zip(times)
        .enumerate()
        .map(|(number, (index, time))| {
            json!({
                "index": index,
                "data_id": first_row + number + 1,
                "server_timestamp": UtcTime(stored.received_at_us),
                "esp32_timestamp": (time != i64::MIN).then_some(time),
            })
        })
        .collect();
    let mut answer = json!({
        "msg": access.say("batch_uploaded"),
        "device_code": device,
        "sensor_type": sensor_type,
        "total_items": total,
        "successful_items": results.len(),
        "failed_items": failed,
        "duplicate": stored.duplicate,
        "results": results,
    });
    if claimed.is_some() {
        answer["session_id"] = json!(claimed);
        answer["stored_in_session"] = json!(stored.session);
    }
    Ok(Json(answer))
}

fn malformed_items(total: usize, fault: &str) -> ApiError {
    ApiError::with_status(axum::http::StatusCode::BAD_REQUEST, "no_usable_frame", "no frame is usable")
        .about("what", fault)
        .with("total_items", total)
        .with("successful_items", 0)
        .with("failed_items", total)
}

/// Which items of a batch are good, from 0. Only where some are bad, each is looked at again.
fn places(sensor_type: &str, batch_data: &str, total: usize, failed: usize) -> Vec<usize> {
    if failed == 0 {
        return (0..total).collect();
    }
    let items: Vec<&serde_json::value::RawValue> = serde_json::from_str(batch_data).unwrap_or_default();
    let good = |item: &serde_json::value::RawValue| {
        protocol::decode_batch_form(sensor_type, &format!("[{}]", item.get()), None)
            .is_ok_and(|packet| packet.failed_items == 0)
    };
    items.into_iter().enumerate().filter(|(_, item)| good(item)).map(|(index, _)| index).collect()
}

// ---- completion ---------------------------------------------------------------------------------------------------

/// The session that a device means by an id it claims: what took its uploads under that id lately; the open collection of
/// that id, which outlives a restart; its own session of that number; the last collection, for a word that is repeated; or
/// the session that it was told to stop. A session that goes on is not ended by a word left over from something else.
async fn meant(context: &Context, device: &DeviceCode, claimed: &str) -> Result<Option<SessionInfo>, ApiError> {
    let state = &context.state;
    let known = context.claims.session(device, claimed).or_else(|| state.ingest.open_collection(device, claimed));
    if let Some(session) = known
        && let Some(info) = state.sessions.info(session).await?
    {
        return Ok(Some(info));
    }
    if let Ok(session) = claimed.parse()
        && let Some(info) = state.sessions.info(session).await?
        && info.device_code == *device
    {
        return Ok(Some(info));
    }
    if let Some(info) = state.sessions.collection(device, claimed).await? {
        return Ok(Some(info));
    }
    let live = state.sessions.live_of(device).await?;
    Ok(live.filter(|live| live.status == schemas::SessionStatus::Stopping))
}

/// Who means an id, of a caller who names neither device nor player.
enum Unnamed {
    /// No device uploads under it: it is a number of ours.
    Nobody,
    One(DeviceCode),
    /// Several do, and nothing tells which of them calls.
    Several,
}

/// The sketch with that id: by the address that it uploaded from, else, after a restart, by the collections that are open.
fn unnamed(context: &Context, access: &Access, claimed: &str) -> Unnamed {
    let state = &context.state;
    let mut devices = context.claims.devices(access.address, claimed, state.clock.now_us());
    if devices.is_empty() {
        devices = state.ingest.devices_with_open_collection(claimed);
    } else if devices.len() > 1 {
        // Those that are done do not call again while others are not.
        let open: Vec<DeviceCode> =
            devices.iter().filter(|device| state.ingest.open_collection(device, claimed).is_some()).cloned().collect();
        if !open.is_empty() {
            devices = open;
        }
    }
    devices.retain(|device| access.device(device).is_ok());
    match devices.as_slice() {
        [] => Unnamed::Nobody,
        [only] => Unnamed::One(only.clone()),
        _ => Unnamed::Several,
    }
}

/// `mark_complete/`: a session is recorded; the analysis follows. The timer sketch calls it under a constant id and names
/// no device.
async fn mark_complete(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let state = &context.state;
    let params = Params::of(request, &context.options).await?;
    if params.get("completion_code").is_some_and(|code| code != COMPLETION_CODE) {
        return Err(ApiError::bad_request(format!("completion_code is {COMPLETION_CODE}")));
    }
    let claimed = claimed(&params)?.ok_or_else(|| ApiError::missing("session_id"))?;
    let named = params.get("device_code").map(device_code).transpose()?;
    // A player speaks of sessions of ours, whatever a sketch beside them claims.
    let is_player = params.get("openid").is_some() || matches!(access.caller, Caller::User { .. });
    let device = match named {
        Some(device) => access.device(&device).is_ok().then_some(device),
        None if is_player => None,
        None => match unnamed(&context, &access, claimed) {
            Unnamed::Nobody => None,
            Unnamed::One(device) => Some(device),
            Unnamed::Several => return Ok(Json(nothing_completed(&access, claimed, "several_claim"))),
        },
    };
    let info = match device {
        Some(device) => meant(&context, &device, claimed).await?,
        None => None,
    };
    let info = match info {
        Some(info) => info,
        None => access.session(state, session_id(&params)?, &params, Want::Control).await?,
    };
    completed(state, &access, info).await.map(Json)
}

/// The answer where nothing is ended, and why. A 200: the sketches look for the text `analysis_triggered` and repeat
/// anything else for ever.
fn nothing_completed(access: &Access, claimed: &str, why: &'static str) -> Value {
    json!({
        "msg": access.say(why),
        "session_id": claimed,
        "session_status": "stopped",
        "data_collection_stats": { "total_data_points": 0, "sensor_types": [], "collection_duration_seconds": 0 },
        "analysis_triggered": false,
        "analysis_id": null,
        "analysis_status": "stopped",
        "error_message": access.say(why),
    })
}

/// `esp32/mark_upload_complete/`: the same from a device, which keeps asking until it gets a 200.
async fn mark_upload_complete(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let params = Params::of(request, &context.options).await?;
    let device = device_code(params.required("device_code")?)?;
    access.device(&device)?;
    let claimed = claimed(&params)?.ok_or_else(|| ApiError::missing("session_id"))?;
    let upload_stats = match params.get("upload_stats") {
        None => Value::Null,
        Some(text) => serde_json::from_str(text)
            .map_err(|source| ApiError::bad_request(format!("upload_stats is not JSON: {source}")))?,
    };
    let mut answer = match meant(&context, &device, claimed).await? {
        Some(info) => completed(&context.state, &access, info).await?,
        // Nothing ever came under this id.
        None => nothing_completed(&access, claimed, "nothing_uploaded"),
    };
    answer["session_id"] = json!(claimed);
    answer["device_code"] = json!(device);
    answer["upload_stats"] = upload_stats;
    Ok(Json(answer))
}

async fn completed(state: &State, access: &Access, before: SessionInfo) -> Result<Value, ApiError> {
    let live = state.ingest.live(before.session_id);
    let info = state.sessions.finish(before.session_id).await?;
    let published = state.analysis.published(info.session_id).await?;
    let until_us = info.ended_at_us.unwrap_or_else(|| state.clock.now_us());
    let sensors: Vec<_> = live
        .as_ref()
        .map(|live| live.frames_by_sensor.iter().map(|(role, _)| role.as_str()).collect())
        .unwrap_or_default();
    let triggered = matches!(info.status, schemas::SessionStatus::Analyzing | schemas::SessionStatus::Completed);
    Ok(json!({
        "msg": access.say("collection_complete"),
        "session_id": info.session_id,
        "session_status": info.status,
        "data_collection_stats": {
            "total_data_points": info.frame_count,
            "sensor_types": sensors,
            "collection_duration_seconds": (until_us - info.started_at_us) as f64 / 1e6,
        },
        "analysis_triggered": triggered,
        "analysis_id": published.map(|published| published.analysis_id),
        "analysis_status": info.status,
        "error_message": info.reason,
    }))
}

// ---- forms --------------------------------------------------------------------------------------------------------

async fn send_data1(state: Shared, access: Access, request: Request) -> Answer {
    send_data(state, access, request, "1").await
}

async fn send_data2(state: Shared, access: Access, request: Request) -> Answer {
    send_data(state, access, request, "2").await
}

async fn send_data3(state: Shared, access: Access, request: Request) -> Answer {
    send_data(state, access, request, "3").await
}

/// `send_data1/` to `send_data3/`: a text of the mini-program is kept.
async fn send_data(AxumState(context): Shared, access: Access, request: Request, digit: &'static str) -> Answer {
    let params = Params::of(request, &context.options).await?;
    let player = access.player_if_any(&context.state, &params).await?;
    if params.required("type")? != digit {
        return Err(ApiError::bad_request(format!("type is {digit} here")));
    }
    let content = params.required("content")?;
    let kind = format!("send_data{digit}");
    let user = player.map(|player| player.user_id);
    let data_id = keep(&context.state, &kind, user, None, content).await?;
    let timestamp = LocalTime(context.state.clock.now_us());
    Ok(Json(json!({ "msg": access.say("data_received"), "data_id": data_id, "timestamp": timestamp })))
}

async fn keep(
    state: &State,
    kind: &str,
    user: Option<schemas::UserId>,
    device: Option<&DeviceCode>,
    content: &str,
) -> Result<i64, ApiError> {
    if content.len() > CONTENT_LIMIT_BYTES {
        return Err(ApiError::bad_request(format!("a text has {CONTENT_LIMIT_BYTES} bytes at most")));
    }
    Ok(state.accounts.keep_entry(kind, user, device, content).await?)
}

// ---- help ---------------------------------------------------------------------------------------------------------

async fn upload_help() -> Json<Value> {
    help(
        "stores one frame of a sensor",
        &json!({
            "device_code": "code of the device",
            "sensor_type": "waist, shoulder, wrist or racket",
            "data": "JSON: {\"acc\":[x,y,z],\"gyro\":[x,y,z],\"angle\":[x,y,z]}",
        }),
        &json!({ "session_id": "session, or an id of the device's own", "timestamp": "time of the frame" }),
        &json!(["msg", "data_id", "device_code", "sensor_type", "timestamp", "sensor_data_summary", "session_id"]),
    )
}

async fn mark_complete_help() -> Json<Value> {
    help(
        "says that everything is recorded; the analysis follows",
        &json!({ "session_id": "session, or an id that the device uploaded under" }),
        &json!({ "completion_code": COMPLETION_CODE, "device_code": "code of the device" }),
        &json!(["msg", "session_id", "session_status", "data_collection_stats", "analysis_triggered", "analysis_id"]),
    )
}

async fn mark_upload_complete_help() -> Json<Value> {
    help(
        "says that a device has uploaded everything; the analysis follows",
        &json!({ "session_id": "session, or an id that the device uploaded under", "device_code": "code of the device" }),
        &json!({ "upload_stats": "JSON text, echoed" }),
        &json!(["msg", "session_id", "device_code", "session_status", "analysis_triggered", "upload_stats"]),
    )
}
