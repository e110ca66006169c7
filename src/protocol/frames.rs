//! The hot path: the frames of a packet, straight from the text into columns.
//!
//! Each visitor takes any JSON value. A value of the wrong shape is read to its end and makes its frame bad; only text
//! that is not JSON ends the packet. Skipping is iterative in `serde_json`, so nesting costs no stack.

use std::fmt;

use schemas::{FrameColumns, SensorRole};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::time;

/// Frames in one packet at most. The firmware sends 30, the batch sketches up to 100.
pub const FRAMES_LIMIT: usize = 2000;

/// Bytes of text a frame takes in practice (180 in firmware packets, less for integers); sets the first allocation.
const FRAME_TEXT_BYTES: usize = 150;

/// What makes a frame unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    #[error("a frame is an object with acc, gyro and angle")]
    NotAnObject,
    #[error("acc is not three numbers")]
    Acc,
    #[error("gyro is not three numbers")]
    Gyro,
    #[error("angle is not three numbers")]
    Angle,
    /// A number that JSON allows and no float can hold, such as `1e400`.
    #[error("a number is out of range")]
    OutOfRange,
}

/// One decoded frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) sensor_id: Option<i32>,
    pub(super) time: Option<i64>,
    /// acc, gyro, angle; NaN stands for null.
    pub(super) values: [[f32; 3]; 3],
}

/// What `data` was.
#[derive(Debug, Default)]
pub(super) enum Data {
    #[default]
    Absent,
    /// An array: the frames are in [`Frames`].
    List,
    /// An object, read as a frame.
    One(Result<Frame, FrameFault>),
    /// Anything else.
    Other,
}

/// Collects the frames of a packet.
#[derive(Debug, Default)]
pub(super) struct Frames {
    pub(super) columns: FrameColumns,
    pub(super) total: usize,
    pub(super) failed: usize,
    /// The first unusable frame and why it is.
    pub(super) first_fault: Option<(usize, FrameFault)>,
    pub(super) any_time: bool,
    pub(super) over_limit: bool,
    /// Length of the packet's text, bytes.
    pub(super) text_bytes: usize,
}

impl Frames {
    fn begin(&mut self) {
        let capacity = (self.text_bytes / FRAME_TEXT_BYTES + 1).min(FRAMES_LIMIT);
        *self = Self { columns: FrameColumns::with_capacity(capacity), text_bytes: self.text_bytes, ..Self::default() };
    }

    /// Counts a frame and keeps it if it is good. False once there are more than [`FRAMES_LIMIT`].
    fn take(&mut self, frame: Result<Frame, FrameFault>) -> bool {
        let index = self.total;
        self.total += 1;
        if self.total > FRAMES_LIMIT {
            self.over_limit = true;
            return false;
        }
        match frame {
            Ok(Frame { sensor_id, time, values }) => {
                self.any_time |= time.is_some();
                let id = sensor_id.unwrap_or(0);
                self.columns.push_decoded(id, SensorRole::from_wire_id(i64::from(id)), time, values);
            }
            Err(fault) => {
                self.failed += 1;
                self.first_fault.get_or_insert((index, fault));
            }
        }
        true
    }

    /// Gives the packet's `sensor_type` to the frames that named no sensor.
    pub(super) fn fill_missing_sensors(&mut self, role: SensorRole) {
        for (id, sensor) in self.columns.sensor_id.iter().zip(&mut self.columns.sensor) {
            if *id == 0 {
                *sensor = role.to_byte();
            }
        }
    }
}

/// Reads `data`: an array into [`Frames`], an object as one frame.
pub(super) struct DataSeed<'a>(pub(super) &'a mut Frames);

impl<'de> DeserializeSeed<'de> for DataSeed<'_> {
    type Value = Data;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Data, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DataSeed<'_> {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("frames")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Data, A::Error> {
        self.0.begin();
        while let Some(frame) = seq.next_element_seed(FrameSeed)? {
            if !self.0.take(frame) {
                return Err(A::Error::custom("too many frames"));
            }
        }
        Ok(Data::List)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Data, A::Error> {
        FrameSeed.visit_map(map).map(Data::One)
    }
    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Absent)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Data, E> {
        Ok(Data::Other)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Data, E> {
        Ok(Data::Other)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Data, E> {
        Ok(Data::Other)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Data, E> {
        Ok(Data::Other)
    }
    fn visit_str<E>(self, _: &str) -> Result<Data, E> {
        Ok(Data::Other)
    }
}

/// The slow twin of [`DataSeed`], for packets with a number out of range: each frame is read on its own, so that such a
/// number makes only its frame bad.
pub(super) fn read_data_apart(data: &RawValue, frames: &mut Frames) -> Result<Data, serde_json::Error> {
    struct Apart<'a>(&'a mut Frames);
    impl<'de> Visitor<'de> for Apart<'_> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("frames")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
            while let Some(frame) = seq.next_element::<&RawValue>()? {
                if !self.0.take(read_frame_apart(frame)) {
                    return Err(A::Error::custom("too many frames"));
                }
            }
            Ok(())
        }
    }
    match data.get().bytes().next() {
        Some(b'[') => {
            frames.begin();
            serde_json::Deserializer::from_str(data.get()).deserialize_seq(Apart(frames))?;
            Ok(Data::List)
        }
        Some(b'{') => Ok(Data::One(read_frame_apart(data))),
        Some(b'n') => Ok(Data::Absent),
        _ => Ok(Data::Other),
    }
}

fn read_frame_apart(frame: &RawValue) -> Result<Frame, FrameFault> {
    FrameSeed.deserialize(&mut serde_json::Deserializer::from_str(frame.get())).unwrap_or(Err(FrameFault::OutOfRange))
}

struct FrameSeed;

impl<'de> DeserializeSeed<'de> for FrameSeed {
    type Value = Result<Frame, FrameFault>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FrameSeed {
    type Value = Result<Frame, FrameFault>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a frame")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut acc, mut gyro, mut angle) = (None, None, None);
        let (mut sensor_id, mut time) = (None, None);
        while let Some(key) = map.next_key_seed(KeySeed)? {
            match key {
                Key::Acc => acc = map.next_value_seed(TripleSeed { may_be_null: false })?,
                Key::Gyro => gyro = map.next_value_seed(TripleSeed { may_be_null: true })?,
                Key::Angle => angle = map.next_value_seed(TripleSeed { may_be_null: true })?,
                Key::SensorId => sensor_id = map.next_value_seed(IntegerSeed)?,
                Key::Timestamp => time = map.next_value_seed(IntegerSeed)?,
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let values = match (acc, gyro, angle) {
            (Some(acc), Some(gyro), Some(angle)) => [acc, gyro, angle],
            (None, ..) => return Ok(Err(FrameFault::Acc)),
            (_, None, _) => return Ok(Err(FrameFault::Gyro)),
            (_, _, None) => return Ok(Err(FrameFault::Angle)),
        };
        let sensor_id = sensor_id.and_then(|id| i32::try_from(id).ok());
        Ok(Ok(Frame { sensor_id, time: time.filter(|&time| time != i64::MIN), values }))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        drain(seq)?;
        Ok(Err(FrameFault::NotAnObject))
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Err(FrameFault::NotAnObject))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Err(FrameFault::NotAnObject))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Err(FrameFault::NotAnObject))
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Err(FrameFault::NotAnObject))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Err(FrameFault::NotAnObject))
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Err(FrameFault::NotAnObject))
    }
}

enum Key {
    Acc,
    Gyro,
    Angle,
    SensorId,
    Timestamp,
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
            "acc" => Key::Acc,
            "gyro" => Key::Gyro,
            "angle" => Key::Angle,
            "sensor_id" => Key::SensorId,
            "timestamp" => Key::Timestamp,
            _ => Key::Other,
        })
    }
}

/// Three numbers; `None` if they are anything else.
struct TripleSeed {
    /// The whole triple may be null: the sensor sent none.
    may_be_null: bool,
}

impl<'de> DeserializeSeed<'de> for TripleSeed {
    type Value = Option<[f32; 3]>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TripleSeed {
    type Value = Option<[f32; 3]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("three numbers")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = [0.0; 3];
        let mut good = true;
        for value in &mut values {
            match seq.next_element_seed(ComponentSeed)? {
                Some(Some(component)) => *value = component,
                Some(None) => good = false,
                None => return Ok(None),
            }
        }
        let exhausted = drain(seq)? == 0;
        Ok((good && exhausted).then_some(values))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(self.may_be_null.then_some([f32::NAN; 3]))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// A number, or null as NaN; `None` for anything else and for numbers beyond a 32-bit float.
struct ComponentSeed;

impl<'de> DeserializeSeed<'de> for ComponentSeed {
    type Value = Option<f32>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ComponentSeed {
    type Value = Option<f32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }
    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        let value = value as f32;
        Ok(value.is_finite().then_some(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(value as f32))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(value as f32))
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Some(f32::NAN))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        drain(seq)?;
        Ok(None)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// A whole number, also written as `1.0` or `"1"`; `None` for anything else.
struct IntegerSeed;

impl<'de> DeserializeSeed<'de> for IntegerSeed {
    type Value = Option<i64>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for IntegerSeed {
    type Value = Option<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }
    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(value).ok())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(whole(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(time::device_time(value))
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        drain(seq)?;
        Ok(None)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// The integer that a float stands for; up to 2^53 every integer has a float of its own.
pub(super) fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0).then_some(value as i64)
}

/// Reads the rest of an array; how many elements that was.
fn drain<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<usize, A::Error> {
    let mut count = 0;
    while seq.next_element::<IgnoredAny>()?.is_some() {
        count += 1;
    }
    Ok(count)
}
