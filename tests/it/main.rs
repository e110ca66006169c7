//! Behavior of the whole service; one binary, a module a behavior.

mod sql;
mod tidy;
