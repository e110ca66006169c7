//! Numbers as ArduinoJson 6.21 prints them, and the memory that it needs to read a message.

use std::collections::HashSet;
use std::fmt::Write;

use serde_json::Value;

/// What the firmware gives an incoming message.
pub const INCOMING_POOL_BYTES: usize = 512;
/// What the firmware gives an outgoing packet.
pub(super) const OUTGOING_POOL_BYTES: usize = 8192;
/// One object member or array element, on a 32-bit processor.
pub(super) const SLOT_BYTES: usize = 16;
/// Deeper messages are refused.
pub(super) const NESTING_LIMIT: usize = 10;

/// Appends a float: at most ten significant digits, trailing zeros cut, an exponent from 10,000,000 and down from 0.00001,
/// `null` for what is not finite.
pub fn push_float(out: &mut String, value: f32) {
    let value = f64::from(value);
    if !value.is_finite() {
        out.push_str("null");
        return;
    }
    // A negative zero is printed without its sign.
    if value < 0.0 {
        out.push('-');
    }
    let (mut value, mut exponent) = normalized(value.abs());
    let mut integral = value as u32;
    let mut places = 9_usize;
    let mut limit = 1_000_000_000_u32;
    let mut rest = integral;
    while rest >= 10 {
        rest /= 10;
        limit /= 10;
        places -= 1;
    }
    value = (value - f64::from(integral)) * f64::from(limit);
    let mut decimal = value as u32;
    decimal += ((value - f64::from(decimal)) * 2.0) as u32;
    if decimal >= limit {
        decimal = 0;
        integral += 1;
        if exponent != 0 && integral >= 10 {
            exponent += 1;
            integral = 1;
        }
    }
    while decimal.is_multiple_of(10) && places > 0 {
        decimal /= 10;
        places -= 1;
    }
    write!(out, "{integral}").expect("writing to a string cannot fail");
    if places > 0 {
        write!(out, ".{decimal:0places$}").expect("writing to a string cannot fail");
    }
    if exponent != 0 {
        write!(out, "e{exponent}").expect("writing to a string cannot fail");
    }
}

/// Very large and very small values as a mantissa and a power of ten, by the library's own repeated multiplication.
fn normalized(mut value: f64) -> (f64, i32) {
    const POWERS: [f64; 9] = [1e1, 1e2, 1e4, 1e8, 1e16, 1e32, 1e64, 1e128, 1e256];
    const INVERSE: [f64; 9] = [1e-1, 1e-2, 1e-4, 1e-8, 1e-16, 1e-32, 1e-64, 1e-128, 1e-256];
    const INVERSE_PLUS_ONE: [f64; 9] = [1e0, 1e-1, 1e-3, 1e-7, 1e-15, 1e-31, 1e-63, 1e-127, 1e-255];
    let mut exponent = 0;
    if value >= 1e7 {
        for index in (0..9).rev() {
            if value >= POWERS[index] {
                value *= INVERSE[index];
                exponent += 1 << index;
            }
        }
    } else if value > 0.0 && value <= 1e-5 {
        for index in (0..9).rev() {
            if value < INVERSE_PLUS_ONE[index] {
                value *= POWERS[index];
                exponent -= 1 << index;
            }
        }
    }
    (value, exponent)
}

/// Appends a text in quotes.
pub(super) fn push_text(out: &mut String, text: &str) {
    out.push_str(&Value::from(text).to_string());
}

/// The bytes of the firmware's pool that a parsed message takes: a slot for every member and element at all levels, and
/// every distinct string once with its end mark.
#[must_use]
pub fn pool_cost_bytes(message: &Value) -> usize {
    fn visit<'a>(value: &'a Value, slots: &mut usize, strings: &mut HashSet<&'a str>) {
        match value {
            Value::Object(members) => {
                *slots += members.len();
                for (key, value) in members {
                    strings.insert(key);
                    visit(value, slots, strings);
                }
            }
            Value::Array(elements) => {
                *slots += elements.len();
                for element in elements {
                    visit(element, slots, strings);
                }
            }
            Value::String(text) => {
                strings.insert(text);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut slots = 0;
    let mut strings = HashSet::new();
    visit(message, &mut slots, &mut strings);
    SLOT_BYTES * slots + strings.iter().map(|text| text.len() + 1).sum::<usize>()
}

/// Levels of objects and arrays.
#[must_use]
pub(super) fn depth(message: &Value) -> usize {
    match message {
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn printed(value: f32) -> String {
        let mut out = String::new();
        push_float(&mut out, value);
        out
    }

    #[test]
    fn floats_have_the_digits_of_the_firmware() {
        for (value, text) in [
            (461.0 / 2048.0, "0.225097656"),
            (-229.0 / 2048.0, "-0.111816406"),
            (2971.0 / 2048.0, "1.450683594"),
            (681.0 * 2000.0 / 32768.0, "41.56494141"),
            (1796.0 * 2000.0 / 32768.0, "109.6191406"),
            (-1125.0 * 180.0 / 32768.0, "-6.17980957"),
            (9.81, "9.81000042"),
            (9.940_357, "9.940357208"),
            (1.0, "1"),
            (-30.0, "-30"),
            (0.0, "0"),
            (-0.0, "0"),
            (12345678.0, "1.2345678e7"),
            (1e7, "1e7"),
            (9999999.0, "9999999"),
            (1e-5, "9.999999747e-6"),
            (f32::NAN, "null"),
            (f32::NEG_INFINITY, "null"),
            (f32::MAX, "3.402823466e38"),
        ] {
            assert_eq!(printed(value), text);
        }
    }

    #[test]
    fn the_pool_takes_what_the_library_was_measured_to_take() {
        let start = json!({"type": "start_collection", "device_code": "2025001", "session_id": "1015",
            "command": "START_COLLECTION", "command_id": "c-0002", "timestamp": "2025-09-27T15:45:01.204113",
            "message": "start"});
        assert_eq!(pool_cost_bytes(&start), 264);
        assert_eq!(pool_cost_bytes(&json!({"type": "heartbeat"})), 31);
        assert_eq!(pool_cost_bytes(&json!({"type": "get_status", "command_id": "c-0001"})), 66);
        assert_eq!(pool_cost_bytes(&json!([1, [2, "a"], {"a": "a"}])), 6 * 16 + 2);
        assert_eq!(depth(&json!({"a": [[]]})), 3);
    }

    proptest! {
        #[test]
        fn a_printed_float_reads_back_nearly(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite() && (value == 0.0 || value.abs() > 1e-30));
            let again: f64 = printed(value).parse().unwrap();
            // Ten significant digits, or nine decimals for small values without an exponent.
            let exact = f64::from(value);
            prop_assert!((again - exact).abs() <= (1e-8 * exact.abs()).max(5.1e-10), "{value} {again}");
        }
    }
}
