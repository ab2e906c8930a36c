//! Objects that nobody should write and everybody does: each is told of, and none disturbs another.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use xtask::cluster::Node;

use crate::{
    counts::Counts,
    definition::{Changed, permissive},
    namespace::Namespace,
    observe::Events,
    site::{Site, wait_for},
};

/// A split that is odd, of a root Service of its own.
struct Case {
    /// The name of the split and, in most cases, of its root.
    name: &'static str,
    object: Value,
    /// What the Event on it says.
    reason: &'static str,
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
enum Outcome {
    /// As without the split.
    AsWithout,
    /// `v1` and `v2` get so many of so many together.
    Shares(u64, u64),
    /// They are refused.
    Refused,
}

impl Case {
    fn new(name: &'static str, reason: &'static str, outcome: Outcome, backends: Value) -> Self {
        let mut spec = json!({"service": name});
        spec["backends"] = backends;
        Self::with_spec(name, reason, outcome, spec)
    }

    fn with_spec(name: &'static str, reason: &'static str, outcome: Outcome, spec: Value) -> Self {
        let mut object = json!({
            "apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
            "metadata": {"name": name, "namespace": "garbage", "labels": {"odd": "yes"}},
        });
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
    fn service(&self) -> Option<Value> {
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
    fn assert_outcome(&self, site: &Site, node: &Node) {
        if self.root == Root::Missing {
            return;
        }
        let (count, expected) = match self.outcome {
            Outcome::AsWithout => (10, Counts::of([("v2", 10)])),
            Outcome::Shares(v1, v2) => {
                let expected = Counts::of([("v1", 3 * v1), ("v2", 3 * v2)]);
                (3 * (v1 + v2), expected)
            }
            Outcome::Refused => {
                let mut expected = Counts::default();
                expected.errors.insert("refused".to_owned(), 10);
                (10, expected)
            }
        };
        let counts = site.ask_from(node, &self.url(), count);
        assert_eq!(counts, expected, "{} on {}", self.name, node.name());
    }
}

fn service(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "garbage"}, "spec": spec,
    })
}

fn backend(service: &str, weight: impl Into<Value>) -> Value {
    json!({"service": service, "weight": weight.into()})
}

/// What is refused as it is written. If it were not, `v1` would get connections.
fn refused() -> Vec<Case> {
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
fn inactive() -> Vec<Case> {
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

/// What is in force, with a warning.
fn warned() -> Vec<Case> {
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
fn accepted() -> Vec<Case> {
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
fn elsewhere() -> [Value; 2] {
    let split = |name: &str, namespace: &str, root: &str| {
        json!({
            "apiVersion": "split.smi-spec.io/v1alpha2", "kind": "TrafficSplit",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"service": root, "backends": [backend("shop-v1", 1)]},
        })
    };
    [
        split("api-server", "default", "kubernetes"),
        // The same root as a split of its own namespace, which is not bothered.
        split("hijacked", "default", "shop.garbage.svc"),
    ]
}

/// Splits of other namespaces than the test's own.
struct Elsewhere<'a>(&'a Site);

impl Drop for Elsewhere<'_> {
    fn drop(&mut self) {
        let arguments = ["-n", "default", "delete", "trafficsplits", "--all"];
        let _ = self.0.try_kubectl(&arguments, None);
    }
}

/// Tells the one who asks in the background to stop, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn list(items: impl IntoIterator<Item = Value>) -> String {
    let items: Vec<Value> = items.into_iter().collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// How many cases there are with each reason.
fn reasons(cases: &[Case]) -> BTreeMap<&'static str, u64> {
    let mut reasons = BTreeMap::new();
    for case in cases {
        *reasons.entry(case.reason).or_default() += 1;
    }
    reasons
}

#[test]
fn garbage_of_every_kind_is_told_of_and_disturbs_no_neighbour() {
    let site = Site::enter();
    let namespace = site.namespace("garbage");
    namespace.shop(1);
    namespace.split(&[1, 3]);
    let cases: Vec<Case> = [refused(), inactive(), warned(), accepted()]
        .into_iter()
        .flatten()
        .collect();
    make_services(&site, &cases);

    let _changed = Changed(&site);
    let _elsewhere = Elsewhere(&site);
    let stop = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let neighbour = scope.spawn(|| ask_neighbour(&site, &namespace, &stop));
        let stopped = Stop(&stop);
        site.replace_definition(&permissive());
        create_garbage(&site, &cases);
        wait_until_told(&site, &cases);
        for node in site.nodes() {
            wait_for_findings(&site, node, &cases);
            for case in &cases {
                case.assert_outcome(&site, node);
            }
            assert_generations(&site, node, &namespace);
        }
        assert_api_server_is_left_alone(&site);
        // Time enough for a second agent, or a second time.
        assert_told_once(&site.described("garbage", "trafficsplits"), &cases);
        correct(&site, &namespace);
        clear(&site, &cases);
        drop(stopped);
        neighbour.join().expect("an exact neighbour")
    });
    assert!(asked > 0, "the neighbour was asked");
    for node in site.nodes() {
        let metrics = site.metrics(node);
        for (backend, share) in [("shop-v1", 1), ("shop-v2", 3)] {
            let labels = [
                ("destination_namespace", "garbage"),
                ("destination_service", "shop"),
                ("backend", backend),
            ];
            let counted = metrics.sum("leaf_connections_total", &labels);
            assert_eq!(counted, Some(asked * share), "{backend} on {}", node.name());
        }
    }
}

/// The root Services, and leaves that cannot take a share.
fn make_services(site: &Site, cases: &[Case]) {
    let port = |port: u16| json!([{"name": "http", "port": port, "targetPort": "http"}]);
    let leaves = [
        service(
            "other-port",
            &json!({"selector": {"app": "shop"}, "ports": port(8081)}),
        ),
        service(
            "nobody",
            &json!({"selector": {"app": "nobody"}, "ports": port(80)}),
        ),
    ];
    let services = cases.iter().filter_map(Case::service).chain(leaves);
    let output = site.try_kubectl(&["create", "-f", "-"], Some(&list(services)));
    assert!(output.status.success(), "{output:?}");
}

fn create_garbage(site: &Site, cases: &[Case]) {
    let splits = cases.iter().map(|case| case.object.clone());
    let garbage = list(splits.chain(elsewhere()));
    let create = ["create", "--validate=false", "-f", "-"];
    wait_for("the other definition to be in force", || {
        let try_out = [&create[..], &["--dry-run=server"]].concat();
        let output = site.try_kubectl(&try_out, Some(&garbage));
        output.status.success().then_some(())
    });
    let output = site.try_kubectl(&create, Some(&garbage));
    assert!(output.status.success(), "{output:?}");
}

/// Asks the neighbour from every node until told to stop; how many times four connections each
/// node made.
fn ask_neighbour(site: &Site, namespace: &Namespace<'_>, stop: &AtomicBool) -> u64 {
    let mut asked = 0;
    while !stop.load(Ordering::Relaxed) {
        for node in site.nodes() {
            let counts = site.ask_from(node, &namespace.url(), 40);
            let expected = Counts::of([("v1", 10), ("v2", 30)]);
            assert_eq!(counts, expected, "the neighbour on {}", node.name());
        }
        asked += 10;
        // The rest of the machine is for the test itself.
        thread::sleep(Duration::from_millis(200));
    }
    asked
}

fn wait_until_told(site: &Site, cases: &[Case]) {
    wait_for("an Event on everything", || {
        let events = site.described("garbage", "trafficsplits");
        let is_told = |case: &Case| {
            let told = events.get(case.name);
            told.is_some_and(|reasons| reasons.contains_key(case.reason))
        };
        let missing: Vec<&str> = cases
            .iter()
            .filter(|it| !is_told(it))
            .map(|it| it.name)
            .collect();
        if !missing.is_empty() {
            println!("not told yet: {missing:?}");
        }
        missing.is_empty().then_some(())
    });
    wait_for("Events on splits of elsewhere", || {
        let events = site.described("default", "trafficsplits");
        let has = |name: &str, reason: &str| events.get(name)?.get(reason).copied();
        (has("api-server", "RootProtected") == Some(1)
            && has("hijacked", "RootInOtherNamespace") == Some(1))
        .then_some(())
    });
}

fn assert_told_once(events: &Events, cases: &[Case]) {
    for case in cases {
        let once = BTreeMap::from([(case.reason.to_owned(), 1)]);
        assert_eq!(events.get(case.name), Some(&once), "{}", case.name);
    }
}

/// Waits until a node's agent counts the garbage, each piece once.
fn wait_for_findings(site: &Site, node: &Node, cases: &[Case]) {
    for (reason, count) in reasons(cases) {
        let expected = match reason {
            // The neighbour too.
            "Accepted" => count + 1,
            // Those of elsewhere.
            "RootInOtherNamespace" => count + 1,
            _ => count,
        };
        wait_for(&format!("{expected} findings of {reason}"), || {
            let labels = [("kind", "TrafficSplit"), ("reason", reason)];
            let found = site.metrics(node).sum("object_findings", &labels);
            (found == Some(expected)).then_some(())
        });
    }
}

/// Whatever has a generation is at that generation on the node.
fn assert_generations(site: &Site, node: &Node, namespace: &Namespace<'_>) {
    let metrics = site.metrics(node);
    let splits = site.get(&["-n", namespace.name(), "get", "trafficsplits"]);
    for split in splits["items"].as_array().expect("splits") {
        let metadata = &split["metadata"];
        let name = metadata["name"].as_str().expect("a name");
        let labels = [("destination_namespace", namespace.name()), ("split", name)];
        for metric in ["split_generation", "split_desired_generation"] {
            let generation = metrics.sum(metric, &labels);
            let what = format!("{metric} of {name} on {}", node.name());
            assert_eq!(generation, metadata["generation"].as_u64(), "{what}");
        }
    }
}

/// A connection to the API server gets there, which is all that can be told without TLS.
fn assert_api_server_is_left_alone(site: &Site) {
    for node in site.nodes() {
        let counts = site.ask_from(node, "http://kubernetes.default:443/", 5);
        assert_eq!(counts.errors.get("status-400"), Some(&5), "{counts:?}");
        assert_eq!(site.split_on(node, "default", "shop"), None);
    }
}

/// What is put right is in force by itself, whatever garbage is around it.
fn correct(site: &Site, namespace: &Namespace<'_>) {
    let shares = |name, v1, v2| {
        let backends = json!([backend("shop-v1", v1), backend("shop-v2", v2)]);
        Case::new(name, "Accepted", Outcome::Shares(v1, v2), backends)
    };
    let corrected = [
        shares("negative", 1, 2),
        shares("spec-as-text", 3, 1),
        shares("all-zero", 2, 1),
        Case::new("missing-root", "Accepted", Outcome::Shares(1, 0), json!([])),
        Case::new("missing-leaf", "Accepted", Outcome::Shares(1, 7), json!([])),
    ];
    let splits = corrected[..3].iter().map(|case| case.object.clone());
    let replace = ["replace", "--validate=false", "-f", "-"];
    let output = site.try_kubectl(&replace, Some(&list(splits)));
    assert!(output.status.success(), "{output:?}");
    for name in ["missing-root", "nowhere"] {
        let version = json!({"app": "shop", "version": "v2"});
        namespace.service(name, 80, &version);
    }
    for case in &corrected {
        site.wait_for_split("a corrected split", "garbage", case.name, |split| {
            let split = split.filter(|split| split["verdict"] == "split");
            let leaves = split.and_then(|split| split["leaves"].as_array());
            leaves.is_some_and(|leaves| {
                let ready = |leaf: &Value| leaf["state"] == "ready" && leaf["endpoints"] == 1;
                leaves.iter().all(ready)
            })
        });
        for node in site.nodes() {
            case.assert_outcome(site, node);
        }
    }
}

/// Without the garbage nothing is left of it.
fn clear(site: &Site, cases: &[Case]) {
    site.kubectl(&["-n", "garbage", "delete", "trafficsplits", "-l", "odd=yes"]);
    site.kubectl(&["-n", "default", "delete", "trafficsplits", "--all"]);
    for node in site.nodes() {
        for reason in reasons(cases).into_keys() {
            wait_for(&format!("no findings of {reason}"), || {
                let labels = [("kind", "TrafficSplit"), ("reason", reason)];
                let found = site.metrics(node).sum("object_findings", &labels);
                let left = (reason == "Accepted").then_some(1);
                (found == left).then_some(())
            });
        }
        for name in ["all-zero", "none-ready", "duplicate", "negative"] {
            let url = format!("http://{name}.garbage/");
            let counts = site.ask_from(node, &url, 10);
            assert_eq!(
                counts,
                Counts::of([("v2", 10)]),
                "{name} on {}",
                node.name()
            );
        }
    }
}

#[test]
fn endpoint_slices_with_garbage_never_get_a_connection() {
    let site = Site::enter();
    let namespace = site.namespace("slices");
    namespace.shop(1);
    namespace.service("manual", 80, &Value::Null);
    let pods = ["-n", "slices", "get", "pods", "-l", "version=v1"];
    let address = site.get(&pods)["items"][0]["status"]["podIP"].clone();
    site.apply(&json!({"apiVersion": "v1", "kind": "List", "items": slices(&address)}));
    let mut split = namespace.split_object("canary", &[]);
    split["spec"]["backends"] = json!([backend("manual", 1), backend("shop-v2", 1)]);
    site.apply(&split);
    let wait_for_manual = |endpoints: u64| {
        site.wait_for_split("the good endpoint", "slices", "shop", |split| {
            split.is_some_and(|split| split["leaves"][0]["endpoints"] == endpoints)
        });
    };
    wait_for_manual(1);
    for node in site.nodes() {
        let counts = site.ask_from(node, &namespace.url(), 20);
        assert_eq!(
            counts,
            Counts::of([("v1", 10), ("v2", 10)]),
            "on {}",
            node.name()
        );
    }
    for node in site.nodes() {
        for (reason, count) in [
            ("SliceContentIgnored", 3),
            ("SlicePortUnknown", 2),
            ("SliceWithoutService", 1),
        ] {
            wait_for(&format!("{count} findings of {reason}"), || {
                let labels = [("kind", "EndpointSlice"), ("reason", reason)];
                let found = site.metrics(node).sum("object_findings", &labels);
                (found == Some(count)).then_some(())
            });
        }
    }

    // Without the good ones, all the others together are nobody.
    site.kubectl(&["-n", "slices", "delete", "endpointslice", "good", "again"]);
    wait_for_manual(0);
    for node in site.nodes() {
        let counts = site.ask_from(node, &namespace.url(), 10);
        assert_eq!(counts, Counts::of([("v2", 10)]), "on {}", node.name());
    }
    wait_for("an Event on the split", || {
        let events = site.described("slices", "trafficsplits");
        events.get("canary")?.get("LeafNotReady").map(|_| ())
    });
}

#[test]
fn endpoint_slices_with_garbage_are_told_of_once() {
    let site = Site::enter();
    let namespace = site.namespace("slices");
    namespace.service("shop", 80, &Value::Null);
    namespace.service("manual", 80, &Value::Null);
    let items = slices(&json!("10.244.250.251"));
    site.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}));
    let mut split = namespace.split_object("canary", &[]);
    split["spec"]["backends"] = json!([backend("manual", 1)]);
    site.apply(&split);
    let told = [
        ("fqdn", "SliceContentIgnored"),
        ("every-port", "SliceContentIgnored"),
        ("multicast", "SliceContentIgnored"),
        ("other-port", "SlicePortUnknown"),
        ("other-protocol", "SlicePortUnknown"),
        ("nobodys", "SliceWithoutService"),
    ];
    wait_for("Events on the slices", || {
        let events = site.described("slices", "endpointslices");
        let is_told = |(name, reason): (&str, &str)| events.get(name)?.get(reason).copied();
        let mut missing = told.to_vec();
        missing.retain(|case| is_told(*case) != Some(1));
        if !missing.is_empty() {
            println!("not told yet: {missing:?}");
        }
        missing.is_empty().then_some(())
    });
}

/// Slices of the Service `manual`: two with this address, and others that nobody can be sent to.
fn slices(address: &Value) -> Vec<Value> {
    let slice = |name: &str, family: &str, addresses: Value, ports: Value| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": name, "namespace": "slices",
                "labels": {"kubernetes.io/service-name": "manual"},
            },
            "addressType": family,
            "endpoints": [{"addresses": addresses, "conditions": {"ready": true}}],
            "ports": ports,
        })
    };
    let http = || json!([{"name": "http", "port": 8080}]);
    let nowhere = || json!(["10.244.250.250"]);
    let with = |name: &str, conditions: Value| {
        let mut slice = slice(name, "IPv4", nowhere(), http());
        slice["endpoints"][0]["conditions"] = conditions;
        slice
    };
    let mut empty = slice("empty", "IPv4", nowhere(), http());
    empty["endpoints"] = json!([]);
    let mut nobodys = slice("nobodys", "IPv4", nowhere(), http());
    nobodys["metadata"]["labels"] = json!({});
    vec![
        slice("good", "IPv4", json!([address, address]), http()),
        slice("again", "IPv4", json!([address]), http()),
        slice("fqdn", "FQDN", json!(["www.example.com"]), http()),
        slice("ipv6", "IPv6", json!(["fd00::1"]), http()),
        slice(
            "multicast",
            "IPv4",
            json!(["239.1.1.1", "255.255.255.255"]),
            http(),
        ),
        slice("every-port", "IPv4", nowhere(), json!([{"name": "http"}])),
        slice("no-port", "IPv4", nowhere(), json!([])),
        slice(
            "other-port",
            "IPv4",
            nowhere(),
            json!([{"name": "grpc", "port": 9090}]),
        ),
        slice(
            "other-protocol",
            "IPv4",
            nowhere(),
            json!([{"name": "http", "port": 8080, "protocol": "UDP"}]),
        ),
        with("not-ready", json!({"ready": false})),
        with(
            "terminating",
            json!({"ready": false, "serving": false, "terminating": true}),
        ),
        empty,
        nobodys,
    ]
}

#[test]
fn the_older_of_two_splits_wins_on_every_node_until_it_goes() {
    let site = Site::enter();
    let namespace = site.namespace("rivals");
    namespace.shop(1);
    // Named so that the order of names would have it otherwise.
    site.apply(&namespace.split_object("zebra", &[3, 1]));
    site.wait_for_weights("rivals", "shop", &[3, 1]);
    // Ages are told in whole seconds.
    thread::sleep(Duration::from_millis(1100));
    site.apply(&namespace.split_object("aardvark", &[1, 3]));

    let told = |split: &str, reason: &str| {
        wait_for(&format!("{reason} of {split}"), || {
            let events = site.described("rivals", "trafficsplits");
            let times = *events.get(split)?.get(reason)?;
            assert_eq!(times, 1, "{events:?}");
            Some(())
        });
    };
    let wait_for_condition = |split: &str, kind: &str, status: &str, reason: &str| {
        wait_for(&format!("{kind} {status} of {split}"), || {
            let condition = site.condition("rivals", split, kind)?;
            (condition == (status.to_owned(), reason.to_owned())).then_some(())
        });
    };
    told("aardvark", "RootTaken");
    wait_for_condition("aardvark", "Accepted", "False", "RootTaken");
    wait_for_condition("aardvark", "InForce", "False", "RootTaken");
    wait_for_condition("zebra", "Accepted", "True", "Accepted");
    wait_for_condition("zebra", "InForce", "True", "InForce");
    for node in site.nodes() {
        let counts = site.ask_from(node, &namespace.url(), 20);
        assert_eq!(
            counts,
            Counts::of([("v1", 15), ("v2", 5)]),
            "on {}",
            node.name()
        );
    }

    site.kubectl(&["-n", "rivals", "delete", "trafficsplit", "zebra"]);
    site.wait_for_weights("rivals", "shop", &[1, 3]);
    for node in site.nodes() {
        let counts = site.ask_from(node, &namespace.url(), 20);
        assert_eq!(
            counts,
            Counts::of([("v1", 5), ("v2", 15)]),
            "on {}",
            node.name()
        );
    }
    told("aardvark", "Accepted");
    wait_for_condition("aardvark", "Accepted", "True", "Accepted");
    wait_for_condition("aardvark", "InForce", "True", "InForce");
    wait_for_condition("aardvark", "Impaired", "False", "AsWritten");

    // The status follows what is not written in the object as well.
    site.kubectl(&["-n", "rivals", "delete", "service", "shop-v1"]);
    wait_for_condition("aardvark", "Impaired", "True", "LeafServiceMissing");
    wait_for_condition("aardvark", "InForce", "True", "InForce");
    for node in site.nodes() {
        let counts = site.ask_from(node, &namespace.url(), 8);
        assert_eq!(counts, Counts::of([("v2", 8)]), "on {}", node.name());
    }
}
