//! Notices of a player: what is there since an id, and the word that it was read.

use std::sync::Arc;

use axum::extract::{Path, State as AxumState};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Query, limit};
use super::{Problems, fresh};
use crate::gateway::access::Access;
use crate::gateway::error::ApiError;
use crate::gateway::{Context, Shared};
use crate::notify::Notice;

pub(super) fn router() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(acknowledge))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Since {
    /// Only notices after this one: the last that the client has.
    #[param(max_length = 64)]
    after: Option<String>,
    /// Whose, for admins; a user sees their own.
    user_id: Option<i64>,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

/// A notice.
#[derive(Serialize, ToSchema)]
struct Notification {
    /// Ids sort by time.
    notification_id: String,
    session_id: i64,
    analysis_id: i64,
    created_at_us: i64,
    /// Null: not delivered yet.
    delivered_at_us: Option<i64>,
    /// What `analysis_complete_notification` carries.
    #[schema(value_type = serde_json::Value)]
    analysis_result: serde_json::Value,
}

impl From<Notice> for Notification {
    fn from(notice: Notice) -> Self {
        Self {
            notification_id: notice.notification_id.0.to_string(),
            session_id: notice.session_id.get(),
            analysis_id: notice.analysis_id.get(),
            created_at_us: notice.created_at_us,
            delivered_at_us: notice.delivered_at_us,
            analysis_result: serde_json::from_str(&notice.payload).unwrap_or_default(),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Notifications {
    notifications: Vec<Notification>,
}

/// Notices since an id
///
/// The oldest first. What a client misses on its socket it finds here; the same id may have come by both.
#[utoipa::path(
    get, path = "/api/v2/notifications", tag = "notifications", params(Since),
    responses((status = 200, body = Notifications), Problems)
)]
async fn list(AxumState(context): Shared, access: Access, Query(since): Query<Since>) -> Result<Response, ApiError> {
    let user = access.user(&context.state, since.user_id).await?;
    let limit = limit(since.limit, 100, 1000)?;
    let notices = context.state.notify.since(user, since.after.as_deref().unwrap_or_default(), limit).await?;
    Ok(fresh(Notifications { notifications: notices.into_iter().map(Notification::from).collect() }))
}

/// Say that a notice was read
///
/// It counts as delivered. Repeating it changes nothing.
#[utoipa::path(
    post, path = "/api/v2/notifications/{notification_id}/ack", tag = "notifications",
    params(("notification_id" = String, Path, max_length = 64)),
    responses((status = 204), Problems)
)]
async fn acknowledge(AxumState(context): Shared, access: Access, Path(id): Path<String>) -> Result<Response, ApiError> {
    let user = access.user(&context.state, None).await?;
    if context.state.notify.acknowledge(user, &id).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(ApiError::not_found("no_notification", "there is no such notice"))
    }
}
