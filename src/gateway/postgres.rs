//! The gate in front of the PostgreSQL wire: the same callers, rights and limits as of the SQL route.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::State;
use super::access::{Access, identify_wire};
use super::error::ApiError;
use crate::accounts::Scope;
use crate::texts::Lang;

/// Why a caller may not ask, in words, and whether a token may help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireRefusal {
    /// In words for the caller.
    pub message: String,
    /// A token may help.
    pub needs_token: bool,
}

/// Whether a caller at this address may ask in SQL. Its token, if it gave one, came as its password; its name says nothing.
///
/// # Errors
/// [`WireRefusal`] if not.
pub async fn admit_to_sql(state: &State, address: IpAddr, token: Option<String>) -> Result<(), WireRefusal> {
    let allowed = async {
        let mut headers = HeaderMap::new();
        // The wire names no host; who speaks from this machine speaks to it.
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        if let Some(token) = &token {
            let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
            headers.insert(header::AUTHORIZATION, bearer.map_err(|_| ApiError::unauthenticated("invalid_token"))?);
        }
        let access: Access = identify_wire(state, &headers, address).await?;
        access.scope(Scope::Sql)
    };
    allowed.await.map_err(|error| {
        let needs_token = token.is_none() && matches!(error.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if !needs_token {
            metrics::counter!("volant_gateway_refused_callers_total", "reason" => error.code).increment(1);
        }
        WireRefusal { message: error.logged().text(Lang::En), needs_token }
    })
}
