//! A whole hub on a free port, and the clients that talk to it over real sockets.

use std::{
    ffi::OsString,
    fs::Permissions,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use futures_util::{SinkExt as _, StreamExt as _};
use pulsehub::{
    app::App,
    auth::{ApiKey, ApiKeys, MintClaims, NewApiKey, mint},
    config::Config,
    grants::Grants,
    store::Store,
    time::{Clock, Span},
    topic::TopicPattern,
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{self, Message, client::IntoClientRequest as _},
};

use super::{DEADLINE, eventually};

/// What the hubs of tests sign with.
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A hub in this process, in a folder of its own.
pub(crate) struct TestHub {
    app: Option<App>,
    config: Config,
    clock: Clock,
    /// Kept beside the hub's own, so that nobody else gets the port while the hub is down.
    listener: TcpListener,
    address: SocketAddr,
    http: reqwest::Client,
    folder: TempDir,
}

impl TestHub {
    /// A hub with the default settings.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A hub with some settings changed: pairs of key and value, as flags give them.
    pub(crate) async fn with(flags: &[(&str, &str)]) -> Self {
        Self::with_clock(flags, Clock::system()).await
    }

    /// A hub that goes by `clock`.
    pub(crate) async fn with_clock(flags: &[(&str, &str)], clock: Clock) -> Self {
        Self::build(None, None, flags, clock).await
    }

    /// A hub with a file of settings, for what no flag can say.
    pub(crate) async fn with_file(text: &str) -> Self {
        Self::build(None, Some(text), &[], Clock::system()).await
    }

    /// A hub with a file of settings that goes by `clock`.
    pub(crate) async fn with_file_and_clock(text: &str, clock: Clock) -> Self {
        Self::build(None, Some(text), &[], clock).await
    }

    /// A hub with a file of settings on a copy of the folder `data`, with the secret that is kept there.
    pub(crate) async fn on(data: &Path, text: &str, clock: Clock) -> Self {
        Self::build(Some(data), Some(text), &[("secret", "")], clock).await
    }

    async fn build(
        data: Option<&Path>,
        file: Option<&str>,
        flags: &[(&str, &str)],
        clock: Clock,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let file = file.map(|text| {
            let path = folder.path().join("pulsehub.toml");
            std::fs::write(&path, text).unwrap();
            path
        });
        let mut all = vec![
            ("data", folder.path().join("data").display().to_string()),
            ("journal.sync", "normal".to_owned()),
        ];
        all.extend(flags.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let variables: [(OsString, OsString); 1] = [("PULSEHUB_SECRET".into(), SECRET.into())];
        let config = Config::load(file.as_deref(), variables, &all).unwrap();
        std::fs::create_dir_all(&config.data).unwrap();
        if let Some(data) = data {
            copy_files(data, &config.data);
        }
        let http = reqwest::Client::builder().timeout(DEADLINE).no_proxy().build().unwrap();
        let mut hub = Self { app: None, config, clock, listener, address, http, folder };
        hub.start_again().await;
        hub
    }

    /// Ends the hub in good order; its folder and port stay.
    pub(crate) async fn stop(&mut self) {
        let app = self.app.take().unwrap();
        timeout(DEADLINE, app.stop()).await.expect("the hub does not stop");
    }

    /// Starts the hub that was stopped, on the same folder and port.
    pub(crate) async fn start_again(&mut self) {
        let listener = self.listener.try_clone().unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let app = App::start(self.config.clone(), listener, self.clock.clone()).await.unwrap();
        self.app = Some(app);
    }

    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder of the log and the store.
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// A token of `name` for `patterns`, both to publish and to subscribe, good for an hour.
    pub(crate) fn token(&self, name: &str, patterns: &[&str]) -> String {
        self.token_for(name, patterns, None, 3600)
    }

    pub(crate) fn token_for(
        &self,
        name: &str,
        patterns: &[&str],
        role: Option<&str>,
        seconds: u64,
    ) -> String {
        let patterns: Vec<_> =
            patterns.iter().map(|text| TopicPattern::parse(text).unwrap()).collect();
        let claims = MintClaims {
            sub: name.to_owned(),
            subscribe: patterns.clone(),
            publish: patterns,
            role: role.map(str::to_owned),
            ttl: Span::seconds(seconds),
        };
        let now = self.clock.now();
        let token = mint(&self.config.auth, &self.config.secret, &claims, now).unwrap();
        token.expose_secret().to_owned()
    }

    /// An API key that may subscribe to `patterns`, made as the command line does; its id and the key.
    pub(crate) async fn make_key(&self, name: &str, patterns: &[&str]) -> (String, String) {
        let subscribe = patterns.iter().map(|text| TopicPattern::parse(text).unwrap()).collect();
        let grants = Grants { subscribe, publish: Vec::new() };
        let new = NewApiKey { name: name.into(), grants, role: None, expires: None };
        let (key, stored) = ApiKey::make(new, self.clock.now()).unwrap();
        let id = stored.id.clone();
        let store = Store::open(&self.data(), self.clock.clone()).unwrap();
        ApiKeys::new(&store).put(stored).await.unwrap();
        (id, key.expose_secret().to_owned())
    }

    /// Takes an API key back, as the command line does.
    pub(crate) async fn revoke_key(&self, id: &str) {
        let store = Store::open(&self.data(), self.clock.clone()).unwrap();
        assert!(ApiKeys::new(&store).revoke(id).await.unwrap());
    }

    /// Publishes over HTTP as somebody who may publish anything; gives the answer.
    pub(crate) async fn publish(&self, events: Value) -> Value {
        let token = self.token("publisher", &["**"]);
        let request = self.http.post(self.url("/api/v1/publish")).bearer_auth(token).json(&events);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        answer.json().await.unwrap()
    }

    /// Publishes `{"n":n}` for every n of the range to `topic`; gives the last one's position.
    pub(crate) async fn publish_numbers(
        &self,
        topic: &str,
        numbers: std::ops::Range<u64>,
    ) -> String {
        let events: Vec<_> = numbers.map(|n| json!({"topic": topic, "data": {"n": n}})).collect();
        self.publish(events.into()).await["position"].as_str().unwrap().to_owned()
    }

    /// Asserts that nothing of all that has been published still comes to `client`: what is published now on
    /// `topic`, for which it has a grant and no subscription, is the only thing it gets.
    pub(crate) async fn expect_silence(&self, client: &mut Client, topic: &str) {
        client.subscribe(json!({"sub": "sentinel", "topics": [topic]})).await;
        client.expect("live").await;
        self.publish_numbers(topic, 0..1).await;
        client.events("sentinel", 1).await;
        // A socket reads on only when it has written all there is, so what came beside it has been written by now.
        client.send(json!({"type": "unsubscribe", "id": "sentinel", "sub": "sentinel"})).await;
        client.expect("unsubscribed").await;
    }

    /// The value of one line of `/metrics`, named with its labels; 0 if there is none.
    pub(crate) async fn metric(&self, line: &str) -> f64 {
        let text = self.http.get(self.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a line of `/metrics` has the value.
    pub(crate) async fn metric_becomes(&self, line: &str, wanted: f64) {
        eventually(line, async || (self.metric(line).await == wanted).then_some(())).await;
    }

    /// Waits until a line of `/metrics` has grown to the value.
    pub(crate) async fn metric_becomes_at_least(&self, line: &str, least: f64) {
        eventually(line, async || (self.metric(line).await >= least).then_some(())).await;
    }

    /// A socket of `name` that speaks in messages and has said `connect`.
    pub(crate) async fn client(&self, name: &str, patterns: &[&str]) -> Client {
        let mut client = self.socket("/ws/real-time", &[PROTOCOL]).await;
        client.connect(&self.token(name, patterns)).await;
        client
    }

    /// An open socket that has said nothing.
    pub(crate) async fn socket(&self, path: &str, headers: &[(&'static str, &str)]) -> Client {
        Client::open(self.address, path, headers).await.unwrap()
    }
}

/// The header of who speaks in messages.
pub(crate) const PROTOCOL: (&str, &str) = ("sec-websocket-protocol", "hub.v1");

/// A WebSocket client. Pings of the protocol are shown like any other message.
pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The subprotocol the hub chose.
    pub(crate) protocol: Option<String>,
}

impl Client {
    /// An open socket that has said nothing, or why there is none.
    pub(crate) async fn open(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, tungstenite::Error> {
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let connecting = tokio_tungstenite::connect_async(request);
        let (socket, response) = timeout(DEADLINE, connecting).await.expect("no answer")?;
        let protocol = response.headers().get("sec-websocket-protocol");
        let protocol = protocol.map(|value| value.to_str().unwrap().to_owned());
        Ok(Self { socket, protocol })
    }

    pub(crate) async fn send(&mut self, message: Value) {
        self.send_raw(Message::text(message.to_string())).await;
    }

    pub(crate) async fn send_raw(&mut self, message: Message) {
        timeout(DEADLINE, self.socket.send(message)).await.unwrap().unwrap();
    }

    /// Sends to a hub that may be closing the socket meanwhile.
    pub(crate) async fn try_send(&mut self, message: Value) -> Result<(), ()> {
        let sending = self.socket.send(Message::text(message.to_string()));
        timeout(DEADLINE, sending).await.unwrap().map_err(drop)
    }

    /// Says `connect` with a token and gives the answer.
    pub(crate) async fn connect(&mut self, token: &str) -> Value {
        self.send(json!({"type": "connect", "id": 1, "token": token})).await;
        self.expect("connected").await
    }

    /// Sends a `subscribe` with these fields and gives the answer.
    pub(crate) async fn subscribe(&mut self, fields: Value) -> Value {
        let mut message = json!({"type": "subscribe", "id": "s"});
        message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.send(message).await;
        self.expect("subscribed").await
    }

    /// The next text frame.
    #[track_caller]
    pub(crate) fn next_json(&mut self) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        async move {
            loop {
                match self.next().await {
                    Some(Message::Text(text)) => return serde_json::from_str(&text).unwrap(),
                    Some(Message::Ping(_) | Message::Pong(_)) => {}
                    other => panic!("a message was expected at {caller}, not {other:?}"),
                }
            }
        }
    }

    /// The next message, which must be of this type. Pings before it are answered.
    #[track_caller]
    pub(crate) fn expect(&mut self, kind: &str) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        async move {
            loop {
                let message = self.next_json().await;
                if message["type"] == "ping" && kind != "ping" {
                    self.send(json!({"type": "pong"})).await;
                    continue;
                }
                assert_eq!(message["type"], kind, "at {caller}: {message}");
                return message;
            }
        }
    }

    /// The next message, which must be an error with this code.
    #[track_caller]
    pub(crate) fn expect_error(&mut self, code: &str) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        async move {
            let message = self.expect("error").await;
            assert_eq!(message["code"], code, "at {caller}: {message}");
            message
        }
    }

    /// The next `count` events of `sub`, which may come in any number of frames, and nothing else.
    pub(crate) async fn events(&mut self, sub: &str, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            let message = self.expect("events").await;
            assert_eq!(message["sub"], sub, "{message}");
            let all = message["events"].as_array().unwrap();
            assert!(!all.is_empty(), "{message}");
            let last = all[all.len() - 1]["offset"].as_u64().unwrap();
            assert!(offset(&message["position"]) >= last, "{message}");
            events.extend(all.iter().cloned());
        }
        assert_eq!(events.len(), count, "{events:?}");
        events
    }

    /// Waits for the hub to close the socket; other messages are passed over.
    pub(crate) async fn expect_close(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Some(Message::Close(Some(frame))) => {
                    return (frame.code.into(), frame.reason.to_string());
                }
                Some(Message::Close(None)) | None => panic!("closed without a code"),
                Some(_) => {}
            }
        }
    }

    /// Asserts that the connection stands, and that nothing was on its way before the answer to a message sent
    /// now. It says nothing of events that come later: [`TestHub::expect_silence`] does.
    pub(crate) async fn still_answers(&mut self) {
        self.send(json!({"type": "unsubscribe", "id": "asked", "sub": "no such"})).await;
        let answer = self.expect_error("unknown_sub").await;
        assert_eq!(answer["id"], "asked");
    }

    /// The next frame of any kind; None once the other side is gone.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        let next = timeout(DEADLINE, self.socket.next()).await;
        next.expect("nothing came").and_then(Result::ok)
    }
}

/// Copies what is in a folder; others may not read it, which a hub insists on for its secret.
fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        std::fs::copy(path, &copy).unwrap();
        std::fs::set_permissions(&copy, Permissions::from_mode(0o600)).unwrap();
    }
}

/// What `events` carry in `data.n`.
pub(crate) fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect()
}

/// The offset in a position.
#[track_caller]
pub(crate) fn offset(position: &Value) -> u64 {
    position.as_str().unwrap().split_once(':').unwrap().1.parse().unwrap()
}
