//! What an import takes from another system, and how far it got.
//!
//! Every row that is taken is noted in `imported` in the commit that takes it, so that an import that was killed goes on
//! where it was and a second run takes only what is new.

use schemas::{AnalysisId, DeviceCode, SessionId, SessionStatus, UserId};

use super::labels::insert_labels;
use super::{Catalog, Error, Label, NewSession, Sealed, SessionRow, StoredFile, at, get, parse, session_row};

/// A person of the other system.
#[derive(Clone, Debug)]
pub struct ImportedUser<'a> {
    pub openid: &'a str,
    pub wx_user_id: i64,
    pub framework_user_id: Option<i64>,
    pub created_at_us: i64,
}

/// Which row of which source.
#[derive(Clone, Copy, Debug)]
pub struct NewImport<'a> {
    /// The source database, whatever its file is called.
    pub source: &'a str,
    pub kind: &'static str,
    pub source_id: &'a str,
    pub now_us: i64,
}

/// A session that was claimed for a row of the source.
#[derive(Clone, Debug)]
pub struct Claim {
    pub session: SessionRow,
    /// False if an earlier run had made it.
    pub is_new: bool,
}

/// Figures as the other system stored them.
#[derive(Clone, Debug, Default)]
pub struct ImportedResult {
    /// JSON, as stored.
    pub phase_delay: Option<String>,
    pub energy_ratio: Option<String>,
    /// JSON, as stored.
    pub rom_data: Option<String>,
    pub analyzed_at_us: Option<i64>,
    /// Names of figures that are constants of the other system, separated by spaces.
    pub constants: String,
    /// What is published until our own analysis is done; `None` where that is done, or nothing is to be shown.
    pub shown: Option<ShownResult>,
}

/// See [`ImportedResult::shown`].
#[derive(Clone, Debug)]
pub struct ShownResult {
    pub analysis_id: AnalysisId,
    /// `pipelines::Analysis` as JSON.
    pub analysis: String,
    pub strokes_file: StoredFile,
    pub result_file: StoredFile,
}

/// All that becomes true of an imported session at once.
#[derive(Clone, Debug)]
pub struct ImportedSession<'a> {
    pub source: &'a str,
    pub source_id: &'a str,
    pub session_id: SessionId,
    /// The sealed file, if there are new frames.
    pub sealed: Option<&'a Sealed>,
    /// The last row of the source that was read for it.
    pub newest_frame: i64,
    pub status: SessionStatus,
    pub reason: Option<&'a str>,
    pub ended_at_us: Option<i64>,
    pub result: Option<&'a ImportedResult>,
    pub labels: &'a [Label],
    pub now_us: i64,
}

impl Catalog {
    /// What a row of a source became.
    pub async fn imported(&self, source: &str, kind: &str, source_id: &str) -> Result<Option<i64>, Error> {
        sqlx::query("SELECT our_id FROM imported WHERE source = ? AND kind = ? AND source_id = ?")
            .bind(source)
            .bind(kind)
            .bind(source_id)
            .fetch_optional(&self.readers)
            .await
            .map_err(at("look an import up"))?
            .map(|row| {
                let text: String = get(&row, 0)?;
                parse("our_id", &text)
            })
            .transpose()
    }

    /// True if the session came from another system.
    pub async fn is_imported(&self, session: SessionId) -> Result<bool, Error> {
        let row = sqlx::query("SELECT 1 FROM sessions WHERE session_id = ? AND origin IS NOT NULL")
            .bind(session.get())
            .fetch_optional(&self.readers)
            .await
            .map_err(at("read the origin of a session"))?;
        Ok(row.is_some())
    }

    /// Makes new users and sessions get numbers above these, so that those of the other system stay free for it.
    pub async fn reserve_numbers(&self, newest_user: i64, newest_session: i64) -> Result<(), Error> {
        let step = "reserve numbers";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        for (table, number) in [("users", newest_user), ("sessions", newest_session)] {
            sqlx::query("INSERT INTO sqlite_sequence (name, seq) SELECT ?1, 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?1)")
                .bind(table)
                .execute(&mut *transaction)
                .await
                .map_err(at(step))?;
            sqlx::query("UPDATE sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1")
                .bind(table)
                .bind(number)
                .execute(&mut *transaction)
                .await
                .map_err(at(step))?;
        }
        transaction.commit().await.map_err(at(step))
    }

    /// Takes a person: the user with this openid learns the numbers of the other system, or is made, under the
    /// framework's number where that is free.
    pub async fn import_user(&self, import: NewImport<'_>, user: &ImportedUser<'_>) -> Result<UserId, Error> {
        let step = "import a user";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        sqlx::query(
            "INSERT INTO users (user_id, openid, created_at_us) \
             VALUES ((SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM users WHERE user_id = ?1)), ?2, ?3) \
             ON CONFLICT (openid) DO NOTHING",
        )
        .bind(user.framework_user_id)
        .bind(user.openid)
        .bind(user.created_at_us)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        sqlx::query(
            "UPDATE users SET wx_user_id = coalesce(wx_user_id, \
             (SELECT ?2 WHERE NOT EXISTS (SELECT 1 FROM users WHERE wx_user_id = ?2))), \
             framework_user_id = coalesce(framework_user_id, \
             (SELECT ?3 WHERE NOT EXISTS (SELECT 1 FROM users WHERE framework_user_id = ?3))) WHERE openid = ?1",
        )
        .bind(user.openid)
        .bind(user.wx_user_id)
        .bind(user.framework_user_id)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        let row = sqlx::query("SELECT user_id FROM users WHERE openid = ?")
            .bind(user.openid)
            .fetch_one(&mut *transaction)
            .await
            .map_err(at(step))?;
        let user_id = UserId(get(&row, 0)?);
        note(&mut transaction, import, user_id.get()).await?;
        transaction.commit().await.map_err(at(step))?;
        Ok(user_id)
    }

    /// Takes a binding; one that is there already stays.
    pub async fn import_binding(
        &self,
        import: NewImport<'_>,
        user: UserId,
        device: &DeviceCode,
        bound_at_us: i64,
    ) -> Result<(), Error> {
        let step = "import a binding";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        sqlx::query(
            "INSERT INTO bindings (user_id, device_code, created_at_us) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(user.get())
        .bind(device.as_str())
        .bind(bound_at_us)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        note(&mut transaction, import, user.get()).await?;
        transaction.commit().await.map_err(at(step))
    }

    /// Takes a device group, with the one member that its code names.
    pub async fn import_group(
        &self,
        import: NewImport<'_>,
        group_code: &str,
        device: Option<&DeviceCode>,
        made_at_us: i64,
    ) -> Result<(), Error> {
        let step = "import a group";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        sqlx::query("INSERT INTO device_groups (group_code, created_at_us) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(group_code)
            .bind(made_at_us)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        if let Some(device) = device {
            sqlx::query(
                "INSERT INTO device_group_members (group_code, device_code, created_at_us) VALUES (?, ?, ?) \
                 ON CONFLICT DO NOTHING",
            )
            .bind(group_code)
            .bind(device.as_str())
            .bind(made_at_us)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        }
        note(&mut transaction, import, 0).await?;
        transaction.commit().await.map_err(at(step))
    }

    /// Takes a text that a form sent.
    pub async fn import_entry(
        &self,
        import: NewImport<'_>,
        kind: &str,
        content: &str,
        sent_at_us: i64,
    ) -> Result<(), Error> {
        let step = "import a form entry";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        let row =
            sqlx::query("INSERT INTO form_entries (kind, content, created_at_us) VALUES (?, ?, ?) RETURNING entry_id")
                .bind(kind)
                .bind(content)
                .bind(sent_at_us)
                .fetch_one(&mut *transaction)
                .await
                .map_err(at(step))?;
        let entry = get(&row, 0)?;
        note(&mut transaction, import, entry).await?;
        transaction.commit().await.map_err(at(step))
    }

    /// The session that a row of the source becomes, made closed and empty at the first time: under the number that is
    /// wanted if it is free. `origin` says where it comes from. Its frames come with [`Catalog::finish_import`].
    pub async fn claim_session(
        &self,
        import: NewImport<'_>,
        origin: &str,
        wanted: Option<SessionId>,
        new: &NewSession,
    ) -> Result<Claim, Error> {
        if let Some(number) = self.imported(import.source, import.kind, import.source_id).await?
            && let Some(session) = self.session(SessionId(number)).await?
        {
            return Ok(Claim { session, is_new: false });
        }
        let step = "import a session";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        let row = sqlx::query(
            "INSERT INTO sessions (session_id, kind, device_code, group_code, user_id, status, reason, started_at_us, \
             changed_at_us, claimed_id, closed, origin) \
             VALUES ((SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM sessions WHERE session_id = ?1)), \
             ?2, ?3, ?4, ?5, 'stopped', 'its import is not finished', ?6, ?7, ?8, 1, ?9) RETURNING *",
        )
        .bind(wanted.map(SessionId::get))
        .bind(new.kind.as_str())
        .bind(new.device_code.as_str())
        .bind(&new.group_code)
        .bind(new.user_id.map(UserId::get))
        .bind(new.started_at_us)
        .bind(import.now_us)
        .bind(new.claimed_id.as_deref())
        .bind(origin)
        .fetch_one(&mut *transaction)
        .await
        .map_err(at(step))?;
        let session = session_row(&row)?;
        note(&mut transaction, import, session.session_id.get()).await?;
        transaction.commit().await.map_err(at(step))?;
        Ok(Claim { session, is_new: true })
    }

    /// The number under which the other system's figures of a session are published, made at the first time.
    pub async fn imported_analysis(&self, session: SessionId, now_us: i64) -> Result<AnalysisId, Error> {
        let step = "number an imported result";
        sqlx::query(
            "INSERT INTO jobs (session_id, revision, state, created_at_us, background) VALUES (?, 0, 'done', ?, 1) \
             ON CONFLICT DO NOTHING",
        )
        .bind(session.get())
        .bind(now_us)
        .execute(&self.writer)
        .await
        .map_err(at(step))?;
        let row = sqlx::query("SELECT job_id FROM jobs WHERE session_id = ? AND revision = 0")
            .bind(session.get())
            .fetch_one(&self.writer)
            .await
            .map_err(at(step))?;
        Ok(AnalysisId(get(&row, 0)?))
    }

    /// Commits an imported session: file, job, the other system's figures, labels, and how far the source was read.
    pub async fn finish_import(&self, done: &ImportedSession<'_>) -> Result<(), Error> {
        let step = "finish the import of a session";
        let session = done.session_id.get();
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        if let Some(sealed) = done.sealed {
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
                "INSERT INTO jobs (session_id, revision, state, created_at_us, background) \
                 VALUES (?, ?, 'queued', ?, 1) ON CONFLICT DO NOTHING",
            )
            .bind(session)
            .bind(sealed.revision)
            .bind(done.now_us)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        }
        sqlx::query(
            "UPDATE sessions SET status = ?2, reason = ?3, ended_at_us = ?4, changed_at_us = ?5 WHERE session_id = ?1",
        )
        .bind(session)
        .bind(done.status.as_str())
        .bind(done.reason)
        .bind(done.ended_at_us)
        .bind(done.now_us)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        let import = |kind| NewImport { source: done.source, kind, source_id: done.source_id, now_us: done.now_us };
        if let Some(result) = done.result {
            insert_result(&mut transaction, done, result).await?;
            note(&mut transaction, import("result"), session).await?;
        }
        insert_labels(&mut transaction, step, session, done.labels).await?;
        note(&mut transaction, import("frames"), done.newest_frame).await?;
        transaction.commit().await.map_err(at(step))
    }
}

async fn insert_result(
    transaction: &mut sqlx::SqliteTransaction<'_>,
    done: &ImportedSession<'_>,
    result: &ImportedResult,
) -> Result<(), Error> {
    let step = "import a result";
    sqlx::query(
        "INSERT OR REPLACE INTO imported_results (session_id, source, phase_delay, energy_ratio, rom_data, \
         analyzed_at_us, constants) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(done.session_id.get())
    .bind(done.source)
    .bind(&result.phase_delay)
    .bind(&result.energy_ratio)
    .bind(&result.rom_data)
    .bind(result.analyzed_at_us)
    .bind(&result.constants)
    .execute(&mut **transaction)
    .await
    .map_err(at(step))?;
    let Some(shown) = &result.shown else { return Ok(()) };
    sqlx::query(
        "INSERT INTO results (session_id, analysis_id, revision, created_at_us, analysis, strokes_path, \
         strokes_bytes, result_path, result_bytes) VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(done.session_id.get())
    .bind(shown.analysis_id.get())
    .bind(result.analyzed_at_us.unwrap_or(done.now_us))
    .bind(&shown.analysis)
    .bind(&shown.strokes_file.path)
    .bind(shown.strokes_file.bytes)
    .bind(&shown.result_file.path)
    .bind(shown.result_file.bytes)
    .execute(&mut **transaction)
    .await
    .map_err(at(step))?;
    Ok(())
}

async fn note(transaction: &mut sqlx::SqliteTransaction<'_>, import: NewImport<'_>, our_id: i64) -> Result<(), Error> {
    sqlx::query("INSERT OR REPLACE INTO imported (source, kind, source_id, our_id, at_us) VALUES (?, ?, ?, ?, ?)")
        .bind(import.source)
        .bind(import.kind)
        .bind(import.source_id)
        .bind(our_id.to_string())
        .bind(import.now_us)
        .execute(&mut **transaction)
        .await
        .map_err(at("note an import"))?;
    Ok(())
}
