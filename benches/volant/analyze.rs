//! From samples to swings, strokes and figures.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use pipelines::{Model, Params, Pipeline, Stage, analyze};

use super::data::session;

pub(super) fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("analyze");
    group.sample_size(10);
    for (id, rate_hz, duration_s) in [
        ("100hz_10min_4_sensors", 100.0, 600.0),
        ("200hz_10min_4_sensors", 200.0, 600.0),
        ("200hz_60min_4_sensors", 200.0, 3600.0),
    ] {
        let track = session(rate_hz, duration_s);
        group.throughput(Throughput::Elements(track.len() as u64));
        group.bench_function(id, |b| {
            b.iter(|| analyze(black_box(&track), Params::builtin(), Some(Model::builtin())));
        });
    }
    group.finish();

    // What each stage adds is the difference to the one before; kinetics does not build on names. `make peers` has SciPy beside them.
    let track = session(200.0, 600.0);
    let mut group = c.benchmark_group("stages");
    group.sample_size(10);
    group.throughput(Throughput::Elements(track.len() as u64));
    for (id, stages) in [
        ("calibrate", &[Stage::Calibrate][..]),
        ("calibrate_segment", &[Stage::Calibrate, Stage::Segment]),
        ("calibrate_segment_classify", &[Stage::Calibrate, Stage::Segment, Stage::Classify]),
        ("calibrate_segment_kinetics", &[Stage::Calibrate, Stage::Segment, Stage::Kinetics]),
        ("all", &Stage::ALL),
    ] {
        let pipeline = Pipeline { stages: stages.to_vec(), ..Pipeline::builtin().clone() };
        group.bench_function(id, |b| {
            b.iter(|| pipeline.analyze(black_box(&track), Some(Model::builtin())));
        });
    }
    group.finish();
}
