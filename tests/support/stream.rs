//! A stream of server-sent events.

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{DEADLINE, hub::TestHub};

/// A stream of server-sent events, block by block.
pub(crate) struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    pub(crate) async fn open(hub: &TestHub, query: &str, token: &str, last: Option<&str>) -> Self {
        let url = hub.url(&format!("/sse/real-time?{query}"));
        let mut request = hub.http().get(url).bearer_auth(token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        Self::of(request).await
    }

    /// With whatever credentials are in the query.
    pub(crate) async fn without_headers(hub: &TestHub, query: &str) -> Self {
        Self::of(hub.http().get(hub.url(&format!("/sse/real-time?{query}")))).await
    }

    async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self { response, text: String::new() }
    }

    pub(crate) fn headers(&self) -> &reqwest::header::HeaderMap {
        self.response.headers()
    }

    /// What came and is no whole block yet.
    pub(crate) fn unread(&self) -> &str {
        &self.text
    }

    /// The next block's lines, or a comment's; None at the end of the stream.
    pub(crate) async fn block(&mut self) -> Option<Vec<String>> {
        loop {
            let end = match self.text.strip_prefix(":\n") {
                Some(_) => Some(2),
                None => self.text.find("\n\n").map(|end| end + 2),
            };
            if let Some(end) = end {
                let rest = self.text.split_off(end);
                let block = std::mem::replace(&mut self.text, rest);
                return Some(block.trim_end().lines().map(str::to_owned).collect());
            }
            let chunk = timeout(DEADLINE, self.response.chunk()).await.expect("nothing came");
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()?).unwrap());
        }
    }

    /// The next block but those that say where the stream is, as id, event name and data.
    pub(crate) async fn event(&mut self) -> (String, Option<String>, Value) {
        loop {
            let (id, kind, data) = self.any().await;
            if kind.as_deref() != Some("hub.position") {
                return (id.unwrap(), kind, data);
            }
        }
    }

    /// The next block, as id, event name and data, which none may lack.
    pub(crate) async fn any(&mut self) -> (Option<String>, Option<String>, Value) {
        loop {
            let block = self.block().await.expect("the stream ended");
            if block == [":"] {
                continue;
            }
            let field = |name: &str| {
                block.iter().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
            };
            // Some clients take an id over as soon as they have read it.
            let is_last = block.iter().position(|line| line.starts_with("id: "));
            assert!(
                is_last.is_none_or(|at| at + 1 == block.len()),
                "the id comes first: {block:?}"
            );
            let data = field("data: ").unwrap_or_else(|| panic!("no data: {block:?}"));
            return (field("id: "), field("event: "), serde_json::from_str(&data).unwrap());
        }
    }

    /// The position that comes first.
    pub(crate) async fn begins(&mut self) -> String {
        let (id, kind, data) = self.any().await;
        assert_eq!((kind.as_deref(), data), (Some("hub.position"), json!({})));
        id.unwrap()
    }
}
