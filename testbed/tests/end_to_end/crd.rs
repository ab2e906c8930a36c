//! The definition of TrafficSplits: late, gone, back, another tool's, or with other versions.

use serde_json::{Value, json};
use splitter_api::Verdict;
use testbed::fixtures::Tally;
use testbed::fixtures::manifests::CRD;

use crate::agents::AGENT_SELECTOR;
use crate::definition::{Changed, definition, quantities, version};
use crate::load::{BUSY, Load};
use crate::namespace::Namespace;
use crate::test_cluster::{SYSTEM, TestCluster, wait_for};

/// A shop, beside it a root `busy` for clients that ask all the time, and splits of both. Where
/// they are not split, both lead to `v2` alone.
struct Fixture<'a> {
    cluster: &'a TestCluster,
    namespace: Namespace<'a>,
}

impl<'a> Fixture<'a> {
    fn new(cluster: &'a TestCluster, name: &str) -> Self {
        let namespace = cluster.namespace(name);
        namespace.shop(1);
        for root in ["shop", BUSY] {
            namespace.service(root, 80, &json!({"app": "shop", "version": "v2"}));
        }
        Self { cluster, namespace }
    }

    fn load(&self) -> Load<'a> {
        Load::on(self.cluster, self.namespace.name(), BUSY).start_unsplit()
    }

    /// Writes both splits in a version, and waits until every node has them.
    fn split(&self, version: &str, weights: &[Value; 2], expected: [u64; 2]) {
        for root in ["shop", BUSY] {
            let mut split = self.namespace.split_object(root, &[]);
            split["apiVersion"] = json!(format!("split.smi-spec.io/{version}"));
            split["spec"] = json!({"service": root, "backends": [
                {"service": "shop-v1", "weight": weights[0]},
                {"service": "shop-v2", "weight": weights[1]},
            ]});
            self.cluster.apply(&split);
        }
        for root in ["shop", BUSY] {
            let name = self.namespace.name();
            self.cluster.wait_for_weights(name, root, &expected);
        }
    }

    /// Asks from every node, and panics if others answer than should.
    fn assert_counts(&self, v1: u64, v2: u64) {
        for node in self.cluster.nodes() {
            let counts = self.cluster.ask_from(node, &self.namespace.url(), v1 + v2);
            let expected = Tally::of([("v1", v1), ("v2", v2)]);
            assert_eq!(counts, expected, "on {}", node.name());
        }
    }

    /// Waits until no node splits anything here, and panics unless connections go where they did
    /// before.
    fn assert_unsplit(&self) {
        for root in ["shop", BUSY] {
            let name = self.namespace.name();
            let cluster = self.cluster;
            cluster.wait_for_split("no split", name, root, |split| split.is_none());
        }
        self.assert_counts(0, 10);
    }

    /// Waits for an Event on the split of the shop.
    fn wait_for_event(&self, version: &str, reason: &str) {
        // By its version: kubectl would ask for the one that was the best when it last looked.
        let kind = kind(version);
        wait_for(&format!("{reason} as an Event"), || {
            let events = self.cluster.described(self.namespace.name(), &kind);
            events.get("shop")?.get(reason).map(|_| ())
        });
    }
}

/// Splits in a version, as kubectl calls them.
fn kind(version: &str) -> String {
    format!("trafficsplits.{version}.split.smi-spec.io")
}

#[test]
fn a_definition_may_come_late_and_go_and_come_back() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let fixture = Fixture::new(&cluster, "late");
    cluster.delete_definition();
    cluster.kubectl(&["-n", SYSTEM, "delete", "pods", "-l", AGENT_SELECTOR]);
    cluster.wait_for_agents();
    let agents = cluster.agent_lives();
    fixture.assert_unsplit();

    let load = fixture.load();
    for weights in [[3, 1], [1, 3]] {
        cluster.create_definition(&cluster.own_definition());
        fixture.split("v1alpha2", &weights.map(Value::from), weights);
        fixture.assert_counts(5 * weights[0], 5 * weights[1]);
        fixture.wait_for_event("v1alpha2", "Accepted");
        cluster.delete_definition();
        fixture.assert_unsplit();
    }
    load.assert_goes_on();
    assert_eq!(cluster.agent_lives(), agents, "no agent was started again");
}

#[test]
fn definitions_of_other_tools_are_worked_with_and_never_written_to() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let fixture = Fixture::new(&cluster, "others");
    let _changed = Changed(&cluster);
    let agents = cluster.agent_lives();
    let number = |name, is_served, is_stored| version(name, is_served, is_stored);
    for (tool, versions, written_as, weights) in [
        (
            "Open Service Mesh",
            vec![
                number("v1alpha4", false, false),
                number("v1alpha3", false, false),
                number("v1alpha2", true, true),
            ],
            "v1alpha2",
            [json!(25), json!(75)],
        ),
        (
            "osm-edge",
            vec![
                number("v1alpha4", true, true),
                number("v1alpha3", false, false),
                number("v1alpha2", true, false),
            ],
            "v1alpha2",
            [json!(25.0), json!(75)],
        ),
        (
            "the SMI SDK",
            vec![number("v1alpha4", true, true)],
            "v1alpha4",
            [json!(25), json!(75)],
        ),
        (
            "linkerd-smi",
            vec![quantities(true), number("v1alpha2", true, false)],
            "v1alpha1",
            [json!("250m"), json!("750m")],
        ),
    ] {
        println!("as {tool} defines it");
        cluster.delete_definition();
        cluster.create_definition(&definition(&versions));
        fixture.split(written_as, &weights, [25, 75]);
        fixture.assert_counts(10, 30);
        fixture.wait_for_event(written_as, "Accepted");
        assert_never_written(&cluster, written_as);
        // A number that no version of the specification allows, but these definitions do.
        let mut split = fixture.namespace.split_object("shop", &[]);
        split["apiVersion"] = json!(format!("split.smi-spec.io/{written_as}"));
        split["spec"]["backends"] = json!([
            {"service": "shop-v1", "weight": -25}, {"service": "shop-v2", "weight": 75},
        ]);
        cluster.apply(&split);
        fixture.wait_for_event(written_as, "InvalidWeight");
        // One agent has told of it.
        let name = fixture.namespace.name();
        cluster.wait_for_verdict(name, "shop", Verdict::PassThrough);
        fixture.assert_counts(0, 10);
        assert_never_written(&cluster, written_as);
    }
    assert_eq!(cluster.agent_lives(), agents, "no agent was started again");
}

/// Panics if anybody but its author has written to a split, or tried to.
fn assert_never_written(cluster: &TestCluster, version: &str) {
    let kind = kind(version);
    let splits = cluster.get(&["-n", "others", "get", &kind, "--show-managed-fields"]);
    for split in splits["items"].as_array().expect("splits") {
        let managers = split["metadata"]["managedFields"].as_array();
        let authors = managers.expect("managers").iter().map(|it| &it["manager"]);
        let authors: Vec<_> = authors.collect();
        assert!(
            authors.iter().all(|it| *it == "kubectl-client-side-apply"),
            "{split}"
        );
        assert!(split["status"].is_null(), "{split}");
    }
    for node in cluster.nodes() {
        let failed = cluster.metrics(node).sum("statuses_failed_total", &[]);
        assert_eq!(failed.unwrap_or(0), 0, "on {}", node.name());
    }
}

#[test]
fn served_versions_may_change_without_a_failed_connection() {
    let Some(cluster) = TestCluster::enter_local() else {
        return;
    };
    let fixture = Fixture::new(&cluster, "versions");
    let _changed = Changed(&cluster);
    let agents = cluster.agent_lives();
    let own = cluster.own_definition();
    fixture.split("v1alpha2", &[json!(1), json!(3)], [1, 3]);
    let load = fixture.load();
    let mut weights = [1, 3];
    for served in [
        &["v1alpha4"][..],
        &["v1alpha2"],
        &["v1alpha1"],
        &["v1alpha1", "v1alpha3"],
        // None that can be read: what is known stays in effect.
        &[],
        &["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"],
    ] {
        cluster.replace_definition(&serving(&own, served));
        wait_until_in_use(&cluster, served);
        fixture.assert_counts(3 * weights[0], 3 * weights[1]);
        // A change arrives by the version that is left.
        if let Some(version) = served.first() {
            weights = [weights[0] + 1, 3];
            fixture.split(version, &weights.map(Value::from), weights);
            fixture.assert_counts(3 * weights[0], 3 * weights[1]);
        }
        load.assert_goes_on();
    }
    assert_eq!(cluster.agent_lives(), agents, "no agent was started again");
}

/// The definition with only these versions, and one that nobody can read, served.
fn serving(own: &Value, served: &[&str]) -> Value {
    let mut definition = own.clone();
    let versions = definition["spec"]["versions"].as_array_mut();
    let versions = versions.expect("versions");
    for version in versions.iter_mut() {
        let name = version["name"].as_str().expect("a name");
        version["served"] = json!(served.contains(&name));
    }
    versions.push(version("v1", true, false));
    definition
}

/// Waits until the API server serves nothing else.
fn wait_until_in_use(cluster: &TestCluster, served: &[&str]) {
    cluster.wait_for_definition();
    for version in ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"] {
        wait_for(&format!("{version} as the definition has it"), || {
            let url = format!("/apis/split.smi-spec.io/{version}/trafficsplits");
            let list = cluster.try_kubectl(&["get", "--raw", &url], None);
            (list.status.success() == served.contains(&version)).then_some(())
        });
    }
    let definition = cluster.get(&["get", "crd", CRD]);
    assert!(definition["metadata"]["deletionTimestamp"].is_null());
}
