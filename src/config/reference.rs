//! docs/configuration.md, made of the commented defaults.

use std::fmt::Write as _;

use super::layers::variable;

/// The reference of all keys in Markdown, made of `defaults`.
///
/// A comment belongs to the section or key below it. A comment without a space after its `#` is an
/// example: a setting that is not in force.
pub fn render(defaults: &str) -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         <!-- Made from config/pulsehub.toml: change that, then run the tests with UPDATE_DOCS=1. -->\n\n",
    );
    let mut comment = Vec::new();
    let mut example = Vec::new();
    let mut section = String::new();
    for line in defaults.lines().chain([""]) {
        let code = line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' '));
        if let Some(code) = code {
            example.push(code);
        } else if let Some(text) = line.strip_prefix('#') {
            comment.push(text.trim_start());
        } else if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            put(&mut out, format_args!("## [{section}]\n\n{}\n\n", prose(&mut comment)));
        } else if let Some((name, value)) = line.split_once(" = ") {
            let key =
                if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
            let text = prose(&mut comment);
            let variable = variable(&key);
            put(&mut out, format_args!("### {name}\n\n{text}\n\n"));
            put(&mut out, format_args!("Default `{value}`, variable `{variable}`.\n\n"));
        } else {
            // A blank line ends what belongs to no key: an introduction or an example.
            let text = prose(&mut comment);
            if !text.is_empty() {
                put(&mut out, format_args!("{text}\n\n"));
            }
            if !example.is_empty() {
                // A key alone is shown with its section, so that the example is a file that can be loaded.
                let head = match example.first() {
                    Some(first) if !first.starts_with('[') => format!("[{section}]\n"),
                    _ => String::new(),
                };
                put(&mut out, format_args!("```toml\n{head}{}\n```\n\n", example.join("\n")));
                example.clear();
            }
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// `defaults` with its examples in force.
pub(super) fn with_examples(defaults: &str) -> String {
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(code) if !code.is_empty() && !code.starts_with(' ') => format!("{code}\n"),
        _ => format!("{line}\n"),
    };
    defaults.lines().map(uncomment).collect()
}

/// The gathered lines as paragraphs.
fn prose(comment: &mut Vec<&str>) -> String {
    let text = comment.split(|line| line.is_empty()).map(|lines| lines.join(" "));
    let text = text.collect::<Vec<_>>().join("\n\n");
    comment.clear();
    text
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to memory cannot fail.
    let _ = out.write_fmt(text);
}
