//! What the API server was asked, from its own audit log.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

/// Has an API server note every request for a list or a watch.
pub(crate) struct Audit {
    directory: TempDir,
}

impl Audit {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
            "omitStages": ["ResponseStarted"],
            "rules": [{"level": "Metadata", "verbs": ["list", "watch"]}],
        });
        fs::write(directory.path().join("policy.yaml"), policy.to_string()).expect("a file");
        Self { directory }
    }

    /// The arguments of the API server.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let path = |name| self.directory.path().join(name).display().to_string();
        vec![
            format!("--audit-policy-file={}", path("policy.yaml")),
            format!("--audit-log-path={}", path("log")),
            "--audit-log-mode=blocking".to_owned(),
        ]
    }

    /// The URIs that splitter has asked for, of one kind of objects.
    pub(crate) fn uris(&self, plural: &str) -> Vec<String> {
        let log = fs::read_to_string(self.directory.path().join("log")).expect("a log");
        let entries = log.lines().filter_map(|line| {
            let entry: Value = serde_json::from_str(line).ok()?;
            let text = |name: &str| entry[name].as_str().map(ToOwned::to_owned);
            let agent = text("userAgent")?;
            let is_ours =
                agent.starts_with("splitter-agent/") && entry["stage"] == "RequestReceived";
            is_ours.then(|| text("requestURI"))?
        });
        let path = format!("/{plural}?");
        entries.filter(|uri| uri.contains(&path)).collect()
    }
}
