//! `volant verify`: reads everything that is stored and says what is whole and what is lost.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressBar;

use crate::store::audit::{Report, audit};
use crate::store::paths::Paths;
use crate::store::seal::Manifest;

/// Reads every Parquet file and the write-ahead log of a data folder, also while a server runs on it.
///
/// Exit status: 0 everything is whole, 1 something is lost, 2 the folder cannot be read.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The data folder.
    #[arg(long, value_name = "DIR", default_value = "./volant-data")]
    pub data_dir: PathBuf,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command on the files alone.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    run_with(args, &[])
}

/// Runs the command, and holds the files against what the catalog remembers of them.
pub fn run_with(args: &Args, manifests: &[Manifest]) -> anyhow::Result<ExitCode> {
    if !args.data_dir.is_dir() {
        anyhow::bail!("{} is no folder: --data-dir names the folder that volant serve uses", args.data_dir.display());
    }
    let progress = match std::io::stderr().is_terminal() {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    progress.enable_steady_tick(Duration::from_millis(200));
    let report = audit(&Paths::new(&args.data_dir), manifests, |file| progress.set_message(file.display().to_string()))
        .with_context(|| format!("verify {}", args.data_dir.display()))?;
    progress.finish_and_clear();
    print(&report, args.json).context("print the report")?;
    Ok(if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, report)?;
        writeln!(out)?;
        return Ok(());
    }
    let Report { files, rows, bytes, files_without_manifest, unfinished, lost, wal } = report;
    writeln!(out, "parquet  {files} files, {rows} rows, {bytes} bytes whole")?;
    if *files_without_manifest > 0 {
        writeln!(out, "         {files_without_manifest} of them not checked against the catalog")?;
    }
    if *unfinished > 0 {
        writeln!(out, "         {unfinished} unfinished files, which the next start deletes")?;
    }
    writeln!(out, "log      {} segments, {} records, {} frames", wal.segments, wal.records, wal.frames)?;
    if wal.torn_bytes > 0 {
        writeln!(out, "         {} bytes of a last record that was never acknowledged", wal.torn_bytes)?;
    }
    for lost in lost {
        let rows = lost.rows.map(|rows| format!(" ({rows} rows)")).unwrap_or_default();
        writeln!(out, "LOST     {}{rows}: {}", lost.path.display(), lost.reason)?;
    }
    writeln!(out, "{}", if report.is_whole() { "nothing is lost" } else { "something is lost" })?;
    Ok(())
}
