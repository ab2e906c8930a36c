//! What is not known is not absent: splits that are made while EndpointSlices cannot be followed.

use std::time::Duration;

use serde_json::{Value, json};
use splitter_agent::compile::Knowledge::{Followed, Stale};
use splitter_agent::objects::Kind;
use splitter_agent::plan::Decision;
use splitter_common::layout::Reason;
use testbed::fixtures::CuttableProxy;
use tokio::time::Instant;

use super::access::{allow, definition_rule, objects_rule};
use super::definition::definition;
use super::listing::service;
use super::observer::Observer;
use super::server::{AGENT, Server};

/// Everything that the agent needs.
fn all_rights() -> Value {
    let mut rules = objects_rule();
    rules.as_array_mut().expect("rules").push(definition_rule());
    rules
}

/// The same without EndpointSlices.
fn without_slices() -> Value {
    let mut rules = all_rights();
    rules
        .as_array_mut()
        .expect("rules")
        .retain(|rule| rule["resources"][0] != "endpointslices");
    rules
}

/// A server on which the agent has rights, and a proxy before it.
async fn server(rights: &Value) -> (Server, CuttableProxy) {
    let server = Server::start().await;
    server.apply(&definition(&["v1alpha4"])).await;
    allow(&server, rights).await;
    let proxy = CuttableProxy::to(server.address());
    (server, proxy)
}

async fn observer(server: &Server, proxy: &CuttableProxy) -> Observer {
    Observer::of(server.client_at(Some(AGENT), proxy.address()).await)
}

/// A root, a leaf with an endpoint, and a split that sends everything there.
async fn make_split(server: &Server, root: &str) {
    let leaf = format!("{root}-v1");
    server.apply(&service(root)).await;
    server.apply(&service(&leaf)).await;
    server
        .apply(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": leaf, "namespace": "default",
                "labels": {"kubernetes.io/service-name": leaf},
            },
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.0.1"]}],
            "ports": [{"name": "", "port": 8080}],
        }))
        .await;
    server
        .apply(&json!({
            "apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
            "metadata": {"name": root, "namespace": "default"},
            "spec": {"service": root, "backends": [{"service": leaf, "weight": 1}]},
        }))
        .await;
}

const NOT_KNOWN_YET: Option<Decision> = Some(Decision::PassThrough(Reason::NotKnownYet));

async fn until_decided(observer: &mut Observer, root: &str, decision: Option<Decision>) {
    let what = format!("{root} is {decision:?}");
    observer
        .until(&what, |it| it.decision(root) == decision)
        .await;
}

async fn until_known(
    observer: &mut Observer,
    kind: Kind,
    knowledge: splitter_agent::compile::Knowledge,
) {
    let what = format!("{kind} is {knowledge:?}");
    observer
        .until(&what, |it| it.knowledge.get(&kind) == Some(&knowledge))
        .await;
}

#[tokio::test]
async fn a_split_made_without_the_right_to_slices_is_not_refused() {
    let (server, mut proxy) = server(&all_rights()).await;
    let mut observer = observer(&server, &proxy).await;
    observer.until_complete().await;

    allow(&server, &without_slices()).await;
    // A watch that has begun is not asked again for its rights.
    proxy.cut();
    until_known(&mut observer, Kind::ENDPOINT_SLICE, Stale).await;
    make_split(&server, "late").await;
    until_decided(&mut observer, "late", NOT_KNOWN_YET).await;
    assert_eq!(observer.names("EndpointSlice"), ["kubernetes"]);
    observer
        .until_metric("splitter_source_synced{kind=\"EndpointSlice\"} 0")
        .await;

    allow(&server, &all_rights()).await;
    until_decided(&mut observer, "late", Some(Decision::Split)).await;
    until_known(&mut observer, Kind::ENDPOINT_SLICE, Followed).await;
    assert!(!observer.has_refused);
    assert_eq!(observer.completes, 1);
}

#[tokio::test]
async fn kinds_that_come_back_one_by_one_refuse_nothing_and_wake_each_other() {
    let (server, mut proxy) = server(&all_rights()).await;
    let mut observer = observer(&server, &proxy).await;
    observer.until_complete().await;

    proxy.refuse();
    for kind in Kind::followed() {
        until_known(&mut observer, kind, Stale).await;
    }
    allow(&server, &without_slices()).await;
    make_split(&server, "late").await;
    proxy.carry();
    until_decided(&mut observer, "late", NOT_KNOWN_YET).await;
    for kind in [Kind::SERVICE, Kind::TRAFFIC_SPLIT] {
        until_known(&mut observer, kind, Followed).await;
    }
    // Its pause is then between 12.8 s and 25.6 s.
    observer
        .until_metric("splitter_watch_errors_total{kind=\"EndpointSlice\",code=\"403\"} 5")
        .await;

    allow(&server, &all_rights()).await;
    // The others must find their way again, and take it with them.
    proxy.cut();
    let cut = Instant::now();
    until_decided(&mut observer, "late", Some(Decision::Split)).await;
    let took = cut.elapsed();
    assert!(took < Duration::from_secs(12), "{took:?}");
    assert!(!observer.has_refused);
}

#[tokio::test]
async fn an_agent_that_may_never_list_slices_says_so_and_lets_splits_pass() {
    let (server, proxy) = server(&without_slices()).await;
    make_split(&server, "web").await;
    let mut observer = observer(&server, &proxy).await;
    observer
        .until("told that not everything is known", |it| it.partials == 1)
        .await;
    assert_eq!(observer.completes, 0);
    until_decided(&mut observer, "web", NOT_KNOWN_YET).await;
    assert_eq!(observer.knowledge.get(&Kind::ENDPOINT_SLICE), None);

    allow(&server, &all_rights()).await;
    observer.until_complete().await;
    assert_eq!(observer.decision("web"), Some(Decision::Split));
    assert!(!observer.has_refused);
}
