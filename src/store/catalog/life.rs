//! Erasing a player, and copying the whole catalog while it is in use.

use std::collections::BTreeMap;
use std::path::Path;

use schemas::{SessionId, UserId};

use super::{Catalog, Error, at, get};

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

/// Tables that hold rows of a player's sessions, and how.
const OF_SESSIONS: [(&str, &str); 7] = [
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
    /// The service's own name, made at its first start; it stands in archives and receipts.
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

    /// The sessions of a player: number, whether it has ended, and the files of each.
    pub async fn sessions_and_files_of(&self, user: UserId) -> Result<Vec<(SessionId, bool, Vec<String>)>, Error> {
        let rows = sqlx::query(
            "SELECT s.session_id, s.closed OR s.status IN ('completed', 'stopped'), s.frames_path, r.strokes_path, r.result_path \
             FROM sessions s LEFT JOIN results r USING (session_id) WHERE s.user_id = ? ORDER BY s.session_id",
        )
        .bind(user.get())
        .fetch_all(&self.readers)
        .await
        .map_err(at("list a player's files"))?;
        rows.iter()
            .map(|row| {
                let mut files = Vec::new();
                for index in 2..5 {
                    files.extend(get::<Option<String>>(row, index)?);
                }
                Ok((SessionId(get(row, 0)?), get::<i64>(row, 1)? != 0, files))
            })
            .collect()
    }

    /// Takes every row of a player out, and notes the files that are to follow, in one commit.
    pub async fn erase_player(&self, user: UserId, files: &[String], now_us: i64) -> Result<Erasure, Error> {
        let step = "erase a player";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
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
        let done = sqlx::query("DELETE FROM users WHERE user_id = ?")
            .bind(user.get())
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        counts.insert("users".to_owned(), done.rows_affected() as i64);
        let text = |value: serde_json::Result<String>| value.unwrap_or_default();
        sqlx::query("INSERT OR REPLACE INTO erasures (user_id, erased_at_us, counts, files) VALUES (?, ?, ?, ?)")
            .bind(user.get())
            .bind(now_us)
            .bind(text(serde_json::to_string(&counts)))
            .bind(text(serde_json::to_string(files)))
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        transaction.commit().await.map_err(at(step))?;
        Ok(Erasure { user_id: user, erased_at_us: now_us, counts, files: files.to_vec(), done_at_us: None })
    }

    /// Notes that the files of an erasure are gone, and overwrites what the database kept of deleted rows: the file is made
    /// anew without them, and its log is emptied.
    pub async fn finish_erasure(&self, user: UserId, now_us: i64) -> Result<(), Error> {
        let step = "finish an erasure";
        sqlx::query("UPDATE erasures SET done_at_us = ? WHERE user_id = ?")
            .bind(now_us)
            .bind(user.get())
            .execute(&self.writer)
            .await
            .map_err(at(step))?;
        for statement in ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
            sqlx::query(statement).execute(&self.writer).await.map_err(at(step))?;
        }
        Ok(())
    }

    /// Finished sessions that ended before an instant and still have their frames, the oldest first.
    pub async fn sessions_before(&self, ended_before_us: i64, limit: i64) -> Result<Vec<SessionId>, Error> {
        let rows = sqlx::query(
            "SELECT session_id FROM sessions WHERE closed = 1 AND status IN ('completed', 'stopped') \
             AND frames_path IS NOT NULL AND coalesce(ended_at_us, started_at_us) < ? ORDER BY session_id LIMIT ?",
        )
        .bind(ended_before_us)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(at("list old sessions"))?;
        rows.iter().map(|row| Ok(SessionId(get(row, 0)?))).collect()
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

    /// Sessions whose frames were given up before an instant: number, and start, which is where their file lay.
    pub async fn expired_before(&self, before_us: i64) -> Result<Vec<(SessionId, i64)>, Error> {
        let rows = sqlx::query(
            "SELECT session_id, started_at_us FROM sessions WHERE frames_expired_at_us IS NOT NULL \
             AND frames_expired_at_us <= ?",
        )
        .bind(before_us)
        .fetch_all(&self.readers)
        .await
        .map_err(at("list sessions without frames"))?;
        rows.iter().map(|row| Ok((SessionId(get(row, 0)?), get(row, 1)?))).collect()
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

    /// True if frames with this sum are here, or came in an archive under other numbers.
    pub async fn has_archived(&self, frames_sha256: &str) -> Result<bool, Error> {
        let row = sqlx::query(
            "SELECT 1 FROM sessions WHERE frames_sha256 = ?1 AND revision > 0 UNION ALL \
             SELECT 1 FROM imported i JOIN sessions s ON s.session_id = CAST(i.our_id AS INTEGER) \
             WHERE i.source = 'archive' AND i.kind = 'session' AND i.source_id = ?1 AND s.revision > 0 LIMIT 1",
        )
        .bind(frames_sha256)
        .fetch_optional(&self.readers)
        .await
        .map_err(at("look a file of frames up"))?;
        Ok(row.is_some())
    }
}
