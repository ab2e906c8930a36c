//! What an image says about itself.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use testbed::workspace::root;

/// The labels of an image, which are its annotations too.
///
/// They name no place where the source can be had: an image does not know where it was
/// published.
pub(super) fn labels(title: &str, description: &str, version: &str) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = [
        ("title", title),
        ("description", description),
        ("version", version),
        ("licenses", env!("CARGO_PKG_LICENSE")),
    ]
    .into_iter()
    .map(|(name, value)| (key(name), value.to_owned()))
    .collect();
    if let Some(revision) = revision() {
        labels.insert(key("revision"), revision);
    }
    labels
}

fn key(name: &str) -> String {
    format!("org.opencontainers.image.{name}")
}

/// The commit that is checked out, if the source is in git and is what was committed.
fn revision() -> Option<String> {
    // A clone that belongs to somebody else, as under sudo, is not asked about: git refuses.
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(root())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let ours = root().canonicalize().ok()?;
    let clean = git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    (clean && std::path::Path::new(&top) == ours).then(|| git(&["rev-parse", "HEAD"]))?
}
