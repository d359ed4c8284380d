//! `/api/v1/session`: credentials for browsers.

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header, request::Parts};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{
    AppState, Caller, CredentialsError, Problem,
    body::{self, Payer},
    credentials::{self, SECURE_SESSION_COOKIE, SESSION_COOKIE},
    server,
};
use crate::{
    auth::{AuthError, Principal},
    grants::Grants,
    telemetry::Limit,
    time::Millis,
};

/// Counts that somebody has as many passes as they may.
pub(super) fn counted<T>(state: &AppState, made: Result<T, AuthError>) -> Result<T, Problem> {
    if let Err(AuthError::Full(_)) = &made {
        state.telemetry.hit(Limit::PassesPerPrincipal);
    }
    Ok(made?)
}

/// A sign-in.
#[derive(Deserialize)]
#[serde(try_from = "SignInBody")]
pub(super) enum SignIn {
    /// Of a sign-in link.
    Code(SecretString),
    /// A JWT or an API key.
    Token(SecretString),
}

/// The body of one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignInBody {
    code: Option<SecretString>,
    token: Option<SecretString>,
}

impl TryFrom<SignInBody> for SignIn {
    type Error = &'static str;

    fn try_from(body: SignInBody) -> Result<Self, Self::Error> {
        match body {
            SignInBody { code: Some(code), token: None } => Ok(Self::Code(code)),
            SignInBody { code: None, token: Some(token) } => Ok(Self::Token(token)),
            _ => Err("the body has one of the two: `code`, of a sign-in link, or `token`"),
        }
    }
}

/// Whose a session is, and what it may do.
#[derive(Serialize)]
struct SessionInfo<'a> {
    user: &'a str,
    admin: bool,
    expires_in: Option<u64>,
    #[serde(flatten)]
    grants: &'a Grants,
    /// Whether what there is to see is made up.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    demo: bool,
}

impl<'a> SessionInfo<'a> {
    fn of(principal: &'a Principal, state: &AppState) -> Self {
        let left = |expires: Millis| expires.saturating_sub(state.clock.now()) / 1000;
        Self {
            user: &principal.name,
            admin: principal.admin,
            expires_in: principal.expires.map(left),
            grants: &principal.grants,
            demo: state.settings.is_demo,
        }
    }
}

/// Turns the code of a sign-in link, a token or an API key into a session. It needs no other
/// credentials; but a page of another origin may not sign its visitors in as somebody else.
pub(super) async fn begin(
    State(state): State<AppState>,
    parts: Parts,
    body: Body,
) -> Result<Response, Problem> {
    if parts.headers.contains_key(header::ORIGIN) && !credentials::is_same_origin(&parts) {
        return Err(CredentialsError::CrossOrigin.into());
    }
    let from = parts.extensions.get::<server::ClientConnection>().map(|from| from.client.ip());
    let said = body::json(&parts.headers, body, &state, Payer::Stranger(from)).await?;
    let way = match &said {
        SignIn::Code(_) => "link",
        SignIn::Token(_) => "token",
    };
    let (most, now) = (state.settings.wrong_sign_ins, state.clock.elapsed());
    if let Some(Err(wait)) = from.map(|from| state.attempts.begin(from, most, now)) {
        state.telemetry.hit(Limit::WrongSignIns);
        return Err(Problem::too_many_sign_ins(most, wait));
    }
    let signed_in = match said {
        SignIn::Code(code) => state.access.exchange(&code).await,
        SignIn::Token(token) => state.access.sign_in(&token).await,
    };
    if let Some(from) = from {
        match &signed_in {
            Ok(_) | Err(AuthError::Unavailable(_) | AuthError::Full(_)) => {
                state.attempts.right(from);
            }
            // At most so many a minute from one address; the fields are for programs that ban addresses.
            Err(reason) => tracing::warn!(client = %from, way, %reason, "a sign-in was refused"),
        }
    }
    let (session, principal) = counted(&state, signed_in)?;
    let answer = SessionInfo::of(&principal, &state);
    // Shorter than a session's full life where the credentials behind it end sooner.
    let seconds = answer.expires_in.unwrap_or_default();
    let cookie = cookie(&state, session.expose_secret(), seconds)?;
    Ok(([(header::SET_COOKIE, cookie)], Json(answer)).into_response())
}

/// Who the session is, for a page that has just been opened.
pub(super) async fn whoami(State(state): State<AppState>, Caller(principal): Caller) -> Response {
    Json(SessionInfo::of(&principal, &state)).into_response()
}

/// Ends the session of the cookie, and with it the sockets it opened. Once more does no harm.
pub(super) async fn end(State(state): State<AppState>, parts: Parts) -> Result<Response, Problem> {
    // Refuses what a page of another site sent.
    credentials::collect(&parts)?;
    if let Some(session) = credentials::session(&parts.headers) {
        state.access.end_session(&session).await?;
    }
    let cookie = cookie(&state, "", 0)?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// `Secure` by configuration only: whether a proxy in front speaks TLS cannot be seen from here, and
/// `X-Forwarded-Proto` can be sent by anybody.
fn cookie(state: &AppState, session: &str, seconds: u64) -> Result<HeaderValue, Problem> {
    let is_secure = state.settings.http.secure_cookie;
    let name = if is_secure { SECURE_SESSION_COOKIE } else { SESSION_COOKIE };
    let secure = if is_secure { "; Secure" } else { "" };
    let text =
        format!("{name}={session}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| Problem::unavailable("the session cannot be written as a cookie"))?;
    value.set_sensitive(true);
    Ok(value)
}
