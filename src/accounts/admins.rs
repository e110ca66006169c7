//! Admin accounts: a name and a password, kept as argon2id.

use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};

use super::{Error, Handle, Issued, Subject};

/// A login of the dashboard lasts so long.
pub const LOGIN_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Shortest and longest password, in characters: what NIST SP 800-63B asks of a password that stands alone.
const PASSWORD_CHARACTERS: std::ops::RangeInclusive<usize> = 12..=128;

impl Handle {
    /// Makes an admin, or changes the password of one.
    ///
    /// # Errors
    /// [`Error::InvalidAdminName`], [`Error::WeakPassword`].
    pub async fn set_admin(&self, name: &str, password: &str, by: &str) -> Result<(), Error> {
        let good_name = schemas::ids::is_path_segment(name);
        if !good_name {
            return Err(Error::InvalidAdminName);
        }
        if !PASSWORD_CHARACTERS.contains(&password.chars().count()) {
            return Err(Error::WeakPassword);
        }
        let (password, salt) = (password.to_owned(), self.entropy.bytes::<16>());
        let hash = self.hashing(move || hash(&password, salt)).await?;
        self.catalog.set_admin(name, &hash, self.clock.now_us()).await?;
        self.audit(by, "admin.set", name, None).await
    }

    /// Logs an admin in: a token that lasts [`LOGIN_LIFETIME`]. `None` if name or password are wrong, and it takes as
    /// long then, so that nobody learns which.
    pub async fn login(&self, name: &str, password: &str) -> Result<Option<Issued>, Error> {
        if password.len() > 4 * PASSWORD_CHARACTERS.end() {
            return Ok(None);
        }
        let kept = self.catalog.admin_password(name).await?;
        let (password, salt) = (password.to_owned(), self.entropy.bytes::<16>());
        let right = self
            .hashing(move || match kept {
                Some(kept) => matches(&password, &kept),
                None => hash(&password, salt).map(|_| false),
            })
            .await?;
        if !right {
            metrics::counter!("volant_accounts_refused_logins_total").increment(1);
            return Ok(None);
        }
        let actor = format!("admin:{name}");
        self.issue(&Subject::Admin(name.to_owned()), Some("login"), Some(LOGIN_LIFETIME), &actor).await.map(Some)
    }

    /// Names of the admins, and whether each is shut out.
    pub async fn admins(&self) -> Result<Vec<(String, bool)>, Error> {
        Ok(self.catalog.admins().await?)
    }

    /// Shuts an admin out, with all their tokens; false if there is none of this name.
    pub async fn disable_admin(&self, name: &str, by: &str) -> Result<bool, Error> {
        let disabled = self.catalog.disable_admin(name, self.clock.now_us()).await?;
        if disabled {
            self.audit(by, "admin.disable", name, None).await?;
        }
        Ok(disabled)
    }

    /// Runs a slow hash off the sockets' threads, one at a time: 19 MiB each, and a flood of logins must not take the
    /// machine.
    async fn hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let _turn = self.hashing.lock().await;
        tokio::task::spawn_blocking(work).await.map_err(|_| Error::Broke)?
    }
}

/// argon2id with the library's parameters, which are those that OWASP recommends: 19 MiB, two passes, one lane.
fn hash(password: &str, salt: [u8; 16]) -> Result<String, Error> {
    let hashed: PasswordHash = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt)?;
    Ok(hashed.to_string())
}

fn matches(password: &str, kept: &str) -> Result<bool, Error> {
    let kept = PasswordHash::new(kept).map_err(|_| Error::UnreadablePassword)?;
    Ok(Argon2::default().verify_password(password.as_bytes(), &kept).is_ok())
}
