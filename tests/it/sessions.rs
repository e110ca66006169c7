//! The state machine: confirmation, resend, timeouts, left-over messages, a start that ends the session before.

use serde_json::{Value, json};

use crate::flow::wait_for_status;
use crate::packets::session_packets;
use crate::support::{Socket, TestApp};
use volant::config::Config;

const DEVICE: &str = "2025001";

async fn connect(app: &TestApp) -> Socket {
    let mut device = app.socket(&format!("/ws/esp32/{DEVICE}/")).await;
    device.next_of("connection_established").await;
    device
}

async fn acknowledge(device: &mut Socket, command: &Value) {
    device.send(&json!({"type":"ack","command_id":command["command_id"],"success":true,"timestamp":1})).await;
}

async fn send_some(device: &mut Socket, session: i64) {
    for packet in session_packets(&session.to_string(), DEVICE, 4, 2.0) {
        device.send(&packet).await;
        assert_eq!(device.next_of("batch_sensor_data_response").await["success"], true);
    }
}

async fn upload_complete(device: &mut Socket, session: i64) {
    device.send(&json!({"type":"upload_complete","session_id":session.to_string(),"timestamp":2})).await;
    device.next_of("upload_complete_response").await;
}

async fn status_of(app: &TestApp, session: i64) -> Value {
    app.sql(&format!("SELECT status FROM sessions WHERE session_id = {session}")).await[0]["status"].clone()
}

fn quick(config: &mut Config) {
    config.sessions.command_resend_ms = 200;
    config.sessions.upload_timeout_s = 1;
    config.sessions.offline_timeout_s = 1;
    config.sessions.doubt_timeout_ms = 500;
    config.sessions.start_timeout_s = 1;
    config.sessions.idle_timeout_s = 1;
    config.sessions.late_grace_s = 1;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_sent_again_until_the_device_confirms() {
    let app = TestApp::start_with(|config| config.sessions.command_resend_ms = 200).await;
    let mut device = connect(&app).await;
    let session = app.start_session(DEVICE).await;
    let first = device.next_of("start_collection").await;
    let second = device.next_of("start_collection").await;
    assert_eq!(first["command_id"], second["command_id"], "a repeat is the same command");
    assert_eq!(status_of(&app, session).await, "calibrating");
    acknowledge(&mut device, &second).await;
    wait_for_status(&app, session, "collecting").await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_connects_late_is_told_to_start() {
    let app = TestApp::start().await;
    let form = format!("openid=test_user_123456&device_group_code={DEVICE}");
    let (_, started) = app.post_form("/wxapp/start_session/", &form).await;
    assert_eq!(started["websocket_sent"], false, "nobody was there: {started}");
    let mut device = connect(&app).await;
    let command = device.next_of("start_collection").await;
    assert_eq!(command["session_id"], started["session_id"].to_string());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_session_ends_whatever_its_device_does() {
    let app = TestApp::start_with(quick).await;

    // The device never started: nothing to analyse, no invented result.
    let silent = app.start_session("silent").await;
    wait_for_status(&app, silent, "stopped").await;
    let (status, answer) = app.get(&format!("/wxapp/get_analysis/?session_id={silent}")).await;
    assert_eq!(status, 404, "{answer}");

    // The frames ceased.
    let mut device = connect(&app).await;
    let ceased = app.start_session(DEVICE).await;
    send_some(&mut device, ceased).await;
    wait_for_status(&app, ceased, "completed").await;

    // Stopped, but upload_complete never came.
    let owing = app.start_session(DEVICE).await;
    send_some(&mut device, owing).await;
    app.post_form("/wxapp/end_session/", &format!("session_id={owing}")).await;
    wait_for_status(&app, owing, "completed").await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_left_over_upload_complete_does_not_end_the_new_session() {
    let app = TestApp::start().await;
    let mut device = connect(&app).await;
    let session = app.start_session(DEVICE).await;
    let command = device.next_of("start_collection").await;
    acknowledge(&mut device, &command).await;
    // The firmware owed it from the last session and sends it under the new number.
    device.send(&json!({"type":"upload_complete","session_id":session.to_string(),"timestamp":2})).await;
    let ask = device.next_of("get_status").await;
    device
        .send(&json!({"type":"status_response","command_id":ask["command_id"],"timestamp":3,
            "connection":{"wifi_connected":true,"server_connected":true,"collection_active":true},
            "device":{"device_code":DEVICE,"session_id":session.to_string(),"firmware_version":"V3.3"}}))
        .await;
    send_some(&mut device, session).await;
    assert_eq!(status_of(&app, session).await, "collecting");
    app.post_form("/wxapp/end_session/", &format!("session_id={session}")).await;
    let stop = device.next_of("stop_collection").await;
    acknowledge(&mut device, &stop).await;
    upload_complete(&mut device, session).await;
    wait_for_status(&app, session, "completed").await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unasked_upload_complete_is_believed_when_the_device_is_quiet() {
    let app = TestApp::start_with(|config| config.sessions.doubt_timeout_ms = 300).await;
    let mut device = connect(&app).await;
    let session = app.start_session(DEVICE).await;
    send_some(&mut device, session).await;
    upload_complete(&mut device, session).await;
    wait_for_status(&app, session, "completed").await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_start_ends_the_session_before_in_order() {
    let app = TestApp::start().await;
    let mut device = connect(&app).await;
    let before = app.start_session(DEVICE).await;
    send_some(&mut device, before).await;
    let after = app.start_session(DEVICE).await;
    assert_ne!(before, after);
    wait_for_status(&app, before, "completed").await;
    send_some(&mut device, after).await;
    wait_for_status(&app, after, "collecting").await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_session_ends_and_keeps_what_it_has() {
    let app = TestApp::start_with(|config| config.ingest.session_limit_frames = 300).await;
    let mut device = connect(&app).await;
    let session = app.start_session(DEVICE).await;
    let command = device.next_of("start_collection").await;
    acknowledge(&mut device, &command).await;
    let packets = session_packets(&session.to_string(), DEVICE, 4, 5.0);
    for (index, packet) in packets[..11].iter().enumerate() {
        device.send(packet).await;
        let answer = device.next_of("batch_sensor_data_response").await;
        assert_eq!(answer["success"], index < 10, "{answer}");
    }
    // A repeat of what is there is no eleventh packet.
    device.send(&packets[9]).await;
    assert_eq!(device.next_of("batch_sensor_data_response").await["success"], true);
    // The device is told to stop, as if the player had ended the session.
    let stop = device.next_of("stop_collection").await;
    acknowledge(&mut device, &stop).await;
    upload_complete(&mut device, session).await;
    wait_for_status(&app, session, "completed").await;
    assert_eq!(app.sql_count(&format!("SELECT count(*) FROM frames WHERE session_id = {session}")).await, 300);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admins_hear_when_a_device_falls_silent_and_when_it_streams_again() {
    let app = TestApp::start_with(|config| config.sessions.silent_after_s = 1).await;
    let mut admin = app.socket("/ws/admin/").await;
    let mut device = connect(&app).await;
    let session = app.start_session(DEVICE).await;
    device.next_of("start_collection").await;
    send_some(&mut device, session).await;
    let event = async |admin: &mut Socket, code: &str| loop {
        let event = admin.next_of("system_event").await;
        if event["code"] == code {
            return event;
        }
    };
    let silent = event(&mut admin, "device_silent").await;
    assert_eq!((&silent["device_code"], &silent["session_id"]), (&json!(DEVICE), &json!(session)), "{silent}");
    for packet in session_packets(&session.to_string(), DEVICE, 1, 2.0) {
        let mut packet = packet;
        packet["timestamp"] = json!(packet["timestamp"].as_i64().unwrap_or_default() + 60_000);
        device.send(&packet).await;
    }
    event(&mut admin, "device_streams").await;
    app.stop().await;
}
