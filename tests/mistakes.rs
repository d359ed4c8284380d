//! What newcomers get wrong, and what each mistake is answered: all of `tests/mistakes.txt` is made again, in the program
//! and over the wire.
//!
//! A mistake is a paragraph of that file: what it is, below it in four spaces how it is made, and behind arrows the answer.
//! The heading above says where it is made. `UPDATE_MISTAKES=1 cargo test --locked --test hub mistakes` writes all answers
//! anew; then read them as somebody who does not know the hub.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    hub::{Client, PROTOCOL, SECRET, TestHub},
    kept::Kept,
};

const KEPT: Kept = Kept { variable: "UPDATE_MISTAKES", tests: "mistakes" };

/// Words of libraries and of their languages; nobody who has made a mistake can do anything with them.
const FOREIGN: [&str; 13] = [
    " expected ",
    "invalid type",
    "invalid digit",
    "invalid length",
    "unknown variant",
    "unknown field",
    "missing field",
    "duplicate field",
    "sequence",
    "struct ",
    "EOF",
    "literal",
    "InvalidClientConfig",
];

/// Who makes the mistakes, and where.
struct Newcomer {
    hub: TestHub,
    token: String,
    /// Where commands run; `data` is the hub's folder.
    folder: TempDir,
}

#[tokio::test]
async fn every_mistake_is_answered_in_words_that_a_newcomer_knows() {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mistakes.txt"));
    let text = std::fs::read_to_string(&path).unwrap();
    let hub = TestHub::with_file("[limits]\nbatch = 3\nframe = \"2 KiB\"\n").await;
    let token = hub.token("newcomer", &["demo.*", "voicehive.dashboard.*"]);
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(hub.data(), folder.path().join("data")).unwrap();
    let newcomer = Newcomer { hub, token, folder };
    let mut door = "";
    let mut paragraphs = Vec::new();
    for paragraph in text.trim_end().split("\n\n") {
        door = paragraph.lines().next().unwrap().strip_prefix("# ").unwrap_or(door);
        paragraphs.push((door, paragraph));
    }
    // A few at a time: most are a process of their own.
    let told = stream::iter(&paragraphs).map(|(door, it)| newcomer.make(door, it)).buffered(4);
    let told: Vec<String> = told.collect().await;
    let mistakes = told.iter().filter(|it| it.contains("\n    ")).count();
    assert!(mistakes >= 40, "{mistakes}");
    KEPT.compare(&path, &(told.join("\n\n") + "\n"));
    for answer in told.iter().flat_map(|it| it.lines()).filter(|line| line.starts_with('→')) {
        let foreign = FOREIGN.iter().find(|word| answer.contains(**word));
        assert_eq!(foreign, None, "whose word is that? {answer}");
    }
}

impl Newcomer {
    /// The paragraph with the answer of now; what is no mistake stays as it is.
    async fn make(&self, door: &str, paragraph: &str) -> String {
        let made: Vec<&str> =
            paragraph.lines().filter_map(|line| line.strip_prefix("    ")).collect();
        if made.is_empty() {
            return paragraph.to_owned();
        }
        let answer = match door {
            "Settings files" => self.settings(&made.join("\n")).await,
            "Variables" | "Commands" => self.run(self.folder.path(), &made.join("\n")).await,
            "Requests" => self.ask(&made).await,
            "Sockets" => self.say(&made).await,
            _ => panic!("nobody knows where {door:?} is"),
        };
        let mut told = String::new();
        for line in paragraph.lines().filter(|line| !line.starts_with('→')) {
            writeln!(told, "{line}").unwrap();
        }
        for line in answer.lines().filter(|line| !line.trim().is_empty()) {
            writeln!(told, "→ {}", line.trim_end().replace(&self.hub.url(""), "$HUB")).unwrap();
        }
        told.trim_end().to_owned()
    }

    /// What `check` says of a settings file, and `serve` as well.
    async fn settings(&self, text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pulsehub.toml"), text.to_owned() + "\n").unwrap();
        let listen = if text.contains("listen") { "" } else { " --listen 127.0.0.1:0" };
        let check = self.run(folder.path(), "pulsehub check --config pulsehub.toml").await;
        assert!(!check.contains("settings: "), "good settings, it says: {text}\n{check}");
        let serve = format!("pulsehub serve --config pulsehub.toml{listen}");
        assert_eq!(self.run(folder.path(), &serve).await, check, "{text}");
        check
    }

    /// What a command prints, and how it ends.
    async fn run(&self, folder: &Path, line: &str) -> String {
        let program = Path::new(env!("CARGO_BIN_EXE_pulsehub")).parent().unwrap().display();
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("bash");
        // What is taken for no mistake would run for ever.
        command.args(["-c", &line.replace("pulsehub ", "timeout 20 pulsehub ")]);
        command.env_clear().env("PATH", format!("{program}:{path}")).current_dir(folder);
        command.env("PULSEHUB_URL", self.hub.url("")).env("PULSEHUB_TOKEN", &self.token);
        command.env("SECRET", SECRET).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        // The same below each of them.
        let said = said.replace("For more information, try '--help'.\n", "");
        format!("{said}\nexit {}", output.status.code().unwrap())
    }

    /// What a request is answered; its first line may have headers in brackets, or `[no token]`.
    async fn ask(&self, made: &[&str]) -> String {
        let (head, headers) = head(made[0]);
        let (method, path) = head.split_once(' ').unwrap();
        let mut request = self.hub.http().request(method.parse().unwrap(), self.hub.url(path));
        if !headers.iter().any(|(name, _)| matches!(*name, "no token" | "authorization")) {
            request = request.bearer_auth(&self.token);
        }
        if made.len() > 1 {
            request = request.body(made[1..].join("\n"));
            if !headers.iter().any(|(name, _)| *name == "content-type") {
                request = request.header("content-type", "application/json");
            }
        }
        for (name, value) in headers.into_iter().filter(|(name, _)| *name != "no token") {
            request = request.header(name, value);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let problem: Value = answer.json().await.unwrap();
        assert!(
            status >= 400 && problem["detail"].is_string(),
            "that is no mistake: {made:?} {problem}"
        );
        let text = |of: &Value, name: &str| of[name].as_str().map(str::to_owned);
        let (code, detail) = (text(&problem, "code"), text(&problem, "detail"));
        let mut told = format!("{status} {}: {}\n", code.unwrap(), detail.unwrap());
        for item in problem["items"].as_array().into_iter().flatten() {
            let field = text(item, "field").map(|field| format!(", `{field}`")).unwrap_or_default();
            let message = text(item, "message").unwrap();
            writeln!(told, "  event {}{field}: {message}", item["index"]).unwrap();
        }
        told
    }

    /// What a socket hears that says this: on a connection of the protocol, unless the first line opens another.
    async fn say(&self, made: &[&str]) -> String {
        let (mut client, messages) = match made[0].strip_prefix("open ") {
            Some(opened) => {
                let (path, headers) = head(opened);
                let offered = headers.iter().map(|(name, _)| (PROTOCOL.0, *name));
                let offered: Vec<_> = offered.collect();
                (self.hub.socket(path, &offered).await, &made[1..])
            }
            None => {
                let mut client = self.hub.socket("/ws/real-time", &[PROTOCOL]).await;
                client.connect(&self.token).await;
                (client, made)
            }
        };
        for message in messages {
            client.send_raw(Message::text(message.replace("$TOKEN", &self.token))).await;
        }
        refusal(&mut client).await
    }
}

/// The first refusal that comes.
async fn refusal(client: &mut Client) -> String {
    loop {
        match client.next().await {
            Some(Message::Text(text)) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["type"] == "error" {
                    let (code, said) = (&message["code"], &message["message"]);
                    return format!("error {}: {}", code.as_str().unwrap(), said.as_str().unwrap());
                }
                assert_ne!(message["type"], json!("subscribed"), "that is no mistake");
            }
            Some(Message::Close(Some(frame))) => {
                return format!("close {}: {}", u16::from(frame.code), frame.reason);
            }
            Some(Message::Ping(_) | Message::Pong(_)) => {}
            other => panic!("a refusal was expected, not {other:?}"),
        }
    }
}

/// `/path [name: value] [other: value]` in its parts.
fn head(line: &str) -> (&str, Vec<(&str, &str)>) {
    let mut parts = line.split(" [");
    let first = parts.next().unwrap();
    let headers = parts.map(|part| {
        let part = part.strip_suffix(']').unwrap();
        part.split_once(": ").unwrap_or((part, ""))
    });
    (first, headers.collect())
}
