//! Bindings of users and devices, the proof that somebody holds a device, and groups of devices.

use std::time::Duration;

use schemas::{DeviceCode, UserId};

use super::tokens::{digits, hash};
use super::{Error, Handle, User};
use crate::store::catalog::GroupRow;

/// A pairing code can be used for so long.
pub const PAIRING_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Characters of a group's code and name at most.
const GROUP_LIMIT: usize = 64;
/// Devices of a group at most.
const GROUP_DEVICES_LIMIT: usize = 256;

impl Handle {
    /// Links a user and a device; repeating it changes nothing.
    pub async fn bind(&self, user: UserId, device: &DeviceCode) -> Result<(), Error> {
        Ok(self.catalog.bind(user, device, self.clock.now_us()).await?)
    }

    /// Takes the link away; false if there was none.
    pub async fn unbind(&self, user: UserId, device: &DeviceCode) -> Result<bool, Error> {
        Ok(self.catalog.unbind(user, device).await?)
    }

    /// True if any user is bound to the device.
    pub async fn is_bound(&self, device: &DeviceCode) -> Result<bool, Error> {
        Ok(self.catalog.is_bound(device).await?)
    }

    /// True if this user is bound to the device.
    pub async fn is_bound_to(&self, user: UserId, device: &DeviceCode) -> Result<bool, Error> {
        Ok(self.catalog.is_bound_to(user, device).await?)
    }

    /// The devices that a user is bound to.
    pub async fn devices_of(&self, user: UserId) -> Result<Vec<DeviceCode>, Error> {
        Ok(self.catalog.devices_of(user).await?)
    }

    /// The users that are bound to a device.
    pub async fn users_of(&self, device: &DeviceCode) -> Result<Vec<User>, Error> {
        Ok(self.catalog.users_of(device).await?.into_iter().map(User::from).collect())
    }

    /// A code that binds this device once, to whoever has it: eight letters and digits in two halves, good for
    /// [`PAIRING_LIFETIME`]. An older code of the device no longer counts.
    pub async fn new_pairing_code(&self, device: &DeviceCode, by: &str) -> Result<String, Error> {
        let code = digits(self.entropy.bytes::<8>());
        let now_us = self.clock.now_us();
        let lifetime_us = i64::try_from(PAIRING_LIFETIME.as_micros()).unwrap_or(i64::MAX);
        self.catalog.insert_pairing_code(&hash(&code), device, by, now_us, now_us + lifetime_us).await?;
        self.audit(by, "device.pairing_code", device.as_str(), None).await?;
        let (first, second) = code.split_at(4);
        Ok(format!("{first}-{second}"))
    }

    /// Binds the device of a pairing code to the user and spends the code.
    ///
    /// # Errors
    /// [`Error::WrongPairingCode`]: unknown, used or expired.
    pub async fn claim(&self, user: UserId, code: &str) -> Result<DeviceCode, Error> {
        // As people type it: capitals, blanks and hyphens do not matter, and O, I and L are digits.
        let canonical: String = code
            .chars()
            .filter(|letter| !matches!(letter, '-' | ' '))
            .map(|letter| match letter.to_ascii_lowercase() {
                'o' => '0',
                'i' | 'l' => '1',
                other => other,
            })
            .take(32)
            .collect();
        let claimed = self.catalog.claim_device(&hash(&canonical), user, self.clock.now_us()).await?;
        let device = claimed.ok_or(Error::WrongPairingCode)?;
        self.audit(&format!("user:{user}"), "device.claim", device.as_str(), None).await?;
        Ok(device)
    }

    /// Makes a group if absent.
    ///
    /// # Errors
    /// [`Error::InvalidGroup`].
    pub async fn ensure_group(&self, group_code: &str) -> Result<(), Error> {
        check_group_text(group_code)?;
        Ok(self.catalog.ensure_group(group_code, self.clock.now_us()).await?)
    }

    /// Sets name and members of a group.
    ///
    /// # Errors
    /// [`Error::InvalidGroup`].
    pub async fn set_group(
        &self,
        group_code: &str,
        name: Option<&str>,
        devices: &[DeviceCode],
        by: &str,
    ) -> Result<(), Error> {
        check_group_text(group_code)?;
        name.map_or(Ok(()), check_group_text)?;
        if devices.len() > GROUP_DEVICES_LIMIT {
            return Err(Error::InvalidGroup);
        }
        self.catalog.set_group(group_code, name, devices, self.clock.now_us()).await?;
        self.audit(by, "group.set", group_code, None).await
    }

    /// Every group with its members.
    pub async fn groups(&self) -> Result<Vec<GroupRow>, Error> {
        Ok(self.catalog.groups().await?)
    }

    /// The device that a group code stands for: the group's only member, else the device of that very code.
    ///
    /// # Errors
    /// [`Error::AmbiguousGroup`] for a group of several devices, [`Error::NoDevice`] where the code is no device code.
    pub async fn device_of_group(&self, group_code: &str) -> Result<DeviceCode, Error> {
        match self.catalog.group_members(group_code).await?.as_slice() {
            [only] => Ok(only.clone()),
            [] => group_code.parse().map_err(|_| Error::NoDevice),
            several => match several.iter().find(|device| device.as_str() == group_code) {
                Some(device) => Ok(device.clone()),
                None => Err(Error::AmbiguousGroup { devices: several.len() }),
            },
        }
    }
}

fn check_group_text(text: &str) -> Result<(), Error> {
    let good = !text.is_empty() && text.chars().count() <= GROUP_LIMIT && !text.chars().any(char::is_control);
    if good { Ok(()) } else { Err(Error::InvalidGroup) }
}
