//! What is said of a session while it records.

use std::collections::BTreeMap;

use schemas::{DeviceCode, SensorRole, SessionId};

/// A swing that was found while its session records. Times are ms since session start, on the device's clock as it is read
/// so far.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveSwing {
    /// In the order of detection, from 1; what a later revision names.
    pub swing_id: u32,
    pub sensor: SensorRole,
    pub start_ms: f64,
    pub impact_ms: f64,
    pub end_ms: f64,
    /// Class name, or `other`.
    pub stroke: String,
    /// Probability of `stroke`; `None`: no model ran.
    pub confidence: Option<f64>,
    pub probabilities: BTreeMap<String, f64>,
}

/// How the final result differs from what was said while the session recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Revision {
    /// By how much the times of all swings moved, ms: the session's clock is read anew at its end.
    pub shift_ms: f64,
    /// Swings that stayed as they were, that shift aside.
    pub unchanged: usize,
    /// Swings that stayed, with another name, a confidence that moved by more than 0.1, or other times.
    pub changed: Vec<LiveSwing>,
    /// Swings that are none in the final result.
    pub withdrawn: Vec<u32>,
    /// Swings that nobody had been told of.
    pub added: usize,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum LiveEvent {
    /// A swing was found.
    Swing(LiveSwing),
    /// The session has its result.
    Final(Revision),
}

/// A message about a session that records, to its player and to the admins.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveMessage {
    pub session_id: SessionId,
    pub device_code: DeviceCode,
    pub event: LiveEvent,
    pub at_us: i64,
}
