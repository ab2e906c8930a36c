//! The scene: pods, servers, manifests, a client and an agent, all of which go when it is dropped.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use testbed::lab::names::Published;
use testbed::lab::{Lab, Pod, Process, server};

use super::agent::Agent;
use super::client::{Client, Tally};
use super::judge::Place;
use super::manifests::Manifests;
use super::scenario::{PORT, Scenario};
use super::screen::Wording;
use super::steps::{Stage, Step};

/// Begins the names of our directories; the process id follows.
const DIRECTORY_PREFIX: &str = "splitter-demo-";

/// A scenario on its stage.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) scenario: &'static Scenario,
    // Dropped in this order, from the front of the house to the back.
    pub(crate) client: Client,
    pub(crate) agent: Agent,
    /// How long it took until its programs were attached.
    agent_started_in: Duration,
    _servers: Vec<Process>,
    pub(crate) names: Vec<Published>,
    pub(crate) client_pod: Pod,
    leaf_pods: Vec<Pod>,
    pub(crate) lab: Lab,
    pub(crate) manifests: Manifests,
    pub(crate) directory: Directory,
}

impl Scene {
    /// Sets everything up. The agent runs, but there is nothing to split yet.
    pub(crate) fn set(scenario: &'static Scenario, agent_binary: &Path) -> Result<Self> {
        let directory = Directory::new()?;
        let lab = Lab::new("demo")?;
        let names = scenario.names();
        let hosts: Vec<(&str, IpAddr)> = names.iter().map(|(name, ip)| (&**name, *ip)).collect();

        let mut leaf_pods = Vec::new();
        let mut servers = Vec::new();
        for leaf in scenario.leaves {
            let pod = lab.pod(leaf)?;
            let (server, _) = pod.start_ready(|ready| server::identity(PORT, leaf, ready))?;
            servers.push(server);
            leaf_pods.push(pod);
        }
        let client_pod = lab.pod(scenario.client)?;
        client_pod.set_hosts(&hosts)?;
        let mut published = Vec::new();
        for pod in [&client_pod].into_iter().chain(&leaf_pods) {
            published.push(publish(pod, &hosts)?);
        }

        let addresses: Vec<_> = leaf_pods.iter().map(Pod::ipv4).collect();
        let manifests = directory.path().join("manifests");
        let manifests = Manifests::write(&manifests, scenario, &addresses)?;
        let log = directory.path().join("agent.log");
        let begin = Instant::now();
        let mut agent = Agent::start(agent_binary, &lab, &manifests, log)?;
        agent.wait_attached()?;
        let agent_started_in = begin.elapsed();
        let client = Client::start(scenario, &client_pod)?;
        Ok(Self {
            scenario,
            client,
            agent,
            agent_started_in,
            _servers: servers,
            names: published,
            client_pod,
            leaf_pods,
            lab,
            manifests,
            directory,
        })
    }

    /// What is there, in words: a title, and lines of a name and what it is.
    pub(crate) fn description(&self) -> Description {
        let Scenario {
            title,
            namespace,
            root,
            split,
            client,
            ..
        } = self.scenario;
        let mut parts = vec![(
            (*client).to_owned(),
            format!(
                "a pod; asks for {}, each time over a new connection",
                self.scenario.url()
            ),
        )];
        parts.push((
            format!("{root}.{namespace}"),
            format!("the root Service, {}:{PORT}", self.scenario.root_address()),
        ));
        for (pod, (leaf, address)) in self.leaf_pods.iter().zip(self.scenario.leaf_addresses()) {
            parts.push((
                leaf.to_owned(),
                format!("a leaf Service, {address}, and its pod, {}", pod.ipv4()),
            ));
        }
        parts.push((
            (*split).to_owned(),
            format!(
                "the TrafficSplit, edited in {}",
                self.manifests.directory().display()
            ),
        ));
        parts.push((
            "splitter-agent".to_owned(),
            format!(
                "watches that directory; programs attached {} ms after its start",
                self.agent_started_in.as_millis()
            ),
        ));
        Description { title, parts }
    }
}

impl Stage for Scene {
    fn scenario(&self) -> &'static Scenario {
        self.scenario
    }

    fn steps(&self) -> Vec<Step> {
        let step = |weights: &[u64; 2]| Step {
            weights: *weights,
            command: None,
        };
        self.scenario.steps.iter().map(step).collect()
    }

    fn wording(&self) -> Wording {
        Wording {
            changed: "edited, waiting for the agent",
            change: "the edit",
        }
    }

    fn places(&self) -> Vec<Place> {
        vec![Place::Only]
    }

    fn change(&mut self, step: &Step) -> Result<Instant> {
        let edited = Instant::now();
        self.manifests.set_weights(step.weights)?;
        Ok(edited)
    }

    fn wait_programmed(&mut self, weights: [u64; 2]) -> Result<()> {
        self.agent.wait_programmed(self.scenario, weights)
    }

    fn request(&mut self, count: u64) -> Result<Vec<Tally>> {
        Ok(vec![self.client.request(&self.client_pod, count)?])
    }
}

/// What a scene consists of.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) title: &'static str,
    pub(crate) parts: Vec<(String, String)>,
}

/// Publishes a pod under the name that the documentation uses; where another demo runs at
/// the same time, under one with a number behind it.
fn publish(pod: &Pod, hosts: &[(&str, IpAddr)]) -> Result<Published> {
    let name = format!("{DIRECTORY_PREFIX}{}", pod.name());
    pod.publish_name(&name, hosts).or_else(|_| {
        let name = format!("{name}-{}", std::process::id());
        pod.publish_name(&name, hosts)
    })
}

/// A temporary directory, removed when dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Makes one, and removes those of demos that were killed.
    fn new() -> Result<Self> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let path = parent.join(format!("{DIRECTORY_PREFIX}{}", std::process::id()));
        fs::create_dir(&path)
            .with_context(|| format!("cannot make the directory {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                eprintln!("demo: cannot remove {}: {error}", self.path.display());
            }
            _ => {}
        }
    }
}

/// Removes what killed demos left; best effort, it is only a little disk space.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(DIRECTORY_PREFIX)?.parse::<u32>().ok());
        if let Some(pid) = pid
            && !Path::new("/proc").join(pid.to_string()).exists()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
