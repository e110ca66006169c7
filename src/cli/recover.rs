//! `volant recover`: repairs the write-ahead log of a stopped server and says what was found.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use crate::store::paths::Paths;
use crate::store::seal;
use crate::store::wal::{self, RecoveryReport};

/// Runs the recovery that `volant serve` runs at its start, and stops there.
///
/// Damaged bytes are set aside in files beside the log; files that a crash left unfinished are deleted. The frames stay
/// in the log for the next start. Exit status: 0 nothing is lost, 3 acknowledged frames may be lost, 1 it could not run.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The data folder of a server that does not run.
    #[arg(long, value_name = "DIR", default_value = "./volant-data")]
    pub data_dir: PathBuf,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What `volant recover --json` prints.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The log.
    pub wal: RecoveryReport,
    /// Frames in the log, by session.
    pub frames_by_session: BTreeMap<i64, u64>,
    /// Unfinished Parquet files that were deleted.
    pub unfinished_removed: usize,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if !args.data_dir.is_dir() {
        anyhow::bail!("{} is no folder: --data-dir names the folder that volant serve uses", args.data_dir.display());
    }
    let report =
        recover(&Paths::new(&args.data_dir)).with_context(|| format!("recover {}", args.data_dir.display()))?;
    print(&report, args.json).context("print the report")?;
    Ok(if report.wal.lost_data() { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

fn recover(paths: &Paths) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let frames = &mut report.frames_by_session;
    let (log, found) = wal::Handle::open(wal::Options::new(paths.wal()), |record| {
        *frames.entry(record.session_id.get()).or_default() += record.frames.len() as u64;
    })?;
    report.wal = found;
    // While the log is locked no server can be writing these files.
    report.unfinished_removed = seal::remove_unfinished(paths)?;
    drop(log);
    Ok(report)
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, report)?;
        writeln!(out)?;
        return Ok(());
    }
    let RecoveryReport { segments, records, frames, damaged_bytes, torn_bytes, damaged_spots, set_aside, .. } =
        &report.wal;
    writeln!(out, "kept     {records} records, {frames} frames in {segments} segments")?;
    for (session, frames) in &report.frames_by_session {
        writeln!(out, "         session {session}: {frames} frames")?;
    }
    if *torn_bytes > 0 {
        writeln!(out, "torn     {torn_bytes} bytes of a last record that was never acknowledged")?;
    }
    if *damaged_spots > 0 {
        writeln!(out, "DAMAGED  {damaged_spots} places, {} bytes: frames may be lost", damaged_bytes - torn_bytes)?;
    }
    for path in set_aside {
        writeln!(out, "aside    {}", path.display())?;
    }
    if report.unfinished_removed > 0 {
        writeln!(out, "deleted  {} unfinished files", report.unfinished_removed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_log_is_repaired_and_reported() {
        let dir = tempfile::TempDir::new().unwrap();
        let paths = Paths::new(dir.path());
        std::fs::create_dir(paths.wal()).unwrap();
        std::fs::write(paths.wal().join(format!("{:020}.wal", 3)), b"VOLWAL").unwrap();
        let args = Args { data_dir: dir.path().to_owned(), json: true };
        let report = recover(&paths).unwrap();
        assert_eq!((report.wal.torn_bytes, report.wal.set_aside.len()), (6, 1));
        assert_eq!(recover(&paths).unwrap().wal, RecoveryReport::default(), "found once");
        assert_eq!(run(&args).unwrap(), ExitCode::SUCCESS);
        let absent = Args { data_dir: dir.path().join("absent"), json: false };
        assert!(run(&absent).unwrap_err().to_string().contains("--data-dir"));
    }
}
