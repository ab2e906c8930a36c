//! The pods of this node, and which splits depend on who connects.
//!
//! Whether a split's record asks who connects is derived from what is programmed: it does while
//! there is a split of the same frontend for some clients, or while a pod of the node is never
//! split. So it cannot be forgotten, and costs nothing where neither is so. It is changed in
//! place, by a store to one byte of the record: while it is set without need, connections cost
//! a little more and nothing else.

use std::collections::BTreeMap;

use aya::maps::MapError;
use bytemuck::Zeroable;
use splitter_common::layout::{
    ClientNames, ClientRecord, ClientScope, MAX_CLIENTS, MAX_POD_LEVELS, PodLevels,
};

use crate::datapath::maps::{MapsError, is_not_found};
use crate::datapath::view::{client_names, write_text};
use crate::plan::{Decision, Frontend, FrontendPlan};

use super::publisher::Publisher;

/// A pod's cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodGroup {
    /// Its id, which is the inode number of its directory.
    pub id: u64,
    /// How many groups are above it, the root of the hierarchy included: never 0.
    pub level: u8,
}

/// Why a pod cannot be told apart. Its connections are treated like everyone's.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It is the root of the hierarchy.
    #[error("the root of the cgroup hierarchy is not a pod's cgroup")]
    Root,
    /// There are pods at too many levels.
    #[error(
        "pods' cgroups are at more than {MAX_POD_LEVELS} levels of the hierarchy; the one at \
         level {0} cannot be told apart"
    )]
    TooManyLevels(u8),
    /// The map is full.
    #[error("CLIENTS is full: it has room for {MAX_CLIENTS} pods of a node")]
    Full,
    /// The kernel refused.
    #[error(transparent)]
    Map(#[from] MapsError),
}

/// The pods that are known, and the frontends for some clients that are programmed.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// Pods, by the ids of their cgroups.
    pods: BTreeMap<u64, (u8, ClientScope)>,
    /// How many of them are at each level.
    levels: BTreeMap<u8, usize>,
    /// How many of them are never split.
    never_split: usize,
    /// For how many scopes there is a split of a frontend, which is here as that for everyone.
    scoped: BTreeMap<Frontend, usize>,
    names: BTreeMap<ClientScope, String>,
}

impl Clients {
    fn insert(&mut self, id: u64, level: u8, scope: ClientScope) {
        self.remove(id);
        self.pods.insert(id, (level, scope));
        *self.levels.entry(level).or_default() += 1;
        self.never_split += usize::from(scope == ClientScope::NEVER_SPLIT);
    }

    /// `false` if there is no such pod.
    fn remove(&mut self, id: u64) -> bool {
        let Some((level, scope)) = self.pods.remove(&id) else {
            return false;
        };
        if let Some(count) = self.levels.get_mut(&level) {
            *count -= 1;
            if *count == 0 {
                self.levels.remove(&level);
            }
        }
        self.never_split -= usize::from(scope == ClientScope::NEVER_SPLIT);
        true
    }
}

impl Publisher {
    /// Says whose connections those of a pod are: a scope's, everyone's
    /// ([`ClientScope::EVERYONE`]), or such that are never split
    /// ([`ClientScope::NEVER_SPLIT`]). In effect for every connect() that begins after this
    /// returns.
    ///
    /// # Errors
    ///
    /// If there is no room, or the kernel refuses; then nothing has changed.
    pub fn set_client(&mut self, pod: PodGroup, scope: ClientScope) -> Result<(), ClientError> {
        if pod.level == 0 {
            return Err(ClientError::Root);
        }
        if self.clients.pods.get(&pod.id) == Some(&(pod.level, scope)) {
            return Ok(());
        }
        let levels = &self.clients.levels;
        if !levels.contains_key(&pod.level) && levels.len() >= MAX_POD_LEVELS {
            return Err(ClientError::TooManyLevels(pod.level));
        }
        let record = ClientRecord {
            scope: scope.0,
            cgroup: lower_half(pod.id),
            level: pod.level.into(),
            padding: 0,
        };
        self.maps
            .clients
            .insert(pod.id, bytemuck::cast::<_, [u8; 16]>(record), 0)
            .map_err(|error| match &error {
                MapError::SyscallError(cause)
                    if cause.io_error.raw_os_error() == Some(libc::E2BIG) =>
                {
                    ClientError::Full
                }
                _ => MapsError::access("write", "CLIENTS")(error).into(),
            })?;
        let had_never_split = self.clients.never_split > 0;
        self.clients.insert(pod.id, pod.level, scope);
        self.pods_changed(had_never_split);
        Ok(())
    }

    /// Forgets a pod, whose cgroup is gone. `false` if it was not known.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn remove_client(&mut self, id: u64) -> Result<bool, ClientError> {
        match self.maps.clients.remove(&id) {
            Err(error) if !is_not_found(&error) => {
                return Err(MapsError::access("remove from", "CLIENTS")(error).into());
            }
            _ => {}
        }
        let had_never_split = self.clients.never_split > 0;
        let was_known = self.clients.remove(id);
        self.pods_changed(had_never_split);
        Ok(was_known)
    }

    /// Every pod that is known, with its scope.
    pub fn clients(&self) -> impl Iterator<Item = (PodGroup, ClientScope)> {
        let pods = self.clients.pods.iter();
        pods.map(|(&id, &(level, scope))| (PodGroup { id, level }, scope))
    }

    /// Names the scopes, for people: those that are missing are forgotten.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn name_scopes(
        &mut self,
        names: &BTreeMap<ClientScope, String>,
    ) -> Result<(), ClientError> {
        let gone: Vec<ClientScope> = self
            .clients
            .names
            .keys()
            .filter(|scope| !names.contains_key(scope))
            .copied()
            .collect();
        for scope in gone {
            // For people only; a name that is left over is removed by the next agent.
            let _ = self.maps.client_names.remove(&scope.0);
            self.clients.names.remove(&scope);
        }
        for (scope, name) in names {
            if self.clients.names.get(scope) == Some(name) {
                continue;
            }
            let record = ClientNames {
                clients: write_text(name),
            };
            self.maps
                .client_names
                .insert(
                    scope.0,
                    bytemuck::cast::<_, [u8; size_of::<ClientNames>()]>(record),
                    0,
                )
                .map_err(MapsError::access("write", "CLIENT_NAMES"))?;
            self.clients.names.insert(*scope, name.clone());
        }
        Ok(())
    }

    /// Whether the record of a frontend has to ask who connects.
    pub(super) fn asks_client(&self, frontend: Frontend, plan: &FrontendPlan) -> bool {
        // What passes through is the same for pods that are never split. The agent's own
        // frontend is for its own test, wherever it runs.
        let matters_to_never_split = !matches!(plan.decision, Decision::PassThrough(_));
        frontend.clients == ClientScope::EVERYONE
            && !plan.origin.is_self_test()
            && (self.clients.scoped.contains_key(&frontend)
                || self.clients.never_split > 0 && matters_to_never_split)
    }

    /// Notes that a frontend is programmed that was not.
    pub(super) fn scope_came(&mut self, frontend: Frontend) {
        if frontend.clients != ClientScope::EVERYONE {
            let everyone = frontend.for_everyone();
            *self.clients.scoped.entry(everyone).or_default() += 1;
            self.update_asking(everyone);
        }
    }

    /// Notes that a frontend is no longer programmed.
    pub(super) fn scope_went(&mut self, frontend: Frontend) {
        if frontend.clients == ClientScope::EVERYONE {
            return;
        }
        let everyone = frontend.for_everyone();
        if let Some(count) = self.clients.scoped.get_mut(&everyone) {
            *count -= 1;
            if *count == 0 {
                self.clients.scoped.remove(&everyone);
                self.update_asking(everyone);
            }
        }
    }

    /// Writes whether a record asks who connects, if that has changed.
    fn update_asking(&self, frontend: Frontend) {
        let Some(installed) = self.installed.get(&frontend) else {
            return;
        };
        let asks_client = self.asks_client(frontend, &installed.plan);
        let index = installed.slots.split.first;
        if let Some(mut record) = self.maps.splits.read(index)
            && record.asks_client != asks_client
        {
            record.asks_client = asks_client;
            // Every other word is written as it is, so that a program that reads the record at
            // this moment sees nothing else change.
            self.maps.splits.write(index, &record);
        }
    }

    /// Brings what follows from the pods up to date: the levels that they are at before the
    /// question who they are is asked.
    fn pods_changed(&self, had_never_split: bool) {
        let mut levels = PodLevels::zeroed();
        let in_use = self.clients.levels.keys().rev();
        for (to, level) in levels.levels.iter_mut().zip(in_use) {
            *to = *level;
        }
        self.maps.pod_levels.replace(0, levels);
        if had_never_split != (self.clients.never_split > 0) {
            self.update_all_asking();
        }
    }

    fn update_all_asking(&self) {
        for frontend in self.installed.keys() {
            if frontend.clients == ClientScope::EVERYONE {
                self.update_asking(*frontend);
            }
        }
    }

    /// Finds out which pods and scopes another agent left, and brings the records up to date: it
    /// may have been killed before it did.
    pub(super) fn recover_clients(&mut self) -> Result<(), MapsError> {
        let read = MapsError::access("list", "CLIENTS");
        let ids = self.maps.clients.keys().collect::<Result<Vec<_>, _>>();
        for id in ids.map_err(read)? {
            let Ok(bytes) = self.maps.clients.get(&id, 0) else {
                continue;
            };
            let record: ClientRecord = bytemuck::cast(bytes);
            let level = u8::try_from(record.level).ok().filter(|level| *level > 0);
            match level.filter(|_| record.cgroup == lower_half(id)) {
                Some(level) => self.clients.insert(id, level, ClientScope(record.scope)),
                None => {
                    tracing::warn!(id, ?record, "a pod in the maps is none; removing it");
                    let _ = self.maps.clients.remove(&id);
                }
            }
        }
        for frontend in self.installed.keys() {
            if frontend.clients != ClientScope::EVERYONE {
                let everyone = frontend.for_everyone();
                *self.clients.scoped.entry(everyone).or_default() += 1;
            }
        }
        self.clients.names = client_names(&self.maps)?;
        self.pods_changed(self.clients.never_split > 0);
        self.update_all_asking();
        Ok(())
    }
}

/// What a record says of its key.
fn lower_half(id: u64) -> u32 {
    id as u32
}
