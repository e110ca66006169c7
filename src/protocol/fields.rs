//! The members of a client's message that anybody asks for, read in one pass whatever their order.
//!
//! `type` may come last, so all members are read before it is known what the message is.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::frames::{self, Data, DataSeed, Frames};
use super::{Error, time};

/// A JSON value as far as clients' plain members go.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Scalar<'a> {
    #[default]
    Absent,
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(Cow<'a, str>),
    /// An array, an object, or a number out of range.
    Other,
}

impl Scalar<'_> {
    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// Text as it stands, numbers in their shortest form, `None` for everything else.
    pub(super) fn text_or_number(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone().into_owned()),
            Self::Integer(number) => Some(number.to_string()),
            Self::Float(number) => Some(frames::whole(*number).map_or_else(|| number.to_string(), |n| n.to_string())),
            Self::Absent | Self::Null | Self::Bool(_) | Self::Other => None,
        }
    }

    /// A whole number, also as text or float.
    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => i64::try_from(*number).ok(),
            Self::Float(number) => frames::whole(*number),
            Self::Text(text) => time::device_time(text),
            Self::Absent | Self::Null | Self::Bool(_) | Self::Other => None,
        }
    }

    /// The value as the answer echoes it; what is no plain value becomes null.
    pub(super) fn echo(&self) -> Value {
        match self {
            Self::Text(text) => Value::from(text.as_ref()),
            Self::Integer(number) => i64::try_from(*number).map_or(Value::Null, Value::from),
            Self::Float(number) => Value::from(*number),
            Self::Bool(value) => Value::from(*value),
            Self::Absent | Self::Null | Self::Other => Value::Null,
        }
    }
}

/// The members of a message.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) kind: Scalar<'a>,
    pub(super) session_id: Scalar<'a>,
    pub(super) sensor_type: Scalar<'a>,
    pub(super) timestamp: Scalar<'a>,
    pub(super) command_id: Scalar<'a>,
    pub(super) success: Scalar<'a>,
    pub(super) status: Scalar<'a>,
    pub(super) current_session: Scalar<'a>,
    /// `connection.collection_active`
    pub(super) collection_active: Scalar<'a>,
    /// `device.session_id`
    pub(super) believed_session: Scalar<'a>,
    /// `device.firmware_version`
    pub(super) firmware_version: Scalar<'a>,
    pub(super) data: Data,
    pub(super) frames: Frames,
    /// `data` was there and not null, so `data_list` does not count.
    data_seen: bool,
}

impl<'a> Fields<'a> {
    /// Reads a message.
    pub(super) fn read(text: &'a str) -> Result<Self, Error> {
        let Some(first) = text.trim_ascii_start().bytes().next() else { return Err(Error::Empty) };
        if first != b'{' {
            // Tell text that is JSON from text that is not.
            return Err(match serde_json::from_str::<IgnoredAny>(text) {
                Ok(_) => Error::NotAnObject,
                Err(source) => Error::NotJson { source },
            });
        }
        let mut fields = Self::empty(text);
        match fields.read_with(text, Mode::Together) {
            // A number out of range counts as bad syntax to the parser. Reading the parts apart tells which it was.
            Err(source) if source.is_syntax() => {
                fields = Self::empty(text);
                fields.read_with(text, Mode::Apart).map_err(|source| fields.error(source))?;
            }
            Err(source) => return Err(fields.error(source)),
            Ok(()) => {}
        }
        Ok(fields)
    }

    fn empty(text: &str) -> Self {
        Self { frames: Frames { text_bytes: text.len(), ..Frames::default() }, ..Self::default() }
    }

    fn read_with(&mut self, text: &'a str, mode: Mode) -> Result<(), serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        deserializer.deserialize_map(FieldsVisitor { fields: self, mode })?;
        deserializer.end()
    }

    fn error(&self, source: serde_json::Error) -> Error {
        if self.frames.over_limit { Error::TooManyFrames } else { Error::NotJson { source } }
    }

    fn slot(&mut self, key: Key) -> Option<&mut Scalar<'a>> {
        Some(match key {
            Key::Type => &mut self.kind,
            Key::SessionId => &mut self.session_id,
            Key::SensorType => &mut self.sensor_type,
            Key::Timestamp => &mut self.timestamp,
            Key::CommandId => &mut self.command_id,
            Key::Success => &mut self.success,
            Key::Status => &mut self.status,
            Key::CurrentSession => &mut self.current_session,
            Key::CollectionActive => &mut self.collection_active,
            Key::FirmwareVersion => &mut self.firmware_version,
            Key::Connection | Key::Device | Key::Data | Key::DataList | Key::Other => return None,
        })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// One pass.
    Together,
    /// Each member is cut out first and read on its own; a number out of range spoils only its member.
    Apart,
}

struct FieldsVisitor<'f, 'a> {
    fields: &'f mut Fields<'a>,
    mode: Mode,
}

impl<'a> FieldsVisitor<'_, 'a> {
    fn wants_data(&mut self, key: Key) -> bool {
        key == Key::Data || !self.fields.data_seen
    }

    fn took_data(&mut self, key: Key, data: Data) {
        if matches!(data, Data::Absent) {
            return;
        }
        self.fields.data_seen |= key == Key::Data;
        self.fields.data = data;
    }

    fn read_together<A: MapAccess<'a>>(&mut self, key: Key, map: &mut A) -> Result<(), A::Error> {
        match key {
            Key::Data | Key::DataList if self.wants_data(key) => {
                let data = map.next_value_seed(DataSeed(&mut self.fields.frames))?;
                self.took_data(key, data);
            }
            Key::Connection | Key::Device => map.next_value_seed(NestedSeed(self.fields))?,
            key => match self.fields.slot(key) {
                Some(slot) => *slot = map.next_value_seed(ScalarSeed)?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            },
        }
        Ok(())
    }

    fn read_apart(&mut self, key: Key, value: &'a RawValue) -> Result<(), serde_json::Error> {
        match key {
            Key::Data | Key::DataList if self.wants_data(key) => {
                let data = frames::read_data_apart(value, &mut self.fields.frames)?;
                self.took_data(key, data);
            }
            key => {
                let mut deserializer = serde_json::Deserializer::from_str(value.get());
                if let Key::Connection | Key::Device = key {
                    // Members read before the number out of range stand; the rest is as if it were absent.
                    NestedSeed(self.fields).deserialize(&mut deserializer).ok();
                } else if let Some(slot) = self.fields.slot(key) {
                    *slot = ScalarSeed.deserialize(&mut deserializer).unwrap_or(Scalar::Other);
                }
            }
        }
        Ok(())
    }
}

impl<'a> Visitor<'a> for FieldsVisitor<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(KeySeed)? {
            match self.mode {
                Mode::Together => self.read_together(key, &mut map)?,
                Mode::Apart => {
                    let value: &'a RawValue = map.next_value()?;
                    self.read_apart(key, value).map_err(serde::de::Error::custom)?;
                }
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Key {
    Type,
    SessionId,
    SensorType,
    Timestamp,
    CommandId,
    Success,
    Status,
    CurrentSession,
    Connection,
    Device,
    CollectionActive,
    FirmwareVersion,
    Data,
    DataList,
    Other,
}

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Key;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(match key {
            "type" => Key::Type,
            "session_id" => Key::SessionId,
            "sensor_type" => Key::SensorType,
            "timestamp" => Key::Timestamp,
            "command_id" => Key::CommandId,
            "success" => Key::Success,
            "status" => Key::Status,
            "current_session" => Key::CurrentSession,
            "connection" => Key::Connection,
            "device" => Key::Device,
            "collection_active" => Key::CollectionActive,
            "firmware_version" => Key::FirmwareVersion,
            "data" => Key::Data,
            "data_list" => Key::DataList,
            _ => Key::Other,
        })
    }
}

/// `connection` and `device` of `status_response`.
struct NestedSeed<'f, 'a>(&'f mut Fields<'a>);

impl<'a> DeserializeSeed<'a> for NestedSeed<'_, 'a> {
    type Value = ();
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for NestedSeed<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(KeySeed)? {
            let slot = match key {
                Key::CollectionActive => &mut self.0.collection_active,
                Key::FirmwareVersion => &mut self.0.firmware_version,
                Key::SessionId => &mut self.0.believed_session,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *slot = map.next_value_seed(ScalarSeed)?;
        }
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

struct ScalarSeed;

impl<'a> DeserializeSeed<'a> for ScalarSeed {
    type Value = Scalar<'a>;
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Scalar<'a>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for ScalarSeed {
    type Value = Scalar<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }
    fn visit_bool<E>(self, value: bool) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Integer(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Integer(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Float(value))
    }
    fn visit_unit<E>(self) -> Result<Scalar<'a>, E> {
        Ok(Scalar::Null)
    }
    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Scalar<'a>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Scalar<'a>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}
