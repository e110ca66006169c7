//! The report of one stored session.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::error::ArrowError;
use futures::StreamExt;
use futures::future::BoxFuture;
use schemas::{SensorRole, SessionId};

use crate::report::{self, Curve, CurvePoint, Lang};
use crate::{analysis, query, sessions};

/// What the pages need.
#[derive(Clone, Debug)]
pub struct State {
    pub analysis: analysis::Handle,
    pub query: query::Handle,
    pub sessions: sessions::Handle,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("look up session {session_id}")]
    Session {
        session_id: SessionId,
        #[source]
        source: sessions::Error,
    },
    #[error("look up the result of session {session_id}")]
    Result {
        session_id: SessionId,
        #[source]
        source: analysis::Error,
    },
    #[error("ask for the rows of a page")]
    Query(#[from] query::Error),
    #[error("read the rows of a page")]
    Rows(#[from] ArrowError),
}

/// The report of a session as a page; `None` if the session has no result (yet).
///
/// The future is boxed: it carries a query.
pub fn session_report(
    state: &State,
    session_id: SessionId,
    lang: Lang,
) -> BoxFuture<'static, Result<Option<String>, Error>> {
    let state = state.clone();
    Box::pin(async move {
        let published = state.analysis.published(session_id).await;
        let published = published.map_err(|source| Error::Result { session_id, source })?;
        let Some(published) = published else { return Ok(None) };
        let session = state.sessions.info(session_id).await;
        let session = session.map_err(|source| Error::Session { session_id, source })?;
        let curves = curves(&state.query, session_id, &published.analysis).await?;
        let context = report::Context {
            title: None,
            session_id: Some(session_id.to_string()),
            device: session.as_ref().map(|session| session.device_code.to_string()),
            player: session.as_ref().and_then(|session| session.user_id).map(|user| user.to_string()),
            started_at_us: session.map(|session| session.started_at_us),
            curves,
        };
        // Some milliseconds of formatting: not on a socket's thread.
        let page = tokio::task::spawn_blocking(move || report::html(&published.analysis, &context, lang)).await;
        Ok(page.ok())
    })
}

/// |ω| of each sensor, thinned by the query itself, so that a session of hours is as cheap to draw as one of minutes.
async fn curves(
    query: &query::Handle,
    session_id: SessionId,
    analysis: &pipelines::Analysis,
) -> Result<Vec<Curve>, Error> {
    let column_s = (analysis.session.duration_s / report::COLUMNS as f64).max(1e-3);
    let column_ns = (column_s * 1e9) as i64;
    let sql = format!(
        "SELECT sensor, min(t_ns) AS t_ns, min(rate) AS least, max(rate) AS most FROM (\
           SELECT sensor, t_ns, sqrt(CAST(gyro_x * gyro_x + gyro_y * gyro_y + gyro_z * gyro_z AS DOUBLE)) AS rate \
           FROM frames WHERE session_id = {session_id} \
             AND gyro_x IS NOT NULL AND gyro_y IS NOT NULL AND gyro_z IS NOT NULL) \
         GROUP BY sensor, t_ns / {column_ns} ORDER BY sensor, t_ns"
    );
    let mut points: [Vec<CurvePoint>; 4] = Default::default();
    for batch in rows(query, &sql).await? {
        let sensors = cast(batch.column(0), &DataType::Utf8)?;
        let sensors = sensors.as_string::<i32>();
        let times = batch.column(1).as_primitive::<Int64Type>();
        let (least, most) =
            (batch.column(2).as_primitive::<Float64Type>(), batch.column(3).as_primitive::<Float64Type>());
        for row in 0..batch.num_rows() {
            let place = SensorRole::from_name(sensors.value(row)).chain_index();
            if let Some(points) = place.and_then(|place| points.get_mut(place)) {
                points.push(CurvePoint {
                    t_s: times.value(row) as f64 / 1e9,
                    min_dps: least.value(row),
                    max_dps: most.value(row),
                });
            }
        }
    }
    let curves = SensorRole::CHAIN.into_iter().zip(points).filter(|(_, points)| !points.is_empty());
    Ok(curves
        .map(|(role, points)| {
            let rate_hz = analysis.session.sensors.get(&role).and_then(|quality| quality.rate_hz);
            let step_s = rate_hz.filter(|rate_hz| *rate_hz > 0.0).map_or(column_s, f64::recip);
            Curve::of_points(role, points, report::gap_s(column_s, step_s))
        })
        .collect())
}

/// The batches of a statement of ours.
pub(super) async fn rows(query: &query::Handle, sql: &str) -> Result<Vec<RecordBatch>, Error> {
    let mut answer = query.query(sql, query.limits()).await?;
    let mut batches = Vec::new();
    while let Some(batch) = answer.batches.next().await {
        batches.push(batch?);
    }
    Ok(batches)
}
