//! Ways in: credentials of every kind, tickets, sign-in links and sessions.

use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;

use crate::{
    auth::{AuthError, Authenticator, CredentialId, Principal},
    id,
    store::{PassKind, Store, StoreError},
    time::{Clock, Millis, Span},
};

/// How long a ticket is good.
pub const TICKET_LIFE: Span = Span::seconds(30);
/// How long a sign-in link is good.
pub const LINK_LIFE: Span = Span::seconds(15 * 60);
/// How long a session is good.
pub const SESSION_LIFE: Span = Span::seconds(12 * 3600);

/// What somebody shows to be let in.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A JWT or an API key.
    Token(SecretString),
    /// A single-use ticket.
    Ticket(SecretString),
    /// A browser's session.
    Session(SecretString),
}

/// Lets people in. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    authenticator: Authenticator,
    store: Store,
    clock: Clock,
}

impl Access {
    /// Access by what `authenticator` knows and `store` keeps.
    pub fn new(authenticator: Authenticator, store: Store, clock: Clock) -> Self {
        Self { authenticator, store, clock }
    }

    /// Who shows this credential. A ticket is used up by it.
    pub async fn authenticate(&self, credential: &Credential) -> Result<Arc<Principal>, AuthError> {
        match credential {
            Credential::Token(token) => {
                self.authenticator.authenticate(token.expose_secret()).await.map(Arc::new)
            }
            Credential::Ticket(ticket) => {
                let hash = id::hash(ticket.expose_secret());
                let stored = self.store.take_pass(PassKind::Ticket, hash).await;
                self.admit(stored, "the ticket is unknown, used or older than 30 seconds").await
            }
            Credential::Session(session) => {
                let hash = id::hash(session.expose_secret());
                let stored = self.store.pass(PassKind::Session, hash).await;
                self.admit(stored, "the session has ended; sign in again").await
            }
        }
    }

    /// Who comes without credentials, if they may.
    pub fn anonymous(&self) -> Option<Arc<Principal>> {
        self.authenticator.anonymous()
    }

    /// Whether credentials accepted earlier still are.
    pub async fn still_valid(&self, principal: &Principal) -> Result<(), AuthError> {
        if let CredentialId::Session(hash) = &principal.credential {
            let stored = self.store.pass(PassKind::Session, hash.clone()).await;
            return match stored.map_err(unavailable)? {
                Some(_) => Ok(()),
                None => Err(AuthError::Revoked),
            };
        }
        self.authenticator.still_valid(principal).await
    }

    /// Moves when credentials may have been revoked.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.store.changes()
    }

    /// A single-use ticket for the same principal, good for [`TICKET_LIFE`].
    pub async fn issue_ticket(&self, principal: &Principal) -> Result<SecretString, AuthError> {
        self.issue(PassKind::Ticket, principal, TICKET_LIFE).await
    }

    /// A code that signs in once as `principal`, good for [`LINK_LIFE`].
    pub async fn issue_link(&self, principal: &Principal) -> Result<SecretString, AuthError> {
        self.issue(PassKind::Link, principal, LINK_LIFE).await
    }

    /// Signs in with the code of a link: the session's secret, for a cookie.
    pub async fn sign_in(&self, code: &SecretString) -> Result<SecretString, AuthError> {
        let taken = self.store.take_pass(PassKind::Link, id::hash(code.expose_secret())).await;
        let principal = self.admit(taken, "the sign-in link is unknown, used or too old").await?;
        let session = id::secret().map_err(unavailable)?;
        let hash = id::hash(&session);
        let expires = self.clock.now().saturating_add(SESSION_LIFE.millis());
        let principal = Principal {
            expires: Some(expires),
            credential: CredentialId::Session(hash.clone()),
            ..(*principal).clone()
        };
        self.put(PassKind::Session, hash, &principal, expires).await?;
        Ok(session.into())
    }

    /// Ends a session, and with it the sockets it opened.
    pub async fn end_session(&self, session: &SecretString) -> Result<(), AuthError> {
        let hash = id::hash(session.expose_secret());
        self.store.take_pass(PassKind::Session, hash).await.map(|_| ()).map_err(unavailable)
    }

    async fn issue(
        &self,
        kind: PassKind,
        principal: &Principal,
        life: Span,
    ) -> Result<SecretString, AuthError> {
        let secret = id::secret().map_err(unavailable)?;
        let expires: Millis = self.clock.now().saturating_add(life.millis());
        self.put(kind, id::hash(&secret), principal, expires).await?;
        Ok(secret.into())
    }

    async fn put(
        &self,
        kind: PassKind,
        hash: String,
        principal: &Principal,
        expires: Millis,
    ) -> Result<(), AuthError> {
        let principal = serde_json::to_string(principal).map_err(unavailable)?;
        self.store.put_pass(kind, hash, principal, expires).await.map_err(unavailable)
    }

    /// The principal a stored pass stands for, if their own credentials are still good.
    async fn admit(
        &self,
        stored: Result<Option<String>, StoreError>,
        missing: &'static str,
    ) -> Result<Arc<Principal>, AuthError> {
        let stored = stored.map_err(unavailable)?.ok_or(AuthError::Invalid(missing))?;
        let principal: Principal = serde_json::from_str(&stored).map_err(unavailable)?;
        if principal.expires.is_some_and(|expires| expires <= self.clock.now()) {
            return Err(AuthError::Expired);
        }
        self.authenticator.still_valid(&principal).await?;
        Ok(Arc::new(principal))
    }
}

fn unavailable(error: impl std::fmt::Display) -> AuthError {
    AuthError::Unavailable(error.to_string())
}
