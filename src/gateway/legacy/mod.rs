//! The HTTP routes of the legacy service, under `/wxapp/` and `/api/`, with and without trailing slash, never redirected.
//!
//! Parameters come from everywhere (`forms.rs`). A success has the legacy fields, an error is
//! `{"error": text, "code": word, …}`. Texts are in the caller's language, Chinese where none is asked for. A route that
//! anybody could use on anybody's data in the legacy service asks [`Access`](super::access::Access) here.

mod accounts;
mod devices;
mod images;
mod results;
mod sessions;
mod uploads;

pub(super) use images::{DRAWN_AT_ONCE, Pictures, image};
pub(super) use results::MAT_UPLOADS_AT_ONCE;
pub(super) use uploads::Claims;

use std::sync::Arc;

use axum::Json;
use axum::routing::MethodRouter;
use serde_json::{Value, json};

use super::Context;
use super::error::ApiError;

type Answer = Result<Json<Value>, ApiError>;

/// Names without prefix and slashes, and what answers there.
type Routes = Vec<(&'static str, MethodRouter<Arc<Context>>)>;

/// All of them.
pub(super) fn routes() -> Routes {
    [accounts::routes(), sessions::routes(), uploads::routes(), devices::routes(), results::routes(), images::routes()]
        .into_iter()
        .flatten()
        .collect()
}

/// The answer to a GET of a route that wants a POST: how it is called.
fn help(what: &str, required: &Value, optional: &Value, answer: &Value) -> Json<Value> {
    Json(json!({
        "msg": what,
        "method": "POST",
        "required": required,
        "optional": optional,
        "answer": answer,
        "content_types": ["application/x-www-form-urlencoded", "multipart/form-data", "application/json"],
    }))
}
