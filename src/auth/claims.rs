//! What a verified token says: who, what they may do, until when.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{AuthError, Config, CredentialId, Principal, Role};
use crate::{grants::Grants, time::Millis, topic::TopicPattern};

/// The longest `sub`, in bytes.
const MAX_NAME: usize = 256;
/// The most patterns a token may list of one kind.
const MAX_PATTERNS: usize = 256;

/// Where claims stand, and what the roles in them mean.
pub(super) struct Claims {
    roles_claim: String,
    subscribe_claim: String,
    publish_claim: String,
    roles: BTreeMap<String, Role>,
    leeway: Millis,
}

impl Claims {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            roles_claim: config.roles_claim.clone(),
            subscribe_claim: config.subscribe_claim.clone(),
            publish_claim: config.publish_claim.clone(),
            roles: roles(config),
            leeway: config.not_before_leeway.millis(),
        }
    }

    pub(super) fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name)
    }

    /// Reads the claims of a token whose signature, issuer and audience are good.
    pub(super) fn read(
        &self,
        claims: &Map<String, Value>,
        now: Millis,
    ) -> Result<Principal, AuthError> {
        let expires = time(claims, "exp", "`exp` is not a number of seconds")?
            .ok_or(AuthError::Invalid("the token has no `exp`"))?;
        if expires <= now {
            return Err(AuthError::Expired);
        }
        let not_before = time(claims, "nbf", "`nbf` is not a number of seconds")?;
        if not_before.is_some_and(|time| time > now.saturating_add(self.leeway)) {
            return Err(AuthError::NotYetValid);
        }
        let name = claims
            .get("sub")
            .and_then(Value::as_str)
            .ok_or(AuthError::Invalid("the token has no `sub`"))?;
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(AuthError::Invalid("`sub` has 1 to 256 bytes and no control characters"));
        }
        let grants = Grants {
            subscribe: patterns(at(claims, &self.subscribe_claim))?,
            publish: patterns(at(claims, &self.publish_claim))?,
        };
        let mut principal = Principal {
            name: name.into(),
            grants,
            admin: false,
            expires: Some(expires),
            credential: CredentialId::Token,
        };
        for name in names(at(claims, &self.roles_claim))? {
            // An identity provider's other roles mean nothing here.
            if let Some(role) = self.roles.get(name) {
                add_role(&mut principal, role);
            }
        }
        Ok(principal)
    }
}

/// The roles there are: viewer, publisher and admin, and the configured ones before them.
pub(super) fn roles(config: &Config) -> BTreeMap<String, Role> {
    let all: Vec<_> = TopicPattern::parse("**").into_iter().collect();
    let mut roles = BTreeMap::from([
        ("viewer".to_owned(), Role { subscribe: all.clone(), ..Role::default() }),
        ("publisher".to_owned(), Role { publish: all, ..Role::default() }),
        ("admin".to_owned(), Role::admin()),
    ]);
    roles.extend(config.roles.clone());
    roles
}

/// Gives the principal what the role may do, beside what it has.
pub(super) fn add_role(principal: &mut Principal, role: &Role) {
    let add = |to: &mut Vec<TopicPattern>, from: &[TopicPattern]| {
        for pattern in from {
            if !to.contains(pattern) {
                to.push(pattern.clone());
            }
        }
    };
    add(&mut principal.grants.subscribe, &role.subscribe);
    add(&mut principal.grants.publish, &role.publish);
    principal.admin |= role.admin;
}

/// Seconds since 1970, possibly with a fraction (RFC 7519 section 2, NumericDate).
fn time(
    claims: &Map<String, Value>,
    name: &str,
    wrong: &'static str,
) -> Result<Option<Millis>, AuthError> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) if seconds >= 0.0 => Ok(Some((seconds * 1000.0) as Millis)),
            _ => Err(AuthError::Invalid(wrong)),
        },
    }
}

/// The claim itself, or what the dotted path leads to.
fn at<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    rest.split('.').try_fold(claims.get(first)?, |value, step| value.get(step))
}

fn patterns(value: Option<&Value>) -> Result<Vec<TopicPattern>, AuthError> {
    names(value)?
        .into_iter()
        .map(|text| {
            TopicPattern::parse(text)
                .map_err(|_| AuthError::Invalid("the token lists something that is no pattern"))
        })
        .collect()
}

fn names(value: Option<&Value>) -> Result<Vec<&str>, AuthError> {
    let wrong = AuthError::Invalid("a list of patterns or roles is not a list of texts");
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(many)) if many.len() <= MAX_PATTERNS => {
            many.iter().map(|one| one.as_str().ok_or_else(|| wrong.clone())).collect()
        }
        Some(_) => Err(wrong),
    }
}
