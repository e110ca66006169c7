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
    let http = format!("listening on http://{}\n", app.address());
    // After the line that scripts wait for.
    let flight = app.flight_address().map(|at| format!("Flight SQL on grpc://{at}\n"));
    let postgres = app.postgres_address().map(|at| format!("PostgreSQL wire on postgresql://{at}/volant\n"));
    let lines: String = [Some(http), flight, postgres].into_iter().flatten().collect();
    // A script that has read the first line may be gone already; devices need the service all the same.
    if let Err(error) = std::io::stdout().write_all(lines.as_bytes()) {
        tracing::warn!("the addresses could not be printed: {error}");
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    app.stop().await?;
    Ok(ExitCode::SUCCESS)
}
