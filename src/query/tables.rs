//! Schemas of the tables that exist only in SQL, and the columns of `frames_si`.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;
use schemas::tables::{column, table_schema};

use super::source::{DeviceRow, SessionRow};

/// Version of the `sessions` and `devices` tables.
const VERSION: u32 = 1;

/// The partition column of the stored tables.
pub(super) const DATE: &str = "date";

pub(super) fn date_field() -> Field {
    column(DATE, DataType::Date32, false, "UTC day under which the session is stored")
}

/// The `sessions` table: one row a recording session.
#[must_use]
pub fn sessions_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        table_schema(
            "sessions",
            VERSION,
            vec![
                column("session_id", DataType::Int64, false, "number of the session"),
                column("device_code", DataType::Utf8, false, "device that records it"),
                column("group_code", DataType::Utf8, false, "device group it was started for"),
                column("user_id", DataType::Int64, true, "player; null: no known player"),
                column(
                    "status",
                    DataType::Utf8,
                    false,
                    "calibrating, collecting, stopping, analyzing, completed or stopped",
                ),
                column("started_at_us", DataType::Int64, false, "µs since 1970 UTC"),
                column("ended_at_us", DataType::Int64, true, "µs since 1970 UTC; null: still open"),
                column("frame_count", DataType::Int64, false, "frames on disk"),
                column("revision", DataType::Int32, false, "how often its file was made, 0: not yet"),
                column("sealed", DataType::Boolean, false, "true: frames are read from a file, false: from the log"),
            ],
        )
    });
    Arc::clone(&SCHEMA)
}

/// The `devices` table: one row a device that was ever seen.
#[must_use]
pub fn devices_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        table_schema(
            "devices",
            VERSION,
            vec![
                column("device_code", DataType::Utf8, false, "code of the device"),
                column("first_seen_us", DataType::Int64, true, "first frame, µs since 1970 UTC; null: none yet"),
                column("last_seen_us", DataType::Int64, true, "last frame, µs since 1970 UTC; null: none yet"),
                column("frame_count", DataType::Int64, false, "frames on disk"),
                column("connected", DataType::Boolean, false, "true while a socket of the device is open"),
            ],
        )
    });
    Arc::clone(&SCHEMA)
}

/// The rows as a batch of [`sessions_schema`].
pub(super) fn sessions_batch(rows: &[SessionRow]) -> Result<RecordBatch, ArrowError> {
    let text =
        |of: fn(&SessionRow) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(of))) };
    RecordBatch::try_new(
        sessions_schema(),
        vec![
            Arc::new(rows.iter().map(|row| row.session_id).collect::<Int64Array>()),
            text(|row| &row.device_code),
            text(|row| &row.group_code),
            Arc::new(rows.iter().map(|row| row.user_id).collect::<Int64Array>()),
            text(|row| &row.status),
            Arc::new(rows.iter().map(|row| row.started_at_us).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.ended_at_us).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.frame_count).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.revision).collect::<Int32Array>()),
            Arc::new(rows.iter().map(|row| Some(row.sealed)).collect::<BooleanArray>()),
        ],
    )
}

/// The rows as a batch of [`devices_schema`].
pub(super) fn devices_batch(rows: &[DeviceRow]) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new(
        devices_schema(),
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.device_code))),
            Arc::new(rows.iter().map(|row| row.first_seen_us).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.last_seen_us).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.frame_count).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| Some(row.connected)).collect::<BooleanArray>()),
        ],
    )
}

/// The columns of `frames_si`: name, SQL over `frames`, comment.
pub(super) const FRAMES_SI: &[(&str, &str, &str)] = &[
    ("session_id", "session_id", "session the frame belongs to"),
    ("date", "date", "UTC day under which the session is stored"),
    ("sensor", "sensor", "waist, shoulder, wrist, racket or unknown"),
    ("t_s", "t_ns / 1e9", "s since session start, corrected device clock"),
    ("received_at", "to_timestamp_micros(received_at_us)", "UTC when the packet arrived"),
    (
        "accel_x_mps2",
        "acc_x * acc_to_mps2",
        "specific force x, m/s², gravity included; null: not finite or unit undecided",
    ),
    (
        "accel_y_mps2",
        "acc_y * acc_to_mps2",
        "specific force y, m/s², gravity included; null: not finite or unit undecided",
    ),
    (
        "accel_z_mps2",
        "acc_z * acc_to_mps2",
        "specific force z, m/s², gravity included; null: not finite or unit undecided",
    ),
    (
        "accel_norm_mps2",
        "sqrt(acc_x * acc_x + acc_y * acc_y + acc_z * acc_z) * acc_to_mps2",
        "magnitude of the specific force, m/s², gravity included; null: a component is null",
    ),
    ("gyro_x_dps", "gyro_x", "angular velocity x, °/s; null: not finite"),
    ("gyro_y_dps", "gyro_y", "angular velocity y, °/s; null: not finite"),
    ("gyro_z_dps", "gyro_z", "angular velocity z, °/s; null: not finite"),
    (
        "gyro_norm_dps",
        "sqrt(gyro_x * gyro_x + gyro_y * gyro_y + gyro_z * gyro_z)",
        "magnitude of the angular velocity, °/s; null: a component is null",
    ),
    ("roll_deg", "angle_x", "roll of the device's own filter, °; null: not sent"),
    ("pitch_deg", "angle_y", "pitch of the device's own filter, °; null: not sent"),
    ("yaw_deg", "angle_z", "yaw of the device's own filter, °; null: not sent"),
    ("seq", "seq", "arrival order within the session, from 0"),
    ("clock", "clock", "how device_time_raw was read"),
    ("flags", "flags", "bits: 1 acc null, 2 gyro null, 4 angle null, 8 acc all zero, 16 late"),
];
