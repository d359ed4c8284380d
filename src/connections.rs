//! The connections: to list them, and to send orders to them.

mod info;
mod revocations;

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr, SocketAddrV6},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Wake as _,
};

use dashmap::DashMap;
use parking_lot::Mutex;

pub use self::{
    info::{ConnectionInfo, SubscriptionInfo},
    revocations::watch_revocations,
};
use crate::{
    auth::{CredentialId, Principal},
    dialect::Dialect,
    hub::{Lag, TaskWaker},
    telemetry::{Limit, Telemetry},
    time::{self, Millis},
};

/// All connections that receive events. Cheap to clone.
#[derive(Clone)]
pub struct Connections(Arc<ConnectionsInner>);

struct ConnectionsInner {
    by_id: DashMap<u64, Arc<ConnectionEntry>>,
    /// Whose credentials nobody has asked about since they were shown; held to add one, or to take all.
    newcomers: Mutex<HashMap<CredentialId, Arc<Principal>>>,
    /// Held to count one up or down.
    per_principal: Mutex<HashMap<Arc<str>, usize>>,
    most_per_principal: usize,
    next: AtomicU64,
    telemetry: Telemetry,
}

/// What others may know of a connection, and tell it.
struct ConnectionEntry {
    kind: Dialect,
    peer: IpAddr,
    /// 0 where a proxy did not tell it.
    port: u16,
    /// Of a link-local IPv6 address.
    scope: u32,
    since: Millis,
    waker: Arc<TaskWaker>,
    /// Whether `about` holds an order: what is looked at on every delivery must not be a lock.
    told: AtomicBool,
    /// Held to read or replace, never while anything is awaited.
    about: Mutex<About>,
}

#[derive(Default)]
struct About {
    principal: Option<Arc<Principal>>,
    name: Option<Box<str>>,
    lags: Box<[Lag]>,
    order: Option<Order>,
}

/// An order to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Its credentials were revoked.
    Revoked,
    /// To go elsewhere: the node is leaving, or drained.
    Reconnect {
        /// When to come back, in milliseconds.
        after_ms: u64,
    },
}

/// One connection's own entry; dropping it takes it out.
pub struct Connection {
    all: Connections,
    id: u64,
    shared: Arc<ConnectionEntry>,
}

impl Connections {
    /// No connections yet.
    pub fn new(most_per_principal: usize, telemetry: Telemetry) -> Self {
        Self(Arc::new(ConnectionsInner {
            by_id: DashMap::new(),
            newcomers: Mutex::default(),
            per_principal: Mutex::default(),
            most_per_principal,
            next: AtomicU64::new(1),
            telemetry,
        }))
    }

    /// Adds a connection. `waker` wakes its task when there is an order for it.
    pub fn enter(
        &self,
        kind: Dialect,
        peer: SocketAddr,
        waker: Arc<TaskWaker>,
        now: Millis,
    ) -> Connection {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(ConnectionEntry {
            kind,
            peer: peer.ip(),
            port: peer.port(),
            scope: match peer {
                SocketAddr::V4(_) => 0,
                SocketAddr::V6(peer) => peer.scope_id(),
            },
            since: now,
            waker,
            told: AtomicBool::new(false),
            about: Mutex::default(),
        });
        self.0.by_id.insert(id, shared.clone());
        self.0.telemetry.connections.inc();
        Connection { all: self.clone(), id, shared }
    }

    /// The connections in the order in which they came, after the one called `after`: at most `limit`, and about
    /// `bytes` of them but at least one. Also whether there are more.
    pub fn page(
        &self,
        after: Option<&str>,
        head: u64,
        limit: usize,
        bytes: usize,
    ) -> (Vec<ConnectionInfo>, bool) {
        let after = after.and_then(|name| name.strip_prefix('c')?.parse().ok()).unwrap_or(0);
        let mut entries = self.entries();
        entries.retain(|(id, _)| *id > after);
        entries.sort_unstable_by_key(|(id, _)| *id);
        let count = entries.len();
        let mut held = 0;
        let mut page = Vec::new();
        for (id, shared) in entries {
            if page.len() == limit || held >= bytes {
                break;
            }
            let info = shared.info(id, head);
            held += info.bytes();
            page.push(info);
        }
        let is_cut = page.len() < count;
        (page, is_cut)
    }

    /// The credentials that can be taken back, each once, however many connections it has.
    pub fn credentials(&self) -> HashMap<CredentialId, Arc<Principal>> {
        let principals = self
            .entries()
            .into_iter()
            .filter_map(|(_, shared)| shared.about.lock().principal.clone());
        let revocable = principals.filter(|principal| principal.credential.is_revocable());
        revocable.map(|principal| (principal.credential.clone(), principal)).collect()
    }

    /// Those of the connections that said whose they are since this was last asked.
    pub fn newcomers(&self) -> HashMap<CredentialId, Arc<Principal>> {
        std::mem::take(&mut self.0.newcomers.lock())
    }

    /// Tells every connection with this credential something.
    pub fn tell_bearers(&self, credential: &CredentialId, order: Order) {
        for (id, shared) in self.entries() {
            let principal = shared.about.lock().principal.clone();
            if principal.is_some_and(|principal| principal.credential == *credential) {
                self.tell(id, order);
            }
        }
    }

    /// By what number each can be told something.
    pub fn ids(&self) -> HashSet<u64> {
        self.0.by_id.iter().map(|entry| *entry.key()).collect()
    }

    /// Tells one connection something.
    pub fn tell(&self, id: u64, order: Order) {
        let shared = self.0.by_id.get(&id).map(|entry| entry.value().clone());
        if let Some(shared) = shared {
            shared.about.lock().order = Some(order);
            shared.told.store(true, Ordering::Release);
            shared.waker.wake_by_ref(); // so that it looks beyond its cursors
        }
    }

    /// Tells every connection something of its own.
    pub fn tell_all(&self, mut order: impl FnMut() -> Order) {
        for (id, _) in self.entries() {
            self.tell(id, order());
        }
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.0.by_id.len()
    }

    /// A copy, so that no guard of the map is held while anything else is done.
    fn entries(&self) -> Vec<(u64, Arc<ConnectionEntry>)> {
        self.0.by_id.iter().map(|entry| (*entry.key(), entry.value().clone())).collect()
    }

    fn count(&self, identity: &Arc<str>) -> bool {
        let mut counts = self.0.per_principal.lock();
        let count = counts.entry(identity.clone()).or_default();
        if *count >= self.0.most_per_principal {
            self.0.telemetry.hit(Limit::ConnectionsPerPrincipal);
            return false;
        }
        *count += 1;
        true
    }

    fn uncount(&self, identity: &str) {
        let mut counts = self.0.per_principal.lock();
        if let Some(count) = counts.get_mut(identity) {
            *count -= 1;
            if *count == 0 {
                counts.remove(identity);
            }
        }
    }
}

impl Connection {
    /// The connection's name.
    pub fn name(&self) -> String {
        format!("c{}", self.id)
    }

    /// Notes whose it is; false if they have too many. Asked again, only the grants change.
    pub fn identify(&self, principal: Arc<Principal>, name: Option<Box<str>>) -> bool {
        let mut about = self.shared.about.lock();
        if about.principal.is_none() && !self.all.count(principal.identity()) {
            return false;
        }
        about.principal = Some(principal.clone());
        if name.is_some() {
            about.name = name;
        }
        drop(about);
        // After it can be found among the others: a revocation meets it there or here.
        if principal.credential.is_revocable() {
            self.all.0.newcomers.lock().insert(principal.credential.clone(), principal);
        }
        true
    }

    /// Notes how to find out how far each subscription is behind.
    pub fn set_lags(&self, lags: Box<[Lag]>) {
        self.shared.about.lock().lags = lags;
    }

    /// Whether there is an order that it has not taken yet; for another task that waits for one.
    pub fn told(&self) -> impl Fn() -> bool + Send + 'static + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.told.load(Ordering::Acquire)
    }

    /// The order that came since the last call.
    pub fn order(&self) -> Option<Order> {
        if !self.shared.told.load(Ordering::Acquire) {
            return None;
        }
        self.shared.told.store(false, Ordering::Release);
        self.shared.about.lock().order.take()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.0.by_id.remove(&self.id);
        self.all.0.telemetry.connections.dec();
        let principal = self.shared.about.lock().principal.take();
        if let Some(principal) = principal {
            self.all.uncount(principal.identity());
        }
    }
}

impl ConnectionEntry {
    fn info(&self, id: u64, head: u64) -> ConnectionInfo {
        let about = self.about.lock();
        let subscription = |lag: &Lag| SubscriptionInfo {
            sub: lag.sub().to_owned(),
            topics: lag.filter().patterns().iter().map(ToString::to_string).collect(),
            lag: lag.offsets(head),
        };
        ConnectionInfo {
            conn: format!("c{id}"),
            user: about.principal.as_ref().map(|principal| principal.name.clone()),
            name: about.name.clone(),
            kind: self.kind,
            peer: match (self.peer, self.port) {
                (peer, 0) => peer.to_string(),
                (IpAddr::V6(peer), port) => {
                    SocketAddrV6::new(peer, port, 0, self.scope).to_string()
                }
                (peer, port) => SocketAddr::new(peer, port).to_string(),
            },
            since: time::rfc3339(self.since),
            subscriptions: about.lags.iter().map(subscription).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::PublisherName;
    use crate::grants::Grants;

    #[test]
    fn the_store_is_asked_once_for_a_credential_however_many_connections_have_it() {
        let connections = Connections::new(usize::MAX, Telemetry::new());
        let principal = |credential| {
            let (name, grants) = ("machine".into(), Grants::default());
            let publisher = PublisherName::anonymous();
            Arc::new(Principal { name, publisher, grants, admin: false, expires: None, credential })
        };
        let enter = |credential| {
            let peer = ([127, 0, 0, 1], 1).into();
            let waker = Arc::new(TaskWaker::default());
            let connection = connections.enter(Dialect::Sse, peer, waker, 0);
            assert!(connection.identify(principal(credential), None));
            connection
        };
        let key = CredentialId::ApiKey("k".into());
        let mut all: Vec<_> = (0..1500).map(|_| enter(key.clone())).collect();
        all.push(enter(CredentialId::Session("s".into())));
        all.push(enter(CredentialId::Token)); // can only expire
        assert_eq!(connections.credentials().len(), 2);
        assert_eq!(connections.newcomers().len(), 2);
        assert!(connections.newcomers().is_empty());
        connections.tell_bearers(&key, Order::Revoked);
        let told = all.iter().filter(|connection| connection.order().is_some()).count();
        assert_eq!(told, 1500);
    }

    #[test]
    fn a_list_of_connections_held_all_there_are() {
        let connections = Connections::new(usize::MAX, Telemetry::new());
        let enter = |_| {
            let peer = ([127, 0, 0, 1], 1).into();
            connections.enter(Dialect::Sse, peer, Arc::new(TaskWaker::default()), 0)
        };
        let _all: Vec<_> = (0..1005).map(enter).collect();
        let page = |after: Option<&str>, limit, bytes| {
            let (page, is_cut) = connections.page(after, 0, limit, bytes);
            (page.into_iter().map(|info| info.conn).collect::<Vec<_>>(), is_cut)
        };
        let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let (names, is_cut) = page(after.as_deref(), 100, usize::MAX);
            assert!(names.len() <= 100);
            after = names.last().cloned();
            found.extend(names);
            pages += 1;
            if !is_cut {
                break;
            }
        }
        assert_eq!(found, (1..=1005).map(|id| format!("c{id}")).collect::<Vec<_>>());
        assert_eq!(pages, 11);
        assert_eq!(page(Some("c1004"), 100, usize::MAX), (vec!["c1005".to_owned()], false));
        assert_eq!(page(None, 100, 600).0.len(), 3, "by bytes as well");
        assert_eq!(page(None, 100, 0), (vec![], true));
    }
}
