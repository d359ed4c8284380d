//! Whether a value is as a JSON Schema says, in the words that the hub's own descriptions use; any other is a fault.
//!
//! It is stricter than the standard: a member that a schema with `properties` does not name is a fault, unless
//! `additionalProperties` says otherwise. So a field that is answered and not described is found.

use serde_json::Value;

/// The schemas of one document, which refer to one another.
pub(crate) struct Schemas<'a> {
    /// The document that `$ref` points into.
    pub(crate) document: &'a Value,
}

/// Words that say nothing about whether a value is as it should be.
const REMARKS: [&str; 7] =
    ["description", "examples", "format", "maxLength", "pattern", "title", "default"];

impl Schemas<'_> {
    /// All that is wrong with `value`, each with its place.
    pub(crate) fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.check(schema, value, "", &mut faults);
        faults
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let Some(words) = schema.as_object() else {
            return faults.push(format!("{at}: no schema: {schema}"));
        };
        for (word, said) in words {
            match &**word {
                "$ref" => {
                    let path = said.as_str().unwrap().strip_prefix('#').unwrap();
                    match self.document.pointer(path) {
                        Some(schema) => self.check(schema, value, at, faults),
                        None => faults.push(format!("{at}: {path} is nowhere")),
                    }
                }
                "type" => {
                    let is_one = |name: &Value| is_of(value, name.as_str().unwrap());
                    let fits = said
                        .as_array()
                        .map_or_else(|| is_one(said), |names| names.iter().any(is_one));
                    if !fits {
                        faults.push(format!("{at}: {value} is no {said}"));
                    }
                }
                "enum" => {
                    if !said.as_array().unwrap().contains(value) {
                        faults.push(format!("{at}: {value} is none of {said}"));
                    }
                }
                "const" => {
                    if said != value {
                        faults.push(format!("{at}: {value} is not {said}"));
                    }
                }
                "oneOf" => {
                    let fitting = said.as_array().unwrap().iter();
                    let fitting =
                        fitting.filter(|schema| self.faults(schema, value).is_empty()).count();
                    if fitting != 1 {
                        faults.push(format!("{at}: {value} is {fitting} of {said}"));
                    }
                }
                "required" => {
                    for name in said.as_array().unwrap() {
                        if value.is_object() && value.get(name.as_str().unwrap()).is_none() {
                            faults.push(format!("{at}: {name} is missing"));
                        }
                    }
                }
                "items" => {
                    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(said, item, &format!("{at}[{number}]"), faults);
                    }
                }
                "properties" | "additionalProperties" => {}
                word if REMARKS.contains(&word) => {}
                word => faults.push(format!("{at}: {word} is a word that this test does not know")),
            }
        }
        self.check_members(schema, value, at, faults);
    }

    fn check_members(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let Some(members) = value.as_object() else { return };
        let (properties, others) = (&schema["properties"], &schema["additionalProperties"]);
        if properties.is_null() && others.is_null() {
            return;
        }
        for (name, member) in members {
            let at = format!("{at}.{name}");
            match properties.get(name) {
                Some(schema) => self.check(schema, member, &at, faults),
                None if others.is_object() => self.check(others, member, &at, faults),
                None if *others == Value::Bool(true) => {}
                None => faults.push(format!("{at}: no schema names it")),
            }
        }
    }
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}
