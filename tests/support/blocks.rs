//! The code blocks of a Markdown document, and what the comment above each says about running it.
//!
//! A comment is seen in the source only:
//!
//! - `<!-- prints: TEXT -->`: the block runs, and TEXT is in what it prints.
//! - `<!-- background until: TEXT -->`: it goes on running beside the blocks below it once it has printed TEXT.
//! - `<!-- file: NAME -->`: it is saved under this name, for the commands below it.
//! - `<!-- page: NAME shows: TEXT -->`: it is saved, and a browser that opens it shows TEXT.
//! - `<!-- in a page shows: TEXT -->`: it runs in a page of the hub's own address where somebody is signed in, and the page
//!   then shows TEXT. `hub`, `ticket`, `address()`, `show()` and `reload()` are there.
//! - `<!-- run by: tests/NAME.rs -->`: that test runs it.
//! - `<!-- not run: REASON -->`: nobody can.

/// A fenced block.
#[derive(Debug)]
pub(crate) struct Block {
    /// The first word behind the fence; empty without one.
    pub(crate) language: String,
    pub(crate) body: String,
    /// Where it begins, counted from 1.
    pub(crate) line: usize,
    pub(crate) mark: Mark,
}

/// What is said about running a block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Plain,
    Prints(String),
    Background { until: String },
    File(String),
    Page { file: String, shows: String },
    InPage { shows: String },
    RunBy(String),
    NotRun(String),
}

/// All blocks of a document, in order.
pub(crate) fn blocks(document: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut mark = Mark::Plain;
    let mut lines = document.lines().zip(1..);
    while let Some((text, line)) = lines.next() {
        let indent = text.len() - text.trim_start().len();
        let Some(language) = text.trim_start().strip_prefix("```") else {
            mark = Mark::read(text);
            continue;
        };
        let body = lines.by_ref().map(|(text, _)| text);
        let body = body.take_while(|text| !text.trim_start().starts_with("```"));
        let body =
            body.map(|text| format!("{}\n", text.get(indent..).unwrap_or_default())).collect();
        let language = language.trim().to_owned();
        found.push(Block { language, body, line, mark: std::mem::replace(&mut mark, Mark::Plain) });
    }
    found
}

impl Mark {
    /// What a line says about the block below it.
    fn read(line: &str) -> Self {
        let comment = line.trim().strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->"));
        let Some((name, value)) = comment.and_then(|text| text.trim().split_once(": ")) else {
            return Mark::Plain;
        };
        let value = value.to_owned();
        match name {
            "prints" => Mark::Prints(value),
            "background until" => Mark::Background { until: value },
            "file" => Mark::File(value),
            "page" => {
                let (file, shows) = value.split_once(" shows: ").expect("a page shows something");
                Mark::Page { file: file.to_owned(), shows: shows.to_owned() }
            }
            "in a page shows" => Mark::InPage { shows: value },
            "run by" => Mark::RunBy(value),
            "not run" => Mark::NotRun(value),
            _ => Mark::Plain, // another comment, or a slip: the block is then run as it stands
        }
    }
}
