//! Objects from the Kubernetes API.
//!
//! [`watch()`] follows every kind that splitting needs for as long as its handle
//! lives, and sends a [`Change`] for each thing that happens. What it promises:
//!
//! - Whatever the API server does, nothing is taken away but what it says is gone: by a
//!   deletion, or by a complete list that lacks it. A server that is away, refuses, or
//!   breaks off half-way changes nothing, and is asked again within half a minute; as soon as
//!   one kind reaches it again, those that could not reach it try at once.
//! - It tells what it does not know: [`Change::Known`] says, in order with all other changes, whether
//!   each kind is followed. It is not from a failure until it was listed anew, or until what was
//!   missed has been told; that a watch ends, as the server ends each now and then, is no failure.
//! - One object that cannot be read never affects another.
//! - It keeps the names of objects, not the objects: those are read into what the agent
//!   keeps as they come over the wire, one at a time where the server can stream lists.
//! - It costs a server little: one watch per kind (and of pods one for each namespace where their
//!   labels matter), a question that was answered with "no" repeated twice a minute in the long run,
//!   and a random delay before the first list.
//!
//! Optional kinds, such as those of SMI and the Gateway API, need a definition, which may come late,
//! change and go. It is watched, too, or asked for where that is not allowed;
//! [`Watch::served_versions`] tells of it.
//!
//! ```text
//!   definition ──► optional ──┐
//! API ──► feed ──► row ──► tracker ──► Change
//!          │                  │
//!   steps, failure,         names
//!       backoff
//! ```

mod backoff;
mod client;
mod definition;
mod discovery;
mod failure;
mod feed;
mod json;
mod list;
mod metrics;
mod names;
mod node_pods;
mod optional;
mod own_node;
mod pause;
mod pods;
mod resource;
mod row;
mod steps;
mod tracker;

use std::collections::BTreeSet;
use std::time::Duration;

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use client::{ClientError, client};
pub use definition::ServedVersion;
pub use metrics::SourceMetrics;
pub use optional::ServedVersions;
pub use own_node::OwnNode;

use super::Change;
use crate::objects::{Availability, Kind};
use feed::{Feed, Selection, Server};
use row::Decoded;
use tracker::{ChangeSender, Tracker};

/// Directives for a log filter. The libraries below log every failure each time it is
/// repeated, and whole answers that they cannot read; this source tells of all that by
/// itself, once.
pub const LOG_FILTER: &str = "kube_client=off,kube_runtime=off";

/// How many changes wait for the agent before the API server has to.
const WAITING: usize = 16_384;

/// How to follow the API server.
#[derive(Clone, Debug)]
pub struct KubernetesSettings {
    /// The first lists are asked for at a random moment within this time, so that a
    /// cluster's agents that start together do not ask together.
    pub jitter: Duration,
    /// The Node that the agent runs on, if it is to be told of.
    pub own_node: Option<OwnNode>,
    /// The name of the node whose pods are to be told of while they are wanted (see
    /// [`Watch::want_node_pods`]), if any.
    pub pods_of: Option<String>,
}

impl Default for KubernetesSettings {
    fn default() -> Self {
        Self {
            jitter: Duration::from_secs(2),
            own_node: None,
            pods_of: None,
        }
    }
}

/// A source that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    metrics: SourceMetrics,
    served: watch::Receiver<ServedVersions>,
    wants_node_pods: watch::Sender<bool>,
    /// The namespaces of which pods are asked for.
    pods: watch::Sender<pods::Namespaces>,
    // Dropping it aborts the tasks.
    _tasks: JoinSet<()>,
}

impl Watch {
    /// What can be measured of it.
    #[must_use]
    pub const fn metrics(&self) -> &SourceMetrics {
        &self.metrics
    }

    /// The version in which each optional kind is followed; none for those that are not.
    #[must_use]
    pub fn served_versions(&self) -> watch::Receiver<ServedVersions> {
        self.served.clone()
    }

    /// Whether to tell of the pods of the node. At first they are not told of.
    pub fn want_node_pods(&self, are_wanted: bool) {
        self.wants_node_pods.send_if_modified(|wanted| {
            let changed = *wanted != are_wanted;
            *wanted = are_wanted;
            changed
        });
    }

    /// Asks for the pods of these namespaces, and of no others.
    pub fn ask_for_pods(&self, namespaces: BTreeSet<String>) {
        self.pods.send_if_modified(|asked| {
            let is_other = *asked != namespaces;
            *asked = namespaces;
            is_other
        });
    }
}

/// Follows everything that splitting needs, until the handle or the receiver is dropped.
/// Must be called within a tokio runtime.
///
/// [`Change::Complete`] is sent once: when every kind has been listed for the first time.
/// A kind that the cluster does not know counts as listed, one that cannot be listed does
/// not; once every kind was listed or could not be, [`Change::Partial`] is sent. Only as many changes are on their way as the receiver has room for; drain it with
/// [`recv_many`](mpsc::Receiver::recv_many), so that bursts are handled at one go.
#[must_use]
pub fn watch(client: Client, settings: KubernetesSettings) -> (mpsc::Receiver<Change>, Watch) {
    let (sender, changes) = mpsc::channel(WAITING);
    let (sender_of_versions, served) = watch::channel(ServedVersions::new());
    let metrics = SourceMetrics::default();
    let server = Server::new(client, metrics.clone(), settings.jitter);
    let mut tasks = JoinSet::new();
    if let Some(node) = settings.own_node {
        tasks.spawn(own_node::follow(
            server.client.clone(),
            node,
            sender.clone(),
        ));
    }
    let wants_node_pods = watch::Sender::new(false);
    if let Some(node) = settings.pods_of {
        let wanted = wants_node_pods.subscribe();
        // Before anything else is told.
        let _ = sender.try_send(Change::NodePodsKnown(false));
        tasks.spawn(node_pods::follow(
            server.clone(),
            node,
            wanted,
            sender.clone(),
        ));
    }
    let (asked, receiver) = watch::channel(pods::Namespaces::new());
    tasks.spawn(pods::follow(server.clone(), receiver, sender.clone()));
    let sender = ChangeSender::new(sender);
    for kind in Kind::followed() {
        let (server, sender) = (server.clone(), sender.clone());
        match kind.availability {
            Availability::BuiltIn => tasks.spawn(follow(server, kind, sender)),
            Availability::Optional => {
                let served = sender_of_versions.clone();
                tasks.spawn(optional::follow(server, kind, sender, served))
            }
        };
    }
    let watch = Watch {
        metrics,
        served,
        wants_node_pods,
        pods: asked,
        _tasks: tasks,
    };
    (changes, watch)
}

/// Follows a kind that every cluster has, until the receiver of changes is closed.
async fn follow(server: Server, kind: Kind, sender: ChangeSender) {
    let mut tracker = Tracker::new(kind, sender, server.metrics.clone());
    let version = kind.versions.first().copied().unwrap_or_default();
    let mut feed = Feed::<Decoded>::new(server, kind.resource, version, Selection::default());
    loop {
        let result = match feed.next().await {
            Ok(told) => tracker.apply(told).await,
            // The feed has told people of it, and goes on by itself.
            Err(_) => tracker.failed().await,
        };
        if result.is_err() {
            return;
        }
    }
}
