//! The store's files: whose they are, who may read them, and what becomes of files that are not ours; and the contract of
//! both stores.

mod collections;
mod upgrade;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    sync::Barrier,
};

use bytes::Bytes;
use pulsehub::{
    auth::{ApiKeys, KEYS, StoredKey},
    grants::Grants,
    lease::Fence,
    position::{Epoch, Position},
    store::{COLUMNS, Part, SecretError, Store, StoreError},
    time::Clock,
    topic::TopicPattern,
};
use rusqlite::Connection;
use secrecy::ExposeSecret as _;

use self::collections::*;
use crate::support::redis::RedisServer;

fn open(folder: &Path) -> Result<Store, StoreError> {
    Store::open(folder, Clock::manual(0))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// What the refusal of the file `bytes` says; the file must stay as it is.
fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    fs::write(&file, bytes).unwrap();
    let error = open(folder.path()).map(|_| ()).unwrap_err().to_string();
    assert!(fs::read(&file).unwrap() == bytes, "the file was changed; {error}");
    assert!(error.contains("store.db"), "{error}");
    error
}

/// The file of a store that was closed.
fn store_file(change: impl FnOnce(&Connection)) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let file = folder.path().join("store.db");
    let connection = Connection::open(&file).unwrap();
    change(&connection);
    connection.pragma_update(None, "journal_mode", "delete").unwrap();
    connection.close().unwrap();
    fs::read(file).unwrap()
}

#[test]
fn folder_and_files_are_their_owners_alone() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("new/data");
    let store = open(&folder).unwrap();
    store.signing_secret().unwrap();
    assert_eq!(mode(&folder), 0o700);
    let mut seen = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        seen.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    assert!(seen.contains(&"store.db".to_owned()) && seen.contains(&"secret".to_owned()));
    assert!(!seen.iter().any(|name| name.starts_with("secret.")), "a draft is left: {seen:?}");
}

#[test]
fn foreign_and_damaged_files_are_refused_untouched() {
    assert!(refusal(b"notes of mine, no database").contains("is not a pulsehub file"));
    assert!(refusal(b"SQLite format 3\0").contains("is not a pulsehub file"));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.db");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE mine(x); INSERT INTO mine VALUES (1)").unwrap();
    other.close().unwrap();
    assert!(refusal(&fs::read(&path).unwrap()).contains("is not a pulsehub file"));

    let newer = store_file(|file| file.pragma_update(None, "user_version", 99).unwrap());
    assert!(refusal(&newer).contains("schema version 99"));

    let whole = store_file(|_| ());
    assert!(refusal(&whole[..whole.len() / 2]).contains("damaged"));
    let mut scribbled = whole;
    scribbled[4096..].fill(0xaa);
    assert!(refusal(&scribbled).contains("damaged"));
}

#[test]
fn several_processes_may_make_the_store_at_once() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let start = Barrier::new(6);
        let secrets: Vec<String> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..6)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        let store = open(folder.path()).unwrap();
                        store.signing_secret().unwrap().expose_secret().to_owned()
                    })
                })
                .collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0]), "two secrets were made");
        assert!(secrets[0].len() >= 43);
    }
}

#[test]
fn the_store_file_gives_back_the_room_it_no_longer_needs() {
    let folder = tempfile::tempdir().unwrap();
    let _store = open(folder.path()).unwrap();
    let file = Connection::open(folder.path().join("store.db")).unwrap();
    let mode: u32 = file.query_row("PRAGMA auto_vacuum", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, 2, "incremental");
}

#[test]
fn the_secret_stays_and_does_not_print() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).unwrap().signing_secret().unwrap();
    let again = open(folder.path()).unwrap().signing_secret().unwrap();
    assert_eq!(first.expose_secret(), again.expose_secret());
    assert!(!format!("{first:?}").contains(first.expose_secret()));
    let elsewhere = tempfile::tempdir().unwrap();
    let other = open(elsewhere.path()).unwrap().signing_secret().unwrap();
    assert_ne!(first.expose_secret(), other.expose_secret());
}

#[test]
fn a_secret_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.signing_secret().unwrap();
    let file = folder.path().join("secret");
    for shared in [0o644, 0o640, 0o604, 0o620] {
        fs::set_permissions(&file, fs::Permissions::from_mode(shared)).unwrap();
        let error = store.signing_secret().unwrap_err();
        assert!(matches!(error, SecretError::Open { mode, .. } if mode == shared), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    // A link to the file is judged by the file.
    fs::rename(&file, folder.path().join("elsewhere")).unwrap();
    symlink("elsewhere", &file).unwrap();
    assert!(matches!(store.signing_secret(), Err(SecretError::Open { .. })));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(store.signing_secret().is_ok());
}

#[test]
fn an_emptied_secret_file_is_refused_and_left() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.signing_secret().unwrap();
    let file = folder.path().join("secret");
    for text in ["", "\n", "short"] {
        fs::write(&file, text).unwrap();
        let error = store.signing_secret().unwrap_err();
        assert!(matches!(error, SecretError::Short { .. }), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}

#[test]
fn a_secret_that_cannot_be_written_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let store = open(&data).unwrap();
    fs::rename(&data, folder.path().join("gone")).unwrap();
    let error = store.signing_secret().unwrap_err();
    assert!(matches!(&error, SecretError::Io { path, .. } if path.ends_with("secret")), "{error}");
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod in_a_folder {
            $(#[tokio::test] async fn $name() { super::$name(super::Place::folder()).await })*
        }
        mod in_redis {
            $(#[tokio::test] async fn $name() { super::$name(super::Place::redis().await).await })*
        }
    };
}

contract!(
    a_collection_holds_no_more_than_it_may,
    a_document_is_bounded,
    a_document_is_taken_once,
    a_document_is_written_over_only_as_it_was_read,
    changes_are_told_to_who_watches_the_collection,
    cursors_survive_a_restart,
    documents_are_listed_in_pages,
    documents_run_out,
    a_key_that_was_of_no_use_any_more_took_its_place_for_ever,
    keys_are_kept_listed_and_taken_back,
    a_page_of_documents_could_be_a_gigabyte,
    nobodys_documents_go_because_somebody_makes_too_many,
    parts_are_kept_by_row_and_column_together_with_the_cursor,
    what_is_taken_back_is_noticed_by_others,
);

/// Where a store is kept, to be opened again and again.
enum Place {
    Folder(tempfile::TempDir, Clock),
    Redis(RedisServer, Clock),
}

impl Place {
    fn folder() -> Self {
        Self::Folder(tempfile::tempdir().unwrap(), Clock::manual(1000))
    }

    async fn redis() -> Self {
        Self::Redis(RedisServer::start().await, Clock::manual(1000))
    }

    async fn open(&self) -> Store {
        match self {
            Self::Folder(folder, clock) => Store::open(folder.path(), clock.clone()).unwrap(),
            Self::Redis(redis, clock) => Store::join(redis.server(), clock.clone()).await.unwrap(),
        }
    }

    fn clock(&self) -> &Clock {
        match self {
            Self::Folder(_, clock) | Self::Redis(_, clock) => clock,
        }
    }
}

fn stored_key(id: &str, created: u64) -> StoredKey {
    StoredKey {
        id: id.to_owned(),
        name: format!("name of {id}"),
        hash: "hash".to_owned(),
        grants: Grants { subscribe: vec![TopicPattern::parse("a.*").unwrap()], publish: vec![] },
        role: Some("viewer".to_owned()),
        created,
        expires: Some(9000),
        revoked: false,
    }
}

async fn cursors_survive_a_restart(place: Place) {
    let at = |offset| Position { epoch: Epoch::new(0x3f9a), offset };
    let store = place.open().await;
    let (alerts, sinks) = (lease(&store, "alerts").await, lease(&store, "sinks").await);
    assert_eq!(store.load_cursor("alerts").await.unwrap(), None);
    store.save(&alerts, at(7), Vec::new()).await.unwrap();
    store.save(&sinks, at(1), Vec::new()).await.unwrap();
    store.save(&alerts, at(9), Vec::new()).await.unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(store.load_cursor("alerts").await.unwrap(), Some(at(9)));
    assert_eq!(store.load_cursor("sinks").await.unwrap(), Some(at(1)));
}

fn part(row: &str, column: u64, bytes: Option<&'static [u8]>) -> Part {
    Part { row: row.into(), column, bytes: bytes.map(Bytes::from_static) }
}

async fn parts_are_kept_by_row_and_column_together_with_the_cursor(place: Place) {
    let at = |offset| Position { epoch: Epoch::new(1), offset };
    let store = place.open().await;
    let (alerts, sinks) = (lease(&store, "alerts").await, lease(&store, "sinks").await);
    assert_eq!(store.rows("alerts").await.unwrap(), Vec::<String>::new());
    let last = COLUMNS - 1;
    let all = vec![9, 10, 11, last];
    assert_eq!(store.parts("alerts", "a", all.clone()).await.unwrap(), []);
    let first = vec![
        part("a", last, Some(b"end")),
        part("b", 1, Some(b"b1")),
        part("a", 10, Some(&[0, 255, 10])),
        part("a", 9, Some(b"")),
    ];
    store.save(&alerts, at(5), first).await.unwrap();
    store.save(&sinks, at(7), vec![part("a", 9, Some(b"of sinks"))]).await.unwrap();
    drop(store);

    let store = place.open().await;
    assert_eq!(store.load_cursor("alerts").await.unwrap(), Some(at(5)));
    let mut rows = store.rows("alerts").await.unwrap();
    rows.sort();
    assert_eq!(rows, ["a", "b"]);
    let columns = async |columns| {
        let found = store.parts("alerts", "a", columns).await.unwrap();
        found.into_iter().map(|(column, bytes)| (column, bytes.to_vec())).collect::<Vec<_>>()
    };
    let (nine, ten) = ((9, Vec::new()), (10, vec![0, 255, 10]));
    assert_eq!(columns(all.clone()).await, [nine.clone(), ten, (last, b"end".to_vec())]);
    assert_eq!(columns(vec![10, 9, 11]).await, [(10, vec![0, 255, 10]), nine.clone()]);
    assert_eq!(columns(vec![11]).await, []);
    assert_eq!(columns(vec![]).await, []);

    // Written over, taken away, and a row that has nothing left.
    let second = vec![part("a", 10, Some(b"new")), part("a", last, None), part("b", 1, None)];
    store.save(&alerts, at(6), second).await.unwrap();
    store.save(&alerts, at(8), Vec::new()).await.unwrap();
    assert_eq!(columns(all.clone()).await, [nine, (10, b"new".to_vec())]);
    assert_eq!(store.rows("alerts").await.unwrap(), ["a"]);
    assert_eq!(store.load_cursor("alerts").await.unwrap(), Some(at(8)));
    let of_sinks = store.parts("sinks", "a", all).await.unwrap();
    assert_eq!(of_sinks, [(9, Bytes::from_static(b"of sinks"))]);
}

async fn lease(store: &Store, name: &str) -> Fence {
    store.lease(name, "one", None).await.unwrap().unwrap()
}

async fn keys_are_kept_listed_and_taken_back(place: Place) {
    let store = place.open().await;
    let (young, old) = (stored_key("k1", 20), stored_key("k2", 10));
    ApiKeys::new(&store).put(young.clone()).await.unwrap();
    ApiKeys::new(&store).put(old.clone()).await.unwrap();
    let store = place.open().await;
    assert_eq!(ApiKeys::new(&store).get("k1").await.unwrap(), Some(young.clone()));
    assert_eq!(ApiKeys::new(&store).get("k3").await.unwrap(), None);
    assert_eq!(ApiKeys::new(&store).list().await.unwrap(), [old.clone(), young]);
    assert!(ApiKeys::new(&store).revoke("k2").await.unwrap());
    assert!(!ApiKeys::new(&store).revoke("k3").await.unwrap());
    assert_eq!(
        ApiKeys::new(&store).get("k2").await.unwrap(),
        Some(StoredKey { revoked: true, ..old })
    );
}

async fn a_key_that_was_of_no_use_any_more_took_its_place_for_ever(place: Place) {
    const YEAR: u64 = 365 * 86_400_000;
    let store = place.open().await;
    let keys = ApiKeys::new(&store);
    keys.put(stored_key("runs out", 1)).await.unwrap();
    for id in ["good", "revoked"] {
        keys.put(StoredKey { expires: None, ..stored_key(id, 2) }).await.unwrap();
    }
    assert!(keys.revoke("revoked").await.unwrap());
    place.clock().set(YEAR);
    assert_eq!(keys.list().await.unwrap().len(), 3, "their owners are told why they are refused");
    place.clock().set(YEAR + 9001);
    let left = keys.list().await.unwrap();
    assert_eq!(left.iter().map(|key| &*key.id).collect::<Vec<_>>(), ["good"]);
}

async fn what_is_taken_back_is_noticed_by_others(place: Place) {
    let (here, there) = (place.open().await, place.open().await);
    ApiKeys::new(&here).put(stored_key("k1", 1)).await.unwrap();
    here.poll().await.unwrap();
    there.poll().await.unwrap();
    let (mut ours, mut theirs) = (here.watch(&[KEYS]), there.watch(&[KEYS]));
    ours.mark_unchanged();
    theirs.mark_unchanged();
    assert!(ApiKeys::new(&here).revoke("k1").await.unwrap());
    assert!(ours.has_changed().unwrap(), "here at once");
    there.poll().await.unwrap();
    assert!(theirs.has_changed().unwrap(), "there when asked");
}

#[tokio::test]
async fn a_lease_is_held_by_one_and_fences_those_who_held_it() {
    let place = Place::redis().await;
    let (one, two) = (place.open().await, place.open().await);
    let at = |offset| Position { epoch: Epoch::new(1), offset };
    let first = one.lease("alerts", "one", None).await.unwrap().unwrap();
    assert_eq!(two.lease("alerts", "two", None).await.unwrap(), None);
    let renewed = one.lease("alerts", "one", Some(&first)).await.unwrap();
    assert_eq!(renewed.as_ref(), Some(&first));
    one.save(&first, at(5), Vec::new()).await.unwrap();
    one.release(&first).await.unwrap();
    let second = two.lease("alerts", "two", None).await.unwrap().unwrap();
    assert!(second.token() > first.token());
    let refused = one.save(&first, at(6), Vec::new()).await;
    assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
    let refused = one.save(&first, at(6), vec![part("a", 1, Some(b"late"))]).await;
    assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
    assert_eq!(two.load_cursor("alerts").await.unwrap(), Some(at(5)));
    assert_eq!(two.parts("alerts", "a", vec![1]).await.unwrap(), []);
}

#[tokio::test]
async fn what_a_failed_term_had_sent_was_taken_in_the_next_term_of_the_same_node() {
    let place = Place::redis().await;
    let store = place.open().await;
    let at = |offset| Position { epoch: Epoch::new(1), offset };
    let failed = lease(&store, "alerts").await;
    let next = lease(&store, "alerts").await;
    let refused = store.save(&failed, at(6), Vec::new()).await;
    assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
    let renewed = store.lease("alerts", "one", Some(&next)).await.unwrap();
    assert_eq!(renewed.as_ref(), Some(&next));
    store.save(&next, at(7), Vec::new()).await.unwrap();
}

#[tokio::test]
async fn all_nodes_have_one_secret_which_is_made_once() {
    let place = Place::redis().await;
    let (one, two) = (place.open().await, place.open().await);
    let (one, two) = (one.signing_secret().unwrap(), two.signing_secret().unwrap());
    assert_eq!(one.expose_secret(), two.expose_secret());
    assert!(one.expose_secret().len() >= 43);
}
