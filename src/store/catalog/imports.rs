//! What was taken from the replaced system, so that an import can be gone on with.

use schemas::{DeviceCode, SessionId, SessionStatus, UserId};

use super::{Catalog, Error, NewSession, Sealed, at, get};

/// Figures that the replaced system stored for a session.
#[derive(Clone, Debug, PartialEq)]
pub struct LegacyResult {
    /// JSON, as it was: s.
    pub phase_delay: String,
    pub energy_ratio: Option<f64>,
    /// JSON, as it was: degrees.
    pub rom_data: String,
    pub analysed_at_us: Option<i64>,
    /// They equal the defaults that were stored where nothing could be computed.
    pub is_default: bool,
}

/// A session that is ready to be committed.
#[derive(Clone, Debug)]
pub struct Imported<'a> {
    pub session: SessionId,
    pub status: SessionStatus,
    pub reason: Option<&'a str>,
    pub ended_at_us: Option<i64>,
    /// `None` if it has no frames.
    pub sealed: Option<&'a Sealed>,
    pub result: Option<&'a LegacyResult>,
}

impl Catalog {
    /// Our id of something that an import has taken.
    pub async fn imported(&self, source: &str, kind: &str, source_id: &str) -> Result<Option<String>, Error> {
        sqlx::query("SELECT our_id FROM imported WHERE source = ? AND kind = ? AND source_id = ?")
            .bind(source)
            .bind(kind)
            .bind(source_id)
            .fetch_optional(&self.readers)
            .await
            .map_err(at("look an import up"))?
            .map(|row| get(&row, 0))
            .transpose()
    }

    /// Notes that something was taken.
    pub async fn note_imported(
        &self,
        source: &str,
        kind: &str,
        source_id: &str,
        our_id: &str,
        now_us: i64,
    ) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO imported (source, kind, source_id, our_id, at_us) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(source)
        .bind(kind)
        .bind(source_id)
        .bind(our_id)
        .bind(now_us)
        .execute(&self.writer)
        .await
        .map_err(at("note an import"))?;
        Ok(())
    }

    /// Takes a user over: under the number that the replaced system gave out, where it is free. Our number.
    pub async fn import_user(
        &self,
        openid: &str,
        framework_id: Option<i64>,
        wx_user_id: i64,
        now_us: i64,
    ) -> Result<UserId, Error> {
        let step = "take a user over";
        sqlx::query(
            "INSERT INTO users (user_id, openid, created_at_us) \
             SELECT CASE WHEN EXISTS (SELECT 1 FROM users WHERE user_id = ?1 OR wx_user_id = ?1) THEN NULL ELSE ?1 END, ?2, ?3 \
             WHERE true ON CONFLICT (openid) DO NOTHING",
        )
        .bind(framework_id)
        .bind(openid)
        .bind(now_us)
        .execute(&self.writer)
        .await
        .map_err(at(step))?;
        sqlx::query(
            "UPDATE users SET wx_user_id = ?2 WHERE openid = ?1 AND wx_user_id IS NULL \
             AND NOT EXISTS (SELECT 1 FROM users WHERE wx_user_id = ?2)",
        )
        .bind(openid)
        .bind(wx_user_id)
        .execute(&self.writer)
        .await
        .map_err(at(step))?;
        let user = self.find_user_by_openid(openid).await?;
        user.map(|user| user.user_id).ok_or(Error::Query { step, source: sqlx::Error::RowNotFound })
    }

    /// Makes the session that an import is about to take, under its old number where that is free, in one commit with the
    /// note of it. It is closed, and has no frames and no result before [`Catalog::finish_import`].
    pub async fn begin_import(
        &self,
        source: &str,
        kind: &str,
        source_id: &str,
        old: Option<SessionId>,
        new: &NewSession,
        now_us: i64,
    ) -> Result<SessionId, Error> {
        let step = "begin to take a session over";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        let row = sqlx::query(
            "INSERT INTO sessions (session_id, kind, device_code, group_code, user_id, status, reason, started_at_us, \
             changed_at_us, closed, silent) \
             VALUES (CASE WHEN EXISTS (SELECT 1 FROM sessions WHERE session_id = ?1) THEN NULL ELSE ?1 END, ?2, ?3, ?4, ?5, \
             'stopped', 'its import is not finished', ?6, ?7, 1, 1) RETURNING session_id",
        )
        .bind(old.map(SessionId::get))
        .bind(new.kind.as_str())
        .bind(new.device_code.as_str())
        .bind(&new.group_code)
        .bind(new.user_id.map(UserId::get))
        .bind(new.started_at_us)
        .bind(now_us)
        .fetch_one(&mut *transaction)
        .await
        .map_err(at(step))?;
        let session = SessionId(get(&row, 0)?);
        sqlx::query("INSERT INTO imported (source, kind, source_id, our_id, at_us) VALUES (?, ?, ?, ?, ?)")
            .bind(source)
            .bind(format!("{kind}.begun"))
            .bind(source_id)
            .bind(session.to_string())
            .bind(now_us)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        transaction.commit().await.map_err(at(step))?;
        Ok(session)
    }

    /// Commits a session that was taken over: its file, its old figures, the job of analysing it anew, and the note that it
    /// is done.
    pub async fn finish_import(
        &self,
        source: &str,
        kind: &str,
        source_id: &str,
        imported: &Imported<'_>,
        now_us: i64,
    ) -> Result<(), Error> {
        let step = "finish taking a session over";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        let session = imported.session.get();
        sqlx::query(
            "UPDATE sessions SET status = ?2, reason = ?3, ended_at_us = ?4, changed_at_us = coalesce(?4, started_at_us) \
             WHERE session_id = ?1",
        )
        .bind(session)
        .bind(imported.status.as_str())
        .bind(imported.reason)
        .bind(imported.ended_at_us)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        if let Some(sealed) = imported.sealed {
            sqlx::query(
                "UPDATE sessions SET revision = ?2, sealed_rows = ?3, frames_path = ?4, frames_bytes = ?5, \
                 frames_sha256 = ?6, sync_error_ns = ?7 WHERE session_id = ?1",
            )
            .bind(session)
            .bind(sealed.revision)
            .bind(sealed.rows)
            .bind(&sealed.path)
            .bind(sealed.bytes)
            .bind(&sealed.sha256)
            .bind(sealed.sync_error_ns)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
            sqlx::query(
                "INSERT INTO jobs (session_id, revision, state, created_at_us) VALUES (?, ?, 'queued', ?) \
                 ON CONFLICT DO NOTHING",
            )
            .bind(session)
            .bind(sealed.revision)
            .bind(now_us)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        }
        if let Some(result) = imported.result {
            sqlx::query(
                "INSERT OR REPLACE INTO legacy_results (session_id, phase_delay, energy_ratio, rom_data, analysed_at_us, \
                 is_default) VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(session)
            .bind(&result.phase_delay)
            .bind(result.energy_ratio)
            .bind(&result.rom_data)
            .bind(result.analysed_at_us)
            .bind(i64::from(result.is_default))
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        }
        sqlx::query("INSERT INTO imported (source, kind, source_id, our_id, at_us) VALUES (?, ?, ?, ?, ?)")
            .bind(source)
            .bind(kind)
            .bind(source_id)
            .bind(imported.session.to_string())
            .bind(now_us)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        transaction.commit().await.map_err(at(step))
    }

    /// The figures that the replaced system stored for a session.
    pub async fn legacy_result(&self, session: SessionId) -> Result<Option<LegacyResult>, Error> {
        sqlx::query(
            "SELECT phase_delay, energy_ratio, rom_data, analysed_at_us, is_default FROM legacy_results \
             WHERE session_id = ?",
        )
        .bind(session.get())
        .fetch_optional(&self.readers)
        .await
        .map_err(at("read a legacy result"))?
        .map(|row| {
            Ok(LegacyResult {
                phase_delay: get(&row, 0)?,
                energy_ratio: get(&row, 1)?,
                rom_data: get(&row, 2)?,
                analysed_at_us: get(&row, 3)?,
                is_default: get::<i64>(&row, 4)? != 0,
            })
        })
        .transpose()
    }

    /// Notes a device of the replaced system.
    pub async fn import_device(&self, device: &DeviceCode, first_us: i64, last_us: i64) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO devices (device_code, first_seen_us, last_seen_us) VALUES (?1, ?2, ?3) \
             ON CONFLICT (device_code) DO UPDATE SET first_seen_us = min(first_seen_us, ?2), \
             last_seen_us = max(last_seen_us, ?3)",
        )
        .bind(device.as_str())
        .bind(first_us)
        .bind(last_us)
        .execute(&self.writer)
        .await
        .map_err(at("note a device"))?;
        Ok(())
    }
}
