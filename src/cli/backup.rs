//! `volant backup` and `volant restore`.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::ProgressBar;

use crate::clock::Clock;
use crate::custody::{self, Backup};
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
#[derive(Clone, Debug, clap::Args)]
pub struct RestoreArgs {
    /// The backup, a folder
    #[arg(value_name = "BACKUP")]
    from: PathBuf,
    /// The data folder to make; it must be empty or absent
    #[arg(long, value_name = "DIR", default_value = "./volant-data")]
    data_dir: PathBuf,
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
pub fn restore(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let done = custody::restore(&args.from, &args.data_dir, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    print(&done?, args.json).context("print what was done")?;
    Ok(ExitCode::SUCCESS)
}

fn print(done: &Backup, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, done)?;
        return writeln!(out);
    }
    writeln!(out, "{} files, {} bytes, {} of them there already", done.files, done.bytes, done.kept)
}
