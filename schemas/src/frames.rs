//! Frames in columns: the one in-memory shape from the decoder to the write-ahead log, the live tables and Parquet.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, Float32Array, Int32Array, Int64Array, PrimitiveArray, RecordBatch, StringArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type, Int64Type, Schema, SchemaRef};

use crate::tables::{column, table_schema};
use crate::{SensorRole, SessionId};

/// Version of the `frames` table, in the schema metadata under `volant.version`.
pub const FRAMES_VERSION: u32 = 1;

/// How a frame's `device_time_raw` was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ClockKind {
    /// The frame carried no time; `t_ns` comes from its arrival.
    Arrival = 0,
    /// Time of day HHMMSSmmm in UTC+8, of a calibrated device.
    TimeOfDay = 1,
    /// A counter of milliseconds with unknown zero (sensor or board uptime).
    Counter = 2,
    /// Unix milliseconds.
    UnixMs = 3,
    /// Bit fields hour<<20, minute<<14, second<<7, low seven bits of the milliseconds.
    BitField = 4,
    /// The raw value did not fit its neighbours; `t_ns` was interpolated from them.
    Outlier = 5,
}

impl ClockKind {
    /// The name in the `clock` column.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Arrival => "arrival",
            Self::TimeOfDay => "time_of_day",
            Self::Counter => "counter",
            Self::UnixMs => "unix_ms",
            Self::BitField => "bit_field",
            Self::Outlier => "outlier",
        }
    }

    /// The inverse of `kind as u8`; unknown bytes read as [`ClockKind::Arrival`].
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::TimeOfDay,
            2 => Self::Counter,
            3 => Self::UnixMs,
            4 => Self::BitField,
            5 => Self::Outlier,
            _ => Self::Arrival,
        }
    }
}

/// Bits of the `flags` column. 0 is a frame without remark.
pub struct FrameFlags;

impl FrameFlags {
    /// A component of `acc` was null or not finite.
    pub const ACC_NULL: i32 = 1;
    /// A component of `gyro` was null or not finite.
    pub const GYRO_NULL: i32 = 1 << 1;
    /// A component of `angle` was null or not finite.
    pub const ANGLE_NULL: i32 = 1 << 2;
    /// All of `acc` is exactly zero: the firmware's mark for a bad acceleration.
    pub const ACC_ZEROED: i32 = 1 << 3;
    /// Arrived after `upload_complete`.
    pub const LATE: i32 = 1 << 4;
}

/// `device_time_raw` of a frame that carried no time.
pub const NO_DEVICE_TIME: i64 = i64::MIN;

/// Frames as columns. All vectors have the same length; row order is arrival order.
///
/// Missing or non-finite components are NaN here and null in Arrow. Values stand as sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FrameColumns {
    /// `sensor_id` as sent; 0 if the frame had none.
    pub sensor_id: Vec<i32>,
    /// Where the sensor is worn.
    pub sensor: Vec<u8>,
    /// Frame time as sent, [`NO_DEVICE_TIME`] if absent.
    pub device_time_raw: Vec<i64>,
    /// Time since session start on the corrected device clock, ns. Filled by `ingest`.
    pub t_ns: Vec<i64>,
    /// [`ClockKind`] as a byte. Filled by `ingest`.
    pub clock: Vec<u8>,
    /// Wall clock of the server when the packet arrived, µs since 1970 UTC. Filled by `ingest`.
    pub received_at_us: Vec<i64>,
    /// Specific force as sent (g or m/s²), x, y, z.
    pub acc: Vec<[f32; 3]>,
    /// Angular velocity as sent (°/s), x, y, z.
    pub gyro: Vec<[f32; 3]>,
    /// Angles as sent (°): roll, pitch, yaw.
    pub angle: Vec<[f32; 3]>,
    /// Bits of [`FrameFlags`].
    pub flags: Vec<i32>,
}

impl FrameColumns {
    /// Empty columns with room for `capacity` frames.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            sensor_id: Vec::with_capacity(capacity),
            sensor: Vec::with_capacity(capacity),
            device_time_raw: Vec::with_capacity(capacity),
            t_ns: Vec::with_capacity(capacity),
            clock: Vec::with_capacity(capacity),
            received_at_us: Vec::with_capacity(capacity),
            acc: Vec::with_capacity(capacity),
            gyro: Vec::with_capacity(capacity),
            angle: Vec::with_capacity(capacity),
            flags: Vec::with_capacity(capacity),
        }
    }

    /// Number of frames.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sensor.len()
    }

    /// True without frames.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sensor.is_empty()
    }

    /// Adds a decoded frame; the columns that `ingest` fills get neutral values. Sets the null flags from the values.
    pub fn push_decoded(
        &mut self,
        sensor_id: i32,
        sensor: SensorRole,
        device_time_raw: Option<i64>,
        [acc, gyro, angle]: [[f32; 3]; 3],
    ) {
        let mut flags = 0;
        for (values, flag) in
            [(acc, FrameFlags::ACC_NULL), (gyro, FrameFlags::GYRO_NULL), (angle, FrameFlags::ANGLE_NULL)]
        {
            if values.iter().any(|value| value.is_nan()) {
                flags |= flag;
            }
        }
        if acc.iter().all(|&value| value == 0.0) {
            flags |= FrameFlags::ACC_ZEROED;
        }
        self.sensor_id.push(sensor_id);
        self.sensor.push(sensor.to_byte());
        self.device_time_raw.push(device_time_raw.unwrap_or(NO_DEVICE_TIME));
        self.t_ns.push(0);
        self.clock.push(ClockKind::Arrival as u8);
        self.received_at_us.push(0);
        self.acc.push(acc);
        self.gyro.push(gyro);
        self.angle.push(angle);
        self.flags.push(flags);
    }

    /// Appends all frames of `other`.
    pub fn extend_from(&mut self, other: &Self) {
        self.sensor_id.extend_from_slice(&other.sensor_id);
        self.sensor.extend_from_slice(&other.sensor);
        self.device_time_raw.extend_from_slice(&other.device_time_raw);
        self.t_ns.extend_from_slice(&other.t_ns);
        self.clock.extend_from_slice(&other.clock);
        self.received_at_us.extend_from_slice(&other.received_at_us);
        self.acc.extend_from_slice(&other.acc);
        self.gyro.extend_from_slice(&other.gyro);
        self.angle.extend_from_slice(&other.angle);
        self.flags.extend_from_slice(&other.flags);
    }

    /// A copy of the frames in `rows`, in that order.
    #[must_use]
    pub fn gather(&self, rows: impl Iterator<Item = usize> + Clone) -> Self {
        fn pick<T: Copy>(values: &[T], rows: impl Iterator<Item = usize>) -> Vec<T> {
            rows.map(|row| values[row]).collect()
        }
        Self {
            sensor_id: pick(&self.sensor_id, rows.clone()),
            sensor: pick(&self.sensor, rows.clone()),
            device_time_raw: pick(&self.device_time_raw, rows.clone()),
            t_ns: pick(&self.t_ns, rows.clone()),
            clock: pick(&self.clock, rows.clone()),
            received_at_us: pick(&self.received_at_us, rows.clone()),
            acc: pick(&self.acc, rows.clone()),
            gyro: pick(&self.gyro, rows.clone()),
            angle: pick(&self.angle, rows.clone()),
            flags: pick(&self.flags, rows),
        }
    }

    /// The role of frame `row`.
    #[must_use]
    pub fn role(&self, row: usize) -> SensorRole {
        SensorRole::from_wire_id(i64::from(self.sensor[row]))
    }

    /// True if frame `row` carried no time of its own: its `t_ns` is when it arrived.
    #[must_use]
    pub fn is_untimed(&self, row: usize) -> bool {
        self.clock[row] == ClockKind::Arrival as u8
    }

    /// The rows `order` (indices into these columns) as a batch of [`frames_schema`].
    ///
    /// `first_seq` is the sequence number of row 0; row `i` has `first_seq + i`, whatever `order` says.
    /// `acc_to_mps2` gives, by sensor byte, the factor that turns `acc` into m/s²; `None` while undecided.
    #[must_use]
    pub fn to_batch(
        &self,
        session_id: SessionId,
        first_seq: i64,
        order: &[usize],
        acc_to_mps2: impl Fn(u8) -> Option<f32>,
    ) -> RecordBatch {
        // All three axes at a time: they lie side by side in memory.
        let axes = |values: &[[f32; 3]]| -> [ArrayRef; 3] {
            let mut axes = [(); 3].map(|()| Vec::with_capacity(order.len()));
            for &row in order {
                for (axis, value) in axes.iter_mut().zip(values[row]) {
                    axis.push(value);
                }
            }
            axes.map(|axis| -> ArrayRef { Arc::new(with_nulls::<Float32Type>(axis, f32::is_nan)) })
        };
        let [acc_x, acc_y, acc_z] = axes(&self.acc);
        let [gyro_x, gyro_y, gyro_z] = axes(&self.gyro);
        let [angle_x, angle_y, angle_z] = axes(&self.angle);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_value(session_id.get(), order.len())),
            Arc::new(StringArray::from_iter_values(order.iter().map(|&row| self.role(row).as_str()))),
            Arc::new(Int64Array::from_iter_values(order.iter().map(|&row| self.t_ns[row]))),
            Arc::new(with_nulls::<Int64Type>(order.iter().map(|&row| self.device_time_raw[row]).collect(), |raw| {
                raw == NO_DEVICE_TIME
            })),
            Arc::new(Int64Array::from_iter_values(order.iter().map(|&row| self.received_at_us[row]))),
            acc_x,
            acc_y,
            acc_z,
            gyro_x,
            gyro_y,
            gyro_z,
            angle_x,
            angle_y,
            angle_z,
            Arc::new(order.iter().map(|&row| acc_to_mps2(self.sensor[row])).collect::<Float32Array>()),
            Arc::new(with_nulls::<Int32Type>(order.iter().map(|&row| self.sensor_id[row]).collect(), |id| id == 0)),
            Arc::new(Int64Array::from_iter_values(order.iter().map(|&row| first_seq + row as i64))),
            Arc::new(StringArray::from_iter_values(
                order.iter().map(|&row| ClockKind::from_byte(self.clock[row]).as_str()),
            )),
            Arc::new(Int32Array::from_iter_values(order.iter().map(|&row| self.flags[row]))),
        ];
        RecordBatch::try_new(frames_schema(), columns).expect("columns are built from the schema's own field list")
    }
}

/// An array of these values, some of which stand for null. Nearly always none does, and the values are taken as they are.
fn with_nulls<T: ArrowPrimitiveType>(
    mut values: Vec<T::Native>,
    is_null: impl Fn(T::Native) -> bool,
) -> PrimitiveArray<T> {
    let nulls = values.iter().any(|&value| is_null(value)).then(|| {
        let nulls: NullBuffer = values.iter().map(|&value| !is_null(value)).collect();
        for value in values.iter_mut().filter(|value| is_null(**value)) {
            *value = T::Native::default();
        }
        nulls
    });
    PrimitiveArray::new(values.into(), nulls)
}

/// The `frames` table: one row a sensor sample, as stored and as SQL shows it (SQL adds the partition column `date`).
#[must_use]
pub fn frames_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let raw = |name: &str, what: &str| column(name, DataType::Float32, true, what);
        table_schema(
            "frames",
            FRAMES_VERSION,
            vec![
                column("session_id", DataType::Int64, false, "session the frame belongs to"),
                column("sensor", DataType::Utf8, false, "waist, shoulder, wrist, racket or unknown"),
                column("t_ns", DataType::Int64, false, "ns since session start, corrected device clock"),
                column("device_time_raw", DataType::Int64, true, "frame time exactly as sent; null: none was sent"),
                column("received_at_us", DataType::Int64, false, "µs since 1970 UTC when the packet arrived"),
                raw("acc_x", "specific force x as sent (g or m/s²); times acc_to_mps2 = m/s²; null: not finite"),
                raw("acc_y", "specific force y as sent (g or m/s²); times acc_to_mps2 = m/s²; null: not finite"),
                raw("acc_z", "specific force z as sent (g or m/s²); times acc_to_mps2 = m/s²; null: not finite"),
                raw("gyro_x", "angular velocity x, °/s; null: not finite"),
                raw("gyro_y", "angular velocity y, °/s; null: not finite"),
                raw("gyro_z", "angular velocity z, °/s; null: not finite"),
                raw("angle_x", "roll of the device's own filter, °; null: not sent"),
                raw("angle_y", "pitch of the device's own filter, °; null: not sent"),
                raw("angle_z", "yaw of the device's own filter, °; null: not sent"),
                raw("acc_to_mps2", "1 if acc is in m/s², 9.80665 if in g; null: not decided"),
                column("sensor_id", DataType::Int32, true, "sensor_id as sent; null: none was sent"),
                column("seq", DataType::Int64, false, "arrival order within the session, from 0"),
                column(
                    "clock",
                    DataType::Utf8,
                    false,
                    "how device_time_raw was read: time_of_day, counter, unix_ms, bit_field, outlier, arrival",
                ),
                column(
                    "flags",
                    DataType::Int32,
                    false,
                    "bits: 1 acc null, 2 gyro null, 4 angle null, 8 acc all zero, 16 late",
                ),
            ],
        )
    });
    Arc::clone(&SCHEMA)
}

/// The field of `frames` that a name stands for, for readers that build projections.
#[must_use]
pub fn frames_field(name: &str) -> Option<Field> {
    let schema: &Schema = &frames_schema();
    schema.field_with_name(name).ok().cloned()
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;

    use super::*;

    #[test]
    fn a_batch_keeps_values_order_and_nulls() {
        let mut frames = FrameColumns::with_capacity(2);
        frames.push_decoded(4, SensorRole::Racket, Some(703_000), [[1.0, 2.0, 3.0], [4.0, f32::NAN, 6.0], [7.0; 3]]);
        frames.push_decoded(0, SensorRole::Waist, None, [[0.0; 3], [1.0; 3], [2.0; 3]]);
        assert_eq!(frames.flags, vec![FrameFlags::GYRO_NULL, FrameFlags::ACC_ZEROED]);

        let batch = frames.to_batch(SessionId(7), 100, &[1, 0], |sensor| (sensor == 4).then_some(1.0));
        let column = |name: &str| batch.column_by_name(name).unwrap();
        assert!(column("device_time_raw").is_null(0) && column("device_time_raw").is_valid(1));
        assert!(column("gyro_y").is_valid(0) && column("gyro_y").is_null(1));
        assert!(column("acc_to_mps2").is_null(0) && column("acc_to_mps2").is_valid(1));
        assert!(column("sensor_id").is_null(0));
        let seq = column("seq").as_any().downcast_ref::<Int64Array>().unwrap();
        assert_eq!(seq.values(), &[101, 100]);
    }
}
