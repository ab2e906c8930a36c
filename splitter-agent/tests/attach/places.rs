//! Which groups get the programs.

use std::fs;
use std::path::Path;

use splitter_agent::datapath::PROGRAMS;
use testbed::lab::cgroup::mount_point;

use crate::common::agent::{stderr, text};
use crate::http::{get, wait_for, wait_until};
use crate::node::{Node, Place, wait};

const SYSTEMD_POD: &str = "kubepods.slice/kubepods-podUID.slice/cri-containerd-1.scope";

/// Cgroups that self-tests have made, anywhere.
fn self_tests(below: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            let name = entry.file_name().into_string().unwrap();
            found.extend(name.starts_with("splitter-self-test-").then_some(name));
            found.extend(self_tests(&entry.path()));
        }
    }
    found
}

#[test]
fn a_stale_group_beside_the_one_in_use_is_not_taken_for_it() {
    let node = Node::new("stale");
    node.group("kubepods/besteffort");
    let _pod = node.pod(SYSTEMD_POD);
    let (agent, server) = node.agent(Place::Outside, &[]);
    wait_for(server, "/readyz", 200);
    assert_eq!(node.attached(), ["kubepods.slice"]);
    assert_eq!(node.count(SYSTEMD_POD, 10), (5, 5, 0));
    assert!(!agent.log().contains("the root of"), "{}", agent.log());
    assert_eq!(self_tests(&node.path("kubepods")), [""; 0]);
}

#[test]
fn every_group_with_pods_is_split_and_each_connection_counts_once() {
    let node = Node::new("both");
    let cgroupfs = "kubepods/burstable/podUID/1";
    let _pods = [node.pod(SYSTEMD_POD), node.pod(cgroupfs)];
    let (_agent, server) = node.agent(Place::Outside, &[]);
    wait_for(server, "/readyz", 200);
    assert_eq!(node.attached(), ["kubepods", "kubepods.slice"]);
    for group in [SYSTEMD_POD, cgroupfs] {
        assert_eq!(node.count(group, 10), (5, 5, 0), "{group}");
    }
    assert_eq!(node.counted(), 20);
}

#[test]
fn a_group_that_appears_later_takes_the_place_of_the_root() {
    let node = Node::new("later");
    let (mut agent, server) = node.agent(Place::Outside, &[]);
    agent.wait_for_log("the root of the cgroup hierarchy, since no group of pods was found");
    let ready = wait_for(server, "/readyz", 200);
    assert!(ready.body.contains("the root, since"), "{ready:?}");
    assert_eq!(node.attached(), [""]);
    let status = node.status();
    let warning = &status.node.attachment.warnings[0];
    assert!(warning.contains("--cgroup"), "{status:?}");
    let metrics = get(server, "/metrics").body;
    assert!(
        metrics.contains("\nsplitter_attached_to_root 1\n"),
        "{metrics}"
    );

    let group = "kubepods/besteffort/podUID/1";
    let _pod = node.pod(group);
    node.wait_for_attached(&["kubepods"]);
    assert_eq!(node.count(group, 10), (5, 5, 0));
    assert_eq!(node.counted(), 10);
    wait_for(server, "/readyz", 200);
    assert_eq!(node.status().node.attachment.warnings, [""; 0]);

    // And a second one.
    let _pod = node.pod(SYSTEMD_POD);
    node.wait_for_attached(&["kubepods", "kubepods.slice"]);
    assert_eq!(node.count(SYSTEMD_POD, 10), (5, 5, 0));
}

#[test]
fn a_group_that_vanishes_is_let_go() {
    let node = Node::new("vanish");
    let _pod = node.pod("kubepods/podUID/1");
    let other = node.pod(SYSTEMD_POD);
    let (_agent, server) = node.agent(Place::Outside, &[]);
    wait_for(server, "/readyz", 200);
    assert_eq!(node.attached(), ["kubepods", "kubepods.slice"]);

    drop(other);
    let mut group = node.path(SYSTEMD_POD);
    while group != node.path("") {
        wait("an empty cgroup", || fs::remove_dir(&group).ok());
        group.pop();
    }
    node.wait_for_attached(&["kubepods"]);
    wait_for(server, "/readyz", 200);
    let links = node.store.site.lab.pin_directory().join("links");
    wait("all links to a cgroup", || {
        let names = fs::read_dir(&links).ok()?.filter_map(Result::ok);
        let names = names.map(|link| link.file_name().to_string_lossy().into_owned());
        // Others are to tracepoints.
        let is_to_cgroup = |name: &String| {
            let program = name.split_once('-').map(|(program, _)| program);
            program.is_some_and(|program| PROGRAMS.contains(&program))
        };
        (names.filter(is_to_cgroup).count() == PROGRAMS.len()).then_some(())
    });
}

#[test]
fn an_agent_in_a_pod_finds_the_pods_by_its_own_wherever_they_are() {
    for (name, own, place) in [
        ("own-1", SYSTEMD_POD, "kubepods.slice"),
        (
            "own-2",
            "kubelet/kubepods/besteffort/podUID/1",
            "kubelet/kubepods",
        ),
        ("own-3", "custom/kubepods/podUID/1", "custom/kubepods"),
        (
            "own-4",
            "system.slice/containerd.service/kubepods-besteffort-podUID.slice:cri-containerd:1",
            "system.slice/containerd.service",
        ),
    ] {
        let node = Node::new(name);
        node.group("kubepods");
        let (_agent, server) = node.agent(Place::Pod(own), &[]);
        wait_for(server, "/readyz", 200);
        assert_eq!(node.attached(), [place]);
        assert_eq!(node.count(own, 10), (5, 5, 0), "{own}");
        assert_eq!(self_tests(&node.path("")), [""; 0]);
    }
}

#[test]
fn an_agent_whose_own_pod_is_elsewhere_is_not_ready() {
    let node = Node::new("beside");
    node.group("kubepods");
    let stale = mount_point().unwrap().join("kubepods");
    let (mut agent, server) = node.agent(Place::Pod(SYSTEMD_POD), &["--cgroup", text(&stale)]);
    agent.wait_for_log("self-test: ");
    let answer = wait_until(server, "/readyz", |answer| {
        let own_pod = "connection of the agent's own pod was not split";
        answer.body.contains(own_pod)
    });
    assert!(answer.fails("self-test"), "{answer:?}");
    assert!(answer.body.contains("cri-containerd-1.scope"), "{answer:?}");
    agent.wait_for_log("which --cgroup leaves out");
    assert_eq!(self_tests(&node.path("")), [""; 0]);
}

#[test]
fn an_agent_in_a_container_without_the_nodes_cgroups_says_what_to_mount() {
    let node = Node::new("alone");
    // The container's own cgroup is all that is mounted.
    let script = "umount $0 && mount -t cgroup2 cgroup2 $0 && exec \"$@\"";
    let output = node
        .store
        .site
        .lab
        .command("unshare")
        .unwrap()
        .args(["--mount", "--cgroup", "sh", "-c", script])
        .arg(mount_point().unwrap())
        .args([crate::common::agent::BINARY, "run", "--manifests"])
        .arg(node.store.site.manifests.path())
        .arg("--pin-dir")
        .arg(node.store.site.lab.pin_directory())
        .env("KUBERNETES_SERVICE_HOST", "10.96.0.1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = stderr(&output);
    assert!(said.contains("mount the node's /sys/fs/cgroup"), "{said}");
}
