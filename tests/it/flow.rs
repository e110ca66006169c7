//! The main job: start, stream, stop, analysis, notice, SQL.

use std::time::Duration;

use schemas::SensorRole;
use serde_json::{Value, json};
use volant::store::pack::TableFile;
use volant::store::seal;

use crate::packets::session_packets;
use crate::reanalysis::eventually;
use crate::support::{Socket, TestApp};

const DEVICE: &str = "2025001";

/// Sends packets with a window in flight and takes their answers.
async fn stream(device: &mut Socket, packets: &[Value]) {
    for window in packets.chunks(16) {
        for packet in window {
            device.send(packet).await;
        }
        for _ in window {
            let answer = device.next_of("batch_sensor_data_response").await;
            assert_eq!(answer["success"], true, "{answer}");
            assert_eq!((&answer["total_items"], &answer["failed_items"]), (&json!(30), &json!(0)));
        }
    }
}

/// Takes a command and acknowledges it as the firmware does.
async fn obey(device: &mut Socket, kind: &str) -> Value {
    let command = device.next_of(kind).await;
    assert!(command["command_id"].is_string(), "{command}");
    device.send(&json!({"type":"ack","command_id":command["command_id"],"success":true,"timestamp":1})).await;
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_from_start_to_notice_and_sql() {
    let app = TestApp::start().await;
    let mut admin = app.socket("/ws/admin/").await;
    admin.next_of("connection_established").await;
    let mut player = app.socket("/ws/miniprogram/test_user_123456/").await;
    player.next_of("connection_established").await;
    let mut device = app.socket(&format!("/ws/esp32/{DEVICE}/")).await;
    device.next_of("connection_established").await;

    // As the mini-program: only a group code, which holds the device code.
    let form = format!("openid=test_user_123456&device_group_code={DEVICE}");
    let (status, started) = app.post_form("/wxapp/start_session/", &form).await;
    assert_eq!((status, &started["status"]), (200, &json!("calibrating")));
    let session = started["session_id"].as_i64().expect("a number");
    let start = obey(&mut device, "start_collection").await;
    assert_eq!(start["device_code"], DEVICE);
    assert_eq!(start["session_id"], session.to_string());

    let packets = session_packets(&session.to_string(), DEVICE, 7, 40.0);
    let frames = packets.len() as i64 * 30;
    stream(&mut device, &packets).await;

    // Acknowledged frames of the open session are in SQL.
    let of_session = format!("SELECT count(*) FROM frames WHERE session_id = {session}");
    assert_eq!(app.sql_count(&of_session).await, frames);
    wait_for_status(&app, session, "collecting").await;
    let (_, latest) = app.get("/wxapp/get_latest_session/").await;
    assert_eq!(latest["session"]["status"], "collecting", "{latest}");

    let (status, ended) = app.post_form("/wxapp/end_session/", &format!("session_id={session}")).await;
    assert_eq!((status, &ended["status"]), (200, &json!("stopping")));
    obey(&mut device, "stop_collection").await;
    device
        .send(&json!({"type":"upload_complete","session_id":session.to_string(),"device_code":DEVICE,"timestamp":2}))
        .await;
    assert_eq!(device.next_of("upload_complete_response").await["session_id"], session.to_string());

    let notice = player.next_of("analysis_complete_notification").await;
    assert_eq!(notice["session_id"], session);
    assert!(notice["notification_id"].is_string());
    let figures = &notice["analysis_result"];
    assert!(figures["phase_delay"].is_object() && figures["rom_data"].is_object(), "{figures}");
    assert!(figures["stroke_count"].as_i64().is_some_and(|strokes| strokes > 3), "{figures}");

    // The same figures by HTTP, GET and POST, and in SQL, from the sealed file now.
    for (status, result) in [
        app.get(&format!("/wxapp/get_analysis/?session_id={session}")).await,
        app.post_form("/api/get_analysis/", &format!("session_id={session}")).await,
    ] {
        assert_eq!(status, 200, "{result}");
        assert_eq!(result["energy_ratio"], figures["energy_ratio"]);
    }
    assert_eq!(app.sql_count(&of_session).await, frames);
    let distinct = format!("SELECT count(DISTINCT seq) FROM frames WHERE session_id = {session}");
    assert_eq!(app.sql_count(&distinct).await, frames);
    let strokes = format!("SELECT count(*) FROM strokes WHERE session_id = {session}");
    assert_eq!(app.sql_count(&strokes).await, figures["stroke_count"].as_i64().expect("a count"));
    let sealed = app.sql(&format!("SELECT status, sealed FROM sessions WHERE session_id = {session}")).await;
    assert_eq!(sealed[0], json!({"status": "completed", "sealed": true}));

    // The admins were told, under both names.
    let mut told = Vec::new();
    while !told.iter().any(|text: &String| text.contains("completed") || text.contains("finished")) {
        told.push(admin.next_of("system_event").await["event"].to_string());
    }
    admin.next_of("system_notification").await;

    // Stopping again and completing again change nothing.
    let (status, again) = app.post_form("/wxapp/end_session/", &format!("session_id={session}")).await;
    assert_eq!(status, 200, "{again}");
    device
        .send(&json!({"type":"upload_complete","session_id":session.to_string(),"device_code":DEVICE,"timestamp":3}))
        .await;
    device.next_of("upload_complete_response").await;
    assert!(
        player.hears_no("analysis_complete_notification", Duration::from_millis(700)).await,
        "the notice must not come twice"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_who_was_away_gets_the_notice_once() {
    let app = TestApp::start().await;
    let mut device = app.socket(&format!("/ws/esp32/{DEVICE}/")).await;
    device.next_of("connection_established").await;
    let session = app.start_session(DEVICE).await;
    obey(&mut device, "start_collection").await;
    stream(&mut device, &session_packets(&session.to_string(), DEVICE, 3, 12.0)).await;
    app.post_form("/wxapp/end_session/", &format!("session_id={session}")).await;
    obey(&mut device, "stop_collection").await;
    device
        .send(&json!({"type":"upload_complete","session_id":session.to_string(),"device_code":DEVICE,"timestamp":2}))
        .await;
    device.next_of("upload_complete_response").await;
    wait_for_status(&app, session, "completed").await;

    // A restart in between loses nothing.
    let folder = app.stop().await;
    let app = TestApp::start_in(folder, |_| {}).await;
    let mut player = app.socket("/ws/miniprogram/test_user_123456/").await;
    let notice = player.next_of("analysis_complete_notification").await;
    assert_eq!(notice["session_id"], session);
    // It is delivered once the socket has proved that it received it; then it does not come again.
    while app.app().rooms().notify.owed_count().await.expect("the outbox") > 0 {
        // A client that reads answers pings; nothing else may come.
        assert!(player.is_silent_for(Duration::from_millis(10)).await);
    }
    let mut again = app.socket("/ws/miniprogram/test_user_123456/").await;
    again.next_of("connection_established").await;
    assert!(again.is_silent_for(Duration::from_millis(700)).await);
    app.stop().await;
}

/// Waits until a session is in this state.
pub async fn wait_for_status(app: &TestApp, session: i64, status: &str) {
    let statement = format!("SELECT count(*) FROM sessions WHERE session_id = {session} AND status = '{status}'");
    while app.sql_count(&statement).await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_session_survives_a_restart_and_a_repeated_packet() {
    let app = TestApp::start().await;
    let session = app.start_session(DEVICE).await;
    let packets = session_packets(&session.to_string(), DEVICE, 5, 10.0);
    let (before, after) = packets.split_at(packets.len() / 2);
    let mut device = app.socket(&format!("/ws/esp32/{DEVICE}/")).await;
    stream(&mut device, before).await;
    let folder = app.stop().await;

    let app = TestApp::start_in(folder, |_| {}).await;
    let mut device = app.socket(&format!("/ws/esp32/{DEVICE}/")).await;
    // The device goes on by itself; the server tells it again what it should be doing.
    assert_eq!(obey(&mut device, "start_collection").await["session_id"], session.to_string());
    device.send(&before[before.len() - 1]).await;
    let repeat = device.next_of("batch_sensor_data_response").await;
    assert_eq!((&repeat["success"], &repeat["duplicate"]), (&json!(true), &json!(true)), "{repeat}");
    stream(&mut device, after).await;
    let frames = packets.len() as i64 * 30;
    let count = format!("SELECT count(*) FROM frames WHERE session_id = {session}");
    assert_eq!(app.sql_count(&count).await, frames);

    app.post_form("/wxapp/end_session/", &format!("session_id={session}")).await;
    obey(&mut device, "stop_collection").await;
    device
        .send(&json!({"type":"upload_complete","session_id":session.to_string(),"device_code":DEVICE,"timestamp":2}))
        .await;
    wait_for_status(&app, session, "completed").await;
    // A late packet that names the session makes a new revision.
    let late = session_packets(&session.to_string(), DEVICE, 99, 1.0);
    stream(&mut device, &late[..1]).await;
    let revision = format!("SELECT count(*) FROM sessions WHERE session_id = {session} AND revision = 2");
    while app.sql_count(&revision).await == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(app.sql_count(&count).await, frames + 30);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_packets_say_why_and_disturb_nothing() {
    let app = TestApp::start().await;
    let session = app.start_session(DEVICE).await;
    let mut device = app.socket(&format!("/ws/esp32/{DEVICE}/")).await;
    let mut stranger = app.socket("/ws/esp32/stranger/").await;
    let good = session_packets(&session.to_string(), DEVICE, 1, 2.0);

    // Foreign and unknown sessions.
    stranger.send(&good[0]).await;
    let refused = stranger.next_of("batch_sensor_data_response").await;
    assert_eq!(refused["success"], false);
    assert!(refused["error"].as_str().is_some_and(|error| error.contains("another device")), "{refused}");
    let mut unknown = good[0].clone();
    unknown["session_id"] = json!("99999");
    device.send(&unknown).await;
    let refused = device.next_of("batch_sensor_data_response").await;
    assert_eq!(refused["success"], false);
    assert!(refused["error"].as_str().is_some_and(|error| error.contains("unknown session")), "{refused}");

    // A stranger can neither confirm the start, nor end the upload, nor name no session.
    stranger
        .send(&json!({"type":"status_update","status":"START_COLLECTION_CONFIRMED","session_id":session.to_string()}))
        .await;
    assert!(stranger.next_of("error").await["error"].as_str().is_some_and(|error| error.contains("another device")));
    stranger.send(&json!({"type":"upload_complete","session_id":session.to_string()})).await;
    assert!(stranger.next_of("error").await["error"].is_string());
    device.send(&json!({"type":"upload_complete","timestamp":1})).await;
    assert!(device.next_of("error").await["error"].is_string());

    stream(&mut device, &good).await;
    let count = app.sql_count(&format!("SELECT count(*) FROM frames WHERE session_id = {session}")).await;
    assert_eq!(count, good.len() as i64 * 30);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_without_a_session_are_kept_and_can_be_found() {
    let app = TestApp::start().await;
    let mut device = app.socket("/ws/esp32/lonely/").await;
    let mut packets = session_packets("x", "lonely", 1, 2.0);
    for packet in &mut packets {
        packet["session_id"] = json!("041025");
    }
    stream(&mut device, &packets).await;
    let rows = app.sql("SELECT session_id, count(*) AS n FROM frames GROUP BY session_id").await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["n"], packets.len() * 30);
    assert_ne!(rows[0]["session_id"], 41025);
    app.stop().await;
}

/// Records a session whose packets are changed on the way, the waist's frames at a time, and waits for its result.
async fn record(app: &TestApp, mut change: impl FnMut(usize, Vec<&mut Value>)) -> i64 {
    let session = app.start_session("d1").await;
    let mut device = app.socket("/ws/esp32/d1/").await;
    for (number, mut packet) in session_packets(&session.to_string(), "d1", 5, 25.0).into_iter().enumerate() {
        let frames = packet["data"].as_array_mut().unwrap().iter_mut();
        change(number, frames.filter(|frame| frame["sensor_id"] == json!(SensorRole::Waist.to_byte())).collect());
        device.send(&packet).await;
        assert_eq!(device.next_of("batch_sensor_data_response").await["success"], true);
    }
    app.request("POST", &format!("/api/v2/sessions/{session}/complete"), "", "").await;
    eventually(async || app.get(&format!("/api/v2/sessions/{session}/result")).await.0 == 200).await;
    session
}

fn without_time(frame: &mut Value) {
    frame.as_object_mut().unwrap().remove("timestamp");
}

/// A gateway of which one sensor sends no times: its own delays cannot be told, those of the others can.
#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_without_times_costs_its_own_delays_only() {
    let app = TestApp::start().await;
    let session = record(&app, |_, of_waist| of_waist.into_iter().for_each(without_time)).await;
    let quality = format!("SELECT sensor FROM data_quality WHERE session_id = {session} AND code = 'clock_unsynced'");
    assert_eq!(app.sql(&quality).await, [json!({"sensor": "waist"})]);
    let resolved = "count(delay_waist_shoulder_ms) AS waist, count(delay_wrist_racket_ms) AS racket, count(*) AS n";
    let delays = &app.sql(&format!("SELECT {resolved} FROM strokes WHERE session_id = {session}")).await[0];
    let count = |name: &str| delays[name].as_i64().unwrap();
    assert!(count("n") >= 5 && count("waist") == 0 && 2 * count("racket") > count("n"), "{delays}");
    app.stop().await;
}

/// A sensor of which a few frames carry no time: they are left out and told, and its delays are as sure as before.
#[tokio::test(flavor = "multi_thread")]
async fn a_few_frames_without_a_time_cost_themselves_only() {
    let app = TestApp::start().await;
    let mut untimed = 0;
    let some = |number: usize, of_waist: Vec<&mut Value>| {
        if number % 10 == 4
            && let Some(frame) = of_waist.into_iter().next()
        {
            without_time(frame);
            untimed += 1;
        }
    };
    let session = record(&app, some).await;
    let quality = format!("SELECT sensor, code, message FROM data_quality WHERE session_id = {session}");
    let quality = app.sql(&quality).await;
    let told = format!("Frames of the waist sensor without a time of their own, left out: {untimed}.");
    assert_eq!(quality, [json!({"sensor": "waist", "code": "frames_untimed", "message": told})]);
    let resolved = "count(delay_waist_shoulder_ms) AS waist, count(*) AS n";
    let delays = &app.sql(&format!("SELECT {resolved} FROM strokes WHERE session_id = {session}")).await[0];
    let count = |name: &str| delays[name].as_i64().unwrap();
    assert!(count("n") >= 5 && 2 * count("waist") > count("n"), "{delays}");
    // Memory and file leave the same out.
    let (_, result) = app.get(&format!("/api/v2/sessions/{session}/result")).await;
    assert_eq!(result["analysis"]["strokes"], strokes_of_file(&app));
    app.stop().await;
}

/// Streams a session and ends it while nothing can be sealed: its analysis begins, its seal fails and is tried again later.
async fn end_unsealed(app: &TestApp, device: &mut Socket, session: i64, packets: &[Value]) {
    obey(device, "start_collection").await;
    stream(device, packets).await;
    // A file in the place of the folder.
    std::fs::write(app.data_dir().join("frames"), "").unwrap();
    app.post_form("/wxapp/end_session/", &format!("session_id={session}")).await;
    obey(device, "stop_collection").await;
    device
        .send(&json!({"type":"upload_complete","session_id":session.to_string(),"device_code":DEVICE,"timestamp":2}))
        .await;
    eventually(async || counted(app, "volant_sessions_failed_seals_total").await >= 1).await;
}

/// The value of a counter, 0 while there is none.
async fn counted(app: &TestApp, name: &str) -> u64 {
    let (_, metrics) = app.get("/metrics").await;
    let mut lines = metrics.as_str().unwrap().lines();
    lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}

/// What the pipeline says of a sealed file, as the API gives it.
fn strokes_of_file(app: &TestApp) -> Value {
    let mut files = Vec::new();
    for day in std::fs::read_dir(app.data_dir().join("frames")).unwrap() {
        files.extend(std::fs::read_dir(day.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
    }
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let track = seal::read_track(&TableFile::open(file).unwrap()).unwrap();
    let analysis = pipelines::Pipeline::builtin().analyze(&track, Some(pipelines::Model::builtin()));
    serde_json::to_value(&analysis.strokes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analysis_that_began_before_a_failed_seal_is_used_after_it() {
    let app = TestApp::start().await;
    let mut device = app.socket(&format!("/ws/esp32/{DEVICE}/")).await;
    device.next_of("connection_established").await;
    let session = app.start_session(DEVICE).await;
    end_unsealed(&app, &mut device, session, &session_packets(&session.to_string(), DEVICE, 11, 20.0)).await;
    assert_eq!(app.get(&format!("/api/v2/sessions/{session}/result")).await.0, 404, "nothing without its frames");
    std::fs::remove_file(app.data_dir().join("frames")).unwrap();
    wait_for_status(&app, session, "completed").await;
    assert_eq!(counted(&app, "volant_analysis_ahead_total").await, 1);
    let (_, result) = app.get(&format!("/api/v2/sessions/{session}/result")).await;
    assert!(result["analysis"]["strokes"].as_array().is_some_and(|strokes| strokes.len() > 3), "{result}");
    assert_eq!(result["analysis"]["strokes"], strokes_of_file(&app));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analysis_that_began_before_more_frames_came_is_not_used() {
    let app = TestApp::start().await;
    let mut device = app.socket(&format!("/ws/esp32/{DEVICE}/")).await;
    device.next_of("connection_established").await;
    let session = app.start_session(DEVICE).await;
    let packets = session_packets(&session.to_string(), DEVICE, 11, 24.0);
    let (before, after) = packets.split_at(packets.len() / 2);
    end_unsealed(&app, &mut device, session, before).await;
    stream(&mut device, after).await;
    std::fs::remove_file(app.data_dir().join("frames")).unwrap();
    wait_for_status(&app, session, "completed").await;
    let (_, result) = app.get(&format!("/api/v2/sessions/{session}/result")).await;
    assert_eq!(result["analysis"]["strokes"], strokes_of_file(&app));
    let frames = result["analysis"]["session"]["frame_count"].as_i64().unwrap();
    assert_eq!(app.sql_count(&format!("SELECT count(*) FROM frames WHERE session_id = {session}")).await, frames);
    assert_eq!(frames, packets.len() as i64 * 30);
    app.stop().await;
}
