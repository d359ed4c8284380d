//! What of the machine and the settings weakens the hub: told at start and in `/readyz`.

use std::{ffi::OsString, fs, net::SocketAddr};

use crate::{broker::journal::Sync, config::Config};

/// What is worth knowing of the machine; None where it does not tell.
#[derive(Debug, Clone, Default)]
pub(super) struct MachineFacts {
    /// Connections for which there are descriptors; see [`descriptors::raise`](crate::descriptors::raise).
    pub(super) connections: Option<u64>,
    /// Connections that may wait to be accepted.
    pub(super) somaxconn: Option<u64>,
    /// How freely memory is promised: 1 for always, which a Redis needs to copy itself.
    pub(super) overcommit: Option<u64>,
}

/// What Linux allows by default since 5.4; less is an old kernel or a container's setting.
const USUAL_SOMAXCONN: u64 = 4096;

/// What LocaNext's telemetry is configured by; people set them for the hub as well, and wait in vain.
const LOCANEXT_VARIABLES: [&str; 8] = [
    "TELEMETRY_ENABLED",
    "DASHBOARD_WEBHOOK_URL",
    "DASHBOARD_WEBHOOK_TOKEN",
    "DASHBOARD_WEBHOOK_INTERVAL",
    "CUSTOM_WEBHOOK_URL",
    "CUSTOM_WEBHOOK_EVENTS",
    "PROMETHEUS_ENABLED",
    "PROMETHEUS_PORT",
];

/// A sentence for each of these variables: they configure LocaNext's exporter, and this hub does nothing for them.
/// `value` tells what one is set to.
pub(super) fn idle_variables(value: impl Fn(&str) -> Option<OsString>) -> Vec<String> {
    // Kubernetes sets PROMETHEUS_PORT to tcp://… beside every service called prometheus.
    let is_set = |name: &&&str| {
        value(name).is_some_and(|value| !value.to_string_lossy().starts_with("tcp://"))
    };
    let set = LOCANEXT_VARIABLES.iter().filter(is_set);
    set.map(|name| {
        format!("the variable {name} is set, and this hub does not use it: set it where LocaNext runs, or unset it")
    })
    .collect()
}

impl MachineFacts {
    /// This one, as Linux tells it.
    pub(super) fn look(connections: Option<u64>) -> Self {
        let number = |path| fs::read_to_string(path).ok()?.trim().parse().ok();
        Self {
            connections,
            somaxconn: number("/proc/sys/net/core/somaxconn"),
            overcommit: number("/proc/sys/vm/overcommit_memory"),
        }
    }

    /// A sentence for each weakness: what it is, and what to do.
    pub(super) fn warnings(&self, config: &Config, address: SocketAddr) -> Vec<String> {
        let mut warnings = Vec::new();
        let wanted = config.limits.connections;
        if let Some(most) = self.connections.filter(|most| *most < wanted as u64) {
            warnings.push(format!(
                "there are descriptors for {most} connections, fewer than `limits.connections` \
                 ({wanted}): raise the hard limit (ulimit -Hn, LimitNOFILE), or lower the setting"
            ));
        }
        if let Some(waiting) = self.somaxconn.filter(|waiting| *waiting < USUAL_SOMAXCONN) {
            warnings.push(format!(
                "only {waiting} connections may wait to be accepted, so that many who come back at \
                 once are late: set net.core.somaxconn to {USUAL_SOMAXCONN} or more"
            ));
        }
        let redis = config.redis().ok().flatten();
        if self.overcommit.is_some_and(|how| how != 1)
            && redis.as_ref().is_some_and(|it| it.is_local())
        {
            warnings.push(
                "Redis on this machine may be refused the memory it needs to write its file anew: set \
                 vm.overcommit_memory to 1"
                    .to_owned(),
            );
        }
        let mut weak = |is_weak: bool, warning: &str| {
            if is_weak {
                warnings.push(warning.to_owned());
            }
        };
        weak(
            redis.is_none() && config.journal.sync == Sync::Normal,
            "a power loss may take events that were answered `stored`: set `journal.sync` to full",
        );
        weak(
            config.auth.query_token,
            "tokens are taken from addresses, which end up in logs: use tickets, and set \
             `auth.query_token` to false",
        );
        let is_open = !address.ip().is_loopback();
        weak(
            is_open && config.http.public_metrics,
            "everybody who reaches the hub may read its metrics: set `http.public_metrics` to false",
        );
        weak(
            is_open && !config.http.secure_cookie,
            "browsers send session cookies over plain HTTP as well: put TLS in front, and set \
             `http.secure_cookie` to true",
        );
        weak(
            is_open && config.auth.anonymous.as_ref().is_some_and(|it| !it.publish.is_empty()),
            "everybody who reaches the hub may publish: leave `publish` out of `auth.anonymous`",
        );
        weak(
            is_open && !config.auth.open_keys.is_empty(),
            "everybody who reaches the hub may publish with a key of `auth.open_keys`: make keys of their own for the \
             programs that have it",
        );
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[(&str, &str)]) -> Config {
        let flags: Vec<_> = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        Config::load(None, [], &flags).unwrap()
    }

    const HERE: SocketAddr =
        SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1));

    #[test]
    fn nothing_is_said_of_a_hub_that_is_as_it_should_be() {
        let machine =
            MachineFacts { connections: Some(100_000), somaxconn: Some(4096), overcommit: Some(0) };
        assert_eq!(machine.warnings(&config(&[]), HERE), Vec::<String>::new());
        let unknown = MachineFacts::default().warnings(&config(&[]), HERE);
        assert_eq!(unknown, Vec::<String>::new(), "what is not known is no weakness");
    }

    #[test]
    fn a_variable_that_does_nothing_is_told_of() {
        let told = idle_variables(|name| match name {
            "CUSTOM_WEBHOOK_URL" => Some("https://example.com".into()),
            "PROMETHEUS_PORT" => Some("tcp://10.0.0.1:9090".into()),
            _ => None,
        });
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("CUSTOM_WEBHOOK_URL"), "{told:?}");
    }

    #[test]
    fn every_weakness_is_named_with_what_to_do() {
        let machine =
            MachineFacts { connections: Some(832), somaxconn: Some(128), overcommit: Some(0) };
        let far: SocketAddr = "192.0.2.1:8080".parse().unwrap();
        let secret = ("secret", "0123456789abcdef0123456789abcdef");
        let redis = ("redis", "redis://127.0.0.1:6379");
        let anonymous = ("auth.anonymous", "{ publish = [\"a.*\"], subscribe = [] }");
        for (flags, address, wanted) in [
            (&[][..], HERE, &["LimitNOFILE", "net.core.somaxconn"][..]),
            (&[redis], HERE, &["LimitNOFILE", "net.core.somaxconn", "vm.overcommit_memory"]),
            (&[("redis", "redis://192.0.2.1:6379")], HERE, &["LimitNOFILE", "net.core.somaxconn"]),
            (
                &[("journal.sync", "normal"), ("auth.query_token", "true"), secret],
                far,
                &[
                    "LimitNOFILE",
                    "net.core.somaxconn",
                    "journal.sync",
                    "auth.query_token",
                    "http.secure_cookie",
                ],
            ),
            (
                &[("http.public_metrics", "true"), ("http.secure_cookie", "true"), secret],
                far,
                &["LimitNOFILE", "net.core.somaxconn", "http.public_metrics"],
            ),
            (
                &[anonymous, ("http.secure_cookie", "true"), secret],
                far,
                &["LimitNOFILE", "net.core.somaxconn", "auth.anonymous"],
            ),
            (
                &[("auth.open_keys", "{ x = [\"a.**\"] }"), ("http.secure_cookie", "true"), secret],
                far,
                &["LimitNOFILE", "net.core.somaxconn", "auth.open_keys"],
            ),
            // On a loopback address no other machine reaches the hub, so these weaken nothing.
            (&[("http.public_metrics", "true")], HERE, &["LimitNOFILE", "net.core.somaxconn"]),
            (&[anonymous], HERE, &["LimitNOFILE", "net.core.somaxconn"]),
        ] {
            let found = machine.warnings(&config(flags), address);
            assert_eq!(found.len(), wanted.len(), "{flags:?}: {found:?}");
            for (warning, word) in found.iter().zip(wanted) {
                assert!(warning.contains(word), "{flags:?}: {warning}");
            }
        }
    }
}
