//! What a verified token says: who, what they may do, until when.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::Value;

use super::{
    AuthConfig, AuthError, CredentialId, Principal, Role, is_name,
    set::{ClaimSet, Unreadable},
};
use crate::{
    event::PublisherName,
    grants::Grants,
    time::{Millis, Span},
    topic::TopicPattern,
};

/// A token that is good for longer than this is warned of where no longest life is set.
pub(super) const LONG_LIFE: Span = Span::seconds(400 * 86_400);

/// Time between two such warnings.
const WARN_EVERY: Millis = 3_600_000;

/// The most patterns a token may list of one kind.
const MAX_PATTERNS: usize = 256;

/// Where claims stand, what they must say, and what the roles in them mean.
pub(super) struct Claims {
    roles_claim: String,
    subscribe_claim: String,
    publish_claim: String,
    roles: BTreeMap<String, Role>,
    leeway: Millis,
    longest_life: Option<Span>,
    /// When a token was last warned of.
    warned: AtomicU64,
}

/// What tokens of one key have to say, and what they can.
pub(super) struct TokenBounds {
    /// Empty: any.
    pub(super) issuer: String,
    /// Empty: any.
    pub(super) audience: Vec<String>,
    /// The roles that it can give, which its patterns must lie inside; None for every role and every pattern.
    pub(super) roles: Option<BTreeSet<String>>,
}

impl TokenBounds {
    /// Those of a key that does not name its own.
    pub(super) fn of_all(config: &AuthConfig) -> Self {
        Self { issuer: config.issuer.clone(), audience: config.audience.clone(), roles: None }
    }

    fn check_issuer(&self, claims: &ClaimSet) -> Result<(), AuthError> {
        if self.issuer.is_empty() {
            return Ok(());
        }
        match claims.get("iss") {
            Ok(None) => Err(AuthError::Invalid("the token has no `iss`")),
            Ok(Some(Value::String(issuer))) if issuer == self.issuer => Ok(()),
            _ => Err(AuthError::Invalid("the token's `iss` is not the configured issuer")),
        }
    }

    fn check_audience(&self, claims: &ClaimSet) -> Result<(), AuthError> {
        if self.audience.is_empty() {
            return Ok(());
        }
        let ours = |name: &Value| {
            name.as_str().is_some_and(|name| self.audience.iter().any(|own| own == name))
        };
        let meant = match claims.get("aud") {
            Ok(None) => return Err(AuthError::Invalid("the token has no `aud`")),
            Ok(Some(Value::Array(names))) if names.iter().all(Value::is_string) => {
                names.iter().any(ours)
            }
            Ok(Some(name)) => ours(&name),
            Err(Unreadable) => false,
        };
        if !meant {
            return Err(AuthError::Invalid(
                "the token's `aud` names nobody of the configured audience",
            ));
        }
        Ok(())
    }
}

impl Claims {
    pub(super) fn new(config: &AuthConfig) -> Self {
        Self {
            roles_claim: config.roles_claim.clone(),
            subscribe_claim: config.subscribe_claim.clone(),
            publish_claim: config.publish_claim.clone(),
            roles: roles(config),
            leeway: config.not_before_leeway.millis(),
            longest_life: config.longest_life,
            warned: AtomicU64::new(0),
        }
    }

    pub(super) fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name)
    }

    /// Reads the claims of a token whose signature was checked.
    pub(super) fn read(
        &self,
        claims: &ClaimSet,
        bounds: &TokenBounds,
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
        bounds.check_issuer(claims)?;
        bounds.check_audience(claims)?;
        let name = match claims.get("sub") {
            Ok(None) => return Err(AuthError::Invalid("the token has no `sub`")),
            Ok(Some(Value::String(name))) if is_name(&name) => name,
            _ => {
                return Err(AuthError::Invalid(
                    "`sub` is a text of 1 to 256 bytes without control characters",
                ));
            }
        };
        self.check_life(&name, expires, now)?;
        // Whatever it is: it was signed by one of the keys. One that cannot be read is none.
        let issuer = match claims.get("iss") {
            Ok(Some(Value::String(issuer))) => issuer,
            _ => String::new(),
        };
        let mut grants = Grants {
            subscribe: patterns(claims.at(&self.subscribe_claim), &SUBSCRIBE)?,
            publish: patterns(claims.at(&self.publish_claim), &PUBLISH)?,
        };
        if let Some(names) = &bounds.roles {
            self.bind(&mut grants, names);
        }
        let mut principal = Principal {
            publisher: PublisherName::token(&issuer, &name),
            name: name.into(),
            grants,
            admin: false,
            expires: Some(expires),
            credential: CredentialId::Token,
        };
        let may_give = |name: &str| bounds.roles.as_ref().is_none_or(|roles| roles.contains(name));
        for name in names(claims.at(&self.roles_claim), &ROLES)? {
            // An identity provider's other roles mean nothing here.
            if let Some(role) = self.roles.get(&name).filter(|_| may_give(&name)) {
                add_role(&mut principal, role);
            }
        }
        Ok(principal)
    }

    /// Leaves of what a token claims for itself only what these roles could give it.
    fn bind(&self, grants: &mut Grants, names: &BTreeSet<String>) {
        let roles = || names.iter().filter_map(|name| self.roles.get(name));
        let within = |mut wide: std::slice::Iter<'_, TopicPattern>, pattern: &TopicPattern| {
            wide.any(|wide| wide.contains(pattern))
        };
        let Grants { subscribe, publish } = grants;
        subscribe.retain(|one| roles().any(|role| within(role.subscribe.iter(), one)));
        publish.retain(|one| roles().any(|role| within(role.publish.iter(), one)));
    }

    /// Refuses a token that is good for too long; where nothing says how long that is, warns of it.
    fn check_life(&self, name: &str, expires: Millis, now: Millis) -> Result<(), AuthError> {
        let left = expires - now;
        let longest = self.longest_life.unwrap_or(LONG_LIFE).millis();
        // Rounded up when it was made, by a clock that may be ahead.
        if left <= longest.saturating_add(self.leeway).saturating_add(1000) {
            return Ok(());
        }
        if self.longest_life.is_some() {
            return Err(AuthError::Invalid(
                "the token is good for longer than `auth.longest_life` allows",
            ));
        }
        let warned = self.warned.load(Ordering::Relaxed);
        if now.saturating_sub(warned) >= WARN_EVERY {
            self.warned.store(now, Ordering::Relaxed);
            tracing::warn!(
                user = name,
                days = left / 86_400_000,
                "a token is good for very long: make shorter ones, or refuse them with auth.longest_life"
            );
        }
        Ok(())
    }
}

/// The roles there are: viewer, publisher and admin, and the configured ones before them.
pub(super) fn roles(config: &AuthConfig) -> BTreeMap<String, Role> {
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
fn time(claims: &ClaimSet, name: &str, wrong: &'static str) -> Result<Option<Millis>, AuthError> {
    let Some(value) = claims.get(name).map_err(|Unreadable| AuthError::Invalid(wrong))? else {
        return Ok(None);
    };
    match value.as_f64() {
        Some(seconds) if seconds >= 0.0 => Ok(Some((seconds * 1000.0) as Millis)),
        _ => Err(AuthError::Invalid(wrong)),
    }
}

/// What is said of a claim that is not what it should be.
struct ClaimFault {
    kind: &'static str,
    many: &'static str,
    item: &'static str,
}

const SUBSCRIBE: ClaimFault = ClaimFault {
    kind: "the token's claim for subscribing is neither a text nor a list of texts",
    many: "the token's claim for subscribing lists more than 256 patterns",
    item: "the token's claim for subscribing lists something that is no topic pattern",
};
const PUBLISH: ClaimFault = ClaimFault {
    kind: "the token's claim for publishing is neither a text nor a list of texts",
    many: "the token's claim for publishing lists more than 256 patterns",
    item: "the token's claim for publishing lists something that is no topic pattern",
};
const ROLES: ClaimFault = ClaimFault {
    kind: "the token's claim for roles is neither a text nor a list of texts",
    many: "the token's claim for roles lists more than 256 roles",
    item: "the token's claim for roles lists something that is no role",
};

type ClaimValue = Result<Option<Value>, Unreadable>;

fn patterns(claim: ClaimValue, wrong: &ClaimFault) -> Result<Vec<TopicPattern>, AuthError> {
    let parse =
        |text: String| TopicPattern::parse(&text).map_err(|_| AuthError::Invalid(wrong.item));
    let mut patterns: Vec<_> =
        names(claim, wrong)?.into_iter().map(parse).collect::<Result<_, _>>()?;
    patterns.shrink_to_fit(); // they were collected in the room of the claim's values, which are larger
    Ok(patterns)
}

fn names(claim: ClaimValue, wrong: &ClaimFault) -> Result<Vec<String>, AuthError> {
    let text = |value| match value {
        Value::String(text) => Ok(text),
        _ => Err(AuthError::Invalid(wrong.kind)),
    };
    match claim.map_err(|Unreadable| AuthError::Invalid(wrong.item))? {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(many)) if many.len() > MAX_PATTERNS => {
            Err(AuthError::Invalid(wrong.many))
        }
        Some(Value::Array(many)) => many.into_iter().map(text).collect(),
        Some(one) => Ok(vec![text(one)?]),
    }
}
