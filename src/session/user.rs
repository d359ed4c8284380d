//! Whose a session is.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::{ExposeSecret as _, SecretString};

use super::Now;
use crate::auth::Principal;

/// Whoever a session belongs to, as far as is known, and until when.
#[derive(Default)]
pub(super) struct SessionUser {
    pub(super) principal: Option<Arc<Principal>>,
    /// The token that came with the upgrade; another in `connect` must be the same.
    pub(super) token: Option<SecretString>,
    pub(super) expires: Option<Instant>,
}

impl SessionUser {
    /// It is this one's from now on.
    pub(super) fn adopt(&mut self, principal: Arc<Principal>, now: Now) {
        self.expires = principal.expires.map(|expires| {
            let left = Duration::from_millis(expires.saturating_sub(now.wall));
            // A century from now is never, and later might be more than an Instant can say.
            now.instant + left.min(Duration::from_secs(100 * 365 * 86_400))
        });
        self.principal = Some(principal);
    }

    /// Whether `token` is another than came with the upgrade.
    pub(super) fn differs(&self, token: &SecretString) -> bool {
        self.token.as_ref().is_some_and(|ours| ours.expose_secret() != token.expose_secret())
    }
}
