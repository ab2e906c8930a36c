//! What the account of the source may do: taken away, given back, or not all of it.

use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use splitter_agent::objects::{Availability, Kind};
use testbed::fixtures::CuttableProxy;
use testbed::fixtures::definitions::ISTIO_KINDS;
use tokio::time::sleep;

use super::definition::{definition, split};
use super::listing::service;
use super::observer::Observer;
use super::server::{AGENT, Server};

pub(crate) fn objects_rule() -> Value {
    let verbs = json!(["list", "watch"]);
    json!([
        {"apiGroups": [""], "resources": ["services"], "verbs": verbs},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs},
        {"apiGroups": ["split.smi-spec.io"], "resources": ["trafficsplits"], "verbs": verbs},
    ])
}

pub(crate) fn definition_rule() -> Value {
    let optional = Kind::all().filter(|kind| kind.availability == Availability::Optional);
    let names: Vec<String> = optional.map(Kind::definition_name).collect();
    json!({
        "apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"],
        "resourceNames": names, "verbs": ["list", "watch"],
    })
}

/// The zone of the agent's node.
pub(crate) fn node_rule() -> Value {
    json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]})
}

/// Lets the agent do what the rules say, and nothing else, from when this returns.
pub(crate) async fn allow(server: &Server, rules: &Value) {
    server
        .apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": AGENT}, "rules": rules,
        }))
        .await;
    server
        .apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": AGENT},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": AGENT},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": AGENT}],
        }))
        .await;
    // They are stored, but the API server goes by them only when its own watch has told it.
    let mut asked = objects_rule();
    let asked = asked.as_array_mut().expect("rules");
    asked.extend([definition_rule(), node_rule()]);
    asked.extend(rules.as_array().expect("rules").clone());
    let deadline = Instant::now() + Duration::from_secs(60);
    for rule in asked {
        let is_allowed = rules.as_array().expect("rules").contains(rule);
        while is_agent_allowed(server, rule).await != is_allowed {
            assert!(Instant::now() < deadline, "not in effect: {rules}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Whether the API server would let the agent do what a rule says.
async fn is_agent_allowed(server: &Server, rule: &Value) -> bool {
    let review = json!({
        "metadata": {},
        "spec": {"user": AGENT, "resourceAttributes": {
            "group": rule["apiGroups"][0], "resource": rule["resources"][0],
            "name": rule["resourceNames"][0], "verb": rule["verbs"][0],
        }},
    });
    let review: SubjectAccessReview = serde_json::from_value(review).expect("a review");
    let reviews: Api<SubjectAccessReview> = Api::all(server.client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await;
    let status = answer.expect("an answer").status;
    status.expect("a verdict").allowed
}

#[tokio::test]
async fn rights_that_are_taken_away_take_nothing_away() {
    let server = Server::start().await;
    server.apply(&definition(&["v1alpha4"])).await;
    server.apply(&split("v1alpha4", "web")).await;
    server.apply(&service("web")).await;
    let mut rules = objects_rule();
    rules.as_array_mut().expect("rules").push(definition_rule());

    let mut proxy = CuttableProxy::to(server.address());
    let client = server.client_at(Some(AGENT), proxy.address()).await;
    let mut observer = Observer::of(client);
    // At first it may do nothing.
    observer
        .until_metric("splitter_watch_errors_total{kind=\"Service\",code=\"403\"} 2")
        .await;
    assert_eq!(observer.completes, 0);
    allow(&server, &rules).await;
    observer.until_complete().await;
    assert_eq!(observer.names("TrafficSplit"), ["web"]);

    allow(&server, &json!([])).await;
    // A watch that has begun is not asked again for its rights.
    proxy.cut();
    for kind in ["Service", "EndpointSlice", "TrafficSplit"] {
        observer
            .until_metric(&format!("splitter_source_synced{{kind=\"{kind}\"}} 0"))
            .await;
    }
    server.delete(&service("web")).await;
    server.apply(&service("new")).await;
    observer.wait(Duration::from_secs(3)).await;
    assert_eq!(observer.deleted, [""; 0]);

    allow(&server, &rules).await;
    observer
        .until("told what happened", |it| {
            it.names("Service") == ["kubernetes", "new"] && !it.deleted.is_empty()
        })
        .await;
    assert_eq!(observer.deleted, ["Service default/web"]);
    assert_eq!(observer.completes, 1);
}

#[tokio::test]
async fn the_rule_for_the_definition_is_enough_to_watch_it() {
    let server = Server::start().await;
    let mut rules = objects_rule();
    rules.as_array_mut().expect("rules").push(definition_rule());
    allow(&server, &rules).await;
    let client = server.client_at(Some(AGENT), server.address()).await;
    let mut observer = Observer::of(client);
    observer.until_complete().await;
    server.apply(&definition(&["v1alpha3"])).await;
    server.apply(&split("v1alpha3", "web")).await;
    observer
        .until("told of the split", |it| {
            it.names("TrafficSplit") == ["web"]
        })
        .await;
    // Nothing was refused. That a server is busy while it takes a definition in is normal.
    assert!(
        !observer.metrics().contains("code=\"403\""),
        "{}",
        observer.metrics()
    );
}

#[tokio::test]
async fn without_the_definition_the_server_is_asked_what_it_serves() {
    let server = Server::start().await;
    allow(&server, &objects_rule()).await;
    let client = server.client_at(Some(AGENT), server.address()).await;
    let mut observer = Observer::of(client);
    // It is absent, and that is enough to be complete.
    observer.until_complete().await;
    assert_eq!(observer.version(), None);
    // Nothing is wrong that anybody should be called for.
    observer
        .until_metric("splitter_source_synced{kind=\"CustomResourceDefinition\"} 1")
        .await;
    assert!(
        !observer
            .metrics()
            .contains("splitter_source_synced{kind=\"CustomResourceDefinition\"} 0"),
        "{}",
        observer.metrics()
    );

    server.apply(&definition(&["v1alpha2", "v1alpha4"])).await;
    server.apply(&split("v1alpha2", "web")).await;
    observer
        .until("told of the split", |it| {
            it.names("TrafficSplit") == ["web"]
        })
        .await;
    let versions = observer.watch.served_versions().borrow().clone();
    let version = &versions[&Kind::TRAFFIC_SPLIT];
    assert_eq!(
        (version.version.as_str(), version.has_status),
        ("v1alpha4", true)
    );
}

#[tokio::test]
async fn kinds_that_are_defined_together_are_asked_for_together() {
    istio_comes_late(None).await;
}

#[tokio::test]
async fn a_kind_is_asked_for_when_another_that_is_watched_is_defined() {
    istio_comes_late(Some("virtualservices.networking.istio.io")).await;
}

/// Istio is installed on a cluster where at most one of its definitions may be watched: nothing is
/// refused for not knowing the rest in time.
async fn istio_comes_late(watched: Option<&str>) {
    let server = Server::start().await;
    let mut rules = objects_rule();
    let more = rules.as_array_mut().expect("rules");
    more.push(json!({
        "apiGroups": ["networking.istio.io"],
        "resources": ["virtualservices", "destinationrules"],
        "verbs": ["list", "watch"],
    }));
    if let Some(name) = watched {
        let mut rule = definition_rule();
        rule["resourceNames"] = json!([name]);
        more.push(rule);
    }
    allow(&server, &rules).await;
    let client = server.client_at(Some(AGENT), server.address()).await;
    let mut observer = Observer::of(client);
    observer.until_complete().await;

    for kind in ISTIO_KINDS {
        server.apply(&kind.definition()).await;
    }
    let istio = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": kind,
            "metadata": {"name": "web", "namespace": "default"}, "spec": spec,
        })
    };
    server.apply(&service("web")).await;
    let subset = json!({"name": "v1", "labels": {"version": "v1"}});
    let rule = istio(
        "DestinationRule",
        json!({"host": "web", "subsets": [subset]}),
    );
    server.apply(&rule).await;
    let route = json!({"route": [{"destination": {"host": "web", "subset": "v1"}}]});
    let split = istio("VirtualService", json!({"hosts": ["web"], "http": [route]}));
    server.apply(&split).await;
    observer
        .until("told of both", |it| {
            let is_known = |kind| it.names(kind) == ["web"];
            is_known("VirtualService") && is_known("DestinationRule")
        })
        .await;
    // Whichever was told of first.
    assert!(observer.decision("web").is_some());
    assert!(!observer.has_refused);
}
