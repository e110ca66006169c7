//! Volant: streaming analytics for badminton.
//!
//! A frame goes through eight stops, one file each; `ARCHITECTURE.md` follows it. This file is only the list of rooms,
//! from the edge inward; a room may use the rooms below it and none above (`tests/it/tidy.rs` checks).

pub mod app;
pub mod cli;
pub mod config;

pub mod admin;
pub mod gateway;
pub mod protocol;
pub mod simulator;

pub mod analysis;
pub mod custody;
pub mod export;
pub mod ingest;
pub mod migration;
pub mod notify;
pub mod push;
pub mod query;
pub mod recordings;
pub mod report;
pub mod sessions;

pub mod accounts;
pub mod hub;
pub mod store;
pub mod wechat;

pub mod clock;
pub mod entropy;
pub mod shutdown;
pub mod telemetry;
pub mod texts;
pub mod threads;
