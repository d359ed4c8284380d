//! The README's commands, run as they are written, in a fresh copy of the project.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/blocks.rs"]
#[expect(dead_code, reason = "the test of all documents reads more of a block")]
mod blocks;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::{fs::symlink, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// A build of everything from nothing, on a slow machine.
const BUILD: Duration = Duration::from_secs(40 * 60);

#[test]
fn the_readmes_commands_work_as_written() {
    TcpListener::bind("127.0.0.1:8080")
        .expect("the README says 127.0.0.1:8080, and something else listens there: stop it");
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = copy_of(project);
    let document = fs::read_to_string(project.join("README.md")).unwrap();
    let is_ours = |block: &blocks::Block| {
        block.language == "sh" && block.mark == blocks::Mark::RunBy("tests/readme.rs".to_owned())
    };
    let blocks = blocks::blocks(&document).into_iter().filter(is_ours);
    let blocks: Vec<String> = blocks.map(|block| block.body).collect();
    let (first, others) = blocks.split_first().expect("README has commands");
    assert_eq!(first.trim(), "make run", "the first command starts the hub");
    assert!(others.len() >= 2, "README publishes and reads");
    // docs/quickstart.md begins with the same command.
    let quickstart = fs::read_to_string(project.join("docs/quickstart.md")).unwrap();
    assert_eq!(blocks::blocks(&quickstart).first().map(|block| &block.body), Some(first));
    let hub = Running::start(first, copy.path());

    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &others.join("\necho\n")])
        .current_dir(copy.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    // The answer, the page of history and the line of `tail` all show the event.
    assert!(said.contains(r#"{"accepted":1,"duplicates":0,"position":""#), "{said}");
    assert_eq!(said.matches(r#""topic":"demo.hello""#).count(), 2, "{said}");
    assert_eq!(said.matches(r#""data":{"text":"hello"}"#).count(), 2, "{said}");

    // The page is in the program, compressed: it was built by the first command, and no folder is read.
    fs::remove_dir_all(copy.path().join("web")).unwrap();
    let page = fetch("/");
    let (_, rest) = page.split_once("src=\"/assets/").expect("the page names its script");
    let (script, _) = rest.split_once('"').unwrap();
    let headers = fetch(&format!("/assets/{script}"));
    assert!(headers.contains("content-encoding: br"), "{headers}");

    // The curl line the hub itself suggests is as good as the README's.
    let suggested = hub.suggestion();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &suggested])
        .current_dir(copy.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(r#"{"accepted":1"#), "{suggested}\n{said}");
}

/// What curl shows of a path: the page as text, or the headers of what is not text.
fn fetch(path: &str) -> String {
    let what: &[&str] = if path == "/" {
        &["--compressed"]
    } else {
        &["-H", "Accept-Encoding: br", "-D", "-", "-o", "/dev/null"]
    };
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "30"])
        .args(what)
        .arg(format!("http://127.0.0.1:8080{path}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The files git knows, and the build folder of this project, so that dependencies are not built twice.
fn copy_of(project: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(project)
        .output()
        .unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    for name in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
        let (from, to) = (project.join(name), copy.path().join(name));
        if from.is_file() {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        }
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(project.join("target"), PathBuf::from);
    symlink(target, copy.path().join("target")).unwrap();
    copy
}

/// A command of the README that goes on running; ended with all it started.
struct Running {
    child: Child,
    errors: mpsc::Receiver<String>,
}

impl Running {
    fn start(command: &str, folder: &Path) -> Self {
        let mut child = Command::new("bash")
            .args(["-euo", "pipefail", "-c", command])
            .current_dir(folder)
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = lines(child.stdout.take().unwrap());
        let errors = lines(child.stderr.take().unwrap());
        let running = Self { child, errors };
        loop {
            match out.recv_timeout(BUILD) {
                Ok(line) if line == "listening on http://127.0.0.1:8080" => return running,
                Ok(_) => {}
                Err(_) => panic!("{command} never listened: {}", running.said()),
            }
        }
    }

    fn said(&self) -> String {
        self.errors.try_iter().collect::<Vec<_>>().join("\n")
    }

    /// The curl command among what the hub says at its start.
    fn suggestion(&self) -> String {
        let mut command = String::new();
        while let Ok(line) = self.errors.recv_timeout(Duration::from_secs(30)) {
            if command.is_empty() && !line.trim_start().starts_with("curl ") {
                continue;
            }
            command.push_str(line.trim());
            match command.strip_suffix('\\') {
                Some(before) => command.truncate(before.len()),
                None => return command,
            }
        }
        panic!("the hub suggested no curl command: {command}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The group of the process this test started, by its id.
        let group = format!("-{}", self.child.id());
        let killed = Command::new("kill").args(["-TERM", "--", &group]).status();
        assert!(killed.is_ok_and(|status| status.success()), "the hub was not running any more");
        let _ = self.child.wait();
    }
}

fn lines(from: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
