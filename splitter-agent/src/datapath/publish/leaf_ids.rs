//! Ids of leaves: the same for a leaf on every frontend of its root, for as long as it is part
//! of a split.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use bytemuck::Zeroable;
use splitter_common::layout::{LeafNames, OutcomeRecord};

use crate::datapath::maps::{Maps, MapsError};
use crate::datapath::view::write_text;
use crate::objects::ObjectName;
use crate::plan::FrontendPlan;

use super::slots::{FreeSlots, Run};
use super::summary::FrontendError;

/// Root and name of a leaf.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LeafName {
    root: ObjectName,
    leaf: String,
}

/// An id, and which of the leaves that have it one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeafId {
    pub(crate) id: u32,
    pub(crate) incarnation: u32,
}

#[derive(Debug)]
struct Used {
    leaf: LeafId,
    /// How many programmed splits have this leaf.
    users: u32,
}

/// The ids in use, and those that are not.
#[derive(Debug)]
pub(crate) struct LeafIds {
    ids: HashMap<LeafName, Used>,
    free: FreeSlots,
}

fn names(split: &FrontendPlan) -> impl Iterator<Item = LeafName> + use<'_> {
    split.leaves.iter().map(|leaf| LeafName {
        root: split.root.clone(),
        leaf: leaf.service.clone(),
    })
}

impl LeafIds {
    /// None in use.
    pub(crate) fn new(maps: &Maps) -> Self {
        Self {
            ids: HashMap::new(),
            free: FreeSlots::all(maps.leaf_stats.len()),
        }
    }

    /// Notes the ids of a split that is programmed already. `false` if they contradict what
    /// is noted, which changes nothing.
    pub(crate) fn claim(
        &mut self,
        split: &FrontendPlan,
        ids: impl Iterator<Item = LeafId>,
    ) -> bool {
        let mut claimed = Vec::new();
        for (name, leaf) in names(split).zip(ids) {
            let agrees = match self.ids.get_mut(&name) {
                Some(known) if known.leaf == leaf => {
                    known.users += 1;
                    true
                }
                Some(_) => false,
                None => {
                    let is_free = self.free.take_run(Run::new(leaf.id, 1));
                    if is_free {
                        self.ids.insert(name.clone(), Used { leaf, users: 1 });
                    }
                    is_free
                }
            };
            if !agrees {
                for name in &claimed {
                    if let Some(id) = self.drop_user(name) {
                        self.free.give(Run::new(id, 1));
                    }
                }
                return false;
            }
            claimed.push(name);
        }
        true
    }

    /// Ids for the leaves of a split, in their order; new ones count from 0.
    pub(crate) fn take(
        &mut self,
        maps: &mut Maps,
        split: &FrontendPlan,
    ) -> Result<Vec<LeafId>, FrontendError> {
        let mut taken = Vec::with_capacity(split.leaves.len());
        for name in names(split) {
            match self.take_one(maps, &name) {
                Ok(leaf) => taken.push((name, leaf)),
                Err(error) => {
                    for (name, _) in &taken {
                        // Never seen by a program: free at once.
                        if let Some(id) = self.drop_user(name) {
                            self.forget(maps, id);
                        }
                    }
                    return Err(error);
                }
            }
        }
        Ok(taken.into_iter().map(|(_, leaf)| leaf).collect())
    }

    fn take_one(&mut self, maps: &mut Maps, name: &LeafName) -> Result<LeafId, FrontendError> {
        if let Some(used) = self.ids.get_mut(name) {
            used.users += 1;
            return Ok(used.leaf);
        }
        let Some(run) = self.free.take(1) else {
            return Err(FrontendError::Full {
                map: "LEAF_STATS",
                needed: 1,
                free: 0,
                flag: "--max-leaves",
            });
        };
        let leaf = LeafId {
            id: run.first,
            // Nothing secret depends on it, so that the randomness of hash maps is good enough.
            incarnation: (RandomState::new().hash_one(run.first) >> 32) as u32,
        };
        if let Err(error) = describe(maps, leaf, name) {
            self.free.give(run);
            return Err(error.into());
        }
        self.ids.insert(name.clone(), Used { leaf, users: 1 });
        Ok(leaf)
    }

    /// Counts one user less of each leaf of a split. Gives back the ids that nobody uses
    /// any more; they are [given](Self::give) back after a grace period.
    pub(crate) fn release(&mut self, maps: &mut Maps, split: &FrontendPlan) -> Vec<u32> {
        let unused: Vec<u32> = names(split)
            .filter_map(|name| self.drop_user(&name))
            .collect();
        for id in &unused {
            // For people only; what is left over is removed by the next agent.
            let _ = maps.leaf_names.remove(id);
        }
        unused
    }

    /// Makes an id available again, that no program counts for any more.
    pub(crate) fn give(&mut self, maps: &mut Maps, id: u32) {
        // What is left over is removed by the next agent, or overwritten.
        let _ = maps.leaf_outcomes.remove(&id);
        self.free.give(Run::new(id, 1));
    }

    /// Every id in use.
    pub(crate) fn in_use(&self) -> BTreeSet<u32> {
        self.ids.values().map(|used| used.leaf.id).collect()
    }

    fn drop_user(&mut self, name: &LeafName) -> Option<u32> {
        let used = self.ids.get_mut(name)?;
        used.users -= 1;
        if used.users > 0 {
            return None;
        }
        self.ids.remove(name).map(|used| used.leaf.id)
    }

    fn forget(&mut self, maps: &mut Maps, id: u32) {
        let _ = maps.leaf_names.remove(&id);
        self.give(maps, id);
    }
}

/// Writes the names of a new id, and sets its counters to 0.
fn describe(maps: &mut Maps, leaf: LeafId, name: &LeafName) -> Result<(), MapsError> {
    let LeafId { id, incarnation } = leaf;
    let names = LeafNames {
        root_namespace: write_text(&name.root.namespace),
        root: write_text(&name.root.name),
        leaf: write_text(&name.leaf),
    };
    maps.leaf_names
        .insert(
            id,
            bytemuck::cast::<_, [u8; size_of::<LeafNames>()]>(names),
            0,
        )
        .map_err(MapsError::access("write", "LEAF_NAMES"))?;
    let outcomes = OutcomeRecord {
        incarnation: incarnation.into(),
        ..OutcomeRecord::zeroed()
    };
    maps.leaf_outcomes
        .insert(
            id,
            bytemuck::cast::<_, [u8; size_of::<OutcomeRecord>()]>(outcomes),
            0,
        )
        .map_err(MapsError::access("write", "LEAF_OUTCOMES"))?;
    maps.leaf_refusals.clear(id);
    maps.leaf_stats
        .clear(id)
        .map_err(|error| MapsError::access("write", "LEAF_STATS")(error.into()))
}
