//! The figures of all phases, as text and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::Args;
use super::announce::Announced;
use super::stream::{Run, histogram};
use super::target::Kind;

/// The goals that the figures are held against.
const CPU_RATIO_GOAL: f64 = 1.5;
const IDLE_GOAL_BYTES: f64 = 12.0 * 1024.0;
const ANNOUNCE_GOAL_MS: f64 = 300.0;

/// Rounds of one streaming phase.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    server: Vec<Run>,
    control: Vec<Run>,
}

/// All rounds of one target together.
struct Total {
    cpu_s_per_million: f64,
    frames_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Streams {
    pub(crate) fn add(&mut self, kind: Kind, run: Run) {
        match kind {
            Kind::Server => self.server.push(run),
            Kind::Control => self.control.push(run),
        }
    }

    fn totals(&self) -> Option<(Total, Total)> {
        Some((total(&self.server)?, total(&self.control)?))
    }
}

fn total(runs: &[Run]) -> Option<Total> {
    let frames: u64 = runs.iter().map(|run| run.frames).sum();
    let cpu_s: f64 = runs.iter().map(|run| run.cpu_s).sum();
    let wall_s: f64 = runs.iter().map(|run| run.wall_s).sum();
    let mut acks_us = histogram();
    for run in runs {
        acks_us.add(&run.acks_us).ok()?;
    }
    let quantile_ms = |quantile| acks_us.value_at_quantile(quantile) as f64 / 1e3;
    (frames > 0).then(|| Total {
        cpu_s_per_million: cpu_s / frames as f64 * 1e6,
        frames_per_s: frames as f64 / wall_s,
        p50_ms: quantile_ms(0.5),
        p99_ms: quantile_ms(0.99),
    })
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    devices: usize,
    window: usize,
    idle_count: usize,
    pub(crate) closed: Streams,
    pub(crate) paced: Streams,
    pub(crate) idle: Vec<(Kind, f64)>,
    pub(crate) announced: Vec<Announced>,
}

impl Report {
    pub(crate) fn new(args: &Args) -> Self {
        Self {
            devices: args.devices,
            window: args.window,
            idle_count: args.idle,
            closed: Streams::default(),
            paced: Streams::default(),
            idle: Vec::new(),
            announced: Vec::new(),
        }
    }

    fn idle_of(&self, kind: Kind) -> Option<f64> {
        self.idle.iter().find(|(of, _)| *of == kind).map(|&(_, bytes)| bytes)
    }

    fn median_ms(&self, part: impl Fn(&Announced) -> f64) -> Option<f64> {
        let mut values: Vec<f64> = self.announced.iter().map(part).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let (devices, window) = (self.devices, self.window);
        let phases = [
            (format!("closed loop, {devices} devices x {window} packets in flight"), &self.closed, true),
            (format!("paced, {devices} devices x 4 sensors x 200 Hz"), &self.paced, false),
        ];
        for (title, streams, is_goal) in phases {
            let Some((server, control)) = streams.totals() else { continue };
            writeln!(out, "\n{title:<52}{:>12}{:>12}{:>10}", "server", "control", "ratio")?;
            let ratio = server.cpu_s_per_million / control.cpu_s_per_million;
            let goal = if is_goal { goal(ratio <= CPU_RATIO_GOAL, "at most 1.5") } else { String::new() };
            let (ours, bare) = (server.cpu_s_per_million, control.cpu_s_per_million);
            writeln!(out, "  {:<50}{ours:>12.3}{bare:>12.3}{ratio:>10.2}{goal}", "CPU s per million frames")?;
            for (name, ours, bare) in [
                ("frames/s", server.frames_per_s, control.frames_per_s),
                ("ack p50, ms", server.p50_ms, control.p50_ms),
                ("ack p99, ms", server.p99_ms, control.p99_ms),
            ] {
                let places = if ours >= 1000.0 { 0 } else { 3 };
                writeln!(out, "  {name:<50}{ours:>12.places$}{bare:>12.places$}{:>10.2}", ours / bare)?;
            }
            for (name, runs) in [("server", &streams.server), ("control", &streams.control)] {
                let rounds: Vec<String> =
                    runs.iter().map(|run| format!("{:.3}", run.cpu_s / run.frames as f64 * 1e6)).collect();
                writeln!(out, "  {name} rounds, CPU s per million frames: {}", rounds.join(" "))?;
            }
        }
        if let Some((server, control)) = self.idle_of(Kind::Server).zip(self.idle_of(Kind::Control)) {
            let title = format!("{} idle connections", self.idle_count);
            let goal = goal(server <= IDLE_GOAL_BYTES, "at most 12288");
            writeln!(out, "\n{title:<52}{:>12}{:>12}{:>10}", "server", "control", "ratio")?;
            let ratio = server / control;
            writeln!(out, "  {:<50}{server:>12.0}{control:>12.0}{ratio:>10.2}{goal}", "resident bytes a connection")?;
        }
        if let Some(total_ms) = self.median_ms(|session| session.total_ms) {
            let frames = self.announced.first().map_or(0, |session| session.frames);
            let goal = goal(total_ms <= ANNOUNCE_GOAL_MS, "at most 300");
            writeln!(out, "\nupload_complete to notice, {frames} frames, ms")?;
            writeln!(out, "  {:<50}{total_ms:>12.1}{goal}", format!("median of {}", self.announced.len()))?;
            let totals: Vec<String> = self.announced.iter().map(|session| format!("{:.1}", session.total_ms)).collect();
            writeln!(out, "  {:<50}{}", "each", totals.join(" "))?;
            for (name, value) in [
                ("  answer to upload_complete after", self.median_ms(|session| session.answered_ms)),
                ("  sealed, verified and committed after", self.median_ms(|session| session.sealed_ms)),
                ("  then analysed and published in", self.median_ms(|session| session.analyzed_ms)),
                ("  then delivered in", self.median_ms(|session| session.delivered_ms)),
            ] {
                writeln!(out, "  {name:<50}{:>12.1}", value.unwrap_or(f64::NAN))?;
            }
        }
        Ok(())
    }

    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let streams = |streams: &Streams| {
            let Some((server, control)) = streams.totals() else { return Value::Null };
            let figures = |total: &Total| {
                json!({
                    "cpu_s_per_million_frames": total.cpu_s_per_million,
                    "frames_per_s": total.frames_per_s,
                    "ack_p50_ms": total.p50_ms,
                    "ack_p99_ms": total.p99_ms,
                })
            };
            json!({
                "server": figures(&server),
                "control": figures(&control),
                "cpu_ratio": server.cpu_s_per_million / control.cpu_s_per_million,
            })
        };
        let announced: Vec<Value> = self
            .announced
            .iter()
            .map(|session| {
                json!({
                    "frames": session.frames,
                    "total_ms": session.total_ms,
                    "answered_ms": session.answered_ms,
                    "sealed_ms": session.sealed_ms,
                    "analyzed_ms": session.analyzed_ms,
                    "delivered_ms": session.delivered_ms,
                })
            })
            .collect();
        let report = json!({
            "devices": self.devices,
            "window": self.window,
            "closed_loop": streams(&self.closed),
            "paced": streams(&self.paced),
            "idle": {
                "connections": self.idle_count,
                "server_bytes": self.idle_of(Kind::Server),
                "control_bytes": self.idle_of(Kind::Control),
            },
            "announced": announced,
            "goals": { "cpu_ratio": CPU_RATIO_GOAL, "idle_bytes": IDLE_GOAL_BYTES, "announce_ms": ANNOUNCE_GOAL_MS },
        });
        writeln!(out, "{report:#}")
    }
}

fn goal(met: bool, what: &str) -> String {
    format!("   goal {what}: {}", if met { "met" } else { "MISSED" })
}
