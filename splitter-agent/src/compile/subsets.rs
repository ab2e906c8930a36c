//! Which Services have a subset that a claim names: of their pods the labels matter.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::store::{Affected, Store};
use crate::objects::ObjectName;
use crate::route::Claim;

/// Services with subsets, and how many leaves name one. Services of one namespace stand together.
#[derive(Debug, Default)]
pub(super) struct Subsets {
    users: BTreeMap<ObjectName, usize>,
}

impl Subsets {
    /// Takes note of the claims of an object in place of those that it had.
    pub(super) fn replace_claims(&mut self, old: &[Claim], new: &[Claim]) {
        for service in services(new) {
            *self.users.entry(service.clone()).or_default() += 1;
        }
        for service in services(old) {
            if let Some(count) = self.users.get_mut(service) {
                *count -= 1;
                if *count == 0 {
                    self.users.remove(service);
                }
            }
        }
    }

    /// The namespaces of the Services, each once.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &str> {
        let mut last = None;
        self.users.keys().filter_map(move |service| {
            let namespace = service.namespace.as_str();
            (last.replace(namespace) != Some(namespace)).then_some(namespace)
        })
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

fn services(claims: &[Claim]) -> impl Iterator<Item = &ObjectName> {
    let splits = claims.iter().filter_map(|claim| claim.split.as_ref());
    let leaves = splits.flat_map(|split| &split.leaves);
    let leaves = leaves.filter(|leaf| leaf.subset.is_some());
    leaves.filter_map(|leaf| leaf.service.as_ref())
}
