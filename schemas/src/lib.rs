//! What the rooms of Volant agree on: identifiers, units, stroke kinds, frame columns and Arrow schemas.
//!
//! This is a leaf crate. It knows no file, no socket, no clock and no formula; it only gives names and shapes to the
//! things that pass from room to room. Units are part of every name (`t_ns`, `received_at_us`, `accel_mps2`,
//! `gyro_dps`); `docs/glossary.md` settles the words.

pub mod frames;
pub mod ids;
pub mod sensor;
pub mod session;
pub mod stroke;
pub mod tables;
pub mod track;

pub use frames::{ClockKind, FrameColumns, FrameFlags};
pub use ids::{AnalysisId, DeviceCode, NotificationId, SessionId, UserId};
pub use sensor::SensorRole;
pub use session::SessionStatus;
pub use stroke::StrokeKind;
pub use track::{ClockNote, SensorTrack, Track};
