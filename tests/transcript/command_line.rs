//! What the commands print, on both outputs, and their exit codes.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::{request::get, scene::Scene};
use crate::support::hub::SECRET;

impl Scene {
    /// Runs the program with these words, with a token in its variable, and records all of it.
    async fn run(&mut self, token: &str, words: &[&str], more: [&str; 2]) -> String {
        let words = [words, &more].concat();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pulsehub"));
        command.env_clear().env("PULSEHUB_SECRET", SECRET).env("PULSEHUB_JOURNAL_RESERVE", "0 B");
        if !token.is_empty() {
            command.env("PULSEHUB_TOKEN", token);
        }
        command.args(&words).stdin(Stdio::null());
        // Beside the hub, which runs on the very thread that waits.
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let quote = |word: &&str| match word.contains([' ', '*', '"', '{']) {
            true => format!("'{word}'"),
            false => (*word).to_owned(),
        };
        let words: Vec<String> = words.iter().map(quote).collect();
        let (printed, said) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        for line in printed.lines() {
            self.learn(line);
        }
        self.tell(&format!("$ pulsehub {}", words.join(" ")));
        self.tell_lines("    ", &printed);
        self.tell_lines("  ! ", &said);
        self.tell_lines("", &format!("exit {}", output.status.code().unwrap()));
        self.space();
        printed.trim().to_owned()
    }
}

#[tokio::test]
async fn what_the_commands_print() {
    let mut scene = Scene::start_now(
        "command_line",
        "[http]\ndrain = \"100ms\"\n[limits]\nconnections = 1000\n",
    )
    .await;
    let (root, folder) = (scene.admin("root").token, scene.hub.data().display().to_string());
    let url = scene.hub.url("");
    scene.call(&folder, "<data>");
    let (data, at) = (["--data", &*folder], ["--url", &*url]);
    let told =
        scene.quietly(get("/api/v1/nodes").with("authorization", format!("Bearer {root}"))).await;
    let node = told["nodes"][0]["node"].as_str().unwrap().to_owned();

    scene.note("credentials");
    let make =
        ["key", "create", "--name", "shop", "--subscribe", "shop.**", "--publish", "shop.**"];
    let key = scene.run("", &make, data).await;
    scene.call(&key, "<key of shop>");
    scene.run("", &["key", "list"], data).await;
    scene.run("", &["token", "--sub", "me", "--subscribe", "a.*", "--ttl", "5m"], data).await;
    scene.run("", &["token", "--sub", "me"], data).await;
    scene.run("", &["token", "--sub", "me", "--role", "chief"], data).await;
    scene.run("", &["token", "--subscribe", "a.*"], data).await;

    scene.note("events");
    let publish = [
        "publish",
        "shop.a",
        "{\"n\": 1.50}",
        "--key",
        "k",
        "--id",
        "one",
        "--type",
        "made",
        "--source",
        "till",
    ];
    scene.run(&key, &publish, at).await;
    scene.run(&key, &publish, at).await;
    scene.run(&key, &["publish", "shop.b", "plain text", "--id", "two"], at).await;
    scene.run(&key, &["publish", "other.a", "1"], at).await;
    scene.run(&key, &["publish", "shop..a", "1"], at).await;
    scene.run(&root, &["publish", "hub.a", "1"], at).await;
    scene.run("", &["publish", "shop.a", "1"], at).await;
    scene.run("nonsense", &["publish", "shop.a", "1"], at).await;
    scene.run(&key, &["publish", "shop.a", "1"], ["--url", "http://127.0.0.1:1"]).await;
    scene.run(&key, &["publish", "shop.a", "1"], ["--url", "localhost"]).await;
    scene.run(&key, &["tail", "shop.**", "--last", "2", "--count", "2"], at).await;
    scene.run(&key, &["tail", "shop.a", "--latest", "--count", "1"], at).await;
    scene.run(&key, &["tail", "other.*", "--count", "1"], at).await;
    scene.run("", &["export", "--topics", "shop.*"], data).await;
    scene.run("", &["export", "--topics", "shop..a"], data).await;

    scene.note("operations");
    scene.call(&format!("{node}\t"), "<node>\t");
    scene.run("", &["check", "--settings-only"], data).await;
    scene.run(&root, &["nodes"], at).await;
    scene.run(&key, &["nodes"], at).await;
    scene.run(&root, &["drain", "--node", "nowhere"], at).await;
    scene.run(&root, &["drain", "--node", "all", "--wait", "5s"], at).await;
    scene.run(&root, &["drain", "--node", "all", "--undo"], at).await;
    let is_ready = |_: u16, ready: &Value| ready["publishing"] == true;
    scene.ask_until(get("/readyz"), is_ready).await;
    scene.run("", &["healthcheck"], at).await;
    scene.run("", &["key", "revoke", &key], data).await;
    scene.run("", &["key", "revoke", "phk_nothing"], data).await;
    scene.run("", &["key", "create", "--name", "till", "--publish", "till.**"], data).await;
    scene.run("", &["key", "revoke", "till"], data).await;
    scene.run("", &["key", "list"], data).await;
    scene.run(&key, &["publish", "shop.a", "1"], at).await;
    scene.end();
}
