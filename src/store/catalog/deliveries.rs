//! Where notices go besides sockets: webhooks, and WeChat messages against granted sends.

use schemas::{NotificationId, SessionId, UserId};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::{Catalog, Error, at, get};

/// A webhook.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookRow {
    pub webhook_id: String,
    /// `None`: notices of every user.
    pub user_id: Option<UserId>,
    pub url: String,
    /// Signs what is sent.
    pub secret: String,
    pub created_by: String,
    pub created_at_us: i64,
    pub disabled_at_us: Option<i64>,
}

/// Without the secret.
impl std::fmt::Debug for WebhookRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookRow").field("webhook_id", &self.webhook_id).finish_non_exhaustive()
    }
}

/// A notice that is owed to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRow {
    pub notification_id: NotificationId,
    pub channel: String,
    pub target: String,
    pub attempts: i64,
    pub user_id: UserId,
    pub session_id: SessionId,
    pub payload: String,
    pub created_at_us: i64,
    /// The user has it by a socket, or has read it.
    pub reached: bool,
}

/// What came of an attempt.
#[derive(Clone, Debug)]
pub enum DeliveryOutcome {
    Delivered,
    /// Tried again at this time, µs.
    Again(i64),
    /// Given up, or no longer needed.
    Ended,
}

/// Makes the rows of a notice for each target that it goes to; part of the commit that makes the notice.
pub(super) async fn owe(
    transaction: &mut SqliteConnection,
    notification: &NotificationId,
    user: UserId,
    now_us: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO deliveries (notification_id, channel, target, state, next_attempt_us) \
         SELECT ?1, 'webhook', webhook_id, 'owed', ?3 FROM webhooks \
         WHERE disabled_at_us IS NULL AND (user_id IS NULL OR user_id = ?2)",
    )
    .bind(&*notification.0)
    .bind(user.get())
    .bind(now_us)
    .execute(&mut *transaction)
    .await?;
    // One message a notice, by the grant that is oldest.
    sqlx::query(
        "INSERT INTO deliveries (notification_id, channel, target, state, next_attempt_us) \
         SELECT ?1, 'wechat', template_id, 'owed', ?3 FROM wechat_grants \
         WHERE user_id = ?2 AND spent_at_us IS NULL ORDER BY grant_id LIMIT 1",
    )
    .bind(&*notification.0)
    .bind(user.get())
    .bind(now_us)
    .execute(&mut *transaction)
    .await?;
    Ok(())
}

impl Catalog {
    /// Deliveries that are due, the longest due first, at most `limit`.
    pub async fn due_deliveries(&self, now_us: i64, limit: i64) -> Result<Vec<DeliveryRow>, Error> {
        let rows = sqlx::query(
            "SELECT d.notification_id, d.channel, d.target, d.attempts, o.user_id, o.session_id, o.payload, \
             o.created_at_us, o.delivered_at_us IS NOT NULL FROM deliveries d JOIN outbox o USING (notification_id) \
             WHERE d.state = 'owed' AND d.next_attempt_us <= ? ORDER BY d.next_attempt_us LIMIT ?",
        )
        .bind(now_us)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(at("read due deliveries"))?;
        rows.iter()
            .map(|row| {
                Ok(DeliveryRow {
                    notification_id: NotificationId(get::<String>(row, 0)?.into()),
                    channel: get(row, 1)?,
                    target: get(row, 2)?,
                    attempts: get(row, 3)?,
                    user_id: UserId(get(row, 4)?),
                    session_id: SessionId(get(row, 5)?),
                    payload: get(row, 6)?,
                    created_at_us: get(row, 7)?,
                    reached: get::<i64>(row, 8)? != 0,
                })
            })
            .collect()
    }

    /// Puts a delivery off without counting an attempt.
    pub async fn postpone_delivery(&self, row: &DeliveryRow, until_us: i64) -> Result<(), Error> {
        sqlx::query(
            "UPDATE deliveries SET next_attempt_us = ? WHERE notification_id = ? AND channel = ? AND target = ?",
        )
        .bind(until_us)
        .bind(&*row.notification_id.0)
        .bind(&row.channel)
        .bind(&row.target)
        .execute(&self.writer)
        .await
        .map_err(at("put a delivery off"))?;
        Ok(())
    }

    /// Records an attempt and what came of it, in one commit. `give_back`: the grant that it was made with is not used up.
    pub async fn record_delivery(
        &self,
        row: &DeliveryRow,
        outcome: &DeliveryOutcome,
        word: &str,
        detail: Option<&str>,
        give_back: bool,
        now_us: i64,
    ) -> Result<(), Error> {
        let step = "record a delivery";
        let (state, next_us) = match outcome {
            DeliveryOutcome::Delivered => ("delivered", now_us),
            DeliveryOutcome::Again(at_us) => ("owed", *at_us),
            DeliveryOutcome::Ended => ("failed", now_us),
        };
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        sqlx::query(
            "UPDATE deliveries SET state = ?4, attempts = attempts + 1, next_attempt_us = ?5, \
             done_at_us = CASE WHEN ?4 = 'owed' THEN NULL ELSE ?6 END \
             WHERE notification_id = ?1 AND channel = ?2 AND target = ?3",
        )
        .bind(&*row.notification_id.0)
        .bind(&row.channel)
        .bind(&row.target)
        .bind(state)
        .bind(next_us)
        .bind(now_us)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        sqlx::query(
            "INSERT INTO delivery_attempts (notification_id, channel, target, at_us, outcome, detail) \
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&*row.notification_id.0)
        .bind(&row.channel)
        .bind(&row.target)
        .bind(now_us)
        .bind(word)
        .bind(detail)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        if give_back {
            sqlx::query(
                "UPDATE wechat_grants SET spent_at_us = NULL, notification_id = NULL WHERE notification_id = ?",
            )
            .bind(&*row.notification_id.0)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        }
        transaction.commit().await.map_err(at(step))
    }

    /// Attempts to deliver a notice, the first first: channel, outcome.
    pub async fn delivery_attempts(&self, notification: &NotificationId) -> Result<Vec<(String, String)>, Error> {
        let rows =
            sqlx::query("SELECT channel, outcome FROM delivery_attempts WHERE notification_id = ? ORDER BY attempt_id")
                .bind(&*notification.0)
                .fetch_all(&self.readers)
                .await
                .map_err(at("read attempts"))?;
        rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
    }

    // Webhooks.

    /// Keeps a webhook.
    pub async fn insert_webhook(&self, new: &WebhookRow) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO webhooks (webhook_id, user_id, url, secret, created_by, created_at_us) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&new.webhook_id)
        .bind(new.user_id.map(UserId::get))
        .bind(&new.url)
        .bind(&new.secret)
        .bind(&new.created_by)
        .bind(new.created_at_us)
        .execute(&self.writer)
        .await
        .map_err(at("insert a webhook"))?;
        Ok(())
    }

    /// Webhooks by id; of one user for `Some`.
    pub async fn webhooks(&self, user: Option<UserId>) -> Result<Vec<WebhookRow>, Error> {
        let rows = sqlx::query("SELECT * FROM webhooks WHERE (?1 IS NULL OR user_id = ?1) ORDER BY webhook_id")
            .bind(user.map(UserId::get))
            .fetch_all(&self.readers)
            .await
            .map_err(at("list webhooks"))?;
        rows.iter().map(webhook_row).collect()
    }

    /// One webhook.
    pub async fn webhook(&self, webhook_id: &str) -> Result<Option<WebhookRow>, Error> {
        sqlx::query("SELECT * FROM webhooks WHERE webhook_id = ?")
            .bind(webhook_id)
            .fetch_optional(&self.readers)
            .await
            .map_err(at("read a webhook"))?
            .map(|row| webhook_row(&row))
            .transpose()
    }

    /// Ends a webhook: nothing more goes there. False if there is none that is on.
    pub async fn disable_webhook(&self, webhook_id: &str, now_us: i64) -> Result<bool, Error> {
        let done =
            sqlx::query("UPDATE webhooks SET disabled_at_us = ?2 WHERE webhook_id = ?1 AND disabled_at_us IS NULL")
                .bind(webhook_id)
                .bind(now_us)
                .execute(&self.writer)
                .await
                .map_err(at("disable a webhook"))?;
        Ok(done.rows_affected() > 0)
    }

    // Grants.

    /// Notes that a user granted one message by a template.
    pub async fn insert_grant(&self, user: UserId, template_id: &str, now_us: i64) -> Result<(), Error> {
        sqlx::query("INSERT INTO wechat_grants (user_id, template_id, granted_at_us) VALUES (?, ?, ?)")
            .bind(user.get())
            .bind(template_id)
            .bind(now_us)
            .execute(&self.writer)
            .await
            .map_err(at("insert a grant"))?;
        Ok(())
    }

    /// Grants of a user that are left for a template.
    pub async fn grants_left(&self, user: UserId, template_id: &str) -> Result<i64, Error> {
        let row = sqlx::query(
            "SELECT count(*) FROM wechat_grants WHERE user_id = ? AND template_id = ? AND spent_at_us IS NULL",
        )
        .bind(user.get())
        .bind(template_id)
        .fetch_one(&self.readers)
        .await
        .map_err(at("count grants"))?;
        get(&row, 0)
    }

    /// Takes a grant for a notice: the one that was taken for it before (the process died meanwhile), else the oldest. False
    /// if there is none.
    pub async fn spend_grant(&self, row: &DeliveryRow, now_us: i64) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE wechat_grants SET spent_at_us = ?4, notification_id = ?1 WHERE grant_id = ( \
             SELECT grant_id FROM wechat_grants WHERE user_id = ?2 AND template_id = ?3 \
             AND (spent_at_us IS NULL OR notification_id = ?1) \
             ORDER BY notification_id = ?1 DESC, grant_id LIMIT 1)",
        )
        .bind(&*row.notification_id.0)
        .bind(row.user_id.get())
        .bind(&row.target)
        .bind(now_us)
        .execute(&self.writer)
        .await
        .map_err(at("spend a grant"))?;
        Ok(done.rows_affected() > 0)
    }
}

fn webhook_row(row: &SqliteRow) -> Result<WebhookRow, Error> {
    use sqlx::Row as _;
    fn named<'r, T>(row: &'r SqliteRow, name: &'static str) -> Result<T, Error>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        row.try_get(name).map_err(at("read a webhook"))
    }
    Ok(WebhookRow {
        webhook_id: named(row, "webhook_id")?,
        user_id: named::<Option<i64>>(row, "user_id")?.map(UserId),
        url: named(row, "url")?,
        secret: named(row, "secret")?,
        created_by: named(row, "created_by")?,
        created_at_us: named(row, "created_at_us")?,
        disabled_at_us: named(row, "disabled_at_us")?,
    })
}
