//! Players, devices, bindings. In legacy mode an openid or a free-text user id is enough to be that user.
//!
//! In: what clients call a person (openid, user number, WeChat-user number, free text). Out: the one [`UserId`] that all
//! of them stand for. No secrets live here.

use schemas::{DeviceCode, UserId};

use crate::clock::Clock;
use crate::store::catalog::{self, Catalog, UserRow};

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
    #[error("use the catalog")]
    Catalog(#[from] catalog::Error),
}

/// The accounts room. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    catalog: Catalog,
    clock: Clock,
}

impl Handle {
    #[must_use]
    pub fn new(catalog: Catalog, clock: Clock) -> Self {
        Self { catalog, clock }
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
        if let Some(user) = self.catalog.find_user_by_openid(id).await? {
            return Ok(user.into());
        }
        if let Ok(UserId(number)) = id.parse()
            && let Some(user) = self.catalog.find_user_by_number(number).await?
        {
            return Ok(user.into());
        }
        self.by_openid(id).await
    }

    /// The openid of a user, for answers that name it.
    pub async fn openid_of(&self, user: UserId) -> Result<Option<String>, Error> {
        Ok(self.catalog.openid_of(user).await?)
    }

    /// Links a user and a device; repeating it changes nothing.
    pub async fn bind(&self, user: UserId, device: &DeviceCode) -> Result<(), Error> {
        Ok(self.catalog.bind(user, device, self.clock.now_us()).await?)
    }

    /// True if any user is bound to the device.
    pub async fn is_bound(&self, device: &DeviceCode) -> Result<bool, Error> {
        Ok(self.catalog.is_bound(device).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_id_form_of_a_person_is_the_same_user() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog.sqlite")).await.unwrap();
        let accounts = Handle::new(catalog, Clock::manual(1));
        let user = accounts.test_user().await.unwrap();
        assert_eq!(accounts.by_openid(TEST_OPENID).await.unwrap().user_id, user.user_id);
        assert_eq!(accounts.by_any_id(TEST_OPENID).await.unwrap().user_id, user.user_id);
        assert_eq!(accounts.by_any_id(&user.user_id.to_string()).await.unwrap().user_id, user.user_id);
        assert_ne!(accounts.by_any_id("u1").await.unwrap().user_id, user.user_id);
        assert!(matches!(accounts.by_openid("").await, Err(Error::InvalidOpenid)));
        assert!(matches!(accounts.by_openid("a b").await, Err(Error::InvalidOpenid)));
        let device = "2025001".parse().unwrap();
        assert!(!accounts.is_bound(&device).await.unwrap());
        accounts.bind(user.user_id, &device).await.unwrap();
        accounts.bind(user.user_id, &device).await.unwrap();
        assert!(accounts.is_bound(&device).await.unwrap());
    }
}
