//! Every code block of the README and of `docs` runs, or says why it does not: tests/support/blocks.rs tells how.

use std::{collections::BTreeSet, fs, path::Path};

use futures_util::StreamExt as _;
use pulsehub::{
    admission::BatchLimits,
    config::Config,
    event::PublisherName,
    ingest::{self, native::BodyFormat},
};
use serde_json::Value;

use crate::support::{
    blocks::{Block, Mark},
    document::Document,
};

/// Documents that are followed at a time: each has a hub of its own.
const AT_A_TIME: usize = 3;

/// Where a block stands.
fn place(document: &Document, block: &Block) -> String {
    format!("{} line {} ({})", document.path, block.line, block.language)
}

#[tokio::test]
async fn every_document_can_be_followed_as_it_stands() {
    let documents = Document::all().into_iter().filter(Document::runs);
    let followed = futures_util::stream::iter(documents)
        .map(async |document| document.follow().await)
        .buffer_unordered(AT_A_TIME);
    let wrong: Vec<String> = followed.filter_map(async |done| done.err()).collect().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test]
async fn the_readmes_javascript_runs_as_a_script_as_a_module_and_in_the_console() {
    let readme = Document::read("README.md");
    let by_this_test = Mark::RunBy("tests/documents.rs".to_owned());
    let ours = |language: &str| {
        let is_it = |block: &&Block| block.language == language && block.mark == by_this_test;
        &*readme.blocks.iter().find(is_it).unwrap_or_else(|| panic!("no {language}")).body
    };
    let start = ours("sh").replace("make run", "pulsehub serve --data ./data");
    let steps = include_str!("docs/readme.md").replace("SCRIPT\n", ours("js"));
    let followed = Document::new("README.md", &steps.replace("START\n", &start)).follow().await;
    assert!(followed.is_ok(), "{}", followed.unwrap_err());
}

#[test]
fn every_block_runs_or_says_why_it_does_not() {
    let mut wrong = BTreeSet::new();
    for document in Document::all() {
        for block in &document.blocks {
            let fault = match &block.mark {
                Mark::NotRun(reason) if reason.split(' ').count() < 2 => Some("no reason"),
                Mark::NotRun(_) | Mark::File(_) => None,
                Mark::RunBy(test) => {
                    let text = fs::read_to_string(project().join(test)).unwrap_or_default();
                    let name = document.path.rsplit('/').next().unwrap();
                    (!text.contains(name))
                        .then_some("the test that is said to run it does not name the document")
                }
                // A text is what is shown, not what is run; JSON and TOML are read below.
                _ if ["text", "json", "toml"].contains(&&*block.language) => None,
                _ => (!block.runs()).then_some("it neither runs nor says why"),
            };
            wrong.extend(fault.map(|fault| format!("{}: {fault}", place(&document, block))));
        }
    }
    assert!(wrong.is_empty(), "see tests/support/blocks.rs: {wrong:#?}");
}

#[test]
fn every_event_is_one_and_all_other_json_is_valid() {
    let mut events = 0;
    for document in Document::all() {
        for block in document.blocks.iter().filter(|block| block.language == "json") {
            for value in serde_json::Deserializer::from_str(&block.body).into_iter::<Value>() {
                let value =
                    value.unwrap_or_else(|error| panic!("{}: {error}", place(&document, block)));
                if value.get("topic").is_some_and(Value::is_string) && value.get("data").is_some() {
                    events += 1;
                    let text = value.to_string();
                    let read = ingest::native::read(
                        text.as_bytes(),
                        BodyFormat::Json,
                        &defaults(),
                        &limits(),
                    );
                    assert!(read.is_ok(), "{}: {read:?}", place(&document, block));
                }
            }
        }
    }
    assert!(events >= 5, "{events}");
}

fn limits() -> BatchLimits {
    BatchLimits { event: 1 << 18, batch: 100 }
}

fn defaults() -> ingest::Defaults<'static> {
    static PUBLISHER: std::sync::LazyLock<PublisherName> =
        std::sync::LazyLock::new(|| PublisherName::key("test"));
    ingest::Defaults { source: "test", publisher: &PUBLISHER, now: 0, new_id: || "id".into() }
}

#[test]
fn all_settings_can_be_loaded() {
    let mut files = 0;
    // The examples of docs/configuration.md need one another; src/config/tests.rs loads them together.
    let documents = Document::all().into_iter().filter(|it| it.path != "docs/configuration.md");
    for document in documents {
        for block in document.blocks.iter().filter(|block| block.language == "toml") {
            if let Mark::NotRun(_) = block.mark {
                continue;
            }
            files += 1;
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("pulsehub.toml");
            fs::write(&path, &block.body).unwrap();
            let secret = ("PULSEHUB_SECRET".into(), "0123456789abcdef0123456789abcdef".into());
            if let Err(error) = Config::load(Some(&path), [secret], &[]) {
                panic!("{}: {error}", place(&document, block));
            }
        }
    }
    assert!(files >= 3, "{files}");
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut wrong = BTreeSet::new();
    for document in Document::all() {
        let text = fs::read_to_string(project().join(&document.path)).unwrap();
        let folder = project().join(&document.path).parent().unwrap().to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.contains(char::is_whitespace) {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path =
                if file.is_empty() { project().join(&document.path) } else { folder.join(file) };
            let is_there = match heading {
                "" => path.exists(),
                _ => fs::read_to_string(&path).is_ok_and(|text| anchors(&text).contains(heading)),
            };
            if !is_there {
                wrong.insert(format!("{}: {target}", document.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The names under which the headings of a document can be linked to, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let name = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(name).collect()
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
