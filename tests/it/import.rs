//! `volant import django`: what is taken, what is left out and why, twice, killed, grown, and refused.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Executor as _};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::kill::process::{Server, sql_on_folder, verified, volant};
use crate::support::{PATIENCE, dechunk};

/// The tables as the service's migrations up to 0006 make them.
const SCHEMA: &str = r#"
CREATE TABLE "django_migrations" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "app" varchar(255) NOT NULL,
  "name" varchar(255) NOT NULL, "applied" datetime NOT NULL);
INSERT INTO django_migrations (app, name, applied) VALUES ('contenttypes', '0001_initial', '2025-07-09 08:11:12.131415');
CREATE TABLE "auth_user" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "username" varchar(150) NOT NULL UNIQUE);
CREATE TABLE "wxapp_wxuser" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "openid" varchar(64) NOT NULL UNIQUE,
  "user_id" integer NULL UNIQUE REFERENCES "auth_user" ("id") DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE "wxapp_devicebind" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "device_code" varchar(64) NOT NULL,
  "bind_time" datetime NOT NULL, "wx_user_id" bigint NOT NULL);
CREATE TABLE "wxapp_devicegroup" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT,
  "group_code" varchar(64) NOT NULL UNIQUE, "created_time" datetime NOT NULL);
CREATE TABLE "wxapp_datacollectionsession" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "start_time" datetime NOT NULL,
  "end_time" datetime NULL, "status" varchar(20) NOT NULL, "user_id" bigint NOT NULL, "device_group_id" bigint NOT NULL);
CREATE TABLE "wxapp_analysisresult" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT,
  "phase_delay" text NOT NULL CHECK ((JSON_VALID("phase_delay") OR "phase_delay" IS NULL)), "energy_ratio" real NOT NULL,
  "rom_data" text NOT NULL, "analysis_time" datetime NOT NULL, "session_id" bigint NOT NULL UNIQUE);
CREATE TABLE "wxapp_sensordata" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "device_code" varchar(64) NOT NULL,
  "sensor_type" varchar(20) NOT NULL, "data" text NOT NULL, "timestamp" datetime NOT NULL, "session_id" bigint NULL);
CREATE INDEX "wxapp_senso_session_fa4056_idx" ON "wxapp_sensordata" ("session_id", "device_code", "sensor_type");
CREATE TABLE "wxapp_miniprogramdata" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "data_type" integer NOT NULL,
  "content" text NOT NULL, "timestamp" datetime NOT NULL);
"#;

/// Migration 0007, and the columns that the last commit has no migration for.
const LATE_COLUMNS: &str = r#"
ALTER TABLE "wxapp_sensordata" ADD COLUMN "esp32_timestamp" datetime NULL;
ALTER TABLE "wxapp_analysisresult" ADD COLUMN "analysis_image" varchar(255) NULL;
ALTER TABLE "wxapp_analysisresult" ADD COLUMN "image_generated_time" datetime NULL;
"#;

/// Three people, of whom one can be no client; two sessions with frames, one without but with invented figures, one that
/// was left open over midnight, one with a status that nobody knows; frames of nobody; rows that are no frames.
const CONTENT: &str = r#"
INSERT INTO auth_user (id, username) VALUES (1, 'admin'), (21, 'wx_a'), (22, 'wx_b');
INSERT INTO wxapp_wxuser (id, openid, user_id) VALUES (1, 'oAnna-1234567890_abcdefghijk', 21), (2, 'oBert', 22),
  (3, 'no openid', NULL), (4, 'oCleo', NULL);
INSERT INTO wxapp_devicebind (device_code, bind_time, wx_user_id) VALUES ('2025001', '2025-08-01 01:02:03', 1),
  ('2025001', '2025-08-02 01:02:03', 1), ('2025001', '2025-08-03 01:02:03', 2), ('no code', '2025-08-03 01:02:03', 2),
  ('2025001', '2025-08-03 01:02:03', 3);
INSERT INTO wxapp_devicegroup (id, group_code, created_time) VALUES (1, '2025001', '2025-08-01 00:00:00'),
  (2, '第一组', '2025-08-01 00:00:00');
INSERT INTO wxapp_datacollectionsession (id, start_time, end_time, status, user_id, device_group_id) VALUES
  (5, '2025-09-27 07:45:00', '2025-09-27 07:46:00', 'completed', 1, 1),
  (6, '2025-09-27 08:00:00', '2025-09-27 08:01:00', 'stopped', 2, 1),
  (8, '2025-09-27 15:59:58.500000', NULL, 'calibrating', 4, 2),
  (9, '2025-09-27 15:00:00', NULL, 'paused', 1, 1);
INSERT INTO wxapp_analysisresult (phase_delay, energy_ratio, rom_data, analysis_time, session_id) VALUES
  ('{"waist_to_shoulder": 0.11, "shoulder_to_wrist": 0.07}', 0.9, '{"waist": 41, "shoulder": 100, "wrist": 51}',
   '2025-09-27 07:46:01', 5),
  ('{"waist_to_shoulder": 0.08, "shoulder_to_wrist": 0.05}', 0.75, '{"waist": 45, "shoulder": 120, "wrist": 45}',
   '2025-09-27 08:01:01', 6);
INSERT INTO wxapp_miniprogramdata (data_type, content, timestamp) VALUES (2, 'hello', '2025-08-01 00:00:00');
"#;

struct Django {
    path: PathBuf,
    db: SqliteConnection,
}

impl Django {
    async fn new(folder: &Path, late_columns: bool) -> Self {
        let path = folder.join("db.sqlite3");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut db = SqliteConnection::connect_with(&options).await.unwrap();
        db.execute(SCHEMA).await.unwrap();
        if late_columns {
            db.execute(LATE_COLUMNS).await.unwrap();
        }
        Self { path, db }
    }

    async fn row(&mut self, session: Option<i64>, device: &str, sensor: &str, data: &str, at: &str) {
        sqlx::query(
            "INSERT INTO wxapp_sensordata (device_code, sensor_type, data, timestamp, session_id) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(device)
        .bind(sensor)
        .bind(data)
        .bind(at)
        .bind(session)
        .execute(&mut self.db)
        .await
        .unwrap();
    }

    /// A second of frames at 50 Hz from each of four sensors, from 15:45:`second` in UTC+8, number 4 stored as wrist.
    async fn second(&mut self, session: Option<i64>, second: i64) {
        self.db.execute("BEGIN").await.unwrap();
        for index in 0..50 {
            for (id, sensor) in [(1, "waist"), (2, "shoulder"), (3, "wrist"), (4, "wrist")] {
                let ms = index * 20;
                let data = json!({
                    "acc": [0.1, 0.2, 9.8], "gyro": [f64::from(id), 2, 3], "angle": [10, 20, 30], "sensor_id": id,
                    "timestamp": 154_500_000 + second * 1000 + ms,
                });
                let at = format!("2025-09-27 07:45:{second:02}.{:06}", ms * 1000 + 500);
                self.row(session, "2025001", sensor, &data.to_string(), &at).await;
            }
        }
        self.db.execute("COMMIT").await.unwrap();
    }

    async fn filled(folder: &Path, late_columns: bool) -> Self {
        let mut django = Self::new(folder, late_columns).await;
        django.db.execute(CONTENT).await.unwrap();
        for second in 0..5 {
            django.second(Some(5), second).await;
        }
        for bad in ["", "{", "{\"acc\": [1, 2]}"] {
            django.row(Some(5), "2025001", "wrist", bad, "2025-09-27 07:45:09").await;
        }
        django.row(Some(5), "2025001", "wrist", r#"{"acc": [1, 2, 3]}"#, "not a time").await;
        // 23:59:59.900 and 00:00:00.100 in UTC+8.
        for (time, at) in [(235_959_900, "2025-09-27 15:59:59.950"), (100, "2025-09-27 16:00:00.150")] {
            let data = json!({ "acc": [0, 0, 1], "gyro": [1, 2, 3], "angle": [1, 2, 3], "timestamp": time });
            django.row(Some(8), "esp_8", "wrist", &data.to_string(), at).await;
        }
        django.row(Some(9), "2025001", "waist", r#"{"acc": [1, 2, 3]}"#, "2025-09-27 15:00:01").await;
        for at in ["2025-09-01 23:59:59", "2025-09-02 00:00:01", "2025-09-02 00:00:02"] {
            django.row(None, "2025001", "waist", r#"{"acc": [1, 2, 3], "sensor_id": 1}"#, at).await;
        }
        django.row(None, "no code", "waist", r#"{"acc": [1, 2, 3]}"#, "2025-09-02 00:00:02").await;
        django
    }
}

struct Ran {
    code: Option<i32>,
    report: Value,
    errors: String,
}

async fn import(sqlite: &Path, folder: &Path, flags: &[&str]) -> Ran {
    let sqlite = sqlite.to_str().unwrap();
    let arguments = [&["import", "django", "--sqlite", sqlite, "--json"], flags].concat();
    let output = volant(&arguments, folder).output().await.unwrap();
    Ran {
        code: output.status.code(),
        report: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

async fn get(address: &str, path: &str) -> (u16, Value) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body =
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") { dechunk(body) } else { body.to_owned() };
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn imported_is_everything_that_can_be_used_and_the_rest_has_a_reason() {
    let dir = TempDir::new().unwrap();
    let django = Django::filled(dir.path(), true).await;
    let folder = dir.path().join("data");
    let source_before = std::fs::read(&django.path).unwrap();

    let dry = import(&django.path, &folder, &["--dry-run"]).await;
    assert!(!folder.exists(), "{}", dry.errors);
    let first = import(&django.path, &folder, &[]).await;
    assert_eq!((dry.code, first.code), (Some(3), Some(3)), "{} {}", dry.errors, first.errors);
    assert_eq!(std::fs::read(&django.path).unwrap(), source_before);
    for kind in ["users", "bindings", "groups", "sessions", "frames", "results", "form_entries"] {
        assert_eq!(dry.report[kind], first.report[kind], "{kind}");
    }
    let report = &first.report;
    assert_eq!(report["complete"], false);
    let tally = |found: u64, taken: u64, left_out: Value| json!({"found": found, "taken": taken, "already": 0, "left_out": left_out});
    assert_eq!(report["users"], tally(4, 3, json!({"bad_openid": 1})));
    let left = json!({"duplicate": 1, "bad_device_code": 1, "user_not_taken": 1});
    assert_eq!(report["bindings"], tally(5, 2, left));
    assert_eq!(report["groups"], tally(2, 2, json!({})));
    assert_eq!(report["sessions"], tally(4, 3, json!({"bad_status": 1})));
    let left = json!({"bad_json": 2, "bad_values": 1, "bad_time": 1, "session_not_taken": 1, "bad_device_code": 1});
    assert_eq!(report["frames"], tally(1000 + 4 + 2 + 1 + 4, 1000 + 2 + 3, left));
    assert_eq!(report["results"], tally(2, 2, json!({})));
    assert_eq!(report["form_entries"], tally(1, 1, json!({})));
    assert_eq!(report["collections"], 2);
    assert_eq!(
        report["notes"],
        json!({"wrist_or_racket": 2, "racket_restored": 250, "frames_without_session": 3, "left_open": 1,
               "constants_as_results": 1, "device_guessed": 1})
    );
    assert_eq!(report["renumbered"], json!([]));

    let frames = sql_on_folder(
        &folder,
        "SELECT session_id, sensor, count(*) AS n, min(t_ns) AS t_min, max(t_ns) AS t_max FROM frames \
         WHERE session_id IN (5, 8) GROUP BY 1, 2 ORDER BY 1, 2",
    )
    .await;
    let of_five: Vec<_> = frames.iter().filter(|row| row["session_id"] == 5).collect();
    assert_eq!(
        of_five.iter().map(|row| row["sensor"].as_str().unwrap()).collect::<Vec<_>>(),
        ["racket", "shoulder", "waist", "wrist"]
    );
    for row in of_five {
        assert_eq!((&row["n"], &row["t_min"], &row["t_max"]), (&json!(250), &json!(0), &json!(4_980_000_000_i64)));
    }
    // Midnight is no step: 1.4 s and 1.6 s after the start.
    let open = frames.iter().find(|row| row["session_id"] == 8).unwrap();
    assert_eq!((&open["t_min"], &open["t_max"]), (&json!(1_400_000_000_i64), &json!(1_600_000_000_i64)));
    verified(&folder).await;

    let second = import(&django.path, &folder, &[]).await;
    for kind in ["users", "sessions", "frames", "results", "form_entries", "bindings", "groups"] {
        assert_eq!(second.report[kind]["taken"], 0, "{kind}: {}", second.report);
    }
    assert_eq!(second.report["collections"], 0);
}

#[tokio::test]
async fn imported_sessions_answer_to_their_old_numbers_and_notify_nobody() {
    let dir = TempDir::new().unwrap();
    let django = Django::filled(dir.path(), true).await;
    let folder = dir.path().join("data");
    import(&django.path, &folder, &["--reserve", "100"]).await;

    let mut server = Server::spawn(&folder, &[]);
    let address = server.listening().await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (status, answer) =
            get(&address, "/wxapp/get_analysis/?session_id=5&openid=oAnna-1234567890_abcdefghijk").await;
        assert_eq!(status, 200, "the old figures stand until ours are there: {answer}");
        if answer["pipeline"] != "django-badminton-analysis (imported)" {
            assert!(answer["pipeline"].as_str().unwrap().contains("volant"), "{answer}");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "our own analysis does not come: {answer}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (_, invented) = get(&address, "/wxapp/get_analysis/?session_id=6&openid=oBert").await;
    assert_eq!(invented["energy_ratio"], Value::Null, "{invented}");
    assert_eq!(invented["issues"][1]["code"], "imported_constants", "{invented}");
    let catalog = volant::store::catalog::Catalog::open_read_only(&folder.join("catalog.sqlite")).await.unwrap();
    for id in ["oAnna-1234567890_abcdefghijk", "21", "1"] {
        let user = match id.parse() {
            Ok(number) => catalog.find_user_by_number(number).await.unwrap(),
            Err(_) => catalog.find_user_by_openid(id).await.unwrap(),
        };
        assert_eq!(user.unwrap().user_id.get(), 21, "{id}");
    }
    assert_eq!(catalog.owed_count().await.unwrap(), 0);
    catalog.close().await;
    let form = "openid=oNew&device_group_code=2025001&device_code=2025001";
    let started = crate::kill::process::post_form(&address, "/wxapp/start_session/", form).await;
    let Ok((200, started)) = started else { panic!("a session starts") };
    assert!(started["session_id"].as_i64().unwrap() > 109, "{started}");

    // While it runs, nobody else may write the folder.
    let refused = import(&django.path, &folder, &[]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.errors.contains("stop the server"), "{}", refused.errors);
    assert_eq!(refused.errors.lines().count(), 1, "{}", refused.errors);
    server.terminate().await;
}

#[tokio::test]
async fn imported_from_a_grown_source_is_only_what_is_new() {
    let dir = TempDir::new().unwrap();
    // Older than the column of device times.
    let mut django = Django::filled(dir.path(), false).await;
    let folder = dir.path().join("data");
    let first = import(&django.path, &folder, &[]).await;
    assert_eq!(first.report["frames"]["taken"], 1005, "{}", first.errors);
    django.second(Some(5), 5).await;
    let more = "INSERT INTO wxapp_datacollectionsession (id, start_time, status, user_id, device_group_id) \
                VALUES (10, '2025-09-27 07:45:00', 'collecting', 1, 1)";
    django.db.execute(more).await.unwrap();
    django.second(Some(10), 6).await;
    // A writer that is in the middle of something is no obstacle.
    django.db.execute("BEGIN IMMEDIATE").await.unwrap();
    let second = import(&django.path, &folder, &[]).await;
    django.db.execute("ROLLBACK").await.unwrap();
    assert_eq!(second.report["frames"]["taken"], 400, "{} {}", second.report, second.errors);
    assert_eq!(second.report["sessions"]["taken"], 1);
    let counts = sql_on_folder(
        &folder,
        "SELECT session_id, count(*) AS n FROM frames WHERE session_id IN (5, 10) GROUP BY 1 ORDER BY 1",
    )
    .await;
    assert_eq!(counts, [json!({"session_id": 5, "n": 1200}), json!({"session_id": 10, "n": 200})]);
    verified(&folder).await;
}

/// While both systems run the import is done again and again. Somebody who was erased in between stays away, and keeps nobody
/// else out.
#[tokio::test]
async fn who_was_erased_is_not_imported_again() {
    let dir = TempDir::new().unwrap();
    let mut django = Django::filled(dir.path(), true).await;
    let folder = dir.path().join("data");
    import(&django.path, &folder, &[]).await;
    let anna = "SELECT user_id FROM sessions WHERE session_id = 5";
    assert_eq!(sql_on_folder(&folder, anna).await, [json!({"user_id": 21})]);
    let erased = volant(&["erase", "--player", "21"], &folder).output().await.unwrap();
    assert!(erased.status.success(), "{}", String::from_utf8_lossy(&erased.stderr));

    let more = "INSERT INTO wxapp_datacollectionsession (id, start_time, status, user_id, device_group_id) \
                VALUES (10, '2025-09-27 07:45:00', 'collecting', 1, 1), (11, '2025-09-27 07:45:00', 'collecting', 2, 1)";
    django.db.execute(more).await.unwrap();
    django.second(Some(10), 6).await;
    django.second(Some(11), 7).await;
    for taken in [200, 0] {
        let again = import(&django.path, &folder, &[]).await;
        let report = &again.report;
        assert_eq!(report["frames"]["taken"], taken, "{report} {}", again.errors);
        let left = |kind: &str| &report[kind]["left_out"]["erased"];
        // Sessions 5 and 9 and their frames, those of 9 and of the damaged rows too, both results but Bert's, and what is new.
        assert_eq!((left("users"), left("bindings"), left("sessions")), (&json!(1), &json!(2), &json!(3)), "{report}");
        assert_eq!((left("frames"), left("results")), (&json!(1004 + 1 + 200), &json!(1)), "{report}");
    }
    let left = "SELECT session_id, user_id FROM sessions WHERE session_id IN (5, 6, 9, 10, 11) ORDER BY 1";
    let berts = [json!({"session_id": 6, "user_id": 22}), json!({"session_id": 11, "user_id": 22})];
    assert_eq!(sql_on_folder(&folder, left).await, berts);
    verified(&folder).await;
}

#[tokio::test]
async fn killed_imports_go_on_and_double_nothing() {
    const SESSIONS: i64 = 500;
    const FRAMES: i64 = 100;
    let dir = TempDir::new().unwrap();
    let mut django = Django::new(dir.path(), true).await;
    django.db.execute("INSERT INTO wxapp_wxuser (id, openid) VALUES (1, 'oAnna'); INSERT INTO wxapp_devicegroup VALUES (1, 'd1', '2025-08-01 00:00:00'); BEGIN").await.unwrap();
    for session in 1..=SESSIONS {
        sqlx::query(
            "INSERT INTO wxapp_datacollectionsession VALUES (?, '2025-09-27 07:45:00', NULL, 'calibrating', 1, 1)",
        )
        .bind(session)
        .execute(&mut django.db)
        .await
        .unwrap();
        for frame in 0..FRAMES {
            let data = format!(
                r#"{{"acc":[0,0,1],"gyro":[1,2,3],"angle":[0,0,0],"sensor_id":3,"timestamp":{}}}"#,
                154_500_000 + frame * 10
            );
            django.row(Some(session), "d1", "wrist", &data, "2025-09-27 07:45:01").await;
        }
    }
    django.db.execute("COMMIT").await.unwrap();
    let folder = dir.path().join("data");
    let sqlite = django.path.to_str().unwrap();
    // Each run is killed when it says how far it is: the same places, in another step every time.
    for lines in [1, 2, 3] {
        let mut command = volant(&["import", "django", "--sqlite", sqlite], &folder);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
        for _ in 0..lines {
            let line = tokio::time::timeout(PATIENCE, errors.next_line()).await.unwrap().unwrap();
            assert!(line.as_deref().is_some_and(|line| line.contains("sessions")), "{line:?}");
        }
        child.kill().await.unwrap();
    }
    let last = import(&django.path, &folder, &[]).await;
    assert_eq!(last.code, Some(0), "{} {}", last.report, last.errors);
    let frames = &last.report["frames"];
    assert_eq!(frames["taken"].as_i64().unwrap() + frames["already"].as_i64().unwrap(), SESSIONS * FRAMES, "{frames}");
    assert!(frames["already"].as_i64().unwrap() >= 300 * FRAMES, "{frames}");
    let counts =
        sql_on_folder(&folder, "SELECT count(*) AS n, count(DISTINCT session_id) AS sessions FROM frames").await;
    assert_eq!(counts, [json!({"n": SESSIONS * FRAMES, "sessions": SESSIONS})]);
    let report = verified(&folder).await;
    assert_eq!(report["unlisted_files"], 0, "{report}");
}

#[tokio::test]
async fn imported_is_nothing_from_a_file_that_is_no_such_database() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("data");
    let path = dir.path().join("db.sqlite3");
    let absent = import(&path, &folder, &[]).await;
    assert!(absent.errors.contains("--sqlite"), "{}", absent.errors);
    std::fs::write(&path, vec![0x5a; 20_000]).unwrap();
    let garbage = import(&path, &folder, &[]).await;
    assert!(garbage.errors.contains("as a SQLite database"), "{}", garbage.errors);
    std::fs::remove_file(&path).unwrap();
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    other.execute("CREATE TABLE wxapp_wxuser (id integer)").await.unwrap();
    let foreign = import(&path, &folder, &[]).await;
    assert!(foreign.errors.contains("wxapp_devicebind"), "{}", foreign.errors);
    for ran in [absent, garbage, foreign] {
        assert_eq!((ran.code, ran.errors.lines().count()), (Some(1), 1), "{}", ran.errors);
    }
}
