//! The floor plan of docs/architecture.md, held against every path that the code names; and nowhere do two files of one
//! folder use each other.

mod code;
mod types;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use self::{
    code::{Code, paths},
    types::type_names,
};

struct Plan {
    floors: BTreeMap<String, u32>,
    /// Along one floor: who may import whom.
    arrows: BTreeSet<(String, String)>,
}

#[test]
fn every_import_runs_down_the_floors_and_none_of_a_folder_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let plan = Plan::read(&fs::read_to_string(root.join("docs/architecture.md")).unwrap());
    let code = Code::read(&root.join("src"));
    let circles = code.circles();
    assert!(circles.is_empty(), "two files of one folder use each other: {circles:#?}");
    let uses: Vec<_> = code.uses().collect();
    assert!(uses.len() > 1000, "only {} paths were found: the reader is broken", uses.len());
    let top = |module: &[String]| module.first().cloned();
    let faults: BTreeSet<_> = uses
        .into_iter()
        .filter_map(|(from, to)| {
            let (ours, theirs) = (top(from)?, top(to)?);
            plan.allows(&ours, &theirs).err().map(|fault| format!("{}: {fault}", from.join("/")))
        })
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn no_two_types_have_the_same_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in sources(&root) {
        let file = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
        let place = path.strip_prefix(&root).unwrap().display().to_string();
        for name in type_names(&file) {
            found.entry(name).or_default().push(place.clone());
        }
    }
    assert!(found.len() > 500, "only {} types were found: the reader is broken", found.len());
    found.retain(|_, places| places.len() > 1);
    assert!(found.is_empty(), "put the noun of its room before one of them: {found:#?}");
}

#[test]
fn types_are_found_in_functions_too_and_those_of_tests_and_of_traits_are_left_out() {
    let text = "struct A; pub(super) enum B {} fn f() { struct C; } type D = A; trait E { type F; }\n\
        impl E for A { type F = B; }\n#[cfg(test)]\nmod tests { struct G; }\n#[cfg(test)]\nstruct H;";
    assert_eq!(type_names(&syn::parse_file(text).unwrap()), ["A", "B", "C", "D", "E"]);
}

#[test]
fn an_edge_could_speak_in_the_hubs_name() {
    let code = Code::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let makers = code.uses().filter(|(_, to)| to.join("/") == "admission/own");
    let makers: BTreeSet<_> = makers.filter_map(|(from, _)| from.first()).collect();
    let wanted = ["admission", "broker", "instances", "projections", "sources", "vitals"];
    assert!(
        makers.iter().eq(wanted.iter()),
        "what others send never becomes an `OwnEvent`: {makers:?}"
    );
}

#[test]
fn no_two_files_of_the_load_tests_use_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let circles = Code::read(&root.join("load-tests/src")).circles();
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn an_upward_import_is_refused() {
    let plan = Plan::read("```\n2  broker  auth → store  store\n1  topic → position\n```");
    assert!(plan.allows("broker", "topic").is_ok());
    assert!(plan.allows("topic", "broker").is_err());
    assert!(plan.allows("auth", "store").is_ok());
    assert!(plan.allows("store", "auth").is_err());
    assert!(plan.allows("broker", "store").is_err());
    assert!(plan.allows("broker", "nowhere").is_err());
}

#[test]
fn every_path_is_found_but_those_of_tests() {
    let text = "use crate::{topic::{Topic, self}, broker::Broker as B};\n\
        fn f() -> super::Y { tracing::info!(\"{}\", crate::auth::g()); select! { x = self::b::c() => {} } }\n\
        #[cfg(test)]\nmod tests { use crate::cli::X; }\n";
    let found: Vec<_> =
        paths(&syn::parse_file(text).unwrap()).into_iter().map(|path| path.join("::")).collect();
    for wanted in
        ["crate::topic::Topic", "crate::broker::Broker", "super::Y", "crate::auth::g", "self::b::c"]
    {
        assert!(found.iter().any(|path| path == wanted), "{wanted}: {found:?}");
    }
    assert!(!found.iter().any(|path| path.contains("cli")), "{found:?}");
}

#[test]
fn a_circle_is_found_also_where_the_parent_hands_the_name_on() {
    let file = |module: &str, text: &str| {
        let names = module.split('/').filter(|name| !name.is_empty());
        (names.map(str::to_owned).collect(), text.to_owned())
    };
    let circles = |b: &str| {
        Code::new([
            file("", "mod a;"),
            file("a", "pub use self::c::C; mod b; mod c; mod d;"),
            file("a/b", b),
            file("a/c", "use super::b::B; use super::d::D;"),
            file("a/d", ""),
        ])
        .circles()
    };
    assert!(circles("use super::d::D;").is_empty());
    assert_eq!(circles("use super::c::C;"), ["a: b ↔ c"]);
    assert_eq!(circles("fn f() { crate::a::C::new() }"), ["a: b ↔ c"]);
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
        if from == to {
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
