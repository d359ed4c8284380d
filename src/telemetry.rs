//! The hub's own numbers, counted where things happen and shown on `/metrics` and `hub.metrics`.

mod text;

use std::{
    fmt::Write as _,
    sync::{Arc, atomic::AtomicU64},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Every metric of the hub. Cheap to clone, as each request does; clones count together.
#[derive(Clone, Debug)]
pub struct Telemetry(Arc<Metrics>);

impl std::ops::Deref for Telemetry {
    type Target = Metrics;

    fn deref(&self) -> &Metrics {
        &self.0
    }
}

/// The metrics, one field each.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Limits that were hit, by name.
    pub limit_hits: Family<LimitLabel, Counter>,
    /// Refused input, by the code answered.
    pub refusals: Family<CodeLabel, Counter>,
    /// Parts of accepted requests that could not be kept, by kind.
    pub dropped: Family<PartLabel, Counter>,
    /// Instances in the registry, by state.
    pub instances: Family<StateLabel, Gauge>,
    /// Events stored.
    pub events_stored: Counter,
    /// Events that were stored before and not again.
    pub events_duplicate: Counter,
    /// Publishes that could not be stored.
    pub publish_failures: Counter,
    /// Seconds from taking a batch off the queue to its commit.
    pub commit_seconds: Histogram,
    /// Events handed to subscribers: an event written to three sockets counts three times.
    pub deliveries: Counter,
    /// Frames written to subscribers.
    pub frames: Counter,
    /// Gaps said, by reason.
    pub gaps: Family<ReasonLabel, Counter>,
    /// Connections that receive events, now.
    pub connections: Gauge,
    /// Subscriptions of users, now.
    pub subscriptions: Gauge,
    /// Views, now.
    pub views: Gauge,
    /// Frames and newest values that all views hold, in bytes.
    pub view_bytes: Gauge,
    /// Sockets closed by the hub, by close code.
    pub closes: Family<CodeLabel, Counter>,
    /// Questions about credentials in use that the store did not answer.
    pub revocation_failures: Counter,
    /// Matching events between the slowest cursor and the head, at most.
    pub slowest_lag: Gauge,
    /// Times that a source did not answer as it should, by its name.
    pub source_failures: Family<SourceLabel, Counter>,
    /// Times that a duty could not be done, by its name.
    pub duty_failures: Family<DutyLabel, Counter>,
    /// Things a source sent that could not be published, by its name.
    pub source_left_out: Family<SourceLabel, Counter>,
    /// CPU used by the process, in seconds.
    pub cpu_seconds: Counter<f64, AtomicU64>,
    /// Resident memory of the process, in bytes.
    pub memory_bytes: Gauge,
    /// Series, now.
    pub series: Gauge,
    /// Samples put into series.
    pub series_samples: Counter,
    /// Samples left out of series, by reason.
    pub series_drops: Family<ReasonLabel, Counter>,
    /// Samples whose time could not be true, so that the event's arrival counted.
    pub series_retimed: Counter,
    /// How often events were missing in the log before they were in their series.
    pub series_gaps: Counter,
    /// How often the system's clock has jumped.
    pub clock_jumps: Counter,
    /// 1 while nothing is removed by its age, for the clock is in doubt.
    pub clock_unsettled: Gauge,
    /// 1 while nothing is stored, for the disk is full.
    pub disk_full: Gauge,
    /// Retained events' stored size, in bytes.
    pub journal_bytes: Gauge,
    /// The write-ahead log's size, in bytes.
    pub journal_wal_bytes: Gauge,
}

/// Which limit was hit: a key of the configuration's `[limits]`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LimitLabel {
    limit: Limit,
}

/// The limits that are counted, each named as its configuration key.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of a request's body, decompressed.
    Body,
    /// Bytes of a small body, such as a sign-in.
    SmallBody,
    /// Bytes of all bodies together, or of one user's.
    Bodies,
    /// Bytes of all bodies of requests without credentials, or of those of one address.
    StrangerBodies,
    /// Bytes of all answers that are not read yet, or of one user's.
    Answers,
    /// Bytes of one event.
    Event,
    /// Events in one batch.
    Batch,
    /// Bytes of one message on a socket.
    Frame,
    /// Subscriptions of one connection.
    Subscriptions,
    /// Patterns of one subscription.
    Patterns,
    /// Events of one replay.
    Replay,
    /// Bytes of history looked through for one replay.
    ReplayBytes,
    /// Connections in total.
    Connections,
    /// Connections from one address.
    ConnectionsPerAddress,
    /// Connections of one principal.
    ConnectionsPerPrincipal,
    /// Different subscriptions of one principal.
    ViewsPerPrincipal,
    /// Bytes of newest values that all views hold.
    TailBytes,
    /// Questions of one principal at a time.
    Questions,
    /// Messages from one client in a second.
    MessagesPerSecond,
    /// Wrong sign-ins a minute from one address.
    WrongSignIns,
    /// Tickets, sign-in links or sessions of one principal.
    PassesPerPrincipal,
    /// Header lines or bytes of a request.
    Headers,
    /// Time for a request's body to arrive.
    BodyTimeout,
    /// Time for a write to a socket.
    WriteTimeout,
    /// Bytes waiting to be stored.
    PublishQueue,
    /// Topics in the log.
    Topics,
    /// Keys of one topic in `latest`.
    LatestKeys,
    /// Instances in the registry.
    Instances,
}

impl Limit {
    /// The limit's name in metrics, answers and the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Body => "body",
            Limit::SmallBody => "small_body",
            Limit::Bodies => "bodies",
            Limit::StrangerBodies => "stranger_bodies",
            Limit::Answers => "answers",
            Limit::Event => "event",
            Limit::Batch => "batch",
            Limit::Frame => "frame",
            Limit::Subscriptions => "subscriptions",
            Limit::Patterns => "patterns",
            Limit::Replay => "replay",
            Limit::ReplayBytes => "replay_bytes",
            Limit::Connections => "connections",
            Limit::ConnectionsPerAddress => "connections_per_address",
            Limit::ConnectionsPerPrincipal => "connections_per_principal",
            Limit::ViewsPerPrincipal => "views_per_principal",
            Limit::TailBytes => "tail_bytes",
            Limit::Questions => "questions",
            Limit::MessagesPerSecond => "messages_per_second",
            Limit::WrongSignIns => "wrong_sign_ins",
            Limit::PassesPerPrincipal => "passes_per_principal",
            Limit::Headers => "headers",
            Limit::BodyTimeout => "body_timeout",
            Limit::WriteTimeout => "write_timeout",
            Limit::PublishQueue => "publish_queue",
            Limit::Topics => "topics",
            Limit::LatestKeys => "latest_keys",
            Limit::Instances => "instances",
        }
    }
}

impl EncodeLabelValue for Limit {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.name())
    }
}

/// A `[[source]]`, by its name.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SourceLabel {
    source: String,
}

/// A [duty](crate::duty), by its name.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DutyLabel {
    duty: String,
}

/// What of a request could not be kept although the rest was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DroppedPart {
    /// A number that JSON cannot express: it is replaced by null.
    Number,
    /// A time that cannot be read: the time of arrival is used.
    Timestamp,
    /// A field of another kind or size than it should have.
    Field,
    /// One of several points.
    Point,
    /// A sample that becomes no series; its event is stored nevertheless.
    Sample,
    /// An instance for which the registry has no room, or for which the caller may not speak.
    Instance,
}

impl DroppedPart {
    /// Its name in metrics and answers.
    pub fn name(self) -> &'static str {
        match self {
            DroppedPart::Number => "number",
            DroppedPart::Timestamp => "timestamp",
            DroppedPart::Field => "field",
            DroppedPart::Point => "point",
            DroppedPart::Sample => "sample",
            DroppedPart::Instance => "instance",
        }
    }
}

/// A code of the protocol, as answered.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CodeLabel {
    code: &'static str,
}

/// A [part of a request](DroppedPart).
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PartLabel {
    part: &'static str,
}

/// The state of an instance.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StateLabel {
    state: &'static str,
}

/// Why something is missing.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabel {
    reason: &'static str,
}

impl Telemetry {
    /// All metrics at zero.
    #[expect(clippy::new_without_default, reason = "a second set of metrics is never a default")]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("pulsehub");
        macro_rules! metric {
            ($name:literal, $help:literal) => {
                metric!($name, $help, Default::default())
            };
            ($name:literal, $help:literal, $make:expr) => {{
                let metric = $make;
                registry.register($name, $help, Clone::clone(&metric));
                metric
            }};
        }
        let commit_seconds = Histogram::new([
            0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
        ]);
        registry.register_with_unit(
            "commit",
            "Time from taking a group of batches off the queue to its commit",
            Unit::Seconds,
            commit_seconds.clone(),
        );
        let mut metrics = Metrics {
            limit_hits: metric!("limit_hits", "Times a limit was hit, by the limit's name"),
            refusals: metric!(
                "refusals",
                "Requests and messages that were refused, by the code of the answer"
            ),
            dropped: metric!(
                "dropped",
                "Parts of accepted requests that could not be kept, by part: number, timestamp, field, point, sample, instance"
            ),
            instances: metric!("instances", "Instances in the registry, by state"),
            events_stored: metric!("events_stored", "Events stored in the log"),
            events_duplicate: metric!(
                "events_duplicate",
                "Events that were sent again and are stored once"
            ),
            publish_failures: metric!("publish_failures", "Batches that could not be stored"),
            commit_seconds,
            deliveries: metric!("deliveries", "Events sent to subscribers"),
            frames: metric!("frames", "Frames written to subscribers"),
            gaps: metric!("gaps", "Gaps that subscribers were told of, by reason"),
            connections: metric!(
                "connections",
                "Connections that receive events: WebSockets and streams of server-sent events"
            ),
            subscriptions: metric!("subscriptions", "Subscriptions of these connections"),
            views: metric!("views", "Different subscriptions: equal ones share a view"),
            view_bytes: metric!(
                "view_bytes",
                "Bytes of the frames and newest values that all views keep in memory"
            ),
            closes: metric!("closes", "Sockets that the hub closed, by close code"),
            revocation_failures: metric!(
                "revocation_failures",
                "Questions about credentials in use that the store did not answer; while it grows, a revocation may take effect late"
            ),
            slowest_lag: metric!(
                "slowest_lag",
                "Offsets between the slowest subscriber and the end of the log"
            ),
            source_failures: metric!(
                "source_failures",
                "Times a [[source]] did not answer as it should, by source"
            ),
            duty_failures: metric!(
                "duty_failures",
                "Times a duty could not be done and will be tried again, by duty; the log says why"
            ),
            source_left_out: metric!(
                "source_left_out",
                "Things that a [[source]] sent and that could not be published, by source"
            ),
            cpu_seconds: metric!("cpu_seconds", "CPU time used by the process, in seconds"),
            memory_bytes: metric!("memory_bytes", "Resident memory of the process, in bytes"),
            series: metric!("series", "Series in memory and in the store"),
            series_samples: metric!("series_samples", "Samples put into series"),
            series_drops: metric!("series_drops", "Samples left out of series, by reason"),
            series_retimed: metric!(
                "series_retimed",
                "Samples whose own time could not be true, so that the time of arrival counts"
            ),
            series_gaps: metric!(
                "series_gaps",
                "Times that events were missing in the log before they were in their series"
            ),
            clock_jumps: metric!("clock_jumps", "Jumps of the system's clock since the start"),
            clock_unsettled: metric!(
                "clock_unsettled",
                "1 while the clock is in doubt and nothing is removed by its age"
            ),
            disk_full: metric!("disk_full", "1 while the disk is full and publishes are refused"),
            journal_bytes: metric!("journal_bytes", "Bytes of stored history"),
            journal_wal_bytes: metric!("journal_wal_bytes", "Bytes of the write-ahead log"),
            registry: Registry::default(),
        };
        metrics.registry = registry;
        Self(Arc::new(metrics))
    }

    /// Whether the clock is in doubt, and how often it has jumped.
    pub fn clock(&self, jumps: u64, is_settled: bool) {
        self.clock_jumps.inc_by(jumps.saturating_sub(self.clock_jumps.get()));
        self.clock_unsettled.set(i64::from(!is_settled));
    }

    /// Counts one hit of `limit`.
    pub fn hit(&self, limit: Limit) {
        self.limit_hits.get_or_create(&LimitLabel { limit }).inc();
    }

    /// Counts one refusal answered with `code`.
    pub fn refused(&self, code: &'static str) {
        self.refusals.get_or_create(&CodeLabel { code }).inc();
    }

    /// Counts parts of a request that could not be kept.
    pub fn dropped(&self, what: DroppedPart, count: usize) {
        self.dropped.get_or_create(&PartLabel { part: what.name() }).inc_by(count as u64);
    }

    /// How many instances are in `state`.
    pub fn instances(&self, state: &'static str) -> Gauge {
        self.instances.get_or_create_owned(&StateLabel { state })
    }

    /// Counts one gap said for `reason`.
    pub fn gap(&self, reason: &'static str) {
        self.gaps.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts one sample left out of its series for `reason`.
    pub fn series_dropped(&self, reason: &'static str) {
        self.series_drops.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts one time that `source` did not answer as it should.
    pub fn source_failed(&self, source: &str) {
        let label = SourceLabel { source: source.to_owned() };
        self.source_failures.get_or_create(&label).inc();
    }

    /// Counts one time that `duty` could not be done.
    pub fn duty_failed(&self, duty: &str) {
        self.duty_failures.get_or_create(&DutyLabel { duty: duty.to_owned() }).inc();
    }

    /// Counts things that `source` sent and that could not be published.
    pub fn source_left_out(&self, source: &str, count: u64) {
        let label = SourceLabel { source: source.to_owned() };
        self.source_left_out.get_or_create(&label).inc_by(count);
    }

    /// Counts one socket closed with `code`.
    pub fn closed(&self, code: &'static str) {
        self.closes.get_or_create(&CodeLabel { code }).inc();
    }

    /// All metrics in the OpenMetrics text format 1.0.
    pub fn openmetrics(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// All metrics in the text format 0.0.4 of Prometheus.
    pub fn prometheus_text(&self) -> Result<String, std::fmt::Error> {
        Ok(text::from_openmetrics(&self.openmetrics()?))
    }
}
