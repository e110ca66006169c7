//! The criterion benches, one module a stop of a frame. `benches/README.md` has the figures and what bounds them.

use criterion::{criterion_group, criterion_main};

mod analyze;
#[path = "../common/data.rs"]
mod data;
mod decode;
#[path = "../common/device.rs"]
mod device;
mod ingest;
mod query;
mod seal;

/// Start of every session that is not sent to a running service, µs since 1970 UTC: 2026-11-23 02:00.
const STARTED_AT_US: i64 = 1_795_399_200_000_000;

/// A folder on the disk of the target folder, which is a real one where `/tmp` may be memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("cargo made the folder for temporary files")
}

criterion_group!(benches, decode::bench, ingest::bench, seal::bench, analyze::bench, query::bench);
criterion_main!(benches);
