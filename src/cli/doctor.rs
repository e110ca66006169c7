//! `volant doctor`: what is wrong with a recording, which figures it affects, and what to do.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use pipelines::{Finding, Model, Pipeline, Severity, diagnose};
use schemas::{SessionId, Track};
use serde_json::{Value, json};

use super::api::{Server, Target};
use crate::recordings::read_recording;
use crate::store::catalog::Catalog;
use crate::store::pack;
use crate::store::paths::Paths;
use crate::store::seal;

/// Says what is wrong with a session or a recording file, which figures it affects, and what to do.
///
/// A number is a session, of a running server or with --data-dir of a folder; anything else is a recording file.
/// Exit status: 0 nothing worse than a note, 1 it could not be looked at, 3 something is wrong.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A session's number, or a recording file
    #[arg(value_name = "SESSION|FILE")]
    pub what: String,
    #[command(flatten)]
    pub target: Target,
    /// Read this data folder instead of asking a server
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The exit status when something is wrong with the recording.
const WRONG: u8 = 3;

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let findings = match (args.what.parse::<SessionId>(), &args.data_dir) {
        (Ok(session), Some(folder)) => examine(&stored(session, folder).await?),
        (Ok(session), None) => {
            let server = Server::new(&args.target)?;
            let answer = server.get(&["sessions", &session.to_string(), "doctor"], &[]).await?;
            return print(&answer["findings"], args.json);
        }
        (Err(_), _) => {
            let mut findings = Vec::new();
            for recording in read_recording(Path::new(&args.what))? {
                findings.extend(examine(&recording.track));
            }
            findings
        }
    };
    print(&serde_json::to_value(findings)?, args.json)
}

async fn stored(session: SessionId, folder: &Path) -> anyhow::Result<Track> {
    let paths = Paths::new(folder);
    let catalog = Catalog::open_read_only(&paths.catalog()).await?;
    let row = catalog.session(session).await;
    catalog.close().await;
    let row = row?.with_context(|| format!("there is no session {session}"))?;
    let path =
        row.frames_path.with_context(|| format!("session {session} is not sealed yet: ask its server (--url)"))?;
    let mut track = seal::read_track(&pack::locate(&paths, path.parse()?)?)?;
    track.sync_error_ns = row.sync_error_ns.unwrap_or(0);
    Ok(track)
}

fn examine(track: &Track) -> Vec<Finding> {
    let pipeline = Pipeline::builtin();
    diagnose(track, &pipeline.analyze(track, Some(Model::builtin())))
}

fn print(findings: &Value, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let list = findings.as_array().context("read the findings")?;
    let is = |finding: &Value, severity: Severity| {
        serde_json::to_value(severity).is_ok_and(|word| finding["severity"] == word)
    };
    let wrong = list.iter().any(|finding| !is(finding, Severity::Info));
    if as_json {
        writeln!(out, "{}", json!({ "findings": findings }))?;
    } else if list.is_empty() {
        writeln!(out, "nothing is wrong")?;
    } else {
        write!(out, "{}", as_text(list))?;
    }
    Ok(if wrong { ExitCode::from(WRONG) } else { ExitCode::SUCCESS })
}

/// Findings for reading. What several have in common, such as a hole in every sensor's samples, is said once.
fn as_text(list: &[Value]) -> String {
    let alike = |a: &Value, b: &Value| ["severity", "remedy", "affects"].iter().all(|part| a[part] == b[part]);
    let mut groups: Vec<Vec<&Value>> = Vec::new();
    for finding in list {
        match groups.iter_mut().find(|group| alike(group[0], finding)) {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines = Vec::new();
    for group in groups {
        let severity = if group[0]["severity"] == "info" { "note".to_owned() } else { word(&group[0]["severity"]) };
        lines.extend(group.iter().map(|finding| format!("{severity:<8} {}\n", word(&finding["text"]))));
        lines.push(format!("         {}\n", word(&group[0]["remedy"])));
        let affects: Vec<String> = group[0]["affects"].as_array().into_iter().flatten().map(word).collect();
        if !affects.is_empty() {
            lines.push(format!("         affects {}\n", affects.join(", ")));
        }
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sensors_have_in_common_is_said_once() {
        let of = |severity: &str, text: &str, remedy: &str| json!({ "severity": severity, "text": text, "remedy": remedy, "affects": ["strokes"] });
        let text = as_text(&[
            of("info", "Waist: a gap.", "Come nearer."),
            of("warning", "Waist: too fast.", "Wider range."),
            of("info", "Racket: a gap.", "Come nearer."),
        ]);
        let expected = "note     Waist: a gap.\nnote     Racket: a gap.\n         Come nearer.\n         affects strokes\n\
                        warning  Waist: too fast.\n         Wider range.\n         affects strokes\n";
        assert_eq!(text, expected);
    }
}
