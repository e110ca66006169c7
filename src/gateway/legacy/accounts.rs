//! Login and binding.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State as AxumState};
use axum::routing::post;
use serde_json::json;

use super::{Answer, Routes};
use crate::accounts::Subject;
use crate::gateway::Shared;
use crate::gateway::access::{Access, device_code};
use crate::gateway::error::ApiError;
use crate::gateway::forms::Params;
use crate::gateway::options::Auth;

pub(super) fn routes() -> Routes {
    vec![
        ("login", post(login).get(login_stub)),
        ("simple_login", post(simple_login)),
        ("bind_device", post(bind_device)),
    ]
}

/// A login lasts so long; the mini-program logs in at each start.
const LOGIN_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// `login/`: the code of `wx.login()` for the player that it stands for, and a token for what follows.
async fn login(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let state = &context.state;
    let params = Params::of(request, &context.options).await?;
    let code = params.required("code")?;
    state.limits.allows_attempt(access.address)?;
    let openid = state.wechat.openid_of_code(code).await.inspect_err(|error| {
        if error.is_wrong_code() {
            state.limits.note_failure(access.address);
        }
    })?;
    let user = state.accounts.by_openid(&openid).await?;
    let issued = state
        .accounts
        .issue(&Subject::User(user.user_id), Some("wechat"), Some(LOGIN_LIFETIME), &format!("user:{}", user.user_id))
        .await?;
    Ok(Json(json!({
        "msg": access.say("logged_in"),
        "openid": user.openid,
        "user_id": user.user_id,
        "token": issued.token,
        "expires_at_us": issued.info.expires_at_us,
    })))
}

/// GET `login/`: the legacy service showed the shape of an answer there.
async fn login_stub(access: Access) -> Answer {
    Ok(Json(json!({
        "msg": access.say("login_how"),
        "openid": "example_openid",
        "user_id": "example_user_id",
        "nickname": "example",
        "method": "POST",
        "required": { "code": "wx.login()" },
    })))
}

/// The fixed test user that the mini-program has built in; only where names are enough to be somebody.
async fn simple_login(AxumState(context): Shared, access: Access) -> Answer {
    if context.state.options.auth == Auth::Token {
        return Err(ApiError::forbidden("not_allowed"));
    }
    let user = context.state.accounts.test_user().await?;
    Ok(Json(json!({
        "msg": access.say("logged_in_as_test_user"),
        "openid": user.openid,
        "user_id": user.user_id,
        "message": access.say("test_user"),
    })))
}

/// Links the player and a device. With tokens it needs proof that the player has the device: its pairing code, or an admin
/// who says so.
async fn bind_device(AxumState(context): Shared, access: Access, request: Request) -> Answer {
    let state = &context.state;
    let params = Params::of(request, &context.options).await?;
    let device = params.get("device_code").map(device_code).transpose()?;
    let user = access.player(state, &params).await?;
    let device = match (params.get("pairing_code"), device) {
        (Some(code), expected) => {
            let claimed = access.claim(state, user.user_id, code).await?;
            if expected.is_some_and(|expected| expected != claimed) {
                // The code was right, for another device than the request names: bound to what the code proves.
                tracing::info!(device.id = %claimed, "a pairing code of device {claimed} was used for another name");
            }
            claimed
        }
        (None, None) => return Err(ApiError::missing("device_code")),
        (None, Some(_)) if state.options.auth == Auth::Token && !access.caller.is_admin() => {
            return Err(ApiError::forbidden("pairing_required"));
        }
        (None, Some(device)) => {
            state.accounts.bind(user.user_id, &device).await?;
            device
        }
    };
    Ok(Json(json!({ "msg": access.say("device_bound"), "device_code": device })))
}
