//! UDP on the cluster: name servers behind a split, asked by a static resolver.

use serde_json::json;
use testbed::fixtures::Tally;
use testbed::fixtures::manifests::{self, traffic_split};

use crate::namespace::Namespace;
use crate::test_cluster::{Node, TestCluster, examples_image};

const ROOT: &str = "names";

/// A Service `names`, and one for each of two name servers, which say of every name that it has the
/// address of `shop-v1` or of `shop-v2`.
fn name_servers(shop: &Namespace<'_>) {
    let cluster = shop.cluster();
    let service = |name: &str, selector| {
        let ports = json!([{"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"}]);
        let spec = json!({"selector": selector, "ports": ports});
        cluster.apply(&manifests::service(shop.name(), name, &spec));
    };
    service(ROOT, json!({"app": ROOT}));
    for version in ["v1", "v2"] {
        let address = cluster.cluster_ip(shop.name(), &format!("shop-{version}"));
        let name = format!("{ROOT}-{version}");
        let labels = json!({"app": ROOT, "names": version});
        service(&name, labels.clone());
        cluster.apply(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": shop.name()},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                        "name": "server", "image": examples_image(),
                        "args": ["names", "--address", address],
                        "ports": [{"name": "dns", "containerPort": 5353, "protocol": "UDP"}],
                    }]},
                },
            },
        }));
    }
    for version in ["v1", "v2"] {
        shop.wait_for_servers(&format!("{ROOT}-{version}"));
    }
}

/// A pod on a node that has its names from `names` alone. It is of a static program, whose resolver is
/// that of musl.
fn start_client(shop: &Namespace<'_>, node: &Node) -> String {
    let cluster = shop.cluster();
    let name = format!("client-{}", node.name());
    let server = cluster.cluster_ip(shop.name(), ROOT);
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": shop.name()},
        "spec": {
            "nodeName": node.name(), "terminationGracePeriodSeconds": 1,
            "dnsPolicy": "None", "dnsConfig": {"nameservers": [server]},
            "containers": [{"name": "client", "image": examples_image(), "args": ["idle"]}],
        },
    }));
    let pod = format!("pod/{name}");
    shop.kubectl(&["wait", "--for=condition=Ready", &pod, "--timeout=90s"]);
    name
}

#[test]
fn a_canary_of_a_name_server_is_exact_for_static_programs_on_every_node() {
    let cluster = TestCluster::enter();
    let shop = cluster.namespace(ROOT);
    shop.shop(1);
    name_servers(&shop);
    let nodes = cluster.nodes();
    let clients: Vec<_> = nodes.iter().map(|node| start_client(&shop, node)).collect();
    let url = "http://whoever.test/";
    let leaves = ["names-v1", "names-v2"];
    let split = |weights: [u64; 2]| {
        let backends: Vec<_> = leaves.into_iter().zip(weights).collect();
        cluster.apply(&traffic_split(
            "v1alpha2",
            shop.name(),
            "canary",
            ROOT,
            &backends,
        ));
        cluster.wait_for_weights(shop.name(), ROOT, &weights);
    };

    split([9, 1]);
    for (node, client) in nodes.iter().zip(&clients) {
        // Who answers for the address tells who has said it.
        let counts = cluster.ask_in(shop.name(), client, url, 20);
        let expected = Tally::of([("v1", 18), ("v2", 2)]);
        assert_eq!(counts, expected, "on {}", node.name());
        let split = cluster.split_on(node, shop.name(), ROOT).expect("a split");
        assert!(split.frontend.ends_with(":53/UDP"), "{split:?}");
        let counted: Vec<_> = split.leaves.iter().map(|leaf| leaf.connections).collect();
        assert_eq!(counted, [18, 2], "on {}", node.name());
    }

    split([0, 1]);
    for (node, client) in nodes.iter().zip(&clients) {
        let counts = cluster.ask_in(shop.name(), client, url, 10);
        assert_eq!(counts, Tally::of([("v2", 10)]), "on {}", node.name());
    }
}
