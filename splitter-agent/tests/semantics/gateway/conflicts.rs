//! Which of several routes has a Service.

use serde_json::{Value, json};
use splitter_agent::compile::Severity::{Inactive, Refused, Warning};

use super::{KINDS, backends, outcome, parent, route, shares};
use crate::fixtures::{VIP, canary as traffic_split, with};

/// A route to one Service, of an age: the greater the number, the younger it is.
fn to(kind: &str, name: &str, leaf: &str, age: u8, fields: &Value) -> Value {
    let rules = json!([{"backendRefs": backends(&[(leaf, 1)])}]);
    let spec = json!({"parentRefs": [with(parent(), fields)], "rules": rules});
    with(
        route(kind, name, spec),
        &json!({"metadata": {"creationTimestamp": format!("2026-01-{age:02}T00:00:00Z")}}),
    )
}

/// Case: CONFLICT-KINDS
#[test]
fn of_different_kinds_that_for_more_wins_whatever_the_age() {
    for (index, (winner, _)) in KINDS.iter().enumerate() {
        for (loser, _) in &KINDS[index + 1..] {
            let outcome = outcome([
                to(loser, "older", "web-1", 1, &json!({})),
                to(winner, "younger", "web-2", 2, &json!({})),
            ]);
            assert_eq!(shares(&outcome), [("web-2", 1)], "{winner} before {loser}");
            let expected = [(Refused, "Conflicted", "spec.parentRefs[0]")];
            assert_eq!(outcome.said_of("older"), expected);
            let said = outcome.0.diagnostics.iter();
            let mut messages = said.map(|it| &it.message);
            let winner = format!("{winner} shop/younger");
            assert!(messages.any(|it| it.contains(&winner)), "{winner} is named");
        }
    }
}

/// Case: CONFLICT-KINDS
#[test]
fn a_route_comes_before_a_traffic_split() {
    for (kind, _) in KINDS {
        let outcome = outcome([
            traffic_split(1, 1),
            to(kind, "route", "web-2", 9, &json!({})),
        ]);
        assert_eq!(shares(&outcome), [("web-2", 1)]);
        let expected = [(Refused, "Conflicted", "spec.service")];
        assert_eq!(outcome.said_of("canary"), expected);
    }
}

/// Case: CONFLICT-SUPERSEDED
#[test]
fn of_one_kind_the_older_wins_and_the_other_stays_accepted() {
    for (kind, _) in KINDS {
        for (one, other, winner) in [(1, 2, "web-1"), (2, 1, "web-2"), (1, 1, "web-1")] {
            let outcome = outcome([
                to(kind, "a", "web-1", one, &json!({})),
                to(kind, "b", "web-2", other, &json!({})),
            ]);
            assert_eq!(shares(&outcome), [(winner, 1)]);
            let loser = if winner == "web-1" { "b" } else { "a" };
            let expected = [(Inactive, "Superseded", "spec.parentRefs[0]")];
            assert_eq!(outcome.said_of(loser), expected);
        }
    }
}

/// Case: CONFLICT-PORT-TAKEN
#[test]
fn a_route_for_one_port_leaves_the_others() {
    let outcome = outcome([
        to("TCPRoute", "all", "web-1", 2, &json!({})),
        to("TCPRoute", "one", "web-2", 1, &json!({"port": 80})),
        to("TCPRoute", "none", "web-2", 1, &json!({"port": 81})),
    ]);
    assert_eq!(shares(&outcome), [("web-2", 1)]);
    assert_eq!(outcome.said_of("all")[0].1, "Superseded");
    let missing = [(Inactive, "RootPortMissing", "spec.parentRefs[0]")];
    assert_eq!(outcome.said_of("none"), missing);
}

/// Case: CONFLICT-REFUSED
#[test]
fn a_refused_route_stands_in_nobodys_way() {
    for (kind, _) in KINDS {
        let refused = with(
            to(kind, "a", "web-1", 1, &json!({})),
            &json!({"spec": {"x": 1}}),
        );
        let outcome = outcome([refused, to("TCPRoute", "b", "web-2", 2, &json!({}))]);
        assert_eq!(shares(&outcome), [("web-2", 1)]);
        assert_eq!(outcome.said_of("a")[0].1, "UnknownRestriction");
    }
}

/// Case: CLIENTS-ORDER
#[test]
fn a_consumer_route_and_a_producer_route_are_in_force_beside_each_other() {
    for (kind, _) in KINDS {
        let elsewhere = json!({"namespace": "shop"});
        let consumer = with(
            to(kind, "consumer", "web-2", 2, &elsewhere),
            &json!({"metadata": {"namespace": "bank"}}),
        );
        let outcome = outcome([to(kind, "producer", "web-1", 1, &json!({})), consumer]);
        assert_eq!(outcome.said_of("producer")[0].1, "Accepted");
        // Everyone else is split by the producer's.
        assert_eq!(outcome.shares(VIP), [("web-1", 1)]);
        // Its backend is in its own namespace, where there is none.
        let field = "spec.rules[0].backendRefs";
        let said: Vec<_> = outcome
            .said_of("consumer")
            .into_iter()
            .filter(|(_, _, it)| it.starts_with(field))
            .map(|(severity, reason, _)| (severity, reason))
            .collect();
        assert!(
            said.iter().all(|(severity, _)| *severity == Warning) && !said.is_empty(),
            "{said:?}"
        );
    }
}

/// Case: CLIENTS-ORDER
#[test]
fn a_virtual_service_for_some_namespaces_takes_no_client_from_a_route_for_everyone() {
    for (kind, _) in KINDS {
        let exported = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "exported", "namespace": "shop"},
            "spec": {
                "hosts": ["web"], "exportTo": ["."],
                "http": [{"route": [{"destination": {"host": "web-2"}}]}],
                "tcp": [{"route": [{"destination": {"host": "web-2"}}]}],
            },
        });
        let outcome = outcome([to(kind, "route", "web-1", 9, &json!({})), exported]);
        assert_eq!(shares(&outcome), [("web-1", 1)]);
        let said = outcome.0.diagnostics.iter();
        let mut lost = said.filter(|it| it.object.kind == "VirtualService");
        assert!(
            lost.any(|it| {
                it.reason == "Conflicted"
                    && it.message.contains(&format!("{kind} shop/route"))
                    && it.message.contains("come before VirtualServices")
            }),
            "{:?}",
            outcome.0.diagnostics
        );
    }
}

/// Case: ROOT-PORT-MISSING
#[test]
fn the_name_of_a_port_is_shown_so_that_nothing_can_be_forged_with_it() {
    let forged = "x\nVirtualService shop/evil: accepted \u{202e}\u{1b}[31m".repeat(9);
    let outcome = outcome([to(
        "HTTPRoute",
        "a",
        "web-1",
        1,
        &json!({"sectionName": forged}),
    )]);
    let told = &outcome.0.diagnostics[0];
    assert_eq!(told.reason, "RootPortMissing");
    assert!(
        !told.message.contains(['\n', '\u{1b}', '\u{202e}']) && told.message.len() < 300,
        "{}",
        told.message
    );
}
