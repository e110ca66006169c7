//! Takes the data of the replaced Django service over: users, bindings, groups, sessions, frames, results.
//!
//! In: its SQLite database, opened for reading only, and a data folder of ours on which no server runs. Out: rows in the
//! catalog and a sealed Parquet file a session, written by the store's own writer; [`Report`] counts what was taken and what
//! was not, with the reason. One session is in memory at a time.
//!
//! It can be killed at any instant and run again: what is done is noted in the commit that does it, and passed over the next
//! time; a session that was begun is finished under the same number. A second run takes only what is new.
//!
//! Numbers of sessions and users stay what they were where they are free, because clients have stored them. A result of the
//! old service is kept as what it is; where there are frames, the next start of the server analyses them anew, and tells
//! nobody. What cannot be told apart any more stays so: the old service stored racket frames of four-sensor devices as wrist.

mod frames;
mod source;

use std::collections::BTreeMap;
use std::path::Path;

use schemas::{DeviceCode, SessionId, SessionStatus};
use serde::Serialize;

use crate::clock::Clock;
use crate::store::catalog::{self, Catalog, Imported, LegacyResult, NewSession, Sealed, SessionKind};
use crate::store::paths::Paths;
use crate::store::{seal, wal};

use frames::Frames;
use source::{OldSession, Source};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open the database {path} for reading")]
    Open {
        path: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("find the table {table}: this is no database of the Django service")]
    NoTable { table: &'static str },
    #[error("read {what} of the old database")]
    Read {
        what: &'static str,
        #[source]
        source: sqlx::Error,
    },
    #[error("use the folder")]
    Folder(#[from] wal::Error),
    #[error("use the catalog")]
    Catalog(#[from] catalog::Error),
    #[error("write the frames of session {session_id}")]
    Seal {
        session_id: SessionId,
        #[source]
        source: seal::Error,
    },
    #[error("finish writing a file")]
    Broke,
}

/// What was taken and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub users: Count,
    pub bindings: Count,
    pub groups: Count,
    pub sessions: Count,
    pub results: Count,
    pub frames: Count,
    /// Recordings made of frames that named no session.
    pub collections: Count,
    /// Sessions whose old number was taken already: old to new.
    pub renumbered: BTreeMap<i64, i64>,
}

/// Rows of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    pub taken: u64,
    /// By an earlier run.
    pub already: u64,
    /// Not taken, by reason.
    pub left_out: BTreeMap<String, u64>,
}

impl Count {
    fn leave(&mut self, reason: &str, rows: u64) {
        if rows > 0 {
            *self.left_out.entry(reason.to_owned()).or_default() += rows;
        }
    }
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the old service in the notes of what was taken; two services of the same name are taken for one.
    pub source: String,
    /// Count only, change nothing.
    pub dry_run: bool,
}

/// Takes everything over. `progress` is told how many sessions are done, of how many.
///
/// # Errors
/// See [`Error`]; what was taken before stays taken.
pub async fn import_django(
    sqlite: &Path,
    paths: &Paths,
    clock: &Clock,
    options: &Options,
    mut progress: impl FnMut(u64, u64),
) -> Result<Report, Error> {
    let source = Source::open(sqlite).await?;
    // Nobody else may write meanwhile: a server would give out numbers, or take a half-written file for a lost session.
    let _lock = if options.dry_run { None } else { Some(wal::lock(&paths.wal())?) };
    let catalog = Catalog::open(&paths.catalog()).await?;
    let outcome = Import { source, catalog: catalog.clone(), paths, clock, options }.run(&mut progress).await;
    catalog.close().await;
    outcome
}

struct Import<'a> {
    source: Source,
    catalog: Catalog,
    paths: &'a Paths,
    clock: &'a Clock,
    options: &'a Options,
}

/// A device code of ours: the old service took any text.
fn device_code(text: &str) -> DeviceCode {
    let clean: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' }).take(64).collect();
    clean.parse().unwrap_or_else(|_| "unknown".parse().expect("letters"))
}

impl Import<'_> {
    async fn run(&self, progress: &mut impl FnMut(u64, u64)) -> Result<Report, Error> {
        let mut report = Report::default();
        self.people(&mut report).await?;
        let sessions = self.source.sessions().await?;
        let strays = self.source.stray_days().await?;
        let total = (sessions.len() + strays.len()) as u64;
        let mut done = 0;
        for session in sessions {
            self.session(&session, &mut report).await?;
            done += 1;
            progress(done, total);
        }
        for (device, day) in strays {
            self.strays(&device, &day, &mut report).await?;
            done += 1;
            progress(done, total);
        }
        Ok(report)
    }

    async fn people(&self, report: &mut Report) -> Result<(), Error> {
        let (name, now_us) = (&self.options.source, self.clock.now_us());
        for user in self.source.users().await? {
            let id = user.wx_user_id.to_string();
            if user.openid.is_empty() || !user.openid.bytes().all(|byte| byte.is_ascii_graphic()) {
                report.users.leave("the openid is empty or not plain text", 1);
                continue;
            }
            if self.catalog.imported(name, "user", &id).await?.is_some() {
                report.users.already += 1;
                continue;
            }
            report.users.taken += 1;
            if !self.options.dry_run {
                let ours = self.catalog.import_user(&user.openid, user.framework_id, user.wx_user_id, now_us).await?;
                self.catalog.note_imported(name, "user", &id, &ours.to_string(), now_us).await?;
            }
        }
        for group in self.source.groups().await? {
            if self.catalog.imported(name, "group", &group).await?.is_some() {
                report.groups.already += 1;
                continue;
            }
            report.groups.taken += 1;
            if !self.options.dry_run {
                self.catalog.ensure_group(&group, now_us).await?;
                self.catalog.note_imported(name, "group", &group, &group, now_us).await?;
            }
        }
        for (openid, code) in self.source.bindings().await? {
            let Ok(device) = code.parse::<DeviceCode>() else {
                report.bindings.leave("the device code has characters that no device can use", 1);
                continue;
            };
            let id = format!("{openid} {code}");
            // The old service took the same binding many times.
            if self.catalog.imported(name, "binding", &id).await?.is_some() {
                report.bindings.already += 1;
                continue;
            }
            let Some(user) = self.catalog.find_user_by_openid(&openid).await? else {
                if self.options.dry_run {
                    report.bindings.taken += 1;
                } else {
                    report.bindings.leave("its user was left out", 1);
                }
                continue;
            };
            report.bindings.taken += 1;
            if !self.options.dry_run {
                self.catalog.bind(user.user_id, &device, now_us).await?;
                self.catalog.note_imported(name, "binding", &id, &id, now_us).await?;
            }
        }
        Ok(())
    }

    async fn session(&self, old: &OldSession, report: &mut Report) -> Result<(), Error> {
        let (name, id) = (&self.options.source, old.id.to_string());
        if self.catalog.imported(name, "session", &id).await?.is_some() {
            report.sessions.already += 1;
            return Ok(());
        }
        let Some(started_at_us) = old.start_us else {
            report.sessions.leave("its start time cannot be read", 1);
            return Ok(());
        };
        let frames = self.source.frames(Some(old.id), None).await?;
        count_frames(&frames, report);
        let result = self.source.result(old.id).await?;
        report.sessions.taken += 1;
        report.results.taken += u64::from(result.is_some());
        if self.options.dry_run {
            return Ok(());
        }
        let user = match &old.openid {
            Some(openid) => self.catalog.find_user_by_openid(openid).await?.map(|user| user.user_id),
            None => None,
        };
        // By convention the group's code is the device's; the frames know better.
        let device = device_code(frames.device.as_deref().unwrap_or(&old.group_code));
        let new = NewSession {
            kind: SessionKind::Session,
            device_code: device,
            group_code: old.group_code.clone(),
            claimed_id: None,
            user_id: user,
            status: SessionStatus::Stopped,
            started_at_us,
        };
        let session = self.begun("session", &id, Some(SessionId(old.id)), &new).await?;
        if session.get() != old.id {
            report.renumbered.insert(old.id, session.get());
        }
        self.commit("session", &id, session, &new, old.end_us, old.status.as_str(), &frames, result.as_ref()).await
    }

    /// Frames of a device and day that named no session.
    async fn strays(&self, device: &str, day: &str, report: &mut Report) -> Result<(), Error> {
        let id = format!("{device} {day}");
        if self.catalog.imported(&self.options.source, "collection", &id).await?.is_some() {
            report.collections.already += 1;
            return Ok(());
        }
        let frames = self.source.frames(None, Some((device, day))).await?;
        count_frames(&frames, report);
        let Some(started_at_us) = frames.first_received_us() else {
            report.collections.leave("none of its frames can be used", 1);
            return Ok(());
        };
        report.collections.taken += 1;
        if self.options.dry_run {
            return Ok(());
        }
        let code = device_code(device);
        let new = NewSession {
            kind: SessionKind::Collection,
            group_code: code.to_string(),
            device_code: code,
            claimed_id: None,
            user_id: None,
            status: SessionStatus::Stopped,
            started_at_us,
        };
        let session = self.begun("collection", &id, None, &new).await?;
        self.commit("collection", &id, session, &new, None, "", &frames, None).await
    }

    /// The session of ours: that of an earlier run that did not come to its end, or a new one.
    async fn begun(&self, kind: &str, id: &str, old: Option<SessionId>, new: &NewSession) -> Result<SessionId, Error> {
        let name = &self.options.source;
        let begun = self.catalog.imported(name, &format!("{kind}.begun"), id).await?;
        match begun.and_then(|ours| ours.parse().ok()) {
            Some(session) => Ok(session),
            None => Ok(self.catalog.begin_import(name, kind, id, old, new, self.clock.now_us()).await?),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one call for the two kinds, each argument is a column of the row")]
    async fn commit(
        &self,
        kind: &str,
        id: &str,
        session: SessionId,
        new: &NewSession,
        ended_at_us: Option<i64>,
        old_status: &str,
        frames: &Frames,
        result: Option<&LegacyResult>,
    ) -> Result<(), Error> {
        let sealed = self.write(session, new.started_at_us, &new.device_code, frames).await?;
        let last_us = frames.columns.received_at_us.iter().max().copied().unwrap_or(new.started_at_us);
        self.catalog.import_device(&new.device_code, new.started_at_us, last_us).await?;
        let (status, reason) = match (&sealed, result, old_status) {
            // Analysed by the next start of the server.
            (Some(_), ..) => (SessionStatus::Analyzing, None),
            (None, Some(_), _) => (SessionStatus::Completed, None),
            (None, None, "calibrating" | "collecting" | "stopping" | "analyzing") => {
                (SessionStatus::Stopped, Some("it was left open in the old service and has no frames"))
            }
            (None, None, _) => (SessionStatus::Stopped, Some("no frames arrived")),
        };
        let imported = Imported {
            session,
            status,
            reason,
            ended_at_us: Some(ended_at_us.unwrap_or(last_us)),
            sealed: sealed.as_ref(),
            result,
        };
        Ok(self.catalog.finish_import(&self.options.source, kind, id, &imported, self.clock.now_us()).await?)
    }

    async fn write(
        &self,
        session: SessionId,
        started_at_us: i64,
        device: &DeviceCode,
        frames: &Frames,
    ) -> Result<Option<Sealed>, Error> {
        if frames.columns.is_empty() {
            return Ok(None);
        }
        let mut columns = frames.columns.clone();
        frames::place(&mut columns, started_at_us);
        let units = frames::units(&columns);
        let metadata = [(seal::KEY_DEVICE_CODE.to_owned(), device.to_string())];
        let paths = self.paths.clone();
        let manifest = tokio::task::spawn_blocking(move || {
            let unit = |sensor: u8| units.get(usize::from(sensor)).copied().flatten();
            seal::write_frames(&paths, session, started_at_us, 1, &columns, unit, &metadata)
        })
        .await
        .map_err(|_| Error::Broke)?
        .map_err(|source| Error::Seal { session_id: session, source })?;
        Ok(Some(Sealed {
            session_id: session,
            revision: 1,
            rows: manifest.rows as i64,
            path: manifest.path.to_string(),
            bytes: manifest.bytes as i64,
            sha256: manifest.sha256,
            sync_error_ns: 0,
        }))
    }
}

fn count_frames(frames: &Frames, report: &mut Report) {
    report.frames.taken += frames.columns.len() as u64;
    for (reason, rows) in &frames.left_out {
        report.frames.leave(reason, *rows);
    }
}
