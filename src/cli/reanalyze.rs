//! `volant reanalyze`: old sessions by another pipeline, compared with what is published, and switched.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use schemas::{DeviceCode, SessionId};
use serde_json::{Value, json};

use super::api::{Server, Target};
use super::columns;

/// Analyses sealed sessions by another pipeline, side by side with the published results.
///
/// Without --session, --user and --device all sessions are taken. Interrupted, the server goes on; started again, only
/// what is not done is done. Published results change with --publish only. Exit status: 0 done, 1 failed, also of a session.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub target: Target,
    /// The pipeline; without it, those that there are are listed
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<String>,
    /// Of these sessions
    #[arg(long, value_name = "SESSION", value_delimiter = ',')]
    pub session: Vec<SessionId>,
    /// Of this player, by number
    #[arg(long, value_name = "USER")]
    pub user: Option<i64>,
    /// Of this device
    #[arg(long, value_name = "CODE")]
    pub device: Option<DeviceCode>,
    /// Put what is done in the place of the published results
    #[arg(long)]
    pub publish: bool,
    /// Take back what nobody has begun
    #[arg(long, conflicts_with = "publish")]
    pub cancel: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// How often the server is asked how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let server = Server::new(&args.target)?;
    let Some(pipeline) = &args.pipeline else { return list(&server, args.json).await };
    let analyses = ["pipelines", pipeline, "analyses"];
    if args.cancel {
        let taken = server.delete(&analyses, &[]).await?;
        return print(&taken, args.json, "sessions taken back");
    }
    let mut order = json!({});
    if !args.session.is_empty() {
        order["session_ids"] = json!(args.session);
    }
    if let Some(user) = args.user {
        order["user_id"] = json!(user);
    }
    if let Some(device) = &args.device {
        order["device_code"] = json!(device);
    }
    let ordered = server.post(&analyses, Some(&order)).await?["sessions"].as_u64().unwrap_or_default();
    wait(&server, &analyses, &["queued", "running"], ordered).await?;
    let mut published = 0;
    if args.publish {
        published = match args.session.as_slice() {
            [] => sessions(&server.post(&["pipelines", pipeline, "publish"], None).await?),
            numbers => {
                let mut published = 0;
                for session in numbers {
                    let path = ["sessions", &session.to_string(), "analyses", pipeline, "publish"];
                    published += sessions(&server.post(&path, None).await?);
                }
                published
            }
        };
        wait(&server, &analyses, &["switching"], published).await?;
    }
    let mut rows: Vec<Value> = Vec::new();
    loop {
        let after = rows.last().and_then(|row| row["session_id"].as_i64()).unwrap_or(0);
        let query = [("after", after.to_string()), ("limit", "200".to_owned())];
        let mut page = server.get(&analyses, &query).await?;
        let page = page["candidates"].as_array_mut().context("read the answer")?;
        if page.is_empty() {
            break;
        }
        rows.append(page);
    }
    rows.retain(|row| args.session.is_empty() || args.session.iter().any(|session| row["session_id"] == session.get()));
    let failed = rows.iter().filter(|row| row["state"] == "failed" || !row["error"].is_null()).count();
    let mut out = std::io::stdout().lock();
    if args.json {
        let answer = json!({
            "pipeline": pipeline, "ordered": ordered, "published": published, "failed": failed, "candidates": rows,
        });
        writeln!(out, "{answer}")?;
    } else {
        let cell = |value: &Value| match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let rows: Vec<[String; 7]> = rows
            .iter()
            .map(|row| {
                ["session_id", "state", "published_strokes", "strokes", "common_strokes", "renamed_strokes", "error"]
                    .map(|name| cell(&row[name]))
            })
            .collect();
        let header = ["session", "state", "published strokes", "strokes", "in common", "renamed", "error"];
        columns::write(&mut out, header, &rows)?;
        eprintln!("{ordered} sessions analysed, {published} published, {failed} failed");
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn sessions(answer: &Value) -> u64 {
    answer["sessions"].as_u64().unwrap_or_default()
}

/// Waits until no session is in any of these states.
async fn wait(server: &Server, analyses: &[&str], states: &[&str], of: u64) -> anyhow::Result<()> {
    let progress = if std::io::stderr().is_terminal() { ProgressBar::new(of) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} sessions, {eta} left") {
        progress.set_style(style);
    }
    loop {
        let answer = server.get(analyses, &[("limit", "1".to_owned())]).await?;
        let open: u64 = states.iter().filter_map(|state| answer["states"][state].as_u64()).sum();
        if open == 0 {
            progress.finish_and_clear();
            return Ok(());
        }
        progress.set_position(of.saturating_sub(open));
        tokio::time::sleep(LOOK).await;
    }
}

async fn list(server: &Server, as_json: bool) -> anyhow::Result<ExitCode> {
    let answer = server.get(&["pipelines"], &[]).await?;
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{answer}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let pipelines = answer["pipelines"].as_array().context("read the answer")?;
    let rows: Vec<[String; 3]> =
        pipelines.iter().map(|row| ["name", "model", "description"].map(|name| text(&row[name]))).collect();
    columns::write(&mut out, ["pipeline", "model", "description"], &rows)?;
    for refused in answer["refused"].as_array().into_iter().flatten() {
        eprintln!("{}: {}", text(&refused["file"]), text(&refused["problem"]));
    }
    Ok(ExitCode::SUCCESS)
}

fn print(answer: &Value, as_json: bool, what: &str) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{answer}")?;
    } else {
        writeln!(out, "{} {what}", sessions(answer))?;
    }
    Ok(ExitCode::SUCCESS)
}
