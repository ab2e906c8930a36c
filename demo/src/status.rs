//! What an agent's `status` says about a split.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::interrupt;
use crate::scenario::Scenario;

/// The part of `status -o json` that matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    /// Whether the programs are; the maps are filled before that.
    pub(crate) attached: bool,
    splits: Vec<Split>,
}

#[derive(Debug, Deserialize)]
struct Split {
    namespace: String,
    name: String,
    verdict: String,
    leaves: Vec<Leaf>,
}

#[derive(Debug, Deserialize)]
struct Leaf {
    service: String,
    /// The share that the weight asks for, and the one that the leaf has.
    configured: f64,
    programmed: f64,
}

impl Status {
    /// Asks by a command that runs `status -o json` until the answer is as `wanted`, for no longer
    /// than `timeout`.
    ///
    /// # Errors
    ///
    /// When it never is, with the last answer, or the user wants to stop.
    pub(crate) fn wait(
        timeout: Duration,
        mut command: impl FnMut() -> Result<Command>,
        wanted: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            interrupt::check()?;
            let seen = Self::of(&mut command()?);
            match seen {
                Ok(status) if wanted(&status) => return Ok(()),
                _ if Instant::now() < deadline => sleep(Duration::from_millis(2)),
                Ok(status) => bail!("not within {timeout:?}; status says {status:?}"),
                Err(error) => return Err(error.context(format!("not within {timeout:?}"))),
            }
        }
    }

    fn of(command: &mut Command) -> Result<Self> {
        let output = command.output().context("cannot run `status`")?;
        // 1 means that not everything is at work yet; what there is, it prints.
        if !matches!(output.status.code(), Some(0 | 1)) {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("`status` failed: {}", complaint.trim());
        }
        serde_json::from_slice(&output.stdout).context("`status` did not print what was expected")
    }

    /// Whether the scenario's split is there with weights in this proportion, and every leaf takes
    /// its share: it does not while none of its endpoints is ready.
    pub(crate) fn shows(&self, scenario: &Scenario, weights: [u64; 2]) -> bool {
        let total: u64 = weights.iter().sum();
        let is_as_wanted = |split: &Split| {
            split.verdict == "split"
                && scenario.leaves.iter().zip(weights).all(|(name, weight)| {
                    let wanted = weight as f64 / total as f64;
                    let is_close = |share: f64| (share - wanted).abs() < 1e-9;
                    let mut leaves = split.leaves.iter().filter(|leaf| leaf.service == *name);
                    leaves.any(|leaf| is_close(leaf.configured) && is_close(leaf.programmed))
                })
        };
        let mut splits = self
            .splits
            .iter()
            .filter(|split| split.namespace == scenario.namespace && split.name == scenario.split)
            .peekable();
        self.attached && splits.peek().is_some() && splits.all(is_as_wanted)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scenario::BOOKSTORE;

    fn status(verdict: &str, configured: [f64; 2], programmed: [f64; 2]) -> Status {
        let leaf = |index: usize| {
            json!({
                "service": BOOKSTORE.leaves[index], "weight": 7,
                "configured": configured[index], "programmed": programmed[index],
            })
        };
        let split = json!({
            "namespace": "bookstore", "name": "bookstore-split", "root": "bookstore",
            "verdict": verdict, "leaves": [leaf(0), leaf(1)],
        });
        let status = json!({"attached": true, "splits": [split]});
        serde_json::from_value(status).expect("a status")
    }

    #[test]
    fn weights_are_programmed_when_they_are_in_the_same_proportion() {
        let half = status("split", [0.5; 2], [0.5; 2]);
        assert!(half.shows(&BOOKSTORE, [50, 50]));
        assert!(!half.shows(&BOOKSTORE, [90, 10]));
        assert!(status("split", [0.9, 0.1], [0.9, 0.1]).shows(&BOOKSTORE, [90, 10]));
        assert!(status("split", [1.0, 0.0], [1.0, 0.0]).shows(&BOOKSTORE, [100, 0]));
    }

    #[test]
    fn nothing_is_programmed_that_is_refused_missing_or_not_attached() {
        assert!(!status("refuse", [0.5; 2], [0.5; 2]).shows(&BOOKSTORE, [50, 50]));
        let status = |attached| Status {
            attached,
            ..status("split", [0.5; 2], [0.5; 2])
        };
        assert!(!status(false).shows(&BOOKSTORE, [50, 50]));
        let mut status = status(true);
        status.splits.clear();
        assert!(!status.shows(&BOOKSTORE, [50, 50]));
    }

    #[test]
    fn nothing_is_programmed_while_a_leaf_cannot_take_its_share() {
        assert!(!status("split", [0.5; 2], [1.0, 0.0]).shows(&BOOKSTORE, [50, 50]));
    }
}
