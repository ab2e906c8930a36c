//! Whether what was counted is what was configured.

use std::fmt;

use testbed::fixtures::Tally;

use crate::screen::grouped;

/// The place that stands for all of them together.
const BOTH: &str = "both";

/// What one leaf got in one place in one step.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The step, counted from one.
    pub(crate) step: usize,
    /// Where its requests were made; empty where there is only one place.
    pub(crate) place: String,
    /// Its weights.
    pub(crate) weights: [u64; 2],
    /// The leaf: its name and which it is.
    pub(crate) leaf: &'static str,
    pub(crate) index: usize,
    /// The share that its weight asks for.
    pub(crate) configured: f64,
    /// How many requests it answered, of how many.
    pub(crate) observed: u64,
    pub(crate) requests: u64,
    /// By how many requests that may differ from the configured share.
    pub(crate) allowed: f64,
    pub(crate) verdict: Verdict,
}

/// What to think of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Within the bound.
    Good,
    /// Too many or too few.
    Off,
    /// Requests of this step failed, or were answered by somebody else.
    Failures(u64),
}

impl Row {
    /// The share that was observed.
    pub(crate) fn share(&self) -> f64 {
        share(self.observed, self.requests)
    }

    /// Whether it is about all places of several together.
    pub(crate) fn is_sum(&self) -> bool {
        self.place == BOTH
    }
}

/// What to think of all rows together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    failed: u64,
    off: usize,
}

impl Outcome {
    pub(crate) fn of(rows: &[Row]) -> Self {
        let mut outcome = Self::default();
        // What is wrong with both places together is wrong with one of them.
        for row in rows.iter().filter(|row| !row.is_sum()) {
            outcome.off += usize::from(row.verdict == Verdict::Off);
            // Every row of a step has the numbers of the step: count them once.
            if row.index == 0 {
                outcome.requests += row.requests;
                if let Verdict::Failures(failed) = row.verdict {
                    outcome.failed += failed;
                }
            }
        }
        outcome
    }

    /// Whether everything was as it should be.
    pub(crate) fn is_good(self) -> bool {
        self.failed == 0 && self.off == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections, ", grouped(self.requests))?;
        match self.failed {
            0 => write!(f, "none failed, ")?,
            failed => write!(f, "{} failed, ", grouped(failed))?,
        }
        match self.off {
            0 if self.failed > 0 => write!(f, "the other steps as configured"),
            0 => write!(f, "every share as configured"),
            1 => write!(f, "one share is not as configured"),
            off => write!(f, "{off} shares are not as configured"),
        }
    }
}

/// Evaluates a step by what each place has counted; where there are several, also by all together.
/// The rows of a leaf follow each other.
pub(crate) fn evaluate(
    step: usize,
    leaves: [&'static str; 2],
    weights: [u64; 2],
    counted: &[(String, Tally)],
) -> Vec<Row> {
    let mut counted: Vec<_> = counted
        .iter()
        .map(|(place, tally)| (&**place, tally.clone(), allowed_error(weights, tally)))
        .collect();
    if counted.len() > 1 {
        let allowed = counted.iter().map(|(_, _, allowed)| allowed).sum();
        let sum = Tally::sum(counted.iter().map(|(_, tally, _)| tally));
        counted.push((BOTH, sum, allowed));
    }
    let mut rows = Vec::new();
    for (index, leaf) in leaves.into_iter().enumerate() {
        for (place, tally, allowed) in &counted {
            let configured = share(weights[index], weights.iter().sum());
            let (observed, requests) = (tally.count(leaf), tally.requests());
            let answered: u64 = leaves.iter().map(|leaf| tally.count(leaf)).sum();
            let error = (observed as f64 - configured * requests as f64).abs();
            // A weight of nothing is a promise of its own.
            let is_unwanted = weights[index] == 0 && observed > 0;
            rows.push(Row {
                step,
                place: (*place).to_owned(),
                weights,
                leaf,
                index,
                configured,
                observed,
                requests,
                allowed: *allowed,
                verdict: match requests - answered {
                    0 if is_unwanted || error > allowed + 1e-6 => Verdict::Off,
                    0 => Verdict::Good,
                    failures => Verdict::Failures(failures),
                },
            });
        }
    }
    rows
}

/// `part` of `total`, between 0 and 1.
fn share(part: u64, total: u64) -> f64 {
    part as f64 / total.max(1) as f64
}

/// By how many connections a leaf's count may be off: by none at a multiple of W, the sum of the
/// weights divided by what they have in common, and by a few in between.
fn allowed_error(weights: [u64; 2], tally: &Tally) -> f64 {
    let divisor = greatest_common_divisor(weights[0], weights[1]).max(1);
    let total: u64 = weights.iter().map(|weight| weight / divisor).sum();
    if total == 0 || tally.requests().is_multiple_of(total) {
        0.0
    } else {
        2.0 + (total as f64).log2() / 4.0
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        _ => greatest_common_divisor(b, a % b),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const LEAVES: [&str; 2] = ["shop-v1", "shop-v2"];

    /// The rows of places that counted so, at 50/50 unless told otherwise.
    pub(crate) fn rows(weights: [u64; 2], counts: &[(&str, [u64; 2])], failed: u64) -> Vec<Row> {
        let counted: Vec<_> = counts
            .iter()
            .map(|(place, [one, two])| {
                let mut tally = Tally::of([(LEAVES[0], *one), (LEAVES[1], *two)]);
                tally.add_many(Err("refused".to_owned()), failed);
                ((*place).to_owned(), tally)
            })
            .collect();
        evaluate(1, LEAVES, weights, &counted)
    }

    fn verdicts(weights: [u64; 2], counts: [u64; 2], failed: u64) -> Vec<Verdict> {
        let rows = rows(weights, &[("", counts)], failed);
        rows.iter().map(|row| row.verdict).collect()
    }

    #[test]
    fn multiples_of_the_sum_have_to_be_exact() {
        assert_eq!(verdicts([90, 10], [900, 100], 0), [Verdict::Good; 2]);
        assert_eq!(verdicts([90, 10], [899, 101], 0), [Verdict::Off; 2]);
        assert_eq!(verdicts([50, 50], [5, 5], 0), [Verdict::Good; 2]);
    }

    #[test]
    fn other_counts_may_be_off_by_a_few() {
        // 2 + log2(10) / 4 is 2.83; the fair share of 1,001 is 900.9.
        assert_eq!(verdicts([90, 10], [903, 98], 0), [Verdict::Good; 2]);
        assert_eq!(verdicts([90, 10], [904, 97], 0), [Verdict::Off; 2]);
    }

    #[test]
    fn a_weight_of_nothing_gets_nothing() {
        assert_eq!(verdicts([100, 0], [10, 0], 0), [Verdict::Good; 2]);
        assert_eq!(verdicts([100, 0], [9, 1], 0)[1], Verdict::Off);
    }

    #[test]
    fn failures_spoil_a_step_and_are_counted_once() {
        let rows = rows([100, 0], &[("", [1, 0])], 1);
        assert!(rows.iter().all(|row| row.verdict == Verdict::Failures(1)));
        let outcome = Outcome::of(&rows);
        assert_eq!((outcome.requests, outcome.failed, outcome.off), (2, 1, 0));
        assert!(!outcome.is_good());
    }

    #[test]
    fn each_leaf_has_a_row_for_each_node_and_one_for_both() {
        let rows = rows([50, 50], &[("node-1", [5, 5]), ("node-2", [10, 10])], 0);
        let seen: Vec<_> = rows
            .iter()
            .map(|row| (row.leaf, &*row.place, row.observed, row.requests))
            .collect();
        assert_eq!(
            seen,
            [
                ("shop-v1", "node-1", 5, 10),
                ("shop-v1", "node-2", 10, 20),
                ("shop-v1", "both", 15, 30),
                ("shop-v2", "node-1", 5, 10),
                ("shop-v2", "node-2", 10, 20),
                ("shop-v2", "both", 15, 30),
            ]
        );
        let outcome = Outcome::of(&rows);
        assert!(outcome.is_good());
        assert_eq!(outcome.requests, 30);
    }

    #[test]
    fn nodes_that_make_up_for_each_other_are_off_nevertheless() {
        let rows = rows([50, 50], &[("node-1", [6, 4]), ("node-2", [4, 6])], 0);
        let mut both = rows.iter().filter(|row| row.is_sum());
        assert!(both.all(|row| row.verdict == Verdict::Good));
        assert_eq!(Outcome::of(&rows).off, 4);
    }
}
