//! Where a sensor is worn.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The place of a sensor, from proximal to distal. The order of the variants is the order of the kinetic chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum SensorRole {
    /// Belt or pelvis, id 1 on the wire.
    Waist = 1,
    /// Upper arm or shoulder, id 2 on the wire.
    Shoulder = 2,
    /// Wrist or forearm of the racket arm, id 3 on the wire.
    Wrist = 3,
    /// Racket handle, id 4 on the wire.
    Racket = 4,
    /// Any other id or name: stored, never analysed.
    Unknown = 0,
}

impl SensorRole {
    /// The four places of the kinetic chain, proximal first.
    pub const CHAIN: [Self; 4] = [Self::Waist, Self::Shoulder, Self::Wrist, Self::Racket];

    /// The role that the firmware's `sensor_id` stands for: 1 waist, 2 shoulder, 3 wrist, 4 racket.
    #[must_use]
    pub const fn from_wire_id(id: i64) -> Self {
        match id {
            1 => Self::Waist,
            2 => Self::Shoulder,
            3 => Self::Wrist,
            4 => Self::Racket,
            _ => Self::Unknown,
        }
    }

    /// The role a `sensor_type` text names; [`SensorRole::Unknown`] for every other text.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "waist" => Self::Waist,
            "shoulder" => Self::Shoulder,
            "wrist" => Self::Wrist,
            "racket" => Self::Racket,
            _ => Self::Unknown,
        }
    }

    /// The role as columns, files and messages spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waist => "waist",
            Self::Shoulder => "shoulder",
            Self::Wrist => "wrist",
            Self::Racket => "racket",
            Self::Unknown => "unknown",
        }
    }

    /// The role as one byte (the wire id, 0 for unknown); the inverse of [`SensorRole::from_wire_id`].
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// Place in [`SensorRole::CHAIN`], `None` for unknown.
    #[must_use]
    pub const fn chain_index(self) -> Option<usize> {
        match self {
            Self::Unknown => None,
            role => Some(role as usize - 1),
        }
    }
}

impl fmt::Display for SensorRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
