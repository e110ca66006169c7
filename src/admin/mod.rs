//! The dashboard: its files, and the report of a session as a page.
//!
//! In: what the rooms know of sessions and results. Out: a page at `/` that works without any network but this server, and
//! `/sessions/{id}/report`. The page lives on `/api/v2/`; it computes only ages and sums.
//!
//! Everything here is read-only. Absent: who may see it and rate limits (the gateway's layers are around these routes), the
//! routes and the live socket that the page asks (the gateway's), what a report says (`report`), and SQL (`query::http`).

mod assets;
mod report;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::routing::get;

use crate::store::paths::Paths;
use crate::{analysis, sessions};

pub use assets::index;
pub use report::{Error, session_report};

/// What the dashboard shows.
#[derive(Clone, Debug)]
pub struct Rooms {
    pub analysis: analysis::Handle,
    /// The data folder, for the frames of a report.
    pub paths: Paths,
    pub sessions: sessions::Handle,
}

/// The page, its files, the reports.
pub fn router(rooms: Rooms) -> Router {
    Router::new()
        .route("/", get(assets::index))
        // Where the legacy service had its own admin pages.
        .route("/admin", get(assets::index))
        .route("/admin/", get(assets::index))
        .route("/websocket-test", get(assets::test_page))
        .route("/websocket-test/", get(assets::test_page))
        .route("/assets/{*path}", get(assets::asset))
        .route("/sessions/{session_id}/report", get(report::report))
        .with_state(report::State::new(rooms))
}
