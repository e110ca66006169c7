//! The life of a recording session, under the six names that existing clients show.

use std::fmt;

use serde::{Deserialize, Serialize};

/// State of a recording session.
///
/// ```text
/// calibrating ─► collecting ─► stopping ─► analyzing ─► completed
///      └──────────────────────────┘              └────► stopped   (nothing to analyse, or the analysis failed)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionStatus {
    /// Started by the user; the device has not confirmed yet. Data is accepted.
    Calibrating,
    /// The device confirmed, or its data arrives.
    Collecting,
    /// The user stopped; the device still owes its `upload_complete`. Data is accepted.
    Stopping,
    /// The upload is complete; frames are being sealed and analysed.
    Analyzing,
    /// A result exists.
    Completed,
    /// Ended without a result.
    Stopped,
}

impl SessionStatus {
    /// All states in the order of a session's life.
    pub const ALL: [Self; 6] =
        [Self::Calibrating, Self::Collecting, Self::Stopping, Self::Analyzing, Self::Completed, Self::Stopped];

    /// The legacy name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calibrating => "calibrating",
            Self::Collecting => "collecting",
            Self::Stopping => "stopping",
            Self::Analyzing => "analyzing",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
        }
    }

    /// The state a legacy name stands for.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// True while frames are accepted.
    #[must_use]
    pub const fn accepts_frames(self) -> bool {
        matches!(self, Self::Calibrating | Self::Collecting | Self::Stopping)
    }

    /// True once nothing more happens by itself.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Stopped)
    }
}

impl fmt::Display for SessionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
