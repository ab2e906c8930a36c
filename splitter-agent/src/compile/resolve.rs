//! From the neutral form, Services and EndpointSlices to a plan.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use splitter_common::layout::{LeafState, Protocol, Reason};

use super::diagnostics::{Report, Severity, reason};
use super::endpoints::{Index, Offer};
use super::findings::{Finding, Findings, Subject};
use super::shares::shares;
use super::slices;
use super::split::{Claim, Clients, Leaf, OnNoEndpoints, Split, display_weights};
use crate::objects::{AddressFamily, ObjectName, Objects, Service, ServiceKind};
use crate::plan::{Decision, Frontend, Plan, PlannedLeaf, PlannedSplit};

/// Decides what becomes of every frontend that a claim is about.
pub(super) fn resolve(objects: &Objects, claims: Vec<Claim>, report: &mut Report) -> Plan {
    let index = Index::new(objects);
    slices::judge(&index, &claims, report);
    let mut plan = Plan::default();
    for claim in owners(claims, report) {
        match &claim.split {
            Some(split) => place_split(&index, &claim, split, &mut plan, report),
            None => place_refused(&index, &claim, &mut plan),
        }
    }
    plan
}

/// The one claim of each root that counts: the most senior one, and one that was refused
/// only if there are no others. Those that ask for a split come first, each group in
/// the order of the objects, so that what was refused never stands in the way.
fn owners(claims: Vec<Claim>, report: &mut Report) -> Vec<Claim> {
    let mut by_root: BTreeMap<ObjectName, Vec<Claim>> = BTreeMap::new();
    for claim in claims {
        by_root.entry(claim.root.clone()).or_default().push(claim);
    }
    let mut owners = Vec::with_capacity(by_root.len());
    for (root, mut claims) in by_root {
        claims.sort_by(|a, b| {
            let refused = |claim: &Claim| claim.split.is_none();
            refused(a).cmp(&refused(b)).then_with(|| a.by_seniority(b))
        });
        let mut claims = claims.into_iter();
        let Some(owner) = claims.next() else {
            continue;
        };
        for loser in claims.filter(|claim| claim.split.is_some()) {
            report.say(
                &loser.origin,
                Severity::Refused,
                reason::ROOT_TAKEN,
                loser.root_field,
                format!(
                    "Service {root} is already split by {} {}/{}, which is older or, at the same \
                     age, comes first by name; delete one of the two",
                    owner.origin.kind, owner.origin.namespace, owner.origin.name
                ),
            );
        }
        owners.push(owner);
    }
    owners.sort_by(|a, b| {
        let key = |claim: &Claim| claim.split.is_none();
        key(a).cmp(&key(b)).then_with(|| a.origin.cmp(&b.origin))
    });
    owners
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
fn root<'a>(index: &Index<'a>, name: &ObjectName) -> Result<&'a Service, NoFrontends> {
    let service = index.service(name).ok_or_else(|| {
        if index.objects().is_refused_service(name) {
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

/// Every address and port that clients dial.
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
fn place_refused(index: &Index<'_>, claim: &Claim, plan: &mut Plan) {
    let Ok(service) = root(index, &claim.root) else {
        return;
    };
    for frontend in frontends(service) {
        plan.frontends
            .entry(frontend)
            .or_insert_with(|| PlannedSplit {
                origin: claim.origin.clone(),
                root: claim.root.name.clone(),
                decision: Decision::PassThrough(Reason::ObjectRefused),
                leaves: Vec::new(),
            });
    }
}

fn place_split(
    index: &Index<'_>,
    claim: &Claim,
    split: &Split,
    plan: &mut Plan,
    report: &mut Report,
) {
    // The only scope there is; another one would not take the whole frontend.
    let Clients::Everyone = split.clients;
    let service = match root(index, &claim.root) {
        Ok(service) => service,
        Err(cause) => {
            let message = cause.message(&claim.root);
            let (origin, field) = (&claim.origin, claim.root_field);
            report.say(origin, Severity::Inactive, cause.reason(), field, message);
            return;
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
    for frontend in frontends(service) {
        if let Some(other) = plan.frontends.get(&frontend) {
            // Equal origins: a manifest that repeats a port.
            if other.origin != claim.origin {
                report.say(
                    &claim.origin,
                    Severity::Warning,
                    reason::FRONTEND_TAKEN,
                    claim.root_field,
                    format!(
                        "{frontend} is also that of Service {}/{}, which {} {}/{} splits; give \
                         one of the two Services another address",
                        other.origin.namespace,
                        other.root,
                        other.origin.kind,
                        other.origin.namespace,
                        other.origin.name
                    ),
                );
            }
            continue;
        }
        let (decision, leaves) = decide(index, split, frontend, &mut findings);
        plan.frontends.insert(
            frontend,
            PlannedSplit {
                origin: claim.origin.clone(),
                root: claim.root.name.clone(),
                decision,
                leaves,
            },
        );
    }
    findings.say(index, claim, split, report);
}

/// What becomes of connections to one frontend.
fn decide(
    index: &Index<'_>,
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
            index.offer(service, frontend.address.port(), frontend.protocol, family)
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
    note(index, split, decision, frontend, &states, findings);
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
    index: &Index<'_>,
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
                let why = why_not_ready(index, split, leaf, frontend).unwrap_or_default();
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
fn why_not_ready(
    index: &Index<'_>,
    split: &Split,
    leaf: usize,
    frontend: Frontend,
) -> Option<String> {
    let service = index.service(split.leaves.get(leaf)?.service.as_ref()?)?;
    let port = service.port(frontend.address.port(), frontend.protocol)?;
    let family = AddressFamily::of(&frontend.address.ip());
    Some(slices::why_none_is_ready(index, service, port, family))
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
