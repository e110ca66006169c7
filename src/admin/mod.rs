//! Pages for people: the list of sessions and the report of each.
//!
//! In: handles of the rooms that know sessions, results and frames. Out: HTML pages that stand alone, in English or
//! Chinese (`?lang=zh`, else the browser's wish).
//!
//! Invariants: a page shows what is stored, read like any other query, with the query room's limits. Absent: actions;
//! anything that a player's socket or the SQL route does not show as well.

mod pages;
mod session;

pub use pages::router;
pub use session::{Error, State, session_report};
