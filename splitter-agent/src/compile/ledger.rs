//! The diagnostics of every object, from all who emit some.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::diagnostics::Diagnostic;
use super::sorted_vec_set::SortedVecSet;
use crate::objects::ObjectReference;

/// What one producer emits; each diagnostic is shared with the [`Ledger`].
pub(super) type Emitted = SortedVecSet<Arc<Diagnostic>>;

/// The diagnostics of every object, and how many producers emit each.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    diagnostics: BTreeMap<ObjectReference, BTreeMap<Arc<Diagnostic>, usize>>,
    /// Objects of which something changed.
    touched: BTreeSet<ObjectReference>,
}

impl Ledger {
    /// The diagnostics of an object, sorted.
    pub(super) fn of(&self, object: &ObjectReference) -> impl Iterator<Item = &Arc<Diagnostic>> {
        let of_object = self.diagnostics.get(object).into_iter();
        of_object.flat_map(BTreeMap::keys)
    }

    /// The objects that have diagnostics.
    pub(super) fn objects(&self) -> impl Iterator<Item = &ObjectReference> {
        self.diagnostics.keys()
    }

    /// Notes that an object changed.
    pub(super) fn touch(&mut self, object: ObjectReference) {
        self.touched.insert(object);
    }

    /// The objects that changed, or whose diagnostics did, since the last time.
    pub(super) fn take_touched(&mut self) -> BTreeSet<ObjectReference> {
        std::mem::take(&mut self.touched)
    }

    /// Replaces what a producer emits.
    pub(super) fn replace(&mut self, old: &Emitted, new: &Emitted) {
        for diagnostic in new.difference(old) {
            let of_object = self.diagnostics.entry(diagnostic.object.clone());
            let count = of_object.or_default().entry(Arc::clone(diagnostic));
            let count = count.or_default();
            *count += 1;
            if *count == 1 {
                self.touched.insert(diagnostic.object.clone());
            }
        }
        for diagnostic in old.difference(new) {
            let Some(of_object) = self.diagnostics.get_mut(&diagnostic.object) else {
                continue;
            };
            let Some(count) = of_object.get_mut(diagnostic) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                of_object.remove(diagnostic);
                self.touched.insert(diagnostic.object.clone());
            }
            if of_object.is_empty() {
                self.diagnostics.remove(&diagnostic.object);
            }
        }
    }
}
