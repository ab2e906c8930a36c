//! Whether what was observed is what was configured.

use std::fmt;

use super::{client::Tally, screen::grouped};

/// One line of the final table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The step, counted from one.
    pub(crate) step: usize,
    /// Its weights.
    pub(crate) weights: [u64; 2],
    /// The leaf that this line is about: its name and which it is.
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

/// What to think of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Within the bound.
    Good,
    /// Too many or too few.
    Off,
    /// Requests of this step failed, or were answered by somebody else.
    Failures(u64),
}

/// What to think of all lines together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    requests: u64,
    failed: u64,
    off: usize,
}

impl Outcome {
    /// Of the whole table.
    pub(crate) fn of(rows: &[Row]) -> Self {
        let mut outcome = Self {
            requests: 0,
            failed: 0,
            off: 0,
        };
        for row in rows {
            if row.verdict == Verdict::Off {
                outcome.off += 1;
            }
            // Every line of a step has the numbers of the step: count them once.
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

/// Judges a step.
pub(crate) fn judge(
    step: usize,
    leaves: [&'static str; 2],
    weights: [u64; 2],
    tally: &Tally,
) -> [Row; 2] {
    let total: u64 = weights.iter().sum();
    let requests = tally.requests();
    let allowed = allowed_error(weights, requests);
    let answered: u64 = leaves.iter().map(|leaf| tally.answers_of(leaf)).sum();
    let failures = requests - answered;
    [0, 1].map(|index| {
        let observed = tally.answers_of(leaves[index]);
        let configured = share(weights[index], total);
        let error = (observed as f64 - configured * requests as f64).abs();
        // A weight of nothing is a promise of its own.
        let unwanted = weights[index] == 0 && observed > 0;
        let verdict = if failures > 0 {
            Verdict::Failures(failures)
        } else if unwanted || error > allowed + 1e-6 {
            Verdict::Off
        } else {
            Verdict::Good
        };
        Row {
            step,
            weights,
            leaf: leaves[index],
            index,
            configured,
            observed,
            requests,
            allowed,
            verdict,
        }
    })
}

/// `part` of `total`, between 0 and 1.
pub(crate) fn share(part: u64, total: u64) -> f64 {
    if total == 0 {
        0.0
    } else {
        part as f64 / total as f64
    }
}

/// By how many connections a leaf's count may be off: by none at a multiple of W, the sum of the
/// weights divided by what they have in common, and by a few in between.
fn allowed_error(weights: [u64; 2], requests: u64) -> f64 {
    let divisor = greatest_common_divisor(weights[0], weights[1]).max(1);
    let total: u64 = weights.iter().map(|weight| weight / divisor).sum();
    if total == 0 || requests.is_multiple_of(total) {
        0.0
    } else {
        2.0 + (total as f64).log2() / 4.0
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAVES: [&str; 2] = ["v1", "v2"];

    fn verdicts(weights: [u64; 2], counts: [u64; 2], failed: u64) -> [Verdict; 2] {
        let mut tally = Tally::default();
        for (leaf, count) in LEAVES.iter().zip(counts) {
            for _ in 0..count {
                tally.add(Ok((*leaf).to_owned()));
            }
        }
        for _ in 0..failed {
            tally.add(Err("refused".to_owned()));
        }
        judge(1, LEAVES, weights, &tally).map(|row| row.verdict)
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
    fn the_outcome_counts_each_step_once() {
        let mut tally = Tally::default();
        tally.add(Ok("v1".to_owned()));
        tally.add(Err("refused".to_owned()));
        let outcome = Outcome::of(&judge(1, LEAVES, [100, 0], &tally));
        assert_eq!((outcome.requests, outcome.failed, outcome.off), (2, 1, 0));
        assert!(!outcome.is_good());
    }

    #[test]
    fn failures_spoil_a_step() {
        assert_eq!(
            verdicts([100, 0], [10, 0], 2),
            [Verdict::Failures(2), Verdict::Failures(2)]
        );
    }
}
