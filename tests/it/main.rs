//! Behavior of the whole service; one binary, a module a behavior.

#![expect(unreachable_pub, reason = "items are shared between the modules of this one binary")]

mod dashboard;
mod flow;
mod hostile;
mod kill;
mod packets;
mod sessions;
mod sql;
mod support;
mod tidy;
mod wire_samples;
