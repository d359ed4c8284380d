//! Names that producers give: of an application, of an instance, of an event within a topic.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize, de};

use crate::topic::{MAX_BYTES, MAX_TOKENS, Topic, TopicError, as_text};

/// An application that sends: one token of a topic, with which all its topics begin.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct AppName(Arc<str>);

/// An instance of an application, by the name it gives itself: a UUID as a rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct InstanceId(Arc<str>);

/// Why a text is no such name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not one token of a topic.
    #[error(
        "the name of an application is one token of A-Z a-z 0-9 _ - with at most {MAX_APP} bytes, not {0:?}"
    )]
    NoToken(String),
    /// A word that means something else in its place.
    #[error("{0:?} cannot be the name of an application, because the hub uses that word itself")]
    Reserved(String),
    /// An instance without a name, or with one that cannot stand in a log line.
    #[error("an `instance_id` has 1 to {MAX_INSTANCE} bytes and no control characters")]
    NoInstance,
}

/// The longest name of an application, in bytes.
const MAX_APP: usize = 64;
/// The longest name of an instance, in bytes.
const MAX_INSTANCE: usize = 128;
/// They stand for something else in the paths or topics that begin with an application's name.
const RESERVED: [&str; 5] = ["v1", "v2", "dashboard", "stats", "hub"];

impl AppName {
    /// Parses and checks `text`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let is_token = Topic::parse(text).is_ok() && !text.contains('.') && text.len() <= MAX_APP;
        if !is_token {
            return Err(NameError::NoToken(text.chars().take(MAX_APP).collect()));
        }
        if RESERVED.contains(&text) {
            return Err(NameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the topics begin with on which the hub tells of instances.
    pub const REGISTRY: &'static str = "hub.instances";

    /// The topic on which the hub tells of the application's instances.
    pub fn registry_topic(&self) -> Result<Topic, TopicError> {
        Topic::parse(&format!("{}.{self}", Self::REGISTRY))
    }

    /// The topic `{app}.{place}`.
    pub fn topic(&self, place: &str) -> Result<Topic, TopicError> {
        Topic::parse(&format!("{self}.{place}"))
    }

    /// The topic `{app}.{place}.{name}` for a name of any kind: dots divide it into tokens, what
    /// a token cannot hold becomes `_`, and what is too long is cut off.
    pub fn topic_of(&self, place: &str, name: &str) -> Result<Topic, TopicError> {
        let mut text = format!("{self}.{place}");
        let room = MAX_TOKENS.saturating_sub(text.split('.').count());
        for token in name.splitn(room, '.') {
            text.push('.');
            let fits = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
            text.extend(token.chars().map(fits));
            if token.is_empty() {
                text.push('_');
            }
        }
        text.truncate(MAX_BYTES); // all of it is ASCII
        Topic::parse(text.trim_end_matches('.'))
    }
}

impl InstanceId {
    /// Parses and checks `text`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let is_name = (1..=MAX_INSTANCE).contains(&text.len()) && !text.contains(char::is_control);
        is_name.then(|| Self(text.into())).ok_or(NameError::NoInstance)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

as_text!(AppName);
as_text!(InstanceId);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_application_is_one_token_and_no_word_of_the_hubs() {
        assert_eq!(AppName::parse("time-tracker_2").unwrap().as_str(), "time-tracker_2");
        for bad in ["", "a.b", "a b", "ä", "*", &"a".repeat(65)] {
            let refused = AppName::parse(bad).unwrap_err();
            assert!(refused.to_string().contains("one token"), "{refused}");
        }
        for reserved in RESERVED {
            assert_eq!(AppName::parse(reserved), Err(NameError::Reserved(reserved.into())));
        }
    }

    #[test]
    fn any_name_finds_a_topic() {
        let topic = |name: &str| AppName::parse("app").unwrap().topic_of("usage", name).unwrap();
        assert_eq!(topic("page.view").as_str(), "app.usage.page.view");
        assert_eq!(topic("päge view").as_str(), "app.usage.p_ge_view");
        assert_eq!(topic("a..b.").as_str(), "app.usage.a._.b._");
        assert_eq!(topic("").as_str(), "app.usage._");
        assert_eq!(topic(&"x".repeat(1000)).as_str().len(), MAX_BYTES);
        assert_eq!(topic(&"a.".repeat(30)).as_str().split('.').count(), MAX_TOKENS);
    }

    proptest! {
        #[test]
        fn no_name_at_all_is_without_a_topic(name in "\\PC{0,300}|[a.]{0,300}") {
            prop_assert!(AppName::parse("app").unwrap().topic_of("usage", &name).is_ok());
        }
    }

    #[test]
    fn an_instance_can_stand_in_a_log_line() {
        assert!(InstanceId::parse("8f14e45f-ceea-467f-a8b5-3c1d2e4f5a6b").is_ok());
        for bad in ["", "a\nb", &"a".repeat(129)] {
            assert_eq!(InstanceId::parse(bad), Err(NameError::NoInstance));
        }
    }
}
