//! What the agent says about itself.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::scenario::Scenario;

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
    weight: u64,
    /// The share that the weight asks for, and the one that the leaf has.
    configured: f64,
    programmed: f64,
}

impl Status {
    /// What a command prints that runs `status -o json`.
    pub(crate) fn of(command: &mut Command) -> Result<Self> {
        let output = command.output().context("cannot run `status`")?;
        // 1 means that not everything is at work yet; what there is, it prints.
        if !matches!(output.status.code(), Some(0 | 1)) {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("`status` failed: {}", complaint.trim());
        }
        serde_json::from_slice(&output.stdout).context("`status` did not print what was expected")
    }

    /// Whether the scenario's split is there with weights in this proportion, and every leaf takes
    /// its share.
    pub(crate) fn shows(&self, scenario: &Scenario, weights: [u64; 2]) -> bool {
        let splits = self
            .splits
            .iter()
            .filter(|split| split.namespace == scenario.namespace && split.name == scenario.split);
        let total: u64 = weights.iter().sum();
        let mut splits = splits.peekable();
        self.attached
            && splits.peek().is_some()
            && splits.all(|split| {
                let total_now: u64 = split.leaves.iter().map(|leaf| leaf.weight).sum();
                let weight_now = |leaf: &str| -> u64 {
                    let leaves = split.leaves.iter().filter(|it| it.service == leaf);
                    leaves.map(|it| it.weight).sum()
                };
                // In proportion, because weights may be shown as divided by what they have in common.
                split.verdict == "split"
                    && total_now > 0
                    && split.leaves.iter().all(Leaf::takes_its_share)
                    && scenario.leaves.iter().zip(weights).all(|(leaf, weight)| {
                        u128::from(weight_now(leaf)) * u128::from(total)
                            == u128::from(weight) * u128::from(total_now)
                    })
            })
    }
}

impl Leaf {
    /// It does not while none of its endpoints is ready: then the others do.
    fn takes_its_share(&self) -> bool {
        (self.configured - self.programmed).abs() < 1e-9
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::BOOKSTORE;

    fn status(verdict: &str, weights: [u64; 2]) -> Status {
        let [one, two] = weights;
        let total = (one + two).max(1) as f64;
        let shares = weights.map(|weight| weight as f64 / total);
        status_with_shares(verdict, weights, shares)
    }

    fn status_with_shares(verdict: &str, [one, two]: [u64; 2], programmed: [f64; 2]) -> Status {
        let total = (one + two).max(1) as f64;
        let [one_share, two_share] = [one, two].map(|weight| weight as f64 / total);
        let [one_now, two_now] = programmed;
        let json = format!(
            r#"{{"attached": true, "splits": [{{"frontend": "10.96.0.10:14001/TCP", "namespace": "bookstore",
            "root": "bookstore", "kind": "TrafficSplit", "name": "bookstore-split",
            "verdict": "{verdict}", "reason": null, "generation": 12, "connections": 10,
            "leaves": [{{"service": "bookstore-v1", "weight": {one}, "configured": {one_share}, "programmed": {one_now}}},
                       {{"service": "bookstore-v2", "weight": {two}, "configured": {two_share}, "programmed": {two_now}}}]}}]}}"#
        );
        serde_json::from_str(&json).expect("valid JSON")
    }

    #[test]
    fn weights_are_programmed_when_they_are_in_the_same_proportion() {
        assert!(status("split", [50, 50]).shows(&BOOKSTORE, [50, 50]));
        assert!(status("split", [9, 1]).shows(&BOOKSTORE, [90, 10]));
        assert!(status("split", [1, 0]).shows(&BOOKSTORE, [100, 0]));
        assert!(!status("split", [100, 0]).shows(&BOOKSTORE, [50, 50]));
        assert!(!status("split", [0, 0]).shows(&BOOKSTORE, [50, 50]));
    }

    #[test]
    fn nothing_is_programmed_while_no_program_is_attached() {
        let status = Status {
            attached: false,
            ..status("split", [50, 50])
        };
        assert!(!status.shows(&BOOKSTORE, [50, 50]));
    }

    #[test]
    fn a_split_that_is_refused_or_missing_is_not_programmed() {
        assert!(!status("refused", [50, 50]).shows(&BOOKSTORE, [50, 50]));
        let status = Status {
            attached: true,
            splits: Vec::new(),
        };
        assert!(!status.shows(&BOOKSTORE, [50, 50]));
    }

    #[test]
    fn nothing_is_programmed_while_a_leaf_cannot_take_its_share() {
        let status = status_with_shares("split", [50, 50], [1.0, 0.0]);
        assert!(!status.shows(&BOOKSTORE, [50, 50]));
    }
}
