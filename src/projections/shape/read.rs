//! A shape out of the configuration, each fault with the key it stands at.

use serde::{Deserialize, de::DeserializeOwned};
use toml::Table;

use super::{Shape, number, words};
use crate::{
    projections::{
        buckets::{Buckets, Hours},
        collect::{CollectRule, KeepPolicy},
        configured_topics::ConfiguredTopics,
        fault::ProjectionFault,
        style::NumberStyle,
        take::Take,
    },
    select::{Condition, Field},
    wording,
};

/// Keys that make a table stand for something; a table without any is an object.
const OPERATORS: [&str; 8] =
    ["value", "words", "newest", "list", "buckets", "freshness", "clock", "object"];

/// Newest events in a list that does not say how many.
const USUAL: usize = 20;
/// The most.
const MOST: usize = 1000;
/// Members that a list may be filtered by, at most.
const FILTERS: usize = 8;
/// What a query asks for beside them.
const PARAMETERS: [&str; 3] = ["hours", "days", "limit"];

/// What reading a shape needs, and what comes out beside it.
pub(in crate::projections) struct ShapeReader<'a> {
    /// The number of the derived value of a name.
    pub(in crate::projections) derive: &'a dyn Fn(&str) -> Option<usize>,
    /// Whether the projection says what its freshness goes by.
    pub(in crate::projections) has_freshness: bool,
    /// Gets what is to be collected of newest events.
    pub(in crate::projections) collect_rules: &'a mut Vec<CollectRule>,
}

/// `{ newest = "…" }`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewestOperator {
    newest: ConfiguredTopics,
    #[serde(default)]
    take: Take,
}

/// `{ list = "…" }`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListOperator {
    list: ConfiguredTopics,
    limit: Option<usize>,
    /// The most that `?limit=` may ask for.
    keep: Option<usize>,
    /// Members of a row by which requests may ask for some rows.
    #[serde(default)]
    filters: Vec<String>,
    #[serde(default)]
    by_key: bool,
    sort_by: Option<Field>,
    #[serde(default, rename = "where")]
    condition: Condition,
    #[serde(default)]
    take: Take,
}

/// `{ buckets = "…" }`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BucketsOperator {
    buckets: String,
    #[serde(rename = "as")]
    name: String,
    #[serde(default)]
    dated: bool,
    round: Option<u8>,
    hours: Hours,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FreshnessOperator {
    freshness: FreshnessOf,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum FreshnessOf {
    Error,
    Stale,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockOperator {
    clock: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectOperator {
    object: Table,
}

impl ShapeReader<'_> {
    /// The shape that `value` describes; `key` is where it stands.
    pub(in crate::projections) fn shape(
        &mut self,
        key: &str,
        value: &toml::Value,
    ) -> Result<Shape, ProjectionFault> {
        match value {
            toml::Value::Table(table) => {
                // What an operator works on is no table, so that a table there is a member.
                let is_named = |name: &&&str| {
                    table.get(**name).is_some_and(|value| !value.is_table() || **name == "object")
                };
                let named: Vec<_> = OPERATORS.iter().filter(is_named).collect();
                match named[..] {
                    [] => self.object(key, table),
                    [operator] => self.operator(key, operator, value),
                    [one, other, ..] => {
                        let message = format!(
                            "`{one}` and `{other}` both say what stands here: keep one, or put an \
                             object's members under `object`"
                        );
                        Err(ProjectionFault::new(key, message))
                    }
                }
            }
            toml::Value::Array(items) => {
                let item = |(index, item)| self.shape(&format!("{key}[{index}]"), item);
                items.iter().enumerate().map(item).collect::<Result<_, _>>().map(Shape::Array)
            }
            toml::Value::String(text) => Ok(Shape::Constant(text.as_str().into())),
            toml::Value::Integer(number) => Ok(Shape::Constant((*number).into())),
            toml::Value::Boolean(so) => Ok(Shape::Constant((*so).into())),
            toml::Value::Float(number) if number.is_finite() => {
                Ok(Shape::Constant((*number).into()))
            }
            toml::Value::Float(_) => Err(ProjectionFault::new(key, "JSON has no such number")),
            toml::Value::Datetime(_) => {
                Err(ProjectionFault::new(key, "JSON has no times: write a text"))
            }
        }
    }

    fn object(&mut self, key: &str, table: &Table) -> Result<Shape, ProjectionFault> {
        let member = |(name, value): (&String, &toml::Value)| {
            Ok((name.clone(), self.shape(&format!("{key}.{name}"), value)?))
        };
        table.iter().map(member).collect::<Result<_, _>>().map(Shape::Object)
    }

    fn operator(
        &mut self,
        key: &str,
        name: &str,
        value: &toml::Value,
    ) -> Result<Shape, ProjectionFault> {
        match name {
            "value" => {
                let config: number::ValueOperator = parse(key, value)?;
                let derive = self.derive(&format!("{key}.value"), &config.value)?;
                config.number(derive).map(Shape::Number).map_err(|(name, message)| {
                    ProjectionFault::new(&format!("{key}.{name}"), message)
                })
            }
            "words" => self.words(key, parse(key, value)?),
            "newest" => {
                let NewestOperator { newest, take } = parse(key, value)?;
                let (condition, keep) = (Condition::default(), KeepPolicy::Newest);
                let filter = newest.0;
                let rule = CollectRule { filter, condition, keep, sort_by: None, take };
                Ok(Shape::Newest(self.collect(rule)))
            }
            "list" => {
                let config: ListOperator = parse(key, value)?;
                let limit = config.limit.unwrap_or(USUAL);
                let keep = config.keep.unwrap_or(limit);
                for (name, number, least) in [("limit", limit, 1), ("keep", keep, limit)] {
                    if number < least || number > MOST {
                        let message = format!("must be from {least} to {MOST}");
                        return Err(ProjectionFault::new(&format!("{key}.{name}"), message));
                    }
                }
                for (index, name) in config.filters.iter().enumerate() {
                    let wrong = match () {
                        () if index >= FILTERS => Some(format!("there are at most {FILTERS}")),
                        () if PARAMETERS.contains(&name.as_str()) => {
                            Some(format!("?{name}= asks for something else"))
                        }
                        () if !config.take.has(name) => {
                            Some(format!("`take` has no {name:?}, so that no row has it"))
                        }
                        () => None,
                    };
                    if let Some(message) = wrong {
                        return Err(ProjectionFault::new(&format!("{key}.filters"), message));
                    }
                }
                let ListOperator { list, by_key, sort_by, condition, take, filters, .. } = config;
                if sort_by.is_some() && !by_key {
                    let message = "sorts a list of the newest of each key: add `by_key = true`";
                    return Err(ProjectionFault::new(&format!("{key}.sort_by"), message));
                }
                let keep = if by_key { KeepPolicy::PerKey(keep) } else { KeepPolicy::List(keep) };
                let rule = CollectRule { filter: list.0, condition, keep, sort_by, take };
                Ok(Shape::List { number: self.collect(rule), limit, filters })
            }
            "buckets" => {
                let config: BucketsOperator = parse(key, value)?;
                let style = NumberStyle::new(None, config.round).map_err(|(name, message)| {
                    ProjectionFault::new(&format!("{key}.{name}"), message)
                })?;
                let BucketsOperator { buckets, name, dated: is_dated, hours, .. } = config;
                let derive = self.derive(&format!("{key}.buckets"), &buckets)?;
                Ok(Shape::Buckets(Buckets { derive, name, is_dated, style, hours }))
            }
            "freshness" => {
                let FreshnessOperator { freshness } = parse(key, value)?;
                if !self.has_freshness {
                    let message = "say what it goes by in the projection's own `freshness`";
                    return Err(ProjectionFault::new(key, message));
                }
                Ok(match freshness {
                    FreshnessOf::Error => Shape::Error,
                    FreshnessOf::Stale => Shape::IsStale,
                })
            }
            "clock" => match parse(key, value)? {
                ClockOperator { clock: true } => Ok(Shape::Clock),
                ClockOperator { clock: false } => {
                    Err(ProjectionFault::new(key, "write `clock = true` or leave it out"))
                }
            },
            _ => {
                let ObjectOperator { object } = parse(key, value)?;
                self.object(&format!("{key}.object"), &object)
            }
        }
    }

    fn words(&mut self, key: &str, config: words::WordsOperator) -> Result<Shape, ProjectionFault> {
        let mut derives = Vec::new();
        for (index, case) in config.words.iter().enumerate() {
            let key = format!("{key}.words[{index}]");
            if let Some(message) = case.nonsense() {
                return Err(ProjectionFault::new(&key, message));
            }
            derives.push(self.derive(&format!("{key}.value"), &case.value)?);
        }
        Ok(Shape::Words(config.words(derives)))
    }

    fn derive(&self, key: &str, name: &str) -> Result<usize, ProjectionFault> {
        (self.derive)(name).ok_or_else(|| {
            let message = format!("there is no derived value {name:?}: add a [[derive]] with it");
            ProjectionFault::new(key, message)
        })
    }

    /// The number of what is collected.
    fn collect(&mut self, rule: CollectRule) -> usize {
        self.collect_rules.push(rule);
        self.collect_rules.len() - 1
    }
}

/// A table as what it is for; a fault is told with its own key.
fn parse<T: DeserializeOwned>(key: &str, value: &toml::Value) -> Result<T, ProjectionFault> {
    serde_path_to_error::deserialize(value.clone()).map_err(|error| {
        let at = match error.path().to_string() {
            path if path == "." => key.to_owned(),
            path => format!("{key}.{path}"),
        };
        let message = error.inner().message();
        match wording::unknown_field(message) {
            Some((_, known)) => {
                let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
                ProjectionFault::new(&at, format!("is no key here: there is {}", known.join(", ")))
            }
            None => ProjectionFault::new(&at, wording::plain(message)),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::Inputs, *};
    use serde_json::{Value, json};

    fn read(text: &str) -> Result<(Shape, usize), ProjectionFault> {
        let table: Table = text.parse().unwrap();
        let mut collect_rules = Vec::new();
        let derive = |name: &str| ["a.n", "a.m"].iter().position(|known| *known == name);
        let mut reading =
            ShapeReader { derive: &derive, has_freshness: true, collect_rules: &mut collect_rules };
        let shape = reading.shape("shape", &table["shape"])?;
        Ok((shape, collect_rules.len()))
    }

    fn render(shape: &Shape, error: Option<&str>, clock: &str) -> Value {
        shape.render(&Inputs {
            value: &|derive| (derive == 0).then_some(94.25),
            collected: &|number| json!([number]),
            rows: &|buckets| json!([{ &buckets.name: 3 }]),
            limit: None,
            filters: &BTreeMap::new(),
            error,
            clock,
        })
    }

    const EVERYTHING: &str = r#"
        [shape]
        constant = "x"
        plain = { object = { value = "as it is", list = 1 } }
        list = { list = ["a.*", "b.c"], limit = 3, where = { on = true }, take = { id = "@id", n = ["n", "m"] } }
        nested.deep = [1, 2.5, true, { value = "a.n", round = 1 }]
        nested.unknown = { value = "a.m" }
        status = { words = [{ word = "bad", value = "a.n", below = 95 }], otherwise = "good" }
        newest = { newest = "a.b", take = "x.y" }
        chart = { buckets = "a.n", as = "calls", hours = 24 }
        error = { freshness = "error" }
        stale = { freshness = "stale" }
        at = { clock = true }
    "#;

    #[test]
    fn a_shape_is_rendered_as_it_is_written() {
        let (shape, collect_rules) = read(EVERYTHING).unwrap();
        assert_eq!(collect_rules, 2);
        let wanted = json!({
            "constant": "x", "plain": {"value": "as it is", "list": 1}, "list": [0], "nested": {"deep": [1, 2.5, true, 94.3], "unknown": null},
            "status": "bad", "newest": [1], "chart": [{"calls": 3}],
            "error": "gone", "stale": true, "at": "now",
        });
        assert_eq!(render(&shape, Some("gone"), "now"), wanted);
        assert_eq!(render(&shape, None, "now")["error"], json!(null));
        assert_eq!(render(&shape, None, "now")["stale"], json!(false));
    }

    #[test]
    fn the_clock_alone_is_no_change() {
        let (shape, _) = read("[shape]\nat = [{ clock = true }]\nn = { value = \"a.n\" }").unwrap();
        let (mut one, mut other) = (render(&shape, None, "1"), render(&shape, None, "2"));
        assert_ne!(one, other);
        shape.stop_clock(&mut one);
        shape.stop_clock(&mut other);
        assert_eq!(one, other);
        assert_eq!(one["n"], 94.25);
        shape.stop_clock(&mut json!([1])); // whatever stood on the topic before
    }

    #[test]
    fn a_fault_is_told_with_its_key() {
        for (text, key, message) in [
            ("x = { value = \"a.o\" }", "shape.x.value", "no derived value"),
            (
                "x = { value = \"a.n\", rund = 1 }",
                "shape.x.rund",
                "is no key here: there is `value`",
            ),
            ("x = { value = \"a.n\", round = 12 }", "shape.x.round", "0 to 9"),
            ("x = { value = \"a.n\", list = \"a\" }", "shape.x", "both say"),
            ("x = { value = 1 }", "shape.x.value", "must be a text in quotes, not the number 1"),
            ("x = [{ newest = \"a..b\" }]", "shape.x[0].newest", "empty tokens"),
            ("x = { list = \"a.b\", limit = 0 }", "shape.x.limit", "from 1 to 1000"),
            ("x = { list = \"a\", keep = 19 }", "shape.x.keep", "from 20 to 1000"),
            ("x = { list = \"a\", sort_by = \"at\" }", "shape.x.sort_by", "by_key = true"),
            (
                "x = { list = \"a\", take = { y = { field = \"z\", round = 12 } } }",
                "shape.x.take",
                "`round` must be from 0 to 9",
            ),
            ("x = { list = \"a\", filters = [\"on\"] }", "shape.x.filters", "has no \"on\""),
            (
                "x = { list = \"a\", filters = [\"days\"], take = { days = \"days\" } }",
                "shape.x.filters",
                "something else",
            ),
            ("x = { list = [] }", "shape.x.list", "at least one"),
            ("x = { list = \"a\", take = { y = \"@no\" } }", "shape.x.take", "@topic"),
            (
                "x = { words = [{ word = \"w\", value = \"a.n\" }], otherwise = \"o\" }",
                "shape.x.words[0]",
                "say when",
            ),
            (
                "x = { words = [{ word = \"w\", value = \"b\", above = 1 }], otherwise = \"o\" }",
                "shape.x.words[0].value",
                "no derived value",
            ),
            ("x = { buckets = \"a.n\", as = \"n\", hours = 0 }", "shape.x.hours", "from 1 to 720"),
            ("x = { freshness = \"never\" }", "shape.x.freshness", "not \"never\""),
            ("x = { clock = false }", "shape.x", "clock = true"),
            ("x = nan", "shape.x", "no such number"),
            ("x = 1979-05-27", "shape.x", "no times"),
        ] {
            let fault = read(&format!("[shape]\n{text}")).unwrap_err();
            assert!(fault.key.starts_with(key), "{text}: {fault:?}");
            assert!(fault.message.contains(message), "{text}: {fault:?}");
        }
    }
}
