//! The control plane is away for a while, and then back.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use splitter_api::LeafState;
use testbed::cluster::Component;
use testbed::fixtures::Tally;
use testbed::fixtures::manifests::traffic_split;

use crate::load::Load;
use crate::node::{request_from, split_of, status_on};
use crate::test_cluster::{Node, SYSTEM, TestCluster, wait_for};

/// Longer than the self-tests of an agent are apart, and not so long that Kubernetes gives the
/// nodes up.
const OUTAGE: Duration = Duration::from_secs(12);

/// Parts of the control plane that are away until this is dropped.
struct Outage<'a> {
    cluster: &'a TestCluster,
    components: &'static [Component],
}

impl<'a> Outage<'a> {
    /// Stops the components, in this order.
    fn begin(cluster: &'a TestCluster, components: &'static [Component]) -> Self {
        for component in components {
            cluster.local().stop(*component).expect("a control plane");
        }
        let answer = cluster.try_kubectl(&["get", "--raw", "/livez", "--request-timeout=2s"], None);
        assert!(!answer.status.success(), "{answer:?}");
        Self {
            cluster,
            components,
        }
    }
}

impl Drop for Outage<'_> {
    fn drop(&mut self) {
        for component in self.components.iter().rev() {
            // What does not come back here is put back for the next test, or fails that one.
            if let Err(error) = self.cluster.local().start(*component) {
                eprintln!("{component:?} is still away: {error:#}");
            }
        }
    }
}

/// A TrafficSplit of `mall`, another root than the one that is under load.
fn mall(namespace: &str, weights: [u64; 2]) -> Value {
    let backends = [("shop-v1", weights[0]), ("shop-v3", weights[1])];
    traffic_split("v1alpha2", namespace, "mall", "mall", &backends)
}

fn agent_urls(cluster: &TestCluster) -> Vec<(&Node, String)> {
    let url = |node| {
        let address = cluster.pod_ip(SYSTEM, &cluster.agent(node));
        (node, format!("http://{address}:9464"))
    };
    cluster.nodes().iter().map(url).collect()
}

/// Waits until on every node `mall` has these weights, and its second leaf is in this state.
fn wait_for_mall(cluster: &TestCluster, namespace: &str, state: LeafState, weights: [u64; 2]) {
    cluster.wait_for_split(
        &format!("{state} {weights:?}"),
        namespace,
        "mall",
        |split| {
            let Some(split) = split else { return false };
            let [first, second] = &split.leaves[..] else {
                return false;
            };
            first.state == LeafState::Ready
                && second.state == state
                && [first.weight, second.weight] == weights
        },
    );
}

#[test]
fn while_api_server_and_etcd_are_away_splits_go_on_and_then_they_catch_up() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let shop = cluster.namespace("outage");
    let name = shop.name();
    shop.service("mall", 80, &json!({"version": "v3"}));
    shop.service("shop-v3", 80, &json!({"version": "v3"}));
    shop.servers("v3", 1);
    shop.shop(1);
    shop.wait_for_servers("v3");
    shop.split(&[9, 1]);
    cluster.apply(&mall(name, [1, 1]));
    wait_for_mall(&cluster, name, LeafState::Ready, [1, 1]);
    let v3 = cluster.get(&["-n", name, "get", "pods", "-l", "version=v3"]);
    let v3 = v3["items"][0]["status"]["podIP"].as_str().expect("a pod");
    let make_ready = |ready: bool| {
        let url = format!("http://{v3}:8080/ready?value={ready}");
        assert_eq!(request_from(&cluster.nodes()[0], "PUT", &url).0, 200);
    };
    let agents = agent_urls(&cluster);

    let load = Load::on(&cluster, name, "shop").start();
    let outage = Outage::begin(&cluster, &[Component::ApiServer, Component::Etcd]);
    // Its kubelet notices, and can tell nobody yet.
    make_ready(false);
    let start = Instant::now();
    while start.elapsed() < OUTAGE {
        for (node, agent) in &agents {
            for probe in ["livez", "readyz"] {
                let (status, body) = request_from(node, "GET", &format!("{agent}/{probe}"));
                assert_eq!(status, 200, "{probe} on {}: {body}", node.name());
            }
        }
        thread::sleep(Duration::from_millis(500));
    }
    drop(outage);
    let changed = mall(name, [3, 1]);
    wait_for("an API server that takes objects", || {
        cluster.try_apply(&changed).status.success().then_some(())
    });
    wait_for_mall(&cluster, name, LeafState::NoReadyEndpoints, [3, 1]);
    let url = format!("http://{}/", cluster.cluster_ip(name, "mall"));
    for node in cluster.nodes() {
        assert_eq!(cluster.ask_from(node, &url, 20), Tally::of([("v1", 20)]));
    }
    make_ready(true);
    wait_for_mall(&cluster, name, LeafState::Ready, [3, 1]);
    for node in cluster.nodes() {
        let expected = Tally::of([("v1", 30), ("v3", 10)]);
        assert_eq!(
            cluster.ask_from(node, &url, 40),
            expected,
            "{}",
            node.name()
        );
    }
    load.finish().assert_exact([("v1", 9), ("v2", 1)]);
}

#[test]
fn an_agent_that_restarts_while_the_api_server_is_away_leaves_splits_as_they_were() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let shop = cluster.namespace("blind");
    shop.shop(1);
    shop.split(&[9, 1]);
    let agents = agent_urls(&cluster);
    let (node, agent) = &agents[0];
    cluster.copy_agent_to(node);
    let container = cluster.container(SYSTEM, &cluster.agent(node));

    let load = Load::on(&cluster, shop.name(), "shop").start();
    let outage = Outage::begin(&cluster, &[Component::ApiServer]);
    cluster.ctr(node, &["tasks", "kill", "--signal", "SIGKILL", &container]);
    wait_for("the end of the agent", || {
        cluster.process(node, &container).is_none().then_some(())
    });
    wait_for("another agent that is alive", || {
        (request_from(node, "GET", &format!("{agent}/livez")).0 == 200).then_some(())
    });
    // It knows that it does not know everything, and retires nothing for that.
    let (status, body) = request_from(node, "GET", &format!("{agent}/readyz"));
    assert_eq!(status, 503, "{body}");
    let health: Value = serde_json::from_str(&body).expect("JSON");
    let sources = health["checks"].as_array().expect("checks").iter();
    let sources: Vec<_> = sources.filter(|check| check["name"] == "sources").collect();
    assert_eq!(sources[0]["healthy"], false, "{body}");
    let split = split_of(&status_on(node), shop.name());
    assert_eq!(split.leaves[0].weight, 9, "{split:?}");
    drop(outage);
    wait_for("an agent that is ready", || {
        (request_from(node, "GET", &format!("{agent}/readyz")).0 == 200).then_some(())
    });
    load.finish().assert_exact([("v1", 9), ("v2", 1)]);
}
