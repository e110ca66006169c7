//! `volant tokens`: tokens, pairing codes and admins of a data folder.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use schemas::DeviceCode;
use serde_json::json;

use crate::accounts::{Handle, Issued, Scope, Subject, TokenInfo};
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::store::catalog::Catalog;
use crate::store::paths::Paths;

/// Who made it, in the audit log.
const ACTOR: &str = "command";

/// Makes, lists and revokes what callers of the service prove themselves with.
///
/// Works on a data folder, also while a server runs on it; what is revoked is refused from the next request on. A token
/// is shown once, when it is made: only its hash is kept. Exit status: 0 done, 1 failed (no such token, for instance).
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The data folder.
    #[arg(long, value_name = "DIR", default_value = "./volant-data", global = true)]
    pub data_dir: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Make a token
    Create {
        #[command(flatten)]
        whom: Whom,
        /// What the key may do: sql, sessions:read, sessions:write, devices:read, devices:write, players:read
        #[arg(long, value_name = "SCOPE", value_delimiter = ',', requires = "key")]
        scope: Vec<Scope>,
        /// A note for the list
        #[arg(long, value_name = "TEXT")]
        label: Option<String>,
        /// The token runs out after so many days; without it, never
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: Option<u32>,
    },
    /// List tokens, the newest first
    List,
    /// Revoke a token
    Revoke {
        /// As `list` shows it
        #[arg(value_name = "TOKEN_ID")]
        token_id: String,
    },
    /// Make a code that lets a player claim a device once, within a day
    Pair {
        #[arg(value_name = "DEVICE_CODE")]
        device: DeviceCode,
    },
    /// Make an admin of the dashboard or change their password, which is read from standard input
    Admin {
        #[arg(value_name = "NAME")]
        name: String,
        /// Shut the admin out, with all their tokens
        #[arg(long)]
        disable: bool,
    },
}

/// Whom a token speaks for.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Whom {
    /// A device, by its code
    #[arg(long, value_name = "CODE")]
    device: Option<DeviceCode>,
    /// A player, by openid or number
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// An admin, by name
    #[arg(long, value_name = "NAME")]
    admin: Option<String>,
    /// A key with scopes, for a program
    #[arg(long, requires = "scope")]
    key: bool,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let catalog_file = Paths::new(&args.data_dir).catalog();
    if !args.data_dir.is_dir() {
        anyhow::bail!("{} is no folder: --data-dir names the folder that volant serve uses", args.data_dir.display());
    }
    let catalog = Catalog::open(&catalog_file).await?;
    let accounts = Handle::new(catalog.clone(), Clock::system(), Entropy::system());
    let done = act(&accounts, &args).await;
    catalog.close().await;
    done
}

async fn act(accounts: &Handle, args: &Args) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match &args.action {
        Action::Create { whom, scope, label, days } => {
            let subject = subject(accounts, whom, scope).await?;
            let lifetime = days.map(|days| Duration::from_secs(u64::from(days) * 24 * 3600));
            let Issued { token, info } = accounts.issue(&subject, label.as_deref(), lifetime, ACTOR).await?;
            if args.json {
                writeln!(out, "{}", json!({ "token": token, "info": info }))?;
            } else {
                writeln!(out, "{token}")?;
                eprintln!("{} for {}; it is shown this once", info.token_id, of(&info));
            }
        }
        Action::List => {
            let tokens = accounts.tokens(None).await?;
            if args.json {
                writeln!(out, "{}", serde_json::to_string(&tokens)?)?;
            } else {
                for info in tokens {
                    let label = info.label.as_deref().unwrap_or_default();
                    writeln!(out, "{:<14}  {:<8}  {:<32}  {label}", info.token_id, state(&info), of(&info))?;
                }
            }
        }
        Action::Revoke { token_id } => {
            if !accounts.revoke(token_id, ACTOR).await? {
                anyhow::bail!("there is no token {token_id} that could be revoked; `volant tokens list` shows all");
            }
            if args.json {
                writeln!(out, "{}", json!({ "revoked": token_id }))?;
            }
        }
        Action::Pair { device } => {
            let code = accounts.new_pairing_code(device, ACTOR).await?;
            if args.json {
                writeln!(out, "{}", json!({ "device_code": device, "pairing_code": code }))?;
            } else {
                writeln!(out, "{code}")?;
            }
        }
        Action::Admin { name, disable: true } => {
            if !accounts.disable_admin(name, ACTOR).await? {
                anyhow::bail!("there is no admin {name} who could be shut out");
            }
        }
        Action::Admin { name, disable: false } => {
            if std::io::stdin().is_terminal() {
                eprint!("password of {name} (it is shown while you type): ");
            }
            let mut password = String::new();
            std::io::stdin().lock().read_line(&mut password).context("read the password from standard input")?;
            accounts.set_admin(name, password.trim_end_matches(['\r', '\n']), ACTOR).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn subject(accounts: &Handle, whom: &Whom, scopes: &[Scope]) -> anyhow::Result<Subject> {
    Ok(match whom {
        Whom { device: Some(code), .. } => Subject::Device(code.clone()),
        Whom { user: Some(id), .. } => match accounts.find(id).await? {
            Some(user) => Subject::User(user.user_id),
            None => anyhow::bail!("nobody is known as {id}: a player logs in or starts a session first"),
        },
        Whom { admin: Some(name), .. } => Subject::Admin(name.clone()),
        Whom { .. } => Subject::Key(scopes.iter().copied().collect()),
    })
}

/// Whom a token speaks for, in words.
fn of(info: &TokenInfo) -> String {
    match info {
        TokenInfo { device_code: Some(code), .. } => format!("device {code}"),
        TokenInfo { user_id: Some(user), .. } => format!("user {user}"),
        TokenInfo { admin_name: Some(name), .. } => format!("admin {name}"),
        TokenInfo { scopes, .. } => format!("key {scopes}"),
    }
}

fn state(info: &TokenInfo) -> &'static str {
    match (info.revoked_at_us, info.expires_at_us) {
        (Some(_), _) => "revoked",
        (None, Some(expires_at_us)) if expires_at_us <= Clock::system().now_us() => "expired",
        (None, _) => "valid",
    }
}
