//! Identifiers as types of their own, so that a session number can never be passed where a user number is meant.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl $name {
            /// The number itself.
            #[must_use]
            pub const fn get(self) -> i64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            /// Reads a canonical positive decimal: no sign, no leading zero, no blanks.
            ///
            /// # Errors
            /// Everything else. In particular `041025`, the firmware's "no session", is not session 41025.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let canonical = !text.is_empty()
                    && text.bytes().all(|b| b.is_ascii_digit())
                    && !text.starts_with('0');
                if !canonical {
                    return Err(InvalidId);
                }
                text.parse().map(Self).map_err(|_| InvalidId)
            }
        }
    };
}

integer_id! {
    /// A recording session: the catalog's own number, from 1. Legacy clients see it as a decimal.
    SessionId
}
integer_id! {
    /// A player: the catalog's own number, from 1.
    UserId
}
integer_id! {
    /// One finished analysis of one session: the catalog's own number, from 1.
    AnalysisId
}

/// The text is not a canonical positive decimal that fits 63 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a positive decimal identifier")]
pub struct InvalidId;

/// The id of a notification: unique over all time and nodes, sortable by creation (a UUID v7 in text form).
///
/// Clients drop repeats by it, because delivery is at least once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NotificationId(pub Arc<str>);

impl fmt::Display for NotificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The code of a gateway device, as in its socket path: 1 to 64 characters of `[A-Za-z0-9_.-]`.
///
/// Cheap to clone. All boards with the public firmware carry the same code, `2025001`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct DeviceCode(Arc<str>);

/// The longest device code or user segment taken from a path, in bytes.
pub const CODE_LIMIT_BYTES: usize = 64;

/// True if `text` may stand in a socket path: 1 to [`CODE_LIMIT_BYTES`] characters of `[A-Za-z0-9_.-]`.
#[must_use]
pub fn is_path_segment(text: &str) -> bool {
    (1..=CODE_LIMIT_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// The text cannot be a device code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a device code has 1 to 64 characters out of letters, digits, '_', '.' and '-'")]
pub struct InvalidDeviceCode;

impl DeviceCode {
    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DeviceCode {
    type Err = InvalidDeviceCode;

    fn from_str(text: &str) -> Result<Self, InvalidDeviceCode> {
        if is_path_segment(text) { Ok(Self(text.into())) } else { Err(InvalidDeviceCode) }
    }
}

impl<'de> Deserialize<'de> for DeviceCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmware_default_is_not_a_session() {
        assert_eq!("041025".parse::<SessionId>(), Err(InvalidId));
        assert_eq!("41025".parse::<SessionId>(), Ok(SessionId(41025)));
        for bad in ["", "0", "-1", "+1", " 1", "1.0", "99999999999999999999"] {
            assert_eq!(bad.parse::<SessionId>(), Err(InvalidId), "{bad:?}");
        }
    }

    #[test]
    fn device_codes_are_path_segments() {
        for good in ["2025001", "esp32s3_multi_001", "a.b-c"] {
            assert_eq!(good.parse::<DeviceCode>().unwrap().as_str(), good);
        }
        for bad in ["", "a/b", "设备", "a b", &"x".repeat(65)] {
            assert!(bad.parse::<DeviceCode>().is_err(), "{bad:?}");
        }
    }
}
