//! The files of the steps, and playing them: apply, wait for the agents, ask from every node.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use testbed::cluster::Node;
use testbed::workspace;

use super::kubectl::{Running, kubectl, line, run};
use super::site::{CLIENTS, Site};
use crate::client::Tally;
use crate::interrupt;
use crate::judge::Place;
use crate::scenario::Scenario;
use crate::screen::Wording;
use crate::status::Status;
use crate::steps::{Stage, Step};

/// How long a change may take to be programmed. It takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file with a TrafficSplit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StepFile {
    /// In the workspace.
    pub(super) path: String,
    weights: [u64; 2],
}

impl StepFile {
    /// The files of a scenario, in the order of their names.
    pub(super) fn all(scenario: &Scenario) -> Result<Vec<Self>> {
        let directory = scenario.on_cluster.directory;
        let mut files = Vec::new();
        let entries = fs::read_dir(workspace::root().join(directory))
            .with_context(|| format!("cannot read {directory}"))?;
        for entry in entries {
            let name = entry?.file_name();
            if let Some(name) = name.to_str()
                && let Some(weights) = weights_in(name)
            {
                let path = format!("{directory}/{name}");
                files.push(Self { path, weights });
            }
        }
        ensure!(!files.is_empty(), "there is no step in {directory}");
        files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Ok(files)
    }

    fn arguments(&self) -> [&str; 3] {
        ["apply", "-f", &self.path]
    }
}

/// The weights in the name of a step's file, such as `20-split-50-50.yaml`.
fn weights_in(name: &str) -> Option<[u64; 2]> {
    let (_, weights) = name.strip_suffix(".yaml")?.split_once("-split-")?;
    let (one, two) = weights.split_once('-')?;
    Some([one.parse().ok()?, two.parse().ok()?])
}

impl Stage for Site {
    fn scenario(&self) -> &'static Scenario {
        self.scenario
    }

    fn steps(&self) -> Vec<Step> {
        let step = |file: &StepFile| Step {
            weights: file.weights,
            command: Some(line(&file.arguments())),
        };
        self.steps.iter().map(step).collect()
    }

    fn wording(&self) -> Wording {
        Wording {
            changed: "being applied, waiting for both agents",
            change: "kubectl",
        }
    }

    fn places(&self) -> Vec<Place> {
        let nodes = self.cluster.nodes().iter();
        nodes.map(|it| Place::One(it.name().to_owned())).collect()
    }

    fn change(&mut self, step: &Step) -> Result<Instant> {
        let file = self.steps.iter().find(|it| it.weights == step.weights);
        let file = file.context("no file has these weights")?;
        run(&self.cluster, &file.arguments())?;
        Ok(Instant::now())
    }

    fn wait_programmed(&mut self, weights: [u64; 2]) -> Result<()> {
        let nodes = self.cluster.nodes().iter();
        nodes
            .into_iter()
            .try_for_each(|node| self.wait_on(node, weights))
    }

    fn request(&mut self, count: u64) -> Result<Vec<Tally>> {
        let count = count.to_string();
        let url = self.scenario.on_cluster.url;
        let ask = |pod: &String| {
            let arguments = [
                "-n", CLIENTS, "exec", pod, "--", "example", "get", url, "--count", &count,
                "--json",
            ];
            Running::start(line(&arguments), &mut kubectl(&self.cluster, &arguments)?)
        };
        // All nodes at once.
        let running = self
            .client_pods
            .iter()
            .map(ask)
            .collect::<Result<Vec<_>>>()?;
        let counted = running.into_iter().zip(self.cluster.nodes());
        counted
            .map(|(running, node)| {
                let output = running.end()?;
                // It fails if a request has, and counts that all the same.
                tally(&String::from_utf8_lossy(&output.stdout)).with_context(|| {
                    let complaint = String::from_utf8_lossy(&output.stderr);
                    format!("the client on {} failed: {}", node.name(), complaint.trim())
                })
            })
            .collect()
    }
}

impl Site {
    /// Waits until the kernel of a node splits the scenario's Service by these weights.
    ///
    /// Any agent's `status` tells what the maps hold that are pinned where it runs. This one runs on
    /// the node, but is not started by kubectl: that would take longer than what is measured.
    fn wait_on(&self, node: &Node, weights: [u64; 2]) -> Result<()> {
        let [one, two] = weights;
        let deadline = Instant::now() + PATIENCE;
        loop {
            interrupt::check()?;
            let seen = Status::of(
                node.command(&self.images.agent)?
                    .args(["status", "-o", "json"]),
            );
            if seen
                .as_ref()
                .is_ok_and(|it| it.shows(self.scenario, weights))
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                let seen = match seen {
                    Ok(status) => format!("status says {status:?}"),
                    Err(error) => format!("{error:#}"),
                };
                bail!(
                    "{} was not at {one}/{two} on {} within {PATIENCE:?}; {seen}",
                    self.scenario.split,
                    node.name()
                );
            }
            sleep(Duration::from_millis(2));
        }
    }
}

/// What `example get --json` has counted; `None` if it did not come to its end.
fn tally(text: &str) -> Option<Tally> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Line {
        Identity { identity: String, count: u64 },
        Error { error: String, count: u64 },
        Total { total: u64 },
    }
    let mut tally = Tally::default();
    for line in text.lines() {
        match serde_json::from_str(line).ok()? {
            Line::Identity { identity, count } => tally.add_many(Ok(identity), count),
            Line::Error { error, count } => tally.add_many(Err(error), count),
            Line::Total { total } => return (total == tally.requests()).then_some(tally),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::scenario::{BOOKSTORE, HTTPBIN};

    #[test]
    fn names_of_steps_tell_their_weights() {
        assert_eq!(weights_in("20-split-50-50.yaml"), Some([50, 50]));
        assert_eq!(weights_in("25-split-90-10.yaml"), Some([90, 10]));
        for other in ["00-bookstore.yaml", "20-split-50.yaml", "20-split-a-b.yaml"] {
            assert_eq!(weights_in(other), None, "{other}");
        }
    }

    #[test]
    fn steps_are_what_their_names_say() {
        for scenario in [&BOOKSTORE, &HTTPBIN] {
            let files = StepFile::all(scenario).unwrap();
            assert!(files.len() >= 2, "{files:?}");
            for (index, file) in files.iter().enumerate() {
                let text = fs::read_to_string(workspace::root().join(&file.path)).unwrap();
                let split: Value = serde_saphyr::from_str(&text).unwrap();
                assert_eq!(split["metadata"]["name"], scenario.split);
                assert_eq!(split["metadata"]["namespace"], scenario.namespace);
                let backends = split["spec"]["backends"].as_array().unwrap();
                let leaves = backends.iter().map(|it| it["service"].as_str().unwrap());
                assert!(leaves.eq(scenario.leaves), "{}", file.path);
                let weights = backends.iter().map(|it| it["weight"].as_u64().unwrap());
                assert!(weights.eq(file.weights), "{}", file.path);
                // A step is found by its weights.
                assert!(files[..index].iter().all(|it| it.weights != file.weights));
            }
        }
    }

    #[test]
    fn what_a_client_counts_is_read() {
        let text = r#"{"count":3,"identity":"v1"}
{"count":1,"identity":"v2"}
{"count":2,"error":"refused"}
{"failed":2,"total":6}
"#;
        let tally = tally(text).unwrap();
        assert_eq!((tally.answers_of("v1"), tally.answers_of("v2")), (3, 1));
        assert_eq!(tally.errors().collect::<Vec<_>>(), [("refused", 2)]);
    }

    #[test]
    fn a_client_that_was_cut_off_counts_nothing() {
        assert!(tally("").is_none());
        assert!(tally("{\"count\":3,\"identity\":\"v1\"}\n").is_none());
        assert!(tally("error: no such pod\n").is_none());
    }
}
