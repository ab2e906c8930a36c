//! UDPRoutes, and what they have to do with others on the same Service: nothing.

use serde_json::{Value, json};
use splitter_agent::compile::Severity::{self, Accepted, Inactive, Refused};
use splitter_agent::plan::Decision;
use splitter_common::layout::{Protocol, Reason};

use crate::fixtures::{Outcome, compiled, service_of, slice_of, split, with};

const DNS: &str = "10.96.0.53:53";

/// A Service `dns` with port 53 over TCP and UDP, and two leaves that have both.
fn world() -> Vec<Value> {
    let ports = json!([{"name": "tcp", "port": 53},
        {"name": "udp", "port": 53, "protocol": "UDP"}]);
    let service = |name: &str, address: &str| {
        service_of(name, &json!({"clusterIP": address, "ports": ports}))
    };
    let slice = |leaf: &str, address: &str| {
        let content = json!({"ports": ports, "endpoints": [{"addresses": [address]}]});
        slice_of(&format!("{leaf}-0"), leaf, &content)
    };
    vec![
        service("dns", "10.96.0.53"),
        service("dns-1", "10.96.0.61"),
        service("dns-2", "10.96.0.62"),
        slice("dns-1", "10.0.0.1"),
        slice("dns-2", "10.0.0.2"),
    ]
}

/// A route of the whole of `dns`, or of a port, to one leaf, or to another with the other weight.
fn route(kind: &str, parent: &Value, weights: &[(&str, u32)]) -> Value {
    let backends = weights
        .iter()
        .map(|(name, weight)| json!({"name": name, "port": 53, "weight": weight}));
    let parent = with(
        json!({"group": "", "kind": "Service", "name": "dns"}),
        parent,
    );
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": {"name": kind.to_ascii_lowercase(), "namespace": "shop", "generation": 1},
        "spec": {"parentRefs": [parent], "rules": [{"backendRefs": backends.collect::<Value>()}]},
    })
}

fn outcome(objects: impl IntoIterator<Item = Value>) -> Outcome {
    compiled(world().into_iter().chain(objects))
}

/// What is said of the route of this kind.
fn said<'a>(outcome: &'a Outcome, kind: &str) -> Vec<(Severity, &'static str, &'a str)> {
    outcome.said_of(&kind.to_ascii_lowercase())
}

fn shares(outcome: &Outcome, protocol: Protocol) -> Option<Vec<(&str, u32)>> {
    let plan = outcome.at_protocol(DNS, protocol)?;
    let leaves = plan.leaves.iter();
    Some(leaves.map(|leaf| (&*leaf.service, leaf.share)).collect())
}

/// Case: GATEWAY-UDP
#[test]
fn a_udp_route_splits_udp_and_leaves_tcp_as_it_is() {
    for version in ["v1", "v1alpha2"] {
        for parent in [
            json!({}),
            json!({"port": 53}),
            json!({"sectionName": "udp"}),
        ] {
            let object = with(
                route("UDPRoute", &parent, &[("dns-1", 90), ("dns-2", 10)]),
                &json!({"apiVersion": format!("gateway.networking.k8s.io/{version}")}),
            );
            let outcome = outcome([object]);
            let expected = vec![("dns-1", 9), ("dns-2", 1)];
            assert_eq!(shares(&outcome, Protocol::Udp), Some(expected), "{parent}");
            assert_eq!(shares(&outcome, Protocol::Tcp), None);
            assert_eq!(said(&outcome, "UDPRoute"), [(Accepted, "Accepted", "")]);
        }
    }
}

/// Case: GATEWAY-UDP
#[test]
fn routes_for_tcp_and_for_udp_do_not_meet_at_one_port() {
    for kind in ["TCPRoute", "TLSRoute", "HTTPRoute", "GRPCRoute"] {
        for parent in [json!({}), json!({"port": 53})] {
            let outcome = outcome([
                route(kind, &parent, &[("dns-1", 1)]),
                route("UDPRoute", &parent, &[("dns-2", 1)]),
            ]);
            assert_eq!(shares(&outcome, Protocol::Tcp), Some(vec![("dns-1", 1)]));
            assert_eq!(shares(&outcome, Protocol::Udp), Some(vec![("dns-2", 1)]));
            for name in [kind.to_ascii_lowercase(), "udproute".to_owned()] {
                let said = outcome.said_of(&name);
                assert!(
                    said.contains(&(Accepted, "Accepted", "")),
                    "{name}: {said:?}"
                );
            }
        }
    }
}

/// Case: GATEWAY-UDP, CONFLICT-KINDS
#[test]
fn a_traffic_split_keeps_the_protocol_that_no_route_is_for() {
    let outcome = outcome([
        route("UDPRoute", &json!({}), &[("dns-2", 1)]),
        split("canary", "dns", &[("dns-1", json!(1))]),
    ]);
    assert_eq!(shares(&outcome, Protocol::Tcp), Some(vec![("dns-1", 1)]));
    assert_eq!(shares(&outcome, Protocol::Udp), Some(vec![("dns-2", 1)]));
    assert_eq!(outcome.said_of("canary")[0].1, "PortTaken");
}

/// Case: GATEWAY-UDP-NONE
#[test]
fn a_route_whose_parent_has_no_port_of_its_protocol_is_inactive() {
    let of = |protocol: &str| {
        service_of(
            "other",
            &json!({"clusterIP": "10.96.0.70",
                "ports": [{"name": "one", "port": 80, "protocol": protocol}]}),
        )
    };
    for (kind, protocol, wanted) in [
        ("UDPRoute", "TCP", "UDP"),
        ("UDPRoute", "SCTP", "UDP"),
        ("TCPRoute", "UDP", "TCP"),
        ("HTTPRoute", "UDP", "TCP"),
    ] {
        for (parent, what) in [
            (json!({"name": "other"}), format!("has no {wanted} port")),
            (
                json!({"name": "other", "port": 80}),
                format!("port one (80) of Service shop/other is one of {protocol}"),
            ),
            (
                json!({"name": "other", "sectionName": "one"}),
                format!("port one (80) of Service shop/other is one of {protocol}"),
            ),
        ] {
            let outcome = outcome([of(protocol), route(kind, &parent, &[("dns-1", 1)])]);
            assert!(outcome.0.plan.frontends.is_empty());
            let said = said(&outcome, kind);
            let expected = (Inactive, "RootPortMissing", "spec.parentRefs[0]");
            assert!(said.contains(&expected), "{kind} {parent}: {said:?}");
            let message = &outcome.0.diagnostics[0].message;
            assert!(message.contains(&what), "{message}");
            assert!(
                message.contains(&format!("{kind}s are for {wanted}")),
                "{message}"
            );
        }
    }
}

/// Case: GATEWAY-RULES-INVALID
#[test]
fn a_udp_route_has_one_rule_and_nothing_that_only_requests_have() {
    let object = route("UDPRoute", &json!({}), &[("dns-1", 1)]);
    for (rules, reason) in [
        (json!([]), "InvalidSpec"),
        (json!([{}, {}]), "InvalidSpec"),
        (
            json!([{"matches": [{}], "backendRefs": [{"name": "dns-1", "port": 53}]}]),
            "UnknownRestriction",
        ),
    ] {
        let mut object = object.clone();
        object["spec"]["rules"] = rules;
        let outcome = outcome([object]);
        let said = said(&outcome, "UDPRoute");
        assert_eq!((said[0].0, said[0].1), (Refused, reason), "{said:?}");
    }
}

/// Case: GATEWAY-BACKEND-MISSING
#[test]
fn the_share_of_a_backend_that_is_not_there_is_refused_of_udp_too() {
    let both = [("dns-1", 3), ("gone", 1)];
    let outcome = outcome([route("UDPRoute", &json!({}), &both)]);
    let expected = vec![("dns-1", 3), ("gone", 1)];
    assert_eq!(shares(&outcome, Protocol::Udp), Some(expected));
    let plan = outcome.at_protocol(DNS, Protocol::Udp).unwrap();
    assert_eq!(plan.decision, Decision::Split);
    assert!(plan.leaves[1].endpoints.is_empty());

    let alone = self::outcome([route("UDPRoute", &json!({}), &[("gone", 1)])]);
    let plan = alone.at_protocol(DNS, Protocol::Udp).unwrap();
    assert_eq!(plan.decision, Decision::Refuse(Reason::NoReadyEndpoints));
}

/// Case: PORT-UDP
#[test]
fn a_virtual_service_says_nothing_of_udp() {
    let outcome = outcome([json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "canary", "namespace": "shop", "generation": 1},
        "spec": {"hosts": ["dns"], "tcp": [{"route": [{"destination": {"host": "dns-1"}}]}]},
    })]);
    assert_eq!(
        shares(&outcome, Protocol::Tcp).map(|leaves| leaves.len()),
        Some(1)
    );
    assert_eq!(shares(&outcome, Protocol::Udp), None);
    assert_eq!(outcome.said()[0].0, Accepted);
}
