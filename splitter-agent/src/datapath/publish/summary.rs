//! What a publication changed, and why it failed.

use std::io;

use crate::plan::Frontend;

use crate::datapath::maps::MapsError;

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

/// Why one frontend was not brought to what the plan says. What was programmed stays programmed.
#[derive(Debug, thiserror::Error)]
pub enum FrontendError {
    /// A map is full.
    #[error("{} ({free} slots are free)", Self::full_text(map, *needed, flag))]
    Full {
        /// Its name.
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
pub struct PublishSummary {
    /// Frontends that were added or changed.
    pub installed: Vec<InstalledFrontend>,
    /// Frontends that are no longer programmed.
    pub removed: Vec<Frontend>,
    /// Frontends that could not be brought to what the plan says, and why.
    pub failed: Vec<(Frontend, FrontendError)>,
}

impl PublishSummary {
    /// Adds what another publication changed.
    pub fn append(&mut self, other: Self) {
        self.installed.extend(other.installed);
        self.removed.extend(other.removed);
        self.failed.extend(other.failed);
    }

    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.installed.is_empty() && self.removed.is_empty() && self.failed.is_empty()
    }
}

/// A frontend that was added or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstalledFrontend {
    /// The frontend.
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
