//! `volant analyze`: the pipeline on recording files, without a server.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use pipelines::{Analysis, Drill, Model, Severity, advice_text};
use serde::Serialize;

use crate::analysis::{Known, Registry};
use crate::recordings::read_recording;

/// Finds swings, names strokes and measures the kinetic chain in recording files.
///
/// Exit status: 0 analysed (issues of a recording are part of the answer), 1 a file cannot be read.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Recording files: CSV or Parquet with sensor, t_ms, ax, ay, az (m/s²), gx, gy, gz (°/s) and optionally roll, pitch,
    /// yaw (°), recording
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print JSON: one object for one recording, an array for several
    #[arg(long)]
    pub json: bool,
    /// A model file instead of the one that ships
    #[arg(long, value_name = "FILE", conflicts_with = "no_model")]
    pub model: Option<PathBuf>,
    /// Find and measure swings, name none
    #[arg(long)]
    pub no_model: bool,
    /// A pipeline file instead of the one that ships
    #[arg(long, alias = "params", value_name = "FILE")]
    pub pipeline: Option<PathBuf>,
}

/// An analysis with the name of its recording.
#[derive(Serialize)]
struct Named {
    recording: String,
    #[serde(flatten)]
    analysis: Analysis,
}

/// Runs the command.
///
/// # Errors
/// A file that cannot be read or does not fit.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Known { pipeline, model: own, .. } = load_pipeline(args.pipeline.as_deref())?;
    let model = match &args.model {
        Some(path) => Some(Arc::new(load_model(path)?)),
        None if args.no_model => None,
        None => own,
    };
    let mut analyses = Vec::new();
    for path in &args.files {
        for recording in read_recording(path)? {
            let analysis = pipeline.analyze(&recording.track, model.as_deref());
            analyses.push(Named { recording: recording.name, analysis });
        }
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        match analyses.as_slice() {
            [one] => serde_json::to_writer(&mut out, one)?,
            several => serde_json::to_writer(&mut out, several)?,
        }
        writeln!(out)?;
    } else {
        for (i, named) in analyses.iter().enumerate() {
            if i > 0 {
                writeln!(out)?;
            }
            out.write_all(text(named).as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The pipeline that ships, or that of a file, which may extend others beside it.
pub(super) fn load_pipeline(path: Option<&Path>) -> anyhow::Result<Known> {
    let folder =
        path.and_then(Path::parent).map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    let found = Registry::new(folder.unwrap_or(Path::new("")).to_owned()).look();
    let wanted = path.map(|path| folder.unwrap_or(Path::new("")).join(path.file_name().unwrap_or_default()));
    if let Some(known) = found.known.into_values().find(|known| known.path == wanted) {
        return Ok(known);
    }
    let refused = found.refused.into_iter().find(|refused| Some(refused.path()) == wanted.as_deref());
    match (refused, path) {
        (Some(refused), _) => Err(refused.into()),
        (None, Some(path)) => Err(anyhow::anyhow!("read pipeline {}: there is no such .toml file", path.display())),
        (None, None) => Err(anyhow::anyhow!("the pipeline that ships is not there")),
    }
}

/// A model file.
pub(super) fn load_model(path: &Path) -> anyhow::Result<Model> {
    let bytes = std::fs::read(path).with_context(|| format!("read model {}", path.display()))?;
    Model::from_bytes(&bytes).with_context(|| format!("use model {}", path.display()))
}

/// An analysis for people.
fn text(Named { recording, analysis }: &Named) -> String {
    let mut out = String::new();
    let session = &analysis.session;
    // Writing to a String cannot fail; the results are joined and dropped together below.
    let mut lines: Vec<String> = vec![format!(
        "{recording}: {:.1} s, {} samples, {} strokes",
        session.duration_s,
        session.frame_count,
        analysis.strokes.len()
    )];
    for (role, quality) in &session.sensors {
        let rate = quality.rate_hz.map_or_else(|| "rate unknown".to_owned(), |rate| format!("{rate:.1} Hz"));
        lines.push(format!(
            "  {:<9} {rate}, {} samples, {} gaps ({:.1} s), {:.1}% at the limit",
            role.as_str(),
            quality.samples,
            quality.gaps,
            quality.gap_s,
            quality.saturated_share * 100.0
        ));
    }
    if !analysis.strokes.is_empty() {
        lines.push(String::new());
        lines.push(
            "    start s   impact s      end s  sensor    stroke        sure  peak °/s  waist→shoulder→wrist→racket ms"
                .to_owned(),
        );
    }
    for stroke in &analysis.strokes {
        let figure = |name: &str, digits: usize| {
            stroke.metrics.get(name).map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
        };
        let sure = stroke.confidence.map_or_else(|| "–".to_owned(), |p| format!("{:.0}%", p * 100.0));
        lines.push(format!(
            " {:>10.3} {:>10.3} {:>10.3}  {:<9} {:<12} {sure:>5} {:>9}  {} {} {}",
            stroke.start_ms / 1e3,
            stroke.impact_ms / 1e3,
            stroke.end_ms / 1e3,
            stroke.sensor.as_str(),
            stroke.stroke,
            figure("peak_gyro_dps", 0),
            figure("delay_waist_shoulder_ms", 0),
            figure("delay_shoulder_wrist_ms", 0),
            figure("delay_wrist_racket_ms", 0),
        ));
    }
    if !session.stroke_counts.is_empty() {
        let counts: Vec<String> = session.stroke_counts.iter().map(|(name, n)| format!("{name} {n}")).collect();
        lines.push(String::new());
        lines.push(format!("  strokes         {}", counts.join(", ")));
    }
    for Drill { stroke, start_ms, end_ms, swings, named } in &session.drills {
        let (from_s, to_s) = (start_ms / 1e3, end_ms / 1e3);
        lines.push(format!("  drill           {stroke} from {from_s:.1} to {to_s:.1} s, {named} of {swings} swings"));
    }
    let shown = |value: Option<f64>, factor: f64, unit: &str| {
        value.map_or_else(|| "not computed".to_owned(), |value| format!("{:.1} {unit}", value * factor))
    };
    let delay = &session.phase_delay;
    lines.push(format!(
        "  phase delay     waist→shoulder {}, shoulder→wrist {}, wrist→racket {}",
        shown(delay.waist_to_shoulder, 1e3, "ms"),
        shown(delay.shoulder_to_wrist, 1e3, "ms"),
        shown(delay.wrist_to_racket, 1e3, "ms")
    ));
    lines.push(format!("  energy ratio    {}", shown(session.energy_ratio, 100.0, "%")));
    let rom = &session.rom_data;
    lines.push(format!(
        "  range of motion waist {}, shoulder {}, wrist {}",
        shown(rom.waist, 1.0, "°"),
        shown(rom.shoulder, 1.0, "°"),
        shown(rom.wrist, 1.0, "°")
    ));
    lines.push(format!("  score           {}", shown(session.scores.overall, 1.0, "of 100")));
    for code in &session.recommendations {
        if let Some((english, _)) = advice_text(code) {
            lines.push(format!("  advice          {english}"));
        }
    }
    for issue in &analysis.issues {
        let word = match issue.severity {
            Severity::Info => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        lines.push(format!("  {word:<15} {}", issue.message));
    }
    for line in lines {
        writeln!(out, "{line}").expect("writing to a String cannot fail");
    }
    out
}

#[cfg(test)]
mod tests {
    use pipelines::Params;

    use super::*;

    #[test]
    fn the_text_says_what_was_not_computed() {
        let analysis = pipelines::analyze(&schemas::Track::default(), Params::builtin(), None);
        let text = text(&Named { recording: "empty".to_owned(), analysis });
        assert!(text.starts_with("empty: 0.0 s, 0 samples, 0 strokes"), "{text}");
        assert!(text.contains("energy ratio    not computed"), "{text}");
        assert!(text.contains("no usable sample"), "{text}");
    }

    #[test]
    fn json_has_the_fields_of_the_contract_at_its_top() {
        let analysis = pipelines::analyze(&schemas::Track::default(), Params::builtin(), None);
        let json = serde_json::to_value(Named { recording: "r".to_owned(), analysis }).unwrap();
        for field in ["strokes", "session", "issues", "provenance", "recording"] {
            assert!(json.get(field).is_some(), "{field}");
        }
    }

    #[test]
    fn a_model_that_is_none_is_refused_with_its_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = format!("{:#}", load_model(file.path()).unwrap_err());
        assert!(error.contains(&file.path().display().to_string()), "{error}");
    }
}
