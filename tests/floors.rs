//! The floor plan of docs/architecture.md, held against every import.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

struct Plan {
    floors: BTreeMap<String, u32>,
    /// Along one floor: who may import whom.
    arrows: BTreeSet<(String, String)>,
}

#[test]
fn every_import_runs_down_the_floors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let plan = Plan::read(&fs::read_to_string(root.join("docs/architecture.md")).unwrap());
    let (mut faults, mut imports) = (Vec::new(), 0);
    for file in sources(&root.join("src")) {
        let module = module_of(file.strip_prefix(root.join("src")).unwrap());
        let text = fs::read_to_string(&file).unwrap();
        for (line, target) in imports_of(&text) {
            imports += 1;
            if let Err(fault) = plan.allows(&module, &target) {
                faults.push(format!("{}:{line}: {fault}", file.display()));
            }
        }
    }
    assert!(imports > 100, "only {imports} imports were found: the reader is broken");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_reader_finds_an_upward_import() {
    let plan = Plan::read("```\n2  broker  auth → store  store\n1  topic → position\n```");
    assert!(plan.allows("broker", "topic").is_ok());
    assert!(plan.allows("topic", "broker").is_err());
    assert!(plan.allows("auth", "store").is_ok());
    assert!(plan.allows("store", "auth").is_err());
    assert!(plan.allows("broker", "store").is_err());
    assert!(plan.allows("broker", "nowhere").is_err());
    let text = "use crate::{\n    topic::{Topic, self},\n    broker::Broker,\n};\nfn f() { crate::auth::g() }\n#[cfg(test)]\nmod tests { use crate::cli::X; }\n";
    let found: Vec<_> = imports_of(text).into_iter().map(|(_, target)| target).collect();
    assert_eq!(found, ["topic", "broker", "auth"]);
}

impl Plan {
    /// Lines of a number and modules; `a → b` lets `a` import `b` along the floor, `b, c` both.
    fn read(document: &str) -> Self {
        let mut plan = Self { floors: BTreeMap::new(), arrows: BTreeSet::new() };
        for line in document.lines() {
            let Some((number, rest)) = line.split_once("  ") else { continue };
            let Ok(floor) = number.parse::<u32>() else { continue };
            for chain in rest.split("  ").filter(|chain| !chain.trim().is_empty()) {
                let groups: Vec<Vec<&str>> = chain
                    .split('→')
                    .map(|group| group.split(',').map(str::trim).collect())
                    .collect();
                for module in groups.iter().flatten() {
                    plan.floors.insert((*module).to_owned(), floor);
                }
                // Along a chain everybody may import all that stand to the right.
                for (index, from) in groups.iter().enumerate() {
                    for (one, other) in from
                        .iter()
                        .flat_map(|one| groups[index + 1..].iter().flatten().map(move |o| (one, o)))
                    {
                        plan.arrows.insert(((*one).to_owned(), (*other).to_owned()));
                    }
                }
            }
        }
        plan
    }

    fn allows(&self, from: &str, to: &str) -> Result<(), String> {
        if from == to || from == "lib" || from == "main" {
            return Ok(());
        }
        let floor = |module: &str| {
            self.floors
                .get(module)
                .ok_or_else(|| format!("{module} is on no floor of docs/architecture.md"))
        };
        let (ours, theirs) = (floor(from)?, floor(to)?);
        let arrow = self.arrows.contains(&(from.to_owned(), to.to_owned()));
        if theirs < ours || (theirs == ours && arrow) {
            return Ok(());
        }
        Err(format!("{from} (floor {ours}) imports {to} (floor {theirs})"))
    }
}

/// The top-level modules that a file names after `crate::`, outside its tests.
fn imports_of(text: &str) -> Vec<(usize, String)> {
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count() + 1;
        if code[..at].rsplit('\n').next().unwrap_or_default().trim_start().starts_with("//") {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.extend(word(rest).map(|target| (line, target))),
            Some(group) => found.extend(tops(group).into_iter().map(|target| (line, target))),
        }
    }
    found
}

/// The first word of each item of a braced import.
fn tops(group: &str) -> Vec<String> {
    let (mut depth, mut found, mut fresh) = (1, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            c if fresh && depth == 1 && !c.is_whitespace() => {
                found.extend(word(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

fn word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!word.is_empty()).then_some(word)
}

/// `http/socket.rs` and `http.rs` belong to `http`.
fn module_of(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// All source files but those that hold nothing but tests.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_test = path.file_stem().is_some_and(|stem| {
            let stem = stem.to_string_lossy();
            stem == "tests" || stem.ends_with("_tests")
        });
        if is_test {
            continue;
        }
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}
