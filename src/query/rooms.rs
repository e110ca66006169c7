//! The running service as a source: sealed files by the catalog, the rest from the open recordings.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemas::SessionId;

use super::source::{
    DeviceRow, LabelRow, LiveFrames, NotificationRow, PlayerRow, SessionRow, Snapshot, Source, SourceError, StoredFile,
    Within,
};
use crate::hub;
use crate::ingest;
use crate::store::catalog::{self, Catalog, Version};
use crate::store::pack::{Directory, Member, Packs};
use crate::store::paths::{Paths, TablePath};

/// Sessions that the `sessions` table shows at most, the newest.
const SESSIONS_LIMIT: i64 = 1_000_000;

/// The running service.
#[derive(Clone, Debug)]
pub struct Rooms {
    catalog: Catalog,
    paths: Paths,
    known: Arc<Known>,
    /// Absent for a folder that another process may be writing: then the log is read instead.
    live: Option<(ingest::Handle, hub::Handle)>,
}

/// What is remembered between statements: packs, and what the catalog says is stored, until it changes.
#[derive(Debug, Default)]
pub struct Known {
    packs: Packs,
    stored: Mutex<Option<(Version, Stored)>>,
}

/// The files of every session, by the catalog.
#[derive(Clone, Debug, Default)]
struct Stored {
    frames: Arc<Vec<StoredFile>>,
    strokes: Arc<Vec<StoredFile>>,
    results: Arc<Vec<StoredFile>>,
}

impl Rooms {
    /// Everything the service knows, open recordings included.
    #[must_use]
    pub fn new(paths: Paths, ingest: ingest::Handle, catalog: Catalog, hub: hub::Handle) -> Self {
        Self { catalog, paths, known: Arc::default(), live: Some((ingest, hub)) }
    }

    /// What the catalog alone answers for. `known` may be shared.
    #[must_use]
    pub fn stored(paths: Paths, known: Arc<Known>, catalog: Catalog) -> Self {
        Self { catalog, paths, known, live: None }
    }

    /// What the catalog says is stored: at least what was committed before the call.
    async fn stored_files(&self) -> Result<Stored, SourceError> {
        // First the version: what is committed while the rest is read comes with another one.
        let version = self.catalog.version();
        if let Some((_, stored)) = self.known.stored().as_ref().filter(|(known, _)| Some(*known) == version) {
            return Ok(stored.clone());
        }
        let sessions = self.catalog.sealed_sessions().await?.into_iter();
        let frames = sessions.filter_map(|session| {
            let path = session.frames_path?;
            Some(date_of(session.started_at_us).map(|date| StoredFile {
                session_id: session.session_id,
                path,
                within: None,
                date,
                rows: Some(session.sealed_rows as u64),
                bytes: session.frames_bytes.unwrap_or(0) as u64,
                version: session.revision,
            }))
        });
        let frames = frames.collect::<Result<_, SourceError>>()?;
        let (mut strokes, mut results) = (Vec::new(), Vec::new());
        for published in self.catalog.published_files().await? {
            let date = date_of(published.started_at_us)?;
            let stored = |file: catalog::StoredFile| StoredFile {
                session_id: published.session_id,
                path: file.path,
                within: None,
                date,
                rows: None,
                bytes: file.bytes as u64,
                version: published.created_at_us,
            };
            strokes.push(stored(published.strokes));
            results.push(stored(published.result));
        }
        let stored = Stored { frames: Arc::new(frames), strokes: Arc::new(strokes), results: Arc::new(results) };
        *self.known.stored() = version.map(|version| (version, stored.clone()));
        Ok(stored)
    }
}

impl Known {
    pub(super) fn packs(&self) -> &Packs {
        &self.packs
    }

    fn stored(&self) -> MutexGuard<'_, Option<(Version, Stored)>> {
        // It is replaced as a whole.
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The partition of a session: the UTC date of its start.
pub(super) fn date_of(started_at_us: i64) -> Result<Date, SourceError> {
    Ok(Timestamp::from_microsecond(started_at_us)?.to_zoned(TimeZone::UTC).date())
}

fn locate(paths: &Paths, packs: &Packs, files: &mut [StoredFile]) -> Result<(), SourceError> {
    let mut of_day: HashMap<Date, Arc<Vec<Directory>>> = HashMap::new();
    for file in files {
        let packs = match of_day.entry(file.date) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(day) => day.insert(packs.beside(paths, file.path.parse::<TablePath>()?)?),
        };
        let found = packs.iter().find_map(|pack| Some((pack, pack.member(file.session_id)?)));
        if let Some((pack, member)) = found {
            *file = packed(paths, pack, member, file.date);
        }
    }
    Ok(())
}

/// A session's rows in a pack.
pub(super) fn packed(paths: &Paths, pack: &Directory, member: &Member, date: Date) -> StoredFile {
    let path = pack.path.strip_prefix(paths.root()).unwrap_or(&pack.path);
    StoredFile {
        session_id: member.session_id,
        path: path.display().to_string(),
        within: Some(Within { row_groups: member.row_groups.clone(), of: pack.row_groups }),
        date,
        rows: Some(member.rows),
        bytes: pack.bytes,
        version: pack.changed_at_us,
    }
}

impl Source for Rooms {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, SourceError>> {
        Box::pin(async {
            // Recordings first, files after: a recording that is sealed in between was read here and is left out below;
            // one that is closed in between is in the catalog before it leaves memory.
            let unsealed = match &self.live {
                None => Vec::new(),
                Some((ingest, _)) if ingest.has_no_recording() => Vec::new(),
                Some((ingest, _)) => {
                    let ingest = ingest.clone();
                    tokio::task::spawn_blocking(move || ingest.unsealed()).await?
                }
            };
            let answered: HashSet<SessionId> = unsealed.iter().map(|(session, ..)| *session).collect();
            let live = unsealed
                .into_iter()
                .filter(|(.., batches)| !batches.is_empty())
                .map(|(session_id, started_at_us, batches)| {
                    Ok(LiveFrames { session_id, date: date_of(started_at_us)?, batches })
                })
                .collect::<Result<_, SourceError>>()?;
            let Stored { mut frames, strokes, results } = self.stored_files().await?;
            if frames.iter().any(|file| answered.contains(&file.session_id)) {
                let sealed = frames.iter().filter(|file| !answered.contains(&file.session_id));
                frames = Arc::new(sealed.cloned().collect());
            }
            Ok(Snapshot { frames, live, strokes, results })
        })
    }

    fn locate(&self, files: &mut [StoredFile]) -> Result<(), SourceError> {
        locate(&self.paths, self.known.packs(), files)
    }

    fn sessions(&self) -> BoxFuture<'_, Result<Vec<SessionRow>, SourceError>> {
        Box::pin(async {
            let rows = self.catalog.sessions(SESSIONS_LIMIT).await?;
            Ok(rows
                .into_iter()
                .map(|row| {
                    let taken = self
                        .live
                        .as_ref()
                        .and_then(|(ingest, _)| ingest.live(row.session_id))
                        .map_or(0, |live| if live.revision == 0 { live.frames as i64 } else { 0 });
                    SessionRow {
                        session_id: row.session_id.get(),
                        device_code: row.device_code.to_string(),
                        group_code: row.group_code,
                        user_id: row.user_id.map(schemas::UserId::get),
                        status: row.status.to_string(),
                        started_at_us: row.started_at_us,
                        ended_at_us: row.ended_at_us,
                        frame_count: taken.max(row.sealed_rows),
                        revision: i32::try_from(row.revision).unwrap_or(i32::MAX),
                        sealed: row.revision > 0,
                    }
                })
                .collect())
        })
    }

    fn devices(&self) -> BoxFuture<'_, Result<Vec<DeviceRow>, SourceError>> {
        Box::pin(async {
            let devices = self.catalog.devices().await?;
            let live = self.live.as_ref().map(|(ingest, _)| ingest.all_live()).unwrap_or_default();
            Ok(devices
                .into_iter()
                .map(|device| {
                    let unsealed: i64 = live
                        .iter()
                        .filter(|live| live.device == device.device_code && live.revision == 0)
                        .map(|live| live.frames as i64)
                        .sum();
                    DeviceRow {
                        connected: self.live.as_ref().is_some_and(|(_, hub)| hub.is_connected(&device.device_code)),
                        device_code: device.device_code.to_string(),
                        first_seen_us: Some(device.first_seen_us),
                        last_seen_us: Some(device.last_seen_us),
                        frame_count: device.sealed_rows + unsealed,
                    }
                })
                .collect())
        })
    }

    fn players(&self) -> BoxFuture<'_, Result<Vec<PlayerRow>, SourceError>> {
        Box::pin(async {
            let players = self.catalog.players().await?;
            Ok(players
                .into_iter()
                .map(|player| PlayerRow {
                    user_id: player.user_id.get(),
                    registered_at_us: player.created_at_us,
                    language: player.language,
                    pipeline: player.pipeline,
                    device_count: player.devices,
                    session_count: player.sessions,
                    frame_count: player.sealed_rows,
                    first_session_us: player.first_session_us,
                    last_session_us: player.last_session_us,
                })
                .collect())
        })
    }

    fn notifications(&self) -> BoxFuture<'_, Result<Vec<NotificationRow>, SourceError>> {
        Box::pin(async {
            let notices = self.catalog.notices_by_channel().await?;
            Ok(notices
                .into_iter()
                .map(|notice| NotificationRow {
                    notification_id: notice.notification_id,
                    channel: notice.channel,
                    user_id: notice.user_id.get(),
                    session_id: notice.session_id.get(),
                    analysis_id: notice.analysis_id.get(),
                    created_at_us: notice.created_at_us,
                    state: notice.state,
                    attempts: notice.attempts,
                    done_at_us: notice.done_at_us,
                })
                .collect())
        })
    }

    fn labels(&self) -> BoxFuture<'_, Result<Vec<LabelRow>, SourceError>> {
        Box::pin(async {
            let rows = self.catalog.all_labels().await?;
            Ok(rows
                .into_iter()
                .map(|catalog::LabelRow { session_id, user_id, label }| LabelRow {
                    session_id: session_id.get(),
                    user_id: user_id.map(schemas::UserId::get),
                    impact_ns: label.impact_ns,
                    start_ns: label.start_ns,
                    end_ns: label.end_ns,
                    stroke: label.stroke,
                    quality: label.quality,
                    labelled_by: label.labelled_by,
                    labelled_at_us: label.labelled_at_us,
                })
                .collect())
        })
    }
}
