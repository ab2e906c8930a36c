//! The chart's values: what the manifests say, unless somebody says something else.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::MADE;
use super::manifest::Manifest;

/// Keys of the agent's manifest, with their indentation, that become values whole; and the names of
/// those.
pub(super) const BLOCKS: [(&str, &str); 5] = [
    ("        resources:", "resources"),
    ("      nodeSelector:", "nodeSelector"),
    ("      affinity:", "affinity"),
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
  # The chart's appVersion, {tag}, unless given.
  tag: \"\"
  # sha256:...; in place of the tag.
  digest: \"\"
  pullPolicy: IfNotPresent
imagePullSecrets: []
"
    );
    values += VALUES;
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

/// What the manifests have no word of, and what is a choice there.
const VALUES: &str = "
# false: with capabilities in place of all rights; for runtimes that know CAP_BPF, nodes with a BPF
# file system at /sys/fs/bpf, and Kubernetes 1.30 or later.
privileged: true
# Where privileged is false: what SELinux takes the agent for. Nodes without SELinux ignore it; `null`
# leaves it out.
seLinuxOptions:
  type: spc_t

uninstall:
  # `helm uninstall` first cleans every node, and fails with everything still there if a node does
  # not say that it is clean; it can be run again. false: the programs stay at work on the nodes,
  # so that reinstalling fails no connection; `helm uninstall --no-hooks` does the same once.
  cleanup: true
  # On how many nodes at the same time.
  maxUnavailable: 100%
  # How long nodes are waited for. Less than Helm's own --timeout, else Helm does not tell which
  # node is not clean.
  timeoutSeconds: 240
  # Of the pod that waits; the agents' are no good for it, because they allow nodes that do not answer.
  tolerations:
  - key: node-role.kubernetes.io/control-plane
    operator: Exists

# The TrafficSplit CRD, if the cluster has none. It stays when the chart is uninstalled.
installCRDs: false

# A ValidatingAdmissionPolicy that refuses TrafficSplits which the agent would refuse, so that the
# last good one stays in effect; for Kubernetes 1.30 or later.
admissionPolicy: false

# More arguments for `splitter-agent run`, and more of its environment. Another directory for pins
# is set by SPLITTER_PIN_DIR, so that the clean-up finds it.
extraArgs: []
extraEnv: []

podLabels: {}
podAnnotations: {}

priorityClassName: system-node-critical
# A ResourceQuota that grants this class, for clusters that allow it nowhere else than in
# kube-system, as Google Kubernetes Engine does.
resourceQuota: false

monitoring:
  # For the Prometheus Operator; labels are how its Prometheus finds them.
  podMonitor: false
  podMonitorLabels: {}
  interval: 15s
  prometheusRule: false
  prometheusRuleLabels: {}
  # A ConfigMap for Grafana's sidecar, which finds it by these labels.
  dashboard: false
  dashboardLabels:
    grafana_dashboard: \"1\"
";
