//! Small old files become a few, beside a running service and in a stopped folder, and nobody who reads sees a difference.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::commands::{ask, volant};
use crate::packets::session_packets;
use crate::reanalysis::{eventually, recorded};
use crate::support::TestApp;
use schemas::{FrameColumns, SensorRole, SessionId};
use volant::clock::Clock;
use volant::store::catalog::Catalog;
use volant::store::paths::Paths;
use volant::store::seal;

/// Every Parquet file below a table, name and bytes.
fn stored(folder: &Path, table: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for day in fs::read_dir(folder.join(table)).unwrap() {
        for file in fs::read_dir(day.unwrap().path()).unwrap() {
            let file = file.unwrap().path();
            // One in the making: a session that closes is written again.
            if file.extension().is_some_and(|extension| extension == "tmp") {
                continue;
            }
            found.insert(file.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&file).unwrap());
        }
    }
    found
}

const QUESTIONS: [&str; 5] = [
    "SELECT session_id, sensor, count(*) AS n, sum(seq) AS s, max(t_ns) AS t FROM frames GROUP BY 1, 2 ORDER BY 1, 2",
    "SELECT * FROM strokes ORDER BY session_id, stroke_index",
    "SELECT * FROM results ORDER BY session_id",
    "SELECT session_id, sealed, revision, frame_count FROM sessions ORDER BY 1",
    "SELECT count(*) AS n FROM frames WHERE session_id = 2 AND sensor = 'wrist' AND t_ns BETWEEN 0 AND 3000000000",
];

async fn answers(app: &TestApp) -> Vec<Vec<Value>> {
    let mut answers = Vec::new();
    for question in QUESTIONS {
        answers.push(app.sql(question).await);
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_folder_answers_the_same_and_is_undone_to_the_byte() {
    let app = TestApp::start_with(|config| config.sessions.late_grace_s = 3600).await;
    for seed in 1..=3 {
        recorded(&app, "d1", seed).await;
    }
    let data_dir = app.data_dir().display().to_string();
    let before = answers(&app).await;
    let originals = ["frames", "strokes", "results"].map(|table| (table, stored(app.data_dir(), table)));
    let report = app.get("/sessions/2/report").await;
    assert_eq!(report.0, 200);
    let (_, findings) = app.get("/api/v2/sessions/2/doctor").await;

    let compact = |more: &[&'static str]| {
        let fixed = ["compact", "--data-dir", &data_dir, "--json"];
        let arguments: Vec<String> = fixed.iter().chain(more).map(|&argument| argument.to_owned()).collect();
        async move { ask(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    // Today is no past day, and a dry run changes nothing.
    assert_eq!(compact(&[]).await["tables"]["frames"]["packed_files"], 0);
    let planned = compact(&["--after-days", "0", "--dry-run"]).await;
    assert_eq!(
        (&planned["tables"]["frames"]["files_before"], &planned["tables"]["frames"]["files_after"]),
        (&json!(3), &json!(1)),
        "{planned}"
    );
    assert_eq!(stored(app.data_dir(), "frames"), originals[0].1);

    let done = compact(&["--after-days", "0"]).await;
    for (table, files) in &originals {
        let size = &done["tables"][table];
        assert_eq!((&size["files_before"], &size["files_after"]), (&json!(3), &json!(1)), "{done}");
        let bytes: usize = files.values().map(Vec::len).sum();
        assert_eq!(size["bytes_before"], json!(bytes));
        assert!(size["bytes_after"].as_u64().unwrap() < bytes as u64, "{done}");
        assert_eq!(stored(app.data_dir(), table).keys().collect::<Vec<_>>(), ["1-3-3.parquet"]);
    }
    assert_eq!(answers(&app).await, before);
    for (question, before) in QUESTIONS.iter().zip(&before) {
        let beside = ask(&["sql", "--data-dir", &data_dir, "--format", "json", question]).await;
        assert_eq!(beside, json!(before), "{question}");
    }
    assert_eq!(app.get("/sessions/2/report").await, report);
    assert_eq!(app.get("/api/v2/sessions/2/doctor").await.1, findings);
    let beside = volant(&["doctor", "2", "--data-dir", &data_dir, "--json"]).await;
    let beside: Value = serde_json::from_slice(&beside.stdout).unwrap();
    let codes =
        |findings: &Value| findings.as_array().unwrap().iter().map(|found| found["code"].clone()).collect::<Vec<_>>();
    assert_eq!(codes(&beside["findings"]), codes(&findings["findings"]));
    let verified = ask(&["verify", "--data-dir", &data_dir, "--json"]).await;
    assert_eq!((&verified["lost"], &verified["packed_files"], &verified["packs"]), (&json!([]), &json!(9), &json!(3)));

    // Archive and backup hold the sessions' own files, as the catalog knows them.
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).display().to_string();
    ask(&["export", "--data-dir", &data_dir, "--format", "archive", "--out", &at("all.tar.zst"), "--json"]).await;
    let taken = ask(&["import", "archive", &at("all.tar.zst"), "--data-dir", &at("imported"), "--json"]).await;
    assert_eq!(taken["taken"], 3, "{taken}");
    ask(&["backup", "--data-dir", &data_dir, "--out", &at("backup"), "--json"]).await;
    ask(&["restore", &at("backup"), "--data-dir", &at("restored"), "--json"]).await;
    for (table, files) in &originals {
        assert_eq!(&stored(&place.path().join("imported"), table), files);
        assert_eq!(&stored(&place.path().join("restored"), table), files);
    }

    // A new session of the packed day stands beside the pack.
    recorded(&app, "d1", 4).await;
    assert_eq!(stored(app.data_dir(), "frames").keys().collect::<Vec<_>>(), ["1-3-3.parquet", "4.parquet"]);
    // A late packet makes a new revision of a packed session: its day is unpacked, and nobody else's bytes change.
    let mut device = app.socket("/ws/esp32/d1/").await;
    device.send(&session_packets("1", "d1", 99, 1.0)[0]).await;
    assert_eq!(device.next_of("batch_sensor_data_response").await["success"], true);
    eventually(async || app.sql_count("SELECT revision FROM sessions WHERE session_id = 1").await == 2).await;
    eventually(async || {
        app.sql_count("SELECT frame_count FROM results WHERE session_id = 1").await
            == app.sql_count("SELECT count(*) FROM frames WHERE session_id = 1").await
    })
    .await;
    for (table, files) in &originals {
        let now = stored(app.data_dir(), table);
        assert_eq!(now.len(), 4, "{table}: {:?}", now.keys());
        for (name, bytes) in files {
            assert_eq!(&now[name] == bytes, name != "1.parquet", "{table}/{name}");
        }
    }
    let verified = ask(&["verify", "--data-dir", &data_dir, "--json"]).await;
    assert_eq!(verified["lost"], json!([]), "{verified}");

    let before = answers(&app).await;
    let files = stored(app.data_dir(), "frames");
    assert_eq!(compact(&["--after-days", "0"]).await["tables"]["frames"]["files_after"], 1);
    assert_eq!(answers(&app).await, before);
    assert_eq!(compact(&["--undo"]).await["packs_undone"], 3);
    assert_eq!(stored(app.data_dir(), "frames"), files);
    assert_eq!(answers(&app).await, before);
    let verified = ask(&["verify", "--data-dir", &data_dir, "--json"]).await;
    assert_eq!((&verified["lost"], &verified["packs"]), (&json!([]), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_packs_past_days_by_itself() {
    let app = TestApp::start().await;
    recorded(&app, "d1", 1).await;
    recorded(&app, "d1", 2).await;
    let before = answers(&app).await;
    let in_days = |days: i64| Clock::manual(Clock::system().now_us() + days * 24 * 3600 * 1_000_000);
    let app = TestApp::start_at(app.stop().await, in_days(5), |_| {}).await;
    let counted = async |app: &TestApp| {
        let metrics = app.get("/metrics").await.1;
        let name = "volant_compaction_files_total{table=\"frames\",when=\"before\"} ";
        let line = metrics.as_str().unwrap().lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        line.and_then(|count| count.parse::<i64>().ok())
    };
    // The run of the start has been when its figures are there.
    eventually(async || {
        counted(&app).await.is_some() || app.get("/metrics").await.1.to_string().contains("volant_stored_files")
    })
    .await;
    assert_eq!(stored(app.data_dir(), "frames").len(), 2, "five days are not past enough");
    let app = TestApp::start_at(app.stop().await, in_days(8), |_| {}).await;
    eventually(async || stored(app.data_dir(), "results").len() == 1).await;
    assert_eq!(stored(app.data_dir(), "frames").keys().collect::<Vec<_>>(), ["1-2-2.parquet"]);
    assert_eq!(answers(&app).await, before);
    // By its clock what was replaced is days old, so it goes at once; what a killed run left goes with the next start.
    let swap = app.data_dir().join("_swap");
    eventually(async || fs::read_dir(&swap).unwrap().next().is_none()).await;
    let left = swap.join("7/frames/date=2026-01-01");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("1-2-2.parquet"), "half a pack").unwrap();
    let app = TestApp::start_at(app.stop().await, in_days(9), |config| config.compaction.after_days = 0).await;
    assert!(fs::read_dir(&swap).unwrap().next().is_none());
    assert_eq!(answers(&app).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_given_up_leave_their_pack() {
    let app = TestApp::start_with(|config| config.sessions.late_grace_s = 0).await;
    let kept = recorded(&app, "d1", 1).await;
    let gone = recorded(&app, "d2", 2).await;
    let data_dir = app.data_dir().display().to_string();
    // Frames go of sessions that no late frame can change any more.
    eventually(async || {
        let catalog = Catalog::open_read_only(&app.data_dir().join("catalog.sqlite")).await.unwrap();
        let row = catalog.session(SessionId(gone)).await.unwrap().unwrap();
        catalog.close().await;
        row.closed
    })
    .await;
    let strokes = app.sql("SELECT * FROM strokes ORDER BY session_id, stroke_index").await;
    let of_kept = stored(app.data_dir(), "frames").remove(&format!("{kept}.parquet")).unwrap();
    ask(&["compact", "--data-dir", &data_dir, "--after-days", "0", "--json"]).await;
    assert_eq!(stored(app.data_dir(), "frames").len(), 1);

    // One of the two ended long ago, by the catalog.
    let catalog = sqlx::SqlitePool::connect(&format!("sqlite://{data_dir}/catalog.sqlite")).await.unwrap();
    let long_ago = "UPDATE sessions SET ended_at_us = ended_at_us - 864000000000 WHERE session_id = ?";
    sqlx::query(long_ago).bind(gone).execute(&catalog).await.unwrap();
    catalog.close().await;
    let expired = ask(&["retention", "--data-dir", &data_dir, "--frames-days", "5", "--json"]).await;
    assert_eq!((&expired["sessions"], &expired["files_deleted"]), (&json!([gone]), &json!(1)), "{expired}");

    let files = stored(app.data_dir(), "frames");
    assert_eq!(files, BTreeMap::from([(format!("{kept}.parquet"), of_kept)]), "{:?}", files.keys());
    let left = "SELECT session_id, count(*) > 0 AS n FROM frames GROUP BY 1";
    assert_eq!(app.sql(left).await, [json!({ "session_id": kept, "n": true })]);
    assert_eq!(app.sql("SELECT * FROM strokes ORDER BY session_id, stroke_index").await, strokes);
    let verified = ask(&["verify", "--data-dir", &data_dir, "--json"]).await;
    assert_eq!(verified["lost"], json!([]), "{verified}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_has_more_sessions_than_the_process_may_have_files_open() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path());
    Catalog::open(&paths.catalog()).await.unwrap().close().await;
    let mut frames = FrameColumns::default();
    frames.push_decoded(4, SensorRole::Racket, None, [[1.0; 3]; 3]);
    for session in 1..=100 {
        seal::write_frames(&paths, SessionId(session), 0, 1, &frames, |_| None, &[]).unwrap();
    }
    for arguments in ["--after-days 7", "--undo", "--after-days 7"] {
        let command = format!("ulimit -n 48; exec \"$0\" compact --data-dir \"$1\" {arguments}");
        let mut shell = tokio::process::Command::new("sh");
        shell.args(["-c", &command, env!("CARGO_BIN_EXE_volant")]).arg(folder.path());
        let output = shell.output().await.unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(stored(folder.path(), "frames").keys().collect::<Vec<_>>(), ["1-100-100.parquet"]);
}
