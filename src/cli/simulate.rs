//! `volant simulate`: devices with firmware V3.3 that play recordings or generated sessions against a server.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pipelines::synth::{AccUnit, Plan, Rallies, SynthSession, SynthSpec, generate};
use schemas::StrokeKind;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::recordings::{Recording, read_recording, write_recording, write_truth};
use crate::simulator::{
    Address, Config, Device, Faults, Handle, PlayLimits, Played, Progress, Repeat, Source, Speed, Step, play_session,
    post_form,
};

/// How long an interrupted session gets for its end.
const FAREWELL: Duration = Duration::from_secs(3);

/// Devices with firmware V3.3 that stream a recording, or a generated session, into a running server.
///
/// Each device connects, a session is started as the mini-program does it, the recording is streamed, the session is ended,
/// and the notification of the analysis is awaited.
#[derive(Debug, Parser)]
pub struct Args {
    /// The server: plain http or ws, as in the firmware.
    #[arg(long, default_value = "http://127.0.0.1:8000", value_name = "URL")]
    url: String,

    /// How many devices play at the same time.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    devices: u16,

    /// A recording file (CSV or Parquet) instead of generated sessions.
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,

    /// Which recording of a file that holds several; the first without.
    #[arg(long, value_name = "NAME", requires = "recording")]
    name: Option<String>,

    /// Code of the first device; the others count on from it.
    #[arg(long, default_value = "2025001", value_name = "CODE")]
    device_code: String,

    /// The player.
    #[arg(long, default_value = "test_user_123456", value_name = "OPENID")]
    openid: String,

    /// How many times faster than real, or `max`: as fast as the server takes it.
    #[arg(long, default_value = "1", value_name = "X", value_parser = speed)]
    speed: Speed,

    /// What goes wrong: drop=P,cut=SECONDS,slow=KBPS,garbage=P,reorder=P,duplicate=P.
    #[arg(long, default_value = "", value_name = "LIST")]
    faults: String,

    /// Of generated sessions and of faults.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,

    /// Length of generated sessions, seconds.
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS", value_parser = positive, conflicts_with = "recording")]
    duration: f64,

    /// Samples a second and sensor of generated sessions, 50 to 400.
    #[arg(long, default_value_t = 100.0, value_name = "HZ", value_parser = rate, conflicts_with = "recording")]
    rate: f64,

    /// Strokes that come up in generated sessions, separated by commas; `smash` alone makes a drill. All without.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = stroke, conflicts_with = "recording")]
    strokes: Vec<StrokeKind>,

    /// Switch the devices on just now: uncalibrated clocks, and deaf for ten seconds soon after.
    #[arg(long)]
    cold_boot: bool,

    /// Only be devices, until interrupted: somebody else starts and stops sessions. The recording repeats.
    #[arg(long)]
    device_only: bool,

    /// Write the generated session and its labels into FILE and FILE's `.labels.csv` instead of streaming it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recording", "device_only"])]
    write: Option<PathBuf>,

    /// Report as JSON.
    #[arg(long)]
    json: bool,
}

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    let factor = text.trim_end_matches('x').parse().map_err(|_| "a number or `max` is expected".to_owned())?;
    if (0.1..=10_000.0).contains(&factor) {
        Ok(Speed::Factor(factor))
    } else {
        Err("0.1 to 10000, or `max`".to_owned())
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let value = text.parse().map_err(|_| "a number of seconds is expected".to_owned())?;
    if (1.0..=86_400.0).contains(&value) { Ok(value) } else { Err("1 to 86400 seconds".to_owned()) }
}

fn rate(text: &str) -> Result<f64, String> {
    let value = text.parse().map_err(|_| "a number of samples a second is expected".to_owned())?;
    if (50.0..=400.0).contains(&value) { Ok(value) } else { Err("50 to 400 Hz".to_owned()) }
}

fn stroke(text: &str) -> Result<StrokeKind, String> {
    let known = Rallies::default().kinds;
    known.iter().find(|kind| kind.as_str() == text).copied().ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|kind| kind.as_str()).collect();
        format!("one of {}", names.join(", "))
    })
}

/// Runs the command. 0: every session was played and its analysis announced. 1: one was not. 130: interrupted.
///
/// # Errors
/// What was asked for cannot be read or written.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.write {
        let session = generate(&spec(&args, 0));
        write_session(path, &session, args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let address: Address = args.url.parse().map_err(|error| named(error, "read --url"))?;
    let faults: Faults = args.faults.parse().map_err(|error| named(error, "read --faults"))?;
    let recorded = match &args.recording {
        Some(path) => Some(Source::from_recording(&pick(path, args.name.as_deref())?)),
        None => None,
    };
    let bars = MultiProgress::new();
    let (interrupted, interrupt) = watch::channel(false);
    let mut players = Vec::new();
    for index in 0..args.devices {
        let source = if let Some(source) = &recorded {
            source.clone()
        } else {
            let spec = spec(&args, u64::from(index));
            let generated = tokio::task::spawn_blocking(move || generate(&spec)).await;
            Source::from_synth(&generated.context("generate a session")?, AccUnit::Mps2)
        };
        let mut config = Config::new(address.clone(), &code(&args.device_code, index), source);
        config.speed = args.speed;
        config.faults = faults;
        config.seed = args.seed.wrapping_add(u64::from(index));
        if args.cold_boot {
            config.uptime = Duration::ZERO;
        }
        if args.device_only {
            config.repeat = Repeat::Forever;
        }
        let bar = bars.add(ProgressBar::new(config.source.frames().len() as u64));
        let style = ProgressStyle::with_template("{prefix:>12} {bar:30} {pos:>8}/{len} frames {elapsed:>4} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(config.device_code.clone());
        let player = Player {
            address: address.clone(),
            openid: args.openid.clone(),
            limits: limits(&args, &config),
            device_only: args.device_only,
            bar,
            interrupt: interrupt.clone(),
        };
        players.push(tokio::spawn(player.play(config)));
    }
    tokio::spawn(async move {
        // Without a handler for the signal the process just ends: nothing to do about it here.
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.send_replace(true);
        }
        // Keeps the channel open as long as the program runs.
        interrupted.closed().await;
    });
    let mut outcomes = Vec::with_capacity(players.len());
    for player in players {
        outcomes.push(player.await.context("play a session")??);
    }
    report(&outcomes, args.json)?;
    Ok(
        match (
            outcomes.iter().any(|outcome| outcome.interrupted),
            outcomes.iter().all(|outcome| outcome.error.is_none()),
        ) {
            (true, _) => ExitCode::from(130),
            (false, true) => ExitCode::SUCCESS,
            (false, false) => ExitCode::FAILURE,
        },
    )
}

fn named(error: crate::simulator::Error, what: &'static str) -> anyhow::Error {
    anyhow::Error::new(error).context(what)
}

fn spec(args: &Args, index: u64) -> SynthSpec {
    let mut rallies = Rallies::default();
    if !args.strokes.is_empty() {
        rallies.kinds.clone_from(&args.strokes);
    }
    SynthSpec {
        duration_s: args.duration,
        rate_hz: args.rate,
        plan: Plan::Rallies(rallies),
        ..SynthSpec::new(args.seed.wrapping_add(index))
    }
}

/// The code of device `index`: a number counts on, a word gets a number.
fn code(first: &str, index: u16) -> String {
    match first.parse::<u64>() {
        _ if index == 0 => first.to_owned(),
        Ok(number) => format!("{:0width$}", number + u64::from(index), width = first.len()),
        Err(_) => format!("{first}_{}", index + 1),
    }
}

fn pick(path: &Path, name: Option<&str>) -> anyhow::Result<Recording> {
    let recordings = read_recording(path)?;
    let names: Vec<&str> = recordings.iter().map(|recording| &*recording.name).take(20).collect();
    let names = names.join(", ");
    let mut found = recordings.into_iter().filter(|recording| name.is_none_or(|name| recording.name == name));
    found
        .next()
        .with_context(|| format!("find recording {:?} in {} (it has {names})", name.unwrap_or(""), path.display()))
}

fn limits(args: &Args, config: &Config) -> PlayLimits {
    let duration_s = config.source.duration_ms() * 1e-3;
    let factor = match args.speed {
        Speed::Factor(factor) => factor,
        Speed::Max => 1.0,
    };
    let mut limits = PlayLimits::for_recording(duration_s, factor);
    if args.cold_boot {
        limits.connect += Duration::from_secs(30);
    }
    limits
}

fn write_session(path: &Path, session: &SynthSession, as_json: bool) -> anyhow::Result<()> {
    let name = path.file_stem().map_or_else(|| "generated".to_owned(), |stem| stem.to_string_lossy().into_owned());
    let labels = path.with_extension("labels.csv");
    let recording = Recording { name: name.clone(), track: session.track.clone(), ..Recording::default() };
    write_recording(path, std::slice::from_ref(&recording))?;
    write_truth(&labels, &name, "generated", &session.truth)?;
    let mut out = std::io::stdout().lock();
    let (samples, strokes) = (session.track.len(), session.truth.strokes.len());
    if as_json {
        let report = json!({"recording": path, "labels": labels, "samples": samples, "strokes": strokes});
        writeln!(out, "{report}")?;
    } else {
        writeln!(out, "{}: {samples} samples, {strokes} strokes in {}", path.display(), labels.display())?;
    }
    Ok(())
}

/// What became of one device.
struct Outcome {
    device_code: String,
    played: Option<Played>,
    device: Progress,
    error: Option<String>,
    interrupted: bool,
}

struct Player {
    address: Address,
    openid: String,
    limits: PlayLimits,
    device_only: bool,
    bar: ProgressBar,
    interrupt: watch::Receiver<bool>,
}

impl Player {
    async fn play(self, config: Config) -> Result<Outcome, crate::simulator::Error> {
        let device_code = config.device_code.clone();
        let device = Device::spawn(config)?;
        let shown = tokio::spawn(show(device.progress(), self.bar.clone()));
        let mut session_id = None;
        let bar = self.bar.clone();
        let reached = |step: Step| {
            bar.set_message(match &step {
                Step::Started { .. } => "started",
                Step::Streaming => "streaming",
                Step::Stopping => "stopping",
                Step::Uploaded => "analysing",
                Step::Notified => "notified",
            });
            if let Step::Started { session_id: id } = step {
                session_id = Some(id);
            }
        };
        let mut interrupt = self.interrupt.clone();
        let result = tokio::select! {
            result = self.session(&device, reached) => Some(result),
            Ok(_) = interrupt.wait_for(|interrupted| *interrupted) => None,
        };
        let interrupted = result.is_none();
        if let (true, Some(session_id)) = (interrupted, &session_id) {
            self.end(&device, session_id).await;
        }
        let device = device.stop().await;
        shown.abort();
        let (played, error) = match result {
            Some(Ok(played)) => (played, None),
            Some(Err(error)) => (None, Some(chain(&error))),
            None => (None, None),
        };
        self.bar.abandon_with_message(match (&error, interrupted) {
            (Some(_), _) => "failed",
            (None, true) => "interrupted",
            (None, false) => "done",
        });
        Ok(Outcome { device_code, played, device, error, interrupted })
    }

    async fn session(
        &self,
        device: &Handle,
        reached: impl FnMut(Step),
    ) -> Result<Option<Played>, crate::simulator::Error> {
        if self.device_only {
            std::future::pending::<()>().await;
        }
        play_session(device, &self.address, &self.openid, self.limits, reached).await.map(Some)
    }

    /// Ends an interrupted session in order, as far as the time allows: the server would wait for it otherwise.
    async fn end(&self, device: &Handle, session_id: &str) {
        let uploads = device.now().uploads_completed;
        if post_form(&self.address, "/wxapp/end_session/", &[("session_id", session_id)], FAREWELL).await.is_ok() {
            // What did not come in time does not come.
            drop(device.wait_upload_complete(uploads, FAREWELL).await);
        }
    }
}

/// Keeps a bar up to date.
async fn show(mut progress: watch::Receiver<Progress>, bar: ProgressBar) {
    while progress.changed().await.is_ok() {
        let (measured, total) = {
            let now = progress.borrow_and_update();
            (now.frames_measured, now.source_frames)
        };
        bar.set_position(if total == 0 { 0 } else { measured.min(total) });
        // Often enough for eyes.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn report(outcomes: &[Outcome], as_json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        let devices: Vec<Value> = outcomes.iter().map(outcome_json).collect();
        return writeln!(out, "{}", json!({ "devices": devices }));
    }
    for Outcome { device_code, played, device, error, interrupted } in outcomes {
        let Progress { packets_sent, frames_sent, packets_acked, packets_refused, blocks_lost, connections, .. } =
            device;
        let end = match (played, error) {
            (Some(played), _) => format!(
                "session {} analysed and announced {:.3} s after upload_complete",
                played.session_id,
                played.analysis_took.as_secs_f64()
            ),
            (None, Some(error)) => format!("failed to {error}"),
            (None, None) if *interrupted => "interrupted".to_owned(),
            (None, None) => "nothing played".to_owned(),
        };
        writeln!(
            out,
            "device {device_code}: {packets_sent} packets with {frames_sent} frames sent over {connections} connections, \
             {packets_acked} acknowledged, {packets_refused} refused, {blocks_lost} blocks lost; {end}"
        )?;
    }
    Ok(())
}

fn outcome_json(outcome: &Outcome) -> Value {
    let device = &outcome.device;
    json!({
        "device_code": outcome.device_code,
        "session_id": outcome.played.as_ref().map(|played| &played.session_id),
        "analysis_s": outcome.played.as_ref().map(|played| played.analysis_took.as_secs_f64()),
        "notification": outcome.played.as_ref().map(|played| &played.notification),
        "packets_sent": device.packets_sent,
        "frames_sent": device.frames_sent,
        "bytes_sent": device.bytes_sent,
        "packets_acked": device.packets_acked,
        "frames_acked": device.frames_acked,
        "packets_refused": device.packets_refused,
        "packets_unanswered": device.packets_unanswered,
        "refusal": device.refusal,
        "blocks_lost": device.blocks_lost,
        "connections": device.connections,
        "error": outcome.error,
        "interrupted": outcome.interrupted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recordings::read_set;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Result<Args, clap::Error> {
        Command::try_parse_from(["simulate"].into_iter().chain(line.split_whitespace())).map(|command| command.args)
    }

    #[test]
    fn arguments_are_checked_before_anything_runs() {
        assert_eq!(args("").unwrap().speed, Speed::Factor(1.0));
        assert_eq!(args("--speed max").unwrap().speed, Speed::Max);
        assert_eq!(args("--speed 20x").unwrap().speed, Speed::Factor(20.0));
        for bad in ["--speed 0", "--devices 0", "--rate 7", "--duration x", "--write a --recording b", "--name x"] {
            assert!(args(bad).is_err(), "{bad}");
        }
        assert_eq!((code("2025001", 0), code("2025001", 2)), ("2025001".into(), "2025003".into()));
        assert_eq!((code("007", 3), code("dev", 1)), ("010".into(), "dev_2".into()));
    }

    #[tokio::test]
    async fn a_generated_session_can_be_written_and_picked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.parquet");
        let command = format!("--write {} --duration 10 --seed 4", path.display());
        assert_eq!(run(args(&command).unwrap()).await.unwrap(), ExitCode::SUCCESS);
        std::fs::rename(folder.path().join("samples.labels.csv"), folder.path().join("labels.csv")).unwrap();
        let set = read_set(folder.path()).unwrap();
        assert!(!set.labels.is_empty() && set.labels[0].recording == "samples");
        assert!(pick(&path, Some("samples")).is_ok());
        assert!(pick(&path, Some("other")).unwrap_err().to_string().contains("it has samples"));
    }

    #[test]
    fn a_drill_has_the_strokes_that_were_asked_for() {
        let of = |text: &str| generate(&spec(&args(text).unwrap(), 0)).truth.strokes;
        let drill = of("--duration 60 --strokes smash");
        assert!(drill.len() > 10 && drill.iter().all(|stroke| stroke.kind == StrokeKind::Smash));
        let two = of("--duration 60 --strokes clear,net_shot");
        assert!(two.iter().any(|stroke| stroke.kind == StrokeKind::Clear));
        assert!(two.iter().all(|stroke| matches!(stroke.kind, StrokeKind::Clear | StrokeKind::NetShot)));
        let refused = args("--strokes smash,serve").unwrap_err().to_string();
        assert!(refused.contains("one of clear, drop, smash"), "{refused}");
        assert!(args("--strokes other").is_err());
    }

    /// `data/README.md` says how the demonstration was made; this makes it again.
    #[test]
    fn the_committed_demonstration_is_what_the_generator_makes() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let committed = read_recording(&data.join("demo-session.parquet")).unwrap().remove(0);
        let session = generate(&spec(&args("--duration 110 --seed 7").unwrap(), 0));
        assert_eq!(committed.name, "demo-session");
        for (role, made) in session.track.iter() {
            let kept = committed.track.get(role).unwrap();
            assert!(kept.t_ns.iter().zip(&made.t_ns).all(|(a, b)| (a - b).abs() <= 1), "{role} times");
            // Another platform's sine may tip a value over to the next of its 65,536 steps.
            let near = |kept: &[[f32; 3]], made: &[[f32; 3]], step: f32| {
                assert_eq!(kept.len(), made.len());
                kept.iter().flatten().zip(made.iter().flatten()).all(|(a, b)| (a - b).abs() <= 1.01 * step)
            };
            assert!(near(&kept.acc, &made.acc, 16.0 * 9.80665 / 32768.0), "{role} acc");
            assert!(near(&kept.gyro, &made.gyro, 2000.0 / 32768.0), "{role} gyro");
            assert!(near(&kept.angle, &made.angle, 180.0 / 32768.0), "{role} angle");
        }
        let folder = tempfile::tempdir().unwrap();
        let labels = folder.path().join("labels.csv");
        write_truth(&labels, "demo-session", "generated", &session.truth).unwrap();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&labels), read(&data.join("demo-session.labels.csv")));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_failure_and_no_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut args = args(&format!("--url http://{address} --duration 1 --speed 50 --json")).unwrap();
        args.devices = 2;
        assert!(run(Args { url: "https://x".into(), ..self::args("").unwrap() }).await.is_err());
        let player = Player {
            address: args.url.parse().unwrap(),
            openid: "u".into(),
            limits: PlayLimits { connect: Duration::from_millis(100), ..PlayLimits::for_recording(1.0, 1.0) },
            device_only: false,
            bar: ProgressBar::hidden(),
            interrupt: watch::channel(false).1,
        };
        let source = Source::from_synth(&generate(&spec(&args, 0)), AccUnit::Mps2);
        let config = Config::new(player.address.clone(), "2025001", source);
        let outcome = player.play(config).await.unwrap();
        assert!(outcome.error.unwrap().contains("not connected"));
    }
}
