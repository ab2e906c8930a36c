//! `cargo xtask demo`: a shop in two versions on this machine, a real agent, and a TrafficSplit that
//! is edited while a client keeps buying.
//!
//! Every pod is a process with a network namespace and a cgroup of its own; the manifests are
//! ordinary Kubernetes YAML in a directory that the agent watches; no cluster is involved.

mod agent;
mod client;
mod interrupt;
mod judge;
mod look_around;
mod manifests;
mod scenario;
mod scene;
mod screen;
mod steps;

use std::{env, num::NonZeroU64, path::Path};

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};

use self::{
    judge::Outcome,
    scenario::{BOOKSTORE, HTTPBIN, Scenario},
    scene::Scene,
    screen::Screen,
};
use crate::preflight;

/// Settings of `cargo xtask demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// What to show
    #[arg(value_enum, default_value_t = Name::Bookstore)]
    scenario: Name,

    /// Requests per step, each over a new connection [default: 1000; httpbin: 10]
    #[arg(long, value_name = "NUMBER")]
    requests: Option<NonZeroU64>,

    /// Requests per second; 0 is as fast as possible [default: on a terminal slow enough to watch]
    #[arg(long, value_name = "NUMBER")]
    rate: Option<u64>,

    /// Leave everything running after the last step, until Ctrl-C, to look around
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
}

/// Fails unless this machine has what the demo needs, and says what to do about it. [`run`] checks
/// that as well; who has something slow to do first, such as building the agent, asks before.
pub fn check(args: &DemoArgs) -> Result<()> {
    let scenario = args.scenario();
    if scenario.uses_curl() && !is_installed("curl") {
        bail!(
            "`curl` is not installed, and `cargo xtask {}` shows what it prints: run `apt-get install \
             curl` (or your distribution's equal), or see `cargo xtask {}`, which needs none",
            scenario.command,
            BOOKSTORE.command
        );
    }
    preflight::check(scenario.command, &[preflight::IP])
}

/// Whether a program is found where commands are looked for.
fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Shows the demo with the agent at `agent_binary`. Fails if a share is not as configured or a
/// request fails. However it ends, everything is cleaned up.
pub fn run(args: &DemoArgs, agent_binary: &Path) -> Result<()> {
    check(args)?;
    interrupt::watch()?;
    let mut screen = Screen::new();
    let scenario = args.scenario();
    let pace = steps::Pace {
        requests: args.requests.map_or(scenario.requests, NonZeroU64::get),
        rate: match args.rate {
            Some(rate) => NonZeroU64::new(rate),
            None if screen.is_live() => NonZeroU64::new(scenario.watchable_rate),
            None => None,
        },
    };

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
