//! Taking over maps that another agent left, however it ended.

use std::collections::BTreeSet;

use aya::maps::{HashMap, MapData};
use splitter_common::layout::CounterPlace;

use crate::datapath::maps::{KeyBytes, MapsError, key_bytes};
use crate::datapath::view::{FrontendView, View};
use crate::plan::Frontend;

use super::allocation::Allocation;
use super::index::Index;
use super::leaf_ids::LeafId;
use super::publisher::{Installed, Publisher};
use super::slots::Run;

impl Publisher {
    /// Finds out what is programmed, and so which slots are free. What cannot be used is
    /// removed. `true` if there was such a thing, or if the index led elsewhere: programs that run may use
    /// what is free now.
    pub(super) fn recover(&mut self) -> Result<bool, MapsError> {
        let view = View::read(&self.maps)?;
        self.generation = self.last_generation();
        let mut forgot = !view.inconsistent.is_empty() || !view.foreign.is_empty();
        for (frontend, split) in view.frontends {
            if let Some(entry) = self.claim(&split) {
                if entry.plan.origin.is_self_test() {
                    self.own.insert(frontend);
                }
                self.installed.insert(frontend, entry);
            } else {
                // No publisher leaves such a thing behind.
                forgot = true;
                self.forget(frontend, "it claims what another frontend has");
            }
        }
        for frontend in view.inconsistent {
            self.forget(frontend, "its records do not fit together");
        }
        for key in &view.foreign {
            tracing::warn!(?key, "a key in FRONTENDS is none; removing it");
            let _ = self.maps.frontends.remove(key);
        }
        let frontends = self.installed.iter();
        let frontends = frontends.map(|(it, entry)| (it.key(), entry.slots.split.first));
        let (index, is_new) = Index::of(&self.maps.index, frontends);
        self.index = index;
        self.remove_stale()?;
        self.recover_clients()?;
        self.recover_pod_names()?;
        Ok(forgot || is_new)
    }

    /// The highest generation of all records, those that are free too: a flow remembers that of the record
    /// it was chosen by, which may be gone.
    fn last_generation(&self) -> u32 {
        let splits = &self.maps.splits;
        let records = (0..splits.len()).filter_map(|index| splits.read(index));
        records.map(|record| record.generation).max().unwrap_or(0)
    }

    fn forget(&mut self, frontend: Frontend, why: &str) {
        tracing::warn!(%frontend, why, "frontend in the maps cannot be used; removing it");
        let _ = self.maps.frontends.remove(&key_bytes(&frontend.key()));
    }

    /// Marks what a programmed split has as used.
    fn claim(&mut self, view: &FrontendView) -> Option<Installed> {
        let record = &view.record;
        let key = key_bytes(&record.frontend);
        let current = self.maps.frontends.get(&key, 0).ok()?;
        let slots = Allocation {
            current: Run::new(current, 1),
            split: Run::new(self.maps.current.read(current)?.split, 1),
            leaves: Run::new(record.first_leaf, record.leaf_count),
            endpoints: Run::new(
                view.leaves.first().map_or(0, |leaf| leaf.first_endpoint),
                u32::try_from(view.plan.endpoint_count()).ok()?,
            ),
            counters: Run::new(
                record.first_counter,
                CounterPlace::records(record.leaf_count),
            ),
        };
        if !self.free.claim(slots) {
            return None;
        }
        let ids = view.leaves.iter().map(|leaf| LeafId {
            id: leaf.leaf_id,
            incarnation: leaf.incarnation,
        });
        if !self.leaf_ids.claim(&view.plan, ids) {
            self.free.give(slots);
            return None;
        }
        Some(Installed {
            plan: view.plan.clone(),
            slots,
            lattice: view.lattice(),
            repeats: 0,
        })
    }

    /// Removes names and counters of what is not programmed: an agent was killed before it could.
    fn remove_stale(&mut self) -> Result<(), MapsError> {
        let live: BTreeSet<KeyBytes> = self
            .installed
            .keys()
            .map(|frontend| key_bytes(&frontend.key()))
            .collect();
        remove_unused(&mut self.maps.frontend_names, "FRONTEND_NAMES", &live)?;
        let in_use = self.leaf_ids.in_use();
        remove_unused(&mut self.maps.leaf_names, "LEAF_NAMES", &in_use)?;
        remove_unused(&mut self.maps.leaf_outcomes, "LEAF_OUTCOMES", &in_use)?;
        Ok(())
    }
}

/// Removes what is not in use from a hash.
fn remove_unused<K: aya::Pod + Ord, V: aya::Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &'static str,
    in_use: &BTreeSet<K>,
) -> Result<(), MapsError> {
    let keys = map
        .keys()
        .collect::<Result<BTreeSet<_>, _>>()
        .map_err(MapsError::access("list", name))?;
    for key in keys.difference(in_use) {
        let _ = map.remove(key);
    }
    Ok(())
}
