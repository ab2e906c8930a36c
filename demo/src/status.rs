//! What an agent's `status` says about a split.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use splitter_api::{Split, Status, Verdict};

use crate::interrupt;
use crate::scenario::Scenario;

/// Asks by a command that runs `status -o json` until the answer is as `wanted`, for no longer
/// than `timeout`.
///
/// # Errors
///
/// When it never is, with the last answer, or the user wants to stop.
pub(crate) fn wait(
    timeout: Duration,
    mut command: impl FnMut() -> Result<Command>,
    wanted: impl Fn(&Status) -> bool,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        interrupt::check()?;
        let seen = ask(&mut command()?);
        match seen {
            Ok(status) if wanted(&status) => return Ok(()),
            _ if Instant::now() < deadline => sleep(Duration::from_millis(2)),
            Ok(status) => bail!("not within {timeout:?}; status says {status:?}"),
            Err(error) => return Err(error.context(format!("not within {timeout:?}"))),
        }
    }
}

fn ask(command: &mut Command) -> Result<Status> {
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
pub(crate) fn shows(status: &Status, scenario: &Scenario, weights: [u64; 2]) -> bool {
    let total: u64 = weights.iter().sum();
    let is_as_wanted = |split: &Split| {
        split.verdict == Verdict::Split
            && scenario.leaves.iter().zip(weights).all(|(name, weight)| {
                let wanted = weight as f64 / total as f64;
                let is_close = |share: f64| (share - wanted).abs() < 1e-9;
                let mut leaves = split.leaves.iter().filter(|leaf| leaf.service == *name);
                leaves.any(|leaf| is_close(leaf.configured) && is_close(leaf.programmed))
            })
    };
    let mut splits = status
        .splits
        .iter()
        .filter(|split| split.namespace == scenario.namespace && split.name == scenario.split)
        .peekable();
    status.node.attachment.attached && splits.peek().is_some() && splits.all(is_as_wanted)
}

#[cfg(test)]
mod tests {
    use splitter_api::{Attachment, Leaf, LeafState, NodeStatus, SplitState, VerdictCounts};

    use super::*;
    use crate::scenario::BOOKSTORE;

    fn status(verdict: Verdict, configured: [f64; 2], programmed: [f64; 2]) -> Status {
        let leaf = |index: usize| Leaf {
            service: BOOKSTORE.leaves[index].to_owned(),
            weight: 7,
            configured: configured[index],
            programmed: programmed[index],
            observed: None,
            connections: 0,
            lifetime: 0,
            refused: 0,
            open: 0,
            outcomes: splitter_api::LeafOutcomes::default(),
            state: LeafState::Ready,
            endpoints: 1,
        };
        let split = Split {
            frontend: "10.96.0.10:14001/TCP".to_owned(),
            clients: None,
            namespace: BOOKSTORE.namespace.to_owned(),
            root: "bookstore".to_owned(),
            kind: "TrafficSplit".to_owned(),
            object_namespace: BOOKSTORE.namespace.to_owned(),
            name: BOOKSTORE.split.to_owned(),
            verdict,
            reason: None,
            message: None,
            state: SplitState::AsConfigured,
            generation: 1,
            connections: 0,
            leaves: vec![leaf(0), leaf(1)],
        };
        let attachment = Attachment {
            attached: true,
            programs: Vec::new(),
            socket_table: None,
            other_programs: Vec::new(),
            warnings: Vec::new(),
        };
        Status {
            node: NodeStatus {
                node: "node-1".to_owned(),
                version: "0.1.0".to_owned(),
                layout: 2,
                pins: "/sys/fs/bpf/splitter".to_owned(),
                agent: true,
                attachment,
            },
            splits: vec![split],
            inconsistent: Vec::new(),
            verdicts: VerdictCounts::default(),
        }
    }

    #[test]
    fn weights_are_programmed_when_they_are_in_the_same_proportion() {
        let half = status(Verdict::Split, [0.5; 2], [0.5; 2]);
        assert!(shows(&half, &BOOKSTORE, [50, 50]));
        assert!(!shows(&half, &BOOKSTORE, [90, 10]));
        assert!(shows(
            &status(Verdict::Split, [0.9, 0.1], [0.9, 0.1]),
            &BOOKSTORE,
            [90, 10]
        ));
        assert!(shows(
            &status(Verdict::Split, [1.0, 0.0], [1.0, 0.0]),
            &BOOKSTORE,
            [100, 0]
        ));
    }

    #[test]
    fn nothing_is_programmed_that_is_refused_missing_or_not_attached() {
        assert!(!shows(
            &status(Verdict::Refuse, [0.5; 2], [0.5; 2]),
            &BOOKSTORE,
            [50, 50]
        ));
        let mut detached = status(Verdict::Split, [0.5; 2], [0.5; 2]);
        detached.node.attachment.attached = false;
        assert!(!shows(&detached, &BOOKSTORE, [50, 50]));
        let mut empty = status(Verdict::Split, [0.5; 2], [0.5; 2]);
        empty.splits.clear();
        assert!(!shows(&empty, &BOOKSTORE, [50, 50]));
    }

    #[test]
    fn nothing_is_programmed_while_a_leaf_cannot_take_its_share() {
        assert!(!shows(
            &status(Verdict::Split, [0.5; 2], [1.0, 0.0]),
            &BOOKSTORE,
            [50, 50]
        ));
    }
}
