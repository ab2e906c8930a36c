//! Slots in the arrays, taken and given back for a split as a whole.

use crate::datapath::maps::Maps;
use crate::plan::FrontendPlan;

use super::capacity::reserved;
use super::slots::{FreeSlots, Run};
use super::summary::FrontendError;

/// The slots of a split. Empty runs stand for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allocation {
    /// The frontend's place in `CURRENT`.
    pub(crate) current: Run,
    pub(crate) split: Run,
    pub(crate) leaves: Run,
    pub(crate) endpoints: Run,
    /// The records with the counters of the split and its leaves.
    pub(crate) counters: Run,
}

/// How many slots a split needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) current: u32,
    pub(crate) leaves: u32,
    pub(crate) endpoints: u32,
    pub(crate) counters: u32,
}

/// Whose a split is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Some object asks for it.
    Object,
    /// It is the agent's own.
    Agent,
}

impl Owner {
    pub(crate) fn of(split: &FrontendPlan) -> Self {
        if split.origin.is_self_test() {
            Self::Agent
        } else {
            Self::Object
        }
    }
}

/// The slots that nothing points at.
#[derive(Debug)]
pub(crate) struct Free {
    current: Slots,
    splits: Slots,
    leaves: Slots,
    endpoints: Slots,
    counters: Slots,
}

/// The free slots of an array, the last of which only the agent's own splits may take.
#[derive(Debug)]
struct Slots {
    objects: FreeSlots,
    own: FreeSlots,
    /// First slot of `own`.
    boundary: u32,
}

impl Slots {
    fn all(length: u32, own: u32) -> Self {
        let boundary = length.saturating_sub(own);
        Self {
            objects: FreeSlots::all(boundary),
            own: FreeSlots::from(boundary, length - boundary),
            boundary,
        }
    }

    fn take(&mut self, count: u32, owner: Owner) -> Option<Run> {
        match owner {
            Owner::Object => self.objects.take(count),
            Owner::Agent => self.own.take(count).or_else(|| self.objects.take(count)),
        }
    }

    fn free(&self, owner: Owner) -> u32 {
        match owner {
            Owner::Object => self.objects.free(),
            Owner::Agent => self.objects.free() + self.own.free(),
        }
    }

    fn part(&mut self, run: Run) -> &mut FreeSlots {
        if run.first < self.boundary {
            &mut self.objects
        } else {
            &mut self.own
        }
    }

    fn take_run(&mut self, run: Run) -> bool {
        self.part(run).take_run(run)
    }

    fn give(&mut self, run: Run) {
        self.part(run).give(run);
    }
}

impl Free {
    /// All slots of the maps.
    pub(crate) fn all(maps: &Maps) -> Self {
        Self {
            current: Slots::all(maps.current.len(), reserved::CURRENT),
            splits: Slots::all(maps.splits.len(), reserved::SPLITS),
            leaves: Slots::all(maps.leaves.len(), reserved::LEAVES),
            endpoints: Slots::all(maps.endpoints.len(), reserved::ENDPOINTS),
            counters: Slots::all(maps.counters.len(), reserved::COUNTERS),
        }
    }

    /// Takes slots for a split: all that it needs, or none.
    pub(crate) fn take(&mut self, need: Need, owner: Owner) -> Result<Allocation, FrontendError> {
        let mut taken = Allocation::default();
        self.take_into(need, owner, &mut taken)
            .inspect_err(|_| self.give(taken))?;
        Ok(taken)
    }

    fn take_into(
        &mut self,
        need: Need,
        owner: Owner,
        taken: &mut Allocation,
    ) -> Result<(), FrontendError> {
        let take = |slots: &mut Slots, count, map, flag| {
            slots.take(count, owner).ok_or(FrontendError::Full {
                map,
                needed: count,
                free: slots.free(owner),
                flag,
            })
        };
        taken.current = take(
            &mut self.current,
            need.current,
            "CURRENT",
            "--max-frontends",
        )?;
        taken.split = take(&mut self.splits, 1, "SPLITS", "--max-frontends")?;
        taken.leaves = take(&mut self.leaves, need.leaves, "LEAVES", "--max-leaves")?;
        taken.endpoints = take(
            &mut self.endpoints,
            need.endpoints,
            "ENDPOINTS",
            "--max-endpoints",
        )?;
        taken.counters = take(
            &mut self.counters,
            need.counters,
            "COUNTERS",
            "--max-leaves",
        )?;
        Ok(())
    }

    /// Takes exactly these slots. `false` if some are not free, which changes nothing.
    pub(crate) fn claim(&mut self, wanted: Allocation) -> bool {
        let mut claimed = Allocation::default();
        let mut claim = |slots: &mut Slots, run: Run, into: fn(&mut Allocation) -> &mut Run| {
            let is_free = slots.take_run(run);
            if is_free {
                *into(&mut claimed) = run;
            }
            is_free
        };
        let all = claim(&mut self.current, wanted.current, |slots| {
            &mut slots.current
        }) && claim(&mut self.splits, wanted.split, |slots| &mut slots.split)
            && claim(&mut self.leaves, wanted.leaves, |slots| &mut slots.leaves)
            && claim(&mut self.endpoints, wanted.endpoints, |slots| {
                &mut slots.endpoints
            })
            && claim(&mut self.counters, wanted.counters, |slots| {
                &mut slots.counters
            });
        if !all {
            self.give(claimed);
        }
        all
    }

    /// Gives slots back.
    pub(crate) fn give(&mut self, slots: Allocation) {
        self.current.give(slots.current);
        self.splits.give(slots.split);
        self.leaves.give(slots.leaves);
        self.endpoints.give(slots.endpoints);
        self.counters.give(slots.counters);
    }
}
