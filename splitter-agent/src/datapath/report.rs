//! What a publication is told, and what came of it.

use std::io;

use crate::plan::Frontend;

use super::maps::MapsError;

/// Why the maps cannot be published to.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The maps cannot be opened or read.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// Grace periods cannot be waited for.
    #[error("cannot wait for grace periods")]
    Grace(#[source] io::Error),
}

/// Why one frontend was not brought to what the plan says. What was programmed stays so.
#[derive(Debug, thiserror::Error)]
pub enum FrontendError {
    /// A map is full.
    #[error("{} ({free} slots are free)", Self::full_text(map, *needed, flag))]
    Full {
        /// Which.
        map: &'static str,
        /// How many slots are needed.
        needed: u32,
        /// How many are free, in a row or not.
        free: u32,
        /// The flag that makes it larger.
        flag: &'static str,
    },
    /// The kernel refused.
    #[error(transparent)]
    Map(#[from] MapsError),
}

impl FrontendError {
    /// What is said of a map that is full, the same for as long as nothing else is needed.
    pub(crate) fn full_text(map: &str, needed: u32, flag: &str) -> String {
        let slots = match needed {
            1 => "a free slot is".to_owned(),
            _ => format!("{needed} free slots in a row are"),
        };
        format!("{map} is full: {slots} needed; start the agent with a larger {flag}")
    }
}

/// What a publication changed.
#[derive(Debug, Default)]
pub struct Report {
    /// Frontends that were programmed.
    pub put: Vec<Put>,
    /// Frontends that are no longer programmed.
    pub removed: Vec<Frontend>,
    /// Frontends that the plan would remove or degrade, kept since the plan is partial.
    pub kept: Vec<Frontend>,
    /// Frontends that could not be brought to what the plan says, and why.
    pub failed: Vec<(Frontend, FrontendError)>,
}

impl Report {
    /// Adds what another publication changed.
    pub fn append(&mut self, other: Self) {
        self.put.extend(other.put);
        self.removed.extend(other.removed);
        self.kept.extend(other.kept);
        self.failed.extend(other.failed);
    }

    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.removed.is_empty() && self.failed.is_empty()
    }
}

/// A frontend that was programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    /// Which.
    pub frontend: Frontend,
    /// Generation of its new record.
    pub generation: u32,
    /// What is new about it.
    pub change: Change,
}

/// What is new about a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not programmed before.
    Added,
    /// Its decision, its leaves or their shares: counting starts anew.
    Shares,
    /// Only its endpoints, or what is told of its leaves: counting goes on.
    Endpoints,
}

/// How much a plan knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything that exists: what is not in the plan goes.
    Full,
    /// Perhaps not everything: nothing that is programmed is removed, or replaced by what lacks a
    /// leaf that takes its share now.
    Partial,
}
