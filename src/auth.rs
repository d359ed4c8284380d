//! Who somebody is and what they may do: credentials become a [`Principal`].

mod api_key;
mod api_keys;
mod claims;
mod jwt;
mod key;
mod mint;
mod set;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

pub use self::{
    api_key::{ApiKey, MakeError, NewApiKey},
    api_keys::{ApiKeys, KEYS, StoredKey},
    key::Algorithm,
    mint::{MintClaims, MintError, mint},
};
use crate::{
    bounds,
    event::PublisherName,
    grants::Grants,
    protocol::CloseCode,
    store::{CollectionFull, Store},
    time::{Clock, Millis, Span},
    topic::{Topic, TopicPattern},
};

/// The `[auth]` section of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// The `iss` a token must have; empty accepts any.
    pub issuer: String,
    /// Of these a token's `aud` must name one; empty accepts any.
    pub audience: Vec<String>,
    /// The longest remaining life of a token; without it a very long one is accepted with a warning.
    pub longest_life: Option<Span>,
    /// How far in the future a token's `nbf` may lie.
    pub not_before_leeway: Span,
    /// Where a token names its roles: a claim, or a path such as `realm_access.roles`.
    pub roles_claim: String,
    /// Where a token lists the patterns it may subscribe to.
    pub subscribe_claim: String,
    /// Where a token lists the patterns it may publish to.
    pub publish_claim: String,
    /// Whether `?token=` is taken in the address of a socket.
    pub query_token: bool,
    /// Wrong sign-ins a minute from one address.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub wrong_sign_ins: u32,
    /// The most tickets, sign-in links and sessions of one principal, of each.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub passes_per_principal: usize,
    /// Keys of other issuers, beside the hub's own secret.
    #[serde(default)]
    pub keys: Vec<KeyConfig>,
    /// What roles mean, beside viewer, publisher and admin.
    #[serde(default)]
    pub roles: BTreeMap<String, Role>,
    /// What somebody without credentials may do; without it, nothing.
    pub anonymous: Option<Grants>,
    /// Keys that everybody knows, and what may be published with each on TimeTracker's paths.
    #[serde(default)]
    pub open_keys: BTreeMap<String, Vec<TopicPattern>>,
}

/// A key that verifies tokens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Tokens with this `kid` are verified by this key only.
    pub kid: Option<String>,
    /// What the key is for; tokens signed otherwise are refused.
    pub algorithm: Algorithm,
    /// For HS algorithms: the shared secret.
    pub secret: Option<SecretString>,
    /// For the others: the public key in PEM.
    pub pem: Option<String>,
    /// For the others: a file with the public key in PEM.
    pub pem_file: Option<PathBuf>,
    /// The `iss` a token of this key must have, in place of the one for all.
    pub issuer: Option<String>,
    /// Of these a token of this key must name one as `aud`, in place of those for all.
    pub audience: Option<Vec<String>>,
    /// The roles a token of this key may give, and its patterns lie within; without it, every role and every pattern.
    pub roles: Option<BTreeSet<String>>,
}

/// What a role may do.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Role {
    /// Patterns to subscribe to.
    pub subscribe: Vec<TopicPattern>,
    /// Patterns to publish to.
    pub publish: Vec<TopicPattern>,
    /// Whether it may see and change the hub itself.
    pub admin: bool,
}

impl Role {
    /// May do everything but publish in the hub's name.
    pub fn admin() -> Self {
        let patterns = |texts: &[&str]| {
            texts.iter().filter_map(|text| TopicPattern::parse(text).ok()).collect()
        };
        Self { subscribe: patterns(&["**", "hub.**"]), publish: patterns(&["**"]), admin: true }
    }
}

/// Whether a token of this life is one that a hub warns of.
pub fn is_long_life(config: &AuthConfig, life: Span) -> bool {
    config.longest_life.is_none() && life > claims::LONG_LIFE
}

/// Refuses keys, or a secret, that [`Authenticator::new`] would refuse; no secret is none yet.
pub fn check(config: &AuthConfig, secret: &SecretString) -> Result<(), AuthConfigError> {
    let secret = Some(secret).filter(|secret| !secret.expose_secret().is_empty());
    jwt::Verifier::new(config, secret).map(drop)
}

/// What is wrong with a configured secret, which may be empty.
pub fn check_secret(secret: &SecretString) -> Result<(), String> {
    if secret.expose_secret().is_empty() { Ok(()) } else { key::check_secret(secret) }
}

/// Whether tokens and keys may have this role.
pub fn knows_role(config: &AuthConfig, name: &str) -> bool {
    claims::roles(config).contains_key(name)
}

/// Somebody whose credentials were accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The token's `sub`, or the API key's name.
    pub name: Arc<str>,
    /// Whom events that they publish are from; the same for all their credentials.
    #[serde(default = "PublisherName::unnamed")]
    pub publisher: PublisherName,
    /// What they may read and write.
    pub grants: Grants,
    /// Whether they may see and change the hub itself.
    pub admin: bool,
    /// When the credentials expire.
    pub expires: Option<Millis>,
    /// Which credentials these are, so that they can be revoked.
    pub credential: CredentialId,
}

impl Principal {
    /// Whether credentials were shown.
    pub fn is_known(&self) -> bool {
        self.credential != CredentialId::Anonymous
    }

    /// Whose quotas they use. A user of another issuer with the same name, or a key of that name, has separate quotas.
    pub fn identity(&self) -> &Arc<str> {
        // Passes of an earlier version do not say more than the name.
        if self.publisher == PublisherName::unnamed() { &self.name } else { self.publisher.text() }
    }
}

/// Which credentials somebody came with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialId {
    /// A signed token, good until it expires.
    Token,
    /// The API key of this id.
    ApiKey(String),
    /// The session of this hash.
    Session(String),
    /// The stream's ticket of this hash.
    StreamTicket(String),
    /// None: the anonymous grant.
    Anonymous,
    /// The hub itself.
    Hub,
}

impl CredentialId {
    /// Whether the store is to be asked about it; other credentials only expire.
    pub fn is_revocable(&self) -> bool {
        matches!(self, Self::ApiKey(_) | Self::Session(_) | Self::StreamTicket(_))
    }
}

/// Why credentials are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// They are not what they should be; the text says why and nothing of the secret.
    #[error("the credentials were refused: {0}")]
    Invalid(&'static str),
    /// They have run out.
    #[error("the credentials have expired")]
    Expired,
    /// They are not good yet.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// They were taken back.
    #[error("the credentials were revoked")]
    Revoked,
    /// There are as many tickets, links or sessions as there may be.
    #[error(transparent)]
    Full(CollectionFull),
    /// They could not be looked up.
    #[error("the credentials cannot be checked now: {0}")]
    Unavailable(String),
}

impl AuthError {
    /// What a socket is closed with for it.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::Expired => CloseCode::Expired,
            Self::Unavailable(_) => CloseCode::Overloaded,
            _ => CloseCode::Unauthorized,
        }
    }
}

/// Keys or a secret that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthConfigError(pub String);

/// The longest name of a principal, in bytes.
const MAX_NAME: usize = 256;

/// Whether `name` can stand in a log line and be the `source` of an event.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control)
}

/// One answer for a key that is not there and a wrong secret, so that ids cannot be found out.
const UNKNOWN_KEY: AuthError = AuthError::Invalid("the API key is unknown");

/// Turns tokens and API keys into principals. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator(Arc<AuthenticatorInner>);

struct AuthenticatorInner {
    verifier: jwt::Verifier,
    anonymous: Option<Arc<Principal>>,
    open: BTreeMap<String, Arc<Principal>>,
    keys: ApiKeys,
    clock: Clock,
    passes_per_principal: usize,
}

impl Principal {
    /// The hub itself, which alone publishes on its own topics.
    pub fn hub() -> Self {
        Self {
            name: "hub".into(),
            publisher: PublisherName::hub(),
            grants: Grants::default(),
            admin: false,
            expires: None,
            credential: CredentialId::Hub,
        }
    }

    /// Whether one granted pattern holds all of `pattern`.
    pub fn may_subscribe(&self, pattern: &TopicPattern) -> bool {
        self.grants.subscribe.iter().any(|granted| granted.contains(pattern))
    }

    /// Whether a granted pattern matches `topic`, which must not be one of the hub's own. Whether events may be published
    /// depends on more than that: `admission` decides it.
    pub fn may_publish(&self, topic: &Topic) -> bool {
        !topic.is_reserved()
            && self.grants.publish.iter().any(|granted| granted.matches(topic.as_str()))
    }
}

impl Authenticator {
    /// An authenticator for the hub's own secret and the configured keys.
    pub fn new(
        config: &AuthConfig,
        secret: &SecretString,
        store: &Store,
        clock: Clock,
    ) -> Result<Self, AuthConfigError> {
        let anonymous = |grants| {
            Arc::new(Principal {
                name: "anonymous".into(),
                publisher: PublisherName::anonymous(),
                grants,
                admin: false,
                expires: None,
                credential: CredentialId::Anonymous,
            })
        };
        let open = config.open_keys.iter().map(|(key, publish)| {
            (key.clone(), anonymous(Grants { publish: publish.clone(), ..Grants::default() }))
        });
        let open = open.collect();
        let anonymous = config.anonymous.clone().map(anonymous);
        let verifier = jwt::Verifier::new(config, Some(secret))?;
        Ok(Self(Arc::new(AuthenticatorInner {
            verifier,
            anonymous,
            open,
            keys: ApiKeys::new(store),
            clock,
            passes_per_principal: config.passes_per_principal,
        })))
    }

    /// Checks a JWT or an API key.
    pub async fn authenticate(&self, credential: &str) -> Result<Principal, AuthError> {
        if ApiKey::is_one(credential) {
            self.check_api_key(&ApiKey::parse(credential)?).await
        } else {
            self.0.verifier.verify(credential, self.0.clock.now())
        }
    }

    /// How many tickets, links and sessions one principal may have, of each.
    pub fn passes_per_principal(&self) -> usize {
        self.0.passes_per_principal
    }

    /// The principal of requests without credentials, if they are allowed.
    pub fn anonymous(&self) -> Option<Arc<Principal>> {
        self.0.anonymous.clone()
    }

    /// The principal of a key that everybody knows, which identifies nobody.
    pub fn open_key(&self, key: &str) -> Option<Arc<Principal>> {
        self.0.open.get(key).cloned()
    }

    /// Whether an API key that was shown before is still good; other credentials only expire, or
    /// are not known here.
    pub async fn still_valid(&self, credential: &CredentialId) -> Result<(), AuthError> {
        match credential {
            CredentialId::ApiKey(id) => {
                // It was there when it was shown.
                let stored = self.stored_key(id).await?.ok_or(AuthError::Revoked)?;
                api_keys::check_usable(&stored, self.0.clock.now())
            }
            _ => Ok(()),
        }
    }

    async fn stored_key(&self, id: &str) -> Result<Option<StoredKey>, AuthError> {
        let stored = self.0.keys.get(id).await;
        stored.map_err(|error| AuthError::Unavailable(error.to_string()))
    }

    async fn check_api_key(&self, key: &ApiKey) -> Result<Principal, AuthError> {
        let stored = self.stored_key(&key.id).await?.ok_or(UNKNOWN_KEY)?;
        // The secret first: without it a caller learns nothing about the key, not even when it ends.
        if !key.matches(&stored.hash) {
            return Err(UNKNOWN_KEY);
        }
        api_keys::check_usable(&stored, self.0.clock.now())?;
        let role = match &stored.role {
            Some(role) => Some(
                self.0
                    .verifier
                    .role(role)
                    .ok_or(AuthError::Invalid("the API key has a role that is not configured"))?,
            ),
            None => None,
        };
        let mut principal = Principal {
            publisher: PublisherName::key(&stored.name),
            name: stored.name.into(),
            grants: stored.grants,
            admin: false,
            expires: stored.expires,
            credential: CredentialId::ApiKey(key.id.clone()),
        };
        role.into_iter().for_each(|role| claims::add_role(&mut principal, role));
        Ok(principal)
    }
}
