//! Giving up what is older than wanted, each class by its own age: frames, which are large; strokes and results, once their
//! session's frames are gone; notices that were delivered; the audit log.
//!
//! With a folder or an object store for archives, frames go only after an archive that holds their session was written, read back and synced.
//! The catalog forgets the frames first and the file goes at a later run, when no statement can still be reading it. Run
//! again after an interruption it goes on: an archive by the same name is finished, a file that stayed is deleted.

use std::path::PathBuf;

use schemas::SessionId;
use serde::Serialize;

use super::{Error, io_error};
use crate::clock::Clock;
use crate::export::{Archive, Bucket, Outgoing, note_archive};
use crate::store::catalog::Catalog;
use crate::store::paths::{Paths, Table, TablePath};
use crate::store::swap;

const DAY_US: i64 = 24 * 3600 * 1_000_000;
/// Sessions of one archive.
const ARCHIVE_SESSIONS: i64 = 100;

/// How long what is kept; `None`: for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Frames of finished sessions, in days since their end.
    pub frames_days: Option<u32>,
    /// Strokes and results, and the analyses beside them, in days since the end of their session. They stay for as long as its
    /// frames do, so that an archive of both can be made.
    pub results_days: Option<u32>,
    /// Notices, in days since their delivery.
    pub notices_days: Option<u32>,
    /// Entries of the audit log, in days.
    pub audit_days: Option<u32>,
    /// Where sessions are archived before their frames go, a folder or `s3://bucket/prefix`; `None`: nowhere.
    pub archive_dir: Option<PathBuf>,
    /// How long a statement may still read a file that the catalog has forgotten, µs.
    pub reading_us: i64,
}

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Expired {
    /// Sessions whose frames were given up.
    pub sessions: Vec<i64>,
    /// Those frames.
    pub frames: i64,
    /// Bytes of their files.
    pub bytes: i64,
    /// Sessions whose strokes and results were given up. Of a dry run: those whose frames are gone already.
    pub results: Vec<i64>,
    /// Notices.
    pub notices: i64,
    /// Entries of the audit log.
    pub audit_entries: i64,
    /// Files that were deleted now.
    pub files_deleted: usize,
    /// Archives that were written.
    pub archives: Vec<PathBuf>,
    /// True if nothing was changed.
    pub dry_run: bool,
}

impl Expired {
    /// True if nothing was old enough.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.sessions.is_empty() && self.results.is_empty() && self.notices == 0 && self.audit_entries == 0
    }
}

/// Applies a policy; beside a running service too.
///
/// # Errors
/// See [`Error`]; what went before stays gone, and nothing goes that was to be archived and was not.
pub async fn retain(
    paths: &Paths,
    catalog: &Catalog,
    policy: &Policy,
    clock: &Clock,
    dry_run: bool,
) -> Result<Expired, Error> {
    let now_us = clock.now_us();
    let mut expired = Expired { dry_run, ..Expired::default() };
    if let Some(days) = policy.frames_days {
        let before_us = now_us - i64::from(days) * DAY_US;
        loop {
            let limit = if dry_run { i64::MAX } else { ARCHIVE_SESSIONS };
            let sessions = catalog.sessions_before(before_us, limit).await?;
            let mut archived = Vec::new();
            for session in sessions {
                archived.extend(catalog.archived_session(session).await?);
            }
            if archived.is_empty() {
                break;
            }
            if !dry_run && let Some(folder) = &policy.archive_dir {
                let ids = archived.iter().map(|session| session.session_id).collect::<Vec<_>>();
                expired.archives.push(archive(paths, catalog, folder, &ids, now_us).await?);
            }
            let mut gone = 0;
            for session in &archived {
                let id = SessionId(session.session_id);
                if dry_run || catalog.expire_frames(id, &session.frames_sha256, now_us).await? {
                    expired.sessions.push(session.session_id);
                    expired.frames += session.rows;
                    expired.bytes += session.frames_bytes;
                    gone += 1;
                }
            }
            // A session whose frames changed since is looked at again another time.
            if dry_run || gone == 0 {
                break;
            }
        }
    }
    if let Some(days) = policy.results_days {
        for session in catalog.results_before(now_us - i64::from(days) * DAY_US).await? {
            if dry_run || catalog.expire_results(session, now_us).await? {
                expired.results.push(session.get());
            }
        }
    }
    if let Some(days) = policy.audit_days {
        expired.audit_entries = catalog.expire_audit(now_us - i64::from(days) * DAY_US, dry_run).await?;
    }
    if let Some(days) = policy.notices_days {
        expired.notices = catalog.expire_notices(now_us - i64::from(days) * DAY_US, dry_run).await?;
    }
    if !dry_run {
        let due = catalog.expired_before(now_us - policy.reading_us).await?;
        let root = paths.clone();
        let there = tokio::task::spawn_blocking(move || still_there(&root, due));
        for path in there.await.map_err(|_| Error::Changing { attempts: 1 })?? {
            let root = paths.clone();
            let delete = move || swap::delete(&root, path);
            let deleted = catalog.delete_expired(path.table(), path.session_id(), delete).await?;
            // Another run may have been there first, or it has been brought back.
            expired.files_deleted += usize::from(deleted.transpose()?.unwrap_or(false));
        }
        metrics::counter!("volant_custody_expired_results_total").increment(expired.results.len() as u64);
        metrics::counter!("volant_custody_expired_frames_total").increment(expired.frames as u64);
        metrics::counter!("volant_custody_expired_audit_entries_total").increment(expired.audit_entries as u64);
        metrics::counter!("volant_custody_expired_notices_total").increment(expired.notices as u64);
    }
    Ok(expired)
}

/// The files of what the catalog has forgotten, those in packs too: these get files of their own again.
fn still_there(paths: &Paths, due: Vec<(Table, SessionId, i64)>) -> Result<Vec<TablePath>, Error> {
    let mut there = Vec::new();
    for (table, session, started_at_us) in due {
        let path = TablePath::new(table, session, started_at_us);
        swap::undo_for(paths, path)?;
        let file = paths.file(path);
        if file.try_exists().map_err(io_error("look at", &file))? {
            there.push(path);
        }
    }
    Ok(there)
}

async fn archive(
    paths: &Paths,
    catalog: &Catalog,
    folder: &std::path::Path,
    ids: &[i64],
    now_us: i64,
) -> Result<PathBuf, Error> {
    let name = format!("sessions-{}-to-{}.tar.zst", ids.first().unwrap_or(&0), ids.last().unwrap_or(&0));
    let out = folder.join(name);
    let archive_error = |source| Error::Archive { source: Box::new(source) };
    let outgoing =
        if Bucket::is_named_by(folder) { Some(Outgoing::open(paths, &out).map_err(archive_error)?) } else { None };
    let file = match &outgoing {
        Some(outgoing) => outgoing.file.clone(),
        None => {
            std::fs::create_dir_all(folder).map_err(io_error("make folder", folder))?;
            out.clone()
        }
    };
    let archive = Archive::of(paths, catalog, ids, "sessions older than they are kept".to_owned(), now_us).await;
    let archive = archive.map_err(archive_error)?;
    let written = tokio::task::spawn_blocking(move || {
        let written = archive.write(&file, &mut |_, _| {});
        written.map(|_| archive)
    });
    let archive = written.await.map_err(|_| Error::Changing { attempts: 1 })?.map_err(archive_error)?;
    let path = match outgoing {
        Some(outgoing) => {
            outgoing.send().await.map_err(archive_error)?;
            out
        }
        None => std::path::absolute(&out).map_err(io_error("name", &out))?,
    };
    note_archive(paths, &archive.note(path.clone())).map_err(archive_error)?;
    Ok(path)
}
