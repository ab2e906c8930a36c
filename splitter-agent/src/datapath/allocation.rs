//! Slots in the arrays, taken and given back for a split as a whole.

use super::maps::Maps;
use super::report::FrontendError;
use super::slots::{FreeSlots, Run};

/// The slots of a split. Empty runs stand for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allocation {
    pub(crate) split: Run,
    pub(crate) leaves: Run,
    pub(crate) endpoints: Run,
    /// The split's counter, followed by one for each leaf.
    pub(crate) sequence: Run,
}

/// How many slots a split needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) leaves: u32,
    pub(crate) endpoints: u32,
    pub(crate) counters: u32,
}

/// The slots that nothing points at.
#[derive(Debug)]
pub(crate) struct Free {
    splits: FreeSlots,
    leaves: FreeSlots,
    endpoints: FreeSlots,
    sequence: FreeSlots,
}

impl Free {
    /// All slots of the maps.
    pub(crate) fn all(maps: &Maps) -> Self {
        Self {
            splits: FreeSlots::all(maps.splits.len()),
            leaves: FreeSlots::all(maps.leaves.len()),
            endpoints: FreeSlots::all(maps.endpoints.len()),
            sequence: FreeSlots::all(maps.sequence.len()),
        }
    }

    /// Takes slots for a split: all that it needs, or none.
    pub(crate) fn take(&mut self, need: Need) -> Result<Allocation, FrontendError> {
        let mut taken = Allocation::default();
        self.take_into(need, &mut taken)
            .inspect_err(|_| self.give(taken))?;
        Ok(taken)
    }

    fn take_into(&mut self, need: Need, taken: &mut Allocation) -> Result<(), FrontendError> {
        let take = |slots: &mut FreeSlots, count, map, flag| {
            slots.take(count).ok_or(FrontendError::Full {
                map,
                needed: count,
                free: slots.free(),
                flag,
            })
        };
        taken.split = take(&mut self.splits, 1, "SPLITS", "--max-frontends")?;
        taken.leaves = take(&mut self.leaves, need.leaves, "LEAVES", "--max-leaves")?;
        taken.endpoints = take(
            &mut self.endpoints,
            need.endpoints,
            "ENDPOINTS",
            "--max-endpoints",
        )?;
        taken.sequence = take(
            &mut self.sequence,
            need.counters,
            "SEQUENCE",
            "--max-leaves",
        )?;
        Ok(())
    }

    /// Takes exactly these slots. `false` if some are not free, which changes nothing.
    pub(crate) fn claim(&mut self, wanted: Allocation) -> bool {
        let mut claimed = Allocation::default();
        let mut claim = |slots: &mut FreeSlots, run: Run, into: fn(&mut Allocation) -> &mut Run| {
            let is_free = slots.take_run(run);
            if is_free {
                *into(&mut claimed) = run;
            }
            is_free
        };
        let all = claim(&mut self.splits, wanted.split, |slots| &mut slots.split)
            && claim(&mut self.leaves, wanted.leaves, |slots| &mut slots.leaves)
            && claim(&mut self.endpoints, wanted.endpoints, |slots| {
                &mut slots.endpoints
            })
            && claim(&mut self.sequence, wanted.sequence, |slots| {
                &mut slots.sequence
            });
        if !all {
            self.give(claimed);
        }
        all
    }

    /// Gives slots back.
    pub(crate) fn give(&mut self, slots: Allocation) {
        self.splits.give(slots.split);
        self.leaves.give(slots.leaves);
        self.endpoints.give(slots.endpoints);
        self.sequence.give(slots.sequence);
    }
}
