//! What differs between a programmed split and a planned one, and what follows from it.

use splitter_common::pick::mix;

use crate::plan::{Frontend, FrontendPlan};

/// Whether a split needs no change. The object's generation does not count: it moves
/// with every edit of the object, whether it matters here or not.
pub(super) fn same(old: &FrontendPlan, new: &FrontendPlan) -> bool {
    same_names(old, new) && old.decision == new.decision && old.leaves == new.leaves
}

pub(super) fn same_names(old: &FrontendPlan, new: &FrontendPlan) -> bool {
    old.root == new.root
        && old.origin.kind == new.origin.kind
        && old.origin.namespace == new.origin.namespace
        && old.origin.name == new.origin.name
}

/// Whether the same leaves have the same shares, so that counting goes on.
pub(super) fn same_shares(old: &FrontendPlan, new: &FrontendPlan) -> bool {
    old.decision == new.decision
        && old.root == new.root
        && old.leaves.len() == new.leaves.len()
        && old
            .leaves
            .iter()
            .zip(&new.leaves)
            .all(|(old, new)| old.service == new.service && old.share == new.share)
}

/// Whether connections may no longer go to an endpoint that they may go to now.
pub(super) fn loses_endpoints(old: &FrontendPlan, new: &FrontendPlan) -> bool {
    old.leaves.iter().filter(|leaf| leaf.share > 0).any(|old| {
        let new = new.leaves.iter().find(|new| new.service == old.service);
        new.is_none_or(|new| {
            new.share == 0
                || old
                    .endpoints
                    .iter()
                    .any(|endpoint| new.endpoints.binary_search(endpoint).is_err())
        })
    })
}

/// The seed of a split's lattice. Nodes that see the same object go through the same
/// seeds; a node whose leaves came and went (`repeats`) goes on to others, so that a split
/// that is started over and over does not begin at the same leaf each time.
pub(super) fn seed(frontend: Frontend, split: &FrontendPlan, repeats: u64) -> u64 {
    let mut state = 0;
    let mut add = |bytes: &[u8]| {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            state = mix(state ^ u64::from_le_bytes(word));
        }
        state = mix(state ^ bytes.len() as u64);
    };
    add(bytemuck::bytes_of(&frontend.key()));
    add(split.origin.namespace.as_bytes());
    add(split.origin.name.as_bytes());
    add(&split.origin.generation.to_le_bytes());
    add(&repeats.to_le_bytes());
    for leaf in &split.leaves {
        add(leaf.service.as_bytes());
        add(&leaf.share.to_le_bytes());
    }
    state
}
