//! Several objects that ask for the same thing.

use serde_json::{Value, json};
use splitter_agent::compile::Severity::{Accepted, Refused, Warning};
use splitter_agent::plan::Decision;
use splitter_common::layout::Reason;

use crate::fixtures::{VIP, compiled, service, split, with, world};

fn at(created: impl Into<Value>, split: Value) -> Value {
    with(
        split,
        &json!({"metadata": {"creationTimestamp": created.into()}}),
    )
}

fn to(name: &str, leaf: &str) -> Value {
    split(name, "web", &[(leaf, json!(1))])
}

#[track_caller]
fn assert_winner(first: Value, second: Value, winner: &str, loser: &str) {
    for objects in [[first.clone(), second.clone()], [second, first]] {
        let outcome = compiled(world().into_iter().chain(objects));
        assert_eq!(outcome.at(VIP).unwrap().origin.name, winner);
        assert_eq!(outcome.decision(VIP), Some(Decision::Split));
        assert_eq!(outcome.said_of(winner), [(Accepted, "Accepted", "")]);
        assert_eq!(
            outcome.said_of(loser),
            [(Refused, "RootTaken", "spec.service")]
        );
        let said = outcome
            .0
            .diagnostics
            .iter()
            .find(|said| said.object.name.name == loser);
        assert!(
            said.unwrap()
                .message
                .contains(&format!("TrafficSplit shop/{winner}"))
        );
    }
}

/// Case: CONFLICT-OLDER
#[test]
fn the_older_split_wins_the_root() {
    assert_winner(
        at("2026-01-02T00:00:00Z", to("a", "web-1")),
        at("2026-01-01T00:00:00Z", to("b", "web-2")),
        "b",
        "a",
    );
    // Compared as moments, not as text.
    assert_winner(
        at("2026-01-02T00:30:00+02:00", to("b", "web-1")),
        at("2026-01-01T23:00:00Z", to("a", "web-2")),
        "b",
        "a",
    );
}

/// Case: CONFLICT-SAME-AGE
#[test]
fn at_the_same_age_the_name_decides() {
    let same = "2026-01-01T00:00:00Z";
    assert_winner(
        at(same, to("a", "web-1")),
        at(same, to("b", "web-2")),
        "a",
        "b",
    );
    assert_winner(to("a", "web-1"), to("b", "web-2"), "a", "b");
}

/// Only a manifest can lack a creation time.
///
/// Case: CONFLICT-UNKNOWN-AGE
#[test]
fn a_split_of_unknown_age_loses() {
    let known = at("2026-01-01T00:00:00Z", to("b", "web-2"));
    assert_winner(to("a", "web-1"), known.clone(), "b", "a");
    assert_winner(at("yesterday", to("a", "web-1")), known, "b", "a");
}

/// Case: CONFLICT-NAME-FORMS
#[test]
fn forms_of_one_name_are_one_root() {
    let long = split("b", "web.shop.svc.cluster.local", &[("web-2", json!(1))]);
    assert_winner(to("a", "web-1"), long, "a", "b");
}

/// Case: CONFLICT-REFUSED
#[test]
fn a_refused_split_does_not_take_the_root_from_a_younger_one() {
    let refused = split("old", "web", &[("web-1", json!(-1))]);
    let objects = [
        at("2020-01-01T00:00:00Z", refused),
        at("2026-01-01T00:00:00Z", to("young", "web-2")),
    ];
    let outcome = compiled(world().into_iter().chain(objects));
    assert_eq!(outcome.shares(VIP), [("web-2", 1)]);
    assert_eq!(outcome.said_of("young"), [(Accepted, "Accepted", "")]);
    let field = "spec.backends[0].weight";
    assert_eq!(outcome.said_of("old"), [(Refused, "InvalidWeight", field)]);
}

/// Two roots of one address: the first keeps it, and the other is told.
///
/// Case: CONFLICT-ADDRESS
#[test]
fn one_address_of_two_roots_goes_to_the_first() {
    let objects = [
        service("twin", "10.96.0.1"),
        split("a", "web", &[("web-1", json!(1))]),
        split("b", "twin", &[("web-2", json!(1))]),
    ];
    let outcome = compiled(world().into_iter().chain(objects));
    assert_eq!(outcome.shares(VIP), [("web-1", 1)]);
    assert_eq!(outcome.said_of("a"), [(Accepted, "Accepted", "")]);
    assert_eq!(
        outcome.said_of("b"),
        [(Warning, "FrontendTaken", "spec.service")]
    );
}

/// Two roots of one address: what was refused does not stand in the way.
///
/// Case: CONFLICT-ADDRESS, CONFLICT-REFUSED
#[test]
fn one_address_of_two_roots_never_goes_to_a_refused_split() {
    let objects = [
        service("twin", "10.96.0.1"),
        split("a", "web", &[("web-1", json!(-1))]),
        split("b", "twin", &[("web-2", json!(1))]),
    ];
    let outcome = compiled(world().into_iter().chain(objects));
    assert_eq!(outcome.shares(VIP), [("web-2", 1)]);
    assert_eq!(outcome.said_of("b"), [(Accepted, "Accepted", "")]);
}

/// Case: SPLIT-DELETED
#[test]
fn without_a_split_there_are_no_frontends() {
    let outcome = compiled(world());
    assert!(outcome.0.plan.frontends.is_empty());
    assert_eq!(outcome.0.diagnostics, []);
}

/// A refused split leaves a record on every frontend of its root.
///
/// Case: SPLIT-REFUSED
#[test]
fn a_refused_split_says_why_on_every_frontend() {
    let root = with(
        service("web", "10.96.0.1"),
        &json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81},
            {"name": "c", "port": 53, "protocol": "UDP"}]}}),
    );
    let outcome = compiled([root, split("canary", "web", &[])]);
    assert_eq!(outcome.0.plan.frontends.len(), 3);
    for planned in outcome.0.plan.frontends.values() {
        assert_eq!(
            planned.decision,
            Decision::PassThrough(Reason::ObjectRefused)
        );
        assert_eq!(planned.origin.name, "canary");
    }
}
