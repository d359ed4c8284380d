//! One stream of server-sent events, block by block.

use tokio::time::timeout;

use super::{request::Request, scene::Scene};
use crate::support::DEADLINE;

/// A stream of server-sent events.
pub(super) struct Stream {
    name: &'static str,
    response: reqwest::Response,
    text: String,
}

impl Scene {
    /// A stream that stands.
    pub(super) async fn stream(&mut self, name: &'static str, request: Request) -> Stream {
        self.show_request(&request);
        let response = self.send(&request).await;
        let headers = response.headers().clone();
        self.record.add(0, &format!("{name} ← {}", response.status().as_u16()));
        self.show_headers(&headers);
        Stream { name, response, text: String::new() }
    }

    /// Records the next block of a stream, or a comment; false at its end.
    pub(super) async fn hear_block(&mut self, stream: &mut Stream) -> bool {
        let end = loop {
            if stream.text.starts_with(":\n") {
                break 2; // a comment is a line of its own
            }
            if let Some(end) = stream.text.find("\n\n") {
                break end + 2;
            }
            let chunk = timeout(DEADLINE, stream.response.chunk()).await.expect("nothing came");
            match chunk.unwrap() {
                Some(chunk) => stream.text.push_str(std::str::from_utf8(&chunk).unwrap()),
                None => {
                    self.record.add(0, &format!("{} ← end", stream.name));
                    self.record.space();
                    return false;
                }
            }
        };
        let rest = stream.text.split_off(end);
        let block = std::mem::replace(&mut stream.text, rest);
        for line in block.trim_end().lines() {
            if let Some(id) = line.strip_prefix("id: ") {
                self.names.learn_epoch(id);
            }
            if let Some(data) = line.strip_prefix("data: ") {
                self.names.learn(&serde_json::from_str(data).unwrap_or_default());
            }
        }
        let shown = self.names.show(block.trim_end());
        self.record.add(0, &format!("{} ←", stream.name));
        self.record.add(4, &shown);
        true
    }
}
