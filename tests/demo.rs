//! `pulsehub demo`: four producers that speak their own requests to a real hub, which says that all is made up.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use serde_json::{Value, json};

use crate::support::{DEADLINE, eventually};

/// A demo with the lines it prints; killed when dropped.
struct Demo {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Demo {
    /// Starts one whose own folder will be inside `folder`.
    fn start(folder: &std::path::Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pulsehub"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TMPDIR", folder)
            .args(["demo", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let _ = sender.send(line); // the test may have seen enough
            }
        });
        Self { child, lines }
    }

    /// The sign-in link: the hub's address and the code.
    fn link(&self) -> (String, String) {
        loop {
            let line = self.lines.recv_timeout(DEADLINE).expect("a sign-in link");
            let Some((_, rest)) = line.split_once("Open the link in ") else { continue };
            let link = std::fs::read_to_string(rest.split(',').next().unwrap()).unwrap();
            let (hub, code) = link.trim().split_once("/#code=").unwrap();
            return (hub.to_owned(), code.to_owned());
        }
    }

    /// Ends it as Ctrl-C does; gives its exit code.
    async fn interrupt(&mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let ended = || std::future::ready(self.child.try_wait().unwrap());
        eventually("the end of the demo", ended).await.code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn four_producers_are_heard_and_the_hub_says_that_they_are_made_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(folder.path(), &["--speed", "300", "--hour", "10"]);
    let (hub, code) = demo.link();
    let http = reqwest::Client::builder().timeout(DEADLINE).no_proxy().build().unwrap();
    let request = http.post(format!("{hub}/api/v1/session")).json(&json!({"code": code}));
    let answer = request.send().await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["demo"], true);

    let heard = [
        ("locanext.metrics", "demo-locanext"),
        ("locanext.events.translation_saved", "demo-locanext"),
        ("voicehive.calls", "demo-voicehive"),
        ("voicehive.metrics", "demo-voicehive"),
        ("flext.stats", "demo-flext"),
        ("flext.executions", "demo-flext"),
        ("timetracker.usage.usage_event", "demo-tt-"),
        ("hub.instances.timetracker", "hub"),
    ];
    for (topic, source) in heard {
        let page = eventually(topic, async || {
            let url = format!("{hub}/api/v1/history?topics={topic}&limit=1");
            let page = http.get(url).header("cookie", cookie).send().await.ok()?;
            let page: Value = page.json().await.ok()?;
            (page["events"].as_array()?.len() == 1).then_some(page)
        });
        let event = page.await["events"][0].take();
        assert!(event["source"].as_str().unwrap().starts_with(source), "{event}");
    }
    assert_eq!(demo.interrupt().await, Some(0));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "its folder is gone");
}
