//! Accepts connections, bounds them, reads the head of requests, and ends them when the service stops.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tower::ServiceExt;
use tracing::{debug, warn};

use super::limits::Connections;
use super::options::Options;
use super::ws::Peer;

/// Head of a request; a longer one is answered 431.
const HEAD_LIMIT_BYTES: usize = 16 << 10;
/// Requests of one HTTP/2 connection at the same time; further ones wait.
const STREAMS_LIMIT: u32 = 64;
/// Refused connections that are told so at the same time; further ones are just closed.
const POLITE_REFUSALS: usize = 64;
/// A refused connection has so long to send its request and take the answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after the system refused a new connection, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// HTTP/1.1, upgrades included.
    Http1,
    /// HTTP/2 without TLS and without asking, as gRPC clients begin.
    Http2,
}

/// Serves `router` until `shutdown` turns true, then gives connections [`Options::shutdown_grace`] to end.
///
/// # Errors
/// None at present: a failed accept is logged, counted and tried again.
pub async fn serve(
    listener: TcpListener,
    wire: Wire,
    router: Router,
    options: &Options,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let connections = Connections::new(options.connections_limit, options.connections_per_address_limit);
    let refusals = Arc::new(Semaphore::new(POLITE_REFUSALS));
    let protocol = Protocol::new(wire, options);
    // Every connection holds a sender; when all are gone, the receiver ends.
    let (alive, mut ended) = mpsc::channel::<Infallible>(1);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    metrics::counter!("volant_gateway_failed_accepts_total").increment(1);
                    warn!(error = &error as &dyn std::error::Error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = crate::shutdown::requested(&mut shutdown) => break,
        };
        if let Err(error) = stream.set_nodelay(true) {
            debug!(error = &error as &dyn std::error::Error, "no TCP_NODELAY");
        }
        match connections.admit(peer.ip()) {
            Ok(place) => {
                let peer = Peer::new(peer.ip(), place, alive.clone());
                tokio::spawn(connection(stream, protocol.clone(), router.clone(), peer, shutdown.clone()));
            }
            Err(refusal) => {
                metrics::counter!("volant_gateway_refused_connections_total", "reason" => refusal.as_str())
                    .increment(1);
                refuse(stream, peer, &refusals);
            }
        }
    }
    drop((listener, alive));
    let grace = options.shutdown_grace;
    if timeout(grace, ended.recv()).await.is_err() {
        warn!("connections were still open {} s after the stop", grace.as_secs());
    }
    Ok(())
}

/// A wire with its limits.
#[derive(Clone)]
enum Protocol {
    Http1(http1::Builder),
    Http2(http2::Builder<TokioExecutor>),
}

impl Protocol {
    fn new(wire: Wire, options: &Options) -> Self {
        match wire {
            Wire::Http1 => {
                let mut http = http1::Builder::new();
                // Title case, because that is what the legacy server sent; a client of it may compare letter by letter.
                http.timer(TokioTimer::new())
                    .header_read_timeout(options.header_timeout)
                    .max_buf_size(HEAD_LIMIT_BYTES)
                    .title_case_headers(true);
                Self::Http1(http)
            }
            Wire::Http2 => {
                let mut http = http2::Builder::new(TokioExecutor::new());
                http.timer(TokioTimer::new())
                    .max_header_list_size(HEAD_LIMIT_BYTES as u32)
                    .max_concurrent_streams(STREAMS_LIMIT)
                    .keep_alive_interval(Some(options.ping_interval))
                    .keep_alive_timeout(options.pong_timeout);
                Self::Http2(http)
            }
        }
    }
}

/// One HTTP connection, until its end or its upgrade.
async fn connection(
    stream: TcpStream,
    protocol: Protocol,
    router: Router,
    peer: Peer,
    mut shutdown: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request)
    });
    let io = TokioIo::new(stream);
    // The two connections are of different types with the same methods.
    macro_rules! serve_to_its_end {
        ($serving:expr) => {{
            let serving = $serving;
            tokio::pin!(serving);
            tokio::select! {
                outcome = &mut serving => outcome,
                () = crate::shutdown::requested(&mut shutdown) => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            }
        }};
    }
    let outcome = match protocol {
        Protocol::Http1(http) => serve_to_its_end!(http.serve_connection(io, service).with_upgrades()),
        Protocol::Http2(http) => serve_to_its_end!(http.serve_connection(io, service)),
    };
    if let Err(error) = outcome {
        debug!(error = &error as &dyn std::error::Error, "connection broke");
    }
}

/// Tells a client that there is no room for it, if there is room for that.
fn refuse(mut stream: TcpStream, peer: SocketAddr, refusals: &Arc<Semaphore>) {
    const BODY: &str = r#"{"error":"too many connections","code":"too_many_connections"}"#;
    let Ok(permit) = Arc::clone(refusals).try_acquire_owned() else { return };
    debug!("connection of {peer} refused");
    tokio::spawn(async move {
        let telling = async {
            // Closing with an unread request would reset the connection and take the answer with it.
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await?;
            if read > 0 {
                let length = BODY.len();
                let answer = format!(
                    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n\
                     Retry-After: 5\r\nContent-Length: {length}\r\n\r\n{BODY}"
                );
                stream.write_all(answer.as_bytes()).await?;
                stream.shutdown().await?;
                while stream.read(&mut request).await? > 0 {}
            }
            Ok::<_, io::Error>(())
        };
        if let Ok(Err(error)) = timeout(REFUSAL_TIMEOUT, telling).await {
            debug!(error = &error as &dyn std::error::Error, "refused connection broke");
        }
        drop(permit);
    });
}
