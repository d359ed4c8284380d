//! Every method of every path.

use super::operation::{
    Operation, Parameter, empty, header, json_of, other, path, query, required,
};

const APP: Parameter =
    path("app", "The application: one token of a topic, but not v1, v2, dashboard, stats or hub.");
const INSTANCE: Parameter = path("id", "The instance.");
const TOPICS: Parameter =
    required("topics", "string", "Patterns, separated by commas or repeated.");
const LAST: Parameter =
    query("last", "integer", "Begin with this many of the last matching events.");
const SINCE: Parameter =
    query("since", "string", "Begin with what was received since: `5m`, or a time in RFC 3339.");
const LATEST: Parameter =
    query("latest", "boolean", "Begin with the newest event of each topic and key.");
const AFTER: Parameter = query(
    "after",
    "string",
    "Continue after this position. `last`, `since` and `latest` are then ignored.",
);
const RESUME: Parameter = query("resume", "string", "The same as `after`.");
const MODE: Parameter = query(
    "mode",
    "string",
    "`all`, or `latest`: the newest event of each topic and key, at a bounded rate.",
);
const MAX_HZ: Parameter =
    query("max_hz", "number", "In mode `latest`, at most this many frames a second: 0.01 to 60.");
const FORMAT: Parameter = query("format", "string", "`event`, or `data`: the payload alone.");
const EVENTS: Parameter = query(
    "events",
    "string",
    "`plain` (the default): every event is a `message`. `typed`: its type is what an EventSource listens for.",
);
const TICKET: Parameter = query("ticket", "string", "A ticket in the place of other credentials.");
const TOKEN: Parameter = query(
    "token",
    "string",
    "A token in the place of other credentials, where `auth.query_token` allows it.",
);
const TOPIC: Parameter = query("topic", "string", "The same as `topics`.");

/// What any request with credentials can be answered.
macro_rules! refusals {
    ($($code:literal),* $(,)?) => {
        &["bad_request", "credentials_differ", "unauthorized", "token_expired", "cross_origin", "foreign_host", "internal", "unavailable", $($code),*]
    };
}

/// What a request with a body can be answered beside that.
macro_rules! body_refusals {
    ($($code:literal),* $(,)?) => {
        refusals![
            "invalid_json", "bad_body", "body_timeout", "body_too_large", "unsupported_content_type", "unsupported_encoding",
            "too_many_bytes", "overloaded", $($code),*
        ]
    };
}

/// All there are.
pub const OPERATIONS: &[Operation] = &[
    Operation::new("post", "/api/v1/publish", "Publishing", "Publish events")
        .about(
            "Takes one event, an array, or NDJSON, also in gzip, zstd or snappy. The answer comes after the events are stored. The \
             batch is atomic: one bad event refuses it all. Needs a grant to publish to each topic. An event that is sent \
             again with the same `id` is stored once.",
        )
        .takes(&[query("ack", "string", "`stored` (the default), or `accepted`: answer before the commit, without offsets.")])
        .reads(&[("application/json", "NewEvent or a list"), ("application/x-ndjson", "string")])
        .answers(&[
            json_of(200, "Stored", "All events are stored."),
            json_of(202, "Taken", "With `ack=accepted`: the events will be stored."),
        ])
        .refuses(body_refusals![
            "forbidden", "reserved_topic", "batch_too_large", "event_too_large", "empty_batch", "invalid_event",
            "too_many_topics", "outcome_unknown", "shutting_down",
        ]),
    Operation::new("post", "/api/v1/write", "Publishing", "Remote write 1.0, as Prometheus sends it")
        .about(
            "Takes a `prometheus.WriteRequest` in snappy. Its samples become events of type `samples` on the topic that \
             `ingest.remote_write.topic` makes. What cannot be taken is named in a 400, and the rest is stored. What may be \
             sent again is answered with 503, where other paths have 408 or 429. Also at `/prometheus/api/v1/write`. \
             docs/guides/prometheus.md",
        )
        .reads(&[("application/x-protobuf", "string")])
        .answers(&[empty(204, "All samples are stored.")])
        .refuses(body_refusals!["samples_refused", "too_many_topics", "outcome_unknown", "shutting_down"]),
    Operation::new("post", "/prometheus/api/v1/write", "Publishing", "Remote write 1.0, at Prometheus' own path")
        .about("The same as `/api/v1/write`.")
        .reads(&[("application/x-protobuf", "string")])
        .answers(&[empty(204, "All samples are stored.")])
        .refuses(body_refusals!["samples_refused", "too_many_topics", "outcome_unknown", "shutting_down"]),
    Operation::new("post", "/api/{app}/metrics", "Publishing", "Publish metrics as LocaNext sends them")
        .about("The body becomes one event on `{app}.metrics`, and each number in it a series. docs/guides/locanext.md")
        .takes(&[APP])
        .reads(&[("application/json", "AppMetrics")])
        .answers(&[json_of(200, "AppStored", "The event is stored.")])
        .refuses(body_refusals!["forbidden", "event_too_large", "invalid_event", "too_many_topics", "outcome_unknown"]),
    Operation::new("post", "/api/{app}/events", "Publishing", "Publish an event as LocaNext sends it")
        .about("The body becomes one event on `{app}.events.{event_type}`. docs/guides/locanext.md")
        .takes(&[APP])
        .reads(&[("application/json", "AppEvent")])
        .answers(&[json_of(200, "AppStored", "The event is stored.")])
        .refuses(body_refusals!["forbidden", "event_too_large", "invalid_event", "too_many_topics", "outcome_unknown"]),
    Operation::new("get", "/api/v1/history", "Reading", "Read stored events")
        .about(
            "The newest page, or the one before or after a position. Needs a grant to subscribe to each pattern. A page may be \
             empty although there is more: read on until `next` is `position`.",
        )
        .takes(&[
            TOPICS,
            query("after", "string", "Only events after this position or offset."),
            query("before", "string", "Only events before this position or offset."),
            query("since", "string", "Only what was received since: `5m`, or a time in RFC 3339."),
            query("limit", "integer", "At most this many events, up to `limits.replay`; 100 by default."),
        ])
        .answers(&[json_of(200, "HistoryPage", "A page of events, the oldest first.")])
        .refuses(refusals!["forbidden", "epoch_changed", "too_many_questions", "too_many_bytes", "overloaded"]),
    Operation::new("get", "/api/v1/topics", "Reading", "List topics")
        .about("The topics that the caller may subscribe to, by name.")
        .takes(&[
            query("prefix", "string", "Only topics that begin with this."),
            query("after", "string", "The `next` of the page before."),
            query("limit", "integer", "At most so many topics."),
        ])
        .answers(&[json_of(200, "TopicsPage", "A page of topics.")])
        .refuses(refusals!["too_many_questions", "too_many_bytes", "overloaded"]),
    Operation::new("get", "/api/v1/series", "Reading", "List series")
        .about("The series of topics that the caller may subscribe to. docs/series.md")
        .takes(&[
            query("prefix", "string", "Only series whose names begin with this."),
            query("topic", "string", "Only series of topics that match this pattern."),
            query("after", "string", "The `next` of the page before."),
            query("limit", "integer", "At most so many series."),
        ])
        .answers(&[json_of(200, "SeriesPage", "A page of series with their newest values.")])
        .refuses(refusals!["forbidden", "too_many_questions", "too_many_bytes", "overloaded"]),
    Operation::new("get", "/api/v1/series/query", "Reading", "Read numbers over time")
        .about("Columns for a chart: the values of all series of one name. A series that the caller may not read is left out. docs/series.md")
        .takes(&[
            required("name", "string", "The name of the series."),
            query("labels", "string", "Only series with all of these labels: `a=b,c=d`, or a JSON object."),
            query("from", "string", "RFC 3339, seconds since 1970, or how long ago (`5m`); an hour ago by default."),
            query("to", "string", "The same; now by default."),
            query("step", "string", "The length of each stretch, such as `30s`; otherwise what makes about 600."),
            query("agg", "string", "avg, min, max, last, sum, count, increase, rate or p95; otherwise avg, of a counter rate."),
        ])
        .answers(&[json_of(200, "SeriesColumns", "One row for each series.")])
        .refuses(refusals!["too_many_questions", "too_many_bytes", "overloaded"]),
    Operation::new("get", "/ws/real-time", "Receiving", "Open a WebSocket")
        .about(
            "With the subprotocol `hub.v1`: JSON messages, many subscriptions. Without a subprotocol and with `topics`: one \
             subscription, one event a frame. Refusals after the upgrade are close codes. docs/protocol.md and \
             docs/reference/asyncapi.yaml",
        )
        .takes(&[
            query("topics", "string", "Simple mode: patterns, separated by commas or repeated."),
            TOPIC, AFTER, RESUME, LAST, SINCE, LATEST, MODE, MAX_HZ, FORMAT, TICKET, TOKEN,
        ])
        .answers(&[empty(101, "The connection is a WebSocket now.")])
        .refuses(refusals!["upgrade_required", "too_many_connections", "overloaded", "shutting_down"]),
    Operation::new("get", "/sse/real-time", "Receiving", "Receive server-sent events")
        .about("One subscription for an EventSource, which resumes by itself. docs/guides/sse.md")
        .takes(&[
            TOPICS,
            TOPIC,
            AFTER,
            RESUME,
            LAST,
            SINCE,
            LATEST,
            MODE,
            MAX_HZ,
            FORMAT,
            EVENTS,
            TICKET,
            TOKEN,
            header("Last-Event-ID", "Continue after this position; used rather than `after`."),
            query("lastEventId", "string", "The same, as polyfills of EventSource send it."),
        ])
        .answers(&[other(200, "text/event-stream", "The stream.")])
        .refuses(refusals![
            "forbidden",
            "foreign_origin",
            "too_many_connections",
            "too_many_subscriptions",
            "overloaded",
            "shutting_down",
        ]),
    Operation::new("post", "/api/v1/tickets", "Credentials", "Get a ticket")
        .about(
            "For browsers, which cannot send a header with a WebSocket or an EventSource. Without a body: good once, within \
             30 seconds, for one socket or stream. With `topics`: opens streams of these topics as often as they break, \
             until the caller's credentials end. Needs a grant to subscribe to them.",
        )
        .reads(&[("application/json", "TicketRequest")])
        .answers(&[json_of(201, "Ticket", "The ticket: `?ticket=`.")])
        .refuses(body_refusals!["forbidden", "too_many_passes"]),
    Operation::new("delete", "/api/v1/tickets", "Credentials", "Take a ticket for streams back")
        .about("Its streams end. Taking it back again does no harm.")
        .reads(&[("application/json", "TicketReturned")])
        .answers(&[empty(204, "It is good no longer.")])
        .refuses(body_refusals![]),
    Operation::new("post", "/api/v1/session", "Credentials", "Sign a browser in")
        .about("Sets an HttpOnly cookie for the hub's own pages, by the code of a sign-in link, a token or an API key.")
        .open()
        .reads(&[("application/json", "SignIn")])
        .answers(&[json_of(200, "Session", "Signed in; the cookie is in `Set-Cookie`.")])
        .refuses(&[
            "bad_request", "invalid_json", "bad_body", "unauthorized", "token_expired", "cross_origin", "body_timeout",
            "body_too_large", "unsupported_content_type", "too_many_sign_ins", "too_many_passes", "too_many_bytes",
            "unavailable", "overloaded",
        ]),
    Operation::new("get", "/api/v1/session", "Credentials", "Ask whose credentials these are")
        .about("Works with every kind of credentials: whose they are, and what they may subscribe and publish to.")
        .answers(&[json_of(200, "Session", "Whose they are.")])
        .refuses(refusals![]),
    Operation::new("delete", "/api/v1/session", "Credentials", "Sign a browser out")
        .about("Ends the session of the cookie, and the sockets it has opened.")
        .open()
        .answers(&[empty(204, "The session has ended.")])
        .refuses(&["cross_origin", "credentials_differ", "unavailable"]),
    Operation::new("post", "/api/v1/register", "Instances", "Register an instance")
        .about("Needs a grant to publish to `{app}.instances`.")
        .reads(&[("application/json", "Registration")])
        .answers(&[
            json_of(201, "Registered", "It is new."),
            json_of(200, "Registered", "It was known, and is updated."),
        ])
        .refuses(body_refusals!["forbidden", "invalid_event", "too_many_instances", "outcome_unknown"]),
    Operation::new("post", "/api/v1/validate", "Instances", "Ask whether a licence is valid")
        .about("It always is; TimeTracker's instances ask.")
        .reads(&[("application/json", "Registration")])
        .answers(&[json_of(200, "LicenceAnswer", "It is valid.")])
        .refuses(body_refusals![]),
    Operation::new("post", "/api/v1/heartbeat", "Instances", "Say that an instance lives")
        .reads(&[("application/json", "Heartbeat")])
        .answers(&[json_of(200, "Heard", "It was heard.")])
        .refuses(body_refusals!["forbidden", "unknown_instance", "invalid_event", "too_many_instances", "outcome_unknown"]),
    Operation::new("post", "/api/v1/data", "Instances", "Send what an instance counted")
        .about("Each point becomes an event on `{app}.usage.{key}`. docs/guides/timetracker.md")
        .reads(&[("application/json", "UsageData")])
        .answers(&[json_of(200, "UsageStored", "The points are stored.")])
        .refuses(body_refusals!["forbidden", "invalid_event", "too_many_topics", "batch_too_large", "outcome_unknown"]),
    Operation::new("get", "/api/v1/status", "Instances", "Ask whether the next request would be taken")
        .answers(&[json_of(200, "StatusAnswer", "It would.")])
        .refuses(refusals!["shutting_down"]),
    Operation::new("get", "/api/v1/instances", "Instances", "List instances")
        .about("Those of applications whose `hub.instances.{app}` the caller may subscribe to.")
        .takes(&[
            query("app", "string", "Only of this application."),
            query("state", "string", "Only in these states, separated by commas: pending, up, late, down."),
            query("q", "string", "Only those whose name, version or host contains this."),
            query("sort", "string", "app, state, version, host, first_seen or last_seen; `-` before it reverses."),
            query("after", "string", "The `next` of the page before."),
            query("limit", "integer", "At most so many instances."),
        ])
        .answers(&[json_of(200, "InstancesPage", "A page of instances.")])
        .refuses(refusals!["forbidden", "too_many_questions", "too_many_bytes", "overloaded"]),
    Operation::new("delete", "/api/v1/instances/{app}/{id}", "Instances", "Forget an instance")
        .about("Admins only. Its key is good no longer.")
        .takes(&[APP, INSTANCE])
        .answers(&[empty(204, "It is forgotten.")])
        .refuses(refusals!["forbidden", "unknown_instance", "outcome_unknown"]),
    Operation::new("post", "/api/v1/instances/{app}/{id}/key", "Instances", "Make an API key for one instance")
        .about("Admins only. The key the instance had is good no longer, and other credentials cannot speak for it any more.")
        .takes(&[APP, INSTANCE])
        .answers(&[json_of(201, "InstanceKey", "The key, shown this once.")])
        .refuses(refusals!["forbidden", "unknown_instance", "superseded", "outcome_unknown"]),
    Operation::new("get", "/api/v1/connections", "Operation", "List connections")
        .about("Admins only: who receives events, from which node, and how far behind.")
        .takes(&[
            query("after", "string", "The `next` of the page before."),
            query("limit", "integer", "At most so many connections, up to 1,000."),
        ])
        .answers(&[json_of(200, "ConnectionsPage", "A page of connections.")])
        .refuses(refusals!["forbidden", "too_many_questions", "too_many_bytes", "overloaded"]),
    Operation::new("get", "/api/v1/nodes", "Operation", "List nodes")
        .about("Admins only.")
        .answers(&[json_of(200, "Nodes", "How each node stands.")])
        .refuses(refusals!["forbidden"]),
    Operation::new("post", "/api/v1/drain", "Operation", "Send a node's clients elsewhere")
        .about("Admins only. The node turns not ready and tells its clients one by one to come back.")
        .reads(&[("application/json", "DrainOrder")])
        .answers(&[json_of(200, "Nodes", "The nodes that were asked.")])
        .refuses(body_refusals!["forbidden", "not_found"]),
    Operation::new("delete", "/api/v1/drain", "Operation", "Let a node take clients again")
        .about("Admins only.")
        .takes(&[required("node", "string", "The node's name, or `all`.")])
        .answers(&[json_of(200, "Nodes", "The nodes that were asked.")])
        .refuses(refusals!["forbidden", "not_found"]),
    Operation::new("get", "/metrics", "Operation", "Read metrics")
        .about("Open on a loopback address and with `http.public_metrics`; otherwise for admins and with a grant to subscribe to `hub.metrics`.")
        .answers(&[other(200, "application/openmetrics-text", "OpenMetrics; docs/reference/metrics.md")])
        .refuses(refusals!["forbidden"]),
    Operation::new("get", "/healthz", "Operation", "Ask whether the process answers")
        .open()
        .answers(&[other(200, "text/plain", "It does.")]),
    Operation::new("get", "/readyz", "Operation", "Ask whether new connections are welcome")
        .open()
        .answers(&[
            json_of(200, "Readiness", "They are."),
            json_of(503, "Readiness", "The hub starts, drains or stops."),
        ]),
    Operation::new("get", "/readyz/publishing", "Operation", "Ask whether publishing works")
        .open()
        .answers(&[
            json_of(200, "Readiness", "It does."),
            json_of(503, "Readiness", "Events cannot be stored now."),
        ]),
    Operation::new("get", "/api/v1/openapi.json", "Operation", "Read this description")
        .about("With credentials, the projections that the caller may read are in it as well.")
        .open()
        .answers(&[json_of(200, "any", "OpenAPI 3.1.")]),
    Operation::new("get", "/api/v1/docs", "Operation", "See this description")
        .open()
        .answers(&[other(200, "text/html", "A page without scripts.")]),
];
