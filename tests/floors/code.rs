//! What the files of a crate name of each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, File, Item, ItemMod, ItemUse, Macro, UseTree, Visibility,
    visit::{self, Visit},
};

/// A module by its names, from the root of the crate.
pub(super) type Module = Vec<String>;

/// A crate: its files, each a module, and what they use.
pub(super) struct Code {
    /// What each module names that is in this crate: other modules.
    uses: BTreeMap<Module, BTreeSet<Module>>,
}

impl Code {
    /// Reads all files below `root` but those that hold nothing but tests.
    pub(super) fn read(root: &Path) -> Self {
        Self::new(super::sources(root).into_iter().map(|file| {
            let path = file.strip_prefix(root).unwrap().with_extension("");
            let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
            let module = names.filter(|name| name != "lib" && name != "main").collect();
            (module, fs::read_to_string(&file).unwrap())
        }))
    }

    /// The files given; those of the root belong together.
    pub(super) fn new(files: impl IntoIterator<Item = (Module, String)>) -> Self {
        let (mut found, mut handed_on) = (BTreeMap::<Module, Vec<Vec<String>>>::new(), Vec::new());
        for (module, text) in files {
            let file = syn::parse_file(&text).unwrap();
            handed_on.extend(reexports(&file).into_iter().map(|path| (module.clone(), path)));
            found.entry(module).or_default().extend(paths(&file));
        }
        let names = Names { modules: found.keys().cloned().collect(), handed_on: BTreeMap::new() };
        let handed_on = handed_on.iter().filter_map(|(module, path)| {
            Some(((module.clone(), path.last()?.clone()), names.module_of(module, path)?))
        });
        let names = Names { handed_on: handed_on.collect(), ..names.clone() };
        let uses = found.iter().map(|(module, paths)| {
            let used = paths.iter().filter_map(|path| names.module_of(module, path));
            (module.clone(), used.filter(|used| used != module).collect())
        });
        Self { uses: uses.collect() }
    }

    /// Who names whom.
    pub(super) fn uses(&self) -> impl Iterator<Item = (&Module, &Module)> {
        self.uses.iter().flat_map(|(from, used)| used.iter().map(move |to| (from, to)))
    }

    /// Pairs of files, or folders with their file, that stand in one folder and lead to each other.
    pub(super) fn circles(&self) -> Vec<String> {
        let mut folders: BTreeMap<&[String], BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
        for (from, to) in self.uses() {
            let shared = from.iter().zip(to).take_while(|(from, to)| from == to).count();
            if let (Some(from_name), Some(to_name)) = (from.get(shared), to.get(shared)) {
                let folder = folders.entry(&from[..shared]).or_default();
                folder.entry(from_name).or_default().insert(to_name);
            }
        }
        let mut circles = Vec::new();
        for (folder, uses) in folders {
            let reached: BTreeMap<_, _> =
                uses.keys().map(|name| (*name, reach(&uses, name))).collect();
            for (one, others) in &reached {
                let back = |other: &&str| reached.get(other).is_some_and(|back| back.contains(one));
                for other in others.iter().filter(|other| one < *other).copied().filter(back) {
                    circles.push(format!("{}: {one} ↔ {other}", folder.join("/")));
                }
            }
        }
        circles
    }
}

fn reach<'a>(uses: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(name) = open.pop() {
        for next in uses.get(name).into_iter().flatten() {
            if reached.insert(*next) {
                open.push(next);
            }
        }
    }
    reached
}

/// What a path means.
#[derive(Clone)]
struct Names {
    modules: BTreeSet<Module>,
    /// Where a name comes from that a module hands on with `pub use`.
    handed_on: BTreeMap<(Module, String), Module>,
}

impl Names {
    /// The module whose item a path names in `module`; None for other crates' and the root's.
    fn module_of(&self, module: &[String], path: &[String]) -> Option<Module> {
        let (mut base, mut rest) = (module.to_vec(), path);
        match path.first()?.as_str() {
            "crate" => (base, rest) = (Vec::new(), &path[1..]),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            name => {
                base.push(name.to_owned());
                if !self.modules.contains(&base) {
                    return None;
                }
                rest = &path[1..];
            }
        }
        for name in rest {
            base.push(name.clone());
            if !self.modules.contains(&base) {
                base.pop();
                if let Some(origin) = self.handed_on.get(&(base.clone(), name.clone())) {
                    base.clone_from(origin);
                }
                break;
            }
        }
        (!base.is_empty()).then_some(base)
    }
}

/// Every path that a file names outside its tests, those of imports and macros as well.
pub(super) fn paths(file: &File) -> Vec<Vec<String>> {
    let mut found = Found::default();
    found.visit_file(file);
    found.0
}

/// The paths of what a file hands on by `pub use`.
fn reexports(file: &File) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for item in &file.items {
        if let Item::Use(item) = item
            && !matches!(item.vis, Visibility::Inherited)
        {
            expand(&item.tree, &mut Vec::new(), &mut found);
        }
    }
    found
}

#[derive(Default)]
struct Found(Vec<Vec<String>>);

impl<'a> Visit<'a> for Found {
    fn visit_item(&mut self, item: &'a Item) {
        if !is_for_tests(item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        expand(&item.tree, &mut Vec::new(), &mut self.0);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'a Macro) {
        in_tokens(called.tokens.clone(), &mut self.0);
    }
}

fn is_for_tests(item: &Item) -> bool {
    let attributes = match item {
        Item::Mod(ItemMod { attrs, .. }) | Item::Use(ItemUse { attrs, .. }) => attrs,
        Item::Impl(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(is_cfg_test)
}

/// Whether an item with this attribute is there for tests alone.
pub(super) fn is_cfg_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Ident>().is_ok_and(|name| name == "test")
}

fn expand(tree: &UseTree, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let mut leaf = |name: Option<String>| found.push(prefix.iter().cloned().chain(name).collect());
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            expand(&path.tree, prefix, found);
            prefix.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| expand(tree, prefix, found)),
        UseTree::Name(name) if name.ident == "self" => leaf(None),
        UseTree::Name(name) => leaf(Some(name.ident.to_string())),
        UseTree::Rename(name) => leaf(Some(name.ident.to_string())),
        UseTree::Glob(_) => leaf(None),
    }
}

/// The paths among tokens that only their macro can read.
fn in_tokens(tokens: TokenStream, found: &mut Vec<Vec<String>>) {
    let (mut path, mut colons) = (Vec::new(), 0);
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => colons += 1,
            TokenTree::Ident(name) if colons == 2 => {
                path.push(name.to_string());
                colons = 0;
            }
            other => {
                if path.len() > 1 {
                    found.push(std::mem::take(&mut path));
                }
                (path, colons) = (Vec::new(), 0);
                match other {
                    TokenTree::Ident(name) => path.push(name.to_string()),
                    TokenTree::Group(group) => in_tokens(group.stream(), found),
                    _ => {}
                }
            }
        }
    }
    if path.len() > 1 {
        found.push(path);
    }
}
