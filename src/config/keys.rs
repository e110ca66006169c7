//! The list of keys, taken from the default configuration, so that no key can be forgotten anywhere.

use toml::{Table, Value};

/// A key and its default value.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// Dotted: `sessions.upload_timeout_s`.
    pub(super) name: String,
    pub(super) default: Value,
}

impl Key {
    /// `VOLANT_SESSIONS_UPLOAD_TIMEOUT_S`.
    pub(super) fn variable(&self) -> String {
        format!("VOLANT_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// `sessions-upload-timeout-s`, without the dashes in front.
    pub(super) fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// What the value must be, in words.
    pub(super) fn expected(&self) -> &'static str {
        match self.default {
            Value::Boolean(_) => "true or false",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Array(_) => "a list of texts (comma-separated in the environment and in flags)",
            _ => "a text",
        }
    }

    /// Reads the value from a text, as the environment and flags have it.
    pub(super) fn parse(&self, text: &str) -> Option<Value> {
        match self.default {
            Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
            Value::Integer(_) => text.parse().ok().map(Value::Integer),
            Value::Float(_) => text.parse().ok().map(Value::Float),
            Value::Array(_) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
            }
            _ => Some(Value::String(text.to_owned())),
        }
    }
}

/// Every key, in the order of the file.
pub(super) fn all() -> Vec<Key> {
    let defaults = Table::try_from(super::Config::default()).expect("the default configuration is a TOML table");
    flatten("", &defaults).into_iter().map(|(name, default)| Key { name, default }).collect()
}

/// The leaves of a table with their dotted names, plain keys before sections.
pub(super) fn flatten(prefix: &str, table: &Table) -> Vec<(String, Value)> {
    let (sections, leaves): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| value.is_table());
    let mut flat: Vec<(String, Value)> =
        leaves.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value.clone())).collect();
    for (name, value) in sections {
        if let Value::Table(section) = value {
            flat.extend(flatten(&format!("{prefix}{name}."), section));
        }
    }
    flat
}

/// Puts a leaf into a table under its dotted name.
pub(super) fn insert(table: &mut Table, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            table.insert(name.to_owned(), value);
        }
        Some((section, rest)) => {
            let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(section) = section {
                insert(section, rest, value);
            }
        }
    }
}
