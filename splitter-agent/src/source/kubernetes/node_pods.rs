//! The pods of the agent's own node, who may be clients that a split is for, or whose connections
//! are never split. Asked for only while that matters.

use std::collections::BTreeSet;
use std::future::pending;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tracing::info;

use super::failure::WatchFailure;
use super::feed::{Feed, FeedEvent, Selection, Server};
use super::row::Content;
use crate::objects::{Pod, Resource};
use crate::source::{Change, NodePod};

/// How they are found at the API server. The name is that of the metrics, since other Pods may be
/// followed for other reasons.
const NODE_PODS: Resource = Resource {
    kind: "NodePod",
    plural: "pods",
    group: "",
};

/// What is read of a Pod; `None` if it has no uid.
#[derive(Clone, Debug)]
struct Read(Option<NodePod>);

impl Content for Read {
    fn read(value: Value) -> Self {
        Self(node_pod(&value))
    }
}

fn node_pod(value: &Value) -> Option<NodePod> {
    let metadata = value.get("metadata")?.as_object()?;
    NodePod::of(&Pod::of_metadata(metadata)?)
}

/// Tells of the pods of a node whenever they are wanted, until the receiver of changes is closed.
pub(super) async fn follow(
    server: Server,
    node: String,
    mut wanted: watch::Receiver<bool>,
    changes: mpsc::Sender<Change>,
) {
    let mut pods = NodePods {
        known: BTreeSet::new(),
        listed: BTreeSet::new(),
        changes,
    };
    loop {
        if !until(&mut wanted, true).await {
            return pending().await;
        }
        info!(node, "following the pods of this node");
        server.metrics.begin(NODE_PODS.kind);
        let selection = Selection {
            fields: Some(format!("spec.nodeName={node}")),
            is_metadata: true,
            ..Selection::default()
        };
        let mut feed = Feed::<Read>::new(server.clone(), NODE_PODS, "v1", selection);
        loop {
            let told = tokio::select! {
                told = feed.next() => told,
                is_open = until(&mut wanted, false) => {
                    if !is_open {
                        return pending().await;
                    }
                    break;
                }
            };
            let Ok(is_followed) = pods.apply(told).await else {
                return;
            };
            if let Some(is_followed) = is_followed {
                server.metrics.set_synced(NODE_PODS.kind, is_followed);
                server.metrics.set_objects(NODE_PODS.kind, pods.known.len());
            }
        }
        server.metrics.end(NODE_PODS.kind);
        if pods.tell(Change::NodePodsKnown(false)).await.is_err() {
            return;
        }
    }
}

/// Waits until pods are wanted, or are not; `false` if nobody can want them any more.
async fn until(wanted: &mut watch::Receiver<bool>, are_wanted: bool) -> bool {
    wanted
        .wait_for(|wanted| *wanted == are_wanted)
        .await
        .is_ok()
}

struct NodePods {
    /// The uids of those that were told of.
    known: BTreeSet<String>,
    /// Those in the list that began last.
    listed: BTreeSet<String>,
    changes: mpsc::Sender<Change>,
}

/// Nobody wants to be told any more.
struct Closed;

impl NodePods {
    /// Tells what a feed tells; whether they are all known now, if that is news.
    async fn apply(
        &mut self,
        told: Result<FeedEvent<Read>, WatchFailure>,
    ) -> Result<Option<bool>, Closed> {
        let is_followed = match told {
            Ok(FeedEvent::ListBegins) => {
                self.listed.clear();
                return Ok(None);
            }
            Ok(FeedEvent::Put(row)) => {
                if let Some(pod) = row.content.0 {
                    self.listed.insert(pod.uid.clone());
                    self.known.insert(pod.uid.clone());
                    self.tell(Change::NodePod(pod)).await?;
                }
                return Ok(None);
            }
            Ok(FeedEvent::Gone(row)) => {
                if let Some(pod) = row.content.0 {
                    self.gone(pod.uid).await?;
                }
                return Ok(None);
            }
            Ok(FeedEvent::Listed) => {
                let gone = self.known.difference(&self.listed).cloned();
                for uid in gone.collect::<Vec<_>>() {
                    self.gone(uid).await?;
                }
                true
            }
            Ok(FeedEvent::Followed) => true,
            // The feed has told people of a failure, and goes on by itself.
            Ok(FeedEvent::Lost) | Err(_) => false,
        };
        self.tell(Change::NodePodsKnown(is_followed)).await?;
        Ok(Some(is_followed))
    }

    async fn gone(&mut self, uid: String) -> Result<(), Closed> {
        if self.known.remove(&uid) {
            self.tell(Change::NodePodGone(uid)).await?;
        }
        Ok(())
    }

    async fn tell(&self, change: Change) -> Result<(), Closed> {
        self.changes.send(change).await.map_err(|_| Closed)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use kube::Client;
    use kube::client::Body;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use serde_json::json;

    use super::super::metrics::SourceMetrics;
    use super::*;

    fn read(metadata: &Value) -> Option<NodePod> {
        node_pod(&json!({"metadata": metadata}))
    }

    #[test]
    fn a_static_pod_is_known_by_the_uid_that_its_cgroup_has() {
        let pod = read(&json!({
            "namespace": "kube-system", "name": "etcd-a", "uid": "11111111-1111-1111-1111-111111111111",
            "annotations": {"kubernetes.io/config.hash": "0123456789abcdef0123456789abcdef"},
        }));
        let pod = pod.expect("a pod");
        assert_eq!(pod.uid, "0123456789abcdef0123456789abcdef");
        assert_eq!(
            (&*pod.client.namespace, &*pod.name),
            ("kube-system", "etcd-a")
        );
        assert_eq!(read(&json!({"namespace": "shop", "name": "web"})), None);
        assert_eq!(node_pod(&Value::Null), None);
    }

    #[test]
    fn pods_that_say_no_and_pods_of_another_mesh_are_not_split() {
        let is_split = |metadata: Value| {
            let mut pod = json!({"namespace": "shop", "name": "web", "uid": "1"});
            let fields = pod.as_object_mut().expect("an object");
            fields.extend(metadata.as_object().expect("an object").clone());
            read(&pod).expect("a pod").is_split
        };
        assert!(is_split(json!({})));
        assert!(is_split(
            json!({"annotations": {"splitter.dev/skip": "false"}})
        ));
        assert!(is_split(
            json!({"labels": {"istio.io/dataplane-mode": "none"}})
        ));
        for metadata in [
            json!({"annotations": {"splitter.dev/skip": "true"}}),
            json!({"labels": {"splitter.dev/skip": "true"}}),
            json!({"annotations": {"sidecar.istio.io/status": "{}"}}),
            json!({"annotations": {"ambient.istio.io/redirection": "enabled"}}),
            json!({"labels": {"istio.io/dataplane-mode": "ambient"}}),
        ] {
            assert!(!is_split(metadata.clone()), "{metadata}");
        }
    }

    /// Before the first list, say, which may be long in coming.
    #[tokio::test]
    async fn pods_that_are_no_longer_wanted_are_not_said_to_be_missing() {
        let silent = |_: http::Request<Body>| pending::<Result<http::Response<Body>, Infallible>>();
        let client = Client::new(tower::service_fn(silent), "default");
        let metrics = SourceMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let is_told = |value: &str| {
            let mut text = String::new();
            encode(&mut text, &registry).expect("text");
            text.contains(&format!("source_synced{{kind=\"NodePod\"}}{value}"))
        };
        let server = Server::new(client, metrics, Duration::ZERO);
        let (want, wanted) = watch::channel(false);
        let (sender, mut changes) = mpsc::channel(1);
        tokio::spawn(follow(server, "node-1".to_owned(), wanted, sender));
        assert!(!is_told(""));
        want.send_replace(true);
        while !is_told(" 0") {
            tokio::task::yield_now().await;
        }
        want.send_replace(false);
        let told = changes.recv().await;
        assert!(matches!(told, Some(Change::NodePodsKnown(false))));
        assert!(!is_told(""));
    }
}
