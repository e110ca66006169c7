//! What people say was played: labels of swings, kept with their session.

use schemas::{SessionId, UserId};
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::{Catalog, Error, at, get};

/// Two labels of a session that are nearer than this name the same swing: nobody hits twice in a quarter of a second.
pub const SAME_SWING_NS: i64 = 250_000_000;

/// A swing and what it was. Times are ns since session start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// The impact, or the peak of the swing.
    pub impact_ns: i64,
    pub start_ns: Option<i64>,
    pub end_ns: Option<i64>,
    /// Of whatever vocabulary; [`pipelines::OTHER`] says that there was no stroke.
    pub stroke: String,
    /// As in a recording set; see [`pipelines::MarkQuality::from_name`].
    pub quality: String,
    /// `player`, `admin`, `key` or `import`.
    pub labelled_by: String,
    pub labelled_at_us: i64,
}

/// A label and whose swing it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRow {
    pub session_id: SessionId,
    pub user_id: Option<UserId>,
    pub label: Label,
}

/// What happens to the labels around an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relabel {
    /// This one takes the place of those that name the same swing.
    Put(Label),
    /// Those that name the swing at this time, ns since session start, are taken back.
    TakeBack(i64),
}

impl Catalog {
    /// The labels of a session in the order of time.
    pub async fn labels(&self, session: SessionId) -> Result<Vec<Label>, Error> {
        let rows = self.label_rows("WHERE l.session_id = ? ORDER BY l.impact_ns", Some(session.get())).await?;
        Ok(rows.into_iter().map(|row| row.label).collect())
    }

    /// The labels of a player's sessions, those of the newest session first.
    pub async fn labels_of(&self, user: UserId) -> Result<Vec<LabelRow>, Error> {
        let newest_first = "WHERE s.user_id = ? ORDER BY s.started_at_us DESC, l.session_id DESC, l.impact_ns";
        self.label_rows(newest_first, Some(user.get())).await
    }

    /// All labels, session by session.
    pub async fn all_labels(&self) -> Result<Vec<LabelRow>, Error> {
        self.label_rows("ORDER BY l.session_id, l.impact_ns", None).await
    }

    /// None in a catalog of an earlier version that is only read.
    async fn label_rows(&self, which: &'static str, number: Option<i64>) -> Result<Vec<LabelRow>, Error> {
        let step = "read labels";
        let known =
            sqlx::query("SELECT 1 FROM sqlite_master WHERE name = 'labels'").fetch_optional(&self.readers).await;
        if known.map_err(at(step))?.is_none() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT l.session_id, s.user_id, l.impact_ns, l.start_ns, l.end_ns, l.stroke, l.quality, l.labelled_by, \
             l.labelled_at_us FROM labels l JOIN sessions s USING (session_id) {which}"
        )));
        let rows = rows.bind(number).fetch_all(&self.readers).await.map_err(at(step))?;
        rows.iter().map(label_row).collect()
    }

    /// Changes labels of a session, all or none; false if there is no such session.
    pub async fn relabel(&self, session: SessionId, changes: &[Relabel]) -> Result<bool, Error> {
        let step = "label swings";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        let known = sqlx::query("SELECT 1 FROM sessions WHERE session_id = ?")
            .bind(session.get())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(at(step))?;
        if known.is_none() {
            return Ok(false);
        }
        for change in changes {
            let (Relabel::Put(Label { impact_ns, .. }) | Relabel::TakeBack(impact_ns)) = change;
            sqlx::query("DELETE FROM labels WHERE session_id = ?1 AND abs(impact_ns - ?2) < ?3")
                .bind(session.get())
                .bind(impact_ns)
                .bind(SAME_SWING_NS)
                .execute(&mut *transaction)
                .await
                .map_err(at(step))?;
            if let Relabel::Put(label) = change {
                insert_labels(&mut transaction, step, session.get(), std::slice::from_ref(label)).await?;
            }
        }
        transaction.commit().await.map_err(at(step))?;
        Ok(true)
    }
}

/// Adds labels that come with a session; those that are there stay.
pub(super) async fn insert_labels(
    connection: &mut SqliteConnection,
    step: &'static str,
    session: i64,
    labels: &[Label],
) -> Result<(), Error> {
    for label in labels {
        sqlx::query(
            "INSERT INTO labels (session_id, impact_ns, start_ns, end_ns, stroke, quality, labelled_by, labelled_at_us) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(session)
        .bind(label.impact_ns)
        .bind(label.start_ns)
        .bind(label.end_ns)
        .bind(&label.stroke)
        .bind(&label.quality)
        .bind(&label.labelled_by)
        .bind(label.labelled_at_us)
        .execute(&mut *connection)
        .await
        .map_err(at(step))?;
    }
    Ok(())
}

fn label_row(row: &SqliteRow) -> Result<LabelRow, Error> {
    Ok(LabelRow {
        session_id: SessionId(get(row, 0)?),
        user_id: get::<Option<i64>>(row, 1)?.map(UserId),
        label: Label {
            impact_ns: get(row, 2)?,
            start_ns: get(row, 3)?,
            end_ns: get(row, 4)?,
            stroke: get(row, 5)?,
            quality: get(row, 6)?,
            labelled_by: get(row, 7)?,
            labelled_at_us: get(row, 8)?,
        },
    })
}
