//! The analysis of one recording on one thread, stage by stage, as JSON: what `benches/peers/run` puts beside SciPy.
//!
//! Usage: `peers RECORDING.csv ROUNDS`. Written are the times of whole pipelines, the fastest of the rounds each; a stage's time is
//! that of the pipeline up to it less that of the one before.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write as _;
use std::time::Instant;

use anyhow::Context as _;
use schemas::{SensorRole, Track};
use serde_json::json;
use volant_pipelines::{Model, Pipeline, Stage};

fn main() -> anyhow::Result<()> {
    // Cargo passes `--bench`, also to a bench that has no harness.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let usage = "usage: peers RECORDING.csv ROUNDS";
    let (path, rounds) = (arguments.next().context(usage)?, arguments.next().context(usage)?);
    let rounds: usize = rounds.parse().context(usage)?;
    let track = read(&path)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;

    let of = |stages: &[Stage]| Pipeline { stages: stages.to_vec(), ..Pipeline::builtin().clone() };
    // Kinetics does not build on names, so it is measured without them.
    let measured: [(&str, Pipeline); 5] = [
        ("calibrate", of(&[Stage::Calibrate])),
        ("segment", of(&[Stage::Calibrate, Stage::Segment])),
        ("classify", of(&[Stage::Calibrate, Stage::Segment, Stage::Classify])),
        ("kinetics", of(&[Stage::Calibrate, Stage::Segment, Stage::Kinetics])),
        ("all", of(&Stage::ALL)),
    ];
    let mut fastest: BTreeMap<&str, f64> = BTreeMap::new();
    let mut swings = 0;
    for _ in 0..rounds {
        for (name, pipeline) in &measured {
            let began = Instant::now();
            let analysis = pool.install(|| pipeline.analyze(black_box(&track), Some(Model::builtin())));
            let seconds = began.elapsed().as_secs_f64();
            swings = swings.max(analysis.strokes.len());
            let best = fastest.entry(name).or_insert(f64::INFINITY);
            *best = best.min(seconds);
        }
    }
    let answer = json!({ "pipelines": fastest, "frames": track.len(), "swings": swings });
    writeln!(std::io::stdout(), "{answer}")?;
    Ok(())
}

/// A recording as `volant simulate --write` makes it.
fn read(path: &str) -> anyhow::Result<Track> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().context("the recording is empty")?.split(',').collect();
    let column = |name: &str| header.iter().position(|column| *column == name).with_context(|| format!("find {name}"));
    let sensor = column("sensor")?;
    let time = column("t_ms")?;
    let places = ["ax", "ay", "az", "gx", "gy", "gz"].map(column);
    let mut track = Track::default();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |place: usize| cells.get(place).copied().unwrap_or_default();
        let role = SensorRole::CHAIN.into_iter().find(|role| role.as_str() == cell(sensor));
        let Some(samples) = role.and_then(|role| track.get_or_insert(role)) else { continue };
        let mut values = [0.0_f32; 6];
        for (value, place) in values.iter_mut().zip(&places) {
            let place = *place.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
            *value = cell(place).parse().unwrap_or(f32::NAN);
        }
        let [ax, ay, az, gx, gy, gz] = values;
        let t_ms: f64 = cell(time).parse().context("read t_ms")?;
        samples.push((t_ms * 1e6) as i64, [ax, ay, az], [gx, gy, gz], [f32::NAN; 3]);
    }
    Ok(track)
}
