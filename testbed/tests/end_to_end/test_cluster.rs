//! The cluster that the tests share, with the agent on it as `kubectl apply -k deploy/` puts it
//! there, and clients on every node.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Display;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::cluster::{self, Cluster, Component, NodeComponent, Options};
use testbed::fixtures::image::Image;
use testbed::workspace;

use crate::agents::AGENT_SELECTOR;
use crate::clients::CLIENTS;

/// How long anything may take that takes seconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The namespace of the agents.
pub(crate) const SYSTEM: &str = "splitter-system";

/// Names the kubeconfig of a cluster to run the tests on instead of one that is made for them. Not
/// `KUBECONFIG`: nobody shall run tests on a cluster by accident.
const KUBECONFIG: &str = "SPLITTER_TEST_KUBECONFIG";

const NOT_LOCAL: &str = "a test that needs a cluster of this machine asks for one";

static SHARED: Mutex<Option<TestCluster>> = Mutex::new(None);

/// The cluster that all tests of this program share.
pub(crate) struct TestCluster {
    origin: Origin,
    nodes: Vec<Node>,
    /// The pod in which commands are run, for each node.
    clients: BTreeMap<String, String>,
}

/// Where a cluster is from.
enum Origin {
    /// Made for the tests, on this machine.
    Local(Cluster),
    /// Somebody's, by its kubeconfig. The agents are there already.
    Given(String),
}

/// A node of a [`TestCluster`].
pub(crate) struct Node {
    name: String,
    local: Option<cluster::Node>,
}

impl Node {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is of a cluster that was made for the tests.
    pub(crate) fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// The node itself, past Kubernetes. Only of a cluster that was made for the tests.
    pub(crate) fn local(&self) -> &cluster::Node {
        self.local.as_ref().expect(NOT_LOCAL)
    }
}

/// The turn of a test on the cluster.
pub(crate) struct ClusterGuard(MutexGuard<'static, Option<TestCluster>>);

impl std::ops::Deref for ClusterGuard {
    type Target = TestCluster;

    fn deref(&self) -> &TestCluster {
        self.0.as_ref().expect("a cluster is there during a turn")
    }
}

impl Drop for ClusterGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell_state();
        }
    }
}

impl TestCluster {
    /// Waits for this test's turn. Then the control plane and all nodes are up, the CRD of
    /// `deploy/crd` is installed, every agent is ready, and there is a client on every node.
    pub(crate) fn enter() -> ClusterGuard {
        // A test that failed has let go of the cluster in whatever state; that is mended below.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = shared.get_or_insert_with(Self::new);
        match ready.origin {
            Origin::Local(_) => ready.mend(),
            Origin::Given(_) => ready.wait_for_agents(),
        }
        ClusterGuard(shared)
    }

    /// The same for a test that goes past Kubernetes to the nodes, breaks something, or changes
    /// what the whole cluster has: `None` where the cluster is somebody's.
    pub(crate) fn enter_local() -> Option<ClusterGuard> {
        is_local().then(Self::enter)
    }

    /// Waits for this test's turn and makes a cluster of its own, for what cannot be tried on the
    /// one that all share. `None` where tests use somebody's.
    pub(crate) fn own(options: &Options) -> Option<ClusterOfOwn> {
        is_local().then(|| {
            let turn = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            ClusterOfOwn {
                cluster: Self::up(options),
                _turn: turn,
            }
        })
    }

    fn new() -> Self {
        match given() {
            Some(kubeconfig) => Self::at(kubeconfig),
            None => Self::up(&Options {
                name: format!("test-{}", std::process::id()),
                ..Options::default()
            }),
        }
    }

    fn up(options: &Options) -> Self {
        let cluster = Cluster::up(options).expect("a cluster");
        for image in Image::ALL {
            let archive = image.build().expect("an image");
            cluster.load(&archive).expect("an image on the nodes");
        }
        let node = |node: &cluster::Node| Node {
            name: node.name().to_owned(),
            local: Some(node.clone()),
        };
        let nodes = cluster.nodes().iter().map(node).collect();
        Self::with_clients(Origin::Local(cluster), nodes)
    }

    /// Somebody's cluster.
    fn at(kubeconfig: String) -> Self {
        eprintln!(
            "{KUBECONFIG} is set: tests run on the cluster of {kubeconfig}. They use the agents \
             that are there; make and delete namespaces (bookstore, bookbuyer, httpbin, leaves-*, \
             names, rivals, slices), which must not be there; and leave the namespace {CLIENTS}. The nodes \
             need the image {}.",
            examples_image()
        );
        let cluster = Self {
            origin: Origin::Given(kubeconfig),
            nodes: Vec::new(),
            clients: BTreeMap::new(),
        };
        cluster.wait_for_agents();
        // Where an agent runs, so do clients.
        let pods = cluster.get(&["-n", SYSTEM, "get", "pods", "-l", AGENT_SELECTOR]);
        let pods = pods["items"].as_array().expect("pods").iter();
        let names = pods.filter_map(|pod| pod["spec"]["nodeName"].as_str());
        let node = |name: &str| Node {
            name: name.to_owned(),
            local: None,
        };
        let nodes = names.map(node).collect();
        Self::with_clients(cluster.origin, nodes)
    }

    fn with_clients(origin: Origin, nodes: Vec<Node>) -> Self {
        let mut cluster = Self {
            origin,
            nodes,
            clients: BTreeMap::new(),
        };
        cluster.start_clients();
        let client = |node: &Node| {
            let pod = cluster.pod_on(node, CLIENTS, "app=client");
            (node.name().to_owned(), pod)
        };
        cluster.clients = cluster.nodes.iter().map(client).collect();
        cluster
    }

    /// The cluster itself, past Kubernetes.
    pub(crate) fn local(&self) -> &Cluster {
        match &self.origin {
            Origin::Local(cluster) => cluster,
            Origin::Given(_) => panic!("{NOT_LOCAL}"),
        }
    }

    /// Puts back what an earlier test may have taken away.
    pub(crate) fn mend(&self) {
        for component in [
            Component::Etcd,
            Component::ApiServer,
            Component::ControllerManager,
            Component::Scheduler,
        ] {
            self.local().start(component).expect("a control plane");
        }
        for node in &self.nodes {
            for component in [
                NodeComponent::Containerd,
                NodeComponent::Kubelet,
                NodeComponent::KubeProxy,
            ] {
                node.local().start(component).expect("a node");
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
        let input = input.unwrap_or_default();
        let output = match &self.origin {
            Origin::Local(cluster) => cluster.run_kubectl(arguments, input),
            Origin::Given(kubeconfig) => {
                let mut kubectl = Command::new("kubectl");
                kubectl.env("KUBECONFIG", kubeconfig).args(arguments);
                workspace::run_with_input(&mut kubectl, input)
            }
        };
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

    /// Tells how things are, for a test that fails.
    fn tell_state(&self) {
        self.tell(&["get", "nodes,pods", "--all-namespaces", "-o", "wide"]);
        self.tell(&["-n", SYSTEM, "get", "events"]);
        let agents = ["-n", SYSTEM, "logs", "-l", AGENT_SELECTOR];
        let since = ["--since=3m", "--tail=100", "--prefix"];
        self.tell(&[&agents[..], &since].concat());
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
        &self.nodes
    }

    /// The name of the pod on a node that has a label.
    pub(crate) fn pod_on(&self, node: &Node, namespace: &str, selector: &str) -> String {
        self.try_pod_on(node, namespace, selector)
            .unwrap_or_else(|| panic!("no pod {selector} of {namespace} runs on {}", node.name()))
    }

    /// The same; `None` while none is running.
    pub(crate) fn try_pod_on(
        &self,
        node: &Node,
        namespace: &str,
        selector: &str,
    ) -> Option<String> {
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
        let pod = pods["items"].as_array()?.iter().find(running)?;
        Some(pod["metadata"]["name"].as_str()?.to_owned())
    }

    /// The name of the pod on a node in which commands are run.
    pub(crate) fn client_on(&self, node: &Node) -> &str {
        &self.clients[node.name()]
    }
}

/// A cluster that one test has for itself, during its turn.
pub(crate) struct ClusterOfOwn {
    // Before the turn is over, the cluster is down.
    cluster: TestCluster,
    _turn: MutexGuard<'static, Option<TestCluster>>,
}

impl Drop for ClusterOfOwn {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell_state();
        }
    }
}

impl std::ops::Deref for ClusterOfOwn {
    type Target = TestCluster;

    fn deref(&self) -> &TestCluster {
        &self.cluster
    }
}

/// The kubeconfig of the cluster that tests are to run on, if not on one that is made for them.
fn given() -> Option<String> {
    env::var(KUBECONFIG).ok().filter(|path| !path.is_empty())
}

/// Whether clusters are made for the tests; if not, says that this test is left out.
fn is_local() -> bool {
    let is_local = given().is_none();
    if !is_local {
        let name = thread::current().name().unwrap_or_default().to_owned();
        eprintln!("{name} is left out: it needs a cluster of its own ({KUBECONFIG} is set)");
    }
    is_local
}

/// The image of the example servers and clients.
pub(crate) fn examples_image() -> String {
    Image::Examples.reference()
}

/// Polls until there is something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    wait_for_success(what, || look().ok_or("it is not there"))
}

/// Polls until there is something, and tells what was there instead if it never is.
pub(crate) fn wait_for_success<T, E: Display>(
    what: &str,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(error) => assert!(start.elapsed() < PATIENCE, "never: {what}: {error}"),
        }
        thread::sleep(Duration::from_millis(50));
    }
}
