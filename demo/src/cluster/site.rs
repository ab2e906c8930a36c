//! The cluster with everything on it: agents, the scenario's servers, and a client on each node.

use std::time::Instant;

use anyhow::{Result, ensure};
use testbed::cluster::{Cluster, Node, Options};
use testbed::fixtures::image::Image;

use super::kubectl::{line, run};
use super::steps::StepFile;
use crate::Images;
use crate::interrupt;
use crate::scenario::Scenario;
use crate::screen::Screen;

/// The namespace of the agents.
pub(super) const SYSTEM: &str = "splitter-system";

/// The namespace of the clients.
pub(super) const CLIENTS: &str = "clients";

/// How long pods may take until they are ready, for kubectl.
const PATIENCE: &str = "--timeout=180s";

/// How wide the commands are in the lines about what was done.
const WIDTH: usize = 60;

/// A scenario on a cluster.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) scenario: &'static Scenario,
    pub(super) cluster: Cluster,
    pub(super) steps: Vec<StepFile>,
    /// The client's pod on each node, in the order of the nodes.
    pub(super) client_pods: Vec<String>,
    pub(super) images: Images,
}

impl Site {
    /// Builds what is missing, the slowest first, and brings the cluster up. There is nothing on it
    /// yet.
    pub(super) fn build(
        scenario: &'static Scenario,
        images: Images,
        screen: &mut Screen,
    ) -> Result<Self> {
        let steps = StepFile::all(scenario)?;
        interrupt::check()?;

        let started = Instant::now();
        let options = Options {
            name: format!("demo-{}", std::process::id()),
            ..Options::default()
        };
        let cluster = Cluster::up_unless(&options, &interrupt::requested)?;
        let nodes = names(&cluster);
        screen.print(&[
            screen.heading(scenario.title),
            String::new(),
            done(
                screen,
                &format!("a cluster with {}", nodes.join(" and ")),
                &format!("up in {}", seconds(started)),
            ),
        ])?;
        Ok(Self {
            scenario,
            cluster,
            steps,
            client_pods: Vec::new(),
            images,
        })
    }

    /// Puts everything on the cluster, and waits until it is ready. There is no split yet.
    pub(super) fn furnish(&mut self, screen: &mut Screen) -> Result<()> {
        let started = Instant::now();
        for archive in &self.images.archives {
            interrupt::check()?;
            self.cluster.load(archive)?;
        }
        let names = Image::ALL.map(Image::reference);
        screen.print(&[done(
            screen,
            &format!("images {}", names.join(", ")),
            &format!("on both nodes after {}", seconds(started)),
        )])?;

        let on_cluster = &self.scenario.on_cluster;
        let servers = format!("{}/{}", on_cluster.directory, on_cluster.manifest);
        let started = Instant::now();
        for (arguments, what) in [
            (["create", "-k", "deploy/crd"], "what a TrafficSplit is"),
            (["apply", "-k", "deploy/"], "the agent, on every node"),
            (["apply", "-f", &servers], "the Services and their pods"),
            (
                ["apply", "-f", "deploy/examples/clients.yaml"],
                "a client on every node",
            ),
        ] {
            run(&self.cluster, &arguments)?;
            screen.print(&[done(screen, &line(&arguments), what)])?;
        }
        self.wait_for_pods(SYSTEM, "daemonset/splitter-agent")?;
        let agents = seconds(started);
        for leaf in self.scenario.leaves {
            self.wait_for_pods(self.scenario.namespace, &format!("deployment/{leaf}"))?;
        }
        self.wait_for_pods(CLIENTS, "daemonset/client")?;
        self.client_pods = self.find_client_pods()?;
        screen.print(&[
            done(
                screen,
                "agents ready on both nodes",
                &format!("after {agents}"),
            ),
            done(
                screen,
                "servers and clients ready",
                &format!("after {}", seconds(started)),
            ),
            done(
                screen,
                "each client asks, each time over a new connection",
                on_cluster.url,
            ),
            String::new(),
        ])?;
        Ok(())
    }

    fn wait_for_pods(&self, namespace: &str, of: &str) -> Result<()> {
        let arguments = ["-n", namespace, "rollout", "status", of, PATIENCE];
        run(&self.cluster, &arguments).map(drop).or_else(|error| {
            interrupt::check()?;
            // Why a pod is not ready is not what kubectl says about its Deployment.
            let pods = run(
                &self.cluster,
                &["-n", namespace, "get", "pods", "-o", "wide"],
            )?;
            let events = run(&self.cluster, &["-n", namespace, "get", "events"])?;
            Err(error.context(format!("{of} is not ready\n{pods}{events}")))
        })
    }

    fn find_client_pods(&self) -> Result<Vec<String>> {
        let columns = "jsonpath={range .items[*]}{.spec.nodeName} {.metadata.name}{\"\\n\"}{end}";
        let arguments = [
            "-n",
            CLIENTS,
            "get",
            "pods",
            "-l",
            "app=client",
            "-o",
            columns,
        ];
        let pods = run(&self.cluster, &arguments)?;
        let nodes = names(&self.cluster);
        let pods = in_order(&pods, &nodes);
        ensure!(
            pods.len() == nodes.len(),
            "there is no client on every node"
        );
        Ok(pods)
    }
}

fn names(cluster: &Cluster) -> Vec<&str> {
    cluster.nodes().iter().map(Node::name).collect()
}

/// The pods in lines of a node and a pod, one for each node, in the order of the nodes.
fn in_order(lines: &str, nodes: &[&str]) -> Vec<String> {
    let pairs: Vec<_> = lines.lines().filter_map(|it| it.split_once(' ')).collect();
    let pod_on = |name: &&str| {
        let pair = pairs.iter().find(|(node, _)| node == name);
        pair.map(|(_, pod)| (*pod).to_owned())
    };
    nodes.iter().filter_map(pod_on).collect()
}

/// A line on something that was done.
fn done(screen: &Screen, what: &str, outcome: &str) -> String {
    format!("  {what:WIDTH$}  {}", screen.aside(outcome))
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f32())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_in_the_order_of_their_nodes() {
        let lines = "node-2 client-b\nnode-1 client-a\n";
        assert_eq!(
            in_order(lines, &["node-1", "node-2"]),
            ["client-a", "client-b"]
        );
        assert_eq!(in_order(lines, &["node-1", "node-3"]), ["client-a"]);
    }
}
