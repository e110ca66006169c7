//! Players, tokens, and the log of who did what.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as AxumState;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemas::UserId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{self, Body, ItemPage, Path, Query, limit};
use super::{Problems, fresh};
use crate::accounts::{AuditRow, Scope, Subject, TokenInfo};
use crate::custody::Receipt;
use crate::gateway::access::Access;
use crate::gateway::error::ApiError;
use crate::gateway::{Context, Shared};

pub(super) fn router() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::new()
        .routes(routes!(players))
        .routes(routes!(erase))
        .routes(routes!(tokens, create_token))
        .routes(routes!(revoke_token))
        .routes(routes!(audit_log))
}

/// Items of a page at most.
const PAGE_LIMIT: i64 = 1000;
const PAGE_USUAL: i64 = 100;

/// The next page goes on after the last item of this one.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AfterPage {
    /// Only items with a higher number.
    #[param(minimum = 0)]
    after: Option<i64>,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

/// A player, without what identifies the person.
#[derive(Serialize, ToSchema)]
struct Player {
    user_id: i64,
    /// Devices that the player is bound to.
    device_codes: Vec<String>,
    /// The pipeline that analyses the player's sessions; null: everybody's.
    pipeline: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Players {
    players: Vec<Player>,
}

/// List players
///
/// Needs the scope `players:read`; openids are told to nobody.
#[utoipa::path(
    get, path = "/api/v2/players", tag = "accounts", params(AfterPage),
    responses((status = 200, body = Players), Problems)
)]
async fn players(
    AxumState(context): Shared,
    access: Access,
    Query(page): Query<AfterPage>,
) -> Result<Response, ApiError> {
    access.scope(Scope::PlayersRead)?;
    let after = UserId(extract::page(page.after, 0)?.unwrap_or(0));
    let accounts = &context.state.accounts;
    let mut players = Vec::new();
    for user in accounts.users(after, limit(page.limit, PAGE_USUAL, PAGE_LIMIT)?).await? {
        let devices = accounts.devices_of(user.user_id).await?;
        players.push(Player {
            user_id: user.user_id.get(),
            device_codes: devices.iter().map(ToString::to_string).collect(),
            pipeline: context.state.analysis.pipeline_of(user.user_id).await?,
        });
    }
    Ok(fresh(Players { players }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Erasing {
    /// Say what would go, unsigned, and change nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Erase a player
///
/// For admins. Sessions, frames, strokes, results, notices, tokens and a model of the player's own are gone from every file and
/// database of the service when this answers; the answer is the signed receipt. Refused with 409 while a session of the
/// player is recorded or analysed, or may still get late frames. Repeating it answers the same.
#[utoipa::path(
    delete, path = "/api/v2/players/{user_id}", tag = "accounts",
    params(("user_id" = i64, Path, minimum = 1), Erasing),
    responses((status = 200, body = Receipt), Problems)
)]
async fn erase(
    AxumState(context): Shared,
    access: Access,
    Path(user): Path<String>,
    Query(erasing): Query<Erasing>,
) -> Result<Response, ApiError> {
    access.admin()?;
    let user = UserId(extract::user(&user)?);
    let (context, actor) = (Arc::clone(&context), access.actor());
    // What was begun is finished, also if the caller goes away.
    let erased = tokio::spawn(async move {
        let state = &context.state;
        let receipt = state.eraser.erase(user, erasing.dry_run).await?;
        if !erasing.dry_run {
            state.hub.close_user(user);
            state.accounts.audit(&actor, "player.erase", &user.to_string(), None).await?;
        }
        Ok::<_, ApiError>(receipt)
    });
    Ok(fresh(erased.await.map_err(|_| ApiError::broke())??))
}

#[derive(Serialize, ToSchema)]
struct Tokens {
    tokens: Vec<TokenInfo>,
}

/// List tokens
///
/// The newest first: all for admins, their own for users. The tokens themselves are known to nobody.
#[utoipa::path(
    get, path = "/api/v2/tokens", tag = "accounts", params(ItemPage),
    responses((status = 200, body = Tokens), Problems)
)]
async fn tokens(
    AxumState(context): Shared,
    access: Access,
    Query(page): Query<ItemPage>,
) -> Result<Response, ApiError> {
    let user = access.admin_or_user()?;
    let tokens = context.state.accounts.tokens(user).await?;
    Ok(fresh(Tokens { tokens: page.of(tokens, |token| &token.token_id)? }))
}

/// What a token is to speak for: exactly one of device, user, admin and scopes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    /// A device, by its code.
    device_code: Option<String>,
    /// A player, by number.
    user_id: Option<i64>,
    /// An admin, by name.
    admin_name: Option<String>,
    /// A key for a program, by what it may do.
    scopes: Option<Vec<Scope>>,
    #[schema(max_length = 100)]
    label: Option<String>,
    /// Runs out after so many days; without it, never.
    #[schema(minimum = 1, maximum = 36_500)]
    days: Option<u32>,
}

/// A token, shown this once.
#[derive(Serialize, ToSchema)]
struct Created {
    token: String,
    info: TokenInfo,
}

/// Make a token
///
/// For admins.
#[utoipa::path(
    post, path = "/api/v2/tokens", tag = "accounts", request_body = NewToken,
    responses((status = 201, body = Created), Problems)
)]
async fn create_token(
    AxumState(context): Shared,
    access: Access,
    Body(new): Body<NewToken>,
) -> Result<Response, ApiError> {
    access.admin()?;
    let NewToken { device_code, user_id, admin_name, scopes, label, days } = new;
    let subject = match (device_code, user_id, admin_name, scopes) {
        (Some(code), None, None, None) => Subject::Device(crate::gateway::access::device_code(&code)?),
        (None, Some(user), None, None) => Subject::User(UserId(user)),
        (None, None, Some(name), None) => Subject::Admin(name),
        (None, None, None, Some(scopes)) => Subject::Key(scopes.into_iter().collect()),
        _ => return Err(ApiError::bad_request("name one of device_code, user_id, admin_name, scopes")),
    };
    if days.is_some_and(|days| !(1..=36_500).contains(&days)) {
        return Err(ApiError::bad_request("days is 1 to 36500"));
    }
    let lifetime = days.map(|days| Duration::from_secs(u64::from(days) * 24 * 3600));
    let issued = context.state.accounts.issue(&subject, label.as_deref(), lifetime, &access.actor()).await?;
    let created = Created { token: issued.token, info: issued.info };
    Ok((StatusCode::CREATED, fresh(created)).into_response())
}

/// Revoke a token
///
/// Any for admins, their own for users. Requests with it are refused from now on, its sockets are closed within a ping.
#[utoipa::path(
    delete, path = "/api/v2/tokens/{token_id}", tag = "accounts",
    params(("token_id" = String, Path, description = "As listed")),
    responses((status = 204), Problems)
)]
async fn revoke_token(
    AxumState(context): Shared,
    access: Access,
    Path(token_id): Path<String>,
) -> Result<Response, ApiError> {
    let user = access.admin_or_user()?;
    let accounts = &context.state.accounts;
    let missing = || ApiError::not_found("no_token", "there is no such token").about("token", &token_id);
    let info = accounts.token(&token_id).await?.ok_or_else(missing)?;
    if user.is_some() && info.user_id != user {
        return Err(missing());
    }
    if !accounts.revoke(&token_id, &access.actor()).await? {
        return Err(missing());
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The previous page ends before the first item of this one.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct BeforePage {
    /// Only entries with a lower number.
    #[param(minimum = 1)]
    before: Option<i64>,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

#[derive(Serialize, ToSchema)]
struct AuditLog {
    entries: Vec<AuditRow>,
}

/// Read the audit log
///
/// For admins; the newest entry first.
#[utoipa::path(
    get, path = "/api/v2/audit", tag = "accounts", params(BeforePage),
    responses((status = 200, body = AuditLog), Problems)
)]
async fn audit_log(
    AxumState(context): Shared,
    access: Access,
    Query(page): Query<BeforePage>,
) -> Result<Response, ApiError> {
    access.admin()?;
    let limit = limit(page.limit, PAGE_USUAL, PAGE_LIMIT)?;
    let entries = context.state.accounts.audit_log(extract::page(page.before, 1)?.unwrap_or(i64::MAX), limit).await?;
    Ok(fresh(AuditLog { entries }))
}
