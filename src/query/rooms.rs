//! The running service as a source: sealed files by the catalog, the rest from the open recordings.

use std::collections::HashSet;

use futures::future::BoxFuture;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemas::SessionId;

use super::source::{
    DeviceRow, LiveFrames, NotificationRow, PlayerRow, SessionRow, Snapshot, Source, SourceError, StoredFile,
};
use crate::hub;
use crate::ingest;
use crate::store::catalog::{self, Catalog};

/// Sessions that the `sessions` table shows at most, the newest.
const SESSIONS_LIMIT: i64 = 1_000_000;

/// The running service.
#[derive(Clone, Debug)]
pub struct Rooms {
    catalog: Catalog,
    /// Absent for a folder that another process may be writing: then the log is read instead.
    live: Option<(ingest::Handle, hub::Handle)>,
}

impl Rooms {
    /// Everything the service knows, open recordings included.
    #[must_use]
    pub fn new(ingest: ingest::Handle, catalog: Catalog, hub: hub::Handle) -> Self {
        Self { catalog, live: Some((ingest, hub)) }
    }

    /// What the catalog alone answers for.
    #[must_use]
    pub fn stored(catalog: Catalog) -> Self {
        Self { catalog, live: None }
    }
}

/// The partition of a session: the UTC date of its start.
pub(super) fn date_of(started_at_us: i64) -> Result<Date, SourceError> {
    Ok(Timestamp::from_microsecond(started_at_us)?.to_zoned(TimeZone::UTC).date())
}

impl Source for Rooms {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, SourceError>> {
        Box::pin(async {
            // Recordings first, files after: a recording that is sealed in between was read here and is left out below;
            // one that is closed in between is in the catalog before it leaves memory.
            let unsealed = match &self.live {
                None => Vec::new(),
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
            let frames = self
                .catalog
                .sealed_sessions()
                .await?
                .into_iter()
                .filter(|session| !answered.contains(&session.session_id))
                .filter_map(|session| {
                    let path = session.frames_path?;
                    Some(date_of(session.started_at_us).map(|date| StoredFile {
                        session_id: session.session_id,
                        path,
                        date,
                        rows: Some(session.sealed_rows as u64),
                        bytes: session.frames_bytes.unwrap_or(0) as u64,
                        version: session.revision,
                    }))
                })
                .collect::<Result<_, SourceError>>()?;
            let mut strokes = Vec::new();
            let mut results = Vec::new();
            for published in self.catalog.published_files().await? {
                let date = date_of(published.started_at_us)?;
                let stored = |file: catalog::StoredFile| StoredFile {
                    session_id: published.session_id,
                    path: file.path,
                    date,
                    rows: None,
                    bytes: file.bytes as u64,
                    version: published.created_at_us,
                };
                strokes.push(stored(published.strokes));
                results.push(stored(published.result));
            }
            Ok(Snapshot { frames, live, strokes, results })
        })
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
}
