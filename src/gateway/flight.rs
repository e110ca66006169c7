//! The gate in front of Flight SQL: the same callers, rights and limits as of the SQL route, said in gRPC's words.

use axum::Router;
use axum::extract::{Request, State as AxumState};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use tonic::{Code, Status};

use super::State;
use super::access::{Access, identify_stranger};
use super::error::ApiError;
use crate::accounts::Scope;
use crate::texts::Lang;

/// The routes of the service, for callers who may ask in SQL.
pub fn flight_router(state: State, service: Router) -> Router {
    service.layer(axum::middleware::from_fn_with_state(state, authorize))
}

async fn authorize(AxumState(state): AxumState<State>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    // HTTP/2 names the service in the address, where the rules for local callers do not look.
    if let Some(host) = head.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
        head.headers.entry(header::HOST).or_insert(host);
    }
    if let Some(bearer) = bearer_of_password(&head.headers) {
        head.headers.insert(header::AUTHORIZATION, bearer);
    }
    let allowed = async {
        let access: Access = identify_stranger(&state, &head).await?;
        access.scope(Scope::Sql)
    };
    match allowed.await {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(error) => refused(error),
    }
}

/// Clients that know only names and passwords give a token as the password; the name says nothing.
fn bearer_of_password(headers: &HeaderMap) -> Option<HeaderValue> {
    let (scheme, pair) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    // Some clients pad, some do not.
    let pair = String::from_utf8(BASE64.decode(pair.trim().trim_end_matches('=')).ok()?).ok()?;
    let (_, password) = pair.split_once(':')?;
    HeaderValue::from_str(&format!("Bearer {password}")).ok()
}

fn refused(error: ApiError) -> Response {
    metrics::counter!("volant_gateway_refused_callers_total", "reason" => error.code).increment(1);
    let error = error.logged();
    let code = match error.status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        _ => Code::Internal,
    };
    Status::new(code, error.text(Lang::En)).into_http()
}
