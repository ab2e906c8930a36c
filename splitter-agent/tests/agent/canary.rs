//! What a change of the manifests does to connections.

use std::fs;

use splitter_api::{Explanation, LeafState, Verdict};

use crate::bookstore::Bookstore;
use crate::common::agent::{
    PATIENCE, bookstore, replaced, service, slice, traffic_split, weights, weights_of,
};

#[test]
fn the_canary_of_the_readme_goes_through_its_steps_exactly() {
    let store = Bookstore::new("canary");
    store.site.write("split.yaml", &weights(100, 0));
    let _agent = store.site.start(&[]);
    for (v1, v2) in [(100, 0), (50, 50), (90, 10), (0, 100)] {
        store.site.write("split.yaml", &weights(v1, v2));
        store.site.wait_for_weights(&[v1, v2]);
        assert_eq!(store.count(100), (v1, v2, 0));
        let status = store.site.wait_for_weights(&[v1, v2]);
        assert_eq!(status.connections, 100);
        assert_eq!(status.leaves[0].connections, v1);
        assert_eq!(status.leaves[1].observed, Some(v2 as f64 / 100.0));
    }
}

/// Case: SPLIT-DELETED
#[test]
fn a_split_that_is_deleted_ends_and_its_neighbour_does_not() {
    let store = Bookstore::new("delete");
    let other = weights_of("other-split", "other", 1, 1);
    store.site.write(
        "other.yaml",
        &[service("other", "10.96.0.20"), other].concat(),
    );
    store.site.write("split.yaml", &weights(1, 1));
    let _agent = store.site.start(&[]);
    assert_eq!(store.site.status().splits.len(), 2);

    fs::remove_file(store.site.manifests.path().join("split.yaml")).unwrap();

    let start = std::time::Instant::now();
    loop {
        let status = store.site.status();
        if status.splits.len() == 1 {
            assert_eq!(status.splits[0].name, "other-split");
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{status:?}");
    }
}

/// Case: OBJECT-ISOLATED
#[test]
fn a_bad_object_is_refused_by_name_and_its_neighbours_in_the_file_work() {
    let store = Bookstore::new("bad-object");
    let bad = traffic_split(&[("bookstore-v1", "-5")]);
    let bad = replaced(&bad, "bookstore-split", "bad-split");
    let bad = replaced(&bad, "bookstore.bookstore", "bad");
    let file = [service("bad", "10.96.0.30"), bad, weights(1, 1)].concat();
    store.site.write("split.yaml", &file);
    let agent = store.site.start(&[]);

    assert_eq!(store.count(10), (5, 5, 0));
    let log = agent.log();
    assert!(log.contains("bookstore/bad-split"), "{log}");
    assert!(log.contains("spec.backends[0].weight"), "{log}");
    let explained: Explanation = store.site.json(&["explain", "bad.bookstore"]);
    assert_eq!(explained.frontends[0].split.verdict, Verdict::PassThrough);
    let reason = explained.frontends[0].split.reason.as_deref();
    assert_eq!(reason, Some("ObjectRefused"));
}

/// Case: FILE-BROKEN
#[test]
fn a_broken_file_keeps_what_was_programmed_and_says_so() {
    let store = Bookstore::new("broken");
    store.site.write("split.yaml", &weights(1, 1));
    let mut agent = store.site.start(&[]);

    store
        .site
        .write("split.yaml", "kind: TrafficSplit\nspec: {backends: [\n");
    agent.wait_for_log("split.yaml");
    assert_eq!(store.count(10), (5, 5, 0));

    store.site.write("split.yaml", &weights(0, 1));
    store.site.wait_for_weights(&[0, 1]);
    assert_eq!(store.count(10), (0, 10, 0));
}

#[test]
fn a_file_that_is_broken_when_the_agent_starts_costs_nothing_that_was_programmed() {
    let store = Bookstore::new("broken-start");
    store.site.write("split.yaml", &weights(1, 1));
    store.site.start(&[]).kill();
    let services = bookstore(store.v1(), store.v2());

    // The endpoints of both leaves are in this file.
    store.site.write("services.yaml", "kind: [");
    let mut agent = store.site.start(&[]);
    agent.wait_for_log("services.yaml");
    assert_eq!(store.count(10), (5, 5, 0));

    // Readable again, with less in it: now absence means something.
    store.site.write(
        "services.yaml",
        &replaced(&services, &slice("bookstore-v2", &[store.v2()]), ""),
    );
    store
        .site
        .wait_for_split("a leaf without endpoints", |split| {
            let leaf = split.leaves.get(1);
            leaf.is_some_and(|leaf| leaf.state == LeafState::NoReadyEndpoints)
        });
    assert_eq!(store.count(10), (10, 0, 0));
}

/// Case: MAP-FULL
#[test]
fn what_does_not_fit_is_said_of_its_object_and_programmed_when_there_is_room() {
    let store = Bookstore::new("room");
    store.site.write("split.yaml", &weights(1, 1));
    let one_more = |name: &str, address: &str| {
        let split = weights_of(&format!("{name}-split"), name, 1, 1);
        store.site.write(
            &format!("{name}.yaml"),
            &[service(name, address), split].concat(),
        );
    };
    let mut agent = store.site.start(&["--max-frontends", "1"]);
    for (name, address) in [("second", "10.96.0.20"), ("third", "10.96.0.21")] {
        one_more(name, address);
        agent.wait_for_log(&format!("bookstore/{name}-split severity=refused"));
    }
    assert!(agent.log().contains("--max-frontends"), "{}", agent.log());
    assert_eq!(store.count(2), (1, 1, 0));

    fs::remove_file(store.site.manifests.path().join("split.yaml")).unwrap();
    store
        .site
        .wait_for_split("another split in its place", |split| {
            split.name == "second-split"
        });
}

#[test]
fn endpoints_that_leave_get_nothing_more() {
    let store = Bookstore::new("endpoints");
    store.site.write("split.yaml", &weights(1, 1));
    let _agent = store.site.start(&[]);
    assert_eq!(store.count(10), (5, 5, 0));

    let services = replaced(
        &bookstore(store.v1(), store.v2()),
        &slice("bookstore-v1", &[store.v1()]),
        &slice("bookstore-v1", &[]),
    );
    store.site.write("services.yaml", &services);
    store
        .site
        .wait_for_split("a leaf without endpoints", |split| {
            let leaf = split.leaves.first();
            leaf.is_some_and(|leaf| leaf.state == LeafState::NoReadyEndpoints)
        });
    assert_eq!(store.count(10), (0, 10, 0));

    // And when no leaf has any: refused.
    let services = replaced(
        &services,
        &slice("bookstore-v2", &[store.v2()]),
        &slice("bookstore-v2", &[]),
    );
    store.site.write("services.yaml", &services);
    store
        .site
        .wait_for_split("refused", |split| split.verdict == Verdict::Refuse);
    assert_eq!(store.count(3), (0, 0, 3));
}
