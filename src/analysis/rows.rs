//! An analysis as rows of the `strokes` and `results` tables.

use pipelines::{Analysis, Stroke};
use schemas::AnalysisId;

use super::Error;
use crate::store::catalog::{SessionRow, StoredFile};
use crate::store::paths::Paths;
use crate::store::results::{ResultRow, StrokeRow, write_results, write_strokes};
use crate::store::seal::Manifest;

/// Publishes the strokes and the result of a session as Parquet, over those of an earlier analysis.
pub(super) fn write(
    paths: &Paths,
    session: &SessionRow,
    analysis_id: AnalysisId,
    created_at_us: i64,
    analysis: &Analysis,
) -> Result<(StoredFile, StoredFile), Error> {
    let session_id = session.session_id;
    let failed = |source| Error::Write { session_id, source };
    let json_failed = |source| Error::Encode { session_id, source };
    let strokes = analysis
        .strokes
        .iter()
        .zip(0..)
        .map(|(stroke, index)| stroke_row(session, stroke, index))
        .collect::<Result<Vec<_>, _>>()
        .map_err(json_failed)?;
    let result = result_row(session, analysis_id, created_at_us, analysis).map_err(json_failed)?;
    let strokes = write_strokes(paths, session_id, session.started_at_us, &strokes).map_err(failed)?;
    let result = write_results(paths, session_id, session.started_at_us, &[result]).map_err(failed)?;
    Ok((stored(&strokes), stored(&result)))
}

fn stored(manifest: &Manifest) -> StoredFile {
    StoredFile { path: manifest.path.to_string(), bytes: manifest.bytes as i64 }
}

fn ns(ms: f64) -> i64 {
    (ms * 1e6).round() as i64
}

fn stroke_row(session: &SessionRow, stroke: &Stroke, index: i32) -> Result<StrokeRow, serde_json::Error> {
    let figure = |name: &str| stroke.metrics.get(name).copied();
    Ok(StrokeRow {
        session_id: session.session_id.get(),
        stroke_index: index,
        device_code: session.device_code.to_string(),
        user_id: session.user_id.map(schemas::UserId::get),
        sensor: stroke.sensor.to_string(),
        start_ns: ns(stroke.start_ms),
        impact_ns: ns(stroke.impact_ms),
        end_ns: ns(stroke.end_ms),
        stroke: stroke.stroke.clone(),
        confidence: stroke.confidence,
        probabilities: serde_json::to_string(&stroke.probabilities)?,
        peak_gyro_dps: figure("peak_gyro_dps"),
        peak_accel_mps2: figure("peak_accel_mps2"),
        racket_head_speed_mps: figure("racket_head_speed_mps"),
        delay_waist_shoulder_ms: figure("delay_waist_shoulder_ms"),
        delay_shoulder_wrist_ms: figure("delay_shoulder_wrist_ms"),
        delay_wrist_racket_ms: figure("delay_wrist_racket_ms"),
        delay_uncertainty_ms: figure("delay_uncertainty_ms"),
        order_tau: figure("order_tau"),
        metrics: serde_json::to_string(&stroke.metrics)?,
    })
}

fn result_row(
    session: &SessionRow,
    analysis_id: AnalysisId,
    created_at_us: i64,
    analysis: &Analysis,
) -> Result<ResultRow, serde_json::Error> {
    let figures = &analysis.session;
    let provenance = &analysis.provenance;
    let model = provenance.model.as_ref().zip(provenance.model_sha256.as_ref());
    Ok(ResultRow {
        session_id: session.session_id.get(),
        analysis_id: analysis_id.get(),
        device_code: session.device_code.to_string(),
        user_id: session.user_id.map(schemas::UserId::get),
        created_at_us,
        pipeline: format!("{} {}", provenance.name, provenance.pipeline).trim_start().to_owned(),
        params_sha256: provenance.params_sha256.clone(),
        model: model.map(|(name, sha256)| format!("{name} {sha256}")),
        frame_count: figures.frame_count as i64,
        stroke_count: i32::try_from(analysis.strokes.len()).unwrap_or(i32::MAX),
        phase_delay_waist_to_shoulder_s: figures.phase_delay.waist_to_shoulder,
        phase_delay_shoulder_to_wrist_s: figures.phase_delay.shoulder_to_wrist,
        energy_ratio: figures.energy_ratio,
        rom_waist_deg: figures.rom_data.waist,
        rom_shoulder_deg: figures.rom_data.shoulder,
        rom_wrist_deg: figures.rom_data.wrist,
        overall_score: figures.scores.overall,
        session: serde_json::to_string(figures)?,
        issues: serde_json::to_string(&analysis.issues)?,
    })
}
