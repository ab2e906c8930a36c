//! Counting who answered, and what went wrong.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::client::{Answer, Failure};

/// So many failures are told one by one; all are counted.
const MOST_FAILURES: usize = 100;

/// What came of a number of requests.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Tally {
    /// Requests.
    pub(crate) total: u64,
    /// Those without an answer.
    pub(crate) failed: u64,
    /// Answers by who gave them.
    pub(crate) identities: BTreeMap<String, u64>,
    /// Failures by kind.
    pub(crate) errors: BTreeMap<String, u64>,
    /// The first failures.
    pub(crate) failures: Vec<FailureAt>,
}

/// A failure and when it was.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FailureAt {
    /// Seconds since 1970.
    pub(crate) at: f64,
    pub(crate) kind: String,
    pub(crate) message: String,
}

impl Tally {
    pub(crate) fn add(&mut self, result: &Result<Answer, Failure>) {
        self.total += 1;
        match result {
            Ok(answer) => {
                *self.identities.entry(answer.identity.clone()).or_default() += 1;
            }
            Err(failure) => {
                self.failed += 1;
                *self.errors.entry(failure.kind.clone()).or_default() += 1;
                if self.failures.len() < MOST_FAILURES {
                    self.failures.push(FailureAt {
                        at: now(),
                        kind: failure.kind.clone(),
                        message: failure.message.clone(),
                    });
                }
            }
        }
    }

    /// Adds another's counts.
    pub(crate) fn merge(&mut self, other: Self) {
        self.total += other.total;
        self.failed += other.failed;
        for (ours, theirs) in [
            (&mut self.identities, other.identities),
            (&mut self.errors, other.errors),
        ] {
            for (name, count) in theirs {
                *ours.entry(name).or_default() += count;
            }
        }
        let room = MOST_FAILURES - self.failures.len();
        self.failures.extend(other.failures.into_iter().take(room));
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up() {
        let answer = |identity: &str| {
            Ok(Answer {
                identity: identity.to_owned(),
                body: String::new(),
            })
        };
        let mut one = Tally::default();
        one.add(&answer("v1"));
        one.add(&Err(Failure {
            kind: "refused".to_owned(),
            message: "no".to_owned(),
        }));
        let mut all = one.clone();
        all.add(&answer("v2"));
        all.merge(one);
        assert_eq!((all.total, all.failed), (5, 2));
        assert_eq!(all.identities, [("v1".into(), 2), ("v2".into(), 1)].into());
        assert_eq!(all.errors, [("refused".into(), 2)].into());
        assert_eq!(all.failures.len(), 2);
    }
}
