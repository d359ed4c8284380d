//! Topics made of what samples say: a template with names in braces, each of which becomes part of one token.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de};

use crate::topic::{Topic, TopicError};

/// The name that stands for who publishes.
pub const PUBLISHER: &str = "publisher";

/// Such as `{publisher}.samples` or `{job}.{instance}.samples`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate(Vec<TemplatePart>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    /// A value's name.
    Value(String),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without another one, or nothing between them.
    #[error("write each name in braces, such as {{{PUBLISHER}}}.samples")]
    Braces,
    /// What it makes is no topic, whatever the values are.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// What it makes is the hub's.
    #[error("nobody but the hub publishes on topics that begin with `hub`")]
    Reserved,
}

impl TopicTemplate {
    /// The topic for these values; one that is absent or empty is `_`. Every character that no topic has becomes `_`, dots
    /// too, and no value makes a topic the hub's.
    pub fn render<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> Result<Topic, TopicError> {
        let mut topic = String::new();
        for part in &self.0 {
            match part {
                TemplatePart::Text(text) => topic.push_str(text),
                TemplatePart::Value(name) => {
                    let value = value(name).filter(|value| !value.is_empty()).unwrap_or("_");
                    topic.extend(value.chars().map(of_a_token));
                }
            }
        }
        let topic = Topic::parse(&topic)?;
        if topic.is_reserved() { Topic::parse(&format!("_{topic}")) } else { Ok(topic) }
    }

    /// The names of the values it asks for.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            TemplatePart::Value(name) => Some(&**name),
            TemplatePart::Text(_) => None,
        })
    }
}

impl FromStr for TopicTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}').ok_or(TemplateError::Braces)?;
            if name.is_empty() || name.contains('{') || before.contains('}') {
                return Err(TemplateError::Braces);
            }
            parts.push(TemplatePart::Text(before.to_owned()));
            parts.push(TemplatePart::Value(name.to_owned()));
            rest = after;
        }
        if rest.contains('}') {
            return Err(TemplateError::Braces);
        }
        parts.push(TemplatePart::Text(rest.to_owned()));
        parts.retain(|part| !matches!(part, TemplatePart::Text(text) if text.is_empty()));
        if text.split('.').next() == Some("hub") {
            return Err(TemplateError::Reserved);
        }
        let template = Self(parts);
        template.render(|_| None)?;
        Ok(template)
    }
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            TemplatePart::Text(text) => f.write_str(text),
            TemplatePart::Value(name) => write!(f, "{{{name}}}"),
        })
    }
}

impl<'de> Deserialize<'de> for TopicTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

fn of_a_token(character: char) -> char {
    match character {
        'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '-' => character,
        _ => '_',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str, value: &str) -> String {
        let template: TopicTemplate = template.parse().unwrap();
        template.render(|name| (name == "job").then_some(value)).unwrap().to_string()
    }

    #[test]
    fn a_value_is_one_token_and_never_the_hub() {
        assert_eq!(render("{job}.samples", "call centre.eu"), "call_centre_eu.samples");
        assert_eq!(render("{job}.samples", "hub"), "_hub.samples");
        assert_eq!(render("{job}.samples", ""), "_.samples");
        assert_eq!(render("a.{job}-{instance}", "hub"), "a.hub-_");
        assert_eq!(render("hu{job}.x", "b"), "_hub.x");
        let long: TopicTemplate = "{job}.samples".parse().unwrap();
        assert!(matches!(
            long.render(|_| Some(&*"x".repeat(300).leak())),
            Err(TopicError::TooLong(_))
        ));
    }

    #[test]
    fn a_template_that_makes_no_topic_is_refused() {
        let refused = |text: &str| text.parse::<TopicTemplate>().unwrap_err();
        for text in ["{job", "job}", "{}.x", "{a{b}}", "a}{b"] {
            assert_eq!(refused(text), TemplateError::Braces, "{text}");
        }
        assert_eq!(refused("hub.{job}"), TemplateError::Reserved);
        assert_eq!(refused("{job}..x"), TemplateError::Topic(TopicError::EmptyToken));
        assert_eq!(refused("a b"), TemplateError::Topic(TopicError::BadCharacter(' ')));
        let shown = "{publisher}.x-{job}".parse::<TopicTemplate>().unwrap();
        assert_eq!(shown.to_string(), "{publisher}.x-{job}");
        assert_eq!(shown.names().collect::<Vec<_>>(), ["publisher", "job"]);
    }
}
