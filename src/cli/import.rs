//! `volant import`: takes data of other systems into a data folder.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

use crate::clock::Clock;
use crate::migration::{Count, Options, Report, import_django};
use crate::store::paths::Paths;

/// Takes data of other systems into a data folder on which no server runs.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub from: From,
}

#[derive(Clone, Debug, Subcommand)]
pub enum From {
    /// The replaced Django service: users, bindings, groups, sessions, frames, results
    ///
    /// May be killed and run again at any time: it goes on and doubles nothing. A later run takes only what is new. The old
    /// database is only read. Exit status: 0 everything was taken, 3 something was left out (the report says what and why),
    /// 1 it could not go on.
    Django {
        /// The database of the old service, db.sqlite3
        #[arg(long, value_name = "FILE")]
        sqlite: PathBuf,
        /// The data folder
        #[arg(long, value_name = "DIR", default_value = "./volant-data")]
        data_dir: PathBuf,
        /// Name of the old service; give a second one a name of its own
        #[arg(long, value_name = "NAME", default_value = "django")]
        source: String,
        /// Say what would be taken and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Print the report as one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let From::Django { sqlite, data_dir, source, dry_run, json } = args.from;
    if !sqlite.is_file() {
        anyhow::bail!("{} is no file: --sqlite names the db.sqlite3 of the old service", sqlite.display());
    }
    std::fs::create_dir_all(&data_dir).with_context(|| format!("make the data folder {}", data_dir.display()))?;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} sessions, {eta} left") {
        bar.set_style(style);
    }
    let shown = bar.clone();
    let progress = move |done: u64, total: u64| {
        shown.set_length(total);
        shown.set_position(done);
        if shown.is_hidden() && (done.is_multiple_of(100) || done == total) {
            eprintln!("{done} of {total} sessions");
        }
    };
    let options = Options { source, dry_run };
    let report = import_django(&sqlite, &Paths::new(&data_dir), &Clock::system(), &options, progress).await?;
    bar.finish_and_clear();
    print(&report, json).context("print the report")?;
    Ok(if is_whole(&report) { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn counts(report: &Report) -> [(&'static str, &Count); 7] {
    [
        ("users", &report.users),
        ("bindings", &report.bindings),
        ("groups", &report.groups),
        ("sessions", &report.sessions),
        ("results", &report.results),
        ("frames", &report.frames),
        ("collections", &report.collections),
    ]
}

fn is_whole(report: &Report) -> bool {
    counts(report).iter().all(|(_, count)| count.left_out.is_empty())
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, report)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "{:<12} {:>10} {:>10} {:>10}", "", "taken", "already", "left out")?;
    for (name, count) in counts(report) {
        let left_out: u64 = count.left_out.values().sum();
        writeln!(out, "{name:<12} {:>10} {:>10} {left_out:>10}", count.taken, count.already)?;
    }
    for (name, count) in counts(report) {
        for (reason, rows) in &count.left_out {
            writeln!(out, "left out: {rows} {name}: {reason}")?;
        }
    }
    for (old, new) in &report.renumbered {
        writeln!(out, "renumbered: session {old} is {new} here, because {old} was taken")?;
    }
    Ok(())
}
