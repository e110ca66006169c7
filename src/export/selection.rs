//! What is taken: which sessions, which table, as SQL.

use std::fmt;

use jiff::civil::Date;
use schemas::DeviceCode;
use serde::{Deserialize, Serialize};

/// Which sessions. What is empty or absent chooses nothing away; several values of a kind are alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Numbers of sessions.
    pub sessions: Vec<i64>,
    /// Numbers of players.
    pub players: Vec<i64>,
    /// Device codes.
    pub devices: Vec<DeviceCode>,
    /// First UTC day on which a session started.
    pub from: Option<Date>,
    /// Last such day.
    pub to: Option<Date>,
    /// Names of strokes: sessions that have one, and of their rows those of such strokes.
    pub strokes: Vec<String>,
}

/// What of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Table {
    /// Frames as stored.
    #[default]
    Frames,
    /// Frames inside swings, in SI units, with the time relative to the impact.
    StrokeFrames,
    /// Swings with their figures.
    Strokes,
    /// One row a session.
    Results,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 4] = [Self::Frames, Self::StrokeFrames, Self::Strokes, Self::Results];

    /// The name in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::StrokeFrames => "stroke_frames",
            Self::Strokes => "strokes",
            Self::Results => "results",
        }
    }

    /// The table of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.as_str() == name)
    }

    /// The rows of one session, in a fixed order. `strokes` chooses among swings, where the table has them.
    pub(super) fn sql(self, session: i64, strokes: &[String]) -> String {
        let order = match self {
            Self::Frames => "sensor, t_ns, seq",
            Self::StrokeFrames => "stroke_index, sensor, t_rel_ms",
            Self::Strokes => "stroke_index",
            Self::Results => "session_id",
        };
        let named = match self {
            Self::StrokeFrames | Self::Strokes if !strokes.is_empty() => format!(" AND stroke IN ({})", texts(strokes)),
            _ => String::new(),
        };
        format!("SELECT * FROM {} WHERE session_id = {session}{named} ORDER BY {order}", self.as_str())
    }
}

/// Frames of a session in the order of time, of all sensors together.
pub(super) fn frames_in_time_sql(session: i64) -> String {
    format!("SELECT * FROM frames WHERE session_id = {session} ORDER BY t_ns, seq")
}

/// What is known of a session besides its rows; no row where there is no catalog.
pub(super) fn about_sql(session: i64) -> String {
    format!("SELECT started_at_us, device_code, user_id FROM sessions WHERE session_id = {session}")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn texts<T: AsRef<str>>(values: &[T]) -> String {
    values.iter().map(|value| quoted(value.as_ref())).collect::<Vec<_>>().join(", ")
}

fn numbers(values: &[i64]) -> String {
    values.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

impl Selection {
    /// The numbers of the sessions that have frames, a result, or both. Where a folder has no catalog, devices and players are
    /// those that the results name.
    pub(super) fn sessions_sql(&self) -> String {
        let mut conditions = vec!["session_id IS NOT NULL".to_owned()];
        if !self.sessions.is_empty() {
            conditions.push(format!("session_id IN ({})", numbers(&self.sessions)));
        }
        if !self.players.is_empty() {
            conditions.push(format!("user_id IN ({})", numbers(&self.players)));
        }
        if !self.devices.is_empty() {
            let codes = self.devices.iter().map(DeviceCode::as_str).collect::<Vec<_>>();
            conditions.push(format!("device_code IN ({})", texts(&codes)));
        }
        if let Some(from) = self.from {
            conditions.push(format!("day >= DATE '{from}'"));
        }
        if let Some(to) = self.to {
            conditions.push(format!("day <= DATE '{to}'"));
        }
        if !self.strokes.is_empty() {
            conditions.push(format!(
                "session_id IN (SELECT k.session_id FROM strokes k WHERE k.stroke IN ({}))",
                texts(&self.strokes)
            ));
        }
        // Which sessions a bare folder has, only its frames and results tell; asking the frames for that when nothing but
        // numbers and days are chosen reads no more than the files' statistics.
        let by_frames = if self.players.is_empty() && self.devices.is_empty() {
            " UNION SELECT DISTINCT session_id, date, CAST(NULL AS TEXT), CAST(NULL AS BIGINT) FROM frames"
        } else {
            ""
        };
        format!(
            "SELECT DISTINCT session_id FROM (\
             SELECT session_id, CAST(to_timestamp_micros(started_at_us) AS DATE) AS day, device_code, user_id \
             FROM sessions WHERE frame_count > 0 \
             UNION SELECT session_id, date, device_code, user_id FROM results{by_frames}) known \
             WHERE {} ORDER BY session_id",
            conditions.join(" AND ")
        )
    }
}

impl Selection {
    /// The [`SessionState`] of each of its sessions, in order. Frames and when the latest came are known by the files' footers.
    #[must_use]
    pub fn states_sql(&self) -> String {
        format!(
            "SELECT s.session_id, f.frames, f.latest_us, r.created_at_us AS analysed_us FROM ({}) s \
             LEFT JOIN (SELECT session_id, count(*) AS frames, max(received_at_us) AS latest_us FROM frames \
             GROUP BY session_id) f ON f.session_id = s.session_id \
             LEFT JOIN results r ON r.session_id = s.session_id ORDER BY s.session_id",
            self.sessions_sql()
        )
    }
}

/// What there is of a session: as long as this is the same, so are its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// Its number.
    pub session_id: i64,
    /// How many frames it has; `None`: none, or they were given up.
    pub frames: Option<i64>,
    /// When the latest arrived, µs since 1970 UTC.
    pub latest_us: Option<i64>,
    /// When its result was committed, µs since 1970 UTC; `None`: it has none.
    pub analysed_us: Option<i64>,
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.sessions.is_empty() {
            parts.push(format!("session {}", numbers(&self.sessions)));
        }
        if !self.players.is_empty() {
            parts.push(format!("player {}", numbers(&self.players)));
        }
        if !self.devices.is_empty() {
            let codes = self.devices.iter().map(DeviceCode::as_str).collect::<Vec<_>>();
            parts.push(format!("device {}", codes.join(", ")));
        }
        if let Some(from) = self.from {
            parts.push(format!("from {from}"));
        }
        if let Some(to) = self.to {
            parts.push(format!("to {to}"));
        }
        if !self.strokes.is_empty() {
            parts.push(format!("stroke {}", self.strokes.join(", ")));
        }
        if parts.is_empty() { f.write_str("everything") } else { f.write_str(&parts.join("; ")) }
    }
}
