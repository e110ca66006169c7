//! The database of the Django service, as its migrations 0004 to 0007 make it.
//!
//! Every value is read as text, because SQLite lets a column hold anything; what cannot be read is `None` and the
//! reader's caller says so. Reads are short: a reader that stayed would make a writer with a rollback journal wait.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use sha2::{Digest as _, Sha256};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteRow};
use sqlx::{Row as _, SqlitePool};

use super::{Error, Options};

/// Frames that one read gives.
const PAGE_ROWS: usize = 10_000;

/// The tables without which there is nothing to import.
const TABLES: [&str; 5] =
    ["wxapp_wxuser", "wxapp_devicebind", "wxapp_devicegroup", "wxapp_datacollectionsession", "wxapp_sensordata"];

#[derive(Clone, Debug)]
pub(super) struct Source {
    pool: SqlitePool,
    /// Since migration 0007.
    has_device_time: bool,
    has_entries: bool,
    /// The same for every copy of this database, another for every other database.
    pub(super) name: String,
}

/// A row as texts.
pub(super) struct Texts(SqliteRow);

impl Texts {
    pub(super) fn text(&self, column: usize) -> Option<String> {
        self.0.try_get::<Option<String>, _>(column).ok().flatten()
    }

    pub(super) fn number(&self, column: usize) -> Option<i64> {
        self.text(column)?.parse().ok()
    }

    /// The number of a frame's row, which is its first column and an integer.
    pub(super) fn number_of_frame(&self) -> i64 {
        self.0.try_get(0).unwrap_or(i64::MAX)
    }

    /// µs since 1970 UTC of a time as Django stores it: UTC without an offset.
    pub(super) fn time_us(&self, column: usize) -> Option<i64> {
        time_us(&self.text(column)?)
    }
}

pub(super) fn time_us(text: &str) -> Option<i64> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_microsecond());
    }
    let civil: DateTime = text.trim().parse().ok()?;
    Some(Offset::UTC.to_timestamp(civil).ok()?.as_microsecond())
}

fn reading(what: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |source| Error::Read { what, source }
}

impl Source {
    pub(super) async fn open(options: &Options) -> Result<Self, Error> {
        let opened = |source| Error::Open { path: options.sqlite.clone(), source };
        let connect =
            SqliteConnectOptions::new().filename(&options.sqlite).read_only(true).busy_timeout(Duration::from_secs(30));
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(connect).await.map_err(opened)?;
        let rows = sqlx::query("SELECT CAST(name AS TEXT) FROM sqlite_master WHERE type = 'table'")
            .fetch_all(&pool)
            .await
            .map_err(opened)?;
        let tables: Vec<String> = rows.into_iter().filter_map(|row| Texts(row).text(0)).collect();
        for table in TABLES {
            if !tables.iter().any(|found| found == table) {
                return Err(Error::NotDjango { table, path: options.sqlite.clone() });
            }
        }
        let mut source = Self { pool, has_device_time: false, has_entries: false, name: "django".to_owned() };
        source.has_entries = tables.iter().any(|found| found == "wxapp_miniprogramdata");
        let columns = source.all("columns", "SELECT name FROM pragma_table_info('wxapp_sensordata')").await?;
        source.has_device_time = columns.iter().any(|row| row.text(0).as_deref() == Some("esp32_timestamp"));
        if !columns.iter().any(|row| row.text(0).as_deref() == Some("session_id")) {
            return Err(Error::NotDjango { table: "wxapp_sensordata", path: options.sqlite.clone() });
        }
        if tables.iter().any(|found| found == "django_migrations") {
            // When the first migration was applied, to the microsecond: unique to a database, and kept by its copies.
            let applied =
                source.all("migrations", "SELECT CAST(applied AS TEXT) FROM django_migrations ORDER BY id LIMIT 1");
            if let Some(applied) = applied.await?.first().and_then(|row| row.text(0)) {
                let digest = Sha256::digest(applied.as_bytes());
                let mut first = [0; 8];
                first.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
                source.name = format!("django-{:016x}", u64::from_be_bytes(first));
            }
        }
        Ok(source)
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    pub(super) async fn all(&self, what: &'static str, sql: &'static str) -> Result<Vec<Texts>, Error> {
        let rows = sqlx::query(sql).fetch_all(&self.pool).await.map_err(reading(what))?;
        Ok(rows.into_iter().map(Texts).collect())
    }

    /// Rows with ids above `after`, in the order of their ids.
    pub(super) async fn page(&self, what: &'static str, sql: &'static str, after: i64) -> Result<Vec<Texts>, Error> {
        let rows = sqlx::query(sql).bind(after).fetch_all(&self.pool).await.map_err(reading(what))?;
        Ok(rows.into_iter().map(Texts).collect())
    }

    pub(super) async fn one(&self, what: &'static str, sql: &'static str) -> Result<i64, Error> {
        Ok(self.all(what, sql).await?.first().and_then(|row| row.number(0)).unwrap_or(0))
    }

    /// Texts of the mini-program: id, data_type, content, timestamp.
    pub(super) async fn entries(&self, after: i64) -> Result<Vec<Texts>, Error> {
        if !self.has_entries {
            return Ok(Vec::new());
        }
        let sql = "SELECT CAST(id AS TEXT), CAST(data_type AS TEXT), CAST(content AS TEXT), CAST(timestamp AS TEXT) \
                   FROM wxapp_miniprogramdata WHERE id > ? ORDER BY id LIMIT 500";
        self.page("form entries", sql, after).await
    }

    /// The numbers of a session's frames, in the order in which they were stored.
    pub(super) async fn frames_of_session(&self, session: i64) -> Result<Vec<i64>, Error> {
        let rows = sqlx::query("SELECT id FROM wxapp_sensordata WHERE session_id = ?")
            .bind(session)
            .fetch_all(&self.pool)
            .await
            .map_err(reading("frame numbers"))?;
        Ok(sorted(&rows))
    }

    /// Devices and days of frames without a session, or whose session is no longer there.
    pub(super) async fn strays(&self) -> Result<Vec<Texts>, Error> {
        self.all(
            "frames without a session",
            "SELECT CAST(device_code AS TEXT), CAST(date(timestamp) AS TEXT), CAST(count(*) AS TEXT) \
             FROM wxapp_sensordata \
             WHERE session_id IS NULL OR session_id NOT IN (SELECT id FROM wxapp_datacollectionsession) \
             GROUP BY 1, 2 ORDER BY 1, 2",
        )
        .await
    }

    /// The numbers of those frames of one device and day.
    pub(super) async fn stray_frames(&self, device: Option<&str>, day: Option<&str>) -> Result<Vec<i64>, Error> {
        let rows = sqlx::query(
            "SELECT id FROM wxapp_sensordata \
             WHERE (session_id IS NULL OR session_id NOT IN (SELECT id FROM wxapp_datacollectionsession)) \
             AND CAST(device_code AS TEXT) IS ?1 AND date(timestamp) IS ?2",
        )
        .bind(device)
        .bind(day)
        .fetch_all(&self.pool)
        .await
        .map_err(reading("numbers of frames without a session"))?;
        Ok(sorted(&rows))
    }

    /// The frames with these numbers, a page at a time: id, device_code, sensor_type, data, timestamp, esp32_timestamp.
    ///
    /// `numbers` must be sorted; those of a page are near each other, so each read is a range of the table.
    pub(super) async fn frames(&self, numbers: &[i64]) -> Result<Vec<Texts>, Error> {
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return Ok(Vec::new()) };
        let sql = if self.has_device_time {
            "SELECT id, CAST(device_code AS TEXT), CAST(sensor_type AS TEXT), CAST(data AS TEXT), \
             CAST(timestamp AS TEXT), CAST(esp32_timestamp AS TEXT) FROM wxapp_sensordata \
             WHERE id BETWEEN ?1 AND ?2 ORDER BY id"
        } else {
            "SELECT id, CAST(device_code AS TEXT), CAST(sensor_type AS TEXT), CAST(data AS TEXT), \
             CAST(timestamp AS TEXT), NULL FROM wxapp_sensordata WHERE id BETWEEN ?1 AND ?2 ORDER BY id"
        };
        let mut rows = sqlx::query(sql).bind(first).bind(last).fetch(&self.pool);
        let mut frames = Vec::with_capacity(numbers.len());
        while let Some(row) = futures::TryStreamExt::try_next(&mut rows).await.map_err(reading("frames"))? {
            // Others lie between where sessions ran side by side.
            if row.try_get::<i64, _>(0).is_ok_and(|id| numbers.binary_search(&id).is_ok()) {
                frames.push(Texts(row));
            }
        }
        Ok(frames)
    }

    /// Pages of numbers for [`Source::frames`].
    pub(super) fn pages(numbers: &[i64]) -> std::slice::Chunks<'_, i64> {
        numbers.chunks(PAGE_ROWS)
    }
}

fn sorted(rows: &[SqliteRow]) -> Vec<i64> {
    let mut numbers: Vec<i64> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_or_without_an_offset() {
        let noon = 1_758_974_400_000_000;
        assert_eq!(time_us("2025-09-27 12:00:00"), Some(noon));
        assert_eq!(time_us("2025-09-27 12:00:00.000007"), Some(noon + 7));
        assert_eq!(time_us("2025-09-27T20:00:00+08:00"), Some(noon));
        for bad in ["", "yesterday", "2025-13-01 00:00:00", "12:00:00"] {
            assert_eq!(time_us(bad), None, "{bad}");
        }
    }
}
