//! The analysis of one recording on one thread, stage by stage, as JSON: what `benches/peers/run` puts beside SciPy.
//!
//! Usage: `peers RECORDING ROUNDS`. A stage's time is that of the pipeline up to it less that of the one before, the fastest
//! of the rounds each.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use pipelines::{Model, Pipeline, Stage};
use serde_json::json;

fn main() -> anyhow::Result<()> {
    // Cargo passes `--bench`, also to a bench that has no harness.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let usage = "usage: peers RECORDING ROUNDS";
    let (path, rounds) = (arguments.next().context(usage)?, arguments.next().context(usage)?);
    let rounds: usize = rounds.parse().context(usage)?;
    let recordings = volant::recordings::read_recording(Path::new(&path))?;
    let track = &recordings.first().context("the recording is empty")?.track;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;

    let upto = |count: usize| Pipeline { stages: Stage::ALL[..count].to_vec(), ..Pipeline::builtin().clone() };
    // Kinetics does not build on names, so it is measured without them.
    let measured: [(&str, Pipeline); 4] = [
        ("calibrate", upto(1)),
        ("segment", upto(2)),
        ("classify", upto(3)),
        ("kinetics", Pipeline { stages: vec![Stage::Calibrate, Stage::Segment, Stage::Kinetics], ..upto(5) }),
    ];
    let mut fastest: BTreeMap<&str, f64> = BTreeMap::new();
    let mut swings = 0;
    for _ in 0..rounds {
        for (name, pipeline) in &measured {
            let began = Instant::now();
            let analysis = pool.install(|| pipeline.analyze(black_box(track), Some(Model::builtin())));
            let seconds = began.elapsed().as_secs_f64();
            swings = swings.max(analysis.strokes.len());
            let best = fastest.entry(name).or_insert(f64::INFINITY);
            *best = best.min(seconds);
        }
    }
    let of = |name: &str| fastest.get(name).copied().unwrap_or_default();
    let answer = json!({
        "stages": {
            "calibrate": of("calibrate"),
            "segment": of("segment") - of("calibrate"),
            "classify": of("classify") - of("segment"),
            "kinetics": of("kinetics") - of("segment"),
        },
        "frames": track.len(),
        "swings": swings,
    });
    writeln!(std::io::stdout(), "{answer}")?;
    Ok(())
}
