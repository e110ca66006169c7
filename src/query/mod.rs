//! SQL over live and stored data: DataFusion, read-only, on a runtime of its own.
//!
//! In: one statement and its limits ([`Handle::query`]). Out: a schema and a stream of batches ([`Answer`]), or bytes in
//! an outside format ([`Handle::encode`]). The data come from a [`Source`]: the running service, or a bare data folder
//! ([`Folder`]).
//!
//! Tables: `frames`, `strokes`, `results` (Parquet below the data folder, `frames` together with what open sessions have
//! on disk in the write-ahead log), `sessions`, `devices`, `players`, `notifications` and `labels` (catalog), and views for
//! common questions. Every column carries its unit as field metadata `comment`; `data_dictionary` lists them all, with the
//! functions for IMU work.
//!
//! Invariants:
//! - a statement reads: everything that would write, define, configure or reach another file is refused before planning;
//! - one statement sees one [`Snapshot`], however often it names a table: no frame is seen twice or missed while its
//!   session is sealed;
//! - planning, scanning and encoding run on threads of this room with a lower priority than the sockets' and the log's;
//! - a dropped answer ends the statement that makes it.
//!
//! Absent: writing, temporary tables, files outside the snapshot, spilling to disk (a statement that needs more memory
//! than its limit fails and says so).

mod at_extreme;
mod clustered;
mod encode;
mod engine;
mod error;
pub mod flight;
mod folder;
mod functions;
pub mod http;
mod parameters;
#[cfg(feature = "postgres")]
pub mod postgres;
mod provider;
mod replaced;
mod rooms;
mod row_groups;
mod rules;
mod size;
mod source;
mod statement;
mod tables;
#[cfg(test)]
mod tests;
mod text;
mod views;
mod yields;

pub use encode::{ByteStream, Format};
pub use engine::{Answer, BatchStream, Handle, Limits, Options};
pub use error::{Class, Error, Position};
pub use folder::Folder;
pub use replaced::Files;
pub use rooms::Rooms;
pub use source::{
    DeviceRow, LabelRow, LiveFrames, NotificationRow, PlayerRow, SessionRow, Snapshot, Source, SourceError, StoredFile,
    Within,
};
pub use tables::{devices_schema, labels_schema, notifications_schema, players_schema, sessions_schema};
