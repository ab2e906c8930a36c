//! VirtualServices that are larger than any that people write.

use serde_json::{Value, json};
use splitter_agent::compile::Severity;

use crate::fixtures::compiled;

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
