//! The page's own files: nothing missing, nothing foreign, every text in both languages.

use std::collections::BTreeSet;

use axum::body::to_bytes;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;

use super::assets::{asset, index};

async fn text(response: Response) -> String {
    String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap()
}

async fn file(path: &str) -> Response {
    asset(Path(path.to_owned()), HeaderMap::new()).await
}

/// The quoted strings of `text` that follow `before`.
fn after<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    text.match_indices(before)
        .filter_map(|(place, _)| {
            let rest = &text[place + before.len()..];
            let quote = rest.chars().next().filter(|c| "\"'".contains(*c))?;
            rest[1..].split(quote).next()
        })
        .collect()
}

/// Every file that the page reaches, by following what loads what.
async fn reached() -> Vec<(String, String)> {
    let page = text(index(HeaderMap::new()).await).await;
    let mut found = vec![("index.html".to_owned(), page.clone())];
    let mut queue = [after(&page, "href="), after(&page, "src=")]
        .concat()
        .into_iter()
        .filter_map(|path| path.strip_prefix("/assets/").map(str::to_owned))
        .collect::<Vec<_>>();
    while let Some(path) = queue.pop() {
        if found.iter().any(|(known, _)| *known == path) {
            continue;
        }
        let response = file(&path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path} is loaded but not there");
        let content = text(response).await;
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for import in after(&content, " from ") {
            queue.push(match (import.strip_prefix("./"), import.strip_prefix("../")) {
                (Some(name), _) if folder.is_empty() => name.to_owned(),
                (Some(name), _) => format!("{folder}/{name}"),
                (_, Some(name)) => name.to_owned(),
                _ => panic!("{path} imports {import}, which is not a file of the page"),
            });
        }
        found.push((path, content));
    }
    found
}

#[tokio::test]
async fn the_page_loads_its_own_files_and_nothing_else() {
    let found = reached().await;
    assert!(found.len() >= 10, "{:?}", found.iter().map(|(path, _)| path).collect::<Vec<_>>());
    for (path, content) in &found {
        let foreign = content.match_indices("://").filter(|(place, _)| {
            let before = &content[..*place];
            // Namespaces, the page's own socket and an example for the reader are no addresses to load from.
            !["http", "${scheme}", "ws"].iter().any(|scheme| before.ends_with(scheme))
                || content[place + 3..].starts_with("cdn")
        });
        assert_eq!(foreign.count(), 0, "{path}");
        for banned in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!content.contains(banned), "{path} uses {banned}: data must never become markup");
        }
    }
    assert_eq!(file("../Cargo.toml").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn both_languages_have_every_text_that_is_used() {
    let found = reached().await;
    let content = |name: &str| &found.iter().find(|(path, _)| path == name).unwrap().1;
    let i18n = content("i18n.js");
    let (_, tables) = i18n.split_once("const EN = {").unwrap();
    let (english, rest) = tables.split_once("\n};").unwrap();
    let (chinese, _) = rest.split_once("const ZH = {").unwrap().1.split_once("\n};").unwrap();
    let keys = |table: &str| {
        table
            .match_indices(": \"")
            .map(|(place, _)| table[..place].rsplit([' ', '\n', '{']).next().unwrap().to_owned())
            .collect::<BTreeSet<_>>()
    };
    let (english, chinese) = (keys(english), keys(chinese));
    assert_eq!(english, chinese);
    for (path, script) in found.iter().filter(|(path, _)| path != "index.html") {
        for used in [after(script, "t("), after(script, "tile(value, ")].concat() {
            // Only calls of `t` itself: a name that ends in t is another function.
            if !used.is_empty() && script.contains(&format!(" t(\"{used}\")")) {
                assert!(english.contains(used), "{path} shows {used}, which has no text");
            }
        }
    }
    for kind in schemas::StrokeKind::ALL {
        assert!(english.contains(kind.as_str()), "{kind}");
    }
    for status in schemas::SessionStatus::ALL {
        assert!(english.contains(status.as_str()), "{status}");
    }
}

#[tokio::test]
async fn a_known_file_is_not_sent_again_and_the_page_is_shut_in() {
    let response = index(HeaderMap::new()).await;
    let headers = response.headers().clone();
    let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let mut known = HeaderMap::new();
    known.insert(header::IF_NONE_MATCH, headers[header::ETAG].clone());
    let again = index(known).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(text(again).await, "");
}
