//! Behavior of the whole service; one binary, a module a behavior.

mod flow;
mod packets;
mod sql;
mod support;
mod tidy;
