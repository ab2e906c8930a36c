//! Ports, protocols and addresses of the root and its leaves.

use serde_json::{Value, json};
use splitter_agent::compile::Severity::Warning;
use splitter_agent::plan::Decision;
use splitter_common::layout::{LeafState, Protocol, Reason};

use crate::fixtures::{
    VIP, canary, compiled, leaf, service_of, slice, slice_of, split, world_with,
};

const METRICS: &str = "10.96.0.1:9090";

fn two_ports(cluster_ip: &str) -> Value {
    json!({"clusterIP": cluster_ip, "ports": [
        {"name": "http", "port": 80}, {"name": "metrics", "port": 9090},
    ]})
}

/// Two Services may name the same port differently.
///
/// Case: PORT-NUMBER
#[test]
fn ports_match_by_number_and_protocol() {
    let objects = [
        service_of(
            "web",
            &json!({"clusterIP": "10.96.0.1", "ports": [
            {"name": "http", "port": 80, "targetPort": 1}]}),
        ),
        // The same number by another name.
        service_of(
            "web-1",
            &json!({"clusterIP": "10.96.0.11", "ports": [
            {"name": "www", "port": 80}]}),
        ),
        slice_of(
            "a",
            "web-1",
            &json!({"ports": [{"name": "www", "port": 8081}],
            "endpoints": [{"addresses": ["10.0.0.1"]}]}),
        ),
        // The same name at another number, and the same number at another protocol.
        service_of(
            "web-2",
            &json!({"clusterIP": "10.96.0.12", "ports": [
            {"name": "http", "port": 81}, {"name": "udp", "port": 80, "protocol": "UDP"}]}),
        ),
        slice_of(
            "b",
            "web-2",
            &json!({"ports": [{"name": "http", "port": 8082}],
            "endpoints": [{"addresses": ["10.0.0.2"]}]}),
        ),
        canary(9, 1),
    ];
    let outcome = compiled(objects);
    assert_eq!(outcome.shares(VIP), [("web-1", 1), ("web-2", 0)]);
    assert_eq!(
        outcome.states(VIP),
        [LeafState::Ready, LeafState::PortMissing]
    );
    assert_eq!(outcome.endpoints(VIP, 0), ["10.0.0.1:8081"]);
    assert_eq!(
        outcome.said(),
        [(Warning, "LeafPortMissing", "spec.backends[1]")]
    );
    assert!(
        outcome.message().contains("port 80/TCP"),
        "{}",
        outcome.message()
    );
}

/// A named target port may have another number in every pod.
///
/// Case: PORT-TARGET
#[test]
fn each_slice_says_which_number_a_port_has() {
    let objects = world_with(slice_of(
        "web-1-0",
        "web-1",
        &json!({
            "ports": [{"name": null, "port": 8080}, {"name": "other", "port": 7}],
            "endpoints": [{"addresses": ["10.0.0.1"]}],
        }),
    ));
    let second = slice_of(
        "web-1-1",
        "web-1",
        &json!({
            "ports": [{"port": 3000}, {"port": 53, "protocol": "UDP"}],
            "endpoints": [{"addresses": ["10.0.0.3"]}],
        }),
    );
    let outcome = compiled(objects.into_iter().chain([second, canary(9, 1)]));
    assert_eq!(
        outcome.endpoints(VIP, 0),
        ["10.0.0.1:8080", "10.0.0.3:3000"]
    );
    outcome.assert_accepted();
}

/// Case: PORT-UNUSABLE
#[test]
fn ports_that_cannot_be_dialled_are_left_out() {
    let objects = world_with(slice_of(
        "web-2-0",
        "web-2",
        &json!({
            "ports": [{"port": null}, {"port": 0}, {"port": 70000}],
            "endpoints": [{"addresses": ["10.0.0.2"]}],
        }),
    ));
    let outcome = compiled(objects.into_iter().chain([canary(9, 1)]));
    assert_eq!(
        outcome.states(VIP),
        [LeafState::Ready, LeafState::NoReadyEndpoints]
    );
}

/// Case: PORT-NO-LEAF
#[test]
fn a_port_that_no_leaf_has_passes_through() {
    let objects = world_with(service_of("web", &two_ports("10.96.0.1")));
    let outcome = compiled(objects.into_iter().chain([canary(9, 1)]));
    assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)]);
    let passed = Decision::PassThrough(Reason::NoLeafPort);
    assert_eq!(outcome.decision(METRICS), Some(passed));
    assert_eq!(outcome.said(), [(Warning, "NoLeafPort", "spec.service")]);
    assert!(
        outcome.message().contains("port 9090/TCP"),
        "{}",
        outcome.message()
    );
}

/// Case: PORT-NO-LEAF
#[test]
fn a_port_that_no_leaf_has_passes_through_even_if_all_weights_are_zero() {
    let objects = world_with(service_of("web", &two_ports("10.96.0.1")));
    let outcome = compiled(objects.into_iter().chain([canary(0, 0)]));
    let refused = Decision::Refuse(Reason::AllWeightsZero);
    assert_eq!(outcome.decision(VIP), Some(refused));
    let passed = Decision::PassThrough(Reason::NoLeafPort);
    assert_eq!(outcome.decision(METRICS), Some(passed));
}

/// Case: PORT-EACH
#[test]
fn each_port_has_its_own_leaves() {
    let content = json!({"ports": [{"name": "http", "port": 8080}, {"name": "metrics", "port": 9}],
        "endpoints": [{"addresses": ["10.0.0.1"]}]});
    let objects = [
        vec![
            service_of("web", &two_ports("10.96.0.1")),
            service_of("web-1", &two_ports("10.96.0.11")),
            slice_of("a", "web-1", &content),
        ],
        leaf("web-2", "10.96.0.12", &["10.0.0.2"]).into(),
        vec![canary(9, 1)],
    ];
    let outcome = compiled(objects.concat());
    assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)]);
    assert_eq!(outcome.shares(METRICS), [("web-1", 1), ("web-2", 0)]);
    assert_eq!(outcome.endpoints(METRICS, 0), ["10.0.0.1:9"]);
    assert_eq!(
        outcome.said(),
        [(Warning, "LeafPortMissing", "spec.backends[1]")]
    );
    assert!(
        outcome.message().contains("port 9090/TCP"),
        "{}",
        outcome.message()
    );
}

/// Case: PORT-UDP, PORT-SCTP
#[test]
fn udp_is_split_as_tcp_is_and_sctp_passes_through() {
    let spec = |ip: &str| {
        json!({"clusterIP": ip, "ports": [
            {"name": "tcp", "port": 53}, {"name": "udp", "port": 53, "protocol": "UDP"},
            {"name": "sctp", "port": 53, "protocol": "SCTP"},
        ]})
    };
    let objects = [
        service_of("dns", &spec("10.96.0.1")),
        service_of("dns-1", &spec("10.96.0.11")),
        slice_of(
            "a",
            "dns-1",
            &json!({"endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [
                {"name": "tcp", "port": 53}, {"name": "udp", "port": 53, "protocol": "UDP"},
            ]}),
        ),
        split("canary", "dns", &[("dns-1", json!(1))]),
    ];
    let outcome = compiled(objects);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let split = outcome.at_protocol("10.96.0.1:53", protocol).unwrap();
        assert_eq!(split.decision, Decision::Split);
    }
    let split = outcome.at_protocol("10.96.0.1:53", Protocol::Sctp).unwrap();
    let passed = Decision::PassThrough(Reason::ProtocolNotSplit);
    assert_eq!(split.decision, passed);
    assert!(split.leaves.iter().all(|leaf| leaf.share == 0));
    assert_eq!(
        outcome.said(),
        [(Warning, "ProtocolNotSplit", "spec.service")]
    );
    assert!(
        outcome
            .message()
            .contains("port 53/SCTP of Service shop/dns passes through"),
        "{}",
        outcome.message()
    );
}

/// Case: FAMILY-EACH
#[test]
fn every_cluster_ip_is_split_to_endpoints_of_its_own_family() {
    const VIP6: &str = "[fd00::1]:80";
    let dual = |name: &str, ips: [&str; 2]| {
        service_of(name, &json!({"clusterIPs": ips, "ports": [{"port": 80}]}))
    };
    let six = |service: &str, address: &str| {
        let content = json!({"addressType": "IPv6", "ports": [{"port": 8080}],
            "endpoints": [{"addresses": [address]}]});
        slice_of(&format!("{service}-6"), service, &content)
    };
    let objects = vec![
        dual("web", ["10.96.0.1", "fd00::1"]),
        dual("web-1", ["10.96.0.11", "fd00::11"]),
        slice("web-1", &["10.0.0.1"]),
        six("web-1", "fd01::1"),
        dual("web-2", ["10.96.0.12", "fd00::12"]),
        slice("web-2", &["10.0.0.2"]),
        canary(9, 1),
    ];
    let outcome = compiled(objects.clone());
    assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)]);
    assert_eq!(outcome.shares(VIP6), [("web-1", 1), ("web-2", 0)]);
    assert_eq!(outcome.endpoints(VIP, 0), ["10.0.0.1:8080"]);
    assert_eq!(outcome.endpoints(VIP6, 0), ["[fd01::1]:8080"]);
    assert_eq!(
        outcome.said(),
        [(Warning, "LeafNotReady", "spec.backends[1]")]
    );
    assert!(
        outcome.message().contains("port 80/TCP (IPv6)"),
        "{}",
        outcome.message()
    );

    let outcome = compiled(objects.into_iter().chain([six("web-2", "fd01::2")]));
    assert_eq!(outcome.shares(VIP6), [("web-1", 9), ("web-2", 1)]);
    outcome.assert_accepted();
}

/// A root of both families, before leaves that are only of one.
fn dual_root() -> Vec<Value> {
    world_with(service_of(
        "web",
        &json!({"clusterIPs": ["10.96.0.1", "fd00::1"], "ports": [{"port": 80}]}),
    ))
}

/// It is treated like a port that no leaf has.
///
/// Case: FAMILY-NO-LEAF
#[test]
fn a_family_that_no_leaf_has_passes_through() {
    for weights in [(9, 1), (0, 0)] {
        let split = canary(weights.0, weights.1);
        let outcome = compiled(dual_root().into_iter().chain([split]));
        let passed = Decision::PassThrough(Reason::NoLeafFamily);
        assert_eq!(outcome.decision("[fd00::1]:80"), Some(passed));
        let told = outcome
            .0
            .diagnostics
            .iter()
            .find(|said| said.reason == "NoLeafFamily")
            .expect("a warning");
        assert_eq!(
            (told.severity, told.field.as_str()),
            (Warning, "spec.backends")
        );
        assert!(told.message.contains("IPv6") && told.message.contains("dual-stack"));
    }
    let outcome = compiled(dual_root().into_iter().chain([canary(9, 1)]));
    assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)]);
}

/// Case: FAMILY-LEAF-MISSING
#[test]
fn a_leaf_without_the_family_is_left_out() {
    let six = slice_of(
        "web-1-6",
        "web-1",
        &json!({"addressType": "IPv6", "ports": [{"port": 8080}],
            "endpoints": [{"addresses": ["fd01::1"]}]}),
    );
    let outcome = compiled(dual_root().into_iter().chain([six, canary(9, 1)]));
    assert_eq!(outcome.shares("[fd00::1]:80"), [("web-1", 1), ("web-2", 0)]);
    assert_eq!(
        outcome.states("[fd00::1]:80"),
        [LeafState::Ready, LeafState::FamilyMissing]
    );
    assert_eq!(
        outcome.said(),
        [(Warning, "LeafFamilyMissing", "spec.backends[1]")]
    );
    assert_eq!(
        outcome.message(),
        "Service shop/web-2 is IPv4 only; make it dual-stack, or the others get all IPv6 \
         connections to port 80/TCP"
    );
}

/// A headless leaf of which no address is known may have the family.
///
/// Case: FAMILY-UNKNOWN
#[test]
fn an_unknown_family_is_not_missing() {
    let headless =
        |name: &str| service_of(name, &json!({"clusterIP": "None", "ports": [{"port": 80}]}));
    let objects = [
        dual_root().remove(4),
        headless("web-1"),
        headless("web-2"),
        canary(9, 1),
    ];
    let outcome = compiled(objects);
    let refused = Decision::Refuse(Reason::NoReadyEndpoints);
    assert_eq!(outcome.decision(VIP), Some(refused));
    assert_eq!(outcome.decision("[fd00::1]:80"), Some(refused));
}

/// An IPv4-mapped address is the IPv4 address.
///
/// Case: FAMILY-MAPPED
#[test]
fn a_mapped_cluster_ip_is_one_frontend() {
    let spec = json!({"clusterIPs": ["::ffff:10.96.0.1", "10.96.0.1"], "ports": [{"port": 80}]});
    let objects = world_with(service_of("web", &spec));
    let outcome = compiled(objects.into_iter().chain([canary(9, 1)]));
    assert_eq!(outcome.0.plan.frontends.len(), 1);
    assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)]);
}
