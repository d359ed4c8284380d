//! A replica takes over that has not heard of everything: what was answered is there all the same.

use pulsehub::{
    access::{Access, Credential},
    auth::{AuthError, Authenticator, Principal},
    broker::{Broker, PublishError},
    store::StoreError,
    telemetry::Telemetry,
};

use super::{journal, revocations::make_key, *};
use crate::support::{admitted, auth_config, event, redis::server_with_replicas};

/// A Redis and its replica, which is to have what is answered.
struct Pair {
    master: RedisServer,
    replica: RedisServer,
}

impl Pair {
    async fn start() -> Self {
        let master = RedisServer::with(&["--appendonly", "yes", "--repl-diskless-sync-delay", "0"]);
        let master = master.await;
        let port = master.port().to_string();
        let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]).await;
        let pair = Self { master, replica };
        let attached = || async {
            let replicas: u64 = pair.master.ask(&["WAIT", "1", "100"]).await;
            (replicas == 1).then_some(())
        };
        eventually("the replica", attached).await;
        pair
    }

    async fn store(&self) -> Store {
        let server = server_with_replicas(&self.master.url(), 1);
        Store::join(server, Clock::system()).await.unwrap()
    }

    /// The store as the replica has it once the master is gone.
    async fn fail_over(&mut self) -> Store {
        self.master.kill();
        self.replica.thaw();
        self.replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
        Store::join(self.replica.server(), Clock::system()).await.unwrap()
    }
}

fn access(store: &Store) -> Access {
    let (secret, clock) = (store.signing_secret().unwrap(), Clock::system());
    let authenticator = Authenticator::new(&auth_config(""), &secret, store, clock.clone());
    Access::new(authenticator.unwrap(), store, clock)
}

#[tokio::test]
async fn what_was_taken_back_or_used_came_back_with_the_replica_that_took_over() {
    let mut pair = Pair::start().await;
    let store = pair.store().await;
    let (keys, before) = (ApiKeys::new(&store), access(&store));
    let (key, _) = make_key(&store, "machine").await;
    let somebody = Principal { name: "ada".into(), ..Principal::hub() };
    let link = before.issue_link(&somebody).await.unwrap();
    let ticket = before.issue_ticket(&somebody).await.unwrap();
    let (session, _) = before.exchange(&before.issue_link(&somebody).await.unwrap()).await.unwrap();
    let both: u64 = pair.master.ask(&["WAIT", "1", "1000"]).await;
    assert_eq!(both, 1);
    // The replica hears of nothing more, and nobody is told that it was done.
    pair.replica.freeze();
    let revoked = keys.revoke(&key.id).await;
    assert!(matches!(revoked, Err(StoreError::Redis(_))), "{revoked:?}");
    let said = revoked.unwrap_err().to_string();
    assert!(said.contains("0 of 1 replicas have what was written"), "{said}");
    let is_unsure = |answer: Option<AuthError>| {
        assert!(matches!(answer, Some(AuthError::Unavailable(_))), "{answer:?}");
    };
    is_unsure(before.exchange(&link).await.err());
    is_unsure(before.authenticate(&Credential::Ticket(ticket.clone())).await.err());
    is_unsure(before.end_session(&session).await.err());
    // Nor where somebody asks for what was done already.
    is_unsure(before.end_session(&session).await.err());
    assert!(keys.revoke(&key.id).await.is_err());
    pair.replica.thaw();
    assert!(keys.revoke(&key.id).await.unwrap());
    let store = pair.fail_over().await;
    assert!(ApiKeys::new(&store).get(&key.id).await.unwrap().unwrap().revoked);
    let after = access(&store);
    let is_refused = |answer: Option<AuthError>| {
        assert!(matches!(answer, Some(AuthError::Invalid(_))), "{answer:?}");
    };
    is_refused(after.exchange(&link).await.err());
    is_refused(after.authenticate(&Credential::Ticket(ticket)).await.err());
    is_refused(after.authenticate(&Credential::Session(session)).await.err());
}

#[tokio::test]
async fn what_no_replica_had_was_stored_once_its_connection_had_broken() {
    let pair = Pair::start().await;
    let way = Proxy::to(pair.master.port()).await;
    let (server, clock) = (server_with_replicas(&way.url(), 1), Clock::system());
    let broker = Broker::join(journal(), server, clock, Telemetry::new()).await.unwrap();
    let publish = |id: &'static str| {
        let broker = broker.clone();
        let events = admitted(vec![event("t.a", "s", id, None, "1")]);
        tokio::spawn(async move { broker.publish(events).await })
    };
    publish("both have it").await.unwrap().unwrap();
    pair.replica.freeze();
    way.hold(b"WAIT");
    let publishing = publish("one has it");
    way.is_holding().await;
    // Whoever asks on a new connection is told of what that one wrote: nothing.
    way.lead_to(pair.master.port());
    way.release();
    let answer = publishing.await.unwrap();
    assert!(matches!(answer, Err(PublishError::Unknown { .. })), "{answer:?}");
    pair.replica.thaw();
    let again = || async { publish("one has it").await.unwrap().ok() };
    assert_eq!(eventually("both have it", again).await.accepted, 0);
    broker.close().await;
}

#[tokio::test]
async fn the_token_of_a_lease_that_a_failover_lost_was_given_out_again() {
    let mut pair = Pair::start().await;
    let store = pair.store().await;
    let first = store.lease("alerts", "one", None).await.unwrap().unwrap();
    store.release(&first).await.unwrap();
    pair.master.ask::<()>(&["SET", "x", "1"]).await;
    let has_it = || async {
        let found: Option<String> = pair.replica.ask(&["GET", "x"]).await;
        found.map(drop)
    };
    eventually("the replica", has_it).await;
    pair.replica.freeze();
    pair.master.ask::<u64>(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    let lost = store.lease("alerts", "one", None).await.unwrap().unwrap();
    let store = pair.fail_over().await;
    let next = store.lease("alerts", "two", None).await.unwrap().unwrap();
    assert!(next.token() > first.token());
    assert_ne!(next.token(), lost.token(), "what the lost one still writes would be taken");
}
