//! Lists that are given page by page.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned, ser};

/// Where the next page begins: the key of the last item of the page before. Given as `next`, taken as `after`, and
/// opaque in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageStart<K>(pub(super) K);

impl<K: Serialize> Serialize for PageStart<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let key = serde_json::to_vec(&self.0).map_err(ser::Error::custom)?;
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(key))
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for PageStart<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let key = URL_SAFE_NO_PAD.decode(text).ok();
        let key = key.and_then(|key| serde_json::from_slice(&key).ok());
        key.map(Self).ok_or_else(|| de::Error::custom("must be what `next` was on the page before"))
    }
}

/// Cuts `found` to a page of `limit`; if that left some out, tells where the next page begins.
pub(super) fn cut<T, K>(
    found: &mut Vec<T>,
    limit: usize,
    key: impl FnOnce(&T) -> K,
) -> Option<PageStart<K>> {
    let is_last = found.len() <= limit;
    found.truncate(limit);
    found.last().filter(|_| !is_last).map(|last| PageStart(key(last)))
}
