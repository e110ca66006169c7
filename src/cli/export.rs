//! `volant export`: rows, files for other tools, archives.

use std::collections::HashMap;
use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::civil::Date;
use reqwest::Url;
use schemas::DeviceCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::download::Part;
use crate::clock::Clock;
use crate::export::{self, Archive, Bucket, Form, Manifest, Opened, Outgoing, Selection, SessionState, Table};
use crate::query;
use crate::store::catalog::Catalog;
use crate::store::notes;
use crate::store::paths::Paths;

/// How often an archive is begun again because sessions got new revisions while it was written.
const ATTEMPTS_LIMIT: usize = 5;

/// Takes sessions out: as rows for other tools, or whole as an archive.
///
/// The choices (session, player, device, days, stroke) are combined; without any, everything is taken. --out names a file,
/// `-` standard output, or an existing folder or a name that ends in `/`: then every session becomes a file of its own, and a
/// run that was interrupted goes on where it was. `s3://bucket/name` is an object of an object store, with the address and keys
/// of the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION). Reads a data folder, beside a running server too, or a server by --url.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Exit status: 0 done, 1 failed, 2 the command line is wrong.")]
pub struct Args {
    /// Data folder to read; the server need not run
    #[arg(long, env = "VOLANT_DATA_DIR", default_value = "./volant-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Ask a running server instead, e.g. http://127.0.0.1:8000
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
    /// A token of that server, with the scope sql
    #[arg(long, value_name = "TOKEN", env = "VOLANT_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Number of a session; may be given several times
    #[arg(long, value_name = "ID")]
    session: Vec<i64>,
    /// Number of a player
    #[arg(long, value_name = "ID")]
    player: Vec<i64>,
    /// Code of a device
    #[arg(long, value_name = "CODE")]
    device: Vec<DeviceCode>,
    /// First UTC day on which a session started
    #[arg(long, value_name = "DATE")]
    from: Option<Date>,
    /// Last such day
    #[arg(long, value_name = "DATE")]
    to: Option<Date>,
    /// Name of a stroke: sessions that have one, and of their rows those of such strokes
    #[arg(long, value_name = "NAME")]
    stroke: Vec<String>,
    /// frames, stroke_frames, strokes or results; by default frames, or stroke_frames where strokes are chosen
    #[arg(long, value_parser = |name: &str| Table::of(name).ok_or("frames, stroke_frames, strokes or results"))]
    table: Option<Table>,
    /// parquet, csv, arrow, jsonl, json, mcap, mat, or archive: the stored files and all that is known of them
    #[arg(long, value_parser = What::parse, default_value = "parquet")]
    format: What,
    /// Where to write
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Form(Form),
    Archive,
}

impl What {
    fn parse(name: &str) -> Result<Self, &'static str> {
        match name {
            "archive" => Ok(Self::Archive),
            _ => Form::of(name).map(Self::Form).ok_or("parquet, csv, arrow, jsonl, json, mcap, mat or archive"),
        }
    }
}

impl Args {
    fn selection(&self) -> Selection {
        Selection {
            sessions: self.session.clone(),
            players: self.player.clone(),
            devices: self.device.clone(),
            from: self.from,
            to: self.to,
            strokes: self.stroke.clone(),
        }
    }

    fn is_folder(&self) -> bool {
        self.out.is_dir() || self.out.to_string_lossy().ends_with('/')
    }
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let done = match args.format {
        What::Archive => archive(&args).await?,
        What::Form(form) => {
            let source = Source::open(&args)?;
            let table = args.table.unwrap_or(match form {
                Form::Rows(_) if !args.stroke.is_empty() => Table::StrokeFrames,
                _ => Table::Frames,
            });
            if args.out == Path::new("-") {
                let mut pieces = source.bytes(&args.selection(), table, form).await?;
                let mut out = std::io::stdout().lock();
                while let Some(piece) = pieces.next().await {
                    match out.write_all(&piece?) {
                        // A reader that has closed the pipe has what it wanted.
                        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                        written => written.context("write the export")?,
                    }
                }
                out.flush().context("write the export")?;
                return Ok(ExitCode::SUCCESS);
            }
            let target = Target::open(&args.out)?;
            if args.is_folder() {
                by_session(&args, &source, &target, table, form).await?
            } else {
                let bytes = target.write("", None, source.bytes(&args.selection(), table, form).await?).await?;
                json!({ "out": args.out, "files": 1, "bytes": bytes })
            }
        }
    };
    print(&done, args.json).context("print what was written")?;
    Ok(ExitCode::SUCCESS)
}

fn print(done: &serde_json::Value, as_json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        return writeln!(out, "{done}");
    }
    let number = |name: &str| done[name].as_u64().unwrap_or(0);
    write!(out, "{}: {} bytes", done["out"].as_str().unwrap_or_default(), number("bytes"))?;
    if done["sessions"].is_u64() {
        write!(out, ", {} sessions", number("sessions"))?;
    }
    for (name, what) in [("already", "there already"), ("resumed_members", "members of an interrupted run kept")] {
        if number(name) > 0 {
            write!(out, ", {} {what}", number(name))?;
        }
    }
    if let Some(left_out) = done["left_out"].as_array().filter(|left_out| !left_out.is_empty()) {
        write!(out, ", {} not sealed yet and left out", left_out.len())?;
    }
    writeln!(out)
}

/// Where the rows come from.
enum Source {
    Local(export::Handle),
    Remote(Remote),
}

/// A running server.
struct Remote {
    client: reqwest::Client,
    url: Url,
    token: Option<String>,
}

impl Remote {
    fn open(url: &Url, token: Option<&String>) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().build().context("make a client")?;
        let place = format!("{}/api/v2/export", url.as_str().trim_end_matches('/'));
        let url = place.parse().with_context(|| format!("--url {url}: write it like http://127.0.0.1:8000"))?;
        Ok(Self { client, url, token: token.cloned() })
    }

    fn request(&self, selection: &Selection, wanted: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let Self { client, url, token } = self;
        let mut query: Vec<_> = wanted.iter().map(|&(name, value)| (name, value.to_owned())).collect();
        query.extend(selection.sessions.iter().map(|id| ("session", id.to_string())));
        query.extend(selection.players.iter().map(|id| ("player", id.to_string())));
        query.extend(selection.devices.iter().map(|code| ("device", code.to_string())));
        query.extend(selection.strokes.iter().map(|name| ("stroke", name.clone())));
        query.extend(selection.from.iter().map(|day| ("from", day.to_string())));
        query.extend(selection.to.iter().map(|day| ("to", day.to_string())));
        let mut request = client.get(url.clone()).query(&query);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request
    }

    async fn bytes(&self, selection: &Selection, wanted: &[(&str, &str)]) -> anyhow::Result<Pieces> {
        let answer = sent(self.request(selection, wanted), &self.url).await?;
        Ok(answer.bytes_stream().map(|piece| piece.context("the answer was cut")).boxed())
    }

    async fn states(&self, selection: &Selection) -> anyhow::Result<Vec<SessionState>> {
        let sql = self.url.join("sql").context("name the server's SQL")?;
        let mut request = self.client.post(sql).json(&json!({ "query": selection.states_sql(), "format": "jsonl" }));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let text = sent(request, &self.url).await?.text().await.context("read the list of sessions")?;
        let lines = text.lines().map(|line| serde_json::from_str(line).context("read the list of sessions"));
        lines.collect()
    }
}

/// The answer, or what the server says against it.
async fn sent(request: reqwest::RequestBuilder, url: &Url) -> anyhow::Result<reqwest::Response> {
    let answer =
        request.send().await.with_context(|| format!("reach {url}; is the server running? volant serve starts it"))?;
    let status = answer.status();
    // Nothing is missing of what is there.
    if !status.is_success() && status != reqwest::StatusCode::RANGE_NOT_SATISFIABLE {
        let problem: serde_json::Value = answer.json().await.unwrap_or_default();
        let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        anyhow::bail!("{} ({}, {})", text("detail"), status.as_u16(), text("code"));
    }
    Ok(answer)
}

type Pieces = futures::stream::BoxStream<'static, anyhow::Result<bytes::Bytes>>;

impl Source {
    fn open(args: &Args) -> anyhow::Result<Self> {
        if let Some(url) = &args.url {
            return Ok(Self::Remote(Remote::open(url, args.token.as_ref())?));
        }
        Ok(Self::Local(local(&args.data_dir)?))
    }

    async fn bytes(&self, selection: &Selection, table: Table, form: Form) -> anyhow::Result<Pieces> {
        match self {
            Self::Local(handle) => Ok(handle.bytes(selection, table, form).await?.map(|piece| Ok(piece?)).boxed()),
            Self::Remote(remote) => {
                remote.bytes(selection, &[("table", table.as_str()), ("format", form.name())]).await
            }
        }
    }

    /// The sessions that match, and what there is of each.
    async fn states(&self, selection: &Selection) -> anyhow::Result<Vec<SessionState>> {
        match self {
            Self::Local(handle) => Ok(handle.states(selection).await?),
            Self::Remote(remote) => remote.states(selection).await,
        }
    }
}

fn local(data_dir: &Path) -> anyhow::Result<export::Handle> {
    let folder =
        query::Folder::open(data_dir).context("--data-dir names the folder of the server, --url asks a running one")?;
    // Nobody else waits for a folder of one's own.
    let limits =
        query::Limits { rows: u64::MAX, wall_time: std::time::Duration::from_hours(24), memory_bytes: 4 << 30 };
    let options = query::Options { limits, ..query::Options::default() };
    Ok(export::Handle::new(query::Handle::start(options, folder.files(), Arc::new(folder))?))
}

/// A file of its own for every session. One that is there is whole, because it gets its name last; it is left alone if it was made
/// of what the session still is.
async fn by_session(
    args: &Args,
    source: &Source,
    target: &Target,
    table: Table,
    form: Form,
) -> anyhow::Result<serde_json::Value> {
    let selection = args.selection();
    let sessions = source.states(&selection).await?;
    anyhow::ensure!(!sessions.is_empty(), "no session matches: {selection}");
    let mut notes = Notes::open(target)?;
    let bar = bar(sessions.len() as u64, "sessions")?;
    let (mut bytes, mut files, mut already) = (0, 0, 0);
    for state in &sessions {
        let name = format!("{}-{}.{}", table.as_str(), state.session_id, form.name());
        let note = Note { file: name.clone(), state: state.clone(), strokes: selection.strokes.clone() };
        if target.has(&note, &notes).await? {
            already += 1;
        } else {
            let one = Selection { sessions: vec![state.session_id], ..selection.clone() };
            bytes += target.write(&name, Some(&note), source.bytes(&one, table, form).await?).await?;
            notes.add(note)?;
            files += 1;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(json!({
        "out": args.out, "files": files, "bytes": bytes, "sessions": sessions.len(), "already": already
    }))
}

/// What a file of a folder was made of.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    file: String,
    state: SessionState,
    strokes: Vec<String>,
}

impl Note {
    /// The note in the metadata of an object: its SHA-256, hex.
    fn mark(&self) -> anyhow::Result<String> {
        Ok(export::hex(&Sha256::digest(serde_json::to_vec(self).context("note a file")?)))
    }
}

/// The notes of a folder, a line each, later ones before earlier ones; none of an object store, where objects have marks.
struct Notes(Option<(PathBuf, HashMap<String, Note>)>);

impl Notes {
    const NAME: &'static str = "exported.jsonl";

    fn open(target: &Target) -> anyhow::Result<Self> {
        let Target::Disk(folder) = target else { return Ok(Self(None)) };
        let path = folder.join(Self::NAME);
        // A line that a crash tore is of a file that is made again.
        let notes: Vec<Note> = notes::read(&path).with_context(|| format!("read {}", path.display()))?;
        let notes = notes.into_iter().map(|note| (note.file.clone(), note)).collect();
        Ok(Self(Some((path, notes))))
    }

    fn have(&self, note: &Note) -> bool {
        self.0.as_ref().is_some_and(|(_, notes)| notes.get(&note.file) == Some(note))
    }

    fn add(&mut self, note: Note) -> anyhow::Result<()> {
        let Some((path, known)) = &mut self.0 else { return Ok(()) };
        notes::add(path, &note).with_context(|| format!("note a file in {}", path.display()))?;
        known.insert(note.file.clone(), note);
        Ok(())
    }
}

/// Where files go: a name below the place, or none for the place itself.
enum Target {
    Disk(PathBuf),
    Bucket(Bucket),
}

impl Target {
    fn open(out: &Path) -> anyhow::Result<Self> {
        if Bucket::is_named_by(out) {
            return Ok(Self::Bucket(Bucket::open(out)?));
        }
        Ok(Self::Disk(out.to_owned()))
    }

    /// True if the note's file is there, made of what the note says.
    async fn has(&self, note: &Note, notes: &Notes) -> anyhow::Result<bool> {
        match self {
            Self::Disk(folder) => Ok(notes.have(note) && folder.join(&note.file).is_file()),
            Self::Bucket(bucket) => Ok(bucket.made_of(&note.file).await? == Some(note.mark()?)),
        }
    }

    /// Whoever sees the file sees it whole.
    async fn write(&self, name: &str, note: Option<&Note>, pieces: Pieces) -> anyhow::Result<u64> {
        let bar = spinner()?;
        let pieces = pieces.inspect_ok(|piece| bar.inc(piece.len() as u64));
        let written = match self {
            Self::Disk(path) if name.is_empty() => into_file(pieces, path).await,
            Self::Disk(folder) => {
                std::fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
                into_file(pieces, &folder.join(name)).await
            }
            Self::Bucket(bucket) => bucket.write(name, note.map(Note::mark).transpose()?, pieces).await,
        };
        bar.finish_and_clear();
        written
    }
}

fn spinner() -> anyhow::Result<ProgressBar> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{spinner} {bytes}, {bytes_per_sec}");
    bar.set_style(style.context("make the progress bar")?);
    Ok(bar)
}

/// Writes under a temporary name and renames.
async fn into_file(
    mut pieces: impl Stream<Item = anyhow::Result<bytes::Bytes>> + Unpin,
    path: &Path,
) -> anyhow::Result<u64> {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    let mut file = File::create(&partial).with_context(|| format!("make {}", partial.display()))?;
    let mut bytes = 0;
    let written = async {
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            file.write_all(&piece).with_context(|| format!("write {}", partial.display()))?;
            bytes += piece.len() as u64;
        }
        file.sync_all().with_context(|| format!("sync {}", partial.display()))?;
        std::fs::rename(&partial, path).with_context(|| format!("rename to {}", path.display()))
    };
    let written = written.await;
    if written.is_err() {
        // The reason is told; what is left of the file is of no use to anybody.
        std::fs::remove_file(&partial).ok();
    }
    written.map(|()| bytes)
}

fn bar(length: u64, what: &str) -> anyhow::Result<ProgressBar> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(length) } else { ProgressBar::hidden() };
    let template = format!("{{bar:30}} {{human_pos}}/{{human_len}} {what}  {{eta}} left");
    bar.set_style(ProgressStyle::with_template(&template).context("make the progress bar")?);
    Ok(bar)
}

async fn archive(args: &Args) -> anyhow::Result<serde_json::Value> {
    anyhow::ensure!(args.table.is_none(), "an archive holds all tables; leave --table out");
    anyhow::ensure!(
        !args.is_folder() && args.out != Path::new("-"),
        "--out names the archive's file, such as season.tar.zst"
    );
    match &args.url {
        Some(url) => archive_of_server(args, url).await,
        None => archive_of_folder(args).await,
    }
}

/// An archive that a server makes, read back before it gets its name; one that was cut is gone on with.
async fn archive_of_server(args: &Args, url: &Url) -> anyhow::Result<serde_json::Value> {
    anyhow::ensure!(
        !Bucket::is_named_by(&args.out),
        "into an object store an archive goes from the data folder: --data-dir instead of --url"
    );
    let remote = Remote::open(url, args.token.as_ref())?;
    let selection = args.selection();
    let part = Part::of(&args.out);
    let bar = spinner()?;
    let ask = || remote.request(&selection, &[("format", "archive")]);
    let left = part.fetch(ask, async |request| sent(request, &remote.url).await, &bar).await;
    bar.finish_and_clear();
    let left = left?;
    let opened = Opened::read(part.file()).inspect_err(|_| part.give_up())?;
    let bytes = std::fs::metadata(part.file()).context("look at the archive")?.len();
    part.finish(&args.out)?;
    let mut told = told(args, &opened.manifest, bytes, 0);
    told["resumed_bytes"] = json!(left);
    Ok(told)
}

/// An archive of the stored files of a folder; one that was interrupted is gone on with.
async fn archive_of_folder(args: &Args) -> anyhow::Result<serde_json::Value> {
    let paths = Paths::new(&args.data_dir);
    let handle = local(&args.data_dir)?;
    let selection = args.selection();
    let outgoing = if Bucket::is_named_by(&args.out) { Some(Outgoing::open(&paths, &args.out)?) } else { None };
    let file = outgoing.as_ref().map_or(args.out.as_path(), |outgoing| outgoing.file.as_path());
    let path = paths.catalog();
    anyhow::ensure!(path.is_file(), "{} has no catalog: an archive is made of a service's data folder", path.display());
    let catalog = Catalog::open_read_only(&path).await?;
    let mut attempt = 1;
    let (archive, written) = loop {
        let sessions = handle.sessions(&selection).await?;
        let now_us = Clock::system().now_us();
        let archive = Archive::of(&paths, &catalog, &sessions, selection.to_string(), now_us).await?;
        anyhow::ensure!(!archive.sessions.is_empty(), "no session that matches is sealed yet: {selection}");
        let bar = bar(0, "files")?;
        let written = archive.write(file, &mut |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        });
        bar.finish_and_clear();
        match written {
            Err(export::Error::Archive { .. } | export::Error::Io { .. }) if attempt < ATTEMPTS_LIMIT => attempt += 1,
            written => break (archive, written?),
        }
    };
    catalog.close().await;
    if let Some(outgoing) = &outgoing {
        outgoing.send().await?;
    }
    let path = if outgoing.is_some() { Ok(args.out.clone()) } else { std::path::absolute(&args.out) };
    export::note_archive(&paths, &archive.note(path.context("name the archive")?))?;
    Ok(told(args, &written.manifest, written.bytes, written.resumed_members))
}

fn told(args: &Args, manifest: &Manifest, bytes: u64, resumed_members: usize) -> serde_json::Value {
    json!({
        "out": args.out,
        "bytes": bytes,
        "sessions": manifest.sessions.len(),
        "members": manifest.members.len(),
        "resumed_members": resumed_members,
        "left_out": manifest.left_out,
    })
}
