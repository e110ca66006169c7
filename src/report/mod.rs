//! A readable report of one session: text for the terminal, one HTML page with its own SVG plots for a browser or a
//! printer, the legacy service's report and picture for its clients.
//!
//! In: an [`Analysis`](pipelines::Analysis) and, for the page, who and what was recorded and the curves of angular
//! rate ([`Context`]). Out: a string. The same input gives the same bytes; nothing is loaded from elsewhere, and every
//! text from outside is escaped.
//!
//! Invariants: a figure that the analysis left out is shown as absent with the reason that the analysis gives, never
//! as a zero; every text of our own stands in the room `texts`.
//!
//! Absent here: files, sockets, the clock. Whoever wants a report on disk writes the string.

mod curves;
mod figures;
mod html;
mod legacy;
mod picture;
mod plots;
#[cfg(test)]
mod tests;
mod text;

pub use curves::{Curve, CurvePoint};
pub use html::{Context, html};
pub use legacy::{Peak, legacy_report, peaks};
pub use picture::{PictureError, PictureFormat, picture};
pub use text::text;
