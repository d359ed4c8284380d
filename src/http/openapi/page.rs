//! The description as a page: plain HTML, for which nothing is fetched and nothing runs.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const STYLE: &str = "\
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}\
body{max-width:60rem;margin:2rem auto;padding:0 1rem}\
code,pre{font:.9em ui-monospace,monospace}\
pre{overflow:auto;padding:.7rem;background:#8881;border-radius:4px}\
details{border:1px solid #8884;border-radius:4px;margin:.4rem 0;padding:.3rem .7rem}\
summary{cursor:pointer}\
b.method{display:inline-block;min-width:4.5rem}\
table{border-collapse:collapse;width:100%}\
td,th{text-align:left;vertical-align:top;padding:.2rem .7rem .2rem 0;border-bottom:1px solid #8883}";

/// The page and its policy, which lets nothing in but the page's own style.
pub(super) fn render(document: &Value) -> (String, String) {
    let mut out = String::new();
    put(
        &mut out,
        format_args!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>pulsehub: HTTP</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>HTTP endpoints</h1>\n\
         <p>As a file for tools: <a href=\"/api/v1/openapi.json\">openapi.json</a>. Send a token or an API key as \
         <code>Authorization: Bearer …</code>.</p>\n"
        ),
    );
    for tag in list(&document["tags"]) {
        let operations: Vec<_> =
            operations(document).filter(|(.., it)| it["tags"][0] == tag["name"]).collect();
        if operations.is_empty() {
            continue;
        }
        put(
            &mut out,
            format_args!("<h2>{}</h2>\n<p>{}</p>\n", text(&tag["name"]), text(&tag["description"])),
        );
        for (path, method, operation) in operations {
            describe(&mut out, path, method, operation);
        }
    }
    out.push_str("<h2>Shapes</h2>\n");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        let shape = serde_json::to_string_pretty(schema).unwrap_or_default();
        put(
            &mut out,
            format_args!(
                "<details id=\"{name}\"><summary><code>{name}</code></summary><pre>{}</pre></details>\n",
                escaped(&shape)
            ),
        );
    }
    out.push_str("</body>\n</html>\n");
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        STANDARD.encode(Sha256::digest(STYLE))
    );
    (out, policy)
}

/// Path, method and description of each operation.
fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

fn describe(out: &mut String, path: &str, method: &str, operation: &Value) {
    put(
        out,
        format_args!(
            "<details><summary><b class=\"method\">{}</b> <code>{}</code> {}</summary>\n<p>{}</p>\n",
            method.to_uppercase(),
            escaped(path),
            text(&operation["summary"]),
            text(&operation["description"])
        ),
    );
    let parameters = list(&operation["parameters"]);
    if !parameters.is_empty() {
        out.push_str("<table><tr><th>parameter</th><th>in</th><th></th></tr>\n");
        for parameter in parameters {
            let must = if parameter["required"] == true { " Required." } else { "" };
            put(
                out,
                format_args!(
                    "<tr><td><code>{}</code></td><td>{}</td><td>{}{must}</td></tr>\n",
                    text(&parameter["name"]),
                    text(&parameter["in"]),
                    text(&parameter["description"])
                ),
            );
        }
        out.push_str("</table>\n");
    }
    for (media, body) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        put(
            out,
            format_args!(
                "<p>Body, <code>{}</code>{}</p>\n",
                escaped(media),
                shape(&body["schema"])
            ),
        );
    }
    out.push_str("<table><tr><th>status</th><th></th></tr>\n");
    for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
        let content = answer["content"].as_object().into_iter().flatten();
        let shapes: String = content.map(|(_, content)| shape(&content["schema"])).collect();
        put(
            out,
            format_args!(
                "<tr><td>{status}</td><td>{}{shapes}</td></tr>\n",
                text(&answer["description"])
            ),
        );
    }
    out.push_str("</table></details>\n");
}

/// A link to the schema that is meant.
fn shape(schema: &Value) -> String {
    let named = schema["$ref"].as_str().or_else(|| schema["oneOf"][0]["$ref"].as_str());
    match named.and_then(|path| path.rsplit('/').next()) {
        Some(name) => format!(" <a href=\"#{name}\"><code>{name}</code></a>"),
        None => String::new(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to memory cannot fail.
    let _ = out.write_fmt(text);
}
