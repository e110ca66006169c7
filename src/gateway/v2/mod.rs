//! The new API, `/api/v2/`, and its OpenAPI document, which is made from the very routes.
//!
//! Input is strict (an unknown member is an error), answers name their units, errors are problem+json (RFC 9457). Times are
//! µs since 1970 UTC. Lists are pages: `limit`, and the last item's id as `before` or `after`. Who may do what is
//! [`Access`](super::access::Access)'s to say; the SQL route is the query room's and described here.

mod accounts;
mod devices;
mod extract;
mod imports;
mod labels;
mod notifications;
mod pipelines;
mod sessions;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{IntoResponses, Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use super::Context;

pub(super) use imports::AT_ONCE as IMPORTS_AT_ONCE;

/// The routes below `/api/v2/`.
pub(super) fn router() -> Router<Arc<Context>> {
    document_router().split_for_parts().0
}

/// The OpenAPI document as committed and served: `schemas/openapi.json`.
#[must_use]
pub fn openapi_text() -> String {
    let document = document_router().into_openapi();
    let mut document = serde_json::to_value(&document).unwrap_or_default();
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        schemas.extend(analysis_schemas());
    }
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

/// The schemas of an analysis, which are those of the pipelines' own types.
fn analysis_schemas() -> serde_json::Map<String, serde_json::Value> {
    let settings = schemars::generate::SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    generator.subschema_for::<::pipelines::Analysis>();
    generator.take_definitions(true)
}

/// Where the document describes one of those types.
fn analysis_type(name: &str) -> Ref {
    Ref::from_schema_name(name)
}

fn document_router() -> OpenApiRouter<Arc<Context>> {
    let mut router = OpenApiRouter::with_openapi(Document::openapi())
        .merge(status::router())
        .merge(accounts::router())
        .merge(sessions::router())
        .merge(pipelines::router())
        .merge(labels::router())
        .merge(devices::router())
        .merge(imports::router())
        .merge(notifications::router());
    for (path, item) in &mut router.get_openapi_mut().paths.paths {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
        for (method, operation) in ["get", "post", "put", "delete"].into_iter().zip(operations) {
            if let Some(operation) = operation {
                let never = impossible(method, path, operation);
                operation.responses.responses.retain(|status, _| !never.contains(&status.as_str()));
            }
        }
    }
    router
}

const EXPORT: &str = "/api/v2/export";

/// Statuses that an operation cannot answer with, of all that [`Problems`] lists: what nobody asks cannot be wrong.
fn impossible(method: &str, path: &str, operation: &Operation) -> Vec<&'static str> {
    let mut never = Vec::new();
    if operation.request_body.is_none() {
        never.extend(["408", "413", "415"]);
    }
    if method == "get" {
        never.push("409");
        // An export is a statement: it may ask for nothing that is there, or for more than it may have.
        if path == EXPORT {
            return never;
        }
        never.push("422");
        let parameters = operation.parameters.as_deref().unwrap_or_default();
        if parameters.is_empty() {
            never.push("400");
        }
        if !path.contains('{') && !parameters.iter().any(names_a_user) {
            never.push("404");
        }
    }
    never
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Volant",
        description = "Streaming analytics for badminton: sessions, strokes, devices, players, notifications. Times are µs \
                       since 1970 UTC unless a name says otherwise.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(sql, export),
    modifiers(&Security),
    security(("bearer" = []), ("login" = []), ()),
    tags(
        (name = "service", description = "The service itself, logging in"),
        (name = "accounts", description = "Players, tokens, admins' log"),
        (name = "sessions", description = "Recording sessions and their results"),
        (name = "analysis", description = "Pipelines, and sessions analysed by another one"),
        (name = "devices", description = "Devices, their connections, groups and pairing"),
        (name = "notifications", description = "Notices and where they go"),
        (name = "data", description = "SQL, exports and imports")
    )
)]
struct Document;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(
            "bearer",
            SecurityScheme::Http(
                HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A token")).build(),
            ),
        );
        let cookie = ApiKeyValue::with_description(super::access::COOKIE, "The dashboard's login");
        components.add_security_scheme("login", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

/// Ask SQL
///
/// The statement reads only. Needs the scope `sql`. The answer streams; a statement that fails after rows have left cuts
/// the connection, so that a part is never taken for the whole.
#[utoipa::path(
    post, path = "/api/v2/sql", tag = "data", operation_id = "sql", request_body = SqlRequest,
    responses(
        (status = 200, description = "The rows, in the wanted format", content(
            (Vec<serde_json::Value> = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"), (Vec<u8> = "application/vnd.apache.parquet")
        )),
        Problems
    )
)]
#[expect(dead_code, reason = "the route is the query room's; this is its place in the document")]
fn sql() {}

/// Take rows away as a file
///
/// Needs the scope `sql`. Without any choice: everything. The answer streams; what fails after bytes have left cuts the
/// connection. The rest of an archive that was cut comes by `Range: bytes=N-` with the `ETag` of the first answer in
/// `If-Range`.
#[utoipa::path(
    get, path = "/api/v2/export", tag = "data", operation_id = "export", params(Export),
    responses(
        (status = 200, description = "The file", content(
            (Vec<u8> = "application/vnd.apache.parquet"), (String = "text/csv"), (String = "application/jsonl"),
            (Vec<serde_json::Value> = "application/json"), (Vec<u8> = "application/vnd.apache.arrow.stream"),
            (Vec<u8> = "application/vnd.mcap"), (Vec<u8> = "application/x-matlab-data"), (Vec<u8> = "application/zstd")
        )),
        (status = 206, description = "The rest of an archive", content((Vec<u8> = "application/zstd"))),
        (status = 416, description = "Nothing of the archive is missing"),
        Problems
    )
)]
#[expect(dead_code, reason = "the route is the export room's; this is its place in the document")]
fn export() {}

/// What to export.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the shape is read by the export room; this is its place in the document")]
struct Export {
    /// Numbers of sessions.
    session: Option<Vec<i64>>,
    /// Numbers of players.
    player: Option<Vec<i64>>,
    /// Device codes.
    device: Option<Vec<String>>,
    /// First UTC day on which a session started.
    from: Option<String>,
    /// Last such day.
    to: Option<String>,
    /// Names of strokes: sessions that have one, and of their rows those of such strokes.
    stroke: Option<Vec<String>>,
    /// `frames`, `stroke_frames`, `strokes` or `results`; without it `frames`, or `stroke_frames` where strokes are chosen.
    table: Option<String>,
    /// `parquet`, `csv`, `arrow`, `jsonl`, `json`, `mcap`, `mat`, or `archive`: whole sessions, all tables and what is known
    /// of them, as `volant import archive` takes them; without it `parquet`.
    format: Option<String>,
}

/// A statement.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape is read by the query room; this is its place in the document")]
struct SqlRequest {
    query: String,
    /// `json`, `jsonl`, `csv`, `arrow` or `parquet`; without it `json`.
    format: Option<String>,
    /// Lowers the server's limit.
    #[schema(minimum = 1)]
    max_rows: Option<u64>,
    /// Lowers the server's limit, ms.
    #[schema(minimum = 1)]
    timeout_ms: Option<u64>,
}

fn names_a_user(parameter: &RefOr<Parameter>) -> bool {
    matches!(parameter, RefOr::T(parameter) if parameter.name == "user_id")
}

/// What went wrong (RFC 9457).
#[derive(Serialize, ToSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: `code` says more.
    r#type: String,
    /// The status in words.
    title: String,
    status: u16,
    /// For people, in the language that was asked for.
    detail: String,
    /// Stable word for programs.
    code: String,
}

/// What any operation may answer instead.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "the documented side of `ApiError`")]
pub(super) enum Problems {
    /// The request cannot be understood.
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(#[to_schema] Problem),
    /// A token is needed, or it no longer counts.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(#[to_schema] Problem),
    /// This caller may not do this.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(#[to_schema] Problem),
    /// There is no such thing, or it is not this caller's.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(#[to_schema] Problem),
    /// The body did not arrive in time.
    #[response(status = 408, content_type = "application/problem+json")]
    Timeout(#[to_schema] Problem),
    /// It is in another state.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(#[to_schema] Problem),
    /// The body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(#[to_schema] Problem),
    /// The body is not JSON.
    #[response(status = 415, content_type = "application/problem+json")]
    NotJson(#[to_schema] Problem),
    /// The request is understood and cannot be carried out as it stands.
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(#[to_schema] Problem),
    /// Too many requests; `Retry-After` says when to try again.
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(#[to_schema] Problem),
    /// A mistake of ours, or the disk or catalog cannot be used.
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(#[to_schema] Problem),
    /// Not at the moment.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(#[to_schema] Problem),
}

/// An answer that no cache may keep.
fn fresh<T: Serialize>(body: T) -> Response {
    let no_store = [(axum::http::header::CACHE_CONTROL, axum::http::HeaderValue::from_static("no-store"))];
    (no_store, axum::Json(body)).into_response()
}
