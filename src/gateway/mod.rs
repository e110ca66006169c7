//! The edge: sockets and HTTP, limits, authentication, the only map from errors to codes.
use tokio::{net::TcpListener, sync::watch};
/// Options.
#[derive(Clone, Debug)]
pub struct Options {}
pub fn router(
    _o: Options,
    _rooms: &crate::app::Rooms,
    _clock: crate::clock::Clock,
    pages: axum::Router,
    _stop: watch::Receiver<bool>,
) -> axum::Router {
    pages
}
pub async fn serve(_l: TcpListener, _r: axum::Router, _s: watch::Receiver<bool>) -> std::io::Result<()> {
    unimplemented!()
}
