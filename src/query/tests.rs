//! The room over planted files and live batches: what is answered, refused, limited, cancelled and skipped.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use arrow::ipc::reader::StreamReader;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use jiff::civil::{Date, date};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use schemas::{FrameColumns, SensorRole, SessionId};
use tower::ServiceExt;

use super::*;
use crate::store::paths::{Paths, Table};
use crate::store::results::{StrokeRow, write_strokes};
use crate::store::{seal, swap};

mod rules;

const DAY: Date = date(2026, 11, 23);

/// `count` frames of a session, alternating wrist and racket, sorted by sensor and time as a seal would.
fn frames(session: i64, count: usize) -> RecordBatch {
    let mut columns = FrameColumns::with_capacity(count);
    for row in 0..count {
        let sensor = if row % 2 == 0 { SensorRole::Wrist } else { SensorRole::Racket };
        let acc = if row == 3 { [f32::NAN, 0.0, 0.0] } else { [3.0, 0.0, 4.0] };
        let raw = (row > 0).then_some(row as i64);
        columns.push_decoded(i32::from(sensor.to_byte()), sensor, raw, [acc, [row as f32, 0.0, 0.0], [0.0; 3]]);
        columns.t_ns[row] = row as i64 * 5_000_000;
        columns.received_at_us[row] = 1_763_888_400_000_000 + row as i64;
    }
    let mut order = (0..count).collect::<Vec<_>>();
    order.sort_by_key(|&row| (columns.role(row).as_str(), columns.t_ns[row]));
    columns.to_batch(SessionId(session), 0, &order, |_| Some(2.0))
}

fn store(dir: &Path, path: &str, batch: &RecordBatch) -> u64 {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(100)).build();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    std::fs::metadata(&path).unwrap().len()
}

fn sealed(dir: &Path, session: i64, day: Date, count: usize) -> StoredFile {
    let path = format!("frames/date={day}/{session}.parquet");
    let bytes = store(dir, &path, &frames(session, count));
    StoredFile {
        session_id: SessionId(session),
        path,
        within: None,
        date: day,
        rows: Some(count as u64),
        bytes,
        version: 1,
    }
}

fn live(session: i64, day: Date, count: usize) -> LiveFrames {
    let batch = frames(session, count);
    let half = count / 2;
    LiveFrames {
        session_id: SessionId(session),
        date: day,
        batches: vec![batch.slice(0, half), batch.slice(half, count - half)],
    }
}

/// A source whose next snapshots are set by the test; the last one stays.
#[derive(Debug, Default)]
struct Scripted {
    snapshots: Mutex<Vec<Snapshot>>,
    taken: Mutex<usize>,
}

impl Scripted {
    fn new(snapshots: Vec<Snapshot>) -> Arc<Self> {
        Arc::new(Self { snapshots: Mutex::new(snapshots), taken: Mutex::new(0) })
    }
}

impl Source for Scripted {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, SourceError>> {
        let mut taken = self.taken.lock().unwrap();
        let snapshots = self.snapshots.lock().unwrap();
        let snapshot = snapshots.get(*taken % snapshots.len().max(1)).cloned();
        *taken += 1;
        Box::pin(async move { snapshot.ok_or_else(|| "no catalog".into()) })
    }

    fn locate(&self, _: &mut [StoredFile]) -> Result<(), SourceError> {
        Ok(())
    }

    fn sessions(&self) -> BoxFuture<'_, Result<Vec<SessionRow>, SourceError>> {
        Box::pin(async {
            Ok(vec![SessionRow {
                session_id: 7,
                device_code: "2025001".to_owned(),
                group_code: "2025001".to_owned(),
                user_id: None,
                status: "collecting".to_owned(),
                started_at_us: 1,
                ended_at_us: None,
                frame_count: 10,
                revision: 0,
                sealed: false,
            }])
        })
    }

    fn devices(&self) -> BoxFuture<'_, Result<Vec<DeviceRow>, SourceError>> {
        Box::pin(async {
            Ok(vec![DeviceRow {
                device_code: "2025001".to_owned(),
                first_seen_us: Some(1),
                last_seen_us: Some(2),
                frame_count: 10,
                connected: true,
            }])
        })
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

fn options() -> Options {
    Options { workers: 2, running: 2, waiting: 2, queue_timeout: Duration::from_secs(30), limits: Limits::default() }
}

fn start(dir: &Path, options: Options, snapshots: Vec<Snapshot>) -> Handle {
    Handle::start(options, Folder::open(dir).unwrap().files(), Scripted::new(snapshots)).unwrap()
}

async fn rows(handle: &Handle, sql: &str) -> Result<Vec<RecordBatch>, Error> {
    handle.query(sql, handle.limits()).await?.batches.try_collect().await
}

async fn csv(handle: &Handle, sql: &str) -> String {
    let answer = handle.query(sql, handle.limits()).await.unwrap();
    bytes(handle, answer, Format::Csv).await
}

async fn bytes(handle: &Handle, answer: Answer, format: Format) -> String {
    let pieces = handle.encode(answer, format).try_collect::<Vec<_>>().await.unwrap();
    String::from_utf8(pieces.concat()).unwrap()
}

async fn number(handle: &Handle, sql: &str) -> i64 {
    let batches = rows(handle, sql).await.unwrap();
    batches[0].column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(0)
}

fn endless() -> &'static str {
    "SELECT count(*) FROM generate_series(1, 1000000000000) AS a, generate_series(1, 1000000000000) AS b"
}

#[tokio::test]
async fn stored_and_live_frames_are_one_table() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = Snapshot {
        frames: Arc::new(vec![sealed(dir.path(), 1, DAY, 250), sealed(dir.path(), 2, date(2026, 11, 22), 10)]),
        live: vec![live(3, DAY, 31), live(4, DAY, 4)],
        ..Snapshot::default()
    };
    let handle = start(dir.path(), options(), vec![snapshot]);
    assert_eq!(
        csv(&handle, "SELECT session_id, date, count(*) n, min(t_ns), max(seq) FROM frames GROUP BY 1, 2 ORDER BY 1")
            .await,
        "session_id,date,n,min(frames.t_ns),max(frames.seq)\n\
         1,2026-11-23,250,0,249\n2,2026-11-22,10,0,9\n3,2026-11-23,31,0,30\n4,2026-11-23,4,0,3\n"
    );
    assert_eq!(number(&handle, "SELECT count(*) FROM frames").await, 295);
    assert_eq!(
        number(&handle, "SELECT count(*) FROM frames WHERE session_id IN (1, 3) AND sensor = 'wrist'").await,
        141
    );
    assert_eq!(number(&handle, "SELECT count(*) FROM frames WHERE date < '2026-11-23'").await, 10);
    assert_eq!(number(&handle, "SELECT count(*) FROM frames WHERE date > '2026-11-23' OR session_id = 99").await, 0);
    assert_eq!(number(&handle, "SELECT count(*) FROM frames WHERE device_time_raw IS NULL").await, 4);
    assert_eq!(
        csv(&handle, "SELECT seq FROM frames WHERE session_id = 3 ORDER BY seq LIMIT 2 OFFSET 1").await,
        "seq\n1\n2\n"
    );
}

#[tokio::test]
async fn a_seal_during_a_statement_neither_doubles_nor_hides_frames() {
    let dir = tempfile::tempdir().unwrap();
    let before = Snapshot { live: vec![live(1, DAY, 300)], ..Snapshot::default() };
    let after = Snapshot { frames: Arc::new(vec![sealed(dir.path(), 1, DAY, 300)]), ..Snapshot::default() };
    // Every statement gets the other state; one that took a snapshot for each table would see both.
    let handle = start(dir.path(), options(), vec![before, after]);
    for _ in 0..6 {
        let counts = csv(
            &handle,
            "SELECT (SELECT count(*) FROM frames) a, (SELECT count(DISTINCT seq) FROM frames) b, \
             (SELECT count(*) FROM frames x JOIN frames y ON x.session_id = y.session_id AND x.seq = y.seq) c",
        )
        .await;
        assert_eq!(counts, "a,b,c\n300,300,300\n");
    }
}

#[tokio::test]
async fn what_changes_anything_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(dir.path(), options(), vec![Snapshot::default()]);
    let file = dir.path().join("out.parquet");
    for (sql, word) in [
        ("INSERT INTO frames VALUES (1)", "INSERT"),
        ("UPDATE frames SET seq = 1", "UPDATE"),
        ("DELETE FROM sessions", "DELETE"),
        ("TRUNCATE TABLE frames", "TRUNCATE"),
        ("MERGE INTO frames USING strokes ON true WHEN MATCHED THEN DELETE", "MERGE"),
        ("CREATE TABLE t AS SELECT 1", "CREATE"),
        ("CREATE VIEW v AS SELECT 1", "CREATE"),
        ("CREATE SCHEMA s", "CREATE"),
        ("CREATE DATABASE d", "CREATE"),
        ("CREATE FUNCTION f() RETURNS INT RETURN 1", "CREATE"),
        ("CREATE EXTERNAL TABLE p STORED AS CSV LOCATION '/etc/passwd'", "CREATE"),
        ("DROP TABLE frames", "DROP"),
        ("DROP VIEW frames_si", "DROP"),
        ("ALTER TABLE frames ADD COLUMN x INT", "ALTER"),
        (&format!("COPY frames TO '{}'", file.display()), "COPY"),
        (&format!("COPY (SELECT 1) TO '{}' STORED AS PARQUET", file.display()), "COPY"),
        ("SET datafusion.execution.target_partitions = 1000", "SET"),
        ("RESET datafusion.execution.target_partitions", "RESET"),
        ("BEGIN", "BEGIN"),
        ("COMMIT", "COMMIT"),
        ("PREPARE p AS SELECT 1", "PREPARE"),
        ("EXECUTE p", "EXECUTE"),
        ("USE other", "USE"),
        ("EXPLAIN INSERT INTO frames SELECT * FROM frames", "INSERT"),
        ("EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1", "CREATE"),
        ("GRANT SELECT ON frames TO public", "GRANT"),
    ] {
        match handle.query(sql, handle.limits()).await.map(|_| ()) {
            Err(Error::NotReadOnly { statement }) => assert_eq!(statement, word, "{sql}"),
            // Some dialect corners do not parse at all, which is as good.
            Err(Error::Syntax { .. }) if ["MERGE", "GRANT", "BEGIN"].contains(&word) => {}
            other => panic!("{sql}: {other:?}"),
        }
    }
    for sql in ["SELECT 1 INTO t", "SELECT * FROM '/etc/passwd'", "SELECT * FROM read_csv('/etc/passwd')"] {
        let error = handle.query(sql, handle.limits()).await.err().expect(sql);
        assert_eq!(error.class(), Class::Caller, "{sql}: {error}");
    }
    assert!(!file.exists());
}

#[tokio::test]
async fn what_reads_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(dir.path(), options(), vec![Snapshot::default()]);
    for sql in [
        "SELECT 1",
        "select 1;",
        "WITH a AS (SELECT 1 x) SELECT x FROM a -- comment\n;",
        "VALUES (1), (2)",
        "EXPLAIN SELECT count(*) FROM frames",
        "EXPLAIN ANALYZE SELECT count(*) FROM frames",
        "SHOW TABLES",
        "SHOW COLUMNS FROM frames",
        "DESCRIBE strokes",
        "SHOW ALL",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM frames UNION ALL SELECT * FROM frames",
        "SELECT * FROM strokes, results, sessions, devices, frames_si",
    ] {
        rows(&handle, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    assert_eq!(number(&handle, "SELECT count(*) FROM frames").await, 0);
    assert_eq!(
        csv(&handle, "SELECT device_code, connected FROM devices").await,
        "device_code,connected\n2025001,true\n"
    );
    assert_eq!(csv(&handle, "SELECT status, ended_at_us FROM sessions").await, "status,ended_at_us\ncollecting,\n");
}

#[tokio::test]
async fn a_wrong_statement_is_told_where() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(dir.path(), options(), vec![Snapshot::default()]);
    let position = |line, column| Some(Position { line, column });
    for (sql, expected, place) in [
        ("SELEC 1", "Expected: an SQL statement, found: SELEC", position(1, 1)),
        ("SELECT a\nFROM frames WHERE", "Expected: an expression, found: EOF", None),
        ("SELECT\n  nosuch FROM frames", "No field named nosuch", position(2, 3)),
        ("SELECT * FROM nosuch", "nosuch' not found", position(1, 15)),
        ("SELECT * FROM sesions", "sesions' not found. Did you mean 'sessions'?", position(1, 15)),
        ("SELECT * FROM stroke_windows(1, 2, 3, 4)", "not found. Did you mean 'stroke_window'?", None),
        ("SELECT magnitude(1, 2, 3)", "Invalid function 'magnitude'. Did you mean 'vector_magnitude'?", position(1, 8)),
        ("SELECT sqrtt(2)", "Invalid function 'sqrtt'. Did you mean 'sqrt'?", position(1, 8)),
        ("SELECT 'open", "Unterminated string literal", position(1, 8)),
    ] {
        let Err(Error::Syntax { message, position } | Error::Statement { message, position }) =
            rows(&handle, sql).await
        else {
            panic!("{sql}")
        };
        assert!(message.contains(expected), "{sql}: {message}");
        assert_eq!(position, place, "{sql}: {message}");
        assert!(!message.contains('\n') && !message.contains("Line:"), "{message}");
    }
    assert!(matches!(rows(&handle, " ;; -- nothing").await, Err(Error::Empty)));
    assert!(matches!(rows(&handle, "SELECT 1; SELECT 2").await, Err(Error::ManyStatements { count: 2 })));
    assert!(matches!(rows(&handle, &"x".repeat(70_000)).await, Err(Error::TooLong { .. })));
    assert!(matches!(
        rows(&handle, &format!("SELECT {}1{}", "(".repeat(3000), ")".repeat(3000))).await,
        Err(Error::Syntax { .. })
    ));
    assert!(matches!(rows(&handle, "SELECT 1 / (session_id - 7) FROM sessions").await, Err(Error::Evaluate { .. })));
}

#[tokio::test]
async fn rows_beyond_the_limit_are_an_error_after_the_allowed_ones() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(dir.path(), options(), vec![Snapshot::default()]);
    let limits = Limits { rows: 10_000, ..handle.limits() };
    let mut batches = handle.query("SELECT * FROM generate_series(1, 30000)", limits).await.unwrap().batches;
    let (mut count, mut error) = (0, None);
    while let Some(batch) = batches.next().await {
        match batch {
            Ok(batch) => count += batch.num_rows(),
            Err(failed) => error = Some(failed),
        }
    }
    assert_eq!(count, 10_000);
    assert!(matches!(error, Some(Error::Rows { limit: 10_000 })), "{error:?}");
    let exactly = handle.query("SELECT * FROM generate_series(1, 10000)", limits).await.unwrap();
    assert_eq!(
        exactly.batches.try_collect::<Vec<_>>().await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(),
        10_000
    );
    // A caller cannot raise what the room allows.
    let asked = Limits { rows: u64::MAX, wall_time: Duration::MAX, memory_bytes: usize::MAX };
    assert_eq!(asked.within(&limits), limits);
}

#[tokio::test]
async fn time_and_memory_end_a_statement() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(dir.path(), options(), vec![Snapshot::default()]);
    let short = Limits { wall_time: Duration::from_millis(200), ..handle.limits() };
    assert!(matches!(handle.query(endless(), short).await.err(), Some(Error::Time { .. })));
    // A reader that stalls does not hold its place for ever either.
    let stalled = handle.query("SELECT * FROM generate_series(1, 1000000000)", short).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(matches!(stalled.batches.try_collect::<Vec<_>>().await.err(), Some(Error::Time { .. })));

    let small = Limits { memory_bytes: 1 << 20, ..handle.limits() };
    let sql = "SELECT value, count(*) FROM generate_series(1, 1000000) GROUP BY value ORDER BY 2 DESC, 1";
    let failed = match handle.query(sql, small).await {
        Ok(answer) => answer.batches.try_collect::<Vec<_>>().await.err(),
        Err(error) => Some(error),
    };
    assert!(matches!(failed, Some(Error::Memory { limit_bytes }) if limit_bytes == 1 << 20), "{failed:?}");
    assert_eq!(number(&handle, "SELECT count(*) FROM sessions").await, 1);
}

#[tokio::test]
async fn statements_queue_then_are_refused_and_dropping_one_frees_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(dir.path(), Options { running: 1, waiting: 1, ..options() }, vec![Snapshot::default()]);
    // An answer that nobody reads to its end holds the one place.
    let first = handle.query("SELECT * FROM generate_series(1, 1000000000000)", handle.limits()).await.unwrap();
    let mut second = Box::pin(rows(&handle, "SELECT 2"));
    assert!(futures::poll!(&mut second).is_pending());
    assert!(matches!(rows(&handle, "SELECT 3").await, Err(Error::Busy { running: 1, waiting: 1 })));
    drop(first);
    assert_eq!(second.await.unwrap()[0].num_rows(), 1);

    // A caller that goes away before the first row frees it as well, and one that goes while it waits.
    let gone = tokio::time::timeout(Duration::from_millis(100), handle.query(endless(), handle.limits())).await;
    assert!(gone.is_err());
    assert_eq!(number(&handle, "SELECT count(*) FROM sessions").await, 1);
}

#[tokio::test]
async fn the_queue_has_a_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { running: 1, queue_timeout: Duration::from_millis(20), ..options() };
    let handle = start(dir.path(), options, vec![Snapshot::default()]);
    let held = handle.query("SELECT * FROM generate_series(1, 1000000000000)", handle.limits()).await.unwrap();
    assert!(matches!(rows(&handle, "SELECT 1").await, Err(Error::Busy { .. })));
    drop(held);
}

#[tokio::test]
async fn files_and_row_groups_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = Snapshot {
        frames: Arc::new(vec![
            sealed(dir.path(), 1, DAY, 1000),
            sealed(dir.path(), 2, DAY, 1000),
            sealed(dir.path(), 3, date(2026, 11, 22), 1000),
        ]),
        live: vec![live(4, DAY, 10)],
        ..Snapshot::default()
    };
    let handle = start(dir.path(), options(), vec![snapshot]);
    let plan = csv(&handle, "EXPLAIN SELECT t_ns FROM frames WHERE session_id = 2 AND t_ns > 4000000000").await;
    assert!(plan.contains("date=2026-11-23/2.parquet") && !plan.contains("/1.parquet"), "{plan}");
    assert!(!plan.contains("/3.parquet") && !plan.contains("UnionExec"), "{plan}");
    assert!(plan.contains("pruning_predicate=") && plan.contains("t_ns_max"), "{plan}");
    assert!(!plan.contains(dir.path().to_str().unwrap()), "paths of this machine stay inside: {plan}");

    let plan = csv(&handle, "EXPLAIN SELECT t_ns FROM frames WHERE date = '2026-11-22'").await;
    assert!(plan.contains("/3.parquet") && !plan.contains("/2.parquet") && !plan.contains("FilterExec"), "{plan}");

    // With live frames beside, the predicate still reaches the files.
    let plan = csv(&handle, "EXPLAIN SELECT t_ns FROM frames WHERE t_ns > 4000000000").await;
    assert!(plan.contains("UnionExec") && plan.contains("pruning_predicate="), "{plan}");

    // 1000 frames: ten row groups of 100, five a sensor; the last tenth of the time is in one of each.
    let analyzed =
        csv(&handle, "EXPLAIN ANALYZE SELECT * FROM frames WHERE session_id = 2 AND t_ns >= 4500000000").await;
    assert!(analyzed.contains("row_groups_pruned_statistics=10 total → 2 matched"), "{analyzed}");

    // Counting needs no file at all.
    let plan = csv(&handle, "EXPLAIN SELECT count(*) FROM frames").await;
    assert!(!plan.contains(".parquet"), "{plan}");
}

#[tokio::test]
async fn si_view_has_units_and_magnitudes() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = Snapshot { live: vec![live(1, DAY, 8)], ..Snapshot::default() };
    let handle = start(dir.path(), options(), vec![snapshot]);
    assert_eq!(
        csv(
            &handle,
            "SELECT seq, t_s, accel_x_mps2 ax, accel_norm_mps2 a, gyro_norm_dps g, received_at \
             FROM frames_si WHERE seq IN (2, 3) ORDER BY seq"
        )
        .await,
        "seq,t_s,ax,a,g,received_at\n\
         2,0.01,6.0,10.0,2.0,2025-11-23T09:00:00.000002\n\
         3,0.015,,,3.0,2025-11-23T09:00:00.000003\n"
    );
}

#[tokio::test]
async fn columns_carry_their_comments_to_the_client() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = Snapshot {
        frames: Arc::new(vec![sealed(dir.path(), 1, DAY, 10)]),
        live: vec![live(2, DAY, 4)],
        ..Snapshot::default()
    };
    let handle = start(dir.path(), options(), vec![snapshot]);
    for table in ["frames", "frames_si", "strokes", "results", "sessions", "devices"] {
        for tail in ["", " LIMIT 0"] {
            let sql = format!("SELECT * FROM {table}{tail}");
            let answer = handle.query(&sql, handle.limits()).await.unwrap();
            for field in answer.schema.fields() {
                assert!(field.metadata().contains_key("comment"), "{table}.{}", field.name());
            }
            let pieces = handle.encode(answer, Format::Arrow).try_collect::<Vec<_>>().await.unwrap().concat();
            let reader = StreamReader::try_new(pieces.as_slice(), None).unwrap();
            assert!(reader.schema().field(0).metadata().contains_key("comment"));
            let count = reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>();
            assert_eq!(
                count,
                if tail.is_empty() {
                    number(&handle, &format!("SELECT count(*) FROM {table}")).await as usize
                } else {
                    0
                }
            );
        }
    }
}

#[tokio::test]
async fn text_formats_keep_nulls_and_empty_results() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(dir.path(), options(), vec![Snapshot::default()]);
    let two = "SELECT * FROM (VALUES (1, 'a\nb'), (2, NULL)) AS t(n, s) ORDER BY n";
    let none = "SELECT 1 AS n WHERE false";
    for (sql, format, expected) in [
        (two, Format::Json, "[{\"n\":1,\"s\":\"a\\nb\"},\n{\"n\":2,\"s\":null}]\n"),
        (two, Format::Jsonl, "{\"n\":1,\"s\":\"a\\nb\"}\n{\"n\":2,\"s\":null}\n"),
        (two, Format::Csv, "n,s\n1,\"a\nb\"\n2,\n"),
        (none, Format::Json, "[]\n"),
        (none, Format::Jsonl, ""),
        (none, Format::Csv, "n\n"),
    ] {
        let answer = handle.query(sql, handle.limits()).await.unwrap();
        assert_eq!(bytes(&handle, answer, format).await, expected, "{format:?}");
        // The same where it is written where it is made; no piece is empty, which would end an HTTP answer early.
        let (_, pieces) = handle.query_as(sql, handle.limits(), format).await.unwrap();
        let pieces = pieces.try_collect::<Vec<_>>().await.unwrap();
        assert!(pieces.iter().all(|piece| !piece.is_empty()));
        assert_eq!(String::from_utf8(pieces.concat()).unwrap(), expected, "{format:?}");
    }
    let answer = handle.query("SELECT make_array(1, 2) AS a", handle.limits()).await.unwrap();
    let failed = handle.encode(answer, Format::Csv).try_collect::<Vec<_>>().await;
    assert!(matches!(failed, Err(Error::Encode { format: "csv", .. })), "{failed:?}");
}

#[tokio::test]
async fn missing_files_and_a_failing_catalog_are_the_environments_fault() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = sealed(dir.path(), 1, DAY, 10);
    file.path = "frames/date=2026-11-23/9.parquet".to_owned();
    let handle = start(dir.path(), options(), vec![Snapshot { frames: Arc::new(vec![file]), ..Snapshot::default() }]);
    let error = rows(&handle, "SELECT * FROM frames").await.unwrap_err();
    assert_eq!(error.class(), Class::Environment, "{error:?}");
    let handle = start(dir.path(), options(), Vec::new());
    let error = rows(&handle, "SELECT * FROM strokes").await.unwrap_err();
    assert_eq!((error.class(), error.is_retryable()), (Class::Environment, true), "{error:?}");
}

#[tokio::test]
async fn a_rewritten_file_is_read_anew() {
    let dir = tempfile::tempdir().unwrap();
    let old = sealed(dir.path(), 1, DAY, 10);
    let source = Scripted::new(vec![Snapshot { frames: Arc::new(vec![old]), ..Snapshot::default() }]);
    let files = Folder::open(dir.path()).unwrap().files();
    let handle = Handle::start(options(), files, Arc::clone(&source) as _).unwrap();
    assert_eq!(csv(&handle, "SELECT max(seq) FROM frames").await, "max(frames.seq)\n9\n");
    let new = StoredFile { version: 2, ..sealed(dir.path(), 1, DAY, 20) };
    *source.snapshots.lock().unwrap() = vec![Snapshot { frames: Arc::new(vec![new]), ..Snapshot::default() }];
    assert_eq!(csv(&handle, "SELECT max(seq) FROM frames").await, "max(frames.seq)\n19\n");
}

#[tokio::test]
async fn a_bare_folder_answers() {
    let dir = tempfile::tempdir().unwrap();
    let empty = Folder::open(dir.path()).unwrap();
    let handle = Handle::start(options(), empty.files(), Arc::new(empty)).unwrap();
    assert_eq!(number(&handle, "SELECT count(*) FROM frames").await, 0);

    sealed(dir.path(), 1, DAY, 30);
    sealed(dir.path(), 12, date(2026, 11, 24), 3);
    store(dir.path(), "strokes/date=2026-11-23/1.parquet", &RecordBatch::new_empty(schemas::tables::strokes_schema()));
    for foreign in
        ["frames/date=2026-11-23/_tmp-5.parquet", "frames/notes.txt", "frames/date=2026-11-23/041025.parquet"]
    {
        std::fs::write(dir.path().join(foreign), "not a session's file").unwrap();
    }
    assert_eq!(
        csv(&handle, "SELECT session_id, date, count(*) n FROM frames GROUP BY ALL ORDER BY 1").await,
        "session_id,date,n\n1,2026-11-23,30\n12,2026-11-24,3\n"
    );
    assert_eq!(number(&handle, "SELECT count(*) FROM strokes").await, 0);
    assert!(matches!(Folder::open(&dir.path().join("nosuch")), Err(Error::Open { .. })));
}

/// A folder with so many sessions of one day, 1000 rows each, as the store writes them.
fn stored(dir: &Path, sessions: i64) -> Paths {
    let paths = Paths::new(dir);
    for session in 1..=sessions {
        let mut columns = FrameColumns::default();
        for row in 0..1000 {
            columns.push_decoded(4, SensorRole::Racket, None, [[row as f32; 3]; 3]);
        }
        seal::write_frames(&paths, SessionId(session), 0, 1, &columns, |_| None, &[]).unwrap();
    }
    paths
}

fn pack(paths: &Paths) {
    let folder = paths.table(Table::Frames).join("date=1970-01-01");
    let packed = swap::pack_day(paths, Table::Frames, &folder, &swap::Sizes::default(), false, &|| true).unwrap();
    assert_eq!(packed.packs, 1);
}

#[tokio::test]
async fn a_pack_answers_as_its_sessions_do() {
    let dir = tempfile::tempdir().unwrap();
    let paths = stored(dir.path(), 5);
    let folder = Folder::open(dir.path()).unwrap();
    let handle = Handle::start(options(), folder.files(), Arc::new(folder)).unwrap();
    let questions = [
        "SELECT session_id, date, count(*) n, sum(seq) s, min(acc_x), max(acc_x) FROM frames GROUP BY ALL ORDER BY 1",
        "SELECT count(*) FROM frames",
        "SELECT count(*) FROM frames WHERE session_id IN (2, 4)",
        "SELECT seq FROM frames WHERE session_id = 3 AND seq BETWEEN 7 AND 9 ORDER BY 1",
        "SELECT count(*) FROM frames WHERE date = '1970-01-02'",
        "SELECT session_id, seq FROM frames WHERE session_id = 5 LIMIT 2",
    ];
    let mut before = Vec::new();
    for question in questions {
        before.push(csv(&handle, question).await);
    }
    pack(&paths);
    for (question, before) in questions.iter().zip(&before) {
        assert_eq!(&csv(&handle, question).await, before, "{question}");
    }
    // One file is read, and of it the row groups of the sessions that are asked for.
    let analyzed = csv(&handle, "EXPLAIN ANALYZE SELECT sum(acc_x) FROM frames WHERE session_id IN (2, 4)").await;
    assert!(analyzed.contains("1-5-5.parquet") && analyzed.contains("output_rows=2"), "{analyzed}");
    let scanned = analyzed.split("DataSourceExec").nth(1).unwrap();
    assert!(scanned.contains("output_rows=2.00 K") || scanned.contains("output_rows=2000"), "{scanned}");
    // A session that is not in the snapshot is not in the answer: its rows may be given up and the pack still have them.
    let source = Folder::open(dir.path()).unwrap();
    let mut snapshot = source.snapshot().await.unwrap();
    let frames = Arc::make_mut(&mut snapshot.frames);
    frames.retain(|file| file.session_id != SessionId(3));
    source.locate(frames).unwrap();
    let handle = Handle::start(options(), source.files(), Scripted::new(vec![snapshot])).unwrap();
    assert_eq!(number(&handle, "SELECT count(*) FROM frames").await, 4000);
    assert_eq!(number(&handle, "SELECT count(*) FROM frames WHERE session_id = 3").await, 0);
}

#[tokio::test]
async fn a_statement_goes_on_reading_what_is_packed_under_it() {
    let dir = tempfile::tempdir().unwrap();
    let paths = stored(dir.path(), 40);
    let source = Folder::open(dir.path()).unwrap();
    let snapshot = source.snapshot().await.unwrap();
    // The snapshot is of before, the files of after: a statement that opens its files late.
    pack(&paths);
    let handle = Handle::start(options(), source.files(), Scripted::new(vec![snapshot.clone()])).unwrap();
    assert_eq!(number(&handle, "SELECT count(acc_x) FROM frames").await, 40_000);
    let packed = source.snapshot().await.unwrap();
    swap::undo_all(&paths, &|| true).unwrap();
    let handle = Handle::start(options(), source.files(), Scripted::new(vec![packed])).unwrap();
    assert_eq!(number(&handle, "SELECT count(acc_x) FROM frames").await, 40_000);
    // Once it is deleted it cannot be read, and the statement says so.
    pack(&paths);
    swap::remove_replaced(&paths, None).unwrap();
    let handle = Handle::start(options(), source.files(), Scripted::new(vec![snapshot])).unwrap();
    let error = rows(&handle, "SELECT count(acc_x) FROM frames").await.unwrap_err();
    assert!(matches!(error, Error::Stored { .. }), "{error:?}");
}

#[tokio::test]
async fn a_statement_goes_on_reading_what_gets_its_small_form_or_its_next_revision_under_it() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(dir.path());
    let seal = |session, revision, rows: u32| {
        let mut columns = FrameColumns::default();
        for row in 0..rows {
            columns.push_decoded(4, SensorRole::Racket, None, [[(row / 2 % 256 + row * 7 % 13) as f32; 3]; 3]);
        }
        seal::write_frames(&paths, SessionId(session), 0, revision, &columns, |_| None, &[]).unwrap()
    };
    let sealed = [1, 2, 3].map(|session| seal(session, 1, 20_000));
    let source = Folder::open(dir.path()).unwrap();
    let before = source.snapshot().await.unwrap();
    seal::make_smaller(&paths, sealed[1].path, &sealed[1].sha256, &|| true).unwrap().unwrap();
    let small = source.snapshot().await.unwrap();
    let bytes = |snapshot: &Snapshot| snapshot.frames.iter().map(|file| file.bytes).sum::<u64>();
    assert!(bytes(&small) < bytes(&before), "{:?}", small.frames);
    seal(2, 2, 25_000);
    // Each is of its time, the files are of after: statements that open them late. Twice: the second has the footers in memory.
    let after = source.snapshot().await.unwrap();
    let snapshots = [(before, 60_000), (small, 60_000), (after, 65_000)];
    let now = Scripted::new(vec![Snapshot::default()]);
    let handle = Handle::start(options(), source.files(), Arc::clone(&now) as _).unwrap();
    for _ in 0..2 {
        for (snapshot, rows) in &snapshots {
            *now.snapshots.lock().unwrap() = vec![snapshot.clone()];
            assert_eq!(number(&handle, "SELECT count(acc_x) FROM frames").await, *rows);
            assert_eq!(
                number(&handle, "SELECT sum(n) FROM (SELECT count(*) n FROM frames WHERE acc_y >= 0 GROUP BY sensor)")
                    .await,
                *rows
            );
        }
    }
}

async fn post(handle: &Handle, content_type: &str, body: String) -> (StatusCode, String, String) {
    let request = Request::post("/api/v2/sql").header("content-type", content_type).body(Body::from(body)).unwrap();
    let response = http::router(handle.clone()).oneshot(request).await.unwrap();
    let status = response.status();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.map(|bytes| bytes.to_vec());
    (status, kind, bytes.map_or_else(|_| "cut".to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

#[tokio::test]
async fn the_route_answers_in_every_format_and_tells_failures() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(dir.path(), options(), vec![Snapshot::default()]);
    let json = |query: &str, rest: &str| format!("{{\"query\":{}{rest}}}", serde_json::to_string(query).unwrap());
    let ok = StatusCode::OK;
    let answers = [
        (
            post(&handle, "text/plain; charset=utf-8", "SELECT 1 n".to_owned()).await,
            "application/json",
            "[{\"n\":1}]\n",
        ),
        (post(&handle, "application/json", json("SELECT 1 n", "")).await, "application/json", "[{\"n\":1}]\n"),
        (
            post(&handle, "application/json", json("SELECT 1 n", ",\"format\":\"jsonl\"")).await,
            "application/jsonl",
            "{\"n\":1}\n",
        ),
        (
            post(&handle, "application/json", json("SELECT 1 n", ",\"format\":\"csv\"")).await,
            "text/csv; charset=utf-8; header=present",
            "n\n1\n",
        ),
    ];
    for (answer, kind, text) in answers {
        assert_eq!(answer, (ok, kind.to_owned(), text.to_owned()));
    }
    let (status, kind, _) = post(&handle, "application/json", json("SELECT 1 n", ",\"format\":\"arrow\"")).await;
    assert_eq!((status, kind.as_str()), (ok, "application/vnd.apache.arrow.stream"));

    for (body, status, code) in [
        ("{}".to_owned(), 400, "bad_request"),
        (r#" ["SELECT 1", null, null, null]"#.to_owned(), 400, "bad_request"),
        (json("SELECT 1", ",\"format\":\"xml\""), 400, "bad_request"),
        (json("SELECT nosuch FROM frames", ""), 400, "bad_statement"),
        (json("DROP TABLE frames", ""), 403, "read_only"),
        (json(endless(), ",\"timeout_ms\":50"), 422, "time_limit"),
        (json("SELECT * FROM generate_series(1, 100)", ",\"max_rows\":10"), 422, "row_limit"),
        (json("SELECT make_array(1)", ",\"format\":\"csv\""), 400, "bad_format"),
    ] {
        let (got, kind, text) = post(&handle, "application/json", body.clone()).await;
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((got.as_u16(), kind.as_str()), (status, "application/problem+json"), "{body}: {text}");
        assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &status.into()), "{text}");
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }
    let (_, _, text) = post(&handle, "application/json", json("SELECT\n nosuch FROM frames", "")).await;
    let problem: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(problem["position"], serde_json::json!({"line": 2, "column": 2}));
    // A long answer that cannot be finished is cut, never closed as if it were whole.
    let long = json("SELECT * FROM generate_series(1, 200000)", ",\"max_rows\":100000");
    assert_eq!(post(&handle, "application/json", long).await.2, "cut");
}

#[test]
fn error_codes_are_distinct_for_callers() {
    let errors = [
        Error::Empty,
        Error::ManyStatements { count: 2 },
        Error::TooLong { bytes: 2, limit_bytes: 1 },
        Error::Syntax { message: String::new(), position: None },
        Error::Statement { message: String::new(), position: None },
        Error::NotReadOnly { statement: String::new() },
        Error::Evaluate { message: String::new() },
        Error::Encode { format: "csv", message: String::new() },
        Error::Busy { running: 1, waiting: 1 },
        Error::Time { limit: Duration::ZERO },
        Error::Memory { limit_bytes: 1 },
        Error::Rows { limit: 1 },
    ];
    let codes = errors.iter().map(Error::code).collect::<HashSet<_>>();
    assert_eq!(codes.len(), errors.len());
}
