//! `volant import`: what another system holds, into a data folder.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::clock::Clock;
use crate::export::Opened;
use crate::migration::{self, Options, Progress, Report};
use crate::store::catalog::Catalog;
use crate::store::paths::Paths;
use crate::store::wal;

/// The exit status when rows were left out; 1 is for an import that could not go on.
const LEFT_OUT: u8 = 3;

/// Sessions between two lines of progress where there is no terminal.
const SESSIONS_A_LINE: u64 = 100;

/// Brings what another system holds into a data folder. It may be stopped at any time and goes on when it is started
/// again; a later run takes what is new.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    from: From,
}

#[derive(Clone, Debug, Subcommand)]
enum From {
    /// The Django service: users, bindings, groups, sessions, sensor data and results
    ///
    /// The source is opened for reading only and may be in use. The data folder must not be: stop its server first.
    /// Exit status: 0 everything was taken, 3 some rows were left out (the report says why), 1 it could not go on.
    Django(Django),
    /// An archive that `volant export --format archive` made, of this or another service
    ///
    /// Sessions keep their numbers where they are free. What is there already is passed over, and so are sessions of players
    /// who were erased here. The data folder's server must be stopped.
    Archive(FromArchive),
}

#[derive(Clone, Debug, clap::Args)]
struct FromArchive {
    /// The archive
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The data folder; made if absent
    #[arg(long, value_name = "DIR", default_value = "./volant-data")]
    data_dir: PathBuf,
    /// Check the archive, say what would be taken, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct Django {
    /// The service's database file, db.sqlite3
    #[arg(long, value_name = "FILE")]
    sqlite: PathBuf,
    /// The data folder; made if absent
    #[arg(long, value_name = "DIR", default_value = "./volant-data")]
    data_dir: PathBuf,
    /// Read everything and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Numbers above the newest user and session of the source that stay free for what it makes until the cut-over
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(i64).range(0..=1_000_000_000))]
    reserve: i64,
    /// Frames of one session that are taken at most
    #[arg(long, value_name = "N", default_value_t = 8_000_000)]
    frames_limit: usize,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Printed<'a> {
    complete: bool,
    #[serde(flatten)]
    report: &'a Report,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let args = match args.from {
        From::Django(args) => args,
        From::Archive(args) => return archive(args).await,
    };
    anyhow::ensure!(
        args.sqlite.is_file(),
        "{} is no file: --sqlite names the service's db.sqlite3",
        args.sqlite.display()
    );
    let options = Options { sqlite: args.sqlite.clone(), reserve: args.reserve, frames_limit: args.frames_limit };
    let report = if args.dry_run { import(&options, None).await } else { into_folder(&options, &args.data_dir).await }
        .with_context(|| format!("import {}", args.sqlite.display()))?;
    print(&report, args.json).context("print the report")?;
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(LEFT_OUT) })
}

async fn archive(args: FromArchive) -> anyhow::Result<ExitCode> {
    let opened = Opened::read(&args.file)?;
    let paths = Paths::new(&args.data_dir);
    let report = if args.dry_run {
        let known = match paths.catalog() {
            path if path.is_file() => Some(Catalog::open_read_only(&path).await?),
            _ => None,
        };
        take_archive(opened, None, known).await?
    } else {
        std::fs::create_dir_all(paths.root())
            .with_context(|| format!("make the data folder {}", args.data_dir.display()))?;
        let _lock = wal::lock(&paths.wal()).context("lock the data folder (stop the server that uses it)")?;
        let catalog = Catalog::open(&paths.catalog()).await?;
        let report = take_archive(opened, Some(paths), Some(catalog.clone())).await;
        catalog.close().await;
        report?
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report).context("print the report")?;
        writeln!(out).context("print the report")?;
        return Ok(ExitCode::SUCCESS);
    }
    let verb = if report.dry_run { "would be taken" } else { "taken" };
    let mut text = format!(
        "{} sessions in the archive: {} {verb} ({} frames), {} there already\n",
        report.found, report.taken, report.frames, report.already
    );
    for (theirs, ours) in &report.renumbered {
        text += &format!("session {theirs} is session {ours} here\n");
    }
    for session in &report.erased {
        text += &format!("session {session} stays out: its player was erased here\n");
    }
    out.write_all(text.as_bytes()).context("print the report")?;
    Ok(ExitCode::SUCCESS)
}

/// The import on a thread that may wait; the catalog's answers come from the runtime's others.
async fn take_archive(
    archive: Opened,
    target: Option<Paths>,
    known: Option<Catalog>,
) -> anyhow::Result<migration::ArchiveReport> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let shown = bar.clone();
    let taken = tokio::task::spawn_blocking(move || {
        let target = target.as_ref().zip(known.as_ref()).map(|(paths, catalog)| (catalog, paths));
        migration::import_archive(&archive, target, known.as_ref(), &Clock::system(), &mut |done, total| {
            shown.set_length(total as u64);
            shown.set_position(done as u64);
        })
    })
    .await;
    bar.finish_and_clear();
    Ok(taken.context("import the archive")??)
}

async fn into_folder(options: &Options, data_dir: &Path) -> anyhow::Result<Report> {
    let paths = Paths::new(data_dir);
    std::fs::create_dir_all(paths.root()).with_context(|| format!("make the data folder {}", data_dir.display()))?;
    let lock = wal::lock(&paths.wal()).context("lock the data folder (stop the server that uses it)")?;
    let catalog = Catalog::open(&paths.catalog()).await?;
    let report = import(options, Some((catalog.clone(), paths))).await;
    catalog.close().await;
    drop(lock);
    report
}

async fn import(options: &Options, target: Option<(Catalog, Paths)>) -> anyhow::Result<Report> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} frames  {msg}  {eta} left")
        .context("make the progress bar")?;
    bar.set_style(style);
    let mut lines = 0;
    let mut show = |done: Progress| {
        if !bar.is_hidden() {
            bar.set_length(done.frames_total);
            bar.set_position(done.frames);
            bar.set_message(format!("{} sessions", done.sessions));
        } else if done.sessions / SESSIONS_A_LINE > lines {
            lines = done.sessions / SESSIONS_A_LINE;
            eprintln!("{} sessions, {} of {} frames", done.sessions, done.frames, done.frames_total);
        }
    };
    let report = migration::import(options, target, &Clock::system(), &mut show).await;
    bar.finish_and_clear();
    Ok(report?)
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &Printed { complete: report.is_complete(), report })?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "{:<14}{:>12}{:>12}{:>12}{:>12}", "", "found", "taken", "before", "left out")?;
    for (name, tally) in report.tallies() {
        let left_out: u64 = tally.left_out.values().sum();
        writeln!(out, "{name:<14}{:>12}{:>12}{:>12}{left_out:>12}", tally.found, tally.taken, tally.already)?;
        for (reason, count) in &tally.left_out {
            writeln!(out, "{:<14}{count:>48}  {}", "", reason.as_str())?;
        }
    }
    for (note, count) in &report.notes {
        writeln!(out, "note: {} ({count})", note.as_str())?;
    }
    for renumbered in &report.renumbered {
        writeln!(out, "session {} is session {} here", renumbered.old, renumbered.new)?;
    }
    if report.dry_run {
        writeln!(out, "nothing was written")?;
    }
    Ok(())
}
