//! Players, devices, admins, and the secrets that prove who is who.
//!
//! In: what clients call a person (openid, user number, WeChat-user number, free text), tokens, passwords, pairing codes.
//! Out: the one [`UserId`] that all names of a person stand for, and the [`Caller`] that a secret proves. In legacy mode an
//! openid or a free-text user id is enough to be that user; the gateway decides where that is allowed.
//!
//! Invariants: a secret is shown once and only its hash is kept; a wrong password takes as long as a wrong name; whoever
//! makes, revokes or claims something is in the audit log. Absent: which route needs what (`gateway/access.rs`).

mod admins;
mod caller;
mod devices;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;

use schemas::UserId;

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::store::catalog::{self, Catalog, UserRow};
use crate::texts::Lang;

pub use admins::LOGIN_LIFETIME;
pub use caller::{Caller, Scope, Scopes, UnknownScope};
pub use devices::PAIRING_LIFETIME;
pub use tokens::{Issued, Subject, TokenInfo};

pub use crate::store::catalog::AuditRow;

/// The openid that the mini-program has built in, and that `simple_login` answers.
pub const TEST_OPENID: &str = "test_user_123456";

/// The longest openid taken, in bytes. WeChat's have 28.
pub const OPENID_LIMIT_BYTES: usize = 128;

/// A player.
#[derive(Clone, Debug)]
pub struct User {
    pub user_id: UserId,
    pub openid: String,
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self { user_id: row.user_id, openid: row.openid }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("an openid has 1 to 128 visible characters")]
    InvalidOpenid,
    #[error("user {user} does not exist")]
    NoUser { user: UserId },
    #[error("admin {name} does not exist or is shut out")]
    NoAdmin { name: String },
    #[error("token {token_id} does not exist")]
    NoToken { token_id: String },
    #[error("a key needs at least one scope")]
    NoScopes,
    #[error(transparent)]
    UnknownScope(#[from] UnknownScope),
    #[error("a label has 100 visible characters at most")]
    InvalidLabel,
    #[error("the name of an admin has 1 to 64 characters out of letters, digits, '_', '.' and '-'")]
    InvalidAdminName,
    #[error("a password has 12 to 128 characters")]
    WeakPassword,
    #[error("the pairing code is wrong, used or expired")]
    WrongPairingCode,
    #[error("a group has a code and a name of 1 to 64 visible characters and 256 devices at most")]
    InvalidGroup,
    #[error("the group has {devices} devices: name the one that is meant")]
    AmbiguousGroup { devices: usize },
    #[error("there is no such device")]
    NoDevice,
    #[error("hash a password")]
    Hash(#[from] argon2::password_hash::Error),
    #[error("the catalog holds a password hash that cannot be read")]
    UnreadablePassword,
    #[error("finish a computation")]
    Broke,
    #[error("use the catalog")]
    Catalog(#[from] catalog::Error),
}

/// The accounts room. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    catalog: Catalog,
    clock: Clock,
    entropy: Entropy,
    /// Passwords are hashed one at a time.
    hashing: Arc<tokio::sync::Mutex<()>>,
}

impl Handle {
    #[must_use]
    pub fn new(catalog: Catalog, clock: Clock, entropy: Entropy) -> Self {
        Self { catalog, clock, entropy, hashing: Arc::default() }
    }

    /// The fixed user of `simple_login`, openid [`TEST_OPENID`]; made on first use.
    pub async fn test_user(&self) -> Result<User, Error> {
        self.by_openid(TEST_OPENID).await
    }

    /// The user with this openid; made on first use (legacy mode).
    pub async fn by_openid(&self, openid: &str) -> Result<User, Error> {
        let visible = openid.bytes().all(|byte| byte.is_ascii_graphic());
        if openid.is_empty() || openid.len() > OPENID_LIMIT_BYTES || !visible {
            return Err(Error::InvalidOpenid);
        }
        Ok(self.catalog.user_by_openid(openid, self.clock.now_us()).await?.into())
    }

    /// The user that a socket path names: an openid, our user number or a WeChat-user number. In this order, so that a
    /// person whose openid is a number keeps it. Any other text becomes a user of its own (legacy mode).
    pub async fn by_any_id(&self, id: &str) -> Result<User, Error> {
        match self.find(id).await? {
            Some(user) => Ok(user),
            None => self.by_openid(id).await,
        }
    }

    /// The openid of a user, for answers that name it.
    pub async fn openid_of(&self, user: UserId) -> Result<Option<String>, Error> {
        Ok(self.catalog.openid_of(user).await?)
    }

    /// The user with this number.
    pub async fn by_number(&self, user: UserId) -> Result<Option<User>, Error> {
        let openid = self.catalog.openid_of(user).await?;
        Ok(openid.map(|openid| User { user_id: user, openid }))
    }

    /// The user that is known by this id, by any of its forms; nobody is made.
    pub async fn find(&self, id: &str) -> Result<Option<User>, Error> {
        if let Some(user) = self.catalog.find_user_by_openid(id).await? {
            return Ok(Some(user.into()));
        }
        let Ok(UserId(number)) = id.parse() else { return Ok(None) };
        Ok(self.catalog.find_user_by_number(number).await?.map(User::from))
    }

    /// Users by number, at most `limit` of those after `after`.
    pub async fn users(&self, after: UserId, limit: i64) -> Result<Vec<User>, Error> {
        Ok(self.catalog.users(after, limit).await?.into_iter().map(User::from).collect())
    }

    /// The language that a user chose to be written to.
    pub async fn language(&self, user: UserId) -> Result<Option<Lang>, Error> {
        Ok(self.catalog.language_of(user).await?.and_then(|language| language.parse().ok()))
    }

    /// Sets that language; `None`: as the client asks.
    pub async fn set_language(&self, user: UserId, language: Option<Lang>) -> Result<(), Error> {
        Ok(self.catalog.set_language(user, language.map(|language| language.to_string()).as_deref()).await?)
    }

    /// Keeps a text that a form sent, of whom it may be; its number.
    pub async fn keep_entry(
        &self,
        kind: &str,
        user: Option<UserId>,
        device: Option<&schemas::DeviceCode>,
        content: &str,
    ) -> Result<i64, Error> {
        Ok(self.catalog.insert_form_entry(kind, user, device, content, self.clock.now_us()).await?)
    }

    /// Notes who did what to whom.
    pub async fn audit(&self, actor: &str, action: &str, subject: &str, details: Option<&str>) -> Result<(), Error> {
        Ok(self.catalog.note_audit(actor, action, subject, details, self.clock.now_us()).await?)
    }

    /// The audit log, the newest entry first, at most `limit` of those before `before`.
    pub async fn audit_log(&self, before: i64, limit: i64) -> Result<Vec<AuditRow>, Error> {
        Ok(self.catalog.audit_log(before, limit).await?)
    }

    /// A key of the service itself, 256 bits, made at first use and kept: for signing image addresses, for instance.
    pub async fn service_key(&self, name: &str) -> Result<String, Error> {
        Ok(self.catalog.setting(name, &tokens::digits(self.entropy.bytes::<52>())).await?)
    }
}
