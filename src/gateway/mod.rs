//! The edge: sockets and HTTP, limits, authentication, the only map from errors to codes.
//!
//! In: TCP connections. Out: calls of the rooms inside, and answers. A connection's bytes go through [`serve`] (accept,
//! limits, HTTP head) to a route; a WebSocket then lives in one task of its own (`ws.rs`), which decodes, asks the rooms,
//! and writes. The legacy HTTP routes (`legacy/`) take their parameters from query, form, multipart and JSON alike. Who
//! calls and what they may do is decided in one place (`access.rs`), for sockets and routes, of other rooms too.
//!
//! Invariants
//! - One task a socket, and every wait in it has an end: a peer that neither reads nor answers pings is closed, so it
//!   holds bounded memory and delays nobody else.
//! - Commands and pings never wait behind data: while a packet waits for the log, the task goes on serving its queue.
//! - Answers come in the order of the requests; a packet's answer waits until its frames are durable.
//! - A device socket sees no origin check, no subprotocol, no redirect, and a bare `Connection: Upgrade`.
//!
//! Limits, and what happens at each, stand with [`Options`].
//!
//! Absent: TLS (a proxy does it).

mod access;
mod error;
mod flight;
mod forms;
mod legacy;
mod limits;
mod operation;
mod options;
#[cfg(feature = "postgres")]
mod postgres;
mod serve;
mod socket;
mod v2;
mod ws;

pub use error::ApiError;
pub use flight::flight_router;
pub use limits::CallerLimits;
pub use options::{Auth, Options};
#[cfg(feature = "postgres")]
pub use postgres::{WireRefusal, admit_to_sql};
pub use serve::{Wire, serve};
pub use v2::openapi_text;

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get};
use tokio::sync::{Semaphore, watch};
use tower_http::catch_panic::CatchPanicLayer;

use crate::clock::Clock;
use crate::sessions::SessionInfo;
use crate::store::pack;
use crate::store::paths::{Paths, Table, TablePath};
use crate::store::seal;
use crate::{accounts, analysis, custody, hub, ingest, migration, notify, sessions, wechat};

/// What the gateway needs: handles of the rooms, limits, the end.
#[derive(Clone, Debug)]
pub struct State {
    pub sessions: sessions::Handle,
    pub ingest: ingest::Handle,
    pub hub: hub::Handle,
    pub accounts: accounts::Handle,
    pub analysis: analysis::Handle,
    pub notify: notify::Handle,
    pub wechat: wechat::Handle,
    pub eraser: custody::Eraser,
    pub importer: migration::Importer,
    /// The data folder, for the frames of a report.
    pub paths: Paths,
    pub clock: Clock,
    pub options: Options,
    pub limits: CallerLimits,
    /// Turns true when the service stops: sockets then close with 1012.
    pub shutdown: watch::Receiver<bool>,
}

impl State {
    /// The samples of a session: of its sealed file, or of memory while there is none.
    async fn track(&self, session: &SessionInfo) -> Result<schemas::Track, ApiError> {
        let (session_id, ingest) = (session.session_id, self.ingest.clone());
        let (paths, path) = (self.paths.clone(), TablePath::new(Table::Frames, session_id, session.started_at_us));
        let is_sealed = session.revision > 0;
        let read = tokio::task::spawn_blocking(move || {
            if is_sealed {
                seal::read_track(&pack::locate(&paths, path)?)
            } else {
                Ok(ingest.live_track(session_id).unwrap_or_default())
            }
        });
        let read = read.await.map_err(|_| ApiError::broke())?;
        read.map_err(|error| match &error {
            seal::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => ApiError::not_found(
                "frames_gone",
                "the frames of this session are no longer kept; an archive that holds them brings them back",
            ),
            _ => ApiError::internal("store_unavailable", "the frames could not be read", error),
        })
    }
}

/// The routes: sockets, legacy HTTP, health and metrics. Everything else, a plain `GET /` included, goes to `extra`.
pub fn router(state: State, extra: Router) -> Router {
    let options = Arc::new(state.options.clone());
    let context = Arc::new(Context {
        state,
        options,
        extra,
        claims: legacy::Claims::default(),
        pictures: legacy::Pictures::default(),
        drawing: Arc::new(Semaphore::new(legacy::DRAWN_AT_ONCE)),
        image_key: tokio::sync::OnceCell::new(),
        mat_uploads: Semaphore::new(legacy::MAT_UPLOADS_AT_ONCE),
        mat_reading: Arc::default(),
        imports: Semaphore::new(v2::IMPORTS_AT_ONCE),
    });
    let mut router = Router::new();
    for slash in ["", "/"] {
        router = router
            .route(&format!("/ws/esp32/{{device_code}}{slash}"), get(ws::device))
            .route(&format!("/ws/miniprogram/{{user_id}}{slash}"), get(ws::user))
            .route(&format!("/ws/admin{slash}"), get(ws::admin));
        for prefix in ["/wxapp", "/api"] {
            for (name, methods) in legacy::routes() {
                router = router.route(&format!("{prefix}/{name}{slash}"), methods);
            }
        }
    }
    router
        .route("/images/{file}", get(legacy::image))
        .route("/", any(ws::root))
        .merge(v2::router())
        .route("/health/live", get(operation::live))
        .route("/health/ready", get(operation::ready))
        .route("/metrics", get(operation::metrics))
        .method_not_allowed_fallback(operation::method_not_allowed)
        .fallback(operation::elsewhere)
        .layer(CatchPanicLayer::custom(operation::panicked))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&context), access::identify))
        .layer(axum::middleware::from_fn(operation::observe))
        .with_state(context)
}

/// The legacy routes by name, without prefix and slashes, for tests that look at every one.
#[must_use]
pub fn legacy_route_names() -> Vec<&'static str> {
    legacy::routes().into_iter().map(|(name, _)| name).collect()
}

/// What handlers get.
#[derive(Debug)]
struct Context {
    state: State,
    /// Shared with every socket.
    options: Arc<Options>,
    /// Routes of other rooms.
    extra: Router,
    /// What devices upload under ids of their own.
    claims: legacy::Claims,
    /// Pictures that were drawn lately, and room for those that are being drawn.
    pictures: legacy::Pictures,
    drawing: Arc<Semaphore>,
    /// Signs the addresses of pictures; read from the catalog once.
    image_key: tokio::sync::OnceCell<String>,
    /// Room for `.mat` files that are arriving or waiting.
    mat_uploads: Semaphore,
    /// Held while one of them is inflated and taken.
    mat_reading: Arc<tokio::sync::Mutex<()>>,
    /// Room for recordings and archives that are arriving or waiting.
    imports: Semaphore,
}

type Shared = axum::extract::State<Arc<Context>>;
