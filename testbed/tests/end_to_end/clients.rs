//! A client on every node: a pod in which commands are run.

use serde_json::{Value, json};
use testbed::fixtures::Tally;

use crate::test_cluster::{Node, TestCluster, examples_image};

/// The namespace of the clients: a pod on each node in which commands are run.
pub(crate) const CLIENTS: &str = "clients";

impl TestCluster {
    /// Starts them, and waits until they run.
    pub(crate) fn start_clients(&self) {
        self.apply(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CLIENTS}}),
        );
        let labels = json!({"app": "client"});
        self.apply(&json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "client", "namespace": CLIENTS},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                        "name": "client", "image": examples_image(), "args": ["idle"],
                    }]},
                },
            },
        }));
        let target = "daemonset/client";
        self.kubectl(&["-n", CLIENTS, "rollout", "status", target, "--timeout=90s"]);
    }

    /// Asks an URL a number of times from a pod on a node, each time over a new connection.
    pub(crate) fn ask_from(&self, node: &Node, url: &str, count: u64) -> Tally {
        self.ask_in(CLIENTS, self.client_on(node), url, count)
    }

    /// The same from any pod of the example's image.
    pub(crate) fn ask_in(&self, namespace: &str, pod: &str, url: &str, count: u64) -> Tally {
        let count = count.to_string();
        let output = self.try_kubectl(
            &[
                "-n", namespace, "exec", pod, "--", "/example", "get", url, "--count", &count,
                "--json",
            ],
            None,
        );
        let text = String::from_utf8_lossy(&output.stdout);
        let mut counts = Tally::default();
        let mut is_whole = false;
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).expect("lines of JSON");
            let count = line["count"].as_u64().unwrap_or(0);
            if let Some(identity) = line["identity"].as_str() {
                counts.identities.insert(identity.to_owned(), count);
            } else if let Some(error) = line["error"].as_str() {
                counts.errors.insert(error.to_owned(), count);
            }
            is_whole |= line["total"].is_u64();
        }
        assert!(is_whole, "asking {url} from {pod}: {output:?}");
        counts
    }
}
