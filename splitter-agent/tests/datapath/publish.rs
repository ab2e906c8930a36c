//! Publishing after a crash, from partial knowledge, and into maps that are full.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use aya::maps::{Array, HashMap, Map, MapData};
use splitter_agent::datapath::{Capacity, Change, FrontendError, PublishSummary, Publisher, View};
use splitter_agent::plan::{Decision, Frontend};
use splitter_common::index::{Place, SLOTS};
use splitter_common::layout::{LeafNames, LeafState, MAX_LEAVES, Reason};
use testbed::lab::client;

use crate::common::{Scene, decided, expected, frontend, leaf, plan, root, serve, split};

#[test]
fn a_new_publisher_finds_everything_and_goes_on_counting() {
    let mut scene = Scene::new("recover");
    let (client, shop) = scene.pods();
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
    scene.publisher.publish(&plan);
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

    let programmed: BTreeMap<_, _> = publisher
        .programmed()
        .map(|(frontend, split)| (*frontend, split.clone()))
        .collect();
    assert_eq!(programmed.len(), 2);
    for (frontend, split) in &plan.frontends {
        assert_eq!(programmed[frontend].leaves, split.leaves);
        assert_eq!(programmed[frontend].decision, split.decision);
    }
    assert!(publisher.publish(&plan).is_empty());

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
    publisher.publish(&larger);
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
fn frontends_that_are_not_named_stay_as_they_are() {
    let mut scene = Scene::new("some");
    let (one, two): (SocketAddr, SocketAddr) = (
        "10.244.0.9:80".parse().unwrap(),
        "10.244.0.8:80".parse().unwrap(),
    );
    let other = frontend("10.96.0.11:14001");
    let third = frontend("10.96.0.12:14001");
    let gone = frontend("10.96.0.13:14001");
    let whole = split(vec![leaf("v1", 1, &[one]), leaf("v2", 1, &[two])]);
    scene.publish(&[root(), other, gone].map(|frontend| (frontend, whole.clone())));

    // The plan lacks the root, which is not named, and one that is.
    let mut degraded = whole.clone();
    degraded.leaves[1].share = 0;
    degraded.leaves[1].state = LeafState::ServiceMissing;
    let plan = plan(&[(other, degraded.clone()), (third, whole.clone())]);
    let named = [other, third, gone].into();
    let summary = scene.publisher.publish_some(&plan, &named);

    assert_eq!(summary.removed, [gone]);
    assert_eq!(summary.installed.len(), 2);
    assert_eq!(scene.view(root()).plan.leaves, whole.leaves);
    assert_eq!(scene.view(other).plan.leaves, degraded.leaves);
    assert_eq!(scene.view(third).plan.leaves, whole.leaves);
}

#[test]
fn endpoints_move_where_a_leaf_lacked_its_share_all_along() {
    let mut scene = Scene::new("endpoints");
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

    let summary = scene.publisher.publish(&plan(&with(new)));

    assert_eq!(summary.installed[0].change, Change::Endpoints);
    assert_eq!(scene.view(root()).plan.leaves[0].endpoints, [new]);
}

#[test]
fn a_block_that_has_begun_ends_exactly_though_the_agent_and_its_node_name_change() {
    let mut scene = Scene::new("mid-block");
    let (client, shop) = scene.pods();
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

    // Too many endpoints for the map, on a programmed frontend and on a new one.
    let huge = split(vec![leaf("v1", 1, &addresses)]);
    let other = frontend("10.96.0.11:14001");
    let third = frontend("10.96.0.12:14001");
    let report = scene.publisher.publish(&plan(&[
        (root(), huge.clone()),
        (other, huge),
        (third, modest.clone()),
    ]));

    assert_eq!(report.failed.len(), 2);
    for (_, error) in &report.failed {
        let FrontendError::Full { map, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(*map, "ENDPOINTS");
        assert!(error.to_string().contains("--max-endpoints"), "{error}");
    }
    assert_eq!(scene.view(root()).plan.leaves, modest.leaves);
    assert_eq!(scene.view(third).plan.leaves, modest.leaves);
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
    let report = scene.publisher.publish(&plan(&many));
    assert_eq!(report.installed.len(), 4);
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
        let report = scene.publisher.publish(&plan(&splits));
        assert!(report.failed.is_empty(), "round {round}: {report:?}");
    }
    scene.publish(&[]);
    // Everything is free again: the largest split that ever fitted fits once more.
    let largest = split(vec![leaf("v1", 1, &addresses)]);
    scene.publish(&[(root(), largest)]);
    let names = MapData::from_pin(scene.programs.layout().map("LEAF_NAMES")).unwrap();
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
        report
            .installed
            .iter()
            .map(|put| put.change)
            .collect::<Vec<_>>()
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

/// Two frontends that have one slot of the index.
fn of_one_slot() -> [Frontend; 2] {
    let place = |frontend: &Frontend| Place::of(&frontend.key()).slot;
    let first = root();
    let mut others = (1..u16::MAX).map(|port| Frontend {
        address: SocketAddr::from((first.address.ip(), port)),
        ..first
    });
    let other = others
        .find(|other| *other != first && place(other) == place(&first))
        .expect("one of so many");
    [first, other]
}

#[test]
fn frontends_of_one_slot_of_the_index_are_told_apart_as_they_come_and_go() {
    let mut scene = Scene::new("index-slot");
    let (client, shop) = scene.pods();
    let (_one, one) = serve(&shop, 81, "one");
    let (_two, two) = serve(&shop, 82, "two");
    let [first, second] = of_one_slot();
    let first = (first, split(vec![leaf("v1", 1, &[one])]));
    let changed = (first.0, split(vec![leaf("v2", 1, &[two])]));
    let second = (second, split(vec![leaf("v1", 1, &[two])]));
    let tag = |frontend: Frontend| {
        let address = frontend.address;
        client.run(move || client::read_tag(address).ok()).unwrap()
    };
    let (one, two) = (Some("one".to_owned()), Some("two".to_owned()));
    for (splits, expected) in [
        (vec![first.clone()], [one.clone(), None]),
        (
            vec![first.clone(), second.clone()],
            [one.clone(), two.clone()],
        ),
        (vec![second.clone()], [None, two.clone()]),
        (vec![], [None, None]),
        (vec![first.clone()], [one.clone(), None]),
        // One that changes: alone, beside the other, and when it is alone again.
        (vec![changed.clone()], [two.clone(), None]),
        (
            vec![first.clone(), second.clone()],
            [one.clone(), two.clone()],
        ),
        (vec![changed, second.clone()], [two.clone(), two]),
        (vec![first.clone()], [one, None]),
    ] {
        scene.publish(&splits);
        assert_eq!([tag(first.0), tag(second.0)], expected, "{splits:?}");
    }
    assert_eq!(scene.verdict_count("inconsistent"), 0);
}

#[test]
fn a_new_publisher_puts_the_index_right() {
    let mut scene = Scene::new("index-recover");
    let (client, shop) = scene.pods();
    let (_one, one) = serve(&shop, 81, "one");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[one])]))]);
    let connect = || {
        let address = root().address;
        client.run(move || client::read_tag(address).ok()).unwrap()
    };
    let path = scene.programs.layout().map("FRONTEND_INDEX");
    let map = MapData::from_pin(path).unwrap();
    let mut index = Array::<_, u64>::try_from(Map::Array(map)).unwrap();
    // What leads elsewhere is not believed.
    let slot = Place::of(&root().key()).slot;
    let right = index.get(&slot, 0).unwrap();
    index.set(slot, right + 1, 0).unwrap();
    assert_eq!(connect().as_deref(), Some("one"));
    index.set(slot, 0, 0).unwrap();
    assert_eq!(connect(), None);
    for other in 0..SLOTS {
        if other != slot {
            index.set(other, right, 0).unwrap();
        }
    }

    let publisher = Publisher::open(&scene.pins, 0).unwrap();

    assert_eq!(connect().as_deref(), Some("one"));
    for other in 0..SLOTS {
        let expected = if other == slot { right } else { 0 };
        assert_eq!(index.get(&other, 0).unwrap(), expected, "{other}");
    }
    drop(publisher);
}

/// Counts of more than seven leaves are in several records.
#[test]
fn each_of_many_leaves_is_counted_by_itself() {
    let mut scene = Scene::new("counters");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 81, "one");
    let many = |weight| {
        let leaves = 0..MAX_LEAVES;
        split(
            leaves
                .map(|number| leaf(&format!("v{number}"), weight, &[endpoint]))
                .collect(),
        )
    };
    let [first, second] = [root(), frontend("10.96.0.11:14001")];
    scene.publish(&[(first, many(1)), (second, many(2))]);

    for (frontend, each) in [(first, 1), (second, 2)] {
        let address = frontend.address;
        let connections = u64::from(each * MAX_LEAVES);
        client
            .run(|| client::count_tags(address, connections))
            .unwrap();
        let view = scene.view(frontend);
        assert_eq!(view.connections, connections);
        let counts = view.leaves.iter().map(|leaf| leaf.connections);
        assert!(counts.eq((0..MAX_LEAVES).map(|_| u64::from(each))));
    }
}

/// Flows of UDP remember them for as long as there is traffic.
#[test]
fn a_new_publisher_uses_no_generation_again_though_nothing_has_it_any_more() {
    let mut scene = Scene::new("generations");
    let splits = |port| {
        let endpoint = SocketAddr::from(([10, 244, 0, 1], port));
        [(root(), split(vec![leaf("v1", 1, &[endpoint])]))]
    };
    let generation = |summary: PublishSummary| summary.installed[0].generation;
    let used: Vec<u32> = (80..83)
        .map(|port| generation(scene.publish(&splits(port))))
        .collect();
    scene.publish(&[]);

    let Scene {
        lab: _lab,
        pins,
        programs: _programs,
        publisher,
    } = scene;
    drop(publisher);
    let mut publisher = Publisher::open(&pins, 0).unwrap();

    let next = generation(publisher.publish(&plan(&splits(83))));
    assert!(used.iter().all(|used| *used < next), "{used:?} {next}");
}
