//! `volant import`: what another system holds, into a data folder.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Body;
use schemas::{DeviceCode, SensorRole};
use serde::Serialize;
use tempfile::NamedTempFile;
use tokio::io::AsyncReadExt as _;

use super::api::{FolderOrServer, Server};
use crate::clock::Clock;
use crate::export::{Bucket, Opened};
use crate::migration::{self, Begins, NewRecording, Options, Progress, Report, TakenRecording};
use crate::recordings::{self, Mapping, Recording, RecordingSet, TsLayout};
use crate::store::catalog::Catalog;
use crate::store::paths::Paths;
use crate::store::seal;
use crate::store::wal;

/// The exit status when rows were left out; 1 is for an import that could not go on.
const LEFT_OUT: u8 = 3;

/// What a folder that is in use is told with.
const STOP_OR_ASK: &str = "lock the data folder (stop the server that uses it, or let it do this with --url)";

/// Bytes of an archive that are read at once.
const PIECE_BYTES: usize = 1 << 17;

/// Labels in one request.
const LABELS_AT_ONCE: usize = 500;

/// Sessions between two lines of progress where there is no terminal.
const SESSIONS_A_LINE: u64 = 100;

/// Brings what another system holds into a data folder, which is made if absent. It may be stopped at any time and goes on when it is started
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
    /// who were erased here. With --url a running server takes it, for an admin; else the server of the data folder must be
    /// stopped.
    Archive(FromArchive),
    /// Recording files and sets, BadminSense's JSON, foreign CSV or Parquet by a mapping file, `.ts` sets: each recording a session
    ///
    /// With --url a running server takes them (scope sessions:write) and analyses them at once; else the server of the folder
    /// must be stopped, and analyses them when it starts.
    Recordings(Recordings),
}

#[derive(Clone, Debug, clap::Args)]
struct Recordings {
    /// Files, or folders of recording sets (samples.parquet or samples.csv, and labels.csv; or BadminSense's JSON files)
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// How to read files with other columns; docs/data.md describes it
    #[arg(long, value_name = "FILE")]
    mapping: Option<PathBuf>,
    /// Samples a second of `.ts` files
    #[arg(long, value_name = "HZ", default_value_t = 10.0, value_parser = rate)]
    ts_rate: f64,
    /// Sensor of `.ts` files: waist, shoulder, wrist or racket
    #[arg(long, value_name = "SENSOR", default_value = "wrist", value_parser = sensor)]
    ts_sensor: SensorRole,
    /// Unit of the acceleration in `.ts` files: g or m/s2
    #[arg(long, value_name = "UNIT", default_value = "m/s2", value_parser = ["g", "m/s2"])]
    ts_accel: String,
    /// Unit of the angular velocity in `.ts` files: deg/s or rad/s
    #[arg(long, value_name = "UNIT", default_value = "deg/s", value_parser = ["deg/s", "rad/s"])]
    ts_gyro: String,
    /// The player's openid; without it players are those of labels.csv, one for each set and name
    #[arg(long, value_name = "OPENID")]
    openid: Option<String>,
    /// Device code of the sessions
    #[arg(long, value_name = "CODE", default_value = "imported")]
    device: DeviceCode,
    /// When the first recording began, such as 2026-11-23T18:00:00Z; by default what the file says, else its last change. The
    /// others follow
    #[arg(long, value_name = "TIME")]
    started_at: Option<jiff::Timestamp>,
    #[command(flatten)]
    into: FolderOrServer,
    /// Read everything, say what would be taken, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|rate| (0.1..=10_000.0).contains(rate)).ok_or("a rate between 0.1 and 10000")
}

fn sensor(text: &str) -> Result<SensorRole, &'static str> {
    match SensorRole::from_name(text) {
        SensorRole::Unknown => Err("waist, shoulder, wrist or racket"),
        role => Ok(role),
    }
}

#[derive(Clone, Debug, clap::Args)]
struct FromArchive {
    /// The archive; of an object store too, such as s3://bucket/season.tar.zst, with the address and keys of the environment
    ///
    /// An object is fetched into a temporary file first: TMPDIR names the folder for it.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    into: FolderOrServer,
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
        From::Recordings(args) => return recordings(args).await,
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
    let paths = Paths::new(&args.into.data_dir);
    let fetched = if Bucket::is_named_by(&args.file) { Some(fetch(&args.file).await?) } else { None };
    let file = fetched.as_ref().map_or(args.file.as_path(), |fetched| fetched.path());
    // The temporary file's name says nothing to whoever named an object.
    let read = || match Opened::read(file) {
        Err(error) if fetched.is_some() => Err(error).with_context(|| format!("read {}", args.file.display())),
        opened => Ok(opened?),
    };
    let report = if let Some(server) = args.into.server()? {
        send_archive(&server, file, args.dry_run).await?
    } else if args.dry_run {
        let opened = read()?;
        let known = match paths.catalog() {
            path if path.is_file() => Some(Catalog::open_read_only(&path).await?),
            _ => None,
        };
        take_archive(opened, None, known).await?
    } else {
        let opened = read()?;
        let _lock = own_folder(&paths, STOP_OR_ASK)?;
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
    print_archive(&mut out, &report).context("print the report")?;
    Ok(ExitCode::SUCCESS)
}

/// An archive of an object store, as a file that goes when it is dropped.
async fn fetch(object: &Path) -> anyhow::Result<NamedTempFile> {
    let bucket = Bucket::open(object)?;
    let file = NamedTempFile::with_suffix(".tar.zst").context("make a temporary file")?;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} fetched  {eta} left");
    bar.set_style(style.context("make the progress bar")?);
    let mut show = |bytes, total| {
        bar.set_length(total);
        bar.set_position(bytes);
    };
    let fetched = bucket.fetch("", file.path(), &mut show).await;
    bar.finish_and_clear();
    fetched?;
    Ok(file)
}

async fn recordings(args: Recordings) -> anyhow::Result<ExitCode> {
    // Everything is read before anything is written: a file that is wrong is told first.
    let found = read_recordings(&args)?;
    let bar =
        if std::io::stderr().is_terminal() { ProgressBar::new(found.len() as u64) } else { ProgressBar::hidden() };
    let taken = match args.into.server()? {
        Some(server) => send_recordings(&server, found, args.dry_run, &bar).await?,
        None => take_recordings(&found, &Paths::new(&args.into.data_dir), args.dry_run, &bar).await?,
    };
    bar.finish_and_clear();
    let frames: usize = taken.iter().filter(|taken| !taken.already).map(|taken| taken.frames).sum();
    let already = taken.iter().filter(|taken| taken.already).count();
    let mut out = std::io::stdout().lock();
    if args.json {
        let report = serde_json::json!({
            "recordings": taken, "frames": frames, "already": already, "dry_run": args.dry_run
        });
        writeln!(out, "{report}").context("print the report")?;
        return Ok(ExitCode::SUCCESS);
    }
    let verb = if args.dry_run { "would be taken" } else { "taken" };
    writeln!(out, "{} recordings {verb} ({frames} frames), {already} there already", taken.len() - already)
        .context("print the report")?;
    let back = taken.iter().filter(|taken| taken.brought_back).count();
    if back > 0 {
        writeln!(out, "{back} of them had been here, and their frames given up").context("print the report")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn take_recordings(
    found: &[NewRecording],
    paths: &Paths,
    dry_run: bool,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<TakenRecording>> {
    let mut lock = None;
    let catalog = if dry_run {
        match paths.catalog() {
            path if path.is_file() => Some(Catalog::open_read_only(&path).await?),
            _ => None,
        }
    } else {
        lock = Some(own_folder(paths, STOP_OR_ASK)?);
        Some(Catalog::open(&paths.catalog()).await?)
    };
    let target = catalog.as_ref().map(|catalog| (catalog, paths)).filter(|_| !dry_run);
    let clock = Clock::system();
    let mut taken = Vec::with_capacity(found.len());
    for recording in found {
        taken.push(migration::import_recording(recording, target, catalog.as_ref(), &clock).await?);
        bar.inc(1);
    }
    if let Some(catalog) = catalog {
        catalog.close().await;
    }
    drop(lock);
    Ok(taken)
}

async fn send_recordings(
    server: &Server,
    found: Vec<NewRecording>,
    dry_run: bool,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<TakenRecording>> {
    let mut taken = Vec::with_capacity(found.len());
    for new in found {
        let NewRecording { name, track, openid, device, started_at_us, mut labels } = new;
        let last_ns = track.iter().filter_map(|(_, samples)| samples.t_ns.last().copied()).max();
        let last_ms = last_ns.unwrap_or(0) as f64 / 1e6;
        labels.retain(|label| (0.0..=last_ms).contains(&label.peak_ms));
        let recording = Recording { name, track, ..Recording::default() };
        let file = recordings::recording_as_parquet(&recording.name, &recording)?;
        let mut query = vec![
            ("device_code", device.to_string()),
            ("started_at_us", started_at_us.to_string()),
            ("dry_run", dry_run.to_string()),
        ];
        query.extend(openid.map(|openid| ("player_openid", openid)));
        let answer = server.send(&["imports", "recordings"], &query, "application/vnd.apache.parquet", file).await;
        let mut answer = answer.with_context(|| format!("send recording {}", recording.name))?;
        let one: Vec<TakenRecording> =
            serde_json::from_value(answer["recordings"].take()).context("read the answer")?;
        if let Some(TakenRecording { session_id: Some(session), already, brought_back, .. }) = one.first()
            && !labels.is_empty()
        {
            let failed = || format!("label recording {}, which is session {session}", recording.name);
            send_labels(server, *session, *already || *brought_back, &labels).await.with_context(failed)?;
        }
        taken.extend(one);
        bar.inc(1);
    }
    Ok(taken)
}

/// The labels of a session that has none yet. Of one that had been here before that is looked up, which needs a right of its own.
async fn send_labels(
    server: &Server,
    session: i64,
    is_known: bool,
    labels: &[recordings::Label],
) -> anyhow::Result<()> {
    let session = session.to_string();
    let path = ["sessions", &*session, "labels"];
    if is_known && server.get(&path, &[]).await?["labels"].as_array().is_some_and(|labels| !labels.is_empty()) {
        return Ok(());
    }
    for some in labels.chunks(LABELS_AT_ONCE) {
        let some: Vec<_> = some.iter().map(super::labels::as_sent).collect();
        server.post(&path, Some(&serde_json::json!({ "labels": some }))).await?;
    }
    Ok(())
}

async fn send_archive(server: &Server, path: &Path, dry_run: bool) -> anyhow::Result<migration::ArchiveReport> {
    let read = || format!("read {}", path.display());
    let file = tokio::fs::File::open(path).await.with_context(read)?;
    let bytes = file.metadata().await.with_context(read)?.len();
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(bytes) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} sent  {eta} left");
    bar.set_style(style.context("make the progress bar")?);
    let shown = bar.clone();
    let pieces = futures::stream::try_unfold(file, move |mut file| {
        let shown = shown.clone();
        async move {
            let mut piece = bytes::BytesMut::with_capacity(PIECE_BYTES);
            let count = file.read_buf(&mut piece).await?;
            shown.inc(count as u64);
            Ok::<_, std::io::Error>((count > 0).then(|| (piece.freeze(), file)))
        }
    });
    let query = [("dry_run", dry_run.to_string())];
    let answer = server.send(&["imports", "archives"], &query, "application/zstd", Body::wrap_stream(pieces)).await;
    bar.finish_and_clear();
    serde_json::from_value(answer?).context("read the report")
}

fn read_recordings(args: &Recordings) -> anyhow::Result<Vec<NewRecording>> {
    let mapping = args.mapping.as_deref().map(Mapping::read).transpose()?;
    let mut found = Vec::new();
    let mut told = args.started_at.map(|at| Begins::told(at.as_microsecond()));
    for path in &args.paths {
        let is_ts = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("ts"));
        let set = if is_ts {
            recordings::read_ts(
                path,
                TsLayout {
                    rate_hz: args.ts_rate,
                    sensor: args.ts_sensor,
                    accel_to_mps2: if args.ts_accel == "g" { 9.80665 } else { 1.0 },
                    gyro_to_dps: if args.ts_gyro == "rad/s" { 1f64.to_degrees() } else { 1.0 },
                },
            )?
        } else if let Some(mapping) = &mapping {
            RecordingSet { recordings: recordings::read_mapped(path, mapping)?, labels: Vec::new() }
        } else if path.is_dir() || path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json")) {
            recordings::read_set(path)?
        } else {
            RecordingSet { recordings: recordings::read_recording(path)?, labels: Vec::new() }
        };
        let changed = std::fs::metadata(path)
            .and_then(|file| file.modified())
            .ok()
            .and_then(|changed| jiff::Timestamp::try_from(changed).ok());
        let changed_us = changed.map_or(0, jiff::Timestamp::as_microsecond);
        let mut begins = told.unwrap_or_else(|| Begins::guessed(changed_us));
        let set_name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        for recording in set.recordings {
            let of_it = |label: &&recordings::Label| label.recording == recording.name;
            let labels: Vec<_> = set.labels.iter().filter(of_it).cloned().collect();
            let player = labels
                .iter()
                .find(|label| label.player != "unknown")
                .map(|label| format!("recordings:{set_name}:{}", label.player));
            found.push(NewRecording {
                started_at_us: begins.of(&recording),
                name: recording.name,
                track: recording.track,
                openid: args.openid.clone().or(player),
                device: args.device.clone(),
                labels,
            });
        }
        told = told.map(|_| begins);
    }
    Ok(found)
}

fn print_archive(out: &mut impl std::io::Write, report: &migration::ArchiveReport) -> std::io::Result<()> {
    let verb = if report.dry_run { "would be taken" } else { "taken" };
    writeln!(
        out,
        "{} sessions in the archive: {} {verb} ({} frames), {} there already",
        report.found, report.taken, report.frames, report.already
    )?;
    if report.brought_back > 0 {
        writeln!(out, "{} of them had been here, and their frames given up", report.brought_back)?;
    }
    for (theirs, ours) in &report.renumbered {
        writeln!(out, "session {theirs} is session {ours} here")?;
    }
    for session in &report.erased {
        writeln!(out, "session {session} stays out: its player was erased here")?;
    }
    Ok(())
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

/// Makes a data folder if there is none, locks it as long as the answer lives, and deletes what a killed process left unfinished
/// there.
fn own_folder(paths: &Paths, if_locked: &'static str) -> anyhow::Result<wal::Lock> {
    std::fs::create_dir_all(paths.root())
        .with_context(|| format!("make the data folder {}", paths.root().display()))?;
    let lock = wal::lock(&paths.wal()).context(if_locked)?;
    seal::remove_unfinished(paths).context("delete what was left unfinished")?;
    Ok(lock)
}

async fn into_folder(options: &Options, data_dir: &Path) -> anyhow::Result<Report> {
    let paths = Paths::new(data_dir);
    let lock = own_folder(&paths, "lock the data folder (stop the server that uses it)")?;
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
