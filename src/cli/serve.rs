//! `volant serve`: runs the service until it is told to stop.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::clock::Clock;
use crate::config::{self, Overrides};

/// The flags of `serve`: the configuration file, and one flag a key.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    overrides: Overrides,
}

/// Serves until SIGINT or SIGTERM. Prints `listening on http://ADDR` when ready.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let loaded = config::load(&args.overrides, config::process_environment)?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let app = App::start(loaded.config, Clock::system()).await?;
    writeln!(std::io::stdout(), "listening on http://{}", app.address())?;
    // After the line that scripts wait for.
    if let Some(flight) = app.flight_address() {
        writeln!(std::io::stdout(), "Flight SQL on grpc://{flight}")?;
    }
    if let Some(postgres) = app.postgres_address() {
        writeln!(std::io::stdout(), "PostgreSQL wire on postgresql://{postgres}/volant")?;
    }
    std::io::stdout().flush()?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    app.stop().await?;
    Ok(ExitCode::SUCCESS)
}
