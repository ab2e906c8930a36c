//! What the definitions that the project comes with (`deploy/crd`) allow in each version, as
//! an API server judges it (a structural schema of `apiextensions.k8s.io/v1`).

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::objects::{Kind, Weight, shown};

/// The schema of each version of a kind.
static SCHEMAS: LazyLock<HashMap<(Kind, String), Value>> = LazyLock::new(|| {
    let definitions = Kind::all().filter_map(|kind| Some((kind, kind.definition?)));
    definitions
        .flat_map(|(kind, definition)| {
            // A test reads it.
            let definition: Value = serde_saphyr::from_str(definition).unwrap_or_default();
            let versions = definition["spec"]["versions"].as_array();
            let schemas = versions.into_iter().flatten().filter_map(|version| {
                let name = version["name"].as_str()?.to_owned();
                Some(((kind, name), version["schema"]["openAPIV3Schema"].clone()))
            });
            schemas.collect::<Vec<_>>()
        })
        .collect()
});

/// The patterns in them.
static PATTERNS: LazyLock<HashMap<String, Regex>> = LazyLock::new(|| {
    fn gather(schema: &Value, patterns: &mut HashMap<String, Regex>) {
        match schema {
            Value::Object(fields) => {
                if let Some(pattern) = schema["pattern"].as_str()
                    && let Ok(regex) = Regex::new(pattern)
                {
                    patterns.insert(pattern.to_owned(), regex);
                }
                fields.values().for_each(|field| gather(field, patterns));
            }
            Value::Array(items) => items.iter().for_each(|item| gather(item, patterns)),
            _ => {}
        }
    }
    let mut patterns = HashMap::new();
    SCHEMAS
        .values()
        .for_each(|schema| gather(schema, &mut patterns));
    patterns
});

/// So many violations of one object are named; more are counted.
const MAX_VIOLATIONS: usize = 10;

/// A field that the schema does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// Path of the field.
    pub(super) field: String,
    /// What is the matter and what to do about it.
    pub(super) message: String,
}

/// What the schema of the version that it is written in has against an object; nothing for a kind
/// or version without one. Fields that the schema does not know are dropped by an API server,
/// and the status is not its author's.
pub(super) fn violations(kind: Kind, object: &Value) -> Vec<Violation> {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let version = version.rsplit('/').next().unwrap_or_default();
    let Some(schema) = SCHEMAS.get(&(kind, version.to_owned())) else {
        return Vec::new();
    };
    let mut judge = Judge {
        version,
        violations: Vec::new(),
        more: 0,
    };
    judge.object(schema, object, "");
    let Judge { more, .. } = judge;
    if let Some(last) = judge.violations.last_mut().filter(|_| more > 0) {
        last.message += &format!(" (and {more} fields more are not allowed)");
    }
    judge.violations
}

struct Judge<'a> {
    version: &'a str,
    violations: Vec<Violation>,
    /// How many more there are.
    more: usize,
}

impl Judge<'_> {
    fn say(&mut self, field: &str, message: impl Into<String>) {
        if self.violations.len() == MAX_VIOLATIONS {
            self.more += 1;
            return;
        }
        self.violations.push(Violation {
            field: field.to_owned(),
            message: message.into(),
        });
    }

    fn value(&mut self, schema: &Value, value: &Value, field: &str) {
        let int_or_string = schema["x-kubernetes-int-or-string"] == true;
        let wanted = if int_or_string {
            "a whole number, or a string"
        } else {
            match schema["type"].as_str().unwrap_or_default() {
                "object" => "an object",
                "array" => "a list",
                "string" => "a string",
                "integer" => "a whole number",
                _ => return,
            }
        };
        let is_wanted = match value {
            Value::Object(_) => wanted == "an object",
            Value::Array(_) => wanted == "a list",
            Value::String(_) => int_or_string || wanted == "a string",
            Value::Number(_) => wanted.starts_with("a whole number") && is_whole(value),
            Value::Bool(_) | Value::Null => false,
        };
        if !is_wanted {
            let message = format!(
                "is {}, which {} does not allow; write {wanted}",
                shown(value),
                self.version
            );
            self.say(field, message);
            return;
        }
        match value {
            Value::Object(_) => self.object(schema, value, field),
            Value::Array(items) => self.list(schema, items, field),
            Value::String(text) => self.text(schema, text, field),
            Value::Number(number) => {
                if let Some(minimum) = schema["minimum"].as_f64()
                    && number.as_f64().is_some_and(|number| number < minimum)
                {
                    self.say(
                        field,
                        format!("{number} is too small; write {minimum} or more"),
                    );
                }
            }
            Value::Bool(_) | Value::Null => {}
        }
    }

    fn object(&mut self, schema: &Value, value: &Value, field: &str) {
        let below = |name: &str| match field {
            "" => name.to_owned(),
            field => format!("{field}.{name}"),
        };
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap_or_default();
            if value.get(name).is_none() {
                let message = format!("is missing, and {} needs it; write it", self.version);
                self.say(&below(name), message);
            }
        }
        let properties = schema["properties"].as_object();
        for (name, schema) in properties.into_iter().flatten() {
            let is_status = field.is_empty() && name == "status";
            if let Some(value) = value.get(name).filter(|_| !is_status) {
                self.value(schema, value, &below(name));
            }
        }
    }

    fn list(&mut self, schema: &Value, items: &[Value], field: &str) {
        let limit = |name: &str| usize::try_from(schema[name].as_u64()?).ok();
        if limit("minItems").is_some_and(|least| items.len() < least) {
            self.say(field, "is empty; write at least one");
        }
        if let Some(most) = limit("maxItems").filter(|most| items.len() > *most) {
            let message = format!("has {} items; write at most {most}", items.len());
            self.say(field, message);
        }
        for (index, item) in items.iter().enumerate() {
            self.value(&schema["items"], item, &format!("{field}[{index}]"));
        }
    }

    fn text(&mut self, schema: &Value, text: &str, field: &str) {
        let value = Value::from(text);
        if schema["minLength"].as_u64() > Some(text.chars().count() as u64) {
            self.say(field, "is empty; write a name");
            return;
        }
        if let Some(choices) = schema["enum"].as_array()
            && !choices.contains(&value)
        {
            let choices: Vec<String> = choices.iter().map(shown).collect();
            let message = format!("is {}; write {}", shown(&value), choices.join(" or "));
            self.say(field, message);
        }
        let pattern = schema["pattern"].as_str();
        let pattern = pattern.and_then(|pattern| PATTERNS.get(pattern));
        if pattern.is_some_and(|pattern| !pattern.is_match(text)) {
            let remedy = if Weight::from_json(&value).is_err() {
                "write a whole number of 0 or more"
            } else if self.version == "v1alpha1" {
                "weights are relative, so write all of them with fewer digits, such as 90 or 500m"
            } else {
                "weights are relative, so multiply all of them until they are whole, or write \
                 apiVersion split.smi-spec.io/v1alpha1, which has quantities"
            };
            let message = format!(
                "{} is not a weight in {}; {remedy}",
                shown(&value),
                self.version
            );
            self.say(field, message);
        }
    }
}

/// Whether an API server takes a number for an integer: also one with a point, up to 2^53.
fn is_whole(value: &Value) -> bool {
    value.as_i64().is_some()
        || !value.is_u64()
            && value.as_f64().is_some_and(|number| {
                number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_991.0
            })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_version_of_the_definition_is_read() {
        for kind in Kind::all().filter(|kind| kind.definition.is_some()) {
            for version in kind.versions {
                let schema = SCHEMAS.get(&(kind, (*version).to_owned()));
                assert!(schema.is_some_and(Value::is_object), "{kind} {version}");
            }
        }
        for schema in SCHEMAS.values() {
            let weight = &schema["properties"]["spec"]["properties"]["backends"]["items"]["properties"]
                ["weight"];
            let pattern = weight["pattern"].as_str().expect("a pattern");
            Regex::new(pattern).expect("a valid pattern");
        }
    }

    #[test]
    fn every_field_that_is_not_allowed_is_named() {
        let split = |spec: Value| {
            json!({
                "apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
                "metadata": {"name": "web"}, "spec": spec, "status": 7,
            })
        };
        let fields = |value: &Value| -> Vec<String> {
            let violations = violations(Kind::TRAFFIC_SPLIT, value).into_iter();
            violations.map(|violation| violation.field).collect()
        };
        let good = json!({"service": "a", "backends": [{"service": "b", "weight": 90}]});
        assert!(fields(&split(good)).is_empty());
        let bad = json!({
            "service": 7, "matches": [{"kind": "Pod"}], "unknown": 1,
            "backends": [{"service": "", "weight": "900m"}, {"weight": 0.5}, "x"],
        });
        let mut told = fields(&split(bad));
        told.sort();
        assert_eq!(
            told,
            [
                "spec.backends[0].service",
                "spec.backends[0].weight",
                "spec.backends[1].service",
                "spec.backends[1].weight",
                "spec.backends[2]",
                "spec.matches[0].kind",
                "spec.matches[0].name",
                "spec.service",
            ]
        );
        assert_eq!(fields(&split(Value::Null)), ["spec"]);
    }

    #[test]
    fn a_quantity_in_a_version_of_numbers_names_the_version_that_has_quantities() {
        let split = json!({
            "apiVersion": "split.smi-spec.io/v1alpha4",
            "spec": {"service": "a", "backends": [{"service": "b", "weight": "900m"}]},
        });
        let violations = violations(Kind::TRAFFIC_SPLIT, &split);
        assert_eq!(violations.len(), 1);
        assert_eq!(
            violations[0].message,
            "\"900m\" is not a weight in v1alpha4; weights are relative, so multiply all of them \
             until they are whole, or write apiVersion split.smi-spec.io/v1alpha1, which has \
             quantities"
        );
    }
}
