//! Tables that exist only in SQL: their schemas, and rows as batches.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;
use schemas::tables::{column, table_schema};

use super::functions::FUNCTIONS;
use super::source::{DeviceRow, LabelRow, NotificationRow, PlayerRow, SessionRow};
use super::views::VIEWS;

/// Version of the tables here.
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

/// The `players` table: one row a player. Who the person is stays in the catalog: `user_id` is the pseudonym that every
/// table uses.
#[must_use]
pub fn players_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let span = |name: &str, what: &str| column(name, DataType::Int64, true, what);
        table_schema(
            "players",
            VERSION,
            vec![
                column("user_id", DataType::Int64, false, "number of the player, the pseudonym of every table"),
                column("registered_at_us", DataType::Int64, false, "first seen, µs since 1970 UTC"),
                column("language", DataType::Utf8, true, "language of notices and reports: zh or en; null: not chosen"),
                column("pipeline", DataType::Utf8, true, "pipeline of the player's own; null: the default one"),
                column("device_count", DataType::Int64, false, "devices bound to the player"),
                column("session_count", DataType::Int64, false, "sessions of the player"),
                column("frame_count", DataType::Int64, false, "frames in sealed sessions"),
                span("first_session_us", "start of the first session, µs since 1970 UTC; null: none yet"),
                span("last_session_us", "start of the latest session, µs since 1970 UTC; null: none yet"),
            ],
        )
    });
    Arc::clone(&SCHEMA)
}

/// The `notifications` table: one row a notice and channel.
#[must_use]
pub fn notifications_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        table_schema(
            "notifications",
            VERSION,
            vec![
                column("notification_id", DataType::Utf8, false, "id of the notice, in time order"),
                column("channel", DataType::Utf8, false, "socket, wechat or webhook"),
                column("user_id", DataType::Int64, false, "player it is for"),
                column("session_id", DataType::Int64, false, "session it is about"),
                column("analysis_id", DataType::Int64, false, "analysis it is about"),
                column("created_at_us", DataType::Int64, false, "when it was owed, µs since 1970 UTC"),
                column("state", DataType::Utf8, false, "owed, delivered or failed (given up)"),
                column("attempts", DataType::Int64, false, "how often it was tried"),
                column("done_at_us", DataType::Int64, true, "delivered or given up, µs since 1970 UTC; null: owed"),
            ],
        )
    });
    Arc::clone(&SCHEMA)
}

/// The `labels` table: one row a swing that somebody labelled.
#[must_use]
pub fn labels_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        table_schema(
            "labels",
            VERSION,
            vec![
                column("session_id", DataType::Int64, false, "session of the swing"),
                column("user_id", DataType::Int64, true, "player; null: the session has no known player"),
                column("impact_ns", DataType::Int64, false, "impact or peak of the swing, ns since session start"),
                column(
                    "start_ns",
                    DataType::Int64,
                    true,
                    "start of the swing, ns since session start; null: not marked",
                ),
                column("end_ns", DataType::Int64, true, "end of the swing, ns since session start; null: not marked"),
                column("stroke", DataType::Utf8, false, "what was played; other: there was no stroke"),
                column(
                    "quality",
                    DataType::Utf8,
                    false,
                    "clear, clean or soft: counts; ambiguous, cut or unclear: does not; window: the whole recording",
                ),
                column("labelled_by", DataType::Utf8, false, "player, admin, key or import"),
                column("labelled_at_us", DataType::Int64, false, "µs since 1970 UTC"),
            ],
        )
    });
    Arc::clone(&SCHEMA)
}

/// The rows as a batch of [`labels_schema`].
pub(super) fn labels_batch(rows: &[LabelRow]) -> Result<RecordBatch, ArrowError> {
    let number = |of: fn(&LabelRow) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) };
    let maybe =
        |of: fn(&LabelRow) -> Option<i64>| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<Int64Array>()) };
    let text = |of: fn(&LabelRow) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(of))) };
    RecordBatch::try_new(
        labels_schema(),
        vec![
            number(|row| row.session_id),
            maybe(|row| row.user_id),
            number(|row| row.impact_ns),
            maybe(|row| row.start_ns),
            maybe(|row| row.end_ns),
            text(|row| &row.stroke),
            text(|row| &row.quality),
            text(|row| &row.labelled_by),
            number(|row| row.labelled_at_us),
        ],
    )
}

/// The rows as a batch of [`players_schema`].
pub(super) fn players_batch(rows: &[PlayerRow]) -> Result<RecordBatch, ArrowError> {
    let number =
        |of: fn(&PlayerRow) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) };
    let text =
        |of: fn(&PlayerRow) -> Option<&str>| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<StringArray>()) };
    let maybe =
        |of: fn(&PlayerRow) -> Option<i64>| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<Int64Array>()) };
    RecordBatch::try_new(
        players_schema(),
        vec![
            number(|row| row.user_id),
            number(|row| row.registered_at_us),
            text(|row| row.language.as_deref()),
            text(|row| row.pipeline.as_deref()),
            number(|row| row.device_count),
            number(|row| row.session_count),
            number(|row| row.frame_count),
            maybe(|row| row.first_session_us),
            maybe(|row| row.last_session_us),
        ],
    )
}

/// The rows as a batch of [`notifications_schema`].
pub(super) fn notifications_batch(rows: &[NotificationRow]) -> Result<RecordBatch, ArrowError> {
    let number =
        |of: fn(&NotificationRow) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) };
    let text =
        |of: fn(&NotificationRow) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(of))) };
    RecordBatch::try_new(
        notifications_schema(),
        vec![
            text(|row| &row.notification_id),
            text(|row| &row.channel),
            number(|row| row.user_id),
            number(|row| row.session_id),
            number(|row| row.analysis_id),
            number(|row| row.created_at_us),
            text(|row| &row.state),
            number(|row| row.attempts),
            Arc::new(rows.iter().map(|row| row.done_at_us).collect::<Int64Array>()),
        ],
    )
}

/// The `data_dictionary` table: one row a table (without a column), a column, a function.
fn dictionary_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        table_schema(
            "data_dictionary",
            VERSION,
            vec![
                column("table_name", DataType::Utf8, true, "table or view; null: a function"),
                column("column_name", DataType::Utf8, true, "column, or call of the function; null: the table itself"),
                column("ordinal_position", DataType::Int32, false, "place of the column in the table from 1, else 0"),
                column("data_type", DataType::Utf8, true, "Arrow type of the column; null: not a column"),
                column("is_nullable", DataType::Boolean, true, "true: may be null; null: not a column"),
                column("comment", DataType::Utf8, true, "what it is, with unit, range and what null means"),
            ],
        )
    });
    Arc::clone(&SCHEMA)
}

/// What one row of a table is, for tables that are no views.
const TABLE_COMMENTS: &[(&str, &str)] = &[
    ("frames", "one row a frame of a sensor, as sent, of open and sealed sessions"),
    ("strokes", "one row a swing that was found, with its figures"),
    ("results", "one row a session, its published analysis"),
    ("sessions", "one row a recording session"),
    ("devices", "one row a device that was ever seen"),
    ("players", "one row a player, by number"),
    ("notifications", "one row a notice and channel"),
    ("labels", "one row a swing that somebody said the stroke of, whatever was found there"),
    ("data_dictionary", "one row a table, column or function: what it is"),
];

/// What `DESCRIBE` answers of a table that has this name: the columns with what they are.
pub(super) fn description(table: &str) -> String {
    format!(
        "SELECT column_name, data_type, CASE WHEN is_nullable THEN 'YES' ELSE 'NO' END AS is_nullable, comment \
         FROM data_dictionary WHERE table_name = '{table}' AND column_name IS NOT NULL ORDER BY ordinal_position"
    )
}

/// A row of `data_dictionary`, in the order of its columns.
type DictionaryRow<'a> = (Option<&'a str>, Option<&'a str>, i32, Option<String>, Option<bool>, Option<&'a str>);

/// Everything that there is to ask about: tables with their columns, functions with their arguments.
pub(super) fn dictionary_batch(tables: &[(&str, SchemaRef)]) -> Result<RecordBatch, ArrowError> {
    let mut rows: Vec<DictionaryRow<'_>> = Vec::new();
    let itself = [("data_dictionary", dictionary_schema())];
    for (table, schema) in tables.iter().chain(&itself) {
        let comments = TABLE_COMMENTS.iter().copied().chain(VIEWS.iter().map(|view| (view.name, view.comment)));
        let comment = comments.into_iter().find(|(name, _)| name == table).map(|(_, comment)| comment);
        rows.push((Some(table), None, 0, None, None, comment));
        for (field, place) in schema.fields().iter().zip(1..) {
            let comment = field.metadata().get("comment").map(String::as_str);
            let data_type = field.data_type().to_string();
            rows.push((Some(table), Some(field.name()), place, Some(data_type), Some(field.is_nullable()), comment));
        }
    }
    rows.extend(FUNCTIONS.iter().map(|&(call, comment)| (None, Some(call), 0, None, None, Some(comment))));
    RecordBatch::try_new(
        dictionary_schema(),
        vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| Some(row.2)).collect::<Int32Array>()),
            Arc::new(rows.iter().map(|row| row.3.as_deref()).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.4).collect::<BooleanArray>()),
            Arc::new(rows.iter().map(|row| row.5).collect::<StringArray>()),
        ],
    )
}
