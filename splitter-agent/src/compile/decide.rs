//! What becomes of connections to one frontend.

use splitter_common::layout::{LeafState, Protocol, Reason};

use super::endpoints::{LeafEndpoints, Wanted};
use super::findings::{Finding, Findings, Subject};
use super::knowledge::{Kinds, Knowledge};
use super::notes::note;
use super::resolve::unknown_claims;
use super::shares::shares;
use super::store::Store;
use super::waiting;
use crate::objects::{AddressFamily, Kind, Service};
use crate::plan::{Decision, Frontend, PlannedLeaf};
use crate::route::{OnNoEndpoints, Split, UnreadyShare, display_weights};

/// A decision.
#[derive(Clone)]
pub(super) enum Decided {
    Known((Decision, Vec<PlannedLeaf>)),
    /// Kinds of objects are not followed that may change it.
    Waiting {
        kinds: Kinds,
        planned: (Decision, Vec<PlannedLeaf>),
        at_face_value: (Decision, Vec<PlannedLeaf>),
    },
}

pub(super) fn decide(
    store: &Store,
    root: &Service,
    split: &Split,
    frontend: Frontend,
    findings: &mut Findings,
) -> Decided {
    let offers: Vec<LeafEndpoints> = split
        .leaves
        .iter()
        .map(|leaf| {
            let wanted = Wanted {
                port: store.port_of(split, leaf, frontend),
                protocol: frontend.protocol,
                family: AddressFamily::of(&frontend.address.ip()),
                is_node_local: root.is_node_local,
            };
            let filter = store.filter(split, leaf);
            store.offer(leaf.service.as_ref(), &filter, wanted)
        })
        .collect();
    let states = states(split, &offers);
    let decision = decision(split, frontend.protocol, &offers, &states);
    let unknown = unknown_leaves(store, split, decision, &offers, &states);
    let mut kinds = unknown_claims(store);
    kinds.extend(unknown.iter().flatten());
    let services = Kind::SERVICE;
    if decision == Decision::Refuse(Reason::NoReadyEndpoints)
        && store.knowledge(services) != Knowledge::Followed
    {
        // If none of the Services exists any more, connections are to pass through.
        kinds.insert(services);
    }
    if kinds.is_empty() {
        if offers.iter().any(LeafEndpoints::is_of_this_node) {
            // What people are told is true of the cluster: they ask one agent for all.
            let offers: Vec<LeafEndpoints> = offers.iter().map(LeafEndpoints::everywhere).collect();
            note(store, split, frontend, &offers, findings);
        } else {
            note(store, split, frontend, &offers, findings);
        }
        let leaves = planned_leaves(split, decision, offers, states);
        return Decided::Known((decision, leaves));
    }
    let finding = Finding {
        subject: Subject::Frontend(Reason::NotKnownYet),
        why: waiting::for_leaves(split, &kinds, &unknown),
    };
    findings.add(finding, frontend);
    let not_known_yet = Decision::PassThrough(Reason::NotKnownYet);
    let told = states.iter().zip(&unknown).map(|(state, unknown)| {
        if unknown.is_some() && *state != LeafState::WeightZero {
            LeafState::NotKnownYet
        } else {
            *state
        }
    });
    let told = told.collect();
    Decided::Waiting {
        kinds,
        planned: (
            not_known_yet,
            planned_leaves(split, not_known_yet, offers.clone(), told),
        ),
        at_face_value: (decision, planned_leaves(split, decision, offers, states)),
    }
}

/// For each leaf, the kind of which an object that was not heard of could turn the decision,
/// or give the leaf its share.
fn unknown_leaves(
    store: &Store,
    split: &Split,
    decision: Decision,
    offers: &[LeafEndpoints],
    states: &[LeafState],
) -> Vec<Option<Kind>> {
    let matters = |state: LeafState| match decision {
        Decision::Split
        | Decision::Refuse(Reason::NoReadyEndpoints)
        | Decision::PassThrough(Reason::NoReadyEndpoints) => state != LeafState::WeightZero,
        // Neither depends on any other object.
        Decision::PassThrough(Reason::ProtocolNotSplit)
        | Decision::Refuse(Reason::AllWeightsZero) => false,
        Decision::Refuse(_) | Decision::PassThrough(_) => true,
    };
    let leaves = split.leaves.iter().zip(offers).zip(states);
    leaves
        .map(|((leaf, offer), state)| {
            let waits_for = store.waits_for(split, leaf, offer);
            waits_for.filter(|_| matters(*state))
        })
        .collect()
}

/// The state of each leaf, of which this is the offer.
pub(super) fn states(split: &Split, offers: &[LeafEndpoints]) -> Vec<LeafState> {
    let states = split.leaves.iter().zip(offers).map(|(leaf, offer)| {
        if leaf.weight.is_zero() {
            LeafState::WeightZero
        } else {
            offer.state()
        }
    });
    states.collect()
}

pub(super) fn decision(
    split: &Split,
    protocol: Protocol,
    offers: &[LeafEndpoints],
    states: &[LeafState],
) -> Decision {
    // In this order: what the split is not about passes through, whatever its weights.
    if protocol == Protocol::Sctp {
        return Decision::PassThrough(Reason::ProtocolNotSplit);
    }
    let gives_away = matches!(split.unready_share, UnreadyShare::GivenAway(_));
    if let Some(reason) = no_leaf(offers).filter(|_| gives_away) {
        return Decision::PassThrough(reason);
    }
    if states.iter().all(|state| *state == LeafState::WeightZero) {
        return Decision::Refuse(Reason::AllWeightsZero);
    }
    if states.iter().copied().any(takes_its_share) {
        return Decision::Split;
    }
    match split.unready_share {
        UnreadyShare::GivenAway(OnNoEndpoints::PassThrough) => {
            Decision::PassThrough(Reason::NoReadyEndpoints)
        }
        UnreadyShare::GivenAway(OnNoEndpoints::Refuse) | UnreadyShare::Refused => {
            Decision::Refuse(Reason::NoReadyEndpoints)
        }
    }
}

/// Why there is no leaf at all that could have endpoints.
fn no_leaf(offers: &[LeafEndpoints]) -> Option<Reason> {
    let mut best = Reason::NoLeafService;
    for offer in offers {
        match offer {
            LeafEndpoints::Endpoints { .. } | LeafEndpoints::NoSubset => return None,
            LeafEndpoints::NoFamily => best = Reason::NoLeafFamily,
            LeafEndpoints::NoPort if best == Reason::NoLeafService => best = Reason::NoLeafPort,
            LeafEndpoints::NoPort | LeafEndpoints::NoService => {}
        }
    }
    Some(best)
}

fn takes_its_share(state: LeafState) -> bool {
    matches!(state, LeafState::Ready | LeafState::Terminating)
}

/// The weights of the leaves that keep their share, and 0 for the others.
pub(super) fn counted(split: &Split, states: &[LeafState]) -> Vec<u128> {
    let keeps_all = split.unready_share == UnreadyShare::Refused;
    let leaves = split.leaves.iter().zip(states);
    let weights = leaves.map(|(leaf, state)| match keeps_all || takes_its_share(*state) {
        true => leaf.weight.nanos(),
        false => 0,
    });
    weights.collect()
}

fn planned_leaves(
    split: &Split,
    decision: Decision,
    offers: Vec<LeafEndpoints>,
    states: Vec<LeafState>,
) -> Vec<PlannedLeaf> {
    let counted = match decision {
        Decision::Split => counted(split, &states),
        Decision::Refuse(_) | Decision::PassThrough(_) => vec![0; split.leaves.len()],
    };
    let weights = display_weights(&split.leaves);
    split
        .leaves
        .iter()
        .zip(weights)
        .zip(shares(&counted))
        .zip(offers.into_iter().zip(states))
        .map(|(((leaf, weight), share), (offer, state))| PlannedLeaf {
            service: leaf.name.clone(),
            weight,
            share,
            state,
            endpoints: offer.into_endpoints(),
        })
        .collect()
}
