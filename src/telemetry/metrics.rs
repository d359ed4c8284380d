//! The metrics, a line each.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{
    labels::{CodeLabel, DutyLabel, PartLabel, ReasonLabel, SourceLabel, StateLabel},
    limit::LimitLabel,
};

/// The bounds of [`Metrics::commit_seconds`].
const COMMIT_SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

macro_rules! metrics {
    ($($name:ident: $kind:ty = $help:literal;)*) => {
        /// The metrics, one field each.
        #[derive(Debug)]
        #[expect(missing_docs, reason = "what each is stands in its help")]
        pub struct Metrics {
            pub(super) registry: Registry,
            pub commit_seconds: Histogram,
            $(pub $name: $kind,)*
        }

        impl Metrics {
            /// All of them at zero.
            pub(super) fn new() -> Self {
                let mut registry = Registry::with_prefix("pulsehub");
                let commit_seconds = Histogram::new(COMMIT_SECONDS);
                registry.register_with_unit(
                    "commit",
                    "Time from taking a group of batches off the queue to its commit",
                    Unit::Seconds,
                    commit_seconds.clone(),
                );
                $(
                    let $name = <$kind>::default();
                    registry.register(stringify!($name), $help, $name.clone());
                )*
                Self { registry, commit_seconds, $($name,)* }
            }
        }
    };
}

metrics! {
    limit_hits: Family<LimitLabel, Counter> = "Times a limit was hit, by the limit's name";
    refusals: Family<CodeLabel, Counter> = "Requests and messages that were refused, by the code of the answer";
    dropped: Family<PartLabel, Counter> =
        "Parts of accepted requests that could not be kept, by part: number, timestamp, field, point, sample, instance";
    instances: Family<StateLabel, Gauge> = "Instances in the registry, by state";
    events_stored: Counter = "Events stored in the log";
    events_duplicate: Counter = "Events that were sent again and are stored once";
    publish_failures: Counter = "Batches that could not be stored";
    deliveries: Counter = "Events sent to subscribers";
    frames: Counter = "Frames written to subscribers";
    gaps: Family<ReasonLabel, Counter> = "Gaps that subscribers were told of, by reason";
    connections: Gauge = "Connections that receive events: WebSockets and streams of server-sent events";
    subscriptions: Gauge = "Subscriptions of these connections";
    views: Gauge = "Different subscriptions: equal ones share a view";
    view_bytes: Gauge = "Bytes of the frames and newest values that all views keep in memory";
    closes: Family<CodeLabel, Counter> = "Sockets that the hub closed, by close code";
    revocation_failures: Counter =
        "Questions about credentials in use that the store did not answer; while it grows, a revocation may take effect late";
    slowest_lag: Gauge = "Offsets between the slowest subscriber and the end of the log";
    source_failures: Family<SourceLabel, Counter> = "Times a [[source]] did not answer as it should, by source";
    duty_failures: Family<DutyLabel, Counter> =
        "Times a duty could not be done and will be tried again, by duty; the log says why";
    source_left_out: Family<SourceLabel, Counter> =
        "Things that a [[source]] sent and that could not be published, by source";
    cpu_seconds: Counter<f64, AtomicU64> = "CPU time used by the process, in seconds";
    memory_bytes: Gauge = "Resident memory of the process, in bytes";
    series: Gauge = "Series in memory and in the store";
    series_samples: Counter = "Samples put into series";
    series_drops: Family<ReasonLabel, Counter> = "Samples left out of series, by reason";
    series_retimed: Counter = "Samples whose own time could not be true, so that the time of arrival counts";
    series_gaps: Counter = "Times that events were missing in the log before they were in their series";
    clock_jumps: Counter = "Jumps of the system's clock since the start";
    clock_unsettled: Gauge = "1 while the clock is in doubt and nothing is removed by its age";
    disk_full: Gauge = "1 while the disk is full and publishes are refused";
    journal_bytes: Gauge = "Bytes of stored history";
    journal_wal_bytes: Gauge = "Bytes of the write-ahead log";
}
