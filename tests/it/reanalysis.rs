//! Old sessions by another pipeline: side by side, compared, published, and on after a restart.

use std::time::Duration;

use pipelines::synth::{Plan, PlannedStroke, SynthSpec, generate};
use schemas::{StrokeKind, Track};
use serde_json::{Value, json};

use crate::commands::ask;
use crate::packets::packets_of;
use crate::support::{PATIENCE, TestApp};

const BUILTIN: &str = "volant-default-1";

/// A recorded and analysed session.
pub async fn recorded(app: &TestApp, device_code: &str, seed: u64) -> i64 {
    let spec = SynthSpec { duration_s: 12.0, ..SynthSpec::new(seed) };
    recorded_as(app, device_code, &generate(&spec).track).await
}

pub async fn recorded_as(app: &TestApp, device_code: &str, track: &Track) -> i64 {
    let session = app.start_session(device_code).await;
    let mut device = app.socket(&format!("/ws/esp32/{device_code}/")).await;
    for packet in packets_of(track, &session.to_string(), device_code) {
        device.send(&packet).await;
        assert_eq!(device.next_of("batch_sensor_data_response").await["success"], true);
    }
    app.request("POST", &format!("/api/v2/sessions/{session}/complete"), "", "").await;
    eventually(async || app.get(&format!("/api/v2/sessions/{session}/result")).await.0 == 200).await;
    session
}

pub async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it comes to hold");
}

fn write_pipeline(app: &TestApp, name: &str, rest: &str) {
    let folder = app.data_dir().join("pipelines");
    std::fs::create_dir_all(&folder).unwrap();
    let text = format!("name = \"{name}\"\nextends = \"{BUILTIN}\"\n{rest}");
    std::fs::write(folder.join(format!("{name}.toml")), text).unwrap();
}

async fn candidates(app: &TestApp, pipeline: &str) -> Value {
    app.get(&format!("/api/v2/pipelines/{pipeline}/analyses")).await.1
}

async fn ordered(app: &TestApp, pipeline: &str, order: &Value) -> i64 {
    let (status, answer) = app.post_json(&format!("/api/v2/pipelines/{pipeline}/analyses"), order).await;
    assert_eq!(status, 202, "{answer}");
    eventually(async || {
        let states = candidates(app, pipeline).await["states"].clone();
        states["queued"].is_null() && states["running"].is_null()
    })
    .await;
    answer["sessions"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_pipeline_stands_beside_the_published_results_until_it_is_published() {
    let app = TestApp::start().await;
    let first = recorded(&app, "d1", 4).await;
    let second = recorded(&app, "d2", 5).await;
    let result = async |session: i64| app.get(&format!("/api/v2/sessions/{session}/result")).await.1;
    let before = result(first).await;
    let swings = before["analysis"]["strokes"].as_array().unwrap().len();
    assert!(swings > 1, "{swings}");

    write_pipeline(&app, "deaf", "model = \"none\"\n[segment]\nfloor = 20.0\nceiling = 20.0\n");
    write_pipeline(&app, "same", "");
    write_pipeline(&app, "broken", "[segment]\nflor = 1.0\n");
    let (_, known) = app.get("/api/v2/pipelines").await;
    let names: Vec<&str> =
        known["pipelines"].as_array().unwrap().iter().map(|known| known["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["deaf", "same", BUILTIN]);
    assert_eq!(known["refused"][0]["file"], "broken.toml");
    assert!(known["refused"][0]["problem"].as_str().unwrap().contains("flor"), "{known}");
    assert_eq!(app.post_json("/api/v2/pipelines/broken/analyses", &json!({})).await.0, 404);

    // Nothing that is published changes by an order, and an order is done once.
    assert_eq!(ordered(&app, "deaf", &json!({})).await, 2);
    assert_eq!(ordered(&app, "deaf", &json!({})).await, 0);
    assert_eq!(ordered(&app, "same", &json!({ "session_ids": [first] })).await, 1);
    assert_eq!(result(first).await, before);
    let deaf = candidates(&app, "deaf").await;
    let row = &deaf["candidates"][0];
    assert_eq!(
        (&row["session_id"], &row["published_strokes"], &row["strokes"]),
        (&json!(first), &json!(swings), &json!(0))
    );
    let (_, own) = app.get(&format!("/api/v2/sessions/{first}/analyses")).await;
    assert_eq!(own["candidates"].as_array().map(Vec::len), Some(2));
    let same = &own["candidates"][1];
    assert_eq!((&same["common_strokes"], &same["renamed_strokes"]), (&json!(swings), &json!(0)), "{same}");

    // The same computation gives the same answer, to the last bit, whoever ordered it.
    let (_, again) = app.get(&format!("/api/v2/sessions/{first}/analyses/same")).await;
    assert_eq!(again["analysis"]["strokes"], before["analysis"]["strokes"]);
    assert_eq!(again["analysis"]["session"], before["analysis"]["session"]);

    // Published, for one session: results, SQL and report show it; nobody hears of it, the other session stays.
    let notices = app.get("/api/v2/notifications?user_id=1").await.1["notifications"].as_array().map(Vec::len);
    let publish = format!("/api/v2/sessions/{first}/analyses/deaf/publish");
    assert_eq!(app.request("POST", &publish, "", "").await, (202, json!({ "sessions": 1 })));
    eventually(async || result(first).await["analysis"]["strokes"] == json!([])).await;
    let after = result(first).await;
    assert_eq!((&after["analysis_id"], &after["revision"]), (&before["analysis_id"], &before["revision"]));
    let strokes = format!("SELECT count(*) FROM strokes WHERE session_id = {first}");
    assert_eq!(app.sql_count(&strokes).await, 0);
    assert!(app.sql_count(&format!("SELECT count(*) FROM strokes WHERE session_id = {second}")).await > 0);
    let named = app.sql(&format!("SELECT pipeline FROM results WHERE session_id = {first}")).await;
    assert!(named[0]["pipeline"].as_str().unwrap().starts_with("deaf "), "{named:?}");
    let told = app.get("/api/v2/notifications?user_id=1").await.1["notifications"].as_array().map(Vec::len);
    assert_eq!(told, notices);

    // And back.
    app.request("POST", &format!("/api/v2/sessions/{first}/analyses/same/publish"), "", "").await;
    eventually(async || result(first).await["analysis"]["strokes"] == before["analysis"]["strokes"]).await;
    assert_eq!(app.sql_count(&strokes).await, swings as i64);
    let (_, own) = app.get(&format!("/api/v2/sessions/{first}/analyses")).await;
    assert!(own["candidates"][0]["published_at_us"].is_null() && own["candidates"][1]["published_at_us"].is_i64());

    // A pipeline that was edited does its sessions again when they are ordered again.
    write_pipeline(&app, "deaf", "model = \"none\"\n[segment]\nfloor = 19.0\nceiling = 20.0\n");
    assert_eq!(ordered(&app, "deaf", &json!({ "device_code": "d2" })).await, 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_survive_a_restart_and_are_carried_out_from_the_command_line() {
    let app = TestApp::start().await;
    let mut sessions = Vec::new();
    for number in 0..3 {
        sessions.push(recorded(&app, &format!("d{number}"), 10 + number).await);
    }
    write_pipeline(&app, "wrist-only", "sensors = [\"wrist\"]\n");
    let (status, answer) = app.post_json("/api/v2/pipelines/wrist-only/analyses", &json!({})).await;
    assert_eq!((status, &answer["sessions"]), (202, &json!(3)));
    let app = TestApp::start_in(app.stop().await, |_| {}).await;
    eventually(async || candidates(&app, "wrist-only").await["states"] == json!({ "done": 3 })).await;

    let url = app.url();
    let listed = ask(&["reanalyze", "--url", &url, "--json"]).await;
    assert_eq!(listed["pipelines"].as_array().map(Vec::len), Some(2), "{listed}");
    let done = ask(&["reanalyze", "wrist-only", "--publish", "--url", &url, "--json"]).await;
    assert_eq!((&done["ordered"], &done["published"], &done["failed"]), (&json!(0), &json!(3), &json!(0)), "{done}");
    for session in sessions {
        let (_, result) = app.get(&format!("/api/v2/sessions/{session}/result")).await;
        let sensors = result["analysis"]["session"]["sensors"].as_object().unwrap();
        assert_eq!(sensors.keys().collect::<Vec<_>>(), ["wrist"]);
    }
    app.stop().await;

    // A service may use a pipeline of its own for new sessions, and does not start with one that is not there.
    let folder = tempfile::tempdir().unwrap();
    let app = TestApp::start_in(folder, |_| {}).await;
    write_pipeline(&app, "mine", "[kinetics]\nracket_radius_m = 0.6\n");
    let app = TestApp::start_in(app.stop().await, |config| "mine".clone_into(&mut config.analysis.pipeline)).await;
    let session = recorded(&app, "d1", 4).await;
    let (_, result) = app.get(&format!("/api/v2/sessions/{session}/result")).await;
    assert_eq!(result["analysis"]["provenance"]["name"], "mine");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_compared_with_the_players_own_earlier_strokes() {
    let app = TestApp::start().await;
    let percentiles = |result: &Value| -> Vec<String> {
        let metrics = result["analysis"]["session"]["metrics"].as_object().unwrap();
        metrics.keys().filter(|name| name.ends_with("_percentile_median")).cloned().collect()
    };
    let mut last = Value::Null;
    // The same eight smashes again and again: after three sessions twenty of a kind are there.
    let strokes = (1..=8).map(|number| PlannedStroke::new(f64::from(number) * 1.6, StrokeKind::Smash)).collect();
    let drill = SynthSpec { duration_s: 15.0, plan: Plan::Strokes(strokes), ..SynthSpec::new(4) };
    let track = generate(&drill).track;
    for round in 0..5 {
        let session = recorded_as(&app, "d1", &track).await;
        last = app.get(&format!("/api/v2/sessions/{session}/result")).await.1;
        assert!(round > 0 || percentiles(&last).is_empty(), "nothing to compare with: {last}");
    }
    let names = percentiles(&last);
    assert!(names.iter().any(|name| name == "peak_gyro_dps_percentile_median"), "{names:?}");
    let middle = last["analysis"]["session"]["metrics"]["peak_gyro_dps_percentile_median"].as_f64().unwrap();
    assert!((1.0..99.0).contains(&middle), "{middle}");

    // What it was compared with is kept in short. Without that, or if it is of another analysis, the answer is the same and it is kept anew.
    let place = format!("sqlite://{}/catalog.sqlite", app.data_dir().display());
    let catalog = sqlx::SqlitePool::connect(&place).await.unwrap();
    let kept = async || {
        let kept = "SELECT session_id, analysed_at_us, figures FROM stroke_figures ORDER BY 1";
        sqlx::query_as::<_, (i64, i64, String)>(kept).fetch_all(&catalog).await.unwrap()
    };
    eventually(async || kept().await.len() == 4).await;
    let before = kept().await;
    assert!(before.iter().all(|(.., figures)| figures.len() < last.to_string().len() / 4), "{before:?}");
    for spoil in ["DELETE FROM stroke_figures", "UPDATE stroke_figures SET analysed_at_us = 1, figures = '{}'"] {
        sqlx::query(spoil).execute(&catalog).await.unwrap();
        sqlx::query("DELETE FROM candidates").execute(&catalog).await.unwrap();
        assert_eq!(ordered(&app, BUILTIN, &json!({ "session_ids": [5] })).await, 1);
        let (_, again) = app.get(&format!("/api/v2/sessions/5/analyses/{BUILTIN}")).await;
        assert_eq!(again["analysis"], last["analysis"], "{spoil}");
        eventually(async || kept().await == before).await;
    }
    catalog.close().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_labelled_swings_make_a_model_of_the_players_own() {
    let app = TestApp::start().await;
    let strokes = (1..=6).map(|number| PlannedStroke::new(f64::from(number) * 1.6, StrokeKind::Smash)).collect();
    let drill = SynthSpec { duration_s: 12.0, plan: Plan::Strokes(strokes), ..SynthSpec::new(4) };
    let track = generate(&drill).track;
    let first = recorded_as(&app, "d1", &track).await;
    let (_, result) = app.get(&format!("/api/v2/sessions/{first}/result")).await;
    let found = result["analysis"]["strokes"].as_array().unwrap();
    assert!(found.len() >= 5, "{found:?}");
    // This player calls it a lift, and the player is right.
    let label = |stroke: &Value| json!({ "session_id": first, "impact_ms": stroke["impact_ms"], "stroke": "lift" });
    let labels: Vec<Value> = found.iter().take(4).map(label).collect();
    let user = app.get(&format!("/api/v2/sessions/{first}")).await.1["session"]["user_id"].as_i64().unwrap();
    let path = format!("/api/v2/players/{user}/calibration");
    let (status, made) = app.post_json(&path, &json!({ "labels": labels })).await;
    assert_eq!((status, &made["swings"]), (201, &json!({ "lift": 4 })), "{made}");
    let own = made["pipeline"].as_str().unwrap();

    let second = recorded_as(&app, "d1", &track).await;
    let (_, result) = app.get(&format!("/api/v2/sessions/{second}/result")).await;
    assert_eq!(result["analysis"]["provenance"]["name"], own);
    assert_eq!(result["analysis"]["provenance"]["model_sha256"], made["model_sha256"]);
    let counts = &result["analysis"]["session"]["stroke_counts"];
    let count = |name: &str| counts[name].as_i64().unwrap_or_default();
    assert!(count("lift") >= 3 && count("lift") > count("smash"), "{counts}");

    // Back to everybody's, and what cannot be.
    let choose = format!("/api/v2/players/{user}/pipeline");
    // An array is no object, though its elements would fit the members in order.
    let (status, refused) = app.request("PUT", &choose, "application/json", " [null]").await;
    assert_eq!((status, &refused["code"]), (400, &json!("bad_request")), "{refused}");
    let put = async |body: &str| app.request("PUT", &choose, "application/json", body).await.0;
    assert_eq!(put(r#"{"pipeline":"nobody"}"#).await, 404);
    assert_eq!(put(r#"{"pipeline":null}"#).await, 204);
    let third = recorded_as(&app, "d1", &track).await;
    let (_, result) = app.get(&format!("/api/v2/sessions/{third}/result")).await;
    assert_eq!(result["analysis"]["provenance"]["name"], BUILTIN);
    for (labels, status) in [
        // Those that were given before are kept.
        (json!([]), 201),
        (json!([{ "session_id": 999, "impact_ms": 0.0, "stroke": "lift" }]), 404),
        (json!([{ "session_id": first, "impact_ms": 0.0, "stroke": "moonwalk" }]), 422),
    ] {
        assert_eq!(app.post_json(&path, &json!({ "labels": labels })).await.0, status, "{labels}");
    }
    app.stop().await;
}
