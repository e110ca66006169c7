//! A session closes: its frames are stored once more, in fewer bytes, and everything else stays as it was. Also if the service ends in
//! between, and for those who have the file that was there before.

use std::fs;
use std::path::{Path, PathBuf};

use pipelines::synth::{SynthSpec, generate};
use serde_json::{Value, json};
use tempfile::TempDir;
use volant::export::Archive;
use volant::store::catalog::Catalog;
use volant::store::pack;
use volant::store::paths::{Paths, TablePath};
use volant::store::seal;

use crate::commands::{ask, volant};
use crate::exports::whole;
use crate::kill::process::sql_on_folder;
use crate::reanalysis::{eventually, recorded_as};
use crate::support::TestApp;

const VALUES: &str = "SELECT * FROM frames ORDER BY session_id, sensor, t_ns, seq";
/// What footers know.
const BOUNDS: &str = "SELECT count(*) AS n, min(t_ns) AS first, max(t_ns) AS last FROM frames";

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A session of some length: short ones have little to gain.
async fn session(app: &TestApp, seed: u64) -> i64 {
    recorded_as(app, "d1", &generate(&SynthSpec { duration_s: 40.0, ..SynthSpec::new(seed) }).track).await
}

/// The file of the only session's frames, by its name.
fn frames_file(folder: &Path) -> (TablePath, PathBuf) {
    let days = fs::read_dir(folder.join("frames")).unwrap().map(|day| day.unwrap().path());
    let mut files = days.flat_map(|day| fs::read_dir(day).unwrap()).map(|file| file.unwrap().path());
    let file = files.find(|file| file.ends_with("1.parquet")).unwrap();
    (text(file.strip_prefix(folder).unwrap()).parse().unwrap(), file)
}

fn length(folder: &Path) -> u64 {
    fs::metadata(frames_file(folder).1).unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_session_is_the_same_in_fewer_bytes() {
    let app = TestApp::start_with(|config| config.sessions.late_grace_s = 3).await;
    session(&app, 1).await;
    let (folder, data_dir) = (app.data_dir().to_owned(), text(app.data_dir()));
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&place.path().join(name));
    let archive = async |name: &str| {
        ask(&["export", "--data-dir", &data_dir, "--format", "archive", "--out", &at(name), "--json"]).await
    };
    // While it may still get late frames, it is what was sealed.
    archive("before.tar.zst").await;
    ask(&["backup", "--data-dir", &data_dir, "--out", &at("backup"), "--json"]).await;
    let results = "SELECT * FROM results";
    let (sealed, values, result) = (length(&folder), app.sql(VALUES).await, app.sql(results).await);
    assert!(app.sql_count("SELECT count(*) FROM sessions WHERE revision = 1").await == 1);

    eventually(async || length(&folder) < sealed).await;
    eventually(async || ask(&["verify", "--data-dir", &data_dir, "--json"]).await["newer_files"] == 0).await;
    whole(&folder).await;
    assert_eq!((app.sql(VALUES).await, app.sql(results).await), (values.clone(), result));
    assert_eq!(sql_on_folder(&folder, VALUES).await, values);
    assert_eq!(app.sql_count("SELECT count(*) FROM sessions WHERE revision = 1").await, 1);
    assert_eq!(app.sql(BOUNDS).await, sql_on_folder(&folder, BOUNDS).await);
    archive("after.tar.zst").await;

    // Both archives hold this session, and either brings its frames back.
    for name in ["before.tar.zst", "after.tar.zst", "before.tar.zst"] {
        let import = ["import", "archive", &at(name), "--url", &app.url(), "--json"];
        let known = ask(&import).await;
        assert_eq!((&known["taken"], &known["already"]), (&json!(0), &json!(1)), "{name}: {known}");
        eventually(async || {
            ask(&["retention", "--data-dir", &data_dir, "--frames-days", "0", "--json"]).await;
            app.sql_count("SELECT count(*) FROM frames").await == 0
        })
        .await;
        let back = ask(&import).await;
        assert_eq!((&back["taken"], &back["brought_back"]), (&json!(1), &json!(1)), "{name}: {back}");
        assert_eq!(app.sql(VALUES).await, values, "{name}");
        whole(&folder).await;
    }
    assert_eq!(app.sql_count("SELECT count(*) FROM sessions").await, 1);
    // So does the backup that was made before.
    ask(&["restore", &at("backup"), "--data-dir", &at("restored"), "--json"]).await;
    whole(Path::new(&at("restored"))).await;
    assert_eq!(sql_on_folder(Path::new(&at("restored")), VALUES).await, values);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_ends_while_it_closes_a_session_goes_on_with_it() {
    let app = TestApp::start_with(|config| config.sessions.late_grace_s = 3600).await;
    session(&app, 2).await;
    let values = app.sql(VALUES).await;
    let folder = app.stop().await;
    let sealed = length(folder.path());

    // As if killed between the file and the catalog.
    let (path, file) = frames_file(folder.path());
    let paths = Paths::new(folder.path());
    let (_, sum) = pack::locate(&paths, path).unwrap().sha256().unwrap();
    seal::make_smaller(&paths, path, &sum, &|| true).unwrap().unwrap();
    let small = fs::read(&file).unwrap();
    assert!((small.len() as u64) < sealed);
    let report = ask(&["verify", "--data-dir", &text(folder.path()), "--json"]).await;
    assert_eq!((&report["lost"], &report["newer_files"]), (&json!([]), &json!(1)), "{report}");
    assert_eq!(sql_on_folder(folder.path(), VALUES).await, values);

    // A backup of that moment is one, and what is restored from it closes the session.
    let place = tempfile::tempdir().unwrap();
    let backup = text(&place.path().join("backup"));
    ask(&["backup", "--data-dir", &text(folder.path()), "--out", &backup, "--json"]).await;
    let restored = tempfile::tempdir().unwrap();
    fs::remove_dir(restored.path()).unwrap();
    ask(&["restore", &backup, "--data-dir", &text(restored.path()), "--json"]).await;
    closes(restored, &small, &values).await;

    let app = TestApp::start_in(folder, |config| config.sessions.late_grace_s = 3600).await;
    assert_eq!(app.sql(VALUES).await, values, "as it is found");
    closes(app.stop().await, &small, &values).await;
}

/// A service on the folder closes its session with the file that is there.
async fn closes(folder: TempDir, small: &[u8], values: &[Value]) {
    let app = TestApp::start_in(folder, |config| config.sessions.late_grace_s = 0).await;
    let data_dir = text(app.data_dir());
    eventually(async || ask(&["verify", "--data-dir", &data_dir, "--json"]).await["newer_files"] == 0).await;
    whole(app.data_dir()).await;
    assert_eq!(fs::read(frames_file(app.data_dir()).1).unwrap(), small, "it was not written again");
    assert_eq!(app.sql(VALUES).await, values);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_has_the_file_that_was_there_when_it_began() {
    let app = TestApp::start_with(|config| config.sessions.late_grace_s = 3600).await;
    session(&app, 4).await;
    let (path, file) = frames_file(app.data_dir());
    let (paths, sealed) = (Paths::new(app.data_dir()), fs::read(&file).unwrap());
    let catalog = Catalog::open_read_only(&paths.catalog()).await.unwrap();
    let archive = Archive::of(&paths, &catalog, &[1], "all".to_owned(), 0).await.unwrap();
    let (_, sum) = pack::locate(&paths, path).unwrap().sha256().unwrap();
    seal::make_smaller(&paths, path, &sum, &|| true).unwrap().unwrap();
    assert_ne!(fs::read(&file).unwrap(), sealed);

    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("a.tar.zst");
    tokio::task::spawn_blocking({
        let out = out.clone();
        move || archive.write(&out, &mut |_, _| {}).unwrap()
    })
    .await
    .unwrap();
    let into = place.path().join("into");
    let taken = ask(&["import", "archive", &text(&out), "--data-dir", &text(&into), "--json"]).await;
    assert_eq!(taken["taken"], 1, "{taken}");
    assert_eq!(fs::read(frames_file(&into).1).unwrap(), sealed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_written_again_stays_and_the_session_closes() {
    let app = TestApp::start_with(|config| config.sessions.late_grace_s = 3600).await;
    session(&app, 3).await;
    let folder = app.stop().await;
    // It is not the file that was sealed: nothing may be made of it.
    let (path, file) = frames_file(folder.path());
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let app = TestApp::start_in(folder, |config| config.sessions.late_grace_s = 0).await;
    let catalog = Catalog::open_read_only(&Paths::new(app.data_dir()).catalog()).await.unwrap();
    eventually(async || catalog.unclosed_sessions().await.unwrap().is_empty()).await;
    assert_eq!(fs::read(&file).unwrap(), bytes);
    let folder = app.stop().await;
    let verified = volant(&["verify", "--data-dir", &text(folder.path()), "--json"]).await;
    let report = String::from_utf8(verified.stdout).unwrap();
    assert!(report.contains(&path.to_string()), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_has_become_full_is_left_to_frames() {
    let app = TestApp::start_with(|config| config.sessions.late_grace_s = 3600).await;
    session(&app, 5).await;
    let sealed = length(app.data_dir());
    let app = TestApp::start_in(app.stop().await, |config| {
        config.sessions.late_grace_s = 0;
        config.store.min_free_bytes = u64::MAX / 2;
    })
    .await;
    let catalog = Catalog::open_read_only(&Paths::new(app.data_dir()).catalog()).await.unwrap();
    eventually(async || catalog.unclosed_sessions().await.unwrap().is_empty()).await;
    assert_eq!(length(app.data_dir()), sealed);
    whole(app.data_dir()).await;
}
