//! Wiring and shutdown: makes the rooms in order, hands each what it needs, and ends them in reverse.
//!
//! Order of a start: lock and replay the log, open the catalog, adopt the sessions that were open, start the running
//! parts, listen. Nobody is served before the past is in place. Order of an end: stop accepting, close sockets (1012, so
//! that clients come back), sync the log, close the catalog. What was going on is gone on with by the next start.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config::{Config, Flight};
use crate::entropy::Entropy;
use crate::store::catalog::{Catalog, SessionRow};
use crate::store::paths::Paths;
use crate::store::{seal, space, swap, wal};
use crate::{
    accounts, admin, analysis, custody, export, gateway, hub, ingest, migration, notify, push, query, sessions,
    telemetry, wechat,
};

/// A running service.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    flight: Option<SocketAddr>,
    postgres: Option<SocketAddr>,
    rooms: Rooms,
    shutdown: watch::Sender<bool>,
    tasks: JoinSet<()>,
    log: wal::Handle,
    catalog: Catalog,
}

/// The handles of the rooms, for commands and tests that look inside.
#[derive(Clone, Debug)]
pub struct Rooms {
    pub accounts: accounts::Handle,
    pub analysis: analysis::Handle,
    pub hub: hub::Handle,
    pub ingest: ingest::Handle,
    pub notify: notify::Handle,
    /// The data folder.
    pub paths: Paths,
    pub query: query::Handle,
    pub sessions: sessions::Handle,
}

impl Rooms {
    /// What the dashboard shows.
    #[must_use]
    pub fn shown(&self) -> admin::Rooms {
        admin::Rooms { analysis: self.analysis.clone(), paths: self.paths.clone(), sessions: self.sessions.clone() }
    }
}

impl App {
    /// Starts the service; returns when it listens. The future is boxed: its type would otherwise be compiled again into
    /// every binary that starts one.
    pub fn start(config: Config, clock: Clock) -> BoxFuture<'static, anyhow::Result<Self>> {
        Box::pin(start(config, clock))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where Flight SQL is served, if it is.
    #[must_use]
    pub fn flight_address(&self) -> Option<SocketAddr> {
        self.flight
    }

    /// Where the PostgreSQL wire is served, if it is.
    #[must_use]
    pub fn postgres_address(&self) -> Option<SocketAddr> {
        self.postgres
    }

    /// The rooms.
    #[must_use]
    pub fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// Ends the service in order.
    ///
    /// # Errors
    /// The log failed while it was closed: frames that were acknowledged before are safe, later ones were refused.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        info!("stopping");
        self.shutdown.send_replace(true);
        self.rooms.hub.close_all();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                error!(error = &error as &dyn std::error::Error, "a part of the service broke");
            }
        }
        self.rooms.ingest.finish_seals().await;
        let closed = self.log.close().await.context("close the write-ahead log");
        self.catalog.close().await;
        info!("stopped");
        closed
    }
}

async fn start(config: Config, clock: Clock) -> anyhow::Result<App> {
    telemetry::init_metrics();
    let paths = Paths::new(&config.data_dir);
    std::fs::create_dir_all(paths.root())
        .with_context(|| format!("make the data folder {}", paths.root().display()))?;
    // Before the catalog is looked at: another process would go on changing it, or be surprised by its migration.
    let lock = wal::lock(&paths.wal())?;
    space::give_up_reserve(&paths);
    let catalog = Catalog::open(&paths.catalog()).await?;
    let unclosed = catalog.unclosed_sessions().await?;
    let (log, recovery) = open_log(lock, &config, &clock, &paths, &unclosed, &catalog).await?;

    let (shutdown, stopping) = watch::channel(false);
    let job_ready = Arc::new(Notify::new());
    let imported = Arc::clone(&job_ready);
    let hub = hub::Handle::new(clock.clone());
    let accounts = accounts::Handle::new(catalog.clone(), clock.clone(), Entropy::system());
    let (events, noted) = mpsc::channel(ingest::EVENT_QUEUE_LIMIT);
    let (sealing, being_sealed) = mpsc::channel(ingest::SEALING_QUEUE_LIMIT);
    let ingest = ingest::Handle::new(
        config.ingest_options(),
        clock.clone(),
        log.clone(),
        catalog.clone(),
        paths.clone(),
        events,
        sealing,
    );
    let open = ingest.adopt(recovery).await?;
    let (sessions, sessions_service) = sessions::Handle::new(
        config.sessions_options(),
        clock.clone(),
        catalog.clone(),
        hub.clone(),
        push::Handle::new(config.push_options()?, catalog.clone(), clock.clone())?,
        ingest.clone(),
        noted,
        Arc::clone(&job_ready),
    );
    sessions.adopt(open).await;
    let (notify, notify_service) =
        notify::new(config.notify_options(), clock.clone(), Entropy::system(), catalog.clone(), hub.clone());
    let wechat = wechat::Handle::new(&config.wechat_options(), clock.clone(), Entropy::system())?;
    let channels = notify::Channels::new(
        config.notify_options(),
        clock.clone(),
        Entropy::system(),
        catalog.clone(),
        wechat.clone(),
    )?;
    let analysis =
        analysis::Handle::new(&config.analysis_options(), catalog.clone(), clock.clone(), Arc::clone(&job_ready));
    let analysis_service = analysis::Service::new(
        config.analysis_options(),
        clock.clone(),
        catalog.clone(),
        paths.clone(),
        ingest.clone(),
        hub.clone(),
        being_sealed,
        job_ready,
        notify.waker(),
    )?;
    let live_service = analysis::LiveService::new(
        &config.analysis_options(),
        clock.clone(),
        catalog.clone(),
        ingest.clone(),
        hub.clone(),
    )?;
    let source = query::Rooms::new(paths.clone(), ingest.clone(), catalog.clone(), hub.clone());
    let files = query::Folder::open(paths.root())?.files();
    let query = query::Handle::start(config.query_options(), files, Arc::new(source))?;
    let rooms = Rooms { accounts, analysis, hub, ingest, notify, paths, query, sessions };

    let given_clock = clock.clone();
    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("listen on {}", config.listen))?;
    let address = listener.local_addr().context("read the address")?;
    let pages =
        admin::router(rooms.shown()).merge(query::http::router(rooms.query.clone())).merge(export::http::router(
            export::http::State::new(rooms.query.clone(), rooms.paths.clone(), catalog.clone(), clock.clone()),
        ));
    let options = config.gateway_options();
    let turn = Arc::default();
    let state = gateway::State {
        sessions: rooms.sessions.clone(),
        ingest: rooms.ingest.clone(),
        hub: rooms.hub.clone(),
        accounts: rooms.accounts.clone(),
        analysis: rooms.analysis.clone(),
        notify: rooms.notify.clone(),
        wechat,
        eraser: custody::Eraser::new(
            rooms.paths.clone(),
            catalog.clone(),
            log.clone(),
            clock.clone(),
            Arc::clone(&turn),
        ),
        importer: migration::Importer::new(rooms.paths.clone(), catalog.clone(), clock.clone(), imported, turn),
        paths: rooms.paths.clone(),
        clock,
        limits: gateway::CallerLimits::new(&options),
        options: options.clone(),
        shutdown: stopping.clone(),
    };
    let flight = listen_for_flight(&config).await?;
    let flight_address = flight.as_ref().map(TcpListener::local_addr).transpose().context("read the address")?;
    let flight = flight
        .map(|listener| (listener, gateway::flight_router(state.clone(), query::flight::router(rooms.query.clone()))));
    let postgres = listen_for_postgres(&config).await?;
    let postgres_address = postgres.as_ref().map(TcpListener::local_addr).transpose().context("read the address")?;
    #[cfg(feature = "postgres")]
    let gate = gate(state.clone());
    let router = gateway::router(state, pages);

    let mut tasks = JoinSet::new();
    tasks.spawn(keep_metrics_small(stopping.clone()));
    let reading = Duration::from_secs(config.query.timeout_s);
    let (paths, floor) = (rooms.paths.clone(), config.store.min_free_bytes);
    tasks.spawn(look_after_the_disk(paths, floor, reading, given_clock.clone(), stopping.clone()));
    tasks.spawn(sessions_service.run(stopping.clone()));
    tasks.spawn(notify_service.run(stopping.clone()));
    tasks.spawn(channels.run(stopping.clone()));
    tasks.spawn(analysis_service.run(stopping.clone()));
    tasks.spawn(live_service.run(stopping.clone()));
    if let Some(packing) = config.compaction() {
        let floor = config.store.min_free_bytes;
        tasks.spawn(pack_what_is_old(packing, floor, rooms.paths.clone(), given_clock.clone(), stopping.clone()));
    }
    if let Some(policy) = config.retention() {
        tasks.spawn(give_up_what_is_old(policy, rooms.paths.clone(), catalog.clone(), given_clock, stopping.clone()));
    }
    if let Some((listener, router)) = flight {
        let (options, stopping) = (options.clone(), stopping.clone());
        tasks.spawn(async move {
            if let Err(error) = gateway::serve(listener, gateway::Wire::Http2, router, &options, stopping).await {
                error!(error = &error as &dyn std::error::Error, "the Flight SQL server ended");
            }
        });
    }
    #[cfg(feature = "postgres")]
    if let Some(listener) = postgres {
        let (query, stopping) = (rooms.query.clone(), stopping.clone());
        tasks.spawn(async move {
            if let Err(error) = query::postgres::serve(listener, &query, gate, stopping).await {
                error!(error = &error as &dyn std::error::Error, "the PostgreSQL wire ended");
            }
        });
    }
    tasks.spawn(async move {
        if let Err(error) = gateway::serve(listener, gateway::Wire::Http1, router, &options, stopping).await {
            error!(error = &error as &dyn std::error::Error, "the server ended");
        }
    });
    if let Some(flight) = flight_address {
        info!(flight.listen = %flight, "Flight SQL on grpc://{flight}");
    }
    if let Some(postgres) = postgres_address {
        info!(postgres.listen = %postgres, "PostgreSQL wire on postgresql://{postgres}/volant");
    }
    info!(listen = %address, "listening on http://{address}");
    Ok(App { address, flight: flight_address, postgres: postgres_address, rooms, shutdown, tasks, log, catalog })
}

/// The listener of Flight SQL. Where it was asked for it must be had; the usual place may be taken by somebody else.
async fn listen_for_flight(config: &Config) -> anyhow::Result<Option<TcpListener>> {
    match config.flight()? {
        Flight::Off => Ok(None),
        Flight::At(at) => {
            let listener = TcpListener::bind(at).await.with_context(|| format!("listen for Flight SQL on {at}"))?;
            Ok(Some(listener))
        }
        Flight::Beside(at) => match TcpListener::bind(at).await {
            Ok(listener) => Ok(Some(listener)),
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "no Flight SQL: {at} cannot be listened on; set flight_listen to another address or to off"
                );
                Ok(None)
            }
        },
    }
}

/// The listener of the PostgreSQL wire, where one is asked for.
async fn listen_for_postgres(config: &Config) -> anyhow::Result<Option<TcpListener>> {
    let Some(at) = config.postgres()? else { return Ok(None) };
    let listener = TcpListener::bind(at).await.with_context(|| format!("listen for the PostgreSQL wire on {at}"))?;
    Ok(Some(listener))
}

/// The gateway's answer in the query room's words.
#[cfg(feature = "postgres")]
fn gate(state: gateway::State) -> query::postgres::Gate {
    Arc::new(move |address, token| {
        let state = state.clone();
        Box::pin(async move {
            gateway::admit_to_sql(&state, address, token).await.map_err(
                |gateway::WireRefusal { message, needs_token }| query::postgres::Refusal { message, needs_token },
            )
        })
    })
}

/// Runs until `shutdown` turns true.
async fn keep_metrics_small(mut shutdown: watch::Receiver<bool>) {
    let mut due = tokio::time::interval(telemetry::UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            () = crate::shutdown::requested(&mut shutdown) => return,
            _ = due.tick() => telemetry::upkeep(),
        }
    }
}

/// How often the service looks how much of the disk is free, and frees what no statement can be `reading` any more.
const DISK_INTERVAL: Duration = Duration::from_secs(30);

/// Runs until `shutdown` turns true.
async fn look_after_the_disk(
    paths: Paths,
    min_free_bytes: u64,
    reading: Duration,
    clock: Clock,
    mut shutdown: watch::Receiver<bool>,
) {
    let reading_us = i64::try_from(reading.as_micros()).unwrap_or(i64::MAX);
    let mut due = tokio::time::interval(DISK_INTERVAL);
    loop {
        tokio::select! {
            () = crate::shutdown::requested(&mut shutdown) => return,
            _ = due.tick() => {}
        }
        let (paths, replaced_before_us) = (paths.clone(), clock.now_us().saturating_sub(reading_us));
        let looked = tokio::task::spawn_blocking(move || {
            if let Err(error) = swap::remove_replaced(&paths, Some(replaced_before_us)) {
                warn!(error = &error as &dyn std::error::Error, "replaced files cannot be deleted");
            }
            if let Ok(free) = space::free_bytes(paths.root()) {
                metrics::gauge!("volant_store_free_bytes").set(free as f64);
            }
            space::keep_reserve(&paths, min_free_bytes)
        });
        if let Ok(Err(error)) = looked.await {
            warn!(error = &error as &dyn std::error::Error, "no room could be set aside for a full disk");
        }
    }
}

/// How often the service packs what has become old.
const COMPACTION_INTERVAL: Duration = Duration::from_hours(1);

/// Runs until `shutdown` turns true. A run that fails is told and tried again with the next.
async fn pack_what_is_old(
    packing: custody::Packing,
    min_free_bytes: u64,
    paths: Paths,
    clock: Clock,
    mut shutdown: watch::Receiver<bool>,
) {
    // Both forms are there for a while, and the frames that come meanwhile go first.
    let needed = min_free_bytes.saturating_add(packing.sizes.pack_bytes);
    let has_room = move |paths: &Paths| space::free_bytes(paths.root()).map_or(true, |free| free >= needed);
    let mut due = tokio::time::interval(COMPACTION_INTERVAL);
    loop {
        tokio::select! {
            () = crate::shutdown::requested(&mut shutdown) => return,
            _ = due.tick() => {}
        }
        if !has_room(&paths) {
            warn!("small files are not packed: fewer than {needed} bytes of the disk are free");
            continue;
        }
        let (packing, paths, clock, stopping) = (packing.clone(), paths.clone(), clock.clone(), shutdown.clone());
        let run = tokio::task::spawn_blocking(move || {
            let go_on = || !*stopping.borrow() && has_room(&paths);
            custody::compact(&paths, &packing, &clock, false, &go_on, &mut |_, _, _| {})
        });
        match run.await {
            Ok(Ok(packed)) => {
                for (table, size) in packed.tables.iter().filter(|(_, size)| size.packed_files > 0) {
                    info!(
                        table = table.as_str(),
                        files.packed = size.packed_files,
                        packs.count = size.packs,
                        "packed {} small files of {table} into {}",
                        size.packed_files,
                        size.packs
                    );
                }
            }
            Ok(Err(error)) => error!(error = &error as &dyn std::error::Error, "failed to pack small files: {error}"),
            Err(error) => error!(error = &error as &dyn std::error::Error, "failed to pack small files: {error}"),
        }
    }
}

/// How often the service looks for what is older than wanted.
const RETENTION_INTERVAL: Duration = Duration::from_hours(1);

/// Runs until `shutdown` turns true. A run that fails is told and tried again with the next.
async fn give_up_what_is_old(
    policy: custody::Policy,
    paths: Paths,
    catalog: Catalog,
    clock: Clock,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut due = tokio::time::interval(RETENTION_INTERVAL);
    loop {
        tokio::select! {
            () = crate::shutdown::requested(&mut shutdown) => return,
            _ = due.tick() => {}
        }
        match custody::retain(&paths, &catalog, &policy, &clock, false).await {
            Ok(gone) if gone.is_nothing() => {}
            Ok(gone) => info!(
                session.count = gone.sessions.len(),
                frame.count = gone.frames,
                notice.count = gone.notices,
                "gave up the frames of {} sessions, the results of {}, {} notices and {} entries of the audit log for their age",
                gone.sessions.len(),
                gone.results.len(),
                gone.notices,
                gone.audit_entries
            ),
            Err(error) => error!(error = &error as &dyn std::error::Error, "failed to give up what is old: {error}"),
        }
    }
}

/// Opens the log and rebuilds the recordings that were open.
async fn open_log(
    lock: wal::Lock,
    config: &Config,
    clock: &Clock,
    paths: &Paths,
    unclosed: &[SessionRow],
    catalog: &Catalog,
) -> anyhow::Result<(wal::Handle, ingest::Recovery)> {
    let newest = catalog.newest_session().await?;
    let mut recovery = ingest::Recovery::new(unclosed, newest);
    let options = config.wal_options(paths.wal(), seed(clock));
    let unfinished_in = paths.clone();
    let (log, report, recovery) = tokio::task::spawn_blocking(move || {
        let (log, report) = wal::Handle::open_locked(lock, options, |record| recovery.replay(record))?;
        // The log is locked now, so nobody else is writing these files. What was being brought is brought again by whoever did.
        match seal::remove_unfinished(&unfinished_in) {
            Ok(0) => {}
            Ok(files) => info!(files.count = files, "{files} unfinished files of the last process deleted"),
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "unfinished files of the last process stay where they are"
                );
            }
        }
        Ok::<_, wal::Error>((log, report, recovery))
    })
    .await
    .context("replay the write-ahead log")??;
    if report.lost_data() {
        warn!(?report, "the write-ahead log was damaged; what could be read is kept, the rest is set aside");
    } else if report.records > 0 {
        info!(
            wal.records = report.records,
            wal.frames = report.frames,
            "{} frames recovered from the log",
            report.frames
        );
    }
    Ok((log, recovery))
}

/// A number that strangers cannot guess, for the log's salts: from the operating system by way of a hash map's keys.
fn seed(clock: &Clock) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(clock.now_us())
}
