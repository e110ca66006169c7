//! Loads the real server over loopback beside a bare control and prints what both cost.
//!
//! `cargo bench --bench load -- [--rounds N] [--seconds S] [--idle N] [--sessions N] [--json]`
//!
//! The server is the `volant` program with its defaults (synced acknowledgements), the control this program with
//! `--control` (`control.rs`): axum, receive, parse to `serde_json::Value`, acknowledge, keep nothing. Each is a process
//! of its own, so that its CPU time and memory can be read from `/proc`; both get the same packets from the same clients,
//! in turn: server, control, server, control.
//!
//! | phase | clients | figures |
//! |---|---|---|
//! | closed loop | 8 devices, each with 8 packets in flight, as fast as they are acknowledged | CPU s per million frames, frames/s, ack p50 and p99 |
//! | paced | 8 devices at the rate of four sensors at 200 Hz | the same |
//! | idle | devices that are connected and silent | resident memory a connection |
//! | announce | one device uploads ten minutes of four sensors at 200 Hz; its player waits | `upload_complete` to notice |
//!
//! Clients and server share the machine: frames/s is what both together reach, CPU is the server's alone. Everything is
//! bounded, touches loopback only, and cleans up after itself.

use std::io;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

mod announce;
mod control;
#[path = "../common/data.rs"]
mod data;
#[path = "../common/device.rs"]
mod device;
mod idle;
mod report;
mod stream;
mod target;

use data::Packets;
use report::Report;
use target::{Kind, Target};

/// No phase takes longer; one that does has failed.
const PATIENCE: Duration = Duration::from_mins(5);

#[derive(Debug, Parser)]
#[command(name = "load", about = "Loads the server over loopback beside a bare control")]
struct Args {
    /// Rounds of each streaming phase and target
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Devices that stream
    #[arg(long, default_value_t = 8)]
    devices: usize,
    /// Packets that a device has in flight
    #[arg(long, default_value_t = 8)]
    window: usize,
    /// Packets a device sends in a round of the closed loop
    #[arg(long, default_value_t = 2000)]
    packets: usize,
    /// Length of a paced round, s
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Idle connections
    #[arg(long, default_value_t = 1500)]
    idle: usize,
    /// Ten-minute sessions that are announced
    #[arg(long, default_value_t = 5)]
    sessions: usize,
    /// Only these phases: closed, paced, idle, announce
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The figures as JSON on stdout
    #[arg(long)]
    json: bool,
    /// The server's program
    #[arg(long, default_value = env!("CARGO_BIN_EXE_volant"))]
    server: String,
    /// Be the control
    #[arg(long, hide = true)]
    control: bool,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn wants(&self, phase: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == phase)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.bench && !args.control {
        // Started as a test: nothing to check here.
        return ExitCode::SUCCESS;
    }
    let outcome = if args.control { control::run() } else { run(&args) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    target::raise_file_limit()?;
    // One thread for all clients, so that they take as little from the servers as can be.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        progress("generating ten minutes of four sensors at 200 Hz");
        let started_at_ms = volant::clock::Clock::system().now_us() / 1000;
        let packets = Packets::of(&data::session(200.0, 600.0), started_at_ms);
        let mut report = Report::new(args);
        if args.wants("closed") || args.wants("paced") {
            let server = Target::start(Kind::Server, args).await?;
            let control = Target::start(Kind::Control, args).await?;
            // Code paged in, threads started, buffers grown.
            for target in [&server, &control] {
                bounded(stream::closed(target, &packets, args.devices, args.window, 50)).await?;
            }
            if args.wants("closed") {
                for round in 1..=args.rounds {
                    for target in [&server, &control] {
                        progress(&format!("closed loop, round {round}, {}", target.name()));
                        let run = stream::closed(target, &packets, args.devices, args.window, args.packets);
                        report.closed.add(target.kind(), bounded(run).await?);
                    }
                }
            }
            if args.wants("paced") {
                for round in 1..=args.rounds {
                    for target in [&server, &control] {
                        progress(&format!("paced, round {round}, {}", target.name()));
                        let run = stream::paced(target, &packets, args.devices, Duration::from_secs(args.seconds));
                        report.paced.add(target.kind(), bounded(run).await?);
                    }
                }
            }
        }
        if args.wants("idle") && args.idle > 0 {
            for kind in [Kind::Server, Kind::Control] {
                let target = Target::start(kind, args).await?;
                progress(&format!("{} idle connections, {}", args.idle, target.name()));
                report.idle.push((kind, bounded(idle::bytes_per_connection(&target, args.idle)).await?));
            }
        }
        if args.wants("announce") {
            let target = Target::start(Kind::Server, args).await?;
            for number in 1..=args.sessions {
                progress(&format!("announce, session {number}"));
                report.announced.push(bounded(announce::session(&target, &packets, number)).await?);
            }
        }
        let mut out = io::stdout().lock();
        if args.json { report.write_json(&mut out) } else { report.write_text(&mut out) }
    })
}

async fn bounded<T>(phase: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, phase).await.map_err(|_| device::broken("a phase did not end in time"))?
}

/// A line for those who wait; results go to stdout.
fn progress(what: &str) {
    // Nobody may be looking.
    drop(writeln!(io::stderr(), "load: {what}"));
}
