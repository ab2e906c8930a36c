//! Which slots of an array are free.

use std::collections::BTreeMap;

/// A run of neighbouring slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    /// First slot.
    pub(crate) first: u32,
    /// Number of slots; may be 0.
    pub(crate) count: u32,
}

impl Run {
    /// `count` slots from `first` on.
    pub(crate) const fn new(first: u32, count: u32) -> Self {
        Self { first, count }
    }

    /// The slots.
    pub(crate) fn indexes(self) -> std::ops::Range<u32> {
        self.first..self.first.saturating_add(self.count)
    }
}

/// The free slots of an array: gives out runs, lowest first, and joins what comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FreeSlots {
    /// Free runs: first slot to number of slots. Never empty runs, never neighbours.
    runs: BTreeMap<u32, u32>,
    free: u32,
    /// The shortest run that was asked for in vain since a slot was last given back: there
    /// is no longer one either.
    too_long: Option<u32>,
}

impl FreeSlots {
    /// All of `length` slots.
    pub(crate) fn all(length: u32) -> Self {
        Self::from(0, length)
    }

    /// `count` slots from `first` on.
    pub(crate) fn from(first: u32, count: u32) -> Self {
        let mut runs = BTreeMap::new();
        if count > 0 {
            runs.insert(first, count);
        }
        Self {
            runs,
            free: count,
            too_long: None,
        }
    }

    /// Number of free slots.
    pub(crate) fn free(&self) -> u32 {
        self.free
    }

    /// Takes a run of `count` slots, the first that fits; `None` if none does.
    pub(crate) fn take(&mut self, count: u32) -> Option<Run> {
        if count == 0 {
            return Some(Run::default());
        }
        if self.free < count || self.too_long.is_some_and(|too_long| count >= too_long) {
            return None;
        }
        let Some((&first, &length)) = self.runs.iter().find(|&(_, &length)| length >= count) else {
            self.too_long = Some(count);
            return None;
        };
        self.runs.remove(&first);
        if length > count {
            self.runs.insert(first + count, length - count);
        }
        self.free -= count;
        Some(Run::new(first, count))
    }

    /// Takes exactly this run. `false` if a part of it is not free, which changes
    /// nothing.
    pub(crate) fn take_run(&mut self, run: Run) -> bool {
        if run.count == 0 {
            return true;
        }
        let Some(end) = run.first.checked_add(run.count) else {
            return false;
        };
        let Some((&first, &length)) = self.runs.range(..=run.first).next_back() else {
            return false;
        };
        let free_end = first + length;
        if free_end < end {
            return false;
        }
        self.runs.remove(&first);
        if first < run.first {
            self.runs.insert(first, run.first - first);
        }
        if end < free_end {
            self.runs.insert(end, free_end - end);
        }
        self.free -= run.count;
        true
    }

    /// Gives a run back that was taken.
    pub(crate) fn give(&mut self, run: Run) {
        if run.count == 0 {
            return;
        }
        let (mut first, mut count) = (run.first, run.count);
        self.free += count;
        self.too_long = None;
        if let Some((&before, &length)) = self.runs.range(..first).next_back()
            && before + length == first
        {
            self.runs.remove(&before);
            first = before;
            count += length;
        }
        if let Some(length) = self.runs.remove(&(run.first + run.count)) {
            count += length;
        }
        self.runs.insert(first, count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_given_back_is_one_run_again() {
        let mut slots = FreeSlots::all(10);
        let runs: Vec<_> = (0..5).filter_map(|_| slots.take(2)).collect();
        assert_eq!(slots.take(1), None);
        for index in [1, 3, 0, 4, 2] {
            slots.give(runs[index]);
        }
        assert_eq!(slots, FreeSlots::all(10));
    }

    #[test]
    fn what_was_too_long_fits_when_something_is_given_back() {
        let mut slots = FreeSlots::from(100, 10);
        let first = slots.take(5).unwrap();
        let second = slots.take(3).unwrap();
        assert_eq!(slots.take(3), None);
        assert_eq!(slots.take(2), Some(Run::new(108, 2)));
        slots.give(first);
        assert_eq!(slots.take(6), None);
        slots.give(second);
        assert_eq!(slots.take(6), Some(Run::new(100, 6)));
    }

    #[test]
    fn a_run_that_is_partly_taken_cannot_be_taken() {
        let mut slots = FreeSlots::all(10);
        assert!(slots.take_run(Run::new(3, 4)));
        assert!(!slots.take_run(Run::new(6, 2)));
        assert!(!slots.take_run(Run::new(9, 2)));
        assert!(!slots.take_run(Run::new(u32::MAX, 2)));
        assert!(slots.take_run(Run::new(7, 3)));
        assert_eq!(slots.free(), 3);
    }

    proptest! {
        #[test]
        fn no_slot_is_ever_given_out_twice(
            steps in proptest::collection::vec((any::<bool>(), 0_u32..20), 1..200)
        ) {
            let mut slots = FreeSlots::all(100);
            let mut taken: Vec<Run> = Vec::new();
            for (take, number) in steps {
                if take {
                    if let Some(run) = slots.take(number) {
                        taken.push(run);
                    }
                } else if !taken.is_empty() {
                    slots.give(taken.swap_remove(number as usize % taken.len()));
                }
                let mut used: Vec<u32> = taken.iter().flat_map(|run| run.indexes()).collect();
                let count = used.len();
                used.sort_unstable();
                used.dedup();
                prop_assert_eq!(used.len(), count);
                prop_assert_eq!(slots.free() as usize, 100 - count);
            }
        }
    }
}
