//! The Helm chart, made from the manifests in `deploy`, so that the two cannot say different
//! things: templates are the manifests with some parts put in the hands of `values.yaml`, and
//! `values.yaml` holds what those parts were.
//!
//! What is written by hand in `deploy/chart` is `Chart.yaml`, `values.schema.json` and, of the
//! templates, `NOTES.txt`, `_helpers.tpl` and `uninstall.yaml`: Helm's own ways have no counterpart
//! in the manifests.

mod agent;
mod manifest;
mod values;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use testbed::workspace::{replace_file, root, say};

use crate::chart::manifest::Manifest;
use crate::chart::values::values;

const CHART: &str = "deploy/chart";
const MADE: &str = "Made by `cargo xtask chart` from";

/// Manifests that are the same in the chart but for their namespace.
const PLAIN: [&str; 7] = [
    "service-account",
    "cluster-role",
    "cluster-role-binding",
    "cluster-role-edit",
    "cluster-role-view",
    "role",
    "role-binding",
];

/// A manifest that is installed only if a value says so.
struct Optional {
    name: &'static str,
    /// The value that has to be true.
    value: &'static str,
    path: &'static str,
    /// The value with labels in addition to those that every object has.
    labels: Option<&'static str>,
}

const OPTIONAL: [Optional; 6] = [
    Optional {
        name: "crd",
        value: "installCRDs",
        path: "deploy/crd/trafficsplits.yaml",
        labels: None,
    },
    Optional {
        name: "admission-policy",
        value: "admissionPolicy",
        path: "deploy/components/admission/policy.yaml",
        labels: None,
    },
    Optional {
        name: "admission-policy-binding",
        value: "admissionPolicy",
        path: "deploy/components/admission/binding.yaml",
        labels: None,
    },
    Optional {
        name: "pod-monitor",
        value: "monitoring.podMonitor",
        path: "deploy/monitoring/pod-monitor.yaml",
        labels: Some("monitoring.podMonitorLabels"),
    },
    Optional {
        name: "prometheus-rule",
        value: "monitoring.prometheusRule",
        path: "deploy/monitoring/prometheus-rule.yaml",
        labels: Some("monitoring.prometheusRuleLabels"),
    },
    Optional {
        name: "resource-quota",
        value: "resourceQuota",
        path: "deploy/components/gke/resource-quota.yaml",
        labels: None,
    },
];

/// Writes the chart's templates and values.
///
/// # Errors
///
/// When a manifest has lost a part that the chart makes a value of, or a file cannot be written.
pub fn write() -> Result<()> {
    for (path, content) in files()? {
        if replace_file(&root().join(&path), content.as_bytes())? {
            say(format_args!("{path} is new"));
        }
    }
    Ok(())
}

/// Checks that the chart is what [`write()`] would write.
///
/// # Errors
///
/// Names the files that are not.
pub fn check() -> Result<()> {
    let mut stale = Vec::new();
    for (path, content) in files()? {
        if fs::read_to_string(root().join(&path)).ok().as_deref() != Some(&content) {
            stale.push(path);
        }
    }
    if !stale.is_empty() {
        bail!(
            "not as the manifests are: {}; run `cargo xtask chart`",
            stale.join(", ")
        );
    }
    Ok(())
}

/// Every file of the chart that is made, by its path.
fn files() -> Result<BTreeMap<String, String>> {
    let daemon_set = Manifest::read("deploy/base/daemon-set.yaml")?;
    let capabilities = Manifest::read("deploy/components/capabilities/daemon-set.yaml")?;
    let mut files = BTreeMap::new();
    let mut template = |name: &str, content| {
        files.insert(format!("{CHART}/templates/{name}.yaml"), content);
    };
    for name in PLAIN {
        let path = format!("deploy/base/{name}.yaml");
        let manifest = Manifest::read(&path)?.in_namespace().with_labels(None)?;
        template(name, made_from(&path, &manifest.text));
    }
    template(
        "daemon-set",
        made_from(
            "deploy/base/daemon-set.yaml and deploy/components/capabilities/daemon-set.yaml",
            &agent::template(daemon_set.clone(), &capabilities)?.text,
        ),
    );
    for Optional {
        name,
        value,
        path,
        labels,
    } in OPTIONAL
    {
        let mut manifest = Manifest::read(path)?
            .escaped()
            .in_namespace()
            .with_labels(labels)?;
        match name {
            // Deleting it would delete every split in the cluster.
            "crd" => manifest.replace(
                "metadata:\n",
                "metadata:\n  annotations:\n    helm.sh/resource-policy: keep\n",
            )?,
            "pod-monitor" => manifest.replace(
                "interval: 15s\n",
                "interval: {{ .Values.monitoring.interval }}\n",
            )?,
            "resource-quota" => manifest.replace(
                "values: [system-node-critical]\n",
                "values: [{{ .Values.priorityClassName | quote }}]\n",
            )?,
            _ => {}
        }
        template(
            name,
            made_from(
                path,
                &format!(
                    "{{{{- if .Values.{value} }}}}\n{}{{{{- end }}}}\n",
                    manifest.text
                ),
            ),
        );
    }
    let dashboard = "deploy/monitoring/dashboard.json";
    template("dashboard", made_from(dashboard, DASHBOARD));
    files.insert(
        format!("{CHART}/dashboard.json"),
        Manifest::read(dashboard)?.text,
    );
    files.insert(format!("{CHART}/values.yaml"), values(&daemon_set)?);
    Ok(files)
}

fn made_from(path: &str, content: &str) -> String {
    format!("{{{{- /* {MADE} {path}. */ -}}}}\n{content}")
}

/// Grafana's sidecar finds it by its labels.
const DASHBOARD: &str = r#"{{- if .Values.monitoring.dashboard }}
apiVersion: v1
kind: ConfigMap
metadata:
  name: splitter-dashboard
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "splitter.labels" . | nindent 4 }}
    {{- with .Values.monitoring.dashboardLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
data:
  splitter.json: {{ .Files.Get "dashboard.json" | quote }}
{{- end }}
"#;

/// Reads a file of the workspace.
fn read(path: &str) -> Result<String> {
    fs::read_to_string(root().join(Path::new(path))).with_context(|| format!("cannot read {path}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_chart_is_what_the_manifests_make_it() {
        super::check().unwrap();
    }
}
