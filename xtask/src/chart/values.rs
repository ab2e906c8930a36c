//! The chart's values: what the manifests say, unless somebody says something else.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::{MADE, manifest::Manifest};

/// Keys of the agent's manifest, with their indentation, that become values whole; and the names of
/// those.
pub(super) const BLOCKS: [(&str, &str); 4] = [
    ("        resources:", "resources"),
    ("      nodeSelector:", "nodeSelector"),
    ("      tolerations:", "tolerations"),
    ("  updateStrategy:", "updateStrategy"),
];

/// Name and tag of the agent's image.
pub(super) fn image(daemon_set: &Manifest) -> Result<(String, String)> {
    let find = || {
        let (_, after) = daemon_set.text.split_once("        image: ")?;
        let (name, tag) = after.lines().next()?.rsplit_once(':')?;
        Some((name.to_owned(), tag.to_owned()))
    };
    find().context("the DaemonSet has no image with a tag")
}

/// `values.yaml`.
pub(super) fn values(daemon_set: &Manifest) -> Result<String> {
    let (repository, tag) = image(daemon_set)?;
    let mut values = format!(
        "# {MADE} deploy/base/daemon-set.yaml.

image:
  # Where you pushed what `cargo xtask image` made.
  repository: {repository}
  tag: {tag}
  pullPolicy: IfNotPresent
imagePullSecrets: []

# false: with capabilities in place of all rights; for runtimes that know CAP_BPF, nodes with a BPF
# file system at /sys/fs/bpf, and Kubernetes 1.30 or later.
privileged: true

# true: clean every node instead of splitting. Upgrade with it and --wait, then uninstall:
# `helm uninstall` alone leaves the programs at work, so that reinstalling fails no connection.
cleanup: false

# The TrafficSplit CRD, if the cluster has none. It stays when the chart is uninstalled.
installCRDs: false

# More arguments for `splitter-agent run`, and more of its environment.
extraArgs: []
extraEnv: []

priorityClassName: system-node-critical

monitoring:
  # For the Prometheus Operator.
  podMonitor: false
  prometheusRule: false
  # A ConfigMap for Grafana's sidecar.
  dashboard: false
"
    );
    for (key, name) in BLOCKS {
        let block = daemon_set.block(key)?;
        let indent = key.len() - key.trim_start().len();
        // Writing to a string does not fail.
        let _ = writeln!(values, "\n{name}:");
        for line in block.lines() {
            let _ = writeln!(values, "{}", line.get(indent..).unwrap_or_default());
        }
    }
    Ok(values)
}
