//! What devices upload under ids of their own, where they can be reached, and what forms left.

use std::net::IpAddr;

use schemas::{DeviceCode, UserId};

use super::{Catalog, Error, SessionRow, at, get, session_row};

impl Catalog {
    /// The newest collection of what a device sent under this id.
    pub async fn collection(&self, device: &DeviceCode, claimed: &str) -> Result<Option<SessionRow>, Error> {
        sqlx::query("SELECT * FROM sessions WHERE claimed_id = ? AND device_code = ? ORDER BY session_id DESC LIMIT 1")
            .bind(claimed)
            .bind(device.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(at("find a collection"))?
            .map(|row| session_row(&row))
            .transpose()
    }

    /// Notes the address of a device's own HTTP server.
    pub async fn register_address(&self, device: &DeviceCode, address: IpAddr, now_us: i64) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO devices (device_code, first_seen_us, last_seen_us, ip_address, ip_registered_at_us) \
             VALUES (?1, ?2, ?2, ?3, ?2) ON CONFLICT (device_code) DO UPDATE SET last_seen_us = max(last_seen_us, ?2), \
             ip_address = ?3, ip_registered_at_us = ?2",
        )
        .bind(device.as_str())
        .bind(now_us)
        .bind(address.to_string())
        .execute(&self.writer)
        .await
        .map_err(at("register an address"))?;
        Ok(())
    }

    /// The address that a device registered.
    pub async fn address_of(&self, device: &DeviceCode) -> Result<Option<IpAddr>, Error> {
        let row = sqlx::query("SELECT ip_address FROM devices WHERE device_code = ?")
            .bind(device.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(at("read an address"))?;
        let address: Option<String> = row.map_or(Ok(None), |row| get(&row, 0))?;
        Ok(address.and_then(|address| address.parse().ok()))
    }

    /// Keeps what a form sent; its number.
    pub async fn insert_form_entry(
        &self,
        kind: &str,
        user: Option<UserId>,
        device: Option<&DeviceCode>,
        content: &str,
        now_us: i64,
    ) -> Result<i64, Error> {
        let row = sqlx::query(
            "INSERT INTO form_entries (kind, user_id, device_code, content, created_at_us) VALUES (?, ?, ?, ?, ?) \
             RETURNING entry_id",
        )
        .bind(kind)
        .bind(user.map(UserId::get))
        .bind(device.map(DeviceCode::as_str))
        .bind(content)
        .bind(now_us)
        .fetch_one(&self.writer)
        .await
        .map_err(at("keep a form entry"))?;
        get(&row, 0)
    }
}
