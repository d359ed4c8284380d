//! Names that others rely on: metrics, settings, commands, codes.

use std::{collections::BTreeMap, process::Command};

use pulsehub::{
    cli::Cli,
    instances::InstanceState,
    protocol::{CloseCode, ErrorCode, GapReason},
    series::Dropped as Reason,
    telemetry::{DroppedPart, Limit, Telemetry},
};

use super::record::Record;

/// Metrics of which each family has a value, because it shows its labels only then.
pub(crate) fn telemetry_with_every_label() -> Telemetry {
    let telemetry = Telemetry::new();
    telemetry.hit(Limit::Body);
    telemetry.refused("refused");
    telemetry.dropped(DroppedPart::Number, 1);
    telemetry.instances("up");
    telemetry.gap("reason");
    telemetry.series_dropped("reason");
    telemetry.source_failed("source");
    telemetry.source_left_out("source", 1);
    telemetry.duty_failed("duty");
    telemetry.closed("closed");
    telemetry
}

#[test]
fn metrics_and_their_labels() {
    let telemetry = telemetry_with_every_label();
    let mut record = Record::new("metrics");
    let mut names = BTreeMap::new();
    for line in telemetry.openmetrics().unwrap().lines() {
        if let Some(about) = line.strip_prefix("# ") {
            record.add(0, about);
        } else {
            let name = line.split([' ', '{']).next().unwrap();
            let labels = line.split(['{', ',']).skip(1).filter_map(|pair| pair.split_once('='));
            let labels: Vec<_> = labels.map(|(label, _)| label).collect();
            names.insert(name.to_owned(), labels.join(", "));
        }
    }
    record.space();
    record.add(0, "# samples and their labels");
    record.space();
    names.iter().for_each(|(name, labels)| record.add(0, &format!("{name} {{{labels}}}")));
    // Every metric that is registered has a sample here.
    let source =
        std::fs::read_to_string(format!("{}/src/telemetry/metrics.rs", env!("CARGO_MANIFEST_DIR")));
    let source = source.unwrap();
    let (_, rows) = source.split_once("\nmetrics! {\n").unwrap();
    let rows = rows.lines().map(str::trim_start).filter(|row| !row.starts_with('"'));
    let registered = rows.filter_map(|row| row.split_once(": ")).map(|(name, _)| name);
    let registered: Vec<_> = registered.collect();
    assert!(registered.len() > 30, "{registered:?}");
    for name in registered {
        let name = format!("pulsehub_{name}");
        assert!(
            names.contains_key(&name) || names.contains_key(&format!("{name}_total")),
            "{name} has no sample in the list: give it a value above"
        );
    }
    record.finish();
}

#[test]
fn settings_and_their_defaults() {
    let text = include_str!("../../config/pulsehub.toml");
    let mut record = Record::new("settings");
    let mut keys = BTreeMap::new();
    flatten("", &toml::Value::Table(text.parse().unwrap()), &mut keys);
    keys.iter().for_each(|(key, value)| record.add(0, &format!("{key} = {value}")));
    record.space();
    record.add(0, "# examples that are not in force");
    record.space();
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(code) if !code.is_empty() && !code.starts_with(' ') => code.to_owned(),
        _ => line.to_owned(),
    };
    let examples: Vec<_> = text.lines().map(uncomment).collect();
    let mut with_examples = BTreeMap::new();
    flatten("", &toml::Value::Table(examples.join("\n").parse().unwrap()), &mut with_examples);
    for (key, value) in with_examples.iter().filter(|(key, _)| !keys.contains_key(*key)) {
        record.add(0, &format!("{key} = {value}"));
    }
    record.finish();
}

fn flatten(above: &str, value: &toml::Value, keys: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let dot = if above.is_empty() { "" } else { "." };
                flatten(&format!("{above}{dot}{name}"), value, keys);
            }
        }
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            for (at, item) in items.iter().enumerate() {
                flatten(&format!("{above}[{at}]"), item, keys);
            }
        }
        value => {
            keys.insert(above.to_owned(), value.to_string());
        }
    }
}

#[test]
fn commands_and_their_options() {
    let mut record = Record::new("commands");
    let mut waiting = vec![Vec::new()];
    let mut count = 0;
    while let Some(words) = waiting.pop() {
        let help = help(&words);
        record.add(
            0,
            &format!("$ pulsehub {}", [&words[..], &["--help".to_owned()]].concat().join(" ")),
        );
        record.add(4, &help);
        record.space();
        count += 1;
        let commands = help.split("Commands:\n").nth(1).unwrap_or_default();
        let names = commands.lines().take_while(|line| !line.is_empty());
        let names = names.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        let names: Vec<_> = names.filter(|name| !name.is_empty() && *name != "help").collect();
        waiting.extend(names.iter().rev().map(|name| [&words[..], &[(*name).to_owned()]].concat()));
    }
    // As many as the program knows itself.
    assert_eq!(count, all(&<Cli as clap::CommandFactory>::command()));
    record.finish();
}

fn all(command: &clap::Command) -> usize {
    1 + command.get_subcommands().map(all).sum::<usize>()
}

fn help(words: &[String]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulsehub"));
    command.env_clear().args(words).arg("--help");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn codes_and_what_they_tell_a_client() {
    let mut record = Record::new("codes");
    for close in CLOSES {
        let pause =
            close.pause().map_or(String::new(), |pause| format!(", come back after {pause:?}"));
        let again = if close.retryable() { "" } else { ", not to come back" };
        record.add(0, &format!("close {close}{pause}{again}"));
    }
    record.space();
    for error in ERRORS {
        let again = if error.retryable() { ", retryable" } else { "" };
        record.add(0, &format!("error {}{again}", error.name()));
    }
    record.space();
    for reason in GAP_REASONS {
        record.add(0, &format!("gap {}", reason.name()));
    }
    record.space();
    for limit in LIMITS {
        record.add(0, &format!("limit {}", limit.name()));
    }
    record.space();
    for dropped in DROPPED {
        record.add(0, &format!("dropped {}", dropped.name()));
    }
    record.space();
    for reason in REASONS {
        record.add(0, &format!("sample left out {}: {reason}", reason.name()));
    }
    record.space();
    for state in InstanceState::ALL {
        record.add(0, &format!("instance {}", state.name()));
    }
    record.space();
    for (status, code, title, retryable) in super::complete::refusals() {
        record.add(0, &format!("refusal {code}: {status}, {title:?}{retryable}"));
    }
    record.finish();
}

/// Each list names every value once: the match beside it does not compile otherwise, and the numbers tell.
macro_rules! every {
    ($(#[$about:meta])* $name:ident, $kind:ident { $($value:ident),* $(,)? }) => {
        $(#[$about])*
        pub(crate) const $name: &[$kind] = &[$($kind::$value),*];

        const _: fn($kind) = |value| match value {
            $($kind::$value => {})*
        };
    };
}

every!(
    CLOSES,
    CloseCode {
        Restarting,
        Overloaded,
        BadMessage,
        Unauthorized,
        Forbidden,
        UnsupportedProtocol,
        Timeout,
        Gap,
        TooMany,
        Expired,
        TooSlow,
    }
);

every!(
    ERRORS,
    ErrorCode {
        BadMessage,
        UnknownType,
        MissingId,
        AlreadyConnected,
        SubInUse,
        UnknownSub,
        Forbidden,
        Unauthorized,
        LimitExceeded,
        InvalidEvent,
        Unavailable,
    }
);

every!(GAP_REASONS, GapReason { Retention, Epoch, Policy });

every!(
    LIMITS,
    Limit {
        Body,
        SmallBody,
        Bodies,
        StrangerBodies,
        Answers,
        Event,
        Batch,
        Frame,
        Subscriptions,
        Patterns,
        Replay,
        ReplayBytes,
        Connections,
        ConnectionsPerAddress,
        ConnectionsPerPrincipal,
        ViewsPerPrincipal,
        TailBytes,
        Questions,
        MessagesPerSecond,
        WrongSignIns,
        PassesPerPrincipal,
        Headers,
        BodyTimeout,
        WriteTimeout,
        PublishQueue,
        Topics,
        LatestKeys,
        Instances,
    }
);

every!(REASONS, Reason { Name, Labels, Value, Depth, Cap, Derived, Time, Shape });

every!(DROPPED, DroppedPart { Number, Timestamp, Field, Point, Sample, Instance });
