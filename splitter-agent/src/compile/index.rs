//! Which roots have claims on them, which Services each root depends on, and which roots have to
//! be compiled again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::few::Few;
use super::store::Affected;
use crate::objects::{ObjectName, ObjectReference};
use crate::route::{Claim, Route};

/// The index of dependencies.
#[derive(Debug, Default)]
pub(super) struct Index {
    roots: HashMap<ObjectName, Root>,
    /// The roots whose claims name a Service, themselves included.
    users: HashMap<ObjectName, Few<ObjectName>>,
    dirty: BTreeSet<ObjectName>,
}

/// A root that some claim is about.
#[derive(Debug, Default)]
struct Root {
    claims: Few<ClaimId>,
    /// The Services that the claims name, the root included.
    uses: Few<ObjectName>,
}

/// One of the claims of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClaimId {
    pub(super) object: ObjectReference,
    pub(super) number: usize,
}

/// What is kept of every object that asks for splits.
pub(super) type Routes = BTreeMap<ObjectReference, Route>;

impl Index {
    /// Puts the claims of an object in place of those that it had. Their roots are dirty.
    pub(super) fn replace(
        &mut self,
        object: &ObjectReference,
        old: &[Claim],
        new: &[Claim],
        routes: &Routes,
    ) {
        let mut touched = BTreeSet::new();
        for (number, claim) in old.iter().enumerate() {
            if let Some(root) = self.roots.get_mut(&claim.root) {
                let object = object.clone();
                root.claims.remove(&ClaimId { object, number });
            }
            touched.insert(claim.root.clone());
        }
        for (number, claim) in new.iter().enumerate() {
            let root = self.roots.entry(claim.root.clone()).or_default();
            let object = object.clone();
            root.claims.insert(ClaimId { object, number });
            touched.insert(claim.root.clone());
        }
        for root in touched {
            self.update_uses(&root, routes);
            self.dirty.insert(root);
        }
    }

    /// The claims on a root; `None` if there never were any, or it is forgotten.
    pub(super) fn claims<'a>(
        &'a self,
        root: &ObjectName,
        routes: &'a Routes,
    ) -> Option<Vec<&'a Claim>> {
        let root = self.roots.get(root)?;
        Some(root.claims(routes).collect())
    }

    /// Forgets a root without claims.
    pub(super) fn forget_unclaimed(&mut self, name: &ObjectName) {
        if self
            .roots
            .get(name)
            .is_some_and(|root| root.claims.is_empty())
        {
            self.roots.remove(name);
        }
    }

    /// Marks roots as dirty.
    pub(super) fn mark(&mut self, roots: impl IntoIterator<Item = ObjectName>) {
        self.dirty.extend(roots);
    }

    /// Marks the roots that changes affect as dirty.
    pub(super) fn mark_affected(&mut self, affected: Vec<Affected>) {
        for affected in affected {
            match affected {
                Affected::UsersOf(service) => {
                    let users = self.users.get(&service).into_iter().flatten();
                    self.dirty.extend(users.cloned());
                }
                Affected::Namespace(namespace) => {
                    let roots = self.roots.keys();
                    let roots = roots.filter(|root| root.namespace == namespace);
                    self.dirty.extend(roots.cloned());
                }
                Affected::Everything => self.dirty.extend(self.roots.keys().cloned()),
            }
        }
    }

    /// The dirty roots, which are no longer dirty.
    pub(super) fn take_dirty(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.dirty)
    }

    fn update_uses(&mut self, name: &ObjectName, routes: &Routes) {
        let Some(root) = self.roots.get_mut(name) else {
            return;
        };
        let itself = (!root.claims.is_empty()).then(|| name.clone());
        let splits = root.claims(routes).filter_map(|claim| claim.split.as_ref());
        let leaves = splits.flat_map(|split| &split.leaves);
        let leaves = leaves.filter_map(|leaf| leaf.service.clone());
        let uses = itself.into_iter().chain(leaves).collect();
        let old = std::mem::replace(&mut root.uses, uses);
        for service in root.uses.difference(&old) {
            let users = self.users.entry(service.clone()).or_default();
            users.insert(name.clone());
        }
        for service in old.difference(&root.uses) {
            if let Some(users) = self.users.get_mut(service) {
                users.remove(name);
                if users.is_empty() {
                    self.users.remove(service);
                }
            }
        }
    }
}

impl Root {
    fn claims<'a>(&'a self, routes: &'a Routes) -> impl Iterator<Item = &'a Claim> + use<'a> {
        self.claims
            .iter()
            .filter_map(|id| routes.get(&id.object)?.claims.get(id.number))
    }
}
