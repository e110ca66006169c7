//! `volant config show`: every key, its value, and where the value came from.

use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;

use crate::config::{self, Overrides};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Every key, its value, and where the value came from
    Show {
        /// One JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        overrides: Box<Overrides>,
    },
}

/// Shows the configuration that `serve` would run with.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Action::Show { json, overrides } = args.action;
    let loaded = config::load(&overrides, config::process_environment)?;
    let mut out = std::io::stdout().lock();
    if json {
        let values: serde_json::Map<String, serde_json::Value> = loaded
            .values
            .into_iter()
            .map(|(key, value, origin)| (key, serde_json::json!({ "value": value, "origin": origin.to_string() })))
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&values)?)?;
    } else {
        let width = loaded.values.iter().map(|(key, value, _)| key.len() + value.len()).max().unwrap_or(0) + 3;
        for (key, value, origin) in loaded.values {
            let line = format!("{key} = {value}");
            writeln!(out, "{line:width$}  # {origin}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
