//! Objects whose rules others use (Istio's delegates), and those that use them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::index::Routes;
use super::store::Store;
use crate::objects::{Kind, ObjectReference, Objects};
use crate::route::{Delegate, Others, RouteObject};

/// The objects that are translated again when another one changes. All others are forgotten when they
/// are translated.
#[derive(Debug, Default)]
pub(super) struct Delegates {
    /// Delegates, and objects that name some.
    objects: HashMap<ObjectReference, RouteObject>,
    /// By the object that they name, whether it exists or not.
    users: BTreeMap<ObjectReference, BTreeSet<ObjectReference>>,
}

impl Delegates {
    /// Takes note of an object, or that it is gone; the others that this may change, those that it
    /// names and those that name it.
    pub(super) fn replace(
        &mut self,
        reference: &ObjectReference,
        new: Option<&RouteObject>,
    ) -> BTreeSet<ObjectReference> {
        let mut affected = BTreeSet::new();
        if let Some(old) = self.objects.remove(reference) {
            for named in old.content.delegates() {
                if let Some(users) = self.users.get_mut(&named) {
                    users.remove(reference);
                    if users.is_empty() {
                        self.users.remove(&named);
                    }
                }
                affected.insert(named);
            }
        }
        if let Some(new) = new {
            let named = new.content.delegates();
            if new.content.is_delegate() || !named.is_empty() {
                self.objects.insert(reference.clone(), new.clone());
            }
            for named in named {
                let users = self.users.entry(named.clone()).or_default();
                users.insert(reference.clone());
                affected.insert(named);
            }
        }
        affected.extend(self.users.get(reference).into_iter().flatten().cloned());
        affected.remove(reference);
        affected
    }

    /// One of them.
    pub(super) fn get(&self, reference: &ObjectReference) -> Option<&RouteObject> {
        self.objects.get(reference)
    }

    /// All of a kind.
    pub(super) fn of_kind(&self, kind: Kind) -> BTreeSet<ObjectReference> {
        let objects = self.objects.keys().filter(|object| object.is(kind));
        objects.cloned().collect()
    }
}

/// The other objects, to one that is translated.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) delegates: &'a Delegates,
    pub(super) routes: &'a Routes,
    pub(super) store: &'a Store,
}

impl Others for Known<'_> {
    fn delegate(&self, object: &ObjectReference) -> Delegate<'_> {
        let found = self.delegates.get(object);
        if let Some(found) = found.filter(|found| found.content.is_delegate()) {
            return Delegate::Found(found);
        }
        if self.routes.contains_key(object) {
            return Delegate::NotForOthers;
        }
        match object.known_kind() {
            Some(kind) if !self.store.is_settled(kind, &object.name) => Delegate::NotKnownYet,
            _ if self.store.is_refused(object) => Delegate::Unreadable,
            _ => Delegate::Missing,
        }
    }

    fn users_of(&self, object: &ObjectReference) -> Vec<ObjectReference> {
        let users = self.delegates.users.get(object);
        users.into_iter().flatten().cloned().collect()
    }

    fn is_followed(&self, kind: Kind) -> bool {
        self.store.knowledge(kind) == super::Knowledge::Followed
    }
}

/// Objects that are all there is.
#[derive(Debug)]
pub struct Everything<'a> {
    objects: &'a Objects,
    /// By the object that they name.
    users: BTreeMap<ObjectReference, BTreeSet<ObjectReference>>,
}

impl<'a> Everything<'a> {
    /// Of these objects.
    #[must_use]
    pub fn of(objects: &'a Objects) -> Self {
        let mut users: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (user, route) in &objects.routes {
            for named in route.content.delegates() {
                users.entry(named).or_default().insert(user.clone());
            }
        }
        Self { objects, users }
    }
}

impl Others for Everything<'_> {
    fn delegate(&self, object: &ObjectReference) -> Delegate<'_> {
        match self.objects.routes.get(object) {
            Some(found) if found.content.is_delegate() => Delegate::Found(found),
            Some(_) => Delegate::NotForOthers,
            None if self.objects.refused.contains(object) => Delegate::Unreadable,
            None => Delegate::Missing,
        }
    }

    fn users_of(&self, object: &ObjectReference) -> Vec<ObjectReference> {
        let users = self.users.get(object);
        users.into_iter().flatten().cloned().collect()
    }

    fn is_followed(&self, _: Kind) -> bool {
        true
    }
}
