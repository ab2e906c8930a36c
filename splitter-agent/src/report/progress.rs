//! What the agent is doing, for health checks and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::objects::ObjectName;

/// How far the agent is; a handle that can be cloned.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    turned: Instant,
    queued: Option<Instant>,
    last_queued: Option<SystemTime>,
    last_published: Option<SystemTime>,
    publications: u64,
    changes: u64,
    durations: Vec<Duration>,
    failed: usize,
    attached: bool,
    synced: bool,
    programmed: BTreeMap<ObjectName, Programmed>,
}

/// Which generation of a TrafficSplit is in force on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Programmed {
    /// The generation that the source tells.
    pub seen: i64,
    /// The generation that was last brought to the maps, whatever it came to there (a
    /// refused one comes to no split); 0 before the first.
    pub programmed: i64,
}

/// What [`Progress`] says at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Time since the agent's loop last turned.
    pub since_turn: Duration,
    /// Age of the oldest change that is not in the maps yet; `None` if all are.
    pub oldest_queued: Option<Duration>,
    /// When a change last came in.
    pub last_queued: Option<SystemTime>,
    /// When the maps were last brought to what the source says.
    pub last_published: Option<SystemTime>,
    /// How often the maps were brought to what the source says.
    pub publications: u64,
    /// How many changes of objects came in.
    pub changes: u64,
    /// How many frontends could not be brought to what the source says.
    pub failed: usize,
    /// Whether the programs are attached.
    pub attached: bool,
    /// Whether everything that exists was read at least once and published.
    pub synced: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            turned: Instant::now(),
            queued: None,
            last_queued: None,
            last_published: None,
            publications: 0,
            changes: 0,
            durations: Vec::new(),
            failed: 0,
            attached: false,
            synced: false,
            programmed: BTreeMap::new(),
        })))
    }
}

impl Progress {
    /// The agent's loop is alive.
    pub fn turn(&self) {
        self.lock().turned = Instant::now();
    }

    /// Changes came in and wait to be published.
    pub fn queue(&self, changes: usize) {
        let mut inner = self.lock();
        inner.queued.get_or_insert_with(Instant::now);
        inner.last_queued = Some(SystemTime::now());
        inner.changes += changes as u64;
    }

    /// The maps were brought to what the source says, but for `failed` frontends; it took
    /// this long.
    pub fn publish(&self, took: Duration, failed: usize) {
        const MOST: usize = 100_000;
        let mut inner = self.lock();
        if failed == 0 {
            inner.queued = None;
        }
        inner.last_published = Some(SystemTime::now());
        inner.publications += 1;
        inner.failed = failed;
        if inner.durations.len() < MOST {
            inner.durations.push(took);
        }
    }

    /// Whether the programs are attached.
    pub fn set_attached(&self, attached: bool) {
        self.lock().attached = attached;
    }

    /// Everything was read and published once.
    pub fn set_synced(&self) {
        self.lock().synced = true;
    }

    /// Replaces what is known of some TrafficSplits; `None` for those that are gone. Where
    /// `programmed` is 0, the seen generation could not be brought to the maps, and
    /// what was programmed before still is.
    pub fn set_programmed(
        &self,
        splits: impl IntoIterator<Item = (ObjectName, Option<Programmed>)>,
    ) {
        let mut inner = self.lock();
        for (name, programmed) in splits {
            match programmed {
                Some(mut new) => {
                    if new.programmed == 0 {
                        let old = inner.programmed.get(&name);
                        new.programmed = old.map_or(0, |old| old.programmed);
                    }
                    inner.programmed.insert(name, new)
                }
                None => inner.programmed.remove(&name),
            };
        }
    }

    /// What is the case now.
    #[must_use]
    pub fn status(&self) -> Status {
        let inner = self.lock();
        Status {
            since_turn: inner.turned.elapsed(),
            oldest_queued: inner.queued.map(|queued| queued.elapsed()),
            last_queued: inner.last_queued,
            last_published: inner.last_published,
            publications: inner.publications,
            changes: inner.changes,
            failed: inner.failed,
            attached: inner.attached,
            synced: inner.synced,
        }
    }

    /// How long publications took since this was last asked.
    #[must_use]
    pub fn take_durations(&self) -> Vec<Duration> {
        std::mem::take(&mut self.lock().durations)
    }

    /// Every TrafficSplit and its generations.
    #[must_use]
    pub fn programmed(&self) -> BTreeMap<ObjectName, Programmed> {
        self.lock().programmed.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every write is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
