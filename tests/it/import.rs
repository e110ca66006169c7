//! The data of the Django service, taken over into a folder of ours.

use std::path::Path;

use serde_json::{Value, json};
use sqlx::Executor as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use crate::kill::process::{run, sql_on_folder, verified, volant};
use crate::support::TestApp;

/// The tables as the old service's migrations make them; the earliest databases have no `esp32_timestamp`.
fn tables(with_device_time: bool) -> String {
    let device_time = if with_device_time { ", esp32_timestamp datetime NULL" } else { "" };
    format!(
        "CREATE TABLE auth_user (id integer PRIMARY KEY AUTOINCREMENT, username varchar(150) NOT NULL UNIQUE);
         CREATE TABLE wxapp_wxuser (id integer PRIMARY KEY AUTOINCREMENT, openid varchar(64) NOT NULL UNIQUE,
            user_id integer NULL UNIQUE REFERENCES auth_user (id));
         CREATE TABLE wxapp_devicebind (id integer PRIMARY KEY AUTOINCREMENT, device_code varchar(64) NOT NULL,
            bind_time datetime NOT NULL, wx_user_id bigint NOT NULL REFERENCES wxapp_wxuser (id));
         CREATE TABLE wxapp_devicegroup (id integer PRIMARY KEY AUTOINCREMENT, group_code varchar(64) NOT NULL UNIQUE,
            created_time datetime NOT NULL);
         CREATE TABLE wxapp_datacollectionsession (id integer PRIMARY KEY AUTOINCREMENT, start_time datetime NOT NULL,
            end_time datetime NULL, status varchar(20) NOT NULL, device_group_id bigint NOT NULL, user_id bigint NOT NULL);
         CREATE TABLE wxapp_sensordata (id integer PRIMARY KEY AUTOINCREMENT, device_code varchar(64) NOT NULL,
            data text NOT NULL, timestamp datetime NOT NULL, session_id bigint NULL, sensor_type varchar(20) NOT NULL{device_time});
         CREATE TABLE wxapp_analysisresult (id integer PRIMARY KEY AUTOINCREMENT, phase_delay text NOT NULL,
            energy_ratio real NOT NULL, rom_data text NOT NULL, analysis_time datetime NOT NULL,
            session_id bigint NOT NULL UNIQUE);"
    )
}

/// Three players, of whom one's framework number is another's WeChat-user number; sessions of every kind.
async fn old_database(path: &Path, with_device_time: bool, frames_a_session: u32) {
    let pool =
        SqlitePool::connect_with(SqliteConnectOptions::new().filename(path).create_if_missing(true)).await.unwrap();
    let mut statements = tables(with_device_time);
    statements.push_str(
        "INSERT INTO auth_user (id, username) VALUES (11, 'wx_a'), (12, 'wx_b'), (13, 'wx_c');
         INSERT INTO wxapp_wxuser (id, openid, user_id) VALUES (1, 'openid-a', 11), (2, 'openid-b', 12), (12, 'openid-c', 13);
         INSERT INTO wxapp_devicebind (device_code, bind_time, wx_user_id) VALUES
            ('2025001', '2025-09-01 00:00:00', 1), ('2025001', '2025-09-02 00:00:00', 1), ('设备', '2025-09-02 00:00:00', 2);
         INSERT INTO wxapp_devicegroup (id, group_code, created_time) VALUES (1, '2025001', '2025-09-01 00:00:00');
         INSERT INTO wxapp_datacollectionsession VALUES
            (3, '2025-09-27 15:59:58', '2025-09-27 16:05:00', 'completed', 1, 1),
            (7, '2025-09-28 08:00:00.5', NULL, 'stopping', 1, 2),
            (8, '2025-09-28 09:00:00', NULL, 'calibrating', 1, 1),
            (9, '2025-09-28 10:00:00', '2025-09-28 10:10:00', 'completed', 1, 12);
         INSERT INTO wxapp_analysisresult (phase_delay, energy_ratio, rom_data, analysis_time, session_id) VALUES
            ('{\"waist_to_shoulder\": 0.081, \"shoulder_to_wrist\": 0.049}', 0.61, '{\"waist\": 43.2, \"shoulder\": 111.8, \"wrist\": 47.5}', '2025-09-27 16:06:00', 3),
            ('{\"waist_to_shoulder\": 0.08, \"shoulder_to_wrist\": 0.05}', 0.75, '{\"waist\": 45, \"shoulder\": 120, \"wrist\": 45}', '2025-09-28 10:11:00', 9);",
    );
    pool.execute(sqlx::AssertSqlSafe(statements)).await.unwrap();
    let columns = if with_device_time { ", esp32_timestamp" } else { "" };
    let mut transaction = pool.begin().await.unwrap();
    for session in [3, 7] {
        for number in 0..frames_a_session {
            // Over midnight of the device's zone in session 3.
            let ms = number * 10;
            let (minute, second, milli) = (ms / 60_000, ms / 1000 % 60, ms % 1000);
            let time = format!("2025-09-27 16:{minute:02}:{second:02}.{milli:03}000");
            let sensor = ["waist", "shoulder", "wrist"][number as usize % 3];
            let data = format!("{{\"acc\": [0.1, 0.2, 9.8], \"gyro\": [{number}, 1, 2], \"angle\": [1, 2, 3]}}");
            let value = if with_device_time { format!(", '{time}'") } else { String::new() };
            let insert = format!(
                "INSERT INTO wxapp_sensordata (device_code, data, timestamp, session_id, sensor_type{columns}) \
                 VALUES ('2025001', '{data}', '{time}', {session}, '{sensor}'{value})"
            );
            sqlx::query(sqlx::AssertSqlSafe(insert)).execute(&mut *transaction).await.unwrap();
        }
    }
    for (data, session) in
        [("not json", "3"), ("{\"acc\": [1]}", "3"), ("{\"acc\":[1,2,3],\"gyro\":[1,2,3],\"angle\":[1,2,3]}", "NULL")]
    {
        let insert = format!(
            "INSERT INTO wxapp_sensordata (device_code, data, timestamp, session_id, sensor_type) \
             VALUES ('2025002', '{data}', '2025-09-29 01:02:03', {session}, 'waist')"
        );
        sqlx::query(sqlx::AssertSqlSafe(insert)).execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
    pool.close().await;
}

async fn import(folder: &Path, database: &Path, more: &[&str]) -> Value {
    let mut arguments = vec!["import", "django", "--json", "--sqlite", database.to_str().unwrap()];
    arguments.extend(more);
    let (_, out, errors) = run(&arguments, folder).await;
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {errors}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_database_is_taken_over_once_and_served() {
    let folder = tempfile::tempdir().unwrap();
    let (data, database) = (folder.path().join("data"), folder.path().join("db.sqlite3"));
    old_database(&database, true, 900).await;
    let before = std::fs::read(&database).unwrap();
    let dry = import(&data, &database, &["--dry-run"]).await;
    let report = import(&data, &database, &[]).await;
    assert_eq!(dry["frames"], report["frames"], "a dry run counts the same");
    assert_eq!(report["users"]["taken"], 3);
    assert_eq!(
        (&report["sessions"]["taken"], &report["results"]["taken"], &report["collections"]["taken"]),
        (&json!(4), &json!(2), &json!(1))
    );
    assert_eq!(report["frames"]["taken"], 1801);
    assert_eq!(
        report["frames"]["left_out"],
        json!({"its data is not JSON": 1, "its data has no three axes of acc, gyro and angle": 1})
    );
    assert_eq!((&report["bindings"]["taken"], &report["bindings"]["already"]), (&json!(1), &json!(1)));
    assert_eq!(before, std::fs::read(&database).unwrap(), "the old database is only read");

    let again = import(&data, &database, &[]).await;
    assert_eq!(
        (&again["sessions"]["taken"], &again["sessions"]["already"], &again["frames"]["taken"]),
        (&json!(0), &json!(4), &json!(0))
    );
    let counts = sql_on_folder(&data, "SELECT session_id, count(*) AS n, min(t_ns) AS first, max(t_ns) AS last FROM frames GROUP BY session_id ORDER BY 1").await;
    assert_eq!((&counts[0]["session_id"], &counts[0]["n"]), (&json!(3), &json!(900)));
    assert_eq!(counts[0]["last"].as_i64().unwrap() - counts[0]["first"].as_i64().unwrap(), 8_990_000_000);
    verified(&data).await;

    // Served: by every id, under the old numbers; analysed anew, and nobody is told.
    let home = tempfile::tempdir().unwrap();
    std::fs::rename(&data, home.path().join("data")).unwrap();
    let app = TestApp::start_with(|config| config.data_dir = home.path().join("data")).await;
    let mut player = app.socket("/ws/miniprogram/11/").await;
    player.next_of("connection_established").await;
    let done = async {
        while app.get("/api/v2/sessions/3").await.1["session"]["status"] != "completed" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, done).await.expect("the session is analysed anew");
    let (_, result) = app.get("/wxapp/get_analysis/?session_id=3&openid=openid-a").await;
    assert!(result["pipeline"].as_str().is_some_and(|pipeline| pipeline != "replaced system"), "{result}");
    let (_, invented) = app.get("/wxapp/get_analysis/?session_id=9&openid=openid-c&lang=en").await;
    assert_eq!(
        (&invented["pipeline"], &invented["issues"][0]["code"]),
        (&json!("replaced system"), &json!("imported_default"))
    );
    assert_eq!(app.get("/wxapp/get_analysis/?session_id=9&openid=openid-a").await.0, 404);
    assert!(
        player.is_silent_for(std::time::Duration::from_millis(300)).await,
        "results of imported sessions are told to nobody"
    );
    let accounts = app.app().rooms().accounts.clone();
    for (id, openid) in
        [("openid-a", "openid-a"), ("11", "openid-a"), ("1", "openid-a"), ("13", "openid-c"), ("2", "openid-b")]
    {
        assert_eq!(accounts.find(id).await.unwrap().unwrap().openid, openid, "{id}");
    }
    let next = app.start_session("2025001").await;
    assert!(next > 10, "a new session has a number above all imported ones: {next}");
    let (_, open) = app.get("/api/v2/sessions/8").await;
    assert_eq!(open["session"]["status"], "stopped", "what was left open for ever is over: {open}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_goes_on_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (data, database) = (folder.path().join("data"), folder.path().join("db.sqlite3"));
    old_database(&database, false, 3000).await;
    for step in 0..12_u64 {
        let mut child = volant(&["import", "django", "--sqlite", database.to_str().unwrap()], &data)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20 + 25 * step)).await;
        child.kill().await.unwrap();
    }
    import(&data, &database, &[]).await;
    let counts =
        sql_on_folder(&data, "SELECT session_id, count(*) AS n FROM frames GROUP BY session_id ORDER BY n DESC").await;
    let numbers: Vec<i64> = counts.iter().map(|row| row["n"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [3000, 3000, 1]);
    let sessions = sql_on_folder(&data, "SELECT count(*) AS n FROM sessions").await;
    assert_eq!(sessions[0]["n"], 5);
    verified(&data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_old_database_and_a_folder_in_use_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (data, database) = (folder.path().join("data"), folder.path().join("db.sqlite3"));
    std::fs::write(&database, b"no database at all").unwrap();
    let refused = async |database: &Path, folder: &Path| {
        let (success, _, errors) = run(&["import", "django", "--sqlite", database.to_str().unwrap()], folder).await;
        assert!(!success);
        assert_eq!(errors.trim().lines().count(), 1, "{errors}");
        errors
    };
    refused(&database, &data).await;
    refused(&folder.path().join("absent"), &data).await;
    let good = folder.path().join("good.sqlite3");
    old_database(&good, true, 1).await;
    let app = TestApp::start().await;
    let errors = refused(&good, app.data_dir()).await;
    assert!(errors.contains("folder"), "{errors}");
    app.stop().await;
}
