//! The scripts that run inside Redis, and what they say.

use std::sync::Arc;

use ::redis::{Script, ScriptInvocation, Value};

use super::stored::LogKeys;
use crate::{
    broker::lineage::Lineage,
    position::{Offset, Position},
    redis::RedisFailure,
    time::{Clock, Millis},
};

/// The log's scripts with what they always need.
pub(super) struct LogScripts {
    hello: Script,
    publish: Script,
    trim: Script,
    cap: Script,
    pub(super) keys: LogKeys,
    clock: Clock,
    /// What this node is called.
    node: Arc<str>,
}

/// How the log stands.
#[derive(Debug, Clone)]
pub(super) struct LogState {
    pub(super) lineage: Lineage,
    pub(super) head: Offset,
    /// How often retention took something.
    pub(super) trims: u64,
    /// The last offset it took from the stream.
    pub(super) trimmed: Offset,
    /// What the stream holds.
    pub(super) bytes: u64,
}

/// How long a node counts after its last hello: so long people are told of one that died or hangs.
const NODE_LIFE: Millis = 30_000;

impl LogScripts {
    pub(super) fn new(keys: LogKeys, clock: Clock, node: Arc<str>) -> Self {
        let script = |text: &str| Script::new(&format!("{}{text}", include_str!("prelude.lua")));
        Self {
            hello: script(include_str!("hello.lua")),
            publish: script(include_str!("publish.lua")),
            trim: script(include_str!("trim.lua")),
            cap: Script::new(include_str!("cap.lua")),
            keys,
            clock,
            node,
        }
    }

    /// Says how far we have come and asks how the log does.
    pub(super) fn greeting(
        &self,
        reached: Option<Position>,
    ) -> Result<ScriptInvocation<'_>, RedisFailure> {
        let name =
            getrandom::u64().map_err(|error| RedisFailure::Unreachable(error.to_string()))?;
        let mut call = self.with_keys(&self.hello);
        call.key(&self.keys.nodes);
        call.arg(reached.map_or(String::new(), |reached| reached.epoch.to_string()));
        call.arg(reached.map_or(0, |reached| reached.offset));
        // Zero would read as no epoch at all.
        call.arg(format!("{:x}", name.max(1))).arg(&*self.node).arg(NODE_LIFE);
        Ok(call)
    }

    pub(super) fn publish(&self) -> ScriptInvocation<'_> {
        self.with_keys(&self.publish)
    }

    pub(super) fn trim(&self) -> ScriptInvocation<'_> {
        self.with_keys(&self.trim)
    }

    pub(super) fn cap(&self, key: &str) -> ScriptInvocation<'_> {
        self.cap.key(key)
    }

    fn with_keys<'a>(&'a self, script: &'a Script) -> ScriptInvocation<'a> {
        let mut call = script.prepare_invoke();
        call.key(&self.keys.meta).key(&self.keys.log).key(&self.keys.topics);
        // Redis' time is the measure for all nodes, but where a test has its hand on the clock.
        call.arg(self.clock.hand().map_or(String::new(), |now| now.to_string()));
        call
    }
}

impl LogState {
    pub(super) fn read(answer: Vec<String>) -> Result<Self, RedisFailure> {
        let read = || {
            let [lineage, head, trims, trimmed, bytes] = answer.get(..5)? else { return None };
            Some(Self {
                lineage: Lineage::parse(lineage)?,
                head: head.parse().ok()?,
                trims: trims.parse().ok()?,
                trimmed: trimmed.parse().ok()?,
                bytes: bytes.parse().ok()?,
            })
        };
        read().ok_or_else(|| {
            RedisFailure::Refused(format!("the log's state is unreadable: {answer:?}"))
        })
    }
}

/// A bulk string as text.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}
