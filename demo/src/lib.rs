//! `cargo xtask demo`: a shop in two versions on this machine, a real agent, and a TrafficSplit
//! (or a VirtualService, or an HTTPRoute) that is edited while a client keeps buying.
//!
//! Without a cluster (`local`) every pod is a process with a network namespace and a cgroup of its
//! own, and the manifests are files in a directory that the agent watches. With `--cluster`
//! (`on_cluster`) the same is played by `kubectl apply` on two nodes.
//!
//! - `scenario`: what is shown;
//! - `steps`: changing the weights and counting who answers, wherever that is;
//! - `evaluate`: whether what was counted is what was configured;
//! - `screen`: what all of it looks like.

mod evaluate;
mod interrupt;
mod kubectl;
mod local;
mod on_cluster;
mod scenario;
mod screen;
mod status;
mod steps;

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};
use testbed::cluster::tools::{self, Part};
use testbed::packages::{self, Requirement};
use testbed::preflight;
use testbed::workspace::say;

use self::evaluate::{Outcome, Row};
use self::local::Local;
use self::on_cluster::OnCluster;
use self::scenario::{Api, Asking, BOOKSTORE, HTTPBIN, NAMES, Scenario};
use self::screen::Screen;
use self::steps::{Pace, play};

/// Settings of `cargo xtask demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// What to show
    #[arg(value_enum, default_value_t = Name::Bookstore)]
    scenario: Name,

    /// The API in which the split is written
    #[arg(long, value_enum, default_value_t, conflicts_with = "cluster")]
    api: Api,

    /// On a Kubernetes cluster of two nodes, made for it on this machine
    ///
    /// The agent, the scenario and its steps are put there with `kubectl apply`, from the files in
    /// deploy/, and a client asks on each node. The images are built first. The cluster's programs
    /// are built once, which takes some minutes and Go.
    #[arg(long)]
    cluster: bool,

    /// Requests per step and client, each over a new connection [default: 1000; httpbin: 10;
    /// names: 20]
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
    /// A canary of a name server, over UDP, with twenty runs of dig a step, at 100/0, 90/10 and 0/100
    Names,
}

/// What is put on the cluster's nodes.
#[derive(Clone, Debug)]
pub struct Images {
    /// The archives of the images.
    pub archives: Vec<PathBuf>,
    /// The agent's program, as it lies in its image, to ask for a node's status.
    pub agent: PathBuf,
}

impl DemoArgs {
    fn scenario(&self) -> &'static Scenario {
        match self.scenario {
            Name::Bookstore => &BOOKSTORE,
            Name::Httpbin => &HTTPBIN,
            Name::Names => &NAMES,
        }
    }

    /// Whether it is to be shown on a cluster: then [`run_on_cluster`] does.
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
/// Names everything that is missing, each with its remedy; or what cannot be shown in the way that is
/// asked for.
pub fn check(args: &DemoArgs, to_build: &[Requirement]) -> Result<()> {
    let scenario = args.scenario();
    if args.cluster && scenario.on_cluster.is_none() {
        bail!(
            "`{}` is not shown on a cluster: leave out --cluster",
            scenario.command
        );
    }
    if !scenario.can_be_in(args.api) {
        bail!(
            "`{}` splits UDP, of which a VirtualService says nothing: use --api smi or --api gateway",
            scenario.command
        );
    }
    let mut requirements = to_build.to_vec();
    if args.cluster {
        requirements.extend(tools::requirements(Part::Nodes)?);
    } else {
        requirements.push(packages::IP);
        requirements.extend(match scenario.asking {
            Asking::Process => None,
            Asking::Curl => Some(packages::CURL),
            Asking::Dig => Some(packages::DIG),
        });
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
    let pace = args.pace(&screen, Duration::from_millis(40), 20);

    let mut local = Local::start(args.scenario(), args.api, agent_binary)?;
    local.introduce(&mut screen)?;
    let rows = play(&mut local, pace, &mut screen)?;
    screen.summarise(&rows)?;
    if args.keep {
        local.look_around(&mut screen)?;
    }
    drop(local);
    verdict(&rows)
}

/// Shows the demo on a cluster, which it makes. However it ends, everything is cleaned up, unless
/// it was to be kept.
///
/// # Errors
///
/// When a node's share is not as configured or a request fails.
pub fn run_on_cluster(args: &DemoArgs, images: Images) -> Result<()> {
    interrupt::watch()?;
    let mut screen = Screen::new();
    // A command in a pod takes a while to start, so there are fewer of them.
    let pace = args.pace(&screen, Duration::from_millis(100), 1);

    let mut cluster = OnCluster::up(args.scenario(), images, &mut screen)?;
    let played = cluster
        .install(&mut screen)
        .and_then(|()| play(&mut cluster, pace, &mut screen))
        .and_then(|rows| {
            screen.summarise(&rows)?;
            interrupt::check()?;
            Ok(rows)
        });
    if args.keep && played.is_ok() {
        cluster.keep(&mut screen)?;
    } else {
        // Whether or not there is a terminal any more.
        let _ = screen.leave();
        say("taking the cluster down");
        cluster.down()?;
    }
    let rows = played.or_else(|error| {
        // Ctrl-C reaches the commands that are run as well, and one that fails is not why.
        interrupt::check()?;
        Err(error)
    })?;
    verdict(&rows)
}

fn verdict(rows: &[Row]) -> Result<()> {
    let outcome = Outcome::of(rows);
    ensure!(outcome.is_good(), "the demo failed: {outcome}");
    Ok(())
}
