//! Fields that no TrafficSplit has.

use serde_json::{Value, json};
use splitter_agent::compile::Severity::{Refused, Warning};

use crate::fixtures::{VIP, canary, compiled_world, split, with};

fn with_spec(fields: &Value) -> Value {
    with(canary(9, 1), &json!({ "spec": fields }))
}

fn with_backend(field: &str, value: Value) -> Value {
    let mut split = canary(9, 1);
    split["spec"]["backends"][1][field] = value;
    split
}

/// A field that changes nothing is ignored, and its author is told.
///
/// Case: SMI-FIELD-UNKNOWN
#[test]
fn unknown_fields_are_named_and_the_split_is_programmed() {
    for (split, field) in [
        (
            with_spec(&json!({"stickiness": "cookie"})),
            "spec.stickiness",
        ),
        (
            with_spec(&json!({"mirror": {"service": "x"}})),
            "spec.mirror",
        ),
        (
            with_backend("labels", json!({"a": "b"})),
            "spec.backends[1].labels",
        ),
        (
            with_backend("namespace", json!("shop")),
            "spec.backends[1].namespace",
        ),
        (with_backend("Weight", json!(7)), "spec.backends[1].Weight"),
        (
            with(canary(9, 1), &json!({"annotations": {"a": "b"}})),
            "annotations",
        ),
        (with(canary(9, 1), &json!({"matches": []})), "matches"),
    ] {
        let outcome = compiled_world(split);
        assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)]);
        assert_eq!(outcome.said(), [(Warning, "UnknownField", field)]);
    }
}

/// Without such a field, a split for some would apply to everyone.
///
/// Case: SMI-FIELD-RESTRICTION
#[test]
fn a_field_that_would_restrict_the_split_refuses_it() {
    for (split, field) in [
        (
            with_spec(&json!({"match": [{"name": "beta"}]})),
            "spec.match",
        ),
        (
            with_spec(&json!({"headers": {"user": "me"}})),
            "spec.headers",
        ),
        (
            with_spec(&json!({"clientSelector": {"app": "a"}})),
            "spec.clientSelector",
        ),
        (with_spec(&json!({"port": 80})), "spec.port"),
        (with_spec(&json!({"namespace": "bank"})), "spec.namespace"),
        (
            with_spec(&json!({"http": [{"match": [{"uri": "/"}]}]})),
            "spec.http[0].match",
        ),
        (
            with_backend(
                "matches",
                json!([{"kind": "HTTPRouteGroup", "name": "beta"}]),
            ),
            "spec.backends[1].matches",
        ),
        (
            with_backend("namespace", json!("bank")),
            "spec.backends[1].namespace",
        ),
        (
            with_backend("subset", json!("v2")),
            "spec.backends[1].subset",
        ),
        (
            with_spec(&json!({"namespaceSelector": {"matchLabels": {"team": "a"}}})),
            "spec.namespaceSelector",
        ),
        (
            with_spec(&json!({"destinationPort": 80})),
            "spec.destinationPort",
        ),
        (with_spec(&json!({"portName": "http"})), "spec.portName"),
        (
            with_backend("serviceAccount", json!("a")),
            "spec.backends[1].serviceAccount",
        ),
        (
            with(
                canary(9, 1),
                &json!({"matches": [{"kind": "HTTPRouteGroup"}]}),
            ),
            "matches",
        ),
        (
            with(canary(9, 1), &json!({"sourceNamespace": "shop"})),
            "sourceNamespace",
        ),
    ] {
        compiled_world(split).assert_refused("UnknownRestriction", field);
    }
}

/// Two backends that differ in a field that is not known are not one backend written twice.
///
/// Case: SMI-FIELD-RESTRICTION
#[test]
fn backends_of_other_namespaces_are_not_added_up() {
    let mut colours = split(
        "canary",
        "web",
        &[("web-1", json!(90)), ("web-1", json!(10))],
    );
    colours["spec"]["backends"][0]["namespace"] = json!("blue");
    colours["spec"]["backends"][1]["namespace"] = json!("green");
    let outcome = compiled_world(colours);
    let refused = |field| (Refused, "UnknownRestriction", field);
    assert_eq!(
        outcome.said(),
        [
            refused("spec.backends[0].namespace"),
            refused("spec.backends[1].namespace"),
        ]
    );
}

/// What chooses nothing restricts nothing.
///
/// Case: SMI-FIELD-EMPTY
#[test]
fn empty_restrictions_are_warned_of_only() {
    for split in [
        with_spec(&json!({"match": []})),
        with_spec(&json!({"match": {}})),
        with_backend("namespace", json!("")),
    ] {
        let outcome = compiled_world(split);
        assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)]);
        let reasons: Vec<_> = outcome.said().iter().map(|said| said.1).collect();
        assert_eq!(reasons, ["UnknownField"]);
    }
    compiled_world(with_spec(&json!({"match": null}))).assert_accepted();
}

/// However many there are, the report stays short.
///
/// Case: SMI-FIELD-UNKNOWN, REPORT-SHORT
#[test]
fn many_unknown_fields_are_counted() {
    let mut many = canary(9, 1);
    for number in 0..1000 {
        many["spec"][format!("field-{number:03}")] = json!(number);
    }
    let outcome = compiled_world(many);
    assert_eq!(outcome.said().len(), 5);
    let last = outcome.0.diagnostics.last().unwrap();
    assert!(last.message.contains("995 more"), "{}", last.message);
}

/// A tool that leaves out zeros writes no weight where it means 0.
///
/// Case: WEIGHT-MISSING
#[test]
fn a_weight_that_is_left_out_names_the_tools_that_do_so() {
    let mut omitted = canary(100, 0);
    omitted["spec"]["backends"][1]
        .as_object_mut()
        .unwrap()
        .remove("weight");
    for split in [omitted, with_backend("weight", json!(null))] {
        let outcome = compiled_world(split);
        outcome.assert_refused("InvalidWeight", "spec.backends[1].weight");
        let message = outcome.message();
        for part in ["omitempty", "write weight: 0", "did not exist"] {
            assert!(message.contains(part), "{message}");
        }
    }
}

/// Without a spec there is no root to leave a record for.
///
/// Case: SMI-SPEC-INVALID
#[test]
fn a_spec_that_is_not_an_object_refuses_the_split() {
    for spec in [json!(null), json!(7), json!("web"), json!([])] {
        let mut bare = canary(9, 1);
        bare["spec"] = spec;
        let outcome = compiled_world(bare);
        assert_eq!(outcome.said(), [(Refused, "InvalidSpec", "spec")]);
        assert!(outcome.0.plan.frontends.is_empty());
    }
}
