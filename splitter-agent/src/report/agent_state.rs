//! What the agent is doing, for health checks and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::watch;

use crate::compile::{Kinds, Knowledge};
use crate::objects::{Kind, ObjectReference};

use super::places::Places;

/// How far the agent is; a handle that can be cloned.
#[derive(Clone, Debug)]
pub struct AgentState(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    attached: watch::Sender<bool>,
    durations: Histogram,
}

#[derive(Debug)]
struct Inner {
    started: Instant,
    turned: Option<Instant>,
    queued: Option<Instant>,
    last_queued: Option<SystemTime>,
    last_published: Option<SystemTime>,
    publications: u64,
    changes: u64,
    compilations: u64,
    failed: usize,
    failing: Option<Instant>,
    attached: bool,
    attached_changed: Instant,
    places: Places,
    /// Since when the programs are not in every place where they should be.
    misplaced: Option<Instant>,
    synced: bool,
    knowledge: BTreeMap<Kind, Knowledge>,
    held: BTreeMap<Kind, usize>,
    programmed: BTreeMap<ObjectReference, Programmed>,
}

/// Which generation of an object that asks for splits is programmed on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Programmed {
    /// The generation that the source tells.
    pub seen: i64,
    /// The generation that was last brought to the maps, whatever it came to there (a
    /// refused one comes to no split); 0 before the first.
    pub programmed: i64,
}

/// The generations of objects that ask for splits at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generations {
    /// How many objects there are.
    pub splits: usize,
    /// How many of them are not programmed as they were last seen.
    pub stale: usize,
    /// Those, and the ones that were asked for, by name.
    pub chosen: Vec<(ObjectReference, Programmed)>,
}

/// What [`AgentState`] says at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSnapshot {
    /// Time since the agent started.
    pub age: Duration,
    /// Time since the agent's loop last turned; zero before the first time, when the agent
    /// may be waiting for its predecessor or its source.
    pub since_turn: Duration,
    /// Age of the oldest change that no publication has taken up yet; `None` if there is none.
    /// [`Self::failed`] has what a publication could not bring to the maps.
    pub oldest_queued: Option<Duration>,
    /// When a change last came in.
    pub last_queued: Option<SystemTime>,
    /// When the maps were last brought to what the source says.
    pub last_published: Option<SystemTime>,
    /// How often the maps were brought to what the source says.
    pub publications: u64,
    /// How many changes of objects came in.
    pub changes: u64,
    /// How many times a root was compiled for them.
    pub compilations: u64,
    /// How many frontends could not be brought to what the source says.
    pub failed: usize,
    /// For how long publications have been failing; `None` if the last one did not.
    pub failing: Option<Duration>,
    /// Whether the programs are attached.
    pub attached: bool,
    /// For how long they have been, or have not been, attached.
    pub attached_for: Duration,
    /// Where the programs should be.
    pub places: Places,
    /// For how long they have not been in all of these places; `None` if they are.
    pub misplaced_for: Option<Duration>,
    /// Whether everything that exists was read at least once and published.
    pub synced: bool,
    /// Kinds of objects that are not followed at present.
    pub unfollowed: Kinds,
    /// Frontends that are held back until a kind is followed, by kind; every kind is there.
    pub held: BTreeMap<Kind, usize>,
}

impl Default for AgentState {
    fn default() -> Self {
        let now = Instant::now();
        Self(Arc::new(Shared {
            inner: Mutex::new(Inner {
                started: now,
                turned: None,
                queued: None,
                last_queued: None,
                last_published: None,
                publications: 0,
                changes: 0,
                compilations: 0,
                failed: 0,
                failing: None,
                attached: false,
                attached_changed: now,
                places: Places::default(),
                misplaced: None,
                synced: false,
                knowledge: BTreeMap::new(),
                held: no_frontends(),
                programmed: BTreeMap::new(),
            }),
            attached: watch::Sender::new(false),
            // 0.1 ms to 6.6 s.
            durations: Histogram::new(exponential_buckets(0.0001, 2.0, 17)),
        }))
    }
}

impl AgentState {
    /// The agent's loop is alive.
    pub fn turn(&self) {
        self.lock().turned = Some(Instant::now());
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
    ///
    /// Takes up every change that was queued before, failed ones too: that a map is full is
    /// told by the metrics and the log, and no restart of the agent would help.
    pub fn publish(&self, took: Duration, failed: usize) {
        let mut inner = self.lock();
        inner.queued = None;
        inner.last_published = Some(SystemTime::now());
        inner.publications += 1;
        inner.failed = failed;
        inner.failing = match inner.failing {
            _ if failed == 0 => None,
            None => Some(Instant::now()),
            since => since,
        };
        drop(inner);
        self.0.durations.observe(took.as_secs_f64());
    }

    /// Whether the programs are attached. May be said as often as it is looked at.
    pub fn set_attached(&self, attached: bool) {
        {
            let mut inner = self.lock();
            if inner.attached != attached {
                inner.attached = attached;
                inner.attached_changed = Instant::now();
            }
        }
        self.0.attached.send_if_modified(|present| {
            let changed = *present != attached;
            *present = attached;
            changed
        });
    }

    /// Where the programs should be, and what keeps them from there.
    pub fn set_places(&self, places: Places) {
        let mut inner = self.lock();
        inner.misplaced = match inner.misplaced {
            _ if places.problems().next().is_none() => None,
            None => Some(Instant::now()),
            since => since,
        };
        inner.places = places;
    }

    /// What [`Self::set_places`] was last told.
    #[must_use]
    pub fn places(&self) -> Places {
        self.lock().places.clone()
    }

    /// Tells when the programs are attached or no longer are.
    #[must_use]
    pub fn attached(&self) -> watch::Receiver<bool> {
        self.0.attached.subscribe()
    }

    /// Everything was read and published once.
    pub fn set_synced(&self) {
        self.lock().synced = true;
    }

    /// From now on this much is known of a kind of objects; `true` if that is more than before.
    pub fn set_knowledge(&self, kind: Kind, knowledge: Knowledge) -> bool {
        let before = self.lock().knowledge.insert(kind, knowledge);
        before.is_some_and(|before| knowledge > before)
    }

    /// How many frontends are held back for want of each kind; none for those that are not named.
    pub fn set_held(&self, by_kind: impl IntoIterator<Item = (Kind, usize)>) {
        let mut held = no_frontends();
        held.extend(by_kind);
        self.lock().held = held;
    }

    /// How many times a root was compiled until now.
    pub fn set_compilations(&self, compilations: u64) {
        self.lock().compilations = compilations;
    }

    /// Replaces what is known of some objects; `None` for those that are gone. Where
    /// `programmed` is 0, the seen generation could not be brought to the maps, and
    /// what was programmed before still is.
    pub fn set_programmed(
        &self,
        splits: impl IntoIterator<Item = (ObjectReference, Option<Programmed>)>,
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
    pub fn snapshot(&self) -> AgentSnapshot {
        let inner = self.lock();
        AgentSnapshot {
            age: inner.started.elapsed(),
            since_turn: inner
                .turned
                .map_or(Duration::ZERO, |turned| turned.elapsed()),
            oldest_queued: inner.queued.map(|queued| queued.elapsed()),
            last_queued: inner.last_queued,
            last_published: inner.last_published,
            publications: inner.publications,
            changes: inner.changes,
            compilations: inner.compilations,
            failed: inner.failed,
            failing: inner.failing.map(|since| since.elapsed()),
            attached: inner.attached,
            attached_for: inner.attached_changed.elapsed(),
            places: inner.places.clone(),
            misplaced_for: inner.misplaced.map(|since| since.elapsed()),
            synced: inner.synced,
            unfollowed: inner
                .knowledge
                .iter()
                .filter(|(_, knowledge)| **knowledge != Knowledge::Followed)
                .map(|(kind, _)| *kind)
                // Of what is followed only in part, that something waits for it is what matters.
                .chain(held_for(&inner.held))
                .collect(),
            held: inner.held.clone(),
        }
    }

    /// How long publications took, in seconds: a handle to the histogram itself.
    #[must_use]
    pub fn durations(&self) -> Histogram {
        self.0.durations.clone()
    }

    /// The generations of the objects that are chosen, and of all that are not
    /// programmed as they were last seen; no publication waits for long, so be quick.
    pub fn programmed(&self, is_chosen: impl Fn(&ObjectReference) -> bool) -> Generations {
        let inner = self.lock();
        let mut generations = Generations {
            splits: inner.programmed.len(),
            ..Generations::default()
        };
        for (name, programmed) in &inner.programmed {
            let is_stale = programmed.seen != programmed.programmed;
            generations.stale += usize::from(is_stale);
            if is_stale || is_chosen(name) {
                generations.chosen.push((name.clone(), *programmed));
            }
        }
        generations
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every write is whole.
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kinds that frontends wait for.
fn held_for(held: &BTreeMap<Kind, usize>) -> impl Iterator<Item = Kind> {
    held.iter()
        .filter(|(_, count)| **count > 0)
        .map(|(kind, _)| *kind)
}

/// Every kind that frontends may wait for, with no frontend.
fn no_frontends() -> BTreeMap<Kind, usize> {
    Kind::followed().map(|kind| (kind, 0)).collect()
}
