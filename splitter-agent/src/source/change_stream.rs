//! One interface for all sources.

use std::collections::BTreeSet;
use std::path::Path;

use kube::Client;
use tokio::sync::{mpsc, watch};

use super::kubernetes::{self, Watch};
use super::manifests::{self, SourceError, WatchHandle};
use super::{Change, Snapshot};

/// Changes from whatever source there is.
#[derive(Debug)]
pub struct ChangeStream(Kind);

#[derive(Debug)]
enum Kind {
    Manifests {
        snapshots: watch::Receiver<Snapshot>,
        told: Snapshot,
        /// The name of the node whose pods are told of as such.
        node: String,
        _watch: WatchHandle,
    },
    Kubernetes {
        changes: mpsc::Receiver<Change>,
        watch: Watch,
    },
}

/// Most changes in one batch: those that arrive meanwhile are the next batch.
const MAX_CHANGES: usize = 16_384;

/// The source has stopped, which it never does by itself.
#[derive(Debug, thiserror::Error)]
#[error("the source of objects has stopped; restart the agent")]
pub struct Ended;

impl ChangeStream {
    /// Changes of a directory of manifests, on the node of this name.
    ///
    /// # Errors
    ///
    /// When the directory cannot be watched.
    pub fn manifests(directory: &Path, node: &str) -> Result<Self, SourceError> {
        let (mut snapshots, watch) = manifests::watch(directory)?;
        // What exists now has not been reported yet.
        snapshots.mark_changed();
        Ok(Self(Kind::Manifests {
            snapshots,
            told: Snapshot::default(),
            node: node.to_owned(),
            _watch: watch,
        }))
    }

    /// Changes of the objects that the API server holds.
    #[must_use]
    pub fn kubernetes(client: Client, settings: kubernetes::KubernetesSettings) -> Self {
        let (changes, watch) = kubernetes::watch(client, settings);
        Self(Kind::Kubernetes { changes, watch })
    }

    /// What there is to be known of the watches on the API server, if that is the source.
    #[must_use]
    pub fn watch(&self) -> Option<&Watch> {
        match &self.0 {
            Kind::Manifests { .. } => None,
            Kind::Kubernetes { watch, .. } => Some(watch),
        }
    }

    /// Asks for the pods of these namespaces, and of no others. A directory of manifests tells of all
    /// that it has.
    pub fn ask_for_pods(&self, namespaces: BTreeSet<String>) {
        if let Some(watch) = self.watch() {
            watch.ask_for_pods(namespaces);
        }
    }

    /// Waits for the next changes. Nothing is lost when this is cancelled.
    ///
    /// # Errors
    ///
    /// When the source has ended.
    pub async fn next(&mut self) -> Result<Vec<Change>, Ended> {
        match &mut self.0 {
            Kind::Manifests {
                snapshots,
                told,
                node,
                ..
            } => {
                snapshots.changed().await.map_err(|_| Ended)?;
                let snapshot = snapshots.borrow_and_update().clone();
                let mut changes = manifests::node_pod_changes(told, &snapshot, node);
                changes.extend(manifests::changes(told, &snapshot));
                // Once everything was read, a new file that cannot be read does not make what
                // was read before doubtful.
                let complete = told.complete || snapshot.complete;
                *told = Snapshot {
                    complete,
                    ..snapshot
                };
                Ok(changes)
            }
            Kind::Kubernetes { changes, .. } => {
                let mut waiting = Vec::new();
                if changes.recv_many(&mut waiting, MAX_CHANGES).await == 0 {
                    return Err(Ended);
                }
                Ok(waiting)
            }
        }
    }
}
