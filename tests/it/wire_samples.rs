//! Every sample message of the clients, replayed against the real service: the answer has an accepted type, there is
//! exactly one (or none), and it carries the fields that the legacy answers have.
//!
//! A line of `tests/fixtures/wire-samples.jsonl` is one message: `dir` says from whom to whom, `message` (or `raw`) what,
//! `expect` which types of answer are right. Session 1015 of the samples is replaced by a session of the test.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::{Socket, TestApp};

const DEVICE: &str = "2025001";
/// The session that the samples speak of.
const SAMPLE_SESSION: &str = "1015";

fn samples() -> Vec<Value> {
    let text = include_str!("../fixtures/wire-samples.jsonl");
    let samples: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a sample is JSON")).collect();
    assert!(samples.len() > 100, "the samples are there");
    samples
}

fn text<'a>(sample: &'a Value, key: &str) -> &'a str {
    sample[key].as_str().unwrap_or_default()
}

fn is_socket(sample: &Value) -> bool {
    sample.get("transport").is_none()
}

/// The kind of client an endpoint serves.
fn endpoint(sample: &Value) -> &'static str {
    match text(sample, "endpoint") {
        path if path.starts_with("/ws/esp32/") => "device",
        path if path.starts_with("/ws/miniprogram/") => "user",
        path if path.starts_with("/ws/admin/") => "admin",
        "/" => "root",
        other => panic!("unknown endpoint {other}"),
    }
}

/// The fields that all samples of a type of answer have, by endpoint and type: what a client may rely on.
fn legacy_fields(samples: &[Value]) -> BTreeMap<(&'static str, String), BTreeSet<String>> {
    let mut fields: BTreeMap<(&'static str, String), BTreeSet<String>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| is_socket(sample) && text(sample, "dir").starts_with("server->")) {
        let Some(members) = sample["message"].as_object() else { continue };
        let names: BTreeSet<String> = members.keys().cloned().collect();
        fields
            .entry((endpoint(sample), text(&sample["message"], "type").to_owned()))
            .and_modify(|known| *known = known.intersection(&names).cloned().collect())
            .or_insert(names);
    }
    fields
}

/// What a sample sends, with the session of the test.
fn frame_of(sample: &Value, session: i64) -> String {
    if let Some(raw) = sample["raw"].as_str() {
        return raw.to_owned();
    }
    let mut message = sample["message"].clone();
    let names_sample = message["session_id"] == SAMPLE_SESSION || message["session_id"] == 1015;
    if names_sample {
        message["session_id"] =
            if message["session_id"].is_string() { json!(session.to_string()) } else { json!(session) };
    }
    message.to_string()
}

/// The next message that is no command of the server's own.
async fn next_answer(socket: &mut Socket) -> Value {
    loop {
        let message = socket.next().await.expect("the socket stays open");
        let kind = text(&message, "type");
        if !["start_collection", "stop_collection", "get_status", "system_event", "system_notification"].contains(&kind)
        {
            return message;
        }
    }
}

/// A message whose answer is known, to tell that nothing else came before it.
fn marker(endpoint: &str) -> (Value, &'static str) {
    match endpoint {
        "device" => (json!({"type":"heartbeat"}), "heartbeat_response"),
        "user" => (json!({"type":"session_status","session_id":"marker"}), "session_status_response"),
        "admin" => (json!({"type":"get_device_list"}), "device_list"),
        _ => (json!("marker"), "usage_guide"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_samples_get_the_expected_answers() {
    let app = TestApp::start().await;
    let samples = samples();
    let fields = legacy_fields(&samples);
    let check = |sample: &Value, answer: &Value| {
        let accepted: Vec<&str> = sample["expect"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let name = text(sample, "name");
        let kind = text(answer, "type");
        assert!(accepted.contains(&kind), "{name}: {answer} is none of {accepted:?}");
        let expected = fields.get(&(endpoint(sample), kind.to_owned())).unwrap_or_else(|| panic!("{name}: no {kind}"));
        for field in expected {
            assert!(answer.get(field).is_some(), "{name}: no field {field} in {answer}");
        }
        let failed = kind == "error" || answer["success"] == false;
        let reason = if endpoint(sample) == "root" { "message" } else { "error" };
        if failed {
            assert!(answer[reason].as_str().is_some_and(|reason| !reason.is_empty()), "{name}: no reason in {answer}");
        }
    };

    let session = app.start_session(DEVICE).await;
    let mut replayed = 0;
    for sample in samples.iter().filter(|sample| is_socket(sample) && sample["expect"].is_array()) {
        let name = text(sample, "name");
        let mut socket = app.socket(text(sample, "endpoint")).await;
        let greeting = socket.next().await.expect("a greeting");
        let hello = if endpoint(sample) == "root" { "welcome" } else { "connection_established" };
        assert_eq!(greeting["type"], hello);
        for field in &fields[&(endpoint(sample), hello.to_owned())] {
            assert!(greeting.get(field).is_some(), "greeting of {name}: no field {field} in {greeting}");
        }

        socket.send_text(&frame_of(sample, session)).await;
        let (marker, marked) = marker(endpoint(sample));
        socket.send(&marker).await;
        if sample["expect"].as_array().is_some_and(|expect| !expect.is_empty()) {
            check(sample, &next_answer(&mut socket).await);
        }
        let next = next_answer(&mut socket).await;
        assert_eq!(next["type"], marked, "{name}: one answer too many: {next}");
        socket.close().await;
        replayed += 1;
    }
    assert!(replayed > 40, "only {replayed} samples were replayed");
    app.stop().await;
}

/// The whole session of a V3.3 device, in order on one socket, answered as the samples show it.
#[tokio::test(flavor = "multi_thread")]
async fn the_v33_session_runs_through() {
    let app = TestApp::start().await;
    let mut device = app.socket(&format!("/ws/esp32/{DEVICE}/")).await;
    assert_eq!(device.next().await.unwrap()["type"], "connection_established");
    let session = app.start_session(DEVICE).await;

    let mut scenario: Vec<Value> = samples().into_iter().filter(|sample| sample["scenario"] == "v33-session").collect();
    scenario.sort_by_key(|sample| sample["seq"].as_i64());
    assert!(scenario.len() >= 14);
    let mut commands: BTreeMap<String, Value> = BTreeMap::new();
    for sample in &scenario {
        let name = text(sample, "name");
        let kind = text(&sample["message"], "type");
        if text(sample, "dir") == "server->device" {
            match kind {
                "start_collection" => {
                    let command = device.next_of(kind).await;
                    assert_eq!(command["session_id"], session.to_string());
                    assert_eq!(command["device_code"], DEVICE);
                    for field in sample["message"].as_object().unwrap().keys() {
                        assert!(command.get(field).is_some(), "{name}: no {field} in {command}");
                    }
                    commands.insert(kind.to_owned(), command);
                }
                "stop_collection" => {
                    let (status, ended) = app.post_form("/wxapp/end_session/", &format!("session_id={session}")).await;
                    assert_eq!((status, &ended["status"]), (200, &json!("stopping")));
                    commands.insert(kind.to_owned(), device.next_of(kind).await);
                }
                // The greeting is taken, get_status depends on what was known before, answers are read below.
                _ => {}
            }
            continue;
        }
        let mut message: Value = serde_json::from_str(&frame_of(sample, session)).unwrap();
        let command = match name {
            "ack-start" => commands.get("start_collection"),
            "ack-stop" => commands.get("stop_collection"),
            _ => None,
        };
        if let Some(command) = command {
            message["command_id"] = command["command_id"].clone();
        }
        device.send(&message).await;
        match kind {
            "batch_sensor_data" => {
                let answer = device.next_of("batch_sensor_data_response").await;
                assert_eq!(
                    answer,
                    json!({"type":"batch_sensor_data_response","success":true,"total_items":30,
                        "successful_items":30,"failed_items":0}),
                    "{name}"
                );
            }
            "upload_complete" => {
                let answer = device.next_of("upload_complete_response").await;
                assert_eq!(
                    (&answer["session_id"], &answer["status"]),
                    (&json!(session.to_string()), &json!("analyzing"))
                );
            }
            _ => {}
        }
    }
    app.stop().await;
}

/// Every HTTP sample that a client sends, under both prefixes, with and without slash.
#[tokio::test(flavor = "multi_thread")]
async fn http_samples_get_the_expected_answers() {
    let app = TestApp::start().await;
    let samples = samples();
    let mut session = app.start_session(DEVICE).await;
    // The answer that a sample shows for another: by its name.
    let shown = |name: &str| {
        let answer = match name {
            "http-poll-idle" => "http-poll-none".to_owned(),
            // Nothing is recorded here: the answer is the error's.
            "http-get-analysis-by-post" => "http-get-analysis-missing".to_owned(),
            name => format!("{name}-ok"),
        };
        samples.iter().find(move |sample| text(sample, "name") == answer)
    };
    let mut replayed = 0;
    for sample in samples.iter().filter(|sample| text(sample, "transport") == "http") {
        if !text(sample, "dir").ends_with("->server") {
            continue;
        }
        let (name, body) = (text(sample, "name"), text(sample, "body").replace(SAMPLE_SESSION, &session.to_string()));
        let endpoint = text(sample, "endpoint").replace(SAMPLE_SESSION, &session.to_string());
        let (path, query) = endpoint
            .split_once('?')
            .map_or((endpoint.as_str(), String::new()), |(path, query)| (path, format!("?{query}")));
        let route = path.trim_start_matches("/wxapp/").trim_end_matches('/');
        for prefix in ["/wxapp/", "/api/"] {
            for slash in ["/", ""] {
                let target = format!("{prefix}{route}{slash}{query}");
                let (status, answer) =
                    app.request(text(sample, "method"), &target, text(sample, "content_type"), &body).await;
                let expected = match name {
                    // A sample before it uploaded frames, which the device's session took if it was still live. Else
                    // neither frames nor a result are there, and nobody uploaded under 123.
                    "http-sensor-peaks" if status == 200 => 200,
                    "http-get-analysis-by-post" | "http-sensor-peaks" | "http-mark-complete" => 404,
                    _ => sample["expect_status"].as_u64().unwrap_or(200),
                };
                assert_eq!(u64::from(status), expected, "{name} at {target}: {answer}");
                // A poll shows its idle answer only while nothing is to be done.
                let is_commanded = answer.get("command").is_some() && name == "http-poll-idle";
                // Peaks are there for the sensors that recorded: one here, three in the sample.
                let is_partial = is_commanded || name == "http-sensor-peaks";
                let shown = shown(name).filter(|shown| shown["status"] == expected && !is_partial);
                for field in
                    shown.and_then(|shown| shown["message"].as_object()).into_iter().flat_map(|message| message.keys())
                {
                    assert!(answer.get(field).is_some(), "{name}: no {field} in {answer}");
                }
                if expected == 400 || expected == 404 {
                    assert!(answer["error"].is_string(), "{name}: {answer}");
                }
                match name {
                    "http-start-session" => session = answer["session_id"].as_i64().expect("session_id is a number"),
                    "http-upload-raw-json" => assert_eq!(answer["msg"], "ESP32 data upload success"),
                    "http-poll-idle" => assert!(answer.get("command").is_none_or(Value::is_string)),
                    _ => {}
                }
            }
        }
        replayed += 1;
    }
    assert!(replayed >= 18, "only {replayed} samples were replayed");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_may_come_as_the_clients_send_them() {
    let app = TestApp::start().await;
    let started = |(status, answer): (u16, Value)| {
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["status"], "calibrating");
        answer["session_id"].as_i64().expect("a number")
    };
    let form = "openid=test_user_123456&device_group_code=2025001";
    let first = started(app.post_form("/wxapp/start_session/", form).await);
    let json = json!({"openid":"test_user_123456","device_group_code":"2025001"});
    started(app.post_json("/api/start_session", &json).await);
    started(app.request("POST", "/api/start_session/", "application/x-www-form-urlencoded", &json.to_string()).await);
    started(app.request("POST", &format!("/wxapp/start_session/?{form}"), "", "").await);
    let part =
        |name: &str, value: &str| format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let multipart = part("openid", "test_user_123456") + &part("device_group_code", "2025001") + "--b--\r\n";
    let last =
        started(app.request("POST", "/wxapp/start_session/", "multipart/form-data; boundary=b", &multipart).await);

    // A new start ended the first session; ending it again is no failure, or the mini-program would be stuck.
    let (status, answer) = app.post_json("/wxapp/end_session/", &json!({ "session_id": first })).await;
    assert_eq!((status, &answer["session_id"], &answer["status"]), (200, &json!(first), &json!("stopped")));
    for _ in 0..2 {
        let (status, answer) = app.post_form("/wxapp/end_session/", &format!("session_id={last}")).await;
        assert_eq!((status, &answer["status"]), (200, &json!("stopping")), "{answer}");
    }

    // Whom it does not belong to does not see it.
    let stranger = format!("session_id={last}&openid=somebody-else");
    for route in ["end_session", "get_analysis", "start_data_collection"] {
        let (status, answer) = app.post_form(&format!("/wxapp/{route}/"), &stranger).await;
        assert_eq!((status, &answer["code"]), (404, &json!("session_not_found")), "{route}");
    }
    let (status, latest) = app.get("/api/get_latest_session/?openid=test_user_123456").await;
    assert_eq!((status, &latest["session"]["id"]), (200, &json!(last)));
    assert!(latest["session"]["wx_user_id"].is_string());
    assert_eq!(app.get("/api/get_latest_session/?openid=somebody-else").await.0, 404);

    let wrong = [
        ("POST", "/wxapp/start_session/", "openid=a", 400),
        ("POST", "/wxapp/start_session/", "device_group_code=2025001", 400),
        ("POST", "/wxapp/start_session/", "openid=a&device_group_code=a/b", 400),
        ("POST", "/wxapp/start_session/", "openid=a%00b&device_group_code=x", 400),
        ("POST", "/wxapp/end_session/", "", 400),
        ("POST", "/wxapp/end_session/", "session_id=041025", 404),
        ("POST", "/wxapp/end_session/", "session_id=99999", 404),
        ("POST", "/wxapp/start_data_collection/", "session_id=99999", 404),
        ("POST", "/wxapp/get_analysis/", "", 400),
        ("POST", "/wxapp/bind_device/", "openid=a", 400),
        ("GET", "/wxapp/get_analysis/?session_id=99999", "", 404),
        ("GET", "/wxapp/simple_login/", "", 405),
        ("PUT", "/wxapp/start_session/", "", 405),
        ("POST", "/wxapp/no_such_route/", "", 404),
    ];
    for (method, path, body, expected) in wrong {
        let (status, answer) = app.request(method, path, "application/x-www-form-urlencoded", body).await;
        assert_eq!(status, expected, "{method} {path} {body}: {answer}");
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()), "{method} {path}: {answer}");
    }
    for help in ["start_session", "start_data_collection", "end_session"] {
        let (status, answer) = app.get(&format!("/wxapp/{help}/")).await;
        assert_eq!(status, 200);
        assert!(answer["required"].is_object());
    }
    assert_eq!(app.get("/health/live").await.0, 200);
    assert_eq!(app.get("/health/ready").await.0, 200);
    app.stop().await;
}
