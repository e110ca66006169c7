//! Erasing a player: rows, files, the log, a model of their own; a receipt that can be checked.
//!
//! Order: the log's segments are written anew without the player's records; the catalog's rows go in one commit that names the
//! files to follow; the files go, those that recoveries set aside from the log too; the database is made anew, so that its free
//! pages hold nothing. A run that was killed is gone on with from the note in the catalog. What stays is the player's number, so
//! that an archive does not bring them back, and the receipt.
//!
//! A running service does it itself ([`Eraser`]), while everybody else goes on: only what is at rest is erased, and the commit
//! looks once more.
//!
//! Archives that were made of the folder are files that somebody took away: the receipt lists those that hold the player.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use schemas::{SessionId, UserId};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tracing::warn;

use super::backup::{BackupNote, ERASED, backups_before};
use super::{Error, io_error};
use crate::clock::Clock;
use crate::export::{ArchiveNote, archives_with};
use crate::store::catalog::{Catalog, Erased, Erasure};
use crate::store::notes;
use crate::store::paths::{Paths, TablePath};
use crate::store::seal;
use crate::store::{space, swap, wal};

/// Name under which the catalog keeps the key that signs receipts.
const KEY_SETTING: &str = "receipt_key";

/// What was erased, signed by the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// `volant-erasure`.
    pub format: String,
    /// The service that erased.
    pub service: String,
    /// The player's number.
    pub player: i64,
    /// µs since 1970 UTC.
    pub erased_at_us: i64,
    /// Rows that are gone, by table of the catalog, and `frames`.
    pub counts: BTreeMap<String, i64>,
    /// Files that are gone, below the data folder.
    pub files: Vec<String>,
    /// Archives that hold the player and are elsewhere: they are not erased by this.
    pub archives: Vec<ArchiveNote>,
    /// Backups that were begun before and not made again since: they may hold the player until they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<BackupNote>,
    /// Ed25519 public key of the service, Base64.
    pub public_key: String,
    /// Ed25519 signature, Base64, of this object as compact JSON with this member empty.
    pub signature: String,
}

/// Erases a player from a folder whose service is stopped. With `dry_run` nothing changes; the receipt then says what would go
/// and has no signature.
///
/// # Errors
/// [`Error::NoPlayer`]; [`Error::Open`] while a session is unfinished; what the disk refuses.
pub async fn erase(paths: &Paths, user: UserId, clock: &Clock, dry_run: bool) -> Result<Receipt, Error> {
    let lock = wal::lock(&paths.wal())?;
    space::give_up_reserve(paths);
    let catalog = Catalog::open(&paths.catalog()).await?;
    let erased = async {
        let plan = Plan::of(paths, &catalog, user, false).await?;
        if dry_run {
            return Ok(plan.receipt());
        }
        let (log, _) = wal::Handle::open_locked(lock, wal::Options::new(paths.wal()), |_| {})?;
        // What a killed process was writing may be the player's. A service deletes it when it starts.
        seal::remove_unfinished(paths)?;
        let erased = plan.carry_out(paths, &catalog, &log, clock, false).await;
        log.close().await?;
        erased
    };
    let erased = erased.await;
    catalog.close().await;
    erased
}

/// Erases players beside the running service that the folder belongs to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Eraser {
    paths: Paths,
    catalog: Catalog,
    log: wal::Handle,
    clock: Clock,
    /// Held while a player is erased, and by whoever brings data of players.
    turn: Arc<Mutex<()>>,
}

impl Eraser {
    /// Works on what the service works on, one player at a time, and while nothing is imported, which `turn` sees to.
    #[must_use]
    pub fn new(paths: Paths, catalog: Catalog, log: wal::Handle, clock: Clock, turn: Arc<Mutex<()>>) -> Self {
        Self { paths, catalog, log, clock, turn }
    }

    /// As [`erase`]; the receipt is kept in the data folder too.
    ///
    /// Statements that read the player's files at this moment may fail. Packets of others wait while segments of the log are
    /// written anew, and writes to the catalog while its file is.
    ///
    /// # Errors
    /// [`Error::NoPlayer`]; [`Error::Open`] while a session of theirs is recorded, or analysed, or may still get late
    /// frames; [`Error::Importing`] behind a long import; what the disk refuses. What was begun is gone on with when it is done
    /// again.
    pub async fn erase(&self, user: UserId, dry_run: bool) -> Result<Receipt, Error> {
        let turn = tokio::time::timeout(TURN_PATIENCE, self.turn.lock()).await;
        let _turn = turn.map_err(|_| Error::Importing)?;
        let plan = Plan::of(&self.paths, &self.catalog, user, true).await?;
        if dry_run {
            return Ok(plan.receipt());
        }
        let receipt = plan.carry_out(&self.paths, &self.catalog, &self.log, &self.clock, true).await?;
        keep_receipt(&receipt_path(&self.paths, user), &receipt)?;
        Ok(receipt)
    }
}

/// What is to go.
struct Plan {
    user: UserId,
    service: String,
    /// False if the rows went in an earlier run.
    is_known: bool,
    earlier: Option<Erasure>,
    sessions: HashSet<SessionId>,
    files: Vec<String>,
    elsewhere: Elsewhere,
}

/// Copies that an erasure does not reach.
struct Elsewhere {
    archives: Vec<ArchiveNote>,
    backups: Vec<BackupNote>,
}

impl Plan {
    async fn of(paths: &Paths, catalog: &Catalog, user: UserId, beside_service: bool) -> Result<Self, Error> {
        let earlier = catalog.erasure(user).await?;
        let is_known = catalog.archived_player(user).await?.is_some();
        if !is_known && earlier.is_none() {
            return Err(Error::NoPlayer { user: user.get() });
        }
        if let Some(session) = catalog.busy_session_of(user, beside_service).await? {
            return Err(Error::Open { user: user.get(), session: session.get() });
        }
        let mut files = own_models(paths, user);
        files.extend(set_aside(paths)?);
        let mut sessions = HashSet::new();
        for (session, of_session) in catalog.sessions_and_files_of(user).await? {
            sessions.insert(session);
            files.extend(of_session);
        }
        // An import that was killed may have made files that the catalog does not name.
        let (root, wanted) = (paths.clone(), sessions.clone());
        let there =
            tokio::task::spawn_blocking(move || seal::files_of(&root, |session| wanted.contains(&session))).await;
        files.extend(there.map_err(|_| Error::Changing { attempts: 1 })??.iter().map(ToString::to_string));
        files.sort_unstable();
        files.dedup();
        let service = catalog.service_id().await?.unwrap_or_default();
        let archives = archives_with(paths, user).map_err(|source| Error::Archives { source: Box::new(source) })?;
        let until_us = earlier.as_ref().map_or(i64::MAX, |earlier| earlier.erased_at_us);
        let elsewhere = Elsewhere { archives, backups: backups_before(paths, until_us)? };
        Ok(Self { user, service, is_known, earlier, sessions, files, elsewhere })
    }

    /// The receipt of a dry run.
    fn receipt(self) -> Receipt {
        let counts = BTreeMap::from([("sessions".to_owned(), self.sessions.len() as i64)]);
        let planned = Erasure { user_id: self.user, erased_at_us: 0, counts, files: self.files, done_at_us: None };
        receipt(self.service, planned, self.elsewhere)
    }

    async fn carry_out(
        self,
        paths: &Paths,
        catalog: &Catalog,
        log: &wal::Handle,
        clock: &Clock,
        beside_service: bool,
    ) -> Result<Receipt, Error> {
        let Self { user, service, is_known, earlier, sessions, mut files, elsewhere } = self;
        log.erase(sessions).await?;
        // Opening the log may have set more aside.
        files.extend(set_aside(paths)?);
        files.sort_unstable();
        files.dedup();
        let erasure = match earlier {
            // The rows went in an earlier run; its files are to follow.
            Some(erasure) if !is_known && erasure.done_at_us.is_none() => erasure,
            Some(erasure) if !is_known => return sign_and_tell(catalog, receipt(service, erasure, elsewhere)).await,
            _ => match catalog.erase_player(user, &files, clock.now_us(), beside_service).await? {
                Erased::Done(erasure) => erasure,
                Erased::Busy(session) => return Err(Error::Open { user: user.get(), session: session.get() }),
            },
        };
        let (root, files) = (paths.clone(), erasure.files.clone());
        let deleted = tokio::task::spawn_blocking(move || delete(&root, user, files));
        deleted.await.map_err(|_| Error::Changing { attempts: 1 })??;
        for attempt in 1.. {
            if catalog.finish_erasure(user, clock.now_us()).await? {
                break;
            }
            // A backup, for instance, reads the whole catalog.
            if attempt == EMPTYING_ATTEMPTS {
                return Err(Error::Changing { attempts: EMPTYING_ATTEMPTS });
            }
        }
        metrics::counter!("volant_custody_erased_players_total").increment(1);
        // One may have begun meanwhile.
        let elsewhere = Elsewhere { backups: backups_before(paths, erasure.erased_at_us)?, ..elsewhere };
        sign_and_tell(catalog, receipt(service, erasure, elsewhere)).await
    }
}

/// How long an erasure waits for an import or another erasure.
const TURN_PATIENCE: Duration = Duration::from_secs(10);

/// How often files that were replaced are tried to be deleted while somebody is replacing one, and the pause between.
const REPLACED_ATTEMPTS: usize = 5;
const REPLACED_PAUSE: Duration = Duration::from_millis(20);
/// How often the catalog's log is tried to be emptied, each time waiting for its readers for some seconds.
const EMPTYING_ATTEMPTS: usize = 3;

/// Deletes files of a player, those in packs too, and what may hold them beside others.
fn delete(paths: &Paths, user: UserId, mut files: Vec<String>) -> Result<(), Error> {
    // A calibration may have made them since.
    files.extend(own_models(paths, user));
    for file in &files {
        let path = paths.root().join(file);
        if let Ok(stored) = file.parse::<TablePath>() {
            swap::delete(paths, stored)?;
            continue;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io_error("delete", &path)(error)),
            _ => {}
        }
    }
    // What a compaction replaced holds everybody of a day. Whoever replaces one file is done with it in a moment.
    let mut attempts = 1;
    while swap::remove_replaced(paths, None)?.is_none() {
        if attempts == REPLACED_ATTEMPTS {
            return Err(Error::Compacting);
        }
        attempts += 1;
        std::thread::sleep(REPLACED_PAUSE);
    }
    // An archive on its way to an object store may hold them; the next one is made anew.
    match fs::remove_dir_all(paths.outgoing()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("delete", &paths.outgoing())(error)),
        _ => Ok(()),
    }
}

/// The model and pipeline that calibration made for a player.
fn own_models(paths: &Paths, user: UserId) -> Vec<String> {
    let names = ["toml", "safetensors"].map(|ending| format!("pipelines/player-{user}.{ending}"));
    names.into_iter().filter(|name| paths.root().join(name).exists()).collect()
}

/// Bytes of the log that a recovery could not read: nobody can tell whose they are, so they may be the player's.
fn set_aside(paths: &Paths) -> Result<Vec<String>, Error> {
    let found = wal::set_aside(&paths.wal()).map_err(io_error("read", &paths.wal()))?;
    let below = |path: PathBuf| path.strip_prefix(paths.root()).ok().map(|path| path.to_string_lossy().into_owned());
    Ok(found.into_iter().filter_map(below).collect())
}

fn receipt(service: String, erasure: Erasure, elsewhere: Elsewhere) -> Receipt {
    Receipt {
        format: "volant-erasure".to_owned(),
        service,
        player: erasure.user_id.get(),
        erased_at_us: erasure.erased_at_us,
        counts: erasure.counts,
        files: erasure.files,
        archives: elsewhere.archives,
        backups: elsewhere.backups,
        public_key: String::new(),
        signature: String::new(),
    }
}

/// Signs a receipt and leaves it with the backups that it names, so that what is restored of them is erased again.
async fn sign_and_tell(catalog: &Catalog, receipt: Receipt) -> Result<Receipt, Error> {
    let receipt = sign(catalog, receipt).await?;
    for backup in &receipt.backups {
        let path = backup.path.join(ERASED);
        let told = || -> std::io::Result<()> {
            let before: Vec<Receipt> = notes::read(&path)?;
            // Numbers of players are given once, and what is restored erases them at a time of its own.
            let is_told = before.iter().any(|told| (told.player, &told.service) == (receipt.player, &receipt.service));
            if is_told { Ok(()) } else { notes::add(&path, &receipt) }
        };
        if let Err(error) = told() {
            // It may be elsewhere by now: whoever restores it needs the receipt.
            warn!(error = &error as &dyn std::error::Error, "backup {} cannot be told", backup.path.display());
        }
    }
    Ok(receipt)
}

async fn sign(catalog: &Catalog, mut receipt: Receipt) -> Result<Receipt, Error> {
    let failed = |what| Error::Receipt { what };
    let fresh = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| failed("a key could not be made"))?;
    let kept = catalog.setting(KEY_SETTING, &BASE64.encode(fresh.as_ref())).await?;
    let kept = BASE64.decode(kept).map_err(|_| failed("the key that signs receipts is damaged"))?;
    let key = Ed25519KeyPair::from_pkcs8(&kept).map_err(|_| failed("the key that signs receipts is damaged"))?;
    receipt.public_key = BASE64.encode(key.public_key().as_ref());
    receipt.signature = BASE64.encode(key.sign(&signed_text(&receipt)).as_ref());
    Ok(receipt)
}

fn signed_text(receipt: &Receipt) -> Vec<u8> {
    let unsigned = Receipt { signature: String::new(), ..receipt.clone() };
    serde_json::to_vec(&unsigned).unwrap_or_default()
}

/// Checks that a receipt is as the holder of its key signed it.
///
/// # Errors
/// [`Error::Receipt`].
pub fn check_receipt(receipt: &Receipt) -> Result<(), Error> {
    let failed = |what| Error::Receipt { what };
    let [key, signature] = [&receipt.public_key, &receipt.signature].map(|text| BASE64.decode(text));
    let key = key.map_err(|_| failed("the receipt's public key is no Base64"))?;
    let signature = signature.map_err(|_| failed("the receipt's signature is no Base64"))?;
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&signed_text(receipt), &signature)
        .map_err(|_| failed("the receipt is not what was signed"))
}

/// Where a receipt is put unless somebody says otherwise: beside the data folder's own files.
#[must_use]
pub fn receipt_path(paths: &Paths, user: UserId) -> PathBuf {
    paths.root().join("receipts").join(format!("player-{user}.json"))
}

/// Writes a receipt, synced.
///
/// # Errors
/// [`Error::Io`].
pub fn keep_receipt(path: &Path, receipt: &Receipt) -> Result<(), Error> {
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, serde_json::to_vec_pretty(receipt)?)?;
        fs::File::open(path)?.sync_all()
    };
    write().map_err(io_error("write the receipt", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_erasure_does_not_wait_long_for_an_import() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let catalog = Catalog::open(&paths.catalog()).await.unwrap();
        let lock = wal::lock(&paths.wal()).unwrap();
        let (log, _) = wal::Handle::open_locked(lock, wal::Options::new(paths.wal()), |_| {}).unwrap();
        let turn = Arc::default();
        let eraser = Eraser::new(paths, catalog, log, Clock::system(), Arc::clone(&turn));
        let held = turn.lock().await;
        tokio::time::pause();
        assert!(matches!(eraser.erase(UserId(1), false).await, Err(Error::Importing)));
        tokio::time::resume();
        drop(held);
        assert!(matches!(eraser.erase(UserId(1), false).await, Err(Error::NoPlayer { user: 1 })));
    }
}
