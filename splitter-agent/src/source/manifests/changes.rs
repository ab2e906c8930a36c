//! What differs between two snapshots.

use std::collections::BTreeMap;

use crate::compile::Knowledge;
use crate::objects::{Kind, Object, ObjectName, ObjectReference, Pod};
use crate::source::{Change, NodePod, Snapshot};

/// What leads from one snapshot to another.
#[must_use]
pub fn changes(old: &Snapshot, new: &Snapshot) -> Vec<Change> {
    let mut changes = Vec::new();
    let (before, after) = (&*old.objects, &*new.objects);
    let named = |kind| move |name: &ObjectName| ObjectReference::new(kind, name.clone());
    difference(
        &before.services,
        &after.services,
        named(Kind::SERVICE),
        Object::Service,
        &mut changes,
    );
    difference(
        &before.endpoint_slices,
        &after.endpoint_slices,
        named(Kind::ENDPOINT_SLICE),
        Object::EndpointSlice,
        &mut changes,
    );
    difference(
        &before.nodes,
        &after.nodes,
        named(Kind::NODE),
        Object::Node,
        &mut changes,
    );
    difference(
        &before.pods,
        &after.pods,
        named(Kind::POD),
        Object::Pod,
        &mut changes,
    );
    difference(
        &before.destination_rules,
        &after.destination_rules,
        named(Kind::DESTINATION_RULE),
        |rule| Object::DestinationRule(Box::new(rule)),
        &mut changes,
    );
    difference(
        &before.reference_grants,
        &after.reference_grants,
        named(Kind::REFERENCE_GRANT),
        Object::ReferenceGrant,
        &mut changes,
    );
    difference(
        &before.routes,
        &after.routes,
        ObjectReference::clone,
        Object::Route,
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
    changes.extend(Kind::known().map(|kind| Change::Known(kind, knowledge)));
    changes.push(extent);
    changes
}

/// What leads from one snapshot to another of the pods of a node. A pod without `spec.nodeName` is of
/// any node.
#[must_use]
pub fn node_pod_changes(old: &Snapshot, new: &Snapshot, node: &str) -> Vec<Change> {
    let of = |snapshot: &Snapshot| -> BTreeMap<String, NodePod> {
        let pods = snapshot.objects.pods.values();
        let is_here = |pod: &&Pod| pod.on_node.node.as_deref().is_none_or(|it| it == node);
        let pods = pods.filter(is_here).filter_map(NodePod::of);
        pods.map(|pod| (pod.uid.clone(), pod)).collect()
    };
    let (before, after) = (of(old), of(new));
    let gone = before.keys().filter(|uid| !after.contains_key(*uid));
    let mut changes: Vec<Change> = gone.cloned().map(Change::NodePodGone).collect();
    for (uid, pod) in after {
        if before.get(&uid) != Some(&pod) {
            changes.push(Change::NodePod(pod));
        }
    }
    changes.push(Change::NodePodsKnown(old.complete || new.complete));
    changes
}

fn difference<K: Ord, T: Clone + PartialEq>(
    before: &BTreeMap<K, T>,
    after: &BTreeMap<K, T>,
    reference: impl Fn(&K) -> ObjectReference,
    object: impl Fn(T) -> Object,
    changes: &mut Vec<Change>,
) {
    for name in before.keys().filter(|name| !after.contains_key(name)) {
        changes.push(Change::Deleted(reference(name)));
    }
    for (name, new) in after {
        if before.get(name) != Some(new) {
            changes.push(Change::Put(object(new.clone())));
        }
    }
}
