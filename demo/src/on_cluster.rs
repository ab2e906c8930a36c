//! On a cluster of two nodes: everything by `kubectl apply` of the files in `deploy`, and a client on
//! each node.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use splitter_api::Status;
use testbed::cluster::{Cluster, Node, Options};
use testbed::fixtures::Tally;
use testbed::fixtures::image::Image;
use testbed::workspace;

use crate::kubectl::{line, run, start};
use crate::scenario::{ClusterFiles, Scenario};
use crate::screen::Screen;
use crate::status;
use crate::steps::{Stage, Step};
use crate::{Images, interrupt};

/// The namespace of the agents.
const SYSTEM: &str = "splitter-system";

/// The namespace of the clients.
const CLIENTS: &str = "clients";

/// How long pods may take until they are ready, for kubectl.
const ROLLOUT_TIMEOUT: &str = "--timeout=180s";

/// How long a change may take to be programmed. It takes milliseconds on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How wide the commands are in the lines about what was done.
const WIDTH: usize = 60;

/// A scenario on a cluster.
#[derive(Debug)]
pub(crate) struct OnCluster {
    scenario: &'static Scenario,
    files: &'static ClusterFiles,
    cluster: Cluster,
    steps: Vec<StepFile>,
    /// The client's pod on each node, in the order of the nodes.
    client_pods: Vec<String>,
    images: Images,
}

impl OnCluster {
    /// Brings the cluster up. There is nothing on it yet.
    pub(crate) fn up(
        scenario: &'static Scenario,
        images: Images,
        screen: &mut Screen,
    ) -> Result<Self> {
        let files = scenario.on_cluster.as_ref();
        let files = files.context("it is not shown on a cluster")?;
        let steps = StepFile::all(files)?;
        let started = Instant::now();
        let options = Options {
            name: format!("demo-{}", std::process::id()),
            ..Options::default()
        };
        let cluster = Cluster::up_unless(&options, &interrupt::requested)?;
        screen.title(scenario.title)?;
        let what = format!("a cluster with {}", names(&cluster).join(" and "));
        done(screen, &what, &format!("up in {}", seconds(started)))?;
        Ok(Self {
            scenario,
            files,
            cluster,
            steps,
            client_pods: Vec::new(),
            images,
        })
    }

    /// Puts everything on the cluster, and waits until it is ready. There is no split yet.
    pub(crate) fn install(&mut self, screen: &mut Screen) -> Result<()> {
        let started = Instant::now();
        for archive in &self.images.archives {
            interrupt::check()?;
            self.cluster.load(archive)?;
        }
        let what = format!("images {}", Image::ALL.map(Image::reference).join(", "));
        let outcome = format!("on both nodes after {}", seconds(started));
        done(screen, &what, &outcome)?;

        let servers = format!("{}/{}", self.files.directory, self.files.manifest);
        let clients = "deploy/examples/clients.yaml";
        let started = Instant::now();
        for (arguments, what) in [
            (["create", "-k", "deploy/crd"], "what a TrafficSplit is"),
            (["apply", "-k", "deploy/"], "the agent, on every node"),
            (["apply", "-f", &servers], "the Services and their pods"),
            (["apply", "-f", clients], "a client on every node"),
        ] {
            run(&self.cluster, &arguments)?;
            done(screen, &line(&arguments), what)?;
        }
        self.wait_for_pods(SYSTEM, "daemonset/splitter-agent")?;
        let outcome = format!("after {}", seconds(started));
        done(screen, "agents ready on both nodes", &outcome)?;
        for leaf in self.scenario.leaves {
            self.wait_for_pods(self.scenario.namespace, &format!("deployment/{leaf}"))?;
        }
        self.wait_for_pods(CLIENTS, "daemonset/client")?;
        let outcome = format!("after {}", seconds(started));
        done(screen, "servers and clients ready", &outcome)?;
        for node in names(&self.cluster) {
            let of_node = format!("--field-selector=spec.nodeName={node}");
            let name = [
                "-l",
                "app=client",
                "-o",
                "jsonpath={.items[0].metadata.name}",
            ];
            let get = ["-n", CLIENTS, "get", "pods", &of_node];
            let pod = run(&self.cluster, &[&get[..], &name].concat())?;
            self.client_pods.push(pod);
        }
        let what = "each client asks, each time over a new connection";
        done(screen, what, self.files.url)?;
        Ok(screen.print(&[String::new()])?)
    }

    fn wait_for_pods(&self, namespace: &str, of: &str) -> Result<()> {
        let arguments = ["-n", namespace, "rollout", "status", of, ROLLOUT_TIMEOUT];
        run(&self.cluster, &arguments).map(drop).or_else(|error| {
            interrupt::check()?;
            // Why a pod is not ready is not what kubectl says about its Deployment.
            let get = |what| run(&self.cluster, &["-n", namespace, "get", what, "-o", "wide"]);
            let (pods, events) = (get("pods")?, get("events")?);
            Err(error.context(format!("{of} is not ready\n{pods}{events}")))
        })
    }

    /// Takes everything down.
    pub(crate) fn down(self) -> Result<()> {
        self.cluster.down()
    }

    /// Leaves the cluster to the user, and says how to look around in it.
    pub(crate) fn keep(self, screen: &mut Screen) -> Result<()> {
        let kubectl = self.cluster.tools().program("kubectl")?;
        let path = env::var_os("PATH").unwrap_or_default();
        let path: Vec<PathBuf> = env::split_paths(&path).collect();
        let export = export_line(&self.cluster.kubeconfig(), &kubectl, &path);
        let Scenario {
            namespace, split, ..
        } = self.scenario;
        let url = self.files.url;
        let step = self.steps.first().context("no step")?.arguments().join(" ");
        let name = self.cluster.name().to_owned();
        self.cluster.detach()?;
        let agent = format!("kubectl -n {SYSTEM} exec ds/splitter-agent -- splitter-agent");
        let entries = [
            ("first of all, for kubectl", export),
            ("every split", "kubectl get ts --all-namespaces".to_owned()),
            (
                "what the agents say about it",
                format!("kubectl -n {namespace} describe ts {split}"),
            ),
            ("what the kernel of a node does", format!("{agent} status")),
            (
                "ask from a pod",
                format!("kubectl -n {CLIENTS} exec ds/client -- example get {url} --count 100"),
            ),
            (
                "change the weights",
                format!("kubectl -n {namespace} edit ts {split}"),
            ),
            ("or play a step again", format!("kubectl {step}")),
            (
                "take everything down",
                format!("cargo xtask cluster --name {name} down"),
            ),
        ];
        let entries = entries.map(|(what, command)| (what.to_owned(), command));
        Ok(screen.suggest("The cluster stays up.", &entries)?)
    }
}

impl Stage for OnCluster {
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

    fn change_by(&self) -> &'static str {
        "kubectl"
    }

    fn places(&self) -> Vec<String> {
        let names = names(&self.cluster).into_iter();
        names.map(str::to_owned).collect()
    }

    fn change(&mut self, step: &Step) -> Result<Instant> {
        let file = self.steps.iter().find(|it| it.weights == step.weights);
        let file = file.context("no file has these weights")?;
        run(&self.cluster, &file.arguments())?;
        Ok(Instant::now())
    }

    /// Any agent's `status` tells what the maps hold that are pinned where it runs. This one runs on
    /// the node, but is not started by kubectl: that would take longer than what is measured.
    fn wait_programmed(&mut self, weights: [u64; 2]) -> Result<()> {
        let [one, two] = weights;
        for node in self.cluster.nodes() {
            let command = || {
                let mut command = node.command(&self.images.agent)?;
                command.args(["status", "-o", "json"]);
                Ok(command)
            };
            let wanted = |status: &Status| status::shows(status, self.scenario, weights);
            status::wait(TIMEOUT, command, wanted).with_context(|| {
                let split = self.scenario.split;
                format!("{split} was not at {one}/{two} on {}", node.name())
            })?;
        }
        Ok(())
    }

    fn request(&mut self, count: u64) -> Result<Vec<Tally>> {
        let count = count.to_string();
        let url = self.files.url;
        // All nodes at once.
        let mut running = Vec::new();
        for pod in &self.client_pods {
            let arguments = [
                "-n", CLIENTS, "exec", pod, "--", "example", "get", url, "--count", &count,
                "--json",
            ];
            running.push(start(&self.cluster, &arguments)?);
        }
        let counted = running.iter_mut().zip(names(&self.cluster));
        let counted = counted.map(|(running, node)| {
            let ended = running.end()?;
            // It fails if a request has, and counts that all the same.
            Tally::of_lines(&ended.output)
                .with_context(|| format!("the client on {node} failed: {}", ended.errors.trim()))
        });
        counted.collect()
    }
}

/// A file with a TrafficSplit.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StepFile {
    /// In the workspace.
    path: String,
    weights: [u64; 2],
}

impl StepFile {
    /// The files of a scenario, in the order of their names.
    fn all(of: &ClusterFiles) -> Result<Vec<Self>> {
        let directory = of.directory;
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

fn names(cluster: &Cluster) -> Vec<&str> {
    cluster.nodes().iter().map(Node::name).collect()
}

/// Prints a line on something that was done.
fn done(screen: &mut Screen, what: &str, outcome: &str) -> Result<()> {
    Ok(screen.explain(WIDTH, &[(what.to_owned(), outcome.to_owned())])?)
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f32())
}

/// What makes kubectl know the cluster, and the shell know kubectl where it is not installed.
fn export_line(kubeconfig: &Path, kubectl: &Path, path: &[PathBuf]) -> String {
    let mut line = format!("export KUBECONFIG={}", kubeconfig.display());
    let is_installed = path.iter().any(|it| it.join("kubectl").is_file());
    if let Some(directory) = kubectl.parent().filter(|_| !is_installed) {
        line += &format!(" PATH=\"$PATH:{}\"", directory.display());
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::scenario::{BOOKSTORE, HTTPBIN};

    #[test]
    fn steps_are_what_their_names_say() {
        for other in ["00-bookstore.yaml", "20-split-50.yaml", "20-split-a-b.yaml"] {
            assert_eq!(weights_in(other), None, "{other}");
        }
        for scenario in [&BOOKSTORE, &HTTPBIN] {
            let files = StepFile::all(scenario.on_cluster.as_ref().unwrap()).unwrap();
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
    fn the_path_is_extended_only_where_kubectl_is_not_installed() {
        let installed = tempfile::tempdir().unwrap();
        fs::write(installed.path().join("kubectl"), "").unwrap();
        let line = |path: &[PathBuf]| {
            export_line(Path::new("/run/config"), Path::new("/cache/kubectl"), path)
        };
        assert_eq!(
            line(&[installed.path().to_owned()]),
            "export KUBECONFIG=/run/config"
        );
        assert_eq!(
            line(&[]),
            "export KUBECONFIG=/run/config PATH=\"$PATH:/cache\""
        );
    }
}
