//! What people are told beside the decisions themselves.

use splitter_common::layout::{LeafState, Reason};

use super::decide::{counted, decision, states};
use super::diagnostics::{Diagnostics, Severity};
use super::endpoints::LeafEndpoints;
use super::findings::{Finding, Findings, Share, Subject};
use super::knowledge::Knowledge;
use super::overlap::{self, Part};
use super::shares::shares;
use super::slices;
use super::store::Store;
use crate::objects::{AddressFamily, Kind, Service};
use crate::plan::{Decision, Frontend};
use crate::reason;
use crate::route::{Claim, Split, UnreadyShare};

/// What is to be known of the Services of a split.
pub(super) fn emit_service_notes(
    store: &Store,
    claim: &Claim,
    split: &Split,
    service: &Service,
    diagnostics: &mut Diagnostics,
) {
    note_root(store, claim, service, diagnostics);
    note_node_local(store, claim, split, service, diagnostics);
    if service.session_affinity_client_ip {
        diagnostics.emit(
            &claim.origin,
            Severity::Warning,
            reason::SESSION_AFFINITY_IGNORED,
            &claim.root_field,
            format!(
                "Service {} has sessionAffinity ClientIP, and a split sends each connection of a \
                 client by the weights; remove sessionAffinity to say so",
                claim.root
            ),
        );
    }
}

/// Tells of a root that has nobody behind it but the leaves of its splits.
fn note_root(store: &Store, claim: &Claim, service: &Service, diagnostics: &mut Diagnostics) {
    let mut slices = store.slices(&service.name);
    let has_endpoints = slices.any(|slice| !slice.endpoints.is_empty());
    let is_known = store.knowledge(Kind::ENDPOINT_SLICE) == Knowledge::Followed;
    if service.has_selector || has_endpoints || !is_known {
        return;
    }
    diagnostics.emit(
        &claim.origin,
        Severity::Note,
        reason::ROOT_WITHOUT_ENDPOINTS,
        &*claim.root_field,
        format!(
            "Service {} has neither a selector nor endpoints of its own, so clients whose connections \
             are not split (by NodePort, over UDP, from a node without an agent) find nobody behind \
             it; give it a selector that chooses the pods of the backends if there are such clients",
            claim.root
        ),
    );
}

/// Tells of Services whose connections stay on the node. What that comes to differs from node
/// to node, and what is said does not.
fn note_node_local(
    store: &Store,
    claim: &Claim,
    split: &Split,
    root: &Service,
    diagnostics: &mut Diagnostics,
) {
    let mut say = |field: &str, message| {
        let (severity, reason) = (Severity::Note, reason::NODE_LOCAL);
        diagnostics.emit(&claim.origin, severity, reason, field, message);
    };
    let others = match split.unready_share {
        UnreadyShare::GivenAway(_) => "the other backends share its connections",
        UnreadyShare::Refused => "its share of the connections is refused",
    };
    if root.is_node_local {
        say(
            &claim.root_field,
            format!(
                "Service {} has internalTrafficPolicy Local, so connections stay on the node that they \
                 are made on: where a backend has no ready endpoint, {others}",
                claim.root
            ),
        );
        return;
    }
    for leaf in &split.leaves {
        let service = leaf.service.as_ref().and_then(|name| store.service(name));
        if let Some(service) = service.filter(|service| service.is_node_local) {
            say(
                &leaf.field,
                format!(
                    "Service {} has internalTrafficPolicy Local, so it gets connections only on nodes \
                     where it has a ready endpoint; on the others, {others}",
                    service.name
                ),
            );
        }
    }
}

/// What people are told of the decision, in the end for all frontends together.
pub(super) fn note(
    store: &Store,
    split: &Split,
    frontend: Frontend,
    offers: &[LeafEndpoints],
    findings: &mut Findings,
) {
    let states = states(split, offers);
    let decision = decision(split, frontend.protocol, offers, &states);
    if decision == Decision::Split
        && let Some(why) = overlap(split, offers, &states)
    {
        let subject = Subject::Overlap;
        findings.add(Finding { subject, why }, frontend);
    }
    let whole = match decision {
        Decision::Split => None,
        Decision::Refuse(reason) | Decision::PassThrough(reason) => Some(reason),
    };
    // What is said of the frontend as a whole need not be said of each leaf.
    let leaves = if matches!(whole, None | Some(Reason::NoReadyEndpoints)) {
        states.as_slice()
    } else {
        &[]
    };
    let mut not_ready = Vec::new();
    for (leaf, state) in leaves.iter().enumerate() {
        let why = match state {
            LeafState::ServiceMissing | LeafState::PortMissing | LeafState::FamilyMissing => {
                String::new()
            }
            LeafState::NoReadyEndpoints if offers.get(leaf) == Some(&LeafEndpoints::NoSubset) => {
                let subject = Subject::NoSubset(leaf);
                let why = String::new();
                findings.add(Finding { subject, why }, frontend);
                continue;
            }
            LeafState::NoReadyEndpoints => {
                let why = why_not_ready(store, split, leaf, frontend).unwrap_or_default();
                if whole.is_some() {
                    not_ready.push((leaf, why));
                    continue;
                }
                why
            }
            LeafState::Ready
            | LeafState::Terminating
            | LeafState::WeightZero
            | LeafState::NotKnownYet => continue,
        };
        let subject = Subject::Leaf {
            leaf,
            state: *state,
            share: match (whole, split.unready_share) {
                (Some(_), _) => Share::LikeAll,
                (None, UnreadyShare::GivenAway(_)) => Share::GivenAway,
                (None, UnreadyShare::Refused) => Share::Refused,
            },
        };
        findings.add(Finding { subject, why }, frontend);
    }
    if let Some(reason) = whole {
        let finding = Finding {
            subject: Subject::Frontend(reason),
            why: list_not_ready(split, &not_ready),
        };
        findings.add(finding, frontend);
    }
}

/// What people are told of endpoints that are behind more than one leaf.
fn overlap(split: &Split, offers: &[LeafEndpoints], states: &[LeafState]) -> Option<String> {
    let shares = shares(&counted(split, states));
    let parts: Vec<Part<'_>> = split
        .leaves
        .iter()
        .zip(shares)
        .zip(offers)
        .map(|((leaf, share), offer)| Part {
            name: &leaf.name,
            share,
            endpoints: offer.endpoints(),
        })
        .collect();
    overlap::describe(&parts)
}

/// Why a leaf has no ready endpoint for a frontend.
fn why_not_ready(store: &Store, split: &Split, leaf: usize, frontend: Frontend) -> Option<String> {
    let leaf = split.leaves.get(leaf)?;
    let service = store.service(leaf.service.as_ref()?)?;
    let port = service.port(store.port_of(split, leaf, frontend), frontend.protocol)?;
    let family = AddressFamily::of(&frontend.address.ip());
    if let Some(subset) = &leaf.subset
        && store.has_ready(split, leaf, port, family)
    {
        return Some(format!(
            "no pod with the labels of subset {subset} is one of its ready endpoints"
        ));
    }
    Some(slices::why_none_is_ready(store, service, port, family))
}

/// The reasons of the first leaves, for one line.
fn list_not_ready(split: &Split, not_ready: &[(usize, String)]) -> String {
    const MOST: usize = 3;
    let mut reasons: Vec<String> = not_ready
        .iter()
        .take(MOST)
        .filter_map(|(leaf, why)| Some(format!("{}: {why}", split.leaves.get(*leaf)?.name)))
        .collect();
    if not_ready.len() > MOST {
        reasons.push(format!("and {} more", not_ready.len() - MOST));
    }
    reasons.join("; ")
}
