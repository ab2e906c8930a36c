//! What `explain` shows.

use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::node::NodeStatus;
use crate::split::Split;

/// What `splitter-agent explain -o json` prints.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Explanation {
    /// The node, its agent and its programs.
    #[serde(flatten)]
    pub node: NodeStatus,
    /// The frontends of the target; none if connections to it are not touched.
    pub frontends: Vec<FrontendExplanation>,
    /// Findings about the objects that concern the target; none unless manifests were given.
    pub diagnostics: Vec<Diagnostic>,
}

/// A frontend, and where connections to it go.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FrontendExplanation {
    /// Its split.
    #[serde(flatten)]
    pub split: Split,
    /// The endpoints of every leaf, in the order of the leaves.
    pub endpoints: Vec<LeafEndpoints>,
    /// Where the next ten connections go if nothing else connects, the next one first; none unless
    /// the frontend is split.
    pub next: Vec<NextConnection>,
}

/// The endpoints of a leaf.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeafEndpoints {
    /// Name of the leaf Service.
    pub service: String,
    /// Its endpoints as `ADDRESS:PORT`, sorted.
    pub addresses: Vec<String>,
}

/// Where a connection will go.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NextConnection {
    /// Name of the leaf Service.
    pub service: String,
    /// The endpoint as `ADDRESS:PORT`; null if the connection will be refused, since the leaf has no
    /// endpoints.
    pub endpoint: Option<String>,
}
