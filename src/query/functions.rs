//! Functions for IMU work: scalar ones, and table functions that expand to SQL over the tables.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{AsArray, Float64Array, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, ScalarValue, plan_datafusion_err, plan_err};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::at_extreme;
use super::views::view_of;

/// What [`register`] adds, for the data dictionary: name with arguments, and what it gives.
pub(super) const FUNCTIONS: &[(&str, &str)] = &[
    ("vector_magnitude(x, y, z)", "Euclidean norm, in the unit of the components; null if one is null"),
    ("session_time_to_utc(started_at_us, t_ns)", "UTC of a time since session start, to the µs; null if one is null"),
    (
        "frames_around(session_id, t_s, before_ms, after_ms)",
        "table: frames_si between t_s - before_ms and t_s + after_ms, with t_rel_ms; without the last two, 300 and 200",
    ),
    (
        "stroke_window(session_id, stroke_index, before_ms, after_ms)",
        "table: frames_si around the impact of a stroke, with t_rel_ms; without the last two, 300 and 200",
    ),
    (
        "resample(session_id, rate_hz, gap_ms)",
        "table: acceleration and angular velocity of all sensors at common times, linear between frames, absent in steps \
         longer than gap_ms; without it, 50",
    ),
    (
        "downsample(session_id, rate_hz)",
        "table: acceleration and angular velocity of all sensors at common times, at a lower rate than they came; each the mean \
         of the frames less than a step away, the nearer the more",
    ),
    ("arg_max(value, by), max_by", "aggregate: value of the row in which by is largest; null if no row has a by"),
    ("arg_min(value, by), min_by", "aggregate: value of the row in which by is smallest; null if no row has a by"),
    (
        "json_get_float(json, key), json_get_str, json_get_int, …",
        "a member of a JSON column such as metrics or session",
    ),
];

/// Their names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().filter_map(|(call, _)| call.split('(').next())
}

/// Makes the functions known.
pub(super) fn register(context: &mut SessionContext) -> Result<()> {
    datafusion_functions_json::register_all(context)?;
    context.register_udf(ScalarUDF::from(VectorMagnitude::new()));
    context.register_udf(ScalarUDF::from(SessionTimeToUtc::new()));
    for function in at_extreme::functions() {
        context.register_udaf(function);
    }
    context.register_udtf("frames_around", Arc::new(Expanded::FramesAround));
    context.register_udtf("stroke_window", Arc::new(Expanded::StrokeWindow));
    context.register_udtf("resample", Arc::new(Expanded::Resample));
    context.register_udtf("downsample", Arc::new(Expanded::Downsample));
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct VectorMagnitude {
    signature: Signature,
}

impl VectorMagnitude {
    fn new() -> Self {
        Self { signature: Signature::exact(vec![DataType::Float64; 3], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for VectorMagnitude {
    fn name(&self) -> &'static str {
        "vector_magnitude"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [x, y, z] = arrays.as_slice() else { return plan_err!("vector_magnitude takes x, y and z") };
        let [x, y, z] = [x, y, z].map(AsArray::as_primitive::<Float64Type>);
        let norm = x
            .iter()
            .zip(y)
            .zip(z)
            .map(|((x, y), z)| Some((x? * x? + y? * y? + z? * z?).sqrt()))
            .collect::<Float64Array>();
        Ok(ColumnarValue::Array(Arc::new(norm)))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SessionTimeToUtc {
    signature: Signature,
}

impl SessionTimeToUtc {
    fn new() -> Self {
        Self { signature: Signature::exact(vec![DataType::Int64; 2], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for SessionTimeToUtc {
    fn name(&self) -> &'static str {
        "session_time_to_utc"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, None))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [started, t] = arrays.as_slice() else {
            return plan_err!("session_time_to_utc takes started_at_us and t_ns");
        };
        let started: &Int64Array = started.as_primitive::<Int64Type>();
        let utc = started
            .iter()
            .zip(t.as_primitive::<Int64Type>())
            // A sum that no timestamp holds is as unknown as a null.
            .map(|(started, t)| started?.checked_add(t?.div_euclid(1000)))
            .collect::<TimestampMicrosecondArray>();
        Ok(ColumnarValue::Array(Arc::new(utc)))
    }
}

/// Table functions that stand for a statement.
#[derive(Clone, Copy, Debug)]
enum Expanded {
    FramesAround,
    StrokeWindow,
    Resample,
    Downsample,
}

/// The most that a window may reach to either side, and a gap be bridged, ms.
const WINDOW_LIMIT_MS: f64 = 600_000.0;
/// The fastest grid; sensors of the field measure at most at a fifth of it.
const RATE_LIMIT_HZ: f64 = 10_000.0;
/// How far a window reaches, and which gaps are bridged, where the call does not say it.
const USUAL_WINDOW_MS: [f64; 2] = [300.0, 200.0];
const USUAL_GAP_MS: f64 = 50.0;

/// Columns of `frames_si` that a window repeats.
const WINDOW: &[(&str, &str)] = &[
    ("session_id", "session of the frame"),
    ("sensor", "sensor of the frame"),
    ("t_s", "s since session start, corrected device clock"),
    ("t_rel_ms", "time of the frame less that of the middle, ms"),
    ("accel_x_mps2", "specific force x, m/s², gravity included; null: not finite or unit undecided"),
    ("accel_y_mps2", "specific force y, m/s², gravity included; null: not finite or unit undecided"),
    ("accel_z_mps2", "specific force z, m/s², gravity included; null: not finite or unit undecided"),
    ("accel_norm_mps2", "magnitude of the specific force, m/s²; null: a component is null"),
    ("gyro_x_dps", "angular velocity x, °/s; null: not finite"),
    ("gyro_y_dps", "angular velocity y, °/s; null: not finite"),
    ("gyro_z_dps", "angular velocity z, °/s; null: not finite"),
    ("gyro_norm_dps", "magnitude of the angular velocity, °/s; null: a component is null"),
];

const RESAMPLED: &[(&str, &str)] = &[
    ("session_id", "session of the frames"),
    ("sensor", "sensor of the frames"),
    ("tick", "number of the sample since session start: t_s times the rate"),
    ("t_s", "s since session start, corrected device clock"),
    ("accel_x_mps2", "specific force x, m/s², gravity included; null: not measured near it"),
    ("accel_y_mps2", "specific force y, m/s², gravity included; null: not measured near it"),
    ("accel_z_mps2", "specific force z, m/s², gravity included; null: not measured near it"),
    ("gyro_x_dps", "angular velocity x, °/s; null: not measured near it"),
    ("gyro_y_dps", "angular velocity y, °/s; null: not measured near it"),
    ("gyro_z_dps", "angular velocity z, °/s; null: not measured near it"),
];

impl Expanded {
    const fn usage(self) -> &'static str {
        match self {
            Self::FramesAround => "frames_around(session_id, t_s [, before_ms, after_ms])",
            Self::StrokeWindow => "stroke_window(session_id, stroke_index [, before_ms, after_ms])",
            Self::Resample => "resample(session_id, rate_hz [, gap_ms])",
            Self::Downsample => "downsample(session_id, rate_hz)",
        }
    }

    /// The statement, and what its columns mean.
    fn expand(self, arguments: &[f64]) -> Result<(String, &'static [(&'static str, &'static str)])> {
        let wrong = |what: &str| plan_datafusion_err!("{}: {what}", self.usage());
        let within = |value: f64, limit: f64| (0.0..=limit).contains(&value);
        let usual: &[f64] = match (self, arguments.len()) {
            (Self::FramesAround | Self::StrokeWindow, 2) => &USUAL_WINDOW_MS,
            (Self::Resample, 2) => &[USUAL_GAP_MS],
            _ => &[],
        };
        match (self, &*[arguments, usual].concat()) {
            (Self::FramesAround, &[session, middle_s, before_ms, after_ms]) => {
                if !within(before_ms, WINDOW_LIMIT_MS) || !within(after_ms, WINDOW_LIMIT_MS) {
                    return Err(wrong("before_ms and after_ms lie between 0 and 600000"));
                }
                let middle_ns = (middle_s * 1e9).round();
                Ok((window(&format!("{middle_ns:.0}"), session, "", before_ms, after_ms), WINDOW))
            }
            (Self::StrokeWindow, &[session, index, before_ms, after_ms]) => {
                if !within(before_ms, WINDOW_LIMIT_MS) || !within(after_ms, WINDOW_LIMIT_MS) {
                    return Err(wrong("before_ms and after_ms lie between 0 and 600000"));
                }
                let join = format!(
                    "JOIN (SELECT impact_ns FROM strokes WHERE session_id = {session:.0} AND stroke_index = {index:.0}) k \
                     ON true"
                );
                Ok((window("k.impact_ns", session, &join, before_ms, after_ms), WINDOW))
            }
            (Self::Resample | Self::Downsample, &[_, rate_hz, ..]) if !(rate_hz > 0.0 && rate_hz <= RATE_LIMIT_HZ) => {
                Err(wrong("rate_hz lies above 0 and at most at 10000"))
            }
            (Self::Downsample, &[session, rate_hz]) => Ok((downsampled(session, rate_hz), RESAMPLED)),
            (Self::Resample, &[session, rate_hz, gap_ms]) => {
                if !within(gap_ms, WINDOW_LIMIT_MS) {
                    return Err(wrong("gap_ms lies between 0 and 600000"));
                }
                Ok((resampled(session, rate_hz, gap_ms), RESAMPLED))
            }
            _ => Err(wrong("takes these numbers")),
        }
    }
}

fn window(middle_ns: &str, session: f64, join: &str, before_ms: f64, after_ms: f64) -> String {
    let [before_ns, after_ns] = [before_ms, after_ms].map(|ms| (ms * 1e6).round());
    format!(
        "SELECT f.session_id, f.sensor, f.t_ns / 1e9 AS t_s, (f.t_ns - {middle_ns}) / 1e6 AS t_rel_ms, \
         f.acc_x * f.acc_to_mps2 AS accel_x_mps2, f.acc_y * f.acc_to_mps2 AS accel_y_mps2, \
         f.acc_z * f.acc_to_mps2 AS accel_z_mps2, \
         vector_magnitude(f.acc_x, f.acc_y, f.acc_z) * f.acc_to_mps2 AS accel_norm_mps2, \
         f.gyro_x AS gyro_x_dps, f.gyro_y AS gyro_y_dps, f.gyro_z AS gyro_z_dps, \
         vector_magnitude(f.gyro_x, f.gyro_y, f.gyro_z) AS gyro_norm_dps \
         FROM frames f {join} WHERE f.session_id = {session:.0} \
         AND f.t_ns >= {middle_ns} - {before_ns:.0} AND f.t_ns <= {middle_ns} + {after_ns:.0}"
    )
}

/// Between two neighbouring frames of a sensor lie the ticks `ceil(t0 * rate) .. ceil(t1 * rate)`, the last frame's own
/// tick included where it falls on one; each is interpolated between the two.
fn resampled(session: f64, rate_hz: f64, gap_ms: f64) -> String {
    let step_ns = 1e9 / rate_hz;
    let mut axes = String::new();
    let mut inner = String::new();
    for axis in ["x", "y", "z"] {
        for (column, value, name) in [
            (format!("a{axis}"), format!("acc_{axis} * acc_to_mps2"), format!("accel_{axis}_mps2")),
            (format!("g{axis}"), format!("gyro_{axis}"), format!("gyro_{axis}_dps")),
        ] {
            // Writing to a String cannot fail.
            write!(inner, ", {value} AS {column}, lead({value}) OVER w AS {column}1").ok();
            write!(
                axes,
                ", CASE WHEN part = 0 THEN {column} ELSE {column} + ({column}1 - {column}) * part END AS {name}"
            )
            .ok();
        }
    }
    format!(
        "SELECT session_id, sensor, tick, tick * {step_ns:?} / 1e9 AS t_s{axes} FROM (\
         SELECT *, CASE WHEN t1 > t0 THEN (tick * {step_ns:?} - t0) / (t1 - t0) ELSE 0.0 END AS part FROM (\
         SELECT *, unnest(range(CAST(ceil(t0 / {step_ns:?}) AS BIGINT), \
         CASE WHEN t1 - t0 > {gap_ns:?} THEN CAST(floor(t0 / {step_ns:?}) AS BIGINT) + 1 \
         ELSE CAST(ceil(t1 / {step_ns:?}) AS BIGINT) END)) AS tick FROM (\
         SELECT session_id, sensor, t_ns AS t0, coalesce(lead(t_ns) OVER w, t_ns + 1) AS t1{inner} \
         FROM frames WHERE session_id = {session:.0} WINDOW w AS (PARTITION BY sensor ORDER BY t_ns, seq))))",
        gap_ns = gap_ms * 1e6,
    )
}

/// A frame counts for the tick before it and the one after it, the more the nearer it is: a triangle of two steps. Its frequency
/// response is sinc²(f / rate): 0.41 at half the new rate, 0 at the rate, at most 0.05 above it.
fn downsampled(session: f64, rate_hz: f64) -> String {
    let step_ns = 1e9 / rate_hz;
    let mut means = String::new();
    for (kind, factor, unit) in [("acc", "* acc_to_mps2", "mps2"), ("gyro", "", "dps")] {
        let name = if kind == "acc" { "accel" } else { kind };
        for axis in ["x", "y", "z"] {
            let value = format!("{kind}_{axis} {factor}");
            // Writing to a String cannot fail.
            write!(
                means,
                ", sum(weight * {value}) / sum(CASE WHEN {value} IS NOT NULL THEN weight END) AS {name}_{axis}_{unit}"
            )
            .ok();
        }
    }
    format!(
        "SELECT session_id, sensor, tick, tick * {step_ns:?} / 1e9 AS t_s{means} FROM (\
         SELECT *, 1.0 - abs(t_ns / {step_ns:?} - tick) AS weight FROM (\
         SELECT *, unnest(make_array(CAST(floor(t_ns / {step_ns:?}) AS BIGINT), \
         CAST(floor(t_ns / {step_ns:?}) AS BIGINT) + 1)) AS tick \
         FROM frames WHERE session_id = {session:.0})) WHERE weight > 1e-9 GROUP BY session_id, sensor, tick"
    )
}

impl TableFunctionImpl for Expanded {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let arguments = args.exprs().iter().map(|argument| number(*self, argument)).collect::<Result<Vec<_>>>()?;
        let (sql, columns) = self.expand(&arguments)?;
        let state = args
            .session()
            .as_any()
            .downcast_ref::<SessionState>()
            .ok_or_else(|| DataFusionError::Internal("a table function outside of a statement".to_owned()))?;
        Ok(Arc::new(view_of(state, &sql, columns)?))
    }
}

/// A number that is written as such.
fn number(of: Expanded, argument: &Expr) -> Result<f64> {
    let value = match argument {
        Expr::Literal(value, _) => value.cast_to(&DataType::Float64).ok(),
        Expr::Negative(inner) => number(of, inner).ok().map(|value| ScalarValue::Float64(Some(-value))),
        _ => None,
    };
    match value {
        Some(ScalarValue::Float64(Some(value))) if value.is_finite() => Ok(value),
        _ => plan_err!("{}: arguments are numbers, not {argument}", of.usage()),
    }
}
