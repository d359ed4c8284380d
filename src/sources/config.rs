//! `[[source]]` and `[host]`: what the hub fetches, and what it tells of the machine it runs on.

use std::{collections::HashSet, fmt, path::PathBuf, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tonic::{codegen::http::Uri, metadata::AsciiMetadataValue};

use crate::{
    text::read_as_text,
    time::Span,
    topic::{Topic, TopicError},
};

/// One `[[source]]`: something the hub asks, once for the whole cluster, and publishes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// What it is called: the `source` of its events, and the key of those that tell how it is.
    pub name: SourceName,
    /// What it speaks.
    pub kind: SourceKind,
    /// Where it is.
    pub address: DaemonAddress,
    /// What its topics begin with, if not with `flext`.
    topic: Option<Topic>,
    /// Time between two questions.
    #[serde(default = "SourceConfig::interval")]
    pub interval: Span,
    /// Time for an answer.
    #[serde(default = "SourceConfig::timeout")]
    pub timeout: Span,
    /// Sent as `authorization: Bearer …`; empty: nothing is sent.
    #[serde(default)]
    pub token: SecretString,
    /// The certificates in PEM that vouch for it, beside those the machine trusts.
    pub ca_file: Option<PathBuf>,
}

/// What a source speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum SourceKind {
    /// `flext.FlextService` over gRPC.
    #[serde(rename = "flext-grpc")]
    FlextGrpc,
}

/// The name of a source: one token of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceName(Box<str>);

/// An address such as `http://127.0.0.1:50051`, or https:// for TLS.
#[derive(Clone)]
pub struct DaemonAddress(Uri);

/// A shorter time would leave a daemon no rest.
pub const LEAST_INTERVAL: Span = Span(Duration::from_millis(100));

impl SourceConfig {
    /// The FLEXT daemon at `address`, under that name, with everything else as it is by default.
    pub fn flext(name: &str, address: DaemonAddress) -> Result<Self, SourceNameError> {
        Ok(Self {
            name: name.parse()?,
            kind: SourceKind::FlextGrpc,
            address,
            topic: None,
            interval: Self::interval(),
            timeout: Self::timeout(),
            token: SecretString::default(),
            ca_file: None,
        })
    }

    const fn interval() -> Span {
        Span::seconds(5)
    }

    const fn timeout() -> Span {
        Span::seconds(3)
    }

    /// What goes before everything that is asked; None without a token.
    pub(super) fn bearer(&self) -> Result<Option<AsciiMetadataValue>, BadToken> {
        let token = self.token.expose_secret();
        if token.is_empty() {
            return Ok(None);
        }
        let mut value: AsciiMetadataValue =
            format!("Bearer {token}").parse().map_err(|_| BadToken)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// What its topics begin with.
    fn topic(&self) -> &str {
        self.topic.as_ref().map_or("flext", Topic::as_str)
    }

    /// A topic below its own.
    pub(super) fn topic_of(&self, what: &str) -> Result<Topic, TopicError> {
        Topic::parse(&format!("{}.{what}", self.topic()))
    }

    /// What makes no sense about these sources together, and what to do about it.
    pub fn nonsense(sources: &[Self]) -> Option<String> {
        let (mut names, mut topics) = (HashSet::new(), HashSet::new());
        for source in sources {
            let (name, topic) = (&source.name, source.topic());
            let wrong = if !names.insert(name) {
                "another source has this name: give each its own".to_owned()
            } else if !topics.insert(topic) {
                format!(
                    "another source publishes below {topic} too: give each a `topic` of its own"
                )
            } else if source.topic.as_ref().is_some_and(Topic::is_reserved) {
                "its `topic` must not begin with hub".to_owned()
            } else if let Err(error) = super::topics(source) {
                format!("its `topic` is too long: {error}")
            } else if source.interval < LEAST_INTERVAL {
                format!("its `interval` must be at least {LEAST_INTERVAL}")
            } else if source.timeout < LEAST_INTERVAL {
                format!("its `timeout` must be at least {LEAST_INTERVAL}")
            } else if let Err(error) = source.bearer() {
                error.to_string()
            } else if source.ca_file.is_some() && !source.address.is_secure() {
                "`ca_file` is for an address with https://".to_owned()
            } else {
                continue;
            };
            return Some(format!("the source {name}: {wrong}"));
        }
        None
    }
}

/// A token that no request can carry.
#[derive(Debug, thiserror::Error)]
#[error("its `token` must be printable ASCII")]
pub(super) struct BadToken;

impl SourceName {
    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name that is none.
#[derive(Debug, thiserror::Error)]
pub enum SourceNameError {
    /// It could not stand in a topic.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// It has several words.
    #[error("must be one word, without dots")]
    Dots,
}

impl std::str::FromStr for SourceName {
    type Err = SourceNameError;

    fn from_str(text: &str) -> Result<Self, SourceNameError> {
        let topic = Topic::parse(text)?;
        if topic.as_str().contains('.') {
            Err(SourceNameError::Dots)
        } else {
            Ok(Self(text.into()))
        }
    }
}

read_as_text!(SourceName);

impl DaemonAddress {
    /// As tonic wants it.
    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }

    /// Whether it is spoken to through TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }
}

impl fmt::Debug for DaemonAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::str::FromStr for DaemonAddress {
    type Err = DaemonAddressError;

    fn from_str(text: &str) -> Result<Self, DaemonAddressError> {
        let uri: Uri = text.parse().map_err(|_| DaemonAddressError)?;
        let has_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let has_host = uri.authority().is_some_and(|authority| {
            !authority.host().is_empty() && !authority.as_str().contains('@')
        });
        if has_scheme && is_bare && has_host { Ok(Self(uri)) } else { Err(DaemonAddressError) }
    }
}

/// An address that is none. It is not shown, for somebody may have put a password into it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no address: write http://host:port, or https://host:port for TLS; a password goes into `token`"
)]
pub struct DaemonAddressError;

read_as_text!(DaemonAddress);

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(text: &str) -> Result<Vec<SourceConfig>, String> {
        #[derive(Deserialize)]
        struct File {
            source: Vec<SourceConfig>,
        }
        toml::from_str::<File>(text).map(|file| file.source).map_err(|error| error.to_string())
    }

    fn nonsense(text: &str) -> String {
        SourceConfig::nonsense(&sources(text).unwrap()).unwrap()
    }

    const PLAIN: &str =
        "[[source]]\nname = \"a\"\nkind = \"flext-grpc\"\naddress = \"http://127.0.0.1:50051\"\n";

    #[test]
    fn three_lines_are_enough() {
        let source = sources(PLAIN).unwrap().remove(0);
        assert_eq!((source.topic(), source.interval), ("flext", Span::seconds(5)));
        assert!(source.bearer().unwrap().is_none() && !source.address.is_secure());
        assert_eq!(SourceConfig::nonsense(&[source]), None);
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        assert!(nonsense(&format!("{PLAIN}{PLAIN}")).contains("has this name"));
        let other = PLAIN.replace("\"a\"", "\"b\"");
        assert!(nonsense(&format!("{PLAIN}{other}")).starts_with("the source b: another source"));
        assert_eq!(nonsense(&format!("{PLAIN}topic = \"hub.x\"")).matches("hub").count(), 1);
        assert!(nonsense(&format!("{PLAIN}interval = \"1ms\"")).contains("at least 100ms"));
        assert!(nonsense(&format!("{PLAIN}ca_file = \"a.pem\"")).contains("https://"));
        let text = nonsense(&format!("{PLAIN}token = \"hunter2\\n\""));
        assert!(text.contains("printable") && !text.contains("hunter2"), "{text}");
        assert!(sources(&PLAIN.replace("flext-grpc", "flext")).unwrap_err().contains("flext-grpc"));
        assert!(sources(&PLAIN.replace("\"a\"", "\"a.b\"")).unwrap_err().contains("without dots"));
    }

    #[test]
    fn an_address_is_a_scheme_a_host_and_a_port() {
        for good in ["http://flext:50051", "https://flext.example", "http://[::1]:50051/"] {
            assert!(good.parse::<DaemonAddress>().is_ok(), "{good}");
        }
        for bad in ["", "flext:50051", "grpc://a:1", "http://u:p@a:1", "http://a/b", "http://a?b"] {
            assert_eq!(bad.parse::<DaemonAddress>().unwrap_err(), DaemonAddressError, "{bad}");
        }
    }

    #[test]
    fn a_token_is_never_printed() {
        let source = sources(&format!("{PLAIN}token = \"hunter2\"")).unwrap().remove(0);
        let bearer = source.bearer().unwrap().unwrap();
        assert!(!format!("{source:?}{bearer:?}").contains("hunter2"));
    }
}
