//! Collections in the store of many nodes: of each a hash with the documents, and beside it, in their order, which are
//! whose, and which run out when.
//!
//! A document is kept as its version, its end or 0, the length of its owner in bytes, the owner, and the body:
//! `3f9a1c2b4d5e6f70 1790000000000 7 key:ada{"name":…}`.

use ::redis::{Script, ScriptInvocation, Value, cmd};

use super::{SharedInner, SharedStore};
use crate::{
    redis::{Keys, RanOn},
    store::{
        CollectionFull, CollectionKind, Document, DocumentPage, DocumentPlace, DocumentVersion,
        PAGE_BYTES, SecretError, StoreError,
    },
};

/// What is done inside Redis, all of it or nothing.
pub(super) struct DocumentScripts {
    list: Script,
    put: Script,
    delete: Script,
}

/// KEYS[1] documents, KEYS[2] which are whose, KEYS[3] which run out when, KEYS[4] the counts of changes.
const PRELUDE: &str = "
local function head(value)
  local version, expires, size, at = string.match(value, '^(%x+) (%d+) (%d+) ()')
  return version, tonumber(expires), string.sub(value, at, at + size - 1)
end
-- Of an owner, and of nobody else, whatever their names are.
local function prefix(owner) return #owner .. ':' .. owner end
local function remove(id, value)
  redis.call('ZREM', KEYS[3], id)
  if not value then return end
  local _, _, owner = head(value)
  redis.call('HDEL', KEYS[1], id)
  redis.call('ZREM', KEYS[2], prefix(owner) .. id)
end
local function tell(name, step)
  if step ~= '0' then redis.call('HINCRBY', KEYS[4], name, step) end
end";

/// ARGV: the time if it is set by hand, the collection, the id, the owner, the end or '', the document as it is kept, the
/// version it replaces or '', the most of an owner, the most of all, the step of the count. Gives 1 if it is kept, 2 and 3
/// if there is no room for the owner, or for anybody, and 4 if another version is there.
const PUT: &str = "
-- Redis' time is the measure: by the clock of a node that is ahead everybody would be signed out.
local time = redis.call('TIME')
local now = tonumber(ARGV[1]) or time[1] * 1000 + math.floor(time[2] / 1000)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 1000)) do
  remove(id, redis.call('HGET', KEYS[1], id))
end
local id, owner, over = ARGV[3], ARGV[4], ARGV[7]
local before = redis.call('HGET', KEYS[1], id)
local version, expires, last_owner = '', 0, nil
if before then version, expires, last_owner = head(before) end
if expires > 0 and expires <= now then
  remove(id, before)
  before, version, last_owner = false, '', nil
end
if version ~= over then return 4 end
if owner ~= last_owner then
  local from = prefix(owner)
  local count = redis.call('ZLEXCOUNT', KEYS[2], '[' .. from, '(' .. from .. '\\255')
  if count >= tonumber(ARGV[8]) then return 2 end
end
if before then
  remove(id, before)
elseif redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[9]) then
  return 3
end
redis.call('HSET', KEYS[1], id, ARGV[6])
redis.call('ZADD', KEYS[2], 0, prefix(owner) .. id)
if ARGV[5] ~= '' then redis.call('ZADD', KEYS[3], ARGV[5], id) end
tell(ARGV[2], ARGV[10])
return 1";

/// ARGV: the collection, the id, the version that is to go or '', the step of the count. Gives what was there, 4 if that is
/// another version.
const DELETE: &str = "
local value = redis.call('HGET', KEYS[1], ARGV[2])
if not value then return false end
if ARGV[3] ~= '' and ARGV[3] ~= (head(value)) then return 4 end
remove(ARGV[2], value)
tell(ARGV[1], ARGV[4])
return value";

/// ARGV: from where to where, how many, and how many bytes of them. Gives whether there may be more, id, document, id,
/// document…
const LIST: &str = "
local members = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])
local found, bytes = { #members == tonumber(ARGV[3]) and '1' or '0' }, 0
for _, member in ipairs(members) do
  local size, at = string.match(member, '^(%d+):()')
  local id = string.sub(member, at + size)
  local document = redis.call('HGET', KEYS[1], id)
  if document then
    bytes = bytes + #document
    if #found > 1 and bytes > tonumber(ARGV[4]) then
      found[1] = '1'
      break
    end
    found[#found + 1] = id
    found[#found + 1] = document
  end
end
return found";

impl DocumentScripts {
    pub(super) fn new() -> Self {
        let script = |text: &str| Script::new(&format!("{PRELUDE}\n{text}"));
        Self { list: script(LIST), put: script(PUT), delete: script(DELETE) }
    }
}

impl SharedStore {
    pub(in crate::store) async fn get(
        &self,
        kind: CollectionKind,
        id: &str,
    ) -> Result<Option<Document<String>>, StoreError> {
        let [documents, ..] = keys(&self.0.keys, kind.name);
        let found: Option<String> = self.0.link.run(cmd("HGET").arg(documents).arg(id)).await?;
        let found = found.map(|value| read(id.to_owned(), &value)).transpose()?;
        Ok(found.filter(|found| self.is_good(found)))
    }

    pub(in crate::store) async fn list(
        &self,
        kind: CollectionKind,
        owner: Option<&str>,
        after: Option<DocumentPlace>,
        limit: usize,
    ) -> Result<DocumentPage<String>, StoreError> {
        let (from, to) = match owner {
            Some(owner) => (format!("[{}", prefix(owner)).into_bytes(), {
                // No text has this byte.
                [b"(", prefix(owner).as_bytes(), b"\xff"].concat()
            }),
            None => (b"-".to_vec(), b"+".to_vec()),
        };
        let from = after.map_or(from, |after| {
            format!("({}{}", prefix(owner.unwrap_or(&after.owner)), after.id).into_bytes()
        });
        let mut call = self.call(&self.0.scripts.documents.list, kind);
        call.arg(from).arg(to).arg(limit).arg(PAGE_BYTES);
        let found: Vec<String> = self.0.link.script(&call).await?;
        let mut documents = Vec::with_capacity(found.len() / 2);
        let mut found = found.into_iter();
        let is_more = found.next().is_some_and(|is_more| is_more == "1");
        while let (Some(id), Some(value)) = (found.next(), found.next()) {
            documents.push(read(id, &value)?);
        }
        let mut page = DocumentPage::new(documents, is_more);
        page.documents.retain(|document| self.is_good(document));
        Ok(page)
    }

    pub(in crate::store) async fn put(
        &self,
        kind: CollectionKind,
        document: &Document<String>,
        over: Option<DocumentVersion>,
    ) -> Result<(), StoreError> {
        let Document { id, owner, version, expires, body } = document;
        let is_new = over.is_none();
        let mut call = self.call(&self.0.scripts.documents.put, kind);
        call.arg(self.0.clock.hand().map_or_else(String::new, |hand| hand.to_string()));
        call.arg(kind.name).arg(id).arg(owner);
        call.arg(expires.map_or_else(String::new, |expires| expires.to_string()));
        let expires = expires.unwrap_or(0);
        call.arg(format!("{version} {expires} {} {owner}{body}", owner.len()));
        call.arg(over.map_or_else(String::new, |over| over.to_string()));
        call.arg(kind.most_of_owner).arg(kind.most).arg(step(kind, is_new)?);
        let done = self.0.changing.script_on::<u8>(&call).await;
        let full = |most, is_owners| CollectionFull { name: kind.name, most, is_owners };
        match done {
            Ok((2, _)) => Err(full(kind.most_of_owner, true).into()),
            Ok((3, _)) => Err(full(kind.most, false).into()),
            Ok((4, _)) => Err(StoreError::Conflict),
            done => {
                self.tell(kind, is_new);
                let (_, ran_on) = done?;
                if !is_new || kind.synced.include(true) {
                    self.replicated(ran_on).await?;
                }
                Ok(())
            }
        }
    }

    pub(in crate::store) async fn delete(
        &self,
        kind: CollectionKind,
        id: &str,
        over: Option<DocumentVersion>,
    ) -> Result<Option<Document<String>>, StoreError> {
        let mut call = self.call(&self.0.scripts.documents.delete, kind);
        call.arg(kind.name).arg(id).arg(over.map_or_else(String::new, |over| over.to_string()));
        call.arg(step(kind, false)?);
        let done = self.0.changing.script_on::<Value>(&call).await;
        if !matches!(done, Ok((Value::Nil | Value::Int(_), _))) {
            self.tell(kind, false);
        }
        let (found, ran_on) = done?;
        // Also where it is gone already: whoever removed it may not have been answered.
        self.replicated(ran_on).await?;
        match found {
            Value::Nil => Ok(None),
            Value::Int(_) => Err(StoreError::Conflict),
            value => {
                let value: String = ::redis::from_redis_value(value)
                    .map_err(|error| StoreError::Unreadable(error.to_string()))?;
                Ok(Some(read(id.to_owned(), &value)?).filter(|found| self.is_good(found)))
            }
        }
    }

    /// What was taken back or used up must not come back with the replica that takes over.
    async fn replicated(&self, ran_on: RanOn) -> Result<(), StoreError> {
        let SharedInner { changing, .. } = &*self.0;
        // Sooner than the answer itself is given up.
        Ok(changing.replicated(ran_on, changing.timeout() / 2).await?)
    }

    /// Tells this node at once what may have been done, also where Redis did not say so; the others notice the count.
    fn tell(&self, kind: CollectionKind, is_new: bool) {
        if kind.told.include(is_new) {
            self.0.watchers.tell(|name| name == kind.name);
        }
    }

    fn is_good(&self, document: &Document<String>) -> bool {
        document.expires.is_none_or(|expires| expires > self.0.clock.now())
    }

    fn call<'a>(&self, script: &'a Script, kind: CollectionKind) -> ScriptInvocation<'a> {
        let mut call = script.prepare_invoke();
        call.key(&keys(&self.0.keys, kind.name)).key(self.key_of("changes"));
        call
    }
}

/// The keys of a collection.
pub(super) fn keys(keys: &Keys, name: &str) -> [String; 3] {
    [
        keys.of(&format!("documents:{name}")),
        keys.of(&format!("documents:{name}:owners")),
        keys.of(&format!("documents:{name}:ends")),
    ]
}

fn prefix(owner: &str) -> String {
    format!("{}:{owner}", owner.len())
}

/// By how much the count of changes moves, 0 if it does not. Random: after a failover that lost some changes, the count
/// must not come back to what a node has seen.
fn step(kind: CollectionKind, is_new: bool) -> Result<u32, StoreError> {
    if !kind.told.include(is_new) {
        return Ok(0);
    }
    let random = getrandom::u32().map_err(|error| SecretError::Random(error.into()))?;
    Ok(random | 1)
}

fn read(id: String, value: &str) -> Result<Document<String>, StoreError> {
    let parts = || {
        let mut fields = value.splitn(4, ' ');
        let version = fields.next()?.parse().ok()?;
        let expires = fields.next()?.parse().ok()?;
        let size: usize = fields.next()?.parse().ok()?;
        let (owner, body) = fields.next()?.split_at_checked(size)?;
        let (owner, body) = (owner.to_owned(), body.to_owned());
        let expires = Some(expires).filter(|expires| *expires > 0);
        Some(Document { id: id.clone(), owner, version, expires, body })
    };
    parts().ok_or_else(|| StoreError::Unreadable(format!("the value of {id} is not a document")))
}
