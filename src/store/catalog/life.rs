//! Erasing a player, and copying the whole catalog while it is in use.

use std::collections::BTreeMap;
use std::path::Path;

use schemas::{SessionId, UserId};

use super::archives::{ARCHIVED, archived_as};
use super::{Catalog, Error, at, get, parse};
use crate::store::paths::{Table, TablePath};

/// An erasure that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    pub user_id: UserId,
    pub erased_at_us: i64,
    /// Rows that are gone, by table.
    pub counts: BTreeMap<String, i64>,
    /// Below the data folder.
    pub files: Vec<String>,
    /// `None` until the files are gone too.
    pub done_at_us: Option<i64>,
}

/// What came of [`Catalog::erase_player`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Erased {
    /// The rows are gone.
    Done(Erasure),
    /// Nothing changed: this session of the player is being recorded or analysed.
    Busy(SessionId),
}

/// The first session of a player that somebody is still writing to. Beside a running service (`?2`) that is one whose
/// recording is in memory or whose analysis is under way; in a stopped one's folder, one that has not ended.
const BUSY: &str = "SELECT s.session_id FROM sessions s WHERE s.user_id = ?1 AND (\
     s.closed = 0 AND (?2 OR s.status NOT IN ('completed', 'stopped')) \
     OR ?2 AND EXISTS (SELECT 1 FROM jobs j WHERE j.session_id = s.session_id AND j.state = 'running') \
     OR ?2 AND EXISTS (SELECT 1 FROM candidates c WHERE c.session_id = s.session_id AND c.state IN ('running', 'switching'))) \
     ORDER BY s.session_id LIMIT 1";

/// Tables that hold rows of a player's sessions, and how.
const OF_SESSIONS: [(&str, &str); 9] = [
    (
        "delivery_attempts",
        "DELETE FROM delivery_attempts WHERE notification_id IN \
         (SELECT notification_id FROM outbox WHERE user_id = ?1 OR session_id IN (SELECT session_id FROM sessions WHERE user_id = ?1))",
    ),
    (
        "deliveries",
        "DELETE FROM deliveries WHERE notification_id IN \
         (SELECT notification_id FROM outbox WHERE user_id = ?1 OR session_id IN (SELECT session_id FROM sessions WHERE user_id = ?1))",
    ),
    (
        "outbox",
        "DELETE FROM outbox WHERE user_id = ?1 OR session_id IN (SELECT session_id FROM sessions WHERE user_id = ?1)",
    ),
    ("results", "DELETE FROM results WHERE session_id IN (SELECT session_id FROM sessions WHERE user_id = ?1)"),
    ("jobs", "DELETE FROM jobs WHERE session_id IN (SELECT session_id FROM sessions WHERE user_id = ?1)"),
    ("candidates", "DELETE FROM candidates WHERE session_id IN (SELECT session_id FROM sessions WHERE user_id = ?1)"),
    (
        "stroke_figures",
        "DELETE FROM stroke_figures WHERE session_id IN (SELECT session_id FROM sessions WHERE user_id = ?1)",
    ),
    ("labels", "DELETE FROM labels WHERE session_id IN (SELECT session_id FROM sessions WHERE user_id = ?1)"),
    (
        "imported_results",
        "DELETE FROM imported_results WHERE session_id IN (SELECT session_id FROM sessions WHERE user_id = ?1)",
    ),
];

/// Tables that hold rows of the player, and how.
const OF_PLAYERS: [(&str, &str); 8] = [
    ("sessions", "DELETE FROM sessions WHERE user_id = ?1"),
    ("wechat_grants", "DELETE FROM wechat_grants WHERE user_id = ?1"),
    ("deliveries", "DELETE FROM deliveries WHERE target IN (SELECT webhook_id FROM webhooks WHERE user_id = ?1)"),
    ("webhooks", "DELETE FROM webhooks WHERE user_id = ?1"),
    ("form_entries", "DELETE FROM form_entries WHERE user_id = ?1"),
    ("pairing_codes", "DELETE FROM pairing_codes WHERE used_by = ?1"),
    ("tokens", "DELETE FROM tokens WHERE user_id = ?1"),
    ("bindings", "DELETE FROM bindings WHERE user_id = ?1"),
];

impl Catalog {
    /// The service's own name, made with the catalog; it stands in archives and receipts. `None` in a catalog of an earlier version that
    /// is only read.
    pub async fn service_id(&self) -> Result<Option<String>, Error> {
        let row = sqlx::query("SELECT value FROM settings WHERE name = 'service_id'")
            .fetch_optional(&self.readers)
            .await
            .map_err(at("read the service's name"))?;
        row.map(|row| get(&row, 0)).transpose()
    }

    /// True if the player was erased here.
    pub async fn is_erased(&self, user: UserId) -> Result<bool, Error> {
        let row = sqlx::query("SELECT 1 FROM erasures WHERE user_id = ?")
            .bind(user.get())
            .fetch_optional(&self.readers)
            .await
            .map_err(at("look an erasure up"))?;
        Ok(row.is_some())
    }

    /// True if the player whom an archive of that service knows by this number was erased here.
    pub async fn is_erased_of(&self, service: &str, number: i64) -> Result<bool, Error> {
        let row = sqlx::query(
            "SELECT 1 FROM erasures WHERE archived_as = ?1 \
             OR user_id = ?2 AND ?3 = (SELECT value FROM settings WHERE name = 'service_id')",
        )
        .bind(archived_as(service, number))
        .bind(number)
        .bind(service)
        .fetch_optional(&self.readers)
        .await
        .map_err(at("look an erasure up"))?;
        Ok(row.is_some())
    }

    /// Notes that a player of whom nothing is here was erased elsewhere: their number is given to nobody, and no archive brings
    /// them back.
    pub async fn keep_out(&self, user: UserId, erased_at_us: i64) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO erasures (user_id, erased_at_us, counts, files, done_at_us) VALUES (?1, ?2, '{}', '[]', ?2) \
             ON CONFLICT DO NOTHING",
        )
        .bind(user.get())
        .bind(erased_at_us)
        .execute(&self.writer)
        .await
        .map_err(at("note an erasure"))?;
        self.reserve_numbers(user.get(), 0).await
    }

    /// The erasure of a player, if there was one.
    pub async fn erasure(&self, user: UserId) -> Result<Option<Erasure>, Error> {
        let row =
            sqlx::query("SELECT user_id, erased_at_us, counts, files, done_at_us FROM erasures WHERE user_id = ?")
                .bind(user.get())
                .fetch_optional(&self.readers)
                .await
                .map_err(at("read an erasure"))?;
        row.map(|row| {
            let json = |what, index| {
                let text: String = get(&row, index)?;
                serde_json::from_str(&text).map_err(|_| Error::Invalid { what, value: text })
            };
            let counts = json("counts", 2)?;
            let files = json("files", 3)?;
            Ok(Erasure {
                user_id: UserId(get(&row, 0)?),
                erased_at_us: get(&row, 1)?,
                counts: serde_json::from_value(counts).unwrap_or_default(),
                files: serde_json::from_value(files).unwrap_or_default(),
                done_at_us: get(&row, 4)?,
            })
        })
        .transpose()
    }

    /// The sessions of a player, and the files of each.
    pub async fn sessions_and_files_of(&self, user: UserId) -> Result<Vec<(SessionId, Vec<String>)>, Error> {
        let rows = sqlx::query(
            "SELECT s.session_id, s.frames_path, r.strokes_path, r.result_path \
             FROM sessions s LEFT JOIN results r USING (session_id) WHERE s.user_id = ? ORDER BY s.session_id",
        )
        .bind(user.get())
        .fetch_all(&self.readers)
        .await
        .map_err(at("list a player's files"))?;
        rows.iter()
            .map(|row| {
                let mut files = Vec::new();
                for index in 1..4 {
                    files.extend(get::<Option<String>>(row, index)?);
                }
                Ok((SessionId(get(row, 0)?), files))
            })
            .collect()
    }

    /// A session that keeps its player from being erased now.
    pub async fn busy_session_of(&self, user: UserId, beside_service: bool) -> Result<Option<SessionId>, Error> {
        let row = sqlx::query(BUSY)
            .bind(user.get())
            .bind(beside_service)
            .fetch_optional(&self.readers)
            .await
            .map_err(at("look at a player's sessions"))?;
        row.map(|row| Ok(SessionId(get(&row, 0)?))).transpose()
    }

    /// Takes every row of a player out, and notes the files that are to follow, in one commit. What a running service has under
    /// way then finds nothing to end in.
    pub async fn erase_player(
        &self,
        user: UserId,
        files: &[String],
        now_us: i64,
        beside_service: bool,
    ) -> Result<Erased, Error> {
        let step = "erase a player";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        let busy = sqlx::query(BUSY)
            .bind(user.get())
            .bind(beside_service)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(at(step))?;
        if let Some(busy) = busy {
            return Ok(Erased::Busy(SessionId(get(&busy, 0)?)));
        }
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        let row = sqlx::query("SELECT coalesce(sum(sealed_rows), 0) FROM sessions WHERE user_id = ?")
            .bind(user.get())
            .fetch_one(&mut *transaction)
            .await
            .map_err(at(step))?;
        counts.insert("frames".to_owned(), get(&row, 0)?);
        for (table, statement) in OF_SESSIONS.into_iter().chain(OF_PLAYERS) {
            let done = sqlx::query(statement).bind(user.get()).execute(&mut *transaction).await.map_err(at(step))?;
            *counts.entry(table.to_owned()).or_default() += done.rows_affected() as i64;
        }
        let row = sqlx::query("DELETE FROM users WHERE user_id = ? RETURNING openid")
            .bind(user.get())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(at(step))?;
        counts.insert("users".to_owned(), i64::from(row.is_some()));
        let openid = row.map(|row| get::<String>(&row, 0)).transpose()?;
        let text = |value: serde_json::Result<String>| value.unwrap_or_default();
        sqlx::query(
            "INSERT OR REPLACE INTO erasures (user_id, erased_at_us, counts, files, archived_as) VALUES (?, ?, ?, ?, ?)",
        )
            .bind(user.get())
            .bind(now_us)
            .bind(text(serde_json::to_string(&counts)))
            .bind(text(serde_json::to_string(files)))
            .bind(openid.filter(|openid| openid.starts_with(ARCHIVED)))
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        transaction.commit().await.map_err(at(step))?;
        Ok(Erased::Done(Erasure {
            user_id: user,
            erased_at_us: now_us,
            counts,
            files: files.to_vec(),
            done_at_us: None,
        }))
    }

    /// Overwrites what the database kept of an erased player's rows, and notes that the erasure is over: the file is made anew
    /// without them, and its log, where every page stands as it once was, is emptied. False if readers kept the log in use:
    /// do it again.
    pub async fn finish_erasure(&self, user: UserId, now_us: i64) -> Result<bool, Error> {
        let step = "finish an erasure";
        sqlx::query("VACUUM").execute(&self.writer).await.map_err(at(step))?;
        let emptied = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&self.writer).await.map_err(at(step))?;
        if get::<i64>(&emptied, 0)? != 0 {
            return Ok(false);
        }
        sqlx::query("UPDATE erasures SET done_at_us = ? WHERE user_id = ?")
            .bind(now_us)
            .bind(user.get())
            .execute(&self.writer)
            .await
            .map_err(at(step))?;
        Ok(true)
    }

    /// Finished sessions that ended before an instant and still have their frames, the oldest first. What an archive brought back
    /// counts from then.
    pub async fn sessions_before(&self, ended_before_us: i64, limit: i64) -> Result<Vec<SessionId>, Error> {
        let rows = sqlx::query(
            "SELECT session_id FROM sessions WHERE closed = 1 AND status IN ('completed', 'stopped') \
             AND frames_path IS NOT NULL AND max(coalesce(ended_at_us, started_at_us), coalesce(brought_back_at_us, 0)) < ? \
             ORDER BY session_id LIMIT ?",
        )
        .bind(ended_before_us)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(at("list old sessions"))?;
        rows.iter().map(|row| Ok(SessionId(get(row, 0)?))).collect()
    }

    /// The file that a session's frames are in, and its sum.
    pub async fn frames_file(&self, session: SessionId) -> Result<Option<(TablePath, String)>, Error> {
        let step = "look the frames of a session up";
        let row = sqlx::query(
            "SELECT frames_path, frames_sha256 FROM sessions \
             WHERE session_id = ? AND frames_path IS NOT NULL AND frames_sha256 IS NOT NULL",
        )
        .bind(session.get())
        .fetch_optional(&self.readers)
        .await
        .map_err(at(step))?;
        row.map(|row| Ok((parse("path", &get::<String>(&row, 0)?)?, get(&row, 1)?))).transpose()
    }

    /// Notes that the frames of a session are in another file now, the same ones; nothing if they were not in the one with this sum.
    pub async fn replace_frames(
        &self,
        session: SessionId,
        sha256: &str,
        new_bytes: i64,
        new_sha256: &str,
    ) -> Result<(), Error> {
        sqlx::query(
            "UPDATE sessions SET frames_bytes = ?3, frames_sha256 = ?4, other_frames_sha256 = ?2 \
             WHERE session_id = ?1 AND frames_sha256 = ?2 AND frames_path IS NOT NULL",
        )
        .bind(session.get())
        .bind(sha256)
        .bind(new_bytes)
        .bind(new_sha256)
        .execute(&self.writer)
        .await
        .map_err(at("note the new file of a session's frames"))?;
        Ok(())
    }

    /// Gives up the frames of a session, if they still are the ones with this sum. From now on nobody is sent to the file.
    pub async fn expire_frames(&self, session: SessionId, sha256: &str, now_us: i64) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE sessions SET frames_path = NULL, frames_bytes = NULL, frames_expired_at_us = ?3 \
             WHERE session_id = ?1 AND frames_sha256 = ?2 AND frames_path IS NOT NULL",
        )
        .bind(session.get())
        .bind(sha256)
        .bind(now_us)
        .execute(&self.writer)
        .await
        .map_err(at("give up the frames of a session"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Sessions that ended before an instant and have a result, but no frames any more, the oldest first.
    pub async fn results_before(&self, ended_before_us: i64) -> Result<Vec<SessionId>, Error> {
        let rows = sqlx::query(
            "SELECT session_id FROM sessions s WHERE closed = 1 AND status IN ('completed', 'stopped') \
             AND frames_path IS NULL AND max(coalesce(ended_at_us, started_at_us), coalesce(brought_back_at_us, 0)) < ? \
             AND EXISTS (SELECT 1 FROM results r WHERE r.session_id = s.session_id) ORDER BY session_id",
        )
        .bind(ended_before_us)
        .fetch_all(&self.readers)
        .await
        .map_err(at("list old results"))?;
        rows.iter().map(|row| Ok(SessionId(get(row, 0)?))).collect()
    }

    /// Gives up the published result of a session and the analyses beside it; the session stays, and the files follow. False if
    /// one of them is being written.
    pub async fn expire_results(&self, session: SessionId, now_us: i64) -> Result<bool, Error> {
        let step = "give up the result of a session";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        let noted = sqlx::query(
            "UPDATE sessions SET results_expired_at_us = ?2 WHERE session_id = ?1 AND frames_path IS NULL AND NOT EXISTS \
             (SELECT 1 FROM candidates WHERE session_id = ?1 AND state IN ('running', 'switching'))",
        )
        .bind(session.get())
        .bind(now_us)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        if noted.rows_affected() == 0 {
            return Ok(false);
        }
        for statement in [
            "DELETE FROM results WHERE session_id = ?",
            "DELETE FROM candidates WHERE session_id = ?",
            "DELETE FROM stroke_figures WHERE session_id = ?",
            "DELETE FROM imported_results WHERE session_id = ?",
        ] {
            sqlx::query(statement).bind(session.get()).execute(&mut *transaction).await.map_err(at(step))?;
        }
        transaction.commit().await.map_err(at(step))?;
        Ok(true)
    }

    /// What was given up before an instant, by table: number of the session, and its start, which is where its file lay.
    pub async fn expired_before(&self, before_us: i64) -> Result<Vec<(Table, SessionId, i64)>, Error> {
        let rows = sqlx::query(
            "SELECT session_id, started_at_us, frames_expired_at_us <= ?1, results_expired_at_us <= ?1 FROM sessions \
             WHERE frames_expired_at_us <= ?1 OR results_expired_at_us <= ?1",
        )
        .bind(before_us)
        .fetch_all(&self.readers)
        .await
        .map_err(at("list what was given up"))?;
        let mut expired = Vec::new();
        for row in &rows {
            let (session, started_at_us) = (SessionId(get(row, 0)?), get(row, 1)?);
            let is_due = |index| Ok::<_, Error>(get::<Option<bool>>(row, index)? == Some(true));
            if is_due(2)? {
                expired.push((Table::Frames, session, started_at_us));
            }
            if is_due(3)? {
                expired.extend([Table::Strokes, Table::Results].map(|table| (table, session, started_at_us)));
            }
        }
        Ok(expired)
    }

    /// Does what deletes a session's file of a table that was given up; `None` if it has been brought back since. Whoever would do that
    /// waits meanwhile, in other processes too.
    pub async fn delete_expired<T: Send + 'static>(
        &self,
        table: Table,
        session: SessionId,
        delete: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, Error> {
        let step = "delete what was given up";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        let expired = match table {
            Table::Frames => "SELECT 1 FROM sessions WHERE session_id = ? AND frames_expired_at_us IS NOT NULL",
            Table::Strokes | Table::Results => {
                "SELECT 1 FROM sessions WHERE session_id = ? AND results_expired_at_us IS NOT NULL"
            }
        };
        let row = sqlx::query(expired).bind(session.get()).fetch_optional(&mut *transaction).await.map_err(at(step))?;
        let done = match row {
            Some(_) => tokio::task::spawn_blocking(delete).await.ok(),
            None => None,
        };
        transaction.commit().await.map_err(at(step))?;
        Ok(done)
    }

    /// Deletes entries of the audit log from before an instant; with `count_only` it counts them.
    pub async fn expire_audit(&self, before_us: i64, count_only: bool) -> Result<i64, Error> {
        let step = "delete old entries of the audit log";
        if count_only {
            let row = sqlx::query("SELECT count(*) FROM audit_log WHERE at_us < ?").bind(before_us);
            return get(&row.fetch_one(&self.readers).await.map_err(at(step))?, 0);
        }
        let done = sqlx::query("DELETE FROM audit_log WHERE at_us < ?").bind(before_us).execute(&self.writer).await;
        Ok(done.map_err(at(step))?.rows_affected() as i64)
    }

    /// Deletes notices that were delivered before an instant and are owed nowhere else; with `count_only` it counts them.
    pub async fn expire_notices(&self, delivered_before_us: i64, count_only: bool) -> Result<i64, Error> {
        let step = "delete old notices";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        let row = sqlx::query(
            "SELECT count(*) FROM outbox o WHERE o.delivered_at_us < ?1 AND NOT EXISTS \
             (SELECT 1 FROM deliveries d WHERE d.notification_id = o.notification_id AND d.state = 'owed')",
        )
        .bind(delivered_before_us)
        .fetch_one(&mut *transaction)
        .await
        .map_err(at(step))?;
        let count = get(&row, 0)?;
        if !count_only {
            for statement in [
                "DELETE FROM delivery_attempts WHERE notification_id IN (SELECT notification_id FROM outbox o \
                 WHERE o.delivered_at_us < ?1 AND NOT EXISTS (SELECT 1 FROM deliveries d \
                 WHERE d.notification_id = o.notification_id AND d.state = 'owed'))",
                "DELETE FROM deliveries WHERE state <> 'owed' AND notification_id IN (SELECT notification_id FROM outbox o \
                 WHERE o.delivered_at_us < ?1 AND NOT EXISTS (SELECT 1 FROM deliveries d \
                 WHERE d.notification_id = o.notification_id AND d.state = 'owed'))",
                "DELETE FROM outbox WHERE delivered_at_us < ?1 AND NOT EXISTS (SELECT 1 FROM deliveries d \
                 WHERE d.notification_id = outbox.notification_id)",
            ] {
                sqlx::query(statement).bind(delivered_before_us).execute(&mut *transaction).await.map_err(at(step))?;
            }
        }
        transaction.commit().await.map_err(at(step))?;
        Ok(count)
    }

    /// Copies the catalog as of one instant, while it is in use, into a file that must not exist.
    pub async fn copy_into(&self, path: &Path) -> Result<(), Error> {
        sqlx::query("VACUUM INTO ?")
            .bind(path.display().to_string())
            .execute(&self.readers)
            .await
            .map_err(at("copy the catalog"))?;
        Ok(())
    }
}
