//! Advice: rules from a data file, each with its reason and its evidence.
//!
//! A rule names a figure, a limit and two texts. It speaks only where the figure is there, and where the rule names an
//! interval only if the whole interval lies beyond the limit: what is not resolved advises nobody. See the head of
//! `rules/advice.toml` for the format.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::analysis::{SessionFigures, Stroke};
use crate::calibrate::median;
use crate::figures::{Per, figure};
use crate::params::{Params, ReportParams};

/// The rules that ship with the product.
const DEFAULT: &str = include_str!("../rules/advice.toml");

/// One piece of advice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Advice {
    /// The rule's code.
    pub code: String,
    /// What to do.
    pub text: String,
    /// The same in Chinese.
    pub text_zh: String,
    /// Why, with the figures.
    pub reason: String,
    /// The same in Chinese.
    pub reason_zh: String,
    /// What it rests on.
    pub evidence: Evidence,
}

/// What advice rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Evidence {
    /// Name of the figure, as `docs/figures.md` has it.
    pub figure: String,
    /// Its value, in its unit.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// The limit that it lies beyond, same unit.
    pub against: f64,
    /// What the limit is: `ideal`, `limit`, `own_first` (the session's first strokes) or `history`.
    pub compared_with: String,
    /// The class of strokes that it is about; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stroke: Option<String>,
    /// Indices of the strokes that show it, in time order, at most [`EVIDENCE_STROKES_MAX`].
    pub strokes: Vec<usize>,
}

/// Strokes that evidence lists at most: those furthest beyond the limit.
pub const EVIDENCE_STROKES_MAX: usize = 20;

/// Pieces of advice that a session gets at most: nobody works on more at once.
const ADVICE_MAX: usize = 6;
/// Strokes of a class that a rule on strokes needs, and the share of them that must lie beyond the limit.
const STROKES_MIN: usize = 5;
const SHARE_MIN: f64 = 0.6;

/// A set of rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rule: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    code: String,
    figure: String,
    per: Scope,
    above: Option<Limit>,
    below: Option<Limit>,
    interval: Option<[String; 2]>,
    interval_factor: Option<f64>,
    #[serde(default)]
    when: Vec<Condition>,
    strokes: Option<Pointer>,
    strokes_from: Option<String>,
    against: Against,
    en: String,
    zh: String,
    why: String,
    why_zh: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scope {
    Stroke,
    Session,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Against {
    Ideal,
    Limit,
    OwnFirst,
    History,
}

impl Against {
    const fn name(self) -> &'static str {
        match self {
            Self::Ideal => "ideal",
            Self::Limit => "limit",
            Self::OwnFirst => "own_first",
            Self::History => "history",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Limit {
    Number(f64),
    Key(String),
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    figure: String,
    above: Option<f64>,
    below: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pointer {
    figure: String,
    /// Turns the rule's limit into the unit of the strokes' figure.
    factor: f64,
}

/// Why a file of rules was refused.
#[derive(Debug, thiserror::Error)]
pub enum AdviceError {
    /// Not TOML, or a key that is unknown, missing or of the wrong type.
    #[error("read the rules of advice: {source}")]
    Syntax {
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Two rules with one code.
    #[error("take rule {code}: its code occurs twice")]
    Twice {
        /// The code.
        code: String,
    },
    /// A code that is no `snake_case` word.
    #[error("take rule {code:?}: a code has 1 to 64 lower-case letters, digits and '_'")]
    Code {
        /// The code.
        code: String,
    },
    /// A figure that no analysis has.
    #[error("take rule {code}: there is no figure {figure} of this kind, see docs/figures.md")]
    Figure {
        /// The rule's code.
        code: String,
        /// The name given.
        figure: String,
    },
    /// Neither `above` nor `below`, or both.
    #[error("take rule {code}: each condition needs either above or below")]
    Condition {
        /// The rule's code.
        code: String,
    },
    /// A limit that is no number and no key of `[report]`.
    #[error("take rule {code}: {limit} is no number and no key of [report]")]
    Limit {
        /// The rule's code.
        code: String,
        /// What stands there.
        limit: String,
    },
    /// A text that is empty, or that asks for something that is not known.
    #[error("take rule {code}: its text {text:?} is empty or has an unknown word in braces")]
    Text {
        /// The rule's code.
        code: String,
        /// The text.
        text: String,
    },
}

impl Rules {
    /// The rules that ship with the product.
    #[must_use]
    pub fn builtin() -> &'static Self {
        static BUILTIN: LazyLock<Rules> =
            LazyLock::new(|| Rules::from_toml(DEFAULT).expect("a test reads the shipped file"));
        &BUILTIN
    }

    /// Reads a file of rules.
    ///
    /// # Errors
    /// What is not a rule: unknown keys, figures, limits or words, a code that occurs twice.
    pub fn from_toml(text: &str) -> Result<Self, AdviceError> {
        let file: File = toml::from_str(text).map_err(|source| AdviceError::Syntax { source: Box::new(source) })?;
        let mut seen = std::collections::BTreeSet::new();
        for rule in &file.rule {
            rule.validate()?;
            if !seen.insert(rule.code.as_str()) {
                return Err(AdviceError::Twice { code: rule.code.clone() });
            }
        }
        Ok(Self(file.rule))
    }

    /// The codes of the rules, in their order.
    pub fn codes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|rule| rule.code.as_str())
    }
}

/// The words that texts may use.
const WORDS: [&str; 9] =
    ["{value}", "{against}", "{unit}", "{count}", "{of}", "{stroke}", "{percent}", "{pace}", "{figure}"];

impl Rule {
    fn validate(&self) -> Result<(), AdviceError> {
        let code = || self.code.clone();
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if self.code.is_empty() || self.code.len() > 64 || !self.code.chars().all(word) {
            return Err(AdviceError::Code { code: code() });
        }
        let per = match self.per {
            Scope::Stroke => Per::Stroke,
            Scope::Session => Per::Session,
        };
        let known = |name: &str, per: Per| {
            figure(name, per).map(|_| ()).ok_or_else(|| AdviceError::Figure { code: code(), figure: name.to_owned() })
        };
        known(&self.figure, per)?;
        for name in self.interval.iter().flatten() {
            known(name, per)?;
        }
        for condition in &self.when {
            known(&condition.figure, Per::Session)?;
            if condition.above.is_some() == condition.below.is_some() {
                return Err(AdviceError::Condition { code: code() });
            }
        }
        if let Some(pointer) = &self.strokes {
            known(&pointer.figure, Per::Stroke)?;
        }
        if let Some(name) = &self.strokes_from {
            known(name, Per::Session)?;
        }
        if self.above.is_some() == self.below.is_some() {
            return Err(AdviceError::Condition { code: code() });
        }
        if let Some(limit) = self.above.as_ref().or(self.below.as_ref())
            && limit_value(limit, &Params::builtin().report).is_none()
        {
            let limit = match limit {
                Limit::Number(number) => number.to_string(),
                Limit::Key(key) => key.clone(),
            };
            return Err(AdviceError::Limit { code: code(), limit });
        }
        for text in [&self.en, &self.zh, &self.why, &self.why_zh] {
            let rest = WORDS.iter().fold(text.clone(), |rest, word| rest.replace(word, ""));
            if text.trim().is_empty() || rest.contains(['{', '}']) {
                return Err(AdviceError::Text { code: code(), text: text.clone() });
            }
        }
        Ok(())
    }

    fn limit(&self, report: &ReportParams) -> Option<f64> {
        limit_value(self.above.as_ref().or(self.below.as_ref())?, report)
    }

    /// How far a value lies beyond the limit; positive: it does.
    fn beyond(&self, value: f64, limit: f64) -> f64 {
        if self.above.is_some() { value - limit } else { limit - value }
    }

    fn advice(&self, found: &Found<'_>) -> Advice {
        let entry = figure(&self.figure, if self.per == Scope::Stroke { Per::Stroke } else { Per::Session });
        let unit = entry.map_or("", |entry| entry.unit);
        // People read milliseconds.
        let (factor, shown_unit) = if unit == "s" && found.limit < 1.0 { (1e3, "ms") } else { (1.0, unit) };
        let say = |text: &str, class: &str| {
            text.replace("{value}", &number(found.value * factor))
                .replace("{against}", &number(found.limit * factor))
                .replace("{unit}", shown_unit)
                .replace("{count}", &found.count.to_string())
                .replace("{of}", &found.of.to_string())
                .replace("{stroke}", class)
                .replace("{percent}", &number(found.value * 100.0))
                .replace("{pace}", &number((1.0 - found.value) * 100.0))
                .replace("{figure}", &self.figure)
        };
        let class = found.class.map_or_else(String::new, |class| class.replace('_', " "));
        let class_zh = found.class.map_or_else(String::new, class_zh);
        Advice {
            code: self.code.clone(),
            text: say(&self.en, &class),
            text_zh: say(&self.zh, &class_zh),
            reason: say(&self.why, &class),
            reason_zh: say(&self.why_zh, &class_zh),
            evidence: Evidence {
                figure: self.figure.clone(),
                value: found.value,
                unit: unit.to_owned(),
                against: found.limit,
                compared_with: self.against.name().to_owned(),
                stroke: found.class.map(str::to_owned),
                strokes: found.strokes.clone(),
            },
        }
    }

    fn of_session(&self, strokes: &[Stroke], session: &SessionFigures, report: &ReportParams) -> Option<Advice> {
        let value = session_figure(session, &self.figure)?;
        let limit = self.limit(report)?;
        if self.beyond(value, limit) <= 0.0 {
            return None;
        }
        if let Some([low, high]) = &self.interval {
            let factor = self.interval_factor.unwrap_or(1.0);
            let nearest = if self.above.is_some() { low } else { high };
            if self.beyond(session_figure(session, nearest)? * factor, limit) <= 0.0 {
                return None;
            }
        }
        let holds = |condition: &Condition| {
            session_figure(session, &condition.figure).is_some_and(|value| {
                condition.above.is_none_or(|limit| value > limit) && condition.below.is_none_or(|limit| value < limit)
            })
        };
        if !self.when.iter().all(holds) {
            return None;
        }
        let shown: Vec<(usize, f64)> = match (&self.strokes, &self.strokes_from) {
            (Some(pointer), _) => strokes
                .iter()
                .enumerate()
                .filter_map(|(i, s)| Some((i, self.beyond(*s.metrics.get(&pointer.figure)?, limit * pointer.factor))))
                .filter(|(_, beyond)| *beyond > 0.0)
                .collect(),
            (None, Some(from)) => session_figure(session, from)
                .map(|first| (first.max(0.0) as usize..strokes.len()).map(|i| (i, i as f64)).collect())
                .unwrap_or_default(),
            (None, None) => Vec::new(),
        };
        let count = shown.len();
        Some(self.advice(&Found { value, limit, class: None, count, of: strokes.len(), strokes: worst(shown) }))
    }

    fn of_strokes(&self, strokes: &[Stroke], report: &ReportParams) -> Vec<Advice> {
        let Some(limit) = self.limit(report) else { return Vec::new() };
        let mut classes: BTreeMap<&str, Vec<(usize, &Stroke)>> = BTreeMap::new();
        for (index, stroke) in strokes.iter().enumerate() {
            if stroke.metrics.contains_key(&self.figure) {
                classes.entry(stroke.stroke.as_str()).or_default().push((index, stroke));
            }
        }
        let mut advice = Vec::new();
        for (class, members) in classes.into_iter().filter(|(_, members)| members.len() >= STROKES_MIN) {
            let beyond = |stroke: &Stroke| -> f64 {
                let name = match &self.interval {
                    Some([low, _]) if self.above.is_some() => low,
                    Some([_, high]) => high,
                    None => &self.figure,
                };
                stroke.metrics.get(name).map_or(f64::NEG_INFINITY, |value| self.beyond(*value, limit))
            };
            let shown: Vec<(usize, f64)> =
                members.iter().map(|(i, stroke)| (*i, beyond(stroke))).filter(|(_, beyond)| *beyond > 0.0).collect();
            let mut values: Vec<f64> =
                members.iter().filter_map(|(_, stroke)| stroke.metrics.get(&self.figure).copied()).collect();
            let (count, of) = (shown.len(), members.len());
            if (count as f64) < SHARE_MIN * of as f64 {
                continue;
            }
            let Some(value) = median(&mut values).filter(|value| self.beyond(*value, limit) > 0.0) else { continue };
            // Swings without a name share nothing that one could work on, but everyone can read "all strokes".
            let class = (class != crate::OTHER).then_some(class);
            advice.push(self.advice(&Found { value, limit, class, count, of, strokes: worst(shown) }));
        }
        advice
    }
}

/// What a rule found.
struct Found<'a> {
    value: f64,
    limit: f64,
    class: Option<&'a str>,
    count: usize,
    of: usize,
    strokes: Vec<usize>,
}

/// The indices of those furthest beyond, in time order.
fn worst(mut shown: Vec<(usize, f64)>) -> Vec<usize> {
    shown.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    shown.truncate(EVIDENCE_STROKES_MAX);
    let mut strokes: Vec<usize> = shown.into_iter().map(|(index, _)| index).collect();
    strokes.sort_unstable();
    strokes
}

/// Three digits that matter, no more.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 20.0 => 0,
        size if size >= 2.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

fn class_zh(class: &str) -> String {
    schemas::StrokeKind::from_name(class).map_or_else(|| class.replace('_', " "), |kind| kind.name_zh().to_owned())
}

fn limit_value(limit: &Limit, report: &ReportParams) -> Option<f64> {
    match limit {
        Limit::Number(number) => number.is_finite().then_some(*number),
        Limit::Key(key) => match key.strip_prefix("report.")? {
            "ideal_waist_to_shoulder_s" => Some(report.ideal_waist_to_shoulder_s),
            "ideal_shoulder_to_wrist_s" => Some(report.ideal_shoulder_to_wrist_s),
            "ideal_energy_ratio" => Some(report.ideal_energy_ratio),
            "ideal_rom_waist_deg" => Some(report.ideal_rom_waist_deg),
            "ideal_rom_shoulder_deg" => Some(report.ideal_rom_shoulder_deg),
            "ideal_rom_wrist_deg" => Some(report.ideal_rom_wrist_deg),
            _ => None,
        },
    }
}

/// A figure of the session by its name or path.
fn session_figure(session: &SessionFigures, name: &str) -> Option<f64> {
    let value = match name {
        "phase_delay.waist_to_shoulder" => session.phase_delay.waist_to_shoulder,
        "phase_delay.shoulder_to_wrist" => session.phase_delay.shoulder_to_wrist,
        "phase_delay.wrist_to_racket" => session.phase_delay.wrist_to_racket,
        "energy_ratio" => session.energy_ratio,
        "rom_data.waist" => session.rom_data.waist,
        "rom_data.shoulder" => session.rom_data.shoulder,
        "rom_data.wrist" => session.rom_data.wrist,
        "scores.overall" => session.scores.overall,
        "scores.delay" => session.scores.delay,
        "scores.energy" => session.scores.energy,
        "scores.rom" => session.scores.rom,
        other => session.metrics.get(other).copied(),
    };
    value.filter(|value| value.is_finite())
}

/// The advice that applies, in the order of the rules; none without strokes.
pub(crate) fn advise(strokes: &[Stroke], session: &SessionFigures, params: &Params, rules: &Rules) -> Vec<Advice> {
    if strokes.is_empty() {
        return Vec::new();
    }
    let mut advice: Vec<Advice> = rules
        .0
        .iter()
        .flat_map(|rule| match rule.per {
            Scope::Session => rule.of_session(strokes, session, &params.report).into_iter().collect(),
            Scope::Stroke => rule.of_strokes(strokes, &params.report),
        })
        .collect();
    advice.truncate(ADVICE_MAX);
    advice
}

#[cfg(test)]
mod tests {
    use schemas::SensorRole;

    use super::*;
    use crate::analysis::PhaseDelay;

    fn strokes(class: &str, figures: &[(&str, f64)], count: usize) -> Vec<Stroke> {
        (0..count)
            .map(|i| Stroke {
                start_ms: 2000.0 * i as f64,
                impact_ms: 2000.0 * i as f64 + 500.0,
                end_ms: 2000.0 * i as f64 + 900.0,
                sensor: SensorRole::Racket,
                stroke: class.to_owned(),
                confidence: None,
                probabilities: BTreeMap::new(),
                levels: BTreeMap::new(),
                metrics: figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            })
            .collect()
    }

    fn of(strokes: &[Stroke], session: &SessionFigures) -> Vec<Advice> {
        advise(strokes, session, Params::builtin(), Rules::builtin())
    }

    #[test]
    fn a_rule_on_strokes_speaks_for_a_class_that_agrees() {
        let mut played = strokes("smash", &[("order_tau", -0.6)], 6);
        played.extend(strokes("clear", &[("order_tau", 1.0)], 6));
        let advice = of(&played, &SessionFigures::default());
        assert_eq!(advice.len(), 1);
        let only = &advice[0];
        assert_eq!((only.code.as_str(), only.evidence.stroke.as_deref()), ("order_reversed", Some("smash")));
        assert_eq!(only.evidence.strokes, [0, 1, 2, 3, 4, 5]);
        assert!(only.text.contains("smash") && only.text_zh.contains("杀球"));
        assert!(only.reason.contains("6 of 6") && only.reason.contains("-0.60"), "{}", only.reason);
        // Four strokes are too few, and so is half of them.
        assert!(of(&played[..4], &SessionFigures::default()).is_empty());
        for stroke in &mut played[..3] {
            stroke.metrics.insert("order_tau".into(), 1.0);
        }
        assert!(of(&played, &SessionFigures::default()).is_empty());
    }

    #[test]
    fn a_delay_advises_only_when_its_whole_interval_is_beyond() {
        let played = strokes("clear", &[("delay_waist_shoulder_low_ms", 95.0)], 8);
        let mut session = SessionFigures {
            phase_delay: PhaseDelay { waist_to_shoulder: Some(0.110), ..PhaseDelay::default() },
            ..SessionFigures::default()
        };
        // No interval, no advice.
        assert!(of(&played, &session).is_empty());
        session.metrics.insert("delay_waist_shoulder_session_low_ms".into(), 70.0);
        session.metrics.insert("delay_waist_shoulder_session_high_ms".into(), 150.0);
        assert!(of(&played, &session).is_empty());
        session.metrics.insert("delay_waist_shoulder_session_low_ms".into(), 100.0);
        session.metrics.insert("delay_waist_shoulder_session_high_ms".into(), 120.0);
        let advice = of(&played, &session);
        assert_eq!(advice[0].code, "faster_waist_to_shoulder");
        assert_eq!((advice[0].evidence.against, advice[0].evidence.strokes.len()), (0.08, 8));
        assert!(advice[0].reason.contains("110 ms") && advice[0].reason.contains("80 ms"), "{}", advice[0].reason);
        session.phase_delay = PhaseDelay::default();
        assert!(of(&played, &session).is_empty());
    }

    #[test]
    fn a_trend_that_may_be_chance_advises_nobody() {
        let played = strokes("clear", &[], 40);
        let mut session = SessionFigures::default();
        session.metrics.insert("trend_peak_gyro_per_10min".into(), -0.2);
        session.metrics.insert("trend_peak_gyro_p".into(), 0.4);
        assert!(of(&played, &session).is_empty());
        session.metrics.insert("trend_peak_gyro_p".into(), 0.01);
        session.metrics.insert("change_peak_gyro_stroke".into(), 33.0);
        let advice = of(&played, &session);
        assert_eq!((advice[0].code.as_str(), advice[0].evidence.strokes[0]), ("tiring", 33));
        assert!(advice[0].reason.contains("-20%"), "{}", advice[0].reason);
        let uneven = |p: f64| {
            let name = "trend_delay_wrist_racket_spread";
            let metrics = [(format!("{name}_per_10min"), 0.6), (format!("{name}_p"), p)].into();
            of(&played, &SessionFigures { metrics, ..SessionFigures::default() })
        };
        assert!(uneven(0.2).is_empty());
        assert_eq!(uneven(0.01)[0].code, "timing_gets_uneven");
        assert!(uneven(0.01)[0].reason.contains("60%"), "{}", uneven(0.01)[0].reason);
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_for_its_reason() {
        let refused = |from: &str, to: &str| {
            assert!(DEFAULT.contains(from), "{from}");
            Rules::from_toml(&DEFAULT.replacen(from, to, 1)).unwrap_err()
        };
        assert!(matches!(refused("code = \"tiring\"", "code = \"brake_the_arm\""), AdviceError::Twice { .. }));
        assert!(matches!(refused("code = \"tiring\"", "code = \"Tiring!\""), AdviceError::Code { .. }));
        let message = refused("figure = \"order_tau\"", "figure = \"order_tao\"").to_string();
        assert!(message.contains("order_reversed") && message.contains("order_tao"), "{message}");
        assert!(matches!(refused("below = -0.3", "# nothing"), AdviceError::Condition { .. }));
        assert!(matches!(refused("below = -0.3", "below = \"report.ideal_hat\""), AdviceError::Limit { .. }));
        assert!(matches!(refused("zh = \"{stroke}：从", "zh = \"{strok}：从"), AdviceError::Text { .. }));
        assert!(matches!(refused("per = \"stroke\"", "pear = \"stroke\""), AdviceError::Syntax { .. }));
        assert!(Rules::builtin().codes().any(|code| code == "tiring"));
    }
}
