//! What an earlier version has in Redis under keys of its own.

use ::redis::{Cmd, Script, cmd};

use super::documents;
use crate::{
    redis::{Keys, Link},
    store::StoreError,
};

/// Moves API keys and passes to where they are looked for now, some at a time: Redis serves nobody else meanwhile. Each
/// is moved at once, so that several nodes may be at it, and one that was taken back by one of them does not come back.
pub(super) async fn upgrade(link: &Link, keys: &Keys) -> Result<(), StoreError> {
    let script = Script::new(MOVE);
    let mut call = script.prepare_invoke();
    for key in ["keys", "passes", "passes:expiry", "passes:owners", "passes:counts", "store"] {
        call.key(keys.of(key));
    }
    for name in ["keys", "tickets", "links", "sessions"] {
        call.key(&documents::keys(keys, name));
    }
    while link.script::<bool>(&call).await? {}
    Ok(())
}

/// Asks how many of the keys are there in which an earlier version has what is to be moved.
pub(super) fn count_old(keys: &Keys) -> Cmd {
    let mut count = cmd("EXISTS");
    for key in ["keys", "passes"] {
        count.arg(keys.of(key));
    }
    count
}

/// Gives whether there may be more.
const MOVE: &str = "
local function keep(at, id, owner, expires, body)
  local version = string.sub(redis.sha1hex(id .. body), 1, 16)
  local value = version .. ' ' .. expires .. ' ' .. #owner .. ' ' .. owner .. body
  if redis.call('HSETNX', KEYS[at], id, value) == 0 then return end
  redis.call('ZADD', KEYS[at + 1], 0, #owner .. ':' .. owner .. id)
  if expires ~= '0' then redis.call('ZADD', KEYS[at + 2], expires, id) end
end
-- Where programs of that version expect a number, so that its commands are refused and its nodes take nothing back that
-- stays good here. They quote it. First of all: a command amid the move would be told that it took back what it did not.
redis.call('HSET', KEYS[6], 'changes', 'this Redis has version 3: run a newer pulsehub')
local old = redis.call('HRANDFIELD', KEYS[1], 500, 'WITHVALUES')
for n = 1, #old, 2 do
  keep(7, old[n], cjson.decode(old[n + 1]).name, '0', old[n + 1])
  redis.call('HDEL', KEYS[1], old[n])
end
local is_more = #old > 0
old = redis.call('HRANDFIELD', KEYS[2], 500, 'WITHVALUES')
for n = 1, #old, 2 do
  local kind, id = string.match(old[n], '^(%a+):(.*)$')
  local expires, principal = string.match(old[n + 1], '^(%d+) (.*)$')
  local at = ({ ticket = 10, link = 13, session = 16 })[kind]
  -- What has no kind or no end was good for nothing.
  if at and expires then
    keep(at, id, redis.call('HGET', KEYS[4], old[n]) or '', expires, principal)
  end
  redis.call('HDEL', KEYS[2], old[n])
end
is_more = is_more or #old > 0
if not is_more then
  redis.call('DEL', KEYS[3], KEYS[4], KEYS[5])
end
return is_more";
