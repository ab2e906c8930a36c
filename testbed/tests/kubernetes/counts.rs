//! What clients were answered.

use std::collections::BTreeMap;

/// What came of a number of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Answers, by who gave them.
    pub(crate) identities: BTreeMap<String, u64>,
    /// Failures, by kind.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Counts {
    /// So many answers of each.
    pub(crate) fn of<const N: usize>(identities: [(&str, u64); N]) -> Self {
        Self {
            identities: identities
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(identity, count)| (identity.to_owned(), count))
                .collect(),
            errors: BTreeMap::new(),
        }
    }

    /// How many answers one gave.
    pub(crate) fn count(&self, identity: &str) -> u64 {
        self.identities.get(identity).copied().unwrap_or(0)
    }

    /// How many requests failed.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Counts what another has counted, too.
    pub(crate) fn add(&mut self, other: &Self) {
        for (ours, theirs) in [
            (&mut self.identities, &other.identities),
            (&mut self.errors, &other.errors),
        ] {
            for (name, count) in theirs {
                *ours.entry(name.clone()).or_default() += count;
            }
        }
    }

    /// The same, with the pods of a Deployment taken together: by what is before the first dash.
    pub(crate) fn by_deployment(&self) -> Self {
        let mut together = Self {
            errors: self.errors.clone(),
            ..Self::default()
        };
        for (identity, count) in &self.identities {
            let deployment = identity.split('-').next().unwrap_or_default();
            *together
                .identities
                .entry(deployment.to_owned())
                .or_default() += count;
        }
        together
    }
}
