//! `volant erase`: takes a player out of a data folder or of a running server, with a receipt.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use schemas::UserId;

use super::api::FolderOrServer;
use crate::clock::Clock;
use crate::custody::{self, Receipt};
use crate::store::paths::Paths;
use crate::store::wal;

/// Erases a player: sessions, frames, strokes, results, notices, tokens, a model of their own.
///
/// With --url a running server does it, for an admin; else the server of the folder must be stopped. A receipt, signed by the
/// service, says what is gone and which archives and backups hold the player elsewhere. It may be interrupted and is finished when it is
/// run again.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Number of the player
    #[arg(long, value_name = "ID", required_unless_present = "check")]
    player: Option<i64>,
    #[command(flatten)]
    at: FolderOrServer,
    /// Say what would be erased, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Where the receipt goes; by default into the receipts of the data folder, where a server keeps it in any case
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// Check the signature of a receipt instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["player", "url", "dry_run", "receipt"])]
    check: Option<PathBuf>,
    /// Print the receipt as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.check {
        let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        let receipt: Receipt =
            serde_json::from_slice(&text).with_context(|| format!("read the receipt {}", file.display()))?;
        custody::check_receipt(&receipt)?;
        print(&receipt, args.json, false).context("print the receipt")?;
        return Ok(ExitCode::SUCCESS);
    }
    let user = UserId(args.player.unwrap_or_default());
    let (receipt, usual_place) = match args.at.server()? {
        Some(server) => {
            let query = [("dry_run", args.dry_run.to_string())];
            let answer = server.delete(&["players", &user.to_string()], &query).await?;
            (serde_json::from_value(answer).context("read the receipt")?, None)
        }
        None => {
            let paths = Paths::new(&args.at.data_dir);
            anyhow::ensure!(
                paths.catalog().is_file(),
                "{} is no data folder: --data-dir names the folder that volant serve uses",
                args.at.data_dir.display()
            );
            let erased = custody::erase(&paths, user, &Clock::system(), args.dry_run).await;
            if matches!(erased, Err(custody::Error::Wal(wal::Error::Locked { .. }))) {
                anyhow::bail!("a service runs on {}: --url names it, and it erases", paths.root().display());
            }
            let receipt = erased?;
            (receipt, Some(custody::receipt_path(&paths, user)))
        }
    };
    if let Some(path) = args.receipt.or(usual_place).filter(|_| !args.dry_run) {
        custody::keep_receipt(&path, &receipt)?;
        writeln!(std::io::stderr(), "receipt: {}", path.display()).context("print the receipt")?;
    }
    print(&receipt, args.json, args.dry_run).context("print the receipt")?;
    Ok(ExitCode::SUCCESS)
}

fn print(receipt: &Receipt, json: bool, dry_run: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, receipt)?;
        return writeln!(out);
    }
    let verb = if dry_run { "would be erased" } else { "is erased" };
    writeln!(out, "player {} {verb}", receipt.player)?;
    for (table, count) in receipt.counts.iter().filter(|(_, count)| **count > 0) {
        writeln!(out, "{count:>12} {table}")?;
    }
    writeln!(out, "{:>12} files", receipt.files.len())?;
    for archive in &receipt.archives {
        writeln!(out, "archive {} holds the player and is not touched", archive.path.display())?;
    }
    for backup in &receipt.backups {
        let path = backup.path.display();
        writeln!(out, "backup {path} may hold the player until it is made again: volant backup --out {path}")?;
    }
    Ok(())
}
