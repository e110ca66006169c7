//! Outbox to the mini-program and to further channels: delivers each notice at least once.
//!
//! In: rows of the outbox, each made in the commit of its result. Out: messages on the owner's sockets. A notice counts
//! as delivered when a socket of the user answered a ping that was sent after it, which proves that the notice before it
//! arrived; until then it is owed, over restarts too. The user drops repeats by the notification id.
//!
//! Where a user or an admin has set up a webhook, or the user granted a WeChat subscribe message, the notice is owed there
//! too (`channels.rs`): a row for each target, made in the same commit as the notice, tried with growing pauses, every attempt
//! recorded. A WeChat message is sent only if no socket reached the user within a while, because a grant buys just one.
//!
//! Absent: any knowledge of analyses; the payload passes through as it is.

mod channels;
mod dispatcher;
mod webhook;

use schemas::UserId;

use crate::store::catalog;

pub use channels::Channels;
pub use dispatcher::{Handle, Options, Service, new};

pub use crate::store::catalog::{Notice, WebhookRow};

/// Webhooks of one user at most.
pub const WEBHOOKS_LIMIT: usize = 10;
/// Grants of one user for one template at most.
pub const GRANTS_LIMIT: i64 = 100;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("use the catalog for the outbox")]
    Catalog(#[from] catalog::Error),
    #[error("make the client for webhooks")]
    Client(#[source] reqwest::Error),
    #[error("a webhook is called at a public http or https address")]
    InvalidUrl,
    #[error("{WEBHOOKS_LIMIT} webhooks at most")]
    TooManyWebhooks,
    #[error("a template id has 1 to 64 visible characters")]
    InvalidTemplate,
    #[error("user {user} has {GRANTS_LIMIT} grants left")]
    TooManyGrants { user: UserId },
}
