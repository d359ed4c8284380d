//! A hub whose clock stands still, and everything that is said to it and comes back.

use pulsehub::time::Clock;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::{
    names::Names,
    record::Record,
    request::{Answer, Request, User, parts},
};
use crate::support::{eventually, hub::TestHub, redis::RedisServer};

/// When the clock stands: 2027-01-15T08:00:00Z.
pub(super) const NOW: u64 = 1_800_000_000_000;

/// Where a hub keeps what it keeps.
#[derive(Clone, Copy)]
pub(super) enum On {
    Folder,
    Redis,
}

/// One script under way.
pub(super) struct Scene {
    pub(super) hub: TestHub,
    pub(super) clock: Clock,
    /// For as long as the hub needs it.
    redis: Option<RedisServer>,
    pub(super) record: Record,
    pub(super) names: Names,
}

/// Headers that every answer has.
const USUAL: [(&str, &str); 6] = [
    (
        "access-control-expose-headers",
        "retry-after,www-authenticate,allow,accept-encoding,date,x-request-id",
    ),
    ("cache-control", "no-store"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("vary", "origin"),
    ("x-content-type-options", "nosniff"),
];

/// Headers of the connection, not of the answer.
const OF_TRANSPORT: [&str; 4] = ["connection", "content-length", "date", "transfer-encoding"];

/// Bodies are shown up to here.
pub(super) const SHOWN: usize = 4000;

impl Scene {
    /// A hub with these settings beside the defaults.
    pub(super) async fn start(name: &'static str, settings: &str) -> Self {
        Self::start_on(On::Folder, name, settings).await
    }

    /// The same with the log and the store in one or the other place: what comes back is the same.
    pub(super) async fn start_on(on: On, name: &'static str, settings: &str) -> Self {
        let clock = Clock::manual(NOW);
        let On::Redis = on else { return Self::with_clock(name, settings, clock).await };
        let redis = RedisServer::with(&[]).await;
        let settings = format!("redis = \"{}\"\n{}", redis.url(), quiet(settings));
        let mut scene = Self::with_clock(name, &settings, clock).await;
        assert!(redis.ask::<bool>(&["EXISTS", "{pulsehub}:meta"]).await, "the log is elsewhere");
        scene.record.only_compare();
        scene.redis = Some(redis);
        scene
    }

    /// A hub by the system's clock, which other programs go by; no times are shown.
    pub(super) async fn start_now(name: &'static str, settings: &str) -> Self {
        let mut scene = Self::with_clock(name, settings, Clock::system()).await;
        scene.names.hide_times();
        scene
    }

    async fn with_clock(name: &'static str, settings: &str, clock: Clock) -> Self {
        let settings = quiet(settings);
        let hub = TestHub::with_file_and_clock(&settings, clock.clone()).await;
        let mut scene =
            Self { clock, record: Record::new(name), names: Names::default(), hub, redis: None };
        let address = scene.hub.address().to_string();
        scene.names.call(&address, "<hub>");
        scene
    }

    /// Goes on with a hub with other settings.
    pub(super) async fn change(&mut self, settings: &str) {
        let settings = quiet(settings);
        self.hub = TestHub::with_file_and_clock(&settings, self.clock.clone()).await;
        let address = self.hub.address().to_string();
        self.names.call(&address, "<hub>");
    }

    /// Compares all that was recorded with what was recorded before.
    pub(super) fn end(self) {
        self.record.finish();
    }

    /// A heading.
    pub(super) fn note(&mut self, text: &str) {
        self.record.space();
        self.record.add(0, &format!("# {text}"));
        self.record.space();
    }

    /// Something that the script itself has to tell.
    pub(super) fn tell(&mut self, text: &str) {
        self.tell_lines("", text);
    }

    /// The same, with this before each line.
    pub(super) fn tell_lines(&mut self, before: &str, text: &str) {
        for line in text.lines() {
            let line = self.names.show(&format!("{before}{line}"));
            self.record.add(0, &line);
        }
    }

    /// Ends a paragraph.
    pub(super) fn space(&mut self) {
        self.record.space();
    }

    /// Notes what a JSON text tells of epochs and offsets.
    pub(super) fn learn(&mut self, text: &str) {
        self.names.learn(&serde_json::from_str(text).unwrap_or_default());
    }

    /// Shows `text` as `name` from now on.
    pub(super) fn call(&mut self, text: &str, name: &str) {
        self.names.call(text, name);
    }

    /// Somebody who may publish and subscribe to `patterns`.
    pub(super) fn user(&mut self, name: &str, patterns: &[&str]) -> User {
        self.user_for(name, patterns, None, 30 * 86_400)
    }

    pub(super) fn admin(&mut self, name: &str) -> User {
        self.user_for(name, &["**", "hub.**"], Some("admin"), 30 * 86_400)
    }

    pub(super) fn user_for(
        &mut self,
        name: &str,
        patterns: &[&str],
        role: Option<&str>,
        seconds: u64,
    ) -> User {
        let token = self.hub.token_for(name, patterns, role, seconds);
        self.known_as(name, token)
    }

    /// Somebody with credentials of another kind.
    pub(super) fn known_as(&mut self, name: &str, token: String) -> User {
        self.names.call(&token, &format!("<token of {name}>"));
        User { shown: name.to_owned(), token }
    }

    /// Sends a request and records both sides.
    pub(super) async fn ask(&mut self, request: Request) -> Answer {
        self.show_request(&request);
        let answer = parts(self.send(&request).await).await;
        self.show_answer(answer)
    }

    /// Sends a request until the answer is so, and records that one.
    pub(super) async fn ask_until(
        &mut self,
        request: Request,
        is_so: impl Fn(u16, &Value) -> bool,
    ) -> Answer {
        let what = format!("{} {}", request.method, request.path);
        let found = eventually(&what, async || {
            let (status, headers, text) = parts(self.send(&request).await).await;
            let json = serde_json::from_str(&text).unwrap_or_default();
            is_so(status, &json).then_some((status, headers, text))
        })
        .await;
        self.show_request(&request);
        self.show_answer(found)
    }

    /// Sends a request of which nothing is recorded.
    pub(super) async fn quietly(&mut self, request: Request) -> Value {
        let answer = self.send(&request).await;
        assert!(answer.status().is_success(), "{:?}", answer.text().await);
        let json = serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default();
        self.names.learn(&json);
        json
    }

    /// The newest event of a topic, once its payload is so; nothing is recorded.
    pub(super) async fn newest(
        &self,
        user: &User,
        topic: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        let path = self.hub.url(&format!("/api/v1/history?topics={topic}&limit=1"));
        eventually(topic, async || {
            let page = self.hub.http().get(&path).bearer_auth(&user.token).send().await.unwrap();
            let page: Value = page.json().await.unwrap();
            page["events"].get(0).filter(|event| is_so(&event["data"])).cloned()
        })
        .await
    }

    pub(super) async fn send(&self, request: &Request) -> reqwest::Response {
        let method = request.method.parse().unwrap();
        let mut builder = self.hub.http().request(method, self.hub.url(&request.path));
        if let Some(user) = &request.user {
            builder = builder.bearer_auth(&user.token);
        }
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if request.is_endless {
            let never = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
            builder = builder.body(reqwest::Body::wrap_stream(never));
        } else if !request.body.is_empty() {
            builder = builder.body(request.body.clone());
        }
        builder.send().await.unwrap()
    }

    pub(super) fn show_request(&mut self, request: &Request) {
        let mut line = format!("{} {}", request.method, request.path);
        if let Some(user) = &request.user {
            line += &format!(" by {}", user.shown);
        }
        for (name, value) in &request.headers {
            if (*name, &**value) != ("content-type", "application/json") {
                line += &format!(" [{name}: {value}]");
            }
        }
        let line = self.names.show(&line);
        self.record.add(0, &line);
        let body = match std::str::from_utf8(&request.body) {
            Ok(text) if text.len() <= SHOWN => self.names.show(text),
            _ => format!("({} bytes)", request.body.len()),
        };
        self.record.add(4, &body);
    }

    fn show_answer(&mut self, (status, headers, text): (u16, HeaderMap, String)) -> Answer {
        self.record.add(0, &format!("← {status}"));
        self.show_headers(&headers);
        let json = serde_json::from_str(&text).unwrap_or_default();
        self.names.learn(&json);
        let kind = headers.get("content-type").map_or("", |kind| kind.to_str().unwrap());
        let shown = if kind.starts_with("text/html") {
            "(the page)".to_owned()
        } else if kind.starts_with("application/openmetrics-text") {
            assert!(text.ends_with("# EOF\n"));
            "(metrics)".to_owned() // metrics.txt has their names
        } else {
            self.names.show(&text)
        };
        self.record.add(4, &shown);
        self.record.space();
        Answer { json, headers }
    }

    pub(super) fn show_headers(&mut self, headers: &HeaderMap) {
        let mut lines: Vec<String> = Vec::new();
        let is_page =
            headers.get("content-type").is_some_and(|kind| kind == "text/html; charset=utf-8");
        for (name, value) in headers {
            let (name, value) = (name.as_str(), value.to_str().unwrap());
            if name == "content-security-policy" {
                lines.push(format!("{name}: (set)")); // it names the page's own scripts
            } else if is_page && name == "vary" {
                // It is compressed where the page was built.
            } else if !OF_TRANSPORT.contains(&name) && !USUAL.contains(&(name, value)) {
                // Its own name each time would say nothing.
                let value = if name == "x-request-id" {
                    self.request_id(value)
                } else {
                    self.names.show(value)
                };
                lines.extend((!value.is_empty()).then(|| format!("{name}: {value}")));
            }
        }
        let has = |(name, value): &(&str, &str)| headers.get_all(*name).iter().any(|v| v == value);
        let missing = USUAL.iter().filter(|usual| !has(usual));
        lines.extend(missing.map(|(name, _)| format!("{name} is missing")));
        if !headers.contains_key("x-request-id") {
            lines.push("x-request-id is missing".to_owned());
        }
        lines.sort();
        lines.iter().for_each(|line| self.record.add(2, line));
    }

    /// Nothing for one that the hub made.
    fn request_id(&self, value: &str) -> String {
        let is_made = value.len() == 36 && value.matches('-').count() == 4;
        if is_made { String::new() } else { value.to_owned() }
    }
}

/// Without the numbers of the machine, unless a script wants them.
fn quiet(settings: &str) -> String {
    let host = if settings.contains("[host]") { "" } else { "[host]\npublish = false\n" };
    format!("{host}{settings}")
}
