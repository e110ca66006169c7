//! The dashboard: its files, and the small JSON routes it lives on.
//!
//! In: what the rooms know of devices, sessions and results. Out: a page at `/` that works without any network but this
//! server, `/api/v2/{status,devices,sessions}`, and `/sessions/{id}/report`. Numbers are the rooms' own; the page computes only ages and sums.
//!
//! Everything is read-only. Absent: authentication and rate limits (the gateway's layers are around these routes), the
//! live socket (`/ws/admin/` is the gateway's), what a report says (`report`), and SQL itself (`query::http`).

mod api;
mod assets;
mod report;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::routing::get;

use crate::clock::Clock;
use crate::store::paths::Paths;
use crate::{analysis, hub, sessions};

pub use api::Error;
pub use assets::index;
pub use report::session_report;

/// What the dashboard shows.
#[derive(Clone, Debug)]
pub struct Rooms {
    pub analysis: analysis::Handle,
    pub hub: hub::Handle,
    /// The data folder, for the frames of a report.
    pub paths: Paths,
    pub sessions: sessions::Handle,
}

/// The page, its files and its JSON routes.
pub fn router(rooms: Rooms, clock: Clock) -> Router {
    Router::new()
        .route("/", get(assets::index))
        .route("/assets/{*path}", get(assets::asset))
        .route("/api/v2/status", get(api::status))
        .route("/api/v2/devices", get(api::devices))
        .route("/api/v2/sessions", get(api::sessions))
        .route("/api/v2/sessions/{session_id}", get(api::session))
        .route("/api/v2/sessions/{session_id}/result", get(api::result))
        .route("/sessions/{session_id}/report", get(report::report))
        .with_state(api::State::new(rooms, clock))
}
