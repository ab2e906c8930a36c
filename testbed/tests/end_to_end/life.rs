//! Agents come and go, and so do the programs and nodes that they run on: connections go on.

use serde_json::Value;
use splitter_api::{Status, VerdictCounts};
use splitter_common::layout::LAYOUT_VERSION;
use testbed::cluster::NodeComponent;
use testbed::fixtures::{Tally, image};

use crate::kustomization::Kustomization;
use crate::load::Load;
use crate::node::{has_bpftool, run_on, split_of, status_on};
use crate::test_cluster::{Node, SYSTEM, TestCluster, wait_for};

/// The weights that are programmed in most tests here, and stay so.
const WEIGHTS: [u64; 2] = [9, 1];

/// What that means for a client.
const SHARES: [(&str, u64); 2] = [("v1", 9), ("v2", 1)];

/// That every agent has found the kubelet's group of pods, by its own pod, and nothing to warn of.
fn assert_attached_to_pods(cluster: &TestCluster) {
    for node in cluster.nodes() {
        let attachment = cluster.status(node).node.attachment;
        assert_eq!(attachment.programs.len(), 8, "{attachment:?}");
        for program in &attachment.programs {
            let cgroup = program.cgroup.as_deref().expect("a cgroup");
            let below = cgroup.strip_prefix("/sys/fs/cgroup/");
            let below = below.map(|path| path.trim_start_matches("unified/"));
            assert_eq!(below, Some("kubepods"), "{attachment:?}");
        }
        assert_eq!(attachment.warnings, [""; 0], "{attachment:?}");
    }
}

const DAEMON_SET: &str = "daemonset/splitter-agent";

/// The image that every agent runs.
fn agent_images(cluster: &TestCluster) -> Vec<String> {
    let pod = |node| {
        let pod = cluster.agent(node);
        let pod = cluster.get(&["-n", SYSTEM, "get", "pod", &pod]);
        pod["spec"]["containers"][0]["image"]
            .as_str()
            .map(str::to_owned)
    };
    let images = cluster.nodes().iter().map(pod);
    images.collect::<Option<_>>().expect("images")
}

/// How often the container of a node's agent was started again.
fn restarts(cluster: &TestCluster, node: &Node) -> u64 {
    let pod = cluster.get(&["-n", SYSTEM, "get", "pod", &cluster.agent(node)]);
    let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
    restarts.expect("a container")
}

/// The weights of `shop` that a node has programmed, asked without agent and kubelet.
fn weights_on(node: &Node, namespace: &str) -> Vec<u64> {
    let split = split_of(&status_on(node), namespace);
    split.leaves.iter().map(|leaf| leaf.weight).collect()
}

/// Asks every node for as many connections as there are in some blocks, all of which must be in
/// these shares.
fn assert_shares<const N: usize>(cluster: &TestCluster, url: &str, shares: [(&str, u64); N]) {
    let block: u64 = shares.iter().map(|(_, share)| share).sum();
    let expected = Tally::of(shares.map(|(name, share)| (name, 5 * share)));
    for node in cluster.nodes() {
        let counts = cluster.ask_from(node, url, 5 * block);
        assert_eq!(counts, expected, "on {}", node.name());
    }
}

#[test]
fn agents_that_are_deleted_or_killed_are_not_missed() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let shop = cluster.namespace("killed");
    shop.shop(1);
    shop.split(&WEIGHTS);
    let [one, other] = cluster.nodes() else {
        panic!("two nodes")
    };
    let (deleted, killed) = (cluster.agent(one), cluster.agent(other));
    let before = restarts(&cluster, other);

    let load = Load::on(&cluster, shop.name(), "shop").start();
    cluster.signal(other, SYSTEM, &killed, "SIGKILL");
    cluster.kubectl(&["-n", SYSTEM, "delete", "pod", &deleted]);
    wait_for("another container", || {
        (restarts(&cluster, other) > before).then_some(())
    });
    cluster.wait_for_agents();
    assert_ne!(cluster.agent(one), deleted);
    assert_eq!(cluster.agent(other), killed);
    load.finish().assert_exact(SHARES);
    // They work, and are not just out of the way.
    shop.split(&[1, 1]);
    assert_shares(&cluster, &shop.url(), [("v1", 1), ("v2", 1)]);
}

#[test]
fn an_upgrade_fails_no_connection_and_disturbs_no_share() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let shop = cluster.namespace("upgrade");
    let reference = |tag| format!("splitter-agent:{tag}");
    let (present, next) = (reference(image::VERSION), reference("next"));
    let full = |reference| format!("docker.io/library/{reference}");
    for node in cluster.nodes() {
        let names = [&*full(&present), &full(&next)];
        cluster.ctr(node, &[&["images", "tag", "--force"][..], &names].concat());
    }
    shop.shop(1);
    shop.split(&WEIGHTS);

    let load = Load::on(&cluster, shop.name(), "shop").start();
    let image = format!("agent={next}");
    cluster.kubectl(&["-n", SYSTEM, "set", "image", DAEMON_SET, &image]);
    cluster.wait_for_agents();
    assert_eq!(agent_images(&cluster), [&*next, &next]);
    // And back, as after an upgrade that was none.
    cluster.kubectl(&["-n", SYSTEM, "rollout", "undo", DAEMON_SET]);
    cluster.wait_for_agents();
    assert_eq!(agent_images(&cluster), [&*present, &present]);
    load.finish().assert_exact(SHARES);
}

#[test]
fn agents_without_privileges_take_over_and_become_ready() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let shop = cluster.namespace("capabilities");
    shop.shop(1);
    shop.split(&WEIGHTS);
    let is_privileged = || {
        let agents = cluster.get(&["-n", SYSTEM, "get", "pods"]);
        let agents = agents["items"].as_array().expect("pods").iter();
        let context = |pod: &Value| pod["spec"]["containers"][0]["securityContext"].clone();
        agents
            .map(|pod| context(pod)["privileged"] == true)
            .collect::<Vec<_>>()
    };
    assert_eq!(is_privileged(), [true, true]);

    let load = Load::on(&cluster, shop.name(), "shop").start();
    let capabilities = Kustomization::new(&["capabilities"], None);
    cluster.kubectl(&["apply", "-k", capabilities.path()]);
    // Ready means that a connection of their own was split.
    cluster.wait_for_agents();
    assert_eq!(is_privileged(), [false, false]);
    assert_attached_to_pods(&cluster);
    load.finish().assert_exact(SHARES);
    shop.split(&[1, 3]);
    assert_shares(&cluster, &shop.url(), [("v1", 1), ("v2", 3)]);
    cluster.kubectl(&["apply", "-k", "deploy/"]);
    cluster.wait_for_agents();
    assert_eq!(is_privileged(), [true, true]);
    assert_attached_to_pods(&cluster);
    shop.split(&[3, 1]);
    assert_shares(&cluster, &shop.url(), [("v1", 3), ("v2", 1)]);
}

#[test]
fn a_split_that_changes_while_an_agent_is_down_is_applied_when_it_is_back() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let shop = cluster.namespace("down");
    // On both nodes: a kubelet that starts may call its pods unready until it has asked them, and
    // a root whose servers are all unready refuses connections.
    shop.shop(2);
    shop.split(&WEIGHTS);
    let [down, up] = cluster.nodes() else {
        panic!("two nodes")
    };
    cluster.copy_agent_to(down);
    let agent = cluster.agent(down);
    let container = cluster.container(SYSTEM, &agent);

    let load = Load::on(&cluster, shop.name(), "shop").start();
    // Without a kubelet nobody starts it again.
    down.local()
        .stop(NodeComponent::Kubelet)
        .expect("no kubelet");
    cluster.ctr(down, &["tasks", "kill", "--signal", "SIGKILL", &container]);
    wait_for("the end of the agent", || {
        cluster.process(down, &container).is_none().then_some(())
    });
    cluster.apply(&shop.split_object("canary", &[1, 1]));
    wait_for("the weights where there is an agent", || {
        let split = cluster.split_on(up, shop.name(), "shop")?;
        (split.leaves.first()?.weight == 1).then_some(())
    });
    assert_eq!(weights_on(down, shop.name()), WEIGHTS);
    down.local()
        .start(NodeComponent::Kubelet)
        .expect("a kubelet");
    wait_for("the weights where there was none", || {
        (weights_on(down, shop.name()) == [1, 1]).then_some(())
    });
    cluster.wait_for_agents();
    // Not a connection failed; the shares were others before than after.
    load.finish().assert_none_failed();
    shop.split(&[1, 4]);
    assert_shares(&cluster, &shop.url(), [("v1", 1), ("v2", 4)]);
}

#[test]
fn what_runs_pods_restarts_without_a_trace_in_the_shares() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let shop = cluster.namespace("runtime");
    // On both nodes, for the kubelets that start, and so that the shares are never others.
    shop.shop(2);
    shop.split(&WEIGHTS);
    let agents: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|node| cluster.agent(node))
        .collect();
    let before: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|it| restarts(&cluster, it))
        .collect();

    let load = Load::on(&cluster, shop.name(), "shop").start();
    for node in cluster.nodes() {
        for component in [NodeComponent::Kubelet, NodeComponent::Containerd] {
            node.local().stop(component).expect("a component less");
        }
        for component in [NodeComponent::Containerd, NodeComponent::Kubelet] {
            node.local().start(component).expect("a component more");
        }
        let target = format!("node/{}", node.name());
        let wait = ["wait", "--for=condition=Ready", "--timeout=90s", &target];
        cluster.kubectl(&wait);
        // Through the new kubelet and the new containerd.
        wait_for("an answer of the agent", || {
            let agent = cluster.agent(node);
            let exec = ["-n", SYSTEM, "exec", &agent, "--", "splitter-agent"];
            let status = cluster.try_kubectl(&[&exec[..], &["status"]].concat(), None);
            status.status.success().then_some(())
        });
        for version in ["v1", "v2"] {
            shop.wait_for_servers(version);
        }
    }
    load.finish().assert_exact(SHARES);
    let same: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|node| cluster.agent(node))
        .collect();
    assert_eq!(same, agents);
    let after: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|it| restarts(&cluster, it))
        .collect();
    assert_eq!(after, before);
}

/// Has a node take pods again when dropped.
struct Cordon<'a>(&'a TestCluster, &'a Node);

impl Drop for Cordon<'_> {
    fn drop(&mut self) {
        let _ = self.0.try_kubectl(&["uncordon", self.1.name()], None);
    }
}

#[test]
fn a_node_can_be_drained_while_its_pods_are_split_to() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let shop = cluster.namespace("drain");
    // Spread over both nodes, so that some are moved.
    shop.shop(2);
    shop.split(&WEIGHTS);
    let [stays, drained] = cluster.nodes() else {
        panic!("two nodes")
    };
    let pods_of = |node: &Node| {
        let field = format!("spec.nodeName={}", node.name());
        let list = ["-n", shop.name(), "get", "pods", "-l", "app=shop"];
        let pods = cluster.get(&[&list[..], &["--field-selector", &field]].concat());
        pods["items"].as_array().expect("pods").len()
    };
    assert!(pods_of(drained) > 0);

    let load = Load::on(&cluster, shop.name(), "shop")
        .at_nodes(std::slice::from_ref(stays))
        .start();
    let cordon = Cordon(&cluster, drained);
    cluster.kubectl(&[
        "drain",
        drained.name(),
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        // Longer than the servers go on serving those who have not heard yet.
        "--grace-period=20",
        "--timeout=90s",
    ]);
    for version in ["v1", "v2"] {
        shop.wait_for_servers(version);
    }
    assert_eq!(pods_of(drained), 0);
    cluster.wait_for_split("all endpoints", shop.name(), "shop", |split| {
        split.is_some_and(|split| split.leaves.iter().all(|leaf| leaf.endpoints == 2))
    });
    // Each leaf had an endpoint that was ready all the time or another instead, but perhaps not
    // throughout: only that no connection failed is promised.
    load.finish().assert_none_failed();
    shop.split(&[1, 1]);
    assert_shares(&cluster, &shop.url(), [("v1", 1), ("v2", 1)]);
    drop(cordon);
    shop.split(&WEIGHTS);
    assert_shares(&cluster, &shop.url(), SHARES);
}

#[test]
fn a_second_agent_on_a_node_says_who_is_there_and_changes_nothing() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let shop = cluster.namespace("second");
    shop.shop(1);
    shop.split(&WEIGHTS);
    let node = &cluster.nodes()[0];
    let programs = || cluster.status(node).node.attachment.programs;
    let before = (programs(), restarts(&cluster, node));

    let load = Load::on(&cluster, shop.name(), "shop").start();
    let agent = cluster.agent(node);
    let exec = ["-n", SYSTEM, "exec", &agent, "--", "splitter-agent"];
    let second = ["run", "--listen", "127.0.0.1:9465"];
    let output = cluster.try_kubectl(&[&exec[..], &second].concat(), None);
    assert!(!output.status.success(), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    let expected = "another splitter-agent is at work in /sys/fs/bpf/splitter";
    assert!(errors.contains(expected), "{errors}");
    assert_eq!((programs(), restarts(&cluster, node)), before);
    load.finish().assert_exact(SHARES);
    shop.split(&[1, 1]);
    assert_shares(&cluster, &shop.url(), [("v1", 1), ("v2", 1)]);
}

#[test]
fn the_maps_tell_the_same_in_the_pod_and_on_the_node() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let shop = cluster.namespace("look");
    shop.shop(1);
    shop.split(&WEIGHTS);
    assert_shares(&cluster, &shop.url(), SHARES);
    for node in cluster.nodes() {
        cluster.copy_agent_to(node);
        let without_counts_of_the_self_test = |status: Status| Status {
            verdicts: VerdictCounts::default(),
            ..status
        };
        let inside = without_counts_of_the_self_test(cluster.status(node));
        let outside = without_counts_of_the_self_test(status_on(node));
        assert_eq!(inside, outside, "on {}", node.name());
        let split = split_of(&inside, shop.name());
        assert_eq!(split.leaves[0].connections, 45, "{split:?}");
        assert_eq!(split.leaves[1].connections, 5, "{split:?}");
    }
    let exec = ["-n", SYSTEM, "exec", DAEMON_SET, "--", "splitter-agent"];
    let text = cluster.kubectl(&[&exec[..], &["status"]].concat());
    assert!(text.contains("split of Service look/shop"), "{text}");

    if has_bpftool() {
        let dump = ["-j", "map", "dump", "pinned"];
        for node in cluster.nodes() {
            let pinned = format!("/sys/fs/bpf/splitter/v{LAYOUT_VERSION}/LEAF_NAMES");
            let names = run_on(node, "bpftool", &[&dump[..], &[&pinned]].concat());
            let names: Value = serde_json::from_str(&names).expect("JSON");
            let names = names.as_array().expect("elements").iter();
            let names: Vec<_> = names
                .map(|name| name["formatted"]["value"].clone())
                .collect();
            let expected = serde_json::json!(
                {"root_namespace": "look", "root": "shop", "leaf": "shop-v2"}
            );
            assert!(names.contains(&expected), "{names:?}");
        }
    }
}
