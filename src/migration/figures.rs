//! The old system's figures, as an analysis that says whose they are.
//!
//! Where that system could not compute, it stored constants: delays of 0.08 and 0.05 s, which are also its ideals; with
//! those a ratio of 0.75 and ranges of 45, 120 and 45°; 0 for a sensor that was missing. Such a figure is no measurement:
//! it is kept as it was in `imported_results`, named in `issues`, and null where a client would take it for one.

use pipelines::{Analysis, Issue, IssueCode, PhaseDelay, Provenance, RangeOfMotion, SessionFigures, Severity};
use serde_json::Value;

/// The pipeline's name in results that are not ours.
pub(super) const PIPELINE: &str = "django-badminton-analysis (imported)";

/// What was stored, read.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) analysis: Analysis,
    /// Names of the figures that are constants.
    pub(super) constants: Vec<&'static str>,
}

fn field(value: &Value, name: &str) -> Option<f64> {
    value.get(name)?.as_f64().filter(|figure| figure.is_finite())
}

fn equals(figure: Option<f64>, constant: f64) -> bool {
    figure.is_some_and(|figure| (figure - constant).abs() < 1e-9)
}

/// Reads the three columns; `None` if none of them holds a figure.
pub(super) fn read(phase_delay: Option<&str>, energy_ratio: Option<&str>, rom_data: Option<&str>) -> Option<Figures> {
    let object = |text: Option<&str>| text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
    let (delays, ranges) = (object(phase_delay), object(rom_data));
    let mut delay = PhaseDelay {
        waist_to_shoulder: field(&delays, "waist_to_shoulder"),
        shoulder_to_wrist: field(&delays, "shoulder_to_wrist"),
        wrist_to_racket: None,
    };
    let mut ratio = energy_ratio.and_then(|text| text.parse::<f64>().ok()).filter(|ratio| ratio.is_finite());
    let mut rom = RangeOfMotion {
        waist: field(&ranges, "waist"),
        shoulder: field(&ranges, "shoulder"),
        wrist: field(&ranges, "wrist"),
    };
    let found = [delay.waist_to_shoulder, delay.shoulder_to_wrist, ratio, rom.waist, rom.shoulder, rom.wrist];
    if found.iter().all(Option::is_none) {
        return None;
    }
    let mut constants = Vec::new();
    let delays = (delay.waist_to_shoulder, delay.shoulder_to_wrist);
    if (equals(delays.0, 0.08) && equals(delays.1, 0.05)) || (equals(delays.0, 0.0) && equals(delays.1, 0.0)) {
        constants.push("phase_delay");
        delay = PhaseDelay::default();
    }
    let all_ranges = equals(rom.waist, 45.0) && equals(rom.shoulder, 120.0) && equals(rom.wrist, 45.0);
    if equals(ratio, 0.0) || equals(ratio, 0.65) || (equals(ratio, 0.75) && all_ranges) {
        constants.push("energy_ratio");
        ratio = None;
    }
    for (name, range, constant) in [
        ("rom_data.waist", &mut rom.waist, 45.0),
        ("rom_data.shoulder", &mut rom.shoulder, 120.0),
        ("rom_data.wrist", &mut rom.wrist, 45.0),
    ] {
        if equals(*range, 0.0) || (all_ranges && equals(*range, constant)) {
            constants.push(name);
            *range = None;
        }
    }
    let mut issues = vec![Issue {
        code: IssueCode::Imported,
        severity: Severity::Info,
        sensor: None,
        message: "These figures were computed by the system that this service replaced, not by this service."
            .to_owned(),
        message_zh: "这些数据由被替换的旧系统计算，并非本服务的结果。".to_owned(),
        affects: ["phase_delay", "energy_ratio", "rom_data"].map(str::to_owned).to_vec(),
    }];
    if !constants.is_empty() {
        let named = constants.join(", ");
        issues.push(Issue {
            code: IssueCode::ImportedConstants,
            severity: Severity::Error,
            sensor: None,
            message: format!("The old system stored constants where it could not measure: {named}."),
            message_zh: format!("旧系统在无法测量时存入了固定值：{named}。"),
            affects: constants.iter().map(|&name| name.to_owned()).collect(),
        });
    }
    let session =
        SessionFigures { phase_delay: delay, energy_ratio: ratio, rom_data: rom, ..SessionFigures::default() };
    let provenance = Provenance {
        name: String::new(),
        pipeline: PIPELINE.to_owned(),
        params_sha256: String::new(),
        model: None,
        model_sha256: None,
    };
    Some(Figures { analysis: Analysis { strokes: Vec::new(), session, issues, provenance }, constants })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_figures_stand_and_say_whose_they_are() {
        let figures = read(
            Some(r#"{"waist_to_shoulder": 0.11, "shoulder_to_wrist": 0.06}"#),
            Some("0.71"),
            Some(r#"{"waist": 40.5, "shoulder": 111, "wrist": 52.0}"#),
        )
        .unwrap();
        assert!(figures.constants.is_empty());
        let session = &figures.analysis.session;
        assert_eq!(session.phase_delay.waist_to_shoulder, Some(0.11));
        assert_eq!((session.energy_ratio, session.rom_data.shoulder), (Some(0.71), Some(111.0)));
        assert_eq!(session.scores.overall, None);
        assert_eq!(figures.analysis.provenance.pipeline, PIPELINE);
        assert_eq!(figures.analysis.issues.len(), 1);
    }

    #[test]
    fn the_constants_of_a_failed_analysis_are_no_figures() {
        let figures = read(
            Some(r#"{"waist_to_shoulder": 0.08, "shoulder_to_wrist": 0.05}"#),
            Some("0.75"),
            Some(r#"{"waist": 45, "shoulder": 120, "wrist": 45}"#),
        )
        .unwrap();
        assert_eq!(
            figures.constants,
            ["phase_delay", "energy_ratio", "rom_data.waist", "rom_data.shoulder", "rom_data.wrist"]
        );
        assert_eq!(figures.analysis.session.energy_ratio, None);
        assert_eq!(figures.analysis.issues[1].code, IssueCode::ImportedConstants);
        // 45° alone may be measured.
        let measured = read(None, Some("0.75"), Some(r#"{"waist": 45, "shoulder": 99, "wrist": 0}"#)).unwrap();
        assert_eq!(measured.constants, ["rom_data.wrist"]);
        assert!(read(Some("nonsense"), Some("much"), None).is_none());
    }
}
