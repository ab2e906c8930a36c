//! Objects as an author would write them, and short words for what they come to.

use std::net::SocketAddr;

use serde_json::{Value, json};
use splitter_agent::compile::{Compiled, Settings, Severity, compile};
use splitter_agent::objects::{Objects, decode};
use splitter_agent::plan::{Decision, Frontend, FrontendPlan};
use splitter_common::layout::{ClientScope, LeafState, Protocol};
use testbed::fixtures::manifests;
pub(crate) use testbed::fixtures::manifests::with;

/// The namespace of everything here.
pub(crate) const NAMESPACE: &str = "shop";

/// The cluster IP of [`root`].
pub(crate) const VIP: &str = "10.96.0.1:80";

/// A Service of this spec; it selects pods unless the spec says otherwise.
pub(crate) fn service_of(name: &str, spec: &Value) -> Value {
    let service = manifests::service(NAMESPACE, name, &json!({"selector": {"app": name}}));
    with(service, &json!({"spec": spec}))
}

/// A Service with a cluster IP and one unnamed TCP port, 80.
pub(crate) fn service(name: &str, cluster_ip: &str) -> Value {
    service_of(
        name,
        &json!({"clusterIP": cluster_ip, "ports": [{"port": 80}]}),
    )
}

/// The root of most tests.
pub(crate) fn root() -> Value {
    service("web", "10.96.0.1")
}

/// An EndpointSlice of a Service, of this content.
pub(crate) fn slice_of(name: &str, service: &str, content: &Value) -> Value {
    manifests::endpoint_slice(NAMESPACE, name, service, content)
}

/// An EndpointSlice with ready endpoints at port 8080.
pub(crate) fn slice(service: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    let content = json!({"ports": [{"name": "", "port": 8080}], "endpoints": endpoints});
    slice_of(&format!("{service}-0"), service, &content)
}

/// A leaf: a Service and its EndpointSlice.
pub(crate) fn leaf(name: &str, cluster_ip: &str, addresses: &[&str]) -> [Value; 2] {
    [service(name, cluster_ip), slice(name, addresses)]
}

/// The root and its two leaves, each with one endpoint.
pub(crate) fn world() -> Vec<Value> {
    let v1 = leaf("web-1", "10.96.0.11", &["10.0.0.1"]);
    let v2 = leaf("web-2", "10.96.0.12", &["10.0.0.2"]);
    [vec![root()], v1.into(), v2.into()].concat()
}

/// The world without the object of this kind and name.
pub(crate) fn world_without(kind: &str, name: &str) -> Vec<Value> {
    let mut objects = world();
    let before = objects.len();
    objects.retain(|object| object["kind"] != kind || object["metadata"]["name"] != name);
    assert_eq!(objects.len() + 1, before, "{kind} {name} is there");
    objects
}

/// The world with this object in place of the one of its kind and name.
pub(crate) fn world_with(object: Value) -> Vec<Value> {
    let name = object["metadata"]["name"].as_str().unwrap();
    let mut objects = world_without(object["kind"].as_str().unwrap(), name);
    objects.push(object);
    objects
}

/// A TrafficSplit.
pub(crate) fn split(name: &str, root: &str, backends: &[(&str, Value)]) -> Value {
    let split = manifests::traffic_split("v1alpha4", NAMESPACE, name, root, backends);
    with(split, &json!({"metadata": {"generation": 1}}))
}

/// The split of the root between its two leaves.
pub(crate) fn canary(first: impl Into<Value>, second: impl Into<Value>) -> Value {
    split(
        "canary",
        "web",
        &[("web-1", first.into()), ("web-2", second.into())],
    )
}

/// Reads objects; all of them must be readable.
pub(crate) fn read(values: impl IntoIterator<Item = Value>) -> Objects {
    let mut objects = Objects::default();
    for value in values {
        let object = decode(value).expect("readable").expect("of interest");
        assert_eq!(objects.insert(object), None, "each object once");
    }
    objects
}

/// Reads and compiles objects for a node of this name and zone.
pub(crate) fn compiled_on(
    node: &str,
    zone: Option<&str>,
    values: impl IntoIterator<Item = Value>,
) -> Outcome {
    let settings = Settings {
        node_name: Some(node.to_owned()),
        zone: zone.map(str::to_owned),
        ..Settings::default()
    };
    Outcome(compile(&read(values), &settings))
}

/// Reads and compiles objects.
pub(crate) fn compiled(values: impl IntoIterator<Item = Value>) -> Outcome {
    Outcome(compile(&read(values), &Settings::default()))
}

/// Compiles the world with one TrafficSplit more.
pub(crate) fn compiled_world(split: Value) -> Outcome {
    compiled(world().into_iter().chain([split]))
}

/// What objects come to.
pub(crate) struct Outcome(pub(crate) Compiled);

impl Outcome {
    /// The split of a TCP frontend, if there is one.
    pub(crate) fn at(&self, address: &str) -> Option<&FrontendPlan> {
        self.at_protocol(address, Protocol::Tcp)
    }

    /// The split of a frontend, if there is one.
    pub(crate) fn at_protocol(&self, address: &str, protocol: Protocol) -> Option<&FrontendPlan> {
        let address: SocketAddr = address.parse().unwrap();
        self.0.plan.frontends.get(&Frontend {
            address,
            protocol,
            clients: ClientScope::EVERYONE,
        })
    }

    /// What becomes of connections to a TCP frontend.
    pub(crate) fn decision(&self, address: &str) -> Option<Decision> {
        self.at(address).map(|split| split.decision)
    }

    /// Leaves and shares of a TCP frontend that is split.
    pub(crate) fn shares(&self, address: &str) -> Vec<(&str, u32)> {
        let split = self.at(address).expect("a frontend");
        assert_eq!(split.decision, Decision::Split);
        let leaves = split.leaves.iter();
        leaves
            .map(|leaf| (leaf.service.as_str(), leaf.share))
            .collect()
    }

    /// The states of the leaves of a TCP frontend.
    pub(crate) fn states(&self, address: &str) -> Vec<LeafState> {
        let split = self.at(address).expect("a frontend");
        split.leaves.iter().map(|leaf| leaf.state).collect()
    }

    /// The endpoints of a leaf of a TCP frontend.
    pub(crate) fn endpoints(&self, address: &str, leaf: usize) -> Vec<String> {
        let split = self.at(address).expect("a frontend");
        let endpoints = split.leaves[leaf].endpoints.iter();
        endpoints.map(ToString::to_string).collect()
    }

    /// Everything said about a TrafficSplit: severity, reason, field.
    pub(crate) fn said_of(&self, name: &str) -> Vec<(Severity, &'static str, &str)> {
        let said = self.0.diagnostics.iter();
        said.filter(|diagnostic| diagnostic.object.name.name == name)
            .map(|said| (said.severity, said.reason, said.field.as_str()))
            .collect()
    }

    /// Everything said about the split of most tests.
    pub(crate) fn said(&self) -> Vec<(Severity, &'static str, &str)> {
        self.said_of("canary")
    }

    /// The only message about the split of most tests.
    pub(crate) fn message(&self) -> &str {
        match self.0.diagnostics.as_slice() {
            [diagnostic] => &diagnostic.message,
            other => panic!("{other:#?}"),
        }
    }

    /// Asserts that nothing is said of the split but that it is accepted.
    #[track_caller]
    pub(crate) fn assert_accepted(&self) {
        assert_eq!(self.said(), [(Severity::Accepted, "Accepted", "")]);
    }

    /// Asserts that the split is refused for this reason and field, and that its root
    /// behaves as without it, with a record of why.
    #[track_caller]
    pub(crate) fn assert_refused(&self, reason: &str, field: &str) {
        assert_eq!(self.said(), [(Severity::Refused, reason, field)]);
        let split = self.at(VIP).expect("a record of why");
        let refused = splitter_common::layout::Reason::ObjectRefused;
        assert_eq!(split.decision, Decision::PassThrough(refused));
        assert_eq!(split.leaves, []);
    }
}
