//! The content type of a body, and which callers may send which type.

use http::{HeaderMap, HeaderName, header};

use super::Problem;
use crate::auth::{CredentialId, Principal};

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    /// As JSON, which it says it is.
    Json,
    /// As JSON, though it says something else or nothing.
    TakenForJson,
    /// As one JSON value to a line.
    Lines,
}

/// The types that programs send by default: a browser's `fetch` sends the first one with a string, `curl -d` sends the
/// second one with everything.
const UNTHOUGHT: [&str; 2] = ["text/plain", "application/x-www-form-urlencoded"];

const LINES: [&str; 4] =
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"];

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

impl Media {
    /// How the body of somebody's request is read.
    ///
    /// Any page may have a browser send the types that are taken for JSON, and with them what the browser adds by itself: the
    /// session cookie, or the place in a network where everybody may publish. So they count only where the credentials came
    /// with the request, or no browser sent it. `application/json` is sent by pages that were allowed to (Fetch, "CORS-
    /// safelisted request-header").
    pub(super) fn of(headers: &HeaderMap, sender: &Principal) -> Result<Self, Problem> {
        let kind = content_type(headers);
        let media = match kind.as_deref() {
            Some("application/json") => return Ok(Self::Json),
            Some(kind) if LINES.contains(&kind) => Self::Lines,
            None | Some("") => Self::TakenForJson,
            Some(kind) if UNTHOUGHT.contains(&kind) => Self::TakenForJson,
            Some(kind) => return Err(Problem::content_type(&unsupported(kind))),
        };
        if is_meant(headers, sender) {
            return Ok(media);
        }
        let detail =
            "without a token or an API key a page may send `Content-Type: application/json` alone";
        Err(Problem::content_type(detail))
    }

    /// The same where there is one JSON value.
    pub(super) fn check_json(headers: &HeaderMap, sender: &Principal) -> Result<(), Problem> {
        match Self::of(headers, sender)? {
            Self::Json | Self::TakenForJson => Ok(()),
            Self::Lines => Err(Problem::content_type(
                "send one JSON object as `Content-Type: application/json`",
            )),
        }
    }
}

/// The media type without its parameters, in lower case.
pub(super) fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or_default();
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Whether the request cannot have been caused by a page of another site.
fn is_meant(headers: &HeaderMap, sender: &Principal) -> bool {
    match sender.credential {
        CredentialId::Token | CredentialId::ApiKey(_) => true,
        CredentialId::Anonymous => ![header::ORIGIN, SEC_FETCH_SITE]
            .iter()
            .any(|sent_by_browsers| headers.contains_key(sent_by_browsers)),
        CredentialId::Session(_) | CredentialId::StreamTicket(_) | CredentialId::Hub => false,
    }
}

fn unsupported(kind: &str) -> String {
    format!(
        "{kind:?} is not supported: send JSON as `Content-Type: application/json`, or one JSON object to a line as \
         `application/x-ndjson`"
    )
}
