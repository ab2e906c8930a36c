//! What Prometheus sees.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::bookstore::Bookstore;
use crate::common::agent::{traffic_split, weights};
use crate::http::{get, start, wait_for};

/// Every series, with its labels in its name.
fn scrape(server: SocketAddr) -> BTreeMap<String, f64> {
    let answer = get(server, "/metrics");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        answer
            .head
            .contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{answer:?}"
    );
    assert!(answer.body.ends_with("# EOF\n"), "{}", answer.body);
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect(line);
            (name.to_owned(), value.parse().expect(line))
        })
        .collect()
}

fn leaf(metric: &str, leaf: &str) -> String {
    format!(
        "splitter_{metric}{{destination_namespace=\"bookstore\",destination_service=\"bookstore\",\
         backend=\"{leaf}\"}}"
    )
}

fn weight(leaf: &str) -> String {
    format!(
        "splitter_split_weight{{destination_namespace=\"bookstore\",split=\"bookstore-split\",\
         destination_service=\"bookstore\",backend=\"{leaf}\"}}"
    )
}

#[test]
fn every_connection_of_every_leaf_is_counted_from_zero() {
    let store = Bookstore::new("metrics");
    store.site.write("split.yaml", &weights(3, 1));
    let (_agent, server) = start(&store.site, &[]);
    wait_for(server, "/readyz", 200);

    let before = scrape(server);
    assert_eq!(before[&leaf("leaf_connections_total", "bookstore-v1")], 0.0);
    assert_eq!(before[&leaf("leaf_connections_total", "bookstore-v2")], 0.0);
    let (v1, v2, failed) = store.count(40);
    assert_eq!((v1 + v2, failed), (40, 0));

    let after = scrape(server);
    let expected = [
        (leaf("leaf_connections_total", "bookstore-v1"), v1 as f64),
        (leaf("leaf_connections_total", "bookstore-v2"), v2 as f64),
        (leaf("leaf_endpoints", "bookstore-v1"), 1.0),
        (weight("bookstore-v1"), 3.0),
        (weight("bookstore-v2"), 1.0),
        ("splitter_frontends{verdict=\"split\"}".to_owned(), 1.0),
        (
            "splitter_frontends{verdict=\"inconsistent\"}".to_owned(),
            0.0,
        ),
        ("splitter_programs_attached".to_owned(), 4.0),
        ("splitter_self_test_success".to_owned(), 1.0),
        ("splitter_self_test_failures_total".to_owned(), 0.0),
        ("splitter_publish_failed_frontends".to_owned(), 0.0),
        ("splitter_maps_readable".to_owned(), 1.0),
        // The bookstore's, and the agent's own.
        (
            "splitter_bpf_map_entries{map=\"FRONTENDS\"}".to_owned(),
            2.0,
        ),
        ("splitter_bpf_map_entries{map=\"LEAVES\"}".to_owned(), 3.0),
        (
            "splitter_bpf_map_max_entries{map=\"FRONTENDS\"}".to_owned(),
            64.0,
        ),
        (
            "splitter_object_findings{kind=\"TrafficSplit\",severity=\"accepted\",\
             reason=\"Accepted\"}"
                .to_owned(),
            1.0,
        ),
    ];
    for (series, value) in expected {
        assert_eq!(after.get(&series), Some(&value), "{series} in {after:#?}");
    }
    // Those of the self-test as well.
    assert!(after["splitter_outcomes_total{outcome=\"split\"}"] >= 41.0);
    for series in [
        "splitter_build_info{version=\"0.1.0\"}",
        "splitter_sync_last_timestamp_seconds",
        "splitter_sync_last_queued_timestamp_seconds",
        "splitter_sync_duration_seconds_count",
        "splitter_object_changes_total",
        "splitter_self_test_last_success_timestamp_seconds",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ] {
        assert!(after.get(series) > Some(&0.0), "{series} in {after:#?}");
    }
    let generation = |name: &str| {
        let labels = "destination_namespace=\"bookstore\",split=\"bookstore-split\"";
        after.get(&format!("splitter_{name}{{{labels}}}"))
    };
    assert!(generation("split_generation").is_some(), "{after:#?}");
    assert_eq!(
        generation("split_generation"),
        generation("split_desired_generation")
    );
}

#[test]
fn no_label_is_called_what_prometheus_calls_its_targets() {
    let store = Bookstore::new("labels");
    store.site.write("split.yaml", &weights(3, 1));
    let (_agent, server) = start(&store.site, &[]);
    let series = scrape(server);
    for name in series.keys() {
        assert!(!name.contains("self-test"), "the agent's own: {name}");
        let labels = name.split_once('{').map_or("", |(_, labels)| labels);
        for label in labels.split(',').filter_map(|it| it.split_once('=')) {
            assert!(
                ![
                    "namespace",
                    "service",
                    "pod",
                    "node",
                    "endpoint",
                    "instance",
                    "job",
                    "container"
                ]
                .contains(&label.0),
                "{name}"
            );
        }
    }
    let text = get(server, "/metrics").body;
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, _) = name.split_once(' ').unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
    }
}

#[test]
fn a_refused_object_is_a_finding_with_its_reason() {
    let store = Bookstore::new("finding");
    let split = traffic_split(&[("bookstore-v1", "much"), ("bookstore-v2", "1")]);
    store.site.write("split.yaml", &split);
    let (_agent, server) = start(&store.site, &[]);
    let series = scrape(server);
    let refused = series.iter().find(|(name, _)| {
        name.starts_with("splitter_object_findings{kind=\"TrafficSplit\",severity=\"refused\"")
    });
    assert_eq!(refused.map(|(_, count)| *count), Some(1.0), "{series:#?}");
}

#[test]
fn a_scrape_during_publications_sees_each_split_before_or_after_but_not_between() {
    let store = Bookstore::new("scrape");
    store.site.write("split.yaml", &weights(0, 100));
    let (_agent, server) = start(&store.site, &[]);
    store.site.wait_for_weights(&[0, 100]);
    let mut client = store.hammer();
    let mut seen = BTreeSet::new();
    for round in 1..=100 {
        store.site.write("split.yaml", &weights(round, 100 - round));
        let series = scrape(server);
        let (v1, v2) = (
            series[&weight("bookstore-v1")],
            series[&weight("bookstore-v2")],
        );
        assert_eq!(v1 + v2, 100.0);
        seen.insert(v1 as u64);
    }
    assert!(client.is_running(), "a connection failed");
    assert!(seen.len() > 1, "no scrape met a publication");
}
