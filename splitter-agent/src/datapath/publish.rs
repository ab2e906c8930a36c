//! The publisher: brings the maps to what a plan says.
//!
//! For each frontend that differs: write a new record, its leaves and its endpoints into
//! free slots, then flip the frontend's one word to the new record. A connection sees
//! the old split or the new one, whole. What the old one used is free again after a
//! grace period, when no program that may have seen it still runs.
//!
//! Killed at any point, the maps are left valid: free slots are simply those that
//! nothing that is programmed points at, and the next publisher finds them so (see `recover`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use splitter_common::address;
use splitter_common::layout::{
    EndpointRecord, FrontendNames, FrontendValue, LeafRecord, SplitRecord, Verdict,
};
use splitter_common::pick::Lattice;

use crate::plan::{Frontend, FrontendPlan, Plan};

use super::allocation::{Allocation, Free, Need, Owner};
use super::difference::{is_less, loses_endpoints, same, same_names, same_shares, seed};
use super::grace::{GracePeriods, Ticket};
use super::leaf_ids::LeafIds;
use super::maps::{Access, Maps, MapsError, is_not_found, key_bytes, own};
use super::pins::PinDirectory;
use super::programs::Programs;
use super::report::{Change, Extent, FrontendError, PublishError, Put, Report};
use super::view::{View, write_text};

/// The owner of the maps.
pub struct Publisher {
    pub(super) maps: Maps,
    grace: GracePeriods,
    /// Part of a turn by which this node's lattices are shifted, in 1 / 2^32.
    node_fraction: u32,
    pub(super) generation: u32,
    pub(super) programmed: BTreeMap<Frontend, InstalledFrontend>,
    pub(super) leaf_ids: LeafIds,
    pub(super) free: Free,
    limbo: VecDeque<(Ticket, Retired)>,
    retired: Retired,
    /// Frontends of the agent's own among those programmed.
    pub(super) own: BTreeSet<Frontend>,
    freed: u64,
}

/// A programmed split, with the slots that it has.
#[derive(Debug)]
pub(super) struct InstalledFrontend {
    pub(super) split: FrontendPlan,
    pub(super) slots: Allocation,
    pub(super) lattice: Lattice,
    /// How often the shares were changed without a change of the object's generation.
    pub(super) repeats: u64,
}

/// What nothing points at any more, but a running program may still read.
#[derive(Debug, Default)]
struct Retired {
    slots: Vec<Allocation>,
    leaf_ids: Vec<u32>,
}

impl Publisher {
    /// Takes over the pinned maps that are at work. `node_fraction` is the part of a turn,
    /// in 1 / 2^32, by which this node's picks are shifted against other nodes'.
    ///
    /// # Errors
    ///
    /// If the maps cannot be opened.
    pub fn open(pins: &PinDirectory, node_fraction: u32) -> Result<Self, PublishError> {
        Self::take_over(Maps::at_work(pins, Access::Write)?, node_fraction)
    }

    /// The same with the maps of these programs. If they are to replace others, what is in
    /// force there is put into them first: so what is not known yet stays as it was, and a
    /// change of the capacity is a takeover like any other.
    ///
    /// # Errors
    ///
    /// If the maps cannot be opened.
    pub fn of(programs: &Programs, node_fraction: u32) -> Result<Self, PublishError> {
        let maps = Maps::open(programs.layout(), Access::Write)?;
        let mut publisher = Self::take_over(maps, node_fraction)?;
        if let Some(old) = programs.layout_to_replace().map_err(MapsError::from)? {
            match Maps::open(&old, Access::Read) {
                Ok(old) => publisher.carry_over(&old)?,
                // None are there, or their records are not ours: the source has to tell all.
                Err(MapsError::Absent(_) | MapsError::Shape { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(publisher)
    }

    /// Brings the maps to what is programmed in others.
    fn carry_over(&mut self, old: &Maps) -> Result<(), PublishError> {
        let programmed = View::read(old)?.frontends.into_iter();
        let frontends = programmed.map(|(frontend, view)| (frontend, view.split));
        let plan = Plan {
            frontends: frontends.collect(),
        };
        let report = self.publish(&plan, Extent::Full);
        tracing::info!(
            put = report.put.len(),
            failed = report.failed.len(),
            "filled new maps with what is programmed"
        );
        Ok(())
    }

    fn take_over(maps: Maps, node_fraction: u32) -> Result<Self, PublishError> {
        // The first grace period has passed when this returns: what an earlier agent
        // had just retired is free.
        let grace = GracePeriods::start().map_err(PublishError::Grace)?;
        let mut publisher = Self {
            free: Free::all(&maps),
            leaf_ids: LeafIds::new(&maps),
            maps,
            grace,
            node_fraction,
            generation: 0,
            programmed: BTreeMap::new(),
            limbo: VecDeque::new(),
            retired: Retired::default(),
            own: BTreeSet::new(),
            freed: 0,
        };
        if publisher.recover()? {
            // Something was retired just now.
            publisher.settle();
        }
        Ok(publisher)
    }

    /// What is programmed.
    pub fn programmed(&self) -> impl Iterator<Item = (&Frontend, &FrontendPlan)> {
        self.programmed
            .iter()
            .map(|(frontend, entry)| (frontend, &entry.split))
    }

    /// What is programmed at a frontend.
    #[must_use]
    pub fn split_at(&self, frontend: &Frontend) -> Option<&FrontendPlan> {
        self.programmed.get(frontend).map(|entry| &entry.split)
    }

    /// Brings the maps to what the plan says. When it returns, every new connection is
    /// treated as planned; connections that were in the middle of connect() may still
    /// get what was programmed before, until [`Self::settle`] returns.
    pub fn publish(&mut self, plan: &Plan, extent: Extent) -> Report {
        let frontends: BTreeSet<Frontend> = self
            .programmed
            .keys()
            .chain(plan.frontends.keys())
            .copied()
            .collect();
        self.publish_some(plan, &frontends, extent)
    }

    /// The same for some frontends; the others are left as they are.
    pub fn publish_some(
        &mut self,
        plan: &Plan,
        frontends: &BTreeSet<Frontend>,
        extent: Extent,
    ) -> Report {
        self.reclaim();
        let mut report = Report::default();
        let (planned, absent): (Vec<Frontend>, Vec<Frontend>) = frontends
            .iter()
            .partition(|frontend| plan.frontends.contains_key(frontend));
        // What goes, goes before anything comes.
        for frontend in absent {
            if !self.programmed.contains_key(&frontend) {
                continue;
            }
            if extent == Extent::Partial {
                report.kept.push(frontend);
                continue;
            }
            match self.remove(frontend) {
                Ok(()) => report.removed.push(frontend),
                Err(error) => report.failed.push((frontend, error)),
            }
        }
        let (mut losing, mut gaining) = (Vec::new(), Vec::new());
        for frontend in planned {
            let Some(split) = plan.frontends.get(&frontend) else {
                continue;
            };
            let old = self.programmed.get(&frontend).map(|entry| &entry.split);
            let change = match old {
                Some(old) if same(old, split) => continue,
                Some(old) if extent == Extent::Partial && is_less(old, split) => {
                    report.kept.push(frontend);
                    continue;
                }
                Some(old) if same_shares(old, split) => Change::Endpoints,
                Some(_) => Change::Shares,
                None => Change::Added,
            };
            if old.is_some_and(|old| loses_endpoints(old, split)) {
                losing.push((frontend, split, change));
            } else {
                gaining.push((frontend, split, change));
            }
        }
        losing.append(&mut gaining);
        self.put_all(losing, &mut report);
        self.start_grace_period();
        report
    }

    /// How often something was freed: while this stays the same, what did not fit does not
    /// fit.
    #[must_use]
    pub fn freed(&self) -> u64 {
        self.freed
    }

    /// Programs frontends, in this order. Those that do not fit while slots are on their
    /// way back are tried again when these are there: waiting is for all at once, since it
    /// takes some 10 ms.
    fn put_all(&mut self, splits: Vec<(Frontend, &FrontendPlan, Change)>, report: &mut Report) {
        const ROUNDS: u32 = 3;
        let mut pending = splits;
        for round in 1..=ROUNDS {
            let mut full = Vec::new();
            for (frontend, split, change) in pending {
                match self.try_put(frontend, split, change) {
                    Ok(generation) => report.put.push(Put {
                        frontend,
                        generation,
                        change,
                    }),
                    Err(error @ FrontendError::Full { .. }) => {
                        full.push(((frontend, split, change), error));
                    }
                    Err(error) => report.failed.push((frontend, error)),
                }
            }
            if full.is_empty() {
                return;
            }
            if round == ROUNDS || !self.has_slots_in_limbo() {
                let failed = full.into_iter().map(|(put, error)| (put.0, error));
                report.failed.extend(failed);
                return;
            }
            self.settle();
            pending = full.into_iter().map(|(put, _)| put).collect();
        }
    }

    /// Blocks until no connection can get anything but what was last published. Takes
    /// some 10 ms. `false` if the kernel refused to wait, so that this is not known.
    pub fn settle(&mut self) -> bool {
        self.start_grace_period();
        let ticket = self.grace.draw();
        let settled = self.grace.wait_for(ticket);
        self.reclaim();
        settled
    }

    /// Marks records as free that are retired and have seen their grace period. The
    /// next publication does so too; this is for whoever reads the maps meanwhile. `true`
    /// if some still wait.
    pub fn tidy(&mut self) -> bool {
        self.reclaim();
        self.has_slots_in_limbo()
    }

    fn has_slots_in_limbo(&self) -> bool {
        !self.limbo.is_empty() || !self.retired.slots.is_empty()
    }

    /// Programs a frontend, if there is room.
    fn try_put(
        &mut self,
        frontend: Frontend,
        split: &FrontendPlan,
        change: Change,
    ) -> Result<u32, FrontendError> {
        let owner = Owner::of(split);
        if owner == Owner::Object && change == Change::Added && !self.has_room_for_frontend() {
            return Err(FrontendError::Full {
                map: "FRONTENDS",
                needed: 1,
                free: 0,
                flag: "--max-frontends",
            });
        }
        let leaves = u32::try_from(split.leaves.len()).unwrap_or(u32::MAX);
        let need = Need {
            leaves,
            endpoints: split.endpoint_count().try_into().unwrap_or(u32::MAX),
            counters: match change {
                Change::Endpoints => 0,
                Change::Added | Change::Shares => leaves.saturating_add(1),
            },
        };
        let slots = self.free.take(need, owner)?;
        match self.leaf_ids.take(&mut self.maps, split) {
            Ok(leaf_ids) => self
                .write(frontend, split, slots, &leaf_ids)
                .inspect_err(|_| {
                    // No program has seen them, but a leaf's id may be another split's.
                    let unused = self.leaf_ids.release(&mut self.maps, split);
                    self.retired.leaf_ids.extend(unused);
                    self.free.give(slots);
                })
                .map_err(FrontendError::from),
            Err(error) => {
                self.free.give(slots);
                Err(error)
            }
        }
    }

    /// Whether an object's frontend fits, besides those of the agent's own.
    fn has_room_for_frontend(&self) -> bool {
        let limit = self.maps.frontend_slots.saturating_sub(own::FRONTENDS);
        self.programmed.len() - self.own.len() < limit as usize
    }

    /// Writes the records of a split into free slots, and flips its frontend to them.
    fn write(
        &mut self,
        frontend: Frontend,
        split: &FrontendPlan,
        slots: Allocation,
        leaf_ids: &[u32],
    ) -> Result<u32, MapsError> {
        let old = self.programmed.get(&frontend);
        let keeps_counting = slots.counters.count == 0;
        let (counters, lattice, repeats) = match old {
            // The lattice as well as the counters: a block that has begun must end as it
            // began, whatever this agent would choose for a new one.
            Some(old) if keeps_counting => (old.slots.counters, old.lattice, old.repeats),
            _ => {
                for index in slots.counters.indexes() {
                    self.maps.counters.clear(index);
                }
                let repeats = old
                    .filter(|old| old.split.origin == split.origin)
                    .map_or(0, |old| old.repeats + 1);
                let size = split.leaves.iter().map(|leaf| leaf.share).sum();
                let lattice =
                    Lattice::new(size, seed(frontend, split, repeats), self.node_fraction);
                (slots.counters, lattice, repeats)
            }
        };
        self.write_leaves(split, slots, leaf_ids);
        let (verdict, reason) = split.decision.into();
        let generation = self.generation.wrapping_add(1);
        self.maps.splits.write(
            slots.split.first,
            &SplitRecord {
                frontend: frontend.key(),
                generation,
                seed: lattice.seed,
                size: lattice.size,
                step: lattice.step,
                shift: lattice.shift,
                first_counter: counters.first,
                first_leaf: slots.leaves.first,
                leaf_count: slots.leaves.count,
                verdict,
                reason,
                padding: [0; 6],
            },
        );
        self.flip(
            frontend,
            split,
            FrontendValue {
                split: slots.split.first,
                generation,
            },
        )?;
        self.generation = generation;
        let entry = InstalledFrontend {
            split: split.clone(),
            slots: Allocation { counters, ..slots },
            lattice,
            repeats,
        };
        if split.origin.is_self_test() {
            self.own.insert(frontend);
        } else {
            self.own.remove(&frontend);
        }
        if let Some(mut old) = self.programmed.insert(frontend, entry) {
            if keeps_counting {
                old.slots.counters.count = 0;
            }
            self.retire(&old);
        }
        Ok(generation)
    }

    /// Here weights become map entries: each leaf's interval of the lattice's positions,
    /// and its endpoints.
    fn write_leaves(&self, split: &FrontendPlan, slots: Allocation, leaf_ids: &[u32]) {
        let mut end = 0;
        let mut endpoint_slots = slots.endpoints.indexes();
        let mut first_endpoint = slots.endpoints.first;
        for ((slot, leaf), &leaf_id) in slots.leaves.indexes().zip(&split.leaves).zip(leaf_ids) {
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

    /// Writes the one word that programs a record, and the names that go with it.
    fn flip(
        &mut self,
        frontend: Frontend,
        split: &FrontendPlan,
        value: FrontendValue,
    ) -> Result<(), MapsError> {
        let key = key_bytes(&frontend.key());
        let old = self.programmed.get(&frontend).map(|old| &old.split);
        if old.is_none_or(|old| !same_names(old, split)) {
            write_names(&mut self.maps, frontend, split)?;
        }
        let flipped = self
            .maps
            .frontends
            .insert(key, bytemuck::cast::<_, u64>(value), 0)
            .map_err(MapsError::access("write", "FRONTENDS"));
        if flipped.is_err() {
            // The names must be those of what is programmed. If this fails too, they are
            // put right when the frontend is published next.
            let _ = match self.programmed.get(&frontend) {
                Some(old) => {
                    let old = old.split.clone();
                    write_names(&mut self.maps, frontend, &old)
                }
                None => self
                    .maps
                    .frontend_names
                    .remove(&key)
                    .map_err(MapsError::access("remove from", "FRONTEND_NAMES")),
            };
        }
        flipped
    }

    /// Takes a frontend retired.
    fn remove(&mut self, frontend: Frontend) -> Result<(), FrontendError> {
        let key = key_bytes(&frontend.key());
        match self.maps.frontends.remove(&key) {
            Err(error) if !is_not_found(&error) => {
                return Err(MapsError::access("remove from", "FRONTENDS")(error).into());
            }
            _ => {}
        }
        // For people only; a name that is left over is removed by the next agent.
        let _ = self.maps.frontend_names.remove(&key);
        if let Some(old) = self.programmed.remove(&frontend) {
            self.own.remove(&frontend);
            self.freed += 1;
            self.retire(&old);
        }
        Ok(())
    }

    /// Notes what nothing points at any more.
    fn retire(&mut self, old: &InstalledFrontend) {
        self.retired.slots.push(old.slots);
        let unused = self.leaf_ids.release(&mut self.maps, &old.split);
        self.retired.leaf_ids.extend(unused);
    }

    /// Hands what was retired to the thread that waits for grace periods.
    fn start_grace_period(&mut self) {
        if !self.retired.slots.is_empty() || !self.retired.leaf_ids.is_empty() {
            let ticket = self.grace.draw();
            self.limbo
                .push_back((ticket, std::mem::take(&mut self.retired)));
        }
    }

    /// Frees what has seen its grace period.
    fn reclaim(&mut self) {
        let done = self.grace.done();
        while self
            .limbo
            .front()
            .is_some_and(|(ticket, _)| *ticket <= done)
        {
            let Some((_, retired)) = self.limbo.pop_front() else {
                break;
            };
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
                self.leaf_ids.give(id);
            }
        }
    }
}

fn write_names(maps: &mut Maps, frontend: Frontend, split: &FrontendPlan) -> Result<(), MapsError> {
    let names = FrontendNames {
        namespace: write_text(&split.origin.namespace),
        root: write_text(&split.root),
        kind: write_text(split.origin.kind),
        name: write_text(&split.origin.name),
    };
    maps.frontend_names
        .insert(
            key_bytes(&frontend.key()),
            bytemuck::cast::<_, [u8; size_of::<FrontendNames>()]>(names),
            0,
        )
        .map_err(MapsError::access("write", "FRONTEND_NAMES"))
}

fn endpoint_record(endpoint: SocketAddr, leaf_id: u32) -> EndpointRecord {
    EndpointRecord {
        address: address::to_bytes(endpoint.ip()),
        leaf_id,
        port: endpoint.port(),
        padding: 0,
    }
}
