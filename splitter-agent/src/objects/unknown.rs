//! Fields of a TrafficSplit that no version of the API has.
//!
//! Most of them change nothing when they are ignored, and are named in a warning. Some say
//! for whom or for what part of the root the split is meant: to ignore one of those would
//! send everybody where its author meant to send a few.
//!
//! The admission policy (`deploy/components/admission`) judges by the same names.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::field::{FieldError, Fields, present, shown};

/// Fields that are known, of the object, the spec and a backend.
const OF_OBJECT: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
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
const BY_PARTY: [&str; 8] = [
    "client",
    "clients",
    "gateways",
    "matchexpressions",
    "matchfields",
    "matchlabels",
    "subset",
    "subsets",
];

/// Names of any other API that choose, told by a word in them: who connects, or which pods or
/// ports are meant. Of the same form as the lists.
const BY_WORD: &str = "^((source|from)[a-z0-9]*\
                       |[a-z0-9]*(match|namespace|account|principal|selector)[a-z0-9]*\
                       |[a-z0-9]*ports?|port(name|number|range)s?)$";

static WORDS: LazyLock<Regex> = LazyLock::new(|| Regex::new(BY_WORD).expect("a valid pattern"));

/// The field that names the namespace of what it is in, which may be the only one there is.
const NAMESPACE: [&str; 2] = ["namespace", "namespaces"];

/// More unknown fields than this are counted, not named.
const MOST: usize = 5;

/// The unknown fields of an object that may be ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unknown {
    /// Paths of the first of them, such as `spec.backends[1].labels`.
    pub fields: Box<[String]>,
    /// How many more there are.
    pub more: usize,
}

/// Looks through an object for fields that no TrafficSplit has. Those that would restrict the
/// split are errors.
pub(super) fn judge(object: &Fields, own_namespace: &str) -> (Unknown, Vec<FieldError>) {
    let mut search = Search {
        own_namespace,
        named: Vec::new(),
        more: 0,
        restrictions: Vec::new(),
    };
    search.fields(object, "", &OF_OBJECT);
    if let Some(spec) = object.get("spec").and_then(Value::as_object) {
        search.fields(spec, "spec", &OF_SPEC);
        let backends = spec.get("backends").and_then(Value::as_array);
        for (index, backend) in backends.into_iter().flatten().enumerate() {
            if let Some(backend) = backend.as_object() {
                search.fields(backend, &format!("spec.backends[{index}]"), &OF_BACKEND);
            }
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
                self.named.push(path);
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
        if NAMESPACE.contains(&&*plain) {
            return (value.as_str() != Some(self.own_namespace)).then(|| {
                format!(
                    "is {}, and root and backends are Services of the TrafficSplit's own \
                     namespace, {}; remove it, or move the TrafficSplit",
                    shown(value),
                    self.own_namespace
                )
            });
        }
        let problem = match Choice::of(&plain)? {
            Choice::Request => {
                "which chooses by request, and splitter splits connections; remove it to split all \
                 of them"
            }
            Choice::Party => {
                "which chooses clients or pods, and a TrafficSplit is for every client and every \
                 pod of a backend's Service; remove it to split for all"
            }
            Choice::Port => {
                "and a TrafficSplit has no such field; write the port that is to be split after \
                 the root's name, as in service: web:80"
            }
        };
        Some(format!("is {}, {problem}", shown(value)))
    }
}

/// By what a field chooses.
#[derive(Clone, Copy)]
enum Choice {
    /// By what a request carries.
    Request,
    /// Clients, or pods of a backend.
    Party,
    /// Ports.
    Port,
}

impl Choice {
    /// By a name in lower case, without hyphens and underscores.
    fn of(plain: &str) -> Option<Self> {
        let is_among = |names: &[&str]| names.binary_search(&plain).is_ok();
        if is_among(&BY_REQUEST) {
            Some(Self::Request)
        } else if is_among(&BY_PARTY) {
            Some(Self::Party)
        } else if !WORDS.is_match(plain) {
            None
        } else if plain.starts_with("port") || plain.ends_with("port") || plain.ends_with("ports") {
            Some(Self::Port)
        } else if plain.contains("match") {
            Some(Self::Request)
        } else {
            Some(Self::Party)
        }
    }
}

/// Whether a value chooses nothing.
pub(super) fn is_empty(value: &Value) -> bool {
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
pub(super) fn below(path: &str, name: &str) -> String {
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
        for names in [&BY_REQUEST[..], &BY_PARTY] {
            assert!(names.is_sorted());
            for name in names {
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()), "{name}");
            }
        }
    }

    #[test]
    fn the_admission_policy_judges_by_the_same_names() {
        let policy = include_str!("../../../deploy/components/admission/policy.yaml");
        let policy: Value = serde_saphyr::from_str(policy).unwrap();
        let expression = |name: &str| {
            let variables = policy["spec"]["variables"].as_array().unwrap();
            let variable = variables.iter().find(|variable| variable["name"] == name);
            variable.unwrap()["expression"].as_str().unwrap()
        };
        let names = |name: &str| -> Vec<&str> {
            let list = expression(name).trim_matches(['[', ']', ' ']).split(',');
            list.map(|name| name.trim_matches(['\'', ' '])).collect()
        };
        let mut ours = [&BY_REQUEST[..], &BY_PARTY].concat();
        ours.sort_unstable();
        assert_eq!(names("restricting"), ours);
        assert_eq!(expression("restrictingWords"), format!("r'{BY_WORD}'"));
        assert_eq!(names("objectFields"), OF_OBJECT);
        assert_eq!(names("specFields"), OF_SPEC);
        assert_eq!(names("backendFields"), OF_BACKEND);
        assert_eq!(names("namespaceFields"), NAMESPACE);
    }

    #[test]
    fn a_name_tells_by_its_words_what_it_chooses() {
        for name in [
            "namespaceSelector",
            "matchLabels",
            "matching",
            "requestMatch",
            "sourceNamespace",
            "source_ip",
            "fromEntities",
            "serviceAccount",
            "ServiceAccountName",
            "principals",
            "destinationPort",
            "destination-ports",
            "portName",
            "port",
            "httpMatch",
            "pod-selector",
            "workloadSelectors",
        ] {
            for object in [
                json!({name: "x"}),
                json!({"spec": {name: "x"}}),
                json!({"spec": {"backends": [{name: "x"}]}}),
                json!({"spec": {"http": [{name: "x"}]}}),
            ] {
                let (unknown, restrictions) = judge(object.as_object().unwrap(), "shop");
                assert_eq!(unknown, Unknown::default(), "{object}");
                assert_eq!(restrictions.len(), 1, "{object}");
                assert!(restrictions[0].field.ends_with(name), "{restrictions:?}");
            }
        }
        for name in [
            "portion",
            "resource",
            "prometheus.io/port",
            "x/match",
            "weights",
            "count",
        ] {
            let object = json!({"spec": {name: "x"}});
            assert_eq!(judge(object.as_object().unwrap(), "shop").1, [], "{name}");
        }
    }

    #[test]
    fn fields_beside_the_spec_are_judged_as_those_in_it() {
        let object = json!({
            "apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit", "status": {"port": 1},
            "metadata": {"name": "web", "namespace": "shop"}, "annotations": {"a": "b"},
            "matches": [{"kind": "HTTPRouteGroup"}], "namespace": "bank", "a b": 1, "spec": null,
        });
        let (unknown, restrictions) = judge(object.as_object().unwrap(), "shop");
        assert_eq!(*unknown.fields, ["[\"a b\"]", "annotations"]);
        let fields: Vec<_> = restrictions.iter().map(|error| &*error.field).collect();
        assert_eq!(fields, ["matches", "namespace"]);
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
            (json!({"match": [{"name": "beta"}]}), "spec.match"),
            (json!({"Match": "x"}), "spec.Match"),
            (json!({"source_labels": {"app": "x"}}), "spec.source_labels"),
            (json!({"port": 80}), "spec.port"),
            (json!({"namespace": "bank"}), "spec.namespace"),
            (json!({"namespace": ["shop"]}), "spec.namespace"),
            (
                json!({"backends": [{}, {"matches": [{"kind": "x"}]}]}),
                "spec.backends[1].matches",
            ),
            (
                json!({"backends": [{"namespace": "bank"}]}),
                "spec.backends[0].namespace",
            ),
            (
                json!({"http": [{"a": 1}, {"a": [{"match": {"uri": "/"}}]}]}),
                "spec.http[1].a[0].match",
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
        ] {
            assert_eq!(judged(&spec).1, [], "{spec}");
        }
    }
}
