//! The contract of collections: `super` runs it against both stores.

use std::collections::BTreeSet;

use pulsehub::store::{
    Collection, CollectionFull, CollectionKind, DocumentVersion, MAX_DOCUMENT, MAX_PAGE,
    NewDocument, Store, StoreError, Writes,
};

use super::Place;

const NOTES: CollectionKind = CollectionKind {
    name: "notes",
    most: 100,
    most_of_owner: 100,
    synced: Writes::All,
    told: Writes::All,
};

fn notes(store: &Store) -> Collection<String> {
    store.collection(NOTES)
}

fn note(id: &str, owner: &str, expires: impl Into<Option<u64>>) -> NewDocument<String> {
    let (id, owner, body) = (id.to_owned(), owner.to_owned(), format!("\"ü\" of\n{id}"));
    NewDocument { id, owner, expires: expires.into(), body }
}

fn is_conflict<T>(done: Result<T, StoreError>) -> bool {
    matches!(done, Err(StoreError::Conflict))
}

pub(super) async fn a_document_is_written_over_only_as_it_was_read(place: Place) {
    let notes = notes(&place.open().await);
    let first = notes.put(note("a", "ada", None), None).await.unwrap();
    assert!(is_conflict(notes.put(note("a", "eve", None), None).await), "it is there");
    assert!(is_conflict(notes.put(note("b", "eve", None), Some(first)).await), "it is not");
    let found = notes.get("a").await.unwrap().unwrap();
    assert_eq!((&*found.id, &*found.owner, found.version), ("a", "ada", first));
    assert_eq!((found.expires, &*found.body), (None, "\"ü\" of\na"));

    let new = NewDocument { body: "new".to_owned(), ..note("a", "bob", 5000) };
    let second = notes.put(new, Some(first)).await.unwrap();
    assert_ne!(first, second);
    let again = self::notes(&place.open().await);
    let found = again.get("a").await.unwrap().unwrap();
    assert_eq!((&*found.owner, found.version, found.expires), ("bob", second, Some(5000)));
    assert_eq!(found.body, "new");
    assert!(is_conflict(notes.put(note("a", "ada", None), Some(first)).await));
    assert!(is_conflict(notes.delete("a", Some(first)).await));
    assert_eq!(again.get("a").await.unwrap().unwrap(), found, "a conflict changes nothing");
    assert!(ids(&notes, Some("ada")).await.is_empty(), "it is bob's now");
    assert_eq!(ids(&notes, Some("bob")).await, ["a"]);

    assert_eq!(notes.delete("a", Some(second)).await.unwrap().unwrap(), found);
    assert_eq!(notes.get("a").await.unwrap(), None);
    assert_eq!(notes.delete("a", Some(second)).await.unwrap(), None);
    // Who read the one that was there before does not overwrite this one.
    let third = notes.put(note("a", "ada", None), None).await.unwrap();
    assert!(third != first && third != second);
    assert!(is_conflict(notes.put(note("a", "bob", None), Some(second)).await));
    // Another collection has names of its own.
    let others: Collection<String> =
        place.open().await.collection(CollectionKind { name: "others", ..NOTES });
    assert_eq!(others.get("a").await.unwrap(), None);
    others.put(note("a", "ada", None), None).await.unwrap();
    others.delete("a", None).await.unwrap().unwrap();
    assert_eq!(notes.get("a").await.unwrap().unwrap().version, third);
}

pub(super) async fn documents_run_out(place: Place) {
    let store = place.open().await;
    let notes = notes(&store);
    let old = notes.put(note("a", "ada", 2000), None).await.unwrap();
    notes.put(note("b", "ada", 3000), None).await.unwrap();
    notes.put(note("c", "ada", None), None).await.unwrap();
    assert_eq!(ids(&notes, None).await, ["a", "b", "c"]);
    place.clock().set(1999);
    assert!(notes.get("a").await.unwrap().is_some());
    place.clock().set(2000);
    assert_eq!(notes.get("a").await.unwrap(), None);
    assert_eq!(ids(&notes, Some("ada")).await, ["b", "c"]);
    assert_eq!(notes.delete("a", None).await.unwrap(), None);
    // What was taken back while the clock was ahead stays away once that is put right.
    place.clock().set(1000);
    assert_eq!(notes.get("a").await.unwrap(), None);
    place.clock().set(3000);
    assert!(is_conflict(notes.put(note("b", "ada", 9000), Some(old)).await));
    notes.put(note("b", "eve", 9000), None).await.unwrap();
    assert_eq!(ids(&notes, Some("ada")).await, ["c"]);
    assert_eq!(ids(&notes, Some("eve")).await, ["b"]);
    // It has another end now, and then none.
    let version = notes.get("b").await.unwrap().unwrap().version;
    notes.put(note("b", "eve", None), Some(version)).await.unwrap();
    place.clock().set(9000);
    notes.put(note("d", "eve", None), None).await.unwrap();
    assert_eq!(ids(&notes, Some("eve")).await, ["b", "d"]);
}

pub(super) async fn a_page_of_documents_could_be_a_gigabyte(place: Place) {
    let notes = notes(&place.open().await);
    let mut all = Vec::new();
    for n in 0..12 {
        let id = format!("{n:02}");
        let body = "x".repeat(900_000);
        notes.put(NewDocument { body, ..note(&id, "ada", None) }, None).await.unwrap();
        all.push(id);
    }
    for owner in [None, Some("ada")] {
        let page = notes.list(owner, None, MAX_PAGE).await.unwrap();
        assert_eq!((page.documents.len(), page.next.is_some()), (4, true));
        assert_eq!(ids(&notes, owner).await, all);
    }
}

pub(super) async fn documents_are_listed_in_pages(place: Place) {
    let store = place.open().await;
    let notes = notes(&store);
    assert!(notes.list(None, None, 4).await.unwrap().documents.is_empty());
    // None of them is a part of another's name, whatever stands between it and an id.
    let owners = ["", "a", "a\nb", "a\0", "1:a", "ab", "ü"];
    let mut all = BTreeSet::new();
    for (n, owner) in owners.iter().enumerate() {
        for m in 0..=n {
            let id = format!("{m}{owner}{n}");
            notes.put(note(&id, owner, None), None).await.unwrap();
            all.insert(id);
        }
    }
    notes.put(note("", "nobody", None), None).await.unwrap();
    all.insert(String::new());
    let notes = self::notes(&place.open().await);
    for (n, owner) in owners.iter().enumerate() {
        let found = ids(&notes, Some(owner)).await;
        let wanted: Vec<_> = (0..=n).map(|m| format!("{m}{owner}{n}")).collect();
        assert_eq!(found, wanted, "{owner:?}");
    }
    assert!(ids(&notes, Some("b")).await.is_empty());
    let found = ids(&notes, None).await;
    assert_eq!(found.len(), all.len(), "each once: {found:?}");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), all);
}

/// Page by page.
async fn ids(notes: &Collection<String>, owner: Option<&str>) -> Vec<String> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = notes.list(owner, after, 2).await.unwrap();
        assert!(page.documents.len() <= 2);
        ids.extend(page.documents.into_iter().map(|document| document.id));
        after = page.next;
        if after.is_none() {
            return ids;
        }
    }
}

pub(super) async fn nobodys_documents_go_because_somebody_makes_too_many(place: Place) {
    let store = place.open().await;
    let of = |name| CollectionKind { name, most_of_owner: 3, ..NOTES };
    let (tickets, sessions) = (of("tickets"), of("sessions"));
    let put = async |kind: CollectionKind, id: &str, owner: &str, expires: u64| {
        let full = CollectionFull { name: kind.name, most: 3, is_owners: true };
        match store.collection(kind).put(note(id, owner, expires), None).await {
            Ok(_) => true,
            Err(StoreError::Full(found)) => {
                assert_eq!(found, full);
                false
            }
            Err(error) => panic!("{error}"),
        }
    };
    let has =
        async |id: &str| store.collection::<String>(sessions).get(id).await.unwrap().is_some();
    let delete = async |kind, id: &str| {
        store.collection::<String>(kind).delete(id, None).await.unwrap().is_some()
    };
    assert!(put(sessions, "of bob", "bob", 1500).await); // the first to run out
    let mut kept = 0;
    for n in 0..10 {
        kept += usize::from(put(sessions, &format!("s{n}"), "eve", 9000).await);
    }
    assert_eq!(kept, 3);
    assert!(put(tickets, "t", "eve", 2000).await, "collections are counted apart");
    assert!(put(sessions, "again", "bob", 9000).await, "and so are owners");
    assert!(has("of bob").await && has("s0").await && !has("s9").await);
    // What is there already is no more for being written over.
    let version = store.collection::<String>(sessions).get("s0").await.unwrap().unwrap().version;
    let over = store.collection(sessions).put(note("s0", "eve", 9000), Some(version)).await;
    assert!(over.is_ok());
    // But of another owner it is one more.
    let version = store.collection::<String>(sessions).get("again").await.unwrap().unwrap().version;
    let over = store.collection(sessions).put(note("again", "eve", 9000), Some(version)).await;
    assert!(matches!(over, Err(StoreError::Full(_))), "{over:?}");
    // What was removed or has run out counts no more.
    assert!(delete(sessions, "s0").await);
    assert!(put(sessions, "new", "eve", 9000).await);
    assert!(!put(sessions, "too many", "eve", 9000).await);
    for id in ["t1", "t2"] {
        assert!(put(tickets, id, "eve", 2000).await);
    }
    assert!(!put(tickets, "t3", "eve", 2000).await);
    assert!(delete(tickets, "t1").await);
    assert!(put(tickets, "t3", "eve", 2000).await);
    place.clock().set(2000);
    for id in ["t4", "t5", "t6"] {
        assert!(put(tickets, id, "eve", 3000).await, "{id}");
    }
    assert!(!put(tickets, "t7", "eve", 3000).await);
}

pub(super) async fn a_collection_holds_no_more_than_it_may(place: Place) {
    let store = place.open().await;
    let few = store.collection(CollectionKind { most: 3, ..NOTES });
    for id in ["a", "b", "c"] {
        few.put(note(id, id, 2000), None).await.unwrap();
    }
    let full = few.put(note("d", "d", 2000), None).await.unwrap_err();
    assert_eq!(
        full.to_string(),
        "there are 3 notes in all already: end some, or wait until they run out"
    );
    place.clock().set(2000);
    few.put(note("d", "d", 3000), None).await.unwrap();
}

pub(super) async fn a_document_is_bounded(place: Place) {
    let notes = notes(&place.open().await);
    let big = |bytes: usize| NewDocument { body: "x".repeat(bytes), ..note("a", "ada", None) };
    let too_large = notes.put(big(MAX_DOCUMENT), None).await;
    assert!(matches!(too_large, Err(StoreError::TooLarge { .. })), "{too_large:?}");
    let most = MAX_DOCUMENT - "\"\"aada".len();
    notes.put(big(most), None).await.unwrap();
    assert_eq!(notes.get("a").await.unwrap().unwrap().body.len(), most);
}

pub(super) async fn a_document_is_taken_once(place: Place) {
    let (one, two) = (place.open().await, place.open().await);
    for round in 0..5 {
        let id = round.to_string();
        notes(&one).put(note(&id, "ada", 2000), None).await.unwrap();
        let tasks: Vec<_> = (0..8)
            .map(|n| {
                let (notes, id) = (notes(if n % 2 == 0 { &one } else { &two }), id.clone());
                tokio::spawn(async move { notes.delete(&id, None).await.unwrap() })
            })
            .collect();
        let mut taken = 0;
        for task in tasks {
            taken += usize::from(task.await.unwrap().is_some());
        }
        assert_eq!(taken, 1, "round {round}");
    }
}

pub(super) async fn changes_are_told_to_who_watches_the_collection(place: Place) {
    let (here, there) = (place.open().await, place.open().await);
    let of = |name, told| CollectionKind { name, told, ..NOTES };
    let (all, changes, none) =
        (of("all", Writes::All), of("changes", Writes::Changes), of("none", Writes::None));
    let moved_here = here.watch(&[all, changes, none]);
    for (kind, told) in [(all, [true; 3]), (changes, [false, true, true]), (none, [false; 3])] {
        let notes: Collection<String> = here.collection(kind);
        let mut theirs = there.watch(&[kind]);
        let other = here.watch(&[of("other", Writes::All)]);
        let mut version: Option<DocumentVersion> = None;
        for (step, is_told) in told.into_iter().enumerate() {
            there.poll().await.unwrap();
            theirs.mark_unchanged();
            let before = *moved_here.borrow();
            if step < 2 {
                version = Some(notes.put(note("a", "ada", None), version).await.unwrap());
            } else {
                notes.delete("a", None).await.unwrap().unwrap();
            }
            let name = kind.name;
            assert_eq!(*moved_here.borrow() != before, is_told, "{name} {step}, here at once");
            there.poll().await.unwrap();
            assert!(theirs.has_changed().unwrap() || !is_told, "{name} {step}, there when asked");
            let before = *moved_here.borrow();
            assert!(is_conflict(notes.put(note("b", "ada", None), version).await));
            assert!(notes.delete("b", None).await.unwrap().is_none());
            assert_eq!(*moved_here.borrow(), before, "nothing was changed");
        }
        assert_eq!(*other.borrow(), 0, "who watches something else");
    }
}
