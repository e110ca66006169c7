//! The client of WeChat's server API: who logged in, and a subscribe message to somebody's phone.
//!
//! In: a login code; an openid and a message. Out: the openid; whether WeChat took the message. The access token that
//! messages need is fetched when it is needed, kept until shortly before it runs out, by one caller at a time, and thrown
//! away when WeChat says that it no longer counts.
//!
//! Documented in the WeChat open documentation: `sns/jscode2session` (code2Session), `cgi-bin/stable_token`
//! (getStableAccessToken), `cgi-bin/message/subscribe/send` (sendMessage). An answer is 200 with `errcode` also when it is a
//! refusal; what the codes mean for us is [`Error::is_retryable`] and [`Error::is_refused_by_user`].
//!
//! Invariants: every call ends in time; what can succeed a moment later is tried again a few times; neither secret, token
//! nor openid gets into a log or an error. Absent: who is owed a message (`notify`), what a user is (`accounts`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::entropy::Entropy;

/// What the client needs to know of the mini-program's account.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Empty: WeChat is not used.
    pub app_id: String,
    /// The file that holds the secret, and nothing else.
    pub app_secret_file: PathBuf,
    pub base_url: String,
    /// Of one call.
    pub timeout: Duration,
    /// A file with certificates (PEM) that are trusted besides the usual ones; empty: none.
    pub ca_file: PathBuf,
}

/// Tries of a call that may succeed a moment later.
const ATTEMPTS: u32 = 3;
/// Pause before the second try; doubled before each further one, and up to half as long again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// An access token is replaced so long before it runs out.
const TOKEN_MARGIN_US: i64 = 300_000_000;
/// The longest login code that is passed on, in bytes.
const CODE_LIMIT_BYTES: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("WeChat is not configured")]
    NotConfigured,
    #[error("a login code has 1 to {CODE_LIMIT_BYTES} visible characters")]
    InvalidCode,
    #[error("read the secret of the WeChat account from {}", path.display())]
    Secret {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("make the client for WeChat")]
    Client(#[source] reqwest::Error),
    #[error("reach WeChat")]
    Unreachable(#[source] reqwest::Error),
    #[error("WeChat answered with status {status}")]
    Status { status: u16 },
    #[error("WeChat's answer cannot be read")]
    Unreadable,
    #[error("WeChat refused: {errcode} {errmsg}")]
    Refused { errcode: i64, errmsg: String },
}

impl Error {
    /// True if the same call may succeed later: no answer, a busy system (-1), too many calls (45009, 45011), a token that
    /// ran out (40001, 40014, 42001).
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Unreadable => true,
            Self::Status { status } => *status >= 500 || *status == 429,
            Self::Refused { errcode, .. } => matches!(errcode, -1 | 45_009 | 45_011 | 40_001 | 40_014 | 42_001),
            Self::NotConfigured | Self::InvalidCode | Self::Secret { .. } | Self::Client(_) => false,
        }
    }

    /// True if the user has not granted the message, or takes none any more (43101).
    #[must_use]
    pub const fn is_refused_by_user(&self) -> bool {
        matches!(self, Self::Refused { errcode: 43_101, .. })
    }

    /// True if it is the login code that is wrong: unknown (40029), used (40163), of a blocked user (40226).
    #[must_use]
    pub const fn is_wrong_code(&self) -> bool {
        matches!(self, Self::Refused { errcode: 40_029 | 40_163 | 40_226, .. } | Self::InvalidCode)
    }

    /// A stable word for records of attempts.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::NotConfigured => "not_configured".to_owned(),
            Self::InvalidCode => "invalid_code".to_owned(),
            Self::Secret { .. } | Self::Client(_) => "misconfigured".to_owned(),
            Self::Unreachable(error) if error.is_timeout() => "timeout".to_owned(),
            Self::Unreachable(_) => "unreachable".to_owned(),
            Self::Status { status } => format!("status_{status}"),
            Self::Unreadable => "unreadable".to_owned(),
            Self::Refused { errcode, .. } => format!("errcode_{errcode}"),
        }
    }
}

/// The WeChat room. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(Option<Arc<Inner>>);

struct Inner {
    client: reqwest::Client,
    base_url: String,
    app_id: String,
    secret: String,
    /// The access token and when it runs out, µs.
    token: Mutex<Option<(String, i64)>>,
    clock: Clock,
    entropy: Entropy,
}

/// Without secret and token.
impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("base_url", &self.base_url).field("app_id", &self.app_id).finish_non_exhaustive()
    }
}

/// Any answer of WeChat.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    errcode: i64,
    #[serde(default)]
    errmsg: String,
    openid: Option<String>,
    access_token: Option<String>,
    expires_in: Option<i64>,
}

impl Handle {
    /// The client, or one that refuses everything where no account is configured.
    ///
    /// # Errors
    /// The secret's or the certificates' file cannot be read.
    pub fn new(options: &Options, clock: Clock, entropy: Entropy) -> Result<Self, Error> {
        if options.app_id.is_empty() {
            return Ok(Self(None));
        }
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|source| Error::Secret { path: path.clone(), source })
        };
        let mut builder = reqwest::Client::builder().timeout(options.timeout).redirect(Policy::none()).no_proxy();
        if !options.ca_file.as_os_str().is_empty() {
            let bundle = read(&options.ca_file)?;
            for certificate in reqwest::Certificate::from_pem_bundle(bundle.as_bytes()).map_err(Error::Client)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        Ok(Self(Some(Arc::new(Inner {
            client: builder.build().map_err(Error::Client)?,
            base_url: options.base_url.trim_end_matches('/').to_owned(),
            app_id: options.app_id.clone(),
            secret: read(&options.app_secret_file)?.trim().to_owned(),
            token: Mutex::default(),
            clock,
            entropy,
        }))))
    }

    /// True if an account is configured.
    #[must_use]
    pub const fn is_configured(&self) -> bool {
        self.0.is_some()
    }

    /// The openid of the user whose phone gave this code.
    ///
    /// # Errors
    /// See [`Error::is_wrong_code`] and [`Error::is_retryable`]. A code counts once, so a call whose answer was lost is not
    /// made again for an answer.
    pub async fn openid_of_code(&self, code: &str) -> Result<String, Error> {
        let inner = self.0.as_ref().ok_or(Error::NotConfigured)?;
        if code.is_empty() || code.len() > CODE_LIMIT_BYTES || !code.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::InvalidCode);
        }
        let answer = inner
            .call(|| {
                inner.client.get(format!("{}/sns/jscode2session", inner.base_url)).query(&[
                    ("appid", inner.app_id.as_str()),
                    ("secret", inner.secret.as_str()),
                    ("js_code", code),
                    ("grant_type", "authorization_code"),
                ])
            })
            .await?;
        answer.openid.filter(|openid| !openid.is_empty()).ok_or(Error::Unreadable)
    }

    /// Sends a subscribe message; it uses up one grant of the user for the template.
    ///
    /// # Errors
    /// See [`Error::is_refused_by_user`] and [`Error::is_retryable`].
    pub async fn send_subscribe_message(
        &self,
        openid: &str,
        template_id: &str,
        page: &str,
        language: &str,
        fields: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let inner = self.0.as_ref().ok_or(Error::NotConfigured)?;
        let data: BTreeMap<&String, Value> =
            fields.iter().map(|(name, value)| (name, json!({ "value": value }))).collect();
        let body = json!({
            "touser": openid, "template_id": template_id, "page": page, "lang": language, "data": data,
            "miniprogram_state": "formal",
        });
        // A second round with a new token, if the first one's did not count.
        for round in 0..2 {
            let token = inner.access_token().await?;
            let sent = inner
                .call(|| {
                    inner
                        .client
                        .post(format!("{}/cgi-bin/message/subscribe/send", inner.base_url))
                        .query(&[("access_token", token.as_str())])
                        .json(&body)
                })
                .await;
            match sent {
                Err(Error::Refused { errcode: 40_001 | 40_014 | 42_001, .. }) if round == 0 => {
                    inner.forget(&token).await;
                }
                outcome => return outcome.map(drop),
            }
        }
        Err(Error::Unreadable)
    }
}

impl Inner {
    async fn access_token(&self) -> Result<String, Error> {
        // Held while a token is fetched: one caller fetches it for all.
        let mut kept = self.token.lock().await;
        if let Some((token, expires_at_us)) = kept.as_ref()
            && self.clock.now_us() < expires_at_us - TOKEN_MARGIN_US
        {
            return Ok(token.clone());
        }
        let body = json!({ "grant_type": "client_credential", "appid": self.app_id, "secret": self.secret });
        let answer =
            self.call(|| self.client.post(format!("{}/cgi-bin/stable_token", self.base_url)).json(&body)).await?;
        let (Some(token), Some(expires_in_s)) = (answer.access_token, answer.expires_in) else {
            return Err(Error::Unreadable);
        };
        *kept = Some((token.clone(), self.clock.now_us() + expires_in_s.max(0) * 1_000_000));
        Ok(token)
    }

    async fn forget(&self, token: &str) {
        let mut kept = self.token.lock().await;
        kept.take_if(|(known, _)| known == token);
    }

    /// A call, tried again where that may help. Tokens that do not count are the caller's to replace.
    async fn call(&self, request: impl Fn() -> reqwest::RequestBuilder) -> Result<Answer, Error> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let outcome = Self::once(request()).await;
            metrics::counter!("volant_wechat_calls_total", "outcome" => match &outcome {
                Ok(_) => "ok".to_owned(),
                Err(error) => error.word(),
            })
            .increment(1);
            match outcome {
                Err(error)
                    if attempt < ATTEMPTS
                        && error.is_retryable()
                        && !matches!(error, Error::Refused { errcode: 40_001 | 40_014 | 42_001, .. }) =>
                {
                    tokio::time::sleep(pause.mul_f64(1.0 + self.entropy.fraction() / 2.0)).await;
                    pause *= 2;
                }
                outcome => return outcome,
            }
        }
        Err(Error::Unreadable)
    }

    async fn once(request: reqwest::RequestBuilder) -> Result<Answer, Error> {
        // The address of a request carries the secret: it must not get into an error's text.
        let response = request.send().await.map_err(|error| Error::Unreachable(error.without_url()))?;
        if !response.status().is_success() {
            return Err(Error::Status { status: response.status().as_u16() });
        }
        let answer: Answer = response.json().await.map_err(|error| {
            if error.is_timeout() { Error::Unreachable(error.without_url()) } else { Error::Unreadable }
        })?;
        if answer.errcode == 0 {
            Ok(answer)
        } else {
            Err(Error::Refused { errcode: answer.errcode, errmsg: answer.errmsg.chars().take(200).collect() })
        }
    }
}
