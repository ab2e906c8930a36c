//! What happens to the leaves of a split while clients connect: rollouts, pods that come and go,
//! and Services that change. Every pod answers with its own name, so that each test can tell who
//! was connected to.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use splitter_api::{LeafState, Split, Verdict};
use testbed::fixtures::Tally;

use crate::load::Load;
use crate::namespace::Namespace;
use crate::test_cluster::{Node, TestCluster, wait_for};

/// How long a connection may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long the servers go on after they were told to end.
const DRAIN_SECONDS: u32 = 4;

/// Clients that connect to `shop` from every node.
fn load<'a>(shop: &'a Namespace<'a>) -> Load<'a> {
    Load::on(shop.cluster(), shop.name(), "shop")
        .with_timeout(TIMEOUT)
        .start()
}

/// Panics if one of the connections that a node made since the shares of a split were set has
/// failed, or if they have not kept the shares, which are those of Deployments.
fn assert_kept<const N: usize>(counts: &Tally, shares: [(&str, u64); N]) {
    assert_eq!(counts.failed(), 0, "{counts:?}");
    let together = counts.by_deployment();
    let total: u64 = together.identities.values().sum();
    let block: u64 = shares.iter().map(|(_, share)| share).sum();
    assert!(total > 10 * block, "hardly a load: {counts:?}");
    for (version, share) in shares {
        // What may be missing or too much in a block that is not finished.
        let off = (together.count(version) * block).abs_diff(total * share);
        assert!(off <= 3 * block, "{version}: {counts:?}");
    }
}

/// Applies `shop` with pods that tell their names: so many of version 1, and one of version 2.
fn open(shop: &Namespace<'_>, v1: u32) {
    shop.service("shop", 80, &json!({"app": "shop"}));
    for (version, replicas) in [("v1", v1), ("v2", 1)] {
        let selector = json!({"app": "shop", "version": version});
        shop.service(&format!("shop-{version}"), 80, &selector);
        shop.named_servers(version, replicas, DRAIN_SECONDS);
    }
    for version in ["v1", "v2"] {
        shop.wait_for_servers(version);
    }
}

/// Whether connections to `shop` may go to an endpoint, by the maps of a node.
fn is_in_maps(shop: &Namespace<'_>, node: &Node, endpoint: &str) -> bool {
    let leaves = shop.cluster().endpoints_on(node, shop.name(), "shop", 80);
    leaves.values().flatten().any(|one| one == endpoint)
}

/// Does something that takes a pod of version 1 out of its Service, and returns when no node's maps
/// have it any more. Prints about how long they had it after the EndpointSlice no longer had it.
fn take_away(shop: &Namespace<'_>, address: &str, act: impl FnOnce()) {
    let endpoint = format!("{address}:8080");
    let endpoint = endpoint.as_str();
    thread::scope(|scope| {
        let nodes = shop.cluster().nodes();
        for node in nodes {
            // A leaf is ready with its first endpoint, and has two.
            wait_for(&format!("{endpoint} on {}", node.name()), || {
                is_in_maps(shop, node, endpoint).then_some(())
            });
        }
        let gone = nodes.iter().map(|node| {
            scope.spawn(move || {
                wait_for(&format!("{endpoint} gone on {}", node.name()), || {
                    (!is_in_maps_now(shop, node, endpoint)).then(Instant::now)
                })
            })
        });
        let gone: Vec<_> = gone.collect();
        let changed = scope.spawn(move || {
            wait_for("an EndpointSlice without the pod", || {
                (!is_in_slice(shop, address)).then(Instant::now)
            })
        });
        act();
        let changed = changed.join().expect("a look at the EndpointSlice");
        for (node, gone) in nodes.iter().zip(gone) {
            let gone = gone.join().expect("a look at the maps");
            let (name, after) = (node.name(), gone.saturating_duration_since(changed));
            let before = changed.saturating_duration_since(gone);
            eprintln!("{name}: seen gone {after:?} after, or {before:?} before the EndpointSlice");
        }
    });
}

/// Whether a pod of version 1 is ready by the EndpointSlices.
fn is_in_slice(shop: &Namespace<'_>, address: &str) -> bool {
    let selector = "kubernetes.io/service-name=shop-v1";
    let template =
        "jsonpath={range .items[*].endpoints[*]}{.addresses[0]}={.conditions.ready} {end}";
    let slices = shop.kubectl(&["get", "endpointslices", "-l", selector, "-o", template]);
    slices.contains(&format!("{address}=true "))
}

/// As [`is_in_maps`], but quick, because it asks the node past Kubernetes where it can.
fn is_in_maps_now(shop: &Namespace<'_>, node: &Node, endpoint: &str) -> bool {
    if !node.is_local() {
        return is_in_maps(shop, node, endpoint);
    }
    let script = "exec /proc/$(pgrep -o -x splitter-agent)/root/splitter-agent \"$@\"";
    let target = format!("shop.{}:80", shop.name());
    let output = node
        .local()
        .command("sh")
        .expect("a command on a node")
        .args(["-c", script, "sh", "explain", &target])
        .output()
        .expect("a program runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).contains(endpoint)
}

/// Panics if on any node a connection to `shop` fails or is answered by this pod. Adds the answers
/// to those of each node.
fn assert_avoided(shop: &Namespace<'_>, pod: &str, answers: &mut [Tally]) {
    for (node, answers) in shop.cluster().nodes().iter().zip(answers) {
        let counts = shop.cluster().ask_from(node, &shop.url(), 200);
        assert_eq!(counts.failed(), 0, "on {}: {counts:?}", node.name());
        assert_eq!(counts.count(pod), 0, "on {}: {counts:?}", node.name());
        answers.merge(&counts);
    }
}

/// No answers yet on any node.
fn no_answers(cluster: &TestCluster) -> Vec<Tally> {
    vec![Tally::default(); cluster.nodes().len()]
}

#[test]
fn a_rollout_of_a_leaf_fails_no_connection_and_keeps_the_shares() {
    let cluster = TestCluster::enter();
    let shop = cluster.namespace("leaves-rollout");
    open(&shop, 1);
    shop.split(&[70, 30]);
    let old = shop.pods_of("v1");

    let load = load(&shop);
    shop.kubectl(&["rollout", "restart", "deployment/v1"]);
    shop.wait_for_servers("v1");
    let new = wait_for("the new pod alone", || {
        let pods = shop.pods_of("v1");
        let is_new = |pod: &String| !old.contains_key(pod);
        (!pods.is_empty() && pods.keys().all(is_new)).then_some(pods)
    });
    let (pod, address) = new.first_key_value().expect("a pod");
    let only = BTreeMap::from([
        ("shop-v1".to_owned(), vec![format!("{address}:8080")]),
        (
            "shop-v2".to_owned(),
            shop.pods_of("v2")
                .values()
                .map(|address| format!("{address}:8080"))
                .collect(),
        ),
    ]);
    for node in cluster.nodes() {
        wait_for("the new pod alone in the maps", || {
            (cluster.endpoints_on(node, shop.name(), "shop", 80) == only).then_some(())
        });
    }
    let (old, _) = old.first_key_value().expect("a pod");
    let mut answers = no_answers(&cluster);
    // Perhaps it still serves, but it has left.
    assert_avoided(&shop, old, &mut answers);
    let target = format!("pod/{old}");
    shop.kubectl(&["wait", "--for=delete", &target, "--timeout=90s"]);
    for (loaded, counts) in load.finish().nodes.iter().zip(&mut answers) {
        for pod in [old, pod] {
            assert!(loaded.tally.count(pod) > 0, "{pod}: {}", loaded.summary);
        }
        counts.merge(&loaded.tally);
        assert_kept(counts, [("v1", 7), ("v2", 3)]);
    }
    shop.assert_exact([("v1", 7), ("v2", 3)]);
}

/// Case: LEAF-NOT-READY
#[test]
fn a_leaf_scaled_to_zero_leaves_its_share_to_the_other_until_it_is_back() {
    let cluster = TestCluster::enter();
    let shop = cluster.namespace("leaves-zero");
    open(&shop, 1);
    // The root's own besides the leaves'.
    shop.named_servers("v0", 1, 0);
    shop.split(&[70, 30]);
    shop.wait_for_servers("v0");
    let ask = |expected: &Tally| {
        for node in cluster.nodes() {
            let counts = cluster.ask_from(node, &shop.url(), 20).by_deployment();
            assert_eq!(&counts, expected, "on {}", node.name());
        }
    };

    let load = load(&shop);
    shop.scale("v2", 0);
    cluster.wait_for_leaf(shop.name(), "shop", "shop-v2", LeafState::NoReadyEndpoints);
    let gone = SystemTime::now();
    ask(&Tally::of([("v1", 20)]));
    for loaded in load.finish().nodes {
        loaded.assert_none_failed_after(gone);
    }
    cluster.wait_for_event(shop.name(), "LeafNotReady");
    shop.scale("v2", 1);
    cluster.wait_for_leaf(shop.name(), "shop", "shop-v2", LeafState::Ready);
    shop.assert_exact([("v1", 7), ("v2", 3)]);

    shop.scale("v1", 0);
    shop.scale("v2", 0);
    cluster.wait_for_verdict(shop.name(), "shop", Verdict::Refuse);
    let refused = Tally {
        errors: BTreeMap::from([("refused".to_owned(), 20)]),
        ..Tally::default()
    };
    ask(&refused);
    cluster.wait_for_event(shop.name(), "NoReadyEndpoints");
    let passthrough = "splitter.dev/on-no-endpoints=passthrough";
    shop.kubectl(&["annotate", "trafficsplit/canary", passthrough]);
    cluster.wait_for_verdict(shop.name(), "shop", Verdict::PassThrough);
    // kube-proxy may hear later than the agent.
    let wait_for_answers = |expected: &Tally| {
        for node in cluster.nodes() {
            wait_for("what kube-proxy does", || {
                let counts = cluster.ask_from(node, &shop.url(), 20).by_deployment();
                (counts == *expected).then_some(())
            });
        }
    };
    wait_for_answers(&Tally::of([("v0", 20)]));
    shop.scale("v0", 0);
    wait_for_answers(&refused);

    for version in ["v1", "v2"] {
        shop.scale(version, 1);
    }
    for leaf in ["shop-v1", "shop-v2"] {
        cluster.wait_for_leaf(shop.name(), "shop", leaf, LeafState::Ready);
    }
    shop.assert_exact([("v1", 7), ("v2", 3)]);
}

/// Case: ENDPOINT-READY
#[test]
fn a_pod_that_is_not_ready_gets_no_connection_and_the_shares_are_kept() {
    let cluster = TestCluster::enter();
    let shop = cluster.namespace("leaves-killed");
    open(&shop, 2);
    shop.split(&[50, 50]);
    let load = load(&shop);

    // A pod that says that it is not ready: it goes on serving, so it would answer.
    let pods = shop.pods_of("v1");
    let (unready, address) = pods.first_key_value().expect("a pod");
    take_away(&shop, address, || shop.set_ready(unready, false));
    let mut answers = no_answers(&cluster);
    assert_avoided(&shop, unready, &mut answers);
    shop.set_ready(unready, true);
    let endpoint = format!("{address}:8080");
    for (node, answers) in cluster.nodes().iter().zip(&mut answers) {
        wait_for("the pod in the maps again", || {
            is_in_maps(&shop, node, &endpoint).then_some(())
        });
        let counts = cluster.ask_from(node, &shop.url(), 20);
        assert!(counts.count(unready) > 0, "{counts:?}");
        answers.merge(&counts);
    }
    for (loaded, counts) in load.finish().nodes.iter().zip(&mut answers) {
        counts.merge(&loaded.tally);
        assert_kept(counts, [("v1", 1), ("v2", 1)]);
    }
    shop.assert_exact([("v1", 1), ("v2", 1)]);
}

#[test]
fn killing_a_pod_fails_no_connection_that_begins_once_the_maps_have_lost_it() {
    let cluster = TestCluster::enter();
    let shop = cluster.namespace("leaves-force");
    open(&shop, 2);
    shop.split(&[50, 50]);
    let load = load(&shop);

    let pods = shop.pods_of("v1");
    let (killed, address) = pods.last_key_value().expect("a pod");
    take_away(&shop, address, || {
        let now = ["--grace-period=0", "--force", "--wait=false"];
        shop.kubectl(&[&["delete", "pod", killed], &now[..]].concat());
    });
    let gone = SystemTime::now();
    assert_avoided(&shop, killed, &mut no_answers(&cluster));
    for loaded in load.finish().nodes {
        loaded.assert_none_failed_after(gone);
    }
    shop.wait_for_servers("v1");
    shop.assert_exact([("v1", 1), ("v2", 1)]);
}

#[test]
fn a_split_follows_the_services_of_its_leaves_and_its_root() {
    let cluster = TestCluster::enter();
    let shop = cluster.namespace("leaves-services");
    open(&shop, 1);
    shop.named_servers("v3", 1, 0);
    shop.split(&[70, 30]);
    shop.wait_for_servers("v3");
    shop.assert_exact([("v1", 7), ("v2", 3)]);
    let v2 = json!({"app": "shop", "version": "v2"});
    let without_v2 = |state: LeafState| {
        cluster.wait_for_leaf(shop.name(), "shop", "shop-v2", state);
        shop.assert_exact([("v1", 1)]);
    };
    let wait_for_pod_of = |version: &str| {
        let address = shop.pods_of(version).into_values().next();
        let endpoints = vec![format!("{}:8080", address.expect("an address"))];
        for node in cluster.nodes() {
            wait_for(&format!("the pod of {version} alone"), || {
                let leaves = cluster.endpoints_on(node, shop.name(), "shop", 80);
                (leaves.get("shop-v2") == Some(&endpoints)).then_some(())
            });
        }
    };
    let with_v2 = || {
        cluster.wait_for_leaf(shop.name(), "shop", "shop-v2", LeafState::Ready);
        // A Service changes before the EndpointSlices that a controller makes of it.
        wait_for_pod_of("v2");
        shop.assert_exact([("v1", 7), ("v2", 3)]);
    };

    shop.service("shop-v2", 80, &json!({"app": "shop", "version": "v3"}));
    wait_for_pod_of("v3");
    shop.assert_exact([("v1", 7), ("v3", 3)]);

    shop.service("shop-v2", 81, &v2);
    without_v2(LeafState::PortMissing);
    cluster.wait_for_event(shop.name(), "LeafPortMissing");
    shop.service("shop-v2", 80, &v2);
    with_v2();

    shop.kubectl(&["delete", "service", "shop-v2"]);
    without_v2(LeafState::ServiceMissing);
    cluster.wait_for_event(shop.name(), "LeafServiceMissing");
    shop.service("shop-v2", 80, &v2);
    with_v2();

    add_a_port(&shop);
}

/// A second port of the root, which its leaves get one after another.
fn add_a_port(shop: &Namespace<'_>) {
    let cluster = shop.cluster();
    let url = format!("http://shop.{}:8081/", shop.name());
    let add = |service: &str| {
        let port = json!({"name": "more", "port": 8081, "targetPort": "http"});
        let patch = json!({"spec": {"ports": [port]}}).to_string();
        shop.kubectl(&["patch", "service", service, "-p", &patch]);
    };
    let wait = |verdict: Verdict, state: Option<LeafState>| {
        let is_it = |split: &Split| {
            split.namespace == shop.name()
                && split.frontend.ends_with(":8081/TCP")
                && split.verdict == verdict
                && state
                    .is_none_or(|state| split.leaves.get(1).is_some_and(|leaf| leaf.state == state))
        };
        for node in cluster.nodes() {
            wait_for(&format!("{verdict} of the new port"), || {
                let status = cluster.status(node);
                status.splits.iter().any(is_it).then_some(())
            });
        }
    };
    add("shop");
    wait(Verdict::PassThrough, None);
    for node in cluster.nodes() {
        // To the root's own pods, those of all versions.
        wait_for("an answer at the new port", || {
            (cluster.ask_from(node, &url, 20).failed() == 0).then_some(())
        });
    }
    add("shop-v1");
    wait(Verdict::Split, Some(LeafState::PortMissing));
    for node in cluster.nodes() {
        let counts = cluster.ask_from(node, &url, 20).by_deployment();
        assert_eq!(counts, Tally::of([("v1", 20)]), "on {}", node.name());
    }
    add("shop-v2");
    wait(Verdict::Split, Some(LeafState::Ready));
    for node in cluster.nodes() {
        let counts = cluster.ask_from(node, &url, 20).by_deployment();
        let expected = Tally::of([("v1", 14), ("v2", 6)]);
        assert_eq!(counts, expected, "on {}", node.name());
    }
    shop.assert_exact([("v1", 7), ("v2", 3)]);
}
