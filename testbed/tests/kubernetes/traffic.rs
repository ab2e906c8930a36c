//! Connections all the time, which go on while the API server is away.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::counts::Counts;
use crate::namespace::Namespace;
use crate::site::{Site, examples_image, wait_for};

/// The Service that is asked; it is another than those whose exact shares are looked at, since two
/// clients of one root share its connections.
pub(crate) const ROOT: &str = "busy";

/// A client on every node that asks [`ROOT`] again and again, each time over a new connection.
pub(crate) struct Traffic<'a> {
    site: &'a Site,
    namespace: String,
}

impl<'a> Traffic<'a> {
    /// Clients in this namespace, with which they vanish; they have asked when this returns.
    pub(crate) fn start(site: &'a Site, namespace: &Namespace<'_>) -> Self {
        let url = format!("http://{ROOT}.{}/", namespace.name());
        let labels = json!({"app": "traffic"});
        site.apply(&json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "traffic", "namespace": namespace.name()},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                        "name": "client", "image": examples_image(), "args": ["load", url],
                        "env": [{"name": "REPORT", "value": "1"}, {"name": "INTERVAL", "value": "20"}],
                    }]},
                },
            },
        }));
        let name = namespace.name();
        let target = "daemonset/traffic";
        site.kubectl(&["-n", name, "rollout", "status", target, "--timeout=90s"]);
        let traffic = Self {
            site,
            namespace: name.to_owned(),
        };
        traffic.goes_on();
        traffic
    }

    /// What came of all connections so far, by node.
    fn reports(&self) -> Vec<Vec<Value>> {
        let logs = |node| {
            let pod = self.site.pod_on(node, &self.namespace, "app=traffic");
            let text = self.site.kubectl(&["-n", &self.namespace, "logs", &pod]);
            let lines = text.lines().map(serde_json::from_str::<Value>);
            lines.collect::<Result<_, _>>().expect("lines of JSON")
        };
        self.site.nodes().iter().map(logs).collect()
    }

    /// Waits until everything that was begun before is counted, and then some; panics if a
    /// connection has ever failed.
    pub(crate) fn goes_on(&self) {
        let before: Vec<usize> = self.reports().iter().map(Vec::len).collect();
        let reports = wait_for("more connections", || {
            let reports = self.reports();
            let mut both = reports.iter().zip(&before);
            // The first report after this moment may be of connections before it.
            let are_more = both.all(|(now, before)| now.len() >= before + 2);
            if !are_more {
                thread::sleep(Duration::from_millis(200));
            }
            are_more.then_some(reports)
        });
        for (node, reports) in self.site.nodes().iter().zip(reports) {
            let counts = sum(&reports);
            assert_eq!(counts.failed(), 0, "on {}: {counts:?}", node.name());
            assert!(!counts.identities.is_empty(), "nobody answered");
        }
    }
}

fn sum(reports: &[Value]) -> Counts {
    let mut counts = Counts::default();
    for report in reports {
        for (field, sums) in [
            ("identities", &mut counts.identities),
            ("errors", &mut counts.errors),
        ] {
            for (name, count) in report[field].as_object().into_iter().flatten() {
                *sums.entry(name.clone()).or_default() += count.as_u64().unwrap_or(0);
            }
        }
    }
    counts
}
