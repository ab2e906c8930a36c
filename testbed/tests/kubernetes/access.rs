//! What the agents may do, and what becomes of them when they may no longer.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::cluster::Component;

use crate::counts::Counts;
use crate::namespace::Namespace;
use crate::site::{SYSTEM, Site, wait_for};
use crate::traffic::{self, Traffic};

const ACCOUNT: &str = "system:serviceaccount:splitter-system:splitter-agent";

#[test]
fn agents_may_do_no_more_than_they_need() {
    let site = Site::enter();
    let everywhere = [
        "customresourcedefinitions.apiextensions.k8s.io [trafficsplits.split.smi-spec.io] [get list watch]",
        "endpointslices.discovery.k8s.io [] [list watch]",
        "events.events.k8s.io [] [create patch]",
        "nodes [] [get]",
        "services [] [list watch]",
        "trafficsplits.split.smi-spec.io [] [list watch]",
        "trafficsplits.split.smi-spec.io/status [] [patch]",
    ];
    let at_home = [
        "leases.coordination.k8s.io [] [create]",
        "leases.coordination.k8s.io [splitter-agent] [get update]",
    ];
    let expected = |rights: &[&str]| rights.iter().map(|it| (*it).to_owned()).collect();
    assert_eq!(rights(&site, "kube-system"), expected(&everywhere));
    let both = [&everywhere[..], &at_home].concat();
    assert_eq!(rights(&site, SYSTEM), expected(&both));
    for forbidden in [
        "get secrets",
        "list pods",
        "get configmaps",
        "patch nodes",
        "get services",
    ] {
        let (verb, resource) = forbidden.split_once(' ').expect("two words");
        let asked = ["auth", "can-i", verb, resource, "-A", "--as", ACCOUNT];
        let output = site.try_kubectl(&asked, None);
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(answer.trim(), "no", "{forbidden}: {output:?}");
    }
}

/// What the agents may do to which objects in a namespace, beyond what everybody may.
fn rights(site: &Site, namespace: &str) -> BTreeSet<String> {
    let text = site.kubectl(&["-n", namespace, "auth", "can-i", "--list", "--as", ACCOUNT]);
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
struct Withdrawn<'a>(&'a Site);

impl Drop for Withdrawn<'_> {
    fn drop(&mut self) {
        let _ = self.0.cluster.start(Component::ApiServer);
        let _ = self.0.try_kubectl(&["apply", "-k", "deploy/"], None);
    }
}

#[test]
fn agents_without_rights_keep_what_is_programmed_and_catch_up_later() {
    let site = Site::enter();
    let namespace = site.namespace("withdrawn");
    namespace.shop(1);
    namespace.service(traffic::ROOT, 80, &json!({"app": "shop"}));
    let mut busy = namespace.split_object("busy", &[1, 1]);
    busy["spec"]["service"] = json!(traffic::ROOT);
    site.apply(&busy);
    namespace.split(&[1, 3]);
    let agents = site.agent_lives();
    let traffic = Traffic::start(&site, &namespace);

    let withdrawn = Withdrawn(&site);
    withdraw(&site);
    // Everything of this is news that no agent may read.
    site.apply(&namespace.split_object("canary", &[3, 1]));
    namespace.service("late", 80, &json!({"app": "shop", "version": "v2"}));
    let mut late = namespace.split_object("late", &[1, 0]);
    late["spec"]["service"] = json!("late");
    site.apply(&late);
    // Longer than a probe may fail before the pod is no longer ready.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(15) {
        assert_works(&site, &namespace, [1, 3]);
        for node in site.nodes() {
            assert_eq!(site.split_on(node, "withdrawn", "late"), None);
        }
    }
    traffic.goes_on();

    drop(withdrawn);
    site.wait_for_weights("withdrawn", "shop", &[3, 1]);
    site.wait_for_weights("withdrawn", "late", &[1, 0]);
    assert_works(&site, &namespace, [3, 1]);
    traffic.goes_on();
    assert_eq!(site.agent_lives(), agents, "no agent was started again");
}

/// Takes the agents' rights away, and waits until each has noticed.
fn withdraw(site: &Site) {
    site.kubectl(&["delete", "clusterrolebinding", "splitter-agent"]);
    // Who watches already is not asked again what it may do, so the watches have to end.
    site.cluster
        .stop(Component::ApiServer)
        .expect("no API server");
    site.cluster
        .start(Component::ApiServer)
        .expect("an API server");
    wait_for("the API server", || {
        let ready = site.try_kubectl(&["get", "--raw", "/readyz"], None);
        ready.status.success().then_some(())
    });
    for node in site.nodes() {
        for kind in ["Service", "EndpointSlice", "TrafficSplit"] {
            wait_for(&format!("{kind} to be refused on {}", node.name()), || {
                let labels = [("kind", kind), ("code", "403")];
                site.metrics(node).sum("watch_errors_total", &labels)
            });
        }
    }
}

/// Panics unless every agent is alive and ready, and the shop split by these weights.
fn assert_works(site: &Site, namespace: &Namespace<'_>, weights: [u64; 2]) {
    let selector = "app.kubernetes.io/name=splitter-agent";
    let pods = site.get(&["-n", SYSTEM, "get", "pods", "-l", selector]);
    let is_ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
    let all = pods["items"]
        .as_array()
        .is_some_and(|pods| pods.iter().all(is_ready));
    assert!(all, "not ready: {pods}");
    for node in site.nodes() {
        for path in ["livez", "readyz"] {
            assert!(
                site.ask_agent(node, path).is_some(),
                "{path} of {}",
                node.name()
            );
        }
        let counts = site.ask_from(node, &namespace.url(), 20);
        let expected = Counts::of([("v1", 5 * weights[0]), ("v2", 5 * weights[1])]);
        assert_eq!(counts, expected, "on {}", node.name());
    }
}
