//! Tokens of the hub's own making; they work without a running hub.

use jsonwebtoken::EncodingKey;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

use super::{
    AuthConfig, AuthConfigError, is_name, jwt::install_cryptography, key::check_secret, knows_role,
};
use crate::{
    time::{Millis, Span},
    topic::TopicPattern,
};

/// What a minted token says.
#[derive(Debug, Clone)]
pub struct MintClaims {
    /// Whose it is.
    pub sub: String,
    /// Patterns to subscribe to.
    pub subscribe: Vec<TopicPattern>,
    /// Patterns to publish to.
    pub publish: Vec<TopicPattern>,
    /// A role, beside the patterns.
    pub role: Option<String>,
    /// How long it is good.
    pub ttl: Span,
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// `sub` would be refused when the token is shown.
    #[error("`sub` has 1 to 256 bytes and no control characters")]
    Subject,
    /// The token would be expired from the start.
    #[error("a token must be good for some time: give a duration above zero, such as 1h")]
    NoTime,
    /// The hub would refuse it.
    #[error("a token is good for at most {0} (auth.longest_life)")]
    TooLong(Span),
    /// The role would mean nothing.
    #[error("there is no role {0:?}: take viewer, publisher or admin, or add it to [auth.roles]")]
    Role(String),
    /// The secret is too short.
    #[error(transparent)]
    Secret(#[from] AuthConfigError),
    /// The library refused.
    #[error("the token cannot be signed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// Signs a token with the hub's own secret (HS256), as a hub with this `config` accepts it.
///
/// Claims stand under the configured names, a dotted one undivided: that is where a hub looks first.
pub fn mint(
    config: &AuthConfig,
    secret: &SecretString,
    claims: &MintClaims,
    now: Millis,
) -> Result<SecretString, MintError> {
    check_secret(secret).map_err(|why| AuthConfigError(format!("`secret` {why}")))?;
    if !is_name(&claims.sub) {
        return Err(MintError::Subject);
    }
    if claims.ttl.millis() == 0 {
        return Err(MintError::NoTime);
    }
    if let Some(longest) = config.longest_life.filter(|longest| claims.ttl > *longest) {
        return Err(MintError::TooLong(longest));
    }
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("sub", json!(claims.sub));
    put("iat", json!(now / 1000));
    // Rounded up, so that a token never lives shorter than asked for.
    put("exp", json!(now.saturating_add(claims.ttl.millis()).div_ceil(1000)));
    if !claims.subscribe.is_empty() {
        put(&config.subscribe_claim, json!(claims.subscribe));
    }
    if !claims.publish.is_empty() {
        put(&config.publish_claim, json!(claims.publish));
    }
    if let Some(role) = &claims.role {
        if !knows_role(config, role) {
            return Err(MintError::Role(role.clone()));
        }
        put(&config.roles_claim, json!(role));
    }
    if !config.issuer.is_empty() {
        put("iss", json!(config.issuer));
    }
    if let Some(audience) = config.audience.first() {
        put("aud", json!(audience));
    }
    install_cryptography();
    let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
    Ok(jsonwebtoken::encode(&jsonwebtoken::Header::default(), &body, &key)?.into())
}
