use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use parquet::file::reader::FileReader as _;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::statistics::Statistics;
use proptest::prelude::*;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use schemas::frames::FrameFlags;
use tempfile::TempDir;

use super::*;
use crate::store::audit::{Expected, audit};
use crate::store::swap;

/// 2026-11-23 00:00 UTC.
const STARTED_AT_US: i64 = 1_795_392_000_000_000;

/// Frames as four sensors send them: 200 Hz each, values on the sensors' 16-bit grid, in blocks of one packet.
fn session(seconds: usize, seed: u64) -> FrameColumns {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut frames = FrameColumns::default();
    let mut angle = [0i32; 3];
    for step in 0..seconds * 200 {
        for sensor in SensorRole::CHAIN {
            let mut noisy = |base: f32, spread: f32, scale: f32| {
                let value = base + spread * (random.random::<f32>() + random.random::<f32>() - 1.0);
                (value / scale * 32768.0).round() * scale / 32768.0
            };
            let swing = if step % 600 < 60 { (step % 600) as f32 / 10.0 } else { 0.0 };
            let acc = [noisy(swing, 0.05, 16.0), noisy(0.1, 0.05, 16.0), noisy(0.98, 0.05, 16.0)];
            let gyro = [noisy(swing * 200.0, 8.0, 2000.0), noisy(1.0, 8.0, 2000.0), noisy(-2.0, 8.0, 2000.0)];
            for axis in &mut angle {
                *axis = (*axis + random.random_range(-9..=9)).clamp(-32768, 32767);
            }
            let angles = angle.map(|axis| axis as f32 * 180.0 / 32768.0);
            let device_ms = step as i64 * 5 + i64::from(sensor.to_byte());
            frames.push_decoded(
                i32::from(sensor.to_byte()),
                sensor,
                Some(100_000_000 + device_ms),
                [acc, gyro, angles],
            );
            let row = frames.len() - 1;
            frames.t_ns[row] = device_ms * 1_000_010;
            frames.clock[row] = ClockKind::TimeOfDay as u8;
            frames.received_at_us[row] = STARTED_AT_US + (step as i64 / 25 + 1) * 125_000;
        }
    }
    frames
}

fn opened(path: &Path) -> TableFile {
    TableFile::open(path).unwrap()
}

fn factor(sensor: u8) -> Option<f32> {
    (sensor > 0).then_some(9.80665)
}

fn seal(paths: &Paths, frames: &FrameColumns) -> Manifest {
    let metadata = [(KEY_SYNC_ERROR_NS.to_owned(), "1500000".to_owned())];
    write_frames(paths, SessionId(42), STARTED_AT_US, 1, frames, factor, &metadata).unwrap()
}

/// Columns with every NaN as the one NaN that Parquet's null comes back as.
fn comparable(frames: &FrameColumns) -> (FrameColumns, Vec<u32>) {
    let mut rest = frames.clone();
    let vectors = [std::mem::take(&mut rest.acc), std::mem::take(&mut rest.gyro), std::mem::take(&mut rest.angle)];
    let canonical = |value: f32| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() };
    (rest, vectors.into_iter().flatten().flatten().map(canonical).collect())
}

#[test]
fn a_sealed_session_is_sorted_described_and_read_back() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let frames = session(5, 1);
    let manifest = seal(&paths, &frames);
    assert_eq!(manifest.path.to_string(), "frames/date=2026-11-23/42.parquet");
    assert_eq!((manifest.rows, manifest.revision), (4000, 1));
    assert_eq!(manifest.t_min_ns, frames.t_ns.iter().min().copied());
    assert_eq!(manifest.t_max_ns, frames.t_ns.iter().max().copied());
    let file = paths.file(manifest.path);
    assert_eq!(publish::sha256_of(&file).unwrap(), (manifest.bytes, manifest.sha256));

    let reader = SerializedFileReader::new(File::open(&file).unwrap()).unwrap();
    assert_eq!(reader.num_row_groups(), 4);
    let sensors: Vec<_> = (0..4)
        .map(|group| {
            let group = reader.metadata().row_group(group).clone();
            assert_eq!(group.sorting_columns().unwrap().len(), 3);
            match group.column(1).statistics().unwrap() {
                Statistics::ByteArray(bounds) => {
                    assert_eq!(bounds.min_opt(), bounds.max_opt(), "one sensor a row group");
                    bounds.min_opt().unwrap().as_utf8().unwrap().to_owned()
                }
                other => panic!("{other:?}"),
            }
        })
        .collect();
    assert_eq!(sensors, ["racket", "shoulder", "waist", "wrist"]);
    let described = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let value = |key: &str| described.iter().find(|entry| entry.key == key).unwrap().value.clone().unwrap();
    assert_eq!((value("volant.session_id"), value("volant.revision")), ("42".to_owned(), "1".to_owned()));
    assert_eq!((value("volant.table"), value("volant.version")), ("frames".to_owned(), "1".to_owned()));

    assert_eq!(comparable(&read_frames(&opened(&file)).unwrap()), comparable(&frames));
    let track = read_track(&opened(&file)).unwrap();
    assert_eq!((track.len(), track.sync_error_ns), (4000, 1_500_000));
    for (role, samples) in track.iter() {
        let rows: Vec<_> = (0..frames.len()).filter(|&row| frames.role(row) == role).collect();
        assert_eq!(samples.t_ns, rows.iter().map(|&row| frames.t_ns[row]).collect::<Vec<_>>());
        assert_eq!(samples.gyro, rows.iter().map(|&row| frames.gyro[row]).collect::<Vec<_>>());
    }
}

#[test]
fn the_layout_of_the_file_is_as_published() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let manifest = seal(&paths, &session(1, 1));
    let reader = SerializedFileReader::new(File::open(paths.file(manifest.path)).unwrap()).unwrap();
    let columns: Vec<_> = reader
        .metadata()
        .row_group(0)
        .columns()
        .iter()
        .map(|column| {
            let mut encodings: Vec<_> = column.encodings().map(|encoding| encoding.to_string()).collect();
            encodings.sort();
            format!("{} {} {}", column.column_path(), column.column_type(), encodings.join("+"))
        })
        .collect();
    insta::assert_snapshot!(columns.join("\n"));
}

#[test]
fn measured_values_are_dictionaries_where_they_repeat_and_bytes_split_where_they_do_not() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let mut frames = session(60, 1);
    // Steps of a converter, but the wrist's were computed by a filter: no two are alike. Zeros of both signs stay apart.
    let mut random = ChaCha8Rng::seed_from_u64(9);
    for row in 0..frames.len() {
        if frames.role(row) == SensorRole::Wrist {
            frames.acc[row] = frames.acc[row].map(|value| value + random.random::<f32>() * 1e-3);
        } else if row % 7 == 0 {
            frames.acc[row] = [-0.0, 0.0, f32::NAN];
        } else {
            frames.acc[row] = frames.acc[row].map(|value| value * 9.80665);
        }
    }
    let manifest = seal(&paths, &frames);
    let file = paths.file(manifest.path);
    let reader = SerializedFileReader::new(File::open(&file).unwrap()).unwrap();
    let is_dictionary = |group: usize, name: &str| {
        let group = reader.metadata().row_group(group);
        let column = group.columns().iter().find(|column| column.column_path().string() == name).unwrap();
        column.encodings().any(|encoding| encoding == Encoding::RLE_DICTIONARY)
    };
    // Racket, shoulder, waist, wrist.
    assert_eq!([0, 1, 2, 3].map(|group| is_dictionary(group, "acc_x")), [true, true, true, false]);
    assert_eq!([0, 1, 2, 3].map(|group| is_dictionary(group, "angle_x")), [true; 4]);
    assert_eq!(comparable(&read_frames(&opened(&file)).unwrap()), comparable(&frames));
}

#[test]
fn where_nobody_waits_the_same_frames_take_fewer_bytes() {
    let frames = session(60, 1);
    let (quick, small) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (quick, small) = (Paths::new(quick.path()), Paths::new(small.path()));
    let (as_ever, fewer) = (
        seal(&quick, &frames),
        write_frames_small(&small, SessionId(42), STARTED_AT_US, 1, &frames, factor, &[]).unwrap(),
    );
    assert!(100 * fewer.bytes < 96 * as_ever.bytes, "{} {}", fewer.bytes, as_ever.bytes);
    let read = |paths: &Paths, path| comparable(&read_frames(&opened(&paths.file(path))).unwrap());
    assert_eq!(read(&small, fewer.path), read(&quick, as_ever.path));
}

#[test]
fn sealing_twice_changes_nothing_and_a_new_revision_replaces() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let frames = session(2, 1);
    let first = seal(&paths, &frames);
    let bytes = fs::read(paths.file(first.path)).unwrap();
    assert_eq!(seal(&paths, &frames), first);
    assert_eq!(fs::read(paths.file(first.path)).unwrap(), bytes);

    let mut more = frames.clone();
    more.extend_from(&session(1, 2));
    let second = write_frames(&paths, SessionId(42), STARTED_AT_US, 2, &more, factor, &[]).unwrap();
    assert_eq!((second.path, second.rows, second.revision), (first.path, 2400, 2));
    assert_eq!(comparable(&read_frames(&opened(&paths.file(first.path))).unwrap()), comparable(&more));
    let names: Vec<_> = publish::entries(paths.file(first.path).parent().unwrap()).unwrap();
    assert_eq!(names, [paths.file(first.path)], "nothing temporary stays");
}

#[test]
fn an_empty_session_is_an_empty_file() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let manifest = seal(&paths, &FrameColumns::default());
    assert_eq!((manifest.rows, manifest.t_min_ns), (0, None));
    let file = paths.file(manifest.path);
    assert!(read_frames(&opened(&file)).unwrap().is_empty());
    assert!(read_track(&opened(&file)).unwrap().is_empty());
}

#[test]
fn ragged_columns_are_refused_and_leave_nothing() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let mut frames = session(1, 1);
    frames.flags.pop();
    let error = write_frames(&paths, SessionId(42), STARTED_AT_US, 1, &frames, factor, &[]).unwrap_err();
    assert!(matches!(error, Error::Rows { .. }), "{error:?}");
    assert!(publish::entries(dir.path()).unwrap().is_empty());
}

#[test]
fn a_file_that_reads_back_otherwise_is_not_published() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let path = TablePath::new(Table::Frames, SessionId(1), STARTED_AT_US);
    let frames = session(1, 1);
    let order = sorted_rows(&frames);
    let groups: Vec<&[usize]> = order.iter().map(Vec::as_slice).filter(|rows| !rows.is_empty()).collect();
    let source = Source {
        session_id: SessionId(1),
        frames: &frames,
        factors: vec![None; 256],
        terms: &Terms::new(Effort::Quick),
    };
    let compression = Effort::Quick.compression();
    let properties = publish::properties(&frames_schema(), path, STARTED_AT_US, 1, &[], compression);
    let unpublished = publish::publish(&paths, path, |file, _| {
        source.write(file, properties.clone(), &groups).unwrap();
        Ok(())
    });
    let expected = Checksums::new(19);
    let refused =
        unpublished.unwrap().verified(1, frames.len() as u64, None, |file| Ok(group_sums(file)?.contains(&expected)));
    assert!(matches!(refused, Err(Error::Verify { what: "the values", .. })), "{refused:?}");
    let unpublished = publish::publish(&paths, path, |file, _| {
        source.write(file, properties, &groups[1..]).unwrap();
        Ok(())
    });
    let refused = unpublished.unwrap().verified(1, frames.len() as u64, None, |_| Ok(true));
    assert!(matches!(refused, Err(Error::Verify { what: "the number of rows", .. })), "{refused:?}");
    assert!(publish::entries(paths.file(path).parent().unwrap()).unwrap().is_empty());
}

/// Pieces without nulls are summed another way.
#[test]
fn sums_are_of_the_texts_and_where_each_ends_whatever_the_batches() {
    let batch = |texts: [Option<&str>; 5]| {
        let texts: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        RecordBatch::try_from_iter_with_nullable([("texts", texts, true)]).unwrap()
    };
    let sums = |batches: &[RecordBatch]| {
        let mut sums = Checksums::new(1);
        for batch in batches {
            sums.add(batch);
        }
        sums
    };
    let whole = batch([Some("waist"), Some(""), None, Some("wrist"), Some("racket")]);
    let expected = sums(std::slice::from_ref(&whole));
    for cut in 0..=5 {
        assert_eq!(sums(&[whole.slice(0, cut), whole.slice(cut, 5 - cut)]), expected, "{cut}");
    }
    for other in [
        [Some("waist"), Some(""), None, Some("wrisT"), Some("racket")],
        [Some("waist"), Some(""), None, Some("wristr"), Some("acket")],
        [Some("waist"), None, Some(""), Some("wrist"), Some("racket")],
        [Some("waist"), Some(""), Some(""), Some("wrist"), Some("racket")],
    ] {
        assert_ne!(sums(&[batch(other)]), expected);
    }
    let without = batch([Some("a"), Some("bc"), Some(""), Some("d"), Some("e")]);
    assert_eq!(sums(&[without.slice(0, 2), without.slice(2, 3)]), sums(std::slice::from_ref(&without)));
    assert_ne!(sums(&[batch([Some("ab"), Some("c"), Some(""), Some("d"), Some("e")])]), sums(&[without]));
}

#[test]
fn what_a_crash_left_is_removed_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    assert_eq!(remove_unfinished(&paths).unwrap(), 0);
    let manifest = seal(&paths, &session(1, 1));
    let file = paths.file(manifest.path);
    fs::write(file.with_file_name("_42.parquet.0.tmp"), "half").unwrap();
    fs::write(file.with_file_name("_mine.txt"), "a file of somebody's").unwrap();
    // A leftover does not stand in the way of the next seal either.
    assert_eq!(seal(&paths, &session(1, 1)), manifest);
    for on_its_way in [paths.incoming().join("file-1"), paths.unpacked()] {
        fs::create_dir_all(&on_its_way).unwrap();
        fs::write(on_its_way.join("frames.parquet"), "half").unwrap();
    }
    assert_eq!(remove_unfinished(&paths).unwrap(), 4, "and the file that was replaced");
    assert!(!paths.incoming().exists() && !paths.unpacked().exists());
    assert_eq!(publish::entries(file.parent().unwrap()).unwrap().len(), 2);
}

#[test]
fn a_cut_foreign_or_newer_file_is_an_error_and_no_panic() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let manifest = seal(&paths, &session(1, 1));
    let file = paths.file(manifest.path);
    let bytes = fs::read(&file).unwrap();
    let broken = dir.path().join("broken.parquet");
    for cut in (0..bytes.len()).step_by(997) {
        fs::write(&broken, &bytes[..cut]).unwrap();
        read_frames(&opened(&broken)).unwrap_err();
        read_track(&opened(&broken)).unwrap_err();
    }
    for at in (0..bytes.len()).step_by(487) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        fs::write(&broken, &flipped).unwrap();
        // Not every flip can be seen without the manifest's sum; none may panic.
        drop(read_frames(&opened(&broken)));
        drop(read_track(&opened(&broken)));
    }
    assert!(matches!(TableFile::open(&dir.path().join("absent")), Err(Error::Io { .. })));

    let strokes = super::super::results::write_strokes(&paths, SessionId(42), STARTED_AT_US, &[]).unwrap();
    assert!(matches!(read_frames(&opened(&paths.file(strokes.path))), Err(Error::Foreign { .. })));

    let newer = [("volant.version".to_owned(), "2".to_owned())];
    let path = TablePath::new(Table::Frames, SessionId(9), STARTED_AT_US);
    let schema = frames_schema();
    let future = std::sync::Arc::new(arrow::datatypes::Schema::new_with_metadata(
        schema.fields().clone(),
        newer.into_iter().collect(),
    ));
    let batch = session(1, 1).to_batch(SessionId(9), 0, &[0, 1], factor);
    let batch = RecordBatch::try_new(future.clone(), batch.columns().to_vec()).unwrap();
    let properties = publish::properties(&future, path, STARTED_AT_US, 1, &[], Effort::Quick.compression()).build();
    publish::publish_batch(&paths, path, properties, 1, &batch).unwrap();
    assert!(matches!(read_frames(&opened(&paths.file(path))), Err(Error::Newer { version: 2, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Any order of arrival, any values, nulls, equal times: the columns come back, and rows are sorted.
    #[test]
    fn any_frames_come_back(rows in proptest::collection::vec(
        (0i32..6, any::<Option<i32>>(), -5i64..5, 0u8..6, any::<[[f32; 3]; 3]>()), 0..60,
    )) {
        let mut frames = FrameColumns::default();
        for (sensor_id, raw, t_ns, clock, values) in rows {
            frames.push_decoded(sensor_id, SensorRole::from_wire_id(i64::from(sensor_id)), raw.map(i64::from), values);
            let row = frames.len() - 1;
            frames.t_ns[row] = t_ns;
            frames.clock[row] = clock;
            frames.received_at_us[row] = t_ns * 3;
            frames.flags[row] |= FrameFlags::LATE;
        }
        let dir = TempDir::new().unwrap();
        let paths = Paths::new(dir.path());
        let manifest = seal(&paths, &frames);
        let file = paths.file(manifest.path);
        prop_assert_eq!(comparable(&read_frames(&opened(&file)).unwrap()), comparable(&frames));
        let known = frames.sensor.iter().filter(|&&sensor| sensor != 0).count();
        let track = read_track(&opened(&file)).unwrap();
        let left_out: usize = track.iter().map(|(_, samples)| samples.untimed).sum();
        prop_assert_eq!(track.len() + left_out, known);
        // As the recording's own track, which is of the same frames in memory.
        for (role, samples) in track.iter() {
            let of_sensor = (0..frames.len()).filter(|&row| frames.role(row) == role);
            let untimed = of_sensor.clone().filter(|&row| frames.is_untimed(row)).count();
            let expected = if 2 * untimed < of_sensor.count() { untimed } else { 0 };
            prop_assert_eq!(samples.untimed, expected);
        }
    }
}

/// Speed and size on the machine at hand: `cargo nextest run --run-ignored only -E 'test(seal_speed)' --no-capture`.
#[test]
#[ignore = "a measurement, not a check"]
fn seal_speed() {
    let frames = session(600, 1);
    let dir = TempDir::new_in(std::env::current_dir().unwrap()).unwrap();
    let paths = Paths::new(dir.path());
    for _ in 0..3 {
        let started = std::time::Instant::now();
        let manifest = seal(&paths, &frames);
        let sealed = started.elapsed();
        let started = std::time::Instant::now();
        let track = read_track(&opened(&paths.file(manifest.path))).unwrap();
        println!(
            "seal {} rows: {sealed:?}, {:.1} bytes a row; track of {} samples read in {:?}",
            manifest.rows,
            manifest.bytes as f64 / manifest.rows as f64,
            track.len(),
            started.elapsed()
        );
    }
}

#[test]
fn a_file_gets_smaller_once_and_says_whose_place_it_took() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let frames = session(25, 7);
    let metadata = [(KEY_DEVICE_CODE.to_owned(), "d1".to_owned()), (KEY_SYNC_ERROR_NS.to_owned(), "1500".to_owned())];
    let sealed = write_frames(&paths, SessionId(1), STARTED_AT_US, 3, &frames, factor, &metadata).unwrap();
    let path = sealed.path;
    let smaller = |sum: &str| make_smaller(&paths, path, sum, &|| true);
    let small = smaller(&sealed.sha256).unwrap().unwrap();
    assert!(small.bytes < sealed.bytes && small.sha256 != sealed.sha256, "{small:?} {sealed:?}");
    assert_eq!((small.revision, small.rows), (3, 20_000));
    let file = pack::locate(&paths, path).unwrap();
    assert_eq!(file.sha256().unwrap(), (small.bytes, small.sha256.clone()));
    assert_eq!(comparable(&read_frames(&file).unwrap()), comparable(&frames));
    assert_eq!(super::metadata(&file).unwrap(), metadata);
    assert!(acc_factors(&file).unwrap().iter().all(|(&sensor, &found)| found == factor(sensor)));

    // Asked again, by the new sum or, after a crash, by the old one: it is there.
    for sum in [&small.sha256, &sealed.sha256] {
        let there = smaller(sum).unwrap().unwrap();
        assert_eq!((there.bytes, &there.sha256), (small.bytes, &small.sha256));
    }
    // A catalog that has the old sum has nothing lost, one of another revision or sum has.
    let lost = |expected: Expected| {
        let report = audit(&paths, &[expected], |_| {}).unwrap();
        (report.lost.len(), report.newer_files)
    };
    let known = Expected::from(&sealed);
    assert_eq!(lost(known.clone()), (0, 1));
    assert_eq!(lost(Expected { sha256: Some("0".repeat(64)), ..known.clone() }), (1, 0));
    assert_eq!(lost(Expected { revision: Some(4), ..known }), (1, 0));
    assert!(matches!(smaller(&"0".repeat(64)), Err(Error::Changed { .. })));
}

#[test]
fn a_file_that_is_given_up_half_way_stays_as_it_was() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let sealed = write_frames(&paths, SessionId(1), STARTED_AT_US, 1, &session(1, 7), |_| None, &[]).unwrap();
    assert_eq!(make_smaller(&paths, sealed.path, &sealed.sha256, &|| false).unwrap(), None);
    assert_eq!(pack::locate(&paths, sealed.path).unwrap().sha256().unwrap(), (sealed.bytes, sealed.sha256));
    let folder = paths.folder(sealed.path);
    assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "nothing is left of it");
}

#[test]
fn a_file_that_would_not_become_smaller_stays() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let mut frames = FrameColumns::default();
    frames.push_decoded(4, SensorRole::Racket, None, [[1.0; 3]; 3]);
    let sealed = write_frames(&paths, SessionId(1), STARTED_AT_US, 1, &frames, |_| None, &[]).unwrap();
    let there = make_smaller(&paths, sealed.path, &sealed.sha256, &|| true).unwrap().unwrap();
    assert_eq!((there.bytes, &there.sha256), (sealed.bytes, &sealed.sha256));
    assert_eq!(fs::read_dir(paths.folder(sealed.path)).unwrap().count(), 1, "nothing is left of the try");
    assert!(!paths.swap().exists());
}

#[test]
fn a_file_that_is_packed_meanwhile_stays_in_its_pack() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let sealed = [1, 2]
        .map(|number| write_frames(&paths, SessionId(number), STARTED_AT_US, 1, &session(25, 7), factor, &[]).unwrap());
    let folder = paths.folder(sealed[0].path);
    let pack_it = || {
        swap::pack_day(&paths, Table::Frames, &folder, &swap::Sizes::default(), false, &|| true).unwrap();
        true
    };
    let is_as_it_was = |made: Option<Manifest>| {
        let file = pack::locate(&paths, sealed[0].path).unwrap();
        assert!(file.is_packed());
        assert_eq!(file.sha256().unwrap(), (sealed[0].bytes, sealed[0].sha256.clone()));
        assert_eq!(made.unwrap().sha256, sealed[0].sha256);
    };
    is_as_it_was(make_smaller(&paths, sealed[0].path, &sealed[0].sha256, &pack_it).unwrap());
    is_as_it_was(make_smaller(&paths, sealed[0].path, &sealed[0].sha256, &|| true).unwrap());
}
