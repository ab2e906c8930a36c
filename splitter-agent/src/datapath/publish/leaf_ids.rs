//! Ids of leaves: the same for a leaf on every frontend of its root, for as long as it is part
//! of a split.

use std::collections::{BTreeSet, HashMap};

use splitter_common::layout::LeafNames;

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

#[derive(Debug)]
struct LeafId {
    id: u32,
    /// How many programmed splits have this leaf.
    users: u32,
}

/// The ids in use, and those that are not.
#[derive(Debug)]
pub(crate) struct LeafIds {
    ids: HashMap<LeafName, LeafId>,
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
    pub(crate) fn claim(&mut self, split: &FrontendPlan, ids: impl Iterator<Item = u32>) -> bool {
        let mut claimed = Vec::new();
        for (name, id) in names(split).zip(ids) {
            let agrees = match self.ids.get_mut(&name) {
                Some(known) if known.id == id => {
                    known.users += 1;
                    true
                }
                Some(_) => false,
                None => {
                    let is_free = self.free.take_run(Run::new(id, 1));
                    if is_free {
                        self.ids.insert(name.clone(), LeafId { id, users: 1 });
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
    ) -> Result<Vec<u32>, FrontendError> {
        let mut taken = Vec::with_capacity(split.leaves.len());
        for name in names(split) {
            match self.take_one(maps, &name) {
                Ok(id) => taken.push((name, id)),
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
        Ok(taken.into_iter().map(|(_, id)| id).collect())
    }

    fn take_one(&mut self, maps: &mut Maps, name: &LeafName) -> Result<u32, FrontendError> {
        if let Some(leaf) = self.ids.get_mut(name) {
            leaf.users += 1;
            return Ok(leaf.id);
        }
        let Some(run) = self.free.take(1) else {
            return Err(FrontendError::Full {
                map: "LEAF_STATS",
                needed: 1,
                free: 0,
                flag: "--max-leaves",
            });
        };
        let id = run.first;
        if let Err(error) = describe(maps, id, name) {
            self.free.give(run);
            return Err(error.into());
        }
        self.ids.insert(name.clone(), LeafId { id, users: 1 });
        Ok(id)
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

    /// Makes an id available again.
    pub(crate) fn give(&mut self, id: u32) {
        self.free.give(Run::new(id, 1));
    }

    /// Every id in use.
    pub(crate) fn in_use(&self) -> BTreeSet<u32> {
        self.ids.values().map(|leaf| leaf.id).collect()
    }

    fn drop_user(&mut self, name: &LeafName) -> Option<u32> {
        let leaf = self.ids.get_mut(name)?;
        leaf.users -= 1;
        if leaf.users > 0 {
            return None;
        }
        self.ids.remove(name).map(|leaf| leaf.id)
    }

    fn forget(&mut self, maps: &mut Maps, id: u32) {
        let _ = maps.leaf_names.remove(&id);
        self.give(id);
    }
}

/// Writes the names of a new id, and sets its counters to 0.
fn describe(maps: &mut Maps, id: u32, name: &LeafName) -> Result<(), MapsError> {
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
    maps.leaf_refusals.clear(id);
    maps.leaf_stats
        .clear(id)
        .map_err(|error| MapsError::access("write", "LEAF_STATS")(error.into()))
}
