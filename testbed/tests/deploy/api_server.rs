//! A real API server with nothing behind it: no nodes, no controllers. What it accepts and whom it
//! lets do what needs none.

use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::cluster::{Cluster, Options};

/// The longest that anything may take, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

/// An API server and a `kubectl` that talks to it. Ends with the value.
pub(crate) struct ApiServer {
    cluster: Cluster,
}

impl ApiServer {
    /// Starts one.
    pub(crate) fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let options = Options {
            name: format!("deploy-{}-{number}", std::process::id()),
            nodes: 0,
            ..Options::default()
        };
        Self {
            cluster: Cluster::up(&options).unwrap(),
        }
    }

    /// Waits until a command succeeds.
    pub(crate) fn wait_for(&self, arguments: &[&str]) {
        let start = Instant::now();
        loop {
            let output = self.kubectl(arguments, "");
            if output.status.success() {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{arguments:?}: {output:?}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs `kubectl` at the root of the workspace.
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> Output {
        self.cluster.run_kubectl(arguments, input).unwrap()
    }

    /// Runs `kubectl`, which has to succeed, and returns what it prints.
    pub(crate) fn succeed(&self, arguments: &[&str], input: &str) -> String {
        let output = self.kubectl(arguments, input);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// An object.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        let text = self.succeed(&["get", kind, name, "--output=json"], "");
        serde_json::from_str(&text).unwrap()
    }

    /// Creates the CRD as people are told to, and waits until it is served.
    pub(crate) fn create_crd(&self) {
        self.succeed(&["create", "-k", "deploy/crd"], "");
        let name = "crd/trafficsplits.split.smi-spec.io";
        self.succeed(
            &["wait", "--for=condition=Established", "--timeout=60s", name],
            "",
        );
        self.wait_for(&["get", "trafficsplits"]);
    }
}
