//! Which Services have a subset that a claim names: of their pods the labels matter.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::store::{Affected, Store};
use crate::objects::ObjectName;
use crate::route::Claim;

/// Services with subsets, and how many leaves name one. Services of one namespace stand together.
#[derive(Debug, Default)]
pub(super) struct Subsets {
    users: BTreeMap<ObjectName, usize>,
    /// How many of the Services are in each namespace.
    namespaces: BTreeMap<String, usize>,
    /// Whether those are others than were last told.
    has_other_namespaces: bool,
}

impl Subsets {
    /// Takes note of the claims of an object in place of those that it had.
    pub(super) fn replace_claims(&mut self, old: &[Claim], new: &[Claim]) {
        for service in services(new) {
            if count_up(&mut self.users, service) {
                self.has_other_namespaces |= count_up(&mut self.namespaces, &service.namespace);
            }
        }
        for service in services(old) {
            if count_down(&mut self.users, service) {
                self.has_other_namespaces |= count_down(&mut self.namespaces, &service.namespace);
            }
        }
    }

    /// The namespaces of the Services.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.keys().map(String::as_str)
    }

    /// The same, if they are others than were last told.
    pub(super) fn take_namespaces(&mut self) -> Option<BTreeSet<String>> {
        let is_news = std::mem::take(&mut self.has_other_namespaces);
        is_news.then(|| self.namespaces.keys().cloned().collect())
    }

    /// The Services that have any of some pods behind them.
    pub(super) fn with_any_of(
        &self,
        pods: HashMap<String, HashSet<u64>>,
        store: &Store,
    ) -> Vec<Affected> {
        let mut affected = Vec::new();
        for (namespace, pods) in pods {
            let first = ObjectName::new(&*namespace, "");
            let services = self.users.range(first..);
            let services = services.take_while(|(service, _)| service.namespace == namespace);
            let services = services.filter(|(service, _)| store.has_any_of(service, &pods));
            affected.extend(services.map(|(service, _)| Affected::UsersOf(service.clone())));
        }
        affected
    }
}

/// Whether there was none before.
fn count_up<K: Ord + Clone>(counts: &mut BTreeMap<K, usize>, key: &K) -> bool {
    let count = counts.entry(key.clone()).or_default();
    *count += 1;
    *count == 1
}

/// Whether there is none any more.
fn count_down<K: Ord + Clone>(counts: &mut BTreeMap<K, usize>, key: &K) -> bool {
    let Entry::Occupied(mut count) = counts.entry(key.clone()) else {
        return false;
    };
    *count.get_mut() -= 1;
    let is_last = *count.get() == 0;
    if is_last {
        count.remove();
    }
    is_last
}

fn services(claims: &[Claim]) -> impl Iterator<Item = &ObjectName> {
    let splits = claims.iter().filter_map(|claim| claim.split.as_ref());
    let leaves = splits.flat_map(|split| &split.leaves);
    let leaves = leaves.filter(|leaf| leaf.subset.is_some());
    leaves.filter_map(|leaf| leaf.service.as_ref())
}
