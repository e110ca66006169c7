//! From a statement to its last row, over sealed files and over a session that is still open.

use std::sync::Arc;

use arrow::array::RecordBatch;
use criterion::{Criterion, Throughput};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use jiff::civil::date;
use schemas::{FrameColumns, SessionId};
use tokio::runtime::Runtime;
use volant::query::{
    DeviceRow, Folder, Handle, LabelRow, Limits, LiveFrames, NotificationRow, Options, PlayerRow, SessionRow, Snapshot,
    Source, SourceError, StoredFile,
};
use volant::store::paths::Paths;
use volant::store::seal;

use super::STARTED_AT_US;
use super::data::session;
use super::seal::columns;

const SESSIONS: i64 = 10;
/// Rows of a batch of an open session, as ingest makes them.
const LIVE_BATCH_ROWS: usize = 16_384;

pub(super) fn bench(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let folder = super::folder();
    let paths = Paths::new(folder.path());
    let frames = columns(&session(200.0, 600.0), STARTED_AT_US);
    for number in 1..=SESSIONS {
        seal::write_frames(&paths, SessionId(number), STARTED_AT_US, 1, &frames, |_| Some(9.80665), &[])
            .expect("a disk with room");
    }
    let open = |folder: &std::path::Path| Folder::open(folder).expect("the folder was just made");
    let files = open(folder.path()).files();
    let stored = Handle::start(Options::default(), files.clone(), Arc::new(open(folder.path()))).expect("threads");
    let live = Handle::start(Options::default(), files, Arc::new(Live::of(&frames))).expect("threads");

    let mut group = c.benchmark_group("query");
    group.sample_size(20);
    let mut measure = |id: &str, handle: &Handle, rows: u64, sql: &str| {
        group.throughput(Throughput::Elements(rows));
        group.bench_function(id, |b| {
            b.iter(|| runtime.block_on(answer(handle, sql)));
        });
    };
    let of_one = frames.len() as u64;
    let of_all = of_one * SESSIONS as u64;
    measure(
        "10s_of_one_sensor_of_10_sessions_4.8M_frames",
        &stored,
        of_all,
        "SELECT t_ns, gyro_x, gyro_y, gyro_z FROM frames \
         WHERE session_id = 7 AND sensor = 'racket' AND t_ns BETWEEN 300000000000 AND 310000000000 ORDER BY t_ns",
    );
    measure(
        "peak_gyro_by_sensor_of_one_session_480k_frames",
        &stored,
        of_one,
        "SELECT sensor, max(sqrt(gyro_x*gyro_x + gyro_y*gyro_y + gyro_z*gyro_z)) FROM frames \
         WHERE session_id = 7 GROUP BY sensor",
    );
    measure(
        "mean_gyro_by_session_and_sensor_of_10_sessions_4.8M_frames",
        &stored,
        of_all,
        "SELECT session_id, sensor, count(*), avg(gyro_x), avg(gyro_y), avg(gyro_z) FROM frames \
         GROUP BY session_id, sensor",
    );
    measure("count_of_10_sessions_4.8M_frames", &stored, of_all, "SELECT count(*) FROM frames");
    measure(
        "peak_gyro_by_sensor_of_an_open_session_480k_frames",
        &live,
        of_one,
        "SELECT sensor, max(sqrt(gyro_x*gyro_x + gyro_y*gyro_y + gyro_z*gyro_z)) FROM frames GROUP BY sensor",
    );
    group.finish();
}

async fn answer(handle: &Handle, sql: &str) -> usize {
    let answer = handle.query(sql, Limits::default()).await.expect("a valid statement");
    let batches: Vec<RecordBatch> = answer.batches.try_collect().await.expect("a readable folder");
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    assert!(rows > 0, "no rows: {sql}");
    rows
}

/// One open session and nothing else.
#[derive(Debug)]
struct Live(Vec<RecordBatch>);

impl Live {
    fn of(frames: &FrameColumns) -> Self {
        let rows: Vec<usize> = (0..frames.len()).collect();
        let batches =
            rows.chunks(LIVE_BATCH_ROWS).map(|rows| frames.to_batch(SessionId(1), 0, rows, |_| Some(9.80665)));
        Self(batches.collect())
    }
}

impl Source for Live {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, SourceError>> {
        let live = LiveFrames { session_id: SessionId(1), date: date(2026, 11, 23), batches: self.0.clone() };
        Box::pin(async move { Ok(Snapshot { live: vec![live], ..Snapshot::default() }) })
    }
    fn locate(&self, _: &mut [StoredFile]) -> Result<(), SourceError> {
        Ok(())
    }
    fn sessions(&self) -> BoxFuture<'_, Result<Vec<SessionRow>, SourceError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn devices(&self) -> BoxFuture<'_, Result<Vec<DeviceRow>, SourceError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn players(&self) -> BoxFuture<'_, Result<Vec<PlayerRow>, SourceError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn notifications(&self) -> BoxFuture<'_, Result<Vec<NotificationRow>, SourceError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn labels(&self) -> BoxFuture<'_, Result<Vec<LabelRow>, SourceError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}
