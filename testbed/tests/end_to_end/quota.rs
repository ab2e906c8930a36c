//! Clusters that allow critical pods only where a quota grants them.

use std::fs;

use serde_json::json;
use testbed::cluster::Options;

use crate::kustomization::Kustomization;
use crate::test_cluster::{SYSTEM, TestCluster, wait_for};

#[test]
fn a_component_grants_the_quota_that_critical_pods_need_on_some_clusters() {
    let directory = tempfile::tempdir().expect("a directory");
    let configuration = directory.path().join("admission.json");
    // As Google Kubernetes Engine has it.
    let text = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [{
            "name": "ResourceQuota",
            "configuration": {
                "apiVersion": "apiserver.config.k8s.io/v1",
                "kind": "ResourceQuotaConfiguration",
                "limitedResources": [{
                    "resource": "pods",
                    "matchScopes": [{
                        "scopeName": "PriorityClass",
                        "operator": "In",
                        "values": ["system-node-critical", "system-cluster-critical"],
                    }],
                }],
            },
        }],
    });
    fs::write(&configuration, text.to_string()).expect("a file");
    let own = TestCluster::own(&Options {
        name: format!("quota-{}", std::process::id()),
        nodes: 1,
        api_server_arguments: vec![format!(
            "--admission-control-config-file={}",
            configuration.display()
        )],
        ..Options::default()
    });
    let Some(cluster) = own else {
        return;
    };
    cluster.kubectl(&["create", "-k", "deploy/crd"]);
    cluster.kubectl(&["apply", "-k", "deploy/"]);
    wait_for("a refusal", || {
        let events = cluster.kubectl(&["-n", SYSTEM, "get", "events"]);
        events.contains("insufficient quota").then_some(())
    });
    let granted = Kustomization::new(&["gke"], None);
    cluster.kubectl(&["apply", "-k", granted.path()]);
    cluster.wait_for_agents();
}
