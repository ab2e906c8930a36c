//! Writing a frontend's records, and removing them.
//!
//! A new record, its leaves and its endpoints are written into free slots, and then the
//! frontend's word is flipped to the new record, and that of the index. A connection is led by one of
//! them, and sees the old split or the new one, whole.

use std::net::SocketAddr;

use splitter_common::address;
use splitter_common::layout::{
    CounterPlace, CurrentRecord, EndpointRecord, FrontendNames, LeafRecord, SplitRecord,
};
use splitter_common::pick::Lattice;

use crate::datapath::maps::{Maps, MapsError, is_not_found, key_bytes};
use crate::datapath::view::write_text;
use crate::plan::{Frontend, FrontendPlan};

use super::allocation::{Allocation, Need, Owner};
use super::capacity::reserved;
use super::difference::{same_names, seed};
use super::leaf_ids::LeafId;
use super::publisher::{Installed, Publisher};
use super::summary::{Change, FrontendError};

impl Publisher {
    /// Installs a frontend, if there is room. Gives back the generation of its record.
    pub(super) fn install(
        &mut self,
        frontend: Frontend,
        plan: &FrontendPlan,
        change: Change,
    ) -> Result<u32, FrontendError> {
        let owner = Owner::of(plan);
        if owner == Owner::Object && change == Change::Added && !self.has_room_for_frontend() {
            return Err(FrontendError::Full {
                map: "FRONTENDS",
                needed: 1,
                free: 0,
                flag: "--max-frontends",
            });
        }
        let leaves = u32::try_from(plan.leaves.len()).unwrap_or(u32::MAX);
        let need = Need {
            current: u32::from(change == Change::Added),
            leaves,
            endpoints: plan.endpoint_count().try_into().unwrap_or(u32::MAX),
            counters: match change {
                Change::Endpoints => 0,
                Change::Added | Change::Shares => CounterPlace::records(leaves),
            },
        };
        let slots = self.free.take(need, owner)?;
        match self.leaf_ids.take(&mut self.maps, plan) {
            Ok(leaf_ids) => self
                .write(frontend, plan, slots, &leaf_ids)
                .inspect_err(|_| {
                    // No program has seen them, but a leaf's id may be another split's.
                    let unused = self.leaf_ids.release(&mut self.maps, plan);
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
        let limit = self.maps.frontend_slots.saturating_sub(reserved::FRONTENDS);
        self.installed.len() - self.own.len() < limit as usize
    }

    /// Writes the records of a split into free slots, and flips its frontend to them.
    fn write(
        &mut self,
        frontend: Frontend,
        plan: &FrontendPlan,
        slots: Allocation,
        leaf_ids: &[LeafId],
    ) -> Result<u32, MapsError> {
        let asks_client = self.asks_client(frontend, plan);
        let old = self.installed.get(&frontend);
        let current = old.map_or(slots.current, |old| old.slots.current);
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
                    .filter(|old| old.plan.origin == plan.origin)
                    .map_or(0, |old| old.repeats + 1);
                let size = plan.leaves.iter().map(|leaf| leaf.share).sum();
                let lattice = Lattice::new(size, seed(frontend, plan, repeats), self.node_fraction);
                (slots.counters, lattice, repeats)
            }
        };
        self.write_leaves(plan, slots, leaf_ids);
        let (verdict, reason) = plan.decision.into();
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
                asks_client,
                padding: 0,
            },
        );
        self.flip(
            frontend,
            plan,
            current.first,
            CurrentRecord {
                split: slots.split.first,
                generation,
            },
        )?;
        self.generation = generation;
        let entry = Installed {
            plan: plan.clone(),
            slots: Allocation {
                current,
                counters,
                ..slots
            },
            lattice,
            repeats,
        };
        if plan.origin.is_self_test() {
            self.own.insert(frontend);
        } else {
            self.own.remove(&frontend);
        }
        let replaced = self.installed.insert(frontend, entry);
        if replaced.is_none() {
            self.scope_came(frontend);
        }
        if let Some(mut old) = replaced {
            old.slots.current.count = 0;
            if keeps_counting {
                old.slots.counters.count = 0;
            }
            self.retire(&old);
        }
        Ok(generation)
    }

    /// Weights become map entries: each leaf's interval of the lattice's positions, and its
    /// endpoints.
    fn write_leaves(&self, plan: &FrontendPlan, slots: Allocation, leaf_ids: &[LeafId]) {
        let mut end = 0;
        let mut endpoint_slots = slots.endpoints.indexes();
        let mut first_endpoint = slots.endpoints.first;
        for ((slot, leaf), leaf_id) in slots.leaves.indexes().zip(&plan.leaves).zip(leaf_ids) {
            let LeafId {
                id: leaf_id,
                incarnation,
            } = *leaf_id;
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
                    incarnation,
                    state: leaf.state,
                    padding: [0; 3],
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

    /// Writes the words that program a record, and the names that go with it. That in `CURRENT` comes first: it
    /// is what the next agent believes.
    fn flip(
        &mut self,
        frontend: Frontend,
        plan: &FrontendPlan,
        current: u32,
        record: CurrentRecord,
    ) -> Result<(), MapsError> {
        let key = key_bytes(&frontend.key());
        let old = self.installed.get(&frontend).map(|old| &old.plan);
        if old.is_none_or(|old| !same_names(old, plan)) {
            write_names(&mut self.maps, frontend, plan)?;
        }
        self.maps.current.replace(current, record);
        if let Some(old) = self.installed.get(&frontend) {
            let split = old.slots.split.first;
            self.index
                .change(&self.maps.index, &frontend.key(), split, record.split);
            return Ok(());
        }
        let inserted = self
            .maps
            .frontends
            .insert(key, current, 0)
            .map_err(MapsError::access("write", "FRONTENDS"));
        if inserted.is_err() {
            // The names must be those of what is programmed.
            let _ = self.maps.frontend_names.remove(&key);
            return inserted;
        }
        self.index
            .add(&self.maps.index, &frontend.key(), record.split);
        inserted
    }

    /// Removes a frontend: connections to it are left alone.
    pub(super) fn remove(&mut self, frontend: Frontend) -> Result<(), FrontendError> {
        let key = key_bytes(&frontend.key());
        let installed = self.installed.get(&frontend);
        let split = installed.map(|installed| installed.slots.split.first);
        // First: an agent that ends here leaves a frontend that the next one finds. What only the index led
        // to would be free to it while programs may use it.
        if let Some(split) = split {
            self.index.remove(&self.maps.index, &frontend.key(), split);
        }
        match self.maps.frontends.remove(&key) {
            Err(error) if !is_not_found(&error) => {
                if let Some(split) = split {
                    self.index.add(&self.maps.index, &frontend.key(), split);
                }
                return Err(MapsError::access("remove from", "FRONTENDS")(error).into());
            }
            _ => {}
        }
        // For people only; a name that is left over is removed by the next agent.
        let _ = self.maps.frontend_names.remove(&key);
        if let Some(old) = self.installed.remove(&frontend) {
            self.own.remove(&frontend);
            self.freed += 1;
            self.retire(&old);
            self.scope_went(frontend);
        }
        Ok(())
    }
}

fn write_names(maps: &mut Maps, frontend: Frontend, plan: &FrontendPlan) -> Result<(), MapsError> {
    let names = FrontendNames {
        namespace: write_text(&plan.origin.namespace),
        root_namespace: write_text(&plan.root.namespace),
        root: write_text(&plan.root.name),
        kind: write_text(plan.origin.kind),
        name: write_text(&plan.origin.name),
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
