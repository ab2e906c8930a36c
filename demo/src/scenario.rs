//! What the scenarios consist of.

use std::net::{IpAddr, Ipv4Addr};

/// The bookstore: bookbuyer counts who sold it its books.
pub(crate) const BOOKSTORE: Scenario = Scenario {
    command: "demo bookstore",
    title: "bookstore: one Service, two versions behind it",
    namespace: "bookstore",
    root: "bookstore",
    leaves: ["bookstore-v1", "bookstore-v2"],
    split: "bookstore-split",
    client: "bookbuyer",
    client_kind: ClientKind::Process,
    path: "/books-bought",
    steps: &[[100, 0], [50, 50], [90, 10], [0, 100]],
    requests: 1_000,
    watchable_rate: 750,
    on_cluster: OnCluster {
        directory: "deploy/examples/bookstore",
        manifest: "00-bookstore.yaml",
        url: "http://bookstore.bookstore:14001/books-bought",
    },
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
    client_kind: ClientKind::Curl,
    path: "/json",
    steps: &[[100, 0], [50, 50]],
    requests: 10,
    watchable_rate: 6,
    on_cluster: OnCluster {
        directory: "deploy/examples/httpbin",
        manifest: "00-httpbin.yaml",
        url: "http://httpbin.httpbin:8000/ip",
    },
};

/// The port of every Service of the demo.
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
    /// The TrafficSplit.
    pub(crate) split: &'static str,
    /// The client's pod.
    pub(crate) client: &'static str,
    /// What asks in there.
    pub(crate) client_kind: ClientKind,
    /// What it asks for.
    pub(crate) path: &'static str,
    /// The weights, step after step.
    pub(crate) steps: &'static [[u64; 2]],
    /// How many requests there are in a step when nothing else is said.
    pub(crate) requests: u64,
    /// How many a second make a step that people can follow.
    pub(crate) watchable_rate: u64,
    /// The same on a cluster.
    pub(crate) on_cluster: OnCluster,
}

/// A scenario as files that `kubectl apply` takes.
#[derive(Debug)]
pub(crate) struct OnCluster {
    /// Where they are. Those that are called `NN-split-A-B.yaml` are the steps.
    pub(crate) directory: &'static str,
    /// The one with the Services and the pods behind them.
    pub(crate) manifest: &'static str,
    /// The address that clients ask.
    pub(crate) url: &'static str,
}

/// What makes the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientKind {
    /// A process that stays, as an application does.
    Process,
    /// A run of curl for each.
    Curl,
}

impl Scenario {
    /// The ClusterIP of the root Service.
    pub(crate) const fn root_address(&self) -> Ipv4Addr {
        cluster_ip(0)
    }

    /// The leaves with their ClusterIPs.
    pub(crate) fn leaf_addresses(&self) -> impl Iterator<Item = (&'static str, Ipv4Addr)> {
        self.leaves.into_iter().zip((1..).map(cluster_ip))
    }

    /// `host:port` of the root Service, as clients know it.
    pub(crate) fn authority(&self) -> String {
        format!("{}.{}:{PORT}", self.root, self.namespace)
    }

    /// The address that clients ask.
    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.authority(), self.path)
    }

    /// What the cluster's name server would know.
    pub(crate) fn names(&self) -> Vec<(String, IpAddr)> {
        let mut names = Vec::new();
        let root = (self.root, self.root_address());
        for (service, address) in [root].into_iter().chain(self.leaf_addresses()) {
            for suffix in ["", ".svc", ".svc.cluster.local"] {
                let name = format!("{service}.{}{suffix}", self.namespace);
                names.push((name, address.into()));
            }
        }
        names
    }

    /// Whether curl has to be installed.
    pub(crate) fn uses_curl(&self) -> bool {
        self.client_kind == ClientKind::Curl
    }
}

/// The demo's `index`-th ClusterIP.
const fn cluster_ip(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 96, 0, 10 + index)
}
