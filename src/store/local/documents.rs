//! Collections in the store of one node.

use rusqlite::{
    Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params,
    types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef},
};

use super::LocalStore;
use crate::{
    store::{
        CollectionFull, CollectionKind, Document, DocumentPage, DocumentPlace, DocumentVersion,
        PAGE_BYTES, StoreError,
    },
    time::Millis,
};

impl LocalStore {
    pub(in crate::store) async fn get(
        &self,
        kind: CollectionKind,
        id: String,
    ) -> Result<Option<Document<String>>, StoreError> {
        let now = self.0.clock.now();
        self.run(move |connection| Ok(find(connection, kind, &id, now)?)).await
    }

    pub(in crate::store) async fn list(
        &self,
        kind: CollectionKind,
        owner: Option<String>,
        after: Option<DocumentPlace>,
        limit: usize,
    ) -> Result<DocumentPage<String>, StoreError> {
        let now = self.0.clock.now();
        self.run(move |connection| {
            let than = if after.is_some() { ">" } else { ">=" };
            let place = after.unwrap_or_default();
            let (which, last, owner) = match owner {
                Some(owner) => ("owner = ? AND id", "?", owner),
                None => ("(owner, id)", "(?, ?)", place.owner),
            };
            let select = format!(
                "{SELECT} WHERE collection = ? AND {which} {than} {last}
                 AND (expires IS NULL OR expires > ?) ORDER BY owner, id LIMIT ?"
            );
            let mut select = connection.prepare_cached(&select)?;
            let mut rows = select.query(params![kind.name, owner, place.id, now, limit])?;
            let (mut documents, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let document = read(row)?;
                bytes += document.body.len();
                if bytes > PAGE_BYTES && !documents.is_empty() {
                    return Ok(DocumentPage::new(documents, true));
                }
                documents.push(document);
            }
            let is_more = documents.len() == limit;
            Ok(DocumentPage::new(documents, is_more))
        })
        .await
    }

    pub(in crate::store) async fn put(
        &self,
        kind: CollectionKind,
        document: Document<String>,
        over: Option<DocumentVersion>,
    ) -> Result<(), StoreError> {
        let (now, settled) = (self.0.clock.now(), self.0.clock.settled());
        let (inner, is_new) = (self.0.clone(), over.is_none());
        self.run(move |connection| {
            wait_for_disk(connection, kind.synced.include(is_new))?;
            let put = put(connection, kind, &document, over, now, settled);
            if !matches!(put, Err(StoreError::Conflict | StoreError::Full(_))) {
                inner.tell(kind, is_new);
            }
            wait_for_disk(connection, true)?;
            put
        })
        .await
    }

    pub(in crate::store) async fn delete(
        &self,
        kind: CollectionKind,
        id: String,
        over: Option<DocumentVersion>,
    ) -> Result<Option<Document<String>>, StoreError> {
        let (now, inner) = (self.0.clock.now(), self.0.clone());
        self.run(move |connection| {
            wait_for_disk(connection, kind.synced.include(false))?;
            let deleted = delete(connection, kind, &id, over, now);
            if !matches!(deleted, Ok(None) | Err(StoreError::Conflict)) {
                inner.tell(kind, false);
            }
            wait_for_disk(connection, true)?;
            deleted
        })
        .await
    }
}

/// Leaves the disk out of what is lost without harm when the power fails.
fn wait_for_disk(connection: &Connection, wait: bool) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", if wait { "full" } else { "normal" })
}

const SELECT: &str = "SELECT id, owner, version, expires, body FROM documents";

fn find(
    connection: &Connection,
    kind: CollectionKind,
    id: &str,
    now: Millis,
) -> rusqlite::Result<Option<Document<String>>> {
    let select =
        format!("{SELECT} WHERE collection = ? AND id = ? AND (expires IS NULL OR expires > ?)");
    connection.prepare_cached(&select)?.query_row(params![kind.name, id, now], read).optional()
}

/// What has run out is dropped only by a clock that is `settled`, and takes no place of its owner's before.
fn put(
    connection: &mut Connection,
    kind: CollectionKind,
    document: &Document<String>,
    over: Option<DocumentVersion>,
    now: Millis,
    settled: Millis,
) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    drop_expired(&transaction, settled)?;
    let before = find(&transaction, kind, &document.id, now)?;
    let done = if before.as_ref().map(|before| before.version) == over {
        let room = has_room(&transaction, kind, &document.owner, before.as_ref(), now)?;
        if room.is_ok() {
            write(&transaction, kind, document)?;
        }
        room.map_err(StoreError::from)
    } else {
        Err(StoreError::Conflict)
    };
    // Also where the document is not kept: room was made.
    transaction.commit()?;
    done
}

/// Removed at a time of what has run out.
const PIECE: usize = 1000;

fn drop_expired(transaction: &Transaction<'_>, settled: Millis) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "DELETE FROM documents WHERE (collection, id) IN
             (SELECT collection, id FROM documents WHERE expires <= ? ORDER BY expires LIMIT ?)",
        )?
        .execute(params![settled, PIECE])?;
    Ok(())
}

fn has_room(
    transaction: &Transaction<'_>,
    kind: CollectionKind,
    owner: &str,
    before: Option<&Document<String>>,
    now: Millis,
) -> rusqlite::Result<Result<(), CollectionFull>> {
    let CollectionKind { name, most, most_of_owner, .. } = kind;
    let count = |whose: &str, values: &[&dyn ToSql]| -> rusqlite::Result<usize> {
        let select = format!("SELECT count(*) FROM documents WHERE collection = ? {whose}");
        transaction.prepare_cached(&select)?.query_row(values, |row| row.get(0))
    };
    let is_anew = before.is_none_or(|before| before.owner != owner);
    let of_owner = "AND owner = ? AND (expires IS NULL OR expires > ?)";
    if is_anew && count(of_owner, &[&name, &owner, &now])? >= most_of_owner {
        return Ok(Err(CollectionFull { name, most: most_of_owner, is_owners: true }));
    }
    if before.is_none() && count("", &[&name])? >= most {
        return Ok(Err(CollectionFull { name, most, is_owners: false }));
    }
    Ok(Ok(()))
}

/// In place of one that has run out as well.
fn write(
    transaction: &Transaction<'_>,
    kind: CollectionKind,
    document: &Document<String>,
) -> rusqlite::Result<()> {
    let Document { id, owner, version, expires, body } = document;
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO documents(collection, id, owner, version, expires, body)
             VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![kind.name, id, owner, version, expires, body])?;
    Ok(())
}

/// The commit says whether the document is really gone: without one, the statement would end unasked, and a full disk
/// would leave a ticket for a second use.
fn delete(
    connection: &mut Connection,
    kind: CollectionKind,
    id: &str,
    over: Option<DocumentVersion>,
    now: Millis,
) -> Result<Option<Document<String>>, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Also what seems to have run out: by a clock that is ahead, it would be good again once that is put right.
    let Some(found) = find(&transaction, kind, id, 0)? else { return Ok(None) };
    if over.is_some_and(|over| over != found.version) {
        return Err(StoreError::Conflict);
    }
    transaction
        .prepare_cached("DELETE FROM documents WHERE collection = ? AND id = ?")?
        .execute(params![kind.name, id])?;
    transaction.commit()?;
    Ok(Some(found).filter(|found| found.expires.is_none_or(|expires| expires > now)))
}

fn read(row: &Row<'_>) -> rusqlite::Result<Document<String>> {
    Ok(Document {
        id: row.get(0)?,
        owner: row.get(1)?,
        version: row.get(2)?,
        expires: row.get(3)?,
        body: row.get(4)?,
    })
}

impl ToSql for DocumentVersion {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.to_string().into())
    }
}

impl FromSql for DocumentVersion {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map_err(|error| FromSqlError::Other(Box::new(error)))
    }
}
