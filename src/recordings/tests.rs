use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, LargeStringArray, RecordBatch, TimestampMicrosecondArray,
    UInt16Array,
};
use parquet::arrow::ArrowWriter;
use pipelines::synth::{SynthSpec, generate};
use proptest::prelude::*;
use schemas::{SensorRole, SensorTrack, Track};
use tempfile::TempDir;

use super::labels::look_over;
use super::read::read_recording_up_to;
use super::*;

const HEADER: &str = "sensor,t_ms,ax,ay,az,gx,gy,gz";

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn csv(&self, lines: &[&str]) -> PathBuf {
        self.file("r.csv", &lines.join("\n"))
    }
}

fn parquet_file(folder: &Folder, columns: Vec<(&str, ArrayRef)>) -> PathBuf {
    let path = folder.0.path().join("made.parquet");
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path
}

fn float(values: &[f64]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

/// The whole text of an error with its causes.
fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[test]
fn a_small_csv_is_read_as_it_stands() {
    let folder = Folder::new();
    let path = folder.csv(&[HEADER, "wrist,0,1,2,3,4,5,6", "racket,10.5,,nan,NULL,-4e0,inf,6", ""]);
    let [recording] = &read_recording(&path).unwrap()[..] else { panic!("one recording") };
    assert_eq!((&*recording.name, recording.unsorted), ("r", 0));
    let wrist = recording.track.get(SensorRole::Wrist).unwrap();
    assert_eq!((wrist.t_ns[0], wrist.acc[0], wrist.gyro[0]), (0, [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]));
    assert!(wrist.angle[0].iter().all(|angle| angle.is_nan()));
    let racket = recording.track.get(SensorRole::Racket).unwrap();
    assert_eq!(racket.t_ns, [10_500_000]);
    assert!(racket.acc[0].iter().all(|value| value.is_nan()));
    assert_eq!(format!("{:?}", racket.gyro[0]), "[-4.0, NaN, 6.0]");
}

#[test]
fn other_spellings_of_the_same_file_are_read_too() {
    let folder = Folder::new();
    let plain = read_recording(&folder.csv(&["t_ms,ax,ay,az,gx,gy,gz", "5,1,2,3,4,5,6"])).unwrap();
    assert_eq!(plain[0].track.iter().map(|(role, _)| role).collect::<Vec<_>>(), [DEFAULT_SENSOR]);
    for content in [
        "\u{feff}T_ms;aX;ay;az;gx;gy;gz\r\n5;1;2;3;4;5;6\r\n",
        "\"gz\", \"gy\",gx,az,ay,ax,comment,t_ms\n6,5,4,3,2,1,\"a, b\",5",
        "t_ms\tax\tay\taz\tgx\tgy\tgz\n5\t1\t2\t3\t4\t5\t6",
    ] {
        let same = read_recording(&folder.file("r.csv", content)).unwrap();
        assert_eq!(format!("{same:?}"), format!("{plain:?}"), "{content:?}");
    }
}

#[test]
fn parquet_types_do_not_matter_as_long_as_they_are_numbers() {
    let folder = Folder::new();
    let path = parquet_file(
        &folder,
        vec![
            ("recording", Arc::new(LargeStringArray::from(vec!["a", "b"]))),
            ("sensor", Arc::new(LargeStringArray::from(vec!["waist", "Shoulder"]))),
            ("t_ms", Arc::new(Int32Array::from(vec![7, 8]))),
            ("ax", Arc::new(UInt16Array::from(vec![1, 2]))),
            ("ay", float(&[0.5, f64::INFINITY])),
            ("az", float(&[0.0; 2])),
            ("gx", Arc::new(Int32Array::from(vec![Some(3), None]))),
            ("gy", float(&[0.0; 2])),
            ("gz", float(&[0.0; 2])),
            ("unrelated", Arc::new(BooleanArray::from(vec![true, false]))),
        ],
    );
    let recordings = read_recording(&path).unwrap();
    assert_eq!(recordings.iter().map(|recording| &*recording.name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(recordings[0].track.get(SensorRole::Waist).unwrap().acc, [[1.0, 0.5, 0.0]]);
    let shoulder = recordings[1].track.get(SensorRole::Shoulder).unwrap();
    assert_eq!(shoulder.t_ns, [8_000_000]);
    assert!(shoulder.acc[0][1].is_nan() && shoulder.gyro[0][0].is_nan());
}

#[test]
fn rows_out_of_order_are_sorted_and_counted() {
    let folder = Folder::new();
    let rows = ["wrist,0,0,0,0,0,0,0", "wrist,30,3,0,0,0,0,0", "wrist,10,1,0,0,0,0,0", "wrist,20,2,0,0,0,0,0"];
    let path = folder.csv(&[&[HEADER][..], &rows, &["racket,5,9,0,0,0,0,0"]].concat());
    let recording = &read_recording(&path).unwrap()[0];
    assert_eq!(recording.unsorted, 2);
    let wrist = recording.track.get(SensorRole::Wrist).unwrap();
    assert!(wrist.t_ns.is_sorted());
    assert_eq!(wrist.acc.iter().map(|acc| acc[0]).collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn numbers_have_a_decimal_comma_only_between_semicolons() {
    let folder = Folder::new();
    let read = |text: &str| read_recording(&folder.file("r.csv", text));
    let header = "t_ms;ax;ay;az;gx;gy;gz\n";
    let recording = &read(&format!("{header}0;0,5;-9,81;1e1;2,5e1;3.25;,5\n10;1;2;3;4;5;\n")).unwrap()[0];
    let wrist = recording.track.get(SensorRole::Wrist).unwrap();
    assert_eq!((wrist.acc[0], wrist.gyro[0]), ([0.5, -9.81, 10.0], [25.0, 3.25, 0.5]));
    assert_eq!((wrist.acc[1], wrist.gyro[1][2].is_nan()), ([1.0, 2.0, 3.0], true));
    for (text, bad) in [
        // Who knows which of them ends the whole number.
        (format!("{header}0;1.234,5;0;0;0;0;0\n"), "1.234,5"),
        (format!("{header}0;1,234,5;0;0;0;0;0\n"), "1,234,5"),
        (format!("{}0,\"0,5\",0,0,0,0,0\n", header.replace(';', ",")), "0,5"),
        (format!("{}0\t0,5\t0\t0\t0\t0\t0\n", header.replace(';', "\t")), "0,5"),
    ] {
        let error = read(&text).unwrap_err();
        assert!(matches!(&error, Error::Number { text, row: 1, .. } if text == bad), "{error:?}");
    }
}

#[test]
fn every_error_names_what_is_wrong_and_where() {
    let folder = Folder::new();
    let rows = |rows: &[&str]| folder.csv(&[&[HEADER], rows].concat());
    let fails = |path: PathBuf, parts: &[&str]| {
        let error = read_recording(&path).unwrap_err();
        let text = text(&error);
        for part in parts.iter().chain([&path.file_name().unwrap().to_str().unwrap()]) {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
        error
    };
    let good = "wrist,0,1,2,3,4,5,6";
    assert!(matches!(fails(folder.0.path().join("no.csv"), &[]), Error::Read { .. }));
    assert!(matches!(fails(folder.file("r.bin", "hello"), &[]), Error::Format { .. }));
    assert!(matches!(fails(folder.file("r.parquet", "PAR1 but no more"), &[]), Error::Parquet { .. }));
    assert!(matches!(fails(folder.file("empty.parquet", ""), &[]), Error::Parquet { .. }));
    assert!(matches!(fails(folder.file("r.csv", ""), &["t_ms"]), Error::MissingColumns { .. }));
    let error = fails(folder.csv(&["t_ms,ax,ay,gx,gy,gz"]), &["az", "t_ms, ax, ay"]);
    assert!(matches!(error, Error::MissingColumns { missing, .. } if missing == ["az"]));
    assert!(matches!(fails(rows(&[]), &[]), Error::Empty { .. }));
    assert!(matches!(fails(rows(&[good, "wrist,1,x7,0,0,0,0,0"]), &["x7", "ax", "row 2"]), Error::Number { .. }));
    assert!(matches!(fails(rows(&[good, good, "wrist,,0,0,0,0,0,0"]), &["t_ms", "row 3"]), Error::Time { .. }));
    assert!(matches!(fails(rows(&["wrist,1e300,0,0,0,0,0,0"]), &["row 1"]), Error::Time { .. }));
    assert!(matches!(fails(rows(&[good, "ankle,1,0,0,0,0,0,0"]), &["ankle", "row 2"]), Error::Sensor { .. }));
    assert!(matches!(fails(rows(&[good, "wrist,1,0"]), &[]), Error::Rows { .. }));

    let zero = || float(&[0.0]);
    let mut columns: Vec<(&str, ArrayRef)> = ["t_ms", "ay", "az", "gx", "gy", "gz"].map(|name| (name, zero())).into();
    columns.push(("ax", Arc::new(BooleanArray::from(vec![true]))));
    assert!(matches!(fails(parquet_file(&folder, columns.clone()), &["ax", "Boolean"]), Error::ColumnType { .. }));
    columns[6].1 = zero();
    columns.push(("sensor", zero()));
    assert!(matches!(fails(parquet_file(&folder, columns), &["sensor", "Float64"]), Error::ColumnType { .. }));

    let error = read_recording_up_to(&rows(&[good, good, good]), 2).unwrap_err();
    assert!(matches!(error, Error::TooLong { limit: 2, .. }));
    assert!(matches!(write_recording(&folder.0.path().join("r.txt"), &[]), Err(Error::Format { .. })));
    assert!(matches!(write_recording(&folder.0.path().join("no/r.csv"), &[]), Err(Error::Write { .. })));
}

#[test]
fn a_damaged_parquet_page_is_an_error_and_no_panic() {
    let folder = Folder::new();
    let path = parquet_file(
        &folder,
        ["t_ms", "ax", "ay", "az", "gx", "gy", "gz"].map(|name| (name, float(&[1.0; 500]))).into(),
    );
    let whole = fs::read(&path).unwrap();
    for cut in (4..whole.len() - 1).step_by(97) {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(matches!(read_recording(&path), Err(Error::Parquet { .. } | Error::Rows { .. })), "cut at {cut}");
    }
}

#[test]
fn a_set_is_samples_and_labels() {
    let folder = Folder::new();
    folder.file("samples.csv", &format!("recording,{HEADER}\nA,wrist,0,1,2,3,4,5,6\nB,wrist,0,1,2,3,4,5,6\n"));
    let labels =
        "recording,player,start_ms,peak_ms,end_ms,stroke,quality\nA,p,1.5,2,3,smash,clear\nB,q,0,1,2,\"a,b\",cut\n";
    folder.file("labels.csv", labels);
    let set = read_set(folder.0.path()).unwrap();
    assert_eq!(set.recordings.len(), 2);
    let expected = Label {
        recording: "A".into(),
        player: "p".into(),
        start_ms: 1.5,
        peak_ms: 2.0,
        end_ms: 3.0,
        stroke: "smash".into(),
        quality: "clear".into(),
    };
    assert_eq!(set.labels[0], expected);
    assert!(set.labels[0].counts() && !set.labels[1].counts());

    write_labels(&folder.0.path().join("labels.csv"), &set.labels).unwrap();
    assert_eq!(read_set(folder.0.path()).unwrap().labels, set.labels);

    folder.file("labels.csv", &labels.replace("B,q", "C,q"));
    let error = read_set(folder.0.path()).unwrap_err();
    assert!(matches!(&error, Error::LabelRecording { name, row: 2, .. } if name == "C"), "{error}");
    folder.file("labels.csv", &labels.replace("1.5", "soon"));
    assert!(text(&read_set(folder.0.path()).unwrap_err()).contains("start_ms, row 1"));
    folder.file("labels.csv", "recording\n");
    assert!(matches!(read_set(folder.0.path()), Err(Error::MissingColumns { .. })));
}

#[test]
fn times_since_1970_are_counted_from_the_first_and_say_when_a_recording_began() {
    let folder = Folder::new();
    let rows = "A,wrist,1764496800000.5,1,2,3,4,5,6\nA,wrist,1764496800010.5,1,2,3,4,5,6\nB,wrist,5,1,2,3,4,5,6\n";
    folder.file("samples.csv", &format!("recording,{HEADER}\n{rows}"));
    let labels = "recording,player,start_ms,peak_ms,end_ms,stroke,quality\n\
                  A,p,1764496800002.5,1764496800004.5,1764496800006.5,smash,clear\nB,p,5,5,6,smash,clear\n";
    folder.file("labels.csv", labels);
    let RecordingSet { recordings, labels } = read_set(folder.0.path()).unwrap();
    let times = |recording: &Recording| recording.track.get(SensorRole::Wrist).unwrap().t_ns.clone();
    assert_eq!(times(&recordings[0]), [0, 10_000_000]);
    assert_eq!(recordings[0].started_at_us, Some(1_764_496_800_000_500));
    assert_eq!((times(&recordings[1]), recordings[1].started_at_us), (vec![5_000_000], None), "as it is");
    assert_eq!(labels[0].start_ms..labels[0].end_ms, 2.0..6.0);
    assert_eq!(labels[1].start_ms..labels[1].end_ms, 5.0..6.0);
    let mixed = folder.file("mixed.csv", &format!("recording,{HEADER}\n{rows}A,wrist,5,1,2,3,4,5,6\n"));
    assert!(text(&read_recording(&mixed).unwrap_err()).contains("row 4"));

    let mapping = |unit: &str| {
        let columns = "[accel]\ncolumns = [\"x\", \"x\", \"x\"]\nunit = \"g\"\n[gyro]\ncolumns = [\"x\", \"x\", \"x\"]\nunit = \"deg/s\"\n";
        let mapping = format!("[time]\ncolumn = \"At\"\nunit = \"{unit}\"\n{columns}");
        Mapping::read(&folder.file("mapping.toml", &mapping)).unwrap()
    };
    let phone = "At,x\n2026-11-30T10:00:00.125+08:00,1\n2026-11-30 02:00:00.135,1\n";
    let phone = folder.file("phone.csv", phone);
    let began_us = Some(1_796_004_000_125_000);
    let [recording] = read_mapped(&phone, &mapping("datetime")).unwrap().try_into().unwrap();
    assert_eq!((times(&recording), recording.started_at_us), (vec![0, 10_000_000], began_us));
    assert!(text(&read_mapped(&phone, &mapping("s")).unwrap_err()).contains("as a number in column At, row 1"));
    let odd = folder.file("odd.csv", "At,x\n2026-11-30 02:00:00,1\nat noon,1\n");
    assert!(
        text(&read_mapped(&odd, &mapping("datetime")).unwrap_err())
            .contains("\"at noon\" as a date and time in column At, row 2")
    );
    let numbers = folder.file("numbers.csv", "At,x\n1796004000.125,1\n1796004000.135,1\n");
    let [recording] = read_mapped(&numbers, &mapping("s")).unwrap().try_into().unwrap();
    assert_eq!(recording.started_at_us, began_us);
    let stamps = TimestampMicrosecondArray::from(vec![1_796_004_000_125_000, 1_796_004_000_135_000]);
    let columns =
        vec![("At", Arc::new(stamps) as ArrayRef), ("x", Arc::new(Float64Array::from(vec![1.0, 1.0])) as ArrayRef)];
    let parquet = parquet_file(&folder, columns);
    let [recording] = read_mapped(&parquet, &mapping("datetime")).unwrap().try_into().unwrap();
    assert_eq!((times(&recording), recording.started_at_us), (vec![0, 10_000_000], began_us));
}

#[test]
fn labels_that_cannot_be_meant_are_told_and_do_not_count_wrongly() {
    let folder = Folder::new();
    folder.file("samples.csv", &format!("recording,{HEADER}\nA,wrist,0,1,2,3,4,5,6\nA,wrist,9,1,2,3,4,5,6\n"));
    let good = "A,p,1.5,2,3,smash,clear\n";
    let odd =
        format!("{good}A,p,1.5,2,3,drop,clear\nA,p,8,7,6,smash,clear\nA,p,20,21,22,smash,clear\nA,p,4,5,6,lift,good\n");
    let header = "recording,player,start_ms,peak_ms,end_ms,stroke,quality\n";
    folder.file("labels.csv", &format!("{header}{good}{odd}"));
    let mut set = read_set(folder.0.path()).unwrap();
    let strokes: Vec<&str> = set.labels.iter().map(|label| &*label.stroke).collect();
    assert_eq!(strokes, ["smash", "drop", "smash", "smash", "lift"], "two names for a swing are no repetition");
    let backwards = &set.labels[2];
    assert!(
        backwards.start_ms.is_nan() && backwards.end_ms.is_nan() && (7.0..=7.0).contains(&backwards.peak_ms),
        "{backwards:?}"
    );
    let odd = Label { end_ms: 1.0, ..set.labels[0].clone() };
    set.labels.extend([set.labels[0].clone(), odd]);
    let remarks = look_over(&set.recordings, &mut set.labels).join("\n");
    for told in ["1 labels end before", "1 labels repeat", "1 labels begin after", "quality \"good\" do not count"] {
        assert!(remarks.contains(told), "{told}: {remarks}");
    }
    assert_eq!(set.labels.len(), 6);
    assert!(look_over(&set.recordings, &mut set.labels[..2].to_vec()).is_empty());
}

#[test]
fn a_generated_session_survives_both_formats_with_its_labels() {
    let folder = Folder::new();
    let session = generate(&SynthSpec { duration_s: 15.0, ..SynthSpec::new(3) });
    let written = Recording { name: "made".into(), track: session.track, ..Recording::default() };
    for name in ["samples.csv", "samples.parquet"] {
        let path = folder.0.path().join(name);
        write_recording(&path, std::slice::from_ref(&written)).unwrap();
        let read = read_recording(&path).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!((&read[0].name, read[0].unsorted), (&written.name, 0));
        for (role, track) in written.track.iter() {
            // Times are ms as floats in between: half a nanosecond is not kept.
            let again = read[0].track.get(role).unwrap();
            assert!(track.t_ns.iter().zip(&again.t_ns).all(|(a, b)| (a - b).abs() <= 1), "{name}");
            assert_eq!((&track.acc, &track.gyro, &track.angle), (&again.acc, &again.gyro, &again.angle), "{name}");
        }
    }
    write_truth(&folder.0.path().join("labels.csv"), "made", "p1", &session.truth).unwrap();
    let set = read_set(folder.0.path()).unwrap();
    assert_eq!(set.labels.len(), session.truth.strokes.len());
    for (label, stroke) in set.labels.iter().zip(&session.truth.strokes) {
        assert_eq!(label.stroke, stroke.kind.as_str());
        assert!((label.peak_ms - stroke.impact_ms).abs() < 1e-3);
    }
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(
        rows in prop::collection::vec((0_u8..4, 0_i64..1_000_000, prop::array::uniform9(any::<f32>())), 1..60),
        parquet in any::<bool>(),
    ) {
        let mut track = Track::default();
        for (place, t_ms, v) in rows {
            let sensor = track.sensors[usize::from(place)].get_or_insert_with(SensorTrack::default);
            let v = v.map(|value| if value.is_finite() { value } else { f32::NAN });
            sensor.push(t_ms * 1_000_000, [v[0], v[1], v[2]], [v[3], v[4], v[5]], [v[6], v[7], v[8]]);
        }
        let folder = Folder::new();
        let path = folder.0.path().join(if parquet { "r.parquet" } else { "r.csv" });
        let written = Recording { name: "r".into(), track, ..Recording::default() };
        write_recording(&path, std::slice::from_ref(&written)).unwrap();
        let read = read_recording(&path).unwrap().remove(0);
        for (place, sensor) in written.track.sensors.iter().enumerate() {
            let Some(sensor) = sensor else { prop_assert!(read.track.sensors[place].is_none()); continue };
            let mut order: Vec<usize> = (0..sensor.len()).collect();
            order.sort_by_key(|&row| sensor.t_ns[row]);
            let read = read.track.sensors[place].as_ref().unwrap();
            for (at, row) in order.into_iter().enumerate() {
                prop_assert_eq!(read.t_ns[at], sensor.t_ns[row]);
                // As text, because NaN is not equal to itself.
                let values = |track: &SensorTrack, row| format!("{:?}", (track.acc[row], track.gyro[row], track.angle[row]));
                prop_assert_eq!(values(read, at), values(sensor, row));
            }
        }
    }
}

/// A section of two strokes as the data set's watch writes them: 100 Hz, the gyroscope 3 ms behind the accelerometer.
fn section(first_ms: f64) -> serde_json::Value {
    let stroke = |start: f64, action: &str| {
        let times: Vec<f64> = (0..200).map(|row| start + f64::from(row) * 10.0).collect();
        let axis = |scale: f64| times.iter().map(|time| (time - first_ms) * scale).collect::<Vec<_>>();
        let gyro_times: Vec<f64> = times.iter().map(|time| time + 3.0).collect();
        let gyro = |scale: f64| gyro_times.iter().map(|time| (time - first_ms) * scale).collect::<Vec<_>>();
        serde_json::json!({
            "info": { "recordName": "Man_Low_ForehandKill_P7_1_1", "gender": "Male", "exp": "Low", "section": "1",
                "startTimestamp": start, "endTimestamp": start + 2000.0 },
            "label": { "positionX": 0.1, "positionY": 0.5, "actionType": action, "actionEval": 3.5 },
            "data": {
                "ACCELEROMETER": { "timestamp": times, "Gx": axis(0.001), "Gy": axis(0.002), "Gz": axis(0.003) },
                "GYROSCOPE": { "timestamp": gyro_times, "angularSpeedX": gyro(0.001), "angularSpeedY": gyro(0.0),
                    "angularSpeedZ": gyro(-0.001) },
                "AUDIO": { "timestamp": [start], "values": [0.25] }
            },
            "interData": null
        })
    };
    let mut thrown_out = stroke(first_ms + 3000.0, "ForehandKill");
    thrown_out["data"] = serde_json::Value::Null;
    serde_json::json!([stroke(first_ms + 6000.0, "ForehandHigh"), thrown_out, stroke(first_ms, "ForehandKill")])
}

#[test]
fn the_badminsense_layout_is_a_recording_a_section() {
    let first_ms = 1_750_000_000_000.0;
    let folder = Folder::new();
    let inside = folder.0.path().join("Man_Low_ForehandKill_P7_1_1");
    fs::create_dir(&inside).unwrap();
    let file = inside.join("Man_Low_ForehandKill_P7_1_1.json");
    fs::write(&file, section(first_ms).to_string()).unwrap();
    fs::write(inside.join("Man_Low_ForehandKill_P7_1_1@0.gif"), "GIF89a").unwrap();
    let set = read_set(folder.0.path()).unwrap();
    // As text: not a number equals itself there.
    let told = |recordings: &[Recording]| format!("{recordings:?}");
    assert_eq!(told(&read_set(&file).unwrap().recordings), told(&set.recordings));
    assert_eq!(told(&read_recording(&file).unwrap()), told(&set.recordings));
    assert_eq!(set.recordings.len(), 1);
    let recording = &set.recordings[0];
    assert_eq!(recording.started_at_us, Some(1_750_000_000_000_000));
    let wrist = recording.track.get(SensorRole::Wrist).unwrap();
    assert_eq!((wrist.len(), recording.unsorted), (400, 0));
    assert_eq!((wrist.t_ns[1], wrist.t_ns[200]), (10_000_000, 6_000_000_000));
    // Row 50 is 500 ms after the first: its gyroscope lies between samples 3 ms after and 7 ms before.
    assert_eq!(format!("{:?}", wrist.acc[50]), "[0.5, 1.0, 1.5]");
    let [x, y, z] = wrist.gyro[50].map(f64::from);
    assert!((x - 0.5f64.to_degrees()).abs() < 1e-4 && y.abs() < 1e-9 && (z + 0.5f64.to_degrees()).abs() < 1e-4);
    assert!(wrist.gyro[0][0].is_nan(), "before the gyroscope's first sample nothing is known");
    let labels: Vec<_> =
        set.labels.iter().map(|label| format!("{} of {} at {}", label.stroke, label.player, label.peak_ms)).collect();
    assert_eq!(labels, ["smash of P7 at 1000", "clear of P7 at 7000"]);
    assert!(set.labels.iter().all(Label::counts));

    // With capitals, one stroke alone, and times of another clock.
    let mut one = section(first_ms)[2].clone();
    for (member, name) in [("info", "Info"), ("label", "Label"), ("data", "Data")] {
        let value = one.as_object_mut().unwrap().remove(member).unwrap();
        one[name] = value;
    }
    for sensor in ["ACCELEROMETER", "GYROSCOPE"] {
        for time in one["Data"][sensor]["timestamp"].as_array_mut().unwrap() {
            *time = serde_json::json!(time.as_f64().unwrap() - first_ms + 77_000.0);
        }
    }
    let alone = read_set(&folder.file("one.json", &one.to_string())).unwrap();
    assert_eq!(alone.recordings[0].started_at_us, Some(1_750_000_000_000_000));
    let wrist = alone.recordings[0].track.get(SensorRole::Wrist).unwrap();
    assert_eq!(format!("{:?}", wrist.acc[50]), "[0.5, 1.0, 1.5]");
}

#[test]
fn what_is_wrong_in_badminsense_files_is_named() {
    let folder = Folder::new();
    let first_ms = 1_750_000_000_000.0;
    let wrong = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut section = section(first_ms);
        change(&mut section);
        text(&read_set(&folder.file("wrong.json", &section.to_string())).unwrap_err())
    };
    let uneven = wrong(&|section| drop(section[0]["data"]["GYROSCOPE"]["angularSpeedY"].as_array_mut().unwrap().pop()));
    assert!(uneven.contains("stroke 0: GYROSCOPE has arrays of different length"), "{uneven}");
    let missing = wrong(&|section| drop(section[2]["label"].as_object_mut().unwrap().remove("actionType")));
    assert!(missing.contains("actionType") && missing.contains("line"), "{missing}");
    let far = wrong(&|section| section[0]["info"]["startTimestamp"] = serde_json::json!(first_ms * 2.0));
    assert!(far.contains("place a sample at time"), "{far}");
    assert!(text(&read_set(&folder.file("wrong.json", "{\"a\": 1}")).unwrap_err()).contains("BadminSense"));
    assert!(text(&read_set(&folder.file("wrong.json", "[1")).unwrap_err()).contains("BadminSense"));
    let copy = section(first_ms).to_string();
    folder.file("wrong.json", &copy);
    folder.file("same.json", &copy);
    assert!(text(&read_set(folder.0.path()).unwrap_err()).contains("a second file of the record"));
}
