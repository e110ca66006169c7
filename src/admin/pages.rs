//! The routes of the pages.

use std::fmt::Write as _;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use axum::Router;
use axum::extract::{Path, Query, State as AxumState};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use schemas::SessionId;
use serde::Deserialize;

use super::session::{Error, State, rows, session_report};
use crate::report::{Lang, STYLE, escape};

/// Sessions that the list shows; SQL has them all.
const LISTED_SESSIONS: usize = 100;

/// The pages, for the gateway to fall back to.
pub fn router(state: State) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/sessions/{session_id}", get(report))
        .route("/sessions/{session_id}/", get(report))
        .with_state(state)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wishes {
    lang: Option<String>,
}

/// The language asked for in the query, else the one that the browser prefers.
fn lang_of(wishes: &Wishes, headers: &HeaderMap) -> Lang {
    if let Some(lang) = wishes.lang.as_deref().and_then(|lang| lang.parse().ok()) {
        return lang;
    }
    let preferred = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if preferred.trim_start().starts_with("zh") { Lang::Zh } else { Lang::En }
}

async fn report(
    AxumState(state): AxumState<State>,
    Path(session_id): Path<String>,
    Query(wishes): Query<Wishes>,
    headers: HeaderMap,
) -> Response {
    let lang = lang_of(&wishes, &headers);
    let Ok(session_id) = session_id.parse::<SessionId>() else {
        return message(StatusCode::NOT_FOUND, lang, ["There is no such session.", "没有这次训练。"]);
    };
    match session_report(&state, session_id, lang).await {
        Ok(Some(page)) => page_of(page),
        Ok(None) => {
            message(StatusCode::NOT_FOUND, lang, ["This session has no result, or none yet.", "这次训练还没有结果。"])
        }
        Err(error) => failed(&error, lang),
    }
}

async fn index(AxumState(state): AxumState<State>, Query(wishes): Query<Wishes>, headers: HeaderMap) -> Response {
    let lang = lang_of(&wishes, &headers);
    match list(&state, lang).await {
        Ok(page) => page_of(page),
        Err(error) => failed(&error, lang),
    }
}

/// A page that stands alone and loads nothing.
fn page_of(page: String) -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy), (header::CACHE_CONTROL, "no-store")], Html(page)).into_response()
}

fn failed(error: &Error, lang: Lang) -> Response {
    tracing::error!(error = error as &dyn std::error::Error, "a page could not be made");
    let texts = ["The page could not be made; the log says why.", "页面无法生成，原因见日志。"];
    message(StatusCode::INTERNAL_SERVER_ERROR, lang, texts)
}

fn message(status: StatusCode, lang: Lang, texts: [&'static str; 2]) -> Response {
    let text = in_lang(lang, texts);
    let page = frame(lang, "Volant", &format!("<p>{text}</p>\n<p><a href=\"/\">Volant</a></p>\n"));
    (status, page_of(page)).into_response()
}

const fn in_lang(lang: Lang, [english, chinese]: [&'static str; 2]) -> &'static str {
    match lang {
        Lang::En => english,
        Lang::Zh => chinese,
    }
}

/// Head and body around a page's content, which is markup already.
fn frame(lang: Lang, title: &str, content: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}a {{ color: var(--accent); }}\n</style>\n</head>\n\
         <body>\n<main>\n<h1>{title}</h1>\n{content}</main>\n</body>\n</html>\n",
        lang.tag()
    )
}

/// The newest sessions, with links to their reports.
async fn list(state: &State, lang: Lang) -> Result<String, Error> {
    let sql = format!(
        "SELECT s.session_id, s.device_code, s.status, \
           substr(CAST(to_timestamp_micros(s.started_at_us) AS VARCHAR), 1, 19) AS started, \
           s.frame_count, r.stroke_count \
         FROM sessions s LEFT JOIN results r ON r.session_id = s.session_id \
         ORDER BY s.session_id DESC LIMIT {LISTED_SESSIONS}"
    );
    let mut body = String::new();
    let mut count = 0;
    for batch in rows(&state.query, &sql).await? {
        let texts: Vec<_> = (0..batch.num_columns())
            .map(|column| cast(batch.column(column), &DataType::Utf8))
            .collect::<Result<_, _>>()?;
        let texts: Vec<_> = texts.iter().map(|text| text.as_string::<i32>()).collect();
        let ids = batch.column(0).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            count += 1;
            let cell = |column: usize| if texts[column].is_null(row) { "–" } else { texts[column].value(row) };
            let id = ids.value(row);
            let number =
                if texts[5].is_null(row) { id.to_string() } else { format!("<a href=\"/sessions/{id}\">{id}</a>") };
            writeln!(
                body,
                "<tr><td class=\"n\">{number}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                escape(&cell(3).replace('T', " ")),
                escape(cell(1)),
                escape(cell(2)),
                escape(cell(4)),
                escape(cell(5)),
            )
            .expect("writing to a string cannot fail");
        }
    }
    let heads = match lang {
        Lang::En => ["session", "started (UTC)", "device", "state", "frames", "strokes"],
        Lang::Zh => ["训练", "开始（UTC）", "设备", "状态", "帧", "击球"],
    };
    let mut table = String::from("<div class=\"scroll\"><table><thead><tr>");
    for (column, head) in heads.iter().enumerate() {
        let class = if matches!(column, 0 | 4 | 5) { " class=\"n\"" } else { "" };
        write!(table, "<th{class}>{head}</th>").expect("writing to a string cannot fail");
    }
    write!(table, "</tr></thead><tbody>\n{body}</tbody></table></div>\n").expect("writing to a string cannot fail");
    if count == 0 {
        table = format!("<p>{}</p>\n", in_lang(lang, ["There is no session yet.", "还没有训练。"]));
    }
    let heading = in_lang(lang, ["Sessions", "训练"]);
    let note = in_lang(
        lang,
        [
            "The newest 100 sessions. <code>volant sql --url</code> asks about all of them; <a href=\"/metrics\">/metrics</a> \
             and <a href=\"/health/ready\">/health/ready</a> tell how the service is.",
            "最近的 100 次训练。全部数据可用 <code>volant sql --url</code> 查询；服务状态见 <a href=\"/metrics\">/metrics</a> \
             和 <a href=\"/health/ready\">/health/ready</a>。",
        ],
    );
    let content = format!("<section>\n<h2>{heading}</h2>\n{table}<p class=\"note\">{note}</p>\n</section>\n");
    Ok(frame(lang, "Volant", &content))
}
