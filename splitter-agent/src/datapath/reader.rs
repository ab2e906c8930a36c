//! What is programmed, read again and again, as metrics do.
//!
//! A [`View`](super::View) asks the kernel some ten things about each frontend. That is fine for a
//! command; every few seconds, for ten thousand splits on each node, it is not. Between two
//! readings little changes, so a [`Reader`] keeps the maps open and what it read:
//!
//! - one batch of system calls lists all frontends, and mapped memory tells which record each leads
//!   to. Records are immutable while one leads to them, so that only those that are other ones are
//!   read again;
//! - connections of a leaf since its shares were last changed are in mapped memory. Its counter over
//!   all changes is asked for only where those have grown.

use std::collections::{BTreeMap, HashMap};

use aya::maps::MapInfo;
use splitter_common::layout::{CounterPlace, CurrentRecord, FrontendKey, LeafState};

use crate::objects::{ObjectName, ObjectReference};
use crate::plan::Decision;

use super::load::{PinDirectory, SOCKETS};
use super::maps::{Access, KeyBytes, Maps, MapsError};
use super::outcomes::OutcomeCounts;
use super::sockets::{SocketUse, Sockets};
use super::sys::maps::Position;
use super::view::{Entries, FrontendView, MapUse, Read, confirmed, read_split, verdicts};

/// Frontends that are asked for at once.
const BATCH: usize = 4096;

/// Reads what is programmed, again and again.
#[derive(Debug)]
pub struct Reader {
    pins: PinDirectory,
    open: Option<Open>,
    sockets: Option<Sockets>,
}

/// What was programmed when it was read.
#[derive(Debug, Default)]
pub struct Reading {
    splits: HashMap<KeyBytes, Known>,
    leaves: HashMap<u32, Count>,
    /// `None` without a table of live sockets.
    sockets: Option<SocketUse>,
    /// Frontends whose records do not fit together, or that no agent wrote; the kernel may
    /// let connections to them pass.
    pub inconsistent: usize,
    /// Verdicts on connections to frontends since the maps were made.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// How full the maps are, by their names: those of a [`View`](super::View), and the table of
    /// live sockets if there is one.
    pub maps: BTreeMap<&'static str, MapUse>,
}

/// What a frontend does.
#[derive(Debug)]
pub struct FrontendReading {
    /// Kind of the object that asks for it.
    pub kind: &'static str,
    /// Namespace of the object that asks for it.
    pub namespace: Box<str>,
    /// Name of that object.
    pub split: Box<str>,
    /// Namespace of the root Service.
    pub root_namespace: Box<str>,
    /// Its name.
    pub root: Box<str>,
    /// Whether it is the agent's own, for its self-test.
    pub is_self_test: bool,
    /// What happens to connections.
    pub decision: Decision,
    /// The leaves, in their order.
    pub leaves: Box<[LeafReading]>,
}

impl FrontendReading {
    /// The object that asks for it.
    #[must_use]
    pub fn object(&self) -> ObjectReference {
        ObjectReference {
            kind: self.kind.to_owned(),
            name: ObjectName::new(&*self.namespace, &*self.split),
        }
    }
}

/// A programmed leaf.
#[derive(Debug)]
pub struct LeafReading {
    /// The Service.
    pub service: Box<str>,
    /// Its weight as configured, times the power of ten that makes all weights of the split whole.
    pub weight: u64,
    /// Whether it takes its share.
    pub state: LeafState,
    /// Whether its share of the connections is refused, since it has no endpoints.
    pub is_refused: bool,
    /// How many endpoints it has.
    pub endpoints: u32,
    id: u32,
    incarnation: u32,
    /// Where its counter is in `COUNTERS`, and what that said last.
    counter: CounterPlace,
    counted: u64,
}

#[derive(Debug)]
struct Known {
    /// Which record it leads to.
    current: CurrentRecord,
    frontend: FrontendReading,
    round: u64,
}

/// Connections of a leaf over all changes.
#[derive(Debug, Default)]
struct Count {
    connections: u64,
    refused: u64,
    /// `None` while there are none, as of most leaves on most nodes: it is 900 bytes.
    outcomes: Option<Box<OutcomeCounts>>,
    /// Whether it must be asked for.
    is_stale: bool,
    /// Whether it must be asked for once more: a program counts in two places, one after the other,
    /// and may have been between them.
    is_unsettled: bool,
    round: u64,
}

#[derive(Debug)]
struct Open {
    maps: Maps,
    id: u32,
    round: u64,
    keys: Vec<KeyBytes>,
    indexes: Vec<u32>,
    reading: Reading,
}

impl Reading {
    /// What each frontend does, in no order.
    pub fn splits(&self) -> impl Iterator<Item = &FrontendReading> {
        self.splits.values().map(|known| &known.frontend)
    }

    /// Connections that a leaf was given since it became part of the split, over all frontends
    /// of its root.
    #[must_use]
    pub fn connections(&self, leaf: &LeafReading) -> u64 {
        let count = self.leaves.get(&leaf.id);
        count.map_or(0, |count| count.connections)
    }

    /// Connections that were refused because the leaf had no endpoints, since it became part of
    /// the split, over all frontends of its root.
    #[must_use]
    pub fn refused(&self, leaf: &LeafReading) -> u64 {
        let count = self.leaves.get(&leaf.id);
        count.map_or(0, |count| count.refused)
    }
}

impl Reading {
    /// What came of the connections to a leaf since it became part of the split, over all frontends
    /// of its root; `None` if nothing did.
    #[must_use]
    pub fn outcomes(&self, leaf: &LeafReading) -> Option<&OutcomeCounts> {
        self.leaves.get(&leaf.id)?.outcomes.as_deref()
    }

    /// Connections to a leaf that have not ended, over all frontends of its root, as far as
    /// their sockets have a slot in the table of live sockets; `None` if there is none.
    #[must_use]
    pub fn open(&self, leaf: &LeafReading) -> Option<u64> {
        Some(self.sockets.as_ref()?.open((leaf.id, leaf.incarnation)))
    }
}

impl Count {
    /// Whether something may come of a connection, though there are no new ones.
    fn has_unended(&self) -> bool {
        self.connections
            > self
                .outcomes
                .as_ref()
                .map_or(0, |outcomes| outcomes.ended())
    }
}

impl FrontendReading {
    fn new(view: FrontendView) -> Self {
        let first = view.record.first_counter;
        let leaves = view.plan.leaves.into_iter().zip(&view.leaves).zip(0..);
        Self {
            kind: view.plan.origin.kind,
            is_self_test: view.plan.origin.is_self_test(),
            namespace: view.plan.origin.namespace.into(),
            split: view.plan.origin.name.into(),
            root_namespace: view.plan.root.namespace.into(),
            root: view.plan.root.name.into(),
            decision: view.plan.decision,
            leaves: leaves
                .map(|((leaf, counts), index)| LeafReading {
                    is_refused: leaf.is_refused(),
                    service: leaf.service.into(),
                    weight: leaf.weight,
                    state: leaf.state,
                    endpoints: u32::try_from(leaf.endpoints.len()).unwrap_or(u32::MAX),
                    id: counts.leaf_id,
                    incarnation: counts.incarnation,
                    counter: CounterPlace::of_leaf(first, index),
                    counted: counts.connections,
                })
                .collect(),
        }
    }
}

impl Reader {
    /// One that has read nothing yet.
    #[must_use]
    pub fn new(pins: PinDirectory) -> Self {
        Self {
            pins,
            open: None,
            sockets: None,
        }
    }

    /// Reads what is programmed now.
    ///
    /// # Errors
    ///
    /// If nothing is pinned, or the maps are of another shape, or cannot be read.
    pub fn read(&mut self) -> Result<&Reading, MapsError> {
        // Others may have been put to work in the place of those that are open.
        let pinned = pinned_id(&self.pins)?;
        if self
            .open
            .as_ref()
            .is_none_or(|open| pinned != Some(open.id))
        {
            self.open = None;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::new(&self.pins)?,
        };
        // What failed is opened anew the next time.
        open.read()?;
        // It may be another one, though the other maps are the same.
        let pinned = Sockets::pinned_id(&self.pins);
        if self.sockets.as_ref().map(Sockets::id) != pinned {
            self.sockets = Sockets::open(&self.pins)?;
        }
        open.reading.sockets = self.sockets.as_ref().map(Sockets::usage);
        if let Some(usage) = &open.reading.sockets {
            open.reading.maps.insert(SOCKETS, usage.slots);
        }
        Ok(&self.open.insert(open).reading)
    }
}

/// The id of the map of frontends that is at work, if there is one.
fn pinned_id(pins: &PinDirectory) -> Result<Option<u32>, MapsError> {
    let Some(layout) = pins.layout_at_work()? else {
        return Ok(None);
    };
    let info = MapInfo::from_pin(layout.map("FRONTENDS")).ok();
    Ok(info.map(|info| info.id()))
}

impl Open {
    fn new(pins: &PinDirectory) -> Result<Self, MapsError> {
        // Checks the shapes.
        let maps = Maps::at_work(pins, Access::Read)?;
        Ok(Self {
            id: maps.frontend_list.id(),
            maps,
            round: 0,
            keys: vec![KeyBytes::default(); BATCH],
            indexes: vec![0; BATCH],
            reading: Reading::default(),
        })
    }

    fn read(&mut self) -> Result<(), MapsError> {
        self.round += 1;
        self.reading.inconsistent = 0;
        let mut position = None;
        loop {
            let (count, next) = self.list(position)?;
            for index in 0..count {
                self.look(self.keys[index], self.indexes[index]);
            }
            position = next;
            if position.is_none() {
                break;
            }
        }
        self.forget();
        self.count();
        self.reading.verdicts = verdicts(&self.maps)?;
        self.reading.maps = self.entries().map_use(&self.maps);
        Ok(())
    }

    /// Asks for the next frontends.
    fn list(&mut self, position: Option<Position>) -> Result<(usize, Option<Position>), MapsError> {
        self.maps
            .frontend_list
            .next(position, &mut self.keys, &mut self.indexes)
            .map_err(|error| MapsError::access("list", "FRONTENDS")(error.into()))
    }

    /// Notes a frontend, whose place in `CURRENT` this is.
    fn look(&mut self, bytes: KeyBytes, index: u32) {
        let Ok(key) = bytemuck::checked::try_pod_read_unaligned::<FrontendKey>(&bytes) else {
            self.reading.inconsistent += 1;
            return;
        };
        let current = self.maps.current.read(index);
        let is_known = self.reading.splits.get(&bytes).is_some_and(|known| {
            Some(known.current) == current && confirmed(&self.maps, &key, known.current).is_some()
        });
        if !is_known {
            let new = match read_split(&self.maps, &key, &bytes) {
                Read::Frontend(view, current) => Some(Known {
                    current,
                    frontend: FrontendReading::new(*view),
                    round: self.round,
                }),
                Read::Inconsistent => {
                    self.reading.inconsistent += 1;
                    None
                }
                Read::Gone => None,
            };
            let old = match new {
                Some(new) => self.reading.splits.insert(bytes, new),
                None => self.reading.splits.remove(&bytes),
            };
            // A program that still runs may count for the old one.
            self.suspect(old.as_ref());
        }
        let Some(known) = self.reading.splits.get_mut(&bytes) else {
            return;
        };
        known.round = self.round;
        for leaf in &mut known.frontend.leaves {
            let counted = self.maps.counters.counted(leaf.counter);
            let count = self.reading.leaves.entry(leaf.id).or_default();
            count.is_stale |= !is_known || counted != leaf.counted;
            count.round = self.round;
            leaf.counted = counted;
        }
    }

    /// Forgets what is no longer programmed.
    fn forget(&mut self) {
        let round = self.round;
        let gone: Vec<Known> = self
            .reading
            .splits
            .extract_if(|_, known| known.round != round)
            .map(|(_, known)| known)
            .collect();
        for known in &gone {
            self.suspect(Some(known));
        }
        self.reading.leaves.retain(|_, count| count.round == round);
    }

    /// The leaves of what is no longer programmed may be those of others, which go on.
    fn suspect(&mut self, old: Option<&Known>) {
        for leaf in old.into_iter().flat_map(|old| &old.frontend.leaves) {
            if let Some(count) = self.reading.leaves.get_mut(&leaf.id) {
                count.is_stale = true;
            }
        }
    }

    /// Asks for the counters that may have grown.
    fn count(&mut self) {
        for (id, count) in &mut self.reading.leaves {
            if count.is_stale || count.is_unsettled {
                count.is_unsettled = std::mem::take(&mut count.is_stale);
                count.connections = self.maps.leaf_stats.sum(*id).unwrap_or_default();
                count.refused = self.maps.leaf_refusals.count(*id);
            } else if !count.has_unended() {
                continue;
            }
            let outcomes = OutcomeCounts::of(&self.maps, *id);
            // Of an end that is just being counted, the bytes may come after it.
            let before = count
                .outcomes
                .as_ref()
                .map_or(0, |outcomes| outcomes.ended());
            count.is_unsettled |= outcomes.ended() != before;
            count.outcomes = (outcomes != OutcomeCounts::default()).then(|| outcomes.into());
        }
    }

    fn entries(&self) -> Entries {
        let splits = self.reading.splits();
        let mut entries = Entries {
            frontends: self.reading.splits.len() + self.reading.inconsistent,
            leaf_ids: self.reading.leaves.len(),
            ..Entries::default()
        };
        for split in splits {
            let endpoints = split.leaves.iter().map(|leaf| leaf.endpoints as usize);
            entries.add_split(split.leaves.len(), endpoints.sum());
        }
        entries
    }
}
