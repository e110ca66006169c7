//! Outbox to the mini-program: delivers each notice at least once.
