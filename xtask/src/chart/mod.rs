//! The Helm chart, made from the manifests in `deploy`, so that the two cannot say different
//! things: templates are the manifests with some parts put in the hands of `values.yaml`, and
//! `values.yaml` holds what those parts were.
//!
//! What is written by hand in `deploy/chart` is `Chart.yaml`, `values.schema.json` and
//! `templates/NOTES.txt`.

mod manifest;
mod values;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{
    chart::{manifest::Manifest, values::values},
    workspace::{replace_file, root, say},
};

const CHART: &str = "deploy/chart";
const MADE: &str = "Made by `cargo xtask chart` from";

/// Manifests that are the same in the chart but for their namespace.
const PLAIN: [&str; 5] = [
    "service-account",
    "cluster-role",
    "cluster-role-binding",
    "role",
    "role-binding",
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
    let overlay = Manifest::read("deploy/overlays/capabilities/daemon-set.yaml")?;
    let mut files = BTreeMap::new();
    let mut template = |name: &str, content| {
        files.insert(format!("{CHART}/templates/{name}.yaml"), content);
    };
    for name in PLAIN {
        let path = format!("deploy/base/{name}.yaml");
        template(
            name,
            made_from(&path, &Manifest::read(&path)?.in_namespace().text),
        );
    }
    template(
        "daemon-set",
        made_from(
            "deploy/base/daemon-set.yaml and deploy/overlays/capabilities/daemon-set.yaml",
            &agent(daemon_set.clone(), &overlay)?.text,
        ),
    );
    for (name, value, path) in [
        ("crd", "installCRDs", "deploy/crd/trafficsplits.yaml"),
        (
            "pod-monitor",
            "monitoring.podMonitor",
            "deploy/monitoring/pod-monitor.yaml",
        ),
        (
            "prometheus-rule",
            "monitoring.prometheusRule",
            "deploy/monitoring/prometheus-rule.yaml",
        ),
    ] {
        let mut manifest = Manifest::read(path)?.escaped().in_namespace();
        if name == "crd" {
            // Deleting it would delete every split in the cluster.
            manifest.replace(
                "metadata:\n",
                "metadata:\n  annotations:\n    helm.sh/resource-policy: keep\n",
            )?;
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

/// Grafana's sidecar finds it by the label.
const DASHBOARD: &str = r#"{{- if .Values.monitoring.dashboard }}
apiVersion: v1
kind: ConfigMap
metadata:
  name: splitter-dashboard
  namespace: {{ .Release.Namespace }}
  labels:
    app.kubernetes.io/name: splitter-agent
    grafana_dashboard: "1"
data:
  splitter.json: {{ .Files.Get "dashboard.json" | quote }}
{{- end }}
"#;

/// The agent's manifest, with parts of it in the hands of the values.
fn agent(mut manifest: Manifest, overlay: &Manifest) -> Result<Manifest> {
    for (block, value) in values::BLOCKS {
        let indent = block.len() - block.trim_start().len();
        let nested = indent + 2;
        manifest.replace_block(
            block,
            &format!("{block} {{{{- toYaml .Values.{value} | nindent {nested} }}}}\n"),
        )?;
    }
    let (repository, tag) = values::image(&manifest)?;
    manifest.replace(
        &format!("image: {repository}:{tag}\n"),
        "image: {{ printf \"%s:%s\" .Values.image.repository .Values.image.tag | quote }}\n",
    )?;
    manifest.replace(
        "imagePullPolicy: IfNotPresent\n",
        "imagePullPolicy: {{ .Values.image.pullPolicy }}\n",
    )?;
    manifest.replace(
        "args: [run]\n",
        "{{- if .Values.cleanup }}\n        args: [cleanup, --stay]\n        {{- else }}\n        \
         args: {{ concat (list \"run\") .Values.extraArgs | toJson }}\n        {{- end }}\n",
    )?;
    manifest.replace(
        "      priorityClassName: system-node-critical\n",
        "      {{- with .Values.priorityClassName }}\n      priorityClassName: {{ . }}\n      \
         {{- end }}\n",
    )?;
    manifest.replace(
        "      containers:\n",
        "      {{- with .Values.imagePullSecrets }}\n      imagePullSecrets: {{- toYaml . | nindent 6 \
         }}\n      {{- end }}\n      containers:\n",
    )?;
    manifest.replace(
        "        ports:\n",
        "        {{- with .Values.extraEnv }}\n        {{- toYaml . | nindent 8 }}\n        {{- end }}\n        \
         ports:\n",
    )?;
    let block = "        securityContext:";
    let privileged = manifest.block(block)?;
    let lines = overlay.block(block)?;
    let mut capabilities: String = privileged
        .split_inclusive('\n')
        .filter(|line| !line.contains("privileged:") && !line.trim_start().starts_with('#'))
        .collect();
    capabilities.push_str(&lines);
    manifest.replace_block(
        block,
        &format!(
            "{block}\n          {{{{- if .Values.privileged }}}}\n{privileged}          \
             {{{{- else }}}}\n{capabilities}          {{{{- end }}}}\n"
        ),
    )?;
    manifest.replace(
        "mountPropagation: Bidirectional\n",
        "mountPropagation: {{ ternary \"Bidirectional\" \"HostToContainer\" .Values.privileged }}\n",
    )?;
    Ok(manifest.in_namespace())
}

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
