//! The index of `FRONTENDS`, by [`splitter_common::index`].
//!
//! A program that finds nothing in the index does not look in `FRONTENDS`. The index leads to no frontend that is not
//! in `FRONTENDS`, since whoever takes the maps over knows what is there alone: a frontend is inserted there first,
//! and removed there last.

use std::collections::HashMap;

use splitter_common::index::{Place, SLOTS, record};
use splitter_common::layout::{ClientScope, FrontendKey, IndexRecord};

use crate::datapath::sys::table::Table;

/// What is in the index.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The frontends that have a slot: what stands for each, and its index into `SPLITS`.
    slots: HashMap<u32, Vec<(u32, u32)>>,
}

impl Index {
    /// The index of these frontends, each with its index into `SPLITS`. What of the map differs is written,
    /// whatever is there; `true` beside it if something was.
    pub(super) fn of(
        map: &Table<IndexRecord>,
        frontends: impl Iterator<Item = (FrontendKey, u32)>,
    ) -> (Self, bool) {
        let mut index = Self::default();
        for (key, split) in frontends {
            index.insert(&key, split);
        }
        let mut is_new = false;
        for slot in 0..SLOTS {
            let record = index.record(slot);
            if map.read(slot) != Some(record) {
                is_new = true;
                map.replace(slot, record);
            }
        }
        (index, is_new)
    }

    /// A frontend is in `FRONTENDS`.
    pub(super) fn add(&mut self, map: &Table<IndexRecord>, key: &FrontendKey, split: u32) {
        if let Some(slot) = self.insert(key, split) {
            map.replace(slot, self.record(slot));
        }
    }

    /// A frontend has another split.
    pub(super) fn change(
        &mut self,
        map: &Table<IndexRecord>,
        key: &FrontendKey,
        old: u32,
        new: u32,
    ) {
        // The map is written once, with the new one in place.
        self.take_out(key, old);
        self.add(map, key, new);
    }

    /// A frontend is about to be removed from `FRONTENDS`.
    pub(super) fn remove(&mut self, map: &Table<IndexRecord>, key: &FrontendKey, split: u32) {
        if let Some(slot) = self.take_out(key, split) {
            map.replace(slot, self.record(slot));
        }
    }

    /// Gives back the slot that has changed.
    fn insert(&mut self, key: &FrontendKey, split: u32) -> Option<u32> {
        let Place { slot, tag } = indexed(key)?;
        self.slots.entry(slot).or_default().push((tag, split));
        Some(slot)
    }

    /// Gives back the slot that has changed.
    fn take_out(&mut self, key: &FrontendKey, split: u32) -> Option<u32> {
        let Place { slot, tag } = indexed(key)?;
        let frontends = self.slots.get_mut(&slot)?;
        // No two have the same split.
        frontends.retain(|it| *it != (tag, split));
        if frontends.is_empty() {
            self.slots.remove(&slot);
        }
        Some(slot)
    }

    fn record(&self, slot: u32) -> IndexRecord {
        record(self.slots.get(&slot).map_or(&[], Vec::as_slice))
    }
}

/// The place of a frontend that is indexed.
fn indexed(key: &FrontendKey) -> Option<Place> {
    (key.clients == ClientScope::EVERYONE.0).then(|| Place::of(key))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use splitter_common::address;
    use splitter_common::index::Answer;
    use splitter_common::layout::Protocol;

    use super::*;

    /// Frontends of few slots, so that many share one.
    fn crowded() -> Vec<FrontendKey> {
        let keys = (0..=u16::MAX).map(|port| FrontendKey {
            address: address::mapped([10, 96, 0, 10]),
            port,
            protocol: Protocol::Tcp,
            padding: 0,
            clients: ClientScope::EVERYONE.0,
        });
        keys.filter(|key| Place::of(key).slot < 3).collect()
    }

    proptest! {
        #[test]
        fn the_index_leads_to_every_frontend_that_is_there_and_to_no_other(
            changes in vec((any::<prop::sample::Index>(), any::<bool>()), 0..60),
        ) {
            let keys = crowded();
            let mut index = Index::default();
            let mut there = BTreeMap::new();
            for (number, (change, stays)) in (0..).zip(changes) {
                let key = change.get(&keys);
                match there.remove(key) {
                    Some(split) if stays => {
                        there.insert(*key, number);
                        index.take_out(key, split);
                        index.insert(key, number)
                    }
                    Some(split) => index.take_out(key, split),
                    None => {
                        there.insert(*key, number);
                        index.insert(key, number)
                    }
                };
                for key in &keys {
                    let place = Place::of(key);
                    let neighbours = there.keys().filter(|it| Place::of(it).slot == place.slot);
                    let expected = match (there.get(key), neighbours.count()) {
                        (_, 2..) => Answer::Ask,
                        (Some(split), _) => Answer::At(*split),
                        (None, _) => Answer::Nothing,
                    };
                    prop_assert_eq!(place.read(index.record(place.slot)), expected);
                }
            }
            for (key, split) in there {
                index.take_out(&key, split);
            }
            prop_assert!(index.slots.is_empty());
        }
    }

    #[test]
    fn frontends_of_some_clients_are_not_indexed() {
        let own = FrontendKey {
            clients: 7,
            ..crowded()[0]
        };
        let mut index = Index::default();
        assert_eq!(index.insert(&own, 1), None);
        assert!(index.slots.is_empty());
    }
}
