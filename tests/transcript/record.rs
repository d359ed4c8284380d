//! A text that is compared with the one in `tests/transcript`, or written there.

use std::path::PathBuf;

use crate::support::kept::Kept;

/// What is recorded of one script.
pub(super) struct Record {
    name: &'static str,
    text: String,
    is_copy: bool,
}

const KEPT: Kept = Kept { variable: "UPDATE_TRANSCRIPT", tests: "transcript::" };

/// Lines of more bytes are broken.
const WIDTH: usize = 120;

/// Where the text of this name is kept.
pub(super) fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("{}/tests/transcript/{name}.txt", env!("CARGO_MANIFEST_DIR")))
}

impl Record {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, text: String::new(), is_copy: false }
    }

    /// Adds a line, or several, each this far from the margin. A long one goes on in the next, deeper, with each item
    /// of a list.
    pub(super) fn add(&mut self, indent: usize, text: &str) {
        for line in text.lines() {
            let parts: Vec<&str> = match line.len() {
                0..=WIDTH => vec![line],
                _ => line.split_inclusive("},").collect(),
            };
            for (at, part) in parts.into_iter().enumerate() {
                let indent = indent + if at > 0 { 4 } else { 0 };
                self.text.push_str(format!("{:indent$}{part}", "").trim_end());
                self.text.push('\n');
            }
        }
    }

    /// Never writes the text anew: another script does.
    pub(super) fn only_compare(&mut self) {
        self.is_copy = true;
    }

    /// Ends a paragraph.
    pub(super) fn space(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// Fails with the differences unless all that was recorded is what was recorded before.
    pub(super) fn finish(self) {
        if self.is_copy && KEPT.is_rewritten() {
            return; // another script writes it, maybe at this moment
        }
        KEPT.compare(&path(self.name), &self.text);
    }
}
