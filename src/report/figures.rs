//! Figures as text: rounding, units, absence with its reason; and the figures of the chain and the scores as lists
//! that text and page share.

use pipelines::{Analysis, IssueCode, Params, Stroke};
use schemas::SensorRole;

use crate::texts::{Lang, label};

/// Shown in a table where a figure is absent.
pub(super) const ABSENT: &str = "–";

/// A number with `decimals` places; never "-0".
pub(super) fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if text.starts_with('-') && text.bytes().all(|b| matches!(b, b'-' | b'0' | b'.')) {
        text[1..].to_owned()
    } else {
        text
    }
}

/// A number, or [`ABSENT`].
pub(super) fn optional(value: Option<f64>, decimals: usize) -> String {
    value.filter(|value| value.is_finite()).map_or_else(|| ABSENT.to_owned(), |value| fixed(value, decimals))
}

/// A count with a narrow no-break space at each thousand.
pub(super) fn count(value: usize) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Minutes and seconds, `1:02.5`.
pub(super) fn clock(t_s: f64) -> String {
    let tenths = (t_s.max(0.0) * 10.0).round() as u64;
    format!("{}:{:02}.{}", tenths / 600, tenths / 10 % 60, tenths % 10)
}

/// A figure of the session with the value that the legacy report recommends.
pub(super) struct Figure {
    /// Its name in the result, by which an issue says that it affects it.
    pub(super) name: &'static str,
    pub(super) label: String,
    pub(super) value: Option<f64>,
    pub(super) recommended: f64,
    pub(super) unit: &'static str,
    pub(super) decimals: usize,
}

impl Figure {
    /// `81 ms`, or `None` when absent.
    pub(super) fn shown(&self) -> Option<String> {
        let value = self.value.filter(|value| value.is_finite())?;
        Some(with_unit(value, self.decimals, self.unit))
    }

    pub(super) fn shown_recommended(&self) -> String {
        with_unit(self.recommended, self.decimals, self.unit)
    }
}

fn with_unit(value: f64, decimals: usize, unit: &str) -> String {
    match unit {
        "" => fixed(value, decimals),
        "°" => format!("{}°", fixed(value, decimals)),
        _ => format!("{} {unit}", fixed(value, decimals)),
    }
}

/// The recommended delay from wrist to racket, ms: the legacy report shows it and scores nothing by it, so it is not among
/// the pipeline's parameters.
const IDEAL_WRIST_TO_RACKET_MS: f64 = 30.0;

/// The chain's figures, with the values that the scores take as ideal.
pub(super) fn chain_figures(analysis: &Analysis, lang: Lang) -> Vec<Figure> {
    let session = &analysis.session;
    let ideal = &Params::builtin().report;
    let sensor = |role| crate::texts::sensor(lang, role);
    let delay = |name, from, to, seconds: Option<f64>, recommended| Figure {
        name,
        label: format!("{} → {}", sensor(from), sensor(to)),
        value: seconds.map(|seconds| seconds * 1e3),
        recommended,
        unit: "ms",
        decimals: 0,
    };
    let range = |name, key, value, recommended| Figure {
        name,
        label: label(lang, key).to_owned(),
        value,
        recommended,
        unit: "°",
        decimals: 0,
    };
    let phase = &session.phase_delay;
    let rom = &session.rom_data;
    vec![
        delay("phase_delay.waist_to_shoulder", SensorRole::Waist, SensorRole::Shoulder, phase.waist_to_shoulder, 80.0),
        delay("phase_delay.shoulder_to_wrist", SensorRole::Shoulder, SensorRole::Wrist, phase.shoulder_to_wrist, 50.0),
        delay(
            "phase_delay.wrist_to_racket",
            SensorRole::Wrist,
            SensorRole::Racket,
            phase.wrist_to_racket,
            IDEAL_WRIST_TO_RACKET_MS,
        ),
        Figure {
            name: "energy_ratio",
            label: label(lang, "energy_ratio").to_owned(),
            value: session.energy_ratio,
            recommended: ideal.ideal_energy_ratio,
            unit: "",
            decimals: 2,
        },
        range("rom_data.waist", "waist_rotation", rom.waist, ideal.ideal_rom_waist_deg),
        range("rom_data.shoulder", "shoulder_flexion", rom.shoulder, ideal.ideal_rom_shoulder_deg),
        range("rom_data.wrist", "wrist_extension", rom.wrist, ideal.ideal_rom_wrist_deg),
    ]
}

/// The scores with their names, the overall one first.
pub(super) fn scores(analysis: &Analysis, lang: Lang) -> [(&'static str, &'static str, Option<f64>); 4] {
    let scores = &analysis.session.scores;
    [
        ("scores.overall", label(lang, "score_overall"), scores.overall),
        ("scores.delay", label(lang, "score_delay"), scores.delay),
        ("scores.energy", label(lang, "score_energy"), scores.energy),
        ("scores.rom", label(lang, "score_rom"), scores.rom),
    ]
}

/// Why a figure is absent: the issue that names it, or what it is a part of. One that takes data away says more than one
/// that weakens them; among equals the most serious, the one about the figure itself, the first.
pub(super) fn reason<'a>(analysis: &'a Analysis, name: &str, lang: Lang) -> &'a str {
    let names =
        |affected: &str| affected == name || name.strip_prefix(affected).is_some_and(|rest| rest.starts_with('.'));
    let weakens =
        |code| matches!(code, IssueCode::Gap | IssueCode::Saturation | IssueCode::ClockJump | IssueCode::ClockUnsynced);
    let issue =
        analysis.issues.iter().rev().filter(|issue| issue.affects.iter().any(|affected| names(affected))).max_by_key(
            |issue| (!weakens(issue.code), issue.severity, issue.affects.iter().any(|affected| affected == name)),
        );
    match issue {
        Some(issue) => issue_text(issue, lang),
        None => label(lang, "no_reason"),
    }
}

/// The issue in the report's language.
pub(super) fn issue_text(issue: &pipelines::Issue, lang: Lang) -> &str {
    match lang {
        Lang::En => &issue.message,
        Lang::Zh => &issue.message_zh,
    }
}

/// A figure of a stroke, finite.
pub(super) fn metric(stroke: &Stroke, name: &str) -> Option<f64> {
    stroke.metrics.get(name).copied().filter(|value| value.is_finite())
}

/// The delays of a stroke in chain order, ms.
pub(super) fn delays_ms(stroke: &Stroke) -> [Option<f64>; 3] {
    ["delay_waist_shoulder_ms", "delay_shoulder_wrist_ms", "delay_wrist_racket_ms"].map(|name| metric(stroke, name))
}

/// Classes with their counts, most frequent first, then by name.
pub(super) fn classes(analysis: &Analysis) -> Vec<(&str, usize)> {
    let mut classes: Vec<_> =
        analysis.session.stroke_counts.iter().map(|(class, &count)| (class.as_str(), count)).collect();
    classes.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    classes
}
