//! What the agents have programmed on their nodes, as they tell it, and waiting for it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use splitter_api::{Explanation, Leaf, LeafState, Split, Status, Verdict};
use testbed::fixtures::read_exactly;

use crate::test_cluster::{Node, SYSTEM, TestCluster, wait_for, wait_for_success};

/// The label that the agents' pods have.
pub(crate) const AGENT_SELECTOR: &str = "app.kubernetes.io/name=splitter-agent";

impl TestCluster {
    /// The name of a node's agent pod.
    pub(crate) fn agent(&self, node: &Node) -> String {
        self.pod_on(node, SYSTEM, AGENT_SELECTOR)
    }

    /// The same; `None` while none is running.
    pub(crate) fn try_agent(&self, node: &Node) -> Option<String> {
        self.try_pod_on(node, SYSTEM, AGENT_SELECTOR)
    }

    /// Waits until every node's agent is the one that is wanted now, ready, and follows every kind
    /// of object: one that has just reached the API server again may be ready for long before.
    pub(crate) fn wait_for_agents(&self) {
        let target = "daemonset/splitter-agent";
        self.kubectl(&["-n", SYSTEM, "rollout", "status", target, "--timeout=90s"]);
        for node in self.nodes() {
            let what = format!("an agent that follows all on {}", node.name());
            wait_for_success(&what, || {
                // A DaemonSet may say that all its pods are ready when one was just deleted.
                self.ask_agent(node, "readyz").ok_or("it is not ready")?;
                let metrics = self.try_metrics(node).ok_or("it has no metrics")?;
                let followed = metrics.lines("source_synced");
                let others: Vec<_> = followed.iter().filter(|it| !it.ends_with(" 1")).collect();
                match (followed.len(), &others[..]) {
                    (0, _) => Err("it follows nothing".to_owned()),
                    (_, []) => Ok(()),
                    _ => Err(format!("not followed: {others:?}")),
                }
            });
        }
    }

    /// What a node's agent prints as JSON.
    fn agent_json<T: DeserializeOwned + Serialize>(&self, node: &Node, arguments: &[&str]) -> T {
        let pod = self.agent(node);
        let command = [
            &["-n", SYSTEM, "exec", &pod, "--", "/splitter-agent"],
            arguments,
            &["-o", "json"],
        ]
        .concat();
        // kubectl ends with an error where the command's answer is "no": programs that are not
        // attached yet, say.
        let output = self.try_kubectl(&command, None);
        // Else there is no document, and standard error says why.
        assert!(!output.stdout.is_empty(), "{command:?}: {output:?}");
        read_exactly(&output.stdout)
    }

    /// What `status` says on a node.
    pub(crate) fn status(&self, node: &Node) -> Status {
        self.agent_json(node, &["status"])
    }

    /// The split of a root on a node, as `status` tells it.
    pub(crate) fn split_on(&self, node: &Node, namespace: &str, root: &str) -> Option<Split> {
        let mut splits = self.status(node).splits.into_iter();
        splits.find(|split| split.namespace == namespace && split.root == root)
    }

    /// Waits until on every node the split of a root is as wanted.
    pub(crate) fn wait_for_split(
        &self,
        what: &str,
        namespace: &str,
        root: &str,
        wanted: impl Fn(Option<&Split>) -> bool,
    ) {
        for node in self.nodes() {
            wait_for(&format!("{what} on {}", node.name()), || {
                wanted(self.split_on(node, namespace, root).as_ref()).then_some(())
            });
        }
    }

    /// Waits until a split is programmed on every node: the leaves of the root have these weights,
    /// in this order, and each that has one takes its share.
    pub(crate) fn wait_for_weights(&self, namespace: &str, root: &str, weights: &[u64]) {
        self.wait_for_split(&format!("weights {weights:?}"), namespace, root, |split| {
            split.is_some_and(|split| {
                let leaves = &split.leaves;
                let is_programmed = |(leaf, weight): (&Leaf, &u64)| {
                    leaf.weight == *weight && (*weight == 0 || leaf.state == LeafState::Ready)
                };
                leaves.len() == weights.len() && leaves.iter().zip(weights).all(is_programmed)
            })
        });
    }

    /// The addresses and ports that connections to a root may be sent to on a node, by leaf, as
    /// `explain` tells them of the root's port.
    pub(crate) fn endpoints_on(
        &self,
        node: &Node,
        namespace: &str,
        root: &str,
        port: u16,
    ) -> BTreeMap<String, Vec<String>> {
        let target = format!("{root}.{namespace}:{port}");
        let explained: Explanation = self.agent_json(node, &["explain", &target]);
        let frontend = explained.frontends.into_iter().next();
        let leaves = frontend.into_iter().flat_map(|it| it.endpoints);
        leaves.map(|leaf| (leaf.service, leaf.addresses)).collect()
    }

    /// Waits until on every node a leaf of a root is in this state.
    pub(crate) fn wait_for_leaf(&self, namespace: &str, root: &str, leaf: &str, state: LeafState) {
        self.wait_for_split(&format!("{leaf} {state}"), namespace, root, |split| {
            let mut leaves = split.into_iter().flat_map(|split| &split.leaves);
            leaves.any(|one| one.service == leaf && one.state == state)
        });
    }

    /// Waits until on every node this is what becomes of connections to a root.
    pub(crate) fn wait_for_verdict(&self, namespace: &str, root: &str, verdict: Verdict) {
        self.wait_for_split(&format!("verdict {verdict}"), namespace, root, |split| {
            split.is_some_and(|split| split.verdict == verdict)
        });
    }
}
