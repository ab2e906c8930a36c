//! Whether what was observed is what was configured.

use std::fmt;

use super::client::Tally;
use super::text::grouped;

/// Where connections were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The only place that there is.
    Only,
    /// One of several.
    One(String),
    /// Two of them, taken together.
    Both,
}

impl Place {
    /// What it is called, if it needs a name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Only => "",
            Self::One(name) => name,
            Self::Both => "both",
        }
    }
}

/// One line of the final table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The step, counted from one.
    pub(crate) step: usize,
    /// Where its requests were made.
    pub(crate) place: Place,
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
        // What is wrong with both places together is wrong with one of them.
        for row in rows.iter().filter(|row| row.place != Place::Both) {
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

/// Judges a step by what each place has counted; where there are two, also by both together. The
/// lines of a leaf follow each other.
pub(crate) fn judge(
    step: usize,
    leaves: [&'static str; 2],
    weights: [u64; 2],
    tallies: &[(Place, Tally)],
) -> Vec<Row> {
    let mut counted: Vec<_> = tallies
        .iter()
        .map(|(place, tally)| {
            let allowed = allowed_error(weights, tally.requests());
            (place.clone(), tally.clone(), allowed)
        })
        .collect();
    if tallies.len() > 1 {
        let allowed = counted.iter().map(|(_, _, allowed)| allowed).sum();
        counted.push((Place::Both, Tally::sum(tallies), allowed));
    }
    let of_leaf = |index| {
        counted.iter().map(move |(place, tally, allowed)| {
            judge_leaf(step, place, leaves, index, weights, tally, *allowed)
        })
    };
    (0..leaves.len()).flat_map(of_leaf).collect()
}

fn judge_leaf(
    step: usize,
    place: &Place,
    leaves: [&'static str; 2],
    index: usize,
    weights: [u64; 2],
    tally: &Tally,
    allowed: f64,
) -> Row {
    let total: u64 = weights.iter().sum();
    let requests = tally.requests();
    let answered: u64 = leaves.iter().map(|leaf| tally.answers_of(leaf)).sum();
    let failures = requests - answered;
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
        place: place.clone(),
        weights,
        leaf: leaves[index],
        index,
        configured,
        observed,
        requests,
        allowed,
        verdict,
    }
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

    fn tally(counts: [u64; 2], failed: u64) -> Tally {
        let mut tally = Tally::default();
        for (leaf, count) in LEAVES.iter().zip(counts) {
            tally.add_many(Ok((*leaf).to_owned()), count);
        }
        tally.add_many(Err("refused".to_owned()), failed);
        tally
    }

    fn verdicts(weights: [u64; 2], counts: [u64; 2], failed: u64) -> Vec<Verdict> {
        let tallies = [(Place::Only, tally(counts, failed))];
        let rows = judge(1, LEAVES, weights, &tallies);
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
    fn the_outcome_counts_each_step_once() {
        let tallies = [(Place::Only, tally([1, 0], 1))];
        let outcome = Outcome::of(&judge(1, LEAVES, [100, 0], &tallies));
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

    /// The lines of two nodes that counted so, as the place, what was observed and the verdict.
    fn of_nodes(counts: [[u64; 2]; 2]) -> Vec<Row> {
        let places = ["node-1", "node-2"].map(|name| Place::One(name.to_owned()));
        let tallies = counts.map(|counts| tally(counts, 0));
        let tallies: Vec<_> = places.into_iter().zip(tallies).collect();
        judge(1, LEAVES, [50, 50], &tallies)
    }

    #[test]
    fn each_leaf_has_a_line_for_each_node_and_one_for_both() {
        let rows = of_nodes([[5, 5], [10, 10]]);
        let seen: Vec<_> = rows
            .iter()
            .map(|row| (row.leaf, row.place.name(), row.observed, row.requests))
            .collect();
        assert_eq!(
            seen,
            [
                ("v1", "node-1", 5, 10),
                ("v1", "node-2", 10, 20),
                ("v1", "both", 15, 30),
                ("v2", "node-1", 5, 10),
                ("v2", "node-2", 10, 20),
                ("v2", "both", 15, 30),
            ]
        );
        let outcome = Outcome::of(&rows);
        assert!(outcome.is_good());
        assert_eq!(outcome.requests, 30);
    }

    #[test]
    fn nodes_that_make_up_for_each_other_are_off_nevertheless() {
        let rows = of_nodes([[6, 4], [4, 6]]);
        let both = rows.iter().filter(|row| row.place == Place::Both);
        assert!(both.clone().all(|row| row.verdict == Verdict::Good));
        assert_eq!(Outcome::of(&rows).off, 4);
    }
}
