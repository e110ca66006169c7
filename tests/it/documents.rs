//! The published documents are those that the code makes. `UPDATE_SCHEMAS=1` writes them anew.

use std::path::Path;

use serde_json::Value;

fn is_current(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(file);
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
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
            for status in ["400", "401", "403", "404", "500"] {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_no_text_is_a_problem_like_any_other() {
    let app = crate::support::TestApp::start().await;
    for (method, path) in [("GET", "/api/v2/sessions/%FF"), ("POST", "/api/v2/devices/%FF/check")] {
        let (status, answer) = app.request(method, path, "", "").await;
        assert_eq!((status, answer["code"].as_str()), (404, Some("unknown_path")), "{path}: {answer}");
    }
    app.stop().await;
}
