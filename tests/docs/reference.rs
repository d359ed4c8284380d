//! The pages of `docs/reference` that are made of the program itself.
//!
//! `UPDATE_DOCS=1 cargo test --locked --test hub docs::reference` writes them anew.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use clap::{Arg, Command, CommandFactory as _};
use pulsehub::{cli::Cli, http::openapi};
use serde_json::Value;

use crate::transcript::lists::telemetry_with_every_label;

/// Fails unless the page is `rendered`; with `UPDATE_DOCS` it becomes that.
#[track_caller]
fn assert_is(page: &str, rendered: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, rendered).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == rendered, "{page} is old: run the tests with UPDATE_DOCS=1");
}

#[test]
fn cli_md_is_what_the_program_knows_of_its_commands() {
    let mut out = String::from(
        "# Command line\n\n\
         <!-- Made of the commands themselves: change src/cli, then run the tests with UPDATE_DOCS=1. -->\n\n",
    );
    let mut root = Cli::command();
    root.build();
    writeln!(out, "{}\n", root.get_about().unwrap()).unwrap();
    out.push_str("| command | |\n|---|---|\n");
    for command in root.get_subcommands().filter(|it| it.get_name() != "help") {
        let name = command.get_name();
        writeln!(
            out,
            "| [`pulsehub {name}`](#pulsehub-{name}) | {} |",
            command.get_about().unwrap()
        )
        .unwrap();
    }
    writeln!(out, "\n{}\n", plain(&root.get_after_help().unwrap().to_string())).unwrap();
    let mut waiting: Vec<Command> = root.get_subcommands().cloned().collect();
    waiting.reverse();
    while let Some(mut command) = waiting.pop() {
        if command.get_name() == "help" {
            continue;
        }
        describe(&mut out, &mut command);
        let below: Vec<Command> = command.get_subcommands().cloned().collect();
        waiting.extend(below.into_iter().rev());
    }
    assert_is("docs/reference/cli.md", &format!("{}\n", out.trim_end()));
}

/// The section of one command.
fn describe(out: &mut String, command: &mut Command) {
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    let (name, about) = (command.get_bin_name().unwrap(), command.get_about().unwrap());
    writeln!(out, "## {name}\n\n{about}.\n\n```text\n{usage}\n```\n").unwrap();
    let shown =
        |arg: &&Arg| !arg.is_hide_set() && arg.get_id() != "help" && arg.get_id() != "version";
    let args: Vec<&Arg> = command.get_arguments().filter(shown).collect();
    if !args.is_empty() {
        out.push_str("| argument | |\n|---|---|\n");
        for arg in args {
            writeln!(out, "| `{}` | {} |", form(arg), meaning(arg)).unwrap();
        }
        out.push('\n');
    }
    let help = command.get_after_help().map(ToString::to_string);
    let help = help.unwrap_or_else(|| panic!("{name} --help shows no example"));
    let (examples, rest) = help.split_once("\n\n").unwrap_or((&help, ""));
    let examples = examples.strip_prefix("Examples:\n").expect("the help begins with examples");
    let examples: Vec<&str> =
        examples.lines().map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
    examples.iter().for_each(|line| assert_understood(line));
    out.push_str(
        "<!-- not run: the examples of --help, each of which is parsed; tests/cli.rs runs every command -->\n```sh\n",
    );
    out.extend(examples.iter().map(|line| format!("{line}\n")));
    writeln!(out, "```\n").unwrap();
    if !rest.is_empty() {
        writeln!(out, "{}\n", plain(rest)).unwrap();
    }
}

/// Fails unless the program knows the commands and arguments of this line of a shell.
#[track_caller]
fn assert_understood(line: &str) {
    let mut rest = line.to_owned();
    // What a shell puts in the place of a command in a command, which is looked at too.
    while let Some((before, after)) = rest.split_once("$(") {
        let (inner, after) = after.split_once(')').unwrap();
        if inner.starts_with("pulsehub ") {
            assert_understood(inner);
        }
        rest = format!("{before}value{after}");
    }
    let words = rest.split_whitespace().map(|word| word.trim_matches('\'').to_owned());
    let words = words.skip_while(|word| word.contains('=')); // variables
    let words: Vec<String> = words.take_while(|word| !["|", "<", ">"].contains(&&**word)).collect();
    if let Err(error) = Cli::command().try_get_matches_from(words) {
        panic!("{line}: {error}");
    }
}

/// How an argument is written.
fn form(arg: &Arg) -> String {
    let values: Vec<String> =
        arg.get_value_names().into_iter().flatten().map(|name| format!("<{name}>")).collect();
    match arg.get_long() {
        Some(long) if arg.get_action().takes_values() => format!("--{long} {}", values.join(" ")),
        Some(long) => format!("--{long}"),
        None => values.join(" "),
    }
}

/// What it does, and what is taken without it.
fn meaning(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut text = help.replace('|', "\\|").replace('\n', " ");
    if arg.is_required_set() {
        text += ". Required";
    }
    let defaults: Vec<_> =
        arg.get_default_values().iter().filter_map(|value| value.to_str()).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        write!(text, ". Default `{}`", defaults.join(" ")).unwrap();
    }
    if let Some(variable) = arg.get_env().and_then(|name| name.to_str()) {
        write!(text, ". Variable `{variable}`").unwrap();
    }
    text
}

/// Help that was wrapped for a terminal, as paragraphs.
fn plain(help: &str) -> String {
    help.split("\n\n")
        .map(|paragraph| paragraph.replace('\n', " "))
        .collect::<Vec<_>>()
        .join("\n\n")
}

#[test]
fn metrics_md_is_what_the_hub_counts() {
    let mut out = String::from(
        "# Metrics\n\n\
         <!-- Made of the hub's own metrics: change src/telemetry/metrics.rs, then run the tests with UPDATE_DOCS=1. -->\n\n\
         ```sh\ncurl -sS http://127.0.0.1:8080/metrics\n```\n\n\
         The answer is in the OpenMetrics text format, or in that of Prometheus 0.0.4 if `Accept` prefers `text/plain`.\n\
         On a loopback address anybody may ask, and so may everybody with\n\
         `http.public_metrics`. Otherwise it takes an admin, or a grant to subscribe to `hub.metrics`. The same numbers are\n\
         published every second on the topic `hub.metrics`, with the node's name as key.\n\n\
         | metric | type | labels | |\n|---|---|---|---|\n",
    );
    let text = telemetry_with_every_label().openmetrics().unwrap();
    let (mut kinds, mut helps, mut labels) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            kinds.insert(name, kind);
        } else if let Some((name, help)) =
            line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
        {
            helps.insert(name, help);
        } else if let Some((name, rest)) = line.split_once('{') {
            let names = rest
                .split(['{', ','])
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, _)| name);
            let names: Vec<_> =
                names.filter(|name| *name != "le").map(|name| format!("`{name}`")).collect();
            labels.insert(name.trim_end_matches("_total"), names.join(", "));
        }
    }
    for (name, kind) in &kinds {
        let (end, labels) = (if *kind == "counter" { "_total" } else { "" }, labels.get(name));
        let (labels, help) = (labels.map_or("", |labels| labels), helps[name]);
        writeln!(out, "| `{name}{end}` | {kind} | {labels} | {help} |").unwrap();
    }
    assert!(kinds.len() > 30, "{kinds:?}");
    out.push_str(
        "\nA histogram has `_bucket` with the label `le`, `_count` and `_sum`, in seconds. The values of `limit` are listed in\n\
         [protocol.md](../protocol.md#limits), those of `code` of `pulsehub_refusals_total` under\n\
         [refusals](../protocol.md#refusals-over-http), those of `pulsehub_series_drops_total` in [series.md](../series.md).\n",
    );
    assert_is("docs/reference/metrics.md", &out);
}

#[test]
fn http_md_is_the_description_that_the_hub_serves() {
    let document = openapi::document();
    let mut out = String::from(
        "# HTTP\n\n\
         <!-- Made of the hub's own description: change src/http/openapi, then run the tests with UPDATE_DOCS=1. -->\n\n\
         <!-- prints: \"openapi\":\"3.1.0\" -->\n\
         ```sh\nexport TOKEN=$(pulsehub token --data ./data --sub me --subscribe '**')\n\
         curl -sS -H \"Authorization: Bearer $TOKEN\" http://127.0.0.1:8080/api/v1/openapi.json\n```\n\n\
         The hub describes itself: `/api/v1/openapi.json` is OpenAPI 3.1 for tools, `/api/v1/docs` a page for people. This is the\n\
         same. Send a token or an API key as `Authorization: Bearer …` or `X-API-Key: …`. A refusal is\n\
         [`application/problem+json`](#problem) with a stable `code`; [protocol.md](../protocol.md#refusals-over-http) lists all\n\
         codes. What the paths mean together is explained in [protocol.md](../protocol.md) as well.\n\n",
    );
    out.push_str(
        "Every request with credentials can also be answered:\n\n| status | |\n|---|---|\n",
    );
    let common =
        openapi::OPERATIONS.iter().find(|it| (it.method, it.path) == ("get", "/api/v1/session"));
    let common = common.unwrap();
    for (status, answer) in document["paths"][common.path]["get"]["responses"].as_object().unwrap()
    {
        if status != "200" {
            writeln!(out, "| {status} | {} |", text(&answer["description"])).unwrap();
        }
    }
    out.push('\n');
    for tag in document["tags"].as_array().unwrap() {
        let of_tag: Vec<_> = openapi::OPERATIONS
            .iter()
            .map(|it| (it, &document["paths"][it.path][it.method]))
            .filter(|(_, described)| described["tags"][0] == tag["name"])
            .collect();
        writeln!(out, "## {}\n\n{}\n", text(&tag["name"]), linked(text(&tag["description"])))
            .unwrap();
        for (operation, described) in of_tag {
            let method = operation.method.to_uppercase();
            writeln!(out, "### {method} {}\n\n{}.", operation.path, text(&described["summary"]))
                .unwrap();
            if !text(&described["description"]).is_empty() {
                writeln!(out, "{}", linked(text(&described["description"]))).unwrap();
            }
            out.push('\n');
            describe_operation(&mut out, described, common.refusals());
        }
    }
    out.push_str("## Shapes\n\nFields marked * are always there.\n\n");
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        describe_shape(&mut out, name, schema);
    }
    assert_is("docs/reference/http.md", &format!("{}\n", out.trim_end()));
}

/// `common` are the refusals that are described once for all.
fn describe_operation(out: &mut String, described: &Value, common: &[&str]) {
    if let Some(parameters) = described["parameters"].as_array() {
        out.push_str("| parameter | in | |\n|---|---|---|\n");
        for parameter in parameters {
            let must = if parameter["required"] == true { " Required." } else { "" };
            let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
            writeln!(out, "| `{name}` | {place} | {}{must} |", text(&parameter["description"]))
                .unwrap();
        }
        out.push('\n');
    }
    for (media, body) in described["requestBody"]["content"].as_object().into_iter().flatten() {
        writeln!(out, "Body, `{media}`{}\n", shape(&body["schema"])).unwrap();
    }
    out.push_str("| status | |\n|---|---|\n");
    for (status, answer) in described["responses"].as_object().unwrap() {
        let content = answer["content"].as_object().into_iter().flatten();
        let content = content.filter(|(media, _)| *media != "application/problem+json");
        let shapes: String = content.map(|(_, content)| shape(&content["schema"])).collect();
        let about = linked(text(&answer["description"]));
        let is_common =
            |said: &&str| common.iter().any(|code| said.starts_with(&format!("`{code}`")));
        let about: Vec<&str> =
            about.split_inclusive(". ").filter(|said| !is_common(said)).collect();
        if !about.is_empty() {
            writeln!(out, "| {status} | {}{shapes} |", about.concat().trim_end()).unwrap();
        }
    }
    out.push('\n');
}

fn describe_shape(out: &mut String, name: &str, schema: &Value) {
    writeln!(out, "### {name}\n").unwrap();
    let about = text(&schema["description"]);
    if !about.is_empty() {
        writeln!(out, "{about}\n").unwrap();
    }
    let Some(fields) = schema["properties"].as_object() else {
        writeln!(out, "{}\n", kind(schema)).unwrap();
        return;
    };
    out.push_str("| field | | |\n|---|---|---|\n");
    for (field, described) in fields {
        let required = schema["required"]
            .as_array()
            .is_some_and(|all| all.iter().any(|it| it == field.as_str()));
        let mark = if required { "*" } else { "" };
        writeln!(
            out,
            "| `{field}`{mark} | {} | {} |",
            kind(described),
            text(&described["description"])
        )
        .unwrap();
    }
    out.push('\n');
}

/// What a value is, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(path) = schema["$ref"].as_str() {
        let name = path.rsplit('/').next().unwrap();
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(values) = schema["enum"].as_array() {
        return values
            .iter()
            .map(|value| format!("`{}`", text(value)))
            .collect::<Vec<_>>()
            .join(", ");
    }
    match (&schema["const"], &schema["type"]) {
        (Value::String(value), _) => format!("`{value}`"),
        (_, Value::String(name)) if name == "array" => {
            format!("list of {}", kind(&schema["items"]))
        }
        (_, Value::String(name)) => name.clone(),
        (_, Value::Array(names)) => names.iter().map(text).collect::<Vec<_>>().join(" or "),
        _ => "any".to_owned(),
    }
}

fn shape(schema: &Value) -> String {
    match schema["oneOf"].as_array() {
        Some(_) => format!(": {}, or a list of them.", kind(&schema["oneOf"][0])),
        None if schema["$ref"].is_null() => String::new(),
        None => format!(" {}", kind(schema)),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// With the pages that it names as links.
fn linked(text: &str) -> String {
    let link = |word: &str| match word.strip_prefix("docs/") {
        Some(path) => {
            let (path, end) =
                path.split_at(path.rfind(|c: char| c.is_alphanumeric()).map_or(0, |at| at + 1));
            format!("[{path}](../{path}){end}")
        }
        None => word.to_owned(),
    };
    text.split(' ').map(link).collect::<Vec<_>>().join(" ")
}
