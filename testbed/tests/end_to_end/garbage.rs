//! Objects that nobody should write and everybody does: each is told of, and none disturbs another.

mod cases;
mod slices;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cases::{Case, Outcome, accepted, backend, elsewhere, inactive, refused, service, warned};
use serde_json::{Value, json};
use splitter_api::{Leaf, LeafState, Verdict};
use testbed::fixtures::Tally;

use crate::definition::{Changed, permissive};
use crate::namespace::Namespace;
use crate::observe::Events;
use crate::test_cluster::{Node, TestCluster, wait_for};

/// Splits of other namespaces than the test's own.
struct Elsewhere<'a>(&'a TestCluster);

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

/// Case: OBJECT-ISOLATED
#[test]
fn garbage_of_every_kind_is_told_of_and_disturbs_no_neighbour() {
    // It replaces the definition, and writes to the namespace `default`.
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let namespace = cluster.namespace("garbage");
    namespace.shop(1);
    namespace.split(&[1, 3]);
    let cases: Vec<Case> = [refused(), inactive(), warned(), accepted()]
        .into_iter()
        .flatten()
        .collect();
    make_services(&cluster, &cases);

    let _changed = Changed(&cluster);
    let _elsewhere = Elsewhere(&cluster);
    let stop = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let neighbour = scope.spawn(|| ask_neighbour(&cluster, &namespace, &stop));
        let stopped = Stop(&stop);
        cluster.replace_definition(&permissive());
        create_garbage(&cluster, &cases);
        wait_until_told(&cluster, &cases);
        for node in cluster.nodes() {
            wait_for_findings(&cluster, node, &cases);
            for case in &cases {
                case.assert_outcome(&cluster, node);
            }
            wait_for_generations(&cluster, node, &namespace);
        }
        assert_api_server_is_left_alone(&cluster);
        // Time enough for a second agent, or a second time.
        assert_told_once(&cluster.described("garbage", "trafficsplits"), &cases);
        correct(&cluster, &namespace);
        clear(&cluster, &cases);
        drop(stopped);
        neighbour.join().expect("an exact neighbour")
    });
    assert!(asked > 0, "the neighbour was asked");
    for node in cluster.nodes() {
        let metrics = cluster.metrics(node);
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
fn make_services(cluster: &TestCluster, cases: &[Case]) {
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
    let output = cluster.try_kubectl(&["create", "-f", "-"], Some(&list(services)));
    assert!(output.status.success(), "{output:?}");
}

fn create_garbage(cluster: &TestCluster, cases: &[Case]) {
    let splits = cases.iter().map(|case| case.object.clone());
    let garbage = list(splits.chain(elsewhere()));
    let create = ["create", "--validate=false", "-f", "-"];
    wait_for("the other definition to be in effect", || {
        let try_out = [&create[..], &["--dry-run=server"]].concat();
        let output = cluster.try_kubectl(&try_out, Some(&garbage));
        output.status.success().then_some(())
    });
    let output = cluster.try_kubectl(&create, Some(&garbage));
    assert!(output.status.success(), "{output:?}");
}

/// Asks the neighbour from every node until told to stop; how many times four connections each
/// node made.
fn ask_neighbour(cluster: &TestCluster, namespace: &Namespace<'_>, stop: &AtomicBool) -> u64 {
    let mut asked = 0;
    while !stop.load(Ordering::Relaxed) {
        for node in cluster.nodes() {
            let counts = cluster.ask_from(node, &namespace.url(), 40);
            let expected = Tally::of([("v1", 10), ("v2", 30)]);
            assert_eq!(counts, expected, "the neighbour on {}", node.name());
        }
        asked += 10;
        // The rest of the machine is for the test itself.
        thread::sleep(Duration::from_millis(200));
    }
    asked
}

fn wait_until_told(cluster: &TestCluster, cases: &[Case]) {
    wait_for("an Event on everything", || {
        let events = cluster.described("garbage", "trafficsplits");
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
        let events = cluster.described("default", "trafficsplits");
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
fn wait_for_findings(cluster: &TestCluster, node: &Node, cases: &[Case]) {
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
            let found = cluster.metrics(node).sum("object_findings", &labels);
            (found == Some(expected)).then_some(())
        });
    }
}

/// Waits until whatever has a generation is at that generation on the node. The agent that leads
/// tells of every split, the others of those that connections of their node went to.
fn wait_for_generations(cluster: &TestCluster, node: &Node, namespace: &Namespace<'_>) {
    let splits = cluster.get(&["-n", namespace.name(), "get", "trafficsplits"]);
    let splits = splits["items"].as_array().expect("splits");
    wait_for(&format!("every generation on {}", node.name()), || {
        let metrics = cluster.metrics(node);
        let leads = metrics.sum("leader", &[]) == Some(1);
        let is_told = |split: &Value, metric: &str| {
            let metadata = &split["metadata"];
            let name = metadata["name"].as_str().expect("a name");
            let labels = [("destination_namespace", namespace.name()), ("split", name)];
            match metrics.sum(metric, &labels) {
                None => !leads,
                generation => generation == metadata["generation"].as_u64(),
            }
        };
        let mut both = ["split_generation", "split_desired_generation"].into_iter();
        (metrics.sum("splits_stale", &[]) == Some(0)
            && both.all(|metric| splits.iter().all(|split| is_told(split, metric))))
        .then_some(())
    });
}

/// A connection to the API server gets there, which is all that can be told without TLS.
fn assert_api_server_is_left_alone(cluster: &TestCluster) {
    for node in cluster.nodes() {
        let counts = cluster.ask_from(node, "http://kubernetes.default:443/", 5);
        assert_eq!(counts.errors.get("status-400"), Some(&5), "{counts:?}");
        assert_eq!(cluster.split_on(node, "default", "shop"), None);
    }
}

/// What is put right is split by itself, whatever garbage is around it.
fn correct(cluster: &TestCluster, namespace: &Namespace<'_>) {
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
    let output = cluster.try_kubectl(&replace, Some(&list(splits)));
    assert!(output.status.success(), "{output:?}");
    for name in ["missing-root", "nowhere"] {
        let version = json!({"app": "shop", "version": "v2"});
        namespace.service(name, 80, &version);
    }
    for case in &corrected {
        cluster.wait_for_split("a corrected split", "garbage", case.name, |split| {
            let split = split.filter(|split| split.verdict == Verdict::Split);
            split.is_some_and(|split| {
                let ready = |leaf: &Leaf| leaf.state == LeafState::Ready && leaf.endpoints == 1;
                split.leaves.iter().all(ready)
            })
        });
        for node in cluster.nodes() {
            case.assert_outcome(cluster, node);
        }
    }
}

/// Without the garbage nothing is left of it.
fn clear(cluster: &TestCluster, cases: &[Case]) {
    cluster.kubectl(&["-n", "garbage", "delete", "trafficsplits", "-l", "odd=yes"]);
    cluster.kubectl(&["-n", "default", "delete", "trafficsplits", "--all"]);
    for node in cluster.nodes() {
        for reason in reasons(cases).into_keys() {
            wait_for(&format!("no findings of {reason}"), || {
                let labels = [("kind", "TrafficSplit"), ("reason", reason)];
                let found = cluster.metrics(node).sum("object_findings", &labels);
                let left = (reason == "Accepted").then_some(1);
                (found == left).then_some(())
            });
        }
        for name in ["all-zero", "none-ready", "duplicate", "negative"] {
            let url = format!("http://{name}.garbage/");
            let counts = cluster.ask_from(node, &url, 10);
            assert_eq!(counts, Tally::of([("v2", 10)]), "{name} on {}", node.name());
        }
    }
}

/// Case: CONFLICT-OLDER
#[test]
fn the_older_of_two_splits_wins_on_every_node_until_it_goes() {
    let cluster = TestCluster::enter();
    let namespace = cluster.namespace("rivals");
    namespace.shop(1);
    // Named so that the order of names would have it otherwise.
    cluster.apply(&namespace.split_object("zebra", &[3, 1]));
    cluster.wait_for_weights("rivals", "shop", &[3, 1]);
    // Ages are told in whole seconds.
    thread::sleep(Duration::from_millis(1100));
    cluster.apply(&namespace.split_object("aardvark", &[1, 3]));

    let told = |split: &str, reason: &str| {
        wait_for(&format!("{reason} of {split}"), || {
            let events = cluster.described("rivals", "trafficsplits");
            let times = *events.get(split)?.get(reason)?;
            assert_eq!(times, 1, "{events:?}");
            Some(())
        });
    };
    let wait_for_condition = |split: &str, kind: &str, status: &str, reason: &str| {
        wait_for(&format!("{kind} {status} of {split}"), || {
            let condition = cluster.condition("rivals", split, kind)?;
            (condition == (status.to_owned(), reason.to_owned())).then_some(())
        });
    };
    told("aardvark", "RootTaken");
    wait_for_condition("aardvark", "Accepted", "False", "RootTaken");
    wait_for_condition("aardvark", "Programmed", "False", "RootTaken");
    wait_for_condition("zebra", "Accepted", "True", "Accepted");
    wait_for_condition("zebra", "Programmed", "True", "Programmed");
    for node in cluster.nodes() {
        let counts = cluster.ask_from(node, &namespace.url(), 20);
        assert_eq!(
            counts,
            Tally::of([("v1", 15), ("v2", 5)]),
            "on {}",
            node.name()
        );
    }

    cluster.kubectl(&["-n", "rivals", "delete", "trafficsplit", "zebra"]);
    cluster.wait_for_weights("rivals", "shop", &[1, 3]);
    for node in cluster.nodes() {
        let counts = cluster.ask_from(node, &namespace.url(), 20);
        assert_eq!(
            counts,
            Tally::of([("v1", 5), ("v2", 15)]),
            "on {}",
            node.name()
        );
    }
    told("aardvark", "Accepted");
    wait_for_condition("aardvark", "Accepted", "True", "Accepted");
    wait_for_condition("aardvark", "Programmed", "True", "Programmed");
    wait_for_condition("aardvark", "ResolvedRefs", "True", "ResolvedRefs");

    // The status follows what is not written in the object as well.
    cluster.kubectl(&["-n", "rivals", "delete", "service", "shop-v1"]);
    wait_for_condition("aardvark", "ResolvedRefs", "False", "LeafServiceMissing");
    wait_for_condition("aardvark", "Programmed", "True", "Programmed");
    // One agent has written that.
    cluster.wait_for_leaf("rivals", "shop", "shop-v1", LeafState::ServiceMissing);
    for node in cluster.nodes() {
        let counts = cluster.ask_from(node, &namespace.url(), 8);
        assert_eq!(counts, Tally::of([("v2", 8)]), "on {}", node.name());
    }
}
