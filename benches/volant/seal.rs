//! From columns in memory to a verified Parquet file.

use criterion::{BatchSize, Criterion, Throughput};
use schemas::{FrameColumns, SessionId, Track};
use volant::store::pack::TableFile;
use volant::store::paths::Paths;
use volant::store::{seal, swap};

use super::STARTED_AT_US;
use super::data::{interleaved, session, stamp};

/// Each file replaces the one before, which would be kept for who reads it: they would fill the disk.
fn forget_replaced(paths: &Paths) {
    swap::remove_replaced(paths, None).expect("files that can be deleted");
}

pub(super) fn bench(c: &mut Criterion) {
    let folder = super::folder();
    let paths = Paths::new(folder.path());
    let mut group = c.benchmark_group("seal");
    group.sample_size(10);
    for (id, duration_s) in [("96k_frames_200hz_2min_4_sensors", 120.0), ("480k_frames_200hz_10min_4_sensors", 600.0)] {
        let frames = columns(&session(200.0, duration_s), STARTED_AT_US);
        group.throughput(Throughput::Elements(frames.len() as u64));
        group.bench_function(id, |b| {
            let seal = |()| {
                let unit = |_| Some(9.80665);
                seal::write_frames(&paths, SessionId(1), STARTED_AT_US, 1, &frames, unit, &[])
                    .expect("a disk with room")
            };
            b.iter_batched(|| forget_replaced(&paths), seal, BatchSize::PerIteration);
        });
    }
    let frames = columns(&session(200.0, 600.0), STARTED_AT_US);
    group.throughput(Throughput::Elements(frames.len() as u64));
    group.bench_function("480k_frames_as_small_as_can_be", |b| {
        let seal = |()| {
            let unit = |_| Some(9.80665);
            seal::write_frames_small(&paths, SessionId(3), STARTED_AT_US, 1, &frames, unit, &[])
                .expect("a disk with room")
        };
        b.iter_batched(|| forget_replaced(&paths), seal, BatchSize::PerIteration);
    });
    let manifest = seal::write_frames(&paths, SessionId(2), STARTED_AT_US, 1, &frames, |_| Some(9.80665), &[])
        .expect("a disk with room");
    let file = TableFile::open(&paths.file(manifest.path)).expect("the file was just sealed");
    group.bench_function("read_track_480k_frames", |b| {
        b.iter(|| seal::read_track(&file).expect("the file was just sealed"));
    });
    group.finish();
}

/// The session as ingest holds it when it seals: every column filled, rows in order of arrival.
pub(super) fn columns(track: &Track, started_at_us: i64) -> FrameColumns {
    let samples = interleaved(track);
    let mut frames = FrameColumns::with_capacity(samples.len());
    for (t_ns, role, row) in samples {
        let sensor = track.get(role).expect("the sample came from this track");
        let values = [sensor.acc[row], sensor.gyro[row], sensor.angle[row]];
        let stamp = stamp(started_at_us / 1000, t_ns);
        frames.push_decoded(i32::from(role.to_byte()), role, Some(stamp), values);
        let last = frames.len() - 1;
        frames.t_ns[last] = t_ns;
        frames.clock[last] = schemas::ClockKind::TimeOfDay as u8;
        // A packet holds some 40 ms; its frames arrive together.
        frames.received_at_us[last] = started_at_us + t_ns / 40_000_000 * 40_000 + 50_000;
    }
    frames
}
