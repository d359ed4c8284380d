//! Where Redis is: an address of its own, or sentinels who know it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, Value, aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::RedisConfig;

/// A Redis that can be connected to. Cheap to clone; its password is not printed.
#[derive(Clone)]
pub struct Server(Arc<ServerInner>);

struct ServerInner {
    place: Endpoint,
    config: RedisConfig,
}

enum Endpoint {
    Fixed(ConnectionInfo),
    /// The sentinels know where the master called `name` is; `as_master` is how to log in there.
    Sentinels {
        sentinels: Vec<ConnectionInfo>,
        name: String,
        as_master: ConnectionInfo,
    },
}

/// An address that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}: write redis://[:password@]host:port[/db], rediss:// for TLS, or \
     redis+sentinel://[:password@]host:port,host:port/master"
)]
pub struct RedisAddressError(String);

/// A dead peer is noticed by the kernel after so long, if nothing else noticed.
const KEEPALIVE: Duration = Duration::from_secs(10);

impl Server {
    /// Reads an address; connects to nothing.
    pub fn new(url: &SecretString, config: RedisConfig) -> Result<Self, RedisAddressError> {
        let url = url.expose_secret();
        let place = match url.split_once("+sentinel://") {
            Some((scheme, rest)) => sentinels(scheme, rest, &config)?,
            None => Endpoint::Fixed(info(url, &config)?),
        };
        Ok(Self(Arc::new(ServerInner { place, config })))
    }

    /// Whether it runs on this machine, as far as its address says.
    pub fn is_local(&self) -> bool {
        let Endpoint::Fixed(info) = &self.0.place else { return false };
        match info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => {
                let address = host.parse::<IpAddr>();
                host == "localhost" || address.is_ok_and(|address| address.is_loopback())
            }
            ConnectionAddr::Unix(_) => true,
            _ => false,
        }
    }

    /// Whether the address holds a password.
    pub fn has_password(&self) -> bool {
        let info = match &self.0.place {
            Endpoint::Fixed(info) => info,
            Endpoint::Sentinels { as_master, .. } => as_master,
        };
        info.redis_settings().password().is_some()
    }

    /// What can be set about it.
    pub fn config(&self) -> &RedisConfig {
        &self.0.config
    }

    /// A new connection, for which and on which an answer may take `patience` longer than usual.
    pub async fn connect(&self, patience: Duration) -> Result<MultiplexedConnection, RedisError> {
        match &self.0.place {
            Endpoint::Fixed(info) => self.open(info.clone(), patience).await,
            Endpoint::Sentinels { sentinels, name, as_master } => {
                self.open_master(sentinels, name, as_master, patience).await
            }
        }
    }

    async fn open(
        &self,
        info: ConnectionInfo,
        patience: Duration,
    ) -> Result<MultiplexedConnection, RedisError> {
        let client = Client::open(info)?;
        let timeout = self.0.config.timeout.0 + patience;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// The master that a sentinel names, if it is one: a sentinel that was away may name one that is no master any more, and
    /// another knows the new one (<https://redis.io/docs/latest/develop/reference/sentinel-clients/>).
    ///
    /// The library's own sentinel client waits half a second for each answer, whatever `cluster.timeout` says.
    async fn open_master(
        &self,
        sentinels: &[ConnectionInfo],
        name: &str,
        as_master: &ConnectionInfo,
        patience: Duration,
    ) -> Result<MultiplexedConnection, RedisError> {
        let mut failed = None;
        for sentinel in with_and_without_login(sentinels) {
            let opened = async {
                let mut connection = self.open(sentinel, Duration::ZERO).await?;
                let mut ask = ::redis::cmd("SENTINEL");
                ask.arg("get-master-addr-by-name").arg(name);
                let named: Option<(String, u16)> = ask.query_async(&mut connection).await?;
                let (host, port) = named.ok_or_else(unknown_master)?;
                let master = as_master.clone().set_addr(at(as_master, host, port));
                let mut connection = self.open(master, patience).await?;
                let role: Vec<Value> = ::redis::cmd("ROLE").query_async(&mut connection).await?;
                match role.first() {
                    Some(Value::BulkString(role)) if role == b"master" => Ok(connection),
                    _ => Err(no_master()),
                }
            };
            match opened.await {
                Ok(connection) => return Ok(connection),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(unknown_master))
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.place {
            Endpoint::Fixed(info) => write!(f, "{}", info.addr()),
            Endpoint::Sentinels { sentinels, name, .. } => {
                write!(f, "{name}, whom the sentinels know at")?;
                sentinels.iter().try_for_each(|info| write!(f, " {}", info.addr()))
            }
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({self})")
    }
}

/// Sentinels may have the password of what they watch, or none; who has none refuses one.
fn with_and_without_login(sentinels: &[ConnectionInfo]) -> Vec<ConnectionInfo> {
    let both = sentinels.iter().flat_map(|info| {
        let open = info.clone().set_redis_settings(RedisConnectionInfo::default());
        let has_password = info.redis_settings().password().is_some();
        std::iter::once(info.clone()).chain(has_password.then_some(open))
    });
    both.collect()
}

fn sentinels(
    scheme: &str,
    rest: &str,
    config: &RedisConfig,
) -> Result<Endpoint, RedisAddressError> {
    let wrong = |what: &str| RedisAddressError(what.to_owned());
    let (login, rest) = match rest.rsplit_once('@') {
        Some((login, rest)) => (format!("{login}@"), rest),
        None => (String::new(), rest),
    };
    let (hosts, path) = rest.split_once('/').ok_or(wrong("the master's name is missing"))?;
    let (name, database) = path.split_once('/').unwrap_or((path, ""));
    if name.is_empty() {
        return Err(wrong("the master's name is missing"));
    }
    let at = |place: &str| info(&format!("{scheme}://{login}{place}"), config);
    let sentinels: Result<Vec<_>, _> = hosts
        .split(',')
        .map(|host| at(&if host.contains(':') { host.to_owned() } else { format!("{host}:26379") }))
        .collect();
    // Only its login, database and TLS are used; the sentinels tell the rest.
    let as_master = at(&format!("localhost/{database}"))?;
    Ok(Endpoint::Sentinels { sentinels: sentinels?, name: name.to_owned(), as_master })
}

/// Another address, spoken to as `info` says.
fn at(info: &ConnectionInfo, host: String, port: u16) -> ConnectionAddr {
    match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    }
}

fn no_master() -> RedisError {
    let kind = ::redis::ErrorKind::MasterNameNotFoundBySentinel;
    (kind, "the sentinels name a server that is no master").into()
}

fn unknown_master() -> RedisError {
    let kind = ::redis::ErrorKind::MasterNameNotFoundBySentinel;
    (kind, "no sentinel knows the master").into()
}

fn info(url: &str, config: &RedisConfig) -> Result<ConnectionInfo, RedisAddressError> {
    // The library's message shows nothing of the address.
    let info = url
        .into_connection_info()
        .map_err(|_| RedisAddressError("is no address of a Redis".to_owned()))?;
    let keepalive = ::redis::io::tcp::socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 4);
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let tcp = tcp.set_user_timeout(config.timeout.0.max(KEEPALIVE));
    Ok(info.set_tcp_settings(tcp))
}
