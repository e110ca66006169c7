//! Who is calling, and as whom they are served.
//!
//! Legacy mode: a device with only a code, or a request with only an openid, is served with the rights of exactly that
//! device or user. Everything that depends on who calls goes through here, so that tokens have one place to be checked.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};
use schemas::DeviceCode;
use schemas::ids::is_path_segment;

use super::State;
use super::error::ApiError;
use crate::accounts::User;

/// The device that a socket path names.
pub(super) fn device(code: &str) -> Result<DeviceCode, ApiError> {
    code.parse().map_err(|error: schemas::ids::InvalidDeviceCode| ApiError::bad_request(error.to_string()))
}

/// The user that a socket path names, by any of their ids.
pub(super) async fn user(state: &State, id: &str) -> Result<User, ApiError> {
    if !is_path_segment(id) {
        let what = "a user id has 1 to 64 characters out of letters, digits, '_', '.' and '-'";
        return Err(ApiError::bad_request(what.to_owned()));
    }
    Ok(state.accounts.by_any_id(id).await?)
}

/// The user that a request names by openid.
pub(super) async fn user_by_openid(state: &State, openid: &str) -> Result<User, ApiError> {
    Ok(state.accounts.by_openid(openid).await?)
}

/// An admin page. Pages of foreign sites are refused: a browser would open the socket for any page it shows.
pub(super) fn admin(state: &State, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) == Some(host);
    if own || state.options.allowed_origins.iter().any(|allowed| allowed == origin) {
        Ok(())
    } else {
        Err(ApiError::forbidden("pages of this origin may not open the admin socket"))
    }
}

/// True if the caller sits at this very machine and no proxy stands between.
pub(super) fn is_local(address: Option<IpAddr>, headers: &HeaderMap) -> bool {
    let forwarded = headers.contains_key("x-forwarded-for") || headers.contains_key(header::FORWARDED);
    !forwarded && address.is_some_and(|address| address.to_canonical().is_loopback())
}
