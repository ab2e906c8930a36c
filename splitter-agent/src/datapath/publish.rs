//! The publisher: brings the maps to what a plan says.
//!
//! For each frontend that differs: write a new record, its leaves and its endpoints into
//! free slots, then flip the frontend's one word to the new record. A connection sees
//! the old split or the new one, whole. What the old one used is free again after a
//! grace period, when no program that may have seen it still runs.
//!
//! Killed at any point, the maps are left valid: free slots are simply those that
//! nothing in force points at, and the next publisher finds them so.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;

use splitter_common::address;
use splitter_common::layout::{
    EndpointRecord, FrontendNames, FrontendValue, LeafNames, LeafRecord, Reason, SplitRecord,
    Verdict,
};
use splitter_common::pick::{Lattice, mix};

use crate::plan::{Decision, Frontend, Plan, PlannedSplit};

use super::grace::{GracePeriods, Ticket};
use super::maps::{Access, KeyBytes, Maps, MapsError};
use super::pins::PinDirectory;
use super::slots::{FreeSlots, Run};
use super::view::{SplitView, View, write_text};

/// Why the maps cannot be published to.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The maps cannot be opened or read.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// Grace periods cannot be waited for.
    #[error("cannot wait for grace periods: {0}")]
    Grace(#[source] io::Error),
}

/// Why one frontend was not brought to what the plan says. What was in force stays so.
#[derive(Debug, thiserror::Error)]
pub enum FrontendError {
    /// A map is full.
    #[error(
        "{map} is full: {needed} slots in a row are needed and {free} are free; raise \
         {flag} (and run `splitter-agent cleanup` once, for the new size)"
    )]
    Full {
        /// Which.
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

/// What a publication changed.
#[derive(Debug, Default)]
pub struct Report {
    /// Frontends that were not in force before, and their new generations.
    pub added: Vec<(Frontend, u32)>,
    /// Frontends that were changed, and their new generations.
    pub changed: Vec<(Frontend, u32)>,
    /// Frontends that are no longer in force.
    pub removed: Vec<Frontend>,
    /// Frontends that the plan would remove or degrade, kept since the plan is partial.
    pub kept: Vec<Frontend>,
    /// Frontends that could not be brought to what the plan says, and why.
    pub failed: Vec<(Frontend, FrontendError)>,
}

impl Report {
    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty()
            && self.changed.is_empty()
            && self.removed.is_empty()
            && self.failed.is_empty()
    }
}

/// How much a plan knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything that exists: what is not in the plan goes.
    Full,
    /// Perhaps not everything: nothing in force is removed, or replaced by what lacks a
    /// leaf.
    Partial,
}

/// Identity of a leaf: its split's namespace and root, and its own name.
type LeafName = (String, String, String);

/// The owner of the maps.
pub struct Publisher {
    maps: Maps,
    grace: GracePeriods,
    /// Part of a turn by which this node's lattices are shifted, in 1 / 2^32.
    node_fraction: u32,
    generation: u32,
    in_force: BTreeMap<Frontend, InForce>,
    leaf_ids: HashMap<LeafName, LeafId>,
    free: Free,
    limbo: VecDeque<(Ticket, Retired)>,
    retired: Retired,
}

#[derive(Debug)]
struct LeafId {
    id: u32,
    users: u32,
}

#[derive(Debug)]
struct InForce {
    split: PlannedSplit,
    index: u32,
    seed: u64,
    /// How often the shares were changed without a change of the object's generation.
    repeats: u64,
    sequence: Run,
    leaves: Run,
    endpoints: Run,
}

/// Slots that nothing points at.
#[derive(Debug)]
struct Free {
    splits: FreeSlots,
    leaves: FreeSlots,
    endpoints: FreeSlots,
    sequence: FreeSlots,
    leaf_ids: FreeSlots,
}

/// Slots that nothing points at any more, but that a running program may still read.
#[derive(Debug, Default)]
struct Retired {
    splits: Vec<Run>,
    leaves: Vec<Run>,
    endpoints: Vec<Run>,
    sequence: Vec<Run>,
    leaf_ids: Vec<Run>,
}

impl Retired {
    fn is_empty(&self) -> bool {
        self.splits.is_empty() && self.leaf_ids.is_empty() && self.sequence.is_empty()
    }
}

/// The slots of a split that is being written.
#[derive(Clone, Copy)]
struct Allocation {
    split: Run,
    leaves: Run,
    endpoints: Run,
    /// `None` if the split goes on with its predecessor's counters.
    sequence: Option<Run>,
}

impl Publisher {
    /// Takes over the pinned maps. `node_fraction` is the part of a turn, in 1 / 2^32, by
    /// which this node's picks are shifted against other nodes'.
    ///
    /// # Errors
    ///
    /// If the maps cannot be opened.
    pub fn open(pins: &PinDirectory, node_fraction: u32) -> Result<Self, PublishError> {
        let maps = Maps::open(pins, Access::Write)?;
        // The first grace period has passed when this returns: what an earlier agent
        // had just put out of force is free.
        let grace = GracePeriods::start().map_err(PublishError::Grace)?;
        let mut publisher = Self {
            free: Free {
                splits: FreeSlots::all(maps.splits.len()),
                leaves: FreeSlots::all(maps.leaves.len()),
                endpoints: FreeSlots::all(maps.endpoints.len()),
                sequence: FreeSlots::all(maps.sequence.len()),
                leaf_ids: FreeSlots::all(maps.leaf_ids),
            },
            maps,
            grace,
            node_fraction,
            generation: 0,
            in_force: BTreeMap::new(),
            leaf_ids: HashMap::new(),
            limbo: VecDeque::new(),
            retired: Retired::default(),
        };
        publisher.recover()?;
        Ok(publisher)
    }

    /// What is in force.
    pub fn in_force(&self) -> impl Iterator<Item = (&Frontend, &PlannedSplit)> {
        self.in_force
            .iter()
            .map(|(frontend, entry)| (frontend, &entry.split))
    }

    /// Finds out what is in force, and so which slots are free.
    fn recover(&mut self) -> Result<(), MapsError> {
        let view = View::read(&self.maps)?;
        for (frontend, split) in view.frontends {
            self.generation = self.generation.max(split.record.generation);
            if let Some(entry) = self.claim(&split) {
                self.in_force.insert(frontend, entry);
            } else {
                // Its records overlap another's, which no publisher leaves behind.
                self.forget_frontend(frontend, "its records overlap another's");
            }
        }
        for frontend in view.inconsistent {
            self.forget_frontend(frontend, "its records do not fit together");
        }
        self.remove_stale_names()
    }

    fn forget_frontend(&mut self, frontend: Frontend, why: &str) {
        tracing::warn!(%frontend, why, "frontend in the maps cannot be used; removing it");
        let _ = self.maps.frontends.remove(&key_bytes(frontend));
    }

    /// Marks the slots of a split as used.
    fn claim(&mut self, view: &SplitView) -> Option<InForce> {
        let record = &view.record;
        let split = Run::new(record_index(&self.maps, view)?, 1);
        let leaves = Run::new(record.first_leaf, record.leaf_count);
        let sequence = Run::new(record.sequence, record.leaf_count.checked_add(1)?);
        let endpoints = Run::new(
            view.leaves.first().map_or(0, |leaf| leaf.first_endpoint),
            u32::try_from(endpoint_count(&view.split)).ok()?,
        );
        let free = &mut self.free;
        if !free.splits.take_run(split) {
            return None;
        }
        if !free.leaves.take_run(leaves) {
            free.splits.give(split);
            return None;
        }
        if !free.endpoints.take_run(endpoints) {
            free.splits.give(split);
            free.leaves.give(leaves);
            return None;
        }
        if !free.sequence.take_run(sequence) {
            free.splits.give(split);
            free.leaves.give(leaves);
            free.endpoints.give(endpoints);
            return None;
        }
        for (leaf, counts) in view.split.leaves.iter().zip(&view.leaves) {
            let name = leaf_name(&view.split, &leaf.service);
            match self.leaf_ids.get_mut(&name) {
                Some(known) if known.id == counts.leaf_id => known.users += 1,
                // A second id for one leaf cannot come from a publisher; the leaf gets
                // its first id when its split is published next.
                Some(_) => {}
                None => {
                    if self.free.leaf_ids.take_run(Run::new(counts.leaf_id, 1)) {
                        self.leaf_ids.insert(
                            name,
                            LeafId {
                                id: counts.leaf_id,
                                users: 1,
                            },
                        );
                    }
                }
            }
        }
        Some(InForce {
            split: view.split.clone(),
            index: split.first,
            seed: record.seed,
            repeats: 0,
            sequence,
            leaves,
            endpoints,
        })
    }

    /// Removes names of what is not in force: an agent was killed before it could.
    fn remove_stale_names(&mut self) -> Result<(), MapsError> {
        let names = self
            .maps
            .frontend_names
            .keys()
            .collect::<Result<Vec<_>, _>>()
            .map_err(MapsError::access("list", "FRONTEND_NAMES"))?;
        let live: BTreeSet<KeyBytes> = self.in_force.keys().copied().map(key_bytes).collect();
        for key in names.iter().filter(|key| !live.contains(*key)) {
            let _ = self.maps.frontend_names.remove(key);
        }
        let ids = self
            .maps
            .leaf_names
            .keys()
            .collect::<Result<Vec<_>, _>>()
            .map_err(MapsError::access("list", "LEAF_NAMES"))?;
        let live: BTreeSet<u32> = self.leaf_ids.values().map(|leaf| leaf.id).collect();
        for id in ids.iter().filter(|id| !live.contains(*id)) {
            let _ = self.maps.leaf_names.remove(id);
        }
        Ok(())
    }

    /// Brings the maps to what the plan says. When it returns, every new connection is
    /// treated as planned; connections that were in the middle of connect() may still
    /// get what was in force before, until [`Self::settle`] returns.
    pub fn publish(&mut self, plan: &Plan, extent: Extent) -> Report {
        self.reclaim();
        let mut report = Report::default();
        if extent == Extent::Full {
            let gone: Vec<Frontend> = self
                .in_force
                .keys()
                .filter(|frontend| !plan.frontends.contains_key(frontend))
                .copied()
                .collect();
            for frontend in gone {
                match self.remove(frontend) {
                    Ok(()) => report.removed.push(frontend),
                    Err(error) => report.failed.push((frontend, error)),
                }
            }
        } else {
            report.kept.extend(
                self.in_force
                    .keys()
                    .filter(|frontend| !plan.frontends.contains_key(frontend)),
            );
        }
        for (frontend, split) in &plan.frontends {
            let old = self.in_force.get(frontend).map(|entry| &entry.split);
            if old.is_some_and(|old| same(old, split)) {
                continue;
            }
            if extent == Extent::Partial && old.is_some() && is_less(split) {
                report.kept.push(*frontend);
                continue;
            }
            let is_new = old.is_none();
            match self.put(*frontend, split) {
                Ok(generation) if is_new => report.added.push((*frontend, generation)),
                Ok(generation) => report.changed.push((*frontend, generation)),
                Err(error) => report.failed.push((*frontend, error)),
            }
        }
        self.retire();
        report
    }

    /// Blocks until no connection can get anything but what was last published. Takes
    /// some 10 ms.
    pub fn settle(&mut self) {
        self.retire();
        let ticket = self.grace.draw();
        self.grace.wait_for(ticket);
        self.reclaim();
    }

    /// Puts a split in force.
    fn put(&mut self, frontend: Frontend, split: &PlannedSplit) -> Result<u32, FrontendError> {
        let keeps_shares = self
            .in_force
            .get(&frontend)
            .is_some_and(|entry| same_shares(&entry.split, split));
        let allocation = match self.allocate(split, keeps_shares) {
            Ok(allocation) => allocation,
            Err(_) if !self.limbo.is_empty() || !self.retired.is_empty() => {
                // Slots are on their way back: wait for them rather than refuse.
                self.settle();
                self.allocate(split, keeps_shares)?
            }
            Err(error) => return Err(error),
        };
        let written = self.write(frontend, split, allocation);
        match written {
            Ok(generation) => Ok(generation),
            Err(error) => {
                self.give_back(allocation);
                Err(error)
            }
        }
    }

    fn allocate(
        &mut self,
        split: &PlannedSplit,
        keeps_shares: bool,
    ) -> Result<Allocation, FrontendError> {
        let leaves = split.leaves.len() as u32;
        let endpoints = endpoint_count(split).try_into().unwrap_or(u32::MAX);
        let free = &mut self.free;
        let full = |map, slots: &FreeSlots, needed, flag| FrontendError::Full {
            map,
            needed,
            free: slots.free(),
            flag,
        };
        let Some(split_run) = free.splits.take(1) else {
            return Err(full("SPLITS", &free.splits, 1, "--max-frontends"));
        };
        let Some(leaf_run) = free.leaves.take(leaves) else {
            free.splits.give(split_run);
            return Err(full("LEAVES", &free.leaves, leaves, "--max-leaves"));
        };
        let Some(endpoint_run) = free.endpoints.take(endpoints) else {
            free.splits.give(split_run);
            free.leaves.give(leaf_run);
            return Err(full(
                "ENDPOINTS",
                &free.endpoints,
                endpoints,
                "--max-endpoints",
            ));
        };
        let sequence = if keeps_shares {
            None
        } else {
            let Some(sequence) = free.sequence.take(leaves + 1) else {
                free.splits.give(split_run);
                free.leaves.give(leaf_run);
                free.endpoints.give(endpoint_run);
                return Err(full("SEQUENCE", &free.sequence, leaves + 1, "--max-leaves"));
            };
            Some(sequence)
        };
        Ok(Allocation {
            split: split_run,
            leaves: leaf_run,
            endpoints: endpoint_run,
            sequence,
        })
    }

    fn give_back(&mut self, allocation: Allocation) {
        self.free.splits.give(allocation.split);
        self.free.leaves.give(allocation.leaves);
        self.free.endpoints.give(allocation.endpoints);
        if let Some(sequence) = allocation.sequence {
            self.free.sequence.give(sequence);
        }
    }

    /// Writes the records of a split into free slots, and flips its frontend to them.
    fn write(
        &mut self,
        frontend: Frontend,
        split: &PlannedSplit,
        allocation: Allocation,
    ) -> Result<u32, FrontendError> {
        let old = self.in_force.get(&frontend);
        let old_sequence = old.map(|entry| (entry.sequence, entry.seed, entry.repeats));
        let same_object = old.is_some_and(|old| {
            old.split.origin.generation == split.origin.generation
                && old.split.origin.name == split.origin.name
        });
        let names_differ = old.is_none_or(|old| !same_names(&old.split, split));
        let leaf_ids = self.take_leaf_ids(split)?;

        let (sequence, seed, repeats) = match (allocation.sequence, old_sequence) {
            (None, Some(kept)) => kept,
            (fresh, before) => {
                let fresh = fresh.unwrap_or_default();
                for index in fresh.indexes() {
                    self.maps.sequence.clear(index);
                }
                let repeats = match before {
                    Some((_, _, repeats)) if same_object => repeats + 1,
                    _ => 0,
                };
                (fresh, seed(frontend, split, repeats), repeats)
            }
        };
        self.write_leaves(split, allocation, &leaf_ids);
        let size = split.leaves.iter().map(|leaf| leaf.share).sum();
        let lattice = Lattice::new(size, seed, self.node_fraction);
        let (verdict, reason) = match split.decision {
            Decision::Split => (Verdict::Split, Reason::None),
            Decision::Refuse(reason) => (Verdict::Refuse, reason),
            Decision::PassThrough(reason) => (Verdict::PassThrough, reason),
        };
        let generation = self.generation.wrapping_add(1);
        let record = SplitRecord {
            frontend: frontend.key(),
            generation,
            seed: lattice.seed,
            size: lattice.size,
            step: lattice.step,
            shift: lattice.shift,
            sequence: sequence.first,
            first_leaf: allocation.leaves.first,
            leaf_count: allocation.leaves.count,
            verdict,
            reason,
            padding: [0; 6],
        };
        self.maps.splits.write(allocation.split.first, &record);

        let flipped = self.flip(
            frontend,
            split,
            names_differ,
            FrontendValue {
                split: allocation.split.first,
                generation,
            },
        );
        if let Err(error) = flipped {
            self.release_leaf_ids(split);
            return Err(error.into());
        }
        self.generation = generation;
        let entry = InForce {
            split: split.clone(),
            index: allocation.split.first,
            seed: lattice.seed,
            repeats,
            sequence,
            leaves: allocation.leaves,
            endpoints: allocation.endpoints,
        };
        if let Some(old) = self.in_force.insert(frontend, entry) {
            self.put_out_of_force(&old, allocation.sequence.is_some());
        }
        Ok(generation)
    }

    /// The one word that puts a record in force, with the names that go with it.
    fn flip(
        &mut self,
        frontend: Frontend,
        split: &PlannedSplit,
        names_differ: bool,
        value: FrontendValue,
    ) -> Result<(), MapsError> {
        let key = key_bytes(frontend);
        if names_differ {
            let names = FrontendNames {
                namespace: write_text(&split.origin.namespace),
                root: write_text(&split.root),
                kind: write_text(split.origin.kind),
                name: write_text(&split.origin.name),
            };
            self.maps
                .frontend_names
                .insert(
                    key,
                    bytemuck::cast::<_, [u8; size_of::<FrontendNames>()]>(names),
                    0,
                )
                .map_err(MapsError::access("write", "FRONTEND_NAMES"))?;
        }
        self.maps
            .frontends
            .insert(key, bytemuck::cast::<_, u64>(value), 0)
            .map_err(MapsError::access("write", "FRONTENDS"))
    }

    fn write_leaves(&self, split: &PlannedSplit, allocation: Allocation, leaf_ids: &[u32]) {
        let mut end = 0;
        let mut endpoint_slots = allocation.endpoints.indexes();
        let mut first_endpoint = allocation.endpoints.first;
        for ((slot, leaf), &leaf_id) in allocation.leaves.indexes().zip(&split.leaves).zip(leaf_ids)
        {
            end += leaf.share;
            let endpoint_count = leaf.endpoints.len() as u32;
            self.maps.leaves.write(
                slot,
                &LeafRecord {
                    weight: leaf.weight,
                    end,
                    first_endpoint,
                    endpoint_count,
                    leaf_id,
                    state: leaf.state,
                    padding: [0; 7],
                },
            );
            first_endpoint += endpoint_count;
            for (endpoint, slot) in leaf.endpoints.iter().zip(&mut endpoint_slots) {
                self.maps
                    .endpoints
                    .write(slot, &endpoint_record(*endpoint, leaf_id));
            }
        }
    }

    /// Takes a frontend out of force.
    fn remove(&mut self, frontend: Frontend) -> Result<(), FrontendError> {
        let key = key_bytes(frontend);
        self.maps
            .frontends
            .remove(&key)
            .map_err(MapsError::access("remove from", "FRONTENDS"))?;
        // For people only; a name that is left over is removed by the next agent.
        let _ = self.maps.frontend_names.remove(&key);
        if let Some(old) = self.in_force.remove(&frontend) {
            self.put_out_of_force(&old, true);
        }
        Ok(())
    }

    /// Notes the slots of a split that nothing points at any more.
    fn put_out_of_force(&mut self, old: &InForce, with_sequence: bool) {
        self.retired.splits.push(Run::new(old.index, 1));
        self.retired.leaves.push(old.leaves);
        self.retired.endpoints.push(old.endpoints);
        if with_sequence {
            self.retired.sequence.push(old.sequence);
        }
        self.release_leaf_ids(&old.split);
    }

    /// Ids for the leaves of a split, in their order; counts one more user of each.
    fn take_leaf_ids(&mut self, split: &PlannedSplit) -> Result<Vec<u32>, FrontendError> {
        let mut ids = Vec::with_capacity(split.leaves.len());
        for (index, leaf) in split.leaves.iter().enumerate() {
            match self.take_leaf_id(leaf_name(split, &leaf.service)) {
                Ok(id) => ids.push(id),
                Err(error) => {
                    for leaf in split.leaves.iter().take(index) {
                        self.release_leaf_id(&leaf_name(split, &leaf.service));
                    }
                    return Err(error);
                }
            }
        }
        Ok(ids)
    }

    fn take_leaf_id(&mut self, name: LeafName) -> Result<u32, FrontendError> {
        if let Some(leaf) = self.leaf_ids.get_mut(&name) {
            leaf.users += 1;
            return Ok(leaf.id);
        }
        let Some(run) = self.free.leaf_ids.take(1) else {
            return Err(FrontendError::Full {
                map: "LEAF_STATS",
                needed: 1,
                free: 0,
                flag: "--max-leaves",
            });
        };
        let id = run.first;
        let (namespace, root, leaf) = &name;
        let names = LeafNames {
            namespace: write_text(namespace),
            root: write_text(root),
            leaf: write_text(leaf),
        };
        let written = self
            .maps
            .leaf_names
            .insert(
                id,
                bytemuck::cast::<_, [u8; size_of::<LeafNames>()]>(names),
                0,
            )
            .map_err(MapsError::access("write", "LEAF_NAMES"))
            .and_then(|()| self.clear_leaf_stats(id));
        if let Err(error) = written {
            self.free.leaf_ids.give(run);
            return Err(error.into());
        }
        self.leaf_ids.insert(name, LeafId { id, users: 1 });
        Ok(id)
    }

    fn clear_leaf_stats(&mut self, id: u32) -> Result<(), MapsError> {
        let zeros = aya::util::nr_cpus()
            .map_err(|(_, error)| error)
            .and_then(|cpus| aya::maps::PerCpuValues::try_from(vec![0; cpus]));
        let zeros = zeros.map_err(|source| MapsError::Map {
            name: "LEAF_STATS",
            source,
        })?;
        self.maps
            .leaf_stats
            .set(id, zeros, 0)
            .map_err(MapsError::access("write", "LEAF_STATS"))
    }

    fn release_leaf_ids(&mut self, split: &PlannedSplit) {
        for leaf in &split.leaves {
            self.release_leaf_id(&leaf_name(split, &leaf.service));
        }
    }

    fn release_leaf_id(&mut self, name: &LeafName) {
        let Some(leaf) = self.leaf_ids.get_mut(name) else {
            return;
        };
        leaf.users -= 1;
        if leaf.users == 0 {
            let id = leaf.id;
            self.leaf_ids.remove(name);
            let _ = self.maps.leaf_names.remove(&id);
            self.retired.leaf_ids.push(Run::new(id, 1));
        }
    }

    /// Hands what was put out of force to the thread that waits for grace periods.
    fn retire(&mut self) {
        if !self.retired.is_empty() {
            let ticket = self.grace.draw();
            self.limbo
                .push_back((ticket, std::mem::take(&mut self.retired)));
        }
    }

    /// Frees what has seen its grace period.
    fn reclaim(&mut self) {
        let done = self.grace.done();
        while let Some((ticket, _)) = self.limbo.front()
            && *ticket <= done
        {
            let Some((_, retired)) = self.limbo.pop_front() else {
                break;
            };
            let give = |slots: &mut FreeSlots, runs: Vec<Run>| {
                runs.into_iter().for_each(|run| slots.give(run));
            };
            for run in &retired.splits {
                for index in run.indexes() {
                    if let Some(mut record) = self.maps.splits.read(index) {
                        record.verdict = Verdict::Free;
                        self.maps.splits.write(index, &record);
                    }
                }
            }
            give(&mut self.free.splits, retired.splits);
            give(&mut self.free.leaves, retired.leaves);
            give(&mut self.free.endpoints, retired.endpoints);
            give(&mut self.free.sequence, retired.sequence);
            give(&mut self.free.leaf_ids, retired.leaf_ids);
        }
    }
}

/// The index of a split's record.
fn record_index(maps: &Maps, view: &SplitView) -> Option<u32> {
    let word = maps
        .frontends
        .get(&bytes_of_key(&view.record.frontend), 0)
        .ok()?;
    Some(bytemuck::cast::<_, FrontendValue>(word).split)
}

fn key_bytes(frontend: Frontend) -> KeyBytes {
    bytes_of_key(&frontend.key())
}

fn bytes_of_key(key: &splitter_common::layout::FrontendKey) -> KeyBytes {
    let mut bytes = [0; size_of::<KeyBytes>()];
    bytes.copy_from_slice(bytemuck::bytes_of(key));
    bytes
}

fn leaf_name(split: &PlannedSplit, service: &str) -> LeafName {
    (
        split.origin.namespace.clone(),
        split.root.clone(),
        service.to_owned(),
    )
}

fn endpoint_count(split: &PlannedSplit) -> usize {
    split.leaves.iter().map(|leaf| leaf.endpoints.len()).sum()
}

fn endpoint_record(endpoint: SocketAddr, leaf_id: u32) -> EndpointRecord {
    EndpointRecord {
        address: address::to_bytes(endpoint.ip()),
        leaf_id,
        port: endpoint.port(),
        padding: 0,
    }
}

/// Whether a split needs no change. The object's generation does not count: it moves
/// with every edit of the object, whether it matters here or not.
fn same(old: &PlannedSplit, new: &PlannedSplit) -> bool {
    same_names(old, new) && old.decision == new.decision && old.leaves == new.leaves
}

fn same_names(old: &PlannedSplit, new: &PlannedSplit) -> bool {
    old.root == new.root
        && old.origin.kind == new.origin.kind
        && old.origin.namespace == new.origin.namespace
        && old.origin.name == new.origin.name
}

/// Whether the same leaves have the same shares, so that counting goes on.
fn same_shares(old: &PlannedSplit, new: &PlannedSplit) -> bool {
    old.decision == new.decision
        && old.root == new.root
        && old.origin.namespace == new.origin.namespace
        && old.leaves.len() == new.leaves.len()
        && old
            .leaves
            .iter()
            .zip(&new.leaves)
            .all(|(old, new)| old.service == new.service && old.share == new.share)
}

/// Whether a split does less than its author asked for.
fn is_less(split: &PlannedSplit) -> bool {
    split.decision != Decision::Split || split.is_degraded()
}

/// The seed of a split's lattice: the same on every node that sees the same object in
/// the same state, and another after every change of shares.
fn seed(frontend: Frontend, split: &PlannedSplit, repeats: u64) -> u64 {
    let mut state = mix(repeats ^ split.origin.generation.cast_unsigned());
    let mut add = |bytes: &[u8]| {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            state = mix(state ^ u64::from_le_bytes(word));
        }
        state = mix(state ^ bytes.len() as u64);
    };
    add(bytemuck::bytes_of(&frontend.key()));
    add(split.origin.namespace.as_bytes());
    add(split.origin.name.as_bytes());
    for leaf in &split.leaves {
        add(leaf.service.as_bytes());
        add(&leaf.share.to_le_bytes());
    }
    state
}
