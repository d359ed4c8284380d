//! Keys that verify tokens: which tokens each is for, and whether it can be used at all.

use jsonwebtoken::DecodingKey;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{AuthConfig, AuthConfigError, KeyConfig, claims::TokenBounds, knows_role};
use crate::store::MIN_SECRET;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of RFC 7518 section 3.1 and RFC 8037")]
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

/// A key and the one algorithm it is used with.
pub(super) struct VerificationKey {
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    /// What its tokens have to say, and what they can.
    pub(super) bounds: TokenBounds,
}

impl VerificationKey {
    /// The key for tokens signed with the hub's own `secret`.
    pub(super) fn own(config: &AuthConfig, secret: &SecretString) -> Result<Self, AuthConfigError> {
        check_secret(secret).map_err(|why| AuthConfigError(format!("`secret` {why}")))?;
        Ok(Self {
            kid: None,
            algorithm: Algorithm::HS256,
            decoding: DecodingKey::from_secret(secret.expose_secret().as_bytes()),
            bounds: TokenBounds::of_all(config),
        })
    }

    /// A configured key; refused now if no token could ever be verified with it.
    pub(super) fn configured(
        all: &AuthConfig,
        config: &KeyConfig,
    ) -> Result<Self, AuthConfigError> {
        let name = match &config.kid {
            Some(kid) => format!("the key {kid:?} in [[auth.keys]]"),
            None => "the key without `kid` in [[auth.keys]]".to_owned(),
        };
        let decoding = decoding_key(config, &name)?;
        let unknown = config.roles.iter().flatten().find(|role| !knows_role(all, role));
        if let Some(role) = unknown {
            return Err(AuthConfigError(format!(
                "{name}: there is no role {role:?}: take viewer, publisher or admin, or add it to [auth.roles]"
            )));
        }
        let for_all = TokenBounds::of_all(all);
        let bounds = TokenBounds {
            issuer: config.issuer.clone().unwrap_or(for_all.issuer),
            audience: config.audience.clone().unwrap_or(for_all.audience),
            roles: config.roles.clone(),
        };
        Ok(Self { kid: config.kid.clone(), algorithm: config.algorithm, decoding, bounds })
    }
}

/// What is wrong with a secret that is shorter than [`MIN_SECRET`].
pub(super) fn check_secret(secret: &SecretString) -> Result<(), String> {
    let length = secret.expose_secret().len();
    if length < MIN_SECRET {
        return Err(format!(
            "has {length} bytes and needs at least {MIN_SECRET}: make one with `openssl rand -hex 32`"
        ));
    }
    Ok(())
}

fn decoding_key(config: &KeyConfig, name: &str) -> Result<DecodingKey, AuthConfigError> {
    let algorithm = config.algorithm;
    let refuse = |reason: &str| Err(AuthConfigError(format!("{name}: {reason}")));
    match (algorithm.is_shared_secret(), &config.secret, &config.pem, &config.pem_file) {
        (true, Some(secret), None, None) => {
            let wrong = |why| AuthConfigError(format!("the `secret` of {name} {why}"));
            check_secret(secret).map_err(wrong)?;
            Ok(DecodingKey::from_secret(secret.expose_secret().as_bytes()))
        }
        (true, ..) => {
            refuse(&format!("{algorithm:?} needs a `secret`, and no `pem` or `pem_file`"))
        }
        (false, None, Some(pem), None) => public_key(algorithm, pem).or_else(|why| refuse(&why)),
        (false, None, None, Some(path)) => match std::fs::read_to_string(path) {
            Ok(pem) => public_key(algorithm, &pem)
                .or_else(|why| refuse(&format!("{}: {why}", path.display()))),
            Err(error) => refuse(&format!("cannot read {}: {error}", path.display())),
        },
        (false, ..) => refuse(&format!(
            "{algorithm:?} needs the public key as either `pem` or `pem_file`, and no `secret`"
        )),
    }
}

/// The library takes private keys and keys of any size here, and then fails with each token.
fn public_key(algorithm: Algorithm, pem: &str) -> Result<DecodingKey, String> {
    if pem.contains("PRIVATE KEY") {
        return Err("this is a private key; give its public half, \
             made with `openssl pkey -in private.pem -pubout`"
            .to_owned());
    }
    if !pem.contains("-----BEGIN PUBLIC KEY-----")
        && !pem.contains("-----BEGIN RSA PUBLIC KEY-----")
    {
        return Err("a public key in PEM begins with -----BEGIN PUBLIC KEY-----".to_owned());
    }
    let unfit = |error| format!("this is no public key for {algorithm:?}: {error}");
    let pem = pem.as_bytes();
    let (key, fits): (_, fn(usize) -> bool) = match algorithm {
        Algorithm::ES256 => (DecodingKey::from_ec_pem(pem), |bytes| bytes == P256_POINT),
        Algorithm::ES384 => (DecodingKey::from_ec_pem(pem), |bytes| bytes == P384_POINT),
        Algorithm::EdDSA => (DecodingKey::from_ed_pem(pem), |_| true),
        _ => (DecodingKey::from_rsa_pem(pem), |bytes| bytes > RSA_2048_MODULUS),
    };
    let key = key.map_err(unfit)?;
    if fits(key.try_get_as_bytes().map_err(unfit)?.len()) {
        return Ok(key);
    }
    Err(format!("this is no public key for {algorithm:?}: {}", algorithm.demand()))
}

/// Bytes of an uncompressed point on P-256 (SEC 1 section 2.3.3).
const P256_POINT: usize = 1 + 2 * 32;
/// Bytes of an uncompressed point on P-384.
const P384_POINT: usize = 1 + 2 * 48;
/// Bytes of the smallest modulus RFC 7518 section 3.3 allows; the encoded key has some more.
const RSA_2048_MODULUS: usize = 2048 / 8;

impl Algorithm {
    fn is_shared_secret(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }

    fn demand(self) -> &'static str {
        match self {
            Self::ES256 => "it must lie on the curve P-256",
            Self::ES384 => "it must lie on the curve P-384",
            Self::EdDSA => "it must be an Ed25519 key",
            _ => "it must have at least 2048 bits",
        }
    }

    /// The name a token's header gives it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
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
