//! The commands that ask a running server, or its folder beside it.

use std::process::Output;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::TestApp;
use volant::gateway::Auth;

const DEVICE: &str = "2025001";

pub async fn volant(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volant"));
    command.args(arguments).env_remove("VOLANT_URL").env_remove("VOLANT_TOKEN").env_remove("VOLANT_DATA_DIR");
    command.output().await.expect("run the command")
}

pub async fn ask(arguments: &[&str]) -> Value {
    let output = volant(arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stdout)))
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_devices_are_listed_and_commanded_from_the_command_line() {
    let app = TestApp::start().await;
    let url = format!("http://{}", app.address());
    let folder = app.data_dir().display().to_string();
    let mut device = app.socket(&format!("/ws/esp32/{DEVICE}/")).await;
    device.next_of("connection_established").await;
    let first = app.start_session(DEVICE).await;
    device.next_of("start_collection").await;

    let listed = ask(&["sessions", "--url", &url, "--json"]).await;
    assert_eq!(listed["sessions"][0]["session_id"], first, "{listed}");
    let user = listed["sessions"][0]["user_id"].as_i64().unwrap().to_string();
    let started = ask(&["sessions", "start", "--device", "d2", "--user", &user, "--url", &url, "--json"]).await;
    let second = started["session"]["session_id"].as_i64().unwrap();
    assert_eq!((&started["session"]["device_code"], &started["command"]), (&json!("d2"), &json!("not_connected")));
    let of_device =
        ask(&["sessions", "list", "--device", "d2", "--status", "calibrating", "--url", &url, "--json"]).await;
    assert_eq!(of_device["sessions"].as_array().map(Vec::len), Some(1), "{of_device}");
    let stopped = ask(&["sessions", "stop", &second.to_string(), "--url", &url, "--json"]).await;
    assert_eq!(stopped["session"]["status"], "stopping");
    let completed = ask(&["sessions", "complete", &second.to_string(), "--url", &url, "--json"]).await;
    assert_eq!(completed["session"]["status"], "stopped", "it has no frames: {completed}");

    // The folder beside the server says the same.
    let beside = ask(&["sessions", "show", &second.to_string(), "--data-dir", &folder, "--json"]).await;
    assert_eq!(beside["session"], completed["session"]);

    let text = volant(&["devices", "--url", &url]).await;
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.lines().any(|line| line.starts_with(DEVICE) && line.contains('Z')), "{text}");
    let shown = ask(&["devices", "show", DEVICE, "--url", &url, "--json"]).await;
    assert_eq!(shown["session"]["session_id"], first, "{shown}");
    let sent = ask(&["devices", "test", DEVICE, "hello", "--url", &url]).await;
    assert_eq!(sent["command"], "queued");
    assert_eq!(device.next_of("test_message").await["message"], "hello");
    let stopped = ask(&["devices", "stop", DEVICE, "--url", &url]).await;
    assert_eq!(stopped["session"]["session_id"], first);
    let beside = ask(&["devices", "--data-dir", &folder, "--json"]).await;
    assert!(beside["devices"].as_array().unwrap().iter().any(|device| device["device_code"] == DEVICE), "{beside}");

    // A session without frames has that wrong with it; a recording file is looked at like a session.
    let looked = volant(&["doctor", &second.to_string(), "--url", &url, "--json"]).await;
    let found: Value = serde_json::from_slice(&looked.stdout).unwrap();
    assert_eq!((looked.status.code(), &found["findings"][0]["code"]), (Some(3), &json!("no_data")), "{found}");
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/data/demo-session.parquet");
    let looked = volant(&["doctor", demo]).await;
    let text = String::from_utf8(looked.stdout).unwrap();
    assert!(matches!(looked.status.code(), Some(0 | 3)) && !text.is_empty(), "{text}");

    for (wrong, says) in [
        (vec!["sessions", "show", "999", "--url", &url], "404"),
        (vec!["doctor", "999", "--url", &url], "404"),
        (vec!["doctor", "999", "--data-dir", &folder], "no session 999"),
        (vec!["doctor", "absent.csv"], "absent.csv"),
        (vec!["sessions", "show", "999", "--data-dir", &folder], "no session 999"),
        (vec!["sessions", "stop", "1", "--data-dir", &folder], "--url"),
        (vec!["devices", "--url", "http://127.0.0.1:1"], "is the server running?"),
    ] {
        let output = volant(&wrong).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(1) && error.contains(says) && error.lines().count() == 1,
            "{wrong:?}: {error}"
        );
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_tokens_is_asked_with_one() {
    let app = TestApp::start_with(|config| config.auth = Auth::Token).await;
    let url = format!("http://{}", app.address());
    let folder = app.data_dir().display().to_string();
    let key =
        ask(&["tokens", "create", "--key", "--scope", "sql,sessions:read", "--data-dir", &folder, "--json"]).await;
    let token = key["token"].as_str().unwrap();
    let refused = volant(&["sessions", "--url", &url]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(ask(&["sessions", "--url", &url, "--token", token, "--json"]).await["sessions"], json!([]));

    let sql = ["sql", "SELECT 1 AS one", "--format", "json", "--url", &url];
    let refused = volant(&sql).await;
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(4) && error.contains("--token"), "{error}");
    assert_eq!(ask(&[&sql[..], &["--token", token]].concat()).await, json!([{ "one": 1 }]));
    app.stop().await;
}

/// `volant analyze … | head` is no failure, and says nothing of one.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_closes_the_pipe_has_what_they_wanted() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("made.parquet").display().to_string();
    let made = volant(&["simulate", "--write", &file, "--duration", "20"]).await;
    assert!(made.status.success());
    for arguments in [&["analyze", &file, "--json"][..], &["analyze", &file]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volant"));
        command.args(arguments).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut running = command.spawn().unwrap();
        drop(running.stdout.take());
        let ended = running.wait_with_output().await.unwrap();
        assert!(ended.status.success() && ended.stderr.is_empty(), "{arguments:?}: {ended:?}");
    }
}
