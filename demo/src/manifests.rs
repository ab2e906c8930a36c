//! The manifests: ordinary Kubernetes YAML, as `kubectl apply` would take it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::scenario::{PORT, Scenario};

/// The file with the TrafficSplit.
pub(crate) const SPLIT_FILE: &str = "traffic-split.yaml";

/// A directory of manifests.
#[derive(Debug)]
pub(crate) struct Manifests {
    directory: PathBuf,
    scenario: &'static Scenario,
}

impl Manifests {
    /// Writes the Services and the endpoints behind them, the leaves' in the order of `pods`.
    /// There is no TrafficSplit yet.
    pub(crate) fn write(
        directory: &Path,
        scenario: &'static Scenario,
        pods: &[Ipv4Addr],
    ) -> Result<Self> {
        fs::create_dir(directory)?;
        let manifests = Self {
            directory: directory.to_owned(),
            scenario,
        };
        let namespace = scenario.namespace;
        // The root's selector finds the pods of both versions, as is usual.
        let mut text = service(namespace, scenario.root, scenario.root_address(), pods);
        for ((leaf, address), pod) in scenario.leaf_addresses().zip(pods) {
            text += &service(namespace, leaf, address, std::slice::from_ref(pod));
        }
        manifests.replace("services.yaml", &text)?;
        Ok(manifests)
    }

    /// Where they are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Edits the TrafficSplit, or makes it.
    pub(crate) fn set_weights(&self, weights: [u64; 2]) -> Result<()> {
        self.replace(SPLIT_FILE, &traffic_split(self.scenario, weights))
    }

    /// Replaces a file in one step, as editors do.
    fn replace(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        let unfinished = self.directory.join(format!(".{name}.new"));
        fs::write(&unfinished, text)
            .and_then(|()| fs::rename(&unfinished, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn service(namespace: &str, name: &str, address: Ipv4Addr, endpoints: &[Ipv4Addr]) -> String {
    let mut text = format!(
        "\
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: {namespace}
spec:
  clusterIP: {address}
  clusterIPs: [{address}]
  ipFamilies: [IPv4]
  ports:
    - name: http
      port: {PORT}
      protocol: TCP
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: {namespace}
  labels:
    kubernetes.io/service-name: {name}
addressType: IPv4
ports:
  - name: http
    port: {PORT}
    protocol: TCP
endpoints:
"
    );
    for endpoint in endpoints {
        text += &format!("  - addresses: [{endpoint}]\n    conditions: {{ready: true}}\n");
    }
    text += "---\n";
    text
}

fn traffic_split(scenario: &Scenario, weights: [u64; 2]) -> String {
    let Scenario {
        namespace,
        root,
        split,
        ..
    } = scenario;
    let mut text = format!(
        "\
apiVersion: split.smi-spec.io/v1alpha2
kind: TrafficSplit
metadata:
  name: {split}
  namespace: {namespace}
spec:
  service: {root}.{namespace}
  backends:
"
    );
    for (leaf, weight) in scenario.leaves.iter().zip(weights) {
        text += &format!("    - service: {leaf}\n      weight: {weight}\n");
    }
    text
}
