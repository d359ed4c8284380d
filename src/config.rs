//! All settings: the compiled-in defaults, then a file, the environment and flags over them.
//!
//! Each subsystem owns its section's type; this module puts them together and refuses what makes
//! no sense, telling the key, the place it was set, and what to do.

mod layers;
mod reference;

use std::{
    collections::HashSet,
    ffi::OsString,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};

use layers::Layers;
pub use layers::SettingOrigin;
pub use reference::render as render_reference;

use crate::{
    auth,
    broker::journal,
    http, hub,
    ingest::IngestConfig,
    instances,
    limits::Limits,
    logging,
    projections::{self, Plan, ProjectionFault},
    redis::{self, RedisAddressError, Server},
    series::{self, derive},
    session, sources,
    time::Span,
    topic::{OwnTopics, Topic},
    vitals, wording,
};

/// The commented file with every key and its default.
pub const DEFAULTS: &str = include_str!("../config/pulsehub.toml");

/// The settings of one hub. Made by [`Config::load`] only, which checks them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// Where to listen.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// The folder of the log and the store.
    pub data: PathBuf,
    /// What tokens are signed with; empty when none was configured.
    pub secret: SecretString,
    redis: SecretString,
    /// `[cluster]`
    pub cluster: redis::RedisConfig,
    /// `[log]`
    pub log: logging::LoggingConfig,
    /// `[journal]`
    pub journal: journal::JournalConfig,
    /// `[hub]`
    pub hub: hub::HubConfig,
    /// `[instances]`
    pub instances: instances::InstancesConfig,
    /// `[series]`
    pub series: series::SeriesConfig,
    /// `[auth]`
    pub auth: auth::AuthConfig,
    /// `[http]`
    pub http: http::HttpConfig,
    /// `[socket]`
    pub socket: session::SocketConfig,
    /// `[limits]`
    pub limits: Limits,
    /// `[ingest]`
    pub ingest: IngestConfig,
    /// `[host]`
    pub host: vitals::HostConfig,
    /// Every `[[source]]`.
    #[serde(default, rename = "source")]
    pub sources: Vec<sources::SourceConfig>,
    /// `[projections]`
    pub projections: projections::ProjectionsConfig,
    #[serde(default)]
    derive: Vec<derive::DeriveConfig>,
    #[serde(default)]
    projection: Vec<projections::ProjectionConfig>,
}

/// Why the settings cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is no TOML.
    #[error("{path} line {line}: {message}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Counts from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// There is no such key.
    #[error("there is no key `{key}` ({origin}); {hint}")]
    UnknownKey {
        /// Its path.
        key: String,
        /// Where it stands.
        origin: SettingOrigin,
        /// What may have been meant.
        hint: String,
    },
    /// A variable of the hub's that means nothing.
    #[error("there is no variable {name}; {hint}")]
    UnknownVariable {
        /// Its name.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// A value that makes no sense.
    #[error("`{key}` ({origin}): {message}")]
    Value {
        /// The key's path.
        key: String,
        /// Where it was set.
        origin: SettingOrigin,
        /// What is wrong and what to do.
        message: String,
    },
}

impl Config {
    /// The settings from `file`, `variables` (all of the process's will do) and `flags` (key and
    /// value), each going before those named earlier.
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let text = file.map(|path| {
            std::fs::read_to_string(path).map(|text| (path, text)).map_err(|error| {
                let reason = match error.kind() {
                    io::ErrorKind::NotFound => {
                        "there is no such file; --config or PULSEHUB_CONFIG names it".to_owned()
                    }
                    io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
                    io::ErrorKind::InvalidData => "it is no text in UTF-8".to_owned(),
                    _ => error.to_string(),
                };
                ConfigError::Unreadable { path: path.to_owned(), reason }
            })
        });
        let mut layers = Layers::new(DEFAULTS, &reference::with_examples(DEFAULTS))?;
        if let Some((path, text)) = text.transpose()? {
            layers.add_file(path, &text)?;
        }
        layers.add_variables(variables)?;
        for (key, value) in flags {
            layers.add_text(key, value, SettingOrigin::Flag(key.replace(['.', '_'], "-")))?;
        }
        Self::from_layers(&layers)
    }

    fn from_layers(layers: &Layers) -> Result<Self, ConfigError> {
        let refuse = |key: &str, message: String| ConfigError::Value {
            key: key.to_owned(),
            origin: layers.origin(key),
            message,
        };
        let config: Self = serde_path_to_error::deserialize(layers.table()).map_err(|error| {
            let key = error.path().to_string();
            let message = error.into_inner().message().trim_end().to_owned();
            if let Some((name, beside)) = wording::unknown_field(&message) {
                let beside = beside.into_iter().map(str::to_owned).collect::<Vec<_>>();
                let key = match key.strip_suffix(name) {
                    Some(above) if above.is_empty() || above.ends_with('.') => key,
                    _ if key == "." => name.to_owned(),
                    _ => format!("{key}.{name}"),
                };
                return layers.unknown(&key, layers.origin(&key), &beside);
            }
            let is_secret = SECRETS.iter().any(|name| key.ends_with(name))
                || HOLDERS.iter().any(|above| key.starts_with(above)) && key.ends_with(']');
            let without_value = wording::without_value(&message).filter(|_| is_secret);
            let said = match without_value {
                Some(wanted) => {
                    format!("{wanted}; what stands there may be a secret and is not shown")
                }
                None => wording::plain(&message) + &layers.form(&key, &message),
            };
            refuse(&key, said)
        })?;
        if let Some((key, message)) = config.nonsense() {
            return Err(refuse(key, message));
        }
        let plan = config.plan();
        plan.and_then(|plan| config.own_topics(&plan))
            .map_err(|ProjectionFault { key, message }| refuse(&key, message))?;
        Ok(config)
    }

    /// The derived values and projections, those that come with the hub among them.
    pub fn plan(&self) -> Result<Plan, ProjectionFault> {
        for (index, projection) in self.projection.iter().enumerate() {
            let paths = [("path", &projection.path), ("socket", &projection.socket)];
            for (name, path) in paths {
                if let Some(owner) = path.as_ref().and_then(|path| http::owner(path.as_str())) {
                    let key = format!("projection[{index}].{name}");
                    return Err(ProjectionFault {
                        key,
                        message: format!("is {owner}: take another"),
                    });
                }
            }
        }
        let keep = self.series.keep;
        let is_longer = |window: Option<Span>| window.is_some_and(|window| window > keep);
        if let Some(index) = self.derive.iter().position(|derive| is_longer(derive.window)) {
            let key = format!("derive[{index}].window");
            let message =
                format!("is longer than series are kept: make series.keep longer than {keep}");
            return Err(ProjectionFault { key, message });
        }
        Plan::new(&self.projections, &self.derive, &self.projection)
    }

    /// Where the hub alone publishes, because the settings have it publish there.
    pub fn own_topics(&self, plan: &Plan) -> Result<OwnTopics, ProjectionFault> {
        let projected = plan.projections().iter().map(|projection| projection.topic.clone());
        let mut own: HashSet<Topic> = projected.collect();
        for (index, source) in self.sources.iter().enumerate() {
            let fault =
                |message| ProjectionFault { key: format!("source[{index}].topic"), message };
            for topic in sources::topics(source).map_err(|error| fault(error.to_string()))? {
                if own.contains(&topic) {
                    let message = format!("{topic} is where something else is published already");
                    return Err(fault(message));
                }
                own.insert(topic);
            }
        }
        Ok(own.into_iter().collect())
    }

    /// The Redis that many nodes share, if there is one.
    pub fn redis(&self) -> Result<Option<Server>, RedisAddressError> {
        if self.redis.expose_secret().is_empty() {
            return Ok(None);
        }
        Server::new(&self.redis, self.cluster.clone()).map(Some)
    }

    fn cluster_nonsense(&self) -> Option<(&'static str, String)> {
        if let Err(error) = self.redis() {
            return Some(("redis", error.to_string()));
        }
        let prefix = &self.cluster.prefix;
        if prefix.is_empty() || prefix.contains(['{', '}']) {
            return Some(("cluster.prefix", "must be a text without { and }".to_owned()));
        }
        let by_bytes = self.journal.retention.iter().any(|rule| rule.max_bytes.is_some());
        if !self.redis.expose_secret().is_empty() && by_bytes {
            let message = "a topic's `max_bytes` is not possible with Redis: leave it out, and \
                           limit all topics together with journal.max_bytes";
            return Some(("journal.retention", message.to_owned()));
        }
        None
    }

    /// The first key whose value makes no sense, and what to do about it.
    fn nonsense(&self) -> Option<(&'static str, String)> {
        if let Some(nonsense) = self.cluster_nonsense() {
            return Some(nonsense);
        }
        let is_secured = !self.secret.expose_secret().is_empty() || !self.auth.keys.is_empty();
        if !self.listen.ip().is_loopback() && !is_secured {
            let message = format!(
                "{} can be reached from other machines, which needs a secret of your own: make one with \
                 `openssl rand -hex 32` and set it as PULSEHUB_SECRET, or listen on 127.0.0.1",
                self.listen
            );
            return Some(("listen", message));
        }
        if let Err(message) = auth::check_secret(&self.secret) {
            return Some(("secret", message));
        }
        if self.instances.max > self.journal.latest_keys {
            let message = format!(
                "must be at most journal.latest_keys ({}), or instances would be lost",
                self.journal.latest_keys
            );
            return Some(("instances.max", message));
        }
        if self.data.as_os_str().is_empty() {
            return Some(("data", "must name a folder".to_owned()));
        }
        if self.http.proxy_protocol && self.http.trusted_proxies.is_empty() {
            let message = "needs the proxies that speak it in http.trusted_proxies";
            return Some(("http.proxy_protocol", message.to_owned()));
        }
        if let Some(message) = sources::SourceConfig::nonsense(&self.sources) {
            return Some(("source", message));
        }
        let (journal, limits) = (&self.journal, &self.limits);
        let sizes = [
            ("journal.queue_bytes", journal.queue_bytes, "limits.body", limits.body),
            ("hub.tail_bytes", self.hub.tail_bytes, "hub.chunk_bytes", self.hub.chunk_bytes),
            ("limits.body", limits.body, "limits.event", limits.event),
            ("limits.bodies", limits.bodies, "limits.body", limits.body),
            (
                "limits.stranger_bodies",
                limits.stranger_bodies,
                "limits.small_body",
                limits.small_body,
            ),
            ("limits.answers", limits.answers, "limits.body", limits.body),
        ];
        let size = sizes.into_iter().find(|(_, size, _, least)| size < least);
        size.map(|(key, _, other, least)| {
            (key, format!("must be at least {least}, because {other} is {least}"))
        })
    }
}

/// Ends of keys whose values no message may show.
const SECRETS: [&str; 4] = ["secret", "redis", "pem", ".token"];

/// Lists of tables with a secret in each: one that stands there in place of a table is not shown.
const HOLDERS: [&str; 2] = ["auth.keys[", "source["];

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    struct Address(SocketAddr);
    impl FromStr for Address {
        type Err = String;

        fn from_str(text: &str) -> Result<Self, String> {
            text.parse().map(Self).map_err(|_| {
                format!(
                    "{text:?} is no address: write an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080"
                )
            })
        }
    }
    let wanted = "an IP address and a port in quotes, such as \"127.0.0.1:8080\"";
    wording::read_text(deserializer, wanted).map(|Address(address)| address)
}

#[cfg(test)]
mod tests;
