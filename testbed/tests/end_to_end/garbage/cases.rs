//! What people and tools write into splits, and what is to become of it.

use serde_json::{Value, json};
use testbed::fixtures::Tally;
use testbed::fixtures::manifests::{self, traffic_split};

use crate::test_cluster::{Node, TestCluster};

/// A split that is odd, of a root Service of its own.
pub(super) struct Case {
    /// The name of the split and, in most cases, of its root.
    pub(super) name: &'static str,
    pub(super) object: Value,
    /// What the Event on it says.
    pub(super) reason: &'static str,
    root: Root,
    outcome: Outcome,
}

/// What the root Service is like. Without a split, each leads to `v2` alone.
#[derive(Clone, Copy, PartialEq)]
enum Root {
    Ordinary,
    Headless,
    ExternalName,
    Missing,
}

/// What becomes of connections to the root.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    /// As without the split.
    AsWithout,
    /// `v1` and `v2` get so many of so many together.
    Shares(u64, u64),
    /// They are refused.
    Refused,
}

impl Case {
    pub(super) fn new(
        name: &'static str,
        reason: &'static str,
        outcome: Outcome,
        backends: Value,
    ) -> Self {
        let mut spec = json!({"service": name});
        spec["backends"] = backends;
        Self::with_spec(name, reason, outcome, spec)
    }

    fn with_spec(name: &'static str, reason: &'static str, outcome: Outcome, spec: Value) -> Self {
        let mut object = traffic_split::<u64>("v1alpha4", "garbage", name, "", &[]);
        object["metadata"]["labels"] = json!({"odd": "yes"});
        object["spec"] = spec;
        Self {
            name,
            object,
            reason,
            root: Root::Ordinary,
            outcome,
        }
    }

    fn of_root(mut self, root: Root) -> Self {
        self.root = root;
        self
    }

    fn url(&self) -> String {
        // A headless Service has no port of its own: this is that of the pods.
        let port = if self.root == Root::Headless {
            8080
        } else {
            80
        };
        format!("http://{}.garbage:{port}/", self.name)
    }

    /// Its root Service, where it has one.
    pub(super) fn service(&self) -> Option<Value> {
        let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
        let selector = json!({"app": "shop", "version": "v2"});
        let spec = match self.root {
            Root::Ordinary => json!({"selector": selector, "ports": ports}),
            Root::Headless => json!({"selector": selector, "ports": ports, "clusterIP": "None"}),
            Root::ExternalName => json!({
                "type": "ExternalName", "externalName": "shop-v2.garbage.svc.cluster.local",
            }),
            Root::Missing => return None,
        };
        Some(service(self.name, &spec))
    }

    /// Asks the root from a node, and panics if something else comes of it than should.
    pub(super) fn assert_outcome(&self, cluster: &TestCluster, node: &Node) {
        if self.root == Root::Missing {
            return;
        }
        let (count, expected) = match self.outcome {
            Outcome::AsWithout => (10, Tally::of([("v2", 10)])),
            Outcome::Shares(v1, v2) => {
                let expected = Tally::of([("v1", 3 * v1), ("v2", 3 * v2)]);
                (3 * (v1 + v2), expected)
            }
            Outcome::Refused => {
                let mut expected = Tally::default();
                expected.errors.insert("refused".to_owned(), 10);
                (10, expected)
            }
        };
        let counts = cluster.ask_from(node, &self.url(), count);
        assert_eq!(counts, expected, "{} on {}", self.name, node.name());
    }
}

pub(super) fn service(name: &str, spec: &Value) -> Value {
    manifests::service("garbage", name, spec)
}

pub(super) fn backend(service: &str, weight: impl Into<Value>) -> Value {
    json!({"service": service, "weight": weight.into()})
}

/// What is refused as it is written. If it were not, `v1` would get connections.
pub(super) fn refused() -> Vec<Case> {
    let v1 = || backend("shop-v1", 100);
    let case = |name, reason, backends| Case::new(name, reason, Outcome::AsWithout, backends);
    let weight = |name, weight: Value| {
        case(
            name,
            "InvalidWeight",
            json!([v1(), backend("shop-v2", weight)]),
        )
    };
    let spec = |name, reason, spec| Case::with_spec(name, reason, Outcome::AsWithout, spec);
    let many = (0..64).map(|number| backend(&format!("leaf-{number}"), 1));
    let many: Vec<Value> = many.chain([v1()]).collect();
    vec![
        weight("negative", json!(-5)),
        weight("fractional", json!(0.5)),
        weight("unparsable", json!("most of them")),
        weight("null-weight", Value::Null),
        weight("weight-of-a-list", json!([1])),
        weight("beyond-all-numbers", json!("1e400")),
        case(
            "no-weight",
            "InvalidWeight",
            json!([v1(), {"service": "shop-v2"}]),
        ),
        case("no-backends", "InvalidBackend", json!([])),
        case("null-backends", "InvalidBackend", Value::Null),
        case("backends-as-text", "InvalidBackend", json!("shop-v1")),
        case(
            "backend-as-text",
            "InvalidBackend",
            json!([v1(), "shop-v2"]),
        ),
        case(
            "nameless-backend",
            "InvalidBackend",
            json!([v1(), {"weight": 1}]),
        ),
        case("many-backends", "TooManyBackends", json!(many)),
        spec(
            "matches",
            "MatchesUnsupported",
            json!({
                "service": "matches", "backends": [v1()],
                "matches": [{"kind": "HTTPRouteGroup", "name": "firefox"}],
            }),
        ),
        spec("spec-as-text", "InvalidSpec", json!("garbage")),
        spec("no-spec", "InvalidSpec", Value::Null),
        spec("no-root", "InvalidRoot", json!({"backends": [v1()]})),
        spec(
            "root-as-number",
            "InvalidRoot",
            json!({"service": 7, "backends": [v1()]}),
        ),
        spec(
            "root-as-url",
            "InvalidRoot",
            json!({"service": "http://root-as-url/", "backends": [v1()]}),
        ),
        spec(
            "root-elsewhere",
            "RootInOtherNamespace",
            json!({"service": "root-elsewhere.clients", "backends": [v1()]}),
        ),
    ]
}

/// What waits for something else to change.
pub(super) fn inactive() -> Vec<Case> {
    let case = |name, reason, root| {
        let backends = json!([backend("shop-v1", 100)]);
        Case::new(name, reason, Outcome::AsWithout, backends).of_root(root)
    };
    vec![
        case("headless", "RootHeadless", Root::Headless),
        case("external-name", "RootExternalName", Root::ExternalName),
        case("missing-root", "RootMissing", Root::Missing),
    ]
}

/// What is programmed, with a warning.
pub(super) fn warned() -> Vec<Case> {
    let shares = |v1, v2| Outcome::Shares(v1, v2);
    let both = |other: Value| json!([backend("shop-v1", 1), backend("shop-v2", 3), other]);
    let mut annotated = Case::new(
        "annotation",
        "InvalidAnnotation",
        shares(1, 1),
        json!([backend("shop-v1", 1), backend("shop-v2", 1)]),
    );
    annotated.object["metadata"]["annotations"] =
        json!({"splitter.dev/on-no-endpoints": "whatever"});
    vec![
        annotated,
        Case::new(
            "missing-leaf",
            "LeafServiceMissing",
            shares(1, 3),
            both(backend("nowhere", 4)),
        ),
        Case::new(
            "leaf-port",
            "LeafPortMissing",
            shares(1, 3),
            both(backend("other-port", 4)),
        ),
        Case::new(
            "leaf-not-ready",
            "LeafNotReady",
            shares(1, 3),
            both(backend("nobody", 4)),
        ),
        Case::new(
            "leaf-elsewhere",
            "BackendInOtherNamespace",
            shares(1, 3),
            both(backend("shop-v1.clients", 4)),
        ),
        Case::new(
            "leaf-name",
            "InvalidBackendName",
            shares(1, 3),
            both(backend("Not a name!", 4)),
        ),
        Case::new(
            "duplicate",
            "DuplicateBackend",
            shares(2, 3),
            both(backend("shop-v1", 1)),
        ),
        Case::new(
            "all-zero",
            "AllWeightsZero",
            Outcome::Refused,
            json!([backend("shop-v1", 0), backend("shop-v2", 0)]),
        ),
        Case::new(
            "none-ready",
            "NoReadyEndpoints",
            Outcome::Refused,
            json!([backend("nobody", 1), backend("shop-v1", 0)]),
        ),
        Case::new(
            "no-leaf-service",
            "NoLeafService",
            Outcome::AsWithout,
            json!([backend("not-there", 1), backend("nor-there", 1)]),
        ),
        Case::new(
            "no-leaf-port",
            "NoLeafPort",
            Outcome::AsWithout,
            json!([backend("other-port", 1)]),
        ),
    ]
}

/// What looks odd and is not.
pub(super) fn accepted() -> Vec<Case> {
    let case =
        |name, v1, v2, backends| Case::new(name, "Accepted", Outcome::Shares(v1, v2), backends);
    let two = |v1: Value, v2: Value| json!([backend("shop-v1", v1), backend("shop-v2", v2)]);
    let mut quantities = case("quantities", 1, 3, two(json!("500m"), json!("1500m")));
    quantities.object["apiVersion"] = json!("split.smi-spec.io/v1alpha1");
    vec![
        quantities,
        case("text-weights", 1, 2, two(json!("1"), json!("2"))),
        case("float-weights", 2, 1, two(json!(2.0), json!(1))),
        case("huge-weights", 1, 4, two(json!("1e12"), json!("4000G"))),
        case("sum-of-three", 1, 2, two(json!(1), json!(2))),
        case("one-zero", 0, 3, two(json!(0), json!(7))),
        Case::with_spec(
            "suffix",
            "Accepted",
            Outcome::Shares(1, 1),
            json!({
                "service": "SUFFIX.garbage.svc.cluster.local.:80", "matches": [],
                "backends": two(json!(1), json!(1)),
            }),
        ),
    ]
}

/// Splits that are not in the namespace of their root, and that of the API server.
pub(super) fn elsewhere() -> [Value; 2] {
    let split = |name: &str, namespace: &str, root: &str| {
        traffic_split("v1alpha2", namespace, name, root, &[("shop-v1", 1)])
    };
    [
        split("api-server", "default", "kubernetes"),
        // The same root as a split of its own namespace, which is not bothered.
        split("hijacked", "default", "shop.garbage.svc"),
    ]
}
