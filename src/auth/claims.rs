//! What a verified token says: who, what they may do, until when.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{AuthError, Config, CredentialId, Principal, Role, is_name};
use crate::{grants::Grants, time::Millis, topic::TopicPattern};

/// The most patterns a token may list of one kind.
const MAX_PATTERNS: usize = 256;

/// Where claims stand, what they must say, and what the roles in them mean.
pub(super) struct Claims {
    issuer: String,
    audience: Vec<String>,
    roles_claim: String,
    subscribe_claim: String,
    publish_claim: String,
    roles: BTreeMap<String, Role>,
    leeway: Millis,
}

impl Claims {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
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

    /// Reads the claims of a token whose signature is good.
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
        self.check_issuer(claims)?;
        self.check_audience(claims)?;
        let name = match claims.get("sub") {
            None => return Err(AuthError::Invalid("the token has no `sub`")),
            Some(Value::String(name)) if is_name(name) => name.as_str(),
            Some(_) => {
                return Err(AuthError::Invalid(
                    "`sub` is a text of 1 to 256 bytes without control characters",
                ));
            }
        };
        let grants = Grants {
            subscribe: patterns(at(claims, &self.subscribe_claim), &SUBSCRIBE)?,
            publish: patterns(at(claims, &self.publish_claim), &PUBLISH)?,
        };
        let mut principal = Principal {
            name: name.into(),
            grants,
            admin: false,
            expires: Some(expires),
            credential: CredentialId::Token,
        };
        for name in names(at(claims, &self.roles_claim), &ROLES)? {
            // An identity provider's other roles mean nothing here.
            if let Some(role) = self.roles.get(name) {
                add_role(&mut principal, role);
            }
        }
        Ok(principal)
    }

    fn check_issuer(&self, claims: &Map<String, Value>) -> Result<(), AuthError> {
        if self.issuer.is_empty() {
            return Ok(());
        }
        match claims.get("iss") {
            None => Err(AuthError::Invalid("the token has no `iss`")),
            Some(Value::String(issuer)) if *issuer == self.issuer => Ok(()),
            Some(_) => Err(AuthError::Invalid("the token's `iss` is not the configured issuer")),
        }
    }

    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), AuthError> {
        if self.audience.is_empty() {
            return Ok(());
        }
        let ours = |name: &Value| {
            name.as_str().is_some_and(|name| self.audience.iter().any(|own| own == name))
        };
        let meant = match claims.get("aud") {
            None => return Err(AuthError::Invalid("the token has no `aud`")),
            Some(Value::Array(names)) if names.iter().all(Value::is_string) => {
                names.iter().any(ours)
            }
            Some(name) => ours(name),
        };
        if !meant {
            return Err(AuthError::Invalid(
                "the token's `aud` names nobody of the configured audience",
            ));
        }
        Ok(())
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

/// What is said of a claim that is not what it should be.
struct Wrong {
    kind: &'static str,
    many: &'static str,
    item: &'static str,
}

const SUBSCRIBE: Wrong = Wrong {
    kind: "the token's claim for subscribing is neither a text nor a list of texts",
    many: "the token's claim for subscribing lists more than 256 patterns",
    item: "the token's claim for subscribing lists something that is no topic pattern",
};
const PUBLISH: Wrong = Wrong {
    kind: "the token's claim for publishing is neither a text nor a list of texts",
    many: "the token's claim for publishing lists more than 256 patterns",
    item: "the token's claim for publishing lists something that is no topic pattern",
};
const ROLES: Wrong = Wrong {
    kind: "the token's claim for roles is neither a text nor a list of texts",
    many: "the token's claim for roles lists more than 256 roles",
    item: "the token's claim for roles lists something that is no role",
};

fn patterns(value: Option<&Value>, wrong: &Wrong) -> Result<Vec<TopicPattern>, AuthError> {
    let parse = |text| TopicPattern::parse(text).map_err(|_| AuthError::Invalid(wrong.item));
    names(value, wrong)?.into_iter().map(parse).collect()
}

fn names<'a>(value: Option<&'a Value>, wrong: &Wrong) -> Result<Vec<&'a str>, AuthError> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(many)) if many.len() > MAX_PATTERNS => {
            Err(AuthError::Invalid(wrong.many))
        }
        Some(Value::Array(many)) => {
            many.iter().map(|one| one.as_str().ok_or(AuthError::Invalid(wrong.kind))).collect()
        }
        Some(_) => Err(AuthError::Invalid(wrong.kind)),
    }
}
