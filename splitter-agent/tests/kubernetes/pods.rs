//! The metadata of pods, in the namespaces that are asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use splitter_agent::compile::PodNews;
use splitter_agent::objects::{Object, Pod};
use testbed::fixtures::CuttableProxy;

use super::access::{allow, objects_rule};
use super::observer::Observer;
use super::server::{AGENT, Server};

fn pod(namespace: &str, name: &str, version: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": namespace, "labels": {"app": "web", "version": version},
        },
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{"name": "app", "image": "app"}],
        },
    })
}

/// A namespace in which pods can be created.
async fn create_namespace(server: &Server, name: &str) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    server.apply(&namespace).await;
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": name},
    });
    server.apply(&account).await;
}

fn ask(observer: &Observer, namespaces: &[&str]) {
    let namespaces = namespaces.iter().map(ToString::to_string);
    observer.watch.ask_for_pods(namespaces.collect());
}

fn found<'a>(observer: &'a Observer, namespace: &str, name: &str) -> Option<&'a Pod> {
    match observer.known.get(&format!("Pod {namespace}/{name}")) {
        Some(Ok(Object::Pod(pod))) => Some(pod),
        _ => None,
    }
}

fn version<'a>(observer: &'a Observer, namespace: &str, name: &str) -> Option<&'a str> {
    let pod = found(observer, namespace, name)?;
    pod.labels.get("version").map(String::as_str)
}

fn has(observer: &Observer, namespace: &str, news: PodNews) -> bool {
    observer.pods.contains(&(namespace.to_owned(), news))
}

/// Case: ISTIO-SUBSET
#[tokio::test]
async fn pods_are_told_of_where_they_are_asked_for_and_nowhere_else() {
    let server = Server::start().await;
    for namespace in ["a", "b"] {
        create_namespace(&server, namespace).await;
        server.apply(&pod(namespace, "web-1", "v1")).await;
    }
    let client = server.client_at(None, server.address()).await;
    let mut observer = Observer::of(client);
    observer.until_complete().await;
    observer.wait(Duration::from_millis(500)).await;
    assert!(observer.pods.is_empty() && found(&observer, "a", "web-1").is_none());

    ask(&observer, &["a"]);
    observer
        .until("told of a", |it| has(it, "a", PodNews::Listed))
        .await;
    assert_eq!(version(&observer, "a", "web-1"), Some("v1"));
    let uid = found(&observer, "a", "web-1").map(|pod| pod.uid.len());
    assert_eq!(uid, Some(36));
    observer
        .until_metric("splitter_source_synced{kind=\"Pod\"} 1")
        .await;

    // Labels that change, and pods that come and go.
    server.apply(&pod("a", "web-1", "v2")).await;
    server.apply(&pod("a", "web-2", "v1")).await;
    observer
        .until("told of changes", |it| {
            version(it, "a", "web-1") == Some("v2") && version(it, "a", "web-2") == Some("v1")
        })
        .await;
    server.delete(&pod("a", "web-2", "v1")).await;
    observer
        .until("told that it is gone", |it| {
            found(it, "a", "web-2").is_none()
        })
        .await;
    assert!(found(&observer, "b", "web-1").is_none());

    // Another namespace comes late; the first one is not listed again.
    observer.pods.clear();
    ask(&observer, &["a", "b"]);
    observer
        .until("told of b", |it| has(it, "b", PodNews::Listed))
        .await;
    assert_eq!(version(&observer, "b", "web-1"), Some("v1"));
    assert!(!observer.pods.iter().any(|(namespace, _)| namespace == "a"));

    // What nobody asks for any more is forgotten, and nothing is told of it.
    ask(&observer, &["b"]);
    observer
        .until("a is forgotten", |it| has(it, "a", PodNews::Forgotten))
        .await;
    server.apply(&pod("a", "web-3", "v1")).await;
    server.apply(&pod("b", "web-3", "v1")).await;
    observer
        .until("told of b alone", |it| found(it, "b", "web-3").is_some())
        .await;
    assert!(found(&observer, "a", "web-3").is_none());
    observer.watch.ask_for_pods(BTreeSet::new());
    observer
        .until("b is forgotten", |it| has(it, "b", PodNews::Forgotten))
        .await;
    assert!(observer.end().await);
}

/// Case: ISTIO-PODS-UNKNOWN
#[tokio::test]
async fn pods_that_must_not_be_listed_are_not_known_until_they_may() {
    let server = Server::start().await;
    create_namespace(&server, "a").await;
    server.apply(&pod("a", "web-1", "v1")).await;
    let mut rules = objects_rule();
    allow(&server, &rules).await;
    let mut proxy = CuttableProxy::to(server.address());
    let client = server.client_at(Some(AGENT), proxy.address()).await;
    let mut observer = Observer::of(client);
    ask(&observer, &["a"]);
    observer
        .until("refused", |it| has(it, "a", PodNews::Lost))
        .await;
    assert!(!has(&observer, "a", PodNews::Listed));

    let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]});
    rules.as_array_mut().expect("rules").push(pods);
    allow(&server, &rules).await;
    observer
        .until("listed", |it| has(it, "a", PodNews::Listed))
        .await;
    assert_eq!(version(&observer, "a", "web-1"), Some("v1"));

    // A broken connection, while a pod goes.
    observer.pods.clear();
    proxy.cut();
    server.delete(&pod("a", "web-1", "v1")).await;
    observer
        .until("told that it is gone", |it| {
            found(it, "a", "web-1").is_none()
        })
        .await;
}
