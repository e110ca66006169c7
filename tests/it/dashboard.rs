//! What the dashboard and readers of the data folder see, while a session runs and after it.

use std::sync::Arc;

use futures::TryStreamExt;
use serde_json::{Value, json};
use volant::query;

use crate::flow::wait_for_status;
use crate::packets::session_packets;
use crate::support::{Socket, TestApp};

const DEVICE: &str = "2025001";

async fn send(device: &mut Socket, packets: &[Value]) {
    for packet in packets {
        device.send(packet).await;
        assert_eq!(device.next_of("batch_sensor_data_response").await["success"], true);
    }
}

/// The single number that a statement answers on the folder, as `volant sql --data-dir` asks it.
async fn folder_count(app: &TestApp, sql: &str) -> i64 {
    let folder = query::Folder::open(app.data_dir()).expect("open the folder");
    let handle =
        query::Handle::start(query::Options::default(), folder.files(), Arc::new(folder)).expect("start the room");
    let answer = handle.query(sql, handle.limits()).await.expect("an answer");
    let batches = answer.batches.try_collect::<Vec<_>>().await.expect("rows");
    let column = batches[0].column(0);
    column.as_any().downcast_ref::<arrow::array::Int64Array>().expect("an integer").value(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_tells_the_truth_during_a_session_and_after_it() {
    let app = TestApp::start().await;
    let (status, empty) = app.get("/api/v2/sessions").await;
    assert_eq!((status, &empty["sessions"]), (200, &json!([])));
    let (status, page) = app.get("/").await;
    assert!(status == 200 && page.as_str().is_some_and(|page| page.contains("/assets/app.js")), "{page}");

    let mut device = app.socket(&format!("/ws/esp32/{DEVICE}/")).await;
    device.next_of("connection_established").await;
    let (_, devices) = app.get("/api/v2/devices").await;
    let first = &devices["devices"][0];
    assert_eq!(first["device_code"], DEVICE);
    assert!(
        first["presence"]["connected_since_us"].is_i64() && first["presence"]["last_frame_us"].is_null(),
        "{first}"
    );

    let session = app.start_session(DEVICE).await;
    device.next_of("start_collection").await;
    let packets = session_packets(&session.to_string(), DEVICE, 3, 20.0);
    let frames = packets.len() as i64 * 30;
    send(&mut device, &packets).await;

    // Running: counted everywhere, in no file yet. The folder beside the running service says the same.
    wait_for_status(&app, session, "collecting").await;
    let (_, seen) = app.get(&format!("/api/v2/sessions/{session}")).await;
    assert_eq!((&seen["session"]["status"], &seen["session"]["frame_count"]), (&json!("collecting"), &json!(frames)));
    let (_, status) = app.get("/api/v2/status").await;
    assert_eq!((&status["active_sessions"], &status["connected_devices"]), (&json!(1), &json!(1)));
    assert_eq!(status["total_frames"], frames);
    let (code, missing) = app.get(&format!("/api/v2/sessions/{session}/result")).await;
    assert_eq!((code, &missing["code"]), (404, &json!("no_analysis")));
    let (code, missing) = app.get(&format!("/sessions/{session}/report")).await;
    assert_eq!((code, &missing["code"]), (404, &json!("no_analysis")));
    for sql in
        ["SELECT count(*) FROM frames", "SELECT sum(frame_count) FROM sessions", "SELECT max(frame_count) FROM devices"]
    {
        assert_eq!(folder_count(&app, sql).await, frames, "{sql}");
    }

    // The connection's own count: the packets, and nothing but text.
    let (_, devices) = app.get("/api/v2/devices").await;
    let presence = &devices["devices"][0]["presence"];
    let bytes: usize = packets.iter().map(|packet| packet.to_string().len()).sum();
    assert_eq!((&presence["messages"], &presence["message_bytes"]), (&json!(packets.len()), &json!(bytes)));

    let mut player = app.socket("/ws/miniprogram/test_user_123456/").await;
    app.post_form("/wxapp/end_session/", &format!("session_id={session}")).await;
    device.next_of("stop_collection").await;
    device
        .send(&json!({"type":"upload_complete","session_id":session.to_string(),"device_code":DEVICE,"timestamp":2}))
        .await;
    player.next_of("analysis_complete_notification").await;

    let (_, sessions) = app.get("/api/v2/sessions?limit=5").await;
    assert_eq!(
        (&sessions["sessions"][0]["session_id"], &sessions["sessions"][0]["status"]),
        (&json!(session), &json!("completed"))
    );
    let (code, result) = app.get(&format!("/api/v2/sessions/{session}/result")).await;
    assert_eq!(code, 200, "{result}");
    assert_eq!(result["analysis"]["session"]["frame_count"], frames);
    let found = result["analysis"]["strokes"].as_array().map_or(0, Vec::len) as i64;
    assert!(found > 0, "{result}");
    for (lang, word) in [("en", "Kinetic chain"), ("zh", "动力链")] {
        let (code, report) = app.get(&format!("/sessions/{session}/report?lang={lang}")).await;
        let report = report.as_str().unwrap();
        assert!(code == 200 && report.contains(word) && report.contains("<svg"), "{report:.300}");
    }
    for (sql, expected) in [
        ("SELECT count(*) FROM frames", frames),
        ("SELECT count(DISTINCT seq) FROM frames", frames),
        ("SELECT sum(frame_count) FROM sessions WHERE sealed", frames),
        ("SELECT count(*) FROM strokes", found),
        ("SELECT sum(frame_count) FROM results", frames),
    ] {
        assert_eq!(folder_count(&app, sql).await, expected, "{sql}");
    }
    let (code, missing) = app.get("/api/v2/sessions/99").await;
    assert_eq!((code, &missing["code"]), (404, &json!("session_not_found")));
    assert_eq!(app.get("/api/v2/sessions/041025/result").await.0, 404);
}
