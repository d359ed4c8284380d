//! What is shipped for containers fits together, and fits the hub: Dockerfile, docker-compose.yml, .env.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use pulsehub::time::Span;
use serde_json::Value;

use crate::support::{eventually, port::free_port};

const SECRET: (&str, &str) = ("PULSEHUB_SECRET", "0123456789abcdef0123456789abcdef");
const PASSWORD: (&str, &str) = ("REDIS_PASSWORD", "fedcba9876543210fedcba9876543210");

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The instructions of the Dockerfile: its word, and the rest of the line.
fn instructions() -> Vec<(String, String)> {
    let lines = read("Dockerfile");
    let lines = lines.lines().filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let lines = joined.lines().filter_map(|line| line.trim().split_once(' '));
    lines.map(|(word, rest)| (word.to_owned(), rest.trim().to_owned())).collect()
}

/// Those of one kind in the last stage, which is the image.
fn in_image(word: &str) -> Vec<String> {
    let all = instructions();
    let start = all.iter().rposition(|(word, _)| word == "FROM").unwrap();
    let of_kind = all[start..].iter().filter(|(found, _)| found == word);
    of_kind.map(|(_, rest)| rest.clone()).collect()
}

/// The words of an instruction in its list form.
fn list(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("{text} is no list of words"))
}

/// The compose file, with `variables` put in where it names them.
fn compose(variables: &[(&str, &str)]) -> Result<Value, String> {
    let text = interpolate(&read("docker-compose.yml"), variables)?;
    Ok(serde_saphyr::from_str(&text).unwrap())
}

fn services() -> BTreeMap<String, Value> {
    let file = compose(&[SECRET, PASSWORD]).unwrap();
    serde_json::from_value(file["services"].clone()).unwrap()
}

/// `${NAME:-default}` and `${NAME:?what is missing}`, the forms the file uses.
fn interpolate(text: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let mut done = String::new();
    let mut parts = text.split("${");
    done.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (inside, after) = part.split_once('}').unwrap();
        let (name, rest) = inside.split_once(':').unwrap();
        let value = variables.iter().find(|(variable, _)| *variable == name);
        match (value, rest.split_at(1)) {
            (Some((_, value)), _) => done.push_str(value),
            (None, ("-", default)) => done.push_str(default),
            (None, ("?", message)) => return Err(message.to_owned()),
            (None, _) => panic!("{inside} is a form this test does not know"),
        }
        done.push_str(after);
    }
    Ok(done.replace("$$", "$"))
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn is_hub(service: &Value) -> bool {
    !service["build"].is_null()
}

/// What a service's hub finds in its environment: the image's, then the file's over it.
fn environment(service: &Value) -> BTreeMap<String, String> {
    let image = in_image("ENV").join(" ");
    let image = image.split_whitespace().map(|pair| pair.split_once('=').unwrap());
    let mut all: BTreeMap<_, _> =
        image.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for (name, value) in service["environment"].as_object().unwrap() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        all.insert(name.clone(), value);
    }
    all
}

fn pulsehub(args: &[String], environment: &BTreeMap<String, String>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulsehub"));
    command.args(args).env_clear().envs(environment).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn assert_pinned(image: &str) {
    let (_, tag) = image.split_once(':').unwrap_or_else(|| panic!("{image} has no version"));
    let version = tag.split('-').next().unwrap();
    let numbers = version.split('.').filter(|part| part.parse::<u32>().is_ok()).count();
    assert!(numbers >= 2, "{image} may be another one tomorrow");
}

#[test]
fn the_image_is_made_of_what_there_is_and_pinned() {
    let all = instructions();
    let mut stages = BTreeSet::new();
    for (word, rest) in &all {
        let words: Vec<_> = rest.split_whitespace().collect();
        if word == "FROM" {
            if !stages.contains(words[0]) {
                assert_pinned(words[0]);
            }
            stages.extend(words.get(2).copied());
        }
        if word == "COPY" {
            match words[0].strip_prefix("--from=") {
                Some(stage) => assert!(stages.contains(stage), "{rest}: there is no such stage"),
                None => words[..words.len() - 1].iter().for_each(|source| assert_reaches(source)),
            }
        }
    }
    let minimum = read("Cargo.toml").parse::<toml::Table>().unwrap()["package"]["rust-version"]
        .as_str()
        .map(|version| format!("rust:{version}."));
    let rust = all.iter().find(|(word, rest)| word == "FROM" && rest.starts_with("rust:"));
    assert!(rust.unwrap().1.starts_with(&minimum.unwrap()), "{rust:?}: see Cargo.toml");
}

/// Whether a source is in the project, and .dockerignore lets it through.
#[track_caller]
fn assert_reaches(source: &str) {
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(source).exists(), "there is no {source}");
    assert!(source == "." || is_sent(source), ".dockerignore keeps {source} back");
}

/// As .dockerignore has it: the last line that matches decides.
fn is_sent(path: &str) -> bool {
    let ignored = read(".dockerignore");
    let lines = ignored.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.fold(true, |sent, line| {
        let (pattern, wanted) = match line.strip_prefix('!') {
            Some(pattern) => (pattern, true),
            None => (line, false),
        };
        let inside = |folder: &str| {
            path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
        };
        let matches = match pattern.strip_prefix("**/") {
            Some(name) => path.split('/').any(|part| part == name),
            None => pattern == "*" || inside(pattern),
        };
        if matches { wanted } else { sent }
    })
}

/// The files that are compiled in as text, from the root of the project.
fn included() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for file in crate::floors::sources(&root.join("src")) {
        let text = std::fs::read_to_string(&file).unwrap();
        for rest in text.split("include_str!(\"").skip(1) {
            let name = rest.split_once('"').unwrap().0;
            let path = file.parent().unwrap().join(name).canonicalize().unwrap();
            let path = path.strip_prefix(root.canonicalize().unwrap()).unwrap();
            found.push(path.to_str().unwrap().to_owned());
        }
    }
    found
}

#[test]
fn all_the_program_is_compiled_from_reaches_the_build_and_no_more() {
    let sources = ["Cargo.lock", "build.rs", "src/main.rs", "proto/flext.rs"];
    let others = ["web/src/App.svelte", "web/public/favicon.svg"];
    sources.into_iter().chain(others).for_each(assert_reaches);
    let included = included();
    assert!(included.iter().any(|path| path == "config/pulsehub.toml"), "{included:?}");
    included.iter().for_each(|path| assert_reaches(path));
    for kept in
        ["data/secret", "target/release/pulsehub", ".git/HEAD", ".env", "web/dist/index.html"]
    {
        assert!(!is_sent(kept), "{kept} is sent to the build");
    }
    assert!(!is_sent("web/node_modules/vite/package.json"));
}

#[test]
fn the_image_runs_as_nobody_and_its_commands_are_the_hubs() {
    let user = in_image("USER").pop().unwrap();
    let ids = user.split(':').map(|id| id.parse::<u32>().unwrap());
    assert!(ids.clone().count() == 2 && ids.min().unwrap() > 0, "{user}");
    assert_eq!(in_image("STOPSIGNAL"), ["SIGTERM"]);

    let entrypoint = list(&in_image("ENTRYPOINT").concat());
    let (health, options) = (in_image("HEALTHCHECK").concat(), BTreeMap::new());
    let (_, health) = health.split_once("CMD ").unwrap();
    for command in [[entrypoint, list(&in_image("CMD").concat())].concat(), list(health)] {
        assert_eq!(command[0], "pulsehub");
        let help = [&command[1..], &["--help".to_owned()]].concat();
        let output = pulsehub(&help, &options);
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn up_starts_one_hub_and_the_cluster_profile_two_behind_a_proxy() {
    assert!(read(".env").lines().any(|line| line == "COMPOSE_PROFILES=default"));
    let services = services();
    let started = |profile: &str| -> Vec<_> {
        let chosen = services.iter().filter(|(_, service)| {
            let profiles = strings(&service["profiles"]);
            profiles.is_empty() || profiles.iter().any(|found| found == profile)
        });
        chosen.map(|(name, _)| name.as_str()).collect()
    };
    assert_eq!(started("default"), ["hub"]);
    assert_eq!(started("cluster"), ["hub-1", "hub-2", "proxy", "redis"]);
    for profile in ["default", "cluster"] {
        let ports: Vec<_> =
            started(profile).iter().flat_map(|name| strings(&services[*name]["ports"])).collect();
        assert_eq!(ports, ["127.0.0.1:8080:8080"], "{profile}");
    }
}

#[test]
fn every_container_is_shut_in_and_bounded() {
    let file = compose(&[SECRET]).unwrap();
    for (name, service) in services() {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(strings(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(strings(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        assert!(service["mem_limit"].is_string() && service["pids_limit"].is_number(), "{name}");
        assert_pinned(service["image"].as_str().unwrap());
        for network in strings(&service["networks"]) {
            assert!(file["networks"].get(&network).is_some(), "{name}: no network {network}");
        }
        for volume in strings(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            match source.strip_prefix("./") {
                Some(path) => assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).is_file()),
                None => {
                    assert!(file["volumes"].get(source).is_some(), "{name}: no volume {source}")
                }
            }
        }
    }
}

#[test]
fn the_hubs_take_the_settings_they_are_given_and_have_time_to_drain() {
    let version = format!("pulsehub:{}", env!("CARGO_PKG_VERSION"));
    let drain = pulsehub::config::DEFAULTS.parse::<toml::Table>().unwrap();
    let drain: Span = drain["http"]["drain"].as_str().unwrap().parse().unwrap();
    let services = services();
    for (name, service) in services.iter().filter(|(_, service)| is_hub(service)) {
        assert_eq!(service["image"], version, "{name}");
        let grace: Span = service["stop_grace_period"].as_str().unwrap().parse().unwrap();
        assert!(grace.millis() >= drain.millis() + 5000, "{name}: {grace} for a drain of {drain}");

        let mut environment = environment(service);
        let is_node = strings(&service["profiles"]) == ["cluster"];
        let redis = environment.get("PULSEHUB_REDIS").cloned();
        assert_eq!(redis.is_some(), is_node, "{name}");
        if let Some(redis) = redis {
            let login = format!("redis://:{}@", PASSWORD.1);
            let (host, port) = redis.strip_prefix(&login).unwrap().split_once(':').unwrap();
            assert!(services.contains_key(host) && port == "6379", "{redis}");
        }
        let check = ["check", "--settings-only"].map(str::to_owned);
        let output = pulsehub(&check, &environment);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));

        // Both the compose file and the image itself refuse to go without a secret, and say what to do.
        environment.remove(SECRET.0);
        let output = pulsehub(&check, &environment);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {complaint}");
        assert!(complaint.contains("openssl rand -hex 32"), "{complaint}");
    }
    let complaint = compose(&[]).unwrap_err();
    assert!(complaint.contains("openssl rand -hex 32"), "{complaint}");
}

#[test]
fn the_cluster_s_redis_keeps_what_it_was_told_and_nobody_else_reaches_it() {
    let file = compose(&[SECRET]).unwrap();
    let redis = &file["services"]["redis"];
    let command = strings(&redis["command"]).join(" ");
    for option in ["--appendonly yes", "--appendfsync everysec", "--maxmemory-policy noeviction"] {
        assert!(command.contains(option), "{command}");
    }
    assert!(redis["environment"]["REDISCLI_AUTH"].is_string());
    assert_eq!(strings(&redis["healthcheck"]["test"]), ["CMD", "redis-cli", "-e", "ping"]);
    assert!(redis["ports"].is_null());
    assert_eq!(strings(&redis["volumes"]), ["redis:/data"]);
    let networks = strings(&redis["networks"]);
    assert!(!networks.is_empty(), "without a network of its own it is in everybody's");
    assert!(networks.iter().all(|network| file["networks"][network]["internal"] == true));
}

/// The command of the cluster's Redis, run here on a port of its own. Its arguments are noted in a file before it
/// begins, for then it writes a title over them.
fn redis_command(folder: &Path, port: &str, password: &str) -> Command {
    let noting = "cat /proc/$$/cmdline > arguments; exec redis-server \"$@\"";
    fs::write(folder.join("noting"), noting).unwrap();
    let file = compose(&[SECRET, ("REDIS_PASSWORD", password)]).unwrap();
    let redis = &file["services"]["redis"];
    let mut words = strings(&redis["command"]);
    let script = words.last_mut().unwrap();
    let here = format!("sh ./noting - --port {port} --bind 127.0.0.1 ");
    *script = script.replace("redis-server - ", &here);
    assert!(script.contains(&here), "{script}");
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(folder);
    command.env("REDISCLI_AUTH", redis["environment"]["REDISCLI_AUTH"].as_str().unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended already
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_clusters_redis_lets_nobody_in_without_its_password_and_shows_it_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let refused = redis_command(folder.path(), "0", "").output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "no Redis without a password");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("openssl rand -hex 32"));

    let port = free_port().to_string();
    let _server = Running(redis_command(folder.path(), &port, PASSWORD.1).spawn().unwrap());
    let ask = async |login: &str, words: &[&str]| {
        let client = redis::Client::open(format!("redis://{login}127.0.0.1:{port}")).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd(words[0]).arg(&words[1..]).query_async::<redis::Value>(&mut connection).await
    };
    let login = format!(":{}@", PASSWORD.1);
    eventually("an answer of Redis", async || ask(&login, &["GET", "a"]).await.ok()).await;
    let refused = ask("", &["GET", "a"]).await.unwrap_err();
    assert_eq!(refused.code(), Some("NOAUTH"), "{refused}");
    let arguments = fs::read(folder.path().join("arguments")).unwrap();
    let arguments = String::from_utf8_lossy(&arguments);
    assert!(arguments.contains("--appendonly") && !arguments.contains(PASSWORD.1), "{arguments}");
}

#[test]
fn the_proxy_asks_for_the_nodes_there_are_where_they_listen() {
    let services = services();
    let nodes: Vec<_> = services
        .iter()
        .filter(|(_, service)| is_hub(service) && strings(&service["profiles"]) == ["cluster"])
        .map(|(name, service)| {
            let listen = &environment(service)["PULSEHUB_LISTEN"];
            let (_, port) = listen.rsplit_once(':').unwrap();
            format!("server {name} {name}:{port}")
        })
        .collect();
    let proxy = read("config/haproxy.cfg");
    let named = proxy.lines().map(str::trim).filter(|line| line.starts_with("server "));
    let named = named.map(|line| line.split(" track ").next().unwrap());
    // For streams, and for everything else.
    assert_eq!(named.collect::<Vec<_>>(), [nodes.clone(), nodes].concat());
}
