//! The definition of TrafficSplits: late, gone, back, another tool's, or with other versions.

use serde_json::{Value, json};

use crate::counts::Counts;
use crate::definition::{Changed, DEFINITION, definition, quantities, version};
use crate::namespace::Namespace;
use crate::site::{SYSTEM, Site, wait_for};
use crate::traffic::{self, Traffic};

/// A shop, beside it a root `busy` for clients that ask all the time, and splits of both. Where
/// they are not split, both lead to `v2` alone.
struct Scene<'a> {
    site: &'a Site,
    namespace: Namespace<'a>,
}

impl<'a> Scene<'a> {
    fn new(site: &'a Site, name: &str) -> Self {
        let namespace = site.namespace(name);
        namespace.shop(1);
        for root in ["shop", traffic::ROOT] {
            namespace.service(root, 80, &json!({"app": "shop", "version": "v2"}));
        }
        Self { site, namespace }
    }

    fn traffic(&self) -> Traffic<'a> {
        Traffic::start(self.site, &self.namespace)
    }

    /// Writes both splits in a version, and waits until every node has them.
    fn split(&self, version: &str, weights: &[Value; 2], expected: [u64; 2]) {
        for root in ["shop", traffic::ROOT] {
            let mut split = self.namespace.split_object(root, &[]);
            split["apiVersion"] = json!(format!("split.smi-spec.io/{version}"));
            split["spec"] = json!({"service": root, "backends": [
                {"service": "shop-v1", "weight": weights[0]},
                {"service": "shop-v2", "weight": weights[1]},
            ]});
            self.site.apply(&split);
        }
        for root in ["shop", traffic::ROOT] {
            let name = self.namespace.name();
            self.site.wait_for_weights(name, root, &expected);
        }
    }

    /// Asks from every node, and panics if others answer than should.
    fn assert_counts(&self, v1: u64, v2: u64) {
        for node in self.site.nodes() {
            let counts = self.site.ask_from(node, &self.namespace.url(), v1 + v2);
            let expected = Counts::of([("v1", v1), ("v2", v2)]);
            assert_eq!(counts, expected, "on {}", node.name());
        }
    }

    /// Waits until no node splits anything here, and panics unless connections go where they did
    /// before.
    fn assert_unsplit(&self) {
        for root in ["shop", traffic::ROOT] {
            let name = self.namespace.name();
            let site = self.site;
            site.wait_for_split("no split", name, root, |split| split.is_none());
        }
        self.assert_counts(0, 10);
    }

    /// Waits for an Event on the split of the shop.
    fn wait_for_event(&self, version: &str, reason: &str) {
        // By its version: kubectl would ask for the one that was the best when it last looked.
        let kind = kind(version);
        wait_for(&format!("{reason} as an Event"), || {
            let events = self.site.described(self.namespace.name(), &kind);
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
    let site = Site::enter();
    let scene = Scene::new(&site, "late");
    site.delete_definition();
    let selector = "app.kubernetes.io/name=splitter-agent";
    site.kubectl(&["-n", SYSTEM, "delete", "pods", "-l", selector]);
    site.wait_for_agents();
    let agents = site.agent_lives();
    scene.assert_unsplit();

    let traffic = scene.traffic();
    for weights in [[3, 1], [1, 3]] {
        site.create_definition(&site.own_definition());
        scene.split("v1alpha2", &weights.map(Value::from), weights);
        scene.assert_counts(5 * weights[0], 5 * weights[1]);
        scene.wait_for_event("v1alpha2", "Accepted");
        site.delete_definition();
        scene.assert_unsplit();
    }
    traffic.goes_on();
    assert_eq!(site.agent_lives(), agents, "no agent was started again");
}

#[test]
fn definitions_of_other_tools_are_worked_with_and_never_written_to() {
    let site = Site::enter();
    let scene = Scene::new(&site, "others");
    let _changed = Changed(&site);
    let agents = site.agent_lives();
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
        site.delete_definition();
        site.create_definition(&definition(&versions));
        scene.split(written_as, &weights, [25, 75]);
        scene.assert_counts(10, 30);
        scene.wait_for_event(written_as, "Accepted");
        assert_never_written(&site, written_as);
        // A number that no version of the specification allows, but these definitions do.
        let mut split = scene.namespace.split_object("shop", &[]);
        split["apiVersion"] = json!(format!("split.smi-spec.io/{written_as}"));
        split["spec"]["backends"] = json!([
            {"service": "shop-v1", "weight": -25}, {"service": "shop-v2", "weight": 75},
        ]);
        site.apply(&split);
        scene.wait_for_event(written_as, "InvalidWeight");
        scene.assert_counts(0, 10);
        assert_never_written(&site, written_as);
    }
    assert_eq!(site.agent_lives(), agents, "no agent was started again");
}

/// Panics if anybody but its author has written to a split, or tried to.
fn assert_never_written(site: &Site, version: &str) {
    let kind = kind(version);
    let splits = site.get(&["-n", "others", "get", &kind, "--show-managed-fields"]);
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
    for node in site.nodes() {
        let failed = site.metrics(node).sum("statuses_failed_total", &[]);
        assert_eq!(failed.unwrap_or(0), 0, "on {}", node.name());
    }
}

#[test]
fn served_versions_may_change_without_a_failed_connection() {
    let site = Site::enter();
    let scene = Scene::new(&site, "versions");
    let _changed = Changed(&site);
    let agents = site.agent_lives();
    let own = site.own_definition();
    scene.split("v1alpha2", &[json!(1), json!(3)], [1, 3]);
    let traffic = scene.traffic();
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
        site.replace_definition(&serving(&own, served));
        wait_until_in_use(&site, served);
        scene.assert_counts(3 * weights[0], 3 * weights[1]);
        // A change arrives by the version that is left.
        if let Some(version) = served.first() {
            weights = [weights[0] + 1, 3];
            scene.split(version, &weights.map(Value::from), weights);
            scene.assert_counts(3 * weights[0], 3 * weights[1]);
        }
        traffic.goes_on();
    }
    assert_eq!(site.agent_lives(), agents, "no agent was started again");
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
fn wait_until_in_use(site: &Site, served: &[&str]) {
    site.wait_for_definition();
    for version in ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"] {
        wait_for(&format!("{version} as the definition has it"), || {
            let url = format!("/apis/split.smi-spec.io/{version}/trafficsplits");
            let list = site.try_kubectl(&["get", "--raw", &url], None);
            (list.status.success() == served.contains(&version)).then_some(())
        });
    }
    let definition = site.get(&["get", "crd", DEFINITION]);
    assert!(definition["metadata"]["deletionTimestamp"].is_null());
}
