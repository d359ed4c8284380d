//! The scripts that run inside Redis, and what they say.

use ::redis::{Script, ScriptInvocation, Value};

use crate::{
    broker::lineage::Lineage,
    position::{Offset, Position},
    redis::{Keys, Link, RedisFailure},
    time::Millis,
};

/// The log's scripts with the keys they always need.
pub(super) struct LogScripts {
    hello: Script,
    publish: Script,
    trim: Script,
    cap: Script,
    pub(super) meta: String,
    pub(super) log: String,
    pub(super) topics: String,
    pub(super) nodes: String,
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
    pub(super) fn new(keys: &Keys) -> Self {
        let script = |text: &str| Script::new(&format!("{}{text}", include_str!("prelude.lua")));
        Self {
            hello: script(include_str!("hello.lua")),
            publish: script(include_str!("publish.lua")),
            trim: script(include_str!("trim.lua")),
            cap: Script::new(include_str!("cap.lua")),
            meta: keys.of("meta"),
            log: keys.of("log"),
            topics: keys.of("topics"),
            nodes: keys.of("nodes"),
        }
    }

    /// Says how far we have come and asks how the log does.
    pub(super) fn greeting(
        &self,
        reached: Option<Position>,
        hand: Option<Millis>,
        node: &str,
    ) -> Result<ScriptInvocation<'_>, RedisFailure> {
        let name =
            getrandom::u64().map_err(|error| RedisFailure::Unreachable(error.to_string()))?;
        let mut call = self.with_keys(&self.hello, hand);
        call.key(&self.nodes);
        call.arg(reached.map_or(String::new(), |reached| reached.epoch.to_string()));
        call.arg(reached.map_or(0, |reached| reached.offset));
        // Zero would read as no epoch at all.
        call.arg(format!("{:x}", name.max(1))).arg(node).arg(NODE_LIFE);
        Ok(call)
    }

    pub(super) async fn hello(
        &self,
        link: &Link,
        reached: Option<Position>,
        hand: Option<Millis>,
        node: &str,
    ) -> Result<LogState, RedisFailure> {
        LogState::read(link.script(&self.greeting(reached, hand, node)?).await?)
    }

    pub(super) fn publish(&self, hand: Option<Millis>) -> ScriptInvocation<'_> {
        self.with_keys(&self.publish, hand)
    }

    pub(super) fn trim(&self, hand: Option<Millis>) -> ScriptInvocation<'_> {
        self.with_keys(&self.trim, hand)
    }

    pub(super) fn cap(&self, key: &str) -> ScriptInvocation<'_> {
        self.cap.key(key)
    }

    fn with_keys<'a>(&'a self, script: &'a Script, hand: Option<Millis>) -> ScriptInvocation<'a> {
        let mut call = script.prepare_invoke();
        call.key(&self.meta).key(&self.log).key(&self.topics);
        // Redis' time is the measure for all nodes, but where a test has its hand on the clock.
        call.arg(hand.map_or(String::new(), |now| now.to_string()));
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
