//! Admins, tokens, pairing codes, bindings, device groups and the audit log.

use schemas::{DeviceCode, UserId};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Catalog, Error, PlayerTotals, UserRow, at, get, parse, user_row};

/// A row of `tokens`, without the hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    pub token_id: String,
    pub kind: String,
    pub device_code: Option<DeviceCode>,
    pub user_id: Option<UserId>,
    pub admin_name: Option<String>,
    pub scopes: String,
    pub label: Option<String>,
    pub created_by: String,
    pub created_at_us: i64,
    pub expires_at_us: Option<i64>,
    pub last_used_at_us: Option<i64>,
    pub revoked_at_us: Option<i64>,
}

/// A token to be kept.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    pub token_id: &'a str,
    pub kind: &'static str,
    pub token_hash: &'a str,
    pub device_code: Option<&'a DeviceCode>,
    pub user_id: Option<UserId>,
    pub admin_name: Option<&'a str>,
    pub scopes: &'a str,
    pub label: Option<&'a str>,
    pub created_by: &'a str,
    pub created_at_us: i64,
    pub expires_at_us: Option<i64>,
}

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct AuditRow {
    pub entry_id: i64,
    /// µs since 1970 UTC.
    pub at_us: i64,
    /// Who: `admin:NAME`, `user:NUMBER`, `key:TOKEN_ID`, `device:CODE`, `operator`, `command`.
    pub actor: String,
    pub action: String,
    pub subject: String,
    pub details: Option<String>,
}

/// A device group and its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    pub group_code: String,
    pub name: Option<String>,
    pub devices: Vec<DeviceCode>,
}

const TOKEN_COLUMNS: &str = "token_id, kind, device_code, user_id, admin_name, scopes, label, created_by, created_at_us, \
                             expires_at_us, last_used_at_us, revoked_at_us";

impl Catalog {
    // Tokens.

    /// Keeps a token.
    pub async fn insert_token(&self, new: &NewToken<'_>) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO tokens (token_id, kind, token_hash, device_code, user_id, admin_name, scopes, label, \
             created_by, created_at_us, expires_at_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(new.token_id)
        .bind(new.kind)
        .bind(new.token_hash)
        .bind(new.device_code.map(DeviceCode::as_str))
        .bind(new.user_id.map(UserId::get))
        .bind(new.admin_name)
        .bind(new.scopes)
        .bind(new.label)
        .bind(new.created_by)
        .bind(new.created_at_us)
        .bind(new.expires_at_us)
        .execute(&self.writer)
        .await
        .map_err(at("insert a token"))?;
        Ok(())
    }

    /// The token with this hash that is neither revoked nor expired, whose admin is not disabled; and the user's
    /// language.
    pub async fn valid_token(&self, hash: &str, now_us: i64) -> Result<Option<(TokenRow, Option<String>)>, Error> {
        sqlx::query(
            "SELECT t.token_id, t.kind, t.device_code, t.user_id, t.admin_name, t.scopes, t.label, t.created_by, \
             t.created_at_us, t.expires_at_us, t.last_used_at_us, t.revoked_at_us, u.language FROM tokens t \
             LEFT JOIN users u USING (user_id) LEFT JOIN admins a ON a.name = t.admin_name \
             WHERE t.token_hash = ?1 AND t.revoked_at_us IS NULL AND coalesce(t.expires_at_us, ?2 + 1) > ?2 \
             AND a.disabled_at_us IS NULL",
        )
        .bind(hash)
        .bind(now_us)
        .fetch_optional(&self.readers)
        .await
        .map_err(at("look a token up"))?
        .map(|row| Ok((token_row(&row)?, get(&row, 12)?)))
        .transpose()
    }

    /// Notes that a token was used.
    pub async fn note_token_use(&self, token_id: &str, now_us: i64) -> Result<(), Error> {
        sqlx::query("UPDATE tokens SET last_used_at_us = ?2 WHERE token_id = ?1")
            .bind(token_id)
            .bind(now_us)
            .execute(&self.writer)
            .await
            .map_err(at("note the use of a token"))?;
        Ok(())
    }

    /// Every token, the newest first; of one user for `Some`.
    pub async fn tokens(&self, user: Option<UserId>) -> Result<Vec<TokenRow>, Error> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {TOKEN_COLUMNS} FROM tokens WHERE (?1 IS NULL OR user_id = ?1) ORDER BY created_at_us DESC, token_id"
        )))
        .bind(user.map(UserId::get))
        .fetch_all(&self.readers)
        .await
        .map_err(at("list tokens"))?;
        rows.iter().map(token_row).collect()
    }

    /// One token.
    pub async fn token(&self, token_id: &str) -> Result<Option<TokenRow>, Error> {
        sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {TOKEN_COLUMNS} FROM tokens WHERE token_id = ?")))
            .bind(token_id)
            .fetch_optional(&self.readers)
            .await
            .map_err(at("read a token"))?
            .map(|row| token_row(&row))
            .transpose()
    }

    /// Revokes a token; false if there is none that is not revoked.
    pub async fn revoke_token(&self, token_id: &str, now_us: i64) -> Result<bool, Error> {
        let done = sqlx::query("UPDATE tokens SET revoked_at_us = ?2 WHERE token_id = ?1 AND revoked_at_us IS NULL")
            .bind(token_id)
            .bind(now_us)
            .execute(&self.writer)
            .await
            .map_err(at("revoke a token"))?;
        Ok(done.rows_affected() > 0)
    }

    // Admins.

    /// Makes an admin, or changes the password of one.
    pub async fn set_admin(&self, name: &str, password_hash: &str, now_us: i64) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO admins (name, password_hash, created_at_us, changed_at_us) VALUES (?1, ?2, ?3, ?3) \
             ON CONFLICT (name) DO UPDATE SET password_hash = ?2, changed_at_us = ?3, disabled_at_us = NULL",
        )
        .bind(name)
        .bind(password_hash)
        .bind(now_us)
        .execute(&self.writer)
        .await
        .map_err(at("set an admin"))?;
        Ok(())
    }

    /// The password hash of an admin who is not disabled.
    pub async fn admin_password(&self, name: &str) -> Result<Option<String>, Error> {
        sqlx::query("SELECT password_hash FROM admins WHERE name = ? AND disabled_at_us IS NULL")
            .bind(name)
            .fetch_optional(&self.readers)
            .await
            .map_err(at("read an admin"))?
            .map(|row| get(&row, 0))
            .transpose()
    }

    /// Names of the admins, and whether each is disabled.
    pub async fn admins(&self) -> Result<Vec<(String, bool)>, Error> {
        let rows = sqlx::query("SELECT name, disabled_at_us IS NOT NULL FROM admins ORDER BY name")
            .fetch_all(&self.readers)
            .await
            .map_err(at("list admins"))?;
        rows.iter().map(|row| Ok((get(row, 0)?, get::<i64>(row, 1)? != 0))).collect()
    }

    /// Shuts an admin out; their tokens no longer count. False if there is none of this name.
    pub async fn disable_admin(&self, name: &str, now_us: i64) -> Result<bool, Error> {
        let done = sqlx::query("UPDATE admins SET disabled_at_us = ?2 WHERE name = ?1 AND disabled_at_us IS NULL")
            .bind(name)
            .bind(now_us)
            .execute(&self.writer)
            .await
            .map_err(at("disable an admin"))?;
        Ok(done.rows_affected() > 0)
    }

    // Pairing codes and bindings.

    /// Keeps a pairing code; an older one of the device that nobody used no longer counts.
    pub async fn insert_pairing_code(
        &self,
        code_hash: &str,
        device: &DeviceCode,
        created_by: &str,
        now_us: i64,
        expires_at_us: i64,
    ) -> Result<(), Error> {
        let step = "insert a pairing code";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        sqlx::query("DELETE FROM pairing_codes WHERE used_at_us IS NULL AND (device_code = ? OR expires_at_us <= ?)")
            .bind(device.as_str())
            .bind(now_us)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        sqlx::query(
            "INSERT INTO pairing_codes (code_hash, device_code, created_by, created_at_us, expires_at_us) \
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(code_hash)
        .bind(device.as_str())
        .bind(created_by)
        .bind(now_us)
        .bind(expires_at_us)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        transaction.commit().await.map_err(at(step))
    }

    /// Spends a pairing code and binds its device to the user, in one commit; `None` if no such code is left.
    pub async fn claim_device(&self, code_hash: &str, user: UserId, now_us: i64) -> Result<Option<DeviceCode>, Error> {
        let step = "claim a device";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        let spent = sqlx::query(
            "UPDATE pairing_codes SET used_by = ?2, used_at_us = ?3 \
             WHERE code_hash = ?1 AND used_at_us IS NULL AND expires_at_us > ?3 RETURNING device_code",
        )
        .bind(code_hash)
        .bind(user.get())
        .bind(now_us)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(at(step))?;
        let Some(spent) = spent else { return Ok(None) };
        let device: DeviceCode = parse("device_code", &get::<String>(&spent, 0)?)?;
        sqlx::query(
            "INSERT INTO bindings (user_id, device_code, created_at_us) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(user.get())
        .bind(device.as_str())
        .bind(now_us)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        transaction.commit().await.map_err(at(step))?;
        Ok(Some(device))
    }

    /// Takes the link between a user and a device away; false if there was none.
    pub async fn unbind(&self, user: UserId, device: &DeviceCode) -> Result<bool, Error> {
        let done = sqlx::query("DELETE FROM bindings WHERE user_id = ? AND device_code = ?")
            .bind(user.get())
            .bind(device.as_str())
            .execute(&self.writer)
            .await
            .map_err(at("unbind a device"))?;
        Ok(done.rows_affected() > 0)
    }

    /// The devices that a user is bound to.
    pub async fn devices_of(&self, user: UserId) -> Result<Vec<DeviceCode>, Error> {
        let rows = sqlx::query("SELECT device_code FROM bindings WHERE user_id = ? ORDER BY device_code")
            .bind(user.get())
            .fetch_all(&self.readers)
            .await
            .map_err(at("list bound devices"))?;
        rows.iter().map(|row| parse("device_code", &get::<String>(row, 0)?)).collect()
    }

    /// The users that are bound to a device.
    pub async fn users_of(&self, device: &DeviceCode) -> Result<Vec<UserRow>, Error> {
        let rows = sqlx::query(
            "SELECT user_id, openid FROM bindings JOIN users USING (user_id) WHERE device_code = ? ORDER BY user_id",
        )
        .bind(device.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(at("list bound users"))?;
        rows.iter().map(user_row).collect()
    }

    /// True if this user is bound to the device.
    pub async fn is_bound_to(&self, user: UserId, device: &DeviceCode) -> Result<bool, Error> {
        let row = sqlx::query("SELECT 1 FROM bindings WHERE user_id = ? AND device_code = ?")
            .bind(user.get())
            .bind(device.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(at("read a binding"))?;
        Ok(row.is_some())
    }

    // Users.

    /// Sets the language that a user is written to; `None`: that of the client.
    pub async fn set_language(&self, user: UserId, language: Option<&str>) -> Result<(), Error> {
        sqlx::query("UPDATE users SET language = ?2 WHERE user_id = ?1")
            .bind(user.get())
            .bind(language)
            .execute(&self.writer)
            .await
            .map_err(at("set a language"))?;
        Ok(())
    }

    /// The language that a user chose.
    pub async fn language_of(&self, user: UserId) -> Result<Option<String>, Error> {
        let row = sqlx::query("SELECT language FROM users WHERE user_id = ?")
            .bind(user.get())
            .fetch_optional(&self.readers)
            .await
            .map_err(at("read a language"))?;
        row.map_or(Ok(None), |row| get(&row, 0))
    }

    /// Sets the pipeline that analyses a user's sessions; `None`: everybody's.
    pub async fn set_pipeline_of(&self, user: UserId, pipeline: Option<&str>) -> Result<(), Error> {
        sqlx::query("UPDATE users SET pipeline = ?2 WHERE user_id = ?1")
            .bind(user.get())
            .bind(pipeline)
            .execute(&self.writer)
            .await
            .map_err(at("set a player's pipeline"))?;
        Ok(())
    }

    /// The pipeline that was chosen for a user.
    pub async fn pipeline_of(&self, user: UserId) -> Result<Option<String>, Error> {
        let row = sqlx::query("SELECT pipeline FROM users WHERE user_id = ?")
            .bind(user.get())
            .fetch_optional(&self.readers)
            .await
            .map_err(at("read a player's pipeline"))?;
        row.map_or(Ok(None), |row| get(&row, 0))
    }

    /// Every player with totals, for the SQL table.
    pub async fn players(&self) -> Result<Vec<PlayerTotals>, Error> {
        let rows = sqlx::query(
            "SELECT u.user_id, u.created_at_us, u.language, u.pipeline, \
             (SELECT count(*) FROM bindings b WHERE b.user_id = u.user_id), count(s.session_id), \
             coalesce(sum(s.sealed_rows), 0), min(s.started_at_us), max(s.started_at_us) \
             FROM users u LEFT JOIN sessions s ON s.user_id = u.user_id GROUP BY u.user_id ORDER BY u.user_id",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(at("list players"))?;
        rows.iter()
            .map(|row| {
                Ok(PlayerTotals {
                    user_id: UserId(get(row, 0)?),
                    created_at_us: get(row, 1)?,
                    language: get(row, 2)?,
                    pipeline: get(row, 3)?,
                    devices: get(row, 4)?,
                    sessions: get(row, 5)?,
                    sealed_rows: get(row, 6)?,
                    first_session_us: get(row, 7)?,
                    last_session_us: get(row, 8)?,
                })
            })
            .collect()
    }

    /// Users by number, at most `limit` of those after `after`.
    pub async fn users(&self, after: UserId, limit: i64) -> Result<Vec<UserRow>, Error> {
        let rows = sqlx::query("SELECT user_id, openid FROM users WHERE user_id > ? ORDER BY user_id LIMIT ?")
            .bind(after.get())
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(at("list users"))?;
        rows.iter().map(user_row).collect()
    }

    // Groups.

    /// Makes a group if absent.
    pub async fn ensure_group(&self, group_code: &str, now_us: i64) -> Result<(), Error> {
        sqlx::query("INSERT INTO device_groups (group_code, created_at_us) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(group_code)
            .bind(now_us)
            .execute(&self.writer)
            .await
            .map_err(at("make a group"))?;
        Ok(())
    }

    /// Sets name and members of a group, which is made if absent.
    pub async fn set_group(
        &self,
        group_code: &str,
        name: Option<&str>,
        devices: &[DeviceCode],
        now_us: i64,
    ) -> Result<(), Error> {
        let step = "set a group";
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(at(step))?;
        sqlx::query(
            "INSERT INTO device_groups (group_code, name, created_at_us) VALUES (?1, ?2, ?3) \
             ON CONFLICT (group_code) DO UPDATE SET name = ?2",
        )
        .bind(group_code)
        .bind(name)
        .bind(now_us)
        .execute(&mut *transaction)
        .await
        .map_err(at(step))?;
        sqlx::query("DELETE FROM device_group_members WHERE group_code = ?")
            .bind(group_code)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        for device in devices {
            sqlx::query(
                "INSERT INTO device_group_members (group_code, device_code, created_at_us) VALUES (?, ?, ?) \
                 ON CONFLICT DO NOTHING",
            )
            .bind(group_code)
            .bind(device.as_str())
            .bind(now_us)
            .execute(&mut *transaction)
            .await
            .map_err(at(step))?;
        }
        transaction.commit().await.map_err(at(step))
    }

    /// Every group with its members.
    pub async fn groups(&self) -> Result<Vec<GroupRow>, Error> {
        let rows = sqlx::query(
            "SELECT g.group_code, g.name, m.device_code FROM device_groups g \
             LEFT JOIN device_group_members m USING (group_code) ORDER BY g.group_code, m.device_code",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(at("list groups"))?;
        let mut groups: Vec<GroupRow> = Vec::new();
        for row in &rows {
            let group_code: String = get(row, 0)?;
            if groups.last().is_none_or(|group| group.group_code != group_code) {
                groups.push(GroupRow { group_code, name: get(row, 1)?, devices: Vec::new() });
            }
            if let (Some(group), Some(device)) = (groups.last_mut(), get::<Option<String>>(row, 2)?) {
                group.devices.push(parse("device_code", &device)?);
            }
        }
        Ok(groups)
    }

    /// The members of one group; empty if there is no such group.
    pub async fn group_members(&self, group_code: &str) -> Result<Vec<DeviceCode>, Error> {
        let rows =
            sqlx::query("SELECT device_code FROM device_group_members WHERE group_code = ? ORDER BY device_code")
                .bind(group_code)
                .fetch_all(&self.readers)
                .await
                .map_err(at("list the members of a group"))?;
        rows.iter().map(|row| parse("device_code", &get::<String>(row, 0)?)).collect()
    }

    // Audit log and settings.

    /// Notes who did what.
    pub async fn note_audit(
        &self,
        actor: &str,
        action: &str,
        subject: &str,
        details: Option<&str>,
        now_us: i64,
    ) -> Result<(), Error> {
        sqlx::query("INSERT INTO audit_log (at_us, actor, action, subject, details) VALUES (?, ?, ?, ?, ?)")
            .bind(now_us)
            .bind(actor)
            .bind(action)
            .bind(subject)
            .bind(details)
            .execute(&self.writer)
            .await
            .map_err(at("write the audit log"))?;
        Ok(())
    }

    /// The audit log, the newest entry first, at most `limit` of those before `before`.
    pub async fn audit_log(&self, before: i64, limit: i64) -> Result<Vec<AuditRow>, Error> {
        let rows = sqlx::query(
            "SELECT entry_id, at_us, actor, action, subject, details FROM audit_log WHERE entry_id < ? \
             ORDER BY entry_id DESC LIMIT ?",
        )
        .bind(before)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(at("read the audit log"))?;
        rows.iter()
            .map(|row| {
                Ok(AuditRow {
                    entry_id: get(row, 0)?,
                    at_us: get(row, 1)?,
                    actor: get(row, 2)?,
                    action: get(row, 3)?,
                    subject: get(row, 4)?,
                    details: get(row, 5)?,
                })
            })
            .collect()
    }

    /// A value of the service itself; `fresh` is kept and returned if there is none yet.
    pub async fn setting(&self, name: &str, fresh: &str) -> Result<String, Error> {
        sqlx::query("INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(name)
            .bind(fresh)
            .execute(&self.writer)
            .await
            .map_err(at("keep a setting"))?;
        let row = sqlx::query("SELECT value FROM settings WHERE name = ?")
            .bind(name)
            .fetch_one(&self.writer)
            .await
            .map_err(at("read a setting"))?;
        get(&row, 0)
    }
}

fn token_row(row: &SqliteRow) -> Result<TokenRow, Error> {
    let device: Option<String> = get(row, 2)?;
    Ok(TokenRow {
        token_id: get(row, 0)?,
        kind: get(row, 1)?,
        device_code: device.map(|device| parse("device_code", &device)).transpose()?,
        user_id: row.try_get::<Option<i64>, _>(3).map_err(at("read a token"))?.map(UserId),
        admin_name: get(row, 4)?,
        scopes: get(row, 5)?,
        label: get(row, 6)?,
        created_by: get(row, 7)?,
        created_at_us: get(row, 8)?,
        expires_at_us: get(row, 9)?,
        last_used_at_us: get(row, 10)?,
        revoked_at_us: get(row, 11)?,
    })
}
