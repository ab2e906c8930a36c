//! Nodes: where clients are.

use super::ObjectName;
use super::decode::Metadata;
use super::field::FieldError;

/// The label that says in which zone a node is.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// What the agent keeps of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name; Nodes are in no namespace.
    pub name: ObjectName,
    /// Its zone, from the label [`ZONE`].
    pub zone: Option<String>,
}

impl Node {
    pub(super) fn read(metadata: Metadata<'_>) -> Result<Self, FieldError> {
        let zone = metadata.label(ZONE)?.filter(|zone| !zone.is_empty());
        Ok(Self {
            name: metadata.name,
            zone,
        })
    }
}
