//! Views as data: SQL over the tables, each column with its unit and null meaning.
//!
//! A view is planned once, when the engine starts, over tables that are registered before it; reading it reads the
//! statement's snapshot like any table.

use std::collections::HashMap;

use datafusion::common::metadata::FieldMetadata;
use datafusion::datasource::ViewTable;
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, ident};
use futures::FutureExt;

/// A view and what its columns mean.
pub(super) struct View {
    pub(super) name: &'static str,
    /// What one row is.
    pub(super) comment: &'static str,
    pub(super) sql: &'static str,
    /// Name and comment of every column, in order.
    pub(super) columns: &'static [(&'static str, &'static str)],
}

impl View {
    /// The view over the tables that `state` knows.
    pub(super) fn plan(&self, state: &SessionState) -> Result<ViewTable, DataFusionError> {
        view_of(state, self.sql, self.columns)
    }
}

/// Plans `sql` and gives its columns their comments.
pub(super) fn view_of(
    state: &SessionState,
    sql: &str,
    columns: &[(&'static str, &'static str)],
) -> Result<ViewTable, DataFusionError> {
    let plan = plan_of(state, sql)?;
    let columns = columns.iter().map(|&(name, comment)| {
        let metadata = HashMap::from([("comment".to_owned(), comment.to_owned())]);
        ident(name).alias_with_metadata(name, Some(FieldMetadata::from(metadata)))
    });
    Ok(ViewTable::new(LogicalPlanBuilder::from(plan).project(columns)?.build()?, Some(sql.to_owned())))
}

/// Plans `sql` over tables that are in memory.
pub(super) fn plan_of(state: &SessionState, sql: &str) -> Result<LogicalPlan, DataFusionError> {
    state
        .create_logical_plan(sql)
        .now_or_never()
        .unwrap_or_else(|| Err(DataFusionError::Plan("a view's tables are not in memory".to_owned())))
}

/// In the order in which they are made: a later one may read an earlier one.
pub(super) const VIEWS: &[View] = &[
    View {
        name: "frames_si",
        comment: "one row a frame, in SI units, with magnitudes and times as timestamps",
        sql: "SELECT session_id, date, sensor, t_ns / 1e9 AS t_s, to_timestamp_micros(received_at_us) AS received_at, \
              acc_x * acc_to_mps2 AS accel_x_mps2, acc_y * acc_to_mps2 AS accel_y_mps2, \
              acc_z * acc_to_mps2 AS accel_z_mps2, \
              vector_magnitude(acc_x, acc_y, acc_z) * acc_to_mps2 AS accel_norm_mps2, \
              gyro_x AS gyro_x_dps, gyro_y AS gyro_y_dps, gyro_z AS gyro_z_dps, \
              vector_magnitude(gyro_x, gyro_y, gyro_z) AS gyro_norm_dps, \
              angle_x AS roll_deg, angle_y AS pitch_deg, angle_z AS yaw_deg, seq, clock, flags FROM frames",
        columns: &[
            ("session_id", "session the frame belongs to"),
            ("date", "UTC day under which the session is stored"),
            ("sensor", "waist, shoulder, wrist, racket or unknown"),
            ("t_s", "s since session start, corrected device clock"),
            ("received_at", "UTC when the packet arrived"),
            ("accel_x_mps2", "specific force x, m/s², gravity included; null: not finite or unit undecided"),
            ("accel_y_mps2", "specific force y, m/s², gravity included; null: not finite or unit undecided"),
            ("accel_z_mps2", "specific force z, m/s², gravity included; null: not finite or unit undecided"),
            ("accel_norm_mps2", "magnitude of the specific force, m/s², gravity included; null: a component is null"),
            ("gyro_x_dps", "angular velocity x, °/s; null: not finite"),
            ("gyro_y_dps", "angular velocity y, °/s; null: not finite"),
            ("gyro_z_dps", "angular velocity z, °/s; null: not finite"),
            ("gyro_norm_dps", "magnitude of the angular velocity, °/s; null: a component is null"),
            ("roll_deg", "roll of the device's own filter, °; null: not sent"),
            ("pitch_deg", "pitch of the device's own filter, °; null: not sent"),
            ("yaw_deg", "yaw of the device's own filter, °; null: not sent"),
            ("seq", "arrival order within the session, from 0"),
            ("clock", "how device_time_raw was read"),
            ("flags", "bits: 1 acc null, 2 gyro null, 4 angle null, 8 acc all zero, 16 late"),
        ],
    },
    View {
        name: "swings",
        comment: "one row a swing that was found, named or not, with its times on the clock of the wall",
        sql: "SELECT k.session_id, k.stroke_index AS swing_index, k.date, k.device_code, k.user_id, k.sensor, \
              k.start_ns / 1e9 AS start_s, k.impact_ns / 1e9 AS impact_s, k.end_ns / 1e9 AS end_s, \
              session_time_to_utc(s.started_at_us, k.impact_ns) AS impact_at, \
              (k.end_ns - k.start_ns) / 1e6 AS duration_ms, \
              json_get_float(k.metrics, 'acceleration_phase_ms') AS acceleration_phase_ms, \
              (k.impact_ns - lag(k.impact_ns) OVER (PARTITION BY k.session_id ORDER BY k.stroke_index)) / 1e9 \
                  AS since_last_s, \
              k.stroke <> 'other' AS is_stroke, k.stroke, k.confidence, k.peak_gyro_dps, k.peak_accel_mps2, \
              k.racket_head_speed_mps \
              FROM strokes k LEFT JOIN sessions s ON s.session_id = k.session_id",
        columns: &[
            ("session_id", "session the swing belongs to"),
            ("swing_index", "order in the session, from 0; stroke_index of strokes"),
            ("date", "UTC day under which the session is stored"),
            ("device_code", "device that recorded it"),
            ("user_id", "player; null: the session has no known player"),
            ("sensor", "sensor the swing was found on: racket or wrist"),
            ("start_s", "start of the swing, s since session start"),
            ("impact_s", "impact, or peak of the swing where none was felt, s since session start"),
            ("end_s", "end of the swing, s since session start"),
            ("impact_at", "UTC of the impact by the session's start; null: the folder has no catalog"),
            ("duration_ms", "start to end, ms"),
            ("acceleration_phase_ms", "length of the acceleration phase, ms; null: not resolved"),
            ("since_last_s", "s since the impact before it in the session; null: the first"),
            ("is_stroke", "true if a model gave it a stroke's name, false: other"),
            ("stroke", "class with the highest probability, or other"),
            ("confidence", "probability of stroke, 0 to 1; null: no model ran"),
            ("peak_gyro_dps", "largest angular rate, °/s"),
            ("peak_accel_mps2", "largest dynamic acceleration (gravity removed), m/s²"),
            ("racket_head_speed_mps", "estimate at the string centre, m/s; null: no racket sensor"),
        ],
    },
    View {
        name: "labelled_swings",
        comment: "one row a label with the swing that was found there and what it was named: how often the names are right",
        sql: "SELECT session_id, user_id, impact_ns / 1e9 AS label_s, label, quality, swing_index, \
              (found_ns - impact_ns) / 1e6 AS off_ms, stroke, confidence, stroke = label AS is_right FROM \
              (SELECT l.session_id, l.user_id, l.impact_ns, l.stroke AS label, l.quality, \
              k.stroke_index AS swing_index, k.impact_ns AS found_ns, k.stroke, k.confidence, \
              row_number() OVER (PARTITION BY l.session_id, l.impact_ns ORDER BY abs(k.impact_ns - l.impact_ns)) AS place \
              FROM labels l LEFT JOIN strokes k ON k.session_id = l.session_id \
              AND k.impact_ns BETWEEN l.impact_ns - 250000000 AND l.impact_ns + 250000000) WHERE place = 1",
        columns: &[
            ("session_id", "session of the swing"),
            ("user_id", "player; null: the session has no known player"),
            ("label_s", "where the label points to, s since session start"),
            ("label", "what somebody says was played; other: there was no stroke"),
            (
                "quality",
                "clear, clean or soft: counts; ambiguous, cut or unclear: does not; window: the whole recording",
            ),
            ("swing_index", "the swing found nearest, at most 250 ms away; null: none was found there"),
            ("off_ms", "impact of that swing less the label's, ms; null: none was found there"),
            ("stroke", "what the analysis named it, or other; null: none was found there"),
            ("confidence", "probability of stroke, 0 to 1; null: no model ran, or none was found"),
            ("is_right", "true if the analysis and the label say the same; null: none was found there"),
        ],
    },
    View {
        name: "stroke_frames",
        comment: "one row a frame inside a swing, of every sensor, with the time relative to the impact",
        sql: "SELECT k.session_id, k.stroke_index, k.stroke, f.date, f.sensor, \
              (f.t_ns - k.impact_ns) / 1e6 AS t_rel_ms, \
              f.acc_x * f.acc_to_mps2 AS accel_x_mps2, f.acc_y * f.acc_to_mps2 AS accel_y_mps2, \
              f.acc_z * f.acc_to_mps2 AS accel_z_mps2, \
              vector_magnitude(f.acc_x, f.acc_y, f.acc_z) * f.acc_to_mps2 AS accel_norm_mps2, \
              f.gyro_x AS gyro_x_dps, f.gyro_y AS gyro_y_dps, f.gyro_z AS gyro_z_dps, \
              vector_magnitude(f.gyro_x, f.gyro_y, f.gyro_z) AS gyro_norm_dps \
              FROM strokes k JOIN frames f ON f.session_id = k.session_id AND f.date = k.date \
              AND f.t_ns BETWEEN k.start_ns AND k.end_ns",
        columns: &[
            ("session_id", "session of the swing"),
            ("stroke_index", "order of the swing in the session, from 0"),
            ("stroke", "class with the highest probability, or other"),
            ("date", "UTC day under which the session is stored"),
            ("sensor", "sensor of the frame"),
            ("t_rel_ms", "time of the frame less that of the impact, ms"),
            ("accel_x_mps2", "specific force x, m/s², gravity included; null: not finite or unit undecided"),
            ("accel_y_mps2", "specific force y, m/s², gravity included; null: not finite or unit undecided"),
            ("accel_z_mps2", "specific force z, m/s², gravity included; null: not finite or unit undecided"),
            ("accel_norm_mps2", "magnitude of the specific force, m/s²; null: a component is null"),
            ("gyro_x_dps", "angular velocity x, °/s; null: not finite"),
            ("gyro_y_dps", "angular velocity y, °/s; null: not finite"),
            ("gyro_z_dps", "angular velocity z, °/s; null: not finite"),
            ("gyro_norm_dps", "magnitude of the angular velocity, °/s; null: a component is null"),
        ],
    },
    View {
        name: "data_quality",
        comment: "one row an issue of a recording, and one without code for each recording that has none",
        sql: "SELECT session_id, date, device_code, user_id, frame_count, \
              json_get_str(issue, 'code') AS code, json_get_str(issue, 'severity') AS severity, \
              json_get_str(issue, 'sensor') AS sensor, json_get_str(issue, 'message') AS message, \
              json_get_str(issue, 'message_zh') AS message_zh, json_get_json(issue, 'affects') AS affects \
              FROM (SELECT session_id, date, device_code, user_id, frame_count, \
              unnest(CASE WHEN json_length(issues) > 0 THEN json_get_array(issues) ELSE make_array('{}') END) AS issue \
              FROM results)",
        columns: &[
            ("session_id", "session that was analysed"),
            ("date", "UTC day under which the session is stored"),
            ("device_code", "device that recorded it"),
            ("user_id", "player; null: the session has no known player"),
            ("frame_count", "frames that were analysed"),
            ("code", "stable word for the issue, as in docs/figures.md; null: the recording has no issue"),
            ("severity", "info, warning or error; null: no issue"),
            ("sensor", "sensor it is about; null: the whole recording, or no issue"),
            ("message", "what is wrong, with its figures, in English; null: no issue"),
            ("message_zh", "the same in Chinese; null: no issue"),
            ("affects", "JSON array: figures that it affects or removes; null: no issue"),
        ],
    },
    View {
        name: "sensor_quality",
        comment: "one row a session and sensor: rate, gaps and missing values, from the frames themselves",
        sql: "SELECT session_id, date, sensor, count(*) AS frame_count, (max(t_ns) - min(t_ns)) / 1e9 AS span_s, \
              1e9 / nullif(median(step_ns), 0) AS rate_hz, max(step_ns) / 1e6 AS longest_gap_ms, \
              count(*) FILTER (WHERE step_ns > 100000000) AS gap_count, \
              count(*) FILTER (WHERE (flags & 3) <> 0) AS null_count, \
              count(*) FILTER (WHERE (flags & 16) <> 0) AS late_count, \
              count(*) FILTER (WHERE clock = 'outlier') AS clock_outlier_count \
              FROM (SELECT session_id, date, sensor, t_ns, flags, clock, \
              t_ns - lag(t_ns) OVER (PARTITION BY session_id, date, sensor ORDER BY t_ns) AS step_ns FROM frames) \
              GROUP BY session_id, date, sensor",
        columns: &[
            ("session_id", "session of the frames"),
            ("date", "UTC day under which the session is stored"),
            ("sensor", "waist, shoulder, wrist, racket or unknown"),
            ("frame_count", "frames of the sensor"),
            ("span_s", "first to last frame, s"),
            ("rate_hz", "one over the median step, Hz; null: fewer than two frames, or all of one time"),
            ("longest_gap_ms", "longest step between two frames, ms; null: one frame"),
            ("gap_count", "steps longer than 100 ms"),
            ("null_count", "frames with a null or not finite component of acceleration or angular velocity"),
            ("late_count", "frames that arrived after upload_complete"),
            ("clock_outlier_count", "frames whose device time did not fit its neighbours"),
        ],
    },
    View {
        name: "session_summary",
        comment: "one row a session: who, when, how long, what was found",
        sql: "SELECT s.session_id, s.device_code, s.user_id, s.status, \
              to_timestamp_micros(s.started_at_us) AS started_at, (s.ended_at_us - s.started_at_us) / 1e6 AS duration_s, \
              s.frame_count, r.stroke_count AS swing_count, coalesce(k.named, 0) AS stroke_count, \
              k.fastest AS racket_head_speed_mps_max, k.sure AS confidence_mean, r.overall_score, \
              json_length(r.issues) AS issue_count, r.pipeline, r.model \
              FROM sessions s LEFT JOIN results r ON r.session_id = s.session_id \
              LEFT JOIN (SELECT session_id, count(*) FILTER (WHERE stroke <> 'other') AS named, \
              max(racket_head_speed_mps) AS fastest, avg(confidence) AS sure FROM strokes GROUP BY session_id) k \
              ON k.session_id = s.session_id",
        columns: &[
            ("session_id", "number of the session"),
            ("device_code", "device that records it"),
            ("user_id", "player; null: no known player"),
            ("status", "calibrating, collecting, stopping, analyzing, completed or stopped"),
            ("started_at", "UTC of the start"),
            ("duration_s", "start to end, s; null: still open"),
            ("frame_count", "frames on disk"),
            ("swing_count", "swings that were found; null: not analysed yet"),
            ("stroke_count", "swings with a stroke's name"),
            ("racket_head_speed_mps_max", "fastest racket head, m/s; null: no racket sensor or no stroke"),
            ("confidence_mean", "mean probability of the names given, 0 to 1; null: no model ran"),
            ("overall_score", "0 to 100; null: a part of it cannot be computed, or not analysed yet"),
            ("issue_count", "issues of the recording; null: not analysed yet"),
            ("pipeline", "name and version of the pipeline; null: not analysed yet"),
            ("model", "name and SHA-256 of the model file; null: no model ran"),
        ],
    },
    View {
        name: "player_days",
        comment: "one row a player and UTC day with an analysed session",
        sql: "SELECT r.user_id, r.date, count(*) AS session_count, sum(r.frame_count) AS frame_count, \
              sum(r.stroke_count) AS swing_count, sum(k.named) AS stroke_count, max(k.fastest) AS \
              racket_head_speed_mps_max, avg(r.overall_score) AS overall_score_mean, avg(r.energy_ratio) AS \
              energy_ratio_mean FROM results r LEFT JOIN (SELECT session_id, date, \
              count(*) FILTER (WHERE stroke <> 'other') AS named, max(racket_head_speed_mps) AS fastest \
              FROM strokes GROUP BY session_id, date) k ON k.session_id = r.session_id AND k.date = r.date \
              WHERE r.user_id IS NOT NULL GROUP BY r.user_id, r.date",
        columns: &[
            ("user_id", "player"),
            ("date", "UTC day under which the sessions are stored"),
            ("session_count", "analysed sessions"),
            ("frame_count", "frames that were analysed"),
            ("swing_count", "swings that were found"),
            ("stroke_count", "swings with a stroke's name; null: no swing"),
            ("racket_head_speed_mps_max", "fastest racket head, m/s; null: no racket sensor or no stroke"),
            ("overall_score_mean", "mean of the sessions' scores, 0 to 100; null: none could be computed"),
            ("energy_ratio_mean", "mean of the sessions' energy ratios, 0 to 1; null: none could be computed"),
        ],
    },
];
