//! Nodes: where clients are.

use super::field::FieldError;
use super::kind::{Availability, Entry, NameRule, Purpose, Resource, StatusForm};
use super::{Metadata, Object, ObjectName};

/// The kind of Nodes.
pub(crate) static ENTRY: Entry = Entry {
    resource: Resource {
        kind: "Node",
        plural: "nodes",
        group: "",
    },
    versions: &["v1"],
    purpose: Purpose::OwnNode,
    availability: Availability::BuiltIn,
    is_namespaced: false,
    name_rule: NameRule::Subdomain,
    status: StatusForm::None,
    precedence: 0,
    may_be_superseded: false,
    owns_group: false,
    definition: None,
    read: |metadata, _| Node::read(metadata).map(Object::Node),
};

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
    fn read(metadata: Metadata<'_>) -> Result<Self, FieldError> {
        let zone = metadata.label(ZONE)?.filter(|zone| !zone.is_empty());
        Ok(Self {
            name: metadata.name,
            zone,
        })
    }
}
