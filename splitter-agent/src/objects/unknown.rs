//! Fields of a TrafficSplit's spec that no version of the API has.
//!
//! Most of them change nothing when they are ignored, and are named in a warning. Some say
//! for whom or for what part of the root the split is meant: to ignore one of those would
//! send everybody where its author meant to send a few.

use serde_json::Value;

use super::field::{FieldError, Fields, present, shown};

/// Fields that are known, of the spec and of a backend.
const OF_SPEC: [&str; 3] = ["service", "backends", "matches"];
const OF_BACKEND: [&str; 2] = ["service", "weight"];

/// Names that choose connections by something that they carry: fields of other APIs for
/// the same purpose (SMI's HTTPRouteGroup, Istio's VirtualService, Gateway API, Traefik).
/// In lower case, without hyphens and underscores, sorted.
const BY_REQUEST: [&str; 25] = [
    "condition",
    "conditions",
    "cookie",
    "cookies",
    "filter",
    "filters",
    "header",
    "headers",
    "host",
    "hostnames",
    "hosts",
    "match",
    "matches",
    "method",
    "methods",
    "path",
    "pathregex",
    "paths",
    "queryparams",
    "route",
    "routes",
    "rule",
    "rules",
    "uri",
    "when",
];

/// Names that choose who is split, or which endpoints of a backend are meant.
const BY_PARTY: [&str; 13] = [
    "client",
    "clients",
    "clientselector",
    "from",
    "gateways",
    "labelselector",
    "podselector",
    "selector",
    "source",
    "sourcelabels",
    "sources",
    "subset",
    "subsets",
];

/// Names that choose which ports are split, or where on a backend connections go.
const BY_PORT: [&str; 4] = ["port", "ports", "targetport", "targetports"];

/// More unknown fields than this are counted, not named.
const MOST: usize = 5;

/// The unknown fields of a spec that may be ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unknown {
    /// Paths of the first of them, such as `spec.backends[1].labels`.
    pub fields: Box<[String]>,
    /// How many more there are.
    pub more: usize,
}

/// Looks through the spec of an object for fields that no TrafficSplit has. Those that would
/// restrict the split are errors, with their paths below the spec.
pub(super) fn judge(object: &Fields, own_namespace: &str) -> (Unknown, Vec<FieldError>) {
    let mut search = Search {
        own_namespace,
        named: Vec::new(),
        more: 0,
        restrictions: Vec::new(),
    };
    let Some(spec) = object.get("spec").and_then(Value::as_object) else {
        return Default::default();
    };
    search.fields(spec, "", &OF_SPEC);
    let backends = spec.get("backends").and_then(Value::as_array);
    for (index, backend) in backends.into_iter().flatten().enumerate() {
        if let Some(backend) = backend.as_object() {
            search.fields(backend, &format!("backends[{index}]"), &OF_BACKEND);
        }
    }
    let unknown = Unknown {
        fields: search.named.into(),
        more: search.more,
    };
    (unknown, search.restrictions)
}

struct Search<'a> {
    own_namespace: &'a str,
    named: Vec<String>,
    more: usize,
    restrictions: Vec<FieldError>,
}

impl Search<'_> {
    fn fields(&mut self, fields: &Fields, path: &str, known: &[&str]) {
        let unknown = fields.keys().filter(|name| !known.contains(&name.as_str()));
        for name in unknown {
            let Some(value) = present(fields, name) else {
                continue;
            };
            let path = below(path, name);
            if self.restricts(name, value, &path) {
                continue;
            }
            if self.named.len() < MOST {
                self.named.push(if path.starts_with('[') {
                    format!("spec{path}")
                } else {
                    format!("spec.{path}")
                });
            } else {
                self.more += 1;
            }
        }
    }

    /// Looks for a restriction in a field and, since one that is misplaced may be anywhere,
    /// in everything below it; whether there is any.
    fn restricts(&mut self, name: &str, value: &Value, path: &str) -> bool {
        if let Some(message) = self.restriction(name, value) {
            if self.restrictions.len() < MOST {
                self.restrictions.push(FieldError::new(message).below(path));
            }
            return true;
        }
        let mut found = false;
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    found |= self.restricts(name, value, &below(path, name));
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    found |= self.restricts("", item, &format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
        found
    }

    fn restriction(&self, name: &str, value: &Value) -> Option<String> {
        if is_empty(value) {
            return None;
        }
        let plain: String = name
            .chars()
            .filter(|character| !matches!(character, '-' | '_'))
            .map(|character| character.to_ascii_lowercase())
            .collect();
        let is_among = |names: &[&str]| names.binary_search(&plain.as_str()).is_ok();
        if is_among(&BY_REQUEST) {
            Some(format!(
                "is {}, which chooses by request, and splitter splits connections; remove it to \
                 split all of them",
                shown(value)
            ))
        } else if is_among(&BY_PARTY) {
            Some(format!(
                "is {}, which chooses clients or pods, and a TrafficSplit is for every client and \
                 every pod of a backend's Service; remove it to split for all",
                shown(value)
            ))
        } else if is_among(&BY_PORT) {
            Some(format!(
                "is {}, and a TrafficSplit has no such field; write the port that is to be split \
                 after the root's name, as in service: web:80",
                shown(value)
            ))
        } else if matches!(plain.as_str(), "namespace" | "namespaces") {
            (value.as_str() != Some(self.own_namespace)).then(|| {
                format!(
                    "is {}, and root and backends are Services of the TrafficSplit's own \
                     namespace, {}; remove it, or move the TrafficSplit",
                    shown(value),
                    self.own_namespace
                )
            })
        } else {
            None
        }
    }
}

/// Whether a value chooses nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The path of a field. A name that is no word is written as JSON, so that it can forge
/// nothing in a report.
fn below(path: &str, name: &str) -> String {
    let is_word = !name.is_empty()
        && name.len() <= 63
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    match (path, is_word) {
        ("", true) => name.to_owned(),
        (_, true) => format!("{path}.{name}"),
        (_, false) => format!("{path}[{}]", shown(&Value::from(name))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judged(spec: &Value) -> (Unknown, Vec<FieldError>) {
        judge(json!({"spec": spec}).as_object().unwrap(), "shop")
    }

    #[test]
    fn names_are_sorted_as_the_search_needs_them() {
        for names in [&BY_REQUEST[..], &BY_PARTY, &BY_PORT] {
            assert!(names.is_sorted());
            for name in names {
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()), "{name}");
            }
        }
    }

    #[test]
    fn fields_that_change_nothing_are_named_and_counted() {
        let (unknown, restrictions) = judged(&json!({
            "service": "web", "matches": [], "analysis": {"a": [1, {"b": 2}]}, "none": null,
            "backends": [
                {"service": "a", "weight": 1, "labels": {"x": "y"}},
                null,
                {"service": "b", "weight": 1, "namespace": "shop", "a b\n": 1, "m": 1, "n": 1, "o": 1},
            ],
        }));
        assert_eq!(restrictions, []);
        assert_eq!(
            *unknown.fields,
            [
                "spec.analysis",
                "spec.backends[0].labels",
                "spec.backends[2][\"a b\\n\"]",
                "spec.backends[2].m",
                "spec.backends[2].n",
            ]
        );
        assert_eq!(unknown.more, 2);
    }

    #[test]
    fn a_restriction_is_found_wherever_it_is_and_however_it_is_spelled() {
        for (spec, field) in [
            (json!({"match": [{"name": "beta"}]}), "match"),
            (json!({"Match": "x"}), "Match"),
            (json!({"source_labels": {"app": "x"}}), "source_labels"),
            (json!({"port": 80}), "port"),
            (json!({"namespace": "bank"}), "namespace"),
            (json!({"namespace": ["shop"]}), "namespace"),
            (
                json!({"backends": [{}, {"matches": [{"kind": "x"}]}]}),
                "backends[1].matches",
            ),
            (
                json!({"backends": [{"namespace": "bank"}]}),
                "backends[0].namespace",
            ),
            (
                json!({"http": [{"a": 1}, {"a": [{"match": {"uri": "/"}}]}]}),
                "http[1].a[0].match",
            ),
        ] {
            let (unknown, restrictions) = judged(&spec);
            assert_eq!(unknown, Unknown::default(), "named once");
            let [restriction] = &*restrictions else {
                panic!("{spec}: {restrictions:?}");
            };
            assert_eq!(restriction.field, field, "{spec}");
            assert!(restriction.message.contains("; "), "{restriction:?}");
        }
        for spec in [
            json!({"match": []}),
            json!({"headers": {}}),
            json!({"namespace": ""}),
            json!({"namespace": "shop"}),
            json!({"matching": "x"}),
        ] {
            assert_eq!(judged(&spec).1, [], "{spec}");
        }
    }
}
