//! Every configuration key: file, environment, flag; and where its value came from.
//!
//! A key is the same everywhere: `sessions.upload_timeout_s` in the TOML file is `VOLANT_SESSIONS_UPLOAD_TIMEOUT_S` in the
//! environment and `--sessions-upload-timeout-s` as a flag of `serve`. The flag wins over the environment, that over the
//! file, that over the default. This is the only room that reads the environment.

mod keys;
mod layers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::gateway::Auth;
pub use layers::{Loaded, Origin, Overrides, load, process_environment};

use crate::store::swap::Sizes;
use crate::store::wal;
use crate::{analysis, custody, gateway, ingest, notify, push, query, sessions, wechat};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read the configuration file {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("understand the configuration file {}: {message}", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("no configuration key {key:?} (from {origin}); `volant config show` lists all")]
    UnknownKey { key: String, origin: Origin },
    #[error("{key} = {value:?} (from {origin}) is not {expected}")]
    WrongType { key: String, value: String, origin: Origin, expected: &'static str },
    #[error("the configuration does not hold together: {message}")]
    Invalid { message: String },
}

/// The whole configuration. Durations are whole numbers with the unit in the key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address to listen on. The firmware has port 8000 compiled in.
    pub listen: SocketAddr,
    /// Address of Flight SQL, or `off`. Empty: the port after `listen`'s, if it is free.
    pub flight_listen: String,
    /// Address of the PostgreSQL wire; empty: none. Builds without the feature `postgres` have none.
    pub postgres_listen: String,
    /// Folder of everything that is stored.
    pub data_dir: PathBuf,
    /// How callers are told apart.
    pub auth: Auth,
    /// Allow legacy authentication on an address that other machines reach: whoever reaches it can pose as any device or
    /// user.
    pub allow_legacy_on_public_address: bool,
    /// What an acknowledgement means: `fsync` (on the disk) or `os` (with the operating system).
    pub durability: wal::Durability,
    pub gateway: Gateway,
    pub sessions: Sessions,
    pub push: Push,
    pub ingest: Ingest,
    pub store: Store,
    pub analysis: Analysis,
    pub notify: Notify,
    pub wechat: WeChat,
    pub query: Query,
    pub compaction: Compaction,
    pub retention: Retention,
}

/// Packing of small old files, every hour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compaction {
    /// Days are packed that are so many days past, by UTC date; 0: none.
    pub after_days: u32,
}

/// What the service gives up by itself, every hour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Frames of sessions that ended so many days ago go; 0: they stay.
    pub frames_days: u32,
    /// Strokes and results of sessions that ended so many days ago go, once the frames of their session are gone; 0: they stay.
    pub results_days: u32,
    /// Notices that were delivered so many days ago go; 0: they stay.
    pub notices_days: u32,
    /// Entries of the audit log of so many days ago go; 0: they stay.
    pub audit_days: u32,
    /// Sessions are archived here, in a folder or below `s3://bucket/prefix`, before their frames go; empty: they are not.
    pub archive_dir: String,
}

/// Limits of sockets and requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// TCP connections in all; a further one is answered 503.
    pub connections_limit: usize,
    /// TCP connections of one address; a further one is answered 503.
    pub connections_per_address_limit: usize,
    /// A WebSocket ping is sent this often.
    pub ping_interval_s: u64,
    /// A peer that answered no ping for so long is dropped. Over 20: the firmware is deaf for 10 s after boot.
    pub pong_timeout_s: u64,
    /// A peer that takes nothing for so long while we write is dropped.
    pub write_timeout_s: u64,
    /// Largest message of a device; a larger one closes its connection (1009).
    pub device_message_limit_bytes: usize,
    /// Packets of a device that wait for the disk; at the limit its socket is not read.
    pub in_flight_packets: usize,
    /// Messages a second of a device; beyond, its socket is not read until they are due.
    pub device_messages_per_s: u32,
    /// Frames a second of a device; beyond, as above.
    pub device_frames_per_s: u32,
    /// Wrong tokens, passwords and pairing codes a minute of one address; beyond, 429.
    pub failures_per_address_per_min: u32,
    /// HTTP requests a second of one address; beyond, 429.
    pub requests_per_address_per_s: u32,
    /// HTTP requests a second of one caller who has a token; beyond, 429.
    pub requests_per_caller_per_s: u32,
    /// Origins whose pages may open the admin socket, besides the service's own.
    pub allowed_origins: Vec<String>,
}

/// Times of the session state machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// An unconfirmed command is sent again.
    pub command_resend_ms: u64,
    /// A session whose device never started is stopped.
    pub start_timeout_s: u64,
    /// A session whose frames ceased is ended.
    pub idle_timeout_s: u64,
    /// A stopped session is analysed without `upload_complete`, device connected.
    pub upload_timeout_s: u64,
    /// The same, device away.
    pub offline_timeout_s: u64,
    /// An unasked `upload_complete` is believed after so long without frames.
    pub doubt_timeout_ms: u64,
    /// Late frames are taken so long after `upload_complete`.
    pub late_grace_s: u64,
    /// A session that records and gets no frames for so long is told to the admins.
    pub silent_after_s: u64,
}

/// Commands to devices that hold no socket. All off by default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// Call the HTTP servers of devices that registered a private address.
    pub http: bool,
    /// Their port.
    pub http_port: u16,
    /// Also call devices on this machine.
    pub allow_loopback: bool,
    /// Send datagrams here, `255.255.255.255:8888` for instance; empty: none.
    pub udp_broadcast: String,
}

/// Limits of recordings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    /// A session that holds so many frames takes no more.
    pub session_limit_frames: usize,
}

/// The write-ahead log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Size of a log segment.
    pub segment_limit_bytes: u64,
    /// Longest gathering of records for one sync.
    pub commit_window_ms: u64,
    /// Bytes that may wait for the log; above it sockets wait.
    pub queue_limit_bytes: usize,
    /// Free disk space below which frames are refused.
    pub min_free_bytes: u64,
}

/// The CPU pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Analysis {
    /// Threads; 0 means one a core.
    pub threads: usize,
    /// Jobs at the same time.
    pub concurrent_jobs: usize,
    /// A job that takes longer is given up.
    pub timeout_s: u64,
    /// Tries of a job that the environment fails.
    pub attempts_limit: i64,
    /// The pipeline that analyses new sessions; empty: the one that ships.
    pub pipeline: String,
    /// Pipelines and models of one's own; empty: `pipelines` in the data folder.
    pub pipelines_dir: String,
}

/// Delivery of notices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notify {
    /// How long a socket has to prove that it received a notice.
    pub receipt_timeout_s: u64,
    /// How often connected users that are owed something are tried again.
    pub retry_interval_s: u64,
    /// A player whom no socket reached within this gets a WeChat message, if one is granted.
    pub wechat_after_s: u64,
    /// How long a webhook may take.
    pub webhook_timeout_s: u64,
    /// Call webhooks inside private networks too.
    pub webhooks_allow_private: bool,
    /// WeChat and webhooks are no longer tried for a notice that is older.
    pub give_up_after_s: u64,
}

/// The mini-program's account with WeChat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeChat {
    /// Empty: WeChat is not used.
    pub app_id: String,
    /// The file that holds the secret, and nothing else.
    pub app_secret_file: String,
    /// Where WeChat's server API is.
    pub base_url: String,
    /// Of one call.
    pub timeout_s: u64,
    /// Certificates (PEM) that are trusted besides the usual ones; empty: none.
    pub ca_file: String,
    /// Page of the mini-program that a message opens.
    pub page: String,
    /// Fields of the message's template, with {strokes}, {score}, {session}, {time} and {text}.
    pub fields: Vec<String>,
}

/// Limits of SQL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// Threads of the SQL runtime; 0 means one a core.
    pub threads: usize,
    /// Statements at the same time; further ones wait.
    pub concurrent_limit: usize,
    /// Statements that wait; further ones are refused.
    pub waiting_limit: usize,
    /// Memory of one statement.
    pub memory_limit_bytes: usize,
    /// A statement that takes longer is ended.
    pub timeout_s: u64,
    /// Rows of one answer; more end it with an error.
    pub row_limit: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            flight_listen: String::new(),
            postgres_listen: String::new(),
            data_dir: PathBuf::from("volant-data"),
            auth: Auth::Legacy,
            allow_legacy_on_public_address: false,
            durability: wal::Durability::Fsync,
            gateway: Gateway {
                connections_limit: 16_384,
                connections_per_address_limit: 8_192,
                ping_interval_s: 20,
                pong_timeout_s: 30,
                write_timeout_s: 15,
                device_message_limit_bytes: 64 << 10,
                in_flight_packets: 64,
                device_messages_per_s: 5_000,
                device_frames_per_s: 150_000,
                failures_per_address_per_min: 20,
                requests_per_address_per_s: 5_000,
                requests_per_caller_per_s: 2_000,
                allowed_origins: Vec::new(),
            },
            sessions: Sessions {
                command_resend_ms: 3_000,
                start_timeout_s: 900,
                idle_timeout_s: 600,
                upload_timeout_s: 15,
                offline_timeout_s: 120,
                doubt_timeout_ms: 3_000,
                late_grace_s: 30,
                silent_after_s: 10,
            },
            push: Push { http: false, http_port: 80, allow_loopback: false, udp_broadcast: String::new() },
            ingest: Ingest { session_limit_frames: 6_000_000 },
            store: Store {
                segment_limit_bytes: 64 << 20,
                commit_window_ms: 2,
                queue_limit_bytes: 16 << 20,
                min_free_bytes: 256 << 20,
            },
            analysis: Analysis {
                threads: 0,
                concurrent_jobs: 2,
                timeout_s: 120,
                attempts_limit: 20,
                pipeline: String::new(),
                pipelines_dir: String::new(),
            },
            notify: Notify {
                receipt_timeout_s: 10,
                retry_interval_s: 30,
                wechat_after_s: 10,
                webhook_timeout_s: 10,
                webhooks_allow_private: false,
                give_up_after_s: 3 * 24 * 3600,
            },
            wechat: WeChat {
                app_id: String::new(),
                app_secret_file: String::new(),
                base_url: "https://api.weixin.qq.com".to_owned(),
                timeout_s: 5,
                ca_file: String::new(),
                page: "pages/index/index".to_owned(),
                fields: vec!["thing1={text}".to_owned(), "number2={strokes}".to_owned(), "time3={time}".to_owned()],
            },
            query: Query {
                threads: 0,
                concurrent_limit: 4,
                waiting_limit: 32,
                memory_limit_bytes: 512 << 20,
                timeout_s: 60,
                row_limit: 10_000_000,
            },
            compaction: Compaction { after_days: 7 },
            retention: Retention {
                frames_days: 0,
                results_days: 0,
                notices_days: 0,
                audit_days: 0,
                archive_dir: String::new(),
            },
        }
    }
}

/// Where Flight SQL is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flight {
    Off,
    /// Beside HTTP, unless somebody else has the port.
    Beside(SocketAddr),
    /// There or not at all.
    At(SocketAddr),
}

impl Config {
    /// Where Flight SQL is served.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `flight_listen` is neither an address nor `off`.
    pub fn flight(&self) -> Result<Flight, Error> {
        match self.flight_listen.as_str() {
            "off" => Ok(Flight::Off),
            "" => {
                // Port 0 is any free one, for both.
                let port = if self.listen.port() == 0 { 0 } else { self.listen.port().wrapping_add(1) };
                Ok(Flight::Beside(SocketAddr::new(self.listen.ip(), port)))
            }
            address => address.parse().map(Flight::At).map_err(|_| Error::Invalid {
                message: format!("flight_listen = {address:?} is neither an address with a port nor off"),
            }),
        }
    }

    /// Where the PostgreSQL wire is served; `None`: nowhere.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `postgres_listen` is no address, or this build has no such wire.
    pub fn postgres(&self) -> Result<Option<SocketAddr>, Error> {
        match self.postgres_listen.as_str() {
            "" => Ok(None),
            _ if !cfg!(feature = "postgres") => Err(Error::Invalid {
                message:
                    "postgres_listen is set, but this build has no PostgreSQL wire: build with --features postgres"
                        .to_owned(),
            }),
            address => address.parse().map(Some).map_err(|_| Error::Invalid {
                message: format!("postgres_listen = {address:?} is no address with a port"),
            }),
        }
    }

    /// What is packed by itself; `None`: nothing.
    #[must_use]
    pub fn compaction(&self) -> Option<custody::Packing> {
        (self.compaction.after_days > 0).then(|| custody::Packing {
            after_days: self.compaction.after_days,
            frames_days: Some(self.retention.frames_days).filter(|&days| days > 0),
            sizes: Sizes::default(),
            reading: Duration::from_secs(self.query.timeout_s),
        })
    }

    /// What is given up by itself; `None`: nothing.
    #[must_use]
    pub fn retention(&self) -> Option<custody::Policy> {
        let Retention { frames_days, results_days, notices_days, audit_days, archive_dir } = &self.retention;
        let days = |days: u32| (days > 0).then_some(days);
        let policy = custody::Policy {
            frames_days: days(*frames_days),
            results_days: days(*results_days),
            notices_days: days(*notices_days),
            audit_days: days(*audit_days),
            archive_dir: Some(archive_dir).filter(|folder| !folder.is_empty()).map(PathBuf::from),
            reading_us: i64::try_from(self.query.timeout_s).unwrap_or(i64::MAX / 1_000_000).saturating_mul(1_000_000),
        };
        let any = [policy.frames_days, policy.results_days, policy.notices_days, policy.audit_days];
        any.iter().any(Option::is_some).then_some(policy)
    }

    /// Checks what a single key cannot say.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what to change.
    pub fn validate(&self) -> Result<(), Error> {
        let invalid = |message: String| Err(Error::Invalid { message });
        let flight = self.flight()?;
        let public = !self.listen.ip().is_loopback()
            || matches!(flight, Flight::At(at) if !at.ip().is_loopback())
            || self.postgres()?.is_some_and(|at| !at.ip().is_loopback());
        if public && self.auth == Auth::Legacy && !self.allow_legacy_on_public_address {
            return invalid(format!(
                "listening on {} with auth = \"legacy\" lets everybody who reaches it pose as any device or user; set auth = \
                 \"token\" or, if it is meant (a closed network), allow_legacy_on_public_address = true",
                self.listen
            ));
        }
        self.push_options()?;
        if self.gateway.pong_timeout_s <= 20 {
            return invalid(
                "gateway.pong_timeout_s must be over 20: the firmware is deaf for 10 s after boot".to_owned(),
            );
        }
        let positive = [
            ("gateway.connections_limit", self.gateway.connections_limit),
            ("gateway.connections_per_address_limit", self.gateway.connections_per_address_limit),
            ("gateway.in_flight_packets", self.gateway.in_flight_packets),
            ("gateway.device_messages_per_s", self.gateway.device_messages_per_s as usize),
            ("gateway.device_frames_per_s", self.gateway.device_frames_per_s as usize),
            ("gateway.failures_per_address_per_min", self.gateway.failures_per_address_per_min as usize),
            ("gateway.requests_per_address_per_s", self.gateway.requests_per_address_per_s as usize),
            ("gateway.requests_per_caller_per_s", self.gateway.requests_per_caller_per_s as usize),
            ("ingest.session_limit_frames", self.ingest.session_limit_frames),
            ("analysis.concurrent_jobs", self.analysis.concurrent_jobs),
            ("query.concurrent_limit", self.query.concurrent_limit),
            ("query.row_limit", self.query.row_limit as usize),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return invalid(format!("{key} must be at least 1"));
        }
        if self.gateway.device_message_limit_bytes < 8192 {
            return invalid(
                "gateway.device_message_limit_bytes must be at least 8192, the firmware's largest packet".to_owned(),
            );
        }
        Ok(())
    }

    fn threads(configured: usize) -> usize {
        if configured == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { configured }
    }

    /// The options of each room.
    #[must_use]
    pub fn sessions_options(&self) -> sessions::Options {
        let Sessions {
            command_resend_ms,
            start_timeout_s,
            idle_timeout_s,
            upload_timeout_s,
            offline_timeout_s,
            doubt_timeout_ms,
            late_grace_s,
            silent_after_s,
        } = self.sessions;
        sessions::Options {
            command_resend: Duration::from_millis(command_resend_ms),
            start_timeout: Duration::from_secs(start_timeout_s),
            idle_timeout: Duration::from_secs(idle_timeout_s),
            upload_timeout: Duration::from_secs(upload_timeout_s),
            offline_timeout: Duration::from_secs(offline_timeout_s),
            doubt_timeout: Duration::from_millis(doubt_timeout_ms),
            late_grace: Duration::from_secs(late_grace_s),
            silent_after: Duration::from_secs(silent_after_s),
            ..sessions::Options::default()
        }
    }

    /// See [`Store`]. `seed` makes the salts of log segments.
    #[must_use]
    pub fn wal_options(&self, dir: PathBuf, seed: u64) -> wal::Options {
        wal::Options {
            dir,
            durability: self.durability,
            segment_limit_bytes: self.store.segment_limit_bytes,
            commit_window: Duration::from_millis(self.store.commit_window_ms),
            queue_limit_bytes: self.store.queue_limit_bytes,
            min_free_bytes: self.store.min_free_bytes,
            seed,
        }
    }

    /// See [`Gateway`].
    #[must_use]
    pub fn gateway_options(&self) -> gateway::Options {
        let Gateway {
            connections_limit,
            connections_per_address_limit,
            ping_interval_s,
            pong_timeout_s,
            write_timeout_s,
            device_message_limit_bytes,
            in_flight_packets,
            device_messages_per_s,
            device_frames_per_s,
            failures_per_address_per_min,
            requests_per_address_per_s,
            requests_per_caller_per_s,
            ref allowed_origins,
        } = self.gateway;
        gateway::Options {
            auth: self.auth,
            failures_per_address_per_min,
            requests_per_address_per_s,
            requests_per_caller_per_s,
            connections_limit,
            connections_per_address_limit,
            ping_interval: Duration::from_secs(ping_interval_s.max(1)),
            pong_timeout: Duration::from_secs(pong_timeout_s),
            write_timeout: Duration::from_secs(write_timeout_s.max(1)),
            device_message_limit_bytes,
            in_flight_packets,
            device_messages_per_s,
            device_frames_per_s,
            allowed_origins: allowed_origins.clone(),
            min_free_bytes: self.store.min_free_bytes,
            ..gateway::Options::default()
        }
    }

    /// See [`Push`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a broadcast address that is none.
    pub fn push_options(&self) -> Result<push::Options, Error> {
        let Push { http, http_port, allow_loopback, ref udp_broadcast } = self.push;
        let udp = match udp_broadcast.as_str() {
            "" => None,
            address => Some(address.parse().map_err(|_| Error::Invalid {
                message: format!("push.udp_broadcast = {address:?} is no address with a port"),
            })?),
        };
        Ok(push::Options { http, http_port, allow_loopback, udp })
    }

    /// See [`Ingest`].
    #[must_use]
    pub fn ingest_options(&self) -> ingest::Options {
        ingest::Options {
            session_limit_frames: self.ingest.session_limit_frames,
            min_free_bytes: self.store.min_free_bytes,
        }
    }

    /// See [`Analysis`].
    #[must_use]
    pub fn analysis_options(&self) -> analysis::Options {
        analysis::Options {
            threads: Self::threads(self.analysis.threads),
            concurrent_jobs: self.analysis.concurrent_jobs,
            timeout: Duration::from_secs(self.analysis.timeout_s),
            attempts_limit: self.analysis.attempts_limit,
            folder: match self.analysis.pipelines_dir.as_str() {
                "" => self.data_dir.join("pipelines"),
                folder => PathBuf::from(folder),
            },
            pipeline: self.analysis.pipeline.clone(),
        }
    }

    /// See [`Query`].
    #[must_use]
    pub fn query_options(&self) -> query::Options {
        query::Options {
            workers: Self::threads(self.query.threads),
            running: self.query.concurrent_limit,
            waiting: self.query.waiting_limit,
            limits: query::Limits {
                rows: self.query.row_limit,
                wall_time: Duration::from_secs(self.query.timeout_s),
                memory_bytes: self.query.memory_limit_bytes,
            },
            ..query::Options::default()
        }
    }

    /// See [`Notify`].
    #[must_use]
    pub fn notify_options(&self) -> notify::Options {
        notify::Options {
            receipt_timeout: Duration::from_secs(self.notify.receipt_timeout_s),
            retry_interval: Duration::from_secs(self.notify.retry_interval_s.max(1)),
            wechat_after: Duration::from_secs(self.notify.wechat_after_s),
            wechat_page: self.wechat.page.clone(),
            wechat_fields: self.wechat.fields.clone(),
            webhook_timeout: Duration::from_secs(self.notify.webhook_timeout_s.max(1)),
            webhooks_allow_private: self.notify.webhooks_allow_private,
            give_up_after: Duration::from_secs(self.notify.give_up_after_s),
        }
    }

    /// See [`WeChat`].
    #[must_use]
    pub fn wechat_options(&self) -> wechat::Options {
        wechat::Options {
            app_id: self.wechat.app_id.clone(),
            app_secret_file: PathBuf::from(&self.wechat.app_secret_file),
            base_url: self.wechat.base_url.clone(),
            timeout: Duration::from_secs(self.wechat.timeout_s.max(1)),
            ca_file: PathBuf::from(&self.wechat.ca_file),
        }
    }
}
