//! Where objects come from.
//!
//! A source tells the agent what changed, in [`Change`]s; how it knows is its own affair.

mod change_stream;
pub mod kubernetes;
pub mod manifests;

use std::sync::Arc;

pub use change_stream::{ChangeStream, Ended};

use crate::compile::{Client, Diagnostic, Knowledge, PodNews};
use crate::objects::{DecodeError, Kind, Object, ObjectReference, Objects, Pod};

/// What a source of manifests knows at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every object that it could read.
    pub objects: Arc<Objects>,
    /// What is wrong with what it could not read.
    pub problems: Vec<Diagnostic>,
    /// Whether everything that exists has been read at least once. Until then absence
    /// proves nothing: what is in effect but not in `objects` must stay.
    pub complete: bool,
}

/// A pod of the agent's own node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePod {
    /// Its uid as its cgroup has it: of a static pod, the digest of its manifest.
    pub uid: String,
    /// Its name; the namespace is the client's.
    pub name: String,
    /// Who it is to claims that are about some clients.
    pub client: Client,
    /// Whether its connections are split at all.
    pub is_split: bool,
}

impl NodePod {
    /// A Pod on its node; `None` if it has no uid, by which its cgroup is found.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        let uid = &pod.on_node.uid;
        (!uid.is_empty()).then(|| Self {
            uid: uid.to_string(),
            name: pod.name.name.clone(),
            is_split: !pod.on_node.is_left_alone,
            client: Client {
                namespace: pod.name.namespace.clone(),
                labels: pod.labels.clone(),
            },
        })
    }
}

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An object was added or changed.
    Put(Object),
    /// An object is there but cannot be read.
    Refused(DecodeError),
    /// An object is there but cannot be read, and [`Self::Problems`] say why.
    Unreadable(ObjectReference),
    /// An object is gone.
    Deleted(ObjectReference),
    /// All problems with what could not be read; replaces the earlier ones.
    Problems(Vec<Diagnostic>),
    /// What becomes known of the pods of a namespace, which are told of as any other object.
    Pods(String, PodNews),
    /// How much is known of a kind from now on. Until a source says so, a kind is
    /// [`Knowledge::Incomplete`].
    Known(Kind, Knowledge),
    /// A pod is on this node, or changed.
    NodePod(NodePod),
    /// A pod, by its uid, is no longer on this node.
    NodePodGone(String),
    /// Whether every pod of this node has been told of, and every change is. Until a source says
    /// so, some may not have been.
    NodePodsKnown(bool),
    /// From now on what has been told may be published, although not everything that exists
    /// could be read.
    Partial,
    /// Everything that exists has been told at least once.
    Complete,
}
