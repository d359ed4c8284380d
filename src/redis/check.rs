//! Whether a Redis is one that a hub can trust: asked once, at the start.

use std::{collections::HashMap, time::Duration};

use ::redis::{Cmd, FromRedisValue, RedisError, aio::MultiplexedConnection, cmd};

use super::{Keys, Link, RedisFailure, Server};

/// Why this Redis is not used, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Redis at {server}: {reason}")]
pub struct RedisOpenError {
    /// Which one.
    pub server: String,
    /// What is wrong with it and what to do.
    pub reason: String,
}

/// Nobody waits for a hub that starts: a Redis that is slow for a moment is no reason to give up.
const PATIENCE: Duration = Duration::from_secs(5);
/// The version of the keys' contents.
const VERSION: &str = "3";
/// That had API keys and sessions in keys of their own, where its nodes look for them.
const BEFORE: &str = "2";

/// Refuses a Redis that would break promises; what merely weakens them comes back as warnings.
pub async fn check(server: &Server, keys: &Keys) -> Result<Vec<String>, RedisOpenError> {
    let refuse = |reason: String| RedisOpenError { server: server.to_string(), reason };
    let connection = server.connect(PATIENCE).await;
    let mut connection = connection.map_err(|error| refuse(cannot_connect(&error)))?;
    let failed = |error: RedisError| refuse(error.to_string());
    let info = info(&mut connection).await.map_err(failed)?;
    let of = |name: &str| info.get(name).map_or("", String::as_str);
    let major: u32 = of("redis_version").split('.').next().unwrap_or("").parse().unwrap_or(0);
    if major < 7 {
        let version = of("redis_version");
        return Err(refuse(format!("version {version:?} is too old: use Redis 7 or Valkey")));
    }
    if of("role") != "master" {
        return Err(refuse(
            "is a replica, which cannot be written: give the master's address, or the sentinels'"
                .to_owned(),
        ));
    }
    if of("cluster_enabled") == "1" {
        return Err(refuse("is a Redis Cluster: give a Redis that is not sharded".to_owned()));
    }
    let policy = of("maxmemory_policy");
    if of("maxmemory") != "0" && policy != "noeviction" {
        return Err(refuse(format!(
            "maxmemory-policy is {policy}, which would drop events unasked: set it to noeviction"
        )));
    }
    claim(&mut connection, keys).await.map_err(failed)?.map_err(refuse)?;
    Ok(warnings(&mut connection, of("aof_enabled") == "1").await)
}

fn cannot_connect(error: &RedisError) -> String {
    if error.kind() == ::redis::ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("WRONGPASS" | "NOAUTH"))
    {
        return "refuses the password: correct it in `redis` (redis://:password@host:port)"
            .to_owned();
    }
    format!("cannot be reached: {error}. Start it, or correct `redis`")
}

async fn info(
    connection: &mut MultiplexedConnection,
) -> Result<HashMap<String, String>, RedisError> {
    let text: String = cmd("INFO").query_async(connection).await?;
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}

/// Notes under our prefix that it is ours; refuses what others have put there.
async fn claim(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
) -> Result<Result<(), String>, RedisError> {
    let foreign = |key: &str, what: &str| {
        Err(format!(
            "the key {key} {what}, so the prefix belongs to another application: \
             set another `cluster.prefix`"
        ))
    };
    let meta = keys.of("meta");
    for (name, ours) in [
        ("meta", "hash"),
        ("log", "stream"),
        ("topics", "hash"),
        ("nodes", "zset"),
        ("keys", "hash"),
        ("documents:keys", "hash"),
        ("store", "hash"),
    ] {
        let key = keys.of(name);
        let kind: String = cmd("TYPE").arg(&key).query_async(connection).await?;
        if kind != "none" && kind != ours {
            return Ok(foreign(&key, &format!("is a {kind}")));
        }
    }
    let is_there: bool = cmd("EXISTS").arg(&meta).query_async(connection).await?;
    let version: Option<String> = ask_version(keys).query_async(connection).await?;
    match version.as_deref() {
        None if is_there => {
            // Ours if the log's script wrote it before the version was set: a start that broke off.
            let lineage: bool =
                cmd("HEXISTS").arg(&meta).arg("lineage").query_async(connection).await?;
            if !lineage {
                return Ok(foreign(&meta, "has no version"));
            }
        }
        None | Some(VERSION) => {}
        Some(BEFORE) => {
            let nodes = running(connection, keys).await?;
            if !nodes.is_empty() {
                return Ok(Err(format!(
                    "nodes of an earlier version run on it ({}): stop all of them before the first of this version \
                     starts; one that crashed counts for half a minute",
                    nodes.join(", ")
                )));
            }
        }
        Some(version) => {
            return Ok(Err(format!(
                "its log has version {version}, this hub knows {VERSION}: run the pulsehub that wrote \
                 it, or set another `cluster.prefix`"
            )));
        }
    }
    set_version(keys).query_async::<()>(connection).await?;
    Ok(Ok(()))
}

/// What people call the nodes that said hello lately.
async fn running(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
) -> Result<Vec<String>, RedisError> {
    let (seconds, _): (u64, u64) = cmd("TIME").query_async(connection).await?;
    let mut list = cmd("ZRANGEBYSCORE");
    list.arg(keys.of("nodes")).arg(seconds * 1000).arg("+inf");
    let ids: Vec<String> = list.query_async(connection).await?;
    let mut nodes = Vec::new();
    for id in ids {
        let name: Option<String> =
            cmd("GET").arg(keys.of(&format!("name:{id}"))).query_async(connection).await?;
        nodes.push(name.unwrap_or(id));
    }
    Ok(nodes)
}

/// Notes that the keys are of this version.
pub fn set_version(keys: &Keys) -> Cmd {
    let mut set = cmd("HSET");
    set.arg(keys.of("meta")).arg("version").arg(VERSION);
    set
}

/// Asks for the version of the keys.
pub fn ask_version(keys: &Keys) -> Cmd {
    let mut ask = cmd("HGET");
    ask.arg(keys.of("meta")).arg("version");
    ask
}

/// Whether a node brings keys of this version up to date. A failover that loses what the last node did of it lets such a
/// version come back.
pub fn is_behind(version: Option<&str>) -> bool {
    matches!(version, None | Some(BEFORE))
}

/// Why who is no node cannot make sense of the keys, if they are of another version: only a node may bring them up to
/// date, for it alone [makes sure](check) that no other is left.
pub async fn refuse_version(link: &Link, keys: &Keys) -> Result<Option<String>, RedisFailure> {
    let version: Option<String> = link.run(&ask_version(keys)).await?;
    Ok(version.filter(|version| version != VERSION).map(|version| {
        format!(
            "its keys have version {version}, this pulsehub knows {VERSION}: use the pulsehub that wrote them, or first \
             start a hub of this version on them, if it is the newer one"
        )
    }))
}

/// What a crash of Redis may cost, and what it may refuse to say, told before it does.
async fn warnings(connection: &mut MultiplexedConnection, has_aof: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if !has_aof {
        warnings.push(
            "Redis keeps no append-only file: what it stored is lost when it ends. Set \
             `appendonly yes`"
                .to_owned(),
        );
    }
    let mut ask = cmd("CONFIG");
    ask.arg("GET").arg("appendfsync").arg("client-output-buffer-limit");
    // A hosted Redis may not allow to ask.
    let Ok(answer) = ask.query_async::<::redis::Value>(connection).await else {
        if has_aof {
            warnings.push(
                "Redis does not tell its `appendfsync`: it should be `everysec` or `always`".into(),
            );
        }
        return warnings;
    };
    let answer = HashMap::<String, String>::from_redis_value(answer).unwrap_or_default();
    let sync = answer.get("appendfsync").map_or("unknown", String::as_str);
    if has_aof && !matches!(sync, "always" | "everysec") {
        warnings.push(format!(
            "Redis writes its append-only file when the system likes (appendfsync {sync}): a crash \
             of the machine may lose much. Set `everysec` or `always`"
        ));
    }
    if let Some(limits) = answer.get("client-output-buffer-limit")
        && !limits.starts_with("normal 0 0 ")
    {
        warnings.push(format!(
            "Redis drops who is given a long answer (client-output-buffer-limit {limits}): old \
             events may be out of reach. Set `normal 0 0 0`"
        ));
    }
    warnings
}
