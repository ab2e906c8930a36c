//! Which endpoints a leaf has, and what happens without any.

use serde_json::{Value, json};
use splitter_agent::compile::Severity::Warning;
use splitter_agent::plan::Decision;
use splitter_common::layout::{LeafState, Reason};

use crate::fixtures::{
    Outcome, VIP, canary, compiled, slice, slice_of, with, world, world_with, world_without,
};

/// The world in which the endpoints of `web-2` are these.
fn second_leaf(endpoints: &Value) -> Vec<Value> {
    let content = json!({"ports": [{"port": 8080}], "endpoints": endpoints});
    world_with(slice_of("web-2-0", "web-2", &content))
}

fn endpoint(address: &str, conditions: &Value) -> Value {
    json!({"addresses": [address], "conditions": conditions})
}

/// The world in which nobody is ready.
fn nobody_ready(split: Value) -> Outcome {
    let mut objects = world_without("EndpointSlice", "web-1-0");
    objects.retain(|object| object["metadata"]["name"] != "web-2-0");
    compiled(objects.into_iter().chain([split]))
}

/// Case: LEAF-NOT-READY
#[test]
fn leaf_without_ready_endpoints_gives_its_share_to_the_others() {
    for endpoints in [
        json!(null),
        json!([]),
        json!([endpoint("10.0.0.2", &json!({"ready": false}))]),
        json!([endpoint(
            "10.0.0.2",
            &json!({"ready": false, "terminating": true})
        )]),
        json!([{"addresses": null}]),
        json!([{"addresses": ["0.0.0.0"]}, {"addresses": ["name.example.org"]}]),
    ] {
        let outcome = compiled(second_leaf(&endpoints).into_iter().chain([canary(9, 1)]));
        assert_eq!(
            outcome.shares(VIP),
            [("web-1", 1), ("web-2", 0)],
            "{endpoints}"
        );
        assert_eq!(
            outcome.states(VIP),
            [LeafState::Ready, LeafState::NoReadyEndpoints]
        );
        assert_eq!(
            outcome.said(),
            [(Warning, "LeafNotReady", "spec.backends[1]")]
        );
    }
    // It comes back by itself.
    let ready = json!([endpoint("10.0.0.2", &json!({"ready": true}))]);
    let outcome = compiled(second_leaf(&ready).into_iter().chain([canary(9, 1)]));
    assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)]);
    outcome.assert_accepted();
}

/// A canary at rest has weight 0 and no pods.
///
/// Case: WEIGHT-ZERO-ONE
#[test]
fn a_resting_canary_is_nothing_to_warn_of() {
    let objects = world_without("EndpointSlice", "web-2-0");
    let outcome = compiled(objects.into_iter().chain([canary(100, 0)]));
    assert_eq!(outcome.shares(VIP), [("web-1", 1), ("web-2", 0)]);
    outcome.assert_accepted();
}

/// Case: LEAVES-NOT-READY
#[test]
fn without_any_ready_endpoint_connections_are_refused() {
    let outcome = nobody_ready(canary(9, 1));
    let refused = Decision::Refuse(Reason::NoReadyEndpoints);
    assert_eq!(outcome.decision(VIP), Some(refused));
    assert_eq!(
        outcome.said(),
        [(Warning, "NoReadyEndpoints", "spec.backends")]
    );
}

/// Case: LEAVES-NOT-READY
#[test]
fn leaves_of_weight_zero_never_stand_in() {
    let objects = world_without("EndpointSlice", "web-1-0");
    let outcome = compiled(objects.into_iter().chain([canary(100, 0)]));
    let refused = Decision::Refuse(Reason::NoReadyEndpoints);
    assert_eq!(outcome.decision(VIP), Some(refused));
    assert_eq!(
        outcome.states(VIP),
        [LeafState::NoReadyEndpoints, LeafState::WeightZero]
    );
    assert!(
        outcome
            .at(VIP)
            .unwrap()
            .leaves
            .iter()
            .all(|leaf| leaf.share == 0)
    );
}

/// Case: ANNOTATION-PASSTHROUGH, ANNOTATION-INVALID
#[test]
fn the_annotation_lets_connections_through_instead() {
    let annotated = |value: Value| {
        let annotations = json!({"splitter.dev/on-no-endpoints": value});
        with(
            canary(9, 1),
            &json!({"metadata": {"annotations": annotations}}),
        )
    };
    let passed = Decision::PassThrough(Reason::NoReadyEndpoints);
    let refused = Decision::Refuse(Reason::NoReadyEndpoints);
    let no_endpoints = (Warning, "NoReadyEndpoints", "spec.backends");

    let outcome = nobody_ready(annotated(json!("passthrough")));
    assert_eq!(outcome.decision(VIP), Some(passed));
    assert_eq!(outcome.said(), [no_endpoints]);

    let outcome = nobody_ready(annotated(json!("refuse")));
    assert_eq!(outcome.decision(VIP), Some(refused));
    assert_eq!(outcome.said(), [no_endpoints]);

    for unknown in [json!("Passthrough"), json!(""), json!(true)] {
        let outcome = nobody_ready(annotated(unknown));
        assert_eq!(outcome.decision(VIP), Some(refused));
        let field = "metadata.annotations[splitter.dev/on-no-endpoints]";
        assert_eq!(
            outcome.said(),
            [(Warning, "InvalidAnnotation", field), no_endpoints]
        );
    }

    // Whatever it says, with endpoints it changes nothing.
    let outcome = compiled(world().into_iter().chain([annotated(json!("passthrough"))]));
    assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)]);
    outcome.assert_accepted();
}

/// Case: ENDPOINT-READY
#[test]
fn only_ready_endpoints_are_picked_while_there_are_any() {
    let endpoints = json!([
        endpoint("10.0.0.2", &json!({"ready": true})),
        endpoint("10.0.0.3", &json!({"ready": false})),
        endpoint("10.0.0.4", &json!({"ready": false, "serving": true, "terminating": true})),
        endpoint("10.0.0.5", &json!({"ready": null})),
        {"addresses": ["10.0.0.6"]},
    ]);
    let outcome = compiled(second_leaf(&endpoints).into_iter().chain([canary(9, 1)]));
    assert_eq!(
        outcome.endpoints(VIP, 1),
        ["10.0.0.2:8080", "10.0.0.5:8080", "10.0.0.6:8080"],
        "unknown readiness is readiness"
    );
    outcome.assert_accepted();
}

/// Case: ENDPOINT-TERMINATING
#[test]
fn terminating_endpoints_that_serve_are_better_than_none() {
    let endpoints = json!([
        endpoint(
            "10.0.0.2",
            &json!({"ready": false, "serving": true, "terminating": true})
        ),
        endpoint(
            "10.0.0.3",
            &json!({"ready": false, "serving": false, "terminating": true})
        ),
        endpoint(
            "10.0.0.4",
            &json!({"ready": false, "serving": true, "terminating": false})
        ),
    ]);
    let outcome = compiled(second_leaf(&endpoints).into_iter().chain([canary(9, 1)]));
    assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)]);
    assert_eq!(
        outcome.states(VIP),
        [LeafState::Ready, LeafState::Terminating]
    );
    assert_eq!(outcome.endpoints(VIP, 1), ["10.0.0.2:8080"]);
}

/// A pod that moves between slices is in both for a moment.
///
/// Case: ENDPOINT-DUPLICATE
#[test]
fn endpoints_are_sorted_and_each_is_there_once() {
    let again = slice_of(
        "web-2-1",
        "web-2",
        &json!({"ports": [{"port": 8080}], "endpoints": [
            endpoint("10.0.0.3", &json!({"ready": false})),
            endpoint("10.0.0.2", &json!({"ready": true})),
            endpoint("10.0.0.1", &json!({"ready": true})),
        ]}),
    );
    let objects = world_with(slice("web-2", &["10.0.0.30", "10.0.0.3", "10.0.0.2"]));
    let outcome = compiled(objects.into_iter().chain([again, canary(9, 1)]));
    assert_eq!(
        outcome.endpoints(VIP, 1),
        [
            "10.0.0.1:8080",
            "10.0.0.2:8080",
            "10.0.0.3:8080",
            "10.0.0.30:8080"
        ]
    );
}

/// Slices of other namespaces and of nobody are not a leaf's.
///
/// Case: SLICE-OWNER
#[test]
fn slices_belong_to_the_service_that_their_label_names() {
    let elsewhere = json!({"metadata": {"namespace": "bank"}});
    let objects = [
        with(slice("web-2", &["10.0.0.66"]), &elsewhere),
        with(
            slice_of(
                "loose",
                "x",
                &json!({"ports": [{"port": 8080}],
                "endpoints": [{"addresses": ["10.0.0.67"]}]}),
            ),
            &json!({"metadata": {"labels": null}}),
        ),
        canary(9, 1),
    ];
    let outcome = compiled(world().into_iter().chain(objects));
    assert_eq!(outcome.endpoints(VIP, 1), ["10.0.0.2:8080"]);
}
