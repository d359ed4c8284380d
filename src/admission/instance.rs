//! What an instance may say of itself, and who may say it for it.
//!
//! Anybody who may publish on `{app}.instances` may speak for an instance without a key of its own. This topic stands
//! for that right; nothing is published on it. Once an instance has a key, only that key speaks for it.

use super::Refused;
use crate::{
    auth::Principal,
    event::{AppName, Event, InstanceId},
    grants::Grants,
    topic::TopicPattern,
};

/// An instance for which somebody wants to speak.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// Its application.
    pub app: &'a AppName,
    /// Its name.
    pub id: &'a InstanceId,
    /// Whether a key was made for it.
    pub has_key: bool,
}

/// Somebody who may speak for an instance: the hub publishes what they say of it. [`Claim::speaker`] alone makes one.
#[derive(Debug, Clone)]
pub struct Speaker {
    app: AppName,
    id: InstanceId,
}

/// What the names of the keys of instances begin with.
const PREFIX: &str = "instance:";

/// The name of the key of an instance.
pub fn key_name(app: &AppName, id: &InstanceId) -> String {
    format!("{PREFIX}{app}/{id}")
}

/// What the key of an instance may do: only speak for it. Only the hub publishes on a topic of the hub's, so this grant
/// allows nothing else.
pub fn key_grants(app: &AppName) -> Grants {
    Grants { subscribe: Vec::new(), publish: own_grant(app).into_iter().collect() }
}

fn own_grant(app: &AppName) -> Option<TopicPattern> {
    app.registry_topic().ok().as_ref().map(TopicPattern::from)
}

impl Claim<'_> {
    /// Who speaks for the instance, if the principal may.
    pub fn speaker(&self, principal: &Principal) -> Result<Speaker, Refused> {
        let may_speak = || {
            let topic = self.app.topic("instances");
            topic.is_ok_and(|topic| principal.may_publish(&topic))
        };
        if self.is_own(principal)? || may_speak() {
            return Ok(Speaker { app: self.app.clone(), id: self.id.clone() });
        }
        Err(Refused::NotHeard { app: self.app.clone() })
    }

    /// Whether the principal shows the instance's own key; refuses a key that was made for another instance, and
    /// whatever else where this one has a key: what many share no longer speaks for it.
    pub(super) fn is_own(&self, principal: &Principal) -> Result<bool, Refused> {
        let is_named = *principal.name == *key_name(self.app, self.id);
        let grant = own_grant(self.app);
        if is_named && grant.is_some_and(|grant| principal.grants.publish.contains(&grant)) {
            return Ok(true);
        }
        let is_of_another = principal.name.starts_with(PREFIX) && !is_named;
        if self.has_key || is_of_another {
            return Err(Refused::NeedsKey { app: self.app.clone(), id: self.id.clone() });
        }
        Ok(false)
    }

    /// Whether the event is what the instance tells of itself: it is the source, and the topic its application's.
    pub(super) fn is_of_itself(&self, event: &Event) -> bool {
        let below = event.topic.as_str().strip_prefix(self.app.as_str());
        below.is_some_and(|rest| rest.starts_with('.')) && *event.source == *self.id.as_str()
    }
}

impl Speaker {
    /// The application of the instance.
    pub fn app(&self) -> &AppName {
        &self.app
    }

    /// The name of the instance.
    pub fn id(&self) -> &InstanceId {
        &self.id
    }
}
