//! What people say was played: kept, corrected, learned from, taken along.

use std::fs;
use std::path::Path;

use pipelines::synth::{Plan, PlannedStroke, SynthSession, SynthSpec, generate};
use schemas::StrokeKind;
use serde_json::{Value, json};
use volant::recordings::{Label, Recording, read_set, write_labels, write_recording};

use crate::commands::{ask, volant};
use crate::kill::process::sql_on_folder;
use crate::reanalysis::{eventually, recorded_as};
use crate::support::TestApp;

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Six smashes, 1.6 s apart.
fn drill() -> SynthSession {
    let strokes = (1..=6).map(|number| PlannedStroke::new(f64::from(number) * 1.6, StrokeKind::Smash)).collect();
    generate(&SynthSpec { duration_s: 12.0, plan: Plan::Strokes(strokes), ..SynthSpec::new(4) })
}

/// Stroke, quality and by whom, of every label of an answer.
fn said(answer: &Value) -> Vec<(Value, Value, Value)> {
    let labels = answer["labels"].as_array().unwrap();
    labels
        .iter()
        .map(|label| (label["stroke_index"].clone(), label["stroke"].clone(), label["labelled_by"].clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swing_is_labelled_where_it_was_found_however_fast_its_frames_came() {
    let app = TestApp::start().await;
    let late = [75.0, 77.0].map(|at_s| PlannedStroke::new(at_s, StrokeKind::Smash)).to_vec();
    let spec = SynthSpec { duration_s: 79.0, rate_hz: 50.0, plan: Plan::Strokes(late), ..SynthSpec::new(4) };
    // More than a minute of frames within seconds: a device that kept them.
    let session = recorded_as(&app, "d1", &generate(&spec).track).await;
    let path = format!("/api/v2/sessions/{session}/labels");
    let (status, answer) = app.post_json(&path, &json!({ "labels": [{ "stroke_index": 1, "stroke": "smash" }] })).await;
    assert_eq!((status, &said(&answer)[0].0), (200, &json!(1)), "{answer}");
    let beyond = json!({ "labels": [{ "impact_ms": 141_000.0, "stroke": "smash" }] });
    assert_eq!(app.post_json(&path, &beyond).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_kept_corrected_and_stand_beside_what_was_found() {
    let app = TestApp::start().await;
    let session = recorded_as(&app, "d1", &drill().track).await;
    let path = format!("/api/v2/sessions/{session}/labels");
    let (_, result) = app.get(&format!("/api/v2/sessions/{session}/result")).await;
    let impacts: Vec<f64> =
        result["analysis"]["strokes"].as_array().unwrap().iter().map(|s| s["impact_ms"].as_f64().unwrap()).collect();
    assert_eq!(app.get(&path).await, (200, json!({ "session_id": session, "labels": [] })));

    let (status, answer) = app
        .post_json(
            &path,
            &json!({ "labels": [
                { "stroke_index": 0, "stroke": "lift" },
                { "impact_ms": impacts[1] + 20.0, "start_ms": impacts[1] - 300.0, "end_ms": impacts[1] + 300.0,
                  "stroke": "my own drop", "quality": "soft" },
                { "impact_ms": impacts[1] + 800.0, "stroke": "clear" },
            ]}),
        )
        .await;
    let admin = json!("admin");
    let expected = [
        (json!(0), json!("lift"), admin.clone()),
        (json!(1), json!("my own drop"), admin.clone()),
        (json!(null), json!("clear"), admin.clone()),
    ];
    assert_eq!((status, said(&answer)), (200, expected.to_vec()), "{answer}");
    // Said anew it is the same swing, by whomever; the player says it here.
    let own = format!("{path}?openid=test_user_123456");
    let again = json!({ "labels": [{ "impact_ms": impacts[0] + 200.0, "stroke": "smash" }] });
    let (status, answer) = app.post_json(&own, &again).await;
    assert_eq!((status, &said(&answer)[0]), (200, &(json!(0), json!("smash"), json!("player"))), "{answer}");
    let back = json!({ "labels": [{ "impact_ms": impacts[1] + 800.0, "stroke": null }] });
    let (_, answer) = app.post_json(&path, &back).await;
    assert_eq!(said(&answer).len(), 2, "{answer}");

    // In SQL as they are, and beside what was found.
    let rows = app.sql("SELECT session_id, user_id, stroke, quality, labelled_by FROM labels ORDER BY impact_ns").await;
    let user = app.get(&format!("/api/v2/sessions/{session}")).await.1["session"]["user_id"].clone();
    assert_eq!(
        rows[1],
        json!({ "session_id": session, "user_id": user, "stroke": "my own drop", "quality": "soft", "labelled_by": "admin" })
    );
    let beside = "SELECT swing_index, label, round(off_ms) AS off_ms, is_right = (stroke = label) AS is_told FROM labelled_swings \
                  ORDER BY label_s";
    let expected = [
        json!({ "swing_index": 0, "label": "smash", "off_ms": -200.0, "is_told": true }),
        json!({ "swing_index": 1, "label": "my own drop", "off_ms": -20.0, "is_told": true }),
    ];
    assert_eq!(app.sql(beside).await, expected);

    // Refused as a whole, with the reason, and nothing of it is kept.
    let good = json!({ "impact_ms": 100.0, "stroke": "clear" });
    for (bad, status, why) in [
        (json!({ "stroke_index": 99, "stroke": "clear" }), 422, "there is no stroke 99"),
        (json!({ "impact_ms": 1.0, "stroke_index": 0, "stroke": "clear" }), 400, "either"),
        (json!({ "stroke": "clear" }), 400, "either"),
        (json!({ "impact_ms": -1.0, "stroke": "clear" }), 400, "in this order"),
        (json!({ "impact_ms": 1e9, "stroke": "clear" }), 400, "in this order"),
        (json!({ "impact_ms": 5.0, "end_ms": 4.0, "stroke": "clear" }), 400, "in this order"),
        (json!({ "impact_ms": 5.0 }), 400, "stroke"),
        (json!({ "impact_ms": 5.0, "stroke": " clear" }), 400, "a name of 1 to 64"),
        (json!({ "impact_ms": 5.0, "stroke": "x".repeat(65) }), 400, "a name of 1 to 64"),
        (json!({ "impact_ms": 5.0, "stroke": "clear", "quality": "fine" }), 400, "quality is one of"),
    ] {
        let (found, problem) = app.post_json(&path, &json!({ "labels": [good, bad] })).await;
        assert!(found == status && problem["detail"].as_str().unwrap().contains(why), "{bad}: {found} {problem}");
    }
    assert_eq!(app.post_json(&path, &json!({ "labels": [] })).await.0, 400);
    assert_eq!(app.sql_count("SELECT count(*) FROM labels").await, 2);

    // The command says the same, and a folder beside the service.
    let (id, url, folder) = (session.to_string(), app.url(), text(app.data_dir()));
    let set = ask(&["labels", "set", &id, "other", "--stroke", "2", "--stroke", "3", "--url", &url, "--json"]).await;
    assert_eq!(said(&set)[2..], [2, 3].map(|index| (json!(index), json!("other"), admin.clone())));
    let unset = ask(&["labels", "unset", &id, "--stroke", "3", "--url", &url, "--json"]).await;
    assert_eq!(unset, app.get(&path).await.1);
    let listed = ask(&["labels", "list", &id, "--data-dir", &folder, "--json"]).await;
    assert_eq!(listed["labels"].as_array().unwrap().len(), 3, "{listed}");
    assert_eq!(listed["labels"][2]["impact_ms"], unset["labels"][2]["impact_ms"]);

    // They survive a restart.
    let app = TestApp::start_in(app.stop().await, |_| {}).await;
    assert_eq!(app.get(&path).await.1, unset);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_is_learned_little_by_little() {
    let app = TestApp::start().await;
    let session = recorded_as(&app, "d1", &drill().track).await;
    let user = app.get(&format!("/api/v2/sessions/{session}")).await.1["session"]["user_id"].as_i64().unwrap();
    let path = format!("/api/v2/players/{user}/calibration");
    let (status, refused) = app.post_json(&path, &json!({})).await;
    assert!(status == 400 && refused["detail"].as_str().unwrap().contains("no swing of this player"), "{refused}");

    // Given with the order they are kept; a slip is told, and nothing of it is kept.
    let impact = app.sql("SELECT impact_ns / 1e6 AS ms FROM strokes ORDER BY stroke_index").await;
    let label = |index: usize, stroke: &str| json!({ "session_id": session, "impact_ms": impact[index]["ms"], "stroke": stroke });
    let (status, slip) = app.post_json(&path, &json!({ "labels": [label(0, "lift"), label(1, "samsh")] })).await;
    assert_eq!((status, &slip["code"]), (422, &json!("unknown_stroke")), "{slip}");
    assert!(slip["detail"].as_str().unwrap().contains("smash"), "{slip}");
    assert_eq!(app.sql_count("SELECT count(*) FROM labels").await, 0);
    let far = json!({ "labels": [{ "session_id": session, "impact_ms": 1e300, "stroke": "lift" }] });
    assert_eq!(app.post_json(&path, &far).await.0, 400);
    let (status, made) = app.post_json(&path, &json!({ "labels": [label(0, "lift")] })).await;
    assert_eq!((status, &made["swings"], &made["left_out"]), (201, &json!({ "lift": 1 }), &json!(0)), "{made}");
    let first = made["model_sha256"].clone();
    let labels = format!("/api/v2/sessions/{session}/labels");
    let said_later = json!({ "labels": [{ "stroke_index": 1, "stroke": "moonwalk" }, { "stroke_index": 2, "stroke": "lift" }, { "stroke_index": 3, "stroke": "other" },
        { "stroke_index": 4, "stroke": "lift", "quality": "unclear" }] });
    assert_eq!(app.post_json(&labels, &said_later).await.0, 200);
    let (status, made) = app.post_json(&path, &json!({})).await;
    assert_eq!(
        (status, &made["swings"], &made["left_out"]),
        (201, &json!({ "lift": 2, "other": 1 }), &json!(2)),
        "{made}"
    );
    assert_ne!(made["model_sha256"], first, "it learned more");
    // What is corrected is unlearned.
    let (_, made) = app.post_json(&path, &json!({ "labels": [label(2, "clear")] })).await;
    assert_eq!(made["swings"], json!({ "clear": 1, "lift": 1, "other": 1 }), "{made}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_set_comes_in_and_out_with_its_labels() {
    let place = tempfile::tempdir().unwrap();
    let set = place.path().join("set");
    fs::create_dir(&set).unwrap();
    let session = drill();
    let recording = Recording { name: "take".to_owned(), track: session.track.clone(), ..Recording::default() };
    write_recording(&set.join("samples.parquet"), &[recording]).unwrap();
    let label = |peak_ms: f64, stroke: &str, quality: &str| Label {
        recording: "take".to_owned(),
        player: "ana".to_owned(),
        start_ms: f64::NAN,
        peak_ms,
        end_ms: f64::NAN,
        stroke: stroke.to_owned(),
        quality: quality.to_owned(),
    };
    let impacts: Vec<f64> = session.truth.strokes.iter().map(|stroke| stroke.impact_ms).collect();
    assert!(impacts.len() > 5, "{impacts:?}");
    let labels = [label(impacts[0], "smash, \"jump\"", "clear"), label(impacts[2], "drop", "ambiguous")];
    write_labels(&set.join("labels.csv"), &labels).unwrap();

    // Into a folder and by a running service, twice: as the set has them.
    let folder = text(&place.path().join("data"));
    let app = TestApp::start().await;
    let url = app.url();
    for into in [["--data-dir", &folder], ["--url", &url]] {
        for already in 0..2 {
            let began = ["--started-at", "2026-03-01T10:00:00Z"];
            let taken = ask(&[&["import", "recordings", &text(&set), "--json"][..], &began, &into[..]].concat()).await;
            assert_eq!(taken["already"], already, "{taken}");
        }
    }
    let kept = "SELECT impact_ns, start_ns, end_ns, stroke, quality FROM labels ORDER BY impact_ns";
    let there = sql_on_folder(Path::new(&folder), kept).await;
    assert_eq!(there.len(), 2);
    assert_eq!(app.sql(kept).await, there);
    assert_eq!(there[0]["stroke"], "smash, \"jump\"");

    // And out again: what nobody named is neither a swing nor a false alarm, what is no stroke is not there.
    eventually(async || app.get("/api/v2/sessions/1/result").await.0 == 200).await;
    let found = app.sql("SELECT impact_ns / 1e6 AS ms FROM strokes ORDER BY stroke_index").await.len();
    let data_dir = text(app.data_dir());
    assert_eq!(
        app.post_json(
            "/api/v2/sessions/1/labels",
            &json!({ "labels": [{ "impact_ms": impacts[4], "stroke": "other" }] })
        )
        .await
        .0,
        200
    );
    let out = place.path().join("out");
    let made = ask(&["labels", "--data-dir", &data_dir, "export", "--out", &text(&out), "--json"]).await;
    assert_eq!(made, json!({ "sessions": 1, "labels": 3, "frames": session.track.len() }));
    let again = read_set(&out).unwrap();
    let counted: Vec<_> = again.labels.iter().filter(|label| label.counts()).collect();
    assert_eq!(
        (counted.len(), &*counted[0].stroke, counted[0].peak_ms),
        (1, "smash, \"jump\"", (impacts[0] * 1e3).round() / 1e3)
    );
    assert_eq!(again.labels.iter().filter(|label| label.quality == "unclear").count(), found - 3);
    assert!(again.labels.iter().all(|label| label.player == "player-1"), "{:?}", again.labels);
    let [ours, theirs] = [&again.recordings[0].track, &read_set(&set).unwrap().recordings[0].track];
    for (role, samples) in theirs.iter() {
        assert_eq!(ours.get(role).unwrap().acc, samples.acc, "{role:?}");
        assert_eq!(ours.get(role).unwrap().t_ns, samples.t_ns, "{role:?}");
    }
    let refused = volant(&["labels", "--data-dir", &data_dir, "export", "--out", &text(&out)]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is there already"));
    let refused = volant(&["labels", "--data-dir", &data_dir, "export", "--out", &text(&out), "--session", "7"]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no such session has labels"));

    // An archive takes them along; one without labels is what programs from before them read.
    let archives = ["with", "without"].map(|name| text(&place.path().join(name).with_extension("tar.zst")));
    let export = |out: &str| ["export", "--url", &url, "--format", "archive", "--out", out].map(str::to_owned).to_vec();
    let run = async |arguments: Vec<String>| {
        let done = volant(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    run(export(&archives[0])).await;
    let labels = app.sql("SELECT * FROM labels ORDER BY impact_ns").await;
    for row in &labels {
        let back = json!({ "labels": [{ "impact_ms": row["impact_ns"].as_f64().unwrap() / 1e6, "stroke": null }] });
        app.post_json("/api/v2/sessions/1/labels", &back).await;
    }
    run(export(&archives[1])).await;
    for (archive, version, expected) in [(&archives[0], 2, &labels[..]), (&archives[1], 1, &[])] {
        let opened = volant::export::Opened::read(Path::new(archive)).unwrap();
        assert_eq!(opened.manifest.version, version);
        let elsewhere = text(&place.path().join(format!("elsewhere-{version}")));
        for _ in 0..2 {
            ask(&["import", "archive", archive, "--data-dir", &elsewhere, "--json"]).await;
        }
        assert_eq!(sql_on_folder(Path::new(&elsewhere), "SELECT * FROM labels ORDER BY impact_ns").await, expected);
    }
    // What somebody said here since stays when the set brings back frames that were given up.
    let own = json!({ "labels": [{ "impact_ms": impacts[0], "stroke": "as I saw it" }] });
    assert_eq!(app.post_json("/api/v2/sessions/1/labels", &own).await.0, 200);
    ask(&["retention", "--data-dir", &data_dir, "--frames-days", "0", "--json"]).await;
    let back = ask(&["import", "recordings", &text(&set), "--url", &url, "--json"]).await;
    assert_eq!(back["recordings"][0]["brought_back"], true, "{back}");
    assert_eq!(app.sql("SELECT stroke FROM labels").await, [json!({ "stroke": "as I saw it" })]);
    app.stop().await;
}
