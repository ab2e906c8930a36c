//! What is asked of a node itself, past Kubernetes, so that it can also be asked while parts of
//! Kubernetes are away.

use std::process::{Command, Output};

use splitter_api::{Split, Status};
use testbed::fixtures::read_exactly;

use crate::test_cluster::{Node, SYSTEM, TestCluster};

/// Where a node keeps a copy of the agent's program, to be run beside the agent.
const PROGRAM: &str = "/run/splitter-agent";

/// Runs a program on a node, whatever comes of it.
pub(crate) fn try_run_on(node: &Node, program: &str, arguments: &[&str]) -> Output {
    let mut command = node.local().command(program).expect("a command on a node");
    command.args(arguments).output().expect("a program runs")
}

/// Runs a program on a node, and returns what it prints; panics if it fails.
pub(crate) fn run_on(node: &Node, program: &str, arguments: &[&str]) -> String {
    let output = try_run_on(node, program, arguments);
    let name = node.name();
    assert!(
        output.status.success(),
        "{program} {arguments:?} on {name}: {output:?}"
    );
    String::from_utf8(output.stdout).expect("text")
}

/// Whether this machine has bpftool, which is a help to people and nothing that splitter needs.
pub(crate) fn has_bpftool() -> bool {
    let found = Command::new("bpftool").arg("version").output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("there is no bpftool: what it would tell is not looked at");
    }
    found
}

/// What `status` of the node's copy of the agent's program says. [`TestCluster::copy_agent_to`] makes it.
pub(crate) fn status_on(node: &Node) -> Status {
    let output = try_run_on(node, PROGRAM, &["status", "-o", "json"]);
    // 1 says that no agent is at work.
    let is_answer = matches!(output.status.code(), Some(0 | 1));
    assert!(is_answer, "on {}: {output:?}", node.name());
    read_exactly(&output.stdout)
}

/// The split of the root `shop` in what `status` printed. The programs must be attached.
pub(crate) fn split_of(status: &Status, namespace: &str) -> Split {
    assert!(status.node.attachment.attached, "{status:?}");
    let mut splits = status.splits.iter();
    let split = splits.find(|split| split.namespace == namespace && split.root == "shop");
    split.expect("a split that is programmed").clone()
}

/// The status and the body of an answer to a request that is made from a node.
pub(crate) fn request_from(node: &Node, method: &str, url: &str) -> (u16, String) {
    let arguments = [
        "--silent",
        "--max-time",
        "10",
        "--request",
        method,
        "--write-out",
        "\n%{http_code}",
        url,
    ];
    // No answer at all is the status 0.
    let output = try_run_on(node, "curl", &arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    let (body, status) = text.rsplit_once('\n').expect("a body and a status");
    (status.parse().expect("a status"), body.to_owned())
}

impl TestCluster {
    /// The address of a Service.
    pub(crate) fn cluster_ip(&self, namespace: &str, service: &str) -> String {
        let service = self.get(&["-n", namespace, "get", "service", service]);
        let address = service["spec"]["clusterIP"].as_str();
        address.expect("a Service has an address").to_owned()
    }

    /// The address of a pod.
    pub(crate) fn pod_ip(&self, namespace: &str, pod: &str) -> String {
        let pod = self.get(&["-n", namespace, "get", "pod", pod]);
        let address = pod["status"]["podIP"].as_str();
        address.expect("a pod has an address").to_owned()
    }

    /// By what containerd knows the only container of a pod.
    pub(crate) fn container(&self, namespace: &str, pod: &str) -> String {
        let pod = self.get(&["-n", namespace, "get", "pod", pod]);
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str();
        let id = id.and_then(|id| id.strip_prefix("containerd://"));
        id.expect("a container has an id").to_owned()
    }

    /// Runs containerd's own client on a node.
    pub(crate) fn ctr(&self, node: &Node, arguments: &[&str]) -> String {
        let program = self.local().tools().program("ctr").expect("ctr");
        let program = program.to_str().expect("a path that is text");
        let arguments = [&["--namespace", "k8s.io"], arguments].concat();
        run_on(node, program, &arguments)
    }

    /// The process id of a container on its node, while it runs.
    pub(crate) fn process(&self, node: &Node, container: &str) -> Option<u32> {
        let tasks = self.ctr(node, &["tasks", "list"]);
        let mut rows = tasks.lines().map(str::split_whitespace);
        let process = rows.find_map(|mut row| {
            let is_it = row.next() == Some(container);
            let (process, state) = (row.next()?, row.next()?);
            (is_it && state == "RUNNING").then(|| process.parse())
        });
        process.map(|process| process.expect("a process id"))
    }

    /// Sends a signal to the only container of a pod.
    pub(crate) fn signal(&self, node: &Node, namespace: &str, pod: &str, signal: &str) {
        let container = self.container(namespace, pod);
        self.ctr(node, &["tasks", "kill", "--signal", signal, &container]);
    }

    /// Gives a node a program of its own for [`status_on`]: the one that its agent runs.
    pub(crate) fn copy_agent_to(&self, node: &Node) {
        let container = self.container(SYSTEM, &self.agent(node));
        let process = self.process(node, &container).expect("an agent runs");
        let program = format!("/proc/{process}/root/splitter-agent");
        run_on(node, "cp", &["--remove-destination", &program, PROGRAM]);
    }
}
