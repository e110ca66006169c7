//! What people take away: rows by choice and form, archives that come back the same, wherever they were cut.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use pipelines::synth::{SynthSpec, generate};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use volant::gateway::Auth;
use volant::store::pack::TableFile;
use volant::store::seal;

use crate::commands::{ask, volant};
use crate::packets::packets_of;
use crate::reanalysis::{eventually, recorded};
use crate::support::TestApp;

/// Two analysed sessions of two devices, in a folder without a server.
async fn two_sessions() -> TempDir {
    let app = TestApp::start().await;
    recorded(&app, "d1", 4).await;
    recorded(&app, "d2", 5).await;
    app.stop().await
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The Parquet files of a folder with their bytes.
fn tables(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for table in ["frames", "strokes", "results"] {
        for day in fs::read_dir(folder.join(table)).unwrap() {
            for file in fs::read_dir(day.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                files.insert(text(path.strip_prefix(folder).unwrap()), fs::read(&path).unwrap());
            }
        }
    }
    files
}

pub async fn whole(folder: &Path) {
    let report = ask(&["verify", "--data-dir", &text(folder), "--json"]).await;
    assert_eq!(report["lost"], json!([]), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_leave_in_every_form_by_choice_and_right() {
    let app = TestApp::start().await;
    recorded(&app, "d1", 4).await;
    recorded(&app, "d2", 5).await;
    let export = async |query: &str| app.request("GET", &format!("/api/v2/export?{query}"), "", "").await;

    // Every form has the rows of the statement that it stands for.
    let lines = async |query: &str| match export(query).await {
        (200, body) => body.as_str().map_or(1, |body| body.lines().count() as i64),
        (status, body) => panic!("{query}: {status} {body}"),
    };
    let count = async |from: &str| app.sql_count(&format!("SELECT count(*) FROM {from}")).await;
    assert_eq!(lines("format=jsonl").await, count("frames").await);
    assert_eq!(lines("format=jsonl&session=2").await, count("frames WHERE session_id = 2").await);
    assert_eq!(lines("format=csv&device=d1").await, count("frames WHERE session_id = 1").await + 1);
    assert_eq!(lines("format=jsonl&table=strokes&session=1&session=2").await, count("strokes").await);
    let stroke = app.sql("SELECT stroke FROM strokes WHERE stroke <> 'other' LIMIT 1").await[0]["stroke"].clone();
    let stroke = stroke.as_str().unwrap();
    let inside = count(&format!("stroke_frames WHERE stroke = '{stroke}'")).await;
    assert!(inside > 0);
    assert_eq!(lines(&format!("format=jsonl&stroke={stroke}")).await, inside);
    let today = app.sql("SELECT CAST(min(date) AS TEXT) AS day FROM frames").await[0]["day"].clone();
    let today = today.as_str().unwrap();
    assert_eq!(lines(&format!("format=jsonl&table=results&from={today}&player=1")).await, 2);

    // What cannot be is told with a code.
    for (query, status, code) in [
        ("session=99", 404, "nothing_to_export"),
        ("to=1999-01-01", 404, "nothing_to_export"),
        ("stroke=%27%20OR%20true", 404, "nothing_to_export"),
        ("session=x", 400, "bad_request"),
        ("format=xls", 400, "bad_request"),
        ("table=users", 400, "bad_request"),
        ("limit=3", 400, "bad_request"),
        ("format=mcap", 400, "one_session"),
        ("format=mat&session=1&table=strokes", 400, "whole_session"),
        ("format=archive&table=strokes", 400, "bad_request"),
        ("format=archive&session=99", 404, "nothing_to_export"),
    ] {
        let (got, problem) = export(query).await;
        assert_eq!((got, &problem["code"]), (status, &json!(code)), "{query}: {problem}");
    }
    // The command asks the server for the same.
    let folder = tempfile::tempdir().unwrap();
    let (there, beside) = (folder.path().join("there.csv"), folder.path().join("beside.csv"));
    ask(&["export", "--url", &app.url(), "--format", "csv", "--out", &text(&there), "--json"]).await;
    ask(&["export", "--data-dir", &text(app.data_dir()), "--format", "csv", "--out", &text(&beside), "--json"]).await;
    assert_eq!(fs::read(&there).unwrap(), fs::read(&beside).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no half file is left");

    let closed = TestApp::start_with(|config| config.auth = Auth::Token).await;
    assert_eq!(closed.get("/api/v2/export").await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_exports_goes_on_and_follows_what_changed() {
    let app = TestApp::start_with(|config| config.sessions.late_grace_s = 3600).await;
    recorded(&app, "d1", 2).await;
    recorded(&app, "d2", 2).await;
    let place = tempfile::tempdir().unwrap();
    let (each, data_dir, url) = (place.path().join("each"), text(app.data_dir()), app.url());
    let out = format!("{}/", text(&each));
    let export = async |from: [&str; 2]| {
        let done = ask(&["export", from[0], from[1], "--format", "parquet", "--out", &out, "--json"]).await;
        (done["files"].as_i64().unwrap(), done["already"].as_i64().unwrap())
    };
    let (server, folder) = (["--url", &url], ["--data-dir", &data_dir]);
    assert_eq!(export(server).await, (2, 0));
    fs::remove_file(each.join("frames-2.parquet")).unwrap();
    assert_eq!(export(server).await, (1, 1));
    // The folder tells the same of its sessions as the server does.
    assert_eq!(export(folder).await, (0, 2));

    // A frame that comes late makes the session another, and its file is made anew.
    let mut device = app.socket("/ws/esp32/d1/").await;
    let track = generate(&SynthSpec { duration_s: 1.0, ..SynthSpec::new(8) }).track;
    device.send(&packets_of(&track, "1", "d1")[0]).await;
    device.next_of("batch_sensor_data_response").await;
    let frames = async || app.sql_count("SELECT count(*) FROM frames WHERE session_id = 1").await;
    eventually(async || {
        app.sql_count("SELECT frame_count FROM results WHERE session_id = 1").await == frames().await
            && app.sql_count("SELECT revision FROM sessions WHERE session_id = 1").await == 2
    })
    .await;
    assert_eq!(export(server).await, (1, 1));
    let held = File::open(each.join("frames-1.parquet")).unwrap();
    let held = ParquetRecordBatchReaderBuilder::try_new(held).unwrap().metadata().file_metadata().num_rows();
    assert_eq!(held, frames().await);
    assert_eq!(export(folder).await, (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_hands_out_archives_whole_or_not_at_all() {
    let app = TestApp::start().await;
    recorded(&app, "d1", 4).await;
    recorded(&app, "d2", 5).await;
    let place = tempfile::tempdir().unwrap();
    let archive = text(&place.path().join("season.tar.zst"));
    let url = app.url();
    let arguments = ["export", "--url", &url, "--format", "archive", "--out", &archive, "--json"];

    // A session that is recording is not in it, and alone it makes none.
    let open = app.start_session("d3").await;
    let mut device = app.socket("/ws/esp32/d3/").await;
    let track = generate(&SynthSpec { duration_s: 1.0, ..SynthSpec::new(8) }).track;
    device.send(&packets_of(&track, &open.to_string(), "d3")[0]).await;
    device.next_of("batch_sensor_data_response").await;
    let alone = app.request("GET", &format!("/api/v2/export?format=archive&session={open}"), "", "").await;
    assert_eq!((alone.0, &alone.1["code"]), (404, &json!("nothing_to_export")));
    let made = ask(&arguments).await;
    assert_eq!(made["sessions"], 2, "{made}");

    // It is the archive that the folder gives, and comes back the same.
    let target = tempfile::tempdir().unwrap();
    let taken = ask(&["import", "archive", &archive, "--data-dir", &text(target.path()), "--json"]).await;
    assert_eq!(taken["taken"], 2, "{taken}");
    assert_eq!(tables(target.path()), tables(app.data_dir()));
    whole(target.path()).await;
    let notes = fs::read_to_string(app.data_dir().join("archives.jsonl")).unwrap();
    assert!(notes.contains(r#""path":"/api/v2/export""#) && notes.contains(r#""sessions":[1,2]"#), "{notes}");

    // A stored file that is not what it was cuts the answer; asked for the rest the server says why, and there is no archive.
    let frames = tables(app.data_dir()).into_keys().find(|name| name.ends_with("/2.parquet")).unwrap();
    let file = app.data_dir().join(frames);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    fs::remove_file(&archive).unwrap();
    let cut = volant(&arguments).await;
    let message = String::from_utf8_lossy(&cut.stderr).into_owned();
    assert!(!cut.status.success() && message.contains("changed while it was read"), "{message}");
    assert!(!Path::new(&archive).exists());

    // Whoever goes away in the middle gives the place back to others.
    for _ in 0..5 {
        // The answer is dropped unread.
        let one = format!("{url}/api/v2/export?format=archive&session=1");
        eventually(async || reqwest::get(&one).await.unwrap().status() == 200).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_was_cut_is_gone_on_with() {
    let app = TestApp::start().await;
    recorded(&app, "d1", 4).await;
    let get = async |headers: &[(&str, &str)]| {
        let mut request = reqwest::Client::new().get(format!("{}/api/v2/export?format=archive", app.url()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (status, tag, range) = (answer.status().as_u16(), header("etag"), header("content-range"));
        (status, tag.unwrap(), range, answer.bytes().await.unwrap())
    };
    let (status, tag, _, whole) = get(&[]).await;
    assert_eq!(status, 200);
    let (half, length) = (whole.len() / 2, whole.len());

    // The rest is what is missing, to the byte, whenever it is asked for.
    let from = format!("bytes={half}-");
    let (status, same, range, rest) = get(&[("range", &from), ("if-range", &tag)]).await;
    assert_eq!((status, &same, &rest[..]), (206, &tag, &whole[half..]));
    assert_eq!(range.unwrap(), format!("bytes {half}-{}/{length}", length - 1));
    let (status, _, range, _) = get(&[("range", &format!("bytes={length}-")), ("if-range", &tag)]).await;
    assert_eq!((status, range.unwrap()), (416, format!("bytes */{length}")));
    // Of another archive, and without knowing of which, there is no rest.
    for headers in [&[("range", from.as_str()), ("if-range", "\"1-0\"")][..], &[("range", from.as_str())]] {
        let (status, other, range, bytes) = get(headers).await;
        assert!(status == 200 && other != tag && range.is_none() && bytes.len().abs_diff(length) < 64, "{status}");
    }

    // A connection that breaks is asked again at once, an earlier run's part is gone on with later.
    let place = tempfile::tempdir().unwrap();
    let archive = text(&place.path().join("season.tar.zst"));
    let part = |ending: &str| format!("{archive}.part{ending}");
    let url = cut_once(app.address(), half as u64).await;
    let made = ask(&["export", "--url", &url, "--format", "archive", "--out", &archive, "--json"]).await;
    assert_eq!((&made["sessions"], &made["resumed_bytes"]), (&json!(1), &json!(0)));
    fs::write(part(""), &whole[..half]).unwrap();
    fs::write(part(".tag"), &tag).unwrap();
    let url = app.url();
    let arguments = ["export", "--url", &url, "--format", "archive", "--out", &archive, "--json"];
    let made = ask(&arguments).await;
    assert_eq!(made["resumed_bytes"], half, "{made}");
    assert!(fs::read(&archive).unwrap() == whole, "the same archive");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);

    // A part that is damaged is found out when all is there, and not gone on with for ever.
    fs::write(part(""), vec![7; half]).unwrap();
    fs::write(part(".tag"), &tag).unwrap();
    fs::remove_file(&archive).unwrap();
    assert!(!volant(&arguments).await.status.success());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);

    // A part of what is no longer the same counts for nothing.
    recorded(&app, "d2", 5).await;
    fs::write(part(""), &whole[..half]).unwrap();
    fs::write(part(".tag"), &tag).unwrap();
    let made = ask(&arguments).await;
    assert_eq!((&made["sessions"], &made["resumed_bytes"]), (&json!(2), &json!(0)));
}

/// A way to the server that breaks once, after so many bytes of an answer.
async fn cut_once(server: std::net::SocketAddr, bytes: u64) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut limit = bytes;
        while let Ok((mut client, _)) = listener.accept().await {
            let most = std::mem::replace(&mut limit, u64::MAX);
            tokio::spawn(async move {
                let mut upstream = tokio::net::TcpStream::connect(server).await.unwrap();
                let (mut from_client, mut to_client) = client.split();
                let (from_server, mut to_server) = upstream.split();
                let mut answer = from_server.take(most);
                tokio::select! {
                    _ = tokio::io::copy(&mut answer, &mut to_client) => {}
                    _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                }
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_comes_back_byte_for_byte_and_once() {
    let source = two_sessions().await;
    let place = tempfile::tempdir().unwrap();
    let archive = text(&place.path().join("season.tar.zst"));
    let made =
        ask(&["export", "--data-dir", &text(source.path()), "--format", "archive", "--out", &archive, "--json"]).await;
    assert_eq!((&made["sessions"], &made["left_out"]), (&json!(2), &json!([])), "{made}");

    let target = tempfile::tempdir().unwrap();
    let into = text(target.path());
    let planned = ask(&["import", "archive", &archive, "--data-dir", &into, "--dry-run", "--json"]).await;
    assert_eq!((&planned["taken"], &planned["dry_run"]), (&json!(2), &json!(true)), "{planned}");
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0, "a dry run writes nothing");
    let taken = ask(&["import", "archive", &archive, "--data-dir", &into, "--json"]).await;
    assert_eq!((&taken["taken"], &taken["players"]), (&json!(2), &json!(1)), "{taken}");
    assert_eq!(tables(target.path()), tables(source.path()));
    whole(target.path()).await;
    // As an import that was killed leaves the file it was writing.
    let unfinished = target.path().join("frames").join("date=2026-11-24").join("_2.parquet.0.tmp");
    fs::create_dir_all(unfinished.parent().unwrap()).unwrap();
    fs::write(&unfinished, "PAR1").unwrap();
    let again = ask(&["import", "archive", &archive, "--data-dir", &into, "--json"]).await;
    assert!(!unfinished.exists(), "the next one tidies up");
    assert_eq!((&again["taken"], &again["already"], &again["players"]), (&json!(0), &json!(2), &json!(0)), "{again}");

    // Frames came late, after the archive was made of the own folder: the session is there, and newer.
    let catalog = sqlx::SqlitePool::connect(&format!("sqlite://{}/catalog.sqlite", text(source.path()))).await.unwrap();
    let late = "UPDATE sessions SET revision = 2, frames_sha256 = 'another' WHERE session_id = 1";
    sqlx::query(late).execute(&catalog).await.unwrap();
    let own = ask(&["import", "archive", &archive, "--data-dir", &text(source.path()), "--json"]).await;
    assert_eq!((&own["taken"], &own["already"]), (&json!(0), &json!(2)), "{own}");
    catalog.close().await;

    // The results are served, by SQL and by the API, as they were.
    let app = TestApp::start_in(target, |_| {}).await;
    let there = TestApp::start_in(source, |_| {}).await;
    for path in ["/api/v2/sessions/1/result", "/api/v2/sessions/2/result"] {
        assert_eq!(app.get(path).await, there.get(path).await);
    }
    assert_eq!(app.sql_count("SELECT count(*) FROM notifications").await, 0, "nobody is told again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_finds_other_numbers_where_its_own_are_taken() {
    let source = two_sessions().await;
    let place = tempfile::tempdir().unwrap();
    let archive = text(&place.path().join("a.tar.zst"));
    ask(&["export", "--data-dir", &text(source.path()), "--format", "archive", "--out", &archive, "--json"]).await;
    let app = TestApp::start().await;
    recorded(&app, "d9", 6).await;
    let target = app.stop().await;
    let own = fs::read(target.path().join(tables(target.path()).keys().next().unwrap())).unwrap();

    let taken = ask(&["import", "archive", &archive, "--data-dir", &text(target.path()), "--json"]).await;
    assert_eq!(taken["taken"], 2, "{taken}");
    let ours = taken["renumbered"]["1"].as_i64().unwrap();
    assert!(ours > 1, "{taken}");
    whole(target.path()).await;
    assert_eq!(fs::read(target.path().join(tables(target.path()).keys().next().unwrap())).unwrap(), own);

    // Values are the same, row by row; only the numbers differ.
    let file = |folder: &Path, session: i64| {
        let name = tables(folder)
            .into_keys()
            .find(|name| name.starts_with("frames") && name.ends_with(&format!("/{session}.parquet")));
        let file = TableFile::open(&folder.join(name.unwrap())).unwrap();
        (seal::read_frames(&file).unwrap(), seal::metadata(&file).unwrap())
    };
    let [before, after] = [file(source.path(), 1), file(target.path(), ours)];
    assert_eq!(format!("{before:?}"), format!("{after:?}"), "NaN is not equal to itself, its text is");
    let errors = before.1.iter().find(|(key, _)| key == seal::KEY_CLOCK_ERRORS_NS);
    assert!(errors.is_some_and(|(_, errors)| errors.contains("\"racket\":")), "{:?}", before.1);
    // Given up and taken again they are the same sessions.
    let given_up = ask(&["retention", "--data-dir", &text(target.path()), "--frames-days", "0", "--json"]).await;
    assert_eq!(given_up["files_deleted"], 2, "the own one may still get late frames: {given_up}");
    let taken = ask(&["import", "archive", &archive, "--data-dir", &text(target.path()), "--json"]).await;
    assert_eq!((&taken["taken"], &taken["brought_back"]), (&json!(2), &json!(2)), "{taken}");
    assert_eq!(taken["renumbered"]["1"], ours, "{taken}");
    whole(target.path()).await;
    assert_eq!(format!("{:?}", file(target.path(), ours)), format!("{after:?}"));

    let app = TestApp::start_in(target, |_| {}).await;
    let there = TestApp::start_in(source, |_| {}).await;
    let columns = "stroke_index, device_code, sensor, start_ns, impact_ns, end_ns, stroke, confidence, metrics";
    let strokes = async |app: &TestApp, session| {
        app.sql(&format!("SELECT {columns} FROM strokes WHERE session_id = {session} ORDER BY 1")).await
    };
    assert_eq!(strokes(&app, ours).await, strokes(&there, 1).await);
    let players = app.sql("SELECT DISTINCT user_id FROM strokes ORDER BY 1").await;
    assert_eq!(players.len(), 2, "the player of another service is another player: {players:?}");
    assert_eq!(app.get(&format!("/api/v2/sessions/{ours}/result")).await.0, 200);
}

/// Archives call players by number and by the service that gave it: folders that no service ever ran on have names too.
#[tokio::test(flavor = "multi_thread")]
async fn players_of_two_folders_stay_two_also_when_one_changes_the_language() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&place.path().join(name));
    let archived = async |data: &str, archive: &str| {
        ask(&["export", "--data-dir", data, "--format", "archive", "--out", archive, "--json"]).await
    };
    for (name, seed) in [("one", "1"), ("two", "2")] {
        let (file, data) = (at(&format!("{name}.parquet")), at(name));
        let made = volant(&["simulate", "--duration", "3", "--seed", seed, "--write", &file]).await;
        assert!(made.status.success(), "{made:?}");
        ask(&["import", "recordings", &file, "--data-dir", &data, "--openid", "me", "--json"]).await;
        archived(&data, &at(&format!("{name}.tar.zst"))).await;
    }
    for archive in ["one.tar.zst", "two.tar.zst"] {
        ask(&["import", "archive", &at(archive), "--data-dir", &at("both"), "--json"]).await;
    }
    let players = "SELECT count(DISTINCT user_id) AS n FROM sessions";
    let both = ask(&["sql", "--data-dir", &at("both"), "--format", "json", players]).await;
    assert_eq!(both, json!([{ "n": 2 }]));

    // What is lost here comes back from the own archive as it was: the player's, whatever they have set since.
    let catalog = sqlx::SqlitePool::connect(&format!("sqlite://{}/catalog.sqlite", at("one"))).await.unwrap();
    for lost in ["UPDATE users SET language = 'en'", "DELETE FROM jobs", "DELETE FROM sessions"] {
        sqlx::query(lost).execute(&catalog).await.unwrap();
    }
    catalog.close().await;
    let taken = ask(&["import", "archive", &at("one.tar.zst"), "--data-dir", &at("one"), "--json"]).await;
    assert_eq!((&taken["taken"], &taken["players"]), (&json!(1), &json!(0)), "{taken}");

    // The number of somebody who was erased is nobody else's.
    ask(&["erase", "--data-dir", &at("one"), "--player", "1", "--json"]).await;
    ask(&["import", "archive", &at("two.tar.zst"), "--data-dir", &at("one"), "--json"]).await;
    let whose = "SELECT user_id FROM sessions";
    assert_eq!(ask(&["sql", "--data-dir", &at("one"), "--format", "json", whose]).await, json!([{ "user_id": 2 }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_was_cut_is_gone_on_with_and_a_damaged_one_is_refused() {
    let source = two_sessions().await;
    let place = tempfile::tempdir().unwrap();
    let (out, partial, log) = (
        place.path().join("a.tar.zst"),
        place.path().join("a.tar.zst.partial"),
        place.path().join("a.tar.zst.partial.log"),
    );
    let folder = text(source.path());
    let path = text(&out);
    let arguments = ["export", "--data-dir", &folder, "--format", "archive", "--out", &path, "--json"];
    ask(&arguments).await;
    let members = async |archive: &Path| {
        let target = tempfile::tempdir().unwrap();
        ask(&["import", "archive", &text(archive), "--data-dir", &text(target.path()), "--json"]).await;
        tables(target.path())
    };
    let expected = tables(source.path());
    let complete = fs::read(&out).unwrap();

    // As a kill leaves it: the archive as long as it was, lines for what was whole, the last one torn.
    for part in [0, 1, complete.len() / 3, complete.len() / 2, complete.len() - 1] {
        fs::remove_file(&out).ok();
        fs::write(&partial, &complete[..part]).unwrap();
        let lines = journal(&complete, part);
        fs::write(&log, &lines).unwrap();
        let made = ask(&arguments).await;
        let kept = made["resumed_members"].as_u64().unwrap() as usize;
        assert_eq!(kept, lines.split(|&byte| byte == b'\n').count() - 1, "{made}");
        assert!(!partial.exists() && !log.exists());
        assert_eq!(members(&out).await, expected);
    }
    // Bytes that are not what the log says are found when the archive is read back.
    fs::remove_file(&out).unwrap();
    let mut spoiled = complete[..complete.len() / 2].to_vec();
    let middle = spoiled.len() / 2;
    spoiled[middle] ^= 0x55;
    fs::write(&partial, &spoiled).unwrap();
    fs::write(&log, journal(&complete, spoiled.len())).unwrap();
    volant(&arguments).await;
    if !out.exists() {
        ask(&arguments).await;
    }
    assert_eq!(members(&out).await, expected);

    let damaged = place.path().join("damaged.tar.zst");
    let target = tempfile::tempdir().unwrap();
    for (what, bytes) in [
        ("cut", complete[..complete.len() - 400].to_vec()),
        ("cut early", complete[..complete.len() / 4].to_vec()),
        ("empty", Vec::new()),
        ("text", b"this is no archive".to_vec()),
        (
            "flipped",
            complete
                .iter()
                .enumerate()
                .map(|(at, &byte)| if at == complete.len() / 2 { !byte } else { byte })
                .collect(),
        ),
    ] {
        fs::write(&damaged, bytes).unwrap();
        let output = volant(&["import", "archive", &text(&damaged), "--data-dir", &text(target.path())]).await;
        assert!(!output.status.success(), "{what}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains("damaged.tar.zst") && message.lines().count() == 1, "{what}: {message}");
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0, "{what}: nothing is taken");
    }
}

/// The log of the members that end within the first `length` bytes of an archive.
fn journal(archive: &[u8], length: usize) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut at = 0;
    while at < archive.len() {
        let mut decoder = zstd::Decoder::with_buffer(&archive[at..]).unwrap().single_frame();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut decoder, &mut content).unwrap();
        at = archive.len() - decoder.finish().len();
        let name = String::from_utf8_lossy(&content[..100]).trim_end_matches('\0').to_owned();
        if name.is_empty() || name == "manifest.json" || at > length {
            break;
        }
        let bytes = u64::from_str_radix(std::str::from_utf8(&content[124..135]).unwrap(), 8).unwrap();
        let data = &content[512..512 + bytes as usize];
        let sum = volant::export::hex(&sha2::Sha256::digest(data));
        let line = json!({ "path": name, "bytes": bytes, "sha256": sum, "end": at });
        lines.extend_from_slice(format!("{line}\n").as_bytes());
    }
    lines
}

use sha2::Digest as _;

#[tokio::test(flavor = "multi_thread")]
async fn recordings_of_every_layout_become_sessions_that_are_analysed() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&place.path().join(name));
    let generated = at("own.csv");
    let written = volant(&["simulate", "--write", &generated, "--duration", "20", "--seed", "3"]).await;
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let own = fs::read_to_string(&generated).unwrap();

    // The wrist of the same recording in other units and under other names.
    let mut foreign = String::from("Stamp;A1;A2;A3;W1;W2;W3;Trial\n");
    let mut lines = own.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    let place_of = |name: &str| columns.iter().position(|column| *column == name).unwrap();
    let mut wrist = 0;
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        if fields[place_of("sensor")] != "wrist" {
            continue;
        }
        wrist += 1;
        let number = |name: &str| fields[place_of(name)].parse::<f64>().unwrap_or(f64::NAN);
        let accel = ["ax", "ay", "az"].map(|axis| number(axis) / 9.80665);
        let gyro = ["gx", "gy", "gz"].map(|axis| number(axis).to_radians());
        let [a, w] = [accel, gyro].map(|axes| axes.map(|value| value.to_string()).join(";"));
        let stamp = 1_700_000_000.0 + number("t_ms") / 1e3;
        foreign.push_str(&[&stamp.to_string(), &*a, &*w, "first\n"].join(";"));
    }
    fs::write(place.path().join("foreign.csv"), foreign).unwrap();
    let mapping = "sensor = \"wrist\"\nrecording_column = \"trial\"\n[time]\ncolumn = \"stamp\"\nunit = \"s\"\n\
                   [accel]\ncolumns = [\"A1\", \"A2\", \"A3\"]\nunit = \"g\"\n\
                   [gyro]\ncolumns = [\"W1\", \"W2\", \"W3\"]\nunit = \"rad/s\"\n";
    fs::write(place.path().join("map.toml"), mapping).unwrap();
    let case = |first: i32, class: &str| {
        format!("{first},1,2:{}:{class}\n", ["3,4,5", "9,9,9", "1,2,3", "0,0,0", "?,7,8"].join(":"))
    };
    let ts = format!("# cases\n@problemName X\n@data\n{}{}", case(0, "Clear"), case(1, "Smash"));
    fs::write(place.path().join("cases.ts"), ts).unwrap();

    let data = at("data");
    let mut arguments = vec!["import", "recordings", &generated, "--data-dir", &data, "--openid", "somebody", "--json"];
    let started = ["--started-at", "2026-03-01T10:00:00Z"];
    arguments.extend(started);
    let planned = ask(&[&arguments[..], &["--dry-run"]].concat()).await;
    assert_eq!((&planned["recordings"][0]["session_id"], &planned["dry_run"]), (&json!(null), &json!(true)));
    assert!(!Path::new(&data).exists());
    let taken = ask(&arguments).await;
    assert_eq!(taken["frames"], own.lines().count() - 1, "{taken}");
    assert_eq!(ask(&arguments).await["already"], 1);
    let [foreign_path, map_path, ts_path] = ["foreign.csv", "map.toml", "cases.ts"].map(at);
    let mapped =
        ask(&["import", "recordings", &foreign_path, "--mapping", &map_path, "--data-dir", &data, "--json"]).await;
    assert_eq!((&mapped["frames"], &mapped["recordings"][0]["name"]), (&json!(wrist), &json!("first")), "{mapped}");
    let cases = ask(&["import", "recordings", &ts_path, "--ts-sensor", "racket", "--data-dir", &data, "--json"]).await;
    assert_eq!((&cases["frames"], cases["recordings"].as_array().map(Vec::len)), (&json!(6), Some(2)), "{cases}");

    // What is wrong is told with its place, and nothing is written.
    for (name, content, extra, why) in [
        ("bad.csv", "t_ms,ax\n1,2\n", None, "find column"),
        ("bad.toml", "sensor = \"knee\"\n", Some(foreign_path.as_str()), "knee"),
        ("bad.ts", "@data\n1,2:3,4:a\n", None, "line 2"),
    ] {
        let path = at(name);
        fs::write(&path, content).unwrap();
        let never = at("never");
        let arguments = match extra {
            Some(file) => vec!["import", "recordings", file, "--mapping", &path, "--data-dir", &never],
            None => vec!["import", "recordings", &path, "--data-dir", &never],
        };
        let output = volant(&arguments).await;
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && message.contains(why) && message.contains(name), "{message}");
        assert!(!Path::new(&never).exists());
    }

    // The service analyses them; the same swing in other words is the same swing.
    whole(Path::new(&data)).await;
    let folder = tempfile::tempdir().unwrap();
    let inside = Path::new(&data).to_owned();
    let app = TestApp::start_in(folder, |config| config.data_dir = inside).await;
    crate::reanalysis::eventually(async || app.sql_count("SELECT count(*) FROM results").await == 4).await;
    let first = app.sql("SELECT CAST(min(date) AS TEXT) AS day FROM frames WHERE session_id = 1").await;
    assert_eq!(first[0]["day"], "2026-03-01");
    let wrist_sum = async |session: i64| {
        let select = "SELECT sum(gyro_norm_dps) AS g, sum(accel_norm_mps2) AS a FROM frames_si WHERE sensor = 'wrist'";
        let row = app.sql(&format!("{select} AND session_id = {session}")).await.remove(0);
        ["g", "a"].map(|name| row[name].as_f64().unwrap())
    };
    for (here, there) in wrist_sum(1).await.into_iter().zip(wrist_sum(2).await) {
        assert!((here - there).abs() < 1e-5 * here, "{here} is not {there}");
    }
    assert!(app.sql_count("SELECT count(*) FROM strokes WHERE session_id = 1").await > 2);
    assert_eq!(app.sql_count("SELECT count(*) FROM frames WHERE gyro_z IS NULL").await, 2, "a ? is a missing value");
    assert_eq!(app.sql_count("SELECT count(*) FROM notifications").await, 0, "nobody waits for an old recording");
}
