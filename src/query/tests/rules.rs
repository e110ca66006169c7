//! What the optimizer's own rules and the types of text do: the same answers in another way.

use arrow::datatypes::DataType;
use parquet::file::properties::EnabledStatistics;

use super::*;

/// Rows of strokes whose impacts are at these times.
fn impacts(session: i64, impacts_ns: &[i64]) -> RecordBatch {
    let rows: Vec<_> = impacts_ns
        .iter()
        .map(|&impact_ns| StrokeRow { session_id: session, impact_ns, ..StrokeRow::default() })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(dir.path());
    let written = write_strokes(&paths, SessionId(session), 0, &rows).unwrap();
    let file = std::fs::File::open(paths.file(written.path)).unwrap();
    let mut batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    batches.next().unwrap().unwrap()
}

/// A session's file of strokes whose impacts are at these times.
fn struck(dir: &Path, session: i64, impacts_ns: &[i64]) -> StoredFile {
    let path = format!("strokes/date={DAY}/{session}.parquet");
    let bytes = store(dir, &path, &impacts(session, impacts_ns));
    let (session_id, rows) = (SessionId(session), Some(impacts_ns.len() as u64));
    StoredFile { session_id, path, within: None, date: DAY, rows, bytes, version: 1 }
}

#[tokio::test]
async fn rows_within_a_distance_are_joined_by_buckets() {
    let dir = tempfile::tempdir().unwrap();
    let mut snapshot = Snapshot::default();
    for session in 1..=2 {
        let times: Vec<i64> = (0..40).map(|row| (row - 20) * 7).collect();
        let mut columns = FrameColumns::with_capacity(times.len());
        for &time in &times {
            columns.push_decoded(4, SensorRole::Racket, None, [[1.0; 3]; 3]);
            *columns.t_ns.last_mut().unwrap() = time;
        }
        let order = (0..times.len()).collect::<Vec<_>>();
        let batches = vec![columns.to_batch(SessionId(session), 0, &order, |_| None)];
        snapshot.live.push(LiveFrames { session_id: SessionId(session), date: DAY, batches });
        let strokes = struck(dir.path(), session, &[-141, -20, -1, 0, 3, 19, 60, 130, 10_000]);
        Arc::make_mut(&mut snapshot.strokes).push(strokes);
    }
    let handle = start(dir.path(), options(), vec![snapshot]);
    let pairs = "SELECT k.session_id, k.impact_ns, f.t_ns FROM strokes k JOIN frames f ON f.session_id = k.session_id";
    // The same in floating point, which the rule leaves alone.
    let plain = |condition: &str| condition.replace("f.t_ns", "CAST(f.t_ns AS DOUBLE)");
    for (condition, is_known) in [
        ("f.t_ns >= k.impact_ns - 20 AND f.t_ns <= k.impact_ns + 20", true),
        ("f.t_ns BETWEEN k.impact_ns - 20 AND k.impact_ns + 20", true),
        ("f.t_ns > k.impact_ns - 21 AND k.impact_ns + 14 > f.t_ns", true),
        ("abs(f.t_ns - k.impact_ns) <= 33", true),
        ("abs(k.impact_ns - f.t_ns + 5) < 33", true),
        ("f.t_ns - k.impact_ns <= 50 AND k.impact_ns - f.t_ns <= -10", true),
        ("f.t_ns >= k.impact_ns AND f.t_ns <= k.impact_ns", true),
        ("f.t_ns >= k.impact_ns + 5 AND f.t_ns <= k.impact_ns - 5", false),
        ("f.t_ns >= k.impact_ns - 20", false),
        ("f.t_ns >= k.impact_ns - 20 AND f.t_ns <= k.end_ns + 20", false),
        ("f.t_ns >= 2 * k.impact_ns - 20 AND f.t_ns <= 2 * k.impact_ns + 20", false),
    ] {
        let asked = format!("{pairs} AND {condition} ORDER BY 1, 2, 3");
        let told = csv(&handle, &asked).await;
        assert_eq!(
            told,
            csv(&handle, &format!("{pairs} AND {} ORDER BY 1, 2, 3", plain(condition))).await,
            "{condition}"
        );
        let plan = csv(&handle, &format!("EXPLAIN {asked}")).await;
        assert_eq!(plan.contains("__bucket_left"), is_known, "{condition}: {plan}");
        if is_known {
            assert!(told.lines().count() > 2, "{condition}: {told}");
        }
    }
    // Every row of the left is kept by an outer join: that one compares pairs.
    let outer = pairs.replace(" JOIN", " LEFT JOIN");
    let plan = csv(&handle, &format!("EXPLAIN {outer} AND abs(f.t_ns - k.impact_ns) <= 33")).await;
    assert!(!plan.contains("__bucket"), "{plan}");
    // Joined twice, and under other names.
    let twice = "SELECT count(*) FROM strokes a JOIN frames f ON f.session_id = a.session_id AND abs(f.t_ns - a.impact_ns) \
                 <= 20 JOIN strokes b ON b.session_id = f.session_id AND abs(f.t_ns - b.impact_ns) <= 40";
    assert_eq!(number(&handle, twice).await, number(&handle, &plain(twice)).await);
}

/// The file written in other row groups, with or without what footers tell of columns.
fn rewritten(dir: &Path, file: &StoredFile, name: &str, group_rows: usize, told: EnabledStatistics) -> StoredFile {
    let batches = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(dir.join(&file.path)).unwrap()).unwrap();
    let properties =
        WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).set_statistics_enabled(told).build();
    let path = file.path.replace(".parquet", &format!("-{name}.parquet"));
    let out = std::fs::File::create(dir.join(&path)).unwrap();
    let mut writer = ArrowWriter::try_new(out, Arc::clone(batches.schema()), Some(properties)).unwrap();
    for batch in batches.build().unwrap() {
        writer.write(&batch.unwrap()).unwrap();
    }
    writer.close().unwrap();
    let bytes = std::fs::metadata(dir.join(&path)).unwrap().len();
    StoredFile { path, bytes, rows: None, ..file.clone() }
}

#[tokio::test]
async fn what_footers_tell_is_answered_without_the_rows() {
    let dir = tempfile::tempdir().unwrap();
    let day = date(2026, 11, 24);
    let told = vec![sealed(dir.path(), 1, DAY, 400), sealed(dir.path(), 2, DAY, 200), sealed(dir.path(), 3, day, 600)];
    let all_rewritten = |name: &str, group_rows, statistics| -> Vec<StoredFile> {
        told.iter().map(|file| rewritten(dir.path(), file, name, group_rows, statistics)).collect()
    };
    // Footers that tell nothing, and row groups in which two sensors meet.
    let bare = all_rewritten("bare", 100, EnabledStatistics::None);
    let crossed = all_rewritten("crossed", 70, EnabledStatistics::Chunk);
    let mixed = vec![told[0].clone(), bare[1].clone(), crossed[2].clone()];
    let live = vec![live(4, day, 11)];
    let with = |frames: Vec<StoredFile>, live| {
        start(dir.path(), options(), vec![Snapshot { frames: frames.into(), live, ..Snapshot::default() }])
    };
    let stored = with(told.clone(), Vec::new());
    let handles = [told, bare, crossed, mixed].map(|frames| with(frames, live.clone()));
    for (question, answer) in [
        ("SELECT date, count(*) AS n FROM frames GROUP BY date ORDER BY 1", "date,n\n2026-11-23,600\n2026-11-24,611\n"),
        (
            "SELECT f.session_id, count(1) AS n, count(*) + 1 AS m FROM frames f WHERE f.session_id <> 2 GROUP BY 1 ORDER BY 1",
            "session_id,n,m\n1,400,401\n3,600,601\n4,11,12\n",
        ),
        ("SELECT count(*) AS n FROM frames WHERE date = '2026-11-24' GROUP BY session_id ORDER BY 1", "n\n11\n600\n"),
        ("SELECT date, count(*) AS n FROM frames GROUP BY date HAVING count(*) > 605", "date,n\n2026-11-24,611\n"),
        (
            "SELECT session_id, sensor, count(*) AS n FROM frames GROUP BY 1, 2 ORDER BY 1, 2",
            "session_id,sensor,n\n1,racket,200\n1,wrist,200\n2,racket,100\n2,wrist,100\n3,racket,300\n3,wrist,300\n4,racket,5\n4,wrist,6\n",
        ),
        (
            "SELECT count(*) AS n, count(device_time_raw) AS told, count(*) - count(device_time_raw) AS missing, count(t_ns) AS t \
             FROM frames",
            "n,told,missing,t\n1211,1207,4,1211\n",
        ),
        (
            "SELECT session_id, (max(t_ns) - min(t_ns)) / 1e9 AS s, min(seq), max(device_time_raw) IS NULL AS x FROM frames \
             WHERE sensor = 'racket' GROUP BY session_id ORDER BY 1",
            "session_id,s,min(frames.seq),x\n1,1.99,1,false\n2,0.99,1,false\n3,2.99,1,false\n4,0.04,1,false\n",
        ),
        ("SELECT DISTINCT sensor FROM frames WHERE date > '2026-11-23' ORDER BY 1", "sensor\nracket\nwrist\n"),
        (
            "SELECT count(DISTINCT session_id) AS s, min(sensor) AS a, max(upper(sensor)) AS b, count(sensor) AS n FROM frames",
            "s,a,b,n\n4,racket,WRIST,1211\n",
        ),
        (
            "SELECT count(*) FILTER (WHERE sensor = 'wrist') AS n, max(t_ns) FILTER (WHERE session_id = 3) AS t FROM frames",
            "n,t\n606,2995000000\n",
        ),
        (
            "SELECT date, sensor, count(*) AS n FROM frames GROUP BY ROLLUP (date, sensor) ORDER BY 1, 2, 3",
            "date,sensor,n\n2026-11-23,racket,300\n2026-11-23,wrist,300\n2026-11-23,,600\n2026-11-24,racket,305\n\
             2026-11-24,wrist,306\n2026-11-24,,611\n,,1211\n",
        ),
        (
            "SELECT count(*) AS n, min(t_ns) AS t, count(DISTINCT sensor) AS s FROM frames WHERE session_id = 99",
            "n,t,s\n0,,0\n",
        ),
        (
            "SELECT a.sensor, a.n, b.t FROM (SELECT sensor, count(*) AS n FROM frames GROUP BY 1) a \
             JOIN (SELECT sensor, max(t_ns) AS t FROM frames f GROUP BY 1) b ON a.sensor = b.sensor ORDER BY 1",
            "sensor,n,t\nracket,605,2995000000\nwrist,606,2990000000\n",
        ),
    ] {
        for handle in &handles {
            assert_eq!(csv(handle, question).await, answer, "{question}");
        }
        let plan = csv(&stored, &format!("EXPLAIN {question}")).await;
        assert!(!plan.contains("parquet"), "{question}: {plan}");
    }
    // What needs the rows reads them.
    for question in [
        "SELECT session_id, max(gyro_x) AS n FROM frames GROUP BY 1",
        "SELECT session_id, max(clock) AS n FROM frames GROUP BY 1",
        "SELECT session_id, count(DISTINCT seq) AS n FROM frames GROUP BY 1",
        "SELECT session_id, sum(seq) AS n FROM frames GROUP BY 1",
        "SELECT session_id, max(seq + 1) AS n FROM frames GROUP BY 1",
        "SELECT session_id, count(*) AS n FROM frames WHERE seq > 3 GROUP BY 1",
        "SELECT clock, count(*) AS n FROM frames GROUP BY 1",
        "SELECT session_id, count(*) FILTER (WHERE seq > 3) AS n FROM frames GROUP BY 1",
        "SELECT session_id, count(*) AS n FROM (SELECT * FROM frames LIMIT 3) GROUP BY 1",
    ] {
        let plan = csv(&stored, &format!("EXPLAIN {question}")).await;
        assert!(plan.contains("parquet"), "{question}: {plan}");
    }
}

#[tokio::test]
async fn text_is_in_views_inside_and_in_plain_strings_outside() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = Snapshot { live: vec![live(1, DAY, 8)], ..Snapshot::default() };
    let handle = start(dir.path(), options(), vec![snapshot]);
    let question = "SELECT arrow_typeof(sensor) AS inside, sensor, array_agg(DISTINCT sensor) AS sensors, CAST(1 AS VARCHAR) AS one, \
                    named_struct('sensor', sensor) AS s FROM frames GROUP BY sensor ORDER BY sensor";
    assert!(csv(&handle, "SELECT arrow_typeof(sensor) FROM frames LIMIT 1").await.contains("Utf8View"));
    let answer = handle.query(question, handle.limits()).await.unwrap();
    let schema = Arc::clone(&answer.schema);
    let types = format!("{schema:?}");
    assert!(types.contains("Utf8") && !types.contains("Utf8View"), "{types}");
    let batches = answer.batches.try_collect::<Vec<_>>().await.unwrap();
    assert!(batches.iter().all(|batch| batch.schema() == schema));
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    let described = handle.describe("SELECT sensor FROM frames WHERE sensor = $1").await.unwrap();
    assert_eq!(*described.schema.field(0).data_type(), DataType::Utf8);
    assert_eq!(*described.parameters[0].data_type(), DataType::Utf8);
    let told = "SELECT data_type FROM information_schema.columns WHERE table_name = 'frames' AND column_name = 'sensor' \
                UNION ALL SELECT data_type FROM data_dictionary WHERE table_name = 'frames_si' AND column_name = 'sensor'";
    assert_eq!(csv(&handle, told).await, "data_type\nUtf8\nUtf8\n");
}

#[tokio::test]
async fn groups_of_rows_that_lie_together_are_the_groups_of_each_row() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (sealed(dir.path(), 1, DAY, 90_000), sealed(dir.path(), 2, DAY, 60_000));
    // Row groups in which sensors meet, and live rows that lie as they came.
    let crossed = rewritten(dir.path(), &other, "crossed", 7_000, EnabledStatistics::Chunk);
    let crossed = StoredFile { rows: Some(60_000), ..crossed };
    let frames = Arc::new(vec![one, crossed]);
    let live = vec![live(3, date(2026, 11, 24), 5_001)];
    let handle = start(dir.path(), options(), vec![Snapshot { frames, live, ..Snapshot::default() }]);
    let aggregates = "count(*), count(device_time_raw), min(seq), max(gyro_z), sum(t_ns), round(avg(acc_x + seq), 6), \
                      round(stddev(CAST(seq AS DOUBLE)), 6), round(var_pop(seq), 3)";
    for (keys, condition) in [
        ("sensor", "true"),
        ("session_id, sensor", "true"),
        ("date", "seq % 3 = 1"),
        ("session_id", "sensor = 'racket' AND seq > 100"),
        ("sensor, date, session_id", "seq < 0"),
    ] {
        let asked = |keys: &str| {
            format!("SELECT {keys}, {aggregates} FROM frames WHERE {condition} GROUP BY {keys} ORDER BY {keys}")
        };
        let plan = csv(&handle, &format!("EXPLAIN {}", asked(keys))).await;
        assert!(plan.contains("ByRuns"), "{keys}: {plan}");
        // Behind a condition that the engine cannot know it sees no column of the table.
        let hidden: Vec<_> =
            keys.split(", ").map(|key| format!("CASE WHEN seq < -1 THEN NULL ELSE {key} END")).collect();
        let by_rows = asked(&hidden.join(", "));
        let plan = csv(&handle, &format!("EXPLAIN {by_rows}")).await;
        assert!(!plan.contains("ByRuns"), "{keys}: {plan}");
        let rows_of = |told: String| told.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        let told = rows_of(csv(&handle, &asked(keys)).await);
        assert_eq!(told, rows_of(csv(&handle, &by_rows).await), "{keys} {condition}: {plan}");
        assert_eq!(told.is_empty(), condition == "seq < 0");
    }
    // What needs all values of a group, or is asked of some of its rows, is the engine's.
    for function in
        ["count(DISTINCT seq)", "median(seq)", "max(seq) FILTER (WHERE seq > 3)", "array_agg(seq ORDER BY seq)"]
    {
        let plan = csv(&handle, &format!("EXPLAIN SELECT sensor, {function} FROM frames GROUP BY sensor")).await;
        assert!(!plan.contains("ByRuns"), "{function}: {plan}");
    }
}

#[tokio::test]
async fn joins_pause_between_their_batches_and_a_small_statement_has_one_thread() {
    let dir = tempfile::tempdir().unwrap();
    let frames = Arc::new(vec![sealed(dir.path(), 1, DAY, 2_000)]);
    let handle = start(dir.path(), options(), vec![Snapshot { frames, ..Snapshot::default() }]);
    let plan = async |sql: &str| csv(&handle, &format!("EXPLAIN {sql}")).await;
    for (join, condition) in [
        ("HashJoinExec", "JOIN frames b ON a.seq = b.seq"),
        ("CrossJoinExec", "CROSS JOIN frames b"),
        ("NestedLoopJoinExec", "JOIN frames b ON a.gyro_x < b.gyro_x"),
    ] {
        let plan = plan(&format!("SELECT a.t_ns, b.t_ns FROM frames a {condition} LIMIT 5")).await;
        let lines: Vec<&str> = plan.lines().collect();
        let at = lines.iter().position(|line| line.contains(join)).unwrap_or_else(|| panic!("no {join}: {plan}"));
        assert!(lines[at - 1].contains("CooperativeExec"), "{plan}");
    }
    let every = plan("SELECT a.t_ns, b.t_ns FROM frames a JOIN frames b ON a.gyro_x < b.gyro_x").await;
    assert!(every.contains("PortionsExec"), "{every}");
    assert!(!plan("SELECT seq % 7, max(gyro_x) FROM frames GROUP BY 1").await.contains("RepartitionExec"));
    let much_of_little = "SELECT a.seq % 7, count(*) FROM frames a CROSS JOIN frames b GROUP BY 1";
    assert!(plan(much_of_little).await.contains("RepartitionExec"));
    // Nor filters made on the way, which only what reads much earns back.
    let joined = "FROM frames a JOIN frames b ON a.seq = b.seq";
    for small in [&format!("SELECT a.t_ns, b.gyro_x {joined}"), "SELECT t_ns FROM frames ORDER BY gyro_x LIMIT 3"] {
        assert!(!plan(small).await.contains("DynamicFilter"), "{small}");
    }
    assert!(plan(&format!("SELECT a.t_ns, b.gyro_x {joined} CROSS JOIN frames c")).await.contains("DynamicFilter"));
}

#[tokio::test]
async fn many_small_pieces_have_several_threads_and_no_filters_made_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut snapshot = Snapshot::default();
    for session in 1..=70 {
        Arc::make_mut(&mut snapshot.strokes).push(struck(dir.path(), session, &[1, 2]));
        Arc::make_mut(&mut snapshot.frames).push(sealed(dir.path(), session, DAY, 2));
    }
    let handle = start(dir.path(), options(), vec![snapshot]);
    let joined = |table: &str| {
        format!(
            "SELECT count(*) AS n FROM {table} a JOIN strokes b ON a.session_id = b.session_id GROUP BY a.session_id"
        )
    };
    for (table, filters) in [("strokes", false), ("frames", true)] {
        let plan = csv(&handle, &format!("EXPLAIN {}", joined(table))).await;
        assert!(plan.contains("RepartitionExec"), "{plan}");
        assert_eq!(plan.contains("DynamicFilter"), filters, "{plan}");
    }
    assert_eq!(csv(&handle, &format!("SELECT sum(n) AS n FROM ({})", joined("strokes"))).await, "n\n280\n");
}

/// Eight thousand million threes of rows of which none fits: minutes of work that hands out nothing.
#[tokio::test]
async fn a_join_that_finds_nothing_ends_with_its_time_and_the_threads_are_free() {
    let dir = tempfile::tempdir().unwrap();
    let frames = Arc::new(vec![sealed(dir.path(), 1, DAY, 2_000)]);
    let handle = start(dir.path(), options(), vec![Snapshot { frames, ..Snapshot::default() }]);
    let limits = Limits { wall_time: Duration::from_millis(200), ..handle.limits() };
    let none = "SELECT count(*) FROM frames a CROSS JOIN frames b CROSS JOIN frames c WHERE a.seq + b.seq + c.seq = -1";
    let patience = Duration::from_secs(60);
    let error = tokio::time::timeout(patience, async {
        match handle.query(none, limits).await {
            Ok(mut answer) => answer.batches.next().await.unwrap().unwrap_err(),
            Err(error) => error,
        }
    });
    assert!(matches!(error.await.unwrap(), Error::Time { .. }));
    let counted = tokio::time::timeout(patience, csv(&handle, "SELECT count(*) AS n FROM frames"));
    assert_eq!(counted.await.unwrap(), "n\n2000\n");
    // Rows that fit are all found, in any portions: each number but the last has those above it.
    let pairs = csv(
        &handle,
        "SELECT count(*) AS n, sum(a.seq - b.seq) > 0 AS larger FROM frames a JOIN frames b ON a.seq > b.seq",
    )
    .await;
    assert_eq!(pairs, "n,larger\n1999000,true\n");
}
