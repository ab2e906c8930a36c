//! A kustomization of a user's own on top of `deploy`, as `deploy/README.md` tells to write it.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;
use tempfile::TempDir;
use testbed::workspace::root;

/// A directory with a kustomization, which is gone with the value.
pub(crate) struct Kustomization(TempDir);

impl Kustomization {
    /// What `deploy` installs, changed by some of `deploy/components`, from an image of this name
    /// and tag if there is one.
    pub(crate) fn new(components: &[&str], image: Option<(&str, &str)>) -> Self {
        let component = |name: &&str| format!("deploy/components/{name}");
        let components: Vec<_> = components.iter().map(component).collect();
        let image = image
            .map(|(name, tag)| json!({"name": "splitter-agent", "newName": name, "newTag": tag}));
        let images: Vec<_> = image.into_iter().collect();
        let text = json!({"resources": ["deploy"], "components": components, "images": images});
        let directory = tempfile::Builder::new()
            .prefix("splitter-")
            .tempdir()
            .unwrap();
        // Kustomize takes no absolute paths.
        symlink(root().join("deploy"), directory.path().join("deploy")).unwrap();
        let file = directory.path().join("kustomization.yaml");
        fs::write(file, text.to_string()).unwrap();
        Self(directory)
    }

    /// Where it is, as an argument of a command.
    pub(crate) fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }
}
