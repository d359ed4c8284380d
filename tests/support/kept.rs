//! Texts that others see, kept in a file: compared with what the program says now, or written anew.

use std::path::Path;

use super::diff::diff;

/// How such texts are written anew.
pub(crate) struct Kept {
    /// The variable that asks for it.
    pub(crate) variable: &'static str,
    /// The tests that do it.
    pub(crate) tests: &'static str,
}

impl Kept {
    /// Whether the texts are written anew this time.
    pub(crate) fn is_rewritten(&self) -> bool {
        std::env::var_os(self.variable).is_some()
    }

    /// Fails with the differences unless `text` is what `path` holds, or writes it there.
    pub(crate) fn compare(&self, path: &Path, text: &str) {
        if self.is_rewritten() {
            return std::fs::write(path, text).unwrap();
        }
        let before = std::fs::read_to_string(path).unwrap_or_default();
        let changes = diff(&before, text);
        assert!(
            changes.is_empty(),
            "others would see this change (- before, + now):\n{changes}\n\
             If all of it is meant, write it down and say why in the commit:\n  \
             {}=1 cargo test --locked --test hub {}\n\
             in {}",
            self.variable,
            self.tests,
            path.display()
        );
    }
}
