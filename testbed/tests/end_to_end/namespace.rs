//! A test's own namespace, with servers in it.

use std::collections::BTreeMap;
use std::thread;

use serde_json::{Value, json};
use testbed::fixtures::Tally;
use testbed::fixtures::manifests::{self, traffic_split};

use crate::test_cluster::{TestCluster, examples_image, wait_for};

impl TestCluster {
    /// Makes an empty namespace that vanishes with the test.
    pub(crate) fn namespace(&self, name: &str) -> Namespace<'_> {
        // An earlier test's of the same name may still be on its way out.
        let earlier = format!("namespace/{name}");
        self.kubectl(&["wait", "--for=delete", &earlier, "--timeout=90s"]);
        self.kubectl(&["create", "namespace", name]);
        Namespace {
            cluster: self,
            name: name.to_owned(),
        }
    }
}

/// A namespace that is deleted when this is dropped.
pub(crate) struct Namespace<'a> {
    cluster: &'a TestCluster,
    name: String,
}

impl Namespace<'_> {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Applies a Service with one TCP port, which selects the pods with these labels.
    pub(crate) fn service(&self, name: &str, port: u16, selector: &Value) {
        let ports = json!([{"name": "http", "port": port, "targetPort": "http"}]);
        let spec = json!({"selector": selector, "ports": ports});
        self.cluster
            .apply(&manifests::service(&self.name, name, &spec));
    }

    /// Applies a Deployment of servers with the labels `app: shop` and `version`, which tell
    /// `version` as their identity; does not wait for it.
    pub(crate) fn servers(&self, version: &str, replicas: u32) {
        let identity = json!({"name": "IDENTITY", "value": version});
        self.deployment(version, replicas, 2, &identity);
    }

    /// Like [`servers`](Self::servers), but each pod tells its own name, which begins with
    /// `version` and a dash, and serves on for so many seconds after it was told to end.
    pub(crate) fn named_servers(&self, version: &str, replicas: u32, drain_seconds: u32) {
        let drain = json!({"name": "DRAIN_SECONDS", "value": drain_seconds.to_string()});
        self.deployment(version, replicas, drain_seconds + 20, &drain);
    }

    fn deployment(&self, version: &str, replicas: u32, grace_seconds: u32, variable: &Value) {
        let labels = json!({"app": "shop", "version": version});
        self.cluster.apply(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": version, "namespace": self.name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"terminationGracePeriodSeconds": grace_seconds, "containers": [{
                        "name": "server", "image": examples_image(), "args": ["serve"],
                        "env": [{"name": "PORT", "value": "8080"}, variable],
                        "ports": [{"name": "http", "containerPort": 8080}],
                        "readinessProbe": {
                            "httpGet": {"path": "/healthz", "port": "http"},
                            // A machine that is busy, or stands still for a moment, is no server
                            // that is not ready.
                            "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 2,
                        },
                    }]},
                },
            },
        }));
    }

    /// Waits until a Deployment has all its pods ready and no others.
    pub(crate) fn wait_for_servers(&self, version: &str) {
        let target = format!("deployment/{version}");
        self.cluster.kubectl(&[
            "-n",
            &self.name,
            "rollout",
            "status",
            &target,
            "--timeout=90s",
        ]);
    }

    /// A root `shop` on port 80 with leaves `shop-v1` and `shop-v2`, so many pods each, ready.
    pub(crate) fn shop(&self, replicas: u32) {
        self.service("shop", 80, &json!({"app": "shop"}));
        for version in ["v1", "v2"] {
            self.service(
                &format!("shop-{version}"),
                80,
                &json!({"app": "shop", "version": version}),
            );
            self.servers(version, replicas);
        }
        for version in ["v1", "v2"] {
            self.wait_for_servers(version);
        }
        for (service, count) in [
            ("shop", 2 * replicas),
            ("shop-v1", replicas),
            ("shop-v2", replicas),
        ] {
            self.wait_for_endpoints(service, count);
        }
    }

    /// Waits until at least so many endpoints of a Service are ready: a moment after the pods are, or some
    /// seconds if the controller of EndpointSlices has to try again.
    fn wait_for_endpoints(&self, service: &str, count: u32) {
        let selector = format!("kubernetes.io/service-name={service}");
        wait_for(&format!("{count} endpoints of {service}"), || {
            let get = ["-n", &self.name, "get", "endpointslices", "-l", &selector];
            let slices = self.cluster.get(&get);
            let slices = slices["items"].as_array()?.iter();
            let endpoints = slices.filter_map(|slice| slice["endpoints"].as_array());
            let ready = endpoints
                .flatten()
                .filter(|endpoint| endpoint["conditions"]["ready"] == true);
            (ready.count() >= count as usize).then_some(())
        });
    }

    /// Applies a TrafficSplit of `shop` over `shop-v1`, `shop-v2`, ... with these weights, and
    /// waits until every node has it.
    pub(crate) fn split(&self, weights: &[u64]) {
        self.cluster.apply(&self.split_object("canary", weights));
        self.cluster.wait_for_weights(&self.name, "shop", weights);
    }

    /// The same object, not applied.
    pub(crate) fn split_object(&self, name: &str, weights: &[u64]) -> Value {
        let leaves: Vec<_> = (1..=weights.len()).map(|n| format!("shop-v{n}")).collect();
        let leaves = leaves.iter().map(String::as_str);
        let backends: Vec<_> = leaves.zip(weights.iter().copied()).collect();
        traffic_split("v1alpha2", &self.name, name, "shop", &backends)
    }

    /// The URL of `shop`, by its name.
    pub(crate) fn url(&self) -> String {
        format!("http://shop.{}/", self.name)
    }

    /// Runs kubectl in this namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let arguments = [&["-n", &self.name], arguments].concat();
        self.cluster.kubectl(&arguments)
    }

    /// The cluster that it is in.
    pub(crate) fn cluster(&self) -> &TestCluster {
        self.cluster
    }

    /// The pods of a Deployment that are not about to go: names and addresses.
    pub(crate) fn pods_of(&self, version: &str) -> BTreeMap<String, String> {
        let selector = format!("version={version}");
        let pods = self
            .cluster
            .get(&["-n", &self.name, "get", "pods", "-l", &selector]);
        let pods = pods["items"].as_array().into_iter().flatten();
        pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .filter_map(|pod| {
                let name = pod["metadata"]["name"].as_str()?.to_owned();
                Some((name, pod["status"]["podIP"].as_str()?.to_owned()))
            })
            .collect()
    }

    /// Sets how many pods a Deployment has, and does not wait.
    pub(crate) fn scale(&self, version: &str, replicas: u32) {
        let target = format!("deployment/{version}");
        self.kubectl(&["scale", &target, &format!("--replicas={replicas}")]);
    }

    /// Panics unless on every node the next connections to `shop` are answered in exactly these
    /// shares, twice. A block that others have begun is finished first.
    pub(crate) fn assert_exact<const N: usize>(&self, shares: [(&str, u64); N]) {
        let block: u64 = shares.iter().map(|(_, share)| share).sum();
        for node in self.cluster.nodes() {
            let split = self.cluster.split_on(node, &self.name, "shop");
            let begun = split.map(|split| split.connections);
            let begun = begun.expect("a split") % block;
            if begun > 0 {
                self.cluster.ask_from(node, &self.url(), block - begun);
            }
            let counts = self.cluster.ask_from(node, &self.url(), 2 * block);
            let expected = Tally::of(shares.map(|(version, share)| (version, 2 * share)));
            assert_eq!(counts.by_deployment(), expected, "on {}", node.name());
        }
    }

    /// Has a server say from now on whether it is ready.
    pub(crate) fn set_ready(&self, pod: &str, ready: bool) {
        let path = format!("pods/{pod}:8080/proxy/ready?value={ready}");
        let path = format!("/api/v1/namespaces/{}/{path}", self.name);
        self.kubectl(&["create", "--raw", &path, "-f", "/dev/null"]);
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            for what in ["pods,endpointslices,trafficsplits", "events"] {
                self.cluster
                    .tell(&["-n", &self.name, "get", what, "-o", "wide"]);
            }
        }
        let arguments = ["delete", "namespace", &self.name, "--wait=false"];
        // A test may be on its way down because nothing works any more.
        let _ = self.cluster.try_kubectl(&arguments, None);
    }
}
