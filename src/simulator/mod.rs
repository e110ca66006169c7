//! Devices as firmware V3.3 makes them, for tests, demonstrations and load.
//!
//! In: a recording or a generated session. Out: the bytes that a real gateway board would put on the wire, on plain TCP,
//! and a [`Progress`] that tells what was sent and what the server answered. The model follows what can be told from the
//! wire: the exact handshake, the 512-byte pool, lower-case commands only, blocks of thirty frames over all sensors, the
//! two queues and what they throw away, `upload_complete` that stays owed, resuming after a drop with the old session, no
//! heartbeat by itself.
//!
//! ```text
//! Source ─► Player ─► block (30) ─► block queue (10, oldest lost) ─► send queue (20) ─► socket
//!                                     one block a round of 10 ms
//! ```
//!
//! A recording starts when streaming starts, preceded by up to 29 still frames that the block held already, and is
//! followed by still frames until the last block is full; then the sensors are silent. Device time runs [`Speed`] times as
//! fast as real time; only at 1 does it go on while the socket is blocked, as on the real board.
//!
//! What is absent: Wi-Fi, Bluetooth, the serial console, TLS, redirects, any other answer to a server's wishes than the
//! firmware's. Limits: [`PACKET_LOG_LIMIT`] records, eight forgotten sockets, 256 unread messages (then the socket is not
//! read), and what the firmware limits itself.

mod address;
mod clock;
mod device;
mod error;
mod faults;
mod firmware;
mod http;
mod json;
mod play;
mod socket;
mod source;
#[cfg(test)]
mod tests;

pub use self::address::Address;
pub use self::clock::Build;
pub use self::device::{Config, Deaf, Device, FrameId, Handle, PACKET_LOG_LIMIT, PacketRecord, Progress, Speed};
pub use self::error::Error;
pub use self::faults::Faults;
pub use self::firmware::{BLOCK_FRAMES, BLOCK_QUEUE, DEFAULT_SESSION, SEND_QUEUE};
pub use self::http::post_form;
pub use self::json::{INCOMING_POOL_BYTES, pool_cost_bytes, push_float};
pub use self::play::{NOTIFICATION, PlayLimits, Played, Step, play_session};
pub use self::source::{Repeat, Source, SourceFrame};
