//! From the destinations of a rule to leaves.

use std::collections::{BTreeMap, HashMap, HashSet};

use splitter_common::layout::MAX_LEAVES;

use super::super::quoted;
use super::{Translator, host};
use crate::compile::{Diagnostics, Severity};
use crate::objects::istio::virtual_service::{Destination, Rule};
use crate::objects::{ObjectName, Weight, inert};
use crate::reason;
use crate::route::Leaf;

/// What a destination is: the Service, or else the host as it is written; subset and port.
pub(super) type Target = (Result<ObjectName, String>, Option<String>, Option<u16>);

impl Translator<'_> {
    /// The leaves in the order of the destinations, each once; `None` if there are too many, after
    /// saying so.
    pub(super) fn leaves(&self, rule: &Rule, diagnostics: &mut Diagnostics) -> Option<Vec<Leaf>> {
        let mut leaves: Vec<Leaf> = Vec::with_capacity(rule.route.len());
        let mut known: HashMap<Target, usize> = HashMap::with_capacity(rule.route.len());
        let mut names: HashSet<String> = HashSet::with_capacity(rule.route.len());
        for destination in &rule.route {
            let target = self.target(destination);
            let weight = weight(rule, destination);
            if let Err(error) = &self.service_of(destination) {
                let (severity, what) = if weight.is_zero() {
                    (
                        Severity::Note,
                        "its weight is 0, so no connection is for it",
                    )
                } else {
                    (Severity::Warning, "its share of the connections is refused")
                };
                let message = format!("{} {error} ({what})", quoted(&destination.host));
                let field = format!("{}.destination.host", destination.field);
                self.emit(
                    diagnostics,
                    severity,
                    reason::HOST_NOT_FOUND,
                    field,
                    message,
                );
            }
            let again = known.get(&target).copied();
            if let Some(leaf) = again.and_then(|index| leaves.get_mut(index)) {
                leaf.weight = leaf.weight.plus(weight);
                self.emit(
                    diagnostics,
                    Severity::Warning,
                    reason::DUPLICATE_BACKEND,
                    format!("{}.destination", destination.field),
                    format!(
                        "is {} again, as {} is, so their weights are added up; write one destination \
                         with the sum",
                        quoted(&leaf.name),
                        leaf.field
                    ),
                );
                continue;
            }
            let mut name = self.name(&target);
            if names.contains(&name) {
                // Only the port tells them apart.
                name += &target.2.map_or_else(String::new, |port| format!(":{port}"));
            }
            if names.contains(&name) {
                // What is written in two ways, or only looks like the other one.
                let mut numbered = (2..).map(|number: u32| format!("{name}#{number}"));
                let free = numbered.find(|name| !names.contains(name));
                name = free.unwrap_or(name);
            }
            names.insert(name.clone());
            leaves.push(Leaf {
                name,
                service: target.0.clone().ok(),
                port: target.2,
                subset: target.1.clone(),
                waits_for: None,
                weight,
                field: destination.field.clone(),
            });
            known.insert(target, leaves.len() - 1);
        }
        if leaves.len() > MAX_LEAVES as usize {
            let field = format!("{}.route", rule.field);
            let message = format!(
                "has {} different destinations, and a split can have {MAX_LEAVES}; remove some",
                leaves.len()
            );
            self.refuse(diagnostics, reason::TOO_MANY_BACKENDS, field, message);
            return None;
        }
        Some(leaves)
    }

    fn service_of(&self, destination: &Destination) -> Result<ObjectName, host::NoService> {
        let own = &self.origin.namespace;
        let namespace = destination.namespace.as_ref().unwrap_or(own);
        host::service(&destination.host, namespace, self.cluster_domain)
    }

    fn target(&self, destination: &Destination) -> Target {
        let service = self.service_of(destination);
        let service = service.map_err(|_| destination.host.to_ascii_lowercase());
        (service, destination.subset.clone(), destination.port)
    }

    /// A name for reports: `reviews/v1`, or `reviews.prod/v1` for another namespace.
    fn name(&self, (service, subset, _): &Target) -> String {
        let mut name = match service {
            Ok(service) if service.namespace == self.origin.namespace => service.name.clone(),
            Ok(service) => format!("{}.{}", service.name, service.namespace),
            // Not a name, but reports show it as one.
            Err(host) => inert(host).into_owned(),
        };
        if let Some(subset) = subset {
            name += "/";
            name += &inert(subset);
        }
        name
    }
}

/// One that is alone gets everything, whatever its weight.
fn weight(rule: &Rule, destination: &Destination) -> Weight {
    if rule.route.len() == 1 {
        Weight::whole(100)
    } else {
        Weight::whole(destination.weight)
    }
}

/// The shares of a rule in a form in which equal ones are equal; `None` if not all of its connections go
/// to destinations.
pub(super) fn shares(translator: &Translator<'_>, rule: &Rule) -> Option<Vec<(Target, u128)>> {
    if rule.route.is_empty() || rule.delegate.is_some() {
        return None;
    }
    let mut shares: BTreeMap<Target, u128> = BTreeMap::new();
    for destination in &rule.route {
        let weight = weight(rule, destination).nanos();
        *shares.entry(translator.target(destination)).or_default() += weight;
    }
    shares.retain(|_, weight| *weight > 0);
    Some(normalised(shares.into_iter().collect()))
}

/// Whether two rules send the same shares of connections to the same destinations.
pub(super) fn is_same(translator: &Translator<'_>, one: &Rule, other: &Rule) -> bool {
    let one = shares(translator, one);
    one.is_some() && one == shares(translator, other)
}

/// Leaves in a form in which equal splits are equal.
pub(super) fn normal(leaves: &[Leaf]) -> Vec<(Target, u128)> {
    let leaves = leaves.iter().filter(|leaf| !leaf.weight.is_zero());
    let mut shares: Vec<(Target, u128)> = leaves
        .map(|leaf| {
            let service = leaf.service.clone().ok_or_else(|| leaf.name.clone());
            let target = (service, leaf.subset.clone(), leaf.port);
            (target, leaf.weight.nanos())
        })
        .collect();
    shares.sort();
    normalised(shares)
}

/// The same ratios in the smallest numbers.
fn normalised<T>(mut shares: Vec<(T, u128)>) -> Vec<(T, u128)> {
    let divisor = shares.iter().fold(0, |divisor, (_, weight)| {
        let (mut one, mut other) = (divisor, *weight);
        while other != 0 {
            (one, other) = (other, one % other);
        }
        one
    });
    if divisor > 0 {
        shares.iter_mut().for_each(|(_, weight)| *weight /= divisor);
    }
    shares
}
