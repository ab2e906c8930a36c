//! Clients that connect at a steady rate while something happens to the cluster.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use splitter_api::{Leaf, LeafState};
use testbed::fixtures::Tally;

use crate::test_cluster::{Node, TestCluster, examples_image, wait_for};

/// Between two requests of a client, in milliseconds.
const INTERVAL: &str = "20";

/// A Service to be under load beside one whose exact shares are looked at: two clients of one root
/// share its connections.
pub(crate) const BUSY: &str = "busy";

/// One client on each of some nodes, which asks a Service again and again, each time over a new
/// connection and one at a time. They are pods of their own, because a stream of `kubectl exec`
/// would break with the API server.
pub(crate) struct Load<'a> {
    cluster: &'a TestCluster,
    namespace: String,
    service: String,
    url: String,
    nodes: &'a [Node],
    timeout: Duration,
}

/// What the clients of a [`Load`] counted.
pub(crate) struct LoadResult<'a> {
    load: Load<'a>,
    /// Node by node.
    pub(crate) nodes: Vec<NodeResult>,
}

/// What the client on one node counted.
pub(crate) struct NodeResult {
    pub(crate) tally: Tally,
    /// When its first failures were.
    failures: Vec<SystemTime>,
    /// How long one may take.
    timeout: Duration,
    /// As the client printed it.
    pub(crate) summary: Value,
}

impl<'a> Load<'a> {
    /// On a Service, from every node. Its address is looked up here: whether names can be looked up
    /// at all times is not the question.
    pub(crate) fn on(cluster: &'a TestCluster, namespace: &str, service: &str) -> Self {
        Self {
            cluster,
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            url: format!("http://{}/", cluster.cluster_ip(namespace, service)),
            nodes: cluster.nodes(),
            timeout: Duration::from_secs(5),
        }
    }

    /// At another port than 80.
    pub(crate) fn at_port(self, port: u16) -> Self {
        let address = self.cluster.cluster_ip(&self.namespace, &self.service);
        let url = format!("http://{address}:{port}/");
        Self { url, ..self }
    }

    /// From these nodes alone.
    pub(crate) fn at_nodes(self, nodes: &'a [Node]) -> Self {
        Self { nodes, ..self }
    }

    /// With another time than five seconds for each request.
    pub(crate) fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Starts the clients of a root that is split, and returns when each was answered. A root whose
    /// leaves have no endpoints yet refuses, so they are waited for.
    pub(crate) fn start(self) -> Self {
        let (namespace, service) = (&self.namespace, &self.service);
        self.cluster
            .wait_for_split("ready leaves", namespace, service, |split| {
                let is_ready = |leaf: &Leaf| leaf.state == LeafState::Ready;
                split.is_some_and(|split| split.leaves.iter().all(is_ready))
            });
        self.start_unsplit()
    }

    /// The same, whether the Service is split or not.
    pub(crate) fn start_unsplit(self) -> Self {
        for node in self.nodes {
            self.cluster.apply(&self.client(node));
        }
        for node in self.nodes {
            wait_for(&format!("load on {}", node.name()), || {
                let reports = self.reports(node)?;
                (Tally::sum(&reports).answered() > 0).then_some(())
            });
        }
        self
    }

    fn client(&self, node: &Node) -> Value {
        let timeout = self.timeout.as_millis().to_string();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.pod(node), "namespace": self.namespace},
            "spec": {
                "nodeName": node.name(),
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 10,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{
                    "name": "load", "image": examples_image(),
                    "args": [
                        "load", self.url, "--interval", INTERVAL, "--report", "1",
                        "--timeout", timeout,
                    ],
                }],
            },
        })
    }

    fn pod(&self, node: &Node) -> String {
        format!("load-{}-{}", self.service, node.name())
    }

    /// What a client has printed.
    fn lines(&self, node: &Node) -> Option<Vec<Value>> {
        let arguments = ["-n", &self.namespace, "logs", &self.pod(node)];
        let output = self.cluster.try_kubectl(&arguments, None);
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().ok()
    }

    /// What a client has counted so far, second by second.
    fn reports(&self, node: &Node) -> Option<Vec<Tally>> {
        let lines = self.lines(node)?;
        lines.iter().map(Tally::of_report).collect()
    }

    /// Waits until everything that was begun before is counted, and then some; panics if a
    /// connection has ever failed.
    pub(crate) fn assert_goes_on(&self) {
        let reports =
            || -> Option<Vec<_>> { self.nodes.iter().map(|node| self.reports(node)).collect() };
        let before = wait_for("reports", reports);
        let reports = wait_for("more connections", || {
            let reports = reports()?;
            let mut both = reports.iter().zip(&before);
            // The first report after this moment may be of connections before it.
            if both.all(|(now, before)| now.len() >= before.len() + 2) {
                return Some(reports);
            }
            thread::sleep(Duration::from_millis(200));
            None
        });
        for (node, reports) in self.nodes.iter().zip(reports) {
            let tally = Tally::sum(&reports);
            assert_eq!(tally.failed(), 0, "on {}: {tally:?}", node.name());
            assert!(tally.answered() > 0, "nobody answered");
        }
    }

    /// Ends the clients, and returns what each counted.
    pub(crate) fn finish(self) -> LoadResult<'a> {
        // A pod that is past its deadline is told to end like one that is deleted, but stays, and
        // with it what it has said.
        let patch = json!({"spec": {"activeDeadlineSeconds": 1}}).to_string();
        for node in self.nodes {
            let pod = self.pod(node);
            self.cluster
                .kubectl(&["-n", &self.namespace, "patch", "pod", &pod, "-p", &patch]);
        }
        let nodes = self.nodes.iter().map(|node| self.result(node)).collect();
        LoadResult { load: self, nodes }
    }

    fn result(&self, node: &Node) -> NodeResult {
        let summary = wait_for(&format!("the end of the load on {}", node.name()), || {
            // What a client prints last has the time that all of it took.
            let last = self.lines(node)?.pop()?;
            last["seconds"].is_number().then_some(last)
        });
        let failures = summary["failures"].as_array().into_iter().flatten();
        let failures = failures
            .filter_map(|failure| failure["at"].as_f64())
            .map(|at| UNIX_EPOCH + Duration::from_secs_f64(at));
        NodeResult {
            tally: Tally::of_report(&summary).expect("a summary"),
            failures: failures.collect(),
            timeout: self.timeout,
            summary,
        }
    }
}

impl LoadResult<'_> {
    /// Panics if a connection failed.
    pub(crate) fn assert_none_failed(&self) {
        for (node, NodeResult { tally, summary, .. }) in self.load.nodes.iter().zip(&self.nodes) {
            assert_eq!(tally.failed(), 0, "on {}: {summary}", node.name());
        }
    }

    /// Panics unless no connection failed and on every node the clients were answered in exactly
    /// these shares, which were programmed all the time: the block of connections that the clients
    /// left unfinished is finished first.
    pub(crate) fn assert_exact<const N: usize>(&self, shares: [(&str, u64); N]) {
        self.assert_none_failed();
        let Load { cluster, url, .. } = &self.load;
        let block: u64 = shares.iter().map(|(_, share)| share).sum();
        for (node, NodeResult { tally, .. }) in self.load.nodes.iter().zip(&self.nodes) {
            let answered = tally.answered();
            assert!(answered > 5 * block, "hardly a load: {tally:?}");
            let missing = block - answered % block;
            let rest = cluster.ask_from(node, url, missing);
            assert_eq!(rest.failed(), 0, "on {}: {rest:?}", node.name());
            let blocks = (answered + missing) / block;
            for (identity, share) in shares {
                assert_eq!(
                    tally.count(identity) + rest.count(identity),
                    share * blocks,
                    "{identity} on {} of {}/{}: {tally:?} and {rest:?}",
                    node.name(),
                    self.load.namespace,
                    self.load.service,
                );
            }
        }
    }
}

impl NodeResult {
    /// Panics if a connection failed that began when no node's maps had a pod any more: one that
    /// began before fails until its time is up, or a moment later on a busy machine.
    pub(crate) fn assert_none_failed_after(&self, gone: SystemTime) {
        let last = gone + self.timeout + Duration::from_secs(1);
        let late = self.failures.iter().filter(|at| **at > last).count();
        assert_eq!(late, 0, "{}", self.summary);
        eprintln!("{} failed before", self.tally.failed());
    }
}
