//! Analyses by other pipelines, side by side with the published ones.

use schemas::SessionId;
use sqlx::sqlite::SqliteRow;

use super::{Catalog, Error, StoredFile, at, get};

/// Which sessions are ordered: those that all given conditions hold for.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// Without numbers, all.
    pub session_ids: Vec<SessionId>,
    pub user_id: Option<i64>,
    pub device_code: Option<String>,
}

/// An order that a worker has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateJob {
    pub session_id: SessionId,
    pub pipeline: String,
    pub definition_sha256: String,
    pub attempts: i64,
    /// The answer is there and is to take the published one's place.
    pub switches: bool,
}

/// A candidate without its analysis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateRow {
    pub session_id: SessionId,
    pub pipeline: String,
    pub definition_sha256: String,
    /// Of the frames that were analysed.
    pub revision: Option<i64>,
    /// `queued`, `running`, `done`, `switching` or `failed`.
    pub state: String,
    pub error: Option<String>,
    pub ordered_at_us: i64,
    pub created_at_us: Option<i64>,
    pub published_at_us: Option<i64>,
}

/// A candidate that is about to be published.
#[derive(Clone, Debug)]
pub struct Switch {
    pub job: CandidateJob,
    pub revision: i64,
    pub created_at_us: i64,
    pub strokes_file: StoredFile,
    pub result_file: StoredFile,
}

const COLUMNS: &str =
    "session_id, pipeline, definition_sha256, revision, state, error, ordered_at_us, created_at_us, published_at_us";

impl Catalog {
    /// Orders analyses of sealed sessions by a pipeline; how many are new. What is done already with this definition and
    /// these frames stays as it is, so that an order may be repeated to go on with it; an answer of an older definition or of
    /// older frames is forgotten.
    pub async fn order_candidates(
        &self,
        pipeline: &str,
        definition_sha256: &str,
        order: &Order,
        now_us: i64,
    ) -> Result<u64, Error> {
        let numbers: Vec<i64> = order.session_ids.iter().map(|session| session.get()).collect();
        let numbers = serde_json::to_string(&numbers).unwrap_or_default();
        let done = sqlx::query(
            "INSERT INTO candidates (session_id, pipeline, definition_sha256, state, ordered_at_us) \
             SELECT session_id, ?1, ?2, 'queued', ?3 FROM sessions WHERE revision > 0 \
             AND (?4 = '[]' OR session_id IN (SELECT value FROM json_each(?4))) \
             AND (?5 IS NULL OR user_id = ?5) AND (?6 IS NULL OR device_code = ?6) \
             ON CONFLICT (pipeline, session_id) DO UPDATE SET definition_sha256 = excluded.definition_sha256, \
             state = 'queued', attempts = 0, error = NULL, ordered_at_us = excluded.ordered_at_us, lease_owner = NULL, \
             revision = NULL, created_at_us = NULL, analysis = NULL \
             WHERE candidates.state <> 'switching' AND (candidates.state = 'failed' \
             OR candidates.definition_sha256 <> excluded.definition_sha256 OR (candidates.state = 'done' AND candidates.revision < \
             (SELECT s.revision FROM sessions s WHERE s.session_id = candidates.session_id)))",
        )
        .bind(pipeline)
        .bind(definition_sha256)
        .bind(now_us)
        .bind(numbers)
        .bind(order.user_id)
        .bind(order.device_code.as_deref())
        .execute(&self.writer)
        .await
        .map_err(at("order analyses"))?;
        Ok(done.rows_affected())
    }

    /// Takes back the orders of a pipeline that nobody has begun; how many those were.
    pub async fn cancel_candidates(&self, pipeline: &str) -> Result<u64, Error> {
        let done = sqlx::query("DELETE FROM candidates WHERE pipeline = ? AND state = 'queued'")
            .bind(pipeline)
            .execute(&self.writer)
            .await
            .map_err(at("take orders back"))?;
        Ok(done.rows_affected())
    }

    /// Takes the next order for a worker, also one whose worker died.
    pub async fn lease_candidate(
        &self,
        owner: &str,
        now_us: i64,
        until_us: i64,
    ) -> Result<Option<CandidateJob>, Error> {
        let row = sqlx::query(
            "UPDATE candidates SET state = CASE state WHEN 'switching' THEN state ELSE 'running' END, \
             lease_owner = ?1, lease_until_us = ?3, attempts = attempts + 1 \
             WHERE rowid = (SELECT rowid FROM candidates WHERE state = 'queued' OR (state IN ('running', 'switching') \
             AND (lease_owner IS NULL OR lease_until_us < ?2 OR lease_owner = ?1)) \
             ORDER BY ordered_at_us, session_id LIMIT 1) \
             RETURNING session_id, pipeline, definition_sha256, attempts, state",
        )
        .bind(owner)
        .bind(now_us)
        .bind(until_us)
        .fetch_optional(&self.writer)
        .await
        .map_err(at("take an order"))?;
        row.map(|row| {
            Ok(CandidateJob {
                session_id: SessionId(get(&row, 0)?),
                pipeline: get(&row, 1)?,
                definition_sha256: get(&row, 2)?,
                attempts: get(&row, 3)?,
                switches: get::<String>(&row, 4)? == "switching",
            })
        })
        .transpose()
    }

    /// Notes the answer to an order; false if the order was changed or taken back meanwhile.
    pub async fn finish_candidate(
        &self,
        job: &CandidateJob,
        revision: i64,
        analysis: &str,
        now_us: i64,
    ) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE candidates SET state = 'done', revision = ?4, analysis = ?5, created_at_us = ?6, error = NULL, \
             lease_owner = NULL, published_at_us = NULL WHERE pipeline = ?1 AND session_id = ?2 AND definition_sha256 = ?3 AND state = 'running'",
        )
        .bind(&job.pipeline)
        .bind(job.session_id.get())
        .bind(&job.definition_sha256)
        .bind(revision)
        .bind(analysis)
        .bind(now_us)
        .execute(&self.writer)
        .await
        .map_err(at("note an analysis"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Notes that an order failed, for good or until the next try.
    pub async fn fail_candidate(&self, job: &CandidateJob, error: &str, for_good: bool) -> Result<(), Error> {
        sqlx::query(
            "UPDATE candidates SET state = ?4, error = ?5, lease_owner = NULL \
             WHERE pipeline = ?1 AND session_id = ?2 AND definition_sha256 = ?3 AND state IN ('running', 'switching')",
        )
        .bind(&job.pipeline)
        .bind(job.session_id.get())
        .bind(&job.definition_sha256)
        .bind(match (job.switches, for_good) {
            (true, true) => "done",
            (true, false) => "switching",
            (false, true) => "failed",
            (false, false) => "queued",
        })
        .bind(error)
        .execute(&self.writer)
        .await
        .map_err(at("note a failure"))?;
        Ok(())
    }

    /// The candidates of a pipeline by session, those after `after`.
    pub async fn candidates_of_pipeline(
        &self,
        pipeline: &str,
        after: SessionId,
        limit: i64,
    ) -> Result<Vec<CandidateRow>, Error> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM candidates WHERE pipeline = ? AND session_id > ? ORDER BY session_id LIMIT ?"
        )))
        .bind(pipeline)
        .bind(after.get())
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(at("list candidates"))?;
        rows.iter().map(row).collect()
    }

    /// How many candidates of a pipeline are in each state.
    pub async fn candidate_counts(&self, pipeline: &str) -> Result<Vec<(String, i64)>, Error> {
        let rows =
            sqlx::query("SELECT state, count(*) FROM candidates WHERE pipeline = ? GROUP BY state ORDER BY state")
                .bind(pipeline)
                .fetch_all(&self.readers)
                .await
                .map_err(at("count candidates"))?;
        rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
    }

    /// The candidates of a session, by pipeline.
    pub async fn candidates_of_session(&self, session: SessionId) -> Result<Vec<CandidateRow>, Error> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM candidates WHERE session_id = ? ORDER BY pipeline"
        )))
        .bind(session.get())
        .fetch_all(&self.readers)
        .await
        .map_err(at("list candidates"))?;
        rows.iter().map(row).collect()
    }

    /// A candidate and its analysis, if it is done.
    pub async fn candidate(
        &self,
        session: SessionId,
        pipeline: &str,
    ) -> Result<Option<(CandidateRow, Option<String>)>, Error> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS}, analysis FROM candidates WHERE session_id = ? AND pipeline = ?"
        )))
        .bind(session.get())
        .bind(pipeline)
        .fetch_optional(&self.readers)
        .await
        .map_err(at("read a candidate"))?
        .map(|found| Ok((row(&found)?, get(&found, 9)?)))
        .transpose()
    }

    /// Orders that candidates take the place of the published results: those of a pipeline that are done and of the frames
    /// that are published, of one session or of all; how many.
    pub async fn order_switches(&self, pipeline: &str, session: Option<SessionId>) -> Result<u64, Error> {
        let done = sqlx::query(
            "UPDATE candidates SET state = 'switching', attempts = 0, error = NULL, lease_owner = NULL \
             WHERE pipeline = ?1 AND (?2 IS NULL OR session_id = ?2) AND state = 'done' AND published_at_us IS NULL \
             AND revision = (SELECT r.revision FROM results r WHERE r.session_id = candidates.session_id)",
        )
        .bind(pipeline)
        .bind(session.map(SessionId::get))
        .execute(&self.writer)
        .await
        .map_err(at("order a switch of results"))?;
        Ok(done.rows_affected())
    }

    /// Puts a candidate in the place of the published result; false if the session was sealed anew meanwhile, or has no
    /// result. The number of the analysis stays: it is still the one analysis of these frames that the player sees.
    pub async fn switch_result(&self, switch: &Switch) -> Result<bool, Error> {
        let step = "switch a result";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        let done = sqlx::query(
            "UPDATE results SET analysis = (SELECT c.analysis FROM candidates c WHERE c.session_id = ?1 AND \
             c.pipeline = ?3), created_at_us = ?4, strokes_path = ?5, strokes_bytes = ?6, result_path = ?7, \
             result_bytes = ?8 WHERE session_id = ?1 AND revision = ?2",
        )
        .bind(switch.job.session_id.get())
        .bind(switch.revision)
        .bind(&switch.job.pipeline)
        .bind(switch.created_at_us)
        .bind(&switch.strokes_file.path)
        .bind(switch.strokes_file.bytes)
        .bind(&switch.result_file.path)
        .bind(switch.result_file.bytes)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        let switched = done.rows_affected() > 0;
        // What another pipeline had published is not published any more.
        sqlx::query(
            "UPDATE candidates SET published_at_us = CASE WHEN pipeline = ?2 AND ?3 THEN ?4 END, \
             state = CASE WHEN pipeline = ?2 THEN 'done' ELSE state END, lease_owner = NULL \
             WHERE session_id = ?1 AND (pipeline = ?2 OR (?3 AND published_at_us IS NOT NULL))",
        )
        .bind(switch.job.session_id.get())
        .bind(&switch.job.pipeline)
        .bind(switched)
        .bind(switch.created_at_us)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        transaction.commit().await.map_err(at(step))?;
        Ok(switched)
    }
}

fn row(row: &SqliteRow) -> Result<CandidateRow, Error> {
    Ok(CandidateRow {
        session_id: SessionId(get(row, 0)?),
        pipeline: get(row, 1)?,
        definition_sha256: get(row, 2)?,
        revision: get(row, 3)?,
        state: get(row, 4)?,
        error: get(row, 5)?,
        ordered_at_us: get(row, 6)?,
        created_at_us: get(row, 7)?,
        published_at_us: get(row, 8)?,
    })
}

#[cfg(test)]
mod tests {
    use schemas::SessionStatus;

    use super::*;
    use crate::store::catalog::{NewSession, Sealed, SessionKind};

    #[tokio::test]
    async fn an_order_is_done_once_changed_and_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog.sqlite")).await.unwrap();
        let new = NewSession {
            kind: SessionKind::Session,
            device_code: "d".parse().unwrap(),
            group_code: "d".to_owned(),
            claimed_id: None,
            user_id: None,
            status: SessionStatus::Analyzing,
            started_at_us: 0,
        };
        let session = catalog.insert_session(&new).await.unwrap().session_id;
        let order = Order::default();
        let ordered = async |sha: &str| catalog.order_candidates("p", sha, &order, 1).await.unwrap();
        assert_eq!(ordered("a").await, 0, "it is not sealed");
        let sealed = Sealed {
            session_id: session,
            revision: 1,
            rows: 1,
            path: "frames/date=1970-01-01/1.parquet".to_owned(),
            bytes: 1,
            sha256: String::new(),
            sync_error_ns: 0,
        };
        catalog.commit_seal(&sealed, 1).await.unwrap();
        assert_eq!((ordered("a").await, ordered("a").await), (1, 0));
        let job = catalog.lease_candidate("w", 2, 3).await.unwrap().unwrap();
        assert!(catalog.lease_candidate("other", 2, 3).await.unwrap().is_none(), "it is leased");
        assert!(catalog.finish_candidate(&job, 1, "{}", 2).await.unwrap());
        assert_eq!(ordered("a").await, 0, "it is done");

        // A changed definition forgets the answer of the old one, also if the order is taken back.
        assert_eq!(ordered("b").await, 1);
        let (row, analysis) = catalog.candidate(session, "p").await.unwrap().unwrap();
        assert_eq!((row.state.as_str(), row.revision, analysis), ("queued", None, None));
        assert_eq!(catalog.order_switches("p", None).await.unwrap(), 0, "there is nothing to show");
        assert_eq!(catalog.cancel_candidates("p").await.unwrap(), 1);
        assert!(catalog.candidate(session, "p").await.unwrap().is_none());

        // One that changed while it was worked on is not noted as done.
        assert_eq!(ordered("b").await, 1);
        let job = catalog.lease_candidate("w", 4, 5).await.unwrap().unwrap();
        assert_eq!(ordered("c").await, 1);
        assert!(!catalog.finish_candidate(&job, 1, "{}", 5).await.unwrap());
        // A worker that died gives its order back by its lease.
        let job = catalog.lease_candidate("w", 6, 7).await.unwrap().unwrap();
        let again = catalog.lease_candidate("other", 8, 9).await.unwrap().unwrap();
        assert_eq!((again.session_id, again.attempts), (job.session_id, job.attempts + 1));
    }
}
