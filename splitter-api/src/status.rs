//! What `status` shows.

use serde::{Deserialize, Serialize};

use crate::node::NodeStatus;
use crate::split::Split;

/// What `splitter-agent status -o json` prints.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// The node, its agent and its programs.
    #[serde(flatten)]
    pub node: NodeStatus,
    /// The splits that were asked for, one for each frontend, sorted by namespace, name, root and
    /// frontend.
    pub splits: Vec<Split>,
    /// Frontends whose records do not fit together, as `ADDRESS:PORT/PROTOCOL`. Connections to them
    /// may pass through until the agent publishes them again. Empty if only some splits were asked for.
    pub inconsistent: Vec<String>,
    /// What happened to connections to frontends, of all splits.
    pub verdicts: VerdictCounts,
}

/// Numbers of connections to frontends on this node since the maps were made, by what happened to
/// them. The agent's own test connections count too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct VerdictCounts {
    /// Sent to an endpoint of a leaf.
    pub split: u64,
    /// Refused, as every connection to the frontend.
    pub refused: u64,
    /// Refused, because the leaf that the connection fell to has a share and no endpoints.
    pub refused_by_leaf: u64,
    /// Left alone, because the frontend's record says so.
    pub passed_through: u64,
    /// Left alone, because the frontend's records do not fit together.
    pub inconsistent: u64,
    /// Split, and counted there too, but the original destination could not be stored, so that
    /// `getpeername()` shows the endpoint.
    pub original_dst_lost: u64,
    /// Not known which pod it was that connected, though it might have mattered: treated like
    /// everyone, and counted as what became of that too.
    pub client_unknown: u64,
    /// Left alone, because the pod that connected is never split.
    pub never_split: u64,
}
