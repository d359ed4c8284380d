//! The store of many nodes: hashes in Redis.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ::redis::{Script, cmd};
use bytes::Bytes;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;

use super::{
    MAX_PASSES, NewPass, Part, PassKind, PassesFull, StoreError, StoredKey,
    secret::{MIN_SECRET, SecretError},
};
use crate::{
    id,
    lease::{Fence, LEASE},
    position::Position,
    redis::{Failure, Keys, Link, Server},
    time::{Clock, Millis},
};

/// The store of many nodes. Cheap to clone.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    link: Link,
    keys: Keys,
    clock: Clock,
    secret: SecretString,
    changes: watch::Sender<u64>,
    /// The count of changes in Redis when last asked.
    seen: AtomicU64,
    scripts: Scripts,
}

struct Scripts {
    put_pass: Script,
    take_pass: Script,
    revoke_key: Script,
    lease: Script,
    release: Script,
    save: Script,
}

/// Keys: the passes, their order by when they expire, whose each is, how many each has. ARGV: the time if it is set by
/// hand, the most of an owner, the most of a kind, the kind, the owner, name, value, expires. Gives 1 if it is kept, 2
/// and 3 if there is no room for the owner, or for anybody.
const PUT_PASS: &str = "
-- Redis' time is the measure: by the clock of a node that is ahead everybody would be signed out.
local time = redis.call('TIME')
local now = tonumber(ARGV[1]) or time[1] * 1000 + math.floor(time[2] / 1000)
local function count_down(field)
  if redis.call('HINCRBY', KEYS[4], field, -1) <= 0 then redis.call('HDEL', KEYS[4], field) end
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)) do
  redis.call('HDEL', KEYS[1], name)
  redis.call('ZREM', KEYS[2], name)
  local owner = redis.call('HGET', KEYS[3], name)
  if owner then
    redis.call('HDEL', KEYS[3], name)
    count_down(string.match(name, '^[^:]*:') .. owner)
    count_down(string.match(name, '^[^:]*'))
  end
end
local mine = ARGV[4] .. ':' .. ARGV[5]
if tonumber(redis.call('HGET', KEYS[4], mine) or '0') >= tonumber(ARGV[2]) then return 2 end
if tonumber(redis.call('HGET', KEYS[4], ARGV[4]) or '0') >= tonumber(ARGV[3]) then return 3 end
redis.call('HSET', KEYS[1], ARGV[6], ARGV[7])
redis.call('ZADD', KEYS[2], ARGV[8], ARGV[6])
redis.call('HSET', KEYS[3], ARGV[6], ARGV[5])
redis.call('HINCRBY', KEYS[4], mine, 1)
redis.call('HINCRBY', KEYS[4], ARGV[4], 1)
return 1";

/// Keys: as above, and the store. ARGV: name, and by how much the count of changes moves if the pass was there.
const TAKE_PASS: &str = "
local value = redis.call('HGET', KEYS[1], ARGV[1])
if not value then return false end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
local owner = redis.call('HGET', KEYS[3], ARGV[1])
if owner then
  redis.call('HDEL', KEYS[3], ARGV[1])
  for _, field in ipairs({string.match(ARGV[1], '^[^:]*:') .. owner, string.match(ARGV[1], '^[^:]*')}) do
    if redis.call('HINCRBY', KEYS[4], field, -1) <= 0 then redis.call('HDEL', KEYS[4], field) end
  end
end
if ARGV[2] ~= '0' then redis.call('HINCRBY', KEYS[5], 'changes', ARGV[2]) end
return value";

/// Keys: the API keys, the store. ARGV: the id, the key as taken back, the step of the count. One
/// script, so that no key is taken back without anybody being told.
const REVOKE_KEY: &str = "
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HINCRBY', KEYS[2], 'changes', ARGV[3])
return 1";

/// Keys: the lease. ARGV: the holder and how long it holds, by the clock of Redis, which all share.
const TAKE_LEASE: &str = "
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local lease = redis.call('HMGET', KEYS[1], 'holder', 'until', 'token')
local token = tonumber(lease[3] or '0')
if lease[1] ~= ARGV[1] then
  if lease[1] and now < tonumber(lease[2] or '0') then return false end
  token = token + 1
end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', string.format('%.0f', now + tonumber(ARGV[2])),
  'token', string.format('%.0f', token))
return token";

/// ARGV: the token.
const RELEASE: &str = "
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'holder', '', 'until', '0')
return 1";

/// Keys: the lease, the cursors, the consumer's rows, and each row. ARGV: the token, the name, the
/// position, then for each part the number of its row's key, the row, the column, whether there are
/// bytes, and the bytes.
const SAVE: &str = "
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
for at = 4, #ARGV, 5 do
  local key = KEYS[tonumber(ARGV[at])]
  if ARGV[at + 3] == '1' then
    redis.call('HSET', key, ARGV[at + 2], ARGV[at + 4])
    redis.call('SADD', KEYS[3], ARGV[at + 1])
  else
    redis.call('HDEL', key, ARGV[at + 2])
    if redis.call('EXISTS', key) == 0 then redis.call('SREM', KEYS[3], ARGV[at + 1]) end
  end
end
return 1";

/// The keys of passes, in the order of the scripts.
const PASSES: [&str; 4] = ["passes", "passes:expiry", "passes:owners", "passes:counts"];

impl Shared {
    /// Joins the store, and makes the secret if there is none.
    pub(super) async fn join(server: Server, clock: Clock) -> Result<Self, StoreError> {
        let keys = Keys::new(&server.config().prefix);
        let link = Link::new(server);
        let store = keys.of("store");
        let fresh = id::secret().map_err(SecretError::Random)?;
        let mut make = cmd("HSETNX");
        make.arg(&store).arg("secret").arg(fresh.expose_secret());
        link.run::<()>(&make).await?;
        let (secret, seen): (String, Option<u64>) =
            link.run(cmd("HMGET").arg(&store).arg(&["secret", "changes"])).await?;
        if secret.len() < MIN_SECRET {
            let message = format!("the secret in {store} is shorter than {MIN_SECRET} bytes");
            return Err(StoreError::Unreadable(message));
        }
        Ok(Self(Arc::new(Inner {
            link,
            keys,
            clock,
            secret: secret.into(),
            changes: watch::Sender::new(0),
            seen: AtomicU64::new(seen.unwrap_or(0)),
            scripts: Scripts {
                put_pass: Script::new(PUT_PASS),
                take_pass: Script::new(TAKE_PASS),
                revoke_key: Script::new(REVOKE_KEY),
                lease: Script::new(TAKE_LEASE),
                release: Script::new(RELEASE),
                save: Script::new(SAVE),
            },
        })))
    }

    pub(super) fn signing_secret(&self) -> SecretString {
        self.0.secret.clone()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    pub(super) async fn poll_changes(&self) -> Result<(), StoreError> {
        let found: Option<u64> =
            self.0.link.run(cmd("HGET").arg(self.key_of("store")).arg("changes")).await?;
        let found = found.unwrap_or(0);
        if self.0.seen.swap(found, Ordering::AcqRel) != found {
            self.0.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
        Ok(())
    }

    pub(super) async fn put_key(&self, key: &StoredKey) -> Result<(), StoreError> {
        let mut put = cmd("HSET");
        put.arg(self.key_of("keys")).arg(&key.id).arg(json(key)?);
        Ok(self.0.link.run(&put).await?)
    }

    pub(super) async fn key(&self, id: &str) -> Result<Option<StoredKey>, StoreError> {
        let stored: Option<String> =
            self.0.link.run(cmd("HGET").arg(self.key_of("keys")).arg(id)).await?;
        stored.map(|text| read_key(&text)).transpose()
    }

    pub(super) async fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        let stored: Vec<String> = self.0.link.run(cmd("HVALS").arg(self.key_of("keys"))).await?;
        let mut keys = stored.iter().map(|text| read_key(text)).collect::<Result<Vec<_>, _>>()?;
        keys.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(keys)
    }

    pub(super) async fn revoke_key(&self, id: &str) -> Result<bool, StoreError> {
        // Nothing else of a key ever changes, so that nobody's change can be overwritten.
        let Some(key) = self.key(id).await? else { return Ok(false) };
        let mut call = self.0.scripts.revoke_key.prepare_invoke();
        call.key(self.key_of("keys")).key(self.key_of("store"));
        call.arg(id).arg(json(&StoredKey { revoked: true, ..key })?).arg(step()?);
        let done = self.0.link.script::<()>(&call).await;
        self.tell_here(done)?;
        Ok(true)
    }

    pub(super) async fn put_pass(&self, pass: &NewPass) -> Result<(), StoreError> {
        let NewPass { kind, hash, owner, principal, expires, most } = pass;
        let mut call = self.0.scripts.put_pass.prepare_invoke();
        for key in PASSES {
            call.key(self.key_of(key));
        }
        let hand = self.0.clock.hand().map_or_else(String::new, |hand| hand.to_string());
        call.arg(hand).arg(most).arg(MAX_PASSES).arg(kind.name()).arg(owner);
        call.arg(name(*kind, hash)).arg(format!("{expires} {principal}")).arg(expires);
        match self.0.link.script::<u8>(&call).await? {
            2 => Err(PassesFull { kind: *kind, most: *most, is_owners: true }.into()),
            3 => Err(PassesFull { kind: *kind, most: MAX_PASSES, is_owners: false }.into()),
            _ => Ok(()),
        }
    }

    pub(super) async fn pass(
        &self,
        kind: PassKind,
        hash: &str,
    ) -> Result<Option<String>, StoreError> {
        let mut get = cmd("HGET");
        get.arg(self.key_of("passes")).arg(name(kind, hash));
        self.unexpired(self.0.link.run(&get).await?)
    }

    pub(super) async fn take_pass(
        &self,
        kind: PassKind,
        hash: &str,
    ) -> Result<Option<String>, StoreError> {
        self.unexpired(self.take(kind, hash, 0).await?)
    }

    async fn take(&self, kind: PassKind, hash: &str, step: u32) -> Result<Option<String>, Failure> {
        let mut call = self.0.scripts.take_pass.prepare_invoke();
        for key in PASSES.into_iter().chain(["store"]) {
            call.key(self.key_of(key));
        }
        self.0.link.script(call.arg(name(kind, hash)).arg(step)).await
    }

    pub(super) async fn revoke_pass(&self, kind: PassKind, hash: &str) -> Result<bool, StoreError> {
        let done = self.take(kind, hash, step()?).await;
        Ok(self.unexpired(self.tell_here(done)?)?.is_some())
    }

    /// Tells this node at once that something may have been taken back, also when Redis did not say so;
    /// the others notice the count.
    fn tell_here<T>(&self, done: Result<T, Failure>) -> Result<T, Failure> {
        self.0.changes.send_modify(|count| *count = count.wrapping_add(1));
        done
    }

    fn unexpired(&self, stored: Option<String>) -> Result<Option<String>, StoreError> {
        let Some(stored) = stored else { return Ok(None) };
        let read = || {
            let (expires, principal) = stored.split_once(' ')?;
            Some((expires.parse::<Millis>().ok()?, principal))
        };
        let (expires, principal) =
            read().ok_or_else(|| StoreError::Unreadable("a pass has no time".to_owned()))?;
        Ok((expires > self.0.clock.now()).then(|| principal.to_owned()))
    }

    pub(super) async fn lease(
        &self,
        name: &str,
        holder: &str,
    ) -> Result<Option<Fence>, StoreError> {
        let mut call = self.0.scripts.lease.key(self.key_of(&Fence::new(name, 0).key()));
        call.arg(holder).arg(LEASE.as_millis() as u64);
        let token: Option<u64> = self.0.link.script(&call).await?;
        Ok(token.map(|token| Fence::new(name, token)))
    }

    pub(super) async fn release(&self, fence: &Fence) -> Result<(), StoreError> {
        let mut call = self.0.scripts.release.key(self.lease_key(fence));
        // If it was another's already, there was nothing to give back.
        self.0.link.script::<bool>(call.arg(fence.token())).await?;
        Ok(())
    }

    pub(super) async fn save(
        &self,
        fence: &Fence,
        position: Position,
        parts: &[Part],
    ) -> Result<(), StoreError> {
        let name = fence.name();
        let mut call = self.0.scripts.save.key(self.lease_key(fence));
        call.key(self.key_of("cursors")).key(self.rows_key(name));
        call.arg(fence.token()).arg(name).arg(position.to_string());
        let mut keys = HashMap::new();
        for Part { row, column, bytes } in parts {
            let next = 4 + keys.len(); // Lua counts from one, and three stand before
            let key = *keys.entry(row).or_insert_with(|| {
                call.key(self.row_key(name, row));
                next
            });
            call.arg(key).arg(&**row).arg(column).arg(u8::from(bytes.is_some()));
            call.arg(bytes.as_deref().unwrap_or_default());
        }
        let is_saved: bool = self.0.link.script(&call).await?;
        if is_saved { Ok(()) } else { Err(StoreError::Fenced) }
    }

    pub(super) async fn parts(
        &self,
        name: &str,
        row: &str,
        columns: Vec<u64>,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        // One command, so that all parts are of one save.
        let mut read = cmd("HMGET");
        read.arg(self.row_key(name, row)).arg(&columns);
        let found: Vec<Option<Bytes>> = self.0.link.run(&read).await?;
        Ok(columns
            .into_iter()
            .zip(found)
            .filter_map(|(column, bytes)| Some((column, bytes?)))
            .collect())
    }

    pub(super) async fn rows(&self, name: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.0.link.run(cmd("SMEMBERS").arg(self.rows_key(name))).await?)
    }

    pub(super) async fn load_cursor(&self, name: &str) -> Result<Option<Position>, StoreError> {
        let stored: Option<String> =
            self.0.link.run(cmd("HGET").arg(self.key_of("cursors")).arg(name)).await?;
        let read = |text: String| {
            text.parse().map_err(|error| StoreError::Unreadable(format!("{text:?}: {error}")))
        };
        stored.map(read).transpose()
    }

    fn lease_key(&self, fence: &Fence) -> String {
        self.key_of(&fence.key())
    }

    fn rows_key(&self, name: &str) -> String {
        self.key_of(&format!("parts:{name}"))
    }

    fn row_key(&self, name: &str, row: &str) -> String {
        self.key_of(&format!("parts:{name}:{row}"))
    }

    fn key_of(&self, name: &str) -> String {
        self.0.keys.of(name)
    }
}

/// By how much the count of changes moves. Random: after a failover that lost some changes, the count
/// must not come back to what a node has seen.
fn step() -> Result<u32, StoreError> {
    let random = getrandom::u32().map_err(|error| SecretError::Random(error.into()))?;
    Ok(random | 1)
}

fn name(kind: PassKind, hash: &str) -> String {
    format!("{}:{hash}", kind.name())
}

fn json(key: &StoredKey) -> Result<String, StoreError> {
    serde_json::to_string(key).map_err(|error| StoreError::Unreadable(error.to_string()))
}

fn read_key(text: &str) -> Result<StoredKey, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Unreadable(error.to_string()))
}
