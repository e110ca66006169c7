//! `volant labels`: what people say was played.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use indicatif::ProgressBar;
use schemas::{SensorRole, SessionId};
use serde_json::{Value, json};

use super::api::{Server, Target};
use super::columns;
use crate::recordings::{self, Recording, Samples};
use crate::store::catalog::{Catalog, LabelRow, SAME_SWING_NS, SessionRow};
use crate::store::pack;
use crate::store::paths::Paths;
use crate::store::seal;

/// Labels swings with what was played, lists labels, makes recording sets of labelled sessions.
///
/// Asks a running server, or with --data-dir reads a folder, also beside a server; only a server takes labels, and only a folder
/// gives a recording set. Exit status: 0 done, 1 failed.
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
    pub action: Action,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// List the labels of a session
    List {
        #[arg(value_name = "SESSION")]
        session: SessionId,
    },
    /// Say what was played; a label takes the place of one within 250 ms
    Set {
        #[arg(value_name = "SESSION")]
        session: SessionId,
        /// Best a class of the model, such as smash; `other`: there was no stroke
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        swings: Swings,
    },
    /// Take labels back
    Unset {
        #[arg(value_name = "SESSION")]
        session: SessionId,
        #[command(flatten)]
        swings: Swings,
    },
    /// Make a recording set of the labelled sessions of a data folder, for `volant train` and `volant evaluate`
    ///
    /// Swings that were found and that nobody labelled are in it as `unclear`: they teach nothing, and neither do they count as
    /// false alarms. What is labelled `other` is no swing.
    Export {
        /// The folder to make
        #[arg(long, value_name = "SET")]
        out: PathBuf,
        /// Only these sessions; once for each
        #[arg(long = "session", value_name = "SESSION")]
        sessions: Vec<SessionId>,
        /// Only sessions of this player, by number
        #[arg(long, value_name = "USER")]
        user: Option<i64>,
    },
}

/// Which swings.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct Swings {
    /// A stroke of the published result, from 0; once for each
    #[arg(long = "stroke", value_name = "INDEX")]
    strokes: Vec<u32>,
    /// The impact or peak of a swing, ms since session start; once for each
    #[arg(long = "impact-ms", value_name = "MS")]
    impacts_ms: Vec<f64>,
}

impl Swings {
    fn labelled(&self, name: Option<&str>) -> Value {
        let strokes = self.strokes.iter().map(|index| json!({ "stroke_index": index, "stroke": name }));
        let impacts = self.impacts_ms.iter().map(|impact| json!({ "impact_ms": impact, "stroke": name }));
        json!({ "labels": strokes.chain(impacts).collect::<Vec<_>>() })
    }
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match (&args.data_dir, args.action) {
        (Some(folder), Action::List { session }) => {
            let catalog = Catalog::open_read_only(&Paths::new(folder).catalog()).await?;
            let found = of_folder(&catalog, session).await;
            catalog.close().await;
            print(&found?, args.json)?;
        }
        (None, Action::List { session }) => {
            print(
                &Server::new(&args.target)?.get(&["sessions", &session.to_string(), "labels"], &[]).await?,
                args.json,
            )?;
        }
        (None, Action::Set { session, name, swings }) => {
            let server = Server::new(&args.target)?;
            let path = ["sessions", &*session.to_string(), "labels"];
            print(&server.post(&path, Some(&swings.labelled(Some(&name)))).await?, args.json)?;
        }
        (None, Action::Unset { session, swings }) => {
            let server = Server::new(&args.target)?;
            let path = ["sessions", &*session.to_string(), "labels"];
            print(&server.post(&path, Some(&swings.labelled(None))).await?, args.json)?;
        }
        (Some(_), Action::Set { .. } | Action::Unset { .. }) => {
            anyhow::bail!("labels are taken by a running server: leave --data-dir out and give its --url")
        }
        (Some(folder), Action::Export { out, sessions, user }) => {
            let paths = Paths::new(folder);
            let catalog = Catalog::open_read_only(&paths.catalog()).await?;
            let made = export(&paths, &catalog, &out, &sessions, user).await;
            catalog.close().await;
            let Made { sessions, labels, frames } = made?;
            let told = if args.json {
                json!({ "sessions": sessions, "labels": labels, "frames": frames }).to_string()
            } else {
                format!("{sessions} sessions with {labels} labels ({frames} frames) are the set {}", out.display())
            };
            writeln!(std::io::stdout(), "{told}")?;
        }
        (None, Action::Export { .. }) => anyhow::bail!(
            "a recording set is made of a data folder: give --data-dir, also beside its server; from elsewhere, the Python \
             package's recording_set makes one"
        ),
    }
    Ok(ExitCode::SUCCESS)
}

async fn of_folder(catalog: &Catalog, session: SessionId) -> anyhow::Result<Value> {
    anyhow::ensure!(catalog.session(session).await?.is_some(), "there is no session {session}");
    let labels = catalog.labels(session).await?.into_iter().map(|label| {
        let ms = |ns: i64| ns as f64 / 1e6;
        json!({
            "impact_ms": ms(label.impact_ns), "start_ms": label.start_ns.map(ms), "end_ms": label.end_ns.map(ms),
            "stroke": label.stroke, "quality": label.quality, "labelled_by": label.labelled_by,
            "labelled_at_us": label.labelled_at_us,
        })
    });
    Ok(json!({ "session_id": session, "labels": labels.collect::<Vec<_>>() }))
}

/// A label of a recording set, as the service takes it.
pub(super) fn as_sent(label: &recordings::Label) -> Value {
    // A swing that does not hold its own peak is none; the peak is what counts.
    let start_ms = Some(label.start_ms).filter(|start| *start <= label.peak_ms);
    let end_ms = Some(label.end_ms).filter(|end| *end >= label.peak_ms);
    json!({
        "impact_ms": label.peak_ms, "start_ms": start_ms, "end_ms": end_ms,
        "stroke": label.stroke, "quality": label.quality,
    })
}

fn print(answer: &Value, as_json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    let text = |label: &Value, name: &str| label[name].as_str().unwrap_or("-").to_owned();
    let labels = answer["labels"].as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<[String; 5]> = labels
        .iter()
        .map(|label| {
            let impact_s = label["impact_ms"].as_f64().unwrap_or(f64::NAN) / 1e3;
            let index = label["stroke_index"].as_u64().map_or_else(|| "-".to_owned(), |index| index.to_string());
            [format!("{impact_s:.3}"), index, text(label, "stroke"), text(label, "quality"), text(label, "labelled_by")]
        })
        .collect();
    columns::write(&mut out, ["impact s", "stroke", "label", "quality", "by"], &rows)?;
    Ok(())
}

/// What is in a set that was made.
struct Made {
    sessions: usize,
    labels: usize,
    frames: usize,
}

async fn export(
    paths: &Paths,
    catalog: &Catalog,
    out: &Path,
    only: &[SessionId],
    user: Option<i64>,
) -> anyhow::Result<Made> {
    let mut labelled: BTreeMap<SessionId, Vec<LabelRow>> = BTreeMap::new();
    for row in catalog.all_labels().await? {
        let is_wanted = only.is_empty() || only.contains(&row.session_id);
        if is_wanted && user.is_none_or(|user| row.user_id.is_some_and(|of| of.get() == user)) {
            labelled.entry(row.session_id).or_default().push(row);
        }
    }
    anyhow::ensure!(!labelled.is_empty(), "no such session has labels: volant labels set makes some");
    fs::create_dir_all(out).with_context(|| format!("make the folder {}", out.display()))?;
    let [samples_path, labels_path] = ["samples.parquet", "labels.csv"].map(|name| out.join(name));
    for path in [&samples_path, &labels_path] {
        anyhow::ensure!(!path.exists(), "{} is there already: name another folder", path.display());
    }
    let bar =
        if std::io::stderr().is_terminal() { ProgressBar::new(labelled.len() as u64) } else { ProgressBar::hidden() };
    let mut samples = Samples::create(&samples_path)?;
    let mut made = Made { sessions: 0, labels: 0, frames: 0 };
    let mut lines = Vec::new();
    for (session, rows) in labelled {
        let row = catalog.session(session).await?.with_context(|| format!("there is no session {session}"))?;
        let analysis = catalog.result(session).await?.map(|result| result.analysis);
        match recording(paths, &row)? {
            Some(recording) => {
                made.sessions += 1;
                made.labels += rows.len();
                made.frames += recording.track.len();
                lines.extend(set_labels(&recording.name, &rows, analysis.as_deref())?);
                samples.write(&recording)?;
            }
            None => eprintln!("session {session} is left out: its frames are not sealed yet, or no longer kept"),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    samples.finish()?;
    // Last: a set without labels is no set.
    recordings::write_labels(&labels_path, &lines)?;
    Ok(made)
}

/// A sealed session as a recording, in m/s²; `None` if its frames are not in a file.
fn recording(paths: &Paths, row: &SessionRow) -> anyhow::Result<Option<Recording>> {
    let Some(path) = &row.frames_path else { return Ok(None) };
    let file = pack::locate(paths, path.parse()?)?;
    let mut track = seal::read_track(&file)?;
    let factors = seal::acc_factors(&file)?;
    for role in SensorRole::CHAIN {
        let factor = factors.get(&role.to_byte()).copied().flatten().unwrap_or(1.0);
        let samples = role.chain_index().and_then(|index| track.sensors[index].as_mut());
        for value in samples.into_iter().flat_map(|samples| samples.acc.as_flattened_mut()) {
            *value *= factor;
        }
    }
    Ok(Some(Recording { name: format!("session-{}", row.session_id), track, ..Recording::default() }))
}

/// The labels of a session in a set, and the swings that were found and that nobody named.
fn set_labels(recording: &str, rows: &[LabelRow], analysis: Option<&str>) -> anyhow::Result<Vec<recordings::Label>> {
    let ms = |ns: i64| ns as f64 / 1e6;
    let player = rows[0].user_id.map_or_else(|| "unknown".to_owned(), |user| format!("player-{user}"));
    let line = |start_ms, peak_ms, end_ms, stroke: &str, quality: &str| recordings::Label {
        recording: recording.to_owned(),
        player: player.clone(),
        start_ms,
        peak_ms,
        end_ms,
        stroke: stroke.to_owned(),
        quality: quality.to_owned(),
    };
    let mut lines = Vec::new();
    for label in rows.iter().map(|row| &row.label).filter(|label| label.stroke != pipelines::OTHER) {
        let [start, end] = [label.start_ns, label.end_ns].map(|at| at.map_or(f64::NAN, ms));
        lines.push(line(start, ms(label.impact_ns), end, &label.stroke, &label.quality));
    }
    if let Some(analysis) = analysis.filter(|_| !rows.iter().any(|row| row.label.quality == "window")) {
        let analysis: pipelines::Analysis = serde_json::from_str(analysis).context("read a stored analysis")?;
        for stroke in analysis.strokes {
            let off = |row: &LabelRow| (ms(row.label.impact_ns) - stroke.impact_ms).abs();
            if !rows.iter().any(|row| off(row) <= ms(SAME_SWING_NS)) {
                lines.push(line(stroke.start_ms, stroke.impact_ms, stroke.end_ms, pipelines::OTHER, "unclear"));
            }
        }
    }
    lines.sort_by(|a, b| a.peak_ms.total_cmp(&b.peak_ms));
    Ok(lines)
}
