//! Behavior of the whole service; one binary, a module a behavior.

#![expect(unreachable_pub, reason = "items are shared between the modules of this one binary")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise, in its helpers too")]

mod access;
mod brought;
mod closing;
mod commands;
mod compaction;
mod custody;
mod dashboard;
mod delivery;
mod documents;
mod exports;
mod flow;
mod full_disk;
mod hostile;
mod import;
mod kill;
mod labels;
mod live;
mod packets;
mod reanalysis;
mod results;
mod sessions;
mod sql;
mod support;
mod tidy;
mod uploads;
mod wire_samples;
