//! Beside kube-proxy, by rules of nftables and of iptables: what is split is split exactly, and
//! everything else is as if splitter were not there.

use serde_json::json;
use splitter_api::Verdict;
use testbed::cluster::{KubeProxy, Options};
use testbed::fixtures::Tally;

use crate::namespace::Namespace;
use crate::test_cluster::{TestCluster, examples_image, wait_for};

#[test]
fn beside_nftables_a_split_is_exact_and_the_rest_is_as_before() {
    if let Some(cluster) = TestCluster::enter_local() {
        beside_kube_proxy(&cluster);
    }
}

#[test]
fn beside_iptables_a_split_is_exact_and_the_rest_is_as_before() {
    let own = TestCluster::own(&Options {
        name: format!("iptables-{}", std::process::id()),
        kube_proxy: KubeProxy::Iptables,
        ..Options::default()
    });
    let Some(cluster) = own else {
        return;
    };
    cluster.mend();
    beside_kube_proxy(&cluster);
}

fn beside_kube_proxy(cluster: &TestCluster) {
    let shop = cluster.namespace("beside");
    shop.shop(1);
    // No pod has such labels.
    shop.service("closed", 80, &json!({"app": "closed"}));
    let door = open_door(&shop);
    ask_for_names_by_service(&shop);

    assert_as_without_splits(&shop);
    assert_door_is_balanced(cluster, door);
    shop.split(&[100, 0]);
    assert_each(&shop, [("v1", 20)]);
    assert_door_is_balanced(cluster, door);
    assert_sums(&shop);
    assert_names_are_found(&shop);

    shop.kubectl(&["delete", "trafficsplit", "canary"]);
    cluster.wait_for_split("no split", shop.name(), "shop", |split| split.is_none());
    assert_as_without_splits(&shop);
    assert_door_is_balanced(cluster, door);
    assert_closed(&shop);
}

/// Lets clients in at a port of every node as well, and returns that.
fn open_door(shop: &Namespace<'_>) -> u64 {
    let patch = json!({"spec": {"type": "NodePort"}}).to_string();
    shop.kubectl(&["patch", "service", "shop", "-p", &patch]);
    let service = shop
        .cluster()
        .get(&["-n", shop.name(), "get", "service/shop"]);
    let port = service["spec"]["ports"][0]["nodePort"].as_u64();
    port.expect("a port of the nodes")
}

/// Panics unless on every node connections to `shop` are answered in exactly these shares.
fn assert_each<const N: usize>(shop: &Namespace<'_>, expected: [(&str, u64); N]) {
    let count = expected.iter().map(|(_, count)| count).sum();
    for node in shop.cluster().nodes() {
        let counts = shop.cluster().ask_from(node, &shop.url(), count);
        assert_eq!(counts, Tally::of(expected), "on {}", node.name());
    }
}

/// Both versions answer, and nothing fails. Which one does is a matter of chance: that 60 are all
/// of one version happens once in 10^18 times.
fn assert_balanced(counts: &Tally, what: &str) {
    assert_eq!(counts.failed(), 0, "{what}: {counts:?}");
    for version in ["v1", "v2"] {
        assert!(counts.count(version) > 0, "{what}: {counts:?}");
    }
}

/// On every node a root is balanced over all of its pods.
fn assert_as_without_splits(shop: &Namespace<'_>) {
    let cluster = shop.cluster();
    for node in cluster.nodes() {
        // kube-proxy may hear of a Service and of each pod later than the agent.
        wait_for("kube-proxy has heard of the root", || {
            let counts = cluster.ask_from(node, &shop.url(), 20);
            let has_both = counts.count("v1") > 0 && counts.count("v2") > 0;
            (counts.failed() == 0 && has_both).then_some(())
        });
        assert_balanced(&cluster.ask_from(node, &shop.url(), 60), node.name());
    }
}

/// The port of the nodes leads to the pods of the root, whatever its split says.
fn assert_door_is_balanced(cluster: &TestCluster, port: u64) {
    for client in cluster.nodes() {
        for door in cluster.nodes() {
            let url = format!("http://{}:{port}/", door.local().address());
            let what = format!("{} to the port of {}", client.name(), door.name());
            wait_for("kube-proxy has heard of the port", || {
                (cluster.ask_from(client, &url, 1).failed() == 0).then_some(())
            });
            assert_balanced(&cluster.ask_from(client, &url, 60), &what);
        }
    }
}

/// Shares are exact on each node, and in the middle of a block the sum over both nodes is within
/// two connections of them.
fn assert_sums(shop: &Namespace<'_>) {
    shop.split(&[70, 30]);
    assert_each(shop, [("v1", 70), ("v2", 30)]);
    let nodes = shop.cluster().nodes().iter();
    let halves: Vec<Tally> = nodes
        .map(|node| shop.cluster().ask_from(node, &shop.url(), 15))
        .collect();
    for (version, share) in [("v1", 7), ("v2", 3)] {
        let count: u64 = halves.iter().map(|counts| counts.count(version)).sum();
        let off = (10 * count).abs_diff(2 * 15 * share);
        assert!(off <= 2 * 10, "{version}: {halves:?}");
    }
    assert!(halves.iter().all(|counts| counts.failed() == 0));
}

/// A root that has lost its last pod refuses connections as one does that never had any, by
/// kube-proxy's rules.
fn assert_closed(shop: &Namespace<'_>) {
    let cluster = shop.cluster();
    for version in ["v1", "v2"] {
        shop.scale(version, 0);
    }
    let closed = format!("http://closed.{}/", shop.name());
    for node in cluster.nodes() {
        let never = cluster.ask_from(node, &closed, 5);
        assert_eq!(never.errors.get("refused"), Some(&5), "{never:?}");
        wait_for("kube-proxy has heard that the pods are gone", || {
            (cluster.ask_from(node, &shop.url(), 5) == never).then_some(())
        });
    }
}

/// A Service of the cluster's name server, which is asked by UDP, and a split of it; and a client
/// that asks there for names.
fn ask_for_names_by_service(shop: &Namespace<'_>) {
    let cluster = shop.cluster();
    let namespace = shop.name();
    // The name server is where the API server is.
    let server = cluster.get(&["get", "endpointslice/kubernetes"]);
    let server = &server["endpoints"][0]["addresses"];
    let port = json!({"name": "dns", "port": 53, "protocol": "UDP"});
    let owner = json!({"kubernetes.io/service-name": "names"});
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "names", "namespace": namespace},
        "spec": {"ports": [port]},
    }));
    cluster.apply(&json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "names", "namespace": namespace, "labels": owner},
        "endpoints": [{"addresses": server, "conditions": {"ready": true}}],
        "ports": [port],
    }));
    let service = cluster.get(&["-n", namespace, "get", "service/names"]);
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "asker", "namespace": namespace},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": [service["spec"]["clusterIP"]]},
            "containers": [{"name": "asker", "image": examples_image(), "args": ["idle"]}],
        },
    }));
    let mut split = shop.split_object("names", &[1]);
    split["spec"]["service"] = json!("names");
    cluster.apply(&split);
    cluster.wait_for_verdict(namespace, "names", Verdict::PassThrough);
    shop.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/asker",
        "--timeout=90s",
    ]);
}

/// Connections to `shop` by its name, which is asked for through a Service by UDP, all succeed.
fn assert_names_are_found(shop: &Namespace<'_>) {
    let url = format!("http://shop.{}.svc.cluster.local/", shop.name());
    let get = ["exec", "asker", "--", "/example", "get", &url];
    // kubectl fails if one of them does.
    shop.kubectl(&[&get[..], &["--count", "20"]].concat());
}
