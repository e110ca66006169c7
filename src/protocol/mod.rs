//! Wire messages to domain values and back; the only room that knows the wire.
//!
//! In: the text of one WebSocket message ([`decode`]). Out: the text of one ([`ServerMessage::encode`]). All messages are
//! JSON objects with a text field `type`. The names of types and fields are those of the legacy service, because the
//! clients (gateway firmware V3.3, example sketches, mini-program, test pages) do not change; fields may be added.
//!
//! A packet of frames (`batch_sensor_data`) is decoded in one pass from the text into [`schemas::FrameColumns`]: no tree
//! of values, no allocation for each frame, keys in any order. What is wrong with one frame is counted and the rest is
//! kept; what is wrong with the packet is an [`Error`].
//!
//! Invariants
//! - Decoding never panics, whatever the text; what it holds is bounded by the size of the text and [`FRAMES_LIMIT`].
//! - Values stand as sent. Units and clocks are decided later; only `null` becomes NaN.
//! - `session_id` is compared as text: `041025`, the firmware's power-on default, is *no session* and never 41025.
//! - Every message to a device fits the firmware's parser ([`budget`]), and none has a field `id`, which the firmware
//!   takes for a command id.
//!
//! Absent: sockets, clocks (times are arguments), the meaning of a session.

mod asyncapi;
pub mod budget;
mod decode;
mod error;
mod fields;
mod frames;
mod message;
mod schema;
mod time;
mod upload;
mod wire;

#[cfg(test)]
mod tests;

pub use asyncapi::asyncapi_text;
pub use decode::{Endpoint, decode};
pub use error::Error;
pub use frames::{FRAMES_LIMIT, FrameFault};
pub use message::{
    ClientMessage, DeviceLine, Endpoints, EventFields, FramePacket, ServerMessage, SessionFields, SwingFields,
    SystemFigures,
};
pub use schema::{WireSchema, wire_schemas};
pub use time::{LocalTime, UtcTime};
pub use upload::{decode_batch_form, decode_sample_form};
pub use wire::{ClientWire, ConnectionWire, DeviceWire, FrameWire};
