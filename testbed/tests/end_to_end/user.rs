//! Somebody who follows the documents to the letter, with an image of a name of their own.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;
use testbed::cluster::{Cluster, tools};
use testbed::fixtures::image;
use testbed::workspace::root;

use crate::test_cluster::{Node, TestCluster};

/// What the documents say in place of a registry.
const EXAMPLE: &str = "registry.example.com/team";

/// Nobody serves it: an image of this name is on the nodes, or it is nowhere. It refuses at once. Where a name
/// has to be looked up first, in vain, that takes most of a minute; and a kubelet takes an image that is there
/// for one that has to be pulled as long as another pod pulls it (pkg/kubelet/images/pullmanager,
/// `MustAttemptImagePull`), so that two pods can wait for each other for minutes.
const REGISTRY: &str = "127.0.0.1:1/team";

/// A directory with this repository's `deploy`, and the commands that the documents name.
pub(crate) struct User {
    directory: TempDir,
    kubeconfig: PathBuf,
}

impl User {
    /// Somebody who has built the image with this tag and pushed it.
    pub(crate) fn new(cluster: &Cluster, tag: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("splitter-user-")
            .tempdir()
            .expect("a directory");
        let path = directory.path();
        symlink(root().join("deploy"), path.join("deploy")).expect("a link");
        fs::create_dir_all(path.join("target/image")).expect("a directory");
        fs::write(path.join("target/image/splitter-agent.tag"), tag).expect("a file");
        fs::create_dir(path.join("bin")).expect("a directory");
        let kubectl = cluster.tools().program("kubectl").expect("kubectl");
        symlink(kubectl, path.join("bin/kubectl")).expect("a link");
        symlink(tools::helm().expect("helm"), path.join("bin/helm")).expect("a link");
        // The image is brought to the nodes by other means: there is no registry here.
        for done in ["cargo", "skopeo"] {
            let program = path.join("bin").join(done);
            fs::write(&program, "#!/bin/sh\n").expect("a program");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
        }
        Self {
            directory,
            kubeconfig: cluster.kubeconfig(),
        }
    }

    /// Runs commands as in a terminal, up to the first that fails.
    pub(crate) fn try_run(&self, commands: &str) -> Output {
        let path = self.directory.path();
        let programs = std::env::var("PATH").unwrap_or_default();
        Command::new("bash")
            .args(["-e", "-c", &commands.replace(EXAMPLE, REGISTRY)])
            .current_dir(path)
            .env("PATH", format!("{}:{programs}", path.join("bin").display()))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HELM_CACHE_HOME", path.join("helm"))
            .env("HELM_CONFIG_HOME", path.join("helm"))
            .env("HELM_DATA_HOME", path.join("helm"))
            .output()
            .expect("bash runs")
    }

    /// Runs commands, all of which have to succeed, and returns what they print.
    pub(crate) fn run(&self, commands: &str) -> String {
        let output = self.try_run(commands);
        assert!(output.status.success(), "{commands}\n{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs commands that have to fail, and returns what they print, complaints and all.
    pub(crate) fn fail(&self, commands: &str) -> String {
        let output = self.try_run(commands);
        assert!(!output.status.success(), "{commands}\n{output:?}");
        [output.stdout, output.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat()
    }
}

/// The agent's image, under the name that the documents push it by.
pub(crate) fn pushed(name: &str, tag: &str) -> String {
    format!("{REGISTRY}/{name}:{tag}")
}

/// Gives the agent's image another name on a node, and takes away the one in `deploy`, so that
/// only pods with the new name can start.
pub(crate) fn rename_image(cluster: &TestCluster, node: &Node, name: &str) {
    let built = format!("docker.io/library/splitter-agent:{}", image::VERSION);
    cluster.ctr(node, &["images", "tag", "--force", &built, name]);
    cluster.ctr(node, &["images", "remove", &built]);
}

/// Takes an image away from a node; containers that use it go on. It is kept under another name.
pub(crate) fn hide_image(cluster: &TestCluster, node: &Node, name: &str) {
    cluster.ctr(node, &["images", "tag", "--force", name, HIDDEN]);
    cluster.ctr(node, &["images", "remove", name]);
}

/// Brings back what was hidden.
pub(crate) fn restore_image(cluster: &TestCluster, node: &Node, name: &str) {
    cluster.ctr(node, &["images", "tag", "--force", HIDDEN, name]);
}

const HIDDEN: &str = "127.0.0.1:1/hidden:1";
