//! Random names, secrets and delays.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes: {0}")]
pub struct RandomError(#[from] getrandom::Error);

/// 256 random bits as 43 characters that fit into an address, a header and a file name.
pub fn secret() -> Result<SecretString, RandomError> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes).into())
}

/// 64 random bits as 16 hexadecimal digits.
pub fn short() -> Result<String, RandomError> {
    Ok(format!("{:016x}", getrandom::u64()?))
}

/// A number of milliseconds below `bound`, for spreading; its quality does not matter, and without
/// random bytes everybody simply comes back at once.
pub fn random_below(bound: Duration) -> u64 {
    let bound = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
    getrandom::u64().map_or(0, |random| random.checked_rem(bound).unwrap_or(0))
}

/// What is kept of a [`secret`]: with 256 random bits inside, a plain SHA-256 cannot be reversed.
pub fn hash(secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(secret.as_bytes()))
}
