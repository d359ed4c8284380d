//! Credentials that are taken back while the store does not answer.

use pulsehub::auth::StoredKey;

use super::*;

const SSE: &str = "/sse/real-time?topics=t.*";
const KEYS: &str = "{pulsehub}:documents:keys";
const HIDDEN: &str = "{pulsehub}:hidden";

pub(super) async fn make_key(store: &Store, name: &str) -> (StoredKey, String) {
    let grants = Grants {
        subscribe: vec![TopicPattern::parse("t.*").unwrap()],
        publish: vec![TopicPattern::parse("t.*").unwrap()],
    };
    let new = NewApiKey { name: name.into(), grants, role: None, expires: None };
    let (key, stored) = ApiKey::make(new, Clock::system().now()).unwrap();
    ApiKeys::new(store).put(stored.clone()).await.unwrap();
    (stored, key.expose_secret().to_owned())
}

/// Takes a key back as a store does that tells nobody.
async fn revoke(redis: &RedisServer, hash: &str, key: &StoredKey) {
    let stored: String = redis.ask(&["HGET", hash, &key.id]).await;
    let revoked = stored.replace("\"revoked\":false", "\"revoked\":true");
    assert_ne!(revoked, stored);
    redis.ask::<()>(&["HSET", hash, &key.id, &revoked]).await;
}

#[tokio::test]
async fn a_revocation_is_not_lost_when_the_store_fails_just_then() {
    let redis = RedisServer::start().await;
    let hub = node(&redis).await;
    let store = Store::join(redis.server(), Clock::system()).await.unwrap();
    let (stored, key) = make_key(&store, "machine").await;
    let (_, other) = make_key(&store, "other").await;
    let open = async |key: &str| {
        let mut client = hub.socket("/ws/real-time", &[PROTOCOL, ("x-api-key", key)]).await;
        client.send(json!({"type": "connect", "id": 1})).await;
        assert_eq!(next(&mut client, &["connected"]).await["type"], "connected");
        client
    };
    let (mut socket, mut untouched) = (open(&key).await, open(&other).await);
    let stream = hub.http().get(hub.url(SSE)).header("x-api-key", &key).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    // The notice comes through, and then nobody can look at the key.
    redis.ask::<()>(&["RENAME", KEYS, HIDDEN]).await;
    redis.ask::<()>(&["SET", KEYS, "no keys"]).await;
    revoke(&redis, HIDDEN, &stored).await;
    redis.ask::<()>(&["HINCRBY", "{pulsehub}:changes", "keys", "1"]).await;
    hub.metric_becomes_at_least("pulsehub_revocation_failures_total", 3.0).await;
    redis.ask::<()>(&["RENAME", HIDDEN, KEYS]).await;
    assert_eq!(socket.expect_close().await, (4401, "the credentials were revoked".to_owned()));
    assert!(stream.text().await.is_ok(), "the stream ends in good order");
    untouched.send(json!({"type": "publish", "id": 2, "events": [{"topic": "t.a"}]})).await;
    assert_eq!(next(&mut untouched, &["ack"]).await["id"], 2);
}

#[tokio::test]
async fn a_revocation_is_not_lost_when_its_notice_is() {
    let redis = RedisServer::start().await;
    let way = Proxy::to(redis.port()).await;
    let url = way.url();
    let hub = TestHub::with(&[("redis", &*url), ("cluster.timeout", "700ms")]).await;
    let store = Store::join(redis.server(), Clock::system()).await.unwrap();
    let (stored, key) = make_key(&store, "machine").await;
    let mut socket = hub.socket("/ws/real-time", &[PROTOCOL, ("x-api-key", &key)]).await;
    socket.send(json!({"type": "connect", "id": 1})).await;
    assert_eq!(next(&mut socket, &["connected"]).await["type"], "connected");
    // As a failover may leave it: the key is taken back, and the count is what it was.
    // Who has just come is asked about once more: when a second one after it was, the first one's turn is over.
    for name in ["then", "and then"] {
        let (stored, key) = make_key(&store, name).await;
        let mut late = hub.socket("/ws/real-time", &[PROTOCOL, ("x-api-key", &key)]).await;
        revoke(&redis, KEYS, &stored).await;
        late.send(json!({"type": "connect", "id": 1})).await;
        assert_eq!(late.expect_close().await.0, 4401);
    }
    way.lead_to(1);
    revoke(&redis, KEYS, &stored).await;
    hub.metric_becomes_at_least("pulsehub_revocation_failures_total", 1.0).await;
    way.lead_to(redis.port());
    assert_eq!(socket.expect_close().await.0, 4401);
}
