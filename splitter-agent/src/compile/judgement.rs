//! What a plan means for what is programmed, when not everything is known.

use std::borrow::Cow;

use splitter_common::layout::{ClientScope, LeafState, Reason};

use super::compiler::Compiler;
use super::knowledge::{Kinds, Knowledge};
use super::resolve::Waiting;
use super::roots;
use crate::objects::Kind;
use crate::plan::{Decision, Frontend, FrontendPlan, PlannedLeaf};
use crate::route::Claim;

/// What becomes of a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement<'a> {
    /// What is, or stays, programmed; `None` if nothing does.
    pub split: Option<Cow<'a, FrontendPlan>>,
    /// The kinds of objects that it waits for: it is held back until they are followed. Empty
    /// if it is as planned.
    pub waits_for: Kinds,
}

impl<'a> Judgement<'a> {
    fn planned(split: Option<&'a FrontendPlan>) -> Self {
        Self {
            split: split.map(Cow::Borrowed),
            waits_for: Kinds::new(),
        }
    }
}

/// Whether the object that a programmed split comes from still asks for it.
enum Asks {
    Yes,
    No,
    /// It was not heard of, or not of what it refers to, and that kind is not followed.
    Unknown(Kind),
}

impl Compiler {
    /// What becomes of a frontend, given what is programmed there.
    ///
    /// A frontend that waits for a kind of objects to be followed stays as it is, except that
    /// its leaves get the endpoints that are known; one that is not split yet passes through. A
    /// frontend that is not planned goes only if it is known that its object or its root no
    /// longer is.
    #[must_use]
    pub fn judge<'a>(
        &'a self,
        frontend: &Frontend,
        programmed: Option<&'a FrontendPlan>,
    ) -> Judgement<'a> {
        let planned = self.plan.frontends.get(frontend);
        let waiting = self.waiting.get(frontend);
        match (planned, waiting, programmed) {
            (Some(planned), Some(waiting), Some(old)) => self.hold(frontend, planned, waiting, old),
            (Some(planned), Some(waiting), None) => Judgement {
                split: Some(Cow::Borrowed(planned)),
                waits_for: waiting.kinds.clone(),
            },
            (None, _, Some(old)) => {
                let waits_for = self.may_not_go(frontend, old);
                Judgement {
                    split: waits_for.map(|_| Cow::Borrowed(old)),
                    waits_for: waits_for.into_iter().collect(),
                }
            }
            (planned, None, _) | (planned @ None, _, None) => Judgement::planned(planned),
        }
    }

    fn hold<'a>(
        &self,
        frontend: &Frontend,
        planned: &'a FrontendPlan,
        waiting: &'a Waiting,
        old: &'a FrontendPlan,
    ) -> Judgement<'a> {
        if may_replace(planned, waiting, old) {
            return Judgement::planned(Some(&waiting.at_face_value));
        }
        let protects_nothing = matches!(old.decision, Decision::PassThrough(_));
        let split = if protects_nothing || matches!(self.asks(frontend, old), Asks::No) {
            Cow::Borrowed(planned)
        } else {
            with_known_endpoints(old, planned)
        };
        Judgement {
            split: Some(split),
            waits_for: waiting.kinds.clone(),
        }
    }

    /// The kind that would have to be followed for a programmed split to go, though it is not
    /// planned; `None` if it may go.
    fn may_not_go(&self, frontend: &Frontend, old: &FrontendPlan) -> Option<Kind> {
        let root = &old.root;
        let is_root_known =
            self.store.service(root).is_some() || self.store.is_settled(Kind::SERVICE, root);
        let has_frontend = roots::root(&self.store, root).is_ok_and(|service| {
            roots::frontends(service).any(|own| own == frontend.for_everyone())
        });
        if is_root_known && !has_frontend {
            return None;
        }
        match self.asks(frontend, old) {
            Asks::No => None,
            Asks::Unknown(kind) => Some(kind),
            Asks::Yes if !is_root_known => Some(Kind::SERVICE),
            // Pods that were there before the agent are in the scope still.
            Asks::Yes => {
                let is_for_some = frontend.clients != ClientScope::EVERYONE;
                let are_known = self.store.clients == Knowledge::Followed;
                (is_for_some && !are_known).then_some(Kind::POD)
            }
        }
    }

    fn asks(&self, frontend: &Frontend, old: &FrontendPlan) -> Asks {
        let object = old.origin.object();
        let Some(kind) = object.known_kind().filter(|kind| kind.is_route()) else {
            return Asks::No;
        };
        match self.routes.get(&object) {
            Some(route) => {
                let service = self.store.service(&old.root);
                let mut ports = service.into_iter().flat_map(|service| &service.ports);
                let number = frontend.address.port();
                let port =
                    ports.find(|port| port.port == number && port.protocol == frontend.protocol);
                // Of a root that was not heard of again, it is not known which port that is.
                let covers = |claim: &Claim| port.is_none_or(|port| claim.ports.covers(port));
                let claims = route.claims.iter();
                let mut of_root = claims.filter(|it| it.root == old.root && covers(it));
                if let Some(kind) = of_root.clone().find_map(|claim| claim.waits_for) {
                    Asks::Unknown(kind)
                } else if of_root.any(|claim| claim.split.is_some()) {
                    Asks::Yes
                } else {
                    Asks::No
                }
            }
            None if self.store.is_settled(kind, &object.name) => Asks::No,
            None => Asks::Unknown(kind),
        }
    }
}

/// Whether what a frontend comes to if nothing exists but what is known can take the place of
/// what is programmed: it must neither refuse what was not refused nor leave out a leaf that was
/// not left out.
fn may_replace(planned: &FrontendPlan, waiting: &Waiting, old: &FrontendPlan) -> bool {
    let new = &waiting.at_face_value;
    let is_same_object = old.root == new.root
        && old.origin.kind == new.origin.kind
        && old.origin.namespace == new.origin.namespace
        && old.origin.name == new.origin.name;
    let is_no_worse = old.decision == new.decision
        || new.decision == Decision::Split
            && old.decision == Decision::Refuse(Reason::NoReadyEndpoints);
    let mut unknown = planned
        .leaves
        .iter()
        .filter(|leaf| leaf.state == LeafState::NotKnownYet);
    is_same_object
        && is_no_worse
        && !waiting.kinds.iter().any(|kind| kind.is_route())
        && unknown.all(|leaf| {
            let old = old.leaves.iter().find(|old| old.service == leaf.service);
            old.is_some_and(|old| old.weight > 0 && is_left_out(old.state))
        })
}

const fn is_left_out(state: LeafState) -> bool {
    matches!(
        state,
        LeafState::ServiceMissing
            | LeafState::PortMissing
            | LeafState::NoReadyEndpoints
            | LeafState::FamilyMissing
    )
}

/// A split that stays programmed, with the endpoints that its leaves are now known to have.
fn with_known_endpoints<'a>(
    old: &'a FrontendPlan,
    planned: &FrontendPlan,
) -> Cow<'a, FrontendPlan> {
    let mut split = Cow::Borrowed(old);
    for (index, leaf) in old.leaves.iter().enumerate() {
        let is_known = |known: &&PlannedLeaf| {
            known.service == leaf.service
                && matches!(known.state, LeafState::Ready | LeafState::Terminating)
        };
        let known = planned.leaves.iter().find(is_known);
        let Some(known) = known.filter(|known| leaf.share > 0 && known.endpoints != leaf.endpoints)
        else {
            continue;
        };
        if let Some(leaf) = split.to_mut().leaves.get_mut(index) {
            leaf.endpoints.clone_from(&known.endpoints);
            leaf.state = known.state;
        }
    }
    split
}
