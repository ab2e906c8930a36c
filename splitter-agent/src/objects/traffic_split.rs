//! TrafficSplits (SMI, `split.smi-spec.io`), in the one form that all versions have in
//! common.

use serde_json::Value;

use super::annotation;
use super::field::{self, FieldError, Fields, inert, shown};
use super::kind::{Availability, Entry, NameRule, Purpose, Resource, StatusForm};
use super::unknown::{self, Unknown};
use super::{Metadata, Weight, WeightError};
use crate::reason;

/// The kind of TrafficSplits. Schemas of older versions lack `matches`, so that reading through
/// them would hide that a split asks for what cannot be done: the newest is best.
pub(crate) static ENTRY: Entry = Entry {
    resource: Resource {
        kind: "TrafficSplit",
        plural: "trafficsplits",
        group: "split.smi-spec.io",
    },
    versions: &["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"],
    purpose: Purpose::Route,
    availability: Availability::Optional,
    is_namespaced: true,
    name_rule: NameRule::Subdomain,
    status: StatusForm::Own,
    precedence: 30,
    may_be_superseded: false,
    owns_group: true,
    definition: Some(include_str!("../../../deploy/crd/trafficsplits.yaml")),
    read: |metadata, object| {
        let split = TrafficSplit::read(&metadata, object);
        Ok(metadata.into_route(split))
    },
};

/// The annotation that says what becomes of connections while no backend has a ready
/// endpoint.
pub const ON_NO_ENDPOINTS: &str = "splitter.dev/on-no-endpoints";

/// What the agent reads of a TrafficSplit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficSplit {
    /// The root as it is written, if it is text.
    pub service: Option<String>,
    /// Value of the annotation [`ON_NO_ENDPOINTS`], as it is written.
    pub on_no_endpoints: Option<String>,
    /// Fields that no TrafficSplit has, and that may be ignored.
    pub unknown: Unknown,
    /// Fields of `metadata` that look like an annotation of ours and are none, for example
    /// `annotations[splitter.dev/on-no-endpoint]`.
    pub mistaken: Box<[String]>,
    /// What it asks for, or why that cannot be done.
    pub spec: Result<SplitSpec, RefusedSpec>,
}

/// What a TrafficSplit asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitSpec {
    /// Its backends, at least one, as they are written.
    pub backends: Vec<Backend>,
}

/// A backend of a TrafficSplit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its place in the list, from 0.
    pub index: usize,
    /// The Service as it is written, never empty.
    pub service: String,
    /// Its weight.
    pub weight: Weight,
}

/// A spec that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSpec {
    /// Everything that is wrong with it, in the order of its fields; at least one thing.
    pub refusals: Vec<Refusal>,
    /// The backends that have a name, as they are written; a weight that cannot be read counts
    /// as 1. For those who judge what else is wrong.
    pub backends: Vec<Backend>,
}

/// Why a TrafficSplit cannot be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The field that is the cause.
    pub field: String,
    /// One CamelCase word, for machines.
    pub reason: &'static str,
    /// What is the matter and what to do about it.
    pub message: String,
}

impl Refusal {
    pub(super) fn new(reason: &'static str, error: FieldError) -> Self {
        let FieldError { field, message } = error;
        Self {
            field,
            reason,
            message,
        }
    }
}

impl TrafficSplit {
    fn read(metadata: &Metadata<'_>, object: &Fields) -> Self {
        let (unknown, restrictions) = unknown::judge(object, &metadata.name.namespace);
        Self {
            service: object
                .get("spec")
                .and_then(|spec| spec.get("service"))
                .and_then(|service| service.as_str().map(str::to_owned)),
            on_no_endpoints: metadata.annotation(ON_NO_ENDPOINTS),
            mistaken: annotation::mistaken(metadata.fields, &[ON_NO_ENDPOINTS]),
            spec: SplitSpec::read(object, restrictions),
            unknown,
        }
    }
}

impl TrafficSplit {
    /// Its weights for a line, for example `web-v1:90,web-v2:10`; empty if they cannot be read.
    pub(crate) fn weights(&self) -> String {
        const MOST: usize = 4;
        let Ok(spec) = &self.spec else {
            return String::new();
        };
        let backends = spec.backends.iter().take(MOST);
        let mut weights: Vec<String> = backends
            .map(|backend| format!("{}:{}", inert(&backend.service), backend.weight))
            .collect();
        if spec.backends.len() > MOST {
            weights.push(format!("{} more", spec.backends.len() - MOST));
        }
        weights.join(",")
    }
}

impl SplitSpec {
    fn read(object: &Fields, restrictions: Vec<FieldError>) -> Result<Self, RefusedSpec> {
        let mut refusals = Vec::new();
        let backends = Self::read_all(object, &mut refusals);
        let restricted = |error| Refusal::new(reason::UNKNOWN_RESTRICTION, error);
        refusals.extend(restrictions.into_iter().map(restricted));
        if refusals.is_empty() {
            Ok(Self { backends })
        } else {
            Err(RefusedSpec { refusals, backends })
        }
    }

    /// The backends; says of every field what is wrong with it.
    fn read_all(object: &Fields, refusals: &mut Vec<Refusal>) -> Vec<Backend> {
        let mut refuse = |reason, error: FieldError| {
            refusals.push(Refusal::new(reason, error.below("spec")));
        };
        let spec = match field::present(object, "spec") {
            None => Err(FieldError::new(
                "is missing; write a service and its backends",
            )),
            Some(spec) => field::as_object(spec),
        };
        let spec = match spec {
            Ok(spec) => spec,
            Err(error) => {
                refuse(reason::INVALID_SPEC, error);
                return Vec::new();
            }
        };
        if let Err(error) = check_root(spec) {
            refuse(reason::INVALID_ROOT, error);
        }
        if let Err(error) = check_matches(spec) {
            refuse(reason::MATCHES_UNSUPPORTED, error.below("matches"));
        }
        let values = match field::list(spec, "backends") {
            Ok([]) => {
                let error = FieldError::new("is empty; write at least one backend");
                refuse(reason::INVALID_BACKEND, error.below("backends"));
                return Vec::new();
            }
            Ok(values) => values,
            Err(error) => {
                refuse(reason::INVALID_BACKEND, error);
                return Vec::new();
            }
        };
        let mut backends = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            backends.extend(Backend::read(index, value, |reason, error| {
                refuse(reason, error.at(index).below("backends"));
            }));
        }
        backends
    }
}

impl Backend {
    /// The backend, if it has a name; says what is wrong with it.
    fn read(
        index: usize,
        value: &Value,
        mut refuse: impl FnMut(&'static str, FieldError),
    ) -> Option<Self> {
        let fields = match field::as_object(value) {
            Ok(fields) => fields,
            Err(error) => {
                refuse(reason::INVALID_BACKEND, error);
                return None;
            }
        };
        let service = match field::text(fields, "service") {
            Ok(Some(service)) if !service.is_empty() => Some(service.to_owned()),
            Ok(_) => {
                let error = FieldError::new("is missing; write the name of a Service");
                refuse(reason::INVALID_BACKEND, error.below("service"));
                None
            }
            Err(error) => {
                refuse(reason::INVALID_BACKEND, error);
                None
            }
        };
        let weight = fields.get("weight").unwrap_or(&Value::Null);
        let weight = Weight::from_json(weight).unwrap_or_else(|error: WeightError| {
            let error = FieldError::new(error.to_string()).below("weight");
            refuse(reason::INVALID_WEIGHT, error);
            Weight::whole(1)
        });
        service.map(|service| Self {
            index,
            service,
            weight,
        })
    }
}

fn check_root(spec: &Fields) -> Result<(), FieldError> {
    match field::text(spec, "service")? {
        Some(_) => Ok(()),
        None => {
            Err(FieldError::new("is missing; write the name of the root Service").below("service"))
        }
    }
}

/// `matches` choose by HTTP headers. To apply the split without them would send
/// everybody where only some should go.
fn check_matches(spec: &Fields) -> Result<(), FieldError> {
    match field::present(spec, "matches") {
        None => Ok(()),
        Some(Value::Array(matches)) if matches.is_empty() => Ok(()),
        Some(matches) => Err(FieldError::new(format!(
            "{} chooses by HTTP request, and splitter splits connections; remove it",
            shown(matches)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::{Object, ObjectName, Timestamp, decode};
    use crate::route::RouteObject;

    fn route(value: Value) -> RouteObject {
        match decode(value) {
            Ok(Some(Object::Route(route))) => route,
            other => panic!("{other:?}"),
        }
    }

    fn split(value: Value) -> TrafficSplit {
        route(value).content_as::<TrafficSplit>().unwrap().clone()
    }

    fn refused(spec: &Value) -> RefusedSpec {
        split(json!({
            "apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
            "metadata": {"name": "web"}, "spec": spec,
        }))
        .spec
        .unwrap_err()
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let refused = refused(&json!({
            "service": 7, "matches": [{"kind": "HTTPRouteGroup"}],
            "backends": [
                {"service": "a", "weight": -1}, {"service": "b", "weight": 1}, "c",
                {"weight": 0.5}, {"service": "e"},
            ],
        }));
        let told: Vec<_> = refused
            .refusals
            .iter()
            .map(|refusal| (refusal.reason, refusal.field.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (reason::INVALID_ROOT, "spec.service"),
                (reason::MATCHES_UNSUPPORTED, "spec.matches"),
                (reason::INVALID_WEIGHT, "spec.backends[0].weight"),
                (reason::INVALID_BACKEND, "spec.backends[2]"),
                (reason::INVALID_BACKEND, "spec.backends[3].service"),
                (reason::INVALID_WEIGHT, "spec.backends[3].weight"),
                (reason::INVALID_WEIGHT, "spec.backends[4].weight"),
            ]
        );
        let named: Vec<_> = refused.backends.iter().map(|it| &*it.service).collect();
        assert_eq!(named, ["a", "b", "e"]);
    }

    #[test]
    fn every_version_is_read_alike() {
        for version in ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"] {
            let value = json!({
                "apiVersion": format!("split.smi-spec.io/{version}"), "kind": "TrafficSplit",
                "metadata": {
                    "name": "web", "namespace": "shop", "generation": 3,
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                    "annotations": {ON_NO_ENDPOINTS: "passthrough"},
                },
                "spec": {"service": "web", "matches": [], "backends": [
                    {"service": "web-1", "weight": "500m"}, {"service": "web-2", "weight": 1},
                ]},
            });
            let route = route(value.clone());
            assert_eq!(route.name, ObjectName::new("shop", "web"));
            assert_eq!(route.identity.generation, 3);
            assert_eq!(route.created, Timestamp::parse("2026-01-01T00:00:00Z"));
            let split = split(value);
            assert_eq!(split.service.as_deref(), Some("web"));
            assert_eq!(split.on_no_endpoints.as_deref(), Some("passthrough"));
            let weights: Vec<_> = split.spec.unwrap().backends.into_iter().collect();
            assert_eq!(weights[0].weight.nanos() * 2, weights[1].weight.nanos());
        }
    }

    #[test]
    fn weights_fit_a_line() {
        let weights = |spec: Value| {
            let value = json!({
                "apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
                "metadata": {"name": "web"}, "spec": spec,
            });
            split(value).weights()
        };
        let backends = |weights: &[&str]| -> Vec<Value> {
            let backends = weights.iter().enumerate();
            backends
                .map(|(index, weight)| json!({"service": format!("v{index}"), "weight": weight}))
                .collect()
        };
        let spec = |these: &[&str]| json!({"service": "web", "backends": backends(these)});
        assert_eq!(weights(spec(&["90", "500m"])), "v0:90,v1:0.5");
        let many = weights(spec(&["1", "2", "3", "4", "5", "6"]));
        assert_eq!(many, "v0:1,v1:2,v2:3,v3:4,2 more");
        assert_eq!(weights(spec(&["1", "most"])), "");
    }

    #[test]
    fn a_refusal_names_field_and_reason() {
        let good = json!([{"service": "a", "weight": 1}]);
        for (spec, field, reason) in [
            (json!(null), "spec", reason::INVALID_SPEC),
            (json!([]), "spec", reason::INVALID_SPEC),
            (
                json!({"backends": good}),
                "spec.service",
                reason::INVALID_ROOT,
            ),
            (
                json!({"service": {}, "backends": good}),
                "spec.service",
                reason::INVALID_ROOT,
            ),
            (
                json!({"service": "a", "backends": good, "matches": [{"kind": "HTTPRouteGroup"}]}),
                "spec.matches",
                reason::MATCHES_UNSUPPORTED,
            ),
            (
                json!({"service": "a"}),
                "spec.backends",
                reason::INVALID_BACKEND,
            ),
            (
                json!({"service": "a", "backends": null}),
                "spec.backends",
                reason::INVALID_BACKEND,
            ),
            (
                json!({"service": "a", "backends": {}}),
                "spec.backends",
                reason::INVALID_BACKEND,
            ),
            (
                json!({"service": "a", "backends": [null]}),
                "spec.backends[0]",
                reason::INVALID_BACKEND,
            ),
            (
                json!({"service": "a", "backends": [{"weight": 1}]}),
                "spec.backends[0].service",
                reason::INVALID_BACKEND,
            ),
            (
                json!({"service": "a", "backends": [{"service": "a"}]}),
                "spec.backends[0].weight",
                reason::INVALID_WEIGHT,
            ),
            (
                json!({"service": "a", "backends": [
                    {"service": "a", "weight": 1}, {"service": "b", "weight": -5}]}),
                "spec.backends[1].weight",
                reason::INVALID_WEIGHT,
            ),
        ] {
            let refused = refused(&spec);
            let [refusal] = &*refused.refusals else {
                panic!("{refused:?}");
            };
            assert_eq!(
                (refusal.field.as_str(), refusal.reason),
                (field, reason),
                "{spec}"
            );
            assert!(
                refusal.message.contains("; "),
                "no remedy: {}",
                refusal.message
            );
        }
    }
}
