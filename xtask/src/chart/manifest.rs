//! A manifest as text, comments and all, and the changes that make a template of it.

use anyhow::{Result, bail};

/// The label that each object has.
const LABELS: &str = "\n  labels:\n    app.kubernetes.io/name: splitter-agent\n";

/// A manifest and where it is from.
#[derive(Clone, Debug)]
pub(super) struct Manifest {
    path: String,
    /// What it says.
    pub(super) text: String,
}

impl Manifest {
    /// Reads one in the workspace.
    pub(super) fn read(path: &str) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            text: super::read(path)?,
        })
    }

    /// With its braces kept from Helm.
    pub(super) fn escaped(mut self) -> Self {
        let open = self.text.replace("{{", "\u{0}");
        let close = open.replace("}}", "{{ \"}}\" }}");
        self.text = close.replace('\u{0}', "{{ \"{{\" }}");
        self
    }

    /// In the namespace of the release instead of its own.
    pub(super) fn in_namespace(mut self) -> Self {
        self.text = self
            .text
            .replace("splitter-system", "{{ .Release.Namespace }}");
        self
    }

    /// With the labels of the chart and the release on each of its objects, and those of another
    /// value if there is one.
    pub(super) fn with_labels(mut self, value: Option<&str>) -> Result<Self> {
        if !self.text.contains(LABELS) {
            bail!(
                "{} has no object with the label of all others: mend it, or xtask/src/chart",
                self.path
            );
        }
        let mut labels =
            "\n  labels:\n    {{- include \"splitter.labels\" . | nindent 4 }}\n".to_owned();
        if let Some(value) = value {
            labels += &format!(
                "    {{{{- with .Values.{value} }}}}\n    {{{{- toYaml . | nindent 4 }}}}\n    \
                 {{{{- end }}}}\n"
            );
        }
        self.text = self.text.replace(LABELS, &labels);
        Ok(self)
    }

    /// Puts something in the place of a text that is there exactly once.
    pub(super) fn replace(&mut self, text: &str, replacement: &str) -> Result<()> {
        let count = self.text.matches(text).count();
        if count != 1 {
            bail!(
                "{} has `{}` {count} times, and the chart needs it once: mend xtask/src/chart",
                self.path,
                text.trim()
            );
        }
        self.text = self.text.replacen(text, replacement, 1);
        Ok(())
    }

    /// What is nested below the line `key`, which is given with its indentation.
    pub(super) fn block(&self, key: &str) -> Result<String> {
        let lines: Vec<_> = self.text.split_inclusive('\n').collect();
        let Some(start) = lines.iter().position(|line| line.trim_end() == key) else {
            bail!(
                "{} has no `{}`, and the chart needs it: mend xtask/src/chart",
                self.path,
                key.trim()
            );
        };
        let indent = indentation(key);
        let mut block: Vec<_> = lines[start + 1..]
            .iter()
            .take_while(|line| {
                let inner = line.trim_start();
                indentation(line) > indent
                    || indentation(line) == indent && inner.starts_with(['-', '#'])
            })
            .copied()
            .collect();
        // A comment on the next key.
        while block
            .last()
            .is_some_and(|line| indentation(line) == indent && line.trim_start().starts_with('#'))
        {
            block.pop();
        }
        Ok(block.concat())
    }

    /// Puts something in the place of a line `key` and what is nested below it.
    pub(super) fn replace_block(&mut self, key: &str, replacement: &str) -> Result<()> {
        let block = self.block(key)?;
        self.replace(&format!("{key}\n{block}"), replacement)
    }
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Manifest {
        Manifest {
            path: "m.yaml".to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_block_ends_where_the_next_key_begins() {
        let mut manifest = manifest(
            "spec:\n  tolerations:\n  # all\n  - operator: Exists\n  # next\n  name: x\n  \
             resources:\n    # few\n    cpu: 1\n",
        );
        assert_eq!(
            manifest.block("  tolerations:").unwrap(),
            "  # all\n  - operator: Exists\n"
        );
        assert_eq!(
            manifest.block("  resources:").unwrap(),
            "    # few\n    cpu: 1\n"
        );
        manifest
            .replace_block("  tolerations:", "  t: 1\n")
            .unwrap();
        assert!(manifest.text.starts_with("spec:\n  t: 1\n  # next\n"));
        let error = manifest.block("  gone:").unwrap_err().to_string();
        assert!(error.starts_with("m.yaml has no `gone:`"), "{error}");
    }

    #[test]
    fn every_object_gets_the_labels_of_the_release() {
        let objects = "metadata:\n  labels:\n    app.kubernetes.io/name: splitter-agent\nspec:\n  \
                       template:\n    metadata:\n      labels:\n        \
                       app.kubernetes.io/name: splitter-agent\n";
        let labelled = manifest(objects).with_labels(Some("more")).unwrap().text;
        assert!(
            labelled.contains("include \"splitter.labels\""),
            "{labelled}"
        );
        assert!(labelled.contains(".Values.more"), "{labelled}");
        // A pod template's are another matter.
        let template = "      labels:\n        app.kubernetes.io/name: splitter-agent\n";
        assert!(labelled.ends_with(template), "{labelled}");
        manifest("metadata: {}\n").with_labels(None).unwrap_err();
    }

    #[test]
    fn braces_stay_braces() {
        let escaped = manifest("a: \"{{ $labels.node }}\"\n").escaped();
        assert_eq!(
            escaped.text,
            "a: \"{{ \"{{\" }} $labels.node {{ \"}}\" }}\"\n"
        );
    }

    #[test]
    fn what_is_replaced_has_to_be_there_once() {
        manifest("a\na\n").replace("a\n", "b\n").unwrap_err();
        manifest("b\n").replace("a\n", "b\n").unwrap_err();
    }
}
