//! SQL cases are data: every `tests/sql/*.slt` runs over one folder of planted recordings.
//!
//! A file is a list of records, apart by blank lines; `#` begins a comment line.
//! ```text
//! query            query sorted        error
//! SELECT …         SELECT …            SELECT …
//! ----             ----                ----
//! rows             rows                text that the error contains
//! ```
//! Columns are apart by one space, null is `NULL`, the empty text `(empty)`; `sorted` sorts the rows of both sides.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use schemas::{FrameColumns, SensorRole, SessionId};
use volant::query::{Folder, Handle, Options};
use volant::store::paths::Paths;
use volant::store::results::{ResultRow, StrokeRow, write_results, write_strokes};

/// Two recordings on two days: session 1 has four sensors at 100 Hz for one second with a swing at 0.5 s, session 2 a
/// racket alone, in g, with gaps in its values.
fn plant(dir: &Path) {
    let mut first = FrameColumns::default();
    for row in 0..100_i32 {
        for role in SensorRole::CHAIN {
            let swing = if row == 50 { 1000.0 } else { f64::from(row % 10) };
            let gyro = [swing as f32, 0.0, 0.0];
            first.push_decoded(
                i32::from(role.to_byte()),
                role,
                Some(i64::from(row) * 10),
                [[0.0, 0.0, 9.80665], gyro, [0.0; 3]],
            );
            let last = first.len() - 1;
            first.t_ns[last] = i64::from(row) * 10_000_000;
            first.received_at_us[last] = 1_700_000_000_000_000 + i64::from(row / 30) * 300_000;
        }
    }
    write_sorted(dir, "2023-11-14", 1, &first, 1.0);

    let mut second = FrameColumns::default();
    for row in 0..10_i32 {
        let acc = if row == 4 { [f32::NAN; 3] } else { [0.0, 0.0, 1.0] };
        second.push_decoded(4, SensorRole::Racket, None, [acc, [0.0, 3.0, 4.0], [f32::NAN; 3]]);
        second.t_ns[row as usize] = i64::from(row) * 20_000_000;
        second.received_at_us[row as usize] = 1_700_086_400_000_000;
    }
    write_sorted(dir, "2023-11-15", 2, &second, 9.80665);
    plant_results(dir);
}

/// Two swings and an issue of session 1, none of session 2.
fn plant_results(dir: &Path) {
    let paths = Paths::new(dir);
    let started_at_us = [1_700_000_000_000_000, 1_700_086_400_000_000];
    let stroke = |index: i32, impact_ms: i64, name: &str| StrokeRow {
        session_id: 1,
        stroke_index: index,
        device_code: "2025001".to_owned(),
        user_id: Some(3),
        sensor: "racket".to_owned(),
        start_ns: (impact_ms - 100) * 1_000_000,
        impact_ns: impact_ms * 1_000_000,
        end_ns: (impact_ms + 50) * 1_000_000,
        stroke: name.to_owned(),
        confidence: Some(0.75),
        probabilities: "{}".to_owned(),
        racket_head_speed_mps: Some(f64::from(20 + index)),
        metrics: "{\"acceleration_phase_ms\":42.5}".to_owned(),
        ..StrokeRow::default()
    };
    let strokes = [stroke(0, 200, "other"), stroke(1, 500, "smash")];
    write_strokes(&paths, SessionId(1), started_at_us[0], &strokes).expect("write the strokes");
    for (session, issues) in
        [(1, r#"[{"code":"gap","severity":"info","sensor":"racket","affects":["strokes"]}]"#), (2, "[]")]
    {
        let result = ResultRow {
            session_id: session,
            device_code: "2025001".to_owned(),
            user_id: Some(3),
            stroke_count: if session == 1 { 2 } else { 0 },
            overall_score: (session == 1).then_some(60.0),
            session: "{\"pace\":{\"rallies\":2}}".to_owned(),
            issues: issues.to_owned(),
            ..ResultRow::default()
        };
        write_results(&paths, SessionId(session), started_at_us[session as usize - 1], &[result])
            .expect("write the result");
    }
}

fn write_sorted(dir: &Path, date: &str, session: i64, frames: &FrameColumns, acc_to_mps2: f32) {
    let mut order = (0..frames.len()).collect::<Vec<_>>();
    order.sort_by_key(|&row| (frames.role(row).as_str(), frames.t_ns[row]));
    write(dir, "frames", date, session, &frames.to_batch(SessionId(session), 0, &order, |_| Some(acc_to_mps2)));
}

fn write(dir: &Path, table: &str, date: &str, session: i64, batch: &RecordBatch) {
    let folder = dir.join(table).join(format!("date={date}"));
    fs::create_dir_all(&folder).expect("make the folder");
    let file = fs::File::create(folder.join(format!("{session}.parquet"))).expect("make the file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("begin the file");
    writer.write(batch).expect("write the rows");
    writer.close().expect("end the file");
}

/// The rows as text, or the error.
async fn answer(handle: &Handle, sql: &str) -> Result<Vec<String>, String> {
    let answer = handle.query(sql, handle.limits()).await.map_err(|error| error.to_string())?;
    let batches = answer.batches.try_collect::<Vec<_>>().await.map_err(|error| error.to_string())?;
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in &batches {
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).expect("a column that prints"))
            .collect::<Vec<_>>();
        for row in 0..batch.num_rows() {
            let cells = columns.iter().map(|column| match column.value(row).to_string() {
                empty if empty.is_empty() => "(empty)".to_owned(),
                cell => cell,
            });
            rows.push(cells.collect::<Vec<_>>().join(" "));
        }
    }
    Ok(rows)
}

/// What is wrong with a record, if anything.
async fn check(handle: &Handle, record: &str) -> Option<String> {
    let (head, body) = record.split_once('\n')?;
    let (sql, expected) = body.split_once("\n----").unwrap_or((body, ""));
    let mut expected = expected.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let got = answer(handle, sql).await;
    match (head.trim(), got) {
        ("error", Err(error)) if expected.iter().all(|text| error.contains(text)) => None,
        ("query", Ok(rows)) if rows == expected => None,
        ("query sorted", Ok(mut rows)) => {
            rows.sort_unstable();
            expected.sort_unstable();
            (rows != expected).then(|| format!("{sql}\n---- expected\n{expected:#?}\n---- got\n{rows:#?}"))
        }
        ("error" | "query", got) => Some(format!("{sql}\n---- expected\n{expected:#?}\n---- got\n{got:#?}")),
        (head, _) => Some(format!("unknown record: {head}")),
    }
}

#[tokio::test]
async fn sql_files() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path());
    let folder = Folder::open(dir.path()).unwrap();
    let handle = Handle::start(Options::default(), folder.files(), Arc::new(folder)).unwrap();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql");
    let mut files = fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    files.sort_unstable();
    let (mut records, mut failures) = (0, Vec::new());
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "slt")) {
        let text = fs::read_to_string(file).unwrap();
        let text = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        for record in text.split("\n\n").map(str::trim).filter(|record| !record.is_empty()) {
            records += 1;
            if let Some(failure) = check(&handle, record).await {
                failures.push(format!("{}: {failure}", file.file_name().unwrap().display()));
            }
        }
    }
    assert!(records > 20, "only {records} records were found");
    assert!(failures.is_empty(), "{} of {records} records fail\n\n{}", failures.len(), failures.join("\n\n"));
}
