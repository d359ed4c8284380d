//! The program as people use it: what it prints, what its exit codes say, how `tail` comes back.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
};

use crate::support::{DEADLINE, eventually, hub::TestHub, process::Home};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pulsehub");

/// The program with a clean environment.
fn program(args: &[&str]) -> Command {
    let mut command = clean(Command::new(PROGRAM));
    command.args(args);
    command
}

/// Without the settings of the shell that runs the tests.
fn clean(mut command: Command) -> Command {
    let ours = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("PULSEHUB"));
    for name in ours {
        command.env_remove(name);
    }
    command
}

fn run(args: &[&str]) -> Output {
    program(args).output().unwrap()
}

/// Runs it with this token.
fn run_as(token: &str, args: &[&str]) -> Output {
    program(args).env("PULSEHUB_TOKEN", token).output().unwrap()
}

#[track_caller]
fn assert_fails(args: &[&str], code: i32, says: &str) {
    assert_failed(args, &run(args), code, says);
}

#[track_caller]
fn assert_fails_as(token: &str, args: &[&str], code: i32, says: &str) {
    assert_failed(args, &run_as(token, args), code, says);
}

#[track_caller]
fn assert_failed(args: &[&str], output: &Output, code: i32, says: &str) {
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {complaint}");
    assert!(complaint.contains(says), "{args:?}: {complaint}");
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned()
}

/// A child process and the lines of its standard output; killed when dropped.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        Self::start_as("", args)
    }

    fn start_as(token: &str, args: &[&str]) -> Self {
        Self::spawn(program(args).env("PULSEHUB_TOKEN", token).stderr(Stdio::null()))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line on standard output")
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A hub, the address it listens on, and a token that may do everything.
fn serve(data: &str, listen: &str) -> (Running, String, String) {
    let hub = Running::start(&["serve", "--listen", listen, "--data", data]);
    let line = hub.line();
    let url = line.strip_prefix("listening on ").expect("the one line it prints").to_owned();
    let token = stdout(&run(&["token", "--data", data, "--sub", "me", "--role", "admin"]));
    (hub, url, token)
}

fn path(folder: &Path) -> &str {
    folder.to_str().unwrap()
}

#[test]
fn tail_comes_back_after_a_crash_and_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path());
    let (mut hub, url, token) = serve(data, "127.0.0.1:0");
    let publish = |text: &str| stdout(&run_as(&token, &["publish", "demo.a", text, "--url", &url]));
    publish("\"first\"");
    let tail = Running::start_as(&token, &["tail", "demo.**", "--last", "10", "--url", &url]);
    assert!(tail.line().contains("\"data\":\"first\""));
    hub.kill();
    let (_hub, again, _) = serve(data, url.strip_prefix("http://").unwrap());
    assert_eq!(again, url);
    publish("\"second\"");
    publish("plain text");
    assert!(tail.line().contains("\"data\":\"second\""), "neither lost nor repeated");
    assert!(tail.line().contains("\"data\":\"plain text\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_said_of_every_close_only_that_the_hub_wants_it_later() {
    let hub = TestHub::with(&[("limits.connections_per_principal", "1")]).await;
    let token = hub.token("ada", &["a.*"]);
    let _first = hub.client("ada", &["a.*"]).await;
    let mut command = program(&["tail", "a.*", "--url", &hub.url("")]);
    let command = command.env("PULSEHUB_TOKEN", &token).stderr(Stdio::piped());
    let mut tail = Running::spawn(command);
    let said = BufReader::new(tail.child.stderr.take().unwrap());
    let line = tokio::task::spawn_blocking(move || said.lines().next().unwrap().unwrap());
    let line = tokio::time::timeout(DEADLINE, line).await.expect("it says nothing").unwrap();
    assert!(line.contains("4429") && line.contains("back in"), "{line}");
}

#[test]
fn commands_work_beside_a_running_hub() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path());
    let (_hub, url, token) = serve(data, "127.0.0.1:0");
    let publish = ["publish", "demo.a", "[1]", "--key", "k", "--url", &url];
    let answer = stdout(&run_as(&token, &publish));
    assert!(answer.contains("\"accepted\":1"), "{answer}");
    assert!(stdout(&run(&["healthcheck", "--url", &url])).contains("\"accepting\":true"));
    let exported = stdout(&run(&["export", "--data", data, "--topics", "demo.*"]));
    assert!(exported.contains("\"key\":\"k\",\"data\":[1]}"), "{exported}");
    assert!(stdout(&run(&["check", "--data", data])).contains("journal: good"));

    let make = ["key", "create", "--data", data, "--name", "locanext", "--publish", "locanext.**"];
    let key = stdout(&run(&make));
    let publish = |topic| ["publish", topic, "{}", "--url", &url];
    stdout(&run_as(&key, &publish("locanext.metrics")));
    assert_fails_as(&key, &publish("other.metrics"), 4, "publish other");
    let listed = stdout(&run(&["key", "list", "--data", data]));
    assert!(listed.contains("locanext") && listed.contains("good"), "{listed}");
    assert!(!listed.contains(&key), "a key is shown once");
    assert!(stdout(&run(&["key", "revoke", "--data", data, &key])).starts_with("revoked "));
    assert_fails_as(&key, &publish("locanext.metrics"), 4, "revoked");

    assert_fails(&["serve", "--data", data, "--listen", "127.0.0.1:0"], 1, "another pulsehub");
    let busy = url.strip_prefix("http://").unwrap();
    let other = tempfile::tempdir().unwrap();
    assert_fails(&["serve", "--data", path(other.path()), "--listen", busy], 1, "cannot listen");
    assert_fails(&["demo", "--data", data], 2, "something other than a demo");
    assert_fails_as("no", &publish("a"), 4, "401");
    assert_fails_as(&token, &publish("hub.a"), 4, "nobody but the hub");
}

#[test]
fn a_refusal_is_told_in_words_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (_hub, url, token) = serve(path(folder.path()), "127.0.0.1:0");
    assert_fails(&["publish", "a", "1", "--url", &url], 4, "`pulsehub token` prints one");
    assert_fails(&["tail", "a", "--url", &url], 4, "`pulsehub token` prints one");
    assert_fails_as("", &["tail", "a", "--url", &url], 4, "`pulsehub token` prints one");
    assert_fails_as("no", &["tail", "a", "--url", &url], 4, "three parts");
    let unquoted = run_as(&token, &["publish", "a", "{text:hello}", "--url", &url]);
    assert!(unquoted.status.success());
}

#[test]
fn a_redis_that_is_away_and_a_folder_that_is_not_there_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path());
    assert_fails(
        &["serve", "--listen", "127.0.0.1:0", "--data", data, "--redis", "redis://127.0.0.1:1"],
        1,
        "cannot be reached",
    );
    let slip = folder.path().join("slip");
    let says = "name the hub's with --data";
    assert_fails(&["token", "--data", path(&slip), "--sub", "x", "--role", "admin"], 2, says);
    assert_fails(&["key", "list", "--data", path(&slip)], 2, says);
    assert!(!slip.exists(), "a folder that is not there is not made");
}

#[test]
fn the_help_of_every_command_has_examples() {
    for command in
        ["serve", "demo", "token", "key", "publish", "tail", "export", "check", "healthcheck"]
    {
        let help = stdout(&run(&[command, "--help"]));
        assert!(help.contains("Examples:"), "{command}: {help}");
    }
}

#[tokio::test]
async fn check_called_good_what_serve_warns_of() {
    let folder = tempfile::tempdir().unwrap();
    let check = |variables: &[(&str, &str)]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pulsehub"));
        command.env_clear().envs(variables.iter().copied());
        command.args(["check", "--settings-only", "--data"]).arg(folder.path());
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (code, said) = check(&[("PULSEHUB_AUTH_QUERY_TOKEN", "true"), ("PROMETHEUS_PORT", "9")]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("auth.query_token") && said.contains("PROMETHEUS_PORT"), "{said}");
    assert!(said.ends_with("in 2 ways\n"), "{said}");
    assert_eq!(check(&[]), (Some(0), "settings: good\n".to_owned()));
}

#[tokio::test]
async fn a_sign_in_link_is_not_written_into_what_may_be_a_log() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (log, link) = (folder.path().join("log"), data.join("sign-in-link"));
    let args = ["serve", "--listen", "127.0.0.1:0", "--data", path(&data), "--welcome"];
    let start = || {
        let errors = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        Running::spawn(program(&args).stderr(errors))
    };
    for times in 1..=2 {
        let mut hub = start();
        let said = eventually("the welcome", async || {
            let said = std::fs::read_to_string(&log).unwrap();
            (said.matches("/api/v1/publish").count() == times).then_some(said)
        });
        let said = said.await;
        assert!(!said.contains("#code="), "{said}");
        assert!(said.contains(&format!("Open the link in {}, once", link.display())), "{said}");
        let mode = link.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{mode:o}");
        let kept = std::fs::read_to_string(&link).unwrap();
        let (address, code) = kept.trim().split_once("/#code=").unwrap();
        let session = reqwest::Client::new().post(format!("{address}/api/v1/session"));
        let answer = session.json(&serde_json::json!({"code": code})).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        if times == 1 {
            // Another one's file is not written into, and what a crash leaves behind is replaced.
            hub.kill();
            let open = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(&link, open).unwrap();
        } else {
            let id = hub.child.id().to_string();
            assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
            assert!(hub.child.wait().unwrap().success());
            assert!(!link.exists(), "the file goes with the hub");
        }
    }
    // A terminal is shown the link itself.
    let line = format!("{PROGRAM} {}", args.join(" "));
    let mut script = clean(Command::new("script"));
    script.args(["--quiet", "--flush", "--command", &line, "/dev/null"]);
    let mut terminal = Running::spawn(&mut script);
    while !terminal.line().contains("/#code=") {}
    assert!(!link.exists());
    // Killed, it would leave the hub running.
    crate::support::signal(terminal.child.id(), "TERM");
    terminal.child.wait().unwrap();
}

#[test]
fn a_token_for_a_hundred_years_is_warned_of_when_it_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path());
    let (_hub, ..) = serve(data, "127.0.0.1:0");
    let make =
        |ttl| run(&["token", "--data", data, "--sub", "a", "--role", "viewer", "--ttl", ttl]);
    let long = make("36500d");
    assert_eq!(stdout(&long).split('.').count(), 3, "only the token on standard output");
    let warning = String::from_utf8_lossy(&long.stderr);
    assert!(warning.contains("36500d") && warning.contains("auth.longest_life"), "{warning}");
    let short = make("365d");
    assert_eq!(stdout(&short).split('.').count(), 3);
    assert!(short.stderr.is_empty(), "{}", String::from_utf8_lossy(&short.stderr));
}

#[test]
fn a_secret_in_the_arguments_is_refused_and_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let (_hub, url, token) = serve(path(folder.path()), "127.0.0.1:0");
    let with_login = url.replace("http://", "http://me:hunter2@");
    for (args, says) in [
        (&["tail", "a", "--url", &url, "--token", "hunter2"][..], "--token-file"),
        (&["publish", "a", "1", "--url", &url, "--token=hunter2"], "PULSEHUB_TOKEN"),
        (&["nodes", "--url", &with_login], "PULSEHUB_TOKEN"),
        (&["serve", "--redis", "redis://:hunter2@127.0.0.1:1"], "PULSEHUB_REDIS"),
        (&["check", "--redis", "redis+sentinel://:hunter2@127.0.0.1:1/m"], "PULSEHUB_REDIS"),
        (&["token", "--sub", "a", "--redis", "redis+unix:///s?pass=hunter2"], "PULSEHUB_REDIS"),
    ] {
        let output = run(args);
        assert_failed(args, &output, 2, says);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"), "{args:?}");
    }
    // The ways that are left.
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let publish = ["publish", "a", "1", "--url", &url, "--token-file", path(&file)];
    assert!(stdout(&run_as("no", &publish)).contains("\"accepted\":1"));
    std::fs::write(&file, "\n").unwrap();
    assert_fails(&publish, 2, "is empty");
    std::fs::remove_file(&file).unwrap();
    assert_fails(&publish, 2, "--token-file");
    let settings = ["check", "--settings-only"];
    let mut checked = program(&settings);
    stdout(&checked.env("PULSEHUB_REDIS", "redis://:hunter2@127.0.0.1:1").output().unwrap());
}

#[tokio::test]
async fn a_log_that_goes_to_a_file_has_no_colours() {
    let home = Home::new("");
    let mut hub = home.start().await;
    let id = hub.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(hub.ends().await, Some(0));
    let log = home.log();
    assert!(log.contains("stopped") && !log.contains('\u{1b}'), "{log}");
}
