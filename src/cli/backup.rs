//! `volant backup` and `volant restore`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::ProgressBar;

use crate::clock::Clock;
use crate::custody::{self, Backup, Restored};
use crate::store::paths::Paths;

/// Copies a data folder while its server runs.
///
/// What was acknowledged before the command began is in the copy. Run again with the same --out it copies only what is new,
/// also after it was interrupted. `volant verify --data-dir` checks a restored copy.
#[derive(Clone, Debug, clap::Args)]
pub struct BackupArgs {
    /// The data folder
    #[arg(long, value_name = "DIR", default_value = "./volant-data")]
    data_dir: PathBuf,
    /// The backup, a folder; made if absent
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Makes a data folder of a backup, every file checked.
///
/// Players who were erased after the backup was made are erased again: the erasure left its receipt with the backup. One that
/// was elsewhere then needs --receipts. Exit status 1: somebody who was erased is, or may be, still in it; the output says why.
#[derive(Clone, Debug, clap::Args)]
pub struct RestoreArgs {
    /// The backup, a folder
    #[arg(value_name = "BACKUP")]
    from: PathBuf,
    /// The data folder to make; it must be empty or absent
    #[arg(long, value_name = "DIR", default_value = "./volant-data")]
    data_dir: PathBuf,
    /// Receipts of erasures since, files or folders of them; for a backup that was out of reach of the erasure
    #[arg(long, value_name = "PATH")]
    receipts: Vec<PathBuf>,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `backup`.
pub async fn backup(args: BackupArgs) -> anyhow::Result<ExitCode> {
    let paths = Paths::new(&args.data_dir);
    anyhow::ensure!(
        paths.catalog().is_file(),
        "{} is no data folder: --data-dir names the folder that volant serve uses",
        args.data_dir.display()
    );
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let done = custody::backup(&paths, &args.out, &Clock::system(), &mut |files| {
        bar.set_message(format!("{files} files"));
        bar.tick();
    })
    .await;
    bar.finish_and_clear();
    print(&done?, args.json).context("print what was done")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `restore`.
pub async fn restore(args: RestoreArgs) -> anyhow::Result<ExitCode> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let done = custody::restore(&args.from, &args.data_dir, &args.receipts, &Clock::system(), &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })
    .await;
    bar.finish_and_clear();
    let done = done?;
    print_restored(&done, &args.data_dir, args.json).context("print what was done")?;
    let is_clear = done.still_there.is_empty() && done.unreadable_receipts == 0;
    Ok(if is_clear { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(done: &Backup, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, done)?;
        return writeln!(out);
    }
    writeln!(out, "{} files, {} bytes, {} of them there already", done.files, done.bytes, done.kept)
}

fn print_restored(done: &Restored, folder: &Path, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, done)?;
        return writeln!(out);
    }
    writeln!(out, "{} files, {} bytes", done.files, done.bytes)?;
    for player in &done.erased {
        writeln!(out, "player {player} was erased after the backup was made, and is erased again")?;
    }
    for (player, session) in &done.still_there {
        writeln!(
            out,
            "player {player} was erased after the backup was made, and is in {} again: session {session} is unfinished there. \
             Start the service, let it end the session (volant sessions complete {session}), then: volant erase --player {player}",
            folder.display()
        )?;
    }
    if done.unreadable_receipts > 0 {
        writeln!(
            out,
            "{} receipts of erasures beside the backup cannot be read: whoever they are of may be in {} again. \
             Restore into another folder with --receipts, or erase them",
            done.unreadable_receipts,
            folder.display()
        )?;
    }
    Ok(())
}
