//! VirtualServices that are larger than any that people write.

use serde_json::{Value, json};
use splitter_agent::compile::Severity;

use crate::fixtures::{NAMESPACE, compiled};

fn virtual_service(hosts: usize, rules: usize) -> Value {
    let hosts: Vec<String> = (0..hosts).map(|number| format!("web-{number}")).collect();
    let rule = |number: usize| {
        json!({
            "match": [{"port": 1 + number % 65_535}],
            "route": [{"destination": {"host": "web"}}],
        })
    };
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "large", "namespace": "shop"},
        "spec": {"hosts": hosts, "tcp": (0..rules).map(rule).collect::<Vec<_>>()},
    })
}

/// Case: ISTIO-TOO-LARGE
#[test]
fn a_virtual_service_larger_than_any_is_refused_before_it_costs_anything() {
    for (hosts, rules, field) in [
        (50_000, 1, "spec.hosts"),
        (1, 30_000, "spec"),
        (200, 200, "spec"),
    ] {
        let outcome = compiled([virtual_service(hosts, rules)]);
        let told: Vec<_> = outcome
            .0
            .diagnostics
            .iter()
            .map(|it| (it.severity, it.reason, it.field.as_str()))
            .collect();
        assert_eq!(told, [(Severity::Refused, "InvalidSpec", field)]);
        assert!(outcome.0.plan.frontends.is_empty());
    }
}

/// What costs the square of its size would take minutes here.
///
/// Case: ISTIO-TOO-LARGE
#[test]
fn destinations_and_subsets_by_the_ten_thousand_are_gone_through_once() {
    const MANY: usize = 20_000;
    let object = |kind: &str, spec: &Value| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": kind,
            "metadata": {"name": "large", "namespace": NAMESPACE}, "spec": spec,
        })
    };
    let to =
        |subset: String| json!({"destination": {"host": "web", "subset": subset}, "weight": 1});
    let one_rule: Vec<Value> = (0..MANY).map(|number| to(format!("v{number}"))).collect();
    let by_request = json!([{"headers": {"user": {"exact": "x"}}}]);
    let same: Vec<Value> = (0..125).map(|number| to(format!("v{number}"))).collect();
    let mut rules: Vec<Value> = (0..200)
        .map(|_| json!({"match": by_request, "route": same}))
        .collect();
    rules.push(json!({"route": same}));
    for http in [json!([{"route": one_rule}]), json!(rules)] {
        let spec = json!({"hosts": ["web"], "http": http});
        let outcome = compiled([object("VirtualService", &spec)]);
        let told = &outcome.0.diagnostics;
        assert!(
            told.iter().any(|it| it.reason == "TooManyBackends"),
            "{told:?}"
        );
    }

    let subset = |number: usize| json!({"name": format!("v{}", number % (MANY / 2))});
    let subsets: Vec<Value> = (0..MANY).map(subset).collect();
    let rule = object(
        "DestinationRule",
        &json!({"host": "web", "subsets": subsets}),
    );
    let route: Vec<Value> = (0..64).map(|number| to(format!("v{number}"))).collect();
    let spec = json!({"hosts": ["web"], "http": [{"route": route}]});
    let outcome = compiled([rule, object("VirtualService", &spec)]);
    let again = outcome.0.diagnostics.iter();
    let again = again.filter(|it| it.reason == "RuleNotUsed").count();
    assert!(again > 0, "subsets of one name are told of");
}
