//! EndpointSlices that no controller would write.

use serde_json::{Value, json};
use testbed::fixtures::Tally;
use testbed::fixtures::manifests::endpoint_slice;

use super::cases::backend;
use crate::test_cluster::{TestCluster, wait_for};

#[test]
fn endpoint_slices_with_garbage_never_get_a_connection() {
    let cluster = TestCluster::enter();
    let namespace = cluster.namespace("slices");
    namespace.shop(1);
    namespace.service("manual", 80, &Value::Null);
    let pods = ["-n", "slices", "get", "pods", "-l", "version=v1"];
    let address = cluster.get(&pods)["items"][0]["status"]["podIP"].clone();
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": slices(&address)}));
    let mut split = namespace.split_object("canary", &[]);
    split["spec"]["backends"] = json!([backend("manual", 1), backend("shop-v2", 1)]);
    cluster.apply(&split);
    let wait_for_manual = |endpoints: usize| {
        cluster.wait_for_split("the good endpoint", "slices", "shop", |split| {
            let leaf = split.and_then(|split| split.leaves.first());
            leaf.is_some_and(|leaf| leaf.endpoints == endpoints)
        });
    };
    wait_for_manual(1);
    for node in cluster.nodes() {
        let counts = cluster.ask_from(node, &namespace.url(), 20);
        assert_eq!(
            counts,
            Tally::of([("v1", 10), ("v2", 10)]),
            "on {}",
            node.name()
        );
    }
    for node in cluster.nodes() {
        for (reason, count) in [
            ("SliceContentIgnored", 3),
            ("SlicePortUnknown", 2),
            ("SliceWithoutService", 1),
        ] {
            wait_for(&format!("{count} findings of {reason}"), || {
                let labels = [("kind", "EndpointSlice"), ("reason", reason)];
                let found = cluster.metrics(node).sum("object_findings", &labels);
                (found == Some(count)).then_some(())
            });
        }
    }

    // Without the good ones, all the others together are nobody.
    cluster.kubectl(&["-n", "slices", "delete", "endpointslice", "good", "again"]);
    wait_for_manual(0);
    for node in cluster.nodes() {
        let counts = cluster.ask_from(node, &namespace.url(), 10);
        assert_eq!(counts, Tally::of([("v2", 10)]), "on {}", node.name());
    }
    wait_for("an Event on the split", || {
        let events = cluster.described("slices", "trafficsplits");
        events.get("canary")?.get("LeafNotReady").map(|_| ())
    });
}

#[test]
fn endpoint_slices_with_garbage_are_told_of_once() {
    let cluster = TestCluster::enter();
    let namespace = cluster.namespace("slices");
    namespace.service("shop", 80, &Value::Null);
    namespace.service("manual", 80, &Value::Null);
    let items = slices(&json!("10.244.250.251"));
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}));
    let mut split = namespace.split_object("canary", &[]);
    split["spec"]["backends"] = json!([backend("manual", 1)]);
    cluster.apply(&split);
    let told = [
        ("fqdn", "SliceContentIgnored"),
        ("every-port", "SliceContentIgnored"),
        ("multicast", "SliceContentIgnored"),
        ("other-port", "SlicePortUnknown"),
        ("other-protocol", "SlicePortUnknown"),
        ("nobodys", "SliceWithoutService"),
    ];
    wait_for("Events on the slices", || {
        let events = cluster.described("slices", "endpointslices");
        let is_told = |(name, reason): (&str, &str)| events.get(name)?.get(reason).copied();
        let mut missing = told.to_vec();
        missing.retain(|case| is_told(*case) != Some(1));
        if !missing.is_empty() {
            println!("not told yet: {missing:?}");
        }
        missing.is_empty().then_some(())
    });
}

/// Slices of the Service `manual`: two with this address, and others that nobody can be sent to.
fn slices(address: &Value) -> Vec<Value> {
    let slice = |name: &str, family: &str, addresses: Value, ports: Value| {
        let content = json!({
            "addressType": family,
            "endpoints": [{"addresses": addresses, "conditions": {"ready": true}}],
            "ports": ports,
        });
        endpoint_slice("slices", name, "manual", &content)
    };
    let http = || json!([{"name": "http", "port": 8080}]);
    let nowhere = || json!(["10.244.250.250"]);
    let with = |name: &str, conditions: Value| {
        let mut slice = slice(name, "IPv4", nowhere(), http());
        slice["endpoints"][0]["conditions"] = conditions;
        slice
    };
    let mut empty = slice("empty", "IPv4", nowhere(), http());
    empty["endpoints"] = json!([]);
    let mut nobodys = slice("nobodys", "IPv4", nowhere(), http());
    nobodys["metadata"]["labels"] = json!({});
    vec![
        slice("good", "IPv4", json!([address, address]), http()),
        slice("again", "IPv4", json!([address]), http()),
        slice("fqdn", "FQDN", json!(["www.example.com"]), http()),
        slice("ipv6", "IPv6", json!(["fd00::1"]), http()),
        slice(
            "multicast",
            "IPv4",
            json!(["239.1.1.1", "255.255.255.255"]),
            http(),
        ),
        slice("every-port", "IPv4", nowhere(), json!([{"name": "http"}])),
        slice("no-port", "IPv4", nowhere(), json!([])),
        slice(
            "other-port",
            "IPv4",
            nowhere(),
            json!([{"name": "grpc", "port": 9090}]),
        ),
        slice(
            "other-protocol",
            "IPv4",
            nowhere(),
            json!([{"name": "http", "port": 8080, "protocol": "UDP"}]),
        ),
        with("not-ready", json!({"ready": false})),
        with(
            "terminating",
            json!({"ready": false, "serving": false, "terminating": true}),
        ),
        empty,
        nobodys,
    ]
}
