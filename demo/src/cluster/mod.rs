//! `cargo xtask demo --cluster`: the same canary on a real cluster of two nodes, by `kubectl apply`
//! of the files in `deploy`.
//!
//! - `kubectl`: running commands so that Ctrl-C is noticed meanwhile;
//! - `site`: the cluster with everything on it;
//! - `steps`: the files of the steps, and playing them;
//! - `keep`: how to look around in a cluster that stays.

mod keep;
mod kubectl;
mod site;
mod steps;

use anyhow::{Result, ensure};
use testbed::workspace::say;

use self::site::Site;
use super::judge::{Outcome, Row};
use super::scenario::Scenario;
use super::screen::Screen;
use super::steps::{Pace, play};
use super::{Images, interrupt};

/// Shows the demo on a cluster. However it ends, the cluster is taken down, unless it shall be kept
/// and everything was played.
pub(super) fn run(
    scenario: &'static Scenario,
    images: Images,
    pace: Pace,
    keep: bool,
    screen: &mut Screen,
) -> Result<()> {
    let rows = show(scenario, images, pace, keep, screen).or_else(|error| {
        // Ctrl-C reaches the commands that are run as well, and one that fails is not why.
        interrupt::check()?;
        Err(error)
    })?;
    let outcome = Outcome::of(&rows);
    ensure!(outcome.is_good(), "the demo failed: {outcome}");
    Ok(())
}

fn show(
    scenario: &'static Scenario,
    images: Images,
    pace: Pace,
    keep: bool,
    screen: &mut Screen,
) -> Result<Vec<Row>> {
    let mut site = Site::build(scenario, images, screen)?;
    let played = site
        .furnish(screen)
        .and_then(|()| play(&mut site, pace, screen));
    let played = played.and_then(|rows| {
        screen.summarise(&rows)?;
        interrupt::check()?;
        Ok(rows)
    });
    if keep && played.is_ok() {
        return keep::leave(site, screen).and(played);
    }
    // Whether or not there is a terminal any more.
    let _ = screen.leave();
    say("taking the cluster down");
    site.cluster.down().and(played)
}
