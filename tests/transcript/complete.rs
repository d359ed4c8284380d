//! That nothing is left out of the transcript: every message, code and path is in some text, or stands here with the
//! reason why not.

use super::{
    lists::{CLOSES, ERRORS},
    record,
};

/// Refusals that no script can have, each with the reason.
const NOT_REFUSED: [(&str, &str); 5] = [
    ("internal", "the hub made a mistake: a handler panicked"),
    ("outcome_unknown", "Redis did not answer in time: tests/cluster/trouble.rs"),
    ("shutting_down", "the log is closed after the last connection has ended"),
    ("superseded", "two make a key for one instance at the same time: tests/instances.rs"),
    ("too_many_questions", "questions of one user are under way at the same time"),
];

/// Errors that no script can have.
const NO_ERRORS: [(&str, &str); 1] = [(
    "unavailable",
    "the log or the store cannot be read or written: tests/disk.rs, tests/cluster/trouble.rs",
)];

/// Closes that no script can have.
const NO_CLOSES: [(&str, &str); 1] = [(
    "too_slow",
    "a client must leave megabytes unread for `socket.write_timeout`: tests/limits.rs",
)];

/// Paths that no script asks for.
const NO_PATHS: [(&str, &str); 3] = [
    ("/favicon.svg", "it is there only where the page was built"),
    ("/api/v1/openapi.json", "it describes what the texts show: tests/openapi.rs"),
    ("/api/v1/docs", "the same as a page"),
];

/// Every refusal over HTTP: status, code, title, and whether it may succeed later.
pub(super) fn refusals() -> Vec<(String, String, String, &'static str)> {
    // In http/error.rs a line is NAME = STATUS "code" "title".
    let source = source("src/http/error.rs");
    let lines = source.lines().map(str::trim).filter(|line| {
        line.starts_with(|first: char| first.is_ascii_uppercase())
            && line.ends_with(';')
            && line.contains(" = ")
    });
    let read = |line: &str| {
        let mut quoted = line.split('"');
        let status = quoted.next()?.split(" = ").nth(1)?.trim().to_owned();
        let (code, title) = (quoted.next()?.to_owned(), quoted.nth(1)?.to_owned());
        let retryable = if line.ends_with("retryable;") { ", retryable" } else { "" };
        Some((status, code, title, retryable))
    };
    let all: Vec<_> = lines.filter_map(read).collect();
    assert!(all.len() > 30, "the refusals are written in another way now");
    all
}

fn source(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// All texts, one behind the other.
fn transcript() -> String {
    let folder = record::path("x");
    let files = std::fs::read_dir(folder.parent().unwrap()).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let texts = files.filter(|path| path.extension().is_some_and(|kind| kind == "txt"));
    texts.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// Fails unless exactly those are missing that are known to be.
fn assert_complete<'a>(
    what: &str,
    all: impl IntoIterator<Item = &'a str>,
    is_there: impl Fn(&str) -> bool,
    excused: &[(&str, &str)],
) {
    let mut missing: Vec<&str> = all.into_iter().filter(|one| !is_there(one)).collect();
    let mut known: Vec<&str> = excused.iter().map(|(name, _)| *name).collect();
    missing.sort_unstable();
    known.sort_unstable();
    assert_eq!(missing, known, "{what} that are in no text of tests/transcript, and those excused");
}

#[test]
fn every_code_message_and_path_is_in_the_transcript() {
    let text = transcript();
    let refusals = refusals();
    let refusals = refusals.iter().map(|(_, code, ..)| &**code);
    let is_refused = |code: &str| text.contains(&format!("\"urn:pulsehub:problem:{code}\""));
    assert_complete("refusals", refusals, is_refused, &NOT_REFUSED);

    let is_error = |code: &str| {
        let code = format!("\"code\":\"{code}\"");
        text.lines().any(|line| line.contains("\"type\":\"error\"") && line.contains(&code))
    };
    assert_complete("errors", ERRORS.iter().map(|code| code.name()), is_error, &NO_ERRORS);

    let is_closed = |name: &str| {
        let close = CLOSES.iter().find(|close| close.name() == name).unwrap();
        text.contains(&format!("← close {} ", close.number()))
    };
    assert_complete("closes", CLOSES.iter().map(|code| code.name()), is_closed, &NO_CLOSES);

    // tests/golden.rs sees to it that there is an example of each message.
    let folder = format!("{}/tests/protocol", env!("CARGO_MANIFEST_DIR"));
    for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
        let example = std::fs::read_to_string(&file).unwrap();
        let example: serde_json::Value = serde_json::from_str(&example).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        let (arrow, kind) = (if name.starts_with("client") { "→" } else { "←" }, &example["type"]);
        let is_said = |line: &str| {
            line.contains(&format!(" {arrow} ")) && line.contains(&format!("\"type\":{kind}"))
        };
        assert!(text.lines().any(is_said), "{name} is said in no text of tests/transcript");
    }

    let source = source("src/http.rs");
    let routes = source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
    let shipped = [
        "/api/dashboard/metrics",
        "/api/dashboard/health",
        "/api/dashboard/call-volume",
        "/api/dashboard/recent-activity",
        "/api/stats/",
    ];
    let asked: Vec<&str> = text.lines().filter_map(path_of).collect();
    let is_asked = |route: &str| asked.iter().any(|path| is_at(path, route));
    assert_complete("paths", routes.chain(shipped), is_asked, &NO_PATHS);
}

/// The path of a line that tells of a request, or of a socket.
fn path_of(line: &str) -> Option<&str> {
    let mut words = line.split(' ');
    let path = match words.next()? {
        "GET" | "POST" | "DELETE" | "PUT" | "OPTIONS" => words.next()?,
        _ if line.contains(" opens /") => words.find(|word| word.starts_with('/'))?,
        _ => return None,
    };
    path.split('?').next()
}

fn is_at(path: &str, route: &str) -> bool {
    let (path, route): (Vec<_>, Vec<_>) = (path.split('/').collect(), route.split('/').collect());
    let is_so = |(path, route): (&&str, &&str)| route.starts_with('{') || path == route;
    path.len() == route.len() && path.iter().zip(&route).all(is_so)
}
