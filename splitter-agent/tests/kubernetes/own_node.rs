//! The zone of the node that the agent runs on.

use std::time::Duration;

use serde_json::{Value, json};
use splitter_agent::objects::Object;
use splitter_agent::source::kubernetes::OwnNode;

use super::access::{allow, node_rule, objects_rule};
use super::definition::definition;
use super::observer::Observer;
use super::server::{AGENT, Server};

fn node(name: &str, zone: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}})
}

fn own_node() -> OwnNode {
    OwnNode {
        interval: Duration::from_millis(200),
        ..OwnNode::new("n1".to_owned())
    }
}

fn zone(observer: &Observer) -> Option<&str> {
    match observer.known.get("Node n1") {
        Some(Ok(Object::Node(node))) => node.zone.as_deref(),
        _ => None,
    }
}

/// Without the right to its Node an agent follows everything else; with `get` alone it has its
/// zone.
#[tokio::test]
async fn the_own_node_is_told_of_with_no_right_but_get() {
    let server = Server::start().await;
    server.apply(&definition(&["v1alpha4"])).await;
    server.apply(&node("n1", "a")).await;
    server.apply(&node("n2", "b")).await;
    let mut rules = objects_rule();
    allow(&server, &rules).await;
    let client = server.client_at(Some(AGENT), server.address()).await;
    let mut observer = Observer::on(client, Some(own_node()));
    observer.until_complete().await;
    assert_eq!(zone(&observer), None);

    rules.as_array_mut().expect("rules").push(node_rule());
    allow(&server, &rules).await;
    observer
        .until("told the zone", |it| zone(it) == Some("a"))
        .await;
    server.apply(&node("n1", "c")).await;
    observer
        .until("told the other zone", |it| zone(it) == Some("c"))
        .await;
    server.delete(&node("n1", "c")).await;
    observer
        .until("told that it is gone", |it| it.deleted == ["Node n1"])
        .await;
    assert!(
        !observer.known.contains_key("Node n2"),
        "of others nobody asked"
    );
}
