//! The dashboard and what operators do.
