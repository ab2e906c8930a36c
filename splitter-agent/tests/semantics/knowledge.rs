//! What is not known is not absent: what becomes of splits while kinds of objects are not
//! followed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::{Value, json};
use splitter_agent::compile::{Compiler, Knowledge, Settings};
use splitter_agent::objects::{Kind, ObjectReference, decode};
use splitter_agent::plan::{Decision, Frontend, FrontendPlan};
use splitter_common::layout::{ClientScope, LeafState, Protocol, Reason};

use crate::fixtures::{NAMESPACE, VIP, canary, leaf, root, service, slice, slice_of, split, world};

/// An agent as far as decisions go: what it is told, and what it programs.
pub(crate) struct Agent {
    pub(crate) compiler: Compiler,
    pub(crate) programmed: BTreeMap<Frontend, FrontendPlan>,
    pub(crate) held: BTreeSet<Frontend>,
}

impl Agent {
    /// One that has been told of nothing.
    pub(crate) fn new() -> Self {
        let mut compiler = Compiler::new(Settings::default());
        for kind in Kind::known() {
            compiler.know(kind, Knowledge::Incomplete);
        }
        Self {
            compiler,
            programmed: BTreeMap::new(),
            held: BTreeSet::new(),
        }
    }

    /// One that follows everything, and was told of these objects.
    pub(crate) fn following(objects: impl IntoIterator<Item = Value>) -> Self {
        let mut agent = Self::new();
        agent.put(objects);
        for kind in Kind::known() {
            agent.compiler.know(kind, Knowledge::Followed);
        }
        agent.publish();
        agent
    }

    /// The next one on the same node: it finds what is programmed, and knows nothing.
    pub(crate) fn successor(self) -> Self {
        Self {
            programmed: self.programmed,
            ..Self::new()
        }
    }

    pub(crate) fn put(&mut self, objects: impl IntoIterator<Item = Value>) {
        for value in objects {
            let object = decode(value).expect("readable").expect("of interest");
            self.compiler.apply(object);
        }
    }

    pub(crate) fn tell(&mut self, object: Value) {
        self.put([object]);
        self.publish();
    }

    pub(crate) fn delete(&mut self, kind: Kind, name: &str) {
        self.compiler.delete(&reference(kind, name));
        self.publish();
    }

    pub(crate) fn know(&mut self, kind: Kind, knowledge: Knowledge) {
        self.compiler.know(kind, knowledge);
        self.publish();
    }

    /// Programs what the compiler judges, of what changed and what is held back.
    pub(crate) fn publish(&mut self) {
        let mut frontends = self.compiler.compile().frontends;
        frontends.extend(&self.held);
        let is_new = |frontend: &&Frontend| !self.compiler.plan().frontends.contains_key(frontend);
        frontends.extend(self.programmed.keys().filter(is_new));
        for frontend in frontends {
            let judgement = self
                .compiler
                .judge(&frontend, self.programmed.get(&frontend));
            if judgement.waits_for.is_empty() {
                self.held.remove(&frontend);
            } else {
                self.held.insert(frontend);
            }
            match judgement.split.map(std::borrow::Cow::into_owned) {
                Some(split) => self.programmed.insert(frontend, split),
                None => self.programmed.remove(&frontend),
            };
        }
    }

    pub(crate) fn at(&self, address: &str) -> Option<&FrontendPlan> {
        self.programmed.get(&frontend(address))
    }

    fn decision(&self) -> Option<Decision> {
        self.at(VIP).map(|split| split.decision)
    }

    fn shares(&self) -> Vec<(&str, u32)> {
        let leaves = &self.at(VIP).expect("a frontend").leaves;
        leaves
            .iter()
            .map(|leaf| (leaf.service.as_str(), leaf.share))
            .collect()
    }

    fn endpoints(&self, leaf: usize) -> Vec<String> {
        let leaf = &self.at(VIP).expect("a frontend").leaves[leaf];
        leaf.endpoints.iter().map(ToString::to_string).collect()
    }

    pub(crate) fn waits_for(&self) -> Vec<Kind> {
        self.waits_for_at(VIP)
    }

    pub(crate) fn waits_for_at(&self, address: &str) -> Vec<Kind> {
        let judgement = self.compiler.judge(&frontend(address), self.at(address));
        judgement.waits_for.into_iter().collect()
    }

    fn reasons(&self) -> Vec<(&'static str, String)> {
        let of = reference(Kind::TRAFFIC_SPLIT, "canary");
        let said = self.compiler.diagnostics(&of).into_iter();
        said.map(|said| (said.reason, said.message.clone()))
            .collect()
    }
}

pub(crate) fn frontend(address: &str) -> Frontend {
    let address: SocketAddr = address.parse().unwrap();
    let protocol = Protocol::Tcp;
    Frontend {
        address,
        protocol,
        clients: ClientScope::EVERYONE,
    }
}

pub(crate) fn reference(kind: Kind, name: &str) -> ObjectReference {
    ObjectReference {
        kind: kind.name().to_owned(),
        name: splitter_agent::objects::ObjectName::new(NAMESPACE, name),
    }
}

const NOT_KNOWN_YET: Option<Decision> = Some(Decision::PassThrough(Reason::NotKnownYet));

/// Case: UNKNOWN-NEW-SPLIT
#[test]
fn a_split_made_while_slices_are_not_followed_passes_through_until_they_are() {
    let mut agent = Agent::following([root(), service("web-1", "10.96.0.11")]);
    agent.know(Kind::ENDPOINT_SLICE, Knowledge::Stale);
    agent.tell(split("canary", "web", &[("web-1", json!(1))]));
    assert_eq!(agent.decision(), NOT_KNOWN_YET);
    assert_eq!(agent.waits_for(), [Kind::ENDPOINT_SLICE]);
    match agent.reasons().as_slice() {
        [("NotKnownYet", message)] => {
            assert!(
                message.contains("EndpointSlices are not followed (endpoints of web-1 unknown)"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
    agent.know(Kind::ENDPOINT_SLICE, Knowledge::Followed);
    // Now it is known.
    let refused = Decision::Refuse(Reason::NoReadyEndpoints);
    assert_eq!(agent.decision(), Some(refused));
    assert_eq!(agent.reasons()[0].0, "NoReadyEndpoints");
    assert_eq!(agent.waits_for(), []);
}

/// Case: UNKNOWN-WEIGHTS
#[test]
fn a_slice_that_is_told_of_ends_the_wait_before_its_kind_is_followed() {
    let mut agent = Agent::following([root(), service("web-1", "10.96.0.11")]);
    agent.know(Kind::ENDPOINT_SLICE, Knowledge::Stale);
    agent.tell(split("canary", "web", &[("web-1", json!(1))]));
    agent.tell(slice("web-1", &["10.0.0.1"]));
    assert_eq!(agent.shares(), [("web-1", 1)]);
    assert_eq!(agent.reasons()[0].0, "Accepted");
}

/// Case: UNKNOWN-KEEPS
#[test]
fn a_leaf_first_named_while_slices_are_not_followed_leaves_the_split_as_it_was() {
    let mut agent = Agent::following(world().into_iter().chain([canary(9, 1)]));
    agent.know(Kind::ENDPOINT_SLICE, Knowledge::Stale);
    agent.tell(service("web-3", "10.96.0.13"));
    agent.tell(split(
        "canary",
        "web",
        &[("web-1", json!(1)), ("web-3", json!(1))],
    ));
    assert_eq!(agent.shares(), [("web-1", 9), ("web-2", 1)]);
    assert_eq!(agent.waits_for(), [Kind::ENDPOINT_SLICE]);
    // What is known of the leaves that stay is followed all the same.
    agent.tell(slice("web-1", &["10.0.0.7"]));
    assert_eq!(agent.endpoints(0), ["10.0.0.7:8080"]);
    agent.know(Kind::ENDPOINT_SLICE, Knowledge::Followed);
    assert_eq!(agent.shares(), [("web-1", 1), ("web-3", 0)]);
}

/// Case: UNKNOWN-WEIGHTS
#[test]
fn only_weights_of_known_leaves_change_at_once() {
    let mut agent = Agent::following(world().into_iter().chain([canary(9, 1)]));
    for kind in Kind::followed() {
        agent.know(kind, Knowledge::Stale);
    }
    agent.tell(canary(1, 1));
    assert_eq!(agent.shares(), [("web-1", 1), ("web-2", 1)]);
    assert_eq!(agent.waits_for(), []);
    assert_eq!(agent.reasons()[0].0, "Accepted");
}

/// Case: UNKNOWN-KEEPS
#[test]
fn a_leaf_that_was_left_out_before_stays_so_and_the_others_are_followed() {
    let objects = [root(), service("web-2", "10.96.0.12")];
    let objects = objects
        .into_iter()
        .chain(leaf("web-1", "10.96.0.11", &["10.0.0.1"]));
    let mut agent = Agent::following(objects.chain([canary(9, 1)]));
    assert_eq!(agent.shares(), [("web-1", 1), ("web-2", 0)]);
    agent.know(Kind::SERVICE, Knowledge::Stale);
    agent.know(Kind::ENDPOINT_SLICE, Knowledge::Stale);
    agent.tell(slice("web-1", &["10.0.0.5", "10.0.0.6"]));
    assert_eq!(agent.shares(), [("web-1", 1), ("web-2", 0)]);
    assert_eq!(agent.endpoints(0), ["10.0.0.5:8080", "10.0.0.6:8080"]);
    // But it does not get everything: whether it has endpoints is not known.
    agent.tell(canary(0, 1));
    assert_eq!(agent.shares(), [("web-1", 1), ("web-2", 0)]);
    assert_eq!(agent.waits_for(), [Kind::SERVICE, Kind::ENDPOINT_SLICE]);
}

/// Case: UNKNOWN-KEEPS
#[test]
fn a_leaf_whose_last_endpoint_is_told_to_be_gone_is_kept_until_it_is_certain() {
    let mut agent = Agent::following(world().into_iter().chain([canary(9, 1)]));
    agent.know(Kind::ENDPOINT_SLICE, Knowledge::Stale);
    agent.tell(slice("web-2", &[]));
    // Another slice may have come that has not been told of yet.
    assert_eq!(agent.shares(), [("web-1", 9), ("web-2", 1)]);
    agent.know(Kind::ENDPOINT_SLICE, Knowledge::Followed);
    assert_eq!(agent.shares(), [("web-1", 1), ("web-2", 0)]);
}

/// Case: UNKNOWN-KEEPS
#[test]
fn a_leaf_service_that_was_never_heard_of_is_not_missing() {
    let objects = || world().into_iter().chain([canary(9, 1)]);
    let mut agent = Agent::following(objects());
    agent.know(Kind::SERVICE, Knowledge::Stale);
    agent.tell(split(
        "canary",
        "web",
        &[("web-1", json!(1)), ("new", json!(1))],
    ));
    assert_eq!(agent.shares(), [("web-1", 9), ("web-2", 1)]);
    agent.know(Kind::SERVICE, Knowledge::Followed);
    assert_eq!(agent.shares(), [("web-1", 1), ("new", 0)]);
}

/// Case: UNKNOWN-DELETED
#[test]
fn deleting_a_split_is_effective_whatever_else_is_not_known() {
    for lost in Kind::followed() {
        let mut agent = Agent::following(world().into_iter().chain([canary(9, 1)]));
        agent.know(lost, Knowledge::Stale);
        agent.delete(Kind::TRAFFIC_SPLIT, "canary");
        assert_eq!(agent.programmed, BTreeMap::new(), "{lost}");
    }
}

/// Case: UNKNOWN-NEW-AGENT
#[test]
fn what_an_agent_finds_programmed_stays_until_its_objects_are_known() {
    let agent = Agent::following(world().into_iter().chain([canary(9, 1)]));
    let found = agent.programmed.clone();
    let mut agent = agent.successor();
    agent.publish();
    assert_eq!(agent.programmed, found);
    assert_eq!(agent.waits_for(), [Kind::TRAFFIC_SPLIT]);
    // All of it is still there, but is told of bit by bit.
    agent.tell(canary(9, 1));
    for kind in Kind::routes() {
        agent.know(kind, Knowledge::Followed);
        assert_eq!(agent.programmed, found);
    }
    assert_eq!(agent.waits_for(), [Kind::SERVICE]);
    agent.tell(root());
    assert_eq!(agent.programmed, found);
    for object in world() {
        agent.tell(object);
        assert_eq!(agent.programmed, found);
    }
    agent.know(Kind::ENDPOINT_SLICE, Knowledge::Followed);
    agent.know(Kind::SERVICE, Knowledge::Followed);
    assert_eq!(agent.programmed, found);
    assert_eq!(agent.waits_for(), []);
}

/// Case: UNKNOWN-NEW-AGENT
#[test]
fn what_an_agent_finds_programmed_goes_when_it_is_known_that_nobody_asks_for_it() {
    let agent = Agent::following(world().into_iter().chain([canary(9, 1)]));
    let mut agent = agent.successor();
    agent.publish();
    agent.know(Kind::TRAFFIC_SPLIT, Knowledge::Followed);
    assert_eq!(agent.programmed, BTreeMap::new());
}

/// Case: UNKNOWN-NEW-AGENT
#[test]
fn a_root_that_moved_leaves_nothing_behind() {
    let agent = Agent::following(world().into_iter().chain([canary(9, 1)]));
    let mut agent = agent.successor();
    agent.tell(canary(9, 1));
    agent.tell(service("web", "10.96.0.2"));
    agent.know(Kind::TRAFFIC_SPLIT, Knowledge::Followed);
    assert_eq!(agent.at(VIP), None);
    let not_known_yet = agent.at("10.96.0.2:80").expect("a record");
    assert_eq!(Some(not_known_yet.decision), NOT_KNOWN_YET);
    let states: Vec<_> = not_known_yet.leaves.iter().map(|leaf| leaf.state).collect();
    assert_eq!(states, [LeafState::NotKnownYet; 2]);
}

/// Case: UNKNOWN-KEEPS
#[test]
fn slices_of_a_service_that_are_not_all_told_of_do_not_take_endpoints_away() {
    let second = slice_of(
        "web-2-1",
        "web-2",
        &json!({"ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.0.0.3"]}]}),
    );
    let objects = || world().into_iter().chain([second.clone(), canary(9, 1)]);
    let agent = Agent::following(objects());
    let mut agent = agent.successor();
    agent.put(world().into_iter().chain([canary(9, 1)]));
    agent.know(Kind::SERVICE, Knowledge::Followed);
    agent.know(Kind::TRAFFIC_SPLIT, Knowledge::Followed);
    assert_eq!(agent.endpoints(1), ["10.0.0.2:8080", "10.0.0.3:8080"]);
    agent.know(Kind::ENDPOINT_SLICE, Knowledge::Followed);
    assert_eq!(agent.endpoints(1), ["10.0.0.2:8080"]);
}

/// Case: UNKNOWN-CERTAIN
#[test]
fn what_depends_on_no_other_object_is_decided_at_once() {
    let mut agent = Agent::following(world());
    for kind in [Kind::SERVICE, Kind::ENDPOINT_SLICE] {
        agent.know(kind, Knowledge::Stale);
    }
    agent.tell(canary(0, 0));
    let nowhere = Decision::Refuse(Reason::AllWeightsZero);
    assert_eq!(agent.decision(), Some(nowhere));
    agent.tell(canary(9, -1));
    let refused = Decision::PassThrough(Reason::ObjectRefused);
    assert_eq!(agent.decision(), Some(refused));
}

/// A slice of `web-1` with a ready endpoint that its Service, as it was told of, does not lead to.
///
/// Case: UNKNOWN-KEEPS
#[test]
fn a_leaf_whose_service_changed_unheard_keeps_its_share() {
    let slice = |port: &str, address: &str| {
        let family = if address.contains(':') {
            "IPv6"
        } else {
            "IPv4"
        };
        let content = json!({
            "addressType": family, "ports": [{"name": port, "port": 8080}],
            "endpoints": [{
                "addresses": [address], "conditions": {"ready": true}, "nodeName": "elsewhere",
            }],
        });
        slice_of("web-1-0", "web-1", &content)
    };
    for (unheard, slice) in [
        ("its port has another name", slice("web", "10.0.0.7")),
        ("its addresses are of another family", slice("", "fd00::7")),
    ] {
        let mut agent = Agent::following(world().into_iter().chain([canary(9, 1)]));
        agent.know(Kind::SERVICE, Knowledge::Stale);
        agent.tell(slice.clone());
        assert_eq!(agent.shares(), [("web-1", 9), ("web-2", 1)], "{unheard}");
        assert_eq!(agent.waits_for(), [Kind::SERVICE], "{unheard}");
        agent.know(Kind::SERVICE, Knowledge::Followed);
        assert_eq!(agent.shares(), [("web-1", 0), ("web-2", 1)], "{unheard}");
    }
}

/// Case: UNKNOWN-CERTAIN
#[test]
fn a_leaf_without_any_endpoint_is_left_out_though_services_are_not_followed() {
    let mut agent = Agent::following(world().into_iter().chain([canary(9, 1)]));
    agent.know(Kind::SERVICE, Knowledge::Stale);
    agent.tell(slice("web-1", &[]));
    assert_eq!(agent.shares(), [("web-1", 0), ("web-2", 1)]);
    assert_eq!(agent.waits_for(), []);
}
