//! What is asked over HTTP and by whom, and what came back.

use reqwest::header::HeaderMap;
use serde_json::Value;

/// A request over HTTP.
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) user: Option<User>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    pub(super) is_endless: bool,
}

/// Somebody with a token.
#[derive(Clone)]
pub(super) struct User {
    pub(super) shown: String,
    pub(super) token: String,
}

/// What came back.
pub(super) struct Answer {
    pub(super) json: Value,
    pub(super) headers: HeaderMap,
}

pub(super) fn get(path: impl Into<String>) -> Request {
    Request::new("GET", path)
}

pub(super) fn post(path: impl Into<String>) -> Request {
    Request::new("POST", path)
}

pub(super) fn delete(path: impl Into<String>) -> Request {
    Request::new("DELETE", path)
}

impl Request {
    pub(super) fn new(method: &'static str, path: impl Into<String>) -> Self {
        let (path, headers, body) = (path.into(), Vec::new(), Vec::new());
        Self { method, path, user: None, headers, body, is_endless: false }
    }

    /// With a body that never comes.
    pub(super) fn endless(mut self) -> Self {
        self.is_endless = true;
        self
    }

    pub(super) fn by(mut self, user: &User) -> Self {
        self.user = Some(user.clone());
        self
    }

    pub(super) fn with(mut self, header: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((header, value.into()));
        self
    }

    pub(super) fn json(self, body: &Value) -> Self {
        self.with("content-type", "application/json").body(body.to_string())
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// Status, headers and body.
pub(super) async fn parts(answer: reqwest::Response) -> (u16, HeaderMap, String) {
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    (status, headers, answer.text().await.unwrap())
}
