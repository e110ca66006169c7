//! The catalogue of texts, English and Chinese side by side in `texts.toml`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use schemas::StrokeKind;
use serde::Deserialize;

/// A language that a report can be written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lang {
    #[default]
    En,
    Zh,
}

impl Lang {
    /// The tag for HTML's `lang`.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh-CN",
        }
    }
}

impl fmt::Display for Lang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::En => "en",
            Self::Zh => "zh",
        })
    }
}

/// The text names no language that reports are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reports are written in en or zh")]
pub struct UnknownLang;

impl FromStr for Lang {
    type Err = UnknownLang;

    fn from_str(text: &str) -> Result<Self, UnknownLang> {
        match text {
            "en" => Ok(Self::En),
            "zh" => Ok(Self::Zh),
            _ => Err(UnknownLang),
        }
    }
}

/// One text in both languages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Text {
    pub(super) en: String,
    pub(super) zh: String,
}

/// Section, then key, to text.
pub(super) type Catalogue = BTreeMap<String, BTreeMap<String, Text>>;

pub(super) static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    toml::from_str(include_str!("texts.toml")).expect("the catalogue is part of the program and tested")
});

fn find(lang: Lang, section: &str, key: &str) -> Option<&'static str> {
    let text = CATALOGUE.get(section)?.get(key)?;
    Some(match lang {
        Lang::En => &text.en,
        Lang::Zh => &text.zh,
    })
}

/// A heading or label of ours. The key itself if it is missing, which a test rules out.
pub(super) fn label(lang: Lang, key: &'static str) -> &'static str {
    find(lang, "label", key).unwrap_or(key)
}

/// The sentence of advice for a code of `SessionFigures::recommendations`; an unknown code reads as itself.
#[must_use]
pub fn advice(lang: Lang, code: &str) -> &str {
    match (pipelines::advice_text(code), lang) {
        (Some((english, _)), Lang::En) => english,
        (Some((_, chinese)), Lang::Zh) => chinese,
        (None, _) => code,
    }
}

/// The name of a sensor's place.
pub(super) fn sensor(lang: Lang, role: schemas::SensorRole) -> &'static str {
    find(lang, "sensor", role.as_str()).unwrap_or(role.as_str())
}

/// The name of a stroke class; classes of other models read as they are.
pub(super) fn class(lang: Lang, name: &str) -> String {
    match (lang, StrokeKind::from_name(name)) {
        (Lang::Zh, Some(kind)) => kind.name_zh().to_owned(),
        _ => name.replace('_', " "),
    }
}
