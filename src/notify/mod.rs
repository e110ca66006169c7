//! Outbox to the mini-program: delivers each notice at least once.
//!
//! In: rows of the outbox, each made in the commit of its result. Out: messages on the owner's sockets. A notice counts
//! as delivered when a socket of the user answered a ping that was sent after it, which proves that the notice before it
//! arrived; until then it is owed, over restarts too. The user drops repeats by the notification id.
//!
//! Absent: any knowledge of analyses; the payload passes through as it is.

mod dispatcher;

pub use dispatcher::{Handle, Options, Service, new};

use crate::store::catalog;

pub use crate::store::catalog::Notice;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("use the catalog for the outbox")]
    Catalog(#[from] catalog::Error),
}
