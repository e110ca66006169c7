//! The sketches that upload and poll by HTTP, as section "what each sketch really calls" has them.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::flow::wait_for_status;
use crate::support::{PATIENCE, TestApp};

fn frame(step: i64) -> String {
    format!(r#"{{"acc":[1.20,-0.80,{}.81],"gyro":[{step},2.0,3.0],"angle":[1.0,2.0,3.0]}}"#, step % 9)
}

/// One `esp32/upload/` as the sketches send it: raw JSON in a form value.
async fn upload(app: &TestApp, device: &str, session: &str, step: i64) -> Value {
    let form = format!(
        "device_code={device}&sensor_type=wrist&data={}&session_id={session}&timestamp={}&streaming=true",
        frame(step),
        1000 + 10 * step
    );
    let (status, answer) = app.post_form("/wxapp/esp32/upload/", &form).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["msg"], "ESP32 data upload success");
    answer
}

async fn frames_of(app: &TestApp, condition: &str) -> i64 {
    app.sql_count(&format!(
        "SELECT count(*) FROM frames WHERE session_id IN (SELECT session_id FROM sessions WHERE {condition})"
    ))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_under_constant_ids_are_kept_apart_by_device_and_id_and_survive_a_restart() {
    let app = TestApp::start().await;
    // A real session of somebody, whose number the sketches happen to claim.
    let session = app.start_session("2025001").await;
    let claimed = session.to_string();
    for step in 0..5 {
        let a = upload(&app, "sketch-a", &claimed, step).await;
        let b = upload(&app, "sketch-b", &claimed, step).await;
        assert_ne!(a["stored_in_session"], b["stored_in_session"]);
        assert_ne!(a["stored_in_session"], session, "a device writes into its own sessions only");
        upload(&app, "sketch-a", "no number at all", step).await;
    }
    let again = upload(&app, "sketch-a", &claimed, 4).await;
    assert_eq!(again["duplicate"], true, "a lost answer makes the sketch send it again");
    assert_eq!(frames_of(&app, "device_code = 'sketch-a'").await, 10);
    assert_eq!(frames_of(&app, "device_code = 'sketch-b'").await, 5);
    assert_eq!(frames_of(&app, &format!("session_id = {session}")).await, 0);

    let app = TestApp::start_in(app.stop().await, |_| {}).await;
    let after = upload(&app, "sketch-a", &claimed, 5).await;
    assert_eq!(after["stored_in_session"], again["stored_in_session"], "the same collection goes on");
    let repeat = upload(&app, "sketch-a", &claimed, 5).await;
    assert_eq!((&repeat["duplicate"], &repeat["session_id"]), (&json!(true), &json!(claimed)));
    assert_eq!(frames_of(&app, "device_code = 'sketch-a'").await, 11);

    // The collection ends by the word of the device, which may come again, and names the id that it claimed.
    for _ in 0..2 {
        let form = format!("session_id={claimed}&device_code=sketch-a&upload_stats={{\"chunks\":3}}");
        let (status, done) = app.post_form("/api/esp32/mark_upload_complete", &form).await;
        assert_eq!(status, 200, "{done}");
        assert_eq!((&done["session_id"], &done["analysis_triggered"]), (&json!(claimed), &json!(true)));
        assert_eq!(done["upload_stats"], json!({"chunks": 3}));
        assert_eq!(done["data_collection_stats"]["total_data_points"], 6);
    }
    // What comes after the end begins a collection of its own.
    let later = upload(&app, "sketch-a", &claimed, 6).await;
    assert_ne!(later["stored_in_session"], after["stored_in_session"]);
    let (status, nothing) =
        app.post_form("/wxapp/esp32/mark_upload_complete/", "session_id=777&device_code=never-seen").await;
    assert_eq!((status, &nothing["analysis_triggered"]), (200, &json!(false)), "or it would ask for ever: {nothing}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_a_device_with_a_live_session_go_there_whatever_they_claim() {
    let app = TestApp::start().await;
    let session = app.start_session("2025001").await;
    for (step, claimed) in [(0, "1011"), (1, "83211"), (2, &session.to_string())] {
        assert_eq!(upload(&app, "2025001", claimed, step).await["stored_in_session"], session, "{claimed}");
    }
    let form = format!("device_code=2025001&sensor_type=waist&data={}", frame(3));
    assert_eq!(app.post_form("/wxapp/esp32/upload/", &form).await.0, 200);
    assert_eq!(frames_of(&app, &format!("session_id = {session}")).await, 4);
    // The flash sketch ends the session under its own id.
    let (_, done) = app.post_form("/wxapp/esp32/mark_upload_complete/", "session_id=83211&device_code=2025001").await;
    assert_eq!(done["analysis_triggered"], true, "{done}");
    let (_, info) = app.get(&format!("/api/v2/sessions/{session}")).await;
    assert!(matches!(info["session"]["status"].as_str(), Some("analyzing" | "completed" | "stopped")), "{info}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timer_sketch_completes_what_it_uploaded_without_naming_itself() {
    let app = TestApp::start().await;
    for step in 0..3 {
        upload(&app, "esp32s3_multi_001", "123", step).await;
    }
    let form = "session_id=123&completion_code=DATA_COLLECTION_COMPLETE_2024";
    for _ in 0..2 {
        let (status, done) = app.post_form("/wxapp/mark_complete/", form).await;
        assert_eq!((status, &done["analysis_triggered"]), (200, &json!(true)), "{done}");
    }
    assert_eq!(app.post_form("/wxapp/mark_complete/", "session_id=123&completion_code=x").await.0, 400);
    assert_eq!(app.post_form("/wxapp/mark_complete/", "session_id=9999").await.0, 404);
    assert_eq!(app.post_form("/wxapp/mark_complete/", "").await.0, 400);
    app.stop().await;
}

async fn status_of(app: &TestApp, session: &Value) -> String {
    let (_, info) = app.get(&format!("/api/v2/sessions/{session}")).await;
    info["session"]["status"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_of_completion_ends_nobody_elses_recording() {
    let app = TestApp::start().await;
    let a = upload(&app, "board-a", "123", 0).await["stored_in_session"].clone();
    let b = upload(&app, "board-b", "123", 0).await["stored_in_session"].clone();
    let (status, several) = app.post_form("/wxapp/mark_complete/", "session_id=123").await;
    assert_eq!((status, &several["analysis_triggered"]), (200, &json!(false)), "nothing tells which board calls");
    for session in [&a, &b] {
        assert_eq!(status_of(&app, session).await, "collecting");
    }
    // Named, it is that one; then only the other is left.
    app.post_form("/wxapp/esp32/mark_upload_complete/", "session_id=123&device_code=board-a").await;
    assert_eq!(status_of(&app, &b).await, "collecting");
    let (_, left) = app.post_form("/wxapp/mark_complete/", "session_id=123").await;
    assert_eq!((&left["session_id"], &left["analysis_triggered"]), (&b, &json!(true)));

    // A player means a session of ours, whatever a sketch beside them claims.
    let session = app.start_session("2025001").await;
    let sketch = upload(&app, "board-c", &session.to_string(), 0).await["stored_in_session"].clone();
    let form = format!("session_id={session}&openid=test_user_123456");
    let (_, done) = app.post_form("/wxapp/mark_complete/", &form).await;
    assert_eq!(done["session_id"], session, "{done}");
    assert_eq!(status_of(&app, &sketch).await, "collecting");

    // A word that was left over ends no session that goes on, but one that was told to stop.
    let running = app.start_session("2025001").await;
    upload(&app, "2025001", &running.to_string(), 1).await;
    wait_for_status(&app, running, "collecting").await;
    let left_over = "session_id=424242&device_code=2025001";
    let (_, ignored) = app.post_form("/wxapp/esp32/mark_upload_complete/", left_over).await;
    assert_eq!(ignored["analysis_triggered"], false, "{ignored}");
    assert_eq!(status_of(&app, &json!(running)).await, "collecting");
    app.post_form("/wxapp/end_session/", &format!("session_id={running}")).await;
    let (_, ended) = app.post_form("/wxapp/esp32/mark_upload_complete/", left_over).await;
    assert_eq!(ended["analysis_triggered"], true, "{ended}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_of_completion_after_a_restart_finds_the_open_collection_and_no_strangers_session() {
    let app = TestApp::start().await;
    // Number 1 is a player's session on another device, number 2 an old one of the sketch's own device.
    let players = app.start_session("2025001").await;
    let old = app.start_session("board").await;
    app.post_form("/wxapp/end_session/", &format!("session_id={old}")).await;
    app.post_form("/wxapp/mark_complete/", &format!("session_id={old}&openid=test_user_123456")).await;
    // Over for good: what came a moment after the end would be late frames of it.
    let app = TestApp::start_in(app.stop().await, |_| {}).await;
    let by_players_number = upload(&app, "board", &players.to_string(), 0).await["stored_in_session"].clone();
    let by_old_number = upload(&app, "board", &old.to_string(), 0).await["stored_in_session"].clone();
    let app = TestApp::start_in(app.stop().await, |_| {}).await;
    let (_, done) = app.post_form("/wxapp/mark_complete/", &format!("session_id={players}")).await;
    assert_eq!(done["session_id"], by_players_number, "{done}");
    assert_eq!(status_of(&app, &json!(players)).await, "calibrating", "somebody else's session goes on");
    let form = format!("session_id={old}&device_code=board");
    assert_ne!(by_old_number, json!(old));
    let (_, done) = app.post_form("/wxapp/esp32/mark_upload_complete/", &form).await;
    assert_eq!(done["analysis_triggered"], true, "{done}");
    assert_ne!(status_of(&app, &by_old_number).await, "collecting");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_stored_once_and_its_counts_add_up() {
    let app = TestApp::start().await;
    let frames: Vec<String> = (0..50).map(frame).collect();
    let batch = format!("[{},7,{{\"acc\":[1,2]}}]", frames.join(","));
    let form = format!("batch_data={batch}&device_code=2025001&sensor_type=waist&session_id=1011");
    for duplicate in [false, true] {
        let (status, answer) = app.post_form("/wxapp/esp32/batch_upload/", &form).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(
            ["total_items", "successful_items", "failed_items"].map(|field| answer[field].as_i64()),
            [Some(52), Some(50), Some(2)]
        );
        let results = answer["results"].as_array().unwrap();
        assert_eq!((results.len(), &results[49]["index"], &results[49]["data_id"]), (50, &json!(49), &json!(50)));
        assert_eq!(answer["duplicate"], duplicate);
    }
    assert_eq!(frames_of(&app, "device_code = '2025001'").await, 50);
    for (bad, what) in [
        ("batch_data=[{\"acc\":[nan,1,2]}]", "not JSON"),
        ("batch_data=[]", "empty"),
        ("batch_data={}", "no array"),
        ("batch_data=[1,2]", "no frame"),
        ("", "nothing"),
    ] {
        let form = format!("{bad}&device_code=2025001&sensor_type=waist");
        let (status, answer) = app.post_form("/wxapp/esp32/batch_upload/", &form).await;
        assert!(status == 400 && answer["error"].is_string(), "{what}: {status} {answer}");
    }
    for bad in [
        "device_code=2025001&sensor_type=knee&data={}",
        "device_code=2025001&sensor_type=wrist&data={\"acc\":[1,\"2\",3],\"gyro\":[1,2,3],\"angle\":[1,2,3]}",
        "device_code=2025001&sensor_type=wrist&data={\"acc\":[nan,1,2],\"gyro\":[1,2,3],\"angle\":[1,2,3]}",
        "device_code=a/b&sensor_type=wrist&data={}",
        "sensor_type=wrist&data={}",
    ] {
        let (status, answer) = app.post_form("/wxapp/esp32/upload/", bad).await;
        assert!(status == 400 && answer["error"].is_string(), "{bad}: {status} {answer}");
    }
    assert_eq!(frames_of(&app, "device_code = '2025001'").await, 50, "what was refused is not stored");
    let (status, kept) =
        app.post_form("/wxapp/upload_sensor_data/", "device_code=2025001&sensor_type=waist&data=hello there").await;
    assert!(status == 200 && kept["data_id"].is_i64(), "any text is kept: {kept}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polling_device_is_led_through_a_session_that_ends_by_itself() {
    let app = TestApp::start_with(|config| {
        config.sessions.upload_timeout_s = 1;
        config.sessions.offline_timeout_s = 3600;
    })
    .await;
    let poll = |current: &'static str| app.post_form("/wxapp/esp32/poll_commands/", current);
    let (_, idle) = poll("device_code=poller&current_session=&status=idle").await;
    assert!(idle.get("command").is_none() && idle["device_code"] == "poller", "a null reboots the board: {idle}");
    let session = app.start_session("poller").await;
    let (_, start) = poll("device_code=poller&status=idle").await;
    assert_eq!((&start["command"], &start["session_id"]), (&json!("START_COLLECTION"), &json!(session.to_string())));
    let (_, other) = poll("device_code=other").await;
    assert!(other.get("command").is_none(), "somebody else's command: {other}");

    let confirm = format!("device_code=poller&status=START_COLLECTION_CONFIRMED&session_id={session}");
    let foreign = confirm.replace("=poller", "=other");
    app.post_form("/wxapp/esp32/status/", &foreign).await;
    let (_, state) = app.post_form("/wxapp/esp32/status/", "device_code=poller").await;
    assert_eq!(state["active_sessions"][0]["status"], "calibrating", "a stranger's word counts nothing: {state}");
    let (status, confirmed) = app.post_form("/wxapp/esp32/status/", &confirm).await;
    assert_eq!((status, &confirmed["active_sessions"][0]["status"]), (200, &json!("collecting")), "{confirmed}");
    let (_, again) = app.post_form("/wxapp/start_data_collection/", &format!("session_id={session}")).await;
    assert_eq!(again["communication_method"], "http_polling", "{again}");
    let (_, beat) = app
        .post_form("/wxapp/esp32/heartbeat/", &format!("device_code=poller&session_id={session}&status=collecting"))
        .await;
    assert_eq!(beat["session_id"], session.to_string());
    assert!(poll("device_code=poller&status=collecting").await.1.get("command").is_none());

    let (_, ended) = app.post_form("/wxapp/end_session/", &format!("session_id={session}")).await;
    assert_eq!(ended["status"], "stopping");
    let stopped = async {
        loop {
            let (_, answer) = poll("device_code=poller&status=collecting").await;
            if answer.get("command").is_none() {
                return;
            }
            assert_eq!(answer["command"], "STOP_COLLECTION", "on every poll while stopping");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stopped).await.expect("the session ends although the device never uploads");
    let (_, info) = app.get(&format!("/api/v2/sessions/{session}")).await;
    assert_eq!(info["session"]["status"], "stopped", "{info}");

    // A board that missed it goes on for a session that is over: it is told again, until it says that it stopped.
    let mut behind = format!("device_code=poller&current_session={session}&status=collecting");
    for _ in 0..2 {
        let (_, told) = app.post_form("/wxapp/esp32/poll_commands/", &behind).await;
        assert_eq!((&told["command"], &told["session_id"]), (&json!("STOP_COLLECTION"), &json!(session.to_string())));
    }
    behind = behind.replace("collecting", "idle");
    let (_, idle) = app.post_form("/wxapp/esp32/poll_commands/", &behind).await;
    assert!(idle.get("command").is_none(), "{idle}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_a_registered_http_server_and_udp_listeners_where_turned_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    let broadcast = udp.local_addr().unwrap().to_string();
    let app = TestApp::start_with(|config| {
        config.push.http = true;
        config.push.http_port = port;
        config.push.allow_loopback = true;
        config.push.udp_broadcast = broadcast;
    })
    .await;
    for (address, registered) in [("8.8.8.8", false), ("169.254.169.254", false), ("127.0.0.1", true)] {
        let form = format!("device_code=sketch&ip_address={address}");
        let (status, answer) = app.post_form("/wxapp/register_device_ip/", &form).await;
        assert_eq!((status, &answer["registered"]), (200, &json!(registered)), "{address}: {answer}");
    }
    assert_eq!(app.post_form("/wxapp/register_device_ip/", "device_code=sketch&ip_address=home").await.0, 400);
    let session = app.start_session("sketch").await;
    let (mut stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("a call").unwrap();
    let mut request = vec![0; 2048];
    let mut length = 0;
    while !String::from_utf8_lossy(&request[..length]).contains("device_code=") {
        length += stream.read(&mut request[length..]).await.unwrap();
    }
    let text = String::from_utf8_lossy(&request[..length]).into_owned();
    assert!(text.starts_with("POST /start_collection HTTP/1.1"), "{text}");
    assert!(text.ends_with(&format!("session_id={session}&device_code=sketch")), "{text}");
    stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
    drop(stream);
    // Somebody says that all is there while the sketch still records: it is told to stop by the same way.
    app.post_form("/wxapp/mark_complete/", &format!("session_id={session}")).await;
    let (mut stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("a call").unwrap();
    let length = stream.read(&mut request).await.unwrap();
    let text = String::from_utf8_lossy(&request[..length]).into_owned();
    assert!(text.starts_with("POST /stop_collection HTTP/1.1"), "{text}");
    drop(stream);

    let datagram = tokio::task::spawn_blocking(move || {
        let mut bytes = [0; 512];
        let length = udp.recv(&mut bytes).unwrap();
        (length, serde_json::from_slice::<Value>(&bytes[..length]).unwrap())
    });
    let (length, datagram) = datagram.await.unwrap();
    assert!(length < 255);
    assert_eq!((&datagram["command"], &datagram["device_code"]), (&json!("START_COLLECTION"), &json!("sketch")));
    assert_eq!(datagram["session_id"], session.to_string());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_go_to_one_device_and_say_what_they_reached() {
    let app = TestApp::start().await;
    let mut device = app.socket("/ws/esp32/2025001/").await;
    let mut bystander = app.socket("/ws/esp32/2025002/").await;
    device.next_of("connection_established").await;
    bystander.next_of("connection_established").await;
    let session = app.start_session("2025001").await;
    assert_eq!(device.next_of("start_collection").await["session_id"], session.to_string());
    // Without a device: the session's, never everybody's.
    for route in ["notify_esp32_start", "notify_device_start", "start_data_collection"] {
        let (status, answer) = app.post_form(&format!("/wxapp/{route}/"), &format!("session_id={session}")).await;
        assert_eq!((status, &answer["device_code"]), (200, &json!("2025001")), "{route}: {answer}");
        device.next_of("start_collection").await;
    }
    let (_, sent) =
        app.post_form("/wxapp/websocket/send_command/", "command_type=TEST&device_code=2025001&message=hello").await;
    assert_eq!((&sent["reached_devices"], &sent["command_type"]), (&json!(1), &json!("TEST")));
    assert_eq!(device.next_of("test_message").await["message"], "hello");
    let (_, away) = app.post_form("/wxapp/test_udp_broadcast/", "device_code=not-there&message=hello").await;
    assert_eq!(away["reached_devices"], 0, "it says so when nobody heard: {away}");
    let (_, status) = app.get("/wxapp/websocket/status/").await;
    assert_eq!(status["connected_devices"]["devices"], json!(["2025001", "2025002"]));
    let (_, known) = app.post_form("/wxapp/get_device_status/", "device_code=2025001").await;
    assert_eq!((&known["communication_method"], &known["status"]), (&json!("websocket"), &json!("collecting")));
    let (status, stopped) = app.post_form("/wxapp/notify_esp32_stop/", "device_code=2025001").await;
    assert_eq!((status, &stopped["session_id"]), (200, &json!(session)));
    device.next_of("stop_collection").await;
    // It is asked once what it is doing, when it connects, and hears nothing else.
    bystander.next_of("get_status").await;
    assert!(bystander.is_silent_for(Duration::from_millis(200)).await, "somebody else's command");
    let (status, idle) = app.post_form("/wxapp/notify_device_stop/", "device_code=2025002").await;
    assert_eq!((status, idle["code"].as_str()), (404, Some("device_idle")));
    let (status, data) = app.post_form("/wxapp/send_data2/", "type=2&content=a text").await;
    assert!(status == 200 && data["data_id"].is_i64(), "{data}");
    assert_eq!(app.post_form("/wxapp/send_data2/", "type=1&content=a text").await.0, 400);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_to_a_full_recording_go_on_in_the_next_one() {
    let app = TestApp::start_with(|config| config.ingest.session_limit_frames = 3).await;
    let session = app.start_session("2025001").await;
    let mut stored = Vec::new();
    for step in 0..8 {
        for (device, claimed) in [("2025001", session.to_string()), ("sketch", "7777".to_owned())] {
            let answer = upload(&app, device, &claimed, step).await;
            stored.push((device, answer["stored_in_session"].as_i64().unwrap()));
        }
    }
    for device in ["2025001", "sketch"] {
        assert_eq!(frames_of(&app, &format!("device_code = '{device}'")).await, 8);
        let mut places: Vec<i64> = stored.iter().filter(|(of, _)| *of == device).map(|(_, place)| *place).collect();
        places.dedup();
        assert_eq!(places.len(), 3, "three frames each: {places:?}");
    }
    // The full collections end by themselves.
    let full = stored.iter().find(|(device, _)| *device == "sketch").unwrap().1;
    let ended = async {
        while matches!(status_of(&app, &json!(full)).await.as_str(), "collecting" | "stopping") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the full collection ends");
    app.stop().await;
}
