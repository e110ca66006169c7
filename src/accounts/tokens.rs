//! Tokens: made, shown once, kept as hashes, looked up, revoked.
//!
//! A token is `v`, a letter for its kind, `_`, and 32 characters of base 32: 160 random bits, so that a plain SHA-256 keeps
//! it safe where a password would need a slow hash.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemas::{DeviceCode, UserId};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::{Caller, Error, Handle, Scopes, UnknownScope};
use crate::store::catalog::{NewToken, TokenRow};

/// Whom a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Device(DeviceCode),
    User(UserId),
    /// A login, or a token for scripts of an admin.
    Admin(String),
    /// A key with scopes.
    Key(Scopes),
}

impl Subject {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Device(_) => "device",
            Self::User(_) => "user",
            Self::Admin(_) => "admin",
            Self::Key(_) => "api",
        }
    }

    const fn prefix(&self) -> &'static str {
        match self {
            Self::Device(_) => "vd_",
            Self::User(_) => "vu_",
            Self::Admin(_) => "va_",
            Self::Key(_) => "vk_",
        }
    }
}

/// A token that was just made: the only time that its text is known.
#[derive(Clone)]
pub struct Issued {
    pub token: String,
    pub info: TokenInfo,
}

/// Without the token, so that it never gets into a log.
impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("info", &self.info).finish_non_exhaustive()
    }
}

/// What may be known of a token. Times are µs since 1970 UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct TokenInfo {
    /// Public name, for listing and revoking.
    pub token_id: String,
    /// `device`, `user`, `admin` or `api`.
    pub kind: String,
    #[schema(value_type = Option<String>)]
    pub device_code: Option<DeviceCode>,
    #[schema(value_type = Option<i64>)]
    pub user_id: Option<UserId>,
    pub admin_name: Option<String>,
    /// Of keys.
    pub scopes: Scopes,
    pub label: Option<String>,
    pub created_by: String,
    pub created_at_us: i64,
    /// Null: never.
    pub expires_at_us: Option<i64>,
    /// To within a minute.
    pub last_used_at_us: Option<i64>,
    pub revoked_at_us: Option<i64>,
}

impl TryFrom<TokenRow> for TokenInfo {
    type Error = UnknownScope;

    fn try_from(row: TokenRow) -> Result<Self, UnknownScope> {
        Ok(Self {
            scopes: row.scopes.parse()?,
            token_id: row.token_id,
            kind: row.kind,
            device_code: row.device_code,
            user_id: row.user_id,
            admin_name: row.admin_name,
            label: row.label,
            created_by: row.created_by,
            created_at_us: row.created_at_us,
            expires_at_us: row.expires_at_us,
            last_used_at_us: row.last_used_at_us,
            revoked_at_us: row.revoked_at_us,
        })
    }
}

/// The use of a token is noted this often at most.
const USE_NOTED_US: i64 = 60_000_000;
/// A token, pairing code or password longer than this is not even hashed.
const SECRET_LIMIT_BYTES: usize = 256;
/// Digits of secrets: Crockford's base 32 in lower case, which has no letters that look like others.
const DIGITS: [char; 32] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'j', 'k', 'm', 'n', 'p',
    'q', 'r', 's', 't', 'v', 'w', 'x', 'y', 'z',
];
/// Characters of a label at most.
const LABEL_LIMIT: usize = 100;

/// Random digits, 5 bits each.
pub(super) fn digits<const N: usize>(random: [u8; N]) -> String {
    random.iter().filter_map(|byte| DIGITS.get(usize::from(byte & 31))).collect()
}

/// SHA-256 as base64.
pub(super) fn hash(secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(secret.as_bytes()))
}

impl Handle {
    /// Makes a token.
    ///
    /// # Errors
    /// [`Error::NoScopes`] for a key that could do nothing, [`Error::NoAdmin`] for an admin that does not exist.
    pub async fn issue(
        &self,
        subject: &Subject,
        label: Option<&str>,
        lifetime: Option<Duration>,
        created_by: &str,
    ) -> Result<Issued, Error> {
        if label.is_some_and(|label| label.chars().count() > LABEL_LIMIT || label.chars().any(char::is_control)) {
            return Err(Error::InvalidLabel);
        }
        let (mut scopes, mut admin_name, mut device_code, mut user_id) = (String::new(), None, None, None);
        match subject {
            Subject::Key(given) if given.is_empty() => return Err(Error::NoScopes),
            Subject::Key(given) => scopes = given.to_string(),
            Subject::Admin(name) => {
                let known = self.catalog.admins().await?.iter().any(|(known, disabled)| known == name && !disabled);
                if !known {
                    return Err(Error::NoAdmin { name: name.clone() });
                }
                admin_name = Some(name.as_str());
            }
            Subject::Device(code) => device_code = Some(code),
            Subject::User(user) => {
                if self.catalog.openid_of(*user).await?.is_none() {
                    return Err(Error::NoUser { user: *user });
                }
                user_id = Some(*user);
            }
        }
        let token = format!("{}{}", subject.prefix(), digits(self.entropy.bytes::<32>()));
        let token_id = format!("t-{}", digits(self.entropy.bytes::<12>()));
        let created_at_us = self.clock.now_us();
        let expires_at_us = lifetime
            .map(|lifetime| created_at_us.saturating_add(i64::try_from(lifetime.as_micros()).unwrap_or(i64::MAX)));
        let new = NewToken {
            token_id: &token_id,
            kind: subject.kind(),
            token_hash: &hash(&token),
            device_code,
            user_id,
            admin_name,
            scopes: &scopes,
            label,
            created_by,
            created_at_us,
            expires_at_us,
        };
        self.catalog.insert_token(&new).await?;
        let whom = match subject {
            Subject::Device(code) => format!("device:{code}"),
            Subject::User(user) => format!("user:{user}"),
            Subject::Admin(name) => format!("admin:{name}"),
            Subject::Key(scopes) => format!("key:{scopes}"),
        };
        self.audit(created_by, "token.create", &token_id, Some(&whom)).await?;
        let info = self.token(&token_id).await?.ok_or(Error::NoToken { token_id })?;
        Ok(Issued { token, info })
    }

    /// Whom a token speaks for; `None` if it is unknown, revoked or expired.
    pub async fn authenticate(&self, token: &str) -> Result<Option<Caller>, Error> {
        if token.len() > SECRET_LIMIT_BYTES {
            return Ok(None);
        }
        let now_us = self.clock.now_us();
        let Some((row, language)) = self.catalog.valid_token(&hash(token), now_us).await? else { return Ok(None) };
        if row.last_used_at_us.is_none_or(|used_at_us| now_us - used_at_us >= USE_NOTED_US)
            && let Err(error) = self.catalog.note_token_use(&row.token_id, now_us).await
        {
            warn!(error = &error as &dyn std::error::Error, "the use of a token could not be noted");
        }
        Ok(match (row.kind.as_str(), row.device_code, row.user_id, row.admin_name) {
            ("device", Some(code), ..) => Some(Caller::Device(code)),
            ("user", _, Some(user), _) => {
                Some(Caller::User { user, language: language.and_then(|language| language.parse().ok()) })
            }
            ("admin", .., Some(name)) => Some(Caller::Admin { name: name.into() }),
            ("api", ..) => Some(Caller::Key { token_id: row.token_id.into(), scopes: row.scopes.parse()? }),
            _ => None,
        })
    }

    /// Every token, the newest first; of one user for `Some`.
    pub async fn tokens(&self, user: Option<UserId>) -> Result<Vec<TokenInfo>, Error> {
        self.catalog.tokens(user).await?.into_iter().map(|row| Ok(row.try_into()?)).collect()
    }

    /// One token.
    pub async fn token(&self, token_id: &str) -> Result<Option<TokenInfo>, Error> {
        self.catalog.token(token_id).await?.map(|row| Ok(row.try_into()?)).transpose()
    }

    /// Revokes a token by itself: logs its owner out.
    pub async fn revoke_itself(&self, token: &str, by: &str) -> Result<(), Error> {
        if let Some((row, _)) = self.catalog.valid_token(&hash(token), self.clock.now_us()).await? {
            self.revoke(&row.token_id, by).await?;
        }
        Ok(())
    }

    /// Revokes a token; false if there is none that is not revoked.
    pub async fn revoke(&self, token_id: &str, by: &str) -> Result<bool, Error> {
        let revoked = self.catalog.revoke_token(token_id, self.clock.now_us()).await?;
        if revoked {
            self.audit(by, "token.revoke", token_id, None).await?;
        }
        Ok(revoked)
    }
}
