//! Defaults, file, environment, flags: one table made of all, and where each value came from.

use std::{collections::BTreeMap, ffi::OsString, fmt, path::Path, path::PathBuf};

use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use super::ConfigError;

/// Before every variable of the hub.
const PREFIX: &str = "PULSEHUB_";

/// Variables that are not keys: where the file is, and what the command line's clients use.
const OTHER_VARIABLES: [&str; 3] = ["PULSEHUB_CONFIG", "PULSEHUB_URL", "PULSEHUB_TOKEN"];

/// Tables whose keys are names of the user's own.
const OWN_NAMES: [&str; 1] = ["auth.roles"];

/// Tables that are the user's own through and through, checked where they are read.
const OWN_TABLES: [&str; 2] = ["derive.where", "projection.shape"];

/// The settings gathered so far.
pub(super) struct Layers {
    table: Table,
    /// Every key there is, the ones without a default as well.
    known: Value,
    origins: BTreeMap<String, Origin>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The hub's own file.
    Default,
    /// A line of a file.
    File(PathBuf, usize),
    /// A variable.
    Variable(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("the defaults"),
            Origin::File(path, line) => write!(f, "{} line {line}", path.display()),
            Origin::Variable(name) => write!(f, "the variable {name}"),
            Origin::Flag(name) => write!(f, "the flag --{name}"),
        }
    }
}

impl Layers {
    /// The lowest layer; `examples` is the same file with its examples taken as settings.
    pub(super) fn new(defaults: &str, examples: &str) -> Result<Self, ConfigError> {
        let place = Path::new("pulsehub.toml (the defaults)");
        let table = parse(place, defaults)?;
        let known = Value::Table(parse(place, examples)?);
        Ok(Self { table, known, origins: BTreeMap::new() })
    }

    /// Lays a file over what is there.
    pub(super) fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let spanned = DeTable::parse(text).map_err(|error| syntax(path, text, &error))?;
        let place = |at: usize| Origin::File(path.to_owned(), line_of(text, at));
        self.walk(spanned.get_ref(), "", &place)?;
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
        for (name, value) in ours.filter(|(name, _)| !OTHER_VARIABLES.contains(&&**name)) {
            let origin = Origin::Variable(name.clone());
            let Some(key) = keys.get(&name) else {
                let names = keys.keys().map(String::as_str).chain(OTHER_VARIABLES);
                let nearest = nearest(&name, names).map(str::to_owned);
                return Err(ConfigError::UnknownVariable { name, nearest });
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

    /// Lays one value over what is there, read as the type its default has.
    pub(super) fn add_text(
        &mut self,
        key: &str,
        text: &str,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let refuse = |message: &str| ConfigError::Value {
            key: key.to_owned(),
            origin: origin.clone(),
            message: message.to_owned(),
        };
        let slot = slot(&mut self.table, key).ok_or_else(|| ConfigError::UnknownKey {
            key: key.to_owned(),
            origin: origin.clone(),
            nearest: None,
        })?;
        *slot = match slot {
            Value::String(_) => Value::String(text.to_owned()),
            Value::Integer(_) => {
                let number = text.trim().replace('_', "").parse();
                Value::Integer(number.map_err(|_| refuse("must be a whole number"))?)
            }
            Value::Float(_) => {
                Value::Float(text.trim().parse().map_err(|_| refuse("must be a number"))?)
            }
            Value::Boolean(_) => {
                Value::Boolean(text.trim().parse().map_err(|_| refuse("must be true or false"))?)
            }
            Value::Array(_) => Value::Array(
                text.split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(|part| Value::String(part.to_owned()))
                    .collect(),
            ),
            Value::Datetime(_) | Value::Table(_) => {
                return Err(refuse("can only be set in a file"));
            }
        };
        self.origins.insert(key.to_owned(), origin);
        Ok(())
    }

    /// The table of all layers.
    pub(super) fn table(&self) -> Table {
        self.table.clone()
    }

    /// Where the value of `key`, or of the table it is in, came from.
    pub(super) fn origin(&self, key: &str) -> Origin {
        let ends = key.match_indices(['.', '[']).map(|(at, _)| at).chain([key.len()]);
        let mut prefixes: Vec<_> = ends.map(|end| &key[..end]).collect();
        prefixes.reverse();
        let found = prefixes.into_iter().find_map(|prefix| self.origins.get(prefix));
        found.cloned().unwrap_or(Origin::Default)
    }

    /// Each variable with its key: the key's path in capitals, joined by `_`.
    pub(super) fn variables(&self) -> BTreeMap<String, String> {
        let mut keys = Vec::new();
        leaves(&self.table, "", &mut keys);
        keys.into_iter().map(|key| (variable(&key), key)).collect()
    }

    fn walk(
        &mut self,
        table: &DeTable<'_>,
        above: &str,
        place: &dyn Fn(usize) -> Origin,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = join(above, name.get_ref());
            let origin = place(name.span().start);
            let plain = without_indexes(&key);
            if lookup(&self.known, &plain).is_none() {
                let mut keys = Vec::new();
                known_keys(&self.known, "", &mut keys);
                let nearest = nearest(&plain, keys.iter().map(String::as_str)).map(str::to_owned);
                return Err(ConfigError::UnknownKey { key, origin, nearest });
            }
            let is_section = slot(&mut self.table, &key).is_some_and(|value| value.is_table());
            if !(is_section && matches!(value.get_ref(), DeValue::Table(_))) {
                // A section's other keys keep their defaults, and where those came from.
                self.origins.insert(key.clone(), origin);
            }
            match value.get_ref() {
                _ if OWN_TABLES.contains(&&*plain) => {}
                DeValue::Table(table) => self.walk(table, &key, place)?,
                DeValue::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        if let DeValue::Table(table) = item.get_ref() {
                            let key = format!("{key}[{index}]");
                            self.origins.insert(key.clone(), place(item.span().start));
                            self.walk(table, &key, place)?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
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
    let line = line_of(text, error.span().map_or(0, |span| span.start));
    let message = error.message().to_owned();
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

fn slot<'a>(table: &'a mut Table, key: &str) -> Option<&'a mut Value> {
    match key.split_once('.') {
        None => table.get_mut(key),
        Some((section, rest)) => slot(table.get_mut(section)?.as_table_mut()?, rest),
    }
}

/// `a[0].b` as `a.b`.
fn without_indexes(key: &str) -> String {
    let mut parts = key.split(['[', ']']);
    let first = parts.next().unwrap_or_default().to_owned();
    // In between stand the indexes.
    parts.skip(1).step_by(2).fold(first, |key, part| key + part)
}

fn leaves(table: &Table, above: &str, keys: &mut Vec<String>) {
    for (name, value) in table {
        match value {
            Value::Table(table) => leaves(table, &join(above, name), keys),
            _ => keys.push(join(above, name)),
        }
    }
}

/// The example of what may stand under `key`.
fn lookup<'a>(known: &'a Value, key: &str) -> Option<&'a Value> {
    let mut value = known;
    let mut walked = String::new();
    for name in key.split('.') {
        value = match value {
            Value::Table(table) if OWN_NAMES.contains(&&*walked) => table.values().next()?,
            Value::Table(table) => table.get(name)?,
            Value::Array(items) => items.first()?.get(name)?,
            _ => return None,
        };
        walked = join(&walked, name);
    }
    Some(value)
}

fn known_keys(value: &Value, above: &str, keys: &mut Vec<String>) {
    let table = match value {
        Value::Table(table) => table,
        Value::Array(items) => match items.first().and_then(Value::as_table) {
            Some(table) => table,
            None => return,
        },
        _ => return,
    };
    for (name, value) in table {
        let key = join(above, name);
        known_keys(value, &key, keys);
        keys.push(key);
    }
}

/// The most similar of `known`, if any is similar at all. A right name in the wrong section counts.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let similarity = |key: &str| {
        let whole = strsim::normalized_damerau_levenshtein(name, key);
        whole.max(0.9 * strsim::normalized_damerau_levenshtein(&last(name), &last(key)))
    };
    known
        .map(|key| (key, similarity(key)))
        .filter(|(_, similarity)| *similarity >= 0.6)
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(key, _)| key)
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}
