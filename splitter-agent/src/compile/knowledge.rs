//! How much is known of each kind of objects: what has not been heard of is absent only if it
//! would have been heard of.

use std::collections::{BTreeMap, BTreeSet};

use crate::objects::Kind;

/// How much is known of a kind of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Knowledge {
    /// Objects that exist have not been told of yet; of objects that belong together, such as
    /// the EndpointSlices of a Service, perhaps only some have been.
    Incomplete,
    /// What has been told of was whole at some time. Changes may have been missed since, so
    /// absence proves nothing.
    Stale,
    /// All objects have been told of, and so is every change.
    #[default]
    Followed,
}

/// What is known of every kind. By default every kind is followed, as when objects are judged
/// offline.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownKinds(BTreeMap<Kind, Knowledge>);

/// Kinds that a decision waits for.
pub type Kinds = BTreeSet<Kind>;

impl KnownKinds {
    pub(super) fn of(&self, kind: Kind) -> Knowledge {
        self.0.get(&kind).copied().unwrap_or_default()
    }

    /// What was known of it before.
    pub(super) fn set(&mut self, kind: Kind, knowledge: Knowledge) -> Knowledge {
        self.0.insert(kind, knowledge).unwrap_or_default()
    }

    /// Whether an object that was not heard of does not exist.
    pub(super) fn is_followed(&self, kind: Kind) -> bool {
        self.of(kind) == Knowledge::Followed
    }
}
