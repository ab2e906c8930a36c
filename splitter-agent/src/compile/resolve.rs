//! From the neutral form, Services and EndpointSlices to a plan.

use std::collections::{BTreeMap, BTreeSet};

use splitter_common::layout::{ClientScope, Reason};

use super::conflict::{self, Winner};
use super::decide::{Decided, decide};
use super::diagnostics::{Diagnostics, Severity};
use super::findings::Findings;
use super::impossible::without_impossible;
use super::knowledge::{Kinds, Knowledge};
use super::root_ports::{is_split, tell_ambiguous};
use super::roots::{NoFrontends, root};
use super::scopes::Scopes;
use super::store::Store;
use super::{grants, notes, rules, slices, waiting};
use crate::objects::{Kind, ObjectName, ObjectReference};
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
    /// The objects that may be about other roots too, and are in force here.
    pub(super) in_force: BTreeSet<ObjectReference>,
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
                tell_ambiguous(service, claim, diagnostics);
                if is_split(service, &losses, claims, index, diagnostics) {
                    let are_known = !are_clients_unknown || claim.clients == Clients::Everyone;
                    if split.destinations == Destinations::Hosts && are_known {
                        resolved.in_force.insert(claim.origin.object());
                    }
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
