//! The canaries of the README, as files of `deploy/examples`.

use testbed::fixtures::Tally;

use crate::test_cluster::{TestCluster, wait_for};

/// Deletes the namespaces of an example when the test is over.
struct Example<'a>(&'a TestCluster, &'static [&'static str]);

impl<'a> Example<'a> {
    /// Panics if there are such namespaces that no test is about to delete: they may be somebody's.
    fn new(cluster: &'a TestCluster, namespaces: &'static [&'static str]) -> Self {
        for namespace in namespaces {
            let namespace = format!("namespace/{namespace}");
            cluster.kubectl(&["wait", "--for=delete", &namespace, "--timeout=90s"]);
        }
        Self(cluster, namespaces)
    }
}

impl Drop for Example<'_> {
    fn drop(&mut self) {
        let arguments = [&["delete", "--wait=false", "namespace"], self.1].concat();
        let _ = self.0.try_kubectl(&arguments, None);
    }
}

#[test]
fn the_bookstore_canary_is_exact_on_every_node() {
    let cluster = TestCluster::enter();
    let _example = Example::new(&cluster, &["bookstore", "bookbuyer"]);
    cluster.apply_file("deploy/examples/bookstore/00-bookstore.yaml");
    for deployment in ["deployment/bookstore-v1", "deployment/bookstore-v2"] {
        cluster.kubectl(&[
            "-n",
            "bookstore",
            "rollout",
            "status",
            deployment,
            "--timeout=90s",
        ]);
    }
    let url = "http://bookstore.bookstore:14001/books-bought";
    for (file, v1, v2) in [
        ("10-split-100-0", 100, 0),
        ("20-split-50-50", 50, 50),
        ("30-split-0-100", 0, 100),
    ] {
        cluster.apply_file(&format!("deploy/examples/bookstore/{file}.yaml"));
        cluster.wait_for_weights("bookstore", "bookstore", &[v1, v2]);
        for node in cluster.nodes() {
            let counts = cluster.ask_from(node, url, 200);
            let expected = [("bookstore-v1", 2 * v1), ("bookstore-v2", 2 * v2)];
            assert_eq!(counts, Tally::of(expected), "{file} on {}", node.name());
        }
    }

    cluster.kubectl(&[
        "-n",
        "bookstore",
        "delete",
        "trafficsplit",
        "bookstore-split",
    ]);
    cluster.wait_for_split("no split", "bookstore", "bookstore", |split| {
        split.is_none()
    });
    for node in cluster.nodes() {
        // kube-proxy's own choice, which is random, among the pods of both.
        let counts = cluster.ask_from(node, url, 200);
        assert_eq!(counts.failed(), 0, "{counts:?}");
        assert!(
            counts.count("bookstore-v1") > 0 && counts.count("bookstore-v2") > 0,
            "{counts:?}"
        );
    }
}

#[test]
fn ten_curls_of_httpbin_are_five_and_five() {
    let cluster = TestCluster::enter();
    let _example = Example::new(&cluster, &["httpbin"]);
    cluster.apply_file("deploy/examples/httpbin/00-httpbin.yaml");
    for deployment in ["deployment/httpbin-v1", "deployment/httpbin-v2"] {
        cluster.kubectl(&[
            "-n",
            "httpbin",
            "rollout",
            "status",
            deployment,
            "--timeout=90s",
        ]);
    }
    let url = "http://httpbin.httpbin.svc.cluster.local:8000/ip";
    for (file, v1, v2) in [("10-split-100-0", 10, 0), ("20-split-50-50", 5, 5)] {
        cluster.apply_file(&format!("deploy/examples/httpbin/{file}.yaml"));
        cluster.wait_for_weights("httpbin", "httpbin", &[v1 * 10, v2 * 10]);
        for node in cluster.nodes() {
            let counts = cluster.ask_from(node, url, 10);
            assert_eq!(counts, Tally::of([("httpbin-v1", v1), ("httpbin-v2", v2)]));
        }
    }
    // What is told of the object, once for the whole cluster.
    wait_for("an Event", || {
        let described = cluster.kubectl(&["-n", "httpbin", "describe", "trafficsplit"]);
        described.contains("Accepted").then_some(())
    });
}
