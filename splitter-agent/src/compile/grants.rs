//! Whether backends of other namespaces may be used, where ReferenceGrants are required.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::diagnostics::{Diagnostics, Severity};
use super::knowledge::Knowledge;
use super::store::{Affected, Store};
use crate::objects::{Kind, ObjectName, ReferenceGrant};
use crate::reason;
use crate::route::{Claim, Destinations, Leaf};

/// ReferenceGrants, by namespace and name.
#[derive(Clone, Debug, Default)]
pub(super) struct Grants(HashMap<String, BTreeMap<String, ReferenceGrant>>);

impl Grants {
    pub(super) fn put(&mut self, grant: ReferenceGrant) -> Vec<Affected> {
        let namespace = grant.name.namespace.clone();
        let of_namespace = self.0.entry(namespace.clone()).or_default();
        let name = grant.name.name.clone();
        if of_namespace.get(&name) == Some(&grant) {
            return Vec::new();
        }
        of_namespace.insert(name, grant);
        vec![Affected::UsersIn(namespace)]
    }

    pub(super) fn remove(&mut self, name: &ObjectName) -> Vec<Affected> {
        let Some(of_namespace) = self.0.get_mut(&name.namespace) else {
            return Vec::new();
        };
        let was_there = of_namespace.remove(&name.name).is_some();
        if of_namespace.is_empty() {
            self.0.remove(&name.namespace);
        }
        let affected = was_there.then(|| Affected::UsersIn(name.namespace.clone()));
        affected.into_iter().collect()
    }

    fn permit(&self, kind: Kind, namespace: &str, service: &ObjectName) -> bool {
        let grants = self.0.get(&service.namespace);
        let mut grants = grants.into_iter().flat_map(BTreeMap::values);
        grants.any(|grant| grant.permits(kind, namespace, &service.name))
    }
}

/// The claims without those Services that they may not use, after saying so; `None` if they may use
/// all of them. Such a leaf keeps its share.
pub(super) fn permitted<'a>(
    store: &Store,
    claims: &[&'a Claim],
    diagnostics: &mut Diagnostics,
) -> Option<Vec<Cow<'a, Claim>>> {
    let is_denied = |claim: &Claim, leaf: &Leaf| {
        let is_required = claim
            .split
            .as_ref()
            .is_some_and(|split| split.destinations == Destinations::GrantedServices);
        let kind = Kind::from_name(claim.origin.kind);
        let namespace = &claim.origin.namespace;
        let service = leaf.service.as_ref();
        let service = service.filter(|service| is_required && service.namespace != *namespace);
        service
            .zip(kind)
            .is_some_and(|(service, kind)| !store.grants.permit(kind, namespace, service))
    };
    let leaves = |claim: &'a Claim| claim.split.iter().flat_map(|split| &split.leaves);
    let mut all = claims.iter();
    if !all.any(|claim| leaves(claim).any(|leaf| is_denied(claim, leaf))) {
        return None;
    }
    let is_known = store.knowledge(Kind::REFERENCE_GRANT) == Knowledge::Followed;
    let claims = claims.iter().map(|claim| {
        let denied: Vec<bool> = leaves(claim).map(|leaf| is_denied(claim, leaf)).collect();
        if !denied.contains(&true) {
            return Cow::Borrowed(*claim);
        }
        let mut claim = Claim::clone(claim);
        let (origin, split) = (&claim.origin, &mut claim.split);
        let leaves = split.iter_mut().flat_map(|split| &mut split.leaves);
        for (leaf, _) in leaves.zip(denied).filter(|(_, is_denied)| *is_denied) {
            let Some(service) = leaf.service.take() else {
                continue;
            };
            if !is_known {
                leaf.waits_for = Some(Kind::REFERENCE_GRANT);
                continue;
            }
            let refused = if leaf.weight.is_zero() {
                "it is left out"
            } else {
                "its share of the connections is refused"
            };
            let message = format!(
                "is Service {service} of another namespace, and no ReferenceGrant there lets {}s of \
                 namespace {} refer to it, so {refused}; write one in namespace {}",
                origin.kind, origin.namespace, service.namespace
            );
            let (severity, reason) = (Severity::Warning, reason::REF_NOT_PERMITTED);
            diagnostics.emit(origin, severity, reason, &*leaf.field, message);
        }
        Cow::Owned(claim)
    });
    Some(claims.collect())
}
