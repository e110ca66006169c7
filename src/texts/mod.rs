//! Every text of ours that a person reads, English and Chinese side by side in `texts.toml`, and the choice between them.
//!
//! In: a language and the key of a text. Out: the text. Sections: `sensor` and `label` for reports and pictures, `message`
//! for what an answer says, `error` for what went wrong, by the error's stable code. The sentences of advice stand beside
//! their codes in `pipelines`.
//!
//! Invariants, tested: no key lacks a language, both languages of a key have the same placeholders, and every code of an
//! error that a client may see has a text.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use schemas::StrokeKind;
use serde::{Deserialize, Serialize};

/// A language that texts are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    #[default]
    En,
    Zh,
}

impl Lang {
    /// The first language of an `Accept-Language` header (RFC 9110, 12.5.4) that we write in, by its weights.
    ///
    /// ```
    /// use volant::texts::Lang;
    /// assert_eq!(Lang::accepted("fr, en-GB;q=0.7, zh-CN;q=0.9"), Some(Lang::Zh));
    /// assert_eq!(Lang::accepted("fr"), None);
    /// ```
    #[must_use]
    pub fn accepted(header: &str) -> Option<Self> {
        let mut best: Option<(f32, Self)> = None;
        for range in header.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok());
            let lang = match tag.split('-').next() {
                Some("en") => Self::En,
                Some("zh") => Self::Zh,
                _ => continue,
            };
            if let Some(weight) = weight.filter(|&weight: &f32| weight > 0.0)
                && best.is_none_or(|(heaviest, _)| weight > heaviest)
            {
                best = Some((weight, lang));
            }
        }
        best.map(|(_, lang)| lang)
    }

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

/// The text names no language that we write in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("texts are written in en or zh")]
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
struct Text {
    en: String,
    zh: String,
}

/// Section, then key, to text.
type Catalogue = BTreeMap<String, BTreeMap<String, Text>>;

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    toml::from_str(include_str!("texts.toml")).expect("the catalogue is part of the program and tested")
});

fn find(lang: Lang, section: &str, key: &str) -> Option<&'static str> {
    let text = CATALOGUE.get(section)?.get(key)?;
    Some(match lang {
        Lang::En => &text.en,
        Lang::Zh => &text.zh,
    })
}

/// What an answer says; `arguments` fill the placeholders. The key itself if it is missing, which a test rules out.
pub(crate) fn message(lang: Lang, key: &'static str, arguments: &[(&str, String)]) -> String {
    fill(find(lang, "message", key).unwrap_or(key), arguments)
}

/// What went wrong, by the error's code; `None` for a code without a text of its own.
pub(crate) fn error(lang: Lang, code: &str, arguments: &[(&str, String)]) -> Option<String> {
    Some(fill(find(lang, "error", code)?, arguments))
}

/// Puts the arguments in the place of their names in braces, in one pass: a value is never taken for a template.
fn fill(template: &str, arguments: &[(&str, String)]) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let argument = after.split_once('}').and_then(|(name, tail)| {
            let (_, value) = arguments.iter().find(|(known, _)| *known == name)?;
            Some((value, tail))
        });
        match argument {
            Some((value, tail)) => {
                text.push_str(value);
                rest = tail;
            }
            None => {
                text.push('{');
                rest = after;
            }
        }
    }
    text + rest
}

/// A heading or label of ours. The key itself if it is missing, which a test rules out.
pub(crate) fn label(lang: Lang, key: &'static str) -> &'static str {
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
pub(crate) fn sensor(lang: Lang, role: schemas::SensorRole) -> &'static str {
    find(lang, "sensor", role.as_str()).unwrap_or(role.as_str())
}

/// The name of a stroke class; classes of other models read as they are.
pub(crate) fn class(lang: Lang, name: &str) -> String {
    match (lang, StrokeKind::from_name(name)) {
        (Lang::Zh, Some(kind)) => kind.name_zh().to_owned(),
        _ => name.replace('_', " "),
    }
}

#[cfg(test)]
mod tests;
