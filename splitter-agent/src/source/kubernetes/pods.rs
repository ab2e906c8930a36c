//! The metadata of pods, namespace by namespace as the agent asks for it.
//!
//! Labels of pods matter only where a split names a subset of a Service. So there is a watch for each
//! such namespace, and none otherwise; it keeps nothing, not even names: what a new list does not have
//! is found out by whoever keeps the pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::info;

use super::feed::{Feed, FeedEvent, Selection, Server};
use super::row::PodMetadata;
use crate::compile::PodNews;
use crate::objects::{Kind, Object, ObjectReference};
use crate::source::Change;

/// The namespaces that are asked for.
pub(super) type Namespaces = BTreeSet<String>;

/// Follows the pods of the namespaces that are asked for, until the receiver of changes is closed, or
/// nobody can ask any more.
pub(super) async fn follow(
    server: Server,
    mut asked: watch::Receiver<Namespaces>,
    changes: mpsc::Sender<Change>,
) {
    let mut followed: BTreeMap<String, Task> = BTreeMap::new();
    let synced = Synced::default();
    loop {
        let wanted = asked.borrow_and_update().clone();
        let unwanted: Vec<String> = followed
            .keys()
            .filter(|namespace| !wanted.contains(*namespace))
            .cloned()
            .collect();
        for namespace in unwanted {
            if let Some(task) = followed.remove(&namespace) {
                task.end().await;
            }
            synced.forget(&server, &namespace);
            info!(namespace, "no longer following pods");
            let news = Change::Pods(namespace, PodNews::Forgotten);
            if changes.send(news).await.is_err() {
                return;
            }
        }
        for namespace in wanted {
            followed.entry(namespace).or_insert_with_key(|namespace| {
                info!(namespace, "following the labels of pods");
                synced.set(&server, namespace, false);
                let (server, changes) = (server.clone(), changes.clone());
                let (namespace, synced) = (namespace.clone(), synced.clone());
                Task(tokio::spawn(async move {
                    // Only a closed channel ends it.
                    let _ = follow_namespace(server, namespace, synced, changes).await;
                }))
            });
        }
        tokio::select! {
            changed = asked.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = changes.closed() => return,
        }
    }
}

/// A task that ends with this.
struct Task(JoinHandle<()>);

impl Task {
    /// Ends it: after this it does nothing more.
    async fn end(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Which namespaces are followed; all of them share one series of the metrics.
#[derive(Clone, Default)]
struct Synced(Arc<Mutex<BTreeMap<String, bool>>>);

impl Synced {
    fn set(&self, server: &Server, namespace: &str, is_synced: bool) {
        self.change(server, |all| {
            all.insert(namespace.to_owned(), is_synced);
        });
    }

    fn forget(&self, server: &Server, namespace: &str) {
        self.change(server, |all| {
            all.remove(namespace);
        });
    }

    fn change(&self, server: &Server, change: impl FnOnce(&mut BTreeMap<String, bool>)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut all);
        let are_all = all.values().all(|is_synced| *is_synced);
        server.metrics.set_synced(Kind::POD.name(), are_all);
    }
}

async fn follow_namespace(
    server: Server,
    namespace: String,
    synced: Synced,
    changes: mpsc::Sender<Change>,
) -> Result<(), mpsc::error::SendError<Change>> {
    let version = Kind::POD.versions.first().copied().unwrap_or_default();
    let selection = Selection {
        namespace: Some(namespace.clone()),
        is_metadata: true,
        ..Selection::default()
    };
    let mut feed = Feed::<PodMetadata>::new(server.clone(), Kind::POD.resource, version, selection);
    loop {
        let news = match feed.next().await {
            Ok(FeedEvent::ListBegins) => PodNews::ListBegins,
            Ok(FeedEvent::Put(row)) => {
                if let Some(pod) = row.content.into_pod() {
                    changes.send(Change::Put(Object::Pod(pod))).await?;
                }
                continue;
            }
            Ok(FeedEvent::Gone(row)) => {
                if let Some(pod) = row.content.into_pod() {
                    let object = ObjectReference::new(Kind::POD, pod.name);
                    changes.send(Change::Deleted(object)).await?;
                }
                continue;
            }
            Ok(FeedEvent::Listed) => PodNews::Listed,
            Ok(FeedEvent::Followed) => PodNews::Followed,
            // The feed has told people of a failure, and goes on by itself.
            Ok(FeedEvent::Lost) | Err(_) => PodNews::Lost,
        };
        match news {
            PodNews::Listed | PodNews::Followed => synced.set(&server, &namespace, true),
            PodNews::Lost => synced.set(&server, &namespace, false),
            PodNews::ListBegins | PodNews::Forgotten => {}
        }
        changes.send(Change::Pods(namespace.clone(), news)).await?;
    }
}
