//! An archive: one file that holds whole sessions, for keeping and for moving to another service.
//!
//! # Layout
//!
//! A tar (ustar) in which every member is a zstd frame of its own, so that writing can go on after an interruption and
//! `tar --zstd -x` still unpacks it. Members, in this order:
//!
//! ```text
//! README.md                                   what this is and how to read it without this program
//! schemas/frames.json, strokes.json, results.json   columns with types, units and null meanings
//! models/<name>.md                            cards of the models that named the strokes
//! frames/date=2026-11-23/42.parquet           of each session the stored files, byte for byte
//! strokes/date=2026-11-23/42.parquet
//! results/date=2026-11-23/42.parquet
//! sessions/42.json                            what the catalog knows of it, the analysis and labels included
//! manifest.json                               version, service, players by number, length and SHA-256 of each member
//! ```
//!
//! An archive without its manifest is incomplete and is refused.
//!
//! # Life
//!
//! It grows as `PATH.partial`; `PATH.partial.log` has a line for each member that is whole. A run that was killed is gone on
//! with after the last whole member whose source has not changed. At the end the file is read back against its manifest,
//! synced, and renamed to `PATH`.
//!
//! # Versions
//!
//! *New reader, old archive*: every version stays readable. *Old reader, new archive*: refused by its number. Version 2 has labels
//! in `sessions/`; an archive without any is still written as version 1.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::Stream;
use schemas::{SessionId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::made::{ArchiveNote, note_archive, partial};
use super::{Error, io_error};
use crate::store::catalog::{ArchivedPlayer, ArchivedSession, Catalog};
use crate::store::pack::{self, TableFile};
use crate::store::paths::{Paths, TablePath};
use crate::store::seal;

/// Newest version of the layout.
pub const ARCHIVE_VERSION: u32 = 2;
/// The version of an archive without labels, which programs from before them read.
const WITHOUT_LABELS: u32 = 1;

/// Level of compression. The Parquet inside is compressed already; the JSON beside it is not.
const ZSTD_LEVEL: i32 = 3;
const BLOCK_BYTES: usize = 512;
/// The largest member that is not a stored file; a session's analysis has some 2 kB a stroke.
const TEXT_LIMIT_BYTES: u64 = 256 << 20;
const MANIFEST: &str = "manifest.json";
/// The name of an archive that is sent, and in the errors of its making.
pub(super) const NAME: &str = "archive.tar.zst";
/// What is sent at once, how many such pieces wait for a slow taker, and for how long one that takes nothing is waited for.
const PIECE_BYTES: usize = 1 << 18;
const PIECES_AHEAD: usize = 4;
const STANDSTILL: Duration = Duration::from_mins(1);

/// What an archive is made of.
#[derive(Debug)]
pub struct Archive {
    /// Where the stored files are.
    pub paths: Paths,
    /// Which service this is; the same in all its archives.
    pub service: String,
    /// µs since 1970 UTC.
    pub created_at_us: i64,
    /// What was asked for, in words.
    pub selection: String,
    /// In the order of their numbers.
    pub sessions: Vec<ArchivedSession>,
    /// Those of the sessions.
    pub players: Vec<ArchivedPlayer>,
    /// Sessions that were asked for and are not in it, because they are not sealed yet.
    pub left_out: Vec<i64>,
    /// Files of sessions that are still open, by name: another one may take their place before it is their turn.
    held: HashMap<String, TableFile>,
}

/// What an archive says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `volant-archive`.
    pub format: String,
    /// At most [`ARCHIVE_VERSION`].
    pub version: u32,
    /// The program that wrote it.
    pub program: String,
    /// The service it comes from.
    pub service: String,
    /// µs since 1970 UTC.
    pub created_at_us: i64,
    /// What was asked for, in words.
    pub selection: String,
    /// Players of the sessions, by number.
    pub players: Vec<ArchivedPlayer>,
    /// The sessions.
    pub sessions: Vec<SessionEntry>,
    /// Sessions that were not sealed yet.
    pub left_out: Vec<i64>,
    /// Every other member, in order.
    pub members: Vec<Entry>,
}

/// A session in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionEntry {
    /// Its number in the service it comes from.
    pub session_id: i64,
    /// Its device.
    pub device_code: String,
    /// Its player, by number.
    pub user_id: Option<i64>,
    /// µs since 1970 UTC.
    pub started_at_us: i64,
    /// Frames.
    pub rows: i64,
    /// SHA-256 of the file of frames, hex.
    pub frames_sha256: String,
}

/// A member of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256, hex.
    pub sha256: String,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The manifest.
    pub manifest: Manifest,
    /// Length of the archive.
    pub bytes: u64,
    /// Members that an interrupted run had left.
    pub resumed_members: usize,
}

/// A line of the log: a member that is whole, and where it ends.
#[derive(Serialize, Deserialize)]
struct Done {
    #[serde(flatten)]
    entry: Entry,
    end: u64,
}

/// Where a member comes from.
enum Content {
    Text(Vec<u8>),
    /// Below the data folder, with the sum that it must have where the catalog knows it.
    Stored {
        path: String,
        sha256: Option<String>,
    },
}

impl Archive {
    /// Of these sessions, as the catalog knows them now. Those that are not sealed yet are left out.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub async fn of(
        paths: &Paths,
        catalog: &Catalog,
        sessions: &[i64],
        selection: String,
        created_at_us: i64,
    ) -> Result<Self, Error> {
        let (mut sealed, mut left_out, mut held) = (Vec::new(), Vec::new(), HashMap::new());
        let open = catalog.unclosed_sessions().await?.into_iter().map(|row| row.session_id).collect::<HashSet<_>>();
        for &session in sessions {
            let id = SessionId(session);
            let known = if open.contains(&id) {
                let opened = open_session(paths, catalog, id).await?;
                opened.map(|(session, file)| {
                    held.extend(file.map(|file| (session.frames_path.clone(), file)));
                    session
                })
            } else {
                catalog.archived_session(id).await?
            };
            match known {
                Some(session) => sealed.push(session),
                None => left_out.push(session),
            }
        }
        let users: BTreeSet<i64> = sealed.iter().filter_map(|session| session.user_id).collect();
        let mut players = Vec::new();
        for user in users {
            players.extend(catalog.archived_player(UserId(user)).await?);
        }
        let service = catalog.service_id().await?.unwrap_or_else(|| "unnamed".to_owned());
        Ok(Self { paths: paths.clone(), service, created_at_us, selection, sessions: sealed, players, left_out, held })
    }

    /// What is remembered of it where it was made, so that whoever erases a player later knows of it.
    #[must_use]
    pub fn note(&self, path: PathBuf) -> ArchiveNote {
        ArchiveNote {
            path,
            created_at_us: self.created_at_us,
            players: self.players.iter().map(|player| player.user_id).collect(),
            sessions: self.sessions.iter().map(|session| session.session_id).collect(),
            unfinished: false,
        }
    }

    /// What tells whether two archives have the same bytes: when it was made, and a sum over what it is made of. Whoever
    /// has a part can have the rest by it: an archive of the same sessions and time is written the same again.
    #[must_use]
    pub fn tag(&self) -> String {
        let mut sum = Sha256::new();
        sum.update(serde_json::to_vec(&self.manifest(Vec::new())).unwrap_or_default());
        sum.update(serde_json::to_vec(&self.sessions).unwrap_or_default());
        format!("{}-{}", self.created_at_us, &hex(&sum.finalize())[..32])
    }

    /// The time in a tag, µs since 1970 UTC.
    #[must_use]
    pub fn time_of(tag: &str) -> Option<i64> {
        tag.split_once('-')?.0.parse().ok()
    }

    /// How long the archive is: it is written once to nowhere.
    ///
    /// # Errors
    /// As [`Archive::write`].
    pub fn length(&self) -> Result<u64, Error> {
        let mut count = Count(0);
        self.write_to(&mut count)?;
        Ok(count.0)
    }

    /// The archive from this byte on, in pieces, made as they are taken, by a thread of its own; `permit` is dropped when the
    /// work ends. Dropping the stream ends it, and so does a taker that stands still. An error is the last item: what came
    /// before it has no manifest, so it is no archive.
    pub fn pieces<P: Send + 'static>(
        self,
        from: u64,
        permit: P,
    ) -> impl Stream<Item = Result<Bytes, Error>> + Send + use<P> {
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        let held = Vec::with_capacity(PIECE_BYTES);
        let mut out = Pieces { sender, held, pass_over: from, runtime: Handle::current() };
        tokio::task::spawn_blocking(move || {
            let written = self.write_to(&mut out).and_then(|()| out.flush().map_err(io_error("send", Path::new(NAME))));
            if let Err(error) = written {
                // Whoever has gone away needs no reason.
                out.sender.blocking_send(Err(error)).ok();
            }
            drop(permit);
        });
        futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
    }

    fn write_to(&self, out: &mut impl Write) -> Result<(), Error> {
        let place = Path::new(NAME);
        let mut members = Vec::new();
        for (name, content) in self.plan(place)? {
            members.push(self.append(out, place, &name, &content)?);
        }
        self.end(out, place, members).map(drop)
    }

    /// The manifest and the end of the tar.
    fn end(&self, out: &mut impl Write, place: &Path, members: Vec<Entry>) -> Result<Manifest, Error> {
        let manifest = self.manifest(members);
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| archive_error(place, error.to_string()))?;
        self.append(out, place, MANIFEST, &Content::Text(text))?;
        compressed(out, place, |frame| frame.write_all(&[0; 2 * BLOCK_BYTES]))?;
        Ok(manifest)
    }

    /// Writes the archive to `out`; `progress` hears of each member: how many are done, of how many.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Archive`] if a stored file is not what the catalog says (a new revision was published
    /// meanwhile: begin again with what the catalog says now) or what was written reads back differently.
    pub fn write(&self, out: &Path, progress: &mut dyn FnMut(usize, usize)) -> Result<Written, Error> {
        let partial = partial(out);
        let log_path = partial.with_extension("partial.log");
        let plan = self.plan(out)?;
        let place = std::path::absolute(out).map_err(io_error("name", out))?;
        // What is on its way into a store lies in the folder itself, and goes with it.
        if !out.starts_with(self.paths.outgoing()) {
            note_archive(&self.paths, &ArchiveNote { unfinished: true, ..self.note(place) })?;
        }
        let (mut done, mut end) = self.resume(&plan, &partial, &log_path);
        let resumed_members = done.len();
        let open = |path: &Path| {
            OpenOptions::new()
                .create(true)
                .read(true)
                .write(true)
                .truncate(false)
                .open(path)
                .map_err(io_error("open", path))
        };
        let mut file = open(&partial)?;
        file.set_len(end).map_err(io_error("cut", &partial))?;
        file.seek(SeekFrom::End(0)).map_err(io_error("write", &partial))?;
        let mut log = open(&log_path)?;
        let lines = done.iter().zip(ends(&log_path)).map(|(entry, end)| Done { entry: entry.clone(), end });
        let kept = lines.map(|line| line_of(&line)).collect::<Vec<_>>().concat();
        log.set_len(0).and_then(|()| log.write_all(&kept)).map_err(io_error("write", &log_path))?;

        for (name, content) in plan.iter().skip(done.len()) {
            progress(done.len(), plan.len());
            let entry = self.append(&mut file, &partial, name, content)?;
            end = file.stream_position().map_err(io_error("write", &partial))?;
            log.write_all(&line_of(&Done { entry: entry.clone(), end })).map_err(io_error("write", &log_path))?;
            done.push(entry);
        }
        progress(plan.len(), plan.len());
        let manifest = self.end(&mut file, &partial, done)?;
        file.sync_all().map_err(io_error("sync", &partial))?;
        let bytes = file.metadata().map_err(io_error("look at", &partial))?.len();
        drop(file);

        let whole = Opened::read(&partial).is_ok_and(|found| found.manifest == manifest);
        if !whole {
            // Kept, it would be gone on with again and again.
            fs::remove_file(&partial).map_err(io_error("delete", &partial))?;
            fs::remove_file(&log_path).map_err(io_error("delete", &log_path))?;
            return Err(archive_error(out, "what was written reads back differently; it is deleted".to_owned()));
        }
        fs::rename(&partial, out).map_err(io_error("rename to", out))?;
        fs::remove_file(&log_path).map_err(io_error("delete", &log_path))?;
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("sync folder", folder))?;
        Ok(Written { manifest, bytes, resumed_members })
    }

    fn manifest(&self, members: Vec<Entry>) -> Manifest {
        let session = |session: &ArchivedSession| SessionEntry {
            session_id: session.session_id,
            device_code: session.device_code.clone(),
            user_id: session.user_id,
            started_at_us: session.started_at_us,
            rows: session.rows,
            frames_sha256: session.frames_sha256.clone(),
        };
        let has_labels = self.sessions.iter().any(|session| !session.labels.is_empty());
        Manifest {
            format: "volant-archive".to_owned(),
            version: if has_labels { ARCHIVE_VERSION } else { WITHOUT_LABELS },
            program: concat!("volant ", env!("CARGO_PKG_VERSION")).to_owned(),
            service: self.service.clone(),
            created_at_us: self.created_at_us,
            selection: self.selection.clone(),
            players: self.players.clone(),
            sessions: self.sessions.iter().map(session).collect(),
            left_out: self.left_out.clone(),
            members,
        }
    }

    /// Every member but the manifest, in order.
    fn plan(&self, out: &Path) -> Result<Vec<(String, Content)>, Error> {
        let text = |name: &str, text: String| (name.to_owned(), Content::Text(text.into_bytes()));
        let mut plan = vec![text("README.md", include_str!("archive-readme.md").to_owned())];
        for (name, schema) in [
            ("frames", schemas::frames::frames_schema()),
            ("strokes", schemas::tables::strokes_schema()),
            ("results", schemas::tables::results_schema()),
        ] {
            plan.push(text(&format!("schemas/{name}.json"), described(&schema)));
        }
        let named = |session: &ArchivedSession| {
            let analysis = session.result.as_ref().map(|result| result.analysis.as_str()).unwrap_or_default();
            analysis.contains(pipelines::BUILTIN_MODEL)
        };
        if self.sessions.iter().any(named) {
            plan.push(text(&format!("models/{}.md", pipelines::BUILTIN_MODEL), pipelines::BUILTIN_CARD.to_owned()));
        }
        for session in &self.sessions {
            let stored = |path: &String, sha256: Option<&String>| {
                (path.clone(), Content::Stored { path: path.clone(), sha256: sha256.cloned() })
            };
            plan.push(stored(&session.frames_path, Some(&session.frames_sha256)));
            if let Some(result) = &session.result {
                plan.push(stored(&result.strokes_path, None));
                plan.push(stored(&result.result_path, None));
            }
            let known = serde_json::to_string_pretty(session).map_err(|error| archive_error(out, error.to_string()))?;
            plan.push(text(&format!("sessions/{}.json", session.session_id), known));
        }
        Ok(plan)
    }

    /// The members that an interrupted run left and that would be written the same again, and where they end.
    fn resume(&self, plan: &[(String, Content)], partial: &Path, log: &Path) -> (Vec<Entry>, u64) {
        let length = fs::metadata(partial).map_or(0, |file| file.len());
        let mut kept = Vec::new();
        let mut end = 0;
        for ((name, content), done) in plan.iter().zip(lines(log)) {
            let same = done.entry.path == *name
                && done.end <= length
                && match content {
                    Content::Text(text) => done.entry.sha256 == hex(&Sha256::digest(text)),
                    Content::Stored { path, .. } => {
                        let stored = self.stored(path).and_then(|file| file.sha256().map_err(store_error));
                        stored.is_ok_and(|(_, sum)| sum == done.entry.sha256)
                    }
                };
            if !same {
                break;
            }
            end = done.end;
            kept.push(done.entry);
        }
        (kept, end)
    }

    /// A session's file, of its own or out of a pack.
    fn stored(&self, path: &str) -> Result<TableFile, Error> {
        if let Some(held) = self.held.get(path) {
            return Ok(held.clone());
        }
        let at = |what| archive_error(&self.paths.root().join(path), what);
        let path: TablePath = path.parse().map_err(|_| at("the name of no session's file".to_owned()))?;
        pack::locate(&self.paths, path).map_err(store_error)
    }

    /// Writes a member as a zstd frame of its own.
    fn append(&self, out: &mut impl Write, place: &Path, name: &str, content: &Content) -> Result<Entry, Error> {
        let (mut source, bytes): (Box<dyn Read + '_>, u64) = match content {
            Content::Text(text) => (Box::new(text.as_slice()), text.len() as u64),
            Content::Stored { path, .. } => {
                let file = self.stored(path)?;
                let bytes = file.bytes();
                (Box::new(file.reader()), bytes)
            }
        };
        let header = header(name, bytes).map_err(io_error("write", place))?;
        let mut hash = Sha256::new();
        let mut copied = 0;
        compressed(out, place, |frame| {
            frame.write_all(header.as_bytes())?;
            let mut buffer = vec![0; 1 << 18];
            loop {
                let count = source.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                hash.update(&buffer[..count]);
                frame.write_all(&buffer[..count])?;
                copied += count as u64;
            }
            let rest = (BLOCK_BYTES - (copied as usize % BLOCK_BYTES)) % BLOCK_BYTES;
            frame.write_all(&[0; BLOCK_BYTES][..rest])
        })?;
        let sha256 = hex(&hash.finalize());
        let expected = match content {
            Content::Stored { sha256, .. } => sha256.as_ref(),
            Content::Text(_) => None,
        };
        if copied != bytes || expected.is_some_and(|expected| *expected != sha256) {
            return Err(archive_error(place, format!("{name} changed while it was read")));
        }
        Ok(Entry { path: name.to_owned(), bytes, sha256 })
    }
}

/// How often an open session is looked at until its file is the one that the catalog has, and the pause between: a file gets its
/// name a moment before the catalog knows of it.
const LOOKS_LIMIT: usize = 5;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// A session that may get another file at any moment, with the one that it has; without, if that is not to be had.
async fn open_session(
    paths: &Paths,
    catalog: &Catalog,
    session: SessionId,
) -> Result<Option<(ArchivedSession, Option<TableFile>)>, Error> {
    for _ in 1..LOOKS_LIMIT {
        let Some(known) = catalog.archived_session(session).await? else { return Ok(None) };
        let file = known.frames_path.parse().ok().and_then(|path| pack::locate(paths, path).ok());
        if file.as_ref().is_some_and(|file| file.bytes() == known.frames_bytes as u64) {
            return Ok(Some((known, file)));
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
    // What is wrong with it is told when it is its turn.
    Ok(catalog.archived_session(session).await?.map(|known| (known, None)))
}

/// Takes bytes and sends them in pieces.
struct Pieces {
    sender: mpsc::Sender<Result<Bytes, Error>>,
    held: Vec<u8>,
    /// Bytes that the taker has already.
    pass_over: u64,
    runtime: Handle,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::replace(&mut self.held, Vec::with_capacity(PIECE_BYTES)));
        let sent = self.runtime.block_on(self.sender.send_timeout(Ok(piece), STANDSTILL));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes the archive any more"))
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pass_over > 0 {
            let passed = self.pass_over.min(bytes.len() as u64);
            self.pass_over -= passed;
            return Ok(passed as usize);
        }
        let count = bytes.len().min(PIECE_BYTES - self.held.len());
        self.held.extend_from_slice(&bytes[..count]);
        if self.held.len() == PIECE_BYTES {
            self.send()?;
        }
        Ok(count)
    }

    /// Only the end of the archive sends a piece that is not full.
    fn flush(&mut self) -> io::Result<()> {
        if self.held.is_empty() { Ok(()) } else { self.send() }
    }
}

/// Counts bytes.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An archive that was read from its beginning to its end and found whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where.
    pub path: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
}

impl Opened {
    /// Reads an archive and compares every member with the manifest.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Archive`] for what is no archive, incomplete, damaged, or newer than this program.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let mut members = Vec::new();
        let mut manifest: Option<Manifest> = None;
        each_member(path, |name, content| {
            if manifest.is_some() {
                return Err(archive_error(path, format!("{name} stands after the manifest")));
            }
            if name == MANIFEST {
                let text = text_of(path, name, content)?;
                manifest = Some(parse_manifest(path, &text)?);
                return Ok(());
            }
            let mut hash = Sha256::new();
            let mut bytes = 0;
            let mut buffer = vec![0; 1 << 18];
            loop {
                let count = content.read(&mut buffer).map_err(|error| damaged(path, &error))?;
                if count == 0 {
                    break;
                }
                hash.update(&buffer[..count]);
                bytes += count as u64;
            }
            members.push(Entry { path: name.to_owned(), bytes, sha256: hex(&hash.finalize()) });
            Ok(())
        })?;
        let manifest = manifest
            .ok_or_else(|| archive_error(path, "there is no manifest, the archive is incomplete".to_owned()))?;
        let differs = manifest.members.iter().zip(&members).find(|(told, found)| told != found);
        match differs {
            Some((told, _)) => Err(archive_error(path, format!("{} is not what the manifest says", told.path))),
            None if manifest.members.len() != members.len() => {
                Err(archive_error(path, "the manifest names other members".to_owned()))
            }
            None => Ok(Self { path: path.to_owned(), manifest }),
        }
    }

    /// Gives every member but the manifest to `take`, in order.
    ///
    /// # Errors
    /// As [`Opened::read`]; what `take` fails with.
    pub fn each<E: From<Error>>(&self, mut take: impl FnMut(&Entry, &mut dyn Read) -> Result<(), E>) -> Result<(), E> {
        let mut members = self.manifest.members.iter();
        let mut failed = None;
        each_member(&self.path, |name, content| {
            if let Some(entry) = members.next().filter(|entry| entry.path == name)
                && failed.is_none()
                && let Err(error) = take(entry, content)
            {
                failed = Some(error);
            }
            Ok(())
        })?;
        failed.map_or(Ok(()), Err)
    }
}

fn parse_manifest(path: &Path, text: &[u8]) -> Result<Manifest, Error> {
    #[derive(Deserialize)]
    struct Head {
        format: String,
        version: u32,
    }
    let wrong = |error: serde_json::Error| archive_error(path, format!("the manifest: {error}"));
    let head: Head = serde_json::from_slice(text).map_err(wrong)?;
    if head.format != "volant-archive" {
        return Err(archive_error(path, format!("the format {:?}, not volant-archive,", head.format)));
    }
    if head.version > ARCHIVE_VERSION {
        let version = head.version;
        return Err(archive_error(
            path,
            format!("version {version}, newer than this program knows ({ARCHIVE_VERSION}),"),
        ));
    }
    serde_json::from_slice(text).map_err(wrong)
}

fn each_member(path: &Path, mut take: impl FnMut(&str, &mut dyn Read) -> Result<(), Error>) -> Result<(), Error> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let frames = zstd::Decoder::new(file).map_err(|error| damaged(path, &error))?;
    let mut tar = tar::Archive::new(frames);
    for member in tar.entries().map_err(|error| damaged(path, &error))? {
        let mut member = member.map_err(|error| damaged(path, &error))?;
        let name = member.path().map_err(|error| damaged(path, &error))?.to_string_lossy().into_owned();
        take(&name, &mut member)?;
    }
    Ok(())
}

/// The text of a member that is no stored file.
pub(crate) fn text_of(path: &Path, name: &str, content: &mut dyn Read) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    content.take(TEXT_LIMIT_BYTES + 1).read_to_end(&mut text).map_err(|error| damaged(path, &error))?;
    if text.len() as u64 > TEXT_LIMIT_BYTES {
        return Err(archive_error(path, format!("{name} is larger than {TEXT_LIMIT_BYTES} bytes")));
    }
    Ok(text)
}

fn header(name: &str, bytes: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

fn compressed<W: Write>(
    out: W,
    path: &Path,
    write: impl FnOnce(&mut zstd::Encoder<'_, W>) -> io::Result<()>,
) -> Result<(), Error> {
    let made = zstd::Encoder::new(out, ZSTD_LEVEL).and_then(|mut frame| {
        frame.include_checksum(true)?;
        write(&mut frame)?;
        frame.finish().map(drop)
    });
    made.map_err(io_error("write", path))
}

/// Columns of a table as a document: `schemas/tables/*.json`, and a member of every archive.
#[must_use]
pub fn described(schema: &SchemaRef) -> String {
    let columns = schema.fields().iter().map(|field| {
        json!({
            "name": field.name(),
            "type": field.data_type().to_string(),
            "nullable": field.is_nullable(),
            "comment": field.metadata().get("comment"),
        })
    });
    let document = json!({
        "table": schema.metadata().get("volant.table"),
        "version": schema.metadata().get("volant.version"),
        "columns": columns.collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

fn lines(log: &Path) -> Vec<Done> {
    let Ok(file) = File::open(log) else { return Vec::new() };
    // The last line may be torn; it and what follows count for nothing.
    BufReader::new(file).lines().map_while(|line| serde_json::from_str(&line.ok()?).ok()).collect()
}

fn ends(log: &Path) -> Vec<u64> {
    lines(log).iter().map(|done| done.end).collect()
}

fn line_of(done: &Done) -> Vec<u8> {
    let mut line = serde_json::to_vec(done).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|half| char::from_digit(u32::from(half), 16))
        .collect()
}

fn archive_error(path: &Path, what: String) -> Error {
    Error::Archive { what, path: path.to_owned() }
}

fn store_error(error: seal::Error) -> Error {
    match error {
        seal::Error::Io { step, path, source } => Error::Io { step, path, source },
        other => Error::Stored { source: other },
    }
}

fn damaged(path: &Path, error: &io::Error) -> Error {
    archive_error(path, format!("damaged bytes ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends these bytes in pieces, on a thread of its own.
    fn sending(sender: mpsc::Sender<Result<Bytes, Error>>, bytes: Vec<u8>) -> std::thread::JoinHandle<io::Result<()>> {
        let held = Vec::with_capacity(PIECE_BYTES);
        let mut out = Pieces { sender, held, pass_over: 0, runtime: Handle::current() };
        let send = move || out.write_all(&bytes).and_then(|()| out.flush());
        std::thread::Builder::new().name("archive".to_owned()).spawn(send).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_taker_that_stands_still_ends_the_archive_and_a_slow_one_does_not() {
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES + 7).map(|i| i as u8).collect();
        let (sender, mut taker) = mpsc::channel(1);
        let writing = sending(sender, bytes.clone());
        let mut taken = Vec::new();
        while let Some(piece) = taker.recv().await {
            taken.extend(piece.unwrap());
            tokio::time::advance(STANDSTILL / 2).await;
        }
        writing.join().unwrap().unwrap();
        assert!(taken == bytes, "{} of {} bytes", taken.len(), bytes.len());

        let (sender, taker) = mpsc::channel(1);
        let writing = sending(sender, bytes);
        while !writing.is_finished() {
            // The time in which nothing is taken, however long the other thread took to begin to wait.
            tokio::time::advance(STANDSTILL).await;
            std::thread::yield_now();
        }
        assert_eq!(writing.join().unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop(taker);
    }
}
