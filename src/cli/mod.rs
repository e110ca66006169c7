//! The commands, one file each.

pub mod recover;
pub mod verify;
