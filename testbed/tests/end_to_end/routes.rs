//! Weights as people write them: VirtualServices with DestinationRules, and routes of the Gateway
//! API, with real pods behind them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use splitter_api::Verdict;
use testbed::fixtures::definitions::{ForeignKind, GATEWAY_ROUTES, ISTIO_KINDS};
use testbed::fixtures::{Tally, manifests};

use crate::load::Load;
use crate::namespace::Namespace;
use crate::test_cluster::{Node, TestCluster, examples_image, wait_for};

/// The definitions of the Gateway API and of Istio, taken away again when this is dropped.
struct Definitions<'a>(&'a TestCluster);

fn foreign_kinds() -> impl Iterator<Item = ForeignKind> {
    GATEWAY_ROUTES.into_iter().chain(ISTIO_KINDS)
}

impl<'a> Definitions<'a> {
    fn install(cluster: &'a TestCluster) -> Self {
        let definitions: Vec<Value> = foreign_kinds().map(|kind| kind.definition()).collect();
        cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": definitions}));
        for kind in foreign_kinds() {
            let path = format!("/apis/{}/{}/{}", kind.group, kind.versions[0], kind.plural);
            wait_for(&format!("{} to be served", kind.kind), || {
                let list = cluster.try_kubectl(&["get", "--raw", &path], None);
                list.status.success().then_some(())
            });
        }
        Self(cluster)
    }
}

impl Drop for Definitions<'_> {
    fn drop(&mut self) {
        let names: Vec<String> = foreign_kinds().map(|kind| kind.definition_name()).collect();
        let names = names.iter().map(String::as_str);
        let arguments = ["delete", "crd", "--ignore-not-found", "--wait=false"];
        let arguments: Vec<&str> = arguments.into_iter().chain(names).collect();
        let _ = self.0.try_kubectl(&arguments, None);
    }
}

/// A Service `reviews` on port 9080 with three versions of very different sizes behind it, and a
/// Service for each version.
fn bookinfo(shop: &Namespace<'_>) {
    shop.service("reviews", 9080, &json!({"app": "shop"}));
    for (version, replicas) in [("v1", 3), ("v2", 1), ("v3", 1)] {
        shop.service(
            &format!("reviews-{version}"),
            9080,
            &json!({"app": "shop", "version": version}),
        );
        shop.servers(version, replicas);
    }
    for version in ["v1", "v2", "v3"] {
        shop.wait_for_servers(version);
    }
}

fn virtual_service(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

/// The subsets of `reviews`, by the label `version`.
fn subsets(namespace: &str) -> Value {
    let subset = |version: &str| json!({"name": version, "labels": {"version": version}});
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "reviews", "namespace": namespace},
        "spec": {"host": "reviews", "subsets": [subset("v1"), subset("v2"), subset("v3")]},
    })
}

/// A VirtualService of `reviews` over subsets.
fn to_subsets(namespace: &str, weights: &[(&str, u64)]) -> Value {
    let route: Vec<Value> = weights
        .iter()
        .map(|(subset, weight)| {
            json!({"destination": {"host": "reviews", "subset": subset}, "weight": weight})
        })
        .collect();
    let spec = json!({"hosts": ["reviews"], "http": [{"route": route}]});
    virtual_service(namespace, "reviews", &spec)
}

/// A route of the Gateway API from a Service to others.
fn gateway_route(
    kind: &str,
    namespace: &str,
    name: &str,
    parent: &Value,
    backends: &Value,
) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"parentRefs": [parent], "rules": [{"backendRefs": backends}]},
    })
}

fn service_parent(name: &str, port: Option<u16>) -> Value {
    let mut parent = json!({"group": "", "kind": "Service", "name": name});
    if let Some(port) = port {
        parent["port"] = json!(port);
    }
    parent
}

/// Backends on port 9080.
fn backends(weights: &[(&str, u64)]) -> Value {
    let backends = weights
        .iter()
        .map(|(name, weight)| json!({"name": name, "port": 9080, "weight": weight}));
    backends.collect()
}

fn url(shop: &Namespace<'_>) -> String {
    format!("http://reviews.{}:9080/", shop.name())
}

/// Waits until every node has `reviews` split by an object of this kind into leaves with these
/// weights.
fn wait_for_leaves(shop: &Namespace<'_>, kind: &str, leaves: &[(&str, u64)]) {
    let wanted: BTreeMap<&str, u64> = leaves.iter().copied().collect();
    let what = format!("{wanted:?} by {kind}");
    let cluster = shop.cluster();
    cluster.wait_for_split(&what, shop.name(), "reviews", |split| {
        split.is_some_and(|split| {
            let leaves = split.leaves.iter();
            let leaves: BTreeMap<&str, u64> = leaves
                .map(|leaf| (leaf.service.as_str(), leaf.weight))
                .collect();
            // One whose pods are not followed yet is there already, and passes through.
            split.kind == kind && split.verdict == Verdict::Split && leaves == wanted
        })
    });
}

/// Panics unless the next `count` connections from each node are answered so.
fn assert_shares<const N: usize>(shop: &Namespace<'_>, count: u64, shares: [(&str, u64); N]) {
    for node in shop.cluster().nodes() {
        let counts = shop.cluster().ask_from(node, &url(shop), count);
        assert_eq!(counts, Tally::of(shares), "on {}", node.name());
    }
}

/// The conditions of an object, as `type=status reason`.
fn conditions(object: &Value) -> Vec<String> {
    let conditions = object.as_array().into_iter().flatten();
    let text = |condition: &Value, field: &str| {
        let text = condition[field].as_str();
        text.unwrap_or_default().to_owned()
    };
    conditions
        .map(|condition| {
            format!(
                "{}={} {}",
                text(condition, "type"),
                text(condition, "status"),
                text(condition, "reason")
            )
        })
        .collect()
}

/// Waits until the VirtualService `reviews` has conditions that begin so.
fn wait_for_conditions<const N: usize>(shop: &Namespace<'_>, wanted: [&str; N]) {
    wait_for(&format!("{wanted:?} of the VirtualService"), || {
        let object = shop
            .cluster()
            .get(&["-n", shop.name(), "get", "virtualservice", "reviews"]);
        let conditions = conditions(&object["status"]["conditions"]);
        let has = |wanted: &&str| conditions.iter().any(|it| it.starts_with(wanted));
        wanted.iter().all(has).then_some(())
    });
}

#[test]
fn bookinfo_shifts_with_virtual_services_and_with_http_routes() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let _definitions = Definitions::install(&cluster);
    let shop = cluster.namespace("routes-bookinfo");
    bookinfo(&shop);

    cluster.apply(&subsets(shop.name()));
    cluster.apply(&to_subsets(shop.name(), &[("v1", 0)]));
    wait_for_leaves(&shop, "VirtualService", &[("reviews/v1", 100)]);
    assert_shares(&shop, 40, [("v1", 40)]);
    cluster.apply(&to_subsets(shop.name(), &[("v1", 50), ("v3", 50)]));
    let halves = [("reviews/v1", 50), ("reviews/v3", 50)];
    wait_for_leaves(&shop, "VirtualService", &halves);
    assert_shares(&shop, 10, [("v1", 5), ("v3", 5)]);
    cluster.apply(&to_subsets(shop.name(), &[("v3", 100)]));
    wait_for_leaves(&shop, "VirtualService", &[("reviews/v3", 100)]);
    assert_shares(&shop, 40, [("v3", 40)]);
    wait_for_conditions(
        &shop,
        ["splitter.dev/Accepted=True", "splitter.dev/Programmed=True"],
    );

    // Weights that change while clients connect: every connection is answered, and what is in force
    // at last is exact.
    let load = Load::on(&cluster, shop.name(), "reviews").at_port(9080);
    let load = load.start();
    for weights in [[90, 10], [50, 50], [0, 100]] {
        let subsets = [("v1", weights[0]), ("v3", weights[1])];
        cluster.apply(&to_subsets(shop.name(), &subsets));
        let leaves = [("reviews/v1", weights[0]), ("reviews/v3", weights[1])];
        wait_for_leaves(&shop, "VirtualService", &leaves);
        load.assert_goes_on();
    }
    load.finish().assert_none_failed();
    // Counted from the change on.
    cluster.apply(&to_subsets(shop.name(), &[("v1", 70), ("v3", 30)]));
    wait_for_leaves(
        &shop,
        "VirtualService",
        &[("reviews/v1", 70), ("reviews/v3", 30)],
    );
    assert_shares(&shop, 100, [("v1", 70), ("v3", 30)]);

    // What a connection cannot honour is refused by its field, and the Service is as without a
    // split: a timeout of requests, and a match of requests' headers.
    let mut late = to_subsets(shop.name(), &[("v3", 100)]);
    late["spec"]["http"][0]["timeout"] = json!("0.002s");
    let mut one_user = to_subsets(shop.name(), &[("v3", 100)]);
    let rules = one_user["spec"]["http"].as_array_mut().expect("rules");
    rules.insert(
        0,
        json!({
            "match": [{"headers": {"end-user": {"exact": "jason"}}}],
            "route": [{"destination": {"host": "reviews", "subset": "v2"}}],
        }),
    );
    for (refused, field) in [
        (late, "spec.http[0].timeout"),
        (one_user, "spec.http[0].match[0].headers"),
    ] {
        cluster.apply(&refused);
        wait_for(&format!("{field} to be refused"), || {
            let object = cluster.get(&["-n", shop.name(), "get", "virtualservice", "reviews"]);
            object["status"].to_string().contains(field).then_some(())
        });
        cluster.wait_for_verdict(shop.name(), "reviews", Verdict::PassThrough);
        for node in cluster.nodes() {
            let counts = cluster.ask_from(node, &url(&shop), 100);
            assert_eq!(counts.failed(), 0, "{counts:?}");
            assert!(
                counts.count("v1") > 0 && counts.count("v2") > 0,
                "{counts:?}"
            );
        }
    }

    // The same sequence as routes, which take precedence over what is left of Istio's.
    cluster.apply(&to_subsets(shop.name(), &[("v3", 100)]));
    let parent = service_parent("reviews", Some(9080));
    for (weights, shares) in [
        (vec![("reviews-v1", 1)], vec![("v1", 40)]),
        (
            vec![("reviews-v1", 50), ("reviews-v3", 50)],
            vec![("v1", 20), ("v3", 20)],
        ),
        (vec![("reviews-v3", 1)], vec![("v3", 40)]),
    ] {
        let route = gateway_route(
            "HTTPRoute",
            shop.name(),
            "reviews",
            &parent,
            &backends(&weights),
        );
        cluster.apply(&route);
        wait_for_leaves(&shop, "HTTPRoute", &weights);
        for node in cluster.nodes() {
            let counts = cluster.ask_from(node, &url(&shop), 40);
            let identities: BTreeMap<&str, u64> = counts
                .identities
                .iter()
                .map(|(name, count)| (name.as_str(), *count))
                .collect();
            assert_eq!(identities, shares.iter().copied().collect(), "{counts:?}");
        }
    }
    let route = wait_for("the status of the HTTPRoute", || {
        let route = cluster.get(&["-n", shop.name(), "get", "httproute", "reviews"]);
        let generation = &route["metadata"]["generation"];
        let parents = route["status"]["parents"].as_array()?;
        let own = &parents.first()?["conditions"];
        let is_current = |condition: &Value| condition["observedGeneration"] == *generation;
        own.as_array()?.iter().all(is_current).then_some(route)
    });
    let own = &route["status"]["parents"][0];
    assert_eq!(own["parentRef"], parent);
    assert_eq!(own["controllerName"], "splitter.dev/controller");
    let own = conditions(&own["conditions"]);
    for condition in ["Accepted=True Accepted", "ResolvedRefs=True ResolvedRefs"] {
        assert!(own.iter().any(|it| it == condition), "{own:?}");
    }
    wait_for_conditions(&shop, ["splitter.dev/Accepted=False Conflicted"]);

    // Three APIs on one Service: what takes precedence is deleted, and the next is in force.
    let root = "reviews";
    let split = manifests::traffic_split(
        "v1alpha2",
        shop.name(),
        root,
        root,
        &[("reviews-v1", 1), ("reviews-v2", 3)],
    );
    cluster.apply(&split);
    wait_for("the TrafficSplit to be told", || {
        let object = cluster.get(&["-n", shop.name(), "get", "trafficsplit", root]);
        let conditions = conditions(&object["status"]["conditions"]);
        let is_told = |it: &String| it == "Accepted=False Conflicted";
        conditions.iter().any(is_told).then_some(())
    });
    assert_shares(&shop, 40, [("v3", 40)]);
    shop.kubectl(&["delete", "httproute", root]);
    wait_for_leaves(&shop, "VirtualService", &[("reviews/v3", 100)]);
    wait_for_conditions(&shop, ["splitter.dev/Accepted=True"]);
    shop.kubectl(&["delete", "virtualservice", root]);
    wait_for_leaves(
        &shop,
        "TrafficSplit",
        &[("reviews-v1", 1), ("reviews-v2", 3)],
    );
    assert_shares(&shop, 40, [("v1", 10), ("v2", 30)]);
}

#[test]
fn tcp_routes_are_exact_and_refuse_the_share_of_what_is_not_there() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let _definitions = Definitions::install(&cluster);
    let shop = cluster.namespace("routes-tcp");
    bookinfo(&shop);
    let (shop, cluster) = (&shop, &*cluster);
    let route = |name: &str, parent: &Value, weights: &[(&str, u64)]| {
        gateway_route("TCPRoute", shop.name(), name, parent, &backends(weights))
    };
    let named = json!({"group": "", "kind": "Service", "name": "reviews", "sectionName": "http"});
    let node = &cluster.nodes()[0];
    // Not by name: ten thousand questions to the name server are another test.
    let address = cluster.cluster_ip(shop.name(), "reviews");
    for (v1, v3) in [(99, 1), (1, 1), (999, 1), (0, 100)] {
        let weights = [("reviews-v1", v1), ("reviews-v3", v3)];
        cluster.apply(&route("reviews", &named, &weights));
        wait_for_leaves(shop, "TCPRoute", &weights);
        let counts = cluster.ask_from(node, &format!("http://{address}:9080/"), 10_000);
        let part = 10_000 / (v1 + v3);
        assert_eq!(counts.failed(), 0, "{counts:?}");
        assert_eq!(counts.count("v1"), v1 * part, "{counts:?}");
        assert_eq!(counts.count("v3"), v3 * part, "{counts:?}");
    }

    // A backend that does not exist keeps its share, which is refused.
    let weights = [("reviews-v1", 3), ("reviews-v9", 1)];
    cluster.apply(&route("reviews", &named, &weights));
    wait_for_leaves(shop, "TCPRoute", &weights);
    let counts = cluster.ask_from(node, &format!("http://{address}:9080/"), 100);
    assert_eq!(
        (counts.count("v1"), counts.errors["refused"]),
        (75, 25),
        "{counts:?}"
    );
    wait_for("the backend to be named", || {
        let route = cluster.get(&["-n", shop.name(), "get", "tcproute", "reviews"]);
        let own = conditions(&route["status"]["parents"][0]["conditions"]);
        let is_told = |it: &String| it == "ResolvedRefs=False BackendNotFound";
        own.iter().any(is_told).then_some(())
    });

    // A younger route on the same Service is accepted, and not in force.
    let all = service_parent("reviews", None);
    cluster.apply(&route("reviews-too", &all, &[("reviews-v2", 1)]));
    wait_for("the younger route to be told", || {
        let route = cluster.get(&["-n", shop.name(), "get", "tcproute", "reviews-too"]);
        let own = conditions(&route["status"]["parents"][0]["conditions"]);
        own.iter()
            .any(|it| it == "Accepted=True Accepted")
            .then_some(())
    });
    let counts = cluster.ask_from(node, &url(shop), 40);
    assert_eq!(counts.count("v2"), 0, "{counts:?}");

    // A pod's own address is no Service's.
    let pods = shop.pods_of("v2");
    let address = pods.values().next().expect("a pod");
    let counts = cluster.ask_from(node, &format!("http://{address}:8080/"), 10);
    assert_eq!(counts, Tally::of([("v2", 10)]));
}

/// A client of its own in a namespace, on a node.
struct ClientPod<'a> {
    cluster: &'a TestCluster,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> ClientPod<'a> {
    fn start(
        shop: &'a Namespace<'_>,
        node: &Node,
        name: &'a str,
        labels: &Value,
        annotations: &Value,
    ) -> Self {
        let cluster = shop.cluster();
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": shop.name(), "labels": labels,
                "annotations": annotations,
            },
            "spec": {
                "nodeName": node.name(), "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "client", "image": examples_image(), "args": ["idle"],
                }],
            },
        }));
        Self {
            cluster,
            namespace: shop.name(),
            name,
        }
    }

    fn wait(&self) {
        let pod = format!("pod/{}", self.name);
        let condition = "--for=condition=Ready";
        self.cluster.kubectl(&[
            "-n",
            self.namespace,
            "wait",
            condition,
            &pod,
            "--timeout=90s",
        ]);
    }

    fn ask(&self, url: &str, count: u64) -> Tally {
        self.cluster.ask_in(self.namespace, self.name, url, count)
    }
}

#[test]
fn who_connects_decides_where_it_goes() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let _definitions = Definitions::install(&cluster);
    let shop = cluster.namespace("routes-clients");
    let team = cluster.namespace("routes-team");
    bookinfo(&shop);
    let node = &cluster.nodes()[0];
    let none = json!({});
    let skip = json!({"splitter.dev/skip": "true"});
    let canary = json!({"track": "canary"});
    let plain = ClientPod::start(&shop, node, "plain", &none, &none);
    let labelled = ClientPod::start(&shop, node, "labelled", &canary, &none);
    let skipped = ClientPod::start(&shop, node, "skipped", &none, &skip);
    let consumer = ClientPod::start(&team, node, "consumer", &none, &none);
    for client in [&plain, &labelled, &skipped, &consumer] {
        client.wait();
    }
    let url = url(&shop);
    let until = |what: &str, client: &ClientPod<'_>, version: &str| {
        wait_for(what, || {
            let counts = client.ask(&url, 20);
            assert_eq!(counts.failed(), 0, "{counts:?}");
            (counts.count(version) == 20).then_some(())
        });
    };

    // The producer's route is for everyone, the consumer's for the pods of its own namespace.
    let parent = service_parent("reviews", None);
    let to = |version| backends(&[(version, 1)]);
    let producer = gateway_route(
        "HTTPRoute",
        shop.name(),
        "reviews",
        &parent,
        &to("reviews-v1"),
    );
    cluster.apply(&producer);
    wait_for_leaves(&shop, "HTTPRoute", &[("reviews-v1", 1)]);
    let mut elsewhere = parent.clone();
    elsewhere["namespace"] = json!(shop.name());
    let backend = json!([{
        "name": "reviews-v2", "namespace": shop.name(), "port": 9080, "weight": 1,
    }]);
    let own = gateway_route("HTTPRoute", team.name(), "reviews", &elsewhere, &backend);
    cluster.apply(&own);
    until("the consumer's own route", &consumer, "v2");
    for client in [&plain, &labelled] {
        assert_eq!(
            client.ask(&url, 20),
            Tally::of([("v1", 20)]),
            "{}",
            client.name
        );
    }
    // kube-proxy's own choice, among all pods.
    let counts = skipped.ask(&url, 100);
    assert_eq!(counts.failed(), 0, "{counts:?}");
    assert!(counts.count("v3") > 0, "{counts:?}");
    for (name, namespace) in [("reviews", shop.name()), ("reviews", team.name())] {
        cluster.kubectl(&["-n", namespace, "delete", "httproute", name]);
    }

    // Only some clients of a VirtualService; everyone else is as without a split.
    cluster.apply(&subsets(shop.name()));
    let destination = json!([{"destination": {"host": "reviews", "subset": "v3"}}]);
    let spec = json!({
        "hosts": ["reviews"],
        "http": [{"match": [{"sourceLabels": {"track": "canary"}}], "route": destination}],
    });
    cluster.apply(&virtual_service(shop.name(), "reviews", &spec));
    until("the labelled client's split", &labelled, "v3");
    for client in [&plain, &consumer] {
        let counts = client.ask(&url, 100);
        assert_eq!(counts.failed(), 0, "{counts:?}");
        assert!(
            counts.count("v1") > 0 && counts.count("v2") > 0,
            "{counts:?}"
        );
    }
    // Labels that change count for the next connection.
    shop.kubectl(&["label", "pod", "plain", "track=canary"]);
    until("the newly labelled client's split", &plain, "v3");
}
