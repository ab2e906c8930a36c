//! Which node's connections go to which endpoints: traffic policy and hints, as kube-proxy
//! follows them.

use serde_json::{Value, json};
use splitter_agent::compile::Severity::{Accepted, Note, Warning};
use splitter_agent::compile::{Compiler, Settings, compile};
use splitter_agent::objects::{ObjectName, ObjectReference, decode};
use splitter_agent::plan::Decision;
use splitter_common::layout::{LeafState, Reason};

use crate::fixtures::{
    Outcome, VIP, canary, compiled, compiled_on, read, root, service, slice_of, with, world_with,
};

const LOCAL: &str = r#"{"spec": {"internalTrafficPolicy": "Local"}}"#;

fn local(service: Value) -> Value {
    with(service, &serde_json::from_str(LOCAL).unwrap())
}

/// `web-1` on two nodes, `web-2` on the second one.
fn on_two_nodes() -> Vec<Value> {
    let endpoints = |name: &str, endpoints: Value| {
        let content = json!({"ports": [{"port": 8080}], "endpoints": endpoints});
        slice_of(&format!("{name}-0"), name, &content)
    };
    vec![
        service("web-1", "10.96.0.11"),
        service("web-2", "10.96.0.12"),
        endpoints(
            "web-1",
            json!([
                {"addresses": ["10.0.1.1"], "nodeName": "n1"},
                {"addresses": ["10.0.2.1"], "nodeName": "n2"},
                {"addresses": ["10.0.9.1"]},
            ]),
        ),
        endpoints(
            "web-2",
            json!([{"addresses": ["10.0.2.2"], "nodeName": "n2"}]),
        ),
        canary(9, 1),
    ]
}

fn with_root(root: Value) -> impl Iterator<Item = Value> {
    on_two_nodes().into_iter().chain([root])
}

/// With the policy at the root only endpoints of the node are used.
///
/// Case: NODE-LOCAL-ROOT
#[test]
fn a_node_local_root_uses_the_endpoints_of_the_node() {
    let here = compiled_on("n2", None, with_root(local(root())));
    assert_eq!(here.shares(VIP), [("web-1", 9), ("web-2", 1)]);
    assert_eq!(here.endpoints(VIP, 0), ["10.0.2.1:8080"]);
    assert_eq!(here.endpoints(VIP, 1), ["10.0.2.2:8080"]);

    // A leaf without one here has no ready endpoint here.
    let there = compiled_on("n1", None, with_root(local(root())));
    assert_eq!(there.shares(VIP), [("web-1", 1), ("web-2", 0)]);
    assert_eq!(
        there.states(VIP),
        [LeafState::Ready, LeafState::NoReadyEndpoints]
    );
    assert_eq!(there.endpoints(VIP, 0), ["10.0.1.1:8080"]);

    let nowhere = compiled_on("n3", None, with_root(local(root())));
    let refused = Decision::Refuse(Reason::NoReadyEndpoints);
    assert_eq!(nowhere.decision(VIP), Some(refused));

    let any = compiled_on("n1", None, with_root(root()));
    assert_eq!(any.endpoints(VIP, 0).len(), 3, "without the policy");
}

/// What is said is the same everywhere: people ask one agent for all.
///
/// Case: REPORT-SAME, NODE-UNKNOWN
#[test]
fn what_is_said_of_a_node_local_split_does_not_depend_on_the_node() {
    for node in ["n1", "n2", "n3"] {
        let outcome = compiled_on(node, None, with_root(local(root())));
        assert_eq!(
            outcome.said(),
            [
                (Accepted, "Accepted", ""),
                (Note, "NodeLocal", "spec.service")
            ]
        );
    }
    let outcome = compiled(with_root(local(root())));
    assert_eq!(outcome.said().len(), 2);
    assert_eq!(
        outcome.endpoints(VIP, 0).len(),
        3,
        "for no node in particular"
    );
}

/// With the policy at a leaf, that leaf alone.
///
/// Case: NODE-LOCAL-LEAF
#[test]
fn a_node_local_leaf_uses_the_endpoints_of_the_node() {
    let mut objects: Vec<Value> = with_root(root()).collect();
    objects[1] = local(objects[1].clone());
    let outcome = compiled_on("n1", None, objects.clone());
    assert_eq!(outcome.shares(VIP), [("web-1", 1), ("web-2", 0)]);
    assert_eq!(outcome.endpoints(VIP, 0).len(), 3);
    assert_eq!(
        outcome.said(),
        [
            (Accepted, "Accepted", ""),
            (Note, "NodeLocal", "spec.backends[1]")
        ]
    );
    let outcome = compiled_on("n2", None, objects);
    assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)]);
}

/// A leaf that is nowhere ready is warned of, as ever.
///
/// Case: LEAF-NOT-READY
#[test]
fn a_node_local_leaf_that_is_ready_nowhere_is_warned_of() {
    let mut objects: Vec<Value> = with_root(local(root())).collect();
    objects.retain(|object| object["metadata"]["name"] != "web-2-0");
    for node in ["n1", "n2"] {
        let outcome = compiled_on(node, None, objects.clone());
        let said = outcome.said();
        assert!(said.contains(&(Warning, "LeafNotReady", "spec.backends[1]")));
        assert!(!said.contains(&(Accepted, "Accepted", "")));
    }
}

/// Those that terminate but serve stand in, node by node.
///
/// Case: NODE-LOCAL-LEAF
#[test]
fn a_node_local_leaf_falls_back_to_what_terminates_on_the_node() {
    let endpoints = json!([
        {"addresses": ["10.0.1.1"], "nodeName": "n1",
            "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["10.0.2.1"], "nodeName": "n2"},
    ]);
    let content = json!({"ports": [{"port": 8080}], "endpoints": endpoints});
    let objects = world_with(slice_of("web-1-0", "web-1", &content));
    let mut objects: Vec<Value> = objects.into_iter().chain([canary(1, 0)]).collect();
    objects[0] = local(objects[0].clone());
    assert_eq!(objects[0]["metadata"]["name"], "web");
    let outcome = compiled_on("n1", None, objects.clone());
    assert_eq!(outcome.endpoints(VIP, 0), ["10.0.1.1:8080"]);
    assert_eq!(outcome.states(VIP)[0], LeafState::Terminating);
    let outcome = compiled_on("n2", None, objects);
    assert_eq!(outcome.endpoints(VIP, 0), ["10.0.2.1:8080"]);
    assert_eq!(outcome.states(VIP)[0], LeafState::Ready);
}

fn hinted(address: &str, zones: &[&str], nodes: &[&str]) -> Value {
    let names = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| json!({ "name": name })).collect()
    };
    json!({"addresses": [address], "nodeName": "n9",
        "hints": {"forZones": names(zones), "forNodes": names(nodes)}})
}

/// The world in which these are the endpoints of `web-1`.
fn first_leaf(endpoints: &Value) -> Vec<Value> {
    let content = json!({"ports": [{"port": 8080}], "endpoints": endpoints});
    let objects = world_with(slice_of("web-1-0", "web-1", &content));
    objects.into_iter().chain([canary(9, 1)]).collect()
}

fn picked(node: &str, zone: Option<&str>, endpoints: &Value) -> Vec<String> {
    let outcome = compiled_on(node, zone, first_leaf(endpoints));
    assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)]);
    outcome.assert_accepted();
    let picked = outcome.endpoints(VIP, 0).into_iter();
    picked
        .map(|endpoint| endpoint.trim_end_matches(":8080").to_owned())
        .collect()
}

/// A leaf's endpoints are those hinted for the zone; shares stay as they are.
///
/// Case: HINTS-ZONE
#[test]
fn hints_for_zones_are_followed_inside_a_leaf() {
    let endpoints = json!([
        hinted("10.0.1.1", &["a"], &[]),
        hinted("10.0.1.2", &["b"], &[]),
        hinted("10.0.1.3", &["b", "a"], &[]),
    ]);
    assert_eq!(
        picked("n1", Some("a"), &endpoints),
        ["10.0.1.1", "10.0.1.3"]
    );
    assert_eq!(
        picked("n1", Some("b"), &endpoints),
        ["10.0.1.2", "10.0.1.3"]
    );
    // A zone that no hint names, and one that is not known.
    assert_eq!(picked("n1", Some("c"), &endpoints).len(), 3);
    assert_eq!(picked("n1", None, &endpoints).len(), 3);
}

/// Hints for nodes come first.
///
/// Case: HINTS-NODE
#[test]
fn hints_for_nodes_come_before_those_for_zones() {
    let endpoints = json!([
        hinted("10.0.1.1", &["a"], &["n1"]),
        hinted("10.0.1.2", &["a"], &["n2"]),
        hinted("10.0.1.3", &["b"], &["n3"]),
    ]);
    assert_eq!(picked("n1", Some("a"), &endpoints), ["10.0.1.1"]);
    assert_eq!(picked("n1", None, &endpoints), ["10.0.1.1"]);
    assert_eq!(
        picked("n4", Some("a"), &endpoints),
        ["10.0.1.1", "10.0.1.2"]
    );
    assert_eq!(picked("n4", Some("c"), &endpoints).len(), 3);
}

/// All ready endpoints have hints, or none counts.
///
/// Case: HINTS-INCOMPLETE
#[test]
fn one_ready_endpoint_without_hints_switches_all_of_them_off() {
    let endpoints = json!([
        hinted("10.0.1.1", &["a"], &["n1"]),
        {"addresses": ["10.0.1.2"]},
    ]);
    assert_eq!(picked("n1", Some("a"), &endpoints).len(), 2);
    // Each sort by itself.
    let endpoints = json!([
        hinted("10.0.1.1", &["a"], &["n1"]),
        hinted("10.0.1.2", &["b"], &[]),
    ]);
    assert_eq!(picked("n1", Some("b"), &endpoints), ["10.0.1.2"]);
    // One that is not ready does not count.
    let mut unready = json!([
        hinted("10.0.1.1", &["a"], &[]),
        hinted("10.0.1.2", &["b"], &[]),
        {"addresses": ["10.0.1.3"], "conditions": {"ready": false}},
    ]);
    assert_eq!(picked("n1", Some("a"), &unready), ["10.0.1.1"]);
    unready[0]["conditions"] = json!({"ready": false});
    assert_eq!(picked("n1", Some("a"), &unready), ["10.0.1.2"]);
}

/// Over all slices of the leaf that have the port, and each leaf by itself.
///
/// Case: HINTS-INCOMPLETE
#[test]
fn hints_are_judged_over_a_whole_leaf_and_for_each_leaf() {
    let mut objects = first_leaf(&json!([
        hinted("10.0.1.1", &["a"], &[]),
        hinted("10.0.1.3", &["b"], &[]),
    ]));
    let on = |zone, objects: &[Value]| compiled_on("n1", Some(zone), objects.to_vec());
    assert_eq!(on("a", &objects).endpoints(VIP, 0), ["10.0.1.1:8080"]);
    assert_eq!(
        on("a", &objects).endpoints(VIP, 1),
        ["10.0.0.2:8080"],
        "no hints"
    );
    let content = json!({"ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.0.1.5"]}]});
    objects.push(slice_of("web-1-1", "web-1", &content));
    assert_eq!(on("a", &objects).endpoints(VIP, 0).len(), 3);
}

/// The traffic policy comes before hints.
///
/// Case: NODE-LOCAL-HINTS
#[test]
fn with_a_local_policy_hints_do_not_matter() {
    let mut objects = first_leaf(&json!([
        {"addresses": ["10.0.1.1"], "nodeName": "n1", "hints": {"forZones": [{"name": "b"}]}},
        {"addresses": ["10.0.1.3"], "nodeName": "n2", "hints": {"forZones": [{"name": "a"}]}},
    ]));
    objects[0] = local(objects[0].clone());
    let outcome = compiled_on("n1", Some("a"), objects);
    assert_eq!(outcome.endpoints(VIP, 0), ["10.0.1.1:8080"]);
}

/// Where none is ready, those that terminate are used wherever they are.
///
/// Case: HINTS-TERMINATING
#[test]
fn hints_of_terminating_endpoints_do_not_matter() {
    let terminating = json!({"ready": false, "serving": true, "terminating": true});
    let outcome = compiled_on(
        "n1",
        Some("a"),
        first_leaf(&json!([
            with(
                hinted("10.0.1.1", &["a"], &[]),
                &json!({ "conditions": terminating })
            ),
            with(
                hinted("10.0.1.3", &["b"], &[]),
                &json!({ "conditions": terminating })
            ),
        ])),
    );
    assert_eq!(outcome.endpoints(VIP, 0).len(), 2);
    assert_eq!(outcome.states(VIP)[0], LeafState::Terminating);
}

/// The zone is that of the node's own Node, unless the administrator says otherwise.
///
/// Case: ZONE-SOURCE
#[test]
fn the_zone_is_learnt_from_the_own_node_and_followed() {
    let node = |name: &str, zone: Value| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name,
            "labels": {"topology.kubernetes.io/zone": zone}}})
    };
    let endpoints = json!([
        hinted("10.0.1.1", &["a"], &[]),
        hinted("10.0.1.3", &["b"], &[])
    ]);
    let objects = || first_leaf(&endpoints).into_iter();
    let settings = Settings {
        node_name: Some("n1".to_owned()),
        ..Settings::default()
    };
    let mut compiler = Compiler::new(settings.clone());
    for object in read(objects()).iter() {
        compiler.apply(object);
    }
    let endpoints = |compiler: &mut Compiler| {
        compiler.compile();
        let plan = compiler.plan().clone();
        let compiled = splitter_agent::compile::Compiled {
            plan,
            diagnostics: Vec::new(),
        };
        Outcome(compiled).endpoints(VIP, 0)
    };
    let put = |compiler: &mut Compiler, node: Value| {
        compiler.apply(decode(node).unwrap().unwrap());
    };
    assert_eq!(endpoints(&mut compiler).len(), 2);
    put(&mut compiler, node("n2", json!("b")));
    assert_eq!(endpoints(&mut compiler).len(), 2, "not this node");
    put(&mut compiler, node("n1", json!("a")));
    assert_eq!(endpoints(&mut compiler), ["10.0.1.1:8080"]);
    put(&mut compiler, node("n1", json!("b")));
    assert_eq!(endpoints(&mut compiler), ["10.0.1.3:8080"]);
    compiler.delete(&ObjectReference {
        kind: "Node".to_owned(),
        name: ObjectName::new("", "n1"),
    });
    assert_eq!(endpoints(&mut compiler).len(), 2, "not known any more");

    let told = [node("n1", json!("a"))];
    let outcome = compiled_on("n1", Some("b"), objects().chain(told));
    assert_eq!(
        outcome.endpoints(VIP, 0),
        ["10.0.1.3:8080"],
        "the administrator"
    );
}

/// A plan without a node is for all nodes, or for those of a zone.
///
/// Case: NODE-UNKNOWN
#[test]
fn without_a_node_name_only_hints_for_a_given_zone_matter() {
    let endpoints = json!([
        hinted("10.0.1.1", &["a"], &["n1"]),
        hinted("10.0.1.3", &["b"], &["n2"])
    ]);
    for (zone, picked) in [(None, 2), (Some("a"), 1)] {
        let settings = Settings {
            zone: zone.map(str::to_owned),
            ..Settings::default()
        };
        let outcome = Outcome(compile(&read(first_leaf(&endpoints)), &settings));
        assert_eq!(outcome.endpoints(VIP, 0).len(), picked, "{zone:?}");
        outcome.assert_accepted();
    }
}
