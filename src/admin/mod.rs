//! The dashboard and what operators do.
/// Pages.
pub fn router(_rooms: &crate::app::Rooms, _clock: &crate::clock::Clock) -> axum::Router {
    axum::Router::new()
}
