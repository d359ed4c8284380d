//! A text that is compared with the one in `tests/transcript`, or written there.

use std::{fmt::Write as _, path::PathBuf};

/// What is recorded of one script.
pub(super) struct Record {
    name: &'static str,
    text: String,
}

/// Lines of more bytes are broken.
const WIDTH: usize = 120;

/// Where the text of this name is kept.
pub(super) fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("{}/tests/transcript/{name}.txt", env!("CARGO_MANIFEST_DIR")))
}

impl Record {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, text: String::new() }
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

    /// Ends a paragraph.
    pub(super) fn space(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// Fails with the differences unless all that was recorded is what was recorded before.
    pub(super) fn finish(self) {
        let path = path(self.name);
        if std::env::var_os("UPDATE_TRANSCRIPT").is_some() {
            return std::fs::write(path, self.text).unwrap();
        }
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        let changes = diff(&before, &self.text);
        assert!(
            changes.is_empty(),
            "others would see this change (- before, + now):\n{changes}\n\
             If all of it is meant, write it down and say why in the commit:\n  \
             UPDATE_TRANSCRIPT=1 cargo test --locked --test hub transcript::\n\
             in {}",
            path.display()
        );
    }
}

/// Lines around each change that are shown with it.
const AROUND: usize = 2;

/// The lines that differ, with a few around each; empty if none do.
fn diff(before: &str, now: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), now.lines().collect());
    // The longest common subsequence of what is left of both, for each pair of places.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = match old[i] == new[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && (j == new.len() || common[i + 1][j] >= common[i][j + 1]) {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    let is_near = |at: usize| {
        let near = at.saturating_sub(AROUND)..(at + AROUND + 1).min(lines.len());
        lines[near].iter().any(|(sign, _)| *sign != ' ')
    };
    let (mut shown, mut last) = (String::new(), None);
    for (at, (sign, line)) in lines.iter().enumerate().filter(|(at, _)| is_near(*at)) {
        if last.is_some_and(|last| last + 1 < at) {
            shown.push_str("…\n");
        }
        last = Some(at);
        writeln!(shown, "{sign} {line}").unwrap();
    }
    shown
}

#[test]
fn a_difference_is_shown_with_what_is_around_it() {
    assert_eq!(diff("a\nb\n", "a\nb\n"), "");
    let before = "1\n2\n3\n4\n5\n6\n7\n";
    assert_eq!(diff(before, &before.replace('6', "six")), "  4\n  5\n- 6\n+ six\n  7\n");
    assert_eq!(diff("", "new\n"), "+ new\n");
}
