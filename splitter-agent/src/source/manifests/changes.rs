//! What differs between two snapshots.

use std::collections::BTreeMap;

use crate::compile::Knowledge;
use crate::objects::{Object, ObjectKind, ObjectName, ObjectReference};
use crate::source::{Change, Snapshot};

/// What leads from one snapshot to another.
#[must_use]
pub fn changes(old: &Snapshot, new: &Snapshot) -> Vec<Change> {
    let mut changes = Vec::new();
    let (before, after) = (&*old.objects, &*new.objects);
    difference(
        "Service",
        &before.services,
        &after.services,
        Object::Service,
        &mut changes,
    );
    difference(
        "EndpointSlice",
        &before.endpoint_slices,
        &after.endpoint_slices,
        Object::EndpointSlice,
        &mut changes,
    );
    difference(
        "TrafficSplit",
        &before.traffic_splits,
        &after.traffic_splits,
        Object::TrafficSplit,
        &mut changes,
    );
    difference(
        "Node",
        &before.nodes,
        &after.nodes,
        Object::Node,
        &mut changes,
    );
    for object in before.refused.difference(&after.refused) {
        if !after.contains_reference(object) {
            changes.push(Change::Deleted(object.clone()));
        }
    }
    let unreadable = after.refused.difference(&before.refused);
    changes.extend(unreadable.cloned().map(Change::Unreadable));
    if old.problems != new.problems {
        changes.push(Change::Problems(new.problems.clone()));
    }
    // A file that could not be read may hold an object of any kind.
    let (knowledge, extent) = if old.complete || new.complete {
        (Knowledge::Followed, Change::Complete)
    } else {
        (Knowledge::Stale, Change::Partial)
    };
    changes.extend(ObjectKind::ALL.map(|kind| Change::Known(kind, knowledge)));
    changes.push(extent);
    changes
}

fn difference<T: Clone + PartialEq>(
    kind: &str,
    before: &BTreeMap<ObjectName, T>,
    after: &BTreeMap<ObjectName, T>,
    object: impl Fn(T) -> Object,
    changes: &mut Vec<Change>,
) {
    for name in before.keys().filter(|name| !after.contains_key(name)) {
        changes.push(Change::Deleted(ObjectReference {
            kind: kind.to_owned(),
            name: name.clone(),
        }));
    }
    for (name, new) in after {
        if before.get(name) != Some(new) {
            changes.push(Change::Put(object(new.clone())));
        }
    }
}
