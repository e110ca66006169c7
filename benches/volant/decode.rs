//! From the text of a packet to columns.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use volant::protocol::{Endpoint, decode};

use super::STARTED_AT_US;
use super::data::{Packets, session};

pub(super) fn bench(c: &mut Criterion) {
    let packets = Packets::of(&session(200.0, 30.0), STARTED_AT_US / 1000);
    let text = text(&packets, packets.len() / 2, "2025001", "1015");
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("packet_30_frames_5.4kB", |b| {
        b.iter(|| decode(Endpoint::Device, black_box(&text)).expect("a firmware packet"));
    });
    // What the same text costs as a tree of values: the yardstick of the load bench's control.
    group.bench_function("json_value_30_frames_5.4kB", |b| {
        b.iter(|| serde_json::from_str::<serde_json::Value>(black_box(&text)).expect("JSON"));
    });
    group.bench_function("utf8_check_5.4kB", |b| {
        b.iter(|| std::str::from_utf8(black_box(text.as_bytes())).expect("UTF-8"));
    });
    group.finish();
}

/// The text of a packet.
pub(super) fn text(packets: &Packets, number: usize, device: &str, session: &str) -> String {
    let (head, frames, tail) = packets.parts(number, device, session);
    head + frames + &tail
}
