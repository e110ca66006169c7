//! `volant devices`: the devices of a server or of a data folder.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use schemas::DeviceCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::{Server, Target};
use super::columns::{self, utc};
use crate::store::catalog::Catalog;
use crate::store::paths::Paths;

/// Lists devices, shows one and commands it.
///
/// Asks a running server, or with --data-dir reads a folder, also beside a server; who is connected only a server knows.
/// Exit status: 0 done, 1 failed.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub target: Target,
    /// Read this data folder instead of asking a server
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub action: Option<Action>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// List devices by code (what happens without a subcommand)
    List,
    /// Show a device, its connection and the session that it is in
    Show {
        #[arg(value_name = "CODE")]
        device: DeviceCode,
    },
    /// Ask a device what it is doing, and wait for its answer
    Check {
        #[arg(value_name = "CODE")]
        device: DeviceCode,
    },
    /// Stop the session that a device is in
    Stop {
        #[arg(value_name = "CODE")]
        device: DeviceCode,
    },
    /// Send a text that the device prints
    Test {
        #[arg(value_name = "CODE")]
        device: DeviceCode,
        #[arg(value_name = "TEXT")]
        message: String,
    },
}

/// A device, with the names of the API.
#[derive(Debug, Serialize, Deserialize)]
struct Device {
    device_code: String,
    firmware: Option<String>,
    first_seen_us: Option<i64>,
    last_seen_us: Option<i64>,
    frame_count: i64,
    #[serde(default)]
    presence: Option<Presence>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Presence {
    connected_since_us: i64,
    round_trip_us: Option<i64>,
    connects: u64,
}

/// Devices of a page of the API.
const PAGE: usize = 1000;

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let action = args.action.clone().unwrap_or(Action::List);
    let answer = match &args.data_dir {
        Some(folder) => {
            let catalog = Catalog::open_read_only(&Paths::new(folder).catalog()).await?;
            let found = of_folder(&catalog, action).await;
            catalog.close().await;
            found?
        }
        None => of_server(&Server::new(&args.target)?, action).await?,
    };
    print(&answer, args.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn of_folder(catalog: &Catalog, action: Action) -> anyhow::Result<Value> {
    let mut devices: Vec<Device> = catalog
        .devices()
        .await?
        .into_iter()
        .map(|device| Device {
            device_code: device.device_code.to_string(),
            firmware: device.firmware,
            first_seen_us: Some(device.first_seen_us),
            last_seen_us: Some(device.last_seen_us),
            frame_count: device.sealed_rows,
            presence: None,
        })
        .collect();
    devices.sort_by(|a, b| a.device_code.cmp(&b.device_code));
    match action {
        Action::List => Ok(json!({ "devices": devices })),
        Action::Show { device: code } => {
            let device = devices.into_iter().find(|device| device.device_code == code.as_str());
            device.map(|device| json!({ "device": device })).with_context(|| format!("there is no device {code}"))
        }
        Action::Check { .. } | Action::Stop { .. } | Action::Test { .. } => {
            anyhow::bail!("devices are commanded by a running server: leave --data-dir out and give its --url")
        }
    }
}

async fn of_server(server: &Server, action: Action) -> anyhow::Result<Value> {
    let on = async |code: &DeviceCode, verb: &str, body: Option<&Value>| {
        server.post(&["devices", code.as_str(), verb], body).await
    };
    match action {
        Action::List => {
            let mut all: Vec<Value> = Vec::new();
            loop {
                let mut query = vec![("limit", PAGE.to_string())];
                let last = all.last().and_then(|device| device["device_code"].as_str());
                query.extend(last.map(|last| ("after", last.to_owned())));
                let mut answer = server.get(&["devices"], &query).await?;
                let Some(page) = answer["devices"].as_array_mut() else { anyhow::bail!("the answer has no devices") };
                let is_last = page.len() < PAGE;
                all.append(page);
                if is_last {
                    return Ok(json!({ "devices": all }));
                }
            }
        }
        Action::Show { device } => server.get(&["devices", device.as_str()], &[]).await,
        Action::Check { device } => on(&device, "check", None).await,
        Action::Stop { device } => on(&device, "stop", None).await,
        Action::Test { device, message } => on(&device, "test", Some(&json!({ "message": message }))).await,
    }
}

/// Prints the devices of an answer, or what it says otherwise.
fn print(answer: &Value, as_json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let one = answer.get("device").cloned().map(|device| json!([device]));
    let devices = one.or_else(|| answer.get("devices").cloned()).filter(|_| !as_json);
    let Some(devices) = devices else {
        writeln!(out, "{answer}")?;
        return Ok(());
    };
    let devices: Vec<Device> = serde_json::from_value(devices).context("read the devices of the answer")?;
    let rows: Vec<[String; 7]> = devices
        .into_iter()
        .map(|device| {
            let presence = device.presence.as_ref();
            let round_trip = presence.and_then(|presence| presence.round_trip_us);
            [
                device.device_code,
                utc(presence.map(|presence| presence.connected_since_us)),
                round_trip.map_or_else(|| "-".to_owned(), |us| format!("{:.1} ms", us as f64 / 1e3)),
                presence.map_or_else(|| "-".to_owned(), |presence| presence.connects.saturating_sub(1).to_string()),
                utc(device.last_seen_us),
                device.frame_count.to_string(),
                device.firmware.unwrap_or_default(),
            ]
        })
        .collect();
    let header = ["device", "connected since", "round trip", "reconnects", "last seen", "frames", "firmware"];
    columns::write(&mut out, header, &rows)?;
    Ok(())
}
