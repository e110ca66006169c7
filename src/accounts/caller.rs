//! Who is calling, as far as a secret proves it, and what a key may do.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemas::{DeviceCode, UserId};
use serde::{Deserialize, Serialize};

use crate::texts::Lang;

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody proved anything.
    Stranger,
    /// Somebody at the machine itself, in legacy mode: may do what an admin may.
    Operator,
    Admin {
        name: Arc<str>,
    },
    User {
        user: UserId,
        language: Option<Lang>,
    },
    Device(DeviceCode),
    /// A program with a key, for instance of a data scientist.
    Key {
        token_id: Arc<str>,
        scopes: Scopes,
    },
}

impl Caller {
    /// True for those who may see and do everything.
    #[must_use]
    pub const fn is_admin(&self) -> bool {
        matches!(self, Self::Admin { .. } | Self::Operator)
    }
}

/// As the audit log names them.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger => f.write_str("stranger"),
            Self::Operator => f.write_str("operator"),
            Self::Admin { name } => write!(f, "admin:{name}"),
            Self::User { user, .. } => write!(f, "user:{user}"),
            Self::Device(code) => write!(f, "device:{code}"),
            Self::Key { token_id, .. } => write!(f, "key:{token_id}"),
        }
    }
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum Scope {
    /// Ask SQL of every stored frame, stroke and session.
    #[serde(rename = "sql")]
    Sql,
    /// Read sessions, strokes and results of everybody.
    #[serde(rename = "sessions:read")]
    SessionsRead,
    /// Start, stop and re-analyse sessions of everybody.
    #[serde(rename = "sessions:write")]
    SessionsWrite,
    /// Read the state of every device.
    #[serde(rename = "devices:read")]
    DevicesRead,
    /// Command every device.
    #[serde(rename = "devices:write")]
    DevicesWrite,
    /// Read players.
    #[serde(rename = "players:read")]
    PlayersRead,
}

impl Scope {
    pub const ALL: [Self; 6] =
        [Self::Sql, Self::SessionsRead, Self::SessionsWrite, Self::DevicesRead, Self::DevicesWrite, Self::PlayersRead];

    /// The word on the wire and in the catalog.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sql => "sql",
            Self::SessionsRead => "sessions:read",
            Self::SessionsWrite => "sessions:write",
            Self::DevicesRead => "devices:read",
            Self::DevicesWrite => "devices:write",
            Self::PlayersRead => "players:read",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no scope; there are sql, sessions:read, sessions:write, devices:read, devices:write, players:read")]
pub struct UnknownScope(pub String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let known = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        known.ok_or_else(|| UnknownScope(text.chars().take(32).collect()))
    }
}

/// A set of scopes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Scope> for Scopes {
    /// In a fixed order, each once.
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let given: Vec<Scope> = scopes.into_iter().collect();
        Self(Scope::ALL.into_iter().filter(|scope| given.contains(scope)).collect())
    }
}

/// Words separated by spaces or commas.
impl FromStr for Scopes {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        text.split([' ', ',']).filter(|word| !word.is_empty()).map(str::parse).collect()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}
