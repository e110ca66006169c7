use std::path::Path;

use super::*;

#[test]
fn every_text_is_there_in_both_languages() {
    for (section, texts) in CATALOGUE.iter() {
        for (key, text) in texts {
            assert!(!text.en.is_empty() && !text.zh.is_empty(), "{section}.{key}");
            assert!(text.en.is_ascii() || text.en.contains(['°', '²', '≤']), "{section}.{key} is not English");
            let is_chinese = text.zh.chars().any(|c| ('\u{4e00}'..'\u{9fff}').contains(&c));
            // A text that is nothing but a placeholder says the same in every language.
            assert!(is_chinese || text.zh.starts_with('{'), "{section}.{key} is not Chinese");
            let placeholders = |text: &str| {
                let mut names: Vec<_> = text
                    .split('{')
                    .skip(1)
                    .filter_map(|part| part.split_once('}'))
                    .map(|(name, _)| name.to_owned())
                    .collect();
                names.sort();
                names
            };
            assert_eq!(placeholders(&text.en), placeholders(&text.zh), "{section}.{key}");
        }
    }
}

/// The program's source, tests left out.
fn source() -> String {
    fn walk(dir: &Path, text: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, text);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
                text.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut text = String::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    text
}

/// Keys are literals; a key that is asked for and a key that nobody asks for are both mistakes.
#[test]
fn the_catalogue_has_just_the_texts_that_the_code_asks_for() {
    let code = source();
    let literals: std::collections::BTreeSet<&str> = code.split('"').skip(1).collect();
    for (section, texts) in CATALOGUE.iter().filter(|(section, _)| section.as_str() != "sensor") {
        for key in texts.keys() {
            assert!(literals.contains(key.as_str()), "{section}.{key} is not used");
        }
    }
    for (section, call) in [("label", "label("), ("message", ".say(")] {
        for called in code.split(call).skip(1) {
            let arguments = called.split(')').next().unwrap_or_default();
            let Some(key) = arguments.split('"').nth(1) else { continue };
            assert!(CATALOGUE[section].contains_key(key), "{section}.{key} is missing");
        }
    }
}

#[test]
fn every_code_of_advice_has_a_sentence_and_an_unknown_one_reads_as_itself() {
    for (code, english, chinese) in pipelines::ADVICE {
        assert_eq!((advice(Lang::En, code), advice(Lang::Zh, code)), (english, chinese));
    }
    assert_eq!(advice(Lang::En, "eat_more_bananas"), "eat_more_bananas");
}

#[test]
fn the_heaviest_language_that_we_write_in_is_chosen() {
    for (header, chosen) in [
        ("zh-CN,zh;q=0.9,en;q=0.8", Some(Lang::Zh)),
        ("en-US", Some(Lang::En)),
        ("fr-FR, en;q=0.2, zh;q=0.1", Some(Lang::En)),
        ("zh;q=0, en;q=0.1", Some(Lang::En)),
        ("EN ; q=0.5", Some(Lang::En)),
        ("*", None),
        ("", None),
        ("zh;q=nonsense", None),
    ] {
        assert_eq!(Lang::accepted(header), chosen, "{header}");
    }
}

#[test]
fn arguments_take_the_place_of_their_names() {
    assert_eq!(fill("{a} of {b}, {a}", &[("a", "1".to_owned()), ("b", "{a}".to_owned())]), "1 of {a}, 1");
}
