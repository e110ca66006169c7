//! The layers: default, file, environment, flags.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command};
use serde::Deserialize;
use toml::{Table, Value};

use super::keys::{self, Key};
use super::{Config, Error};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag(flag) => write!(f, "flag --{flag}"),
        }
    }
}

/// A configuration and the origin of each value.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// Dotted key, value as TOML, origin; in the order of the file.
    pub values: Vec<(String, String, Origin)>,
}

/// The configuration file and the flags of a command line; one flag a key.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub file: Option<PathBuf>,
    /// Dotted key to the flag's text.
    pub flags: BTreeMap<String, String>,
}

impl clap::FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut overrides = Self::default();
        overrides.update_from_arg_matches(matches)?;
        Ok(overrides)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        if let Some(file) = matches.get_one::<PathBuf>("config") {
            self.file = Some(file.clone());
        }
        for key in keys::all() {
            if let Some(text) = matches.get_one::<String>(&key.name) {
                self.flags.insert(key.name, text.clone());
            }
        }
        Ok(())
    }
}

impl clap::Args for Overrides {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Configuration file (TOML)");
        keys::all().into_iter().fold(command.arg(config), |command, key| {
            let help = format!("[env: {}] [default: {}]", key.variable(), key.default);
            command.arg(Arg::new(key.name.clone()).long(key.flag()).value_name("VALUE").help(help))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Puts the layers together. `environment` gives the value of a variable ([`process_environment`] in the program).
///
/// # Errors
/// See [`Error`]; a key that does not exist is one, so that a typing error cannot pass unnoticed.
pub fn load(overrides: &Overrides, environment: impl Fn(&str) -> Option<String>) -> Result<Loaded, Error> {
    let keys = keys::all();
    let mut values: BTreeMap<&str, (Value, Origin)> =
        keys.iter().map(|key| (key.name.as_str(), (key.default.clone(), Origin::Default))).collect();
    if let Some(path) = &overrides.file {
        read_file(path, &keys, &mut values)?;
    }
    for key in &keys {
        if let Some(text) = environment(&key.variable()) {
            let origin = Origin::Environment(key.variable());
            values.insert(&key.name, (parse(key, &text, &origin)?, origin));
        }
        if let Some(text) = overrides.flags.get(&key.name) {
            let origin = Origin::Flag(key.flag());
            values.insert(&key.name, (parse(key, text, &origin)?, origin));
        }
    }
    let mut table = Table::new();
    for (name, (value, _)) in &values {
        keys::insert(&mut table, name, value.clone());
    }
    let config = Config::deserialize(table).map_err(|error| Error::Invalid { message: error.message().to_owned() })?;
    config.validate()?;
    let values = keys
        .iter()
        .filter_map(|key| {
            let (value, origin) = values.remove(key.name.as_str())?;
            Some((key.name.clone(), value.to_string(), origin))
        })
        .collect();
    Ok(Loaded { config, values })
}

/// The environment of the process.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
#[must_use]
pub fn process_environment(variable: &str) -> Option<String> {
    std::env::var(variable).ok()
}

fn read_file<'k>(path: &Path, keys: &'k [Key], values: &mut BTreeMap<&'k str, (Value, Origin)>) -> Result<(), Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| Error::Syntax {
        path: path.to_path_buf(),
        message: error.message().to_owned(),
    })?;
    for (name, value) in keys::flatten("", &table) {
        let origin = Origin::File(path.to_path_buf());
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            return Err(Error::UnknownKey { key: name, origin });
        };
        if !key.default.same_type(&value) {
            return Err(Error::WrongType { key: name, value: value.to_string(), origin, expected: key.expected() });
        }
        values.insert(&key.name, (value, origin));
    }
    Ok(())
}

fn parse(key: &Key, text: &str, origin: &Origin) -> Result<Value, Error> {
    key.parse(text).ok_or_else(|| Error::WrongType {
        key: key.name.clone(),
        value: text.to_owned(),
        origin: origin.clone(),
        expected: key.expected(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn the_default_is_valid_and_every_value_says_where_it_came_from() {
        let loaded = load(&Overrides::default(), nothing).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert!(loaded.values.iter().all(|(.., origin)| *origin == Origin::Default));
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("volant.toml");
        std::fs::write(
            &file,
            "data_dir = \"from-file\"\n[sessions]\nidle_timeout_s = 1\nstart_timeout_s = 1\nlate_grace_s = 1\n",
        )
        .unwrap();
        let overrides = Overrides {
            file: Some(file),
            flags: BTreeMap::from([("sessions.idle_timeout_s".to_owned(), "3".to_owned())]),
        };
        let environment = |variable: &str| match variable {
            "VOLANT_SESSIONS_IDLE_TIMEOUT_S" | "VOLANT_SESSIONS_START_TIMEOUT_S" => Some("2".to_owned()),
            _ => None,
        };
        let config = load(&overrides, environment).unwrap().config;
        assert_eq!(config.data_dir, PathBuf::from("from-file"));
        assert_eq!(config.sessions.late_grace_s, 1);
        assert_eq!(config.sessions.start_timeout_s, 2);
        assert_eq!(config.sessions.idle_timeout_s, 3);
    }

    #[test]
    fn typing_errors_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("volant.toml");
        for (text, part) in [
            ("listn = \"127.0.0.1:1\"", "no configuration key \"listn\""),
            ("[sessions]\nidle_timeout_s = \"x\"", "is not a whole number"),
            ("listen = \"nowhere\"", "does not hold together"),
            ("listen = \"0.0.0.0:8000\"", "allow_legacy_on_public_address"),
            ("[gateway]\npong_timeout_s = 20", "over 20"),
            ("listen = ", "understand the configuration file"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = load(&Overrides { file: Some(file.clone()), ..Overrides::default() }, nothing).unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
        let overrides = Overrides {
            file: None,
            flags: BTreeMap::from([("sessions.idle_timeout_s".to_owned(), "soon".to_owned())]),
        };
        assert!(load(&overrides, nothing).unwrap_err().to_string().contains("flag --sessions-idle-timeout-s"));
    }
}
