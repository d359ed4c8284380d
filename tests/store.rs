//! The store's files: whose they are, who may read them, and what becomes of files that are not ours.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    sync::Barrier,
};

use pulsehub::{
    position::{Epoch, Position},
    store::{SecretError, Store, StoreError},
    time::Clock,
};
use rusqlite::Connection;
use secrecy::ExposeSecret as _;

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

#[tokio::test]
async fn cursors_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let at = |offset| Position { epoch: Epoch::new(0x3f9a), offset };
    let store = open(folder.path()).unwrap();
    assert_eq!(store.load_cursor("alerts").await.unwrap(), None);
    store.save_cursor("alerts", at(7)).await.unwrap();
    store.save_cursor("sinks", at(1)).await.unwrap();
    store.save_cursor("alerts", at(9)).await.unwrap();
    drop(store);
    let store = open(folder.path()).unwrap();
    assert_eq!(store.load_cursor("alerts").await.unwrap(), Some(at(9)));
    assert_eq!(store.load_cursor("sinks").await.unwrap(), Some(at(1)));
}
