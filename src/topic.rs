//! Topics name what an event is about; patterns name sets of topics.
//!
//! Grammar and matching are those of docs/protocol.md, "Topics".

use std::{collections::HashSet, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, de};

/// The longest topic or pattern, in bytes.
pub const MAX_BYTES: usize = 255;
/// The most dot-separated tokens in a topic or pattern.
pub const MAX_TOKENS: usize = 16;
/// The most `*` in a pattern of a subscription. Patterns that have them in different places are different branches for
/// one topic: this bounds how many of them a delivery looks into. A last `**` ends a branch and is not counted.
pub const MAX_STARS: usize = 3;

const HUB: &str = "hub";

/// A valid topic: 1–16 tokens of `[A-Za-z0-9_-]` joined by dots, at most 255 bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Topic(Arc<str>);

/// Why a text is no topic or pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The text has no characters.
    #[error("a topic cannot be empty")]
    Empty,
    /// More than [`MAX_BYTES`] bytes.
    #[error("a topic has at most {MAX_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// More than [`MAX_TOKENS`] tokens.
    #[error("a topic has at most {MAX_TOKENS} dot-separated tokens, this one has {0}")]
    TooManyTokens(usize),
    /// Two dots in a row, or a dot at either end.
    #[error("a topic has no empty tokens: remove the extra dot")]
    EmptyToken,
    /// A character outside the grammar.
    #[error("a topic is made of A-Z a-z 0-9 _ - and dots; {0:?} is not allowed")]
    BadCharacter(char),
    /// `**` before the end.
    #[error("`**` may only be the last token of a pattern")]
    RestNotLast,
}

impl Topic {
    /// Parses and checks `text`.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check(text, |_, _| None)?;
        Ok(Self(text.into()))
    }

    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether its name makes it a topic of the hub, on which nobody else publishes.
    pub fn is_reserved(&self) -> bool {
        self.0.split('.').next() == Some(HUB)
    }
}

/// The topics on which the hub alone publishes: those that begin with `hub`, and whatever else the
/// configuration has it publish. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct OwnTopics(Arc<HashSet<Topic>>);

impl OwnTopics {
    /// Whether nobody but the hub publishes there.
    pub fn hold(&self, topic: &Topic) -> bool {
        topic.is_reserved() || self.0.contains(topic)
    }
}

impl FromIterator<Topic> for OwnTopics {
    fn from_iter<I: IntoIterator<Item = Topic>>(topics: I) -> Self {
        Self(Arc::new(topics.into_iter().collect()))
    }
}

/// A set of topics: `*` stands for exactly one token, a final `**` for one or more.
///
/// Topics of the hub itself are matched only by patterns whose first token is literally `hub`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TopicPattern(Arc<str>);

/// One token of a [`TopicPattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternToken<'a> {
    /// This very token.
    Literal(&'a str),
    /// `*`: any one token.
    One,
    /// `**`: one or more tokens, to the end.
    Rest,
}

impl TopicPattern {
    /// Parses and checks `text`.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check(text, |token, last| match token {
            "*" => Some(Ok(())),
            "**" if last => Some(Ok(())),
            "**" => Some(Err(TopicError::RestNotLast)),
            _ => None,
        })?;
        Ok(Self(text.into()))
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its tokens from left to right.
    pub fn tokens(&self) -> impl Iterator<Item = PatternToken<'_>> {
        self.0.split('.').map(|token| match token {
            "*" => PatternToken::One,
            "**" => PatternToken::Rest,
            literal => PatternToken::Literal(literal),
        })
    }

    /// The one topic this pattern matches, if it has no wildcard.
    pub fn as_literal(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&self.0)
    }

    /// What every topic begins with that this pattern matches: its tokens before the first wildcard.
    pub fn beginning(&self) -> &str {
        // A star is a token of its own, or the first of two.
        self.0.find('*').map_or(&*self.0, |star| &self.0[..star])
    }

    /// Whether `topic` (the text of a valid topic) is in the set.
    pub fn matches(&self, topic: &str) -> bool {
        let mut topic_tokens = topic.split('.').peekable();
        if topic_tokens.peek() == Some(&HUB) && !self.begins_with_hub() {
            return false;
        }
        for token in self.tokens() {
            match (token, topic_tokens.next()) {
                (_, None) => return false,
                (PatternToken::Rest, Some(_)) => return true,
                (PatternToken::One, Some(_)) => {}
                (PatternToken::Literal(a), Some(b)) if a == b => {}
                (PatternToken::Literal(_), Some(_)) => return false,
            }
        }
        topic_tokens.next().is_none()
    }

    /// Whether every topic `other` matches is matched by this pattern too; the rule for grants.
    pub fn contains(&self, other: &TopicPattern) -> bool {
        if other.begins_with_hub() && !self.begins_with_hub() {
            return false;
        }
        let mut theirs = other.tokens();
        for ours in self.tokens() {
            let their = theirs.next();
            match (ours, their) {
                (_, None) => return false,
                (PatternToken::Rest, Some(_)) => return true,
                (PatternToken::One, Some(PatternToken::One | PatternToken::Literal(_))) => {}
                (PatternToken::Literal(a), Some(PatternToken::Literal(b))) if a == b => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }

    fn stars(&self) -> usize {
        self.tokens().filter(|token| *token == PatternToken::One).count()
    }

    fn begins_with_hub(&self) -> bool {
        self.0.split('.').next() == Some(HUB)
    }
}

impl std::borrow::Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&Topic> for TopicPattern {
    fn from(topic: &Topic) -> Self {
        Self(topic.0.clone())
    }
}

/// What a reader asks for: the union of some patterns. Equal sets are equal filters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TopicFilter(Arc<[TopicPattern]>);

impl TopicFilter {
    /// Every topic, the hub's own too.
    pub fn everything() -> Self {
        Self::new(["**", "hub", "hub.**"].iter().filter_map(|text| TopicPattern::parse(text).ok()))
    }

    /// The union of `patterns`, in whatever order and however often they come.
    pub fn new(patterns: impl IntoIterator<Item = TopicPattern>) -> Self {
        let mut patterns: Vec<_> = patterns.into_iter().collect();
        patterns.sort();
        patterns.dedup();
        Self(patterns.into())
    }

    /// The patterns, sorted.
    pub fn patterns(&self) -> &[TopicPattern] {
        &self.0
    }

    /// Whether it names topics and no wildcards.
    pub fn is_literal(&self) -> bool {
        self.0.iter().all(|pattern| pattern.as_literal().is_some())
    }

    /// The first pattern with more than [`MAX_STARS`]: a filter with one is not subscribed to.
    pub fn too_wild(&self) -> Option<TooWild> {
        let pattern = self.0.iter().find(|pattern| pattern.stars() > MAX_STARS)?;
        Some(TooWild(pattern.clone()))
    }

    /// Whether any pattern matches `topic` (the text of a valid topic).
    pub fn matches(&self, topic: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(topic))
    }
}

/// A pattern that has more than [`MAX_STARS`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}: at most {MAX_STARS} `*` in a pattern of a subscription, a last `**` not counted: name more of its tokens, or \
     end it with `**`"
)]
pub struct TooWild(TopicPattern);

/// Checks the shared grammar; `wildcard` may accept or refuse a token that is not plain.
fn check(
    text: &str,
    wildcard: impl Fn(&str, bool) -> Option<Result<(), TopicError>>,
) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > MAX_BYTES {
        return Err(TopicError::TooLong(text.len()));
    }
    let count = text.bytes().filter(|byte| *byte == b'.').count() + 1;
    if count > MAX_TOKENS {
        return Err(TopicError::TooManyTokens(count));
    }
    for (index, token) in text.split('.').enumerate() {
        if token.is_empty() {
            return Err(TopicError::EmptyToken);
        }
        if let Some(verdict) = wildcard(token, index + 1 == count) {
            verdict?;
            continue;
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if let Some(bad) = token.chars().find(|c| !allowed(*c)) {
            return Err(TopicError::BadCharacter(bad));
        }
    }
    Ok(())
}

/// What a text has whose type only [parses](Topic::parse) it.
macro_rules! as_text {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(de::Error::custom)
            }
        }
    };
}
pub(crate) use as_text;
as_text!(Topic);
as_text!(TopicPattern);

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        Self::parse(text)
    }
}

impl FromStr for TopicPattern {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> TopicPattern {
        TopicPattern::parse(text).unwrap()
    }

    #[test]
    fn topics_outside_the_grammar_are_refused_with_the_reason() {
        assert_eq!(Topic::parse(""), Err(TopicError::Empty));
        assert_eq!(Topic::parse("a..b"), Err(TopicError::EmptyToken));
        assert_eq!(Topic::parse("a.b."), Err(TopicError::EmptyToken));
        assert_eq!(Topic::parse("a.*"), Err(TopicError::BadCharacter('*')));
        assert_eq!(Topic::parse("a b"), Err(TopicError::BadCharacter(' ')));
        assert_eq!(Topic::parse("ä"), Err(TopicError::BadCharacter('ä')));
        assert_eq!(Topic::parse(&"a".repeat(256)), Err(TopicError::TooLong(256)));
        let deep = vec!["a"; 17].join(".");
        assert_eq!(Topic::parse(&deep), Err(TopicError::TooManyTokens(17)));
        assert!(Topic::parse(&vec!["a"; 16].join(".")).is_ok());
        assert_eq!(TopicPattern::parse("**.a"), Err(TopicError::RestNotLast));
        assert_eq!(TopicPattern::parse("a*"), Err(TopicError::BadCharacter('*')));
    }

    #[test]
    fn one_star_is_one_token_and_two_are_the_rest() {
        assert!(pattern("a.*").matches("a.b"));
        assert!(!pattern("a.*").matches("a"));
        assert!(!pattern("a.*").matches("a.b.c"));
        assert!(pattern("a.**").matches("a.b.c"));
        assert!(!pattern("a.**").matches("a"));
        assert!(pattern("**").matches("a"));
        assert!(pattern("*.b").matches("a.b"));
    }

    #[test]
    fn only_a_literal_hub_reaches_the_hubs_own_topics() {
        assert!(!pattern("**").matches("hub.metrics"));
        assert!(!pattern("*.metrics").matches("hub.metrics"));
        assert!(pattern("hub.*").matches("hub.metrics"));
        assert!(!pattern("**").contains(&pattern("hub.metrics")));
        assert!(!pattern("*.*").contains(&pattern("hub.*")));
        assert!(pattern("hub.**").contains(&pattern("hub.metrics")));
        assert!(Topic::parse("hub").unwrap().is_reserved());
        assert!(!Topic::parse("hubs.x").unwrap().is_reserved());
    }

    #[test]
    fn a_pattern_begins_with_its_tokens_before_the_first_wildcard() {
        let begins = |text| pattern(text).beginning().to_owned();
        assert_eq!([begins("a.*.c"), begins("a.b"), begins("**")], ["a.", "a.b", ""]);
    }

    #[test]
    fn containment_is_by_token() {
        assert!(pattern("a.**").contains(&pattern("a.*")));
        assert!(pattern("a.**").contains(&pattern("a.b.**")));
        assert!(!pattern("a.*").contains(&pattern("a.**")));
        assert!(!pattern("a.b").contains(&pattern("a.*")));
        assert!(pattern("**").contains(&pattern("**")));
        assert!(!pattern("*.**").contains(&pattern("**")));
    }

    proptest! {
        #[test]
        fn what_a_contained_pattern_matches_its_container_matches(
            outer in "((a|b|hub|\\*)\\.){0,2}(a|b|\\*|\\*\\*)",
            inner in "((a|b|hub|\\*)\\.){0,2}(a|b|\\*|\\*\\*)",
            topic in "((a|b|hub)\\.){0,3}(a|b)",
        ) {
            let (outer, inner) = (pattern(&outer), pattern(&inner));
            if outer.contains(&inner) && inner.matches(&topic) {
                prop_assert!(outer.matches(&topic));
            }
        }
    }
}
