//! A session as MCAP: a channel of JSON messages a sensor, one of strokes, the session's own facts as metadata.
//!
//! `log_time` and `publish_time` are ns since 1970 UTC: the session's start plus `t_ns`. Where a folder does not know when
//! the session started, the time counts from 1970. Nothing of a frame is left out: what MCAP's time cannot say exactly (the
//! device's own clock, the arrival) is in the message.

use std::collections::BTreeMap;
use std::io::Cursor;

use arrow::array::{Array as _, Float32Array, RecordBatch};
use mcap::records::{MessageHeader, Metadata};
use mcap::{Compression, WriteOptions};
use serde::Serialize;

use super::{Columns, Failure};

const IMU_SCHEMA: &str = include_str!("imu.schema.json");
const STROKE_SCHEMA: &str = include_str!("stroke.schema.json");

#[derive(Serialize)]
struct Vector {
    x: Option<f32>,
    y: Option<f32>,
    z: Option<f32>,
}

#[derive(Serialize)]
struct Imu<'a> {
    seq: i64,
    t_ns: i64,
    acc: Vector,
    acc_to_mps2: Option<f32>,
    gyro_dps: Vector,
    angle_deg: Vector,
    sensor_id: Option<i32>,
    device_time_raw: Option<i64>,
    received_at_us: i64,
    clock: &'a str,
    flags: i32,
}

fn vector(axes: [&Float32Array; 3], row: usize) -> Vector {
    let [x, y, z] = axes.map(|axis| axis.is_valid(row).then(|| axis.value(row)));
    Vector { x, y, z }
}

pub(super) fn write(
    session: i64,
    about: &[RecordBatch],
    frames: &[RecordBatch],
    strokes: &[RecordBatch],
) -> Result<Vec<u8>, Failure> {
    let mut writer = WriteOptions::new()
        .profile("volant")
        .library(concat!("volant ", env!("CARGO_PKG_VERSION")))
        .compression(Some(Compression::Zstd))
        // On the thread that it is called on.
        .compression_threads(0)
        .create(Cursor::new(Vec::new()))?;
    let about = about.iter().find(|batch| batch.num_rows() > 0);
    let mut facts = BTreeMap::from([("session_id".to_owned(), session.to_string())]);
    let mut started_at_us = 0;
    if let Some(about) = about {
        let columns = Columns(about);
        started_at_us = columns.longs("started_at_us")?.value(0);
        facts.insert("started_at_us".to_owned(), started_at_us.to_string());
        facts.insert("device_code".to_owned(), columns.texts("device_code")?.value(0).to_owned());
        let user = columns.longs("user_id")?;
        if user.is_valid(0) {
            facts.insert("user_id".to_owned(), user.value(0).to_string());
        }
    }
    writer.write_metadata(&Metadata { name: "volant.session".to_owned(), metadata: facts })?;
    let at = |t_ns: i64| u64::try_from(started_at_us.saturating_mul(1000).saturating_add(t_ns)).unwrap_or(0);

    let imu = writer.add_schema("volant.Imu", "jsonschema", IMU_SCHEMA.as_bytes())?;
    let mut channels = BTreeMap::new();
    let mut sequence = 0u32;
    let mut message = Vec::new();
    for batch in frames {
        let columns = Columns(batch);
        let (seq, t_ns, received) = (columns.longs("seq")?, columns.longs("t_ns")?, columns.longs("received_at_us")?);
        let (raw, factor) = (columns.longs("device_time_raw")?, columns.floats("acc_to_mps2")?);
        let (sensor_id, flags) = (columns.ints("sensor_id")?, columns.ints("flags")?);
        let [acc, gyro, angle] = [columns.axes("acc")?, columns.axes("gyro")?, columns.axes("angle")?];
        let (sensors, clocks) = (columns.texts("sensor")?, columns.texts("clock")?);
        for row in 0..batch.num_rows() {
            let sensor = sensors.value(row);
            let channel = match channels.get(sensor) {
                Some(&channel) => channel,
                None => {
                    let about = BTreeMap::from([("sensor".to_owned(), sensor.to_owned())]);
                    let made = writer.add_channel(imu, &format!("/imu/{sensor}"), "json", &about)?;
                    channels.insert(sensor.to_owned(), made);
                    made
                }
            };
            message.clear();
            let frame = Imu {
                seq: seq.value(row),
                t_ns: t_ns.value(row),
                acc: vector(acc, row),
                acc_to_mps2: factor.is_valid(row).then(|| factor.value(row)),
                gyro_dps: vector(gyro, row),
                angle_deg: vector(angle, row),
                sensor_id: sensor_id.is_valid(row).then(|| sensor_id.value(row)),
                device_time_raw: raw.is_valid(row).then(|| raw.value(row)),
                received_at_us: received.value(row),
                clock: clocks.value(row),
                flags: flags.value(row),
            };
            serde_json::to_writer(&mut message, &frame)?;
            let time = at(t_ns.value(row));
            let header = MessageHeader { channel_id: channel, sequence, log_time: time, publish_time: time };
            writer.write_to_known_channel(&header, &message)?;
            sequence = sequence.wrapping_add(1);
        }
    }

    if strokes.iter().any(|batch| batch.num_rows() > 0) {
        let schema = writer.add_schema("volant.Stroke", "jsonschema", STROKE_SCHEMA.as_bytes())?;
        let channel = writer.add_channel(schema, "/strokes", "json", &BTreeMap::new())?;
        for batch in strokes {
            let impacts = Columns(batch).longs("impact_ns")?;
            let lines = json_lines(batch)?;
            for (row, line) in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
                let time = at(impacts.value(row));
                let header = MessageHeader { channel_id: channel, sequence, log_time: time, publish_time: time };
                writer.write_to_known_channel(&header, line)?;
                sequence = sequence.wrapping_add(1);
            }
        }
    }
    writer.finish()?;
    Ok(writer.into_inner().into_inner())
}

fn json_lines(batch: &RecordBatch) -> Result<Vec<u8>, Failure> {
    let mut writer = arrow::json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}
