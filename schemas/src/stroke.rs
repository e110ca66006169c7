//! The strokes of badminton.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of a badminton stroke, in the field's English terms.
///
/// Models may be trained on other classes (tennis sets, for instance), so a stored stroke carries its class as text;
/// this enumeration is the vocabulary of the model that ships and of the generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrokeKind {
    /// High and deep, overhead.
    Clear,
    /// Soft and steep to the front court, overhead.
    Drop,
    /// Hard and steep, overhead.
    Smash,
    /// Flat and fast, at the side.
    Drive,
    /// From the front court, high and deep.
    Lift,
    /// Tight over the net, from the front court.
    NetShot,
    /// Flat from the front or mid court.
    Push,
    /// Steep from the net.
    Kill,
    /// Soft defence against a smash.
    Block,
    /// Low serve to the front.
    ShortServe,
    /// High serve to the back.
    LongServe,
    /// A swing that is none of the above, or movement that is no stroke at all.
    Other,
}

impl StrokeKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Clear,
        Self::Drop,
        Self::Smash,
        Self::Drive,
        Self::Lift,
        Self::NetShot,
        Self::Push,
        Self::Kill,
        Self::Block,
        Self::ShortServe,
        Self::LongServe,
        Self::Other,
    ];

    /// The class name in files and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Drop => "drop",
            Self::Smash => "smash",
            Self::Drive => "drive",
            Self::Lift => "lift",
            Self::NetShot => "net_shot",
            Self::Push => "push",
            Self::Kill => "kill",
            Self::Block => "block",
            Self::ShortServe => "short_serve",
            Self::LongServe => "long_serve",
            Self::Other => "other",
        }
    }

    /// The Chinese term used on court.
    #[must_use]
    pub const fn name_zh(self) -> &'static str {
        match self {
            Self::Clear => "高远球",
            Self::Drop => "吊球",
            Self::Smash => "杀球",
            Self::Drive => "平抽球",
            Self::Lift => "挑球",
            Self::NetShot => "搓球",
            Self::Push => "推球",
            Self::Kill => "扑球",
            Self::Block => "挡网",
            Self::ShortServe => "发短球",
            Self::LongServe => "发高远球",
            Self::Other => "其他",
        }
    }

    /// The kind a class name stands for.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for StrokeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
