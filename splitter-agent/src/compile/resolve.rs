//! From the neutral form, Services and EndpointSlices to a plan.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use splitter_common::layout::{ClientScope, Protocol, Reason};

use super::conflict::{self, Winner};
use super::decide::{Decided, decide};
use super::diagnostics::{Diagnostics, Severity};
use super::findings::Findings;
use super::knowledge::{Kinds, Knowledge};
use super::scopes::Scopes;
use super::store::Store;
use super::{grants, notes, rules, slices, waiting};
use crate::objects::{AppProtocol, Kind, ObjectName, Service, ServiceKind, ServicePort, quoted};
use crate::plan::{Decision, Frontend, FrontendPlan, Origin};
use crate::reason;
use crate::route::{Claim, Clients, Destinations, Split};

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
/// the ones that count first (see [`conflict::rank`]); `winner` tells which other root, if any, has a
/// frontend because its claim comes before ours.
pub(super) fn resolve<'a>(
    store: &Store,
    scopes: &Scopes,
    name: &ObjectName,
    claims: &[&Claim],
    winner: impl Fn(&Frontend) -> Option<Winner<'a>>,
    diagnostics: &mut Diagnostics,
) -> Resolved {
    slices::judge(store, claims, diagnostics);
    rules::judge(store, claims, diagnostics);
    let mut resolved = Resolved::default();
    let service = match root(store, name) {
        Ok(service) => service,
        Err(cause) => {
            let is_unknown =
                matches!(cause, NoFrontends::Missing) && !store.is_settled(Kind::SERVICE, name);
            let (reason, message) = if is_unknown {
                resolved.waits_for.insert(Kind::SERVICE);
                (reason::NOT_KNOWN_YET, waiting::for_root(name))
            } else {
                (cause.reason(), cause.message(name))
            };
            tell_no_frontends(reason, &message, claims, diagnostics);
            return resolved;
        }
    };
    let permitted = grants::permitted(store, claims, diagnostics);
    let permitted = permitted.as_ref().map(|permitted| {
        let claims = permitted.iter().map(|claim| &**claim);
        claims.collect::<Vec<&Claim>>()
    });
    let claims = permitted.as_deref().unwrap_or(claims);
    let possible = without_impossible(store, service, claims, diagnostics);
    let ranked = possible.as_ref().map(|possible| {
        let mut claims: Vec<&Claim> = possible.iter().map(|claim| &**claim).collect();
        conflict::rank(&mut claims);
        claims
    });
    let claims = ranked.as_deref().unwrap_or(claims);
    let owned = conflict::owned(scopes, service, claims);
    let losses = conflict::Losses::of(service, claims);
    let are_clients_unknown = store.clients == Knowledge::Incomplete;
    let for_everyone: BTreeSet<&Origin> = claims
        .iter()
        .filter(|claim| are_clients_unknown && claim.clients == Clients::Everyone)
        .map(|claim| &claim.origin)
        .collect();
    for (index, (claim, owned)) in claims.iter().zip(owned).enumerate() {
        match &claim.split {
            Some(split) => {
                if is_split(service, &losses, claims, index, diagnostics) {
                    if are_clients_unknown && claim.clients != Clients::Everyone {
                        resolved.waits_for.insert(Kind::POD);
                        let is_whole = !for_everyone.contains(&claim.origin);
                        tell_unknown_clients(store, claim, is_whole, diagnostics);
                    }
                    let place = Place {
                        claim,
                        split,
                        kept: conflict::kept(service, &losses, claim, index),
                        owned,
                    };
                    place_split(store, place, &winner, diagnostics, &mut resolved);
                }
            }
            None => {
                let frontends = owned.into_iter();
                for frontend in frontends.filter(|frontend| winner(frontend).is_none()) {
                    place_refused(store, claim, frontend, &mut resolved);
                }
            }
        }
    }
    resolved
}

/// Says of a claim for some clients only that it is not known who they are; `is_whole` if all of the
/// object is.
fn tell_unknown_clients(
    store: &Store,
    claim: &Claim,
    is_whole: bool,
    diagnostics: &mut Diagnostics,
) {
    let severity = if is_whole {
        Severity::Inactive
    } else {
        Severity::Warning
    };
    let message = waiting::for_clients(store.here.node.as_deref());
    let (origin, reason) = (&claim.origin, reason::NOT_KNOWN_YET);
    diagnostics.emit(origin, severity, reason, &*claim.root_field, message);
}

/// Whether a claim has any port of its root; says so if it has not all that it is about.
fn is_split(
    service: &Service,
    losses: &conflict::Losses,
    claims: &[&Claim],
    index: usize,
    diagnostics: &mut Diagnostics,
) -> bool {
    let Some(claim) = claims.get(index) else {
        return false;
    };
    if let Some(name) = &claim.ports.name
        && !service.ports.iter().any(|port| claim.ports.covers(port))
    {
        let of_service: Vec<String> = service.ports.iter().map(port_text).collect();
        let number = claim.ports.numbers.iter().flatten().next();
        let message = format!(
            "Service {} has no port {}{}; name one that it has ({}), or none for all of them",
            claim.root,
            quoted(name),
            number.map_or_else(String::new, |number| format!(" with the number {number}")),
            shortened(&of_service)
        );
        let (severity, reason) = (Severity::Inactive, reason::ROOT_PORT_MISSING);
        diagnostics.emit(&claim.origin, severity, reason, &*claim.root_field, message);
        return false;
    }
    if let Some(protocols) = &claim.ports.protocols
        && !is_about_any_port(service, claims, claim)
    {
        // Said once, of the first of an object's claims.
        let is_first = |other: &&&Claim| other.origin == claim.origin;
        if claims
            .iter()
            .find(is_first)
            .is_some_and(|first| std::ptr::eq(*first, *claim))
        {
            let message = format!(
                "Service {} has no port where {} is spoken, as its ports declare by appProtocol or name; \
                 write rules for what is spoken there, or correct the ports",
                claim.root,
                spoken(protocols)
            );
            let (severity, reason) = (Severity::Inactive, reason::ROOT_PORT_MISSING);
            diagnostics.emit(&claim.origin, severity, reason, &*claim.root_field, message);
        }
        return false;
    }
    let of_service: BTreeSet<u16> = service.ports.iter().map(|port| port.port).collect();
    if let Some(ports) = &claim.ports.numbers
        && let Some(missing) = ports.iter().find(|port| !of_service.contains(port))
    {
        let is_split = !ports.is_disjoint(&of_service);
        let of_service: Vec<String> = of_service.iter().map(u16::to_string).collect();
        let message = format!(
            "Service {} has no port {missing}; write one that it has ({}), or none for all of them",
            claim.root,
            shortened(&of_service)
        );
        let severity = if is_split {
            Severity::Warning
        } else {
            Severity::Inactive
        };
        let reason = reason::ROOT_PORT_MISSING;
        diagnostics.emit(&claim.origin, severity, reason, &*claim.root_field, message);
        if !is_split {
            return false;
        }
    }
    conflict::emit_losses(service, losses, claims, index, diagnostics)
}

/// Whether any claim of the object that a claim is from is about a port of the root.
fn is_about_any_port(service: &Service, claims: &[&Claim], claim: &Claim) -> bool {
    let of_object = claims.iter().filter(|other| other.origin == claim.origin);
    let mut ports = of_object.flat_map(|claim| {
        let ports = service.ports.iter();
        ports.filter(|port| claim.ports.covers(port))
    });
    ports.next().is_some()
        || claim.ports.numbers.as_ref().is_some_and(|numbers| {
            // That the number is missing says more.
            let mut ports = service.ports.iter();
            !ports.any(|port| numbers.contains(&port.port))
        })
}

/// What is spoken, for people.
fn spoken(protocols: &BTreeSet<AppProtocol>) -> &'static str {
    if protocols.contains(&AppProtocol::Http) {
        "HTTP"
    } else if protocols.contains(&AppProtocol::Tls) {
        "TLS"
    } else {
        "TCP other than HTTP and TLS"
    }
}

/// A port of a Service for people.
fn port_text(port: &ServicePort) -> String {
    match port.name.as_str() {
        "" => port.port.to_string(),
        name => format!("{name} ({})", port.port),
    }
}

/// Says of the claims on a root why it has no frontends, or that another comes first.
fn tell_no_frontends(
    reason: &'static str,
    message: &str,
    claims: &[&Claim],
    diagnostics: &mut Diagnostics,
) {
    for (index, claim) in claims.iter().enumerate() {
        if claim.split.is_some() && !conflict::emit_elder(claims, index, diagnostics) {
            let (origin, field) = (&claim.origin, &*claim.root_field);
            diagnostics.emit(origin, Severity::Inactive, reason, field, message);
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
    frontends_by_port(service).map(|(_, frontend)| frontend)
}

/// Every address and port of a root that clients dial, with the port of the Service.
pub(super) fn frontends_by_port(
    service: &Service,
) -> impl Iterator<Item = (&ServicePort, Frontend)> {
    let ports = service.ports.iter();
    ports.flat_map(|port| frontends_of(service, port).map(move |frontend| (port, frontend)))
}

/// The address and port of a root that clients dial, for one of its ports.
pub(super) fn frontends_of(
    service: &Service,
    port: &ServicePort,
) -> impl Iterator<Item = Frontend> {
    let (number, protocol) = (port.port, port.protocol);
    service.cluster_ips.iter().map(move |address| Frontend {
        address: SocketAddr::new(*address, number),
        protocol,
        clients: ClientScope::EVERYONE,
    })
}

/// Marks a frontend whose only claims were refused, so that whoever asks can be told why it
/// is not split.
fn refused(claim: &Claim) -> FrontendPlan {
    FrontendPlan {
        origin: claim.origin.clone(),
        root: claim.root.clone(),
        decision: Decision::PassThrough(Reason::ObjectRefused),
        leaves: Vec::new(),
    }
}

/// Puts a frontend whose only claims were refused, or ask for what is not known yet, where it belongs.
fn place_refused(store: &Store, claim: &Claim, frontend: Frontend, resolved: &mut Resolved) {
    let refused = refused(claim);
    let mut kinds = unknown_claims(store);
    kinds.extend(claim.waits_for);
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

/// The kinds of objects that may bring a claim that comes before all that are known.
pub(super) fn unknown_claims(store: &Store) -> Kinds {
    Kind::routes()
        .filter(|kind| store.knowledge(*kind) == Knowledge::Incomplete)
        .collect()
}

/// A claim with a split, and where it is in force.
struct Place<'a> {
    claim: &'a Claim,
    split: &'a Split,
    /// Its frontends, as the same for everyone: what is said of the split does not depend on who
    /// is on this node.
    kept: BTreeSet<Frontend>,
    /// Those that this node's clients come to.
    owned: BTreeSet<Frontend>,
}

/// The claims, of which those are refused whose object asks for what cannot be done, in one of them
/// or another: it is not half applied. `None` if there are none of these.
fn without_impossible<'a>(
    store: &Store,
    service: &Service,
    claims: &[&'a Claim],
    diagnostics: &mut Diagnostics,
) -> Option<Vec<Cow<'a, Claim>>> {
    let mut impossible = BTreeSet::new();
    for claim in claims {
        if let Some(split) = &claim.split
            && split.destinations == Destinations::Hosts
        {
            // Those too that an earlier claim has, which may be refused itself.
            let frontends = frontends_by_port(service)
                .filter(|(port, _)| claim.ports.covers(port))
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
                "{} of DestinationRule {} {}; remove it there, or this destination here",
                impossible.field, rule.name, impossible.what
            );
            let (severity, reason) = (Severity::Refused, reason::POLICY_UNSUPPORTED);
            let field = format!("{}.destination", leaf.field);
            diagnostics.emit(&claim.origin, severity, reason, field, message);
        }
    }
    is_impossible
}

fn place_split<'a>(
    store: &Store,
    place: Place<'_>,
    winner: impl Fn(&Frontend) -> Option<Winner<'a>>,
    diagnostics: &mut Diagnostics,
    resolved: &mut Resolved,
) {
    let Place {
        claim,
        split,
        kept,
        owned,
    } = place;
    let Some(service) = store.service(&claim.root) else {
        return;
    };
    notes::emit_service_notes(store, claim, split, service, diagnostics);
    let mut findings = Findings::new(service);
    for frontend in kept {
        if let Some(Winner { origin, root }) = winner(&frontend) {
            diagnostics.emit(
                &claim.origin,
                Severity::Warning,
                reason::FRONTEND_TAKEN,
                &*claim.root_field,
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
            root: claim.root.clone(),
            decision,
            leaves,
        };
        let decided = decide(store, service, split, frontend, &mut findings);
        if let Decided::Waiting { kinds, .. } = &decided {
            resolved.waits_for.extend(kinds);
        }
        let is_here =
            |own: &&Frontend| own.address == frontend.address && own.protocol == frontend.protocol;
        for own in owned.iter().filter(is_here) {
            let is_everyone_else =
                own.clients == ClientScope::EVERYONE && claim.clients != Clients::Everyone;
            if is_everyone_else {
                let pass_through = |reason| planned((Decision::PassThrough(reason), Vec::new()));
                let others = pass_through(Reason::OtherClients);
                if store.clients == Knowledge::Incomplete {
                    let waiting = Waiting {
                        kinds: Kinds::from([Kind::POD]),
                        at_face_value: others,
                    };
                    resolved.wait(*own, pass_through(Reason::NotKnownYet), waiting);
                } else {
                    resolved.insert(*own, others);
                }
                continue;
            }
            match decided.clone() {
                Decided::Known(decided) => resolved.insert(*own, planned(decided)),
                Decided::Waiting {
                    kinds,
                    planned: split,
                    at_face_value,
                } => {
                    let waiting = Waiting {
                        kinds,
                        at_face_value: planned(at_face_value),
                    };
                    resolved.wait(*own, planned(split), waiting);
                }
            }
        }
    }
    findings.emit(store, claim, split, diagnostics);
}
