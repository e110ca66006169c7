//! `volant demo`: what Volant is for, in one command: a recorded session streams through a real socket in the protocol of
//! the unmodified firmware, to a notification, a report and SQL.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use tokio::sync::watch;

use super::sql;
use crate::admin;
use crate::app::App;
use crate::clock::Clock;
use crate::config::Config;
use crate::recordings::{self, Recording};
use crate::report;
use crate::simulator::{self, Address, Device, PlayLimits, Played, Progress, Source, Speed, Step};
use crate::texts::Lang;

/// The recording that ships with the program: a minute of a generated four-sensor session.
const SHIPPED: &[u8] = include_bytes!("../../data/demo-session.parquet");
const SHIPPED_NAME: &str = "demo-session.parquet";
/// Who plays, and on which device: the code that every board with the public firmware has.
const OPENID: &str = "demo-player";
const DEVICE_CODE: &str = "2025001";
/// How long the stream should take where no speed is given; long enough to watch, short enough to wait for.
const STREAM_S: f64 = 12.0;
/// Frames a second above which pacing is pointless: the device then sends as fast as the socket takes the packets.
const PACED_FRAMES_PER_S: f64 = 20_000.0;

/// Play a recorded session from the device to the report.
///
/// Starts the service with its embedded default, streams the recording frame by frame through a real socket as firmware
/// V3.3 does, and shows what the player gets. The service then keeps running until Ctrl-C.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Recording file (CSV or Parquet) or recording set to play; else the session that ships with the program
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// Which recording of a file that holds several; else the first
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How many times as fast as it was recorded; else so that it takes about 12 s
    #[arg(long, value_name = "FACTOR")]
    speed: Option<f64>,
    /// End after the report
    #[arg(long)]
    once: bool,
    /// Folder for the report and the service's data
    #[arg(long, value_name = "DIR", default_value = "volant-demo")]
    out: PathBuf,
    /// Address of the service; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Language of the report: en or zh
    #[arg(long, default_value_t)]
    lang: Lang,
}

/// Runs the command.
///
/// # Errors
/// Whatever did not happen: the first step that failed, with its causes.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&args.out).with_context(|| format!("make the folder {}", args.out.display()))?;
    let recording = read(&args)?;
    let duration_s = duration_s(&recording);
    let speed = speed(&args, duration_s, recording.track.len())?;

    let data_dir = args.out.join("data");
    let config = Config { listen: args.listen, data_dir: data_dir.clone(), ..Config::default() };
    config.validate()?;
    let app = App::start(config, Clock::system()).await.context("start the service")?;
    let url = format!("http://{}", app.address());
    say(&format!(
        "service    {url}, data in {}\nrecording  {}: {:.1} s, {}, {} frames\ndevice     {DEVICE_CODE} with firmware V3.3 (simulated), {}\n",
        data_dir.display(),
        recording.name,
        duration_s,
        sensors(&recording),
        recording.track.len(),
        match speed {
            Speed::Factor(factor) => format!("{factor:.1} times as fast"),
            Speed::Max => "as fast as the socket takes it".to_owned(),
        },
    ))?;

    let outcome = tokio::select! {
        outcome = show(&args, &app, &url, &recording, speed, duration_s) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
    };
    if matches!(outcome, Ok(code) if code == ExitCode::SUCCESS) && !args.once {
        further(&args, &url)?;
        tokio::signal::ctrl_c().await.context("wait for Ctrl-C")?;
    }
    let stopped = app.stop().await;
    let code = outcome?;
    stopped?;
    Ok(code)
}

/// The session itself: stream, notification, report, SQL.
async fn show(
    args: &Args,
    app: &App,
    url: &str,
    recording: &Recording,
    speed: Speed,
    duration_s: f64,
) -> anyhow::Result<ExitCode> {
    let played = play(app, recording, speed, duration_s).await?;
    say(&format!(
        "upload complete, notified {} ms later\n\n== what the player's phone received\n{}",
        played.analysis_took.as_millis(),
        serde_json::to_string_pretty(&shortened(&played.notification))?,
    ))?;

    let session_id = played.session_id.parse().context("read the session's number")?;
    let published = app.rooms().analysis.published(session_id).await?.context("find the result of the session")?;
    say(&format!("\n== report\n{}", report::text(&published.analysis, args.lang)))?;
    let page = admin::session_report(&app.rooms().shown(), session_id, args.lang).await?;
    let path = args.out.join("report.html");
    std::fs::write(&path, page).with_context(|| format!("write the report {}", path.display()))?;
    say(&format!("\nthe same with plots: {}\n\n== two questions in SQL", path.display()))?;

    for statement in questions(&played.session_id) {
        say(&format!("\n{statement};\n"))?;
        let code = sql::run(sql::Args {
            statement: Some(statement),
            data_dir: PathBuf::new(),
            url: Some(url.to_owned()),
            token: None,
            format: sql::Format::Table,
            max_rows: 40,
            pager: String::new(),
            timeout: None,
        })
        .await?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    let stored = app.rooms().sessions.info(session_id).await?.map_or(0, |session| session.frame_count);
    let acked = played.device.frames_acked - played.device.items_failed;
    ensure!(i64::try_from(acked) == Ok(stored), "keep every frame: {acked} were acknowledged, {stored} are stored");
    say(&format!("\nevery acknowledged frame is stored: {acked}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Frames and strokes, as somebody who has just heard of the tables would ask.
fn questions(session_id: &str) -> [String; 2] {
    [
        format!(
            "SELECT sensor, count(*) AS frames, round(max(gyro_norm_dps)) AS peak_dps, \
             round(max(t_s) - min(t_s), 1) AS seconds\n\
             FROM frames_si WHERE session_id = {session_id}\n\
             GROUP BY sensor ORDER BY peak_dps"
        ),
        format!(
            "SELECT stroke, count(*) AS strokes, round(avg(confidence), 2) AS confidence,\n  \
             round(median(peak_gyro_dps)) AS peak_dps, round(median(delay_shoulder_wrist_ms)) AS shoulder_wrist_ms\n\
             FROM strokes WHERE session_id = {session_id}\n\
             GROUP BY stroke ORDER BY strokes DESC, stroke"
        ),
    ]
}

/// Plays the session as device and player, with progress on stderr.
async fn play(app: &App, recording: &Recording, speed: Speed, duration_s: f64) -> anyhow::Result<Played> {
    let address: Address = app.address().to_string().parse()?;
    let source = Source::from_recording(recording);
    let mut config = simulator::Config::new(address.clone(), DEVICE_CODE, source);
    config.speed = speed;
    let device = Device::spawn(config)?;
    let factor = match speed {
        Speed::Factor(factor) => factor,
        Speed::Max => 1.0,
    };
    let limits = PlayLimits::for_recording(duration_s, factor);
    let watcher = Watcher(tokio::spawn(watch_progress(device.progress())));
    let played = simulator::play_session(&device, &address, OPENID, limits, |step| {
        if let Step::Started { session_id } = &step {
            // A closed stderr is no reason to fail.
            drop(writeln!(io::stderr(), "session {session_id} started"));
        }
    })
    .await;
    drop(watcher);
    let progress = device.stop().await;
    let played = played?;
    drop(writeln!(
        io::stderr(),
        "{} packets with {} frames sent, {} packets acknowledged",
        progress.packets_sent,
        progress.frames_sent,
        progress.packets_acked
    ));
    Ok(played)
}

/// A task that ends with its owner.
struct Watcher(tokio::task::JoinHandle<()>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A bar on a terminal; elsewhere a line at each quarter.
async fn watch_progress(mut progress: watch::Receiver<Progress>) {
    let is_terminal = io::stderr().is_terminal();
    let target = if is_terminal { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("streaming [{bar:40}] {human_pos}/{human_len} frames  {msg}") {
        bar.set_style(style.progress_chars("█▉ "));
    }
    let mut quarter = 0;
    loop {
        let now = progress.borrow_and_update().clone();
        bar.set_length(now.source_frames);
        bar.set_position(now.frames_measured.min(now.source_frames));
        bar.set_message(format!("{} packets acknowledged", now.packets_acked));
        let reached = now.frames_measured.min(now.source_frames) * 4 / now.source_frames.max(1);
        if !is_terminal && reached > quarter {
            quarter = reached;
            drop(writeln!(io::stderr(), "streaming: {} %, {} packets acknowledged", quarter * 25, now.packets_acked));
        }
        if now.streamed {
            bar.finish();
            return;
        }
        // At most ten looks a second, however often it changes.
        tokio::time::sleep(Duration::from_millis(100)).await;
        if progress.changed().await.is_err() {
            return;
        }
    }
}

/// The notification for the eye: an issue keeps its code and message only.
fn shortened(notification: &Value) -> Value {
    let mut shortened = notification.clone();
    if let Some(issues) = shortened.pointer_mut("/analysis_result/issues").and_then(Value::as_array_mut) {
        for issue in issues {
            *issue = serde_json::json!({ "code": issue["code"], "message": issue["message"] });
        }
    }
    shortened
}

/// The recording to play.
fn read(args: &Args) -> anyhow::Result<Recording> {
    let path = match &args.recording {
        Some(path) => path.clone(),
        None => shipped(&args.out)?,
    };
    let mut all = recordings::read_recording(&path)?;
    let index = match &args.name {
        None => 0,
        Some(name) => match all.iter().position(|recording| recording.name == *name) {
            Some(index) => index,
            None => {
                let names: Vec<_> = all.iter().map(|recording| recording.name.as_str()).take(20).collect();
                bail!("find recording {name} in {}; there are {}", path.display(), names.join(", "))
            }
        },
    };
    if all.len() > 1 && args.name.is_none() {
        say(&format!("{} holds {} recordings; this is the first, --name takes another", path.display(), all.len()))?;
    }
    ensure!(index < all.len(), "find a recording in {}", path.display());
    Ok(all.swap_remove(index))
}

/// Puts the shipped recording beside the report, where it can be looked at, and gives its path.
fn shipped(out: &Path) -> anyhow::Result<PathBuf> {
    let path = out.join(SHIPPED_NAME);
    std::fs::write(&path, SHIPPED).with_context(|| format!("write the recording {}", path.display()))?;
    Ok(path)
}

/// From the first to the last sample of any sensor.
fn duration_s(recording: &Recording) -> f64 {
    let times =
        || recording.track.iter().flat_map(|(_, samples)| [samples.t_ns.first(), samples.t_ns.last()]).flatten();
    let (first, last) = (times().min().copied().unwrap_or(0), times().max().copied().unwrap_or(0));
    (last - first) as f64 / 1e9
}

fn sensors(recording: &Recording) -> String {
    let names: Vec<_> = recording.track.iter().map(|(role, _)| role.as_str()).collect();
    names.join(" ")
}

fn speed(args: &Args, duration_s: f64, frames: usize) -> anyhow::Result<Speed> {
    if let Some(factor) = args.speed {
        ensure!(factor.is_finite() && factor > 0.0, "play at speed {factor}: it must be a positive number");
        return Ok(Speed::Factor(factor));
    }
    if frames as f64 > PACED_FRAMES_PER_S * STREAM_S {
        return Ok(Speed::Max);
    }
    Ok(Speed::Factor((duration_s / STREAM_S).max(1.0)))
}

/// What to do next.
fn further(args: &Args, url: &str) -> anyhow::Result<()> {
    let data_dir = args.out.join("data");
    say(&format!(
        "\n== the service keeps running until Ctrl-C; meanwhile\n\
         sessions and reports    {url}/\n\
         ask SQL                 volant sql --url {url}\n\
         another device          volant simulate --url {url} --recording {}\n\
         what is counted         curl {url}/metrics\n\
         the files themselves    duckdb -c \"SELECT * FROM '{}/strokes/*/*.parquet'\"",
        args.recording.clone().unwrap_or_else(|| args.out.join(SHIPPED_NAME)).display(),
        data_dir.display(),
    ))
}

/// A line or more on stdout, now.
fn say(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_recording_has_the_whole_chain() {
        let out = tempfile::tempdir().unwrap();
        let recordings = recordings::read_recording(&shipped(out.path()).unwrap()).unwrap();
        assert_eq!(recordings.len(), 1);
        assert_eq!(sensors(&recordings[0]), "waist shoulder wrist racket");
        assert!((30.0..=120.0).contains(&duration_s(&recordings[0])));
    }

    #[test]
    fn a_long_recording_is_sped_up_and_a_short_one_is_not_slowed_down() {
        let args = |speed| Args {
            recording: None,
            name: None,
            speed,
            once: true,
            out: PathBuf::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            lang: Lang::En,
        };
        assert_eq!(speed(&args(None), 60.0, 24_000).unwrap(), Speed::Factor(5.0));
        assert_eq!(speed(&args(None), 3.0, 1_200).unwrap(), Speed::Factor(1.0));
        assert_eq!(speed(&args(None), 3_600.0, 1_440_000).unwrap(), Speed::Max);
        assert_eq!(speed(&args(Some(2.0)), 60.0, 24_000).unwrap(), Speed::Factor(2.0));
        assert!(speed(&args(Some(0.0)), 60.0, 1).is_err() && speed(&args(Some(f64::NAN)), 60.0, 1).is_err());
    }
}
