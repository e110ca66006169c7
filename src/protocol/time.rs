//! How the wire writes times.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

/// The clock that devices and legacy clients live in: UTC+8, no daylight saving.
pub(super) const LOCAL: Offset = Offset::constant(8);

/// µs since 1970 UTC, written as local time (UTC+8) **without** an offset: `2025-09-27T15:44:12.118204`. What most
/// socket messages carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime(pub i64);

/// µs since 1970 UTC, written as UTC with offset: `2025-09-27T07:44:12.118204+00:00`. What comes from the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UtcTime(pub i64);

fn civil(us: i64, offset: Offset) -> DateTime {
    offset.to_datetime(Timestamp::from_microsecond(us).unwrap_or(Timestamp::UNIX_EPOCH))
}

fn write_civil(f: &mut fmt::Formatter<'_>, t: DateTime) -> fmt::Result {
    let us = t.subsec_nanosecond() / 1000;
    write!(
        f,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{us:06}",
        t.year(),
        t.month(),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    )
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_civil(f, civil(self.0, LOCAL))
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_civil(f, civil(self.0, Offset::UTC))?;
        f.write_str("+00:00")
    }
}

impl Serialize for LocalTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for UtcTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for LocalTime {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LocalTime".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}$",
            "description": "Local time, UTC+8, without offset."
        })
    }
}

impl JsonSchema for UtcTime {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "UtcTime".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}\+00:00$",
            "description": "UTC, with offset."
        })
    }
}

/// The time that a text names, as a device would send it in a number: digits as they stand, ISO 8601 as Unix
/// milliseconds (local time, UTC+8, where the text has no offset).
pub(super) fn device_time(text: &str) -> Option<i64> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok();
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_millisecond());
    }
    let local: DateTime = text.parse().ok()?;
    Some(LOCAL.to_timestamp(local).ok()?.as_millisecond())
}
