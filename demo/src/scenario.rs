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
    /// The kind of its objects for a protocol, with the article.
    pub(crate) fn kind(self, protocol: Protocol) -> &'static str {
        match (self, protocol) {
            (Self::Smi, _) => "the TrafficSplit",
            (Self::Istio, _) => "the VirtualService",
            (Self::Gateway, Protocol::Tcp) => "the HTTPRoute",
            (Self::Gateway, Protocol::Udp) => "the UDPRoute",
        }
    }
}

/// What the ports of the Services are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// Who asks, without a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    /// A process that stays, and opens a connection for each request.
    Process,
    /// A run of curl for each request.
    Curl,
    /// A run of dig for each question for a name.
    Dig,
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
    asking: Asking::Process,
    path: "/books-bought",
    steps: &[[100, 0], [50, 50], [90, 10], [0, 100]],
    requests: 1_000,
    watchable_rate: 750,
    on_cluster: Some(ClusterFiles {
        directory: "deploy/examples/bookstore",
        manifest: "00-bookstore.yaml",
        url: "http://bookstore.bookstore:14001/books-bought",
    }),
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
    asking: Asking::Curl,
    path: "/json",
    steps: &[[100, 0], [50, 50]],
    requests: 10,
    watchable_rate: 6,
    on_cluster: Some(ClusterFiles {
        directory: "deploy/examples/httpbin",
        manifest: "00-httpbin.yaml",
        url: "http://httpbin.httpbin:8000/ip",
    }),
};

/// A canary over UDP: each of two name servers has an answer of its own.
pub(crate) const NAMES: Scenario = Scenario {
    command: "demo names",
    title: "names: a canary of a name server over UDP, watched with dig",
    namespace: "names",
    root: "names",
    leaves: ["names-v1", "names-v2"],
    split: "names-split",
    client: "dig",
    asking: Asking::Dig,
    path: "shop.example",
    steps: &[[100, 0], [90, 10], [0, 100]],
    requests: 20,
    watchable_rate: 6,
    on_cluster: None,
};

/// What the name server of a leaf says; an address of no network (RFC 5737).
pub(crate) fn answer_of(leaf: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, u8::try_from(leaf + 1).unwrap_or(u8::MAX))
}

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
    /// Who asks there.
    pub(crate) asking: Asking,
    /// What it asks for: a path, or a name.
    pub(crate) path: &'static str,
    /// The weights, step after step, without a cluster.
    pub(crate) steps: &'static [[u64; 2]],
    /// How many requests there are in a step when nothing else is said.
    pub(crate) requests: u64,
    /// How many a second make a step that people can follow.
    pub(crate) watchable_rate: u64,
    /// What it takes to show it on a cluster, if that can be done.
    pub(crate) on_cluster: Option<ClusterFiles>,
}

/// What it takes to show a scenario on a cluster.
#[derive(Debug)]
pub(crate) struct ClusterFiles {
    /// The manifests. Those that are called `NN-split-A-B.yaml` are the steps.
    pub(crate) directory: &'static str,
    /// The one with the Services and the pods behind them.
    pub(crate) manifest: &'static str,
    /// What clients ask for.
    pub(crate) url: &'static str,
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

    /// What the ports of the Services are of.
    pub(crate) fn protocol(&self) -> Protocol {
        match self.asking {
            Asking::Process | Asking::Curl => Protocol::Tcp,
            Asking::Dig => Protocol::Udp,
        }
    }

    /// The port of every Service without a cluster.
    pub(crate) fn port(&self) -> u16 {
        match self.protocol() {
            Protocol::Tcp => 14001,
            Protocol::Udp => 53,
        }
    }

    /// Whether it can be written in an API.
    pub(crate) fn can_be_in(&self, api: Api) -> bool {
        api != Api::Istio || self.protocol() == Protocol::Tcp
    }

    /// `host:port` of the root Service, as clients know it.
    pub(crate) fn authority(&self) -> String {
        format!("{}.{}:{}", self.root, self.namespace, self.port())
    }

    /// The command that asks once, as people would type it.
    pub(crate) fn command_line(&self) -> String {
        match self.asking {
            Asking::Process | Asking::Curl => format!("curl -sI {}", self.url()),
            Asking::Dig => format!("dig {}", self.question().join(" ")),
        }
    }

    /// What the client asks for.
    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.authority(), self.path)
    }

    /// What dig is told.
    pub(crate) fn question(&self) -> [String; 3] {
        let server = format!("@{}.{}", self.root, self.namespace);
        ["+short".to_owned(), server, self.path.to_owned()]
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
                let port = self.port();
                let backends = leaves
                    .map(|(name, weight)| json!({"name": name, "port": port, "weight": weight}));
                let kind = match self.protocol() {
                    Protocol::Tcp => "HTTPRoute",
                    Protocol::Udp => "UDPRoute",
                };
                json!({
                    "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udp_is_split_by_objects_that_can_say_so() {
        let kinds = [Api::Smi, Api::Istio, Api::Gateway].map(|api| {
            let object = NAMES.object(api, [9, 1]);
            let kind = object["kind"].as_str().unwrap_or_default().to_owned();
            NAMES.can_be_in(api).then_some(kind)
        });
        let split = Some("TrafficSplit".to_owned());
        assert_eq!(kinds, [split, None, Some("UDPRoute".to_owned())]);
        let route = NAMES.object(Api::Gateway, [9, 1]);
        assert_eq!(route["spec"]["rules"][0]["backendRefs"][0]["port"], 53);
        assert!(BOOKSTORE.can_be_in(Api::Istio));
    }
}
