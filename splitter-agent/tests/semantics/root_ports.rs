//! A port in the root's name.

use serde_json::{Value, json};
use splitter_agent::compile::Severity::{Accepted, Inactive, Refused, Warning};
use splitter_agent::plan::Decision;
use splitter_common::layout::{Protocol, Reason};

use crate::fixtures::{Outcome, compiled, leaf, service, slice_of, split, with};

const HTTP: &str = "10.96.0.1:80";
const ADMIN: &str = "10.96.0.1:9090";

fn two_ports(name: &str, cluster_ip: &str) -> Value {
    let ports = json!([{"name": "http", "port": 80}, {"name": "admin", "port": 9090}]);
    with(
        service(name, cluster_ip),
        &json!({"spec": {"ports": ports}}),
    )
}

/// A root of two ports, and two leaves with both of them.
fn world() -> Vec<Value> {
    let ports = json!([{"name": "http", "port": 8080}, {"name": "admin", "port": 9091}]);
    let endpoints = |name: &str, address: &str| {
        let content = json!({"ports": ports, "endpoints": [{"addresses": [address]}]});
        slice_of(&format!("{name}-0"), name, &content)
    };
    vec![
        two_ports("web", "10.96.0.1"),
        two_ports("web-1", "10.96.0.11"),
        two_ports("web-2", "10.96.0.12"),
        endpoints("web-1", "10.0.0.1"),
        endpoints("web-2", "10.0.0.2"),
    ]
}

fn to(name: &str, root: &str, leaf: &str) -> Value {
    split(name, root, &[(leaf, json!(1))])
}

fn outcome(splits: impl IntoIterator<Item = Value>) -> Outcome {
    compiled(world().into_iter().chain(splits))
}

fn message(outcome: &Outcome, name: &str) -> String {
    let mut said = outcome.0.diagnostics.iter();
    let said = said.find(|said| said.object.name.name == name).unwrap();
    said.message.clone()
}

/// Case: SMI-ROOT-PORT
#[test]
fn only_the_port_that_is_named_is_split() {
    for root in [
        "web:9090",
        "web.shop:9090",
        "web.shop.svc.cluster.local.:9090",
    ] {
        let outcome = outcome([to("canary", root, "web-1")]);
        assert_eq!(outcome.shares(ADMIN), [("web-1", 1)], "{root}");
        assert_eq!(outcome.endpoints(ADMIN, 0), ["10.0.0.1:9091"]);
        assert_eq!(outcome.at(HTTP), None, "as without a split");
        outcome.assert_accepted();
    }
}

/// A port means every protocol that has it.
///
/// Case: SMI-ROOT-PORT
#[test]
fn a_port_means_that_number_in_every_protocol() {
    let ports = json!([{"name": "dns", "port": 53}, {"name": "dns-udp", "port": 53,
        "protocol": "UDP"}, {"name": "http", "port": 80}]);
    let with_dns =
        |name: &str, ip: &str| with(service(name, ip), &json!({"spec": {"ports": ports}}));
    let content = json!({"ports": [{"name": "dns", "port": 5353}],
        "endpoints": [{"addresses": ["10.0.0.1"]}]});
    let outcome = compiled([
        with_dns("web", "10.96.0.1"),
        with_dns("web-1", "10.96.0.11"),
        slice_of("web-1-0", "web-1", &content),
        to("canary", "web:53", "web-1"),
    ]);
    assert_eq!(outcome.shares("10.96.0.1:53"), [("web-1", 1)]);
    let udp = outcome.at_protocol("10.96.0.1:53", Protocol::Udp).unwrap();
    // The leaf has no endpoints for it.
    assert_eq!(udp.decision, Decision::Refuse(Reason::NoReadyEndpoints));
    assert_eq!(outcome.at("10.96.0.1:80"), None);
}

/// Case: ROOT-PORT-MISSING
#[test]
fn a_port_that_the_root_does_not_have_leaves_the_split_inactive() {
    let outcome = outcome([to("canary", "web:8080", "web-1")]);
    assert!(outcome.0.plan.frontends.is_empty());
    assert_eq!(
        outcome.said(),
        [(Inactive, "RootPortMissing", "spec.service")]
    );
    assert_eq!(
        outcome.message(),
        "Service shop/web has no port 8080; write one that it has (80, 9090), or none for all of \
         them"
    );
}

/// Case: CONFLICT-PORTS-DIFFER
#[test]
fn splits_of_different_ports_do_not_meet() {
    let outcome = outcome([to("a", "web:80", "web-1"), to("b", "web:9090", "web-2")]);
    assert_eq!(outcome.shares(HTTP), [("web-1", 1)]);
    assert_eq!(outcome.shares(ADMIN), [("web-2", 1)]);
    assert_eq!(outcome.at(HTTP).unwrap().origin.name, "a");
    assert_eq!(outcome.at(ADMIN).unwrap().origin.name, "b");
    for name in ["a", "b"] {
        assert_eq!(outcome.said_of(name), [(Accepted, "Accepted", "")]);
    }
}

/// Case: CONFLICT-PORT-TAKEN
#[test]
fn a_split_of_one_port_takes_that_port_from_a_younger_one_of_all() {
    let outcome = outcome([to("a", "web:80", "web-1"), to("b", "web", "web-2")]);
    assert_eq!(outcome.shares(HTTP), [("web-1", 1)]);
    assert_eq!(outcome.shares(ADMIN), [("web-2", 1)]);
    assert_eq!(outcome.said_of("a"), [(Accepted, "Accepted", "")]);
    assert_eq!(
        outcome.said_of("b"),
        [(Warning, "PortTaken", "spec.service")]
    );
    let message = message(&outcome, "b");
    let start = "port 80/TCP of Service shop/web is already split by TrafficSplit shop/a";
    assert!(message.starts_with(start), "{message}");
}

/// Case: CONFLICT-NO-PORT-LEFT
#[test]
fn a_split_whose_only_port_is_taken_is_refused() {
    for older in ["web", "web:80"] {
        let outcome = outcome([to("a", older, "web-1"), to("b", "web:80", "web-2")]);
        assert_eq!(outcome.shares(HTTP), [("web-1", 1)]);
        assert_eq!(outcome.said_of("a"), [(Accepted, "Accepted", "")]);
        assert_eq!(
            outcome.said_of("b"),
            [(Refused, "RootTaken", "spec.service")]
        );
        let message = message(&outcome, "b");
        assert!(message.contains("port 80/TCP"), "{message}");
        assert!(message.contains("TrafficSplit shop/a"), "{message}");
    }
}

/// Two winners together may leave no port to a third split.
///
/// Case: CONFLICT-NO-PORT-LEFT
#[test]
fn a_split_that_loses_every_port_is_told_of_every_winner() {
    let splits = [
        to("a", "web:80", "web-1"),
        to("b", "web:9090", "web-1"),
        to("c", "web", "web-2"),
    ];
    let outcome = outcome(splits);
    let taken = (Refused, "RootTaken", "spec.service");
    assert_eq!(outcome.said_of("c"), [taken, taken]);
}

/// Case: CONFLICT-REFUSED, SPLIT-REFUSED
#[test]
fn a_refused_split_marks_only_the_ports_that_nobody_else_splits() {
    let refused = |root| split("a", root, &[("web-1", json!(-1))]);
    let other = to("b", "web:80", "web-2");
    let both = outcome([refused("web"), other.clone()]);
    assert_eq!(both.shares(HTTP), [("web-2", 1)]);
    let marked = Decision::PassThrough(Reason::ObjectRefused);
    assert_eq!(both.decision(ADMIN), Some(marked));
    assert_eq!(both.said_of("b"), [(Accepted, "Accepted", "")]);

    let one = outcome([refused("web:80")]);
    assert_eq!(one.decision(HTTP), Some(marked));
    assert_eq!(one.at(ADMIN), None);
}

/// Without a root its ports are not known, so the named ones decide.
///
/// Case: CONFLICT-ROOT-MISSING
#[test]
fn without_a_root_only_splits_of_the_same_ports_are_rivals() {
    let missing = (Inactive, "RootMissing", "spec.service");
    let taken = (Refused, "RootTaken", "spec.service");
    for (first, second, said) in [
        ("gone:80", "gone:9090", missing),
        ("gone:80", "gone", missing),
        ("gone:80", "gone:80", taken),
        ("gone", "gone:80", taken),
        ("gone", "gone", taken),
    ] {
        let outcome = outcome([to("a", first, "web-1"), to("b", second, "web-2")]);
        assert_eq!(outcome.said_of("a"), [missing], "{first} {second}");
        assert_eq!(outcome.said_of("b"), [said], "{first} {second}");
    }
}

/// Two roots of one address: each port goes to the first that is about it.
///
/// Case: CONFLICT-ADDRESS
#[test]
fn one_address_of_two_roots_is_shared_out_by_port() {
    let objects = [
        two_ports("twin", "10.96.0.1"),
        to("a", "web:80", "web-1"),
        to("b", "twin", "web-2"),
    ];
    let outcome = outcome(objects);
    assert_eq!(outcome.shares(HTTP), [("web-1", 1)]);
    assert_eq!(outcome.shares(ADMIN), [("web-2", 1)]);
    assert_eq!(outcome.said_of("a"), [(Accepted, "Accepted", "")]);
    let told = (Warning, "FrontendTaken", "spec.service");
    assert_eq!(outcome.said_of("b"), [told]);
}

/// A leaf needs the port that is split, and no other.
///
/// Case: SMI-ROOT-PORT
#[test]
fn a_leaf_need_not_have_the_ports_that_are_not_split() {
    let mut objects = world();
    objects.extend(leaf("web-3", "10.96.0.13", &["10.0.0.3"]));
    objects.push(to("canary", "web:80", "web-3"));
    let outcome = compiled(objects);
    assert_eq!(outcome.shares(HTTP), [("web-3", 1)]);
    outcome.assert_accepted();
}
