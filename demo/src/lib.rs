//! `cargo xtask demo`: a shop in two versions on this machine, a real agent, and a TrafficSplit that
//! is edited while a client keeps buying.
//!
//! Every pod is a process with a network namespace and a cgroup of its own; the manifests are
//! ordinary Kubernetes YAML in a directory that the agent watches; no cluster is involved. With
//! `--cluster` one is: the same is played by `kubectl apply` on two nodes.

mod agent;
mod client;
mod cluster;
mod interrupt;
mod judge;
mod look_around;
mod manifests;
mod scenario;
mod scene;
mod screen;
mod status;
mod steps;
mod table;
mod text;

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use testbed::cluster::tools::{self, Part};
use testbed::packages::{self, Requirement};
use testbed::preflight;

use self::judge::Outcome;
use self::scenario::{BOOKSTORE, HTTPBIN, Scenario};
use self::scene::Scene;
use self::screen::Screen;
use self::steps::Pace;

/// Settings of `cargo xtask demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// What to show
    #[arg(value_enum, default_value_t = Name::Bookstore)]
    scenario: Name,

    /// On a Kubernetes cluster of two nodes, made for it on this machine
    ///
    /// The agent, the scenario and its steps are put there with `kubectl apply`, from the files in
    /// deploy/, and a client asks on each node. The images are built first. The cluster's programs
    /// are built once, which takes some minutes and Go.
    #[arg(long)]
    cluster: bool,

    /// Requests per step and client, each over a new connection [default: 1000; httpbin: 10]
    #[arg(long, value_name = "NUMBER")]
    requests: Option<NonZeroU64>,

    /// Requests per second and client; 0 is as fast as possible [default: on a terminal slow enough to watch]
    #[arg(long, value_name = "NUMBER")]
    rate: Option<u64>,

    /// Leave everything running after the last step, to look around; until Ctrl-C, or, with
    /// --cluster, until it is taken down
    #[arg(long)]
    keep: bool,
}

/// The scenarios by the names that people type.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// A thousand purchases a step at 100/0, 50/50, 90/10 and 0/100
    Bookstore,
    /// A canary with ten runs of curl a step, at 100/0 and 50/50
    Httpbin,
}

impl DemoArgs {
    fn scenario(&self) -> &'static Scenario {
        match self.scenario {
            Name::Bookstore => &BOOKSTORE,
            Name::Httpbin => &HTTPBIN,
        }
    }

    /// Whether it shall be shown on a cluster: then [`run_on_cluster`] does.
    #[must_use]
    pub fn wants_cluster(&self) -> bool {
        self.cluster
    }

    /// How many requests to make, and how fast. Where nobody watches a step has `parts`.
    fn pace(&self, screen: &Screen, frame: Duration, parts: u64) -> Pace {
        let scenario = self.scenario();
        Pace {
            requests: self.requests.map_or(scenario.requests, NonZeroU64::get),
            rate: match self.rate {
                Some(rate) => NonZeroU64::new(rate),
                None if screen.is_live() => NonZeroU64::new(scenario.watchable_rate),
                None => None,
            },
            frame,
            parts,
        }
    }
}

/// Fails unless this machine has what the demo needs, and what it takes `to_build` what it shows. To
/// be called before that is built.
///
/// # Errors
///
/// Names everything that is missing, each with its remedy.
pub fn check(args: &DemoArgs, to_build: &[Requirement]) -> Result<()> {
    let scenario = args.scenario();
    let mut requirements = to_build.to_vec();
    if args.cluster {
        requirements.extend(tools::requirements(Part::Nodes)?);
    } else {
        requirements.push(packages::IP);
        if scenario.uses_curl() {
            requirements.push(packages::CURL);
        }
    }
    preflight::check(scenario.command, &requirements)
}

/// Shows the demo with the agent at `agent_binary`. However it ends, everything is cleaned up.
///
/// # Errors
///
/// When a share is not as configured or a request fails.
pub fn run(args: &DemoArgs, agent_binary: &Path) -> Result<()> {
    interrupt::watch()?;
    let mut screen = Screen::new();
    let scenario = args.scenario();
    let pace = args.pace(&screen, Duration::from_millis(40), 20);

    let mut scene = Scene::set(scenario, agent_binary)?;
    screen.introduce(&scene.description())?;
    let rows = steps::play(&mut scene, pace, &mut screen)?;
    screen.summarise(&rows)?;
    if args.keep {
        look_around::wait(&scene, &mut screen)?;
    }
    drop(scene);

    let outcome = Outcome::of(&rows);
    ensure!(outcome.is_good(), "the demo failed: {outcome}");
    Ok(())
}

/// What is put on the cluster's nodes.
#[derive(Clone, Debug)]
pub struct Images {
    /// The archives of the images.
    pub archives: Vec<PathBuf>,
    /// The agent's program, as it lies in its image, to ask for a node's status.
    pub agent: PathBuf,
}

/// Shows the demo on a cluster, which it makes. However it ends, everything is cleaned up, unless
/// it was to be kept.
///
/// # Errors
///
/// When a node's share is not as configured or a request fails.
pub fn run_on_cluster(args: &DemoArgs, images: Images) -> Result<()> {
    let scenario = args.scenario();
    interrupt::watch()?;
    let mut screen = Screen::new();
    // A command in a pod takes a while to start, so there are fewer of them.
    let pace = args.pace(&screen, Duration::from_millis(100), 1);
    cluster::run(scenario, images, pace, args.keep, &mut screen)
}
