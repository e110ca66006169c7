//! Who is calling, in which language, and what they may do: the one place that decides it.
//!
//! A layer around all routes ([`identify`]) reads the secret of a request (header `Authorization: Bearer …`, query
//! `?token=…`, which is how a compiled-in path carries one, or the dashboard's cookie) and gives the handlers an
//! [`Access`]. A handler asks it for the rights that its route needs, by the method that names the kind of right:
//! [`Access::player`], [`Access::device`], [`Access::session`], [`Access::admin`], [`Access::scope`].
//!
//! Modes. `token`: rights come from secrets only. `legacy`: a request without a secret that names an openid has the rights
//! of exactly that user, one that names a device code those of exactly that device, one that knows a session's number may
//! go on with that session, because this is all that the legacy clients send; and somebody at the machine itself, with no
//! proxy and no foreign page between, is its operator. A secret that is wrong is refused in both modes.
//!
//! Invariants: a stranger learns nothing of anybody's session, device, picture or notice, not even whether it exists: what
//! one may not see is answered as if it were not there. Pages of foreign sites get no rights from a cookie or from being
//! opened on the machine.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State as AxumState};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use schemas::ids::is_path_segment;
use schemas::{DeviceCode, SessionId, UserId};

use super::error::{ApiError, Shape, write_pending};
use super::forms::Params;
use super::options::Auth;
use super::socket::Later;
use super::ws::Peer;
use super::{Context, State};
use crate::accounts::{self, Caller, OPENID_LIMIT_BYTES, Scope, User};
use crate::sessions::SessionInfo;
use crate::texts::{self, Lang};

/// The dashboard's cookie.
pub(super) const COOKIE: &str = "volant-login";

/// What a request proved of its caller.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) caller: Caller,
    /// What proved it.
    token: Option<Arc<str>>,
    auth: Auth,
    /// In which the answer is written.
    pub(super) lang: Lang,
    /// True if `lang` was asked for by the request itself, and a user's setting does not count.
    lang_is_asked: bool,
    /// The other end of the connection.
    pub(super) address: Option<IpAddr>,
}

/// What a request wants of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Read,
    /// Start, stop, upload, analyse again.
    Control,
}

impl Access {
    /// A text of an answer, in the caller's language.
    pub(super) fn say(&self, key: &'static str) -> String {
        texts::message(self.lang, key, &[])
    }

    /// The same with placeholders filled.
    pub(super) fn say_with(&self, key: &'static str, arguments: &[(&str, String)]) -> String {
        texts::message(self.lang, key, arguments)
    }

    /// Whether the secret still counts, for connections that outlive their request; `None` if there was none. A catalog
    /// that cannot be asked closes nobody.
    pub(super) fn recheck(&self, state: &State) -> Option<Later<bool>> {
        let (accounts, token) = (state.accounts.clone(), self.token.clone()?);
        Some(Box::pin(async move { !matches!(accounts.authenticate(&token).await, Ok(None)) }))
    }

    /// The caller for the audit log.
    pub(super) fn actor(&self) -> String {
        self.caller.to_string()
    }

    /// True if a request without a secret is served by what it names.
    fn trusts_names(&self) -> bool {
        self.auth == Auth::Legacy && matches!(self.caller, Caller::Stranger | Caller::Operator | Caller::Admin { .. })
    }

    /// The refusal of a caller whose kind may not do this.
    fn refusal(&self) -> ApiError {
        match self.caller {
            Caller::Stranger => ApiError::unauthenticated("token_required"),
            _ => ApiError::forbidden("not_allowed"),
        }
    }

    /// The player that a request is for: the token's, or in legacy mode the one whose `openid` it names.
    pub(super) async fn player(&self, state: &State, params: &Params) -> Result<User, ApiError> {
        self.player_if_any(state, params).await?.ok_or_else(|| match self.caller {
            Caller::Stranger if self.auth == Auth::Token => ApiError::unauthenticated("token_required"),
            _ => ApiError::missing("openid"),
        })
    }

    /// The same, `None` if the request is for nobody in particular.
    pub(super) async fn player_if_any(&self, state: &State, params: &Params) -> Result<Option<User>, ApiError> {
        let openid = params.get("openid");
        if openid.is_some_and(|openid| openid.len() > OPENID_LIMIT_BYTES) {
            return Err(ApiError::with_status(
                axum::http::StatusCode::BAD_REQUEST,
                "invalid_openid",
                "openid too long",
            ));
        }
        match (&self.caller, openid) {
            (Caller::User { user, .. }, None) => {
                let user = state.accounts.by_number(*user).await?;
                Ok(Some(user.ok_or_else(|| ApiError::unauthenticated("invalid_token"))?))
            }
            (Caller::User { user, .. }, Some(openid)) => match state.accounts.find(openid).await? {
                Some(found) if found.user_id == *user => Ok(Some(found)),
                _ => Err(ApiError::forbidden("foreign_user")),
            },
            (Caller::Admin { .. } | Caller::Operator, Some(openid)) => {
                Ok(Some(state.accounts.by_openid(openid).await?))
            }
            (Caller::Stranger, Some(openid)) if self.auth == Auth::Legacy => {
                Ok(Some(state.accounts.by_openid(openid).await?))
            }
            (Caller::Stranger, _) if self.auth == Auth::Token => Err(ApiError::unauthenticated("token_required")),
            (Caller::Device(_) | Caller::Key { .. }, Some(_)) => Err(ApiError::forbidden("not_allowed")),
            (_, None) | (Caller::Stranger, Some(_)) => Ok(None),
        }
    }

    /// The user that a socket's path names, by any of their ids.
    pub(super) async fn user_of_path(&self, state: &State, id: &str) -> Result<User, ApiError> {
        if !is_path_segment(id) {
            let what = "a user id has 1 to 64 characters out of letters, digits, '_', '.' and '-'";
            return Err(ApiError::bad_request(what));
        }
        match &self.caller {
            Caller::User { user, .. } => match state.accounts.find(id).await? {
                Some(found) if found.user_id == *user => Ok(found),
                _ => Err(ApiError::forbidden("foreign_user")),
            },
            _ if self.trusts_names() => Ok(state.accounts.by_any_id(id).await?),
            _ => Err(self.refusal()),
        }
    }

    /// The caller acts as this device: uploads, confirms, polls.
    pub(super) fn device(&self, code: &DeviceCode) -> Result<(), ApiError> {
        match &self.caller {
            Caller::Device(own) if own == code => Ok(()),
            Caller::Admin { .. } | Caller::Operator => Ok(()),
            _ if self.trusts_names() => Ok(()),
            _ => Err(self.refusal()),
        }
    }

    /// The caller may see how this device is.
    pub(super) async fn sees_device(&self, state: &State, code: &DeviceCode) -> Result<(), ApiError> {
        match &self.caller {
            Caller::User { user, .. } => self.bound(state, *user, code).await,
            Caller::Key { scopes, .. } if scopes.has(Scope::DevicesRead) => Ok(()),
            Caller::Key { .. } => Err(missing_scope(Scope::DevicesRead)),
            _ => self.device(code),
        }
    }

    /// The caller may command this device: start, stop, ask.
    ///
    /// In legacy mode whoever knows its code, as before; with tokens the device itself, the users bound to it, admins.
    pub(super) async fn commands_device(&self, state: &State, code: &DeviceCode) -> Result<(), ApiError> {
        match &self.caller {
            Caller::User { user, .. } => self.bound(state, *user, code).await,
            Caller::Key { scopes, .. } if scopes.has(Scope::DevicesWrite) => Ok(()),
            Caller::Key { .. } => Err(missing_scope(Scope::DevicesWrite)),
            _ => self.device(code),
        }
    }

    async fn bound(&self, state: &State, user: UserId, code: &DeviceCode) -> Result<(), ApiError> {
        if self.auth == Auth::Legacy || state.accounts.is_bound_to(user, code).await? {
            Ok(())
        } else {
            Err(ApiError::forbidden("device_not_bound").about("device", code))
        }
    }

    /// A session that the caller may see or control; one that they may not is answered as if it did not exist.
    ///
    /// `params` may name an openid, which in legacy mode narrows the request to that user's sessions.
    pub(super) async fn session(
        &self,
        state: &State,
        session: SessionId,
        params: &Params,
        want: Want,
    ) -> Result<SessionInfo, ApiError> {
        let hidden = || ApiError::not_found("session_not_found", "session not found");
        if self.auth == Auth::Token && self.caller == Caller::Stranger {
            return Err(self.refusal());
        }
        if let Caller::Key { scopes, .. } = &self.caller {
            let needed = if want == Want::Read { Scope::SessionsRead } else { Scope::SessionsWrite };
            if !scopes.has(needed) {
                return Err(missing_scope(needed));
            }
            return state.sessions.info(session).await?.ok_or_else(hidden);
        }
        let player = self.player_if_any(state, params).await?;
        let info = state.sessions.info(session).await?.ok_or_else(hidden)?;
        let allowed = match (&self.caller, player) {
            (_, Some(player)) => match info.user_id {
                Some(owner) => owner == player.user_id,
                // Frames that a device sent of its own accord belong to those who have the device.
                None => {
                    self.auth == Auth::Legacy || state.accounts.is_bound_to(player.user_id, &info.device_code).await?
                }
            },
            (Caller::Device(own), None) => *own == info.device_code,
            // The mini-program names a session by its number and nothing else.
            (Caller::Admin { .. } | Caller::Operator | Caller::Stranger, None) => true,
            (Caller::User { .. } | Caller::Key { .. }, None) => false,
        };
        if allowed { Ok(info) } else { Err(hidden()) }
    }

    /// A session that the caller may label, and as what: as its player, as an admin, as a key. Its device may not, and in legacy
    /// mode it is not enough to know its number.
    pub(super) async fn labels(
        &self,
        state: &State,
        session: SessionId,
    ) -> Result<(SessionInfo, &'static str), ApiError> {
        let labelled_by = match self.caller {
            Caller::User { .. } => "player",
            Caller::Admin { .. } | Caller::Operator => "admin",
            Caller::Key { .. } => "key",
            Caller::Stranger | Caller::Device(_) => return Err(self.refusal()),
        };
        Ok((self.session(state, session, &Params::default(), Want::Control).await?, labelled_by))
    }

    /// Only for admins: everybody's data, commands to all, the service itself.
    pub(super) fn admin(&self) -> Result<(), ApiError> {
        if self.caller.is_admin() { Ok(()) } else { Err(self.refusal()) }
    }

    /// For admins and for keys with this scope.
    pub(super) fn scope(&self, scope: Scope) -> Result<(), ApiError> {
        match &self.caller {
            Caller::Key { scopes, .. } if scopes.has(scope) => Ok(()),
            Caller::Key { .. } => Err(missing_scope(scope)),
            _ => self.admin(),
        }
    }

    /// A page or route of another room. The dashboard's files hold no data; everything else does.
    pub(super) async fn page(&self, state: &State, path: &str) -> Result<(), ApiError> {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        match segments.as_slice() {
            ["api", "v2", "sql" | "export"] => self.scope(Scope::Sql),
            ["api", ..] => self.admin(),
            ["sessions", id, "report"] => {
                // A text that is no number of ours is answered by the page itself: there is no such session.
                let Ok(session) = id.parse() else { return Ok(()) };
                self.session(state, session, &Params::default(), Want::Read).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// The user that a v2 request is for: the token's or, for an admin, the one that is named.
    pub(super) async fn user(&self, state: &State, named: Option<i64>) -> Result<UserId, ApiError> {
        match (&self.caller, named.map(UserId)) {
            (Caller::User { user, .. }, None) => Ok(*user),
            (Caller::User { user, .. }, Some(named)) if named == *user => Ok(named),
            (Caller::User { .. }, Some(_)) => Err(ApiError::forbidden("foreign_user")),
            (caller, Some(named)) if caller.is_admin() => {
                let known = state.accounts.by_number(named).await?;
                known
                    .map(|user| user.user_id)
                    .ok_or_else(|| ApiError::not_found("no_user", "no such user").about("user", named))
            }
            (caller, None) if caller.is_admin() => Err(ApiError::missing("user_id")),
            _ => Err(self.refusal()),
        }
    }

    /// `None` for admins, who may do it to all; the user for users, who may do it to their own.
    pub(super) fn admin_or_user(&self) -> Result<Option<UserId>, ApiError> {
        match &self.caller {
            Caller::User { user, .. } => Ok(Some(*user)),
            _ => self.admin().map(|()| None),
        }
    }

    /// Whose sessions the caller may list; `None`: everybody's.
    pub(super) fn reads_sessions_of(&self) -> Result<Option<UserId>, ApiError> {
        match &self.caller {
            Caller::User { user, .. } => Ok(Some(*user)),
            _ => self.scope(Scope::SessionsRead).map(|()| None),
        }
    }

    /// The devices that the caller may list; `None`: all.
    pub(super) async fn reads_devices_of(&self, state: &State) -> Result<Option<Vec<DeviceCode>>, ApiError> {
        match &self.caller {
            Caller::User { user, .. } => Ok(Some(state.accounts.devices_of(*user).await?)),
            _ => self.scope(Scope::DevicesRead).map(|()| None),
        }
    }

    /// Claims a device by its pairing code; wrong ones count as wrong secrets do.
    pub(super) async fn claim(&self, state: &State, user: UserId, code: &str) -> Result<DeviceCode, ApiError> {
        state.limits.allows_attempt(self.address)?;
        state.accounts.claim(user, code).await.map_err(|error| {
            if matches!(error, accounts::Error::WrongPairingCode) {
                state.limits.note_failure(self.address);
            }
            error.into()
        })
    }

    /// Revokes the secret that this request came with.
    pub(super) async fn revoke_own(&self, state: &State) -> Result<(), ApiError> {
        if let Some(token) = &self.token {
            state.accounts.revoke_itself(token, &self.actor()).await?;
        }
        Ok(())
    }

    /// The language for a user: what the request asks for, else what the user chose, else the route's.
    pub(super) async fn lang_for(&self, state: &State, user: UserId) -> Result<Lang, ApiError> {
        if self.lang_is_asked {
            return Ok(self.lang);
        }
        Ok(state.accounts.language(user).await?.unwrap_or(self.lang))
    }
}

fn missing_scope(scope: Scope) -> ApiError {
    ApiError::forbidden("missing_scope").about("scope", scope)
}

impl FromRequestParts<Arc<Context>> for Access {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Context>) -> Result<Self, ApiError> {
        // The layer around all routes put it there; without it nobody has any right.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| ApiError::unauthenticated("token_required"))
    }
}

/// The layer around all routes: finds out who calls, and writes errors in their language and shape.
pub(super) async fn identify(AxumState(context): AxumState<Arc<Context>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path();
    let shape = if path == "/api/v2" || path.starts_with("/api/v2/") { Shape::Problem } else { Shape::Legacy };
    // The legacy clients are Chinese and ask for no language.
    let legacy = ["/wxapp/", "/ws/miniprogram/", "/api/"].iter().any(|prefix| path.starts_with(prefix));
    let usual = if legacy && shape == Shape::Legacy { Lang::Zh } else { Lang::En };
    let query = parts.uri.query().unwrap_or_default();
    let asked = query_value(query, "lang").and_then(|lang| lang.parse().ok()).or_else(|| {
        let header = parts.headers.get(header::ACCEPT_LANGUAGE)?;
        Lang::accepted(header.to_str().ok()?)
    });
    let lang = asked.unwrap_or(usual);
    let address = parts.extensions.get::<Peer>().map(|peer| peer.address);
    let found = async {
        context.state.limits.allows_request(address)?;
        let (caller, token) = who(&context.state, &parts.method, &parts.headers, query, address).await?;
        // The legacy routes look for an openid among their parameters; the new API takes it beside them.
        let openid = query_value(query, "openid").filter(|_| shape == Shape::Problem && token.is_none());
        match openid {
            Some(openid) if context.state.options.auth == Auth::Legacy => {
                match context.state.accounts.find(openid).await? {
                    Some(user) => Ok((Caller::User { user: user.user_id, language: None }, None)),
                    None => Err(ApiError::unauthenticated("invalid_token")),
                }
            }
            _ => Ok((caller, token)),
        }
    };
    let found = async {
        let (caller, token) = found.await?;
        context.state.limits.allows_caller(&caller)?;
        Ok::<_, ApiError>((caller, token))
    };
    let (caller, token) = match found.await {
        Ok(found) => found,
        Err(error) => {
            metrics::counter!("volant_gateway_refused_callers_total", "reason" => error.code).increment(1);
            return write_pending(error.into_response(), lang, shape);
        }
    };
    let lang = match (&caller, asked) {
        (Caller::User { language: Some(chosen), .. }, None) => *chosen,
        _ => lang,
    };
    let auth = context.state.options.auth;
    let access = Access { caller, token, auth, lang, lang_is_asked: asked.is_some(), address };
    parts.extensions.insert(access);
    write_pending(next.run(Request::from_parts(parts, body)).await, lang, shape)
}

/// Who calls a service that speaks neither HTTP's errors nor its languages.
pub(super) async fn identify_stranger(state: &State, request: &Parts) -> Result<Access, ApiError> {
    let address = request.extensions.get::<Peer>().map(|peer| peer.address);
    state.limits.allows_request(address)?;
    let (caller, token) = who(state, &request.method, &request.headers, "", address).await?;
    state.limits.allows_caller(&caller)?;
    Ok(Access { caller, token, auth: state.options.auth, lang: Lang::En, lang_is_asked: false, address })
}

/// Who calls over a wire that is not HTTP, by what it would have said there.
#[cfg(feature = "postgres")]
pub(super) async fn identify_wire(state: &State, headers: &HeaderMap, address: IpAddr) -> Result<Access, ApiError> {
    state.limits.allows_request(Some(address))?;
    let (caller, token) = who(state, &Method::GET, headers, "", Some(address)).await?;
    state.limits.allows_caller(&caller)?;
    Ok(Access { caller, token, auth: state.options.auth, lang: Lang::En, lang_is_asked: false, address: Some(address) })
}

/// A secret of a request, and where it stood.
enum Secret<'a> {
    Given(&'a str),
    /// A browser sends it by itself, whoever made the page.
    Cookie(&'a str),
    None,
}

async fn who(
    state: &State,
    method: &Method,
    headers: &HeaderMap,
    query: &str,
    address: Option<IpAddr>,
) -> Result<(Caller, Option<Arc<str>>), ApiError> {
    let secret = secret(headers, query);
    let own_page = is_own_origin(state, headers);
    let token = match secret {
        Secret::Given(token) => token,
        Secret::Cookie(token) => {
            if own_page == Some(false) || (own_page.is_none() && !method.is_safe()) {
                return Err(ApiError::forbidden("foreign_origin"));
            }
            token
        }
        Secret::None => {
            let operates = state.options.auth == Auth::Legacy && own_page != Some(false) && is_local(address, headers);
            return Ok((if operates { Caller::Operator } else { Caller::Stranger }, None));
        }
    };
    // A token has too many bits to be guessed, so a wrong one locks nobody out; it only counts.
    match state.accounts.authenticate(token).await? {
        Some(caller) => Ok((caller, Some(token.into()))),
        // A login that has run out must not lock the page that asks for the next one.
        None if matches!(secret, Secret::Cookie(_)) => Ok((Caller::Stranger, None)),
        None => Err(ApiError::unauthenticated("invalid_token")),
    }
}

fn secret<'a>(headers: &'a HeaderMap, query: &'a str) -> Secret<'a> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    if let Some(token) = bearer.or_else(|| query_value(query, "token").filter(|token| !token.is_empty())) {
        return Secret::Given(token);
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let login = cookies.flat_map(|cookies| cookies.split(';')).find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    });
    login.map_or(Secret::None, Secret::Cookie)
}

/// A value of the query that needs no unescaping, as tokens and languages are.
fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// Whether the page that makes the request is ours; `None` for requests that no page makes.
fn is_own_origin(state: &State, headers: &HeaderMap) -> Option<bool> {
    let origin = headers.get(header::ORIGIN)?.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) == Some(host);
    Some(own || state.options.allowed_origins.iter().any(|allowed| allowed == origin))
}

/// True if the caller sits at this very machine and no proxy stands between. The name that it calls the service by must be
/// the machine's too: a foreign page can make its own name point here.
fn is_local(address: Option<IpAddr>, headers: &HeaderMap) -> bool {
    let forwarded = ["x-forwarded-for", "x-real-ip", "forwarded", "via"].iter().any(|name| headers.contains_key(*name));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    let here = name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    here && !forwarded && address.is_some_and(|address| address.to_canonical().is_loopback())
}

/// A session number that a request names. A text that cannot be one of ours names no session: the same answer as for one
/// that does not exist.
pub(super) fn session_id(params: &Params) -> Result<SessionId, ApiError> {
    let text = params.required("session_id")?;
    text.parse().map_err(|_| ApiError::not_found("session_not_found", "session not found"))
}

/// A device code that a request or a path names.
pub(super) fn device_code(text: &str) -> Result<DeviceCode, ApiError> {
    text.parse().map_err(|error: schemas::ids::InvalidDeviceCode| ApiError::bad_request(error.to_string()))
}
