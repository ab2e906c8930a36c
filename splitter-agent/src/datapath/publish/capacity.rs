//! How much fits into the maps, and how many slots that takes.

use splitter_common::layout::COUNTS_IN_RECORD;

/// How much fits into the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Most frontends: addresses and ports of root Services.
    pub frontends: u32,
    /// Most leaves, over all frontends.
    pub leaves: u32,
    /// Most endpoints, over all frontends and leaves.
    pub endpoints: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            frontends: 65_536,
            leaves: 131_072,
            endpoints: 262_144,
        }
    }
}

/// Entries that no object's split may take, so that the agent's own frontend, by which it
/// finds out whether connections are split, has room in maps that are full. In the arrays
/// it needs a fresh slot for a change while the old one is still in use.
pub(crate) mod reserved {
    pub(crate) const FRONTENDS: u32 = 1;
    pub(crate) const SPLITS: u32 = 2 * FRONTENDS;
    pub(crate) const CURRENT: u32 = SPLITS;
    pub(crate) const LEAVES: u32 = SPLITS;
    pub(crate) const ENDPOINTS: u32 = SPLITS;
    /// Its one leaf is counted where it is.
    pub(crate) const COUNTERS: u32 = SPLITS;
}

impl Capacity {
    /// Elements of `FRONTENDS`.
    pub(crate) fn frontend_slots(self) -> u32 {
        self.frontends.saturating_add(reserved::FRONTENDS)
    }

    /// Slots of `CURRENT`. A frontend that comes needs a fresh slot while the one of another
    /// that went may still be read, so there are as many more than frontends.
    pub(crate) fn current(self) -> u32 {
        self.splits()
    }

    /// Slots of `SPLITS`. An update needs a fresh slot while the old one is still in
    /// use, so there are a quarter more than frontends.
    pub(crate) fn splits(self) -> u32 {
        let spare = self.frontends / 4 + 64;
        self.frontends.saturating_add(spare + reserved::SPLITS)
    }

    /// Slots of `LEAVES`, with the same reserve.
    pub(crate) fn leaf_slots(self) -> u32 {
        self.leaves
            .saturating_add(self.leaves / 4 + 64 + reserved::LEAVES)
    }

    /// Slots of `ENDPOINTS`, with the same reserve.
    pub(crate) fn endpoint_slots(self) -> u32 {
        self.endpoints
            .saturating_add(self.endpoints / 4 + 1024 + reserved::ENDPOINTS)
    }

    /// Slots of `COUNTERS`: one for each split, and more for those of many leaves.
    pub(crate) fn counters(self) -> u32 {
        self.splits()
            .saturating_add(self.leaf_slots() / COUNTS_IN_RECORD)
    }
}
