//! The page that proves it works: one plain file behind the sign-in link.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::header;
use sha2::{Digest as _, Sha256};

const PAGE: &str = include_str!("page.html");

/// Only what stands in the page itself may run (Content Security Policy Level 3, hash sources).
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let between = |from: &str, to: &str| {
        let inside = PAGE.split_once(from).and_then(|(_, rest)| rest.split_once(to));
        let inside = inside.map_or("", |(inside, _)| inside);
        format!("'sha256-{}'", STANDARD.encode(Sha256::digest(inside)))
    };
    let script = between("<script>", "</script>");
    let style = between("<style>", "</style>");
    format!(
        "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// Serves the page.
pub(super) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE).into_response()
}
