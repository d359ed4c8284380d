//! A stand-in with the agreed names, until the branch `auth` is merged.
#![allow(missing_docs, clippy::unimplemented, reason = "a stand-in")]

use std::sync::Arc;

use secrecy::SecretString;

use crate::auth::{AuthError, Grants, Principal};

#[derive(Clone, Debug)]
pub enum Credential {
    Token(SecretString),
    Ticket(SecretString),
    Session(SecretString),
}

#[derive(Clone)]
pub struct Access;

impl Access {
    pub async fn authenticate(&self, credential: Credential) -> Result<Arc<Principal>, AuthError> {
        use secrecy::ExposeSecret;
        let Credential::Token(token) = credential else { return Err(AuthError::Revoked) };
        let _ = Grants::default();
        match token.expose_secret() {
            _ => Err(AuthError::Invalid("a stand-in")),
        }
    }
    pub fn anonymous(&self) -> Option<Arc<Principal>> {
        None
    }
    pub async fn issue_ticket(&self, _: &Principal) -> Result<(SecretString, u64), AuthError> {
        unimplemented!()
    }
    pub async fn exchange(
        &self,
        _: SecretString,
    ) -> Result<(SecretString, Arc<Principal>), AuthError> {
        unimplemented!()
    }
    pub async fn end_session(&self, _: SecretString) -> Result<(), AuthError> {
        unimplemented!()
    }
}
