//! JSON Web Tokens (RFC 7519): verified by configured keys, minted with the hub's own secret.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{AuthError, Config, ConfigError, KeyConfig, Principal, Role, claims::Claims};
use crate::{
    time::{Millis, Span},
    topic::TopicPattern,
};

/// The longest token, in bytes: more than any header line should hold.
const MAX_TOKEN: usize = 8 << 10;
/// The shortest secret: as many bytes as the hash of HS256 has (RFC 7518 section 3.2).
const MIN_SECRET: usize = 32;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of RFC 7518 section 3.1")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// The keys tokens are verified by.
pub(super) struct Verifier {
    keys: Vec<Key>,
    claims: Claims,
}

struct Key {
    kid: Option<String>,
    decoding: DecodingKey,
    validation: Validation,
}

/// The header of a token, as far as it decides what happens (RFC 7515 section 4.1).
#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl Verifier {
    pub(super) fn new(config: &Config, secret: &SecretString) -> Result<Self, ConfigError> {
        // Someone else in the process may have installed it before; it is the same one.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        check_secret(secret, "`secret` (PULSEHUB_SECRET)")?;
        let own = Key {
            kid: None,
            decoding: DecodingKey::from_secret(secret.expose_secret().as_bytes()),
            validation: validation(Algorithm::HS256, config),
        };
        let mut keys = vec![own];
        for key in &config.keys {
            let name = key.kid.as_deref().unwrap_or("without kid");
            let decoding = decoding_key(key)
                .map_err(|reason| ConfigError(format!("[[auth.keys]] {name}: {reason}")))?;
            let validation = validation(key.algorithm, config);
            keys.push(Key { kid: key.kid.clone(), decoding, validation });
        }
        Ok(Self { keys, claims: Claims::new(config) })
    }

    pub(super) fn role(&self, name: &str) -> Option<&Role> {
        self.claims.role(name)
    }

    pub(super) fn verify(&self, token: &str, now: Millis) -> Result<Principal, AuthError> {
        let header = read_header(token)?;
        let mut refused = AuthError::Invalid(match header.kid {
            Some(_) => "no key is configured for the token's `kid`",
            None => "no key is configured for the token's algorithm",
        });
        // The algorithm is the key's: the token's only says which keys need not be tried.
        let candidates = self.keys.iter().filter(|key| key.kid == header.kid);
        for key in candidates {
            if !key.validation.algorithms.iter().any(|known| name_of(*known) == header.alg) {
                continue;
            }
            match jsonwebtoken::decode::<Map<String, Value>>(token, &key.decoding, &key.validation)
            {
                Ok(data) => return self.claims.read(&data.claims, now),
                Err(error) => refused = AuthError::Invalid(reason(error.kind())),
            }
        }
        Err(refused)
    }
}

fn read_header(token: &str) -> Result<TokenHeader, AuthError> {
    if token.len() > MAX_TOKEN {
        return Err(AuthError::Invalid("the token is longer than 8 KiB"));
    }
    let malformed = AuthError::Invalid("the token is not a JSON Web Token");
    let header = token.split('.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| malformed.clone())?;
    let header: TokenHeader = serde_json::from_slice(&header).map_err(|_| malformed)?;
    if header.crit.is_some() {
        return Err(AuthError::Invalid("the token's `crit` asks for what the hub does not know"));
    }
    if header.alg.eq_ignore_ascii_case("none") {
        return Err(AuthError::Invalid("the token is not signed"));
    }
    Ok(header)
}

fn validation(algorithm: Algorithm, config: &Config) -> Validation {
    let mut validation = Validation::new(algorithm.into());
    // The times are checked with the hub's own clock, in `claims`.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = !config.audience.is_empty();
    let mut required = vec!["exp"];
    // The library accepts a token without these claims unless they are required, too.
    if !config.audience.is_empty() {
        validation.set_audience(&config.audience);
        required.push("aud");
    }
    if !config.issuer.is_empty() {
        validation.set_issuer(&[&config.issuer]);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn decoding_key(key: &KeyConfig) -> Result<DecodingKey, String> {
    use Algorithm::*;
    if matches!(key.algorithm, HS256 | HS384 | HS512) {
        let secret = key.secret.as_ref().ok_or("an HS algorithm needs a `secret`")?;
        check_secret(secret, "its `secret`").map_err(|error| error.0)?;
        return Ok(DecodingKey::from_secret(secret.expose_secret().as_bytes()));
    }
    let pem = match (&key.pem, &key.pem_file) {
        (Some(pem), None) => pem.clone(),
        (None, Some(path)) => std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
        _ => return Err("give the public key as `pem` or `pem_file`".into()),
    };
    let pem = pem.as_bytes();
    let decoding = match key.algorithm {
        ES256 | ES384 => DecodingKey::from_ec_pem(pem),
        EdDSA => DecodingKey::from_ed_pem(pem),
        _ => DecodingKey::from_rsa_pem(pem),
    };
    decoding.map_err(|error| format!("not a public key for {:?}: {error}", key.algorithm))
}

fn check_secret(secret: &SecretString, name: &str) -> Result<(), ConfigError> {
    let length = secret.expose_secret().len();
    if length < MIN_SECRET {
        return Err(ConfigError(format!(
            "{name} has {length} bytes, it needs at least {MIN_SECRET}: make one with `openssl rand -hex 32`"
        )));
    }
    Ok(())
}

fn name_of(algorithm: jsonwebtoken::Algorithm) -> String {
    format!("{algorithm:?}")
}

fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        ErrorKind::InvalidIssuer => "the token's `iss` is not the configured issuer",
        ErrorKind::InvalidAudience => "the token's `aud` names none of the configured audience",
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "exp" => "the token has no `exp`",
            "iss" => "the token has no `iss`",
            "aud" => "the token has no `aud`",
            _ => "the token lacks a required claim",
        },
        _ => "the token is not a JSON Web Token",
    }
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::HS256 => Self::HS256,
            Algorithm::HS384 => Self::HS384,
            Algorithm::HS512 => Self::HS512,
            Algorithm::RS256 => Self::RS256,
            Algorithm::RS384 => Self::RS384,
            Algorithm::RS512 => Self::RS512,
            Algorithm::PS256 => Self::PS256,
            Algorithm::PS384 => Self::PS384,
            Algorithm::PS512 => Self::PS512,
            Algorithm::ES256 => Self::ES256,
            Algorithm::ES384 => Self::ES384,
            Algorithm::EdDSA => Self::EdDSA,
        }
    }
}

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

/// Signs a token with the hub's own secret (HS256); works without a running hub.
pub fn mint(
    config: &Config,
    secret: &SecretString,
    claims: &MintClaims,
    now: Millis,
) -> Result<SecretString, ConfigError> {
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    check_secret(secret, "`secret` (PULSEHUB_SECRET)")?;
    let seconds = now / 1000;
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("sub", json!(claims.sub));
    put("iat", json!(seconds));
    // Rounded up, so that a token never lives shorter than asked for.
    put("exp", json!(now.saturating_add(claims.ttl.millis()).div_ceil(1000)));
    if !claims.subscribe.is_empty() {
        put(&config.subscribe_claim, json!(claims.subscribe));
    }
    if !claims.publish.is_empty() {
        put(&config.publish_claim, json!(claims.publish));
    }
    if let Some(role) = &claims.role {
        put(&config.roles_claim, json!(role));
    }
    if !config.issuer.is_empty() {
        put("iss", json!(config.issuer));
    }
    if let Some(audience) = config.audience.first() {
        put("aud", json!(audience));
    }
    let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
    jsonwebtoken::encode(&Header::default(), &body, &key)
        .map(SecretString::from)
        .map_err(|error| ConfigError(format!("the token cannot be signed: {error}")))
}
