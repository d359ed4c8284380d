//! What stores of earlier versions have is there for this one.

use std::{fs, path::Path, sync::Barrier};

use pulsehub::{
    auth::{ApiKeys, KEYS, StoredKey},
    grants::Grants,
    lease::Fence,
    position::{Epoch, Position},
    redis,
    store::{Collection, CollectionKind, NewDocument, Store, StoreError, Writes},
    time::Clock,
    topic::TopicPattern,
};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::{process::Home, redis::RedisServer};

/// A `store.db` of version 1 with `tables`.
fn write_first_version(folder: &Path, tables: &str) {
    let file = Connection::open(folder.join("store.db")).unwrap();
    file.execute_batch(&format!(
        "PRAGMA auto_vacuum = incremental; PRAGMA journal_mode = wal;
         PRAGMA application_id = {}; PRAGMA user_version = 1;
         CREATE TABLE keys(id TEXT PRIMARY KEY, name TEXT NOT NULL, hash TEXT NOT NULL,
             grants TEXT NOT NULL, role TEXT, created INTEGER NOT NULL, expires INTEGER,
             revoked INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
         INSERT INTO keys VALUES ('k1', 'machine', 'hash 1', '{{\"subscribe\":[\"a.*\"],\"publish\":[]}}',
                 'viewer', 20, 9000, 0),
             ('k2', 'old \"ü\"', 'hash 2', '{{\"subscribe\":[],\"publish\":[\"**\"]}}', NULL, 10, NULL, 1);
         CREATE TABLE cursors(name TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
         INSERT INTO cursors VALUES ('alerts', '1:7');
         {tables}",
        u32::from_be_bytes(*b"puls")
    ))
    .unwrap();
}

/// As it was first.
const OLDEST: &str = "
    CREATE TABLE passes(hash TEXT PRIMARY KEY, kind TEXT NOT NULL, principal TEXT NOT NULL,
        expires INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX passes_expires ON passes(expires);
    INSERT INTO passes VALUES ('h1', 'ticket', '{\"name\":\"ada\"}', 5000), ('h2', 'session', '{}', 6000),
        ('h3', 'link', '{}', 7000);";
/// As it was last.
const NEWEST: &str = "
    CREATE TABLE passes(hash TEXT PRIMARY KEY, kind TEXT NOT NULL, principal TEXT NOT NULL,
        expires INTEGER NOT NULL, owner TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
    CREATE INDEX passes_expires ON passes(expires);
    CREATE INDEX passes_owner ON passes(kind, owner);
    INSERT INTO passes VALUES ('h1', 'ticket', '{\"name\":\"ada\"}', 5000, 'token:ada' || char(10)),
        ('h2', 'session', '{}', 6000, 'x'), ('h3', 'link', '{}', 7000, '');
    CREATE TABLE parts(consumer TEXT NOT NULL, row TEXT NOT NULL,
        column INTEGER NOT NULL, bytes BLOB NOT NULL,
        PRIMARY KEY(consumer, row, column)) WITHOUT ROWID;
    INSERT INTO parts VALUES ('alerts', 'a', 1, x'00ff');";

fn stored_keys() -> [StoredKey; 2] {
    let all = |text| vec![TopicPattern::parse(text).unwrap()];
    [
        StoredKey {
            id: "k2".into(),
            name: "old \"ü\"".into(),
            hash: "hash 2".into(),
            grants: Grants { subscribe: vec![], publish: all("**") },
            role: None,
            created: 10,
            expires: None,
            revoked: true,
        },
        StoredKey {
            id: "k1".into(),
            name: "machine".into(),
            hash: "hash 1".into(),
            grants: Grants { subscribe: all("a.*"), publish: vec![] },
            role: Some("viewer".into()),
            created: 20,
            expires: Some(9000),
            revoked: false,
        },
    ]
}

fn passes(store: &Store, name: &'static str) -> Collection<Value> {
    let (most, most_of_owner) = (10_000, 10_000);
    let kind =
        CollectionKind { name, most, most_of_owner, synced: Writes::None, told: Writes::None };
    store.collection(kind)
}

/// Keys and passes as the files above have them.
async fn assert_has_all(store: &Store, owners: [&str; 3]) {
    let keys = ApiKeys::new(store);
    assert_eq!(keys.list().await.unwrap(), stored_keys());
    assert_eq!(keys.named("machine").await.unwrap(), stored_keys()[1..]);
    let given = [("tickets", "h1", 5000), ("sessions", "h2", 6000), ("links", "h3", 7000)];
    for ((name, id, expires), owner) in given.into_iter().zip(owners) {
        let found = passes(store, name).get(id).await.unwrap().unwrap();
        assert_eq!((&*found.owner, found.expires), (owner, Some(expires)), "{name}");
        let of_owner = passes(store, name).list(Some(owner), None, 10).await.unwrap();
        assert_eq!(of_owner.documents, [found], "{name}");
    }
    let ticket = passes(store, "tickets").delete("h1", None).await.unwrap().unwrap();
    assert_eq!(ticket.body, json!({"name": "ada"}));
    assert_eq!(passes(store, "tickets").delete("h1", None).await.unwrap(), None);
    assert!(keys.revoke("k1").await.unwrap());
    assert!(keys.get("k1").await.unwrap().unwrap().revoked);
}

#[tokio::test]
async fn a_file_of_an_earlier_version_is_brought_up_to_date() {
    for (tables, owners, parts) in
        [(OLDEST, ["", "", ""], 0), (NEWEST, ["token:ada\n", "x", ""], 1)]
    {
        let folder = tempfile::tempdir().unwrap();
        write_first_version(folder.path(), tables);
        let open = || Store::open(folder.path(), Clock::manual(1000)).unwrap();
        let store = open();
        assert_has_all(&store, owners).await;
        let at = |offset| Position { epoch: Epoch::new(1), offset };
        assert_eq!(store.load_cursor("alerts").await.unwrap(), Some(at(7)));
        assert_eq!(store.rows("alerts").await.unwrap().len(), parts);
        store.save(&Fence::new("alerts", 0), at(8), Vec::new()).await.unwrap();
        drop(store);
        assert!(ApiKeys::new(&open()).get("k1").await.unwrap().unwrap().revoked, "and stays so");
        let file = Connection::open(folder.path().join("store.db")).unwrap();
        let old = "SELECT count(*) FROM sqlite_schema WHERE name IN ('keys', 'passes')";
        assert_eq!(file.query_row(old, [], |row| row.get::<_, u32>(0)).unwrap(), 0);
    }
}

#[test]
fn several_processes_may_bring_a_file_up_to_date_at_once() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        write_first_version(folder.path(), NEWEST);
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    Store::open(folder.path(), Clock::manual(1000)).unwrap();
                });
            }
        });
        let file = Connection::open(folder.path().join("store.db")).unwrap();
        let count = "SELECT count(*) FROM documents";
        assert_eq!(file.query_row(count, [], |row| row.get::<_, u32>(0)).unwrap(), 5);
    }
}

#[test]
fn a_file_of_an_earlier_version_is_not_taken_from_the_hub_that_runs_on_it() {
    let folder = tempfile::tempdir().unwrap();
    write_first_version(folder.path(), NEWEST);
    let hub = Connection::open(folder.path().join("store.db")).unwrap();
    let count = |table: &str| -> u32 {
        hub.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count("keys"), 2);
    let error = Store::open(folder.path(), Clock::manual(1000)).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    assert!(error.to_string().contains("stop the hub that runs on it"), "{error}");
    assert_eq!((count("keys"), count("passes")), (2, 3), "it goes on");
    drop(hub);
    Store::open(folder.path(), Clock::manual(1000)).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no file is left over");
}

/// What a cluster of version 2 had, and a thousand sessions.
async fn write_second_version(redis: &RedisServer) {
    redis.ask::<()>(&["HSET", "{pulsehub}:meta", "version", "2", "lineage", "1 0 0 0"]).await;
    for key in stored_keys() {
        let text = serde_json::to_string(&key).unwrap();
        redis.ask::<()>(&["HSET", "{pulsehub}:keys", &key.id, &text]).await;
    }
    redis.ask::<()>(&["HSET", "{pulsehub}:store", "changes", "77"]).await;
    let mut given: Vec<_> = (0..1000)
        .map(|n| (format!("session:s{n}"), "9000".to_owned(), "{}", "many".to_owned()))
        .collect();
    for (name, expires, principal, owner) in [
        ("ticket:h1", "5000", "{\"name\":\"ada\"}", "token:ada\n"),
        ("session:h2", "6000", "{}", "x"),
        ("link:h3", "7000", "{}", ""),
    ] {
        given.push((name.to_owned(), expires.to_owned(), principal, owner.to_owned()));
    }
    let add = |key: &str, pair: fn(&(String, String, &str, String)) -> [String; 2]| {
        let mut command = vec![if key == "passes:expiry" { "ZADD" } else { "HSET" }.to_owned()];
        command.push(format!("{{pulsehub}}:{key}"));
        command.extend(given.iter().flat_map(pair));
        command
    };
    let commands = [
        add("passes", |(name, expires, principal, _)| {
            [name.clone(), format!("{expires} {principal}")]
        }),
        add("passes:expiry", |(name, expires, ..)| [expires.clone(), name.clone()]),
        add("passes:owners", |(name, .., owner)| [name.clone(), owner.clone()]),
        add("passes:counts", |(name, .., owner)| [format!("{name} {owner}"), "1".to_owned()]),
    ];
    for command in commands {
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        redis.ask::<()>(&words).await;
    }
}

async fn check(redis: &RedisServer) -> Result<Vec<String>, String> {
    let keys = redis::Keys::new("pulsehub");
    redis::check(&redis.server(), &keys).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_redis_of_an_earlier_version_is_brought_up_to_date() {
    let redis = RedisServer::start().await;
    write_second_version(&redis).await;
    let join = async || Store::join(redis.server(), Clock::manual(1000)).await;
    let refused = join().await.map(|_| ()).unwrap_err().to_string();
    assert!(
        refused.contains("have version 2") && refused.contains("first start a hub"),
        "a command is no node: {refused}"
    );
    assert_eq!(redis.ask::<u32>(&["HLEN", "{pulsehub}:keys"]).await, 2, "nothing was moved");
    check(&redis).await.unwrap();
    let (one, two) = tokio::join!(join(), join());
    let (one, two) = (one.unwrap(), two.unwrap());
    let many = passes(&one, "sessions");
    let (mut after, mut count) = (None, 0);
    loop {
        let page = many.list(Some("many"), after, 400).await.unwrap();
        count += page.documents.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(count, 1000);
    assert_has_all(&two, ["token:ada\n", "x", ""]).await;
    let left: Vec<String> = redis.ask(&["KEYS", "{pulsehub}:passes*"]).await;
    assert_eq!((left, redis.ask::<u32>(&["EXISTS", "{pulsehub}:keys"]).await), (vec![], 0));
    // A number, to a command of that version, which is refused by this one.
    let fence: String = redis.ask(&["HGET", "{pulsehub}:store", "changes"]).await;
    assert!(fence.parse::<u64>().is_err() && fence.contains("version 3"), "{fence}");
    // Owners are counted and ends are known as of any others.
    let few = CollectionKind {
        name: "sessions",
        most: 10_000,
        most_of_owner: 1000,
        synced: Writes::None,
        told: Writes::None,
    };
    let new = |expires| {
        let (id, owner) = ("new".into(), "many".into());
        NewDocument { id, owner, expires: Some(expires), body: json!({}) }
    };
    let refused = one.collection(few).put(new(9999), None).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    let later = Store::join(redis.server(), Clock::manual(9000)).await.unwrap();
    later.collection(few).put(new(9999), None).await.unwrap();
    let left: u32 = redis.ask(&["HLEN", "{pulsehub}:documents:sessions"]).await;
    assert!(left < 10, "what has run out goes a thousand at a time: {left}");
}

#[tokio::test]
async fn a_node_is_refused_while_nodes_of_an_earlier_version_run() {
    let redis = RedisServer::start().await;
    write_second_version(&redis).await;
    let now = Clock::system().now();
    for (node, hello) in [("one", now + 30_000), ("two", now + 20_000), ("dead", now - 2000)] {
        redis.ask::<()>(&["ZADD", "{pulsehub}:nodes", &hello.to_string(), node]).await;
    }
    redis.ask::<()>(&["SET", "{pulsehub}:name:one", "hub-1:8080"]).await;
    let refused = check(&redis).await.unwrap_err();
    assert!(
        refused.contains("an earlier version run on it (two, hub-1:8080): stop all of them"),
        "{refused}"
    );
    let version: String = redis.ask(&["HGET", "{pulsehub}:meta", "version"]).await;
    assert_eq!(version, "2");
    redis.ask::<()>(&["ZREM", "{pulsehub}:nodes", "one", "two"]).await;
    check(&redis).await.unwrap();
    // From here on nodes of that version are refused by theirs.
    let version: String = redis.ask(&["HGET", "{pulsehub}:meta", "version"]).await;
    assert_eq!(version, "3");
    redis.ask::<()>(&["ZADD", "{pulsehub}:nodes", &(now + 30_000).to_string(), "new"]).await;
    check(&redis).await.unwrap();
}

#[tokio::test]
async fn the_move_of_old_keys_that_a_failover_lost_left_them_unknown_until_a_restart() {
    let redis = RedisServer::start().await;
    write_second_version(&redis).await;
    check(&redis).await.unwrap();
    let store = Store::join(redis.server(), Clock::manual(1000)).await.unwrap();
    store.poll().await.unwrap();
    let mut watched = store.watch(&[KEYS]);
    // All of it is lost, or all but what was done first.
    for version in ["2", "3"] {
        let moved: Vec<String> = redis.ask(&["KEYS", "{pulsehub}:documents:*"]).await;
        let words: Vec<_> = ["DEL"].into_iter().chain(moved.iter().map(String::as_str)).collect();
        redis.ask::<()>(&words).await;
        write_second_version(&redis).await;
        redis.ask::<()>(&["HSET", "{pulsehub}:meta", "version", version]).await;
        watched.mark_unchanged();
        store.poll().await.unwrap();
        assert!(
            watched.has_changed().unwrap(),
            "who was asked about meanwhile is asked about again"
        );
        assert_has_all(&store, ["token:ada\n", "x", ""]).await;
        let found: String = redis.ask(&["HGET", "{pulsehub}:meta", "version"]).await;
        assert_eq!(found, "3");
    }
}

#[test]
fn looking_at_a_file_of_an_earlier_version_brought_it_up_to_date() {
    let home = Home::new("");
    fs::create_dir(home.data()).unwrap();
    write_first_version(home.data().as_path(), NEWEST);
    let version = || -> u32 {
        let file = Connection::open(home.data().join("store.db")).unwrap();
        file.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(home.run("key list", &[]).lines().count(), 2);
    home.token("ada", "t.*");
    assert_eq!(version(), 1);
    // Who has to write does so.
    home.run("key create", &["--name", "new", "--subscribe", "t.*"]);
    assert_eq!(version(), 2);
    assert_eq!(home.run("key list", &[]).lines().count(), 3);
}
