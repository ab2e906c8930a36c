//! From the neutral form, Services and EndpointSlices to a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use splitter_common::layout::{LeafState, Protocol, Reason};

use super::diagnostics::{Report, Severity};
use super::endpoints::{Offer, Wanted};
use super::findings::{Finding, Findings, Subject};
use super::knowledge::{Kinds, Knowledge};
use super::overlap::{self, Part};
use super::owners;
use super::shares::shares;
use super::slices;
use super::split::{Claim, Clients, Leaf, OnNoEndpoints, Ports, Split, display_weights};
use super::store::Store;
use super::waiting;
use crate::objects::{AddressFamily, ObjectKind, ObjectName, Service, ServiceKind};
use crate::plan::{Decision, Frontend, FrontendPlan, Origin, PlannedLeaf};
use crate::reason;

/// What becomes of a root's frontends.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    pub(super) frontends: BTreeMap<Frontend, FrontendPlan>,
    /// Those of them that wait for a kind of objects to be followed.
    pub(super) waiting: BTreeMap<Frontend, Waiting>,
    /// Every kind that the root or one of its frontends waits for.
    pub(super) waits_for: Kinds,
}

/// A frontend that cannot be decided before more is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// The kinds that it waits for.
    pub(super) kinds: Kinds,
    /// What it comes to if nothing exists but what is known.
    pub(super) at_face_value: FrontendPlan,
}

impl Resolved {
    fn insert(&mut self, frontend: Frontend, split: FrontendPlan) {
        self.frontends.insert(frontend, split);
    }

    /// Notes that a frontend waits; `split` says so of it.
    fn wait(&mut self, frontend: Frontend, split: FrontendPlan, waiting: Waiting) {
        self.waits_for.extend(&waiting.kinds);
        self.frontends.insert(frontend, split);
        self.waiting.insert(frontend, waiting);
    }
}

/// Decides what becomes of every frontend of a root. `claims` are all that are about it, with
/// the ones that count first (see [`rank`]); `taken` tells which other root, if any, has a
/// frontend because its claim comes before ours.
pub(super) fn resolve<'a>(
    store: &Store,
    name: &ObjectName,
    claims: &[&Claim],
    taken: impl Fn(&Frontend) -> Option<Taker<'a>>,
    report: &mut Report,
) -> Resolved {
    slices::judge(store, claims, report);
    let mut resolved = Resolved::default();
    let service = match root(store, name) {
        Ok(service) => service,
        Err(cause) => {
            let is_unknown = matches!(cause, NoFrontends::Missing)
                && !store.is_settled(ObjectKind::Service, name);
            let (reason, message) = if is_unknown {
                resolved.waits_for.insert(ObjectKind::Service);
                (reason::NOT_KNOWN_YET, waiting::for_root(name))
            } else {
                (cause.reason(), cause.message(name))
            };
            tell_no_frontends(reason, &message, claims, report);
            return resolved;
        }
    };
    let owned = owners::owned(service, claims);
    for (index, (claim, frontends)) in claims.iter().zip(owned).enumerate() {
        let frontends = frontends.into_iter();
        match &claim.split {
            Some(split) => {
                if is_split(service, claims, index, report) {
                    place_split(
                        store,
                        claim,
                        split,
                        frontends,
                        &taken,
                        report,
                        &mut resolved,
                    );
                }
            }
            None => {
                for frontend in frontends.filter(|frontend| taken(frontend).is_none()) {
                    place_refused(store, claim, frontend, &mut resolved);
                }
            }
        }
    }
    resolved
}

/// Whether a claim has any port of its root; says so if it has not all that it is about.
fn is_split(service: &Service, claims: &[&Claim], index: usize, report: &mut Report) -> bool {
    let Some(claim) = claims.get(index) else {
        return false;
    };
    if let Ports::One(port) = claim.ports
        && !service.ports.iter().any(|candidate| candidate.port == port)
    {
        let ports: BTreeSet<u16> = service.ports.iter().map(|port| port.port).collect();
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let message = format!(
            "Service {} has no port {port}; write one that it has ({}), or none for all of them",
            claim.root,
            shortened(&ports)
        );
        let (severity, reason) = (Severity::Inactive, reason::ROOT_PORT_MISSING);
        report.say(&claim.origin, severity, reason, claim.root_field, message);
        return false;
    }
    owners::tell_losses(service, claims, index, report)
}

/// Says of the claims on a root why it has no frontends, or that another comes first.
fn tell_no_frontends(reason: &'static str, message: &str, claims: &[&Claim], report: &mut Report) {
    for (index, claim) in claims.iter().enumerate() {
        if claim.split.is_some() && !owners::tell_elder(claims, index, report) {
            let (origin, field) = (&claim.origin, claim.root_field);
            report.say(origin, Severity::Inactive, reason, field, message);
        }
    }
}

/// The first of many things, for one line.
fn shortened(items: &[String]) -> String {
    const MOST: usize = 5;
    let mut shown: Vec<&str> = items.iter().take(MOST).map(String::as_str).collect();
    let more;
    if items.len() > MOST {
        more = format!("and {} more", items.len() - MOST);
        shown.push(&more);
    }
    shown.join(", ")
}

/// Sorts the claims on one root: of those that are about a port, the first counts. It is the
/// most senior one, and one that was refused only if there are no others.
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
pub(super) enum NoFrontends {
    Missing,
    Refused,
    Headless,
    ExternalName,
    NoClusterIp,
    NoPorts,
}

/// The root Service, if clients can dial it by a cluster IP.
pub(super) fn root<'a>(store: &'a Store, name: &ObjectName) -> Result<&'a Service, NoFrontends> {
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

/// Every address and port of a root that clients dial.
pub(super) fn frontends(service: &Service) -> impl Iterator<Item = Frontend> {
    service.ports.iter().flat_map(|port| {
        service.cluster_ips.iter().map(|address| Frontend {
            address: SocketAddr::new(*address, port.port),
            protocol: port.protocol,
        })
    })
}

/// Marks a frontend whose only claims were refused, so that whoever asks can be told why it
/// is not split.
fn refused(claim: &Claim) -> FrontendPlan {
    FrontendPlan {
        origin: claim.origin.clone(),
        root: claim.root.name.clone(),
        decision: Decision::PassThrough(Reason::ObjectRefused),
        leaves: Vec::new(),
    }
}

/// Puts a frontend whose only claims were refused where it belongs.
fn place_refused(store: &Store, claim: &Claim, frontend: Frontend, resolved: &mut Resolved) {
    let refused = refused(claim);
    let kinds = unknown_claims(store);
    if kinds.is_empty() {
        resolved.insert(frontend, refused);
        return;
    }
    let split = FrontendPlan {
        decision: Decision::PassThrough(Reason::NotKnownYet),
        ..refused.clone()
    };
    let waiting = Waiting {
        kinds,
        at_face_value: refused,
    };
    resolved.wait(frontend, split, waiting);
}

/// The kind of objects that may bring a claim that comes before all that are known.
fn unknown_claims(store: &Store) -> Kinds {
    let kind = ObjectKind::TrafficSplit;
    let is_unknown = store.knowledge(kind) == Knowledge::Incomplete;
    is_unknown.then_some(kind).into_iter().collect()
}

fn place_split<'a>(
    store: &Store,
    claim: &Claim,
    split: &Split,
    frontends: impl Iterator<Item = Frontend>,
    taken: impl Fn(&Frontend) -> Option<Taker<'a>>,
    report: &mut Report,
    resolved: &mut Resolved,
) {
    // The only scope there is; another one would not take the whole frontend.
    let Clients::Everyone = split.clients;
    let Some(service) = store.service(&claim.root) else {
        return;
    };
    note_root(store, claim, service, report);
    note_node_local(store, claim, split, service, report);
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
    for frontend in frontends {
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
        let planned = |(decision, leaves)| FrontendPlan {
            origin: claim.origin.clone(),
            root: claim.root.name.clone(),
            decision,
            leaves,
        };
        match decide(store, service, split, frontend, &mut findings) {
            Decided::Known(decided) => resolved.insert(frontend, planned(decided)),
            Decided::Waiting {
                kinds,
                planned: split,
                at_face_value,
            } => {
                let waiting = Waiting {
                    kinds,
                    at_face_value: planned(at_face_value),
                };
                resolved.wait(frontend, planned(split), waiting);
            }
        }
    }
    findings.say(store, claim, split, report);
}

/// Tells of a root that has nobody behind it but the leaves of its splits.
fn note_root(store: &Store, claim: &Claim, service: &Service, report: &mut Report) {
    let mut slices = store.slices(&service.name);
    let has_endpoints = slices.any(|slice| !slice.endpoints.is_empty());
    let is_known = store.knowledge(ObjectKind::EndpointSlice) == Knowledge::Followed;
    if service.has_selector || has_endpoints || !is_known {
        return;
    }
    report.say(
        &claim.origin,
        Severity::Note,
        reason::ROOT_WITHOUT_ENDPOINTS,
        claim.root_field,
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
    report: &mut Report,
) {
    let mut say = |field: &str, message| {
        let (severity, reason) = (Severity::Note, reason::NODE_LOCAL);
        report.say(&claim.origin, severity, reason, field, message);
    };
    let others = "the other backends share its connections";
    if root.is_node_local {
        say(
            claim.root_field,
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

/// What becomes of connections to one frontend.
enum Decided {
    Known((Decision, Vec<PlannedLeaf>)),
    /// Kinds of objects are not followed that may change it.
    Waiting {
        kinds: Kinds,
        planned: (Decision, Vec<PlannedLeaf>),
        at_face_value: (Decision, Vec<PlannedLeaf>),
    },
}

fn decide(
    store: &Store,
    root: &Service,
    split: &Split,
    frontend: Frontend,
    findings: &mut Findings,
) -> Decided {
    let wanted = Wanted {
        port: frontend.address.port(),
        protocol: frontend.protocol,
        family: AddressFamily::of(&frontend.address.ip()),
        is_node_local: root.is_node_local,
    };
    let offers: Vec<Offer> = split
        .leaves
        .iter()
        .map(|leaf| store.offer(leaf.service.as_ref(), wanted))
        .collect();
    let states = states(split, &offers);
    let decision = decision(split, frontend.protocol, &offers, &states);
    let unknown = unknown_leaves(store, split, decision, &offers, &states);
    let mut kinds = unknown_claims(store);
    kinds.extend(unknown.iter().flatten());
    let services = ObjectKind::Service;
    if decision == Decision::Refuse(Reason::NoReadyEndpoints)
        && store.knowledge(services) != Knowledge::Followed
    {
        // If none of the Services exists any more, connections are to pass through.
        kinds.insert(services);
    }
    if kinds.is_empty() {
        if offers.iter().any(Offer::is_of_this_node) {
            // What people are told is true of the cluster: they ask one agent for all.
            let offers: Vec<Offer> = offers.iter().map(Offer::everywhere).collect();
            note(store, split, frontend, &offers, findings);
        } else {
            note(store, split, frontend, &offers, findings);
        }
        let leaves = planned_leaves(&split.leaves, decision, offers, states);
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
            planned_leaves(&split.leaves, not_known_yet, offers.clone(), told),
        ),
        at_face_value: (
            decision,
            planned_leaves(&split.leaves, decision, offers, states),
        ),
    }
}

/// For each leaf, the kind of which an object that was not heard of could turn the decision,
/// or give the leaf its share.
fn unknown_leaves(
    store: &Store,
    split: &Split,
    decision: Decision,
    offers: &[Offer],
    states: &[LeafState],
) -> Vec<Option<ObjectKind>> {
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
            let waits_for = store.waits_for(leaf.service.as_ref(), offer);
            waits_for.filter(|_| matters(*state))
        })
        .collect()
}

/// The state of each leaf, of which this is the offer.
fn states(split: &Split, offers: &[Offer]) -> Vec<LeafState> {
    let states = split.leaves.iter().zip(offers).map(|(leaf, offer)| {
        if leaf.weight.is_zero() {
            LeafState::WeightZero
        } else {
            offer.state()
        }
    });
    states.collect()
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
    frontend: Frontend,
    offers: &[Offer],
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

/// What people are told of endpoints that are behind more than one leaf.
fn overlap(split: &Split, offers: &[Offer], states: &[LeafState]) -> Option<String> {
    let shares = shares(&counted(&split.leaves, states));
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

/// The weights of the leaves that take their share, and 0 for the others.
fn counted(leaves: &[Leaf], states: &[LeafState]) -> Vec<u128> {
    let leaves = leaves.iter().zip(states);
    let weights = leaves.map(|(leaf, state)| match takes_its_share(*state) {
        true => leaf.weight.nanos(),
        false => 0,
    });
    weights.collect()
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
    let counted = match decision {
        Decision::Split => counted(leaves, &states),
        Decision::Refuse(_) | Decision::PassThrough(_) => vec![0; leaves.len()],
    };
    let weights = display_weights(leaves);
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
