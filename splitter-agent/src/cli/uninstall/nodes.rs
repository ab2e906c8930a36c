//! Which nodes are clean, and what keeps the others: from a DaemonSet and its pods alone.

use std::fmt;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde::Serialize;
use serde_json::{Value, json};

/// The container of the agent.
const CONTAINER: &str = "agent";

/// The command that a pod runs which cleans its node.
const CLEANUP: &str = "cleanup";

/// The DaemonSet controller puts the name of a pod's node here, before the scheduler sees it.
const NODE_FIELD: &str = "metadata.name";

/// On how many nodes agents may be replaced at the same time: a number, or a percentage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MaxUnavailable {
    Nodes(u32),
    Percent(u32),
}

impl MaxUnavailable {
    fn json(&self) -> Value {
        match self {
            Self::Nodes(nodes) => json!(nodes),
            Self::Percent(percent) => json!(format!("{percent}%")),
        }
    }
}

/// Reads what `--max-unavailable` is given.
pub(super) fn max_unavailable(text: &str) -> Result<MaxUnavailable, String> {
    let parsed = match text.strip_suffix('%') {
        Some(percent) => percent
            .parse()
            .ok()
            .filter(|it| (1..=100).contains(it))
            .map(MaxUnavailable::Percent),
        None => text
            .parse()
            .ok()
            .filter(|it| *it > 0)
            .map(MaxUnavailable::Nodes),
    };
    parsed
        .ok_or_else(|| "give a number of nodes from 1, or a percentage from 1% to 100%".to_owned())
}

/// How far cleaning is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// How many nodes there are to clean.
    pub(super) nodes: i32,
    /// How many have said that they are clean.
    pub(super) clean: i32,
    /// Whether these numbers are of what the DaemonSet is now.
    pub(super) is_current: bool,
    /// The others, by name.
    pub(super) unclean: Vec<Unclean>,
}

/// A node that has not said that it is clean.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Unclean {
    node: String,
    pod: String,
    reason: String,
}

impl Progress {
    /// Whether every node has said that it is clean.
    pub(super) fn is_done(&self) -> bool {
        self.is_current && self.clean == self.nodes && self.unclean.is_empty()
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, clean, .. } = self;
        write!(formatter, "{clean} of {nodes} nodes are clean")?;
        for Unclean { node, pod, reason } in &self.unclean {
            write!(formatter, "; {node} is not: {reason} (pod {pod})")?;
        }
        let without_pods = i64::from(*nodes) - i64::from(*clean) - self.unclean.len() as i64;
        if without_pods > 0 {
            write!(formatter, "; {without_pods} have no pod yet")?;
        }
        Ok(())
    }
}

/// By which the pods of a DaemonSet are found.
pub(super) fn selector(daemon_set: &DaemonSet) -> String {
    let spec = daemon_set.spec.as_ref();
    let labels = spec.and_then(|spec| spec.selector.match_labels.as_ref());
    let pairs = labels.into_iter().flatten();
    let pairs: Vec<_> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

/// The Helm release that a DaemonSet was installed by. Helm writes it when it installs, and not into
/// what `helm template` prints.
pub(super) fn helm_release(daemon_set: &DaemonSet) -> Option<&String> {
    let annotations = daemon_set.metadata.annotations.as_ref()?;
    annotations.get("meta.helm.sh/release-name")
}

/// What makes a DaemonSet clean its nodes; nothing if it does so already.
pub(super) fn cleanup_patch(daemon_set: &DaemonSet, at_once: &MaxUnavailable) -> Option<Value> {
    let spec = daemon_set.spec.as_ref()?;
    let pod = spec.template.spec.as_ref()?;
    let mut containers = pod.containers.iter();
    let agent = containers.find(|container| container.name == CONTAINER);
    let arguments = agent.and_then(|agent| agent.args.as_deref());
    let arguments = arguments.unwrap_or_default();
    let update = daemon_set.spec.as_ref()?.update_strategy.as_ref();
    let is_rolling = update.and_then(|update| update.type_.as_deref()) != Some("OnDelete");
    if is_cleanup(arguments) && is_rolling {
        return None;
    }
    let mut cleanup = vec![CLEANUP.to_owned(), "--stay".to_owned()];
    cleanup.extend(pin_directory(arguments));
    Some(json!({"spec": {
        "updateStrategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": at_once.json(), "maxSurge": 0},
        },
        "template": {"spec": {"containers": [{"name": CONTAINER, "args": cleanup}]}},
    }}))
}

/// The arguments that say where the agent has its pins, which is where they have to be removed.
fn pin_directory(arguments: &[String]) -> Vec<String> {
    const FLAG: &str = "--pin-dir";
    let is_flag = |argument: &String| argument.split('=').next() == Some(FLAG);
    let Some(index) = arguments.iter().position(is_flag) else {
        return Vec::new();
    };
    let count = if arguments[index] == FLAG { 2 } else { 1 };
    let found = arguments.iter().skip(index).take(count);
    found.cloned().collect()
}

fn is_cleanup(arguments: &[String]) -> bool {
    arguments.first().is_some_and(|first| first == CLEANUP)
}

/// How far cleaning is, by what the DaemonSet's controller counts and what its pods say.
pub(super) fn progress(daemon_set: &DaemonSet, pods: &[Pod]) -> Progress {
    let status = daemon_set.status.clone().unwrap_or_default();
    let is_current = status.observed_generation.is_some()
        && status.observed_generation >= daemon_set.metadata.generation;
    let nodes = status.desired_number_scheduled;
    let updated = status.updated_number_scheduled.unwrap_or(0);
    let mut unclean: Vec<_> = pods.iter().filter_map(unclean).collect();
    unclean.sort();
    // A node whose agent is on its way out has the pod that cleans it beside that.
    unclean.dedup_by(|later, earlier| later.node == earlier.node);
    Progress {
        nodes,
        clean: if is_current {
            updated.min(status.number_ready)
        } else {
            0
        },
        is_current,
        unclean,
    }
}

/// What keeps the node of a pod from being clean.
fn unclean(pod: &Pod) -> Option<Unclean> {
    let spec = pod.spec.as_ref()?;
    let agent = spec.containers.iter().find(|it| it.name == CONTAINER)?;
    let cleans = is_cleanup(agent.args.as_deref().unwrap_or_default());
    let is_ending = pod.metadata.deletion_timestamp.is_some();
    let reason = match (cleans, is_ending) {
        (false, false) => "it still runs the agent".to_owned(),
        (_, true) => "its pod is still terminating; if that persists, the node does not answer \
                      (see `kubectl get nodes`): repair it, or delete the Node if it is gone"
            .to_owned(),
        (true, false) if is_ready(pod) => return None,
        (true, false) => waiting(pod),
    };
    Some(Unclean {
        node: node(pod).unwrap_or("a node without name").to_owned(),
        pod: pod.metadata.name.clone().unwrap_or_default(),
        reason,
    })
}

fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|(status, _)| status == "True")
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|it| it.type_ == kind)?;
    Some((&found.status, found.message.as_deref().unwrap_or_default()))
}

/// Why a pod that cleans is not ready, as the kubelet or the scheduler says.
fn waiting(pod: &Pod) -> String {
    if let Some(("False", message)) = condition(pod, "PodScheduled") {
        return format!("no pod can be put there: {message}");
    }
    let statuses = pod
        .status
        .as_ref()
        .and_then(|it| it.container_statuses.as_ref());
    let agent = statuses
        .into_iter()
        .flatten()
        .find(|it| it.name == CONTAINER);
    let mut reasons: Vec<String> = agent.map(container_reasons).unwrap_or_default();
    if reasons.is_empty() {
        reasons.push("its pod is not ready yet".to_owned());
    }
    reasons.join(", ")
}

fn container_reasons(container: &ContainerStatus) -> Vec<String> {
    let state = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        let state = state.as_ref()?;
        let (reason, message) = match (&state.waiting, &state.terminated) {
            (Some(waiting), _) => (waiting.reason.clone(), waiting.message.clone()),
            (None, Some(ended)) => (ended.reason.clone(), ended.message.clone()),
            (None, None) => return None,
        };
        let texts = [reason, message].into_iter().flatten();
        let texts: Vec<_> = texts.map(|text| text.trim().to_owned()).collect();
        Some(texts.join(": "))
    };
    let states = [&container.state, &container.last_state];
    states.into_iter().filter_map(state).collect()
}

/// The node that a pod is on, or is meant for.
fn node(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = &spec.node_name {
        return Some(name);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let terms = required.node_selector_terms.iter();
    let fields = terms
        .filter_map(|term| term.match_fields.as_ref())
        .flatten();
    let mut names = fields.filter(|field| field.key == NODE_FIELD);
    names.next()?.values.as_ref()?.first().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon_set(arguments: &[&str], status: &Value) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"name": "splitter-agent", "generation": 7},
            "spec": {
                "selector": {"matchLabels": {"app": "it", "tier": "node"}},
                "template": {"spec": {"containers": [
                    {"name": "agent", "image": "one", "args": arguments},
                ]}},
            },
            "status": status,
        }))
        .unwrap()
    }

    fn counts(observed: i64, desired: i32, updated: i32, ready: i32) -> Value {
        json!({
            "observedGeneration": observed, "desiredNumberScheduled": desired,
            "updatedNumberScheduled": updated, "numberReady": ready,
            "currentNumberScheduled": desired, "numberMisscheduled": 0,
        })
    }

    fn pod(node: &str, command: &str, status: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": format!("pod-of-{node}")},
            "spec": {
                "nodeName": node,
                "containers": [{"name": "agent", "args": [command]}],
            },
            "status": status,
        }))
        .unwrap()
    }

    fn ready() -> Value {
        json!({"conditions": [{"type": "Ready", "status": "True"}]})
    }

    fn reasons(progress: &Progress) -> String {
        progress.to_string()
    }

    #[test]
    fn all_nodes_are_clean_only_when_the_pods_of_all_have_said_so() {
        let all = [pod("a", "cleanup", &ready()), pod("b", "cleanup", &ready())];
        let now = |status: &Value, pods: &[Pod]| progress(&daemon_set(&["cleanup"], status), pods);
        assert!(now(&counts(7, 2, 2, 2), &all).is_done());
        // The controller has not seen the change yet.
        assert!(!now(&counts(6, 2, 2, 2), &all).is_done());
        assert!(!now(&json!(null), &all).is_done());
        // A node without a pod; `maxUnavailable` would call that done.
        let one = now(&counts(7, 2, 1, 1), &all[..1]);
        assert!(!one.is_done());
        assert_eq!(reasons(&one), "1 of 2 nodes are clean; 1 have no pod yet");
        // Numbers that are older than the pods.
        let running = [pod("a", "cleanup", &ready()), pod("b", "run", &ready())];
        let other = now(&counts(7, 2, 2, 2), &running);
        assert!(!other.is_done());
        assert!(reasons(&other).contains("b is not: it still runs the agent"));
    }

    #[test]
    fn what_keeps_a_node_is_named() {
        let text = |pod: Pod| {
            let set = daemon_set(&["cleanup"], &counts(7, 1, 1, 0));
            let progress = progress(&set, &[pod]);
            assert!(!progress.is_done());
            reasons(&progress)
        };
        let image = text(pod(
            "a",
            "cleanup",
            &json!({"containerStatuses": [{
                "name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}},
            }]}),
        ));
        assert!(
            image.contains("a is not: ImagePullBackOff: not found (pod pod-of-a)"),
            "{image}"
        );
        let failed = text(pod(
            "a",
            "cleanup",
            &json!({"containerStatuses": [{
                "name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 1,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 3, "reason": "Error", "message": "no\n"}},
            }]}),
        ));
        assert!(
            failed.contains("CrashLoopBackOff, Error: no (pod"),
            "{failed}"
        );
        let mut ending = pod("gone", "run", &ready());
        ending.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert!(text(ending).contains("gone is not: its pod is still terminating"));
        let mut pending = pod(
            "",
            "cleanup",
            &json!({"conditions": [
                {"type": "PodScheduled", "status": "False", "message": "too many pods"},
            ]}),
        );
        let spec = pending.spec.as_mut().unwrap();
        spec.node_name = None;
        spec.affinity = serde_json::from_value(json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{
                "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["full"]}],
            }]},
        }}))
        .unwrap();
        let pending = text(pending);
        assert!(
            pending.contains("full is not: no pod can be put there: too many pods"),
            "{pending}"
        );
    }

    #[test]
    fn the_agent_is_replaced_by_a_clean_up_of_the_same_pins() {
        let status = counts(7, 1, 1, 1);
        let patch = |arguments: &[&str]| {
            cleanup_patch(
                &daemon_set(arguments, &status),
                &MaxUnavailable::Percent(100),
            )
        };
        let arguments = |given: &[&str]| {
            let patch = patch(given).unwrap();
            assert_eq!(
                patch["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"],
                "100%"
            );
            patch["spec"]["template"]["spec"]["containers"][0]["args"].clone()
        };
        assert_eq!(arguments(&["run"]), json!(["cleanup", "--stay"]));
        assert_eq!(arguments(&[]), json!(["cleanup", "--stay"]));
        assert_eq!(
            arguments(&["run", "--pin-dir", "/sys/fs/bpf/x", "--listen=1"]),
            json!(["cleanup", "--stay", "--pin-dir", "/sys/fs/bpf/x"])
        );
        assert_eq!(
            arguments(&["run", "--pin-dir=/sys/fs/bpf/x"]),
            json!(["cleanup", "--stay", "--pin-dir=/sys/fs/bpf/x"])
        );
        assert_eq!(patch(&["cleanup", "--stay"]), None);
    }

    #[test]
    fn a_number_of_nodes_is_a_number_or_a_percentage() {
        assert_eq!(max_unavailable("3"), Ok(MaxUnavailable::Nodes(3)));
        assert_eq!(max_unavailable("300"), Ok(MaxUnavailable::Nodes(300)));
        assert_eq!(max_unavailable("10%"), Ok(MaxUnavailable::Percent(10)));
        for wrong in ["0", "0%", "101%", "-1", "", "%", "many"] {
            assert!(max_unavailable(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_daemon_set_tells_its_pods_and_its_release() {
        let mut set = daemon_set(&["run"], &json!(null));
        assert_eq!(selector(&set), "app=it,tier=node");
        assert_eq!(helm_release(&set), None);
        let release = ("meta.helm.sh/release-name".to_owned(), "it".to_owned());
        set.metadata.annotations = Some([release].into());
        assert_eq!(helm_release(&set).map(String::as_str), Some("it"));
    }
}
