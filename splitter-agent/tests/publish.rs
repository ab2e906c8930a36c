//! Publishing under load, after a crash, and into maps that are full or foreign.

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aya::maps::{Array, HashMap, Map, MapData};
use common::{Scene, decided, exists, expected, frontend, leaf, plan, root, serve, small, split};
use serde::{Deserialize, Serialize};
use splitter_agent::datapath::{
    Capacity, Change, EbpfLogLevel, Extent, FrontendError, LoadError, LoadSettings, MapsError,
    PinDirectory, PinError, Programs, Publisher, View, attached_programs,
};
use splitter_agent::plan::{Decision, PlannedSplit};
use splitter_common::layout::{LeafNames, LeafState, Reason};
use xtask::lab::{Lab, client, server};

/// One connection of a client under load.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Attempt {
    /// Nanoseconds on the monotonic clock, which all processes share.
    started: u64,
    ended: u64,
    /// Who answered, or what went wrong.
    answer: Result<String, String>,
}

fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (time.tv_sec * 1_000_000_000 + time.tv_nsec).cast_unsigned()
}

/// Connects without pause for a while.
fn attempts(target: SocketAddr, duration: Duration) -> Vec<Attempt> {
    let end = Instant::now() + duration;
    let mut attempts = Vec::new();
    while Instant::now() < end {
        let started = now();
        let answer = client::read_tag(target).map_err(|error| error.to_string());
        attempts.push(Attempt {
            started,
            ended: now(),
            answer,
        });
    }
    attempts
}

/// A state that was in force: from when it may have been, until when it may have been.
struct Phase {
    from: u64,
    until: u64,
    allowed: Vec<&'static str>,
}

#[test]
fn under_a_storm_of_changes_every_connection_gets_what_was_in_force_while_it_was_made() {
    const CLIENTS: usize = 16;
    const DURATION: Duration = Duration::from_secs(4);
    let mut scene = Scene::new("storm");
    let (client, shop) = (
        scene.lab.pod("client").unwrap(),
        scene.lab.pod("shop").unwrap(),
    );
    let names = ["a", "b", "c", "d"];
    let servers: Vec<_> = (1000..)
        .zip(names)
        .map(|(port, name)| serve(&shop, port, name))
        .collect();
    let endpoint = |index: usize| servers[index].1;
    // Weights, weights of 0, endpoints, and all of them at once.
    let states: [(PlannedSplit, Vec<&'static str>); 6] = [
        (
            split(vec![
                leaf("v1", 1, &[endpoint(0)]),
                leaf("v2", 1, &[endpoint(1)]),
            ]),
            vec!["a", "b"],
        ),
        (
            split(vec![
                leaf("v1", 1, &[endpoint(0)]),
                leaf("v2", 0, &[endpoint(1)]),
            ]),
            vec!["a"],
        ),
        (
            split(vec![
                leaf("v1", 0, &[endpoint(0)]),
                leaf("v2", 1, &[endpoint(1)]),
            ]),
            vec!["b"],
        ),
        (
            split(vec![
                leaf("v1", 0, &[endpoint(0)]),
                leaf("v2", 1, &[endpoint(2)]),
            ]),
            vec!["c"],
        ),
        (
            split(vec![
                leaf("v1", 1, &[endpoint(3)]),
                leaf("v2", 3, &[endpoint(1), endpoint(2)]),
            ]),
            vec!["b", "c", "d"],
        ),
        (split(vec![leaf("v3", 1, &[endpoint(3)])]), vec!["d"]),
    ];
    scene.publish(&[(root(), states[0].0.clone())]);
    let mut phases = vec![Phase {
        from: 0,
        until: u64::MAX,
        allowed: states[0].1.clone(),
    }];

    let vip = root().address;
    let (changes, attempts) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| client.run_within(2 * DURATION, || attempts(vip, DURATION))))
            .collect();
        let start = Instant::now();
        let mut changes: u64 = 0;
        while start.elapsed() < DURATION {
            changes += 1;
            let (state, allowed) = &states[changes as usize % states.len()];
            let from = now();
            let report = scene
                .publisher
                .publish(&plan(&[(root(), state.clone())]), Extent::Full);
            assert!(report.failed.is_empty(), "{report:?}");
            // What was in force may still be met by who was in the middle of connect();
            // such a connection began before the flip, and so before `until`.
            if let Some(last) = phases.last_mut() {
                last.until = now();
            }
            phases.push(Phase {
                from,
                until: u64::MAX,
                allowed: allowed.clone(),
            });
            // A thousand changes a second, as far as the machine can.
            let due = start + Duration::from_millis(changes);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let attempts: Vec<Attempt> = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap().unwrap())
            .collect();
        (changes, attempts)
    });

    assert!(changes > 500, "only {changes} changes");
    assert!(attempts.len() > 1000, "only {} connections", attempts.len());
    let mut telling = 0;
    for attempt in &attempts {
        let answer = attempt.answer.as_deref();
        let answer = answer.unwrap_or_else(|error| panic!("a connection failed: {error}"));
        // Phases are in order of time: the first one that ended after the attempt began.
        let first = phases.partition_point(|phase| phase.until < attempt.started);
        let during = || {
            phases[first..]
                .iter()
                .take_while(|phase| phase.from <= attempt.ended)
        };
        telling += usize::from(during().count() <= 2);
        let met = during().any(|phase| phase.allowed.contains(&answer));
        assert!(
            met,
            "{answer} answered when it was not in force: {attempt:?}"
        );
    }
    // Enough of them were made while so few states were in force that a wrong answer
    // would have been seen.
    assert!(telling > 1000, "only {telling} of {} tell", attempts.len());
    assert_eq!(scene.outcome("inconsistent"), 0);
}

#[test]
fn a_weight_of_0_gets_nothing_once_the_change_is_settled() {
    let mut scene = Scene::new("zero");
    let (client, shop) = (
        scene.lab.pod("client").unwrap(),
        scene.lab.pod("shop").unwrap(),
    );
    let (_one, one) = serve(&shop, 1000, "one");
    let (_two, two) = serve(&shop, 1001, "two");
    let with = |first, second| {
        plan(&[(
            root(),
            split(vec![leaf("v1", first, &[one]), leaf("v2", second, &[two])]),
        )])
    };
    let vip = root().address;
    let mut after = 0;
    for _ in 0..20 {
        scene.publisher.publish(&with(1, 1), Extent::Full);
        let (settled, attempts) = std::thread::scope(|scope| {
            let client = scope.spawn(|| client.run(|| attempts(vip, Duration::from_millis(200))));
            std::thread::sleep(Duration::from_millis(30));
            scene.publisher.publish(&with(1, 0), Extent::Full);
            scene.publisher.settle();
            (now(), client.join().unwrap().unwrap())
        });
        for attempt in attempts.iter().filter(|attempt| attempt.started > settled) {
            assert_eq!(attempt.answer.as_deref(), Ok("one"));
            after += 1;
        }
    }
    assert!(after > 100, "only {after} connections after the changes");
}

#[test]
fn a_new_publisher_finds_everything_and_goes_on_counting() {
    let mut scene = Scene::new("recover");
    let (client, shop) = (
        scene.lab.pod("client").unwrap(),
        scene.lab.pod("shop").unwrap(),
    );
    let (_one, one) = serve(&shop, 1000, "one");
    let (_two, two) = serve(&shop, 1001, "two");
    let vip = root().address;
    let refused = frontend("[fd96::10]:14001");
    let plan = plan(&[
        (
            root(),
            split(vec![leaf("v1", 7, &[one, two]), leaf("v2", 3, &[two])]),
        ),
        (
            refused,
            decided(
                Decision::Refuse(Reason::NoReadyEndpoints),
                vec![leaf("v1", 0, &[])],
            ),
        ),
    ]);
    scene.publisher.publish(&plan, Extent::Full);
    client.run(|| client::count_tags(vip, 13)).unwrap();
    let before = scene.view(root());

    // As after SIGKILL: nothing is tidied up.
    let Scene {
        lab,
        pins,
        programs,
        publisher,
    } = scene;
    drop((publisher, programs));
    let mut publisher = Publisher::open(&pins, 0).unwrap();

    let in_force: BTreeMap<_, _> = publisher
        .in_force()
        .map(|(frontend, split)| (*frontend, split.clone()))
        .collect();
    assert_eq!(in_force.len(), 2);
    for (frontend, split) in &plan.frontends {
        assert_eq!(in_force[frontend].leaves, split.leaves);
        assert_eq!(in_force[frontend].decision, split.decision);
    }
    assert!(publisher.publish(&plan, Extent::Full).is_empty());

    client.run(|| client::count_tags(vip, 17)).unwrap();
    let after = View::open(&pins)
        .unwrap()
        .frontends
        .remove(&root())
        .unwrap();
    assert_eq!(after.record, before.record);
    assert_eq!(after.connections, 30);
    let counts: Vec<u64> = after.leaves.iter().map(|leaf| leaf.connections).collect();
    assert_eq!(counts, expected(&after, 30));
    let lifetimes: u64 = after.leaves.iter().map(|leaf| leaf.lifetime).sum();
    assert_eq!(lifetimes, 30);

    // New records do not overwrite what the first publisher wrote.
    let more = frontend("10.96.0.99:14001");
    let mut larger = plan.clone();
    larger
        .frontends
        .insert(more, split(vec![leaf("v9", 1, &[one])]));
    publisher.publish(&larger, Extent::Full);
    client.run(|| client::count_tags(vip, 10)).unwrap();
    let after = View::open(&pins)
        .unwrap()
        .frontends
        .remove(&root())
        .unwrap();
    assert_eq!(after.record, before.record);
    assert_eq!(after.connections, 40);
    drop(lab);
}

#[test]
fn what_is_absent_from_a_partial_plan_stays_in_force() {
    let mut scene = Scene::new("partial");
    let (one, two): (SocketAddr, SocketAddr) = (
        "10.244.0.9:80".parse().unwrap(),
        "10.244.0.8:80".parse().unwrap(),
    );
    let other = frontend("10.96.0.11:14001");
    let third = frontend("10.96.0.12:14001");
    let whole = split(vec![leaf("v1", 1, &[one]), leaf("v2", 1, &[two])]);
    scene.publish(&[(root(), whole.clone()), (other, whole.clone())]);

    // One is gone, one has lost a leaf, one is new.
    let mut degraded = whole.clone();
    degraded.leaves[1].share = 0;
    degraded.leaves[1].state = LeafState::ServiceMissing;
    let report = scene.publisher.publish(
        &plan(&[(other, degraded), (third, whole.clone())]),
        Extent::Partial,
    );

    assert_eq!(report.kept, vec![root(), other]);
    assert_eq!(report.put.len(), 1);
    assert_eq!(scene.view(root()).split.leaves, whole.leaves);
    assert_eq!(scene.view(other).split.leaves, whole.leaves);
    assert_eq!(scene.view(third).split.leaves, whole.leaves);
}

#[test]
fn a_partial_plan_moves_endpoints_of_a_split_that_lacked_a_leaf_all_along() {
    let mut scene = Scene::new("partial-endpoints");
    let (old, new): (SocketAddr, SocketAddr) = (
        "10.244.0.9:80".parse().unwrap(),
        "10.244.0.8:80".parse().unwrap(),
    );
    let with = |endpoint| {
        let mut gone = leaf("v2", 0, &[]);
        gone.weight = 1;
        gone.state = LeafState::NoReadyEndpoints;
        [(root(), split(vec![leaf("v1", 1, &[endpoint]), gone]))]
    };
    scene.publish(&with(old));

    let report = scene.publisher.publish(&plan(&with(new)), Extent::Partial);

    assert_eq!(report.kept, []);
    assert_eq!(scene.view(root()).split.leaves[0].endpoints, [new]);
}

#[test]
fn a_block_that_has_begun_ends_exactly_though_the_agent_and_its_node_name_change() {
    let mut scene = Scene::new("mid-block");
    let (client, shop) = (
        scene.lab.pod("client").unwrap(),
        scene.lab.pod("shop").unwrap(),
    );
    let (_one, one) = serve(&shop, 1000, "one");
    let (_two, two) = serve(&shop, 1001, "two");
    let vip = root().address;
    for round in 0..8 {
        scene.publish(&[]);
        scene.publish(&[(
            root(),
            split(vec![leaf("v1", 9, &[one]), leaf("v2", 1, &[two])]),
        )]);
        client.run(|| client::count_tags(vip, 4)).unwrap();

        // Another agent, that would shift by another part of a turn, and other endpoints.
        scene.publisher = Publisher::open(&scene.pins, 0x1800_0000 * (round + 1)).unwrap();
        scene.publish(&[(
            root(),
            split(vec![leaf("v1", 9, &[two]), leaf("v2", 1, &[one])]),
        )]);
        client.run(|| client::count_tags(vip, 6)).unwrap();

        let view = scene.view(root());
        let counts: Vec<u64> = view.leaves.iter().map(|leaf| leaf.connections).collect();
        assert_eq!(counts, [9, 1], "round {round}");
    }
}

#[test]
fn killed_in_the_middle_of_whatever_it_does_a_publisher_leaves_valid_maps() {
    let mut scene = Scene::new("killed");
    let (client, shop) = (
        scene.lab.pod("client").unwrap(),
        scene.lab.pod("shop").unwrap(),
    );
    let (_one, one) = serve(&shop, 1000, "one");
    let (_two, two) = serve(&shop, 1001, "two");
    let steady = frontend("10.96.0.20:14001");
    let with = |round: usize| {
        let mut splits = vec![(
            steady,
            split(vec![
                leaf("steady-1", 3, &[one]),
                leaf("steady-2", 1, &[two]),
            ]),
        )];
        let name = format!("v{}", round % 5);
        let endpoints = if round % 3 == 0 {
            vec![one, two]
        } else {
            vec![two]
        };
        splits.push((
            root(),
            split(vec![
                leaf(&name, 1 + round as u32 % 7, &endpoints),
                leaf("w", 1, &[one]),
            ]),
        ));
        if round % 2 == 0 {
            splits.push((
                frontend("10.96.0.30:80"),
                split(vec![leaf(&name, 1, &endpoints)]),
            ));
        }
        plan(&splits)
    };
    scene.publish(&with(0).frontends.into_iter().collect::<Vec<_>>());
    let (vip, steady_vip) = (root().address, steady.address);
    let mut clients: Vec<_> = [vip, steady_vip]
        .into_iter()
        .map(|target| {
            client
                .start(move || {
                    loop {
                        client::read_tag(target).expect("a connection that does not fail");
                    }
                })
                .unwrap()
        })
        .collect();
    let Scene {
        lab,
        pins,
        programs,
        publisher,
    } = scene;
    drop(publisher);

    for kill in 0..25_u64 {
        let mut agent = shop
            .start(|| {
                let mut publisher = Publisher::open(&pins, 0).expect("maps to take over");
                for round in 0.. {
                    let report = publisher.publish(&with(round), Extent::Full);
                    assert!(report.failed.is_empty(), "{report:?}");
                }
            })
            .unwrap();
        std::thread::sleep(Duration::from_micros(15_000 + 1_777 * kill));
        assert!(agent.is_running(), "the publisher failed");
        agent.kill();
        let view = View::open(&pins).unwrap();
        assert!(view.inconsistent.is_empty(), "{:?}", view.inconsistent);
        assert!(view.frontends.contains_key(&root()));
    }

    assert!(
        clients.iter_mut().all(|client| client.is_running()),
        "a connection failed"
    );
    drop(clients);
    // The split that no change touched has the same record and has not lost a count.
    let view = View::open(&pins)
        .unwrap()
        .frontends
        .remove(&steady)
        .unwrap();
    assert_eq!(view.record.generation, 2);
    let counts: Vec<u64> = view.leaves.iter().map(|leaf| leaf.connections).collect();
    assert!(
        view.connections > 100,
        "only {} connections",
        view.connections
    );
    assert_eq!(counts, expected(&view, view.connections));
    assert_eq!(
        view.leaves.iter().map(|leaf| leaf.lifetime).sum::<u64>(),
        view.connections
    );
    drop((programs, lab));
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_everything_else_stays() {
    let capacity = Capacity {
        frontends: 4,
        leaves: 8,
        endpoints: 16,
    };
    let mut scene = Scene::with("full", capacity, true);
    let addresses: Vec<SocketAddr> = (0..5000)
        .map(|port| SocketAddr::from(([10, 244, 0, 9], 1000 + port)))
        .collect();
    let modest = split(vec![leaf("v1", 1, &addresses[..2])]);
    scene.publish(&[(root(), modest.clone())]);

    // Too many endpoints for the map, on a frontend in force and on a new one.
    let huge = split(vec![leaf("v1", 1, &addresses)]);
    let other = frontend("10.96.0.11:14001");
    let third = frontend("10.96.0.12:14001");
    let report = scene.publisher.publish(
        &plan(&[
            (root(), huge.clone()),
            (other, huge),
            (third, modest.clone()),
        ]),
        Extent::Full,
    );

    assert_eq!(report.failed.len(), 2);
    for (_, error) in &report.failed {
        let FrontendError::Full { map, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(*map, "ENDPOINTS");
        assert!(error.to_string().contains("--max-endpoints"), "{error}");
    }
    assert_eq!(scene.view(root()).split.leaves, modest.leaves);
    assert_eq!(scene.view(third).split.leaves, modest.leaves);
    assert!(
        !View::open(&scene.pins)
            .unwrap()
            .frontends
            .contains_key(&other)
    );

    // Too many frontends.
    let many: Vec<_> = (0..6)
        .map(|index| (frontend(&format!("10.96.1.{index}:80")), modest.clone()))
        .collect();
    let report = scene.publisher.publish(&plan(&many), Extent::Full);
    assert_eq!(report.put.len(), 4);
    assert_eq!(report.failed.len(), 2);
    for (_, error) in &report.failed {
        assert!(error.to_string().contains("--max-frontends"), "{error}");
    }

    // And there is room again when the others are gone.
    scene.publish(&many[4..]);
    assert_eq!(View::open(&scene.pins).unwrap().frontends.len(), 2);
}

#[test]
fn slots_are_used_again_and_none_is_lost() {
    let capacity = Capacity {
        frontends: 4,
        leaves: 8,
        endpoints: 64,
    };
    let mut scene = Scene::with("slots", capacity, true);
    let addresses: Vec<SocketAddr> = (0..40)
        .map(|port| SocketAddr::from(([10, 244, 0, 9], 1000 + port)))
        .collect();
    for round in 0..3000_usize {
        let count = 1 + round * 7 % 40;
        let splits: Vec<_> = (0..1 + round % 3)
            .map(|index| {
                let name = format!("v{}", round % 5);
                (
                    frontend(&format!("10.96.1.{index}:80")),
                    split(vec![
                        leaf(&name, 1, &addresses[..count / 3 + 1]),
                        leaf(
                            "other",
                            round as u32 % 2,
                            &addresses[count / 2..count / 2 + 1],
                        ),
                    ]),
                )
            })
            .collect();
        let report = scene.publisher.publish(&plan(&splits), Extent::Full);
        assert!(report.failed.is_empty(), "round {round}: {report:?}");
    }
    scene.publish(&[]);
    // Everything is free again: the largest split that ever fitted fits once more.
    let largest = split(vec![leaf("v1", 1, &addresses)]);
    scene.publish(&[(root(), largest)]);
    let names = MapData::from_pin(scene.pins.map("LEAF_NAMES")).unwrap();
    let names =
        HashMap::<_, u32, [u8; size_of::<LeafNames>()]>::try_from(Map::HashMap(names)).unwrap();
    assert_eq!(names.keys().count(), 1, "names of leaves that are gone");
}

#[test]
fn a_change_that_keeps_the_shares_is_told_from_one_that_does_not() {
    let mut scene = Scene::new("changes");
    let (one, two): (SocketAddr, SocketAddr) = (
        "10.244.0.9:80".parse().unwrap(),
        "10.244.0.8:80".parse().unwrap(),
    );
    let with = |first, second, endpoint| {
        [(
            root(),
            split(vec![
                leaf("v1", first, &[endpoint]),
                leaf("v2", second, &[two]),
            ]),
        )]
    };
    let changes: Vec<_> = [
        with(1, 1, one),
        with(1, 1, one),
        with(1, 1, two),
        with(2, 1, two),
    ]
    .into_iter()
    .map(|splits| {
        let report = scene.publish(&splits);
        report.put.iter().map(|put| put.change).collect::<Vec<_>>()
    })
    .collect();
    assert_eq!(
        changes,
        [
            vec![Change::Added],
            vec![],
            vec![Change::Endpoints],
            vec![Change::Shares],
        ]
    );
}

fn load(pins: &PinDirectory, capacity: Capacity) -> Result<Programs, LoadError> {
    Programs::load(&LoadSettings {
        pins: pins.clone(),
        capacity,
        log_level: EbpfLogLevel::Off,
        peer_names: true,
    })
}

#[test]
fn a_pinned_map_of_another_shape_is_detected_before_it_is_opened() {
    let lab = Lab::new("shape").unwrap();
    let pins = PinDirectory::new(lab.pin_directory());
    pins.create().unwrap();
    Array::<MapData, [u8; 4096]>::create(4, 0)
        .unwrap()
        .pin(pins.map("SPLITS"))
        .unwrap();

    let error = load(&pins, small()).unwrap_err();

    let LoadError::Maps(MapsError::Shape { field, found, .. }) = &error else {
        panic!("{error}");
    };
    assert_eq!((*field, found.as_str()), ("the value's size", "4096"));
    assert!(
        error.to_string().contains("splitter-agent cleanup"),
        "{error}"
    );
}

#[test]
fn maps_of_another_capacity_are_refused_with_the_flags_to_change() {
    let lab = Lab::new("capacity").unwrap();
    let pins = PinDirectory::new(lab.pin_directory());
    drop(load(&pins, small()).unwrap());
    let larger = Capacity {
        endpoints: 8192,
        ..small()
    };

    let error = load(&pins, larger).unwrap_err();

    assert!(error.to_string().contains("--max-endpoints"), "{error}");
    assert!(load(&pins, small()).is_ok());
}

#[test]
fn maps_of_other_layouts_go_and_nothing_else_does() {
    let lab = Lab::new("layouts").unwrap();
    let pins = PinDirectory::new(lab.pin_directory());
    let _programs = load(&pins, small()).unwrap();
    for name in ["v0", "v999", "vendor", "other"] {
        std::fs::create_dir(pins.path().join(name)).unwrap();
    }
    Array::<MapData, u32>::create(4, 0)
        .unwrap()
        .pin(pins.path().join("v0/FRONTENDS"))
        .unwrap();

    let removed = pins.remove_other_layouts().unwrap();

    assert_eq!(removed, [pins.path().join("v0"), pins.path().join("v999")]);
    assert!(exists(&pins.path().join("vendor")));
    assert!(exists(&pins.map("FRONTENDS")));
}

#[test]
fn only_one_agent_at_a_time_gets_the_lock() {
    let lab = Lab::new("lock").unwrap();
    let pins = PinDirectory::new(lab.pin_directory());
    pins.create().unwrap();
    let lock = pins.lock().unwrap();
    assert!(matches!(pins.lock(), Err(PinError::Locked(_))));
    drop(lock);
    assert!(pins.lock().is_ok());
}

#[test]
fn pins_only_go_on_a_bpf_file_system() {
    let directory = tempfile::tempdir().unwrap();
    let pins = PinDirectory::new(directory.path().join("pins"));
    let error = pins.create().unwrap_err();
    assert!(matches!(error, PinError::NotBpfFileSystem(_)), "{error}");
    assert!(error.to_string().contains("mount -t bpf"), "{error}");
}

#[test]
fn what_others_pinned_is_left_alone() {
    let lab = Lab::new("foreign").unwrap();
    let pins = PinDirectory::new(lab.pin_directory());
    drop(load(&pins, small()).unwrap());
    let foreign = pins.path().join("vendor");
    std::fs::create_dir(&foreign).unwrap();

    pins.remove().unwrap();

    assert!(exists(&foreign));
    assert!(!exists(&pins.maps()));
    let root = PinDirectory::new("/sys/fs/bpf");
    assert!(matches!(root.create(), Err(PinError::NotOwn(_))));
    assert!(matches!(root.remove(), Err(PinError::NotOwn(_))));

    // Something of the same form that is not ours.
    std::fs::create_dir_all(pins.path().join("links/theirs")).unwrap();
    assert!(matches!(pins.remove(), Err(PinError::Foreign(_))));
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("v20/release")).unwrap();
    let elsewhere = PinDirectory::new(directory.path());
    assert!(matches!(
        elsewhere.remove(),
        Err(PinError::NotBpfFileSystem(_))
    ));
    assert!(exists(&directory.path().join("v20/release")));
}

#[test]
fn removing_the_pins_detaches_the_programs() {
    let mut scene = Scene::new("detach");
    let client = scene.lab.pod("client").unwrap();
    let vip = root().address;
    client.add_address(vip.ip()).unwrap();
    let (_own, _) = client
        .start_ready(|ready| server::tag(common::PORT, "root", ready))
        .unwrap();
    let decision = Decision::Refuse(Reason::AllWeightsZero);
    scene.publish(&[(root(), decided(decision, vec![leaf("v1", 0, &[])]))]);
    assert_eq!(
        client.run(|| client::count_tags(vip, 1)).unwrap().failed(),
        1
    );
    assert!(
        attached_programs(&scene.pins)
            .unwrap()
            .iter()
            .all(|program| program.cgroup_id.is_some())
    );

    scene.pins.remove().unwrap();

    assert_eq!(
        client
            .run(|| client::count_tags(vip, 1))
            .unwrap()
            .of("root"),
        1
    );
    assert!(!exists(scene.pins.path()));
}

#[test]
fn programs_follow_when_another_cgroup_is_asked_for() {
    let mut scene = Scene::new("move");
    let (old, new) = (scene.lab.pod("old").unwrap(), scene.lab.pod("new").unwrap());
    let decision = Decision::Refuse(Reason::AllWeightsZero);
    scene.publish(&[(root(), decided(decision, vec![leaf("v1", 0, &[])]))]);
    let vip = root().address;
    for pod in [&old, &new] {
        pod.add_address(vip.ip()).unwrap();
    }
    let serve_root = |pod: &xtask::lab::Pod| {
        pod.start_ready(|ready| server::tag(common::PORT, "root", ready))
            .unwrap()
    };
    let _servers = (serve_root(&old), serve_root(&new));

    scene.programs.attach(new.cgroup()).unwrap();

    assert_eq!(
        old.run(|| client::count_tags(vip, 1)).unwrap().of("root"),
        1
    );
    assert_eq!(new.run(|| client::count_tags(vip, 1)).unwrap().failed(), 1);
}
