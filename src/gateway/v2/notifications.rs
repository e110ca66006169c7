//! Notices of a player: what is there since an id, and the word that it was read.

use std::sync::Arc;

use axum::extract::State as AxumState;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemas::UserId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Body, ItemPage, Path, Query, limit};
use super::{Problems, fresh};
use crate::gateway::access::Access;
use crate::gateway::error::ApiError;
use crate::gateway::{Context, Shared};
use crate::notify::{Notice, WebhookRow};

pub(super) fn router() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(acknowledge))
        .routes(routes!(webhooks, add_webhook))
        .routes(routes!(remove_webhook))
        .routes(routes!(grant))
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

// ---- webhooks and grants ------------------------------------------------------------------------------------------

/// A webhook: notices are posted there, signed as the Standard Webhooks specification has it.
#[derive(Serialize, ToSchema)]
struct Webhook {
    webhook_id: String,
    /// Null: notices of every player.
    user_id: Option<i64>,
    url: String,
    created_by: String,
    created_at_us: i64,
    /// Not null: nothing more goes there.
    disabled_at_us: Option<i64>,
}

impl From<WebhookRow> for Webhook {
    fn from(row: WebhookRow) -> Self {
        Self {
            webhook_id: row.webhook_id,
            user_id: row.user_id.map(UserId::get),
            url: row.url,
            created_by: row.created_by,
            created_at_us: row.created_at_us,
            disabled_at_us: row.disabled_at_us,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Webhooks {
    webhooks: Vec<Webhook>,
}

/// List webhooks
///
/// The oldest first: all for admins, their own for users.
#[utoipa::path(
    get, path = "/api/v2/webhooks", tag = "notifications", params(ItemPage),
    responses((status = 200, body = Webhooks), Problems)
)]
async fn webhooks(
    AxumState(context): Shared,
    access: Access,
    Query(page): Query<ItemPage>,
) -> Result<Response, ApiError> {
    let user = access.admin_or_user()?;
    let rows = page.of(context.state.notify.webhooks(user).await?, |row| &row.webhook_id)?;
    Ok(fresh(Webhooks { webhooks: rows.into_iter().map(Webhook::from).collect() }))
}

/// Where notices are to be posted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewWebhook {
    /// A public http or https address.
    #[schema(max_length = 2000)]
    url: String,
    /// For admins: whose notices; without it, everybody's. A user gets their own.
    user_id: Option<i64>,
}

/// A webhook and its secret, shown this once.
#[derive(Serialize, ToSchema)]
struct CreatedWebhook {
    webhook: Webhook,
    /// `whsec_` and base64; checks the signatures.
    secret: String,
}

/// Set up a webhook
#[utoipa::path(
    post, path = "/api/v2/webhooks", tag = "notifications", request_body = NewWebhook,
    responses((status = 201, body = CreatedWebhook), Problems)
)]
async fn add_webhook(
    AxumState(context): Shared,
    access: Access,
    Body(new): Body<NewWebhook>,
) -> Result<Response, ApiError> {
    let state = &context.state;
    let user = match (access.admin_or_user()?, new.user_id) {
        (None, None) => None,
        (_, named) => Some(access.user(state, named).await?),
    };
    let row = state.notify.add_webhook(user, &new.url, &access.actor()).await?;
    state.accounts.audit(&access.actor(), "webhook.create", &row.webhook_id, None).await?;
    let secret = row.secret.clone();
    Ok((StatusCode::CREATED, fresh(CreatedWebhook { webhook: row.into(), secret })).into_response())
}

/// Take a webhook away
#[utoipa::path(
    delete, path = "/api/v2/webhooks/{webhook_id}", tag = "notifications",
    params(("webhook_id" = String, Path, max_length = 64)),
    responses((status = 204), Problems)
)]
async fn remove_webhook(
    AxumState(context): Shared,
    access: Access,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let user = access.admin_or_user()?;
    if !context.state.notify.remove_webhook(&id, user).await? {
        return Err(ApiError::not_found("no_webhook", "there is no such webhook"));
    }
    context.state.accounts.audit(&access.actor(), "webhook.remove", &id, None).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// That a player accepted a subscribe message.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewGrant {
    /// As in `wx.requestSubscribeMessage`.
    #[schema(min_length = 1, max_length = 64)]
    template_id: String,
    /// Whose, for admins.
    user_id: Option<i64>,
}

#[derive(Serialize, ToSchema)]
struct Grants {
    /// Messages that may still be sent by this template.
    left: i64,
}

/// Note a granted WeChat message
///
/// The mini-program says so when `wx.requestSubscribeMessage` was accepted; each grant buys one message, which is sent when a
/// result is ready and the player is not connected.
#[utoipa::path(
    post, path = "/api/v2/wechat/grants", tag = "notifications", request_body = NewGrant,
    responses((status = 201, body = Grants), Problems)
)]
async fn grant(AxumState(context): Shared, access: Access, Body(new): Body<NewGrant>) -> Result<Response, ApiError> {
    let user = access.user(&context.state, new.user_id).await?;
    let left = context.state.notify.grant(user, &new.template_id).await?;
    Ok((StatusCode::CREATED, fresh(Grants { left })).into_response())
}
