//! `volant compact`: packs the small files of past days, or undoes it.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::clock::Clock;
use crate::custody::{self, Compacted, Packing};
use crate::store::paths::Paths;
use crate::store::swap::{self, Sizes};

/// Packs the small files of past days into a few; every row, every sum and every answer stays the same.
///
/// May run beside a server, which does the same by itself every hour. It can be interrupted: days that are done stay done, the day
/// that was being packed stays as it was. --undo gives every session its own file back, to the byte.
///
/// Exit status: 0 done, 1 failed, 130 interrupted.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The data folder
    #[arg(long, value_name = "DIR", default_value = "./volant-data")]
    data_dir: PathBuf,
    /// Pack days that are so many days past
    #[arg(long, value_name = "N", default_value_t = 7)]
    after_days: u32,
    /// Files of fewer bytes are packed
    #[arg(long, value_name = "BYTES", default_value_t = Sizes::default().small_bytes)]
    small_bytes: u64,
    /// A pack is closed before it becomes larger
    #[arg(long, value_name = "BYTES", default_value_t = Sizes::default().pack_bytes)]
    pack_bytes: u64,
    /// Say what would be packed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Give every session its own file back: before going back to a Volant that knows no packs
    #[arg(long, conflicts_with = "dry_run")]
    undo: bool,
    /// Print what was done as JSON
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
    let cancelled = Arc::new(AtomicBool::new(false));
    let on_interrupt = Arc::clone(&cancelled);
    let waiting = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_interrupt.store(true, Ordering::Relaxed);
        }
    });
    let (undo, json) = (args.undo, args.json);
    let is_cancelled = Arc::clone(&cancelled);
    let done = tokio::task::spawn_blocking(move || {
        let go_on = || !is_cancelled.load(Ordering::Relaxed);
        if undo { undone(&paths, json, &go_on) } else { packed(&paths, &args, &go_on) }
    })
    .await;
    waiting.abort();
    done.context("run the compaction")??;
    Ok(if cancelled.load(Ordering::Relaxed) { ExitCode::from(130) } else { ExitCode::SUCCESS })
}

fn packed(paths: &Paths, args: &Args, go_on: &dyn Fn() -> bool) -> anyhow::Result<()> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} days  {msg}").context("make the progress bar")?);
    bar.enable_steady_tick(Duration::from_millis(200));
    let packing = Packing {
        after_days: args.after_days,
        frames_days: None,
        sizes: Sizes { small_bytes: args.small_bytes, pack_bytes: args.pack_bytes, ..Sizes::default() },
        reading: custody::READING,
    };
    let done = custody::compact(paths, &packing, &Clock::system(), args.dry_run, go_on, &mut |done, total, folder| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        bar.set_message(folder.display().to_string());
    });
    bar.finish_and_clear();
    print(&done?, args.json).context("print what was done")
}

fn undone(paths: &Paths, json: bool, go_on: &dyn Fn() -> bool) -> anyhow::Result<()> {
    let packs = swap::undo_all(paths, go_on)?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::json!({ "packs_undone": packs }))?;
    } else {
        writeln!(out, "{packs} packs are undone: every session has its own file")?;
    }
    Ok(())
}

fn print(done: &Compacted, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, done)?;
        writeln!(out)?;
        return Ok(());
    }
    let verb = if done.dry_run { "would become" } else { "became" };
    for (table, size) in &done.tables {
        write!(out, "{:8} {} files {verb} {}", table.as_str(), size.files_before, size.files_after)?;
        if !done.dry_run {
            write!(out, ", {} bytes {}", size.bytes_before, size.bytes_after)?;
        }
        writeln!(out)?;
    }
    if done.changed_days > 0 {
        writeln!(out, "{} days were written to meanwhile and stay for the next run", done.changed_days)?;
    }
    if done.tables.values().any(|size| size.packed_files > 0) && !done.dry_run {
        writeln!(out, "what was replaced is in _swap until the next run or start, for statements that still read it")?;
    }
    if done.cancelled {
        writeln!(out, "interrupted: what is packed stays packed, run it again for the rest")?;
    }
    Ok(())
}
