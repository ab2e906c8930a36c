//! What is shown.

use std::net::{IpAddr, Ipv4Addr};

use clap::ValueEnum;
use serde_json::{Value, json};
use testbed::fixtures::manifests::traffic_split;

/// The APIs in which a canary can be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Api {
    /// SMI's TrafficSplit
    #[default]
    Smi,
    /// Istio's VirtualService
    Istio,
    /// The Gateway API's HTTPRoute
    Gateway,
}

impl Api {
    /// The kind of its objects, with the article.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Smi => "the TrafficSplit",
            Self::Istio => "the VirtualService",
            Self::Gateway => "the HTTPRoute",
        }
    }
}

/// The bookstore: bookbuyer counts who sold it its books.
pub(crate) const BOOKSTORE: Scenario = Scenario {
    command: "demo bookstore",
    title: "bookstore: one Service, two versions behind it",
    namespace: "bookstore",
    root: "bookstore",
    leaves: ["bookstore-v1", "bookstore-v2"],
    split: "bookstore-split",
    client: "bookbuyer",
    uses_curl: false,
    path: "/books-bought",
    steps: &[[100, 0], [50, 50], [90, 10], [0, 100]],
    requests: 1_000,
    watchable_rate: 750,
    directory: "deploy/examples/bookstore",
    manifest: "00-bookstore.yaml",
    cluster_url: "http://bookstore.bookstore:14001/books-bought",
};

/// The canary: curl shows the headers.
pub(crate) const HTTPBIN: Scenario = Scenario {
    command: "demo httpbin",
    title: "httpbin: a canary, watched with curl",
    namespace: "httpbin",
    root: "httpbin",
    leaves: ["httpbin-v1", "httpbin-v2"],
    split: "http-split",
    client: "curl",
    uses_curl: true,
    path: "/json",
    steps: &[[100, 0], [50, 50]],
    requests: 10,
    watchable_rate: 6,
    directory: "deploy/examples/httpbin",
    manifest: "00-httpbin.yaml",
    cluster_url: "http://httpbin.httpbin:8000/ip",
};

/// The port of every Service without a cluster.
pub(crate) const PORT: u16 = 14001;

/// A root Service with two leaves, a client, and what happens to the weights.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// What was typed after `cargo xtask`.
    pub(crate) command: &'static str,
    /// One line on what it shows.
    pub(crate) title: &'static str,
    /// The Kubernetes namespace of the Services.
    pub(crate) namespace: &'static str,
    /// The root Service.
    pub(crate) root: &'static str,
    /// The leaf Services, each with one pod of the same name.
    pub(crate) leaves: [&'static str; 2],
    /// The object that splits it.
    pub(crate) split: &'static str,
    /// The client's pod, without a cluster.
    pub(crate) client: &'static str,
    /// Whether each request is a run of curl, and not one of a process that stays.
    pub(crate) uses_curl: bool,
    /// What it asks for.
    pub(crate) path: &'static str,
    /// The weights, step after step, without a cluster.
    pub(crate) steps: &'static [[u64; 2]],
    /// How many requests there are in a step when nothing else is said.
    pub(crate) requests: u64,
    /// How many a second make a step that people can follow.
    pub(crate) watchable_rate: u64,
    /// The manifests for a cluster. Those that are called `NN-split-A-B.yaml` are the steps.
    pub(crate) directory: &'static str,
    /// The one with the Services and the pods behind them.
    pub(crate) manifest: &'static str,
    /// What clients on a cluster ask for.
    pub(crate) cluster_url: &'static str,
}

impl Scenario {
    /// The Services with their ClusterIPs, the root first.
    pub(crate) fn services(&self) -> [(&'static str, Ipv4Addr); 3] {
        let [one, two] = self.leaves;
        let address = |index: u8| Ipv4Addr::new(10, 96, 0, 10 + index);
        [
            (self.root, address(0)),
            (one, address(1)),
            (two, address(2)),
        ]
    }

    /// `host:port` of the root Service, as clients know it.
    pub(crate) fn authority(&self) -> String {
        format!("{}.{}:{PORT}", self.root, self.namespace)
    }

    /// What the client asks for.
    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.authority(), self.path)
    }

    /// What a cluster's name server would know.
    pub(crate) fn names(&self) -> Vec<(String, IpAddr)> {
        let suffixes = ["", ".svc", ".svc.cluster.local"];
        let name = |(service, address): (&str, Ipv4Addr)| {
            let name = format!("{service}.{}", self.namespace);
            suffixes.map(|suffix| (format!("{name}{suffix}"), address.into()))
        };
        self.services().into_iter().flat_map(name).collect()
    }

    /// The object that splits the root Service, as it is written in an API.
    pub(crate) fn object(&self, api: Api, weights: [u64; 2]) -> Value {
        let Self {
            namespace,
            root,
            split,
            ..
        } = self;
        let [one, two] = self.leaves;
        let leaves = [(one, weights[0]), (two, weights[1])];
        let metadata = json!({"namespace": namespace, "name": split});
        match api {
            Api::Smi => {
                let root = format!("{root}.{namespace}");
                traffic_split("v1alpha2", namespace, split, &root, &leaves)
            }
            Api::Istio => {
                let route = leaves
                    .map(|(host, weight)| json!({"destination": {"host": host}, "weight": weight}));
                json!({
                    "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                    "metadata": metadata,
                    "spec": {"hosts": [root], "http": [{"route": route}]},
                })
            }
            Api::Gateway => {
                let backends = leaves
                    .map(|(name, weight)| json!({"name": name, "port": PORT, "weight": weight}));
                json!({
                    "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                    "metadata": metadata,
                    "spec": {
                        "parentRefs": [{"group": "", "kind": "Service", "name": root}],
                        "rules": [{"backendRefs": backends}],
                    },
                })
            }
        }
    }
}
