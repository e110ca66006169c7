//! `volant retention`: gives up what is older than wanted.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::clock::Clock;
use crate::custody::{self, Policy};
use crate::store::catalog::Catalog;
use crate::store::paths::Paths;
use crate::store::space;

/// Gives up what is older than wanted, each class by its own age; what is not named stays.
///
/// May run beside a server, which does the same by itself every hour if its configuration says so. With --archive-dir frames go
/// only after an archive that holds them was written and read back.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The data folder
    #[arg(long, value_name = "DIR", default_value = "./volant-data")]
    data_dir: PathBuf,
    /// Frames of sessions that ended so many days ago go
    #[arg(long, value_name = "N")]
    frames_days: Option<u32>,
    /// Strokes and results of sessions that ended so many days ago go, once the frames of their session are gone
    #[arg(long, value_name = "N")]
    results_days: Option<u32>,
    /// Notices that were delivered so many days ago go
    #[arg(long, value_name = "N")]
    notices_days: Option<u32>,
    /// Entries of the audit log of so many days ago go
    #[arg(long, value_name = "N")]
    audit_days: Option<u32>,
    /// Archive sessions here before their frames go: a folder, or s3://bucket/prefix
    #[arg(long, value_name = "PLACE")]
    archive_dir: Option<PathBuf>,
    /// Say what would go, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print what went as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let paths = Paths::new(&args.data_dir);
    anyhow::ensure!(
        paths.catalog().is_file(),
        "{} is no data folder: --data-dir names the folder that volant serve uses",
        args.data_dir.display()
    );
    let named = [args.frames_days, args.results_days, args.notices_days, args.audit_days];
    anyhow::ensure!(
        named.iter().any(Option::is_some),
        "nothing is to go: --frames-days, --results-days, --notices-days and --audit-days say what"
    );
    let policy = Policy {
        frames_days: args.frames_days,
        results_days: args.results_days,
        notices_days: args.notices_days,
        audit_days: args.audit_days,
        archive_dir: args.archive_dir,
        reading_us: 0,
    };
    space::give_up_reserve(&paths);
    let catalog = Catalog::open(&paths.catalog()).await?;
    let done = custody::retain(&paths, &catalog, &policy, &Clock::system(), args.dry_run).await;
    catalog.close().await;
    let done = done?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &done).context("print what went")?;
        writeln!(out).context("print what went")?;
        return Ok(ExitCode::SUCCESS);
    }
    let verb = if done.dry_run { "would go" } else { "are gone" };
    writeln!(
        out,
        "the frames of {} sessions ({} frames, {} bytes), the results of {}, {} notices and {} entries of the audit log {verb}",
        done.sessions.len(),
        done.frames,
        done.bytes,
        done.results.len(),
        done.notices,
        done.audit_entries
    )
    .context("print what went")?;
    for archive in &done.archives {
        writeln!(out, "archived in {}", archive.display()).context("print what went")?;
    }
    Ok(ExitCode::SUCCESS)
}
