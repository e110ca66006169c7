//! The published documents are those that the code makes. `UPDATE_SCHEMAS=1` writes them anew.

use std::path::Path;

use serde_json::Value;

fn is_current(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(file);
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "schemas/{file} is not what the code makes; UPDATE_SCHEMAS=1 writes it anew");
}

#[test]
fn openapi_is_current_and_every_operation_says_what_it_is() {
    let text = volant::gateway::openapi_text();
    is_current("openapi.json", &text);
    let document: Value = serde_json::from_str(&text).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut operations = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations += 1;
            assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            for status in ["401", "403", "429", "500"] {
                let content = &operation["responses"][status]["content"];
                assert!(content["application/problem+json"].is_object(), "{method} {path} does not document {status}");
            }
        }
    }
    assert!(operations > 30, "{operations} operations");
}

#[test]
fn asyncapi_is_current() {
    is_current("asyncapi.json", &volant::protocol::asyncapi_text());
}

#[test]
fn documents_of_the_stored_tables_are_current() {
    for (name, schema) in [
        ("frames", schemas::frames::frames_schema()),
        ("strokes", schemas::tables::strokes_schema()),
        ("results", schemas::tables::results_schema()),
    ] {
        is_current(&format!("tables/{name}.json"), &volant::export::described(&schema));
    }
}

/// Files of every version of the stored tables lie in `tests/fixtures/tables/VERSION/`, as they were written then. A change
/// of a table makes a new version, and a new folder; what is there stays readable.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_earlier_version_are_read() {
    use volant::store::pack::TableFile;
    use volant::store::{results, seal};
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tables");
    let mut versions = 0;
    for version in std::fs::read_dir(&fixtures).unwrap().map(|entry| entry.unwrap().path()) {
        versions += 1;
        let told: Value = serde_json::from_slice(&std::fs::read(version.join("expected.json")).unwrap()).unwrap();
        let file = |table: &str| {
            let path = version.join(table).join("date=2026-03-01/1.parquet");
            TableFile::open(&path).unwrap()
        };
        let frames = seal::read_frames(&file("frames")).unwrap();
        let strokes = results::read_strokes(&file("strokes")).unwrap();
        let rows = results::read_results(&file("results")).unwrap();
        assert_eq!(frames.len() as i64, told["frames"].as_i64().unwrap());
        assert_eq!((strokes.len() as i64, rows.len()), (told["strokes"].as_i64().unwrap(), 1));
        // And by SQL, with every column of today.
        let folder = volant::query::Folder::open(&version).unwrap();
        let handle = volant::query::Handle::start(
            volant::query::Options::default(),
            folder.files(),
            std::sync::Arc::new(folder),
        )
        .unwrap();
        for table in ["frames", "strokes", "results"] {
            let answer = handle.query(&format!("SELECT * FROM {table}"), handle.limits()).await.unwrap();
            let batches: Vec<_> = futures::TryStreamExt::try_collect(answer.batches).await.unwrap();
            let count: usize = batches.iter().map(arrow::array::RecordBatch::num_rows).sum();
            let expected = told[table].as_u64().unwrap_or(1);
            assert_eq!(count as u64, expected, "{table} of {}", version.display());
        }
        let sum = handle.query("SELECT sum(gyro_z) FROM frames", handle.limits()).await.unwrap();
        let batches: Vec<_> = futures::TryStreamExt::try_collect(sum.batches).await.unwrap();
        let sum = arrow::array::AsArray::as_primitive::<arrow::datatypes::Float64Type>(batches[0].column(0)).value(0);
        assert!((sum - told["gyro_z_sum"].as_f64().unwrap()).abs() < 1e-3, "{sum}");
    }
    let newest =
        schemas::frames::FRAMES_VERSION.max(schemas::tables::STROKES_VERSION).max(schemas::tables::RESULTS_VERSION);
    assert_eq!(versions, newest, "a folder a version, up to the newest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_no_text_is_a_problem_like_any_other() {
    let app = crate::support::TestApp::start().await;
    for (method, path) in [("GET", "/api/v2/sessions/%FF"), ("POST", "/api/v2/devices/%FF/check")] {
        let (status, answer) = app.request(method, path, "", "").await;
        assert_eq!((status, answer["code"].as_str()), (404, Some("unknown_path")), "{path}: {answer}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_refused_under_v2_is_a_problem_in_json() {
    let app = crate::support::TestApp::start().await;
    let long = "x".repeat(1 << 20);
    for (method, path, body, expected) in [
        ("GET", "/api/v2", "", (404, "unknown_path")),
        ("GET", "/api/v2/nothing", "", (404, "unknown_path")),
        ("PUT", "/api/v2/status", "{}", (405, "method_not_allowed")),
        ("GET", "/api/v2/sql", "", (405, "method_not_allowed")),
        ("POST", "/api/v2/sql", &long, (413, "bad_body")),
    ] {
        let (status, answer) = app.request(method, path, "application/json", body).await;
        assert_eq!((status, answer["code"].as_str()), (expected.0, Some(expected.1)), "{method} {path}: {answer}");
        assert!(answer["title"].is_string() && answer.get("error").is_none(), "{method} {path}: {answer}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_that_join_without_a_hole() {
    let app = crate::support::TestApp::start().await;
    for number in 0..5 {
        let device = format!(r#"{{"device_code":"page-{number}"}}"#);
        assert_eq!(app.post_json("/api/v2/tokens", &serde_json::from_str(&device).unwrap()).await.0, 201);
        app.post_form("/wxapp/esp32/heartbeat/", &format!("device_code=page-{number}&session_id=1")).await;
        let hook = serde_json::json!({ "url": format!("https://example.org/{number}") });
        assert_eq!(app.post_json("/api/v2/webhooks", &hook).await.0, 201);
    }
    for (path, list, id) in [
        ("/api/v2/devices", "devices", "device_code"),
        ("/api/v2/tokens", "tokens", "token_id"),
        ("/api/v2/webhooks", "webhooks", "webhook_id"),
    ] {
        let ids = |answer: &serde_json::Value| -> Vec<String> {
            let items = answer[list].as_array().unwrap();
            items.iter().map(|item| item[id].as_str().unwrap().to_owned()).collect()
        };
        let whole = ids(&app.get(path).await.1);
        assert_eq!(whole.len(), 5, "{path}: {whole:?}");
        let mut joined: Vec<String> = Vec::new();
        loop {
            let after = joined.last().map(|last| format!("&after={last}")).unwrap_or_default();
            let (status, page) = app.get(&format!("{path}?limit=2{after}")).await;
            assert_eq!(status, 200, "{page}");
            let page = ids(&page);
            assert!(page.len() <= 2);
            if page.is_empty() {
                break;
            }
            joined.extend(page);
        }
        assert_eq!(joined, whole, "{path}");
        for wrong in ["limit=0", "limit=1001", "after=nobody", "before=1"] {
            assert_eq!(app.get(&format!("{path}?{wrong}")).await.0, 400, "{path}?{wrong}");
        }
    }
    app.stop().await;
}

/// The blocks of a page in one language, as they stand there.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).filter_map(|rest| Some(rest.split_once("```")?.0.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_page_about_the_api_run_as_they_stand() {
    let app = crate::support::TestApp::start().await;
    // Player 1 and the device are there, as a reader's would be.
    app.start_session("2025001").await;
    let _device = app.socket("/ws/esp32/2025001/").await;
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md")).unwrap();
    let examples = blocks(&page, "sh");
    assert!(!examples.is_empty());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password.txt"), "a password of some length\n").unwrap();
    std::fs::write(folder.path().join(".curlrc"), "fail\nsilent\nshow-error\n").unwrap();
    std::os::unix::fs::symlink(app.data_dir(), folder.path().join("volant-data")).unwrap();
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_volant")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin.to_owned()).chain(std::env::split_paths(&path))).unwrap();
    for example in examples {
        let script = example.replace("127.0.0.1:8000", &app.address().to_string());
        let mut shell = tokio::process::Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &script]).current_dir(folder.path());
        shell.env("PATH", &path).env("HOME", folder.path());
        let output = shell.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{script}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
        for what in ["\"sessions\":", "\"command\":\"queued\"", "\"answered\":"] {
            assert!(said.contains(what), "{what}: {said}");
        }
    }
    app.stop().await;
}
