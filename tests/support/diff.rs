//! Which lines of two texts differ.

use std::fmt::Write as _;

/// Lines around each change that are shown with it.
const AROUND: usize = 2;

/// The lines that differ, with a few around each; empty if none do.
pub(crate) fn diff(before: &str, now: &str) -> String {
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
