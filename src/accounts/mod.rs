//! Players, devices, bindings. In legacy mode an openid or a free-text user id is enough to be that user.

use schemas::{DeviceCode, UserId};

/// A player.
#[derive(Clone, Debug)]
pub struct User {
    pub user_id: UserId,
    pub openid: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("an openid has 1 to 128 visible characters")]
    InvalidOpenid,
}

/// The accounts room. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {}

impl Handle {
    /// The fixed user of `simple_login`, openid `test_user_123456`; made on first use.
    pub async fn test_user(&self) -> Result<User, Error> {
        unimplemented!()
    }
    /// The user with this openid; made on first use (legacy mode).
    pub async fn by_openid(&self, _openid: &str) -> Result<User, Error> {
        unimplemented!()
    }
    /// The user that a socket path names: an openid, our user number or a WeChat-user number.
    pub async fn by_any_id(&self, _id: &str) -> Result<User, Error> {
        unimplemented!()
    }
    /// Links a user and a device; repeating it changes nothing.
    pub async fn bind(&self, _user: UserId, _device: &DeviceCode) -> Result<(), Error> {
        unimplemented!()
    }
    pub async fn is_bound(&self, _device: &DeviceCode) -> Result<bool, Error> {
        unimplemented!()
    }
}
