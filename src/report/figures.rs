//! Figures as text: rounding, units, absence with its reason; and the figures of the chain and the scores as lists
//! that text and page share.

use pipelines::{Advice, Analysis, Drill, IssueCode, Params, SessionFigures, Stroke};
use schemas::SensorRole;

use crate::texts::{Lang, class, label};

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

/// One line on a drill.
pub(super) fn drill_text(drill: &Drill, lang: Lang) -> String {
    label(lang, "drill")
        .replace("{stroke}", &class(lang, &drill.stroke))
        .replace("{from}", &clock(drill.start_ms / 1e3))
        .replace("{to}", &clock(drill.end_ms / 1e3))
        .replace("{swings}", &count(drill.swings))
        .replace("{named}", &count(drill.named))
}

/// Probability of the stroke's name, or of what it came nearest to where it has none.
pub(super) fn sureness(stroke: &Stroke) -> Option<f64> {
    stroke.nearest().map(|(_, probability)| probability).or(stroke.confidence).filter(|part| part.is_finite())
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
    /// Its 95% interval, in its unit.
    pub(super) interval: Option<(f64, f64)>,
}

impl Figure {
    /// `78–92 ms`, or `None` where no interval is stated.
    pub(super) fn shown_interval(&self) -> Option<String> {
        self.interval.map(|(low, high)| range(low, high, self.decimals, self.unit))
    }

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

fn range(low: f64, high: f64, decimals: usize, unit: &str) -> String {
    // A dash between numbers of which one is negative reads as a minus.
    let dash = if low < 0.0 { " … " } else { "–" };
    format!("{}{dash}{}", fixed(low, decimals), with_unit(high, decimals, unit))
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
        interval: interval(session, &format!("delay_{from}_{to}_session")),
    };
    let range = |name, key, value, recommended| Figure {
        name,
        label: label(lang, key).to_owned(),
        value,
        recommended,
        unit: "°",
        decimals: 0,
        interval: None,
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
            interval: None,
        },
        range("rom_data.waist", "waist_rotation", rom.waist, ideal.ideal_rom_waist_deg),
        range("rom_data.shoulder", "shoulder_flexion", rom.shoulder, ideal.ideal_rom_shoulder_deg),
        range("rom_data.wrist", "wrist_extension", rom.wrist, ideal.ideal_rom_wrist_deg),
    ]
}

fn interval(session: &SessionFigures, name: &str) -> Option<(f64, f64)> {
    let end = |end: &str| session.metrics.get(&format!("{name}_{end}_ms")).copied().filter(|value| value.is_finite());
    end("low").zip(end("high"))
}

/// Further figures of the session that are there: label, value with its unit, and what it is to be read with.
pub(super) fn further_figures(analysis: &Analysis, lang: Lang) -> Vec<(&'static str, String, String)> {
    // Key of the label, figure, unit, factor from the figure's unit, decimals.
    const PLAIN: [(&str, &str, &str, f64, usize); 18] = [
        ("racket_head_speed", "racket_head_speed_mps_median", "m/s", 1.0, 1),
        ("racket_head_speed_max", "racket_head_speed_mps_max", "m/s", 1.0, 1),
        ("order_median", "order_tau_median", "", 1.0, 2),
        ("acceleration_phase", "acceleration_phase_ms_median", "ms", 1.0, 0),
        ("trunk_separation", "separation_waist_shoulder_deg_median", "°", 1.0, 0),
        ("smoothness", "smoothness_sparc_median", "", 1.0, 2),
        ("repeatability", "template_correlation_median", "", 1.0, 2),
        ("impacts_felt", "impact_felt_share", "%", 100.0, 0),
        ("rallies", "rally_count", "", 1.0, 0),
        ("strokes_per_rally", "strokes_per_rally", "", 1.0, 1),
        ("longest_rally", "longest_rally_strokes", "", 1.0, 0),
        ("work_rest", "work_rest_ratio", "", 1.0, 2),
        ("load", "player_load", "", 1.0, 0),
        ("hard_share", "intensity_zone_4_share", "%", 100.0, 0),
        ("trend_rate", "trend_peak_gyro_per_10min", "%", 100.0, 1),
        ("trend_speed", "trend_racket_head_speed_per_10min", "%", 100.0, 1),
        ("symmetry", "symmetry_waist_left_right", "%", 100.0, 0),
        ("percentile_rate", "peak_gyro_dps_percentile_median", "", 1.0, 0),
    ];
    let metrics = &analysis.session.metrics;
    let value = |name: &str| metrics.get(name).copied().filter(|value| value.is_finite());
    PLAIN
        .into_iter()
        .filter_map(|(key, name, unit, factor, decimals)| {
            let shown = with_unit(value(name)? * factor, decimals, unit);
            let note = match key {
                "trend_rate" | "trend_speed" => {
                    let p = value(&name.replace("_per_10min", "_p"));
                    p.map_or_else(String::new, |p| {
                        let key = if p < 0.05 { "trend_sure" } else { "trend_chance" };
                        label(lang, key).replace("{p}", &fixed(p, 3))
                    })
                }
                "percentile_rate" => label(lang, "percentile_note").to_owned(),
                _ => String::new(),
            };
            Some((label(lang, key), shown, note))
        })
        .collect()
}

/// Strokes that advice rests on, as people count them, at most eight.
pub(super) fn evidence_strokes(advice: &Advice, lang: Lang) -> Option<String> {
    const SHOWN: usize = 8;
    let strokes = &advice.evidence.strokes;
    if strokes.is_empty() {
        return None;
    }
    let mut numbers: Vec<String> = strokes.iter().take(SHOWN).map(|index| (index + 1).to_string()).collect();
    if strokes.len() > SHOWN {
        numbers.push("…".to_owned());
    }
    Some(label(lang, "see_strokes").replace("{strokes}", &numbers.join(", ")))
}

/// Advice and its reason in a language.
pub(super) fn advice_texts(advice: &Advice, lang: Lang) -> (&str, &str) {
    match lang {
        Lang::En => (&advice.text, &advice.reason),
        Lang::Zh => (&advice.text_zh, &advice.reason_zh),
    }
}

/// Codes of advice that no rule explains, for their bare sentences.
pub(super) fn bare_codes(analysis: &Analysis) -> impl Iterator<Item = &str> {
    let explained = |code: &str| analysis.session.advice.iter().any(|advice| advice.code == code);
    analysis.session.recommendations.iter().map(String::as_str).filter(move |code| !explained(code))
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
    let weakens = |code| {
        matches!(
            code,
            IssueCode::Gap
                | IssueCode::Saturation
                | IssueCode::ClockJump
                | IssueCode::FramesUntimed
                | IssueCode::ClockUnsynced
                | IssueCode::ClockDriftSuspected
        )
    };
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
