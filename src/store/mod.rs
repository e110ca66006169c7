//! The only room that touches files: write-ahead log, Parquet, results, catalog.

pub mod audit;
pub mod catalog;
pub mod class;
pub mod models;
pub mod notes;
pub mod pack;
pub mod paths;
mod publish;
pub mod results;
pub mod seal;
pub mod space;
pub mod swap;
pub mod wal;

pub use publish::{place, sha256_of};
