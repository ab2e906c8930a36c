//! The cluster that the tests share, with the agent on it as `kubectl apply -k deploy/` puts it
//! there, and clients on every node.

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::cluster::{Cluster, Component, Node, NodeComponent, Options};
use testbed::fixtures::image::Image;

use crate::counts::Counts;

/// How long anything may take that takes seconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The namespace of the agents.
pub(crate) const SYSTEM: &str = "splitter-system";

/// The namespace of the clients: a pod on each node in which commands are run.
pub(crate) const CLIENTS: &str = "clients";

static SITE: Mutex<Option<Site>> = Mutex::new(None);

/// The cluster that all tests of this program share.
pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    /// The pod in which commands are run, for each node.
    clients: BTreeMap<String, String>,
}

/// The turn of a test on the cluster.
pub(crate) struct Turn(MutexGuard<'static, Option<Site>>);

impl std::ops::Deref for Turn {
    type Target = Site;

    fn deref(&self) -> &Site {
        self.0.as_ref().expect("a site is there during a turn")
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell(&["get", "nodes,pods", "--all-namespaces", "-o", "wide"]);
            let agents = "--selector=app.kubernetes.io/name=splitter-agent";
            let since = ["--since=3m", "--tail=40", "--prefix"];
            self.tell(&[&["-n", SYSTEM, "logs", agents][..], &since].concat());
        }
    }
}

impl Site {
    /// Waits for this test's turn. Then the control plane and all nodes are up, the CRD of
    /// `deploy/crd` is installed, every agent is ready, and there is a client on every node.
    pub(crate) fn enter() -> Turn {
        // A test that failed has let go of the cluster in whatever state; that is mended below.
        let mut site = SITE.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = site.get_or_insert_with(Self::new);
        ready.mend();
        Turn(site)
    }

    /// Waits for this test's turn without the shared cluster, for a test with one of its own.
    pub(crate) fn alone() -> impl Drop {
        SITE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new() -> Self {
        let name = format!("test-{}", std::process::id());
        Self::up(&Options {
            name,
            ..Options::default()
        })
    }

    /// A cluster of a test's own, for what cannot be tried on the one that all share.
    pub(crate) fn up(options: &Options) -> Self {
        let cluster = Cluster::up(options).expect("a cluster");
        for image in Image::ALL {
            let archive = image.build().expect("an image");
            cluster.load(&archive).expect("an image on the nodes");
        }
        let mut site = Self {
            cluster,
            clients: BTreeMap::new(),
        };
        site.start_clients();
        let client = |node: &Node| {
            let pod = site.pod_on(node, CLIENTS, "app=client");
            (node.name().to_owned(), pod)
        };
        site.clients = site.nodes().iter().map(client).collect();
        site
    }

    /// Puts back what an earlier test may have taken away.
    pub(crate) fn mend(&self) {
        for component in [
            Component::Etcd,
            Component::ApiServer,
            Component::ControllerManager,
            Component::Scheduler,
        ] {
            self.cluster.start(component).expect("a control plane");
        }
        for node in self.cluster.nodes() {
            for component in [
                NodeComponent::Containerd,
                NodeComponent::Kubelet,
                NodeComponent::KubeProxy,
            ] {
                node.start(component).expect("a node");
            }
        }
        wait_for("the API server", || {
            let ready = self.try_kubectl(&["get", "--raw", "/readyz"], None);
            ready.status.success().then_some(())
        });
        // A kubelet that was away for long has cost its node and the pods there their readiness.
        self.kubectl(&[
            "wait",
            "--for=condition=Ready",
            "nodes",
            "--all",
            "--timeout=90s",
        ]);
        // A node that was drained takes pods again.
        self.kubectl(&["uncordon", "-l", "kubernetes.io/os=linux"]);
        // And one that was cleaned gets its agent back.
        self.kubectl(&["label", "nodes", "--all", "splitter.dev/agent-"]);
        let crd = ["get", "crd", "trafficsplits.split.smi-spec.io"];
        if !self.try_kubectl(&crd, None).status.success() {
            self.kubectl(&["create", "-k", "deploy/crd"]);
            self.wait_for_definition();
        }
        self.kubectl(&["apply", "-k", "deploy/"]);
        self.wait_for_agents();
    }

    /// Waits until every node's agent is the one that is wanted now, ready, and follows every kind
    /// of object: one that has just reached the API server again may be ready for long before.
    pub(crate) fn wait_for_agents(&self) {
        let target = "daemonset/splitter-agent";
        self.kubectl(&["-n", SYSTEM, "rollout", "status", target, "--timeout=90s"]);
        for node in self.nodes() {
            wait_for(
                &format!("an agent that follows all on {}", node.name()),
                || {
                    let metrics = self.try_metrics(node)?;
                    let followed = metrics.values("source_synced", &[]);
                    (!followed.is_empty() && followed.iter().all(|it| *it == 1)).then_some(())
                },
            );
        }
    }

    fn start_clients(&self) {
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

    /// Runs kubectl in the workspace, and returns what it prints; panics if it fails.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments, None);
        assert!(
            output.status.success(),
            "kubectl {arguments:?} failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("kubectl prints text")
    }

    /// Runs kubectl, whatever comes of it.
    pub(crate) fn try_kubectl(&self, arguments: &[&str], input: Option<&str>) -> Output {
        let output = self
            .cluster
            .run_kubectl(arguments, input.unwrap_or_default());
        output.expect("kubectl runs")
    }

    /// Prints what kubectl prints, to explain a failure.
    pub(crate) fn tell(&self, arguments: &[&str]) {
        let output = self.try_kubectl(arguments, None);
        eprintln!("kubectl {}:", arguments.join(" "));
        for stream in [output.stdout, output.stderr] {
            eprint!("{}", String::from_utf8_lossy(&stream));
        }
    }

    /// What kubectl prints as JSON.
    pub(crate) fn get(&self, arguments: &[&str]) -> Value {
        let text = self.kubectl(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).expect("JSON")
    }

    /// Applies an object, or a List of some.
    pub(crate) fn apply(&self, object: &Value) {
        let output = self.try_apply(object);
        assert!(output.status.success(), "{output:?}");
    }

    /// Applies an object, whatever comes of it.
    pub(crate) fn try_apply(&self, object: &Value) -> Output {
        self.try_kubectl(&["apply", "-f", "-"], Some(&object.to_string()))
    }

    /// Applies a file of the workspace.
    pub(crate) fn apply_file(&self, path: &str) {
        self.kubectl(&["apply", "-f", path]);
    }

    /// The nodes.
    pub(crate) fn nodes(&self) -> &[Node] {
        self.cluster.nodes()
    }

    /// The name of the pod on a node that has a label.
    pub(crate) fn pod_on(&self, node: &Node, namespace: &str, selector: &str) -> String {
        let field = format!("spec.nodeName={}", node.name());
        let pods = self.get(&[
            "-n",
            namespace,
            "get",
            "pods",
            "-l",
            selector,
            "--field-selector",
            &field,
        ]);
        let running = |pod: &&Value| {
            pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
        };
        pods["items"]
            .as_array()
            .and_then(|pods| pods.iter().find(running))
            .and_then(|pod| pod["metadata"]["name"].as_str())
            .unwrap_or_else(|| panic!("no pod {selector} of {namespace} runs on {}", node.name()))
            .to_owned()
    }

    /// The name of the pod on a node in which commands are run.
    pub(crate) fn client_on(&self, node: &Node) -> &str {
        &self.clients[node.name()]
    }

    /// The name of a node's agent pod.
    pub(crate) fn agent(&self, node: &Node) -> String {
        self.pod_on(node, SYSTEM, "app.kubernetes.io/name=splitter-agent")
    }

    /// What a node's agent prints as JSON.
    pub(crate) fn agent_json(&self, node: &Node, arguments: &[&str]) -> Value {
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
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{command:?}: {output:?}"))
    }

    /// The split of a root on a node, as `status` tells it.
    pub(crate) fn split_on(&self, node: &Node, namespace: &str, root: &str) -> Option<Value> {
        let status = self.agent_json(node, &["status"]);
        let splits = status["splits"].as_array()?;
        let wanted = |split: &&Value| split["namespace"] == namespace && split["root"] == root;
        splits.iter().find(wanted).cloned()
    }

    /// Waits until on every node the split of a root is as wanted.
    pub(crate) fn wait_for_split(
        &self,
        what: &str,
        namespace: &str,
        root: &str,
        wanted: impl Fn(Option<&Value>) -> bool,
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
            let leaves = split.and_then(|split| split["leaves"].as_array());
            leaves.is_some_and(|leaves| {
                let is_programmed = |(leaf, weight): (&Value, &u64)| {
                    leaf["weight"] == *weight && (*weight == 0 || leaf["state"] == "ready")
                };
                leaves.len() == weights.len() && leaves.iter().zip(weights).all(is_programmed)
            })
        });
    }

    /// Asks an URL a number of times from a pod on a node, each time over a new connection.
    pub(crate) fn ask_from(&self, node: &Node, url: &str, count: u64) -> Counts {
        let pod = self.client_on(node);
        let count = count.to_string();
        let output = self.try_kubectl(
            &[
                "-n", CLIENTS, "exec", pod, "--", "/example", "get", url, "--count", &count,
                "--json",
            ],
            None,
        );
        let text = String::from_utf8_lossy(&output.stdout);
        let mut counts = Counts::default();
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
        assert!(is_whole, "asking {url} from {}: {output:?}", node.name());
        counts
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
        let explained = self.agent_json(node, &["explain", &target]);
        let leaves = explained["frontends"][0]["endpoints"].as_array();
        let addresses = |leaf: &Value| -> Vec<String> {
            let addresses = leaf["addresses"].as_array().into_iter().flatten();
            let texts = addresses.filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        };
        leaves
            .into_iter()
            .flatten()
            .filter_map(|leaf| Some((leaf["service"].as_str()?.to_owned(), addresses(leaf))))
            .collect()
    }

    /// Waits until on every node a leaf of a root is in this state.
    pub(crate) fn wait_for_leaf(&self, namespace: &str, root: &str, leaf: &str, state: &str) {
        self.wait_for_split(&format!("{leaf} {state}"), namespace, root, |split| {
            let mut leaves = split
                .and_then(|split| split["leaves"].as_array())
                .into_iter()
                .flatten();
            leaves.any(|one| one["service"] == leaf && one["state"] == state)
        });
    }

    /// Waits until on every node this is what becomes of connections to a root.
    pub(crate) fn wait_for_verdict(&self, namespace: &str, root: &str, verdict: &str) {
        self.wait_for_split(&format!("verdict {verdict}"), namespace, root, |split| {
            split.is_some_and(|split| split["verdict"] == verdict)
        });
    }

    /// Waits for an Event about a TrafficSplit.
    pub(crate) fn wait_for_event(&self, namespace: &str, reason: &str) {
        wait_for(&format!("Event {reason}"), || {
            let events = self.get(&["-n", namespace, "get", "events.v1.events.k8s.io"]);
            let mut events = events["items"].as_array()?.iter();
            let is_it = |event: &Value| {
                event["reason"] == reason && event["regarding"]["kind"] == "TrafficSplit"
            };
            events.any(is_it).then_some(())
        });
    }
}

/// The image of the example servers and clients.
pub(crate) fn examples_image() -> String {
    Image::Examples.reference()
}

/// Polls until there is something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}
