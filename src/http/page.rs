//! The page: what `npm --prefix web run build` made of `web/`, out of the binary.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use rust_embed::Embed;
use sha2::{Digest as _, Sha256};

use super::Problem;

#[derive(Embed)]
#[folder = "web/dist"]
struct Built;

/// What a hub shows that was built where Node.js was not.
const MISSING: &str = include_str!("missing_page.html");

/// Content-coded files stand beside the plain ones, the smallest first.
const ENCODINGS: [(&str, &str); 2] = [("br", ".br"), ("gzip", ".gz")];

/// The page itself. It finds its screen by the address, so that every screen can be linked to.
pub(super) async fn index(headers: HeaderMap) -> Response {
    let page =
        Built::get("index.html").map(|file| String::from_utf8_lossy(&file.data).into_owned());
    let policy = policy(page.as_deref().unwrap_or(MISSING));
    let Ok(policy) = HeaderValue::try_from(policy) else {
        return Problem::unavailable("the page's policy cannot be written").into_response();
    };
    let mut response = match page {
        Some(_) => file("index.html", &headers).unwrap_or_else(|| MISSING.into_response()),
        None => MISSING.into_response(),
    };
    let about = response.headers_mut();
    about.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    about.insert(header::CONTENT_SECURITY_POLICY, policy);
    about.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// A file of the page. Those in `assets/` bear a hash of their content in their names.
pub(super) async fn asset(uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    let Some(mut response) = file(path, &headers) else {
        return Problem::not_found().into_response();
    };
    let cache = if path.starts_with("assets/") { IMMUTABLE } else { A_DAY };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

const IMMUTABLE: &str = "public, max-age=31536000, immutable";
const A_DAY: &str = "public, max-age=86400";

/// What no route knows: a browser that opens a screen by its address gets the page.
pub(super) async fn fallback(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let wants_page = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    let is_screen = !uri.path().starts_with("/api/") && !uri.path().contains('.');
    if method == Method::GET && wants_page && is_screen {
        return index(headers).await;
    }
    Problem::not_found().into_response()
}

/// A built file in the best encoding that the client accepts; None if no file has this name.
fn file(path: &str, headers: &HeaderMap) -> Option<Response> {
    let plain = Built::get(path)?;
    let coded =
        ENCODINGS.iter().filter(|(name, _)| accepts(headers, name)).find_map(|(name, ending)| {
            Built::get(&format!("{path}{ending}")).map(|file| (*name, file))
        });
    let mut response = match coded {
        Some((name, file)) => {
            ([(header::CONTENT_ENCODING, name)], bytes(file.data)).into_response()
        }
        None => (StatusCode::OK, bytes(plain.data)).into_response(),
    };
    let about = response.headers_mut();
    let kind = HeaderValue::try_from(plain.metadata.mimetype()).ok()?;
    about.insert(header::CONTENT_TYPE, kind);
    about.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    Some(response)
}

fn bytes(data: Cow<'static, [u8]>) -> axum::body::Body {
    match data {
        Cow::Borrowed(bytes) => bytes.into(),
        Cow::Owned(bytes) => bytes.into(),
    }
}

/// Whether `Accept-Encoding` names this encoding and does not refuse it (RFC 9110, 12.5.3).
fn accepts(headers: &HeaderMap, encoding: &str) -> bool {
    let lists =
        headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let is_this = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(encoding));
        let quality = parts.find_map(|part| part.strip_prefix("q="));
        is_this && quality.is_none_or(|quality| quality.parse().is_ok_and(|q: f32| q > 0.0))
    })
}

/// Only the hub's own files and what stands inline in `page` may run (Content Security Policy
/// Level 3, hash sources), and nothing becomes markup that is not Svelte's own (Trusted Types).
fn policy(page: &str) -> String {
    let inline: String = page
        .split("<script>")
        .skip(1)
        .filter_map(|rest| rest.split_once("</script>"))
        .map(|(script, _)| format!(" 'sha256-{}'", STANDARD.encode(Sha256::digest(script))))
        .collect();
    format!(
        "default-src 'none'; script-src 'self'{inline}; style-src 'self'; img-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types svelte-trusted-html"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_taken_only_by_who_accepts_it() {
        let with = |list: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(list));
            (accepts(&headers, "br"), accepts(&headers, "gzip"))
        };
        assert_eq!(with("gzip, deflate, br"), (true, true));
        assert_eq!(with("GZIP;q=0.5 , br;q=0"), (false, true));
        assert_eq!(with("identity"), (false, false));
        assert!(!accepts(&HeaderMap::new(), "br"));
    }

    #[test]
    fn the_policy_names_every_inline_script_and_no_other() {
        let page = "<script>one()</script><script type=\"module\" src=\"/a.js\"></script>";
        let hash = STANDARD.encode(Sha256::digest("one()"));
        let policy = policy(page);
        assert!(policy.contains(&format!("script-src 'self' 'sha256-{hash}';")), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    #[tokio::test]
    async fn a_screens_address_gives_the_page_and_a_wrong_one_does_not() {
        let ask = async |path: &'static str, accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            fallback(Method::GET, Uri::from_static(path), headers).await.status()
        };
        assert_eq!(ask("/activity", "text/html,*/*").await, StatusCode::OK);
        assert_eq!(ask("/activity", "application/json").await, StatusCode::NOT_FOUND);
        assert_eq!(ask("/api/v2/publish", "text/html").await, StatusCode::NOT_FOUND);
        assert_eq!(ask("/assets-old/app.js", "text/html").await, StatusCode::NOT_FOUND);
    }
}
