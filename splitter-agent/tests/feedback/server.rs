//! An API server and its etcd, for as long as a test needs them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Output;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use testbed::cluster::{Cluster, Options};

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
        let output = self.cluster.run_kubectl(arguments, input);
        output.expect("kubectl runs")
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
