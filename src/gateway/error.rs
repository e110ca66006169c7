//! The only map from the rooms' errors to codes, statuses and words for clients.
//!
//! Every variant of every room is named here, without wildcards: a new one does not compile until it has a code. The
//! text for a client is apart from the chain of causes, which goes to the log, once, here at the edge.

use std::error::Error as StdError;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tracing::error;

use crate::{accounts, analysis, ingest, protocol, sessions};

/// An error as a client sees it: `{"error": text, "code": word, …}` with a status.
#[derive(Debug)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable word.
    pub code: &'static str,
    /// Text for people.
    pub message: String,
    /// Further members of the answer, such as `current_status`.
    pub details: Map<String, Value>,
    /// What happened inside, for the log; only of errors that are not the caller's.
    pub inside: Option<Box<dyn StdError + Send + Sync>>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: Map::new(), inside: None }
    }

    fn internal(code: &'static str, message: &'static str, inside: impl StdError + Send + Sync + 'static) -> Self {
        Self { inside: Some(Box::new(inside)), ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, message) }
    }

    /// 400: the request cannot be understood.
    #[must_use]
    pub fn bad_request(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 400: a parameter is missing.
    #[must_use]
    pub fn missing(parameter: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "missing_parameter", format!("{parameter} is required"))
    }

    /// 403.
    #[must_use]
    pub fn forbidden(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
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
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, code, message, mut details, .. } = self.logged();
        details.insert("error".to_owned(), json!(message));
        details.insert("code".to_owned(), json!(code));
        (status, Json(Value::Object(details))).into_response()
    }
}

const CATALOG: (&str, &str) = ("catalog_unavailable", "the catalog cannot be used at the moment");
const STORE: (&str, &str) = ("store_unavailable", "the frames could not be stored");

impl From<ingest::Error> for ApiError {
    fn from(error: ingest::Error) -> Self {
        let message = error.to_string();
        match error {
            ingest::Error::UnknownSession { .. } => Self::not_found("unknown_session", message),
            ingest::Error::ForeignSession { .. } => Self::new(StatusCode::BAD_REQUEST, "foreign_session", message),
            ingest::Error::NotActive { status, .. } => {
                Self::new(StatusCode::BAD_REQUEST, "session_not_active", message)
                    .with("current_status", status.as_str())
            }
            ingest::Error::Full { .. } => Self::new(StatusCode::BAD_REQUEST, "session_full", message),
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
            sessions::Error::NotFound { .. } => Self::not_found("session_not_found", message),
            sessions::Error::ForeignDevice { .. } => Self::new(StatusCode::BAD_REQUEST, "foreign_device", message),
            sessions::Error::WrongState { status, .. } => {
                Self::new(StatusCode::BAD_REQUEST, "wrong_state", message).with("current_status", status.as_str())
            }
            sessions::Error::NoSession => Self::new(StatusCode::BAD_REQUEST, "no_session", message),
            sessions::Error::InvalidGroup => Self::new(StatusCode::BAD_REQUEST, "invalid_group", message),
            sessions::Error::Catalog(_) => Self::internal(CATALOG.0, CATALOG.1, error),
            sessions::Error::Ingest(_) => Self::internal(STORE.0, STORE.1, error),
        }
    }
}

impl From<accounts::Error> for ApiError {
    fn from(error: accounts::Error) -> Self {
        match error {
            accounts::Error::InvalidOpenid => Self::new(StatusCode::BAD_REQUEST, "invalid_openid", error.to_string()),
            accounts::Error::Catalog(_) => Self::internal(CATALOG.0, CATALOG.1, error),
        }
    }
}

impl From<analysis::Error> for ApiError {
    fn from(error: analysis::Error) -> Self {
        match error {
            analysis::Error::Catalog(_) => Self::internal(CATALOG.0, CATALOG.1, error),
            analysis::Error::Threads(_)
            | analysis::Error::Frames { .. }
            | analysis::Error::NoFrames { .. }
            | analysis::Error::Write { .. }
            | analysis::Error::Decode { .. }
            | analysis::Error::Encode { .. }
            | analysis::Error::Broke { .. }
            | analysis::Error::TimedOut { .. } => {
                Self::internal("analysis_unavailable", "the analysis cannot be read", error)
            }
        }
    }
}

impl From<protocol::Error> for ApiError {
    fn from(error: protocol::Error) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.code(), error.to_string())
    }
}
