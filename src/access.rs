//! Ways in: credentials of every kind, tickets, sign-in links and sessions.

use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;

use crate::{
    auth::{AuthError, Authenticator, CredentialId, KEYS, Principal},
    grants::Grants,
    id,
    store::{Collection, CollectionKind, Document, NewDocument, Store, StoreError, Writes},
    time::{Clock, Millis, Span},
    topic::TopicPattern,
};

/// How long a ticket is good.
pub const TICKET_LIFE: Span = Span::seconds(30);
/// How long a sign-in link is good.
pub const LINK_LIFE: Span = Span::seconds(15 * 60);
/// How long a session is good.
pub const SESSION_LIFE: Span = Span::seconds(12 * 3600);
/// How long a stream's ticket is good.
pub const STREAM_TICKET_LIFE: Span = SESSION_LIFE;

/// The most tickets of all owners together; links and sessions likewise.
const MOST: usize = 100_000;
/// Tickets, each by the hash of its secret. A power failure may lose the newest writes, which does no harm: a ticket that was
/// used, and whose use is lost, has expired before the machine is back.
const TICKETS: CollectionKind = CollectionKind {
    name: "tickets",
    most: MOST,
    most_of_owner: MOST,
    synced: Writes::None,
    told: Writes::None,
};
/// Sign-in links. A used link must not become valid again.
const LINKS: CollectionKind = CollectionKind { name: "links", synced: Writes::Changes, ..TICKETS };
/// Sessions. An ended session must not become valid again, and its sockets are closed.
const SESSIONS: CollectionKind =
    CollectionKind { name: "sessions", told: Writes::Changes, ..LINKS };

/// Tickets of streams, which are good more than once. A revoked ticket must not become valid again, and its streams end.
const STREAM_TICKETS: CollectionKind = CollectionKind { name: "stream_tickets", ..SESSIONS };

/// The beginning of a stream's ticket. It tells it from other tickets, and scanners can find a leaked one by it.
const STREAM_TICKET: &str = "phs_";

/// A credential that a client sends.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A JWT or an API key.
    Token(SecretString),
    /// A single-use ticket.
    Ticket(SecretString),
    /// A ticket for streams of some topics, any number of times.
    StreamTicket(SecretString),
    /// A browser's session.
    Session(SecretString),
}

impl Credential {
    /// A ticket of either kind.
    pub fn ticket(text: &str) -> Self {
        if text.starts_with(STREAM_TICKET) {
            Self::StreamTicket(text.into())
        } else {
            Self::Ticket(text.into())
        }
    }
}

/// Checks credentials, and makes tickets, links and sessions. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    authenticator: Authenticator,
    tickets: Collection<Principal>,
    links: Collection<Principal>,
    sessions: Collection<Principal>,
    stream_tickets: Collection<Principal>,
    changes: watch::Receiver<u64>,
    clock: Clock,
}

impl Access {
    /// Access by what `authenticator` knows and `store` keeps.
    pub fn new(authenticator: Authenticator, store: &Store, clock: Clock) -> Self {
        let most_of_owner = authenticator.passes_per_principal();
        let collection = |kind| store.collection(CollectionKind { most_of_owner, ..kind });
        Self {
            authenticator,
            tickets: collection(TICKETS),
            links: collection(LINKS),
            sessions: collection(SESSIONS),
            stream_tickets: collection(STREAM_TICKETS),
            changes: store.watch(&[KEYS, SESSIONS, STREAM_TICKETS]),
            clock,
        }
    }

    /// The principal of this credential. A single-use ticket is used up by this.
    pub async fn authenticate(&self, credential: &Credential) -> Result<Arc<Principal>, AuthError> {
        match credential {
            Credential::Token(token) => {
                self.authenticator.authenticate(token.expose_secret()).await.map(Arc::new)
            }
            Credential::Ticket(ticket) => {
                let taken = take(&self.tickets, ticket).await?;
                let principal = taken.ok_or(AuthError::Invalid(
                    "the ticket is unknown, used or older than 30 seconds",
                ))?;
                self.still_valid(&principal).await?;
                Ok(Arc::new(principal))
            }
            Credential::StreamTicket(ticket) => {
                let hash = id::hash(ticket.expose_secret());
                let reader = found(&self.stream_tickets, &hash).await?.ok_or(AuthError::Invalid(
                    "the stream's ticket is unknown, taken back or has expired: ask for a new one",
                ))?;
                self.still_valid(&reader).await?;
                Ok(Arc::new(Principal { credential: CredentialId::StreamTicket(hash), ..reader }))
            }
            Credential::Session(session) => {
                let hash = id::hash(session.expose_secret());
                let signed_in = found(&self.sessions, &hash)
                    .await?
                    .ok_or(AuthError::Invalid("the session has ended; sign in again"))?;
                self.still_valid(&signed_in).await?;
                Ok(Arc::new(Principal { credential: CredentialId::Session(hash), ..signed_in }))
            }
        }
    }

    /// The principal of requests without credentials, if they are allowed.
    pub fn anonymous(&self) -> Option<Arc<Principal>> {
        self.authenticator.anonymous()
    }

    /// The principal of a key that everybody knows.
    pub fn open_key(&self, key: &str) -> Option<Arc<Principal>> {
        self.authenticator.open_key(key)
    }

    /// Whether credentials accepted earlier still are.
    ///
    /// A session ends with the credentials its sign-in link was made by, and a stream's ticket with those it was made by,
    /// whatever their kind.
    pub async fn still_valid(&self, principal: &Principal) -> Result<(), AuthError> {
        if principal.expires.is_some_and(|expires| expires <= self.clock.now()) {
            return Err(AuthError::Expired);
        }
        let mut origin = principal.credential.clone();
        // A session may have made the link of another: no session outlives the one it came from,
        // so the chain is as short as somebody had patience to sign in within its life.
        loop {
            let maker = match &origin {
                CredentialId::Session(hash) => found(&self.sessions, hash).await?,
                CredentialId::StreamTicket(hash) => found(&self.stream_tickets, hash).await?,
                _ => return self.authenticator.still_valid(&origin).await,
            };
            origin = maker.ok_or(AuthError::Revoked)?.credential;
        }
    }

    /// Moves when credentials may have been revoked.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// A single-use ticket for the same principal, good for [`TICKET_LIFE`].
    pub async fn issue_ticket(&self, principal: &Principal) -> Result<SecretString, AuthError> {
        self.issue(&self.tickets, principal, TICKET_LIFE).await
    }

    /// A ticket that opens streams of `topics` as `principal`, and nothing else, until their credentials end or
    /// [`STREAM_TICKET_LIFE`] is over; and when that is. Whether they may read `topics` is for the caller to ask.
    pub async fn issue_stream_ticket(
        &self,
        principal: &Principal,
        topics: Vec<TopicPattern>,
    ) -> Result<(SecretString, Millis), AuthError> {
        let end = self.clock.now().saturating_add(STREAM_TICKET_LIFE.millis());
        let expires = principal.expires.map_or(end, |expires| expires.min(end));
        let reader = Principal {
            grants: Grants { subscribe: topics, ..Grants::default() },
            admin: false,
            expires: Some(expires),
            ..principal.clone()
        };
        let secret = id::secret().map_err(unavailable)?;
        let ticket = SecretString::from(format!("{STREAM_TICKET}{}", secret.expose_secret()));
        put(&self.stream_tickets, &id::hash(ticket.expose_secret()), &reader, expires).await?;
        Ok((ticket, expires))
    }

    /// Takes a stream's ticket back, and ends the streams it opened. One that is not there is no fault: it may have run out.
    pub async fn end_stream_ticket(&self, ticket: &SecretString) -> Result<(), AuthError> {
        take(&self.stream_tickets, ticket).await.map(drop)
    }

    /// A code that signs in once as `principal`, good for [`LINK_LIFE`].
    pub async fn issue_link(&self, principal: &Principal) -> Result<SecretString, AuthError> {
        self.issue(&self.links, principal, LINK_LIFE).await
    }

    /// Signs in with the code of a link; returns the session's secret, for a cookie, and the principal.
    ///
    /// The session is good for [`SESSION_LIFE`], but no longer than the credentials that made the link: a link must not
    /// prolong a token.
    pub async fn exchange(
        &self,
        code: &SecretString,
    ) -> Result<(SecretString, Arc<Principal>), AuthError> {
        let maker = take(&self.links, code)
            .await?
            .ok_or(AuthError::Invalid("the sign-in link is unknown, used or too old"))?;
        self.still_valid(&maker).await?;
        self.begin_session(maker).await
    }

    /// Signs in with a token or an API key, as [`exchange`](Self::exchange) does with a code.
    pub async fn sign_in(
        &self,
        token: &SecretString,
    ) -> Result<(SecretString, Arc<Principal>), AuthError> {
        let maker = self.authenticator.authenticate(token.expose_secret()).await?;
        self.begin_session(maker).await
    }

    async fn begin_session(
        &self,
        maker: Principal,
    ) -> Result<(SecretString, Arc<Principal>), AuthError> {
        let end = self.clock.now().saturating_add(SESSION_LIFE.millis());
        let expires = maker.expires.map_or(end, |expires| expires.min(end));
        let signed_in = Principal { expires: Some(expires), ..maker };
        let session = id::secret().map_err(unavailable)?;
        let hash = id::hash(session.expose_secret());
        put(&self.sessions, &hash, &signed_in, expires).await?;
        let principal = Principal { credential: CredentialId::Session(hash), ..signed_in };
        Ok((session, Arc::new(principal)))
    }

    /// Ends a session and the sockets it opened; false if there was none.
    pub async fn end_session(&self, session: &SecretString) -> Result<bool, AuthError> {
        Ok(take(&self.sessions, session).await?.is_some())
    }

    async fn issue(
        &self,
        passes: &Collection<Principal>,
        principal: &Principal,
        life: Span,
    ) -> Result<SecretString, AuthError> {
        let secret = id::secret().map_err(unavailable)?;
        let expires: Millis = self.clock.now().saturating_add(life.millis());
        put(passes, &id::hash(secret.expose_secret()), principal, expires).await?;
        Ok(secret)
    }
}

/// Whom the pass of this hash stands for, with the credentials it was made by.
async fn found(passes: &Collection<Principal>, hash: &str) -> Result<Option<Principal>, AuthError> {
    let found = passes.get(hash).await.map_err(unavailable)?;
    Ok(found.map(|found| found.body))
}

/// Stores a pass until it expires, unless its owner has as many as they may have.
async fn put(
    passes: &Collection<Principal>,
    hash: &str,
    principal: &Principal,
    expires: Millis,
) -> Result<(), AuthError> {
    let pass = NewDocument {
        id: hash.to_owned(),
        owner: principal.identity().to_string(),
        expires: Some(expires),
        body: principal.clone(),
    };
    match passes.put(pass, None).await {
        Ok(_) => Ok(()),
        Err(StoreError::Full(full)) => Err(AuthError::Full(full)),
        Err(error) => Err(unavailable(error)),
    }
}

/// Whom a pass stands for. Of several who show it at once, one gets it.
async fn take(
    passes: &Collection<Principal>,
    secret: &SecretString,
) -> Result<Option<Principal>, AuthError> {
    let taken = passes.delete(&id::hash(secret.expose_secret()), None).await;
    Ok(taken.map_err(unavailable)?.map(|Document { body, .. }| body))
}

fn unavailable(error: impl std::fmt::Display) -> AuthError {
    AuthError::Unavailable(error.to_string())
}
