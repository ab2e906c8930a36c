//! What people are told of a split that cannot be decided before more is known.

use super::knowledge::Kinds;
use crate::objects::{Kind, ObjectName};
use crate::route::Split;

/// Of a root that was not heard of.
pub(super) fn for_root(root: &ObjectName) -> String {
    format!(
        "Services are not followed at present, so it is not known whether Service {root} exists; \
         what is programmed for it stays until they are"
    )
}

/// Of a claim for some clients only, while it is not known who the pods of this node are.
pub(super) fn for_clients(node: Option<&str>) -> String {
    let (why, remedy) = match node {
        Some(_) => (
            "the pods of the agent's node are not followed at present",
            "until they are",
        ),
        None => (
            "the agent was not told the name of its node",
            "until it is, with --node-name",
        ),
    };
    format!(
        "the object is for some clients only, and {why}, so it is not known who they are; {remedy}, it \
         is in force there for none but those that were told apart before"
    )
}

/// What is not known of a split's leaves, or of other claims on its root; `unknown` has the kind
/// that each leaf waits for.
pub(super) fn for_leaves(split: &Split, kinds: &Kinds, unknown: &[Option<Kind>]) -> String {
    let clauses = kinds.iter().map(|kind| {
        let leaves = split.leaves.iter().zip(unknown);
        let names: Vec<&str> = leaves
            .filter(|(_, unknown)| **unknown == Some(*kind))
            .map(|(leaf, _)| leaf.name.as_str())
            .collect();
        let names = shortened(&names);
        if *kind == Kind::ENDPOINT_SLICE {
            format!("{kind}s are not followed (endpoints of {names} unknown)")
        } else if kind.is_route() {
            format!("{kind}s are not followed (others may split the same Service)")
        } else if names.is_empty() {
            format!("{kind}s are not followed")
        } else {
            format!("{kind}s are not followed ({names} unknown)")
        }
    });
    clauses.collect::<Vec<_>>().join(" and ")
}

/// Names for people, not longer than a line.
fn shortened(names: &[&str]) -> String {
    const MOST: usize = 3;
    let mut text = names
        .iter()
        .take(MOST)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > MOST {
        text += &format!(" and {} more", names.len() - MOST);
    }
    text
}
