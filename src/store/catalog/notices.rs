//! Notices as their player looks back on them.

use schemas::{AnalysisId, NotificationId, SessionId, UserId};

use super::{Catalog, Error, at, get};

/// A notice, delivered or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub notification_id: NotificationId,
    pub session_id: SessionId,
    pub analysis_id: AnalysisId,
    pub payload: String,
    pub created_at_us: i64,
    pub delivered_at_us: Option<i64>,
}

/// How a notice fares on one of its channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeOnChannel {
    pub notification_id: String,
    /// `socket`, or the channel of its `deliveries`.
    pub channel: String,
    pub user_id: UserId,
    pub session_id: SessionId,
    pub analysis_id: AnalysisId,
    pub created_at_us: i64,
    /// `owed`, `delivered` or `failed`.
    pub state: String,
    pub attempts: i64,
    pub done_at_us: Option<i64>,
}

impl Catalog {
    /// Every notice on every channel, for the SQL table.
    pub async fn notices_by_channel(&self) -> Result<Vec<NoticeOnChannel>, Error> {
        let rows = sqlx::query(
            "SELECT notification_id, 'socket', user_id, session_id, analysis_id, created_at_us, \
             CASE WHEN delivered_at_us IS NULL THEN 'owed' ELSE 'delivered' END, attempts, delivered_at_us FROM outbox \
             UNION ALL SELECT d.notification_id, d.channel, o.user_id, o.session_id, o.analysis_id, o.created_at_us, \
             d.state, d.attempts, d.done_at_us FROM deliveries d JOIN outbox o USING (notification_id)",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(at("list notices by channel"))?;
        rows.iter()
            .map(|row| {
                Ok(NoticeOnChannel {
                    notification_id: get(row, 0)?,
                    channel: get(row, 1)?,
                    user_id: UserId(get(row, 2)?),
                    session_id: SessionId(get(row, 3)?),
                    analysis_id: AnalysisId(get(row, 4)?),
                    created_at_us: get(row, 5)?,
                    state: get(row, 6)?,
                    attempts: get(row, 7)?,
                    done_at_us: get(row, 8)?,
                })
            })
            .collect()
    }

    /// The notices of a user with ids after one, the oldest first, at most `limit`.
    pub async fn notices_since(&self, user: UserId, after: &str, limit: i64) -> Result<Vec<Notice>, Error> {
        let rows = sqlx::query(
            "SELECT notification_id, session_id, analysis_id, payload, created_at_us, delivered_at_us FROM outbox \
             WHERE user_id = ? AND notification_id > ? ORDER BY notification_id LIMIT ?",
        )
        .bind(user.get())
        .bind(after)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(at("list notices"))?;
        rows.iter()
            .map(|row| {
                Ok(Notice {
                    notification_id: NotificationId(get::<String>(row, 0)?.into()),
                    session_id: SessionId(get(row, 1)?),
                    analysis_id: AnalysisId(get(row, 2)?),
                    payload: get(row, 3)?,
                    created_at_us: get(row, 4)?,
                    delivered_at_us: get(row, 5)?,
                })
            })
            .collect()
    }

    /// Notes that a user has read a notice; false if it is none of theirs.
    pub async fn acknowledge_notice(&self, user: UserId, id: &str, now_us: i64) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE outbox SET delivered_at_us = coalesce(delivered_at_us, ?3) \
             WHERE notification_id = ?1 AND user_id = ?2",
        )
        .bind(id)
        .bind(user.get())
        .bind(now_us)
        .execute(&self.writer)
        .await
        .map_err(at("acknowledge a notice"))?;
        Ok(done.rows_affected() > 0)
    }
}
