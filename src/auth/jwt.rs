//! JSON Web Tokens (RFC 7519): which key may verify one, and whether it does.

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::{
    AuthConfig, AuthConfigError, AuthError, Principal, Role, claims::Claims, key::VerificationKey,
    set::ClaimSet,
};
use crate::time::Millis;

/// The longest token, in bytes: more than any header line should hold.
const MAX_TOKEN: usize = 8 << 10;

/// The keys tokens are verified by, and how their claims are read.
pub(super) struct Verifier {
    keys: Vec<VerificationKey>,
    claims: Claims,
}

/// A token in its three parts, nothing of it verified (RFC 7515 section 3.1).
struct Parts<'a> {
    header: JwtHeader,
    /// What is signed: the header and the claims as they came.
    signed: &'a str,
    claims: &'a str,
    signature: &'a str,
}

/// A token's header, as far as it decides which keys are tried (RFC 7515 section 4.1).
struct JwtHeader {
    algorithm: String,
    kid: Option<String>,
}

impl Verifier {
    pub(super) fn new(
        config: &AuthConfig,
        secret: Option<&SecretString>,
    ) -> Result<Self, AuthConfigError> {
        install_cryptography();
        let own = secret.map(|secret| VerificationKey::own(config, secret)).transpose()?;
        let mut keys: Vec<_> = own.into_iter().collect();
        let mut kids = HashSet::new();
        for key in &config.keys {
            if let Some(kid) = key.kid.as_deref().filter(|kid| !kids.insert(*kid)) {
                return Err(AuthConfigError(format!(
                    "two keys in [[auth.keys]] have the `kid` {kid:?}: give each its own"
                )));
            }
            keys.push(VerificationKey::configured(config, key)?);
        }
        Ok(Self { keys, claims: Claims::new(config) })
    }

    pub(super) fn role(&self, name: &str) -> Option<&Role> {
        self.claims.role(name)
    }

    /// Who bears `token`, if one of the keys signed it and it says that it is good at `now`.
    pub(super) fn verify(&self, token: &str, now: Millis) -> Result<Principal, AuthError> {
        let parts = Parts::of(token)?;
        let named = || self.keys.iter().filter(|key| key.kid == parts.header.kid);
        // The algorithm is the key's: the token's only says which keys need not be tried.
        let mut fitting =
            named().filter(|key| key.algorithm.name() == parts.header.algorithm).peekable();
        if fitting.peek().is_none() {
            return Err(AuthError::Invalid(match (&parts.header.kid, named().next()) {
                (Some(_), None) => "no key is configured for the token's `kid`",
                (Some(_), Some(_)) => "the token's algorithm is not the one its key is for",
                (None, _) => "no key without `kid` is configured for the token's algorithm",
            }));
        }
        let Some(key) = fitting.find(|key| parts.is_signed_by(key)) else {
            return Err(AuthError::Invalid("the token's signature is wrong"));
        };
        let claims = decode(parts.claims)
            .and_then(|text| ClaimSet::parse(&text))
            .ok_or(AuthError::Invalid("the token's claims are not a JSON object in base64url"))?;
        self.claims.read(&claims, &key.bounds, now)
    }
}

/// Makes aws-lc the cryptography of the token library, which otherwise guesses, or panics.
pub(super) fn install_cryptography() {
    // It refuses only because it was installed before, by whom matters not: it is the same one.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Self, AuthError> {
        if token.len() > MAX_TOKEN {
            return Err(AuthError::Invalid("the token is longer than 8 KiB"));
        }
        let malformed = AuthError::Invalid(
            "a token has three parts, joined by dots, and this is no API key: was it copied whole?",
        );
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed.clone())?;
        let (header, claims) = signed.split_once('.').ok_or(malformed.clone())?;
        if claims.contains('.') {
            return Err(malformed);
        }
        Ok(Self { header: JwtHeader::read(header)?, signed, claims, signature })
    }

    /// False also for a signature that is no base64url, or of another length than it should be.
    fn is_signed_by(&self, key: &VerificationKey) -> bool {
        let signed = self.signed.as_bytes();
        jsonwebtoken::crypto::verify(self.signature, signed, &key.decoding, key.algorithm.into())
            .unwrap_or(false)
    }
}

impl JwtHeader {
    fn read(text: &str) -> Result<Self, AuthError> {
        let mut header = decode(text)
            .and_then(|text| serde_json::from_slice::<Map<String, Value>>(&text).ok())
            .ok_or(AuthError::Invalid("the token's header is not a JSON object in base64url"))?;
        // Whatever is listed there must be understood (RFC 7515 section 4.1.11), and nothing is.
        if header.contains_key("crit") {
            return Err(AuthError::Invalid(
                "the token's `crit` asks for what the hub does not know",
            ));
        }
        let Some(Value::String(algorithm)) = header.remove("alg") else {
            return Err(AuthError::Invalid("the token's header names no algorithm"));
        };
        if algorithm.eq_ignore_ascii_case("none") {
            return Err(AuthError::Invalid("the token is not signed"));
        }
        let kid = match header.remove("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid),
            Some(_) => return Err(AuthError::Invalid("the token's `kid` is not a text")),
        };
        Ok(Self { algorithm, kid })
    }
}

/// What `text` says, base64url without padding (RFC 7515 section 2).
fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
