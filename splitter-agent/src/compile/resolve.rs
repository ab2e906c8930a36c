//! From the neutral form, Services and EndpointSlices to a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use splitter_common::layout::{LeafState, Protocol, Reason};

use super::diagnostics::{Report, Severity, reason};
use super::endpoints::Offer;
use super::few::Few;
use super::findings::{Finding, Findings, Subject};
use super::shares::shares;
use super::slices;
use super::split::{Claim, Clients, Leaf, OnNoEndpoints, Split, display_weights};
use super::store::Store;
use crate::objects::{AddressFamily, ObjectName, Service, ServiceKind};
use crate::plan::{Decision, Frontend, Origin, PlannedLeaf, PlannedSplit};

/// What becomes of a root's frontends.
pub(super) type Resolved = BTreeMap<Frontend, PlannedSplit>;

/// Decides what becomes of every frontend of a root. `claims` are all that are about it, with
/// the one that counts first (see [`rank`]); `taken` tells which other root, if any, has a
/// frontend because its claim comes before ours.
pub(super) fn resolve<'a>(
    store: &Store,
    claims: &[&Claim],
    taken: impl Fn(&Frontend) -> Option<Taker<'a>>,
    report: &mut Report,
) -> Resolved {
    slices::judge(store, claims, report);
    let Some((owner, others)) = claims.split_first() else {
        return Resolved::new();
    };
    for loser in others.iter().filter(|claim| claim.split.is_some()) {
        report.say(
            &loser.origin,
            Severity::Refused,
            reason::ROOT_TAKEN,
            loser.root_field,
            format!(
                "Service {} is already split by {} {}/{}, which is older or, at the same age, \
                 comes first by name; delete one of the two",
                owner.root, owner.origin.kind, owner.origin.namespace, owner.origin.name
            ),
        );
    }
    match &owner.split {
        Some(split) => place_split(store, owner, split, taken, report),
        None => place_refused(store, owner, taken),
    }
}

/// Sorts the claims on one root: the one that counts is the most senior one, and one that
/// was refused only if there are no others.
pub(super) fn rank(claims: &mut [&Claim]) {
    let refused = |claim: &Claim| claim.split.is_none();
    claims.sort_by(|a, b| {
        let by_verdict = refused(a).cmp(&refused(b));
        by_verdict.then_with(|| a.by_seniority(b))
    });
}

/// Another root that has a frontend.
pub(super) struct Taker<'a> {
    /// The object that its split comes from.
    pub(super) origin: &'a Origin,
    /// The root.
    pub(super) root: &'a ObjectName,
}

/// Why a root has no frontends.
enum NoFrontends {
    Missing,
    Refused,
    Headless,
    ExternalName,
    NoClusterIp,
    NoPorts,
}

/// The root Service, if clients can dial it by a cluster IP.
fn root<'a>(store: &'a Store, name: &ObjectName) -> Result<&'a Service, NoFrontends> {
    let service = store.service(name).ok_or_else(|| {
        if store.is_refused_service(name) {
            NoFrontends::Refused
        } else {
            NoFrontends::Missing
        }
    })?;
    match service.kind {
        ServiceKind::Headless => Err(NoFrontends::Headless),
        ServiceKind::ExternalName => Err(NoFrontends::ExternalName),
        ServiceKind::ClusterIp if service.cluster_ips.is_empty() => Err(NoFrontends::NoClusterIp),
        ServiceKind::ClusterIp if service.ports.is_empty() => Err(NoFrontends::NoPorts),
        ServiceKind::ClusterIp => Ok(service),
    }
}

impl NoFrontends {
    fn reason(&self) -> &'static str {
        match self {
            Self::Missing | Self::Refused => reason::ROOT_MISSING,
            Self::Headless => reason::ROOT_HEADLESS,
            Self::ExternalName => reason::ROOT_EXTERNAL_NAME,
            Self::NoClusterIp => reason::ROOT_WITHOUT_CLUSTER_IP,
            Self::NoPorts => reason::ROOT_WITHOUT_PORTS,
        }
    }

    fn message(&self, root: &ObjectName) -> String {
        match self {
            Self::Missing => {
                format!("Service {root} does not exist; create it, or name one that exists")
            }
            Self::Refused => format!("Service {root} was refused, see above; correct it"),
            Self::Headless => format!(
                "Service {root} is headless, so that clients dial its pods directly; give it a \
                 cluster IP"
            ),
            Self::ExternalName => format!(
                "Service {root} is an ExternalName, so that clients dial another name; name a \
                 Service with a cluster IP"
            ),
            Self::NoClusterIp => format!(
                "Service {root} has no cluster IP that clients could dial; wait until one is \
                 allocated or, in a manifest, write spec.clusterIP"
            ),
            Self::NoPorts => format!("Service {root} has no ports; add those that clients dial"),
        }
    }
}

/// Every address and port of a root that clients dial; none if it has none, whyever.
pub(super) fn frontends_of(store: &Store, name: &ObjectName) -> Few<Frontend> {
    root(store, name).map_or_else(|_| Few::default(), |root| frontends(root).collect())
}

fn frontends(service: &Service) -> impl Iterator<Item = Frontend> {
    service.ports.iter().flat_map(|port| {
        service.cluster_ips.iter().map(|address| Frontend {
            address: SocketAddr::new(*address, port.port),
            protocol: port.protocol,
        })
    })
}

/// Marks the frontends of a root whose only claims were refused, so that whoever asks
/// can be told why it is not split.
fn place_refused<'a>(
    store: &Store,
    claim: &Claim,
    taken: impl Fn(&Frontend) -> Option<Taker<'a>>,
) -> Resolved {
    frontends_of(store, &claim.root)
        .iter()
        .filter(|frontend| taken(frontend).is_none())
        .map(|frontend| {
            let split = PlannedSplit {
                origin: claim.origin.clone(),
                root: claim.root.name.clone(),
                decision: Decision::PassThrough(Reason::ObjectRefused),
                leaves: Vec::new(),
            };
            (*frontend, split)
        })
        .collect()
}

fn place_split<'a>(
    store: &Store,
    claim: &Claim,
    split: &Split,
    taken: impl Fn(&Frontend) -> Option<Taker<'a>>,
    report: &mut Report,
) -> Resolved {
    let mut resolved = Resolved::new();
    // The only scope there is; another one would not take the whole frontend.
    let Clients::Everyone = split.clients;
    let service = match root(store, &claim.root) {
        Ok(service) => service,
        Err(cause) => {
            let message = cause.message(&claim.root);
            let (origin, field) = (&claim.origin, claim.root_field);
            report.say(origin, Severity::Inactive, cause.reason(), field, message);
            return resolved;
        }
    };
    if service.session_affinity_client_ip {
        report.say(
            &claim.origin,
            Severity::Warning,
            reason::SESSION_AFFINITY_IGNORED,
            claim.root_field,
            format!(
                "Service {} has sessionAffinity ClientIP, and a split sends each connection of a \
                 client by the weights; remove sessionAffinity to say so",
                claim.root
            ),
        );
    }
    let mut findings = Findings::new(service);
    // A manifest may repeat a port.
    for frontend in frontends(service).collect::<BTreeSet<_>>() {
        if let Some(Taker { origin, root }) = taken(&frontend) {
            report.say(
                &claim.origin,
                Severity::Warning,
                reason::FRONTEND_TAKEN,
                claim.root_field,
                format!(
                    "{frontend} is also that of Service {root}, which {} {}/{} splits; give one \
                     of the two Services another address",
                    origin.kind, origin.namespace, origin.name
                ),
            );
            continue;
        }
        let (decision, leaves) = decide(store, split, frontend, &mut findings);
        resolved.insert(
            frontend,
            PlannedSplit {
                origin: claim.origin.clone(),
                root: claim.root.name.clone(),
                decision,
                leaves,
            },
        );
    }
    findings.say(store, claim, split, report);
    resolved
}

/// What becomes of connections to one frontend.
fn decide(
    store: &Store,
    split: &Split,
    frontend: Frontend,
    findings: &mut Findings,
) -> (Decision, Vec<PlannedLeaf>) {
    let family = AddressFamily::of(&frontend.address.ip());
    let offers: Vec<Offer> = split
        .leaves
        .iter()
        .map(|leaf| {
            let service = leaf.service.as_ref();
            store.offer(service, frontend.address.port(), frontend.protocol, family)
        })
        .collect();
    let states: Vec<LeafState> = split
        .leaves
        .iter()
        .zip(&offers)
        .map(|(leaf, offer)| {
            if leaf.weight.is_zero() {
                LeafState::WeightZero
            } else {
                offer.state()
            }
        })
        .collect();
    let decision = decision(split, frontend.protocol, &offers, &states);
    note(store, split, decision, frontend, &states, findings);
    (
        decision,
        planned_leaves(&split.leaves, decision, offers, states),
    )
}

fn decision(split: &Split, protocol: Protocol, offers: &[Offer], states: &[LeafState]) -> Decision {
    // In this order: what the split is not about passes through, whatever its weights.
    if protocol != Protocol::Tcp {
        return Decision::PassThrough(Reason::ProtocolNotSplit);
    }
    if offers.iter().all(|offer| *offer == Offer::NoService) {
        return Decision::PassThrough(Reason::NoLeafService);
    }
    if offers
        .iter()
        .all(|offer| matches!(offer, Offer::NoService | Offer::NoPort))
    {
        return Decision::PassThrough(Reason::NoLeafPort);
    }
    if !offers
        .iter()
        .any(|offer| matches!(offer, Offer::Endpoints { .. }))
    {
        return Decision::PassThrough(Reason::NoLeafFamily);
    }
    if states.iter().all(|state| *state == LeafState::WeightZero) {
        return Decision::Refuse(Reason::AllWeightsZero);
    }
    if states.iter().copied().any(takes_its_share) {
        return Decision::Split;
    }
    match split.on_no_endpoints {
        OnNoEndpoints::Refuse => Decision::Refuse(Reason::NoReadyEndpoints),
        OnNoEndpoints::PassThrough => Decision::PassThrough(Reason::NoReadyEndpoints),
    }
}

fn takes_its_share(state: LeafState) -> bool {
    matches!(state, LeafState::Ready | LeafState::Terminating)
}

/// What people are told of the decision, in the end for all frontends together.
fn note(
    store: &Store,
    split: &Split,
    decision: Decision,
    frontend: Frontend,
    states: &[LeafState],
    findings: &mut Findings,
) {
    let whole = match decision {
        Decision::Split => None,
        Decision::Refuse(reason) | Decision::PassThrough(reason) => Some(reason),
    };
    // What is said of the frontend as a whole need not be said of each leaf.
    let leaves = if matches!(whole, None | Some(Reason::NoReadyEndpoints)) {
        states
    } else {
        &[]
    };
    let mut not_ready = Vec::new();
    for (leaf, state) in leaves.iter().enumerate() {
        let why = match state {
            LeafState::ServiceMissing | LeafState::PortMissing | LeafState::FamilyMissing => {
                String::new()
            }
            LeafState::NoReadyEndpoints => {
                let why = why_not_ready(store, split, leaf, frontend).unwrap_or_default();
                if whole.is_some() {
                    not_ready.push((leaf, why));
                    continue;
                }
                why
            }
            LeafState::Ready | LeafState::Terminating | LeafState::WeightZero => continue,
        };
        let subject = Subject::Leaf {
            leaf,
            state: *state,
            others_share: whole.is_none(),
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

/// Why a leaf has no ready endpoint for a frontend.
fn why_not_ready(store: &Store, split: &Split, leaf: usize, frontend: Frontend) -> Option<String> {
    let service = store.service(split.leaves.get(leaf)?.service.as_ref()?)?;
    let port = service.port(frontend.address.port(), frontend.protocol)?;
    let family = AddressFamily::of(&frontend.address.ip());
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

fn planned_leaves(
    leaves: &[Leaf],
    decision: Decision,
    offers: Vec<Offer>,
    states: Vec<LeafState>,
) -> Vec<PlannedLeaf> {
    let counted: Vec<u128> = leaves
        .iter()
        .zip(&states)
        .map(|(leaf, state)| {
            if decision == Decision::Split && takes_its_share(*state) {
                leaf.weight.nanos()
            } else {
                0
            }
        })
        .collect();
    // The translator refuses what has no such form.
    let weights = display_weights(leaves).unwrap_or_else(|| vec![0; leaves.len()]);
    leaves
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
