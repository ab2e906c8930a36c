//! Whatever a route says, nothing breaks, and nothing that it does not name is touched.

use proptest::prelude::*;
use serde_json::{Value, json};
use splitter_agent::compile::Severity;

use super::{KINDS, parent, route};
use crate::fixtures::{canary, compiled, leaf, service, with, world};

/// Any JSON, most of it made of the words of the Gateway API.
fn anything() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        4 => proptest::sample::select(vec![
            "", "web", "web-1", "web-2", "shop", "bank", "Service", "Gateway", "core", "PathPrefix",
            "Exact", "/", "RequestRedirect", "RequestMirror", "10s", "0s", "http", "ignore",
            "gateway.networking.k8s.io",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let key = prop_oneof![
        9 => proptest::sample::select(vec![
            "parentRefs", "hostnames", "rules", "group", "kind", "name", "namespace", "port",
            "sectionName", "matches", "path", "type", "value", "headers", "queryParams", "method",
            "service", "filters", "requestMirror", "percent", "requestHeaderModifier", "backendRefs",
            "weight", "timeouts", "request", "retry", "attempts", "sessionPersistence",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        proptest::sample::select(vec![0, 1, 10, 80, 81, 65_535, 65_536, 1_000_000])
            .prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    scalar.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|fields| fields.into_iter().collect::<Value>()),
        ]
    })
}

/// A spec: anything at all, or one that is right up to some field.
fn spec() -> impl Strategy<Value = Value> {
    let places = vec![
        "/spec/parentRefs/0/namespace",
        "/spec/parentRefs/0/port",
        "/spec/parentRefs/0/sectionName",
        "/spec/parentRefs/1",
        "/spec/hostnames",
        "/spec/rules",
        "/spec/rules/0",
        "/spec/rules/0/matches",
        "/spec/rules/0/matches/0",
        "/spec/rules/0/filters",
        "/spec/rules/0/timeouts",
        "/spec/rules/0/backendRefs",
        "/spec/rules/0/backendRefs/1",
        "/spec/rules/0/backendRefs/1/name",
        "/spec/rules/0/backendRefs/1/port",
        "/spec/rules/0/backendRefs/1/weight",
        "/spec/rules/0/backendRefs/1/filters",
    ];
    let almost = (proptest::sample::select(places), anything()).prop_map(|(place, value)| {
        let mut object = json!({"spec": {
            "parentRefs": [parent(), null], "hostnames": [],
            "rules": [{
                "matches": [{}], "filters": [], "timeouts": null, "backendRefs": [
                    {"name": "web-1", "port": 80, "weight": 9},
                    {"name": "web-2", "port": 80, "weight": 1, "filters": []},
                ],
            }],
        }});
        for name in ["namespace", "port", "sectionName"] {
            object["spec"]["parentRefs"][0][name] = Value::Null;
        }
        *object.pointer_mut(place).expect("a place") = value;
        object["spec"].take()
    });
    prop_oneof![1 => anything(), 3 => almost]
}

proptest! {
    #[test]
    fn no_route_panics_or_touches_a_neighbour(
        kind in proptest::sample::select(KINDS.map(|(kind, _)| kind).to_vec()),
        spec in spec(),
        metadata in anything(),
    ) {
        // A split of another Service, which no route names.
        let neighbours = || {
            let leaf = leaf("far-1", "10.96.1.2", &["10.0.1.2"]);
            let split = with(
                canary(1, 1),
                &json!({
                    "metadata": {"name": "far"},
                    "spec": {"service": "far", "backends": [{"service": "far-1", "weight": 1}]},
                }),
            );
            leaf.into_iter().chain([service("far", "10.96.1.1"), split])
        };
        let mut object = route(kind, "fuzz", spec);
        if let Value::Object(fields) = metadata {
            object["metadata"]["annotations"] = Value::Object(fields);
        }
        let alone = compiled(world().into_iter().chain(neighbours()));
        let both = compiled(world().into_iter().chain(neighbours()).chain([object]));
        for (frontend, plan) in &alone.0.plan.frontends {
            prop_assert_eq!(both.0.plan.frontends.get(frontend), Some(plan));
        }
        for frontend in both.0.plan.frontends.keys() {
            let is_known = alone.0.plan.frontends.contains_key(frontend);
            prop_assert!(is_known || frontend.address.ip().to_string().starts_with("10.96.0."));
        }
        prop_assert_eq!(both.said_of("far"), alone.said_of("far"));
        for diagnostic in &both.0.diagnostics {
            let is_plain = !diagnostic.message.contains(char::is_control);
            prop_assert!(is_plain && diagnostic.message.len() < 2000, "{diagnostic}");
            let is_known = matches!(&*diagnostic.object.name.name, "fuzz" | "far");
            prop_assert!(is_known || diagnostic.severity < Severity::Warning);
        }
    }
}
