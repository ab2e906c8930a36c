//! What is in `deploy`: that it is well-formed and fits together, and what a real API server says
//! to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use testbed::fixtures::image::VERSION;
use testbed::workspace::root;

mod chart;
mod commands;
#[path = "../support/documented.rs"]
mod documented;
#[path = "../support/kustomization.rs"]
mod kustomization;
mod permissions;
mod traffic_split;

/// What the agent exports under its own name, histograms by their family.
const METRICS: [&str; 48] = [
    "splitter_attached_to_root",
    "splitter_attachment_warnings",
    "splitter_bpf_map_entries",
    "splitter_bpf_map_max_entries",
    "splitter_build_info",
    "splitter_bytes_total",
    "splitter_connect_duration_seconds",
    "splitter_connections_closed_total",
    "splitter_connections_open",
    "splitter_connections_total",
    "splitter_events_failed_total",
    "splitter_events_written_total",
    "splitter_frontends",
    "splitter_held_frontends",
    "splitter_leader",
    "splitter_leaf_connections_total",
    "splitter_leaf_endpoints",
    "splitter_leaf_refused_connections_total",
    "splitter_leaves",
    "splitter_maps_readable",
    "splitter_object_changes_total",
    "splitter_object_findings",
    "splitter_objects",
    "splitter_verdicts_total",
    "splitter_pod_cgroups",
    "splitter_programs",
    "splitter_programs_attached",
    "splitter_publish_failed_frontends",
    "splitter_self_test_failures_total",
    "splitter_self_test_last_success_timestamp_seconds",
    "splitter_self_test_success",
    "splitter_source_synced",
    "splitter_split_desired_generation",
    "splitter_split_generation",
    "splitter_split_weight",
    "splitter_splits",
    "splitter_splits_active",
    "splitter_splits_stale",
    "splitter_statuses_failed_total",
    "splitter_statuses_written_total",
    "splitter_sync_duration_seconds",
    "splitter_sync_last_queued_timestamp_seconds",
    "splitter_sync_last_timestamp_seconds",
    "splitter_watch_errors_total",
    "splitter_watch_restarts_total",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

fn deploy() -> PathBuf {
    root().join("deploy")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every document of a YAML file.
fn documents(path: &Path) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every YAML file of `deploy`. Helm's templates are not YAML until they are rendered.
fn manifests() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![deploy()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("chart/templates") {
                pending.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

#[test]
fn every_document_says_what_it_is() {
    for path in manifests() {
        // Parts of other programs' configuration, not objects.
        let is_values = ["chart/values.yaml", "monitoring/prometheus-scrape.yaml"]
            .iter()
            .any(|name| path.ends_with(name));
        for document in documents(&path) {
            for field in ["apiVersion", "kind"] {
                let is_chart = path.ends_with("chart/Chart.yaml") && field == "kind";
                assert!(
                    is_values || is_chart || document[field].is_string(),
                    "{}: {document}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn kustomizations_name_what_is_there_and_leave_nothing_out() {
    for path in manifests() {
        if !path.ends_with("kustomization.yaml") {
            continue;
        }
        let directory = path.parent().unwrap();
        let kustomization = documents(&path).remove(0);
        let list = |field: &str| kustomization[field].as_array().cloned().unwrap_or_default();
        let mut named: BTreeSet<PathBuf> = BTreeSet::new();
        for resource in list("resources") {
            named.insert(resource.as_str().unwrap().into());
        }
        for patch in list("patches") {
            named.insert(patch["path"].as_str().unwrap().into());
        }
        for name in &named {
            let is_there = directory.join(name).exists();
            assert!(is_there, "{}: {}", path.display(), name.display());
        }
        let is_whole = ["base", "components"];
        if is_whole
            .iter()
            .any(|whole| path.starts_with(deploy().join(whole)))
        {
            for entry in fs::read_dir(directory).unwrap() {
                let name = PathBuf::from(entry.unwrap().file_name());
                let is_named = named.contains(&name) || name == Path::new("kustomization.yaml");
                assert!(is_named, "{} is in no kustomization", name.display());
            }
        }
    }
}

#[test]
fn versions_are_the_workspaces() {
    for path in manifests() {
        for line in read(&path).lines() {
            let Some((_, image)) = line.split_once("image: ") else {
                continue;
            };
            let (_, tag) = image.rsplit_once(':').unwrap();
            assert_eq!(tag, VERSION, "{}: {line}", path.display());
        }
    }
    let chart = documents(&deploy().join("chart/Chart.yaml")).remove(0);
    assert_eq!(chart["version"], VERSION);
    assert_eq!(chart["appVersion"], VERSION);
}

/// Words of queries that are names of ours.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c))
        .filter(|word| {
            (word.starts_with("splitter_") || word.starts_with("process_")) && !word.contains(':')
        })
        .collect()
}

#[test]
fn rules_and_dashboard_ask_for_metrics_that_there_are() {
    let mut used = BTreeSet::new();
    for file in [
        "prometheus-rule.yaml",
        "dashboard.json",
        "flagger-metric-templates.yaml",
    ] {
        let text = read(&deploy().join("monitoring").join(file));
        for metric in metrics_in(&text) {
            let family = metric.strip_suffix("_bucket").unwrap_or(metric);
            assert!(METRICS.contains(&family), "{file}: {metric}");
            used.insert(family.to_owned());
        }
    }
    assert!(used.len() > 15, "{used:?}");
}

#[test]
fn the_dashboard_is_json_with_a_query_in_each_panel() {
    let text = read(&deploy().join("monitoring/dashboard.json"));
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(panel["targets"][0]["expr"].is_string(), "{panel}");
    }
}

#[test]
fn a_plain_prometheus_finds_what_the_operator_finds() {
    let monitoring = deploy().join("monitoring");
    let config = documents(&monitoring.join("prometheus-scrape.yaml")).remove(0);
    let jobs = config["scrape_configs"].as_array().unwrap();
    assert_eq!(jobs.len(), 1);
    let job = &jobs[0];
    // The alerts ask for the job by name.
    let rules = read(&monitoring.join("prometheus-rule.yaml"));
    let name = job["job_name"].as_str().unwrap();
    assert!(rules.contains(&format!("job=\"{name}\"")), "{name}");

    let daemon_set = documents(&deploy().join("base/daemon-set.yaml")).remove(0);
    let discovery = &job["kubernetes_sd_configs"][0];
    assert_eq!(discovery["role"], "pod");
    assert_eq!(
        discovery["namespaces"]["names"][0],
        daemon_set["metadata"]["namespace"]
    );
    let rule = |label: &str| {
        let rules = job["relabel_configs"].as_array().unwrap().iter();
        let mut rules = rules.filter(|rule| rule["source_labels"][0] == label);
        rules
            .next()
            .unwrap_or_else(|| panic!("no rule for {label}"))
    };
    let kept = |label: &str| {
        let rule = rule(label);
        assert_eq!(rule["action"], "keep", "{rule}");
        rule["regex"].clone()
    };
    let template = &daemon_set["spec"]["template"];
    assert_eq!(
        kept("__meta_kubernetes_pod_label_app_kubernetes_io_name"),
        template["metadata"]["labels"]["app.kubernetes.io/name"]
    );
    let port = kept("__meta_kubernetes_pod_container_port_name");
    assert_eq!(port, template["spec"]["containers"][0]["ports"][0]["name"]);
    let monitor = documents(&monitoring.join("pod-monitor.yaml")).remove(0);
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!(port, endpoint["port"]);
    assert_eq!(job["scrape_interval"], endpoint["interval"]);
    // Alerts name the node.
    let node = rule("__meta_kubernetes_pod_node_name");
    assert_eq!(
        node["target_label"],
        endpoint["relabelings"][0]["targetLabel"]
    );
}

#[test]
fn prometheus_accepts_the_rules() {
    let promtool = "promtool";
    if Command::new(promtool).arg("--version").output().is_err() {
        eprintln!("no promtool: not checked; Debian's package prometheus has it");
        return;
    }
    let rule = documents(&deploy().join("monitoring/prometheus-rule.yaml")).remove(0);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rules.json");
    fs::write(&path, rule["spec"].to_string()).unwrap();
    let output = Command::new(promtool)
        .args(["check", "rules"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
