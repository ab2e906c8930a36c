//! The template of the agent's DaemonSet.

use anyhow::Result;

use super::manifest::Manifest;
use super::values;

/// Labels and annotations of the agent's pods, as the manifest has them.
const POD_METADATA: &str = "\
        app.kubernetes.io/name: splitter-agent
      annotations:
        kubectl.kubernetes.io/default-container: agent
";

const POD_METADATA_TEMPLATE: &str = "\
        app.kubernetes.io/name: splitter-agent
        app.kubernetes.io/instance: {{ .Release.Name }}
        {{- with .Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        kubectl.kubernetes.io/default-container: agent
        {{- with .Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
";

/// The agent's manifest, with parts of it in the hands of the values; those of its container's
/// rights are the manifest's, or else the ones in `capabilities`.
pub(super) fn template(mut manifest: Manifest, capabilities: &Manifest) -> Result<Manifest> {
    for (block, value) in values::BLOCKS {
        let indent = block.len() - block.trim_start().len();
        let nested = indent + 2;
        manifest.replace_block(
            block,
            &format!("{block} {{{{- toYaml .Values.{value} | nindent {nested} }}}}\n"),
        )?;
    }
    manifest.replace(POD_METADATA, POD_METADATA_TEMPLATE)?;
    let (repository, tag) = values::image(&manifest)?;
    manifest.replace(
        &format!("image: {repository}:{tag}\n"),
        "image: {{ include \"splitter.image\" . | quote }}\n",
    )?;
    manifest.replace(
        "imagePullPolicy: IfNotPresent\n",
        "imagePullPolicy: {{ .Values.image.pullPolicy }}\n",
    )?;
    manifest.replace(
        "args: [run]\n",
        "args: {{ concat (list \"run\") .Values.extraArgs | toJson }}\n",
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
    rights(&mut manifest, capabilities)?;
    manifest.in_namespace().with_labels(None)
}

/// What the container may do, one way or the other.
fn rights(manifest: &mut Manifest, capabilities: &Manifest) -> Result<()> {
    let block = "        securityContext:";
    let privileged = manifest.block(block)?;
    let mut capabilities = capabilities.clone();
    let option = "          seLinuxOptions:";
    capabilities.replace_block(
        option,
        &format!(
            "          {{{{- with .Values.seLinuxOptions }}}}\n{option} {{{{- toYaml . | nindent 12 \
             }}}}\n          {{{{- end }}}}\n"
        ),
    )?;
    let common = privileged
        .split_inclusive('\n')
        .filter(|line| !line.contains("privileged:") && !line.trim_start().starts_with('#'));
    let unprivileged: String = common.collect::<String>() + &capabilities.block(block)?;
    manifest.replace_block(
        block,
        &format!(
            "{block}\n          {{{{- if .Values.privileged }}}}\n{privileged}          \
             {{{{- else }}}}\n{unprivileged}          {{{{- end }}}}\n"
        ),
    )?;
    manifest.replace(
        "mountPropagation: Bidirectional\n",
        "mountPropagation: {{ ternary \"Bidirectional\" \"HostToContainer\" .Values.privileged }}\n",
    )
}
