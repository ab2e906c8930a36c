//! What Prometheus sees.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::bookstore::Bookstore;
use crate::common::agent::{traffic_split, weights};
use crate::http::{get, start, wait_for, wait_until};

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
        "splitter_split_weight{{kind=\"TrafficSplit\",destination_namespace=\"bookstore\",split=\"bookstore-split\",\
         destination_service=\"bookstore\",backend=\"{leaf}\"}}"
    )
}

/// The series of a metric.
fn series_of<'a>(series: &'a BTreeMap<String, f64>, metric: &str) -> Vec<&'a str> {
    let begin = format!("splitter_{metric}{{");
    let names = series.keys().map(String::as_str);
    names.filter(|name| name.starts_with(&begin)).collect()
}

/// Those that a split has of its own.
const OF_SPLITS: [&str; 3] = ["leaf_connections_total", "leaf_endpoints", "split_weight"];

#[test]
fn a_split_has_series_from_its_first_connection_on_and_keeps_them() {
    let store = Bookstore::new("active");
    store.site.write("split.yaml", &weights(100, 0));
    let (agent, server) = start(&store.site, &[]);
    wait_for(server, "/readyz", 200);
    let before = scrape(server);
    for metric in OF_SPLITS {
        assert_eq!(series_of(&before, metric), [""; 0]);
    }
    assert_eq!(before["splitter_splits_active"], 0.0);
    assert_eq!(before["splitter_splits"], 1.0);

    store.count(10);
    let active = scrape(server);
    assert_eq!(active["splitter_splits_active"], 1.0);
    // The other leaf begins at 0 for everybody to see, so that `rate` misses nothing of it.
    assert_eq!(
        active[&leaf("leaf_connections_total", "bookstore-v1")],
        10.0
    );
    assert_eq!(active[&leaf("leaf_connections_total", "bookstore-v2")], 0.0);
    for metric in OF_SPLITS {
        assert_eq!(series_of(&active, metric).len(), 2, "{metric}");
    }

    store.site.write("split.yaml", &weights(0, 100));
    store.site.wait_for_weights(&[0, 100]);
    store.count(5);
    let shifted = scrape(server);
    assert_eq!(
        shifted[&leaf("leaf_connections_total", "bookstore-v1")],
        10.0
    );
    assert_eq!(
        shifted[&leaf("leaf_connections_total", "bookstore-v2")],
        5.0
    );

    // Another agent goes on where this one ends.
    agent.kill();
    let (_agent, server) = start(&store.site, &[]);
    wait_for(server, "/readyz", 200);
    let next = scrape(server);
    assert_eq!(next[&leaf("leaf_connections_total", "bookstore-v1")], 10.0);
    assert_eq!(next[&leaf("leaf_connections_total", "bookstore-v2")], 5.0);
    // It is gone with its split, and so is every word of it.
    let manifest = store.site.manifests.path().join("split.yaml");
    std::fs::remove_file(manifest).expect("a manifest to remove");
    // The agent counts an object out after the maps have been brought to that.
    wait_until(server, "/metrics", |answer| {
        answer.body.contains("\nsplitter_splits 0\n")
    });
    let gone = scrape(server);
    assert_eq!(gone["splitter_frontends{verdict=\"split\"}"], 0.0);
    for metric in OF_SPLITS {
        assert_eq!(series_of(&gone, metric), [""; 0]);
    }
}

/// A series of a leaf with one label more.
fn leaf_with(metric: &str, name: &str, label: &str) -> String {
    leaf(metric, name).replace('}', &format!(",{label}}}"))
}

#[test]
fn what_comes_of_connections_has_series_for_each_backend() {
    let store = Bookstore::new("outcomes");
    store.site.write("split.yaml", &weights(100, 0));
    let (_agent, server) = start(&store.site, &["--outcomes", "handshakes"]);
    wait_for(server, "/readyz", 200);
    assert_eq!(store.count(10), (10, 0, 0));

    // The last one ends when the kernel has seen the other side's end.
    let closed = |series: &BTreeMap<String, f64>, leaf: &str| {
        let reasons = ["closed", "reset_by_endpoint", "reset_by_client", "lost"];
        let reasons = reasons.map(|reason| {
            let label = format!("reason=\"{reason}\"");
            series[&leaf_with("connections_closed_total", leaf, &label)]
        });
        reasons.iter().sum::<f64>()
    };
    wait_until(server, "/metrics", |_| {
        closed(&scrape(server), "bookstore-v1") >= 10.0
    });
    let series = scrape(server);
    let result = |leaf: &str, result: &str| {
        let label = format!("result=\"{result}\"");
        series[&leaf_with("connections_total", leaf, &label)]
    };
    assert_eq!(closed(&series, "bookstore-v1"), 10.0);
    assert_eq!(result("bookstore-v1", "established"), 10.0);
    for failed in ["refused", "timed_out", "unreachable", "abandoned"] {
        assert_eq!(result("bookstore-v1", failed), 0.0);
        assert_eq!(result("bookstore-v2", failed), 0.0);
    }
    assert_eq!(result("bookstore-v2", "established"), 0.0);
    assert_eq!(series[&leaf("connections_open", "bookstore-v1")], 0.0);
    let received = leaf_with("bytes_total", "bookstore-v1", "direction=\"received\"");
    assert!(series[&received] > 0.0, "{series:?}");
    let durations = leaf("connect_duration_seconds_count", "bookstore-v1");
    assert_eq!(series[&durations], 10.0);
    let by_le = |name: &&String| {
        name.starts_with("splitter_connect_duration_seconds_bucket") && name.contains("+Inf")
    };
    let infinite: Vec<&String> = series.keys().filter(by_le).collect();
    assert_eq!(infinite.len(), 1, "{infinite:?}");
    assert_eq!(series[infinite[0]], 10.0);
}

#[test]
fn all_splits_or_none_have_series_where_that_is_asked_for() {
    let store = Bookstore::new("detail");
    store.site.write("split.yaml", &weights(3, 1));
    for (detail, leaves, objects) in [("all", 2, 1), ("none", 0, 0)] {
        let (agent, server) = start(&store.site, &["--metrics-splits", detail]);
        wait_for(server, "/readyz", 200);
        if detail == "none" {
            assert_eq!(store.count(4), (3, 1, 0));
        }
        let series = scrape(server);
        for metric in OF_SPLITS {
            assert_eq!(
                series_of(&series, metric).len(),
                leaves,
                "{detail}: {metric}"
            );
        }
        for metric in ["split_generation", "split_desired_generation"] {
            assert_eq!(
                series_of(&series, metric).len(),
                objects,
                "{detail}: {metric}"
            );
        }
        // What adds up to one number is always there.
        for metric in [
            "splitter_splits",
            "splitter_splits_stale",
            "splitter_splits_active",
            "splitter_frontends{verdict=\"split\"}",
            "splitter_leaves{state=\"ready\"}",
            "splitter_leaves{state=\"no-ready-endpoints\"}",
            "splitter_verdicts_total{verdict=\"split\"}",
        ] {
            assert!(series.contains_key(metric), "{detail}: {metric}");
        }
        agent.kill();
    }
}

#[test]
fn every_connection_of_every_leaf_is_counted() {
    let store = Bookstore::new("metrics");
    store.site.write("split.yaml", &weights(3, 1));
    let (_agent, server) = start(&store.site, &[]);
    wait_for(server, "/readyz", 200);

    // Counters are read again only where they have grown: nothing may be missed by that.
    let (mut v1, mut v2) = (0, 0);
    for connections in [1, 1, 2, 36] {
        let (to_v1, to_v2, failed) = store.count(connections);
        assert_eq!((to_v1 + to_v2, failed), (connections, 0));
        (v1, v2) = (v1 + to_v1, v2 + to_v2);
        let series = scrape(server);
        for (name, count) in [("bookstore-v1", v1), ("bookstore-v2", v2)] {
            assert_eq!(series[&leaf("leaf_connections_total", name)], count as f64);
        }
    }

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
        ("splitter_programs".to_owned(), 8.0),
        ("splitter_programs_attached".to_owned(), 8.0),
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
        // As many as were asked for, and room for the agent's own.
        (
            "splitter_bpf_map_max_entries{map=\"FRONTENDS\"}".to_owned(),
            65.0,
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
    assert!(after["splitter_verdicts_total{verdict=\"split\"}"] >= 41.0);
    for series in [
        "splitter_build_info{version=\"0.1.0\"}",
        "splitter_sync_last_timestamp_seconds",
        "splitter_sync_last_queued_timestamp_seconds",
        "splitter_sync_duration_seconds_count",
        "splitter_object_changes_total",
        "splitter_root_compilations_total",
        "splitter_self_test_last_success_timestamp_seconds",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ] {
        assert!(after.get(series) > Some(&0.0), "{series} in {after:#?}");
    }
    let generation = |name: &str| {
        let object = "destination_namespace=\"bookstore\",split=\"bookstore-split\"";
        after.get(&format!(
            "splitter_{name}{{kind=\"TrafficSplit\",{object}}}"
        ))
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
    store.count(1);
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
