//! Which of the claims on one root has which of its frontends.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostics::{Report, Severity};
use super::few::Few;
use super::resolve;
use super::split::{Claim, Ports};
use super::store::Store;
use crate::objects::{ObjectName, Service};
use crate::plan::{Frontend, protocol_name};
use crate::reason;

/// The frontends of each of these claims on a root: of two that cover a port, the first has
/// it. Claims without any are left out.
pub(super) fn stakes<'a>(
    store: &Store,
    root: &ObjectName,
    ranked: &[&'a Claim],
) -> Vec<(&'a Claim, Few<Frontend>)> {
    let Ok(service) = resolve::root(store, root) else {
        return Vec::new();
    };
    let owned = owned(service, ranked);
    ranked
        .iter()
        .zip(owned)
        .filter(|(_, frontends)| !frontends.is_empty())
        .map(|(claim, frontends)| (*claim, frontends.into_iter().collect()))
        .collect()
}

/// The frontends of each of these claims, in their order.
pub(super) fn owned(service: &Service, ranked: &[&Claim]) -> Vec<BTreeSet<Frontend>> {
    let mut owned = vec![BTreeSet::new(); ranked.len()];
    for frontend in resolve::frontends(service) {
        let port = frontend.address.port();
        let owner = ranked.iter().position(|claim| claim.ports.covers(port));
        if let Some(frontends) = owner.and_then(|owner| owned.get_mut(owner)) {
            frontends.insert(frontend);
        }
    }
    owned
}

/// Says of a claim which of its ports other claims on the root have; `false` if it has none
/// of its own.
pub(super) fn tell_losses(
    service: &Service,
    ranked: &[&Claim],
    index: usize,
    report: &mut Report,
) -> bool {
    let Some((claim, before)) = ranked.get(index).zip(ranked.get(..index)) else {
        return false;
    };
    let mut lost: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    let mut keeps_some = false;
    for port in &service.ports {
        if !claim.ports.covers(port.port) {
            continue;
        }
        match before
            .iter()
            .position(|other| other.ports.covers(port.port))
        {
            Some(winner) => {
                let port = format!("{}/{}", port.port, protocol_name(port.protocol));
                lost.entry(winner).or_default().insert(port);
            }
            None => keeps_some = true,
        }
    }
    for (winner, ports) in lost {
        let Some(winner) = before.get(winner) else {
            continue;
        };
        let ports: Vec<String> = ports.into_iter().collect();
        let what = match (claim.ports, winner.ports) {
            (Ports::All, Ports::All) => format!("Service {} is", claim.root),
            _ => format!(
                "{} {} of Service {} {}",
                if ports.len() == 1 { "port" } else { "ports" },
                ports.join(", "),
                claim.root,
                if ports.len() == 1 { "is" } else { "are" },
            ),
        };
        if keeps_some {
            let message = format!(
                "{what} already split by {}, so this TrafficSplit is for the other ports alone; \
                 delete one of the two, or name a port in both",
                elder(winner)
            );
            let (severity, reason) = (Severity::Warning, reason::PORT_TAKEN);
            report.say(&claim.origin, severity, reason, claim.root_field, message);
        } else {
            let message = format!(
                "{what} already split by {}; delete one of the two",
                elder(winner)
            );
            let (severity, reason) = (Severity::Refused, reason::ROOT_TAKEN);
            report.say(&claim.origin, severity, reason, claim.root_field, message);
        }
    }
    keeps_some
}

/// Says of a claim on a root without frontends that another claim comes before it, if one
/// does.
pub(super) fn tell_elder(ranked: &[&Claim], index: usize, report: &mut Report) -> bool {
    let Some((claim, before)) = ranked.get(index).zip(ranked.get(..index)) else {
        return false;
    };
    let winner = before
        .iter()
        .find(|other| match (other.ports, claim.ports) {
            (Ports::All, _) => true,
            (Ports::One(other), Ports::One(own)) => other == own,
            (Ports::One(_), Ports::All) => false,
        });
    let Some(winner) = winner else {
        return false;
    };
    let message = format!(
        "Service {} is already split by {}; delete one of the two",
        claim.root,
        elder(winner)
    );
    let (severity, reason) = (Severity::Refused, reason::ROOT_TAKEN);
    report.say(&claim.origin, severity, reason, claim.root_field, message);
    true
}

/// The object that a claim which comes first is from.
fn elder(winner: &Claim) -> String {
    let origin = &winner.origin;
    format!(
        "{} {}/{}, which is older or, at the same age, comes first by name",
        origin.kind, origin.namespace, origin.name
    )
}
