//! Slots that nothing points at any more: free again after a grace period, when no program that
//! may have seen them still runs.

use splitter_common::layout::Verdict;

use super::allocation::Allocation;
use super::publisher::{Installed, Publisher};

/// What nothing points at any more, but a running program may still read.
#[derive(Debug, Default)]
pub(super) struct RetiredSlots {
    pub(super) slots: Vec<Allocation>,
    pub(super) leaf_ids: Vec<u32>,
}

impl RetiredSlots {
    fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.leaf_ids.is_empty()
    }
}

impl Publisher {
    /// Blocks until no connection can get anything but what was last published. Takes
    /// some 10 ms. `false` if the kernel refused to wait, so that this is not known.
    pub fn synchronize(&mut self) -> bool {
        self.start_grace_period();
        let period = self.grace.start();
        let has_completed = self.grace.wait_for(period);
        self.reclaim_completed();
        has_completed
    }

    /// Frees slots whose grace period has completed, and marks their records as free. The next
    /// publication does so too; this is for whoever reads the maps meanwhile. `true` if some
    /// are still pending.
    pub fn reclaim(&mut self) -> bool {
        self.reclaim_completed();
        self.has_pending_reclaim()
    }

    pub(super) fn has_pending_reclaim(&self) -> bool {
        !self.pending_reclaim.is_empty() || !self.retired.slots.is_empty()
    }

    /// Retires what a frontend had before it was replaced or removed.
    pub(super) fn retire(&mut self, old: &Installed) {
        self.retired.slots.push(old.slots);
        let unused = self.leaf_ids.release(&mut self.maps, &old.plan);
        self.retired.leaf_ids.extend(unused);
    }

    /// Starts a grace period for what was retired since the last one.
    pub(super) fn start_grace_period(&mut self) {
        if !self.retired.is_empty() {
            let period = self.grace.start();
            self.pending_reclaim
                .push_back((period, std::mem::take(&mut self.retired)));
        }
    }

    /// Frees what has seen its grace period.
    pub(super) fn reclaim_completed(&mut self) {
        let completed = self.grace.completed();
        while let Some((_, retired)) = self
            .pending_reclaim
            .pop_front_if(|(period, _)| *period <= completed)
        {
            self.freed += 1;
            for slots in retired.slots {
                for index in slots.split.indexes() {
                    if let Some(mut record) = self.maps.splits.read(index) {
                        record.verdict = Verdict::Free;
                        self.maps.splits.write(index, &record);
                    }
                }
                self.free.give(slots);
            }
            for id in retired.leaf_ids {
                self.leaf_ids.give(&mut self.maps, id);
            }
        }
    }
}
