//! Claims whose destinations have a policy that no connection can honour.

use std::borrow::Cow;
use std::collections::BTreeSet;

use splitter_common::layout::Protocol;

use super::diagnostics::{Diagnostics, Severity};
use super::knowledge::Knowledge;
use super::roots::frontends_by_port;
use super::store::Store;
use crate::objects::{Kind, Service};
use crate::plan::Frontend;
use crate::reason;
use crate::route::{Claim, Destinations, Split};

/// The claims, of which those are refused whose object asks for what cannot be done, in one of them
/// or another: it is not half applied. `None` if there are none of these.
pub(super) fn without_impossible<'a>(
    store: &Store,
    service: &Service,
    claims: &[&'a Claim],
    diagnostics: &mut Diagnostics,
) -> Option<Vec<Cow<'a, Claim>>> {
    let mut impossible = BTreeSet::new();
    for (index, claim) in claims.iter().enumerate() {
        if let Some(split) = &claim.split
            && split.destinations == Destinations::Hosts
        {
            // Rules that no connection comes to refuse nothing. The claims of one object are in a row.
            let before = claims.get(..index).unwrap_or_default().iter().rev();
            let before = before.take_while(|other| other.origin == claim.origin);
            let before: Vec<_> = before
                .filter(|other| other.clients.cover(&claim.clients))
                .collect();
            let is_dead = |port| before.iter().any(|other| other.ports.covers(port));
            // Those too that an earlier claim of another object has, which may be refused itself.
            let frontends = frontends_by_port(service)
                .filter(|(port, _)| claim.ports.covers(port) && !is_dead(port))
                .map(|(_, frontend)| frontend)
                .collect();
            if is_impossible(store, claim, split, &frontends, diagnostics) {
                impossible.insert(&claim.origin);
            }
        }
    }
    if impossible.is_empty() {
        return None;
    }
    let refused = |claim: &'a Claim| Claim {
        split: None,
        ..claim.clone()
    };
    let claims = claims
        .iter()
        .map(|claim| match impossible.contains(&claim.origin) {
            true => Cow::Owned(refused(claim)),
            false => Cow::Borrowed(*claim),
        });
    Some(claims.collect())
}

/// Whether a policy for a leaf asks for what cannot be done to its connections; says so.
fn is_impossible(
    store: &Store,
    claim: &Claim,
    split: &Split,
    frontends: &BTreeSet<Frontend>,
    diagnostics: &mut Diagnostics,
) -> bool {
    // One that comes before it may not have been told of.
    if store.knowledge(Kind::DESTINATION_RULE) == Knowledge::Incomplete {
        return false;
    }
    let ports: BTreeSet<Frontend> = frontends
        .iter()
        .filter(|frontend| frontend.protocol == Protocol::Tcp)
        .copied()
        .collect();
    let mut is_impossible = false;
    for leaf in split.leaves.iter().filter(|leaf| !leaf.weight.is_zero()) {
        let mut found = ports.iter().filter_map(|frontend| {
            store.impossible(split, leaf, store.port_of(split, leaf, *frontend))
        });
        if let Some((impossible, rule)) = found.next() {
            is_impossible = true;
            let message = format!(
                "{} of DestinationRule {} {}, so nothing of this {} is applied to Service {}; remove it \
                 there, or this destination here",
                impossible.field, rule.name, impossible.what, claim.origin.kind, claim.root
            );
            let (severity, reason) = (Severity::Refused, reason::POLICY_UNSUPPORTED);
            let field = format!("{}.destination", leaf.field);
            diagnostics.emit(&claim.origin, severity, reason, field, message);
        }
    }
    is_impossible
}
