//! What the catalog knows of sessions that travel in an archive: given out whole, taken in whole.

use schemas::{AnalysisId, SessionId, UserId};
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;

use super::labels::insert_labels;
use super::{Catalog, Error, Label, at, get, session_row};

/// A sealed session as an archive carries it. Times are µs since 1970 UTC, files are relative to the data folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchivedSession {
    pub session_id: i64,
    /// `session` or `collection`.
    pub kind: String,
    pub device_code: String,
    pub group_code: String,
    pub claimed_id: Option<String>,
    pub user_id: Option<i64>,
    pub status: String,
    pub reason: Option<String>,
    pub started_at_us: i64,
    pub ended_at_us: Option<i64>,
    pub changed_at_us: i64,
    pub revision: i64,
    pub rows: i64,
    pub frames_path: String,
    pub frames_bytes: i64,
    pub frames_sha256: String,
    pub sync_error_ns: Option<i64>,
    pub result: Option<ArchivedResult>,
    /// What people say was played. Absent in archives of version 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
}

/// The published analysis of an archived session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchivedResult {
    pub analysis_id: i64,
    pub revision: i64,
    pub created_at_us: i64,
    /// `pipelines::Analysis` as JSON.
    pub analysis: String,
    pub strokes_path: String,
    pub strokes_bytes: i64,
    pub result_path: String,
    pub result_bytes: i64,
}

/// A file of frames that is in place.
#[derive(Clone, Copy, Debug)]
pub struct StoredFrames<'a> {
    /// Relative to the data folder.
    pub path: &'a str,
    pub bytes: i64,
    pub sha256: &'a str,
}

/// A player as an archive carries one: by number, not by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchivedPlayer {
    pub user_id: i64,
    pub created_at_us: i64,
    pub language: Option<String>,
}

/// A session of an archive that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Here {
    pub session_id: SessionId,
    /// The analysis that its archived one became; `None`: it kept its number.
    pub analysis_id: Option<AnalysisId>,
    /// The frames in the archive are those that were given up here.
    pub lacks_frames: bool,
    /// It has no result: that was given up after them.
    pub lacks_result: bool,
}

/// How the openids of players begin who came with an archive of another service.
pub(super) const ARCHIVED: &str = "archive:";

/// What stands for the openid of a player whom an archive of that service knows by this number.
pub(super) fn archived_as(service: &str, number: i64) -> String {
    format!("{ARCHIVED}{service}:{number}")
}

impl Catalog {
    /// What an archive carries of a session; `None` if there is no such session or it is not sealed yet.
    pub async fn archived_session(&self, session: SessionId) -> Result<Option<ArchivedSession>, Error> {
        let step = "read a session for an archive";
        let row = sqlx::query("SELECT *, frames_sha256 AS sum FROM sessions WHERE session_id = ? AND revision > 0")
            .bind(session.get())
            .fetch_optional(&self.readers)
            .await
            .map_err(at(step))?;
        let Some(row) = row else { return Ok(None) };
        let known = session_row(&row)?;
        let sum: Option<String> = sqlx::Row::try_get(&row, "sum").map_err(at(step))?;
        let (Some(frames_path), Some(frames_bytes), Some(frames_sha256)) = (known.frames_path, known.frames_bytes, sum)
        else {
            return Ok(None);
        };
        let result = sqlx::query(
            "SELECT analysis_id, revision, created_at_us, analysis, strokes_path, strokes_bytes, result_path, \
             result_bytes FROM results WHERE session_id = ?",
        )
        .bind(session.get())
        .fetch_optional(&self.readers)
        .await
        .map_err(at(step))?
        .map(|row| {
            Ok::<_, Error>(ArchivedResult {
                analysis_id: get(&row, 0)?,
                revision: get(&row, 1)?,
                created_at_us: get(&row, 2)?,
                analysis: get(&row, 3)?,
                strokes_path: get(&row, 4)?,
                strokes_bytes: get(&row, 5)?,
                result_path: get(&row, 6)?,
                result_bytes: get(&row, 7)?,
            })
        })
        .transpose()?;
        Ok(Some(ArchivedSession {
            session_id: known.session_id.get(),
            kind: known.kind.as_str().to_owned(),
            device_code: known.device_code.to_string(),
            group_code: known.group_code,
            claimed_id: known.claimed_id,
            user_id: known.user_id.map(UserId::get),
            status: known.status.to_string(),
            reason: known.reason,
            started_at_us: known.started_at_us,
            ended_at_us: known.ended_at_us,
            changed_at_us: known.changed_at_us,
            revision: known.revision,
            rows: known.sealed_rows,
            frames_path,
            frames_bytes,
            frames_sha256,
            sync_error_ns: known.sync_error_ns,
            result,
            labels: self.labels(session).await?,
        }))
    }

    /// What an archive carries of players.
    pub async fn archived_player(&self, user: UserId) -> Result<Option<ArchivedPlayer>, Error> {
        sqlx::query("SELECT user_id, created_at_us, language FROM users WHERE user_id = ?")
            .bind(user.get())
            .fetch_optional(&self.readers)
            .await
            .map_err(at("read a player for an archive"))?
            .map(|row| {
                Ok(ArchivedPlayer { user_id: get(&row, 0)?, created_at_us: get(&row, 1)?, language: get(&row, 2)? })
            })
            .transpose()
    }

    /// The player of another service, made at the first time: under its own number if that was never anybody's here. Nobody can
    /// log in as such a player; the openid that stands for it names the archive's service.
    pub async fn import_player(&self, service: &str, player: &ArchivedPlayer) -> Result<(UserId, bool), Error> {
        let step = "import a player";
        let openid = archived_as(service, player.user_id);
        let made = sqlx::query(
            "INSERT INTO users (user_id, openid, created_at_us, language) \
             VALUES ((SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM users WHERE user_id = ?1) \
             AND NOT EXISTS (SELECT 1 FROM erasures WHERE user_id = ?1)), ?2, ?3, ?4) \
             ON CONFLICT (openid) DO NOTHING",
        )
        .bind(player.user_id)
        .bind(&openid)
        .bind(player.created_at_us)
        .bind(&player.language)
        .execute(&self.writer)
        .await
        .map_err(at(step))?;
        let row = sqlx::query("SELECT user_id FROM users WHERE openid = ?")
            .bind(&openid)
            .fetch_one(&self.writer)
            .await
            .map_err(at(step))?;
        Ok((UserId(get(&row, 0)?), made.rows_affected() > 0))
    }

    /// Which session here is the one that an archive of `service` holds under `number`: by the sum of its frames, also where it got
    /// another number; in the service's own folder by number and start too, since late frames may have come since.
    pub async fn archived_here(
        &self,
        service: &str,
        number: i64,
        started_at_us: i64,
        frames_sha256: &str,
    ) -> Result<Option<Here>, Error> {
        sqlx::query(
            "WITH same AS (SELECT session_id FROM sessions WHERE frames_sha256 = ?1 UNION \
             SELECT session_id FROM sessions WHERE other_frames_sha256 = ?1 UNION \
             SELECT CAST(our_id AS INTEGER) FROM imported WHERE source = 'archive' AND kind = 'session' AND source_id = ?1), \
             known AS (SELECT session_id FROM same UNION SELECT session_id FROM sessions WHERE session_id = ?2 \
             AND started_at_us = ?3 AND ?4 = (SELECT value FROM settings WHERE name = 'service_id')) \
             SELECT session_id, (SELECT CAST(our_id AS INTEGER) FROM imported \
             WHERE source = 'archive' AND kind = 'analysis' AND source_id = ?1), \
             frames_path IS NULL AND session_id IN same, \
             NOT EXISTS (SELECT 1 FROM results r WHERE r.session_id = s.session_id) FROM sessions s \
             WHERE session_id IN known AND revision > 0 ORDER BY frames_path IS NULL, session_id LIMIT 1",
        )
        .bind(frames_sha256)
        .bind(number)
        .bind(started_at_us)
        .bind(service)
        .fetch_optional(&self.readers)
        .await
        .map_err(at("look an archived session up"))?
        .map(|row| {
            Ok(Here {
                session_id: SessionId(get(&row, 0)?),
                analysis_id: get::<Option<i64>>(&row, 1)?.map(AnalysisId),
                lacks_frames: get(&row, 2)?,
                lacks_result: get(&row, 3)?,
            })
        })
        .transpose()
    }

    /// Notes that files which were given up are being written again, so that nobody deletes them.
    pub async fn begin_bringing_back(&self, session: SessionId) -> Result<(), Error> {
        sqlx::query(
            "UPDATE sessions SET frames_expired_at_us = NULL, results_expired_at_us = NULL \
             WHERE session_id = ? AND frames_path IS NULL",
        )
        .bind(session.get())
        .execute(&self.writer)
        .await
        .map_err(at("begin to bring a session back"))?;
        Ok(())
    }

    /// Commits the frames of a session, which had been given up and are in place again, and its result if that was too; without one it
    /// is analysed. Its labels were never given up: those here are valid.
    pub async fn bring_back(
        &self,
        session: SessionId,
        frames: &StoredFrames<'_>,
        result: Option<&ArchivedResult>,
        now_us: i64,
    ) -> Result<(), Error> {
        let step = "bring a session back";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        sqlx::query(
            "UPDATE sessions SET frames_path = ?2, frames_bytes = ?3, frames_sha256 = ?4, \
             other_frames_sha256 = CASE WHEN frames_sha256 = ?4 THEN other_frames_sha256 ELSE frames_sha256 END, \
             brought_back_at_us = ?5 \
             WHERE session_id = ?1 AND frames_path IS NULL",
        )
        .bind(session.get())
        .bind(frames.path)
        .bind(frames.bytes)
        .bind(frames.sha256)
        .bind(now_us)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        if let Some(result) = result {
            publish(&mut transaction, step, session.get(), result).await?;
        }
        sqlx::query(
            "INSERT INTO jobs (session_id, revision, state, created_at_us, background) \
             SELECT session_id, revision, 'queued', ?2, 1 FROM sessions s WHERE session_id = ?1 \
             AND NOT EXISTS (SELECT 1 FROM results r WHERE r.session_id = s.session_id) \
             ON CONFLICT (session_id, revision) DO UPDATE SET state = 'queued', attempts = 0, error = NULL, background = 1 \
             WHERE state <> 'running'",
        )
        .bind(session.get())
        .bind(now_us)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        transaction.commit().await.map_err(at(step))
    }

    /// The numbers that an archived session of a player of ours gets here, noted before its files are written: its own if they are
    /// free, those of an earlier run that did not come to its end, or new ones.
    pub async fn claim_archived(
        &self,
        session: &ArchivedSession,
        user: Option<UserId>,
        now_us: i64,
    ) -> Result<(SessionId, AnalysisId), Error> {
        let step = "claim numbers for an archived session";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        let claimed = sqlx::query(
            "SELECT our_id, (SELECT our_id FROM imported WHERE source = 'archive' AND kind = 'analysis' AND source_id = ?1) \
             FROM imported WHERE source = 'archive' AND kind = 'session' AND source_id = ?1 \
             AND EXISTS (SELECT 1 FROM sessions WHERE session_id = CAST(our_id AS INTEGER))",
        )
        .bind(&session.frames_sha256)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(at(step))?;
        if let Some(row) = claimed {
            let [ours, analysis] = [get::<String>(&row, 0)?, get::<Option<String>>(&row, 1)?.unwrap_or_default()];
            return Ok((SessionId(ours.parse().unwrap_or(0)), AnalysisId(analysis.parse().unwrap_or(0))));
        }
        let row = sqlx::query(
            "INSERT INTO sessions (session_id, kind, device_code, group_code, user_id, status, reason, started_at_us, \
             changed_at_us, claimed_id, closed, origin) \
             VALUES ((SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM sessions WHERE session_id = ?1)), \
             ?2, ?3, ?4, ?8, 'stopped', 'its import is not finished', ?5, ?6, ?7, 1, 'archive') RETURNING session_id",
        )
        .bind(session.session_id)
        .bind(&session.kind)
        .bind(&session.device_code)
        .bind(&session.group_code)
        .bind(session.started_at_us)
        .bind(now_us)
        .bind(&session.claimed_id)
        .bind(user.map(UserId::get))
        .fetch_one(&mut *transaction)
        .await
        .map_err(at(step))?;
        let ours: i64 = get(&row, 0)?;
        let mut analysis = 0;
        if let Some(result) = &session.result {
            let row = sqlx::query(
                "INSERT INTO jobs (job_id, session_id, revision, state, created_at_us, background) \
                 VALUES ((SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE job_id = ?1)), ?2, ?3, 'done', ?4, 1) \
                 RETURNING job_id",
            )
            .bind(result.analysis_id)
            .bind(ours)
            .bind(result.revision)
            .bind(result.created_at_us)
            .fetch_one(&mut *transaction)
            .await
            .map_err(at(step))?;
            analysis = get(&row, 0)?;
        }
        for (kind, number) in [("session", ours), ("analysis", analysis)] {
            sqlx::query(
                "INSERT OR REPLACE INTO imported (source, kind, source_id, our_id, at_us) VALUES ('archive', ?, ?, ?, ?)",
            )
            .bind(kind)
            .bind(&session.frames_sha256)
            .bind(number.to_string())
            .bind(now_us)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        }
        transaction.commit().await.map_err(at(step))?;
        Ok((SessionId(ours), AnalysisId(analysis)))
    }

    /// Commits an archived session whose files are in place: `session` has the numbers, files and player that are valid
    /// here. A session without a result is analysed.
    pub async fn finish_archived(&self, session: &ArchivedSession, now_us: i64) -> Result<(), Error> {
        let step = "finish the import of an archived session";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        sqlx::query(
            "INSERT INTO devices (device_code, first_seen_us, last_seen_us) VALUES (?1, ?2, ?3) \
             ON CONFLICT (device_code) DO UPDATE SET first_seen_us = min(first_seen_us, ?2), \
             last_seen_us = max(last_seen_us, ?3)",
        )
        .bind(&session.device_code)
        .bind(session.started_at_us)
        .bind(session.ended_at_us.unwrap_or(session.started_at_us))
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        sqlx::query(
            "UPDATE sessions SET user_id = ?2, status = ?3, reason = ?4, ended_at_us = ?5, changed_at_us = ?6, \
             revision = ?7, sealed_rows = ?8, frames_path = ?9, frames_bytes = ?10, frames_sha256 = ?11, \
             sync_error_ns = ?12 WHERE session_id = ?1",
        )
        .bind(session.session_id)
        .bind(session.user_id)
        .bind(&session.status)
        .bind(&session.reason)
        .bind(session.ended_at_us)
        .bind(session.changed_at_us)
        .bind(session.revision)
        .bind(session.rows)
        .bind(&session.frames_path)
        .bind(session.frames_bytes)
        .bind(&session.frames_sha256)
        .bind(session.sync_error_ns)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        if let Some(result) = &session.result {
            publish(&mut transaction, step, session.session_id, result).await?;
        } else {
            sqlx::query(
                "INSERT INTO jobs (session_id, revision, state, created_at_us, background) \
                 VALUES (?, ?, 'queued', ?, 1) ON CONFLICT DO NOTHING",
            )
            .bind(session.session_id)
            .bind(session.revision)
            .bind(now_us)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        }
        insert_labels(&mut transaction, step, session.session_id, &session.labels).await?;
        transaction.commit().await.map_err(at(step))
    }
}

/// The result of a session whose files are in place.
async fn publish(
    connection: &mut SqliteConnection,
    step: &'static str,
    session: i64,
    result: &ArchivedResult,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO results (session_id, analysis_id, revision, created_at_us, analysis, \
         strokes_path, strokes_bytes, result_path, result_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(session)
    .bind(result.analysis_id)
    .bind(result.revision)
    .bind(result.created_at_us)
    .bind(&result.analysis)
    .bind(&result.strokes_path)
    .bind(result.strokes_bytes)
    .bind(&result.result_path)
    .bind(result.result_bytes)
    .execute(connection)
    .await
    .map_err(at(step))?;
    Ok(())
}
