//! How much work the agent makes of objects that arrive one by one, as they do from an API server
//! that is slower than the agent.

use std::net::SocketAddr;

use serde_json::{Value, json};
use splitter_agent::agent::{Agent, Attachment};
use splitter_agent::compile::{Knowledge, Settings};
use splitter_agent::datapath::{PinDirectory, Publisher, View};
use splitter_agent::objects::{Kind, ObjectName, ObjectReference, decode};
use splitter_agent::plan::Decision;
use splitter_agent::report::{AgentState, DiagnosticStore};
use splitter_agent::source::Change;
use testbed::fixtures::manifests::{endpoints, service_at, traffic_split};
use testbed::lab::Lab;

use crate::common::{load, small};

const NAMESPACE: &str = "shop";
const PORT: u16 = 80;
const ROOTS: usize = 20;
const LEAVES: [&str; 2] = ["a", "b"];

/// An agent in a lab, which is told one thing after the other.
struct Told {
    agent: Agent,
    state: AgentState,
    diagnostics: DiagnosticStore,
    pins: PinDirectory,
    _lab: Lab,
}

impl Told {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name).unwrap();
        let pins = PinDirectory::new(lab.pin_directory());
        let programs = load(&pins, small()).unwrap();
        let (state, diagnostics) = (AgentState::default(), DiagnosticStore::default());
        let agent = Agent::new(
            Publisher::of(&programs, 0).unwrap(),
            programs,
            pins.clone(),
            Attachment::new(pins.clone(), &[lab.cgroup().to_owned()]).unwrap(),
            Settings::default(),
            diagnostics.clone(),
            state.clone(),
        );
        Self {
            agent,
            state,
            diagnostics,
            pins,
            _lab: lab,
        }
    }

    fn tell(&mut self, change: Change) {
        self.agent.apply(vec![change]).unwrap();
    }

    fn put(&mut self, value: Value) {
        self.tell(Change::Put(decode(value).unwrap().unwrap()));
    }

    /// How often roots were compiled, and how often anything was published.
    fn work(&self) -> (u64, u64) {
        let state = self.state.snapshot();
        (state.compilations, state.publications)
    }

    fn split_frontends(&self) -> usize {
        let view = View::open(&self.pins).unwrap();
        let splits = view.frontends.values();
        splits
            .filter(|it| it.plan.decision == Decision::Split)
            .count()
    }

    fn accepted(&self) -> usize {
        self.diagnostics.read(|objects| {
            let reasons = objects.map(|(_, object)| object.diagnostics[0].reason);
            reasons.filter(|reason| *reason == "Accepted").count()
        })
    }
}

fn root(number: usize) -> String {
    format!("root-{number}")
}

/// The only endpoint of a leaf.
fn endpoint(number: usize, leaf: usize, version: u8) -> SocketAddr {
    SocketAddr::from(([10, version, number as u8, leaf as u8], 8080))
}

/// The object of a split, in each API.
fn split(kind: Kind, number: usize) -> Value {
    let root = root(number);
    let [a, b] = LEAVES.map(|leaf| format!("{root}-{leaf}"));
    let metadata = json!({"namespace": NAMESPACE, "name": root});
    if kind == Kind::TRAFFIC_SPLIT {
        traffic_split("v1alpha4", NAMESPACE, &root, &root, &[(&a, 9), (&b, 1)])
    } else if kind == Kind::VIRTUAL_SERVICE {
        let route = json!([
            {"destination": {"host": a}, "weight": 9}, {"destination": {"host": b}, "weight": 1},
        ]);
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": kind.name(), "metadata": metadata,
            "spec": {"hosts": [root], "http": [{"route": route}]},
        })
    } else {
        let backends = json!([
            {"name": a, "port": PORT, "weight": 9}, {"name": b, "port": PORT, "weight": 1},
        ]);
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind.name(), "metadata": metadata,
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": root, "port": PORT}],
                "rules": [{"backendRefs": backends}],
            },
        })
    }
}

/// The order in which an API server tells of them cannot be known: here they are told root by root,
/// the split before what it names, so that each object is about a root that is known.
#[test]
fn what_arrives_before_all_is_known_is_compiled_once_and_later_changes_cost_what_they_affect() {
    for name in ["TrafficSplit", "HTTPRoute", "VirtualService"] {
        let kind = Kind::from_name(name).unwrap();
        let mut told = Told::new("arrival");
        for number in 0..ROOTS {
            told.put(split(kind, number));
            let ip = |last: usize| format!("10.96.{number}.{last}");
            told.put(service_at(NAMESPACE, &root(number), &ip(1), PORT));
            for (leaf, suffix) in LEAVES.into_iter().enumerate() {
                let service = format!("{}-{suffix}", root(number));
                told.put(service_at(NAMESPACE, &service, &ip(leaf + 2), PORT));
                let address = endpoint(number, leaf, 0);
                told.put(endpoints(NAMESPACE, &service, &[address]));
            }
        }
        for kind in Kind::followed() {
            told.tell(Change::Known(kind, Knowledge::Followed));
        }
        assert_eq!(told.work(), (0, 0), "{name}");
        told.tell(Change::Complete);
        assert_eq!(told.work(), (ROOTS as u64, 1), "{name}");
        assert_eq!(told.split_frontends(), ROOTS, "{name}");
        assert_eq!(told.accepted(), ROOTS, "{name}");

        let leaf = format!("{}-{}", root(3), LEAVES[0]);
        told.put(endpoints(NAMESPACE, &leaf, &[endpoint(3, 0, 1)]));
        assert_eq!(told.work(), (ROOTS as u64 + 1, 2), "{name}");
    }
}

/// An API server that does not answer for one kind: everything else is published all the same, and
/// what changes meanwhile costs what it affects, however much waits for that kind.
#[test]
fn while_a_kind_is_unknown_frontends_wait_for_it_and_are_released_together() {
    let mut told = Told::new("waiting");
    for number in 0..ROOTS {
        told.put(split(Kind::TRAFFIC_SPLIT, number));
        let ip = |last: usize| format!("10.96.{number}.{last}");
        told.put(service_at(NAMESPACE, &root(number), &ip(1), PORT));
        for (leaf, suffix) in LEAVES.into_iter().enumerate() {
            let service = format!("{}-{suffix}", root(number));
            told.put(service_at(NAMESPACE, &service, &ip(leaf + 2), PORT));
        }
    }
    for kind in Kind::followed().filter(|kind| *kind != Kind::ENDPOINT_SLICE) {
        told.tell(Change::Known(kind, Knowledge::Followed));
    }
    told.tell(Change::Partial);
    let held = |told: &Told| told.state.snapshot().held[&Kind::ENDPOINT_SLICE];
    assert_eq!((told.work(), held(&told)), ((ROOTS as u64, 1), ROOTS));
    assert_eq!(told.split_frontends(), 0);

    // One of them is gone, another is about a Service that is.
    let object = |kind, name: String| ObjectReference::new(kind, ObjectName::new(NAMESPACE, name));
    told.tell(Change::Deleted(object(Kind::TRAFFIC_SPLIT, root(0))));
    told.tell(Change::Deleted(object(Kind::SERVICE, root(1))));
    assert_eq!(
        (told.work(), held(&told)),
        ((ROOTS as u64 + 2, 3), ROOTS - 2)
    );

    for number in 0..ROOTS {
        for (leaf, suffix) in LEAVES.into_iter().enumerate() {
            let service = format!("{}-{suffix}", root(number));
            told.put(endpoints(NAMESPACE, &service, &[endpoint(number, leaf, 0)]));
        }
    }
    told.tell(Change::Known(Kind::ENDPOINT_SLICE, Knowledge::Followed));
    told.tell(Change::Complete);
    assert_eq!((held(&told), told.split_frontends()), (0, ROOTS - 2));
}
