//! The life of data: a player who is erased is nowhere, a backup that is made under load holds what was acknowledged.

use std::fs;
use std::path::{Path, PathBuf};

use schemas::SessionId;
use serde_json::{Value, json};
use volant::store::catalog::Catalog;
use volant::store::paths::Table;

use crate::commands::{ask, volant};
use crate::packets::packets_of;
use crate::reanalysis::{eventually, recorded, recorded_as};
use crate::support::TestApp;
use pipelines::synth::{SynthSpec, generate};

const OTHER: &str = "the-other-player-openid";

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Files below a folder that hold these bytes.
fn holding(folder: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| fs::read(path).unwrap().windows(bytes.len()).any(|window| window == bytes);
    files(folder).into_iter().filter(holds).collect()
}

async fn fails(arguments: &[&str], why: &str) {
    let output = volant(arguments).await;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains(why), "{arguments:?}: {message}");
}

/// A session of somebody else begins on another device.
async fn start_of_other(app: &TestApp) -> i64 {
    let form = format!("openid={OTHER}&device_group_code=d2&device_code=d2");
    let (_, started) = app.post_form("/wxapp/start_session/", &form).await;
    started["session_id"].as_i64().unwrap()
}

/// The same, with some seconds recorded.
async fn session_of_other(app: &TestApp, duration_s: f64) -> i64 {
    let session = start_of_other(app).await;
    let track = generate(&SynthSpec { duration_s, ..SynthSpec::new(7) }).track;
    let mut device = app.socket("/ws/esp32/d2/").await;
    for packet in packets_of(&track, &session.to_string(), "d2") {
        device.send(&packet).await;
        device.next_of("batch_sensor_data_response").await;
    }
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_player_is_nowhere_and_stays_away() {
    let app = TestApp::start_with(|config| config.sessions.late_grace_s = 0).await;
    recorded(&app, "d1", 4).await;
    let theirs = session_of_other(&app, 8.0).await;
    app.request("POST", &format!("/api/v2/sessions/{theirs}/complete"), "", "").await;
    eventually(async || app.get(&format!("/api/v2/sessions/{theirs}/result")).await.0 == 200).await;
    let frames = app.sql_count(&format!("SELECT count(*) FROM frames WHERE session_id = {theirs}")).await;
    let said = json!({ "labels": [{ "impact_ms": 3000.0, "stroke": OTHER }] });
    assert_eq!(app.post_json(&format!("/api/v2/sessions/{theirs}/labels"), &said).await.0, 200);
    let player =
        app.sql(&format!("SELECT user_id FROM sessions WHERE session_id = {theirs}")).await[0]["user_id"].to_string();
    let others = app.sql("SELECT * FROM strokes WHERE session_id = 1 ORDER BY stroke_index").await;
    let data_dir = text(app.data_dir());
    fails(&["erase", "--data-dir", &data_dir, "--player", &player], "--url names it").await;
    // Closed sessions only: an interval after the grace they are.
    eventually(async || {
        let listed = ask(&["sessions", "show", &theirs.to_string(), "--data-dir", &data_dir, "--json"]).await;
        listed["session"]["status"] == "completed"
    })
    .await;
    let folder = app.stop().await;
    assert!(!holding(folder.path(), OTHER.as_bytes()).is_empty(), "the search finds what is there");

    // Their files lie in packs with those of others, and beside them what the packs replaced.
    let packed = ask(&["compact", "--data-dir", &data_dir, "--after-days", "0", "--json"]).await;
    assert_eq!(packed["tables"]["frames"]["packed_files"], 2, "{packed}");
    let place = tempfile::tempdir().unwrap();
    let [archive, again] = ["season", "again"].map(|name| text(&place.path().join(name).with_extension("tar.zst")));
    // Made twice, and named once; what is written over holds nobody any more.
    for out in [&archive, &archive, &again] {
        ask(&["export", "--data-dir", &data_dir, "--format", "archive", "--out", out, "--json"]).await;
    }
    ask(&["export", "--data-dir", &data_dir, "--session", "1", "--format", "archive", "--out", &again, "--json"]).await;
    let backup = place.path().canonicalize().unwrap().join("backup");
    let back_up = ["backup", "--data-dir", &data_dir, "--out", &text(&backup), "--json"];
    ask(&back_up).await;
    assert!(!holding(&backup, OTHER.as_bytes()).is_empty());
    let planned = ask(&["erase", "--data-dir", &data_dir, "--player", &player, "--dry-run", "--json"]).await;
    assert_eq!((&planned["signature"], planned["files"].as_array().map(Vec::len)), (&json!(""), Some(3)), "{planned}");
    fails(&["erase", "--data-dir", &data_dir, "--player", "99"], "no player 99").await;

    // What a killed run left of an archive for an object store holds them too.
    let outgoing = folder.path().join("outgoing");
    fs::create_dir(&outgoing).unwrap();
    fs::copy(&archive, outgoing.join("0123456789abcdef.tar.zst.partial")).unwrap();

    // So does a file that an import was writing when it was killed.
    let of_a_day =
        files(folder.path()).into_iter().find(|path| path.to_string_lossy().contains("/strokes/date=")).unwrap();
    fs::write(of_a_day.with_file_name("_77.parquet.0.tmp"), OTHER).unwrap();
    for on_its_way in ["_incoming/file-1", "_unpacked"] {
        fs::create_dir_all(folder.path().join(on_its_way)).unwrap();
        fs::write(folder.path().join(on_its_way).join("frames.parquet"), OTHER).unwrap();
    }

    // And what a recovery could not read may be theirs.
    let aside = folder.path().join("wal").join("00000000000000000001.wal.damaged-1");
    fs::write(&aside, OTHER).unwrap();

    // An erasure that was cut between rows and files is finished by the next.
    let receipt_file = place.path().join("receipt.json");
    let arguments =
        ["erase", "--data-dir", &data_dir, "--player", &player, "--receipt", &text(&receipt_file), "--json"];
    let receipt = ask(&arguments).await;
    assert_eq!((&receipt["counts"]["frames"], &receipt["counts"]["labels"]), (&json!(frames), &json!(1)), "{receipt}");
    let gone = receipt["files"].as_array().unwrap();
    assert!(gone.contains(&json!("wal/00000000000000000001.wal.damaged-1")), "{receipt}");
    assert_eq!(
        (&receipt["archives"][0]["path"], &receipt["archives"][1]),
        (&json!(archive), &Value::Null),
        "{receipt}"
    );
    assert_eq!(ask(&["erase", "--check", &text(&receipt_file), "--json"]).await, receipt);
    let again = ask(&arguments).await;
    assert_eq!((&again["counts"], &again["files"]), (&receipt["counts"], &receipt["files"]));
    assert_eq!((&receipt["backups"][0]["path"], &again["backups"]), (&json!(backup), &receipt["backups"]), "{receipt}");
    let mut forged: Value = receipt.clone();
    forged["counts"]["frames"] = json!(frames + 1);
    fs::write(&receipt_file, forged.to_string()).unwrap();
    fails(&["erase", "--check", &text(&receipt_file)], "not what was signed").await;

    // A backup that is made again holds nobody who was erased, and the receipt that is asked for then says so.
    ask(&back_up).await;
    assert_eq!(holding(&backup, OTHER.as_bytes()), Vec::<PathBuf>::new());
    let after = ask(&["erase", "--data-dir", &data_dir, "--player", &player, "--json"]).await;
    assert_eq!(after.get("backups"), None, "{after}");
    assert_eq!(holding(folder.path(), OTHER.as_bytes()), Vec::<PathBuf>::new());
    assert!(!outgoing.exists(), "nothing is on its way any more");
    let left = files(folder.path());
    assert!(!left.iter().any(|path| path.ends_with(format!("{theirs}.parquet"))), "{left:?}");
    assert!(!left.iter().any(|path| path.to_string_lossy().contains("_swap")), "{left:?}");
    assert!(left.iter().any(|path| path.ends_with("1.parquet")), "the others have their own again: {left:?}");
    let report = ask(&["verify", "--data-dir", &data_dir, "--json"]).await;
    assert_eq!(report["lost"], json!([]), "{report}");

    // The archive brings back everybody but them, and a restart finds nothing of them.
    let taken = ask(&["import", "archive", &archive, "--data-dir", &data_dir, "--json"]).await;
    assert_eq!(
        (&taken["erased"], &taken["already"], &taken["taken"]),
        (&json!([theirs]), &json!(1), &json!(0)),
        "{taken}"
    );
    // Another service that took it, and erased the player, does not take them again either; a number says who that is there.
    let elsewhere = text(&place.path().join("elsewhere"));
    // A file in the place of a folder: the import ends between a session's files, as if it had been killed.
    fs::create_dir(&elsewhere).unwrap();
    fs::write(place.path().join("elsewhere/strokes"), "").unwrap();
    let broken = volant(&["import", "archive", &archive, "--data-dir", &elsewhere]).await;
    assert!(!broken.status.success());
    fs::remove_file(place.path().join("elsewhere/strokes")).unwrap();
    let take = ["import", "archive", &archive, "--data-dir", &elsewhere, "--json"];
    assert_eq!(ask(&take).await["taken"], 2);
    let whose = format!("SELECT user_id FROM sessions WHERE session_id = {theirs}");
    let there = ask(&["sql", "--data-dir", &elsewhere, "--format", "json", &whose]).await;
    let receipt =
        ask(&["erase", "--data-dir", &elsewhere, "--player", &there[0]["user_id"].to_string(), "--json"]).await;
    assert_eq!(receipt["counts"]["frames"], frames, "{receipt}");
    let taken = ask(&take).await;
    assert_eq!((&taken["erased"], &taken["already"]), (&json!([theirs]), &json!(1)), "{taken}");
    assert_eq!(taken["players"], 0, "nobody stands for them either: {taken}");

    let app = TestApp::start_in(folder, |_| {}).await;
    assert_eq!(app.sql("SELECT * FROM strokes ORDER BY stroke_index").await, others);
    assert_eq!(app.sql_count("SELECT count(*) FROM sessions").await, 1);
    // The number is not given to anybody again.
    assert!(start_of_other(&app).await > theirs);
    let back = app.sql(&format!("SELECT user_id FROM sessions WHERE session_id > {theirs}")).await;
    assert_ne!(back[0]["user_id"].to_string(), player, "who comes back is somebody new");
}

/// Everybody else goes on: a player is erased by the running service while another records in the same segment of the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_erases_a_player_while_others_record() {
    let app = TestApp::start_with(|config| config.sessions.late_grace_s = 1).await;
    recorded(&app, "d1", 4).await;
    let url = format!("http://{}", app.address());
    let theirs = start_of_other(&app).await;
    let player =
        app.sql(&format!("SELECT user_id FROM sessions WHERE session_id = {theirs}")).await[0]["user_id"].to_string();
    let track = generate(&SynthSpec { duration_s: 8.0, ..SynthSpec::new(7) }).track;
    let mut device = app.socket("/ws/esp32/d2/").await;
    let still = app.start_session("d3").await;
    let mut other_device = app.socket("/ws/esp32/d3/").await;
    let packets =
        packets_of(&generate(&SynthSpec { duration_s: 6.0, ..SynthSpec::new(9) }).track, &still.to_string(), "d3");
    let (first, rest) = packets.split_at(packets.len() / 2);
    for (packet, others) in
        packets_of(&track, &theirs.to_string(), "d2").iter().zip(first.iter().map(Some).chain(std::iter::repeat(None)))
    {
        device.send(packet).await;
        device.next_of("batch_sensor_data_response").await;
        if let Some(packet) = others {
            other_device.send(packet).await;
            other_device.next_of("batch_sensor_data_response").await;
        }
    }
    let mut phone = app.socket(&format!("/ws/miniprogram/{OTHER}/")).await;
    phone.next_of("connection_established").await;

    // Not while they record.
    let path = format!("/api/v2/players/{player}");
    let (status, refused) = app.request("DELETE", &path, "", "").await;
    assert_eq!((status, &refused["code"]), (409, &json!("session_busy")), "{refused}");
    app.request("POST", &format!("/api/v2/sessions/{theirs}/complete"), "", "").await;
    eventually(async || app.get(&format!("/api/v2/sessions/{theirs}/result")).await.0 == 200).await;
    let others = app.sql("SELECT * FROM strokes WHERE session_id = 1 ORDER BY stroke_index").await;
    let frames = app.sql_count(&format!("SELECT count(*) FROM frames WHERE session_id = {theirs}")).await;
    let dry = format!("{path}?dry_run=true");
    eventually(async || app.request("DELETE", &dry, "", "").await.0 == 200).await;
    let (_, planned) = app.request("DELETE", &dry, "", "").await;
    assert_eq!((&planned["signature"], planned["files"].as_array().map(Vec::len)), (&json!(""), Some(3)), "{planned}");
    assert_eq!(app.request("DELETE", "/api/v2/players/99", "", "").await.0, 404);
    assert!(!holding(app.data_dir(), OTHER.as_bytes()).is_empty(), "the search finds what is there");

    // Erased by the command, while the other device goes on.
    let sending = async {
        for packet in rest {
            other_device.send(packet).await;
            assert_eq!(other_device.next_of("batch_sensor_data_response").await["success"], true);
        }
    };
    let arguments = ["erase", "--url", &url, "--player", &player, "--json"];
    let ((), receipt) = tokio::join!(sending, ask(&arguments));
    assert_eq!(receipt["counts"]["frames"], frames, "{receipt}");
    let kept = text(&app.data_dir().join("receipts").join(format!("player-{player}.json")));
    assert_eq!(ask(&["erase", "--check", &kept, "--json"]).await, receipt);
    assert_eq!(ask(&arguments).await["counts"], receipt["counts"], "again, it says the same");
    assert_eq!(phone.closed().await, 4004);

    assert_eq!(holding(app.data_dir(), OTHER.as_bytes()), Vec::<PathBuf>::new());
    assert_eq!(app.sql("SELECT * FROM strokes ORDER BY session_id, stroke_index").await, others);
    let mut logged = std::collections::BTreeMap::new();
    volant::store::wal::read_only(&app.data_dir().join("wal"), |record| {
        *logged.entry(record.session_id.get()).or_insert(0) += record.frames.len();
    })
    .unwrap();
    assert!(!logged.contains_key(&theirs), "{logged:?}");
    let sent = app.sql_count(&format!("SELECT count(*) FROM frames WHERE session_id = {still}")).await;
    assert_eq!(logged.get(&still).map(|&frames| frames as i64), Some(sent), "{logged:?}");

    // And the other session ends as if nothing had happened.
    app.request("POST", &format!("/api/v2/sessions/{still}/complete"), "", "").await;
    eventually(async || app.get(&format!("/api/v2/sessions/{still}/result")).await.0 == 200).await;
    assert_eq!(app.sql_count(&format!("SELECT count(*) FROM frames WHERE session_id = {still}")).await, sent);
    let (_, audit) = app.get("/api/v2/audit?limit=5").await;
    assert!(audit["entries"].as_array().unwrap().iter().any(|entry| entry["action"] == "player.erase"), "{audit}");
    let report = ask(&["verify", "--data-dir", &text(app.data_dir()), "--json"]).await;
    assert_eq!(report["lost"], json!([]), "{report}");
    app.stop().await;
}

/// An import that is killed between a file and its commit leaves a file that the catalog does not name. It is the player's.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_catalog_does_not_name_is_erased_too() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&place.path().join(name));
    let data_dir = at("data");
    for (player, seed) in [("somebody", "1"), (OTHER, "2")] {
        let file = at(&format!("{player}.parquet"));
        let made = volant(&["simulate", "--duration", "6", "--seed", seed, "--write", &file]).await;
        assert!(made.status.success(), "{made:?}");
        ask(&["import", "recordings", &file, "--data-dir", &data_dir, "--openid", player, "--json"]).await;
    }
    let catalog = sqlx::SqlitePool::connect(&format!("sqlite://{data_dir}/catalog.sqlite")).await.unwrap();
    let of_other = "FROM sessions JOIN users USING (user_id) WHERE openid = ?";
    let read = |what: &str| {
        sqlx::query_as::<_, (i64, i64, String)>(sqlx::AssertSqlSafe(format!("{what} {of_other}"))).bind(OTHER)
    };
    let (session, player, file) = read("SELECT session_id, user_id, frames_path").fetch_one(&catalog).await.unwrap();
    let before = "UPDATE sessions SET revision = 0, sealed_rows = 0, frames_path = NULL, frames_bytes = NULL WHERE session_id = ?";
    sqlx::query(before).bind(session).execute(&catalog).await.unwrap();
    catalog.close().await;
    let report = ask(&["verify", "--data-dir", &data_dir, "--json"]).await;
    assert_eq!((&report["files"], &report["unlisted_files"]), (&json!(2), &json!(1)), "{report}");

    // In a pack with those of others as well.
    ask(&["compact", "--data-dir", &data_dir, "--after-days", "0", "--json"]).await;
    let arguments = ["erase", "--data-dir", &data_dir, "--player", &player.to_string(), "--json"];
    let planned = ask(&[&arguments[..], &["--dry-run"]].concat()).await;
    assert_eq!(planned["files"], json!([file]), "{planned}");
    assert_eq!(ask(&arguments).await["files"], json!([file]));
    let report = ask(&["verify", "--data-dir", &data_dir, "--json"]).await;
    assert_eq!((&report["files"], &report["unlisted_files"]), (&json!(1), &json!(0)), "{report}");
}

/// An export that did not come to its end leaves a part of an archive, which holds people like a whole one.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_an_archive_is_named_in_the_receipt_while_it_is_there() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path().canonicalize().unwrap();
    let at = |name: &str| text(&place.join(name));
    let (data_dir, archive) = (at("data"), at("season.tar.zst"));
    for (player, seed) in [("somebody", "1"), (OTHER, "2")] {
        let file = at(&format!("{player}.parquet"));
        volant(&["simulate", "--duration", "6", "--seed", seed, "--write", &file]).await;
        ask(&["import", "recordings", &file, "--data-dir", &data_dir, "--openid", player, "--json"]).await;
    }
    let export = ["export", "--data-dir", &data_dir, "--format", "archive", "--out", &archive, "--json"];
    let whose =
        async |player: &str| ask(&["erase", "--data-dir", &data_dir, "--player", player, "--dry-run", "--json"]).await;
    let damaged = files(&place.join("data")).into_iter().find(|path| path.ends_with("2.parquet")).unwrap();
    let whole = fs::read(&damaged).unwrap();
    let mut other = whole.clone();
    other[1000] ^= 0xff;
    fs::write(&damaged, other).unwrap();
    fails(&export, "2.parquet").await;
    let part = format!("{archive}.partial");
    for player in ["1", "2"] {
        let planned = whose(player).await;
        assert_eq!(
            (&planned["archives"][0]["path"], &planned["archives"][0]["unfinished"]),
            (&json!(part), &json!(true))
        );
    }
    // Gone on with it becomes the archive, or somebody deletes it.
    fs::write(&damaged, &whole).unwrap();
    ask(&export).await;
    let planned = whose("1").await;
    assert_eq!(
        (&planned["archives"][0]["path"], &planned["archives"][1]),
        (&json!(archive), &Value::Null),
        "{planned}"
    );
    assert_eq!(planned["archives"][0].get("unfinished"), None);
}

/// A backup from before an erasure brings nobody back: the erasure leaves its receipt with it.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_erased_is_not_restored() {
    let app = TestApp::start_with(|config| config.sessions.late_grace_s = 0).await;
    recorded(&app, "d1", 4).await;
    let theirs = session_of_other(&app, 6.0).await;
    let player =
        app.sql(&format!("SELECT user_id FROM sessions WHERE session_id = {theirs}")).await[0]["user_id"].to_string();
    let number: i64 = player.parse().unwrap();
    let data_dir = text(app.data_dir());
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&place.path().join(name));
    let back_up = async |name: &str| ask(&["backup", "--data-dir", &data_dir, "--out", &at(name), "--json"]).await;
    // One while they play, one when they have ended, and a copy of that which nobody knows of.
    back_up("early").await;
    app.request("POST", &format!("/api/v2/sessions/{theirs}/complete"), "", "").await;
    eventually(async || app.get(&format!("/api/v2/sessions/{theirs}/result")).await.0 == 200).await;
    back_up("near").await;
    copy_all(&place.path().join("near"), &place.path().join("far"));
    let url = format!("http://{}", app.address());
    let dry = format!("/api/v2/players/{player}?dry_run=true");
    eventually(async || app.request("DELETE", &dry, "", "").await.0 == 200).await;
    for _ in 0..2 {
        let receipt = ask(&["erase", "--url", &url, "--player", &player, "--json"]).await;
        assert_eq!(receipt["backups"].as_array().map(Vec::len), Some(2), "{receipt}");
    }

    let restored = ask(&["restore", &at("near"), "--data-dir", &at("first"), "--json"]).await;
    assert_eq!((&restored["erased"], &restored["still_there"]), (&json!([number]), &json!({})), "{restored}");
    assert_eq!(holding(&place.path().join("first"), OTHER.as_bytes()), Vec::<PathBuf>::new());
    let report = ask(&["verify", "--data-dir", &at("first"), "--json"]).await;
    assert_eq!(report["lost"], json!([]), "{report}");
    let everything = "SELECT session_id, count(*) AS n, sum(seq) AS s FROM frames GROUP BY 1 ORDER BY 1";
    let left = ask(&["sql", "--data-dir", &at("first"), "--format", "json", everything]).await;
    assert_eq!(left, json!(app.sql(everything).await), "everybody else is there");
    let receipt = place.path().join(format!("first/receipts/player-{player}.json"));
    ask(&["erase", "--check", &text(&receipt), "--json"]).await;

    let told = fs::read_to_string(place.path().join("near/erased.jsonl")).unwrap();
    assert_eq!(told.lines().count(), 1, "told once: {told}");

    // The copy brings them back, unless it is given the receipt; one that was tampered with is refused, and nothing made.
    let restored = ask(&["restore", &at("far"), "--data-dir", &at("second"), "--json"]).await;
    assert_eq!(restored["erased"], json!([]));
    assert!(!holding(&place.path().join("second"), OTHER.as_bytes()).is_empty(), "the search finds what is there");
    let receipts = text(&app.data_dir().join("receipts"));
    let restored = ask(&["restore", &at("far"), "--data-dir", &at("third"), "--receipts", &receipts, "--json"]).await;
    assert_eq!(restored["erased"], json!([number]), "{restored}");
    assert_eq!(holding(&place.path().join("third"), OTHER.as_bytes()), Vec::<PathBuf>::new());
    let forged = at("forged.json");
    let text_of = fs::read_to_string(&receipt).unwrap();
    fs::write(&forged, text_of.replace(&format!("\"player\": {player}"), "\"player\": 1")).unwrap();
    let arguments = ["restore", &at("far"), "--data-dir", &at("fourth"), "--receipts", &forged];
    fails(&arguments, "not what was signed").await;
    let foreign = at("foreign");
    volant(&["simulate", "--duration", "3", "--write", &at("theirs.parquet")]).await;
    ask(&["import", "recordings", &at("theirs.parquet"), "--data-dir", &foreign, "--openid", OTHER, "--json"]).await;
    ask(&["erase", "--data-dir", &foreign, "--player", "1", "--json"]).await;
    let foreign = format!("{foreign}/receipts");
    let arguments = ["restore", &at("far"), "--data-dir", &at("fourth"), "--receipts", &foreign];
    fails(&arguments, "a receipt is of another service than the backup").await;
    let none = text(&place.path().join("far/catalog.sqlite"));
    fails(&["restore", &at("far"), "--data-dir", &at("fourth"), "--receipts", &none], "there is no receipt in").await;
    assert!(!place.path().join("fourth").exists() && !place.path().join("_fourth.restoring").exists());

    // A receipt that cannot be read any more is not passed over in silence.
    fs::write(place.path().join("far/erased.jsonl"), &told[..told.len() / 2]).unwrap();
    let output = volant(&["restore", &at("far"), "--data-dir", &at("torn"), "--json"]).await;
    let restored: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &restored["unreadable_receipts"]), (Some(1), &json!(1)), "{restored}");

    // A session that was under way when the backup was made: the data are back, and it is said who is in them.
    let output = volant(&["restore", &at("early"), "--data-dir", &at("fifth"), "--json"]).await;
    let restored: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{restored}");
    assert_eq!(restored["still_there"], json!({ (player.clone()): theirs }), "{restored}");

    // Somebody who came after the backup, and went: an archive does not bring them into the restored folder, and their number is
    // given to nobody.
    let came = session_of_other(&app, 6.0).await;
    app.request("POST", &format!("/api/v2/sessions/{came}/complete"), "", "").await;
    eventually(async || app.get(&format!("/api/v2/sessions/{came}/result")).await.0 == 200).await;
    let archive = at("came.tar.zst");
    let session = came.to_string();
    ask(&[
        "export",
        "--data-dir",
        &data_dir,
        "--session",
        &session,
        "--format",
        "archive",
        "--out",
        &archive,
        "--json",
    ])
    .await;
    let whose = format!("SELECT user_id FROM sessions WHERE session_id = {came}");
    let went = app.sql(&whose).await[0]["user_id"].as_i64().unwrap();
    let dry = format!("/api/v2/players/{went}?dry_run=true");
    eventually(async || app.request("DELETE", &dry, "", "").await.0 == 200).await;
    ask(&["erase", "--url", &url, "--player", &went.to_string(), "--json"]).await;
    let seventh = at("seventh");
    let restored = ask(&["restore", &at("near"), "--data-dir", &seventh, "--json"]).await;
    assert_eq!(restored["erased"], json!([number]), "{restored}");
    let taken = ask(&["import", "archive", &archive, "--data-dir", &seventh, "--json"]).await;
    assert_eq!((&taken["erased"], &taken["taken"]), (&json!([came]), &json!(0)), "{taken}");
    ask(&["erase", "--check", &format!("{seventh}/receipts/player-{went}.json"), "--json"]).await;
    let file = at("new.parquet");
    volant(&["simulate", "--duration", "3", "--write", &file]).await;
    ask(&["import", "recordings", &file, "--data-dir", &seventh, "--openid", "somebody new", "--json"]).await;
    let newest = "SELECT max(user_id) AS user_id FROM players";
    let newest = ask(&["sql", "--data-dir", &seventh, "--format", "json", newest]).await;
    assert_eq!(newest, json!([{ "user_id": went + 1 }]));

    // Made again it holds nobody, and the receipt beside it is of no more use.
    back_up("near").await;
    let restored = ask(&["restore", &at("near"), "--data-dir", &at("sixth"), "--json"]).await;
    assert_eq!(restored["erased"], json!([]), "{restored}");
    assert_eq!(holding(&place.path().join("sixth"), OTHER.as_bytes()), Vec::<PathBuf>::new());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_made_under_load_is_restored_with_all_that_was_acknowledged() {
    let app = TestApp::start().await;
    recorded(&app, "d1", 4).await;
    let data_dir = text(app.data_dir());
    let place = tempfile::tempdir().unwrap();
    let backup = text(&place.path().join("backup"));

    // A session that goes on while the folder is copied.
    let session = app.start_session("d2").await;
    let mut device = app.socket("/ws/esp32/d2/").await;
    let track = generate(&SynthSpec { duration_s: 10.0, ..SynthSpec::new(8) }).track;
    let packets = packets_of(&track, &session.to_string(), "d2");
    let (before, during) = packets.split_at(packets.len() / 2);
    for packet in before {
        device.send(packet).await;
        device.next_of("batch_sensor_data_response").await;
    }
    let acked = app.sql_count(&format!("SELECT count(*) FROM frames WHERE session_id = {session}")).await;
    let sending = async {
        for packet in during {
            device.send(packet).await;
            device.next_of("batch_sensor_data_response").await;
        }
    };
    let arguments = ["backup", "--data-dir", &data_dir, "--out", &backup, "--json"];
    let ((), made) = tokio::join!(sending, ask(&arguments));
    assert!(made["files"].as_i64().unwrap() >= 5, "{made}");

    let restored = |name: &str| text(&place.path().join(name));
    ask(&["restore", &backup, "--data-dir", &restored("first"), "--json"]).await;
    let report = ask(&["verify", "--data-dir", &restored("first"), "--json"]).await;
    assert_eq!(report["lost"], json!([]), "{report}");
    let there = ask(&[
        "sql",
        "--data-dir",
        &restored("first"),
        "--format",
        "json",
        &format!("SELECT count(*) AS n FROM frames WHERE session_id = {session}"),
    ])
    .await;
    assert!(there[0]["n"].as_i64().unwrap() >= acked, "{there} of {acked}");

    // The next run takes what is new, also where the last one was killed: no manifest, a torn file, one of an older time.
    app.request("POST", &format!("/api/v2/sessions/{session}/complete"), "", "").await;
    eventually(async || app.get(&format!("/api/v2/sessions/{session}/result")).await.0 == 200).await;
    fs::remove_file(place.path().join("backup/backup.json")).unwrap();
    fails(&["restore", &backup, "--data-dir", &restored("never")], "not finished").await;
    let frames = files(Path::new(&backup)).into_iter().find(|path| path.ends_with("1.parquet")).unwrap();
    fs::write(&frames, b"torn").unwrap();
    fs::write(place.path().join("backup/wal/_left.tmp"), b"left").unwrap();
    ask(&arguments).await;
    ask(&["restore", &backup, "--data-dir", &restored("second"), "--json"]).await;
    let report = ask(&["verify", "--data-dir", &restored("second"), "--json"]).await;
    assert_eq!(report["lost"], json!([]), "{report}");
    let everything = "SELECT session_id, count(*) AS n, sum(seq) AS s FROM frames GROUP BY 1 ORDER BY 1";
    let copy = ask(&["sql", "--data-dir", &restored("second"), "--format", "json", everything]).await;
    assert_eq!(copy, json!(app.sql(everything).await));

    // A service goes on from it, under the same numbers.
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("data");
    ask(&["restore", &backup, "--data-dir", &text(&inside), "--json"]).await;
    fails(&["restore", &backup, "--data-dir", &text(&inside)], "not empty").await;
    let app = TestApp::start_in(folder, |config| config.data_dir = inside.clone()).await;
    assert_eq!(json!(app.sql(everything).await), copy);
    assert_eq!(recorded_as(&app, "d3", &track).await, session + 1);

    let damaged =
        files(Path::new(&backup)).into_iter().find(|path| path.extension().is_some_and(|kind| kind == "parquet"));
    fs::write(damaged.unwrap(), b"damaged").unwrap();
    fails(&["restore", &backup, "--data-dir", &restored("third")], "damaged").await;
    assert!(!place.path().join("third").exists());
}

fn copy_all(from: &Path, to: &Path) {
    for file in files(from) {
        let copy = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(file, copy).unwrap();
    }
}

/// Wherever the next backup into a folder is cut off, one of the two can be restored: the one before until it is replaced in one
/// step, from then on the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_cut_off_leaves_the_one_before() {
    let app = TestApp::start().await;
    recorded(&app, "d1", 4).await;
    let data_dir = text(app.data_dir());
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let back_up =
        async |name: &str| ask(&["backup", "--data-dir", &data_dir, "--out", &text(&at(name)), "--json"]).await;
    let sessions_of = async |name: &str| {
        let folder = text(&at("restored"));
        ask(&["restore", &text(&at(name)), "--data-dir", &folder, "--json"]).await;
        let report = ask(&["verify", "--data-dir", &folder, "--json"]).await;
        assert_eq!((&report["lost"], &report["unlisted_files"]), (&json!([]), &json!(0)), "{name}: {report}");
        let statement = "SELECT session_id FROM frames GROUP BY 1 ORDER BY 1";
        let found = ask(&["sql", "--data-dir", &folder, "--format", "json", statement]).await;
        fs::remove_dir_all(folder).unwrap();
        found.as_array().unwrap().iter().map(|row| row["session_id"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    back_up("old").await;
    copy_all(&at("old"), &at("new"));
    recorded(&app, "d2", 5).await;
    let made = back_up("new").await;
    assert!(made["kept"].as_i64().is_some_and(|kept| kept >= 3) && !at("new/_next").exists(), "{made}");

    // Cut off while it was copying: what is new waits, some of it torn.
    copy_all(&at("old"), &at("cut"));
    let differs = |file: &PathBuf| {
        let name = file.strip_prefix(at("new")).unwrap();
        name != "backup.json" && fs::read(file).ok() != fs::read(at("old").join(name)).ok()
    };
    let new_files: Vec<PathBuf> = files(&at("new")).into_iter().filter(differs).collect();
    assert!(new_files.len() >= 4, "{new_files:?}");
    for file in &new_files {
        let waiting = at("cut/_next").join(file.strip_prefix(at("new")).unwrap());
        fs::create_dir_all(waiting.parent().unwrap()).unwrap();
        fs::copy(file, waiting).unwrap();
    }
    copy_all(&at("cut"), &at("switched"));
    fs::write(at("cut/_next/_catalog.sqlite.tmp"), b"torn").unwrap();
    fs::write(at("cut/_next").join(new_files[1].strip_prefix(at("new")).unwrap()), b"torn").unwrap();
    assert_eq!(sessions_of("cut").await, [1]);
    back_up("cut").await;
    assert_eq!(sessions_of("cut").await, [1, 2]);
    assert!(!at("cut/_next").exists());

    // Cut off when it was whole: files take their places, in any order, until the last.
    fs::copy(at("new/backup.json"), at("switched/backup.json")).unwrap();
    for file in &new_files {
        let name = file.strip_prefix(at("new")).unwrap();
        assert_eq!(sessions_of("switched").await, [1, 2], "before {} has its place", name.display());
        let there = at("switched").join(name);
        fs::create_dir_all(there.parent().unwrap()).unwrap();
        fs::rename(at("switched/_next").join(name), there).unwrap();
    }
    assert_eq!(sessions_of("switched").await, [1, 2]);
    back_up("switched").await;
    assert!(!at("switched/_next").exists());
    assert_eq!(sessions_of("switched").await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_goes_after_it_was_archived_and_comes_back_from_there() {
    let app = TestApp::start_with(|config| config.sessions.late_grace_s = 0).await;
    let first = recorded(&app, "d1", 4).await;
    let data_dir = text(app.data_dir());
    let place = tempfile::tempdir().unwrap();
    let archives = text(&place.path().join("archives"));
    let closed = async || {
        let catalog = Catalog::open_read_only(&app.data_dir().join("catalog.sqlite")).await.unwrap();
        let row = catalog.session(SessionId(first)).await.unwrap().unwrap();
        catalog.close().await;
        row.closed
    };
    eventually(closed).await;
    let count = "SELECT (SELECT count(*) FROM frames) AS f, (SELECT count(*) FROM strokes) AS s, \
                 (SELECT count(*) FROM results) AS r";
    let before = app.sql(count).await;
    let frames = before[0]["f"].as_i64().unwrap();
    let strokes = app.sql("SELECT * FROM strokes ORDER BY stroke_index").await;
    let result = app.get(&format!("/api/v2/sessions/{first}/result")).await;

    // Nothing is old enough, and a dry run changes nothing.
    let retention = |days: &'static str, more: &[&'static str]| {
        let data_dir = data_dir.clone();
        let archives = archives.clone();
        let more = more.to_vec();
        async move {
            let fixed =
                ["retention", "--data-dir", &data_dir, "--frames-days", days, "--archive-dir", &archives, "--json"];
            ask(&[&fixed[..], &more].concat()).await
        }
    };
    assert_eq!(retention("3", &[]).await["sessions"], json!([]));
    let planned = retention("0", &["--dry-run"]).await;
    assert_eq!((&planned["sessions"], &planned["frames"]), (&json!([first]), &json!(frames)), "{planned}");
    assert_eq!(app.sql(count).await, before);
    assert!(!Path::new(&archives).exists());

    // Where the archive cannot be written, nothing goes.
    fs::write(&archives, b"a file where the folder should be").unwrap();
    fails(&["retention", "--data-dir", &data_dir, "--frames-days", "0", "--archive-dir", &archives], "archives").await;
    assert_eq!(app.sql(count).await, before);
    fs::remove_file(&archives).unwrap();

    // It goes beside the running service, which answers for what is left.
    let gone = retention("0", &[]).await;
    assert_eq!((&gone["sessions"], &gone["files_deleted"]), (&json!([first]), &json!(1)), "{gone}");
    let after = app.sql(count).await;
    assert_eq!((&after[0]["f"], &after[0]["s"], &after[0]["r"]), (&json!(0), &before[0]["s"], &before[0]["r"]));
    assert_eq!(app.get(&format!("/api/v2/sessions/{first}/result")).await.0, 200);
    let (status, answer) = app.get(&format!("/api/v2/sessions/{first}/doctor")).await;
    assert_eq!((status, &answer["code"]), (404, &json!("frames_gone")), "{answer}");
    let report = ask(&["verify", "--data-dir", &data_dir, "--json"]).await;
    assert_eq!(report["lost"], json!([]), "{report}");
    assert_eq!(retention("0", &[]).await["sessions"], json!([]), "once is enough");

    // Strokes and results have an age of their own, and go only where the frames are gone; so does the audit log.
    let kept = app.start_session("d2").await;
    let classes = |results: &'static str, more: &[&'static str]| {
        let data_dir = data_dir.clone();
        let more = more.to_vec();
        async move {
            let fixed =
                ["retention", "--data-dir", &data_dir, "--results-days", results, "--audit-days", results, "--json"];
            ask(&[&fixed[..], &more].concat()).await
        }
    };
    app.post_json("/api/v2/tokens", &json!({ "device_code": "d9" })).await;
    assert_eq!(classes("3", &[]).await["results"], json!([]));
    let planned = classes("0", &["--dry-run"]).await;
    assert_eq!((&planned["results"], &planned["audit_entries"]), (&json!([first]), &json!(1)), "{planned}");
    assert_eq!(app.sql(count).await, after);
    let went = classes("0", &[]).await;
    assert_eq!(
        (&went["results"], &went["audit_entries"], &went["files_deleted"]),
        (&json!([first]), &json!(1), &json!(2)),
        "{went}"
    );
    let (status, answer) = app.get(&format!("/api/v2/sessions/{first}/result")).await;
    assert_eq!((status, &answer["code"], &answer["session_status"]), (404, &json!("no_analysis"), &json!("completed")));
    assert_eq!(app.sql_count("SELECT count(*) FROM strokes").await, 0);
    assert_eq!(app.sql_count("SELECT count(*) FROM sessions").await, 2, "{kept} and what is left of {first}");
    // What its close replaced is there for as long as a statement may be reading it.
    let is_left = |path: &PathBuf| path.ends_with(format!("{first}.parquet")) && !text(path).contains("/_swap/");
    assert!(!files(app.data_dir()).iter().any(is_left));
    let report = ask(&["verify", "--data-dir", &data_dir, "--json"]).await;
    assert_eq!(report["lost"], json!([]), "{report}");
    assert_eq!(classes("0", &[]).await["results"], json!([]), "once is enough");

    let archive = gone["archives"][0].as_str().unwrap();
    let target = text(&place.path().join("restored"));
    let taken = ask(&["import", "archive", archive, "--data-dir", &target, "--json"]).await;
    assert_eq!(taken["frames"], frames, "{taken}");

    // Whoever brings it back, killed on the way or not, keeps a retention at work from deleting what comes.
    let catalog = Catalog::open(&app.data_dir().join("catalog.sqlite")).await.unwrap();
    let deletes = async || catalog.delete_expired(Table::Frames, SessionId(first), || ()).await.unwrap();
    assert_eq!(deletes().await, Some(()));
    catalog.begin_bringing_back(SessionId(first)).await.unwrap();
    assert_eq!(deletes().await, None);
    catalog.close().await;

    // The running service takes back what it gave up: the same session with the same analysis, as old as its return.
    let url = format!("http://{}", app.address());
    let bring = ["import", "archive", archive, "--url", &url, "--json"];
    let planned = ask(&[&bring[..], &["--dry-run"]].concat()).await;
    for brought in [planned, ask(&bring).await] {
        assert_eq!((&brought["taken"], &brought["brought_back"]), (&json!(1), &json!(1)), "{brought}");
        assert_eq!(
            (&brought["already"], &brought["frames"], &brought["players"]),
            (&json!(0), &json!(frames), &json!(0))
        );
    }
    assert_eq!(app.sql(count).await, before);
    assert_eq!(app.sql("SELECT * FROM strokes ORDER BY stroke_index").await, strokes);
    assert_eq!(app.get(&format!("/api/v2/sessions/{first}/result")).await, result);
    assert_eq!(app.get(&format!("/api/v2/sessions/{first}/doctor")).await.0, 200);
    assert_eq!(app.sql_count("SELECT count(*) FROM sessions").await, 2);
    let report = ask(&["verify", "--data-dir", &data_dir, "--json"]).await;
    assert_eq!((&report["lost"], &report["unlisted_files"]), (&json!([]), &json!(0)), "{report}");
    let again = ask(&bring).await;
    assert_eq!((&again["taken"], &again["already"]), (&json!(0), &json!(1)), "{again}");
    let catalog = sqlx::SqlitePool::connect(&format!("sqlite://{data_dir}/catalog.sqlite")).await.unwrap();
    for (column, gone) in [("ended_at_us", json!([])), ("brought_back_at_us", json!([first]))] {
        let earlier = format!("UPDATE sessions SET {column} = {column} - 864000000000 WHERE session_id = {first}");
        sqlx::query(sqlx::AssertSqlSafe(earlier)).execute(&catalog).await.unwrap();
        assert_eq!(retention("5", &["--dry-run"]).await["sessions"], gone, "{column}");
    }
    catalog.close().await;
}
