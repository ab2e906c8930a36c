//! What the agents tell: metrics, probes, and what they write to the cluster.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::agents::AGENT_SELECTOR;
use crate::test_cluster::{Node, SYSTEM, TestCluster, wait_for};

/// What an agent's `/metrics` said.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// The sum of all series of a name that have these labels; `None` without any.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        let values = self.values(name, labels);
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// The values of all series of a name that have these labels.
    pub(crate) fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<u64> {
        let lines = self.0.lines();
        lines.filter_map(|line| value(line, name, labels)).collect()
    }

    /// All series of a name with their values, as they are.
    pub(crate) fn lines(&self, name: &str) -> Vec<&str> {
        let lines = self.0.lines();
        lines
            .filter(|line| value(line, name, &[]).is_some())
            .collect()
    }
}

/// The value of a line that is of this name and has these labels.
fn value(line: &str, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
    let rest = line.strip_prefix("splitter_")?.strip_prefix(name)?;
    let (labelled, value) = rest.rsplit_once(' ')?;
    // Else the name goes on.
    if !(labelled.is_empty() || labelled.starts_with('{')) {
        return None;
    }
    let has = |(label, value): &(&str, &str)| {
        let wanted = format!("{label}=\"{value}\"");
        labelled
            .trim_matches(['{', '}'])
            .split(',')
            .any(|pair| pair == wanted)
    };
    labels.iter().all(has).then(|| value.parse().ok())?
}

/// The Events of objects as `kubectl describe` shows them: reasons by the object's name, and how
/// often each was told.
pub(crate) type Events = BTreeMap<String, BTreeMap<String, u64>>;

impl TestCluster {
    /// What a node's agent answers over the pod network, if it says that all is well.
    pub(crate) fn ask_agent(&self, node: &Node, path: &str) -> Option<String> {
        // For a moment there may be none.
        let pod = self.try_agent(node)?;
        let url = format!("/api/v1/namespaces/{SYSTEM}/pods/{pod}:9464/proxy/{path}");
        let output = self.try_kubectl(&["get", "--raw", &url], None);
        let text = String::from_utf8(output.stdout).expect("text");
        output.status.success().then_some(text)
    }

    /// The metrics of a node's agent.
    pub(crate) fn metrics(&self, node: &Node) -> Metrics {
        self.try_metrics(node).expect("metrics")
    }

    /// The metrics of a node's agent, if it tells them.
    pub(crate) fn try_metrics(&self, node: &Node) -> Option<Metrics> {
        self.ask_agent(node, "metrics").map(Metrics)
    }

    /// The Events of all objects of a kind in a namespace, as people see them.
    pub(crate) fn described(&self, namespace: &str, kind: &str) -> Events {
        // By default shown only of a single object.
        let describe = ["-n", namespace, "describe", kind, "--show-events"];
        let text = self.kubectl(&describe);
        let mut events = Events::new();
        let mut object = None;
        let mut is_event = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("Name:") {
                object = Some(events.entry(name.trim().to_owned()).or_default());
                is_event = false;
            } else if line.starts_with("Events:") {
                is_event = true;
            } else if let (true, Some(event), Some(object)) =
                (is_event, told(line), object.as_mut())
            {
                let (reason, count) = event;
                *object.entry(reason).or_default() += count;
            }
        }
        events
    }

    /// Waits for an Event about a TrafficSplit.
    pub(crate) fn wait_for_event(&self, namespace: &str, reason: &str) {
        wait_for(&format!("Event {reason}"), || {
            let events = self.get(&["-n", namespace, "get", "events.v1.events.k8s.io"]);
            let mut events = events["items"].as_array()?.iter();
            let is_it = |event: &Value| {
                event["reason"] == reason && event["regarding"]["kind"] == "TrafficSplit"
            };
            events.any(is_it).then_some(())
        });
    }

    /// The condition of a type in the status of a split: its own status and its reason.
    pub(crate) fn condition(
        &self,
        namespace: &str,
        split: &str,
        kind: &str,
    ) -> Option<(String, String)> {
        let object = self.get(&["-n", namespace, "get", "trafficsplit", split]);
        // What is said of an older generation is not said of this one.
        if object["status"]["observedGeneration"] != object["metadata"]["generation"] {
            return None;
        }
        let conditions = object["status"]["conditions"].as_array()?;
        let condition = conditions.iter().find(|it| it["type"] == kind)?;
        let text = |field: &str| Some(condition[field].as_str()?.to_owned());
        Some((text("status")?, text("reason")?))
    }

    /// Which agent runs on which node, and how often it was started again.
    pub(crate) fn agent_lives(&self) -> BTreeMap<String, Value> {
        let pods = self.get(&["-n", SYSTEM, "get", "pods", "-l", AGENT_SELECTOR]);
        let pods = pods["items"].as_array().expect("pods").iter();
        pods.map(|pod| {
            let name = pod["metadata"]["name"].as_str().expect("a name");
            let restarts = &pod["status"]["containerStatuses"][0]["restartCount"];
            (name.to_owned(), restarts.clone())
        })
        .collect()
    }
}

/// A line of `kubectl describe` below `Events:`; `None` if it is not an Event.
fn told(line: &str) -> Option<(String, u64)> {
    let mut words = line.split_whitespace();
    let kind = words.next()?;
    if !matches!(kind, "Normal" | "Warning") {
        return None;
    }
    let reason = words.next()?.to_owned();
    // `5s (x3 over 20s)`
    let repeated = line.split_once(" (x").and_then(|(_, rest)| {
        let (count, _) = rest.split_once(" over ")?;
        count.parse().ok()
    });
    Some((reason, repeated.unwrap_or(1)))
}
