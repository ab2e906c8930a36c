//! An API server and its etcd, for as long as a test needs them.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use xtask::cluster::{Cluster, Options};

/// A running API server.
pub(crate) struct Server {
    cluster: Cluster,
}

impl Server {
    /// The server that all tests of this process share; the last one ends it.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    fn start() -> Self {
        let options = Options {
            name: format!("feedback-{}", std::process::id()),
            nodes: 0,
            ..Options::default()
        };
        Self {
            cluster: Cluster::up(&options).expect("an API server"),
        }
    }

    /// Runs kubectl as the administrator.
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> Output {
        let mut kubectl = self.cluster.kubectl().expect("kubectl");
        kubectl
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = kubectl.spawn().expect("kubectl starts");
        if let Some(mut stdin) = child.stdin.take() {
            // If it does not want to know, its output says why.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output().expect("kubectl ends")
    }

    /// Applies manifests as the administrator.
    pub(crate) fn apply(&self, manifests: &str) {
        loop {
            let output = self.kubectl(&["apply", "-f", "-"], manifests);
            let error = String::from_utf8_lossy(&output.stderr);
            // Another test has just made the same object.
            if !output.status.success() && error.contains("(AlreadyExists)") {
                continue;
            }
            assert!(output.status.success(), "{error}");
            return;
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.cluster.address()
    }

    /// How to reach it at an address, as the administrator or as somebody else.
    pub(crate) fn kubeconfig(&self, address: SocketAddr, user: Option<&str>) -> PathBuf {
        let kubeconfig = self.cluster.kubeconfig_at(address, user);
        kubeconfig.expect("a kubeconfig")
    }
}
