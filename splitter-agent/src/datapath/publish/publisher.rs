//! The publisher: brings the maps to what a plan says.
//!
//! Killed at any point, it leaves valid maps: free slots are simply those that nothing
//! programmed points at, and the next publisher finds them so (see `recover`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use splitter_common::pick::Lattice;

use crate::datapath::load::{PinDirectory, Programs};
use crate::datapath::maps::{Access, Maps, MapsError};
use crate::datapath::view::View;
use crate::objects::ObjectName;
use crate::plan::{Frontend, FrontendPlan, Plan};

use super::allocation::{Allocation, Free};
use super::clients::Clients;
use super::difference::{loses_endpoints, same, same_shares};
use super::grace::{GracePeriod, GracePeriods};
use super::index::Index;
use super::leaf_ids::LeafIds;
use super::reclaim::RetiredSlots;
use super::summary::{Change, FrontendError, InstalledFrontend, PublishError, PublishSummary};

/// The owner of the maps.
pub struct Publisher {
    pub(super) maps: Maps,
    pub(super) grace: GracePeriods,
    /// Part of a turn by which this node's lattices are shifted, in 1 / 2^32.
    pub(super) node_fraction: u32,
    pub(super) generation: u32,
    pub(super) installed: BTreeMap<Frontend, Installed>,
    pub(super) index: Index,
    pub(super) leaf_ids: LeafIds,
    pub(super) free: Free,
    /// What waits for a grace period to complete.
    pub(super) pending_reclaim: VecDeque<(GracePeriod, RetiredSlots)>,
    /// What was retired since the last grace period was started.
    pub(super) retired: RetiredSlots,
    /// Frontends of the agent's own among those installed.
    pub(super) own: BTreeSet<Frontend>,
    pub(super) clients: Clients,
    /// The names of pods that the maps have, by the ids of their cgroups.
    pub(super) pod_names: BTreeMap<u64, ObjectName>,
    pub(super) freed: u64,
}

/// A programmed frontend, with the slots that it has.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) plan: FrontendPlan,
    pub(super) slots: Allocation,
    pub(super) lattice: Lattice,
    /// How often the shares were changed without a change of the object's generation.
    pub(super) repeats: u64,
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

    /// Takes over the maps of these programs. If they are to replace others, what is programmed
    /// in those is written to them first: so what is not known yet stays as it was, and a
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
        let frontends = View::read(old)?.frontends.into_iter();
        let plan = Plan {
            frontends: frontends
                .map(|(frontend, view)| (frontend, view.plan))
                .collect(),
        };
        let summary = self.publish(&plan);
        tracing::info!(
            installed = summary.installed.len(),
            failed = summary.failed.len(),
            "filled new maps with what is programmed"
        );
        Ok(())
    }

    fn take_over(maps: Maps, node_fraction: u32) -> Result<Self, PublishError> {
        // The first grace period has passed when this returns: what an earlier agent
        // had just retired is free.
        let grace = GracePeriods::spawn().map_err(PublishError::Grace)?;
        let mut publisher = Self {
            free: Free::all(&maps),
            leaf_ids: LeafIds::new(&maps),
            maps,
            grace,
            node_fraction,
            generation: 0,
            installed: BTreeMap::new(),
            index: Index::default(),
            pending_reclaim: VecDeque::new(),
            retired: RetiredSlots::default(),
            own: BTreeSet::new(),
            clients: Clients::default(),
            pod_names: BTreeMap::new(),
            freed: 0,
        };
        if publisher.recover()? && !publisher.synchronize() {
            let error =
                "a program may still use what is free, and the kernel refuses to wait for it";
            return Err(PublishError::Grace(io::Error::other(error)));
        }
        Ok(publisher)
    }

    /// What is programmed.
    pub fn programmed(&self) -> impl Iterator<Item = (&Frontend, &FrontendPlan)> {
        self.installed
            .iter()
            .map(|(frontend, installed)| (frontend, &installed.plan))
    }

    /// What is programmed at a frontend.
    #[must_use]
    pub fn programmed_at(&self, frontend: &Frontend) -> Option<&FrontendPlan> {
        self.installed
            .get(frontend)
            .map(|installed| &installed.plan)
    }

    /// How often something was freed: while this stays the same, what did not fit does not
    /// fit.
    #[must_use]
    pub fn freed(&self) -> u64 {
        self.freed
    }

    /// Brings the maps to what the plan says. When it returns, every new connection is
    /// treated as planned; connections that were in the middle of connect() may still
    /// get what was programmed before, until [`Self::synchronize`] returns.
    pub fn publish(&mut self, plan: &Plan) -> PublishSummary {
        let frontends: BTreeSet<Frontend> = self
            .installed
            .keys()
            .chain(plan.frontends.keys())
            .copied()
            .collect();
        self.publish_some(plan, &frontends)
    }

    /// Brings these frontends to what the plan says, as [`Self::publish`] does: those that it
    /// lacks are removed.
    pub fn publish_some(&mut self, plan: &Plan, frontends: &BTreeSet<Frontend>) -> PublishSummary {
        self.reclaim_completed();
        let mut summary = PublishSummary::default();
        let (planned, absent): (Vec<Frontend>, Vec<Frontend>) = frontends
            .iter()
            .partition(|frontend| plan.frontends.contains_key(frontend));
        // What goes, goes before anything comes.
        for frontend in absent {
            if !self.installed.contains_key(&frontend) {
                continue;
            }
            match self.remove(frontend) {
                Ok(()) => summary.removed.push(frontend),
                Err(error) => summary.failed.push((frontend, error)),
            }
        }
        let (mut losing, mut gaining) = (Vec::new(), Vec::new());
        for frontend in planned {
            let Some(new) = plan.frontends.get(&frontend) else {
                continue;
            };
            let old = self.programmed_at(&frontend);
            let change = match old {
                Some(old) if same(old, new) => continue,
                Some(old) if same_shares(old, new) => Change::Endpoints,
                Some(_) => Change::Shares,
                None => Change::Added,
            };
            if old.is_some_and(|old| loses_endpoints(old, new)) {
                losing.push((frontend, new, change));
            } else {
                gaining.push((frontend, new, change));
            }
        }
        losing.append(&mut gaining);
        self.install_all(losing, &mut summary);
        self.start_grace_period();
        summary
    }

    /// Installs frontends, in this order. Those that do not fit while slots are pending reclaim
    /// are tried again when these are free: waiting is for all at once, since it takes some
    /// 10 ms.
    fn install_all(
        &mut self,
        changes: Vec<(Frontend, &FrontendPlan, Change)>,
        summary: &mut PublishSummary,
    ) {
        const MAX_ROUNDS: u32 = 3;
        let mut pending = changes;
        for round in 1..=MAX_ROUNDS {
            let mut full = Vec::new();
            for (frontend, plan, change) in pending {
                match self.install(frontend, plan, change) {
                    Ok(generation) => summary.installed.push(InstalledFrontend {
                        frontend,
                        generation,
                        change,
                    }),
                    Err(error @ FrontendError::Full { .. }) => {
                        full.push(((frontend, plan, change), error));
                    }
                    Err(error) => summary.failed.push((frontend, error)),
                }
            }
            if full.is_empty() {
                return;
            }
            if round == MAX_ROUNDS || !self.has_pending_reclaim() {
                let failed = full.into_iter().map(|(change, error)| (change.0, error));
                summary.failed.extend(failed);
                return;
            }
            self.synchronize();
            pending = full.into_iter().map(|(change, _)| change).collect();
        }
    }
}
