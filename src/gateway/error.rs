//! The only map from the rooms' errors to codes, statuses and words for clients.
//!
//! Every variant of every room is named here, without wildcards: a new one does not compile until it has a code. The code
//! has a text in each language in the room `texts`; [`ApiError::render`] writes it in the caller's, as the legacy routes
//! want it (`{"error": text, "code": word, …}`) or as problem+json (RFC 9457) under `/api/v2/`. The chain of causes is not
//! for clients: it goes to the log, once, here at the edge.

use std::error::Error as StdError;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tracing::error;

use crate::store::{space, wal};
use crate::texts::{self, Lang};
use crate::{accounts, analysis, custody, ingest, migration, notify, protocol, sessions, wechat};

/// An error as a client sees it, with a status.
#[derive(Debug)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable word.
    pub code: &'static str,
    /// Text for people in English, for codes without a text of their own.
    pub message: String,
    /// What fills the placeholders of the code's text.
    pub arguments: Vec<(&'static str, String)>,
    /// Further members of the answer, such as `current_status`.
    pub details: Map<String, Value>,
    /// The caller may try again after so many seconds.
    pub retry_after_s: Option<u32>,
    /// What happened inside, for the log; only of errors that are not the caller's.
    pub inside: Option<Box<dyn StdError + Send + Sync>>,
}

/// How an error is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `{"error": text, "code": word, …}`
    Legacy,
    /// RFC 9457.
    Problem,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            arguments: Vec::new(),
            details: Map::new(),
            retry_after_s: None,
            inside: None,
        }
    }

    /// 500: a task of ours broke off.
    pub(super) fn broke() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request could not be served")
    }

    pub(super) fn internal(
        code: &'static str,
        message: &'static str,
        inside: impl StdError + Send + Sync + 'static,
    ) -> Self {
        let what = if space::is_full_disk(&inside) {
            Self::disk_full()
        } else {
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, message)
        };
        Self { inside: Some(Box::new(inside)), ..what }
    }

    /// 507: somebody has to make room.
    pub(super) fn disk_full() -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", "the disk is full")
    }

    /// 400: the request cannot be understood; `what` says why, in English.
    #[must_use]
    pub fn bad_request(what: impl Into<String>) -> Self {
        let what = what.into();
        Self::new(StatusCode::BAD_REQUEST, "bad_request", what.clone()).about("what", what)
    }

    /// 400: a parameter is missing.
    #[must_use]
    pub fn missing(parameter: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "missing_parameter", format!("{parameter} is required"))
            .about("parameter", parameter)
    }

    /// 401: the caller has to prove who it is.
    #[must_use]
    pub fn unauthenticated(code: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, "a token is required")
    }

    /// 403: the caller may not do this.
    #[must_use]
    pub fn forbidden(code: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, "this is not allowed")
    }

    /// 404.
    #[must_use]
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// Any other status.
    #[must_use]
    pub fn with_status(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(status, code, message)
    }

    /// Fills a placeholder of the code's text.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "callers give numbers, texts and ids as they have them")]
    pub fn about(mut self, name: &'static str, value: impl ToString) -> Self {
        self.arguments.push((name, value.to_string()));
        self
    }

    /// Adds a member to the answer.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }

    /// Tells the log what happened inside, once; returns the error without it.
    #[must_use]
    pub fn logged(mut self) -> Self {
        if let Some(inside) = self.inside.take() {
            error!(error = &*inside as &dyn StdError, code = self.code, "failed: {}", self.message);
        }
        self
    }

    /// The text for people.
    #[must_use]
    pub fn text(&self, lang: Lang) -> String {
        texts::error(lang, self.code, &self.arguments).unwrap_or_else(|| self.message.clone())
    }

    /// The whole answer.
    pub(super) fn render(self, lang: Lang, shape: Shape) -> Response {
        let error = self.logged();
        let (text, mut members) = (error.text(lang), error.details);
        members.insert("code".to_owned(), json!(error.code));
        let mut response = match shape {
            Shape::Legacy => {
                members.insert("error".to_owned(), json!(text));
                (error.status, Json(Value::Object(members))).into_response()
            }
            Shape::Problem => {
                members.insert("type".to_owned(), json!("about:blank"));
                members.insert("title".to_owned(), json!(error.status.canonical_reason().unwrap_or_default()));
                members.insert("status".to_owned(), json!(error.status.as_u16()));
                members.insert("detail".to_owned(), json!(text));
                let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))];
                (error.status, kind, Value::Object(members).to_string()).into_response()
            }
        };
        let headers = response.headers_mut();
        if error.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = error.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// An error on its way out of a handler; the layer around all routes writes it as the caller wants it.
#[derive(Clone, Debug)]
struct Pending(Arc<Mutex<Option<ApiError>>>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(Pending(Arc::new(Mutex::new(Some(self)))));
        response
    }
}

/// Writes the error that a response carries, if it carries one. Headers that the handler set, such as `Allow`, stay.
pub(super) fn write_pending(mut response: Response, lang: Lang, shape: Shape) -> Response {
    let Some(Pending(pending)) = response.extensions_mut().remove::<Pending>() else { return response };
    let Some(error) = pending.lock().unwrap_or_else(PoisonError::into_inner).take() else { return response };
    let mut written = error.render(lang, shape);
    for (name, value) in response.headers() {
        if name != header::CONTENT_LENGTH && !written.headers().contains_key(name) {
            written.headers_mut().append(name, value.clone());
        }
    }
    written
}

const CATALOG: (&str, &str) = ("catalog_unavailable", "the catalog cannot be used at the moment");
const STORE: (&str, &str) = ("store_unavailable", "the frames could not be stored");

impl From<ingest::Error> for ApiError {
    fn from(error: ingest::Error) -> Self {
        let message = error.to_string();
        match error {
            ingest::Error::UnknownSession { claimed } => {
                Self::not_found("unknown_session", message).about("session", claimed)
            }
            ingest::Error::ForeignSession { session_id } => {
                Self::new(StatusCode::BAD_REQUEST, "foreign_session", message).about("session", session_id)
            }
            ingest::Error::NotActive { status, session_id } => {
                Self::new(StatusCode::BAD_REQUEST, "session_not_active", message)
                    .with("current_status", status.as_str())
                    .about("session", session_id)
                    .about("status", status)
            }
            ingest::Error::Full { session_id, .. } => {
                Self::new(StatusCode::BAD_REQUEST, "session_full", message).about("session", session_id)
            }
            // The log has told it once; a hall of devices would fill the rest of the disk with it.
            ingest::Error::Log { source, .. } if matches!(*source, wal::Error::NoSpace { .. }) => Self::disk_full(),
            ingest::Error::Log { .. }
            | ingest::Error::LogEnded { .. }
            | ingest::Error::Seal { .. }
            | ingest::Error::Broke { .. } => Self::internal(STORE.0, STORE.1, error),
            ingest::Error::Catalog(_) => Self::internal(CATALOG.0, CATALOG.1, error),
        }
    }
}

/// True if a packet was refused because its session takes none: the device should be told to stop.
pub(super) fn is_stray(error: &ingest::Error) -> bool {
    match error {
        ingest::Error::UnknownSession { .. }
        | ingest::Error::ForeignSession { .. }
        | ingest::Error::NotActive { .. }
        | ingest::Error::Full { .. } => true,
        ingest::Error::Log { .. }
        | ingest::Error::LogEnded { .. }
        | ingest::Error::Seal { .. }
        | ingest::Error::Broke { .. }
        | ingest::Error::Catalog(_) => false,
    }
}

impl From<sessions::Error> for ApiError {
    fn from(error: sessions::Error) -> Self {
        let message = error.to_string();
        match error {
            sessions::Error::NotFound { session_id } => {
                Self::not_found("session_not_found", message).about("session", session_id)
            }
            sessions::Error::ForeignDevice { session_id } => {
                Self::new(StatusCode::BAD_REQUEST, "foreign_device", message).about("session", session_id)
            }
            sessions::Error::WrongState { session_id, status, needed } => {
                Self::new(StatusCode::BAD_REQUEST, "wrong_state", message)
                    .with("current_status", status.as_str())
                    .about("session", session_id)
                    .about("status", status)
                    .about("needed", needed)
            }
            sessions::Error::NoSession => Self::new(StatusCode::BAD_REQUEST, "session_not_named", message),
            sessions::Error::InvalidGroup => Self::new(StatusCode::BAD_REQUEST, "invalid_group", message),
            sessions::Error::Catalog(_) => Self::internal(CATALOG.0, CATALOG.1, error),
            sessions::Error::Log(_) | sessions::Error::Ingest(_) | sessions::Error::Broke => {
                Self::internal(STORE.0, STORE.1, error)
            }
        }
    }
}

impl From<accounts::Error> for ApiError {
    fn from(error: accounts::Error) -> Self {
        use accounts::Error as E;
        let message = error.to_string();
        let refused = |code| Self::new(StatusCode::BAD_REQUEST, code, message.clone());
        match error {
            E::InvalidOpenid => refused("invalid_openid"),
            E::InvalidLabel => refused("invalid_label"),
            E::InvalidAdminName => refused("invalid_admin_name"),
            E::WeakPassword => refused("weak_password"),
            E::InvalidGroup => refused("invalid_group"),
            E::AmbiguousGroup { devices } => refused("ambiguous_group").about("devices", devices),
            E::WrongPairingCode => refused("wrong_pairing_code"),
            E::NoScopes => refused("no_scopes"),
            E::UnknownScope(unknown) => refused("unknown_scope").about("scope", unknown.0),
            E::NoUser { user } => Self::not_found("no_user", message).about("user", user),
            E::NoAdmin { name } => Self::not_found("no_admin", message).about("name", name),
            E::NoToken { token_id } => Self::not_found("no_token", message).about("token", token_id),
            E::NoDevice => refused("no_device"),
            E::Catalog(_) => Self::internal(CATALOG.0, CATALOG.1, error),
            E::Hash(_) | E::UnreadablePassword | E::Broke => {
                Self::internal("internal", "the request could not be served", error)
            }
        }
    }
}

impl From<notify::Error> for ApiError {
    fn from(error: notify::Error) -> Self {
        use notify::Error as E;
        let message = error.to_string();
        let refused = |code| Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message.clone());
        match error {
            E::Catalog(_) => Self::internal(CATALOG.0, CATALOG.1, error),
            E::Client(_) => Self::internal("internal", "the request could not be served", error),
            E::InvalidUrl => refused("invalid_url"),
            E::TooManyWebhooks => refused("too_many_webhooks"),
            E::InvalidTemplate => refused("invalid_template"),
            E::TooManyGrants { user } => refused("too_many_grants").about("user", user),
        }
    }
}

impl From<wechat::Error> for ApiError {
    fn from(error: wechat::Error) -> Self {
        use wechat::Error as E;
        let message = error.to_string();
        if error.is_wrong_code() {
            // `detail` is where the legacy clients look for WeChat's own words.
            return Self::new(StatusCode::BAD_REQUEST, "wechat_refused", message.clone()).with("detail", message);
        }
        match error {
            E::NotConfigured => Self::new(StatusCode::SERVICE_UNAVAILABLE, "wechat_not_configured", message),
            E::Refused { errcode, ref errmsg } => {
                let status =
                    if error.is_retryable() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::BAD_REQUEST };
                let detail = format!("{errcode} {errmsg}");
                Self::new(status, "wechat_refused", message).with("detail", detail)
            }
            E::Unreachable(_) | E::Status { .. } | E::Unreadable => Self {
                retry_after_s: Some(5),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "wechat_unreachable", message)
            },
            E::InvalidCode | E::Secret { .. } | E::Client(_) => {
                Self::internal("internal", "the request could not be served", error)
            }
        }
    }
}

impl From<analysis::Error> for ApiError {
    fn from(error: analysis::Error) -> Self {
        match error {
            analysis::Error::Catalog(_) => Self::internal(CATALOG.0, CATALOG.1, error),
            analysis::Error::NoModel { ref name } => {
                Self::with_status(StatusCode::UNPROCESSABLE_ENTITY, "no_model", "the pipeline has no model")
                    .about("pipeline", name)
            }
            analysis::Error::Calibrate { ref source } => {
                Self::with_status(StatusCode::UNPROCESSABLE_ENTITY, "cannot_calibrate", source.to_string())
                    .about("what", source)
            }
            analysis::Error::UnknownStroke { ref stroke, ref known } => {
                let message = format!("the model does not know the stroke {stroke:?}; it knows {known}");
                Self::with_status(StatusCode::UNPROCESSABLE_ENTITY, "unknown_stroke", message)
                    .about("stroke", stroke)
                    .about("known", known)
            }
            analysis::Error::LabelsLimit { limit, .. } => {
                let message = format!("a session has {limit} labels at most");
                Self::with_status(StatusCode::UNPROCESSABLE_ENTITY, "too_many_labels", message).about("limit", limit)
            }
            analysis::Error::NoPipeline { ref name } => {
                Self::not_found("no_pipeline", "there is no such pipeline").about("pipeline", name)
            }
            analysis::Error::Erased { user } => Self::not_found("no_user", "no such user").about("user", user),
            analysis::Error::Threads(_)
            | analysis::Error::Frames { .. }
            | analysis::Error::NoFrames { .. }
            | analysis::Error::Write { .. }
            | analysis::Error::Decode { .. }
            | analysis::Error::Encode { .. }
            | analysis::Error::Broke { .. }
            | analysis::Error::Model { .. }
            | analysis::Error::Publish { .. }
            | analysis::Error::Changed { .. }
            | analysis::Error::Superseded { .. }
            | analysis::Error::Look
            | analysis::Error::TimedOut { .. } => {
                Self::internal("analysis_unavailable", "the analysis cannot be read", error)
            }
        }
    }
}

impl From<custody::Error> for ApiError {
    fn from(error: custody::Error) -> Self {
        use custody::Error as E;
        let message = error.to_string();
        let later = |code| Self { retry_after_s: Some(30), ..Self::new(StatusCode::CONFLICT, code, message) };
        match error {
            E::NoPlayer { user } => Self::not_found("no_user", "no such user").about("user", user),
            E::Open { session, .. } => later("session_busy").about("session", session),
            E::Compacting | E::Importing | E::Changing { .. } => later("folder_busy"),
            E::Io { .. }
            | E::Catalog(_)
            | E::Wal(_)
            | E::Store(_)
            | E::Archive { .. }
            | E::Archives { .. }
            | E::Backup { .. }
            | E::NotEmpty { .. }
            | E::Receipt { .. } => Self::internal("custody_failed", "the stored data could not be changed", error),
        }
    }
}

impl From<migration::BroughtError> for ApiError {
    fn from(error: migration::BroughtError) -> Self {
        use migration::{ArchiveError as A, BroughtError as E};
        let causes = || {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            text
        };
        let unusable = |code| {
            let what = causes();
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, what.clone()).about("what", what)
        };
        match &error {
            E::Recording(_) => unusable("bad_recording"),
            E::Archive(A::Archive(_) | A::Contradiction { .. }) => unusable("bad_archive"),
            E::Take(_) | E::Archive(_) | E::Broke => {
                Self::internal("import_failed", "the file could not be taken", error)
            }
        }
    }
}

impl From<protocol::Error> for ApiError {
    fn from(error: protocol::Error) -> Self {
        let what = error.to_string();
        Self::new(StatusCode::BAD_REQUEST, error.code(), what.clone()).about("what", what)
    }
}
