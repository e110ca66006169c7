//! What a message costs the firmware.
//!
//! Gateway firmware V3.3 parses each incoming message into a pool of 512 bytes (ArduinoJson 6, 32-bit slots). A message
//! that does not fit is dropped without an `ack` and without a trace, so every message to a device must stay below.

use std::collections::HashSet;

use serde_json::Value;

/// Size of the firmware's pool, bytes.
pub const POOL_LIMIT_BYTES: usize = 512;

/// Longest free text in a message to a device (an error, a test message), bytes. With a device code of 64 bytes and the
/// longest other members it still fits [`POOL_LIMIT_BYTES`].
pub const TEXT_LIMIT_BYTES: usize = 160;

/// Longest piece of a client's own text that goes back to it, bytes.
pub const ECHO_LIMIT_BYTES: usize = 64;

/// Size of one member or element in the pool, bytes.
const SLOT_BYTES: usize = 16;

/// Pool bytes that a message takes: a slot for each object member and array element at all levels, and each distinct
/// string, key or value, once with its terminating zero.
#[must_use]
pub fn pool_bytes(message: &Value) -> usize {
    let mut strings = HashSet::new();
    let slots = collect(message, &mut strings);
    slots * SLOT_BYTES + strings.iter().map(|text| text.len() + 1).sum::<usize>()
}

fn collect<'a>(value: &'a Value, strings: &mut HashSet<&'a str>) -> usize {
    match value {
        Value::String(text) => {
            strings.insert(text);
            0
        }
        Value::Array(items) => items.iter().map(|item| 1 + collect(item, strings)).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(key, member)| {
                strings.insert(key);
                1 + collect(member, strings)
            })
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// At most `limit_bytes` of `text`, cut at a character.
#[must_use]
pub fn clip(text: &str, limit_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(limit_bytes)]
}
