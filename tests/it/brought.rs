//! What is brought to a running service: recordings and archives, by the command and by HTTP, whole, twice, damaged, cut.

use std::fs;
use std::path::Path;

use pipelines::synth::{SynthSpec, generate};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use volant::recordings::{Recording, write_recording};

use crate::commands::{ask, volant};
use crate::kill::process::sql_on_folder;
use crate::reanalysis::{eventually, recorded};
use crate::support::TestApp;

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Two recordings in a file.
fn two_recordings(path: &Path) {
    let recordings = [21, 22].map(|seed| Recording {
        name: format!("take-{seed}"),
        track: generate(&SynthSpec { duration_s: 12.0, ..SynthSpec::new(seed) }).track,
        ..Recording::default()
    });
    write_recording(path, &recordings).unwrap();
}

/// Files that lie where files arrive.
fn incoming(folder: &Path) -> usize {
    fs::read_dir(folder.join("_incoming")).map_or(0, Iterator::count)
}

const VALUES: &str = "SELECT started_at_us, sensor, t_ns, acc_x, acc_y, acc_z, gyro_x, gyro_y, gyro_z FROM frames \
                      JOIN sessions USING (session_id) ORDER BY 1, 2, 3";

/// Frames, strokes and results of a recording that were given up are there again when it is brought again.
#[tokio::test(flavor = "multi_thread")]
async fn recordings_bring_back_what_was_given_up() {
    let app = TestApp::start_with(|config| config.sessions.late_grace_s = 0).await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("takes.parquet");
    two_recordings(&file);
    let (url, data_dir, file) = (app.url(), text(app.data_dir()), text(&file));
    let bring = ["import", "recordings", &file, "--started-at", "2026-03-01T10:00:00Z", "--url", &url, "--json"];
    ask(&bring).await;
    let analysed = async || {
        for session in 1..=2 {
            eventually(async || app.get(&format!("/api/v2/sessions/{session}/result")).await.0 == 200).await;
        }
    };
    analysed().await;
    let all = "SELECT (SELECT count(*) FROM frames) AS f, (SELECT count(*) FROM strokes) AS s";
    let strokes = "SELECT * FROM strokes ORDER BY session_id, stroke_index";
    let (before, found, values) = (app.sql(all).await, app.sql(strokes).await, app.sql(VALUES).await);
    for class in ["--frames-days", "--results-days"] {
        ask(&["retention", "--data-dir", &data_dir, class, "0", "--json"]).await;
    }
    assert_eq!(app.sql(all).await, [json!({ "f": 0, "s": 0 })]);

    let planned = ask(&[&bring[..], &["--dry-run"]].concat()).await;
    for brought in [planned, ask(&bring).await] {
        assert_eq!((&brought["already"], &brought["frames"]), (&json!(0), &before[0]["f"]), "{brought}");
        assert!(
            brought["recordings"].as_array().unwrap().iter().all(|taken| taken["brought_back"] == true),
            "{brought}"
        );
    }
    analysed().await;
    assert_eq!((app.sql(all).await, app.sql(strokes).await, app.sql(VALUES).await), (before, found, values));
    assert_eq!(app.sql_count("SELECT count(*) FROM sessions").await, 2);
    assert_eq!(app.sql_count("SELECT count(*) FROM notifications").await, 0);
    let again = ask(&bring).await;
    assert_eq!((&again["already"], &again["frames"]), (&json!(2), &json!(0)), "{again}");
    let report = ask(&["verify", "--data-dir", &data_dir, "--json"]).await;
    assert_eq!((&report["lost"], &report["unlisted_files"]), (&json!([]), &json!(0)), "{report}");

    // A folder without its service does the same, and the analysis waits for the next start.
    for class in ["--frames-days", "--results-days"] {
        ask(&["retention", "--data-dir", &data_dir, class, "0", "--json"]).await;
    }
    let folder = app.stop().await;
    let offline = ask(&["import", "recordings", &file, "--data-dir", &data_dir, "--json"]).await;
    assert_eq!(offline["already"], 0, "{offline}");
    let app = TestApp::start_in(folder, |_| {}).await;
    eventually(async || app.get("/api/v2/sessions/2/result").await.0 == 200).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_become_sessions_of_a_running_service_as_they_would_of_its_folder() {
    let app = TestApp::start().await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("takes.parquet");
    two_recordings(&file);
    let (file, offline) = (text(&file), text(&place.path().join("offline")));
    let common = ["import", "recordings", &file, "--started-at", "2026-03-01T10:00:00Z", "--openid", "oNew", "--json"];
    let into = |to: [&'static str; 1], place: &str| {
        [&common[..], &to, &[place]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = async |arguments: Vec<String>| ask(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let url = app.url();

    let planned = run([into(["--url"], &url), vec!["--dry-run".to_owned()]].concat()).await;
    assert_eq!((&planned["recordings"][0]["session_id"], &planned["already"]), (&json!(null), &json!(0)), "{planned}");
    assert_eq!(app.sql_count("SELECT count(*) FROM sessions").await, 0);
    let taken = run(into(["--url"], &url)).await;
    let kept = run(into(["--data-dir"], &offline)).await;
    assert_eq!((&taken["frames"], &taken["recordings"]), (&kept["frames"], &kept["recordings"]), "as in a folder");
    let again = run(into(["--url"], &url)).await;
    assert_eq!((&again["already"], &again["frames"]), (&json!(2), &json!(0)), "{again}");
    let planned = run([into(["--data-dir"], &offline), vec!["--dry-run".to_owned()]].concat()).await;
    assert_eq!(planned["already"], 2, "a look knows what is there");

    assert_eq!(app.sql(VALUES).await, sql_on_folder(Path::new(&offline), VALUES).await);
    for session in 1..=2 {
        eventually(async || app.get(&format!("/api/v2/sessions/{session}/result")).await.0 == 200).await;
    }
    assert_eq!(app.sql_count("SELECT count(*) FROM notifications").await, 0, "nobody is notified");
    let players = app.sql("SELECT session_count FROM players").await;
    assert_eq!(players, [json!({"session_count": 2})]);
    let (_, audit) = app.get("/api/v2/audit?limit=10").await;
    let entries = audit["entries"].as_array().unwrap().iter().filter(|entry| entry["action"] == "import.recordings");
    let subjects: Vec<_> = entries.map(|entry| entry["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["2", "1"], "an entry for each file that brought something");
    assert_eq!(incoming(app.data_dir()), 0);
    let report = ask(&["verify", "--data-dir", &text(app.data_dir()), "--json"]).await;
    assert_eq!(report["lost"], json!([]), "{report}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_taken_beside_sessions_that_are_being_recorded() {
    let elsewhere = TestApp::start().await;
    recorded(&elsewhere, "d1", 4).await;
    recorded(&elsewhere, "d2", 5).await;
    let folder = elsewhere.stop().await;
    let place = tempfile::tempdir().unwrap();
    let archive = text(&place.path().join("two.tar.zst"));
    let export = ["export", "--format", "archive", "--data-dir", &text(folder.path()), "--out", &archive];
    assert!(volant(&export).await.status.success());

    let app = TestApp::start().await;
    let url = app.url();
    // Number 1 is taken here, by somebody who still plays.
    let open = app.start_session("d9").await;
    let arguments = ["import", "archive", &archive, "--url", &url, "--json"];
    let planned = ask(&[&arguments[..], &["--dry-run"]].concat()).await;
    assert_eq!((&planned["taken"], &planned["dry_run"]), (&json!(2), &json!(true)), "{planned}");
    let taken = ask(&arguments).await;
    assert_eq!((&taken["taken"], &taken["renumbered"]["1"]), (&json!(2), &json!(2)), "{taken}");
    assert_eq!(ask(&arguments).await["already"], 2);

    let strokes = "SELECT started_at_us, stroke_index, stroke, impact_ns, peak_gyro_dps FROM strokes JOIN sessions USING (session_id) ORDER BY 1, 2";
    assert_eq!(app.sql(strokes).await, sql_on_folder(folder.path(), strokes).await);
    assert_eq!(app.sql(VALUES).await, sql_on_folder(folder.path(), VALUES).await);
    let (_, info) = app.get(&format!("/api/v2/sessions/{open}")).await;
    assert_eq!(info["session"]["status"], "calibrating", "{info}");
    assert_eq!(incoming(app.data_dir()), 0);
    let report = ask(&["verify", "--data-dir", &text(app.data_dir()), "--json"]).await;
    assert_eq!(report["lost"], json!([]), "{report}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_taken_are_refused_with_the_reason_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // What a service that was killed left behind.
    fs::create_dir_all(folder.path().join("_incoming/file-old")).unwrap();
    fs::write(folder.path().join("_incoming/file-old/archive.csv"), "half").unwrap();
    let app = TestApp::start_in(folder, |_| {}).await;
    assert_eq!(incoming(app.data_dir()), 0);

    let post = async |path: &str, body: &str| app.request("POST", path, "text/csv", body).await;
    let recordings = "/api/v2/imports/recordings";
    for (path, body, status, code, why) in [
        (recordings.to_owned(), "", 400, "bad_request", "empty"),
        (format!("{recordings}?name=mine"), "t_ms,ax\n1,2\n", 422, "bad_recording", "mine.csv"),
        (format!("{recordings}?name=../x"), "t_ms,ax\n1,2\n", 400, "bad_request", "name"),
        (format!("{recordings}?device_code=a%20b"), "x", 400, "bad_request", "device code"),
        (format!("{recordings}?colour=red"), "x", 400, "bad_request", "colour"),
        ("/api/v2/imports/archives".to_owned(), "no archive", 422, "bad_archive", "archive"),
    ] {
        let (answered, problem) = post(&path, body).await;
        assert_eq!((answered, problem["code"].as_str()), (status, Some(code)), "{path}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(why) && !detail.contains("_incoming"), "{path}: {detail}");
    }
    let good = "t_ms,ax,ay,az,gx,gy,gz\n0,0,0,9.8,0,0,0\n10,0,0,9.8,0,0,0\n";
    let (status, taken) = post(&format!("{recordings}?name=mine"), good).await;
    assert_eq!(
        (status, &taken["recordings"][0]["name"], &taken["frames"]),
        (200, &json!("mine"), &json!(2)),
        "{taken}"
    );

    // A sender who goes away in the middle.
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let head = format!("POST {recordings} HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000\r\n\r\n{good}", app.address());
    stream.write_all(head.as_bytes()).await.unwrap();
    eventually(async || incoming(app.data_dir()) == 1).await;
    drop(stream);
    eventually(async || incoming(app.data_dir()) == 0).await;
    let (_, metrics) = app.get("/metrics").await;
    let refused = |reason: &str| {
        let line = format!("volant_migration_refused_files_total{{reason=\"{reason}\"}}");
        metrics.as_str().unwrap().lines().any(|found| found.starts_with(&line))
    };
    assert!(refused("bad_recording") && refused("bad_archive"), "counted");
    let taken = "volant_migration_taken_sessions_total{from=\"recording\"} 1";
    assert!(metrics.as_str().unwrap().lines().any(|line| line == taken), "counted: {metrics}");
    assert_eq!(app.sql_count("SELECT count(*) FROM sessions").await, 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_too_long_is_not_kept() {
    let app = TestApp::start().await;
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let head = format!(
        "POST /api/v2/imports/recordings HTTP/1.1\r\nHost: {}\r\nContent-Length: 99999999999\r\n\r\nt_ms",
        app.address()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_buf(&mut stream, &mut answer);
    tokio::time::timeout(crate::support::PATIENCE, reading).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
    let _: Value = app.get("/health/live").await.1;
    assert_eq!(incoming(app.data_dir()), 0);
    app.stop().await;
}
