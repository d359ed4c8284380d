//! Defaults, file, environment, flags: one table made of all, and where each value came from.

use std::{collections::BTreeMap, ffi::OsString, fmt, path::Path, path::PathBuf};

use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use super::ConfigError;
use crate::wording;

/// Before every variable of the hub.
const PREFIX: &str = "PULSEHUB_";

/// Variables that are not keys: where the file is, and what the command line's clients use.
const OTHER_VARIABLES: [&str; 3] = ["PULSEHUB_CONFIG", "PULSEHUB_URL", "PULSEHUB_TOKEN"];

/// What Kubernetes sets in each pod beside a service called `pulsehub`: its address, in these and more variables.
const SERVICE: &str = "PULSEHUB_SERVICE_HOST";
const OF_SERVICE: [&str; 2] = ["PULSEHUB_SERVICE_", "PULSEHUB_PORT"];

/// Names that a message lists, at most.
const MOST_NAMED: usize = 12;

/// The settings gathered so far.
pub(super) struct Layers {
    table: Table,
    /// An example of every key there is, the ones without a default as well.
    examples: Value,
    origins: BTreeMap<String, SettingOrigin>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingOrigin {
    /// The hub's own file.
    Default,
    /// A line of a file.
    File(PathBuf, usize),
    /// A variable.
    Variable(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingOrigin::Default => f.write_str("the defaults"),
            SettingOrigin::File(path, line) => write!(f, "{} line {line}", path.display()),
            SettingOrigin::Variable(name) => write!(f, "the variable {name}"),
            SettingOrigin::Flag(name) => write!(f, "the flag --{name}"),
        }
    }
}

impl Layers {
    /// The lowest layer; `examples` is the same file with its examples taken as settings.
    pub(super) fn new(defaults: &str, examples: &str) -> Result<Self, ConfigError> {
        let place = Path::new("pulsehub.toml (the defaults)");
        let table = parse(place, defaults)?;
        let examples = Value::Table(parse(place, examples)?);
        Ok(Self { table, examples, origins: BTreeMap::new() })
    }

    /// Lays a file over what is there.
    pub(super) fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let spanned = DeTable::parse(text).map_err(|error| syntax(path, text, &error))?;
        let place = |at: usize| SettingOrigin::File(path.to_owned(), line_of(text, at));
        self.walk(spanned.get_ref(), "", &place);
        merge(&mut self.table, parse(path, text)?);
        Ok(())
    }

    /// Lays the hub's variables over what is there; those of other programs are passed over.
    pub(super) fn add_variables(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), ConfigError> {
        let keys = self.variables();
        let ours = variables.into_iter().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            name.starts_with(PREFIX).then_some((name, value))
        });
        let ours: Vec<_> = ours.filter(|(name, _)| !OTHER_VARIABLES.contains(&&**name)).collect();
        let in_kubernetes = ours.iter().any(|(name, _)| name == SERVICE);
        for (name, value) in ours {
            if in_kubernetes && OF_SERVICE.iter().any(|begin| name.starts_with(begin)) {
                continue;
            }
            let origin = SettingOrigin::Variable(name.clone());
            let Some(key) = keys.get(&name) else {
                let bare = |name: &'static str| name.strip_prefix(PREFIX);
                let names = keys.keys().filter_map(|name| name.strip_prefix(PREFIX));
                let names = names.chain(OTHER_VARIABLES.into_iter().filter_map(bare));
                let nearest = nearest(name.strip_prefix(PREFIX).unwrap_or_default(), names);
                let hint = hint(nearest.map(|name| format!("{PREFIX}{name}")), &[]);
                return Err(ConfigError::UnknownVariable { name, hint });
            };
            let value = value.into_string().map_err(|_| ConfigError::Value {
                key: key.clone(),
                origin: origin.clone(),
                message: "is not UTF-8".to_owned(),
            })?;
            self.add_text(key, &value, origin)?;
        }
        Ok(())
    }

    /// Lays one value over what is there, read as the type its default or its example has.
    pub(super) fn add_text(
        &mut self,
        key: &str,
        text: &str,
        origin: SettingOrigin,
    ) -> Result<(), ConfigError> {
        let refuse = |message: &str| ConfigError::Value {
            key: key.to_owned(),
            origin: origin.clone(),
            message: message.to_owned(),
        };
        let is_no = |what: &str| refuse(&format!("must be {what}, not {text:?}"));
        let like = at(&self.table, key).or_else(|| at(self.examples.as_table()?, key));
        let value = match like.ok_or_else(|| self.unknown(key, origin.clone(), &[]))? {
            Value::String(_) => Value::String(text.to_owned()),
            Value::Integer(_) => {
                let number = text.trim().replace('_', "").parse();
                Value::Integer(number.map_err(|_| is_no("a whole number"))?)
            }
            Value::Float(_) => Value::Float(text.trim().parse().map_err(|_| is_no("a number"))?),
            Value::Boolean(_) => {
                Value::Boolean(text.trim().parse().map_err(|_| is_no("true or false"))?)
            }
            Value::Array(items) if !items.iter().any(Value::is_table) => Value::Array(
                text.split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(|part| Value::String(part.to_owned()))
                    .collect(),
            ),
            // The library's message would show what stands there, and that may be a secret.
            like => format!("value = {}", text.trim())
                .parse::<Table>()
                .ok()
                .filter(|table| table.len() == 1)
                .and_then(|mut table| table.remove("value"))
                .ok_or_else(|| refuse(&format!("must be written as in a file, such as {like}")))?,
        };
        put(&mut self.table, key, value);
        self.origins.insert(key.to_owned(), origin);
        Ok(())
    }

    /// The refusal of a key that the table it stands in does not have; `beside` are those it has.
    pub(super) fn unknown(
        &self,
        key: &str,
        origin: SettingOrigin,
        beside: &[String],
    ) -> ConfigError {
        let mut known = Vec::new();
        known_keys(&self.examples, "", &mut known);
        let plain = without_indexes(key);
        let above = plain.rsplit_once('.').map_or("", |(above, _)| above);
        known.extend(beside.iter().map(|name| join(above, name)));
        // Not the table it stands in.
        let known = known.iter().map(String::as_str);
        let nearest = nearest(&plain, known.filter(|name| !plain.starts_with(&format!("{name}."))));
        let hint = hint(nearest.map(str::to_owned), beside);
        ConfigError::UnknownKey { key: key.to_owned(), origin, hint }
    }

    /// How `key` is written, where `message` says that something else stands there.
    pub(super) fn form(&self, key: &str, message: &str) -> String {
        let plain = without_indexes(key);
        let example = self.examples.as_table().and_then(|examples| at(examples, &plain));
        let is_so = message.starts_with("invalid type: ");
        match example {
            Some(Value::Table(_)) if is_so => format!(": write [{plain}], and its keys below"),
            Some(Value::Array(items)) if is_so && items.iter().any(Value::is_table) => {
                format!(": write [[{plain}]], and its keys below")
            }
            _ => String::new(),
        }
    }

    /// The table of all layers.
    pub(super) fn table(&self) -> Table {
        self.table.clone()
    }

    /// Where the value of `key`, or of the table it is in, came from.
    pub(super) fn origin(&self, key: &str) -> SettingOrigin {
        let ends = key.match_indices(['.', '[']).map(|(at, _)| at).chain([key.len()]);
        let mut prefixes: Vec<_> = ends.map(|end| &key[..end]).collect();
        prefixes.reverse();
        let found = prefixes.into_iter().find_map(|prefix| self.origins.get(prefix));
        found.cloned().unwrap_or(SettingOrigin::Default)
    }

    /// Each variable with its key: the key's path in capitals, joined by `_`.
    pub(super) fn variables(&self) -> BTreeMap<String, String> {
        let mut keys = Vec::new();
        if let Some(examples) = self.examples.as_table() {
            leaves(examples, &self.table, "", &mut keys);
        }
        keys.into_iter().map(|key| (variable(&key), key)).collect()
    }

    /// Notes where each key stands; whether there is such a key is known where it is read.
    fn walk(&mut self, table: &DeTable<'_>, above: &str, place: &dyn Fn(usize) -> SettingOrigin) {
        for (name, value) in table {
            let key = join(above, name.get_ref());
            let is_section = at(&self.table, &key).is_some_and(Value::is_table);
            if !(is_section && matches!(value.get_ref(), DeValue::Table(_))) {
                // A section's other keys keep their defaults, and where those came from.
                self.origins.insert(key.clone(), place(name.span().start));
            }
            match value.get_ref() {
                DeValue::Table(table) => self.walk(table, &key, place),
                DeValue::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        if let DeValue::Table(table) = item.get_ref() {
                            let key = format!("{key}[{index}]");
                            self.origins.insert(key.clone(), place(item.span().start));
                            self.walk(table, &key, place);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

/// The variable that sets `key`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// Reads a table. A message of the library's own would quote the line, and with it perhaps a secret.
fn parse(path: &Path, text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|error| syntax(path, text, &error))
}

fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let span = error.span().unwrap_or_default();
    let line = line_of(text, span.start);
    let mut message = wording::toml_syntax(error.message());
    // No other place is shown: a value may stand there, and be a secret.
    let key = text.get(span).filter(|_| error.message().starts_with("duplicate key"));
    if let Some(key) = key {
        message = format!("the key `{key}` stands there twice");
    }
    ConfigError::Syntax { path: path.to_owned(), line, message }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Tables are merged, anything else replaced.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn at<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((section, rest)) => at(table.get(section)?.as_table()?, rest),
    }
}

/// Sets `key`; the sections above it are made where they are missing.
fn put(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Some(section) = section.as_table_mut() {
                put(section, rest, value);
            }
        }
    }
}

/// `a[0].b` as `a.b`.
fn without_indexes(key: &str) -> String {
    let mut parts = key.split(['[', ']']);
    let first = parts.next().unwrap_or_default().to_owned();
    // In between stand the indexes.
    parts.skip(1).step_by(2).fold(first, |key, part| key + part)
}

/// Every key that is no section. A table that has no default, such as `auth.roles`, is one value.
fn leaves(examples: &Table, defaults: &Table, above: &str, keys: &mut Vec<String>) {
    for (name, value) in examples {
        let key = join(above, name);
        match (value, defaults.get(name)) {
            (Value::Table(inner), Some(Value::Table(defaults))) => {
                leaves(inner, defaults, &key, keys);
            }
            _ => keys.push(key),
        }
    }
}

fn known_keys(value: &Value, above: &str, keys: &mut Vec<String>) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                let key = join(above, name);
                known_keys(value, &key, keys);
                keys.push(key);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| known_keys(item, above, keys)),
        _ => {}
    }
}

/// What to do about a name that is none: `nearest` may have been meant, and `beside` are those there are.
fn hint(nearest: Option<String>, beside: &[String]) -> String {
    match nearest {
        Some(name) => format!("did you mean {name}?"),
        None if (1..=MOST_NAMED).contains(&beside.len()) => {
            let names: Vec<_> = beside.iter().map(|name| format!("`{name}`")).collect();
            format!("only {} can stand there", wording::either(&names))
        }
        None => "docs/configuration.md lists all there are".to_owned(),
    }
}

/// The most similar of `known`, if any is similar at all. A right name in the wrong section counts.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let parts = |key: &str| match key.rsplit_once('.') {
        Some((above, last)) => (above.to_owned(), last.to_owned()),
        None => (String::new(), key.to_owned()),
    };
    let (above, last) = parts(name);
    // The sections say nothing of how alike two names are.
    let similarity = |key: &str| {
        let (its_above, its_last) = parts(key);
        let alike = strsim::normalized_damerau_levenshtein(&last, &its_last);
        if its_above == above { alike } else { 0.8 * alike }
    };
    known
        .map(|key| (key, similarity(key)))
        .filter(|(_, similarity)| *similarity >= 0.5)
        // Of equals the shortest.
        .max_by(|(one, a), (other, b)| a.total_cmp(b).then(other.len().cmp(&one.len())))
        .map(|(key, _)| key)
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}
