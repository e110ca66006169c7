//! `volant verify`: reads everything that is stored and says what is whole and what is lost.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressBar;

use crate::store::audit::{Expected, Report, audit};
use crate::store::catalog::Catalog;
use crate::store::paths::Paths;

/// The exit status when something is lost; 1 is for a command that could not do its work.
const LOST: u8 = 3;

/// How often a check is repeated because a running server published files meanwhile.
const ATTEMPTS_LIMIT: usize = 5;

/// Reads every Parquet file and the write-ahead log of a data folder, and holds them against the catalog. It changes
/// nothing and may run beside a server.
///
/// Exit status: 0 everything is whole, 3 something is lost, 1 the folder could not be read.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The data folder.
    #[arg(long, value_name = "DIR", default_value = "./volant-data")]
    pub data_dir: PathBuf,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if !args.data_dir.is_dir() {
        anyhow::bail!("{} is no folder: --data-dir names the folder that volant serve uses", args.data_dir.display());
    }
    let progress = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    progress.enable_steady_tick(Duration::from_millis(200));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = verify(&Paths::new(&args.data_dir), &runtime, &progress)
        .with_context(|| format!("verify {}", args.data_dir.display()))?;
    progress.finish_and_clear();
    print(&report, args.json).context("print the report")?;
    Ok(if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(LOST) })
}

fn verify(paths: &Paths, runtime: &tokio::runtime::Runtime, progress: &ProgressBar) -> anyhow::Result<Report> {
    let mut attempt = 1;
    let mut expected = runtime.block_on(expected_files(paths))?;
    loop {
        let report = audit(paths, &expected, |file| progress.set_message(file.display().to_string()))?;
        if report.is_whole() || attempt == ATTEMPTS_LIMIT {
            return Ok(report);
        }
        // What looks lost may have been replaced by a running server between the two looks.
        let now = runtime.block_on(expected_files(paths))?;
        if now == expected {
            return Ok(report);
        }
        expected = now;
        attempt += 1;
    }
}

/// What the catalog says; nothing where there is none.
async fn expected_files(paths: &Paths) -> anyhow::Result<Vec<Expected>> {
    let path = paths.catalog();
    if !path.exists() {
        return Ok(Vec::new());
    }
    let catalog = Catalog::open_read_only(&path).await?;
    let expected = catalog.expected_files().await;
    catalog.close().await;
    Ok(expected?)
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, report)?;
        writeln!(out)?;
        return Ok(());
    }
    let Report { files, packed_files, packs, rows, bytes, unlisted_files, newer_files, unfinished_files, lost, wal } =
        report;
    writeln!(out, "parquet  {files} files, {rows} rows, {bytes} bytes whole")?;
    if *packs > 0 {
        writeln!(out, "         {packed_files} of them in {packs} packs")?;
    }
    if *unlisted_files > 0 {
        writeln!(out, "         {unlisted_files} of them unknown to the catalog")?;
    }
    if *newer_files > 0 {
        writeln!(out, "         {newer_files} of them newer than the catalog, which the next start makes good")?;
    }
    if *unfinished_files > 0 {
        writeln!(out, "         {unfinished_files} unfinished files, which the next start deletes")?;
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

#[cfg(test)]
mod tests {
    use schemas::{FrameColumns, SensorRole, SessionId, SessionStatus};

    use super::*;
    use crate::store::catalog::{NewSession, Sealed, SessionKind};
    use crate::store::seal;

    #[test]
    fn the_catalog_says_what_must_be_there() {
        let dir = tempfile::TempDir::new().unwrap();
        let paths = Paths::new(dir.path());
        let args = Args { data_dir: dir.path().to_owned(), json: true };
        assert_eq!(run(&args).unwrap(), ExitCode::SUCCESS, "an empty folder has lost nothing");

        let mut frames = FrameColumns::default();
        frames.push_decoded(4, SensorRole::Racket, None, [[1.0; 3]; 3]);
        let manifest = seal::write_frames(&paths, SessionId(1), 0, 1, &frames, |_| None, &[]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let catalog = Catalog::open(&paths.catalog()).await.unwrap();
            let new = NewSession {
                kind: SessionKind::Session,
                device_code: "2025001".parse().unwrap(),
                group_code: "2025001".to_owned(),
                claimed_id: None,
                user_id: None,
                status: SessionStatus::Stopping,
                started_at_us: 0,
            };
            let session = catalog.insert_session(&new).await.unwrap();
            let sealed = Sealed {
                session_id: session.session_id,
                revision: 1,
                rows: 1,
                path: manifest.path.to_string(),
                bytes: manifest.bytes as i64,
                sha256: manifest.sha256.clone(),
                sync_error_ns: 0,
            };
            catalog.commit_seal(&sealed, 0).await.unwrap();
            catalog.close().await;
        });
        let expected = runtime.block_on(expected_files(&paths)).unwrap();
        assert_eq!(expected, [Expected::from(&manifest)]);
        assert_eq!(run(&args).unwrap(), ExitCode::SUCCESS);
        std::fs::remove_file(paths.file(manifest.path)).unwrap();
        assert_eq!(run(&args).unwrap(), ExitCode::from(LOST));
        let absent = Args { data_dir: dir.path().join("absent"), json: false };
        assert!(run(&absent).unwrap_err().to_string().contains("--data-dir"));
    }
}
