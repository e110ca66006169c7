//! Arrow schemas of the stored tables. Names, units and versions are a public interface: scripts and engines rely on
//! them. Every field carries its unit, range and null meaning as metadata `comment`, so that notebooks see it.
//!
//! Only Spark-safe types: no unsigned integers, no 16-bit floats, no view or dictionary types; times are µs UTC as
//! plain `Int64`, so that no engine can shift them by a time zone.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

/// Version of the `strokes` table.
pub const STROKES_VERSION: u32 = 1;
/// Version of the `results` table.
pub const RESULTS_VERSION: u32 = 1;

/// A field with its comment.
#[must_use]
pub fn column(name: &str, data_type: DataType, nullable: bool, comment: &str) -> Field {
    Field::new(name, data_type, nullable).with_metadata(HashMap::from([("comment".to_owned(), comment.to_owned())]))
}

/// A schema that names its table and version.
#[must_use]
pub fn table_schema(table: &str, version: u32, fields: Vec<Field>) -> SchemaRef {
    let metadata = HashMap::from([
        ("volant.table".to_owned(), table.to_owned()),
        ("volant.version".to_owned(), version.to_string()),
    ]);
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// The `strokes` table: one row a swing that was found, in time order.
#[must_use]
pub fn strokes_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let figure = |name: &str, what: &str| column(name, DataType::Float64, true, what);
        table_schema(
            "strokes",
            STROKES_VERSION,
            vec![
                column("session_id", DataType::Int64, false, "session the stroke belongs to"),
                column("stroke_index", DataType::Int32, false, "order in the session, from 0"),
                column("device_code", DataType::Utf8, false, "device that recorded it"),
                column("user_id", DataType::Int64, true, "player; null: the session has no known player"),
                column("sensor", DataType::Utf8, false, "sensor the swing was found on: racket or wrist"),
                column("start_ns", DataType::Int64, false, "start of the swing, ns since session start"),
                column("impact_ns", DataType::Int64, false, "impact, or peak of the swing where none was felt, ns"),
                column("end_ns", DataType::Int64, false, "end of the swing, ns since session start"),
                column("stroke", DataType::Utf8, false, "class with the highest probability, or other"),
                column("confidence", DataType::Float64, true, "probability of stroke, 0 to 1; null: no model ran"),
                column("probabilities", DataType::Utf8, false, "JSON object: class to probability"),
                figure("peak_gyro_dps", "largest angular rate of the sensor the swing was found on, °/s"),
                figure("peak_accel_mps2", "largest dynamic acceleration (gravity removed), m/s²"),
                figure("racket_head_speed_mps", "estimate at the string centre, m/s; null: no racket sensor"),
                figure("delay_waist_shoulder_ms", "peak delay waist to shoulder, ms; null: not resolved"),
                figure("delay_shoulder_wrist_ms", "peak delay shoulder to wrist, ms; null: not resolved"),
                figure("delay_wrist_racket_ms", "peak delay wrist to racket, ms; null: not resolved"),
                figure("delay_uncertainty_ms", "one standard deviation of each delay, ms"),
                figure("order_tau", "Kendall tau of peak order, 1 proximal to distal, -1 reversed; null: unresolved"),
                column("metrics", DataType::Utf8, false, "JSON object: every figure of the stroke, unit in its name"),
            ],
        )
    });
    Arc::clone(&SCHEMA)
}

/// The `results` table: one row a session, its published analysis.
#[must_use]
pub fn results_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let figure = |name: &str, what: &str| column(name, DataType::Float64, true, what);
        table_schema(
            "results",
            RESULTS_VERSION,
            vec![
                column("session_id", DataType::Int64, false, "session that was analysed"),
                column("analysis_id", DataType::Int64, false, "number of the analysis"),
                column("device_code", DataType::Utf8, false, "device that recorded the session"),
                column("user_id", DataType::Int64, true, "player; null: the session has no known player"),
                column("created_at_us", DataType::Int64, false, "when the result was committed, µs since 1970 UTC"),
                column("pipeline", DataType::Utf8, false, "name and version of the pipeline"),
                column("params_sha256", DataType::Utf8, false, "SHA-256 of the parameters, hex"),
                column("model", DataType::Utf8, true, "name and SHA-256 of the model file; null: no model ran"),
                column("frame_count", DataType::Int64, false, "frames that were analysed"),
                column("stroke_count", DataType::Int32, false, "swings that were found"),
                figure("phase_delay_waist_to_shoulder_s", "median delay, s; null: not resolved"),
                figure("phase_delay_shoulder_to_wrist_s", "median delay, s; null: not resolved"),
                figure("energy_ratio", "0 to 1; null: cannot be computed"),
                figure("rom_waist_deg", "range of motion, °; null: cannot be computed"),
                figure("rom_shoulder_deg", "range of motion, °; null: cannot be computed"),
                figure("rom_wrist_deg", "range of motion, °; null: cannot be computed"),
                figure("overall_score", "0 to 100; null: a part of it cannot be computed"),
                column("session", DataType::Utf8, false, "JSON object: every figure of the session"),
                column("issues", DataType::Utf8, false, "JSON array: what is wrong with the recording"),
            ],
        )
    });
    Arc::clone(&SCHEMA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_says_what_it_is_and_is_spark_safe() {
        for schema in [strokes_schema(), results_schema(), crate::frames::frames_schema()] {
            assert!(schema.metadata().contains_key("volant.version"));
            for field in schema.fields() {
                assert!(!field.metadata()["comment"].is_empty(), "{}", field.name());
                assert_eq!(field.name(), &field.name().to_lowercase());
                assert!(
                    matches!(
                        field.data_type(),
                        DataType::Int32 | DataType::Int64 | DataType::Float32 | DataType::Float64 | DataType::Utf8
                    ),
                    "{field:?}"
                );
            }
        }
    }
}
