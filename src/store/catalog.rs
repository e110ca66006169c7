//! The catalog: users, devices, sessions, jobs, results and the outbox, in one SQLite database.
//!
//! What must be true together is one transaction here: a sealed file and its job ([`Catalog::commit_seal`]), a result, the
//! session's end and the owed notice ([`Catalog::publish`]). Writes go through one connection, so that they never meet;
//! readers have their own. Commits are synchronous: what a method returned survives a power cut.

mod accounts;
mod archives;
mod candidates;
mod deliveries;
mod figures;
mod imports;
mod labels;
mod life;
mod lost;
mod notices;
mod read_only;
mod rows;
mod uploads;
mod watcher;

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use schemas::{AnalysisId, DeviceCode, NotificationId, SessionId, SessionStatus, UserId};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{Row, SqlitePool};

pub use accounts::{AuditRow, GroupRow, NewToken, TokenRow};
pub use archives::{ArchivedPlayer, ArchivedResult, ArchivedSession, Here, StoredFrames};
pub use candidates::{CandidateJob, CandidateRow, Order, Switch};
pub use deliveries::{DeliveryOutcome, DeliveryRow, WebhookRow};
pub use figures::Figures;
pub use imports::{Claim, ImportedResult, ImportedSession, ImportedUser, NewImport, ShownResult};
pub use labels::{Label, LabelRow, Relabel, SAME_SWING_NS};
pub use life::{Erased, Erasure};
pub use notices::{Notice, NoticeOnChannel};
pub use rows::{
    DeviceTotals, Job, NewNotice, NewResult, NewSession, OutboxRow, PlayerTotals, PublishedFiles, ResultRow, Sealed,
    SessionKind, SessionRow, StoredFile, UserRow,
};
pub use watcher::Version;
use watcher::Watcher;

use super::audit::Expected;

/// Answered by an index alone: the table has the analyses between these columns.
const PUBLISHED_FILES: &str = "SELECT r.session_id, s.started_at_us, r.created_at_us, r.strokes_path, r.strokes_bytes, \
     r.result_path, r.result_bytes FROM results r JOIN sessions s USING (session_id) ORDER BY r.session_id";

/// Migrations in order. Each ends by setting the database's `user_version` to its own number, in its own transaction.
const MIGRATIONS: [&str; 10] = [
    include_str!("migrations/0001_initial.sql"),
    include_str!("migrations/0002_accounts_and_channels.sql"),
    include_str!("migrations/0003_candidates.sql"),
    include_str!("migrations/0004_erasures.sql"),
    include_str!("migrations/0005_results_by_files.sql"),
    include_str!("migrations/0006_results_expire.sql"),
    include_str!("migrations/0007_archives_come_back.sql"),
    include_str!("migrations/0008_labels.sql"),
    include_str!("migrations/0009_frames_again.sql"),
    include_str!("migrations/0010_stroke_figures.sql"),
];

/// Connections for reading.
const READERS: u32 = 3;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open the catalog {path}")]
    Open { path: String, source: sqlx::Error },
    #[error("the catalog {path} has version {found}, this program knows up to {known}: use a newer program")]
    TooNew { path: String, found: i64, known: usize },
    #[error(
        "read the catalog {path}: its newest commits are in its log (…-wal), which cannot be read where nothing can be written; \
         read a copy of the folder"
    )]
    InUse { path: String },
    #[error(
        "read the catalog {path}: somebody has used it since it was opened where nothing can be written; open it anew"
    )]
    CameIntoUse { path: String },
    #[error("{step} in the catalog")]
    Query { step: &'static str, source: sqlx::Error },
    #[error("the catalog holds {value:?} as {what}")]
    Invalid { what: &'static str, value: String },
}

impl Error {
    /// True if the same call may succeed later (a full disk, a locked database).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Query { .. })
    }
}

/// Turns a database error into one that names the step.
fn at(step: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |source| Error::Query { step, source }
}

/// The catalog. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog {
    writer: SqlitePool,
    readers: SqlitePool,
    watcher: Watcher,
    /// Of a database that is read as it was, without a look at who writes.
    as_it_was: Option<read_only::AsItWas>,
}

impl Catalog {
    /// Opens the database and brings it to this program's version.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        let opened = |source| Error::Open { path: path.display().to_string(), source };
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await.map_err(opened)?;
        migrate(&writer, path).await?;
        let watcher = Watcher::new(path);
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options).await.map_err(opened)?;
        Ok(Self { writer, readers, watcher, as_it_was: None })
    }

    /// Closes all connections; what was committed is safe before this too.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Changes with every commit, of other processes too: what was read after a call that answered the same as a later one is
    /// as it was. `None` where nothing is known.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.watcher.version()
    }

    // Users, devices, bindings.

    /// The user with this openid, made if absent.
    pub async fn user_by_openid(&self, openid: &str, now_us: i64) -> Result<UserRow, Error> {
        if let Some(user) = self.find_user_by_openid(openid).await? {
            return Ok(user);
        }
        sqlx::query("INSERT INTO users (openid, created_at_us) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(openid)
            .bind(now_us)
            .execute(&self.writer)
            .await
            .map_err(at("insert a user"))?;
        let user = self.find_user_by_openid(openid).await?;
        user.ok_or(Error::Query { step: "read back a user", source: sqlx::Error::RowNotFound })
    }

    /// The user with this openid.
    pub async fn find_user_by_openid(&self, openid: &str) -> Result<Option<UserRow>, Error> {
        sqlx::query("SELECT user_id, openid FROM users WHERE openid = ?")
            .bind(openid)
            .fetch_optional(&self.readers)
            .await
            .map_err(at("find a user by openid"))?
            .map(|row| user_row(&row))
            .transpose()
    }

    /// The user with this number, or with this number of the replaced system: the framework's (which its clients were
    /// told), then the WeChat user's.
    pub async fn find_user_by_number(&self, number: i64) -> Result<Option<UserRow>, Error> {
        sqlx::query(
            "SELECT user_id, openid FROM users WHERE user_id = ?1 OR framework_user_id = ?1 OR wx_user_id = ?1 \
             ORDER BY user_id = ?1 DESC, coalesce(framework_user_id = ?1, 0) DESC LIMIT 1",
        )
        .bind(number)
        .fetch_optional(&self.readers)
        .await
        .map_err(at("find a user by number"))?
        .map(|row| user_row(&row))
        .transpose()
    }

    /// The openid of a user.
    pub async fn openid_of(&self, user: UserId) -> Result<Option<String>, Error> {
        sqlx::query("SELECT openid FROM users WHERE user_id = ?")
            .bind(user.get())
            .fetch_optional(&self.readers)
            .await
            .map_err(at("read a user"))?
            .map(|row| row.try_get(0).map_err(at("read a user")))
            .transpose()
    }

    /// Links a user and a device; repeating it changes nothing.
    pub async fn bind(&self, user: UserId, device: &DeviceCode, now_us: i64) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO bindings (user_id, device_code, created_at_us) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(user.get())
        .bind(device.as_str())
        .bind(now_us)
        .execute(&self.writer)
        .await
        .map_err(at("bind a device"))?;
        Ok(())
    }

    /// True if any user is bound to the device.
    pub async fn is_bound(&self, device: &DeviceCode) -> Result<bool, Error> {
        let row = sqlx::query("SELECT 1 FROM bindings WHERE device_code = ? LIMIT 1")
            .bind(device.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(at("read bindings"))?;
        Ok(row.is_some())
    }

    /// Notes that a device was seen, and its firmware if it told.
    pub async fn device_seen(&self, device: &DeviceCode, firmware: Option<&str>, now_us: i64) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO devices (device_code, firmware, first_seen_us, last_seen_us) VALUES (?1, ?2, ?3, ?3) \
             ON CONFLICT (device_code) DO UPDATE SET last_seen_us = max(last_seen_us, ?3), \
             firmware = coalesce(?2, firmware)",
        )
        .bind(device.as_str())
        .bind(firmware)
        .bind(now_us)
        .execute(&self.writer)
        .await
        .map_err(at("note a device"))?;
        Ok(())
    }

    /// Every device ever seen, the latest first.
    pub async fn devices(&self) -> Result<Vec<DeviceTotals>, Error> {
        let rows = sqlx::query(
            "SELECT d.device_code, d.firmware, d.first_seen_us, d.last_seen_us, \
             coalesce((SELECT sum(s.sealed_rows) FROM sessions s WHERE s.device_code = d.device_code), 0) \
             FROM devices d ORDER BY d.last_seen_us DESC, d.device_code",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(at("list devices"))?;
        rows.iter()
            .map(|row| {
                Ok(DeviceTotals {
                    device_code: parse("device_code", &get::<String>(row, 0)?)?,
                    firmware: get(row, 1)?,
                    first_seen_us: get(row, 2)?,
                    last_seen_us: get(row, 3)?,
                    sealed_rows: get(row, 4)?,
                })
            })
            .collect()
    }

    // Sessions.

    /// Makes a session.
    pub async fn insert_session(&self, new: &NewSession) -> Result<SessionRow, Error> {
        let row = sqlx::query(
            "INSERT INTO sessions (kind, device_code, group_code, user_id, status, started_at_us, changed_at_us, \
             claimed_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7) RETURNING *",
        )
        .bind(new.kind.as_str())
        .bind(new.device_code.as_str())
        .bind(&new.group_code)
        .bind(new.user_id.map(UserId::get))
        .bind(new.status.as_str())
        .bind(new.started_at_us)
        .bind(new.claimed_id.as_deref())
        .fetch_one(&self.writer)
        .await
        .map_err(at("insert a session"))?;
        session_row(&row)
    }

    /// One session.
    pub async fn session(&self, session: SessionId) -> Result<Option<SessionRow>, Error> {
        sqlx::query("SELECT * FROM sessions WHERE session_id = ?")
            .bind(session.get())
            .fetch_optional(&self.readers)
            .await
            .map_err(at("read a session"))?
            .map(|row| session_row(&row))
            .transpose()
    }

    /// The newest session started by this user or, for `None`, by anybody.
    pub async fn latest_session(&self, user: Option<UserId>) -> Result<Option<SessionRow>, Error> {
        sqlx::query(
            "SELECT * FROM sessions WHERE kind = 'session' AND (?1 IS NULL OR user_id = ?1) \
             ORDER BY session_id DESC LIMIT 1",
        )
        .bind(user.map(UserId::get))
        .fetch_optional(&self.readers)
        .await
        .map_err(at("find the latest session"))?
        .map(|row| session_row(&row))
        .transpose()
    }

    /// The newest session of this device.
    pub async fn latest_session_of_device(&self, device: &DeviceCode) -> Result<Option<SessionRow>, Error> {
        sqlx::query(
            "SELECT * FROM sessions WHERE kind = 'session' AND device_code = ? ORDER BY session_id DESC LIMIT 1",
        )
        .bind(device.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(at("find the latest session of a device"))?
        .map(|row| session_row(&row))
        .transpose()
    }

    /// The highest session number that was ever given out.
    pub async fn newest_session(&self) -> Result<Option<SessionId>, Error> {
        // Not only of those that are there: records in the log of one that was erased must not make it anew.
        let row = sqlx::query(
            "SELECT max(coalesce((SELECT max(session_id) FROM sessions), 0), \
             coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'sessions'), 0))",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(at("find the newest session"))?;
        let newest: i64 = get(&row, 0)?;
        Ok((newest > 0).then_some(SessionId(newest)))
    }

    /// Sessions that are not closed, oldest first: what a restart has to go on with.
    pub async fn unclosed_sessions(&self) -> Result<Vec<SessionRow>, Error> {
        let rows = sqlx::query("SELECT * FROM sessions WHERE closed = 0 ORDER BY session_id")
            .fetch_all(&self.readers)
            .await
            .map_err(at("list open sessions"))?;
        rows.iter().map(session_row).collect()
    }

    /// Every session, the newest first, at most `limit`.
    pub async fn sessions(&self, limit: i64) -> Result<Vec<SessionRow>, Error> {
        self.sessions_page(None, None, None, None, limit).await
    }

    /// Sessions of a user, of a device, in a state, with numbers below one; the newest first, at most `limit`.
    pub async fn sessions_page(
        &self,
        user: Option<UserId>,
        device: Option<&DeviceCode>,
        status: Option<SessionStatus>,
        before: Option<SessionId>,
        limit: i64,
    ) -> Result<Vec<SessionRow>, Error> {
        let rows = sqlx::query(
            "SELECT * FROM sessions WHERE (?1 IS NULL OR user_id = ?1) AND (?2 IS NULL OR device_code = ?2) \
             AND (?3 IS NULL OR status = ?3) AND (?4 IS NULL OR session_id < ?4) ORDER BY session_id DESC LIMIT ?5",
        )
        .bind(user.map(UserId::get))
        .bind(device.map(DeviceCode::as_str))
        .bind(status.map(SessionStatus::as_str))
        .bind(before.map(SessionId::get))
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(at("list sessions"))?;
        rows.iter().map(session_row).collect()
    }

    /// Numbers of sessions: all, and those that are calibrating, collecting or analysing. Then frames in sealed files.
    pub async fn counts(&self, user: Option<UserId>) -> Result<(i64, i64, i64), Error> {
        let row = sqlx::query(
            "SELECT count(*), coalesce(sum(status IN ('collecting', 'calibrating', 'analyzing')), 0), \
             coalesce(sum(sealed_rows), 0) FROM sessions WHERE kind = 'session' AND (?1 IS NULL OR user_id = ?1)",
        )
        .bind(user.map(UserId::get))
        .fetch_one(&self.readers)
        .await
        .map_err(at("count sessions"))?;
        Ok((get(&row, 0)?, get(&row, 1)?, get(&row, 2)?))
    }

    /// Moves a session from one of `from` to `to`; `None` if it was in none of them.
    ///
    /// `ended_at_us` is set at the first move that gives it.
    pub async fn move_session(
        &self,
        session: SessionId,
        from: &[SessionStatus],
        to: SessionStatus,
        ended: bool,
        reason: Option<&str>,
        now_us: i64,
    ) -> Result<Option<SessionRow>, Error> {
        let from = from.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(",");
        sqlx::query(
            "UPDATE sessions SET status = ?2, changed_at_us = ?3, reason = coalesce(?4, reason), \
             ended_at_us = CASE WHEN ?5 THEN coalesce(ended_at_us, ?3) ELSE ended_at_us END \
             WHERE session_id = ?1 AND instr(',' || ?6 || ',', ',' || status || ',') > 0 RETURNING *",
        )
        .bind(session.get())
        .bind(to.as_str())
        .bind(now_us)
        .bind(reason)
        .bind(ended)
        .bind(from)
        .fetch_optional(&self.writer)
        .await
        .map_err(at("move a session"))?
        .map(|row| session_row(&row))
        .transpose()
    }

    /// Notes that the recording takes no more frames.
    pub async fn close_session(&self, session: SessionId) -> Result<(), Error> {
        sqlx::query("UPDATE sessions SET closed = 1 WHERE session_id = ?")
            .bind(session.get())
            .execute(&self.writer)
            .await
            .map_err(at("close a session"))?;
        Ok(())
    }

    /// Commits a sealed file together with the job that analyses it. Repeating it changes nothing.
    pub async fn commit_seal(&self, sealed: &Sealed, now_us: i64) -> Result<(), Error> {
        let step = "commit a sealed file";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        sqlx::query(
            "UPDATE sessions SET revision = ?2, sealed_rows = ?3, frames_path = ?4, frames_bytes = ?5, \
             frames_sha256 = ?6, other_frames_sha256 = NULL, sync_error_ns = ?7, status = 'analyzing', changed_at_us = ?8 \
             WHERE session_id = ?1",
        )
        .bind(sealed.session_id.get())
        .bind(sealed.revision)
        .bind(sealed.rows)
        .bind(&sealed.path)
        .bind(sealed.bytes)
        .bind(&sealed.sha256)
        .bind(sealed.sync_error_ns)
        .bind(now_us)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        sqlx::query(
            "INSERT INTO jobs (session_id, revision, state, created_at_us) VALUES (?, ?, 'queued', ?) \
             ON CONFLICT DO NOTHING",
        )
        .bind(sealed.session_id.get())
        .bind(sealed.revision)
        .bind(now_us)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        transaction.commit().await.map_err(at(step))
    }

    /// Every sealed session, for the SQL tables.
    pub async fn sealed_sessions(&self) -> Result<Vec<SessionRow>, Error> {
        let rows = sqlx::query("SELECT * FROM sessions WHERE revision > 0 ORDER BY session_id")
            .fetch_all(&self.readers)
            .await
            .map_err(at("list sealed sessions"))?;
        rows.iter().map(session_row).collect()
    }

    // Jobs and results.

    /// Leases the oldest job that is queued or whose lease has run out; those of imports last.
    pub async fn lease_job(&self, owner: &str, now_us: i64, until_us: i64) -> Result<Option<Job>, Error> {
        let row = sqlx::query(
            "UPDATE jobs SET state = 'running', lease_owner = ?1, lease_until_us = ?3, attempts = attempts + 1 \
             WHERE job_id = (SELECT job_id FROM jobs WHERE state = 'queued' OR (state = 'running' AND \
             (lease_until_us < ?2 OR lease_owner = ?1)) ORDER BY background, job_id LIMIT 1) \
             RETURNING job_id, session_id, revision, attempts",
        )
        .bind(owner)
        .bind(now_us)
        .bind(until_us)
        .fetch_optional(&self.writer)
        .await
        .map_err(at("lease a job"))?;
        row.map(|row| {
            Ok(Job {
                analysis_id: AnalysisId(get(&row, 0)?),
                session_id: SessionId(get(&row, 1)?),
                revision: get(&row, 2)?,
                attempts: get(&row, 3)?,
            })
        })
        .transpose()
    }

    /// Gives a job back to the queue with the reason it did not finish.
    pub async fn requeue_job(&self, job: &Job, error: &str) -> Result<(), Error> {
        sqlx::query("UPDATE jobs SET state = 'queued', lease_owner = NULL, error = ? WHERE job_id = ?")
            .bind(error)
            .bind(job.analysis_id.get())
            .execute(&self.writer)
            .await
            .map_err(at("requeue a job"))?;
        Ok(())
    }

    /// Gives a job up for good: the session ends `stopped`, with the reason and without a result.
    pub async fn fail_job(&self, job: &Job, error: &str, now_us: i64) -> Result<(), Error> {
        let step = "give a job up";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        sqlx::query("UPDATE jobs SET state = 'failed', error = ? WHERE job_id = ?")
            .bind(error)
            .bind(job.analysis_id.get())
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        sqlx::query("UPDATE sessions SET status = 'stopped', reason = ?2, changed_at_us = ?3 WHERE session_id = ?1")
            .bind(job.session_id.get())
            .bind(error)
            .bind(now_us)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        transaction.commit().await.map_err(at(step))
    }

    /// Publishes a result: result, end of the session, end of the job and the owed notice are one commit.
    ///
    /// False if the job is no longer the newest of its session or was done before: then nothing changes.
    pub async fn publish(&self, new: &NewResult) -> Result<bool, Error> {
        let step = "publish a result";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        let done = sqlx::query("UPDATE jobs SET state = 'done', error = NULL WHERE job_id = ? AND state = 'running'")
            .bind(new.job.analysis_id.get())
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let moved = sqlx::query(
            "UPDATE sessions SET status = 'completed', reason = NULL, changed_at_us = ?3, \
             ended_at_us = coalesce(ended_at_us, ?3) WHERE session_id = ?1 AND revision = ?2",
        )
        .bind(new.job.session_id.get())
        .bind(new.job.revision)
        .bind(new.created_at_us)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        if moved.rows_affected() == 0 {
            // A newer revision was sealed meanwhile; its own job will publish. This one only ends.
            transaction.commit().await.map_err(at(step))?;
            return Ok(false);
        }
        sqlx::query(
            "INSERT OR REPLACE INTO results (session_id, analysis_id, revision, created_at_us, analysis, \
             strokes_path, strokes_bytes, result_path, result_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(new.job.session_id.get())
        .bind(new.job.analysis_id.get())
        .bind(new.job.revision)
        .bind(new.created_at_us)
        .bind(&new.analysis)
        .bind(&new.strokes_file.path)
        .bind(new.strokes_file.bytes)
        .bind(&new.result_file.path)
        .bind(new.result_file.bytes)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        if let Some(notice) = &new.notice {
            sqlx::query(
                "INSERT INTO outbox (notification_id, user_id, session_id, analysis_id, payload, created_at_us) \
                 VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(&*notice.notification_id.0)
            .bind(notice.user_id.get())
            .bind(new.job.session_id.get())
            .bind(new.job.analysis_id.get())
            .bind(&notice.payload)
            .bind(new.created_at_us)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
            deliveries::owe(&mut transaction, &notice.notification_id, notice.user_id, new.created_at_us)
                .await
                .map_err(at(step))?;
        }
        transaction.commit().await.map_err(at(step))?;
        Ok(true)
    }

    /// The published result of a session.
    pub async fn result(&self, session: SessionId) -> Result<Option<ResultRow>, Error> {
        sqlx::query(
            "SELECT session_id, analysis_id, revision, created_at_us, analysis FROM results WHERE session_id = ?",
        )
        .bind(session.get())
        .fetch_optional(&self.readers)
        .await
        .map_err(at("read a result"))?
        .map(|row| {
            Ok(ResultRow {
                session_id: SessionId(get(&row, 0)?),
                analysis_id: AnalysisId(get(&row, 1)?),
                revision: get(&row, 2)?,
                created_at_us: get(&row, 3)?,
                analysis: get(&row, 4)?,
            })
        })
        .transpose()
    }

    /// The files of every published analysis, for the SQL tables.
    pub async fn published_files(&self) -> Result<Vec<PublishedFiles>, Error> {
        let rows =
            sqlx::query(PUBLISHED_FILES).fetch_all(&self.readers).await.map_err(at("list published analyses"))?;
        rows.iter()
            .map(|row| {
                Ok(PublishedFiles {
                    session_id: SessionId(get(row, 0)?),
                    started_at_us: get(row, 1)?,
                    created_at_us: get(row, 2)?,
                    strokes: StoredFile { path: get(row, 3)?, bytes: get(row, 4)? },
                    result: StoredFile { path: get(row, 5)?, bytes: get(row, 6)? },
                })
            })
            .collect()
    }

    /// Every file that the catalog answers for, for verification: path, and of frames also revision, rows, bytes, sum.
    pub async fn expected_files(&self) -> Result<Vec<Expected>, Error> {
        let rows = sqlx::query(
            "SELECT frames_path, revision, sealed_rows, frames_bytes, frames_sha256 FROM sessions \
             WHERE frames_path IS NOT NULL UNION ALL SELECT strokes_path, NULL, NULL, NULL, NULL FROM results \
             UNION ALL SELECT result_path, NULL, NULL, NULL, NULL FROM results",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(at("list stored files"))?;
        rows.iter()
            .map(|row| {
                Ok(Expected {
                    path: parse("path", &get::<String>(row, 0)?)?,
                    revision: get::<Option<i64>>(row, 1)?.and_then(|revision| revision.try_into().ok()),
                    rows: get::<Option<i64>>(row, 2)?.and_then(|rows| rows.try_into().ok()),
                    bytes: get::<Option<i64>>(row, 3)?.and_then(|bytes| bytes.try_into().ok()),
                    sha256: get(row, 4)?,
                })
            })
            .collect()
    }

    // Outbox.

    /// The notices a user is owed, oldest first, at most `limit`.
    pub async fn owed_to(&self, user: UserId, limit: i64) -> Result<Vec<OutboxRow>, Error> {
        let rows = sqlx::query(
            "SELECT notification_id, user_id, session_id, payload, created_at_us, attempts FROM outbox \
             WHERE user_id = ? AND delivered_at_us IS NULL ORDER BY notification_id LIMIT ?",
        )
        .bind(user.get())
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(at("read the outbox"))?;
        rows.iter()
            .map(|row| {
                Ok(OutboxRow {
                    notification_id: NotificationId(get::<String>(row, 0)?.into()),
                    user_id: UserId(get(row, 1)?),
                    session_id: SessionId(get(row, 2)?),
                    payload: get(row, 3)?,
                    created_at_us: get(row, 4)?,
                    attempts: get(row, 5)?,
                })
            })
            .collect()
    }

    /// How many notices are owed to anybody.
    pub async fn owed_count(&self) -> Result<i64, Error> {
        let row = sqlx::query("SELECT count(*) FROM outbox WHERE delivered_at_us IS NULL")
            .fetch_one(&self.readers)
            .await
            .map_err(at("count the outbox"))?;
        get(&row, 0)
    }

    /// Records an attempt to deliver.
    pub async fn note_attempt(&self, notification: &NotificationId) -> Result<(), Error> {
        sqlx::query("UPDATE outbox SET attempts = attempts + 1 WHERE notification_id = ?")
            .bind(&*notification.0)
            .execute(&self.writer)
            .await
            .map_err(at("note an attempt"))?;
        Ok(())
    }

    /// Records that the user has it.
    pub async fn mark_delivered(&self, notification: &NotificationId, now_us: i64) -> Result<(), Error> {
        sqlx::query("UPDATE outbox SET delivered_at_us = ?2 WHERE notification_id = ?1 AND delivered_at_us IS NULL")
            .bind(&*notification.0)
            .bind(now_us)
            .execute(&self.writer)
            .await
            .map_err(at("mark a notice delivered"))?;
        Ok(())
    }
}

/// Runs the migrations that this database has not seen.
async fn migrate(pool: &SqlitePool, path: &Path) -> Result<(), Error> {
    let row = sqlx::query("PRAGMA user_version").fetch_one(pool).await.map_err(at("read the version"))?;
    let found: i64 = get(&row, 0)?;
    let Some(pending) = usize::try_from(found).ok().and_then(|done| MIGRATIONS.get(done..)) else {
        return Err(Error::TooNew { path: path.display().to_string(), found, known: MIGRATIONS.len() });
    };
    for migration in pending {
        let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.map_err(at("migrate"))?;
        sqlx::raw_sql(*migration).execute(&mut *transaction).await.map_err(at("migrate"))?;
        transaction.commit().await.map_err(at("migrate"))?;
    }
    Ok(())
}

fn get<'r, T>(row: &'r SqliteRow, index: usize) -> Result<T, Error>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(index).map_err(at("read a column"))
}

fn parse<T: FromStr>(what: &'static str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::Invalid { what, value: text.to_owned() })
}

fn user_row(row: &SqliteRow) -> Result<UserRow, Error> {
    Ok(UserRow { user_id: UserId(get(row, 0)?), openid: get(row, 1)? })
}

fn session_row(row: &SqliteRow) -> Result<SessionRow, Error> {
    fn named<'r, T>(row: &'r SqliteRow, name: &'static str) -> Result<T, Error>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        row.try_get(name).map_err(at("read a session"))
    }
    let status: String = named(row, "status")?;
    let kind: String = named(row, "kind")?;
    Ok(SessionRow {
        session_id: SessionId(named(row, "session_id")?),
        kind: match kind.as_str() {
            "session" => SessionKind::Session,
            "collection" => SessionKind::Collection,
            _ => return Err(Error::Invalid { what: "kind", value: kind }),
        },
        device_code: parse("device_code", &named::<String>(row, "device_code")?)?,
        group_code: named(row, "group_code")?,
        claimed_id: named(row, "claimed_id")?,
        user_id: named::<Option<i64>>(row, "user_id")?.map(UserId),
        status: SessionStatus::from_name(&status).ok_or(Error::Invalid { what: "status", value: status })?,
        reason: named(row, "reason")?,
        started_at_us: named(row, "started_at_us")?,
        ended_at_us: named(row, "ended_at_us")?,
        changed_at_us: named(row, "changed_at_us")?,
        revision: named(row, "revision")?,
        sealed_rows: named(row, "sealed_rows")?,
        frames_path: named(row, "frames_path")?,
        frames_bytes: named(row, "frames_bytes")?,
        sync_error_ns: named(row, "sync_error_ns")?,
        closed: named::<i64>(row, "closed")? != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_files_of_results_are_listed_without_reading_the_analyses() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join("catalog.sqlite")).await.unwrap();
        let plan = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {PUBLISHED_FILES}")));
        let plan = plan.fetch_all(&catalog.readers).await.unwrap();
        let steps: Vec<String> = plan.iter().map(|row| row.get(3)).collect();
        assert!(steps.iter().any(|step| step.contains("SCAN r USING COVERING INDEX results_by_files")), "{steps:?}");
        catalog.close().await;
    }
}
