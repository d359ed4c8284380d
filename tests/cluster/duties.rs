//! A duty of two nodes over one Redis: it moves when its node hangs, and whoever hung cannot write.

use std::{sync::mpsc as blocking, thread};

use pulsehub::{
    broker::{Broker, PublishError},
    duty::{Duties, Duty, Term, TermError},
    follow::Feed,
    lease::Fence,
    redis::Server,
    store::{Store, StoreError},
    telemetry::Telemetry,
    time::Clock,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::journal;
use crate::support::{DEADLINE, admitted, event, eventually, filter, redis::RedisServer};

/// Tells which events it got, one at a time, and does with each what it is told.
struct Telling {
    broker: Broker,
    store: Store,
    got: mpsc::UnboundedSender<Got>,
    orders: mpsc::UnboundedReceiver<Order>,
}

#[derive(Debug, PartialEq)]
enum Got {
    /// A term, with what proves it: the log is followed from the cursor on.
    Begun(Fence),
    Event(String),
}

enum Order {
    /// It is done, and not to come again.
    Note,
    /// Its node does nothing at all until it hears something, and then still thinks that the lease is its own.
    Hang(blocking::Receiver<()>),
}

const NAME: &str = "telling";

impl Duty for Telling {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    async fn serve(&mut self, term: &Term) -> Result<(), TermError> {
        let cursor = self.store.load_cursor(NAME).await?;
        let feed = Feed::new(self.broker.clone());
        let mut follower = feed.resume(NAME, filter(&["a.*"]), cursor).await?;
        self.got.send(Got::Begun(term.fence().clone())).unwrap();
        loop {
            let delivery = tokio::select! {
                () = term.over() => return Ok(()),
                delivery = follower.next() => delivery?,
            };
            assert!(!delivery.has_gap);
            for record in delivery.records() {
                let event: serde_json::Value = serde_json::from_slice(record.json()).unwrap();
                self.got.send(Got::Event(event["id"].as_str().unwrap().to_owned())).unwrap();
                match self.orders.recv().await.unwrap() {
                    Order::Note => {
                        self.store.save(term.fence(), delivery.position, Vec::new()).await?
                    }
                    Order::Hang(until) => {
                        until.recv().unwrap();
                        std::future::pending().await
                    }
                }
            }
        }
    }
}

/// A node with a thread of its own, which hangs when its duty does.
struct Node {
    got: mpsc::UnboundedReceiver<Got>,
    orders: mpsc::UnboundedSender<Order>,
    stop: CancellationToken,
    thread: thread::JoinHandle<()>,
}

async fn join(server: Server) -> (Broker, Store) {
    let clock = Clock::system();
    let broker = Broker::join(journal(), server.clone(), clock.clone(), Telemetry::new());
    (broker.await.unwrap(), Store::join(server, clock).await.unwrap())
}

impl Node {
    fn start(name: &'static str, server: Server) -> Self {
        let (told, got) = mpsc::unbounded_channel();
        let (orders, ordered) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let until = stop.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let (broker, store) = join(server).await;
                let duty = Telling {
                    broker: broker.clone(),
                    store: store.clone(),
                    got: told,
                    orders: ordered,
                };
                Duties::new(store, broker, name, Telemetry::new()).run(duty, until).await;
            });
        });
        Self { got, orders, stop, thread }
    }

    async fn next(&mut self) -> Got {
        timeout(DEADLINE, self.got.recv()).await.expect("it hangs").unwrap()
    }

    async fn begins(&mut self) -> Fence {
        let Got::Begun(fence) = self.next().await else { panic!("no term begins") };
        fence
    }

    async fn gets(&mut self, id: &str, order: Order) {
        assert_eq!(self.next().await, Got::Event(id.to_owned()));
        self.orders.send(order).unwrap();
    }
}

#[tokio::test]
async fn a_duty_moves_when_its_node_hangs_and_whoever_hung_cannot_write() {
    let redis = RedisServer::start().await;
    let (broker, store) = join(redis.server()).await;
    let publish = async |id: &str| {
        broker.publish(admitted(vec![event("a.x", "s", id, None, "1")])).await.unwrap();
        broker.publish(admitted(vec![event("b.x", "s", id, None, "1")])).await.unwrap();
    };
    let mut one = Node::start("one", redis.server());
    let first = one.begins().await;
    publish("1").await;
    one.gets("1", Order::Note).await;
    let until = async || {
        redis.ask::<u64>(&["HGET", &format!("{{pulsehub}}:{}", first.key()), "until"]).await
    };
    let before = until().await;
    let renewed = async || (until().await > before).then_some(());
    eventually("a renewed lease", renewed).await;
    publish("2").await;
    let (wake, until) = blocking::channel();
    one.gets("2", Order::Hang(until)).await;
    // It neither renews nor gives back. The other gets the lease when it has run out.
    let mut two = Node::start("two", redis.server());
    let second = two.begins().await;
    assert!(first.token() < second.token());
    two.gets("2", Order::Note).await; // what was not done is done again
    publish("3").await;
    two.gets("3", Order::Note).await;
    let late = vec![event("hub.alerts", "hub", "late", None, "1")];
    assert_eq!(broker.publish(admitted(late).fenced(&first)).await, Err(PublishError::Fenced));
    let refused = store.save(&first, broker.head(), Vec::new()).await;
    assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
    let own = vec![event("hub.alerts", "hub", "own", None, "1")];
    broker.publish(admitted(own).fenced(&second)).await.unwrap();
    wake.send(()).unwrap();
    two.stop.cancel();
    one.begins().await;
    publish("4").await;
    one.gets("4", Order::Note).await;
    one.stop.cancel();
    for node in [one, two] {
        tokio::task::spawn_blocking(|| node.thread.join().unwrap()).await.unwrap();
    }
}

#[test]
fn a_node_that_has_not_read_so_far_knows_how_far_the_log_has_come() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (here, there) = (runtime(), runtime());
    let redis = here.block_on(RedisServer::start());
    let (one, _) = here.block_on(join(redis.server()));
    let (two, _) = there.block_on(join(redis.server()));
    for n in 0..5 {
        let events = admitted(vec![event("a.x", "s", &n.to_string(), None, "1")]);
        // The other node reads nothing meanwhile.
        let stored = here.block_on(one.publish(events)).unwrap().position.offset;
        assert!(two.head().offset < stored, "then this test shows nothing");
        let head = there.block_on(two.head_of_all()).unwrap();
        assert!(
            head >= stored,
            "{head} {stored}: a new holder would not know what was told before"
        );
    }
}

#[tokio::test]
async fn a_duty_that_could_not_read_so_far_kept_its_lease_and_was_no_failure() {
    let redis = RedisServer::start().await;
    let (broker, store) = join(redis.server()).await;
    let (got, mut begun) = mpsc::unbounded_channel();
    let (_orders, orders) = mpsc::unbounded_channel();
    broker.publish(admitted(vec![event("b.x", "s", "1", None, "1")])).await.unwrap();
    // What no node can read.
    redis.ask::<()>(&["XADD", "{pulsehub}:log", "2-0", "b", "junk"]).await;
    redis.ask::<()>(&["HSET", "{pulsehub}:meta", "head", "2"]).await;
    let (telemetry, stop) = (Telemetry::new(), CancellationToken::new());
    let duties = Duties::new(store.clone(), broker.clone(), "one", telemetry.clone());
    let duty = Telling { broker, store, got, orders };
    let running = tokio::spawn(duties.run(duty, stop.clone()));
    let lease = format!("{{pulsehub}}:{}", Fence::new(NAME, 0).key());
    let holder = async || redis.ask::<Option<String>>(&["HGET", &lease, "holder"]).await;
    let is_given_back = async || (holder().await.as_deref() == Some("")).then_some(());
    eventually("a lease that another may have", is_given_back).await;
    let failures = format!("pulsehub_duty_failures_total{{duty=\"{NAME}\"}} ");
    assert!(telemetry.openmetrics().unwrap().contains(&failures));
    redis.ask::<()>(&["XDEL", "{pulsehub}:log", "2-0"]).await;
    redis.ask::<()>(&["HSET", "{pulsehub}:meta", "head", "1"]).await;
    let term = timeout(DEADLINE, begun.recv()).await.expect("no term begins");
    assert!(matches!(term, Some(Got::Begun(_))));
    stop.cancel();
    running.await.unwrap();
}
