//! Which roots have claims on them, which Services each root depends on, and which roots have to
//! be compiled again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::sorted_vec_set::SortedVecSet;
use super::store::Affected;
use crate::objects::{ObjectName, ObjectReference};
use crate::route::{Claim, Route};

/// The index of dependencies.
#[derive(Debug, Default)]
pub(super) struct Index {
    roots: HashMap<ObjectName, Root>,
    /// The roots whose claims name a Service, themselves included.
    users: HashMap<ObjectName, SortedVecSet<ObjectName>>,
    dirty: BTreeSet<ObjectName>,
    /// What makes many roots dirty: they are looked up when they are taken, once however many changes
    /// there were.
    wide: BTreeSet<Affected>,
}

/// A root that some claim is about.
#[derive(Debug, Default)]
struct Root {
    claims: SortedVecSet<ClaimId>,
    /// The Services that the claims name, and how many times: a claim that comes or goes costs
    /// what it names itself, however many others there are.
    uses: BTreeMap<ObjectName, usize>,
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
    pub(super) fn replace(&mut self, object: &ObjectReference, old: &[Claim], new: &[Claim]) {
        // New ones first, so that a Service that is named by both is not forgotten in between.
        for (number, claim) in new.iter().enumerate() {
            let root = self.roots.entry(claim.root.clone()).or_default();
            let object = object.clone();
            root.claims.insert(ClaimId { object, number });
            for service in services(claim) {
                let count = root.uses.entry(service.clone()).or_default();
                *count += 1;
                if *count == 1 {
                    let users = self.users.entry(service.clone()).or_default();
                    users.insert(claim.root.clone());
                }
            }
            self.dirty.insert(claim.root.clone());
        }
        for (number, claim) in old.iter().enumerate() {
            if let Some(root) = self.roots.get_mut(&claim.root) {
                if new.get(number).is_none_or(|new| new.root != claim.root) {
                    let object = object.clone();
                    root.claims.remove(&ClaimId { object, number });
                }
                for service in services(claim) {
                    let Some(count) = root.uses.get_mut(service) else {
                        continue;
                    };
                    *count -= 1;
                    if *count == 0 {
                        root.uses.remove(service);
                        forget_user(&mut self.users, service, &claim.root);
                    }
                }
            }
            self.dirty.insert(claim.root.clone());
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
            if matches!(affected, Affected::UsersOf(_)) {
                let roots: Vec<ObjectName> = self.affected(&affected).cloned().collect();
                self.dirty.extend(roots);
            } else {
                self.wide.insert(affected);
            }
        }
    }

    /// The dirty roots, which are no longer dirty.
    pub(super) fn take_dirty(&mut self) -> BTreeSet<ObjectName> {
        let mut dirty = std::mem::take(&mut self.dirty);
        // A root that a change affected and would not any more is dirty because of that.
        for affected in std::mem::take(&mut self.wide) {
            dirty.extend(self.affected(&affected).cloned());
        }
        dirty
    }

    /// The roots that a change may affect.
    fn affected<'a>(
        &'a self,
        affected: &'a Affected,
    ) -> Box<dyn Iterator<Item = &'a ObjectName> + 'a> {
        match affected {
            Affected::UsersOf(service) => Box::new(self.users.get(service).into_iter().flatten()),
            Affected::UsersIn(namespace) => {
                let users = self.users.iter();
                let users = users.filter(move |(service, _)| service.namespace == *namespace);
                Box::new(users.flat_map(|(_, roots)| roots))
            }
            Affected::Namespace(namespace) => {
                let roots = self.roots.keys();
                Box::new(roots.filter(move |root| root.namespace == *namespace))
            }
            Affected::Everything => Box::new(self.roots.keys()),
        }
    }
}

/// The Services that a claim names.
fn services(claim: &Claim) -> impl Iterator<Item = &ObjectName> {
    let leaves = claim.split.iter().flat_map(|split| &split.leaves);
    let leaves = leaves.filter_map(|leaf| leaf.service.as_ref());
    std::iter::once(&claim.root).chain(leaves)
}

fn forget_user(
    users: &mut HashMap<ObjectName, SortedVecSet<ObjectName>>,
    service: &ObjectName,
    root: &ObjectName,
) {
    if let Some(of_service) = users.get_mut(service) {
        of_service.remove(root);
        if of_service.is_empty() {
            users.remove(service);
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
