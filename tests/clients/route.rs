//! A hub, and the way its clients go: straight to it, or through a proxy.

use std::{net::SocketAddr, ops::Range};

use serde_json::json;

use crate::support::{
    DEADLINE,
    haproxy::Haproxy,
    nginx::Nginx,
    port::free_port,
    process::{Home, Process},
    signal,
};

/// The events of one test are numbered, on one topic.
const TOPIC: &str = "a.b";

pub(super) struct Route {
    /// As the clients' names end.
    pub(super) name: &'static str,
    /// Where the clients go.
    pub(super) url: String,
    /// To publish and to subscribe.
    pub(super) token: String,
    home: Home,
    hub: Option<Process>,
    address: SocketAddr,
    _proxy: Option<Proxy>,
}

enum Proxy {
    Nginx { _it: Nginx },
    Haproxy { _it: Haproxy },
}

impl Route {
    /// `page` is the port of a page that may use the hub.
    pub(super) async fn direct(page: u16) -> Self {
        Self::new("directly", page, async |hub| (format!("http://{hub}"), None)).await
    }

    pub(super) async fn nginx(page: u16) -> Self {
        let proxy = async |hub| {
            let it = Nginx::before(hub).await;
            (it.url(""), Some(Proxy::Nginx { _it: it }))
        };
        Self::new("through nginx", page, proxy).await
    }

    pub(super) async fn haproxy(page: u16) -> Self {
        let proxy = async |hub| {
            let it = Haproxy::before([hub, hub]);
            (it.url(""), Some(Proxy::Haproxy { _it: it }))
        };
        Self::new("through haproxy", page, proxy).await
    }

    async fn new(
        name: &'static str,
        page: u16,
        way: impl AsyncFnOnce(SocketAddr) -> (String, Option<Proxy>),
    ) -> Self {
        let home = Home::new(&format!(
            "[http]\ndrain = \"100ms\"\nallowed_origins = [\"http://127.0.0.1:{page}\"]\n\
             [socket]\nping = \"1s\"\n"
        ));
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let hub = home.start_at(address).await;
        let token = home.token("ada", "a.*");
        let (url, proxy) = way(address).await;
        Self { name, url, token, home, hub: Some(hub), address, _proxy: proxy }
    }

    /// Stores an event for each number.
    pub(super) async fn publish(&self, numbers: Range<u64>) {
        let events: Vec<_> = numbers.map(|n| json!({"topic": TOPIC, "data": {"n": n}})).collect();
        let http = reqwest::Client::builder().timeout(DEADLINE).no_proxy().build().unwrap();
        let url = format!("http://{}/api/v1/publish", self.address);
        let answer = http.post(url).bearer_auth(&self.token).json(&events).send().await.unwrap();
        answer.error_for_status().unwrap();
    }

    /// Ends the hub as `kill -9` does.
    pub(super) fn kill(&mut self) {
        self.hub.take().unwrap().kill();
    }

    /// Ends the hub in good order.
    pub(super) async fn stop(&mut self) {
        let mut hub = self.hub.take().unwrap();
        signal(hub.id(), "TERM");
        assert_eq!(hub.ends().await, Some(0));
    }

    /// Starts the hub again where it was.
    pub(super) async fn start(&mut self) {
        self.hub = Some(self.home.start_at(self.address).await);
    }

    /// Removes the log, but not who may come in.
    pub(super) fn lose_the_log(&self) {
        for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
            let file = self.home.data().join(name);
            if file.exists() {
                std::fs::remove_file(file).unwrap();
            }
        }
    }
}
