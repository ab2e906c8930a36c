//! What the agents may do, and what becomes of them when they may no longer.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::cluster::Component;
use testbed::fixtures::Tally;

use crate::agents::AGENT_SELECTOR;
use crate::load::{BUSY, Load};
use crate::namespace::Namespace;
use crate::test_cluster::{SYSTEM, TestCluster, wait_for};

const ACCOUNT: &str = "system:serviceaccount:splitter-system:splitter-agent";

#[test]
fn agents_may_do_no_more_than_they_need() {
    let cluster = TestCluster::enter();
    let everywhere = [
        "endpointslices.discovery.k8s.io [] [list watch]",
        "events.events.k8s.io [] [create patch]",
        "nodes [] [get]",
        "pods [] [list watch]",
        "services [] [list watch]",
    ];
    let routes = [
        "trafficsplits.split.smi-spec.io",
        "grpcroutes.gateway.networking.k8s.io",
        "httproutes.gateway.networking.k8s.io",
        "tlsroutes.gateway.networking.k8s.io",
        "tcproutes.gateway.networking.k8s.io",
        "udproutes.gateway.networking.k8s.io",
        "virtualservices.networking.istio.io",
    ];
    let rule = "destinationrules.networking.istio.io";
    let mut expected: BTreeSet<String> = everywhere.map(str::to_owned).into();
    expected.extend(routes.map(|kind| format!("{kind}/status [] [patch]")));
    for kind in routes.into_iter().chain([rule]) {
        let definition = "customresourcedefinitions.apiextensions.k8s.io";
        expected.insert(format!("{kind} [] [list watch]"));
        expected.insert(format!("{definition} [{kind}] [get list watch]"));
    }
    assert_eq!(rights(&cluster, "kube-system"), expected);
    expected.extend(
        [
            "leases.coordination.k8s.io [] [create]",
            "leases.coordination.k8s.io [splitter-agent] [get update]",
        ]
        .map(str::to_owned),
    );
    assert_eq!(rights(&cluster, SYSTEM), expected);
    for forbidden in [
        "get secrets",
        "get pods",
        "get configmaps",
        "patch nodes",
        "get services",
    ] {
        let (verb, resource) = forbidden.split_once(' ').expect("two words");
        let asked = ["auth", "can-i", verb, resource, "-A", "--as", ACCOUNT];
        let output = cluster.try_kubectl(&asked, None);
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(answer.trim(), "no", "{forbidden}: {output:?}");
    }
}

/// What the agents may do to which objects in a namespace, beyond what everybody may.
fn rights(cluster: &TestCluster, namespace: &str) -> BTreeSet<String> {
    let text = cluster.kubectl(&["-n", namespace, "auth", "can-i", "--list", "--as", ACCOUNT]);
    let mut lines = text.lines();
    let head = lines.next().expect("a head");
    let columns = ["Non-Resource URLs", "Resource Names", "Verbs"];
    let [urls, names, verbs] = columns.map(|column| head.find(column).expect("a column"));
    let right = |line: &str| {
        let resource = line[..urls].trim();
        let names = line[names..verbs].trim();
        let verbs = line[verbs..].trim();
        // Who somebody is and what they may do, everybody may ask.
        let is_own = !resource.is_empty() && !resource.starts_with("self");
        is_own.then(|| format!("{resource} {names} {verbs}"))
    };
    lines.filter_map(right).collect()
}

/// Gives the agents their rights back when dropped.
struct Withdrawn<'a>(&'a TestCluster);

impl Drop for Withdrawn<'_> {
    fn drop(&mut self) {
        let _ = self.0.local().start(Component::ApiServer);
        let _ = self.0.try_kubectl(&["apply", "-k", "deploy/"], None);
    }
}

#[test]
fn agents_without_rights_keep_what_is_programmed_and_catch_up_later() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let namespace = cluster.namespace("withdrawn");
    namespace.shop(1);
    namespace.service(BUSY, 80, &json!({"app": "shop"}));
    let mut busy = namespace.split_object("busy", &[1, 1]);
    busy["spec"]["service"] = json!(BUSY);
    cluster.apply(&busy);
    namespace.split(&[1, 3]);
    let agents = cluster.agent_lives();
    let load = Load::on(&cluster, namespace.name(), BUSY).start();

    let withdrawn = Withdrawn(&cluster);
    withdraw(&cluster);
    // Everything of this is news that no agent may read.
    cluster.apply(&namespace.split_object("canary", &[3, 1]));
    namespace.service("late", 80, &json!({"app": "shop", "version": "v2"}));
    let mut late = namespace.split_object("late", &[1, 0]);
    late["spec"]["service"] = json!("late");
    cluster.apply(&late);
    // Longer than a probe may fail before the pod is no longer ready.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(15) {
        assert_works(&cluster, &namespace, [1, 3]);
        for node in cluster.nodes() {
            assert_eq!(cluster.split_on(node, "withdrawn", "late"), None);
        }
    }
    load.assert_goes_on();

    drop(withdrawn);
    cluster.wait_for_weights("withdrawn", "shop", &[3, 1]);
    cluster.wait_for_weights("withdrawn", "late", &[1, 0]);
    assert_works(&cluster, &namespace, [3, 1]);
    load.assert_goes_on();
    assert_eq!(cluster.agent_lives(), agents, "no agent was started again");
}

/// Takes the agents' rights away, and waits until each has noticed.
fn withdraw(cluster: &TestCluster) {
    cluster.kubectl(&["delete", "clusterrolebinding", "splitter-agent"]);
    // Who watches already is not asked again what it may do, so the watches have to end.
    cluster
        .local()
        .stop(Component::ApiServer)
        .expect("no API server");
    cluster
        .local()
        .start(Component::ApiServer)
        .expect("an API server");
    wait_for("the API server", || {
        let ready = cluster.try_kubectl(&["get", "--raw", "/readyz"], None);
        ready.status.success().then_some(())
    });
    for node in cluster.nodes() {
        for kind in ["Service", "EndpointSlice", "TrafficSplit"] {
            wait_for(&format!("{kind} to be refused on {}", node.name()), || {
                let labels = [("kind", kind), ("code", "403")];
                cluster.metrics(node).sum("watch_errors_total", &labels)
            });
        }
    }
}

/// Panics unless every agent is alive and ready, and the shop split by these weights.
fn assert_works(cluster: &TestCluster, namespace: &Namespace<'_>, weights: [u64; 2]) {
    let pods = cluster.get(&["-n", SYSTEM, "get", "pods", "-l", AGENT_SELECTOR]);
    let is_ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
    let all = pods["items"]
        .as_array()
        .is_some_and(|pods| pods.iter().all(is_ready));
    assert!(all, "not ready: {pods}");
    for node in cluster.nodes() {
        for path in ["livez", "readyz"] {
            assert!(
                cluster.ask_agent(node, path).is_some(),
                "{path} of {}",
                node.name()
            );
        }
        let counts = cluster.ask_from(node, &namespace.url(), 20);
        let expected = Tally::of([("v1", 5 * weights[0]), ("v2", 5 * weights[1])]);
        assert_eq!(counts, expected, "on {}", node.name());
    }
}
