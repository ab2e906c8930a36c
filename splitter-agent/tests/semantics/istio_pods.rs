//! The pods behind subsets: labels that change, and what is not known of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use splitter_agent::compile::{Compiler, Knowledge, PodNews, Settings};
use splitter_agent::objects::{Kind, ObjectName, ObjectReference, decode};
use splitter_agent::plan::{Decision, Frontend};
use splitter_common::layout::{ClientScope, Protocol, Reason};

use crate::fixtures::{NAMESPACE, service_of, slice_of};
use crate::istio::{REVIEWS, endpoint, pod, reviews, reviews_rule, to, versions, virtual_service};
use crate::knowledge::Agent;

fn frontend() -> Frontend {
    Frontend {
        address: REVIEWS.parse().unwrap(),
        protocol: Protocol::Tcp,
        clients: ClientScope::EVERYONE,
    }
}

fn half() -> Value {
    reviews(&json!({"route": [to("reviews", "v1", 50), to("reviews", "v3", 50)]}))
}

fn world() -> Vec<Value> {
    versions()
        .into_iter()
        .chain([reviews_rule(), half()])
        .collect()
}

fn apply(compiler: &mut Compiler, value: Value) {
    compiler.apply(decode(value).unwrap().unwrap());
}

fn endpoints(compiler: &Compiler, leaf: usize) -> Vec<String> {
    let split = &compiler.plan().frontends[&frontend()];
    let endpoints = split.leaves[leaf].endpoints.iter();
    endpoints.map(ToString::to_string).collect()
}

/// Case: ISTIO-SUBSET
#[test]
fn labels_that_change_move_pods_between_subsets() {
    let mut compiler = Compiler::new(Settings::default());
    for value in world() {
        apply(&mut compiler, value);
    }
    // Another Service of the namespace, which has nothing to do with it.
    let ports = json!([{"name": "http", "port": 9080}]);
    apply(
        &mut compiler,
        service_of(
            "ratings",
            &json!({"clusterIP": "10.96.1.2", "ports": ports}),
        ),
    );
    let content = json!({"ports": ports, "endpoints": [endpoint("ratings-v1", "10.0.2.1")]});
    apply(&mut compiler, slice_of("ratings-0", "ratings", &content));
    let spec = json!({"hosts": ["ratings"], "http": [{"route": [to("ratings", "v1", 1)]}]});
    apply(&mut compiler, virtual_service("ratings", &spec));
    compiler.compile();
    assert_eq!(endpoints(&compiler, 1), ["10.0.1.3:9080"]);

    apply(&mut compiler, pod("reviews-v2", &json!({"version": "v3"})));
    let delta = compiler.compile();
    assert_eq!(delta.frontends, BTreeSet::from([frontend()]));
    assert_eq!(endpoints(&compiler, 1), ["10.0.1.2:9080", "10.0.1.3:9080"]);

    let gone = ObjectReference::new(Kind::POD, ObjectName::new(NAMESPACE, "reviews-v3"));
    compiler.delete(&gone);
    compiler.compile();
    assert_eq!(endpoints(&compiler, 1), ["10.0.1.2:9080"]);

    // A pod that is no endpoint of theirs touches nothing.
    apply(&mut compiler, pod("other", &json!({"version": "v3"})));
    assert!(compiler.compile().frontends.is_empty());
}

/// Case: ISTIO-SUBSET
#[test]
fn a_rule_that_changes_its_labels_moves_pods_between_subsets() {
    let mut compiler = Compiler::new(Settings::default());
    for value in world() {
        apply(&mut compiler, value);
    }
    compiler.compile();
    let mut rule = reviews_rule();
    rule["spec"]["subsets"][2]["labels"] = json!({"app": "reviews", "version": "v2"});
    apply(&mut compiler, rule);
    compiler.compile();
    assert_eq!(endpoints(&compiler, 1), ["10.0.1.2:9080"]);
}

/// Case: ISTIO-PODS-UNKNOWN
#[test]
fn nothing_is_refused_while_pods_or_rules_have_not_been_told_of() {
    for missing in [Kind::POD, Kind::DESTINATION_RULE] {
        let before = Agent::following(world());
        let programmed = before.programmed.clone();
        assert_eq!(programmed[&frontend()].decision, Decision::Split);
        let mut agent = before.successor();
        let told = world()
            .into_iter()
            .filter(|value| value["kind"] != missing.name());
        agent.put(told);
        for kind in Kind::known().filter(|kind| *kind != missing) {
            agent.know(kind, Knowledge::Followed);
        }
        assert_eq!(agent.programmed, programmed, "{missing}");
        assert_eq!(agent.waits_for_at(REVIEWS), [missing]);
        let rest = world()
            .into_iter()
            .filter(|value| value["kind"] == missing.name());
        agent.put(rest);
        agent.know(missing, Knowledge::Followed);
        assert_eq!(agent.programmed, programmed, "{missing}");
        assert!(agent.held.is_empty());
    }
}

/// Case: ISTIO-PODS-UNKNOWN
#[test]
fn what_is_not_split_yet_passes_through_until_pods_were_told_of() {
    let mut agent = Agent::new();
    agent.put(world().into_iter().filter(|value| value["kind"] != "Pod"));
    for kind in Kind::known().filter(|kind| *kind != Kind::POD) {
        agent.know(kind, Knowledge::Followed);
    }
    let decision = agent.programmed[&frontend()].decision;
    assert_eq!(decision, Decision::PassThrough(Reason::NotKnownYet));
    let namespaces: Vec<&str> = agent.compiler.pod_namespaces().collect();
    assert_eq!(namespaces, [NAMESPACE]);

    agent.compiler.follow_pods(NAMESPACE, PodNews::ListBegins);
    agent.put(
        versions()
            .into_iter()
            .filter(|value| value["kind"] == "Pod"),
    );
    agent.publish();
    let decision = agent.programmed[&frontend()].decision;
    assert_eq!(decision, Decision::PassThrough(Reason::NotKnownYet));
    agent.compiler.follow_pods(NAMESPACE, PodNews::Listed);
    agent.publish();
    assert_eq!(agent.programmed[&frontend()].decision, Decision::Split);
}

/// Case: ISTIO-PODS-UNKNOWN
#[test]
fn a_subset_keeps_its_pods_while_they_are_not_followed() {
    let mut agent = Agent::following(world().into_iter().filter(|value| value["kind"] != "Pod"));
    agent.know(Kind::POD, Knowledge::Incomplete);
    let pods = || {
        versions()
            .into_iter()
            .filter(|value| value["kind"] == "Pod")
    };
    agent.compiler.follow_pods(NAMESPACE, PodNews::ListBegins);
    agent.put(pods());
    agent.compiler.follow_pods(NAMESPACE, PodNews::Listed);
    agent.publish();
    let programmed = agent.programmed.clone();
    assert_eq!(programmed[&frontend()].decision, Decision::Split);
    // Lost, and listed anew in part.
    agent.compiler.follow_pods(NAMESPACE, PodNews::Lost);
    agent.compiler.follow_pods(NAMESPACE, PodNews::ListBegins);
    agent.put(pods().take(1));
    agent.publish();
    assert_eq!(agent.programmed, programmed);
    // Of pods that are gone, a complete list tells.
    agent.compiler.follow_pods(NAMESPACE, PodNews::Listed);
    agent.publish();
    let split = &agent.programmed[&frontend()];
    assert_eq!(split.leaves[0].endpoints.len(), 1);
    assert_eq!(split.leaves[1].endpoints.len(), 0);
}

/// Case: ISTIO-PODS-UNKNOWN
#[test]
fn pods_are_asked_for_only_where_a_subset_is_named() {
    let mut compiler = Compiler::new(Settings::default());
    let asked = |compiler: &Compiler| -> Vec<String> {
        compiler.pod_namespaces().map(str::to_owned).collect()
    };
    let spec = |host: &str, subset: Value| json!({"hosts": ["reviews"], "http": [{"route": [to(host, subset, 1)]}]});
    apply(
        &mut compiler,
        virtual_service("a", &spec("reviews", Value::Null)),
    );
    assert_eq!(asked(&compiler), [""; 0]);
    let other = "reviews.prod.svc.cluster.local";
    apply(
        &mut compiler,
        virtual_service("a", &spec(other, json!("v1"))),
    );
    apply(
        &mut compiler,
        virtual_service("b", &spec(other, json!("v2"))),
    );
    assert_eq!(asked(&compiler), ["prod"]);
    // Of one that is refused nothing is needed.
    let mut refused = spec("reviews", json!("v1"));
    refused["http"][0]["timeout"] = json!("1s");
    apply(&mut compiler, virtual_service("c", &refused));
    assert_eq!(asked(&compiler), ["prod"]);
    apply(
        &mut compiler,
        virtual_service("a", &spec("reviews", Value::Null)),
    );
    assert_eq!(asked(&compiler), ["prod"]);
    let gone = ObjectReference::new(Kind::VIRTUAL_SERVICE, ObjectName::new(NAMESPACE, "b"));
    compiler.delete(&gone);
    assert_eq!(asked(&compiler), [""; 0]);
}

/// Case: ISTIO-PODS-UNKNOWN
#[test]
fn pods_compile_nothing_before_all_of_their_namespace_were_told_of() {
    let mut agent = Agent::new();
    agent.put(world().into_iter().filter(|value| value["kind"] != "Pod"));
    for kind in Kind::known().filter(|kind| *kind != Kind::POD) {
        agent.compiler.know(kind, Knowledge::Followed);
    }
    agent.publish();
    let before = agent.compiler.compilations();
    agent.compiler.follow_pods(NAMESPACE, PodNews::ListBegins);
    let mut pods = versions();
    pods.retain(|value| value["kind"] == "Pod");
    for pod in pods {
        agent.tell(pod);
    }
    assert_eq!(agent.compiler.compilations(), before);
    agent.compiler.follow_pods(NAMESPACE, PodNews::Listed);
    agent.publish();
    assert_eq!(agent.compiler.compilations(), before + 1);
    assert_eq!(endpoints(&agent.compiler, 1), ["10.0.1.3:9080"]);

    // From then on each counts.
    agent.tell(pod("reviews-v2", &json!({"version": "v3"})));
    assert_eq!(agent.compiler.compilations(), before + 2);
}

/// Case: ISTIO-PODS-UNKNOWN
#[test]
fn namespaces_of_pods_are_told_when_they_are_others_than_before() {
    let mut compiler = Compiler::new(Settings::default());
    let spec = |subset: Value| {
        let host = "reviews.prod.svc.cluster.local";
        json!({"hosts": ["reviews"], "http": [{"route": [to(host, subset, 1)]}]})
    };
    let gone =
        |name: &str| ObjectReference::new(Kind::VIRTUAL_SERVICE, ObjectName::new(NAMESPACE, name));
    let prod = || Some(BTreeSet::from(["prod".to_owned()]));
    apply(&mut compiler, virtual_service("a", &spec(Value::Null)));
    assert_eq!(compiler.take_pod_namespaces(), None);
    apply(&mut compiler, virtual_service("a", &spec(json!("v1"))));
    assert_eq!(compiler.take_pod_namespaces(), prod());
    apply(&mut compiler, virtual_service("b", &spec(json!("v2"))));
    apply(&mut compiler, virtual_service("a", &spec(json!("v3"))));
    compiler.delete(&gone("a"));
    assert_eq!(compiler.take_pod_namespaces(), None);
    compiler.delete(&gone("b"));
    assert_eq!(compiler.take_pod_namespaces(), Some(BTreeSet::new()));
    assert_eq!(compiler.take_pod_namespaces(), None);
}
