//! Which of several claims has a frontend: among those on one root, and among roots that share an
//! address and port.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::diagnostics::{Diagnostics, Severity};
use super::roots;
use super::scopes::Scopes;
use super::sorted_vec_set::SortedVecSet;
use super::store::Store;
use crate::objects::{Kind, ObjectName, Service, ServicePort};
use crate::plan::{Frontend, FrontendPlan, Origin, protocol_name};
use crate::reason;
use crate::route::{Claim, Clients};

/// A claim, and the frontends that it claims.
type Claimed = (Arc<FrontendClaim>, SortedVecSet<Frontend>);

/// Who claims each frontend.
#[derive(Debug, Default)]
pub(super) struct FrontendClaims {
    /// The first of them has the frontend.
    by_frontend: BTreeMap<Frontend, SortedVecSet<Arc<FrontendClaim>>>,
    by_root: HashMap<ObjectName, Vec<Claimed>>,
}

/// A claim on a frontend. The least one wins: no refused claim stands in the way of one that asks
/// for a split.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FrontendClaim {
    is_refused: bool,
    precedence: u8,
    origin: Origin,
    root: ObjectName,
}

/// The claim of another root that has a frontend.
pub(super) struct Winner<'a> {
    /// The object that its split comes from.
    pub(super) origin: &'a Origin,
    /// The root.
    pub(super) root: &'a ObjectName,
}

impl FrontendClaims {
    /// Puts the frontends that a root claims in place of those that it claimed; the frontends
    /// about which that changes anything.
    pub(super) fn update(
        &mut self,
        root: &ObjectName,
        claimed: Vec<(FrontendClaim, SortedVecSet<Frontend>)>,
    ) -> BTreeSet<Frontend> {
        let is_same = {
            let old = self.by_root.get(root).map_or(&[][..], Vec::as_slice);
            old.len() == claimed.len()
                && old
                    .iter()
                    .zip(&claimed)
                    .all(|(old, new)| *old.0 == new.0 && old.1 == new.1)
        };
        if is_same {
            return BTreeSet::new();
        }
        let mut changed = BTreeSet::new();
        for (claim, frontends) in self.by_root.remove(root).unwrap_or_default() {
            for frontend in &frontends {
                if let Some(claims) = self.by_frontend.get_mut(frontend) {
                    claims.remove(&claim);
                    if claims.is_empty() {
                        self.by_frontend.remove(frontend);
                    }
                }
                changed.insert(*frontend);
            }
        }
        let claimed: Vec<_> = claimed
            .into_iter()
            .map(|(claim, frontends)| (Arc::new(claim), frontends))
            .collect();
        for (claim, frontends) in &claimed {
            for frontend in frontends {
                let claims = self.by_frontend.entry(*frontend).or_default();
                claims.insert(Arc::clone(claim));
                changed.insert(*frontend);
            }
        }
        if !claimed.is_empty() {
            self.by_root.insert(root.clone(), claimed);
        }
        changed
    }

    /// Claims a frontend for good.
    pub(super) fn reserve(&mut self, frontend: Frontend, split: &FrontendPlan) {
        let claim = FrontendClaim {
            is_refused: false,
            precedence: 0,
            origin: split.origin.clone(),
            root: split.root.clone(),
        };
        let claims = self.by_frontend.entry(frontend).or_default();
        claims.insert(Arc::new(claim));
    }

    /// The roots that claim a frontend.
    pub(super) fn roots(&self, frontend: &Frontend) -> impl Iterator<Item = ObjectName> {
        let claims = self.by_frontend.get(frontend).into_iter().flatten();
        claims.map(|claim| claim.root.clone())
    }

    /// Who has a frontend, if it is another root than this one.
    pub(super) fn other_winner(
        &self,
        frontend: &Frontend,
        root: &ObjectName,
    ) -> Option<Winner<'_>> {
        let first = self.by_frontend.get(frontend)?.first()?;
        (first.root != *root).then_some(Winner {
            origin: &first.origin,
            root: &first.root,
        })
    }
}

/// Sorts the claims on one root: of those that are about a connection, the first counts. One that
/// was refused counts only if there are no others; then goes the API, and within it a consumer's
/// comes before all others; then the most senior one. So an object comes before another one as a
/// whole, whoever its claims are for, and its status can say so.
pub(super) fn rank(claims: &mut [&Claim]) {
    let rank = |claim: &Claim| {
        let selector = claim.clients.selector();
        let is_consumer = selector.is_some_and(|selector| selector.is_consumer);
        (!claim.asks(), claim.api(), !is_consumer)
    };
    // Stable, so that the claims of one object keep its order.
    claims.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.by_seniority(b)));
}

/// The frontends of each of these claims on a root: of two that are about the same connections,
/// the first has them. Claims without any are left out.
pub(super) fn claimed_frontends(
    store: &Store,
    scopes: &Scopes,
    root: &ObjectName,
    ranked: &[&Claim],
) -> Vec<(FrontendClaim, SortedVecSet<Frontend>)> {
    let Ok(service) = roots::root(store, root) else {
        return Vec::new();
    };
    let owned = owned(scopes, service, ranked);
    let owned = ranked.iter().zip(owned);
    let owned = owned.filter(|(_, frontends)| !frontends.is_empty());
    owned
        .map(|(claim, frontends)| {
            let claim = FrontendClaim {
                is_refused: !claim.asks(),
                precedence: claim.precedence,
                origin: claim.origin.clone(),
                root: root.clone(),
            };
            (claim, frontends.into_iter().collect())
        })
        .collect()
}

/// The frontends of each of these claims, in their order: those for everyone, and those for the
/// scopes of this node's clients. Where claims are about some clients only, the first of them also
/// has the frontend of everyone else.
pub(super) fn owned(
    scopes: &Scopes,
    service: &Service,
    ranked: &[&Claim],
) -> Vec<BTreeSet<Frontend>> {
    let mut owned = vec![BTreeSet::new(); ranked.len()];
    let mut give = |owner: Option<usize>, frontend| {
        if let Some(frontends) = owner.and_then(|owner| owned.get_mut(owner)) {
            frontends.insert(frontend);
        }
    };
    let selectors = ranked.iter().filter_map(|claim| claim.clients.selector());
    let scopes: Vec<_> = scopes.with_any_of(selectors).collect();
    for (port, frontend) in roots::frontends_by_port(service) {
        let find = |is_one: &dyn Fn(&Claim) -> bool| {
            let mut claims = ranked.iter();
            claims.position(|claim| claim.ports.covers(port) && is_one(claim))
        };
        let for_everyone = find(&|claim| claim.asks() && claim.clients == Clients::Everyone);
        let owner = for_everyone
            .or_else(|| find(&|claim| claim.asks()))
            .or_else(|| find(&|_| true));
        give(owner, frontend);
        for (id, scope) in &scopes {
            let for_scope = find(&|claim| {
                let selector = claim.clients.selector();
                selector.is_none_or(|selector| scope.contains(selector)) && claim.asks()
            });
            // What is the same for everyone needs no entry of its own.
            let for_scope = for_scope.filter(|owner| {
                let owner = ranked.get(*owner);
                owner.is_some_and(|claim| claim.clients != Clients::Everyone)
            });
            let clients = *id;
            give(
                for_scope,
                Frontend {
                    clients,
                    ..frontend
                },
            );
        }
    }
    owned
}

/// For each port of a root and each claim, the first earlier claim that has all of its connections
/// there.
pub(super) struct Losses(Vec<Vec<Option<usize>>>);

impl Losses {
    /// Of these claims on a root.
    pub(super) fn of(service: &Service, ranked: &[&Claim]) -> Self {
        let of_port = |port: &ServicePort| {
            let mut before = Before::default();
            let claims = ranked.iter().enumerate();
            let winners = claims.map(|(index, claim)| {
                if !claim.ports.covers(port) {
                    return None;
                }
                let winner = before.first_that_covers(ranked, &claim.clients);
                // What one covers that is covered itself has an earlier winner.
                if winner.is_none() {
                    before.add(index, &claim.clients);
                }
                winner
            });
            winners.collect()
        };
        Self(service.ports.iter().map(of_port).collect())
    }

    fn winner(&self, port: usize, claim: usize) -> Option<usize> {
        self.0.get(port)?.get(claim).copied().flatten()
    }
}

/// Claims on a port by whose connections they are about, so that ten thousand for as many
/// namespaces need not be compared with each other.
#[derive(Default)]
struct Before<'a> {
    everyone: Option<usize>,
    of_any_namespace: Vec<usize>,
    by_namespace: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Before<'a> {
    fn add(&mut self, index: usize, clients: &'a Clients) {
        match clients {
            Clients::Everyone => {
                self.everyone.get_or_insert(index);
            }
            Clients::Some(selector) => match &selector.namespaces {
                None => self.of_any_namespace.push(index),
                Some(namespaces) => {
                    for namespace in namespaces {
                        self.by_namespace.entry(namespace).or_default().push(index);
                    }
                }
            },
        }
    }

    fn first_that_covers(&self, ranked: &[&Claim], clients: &Clients) -> Option<usize> {
        let namespaces = clients.selector().and_then(|it| it.namespaces.as_ref());
        let namespace = namespaces.and_then(|namespaces| namespaces.first());
        let of_namespace = namespace.and_then(|it| self.by_namespace.get(it.as_str()));
        let candidates = self.everyone.iter().chain(&self.of_any_namespace);
        let candidates = candidates.chain(of_namespace.into_iter().flatten());
        let covers = |index: &&usize| {
            let other = ranked.get(**index);
            other.is_some_and(|other| other.clients.cover(clients))
        };
        candidates.filter(covers).min().copied()
    }
}

/// The frontends of a claim that no claim before it has from all of its clients, whether this node
/// has such clients or not.
pub(super) fn kept(
    service: &Service,
    losses: &Losses,
    claim: &Claim,
    index: usize,
) -> BTreeSet<Frontend> {
    let ports = service.ports.iter().enumerate();
    let kept = ports.filter(|(number, port)| {
        claim.ports.covers(port) && losses.winner(*number, index).is_none()
    });
    kept.flat_map(|(_, port)| roots::frontends_of(service, port))
        .collect()
}

/// Says of a claim which of its ports other claims on the root have; `false` if it has none
/// left.
pub(super) fn emit_losses(
    service: &Service,
    losses: &Losses,
    ranked: &[&Claim],
    index: usize,
    diagnostics: &mut Diagnostics,
) -> bool {
    let Some((claim, before)) = ranked.get(index).zip(ranked.get(..index)) else {
        return false;
    };
    let mut lost: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    let mut keeps_some = false;
    for (number, port) in service.ports.iter().enumerate() {
        if !claim.ports.covers(port) {
            continue;
        }
        match losses.winner(number, index) {
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
        // Rules of one object that come after others are its author's business.
        if winner.origin == claim.origin {
            continue;
        }
        let ports: Vec<String> = ports.into_iter().collect();
        let what = if claim.ports.are_all() && winner.ports.are_all() {
            format!("Service {} is", claim.root)
        } else {
            format!(
                "{} {} of Service {} {}",
                if ports.len() == 1 { "port" } else { "ports" },
                ports.join(", "),
                claim.root,
                if ports.len() == 1 { "is" } else { "are" },
            )
        };
        if keeps_some {
            let message = format!(
                "{what} already split by {}, so this {} is for the other ports alone; \
                 delete one of the two, or name a port in both",
                winner_text(winner, claim),
                claim.origin.kind
            );
            let (severity, reason) = (Severity::Warning, reason::PORT_TAKEN);
            diagnostics.emit(&claim.origin, severity, reason, &*claim.root_field, message);
        } else {
            emit_loss(claim, winner, &what, diagnostics);
        }
    }
    keeps_some
}

/// Says of a claim on a root without frontends that another claim comes before it, if one
/// does.
pub(super) fn emit_elder(ranked: &[&Claim], index: usize, diagnostics: &mut Diagnostics) -> bool {
    let Some((claim, before)) = ranked.get(index).zip(ranked.get(..index)) else {
        return false;
    };
    let covers =
        |other: &&&Claim| other.ports.cover(&claim.ports) && other.clients.cover(&claim.clients);
    let Some(winner) = before.iter().find(covers) else {
        return false;
    };
    // Why the root has no frontends is said of each parent of one object.
    if winner.origin == claim.origin {
        return false;
    }
    let what = format!("Service {} is", claim.root);
    emit_loss(claim, winner, &what, diagnostics);
    true
}

/// Says of a claim that another one has all of its connections.
fn emit_loss(claim: &Claim, winner: &Claim, what: &str, diagnostics: &mut Diagnostics) {
    let message = format!(
        "{what} already split by {}; delete one of the two",
        winner_text(winner, claim)
    );
    let is_same_kind = winner.origin.kind == claim.origin.kind;
    let kind = Kind::from_name(claim.origin.kind);
    let (severity, reason) = match kind {
        _ if !is_same_kind && winner.precedence != claim.precedence => {
            (Severity::Refused, reason::CONFLICTED)
        }
        Some(kind) if kind.may_be_superseded => (Severity::Inactive, reason::SUPERSEDED),
        _ => (Severity::Refused, reason::ROOT_TAKEN),
    };
    diagnostics.emit(&claim.origin, severity, reason, &*claim.root_field, message);
}

/// The object that a claim which comes first is from, and why it does.
fn winner_text(winner: &Claim, loser: &Claim) -> String {
    let origin = &winner.origin;
    let object = format!("{} {}/{}", origin.kind, origin.namespace, origin.name);
    let is_consumer = |claim: &Claim| claim.clients.selector().is_some_and(|it| it.is_consumer);
    if is_consumer(winner) && !is_consumer(loser) && winner.api() == loser.api() {
        format!("{object}, which is for these clients")
    } else if winner.precedence == loser.precedence {
        format!("{object}, which is older or, at the same age, comes first by name")
    } else {
        format!(
            "{object}, and {}s come before {}s",
            origin.kind, loser.origin.kind
        )
    }
}
