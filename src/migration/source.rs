//! The old database: its tables, as every version of its migrations left them.

use std::path::Path;

use jiff::civil::DateTime;
use jiff::tz::Offset;
use schemas::frames::NO_DEVICE_TIME;
use schemas::{FrameColumns, SensorRole};
use serde::Deserialize;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Row, SqlitePool};

use super::Error;
use super::frames::Frames;
use crate::store::catalog::LegacyResult;

/// What the old service stored when it could not compute anything: delays in s, ratio, ranges in degrees.
const INVENTED: ([f64; 2], [f64; 2], [f64; 3]) = ([0.08, 0.05], [0.75, 0.65], [45.0, 120.0, 45.0]);

pub(super) struct OldUser {
    /// The row of the WeChat user.
    pub(super) wx_user_id: i64,
    /// The framework's user, whose number clients were told.
    pub(super) framework_id: Option<i64>,
    pub(super) openid: String,
}

pub(super) struct OldSession {
    pub(super) id: i64,
    pub(super) openid: Option<String>,
    pub(super) group_code: String,
    pub(super) status: String,
    pub(super) start_us: Option<i64>,
    pub(super) end_us: Option<i64>,
}

pub(super) struct Source {
    pool: SqlitePool,
    /// The column of the device's time; the earliest databases have none.
    device_time: &'static str,
}

fn reading(what: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::Read { what, source }
}

/// A time as Django writes it into SQLite: UTC without an offset, with or without a fraction.
fn time_us(text: Option<String>) -> Option<i64> {
    let text = text?;
    let civil: DateTime = text.trim_end_matches("+00:00").trim_end_matches('Z').parse().ok()?;
    Some(Offset::UTC.to_timestamp(civil).ok()?.as_microsecond())
}

impl Source {
    pub(super) async fn open(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).create_if_missing(false);
        let opened = |source| Error::Open { path: path.display().to_string(), source };
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(opened)?;
        let columns = sqlx::query("SELECT name FROM pragma_table_info('wxapp_sensordata')")
            .fetch_all(&pool)
            .await
            .map_err(opened)?;
        let has = |name: &str| columns.iter().any(|row| row.try_get::<String, _>(0).is_ok_and(|column| column == name));
        if !has("session_id") {
            return Err(Error::NoTable { table: "wxapp_sensordata" });
        }
        let device_time = if has("esp32_timestamp") { "esp32_timestamp" } else { "NULL" };
        Ok(Self { pool, device_time })
    }

    async fn rows(&self, what: &'static str, statement: &'static str) -> Result<Vec<SqliteRow>, Error> {
        sqlx::query(statement).fetch_all(&self.pool).await.map_err(reading(what))
    }

    pub(super) async fn users(&self) -> Result<Vec<OldUser>, Error> {
        let what = "users";
        let rows = self.rows(what, "SELECT id, user_id, openid FROM wxapp_wxuser ORDER BY id").await?;
        rows.iter()
            .map(|row| {
                Ok(OldUser {
                    wx_user_id: row.try_get(0).map_err(reading(what))?,
                    framework_id: row.try_get(1).map_err(reading(what))?,
                    openid: row.try_get(2).map_err(reading(what))?,
                })
            })
            .collect()
    }

    /// Openid and device code.
    pub(super) async fn bindings(&self) -> Result<Vec<(String, String)>, Error> {
        let what = "bindings";
        let statement = "SELECT u.openid, b.device_code FROM wxapp_devicebind b JOIN wxapp_wxuser u ON u.id = b.wx_user_id \
                         ORDER BY b.id";
        let rows = self.rows(what, statement).await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0).map_err(reading(what))?, row.try_get(1).map_err(reading(what))?)))
            .collect()
    }

    pub(super) async fn groups(&self) -> Result<Vec<String>, Error> {
        let what = "groups";
        let rows = self.rows(what, "SELECT group_code FROM wxapp_devicegroup ORDER BY id").await?;
        rows.iter().map(|row| row.try_get(0).map_err(reading(what))).collect()
    }

    pub(super) async fn sessions(&self) -> Result<Vec<OldSession>, Error> {
        let what = "sessions";
        let statement = "SELECT s.id, u.openid, coalesce(g.group_code, ''), s.status, s.start_time, s.end_time \
                         FROM wxapp_datacollectionsession s LEFT JOIN wxapp_wxuser u ON u.id = s.user_id \
                         LEFT JOIN wxapp_devicegroup g ON g.id = s.device_group_id ORDER BY s.id";
        let rows = self.rows(what, statement).await?;
        rows.iter()
            .map(|row| {
                Ok(OldSession {
                    id: row.try_get(0).map_err(reading(what))?,
                    openid: row.try_get(1).map_err(reading(what))?,
                    group_code: row.try_get(2).map_err(reading(what))?,
                    status: row.try_get(3).map_err(reading(what))?,
                    start_us: time_us(row.try_get(4).map_err(reading(what))?),
                    end_us: time_us(row.try_get(5).map_err(reading(what))?),
                })
            })
            .collect()
    }

    /// Devices and days (UTC) with frames that named no session.
    pub(super) async fn stray_days(&self) -> Result<Vec<(String, String)>, Error> {
        let what = "frames without a session";
        let statement = "SELECT DISTINCT device_code, coalesce(date(timestamp), '') FROM wxapp_sensordata \
                         WHERE session_id IS NULL ORDER BY 2, 1";
        let rows = self.rows(what, statement).await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0).map_err(reading(what))?, row.try_get(1).map_err(reading(what))?)))
            .collect()
    }

    /// The frames of a session, or of a device and day without one, in the order they came.
    pub(super) async fn frames(&self, session: Option<i64>, stray: Option<(&str, &str)>) -> Result<Frames, Error> {
        use futures::TryStreamExt as _;
        let what = "frames";
        let (device, day) = stray.unzip();
        let statement = format!(
            "SELECT device_code, sensor_type, data, timestamp, {} FROM wxapp_sensordata WHERE session_id IS ?1 \
             AND (?2 IS NULL OR (device_code = ?2 AND coalesce(date(timestamp), '') = ?3)) ORDER BY id",
            self.device_time
        );
        let mut rows = sqlx::query(AssertSqlSafe(statement)).bind(session).bind(device).bind(day).fetch(&self.pool);
        let mut frames = Frames::default();
        while let Some(row) = rows.try_next().await.map_err(reading(what))? {
            let code: String = row.try_get(0).map_err(reading(what))?;
            let sensor: String = row.try_get(1).map_err(reading(what))?;
            let data: String = row.try_get(2).map_err(reading(what))?;
            let received_us = time_us(row.try_get(3).map_err(reading(what))?);
            let device_us = time_us(row.try_get(4).map_err(reading(what))?);
            let Some(received_us) = received_us else {
                frames.leave("its time of arrival cannot be read");
                continue;
            };
            match read_frame(&data) {
                Ok(values) => frames.push(&code, SensorRole::from_name(&sensor), values, received_us, device_us),
                Err(reason) => frames.leave(reason),
            }
        }
        Ok(frames)
    }

    /// The figures that were stored for a session.
    pub(super) async fn result(&self, session: i64) -> Result<Option<LegacyResult>, Error> {
        let what = "results";
        let row = sqlx::query(
            "SELECT phase_delay, energy_ratio, rom_data, analysis_time FROM wxapp_analysisresult WHERE session_id = ?",
        )
        .bind(session)
        .fetch_optional(&self.pool)
        .await
        .map_err(reading(what))?;
        let Some(row) = row else { return Ok(None) };
        let phase_delay: String = row.try_get(0).map_err(reading(what))?;
        let energy_ratio: Option<f64> = row.try_get(1).map_err(reading(what))?;
        let rom_data: String = row.try_get(2).map_err(reading(what))?;
        let is_default = is_invented(&phase_delay, energy_ratio, &rom_data);
        let analysed_at_us = time_us(row.try_get(3).map_err(reading(what))?);
        Ok(Some(LegacyResult { phase_delay, energy_ratio, rom_data, analysed_at_us, is_default }))
    }
}

/// Whether every figure equals what was stored where nothing could be computed.
fn is_invented(phase_delay: &str, energy_ratio: Option<f64>, rom_data: &str) -> bool {
    let number = |json: &str, key: &str| {
        serde_json::from_str::<serde_json::Value>(json).ok().and_then(|value| value[key].as_f64())
    };
    let near = |value: Option<f64>, other: f64| value.is_some_and(|value| (value - other).abs() < 1e-9);
    let (delays, ratios, ranges) = INVENTED;
    near(number(phase_delay, "waist_to_shoulder"), delays[0])
        && near(number(phase_delay, "shoulder_to_wrist"), delays[1])
        && ratios.iter().any(|&ratio| near(energy_ratio, ratio))
        && ["waist", "shoulder", "wrist"].iter().zip(ranges).all(|(key, range)| near(number(rom_data, key), range))
}

/// acc, gyro, angle.
fn read_frame(data: &str) -> Result<[[f32; 3]; 3], &'static str> {
    #[derive(Deserialize)]
    struct Stored {
        acc: [Option<f32>; 3],
        gyro: Option<[Option<f32>; 3]>,
        angle: Option<[Option<f32>; 3]>,
    }
    if serde_json::from_str::<serde_json::Value>(data).is_err() {
        return Err("its data is not JSON");
    }
    let stored: Stored = serde_json::from_str(data).map_err(|_| "its data has no three axes of acc, gyro and angle")?;
    let axes = |axes: [Option<f32>; 3]| axes.map(|axis| axis.unwrap_or(f32::NAN));
    let may_be_null = |triple: Option<[Option<f32>; 3]>| triple.map_or([f32::NAN; 3], axes);
    Ok([axes(stored.acc), may_be_null(stored.gyro), may_be_null(stored.angle)])
}

impl Frames {
    fn push(
        &mut self,
        device: &str,
        role: SensorRole,
        values: [[f32; 3]; 3],
        received_us: i64,
        device_us: Option<i64>,
    ) {
        self.device.get_or_insert_with(|| device.to_owned());
        let columns: &mut FrameColumns = &mut self.columns;
        let raw = device_us.map(|us| us / 1000).filter(|&ms| ms != NO_DEVICE_TIME);
        columns.push_decoded(i32::from(role.to_byte()), role, raw, values);
        if let Some(at_us) = columns.received_at_us.last_mut() {
            *at_us = received_us;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_django_writes_them() {
        assert_eq!(time_us(Some("2025-09-27 07:44:12.118204".to_owned())), Some(1_758_959_052_118_204));
        assert_eq!(time_us(Some("2025-09-27 07:44:12".to_owned())), Some(1_758_959_052_000_000));
        assert_eq!(time_us(Some("yesterday".to_owned())), None);
        assert_eq!(time_us(None), None);
    }

    #[test]
    fn invented_results_are_known_as_such() {
        let delays = r#"{"waist_to_shoulder": 0.08, "shoulder_to_wrist": 0.05}"#;
        let rom = r#"{"waist": 45, "shoulder": 120, "wrist": 45}"#;
        assert!(is_invented(delays, Some(0.75), rom));
        assert!(!is_invented(delays, Some(0.61), rom));
        assert!(!is_invented("nonsense", None, rom));
    }

    #[test]
    fn a_frame_says_why_it_cannot_be_used() {
        assert!(read_frame(r#"{"acc":[1,2,3],"gyro":[1,null,3],"angle":null}"#).unwrap()[1][1].is_nan());
        assert_eq!(read_frame("nan"), Err("its data is not JSON"));
        assert_eq!(read_frame(r#"{"acc":[1,2]}"#), Err("its data has no three axes of acc, gyro and angle"));
        assert!(read_frame(r#"{"acc":["1",2,3],"gyro":null,"angle":null}"#).is_err());
    }
}
