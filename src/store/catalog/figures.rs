//! What later sessions of a player are compared with.

use schemas::{SessionId, UserId};

use super::{Catalog, Error, at, get};

/// What of a published analysis is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    pub session_id: SessionId,
    /// When the analysis was published, µs since 1970 UTC.
    pub analysed_at_us: i64,
    /// As the analysis room keeps them; `None`: not yet.
    pub figures: Option<String>,
    /// What they are made of, if they are not kept yet.
    pub analysis: Option<String>,
}

impl Catalog {
    /// Of the latest published analyses of a player before a session, the newest first.
    pub async fn earlier_figures(&self, user: UserId, before: SessionId, limit: i64) -> Result<Vec<Figures>, Error> {
        let rows = sqlx::query(
            "SELECT r.session_id, r.created_at_us, f.figures, CASE WHEN f.figures IS NULL THEN r.analysis END \
             FROM results r JOIN sessions s USING (session_id) LEFT JOIN stroke_figures f \
             ON f.session_id = r.session_id AND f.analysed_at_us = r.created_at_us \
             WHERE s.user_id = ? AND r.session_id < ? ORDER BY r.session_id DESC LIMIT ?",
        )
        .bind(user.get())
        .bind(before.get())
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(at("read earlier figures"))?;
        rows.iter()
            .map(|row| {
                Ok(Figures {
                    session_id: SessionId(get(row, 0)?),
                    analysed_at_us: get(row, 1)?,
                    figures: get(row, 2)?,
                    analysis: get(row, 3)?,
                })
            })
            .collect()
    }

    /// Keeps figures of analyses that are still published.
    pub async fn keep_figures(&self, made: &[Figures]) -> Result<(), Error> {
        let step = "keep figures";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        for figures in made {
            sqlx::query(
                "INSERT OR REPLACE INTO stroke_figures (session_id, analysed_at_us, figures) \
                 SELECT session_id, created_at_us, ?3 FROM results WHERE session_id = ?1 AND created_at_us = ?2",
            )
            .bind(figures.session_id.get())
            .bind(figures.analysed_at_us)
            .bind(&figures.figures)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        }
        transaction.commit().await.map_err(at(step))
    }
}
