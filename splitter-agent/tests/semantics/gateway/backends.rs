//! Which Services get what share.

use serde_json::{Value, json};
use splitter_agent::compile::Severity::{Refused, Warning};
use splitter_agent::plan::Decision;
use splitter_common::layout::{LeafState, Reason};

use super::{KINDS, backends, canary, faults, ninety_ten, outcome, parent, plan, route, shares};
use crate::fixtures::{VIP, compiled, service_of, slice_of, with, world, world_without};

fn with_backends(kind: &str, backends: Value) -> Value {
    let mut rule = json!({});
    rule["backendRefs"] = backends;
    canary(kind, json!([rule]))
}

/// Case: GATEWAY-WEIGHT
#[test]
fn a_weight_is_a_share_of_the_sum_and_1_where_there_is_none() {
    for (kind, _) in KINDS {
        for (one, other, expected) in [
            (json!(99), json!(1), [99, 1]),
            (json!(999), json!(1), [999, 1]),
            (json!(70), json!(30), [7, 3]),
            (json!(50), json!(50), [1, 1]),
            (json!(1.0), json!(3), [1, 3]),
            (json!(1_000_000), json!(1_000_000), [1, 1]),
            (json!(0), json!(1), [0, 1]),
            (json!(null), json!(null), [1, 1]),
            (json!(null), json!(3), [1, 3]),
        ] {
            let backends = json!([
                {"name": "web-1", "port": 80, "weight": one},
                {"group": "", "kind": "Service", "name": "web-2", "port": 80, "weight": other},
            ]);
            let outcome = outcome([with_backends(kind, backends)]);
            outcome.assert_accepted();
            let shares: Vec<u32> = shares(&outcome).into_iter().map(|it| it.1).collect();
            assert_eq!(shares, expected, "{kind}");
        }
        for weight in [
            json!(-1),
            json!(1_000_001),
            json!(0.5),
            json!("1"),
            json!("900m"),
            json!([]),
            json!(u64::MAX),
        ] {
            let backends = json!([
                {"name": "web-1", "port": 80},
                {"name": "web-2", "port": 80, "weight": weight},
            ]);
            let field = "spec.rules[0].backendRefs[1].weight";
            let outcome = outcome([with_backends(kind, backends)]);
            assert_eq!(faults(&outcome), [(Refused, "InvalidWeight", field)]);
        }
    }
}

/// Case: GATEWAY-BACKENDS-ZERO
#[test]
fn if_every_weight_is_0_connections_are_refused() {
    for (kind, _) in KINDS {
        let backends = backends(&[("web-1", 0), ("web-2", 0)]);
        let outcome = outcome([with_backends(kind, backends)]);
        let field = "spec.rules[0].backendRefs";
        assert_eq!(faults(&outcome), [(Warning, "AllWeightsZero", field)]);
        let refused = Decision::Refuse(Reason::AllWeightsZero);
        assert_eq!(outcome.decision(VIP), Some(refused));
    }
}

/// Case: GATEWAY-BACKEND-INVALID
#[test]
fn a_backend_that_cannot_be_read_refuses_the_route() {
    for (kind, _) in KINDS {
        for (backend, field) in [
            (json!(7), ""),
            (json!({"port": 80}), ".name"),
            (json!({"name": "", "port": 80}), ".name"),
            (json!({"name": 7, "port": 80}), ".name"),
            (json!({"name": "web-2"}), ".port"),
            (json!({"name": "web-2", "port": 0}), ".port"),
            (json!({"name": "web-2", "port": "http"}), ".port"),
            (json!({"name": "web-2", "port": 65536}), ".port"),
            (
                json!({"name": "web-2", "port": 80, "namespace": 7}),
                ".namespace",
            ),
            (json!({"name": "web-2", "port": 80, "kind": []}), ".kind"),
            (json!({"name": "web-2", "port": 80, "group": 1}), ".group"),
        ] {
            let backends = json!([{"name": "web-1", "port": 80}, backend]);
            let outcome = outcome([with_backends(kind, backends)]);
            let field = format!("spec.rules[0].backendRefs[1]{field}");
            assert_eq!(faults(&outcome), [(Refused, "InvalidBackend", &*field)]);
        }
        let outcome = outcome([with_backends(kind, json!("web-1"))]);
        let field = "spec.rules[0].backendRefs";
        assert_eq!(faults(&outcome), [(Refused, "InvalidBackend", field)]);
    }
}

/// Case: GATEWAY-BACKEND-PORT
#[test]
fn a_backend_has_a_port_of_its_own() {
    let other = service_of(
        "web-2",
        &json!({"ports": [{"name": "a", "port": 8080}, {"name": "b", "port": 80}]}),
    );
    let slice = slice_of(
        "web-2-0",
        "web-2",
        &json!({
            "ports": [{"name": "a", "port": 1000}, {"name": "b", "port": 2000}],
            "endpoints": [{"addresses": ["10.0.0.2"], "conditions": {"ready": true}}],
        }),
    );
    let mut objects = world();
    objects.retain(|object| {
        let name = object["metadata"]["name"].as_str().unwrap();
        !name.starts_with("web-2")
    });
    objects.extend([other, slice]);
    for (kind, _) in KINDS {
        let backends = json!([
            {"name": "web-1", "port": 80}, {"name": "web-2", "port": 8080},
        ]);
        let objects = objects.iter().cloned();
        let outcome = compiled(objects.chain([with_backends(kind, backends)]));
        outcome.assert_accepted();
        assert_eq!(shares(&outcome), [("web-1", 1), ("web-2", 1)]);
        assert_eq!(outcome.endpoints(VIP, 1), ["10.0.0.2:1000"]);
    }
}

/// Case: GATEWAY-LEAF-NAME
#[test]
fn leaves_of_one_service_are_told_apart_by_port_and_namespace() {
    for (kind, _) in KINDS {
        let backends = json!([
            {"name": "web-1", "port": 80, "weight": 1},
            {"name": "web-2", "port": 80, "weight": 2},
            {"name": "web-2", "port": 8080, "weight": 3},
            {"name": "web-1", "namespace": "bank", "port": 80, "weight": 4},
        ]);
        let outcome = outcome([with_backends(kind, backends)]);
        assert_eq!(
            shares(&outcome),
            [
                ("web-1", 1),
                ("web-2:80", 2),
                ("web-2:8080", 3),
                ("web-1.bank", 4),
            ]
        );
    }
}

/// Case: BACKEND-DUPLICATE
#[test]
fn a_backend_that_stands_there_twice_is_one_with_the_sum() {
    let backends = json!([
        {"name": "web-1", "port": 80, "weight": 1},
        {"name": "web-2", "port": 80, "weight": 1},
        {"name": "web-1", "namespace": "shop", "port": 80, "weight": 2},
    ]);
    let outcome = outcome([with_backends("TCPRoute", backends)]);
    let field = "spec.rules[0].backendRefs[2]";
    assert_eq!(faults(&outcome), [(Warning, "DuplicateBackend", field)]);
    assert_eq!(shares(&outcome), [("web-1", 3), ("web-2", 1)]);
}

/// Case: BACKENDS-TOO-MANY
#[test]
fn more_backends_than_a_split_can_have_are_refused() {
    let backends: Vec<Value> = (0..65)
        .map(|number| json!({"name": format!("web-{number}"), "port": 80}))
        .collect();
    let outcome = outcome([with_backends("HTTPRoute", json!(backends))]);
    let field = "spec.rules[0].backendRefs";
    assert_eq!(faults(&outcome), [(Refused, "TooManyBackends", field)]);
}

/// Case: GATEWAY-BACKEND-NAMESPACE
#[test]
fn a_backend_may_be_in_another_namespace() {
    let in_bank = |object: Value| with(object, &json!({"metadata": {"namespace": "bank"}}));
    let elsewhere = crate::fixtures::leaf("vault", "10.96.0.77", &["10.0.0.77"]).map(in_bank);
    for (kind, _) in KINDS {
        let backends = json!([
            {"name": "web-1", "port": 80, "weight": 9},
            {"name": "vault", "namespace": "bank", "port": 80},
        ]);
        let objects = elsewhere.iter().cloned();
        let outcome = outcome(objects.chain([with_backends(kind, backends)]));
        outcome.assert_accepted();
        assert_eq!(shares(&outcome), [("web-1", 9), ("vault.bank", 1)]);
        assert_eq!(outcome.endpoints(VIP, 1), ["10.0.0.77:8080"]);
    }
}

/// A leaf with a share that is refused.
#[track_caller]
fn assert_keeps_its_share(objects: Vec<Value>, state: LeafState, reason: &str, field: &str) {
    let outcome = compiled(objects);
    let field = format!("spec.rules[0].backendRefs[1]{field}");
    assert_eq!(faults(&outcome), [(Warning, reason, &*field)]);
    let shares: Vec<u32> = shares(&outcome).into_iter().map(|it| it.1).collect();
    assert_eq!(shares, [9, 1]);
    assert_eq!(outcome.states(VIP), [LeafState::Ready, state]);
    assert_eq!(outcome.endpoints(VIP, 1), [""; 0]);
}

/// Case: GATEWAY-BACKEND-MISSING
#[test]
fn a_backend_that_does_not_exist_keeps_its_share_refused() {
    for (kind, _) in KINDS {
        let mut objects = world_without("Service", "web-2");
        objects.push(ninety_ten(kind));
        assert_keeps_its_share(objects, LeafState::ServiceMissing, "LeafServiceMissing", "");
        let backends = json!([
            {"name": "web-1", "port": 80, "weight": 90},
            {"name": "web-2", "port": 81, "weight": 10},
        ]);
        let objects = world().into_iter().chain([with_backends(kind, backends)]);
        let (state, reason) = (LeafState::PortMissing, "LeafPortMissing");
        assert_keeps_its_share(objects.collect(), state, reason, "");
    }
}

/// Case: GATEWAY-BACKEND-NOT-READY
#[test]
fn a_backend_without_a_ready_endpoint_keeps_its_share_refused() {
    for (kind, _) in KINDS {
        let mut objects = world_without("EndpointSlice", "web-2-0");
        objects.push(ninety_ten(kind));
        assert_keeps_its_share(objects, LeafState::NoReadyEndpoints, "LeafNotReady", "");
        // With none at all, every connection is.
        let mut objects = world();
        objects.retain(|object| object["kind"] != "EndpointSlice");
        objects.push(ninety_ten(kind));
        let outcome = compiled(objects);
        let refused = Decision::Refuse(Reason::NoReadyEndpoints);
        assert_eq!(outcome.decision(VIP), Some(refused));
        let field = "spec.rules[0].backendRefs";
        assert_eq!(faults(&outcome), [(Warning, "NoReadyEndpoints", field)]);
    }
}

/// Case: GATEWAY-BACKEND-KIND
#[test]
fn a_backend_of_another_kind_or_of_no_possible_name_keeps_its_share_refused() {
    for (kind, _) in KINDS {
        for (fields, reason, field) in [
            (
                json!({"kind": "ServiceImport", "group": "multicluster.x-k8s.io"}),
                "InvalidBackendKind",
                ".kind",
            ),
            (json!({"kind": "Pod"}), "InvalidBackendKind", ".kind"),
            (
                json!({"group": "serving.knative.dev", "kind": "Service"}),
                "InvalidBackendKind",
                ".kind",
            ),
            (json!({"name": "Web_2"}), "InvalidBackendName", ".name"),
            (
                json!({"namespace": "Bank", "name": "web-2"}),
                "InvalidBackendName",
                ".name",
            ),
        ] {
            let backend = json!({"name": "web-2", "port": 80, "weight": 10});
            let backends =
                json!([{"name": "web-1", "port": 80, "weight": 90}, with(backend, &fields)]);
            let objects = world().into_iter().chain([with_backends(kind, backends)]);
            assert_keeps_its_share(objects.collect(), LeafState::ServiceMissing, reason, field);
        }
    }
}

#[test]
fn the_root_may_be_a_backend_of_itself() {
    let slice = crate::fixtures::slice("web", &["10.0.0.9"]);
    let backends = backends(&[("web", 1), ("web-1", 1)]);
    let object = route(
        "HTTPRoute",
        "canary",
        json!({"parentRefs": [parent()], "rules": [{"backendRefs": backends}]}),
    );
    let outcome = outcome([slice, object]);
    outcome.assert_accepted();
    assert_eq!(outcome.endpoints(VIP, 0), ["10.0.0.9:8080"]);
    assert!(plan(&outcome).is_some());
}
