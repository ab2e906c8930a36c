//! Weights and backends.

use serde_json::{Value, json};
use splitter_agent::compile::Severity::{Refused, Warning};
use splitter_agent::plan::Decision;
use splitter_common::layout::{LeafState, Reason};

use crate::fixtures::{VIP, canary, compiled, compiled_world, split, with, world};

/// Case: WEIGHT-FORMS
#[test]
fn every_version_and_form_of_weight_gives_the_same_split() {
    for version in ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"] {
        for (first, second) in [
            (json!(90), json!(10)),
            (json!(90.0), json!(10.0)),
            (json!("90"), json!("10")),
            (json!("900m"), json!("100m")),
            (json!("9e1"), json!(10)),
            (json!("0.9"), json!("100m")),
            (json!("9k"), json!("1k")),
            (json!("9Ki"), json!(1024)),
        ] {
            let api_version = format!("split.smi-spec.io/{version}");
            let split = with(canary(first, second), &json!({"apiVersion": api_version}));
            let outcome = compiled_world(split);
            assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)]);
            outcome.assert_accepted();
        }
    }
}

/// Case: WEIGHT-FORMS
#[test]
fn quantities_of_different_units_keep_their_ratio() {
    let outcome = compiled_world(canary("1", "500m"));
    assert_eq!(outcome.shares(VIP), [("web-1", 2), ("web-2", 1)]);
    let weights: Vec<u64> = outcome
        .at(VIP)
        .unwrap()
        .leaves
        .iter()
        .map(|l| l.weight)
        .collect();
    assert_eq!(weights, [10, 5], "for people: tenths");
}

/// Case: OBJECT-ISOLATED
#[test]
fn a_bad_split_does_not_hide_a_good_one() {
    let bad = split("bad", "web-1", &[("web-2", json!("many"))]);
    let outcome = compiled(world().into_iter().chain([bad, canary(1, 1)]));
    assert_eq!(outcome.shares(VIP), [("web-1", 1), ("web-2", 1)]);
    outcome.assert_accepted();
    assert_eq!(
        outcome.said_of("bad"),
        [(Refused, "InvalidWeight", "spec.backends[0].weight")]
    );
}

/// Case: WEIGHT-RELATIVE
#[test]
fn weights_are_relative() {
    for (first, second) in [
        (3, 1),
        (75, 25),
        (300, 100),
        (3_000_000_000_u64, 1_000_000_000),
    ] {
        let outcome = compiled_world(canary(first, second));
        assert_eq!(outcome.shares(VIP), [("web-1", 3), ("web-2", 1)]);
        outcome.assert_accepted();
    }
}

/// Case: BACKEND-DUPLICATE
#[test]
fn weights_of_a_repeated_backend_are_added_up() {
    let backends = [
        ("web-1", json!(30)),
        ("web-2", json!(20)),
        ("web-1.shop.svc.cluster.local", json!(50)),
    ];
    let outcome = compiled_world(split("canary", "web", &backends));
    assert_eq!(outcome.shares(VIP), [("web-1", 4), ("web-2", 1)]);
    assert_eq!(
        outcome.said(),
        [(Warning, "DuplicateBackend", "spec.backends[2].service")]
    );
}

/// Case: WEIGHT-ZERO-ONE
#[test]
fn weight_zero_is_never_picked_and_is_nothing_to_warn_of() {
    let outcome = compiled_world(canary(100, 0));
    assert_eq!(outcome.shares(VIP), [("web-1", 1), ("web-2", 0)]);
    assert_eq!(
        outcome.states(VIP),
        [LeafState::Ready, LeafState::WeightZero]
    );
    outcome.assert_accepted();
}

/// Case: WEIGHT-ZERO-ALL
#[test]
fn all_weights_zero_refuses_connections() {
    let outcome = compiled_world(canary(0, "0m"));
    let refused = Decision::Refuse(Reason::AllWeightsZero);
    assert_eq!(outcome.decision(VIP), Some(refused));
    assert_eq!(
        outcome.said(),
        [(Warning, "AllWeightsZero", "spec.backends")]
    );
}

/// Case: WEIGHT-INVALID
#[test]
fn a_weight_that_is_none_refuses_the_split() {
    for weight in [
        json!(-5),
        json!("-5"),
        json!(0.5),
        json!("half"),
        json!(""),
        json!(true),
        json!(null),
        json!([]),
        json!(1e40),
        json!("1e40"),
        json!("0.1n"),
    ] {
        let outcome = compiled_world(canary(100, weight));
        outcome.assert_refused("InvalidWeight", "spec.backends[1].weight");
    }
    assert_eq!(
        compiled_world(canary(1, -5)).message(),
        "weight -5 is below 0; use a whole number of 0 or more"
    );
}

/// Case: WEIGHT-MISSING
#[test]
fn a_weight_left_out_refuses_the_split() {
    let spec = json!({"spec": {"backends": [{"service": "web-1"}]}});
    let outcome = compiled_world(with(canary(1, 1), &spec));
    outcome.assert_refused("InvalidWeight", "spec.backends[0].weight");
}

/// Weights that cannot be shown exactly together are split all the same: every share but 0 gets
/// connections.
///
/// Case: WEIGHT-FAR-APART
#[test]
fn weights_far_apart_are_rounded() {
    let outcome = compiled_world(canary(i64::MAX, "1n"));
    outcome.assert_accepted();
    let split = outcome.at(VIP).unwrap();
    assert_eq!(split.decision, Decision::Split);
    let shown: Vec<u64> = split.leaves.iter().map(|leaf| leaf.weight).collect();
    assert_eq!(shown, [9_223_372_036_854_775_807, 1]);
    assert_eq!(split.leaves[1].share, 1);
}

/// What looks like an annotation of ours and is none is told.
///
/// Case: ANNOTATION-UNKNOWN
#[test]
fn mistyped_annotations_are_told_and_change_nothing() {
    for (field, key) in [
        ("annotations", "splitter.dev/on-no-endpoint"),
        ("annotations", "spliter.dev/on-no-endpoints"),
        ("annotations", "on-no-endpoints"),
        ("labels", "splitter.dev/on-no-endpoints"),
    ] {
        let outcome = compiled_world(with(
            canary(1, 1),
            &json!({"metadata": {field: {key: "passthrough"}}}),
        ));
        assert_eq!(outcome.decision(VIP), Some(Decision::Split));
        let path = format!("metadata.{field}[{key}]");
        assert_eq!(
            outcome.said(),
            [(Warning, "UnknownAnnotation", path.as_str())]
        );
        assert!(outcome.message().contains("splitter.dev/on-no-endpoints"));
    }
}

/// Case: BACKENDS-MISSING
#[test]
fn no_backends_refuse_the_split() {
    for backends in [json!([]), json!(null), json!({}), json!("web-1")] {
        let outcome = compiled_world(with(canary(1, 1), &json!({"spec": {"backends": backends}})));
        outcome.assert_refused("InvalidBackend", "spec.backends");
    }
    let outcome = compiled_world(with(
        canary(1, 1),
        &json!({"spec": {"backends": [{"weight": 1}]}}),
    ));
    outcome.assert_refused("InvalidBackend", "spec.backends[0].service");
}

/// Case: SMI-MATCHES
#[test]
fn matches_refuse_the_split_and_empty_ones_do_not() {
    let matches =
        |value: Value| compiled_world(with(canary(1, 1), &json!({"spec": {"matches": value}})));
    let group = json!([{"kind": "HTTPRouteGroup", "name": "beta-users"}]);
    matches(group).assert_refused("MatchesUnsupported", "spec.matches");
    matches(json!([])).assert_accepted();
    matches(json!(null)).assert_accepted();
}

/// More backends than a split can have.
///
/// Case: BACKENDS-TOO-MANY
#[test]
fn too_many_backends_refuse_the_split() {
    let names: Vec<String> = (0..65).map(|index| format!("web-{index}")).collect();
    let backends: Vec<(&str, Value)> = names.iter().map(|name| (&**name, json!(1))).collect();
    let outcome = compiled_world(split("canary", "web", &backends));
    outcome.assert_refused("TooManyBackends", "spec.backends");
    assert!(outcome.message().contains("65") && outcome.message().contains("64"));

    // What counts are leaves, not lines.
    let repeated = [&backends[..64], &backends[..1]].concat();
    let outcome = compiled_world(split("canary", "web", &repeated));
    assert_eq!(outcome.decision(VIP), Some(Decision::Split));
}

/// However often something is wrong with an object, its report stays short.
///
/// Case: REPORT-SHORT
#[test]
fn what_is_wrong_many_times_is_told_a_few_times_and_counted() {
    let backends: Vec<(&str, Value)> = (0..40_000)
        .map(|index| (["web-1", "web-2"][index % 2], json!(1)))
        .collect();
    let outcome = compiled_world(split("canary", "web", &backends));
    assert_eq!(outcome.decision(VIP), Some(Decision::Split));
    let said = outcome.said();
    assert_eq!(said.len(), 10, "{said:?}");
    assert!(said.iter().all(|said| said.1 == "DuplicateBackend"));
    let counted = outcome.0.diagnostics.iter();
    let counted: Vec<_> = counted
        .filter(|diagnostic| diagnostic.message.contains("39988 more like it"))
        .collect();
    assert_eq!(counted.len(), 1);
}
