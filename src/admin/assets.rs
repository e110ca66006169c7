//! The dashboard's files, built into the binary.

use std::fmt::Write;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

struct Asset {
    path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

macro_rules! asset {
    ($path:literal, $content_type:expr) => {
        Asset { path: $path, content_type: $content_type, content: include_str!(concat!("../../web/", $path)) }
    };
}

const INDEX: Asset = asset!("index.html", HTML);

const TEST_PAGE: Asset = asset!("websocket-test.html", HTML);

const ASSETS: [Asset; 15] = [
    asset!("style.css", CSS),
    asset!("app.js", JS),
    asset!("api.js", JS),
    asset!("dom.js", JS),
    asset!("i18n.js", JS),
    asset!("live.js", JS),
    asset!("strokes.js", JS),
    asset!("websocket-test.js", JS),
    asset!("views/labels.js", JS),
    asset!("views/reanalysis.js", JS),
    asset!("views/login.js", JS),
    asset!("views/overview.js", JS),
    asset!("views/sessions.js", JS),
    asset!("views/session.js", JS),
    asset!("views/sql.js", JS),
];

/// One tag for all files: they belong together, and change together.
static TAG: LazyLock<HeaderValue> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for asset in [&INDEX, &TEST_PAGE].into_iter().chain(&ASSETS) {
        hash.update(asset.content);
    }
    let digest = hash.finalize();
    let mut tag = String::from("\"");
    for byte in digest.iter().take(12) {
        // Writing to a String cannot fail.
        write!(tag, "{byte:02x}").ok();
    }
    tag.push('"');
    HeaderValue::from_str(&tag).expect("hexadecimal digits are visible ASCII")
});

/// The page may load from this server only and is shown in no other page's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page itself, for `GET /` without an upgrade to WebSocket.
pub async fn index(headers: HeaderMap) -> Response {
    respond(&INDEX, &headers)
}

/// `GET /websocket-test/`: a client of the sockets to work by hand.
pub(super) async fn test_page(headers: HeaderMap) -> Response {
    respond(&TEST_PAGE, &headers)
}

/// A file of the page.
pub(super) async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|asset| asset.path == path) {
        Some(asset) => respond(asset, &headers),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn respond(asset: &Asset, headers: &HeaderMap) -> Response {
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag == *TAG);
    let fixed = [
        (header::ETAG, TAG.clone()),
        // Ask each time, so that a new version of the server is a new page.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    if known {
        return (StatusCode::NOT_MODIFIED, fixed).into_response();
    }
    (fixed, [(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type))], asset.content).into_response()
}
