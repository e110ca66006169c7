//! Why a message cannot be understood.

use super::frames::{FRAMES_LIMIT, FrameFault};

/// Why a message cannot be understood. The text goes to the client as it stands.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An empty text frame: the firmware sends one when a packet would not fit its 8192-byte document.
    #[error("empty message")]
    Empty,
    /// The text is not JSON, or is cut off.
    #[error("not valid JSON: {source}")]
    NotJson {
        #[source]
        source: serde_json::Error,
    },
    /// The text is JSON, but not an object.
    #[error("a message is a JSON object")]
    NotAnObject,
    /// The object has no `type`, or one that is not a text.
    #[error("message has no type")]
    MissingType,
    /// This endpoint knows no such type. The name is cut to 64 bytes.
    #[error("unknown message type: {kind}")]
    UnknownType { kind: String },
    /// A packet without frames.
    #[error("data is missing or empty")]
    NoFrames,
    /// `data` of a packet is something else than an array.
    #[error("data is not a list of frames")]
    DataNotAList,
    /// More frames in a packet than [`FRAMES_LIMIT`].
    #[error("a packet holds {FRAMES_LIMIT} frames at most")]
    TooManyFrames,
    /// `session_id` is neither text nor number.
    #[error("session_id is neither text nor a number")]
    BadSessionId,
    /// The one sample of `sensor_data` is unusable.
    #[error("{fault}")]
    BadSample { fault: FrameFault },
}

impl Error {
    /// Stable code, for metrics and clients.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotJson { .. } => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::MissingType => "missing_type",
            Self::UnknownType { .. } => "unknown_type",
            Self::NoFrames => "no_frames",
            Self::DataNotAList => "data_not_a_list",
            Self::TooManyFrames => "too_many_frames",
            Self::BadSessionId => "bad_session_id",
            Self::BadSample { .. } => "bad_sample",
        }
    }
}
