//! A document that is followed as a reader would: its files are saved and its commands run, from the first to the last,
//! in one folder, beside a hub of its own.

use std::{
    fmt::Write as _,
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    blocks::{Block, Mark, blocks},
    port::free_port,
    process::Home,
};

/// A page of the documentation.
pub(crate) struct Document {
    /// From the project's folder.
    pub(crate) path: String,
    pub(crate) blocks: Vec<Block>,
}

/// The longest that one document may take: a first `go run` builds much of Go's library.
const LONGEST: Duration = Duration::from_secs(240);

/// The ports where documents have the hub, and where those about pages serve them.
const HUB: &str = "8080";
const PAGES: &str = "3000";

impl Document {
    pub(crate) fn read(path: &str) -> Self {
        let text =
            fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self::new(path, &text)
    }

    /// One with this text.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), blocks: blocks(text) }
    }

    /// The README and everything in `docs`.
    pub(crate) fn all() -> Vec<Self> {
        let mut found = vec!["README.md".to_owned()];
        let mut folders = vec![PathBuf::from("docs")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(root().join(&folder)).unwrap() {
                let path = folder.join(entry.unwrap().file_name());
                match path.extension() {
                    None => folders.push(path),
                    Some(end) if end == "md" => found.push(path.to_str().unwrap().to_owned()),
                    Some(_) => {}
                }
            }
        }
        found.sort();
        found.iter().map(|path| Self::read(path)).collect()
    }

    /// Whether anything in it runs.
    pub(crate) fn runs(&self) -> bool {
        self.blocks.iter().any(Block::runs)
    }

    /// Follows it; what went wrong, with everything that was printed.
    pub(crate) async fn follow(&self) -> Result<(), String> {
        let (hub_port, page_port) = (free_port(), free_port());
        let adapt = |text: &str| with_port(&with_port(text, HUB, hub_port), PAGES, page_port);
        let named = |name: &str| {
            let is_it = |block: &&Block| block.file() == Some(name);
            self.blocks.iter().filter(is_it).map(|block| adapt(&block.body)).collect::<String>()
        };
        let home = Home::new(&named("pulsehub.toml"));
        let folder = home.folder();
        for block in &self.blocks {
            if let Some(name) = block.file() {
                let path = folder.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, named(name)).unwrap();
            }
        }
        tools(&folder.join("bin"));
        symlink(root().join("tests/clients/node_modules"), folder.join("node_modules")).unwrap();
        let starts_a_hub = self.blocks.iter().any(|block| {
            matches!(block.mark, Mark::Background { .. }) && block.body.contains("pulsehub serve")
        });
        let hub = match starts_a_hub {
            true => None,
            false => Some(home.start_at(([127, 0, 0, 1], hub_port).into()).await),
        };
        let url = format!("http://127.0.0.1:{hub_port}");
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &adapt(&self.script(page_port))]);
        command.current_dir(folder).env_clear().process_group(0).stdin(Stdio::null());
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}:/usr/sbin", folder.join("bin").display()));
        command.env("HOME", folder).env("PULSEHUB_URL", &url);
        command.env("PULSEHUB_LISTEN", format!("127.0.0.1:{hub_port}"));
        let log = fs::File::create(folder.join("said")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let ended = tokio::task::spawn_blocking(move || run(command)).await.unwrap();
        let said = fs::read_to_string(folder.join("said")).unwrap();
        let hub_said = hub.as_ref().map(super::process::Process::log).unwrap_or_default();
        match ended {
            Some(0) => Ok(()),
            Some(code) => {
                Err(format!("{} ended with {code}:\n{said}\nthe hub:\n{hub_said}", self.path))
            }
            None => Err(format!("{} took more than {LONGEST:?}:\n{said}", self.path)),
        }
    }

    /// All that runs, as one script: what a block exports the next ones have.
    fn script(&self, page_port: u16) -> String {
        let mut script = String::new();
        let mut put = |text: std::fmt::Arguments<'_>| script.write_fmt(text).unwrap();
        for (at, block) in self.blocks.iter().enumerate() {
            let Some(command) = block.command(at) else { continue };
            let (path, line) = (&self.path, block.line);
            put(format_args!("echo '== {path} line {line}' >&2\n"));
            match &block.mark {
                Mark::Background { until } => put(format_args!(
                    "(\n{command}) >out-{at} 2>&1 &\n\
                     until grep -qF -- {text} out-{at}; do\n  \
                       kill -0 $! 2>/dev/null || {{ cat out-{at}; echo 'it ended without' {text}; exit 1; }}\n  \
                       sleep 0.05\n\
                     done\n",
                    text = quoted(until)
                )),
                Mark::Prints(text) => put(format_args!(
                    "trap 'cat out-{at}' EXIT\n{{\n{command}}} >out-{at} 2>&1\ntrap - EXIT\ncat out-{at}\n\
                     grep -qF -- {text} out-{at} || {{ echo 'it did not print' {text}; exit 1; }}\n",
                    text = quoted(text)
                )),
                _ => put(format_args!("{command}\n")),
            }
        }
        for block in &self.blocks {
            if let Mark::Page { file, shows } = &block.mark {
                // Only its folder is served, and not the one with the hub's data.
                let name = file.rsplit('/').next().unwrap();
                put(format_args!(
                    "echo '== {} line {}' >&2\nlook http://127.0.0.1:{page_port}/{name} {}\n",
                    self.path,
                    block.line,
                    quoted(shows)
                ));
            }
        }
        script
    }
}

impl Block {
    /// What runs the block, which is the `at`th of its document; nothing where another does, or nobody.
    fn command(&self, at: usize) -> Option<String> {
        let (program, file) = match (&self.mark, &*self.language) {
            (Mark::InPage { shows }, "js") => {
                let file = format!("block-{at}.js");
                (format!("look \"$PULSEHUB_URL/healthz\" {} {file}", quoted(shows)), file)
            }
            (Mark::Plain | Mark::Prints(_) | Mark::Background { .. }, language) => match language {
                "sh" => return Some(self.body.clone()),
                "python" => (format!("python3 block-{at}.py"), format!("block-{at}.py")),
                "js" => (format!("node block-{at}.mjs"), format!("block-{at}.mjs")),
                _ => return None,
            },
            _ => return None,
        };
        Some(format!(
            "cat > {file} <<'END OF THE BLOCK'\n{}END OF THE BLOCK\n{program}\n",
            self.body
        ))
    }

    /// The name it is saved under.
    fn file(&self) -> Option<&str> {
        match &self.mark {
            Mark::File(name) | Mark::Page { file: name, .. } => Some(name),
            _ => None,
        }
    }

    /// Whether it runs.
    pub(crate) fn runs(&self) -> bool {
        self.command(0).is_some() || matches!(self.mark, Mark::Page { .. })
    }
}

/// Runs it with everything it starts, which ends with it; its exit code if it ended in time.
fn run(mut command: Command) -> Option<i32> {
    let mut child = command.spawn().unwrap();
    let began = Instant::now();
    let ended = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status.code().unwrap_or(-1)),
            None if began.elapsed() > LONGEST => break None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    // The group of the process started here, by its id; nobody may be left in it.
    let group = format!("-{}", child.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    let _ = child.wait();
    ended
}

/// The programs that documents name, as they are here.
fn tools(bin: &Path) {
    fs::create_dir_all(bin).unwrap();
    let root = root();
    let root = root.display();
    let hub = env!("CARGO_BIN_EXE_pulsehub");
    let missing =
        |what: &str| format!("echo '{what} is not installed: run tools/setup' >&2; exit 127");
    let found = |what: &str| {
        let path = std::env::var_os("PATH").unwrap();
        std::env::split_paths(&path).map(|folder| folder.join(what)).find(|path| path.is_file())
    };
    let other = |what: &str, before: &str, flags: &str| match found(what) {
        Some(path) => format!("{before}exec {} {flags}\"$@\"", path.display()),
        None => missing(what),
    };
    let go = format!("export GOCACHE={root}/target/go GOTOOLCHAIN=local GOFLAGS=-buildvcs=false\n");
    let look = bin.join("look.mjs");
    fs::write(&look, LOOK.replace("ROOT", &root.to_string())).unwrap();
    for (name, script) in [
        ("pulsehub", format!("exec {hub} \"$@\"")),
        ("python3", format!("exec {root}/target/python/bin/python \"$@\"")),
        // Node.js 20 has a WebSocket of its own, but not without this.
        ("node", other("node", "export NODE_NO_WARNINGS=1\n", "--experimental-websocket ")),
        ("go", other("go", &go, "")),
        ("java", other("java", "", "")),
        ("look", format!("exec node {} \"$@\"", look.display())),
    ] {
        let path = bin.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
}

/// The text with another port in the place of `name`, where that is a number of its own.
fn with_port(text: &str, name: &str, port: u16) -> String {
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(name) {
        out += before;
        match digit(out.chars().last()) || digit(after.chars().next()) {
            true => out += name,
            false => out += &port.to_string(),
        }
        rest = after;
    }
    out + rest
}

/// Opens a page in a browser and waits until it shows a text, as web/tests do. A file that is named as well is put into the
/// page's console, after what such code of a document needs; where there is a `TOKEN`, somebody is signed in.
const LOOK: &str = r#"
import { readFileSync } from "node:fs";
import { chromium } from "ROOT/web/node_modules/playwright-core/index.mjs";
const [url, text, script] = process.argv.slice(2);
const args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
const page = await browser.newPage();
page.on("console", (message) => console.log(message.text()));
await page.goto(url);
if (script) {
  await page.evaluate(async (token) => {
    const ask = async (path, body) => {
      const headers = { "content-type": "application/json", authorization: `Bearer ${token}` };
      return (await fetch(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
    };
    globalThis.show = globalThis.reload = (what) => document.body.append(JSON.stringify(what));
    console.log = (...all) => all.forEach(show);
    if (!token) return;
    await ask("/api/v1/session", { token });
    globalThis.hub = location.origin;
    globalThis.ticket = (await ask("/api/v1/tickets", { topics: ["**"] })).ticket;
    globalThis.address = async () => `/sse/real-time?topics=orders.*&ticket=${ticket}`;
  }, process.env.TOKEN);
  const tools = await page.context().newCDPSession(page);
  await tools.send("Runtime.evaluate", { expression: readFileSync(script, "utf8"), replMode: true });
}
try {
  await page.waitForFunction((text) => document.documentElement.outerHTML.includes(text), text, { timeout: 30_000 });
} catch (error) {
  console.log(`${url} does not show ${text}: ${error}`, await page.content());
  process.exitCode = 1;
}
await browser.close();
"#;

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
