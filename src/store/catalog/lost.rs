//! Sessions that the catalog has lost, made again from what the log and the files hold of them.

use schemas::SessionId;

use super::{Catalog, Error, NewSession, Sealed, SessionRow, at, session_row};

impl Catalog {
    /// Makes a session under a given number: frames of it were found in the log, but the catalog had lost it.
    pub async fn insert_lost_session(&self, session: SessionId, new: &NewSession) -> Result<SessionRow, Error> {
        let row = sqlx::query(
            "INSERT INTO sessions (session_id, kind, device_code, group_code, status, started_at_us, changed_at_us) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) RETURNING *",
        )
        .bind(session.get())
        .bind(new.kind.as_str())
        .bind(new.device_code.as_str())
        .bind(&new.group_code)
        .bind(new.status.as_str())
        .bind(new.started_at_us)
        .fetch_one(&self.writer)
        .await
        .map_err(at("insert a lost session"))?;
        session_row(&row)
    }

    /// Makes a session under a given number for a sealed file that was found without one, and the job of analysing it;
    /// `closed` if the write-ahead log has nothing to add. One commit, so that no start takes it for a session whose
    /// frames are still to be sealed.
    pub async fn insert_found_session(
        &self,
        new: &NewSession,
        sealed: &Sealed,
        closed: bool,
        now_us: i64,
    ) -> Result<(), Error> {
        let step = "insert the session of a found file";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        sqlx::query(
            "INSERT INTO sessions (session_id, kind, device_code, group_code, status, started_at_us, changed_at_us, \
             revision, sealed_rows, frames_path, frames_bytes, frames_sha256, sync_error_ns, closed) \
             VALUES (?, ?, ?, ?, 'analyzing', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(sealed.session_id.get())
        .bind(new.kind.as_str())
        .bind(new.device_code.as_str())
        .bind(&new.group_code)
        .bind(new.started_at_us)
        .bind(now_us)
        .bind(sealed.revision)
        .bind(sealed.rows)
        .bind(&sealed.path)
        .bind(sealed.bytes)
        .bind(&sealed.sha256)
        .bind(sealed.sync_error_ns)
        .bind(i64::from(closed))
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        sqlx::query("INSERT INTO jobs (session_id, revision, state, created_at_us) VALUES (?, ?, 'queued', ?)")
            .bind(sealed.session_id.get())
            .bind(sealed.revision)
            .bind(now_us)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        transaction.commit().await.map_err(at(step))
    }
}
