//! A session as a MATLAB level 5 file: plain matrices, so that `load` gives variables and nothing has to be unpacked.
//!
//! Of each sensor `NAME`: `NAME_t_ns` (int64, n×1, since session start), `NAME_seq` (int64), `NAME_acc` (single, n×3, as
//! sent, gravity included), `NAME_acc_to_mps2` (single, n×1), `NAME_gyro_dps`, `NAME_angle_deg` (single, n×3),
//! `NAME_device_time_raw`, `NAME_received_at_us` (int64), `NAME_flags` (int32). Of the strokes: `stroke_start_ns`,
//! `stroke_impact_ns`, `stroke_end_ns` (int64), `stroke_confidence` (double), `stroke_name` (char, padded with blanks).
//! Scalars: `session_id`, and where they are known `started_at_us`, `user_id`, `device_code`. A missing float is NaN, a missing
//! `device_time_raw` is `intmin('int64')`.
//!
//! The format: MathWorks, "MAT-File Format", level 5. Every element is a tag (type, bytes) and data padded to eight bytes;
//! a matrix is an element that holds its flags, dimensions, name and values, in columns.

use std::collections::BTreeMap;
use std::io::Write as _;

use arrow::array::{Array as _, Float32Array, RecordBatch};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use schemas::frames::NO_DEVICE_TIME;

use super::{Columns, Failure};

// Types of data elements.
const MI_INT8: u32 = 1;
const MI_UINT16: u32 = 4;
const MI_INT32: u32 = 5;
const MI_UINT32: u32 = 6;
const MI_SINGLE: u32 = 7;
const MI_DOUBLE: u32 = 9;
const MI_INT64: u32 = 12;
const MI_MATRIX: u32 = 14;
const MI_COMPRESSED: u32 = 15;

// Classes of matrices.
const MX_CHAR: u32 = 4;
const MX_DOUBLE: u32 = 6;
const MX_SINGLE: u32 = 7;
const MX_INT32: u32 = 12;
const MX_INT64: u32 = 14;

/// The text that a file begins with, without the time, so that the same data make the same bytes.
const HEADER: &str = "MATLAB 5.0 MAT-file, written by Volant";
const HEADER_TEXT_BYTES: usize = 116;

#[derive(Default)]
struct Sensor {
    t_ns: Vec<i64>,
    seq: Vec<i64>,
    device_time_raw: Vec<i64>,
    received_at_us: Vec<i64>,
    flags: Vec<i32>,
    acc_to_mps2: Vec<f32>,
    acc: [Vec<f32>; 3],
    gyro: [Vec<f32>; 3],
    angle: [Vec<f32>; 3],
}

pub(super) fn write(
    session: i64,
    about: &[RecordBatch],
    frames: &[RecordBatch],
    strokes: &[RecordBatch],
) -> Result<Vec<u8>, Failure> {
    let mut file = File::new();
    file.int64("session_id", &[session])?;
    if let Some(about) = about.iter().find(|batch| batch.num_rows() > 0) {
        let columns = Columns(about);
        file.int64("started_at_us", &[columns.longs("started_at_us")?.value(0)])?;
        file.text("device_code", &[columns.texts("device_code")?.value(0)])?;
        let user = columns.longs("user_id")?;
        if user.is_valid(0) {
            file.int64("user_id", &[user.value(0)])?;
        }
    }
    for (name, sensor) in sensors(frames)? {
        file.int64(&format!("{name}_t_ns"), &sensor.t_ns)?;
        file.int64(&format!("{name}_seq"), &sensor.seq)?;
        file.int64(&format!("{name}_device_time_raw"), &sensor.device_time_raw)?;
        file.int64(&format!("{name}_received_at_us"), &sensor.received_at_us)?;
        file.int32(&format!("{name}_flags"), &sensor.flags)?;
        file.single(&format!("{name}_acc_to_mps2"), &[&sensor.acc_to_mps2])?;
        for (what, axes) in [("acc", &sensor.acc), ("gyro_dps", &sensor.gyro), ("angle_deg", &sensor.angle)] {
            let [x, y, z] = axes;
            file.single(&format!("{name}_{what}"), &[x, y, z])?;
        }
    }
    let mut times: [Vec<i64>; 3] = Default::default();
    let (mut confidence, mut names) = (Vec::new(), Vec::new());
    for batch in strokes {
        for (times, name) in times.iter_mut().zip(["start_ns", "impact_ns", "end_ns"]) {
            times.extend(Columns(batch).longs(name)?.values());
        }
        let values = Columns(batch).doubles("confidence")?;
        confidence.extend(values.iter().map(|value| value.unwrap_or(f64::NAN)));
        names.extend(Columns(batch).texts("stroke")?.iter().flatten());
    }
    for (times, name) in times.iter().zip(["stroke_start_ns", "stroke_impact_ns", "stroke_end_ns"]) {
        file.int64(name, times)?;
    }
    file.double("stroke_confidence", &confidence)?;
    file.text("stroke_name", &names)?;
    Ok(file.bytes)
}

fn sensors(frames: &[RecordBatch]) -> Result<BTreeMap<String, Sensor>, Failure> {
    let mut sensors: BTreeMap<String, Sensor> = BTreeMap::new();
    for batch in frames {
        let columns = Columns(batch);
        let names = columns.texts("sensor")?;
        let (t_ns, seq, received) = (columns.longs("t_ns")?, columns.longs("seq")?, columns.longs("received_at_us")?);
        let (raw, factor) = (columns.longs("device_time_raw")?, columns.floats("acc_to_mps2")?);
        let flags = columns.ints("flags")?;
        let [acc, gyro, angle] = [columns.axes("acc")?, columns.axes("gyro")?, columns.axes("angle")?];
        let value = |axis: &Float32Array, row| if axis.is_valid(row) { axis.value(row) } else { f32::NAN };
        for row in 0..batch.num_rows() {
            let sensor = sensors.entry(names.value(row).to_owned()).or_default();
            sensor.t_ns.push(t_ns.value(row));
            sensor.seq.push(seq.value(row));
            sensor.received_at_us.push(received.value(row));
            sensor.device_time_raw.push(if raw.is_valid(row) { raw.value(row) } else { NO_DEVICE_TIME });
            sensor.flags.push(flags.value(row));
            sensor.acc_to_mps2.push(value(factor, row));
            for (to, from) in [(&mut sensor.acc, &acc), (&mut sensor.gyro, &gyro), (&mut sensor.angle, &angle)] {
                for (to, from) in to.iter_mut().zip(from) {
                    to.push(value(from, row));
                }
            }
        }
    }
    Ok(sensors)
}

/// A file that grows by a variable at a time.
struct File {
    bytes: Vec<u8>,
}

impl File {
    fn new() -> Self {
        let mut bytes = format!("{HEADER:HEADER_TEXT_BYTES$}").into_bytes();
        // No subsystem data; version 1.0; "MI" read in the order of the machine that wrote: little-endian.
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&0x0100_u16.to_le_bytes());
        bytes.extend_from_slice(b"IM");
        Self { bytes }
    }

    fn int64(&mut self, name: &str, values: &[i64]) -> Result<(), Failure> {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.matrix(name, MX_INT64, [values.len(), 1], MI_INT64, &data)
    }

    fn int32(&mut self, name: &str, values: &[i32]) -> Result<(), Failure> {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.matrix(name, MX_INT32, [values.len(), 1], MI_INT32, &data)
    }

    fn double(&mut self, name: &str, values: &[f64]) -> Result<(), Failure> {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.matrix(name, MX_DOUBLE, [values.len(), 1], MI_DOUBLE, &data)
    }

    fn single(&mut self, name: &str, columns: &[&Vec<f32>]) -> Result<(), Failure> {
        let rows = columns.first().map_or(0, |column| column.len());
        let data: Vec<u8> =
            columns.iter().flat_map(|column| column.iter()).flat_map(|value| value.to_le_bytes()).collect();
        self.matrix(name, MX_SINGLE, [rows, columns.len()], MI_SINGLE, &data)
    }

    /// Texts as rows of a matrix of characters, the shorter ones filled up with blanks.
    fn text(&mut self, name: &str, texts: &[&str]) -> Result<(), Failure> {
        let units: Vec<Vec<u16>> = texts.iter().map(|text| text.encode_utf16().collect()).collect();
        let width = units.iter().map(Vec::len).max().unwrap_or(0);
        let mut data = Vec::with_capacity(width * units.len() * 2);
        for place in 0..width {
            for text in &units {
                data.extend_from_slice(&text.get(place).copied().unwrap_or(u16::from(b' ')).to_le_bytes());
            }
        }
        self.matrix(name, MX_CHAR, [units.len(), width], MI_UINT16, &data)
    }

    fn matrix(
        &mut self,
        name: &str,
        class: u32,
        [rows, columns]: [usize; 2],
        data_type: u32,
        data: &[u8],
    ) -> Result<(), Failure> {
        let mut body = Vec::with_capacity(data.len() + 128);
        element(&mut body, MI_UINT32, &[class.to_le_bytes(), [0; 4]].concat())?;
        let dimensions = [i32::try_from(rows)?.to_le_bytes(), i32::try_from(columns)?.to_le_bytes()].concat();
        element(&mut body, MI_INT32, &dimensions)?;
        element(&mut body, MI_INT8, name.as_bytes())?;
        element(&mut body, data_type, data)?;
        let mut matrix = Vec::with_capacity(body.len() + 8);
        element(&mut matrix, MI_MATRIX, &body)?;
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&matrix)?;
        let packed = packed.finish()?;
        // Compressed elements are the one kind that is not padded.
        self.bytes.extend_from_slice(&MI_COMPRESSED.to_le_bytes());
        self.bytes.extend_from_slice(&u32::try_from(packed.len())?.to_le_bytes());
        self.bytes.extend_from_slice(&packed);
        Ok(())
    }
}

/// Tag, data, padding to eight bytes.
fn element(to: &mut Vec<u8>, data_type: u32, data: &[u8]) -> Result<(), Failure> {
    to.extend_from_slice(&data_type.to_le_bytes());
    to.extend_from_slice(&u32::try_from(data.len())?.to_le_bytes());
    to.extend_from_slice(data);
    to.resize(to.len().next_multiple_of(8), 0);
    Ok(())
}
