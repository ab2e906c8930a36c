//! Routes of the Gateway API that have Services as parents.

mod backends;
mod conflicts;
mod fuzz;
mod parents;
mod rules;
mod udp;

use serde_json::{Value, json};
use splitter_agent::compile::Severity;
use splitter_agent::plan::FrontendPlan;

use crate::fixtures::{Outcome, compiled, world};

/// The kinds, with the version that is read best, from the one that comes first.
const KINDS: [(&str, &str); 4] = [
    ("GRPCRoute", "v1"),
    ("HTTPRoute", "v1"),
    ("TLSRoute", "v1"),
    ("TCPRoute", "v1"),
];

/// A route of the namespace `shop`.
fn route(kind: &str, name: &str, spec: Value) -> Value {
    let (_, version) = KINDS.iter().find(|(it, _)| *it == kind).expect("a kind");
    let mut route = json!({
        "apiVersion": format!("gateway.networking.k8s.io/{version}"), "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "generation": 1},
    });
    route["spec"] = spec;
    route
}

/// The root of most tests as a parent.
fn parent() -> Value {
    json!({"group": "", "kind": "Service", "name": "web"})
}

/// Backends of these Services, at port 80.
fn backends(weights: &[(&str, u32)]) -> Value {
    let backends = weights
        .iter()
        .map(|(name, weight)| json!({"name": name, "port": 80, "weight": weight}));
    backends.collect()
}

/// A route of these rules, for the root of most tests.
fn canary(kind: &str, rules: Value) -> Value {
    let mut spec = json!({"parentRefs": [parent()]});
    spec["rules"] = rules;
    route(kind, "canary", spec)
}

/// The route that splits 90 to 10.
fn ninety_ten(kind: &str) -> Value {
    let backends = backends(&[("web-1", 90), ("web-2", 10)]);
    canary(kind, json!([{"backendRefs": backends}]))
}

/// What the usual world and these objects come to.
fn outcome(objects: impl IntoIterator<Item = Value>) -> Outcome {
    compiled(world().into_iter().chain(objects))
}

/// The shares of the leaves, those that are refused among them.
fn shares(outcome: &Outcome) -> Vec<(&str, u32)> {
    outcome.shares(crate::fixtures::VIP)
}

/// Severity, reason and field of everything that is said of the route, but that it is accepted.
fn faults(outcome: &Outcome) -> Vec<(Severity, &'static str, &str)> {
    let said = outcome.said().into_iter();
    said.filter(|(severity, ..)| *severity != Severity::Accepted)
        .collect()
}

/// What the maps have for the root's port 80, if anything.
fn plan(outcome: &Outcome) -> Option<&FrontendPlan> {
    outcome.at(crate::fixtures::VIP)
}
