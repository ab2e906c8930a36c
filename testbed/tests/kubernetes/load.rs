//! Clients that connect at a steady rate while something happens to the cluster.

use serde_json::{Value, json};
use testbed::cluster::Node;

use crate::counts::Counts;
use crate::site::{Site, examples_image, wait_for};

/// Between two requests of a client, in milliseconds.
const INTERVAL: &str = "20";

/// One client on each of some nodes, which asks a root again and again, each time over a new
/// connection and one at a time. They are pods of their own, because a stream of `kubectl exec`
/// would break with the API server.
pub(crate) struct Load<'a> {
    site: &'a Site,
    namespace: String,
    root: String,
    url: String,
    nodes: &'a [Node],
}

/// What came of a load, node by node.
pub(crate) struct Loaded<'a> {
    load: Load<'a>,
    counts: Vec<Counts>,
}

impl<'a> Load<'a> {
    /// Starts the clients, and returns when every one of them has connected. The address of the
    /// root is looked up here: whether names can be looked up at all times is not the question.
    pub(crate) fn start(site: &'a Site, namespace: &str, root: &str, nodes: &'a [Node]) -> Self {
        let load = Self {
            site,
            namespace: namespace.to_owned(),
            root: root.to_owned(),
            url: format!("http://{}/", site.cluster_ip(namespace, root)),
            nodes,
        };
        // A root whose leaves have no endpoints yet refuses.
        site.wait_for_split("ready leaves", namespace, root, |split| {
            let leaves = split.and_then(|split| split["leaves"].as_array());
            leaves.is_some_and(|leaves| leaves.iter().all(|leaf| leaf["state"] == "ready"))
        });
        for node in nodes {
            load.site.apply(&load.client(node));
        }
        for node in nodes {
            wait_for(&format!("load on {}", node.name()), || {
                let split = site.split_on(node, namespace, root)?;
                (split["connections"].as_u64()? > 0).then_some(())
            });
        }
        load
    }

    fn client(&self, node: &Node) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": Self::pod(node), "namespace": self.namespace},
            "spec": {
                "nodeName": node.name(),
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{
                    "name": "load", "image": examples_image(),
                    "args": ["load", self.url, "--interval", INTERVAL, "--report", "0"],
                }],
            },
        })
    }

    fn pod(node: &Node) -> String {
        format!("load-{}", node.name())
    }

    /// Ends the clients, and returns what they counted. Panics if a connection failed.
    pub(crate) fn finish(self) -> Loaded<'a> {
        for node in self.nodes {
            self.site
                .signal(node, &self.namespace, &Self::pod(node), "SIGTERM");
        }
        let counts = self.nodes.iter().map(|node| self.counts(node)).collect();
        Loaded { load: self, counts }
    }

    fn counts(&self, node: &Node) -> Counts {
        let pod = Self::pod(node);
        let target = format!("pod/{pod}");
        wait_for(&format!("the end of the load on {}", node.name()), || {
            let pod = self.site.get(&["-n", &self.namespace, "get", &target]);
            let phase = pod["status"]["phase"].as_str()?;
            ["Succeeded", "Failed"].contains(&phase).then_some(())
        });
        let log = self.site.kubectl(&["-n", &self.namespace, "logs", &pod]);
        let last = log.lines().last().unwrap_or_default();
        let summary: Value = serde_json::from_str(last).expect("a summary in JSON");
        assert_eq!(
            summary["failed"],
            0,
            "on {} in {} s: {} answers, failures: {}, the first of them: {}",
            node.name(),
            summary["seconds"],
            summary["identities"],
            summary["errors"],
            summary["failures"][0]
        );
        let identities = summary["identities"].as_object().expect("identities");
        Counts {
            identities: identities
                .iter()
                .map(|(identity, count)| (identity.clone(), count.as_u64().unwrap_or(0)))
                .collect(),
            ..Counts::default()
        }
    }
}

impl Loaded<'_> {
    /// Whether on every node the clients were answered in exactly these shares, which were programmed
    /// all the time: the block of connections that the clients left unfinished is finished first.
    pub(crate) fn assert_exact<const N: usize>(&self, shares: [(&str, u64); N]) {
        let Load {
            site, url, nodes, ..
        } = &self.load;
        let block: u64 = shares.iter().map(|(_, share)| share).sum();
        for (node, counts) in nodes.iter().zip(&self.counts) {
            let answered: u64 = counts.identities.values().sum();
            assert!(answered > 5 * block, "hardly a load: {counts:?}");
            let missing = block - answered % block;
            let rest = site.ask_from(node, url, missing);
            assert_eq!(rest.failed(), 0, "on {}: {rest:?}", node.name());
            let blocks = (answered + missing) / block;
            for (identity, share) in shares {
                assert_eq!(
                    counts.count(identity) + rest.count(identity),
                    share * blocks,
                    "{identity} on {} of {}/{}: {counts:?} and {rest:?}",
                    node.name(),
                    self.load.namespace,
                    self.load.root,
                );
            }
        }
    }
}
