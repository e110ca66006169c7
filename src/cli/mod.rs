//! The commands, one file each.
//!
//! Exit status: 0 done, 1 failed, 2 the command line was wrong. Errors are one line on stderr with a hint where there is
//! one; results go to stdout.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::store::space::is_full_disk;

pub mod analyze;
mod api;
pub mod backup;
mod columns;
pub mod compact;
pub mod config;
pub mod demo;
pub mod devices;
pub mod doctor;
mod download;
pub mod erase;
pub mod evaluate;
pub mod export;
pub mod import;
pub mod labels;
pub mod reanalyze;
pub mod recover;
pub mod retention;
pub mod serve;
pub mod sessions;
pub mod simulate;
pub mod sql;
pub mod tokens;
pub mod train;
pub mod verify;

/// What can be done when a command fails because there is no room.
const FULL_DISK_HINT: &str = "the disk is full; volant retention gives up what is old, volant erase a player";

/// Volant: streaming analytics for badminton.
#[derive(Debug, Parser)]
#[command(name = "volant", version, about, disable_help_subcommand = true)]
struct Cli {
    /// What to log: error, warn, info, debug, trace, or a filter such as volant=debug; the service logs info, other
    /// commands warnings
    #[arg(long, global = true, env = "VOLANT_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// Log one JSON object a line
    #[arg(long, global = true, env = "VOLANT_LOG_JSON")]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve(serve::Args),
    /// Stream a recorded session through a real socket, to a notification and a report
    Demo(demo::Args),
    /// Play recorded or generated sessions with simulated devices
    Simulate(simulate::Args),
    /// Find swings, name strokes and measure the kinetic chain in recording files
    Analyze(analyze::Args),
    /// Train a model on recording sets
    Train(train::Args),
    /// Judge swings and names on labelled recording sets
    Evaluate(evaluate::Args),
    /// Ask SQL of a data folder or a server; interactive without a statement
    Sql(sql::Args),
    /// Take sessions out: rows for other tools, MCAP, MATLAB, or whole as an archive
    Export(export::Args),
    /// Bring recordings or an archive into a running server or a data folder, or what the replaced Django service holds
    Import(import::Args),
    /// Recording sessions of a server or of a data folder
    Sessions(sessions::Args),
    /// Say what was played: label swings, for calibration, training and judging
    Labels(labels::Args),
    /// Say what is wrong with a session or recording, and what to do
    Doctor(doctor::Args),
    /// Analyse old sessions by another pipeline, compare and publish
    Reanalyze(reanalyze::Args),
    /// Devices of a server or of a data folder
    Devices(devices::Args),
    /// Tokens, pairing codes and admins of a data folder
    Tokens(tokens::Args),
    /// Re-read everything that is stored and say what is damaged or missing
    Verify(verify::Args),
    /// Copy a data folder while its server runs
    Backup(backup::BackupArgs),
    /// Make a data folder of a backup
    Restore(backup::RestoreArgs),
    /// Pack the small files of past days into a few, or undo it
    Compact(compact::Args),
    /// Give up frames and notices that are older than wanted, archived first if you like
    Retention(retention::Args),
    /// Take a player out of a data folder, with a signed receipt
    Erase(erase::Args),
    /// Repair the write-ahead log of a stopped folder and say what was found
    Recover(recover::Args),
    /// The configuration
    Config(config::Args),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = if cli.log_json { crate::telemetry::LogFormat::Json } else { crate::telemetry::LogFormat::Text };
    let usual = if matches!(cli.command, Command::Serve(_)) { "warn,volant=info" } else { "warn" };
    crate::telemetry::init_logs(cli.log.as_deref().unwrap_or(usual), format);
    match run(cli.command) {
        Ok(code) => code,
        Err(error) if is_unread(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: the step and its causes.
            eprintln!("volant: {error:#}");
            if is_full_disk(&*error) {
                eprintln!("hint: {FULL_DISK_HINT}");
            }
            ExitCode::FAILURE
        }
    }
}

/// True if whoever reads what is printed has what they wanted and closed the pipe, as `head` does: it is that pipe that broke, and
/// no connection.
fn is_unread(error: &anyhow::Error) -> bool {
    // Writers of JSON and of tables each wrap it in their own way.
    let broke = error.chain().any(|cause| cause.to_string().contains("Broken pipe"));
    let stdout = std::io::stdout();
    let mut printed = [PollFd::new(&stdout, PollFlags::OUT)];
    broke && poll(&mut printed, Some(&Timespec::default())).is_ok() && printed[0].revents().contains(PollFlags::ERR)
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => block_on(serve::run(args)),
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Simulate(args) => block_on(simulate::run(args)),
        Command::Analyze(args) => analyze::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Sql(args) => block_on(sql::run(args)),
        Command::Export(args) => block_on(export::run(args)),
        Command::Import(args) => block_on(import::run(args)),
        Command::Sessions(args) => block_on(sessions::run(args)),
        Command::Labels(args) => block_on(labels::run(args)),
        Command::Doctor(args) => block_on(doctor::run(args)),
        Command::Reanalyze(args) => block_on(reanalyze::run(args)),
        Command::Devices(args) => block_on(devices::run(args)),
        Command::Tokens(args) => block_on(tokens::run(args)),
        Command::Verify(args) => verify::run(&args),
        Command::Backup(args) => block_on(backup::backup(args)),
        Command::Restore(args) => block_on(backup::restore(args)),
        Command::Compact(args) => block_on(compact::run(args)),
        Command::Retention(args) => block_on(retention::run(args)),
        Command::Erase(args) => block_on(erase::run(args)),
        Command::Recover(args) => recover::run(&args),
        Command::Config(args) => config::run(args),
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("volant-io").build()?;
    runtime.block_on(work)
}
