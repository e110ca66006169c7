//! Strict input: what is not exactly as documented is an error in the documented form.

use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use schemas::{DeviceCode, SessionId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use utoipa::IntoParams;

use crate::gateway::Context;
use crate::gateway::error::ApiError;

/// A JSON body, an object: read into a struct an array would pass as its fields in order.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Context>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, context: &Arc<Context>) -> Result<Self, ApiError> {
        let kind =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(ApiError::with_status(status, "not_json_content", "the body must be application/json"));
        }
        let reading = to_bytes(request.into_body(), context.options.body_limit_bytes);
        let Ok(read) = timeout(context.options.body_timeout, reading).await else {
            let status = StatusCode::REQUEST_TIMEOUT;
            return Err(ApiError::with_status(status, "body_timeout", "the body did not arrive in time"));
        };
        let body = read.map_err(|_| {
            ApiError::with_status(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the body is too large or broke off")
        })?;
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            return Err(ApiError::bad_request("the body must be an object, not an array"));
        }
        serde_json::from_slice(&body).map(Self).map_err(|error| ApiError::bad_request(error.to_string()))
    }
}

/// What stands in the path. Text that is not UTF-8 names nothing.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Context>> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &Arc<Context>) -> Result<Self, ApiError> {
        match axum::extract::Path::<T>::from_request_parts(parts, context).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(_) => Err(ApiError::not_found("unknown_path", "nothing is there").about("path", parts.uri.path())),
        }
    }
}

/// The query of the address.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Context>> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Context>) -> Result<Self, ApiError> {
        // `token`, `lang` and `openid` are the gateway's own and stand beside what the operation takes.
        let query = parts.uri.query().unwrap_or_default();
        let own = |pair: &&str| ["token=", "lang=", "openid="].iter().all(|own| !pair.starts_with(own));
        let query = query.split('&').filter(own).collect::<Vec<_>>().join("&");
        let uri = format!("/?{query}").parse().map_err(|_| ApiError::bad_request("the query cannot be read"))?;
        axum::extract::Query::<T>::try_from_uri(&uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|error| ApiError::bad_request(error.body_text()))
    }
}

/// Between 1 and `most`; `usual` where nothing is asked.
pub(super) fn limit(asked: Option<i64>, usual: i64, most: i64) -> Result<i64, ApiError> {
    match asked {
        None => Ok(usual),
        Some(limit) if (1..=most).contains(&limit) => Ok(limit),
        Some(_) => Err(ApiError::bad_request(format!("limit is 1 to {most}"))),
    }
}

/// A number of a page, which is at least `least`.
pub(super) fn page(asked: Option<i64>, least: i64) -> Result<Option<i64>, ApiError> {
    match asked {
        Some(number) if number < least => Err(ApiError::bad_request(format!("a page begins at {least} or later"))),
        asked => Ok(asked),
    }
}

/// A page of a list whose items are known by a text.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ItemPage {
    /// Only items after this one: the last of the page before.
    after: Option<String>,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

impl ItemPage {
    /// Items of a page at most, which is what comes where nothing is asked.
    const LIMIT: i64 = 1000;

    /// This page of `items`; `id` is what `after` names.
    pub(super) fn of<T>(&self, mut items: Vec<T>, id: impl Fn(&T) -> &str) -> Result<Vec<T>, ApiError> {
        let limit = limit(self.limit, Self::LIMIT, Self::LIMIT)?;
        if let Some(after) = &self.after {
            let place = items.iter().position(|item| id(item) == after);
            let place = place.ok_or_else(|| ApiError::bad_request("there is no item of that name to begin after"))?;
            items.drain(..=place);
        }
        items.truncate(limit as usize);
        Ok(items)
    }
}

/// A session number in a path. What is none of ours names no session.
pub(super) fn session(id: &str) -> Result<SessionId, ApiError> {
    id.parse().map_err(|_| ApiError::not_found("session_not_found", "session not found"))
}

/// A user's number in a path.
pub(super) fn user(id: &str) -> Result<i64, ApiError> {
    id.parse().map_err(|_| ApiError::not_found("no_user", "no such user").about("user", id))
}

/// A pipeline's name in a path.
pub(super) fn pipeline(name: String) -> Result<String, ApiError> {
    if schemas::ids::is_path_segment(&name) {
        return Ok(name);
    }
    let shown: String = name.chars().take(64).collect();
    Err(ApiError::not_found("no_pipeline", "there is no such pipeline").about("pipeline", shown))
}

/// A device code in a path.
pub(super) fn device(code: &str) -> Result<DeviceCode, ApiError> {
    code.parse().map_err(|_| ApiError::not_found("no_device", "there is no such device"))
}
