//! Live connections.

use serde::{Deserialize, Serialize};

/// What `splitter-agent connections` prints.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Connections {
    /// Name of the node, or what the agent calls itself.
    pub node: String,
    /// The connections that were asked for, the oldest first.
    pub connections: Vec<Connection>,
    /// How many were asked for and are not listed, by `--limit`.
    pub omitted: usize,
}

/// A split connection of this node's pods whose socket lives.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Connection {
    /// Namespace of the root Service; null if what was dialled is split no more.
    pub namespace: Option<String>,
    /// Name of the root Service; null if what was dialled is split no more.
    pub root: Option<String>,
    /// Name of the leaf; null if it is no part of a split any more.
    pub leaf: Option<String>,
    /// What was dialled, as `ADDRESS:PORT`.
    pub dialled: String,
    /// Where it was sent, as `ADDRESS:PORT`.
    pub endpoint: String,
    /// The pod whose process called connect(); null if that is in no pod, or its cgroup is gone.
    pub pod: Option<ConnectionPod>,
    /// The cgroup of that process, as a path on the node; null if it is gone.
    pub cgroup: Option<String>,
    /// How many seconds ago connect() was called; null if that is not known.
    pub age_seconds: Option<u64>,
    /// Whether it has not ended. One that has is there as long as its owner does not close the socket.
    pub open: bool,
    /// The socket's cookie; `ss -e` shows it as `sk:`, in hexadecimal.
    pub cookie: u64,
}

/// A pod that a connection is of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConnectionPod {
    /// Its namespace; null if no agent on this node has told whose the uid is.
    pub namespace: Option<String>,
    /// Its name; null as the namespace is.
    pub name: Option<String>,
    /// Its uid, as the kubelet names its cgroup: of a static pod, the digest of its manifest.
    pub uid: String,
}
