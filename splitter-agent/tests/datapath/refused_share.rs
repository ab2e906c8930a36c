//! A leaf with a share and no endpoints: its share of the connections is refused.

use std::io;
use std::net::SocketAddr;

use splitter_agent::datapath::{Change, Publisher, Reader};
use splitter_agent::plan::{FrontendPlan, PlannedLeaf};
use splitter_api::{Explanation, SplitState, Status};
use splitter_common::layout::LeafState;
use testbed::lab::{Pod, client};

use crate::common::{Scene, expected, frontend, leaf, plan, root, serve, split};

/// A leaf that keeps its share though it has no endpoints.
fn without_endpoints(service: &str, share: u32) -> PlannedLeaf {
    PlannedLeaf {
        state: LeafState::NoReadyEndpoints,
        ..leaf(service, share, &[])
    }
}

/// How many connections landed, and how many were refused; anything else fails the test.
fn dial(client: &Pod, target: SocketAddr, count: u64) -> (u64, u64) {
    client
        .run(|| {
            let (mut landed, mut refused) = (0, 0);
            for _ in 0..count {
                match client::read_tag(target) {
                    Ok(_) => landed += 1,
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => refused += 1,
                    Err(error) => panic!("{error:?}"),
                }
            }
            (landed, refused)
        })
        .unwrap()
}

fn exactly_its_share_is_refused(mut scene: Scene) {
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    let v6 = frontend("[fd96::10]:14001");
    let over_ipv6 = SocketAddr::from((shop.ipv6(), 80));
    let with = |endpoint| {
        split(vec![
            leaf("v1", 95, &[endpoint]),
            without_endpoints("v3", 5),
        ])
    };
    scene.publish(&[(root(), with(endpoint)), (v6, with(over_ipv6))]);

    for frontend in [root(), v6] {
        assert_eq!(dial(&client, frontend.address, 1000), (950, 50));
        let view = scene.view(frontend);
        assert!(view.plan.leaves[1].is_refused());
        assert_eq!(view.connections, 1000);
        let counts: Vec<u64> = view.leaves.iter().map(|leaf| leaf.connections).collect();
        assert_eq!(counts, [950, 50]);
    }

    // The same leaf at both frontends, so it has one counter.
    let leaves = scene.view(root()).leaves;
    let lifetimes: Vec<_> = leaves
        .iter()
        .map(|leaf| (leaf.lifetime, leaf.refused))
        .collect();
    assert_eq!(lifetimes, [(1900, 0), (0, 100)]);
    assert_eq!(scene.verdict_count("refused_by_leaf"), 100);
    assert_eq!(scene.verdict_count("refused"), 0);
    assert_eq!(scene.verdict_count("inconsistent"), 0);
    assert_eq!(scene.verdict_count("split"), 1900);
}

#[test]
fn exactly_the_share_of_a_leaf_without_endpoints_is_refused() {
    exactly_its_share_is_refused(Scene::new("refused-share"));
}

/// As on kernels before 6.1, where a program cannot choose the error of a connect().
#[test]
fn exactly_its_share_is_refused_where_only_a_rewrite_can_refuse() {
    exactly_its_share_is_refused(Scene::refusing_by_rewrite("rewrite-share"));
}

#[test]
fn every_connection_is_refused_if_no_leaf_has_endpoints() {
    let mut scene = Scene::new("all-refused");
    let client = scene.lab.pod("client").unwrap();
    let leaves = vec![without_endpoints("v1", 1), without_endpoints("v2", 1)];
    scene.publish(&[(root(), split(leaves))]);

    assert_eq!(dial(&client, root().address, 10), (0, 10));
    let view = scene.view(root());
    let refused: Vec<u64> = view.leaves.iter().map(|leaf| leaf.refused).collect();
    assert_eq!(refused, [5, 5]);
}

#[test]
fn a_leaf_whose_endpoints_come_and_go_keeps_its_place_in_the_block() {
    let mut scene = Scene::new("come-and-go");
    let (client, shop) = scene.pods();
    let (_one, one) = serve(&shop, 1000, "one");
    let (_two, two) = serve(&shop, 1001, "two");
    let vip = root().address;
    let with = |second| [(root(), split(vec![leaf("v1", 7, &[one]), second]))];
    scene.publish(&with(leaf("v2", 3, &[two])));
    let mut outcomes = vec![dial(&client, vip, 6)];

    for second in [without_endpoints("v2", 3), leaf("v2", 3, &[two])] {
        let summary = scene.publisher.publish(&plan(&with(second)));
        assert_eq!(summary.installed[0].change, Change::Endpoints);
        outcomes.push(dial(&client, vip, 6));
    }

    let view = scene.view(root());
    let counts: Vec<u64> = view.leaves.iter().map(|leaf| leaf.connections).collect();
    assert_eq!(counts, expected(&view, 18), "{outcomes:?}");
    // What the second leaf got in the middle, and only that, was refused.
    let in_the_middle = (6..12).filter(|n| view.leaf_of(*n) == Some(1)).count() as u64;
    assert_eq!(
        outcomes,
        [(6, 0), (6 - in_the_middle, in_the_middle), (6, 0)]
    );
    assert_eq!(view.leaves[1].refused, in_the_middle);
}

#[test]
fn a_new_publisher_and_a_reader_find_a_refused_share_as_it_is() {
    let mut scene = Scene::new("refused-recovered");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    // The leaf without endpoints first: the others' endpoints begin where its would.
    let planned = plan(&[(
        root(),
        split(vec![without_endpoints("v3", 1), leaf("v1", 1, &[endpoint])]),
    )]);
    scene.publisher.publish(&planned);
    assert_eq!(dial(&client, root().address, 10), (5, 5));

    scene.publisher = Publisher::open(&scene.pins, 0).unwrap();
    assert!(scene.publisher.publish(&planned).is_empty());
    assert_eq!(dial(&client, root().address, 10), (5, 5));

    let mut reader = Reader::new(scene.pins.clone());
    let reading = reader.read().unwrap();
    let programmed = reading.splits().next().unwrap();
    let found: Vec<_> = programmed
        .leaves
        .iter()
        .map(|leaf| {
            (
                leaf.is_refused,
                reading.refused(leaf),
                reading.connections(leaf),
            )
        })
        .collect();
    assert_eq!(found, [(true, 10, 0), (false, 0, 10)]);

    // A leaf that leaves the split takes its count along; one that takes its id begins at 0.
    scene.publish(&[(root(), split_of_one(endpoint))]);
    scene.publish(&[(
        root(),
        split(vec![leaf("v1", 1, &[endpoint]), without_endpoints("v4", 1)]),
    )]);
    assert_eq!(scene.view(root()).leaves[1].refused, 0);
}

#[test]
fn status_and_explain_say_which_leaf_is_refused_and_how_many_connections_were() {
    let mut scene = Scene::new("refused-told");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    let leaves = vec![leaf("v1", 19, &[endpoint]), without_endpoints("v3", 1)];
    scene.publish(&[(root(), split(leaves))]);
    assert_eq!(dial(&client, root().address, 40), (38, 2));

    let text = scene.command(&["status", "--all"]);
    let line =
        "5.00% of connections are refused: v3 has no endpoints (no-ready-endpoints); 2 so far";
    assert!(text.contains(line), "{text}");
    assert!(
        text.contains("refused for lack of endpoints of a leaf 2"),
        "{text}"
    );
    let status: Status = serde_json::from_str(&scene.command(&["status", "-o", "json"])).unwrap();
    assert_eq!(status.splits[0].state, SplitState::PartlyRefused);
    assert_eq!(status.splits[0].leaves[1].refused, 2);
    assert_eq!(status.verdicts.refused_by_leaf, 2);

    let text = scene.command(&["explain", "bookstore.bookstore"]);
    assert!(
        text.contains("5.00% of connections are refused: v3"),
        "{text}"
    );
    let view = scene.view(root());
    let next: Vec<Option<String>> = (40..50)
        .map(|n| (view.leaf_of(n) == Some(0)).then(|| endpoint.to_string()))
        .collect();
    let json = scene.command(&["explain", "bookstore.bookstore", "-o", "json"]);
    let explained: Explanation = serde_json::from_str(&json).unwrap();
    let found = explained.frontends[0]
        .next
        .iter()
        .map(|next| next.endpoint.clone());
    assert_eq!(found.collect::<Vec<_>>(), next);
}

fn split_of_one(endpoint: SocketAddr) -> FrontendPlan {
    split(vec![leaf("v1", 1, &[endpoint])])
}
