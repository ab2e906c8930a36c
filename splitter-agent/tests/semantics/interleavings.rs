//! What is not known is not absent, whatever happens in a cluster and to the feeds of an agent.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use splitter_agent::compile::{Knowledge, Settings, compile};
use splitter_agent::objects::{Kind, Object, ObjectReference, Objects, decode};
use splitter_agent::plan::{Decision, Frontend, FrontendPlan};
use splitter_common::layout::Reason;

use crate::fixtures::{NAMESPACE, read, service, slice_of, split, with};
use crate::istio::{destination_rule, to, virtual_service};
use crate::knowledge::Agent;

/// What happens in a cluster and to the feeds of one agent.
#[derive(Clone, Debug)]
enum Event {
    /// An object comes, or changes.
    Put(Value),
    /// An object goes.
    Remove(Value),
    /// A kind is not followed any more.
    Break(Kind),
    /// A list that breaks off: so many of the objects of a kind are told.
    BrokenList(Kind, usize),
    /// A kind is listed, and followed again.
    Return(Kind),
}

fn leaf_name() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec!["web-1", "web-2", "web-3"])
}

fn object() -> impl Strategy<Value = Value> {
    let services = (0..4usize, 0..6u8).prop_map(|(number, form)| {
        let name = ["web", "web-1", "web-2", "web-3"][number];
        let service = service(name, &format!("10.96.0.{}", number + 1));
        match form {
            0 => with(service, &json!({"spec": {"ports": [{"port": 81}]}})),
            1 => with(service, &json!({"spec": {"type": "ExternalName"}})),
            _ => service,
        }
    });
    let endpoint = (1..4u8, any::<bool>()).prop_map(|(number, ready)| {
        json!({"addresses": [format!("10.0.0.{number}")], "conditions": {"ready": ready},
            "targetRef": {"kind": "Pod", "name": format!("p{number}"), "uid": format!("uid-{number}")}})
    });
    let endpoints = proptest::collection::vec(endpoint, 0..3);
    let slices = (leaf_name(), 0..2u8, endpoints).prop_map(|(leaf, number, endpoints)| {
        let content = json!({"ports": [{"port": 8080}], "endpoints": endpoints});
        slice_of(&format!("{leaf}-{number}"), leaf, &content)
    });
    let weight = proptest::sample::select(vec![0, 1, 1, 2]);
    let backends = proptest::collection::vec((leaf_name(), weight), 1..4);
    let splits = (any::<bool>(), backends).prop_map(|(second, backends)| {
        let backends: Vec<_> = backends
            .into_iter()
            .map(|(leaf, weight)| (leaf, json!(weight)))
            .collect();
        split(if second { "b" } else { "a" }, "web", &backends)
    });
    let version = || proptest::sample::select(vec!["v1", "v2"]);
    let pods = (1..4u8, version()).prop_map(|(number, version)| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{number}"),
            "namespace": NAMESPACE, "uid": format!("uid-{number}"), "labels": {"version": version}}})
    });
    let rules = (leaf_name(), version(), 0..2u8, 0..6u8).prop_map(|(host, version, number, form)| {
        let subsets = json!([{"name": "v1", "labels": {"version": version}}]);
        let mode = if form == 0 { "SIMPLE" } else { "DISABLE" };
        destination_rule(
            &format!("{host}-{number}"),
            &json!({"host": host, "subsets": subsets, "trafficPolicy": {"tls": {"mode": mode}}}),
        )
    });
    let subset = proptest::sample::select(vec![json!(null), json!("v1"), json!("v1"), json!("v2")]);
    let weight = proptest::sample::select(vec![0, 1, 2]);
    let route = proptest::collection::vec((leaf_name(), subset, weight), 1..4);
    let virtual_services = (any::<bool>(), route).prop_map(|(second, route)| {
        let route: Vec<Value> = route
            .into_iter()
            .map(|(leaf, subset, weight)| to(leaf, subset, weight))
            .collect();
        let spec = json!({"hosts": ["web"], "http": [{"route": route}]});
        virtual_service(if second { "b" } else { "a" }, &spec)
    });
    // One delegates all of its rules, or part of them; the other is the delegate, or none.
    let matches =
        || proptest::sample::select(vec![json!(null), json!([{"sourceLabels": {"a": "b"}}])]);
    let delegating = (matches(), leaf_name()).prop_map(|(matches, leaf)| {
        let rules = json!([
            {"match": matches, "delegate": {"name": "d"}}, {"route": [to(leaf, Value::Null, 1)]},
        ]);
        virtual_service("a", &json!({"hosts": ["web"], "http": rules}))
    });
    let delegates = (0..4u8, matches(), leaf_name()).prop_map(|(form, matches, leaf)| {
        let rule = json!({"match": matches, "route": [to(leaf, Value::Null, 1)]});
        let spec = match form {
            0 => json!({"hosts": ["web-1"], "http": [rule]}),
            1 => json!({"exportTo": ["elsewhere"], "http": [rule]}),
            _ => json!({"http": [rule]}),
        };
        virtual_service("d", &spec)
    });
    prop_oneof![
        3 => services, 4 => slices, 2 => splits, 3 => pods, 3 => rules, 3 => virtual_services,
        2 => delegating, 2 => delegates,
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let kind = || proptest::sample::select(Kind::known().collect::<Vec<_>>());
    prop_oneof![
        8 => object().prop_map(Event::Put),
        3 => object().prop_map(Event::Remove),
        3 => kind().prop_map(Event::Break),
        2 => (kind(), 0..5usize).prop_map(|(kind, most)| Event::BrokenList(kind, most)),
        3 => kind().prop_map(Event::Return),
    ]
}

/// A cluster, and an agent that follows it as well as it can.
struct Scene {
    truth: BTreeMap<String, Value>,
    agent: Agent,
    told: BTreeMap<String, Value>,
    followed: BTreeSet<Kind>,
    /// What there was at each moment since everything was followed last.
    past: Vec<Objects>,
}

fn key(value: &Value) -> String {
    format!("{}/{}", kind_of(value).name(), value["metadata"]["name"])
}

fn kind_of(value: &Value) -> Kind {
    Kind::from_name(value["kind"].as_str().unwrap()).unwrap()
}

fn reference_of(value: &Value) -> ObjectReference {
    decode(value.clone())
        .unwrap()
        .as_ref()
        .map(Object::reference)
        .unwrap()
}

impl Scene {
    fn new() -> Self {
        Self {
            truth: BTreeMap::new(),
            agent: Agent::new(),
            told: BTreeMap::new(),
            followed: BTreeSet::new(),
            past: Vec::new(),
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Put(value) => {
                self.truth.insert(key(&value), value.clone());
                self.remember();
                if self.followed.contains(&kind_of(&value)) {
                    self.tell(value)?;
                }
            }
            Event::Remove(value) => {
                let Some(value) = self.truth.remove(&key(&value)) else {
                    return Ok(());
                };
                self.remember();
                if self.followed.contains(&kind_of(&value)) {
                    self.untell(&value)?;
                }
            }
            Event::Break(kind) => {
                if self.followed.remove(&kind) {
                    self.agent.know(kind, Knowledge::Stale);
                }
            }
            Event::BrokenList(kind, most) => {
                if !self.followed.contains(&kind) {
                    for value in self.of(kind).into_iter().take(most) {
                        self.tell(value)?;
                    }
                }
            }
            Event::Return(kind) => self.follow(kind)?,
        }
        self.check()
    }

    fn of(&self, kind: Kind) -> Vec<Value> {
        let values = self.truth.values();
        values
            .filter(|value| kind_of(value) == kind)
            .cloned()
            .collect()
    }

    fn follow(&mut self, kind: Kind) -> Result<(), TestCaseError> {
        if self.followed.contains(&kind) {
            return Ok(());
        }
        for value in self.of(kind) {
            self.tell(value)?;
        }
        let gone = self
            .told
            .values()
            .filter(|value| kind_of(value) == kind && !self.truth.contains_key(&key(value)));
        for value in gone.cloned().collect::<Vec<_>>() {
            self.untell(&value)?;
        }
        self.followed.insert(kind);
        self.agent.know(kind, Knowledge::Followed);
        self.check()
    }

    fn tell(&mut self, value: Value) -> Result<(), TestCaseError> {
        self.told.insert(key(&value), value.clone());
        self.agent.tell(value);
        self.check()
    }

    fn untell(&mut self, value: &Value) -> Result<(), TestCaseError> {
        self.told.remove(&key(value));
        self.agent.compiler.delete(&reference_of(value));
        self.agent.publish();
        self.check()
    }

    fn remember(&mut self) {
        self.past.push(read(self.truth.values().cloned()));
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        if self.past.is_empty() {
            self.remember();
        }
        if self.followed.len() == Kind::known().count() {
            let now = read(self.told.values().cloned());
            if self.told == self.truth {
                self.past = vec![now.clone()];
            }
            let expected = compile(&now, &Settings::default());
            prop_assert_eq!(&self.agent.programmed, &expected.plan.frontends);
            prop_assert_eq!(self.agent.compiler.plan(), &expected.plan);
            prop_assert!(self.agent.held.is_empty());
        }
        for (frontend, split) in &self.agent.programmed {
            let mut left_out = split.leaves.iter().filter(|leaf| {
                split.decision == Decision::Split
                    && leaf.weight > 0
                    && (leaf.share == 0 || leaf.endpoints.is_empty())
            });
            prop_assert!(
                left_out.all(
                    |leaf| self.was(frontend, split, &[(&leaf.service, 1)], |decision| {
                        decision != Decision::Split
                    })
                ),
                "a leaf is left out that never had to be: {:#?}",
                split
            );
            if split.decision == Decision::Refuse(Reason::NoReadyEndpoints) {
                let leaves = split.leaves.iter();
                let leaves: Vec<(&str, u64)> = leaves
                    .map(|leaf| (leaf.service.as_str(), leaf.weight))
                    .collect();
                prop_assert!(
                    self.was(frontend, split, &leaves, |decision| matches!(
                        decision,
                        Decision::Refuse(_)
                    )),
                    "refused, and never had to be: {:#?}",
                    split
                );
            }
        }
        Ok(())
    }

    /// Whether at any moment the objects of the cluster gave a split of these weights such a
    /// decision, or had no such frontend.
    fn was(
        &self,
        frontend: &Frontend,
        of: &FrontendPlan,
        leaves: &[(&str, u64)],
        is_so: impl Fn(Decision) -> bool,
    ) -> bool {
        let alone = if of.origin.kind == Kind::VIRTUAL_SERVICE.name() {
            let route: Vec<Value> = leaves
                .iter()
                .map(|(leaf, weight)| match leaf.split_once('/') {
                    Some((leaf, subset)) => to(leaf, subset, *weight),
                    None => to(leaf, Value::Null, *weight),
                })
                .collect();
            let spec = json!({"hosts": [of.root.name], "http": [{"route": route}]});
            virtual_service("alone", &spec)
        } else {
            let backends = leaves.iter().map(|(leaf, weight)| (*leaf, json!(weight)));
            split("alone", &of.root.name, &backends.collect::<Vec<_>>())
        };
        let alone = decode(alone).unwrap().unwrap();
        self.past.iter().any(|objects| {
            let mut objects = objects.clone();
            objects.routes.clear();
            objects.insert(alone.clone());
            let plan = compile(&objects, &Settings::default()).plan;
            plan.frontends
                .get(frontend)
                .is_none_or(|split| is_so(split.decision))
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Case: UNKNOWN-KEEPS
    #[test]
    fn nothing_is_refused_or_left_out_for_want_of_what_was_not_told(
        start in proptest::collection::vec(object(), 0..12),
        events in proptest::collection::vec(event(), 0..40),
        end in Just(Kind::known().collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut scene = Scene::new();
        for value in start {
            scene.truth.insert(key(&value), value);
        }
        for event in events {
            scene.happen(event)?;
        }
        for kind in end {
            scene.follow(kind)?;
        }
        // Followed again, everything is as if it had always been.
        let objects = read(scene.truth.values().cloned());
        let expected = compile(&objects, &Settings::default());
        prop_assert_eq!(scene.agent.programmed, expected.plan.frontends);
        for diagnostic in &expected.diagnostics {
            let said = scene.agent.compiler.diagnostics(&diagnostic.object);
            let is_said = said.iter().any(|said| **said == *diagnostic);
            prop_assert!(is_said, "{diagnostic} is not said");
        }
        for of in objects.routes.keys() {
            let said = scene.agent.compiler.diagnostics(of).len();
            let expected = expected.diagnostics.iter().filter(|said| said.object == *of).count();
            prop_assert_eq!(said, expected);
        }
    }
}
