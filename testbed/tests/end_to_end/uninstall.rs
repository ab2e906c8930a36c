//! splitter is taken off a cluster: for good, or by mistake.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::Value;
use testbed::cluster::Options;
use testbed::fixtures::{Tally, image};

use crate::clients::CLIENTS;
use crate::documented;
use crate::load::Load;
use crate::node::{has_bpftool, run_on, split_of, status_on, try_run_on};
use crate::test_cluster::{Node, SYSTEM, TestCluster, wait_for};
use crate::user::{self, User, hide_image, rename_image, restore_image};

/// What a node has that splitter could leave behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pins: Vec<String>,
    programs: Vec<String>,
    groups: Vec<String>,
    networks: Vec<String>,
    mounts: Vec<String>,
}

impl Picture {
    pub(crate) fn of(node: &Node) -> Self {
        let groups = unified_groups(node);
        let lines = |program: &str, arguments: &[&str]| {
            let text = run_on(node, program, arguments);
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        Self {
            pins: lines("find", &["/sys/fs/bpf"]),
            programs: programs(node, &groups),
            groups: lines("find", &[&groups, "-type", "d", "-name", "splitter*"]),
            networks: lines("ls", &["/run/netns"]),
            mounts: lines(
                "awk",
                &["{print $5, $(NF - 2), $(NF - 1)}", "/proc/1/mountinfo"],
            ),
        }
    }
}

/// Where the node's control groups of version 2 are.
fn unified_groups(node: &Node) -> String {
    let mounts = run_on(node, "cat", &["/proc/1/mountinfo"]);
    let mut groups = mounts.lines().filter(|line| line.contains(" - cgroup2 "));
    let path = groups.next().and_then(|line| line.split(' ').nth(4));
    path.expect("control groups of version 2").to_owned()
}

/// The programs on the node's control groups, except for those that a container runtime keeps
/// there.
fn programs(node: &Node, groups: &str) -> Vec<String> {
    if !has_bpftool() {
        return Vec::new();
    }
    // Its heading is there also when there is no program.
    let tree = run_on(node, "bpftool", &["cgroup", "tree", groups]);
    let is_other = |line: &&str| !line.contains("device");
    tree.lines().filter(is_other).map(str::to_owned).collect()
}

/// The kernel's own numbers of what an agent has pinned on a node, and of what that holds on to:
/// pairs of a kind and an id, as bpftool calls them.
fn kernel_objects(node: &Node) -> BTreeSet<(String, String)> {
    let mut objects = BTreeSet::new();
    if !has_bpftool() {
        return objects;
    }
    let pins = run_on(node, "find", &["/sys/fs/bpf/splitter", "-type", "f"]);
    for pin in pins.lines() {
        // Maps are named in capitals; beside them are the programs that were loaded with them.
        let is_map = |name: &str| name.starts_with(|c: char| c.is_ascii_uppercase());
        let kind = match pin.rsplit('/').next() {
            _ if pin.contains("/links/") => "link",
            Some(name) if is_map(name) => "map",
            _ => "prog",
        };
        let object = bpftool(node, &[kind, "show", "pinned", pin]);
        objects.insert((kind.to_owned(), object["id"].to_string()));
        let program = object["prog_id"].to_string();
        if kind == "link" {
            let program_info = bpftool(node, &["prog", "show", "id", &program]);
            let maps = program_info["map_ids"].as_array().into_iter().flatten();
            objects.extend(maps.map(|map| ("map".to_owned(), map.to_string())));
            objects.insert(("prog".to_owned(), program));
        }
    }
    assert!(objects.len() > 8, "{objects:?}");
    objects
}

fn bpftool(node: &Node, arguments: &[&str]) -> Value {
    let text = run_on(node, "bpftool", &[&["-j"], arguments].concat());
    let objects: Value = serde_json::from_str(&text).expect("JSON");
    // Depending on the version, a single object is in a list or not.
    objects.get(0).cloned().unwrap_or(objects)
}

/// A connection to a server of a split that is kept open in the middle of a request.
struct Connection {
    client: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Connection {
    /// Opens it from a pod on a node.
    fn open(cluster: &TestCluster, node: &Node, address: &str) -> Self {
        // Each line of the head is written in time for the server not to give up.
        const SCRIPT: &str = r#"
            set -e
            echo $$ > "$1/cgroup.procs"
            exec 3<> "/dev/tcp/$2/80"
            printf 'GET / HTTP/1.1\r\nHost: shop\r\n' >&3
            echo connected
            until read -r -t 1; do printf 'X-Still: here\r\n' >&3; done
            printf '\r\n' >&3
            cat <&3
        "#;
        let container = cluster.container(CLIENTS, cluster.client_on(node));
        let process = cluster.process(node, &container).expect("a client runs");
        let groups = run_on(node, "cat", &[&format!("/proc/{process}/cgroup")]);
        let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
        let group = unified_groups(node) + group.expect("a control group of version 2");
        let mut command = node
            .local()
            .command("nsenter")
            .expect("a command on a node");
        command
            .args(["--target", &process.to_string(), "--net", "--"])
            .args(["bash", "-c", SCRIPT, "client", &group, address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut client = command.spawn().expect("a client starts");
        let input = client.stdin.take().expect("its input");
        let mut output = BufReader::new(client.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("its word");
        assert_eq!(line, "connected\n", "from {}", node.name());
        Self {
            client,
            input,
            output,
        }
    }

    /// Finishes the request, and returns the answer.
    fn finish(mut self) -> String {
        self.input.write_all(b"\n").expect("a client that listens");
        let mut answer = String::new();
        self.output.read_to_string(&mut answer).expect("an answer");
        assert!(self.client.wait().expect("its end").success(), "{answer}");
        answer
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // It has ended unless the test failed.
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// Follows the README, on nodes of which one cannot start the clean-up at first.
fn uninstall(cluster: &TestCluster, user: &User, image: &str) {
    let commands = documented::commands("README.md", "### Uninstall", "delete -k");
    let broken = &cluster.nodes()[1];
    hide_image(cluster, broken, image);
    let said = user.fail(&commands.replace("--timeout=5m", "--timeout=15s"));
    assert!(said.contains("timed out"), "{said}");
    assert!(is_pinned(broken), "{said}");
    wait_for("a clean node", || {
        (!is_pinned(&cluster.nodes()[0])).then_some(())
    });
    // Nothing is deleted that is needed to try again.
    cluster.kubectl(&["-n", SYSTEM, "get", "daemonset/splitter-agent"]);
    restore_image(cluster, broken, image);
    user.run(&commands);
}

#[test]
fn what_was_installed_from_a_registry_is_uninstalled_from_every_node_and_cuts_no_connection() {
    // Of its own, so that there is a time before splitter.
    let own = TestCluster::own(&Options {
        name: format!("uninstall-{}", std::process::id()),
        ..Options::default()
    });
    let Some(cluster) = own else {
        return;
    };
    let shop = cluster.namespace("gone");
    shop.shop(1);
    let before: Vec<_> = cluster.nodes().iter().map(Picture::of).collect();
    let image = user::pushed("splitter-agent", "0.1.0-abc");
    for node in cluster.nodes() {
        rename_image(&cluster, node, &image);
    }
    let user = User::new(cluster.local(), "0.1.0-abc");
    user.run(&documented::commands(
        "README.md",
        "## On a cluster",
        "apply -k",
    ));
    shop.split(&[0, 1]);
    let installed: Vec<_> = cluster.nodes().iter().map(kernel_objects).collect();
    for (node, before) in cluster.nodes().iter().zip(&before) {
        let now = Picture::of(node);
        assert_ne!(now.pins, before.pins);
        assert_ne!(now.mounts, before.mounts);
        assert!(!has_bpftool() || now.programs != before.programs);
    }
    let address = cluster.cluster_ip(shop.name(), "shop");
    let open = |node| Connection::open(&cluster, node, &address);
    let connections: Vec<_> = cluster.nodes().iter().map(open).collect();
    for node in cluster.nodes() {
        let split = cluster
            .split_on(node, shop.name(), "shop")
            .expect("a split");
        assert_eq!(split.leaves[1].connections, 1, "{split:?}");
    }

    uninstall(&cluster, &user, &image);
    for ((node, before), installed) in cluster.nodes().iter().zip(&before).zip(&installed) {
        wait_for_picture(node, before);
        for (kind, id) in installed {
            wait_for(&format!("the end of {kind} {id}"), || {
                let output = try_run_on(node, "bpftool", &[kind, "show", "id", id]);
                (!output.status.success()).then_some(())
            });
        }
    }
    for connection in connections {
        let answer = connection.finish();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains(r#""identity":"v2""#), "{answer}");
    }
    for node in cluster.nodes() {
        let counts = cluster.ask_from(node, &shop.url(), 100);
        assert_eq!(counts.failed(), 0, "{counts:?}");
        // Where the split had sent nobody.
        assert!(counts.count("v1") > 0, "{counts:?}");
    }
    let splits = cluster.kubectl(&["-n", shop.name(), "get", "trafficsplits"]);
    assert!(splits.contains("canary"), "{splits}");
}

/// Whether agents have left anything pinned on a node.
pub(crate) fn is_pinned(node: &Node) -> bool {
    // The directory is there only where the file system is mounted.
    try_run_on(node, "test", &["-e", "/sys/fs/bpf/splitter"])
        .status
        .success()
}

/// Waits until a node is as it was: the kubelet takes a moment to put a pod's things away.
pub(crate) fn wait_for_picture(node: &Node, before: &Picture) {
    let now = Picture::of(node);
    // None of this is the kubelet's to put away.
    assert_eq!(
        (&now.pins, &now.programs, &now.groups),
        (&before.pins, &before.programs, &before.groups)
    );
    let what = format!("what {} was before: {before:#?}", node.name());
    wait_for(&what, || (Picture::of(node) == *before).then_some(()));
}

#[test]
fn agents_that_are_just_deleted_leave_splits_at_work_and_others_take_over() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let shop = cluster.namespace("deleted");
    // On both nodes: whatever happens to one, it is not the agents' doing.
    shop.shop(2);
    shop.split(&[9, 1]);
    for node in cluster.nodes() {
        cluster.copy_agent_to(node);
    }
    let load = Load::on(&cluster, shop.name(), "shop").start();
    cluster.kubectl(&["delete", "-k", "deploy/"]);
    let pods = cluster.try_kubectl(&["-n", SYSTEM, "get", "pods", "-o", "name"], None);
    assert_eq!(String::from_utf8_lossy(&pods.stdout), "");
    let mut before = Vec::new();
    for node in cluster.nodes() {
        let split = split_of(&status_on(node), shop.name());
        before.push(split.connections);
    }
    for (node, before) in cluster.nodes().iter().zip(before) {
        // Connections that no agent sees are counted as ever.
        wait_for("more connections", || {
            let split = split_of(&status_on(node), shop.name());
            (split.connections > before + 10).then_some(())
        });
    }
    cluster.kubectl(&["apply", "-k", "deploy/"]);
    cluster.wait_for_agents();
    load.finish().assert_exact([("v1", 9), ("v2", 1)]);
    shop.split(&[1, 1]);
    for node in cluster.nodes() {
        let expected = Tally::of([("v1", 10), ("v2", 10)]);
        assert_eq!(cluster.ask_from(node, &shop.url(), 20), expected);
    }
}

#[test]
fn one_node_is_cleaned_while_the_others_go_on() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let shop = cluster.namespace("one-node");
    shop.shop(1);
    shop.split(&[0, 1]);
    let [cleaned, other] = cluster.nodes() else {
        panic!("two nodes")
    };
    let user = User::new(cluster.local(), image::VERSION);
    let commands = documented::commands("docs/operations.md", "## Cleaning one node", "cleanup");
    user.run(&commands.replace("NODE=node-1", &format!("NODE={}", cleaned.name())));
    wait_for("a clean node", || (!is_pinned(cleaned)).then_some(()));
    let counts = cluster.ask_from(cleaned, &shop.url(), 100);
    assert!(counts.count("v1") > 0, "{counts:?}");
    assert_eq!(
        cluster.ask_from(other, &shop.url(), 10),
        Tally::of([("v2", 10)])
    );
    // The label has kept it away.
    assert!(!is_pinned(cleaned));
    let back = ["label", "node", cleaned.name(), "splitter.dev/agent-"];
    cluster.kubectl(&back);
    wait_for("the agent's return", || is_pinned(cleaned).then_some(()));
    cluster.wait_for_agents();
    shop.split(&[1, 0]);
    assert_eq!(
        cluster.ask_from(cleaned, &shop.url(), 10),
        Tally::of([("v1", 10)])
    );
    cluster.kubectl(&[
        "-n",
        SYSTEM,
        "delete",
        "pods",
        "-l",
        "!app.kubernetes.io/name",
    ]);
}
