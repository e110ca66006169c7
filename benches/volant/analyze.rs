//! From samples to swings, strokes and figures.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use pipelines::{Model, Params, analyze};

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
}
