//! What a client accepts (RFC 9110, section 12.5.1).

use http::{HeaderMap, header};

/// How much the client wants a media type such as `text/plain`, from 0 to 1: 0 if it does not accept the type, 1 if it
/// does not say. An entry for the type itself overrides one for a range of types.
pub(super) fn quality(headers: &HeaderMap, wanted: &str) -> f32 {
    if !headers.contains_key(header::ACCEPT) {
        return 1.0;
    }
    let family = wanted.split('/').next().unwrap_or_default();
    let mut best = (0, 0.0);
    let lists = headers.get_all(header::ACCEPT).iter().filter_map(|list| list.to_str().ok());
    for entry in lists.flat_map(|list| list.split(',')) {
        let mut parts = entry.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default();
        let closeness = match range.split_once('/') {
            _ if range.eq_ignore_ascii_case(wanted) => 3,
            Some((kind, "*")) if kind.eq_ignore_ascii_case(family) => 2,
            Some(("*", "*")) => 1,
            _ => continue,
        };
        let told = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let quality = told.map_or(1.0, |told| told.parse().unwrap_or(0.0));
        if closeness > best.0 || (closeness == best.0 && quality > best.1) {
            best = (closeness, quality);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_said_of_a_type_counts_before_what_is_said_of_all() {
        let of = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            [quality(&headers, "text/plain"), quality(&headers, "application/openmetrics-text")]
        };
        assert_eq!(of("*/*"), [1.0, 1.0]);
        assert_eq!(of("text/plain"), [1.0, 0.0]);
        assert_eq!(of("text/plain;version=0.0.4;q=1,*/*;q=0.1"), [1.0, 0.1]);
        assert_eq!(of("*/*;q=0.8, text/*;q=0.2, TEXT/PLAIN; q=0"), [0.0, 0.8]);
        let prometheus = "application/openmetrics-text;version=1.0.0,\
                          application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5,*/*;q=0.1";
        assert_eq!(of(prometheus), [0.5, 1.0]);
        assert_eq!(of("image/png, nonsense"), [0.0, 0.0]);
        assert_eq!(quality(&HeaderMap::new(), "text/plain"), 1.0);
    }
}
