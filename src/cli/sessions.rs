//! `volant sessions`: the recording sessions of a server or of a data folder.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use schemas::{DeviceCode, SessionId, SessionStatus, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::{Server, Target};
use super::columns::{self, utc};
use crate::store::catalog::{Catalog, SessionRow};
use crate::store::paths::Paths;

/// Lists recording sessions, shows one, starts and stops them.
///
/// Asks a running server, or with --data-dir reads a folder, also beside a server; a folder can only be listed and shown.
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
    /// List sessions, the newest first (what happens without a subcommand)
    List(Filter),
    /// Show one session
    Show {
        #[arg(value_name = "SESSION")]
        session: SessionId,
    },
    /// Start a session on a device
    Start {
        #[arg(long, value_name = "CODE")]
        device: DeviceCode,
        /// Who plays, by number
        #[arg(long, value_name = "USER")]
        user: i64,
    },
    /// Stop a session; what its device still holds is taken
    Stop {
        #[arg(value_name = "SESSION")]
        session: SessionId,
    },
    /// Analyse what is there, without waiting for the device
    Complete {
        #[arg(value_name = "SESSION")]
        session: SessionId,
    },
}

/// Which sessions are listed.
#[derive(Clone, Debug, clap::Args)]
pub struct Filter {
    /// Of this player, by number
    #[arg(long, value_name = "USER")]
    user: Option<i64>,
    /// Of this device
    #[arg(long, value_name = "CODE")]
    device: Option<DeviceCode>,
    /// In this state: calibrating, collecting, stopping, analyzing, completed or stopped
    #[arg(long, value_name = "STATE", value_parser = state)]
    status: Option<SessionStatus>,
    /// Only sessions with a lower number
    #[arg(long, value_name = "SESSION")]
    before: Option<SessionId>,
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
}

impl Default for Filter {
    fn default() -> Self {
        Self { user: None, device: None, status: None, before: None, limit: 50 }
    }
}

fn state(name: &str) -> Result<SessionStatus, &'static str> {
    SessionStatus::from_name(name).ok_or("one of calibrating, collecting, stopping, analyzing, completed, stopped")
}

/// A session, with the names of the API.
#[derive(Debug, Serialize, Deserialize)]
struct Session {
    session_id: i64,
    device_code: String,
    group_code: String,
    user_id: Option<i64>,
    status: String,
    reason: Option<String>,
    started_at_us: i64,
    ended_at_us: Option<i64>,
    frame_count: i64,
    revision: i64,
}

impl From<SessionRow> for Session {
    fn from(row: SessionRow) -> Self {
        Self {
            session_id: row.session_id.get(),
            device_code: row.device_code.to_string(),
            group_code: row.group_code,
            user_id: row.user_id.map(UserId::get),
            status: row.status.as_str().to_owned(),
            reason: row.reason,
            started_at_us: row.started_at_us,
            ended_at_us: row.ended_at_us,
            frame_count: row.sealed_rows,
            revision: row.revision,
        }
    }
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let action = args.action.clone().unwrap_or_else(|| Action::List(Filter::default()));
    match &args.data_dir {
        Some(folder) => {
            let catalog = Catalog::open_read_only(&Paths::new(folder).catalog()).await?;
            let found = of_folder(&catalog, action).await;
            catalog.close().await;
            print(&found?, args.json)?;
        }
        None => print(&of_server(&Server::new(&args.target)?, action).await?, args.json)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn of_folder(catalog: &Catalog, action: Action) -> anyhow::Result<Value> {
    match action {
        Action::List(Filter { user, device, status, before, limit }) => {
            let rows = catalog.sessions_page(user.map(UserId), device.as_ref(), status, before, limit).await?;
            Ok(json!({ "sessions": rows.into_iter().map(Session::from).collect::<Vec<_>>() }))
        }
        Action::Show { session } => match catalog.session(session).await? {
            Some(row) => Ok(json!({ "session": Session::from(row) })),
            None => anyhow::bail!("there is no session {session}"),
        },
        Action::Start { .. } | Action::Stop { .. } | Action::Complete { .. } => {
            anyhow::bail!(
                "sessions are started and stopped by a running server: leave --data-dir out and give its --url"
            )
        }
    }
}

async fn of_server(server: &Server, action: Action) -> anyhow::Result<Value> {
    let on = async |session: SessionId, verb: &str| server.post(&["sessions", &session.to_string(), verb], None).await;
    match action {
        Action::List(Filter { user, device, status, before, limit }) => {
            let query: Vec<(&str, String)> = [
                ("user_id", user.map(|user| user.to_string())),
                ("device_code", device.map(|device| device.to_string())),
                ("status", status.map(|status| status.as_str().to_owned())),
                ("before", before.map(|before| before.to_string())),
                ("limit", Some(limit.to_string())),
            ]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
            server.get(&["sessions"], &query).await
        }
        Action::Show { session } => server.get(&["sessions", &session.to_string()], &[]).await,
        Action::Start { device, user } => {
            server.post(&["sessions"], Some(&json!({ "device_code": device, "user_id": user }))).await
        }
        Action::Stop { session } => on(session, "stop").await,
        Action::Complete { session } => on(session, "complete").await,
    }
}

/// Prints the sessions of an answer, one or many.
fn print(answer: &Value, as_json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    let one = answer.get("session").cloned().map(|session| json!([session]));
    let sessions = one.or_else(|| answer.get("sessions").cloned()).unwrap_or_default();
    let sessions: Vec<Session> = serde_json::from_value(sessions).context("read the sessions of the answer")?;
    let rows: Vec<[String; 8]> = sessions
        .into_iter()
        .map(|session| {
            [
                session.session_id.to_string(),
                session.status,
                session.device_code,
                session.user_id.map_or_else(|| "-".to_owned(), |user| user.to_string()),
                utc(Some(session.started_at_us)),
                utc(session.ended_at_us),
                session.frame_count.to_string(),
                session.reason.unwrap_or_default(),
            ]
        })
        .collect();
    columns::write(&mut out, ["session", "status", "device", "user", "started", "ended", "frames", "reason"], &rows)?;
    if let Some(command) = answer["command"].as_str() {
        eprintln!("the device's command: {command}");
    }
    Ok(())
}
