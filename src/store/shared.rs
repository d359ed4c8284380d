//! The store of many nodes: hashes in Redis.

mod documents;
mod upgrade;

use std::{collections::HashMap, sync::Arc};

use ::redis::{Cmd, Script, cmd};
use bytes::Bytes;
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;

use self::documents::DocumentScripts;
use super::{
    CollectionKind, Part, StoreError,
    secret::{MIN_SECRET, SecretError},
    watchers::Watchers,
};
use crate::{
    id,
    lease::{Fence, LEASE},
    position::Position,
    redis::{self, Keys, Link, Server},
    time::{Clock, Millis},
};

/// The store of many nodes. Cheap to clone.
#[derive(Clone)]
pub struct SharedStore(Arc<SharedInner>);

struct SharedInner {
    link: Link,
    /// For changes of documents. Waiting for replicas blocks the whole connection, so they have one of their own.
    changing: Link,
    keys: Keys,
    clock: Clock,
    secret: SecretString,
    watchers: Watchers,
    /// The counts of changes that Redis last answered; locked to replace them.
    seen: Mutex<HashMap<String, u64>>,
    scripts: StoreScripts,
}

struct StoreScripts {
    documents: DocumentScripts,
    lease: Script,
    release: Script,
    save: Script,
}

/// Keys: the lease. ARGV: the holder; how long it holds the lease, by the clock of Redis, which all nodes share; the token
/// it has already, which it keeps; and a random number by which a new token is higher than the last. The number is random
/// because a failover may lose the newest token, and the next holder must not get the same one. A holder that starts again
/// gets a new token, because what it sent before may still arrive.
const TAKE_LEASE: &str = "
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local lease = redis.call('HMGET', KEYS[1], 'holder', 'until', 'token')
local token = tonumber(lease[3] or '0')
if lease[1] ~= ARGV[1] or lease[3] ~= ARGV[3] then
  if lease[1] ~= ARGV[1] and lease[1] and now < tonumber(lease[2] or '0') then return false end
  token = token + ARGV[4]
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

impl SharedStore {
    /// Joins the store, and makes the secret if there is none.
    pub(super) async fn join(server: Server, clock: Clock) -> Result<Self, StoreError> {
        let keys = Keys::new(&server.config().prefix);
        let (link, changing) = (Link::new(server.clone()), Link::new(server));
        let store = keys.of("store");
        if let Some(reason) = redis::refuse_version(&link, &keys).await? {
            return Err(StoreError::Version(reason));
        }
        let fresh = id::secret().map_err(SecretError::Random)?;
        let mut make = cmd("HSETNX");
        make.arg(&store).arg("secret").arg(fresh.expose_secret());
        link.run::<()>(&make).await?;
        let secret: String = link.run(cmd("HGET").arg(&store).arg("secret")).await?;
        if secret.len() < MIN_SECRET {
            let message = format!("the secret in {store} is shorter than {MIN_SECRET} bytes");
            return Err(StoreError::Unreadable(message));
        }
        upgrade::upgrade(&link, &keys).await?;
        let seen = link.run(&count_changes(&keys)).await?;
        Ok(Self(Arc::new(SharedInner {
            link,
            changing,
            keys,
            clock,
            secret: secret.into(),
            watchers: Watchers::default(),
            seen: Mutex::new(seen),
            scripts: StoreScripts {
                documents: DocumentScripts::new(),
                lease: Script::new(TAKE_LEASE),
                release: Script::new(RELEASE),
                save: Script::new(SAVE),
            },
        })))
    }

    pub(super) fn signing_secret(&self) -> SecretString {
        self.0.secret.clone()
    }

    pub(super) fn now(&self) -> Millis {
        self.0.clock.now()
    }

    pub(super) fn watch(&self, kinds: &[CollectionKind]) -> watch::Receiver<u64> {
        self.0.watchers.watch(kinds)
    }

    /// Of each collection Redis counts the changes.
    pub(super) async fn poll(&self) -> Result<(), StoreError> {
        let SharedInner { link, keys, seen, watchers, .. } = &*self.0;
        let mut ask = ::redis::pipe();
        ask.add_command(count_changes(keys));
        ask.add_command(redis::ask_version(keys)).add_command(upgrade::count_old(keys));
        let (found, version, old) =
            link.run_all::<(HashMap<String, u64>, Option<String>, u32)>(&ask).await?;
        // A failover may have brought back what was brought up to date before.
        let is_behind = redis::is_behind(version.as_deref());
        if is_behind {
            link.run::<()>(&redis::set_version(keys)).await?;
        }
        if is_behind || old > 0 {
            upgrade::upgrade(link, keys).await?;
            tracing::warn!(
                "Redis had keys of an earlier version again; they were brought up to date"
            );
            watchers.tell(|_| true);
        }
        let seen = std::mem::replace(&mut *seen.lock(), found.clone());
        watchers.tell(|name| found.get(name) != seen.get(name));
        Ok(())
    }

    pub(super) async fn lease(
        &self,
        name: &str,
        holder: &str,
        held: Option<&Fence>,
    ) -> Result<Option<Fence>, StoreError> {
        let mut call = self.0.scripts.lease.key(self.key_of(&Fence::new(name, 0).key()));
        let token = held.map_or_else(String::new, |held| held.token().to_string());
        let random = getrandom::u32().map_err(|error| SecretError::Random(error.into()))?;
        call.arg(holder).arg(LEASE.as_millis() as u64).arg(token).arg(random % 0xffff + 1);
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

fn count_changes(keys: &Keys) -> Cmd {
    let mut count = cmd("HGETALL");
    count.arg(keys.of("changes"));
    count
}
