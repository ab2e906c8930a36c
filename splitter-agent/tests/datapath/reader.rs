//! Reading again and again what is programmed comes to what reading it afresh comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use splitter_agent::datapath::{
    Capacity, FrontendReading, PinDirectory, Publisher, Reader, Reading, View,
};
use splitter_agent::plan::{Decision, Frontend, FrontendPlan};
use splitter_agent::reason;
use splitter_common::layout::{ClientScope, Protocol, Reason};
use splitter_common::pick::mix;
use testbed::lab::Pod;

use crate::common::{PORT, Scene, decided, leaf, load, small, split};

/// What is told of a frontend: names, decision and leaves; of each of those its name, weight, state,
/// endpoints and connections.
type Told = (String, String, Vec<(String, u64, &'static str, u64, u64)>);

fn of_reading(reading: &Reading) -> BTreeMap<String, Told> {
    let told = |split: &FrontendReading| {
        let leaves = split.leaves.iter().map(|leaf| {
            (
                leaf.service.to_string(),
                leaf.weight,
                reason::of_leaf(leaf.state),
                u64::from(leaf.endpoints),
                reading.connections(leaf),
            )
        });
        let decision = format!("{:?} by {}", split.decision, split.split);
        (split.namespace.to_string(), decision, leaves.collect())
    };
    let splits = reading.splits();
    splits
        .map(|split| (split.root.to_string(), told(split)))
        .collect()
}

fn of_view(view: &View) -> BTreeMap<String, Told> {
    let splits = view.frontends.values().map(|view| {
        let leaves = view.plan.leaves.iter().zip(&view.leaves);
        let leaves = leaves.map(|(leaf, counts)| {
            (
                leaf.service.clone(),
                leaf.weight,
                reason::of_leaf(leaf.state),
                leaf.endpoints.len() as u64,
                counts.lifetime,
            )
        });
        let origin = &view.plan.origin;
        let decision = format!("{:?} by {}", view.plan.decision, origin.name);
        let told = (origin.namespace.clone(), decision, leaves.collect());
        (view.plan.root.name.clone(), told)
    });
    splits.collect()
}

fn assert_same(reader: &mut Reader, pins: &PinDirectory) {
    let reading = reader.read().expect("maps to read");
    let view = View::open(pins).expect("maps to read");
    assert_eq!(of_reading(reading), of_view(&view));
    assert_eq!(reading.verdicts, view.verdicts);
    assert!(reading.maps.contains_key("SOCKETS"));
    assert_eq!(reading.maps, view.maps);
    assert_eq!(reading.inconsistent, view.inconsistent.len());
}

fn frontend(number: u32) -> Frontend {
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 1)) + number);
    Frontend {
        address: (address, PORT).into(),
        protocol: Protocol::Tcp,
        clients: ClientScope::EVERYONE,
    }
}

/// A split of one root for each frontend, so that the root names it.
fn named(number: u32, mut split: FrontendPlan) -> (Frontend, FrontendPlan) {
    split.root.name = format!("root-{number}");
    (frontend(number), split)
}

/// Nobody listens there, so that a connection is over at once.
fn endpoints(count: u64) -> Vec<SocketAddr> {
    let port = |number| u16::try_from(number).unwrap_or(1);
    (1..=count)
        .map(|number| (Ipv4Addr::LOCALHOST, port(number)).into())
        .collect()
}

/// Connects to each of these.
fn connect(client: &Pod, frontends: &[Frontend]) {
    client
        .run(|| {
            for frontend in frontends {
                assert!(TcpStream::connect(frontend.address).is_err());
            }
        })
        .expect("a process in the pod");
}

#[test]
fn a_reader_tells_what_a_view_tells_after_any_history() {
    let mut scene = Scene::new("reader");
    let client = scene.lab.pod("client").expect("a pod");
    let mut reader = Reader::new(scene.pins.clone());
    let mut splits = BTreeMap::new();
    let mut state = 7;
    let mut random = |below: u64| {
        state = mix(state);
        state % below
    };
    for _ in 0..60 {
        for _ in 0..=random(3) {
            let number = random(8) as u32;
            let changed = match random(6) {
                0 => None,
                1 => Some(decided(
                    Decision::Refuse(Reason::NoReadyEndpoints),
                    vec![leaf("a", 1, &[]), leaf("c", 2, &[])],
                )),
                _ => {
                    let mut leaves = vec![leaf(
                        ["a", "b"][random(2) as usize],
                        1 + random(9) as u32,
                        &endpoints(1 + random(3)),
                    )];
                    if random(2) == 0 {
                        leaves.push(leaf("c", random(2) as u32, &endpoints(1)));
                    }
                    Some(split(leaves))
                }
            };
            match changed {
                Some(split) => splits.insert(number, named(number, split)),
                None => splits.remove(&number),
            };
        }
        let plan: Vec<_> = splits.values().cloned().collect();
        scene.publish(&plan);
        let dialled: Vec<Frontend> = plan
            .iter()
            .filter(|(_, split)| split.decision == Decision::Split && random(2) == 0)
            .map(|(frontend, _)| *frontend)
            .collect();
        connect(&client, &dialled);
        if random(3) > 0 {
            assert_same(&mut reader, &scene.pins);
        }
    }
    assert_same(&mut reader, &scene.pins);
}

#[test]
fn a_leaf_of_two_frontends_is_counted_at_both_and_after_one_of_them_went() {
    let mut scene = Scene::new("reader-shared");
    let client = scene.lab.pod("client").expect("a pod");
    let mut reader = Reader::new(scene.pins.clone());
    let shared = split(vec![leaf("a", 1, &endpoints(1))]);
    scene.publish(&[(frontend(0), shared.clone()), (frontend(1), shared.clone())]);
    let count = |reader: &mut Reader| {
        let reading = reader.read().expect("maps to read");
        let counts = reading
            .splits()
            .map(|split| reading.connections(&split.leaves[0]));
        counts.collect::<BTreeSet<_>>()
    };
    assert_eq!(count(&mut reader), BTreeSet::from([0]));
    connect(&client, &[frontend(0), frontend(1), frontend(1)]);
    assert_eq!(count(&mut reader), BTreeSet::from([3]));
    connect(&client, &[frontend(1)]);
    scene.publish(&[(frontend(0), shared)]);
    assert_eq!(count(&mut reader), BTreeSet::from([4]));
}

#[test]
fn more_frontends_than_are_asked_for_at_once_are_all_told_of() {
    let capacity = Capacity {
        frontends: 20_000,
        leaves: 20_000,
        endpoints: 20_000,
    };
    let mut scene = Scene::with("reader-many", capacity, true);
    let mut reader = Reader::new(scene.pins.clone());
    let mut splits: Vec<_> = (0..10_000)
        .map(|number| named(number, split(vec![leaf("a", 1, &endpoints(1))])))
        .collect();
    scene.publish(&splits);
    assert_same(&mut reader, &scene.pins);
    splits.retain(|(frontend, _)| frontend.address.port() == PORT && frontend < &self::frontend(9));
    scene.publish(&splits);
    assert_same(&mut reader, &scene.pins);
}

#[test]
fn maps_that_are_pinned_in_the_place_of_others_are_read_from_then_on() {
    let mut scene = Scene::new("reader-anew");
    let mut reader = Reader::new(scene.pins.clone());
    scene.publish(&[named(1, split(vec![leaf("a", 1, &endpoints(1))]))]);
    assert_same(&mut reader, &scene.pins);

    let Scene {
        lab,
        pins,
        programs,
        publisher,
    } = scene;
    drop((publisher, programs));
    pins.remove().expect("pins that can be removed");
    assert!(reader.read().is_err(), "nothing is pinned");
    let programs = load(&pins, small()).expect("programs that load");
    let publisher = Publisher::open(&pins, 0).expect("maps to publish to");
    let mut scene = Scene {
        publisher,
        programs,
        pins,
        lab,
    };
    assert_same(&mut reader, &scene.pins);
    scene.publish(&[named(2, split(vec![leaf("b", 1, &endpoints(2))]))]);
    assert_same(&mut reader, &scene.pins);
    let reading = reader.read().expect("maps to read");
    assert!(of_reading(reading).contains_key("root-2"));
}
